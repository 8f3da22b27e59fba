"""A re-entrant lock that can say whether the calling thread holds it.

A finalizer or a signal handler runs in the middle of our own calls, on their thread. It has to know whether that thread
holds a lock: what it would wait for may need that lock.
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
    """`threading.RLock` with a public name for what `threading.Condition` asks it in private.

    A subclass without a method of its own: entering, leaving and asking call the code of the base class, in C.
    """

    __slots__ = ()

    is_held_by_current_thread: Callable[[], bool] = _RLock._is_owned  # type: ignore[attr-defined] # private; see above
    """Whether the calling thread holds the lock."""
