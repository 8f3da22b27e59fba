"""A bound on memory that requests wait for, in the order in which they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import final


@final
class Room:
    """So many bytes, which requests share. For the event loop alone."""

    def __init__(self, size: int) -> None:
        """Start with all of it free."""
        self._size = self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Wait until *size* bytes are free, and take them for the block; all there are, if *size* is larger."""
        size = min(size, self._size)
        if self._waiting or size > self._free:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except BaseException:  # a caller that is gone
                if turn.done() and not turn.cancelled():
                    self._free += size
                self._next()
                raise
        else:
            self._free -= size
        try:
            yield
        finally:
            self._free += size
            self._next()

    def _next(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.done():
                if size > self._free:
                    return
                self._free -= size
                turn.set_result(None)
            self._waiting.popleft()
