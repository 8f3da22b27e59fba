"""Read the spans and log records of one OTLP request in protobuf, with the rules of `client.otlp_json`.

A message of two bytes takes some sixty in the memory of a parser, and more as Python objects, so a body within the
limits could fill the memory of a machine. Therefore only the outer messages are walked here, by hand, and each span is
parsed by itself, when it is asked for. A span that cannot be parsed is refused, and the others are read.

Source: Protocol Buffers, "Encoding"; opentelemetry-proto 1.x, `trace/v1/trace.proto`, `logs/v1/logs.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast, final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # its types are a package of their own
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogRecordMessage
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_metadata.client.otlp_json import (
    KINDS,
    MAX_DEPTH,
    STATUS_CODES,
    LatePatch,
    LogRecord,
    OtlpError,
    Read,
    late_patch,
    wrong,
)
from otel_metadata.dialects.patch_span import PATCH_SCOPE
from otel_metadata.model.record import StoredSpan
from otel_metadata.model.times import MAX_NS
from otel_metadata.model.value import MAX_KEY_CHARS, STORE_LIMITS, clean
from otel_metadata.store.rows import with_fields

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    from otel_metadata.model.merge import Fields, Json

MAX_PARTS: Final = 1_000_000
"""Resources, scopes, spans and records of one request, and their other members."""

MAX_PARTS_OF_SPAN: Final = 100_000
"""Attributes, events, links and nested values of a span that is larger than `_SMALL_BYTES`."""

MAX_VALUES: Final = 2_000_000
"""Attributes and nested values of one request; an event or a link counts as `_EVENT_VALUES`."""

# An event of two bytes is sixty in a store.
_EVENT_VALUES: Final = 4

# A span of this size has at most half as many parts, whatever is in it.
_SMALL_BYTES: Final = 128 << 10

# The members of ExportTraceServiceRequest, ResourceSpans and ScopeSpans have the same numbers as those for logs.
_RESOURCES = 1
_RESOURCE, _SCOPES = 1, 2
_SCOPE, _ITEMS = 1, 2

# The members that are messages: which message each one is. Other members are texts, bytes and numbers.
_Members: TypeAlias = "dict[int, _Members]"
_VALUE: Final[_Members] = {}
_PAIR: Final[_Members] = {2: _VALUE}
_VALUE[5] = {1: _VALUE}  # ArrayValue
_VALUE[6] = {1: _PAIR}  # KeyValueList
_RESOURCE_MEMBERS: Final[_Members] = {1: _PAIR}
_SPAN_MEMBERS: Final[_Members] = {9: _PAIR, 11: {3: _PAIR}, 13: {4: _PAIR}}
_RECORD_MEMBERS: Final[_Members] = {5: _VALUE, 6: _PAIR}

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_LAST_OF_VARINT: Final = 0x80
_MAX_VARINT_BYTES: Final = 10
# What the ids of a span take. A body may have a million smaller ones, so their error is made once.
_IDS_BYTES: Final = 28
_NO_IDS: Final = OtlpError("traceId or spanId is missing; expected 32 and 16 hex digits, not all 0")

# Names of attributes that stay as they are: applications have few, and a look-up is quicker than a check.
_CLEAN_KEYS: Final[set[str]] = set()
_MAX_CLEAN_KEYS: Final = 8_192

# Parsers of protobuf refuse more levels (upb's default), except for the one in Python.
_MAX_LEVELS: Final = 100

_Left: TypeAlias = "list[int]"
"""How many values of a request may still be read: one number, shared by all its spans."""

T = TypeVar("T")
M = TypeVar("M", Span, LogRecordMessage, Resource, InstrumentationScope)


class MalformedError(ValueError):
    """A body is not a message of the expected kind, and no part of it is read; the message says why."""


class TooManyPartsError(ValueError):
    """A body has more parts than one request may have."""


@final
class _Place:
    """A message in a body, by its place: its members are walked without making objects of them."""

    __slots__ = ("_body", "_end", "_left", "_start")

    def __init__(self, body: bytes, start: int, end: int, left: list[int]) -> None:
        """Walk nothing yet.

        Args:
            body: The whole body.
            start: Where the message begins.
            end: Where it ends.
            left: How many members may still be walked: one number, shared by all messages of a body.
        """
        self._body = body
        self._start = start
        self._end = end
        self._left = left

    @property
    def size(self) -> int:
        """The size of the message in bytes."""
        return self._end - self._start

    def contents(self) -> bytes:
        """Return the message."""
        return self._body[self._start : self._end]

    def each(self, number: int) -> Iterator[_Place]:
        """Yield each member with a number that is a message."""
        for found, start, end in self.members():
            if found == number:
                yield _Place(self._body, start, end, self._left)

    def joined(self, number: int) -> bytes:
        """Return the message that is the member with a number; in parts it means the same as in one piece."""
        return b"".join(member.contents() for member in self.each(number))

    def members(self) -> Iterator[tuple[int, int, int]]:
        """Yield the number, start and end of each member that has a length.

        Raises:
            MalformedError: These bytes are not a message.
            TooManyPartsError: See `left`.
        """
        body, at, end, left = self._body, self._start, self._end, self._left
        try:
            while at < end:
                left[0] -= 1
                if left[0] < 0:
                    raise TooManyPartsError("it has too many parts")
                tag = body[at]
                at += 1
                if tag >= _LAST_OF_VARINT:
                    tag, at = self._varint(at - 1)
                kind = tag & 7
                if kind == _LENGTH:
                    size = body[at]
                    at += 1
                    if size >= _LAST_OF_VARINT:
                        size, at = self._varint(at - 1)
                    start, at = at, at + size
                    if at <= end:
                        yield tag >> 3, start, at
                elif kind == _VARINT:
                    _, at = self._varint(at)
                elif kind in {_EIGHT_BYTES, _FOUR_BYTES}:
                    at += 8 if kind == _EIGHT_BYTES else 4
                else:
                    raise MalformedError(f"byte {at - 1:,} has the wire type {kind}; expected 0, 1, 2 or 5")
        except IndexError:
            at = end + 1
        if at > end:
            raise MalformedError(f"a member ends after byte {end:,}, where its message ends; expected a whole message")

    def _varint(self, at: int) -> tuple[int, int]:
        number = 0
        for index in range(_MAX_VARINT_BYTES):
            byte = self._body[at + index]
            number |= (byte & 0x7F) << (7 * index)
            if byte < _LAST_OF_VARINT:
                return number, at + index + 1
        raise MalformedError(f"byte {at:,} begins a number that does not end; expected at most 10 bytes")


def check(body: bytes) -> int:
    """Return how many spans or log records a request has.

    Raises:
        MalformedError: The body is not a request, as when it was cut off.
        TooManyPartsError: It has more than `MAX_PARTS`.
    """
    count = 0
    for of_resource in _Place(body, 0, len(body), [MAX_PARTS]).each(_RESOURCES):
        for of_scope in of_resource.each(_SCOPES):
            for _ in of_scope.each(_ITEMS):
                count += 1
    return count


def spans_of(body: bytes) -> Iterator[tuple[Read, int]]:
    """Yield each span with its fields, each update of another span, and an error for each span that cannot be read.

    Each comes with its size in bytes. *body* has passed `check`.
    """
    left = [MAX_VALUES]
    for place, resource, scope in _items(body, left):
        if isinstance(resource, OtlpError):
            yield resource, 0
        elif isinstance(scope, OtlpError):
            yield scope, 0
        else:
            yield _span(place, resource, scope, left), place.size


def log_records_of(body: bytes) -> Iterator[LogRecord | OtlpError]:
    """Yield each log record, and an error for each one that cannot be read. *body* has passed `check`."""
    left = [MAX_VALUES]
    for place, _, _ in _items(body, left):
        try:
            record = _parsed(place, LogRecordMessage, _RECORD_MEMBERS)
            yield LogRecord(
                trace_id=_id(record.trace_id, "traceId", 16) if any(record.trace_id) else "",
                span_id=_id(record.span_id, "spanId", 8) if any(record.span_id) else "",
                event_name=_text(getattr(record, "event_name", "")),  # since opentelemetry-proto 1.31
                time_ns=_time(record.time_unix_nano or record.observed_time_unix_nano, "timeUnixNano"),
                attributes=_attributes(record.attributes, left),
            )
        except OtlpError as error:
            yield error


_Scope: TypeAlias = "tuple[str, str | None]"


def _items(body: bytes, left: _Left) -> Iterator[tuple[_Place, dict[str, Json] | OtlpError, _Scope | OtlpError]]:
    """Yield the place of each span or record, with its resource and scope."""
    # Three times as many as `check` allows: here the members of a resource and of a scope are walked more than once.
    for of_resource in _Place(body, 0, len(body), [3 * MAX_PARTS]).each(_RESOURCES):
        resource = _resource(of_resource, left)
        for of_scope in of_resource.each(_SCOPES):
            scope = _scope(of_scope)
            for place in of_scope.each(_ITEMS):
                yield place, resource, scope


def _resource(of_resource: _Place, left: _Left) -> dict[str, Json] | OtlpError:
    found = of_resource.joined(_RESOURCE)
    try:
        return _attributes(_parsed(_Place(found, 0, len(found), [0]), Resource, _RESOURCE_MEMBERS).attributes, left)
    except OtlpError as error:
        return error


def _scope(of_scope: _Place) -> _Scope | OtlpError:
    found = of_scope.joined(_SCOPE)
    try:
        scope = _parsed(_Place(found, 0, len(found), [0]), InstrumentationScope, _RESOURCE_MEMBERS)
    except OtlpError as error:
        return error
    return _text(scope.name), _text(scope.version) or None


def _parsed(place: _Place, kind: type[M], members: _Members) -> M:
    if place.size > _SMALL_BYTES:
        _check_parts(place, members, kind.__name__)
    message = kind()
    try:
        message.ParseFromString(place.contents())
    except (DecodeError, RecursionError) as error:  # RecursionError: the parser in Python has no limit of its own
        raise OtlpError(f"{kind.__name__} is not valid protobuf ({error}); expected at most 100 levels") from None
    return message


def _check_parts(place: _Place, members: _Members, name: str) -> None:
    left = [MAX_PARTS_OF_SPAN]
    whole = place.contents()
    waiting = [(_Place(whole, 0, len(whole), left), members, 1)]
    try:
        while waiting:
            message, of_message, level = waiting.pop()
            if level > _MAX_LEVELS:
                raise OtlpError(f"{name} is nested too deeply; expected at most {_MAX_LEVELS} levels")
            for number, start, end in message.members():
                if number in of_message:
                    waiting.append((_Place(whole, start, end, left), of_message[number], level + 1))
    except TooManyPartsError:
        raise OtlpError(f"{name} has too many parts; expected at most {MAX_PARTS_OF_SPAN:,}") from None
    except MalformedError as error:
        raise OtlpError(f"{name} is not valid protobuf: {error}") from None


def _span(
    place: _Place, resource: dict[str, Json], scope: _Scope, left: _Left
) -> tuple[StoredSpan, Fields] | LatePatch | OtlpError:
    if place.size < _IDS_BYTES:
        return _NO_IDS
    try:
        span = _parsed(place, Span, _SPAN_MEMBERS)
        trace_id = _id(span.trace_id, "traceId", 16)
        if scope[0] == PATCH_SCOPE:
            return late_patch(trace_id, _attributes(span.attributes, left))
        start_ns, status = _time(span.start_time_unix_nano, "startTimeUnixNano"), span.status
        return with_fields(
            StoredSpan(
                trace_id=trace_id,
                span_id=_id(span.span_id, "spanId", 8),
                parent_id=_id(span.parent_span_id, "parentSpanId", 8) if any(span.parent_span_id) else None,
                trace_state=_text(span.trace_state),
                name=_text(span.name),
                kind=_word(span.kind, KINDS),
                start_ns=start_ns,
                end_ns=_time(span.end_time_unix_nano, "endTimeUnixNano") or start_ns,
                status_code=_word(status.code, STATUS_CODES),
                status_message=_text(status.message) or None,
                attributes=_attributes(span.attributes, left),
                events=tuple(_event(event, left) for event in _counted(span.events, left, _EVENT_VALUES)),
                links=tuple(_link(link, left) for link in _counted(span.links, left, _EVENT_VALUES)),
                resource=resource,
                scope_name=scope[0],
                scope_version=scope[1],
            ),
            {},
        )
    except OtlpError as error:
        return error


def _event(event: Span.Event, left: _Left) -> Mapping[str, Json]:
    return {
        "name": _text(event.name),
        "time_ns": _time(event.time_unix_nano, "timeUnixNano"),
        "attributes": _attributes(event.attributes, left),
    }


def _link(link: Span.Link, left: _Left) -> Mapping[str, Json]:
    # OpenTelemetry records a link to nothing if it has attributes ("Link").
    return {
        "trace_id": _id(link.trace_id, "traceId", 16) if any(link.trace_id) else "0" * 32,
        "span_id": _id(link.span_id, "spanId", 8) if any(link.span_id) else "0" * 16,
        "attributes": _attributes(link.attributes, left),
    }


def _attributes(pairs: Sequence[KeyValue], left: _Left) -> dict[str, Json]:
    found: dict[str, Any] = {}
    is_clean = True
    for pair in _counted(pairs, left):
        key, value = pair.key, pair.value
        # Nearly every attribute is a short text, and this saves the question which one it is.
        text = value.string_value
        if text:
            found[key] = text
            if "\0" in text:
                is_clean = False
        else:
            found[key] = item = _value(value, 1, left)
            kind = type(item)
            if kind is float:
                is_clean = is_clean and isfinite(item)
            elif kind is not int and kind is not bool and item != "" and item is not None:
                is_clean = False
    if is_clean and (found.keys() <= _CLEAN_KEYS or all(map(_is_clean_key, found))):
        return found
    cleaned = clean(found, [], "attributes", STORE_LIMITS)
    return cleaned if isinstance(cleaned, dict) else {}


def _is_clean_key(key: str) -> bool:
    if not 0 < len(key) <= MAX_KEY_CHARS or not key.isascii() or "\0" in key:
        return False
    if len(_CLEAN_KEYS) < _MAX_CLEAN_KEYS:
        _CLEAN_KEYS.add(key)
    return True


def _value(value: AnyValue, depth: int, left: _Left) -> Any:  # an attribute may be anything
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind not in {"array_value", "kvlist_value"}:
        return found
    if depth > MAX_DEPTH:
        raise OtlpError(f"{kind} is nested too deeply; expected at most {MAX_DEPTH} levels")
    if kind == "array_value":
        return [_value(item, depth + 1, left) for item in _counted(found.values, left)]
    return {pair.key: _value(pair.value, depth + 1, left) for pair in _counted(found.values, left)}


def _counted(items: Sequence[T], left: _Left, each: int = 1) -> Sequence[T]:
    left[0] -= len(items) * each
    if left[0] < 0:
        raise OtlpError(f"the request has more than {MAX_VALUES:,} attributes, events and values; send it in several")
    return items


def _text(text: str) -> str:
    # A parser of protobuf takes valid UTF-8 only, so a lone surrogate cannot be there.
    return cast("str", clean(text, [], "", STORE_LIMITS)) if "\0" in text else text


def _id(found: bytes, name: str, size: int) -> str:
    if len(found) != size or not any(found):
        raise wrong(name, found.hex()[:64], f"{size * 2} hex digits, not all 0")
    return found.hex()


def _time(nanoseconds: int, name: str) -> int:
    if nanoseconds > MAX_NS:
        raise wrong(name, nanoseconds, "nanoseconds since 1970 within 63 bits")
    return nanoseconds


def _word(number: int, words: tuple[str, ...]) -> str:
    return words[number] if 0 <= number < len(words) else words[0]
