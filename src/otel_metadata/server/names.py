"""Names that a vendor's SDK asks for once and then calls by an id: projects, log streams, sessions.

They have to survive a restart of the server, because an SDK goes on with the ids that it has. So they are in a small
SQLite file of their own beside the store: the file of the store may be replaced while a server runs, and its schema is
the business of its upgrades. A store that is not a SQLite file may be shared by several servers and has no place for
them, so each server keeps them in its working directory. The ids of projects and log streams follow from their names,
so that all of these servers return the same ones.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, final
from weakref import WeakKeyDictionary

from otel_metadata.errors import StoreError
from otel_metadata.store.sqlite.file import create_private_file
from otel_metadata.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from otel_metadata.seams import SpanStore

FILE: Final = "otel_metadata_names.db"
"""The file of a store that is not a SQLite file. Beside one, it is the name of that file with `.names`."""

NameKind: TypeAlias = Literal["project", "log_stream", "session"]

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS server_names"
    " (kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, parent TEXT NOT NULL, PRIMARY KEY (kind, id))"
    " WITHOUT ROWID"
)
_TIMEOUT_SECONDS: Final = 10


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
class Names:
    """The names of one store's server. Blocking; any thread."""

    def __init__(self, path: str | None) -> None:
        """Keep them in the SQLite file *path*, or in memory alone."""
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[tuple[NameKind, str], Named] | None = None

    def get(self, kind: NameKind, identifier: str) -> Named | None:
        """Return what has this id; None if nothing has.

        Raises:
            StoreError: The file cannot be read.
        """
        with self._lock:
            found = self._loaded().get((kind, identifier))
            if found is None and self._path is not None:
                # Another process may have added it.
                self._known = None
                found = self._loaded().get((kind, identifier))
            return found

    def all(self, kind: NameKind, parent: str = "") -> list[Named]:
        """Return everything of a kind that belongs to *parent*, by name.

        Raises:
            StoreError: The file cannot be read.
        """
        with self._lock:
            self._known = None if self._path is not None else self._known
            found = [one for (of, _), one in self._loaded().items() if of == kind and one.parent == parent]
        return sorted(found, key=lambda one: one.name)

    def put(self, kind: NameKind, named: Named) -> None:
        """Keep a name, in place of an earlier one with the same id.

        Raises:
            StoreError: The file cannot be written.
        """
        with self._lock:
            known = self._loaded()
            if known.get((kind, named.id)) == named:
                return
            if self._path is not None:
                self._run("INSERT OR REPLACE INTO server_names VALUES (?, ?, ?, ?)", (kind, *named))
            known[kind, named.id] = named

    def _loaded(self) -> dict[tuple[NameKind, str], Named]:
        if self._known is None:
            rows = self._run("SELECT kind, id, name, parent FROM server_names", ()) if self._path is not None else []
            self._known = {
                (kind, identifier): Named(identifier, name, parent) for kind, identifier, name, parent in rows
            }
        return self._known

    def _run(self, statement: str, values: tuple[str, ...]) -> list[tuple[NameKind, str, str, str]]:
        # A connection for each: there are few calls.
        try:
            create_private_file(f"{self._path}")  # for its owner alone, as the spans are
            with closing(sqlite3.connect(f"{self._path}", timeout=_TIMEOUT_SECONDS)) as connection, connection:
                connection.execute(_CREATE)
                return connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}; expected a readable and writable SQLite file.") from error


_names: Final[WeakKeyDictionary[SpanStore, Names]] = WeakKeyDictionary()
_lock: Final = threading.Lock()


def names_of(store: SpanStore) -> Names:
    """Return the names beside a store."""
    with _lock:
        found = _names.get(store)
        if found is None:
            found = _names[store] = Names(_path(store))
        return found


def _path(store: SpanStore) -> str | None:
    if not isinstance(store, SqliteStore):
        return FILE
    return f"{store.place}.names" if store.place is not None else None
