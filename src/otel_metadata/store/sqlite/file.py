"""SQLite files of otel-metadata: making them private, recognizing them, turning WAL on, and making their tables.

The embedded store and the spool share this module. Each decides what is in its own tables.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

try:
    import fcntl
except ModuleNotFoundError:  # Windows, which lets nobody remove a file that is open
    fcntl = None  # type: ignore[assignment] # a module elsewhere

from otel_metadata.errors import StoreError, StoreFormatError

STORE_ID: Final = 0x6F74_656D  # "otem"
SPOOL_ID: Final = 0x6F74_7370  # "otsp"
"""SQLite's `application_id` of the two kinds of files that otel-metadata makes."""


# Linux follows no more: path_resolution(7).
_MAX_LINKS: Final = 40

# After a fork the child keeps the parent's connections open and unused: closing one would act on the parent's locks and
# log file. https://www.sqlite.org/howtocorrupt.html, section 2.6.
_left_to_the_parent: Final[list[sqlite3.Connection]] = []


class Index(NamedTuple):
    """A partial index.

    Attributes:
        name: Its name.
        table: The table that it is on.
        columns: Its columns, as SQL.
        where: The condition on the rows that it has.
    """

    name: str
    table: str
    columns: str
    where: str

    @property
    def create(self) -> str:
        """SQL that makes it, unless it is there."""
        return f"CREATE INDEX IF NOT EXISTS {self.name} ON {self.table} ({self.columns}) WHERE {self.where}"

    @property
    def scan(self) -> str:
        """SQL that reads the same rows as `create`."""
        return f"SELECT count(*) FROM {self.table} NOT INDEXED WHERE {self.where}"


class Layout(NamedTuple):
    """How a kind of file is recognized and made.

    Attributes:
        noun: The kind of file, for messages: "a store".
        application_id: SQLite's `application_id`.
        version: SQLite's `user_version`. A higher one was written by a newer version of otel-metadata.
        schema: SQL that makes the tables of version 1.
        upgrades: SQL that makes each version from the one before it, beginning with version 2.
        indexes: Indexes of the last version. In a file that has rows each is made in a transaction of its own, so that
            another process's write waits for one of them and not for all.
        earlier: Brings a file to the version before the last in steps, and calls what it is given before each step.
        older: SQL for a file that was brought up to date, while processes of earlier versions may have it open.
    """

    noun: str
    application_id: int
    version: int
    schema: str
    upgrades: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    earlier: Callable[[sqlite3.Connection, Callable[[], object]], None] = lambda *_: None
    older: str = ""

    @property
    def expected(self) -> str:
        """What a message says was expected."""
        return f"{self.noun} of otel-metadata"


_LARGE_PAGES: Final = 10_000
"""In a file of fewer pages, 40 MB, all steps of an upgrade take less time than a wait between them."""

_FIND_INDEX: Final = "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?"

_Id: TypeAlias = "tuple[int, int] | None"  # device and inode; None where there is no file


class Files(NamedTuple):
    """The files that have the names of a database at one moment, and the size of the database itself.

    While a connection is open, no process's SQLite removes any of them: https://www.sqlite.org/walformat.html, 1.
    """

    database: _Id
    log: _Id
    shared: _Id
    size: int

    def has_become(self, found: Files) -> bool:
        """Whether *found*, seen later, are the same files: a database does not shrink unless by VACUUM."""
        return self[:3] == found[:3] and found.size >= self.size


def files_of(path: str) -> Files:
    """Return the files that have the names of a database now."""
    try:
        found = os.stat(path)
    except OSError:
        return Files(None, _id_of(f"{path}-wal"), _id_of(f"{path}-shm"), 0)
    return Files((found.st_dev, found.st_ino), _id_of(f"{path}-wal"), _id_of(f"{path}-shm"), found.st_size)


