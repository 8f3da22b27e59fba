"""A bound on long calls: exports, imports and retentions at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final, final

from otel_metadata.server.operations import Problem

_WAIT_SECONDS: Final = 10
_LOOK_SECONDS: Final = 0.02


@final
class Slots:
    """A bounded number of long calls at once. Any thread."""

    def __init__(self, count: int, what: str) -> None:
        """Bound *what*, which people know by that name."""
        self._count = count
        self._what = what
        self._lock = threading.RLock()  # a finalizer may give a slot back meanwhile
        self._taken = 0

    def take(self) -> Slot:
        """Take a slot.

        Raises:
            Problem: 503, because all are taken.
        """
        with self._lock:
            if self._taken >= self._count:
                title = f"{self._count} of at most {self._count} {self._what} run already; expected a later try."
                raise Problem(503, title, headers={"Retry-After": "5"})
            self._taken += 1
        return Slot(self._give_back)

    async def wait(self) -> Slot:
        """Take a slot as soon as one is free, within some seconds.

        For calls whose body has not been read: a client that is refused while it sends may not see the answer.

        Raises:
            Problem: 503, because all were taken all the time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _WAIT_SECONDS
        while True:
            try:
                return self.take()
            except Problem:
                if loop.time() >= end:
                    raise
            await asyncio.sleep(_LOOK_SECONDS)

    def _give_back(self) -> None:
        with self._lock:
            self._taken -= 1


@final
class Slot:
    """One of `Slots`; dropping it gives it back, so that a stream which nobody reads to its end holds none."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def give_back(self) -> None:
        """Give it back. A second call does nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    __del__ = give_back
