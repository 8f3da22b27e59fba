"""A re-entrant lock that can say whether the calling thread holds it.

A finalizer or a signal handler may run in the middle of one of our own calls, on the same thread. It has to know
whether that thread holds a lock, because the thread for which it would wait may need that lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from threading import RLock as _RLock
else:
    _RLock = type(threading.RLock())  # `threading.RLock` is a function; gevent gives it another class

__all__ = ["ReentrantLock"]


@final
class ReentrantLock(_RLock):  # type: ignore[misc] # final in the stubs, not where it runs
    """`threading.RLock` with a public name for the private method that `threading.Condition` calls.

    The subclass defines no method of its own, so acquiring, releasing and asking run the base class's code in C.
    """

    __slots__ = ()

    is_held_by_current_thread: Callable[[], bool] = _RLock._is_owned  # type: ignore[attr-defined] # private; see above
    """Whether the calling thread holds the lock."""
