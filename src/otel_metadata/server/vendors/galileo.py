"""Galileo's API: updates of stored records, its own ingestion, and what its SDK asks when it starts.

The updates do what Galileo's documentation says ("Update Span", "Update Trace"): tags are added, and input, output and
status code are overwritten. Neither has a field for metadata. With `reliable: true` the answer waits until the store
has the update, and reports a failure. With `reliable: false`, the default, the answer goes out at once and a failure is
only logged; a server that is stopped stores the update all the same.

Types are checked strictly, where Galileo's own server takes `"200"` for a number. Names that the schema does not have
are ignored, as there. Every path works with and without `/v2`, which Galileo's SDK uses both ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar
from uuid import UUID
from uuid import uuid4 as random_uuid4

import msgspec

from otel_metadata._version import __version__
from otel_metadata.errors import StoreError, StoreUnsupportedError
from otel_metadata.live.values import masked
from otel_metadata.model.condition import IsNull, Subject
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.model.times import time_text
from otel_metadata.model.value import clean_key
from otel_metadata.seams import DurationStore
from otel_metadata.server.operations import UPDATE, Answer, Call, Operation, Problem, Scope
from otel_metadata.server.problems import in_json
from otel_metadata.server.vendors import galileo_records as records
from otel_metadata.server.vendors import galileo_types as types
from otel_metadata.server.vendors.bodies import check_project, check_spans, fields_of
from otel_metadata.server.vendors.galileo_ids import (
    derived_uuid4,
    span_id_in_path,
    span_id_of,
    trace_id_in_path,
    unprocessable,
    uuid4,
)
from otel_metadata.server.vendors.jwt import jwt_of
from otel_metadata.server.vendors.names import Named, NameKind, VendorNames, vendor_names

if TYPE_CHECKING:
    from otel_metadata.model.merge import Fields

Record: TypeAlias = Literal["span", "trace"]
_Update: TypeAlias = types.GalileoSpanUpdate | types.GalileoTraceUpdate
U = TypeVar("U")

_SINCE: Final = time_text(0)
_USER: Final = types.GalileoUser(derived_uuid4("user"), "user@localhost", "user")

# Objects of Python take about so much more than the JSON that they were read from.
_GROWTH: Final = 8

# How long the answer to an update waits for a name. Nothing else of it depends on the file of names.
_NAME_SECONDS: Final = 0.2

_STATUS: Final[FieldName] = ("span", "status", "")
_IS_ROOT: Final = IsNull(Subject("span", "parent_id"))

_PROJECT_ID: Final = "galileo.project.id"


def read_update(record: Record, wanted: type[U], in_path: str, body: bytes) -> U:
    """Return the body of an update.

    Args:
        record: What is updated.
        wanted: The type of the body.
        in_path: The id in the path.
        body: JSON.

    Raises:
        Problem: 422 with the place of the first value that is refused.
    """
    update, _ = types.read(body, wanted)
    given = getattr(update, f"{record}_id")
    if not isinstance(given, str) or given.lower() != in_path.lower():
        identifier, digits = uuid4(given, f"/body/{record}_id"), in_path.lower().replace("-", "")
        if identifier.hex != digits:
            message = f"Value error, {record}_id should be the id in the path"
            raise unprocessable(f"/body/{record}_id", "value_error", message)
    return update


def values_of(record: Record, update: _Update) -> dict[FieldName, Json]:
    """Return the values that an update sets, without the status. What is under the name of a secret is masked.

    Raises:
        Problem: 422, because a value cannot be stored as a whole.
    """
    values: dict[FieldName, Json] = {}
    if update.input is not None:
        values[record, "input", ""] = records.whole(update.input, "/body/input")
    if update.output is not None:
        values[record, "output", ""] = records.whole(update.output, "/body/output")
    values |= {(record, "tag", clean_key(tag, [], "tag")): True for tag in update.tags or ()}
    return masked(values, [])


def _ids(body: Any) -> dict[str, Any]:
    """Return `log_stream_id`, `experiment_id` and `metrics_testing_id` of a body."""
    return {name: _id_or_none(getattr(body, name), name) for name in types.IDS}


def _id_or_none(found: object, name: str) -> str | None:
    return f"{uuid4(found, f'/body/{name}')}" if found is not None else None


def _names(call: Call) -> VendorNames:
    return vendor_names(call.service.store)


def _project_id(call: Call) -> str:
    return f"{uuid4(call.path['project_id'], '/path/project_id')}"


async def update_span(call: Call) -> Answer:
    """Change a stored span."""
    in_path = call.path["span_id"]
    project_id = _project_id(call)
    span_id = span_id_in_path(in_path)
    update = read_update("span", types.GalileoSpanUpdate, in_path, call.body)
    ids = _ids(update)
    changed = values_of("span", update)
    if update.status_code is not None:
        changed[_STATUS] = update.status_code
    fields = fields_of(call, changed)  # before anything waits: their order is that of the calls

    async def apply() -> SpanRecord:
        span = await _found(call, SpanQuery(span_id=span_id, limit=1))
        if span is None:
            raise Problem(404, f"Span {in_path} is not stored; expected a span that was sent before its update.")
        await check_project(call, span.trace_id, span_id)
        _check_place(span, project_id, f"Span {in_path}")
        await _apply(call, span, update, [(span.trace_id, span_id, fields)])
        return span

    answer = await _answered(call, apply, project_id, in_path, is_reliable=update.reliable)
    return Answer(types.GalileoSpanUpdated(**answer, **ids, span_id=in_path))


async def update_trace(call: Call) -> Answer:
    """Change a stored trace. Its status and duration are those of its root."""
    in_path = call.path["trace_id"]
    project_id = _project_id(call)
    trace_id = trace_id_in_path(in_path)
    update = read_update("trace", types.GalileoTraceUpdate, in_path, call.body)
    ids = _ids(update)
    fields = fields_of(call, values_of("trace", update))
    of_root = fields_of(call, {_STATUS: update.status_code}) if update.status_code is not None else {}

    async def apply() -> SpanRecord:
        root = await _found(call, SpanQuery(trace_id, condition=_IS_ROOT, limit=1))
        span = root if root is not None else await _found(call, SpanQuery(trace_id, limit=1))
        if span is None:
            raise Problem(404, f"Trace {in_path} is not stored; expected a trace that was sent before its update.")
        root_id = ""
        if of_root or update.duration_ns is not None:
            root_id = root.span_id if root is not None else _id_of_missing_root(span)
            if not root_id or (root is None and update.duration_ns is not None):
                raise Problem(404, f"The root span of trace {in_path} is not stored; it has the status and duration.")
        await check_project(call, trace_id, root_id)
        _check_place(span, project_id, f"Trace {in_path}")
        await _apply(call, span, update, [(trace_id, "", fields), (trace_id, root_id, of_root)])
        return span

    answer = await _answered(call, apply, project_id, in_path, is_reliable=update.reliable)
    return Answer(types.GalileoTraceUpdated(**answer, **ids, trace_id=in_path))


def _id_of_missing_root(span: SpanRecord) -> str:
    """Return the id that the root of a span's trace will have; "" if nobody knows it."""
    return span_id_of(UUID(span.trace_id)) if span.span.scope_name == records.SCOPE else ""


