"""The names of writers: who set a value, for people.

A version names its writer by a random number (`model.merge`). The name of that writer, its author, travels beside the
values: `AUTHORS` has the names of the writers that this process knows. A store looks a name up when it writes, so an
update costs nothing for it. Two writers may have one name: an author is often several processes.

Names that come with values are other processes' word. They never change the name of a writer of this process: on a
server it says whose token has set a value. A server decides besides which other names a caller may bring (`taking`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, final

from otel_metadata.foreign_text import visible
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER
from otel_metadata.model.recent import RecentMap

MAX_AUTHOR_CHARACTERS: Final = 200
"""Length of a name. A longer one from elsewhere is cut off; one that is given to this process is refused."""

MAX_AUTHORS: Final = 10_000
"""How many of the latest writers keep their name in a process, at least."""


def shown_author(name: str) -> str:
    """Return a name as it is kept: on one line, with escapes for characters that a terminal would obey."""
    # The beginning first: a name that came from a file may have any length.
    return visible(name[:MAX_AUTHOR_CHARACTERS].strip())[:MAX_AUTHOR_CHARACTERS]


@final
class Authors:
    """The names of the latest writers. Any thread may call it; no call takes a lock.

    Attributes:
        own: The writer of this process and its name, which are never forgotten; None before `add_own`.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._names: RecentMap[int, str] = RecentMap(MAX_AUTHORS)
        self._of_process: RecentMap[int, str] = RecentMap(MAX_AUTHORS)
        self.own: tuple[int, str] | None = None
        self._may_name: ContextVar[Callable[[int, str], bool] | None] = ContextVar("may_name", default=None)

    def add_own(self, writer: int, name: str) -> None:
        """Name the writer of this process. A writer that it had before keeps its name."""
        self.add_of_process(writer, name)
        self.own = writer, shown_author(name)

    def add_of_process(self, writer: int, name: str) -> None:
        """Name one more writer of this process. Nobody else can change the name."""
        self._of_process[writer] = shown_author(name)

    def add(self, writer: int, name: str) -> None:
        """Name a writer of another process.

        Of two different names the greater one is kept, so that the order does not matter.

        Args:
            writer: The number of the writer, as in its versions. The one of plain span attributes gets no name: whoever
                set them is not a writer of ours.
            name: Kept as `shown_author` returns it; an empty one is ignored.
        """
        name, known = shown_author(name), self._names.get(writer)
        if not name or name == known or writer == PLAIN_ATTRIBUTE_WRITER or writer in self._of_process:
            return
        may_name = self._may_name.get()
        if may_name is None or may_name(writer, name):
            self._names[writer] = name if known is None else max(name, known)

    @contextmanager
    def taking(self, may_name: Callable[[int, str], bool]) -> Iterator[None]:
        """Let `add` take only the names that *may_name* allows, on this thread and while the block runs.

        Args:
            may_name: Gets a writer and a name as `shown_author` returns it.
        """
        token = self._may_name.set(may_name)
        try:
            yield
        finally:
            self._may_name.reset(token)

    def name_of(self, writer: int) -> str | None:
        """Return the name of a writer; None if nobody has said it."""
        own = self.own
        if own is not None and own[0] == writer:
            return own[1]
        return self._of_process.get(writer) or self._names.get(writer)


AUTHORS: Final = Authors()
"""The names that this process knows: its own, its clients', and those that came with spans, a spool or an import."""
