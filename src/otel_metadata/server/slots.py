"""A bound on long calls: exports, imports and retentions at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

from otel_metadata.server.problems import overloaded

_LOOKS: Final = 500
_LOOK_SECONDS: Final = 0.02


@final
class Slots:
    """A bounded number of long calls at once. For the event loop alone."""

    def __init__(self, count: int, what: str) -> None:
        """Bound *what*, which people know by that name."""
        self._count = self._free = count
        self._what = what

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Take a slot for the block.

        Raises:
            Problem: 503, because all are taken.
        """
        if not self._free:
            title = f"{self._count} {self._what} run already, the most at once; try again in 5 s."
            raise overloaded(title, 5)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def wait(self) -> None:
        """Return when a slot is free, or after some seconds.

        For calls whose body has not been read: a client that is refused while it sends may not see the answer.
        """
        for _ in range(_LOOKS):
            if self._free:
                return
            await asyncio.sleep(_LOOK_SECONDS)
