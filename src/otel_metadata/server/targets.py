"""Which span or trace an update is about, and whether its caller may change it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, final

from otel_metadata.errors import SpanNotFoundError
from otel_metadata.server.projects import foreign, locate

if TYPE_CHECKING:
    from otel_metadata.seams import SpanStore
    from otel_metadata.server.operations import Caller, Problem

TargetOrError: TypeAlias = "Target | Problem | SpanNotFoundError"
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
        self, store: SpanStore, find: Callable[[Callable[[], list[TargetOrError]]], Awaitable[list[TargetOrError]]]
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


def locate_all(store: SpanStore, caller: Caller, keys: Sequence[tuple[str | None, str]]) -> list[TargetOrError]:
    """Find the targets of many updates; of each that cannot be updated return why.

    A token with a project changes only spans of that project, and traces with such a span. Nobody knows the project of
    a span that is not stored, so such a token cannot update it. Nor can anybody, if its trace is not known.
    """
    found = locate(store, caller.project, keys)
    targets: list[TargetOrError] = []
    for key in keys:
        trace_id, span_id = key
        held = found.get(key)
        if held is not None and not held.is_own:
            targets.append(foreign(caller, span_id, trace_id))
        elif held is not None:
            targets.append(Target(held.trace_id, span_id, is_stored=True))
        elif trace_id is None or caller.project is not None:
            targets.append(SpanNotFoundError(span_id or f"{trace_id}", f"{store}"))
        else:
            targets.append(Target(trace_id, span_id, is_stored=False))
    return targets
