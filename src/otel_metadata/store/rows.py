"""An ended span as a row and fields. All stores read OpenTelemetry's spans through this module."""

from __future__ import annotations

from dataclasses import fields as members_of
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from otel_metadata.dialects.canonical import FIELDS, note_authors, read, spell_nothing, spelled_names, versions
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, FieldName, Fields, Json, json_text
from otel_metadata.model.record import StoredSpan
from otel_metadata.model.value import STORE_LIMITS, clean
from otel_metadata.store.table import exact_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded

# Fields that are columns of the span.
_OWN: Final[tuple[FieldName, ...]] = (("span", "name", ""), ("span", "status", ""), ("span", "status_message", ""))

# `dataclasses.replace` takes three times as long, and nearly every span of ours is changed.
_MEMBERS: Final = [member.name for member in members_of(StoredSpan)]
_before_attributes: Final = attrgetter(*_MEMBERS[: _MEMBERS.index("attributes")])
_after_attributes: Final = attrgetter(*_MEMBERS[_MEMBERS.index("attributes") + 1 :])


def row_of(span: ReadableSpan) -> tuple[StoredSpan, Fields]:
    """Return a span as OTLP has it, and its fields.

    Fields that came beside the span (`MergedSpan.fields`) are exact. Canonical attributes that came without fields
    (from another exporter, a Collector, or the application's own `metadata.x`) become fields, with the version that the
    span names for them, or else that of its end. Name and status become fields only if the span names their version.
    """
    context = span.context
    start_ns = span.start_time or 0
    scope = span.instrumentation_scope
    return with_fields(
        StoredSpan(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_id=f"{span.parent.span_id:016x}" if span.parent is not None else None,
            trace_state=context.trace_state.to_header(),
            name=_text(span.name),
            kind=span.kind.name,
            start_ns=start_ns,
            end_ns=span.end_time or start_ns,
            status_code=span.status.status_code.name,
            status_message=_text(span.status.description) if span.status.description is not None else None,
            attributes=_json(dict(span.attributes or {})),
            events=tuple(
                {
                    "name": _text(event.name),
                    "time_ns": event.timestamp,
                    "attributes": _json(dict(event.attributes or {})),
                }
                for event in span.events
            ),
            links=tuple(
                {
                    "trace_id": f"{link.context.trace_id:032x}",
                    "span_id": f"{link.context.span_id:016x}",
                    "attributes": _json(dict(link.attributes or {})),
                }
                for link in span.links
            ),
            resource=_json(dict(span.resource.attributes)),
            scope_name=_text(scope.name) if scope is not None else "",
            scope_version=_text(scope.version) if scope is not None and scope.version is not None else None,
        ),
        getattr(span, "fields", None) or {},
    )


def with_fields(span: StoredSpan, exact: Fields) -> tuple[StoredSpan, Fields]:
    """Return a span without the attributes that are fields, and its fields.

    Args:
        span: The span as OTLP has it, with all its attributes.
        exact: The fields that came beside it. Those in `FIELDS` are as exact.
    """
    attributes: Mapping[str, Json] = span.attributes
    if not exact and spell_nothing(attributes):
        return span, exact
    exact = {**_fields_in(attributes.get(FIELDS)), **exact}
    if spelled := _spelled(exact):
        attributes = {name: value for name, value in attributes.items() if name not in spelled}
    plain, taken = read(attributes, (span.end_ns, PLAIN_ATTRIBUTE_WRITER))
    if named := versions(attributes):
        note_authors(attributes)
        own = zip(_OWN, (span.name, span.status_code.lower(), span.status_message), strict=True)
        plain.update({name: (value, named[name]) for name, value in own if value and name in named})
    if not spelled and not taken:
        return span, {**plain, **exact}
    left = {name: value for name, value in attributes.items() if name not in taken}
    changed = StoredSpan(*_before_attributes(span), left, *_after_attributes(span))  # type: ignore[call-arg] # each once
    return changed, {**plain, **exact}


def _fields_in(text: Json) -> Fields:
    """Return the fields that `fields_text` wrote, and enter the names of their authors into `AUTHORS`."""
    try:
        found = orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        return {}  # nearly every span
    fields = dict(exact_fields(found.get("fields")))
    authors = found.get("authors")
    names = authors if isinstance(authors, dict) else {}
    for writer in {version[1] for _, version in fields.values()}:
        name = names.get(f"{writer:016x}")
        if isinstance(name, str):
            AUTHORS.add(writer, name)
    return fields


def _spelled(fields: Fields) -> set[str]:
    """Return the names of the attributes that only repeat exact fields.

    The attribute of tags is not among them: it may also have tags that the application set by itself.
    """
    names: set[str] = set()
    for name, (value, _) in fields.items():
        if name[1] != "attribute":  # a plain attribute is kept, covered by the field
            names.update(spelled_names(name, value))
    return names


def _text(value: object) -> str:
    """Return a text that can be stored. OpenTelemetry does not check names and descriptions."""
    cleaned = clean(value, [], "", STORE_LIMITS)
    return cleaned if isinstance(cleaned, str) else json_text(cleaned)


def _json(attributes: Mapping[str, Any]) -> dict[str, Json]:
    return cast("dict[str, Json]", clean(attributes, [], "attributes", STORE_LIMITS))
