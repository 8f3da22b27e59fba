"""The names of writers: who set a value, for people.

A version names its writer by a random number (`model.merge`). The name of that writer, its author, travels beside the
values: `AUTHORS` has the names of the writers that this process knows. A store looks a name up when it writes, so an
update costs nothing for it. Two writers may have one name: an author is often several processes.
"""

from __future__ import annotations

from typing import Final, final

from otel_metadata.foreign_text import visible
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER
from otel_metadata.model.recent import RecentMap

__all__ = ["AUTHORS", "MAX_AUTHORS", "MAX_AUTHOR_CHARACTERS", "Authors"]

MAX_AUTHOR_CHARACTERS: Final = 200
"""Length of a name; the rest is cut off."""

MAX_AUTHORS: Final = 10_000
"""How many of the latest writers keep their name in a process, at least."""


@final
class Authors:
    """The names of the latest writers. Any thread may call it; no call takes a lock."""

    def __init__(self) -> None:
        """Start empty."""
        self._names: RecentMap[int, str] = RecentMap(MAX_AUTHORS)

    def add(self, writer: int, name: str) -> None:
        """Name a writer. Of two different names the greater one is kept, so that the order does not matter.

        Args:
            writer: The number of the writer, as in its versions. The one of plain span attributes gets no name: whoever
                set them is not a writer of ours.
            name: Characters that a terminal would obey are replaced by escapes. An empty name is ignored.
        """
        # The beginning first: a name that came from a file may have any length.
        name = visible(name[:MAX_AUTHOR_CHARACTERS].strip())[:MAX_AUTHOR_CHARACTERS]
        known = self._names.get(writer)
        if name and writer != PLAIN_ATTRIBUTE_WRITER:
            self._names[writer] = name if known is None else max(name, known)

    def name_of(self, writer: int) -> str | None:
        """Return the name of a writer; None if nobody has said it."""
        return self._names.get(writer)


AUTHORS: Final = Authors()
"""The names that this process knows: its own, those that came with a spool, those of an import."""
