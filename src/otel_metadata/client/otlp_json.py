"""Read the spans or log records of one OTLP request in JSON, such as a line of the Collector's file exporter.

Read as the specification has it (OTLP 1.9, "JSON Protobuf Encoding"): ids are hex digits, 64-bit integers a text or a
number, enums a number or their name, bytes base64; unknown members are ignored. The names of members are
lowerCamelCase; those of the .proto files are taken as well, as protobuf's own JSON readers do.

Variants of other writers are read, too: ids in base64, as protobuf's own JSON has bytes; the members
`instrumentationLibrarySpans` and `instrumentationLibrary` of OTLP before 0.15; `batches`, as Tempo answers; a message
`ResourceSpans`, `ScopeSpans` or `Span` by itself. Other trace formats are not read, but errors name them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import orjson

from otel_metadata.backends.langwatch.dialect import IDS, LABELS, METADATA
from otel_metadata.dialects.canonical import texts, versions
from otel_metadata.dialects.patch_span import PATCH_SCOPE, TARGET, fields_of
from otel_metadata.foreign_text import described
from otel_metadata.model.merge import Field, FieldName, Fields, Json
from otel_metadata.model.record import StoredSpan
from otel_metadata.model.value import STORE_LIMITS, clean
from otel_metadata.store.rows import with_fields

KINDS: Final = ("INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUS_CODES: Final = ("UNSET", "OK", "ERROR")
"""The words for OTLP's numbers, each at its number. An unknown number means the same as a missing one: the first."""

_INT64: Final = 1 << 63

MAX_DEPTH: Final = STORE_LIMITS.depth - 1
"""Levels of lists and maps in the value of an attribute. The attributes themselves are one level in a store."""

T = TypeVar("T")


class OtlpError(ValueError):
    """Part of a request is not valid OTLP; the message says what was got and what was expected."""


class LatePatch(NamedTuple):
    """An update that travelled as a span of `dialects.patch_span`, and is about another span.

    Attributes:
        trace_id: 32 hex digits.
        span_id: The span that the update is about, 16 hex digits.
        fields: With their versions.
    """

    trace_id: str
    span_id: str
    fields: Fields


class LogRecord(NamedTuple):
    """What is read of a log record.

    Attributes:
        trace_id: 32 hex digits, or "".
        span_id: 16 hex digits, or "".
        event_name: The name of the event, or "".
        time_ns: Wall nanoseconds, or 0.
        attributes: Its attributes.
    """

    trace_id: str
    span_id: str
    event_name: str
    time_ns: int
    attributes: dict[str, Json]


Read: TypeAlias = "tuple[StoredSpan, Fields] | LatePatch | OtlpError"


# The members that hold the spans of a message: of a request, of a resource, of a scope. Tempo says `batches`; the names
# with `instrumentationLibrary` are those of OTLP before 0.15.
_OF_REQUEST: Final = ("resourceSpans", "batches")
_OF_RESOURCE: Final = ("scopeSpans", "instrumentationLibrarySpans")
_SIGNALS: Final = ("Logs", "Metrics", "Profiles")


def is_traces(request: Mapping[str, Any]) -> bool:
    """Whether an object is a request with spans, or one of the messages in such a request."""
    return _request_of(request) is not None


