"""What the vendors' calls share: reading a body, and turning it into the fields of an update."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from otel_metadata.model.merge import FieldName, Fields, Json
from otel_metadata.model.value import STORE_LIMITS, clean
from otel_metadata.server.bodies import refuse_deep
from otel_metadata.server.operations import Call, Problem
from otel_metadata.server.problems import problem_of
from otel_metadata.server.targets import Target, locate_all

if TYPE_CHECKING:
    from otel_metadata.model.record import StoredSpan


def json_of(body: bytes, status: int) -> Any:
    """Return the value of a JSON body.

    Raises:
        Problem: With *status*, which is the vendor's for a body that is not JSON.
    """
    try:
        refuse_deep(body)
        return msgspec.json.decode(body)
    except Problem as problem:
        raise Problem(status, problem.title) from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Problem(status, f"The body is not JSON: {error}; expected an object.", expected="JSON") from None


def refuse_changed(value: Json, shown: str, pointer: str) -> None:
    """Refuse a value that the store would not keep as it is, for example because it is nested too deeply.

    The vendors' answers have no place to say what was cut.

    Args:
        value: The value.
        shown: Its name in the refusal.
        pointer: Its place in the body.

    Raises:
        Problem: 400.
    """
    notes: list[str] = []
    if clean(value, notes, shown, STORE_LIMITS) != value:
        title = notes[0] if notes else f"{shown} cannot be stored as it is"
        expected = "JSON that can be stored as it is"
        raise Problem(400, f"{title}; expected {expected}.", pointer=pointer, expected=expected)


def fields_of(call: Call, values: Mapping[FieldName, Json]) -> Fields:
    """Return values as fields that the caller sets now."""
    (version,) = call.service.versions(call.caller, 1)
    return {name: (value, version) for name, value in values.items()}


async def refusals(call: Call, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Problem]:
    """Return what a caller that sees one project only must not update, with the reasons, in one look-up.

    They are 403 for another project, and 404 for what is not stored: it may belong to any project when it comes.

    Args:
        call: The call.
        keys: (trace id, span id), or (trace id, "") for a trace.
    """
    caller = call.caller
    if caller.project is None:
        return {}
    targets = await call.service.find(partial(locate_all, call.service.store, caller, [*keys]))
    problems = (None if isinstance(target, Target) else problem_of(target) for target in targets)
    return {key: problem for key, problem in zip(keys, problems, strict=True) if problem is not None}


async def check_project(call: Call, trace_id: str, span_id: str = "") -> None:
    """Refuse a caller that sees one project only, and must not update a span; or a trace if *span_id* is "".

    Raises:
        Problem: See `refusals`.
    """
    for problem in (await refusals(call, [(trace_id, span_id)])).values():
        raise problem


async def check_spans(call: Call, rows: Sequence[tuple[StoredSpan, Fields]]) -> None:
    """Refuse a caller that sees one project only, and sends a span that is stored under another one.

    Raises:
        Problem: 403.
    """
    refused = await refusals(call, [(span.trace_id, span.span_id) for span, _ in rows])
    for problem in refused.values():
        if problem.status == 403:
            raise problem