async def _found(call: Call, query: SpanQuery) -> SpanRecord | None:
    return next(iter(await call.service.find(partial(call.service.store.query, query))), None)


def _check_place(span: SpanRecord, project_id: str, what: str) -> None:
    """Refuse the id of another project than that of a span which came through Galileo's API."""
    if span.span.resource.get(_PROJECT_ID, project_id) != project_id:
        raise Problem(404, f"{what} is not in the project {project_id}; expected the project that it was sent to.")


async def _apply(call: Call, span: SpanRecord, update: _Update, patches: Sequence[tuple[str, str, Fields]]) -> None:
    """Store an update; the duration is that of *span*."""
    service, duration_ns = call.service, update.duration_ns
    if duration_ns is not None:
        if not isinstance(service.store, DurationStore):
            raise StoreUnsupportedError(f"{service.store}: it cannot change how long a span took.")
        await service.write(partial(service.store.set_durations, [(span.trace_id, span.span_id, duration_ns)]))
        service.changed()
    updates = [patch for patch in patches if patch[2]]
    await service.ingest((), updates, size=call.size, is_answered=not update.reliable)


async def _answered(
    call: Call,
    apply: Callable[[], Coroutine[object, object, SpanRecord]],
    project_id: str,
    in_path: str,
    *,
    is_reliable: bool,
) -> dict[str, Any]:
    """Apply an update, or let it be applied after the answer, and return what all answers say."""
    project = _names(call).known("project", project_id) or await _at_hand(
        call, lambda names: names.get("project", project_id, timeout_seconds=_NAME_SECONDS)
    )
    name = project.name if project is not None else project_id
    if project is not None:
        _check_name(call, name)
    # The documentation requires a session. Without one, or before the store was asked, the id is that of none.
    session_id = _no_session(in_path.lower().replace("-", ""))
    if not is_reliable:
        call.service.soon(apply(), call.size)
    else:
        span = await apply()
        if project is None and span.project is not None:
            name = span.project
        session_id = await _session_id(call, f"{span.span.resource.get(_PROJECT_ID, project_id)}", span)
    return _recorded(Named(project_id, name, ""), session_id, 1)


