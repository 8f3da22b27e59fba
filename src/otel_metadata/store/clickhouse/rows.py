"""Spans and fields as rows of ClickHouse, and back. Pure.

Attributes there are text (`Map(String, String)`), as the Collector writes them: a bool as `true`, a number in decimal,
a list as JSON. When they are read, `typed` guesses the type from the form of the text: the text "5" becomes a number.
Rows that otel-metadata writes need no guess: a value that would be read as a different one is also in a JSON object,
under `EXACT` in the same map.

A row of otel-metadata has its canonical attributes as fields in the table of fields, and the version of its writing
under `ROW`. A row without `ROW` came from a Collector: its canonical attributes are read as fields, with the versions
that it names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from otel_metadata.model.merge import Fields, Json, Version, json_text
from otel_metadata.model.record import PROJECT_NAMES, ROUTES, Route, StoredSpan
from otel_metadata.store.clickhouse.schema import SPAN_COLUMNS
from otel_metadata.store.history import UNKNOWN_ROUTE, Value
from otel_metadata.store.rows import with_fields

EXACT: Final = "otel_metadata.exact"
"""The map entry with a JSON object of the values that their text does not give back exactly."""

ROW: Final = "otel_metadata.row"
"""The map entry with the version of a row's writing, if otel-metadata wrote it. Of a span's rows the highest counts."""

NUMBER: Final = r"^-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?([eE][+-]?[0-9]+)?$"
"""How the Collector writes numbers: without zeros at the end of a fraction, so "1.10" is the name of a release, not a
number. The pattern works in Python and in ClickHouse."""

_NUMBER: Final = re.compile(NUMBER, re.ASCII)
_INT64: Final = range(-(1 << 63), 1 << 63)

_TEXT_NAMES: Final = frozenset(
    {
        *PROJECT_NAMES,
        "metadata",
        "user.id",
        "session.id",
        "trace.name",
        *(
            f"{stem}.{part}"
            for stem in ("input", "output", "trace.input", "trace.output")
            for part in ("value", "mime_type")
        ),
    }
)
TEXT_PARTS: Final = ("label", "explanation", "source", "text", "annotator")
"""Parts of a verdict that are always text."""

_VERDICT: Final = re.compile(r"(trace\.)?(eval|annotation)\..+\.([a-z]+)", re.DOTALL)

# Inverting the hex digits of texts also inverts the order of the texts.
INVERTED: Final = ("0123456789abcdef", "fedcba9876543210")
_INVERT: Final = str.maketrans(*INVERTED)
_VERSION_DIGITS: Final = 32

_UINT64: Final = (1 << 64) - 1


def read_columns(table: str) -> str:
    """Return the columns that `span_of` takes, of the table with this alias.

    Times are whole nanoseconds, because the client's own type for them only has microseconds.
    """
    special = {
        "Timestamp": f"toUnixTimestamp64Nano({table}.Timestamp)",
        "Duration": f"toUInt64({table}.Duration)",  # of old tables it is signed
        "Events.Timestamp": f"arrayMap(one -> toUnixTimestamp64Nano(one), {table}.`Events.Timestamp`)",
    }
    return ", ".join(
        f"{special.get(column, f'{table}.`{column}`')} AS `{column.replace('.', '_')}_`" for column in SPAN_COLUMNS
    )


def version_text(version: Version, kind: str = "") -> str:
    """Return a version as 32 hex digits that sort as versions do; for a tag, in the opposite order."""
    ns, writer = version
    digits = f"{ns:016x}{writer:016x}"
    return digits.translate(_INVERT) if kind == "tag" else digits


def encode_field(kind: str, value: Json, version: Version, route: Route | None = None) -> str:
    """Return a field as text. Of several texts of one field, the greatest wins (see `clickhouse.schema`)."""
    spaces = "" if route is None else " " * (UNKNOWN_ROUTE - ROUTES.index(route))
    return version_text(version, kind) + json_text(value) + spaces


def decode_field(kind: str, text: str) -> tuple[Json, Version]:
    """Return the value and version of a field from its text."""
    return orjson.loads(text[_VERSION_DIGITS:]), version_of(kind, text)


def version_of(kind: str, text: str) -> Version:
    """Return the version of a field from its text."""
    digits = text[:_VERSION_DIGITS]
    if kind == "tag":
        digits = digits.translate(_INVERT)
    return int(digits[:16], 16), int(digits[16:], 16)


def value_of(kind: str, text: str) -> Value:
    """Return a field from its text, as a history has it."""
    ns, writer = version_of(kind, text)
    json = text[_VERSION_DIGITS:].rstrip(" ")
    return ns, f"{writer:016x}", json, UNKNOWN_ROUTE - (len(text) - _VERSION_DIGITS - len(json))


def route_of(version: Version, end_ns: int) -> Route:
    """Return the route of a value that came with its span: live if it was set before the span ended, else in flight."""
    return "live" if version[0] <= end_ns else "in_flight"


def field_rows(
    trace_id: str, span_id: str, fields: Fields, route: Route | None, end_ns: int = 0
) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield the rows of fields: trace id, span id ("" for those of the trace), level, kind, key, and the field.

    Args:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        fields: The fields.
        route: How they came; None for "live" or "in_flight", by their versions.
        end_ns: The end of the span, if *route* is None.
    """
    for (level, kind, key), (value, version) in fields.items():
        text = encode_field(kind, value, version, route or route_of(version, end_ns))
        yield trace_id, span_id if level == "span" else "", level, kind, key, text


