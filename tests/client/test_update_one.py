"""`Client.spans.update`: one span at rest, or its trace, as an application updates it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.trace import Status, StatusCode
from tests.store.contract import ended_span, metadata, trace_hex

import otel_metadata as om
from otel_metadata.errors import ConfigurationError, InvalidSpanRefError, SpanNotFoundError
from otel_metadata.store.sqlite.store import SqliteStore

SPAN = f"{1:016x}"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[om.Client]:
    with closing(SqliteStore(tmp_path / "spans.db")) as store:
        store.write([ended_span(1, trace_id=5, fields=metadata(a=1, b=1)), ended_span(2, trace_id=5)])
    with om.Client(f"sqlite:///{tmp_path / 'spans.db'}") as client:
        yield client


@pytest.mark.parametrize("target", [SPAN, om.SpanRef(5, 1), f"00-{trace_hex(5)}-{SPAN}-01"])
def test_a_span_is_updated_by_whatever_names_it(client: om.Client, target: str | om.SpanRef) -> None:
    """What is not named stays; None is a value."""
    report = client.spans.update(target, metadata={"b": None}, tags=["vip"], status=404, output=None)
    found = client.spans.get(SPAN)
    assert report.to_dict() == {"spans_processed": 1, "spans_updated": 1, "spans_failed": 0, "errors": []}
    assert (found.metadata, found.tags, found.status_code, found.output) == ({"a": 1, "b": None}, ("vip",), 404, None)


def test_its_trace_is_updated_for_all_of_its_spans(client: om.Client) -> None:
    """The level decides; the span itself is not changed."""
    client.spans.update(SPAN, level="trace", metadata={"plan": "free"}, name="visit", user_id="u-1")
    found = client.spans.get(f"{2:016x}")
    assert (found.trace_metadata, found.trace_name, found.user_id) == ({"plan": "free"}, "visit", "u-1")
    assert client.spans.get(SPAN).metadata == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    "target",
    [trace_hex(5), f" {trace_hex(5)} ", uuid.UUID(int=5), str(uuid.UUID(int=5)), 5, om.SpanRef(5, 0)],
    ids=repr,
)
def test_a_trace_is_updated_by_its_id(client: om.Client, target: str | om.SpanRef | int | uuid.UUID) -> None:
    """Where a trace is meant none of its spans need be known."""
    client.spans.update(target, level="trace", metadata={"plan": "free"})
    assert client.spans.get(SPAN).trace_metadata == {"plan": "free"}
    assert len(client.spans.list(trace_id=uuid.UUID(int=5))) == 2
    assert client.spans.get(SPAN, trace_id=5).span_id == SPAN


def test_an_unknown_trace_is_told(client: om.Client) -> None:
    """Nothing waits for a trace that may come later; and a trace is no span."""
    with pytest.raises(SpanNotFoundError, match=trace_hex(6)):
        client.spans.update(trace_hex(6), level="trace", name="visit")
    with pytest.raises(InvalidSpanRefError):
        client.spans.update(trace_hex(5), name="visit")


@pytest.mark.parametrize("status", [StatusCode.ERROR, Status(StatusCode.ERROR, "why"), "Error"], ids=repr)
def test_a_status_is_read_as_in_an_application(client: om.Client, status: StatusCode) -> None:
    """OpenTelemetry's own objects, with what they say; UNSET changes nothing."""
    client.spans.update(SPAN, status=status, tags=(tag for tag in "ab"))
    client.spans.update(SPAN, status=StatusCode.UNSET, name="again")
    found = client.spans.get(SPAN)
    assert (found.status_code, found.tags) == ("ERROR", ("a", "b"))
    assert found.status_message == (status.description if isinstance(status, Status) else None)


def test_the_clean_up_is_that_of_every_update(client: om.Client) -> None:
    """What it changed is a note of the report."""
    report = client.spans.update(SPAN, metadata={"a": float("inf")})
    assert client.spans.get(SPAN).metadata["a"] == "Infinity"
    assert report.notes == ("metadata.a: Infinity became text",)


def test_nothing_given_changes_nothing(client: om.Client) -> None:
    """An update of nothing is none, and no error."""
    before = client.spans.get(SPAN)
    assert client.spans.update(SPAN).spans_updated == 1
    assert client.spans.get(SPAN) == before


def test_an_unknown_span_is_told(client: om.Client) -> None:
    """Nothing waits for a span that may come later."""
    with pytest.raises(SpanNotFoundError, match="f" * 16):
        client.spans.update("f" * 16, metadata={"a": 2})
    with pytest.raises(SpanNotFoundError):
        client.spans.update(om.SpanRef(6, 1), metadata={"a": 2})
    with pytest.raises(InvalidSpanRefError):
        client.spans.update("x", metadata={"a": 2})


@pytest.mark.parametrize("given", [{"attributes": {"a": 1}}, {"status": "ok"}, {"status_message": "m"}])
def test_what_only_a_span_has_is_refused_for_a_trace(client: om.Client, given: dict[str, object]) -> None:
    """It is not set on the span instead."""
    with pytest.raises(ConfigurationError, match="attributes, status and status_message"):
        client.spans.update(SPAN, level="trace", metadata={"a": 2}, **given)  # type: ignore[arg-type] # one of them
    assert client.spans.get(SPAN).trace_metadata == {}


def test_what_is_no_level_is_refused(client: om.Client) -> None:
    """It would be stored, and never shown."""
    with pytest.raises(ConfigurationError, match="'session'; expected span or trace"):
        client.spans.update(SPAN, level="session", metadata={"a": 2})  # type: ignore[arg-type] # what is no level
