"""Read-only connections of one SQLite file, beside the connection that writes, and a deadline for what they read.

In WAL mode a reader blocks neither the writer nor other readers, so a slow filter runs on a connection of its own.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, final

from otel_metadata.store.sqlite.file import files_of

if TYPE_CHECKING:
    from otel_metadata.seams import Clock
    from otel_metadata.store.sqlite.file import Files

# More may be open while more threads read at once.
_MAX_IDLE: Final = 4

# How long `close` waits for running reads: first for them to end, then after interrupting them.
_CLOSE_SECONDS: Final = 0.5

# SQLite interrupts one statement, and a read may be many; so it is interrupted again and again.
_INTERRUPTIONS: Final = 10

# About a millisecond. Each call of a progress handler takes the interpreter's lock, for which it waits while other
# threads run Python, so more calls make the read slow, and fewer make the deadline vague.
_STEPS: Final = 20_000

_T = TypeVar("_T")


class PoolClosedError(Exception):
    """The pool was closed because its files were replaced, or before the read began: read again from a new pool."""


@final
class ReadPool:
    """Connections that read the files which the store's own connection has open.

    It is opened after that connection and closed before it. Its connections are read-only. SQLite gives those no part
    in folding in the log and removing it, so closing one is harmless, whichever files have the names by then.

    Attributes:
        files: The files that are open, with the size that the database had when it was last looked at.
    """

    def __init__(self, path: str, files: Files, prepare: Callable[[sqlite3.Connection], object]) -> None:
        """Open nothing yet.

        Args:
            path: The name of the database.
            files: The files that have this name and are open.
            prepare: Called with each new connection.
        """
        self.files = files
        self._path = path
        self._prepare = prepare
        self._lock = threading.RLock()  # a finalizer may read while its thread holds it
        self._idle: list[sqlite3.Connection] = []
        self._open: set[sqlite3.Connection] = set()
        self._is_closed = False
        self._is_replaced = False
        self._is_empty = threading.Event()

    def has_current_files(self) -> bool:
        """Whether the pool is open and its files still have the names."""
        found = files_of(self._path)
        if self._is_closed or not self.files.has_become(found):
            return False
        self.files = found
        return True

    def read(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        """Return what *read* returns for a connection that no other thread uses meanwhile.

        Raises:
            PoolClosedError: Read again from a new pool.
            sqlite3.Error: The file cannot be read; "interrupted" if the pool was closed.
        """
        connection = self._take()
        is_sound = False
        try:
            found = read(connection)
            is_sound = True
            return found
        except sqlite3.OperationalError:
            if self._is_replaced:
                raise PoolClosedError from None
            raise
        finally:
            self._give_back(connection, is_sound=is_sound)

    def close(self, *, is_replaced: bool = False) -> None:
        """Close all connections. Waits about a second at most for reads that run, and interrupts them.

        Args:
            is_replaced: The files were replaced. Reads are interrupted at once, and are to be done again.
        """
        with self._lock:
            self._is_replaced = is_replaced
            self._is_closed = True
            for connection in [*self._idle]:  # a finalizer may close the store meanwhile
                self._discard(connection)
            self._idle.clear()
            if not self._open:
                return
        if not is_replaced and self._is_empty.wait(_CLOSE_SECONDS):
            return
        for _ in range(_INTERRUPTIONS):
            with self._lock:
                for connection in self._open:
                    connection.interrupt()
            if self._is_empty.wait(_CLOSE_SECONDS / _INTERRUPTIONS):
                return

    def connections(self) -> list[sqlite3.Connection]:
        """Return all connections, for a child process or a finalizer, in which no read runs."""
        return list(self._open)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._is_closed:
                raise PoolClosedError
            if self._idle:
                return self._idle.pop()
        connection = sqlite3.connect(
            f"{Path(self._path).as_uri()}?mode=ro",
            uri=True,
            timeout=_CLOSE_SECONDS / _INTERRUPTIONS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._prepare(connection)
            connection.execute("PRAGMA schema_version").fetchone()  # opens the log
            with self._lock:
                # The path may have got other files while it was opened.
                if self._is_closed or not self.has_current_files():
                    raise PoolClosedError
                self._open.add(connection)
                self._is_empty.clear()
        except BaseException:
            connection.close()
            raise
        return connection

    def _give_back(self, connection: sqlite3.Connection, *, is_sound: bool) -> None:
        with self._lock:
            if is_sound and not self._is_closed and len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
            else:
                self._discard(connection)

    def _discard(self, connection: sqlite3.Connection) -> None:
        connection.close()
        self._open.discard(connection)
        if not self._open:
            self._is_empty.set()


@final
class Deadline:
    """When a read has to end."""

    def __init__(self, clock: Clock, timeout_millis: int) -> None:
        """Begin now."""
        self._now_ns = clock.monotonic_ns
        self._end_ns = self._now_ns() + timeout_millis * 1_000_000
        self._error: BaseException | None = None

    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._now_ns() >= self._end_ns

    def run(self, connection: sqlite3.Connection, read: Callable[[], _T]) -> _T | None:
        """Return what *read* returns, or None if the time was over before: its statement is interrupted then."""
        connection.set_progress_handler(self._handle, _STEPS)
        try:
            return read()
        except sqlite3.OperationalError:
            if self._error is not None:
                raise self._error from None
            if not self.is_over():
                raise
            return None
        finally:
            connection.set_progress_handler(None, 0)

    def _handle(self) -> bool:
        try:
            return self.is_over()
        except BaseException as error:  # noqa: BLE001 # Ctrl-C, which SQLite's driver would swallow
            self._error = error
            return True