def _recorded(project: Named, session_id: str, count: int) -> dict[str, Any]:
    """Return what the answers to all updates and ingestions say."""
    said = {"project_id": project.id, "project_name": project.name, "session_id": session_id}
    return {**said, "records_count": count}


async def _at_hand(call: Call, look_up: Callable[[VendorNames], Named | None]) -> Named | None:
    """Return what a look-up finds; None also if it takes long or fails."""
    found = call.service.find(partial(look_up, _names(call)))
    with suppress(asyncio.TimeoutError, Problem, StoreError):
        return await asyncio.wait_for(found, _NAME_SECONDS)
    return None


async def _session_id(call: Call, project_id: str, span: SpanRecord) -> str:
    """Return the UUID of the session that a span is in; one that is no session's if it is in none."""
    session = span.session_id
    if session is None:
        return _no_session(span.trace_id)
    named = await _at_hand(
        call, lambda names: names.by_name("session", session, project_id, timeout_seconds=_NAME_SECONDS)
    )
    return named.id if named is not None else _session_uuid(project_id, session)


def _session_uuid(project_id: str, session: str) -> str:
    """Return the UUID of a session, which the store knows by its external id, its name or the UUID itself."""
    try:
        return f"{uuid4(session, '')}"
    except Problem:
        return derived_uuid4("session", project_id, session)


def _no_session(trace_id: str) -> str:
    return derived_uuid4("session of", trace_id)


async def ingest_traces(call: Call) -> Answer:
    """Store traces with the spans inside them."""
    async with call.service.room.of(len(call.body) * _GROWTH):
        body, document = await call.service.decode(partial(types.read, call.body, types.GalileoTraces))
        project, ids = await _ingestion(call), _ids(body)
        session_id, session = _id_or_none(body.session_id, "session_id"), body.session_external_id or None
        if session is not None:
            session_id = _session_uuid(project.id, session)
        elif session_id is not None:
            named = await _named(call, "session", session_id, project.id)
            session = named.name if named is not None else session_id
        context = await _context(call, project, ids, session)
        rows = await call.service.decode(partial(records.traces, document["traces"], context))
        await check_spans(call, rows)
        await call.service.ingest(rows, size=call.size, may_update=UPDATE in call.caller.scopes)
    roots = [row.trace_id for row, _ in rows if row.parent_id is None]
    answer = _recorded(project, session_id or _no_session(roots[0]), len(rows))
    traces = [f"{UUID(trace_id)}" for trace_id in roots]
    return Answer(types.GalileoTracesStored(**answer, **ids, traces_count=len(traces), traces_id=traces))


