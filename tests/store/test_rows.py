"""An ended span as a row: what comes from plain attributes, and what is kept whole."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from otel_metadata.delivery.in_flight import merged
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.errors import StoreError
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.store.sqlite.store import SqliteStore


def stored(attributes):
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    span = tracer.start_span("span", attributes=attributes)
    span.end()
    store = SqliteStore(":memory:")
    store.write([span])
    record = store.query(SpanQuery())[0]
    store.close()
    return record


def test_a_number_for_a_user_id_is_kept_as_text():
    """OpenTelemetry lets a number through; a record's user id is a text."""
    assert stored({"user.id": 42}).user_id == "42"


def test_a_listed_attribute_of_the_application_is_read_as_json():
    """What `otel_metadata.json` lists is JSON, also under a name that is none of ours."""
    record = stored({"plan": "null", "note": "null", "otel_metadata.json": ["plan"]})
    assert record.attributes == {"plan": None, "note": "null"}


def test_what_a_span_says_of_its_versions_decides_over_a_patch():
    """A span that came over OTLP has what was joined to it in flight, and an earlier patch does not replace that."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    span = tracer.start_span("old", start_time=1)
    span.end(end_time=10)
    fields = {
        ("span", "metadata", "k"): ("joined", (30, 7)),
        ("span", "name", ""): ("joined", (30, 7)),
        ("span", "status", ""): ("error", (30, 7)),
        ("span", "status_message", ""): ("joined", (30, 7)),
    }
    earlier = {name: ("ok" if value == "error" else "patched", (20, 7)) for name, (value, _) in fields.items()}
    merged_span, _ = merged(span, fields, OtelDialect(), is_local_root=True)
    plain = ReadableSpan(
        name=merged_span.name,
        context=merged_span.context,
        attributes=merged_span.attributes,
        status=merged_span.status,
        start_time=merged_span.start_time,
        end_time=merged_span.end_time,
    )
    store = SqliteStore(":memory:")

    store.write([plain])
    store.patch([Patch(SpanRef(span.context.trace_id, span.context.span_id), earlier)])

    record = store.query(SpanQuery())[0]
    store.close()
    assert (record.metadata, record.name, record.status_code, record.status_message, record.attributes) == (
        {"k": "joined"},
        "joined",
        "ERROR",
        "joined",
        {},
    )


def test_a_long_attribute_is_kept_whole():
    """What OpenTelemetry let through is not cut on its way into the store."""
    text = "x" * 3_000_000
    assert stored({"llm.prompt": text}).attributes["llm.prompt"] == text


def test_reading_makes_no_file(tmp_path):
    """A store that is only read is not made by a misspelt name."""
    store = SqliteStore(tmp_path / "typo.db", create=False)
    with pytest.raises(StoreError, match="no such file"):
        store.query(SpanQuery())
    assert list(tmp_path.iterdir()) == []


def test_a_time_that_is_no_64_bit_number_is_a_store_error(tmp_path):
    """A span that somebody made by hand with an impossible time is refused, and nothing of its batch is written."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    good, bad = tracer.start_span("good"), tracer.start_span("bad", start_time=1 << 70)
    good.end()
    bad.end()
    store = SqliteStore(tmp_path / "spans.db")
    with pytest.raises(StoreError):
        store.write([good, bad])
    assert store.query(SpanQuery()) == []
    store.close()
