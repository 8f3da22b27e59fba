"""What all handlers of one server share: the store, the pools of threads, the writer, the names of callers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from otel_metadata.client.client import Client
    from otel_metadata.model.merge import Fields, Version
    from otel_metadata.model.record import StoredSpan
    from otel_metadata.seams import Clock, SpanStore
    from otel_metadata.server.events import Changes
    from otel_metadata.server.operations import Caller

T = TypeVar("T")


class Service(Protocol):
    """See the module. Handlers run on the event loop and await these calls."""

    store: SpanStore
    clock: Clock
    changes: Changes

    async def read(self, call: Callable[[], T]) -> T:
        """Run a blocking read on the bounded pool of readers.

        Raises:
            Problem: 503 if the pool and its queue are full; otherwise whatever *call* raises.
        """
        ...

    async def write(self, call: Callable[[], T]) -> T:
        """Run a blocking call that changes the store (delete, retain, a frame of updates) on the pool of writers."""
        ...

    async def decode(self, call: Callable[[], T]) -> T:
        """Run a call that only computes, such as decoding a large body.

        It has a pool of its own, so that neither a slow reader nor a locked store delays it.

        Raises:
            Problem: 503 if the pool and its queue are full; otherwise whatever *call* raises.
        """
        ...

    async def ingest(
        self,
        rows: Sequence[tuple[StoredSpan, Fields]],
        patches: Iterable[tuple[str, str, Fields]] = (),
    ) -> None:
        """Store spans and updates together with what other calls bring at the same time; return when they are on disk.

        Args:
            rows: Spans with their fields, as `SpanStore.write_rows` takes them; the route follows from the versions.
            patches: Updates, each (trace id, span id or "", fields), as `SpanStore.patch_rows` takes them with the
                route "late".

        Raises:
            Problem: 503 with `Retry-After` if too much waits already, or the store cannot be written.
        """
        ...

    def soon(self, work: Coroutine[object, object, None]) -> None:
        """Run *work* on the event loop while the answer goes out; a graceful stop waits for it.

        What it raises is logged: nobody waits for its result.
        """
        ...

    def versions(self, caller: Caller, count: int) -> list[Version]:
        """Draw versions whose author is the caller's name; safe on any thread."""
        ...

    def client(self, caller: Caller) -> Client:
        """Return a client of the store whose updates have the caller's name; closed by the service."""
        ...

    def changed(self) -> None:
        """Tell `GET /api/v1/events` that the store has changed; see `Changes.changed`. A stop calls `Changes.close`."""
        ...