def row_of(span: StoredSpan, written: Version) -> tuple[Any, ...]:
    """Return a span as a row, in the order of `SPAN_COLUMNS`.

    Args:
        span: The span without its canonical attributes, which are fields.
        written: The version of this writing.
    """
    return (
        span.start_ns,
        span.trace_id,
        span.span_id,
        span.parent_id or "",
        span.trace_state,
        span.name,
        span.kind.capitalize(),
        _service(span.resource),
        encode_map(span.resource),
        span.scope_name,
        span.scope_version or "",
        {**encode_map(span.attributes), ROW: version_text(written)},
        # Unsigned, as the Collector writes it, also if a clock went back.
        (span.end_ns - span.start_ns) & _UINT64,
        span.status_code.capitalize(),
        span.status_message or "",
        [event.get("time_ns") or 0 for event in span.events],
        [event.get("name") or "" for event in span.events],
        [_encoded(event.get("attributes")) for event in span.events],
        [link.get("trace_id") or "" for link in span.links],
        [link.get("span_id") or "" for link in span.links],
        ["" for _ in span.links],
        [_encoded(link.get("attributes")) for link in span.links],
    )


def span_of(row: Sequence[Any]) -> tuple[StoredSpan, Fields, str]:
    """Return a row as a span, the fields in its attributes, and the version of its writing.

    A row of otel-metadata has no fields here. For a row of a Collector the version is "".

    Args:
        row: The values, in the order of `read_columns`.
    """
    columns = dict(zip(SPAN_COLUMNS, row, strict=True))
    texts = dict(columns["SpanAttributes"])
    written = texts.pop(ROW, "")
    start_ns, duration = int(columns["Timestamp"]), int(columns["Duration"])
    end_ns = start_ns + (duration if duration < 1 << 63 else duration - (1 << 64))
    span = StoredSpan(
        trace_id=columns["TraceId"],
        span_id=columns["SpanId"],
        parent_id=columns["ParentSpanId"] or None,
        trace_state=columns["TraceState"],
        name=columns["SpanName"],
        kind=_word(columns["SpanKind"], "SPAN_KIND_", "INTERNAL"),
        start_ns=start_ns,
        end_ns=end_ns,
        status_code=_word(columns["StatusCode"], "STATUS_CODE_", "UNSET"),
        status_message=columns["StatusMessage"] or None,
        attributes=read_map(texts),
        events=tuple(
            {"name": name, "time_ns": int(time_ns), "attributes": read_map(found)}
            for name, time_ns, found in zip(
                columns["Events.Name"], columns["Events.Timestamp"], columns["Events.Attributes"], strict=True
            )
        ),
        links=tuple(
            {"trace_id": trace_id, "span_id": span_id, "attributes": read_map(found)}
            for trace_id, span_id, found in zip(
                columns["Links.TraceId"], columns["Links.SpanId"], columns["Links.Attributes"], strict=True
            )
        ),
        resource=read_map(columns["ResourceAttributes"]),
        scope_name=columns["ScopeName"],
        scope_version=columns["ScopeVersion"] or None,
    )
    if written:
        return span, {}, written
    # In the order of names: of OpenInference's `metadata` and a `metadata.<key>`, which is more exact, the later wins.
    in_order = dict(sorted(span.attributes.items()))
    return *with_fields(replace(span, attributes=in_order), {}), written


def encode_map(attributes: Mapping[str, Json]) -> dict[str, str]:
    """Return attributes as text, and under `EXACT` the values that their text does not give back exactly."""
    texts = {name: value if isinstance(value, str) else json_text(value) for name, value in attributes.items()}
    exact = {name: value for name, value in attributes.items() if not _says(name, texts[name], value)}
    return {**texts, EXACT: json_text(exact)} if exact else texts


def read_map(texts: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, Json]:
    """Return attributes with their types."""
    found = dict(texts)
    exact = found.pop(EXACT, None)
    attributes = {name: typed(name, text) for name, text in found.items()}
    if exact is not None:
        attributes.update(_object(exact))
    return attributes


def typed(name: str, text: str) -> Json:
    """Return the value that a text in a map most likely was.

    A number in the Collector's form, `true`, `false` and a JSON list get their types. Anything else is text. So is an
    attribute that must be text by its name: an id, a label, an input.
    """
    if not text or is_text(name):
        return text
    if text in ("true", "false"):
        return text == "true"
    if text[0] == "[":
        try:
            found: Json = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        return found
    if _NUMBER.fullmatch(text):
        if text.lstrip("-").isdecimal():
            return int(text) if len(text) <= 20 and int(text) in _INT64 else text
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text


def is_text(name: str) -> bool:
    """Whether an attribute with this name is always text."""
    if name in _TEXT_NAMES:
        return True
    verdict = _VERDICT.fullmatch(name)
    return verdict is not None and verdict[3] in TEXT_PARTS


def _says(name: str, text: str, value: Json) -> bool:
    if name in (EXACT, ROW):
        return False
    found = typed(name, text)
    # As JSON text: 1, 1.0 and True are equal in Python.
    return type(found) is type(value) and json_text(found) == json_text(value)


def _object(text: str) -> dict[str, Json]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:  # somebody else uses this name
        return {}
    return found if isinstance(found, dict) else {}


def _encoded(attributes: object) -> dict[str, str]:
    return encode_map(attributes) if isinstance(attributes, dict) else {}


def _service(resource: Mapping[str, Json]) -> str:
    name = resource.get("service.name", "")
    return name if isinstance(name, str) else json_text(name)


def _word(text: str, prefix: str, default: str) -> str:
    """Return a word as OpenTelemetry spells it. Older Collectors write the prefix of the protobuf enum before it."""
    word = text.upper().removeprefix(prefix)
    return default if word in ("", "UNSPECIFIED") else word