def _id_of(path: str) -> _Id:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def let_go(connection: sqlite3.Connection, path: str, opened: Files) -> None:
    """Close a connection whose files were removed, replaced or emptied, and clear the way for new files.

    The caller is `alone` until it has opened the new files, so nobody reads the database while its log is folded in.

    Args:
        connection: The connection to the old files.
        path: The name of the database.
        opened: The files that the connection has open.

    Raises:
        sqlite3.OperationalError: "locked": others still use the removed files; try again.
    """
    found = files_of(path)
    is_emptied = found.database == opened.database and not found.size
    if not is_emptied and found.log in {None, opened.log} and found.shared in {None, opened.shared}:
        # Fold the log into the open database: a database that was moved is then complete, and the content of a removed
        # log is not lost. Not if others have begun another log, for then this one is not theirs. All of it or nothing:
        # half of a log makes the database malformed.
        try:
            is_busy = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]
        except sqlite3.Error:
            is_busy = False  # the database cannot be written any more
        if is_busy and found.database == opened.database:
            raise sqlite3.OperationalError("database is locked: the log that was removed is still in use")
    with suppress(OSError):  # another process was faster
        if is_emptied:
            # Closing would fold the log into it. A database without a name is left alone.
            os.unlink(path)
        if is_emptied or found.database != opened.database:
            # SQLite takes any log of the right name for the database's own, and would mix the pages of both.
            for suffix, old in (("-wal", opened.log), ("-shm", opened.shared)):
                if old is not None and _id_of(path + suffix) == old:
                    os.unlink(path + suffix)
    log, kept = f"{path}-wal", f"{path}-wal.kept"
    with suppress(OSError):
        os.unlink(kept)  # left by a process that died here
    with suppress(OSError):  # the file system has no links
        if found.log not in {None, opened.log}:
            # The last connection to close deletes the log by its name, which belongs to another log now.
            os.link(log, kept)
    connection.close()
    with suppress(OSError):
        if os.path.exists(log):
            os.unlink(kept)
        else:
            os.rename(kept, log)


def create_store_file(path: str) -> None:
    """Make an empty file with mode 0600 if there is none, and remove the log of a database that was removed.

    If there is none, the caller must be `alone`.

    Raises:
        StoreFormatError: The path names something other than a file.
        StoreError: The file cannot be made.
    """
    if not os.path.exists(path):
        for suffix in ("-wal", "-shm"):
            with suppress(OSError):
                os.unlink(path + suffix)
    create_private_file(path)


@contextmanager
def alone(path: str) -> Iterator[None]:
    """Keep other processes from removing or making files of this name meanwhile, if the file system has locks.

    Raises:
        sqlite3.OperationalError: "locked": another process is doing so; try again.
    """
    descriptor = None
    try:
        if fcntl is not None:
            descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)  # type: ignore[arg-type] # only flock raises this
        raise sqlite3.OperationalError("database is locked: another process makes it") from None
    except OSError:
        pass  # no such directory, which the caller finds out, or no locks in this file system
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # close() alone would leave it with a child forked meanwhile
            os.close(descriptor)


def leave_to_the_parent(connection: sqlite3.Connection) -> None:
    """Keep a connection that a fork inherited open and unused."""
    _left_to_the_parent.append(connection)


def create_private_file(path: str) -> None:
    """Make an empty file with mode 0600 if there is none.

    Raises:
        StoreFormatError: The path names something other than a file.
        StoreError: The file cannot be made.
    """
    foreign = placed_by_another(path)
    if foreign is not None:
        raise StoreFormatError(
            path,
            f"{foreign} belongs to user {os.lstat(foreign).st_uid}, in a directory that everybody may write",
            f"a file of user {os.geteuid()}, or one in a directory that others cannot write",
        )
    if os.path.exists(path):  # Path.exists() raises where a directory may not be searched
        if not os.path.isfile(path):
            raise StoreFormatError(path, "not a file", "a path of a file")
        return
    try:
        # realpath: for a link to a file that does not exist, SQLite would make the file with the umask's mode.
        os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return  # another process was faster
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror}; expected a path in a directory that exists and is writable."
        ) from error


