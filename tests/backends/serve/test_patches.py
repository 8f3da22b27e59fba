"""Updates for a server of ours: exact on the wire, one outcome each, and nothing believed that is not an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.backends.vendors.serve import Serve, outcomes
from tests.backends.vendors.server import KEY, Response

from otel_metadata.backends.serve.patches import ServePatchExporter
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.outcome import Delivered, Outcome, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

TRACE = 0x0AF7651916CD43DD8448EB211C80319C


@pytest.fixture
def double() -> Iterator[Serve]:
    with Serve() as double:
        yield double


@pytest.fixture
def exporter(double: Serve) -> Iterator[ServePatchExporter]:
    exporter = ServePatchExporter(double.url)
    yield exporter
    exporter.shutdown()


def patches(count: int) -> list[Patch]:
    return [Patch(SpanRef(TRACE, at + 1), {("span", "metadata", "k"): (at, (at, 7))}) for at in range(count)]


def kinds(found: Any) -> list[type[Outcome]]:
    return [type(one) for one in found]


def test_every_field_is_sent_with_its_version_and_its_author(double, exporter):
    """64 bits are text, the trace itself has no span id, and a span whose trace is unknown has no trace id."""
    AUTHORS.add((1 << 64) - 1, "page:ada")
    last = (1 << 63) - 1
    fields = {
        ("span", "metadata", "k"): ({"a": [None, 1.0, 1]}, (last, (1 << 64) - 1)),
        ("trace", "tag", "vip"): (True, (1, 0)),
    }
    targets = (SpanRef(TRACE, 1), SpanRef(TRACE, 0), SpanRef(0, 1))
    found = exporter.export([Patch(target, fields) for target in targets], timeout_millis=5_000)
    assert kinds(found) == [Delivered] * 3
    trace_id = f"{TRACE:032x}"
    assert [(one["trace_id"], one["span_id"]) for one in double.updates] == [
        (trace_id, f"{1:016x}"),
        (trace_id, ""),
        (None, f"{1:016x}"),
    ]
    assert double.updates[0]["fields"] == [
        {
            "level": "span",
            "kind": "metadata",
            "key": "k",
            "value": {"a": [None, 1.0, 1]},
            "time_ns": f"{last}",
            "writer": "f" * 16,
        },
        {"level": "trace", "kind": "tag", "key": "vip", "value": True, "time_ns": "1", "writer": "0" * 16},
    ]
    assert double.authors["f" * 16] == "page:ada"


def test_an_update_that_waits_for_its_span_has_arrived_and_one_that_is_refused_has_not(double, exporter):
    """Each has its own outcome, with the reason that the server gives if it is one of ours."""
    given = [
        {"status": "updated"},
        {"status": "pending"},
        {"status": "failed", "reason": "segment_not_found", "message": f"no {KEY}"},
        {"status": "failed", "reason": "something new"},
        {"status": "failed", "reason": ["x"]},
    ]
    double.fault = lambda _: Response(200, {"outcomes": given})
    found = exporter.export(patches(5), timeout_millis=5_000)
    assert kinds(found) == [Delivered, Delivered, Rejected, Rejected, Rejected]
    assert [one.error.type for one in found[2:]] == ["segment_not_found", "patch_failure", "patch_failure"]
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"outcomes": None},
        {"outcomes": {"0": {"status": "updated"}}},
        outcomes("updated"),
        outcomes(*["updated"] * 3),
        outcomes("ok", "ok"),
        {"outcomes": [None, "updated"]},
        {"outcomes": [{"status": True}, {"status": ["updated"]}]},
        {"data": [], "outcomes": []},
    ],
    ids=["empty", "null", "object", "too-few", "too-many", "another-word", "no-objects", "wrong-types", "none"],
)
def test_a_success_that_is_no_answer_to_the_batch_is_tried_again(double, exporter, body):
    """A proxy or another product answers: nothing of it counts as delivered, and nothing is lost."""
    double.fault = lambda _: Response(200, body)
    found = exporter.export(patches(2), timeout_millis=5_000)
    assert kinds(found) == [Retry, Retry]
    assert "check the endpoint" in found[0].error.message


@pytest.mark.parametrize("status", [400, 422, 409])
def test_one_update_that_the_server_cannot_take_keeps_no_other_one_back(double, exporter, status):
    """A batch that is refused as a whole is halved until the update is alone."""
    bad = f"{3:016x}"

    def fault(request):
        if any(one["span_id"] == bad for one in request.json["updates"]):
            return Response(status, {"title": "no"})
        return None

    double.fault = fault
    found = exporter.export(patches(7), timeout_millis=5_000)
    assert kinds(found) == [Delivered, Delivered, Rejected, *[Delivered] * 4]
    assert [one["span_id"] for one in double.updates] == [f"{at:016x}" for at in (1, 2, 4, 5, 6, 7)]


def test_a_batch_that_is_too_large_is_left_to_the_outbox(double, exporter):
    """It halves the batch, and then the fields of one update."""
    double.fault = lambda _: Response(413, {"title": "too large"})
    found = exporter.export(patches(4), timeout_millis=5_000)
    assert {one.error.type for one in found} == {"too_large"}
    assert len(double.requests) == 1


def test_an_answer_that_is_longer_than_is_read_is_asked_for_in_parts(double, exporter):
    """What the server says of each update may be long."""
    double.fault = lambda request: Response(
        200, outcomes(*["updated"] * len(request.json["updates"]), message="x" * 30_000)
    )
    assert kinds(exporter.export(patches(5), timeout_millis=5_000)) == [Delivered] * 5


def test_a_server_that_stops_answering_ends_the_batch(double, exporter):
    """After a refused half, a 503 for the next one is the outcome of all that follow."""
    answers = iter([Response(400, {}), None, Response(503, {}, {"Retry-After": "3"})])
    double.fault = lambda _: next(answers)
    found = exporter.export(patches(4), timeout_millis=5_000)
    assert kinds(found) == [Delivered, Delivered, Retry, Retry]
    assert found[2].after_millis == 3_000
