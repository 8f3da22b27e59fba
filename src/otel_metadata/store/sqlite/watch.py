"""Notice that a SQLite file was changed, by whichever process: `PRAGMA data_version`.

It costs microseconds, and nobody has to write a log of changes. https://www.sqlite.org/pragma.html#pragma_data_version
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, final

from otel_metadata.store.sqlite.file import files_of

if TYPE_CHECKING:
    from otel_metadata.store.sqlite.file import Files


@final
class Watch:
    """The state of one file, as a value to compare. One thread calls all its methods.

    SQLite crashes if one thread closes a connection while another executes on it.
    """

    def __init__(self, path: str) -> None:
        """Open nothing yet.

        Args:
            path: The name of the database; the file need not exist yet.
        """
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._files: Files | None = None
        self._opened = 0

    def state(self) -> object:
        """Return a value that differs from the one before if a transaction was committed in between.

        It may also differ without a change, for example while the file cannot be read.
        """
        found = files_of(self._path)
        if self._connection is not None and (self._files is None or not self._files.has_become(found)):
            self.close()  # the numbers of a replaced file have nothing to do with those of the new one
        try:
            if self._connection is None:
                uri = f"{Path(self._path).as_uri()}?mode=ro"
                self._connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
                self._opened += 1
            self._files = found
            return self._opened, self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            self.close()
            return self._opened, None

    def close(self) -> None:
        """Close the connection; the next call of `state` opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