async def ingest_spans(call: Call) -> Answer:
    """Store spans below a trace or span that is stored before or after them."""
    async with call.service.room.of(len(call.body) * _GROWTH):
        body, document = await call.service.decode(partial(types.read, call.body, types.GalileoSpans))
        project, ids = await _ingestion(call), _ids(body)
        trace_id, parent_id = uuid4(body.trace_id, "/body/trace_id"), uuid4(body.parent_id, "/body/parent_id")
        context = await _context(call, project, ids, None)
        rows = await call.service.decode(partial(records.spans, document["spans"], trace_id, parent_id, context))
        await check_spans(call, rows)
        await call.service.ingest(rows, size=call.size, may_update=UPDATE in call.caller.scopes)
    answer = _recorded(project, _no_session(trace_id.hex), len(rows))
    return Answer(types.GalileoSpansStored(**answer, **ids, trace_id=body.trace_id, parent_id=body.parent_id))


async def _ingestion(call: Call) -> Named:
    """Return the project that records are sent to."""
    project_id = _project_id(call)
    named = await _named(call, "project", project_id)
    # Somebody who calls without the SDK may choose an id of their own.
    project = named if named is not None else Named(project_id, call.caller.project or project_id, "")
    _check_name(call, project.name)
    return project


async def _named(call: Call, kind: NameKind, identifier: str, parent: str = "") -> Named | None:
    return await call.service.find(partial(_names(call).get, kind, identifier, parent))


def _check_name(call: Call, project: str) -> None:
    if call.caller.project not in (None, project):
        # Its name is not said: the caller may know its id alone.
        raise Problem(403, f"The project is another one than {call.caller.project!r}, the only one of this token.")


async def _context(
    call: Call, project: Named, ids: Mapping[str, str | None], session: str | None
) -> records.RecordContext:
    resource: dict[str, Json] = {"service.name": project.name, _PROJECT_ID: project.id}
    log_stream, experiment = ids["log_stream_id"], ids["experiment_id"]
    if log_stream is not None:
        named = await _named(call, "log_stream", log_stream, project.id)
        resource["galileo.logstream.id"] = log_stream
        if named is not None:
            resource["galileo.logstream.name"] = named.name
    if experiment is not None:
        resource["galileo.experiment.id"] = experiment
    return records.RecordContext(resource, session, call.service.clock.wall_ns())


async def healthcheck(call: Call) -> Answer:
    """Say that the server answers."""
    return Answer(types.GalileoHealth("ok", __version__, __version__))


async def login(call: Call) -> Answer:
    """Give the API key back as a token of the form that the SDK expects."""
    body, _ = types.read(call.body, types.GalileoKey)
    # Everything that the SDK asks next needs this scope, so a wrong key is refused where the SDK says so.
    call.service.access.caller("traces:write", {"galileo-api-key": body.api_key})
    return Answer(types.GalileoToken(jwt_of(body.api_key), "bearer"))


async def current_user(call: Call) -> Answer:
    """Say who calls."""
    return Answer(types.GalileoUser(_USER.id, f"{call.caller.name}@localhost", _USER.role))


def _project(named: Named) -> types.GalileoProject:
    return types.GalileoProject(named.id, named.name, "gen_ai", _USER.id, _USER, _SINCE, _SINCE, [], [])


class ProjectsQuery(msgspec.Struct):
    """The query of `projects`; further parameters are ignored.

    Attributes:
        project_name: Only projects with this in their name.
    """

    project_name: str = ""


async def projects(call: Call) -> Answer:
    """List the projects that a caller has named so far."""
    found = await call.service.find(partial(_names(call).all, "project"))
    wanted: str = call.query.project_name
    seen = [one for one in found if call.caller.project in (None, one.name) and wanted in one.name]
    return Answer([_project(one) for one in seen])


async def create_project(call: Call) -> Answer:
    """Return the project of this name; the same name always has the same id."""
    name = _name_in(call)
    _check_name(call, name)
    return Answer(_project(await _kept(call, "project", Named(derived_uuid4("project", name), name, ""))))


async def project(call: Call) -> Answer:
    """Return a project by its id."""
    return Answer(_project(await _project_in(call)))


async def _project_in(call: Call) -> Named:
    project_id = _project_id(call)
    found = await _named(call, "project", project_id)
    if found is None:
        raise Problem(404, f"Project {project_id} is not known; expected the id of a project that was created here.")
    _check_name(call, found.name)
    return found


