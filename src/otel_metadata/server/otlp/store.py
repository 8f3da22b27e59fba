"""From the body of an OTLP request to the store: the same for HTTP and gRPC.

A body is decoded and stored in portions, so that a large one takes the memory of a small one. What a portion has stored
stays when a later one fails: OTLP's senders then send all of it again, and a span that is stored again stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, final

import orjson

from otel_metadata.client import otlp_json
from otel_metadata.client.otlp_json import LatePatch, LogRecord, OtlpError
from otel_metadata.errors import SpanNotFoundError
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, TOO_LATE, is_too_late
from otel_metadata.model.record import PROJECT_NAMES, project_of
from otel_metadata.server.operations import UPDATE, Problem
from otel_metadata.server.otlp import protobuf
from otel_metadata.server.otlp.logs import evaluation_of
from otel_metadata.server.targets import Target, locate_all
from otel_metadata.server.vendors.attributes import with_vendor_fields

if TYPE_CHECKING:
    from otel_metadata.client.otlp_json import Read
    from otel_metadata.model.merge import Fields, Json
    from otel_metadata.model.record import StoredSpan
    from otel_metadata.seams import SpanStore
    from otel_metadata.server.operations import Caller
    from otel_metadata.server.service import Ingested, Service

MAX_BYTES: Final = 64 << 20
"""The largest body, after decompression."""

MAX_JSON_MEMORY: Final = 384 << 20
"""How much memory the objects of one JSON body may take, as far as its text shows."""

MAX_NESTING: Final = 100
"""How deep arrays and objects of JSON may be nested."""

# Of a portion: spans, bytes of protobuf, and events and links, of which each is two bytes at least.
_PORTION: Final = 1_000
_PORTION_BYTES: Final = 2 << 20
_PORTION_EVENTS: Final = 20_000

# Objects of Python take about so much more than the protobuf that they were read from.
_GROWTH: Final = 8

# What an object or array, a value behind a comma, and a text take in memory; the rest is the text itself.
_CONTAINER_BYTES, _VALUE_BYTES, _QUOTE_BYTES = 120, 64, 12

_SHOWN_REASONS: Final = 3

# The scope of the span that LangWatch makes of a PATCH. Its start is the time of the PATCH.
_LANGWATCH_SCOPE: Final = "langwatch.api.metadata_update"


@final
class Refused:
    """What a request brought and the store did not get.

    Attributes:
        count: How many spans or log records.
    """

    def __init__(self, what: str) -> None:
        """Begin with none.

        Args:
            what: `spans` or `log records`.
        """
        self.count = 0
        self._forbidden = 0
        self._what = what
        self._reasons: dict[str, None] = {}

    def add(self, reason: object, *, is_forbidden: bool = False) -> None:
        """Count one, and keep the first reasons.

        Args:
            reason: For people.
            is_forbidden: Whether the token or its project is at fault, whatever is stored.
        """
        self.count += 1
        self._forbidden += is_forbidden
        self.note(reason)

    def note(self, reason: object) -> None:
        """Keep a reason for something that was stored only in part."""
        if len(self._reasons) < _SHOWN_REASONS:
            self._reasons[f"{reason}"] = None

    @property
    def is_all_forbidden(self) -> bool:
        """Whether the sender can mend all of it: it needs another token, or names another project."""
        return 0 < self.count == self._forbidden

    @property
    def message(self) -> str:
        """What was refused and why, for people; "" if nothing was."""
        reasons = "; ".join(self._reasons)
        return f"{self._what} refused: {self.count:,} ({reasons})" if self.count else reasons


@final
class _Portion:
    """A part of a request that is stored at once.

    Attributes:
        rows: Spans.
        patches: Updates.
        size: Bytes of protobuf; 0 where they are not known.
        is_last: Whether nothing follows.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[StoredSpan, Fields]] = []
        self.patches: list[LatePatch] = []
        self.size = 0
        self.is_last = False


