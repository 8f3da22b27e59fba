"""Changes under `/api/v1`: updates of spans and traces, verdicts, batches, deletion, retention, import.

An update that is written plainly goes through the same clean-up as `update_span` and gets a version of the caller. An
exact one brings its versions along: it is what another process or store has already decided.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import re
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from weakref import WeakKeyDictionary

import msgspec

from otel_metadata.client import imports
from otel_metadata.client.queries import past_ns
from otel_metadata.errors import FileError, OtelMetadataError, SpanNotFoundError
from otel_metadata.live.misuse import Misfit
from otel_metadata.live.values import annotation_values, evaluation_values, masked, read_status, span_values
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.merge import Fields, Level
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import parse_trace_id
from otel_metadata.model.times import time_text
from otel_metadata.model.unset import UNSET
from otel_metadata.seams import SpanStore
from otel_metadata.server import api_types
from otel_metadata.server.operations import Answer, Call, Operation, Problem, Stream
from otel_metadata.server.problems import problem_of
from otel_metadata.server.schema_errors import invalid
from otel_metadata.server.selection import (
    NOTHING_SET,
    Slots,
    refuse_project,
    span_key,
    stored,
    version_of,
    version_text,
)
from otel_metadata.server.traces import fields_of_trace
from otel_metadata.store import table

if TYPE_CHECKING:
    from otel_metadata.live.values import Values
    from otel_metadata.model.merge import Version
    from otel_metadata.server.operations import Caller
    from otel_metadata.server.service import Service

_Update = api_types.TraceUpdate | api_types.SpanUpdate
_Patch = tuple[str, str, Fields]

MAX_LINE: Final = 64 << 20
"""Bytes of one line of an import."""

_PORTION: Final = 4 << 20
"""Bytes of an import that are read at once."""

_NO_SPANS: Final = b'{"resourceSpans":[]}\n'

_IDLE_SECONDS: Final = 60
"""How long an import waits for the next bytes."""

_IMPORTS: Final = Slots(2, "imports")
_RETENTIONS: Final = Slots(1, "retentions")

_CONTENTS: Final = {
    "evaluation": "a label, a score or an explanation",
    "annotation": "a label, a score or a text",
}
_STATUS: Final = "ok, error, or an integer code from 0 to 2147483647"
_ETAGS: Final = re.compile(r'\s*(?:\*|(?:W/)?"[^"]*"(?:\s*,\s*(?:W/)?"[^"]*")*)\s*')
_STRONG: Final = re.compile(r'(?<!W/)"([^"]*)"')
_OTHER_FORMAT: Final = {
    b"PAR1": "Parquet",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
}


@final
class Target(NamedTuple):
    """What an update is about.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits; "" for the trace.
        is_stored: Whether the span, or a span of the trace, is in the store.
    """

    trace_id: str
    span_id: str
    is_stored: bool


# What to set.


def _values_of(level: Level, given: _Update, notes: list[str]) -> Values:
    """Return the values of an update, cleaned.

    Raises:
        Problem: 400, because a member does not fit, or nothing is given.
    """
    of_span: dict[str, Any] = {}
    if isinstance(given, api_types.SpanUpdate):
        of_span = {
            "attributes": given.attributes,
            "status": given.status,
            "status_message": given.status_message,
        }
        if given.status is not None and read_status(given.status)[0] in (None, "unset"):
            title = f"status is {f'{given.status}'[:100]!r}; expected {_STATUS}."
            raise Problem(400, title, pointer="/status", expected=_STATUS)
    values = span_values(
        level,
        notes,
        metadata=given.metadata,
        name=given.name,
        user_id=given.user_id,
        session_id=given.session_id,
        input=UNSET if given.input is msgspec.UNSET else given.input,
        output=UNSET if given.output is msgspec.UNSET else given.output,
        tags=given.tags,
        **of_span,
    )
    for name, verdict in (given.evaluations or {}).items():
        values |= _evaluation(level, name, verdict, f"/evaluations/{_escaped(name)}", notes)
    for number, note in enumerate(given.annotations or ()):
        values |= _annotation(level, note.name, note, f"/annotations/{number}", notes)
    _check(values, notes)
    return masked(values, notes)


def _evaluation(level: Level, name: str, given: api_types.EvaluationInput, pointer: str, notes: list[str]) -> Values:
    if given.label is None and given.score is None and given.explanation is None:
        raise _without_contents("evaluation", name, pointer)
    return evaluation_values(
        level,
        _named(name, pointer),
        notes,
        score=given.score,
        label=given.label,
        explanation=given.explanation,
        source=given.source,
        metadata=given.metadata,
    )


def _annotation(level: Level, name: str, given: api_types.AnnotationInput, pointer: str, notes: list[str]) -> Values:
    if given.label is None and given.score is None and given.text is None:
        raise _without_contents("annotation", name, pointer)
    values = annotation_values(
        _named(name, pointer),
        notes,
        label=given.label,
        score=given.score,
        text=given.text,
        annotator=given.annotator,
    )
    return {(level, kind, key): value for (_, kind, key), value in values.items()}


def _without_contents(kind: str, name: str, pointer: str) -> Problem:
    expected = _CONTENTS[kind]
    return Problem(
        400, f"The {kind} {name[:100]!r} has no contents; expected {expected}.", pointer=pointer, expected=expected
    )


def _named(name: str, pointer: str) -> str:
    if not name:
        raise Problem(400, "A name is empty; expected at least one character.", pointer=pointer)
    return name


def _check(values: Values, notes: list[str]) -> None:
    """Refuse an update that does not fit or sets nothing. The other notes say what the clean-up has changed."""
    problem = next((note for note in notes if isinstance(note, Misfit)), None)
    if problem is not None:
        raise Problem(400, f"{problem}")
    if not values:
        expected = "at least one member with a value, such as metadata"
        raise Problem(400, f"The update sets nothing; expected {expected}.", pointer="", expected=expected)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


# Where to set it.


def _locate(store: SpanStore, caller: Caller, trace_id: str | None, span_id: str) -> Target:
    """Find the span or trace of an update.

    A token with a project may change only spans of that project, and traces with such a span. Nobody knows the project
    of a span that is not stored, so such a token cannot update it.

    Raises:
        SpanNotFoundError: It is not stored, and the update needs it: no trace id is known, or the caller has a project.
        Problem: 403, because it is of another project.
    """
    query = SpanQuery(trace_id, span_id or None, limit=1)
    found = store.query(replace(query, project=caller.project))
    if found:
        return Target(found[0].trace_id, span_id, is_stored=True)
    if caller.project is not None and store.query(query):
        what = f"Span {span_id}" if span_id else f"Trace {trace_id}"
        raise Problem(403, f"{what} is of another project than this token; expected one of {caller.project!r}.")
    if trace_id is None or caller.project is not None:
        raise SpanNotFoundError(span_id or f"{trace_id}", f"{store}")
    return Target(trace_id, span_id, is_stored=False)


@final
class _Lookups:
    """Finds the targets of updates that come at the same time in one call, as group commit stores them.

    The calls are on the pool of writers: a page that searches takes the threads of readers, and updates do not wait for
    it. For the event loop alone.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Caller, tuple[str | None, str], asyncio.Future[Target]]] = []
        self._task: asyncio.Task[None] | None = None

    async def find(self, service: Service, caller: Caller, trace_id: str | None, span_id: str) -> Target:
        """Find the span or trace of one update, as `_locate` does."""
        future: asyncio.Future[Target] = asyncio.get_running_loop().create_future()
        self._waiting.append((caller, (trace_id, span_id), future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(service))
        return await future

    async def _work(self, service: Service) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            by_project: dict[str | None, list[tuple[Caller, tuple[str | None, str], asyncio.Future[Target]]]] = {}
            for one in waiting:
                by_project.setdefault(one[0].project, []).append(one)
            for several in by_project.values():
                keys = [key for _, key, _ in several]
                found: Sequence[Target | Exception]
                try:
                    found = await service.write(partial(_locate_all, service.store, several[0][0], keys))
                except Exception as error:  # noqa: BLE001 # each of those who wait gets it
                    found = [error] * len(several)
                for (_, _, future), target in zip(several, found, strict=True):
                    if future.cancelled():
                        continue
                    if isinstance(target, Target):
                        future.set_result(target)
                    else:
                        future.set_exception(target)


_LOOKUPS: Final[WeakKeyDictionary[Any, _Lookups]] = WeakKeyDictionary()


def _locate_all(
    store: SpanStore, caller: Caller, keys: Sequence[tuple[str | None, str]]
) -> list[Target | Problem | SpanNotFoundError]:
    """Find the targets of many updates; of each that cannot be updated return why."""
    span_ids = [span_id for _, span_id in keys if span_id]
    found = store.find(span_ids) if span_ids and caller.project is None else {}
    targets: list[Target | Problem | SpanNotFoundError] = []
    for trace_id, span_id in keys:
        newest = found.get(span_id)
        if newest is not None and trace_id in (None, newest.trace_id):
            targets.append(Target(newest.trace_id, span_id, is_stored=True))
            continue
        try:
            targets.append(_locate(store, caller, trace_id, span_id))
        except (Problem, SpanNotFoundError) as error:
            targets.append(error)
    return targets


# One update.


async def _patch_span(call: Call) -> Answer:
    return await _update_span(call, partial(_values_of, "span", call.body))


async def _patch_trace(call: Call) -> Answer:
    return await _update_trace(call, partial(_values_of, "trace", call.body))


async def _put_evaluation(call: Call) -> Answer:
    return await _update_span(call, partial(_verdict, _evaluation, "span", call))


async def _put_annotation(call: Call) -> Answer:
    return await _update_span(call, partial(_verdict, _annotation, "span", call))


async def _put_trace_evaluation(call: Call) -> Answer:
    return await _update_trace(call, partial(_verdict, _evaluation, "trace", call))


async def _put_trace_annotation(call: Call) -> Answer:
    return await _update_trace(call, partial(_verdict, _annotation, "trace", call))


def _verdict(
    make: Callable[[Level, str, Any, str, list[str]], Values], level: Level, call: Call, notes: list[str]
) -> Values:
    values = make(level, call.path["name"], call.body, "", notes)
    _check(values, notes)
    return masked(values, notes)


async def _update_span(call: Call, values_of: Callable[[list[str]], Values]) -> Answer:
    key = span_key(call.path["span_id"], call.query.trace_id)
    return await _update(call, key.trace_id, key.span_id, values_of)


async def _update_trace(call: Call, values_of: Callable[[list[str]], Values]) -> Answer:
    return await _update(call, parse_trace_id(call.path["trace_id"]).trace_id_hex, "", values_of)


async def _update(call: Call, trace_id: str | None, span_id: str, values_of: Callable[[list[str]], Values]) -> Answer:
    notes: list[str] = []
    values = values_of(notes)
    store, wanted = call.service.store, call.headers.get("if-match")
    if wanted is not None and not _ETAGS.fullmatch(wanted):
        expected = "the ETag of the span, in quotes, or *"
        raise Problem(400, f"If-Match is {wanted[:100]!r}; expected {expected}.", expected=expected)
    lookups = _LOOKUPS.setdefault(call.service, _Lookups())
    target = await lookups.find(call.service, call.caller, trace_id, span_id)
    async with _one_at_a_time(target.trace_id if wanted is not None else None):
        # Drawn before the values are looked at: whoever sets one after that look has a greater version, and wins.
        (version,) = call.service.versions(call.caller, 1)
        if wanted is not None:
            _check_match(wanted, target, await call.service.write(partial(_entity_tag, store, target)))
        fields: Fields = {name: (value, version) for name, value in values.items()}
        await call.service.ingest([], [(target.trace_id, target.span_id, fields)], size=_size(call))
        headers = {}
        if wanted is not None:
            headers["ETag"] = f'"{await call.service.write(partial(_entity_tag, store, target))}"'
    return Answer(_receipt(target, fields, version, call.caller, notes), headers=headers)


def _size(call: Call) -> int | None:
    """Return the bytes of the body, as its sender says; None if it does not."""
    length = call.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


def _receipt(target: Target, fields: Fields, version: Version, caller: Caller, notes: list[str]) -> api_types.Receipt:
    ns, writer = version
    return api_types.Receipt(
        status="updated" if target.is_stored else "pending",
        trace_id=target.trace_id,
        span_id=target.span_id,
        fields=[api_types.FieldName(*name) for name in fields],
        time=time_text(ns),
        time_ns=f"{ns}",
        writer=f"{writer:016x}",
        author=caller.name,
        version=version_text(version),
        notes=list(dict.fromkeys(notes)),
    )


# A few for each event loop: updates of different traces seldom wait for one another.
_LOCKS: Final[WeakKeyDictionary[Any, list[asyncio.Lock]]] = WeakKeyDictionary()
_LOCK_COUNT: Final = 64


@asynccontextmanager
async def _one_at_a_time(trace_id: str | None) -> AsyncIterator[None]:
    """Hold up others in the same trace for the block: of two updates with the same tag one is refused.

    Args:
        trace_id: The trace; None for an update without `If-Match`, which holds nobody up.
    """
    if trace_id is None:
        yield
        return
    locks = _LOCKS.setdefault(asyncio.get_running_loop(), [])
    if not locks:
        locks += [asyncio.Lock() for _ in range(_LOCK_COUNT)]
    async with locks[int(trace_id, 16) % _LOCK_COUNT]:
        yield


def _entity_tag(store: SpanStore, target: Target) -> str:
    found = stored(store, SpanQuery(target.trace_id, target.span_id or None, limit=1)) if target.is_stored else None
    if found is None:
        return NOTHING_SET
    return version_of(found[1] if target.span_id else fields_of_trace(found[1]))


def _check_match(wanted: str, target: Target, tag: str) -> None:
    """Compare `If-Match` with what is stored (RFC 9110, 13.1.1).

    Raises:
        Problem: 412.
    """
    if target.is_stored and (wanted.strip() == "*" or tag in _STRONG.findall(wanted)):
        return
    got = f'its ETag is "{tag}" now' if target.is_stored else "it is not stored"
    raise Problem(
        412,
        f"If-Match is {wanted[:200]}, and {got}; expected the ETag of now: read it again, and decide anew.",
        expected=f'"{tag}"' if target.is_stored else None,
        headers={"ETag": f'"{tag}"'} if target.is_stored else {},
    )


# Many updates.


@final
class _Parsed(NamedTuple):
    """One update of a batch.

    Attributes:
        key: Its trace id, if known, and its span id.
        values: What to set with a version of the caller; empty if *fields* is given.
        fields: What to set with its own versions.
        notes: What the clean-up changed.
    """

    key: tuple[str | None, str]
    values: Values
    fields: Fields
    notes: list[str]


async def _batch(call: Call) -> Answer:
    body: api_types.Batch = call.body
    parsed = await call.service.decode(lambda: [_parsed(update) for update in body.updates])
    used = {version[1] for one in parsed if isinstance(one, _Parsed) for _, version in one.fields.values()}
    for writer, name in (body.authors or {}).items():
        # Only those whose values came along: a process keeps the names of the latest writers.
        if int(writer, 16) in used:
            AUTHORS.add(int(writer, 16), name)
    versions = call.service.versions(call.caller, len(parsed))
    keys = [one.key for one in parsed if isinstance(one, _Parsed)]
    targets = iter(await call.service.write(partial(_locate_all, call.service.store, call.caller, keys)))
    patches: list[_Patch] = []
    exact: list[_Patch] = []
    outcomes: list[api_types.Outcome] = []
    for one, version in zip(parsed, versions, strict=True):
        if not isinstance(one, _Parsed):
            outcomes.append(_failed("parse_failure", one))
        elif not isinstance(target := next(targets), Target):
            outcomes.append(
                _failed("segment_not_found" if isinstance(target, SpanNotFoundError) else "forbidden", target)
            )
        else:
            if one.fields:
                exact.append((target.trace_id, target.span_id, one.fields))
            else:
                fields = {name: (value, version) for name, value in one.values.items()}
                patches.append((target.trace_id, target.span_id, fields))
            outcomes.append(
                api_types.Outcome(
                    status="updated" if target.is_stored else "pending",
                    trace_id=target.trace_id,
                    span_id=target.span_id,
                    fields=[api_types.FieldName(*name) for name in one.values],
                    version=None if one.fields else version_text(version),
                    notes=list(dict.fromkeys(one.notes)),
                )
            )
    if body.route == "late":
        patches += exact
    elif exact:
        await call.service.write(partial(call.service.store.patch_rows, exact, route=body.route))
        call.service.changed()
    if patches:
        await call.service.ingest([], patches, size=_size(call))
    count = [outcome.status for outcome in outcomes].count
    return Answer(api_types.Outcomes(outcomes, count("updated"), count("pending"), count("failed"), call.caller.name))


def _failed(reason: str, error: object) -> api_types.Outcome:
    problem = problem_of(error) if isinstance(error, Exception) else None
    return api_types.Outcome(
        status="failed", reason=reason, message=problem.title if problem is not None else f"{error}"
    )


def _parsed(update: dict[str, Any]) -> _Parsed | Problem:
    """Read one update of a batch; return why it cannot be read."""
    notes: list[str] = []
    try:
        given = msgspec.convert(update, api_types.BatchUpdate)
        key = _key_of(given)
        level: Level = "span" if key[1] else "trace"
        if given.fields is not None:
            others = sorted(update.keys() - {"trace_id", "span_id", "fields"})
            if others or not given.fields:
                got = f"fields and {', '.join(others)[:200]}" if others else "no field"
                raise Problem(400, f"The update has {got}; expected fields alone, at least one.")
            return _Parsed(key, {}, _exact_fields(given.fields, level), notes)
        if level == "trace" and not (
            given.attributes is None and given.status is None and given.status_message is None
        ):
            raise Problem(400, "The update of a trace has attributes, status or status_message; expected a span_id.")
        return _Parsed(key, _values_of(level, given, notes), {}, notes)
    except msgspec.ValidationError as error:
        return invalid("The update", error, api_types.BatchUpdate, pointer=None)
    except (Problem, OtelMetadataError) as error:
        return problem_of(error) or Problem(400, f"{error}")


def _key_of(given: api_types.BatchUpdate) -> tuple[str | None, str]:
    if given.span_id:
        return span_key(given.span_id, given.trace_id)
    if given.trace_id is None:
        raise Problem(400, "The update has neither trace_id nor span_id; expected at least one of them.")
    return parse_trace_id(given.trace_id).trace_id_hex, ""


def _exact_fields(given: list[api_types.ExactField], level: Level) -> Fields:
    fields = {}
    for number, one in enumerate(given):
        try:
            name, field = table.field_of({}, one.level, one.kind, one.key, int(one.time_ns), one.writer, one.value)
        except ValueError:
            expected = "time_ns and writer within 64 bits, and a key that the kind has"
            raise Problem(
                400,
                f"Field {number} of the update has {one.kind} {one.key[:100]!r} at {one.time_ns}; expected {expected}.",
            ) from None
        if level == "trace" and one.level == "span":
            raise Problem(400, f"Field {number} of the update is of a span; expected a span_id beside it.")
        fields[name] = field
    return fields


# Deletion.


async def _delete(call: Call) -> Answer:
    body: api_types.Deletion = call.body
    if (body.time_ns is None) != (body.writer is None):
        raise Problem(400, "Only one of time_ns and writer is given; expected both, or neither.")
    keys: list[tuple[str | None, str]] = [span_key(one.span_id, one.trace_id) for one in body.spans]
    (version,) = call.service.versions(call.caller, 1)
    if body.time_ns is not None and body.writer is not None:
        version = int(body.time_ns), int(body.writer, 16)
        if version[0] not in range(-(1 << 63), 1 << 63):
            raise Problem(400, f"time_ns is {body.time_ns}; expected 64 bits.", pointer="/time_ns")
    store = call.service.store

    def delete() -> tuple[list[tuple[str, str]], list[tuple[str | None, str]]]:
        targets = _locate_all(store, call.caller, keys)
        foreign = next((target for target in targets if isinstance(target, Problem)), None)
        if foreign is not None:
            raise foreign
        places = [(target.trace_id, target.span_id) for target in targets if isinstance(target, Target)]
        deleted = store.delete(places, version)
        gone = set(deleted)
        left: list[tuple[str | None, str]] = []
        for key, target in zip(keys, targets, strict=True):
            named = (target.trace_id, target.span_id) if isinstance(target, Target) else key
            if named not in gone:
                left.append(named)
        return deleted, left

    deleted, left = await call.service.write(delete)
    call.service.changed()
    ns, writer = version
    return Answer(
        api_types.Deleted(
            [api_types.StoredKey(*one) for one in deleted],
            [api_types.StoredKey(*one) for one in dict.fromkeys(left)],
            f"{ns}",
            f"{writer:016x}",
            call.caller.name,
        )
    )


async def _retain(call: Call) -> Answer:
    body: api_types.Retention = call.body
    refuse_project(call.caller, "A retention deletes spans of all projects")
    age: dt.timedelta | str | None = body.before
    if body.older_than_seconds is not None:
        if age is not None:
            raise Problem(400, "Both before and older_than_seconds are given; expected one of them.")
        age = dt.timedelta(seconds=body.older_than_seconds)
    if age is None and body.max_bytes is None:
        expected = "before, older_than_seconds or max_bytes"
        raise Problem(400, f"Nothing is given; expected at least one of {expected}.", pointer="", expected=expected)
    before_ns = past_ns(age, call.service.clock.wall_ns()) if age is not None else None
    place = _RETENTIONS.take()  # it may take minutes, and a second one would take the other thread that writes
    try:
        found = await call.service.write(partial(call.service.store.retain, before_ns, body.max_bytes))
    finally:
        place.give_back()
    call.service.changed()
    return Answer(api_types.Retained(found.spans_deleted, found.updates_deleted, found.stored_bytes))


# Import.


async def _import(call: Call) -> Answer:
    refuse_project(call.caller, "An import stores spans of all projects")
    if "traces:update" not in call.caller.scopes:
        raise Problem(403, "An import updates spans as well; expected a token with the scope traces:update, too.")
    whole = api_types.Imported(0, 0, 0, 0, [], None)
    place = await _IMPORTS.wait()
    try:
        lines = 0
        async for portion in _portions(_in_time(call.body)):
            report = await call.service.write(partial(_import_portion, call.service.store, portion, lines))
            _add(whole, report, lines)
            lines += portion.count(b"\n")
            call.service.changed()
    finally:
        place.give_back()
    if whole.spans_imported or whole.updates_imported or whole.spans_failed:
        whole.found_instead = None
    elif not lines:
        whole.found_instead = whole.found_instead or "nothing"
    return Answer(whole)


def _import_portion(store: SpanStore, portion: bytes, lines: int) -> imports.ImportReport:
    # Only the first line of an import decides whether its documents are spread over lines.
    before = _NO_SPANS if lines else b""
    try:
        report = imports.import_file(store, io.BufferedReader(io.BytesIO(before + portion)))
        problems = (replace(one, line=one.line - before.count(b"\n")) for one in report.problems)
        return replace(report, problems=tuple(problems))
    except FileError as error:
        if not lines:
            raise Problem(400, f"{error}".partition(": ")[2] or f"{error}") from None
        count = sum(1 for line in portion.splitlines() if line.strip())
        problem = imports.ImportProblem(1, f"{error}".partition(": ")[2])
        return imports.ImportReport(0, count, 0, (problem,))


def _add(whole: api_types.Imported, report: imports.ImportReport, lines: int) -> None:
    whole.spans_imported += report.spans_imported
    whole.updates_imported += report.updates_imported
    whole.spans_failed += report.spans_failed
    whole.lines_ignored += report.lines_ignored
    room = imports.MAX_PROBLEMS - len(whole.problems)
    whole.problems += [api_types.ImportProblem(lines + one.line, one.message) for one in report.problems[:room]]
    whole.found_instead = whole.found_instead or report.found_instead


async def _portions(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield whole lines, about `_PORTION` bytes at a time.

    Raises:
        Problem: 415 for another format, 413 for a line that is too long, 400 for damaged gzip.
    """
    held = bytearray()
    is_first = True
    async for part in _unpacked(parts):
        held += part
        if is_first and len(held) >= 4:
            is_first = False
            other = next((name for start, name in _OTHER_FORMAT.items() if held.startswith(start)), None)
            if other is not None:
                expected = "lines of JSON: an export of ours (export.jsonl), or OTLP; gzip is taken as well"
                raise Problem(415, f"The body is {other}; expected {expected}.", expected=expected)
        if len(held) >= _PORTION:
            end = held.rfind(b"\n") + 1
            if end:
                yield bytes(held[:end])
                del held[:end]
            elif len(held) > MAX_LINE:
                raise Problem(413, f"A line has more than {MAX_LINE >> 20} MB; expected one span or request a line.")
    if held:
        yield bytes(held)


async def _in_time(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts of a body: a client that stops sending takes the place of no other import.

    Raises:
        Problem: 408.
    """
    while True:
        try:
            part = await asyncio.wait_for(anext(parts, None), _IDLE_SECONDS)
        except asyncio.TimeoutError:
            title = (
                f"No byte of the body came for {_IDLE_SECONDS:g} s; expected the rest. What came before is imported."
            )
            raise Problem(408, title, headers={"Connection": "close"}) from None
        if part is None:
            return
        yield part


async def _unpacked(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts of a body; of a gzip file its content, in portions."""
    unpacker: Any = None
    start = b""
    async for part in parts:
        if unpacker is None:
            start += part
            if len(start) < 2:
                continue
            unpacker, part, start = (zlib.decompressobj(31) if start.startswith(b"\x1f\x8b") else False), start, b""  # noqa: PLW2901 # the parts so far
        if unpacker is False:
            yield part
            continue
        data = part
        while data:
            if unpacker.eof:
                unpacker = zlib.decompressobj(31)
            try:
                yield unpacker.decompress(data, _PORTION)
            except zlib.error as error:
                raise Problem(
                    400, f"The gzip of the body is damaged ({error}); what was read before is imported."
                ) from None
            data = unpacker.unconsumed_tail or unpacker.unused_data
    if start:
        yield start
    if unpacker and not unpacker.eof:
        raise Problem(400, "The gzip of the body ends too early; what was read before is imported.")


_WRONG: Final = "The body or a parameter is wrong: the answer says where, and what was expected."
_ALSO: Final = {
    400: _WRONG,
    403: "The span is of another project than the token.",
    404: "The span is not stored, and the request does not name its trace, or the token is for one project.",
    412: "The values have changed since the ETag of If-Match.",
}


def _write(method: Any, path: str, name: str, summary: str, handler: Any, body: type) -> Operation:
    return Operation(
        method,
        f"/api/v1/{path}",
        name,
        summary,
        handler,
        "traces:update",
        tag="updates",
        query=api_types.OfSpan if path.startswith("spans/") else None,
        body=body,
        answer=api_types.Receipt,
        problems=_ALSO,
    )


OPERATIONS: Final[tuple[Operation, ...]] = (
    _write("PATCH", "spans/{span_id}", "update_span", "Update a span.", _patch_span, api_types.SpanUpdate),
    _write("PATCH", "traces/{trace_id}", "update_trace", "Update a trace.", _patch_trace, api_types.TraceUpdate),
    _write(
        "PUT",
        "spans/{span_id}/evaluations/{name}",
        "set_span_evaluation",
        "Set an evaluation of a span; the one of this name is replaced.",
        _put_evaluation,
        api_types.EvaluationInput,
    ),
    _write(
        "PUT",
        "spans/{span_id}/annotations/{name}",
        "set_span_annotation",
        "Set an annotation of a span; the one of this name and annotator is replaced.",
        _put_annotation,
        api_types.AnnotationInput,
    ),
    _write(
        "PUT",
        "traces/{trace_id}/evaluations/{name}",
        "set_trace_evaluation",
        "Set an evaluation of a trace; the one of this name is replaced.",
        _put_trace_evaluation,
        api_types.EvaluationInput,
    ),
    _write(
        "PUT",
        "traces/{trace_id}/annotations/{name}",
        "set_trace_annotation",
        "Set an annotation of a trace; the one of this name and annotator is replaced.",
        _put_trace_annotation,
        api_types.AnnotationInput,
    ),
    Operation(
        "POST",
        "/api/v1/spans:batch",
        "update_many",
        "Update many spans and traces, each for itself.",
        _batch,
        "traces:update",
        tag="updates",
        body=api_types.Batch,
        answer=api_types.Outcomes,
        problems={400: _WRONG},
        max_bytes=16 << 20,
    ),
    Operation(
        "DELETE",
        "/api/v1/spans",
        "delete_spans",
        "Delete spans with everything that was set on them.",
        _delete,
        "delete",
        tag="updates",
        body=api_types.Deletion,
        answer=api_types.Deleted,
        problems={400: _WRONG, 403: "A span is of another project than the token; nothing was deleted."},
    ),
    Operation(
        "POST",
        "/api/v1/retain",
        "retain",
        "Delete the oldest spans, by age or until the store has a size.",
        _retain,
        "delete",
        tag="updates",
        body=api_types.Retention,
        answer=api_types.Retained,
        problems={400: _WRONG, 403: "The token is for one project."},
    ),
    Operation(
        "POST",
        "/api/v1/import",
        "import_spans",
        "Import lines of an export, or of OTLP as JSON.",
        _import,
        "traces:write",
        tag="updates",
        body=Stream,
        body_types=("application/jsonl", "application/x-ndjson", "application/json", "application/gzip"),
        answer=api_types.Imported,
        problems={400: _WRONG, 403: "The token is for one project, or lacks traces:update.", 415: "Another format."},
    ),
)