async def _kept(call: Call, kind: NameKind, named: Named) -> Named:
    await call.service.write(partial(_names(call).put, kind, named))
    return named


def _name_in(call: Call) -> str:
    body, _ = types.read(call.body, types.GalileoNew)
    return f"{records.whole(body.name, '/body/name')}"


def _log_stream(named: Named) -> types.GalileoLogStream:
    return types.GalileoLogStream(
        named.id, named.name, named.parent, _USER.id, _USER, _SINCE, _SINCE, has_user_created_sessions=False
    )


async def _log_streams_of(call: Call) -> list[types.GalileoLogStream]:
    owner = await _project_in(call)
    found = await call.service.find(partial(_names(call).all, "log_stream", owner.id))
    return [_log_stream(one) for one in found]


async def log_streams(call: Call) -> Answer:
    """List the log streams of a project."""
    return Answer(await _log_streams_of(call))


async def log_streams_paginated(call: Call) -> Answer:
    """List the log streams of a project as one page."""
    found = await _log_streams_of(call)
    return Answer(types.GalileoLogStreams(limit=len(found), log_streams=found))


async def create_log_stream(call: Call) -> Answer:
    """Return the log stream of this name in a project."""
    owner = await _project_in(call)
    name = _name_in(call)
    named = Named(derived_uuid4("log_stream", owner.id, name), name, owner.id)
    return Answer(_log_stream(await _kept(call, "log_stream", named)))


async def create_session(call: Call) -> Answer:
    """Return a session: the same one for the same external id."""
    owner = await _project_in(call)
    body, _ = types.read(call.body, types.GalileoNewSession)
    ids, previous = _ids(body), _id_or_none(body.previous_session_id, "previous_session_id")
    identifier = _session_uuid(owner.id, body.external_id) if body.external_id else f"{random_uuid4()}"
    name = records.whole(body.external_id or body.name or identifier, "/body/name")
    await _kept(call, "session", Named(identifier, f"{name}", owner.id))
    return Answer(
        types.GalileoSession(
            id=identifier,
            name=body.name,
            project_id=owner.id,
            project_name=owner.name,
            external_id=body.external_id,
            previous_session_id=previous,
            **ids,
        )
    )


async def search_sessions(call: Call) -> Answer:
    """Find a session by its external id, which is all that the SDK looks for."""
    owner = await _project_in(call)
    body, _ = types.read(call.body, types.GalileoSearch)
    wanted = [
        one.get("value")
        for one in (body.filters if isinstance(body.filters, list) else ())
        if isinstance(one, dict) and "external_id" in (one.get("name"), one.get("column_id"))
    ]
    names = _names(call)

    def find() -> list[Named]:
        # A session with an external id has the UUID that follows from it.
        ids = [_session_uuid(owner.id, one) for one in wanted if isinstance(one, str)]
        found = [names.get("session", one, owner.id) for one in ids]
        return [one for one in found if one is not None] if wanted else names.all("session", owner.id)

    found = [
        types.GalileoFoundSession(id=one.id, name=one.name, external_id=one.name, project_id=owner.id)
        for one in await call.service.find(find)
    ]
    return Answer(types.GalileoSessions(limit=len(found), records=found, num_records=len(found)))


def problem_body(problem: Problem) -> types.GalileoRefusal:
    """Return a refusal in the form of FastAPI, which Galileo's server is made with."""
    if problem.pointer is None:
        return types.GalileoRefusal(problem.title)
    steps = (step.replace("~1", "/").replace("~0", "~") for step in problem.pointer.split("/")[1:])
    place = [int(step) if step.isdecimal() else step for step in steps]
    return types.GalileoRefusal([types.GalileoPlace(f"{problem.expected}", place, problem.title)])


_Handler: TypeAlias = "Callable[[Call], Awaitable[Answer]]"

_REFUSALS: Final[Mapping[int, str]] = {
    404: "there is no such record",
    422: "the path or the body is not as Galileo's API has it",
}


