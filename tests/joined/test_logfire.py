"""Logfire and ours in one application: its provider is a proxy, its processors wrap one another and scrub secrets.

Run by `make test-backends`, in an environment that has it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import logfire
import pytest
from tests.joining.receiver import Receiver

import otel_metadata as om

TOKEN = "pylf_v1_us_0123456789"


class Logfires(Receiver):
    """Spans that are still open come ahead, under ids of their own: they are left out."""

    @property
    def own(self):
        return [one for one in super().own if one[2].get("logfire.span_type") != "pending_span"]


@pytest.fixture
def receiver(monkeypatch):
    # Logfire asks for the project of the token on a thread of its own; a failure there is none of the test's.
    monkeypatch.setattr(logfire._internal.config.LogfireConfig, "_initialize_credentials_from_token", lambda *_: None)
    with Logfires() as receiver:
        yield receiver


@pytest.fixture
def instance(receiver):
    made = logfire.configure(
        local=True,
        token=TOKEN,
        send_to_logfire=True,
        console=False,
        advanced=logfire.AdvancedOptions(base_url=receiver.url),
    )
    yield made
    made.shutdown()


@pytest.fixture
def same(receiver, monkeypatch, instance):
    """Logfire's own place: what `otlp` means with this environment."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"Authorization={TOKEN}")
    return instance.config.get_tracer_provider()


def work(instance, provider):
    with instance.span("request", password="hunter2") as span:
        om.update_current_span(metadata={"live": 1})
        with om.start_span("ours"):
            pass
        with provider.get_tracer("application").start_as_current_span("inner"):
            pass
    return span


@pytest.mark.parametrize("adopt", [False, True], ids=["beside", "adopt"])
def test_every_span_arrives_once(receiver, instance, same, adopt):
    """By Logfire's exporter, without the secrets that Logfire takes out."""
    om.configure("otlp", tracer_provider=same, adopt=adopt)
    span = work(instance, same)
    assert om.update_span(span, metadata={"after": 2}).route == ("in_flight" if adopt else "late")
    assert om.flush()
    assert om.update_span(span, metadata={"late": 3}).route == "late"
    assert om.flush()
    assert receiver.names == ["inner", "ours", "request"]
    attributes = receiver.attributes("request")
    assert attributes["metadata.live"] == 1
    assert "hunter2" not in json.dumps([one[2] for one in receiver.spans])
    assert {headers["user-agent"].partition("/")[0] for *_, headers in receiver.own} == {"logfire"}
    late = {name: value for patch in receiver.patches for name, value in patch.items()}
    assert late["metadata.late"] == 3
    assert (attributes if adopt else late)["metadata.after"] == 2


@pytest.mark.parametrize("adopt", [False, True], ids=["beside", "adopt"])
@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_every_span_arrives_at_a_shutdown(receiver, instance, same, adopt, first):
    """Whoever is shut down first."""
    om.configure("otlp", tracer_provider=same, adopt=adopt)
    work(instance, same)
    for shutdown in (instance.shutdown, om.shutdown) if first == "theirs" else (om.shutdown, instance.shutdown):
        shutdown()
    assert receiver.names == ["inner", "ours", "request"]


@pytest.mark.parametrize("adopt", [False, True], ids=["beside", "adopt"])
def test_tail_sampling_decides_for_every_span(receiver, monkeypatch, adopt):
    """Spans that it drops do not leave by us, those that it keeps leave once, when it has decided."""
    instance = logfire.configure(
        local=True,
        token=TOKEN,
        send_to_logfire=True,
        console=False,
        advanced=logfire.AdvancedOptions(base_url=receiver.url),
        sampling=logfire.SamplingOptions.level_or_duration(duration_threshold=3600),
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"Authorization={TOKEN}")
    om.configure("otlp", tracer_provider=instance.config.get_tracer_provider(), adopt=adopt)
    with instance.span("dropped"), om.start_span("dropped too"):
        pass
    assert om.flush()
    with instance.span("kept"):
        with instance.span("inner"):
            pass
        assert om.flush()
        instance.error("failed", password="hunter2")
    assert om.flush()
    assert receiver.names == ["failed", "inner", "kept"]
    assert "hunter2" not in json.dumps([one[2] for one in receiver.spans])
    instance.shutdown()


def test_another_place_gets_every_span_too(receiver, instance, tmp_path):
    """A store beside Logfire: both have what was set live."""
    store = f"sqlite:///{tmp_path}/spans.db"
    provider = instance.config.get_tracer_provider()
    om.configure(store, tracer_provider=provider)
    span = work(instance, provider)
    assert om.update_span(span, metadata={"after": 2}).route == "in_flight"
    assert om.flush()
    instance.force_flush()
    assert receiver.names == ["inner", "ours", "request"]
    assert receiver.attributes("request")["metadata.live"] == 1
    found = {record.name: record.metadata for record in om.Client(store).spans.list()}
    assert found == {"request": {"live": 1, "after": 2}, "ours": {}, "inner": {}}


def test_its_spans_are_targets(instance, tmp_path):
    """While they are live, and after their end; one that was never entered is none, and raises nothing."""
    om.configure(f"sqlite:///{tmp_path}/spans.db", tracer_provider=instance.config.get_tracer_provider())
    with instance.span("request") as span:
        assert om.update_span(span, metadata={"a": 1}).route == "live"
    assert om.score_span(span, "Quality", score=1.0)
    assert om.annotate_span(span, "note", text="x")
    assert om.update_trace(span, user_id="u-1")
    assert not om.update_span(instance.span("never entered"), metadata={"a": 1})


PROGRAM = """
import json, sys, logfire, otel_metadata as om
logfire.configure(send_to_logfire=False, console=False)
for _ in range(2):
    om.configure(sys.argv[1])
@om.observe
def answer():
    with logfire.span("inner") as span:
        om.update_current_span(metadata={"a": 1})
    return span
span = answer()
om.flush()
om.update_span(span, metadata={"late": 2})
om.flush()
print(json.dumps(sorted([record.name, record.metadata] for record in om.Client(sys.argv[1]).spans.list())))
"""


def test_the_global_provider_is_joined(tmp_path):
    """`logfire.configure()` and `configure(...)`, one line each."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LOGFIRE_"))}
    program = tmp_path / "program.py"  # Logfire reads the source of its caller
    program.write_text(PROGRAM)
    run = subprocess.run(
        [sys.executable, str(program), f"sqlite:///{tmp_path}/spans.db"],
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [["answer", {}], ["inner", {"a": 1, "late": 2}]]
