"""Which span or trace an update is about, and whether its caller may change it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, final

from otel_metadata.errors import SpanNotFoundError
from otel_metadata.model.record import SpanQuery
from otel_metadata.server.operations import Problem

if TYPE_CHECKING:
    from otel_metadata.seams import SpanStore
    from otel_metadata.server.operations import Caller

Located: TypeAlias = "Target | Problem | SpanNotFoundError"
"""A target, or why it cannot be updated."""


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


@final
class Targets:
    """Finds the targets of updates that come at the same time in one call, as group commit stores them.

    For the event loop alone.
    """

    def __init__(
        self, store: SpanStore, find: Callable[[Callable[[], list[Located]]], Awaitable[list[Located]]]
    ) -> None:
        """Look up in *store*, with calls that *find* runs on a thread."""
        self._store = store
        self._find = find
        self._waiting: list[tuple[Caller, tuple[str | None, str], asyncio.Future[Target]]] = []
        self._task: asyncio.Task[None] | None = None

    async def find(self, caller: Caller, trace_id: str | None, span_id: str) -> Target:
        """Find the span or trace of one update; see `locate_all`.

        Raises:
            SpanNotFoundError: It is not stored, and the update needs it: no trace id is known, or the caller has a
                project.
            Problem: 403, because it is of another project; 503 if too many look-ups wait.
        """
        future: asyncio.Future[Target] = asyncio.get_running_loop().create_future()
        self._waiting.append((caller, (trace_id, span_id), future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            by_project: dict[str | None, list[tuple[Caller, tuple[str | None, str], asyncio.Future[Target]]]] = {}
            for one in waiting:
                by_project.setdefault(one[0].project, []).append(one)
            for several in by_project.values():
                keys = [key for _, key, _ in several]
                found: Sequence[Target | Exception]
                try:
                    found = await self._find(partial(locate_all, self._store, several[0][0], keys))
                except Exception as error:  # noqa: BLE001 # each of those who wait gets it
                    found = [error] * len(several)
                for (_, _, future), target in zip(several, found, strict=True):
                    if future.cancelled():
                        continue
                    if isinstance(target, Target):
                        future.set_result(target)
                    else:
                        future.set_exception(target)


def locate_all(store: SpanStore, caller: Caller, keys: Sequence[tuple[str | None, str]]) -> list[Located]:
    """Find the targets of many updates; of each that cannot be updated return why."""
    span_ids = [span_id for _, span_id in keys if span_id]
    found = store.find(span_ids) if span_ids and caller.project is None else {}
    targets: list[Located] = []
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