def placed_by_another(path: str) -> str | None:
    """Return a link on the path, or the file itself, that another user put into a directory that everybody may write.

    Returns None if there is no such link or file. Through such a link that user chooses where data is written, and such
    a file that user can read. Linux has these rules as `protected_symlinks` and `protected_regular`; other systems and
    settings do not. Links and files of the superuser, and of the directory's owner, are trusted: in a volume mounted
    into a container everything may belong to a user who does not exist there.
    """
    if not hasattr(os, "geteuid"):
        return None
    at, links = "", 0
    left = list(reversed(Path(os.path.abspath(path)).parts))
    while left:
        part = left.pop()
        directory, at = at, os.path.dirname(at) if part == ".." else os.path.join(at, part)
        try:
            found = os.lstat(at)
            is_link = stat.S_ISLNK(found.st_mode)
            if directory and (is_link or not left) and found.st_uid not in {os.geteuid(), 0}:
                around = os.stat(directory)
                if around.st_mode & stat.S_IWOTH and found.st_uid != around.st_uid:
                    return at
            if is_link:
                links += 1
                if links > _MAX_LINKS:
                    return None  # nobody can open it either
                left.extend(reversed(Path(os.readlink(at)).parts))
                at = directory
        except OSError:
            return None  # missing or not readable, which the error of opening it says
    return None


def prepare(
    connection: sqlite3.Connection, path: str, layout: Layout, give_way: Callable[[], object] = lambda: None
) -> None:
    """Check that the database has this layout or is empty. Then turn WAL on and make the tables, or upgrade them.

    Args:
        connection: A new connection.
        path: Its file, for messages.
        layout: What the file is to be.
        give_way: Called between two steps of the upgrade of a large file. Waits until other processes, which ask for
            the lock at least ten times a second, have had their turn.

    Raises:
        StoreFormatError: It belongs to another program, or to a newer version. Nothing was changed.
        sqlite3.Error: It cannot be read or written; "locked" if another process is making it.
    """
    # Tables first: if another process makes the schema meanwhile, either there are no tables yet or the id is set too.
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != layout.application_id and (tables or application_id):
        nouns = {STORE_ID: "a store of otel-metadata", SPOOL_ID: "a spool of otel-metadata"}
        raise StoreFormatError(
            path, nouns.get(application_id, "another program's SQLite database"), f"{layout.expected}, or no file"
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > layout.version:
        raise StoreFormatError(
            path, f"{layout.noun} of version {version}", f"version {layout.version}: install a newer otel-metadata"
        )
    # Changing the mode needs exclusive access, and fails with "locked" at once if another process has the file open.
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    if version == layout.version:
        return
    if version and layout.indexes:
        # The version stays the one before until all are there: whoever opens the file meanwhile, or after this process
        # was killed, goes on.
        layout.earlier(connection, give_way)
        is_large = connection.execute("PRAGMA page_count").fetchone()[0] >= _LARGE_PAGES
        for index in layout.indexes:
            if is_large and not connection.execute(_FIND_INDEX, (index.name,)).fetchall():
                # Reading from a disk takes long. What was read is then in memory, and the lock is held for the rest.
                connection.execute(index.scan).fetchone()
            with transaction(connection):
                connection.execute(index.create)
            if is_large:
                give_way()
    with transaction(connection):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version >= layout.version:
            return
        older = [layout.older] if version else []
        for script in (*(layout.schema, *layout.upgrades)[version:], *older):
            for statement in statements(script):
                connection.execute(statement)
        for index in layout.indexes:
            connection.execute(index.create)
        connection.execute(f"PRAGMA application_id = {layout.application_id}")
        connection.execute(f"PRAGMA user_version = {layout.version}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Begin a transaction that writes, and commit it, or take it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # the next try is on this connection
            connection.execute("ROLLBACK")
        raise


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; a trigger is one of them."""
    statement = ""
    for part in script.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
