"""Credentials that others have set on a span: masked before it leaves, or is written, whatever else goes wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import Link
from tests.delivery.conftest import Scene
from tests.joining.receiver import Receiver

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import live_settings as settings
from otel_metadata.model.encoding import Encoded
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import ManualClock, RecordingSpanExporter

SECRET = "Bearer-xyz"
NAMES = ("gen_ai.headers", "http.request.header.authorization", "db.connection_string")
ATTRIBUTES = dict.fromkeys(NAMES, SECRET)


class Raises:
    """A dialect of somebody's that fails on every span."""

    def encode(self, span, fields, *, is_local_root):
        raise ValueError("no")


class Copies:
    """A dialect of somebody's that says the attributes again under another name."""

    def encode(self, span, fields, *, is_local_root):
        return Encoded({**span.attributes, "copy": repr(dict(span.attributes))})


def ended(tracer):
    """Open and end a span on which an instrumentor left credentials everywhere."""
    other = tracer.start_span("other")
    span = tracer.start_span("span", attributes=ATTRIBUTES, links=[Link(other.get_span_context(), ATTRIBUTES)])
    span.add_event("request", ATTRIBUTES)
    span.end()
    return om.SpanRef.from_span_context(span.get_span_context())


def leave(scene):
    """Export what waits; asking for the counts lets the outbox take in what has ended."""
    assert scene.stats.is_balanced
    scene.wait_and_step()


def shown(span) -> str:
    """Return all that an exporter may read of the attributes of a span."""
    parts = [span.attributes, *(event.attributes for event in span.events), *(link.attributes for link in span.links)]
    return repr([dict(part) for part in parts])


@pytest.mark.parametrize("is_updated", [False, True])
@pytest.mark.parametrize("dialect", [None, Raises(), Copies()])
def test_they_leave_masked_whatever_the_dialect_does(dialect, is_updated):
    """Also where it raises, and where it copies attributes."""
    scene = Scene(dialect=dialect)
    ref = ended(scene.tracer)
    if is_updated:
        assert om.update_span(ref, metadata={"a": 1}).route == "in_flight"
    leave(scene)

    span = scene.span(ref)
    assert SECRET not in shown(span)
    assert shown(span).count("<masked>") >= 3 * len(NAMES)
    scene.processor.shutdown()


@pytest.mark.parametrize("when", ["live", "in_flight", "late"])
@pytest.mark.parametrize("masks_credentials", [True, False])
def test_headers_that_are_set_through_us_are_masked_at_any_time(when, masks_credentials):
    """As an attribute of an update they are the same secret; with `mask_credentials=False` it is they alone."""
    scene = Scene()
    settings.use(replace(settings.in_force, masks_credentials=masks_credentials))
    span = scene.tracer.start_span("span")
    ref = om.SpanRef.from_span_context(span.get_span_context())
    if when != "live":
        span.end()
    if when == "late":
        leave(scene)
    assert om.update_span(ref, attributes={"gen_ai.headers": SECRET, "llm.headers": SECRET}).route == when
    span.end()
    leave(scene)

    said = {name[2]: value for patch in scene.patches.patches for name, (value, _) in patch.fields.items()}
    said.update(scene.span(ref).attributes)
    assert said["gen_ai.headers"] == said["llm.headers"] == "<masked>"
    scene.processor.shutdown()


def test_the_names_that_tell_follow_the_setting():
    """With `mask_credentials=False` what an instrumentor set leaves, but for headers."""
    scene = Scene()
    settings.use(replace(settings.in_force, masks_credentials=False))
    ref = ended(scene.tracer)
    leave(scene)
    assert dict(scene.span(ref).attributes) == {**ATTRIBUTES, "gen_ai.headers": "<masked>"}
    scene.processor.shutdown()


def test_a_held_span_is_written_without_them(tmp_path: Path):
    """The spool keeps what a destination holds; another process may read the file."""
    clock = ManualClock()
    spool = Spool(SpoolSettings(str(tmp_path / "spool.db")), clock=clock)
    exporter = RecordingSpanExporter()
    held = om.Destination("held", exporter, InMemoryPatchExporter(), hold_millis=60_000)
    processor = om.MetadataSpanProcessor(held, clock=clock, start_workers=False, spool=spool)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    ref = ended(provider.get_tracer("application"))
    assert om.update_span(ref, metadata={"kept": "visible"}).route == "in_flight"
    processor.workers[0].step()

    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"visible" in written
    assert b"http.request.header.authorization" in written
    assert SECRET.encode() not in written
    processor.shutdown()
    assert SECRET not in shown(next(span for span in exporter.spans if span.name == "span"))


@pytest.mark.parametrize("kind", [BatchSpanProcessor, SimpleSpanProcessor])
@pytest.mark.parametrize("way", ["adopted", "wrapped"])
def test_the_applications_exporter_gets_them_masked_where_we_send_by_it(way, kind):
    """Adopted: every span leaves by our outbox. Wrapped: it is a destination of ours."""
    provider = TracerProvider(shutdown_on_exit=False)
    with Receiver() as receiver:
        exporter = OTLPSpanExporter(f"{receiver.url}/v1/traces")
        if way == "adopted":
            provider.add_span_processor(kind(exporter))
            om.configure(receiver.url, tracer_provider=provider, adopt=True)
        else:
            om.configure(om.wrap_exporter(exporter), tracer_provider=provider)
        ref = ended(provider.get_tracer("application"))
        assert om.update_span(ref, metadata={"a": 1})
        assert om.flush()
        (attributes,) = [attributes for name, _, attributes, _ in receiver.spans if name == "span"]
        om.shutdown()
        provider.shutdown()
    assert {name: attributes[name] for name in NAMES} == dict.fromkeys(NAMES, "<masked>")