def _operation(
    method: Literal["GET", "POST", "PATCH"],
    path: str,
    handler: _Handler,
    summary: str,
    answer: Any,
    scope: Scope | None = "traces:write",
    *,
    body: Any = None,
    max_bytes: int = 4 << 20,
    query: type | None = None,
) -> tuple[Operation, ...]:
    """Return the operation of a path, and the same with `/v2` before it."""
    name = "galileo" + "".join(part.capitalize() for part in handler.__name__.split("_"))
    if "ingest/" in path:
        name += "Directly"
    return tuple(
        Operation(
            method,
            prefix + path,
            name + suffix,
            summary,
            handler,
            scope,
            tag="galileo",
            query=query,
            body=None if method == "GET" else bytes,
            body_schema=body,
            answer=answer,
            problems=_REFUSALS if "{" in path else {422: _REFUSALS[422]} if method != "GET" else {},
            refusal=in_json(problem_body),
            max_bytes=max_bytes,
        )
        for prefix, suffix in (("", ""), ("/v2", "V2"))
    )


_OF_PROJECT: Final = "/projects/{project_id}"
_SPAN: Final = f"{_OF_PROJECT}/spans/{{span_id}}"
_TRACE: Final = f"{_OF_PROJECT}/traces/{{trace_id}}"
_LOG_STREAMS: Final = f"{_OF_PROJECT}/log_streams"
_SESSIONS: Final = f"{_OF_PROJECT}/sessions"


def _ingestion_of(record: Record, handler: _Handler, summary: str, answer: Any, body: Any) -> tuple[Operation, ...]:
    """Return the operations that store records: Galileo has two paths for them."""
    one = partial(_operation, "POST", handler=handler, summary=summary, answer=answer, body=body, max_bytes=16 << 20)
    return *one(f"{_OF_PROJECT}/{record}s"), *one(f"/ingest/{record}s/{{project_id}}")[:1]


OPERATIONS: Final[tuple[Operation, ...]] = (
    *_operation(
        *("PATCH", _SPAN, update_span, "Change a stored span.", types.GalileoSpanUpdated, "traces:update"),
        body=types.GalileoSpanUpdate,
    ),
    *_operation(
        *("PATCH", _TRACE, update_trace, "Change a stored trace.", types.GalileoTraceUpdated, "traces:update"),
        body=types.GalileoTraceUpdate,
    ),
    *_ingestion_of("trace", ingest_traces, "Store traces.", types.GalileoTracesStored, types.GalileoTraces),
    *_ingestion_of("span", ingest_spans, "Store spans of a trace.", types.GalileoSpansStored, types.GalileoSpans),
    *_operation("GET", "/ingest/healthz", healthcheck, "Say that ingestion answers.", types.GalileoHealth, None)[:1],
    *_operation("GET", "/healthcheck", healthcheck, "Say that the server answers.", types.GalileoHealth, None),
    *_operation(
        *("POST", "/login/api_key", login, "Change an API key for a token.", types.GalileoToken, None),
        body=types.GalileoKey,
        max_bytes=8 << 10,
    ),
    *_operation("GET", "/current_user", current_user, "Say who calls.", types.GalileoUser),
    *_operation("GET", "/projects", projects, "List projects.", list[types.GalileoProject], query=ProjectsQuery),
    *_operation(
        *("POST", "/projects", create_project, "Create a project, or return it.", types.GalileoProject),
        body=types.GalileoNew,
    ),
    *_operation("GET", _OF_PROJECT, project, "Return a project.", types.GalileoProject),
    *_operation("GET", _LOG_STREAMS, log_streams, "List log streams.", list[types.GalileoLogStream]),
    *_operation(
        *("GET", f"{_LOG_STREAMS}/paginated", log_streams_paginated, "List log streams in pages."),
        types.GalileoLogStreams,
    ),
    *_operation(
        *("POST", _LOG_STREAMS, create_log_stream, "Create a log stream, or return it.", types.GalileoLogStream),
        body=types.GalileoNew,
    ),
    *_operation(
        *("POST", _SESSIONS, create_session, "Create a session, or return it.", types.GalileoSession),
        body=types.GalileoNewSession,
    ),
    *_operation(
        *("POST", f"{_SESSIONS}/search", search_sessions, "Find sessions.", types.GalileoSessions),
        body=types.GalileoSearch,
    ),
)
