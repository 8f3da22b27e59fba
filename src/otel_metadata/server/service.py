"""What all handlers of one server share: the store, the pools of threads, the versions of callers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final

from otel_metadata.client.updates import draw
from otel_metadata.foreign_text import visible
from otel_metadata.live import live_settings
from otel_metadata.model.authors import AUTHORS, MAX_AUTHORS
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER
from otel_metadata.model.recent import RecentMap
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import AuthorReads, AuthorVersions, SystemClock
from otel_metadata.server.bodies import Buffered
from otel_metadata.server.events import Changes
from otel_metadata.server.group_commit import Ingest, Patches
from otel_metadata.server.memory_bound import Room
from otel_metadata.server.metrics import Metrics
from otel_metadata.server.operations import UPDATE, Problem
from otel_metadata.server.problems import overloaded, problem_of
from otel_metadata.server.targets import Targets

if TYPE_CHECKING:
    from otel_metadata.model.merge import Fields, Version
    from otel_metadata.model.record import StoredSpan
    from otel_metadata.seams import Clock, SpanStore
    from otel_metadata.server.access import Access
    from otel_metadata.server.operations import Caller

T = TypeVar("T")

ACCESS_LOG: Final = logging.getLogger("otel_metadata.server.access")

_READERS: Final = 4
_WAITING_READS: Final = 64

# The look-ups that an update waits for: each takes well below a millisecond.
_FINDERS: Final = 2
# More than there are connections, calls over gRPC and works of `soon` at once: nothing that was answered is refused.
_WAITING_FINDS: Final = 1_600

# What was answered and is looked up or stored at once; the rest waits for its turn.
_AT_ONCE: Final = 256

# What a work of `soon` takes beside the body of its request: the headers, the objects.
_SOON_BYTES: Final = 8 << 10

# A store writes with one connection, so a second thread only prepares while the first one writes.
_WRITERS: Final = 2
_WAITING_WRITES: Final = 1_000

# What only computes needs the interpreter's lock, so more than two threads gain nothing. A third one may write at the
# time, and wait for a locked store (`Service.ingest_here`).
_DECODERS: Final = 3
_WAITING_DECODES: Final = 256

# What all bodies together may be decoded into at one time.
_ROOM_BYTES: Final = 512 << 20

_MAX_CALLERS: Final = 256

# Updates of different traces seldom wait for one another.
_TRACE_LOCKS: Final = 64


class Ingested(NamedTuple):
    """What is on its way to the disk.

    Attributes:
        is_stored: Done when it is there.
        spans: How many.
        updates: How many.
    """

    is_stored: Future[Patches]
    spans: int
    updates: int


@final
class Service:
    """See the module. Handlers run on the event loop and await these calls.

    Attributes:
        store: Opened and closed by whoever made the service.
        access: Who may call.
        clock: Time.
        metrics: What is counted.
        changes: Tells who listens that the store has changed.
        buffered: The bodies that are in memory.
        room: The memory for what large bodies are decoded into.
        targets: Finds the spans that updates are about.
        read: Runs a blocking read of the store on a thread.
        find: Runs a look-up by id that an update needs, on threads of its own: no slow reader and no locked store
            delays it.
        write: Runs a blocking call that changes the store (delete, retain, an import).
        decode: Runs a call that only computes, such as decoding a large body, on threads of its own.
        grpc_port: The port for OTLP over gRPC, or None.
    """

    def __init__(
        self, store: SpanStore, access: Access, clock: Clock | None = None, *, access_log: bool = False
    ) -> None:
        """Work on *store*, and log each request on one line if *access_log*."""
        self._logs_access = access_log
        self.access = access
        self.store = store
        self.clock: Clock = clock or SystemClock()
        self.metrics = Metrics(self.clock)
        self.changes = Changes(store)
        self.buffered = Buffered()
        self.room = Room(_ROOM_BYTES)
        self.grpc_port: int | None = None
        self._ingest = Ingest(store, self.draws_for)
        self.read = _Pool("read", _READERS, _WAITING_READS)
        self.find = _Pool("find spans", _FINDERS, _WAITING_FINDS)
        self.write = _Pool("write", _WRITERS, _WAITING_WRITES)
        self.decode = _Pool("decode", _DECODERS, _WAITING_DECODES)
        self.targets = Targets(store, self.find)
        self._trace_locks = [asyncio.Lock() for _ in range(_TRACE_LOCKS)]
        self._running: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._authors: RecentMap[str, AuthorVersions] = RecentMap(_MAX_CALLERS)
        self._writers: RecentMap[int, str] = RecentMap(MAX_AUTHORS)
        self._authors_lock = threading.Lock()
        self._stored_names: RecentMap[int, str] = RecentMap(MAX_AUTHORS)  # some of those in the store

    async def ingest(
        self,
        rows: Sequence[tuple[StoredSpan, Fields]],
        patches: Iterable[tuple[str, str, Fields]] = (),
        *,
        size: int | None = None,
        wins: bool = True,
        may_update: bool = True,
        is_answered: bool = False,
    ) -> Patches:
        """Store spans and updates together with what other calls bring at the same time; return when they are on disk.

        Args:
            rows: Spans with their fields, as `SpanStore.write_rows` takes them; the route follows from the versions.
            patches: Updates, each (trace id, span id or "", fields), as `SpanStore.patch_rows` takes them with the
                route "late".
            size: Their bytes, where the caller has them at hand.
            wins: Whether updates with versions of `versions` win over what is stored, whatever versions that has.
            may_update: Whether the spans may replace values that somebody has set; without `traces:update` not.
            is_answered: Whether this is work of `soon`, which the queue must not refuse.

        Returns:
            The updates, with the versions that they got.

        Raises:
            Problem: 503 with `Retry-After` if too much waits already or the store cannot be written; 400 if the store
                does not take these values.
        """
        updates = list(patches)
        is_stored = self._ingest.put(rows, updates, size, wins=wins, may_update=may_update, is_answered=is_answered)
        return await self.stored(Ingested(is_stored, len(rows), len(updates)))

    def ingest_here(
        self,
        rows: Sequence[tuple[StoredSpan, Fields]],
        patches: Sequence[tuple[str, str, Fields]],
        size: int | None,
        *,
        may_update: bool,
    ) -> Ingested:
        """Do what `ingest` does, called on a thread of `decode`, which writes by itself if no other thread does.

        That saves two changes of threads. Wait for the end with `stored`.
        """
        is_stored = self._ingest.put(rows, patches, size, may_write=True, may_update=may_update)
        return Ingested(is_stored, len(rows), len(patches))

    async def stored(self, ingested: Ingested) -> Patches:
        """Wait until what `ingest_here` has returned is on disk; raise what `ingest` raises."""
        patches = await asyncio.wrap_future(ingested.is_stored)
        self.metrics.spans_stored += ingested.spans
        self.metrics.updates_stored += ingested.updates
        self.changed()
        return patches

    def soon(self, work: Coroutine[object, object, object], size: int = 0) -> None:
        """Run *work* on the event loop while the answer goes out; a graceful stop waits for it.

        What it raises is logged: nobody waits for its result. A failure that is not the caller's is counted as well.

        Args:
            work: What to do.
            size: The bytes of the body that it holds. They count as the body does, until the work has ended.

        Raises:
            Problem: 503, because too much is in memory already. The work is not done.
        """
        size += _SOON_BYTES
        try:
            self.buffered.add(size)
        except Problem:
            work.close()
            raise
        task = asyncio.get_running_loop().create_task(self._logged(work))
        self._running.add(task)

        def end(ended: asyncio.Task[None]) -> None:
            self.buffered.size -= size
            self._running.discard(ended)

        task.add_done_callback(end)

    async def finish(self) -> None:
        """Wait for the work that goes on after its answers. No request comes any more."""
        while self._running:
            await asyncio.wait(self._running)

    def versions(self, caller: Caller, count: int) -> list[Version]:
        """Draw versions whose author is the caller's name; safe on any thread."""
        with self._authors_lock:
            author = self._authors.get(caller.name) or AuthorVersions(live_settings.VERSIONS, caller.name)
            self._authors[caller.name] = author  # as the latest
            self._writers[author.writer] = caller.name
        return list(draw(author, count))

    def draws_for(self, writer: int) -> bool:
        """Whether versions of *writer* are drawn here, so that nobody else can have set a value with one."""
        return writer in self._writers

    def writers_of_tokens(self, caller: Caller, writers: set[int]) -> set[int]:
        """Return which writers have set values for another token than the caller's, in any process; on a thread.

        The writers of this process are among them, also those of the caller.
        """
        own = set(filter(self.draws_for, writers))
        names = self._names_of(writers - own - {PLAIN_ATTRIBUTE_WRITER})
        taken = {name for name in names.values() if self.is_of_other(caller, name)}
        return own | {writer for writer, name in names.items() if name in taken}

    def is_of_other(self, caller: Caller, name: str) -> bool:
        """Whether a name is that of another token than the caller's."""
        return name != caller.name and self.access.is_token(name)

    def may_name(self, caller: Caller) -> Callable[[int, str], bool]:
        """Return what says whether a caller may give a name to a writer; see `Authors.taking`. For a thread.

        The name of another token is not given to anybody, and a writer that is stored with the name of a token keeps
        it. A caller without `traces:update` names nobody.
        """

        def may_name(writer: int, name: str) -> bool:
            if UPDATE not in caller.scopes or self.is_of_other(caller, name):
                return False
            known = self._names_of({writer}).get(writer)
            return known in {None, name} or not self.access.is_token(f"{known}")

        return may_name

    def _names_of(self, writers: set[int]) -> dict[int, str]:
        """Return the names of writers, as this process or the store knows them."""
        names = {
            writer: name
            for writer in writers
            if (name := AUTHORS.name_of(writer) or self._stored_names.get(writer)) is not None
        }
        unknown = writers - names.keys()
        if unknown and isinstance(self.store, AuthorReads):
            found = self.store.authors(unknown)
            for writer, name in found.items():
                self._stored_names[writer] = name
            names |= found
        return names

    def trace_lock(self, trace_id: str) -> asyncio.Lock:
        """Return the lock of a trace (32 hex digits), which it shares with a few others; on the event loop."""
        return self._trace_locks[int(trace_id, 16) % _TRACE_LOCKS]

    def answered(
        self, operation: str, request: str, client: str, caller: Caller | None, status: int, nanoseconds: int
    ) -> None:
        """Count a request that was answered, and log it; on the event loop.

        Args:
            operation: The name of the operation; "" for none.
            request: What was asked for, without values of users.
            client: The address of the client.
            caller: Who called; None if that was not known yet.
            status: The HTTP status.
            nanoseconds: How long it took.
        """
        self.metrics.add_request(operation, status, nanoseconds)
        if self._logs_access:
            name = visible(caller.name) if caller is not None else "-"
            ACCESS_LOG.info('%s %s "%s" %d %.1f ms', client, name, visible(request), status, nanoseconds / 1e6)

    def changed(self) -> None:
        """Tell `GET /api/v1/events` that the store has changed; see `Changes.changed`."""
        self.changes.changed()

    def close(self) -> None:
        """Finish the calls that run. The event loop has ended."""
        self._ingest.close()
        for pool in (self.decode, self.find, self.read, self.write):
            pool.close()

    async def _logged(self, work: Coroutine[object, object, object]) -> None:
        try:
            async with self._turn:
                await work
        except Exception as error:  # noqa: BLE001 # the boundary: nobody waits for the result
            problem = problem_of(error)
            if problem is None or problem.status >= 500:
                self.metrics.updates_lost += 1
            if problem is None:
                REPORTER.failed("server:soon", error)
            else:
                REPORTER.tell("server_late_work", f"{error}")


@final
class _Pool:
    """Threads for blocking calls, and a bound on how many calls wait for one. For the event loop alone."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        """Start no thread yet."""
        self._name = name
        self._free = threads + waiting
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"otel-metadata-{name}")

    async def __call__(self, call: Callable[[], T]) -> T:
        """Run *call* on a thread, and return what it returns.

        Raises:
            Problem: 503, because too many calls wait; otherwise whatever *call* raises.
        """
        if self._free <= 0:
            raise overloaded(f"Too many requests wait to {self._name}; try again in 1 s.")
        self._free -= 1
        # A call whose caller is gone stays with the threads until its turn, without what it has to do and its values.
        calls = [call]
        del call
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: calls.pop()())  # noqa: PLW0108 # taken when its turn comes, not now
        finally:
            calls.clear()
            self._free += 1

    def close(self) -> None:
        """Finish the calls that run or wait."""
        self._threads.shutdown()
