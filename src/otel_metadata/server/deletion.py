"""Deletion of spans, and retention, under `/api/v1`."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import Final

from otel_metadata.client.queries import past_ns
from otel_metadata.server import api_types
from otel_metadata.server.operations import Answer, Call, Operation, Problem
from otel_metadata.server.projects import refuse_project
from otel_metadata.server.selection import refuse_future, span_key
from otel_metadata.server.slots import Slots
from otel_metadata.server.targets import Target, locate_all

_RETENTIONS: Final = Slots(1, "retentions")


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
        refuse_future(call, version[0], "/time_ns")
    store = call.service.store

    def delete() -> tuple[list[tuple[str, str]], list[tuple[str | None, str]]]:
        targets = locate_all(store, call.caller, keys)
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
    with _RETENTIONS.slot():  # it may take minutes, and a second one would take the other thread that writes
        found = await call.service.write(partial(call.service.store.retain, before_ns, body.max_bytes))
    call.service.changed()
    return Answer(api_types.Retained(found.spans_deleted, found.updates_deleted, found.stored_bytes))


OPERATIONS: Final[tuple[Operation, ...]] = (
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
        problems={403: "A span is of another project than the token; nothing was deleted."},
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
        problems={403: "The token is for one project."},
    ),
)
