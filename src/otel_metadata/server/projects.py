"""Which spans a caller sees and changes: a token may be for one project.

A span is of the project that its resource names. It is stored under that project from then on: a token of another
project neither sees nor changes nor replaces it. Before it is stored, nobody knows its project. A trace belongs to each
project that one of its spans has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from otel_metadata.model.record import Located, SpanQuery
from otel_metadata.seams import ProjectStore
from otel_metadata.server.operations import Problem

if TYPE_CHECKING:
    from otel_metadata.seams import SpanStore
    from otel_metadata.server.operations import Caller


def visible_project(caller: Caller, asked: str | None = None) -> str | None:
    """Return the only project that a call may see; None for all.

    Raises:
        Problem: 403, because another project was asked for.
    """
    if caller.project is None or asked in (None, caller.project):
        return caller.project if asked is None else asked
    raise Problem(
        403,
        f"This token is for project {caller.project!r}, and project {asked!r} was asked for; expected no project, or "
        "that of the token.",
        expected=caller.project,
    )


def refuse_project(caller: Caller, what: str) -> None:
    """Refuse a caller who has one project.

    Raises:
        Problem: 403.
    """
    if caller.project is not None:
        raise Problem(
            403, f"{what}, and this token is for project {caller.project!r} alone; expected a token for all projects."
        )


def locate(
    store: SpanStore, project: str | None, keys: Collection[tuple[str | None, str]]
) -> Mapping[tuple[str | None, str], Located]:
    """Return where spans and traces are stored, in one look-up if the store can; see `ProjectStore.locate`.

    Raises:
        StoreError: The store cannot be read.
    """
    if isinstance(store, ProjectStore):
        return store.locate(keys, project)
    span_ids = {span_id for _, span_id in keys if span_id}
    newest = store.find(span_ids) if span_ids else {}
    found = {}
    for key in dict.fromkeys(keys):
        trace_id, span_id = key
        held = newest.get(span_id)
        if span_id and held is None:
            continue  # nearly every span that arrives
        if held is not None and project is None and trace_id in (None, held.trace_id):
            found[key] = Located(held.trace_id, is_own=True)
            continue
        query = SpanQuery(trace_id, span_id or None, limit=1)
        own = store.query(replace(query, project=project))
        for record in own or store.query(query):
            found[key] = Located(record.trace_id, is_own=bool(own))
    return found


def foreign(caller: Caller, span_id: str, trace_id: str | None) -> Problem:
    """Return the refusal of what is stored under another project than the caller's.

    Args:
        caller: Who calls.
        span_id: "" for a trace.
        trace_id: Of the span, or that of a trace.
    """
    what = f"Span {span_id}" if span_id else f"Trace {trace_id}"
    return Problem(403, f"{what} is of another project than this token; expected one of {caller.project!r}.")
