"""A re-entrant lock that can say whether the calling thread holds it.

A finalizer or a signal handler may run in the middle of one of our own calls, on the same thread. It has to know
whether that thread holds a lock, because the thread for which it would wait may need that lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic_ns, sleep  # noqa: TID251 # nothing is waited for: the system schedules another thread
from typing import TYPE_CHECKING, Final, TypeVar, final

if TYPE_CHECKING:
    from threading import RLock as _RLock
else:
    _RLock = type(threading.RLock())  # `threading.RLock` is a function; gevent gives it another class

PORTION: Final = 64
"""Entries that one hold of a lock deals with where there may be many."""

_Item = TypeVar("_Item")


@final
class ReentrantLock(_RLock):  # type: ignore[misc] # final in the stubs, not where it runs
    """`threading.RLock` with a public name for the private method that `threading.Condition` calls.

    Acquiring, releasing and asking run the base class's code in C: the subclass redefines none of it.
    """

    is_held_by_current_thread: Callable[[], bool] = _RLock._is_owned  # type: ignore[attr-defined] # private; see above
    """Whether the calling thread holds the lock."""

    _next_way_ns: int = 0

    def give_way(self) -> None:
        """Wait a moment, so that a thread that waits for the lock gets it before the caller takes it again.

        Python's locks are not fair: a thread that releases one and takes it again at once has it before a waiting
        thread wakes up, however often it does that. Nothing happens where the caller still holds the lock.
        """
        begun_ns = monotonic_ns()
        if begun_ns < self._next_way_ns or self.is_held_by_current_thread():
            return
        # The shortest sleep, some 60 microseconds on Linux: the waiting thread wakes up in it.
        sleep(1e-6)
        # It takes milliseconds where another thread computes: the interpreter goes on with that one for 5 ms. So it is
        # not done again for as long as it took, and at least half of the time is left for the caller's work.
        ended_ns = monotonic_ns()
        self._next_way_ns = ended_ns + (ended_ns - begun_ns)

    def portions(self, items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
        """Yield *items* in portions, one for each hold of the lock; where there are several, give way after each."""
        for first in range(0, len(items), PORTION):
            yield items[first : first + PORTION]
            if len(items) > PORTION:
                self.give_way()
