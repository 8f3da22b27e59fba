"""Ids that a backend gave a span reach the patch, whichever way the update took, the spool included."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult

import otel_metadata as om
from otel_metadata.model.encoding import Encoded
from otel_metadata.spool.frames import SpooledSpan, SpooledUpdate, frame, read_frame, row_from_json

IDS = {"galileo": "span-uuid"}


class SaysNothing:
    """A dialect that cannot say anything on a span, so everything follows as a patch."""

    def encode(self, span, fields, *, is_local_root):
        return Encoded(dict(span.attributes or {}), remainder=fields)


def named(ref: om.SpanRef, **identifiers: str) -> om.SpanRef:
    for backend, identifier in identifiers.items():
        ref = ref.with_backend_id(backend, identifier)
    return ref


def sent_ids(scene):
    return [dict(patch.target.backend_ids) for patch in scene.patches.patches]


def test_those_of_a_live_update_are_on_what_follows_the_span(make_scene):
    """What a dialect cannot say of a live update leaves with the id that the update brought."""
    scene = make_scene(dialect=SaysNothing())
    with scene.tracer.start_as_current_span("span"):
        assert om.update_span(named(om.current_span_ref(), **IDS), metadata={"a": 1}).route == "live"
    scene.wait_and_step()
    scene.wait_and_step()
    assert sent_ids(scene) == [IDS]


def test_those_of_an_update_in_flight_are_on_what_follows_the_span(make_scene):
    """What a dialect cannot say of a joined update leaves with the id that the update brought."""
    scene = make_scene(dialect=SaysNothing())
    assert om.update_span(named(scene.ended(), **IDS), metadata={"a": 1}).route == "in_flight"
    scene.wait_and_step()
    scene.wait_and_step()
    assert sent_ids(scene) == [IDS]


def test_those_of_an_update_in_flight_outlive_an_export_that_failed(make_scene):
    """What was joined to a span that was refused leaves as a patch with the id that the update brought."""
    scene = make_scene(span_retry_millis=0)
    scene.spans.answer = lambda: SpanExportResult.FAILURE
    om.update_span(named(scene.ended(), **IDS), metadata={"a": 1})
    scene.wait_and_step()
    scene.wait_and_step()
    assert sent_ids(scene) == [IDS]


def test_those_of_several_backends_add_up(scene):
    """Two updates that each bring another backend's id leave as one patch with both; of one backend's the later is."""
    for identifiers in ({"langfuse": "x"}, {"galileo": "old"}, IDS):
        om.update_span(named(scene.unseen(), **identifiers), metadata={"a": 1})
    scene.wait_and_step()
    assert sent_ids(scene) == [{"langfuse": "x", **IDS}]


def test_that_of_a_trace_goes_along_to_its_root(scene):
    """An update of a trace by its id, which lands on the root known here, keeps what a backend calls the trace."""
    root = scene.exported()
    om.update_trace(named(om.SpanRef(root.trace_id, 0), galileo="trace-uuid"), tags=["a"])
    scene.wait_and_step()
    assert sent_ids(scene) == [{"galileo.trace": "trace-uuid"}]
    assert scene.patches.patches[0].target == root


@pytest.mark.parametrize("is_root_known", [True, False])
def test_that_of_a_span_is_never_taken_for_its_traces(scene, is_root_known):
    """An update of a trace by one of its spans hands on the id of the trace, not that of the span."""
    trace_id = scene.exported().trace_id if is_root_known else 0xABC
    child = named(om.SpanRef(trace_id, 99), **IDS, **{"galileo.trace": "trace-uuid"})
    om.update_trace(child, tags=["a"])
    scene.wait_and_step()
    assert sent_ids(scene) == [{"galileo.trace": "trace-uuid"}]


def test_the_spool_keeps_them(scene):
    """An update, and a span that is held, come back from disk with their ids."""
    span = scene.span(scene.exported())
    update = SpooledUpdate(1, "galileo", named(om.SpanRef(1, 2), **IDS), {}, 1, 1)
    held = SpooledSpan(2, "galileo", span, {}, 1, is_local_root=True, accepted_ns=1, backend_ids=IDS)
    again = [row_from_json(read_frame(frame(row, row.id))) for row in (update, held)]
    assert [dict(again[0].target.backend_ids), dict(again[1].backend_ids)] == [IDS, IDS]
