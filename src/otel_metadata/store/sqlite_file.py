"""An SQLite file of ours: made private, recognized as ours, in WAL mode, its tables made once.

What the embedded store and the spool have in common; what is in the tables is theirs.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

from otel_metadata.errors import StoreError, StoreFormatError

__all__ = ["SPOOL_ID", "STORE_ID", "Layout", "create_private_file", "leave_to_the_parent", "prepare"]

STORE_ID: Final = 0x6F74_656D  # "otem"
SPOOL_ID: Final = 0x6F74_7370  # "otsp"
"""SQLite's `application_id` of the two kinds of files that are ours."""

_OURS: Final = {STORE_ID: "a store of otel-metadata", SPOOL_ID: "a spool of otel-metadata"}

# After a fork the parent's connections stay open in the child, unused: closing one there would act on the parent's
# locks and log file. https://www.sqlite.org/howtocorrupt.html, section 2.6.
_left_to_the_parent: Final[list[sqlite3.Connection]] = []


class Layout(NamedTuple):
    """What makes a file one of ours.

    Attributes:
        noun: What it is, for messages: "a store".
        expected: What was expected, for messages: "a store of otel-metadata".
        application_id: SQLite's `application_id`.
        version: SQLite's `user_version`; a higher one was written by a newer version of ours.
        schema: SQL that makes the tables of version 1.
        upgrades: SQL that makes each version of the one before, from version 2 on.
    """

    noun: str
    expected: str
    application_id: int
    version: int
    schema: str
    upgrades: tuple[str, ...] = ()


def leave_to_the_parent(connection: sqlite3.Connection) -> None:
    """Keep a connection that was inherited over a fork open and unused."""
    _left_to_the_parent.append(connection)


def create_private_file(path: str) -> None:
    """Make an empty file with mode 0600 where there is none.

    Raises:
        StoreFormatError: There is something else than a file.
        StoreError: It cannot be made.
    """
    if os.path.exists(path):  # Path.exists raises where nobody may look, or the name is too long
        if not Path(path).is_file():
            raise StoreFormatError(path, "not a file", "a path of a file")
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return  # another process was faster
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror}; expected a path in a directory that exists and is writable."
        ) from error


def prepare(connection: sqlite3.Connection, path: str, layout: Layout) -> None:
    """Check that the database is ours, or empty; then turn WAL on and make the tables, or bring them up to date.

    Raises:
        StoreFormatError: It is another program's, or of a newer version. Nothing was changed.
        sqlite3.Error: It cannot be read or written; "locked" where another process makes it at this moment.
    """
    # Tables first: when another process makes the schema meanwhile, there are none yet, or the id is there too.
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != layout.application_id and (tables or application_id):
        other = _OURS.get(application_id, "another program's SQLite database")
        raise StoreFormatError(path, other, f"{layout.expected}, or no file")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > layout.version:
        raise StoreFormatError(
            path, f"{layout.noun} of version {version}", f"version {layout.version}: install a newer otel-metadata"
        )
    # Changing the mode needs the file for itself, and answers "locked" at once when another process has it open.
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    if version == layout.version:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version < layout.version:
            for script in (layout.schema, *layout.upgrades)[version:]:
                for statement in script.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {layout.application_id}")
            connection.execute(f"PRAGMA user_version = {layout.version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # it is tried again on this connection
            connection.execute("ROLLBACK")
        raise