def _request_of(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return an object as a request: itself, or a request with it as the only part; None if it has no OTLP spans."""
    trace = found.get("trace")
    if isinstance(trace, dict) and _has(trace, _OF_REQUEST):
        return trace  # as Tempo answers since version 2
    if _has(found, _OF_REQUEST):
        return found
    if _has(found, _OF_RESOURCE):
        return {"resourceSpans": [found]}
    is_span = _has(found, ("traceId",)) and _has(found, ("spanId",)) and _has(found, ("startTimeUnixNano",))
    of_scope = {"spans": [found]} if is_span else found
    if is_span or (_has(found, ("scope", "instrumentationLibrary")) and "spans" in found):
        return {"resourceSpans": [{"scopeSpans": [of_scope]}]}
    return None


def is_logs(request: Mapping[str, Any]) -> bool:
    """Whether an object is a request with log records."""
    return _has(request, ("resourceLogs",))


def signal_of(request: Mapping[str, Any]) -> str | None:
    """Return the signal of a request without spans: `logs`, `metrics` or `profiles`; None if it is another object."""
    return next((signal.lower() for signal in _SIGNALS if _has(request, (f"resource{signal}",))), None)


def format_of(found: Mapping[str, Any]) -> str | None:
    """Return the name of a trace format that is not read here; None if the format is unknown."""
    data = found.get("data")
    of_jaeger = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else found
    if "traceID" in of_jaeger and ("spans" in of_jaeger or "operationName" in of_jaeger):
        return "JSON of Jaeger"
    if "traceId" in found and "id" in found and ("localEndpoint" in found or "timestamp" in found):
        return "JSON of Zipkin"
    context = found.get("context")
    if isinstance(context, dict) and "trace_id" in context and "span_id" in context:
        return "the output of OpenTelemetry's console exporter"
    return None


def spans_of(request: Mapping[str, Any]) -> Iterator[Read]:
    """Yield each span with its fields, each update of another span, and an error for each part that cannot be read.

    Args:
        request: A message for which `is_traces` is true: `ExportTraceServiceRequest` or `TracesData` as JSON, or one of
            its parts.
    """
    for of_resource in _each_of(_request_of(request) or {}, _OF_REQUEST):
        if isinstance(of_resource, OtlpError):
            yield of_resource
            continue
        resource = _tried(_resource, of_resource)
        for of_scope in _each_of(of_resource, _OF_RESOURCE):
            scope = of_scope if isinstance(of_scope, OtlpError) else _tried(_scope, of_scope)
            problem = next((one for one in (of_scope, resource, scope) if isinstance(one, OtlpError)), None)
            if problem is not None:
                lost = of_scope.get("spans") if isinstance(of_scope, dict) else None
                yield from [problem] * (len(lost) if isinstance(lost, list) else 1)
                continue
            for span in _each(of_scope, "spans"):  # type: ignore[arg-type] # a problem was told above
                yield span if isinstance(span, OtlpError) else _tried(_span, span, resource, *scope)  # type: ignore[misc]


def log_records_of(request: Mapping[str, Any]) -> Iterator[LogRecord | OtlpError]:
    """Yield each log record of a request, and an error for each part that cannot be read.

    Args:
        request: `ExportLogsServiceRequest` as JSON.
    """
    for of_resource in _each(request, "resourceLogs"):
        if isinstance(of_resource, OtlpError):
            yield of_resource
            continue
        for of_scope in _each(of_resource, "scopeLogs"):
            if isinstance(of_scope, OtlpError):
                yield of_scope
                continue
            for record in _each(of_scope, "logRecords"):
                yield record if isinstance(record, OtlpError) else _tried(_log_record, record)


def _log_record(record: Mapping[str, Any]) -> LogRecord:
    return LogRecord(
        trace_id="" if _is_no_id(record, "traceId") else _id(record, "traceId", 32),
        span_id="" if _is_no_id(record, "spanId") else _id(record, "spanId", 16),
        event_name=_text(record, "eventName"),
        time_ns=_integer(record, "timeUnixNano") or _integer(record, "observedTimeUnixNano"),
        attributes=_attributes(record),
    )


def _span(
    span: Mapping[str, Any], resource: dict[str, Json], scope_name: str, scope_version: str | None
) -> tuple[StoredSpan, Fields] | LatePatch:
    if scope_name == PATCH_SCOPE:
        return late_patch(_id(span, "traceId", 32), _attributes(span))
    status = _object(span, "status")
    start_ns = _integer(span, "startTimeUnixNano")
    message = _text(status, "message")
    return with_fields(
        StoredSpan(
            trace_id=_id(span, "traceId", 32),
            span_id=_id(span, "spanId", 16),
            parent_id=None if _is_no_id(span, "parentSpanId") else _id(span, "parentSpanId", 16),
            trace_state=_text(span, "traceState"),
            name=_text(span, "name"),
            kind=_enum(span, "kind", "SPAN_KIND_", KINDS),
            start_ns=start_ns,
            end_ns=_integer(span, "endTimeUnixNano") or start_ns,
            status_code=_enum(status, "code", "STATUS_CODE_", STATUS_CODES),
            status_message=message or None,
            attributes=_attributes(span),
            events=tuple(
                {
                    "name": _text(event, "name"),
                    "time_ns": _integer(event, "timeUnixNano"),
                    "attributes": _attributes(event),
                }
                for event in _all(span, "events")
            ),
            links=tuple(
                {
                    "trace_id": _id_or_zeros(link, "traceId", 32),
                    "span_id": _id_or_zeros(link, "spanId", 16),
                    "attributes": _attributes(link),
                }
                for link in _all(span, "links")
            ),
            resource=resource,
            scope_name=scope_name,
            scope_version=scope_version,
        ),
        {},
    )


def late_patch(trace_id: str, attributes: Mapping[str, Json]) -> LatePatch:
    """Return the update that a span of `dialects.patch_span` carries.

    Raises:
        OtlpError: The attributes name no target.
    """
    return LatePatch(trace_id, _id(attributes, TARGET, 16), {**_of_langwatch(attributes), **fields_of(attributes)})


def _of_langwatch(attributes: Mapping[str, Json]) -> Fields:
    """Return the fields of an update for which `backends.langwatch` has names of its own."""
    if METADATA not in attributes and not any(name.startswith("langwatch.") for name in attributes):
        return {}
    text, labels = attributes.get(METADATA), texts(attributes.get(LABELS))
    try:
        metadata = orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        metadata = None
    found: dict[FieldName, Field] = {}
    for name, version in versions(attributes).items():
        _, kind, key = name
        if kind == "metadata" and isinstance(metadata, dict) and key in metadata:
            found[name] = clean(metadata[key], [], key), version
        elif kind == "tag" and key in labels:
            found[name] = True, version
        elif kind in IDS and IDS[kind] in attributes:
            found[name] = attributes[IDS[kind]], version
    return found


def _resource(of_resource: Mapping[str, Any]) -> dict[str, Json]:
    return _attributes(_object(of_resource, "resource"))


def _scope(of_scope: Mapping[str, Any]) -> tuple[str, str | None]:
    scope = _object(of_scope, "scope") or _object(of_scope, "instrumentationLibrary")
    return _text(scope, "name"), _text(scope, "version") or None


def _attributes(owner: Mapping[str, Any]) -> dict[str, Json]:
    cleaned = clean(_pairs(_all(owner, "attributes"), 1), [], "attributes", STORE_LIMITS)
    return cleaned if isinstance(cleaned, dict) else {}


def _value(value: Mapping[str, Any], depth: int) -> Any:
    for name, read in _SCALARS.items():
        if _get(value, name) is not None:
            return read(value, name)
    for name in ("arrayValue", "kvlistValue"):
        if _get(value, name) is not None:
            if depth > MAX_DEPTH:
                # Readers of protobuf stop at half this depth, so no Collector wrote it.
                raise OtlpError(f"{name} is nested too deeply; expected at most {MAX_DEPTH} levels")
            items = _all(_object(value, name), "values")
            return _pairs(items, depth + 1) if name == "kvlistValue" else [_value(item, depth + 1) for item in items]
    return None


def _pairs(items: Iterable[Mapping[str, Any]], depth: int) -> dict[str, Any]:
    return {_text(pair, "key"): _value(_object(pair, "value"), depth) for pair in items}


def _bool(value: Mapping[str, Any], name: str) -> bool:
    found = _get(value, name)
    if not isinstance(found, bool):
        raise wrong(name, found, "true or false")
    return found


def _double(value: Mapping[str, Any], name: str) -> float:
    found = _get(value, name)
    try:
        if isinstance(found, bool) or not isinstance(found, int | float | str):
            raise TypeError(found)
        return float(found)  # also "NaN" and "Infinity"
    except (TypeError, ValueError, OverflowError):
        raise wrong(name, found, "a number") from None


def _bytes(value: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(_text(value, name), validate=True)
    except ValueError:
        raise wrong(name, _get(value, name), "base64") from None


def _get(owner: Mapping[str, Any], name: str) -> Any:
    found = owner.get(name)
    return owner.get(_snake_case(name)) if found is None else found


def _has(owner: Mapping[str, Any], names: Iterable[str]) -> bool:
    return any(name in owner or _snake_case(name) in owner for name in names)


def _snake_case(name: str) -> str:
    return re.sub(r"[A-Z]", lambda capital: "_" + capital[0].lower(), name)


def _object(owner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = _get(owner, name)
    if not isinstance(found, dict | None):
        raise wrong(name, found, "an object")
    return found or {}


def _all(owner: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = _get(owner, name)
    if not isinstance(found, list | None) or not all(isinstance(item, dict) for item in found or ()):
        raise wrong(name, found, "a list of objects")
    return found or []


def _each(owner: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any] | OtlpError]:
    found = _get(owner, name)
    if not isinstance(found, list | None):
        yield wrong(name, found, "a list")
        return
    for item in found or ():
        yield item if isinstance(item, dict) else wrong(name, item, "objects")


def _each_of(owner: Mapping[str, Any], names: Iterable[str]) -> Iterator[Mapping[str, Any] | OtlpError]:
    for name in names:
        yield from _each(owner, name)


def _text(owner: Mapping[str, Any], name: str) -> str:
    found = _get(owner, name)
    if not isinstance(found, str | None):
        raise wrong(name, found, "text")
    cleaned = clean(found or "", [], name, STORE_LIMITS)
    return cleaned if isinstance(cleaned, str) else ""


def _integer(owner: Mapping[str, Any], name: str) -> int:
    found = _get(owner, name)
    try:
        number = 0 if found is None else int(found) if isinstance(found, str | int) else int(str(found))
    except ValueError:
        number = _INT64
    if isinstance(found, bool) or not -_INT64 <= number < _INT64:
        raise wrong(name, found, "a whole number of 64 bits")
    return number


def _id(owner: Mapping[str, Any], name: str, digits: int) -> str:
    found = _get(owner, name)
    hex_digits = _hex(found, digits) if isinstance(found, str) else None
    if hex_digits is None or not int(hex_digits, 16):
        raise wrong(name, found, f"{digits} hex digits, not all 0")
    return hex_digits


def _hex(text: str, digits: int) -> str | None:
    """Return an id in lower case; None if it has another form. Its length tells hex digits from base64."""
    if len(text) == digits:
        return text.lower() if re.fullmatch(r"[0-9a-fA-F]+", text, re.ASCII) else None
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    if len(plain) != -(-digits * 2 // 3):
        return None
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).hex()
    except binascii.Error:
        return None


def _id_or_zeros(owner: Mapping[str, Any], name: str, digits: int) -> str:
    """Return an id; zeros if it is missing: OpenTelemetry records a link to nothing if it has attributes ("Link")."""
    return "0" * digits if _is_no_id(owner, name) else _id(owner, name, digits)


def _is_no_id(owner: Mapping[str, Any], name: str) -> bool:
    found = _get(owner, name)
    return found is None or (isinstance(found, str) and not (found.strip("0") and found.rstrip("=").strip("A")))


def _enum(owner: Mapping[str, Any], name: str, prefix: str, words: tuple[str, ...]) -> str:
    found = _get(owner, name)
    if found is None:
        return words[0]
    if isinstance(found, str) and not found.lstrip("-").isdigit():
        word = found.upper().removeprefix(prefix)
        return word if word in words else words[0]
    number = _integer(owner, name)
    # A later OTLP may add numbers; an unknown one means the same as a missing one.
    return words[number] if 0 <= number < len(words) else words[0]


def wrong(name: str, got: object, expected: str) -> OtlpError:
    """Return the error for a member that has *got* in place of *expected*."""
    return OtlpError(f"{name} is {described(got)}; expected {expected}")


def _tried(read: Callable[..., T], *given: Any) -> T | OtlpError:
    try:
        return read(*given)
    except OtlpError as error:
        return error


_SCALARS: Final[Mapping[str, Callable[[Mapping[str, Any], str], Any]]] = {
    "stringValue": _text,
    "boolValue": _bool,
    "intValue": _integer,
    "doubleValue": _double,
    "bytesValue": _bytes,
}
