"""`GET /api/v1/events`: server-sent events that say only that something has changed.

A page then asks again for what it shows, with its own filter. Changes of other processes are found by asking the store
for its state a few times a second, once for all listeners together, and only while somebody listens. A listener has a
flag, not a queue: one that reads slowly misses repetitions and holds nothing back.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from otel_metadata.errors import StoreError
from otel_metadata.model.record import SpanQuery
from otel_metadata.seams import WatchableStore
from otel_metadata.server.operations import Answer, Call, Operation
from otel_metadata.server.problems import overloaded

if TYPE_CHECKING:
    from otel_metadata.seams import SpanStore, StoreWatch

MAX_LISTENERS: Final = 100
"""Listeners at once."""

POLL_SECONDS: Final = 0.2
"""How often the store is asked for its state while somebody listens."""

HEARTBEAT_SECONDS: Final = 15.0
"""How often a silent stream sends a comment, so that proxies keep it open and a lost client is noticed."""

_PAUSE_SECONDS: Final = 0.1
"""The shortest time between two events of one listener."""


@final
class Changes:
    """Tells listeners that the store has changed. `changed` and `close` may be called on any thread."""

    def __init__(self, store: SpanStore) -> None:
        """Watch nothing until somebody listens.

        Args:
            store: One that cannot be watched is asked for its newest span; its late updates are told by `changed`.
        """
        self._store = store
        watch = _watch_of(store)
        # A store that notices every commit needs no word about those of this process.
        self._sees_all = watch is not None and not isinstance(watch, _Newest)
        self._start = os.urandom(4).hex()
        self._lock = threading.Lock()
        self._count = 0
        self._listeners: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: asyncio.Task[None] | None = None
        self._has_begun = asyncio.Event()  # the poller knows a state to compare with
        self._is_closed = False

    @property
    def cursor(self) -> str:
        """The place in the sequence of changes; another one after a restart."""
        return f"{self._start}-{self._count}"

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def changed(self) -> None:
        """Say that this process has changed the store."""
        if not self._sees_all:
            self._tell()

    def close(self) -> None:
        """End every stream."""
        self._is_closed = True
        self._wake()

    def check_room(self) -> None:
        """Check that one more may listen.

        Raises:
            Problem: 503, because too many listen, or the server stops.
        """
        if self._is_closed or len(self._listeners) >= MAX_LISTENERS:
            got = "The server stops" if self._is_closed else f"{MAX_LISTENERS} listeners are connected already"
            raise overloaded(f"{got}; try again in 5 s.", 5)

    async def stream(self, last: str | None) -> AsyncIterator[bytes]:
        """Yield events until the server stops: one at once, then one for each change.

        Args:
            last: The cursor of the last event that the client has seen; None for none.
        """
        flag = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._listeners.add(flag)
        try:
            if self._poller is None or self._poller.done():
                self._has_begun.clear()
                self._poller = asyncio.create_task(self._poll())
            await self._has_begun.wait()  # a change after the first event is told
            missed = last is not None and last != self.cursor
            yield b"retry: 1000\n" + _event("changed" if missed else "ready", self.cursor)
            while not self._is_closed:
                try:
                    await asyncio.wait_for(flag.wait(), HEARTBEAT_SECONDS)
                except asyncio.TimeoutError:
                    yield b": nothing new\n\n"
                    continue
                flag.clear()
                if not self._is_closed:
                    yield _event("changed", self.cursor)
                    await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            self._listeners.discard(flag)

    async def _poll(self) -> None:
        # A watch of its own: while its thread still closes it, the next poller may ask already.
        watch, loop = _watch_of(self._store), asyncio.get_running_loop()
        if watch is None:
            self._has_begun.set()
            return
        thread = ThreadPoolExecutor(1, "otel-metadata-events")
        try:
            state = await loop.run_in_executor(thread, watch.state)
            self._has_begun.set()
            while self._listeners and not self._is_closed:
                await asyncio.sleep(POLL_SECONDS)
                found = await loop.run_in_executor(thread, watch.state)
                if found != state:
                    state = found
                    self._tell()
        finally:
            # On its thread, behind a call that may still run: a connection is for one thread at a time.
            thread.submit(watch.close)
            thread.shutdown(wait=False)

    def _tell(self) -> None:
        with self._lock:
            self._count += 1
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._set_flags)

    def _set_flags(self) -> None:
        for flag in self._listeners:
            flag.set()


def _watch_of(store: SpanStore) -> StoreWatch | None:
    return store.watch() if isinstance(store, WatchableStore) else _Newest(store)


@final
class _Newest:
    """The newest span of a store that cannot be watched."""

    def __init__(self, store: SpanStore) -> None:
        self._store = store

    def state(self) -> object:
        """Return the position of the newest span."""
        try:
            return [record.position for record in self._store.query(SpanQuery(limit=1))]
        except StoreError:
            return None

    def close(self) -> None:
        """Do nothing: whoever opened the store closes it."""


def _event(name: str, cursor: str) -> bytes:
    return f'id: {cursor}\nevent: {name}\ndata: {{"cursor":"{cursor}"}}\n\n'.encode()


async def _events(call: Call) -> Answer:
    changes = call.service.changes
    changes.check_room()
    last = call.headers.get("last-event-id")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Answer(changes.stream(last), media_type="text/event-stream", headers=headers)


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        "/api/v1/events",
        "follow_changes",
        "Follow changes of the store as server-sent events, each with a cursor only.",
        _events,
        "read",
        tag="reads",
        answer=bytes,
        answer_type="text/event-stream",
        problems={503: "Too many listeners."},
    ),
)