async def store_spans(
    service: Service,
    caller: Caller,
    body: bytes,
    *,
    is_json: bool,
    resource: Mapping[str, Json] = MappingProxyType({}),
    path: str = "",
) -> Refused:
    """Store the spans and updates of an `ExportTraceServiceRequest`, and return what was refused.

    Args:
        service: The store.
        caller: Who sends; one with a project can send to that project only.
        body: The request.
        is_json: Whether it is JSON; protobuf otherwise.
        resource: Attributes of the resources that do not have them, such as the project.
        path: Where it was sent, if over HTTP.

    Raises:
        Problem: Nothing of the body can be read, or the caller may store nothing of it, or the store does not take it
            now.
    """
    refused = Refused("spans")
    async with service.room.of(_memory_of(body, is_json=is_json)):
        reads = _spans_of(body, is_json=is_json)
        if caller.project is not None:
            resource = {PROJECT_NAMES[0]: caller.project, **resource}
        await _store(service, caller, reads, refused, resource, path)
    service.metrics.spans_refused += refused.count
    return refused


async def store_evaluations(service: Service, caller: Caller, body: bytes, *, is_json: bool) -> Refused:
    """Store the evaluations of an `ExportLogsServiceRequest`, and return which log records were refused.

    Raises:
        Problem: As of `store_spans`.
    """
    refused = Refused("log records")
    async with service.room.of(_memory_of(body, is_json=is_json)):
        now_ns = service.clock.wall_ns()
        reads = ((_evaluated(record, now_ns), 0) for record in _records_of(body, is_json=is_json))
        await _store(service, caller, reads, refused)
    service.metrics.log_records_refused += refused.count
    return refused


async def check_metrics(service: Service, body: bytes, *, is_json: bool) -> None:
    """Check that a body is an `ExportMetricsServiceRequest`, of which nothing is stored.

    Raises:
        Problem: It is something else.
    """

    def check() -> None:
        if not is_json:
            _check(body)  # its outer messages are numbered as those of spans
            return
        found = _json(body)
        if found and otlp_json.signal_of(found) != "metrics":
            raise _instead(found, "resourceMetrics")

    async with service.room.of(_memory_of(body, is_json=is_json)):
        await service.decode(check)


async def _store(
    service: Service,
    caller: Caller,
    reads: Iterator[tuple[Read, int]],
    refused: Refused,
    resource: Mapping[str, Json] = MappingProxyType({}),
    path: str = "",
) -> None:
    """Store a request in portions.

    Raises:
        Problem: 403 if all of it needs another token.
    """
    may_update = UPDATE in caller.scopes

    def next_portion() -> tuple[_Portion, Ingested | None]:
        with AUTHORS.taking(service.may_name(caller)):
            portion = _next_portion(reads, refused, caller, resource, path)
        if may_update:
            _refuse_writers_of_tokens(service, caller, portion, refused)
        else:
            _take_updates_out(caller, portion, refused)
        _refuse_too_late(portion, refused)
        if caller.project is not None:
            return portion, None
        size = portion.size or None
        return portion, service.ingest_here(portion.rows, portion.patches, size, may_update=may_update)

    is_last, count = False, 0
    while not is_last:
        portion, ingested = await service.decode(next_portion)
        if ingested is not None:
            await service.stored(ingested)
        else:
            await service.find(partial(_restrict, service.store, caller, portion, refused))
            size = portion.size or None
            await service.ingest(portion.rows, portion.patches, size=size, may_update=may_update)
        count += len(portion.rows) + len(portion.patches)
        is_last = portion.is_last
    if not count and refused.is_all_forbidden:
        raise Problem(403, f"{refused.message}.")


def _memory_of(body: bytes, *, is_json: bool) -> int:
    """Return about how much memory is taken at once to decode a body."""
    if not is_json:
        return min(len(body), _PORTION_BYTES) * _GROWTH
    containers = body.count(b"{") + body.count(b"[")
    # A text with one character beyond the usual ones takes four bytes for each of its characters.
    memory = len(body) * (1 if body.isascii() else 4)
    memory += containers * _CONTAINER_BYTES + body.count(b",") * _VALUE_BYTES + body.count(b'"') * _QUOTE_BYTES
    if memory > MAX_JSON_MEMORY:
        title = "The JSON has too many values for one request; expected fewer: send it in parts, or as protobuf."
        raise Problem(413, title)
    return memory


