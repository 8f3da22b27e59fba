"""Stored spans as they were at a time, and the history of their values.

A field is named as a filter names it, without the word about its origin: `metadata.thumbs`, `trace.metadata.plan`,
`eval.Correctness`, `tags.vip`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from otel_metadata.client.queries import to_ns
from otel_metadata.errors import ConfigurationError, FilterError, SpanNotFoundError
from otel_metadata.model.evaluation import Annotation
from otel_metadata.model.times import time_text

if TYPE_CHECKING:
    from otel_metadata.client.queries import Time
    from otel_metadata.model.condition import Subject
    from otel_metadata.model.merge import FieldName, Json
    from otel_metadata.model.record import SpanQuery, SpanRecord, ValueRecord
    from otel_metadata.seams import SpanStore

_EXPECTED: Final = (
    "a name such as metadata.thumbs, trace.metadata.plan, eval.Correctness, annotation.quality, tags.vip, "
    "attributes.http.route, output or status_code; a word alone that is no name of filters is a key of the "
    "metadata (metadata.model, not model), and other characters go in "
    'double quotes: metadata."user-id"'
)

# The first words of the names of filters, for the kinds that have a key.
_WITH_KEY: Final = {
    "metadata": "metadata",
    "attribute": "attributes",
    "tag": "tags",
    "evaluation": "eval",
    "annotation": "annotation",
}

# A filter means either level by these.
_OF_EITHER_LEVEL: Final = ("user_id", "session_id")


def spans_at(store: SpanStore, query: SpanQuery, at: Time | None = None) -> list[SpanRecord]:
    """Return the spans of a query for one span or one trace, newest first; at least one.

    Args:
        store: Where to read.
        query: With a span id, a trace id, or both.
        at: Show them as they were at this time; None for now.

    Raises:
        ConfigurationError: *at* is not a time, or none of the spans had started.
        SpanNotFoundError: None is stored.
        StoreError: The store cannot be read, or it keeps no history and *at* is given.
    """
    at_ns = to_ns("at", at)
    if at_ns is not None and not isinstance(at, str) and not hasattr(at, "nanosecond"):
        at_ns += 999  # to the end of the microsecond: the `time` of a value shows that value
    found = store.query(replace(query, at_ns=at_ns))
    if found:
        return found
    started = store.query(replace(query, limit=None)) if at is not None else []
    if not started:
        raise SpanNotFoundError(query.span_id or f"{query.trace_id}", f"{store}")
    start = time_text(min(span.span.start_ns for span in started))
    what = "span" if query.span_id is not None else "trace"
    raise ConfigurationError("at", at, f"the start of the {what}, {start}, or a later time")


def of_field(field: str | None) -> Callable[[ValueRecord], bool]:
    """Return whether a value is one of a field.

    Args:
        field: The name of the field; None for all fields.

    Raises:
        ConfigurationError: *field* names no field.
    """
    if field is None:
        return lambda _: True
    subject = _subject(field) if isinstance(field, str) else None
    if subject is None:
        raise ConfigurationError("field", field if isinstance(field, str) else type(field), _EXPECTED)

    def is_wanted(record: ValueRecord) -> bool:
        if record.kind != subject.kind:
            return False
        if record.kind in _OF_EITHER_LEVEL:
            return True
        return (record.level, _shown_key(record)) == (subject.level, subject.key)

    return is_wanted


def field_name(record: ValueRecord) -> str:
    """Return the name of a value's field, as `of_field` reads it."""
    if record.kind in _OF_EITHER_LEVEL:
        return record.kind
    level = "trace." if record.level == "trace" else ""
    first = _WITH_KEY.get(record.kind)
    if first is None:
        return f"{level}{'status_code' if record.kind == 'status' else record.kind}"
    key = _shown_key(record)
    plain = f"{level}{first}.{key}"
    subject = _subject(plain)
    if subject is not None and (subject.kind, subject.key) == (record.kind, key):
        return plain
    quoted = key.replace('"', '""')
    return f'{level}{first}."{quoted}"'


def replaced_values(records: Iterable[ValueRecord]) -> dict[int, ValueRecord]:
    """Return the value that each of *records* replaced, by the place of the record. Of a tag, none is replaced.

    Args:
        records: All values of each field, newest first.
    """
    newer: dict[FieldName, int] = {}
    replaced = {}
    for place, record in enumerate(records):
        name = (record.level, record.kind, record.key)
        if record.kind != "tag" and name in newer:
            replaced[newer[name]] = record
        newer[name] = place
    return replaced


def value_to_dict(record: ValueRecord) -> dict[str, Json]:
    """Return a value as a JSON object. Times are ISO 8601 texts in UTC to the nanosecond, writers 16 hex digits."""
    superseded_by: Json = None
    if record.superseded_by is not None:
        time_ns, writer = record.superseded_by
        superseded_by = {"time": time_text(time_ns), "writer": f"{writer:016x}"}
    return {
        "field": field_name(record),
        "level": record.level,
        "kind": record.kind,
        "key": _shown_key(record),
        "value": record.value,
        "time": time_text(record.time_ns),
        "route": record.route,
        "author": record.author,
        "writer": f"{record.writer:016x}",
        "superseded_by": superseded_by,
        "is_oldest_kept": record.is_oldest_kept,
    }


def _shown_key(record: ValueRecord) -> str:
    # The key of an annotation may have the annotator in it.
    return Annotation.from_json(record.value).name if record.kind == "annotation" else record.key


def _subject(text: str) -> Subject | None:
    """Return the field that a name means; None if it means none. Its `part` has no meaning."""
    from otel_metadata.store.filter.names import LEVELS, TAGS, UnknownNameError, subject_of
    from otel_metadata.store.filter.tokens import tokens_of  # its patterns take milliseconds to compile

    try:
        tokens = tokens_of(text)
    except FilterError:
        return None
    if len(tokens) != 1 or tokens[0].kind != "name":
        return None
    segments = tuple(map(operator.itemgetter(0), tokens[0].segments))
    try:
        return subject_of(("changed_at", *segments))
    except UnknownNameError:
        pass
    try:
        subject_of(segments)
    except UnknownNameError:
        is_key = len(segments) == 1 and segments[0] not in {*LEVELS, *TAGS}
        return subject_of(("metadata", *segments)) if is_key else None
    return None  # a name that no update sets, such as start_time
