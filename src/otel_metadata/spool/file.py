"""The spool's files: opened, recognized, looked after, set aside when they are damaged.

Theory of operation. These files belong together: the database, its write-ahead log, the leases (`spool.owners`), and a
journal for each slot that a process writes into (`spool.journal`). Who opens the database holds the *door* of the
leases for a moment; who replaces it holds the door alone. Before the first write, what SQLite does not show any more
(one frame of the log was hit, so it ignores all that follow) is looked for in the bytes and put back, for that write
goes over it.

A database that SQLite cannot read is never written: a new one is made beside it (`….new`), filled with what can be
read of the old one under the same numbers, and takes its name; the old one becomes `….damaged-<time>`. Other processes
that have the old one open find out by its inode, within a second, and carry over what they wrote meanwhile.

Not ours is a file that holds no frame of ours and whose leases are not ours either; one of a newer version is ours and
is left alone. Both are refused, and nothing is changed.

Danger: POSIX drops every lock of a process on a file when any descriptor of that file is closed in it
(https://www.sqlite.org/howtocorrupt.html, section 2.2). So whatever here reads the bytes of a database keeps its
descriptor open (`_KEPT`), one for each inode, and nothing here opens the `-shm` file.

Every method is called by the holder of the spool's lock, but `copy_log_back`.
"""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, final
from urllib.parse import quote

from otel_metadata.errors import ConfigurationError, StoreError, StoreFormatError
from otel_metadata.model.authors import AUTHORS, MAX_AUTHORS
from otel_metadata.reporting import REPORTER
from otel_metadata.spool import slots
from otel_metadata.spool.journal import read_journal, remove_journal
from otel_metadata.spool.owners import Owners, is_supported, owners_path
from otel_metadata.spool.salvage import PAGE_BYTES, salvage
from otel_metadata.store.sqlite.file import (
    SPOOL_ID,
    Layout,
    create_private_file,
    leave_to_the_parent,
    placed_by_another,
    prepare,
)

if TYPE_CHECKING:
    from otel_metadata.seams import Clock
    from otel_metadata.spool.spool_settings import SpoolSettings

# UnicodeDecodeError: SQLite's words about a damaged file can have pieces of that file in them.
TROUBLE: Final = (sqlite3.Error, OSError, StoreError, MemoryError, UnicodeDecodeError)
"""What a disk, a file or SQLite can do to us: then updates wait in memory."""

_SCHEMA: Final = (
    "CREATE TABLE items (id INTEGER PRIMARY KEY, body BLOB NOT NULL);"
    "CREATE TABLE dead (id INTEGER PRIMARY KEY, body BLOB NOT NULL)"
)

_LAYOUT: Final = Layout("a spool", SPOOL_ID, 1, _SCHEMA)

# A version that is beyond this was never released: it is a flipped bit.
_LAST_VERSION: Final = 1_023

# A write waits for another process's at most this long; then the row waits in memory, and the next call, or the worker,
# writes it. Until one of them succeeds nobody waits again.
_BUSY_SECONDS: Final = 0.5

# Between two tries, times a random number: SQLite's own back-off goes up to a tenth of a second, and while it sleeps
# others come and go. Eight processes that wrote at once lost their turn for longer than the whole of that time.
_BUSY_STEP_NS: Final = 1_000_000

# The log is copied back by the worker, never by a caller: without stopping writers, and beyond the second size by
# stopping them for a moment, for a log that is written without pause is never reset otherwise.
_LOG_BYTES: Final = 4 * 1024 * 1024
_MAX_LOG_BYTES: Final = 64 * 1024 * 1024

# The names of the writers whose rows are here. Not in `_SCHEMA`, because files of earlier versions have no such table.
# `_DROP_AUTHORS` drops the oldest names beyond a number.
_AUTHORS: Final = "CREATE TABLE IF NOT EXISTS authors (writer TEXT PRIMARY KEY, name TEXT NOT NULL)"
_NAME_AUTHOR: Final = (
    "INSERT INTO authors (writer, name) VALUES (?, ?) "
    "ON CONFLICT (writer) DO UPDATE SET name = max(name, excluded.name)"
)
_DROP_AUTHORS: Final = "DELETE FROM authors WHERE rowid <= (SELECT max(rowid) FROM authors) - ?"