def _spans_of(body: bytes, *, is_json: bool) -> Iterator[tuple[Read, int]]:
    """Yield the spans of a body, each with its size in bytes; 0 in JSON, where it is not known.

    Raises:
        Problem: At the first span: nothing of the body can be read.
    """
    if not is_json:
        _check(body)
        yield from protobuf.spans_of(body)
        return
    found = _json(body)
    if found and not otlp_json.is_traces(found):
        raise _instead(found, "resourceSpans")
    for read in otlp_json.spans_of(found):
        yield read, 0


def _records_of(body: bytes, *, is_json: bool) -> Iterator[LogRecord | OtlpError]:
    """Yield the log records of a body; see `_spans_of`."""
    if not is_json:
        _check(body)
        yield from protobuf.log_records_of(body)
        return
    found = _json(body)
    if found and not otlp_json.is_logs(found):
        raise _instead(found, "resourceLogs")
    yield from otlp_json.log_records_of(found)


def _check(body: bytes) -> None:
    try:
        protobuf.check(body)
    except protobuf.TooManyPartsError:
        title = f"The request has too many parts; expected at most {protobuf.MAX_PARTS:,}: send it in several."
        raise Problem(413, title) from None
    except protobuf.MalformedError as error:
        raise Problem(400, f"The body is not OTLP in protobuf: {error}.") from None


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"The body is not JSON: {error}.", position=error.pos) from None
    if not isinstance(found, dict):
        raise Problem(400, f"The JSON is a {type(found).__name__}; expected an object with resourceSpans.")
    level: list[Any] = [found]
    for _ in range(MAX_NESTING):
        level = [
            item
            for one in level
            for item in (one.values() if type(one) is dict else one)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return found
    raise Problem(400, f"The JSON is nested more than {MAX_NESTING} deep; expected less.")


def _instead(found: Mapping[str, Any], expected: str) -> Problem:
    signal = otlp_json.signal_of(found) or ("traces" if otlp_json.is_traces(found) else None)
    named = otlp_json.format_of(found) or (f"OTLP {signal}" if signal else f"an object without {expected}")
    return Problem(400, f"The JSON is {named}; expected {expected}.", expected=expected)


def _next_portion(
    reads: Iterator[tuple[Read, int]],
    refused: Refused,
    caller: Caller,
    resource: Mapping[str, Json],
    path: str,
) -> _Portion:
    """Return the next spans and updates."""
    portion = _Portion()
    events = 0
    last: Mapping[str, Json] | None = None
    is_of_project = True
    for read, size in reads:
        portion.size += size
        if isinstance(read, OtlpError):
            refused.add(read)
            continue
        if isinstance(read, LatePatch):
            portion.patches.append(read)
        else:
            span = read[0]
            if span.resource is not last:  # the spans of a resource share it
                last = span.resource
                for name, value in resource.items():
                    last.setdefault(name, value)  # type: ignore[attr-defined] # a dict of the reader's
                is_of_project = caller.project is None or project_of(last) == caller.project
            if not is_of_project:
                refused.add(_wrong_project(caller), is_forbidden=True)
                continue
            if span.scope_name == _LANGWATCH_SCOPE:
                portion.patches.append(_langwatch_update(span))
                continue
            portion.rows.append(with_vendor_fields(*read, path))
            events += len(span.events) + len(span.links)
        if (
            len(portion.rows) + len(portion.patches) >= _PORTION
            or portion.size >= _PORTION_BYTES
            or events >= _PORTION_EVENTS
        ):
            return portion
    portion.is_last = True
    return portion


def _refuse_writers_of_tokens(service: Service, caller: Caller, portion: _Portion, refused: Refused) -> None:
    """Take out what names a writer of another token: its values would be shown as set by the caller of that token."""
    each = [fields for _, fields in portion.rows] + [patch.fields for patch in portion.patches]
    held = service.writers_of_tokens(caller, {version[1] for fields in each for _, version in fields.values()})
    if not held:
        return

    def is_foreign(fields: Fields) -> bool:
        if held.isdisjoint(version[1] for _, version in fields.values()):
            return True
        refused.add("a value has a writer of this server; expected one of the sender")
        return False

    portion.rows = [row for row in portion.rows if is_foreign(row[1])]
    portion.patches = [patch for patch in portion.patches if is_foreign(patch.fields)]


def _refuse_too_late(portion: _Portion, refused: Refused) -> None:
    """Take out what no update could replace."""
    rows, patches = portion.rows, portion.patches
    portion.rows = [row for row in rows if not is_too_late(row[1])]
    portion.patches = [patch for patch in patches if not is_too_late(patch.fields)]
    for _ in range(len(rows) - len(portion.rows) + len(patches) - len(portion.patches)):
        refused.add(TOO_LATE)


def _take_updates_out(caller: Caller, portion: _Portion, refused: Refused) -> None:
    """Take out what a caller without `traces:update` must not store: updates, and values with versions of their own.

    Such a version could be later than any update, and its writer could be anybody.
    """
    for _ in portion.patches:
        refused.add(_no_update(caller, "an update"), is_forbidden=True)
    portion.patches = []
    for at, (span, fields) in enumerate(portion.rows):
        plain = (span.end_ns, PLAIN_ATTRIBUTE_WRITER)
        if any(version != plain for _, version in fields.values()):
            fields = {name: field for name, field in fields.items() if field[1] == plain}  # noqa: PLW2901 # what is left of them
            portion.rows[at] = span, fields
            refused.note(_no_update(caller, "a value with a version of its own"))


def _langwatch_update(span: StoredSpan) -> LatePatch:
    """Return the update of a trace that LangWatch's server has put on the resource of a span of its own."""
    _, fields = with_vendor_fields(replace(span, attributes=span.resource), {})
    return LatePatch(span.trace_id, "", {name: field for name, field in fields.items() if name[0] == "trace"})


def _evaluated(record: LogRecord | OtlpError, now_ns: int) -> LatePatch | OtlpError:
    """Return the update that a log record means, or why it means none."""
    try:
        return record if isinstance(record, OtlpError) else evaluation_of(record, now_ns)
    except OtlpError as error:
        return error


def _restrict(store: SpanStore, caller: Caller, portion: _Portion, refused: Refused) -> None:
    """Take from a portion what is of another project than that of its caller, with one look-up."""
    keys = [(span.trace_id, span.span_id) for span, _ in portion.rows]
    keys += [(patch.trace_id, patch.span_id) for patch in portion.patches]
    targets = dict(zip(keys, locate_all(store, caller, keys) if keys else [], strict=True))
    rows, portion.rows = portion.rows, []
    own: set[tuple[str, str]] = set()
    for span, fields in rows:
        target = targets[span.trace_id, span.span_id]
        if isinstance(target, Problem):
            refused.add(_reason(target))
            continue
        portion.rows.append((span, fields))
        own |= {(span.trace_id, span.span_id), (span.trace_id, "")}
    patches, portion.patches = portion.patches, []
    for patch in patches:
        target = targets[patch.trace_id, patch.span_id]
        if isinstance(target, Target) or (patch.trace_id, patch.span_id) in own:
            portion.patches.append(patch)
        else:
            refused.add(_reason(target))


def _reason(error: Problem | SpanNotFoundError) -> str:
    return error.title if isinstance(error, Problem) else f"{error}"


def _no_update(caller: Caller, what: str) -> str:
    return f"{what}; the token {ascii(caller.name)[:80]} needs the scope {UPDATE} for it"


def _wrong_project(caller: Caller) -> str:
    # Its name is not said: a header may name it by an id whose name the caller must not know.
    return f"a span whose resource or header names another project than {ascii(caller.project)[:80]}, that of the token"
