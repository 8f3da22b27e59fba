"""Langfuse's SDK and ours in one application: its processor filters, masks and marks; each span arrives once.

Run by `make test-backends`, in an environment that has the SDK (langfuse 5.0.4).
"""

from __future__ import annotations

import gzip

import langfuse
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.langfuse import PUBLIC_KEY, LangfuseDouble
from tests.backends.vendors.server import KEY
from tests.joining.receiver import spans_of

import otel_metadata as om
from otel_metadata.backends.langfuse import destination

EVERY = ["application", "generation", "observation", "ours"]


class Receiver(LangfuseDouble):
    """Counts what is sent, whether or not the server would keep it."""

    @property
    def spans(self):
        found = []
        for one in self.requests:
            if one.path.endswith("/otel/v1/traces"):
                body = gzip.decompress(one.body) if one.headers.get("content-encoding") == "gzip" else one.body
                found += spans_of(ExportTraceServiceRequest.FromString(body), dict(one.headers))
        return [one for one in found if one[0] in EVERY]

    @property
    def names(self):
        return sorted(one[0] for one in self.spans)

    def attributes(self, name):
        (found,) = [one[2] for one in self.spans if one[0] == name]
        return found

    def said(self, text):
        """How many requests of another kind hold a text."""
        return sum(text in one.body for one in self.requests if not one.path.endswith("/otel/v1/traces"))


@pytest.fixture
def receiver(monkeypatch):
    with Receiver(lists="always", version="4.59.0") as receiver:
        monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", PUBLIC_KEY)
        monkeypatch.setenv("LANGFUSE_SECRET_KEY", KEY)
        monkeypatch.setenv("LANGFUSE_BASE_URL", receiver.url)
        yield receiver


@pytest.fixture
def provider():
    return TracerProvider(shutdown_on_exit=False)


@pytest.fixture
def client(receiver, provider):
    """The SDK has one client for a public key, for as long as the process lives, unless it is told to forget it."""
    made = langfuse.Langfuse(tracer_provider=provider, flush_interval=3600)
    yield made
    made.shutdown()
    langfuse._client.resource_manager.LangfuseResourceManager._instances.clear()


def work(provider, client):
    """Make one span of each kind; Langfuse's filter refuses those of the application and ours."""
    with client.start_as_current_observation(name="observation", as_type="span") as observation:
        om.update_current_span(metadata={"live": 1})
        with om.start_span("ours"):
            pass
        with provider.get_tracer("application").start_as_current_span("application"):
            pass
        with client.start_as_current_observation(name="generation", as_type="generation"):
            pass
    return observation


@pytest.mark.parametrize("adopt", [False, True], ids=["beside", "adopt"])
@pytest.mark.parametrize("order", ["langfuse first", "ours first"])
def test_every_span_arrives_once(receiver, provider, request, adopt, order):
    """With values that came while it was live, and later."""
    if order == "ours first":
        om.configure("langfuse", tracer_provider=provider, adopt=adopt)
    client = request.getfixturevalue("client")
    if order == "langfuse first":
        om.configure("langfuse", tracer_provider=provider, adopt=adopt)
    observation = work(provider, client)
    receipt = om.update_span(observation, metadata={"after": 2})
    assert receipt
    assert receipt.route == ("in_flight" if adopt else "late")
    client.flush()
    assert om.flush()
    assert receiver.names == EVERY
    attributes = receiver.attributes("observation")
    if adopt:
        assert attributes["langfuse.observation.metadata.live"] == "1"
        assert attributes["langfuse.observation.metadata.after"] == "2"
    else:
        assert attributes["metadata.live"] == 1
        assert receiver.said(b"after")
    headers = {headers["x-langfuse-sdk-name"] for name, _, _, headers in receiver.spans if name == "observation"}
    assert headers == {"python"}


@pytest.mark.parametrize("adopt", [False, True], ids=["beside", "adopt"])
@pytest.mark.parametrize("first", ["langfuse", "provider", "ours"])
def test_every_span_arrives_at_a_shutdown(receiver, provider, client, adopt, first):
    """Whoever is shut down first."""
    om.configure("langfuse", tracer_provider=provider, adopt=adopt)
    work(provider, client)
    shutdowns = {"langfuse": client.shutdown, "provider": provider.shutdown, "ours": om.shutdown}
    for shutdown in (shutdowns.pop(first), *shutdowns.values()):
        shutdown()
    assert receiver.names == EVERY


def test_langfuses_mask_holds_for_adopted_spans(receiver, provider):
    """It is in the exporter that the application configured."""
    client = langfuse.Langfuse(tracer_provider=provider, flush_interval=3600, mask=lambda *, data, **_: "[masked]")
    om.configure("langfuse", tracer_provider=provider, adopt=True)
    with client.start_as_current_observation(name="observation", as_type="span", input="key") as observation:
        pass
    om.update_span(observation, metadata={"after": 2})
    assert om.flush()
    assert receiver.attributes("observation")["langfuse.observation.input"] == "[masked]"
    client.shutdown()
    langfuse._client.resource_manager.LangfuseResourceManager._instances.clear()


def test_two_projects_are_two_places(receiver, provider, client, caplog):
    """On one host, with different keys: each gets every span it would get alone."""
    om.configure(destination(public_key="pk-lf-other", secret_key="sk-lf-other"), tracer_provider=provider)
    work(provider, client)
    client.flush()
    om.flush()
    both = {name: sum(one[0] == name for one in receiver.spans) for name in EVERY}
    assert both["observation"] >= 2
    assert both["generation"] >= 2
    assert both["ours"] >= 1
    assert "same place" not in caplog.text


def test_langfuses_objects_are_targets(receiver, provider, client):
    """While they are live and after their end: an observation, its ids, and the span inside."""
    om.configure("langfuse", tracer_provider=provider, adopt=True)
    with client.start_as_current_observation(name="observation", as_type="span") as observation:
        assert om.update_span(observation, metadata={"live": 1}).route == "live"
    assert om.score_span(observation, "Quality", score=1.0).route == "in_flight"
    assert om.flush()
    assert om.update_span(observation, metadata={"late": 1}).route == "late"
    assert om.update_trace(observation, user_id="u-1")
    assert receiver.attributes("observation")["langfuse.observation.metadata.live"] == "1"
    assert om.flush()
    assert receiver.said(b"Quality")


def test_what_its_observations_say_is_found(receiver, provider, client, tmp_path):
    """In a store beside it: input, output and kind under the names of a filter."""
    store = f"sqlite:///{tmp_path}/spans.db"
    om.configure(store, tracer_provider=provider)
    with client.start_as_current_observation(
        name="ask", as_type="generation", input={"q": "Which animal?"}, model="gpt-5"
    ) as generation:
        generation.update(output="The brown fox, é.")
    om.flush()
    with om.Client(store) as stored:
        found = stored.spans.list(
            filter="span_kind = 'LLM' AND model = 'gpt-5' AND input LIKE '%animal%' AND output = 'The brown fox, é.'"
        )
    assert [record.name for record in found.spans] == ["ask"]
