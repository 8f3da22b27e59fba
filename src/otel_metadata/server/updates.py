"""Updates of spans and traces under `/api/v1`, by ones and in batches.

An update with plain members goes through the same clean-up as `update_span` and gets a version of the caller. One with
`fields` keeps the versions in it: another process or store has decided them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import msgspec

from otel_metadata.errors import OtelMetadataError, SpanNotFoundError
from otel_metadata.live.misuse import Misfit
from otel_metadata.live.values import annotation_values, evaluation_values, masked, read_status, span_values
from otel_metadata.model.authors import AUTHORS, shown_author
from otel_metadata.model.merge import Fields, Level, latest_version
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import parse_trace_id
from otel_metadata.model.times import time_text
from otel_metadata.model.unset import UNSET
from otel_metadata.seams import SpanStore
from otel_metadata.server import api_types
from otel_metadata.server.entity_tags import check_match, if_match, tag_of, version_text
from otel_metadata.server.group_commit import lifted_above
from otel_metadata.server.operations import Answer, Call, Operation, Problem
from otel_metadata.server.problems import problem_of
from otel_metadata.server.schema_errors import invalid
from otel_metadata.server.selection import (
    refuse_future,
    span_key,
    stored,
)
from otel_metadata.server.targets import Target, locate_all
from otel_metadata.server.traces import fields_of_trace
from otel_metadata.store import table

if TYPE_CHECKING:
    from otel_metadata.live.values import Values
    from otel_metadata.model.merge import Version
    from otel_metadata.server.operations import Caller
    from otel_metadata.server.targets import TargetOrError

_Update = api_types.TraceUpdate | api_types.SpanUpdate
_Patch = tuple[str, str, Fields]

_CONTENTS: Final = {
    "evaluation": "a label, a score or an explanation",
    "annotation": "a label, a score or a text",
}
_STATUS: Final = "ok, error, or an integer code from 0 to 2147483647"
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
    store, wanted = call.service.store, if_match(call.headers)
    target = await call.service.targets.find(call.caller, trace_id, span_id)
    # Of two updates with the same tag one is refused. An update without `If-Match` waits for nobody.
    async with call.service.trace_lock(target.trace_id) if wanted is not None else nullcontext():
        # Drawn before the check, so an update that comes after the check has a greater version and wins.
        (version,) = call.service.versions(call.caller, 1)
        if wanted is not None:
            latest = await call.service.find(partial(_latest, store, target))
            check_match(wanted, tag_of(latest) if target.is_stored else None)
            version = lifted_above(version, latest)
        patch: _Patch = (target.trace_id, target.span_id, {name: (value, version) for name, value in values.items()})
        ((_, _, fields),) = await call.service.ingest([], [patch], size=call.size, wins=wanted is None)
        headers = {}
        if wanted is not None:
            headers["ETag"] = f'"{tag_of(await call.service.find(partial(_latest, store, target)))}"'
    return Answer(_receipt(target, fields, call.caller, notes), headers=headers)


def _receipt(target: Target, fields: Fields, caller: Caller, notes: list[str]) -> api_types.Receipt:
    version = ns, writer = latest_version(fields)
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


def _latest(store: SpanStore, target: Target) -> Version:
    """Return the greatest version of what is set on a span or trace; (0, 0) if nothing is."""
    found = stored(store, SpanQuery(target.trace_id, target.span_id or None, limit=1)) if target.is_stored else None
    fields = found[1] if found is not None else {}
    return latest_version(fields if target.span_id else fields_of_trace(fields))


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
    parsed = await call.service.decode(lambda: [_parsed(call, update) for update in body.updates])
    versions = call.service.versions(call.caller, len(parsed))
    keys = [one.key for one in parsed if isinstance(one, _Parsed)]
    names = {int(digits, 16): name for digits, name in (body.authors or {}).items()}

    def look_up() -> tuple[list[TargetOrError], set[int], set[int]]:
        service, caller = call.service, call.caller
        writers = {writer for one in parsed if isinstance(one, _Parsed) for writer in _writers(one.fields)}
        of_others = {
            writer for writer in writers & names.keys() if service.is_of_other(caller, shown_author(names[writer]))
        }
        held = service.writers_of_tokens(caller, writers) if writers else set()
        return locate_all(service.store, caller, keys), held, of_others

    located, held, of_others = await call.service.find(look_up)
    targets = iter(located)
    patches: list[_Patch] = []
    plain: list[api_types.Outcome] = []  # of the patches, in their order
    exact: list[_Patch] = []
    outcomes: list[api_types.Outcome] = []
    for one, version in zip(parsed, versions, strict=True):
        if not isinstance(one, _Parsed):
            outcomes.append(_failed("parse_failure", one))
        elif isinstance(target := next(targets), SpanNotFoundError):
            outcomes.append(_failed("segment_not_found", target))
        elif isinstance(target, Problem):
            outcomes.append(_failed("forbidden", target))
        elif own := held & _writers(one.fields):
            problem = (
                f"A field has the writer {min(own):016x}, with which this server sets values for one of its callers"
            )
            outcomes.append(_failed("forbidden", f"{problem}; expected a writer of another process."))
        elif named := of_others & _writers(one.fields):
            problem = f"authors has {names[min(named)][:200]!r}, the name of another token of this server"
            outcomes.append(_failed("forbidden", f"{problem}; expected the name of this token or of no token."))
        else:
            outcomes.append(
                api_types.Outcome(
                    status="updated" if target.is_stored else "pending",
                    trace_id=target.trace_id,
                    span_id=target.span_id,
                    fields=[api_types.FieldName(*name) for name in one.values],
                    notes=list(dict.fromkeys(one.notes)),
                )
            )
            if one.fields:
                exact.append((target.trace_id, target.span_id, one.fields))
            else:
                drawn: Fields = {name: (value, version) for name, value in one.values.items()}
                patches.append((target.trace_id, target.span_id, drawn))
                plain.append(outcomes[-1])
    # Only writers of updates that were not refused get a name.
    used = {writer for _, _, fields in exact for writer in _writers(fields)}
    new = {one: name for one, name in names.items() if one in used and AUTHORS.name_of(one) != shown_author(name)}
    if new:
        await call.service.find(partial(_name, call, new))
    if body.route == "late":
        patches += exact
    elif exact:
        await call.service.write(partial(call.service.store.patch_rows, exact, route=body.route))
        call.service.changed()
    if patches:
        stored_patches = await call.service.ingest([], patches, size=call.size)
        for outcome, (_, _, fields) in zip(plain, stored_patches, strict=False):  # behind them are the exact ones
            outcome.version = version_text(latest_version(fields))
    count = [outcome.status for outcome in outcomes].count
    return Answer(api_types.Outcomes(outcomes, count("updated"), count("pending"), count("failed"), call.caller.name))


def _name(call: Call, names: Mapping[int, str]) -> None:
    with AUTHORS.taking(call.service.may_name(call.caller)):
        for writer, name in names.items():
            AUTHORS.add(writer, name)


def _writers(fields: Fields) -> set[int]:
    return {version[1] for _, version in fields.values()}


def _failed(reason: str, error: object) -> api_types.Outcome:
    problem = problem_of(error) if isinstance(error, Exception) else None
    return api_types.Outcome(
        status="failed", reason=reason, message=problem.title if problem is not None else f"{error}"
    )


def _parsed(call: Call, update: dict[str, Any]) -> _Parsed | Problem:
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
            return _Parsed(key, {}, _exact_fields(call, given.fields, level), notes)
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


def _exact_fields(call: Call, given: list[api_types.ExactField], level: Level) -> Fields:
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
        refuse_future(call, field[1][0])
        if level == "trace" and one.level == "span":
            raise Problem(400, f"Field {number} of the update is of a span; expected a span_id beside it.")
        fields[name] = field
    return fields


_ALSO: Final = {
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
        max_bytes=16 << 20,
    ),
)
