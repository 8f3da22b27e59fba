"""Names that a vendor's SDK asks for once and then calls by an id: projects, log streams, sessions.

They have to survive a restart of the server, because an SDK goes on with the ids that it has. So they are in a small
SQLite file of their own beside the store: the file of the store may be replaced while a server runs, and its schema is
the business of its upgrades. A store that is not a SQLite file may be shared by several servers and has no place for
them, so each server keeps them in its working directory. The ids of projects and log streams follow from their names,
so that all of these servers return the same ones.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, final
from weakref import WeakKeyDictionary, finalize

from otel_metadata.errors import StoreError
from otel_metadata.model.recent import RecentMap
from otel_metadata.store.sqlite.file import create_private_file
from otel_metadata.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from otel_metadata.seams import SpanStore

FILE: Final = "otel_metadata_names.db"
"""The file of a store that is not a SQLite file. Beside one, it is the name of that file with `.names`."""

MAX_NAMES: Final = 10_000
"""How many names of one kind are kept. The oldest go: an SDK makes a session for each conversation."""

NameKind: TypeAlias = Literal["project", "log_stream", "session"]

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS server_names"
    " (kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, parent TEXT NOT NULL, PRIMARY KEY (kind, id))"
)
_SELECT: Final = "SELECT id, name, parent FROM server_names WHERE kind = ? AND "
_FORGET: Final = (
    "DELETE FROM server_names WHERE kind = ? AND rowid <="
    " (SELECT rowid FROM server_names WHERE kind = ? ORDER BY rowid DESC LIMIT 1 OFFSET ?)"
)
_TIMEOUT_SECONDS: Final = 10
_CACHED: Final = 1_000


@final
class Named(NamedTuple):
    """Something with an id and a name.

    Attributes:
        id: Its id.
        name: Its name.
        parent: The id of the project that it belongs to; "" for a project.
    """

    id: str
    name: str
    parent: str


@final
class VendorNames:
    """The names of one store's server. Blocking; any thread."""

    def __init__(self, path: str | None) -> None:
        """Keep them in the SQLite file *path*, or in memory alone."""
        self._path = path
        self._lock = threading.Lock()  # of the connection to memory
        self._memory = sqlite3.connect(":memory:", check_same_thread=False) if path is None else None
        if self._memory is not None:
            finalize(self, self._memory.close)
        # What an id means never changes, so only ids that are not known are looked up each time.
        self._cache: RecentMap[tuple[NameKind, str], Named] = RecentMap(_CACHED)

    def known(self, kind: NameKind, identifier: str) -> Named | None:
        """Return what has this id, if it was looked up lately. It never waits."""
        return self._cache.get((kind, identifier))

    def get(
        self, kind: NameKind, identifier: str, parent: str = "", *, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> Named | None:
        """Return what has this id and belongs to *parent*; None if nothing does.

        Args:
            kind: What it is.
            identifier: Its id.
            parent: The id of its project; "" for a project.
            timeout_seconds: How long to wait for a program that has locked the file.

        Raises:
            StoreError: The file cannot be read.
        """
        found = self._cache.get((kind, identifier))
        if found is None:
            rows = self._read("id = ?", kind, identifier, timeout_seconds=timeout_seconds)
            if rows:
                found = self._cache[kind, identifier] = Named(*rows[0])
        return found if found is not None and found.parent == parent else None

    def by_name(self, kind: NameKind, name: str, parent: str, *, timeout_seconds: float) -> Named | None:
        """Return the newest one with this name that belongs to *parent*; None if nothing has it.

        Raises:
            StoreError: The file cannot be read.
        """
        where = "name = ? AND parent = ? ORDER BY rowid DESC LIMIT 1"
        rows = self._read(where, kind, name, parent, timeout_seconds=timeout_seconds)
        return Named(*rows[0]) if rows else None

    def all(self, kind: NameKind, parent: str = "") -> list[Named]:
        """Return everything of a kind that belongs to *parent*, by name.

        Raises:
            StoreError: The file cannot be read.
        """
        return [Named(*row) for row in self._read("parent = ? ORDER BY name", kind, parent)]

    def put(self, kind: NameKind, named: Named) -> None:
        """Keep a name, if the id has none yet.

        Raises:
            StoreError: The file cannot be written.
        """
        if self._cache.get((kind, named.id)) is None:
            insert = ("INSERT OR IGNORE INTO server_names VALUES (?, ?, ?, ?)", (kind, *named))
            self._run(_TIMEOUT_SECONDS, insert, (_FORGET, (kind, kind, MAX_NAMES)))

    def _read(self, where: str, *values: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> list[tuple[str, str, str]]:
        if self._path is not None and not os.path.exists(self._path):
            return []  # whoever only asks makes no file
        return self._run(timeout_seconds, (_SELECT + where, values))

    def _run(
        self, timeout_seconds: float, *statements: tuple[str, tuple[str | int, ...]]
    ) -> list[tuple[str, str, str]]:
        """Run statements in one transaction, and return the rows of the last one."""
        try:
            with self._opened(timeout_seconds) as connection, connection:
                connection.execute(_CREATE)
                rows: list[tuple[str, str, str]] = []
                for statement, values in statements:
                    rows = connection.execute(statement, values).fetchall()
                return rows
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}; expected a readable and writable SQLite file.") from error

    @contextmanager
    def _opened(self, timeout_seconds: float) -> Iterator[sqlite3.Connection]:
        if self._memory is not None:
            with self._lock:
                yield self._memory
            return
        # A connection for each call: there are few, and a file that was removed meanwhile is made anew.
        create_private_file(f"{self._path}")  # for its owner alone, as the spans are
        with closing(sqlite3.connect(f"{self._path}", timeout=timeout_seconds)) as connection:
            yield connection


_names: Final[WeakKeyDictionary[SpanStore, VendorNames]] = WeakKeyDictionary()
_lock: Final = threading.Lock()


def vendor_names(store: SpanStore) -> VendorNames:
    """Return the names beside a store."""
    with _lock:
        found = _names.get(store)
        if found is None:
            found = _names[store] = VendorNames(_path(store))
        return found


def _path(store: SpanStore) -> str | None:
    if not isinstance(store, SqliteStore):
        return FILE
    return f"{store.place}.names" if store.place is not None else None