_PUT_BACK: Final = "INSERT OR IGNORE INTO items (id, body) VALUES (?, ?)"

# No SQLite database is smaller.
_LEAST_BYTES: Final = 512

# What SQLite says of a file whose bytes were changed. The last three are said of a schema that was hit.
_DAMAGE: Final = (
    "malformed",
    "not a database",
    "unsupported file format",
    "no such table",
    "no such column",
    "has no column",
)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is wrong, not that it cannot be read or written now."""
    if isinstance(error, UnicodeDecodeError):
        return True
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    # Without words: Python before 3.11 could not decode them, for the reason above.
    text = str(error).lower()
    return not text or any(words in text for words in _DAMAGE)


def is_busy(error: BaseException) -> bool:
    """Whether another process is writing: nothing is wrong, and the next try may succeed."""
    text = str(error).lower()
    return isinstance(error, sqlite3.OperationalError) and ("locked" in text or "busy" in text)


def check_place(settings: SpoolSettings) -> None:
    """Check that the path can be one of a spool, and make its directory.

    Raises:
        ConfigurationError: It cannot; nothing was changed.
    """
    given = settings.path
    if not is_supported():
        raise ConfigurationError("configure(spool=)", given, "a system with POSIX file locks; leave the spool out here")
    path = Path(given)
    if path.is_dir():
        raise ConfigurationError(
            "configure(spool=)", given, f"a path of a file, not of a directory, for example {path / 'spool.db'}"
        )
    directory = path.parent
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            "configure(spool=)", given, f"a directory that can be made ({getattr(error, 'strerror', None) or error})"
        ) from error
    if not directory.is_dir():
        raise ConfigurationError("configure(spool=)", given, f"{directory} to be a directory")
    foreign = placed_by_another(given)
    owner = directory.stat().st_uid
    if foreign is not None or owner != os.geteuid():
        # The superuser could use it, and so could its owner: read what waits, and put files in the place of ours.
        raise ConfigurationError(
            "configure(spool=)",
            given,
            f"a directory of user {os.geteuid()}, who runs this process: {foreign or directory} belongs to user "
            f"{os.lstat(foreign).st_uid if foreign is not None else owner}. Give the spool a directory of its own, or "
            f"run: chown {os.geteuid()} {directory}",
        )
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(
            "configure(spool=)",
            given,
            f"a directory that only its owner may open: {directory} has mode {mode:04o}. "
            f"Give the spool a directory of its own, or run: chmod 700 {directory}",
        )


@final
class SpoolFile:
    """The files of one spool, as one process has them open: see the module's theory of operation.

    Attributes:
        connection: The connection that writes; None while there is none.
        owners: The leases; None before the file was first opened.
    """

    def __init__(self, settings: SpoolSettings, clock: Clock, tell: Callable[[str, str], None]) -> None:
        """Open nothing yet.

        Args:
            settings: Where and how.
            clock: Time, for the name of a file that is set aside.
            tell: Called with a reason and a sentence for the log.
        """
        self.path = settings.path
        self.connection: sqlite3.Connection | None = None
        self.owners: Owners | None = None
        self._synchronous = "FULL" if settings.durability == "power" else "NORMAL"
        self.max_log_bytes = min(_MAX_LOG_BYTES, max(settings.quota_bytes, _LOG_BYTES))
        self._clock = clock
        self._tell = tell
        self._inode: tuple[int, int] | None = None
        self._was_found_sound = False
        self._written_author: tuple[int, str] | None = None
        # The log as it was when it was first tried to open the file: SQLite deletes it when that fails.
        self._kept_log: int | None = None
        self._never = threading.Event()
        self.is_patient = True
        # For `copy_log_back`, which works beside the spool's lock: a fork waits for both.
        self.log_lock = threading.Lock()

    # --- open and close ---------------------------------------------------------------------------------------------

    def connected(self) -> sqlite3.Connection:
        """Return the connection; open it where there is none.

        Raises:
            StoreFormatError: The file is not ours.
            sqlite3.Error: It cannot be opened now, or is damaged (`is_damage`).
            OSError: As before, of the leases.
        """
        connection = self.connection
        if connection is not None:
            return connection
        if not Path(owners_path(self.path)).exists():
            # Nobody ever opened it as a spool, so nobody replaces it; and a file beside another program's is not made.
            return self._open()
        with self.leases().door(alone=False) as is_free:
            if not is_free:
                raise sqlite3.OperationalError("database is locked: another process replaces it")
            return self._open()

    def _open(self) -> sqlite3.Connection:
        path = self.path
        if not Path(path).exists() and Path(f"{path}.new").exists():
            self._finish_replacement()
        create_private_file(path)
        inode = _inode(path)
        if not _size(path) and _size(f"{path}-wal"):
            # SQLite deletes the log of an empty file, and with it what can still be read.
            raise sqlite3.DatabaseError("database disk image is malformed: empty, but with a log")
        if 0 < _size(path) < _LEAST_BYTES:
            # SQLite takes it for an empty database, and writes over it.
            if not (self._is_leased() or self._holds_ours()):
                raise StoreFormatError(path, "not an SQLite database", f"{_LAYOUT.expected}, or no file")
            raise sqlite3.DatabaseError("database disk image is malformed: cut off")
        if self._kept_log is None and _size(f"{path}-wal"):
            self._kept_log = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        connection = self._connect(path)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            self._prepare(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            # What was erased is not found again when the file has to be read without SQLite.
            connection.execute("PRAGMA secure_delete = ON")
            # A damaged type must not make SQLite's text of what is no text.
            connection.text_factory = bytes
            connection.execute("PRAGMA busy_timeout = 0")  # see when_free
            connection.execute("SELECT id, body FROM items LIMIT 1").fetchall()
            connection.execute("SELECT id, body FROM dead LIMIT 1").fetchall()
            self._put_back_hidden(connection, self.leases())
        except BaseException:
            connection.close()
            raise
        self.connection, self._inode = connection, inode
        self._written_author = None  # the file may be a new one, and the process a forked one
        self._let_log_go()
        return connection

    def when_free(self, call: Callable[[], object]) -> None:
        """Do *call* as soon as no other process writes.

        Raises:
            sqlite3.OperationalError: "locked": another has written all the time; then the next call does not wait.
        """
        until_ns = self._clock.monotonic_ns() + int(_BUSY_SECONDS * 1e9)
        while True:
            try:
                call()
                self.is_patient = True
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                if not self.is_patient or self._clock.monotonic_ns() >= until_ns:
                    self.is_patient = False
                    raise
            self._clock.wait(self._never, int(_BUSY_STEP_NS * random.random()))

    def _let_log_go(self) -> None:
        kept, self._kept_log = self._kept_log, None
        if kept is not None:
            os.close(kept)

    @contextmanager
    def _bytes(self) -> Iterator[list[tuple[_FileBytes, _FileBytes]]]:
        """Give the bytes of the database with those of each log that there is or was."""
        with _opened(self.path, keep=True) as database, _opened(f"{self.path}-wal", keep=False) as log:
            kept = [(database, _FileBytes(self._kept_log))] if self._kept_log is not None else []
            yield [*kept, (database, log)]

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Let it be a spool of ours, or say what it is."""
        malformed = sqlite3.DatabaseError("database disk image is malformed")
        try:
            if _size(f"{self.path}-wal") and not connection.execute("PRAGMA user_version").fetchone()[0]:
                # New, or the log's first frames were hit: then SQLite shows an empty database.
                with self._bytes() as pairs:
                    if any(True for _, log in pairs for _ in salvage(b"", log)):
                        raise malformed
            prepare(connection, self.path, _LAYOUT)
        except StoreFormatError:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            is_newer = (
                connection.execute("PRAGMA application_id").fetchone()[0] == _LAYOUT.application_id
                and _LAYOUT.version < version <= _LAST_VERSION
            )
            if is_newer or not self._holds_ours():
                raise
            raise malformed from None
        except UnicodeDecodeError:
            raise malformed from None
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error) and not (self._holds_ours() or self._is_leased()):
                raise StoreFormatError(
                    self.path, "not an SQLite database", f"{_LAYOUT.expected}, or no file"
                ) from error
            if not str(error):  # see is_damage
                raise malformed from None
            raise

    def _connect(self, path: str) -> sqlite3.Connection:
        # Not by its plain name: what was removed meanwhile must not be made by SQLite, with whatever mode.
        return sqlite3.connect(
            f"file:{quote(path)}?mode=rw",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )

    def leases(self) -> Owners:
        """Return the leases, opened where they are not.

        Raises:
            OSError: They cannot be opened.
        """
        if self.owners is None:
            self.owners = Owners.shared(owners_path(self.path))
        return self.owners

    def disconnect(self) -> None:
        """Close the connection, if there is one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            _close(connection)

    def close(self) -> None:
        """Close the connection, then end all leases."""
        self.disconnect()
        self._let_log_go()
        owners, self.owners = self.owners, None
        if owners is not None:
            owners.close()

    def leave_to_the_parent(self) -> None:
        """Forget everything in a forked child, and close nothing."""
        connection, self.connection = self.connection, None
        if connection is not None:
            leave_to_the_parent(connection)
        self.owners = None
        self._let_log_go()
        self.log_lock = threading.Lock()

    def write_author(self) -> None:
        """Write the name of this process's writer, unless it is there: whoever takes its rows over needs the name.

        An update must neither wait for a name nor fail without one. So this tries once; the worker tries again.
        """
        own, connection = AUTHORS.own, self.connection
        if own is None or own == self._written_author or connection is None:
            return
        writer, name = own

        def work() -> None:
            connection.execute(_AUTHORS)
            connection.execute(_NAME_AUTHOR, (f"{writer:016x}", name))
            connection.execute(_DROP_AUTHORS, (MAX_AUTHORS,))

        try:
            self.in_transaction(connection, work, is_patient=False)
            self._written_author = own
        except sqlite3.Error:
            pass  # a write of rows says what is wrong with the file

    def read_authors(self) -> None:
        """Enter the names of the writers whose rows are here into `AUTHORS`."""
        try:
            for writer, name in self.connected().execute("SELECT writer, name FROM authors").fetchall():
                AUTHORS.add(int(writer, 16), name.decode("utf-8", "replace"))
        except (sqlite3.Error, ValueError, TypeError, AttributeError):
            pass  # a file of an earlier version, or damage: rows are read without the names

    def in_transaction(
        self, connection: sqlite3.Connection, work: Callable[[], object], *, is_patient: bool = True
    ) -> None:
        """Do *work* whole or not at all; if not *is_patient*, only if no other process writes now."""
        try:
            if is_patient:
                self.when_free(lambda: connection.execute("BEGIN IMMEDIATE"))
            else:
                connection.execute("BEGIN IMMEDIATE")
            work()
            connection.execute("COMMIT")
        except BaseException:
            # A full disk makes COMMIT fail too, and some errors roll back by themselves.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    # --- size -------------------------------------------------------------------------------------------------------

    def measured(self) -> int:
        """Return how many bytes are in use."""
        connection = self.connected()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        # The log is reused once it was copied back, so it counts for what is above that.
        return int(pages - free) * PAGE_BYTES + max(_size(f"{self.path}-wal") - self.max_log_bytes, 0)

    def copy_log_back(self) -> None:
        """Copy a long log back into the file, on a connection of its own: callers go on writing meanwhile."""
        log_bytes = _size(f"{self.path}-wal")
        if log_bytes < _LOG_BYTES or self.connection is None or not self.log_lock.acquire(blocking=False):
            return
        try:
            connection = self._connect(self.path)
            try:
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
                mode = "PASSIVE" if log_bytes < self.max_log_bytes else "TRUNCATE"
                connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            self._tell("spool_log", f"{self.path}: {error}; its log could not be copied back, and grows.")
        finally:
            self.log_lock.release()

    # --- damage -----------------------------------------------------------------------------------------------------

    def reopen(self, *, is_damaged: bool) -> None:
        """Open it anew; where it is damaged, set it aside.

        Raises:
            Exception: One of `TROUBLE`; to be tried again.
        """
        self.disconnect()
        try:
            self._check(self.connected(), is_damaged=is_damaged)
        except sqlite3.DatabaseError as error:
            self.disconnect()
            if not is_damage(error):
                raise
            self._set_aside(is_damaged=is_damaged)

    def _check(self, connection: sqlite3.Connection, *, is_damaged: bool) -> None:
        if not is_damaged:
            return
        # One that was found sound before, and is said to be damaged again, is.
        answer = (
            b"damaged again" if self._was_found_sound else connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        )
        if answer != b"ok":
            raise sqlite3.DatabaseError(f"malformed: {answer!r}")
        self._was_found_sound = True

    def _set_aside(self, *, is_damaged: bool) -> None:
        """Put what can be read of a damaged file into a new one, and keep the damaged one under another name."""
        path = self.path
        with self.leases().door(alone=True) as is_free:
            if not is_free:
                raise sqlite3.OperationalError("database is locked: another process looks after it")
            try:
                self._check(self._open(), is_damaged=is_damaged)
                return  # another process was faster
            except sqlite3.DatabaseError as error:
                self.disconnect()
                if not is_damage(error):
                    raise
            rows = self._fill_new()
            aside = f"{path}.damaged-{self._clock.wall_ns()}"
            for suffix in ("", "-wal"):
                if Path(path + suffix).exists():
                    os.rename(path + suffix, aside + suffix)
            Path(f"{path}-shm").unlink(missing_ok=True)
            if self._kept_log is not None and not Path(f"{aside}-wal").exists():
                create_private_file(f"{aside}-wal")
                Path(f"{aside}-wal").write_bytes(_FileBytes(self._kept_log)[:])
            os.rename(f"{path}.new", path)
            self._let_log_go()
            self._was_found_sound = False
            self._open()
        self._tell(
            "spool_set_aside",
            f"{path} was damaged; {rows} rows could be read and are in a new file. The damaged one is kept as {aside}.",
        )

    def _fill_new(self) -> int:
        """Make a new file with what can be read of the old one; return how many rows that is."""
        new = f"{self.path}.new"
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(new + suffix).unlink(missing_ok=True)
        create_private_file(new)
        connection = self._connect(new)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = DELETE")
            with self._bytes() as pairs:

                def work() -> None:
                    for statement in _SCHEMA.split(";"):
                        connection.execute(statement)
                    for found in (one for database, log in pairs for one in salvage(database, log)):
                        table = "dead" if found.kind == "dead" else "items"
                        connection.execute(
                            f"INSERT OR IGNORE INTO {table} (id, body) VALUES (?, ?)",  # noqa: S608 # one of two names
                            (found.id, found.body),
                        )
                    # The version is what says that it is complete: see `_finish_replacement`.
                    connection.execute(f"PRAGMA application_id = {_LAYOUT.application_id}")
                    connection.execute(f"PRAGMA user_version = {_LAYOUT.version}")

                self.in_transaction(connection, work)
            return int(connection.execute("SELECT count(*) FROM items").fetchone()[0])
        finally:
            connection.close()

    def _finish_replacement(self) -> None:
        """Let a new file have its name: who made it died just before."""
        new = f"{self.path}.new"
        connection = self._connect(new)
        try:
            is_complete = connection.execute("PRAGMA user_version").fetchone()[0] == _LAYOUT.version
        except sqlite3.DatabaseError:
            is_complete = False
        finally:
            connection.close()
        if is_complete:
            os.rename(new, self.path)

    def _put_back_hidden(self, connection: sqlite3.Connection, owners: Owners) -> None:
        """Look in the bytes for rows that SQLite does not show, in the slots of dead processes, and put them back."""
        tallies = owners.read()
        suspects = {number for number, tally in tallies.items() if tally.expected} | owners.damaged()
        taken: list[int] = []
        try:
            for number in sorted(suspects):
                tally = tallies.get(number)
                left = read_journal(self.path, number)
                elsewhere = len(left.rows) if left is not None else 0
                if tally is not None and slots.count(connection, number) + elsewhere >= tally.expected:
                    continue
                if not owners.take(number):
                    continue
                tally = owners.read().get(number)
                if tally is None or slots.count(connection, number) < tally.expected:
                    taken.append(number)
                else:
                    owners.give_back(number)
            found = self.found_in(frozenset(taken)) if taken else ()
            if found:
                self.put_back(connection, found)
        finally:
            for number in taken:
                owners.give_back(number)

    def found_in(self, numbers: frozenset[int]) -> list[tuple[int, bytes]]:
        """Return the sound rows of these slots that are anywhere in the bytes, each once."""
        found: dict[int, bytes] = {}
        with self._bytes() as pairs:
            # All of it is read before the first row is written: that goes over what is read.
            for database, log in pairs:
                for one in salvage(database, log):
                    if one.kind != "dead" and slots.slot_of(one.id) in numbers:
                        found.setdefault(one.id, one.body)
        return sorted(found.items())

    def take_in(self, number: int) -> None:
        """Move what a dead process has left in the journal of a slot, which this one leases now, into the database.

        Raises:
            sqlite3.Error: It cannot be written; to be tried again.
            OSError: As before.
        """
        left = read_journal(self.path, number)
        if left is None:
            return
        if left.rows:
            self.put_back(self.connected(), left.rows)
        owners = self.leases()
        tally = owners.read().get(number)
        if tally is not None and left.puts > tally.puts:
            owners.note(number, left.puts, tally.settled, tally.name)
        remove_journal(self.path, number)

    def put_back(self, connection: sqlite3.Connection, rows: Iterable[tuple[int, bytes]]) -> None:
        """Insert rows under their numbers where there are none."""
        self.in_transaction(connection, lambda: connection.executemany(_PUT_BACK, rows))

    @property
    def is_replaced(self) -> bool:
        """Whether another file has its name now: another process has set it aside, or somebody has removed it."""
        return self.connection is not None and self._inode != _inode(self.path)

    def follow(self, numbers: Iterable[int]) -> None:
        """Go on in the new file, and carry over what this process wrote into the old one meanwhile.

        Args:
            numbers: The slots that this process leases.

        Raises:
            Exception: One of `TROUBLE`; then there is no connection.
        """
        old, self.connection = self.connection, None
        try:
            connection = self.connected()
            for number in numbers:
                try:
                    rows = (
                        old.execute(
                            "SELECT id, body FROM items WHERE id > ? AND id <= ?",
                            slots.bounds(number),
                        ).fetchall()
                        if old is not None
                        else []
                    )
                except sqlite3.Error:
                    continue  # what can be read of it was put into the new one already
                self.put_back(connection, rows)
        finally:
            if old is not None:
                _close(old)

    # --- whose it is ------------------------------------------------------------------------------------------------

    def _holds_ours(self) -> bool:
        """Whether a file that does not look like ours was: it holds frames of ours, or our tables."""
        try:
            marks = tuple(statement.encode() for statement in _SCHEMA.split(";"))
            with self._bytes() as pairs:
                return any(
                    _contains(database, marks) or _contains(log, marks) or any(salvage(database, log))
                    for database, log in pairs
                )
        except OSError:
            return False

    def _is_leased(self) -> bool:
        """Whether the file beside it says that it was a spool."""
        if not Path(owners_path(self.path)).exists():
            return False
        try:
            return any(tally.puts for tally in self.leases().read().values())
        except OSError:
            return False


def _contains(data: _FileBytes, marks: tuple[bytes, ...]) -> bool:
    return any(
        mark in data[at : at + PAGE_BYTES]
        for at in range(0, min(len(data), 64 * PAGE_BYTES), PAGE_BYTES)
        for mark in marks
    )


def _close(connection: sqlite3.Connection) -> None:
    try:
        connection.close()
    except sqlite3.Error as error:
        REPORTER.tell("spool_close", f"{error}")


# Descriptors of databases whose bytes were read, by device and inode: see the module's "Danger".
_KEPT: Final[dict[tuple[int, int], int]] = {}


@final
class _FileBytes:
    """The bytes of a file, read where they are asked for; not mapped, for a file may shrink under a map."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size if descriptor is not None else 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, where: slice) -> bytes:
        start, stop, _ = where.indices(self._length)
        if self._descriptor is None or stop <= start:
            return b""
        return os.pread(self._descriptor, stop - start, start)


@contextmanager
def _opened(path: str, *, keep: bool) -> Iterator[_FileBytes]:
    """Give the bytes of a file, of none where there is none; *keep* its descriptor where it is a database."""
    inode = _inode(path)
    if inode is None:
        yield _FileBytes(None)
        return
    kept = _KEPT.get(inode) if keep else None
    descriptor = kept if kept is not None else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if keep and kept is None:
        found = os.fstat(descriptor)
        _KEPT.setdefault((found.st_dev, found.st_ino), descriptor)
    try:
        yield _FileBytes(descriptor)
    finally:
        if not keep:
            os.close(descriptor)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
