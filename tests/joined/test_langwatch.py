"""LangWatch's SDK and ours in one application.

Run by `make test-backends`, in an environment that has the SDK.
"""

from __future__ import annotations

import langwatch
import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.joining.receiver import Receiver

import otel_metadata as om

KEY = "sk-lw-0123456789abcdef"


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def provider(receiver):
    """The SDK is set up once a process, on one provider."""
    provider = TracerProvider(shutdown_on_exit=False)
    langwatch.setup(api_key=KEY, endpoint_url=receiver.url, tracer_provider=provider, instrumentors=[])
    yield provider
    provider.shutdown()


@pytest.mark.parametrize("adopt", [False, True], ids=["beside", "adopt"])
def test_every_span_arrives_once(receiver, provider, monkeypatch, adopt):
    """Its own spans, those of the application, and ours; its objects are targets."""
    monkeypatch.setenv("LANGWATCH_API_KEY", KEY)
    monkeypatch.setenv("LANGWATCH_ENDPOINT", receiver.url)
    receiver.spans.clear()
    om.configure("langwatch", tracer_provider=provider, adopt=adopt)
    with langwatch.trace(name="trace"):
        with langwatch.span(name="theirs") as theirs:
            assert om.update_span(theirs, metadata={"live": 1}).route == "live"
        with provider.get_tracer("application").start_as_current_span("request"), om.start_span("ours"):
            pass
    assert om.update_span(theirs, metadata={"after": 1}).route == ("in_flight" if adopt else "late")
    provider.force_flush()
    om.flush()
    assert set(receiver.counts.values()) == {1}
    assert {"theirs", "request", "ours"} <= set(receiver.names)


def test_what_its_spans_say_is_found(provider, tmp_path):
    """In a store beside it: input, output and kind under the names of a filter."""
    store = f"sqlite:///{tmp_path}/spans.db"
    om.configure(store, tracer_provider=provider)
    with langwatch.trace(name="trace"), langwatch.span(name="ask", type="llm", input="Which animal?") as span:
        span.update(output={"answer": "The brown fox, é."})
    om.flush()
    with om.Client(store) as client:
        found = client.spans.list(filter="span_kind = 'LLM' AND input LIKE '%animal%' AND output LIKE '%fox, é%'")
    assert [record.name for record in found.spans] == ["ask"]
