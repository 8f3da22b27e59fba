"""Group commit: what many requests bring at the same time is stored in one transaction.

A transaction costs more than the rows of a small request. So one thread writes. While it writes, requests wait in a
queue, and it stores all of them together when it is done. A request is answered only after its transaction.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

from otel_metadata.errors import StoreError
from otel_metadata.reporting import REPORTER
from otel_metadata.server.operations import Problem
from otel_metadata.server.problems import overloaded
from otel_metadata.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from otel_metadata.model.merge import Fields
    from otel_metadata.model.record import StoredSpan
    from otel_metadata.seams import SpanStore

MAX_ROWS: Final = 50_000
"""How many spans and updates wait at most."""

MAX_BYTES: Final = 64 << 20
"""How many bytes of spans and updates wait at most, as their senders count them."""

# Of one transaction, so that no other process waits long for its turn.
_GROUP_ROWS: Final = 5_000

# A request that fails alone may be at fault itself. When so many fail one after the other, it is the store.
_FAILURES_OF_THE_STORE: Final = 3

_ROW_BYTES: Final = 1_024
"""The size of a span or an update whose sender does not count it."""

# What SQLite says of a value that it cannot hold. Later tries would fail as well.
_OF_THE_VALUES: Final = (
    OverflowError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)

Rows: TypeAlias = "Sequence[tuple[StoredSpan, Fields]]"
Patches: TypeAlias = "Sequence[tuple[str, str, Fields]]"


class _Waiting(NamedTuple):
    """What one request brings."""

    rows: Rows
    patches: Patches
    size: int
    is_stored: Future[None]

    @property
    def length(self) -> int:
        return len(self.rows) + len(self.patches)


@final
class Ingest:
    """Stores what requests bring, in the order in which they come. Any thread may call it."""

    def __init__(
        self,
        store: SpanStore,
        *,
        max_rows: int = MAX_ROWS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Start no thread yet.

        Args:
            store: Closed by whoever opened it, after this.
            max_rows: How many spans and updates wait at most.
            max_bytes: How many bytes wait at most.
        """
        self._store = store
        self._fold = store.fold_later() if isinstance(store, SqliteStore) else None
        self._is_to_fold = False
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._rows = self._bytes = 0  # of the queue
        self._is_writing = self._is_closed = False
        self._thread: threading.Thread | None = None

    def put(
        self, rows: Rows, patches: Patches = (), size: int | None = None, *, may_write: bool = False
    ) -> Future[None]:
        """Queue spans and updates, and return what is done when they are on disk.

        A request that is larger than the queue is taken when nothing else waits. A future that is cancelled before its
        turn is not stored.

        Args:
            rows: Spans with their fields.
            patches: Updates, each (trace id, span id or "", fields).
            size: Their bytes, where the caller has them at hand.
            may_write: Whether this thread writes by itself if no other does. That saves two changes of threads.

        Raises:
            Problem: 503, because too much waits already, or the server stops. The future raises it as well.
        """
        waiting = _Waiting(rows, patches, 0, Future())
        if not waiting.length:
            waiting.is_stored.set_result(None)
            return waiting.is_stored
        waiting = waiting._replace(size=waiting.length * _ROW_BYTES if size is None else size)
        group: list[_Waiting] = []
        with self._changed:
            if self._is_closed:
                raise overloaded("The server stops; expected a later try.")
            is_full = self._rows + waiting.length > self._max_rows or self._bytes + waiting.size > self._max_bytes
            if self._queue and is_full:
                raise overloaded(f"{self._rows:,} spans and updates wait to be stored; expected a later try.")
            self._queue.append(waiting)
            self._rows += waiting.length
            self._bytes += waiting.size
            if may_write and not self._is_writing:
                group = self._next_group()
            else:
                self._wake()
        if group:
            self._write(group)
        return waiting.is_stored

    @property
    def waiting_rows(self) -> int:
        """How many spans and updates wait."""
        return self._rows

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Store what waits, and take nothing more; what is still waiting after the time is refused."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            is_done = self._changed.wait_for(lambda: not self._queue and not self._is_writing, timeout_seconds)
            left = self._taken(len(self._queue))
            thread = self._thread
        if is_done and thread is not None:
            thread.join()
        for one in left:
            if one.is_stored.set_running_or_notify_cancel():
                one.is_stored.set_exception(overloaded("The server stops; expected a later try."))

    def _wake(self) -> None:
        """Let the writing thread look at the queue. The lock is held."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="otel-metadata-ingest", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._is_writing or not (self._queue or self._is_to_fold):
                    if self._is_closed and not self._queue and not self._is_writing:
                        return
                    self._changed.wait()
                if self._queue:
                    group = self._next_group()
                else:
                    group, self._is_to_fold = [], False
            if group:
                self._write(group)
            elif self._fold is not None:
                self._fold()

    def _next_group(self) -> list[_Waiting]:
        """Take what is written next; only who has it writes. The lock is held."""
        self._is_writing = True
        count = rows = 0
        for one in self._queue:
            rows += one.length
            if count and rows > _GROUP_ROWS:
                break
            count += 1
        return self._taken(count)

    def _write(self, group: list[_Waiting]) -> None:
        try:
            # From here on a future cannot be cancelled: it is stored, or it has an error.
            self._store_group([one for one in group if one.is_stored.set_running_or_notify_cancel()])
        finally:
            with self._changed:
                self._is_writing = False
                # Between requests: the sender makes its next one meanwhile.
                self._is_to_fold = self._fold is not None
                if self._queue or self._is_to_fold:
                    self._wake()
                self._changed.notify_all()

    def _taken(self, count: int) -> list[_Waiting]:
        group = [self._queue.popleft() for _ in range(count)]
        self._rows -= sum(one.length for one in group)
        self._bytes -= sum(one.size for one in group)
        return group

    def _store_group(self, group: list[_Waiting]) -> None:
        error = self._tried(group)
        if error is None:
            _resolve(group, None)
        elif len(group) == 1 or _is_of_the_store(error):
            _resolve(group, error)
        else:
            self._store_each(group)
        # After all have their answers, because it raises where a test wants to see failures of ours.
        if error is not None and not isinstance(error, StoreError):
            REPORTER.failed("server:ingest", error)

    def _store_each(self, group: list[_Waiting]) -> None:
        """Store each request by itself, so that a bad one harms no other."""
        failures = 0
        for index, one in enumerate(group):
            error = self._tried([one])
            _resolve([one], error)
            failures = failures + 1 if error is not None and not _is_of_the_values(error) else 0
            if error is not None and (failures == _FAILURES_OF_THE_STORE or _is_of_the_store(error)):
                _resolve(group[index + 1 :], error)
                return

    def _tried(self, group: list[_Waiting]) -> BaseException | None:
        rows = [row for one in group for row in one.rows]
        patches = [patch for one in group for patch in one.patches]
        try:
            if rows:
                self._store.write_rows(rows)
            if patches:
                self._store.patch_rows(patches, route="late")
        except BaseException as error:  # noqa: BLE001 # the thread serves all requests, and each gets an answer
            return error
        return None


def _resolve(group: Sequence[_Waiting], error: BaseException | None) -> None:
    refused = None if error is None else _refusal(error)
    for one in group:
        if refused is None:
            one.is_stored.set_result(None)
        else:
            one.is_stored.set_exception(refused)


def _refusal(error: BaseException) -> Problem:
    if _is_of_the_values(error):
        return Problem(400, f"The store does not take these values: {error}")
    return overloaded(f"The store cannot be written: {error}")


def _is_of_the_store(error: BaseException) -> bool:
    """Whether the file is locked, the disk full, …: every other request would fail as well."""
    return isinstance(error, StoreError) and isinstance(error.__cause__, sqlite3.OperationalError)


def _is_of_the_values(error: BaseException) -> bool:
    """Whether a later try would fail as well: a value is at fault."""
    if isinstance(error, StoreError):
        return isinstance(error.__cause__, _OF_THE_VALUES)
    return isinstance(error, Exception) and not isinstance(error, MemoryError | OSError)
