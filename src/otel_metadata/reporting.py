"""Log lines, at most one a minute for each reason; and the count and log of our own failures.

Our code never raises into the application. Where the two meet (decorator, span processor, worker), a failure is counted
and logged here. A test switches `reraise` on, so that a swallowed bug cannot hide.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, cast, final

from otel_metadata.foreign_text import visible
from otel_metadata.interrupts import pass_on

if TYPE_CHECKING:
    from types import MethodType

_LOGGER: Final = logging.getLogger("otel_metadata")

REPEAT_AFTER_NS: Final = 60 * 1_000_000_000

# How long a line waits for another thread that holds the lock. That thread is soon done, unless it ended with the lock
# held, as daemon threads may when the interpreter exits.
_PATIENCE_SECONDS: Final = 0.5

_MAX_HELD_BACK: Final = 64

_MAX_CHARACTERS: Final = 2_000
"""Length of one line, without its count."""


def _never() -> bool:
    return False


_of_functions: Final[dict[Callable[..., None], dict[int, weakref.WeakMethod[Callable[[], None]]]]] = {}
_numbers: Final = itertools.count()


def after_fork_in_child(method: Callable[[], None]) -> None:
    """Call a bound *method* in every forked child as long as its object lives; do nothing where fork does not exist.

    Python cannot remove a hook. So there is one hook for each function, not for each object: objects that come and go
    leave nothing behind. A single hook for all functions would run too early: a hook must come after the hooks of the
    modules that the function's module has imported.
    """
    if not hasattr(os, "register_at_fork"):
        return
    function = cast("MethodType", method).__func__
    made: dict[int, weakref.WeakMethod[Callable[[], None]]] = {}
    methods = _of_functions.setdefault(function, made)
    if methods is made:
        os.register_at_fork(after_in_child=partial(_call_all, methods))
    number = next(_numbers)
    methods[number] = weakref.WeakMethod(method, lambda _: methods.pop(number, None))


def _call_all(methods: dict[int, weakref.WeakMethod[Callable[[], None]]]) -> None:
    for weak in tuple(methods.values()):
        method = weak()
        try:
            if method is not None:
                method()
        except Exception as error:  # noqa: BLE001 # the methods of the other objects must still be called
            REPORTER.failed("after_fork", error)


@final
class Reporter:
    """Writes log lines that do not repeat endlessly, and counts our own failures.

    Any thread may call it, also in the middle of another call of the same thread.
    """

    def __init__(self) -> None:
        """Start with nothing told."""
        self._lock = threading.RLock()
        self._told: dict[str, tuple[int, int]] = {}
        self._is_locked_here: Callable[[], bool] = _never
        self._held_back: deque[tuple[int, str]] = deque(maxlen=_MAX_HELD_BACK)
        self.internal_errors = 0
        self.reraise = False
        after_fork_in_child(self._renew)

    def _renew(self) -> None:
        # A thread that held the lock at the fork does not exist in the child, and can never release it.
        self._lock = threading.RLock()
        self._held_back.clear()  # the parent logs them

    def hold_back_while(self, is_locked_here: Callable[[], bool]) -> None:
        """Hold lines back while *is_locked_here* is true on the calling thread; the next line logs them as well.

        A finalizer may refuse an update while its thread holds a lock of ours. If a logging handler of the application
        then waited for a lock that another thread holds while it updates a span, both would wait for ever.
        """
        self._is_locked_here = is_locked_here

    def tell(self, reason: str, message: str, *, level: int = logging.WARNING) -> None:
        """Log *message*, unless *reason* was logged within the last minute; the next line then says how often.

        Never raises. Not to be called with a lock of ours held, because a logging handler is the application's code.

        Args:
            reason: One of a bounded number of words; at most one line a minute is logged for each.
            message: A sentence without metadata values or secrets.
            level: A level of the logging module.
        """
        now = time.monotonic_ns()
        try:
            if not self._lock.acquire(timeout=_PATIENCE_SECONDS):
                return
            last, left_out = self._told.get(reason, (None, 0))
            if last is not None and now - last < REPEAT_AFTER_NS:
                self._told[reason] = (last, left_out + 1)
                return
            self._told[reason] = (now, 0)
        finally:
            try:
                self._lock.release()
            except RuntimeError:  # the lock was not free in time
                pass
        again = f" ({left_out} more since the last such line)" if left_out else ""
        # The handler's stream may not be able to write characters that are not ASCII.
        line = visible(message[:_MAX_CHARACTERS]).encode("ascii", "backslashreplace").decode()
        self._held_back.append((level, line[:_MAX_CHARACTERS] + again))
        if not self._is_locked_here():
            self._log()

    def _log(self) -> None:
        """Log the lines that were decided; called without a lock of ours."""
        lines = self._held_back
        while lines:
            try:
                level, line = lines.popleft()
            except IndexError:  # another thread has logged the last line
                return
            try:
                _LOGGER.log(level, "%s", line)
            except BaseException as error:  # noqa: BLE001 # a handler or filter failed; there is nobody else to tell
                pass_on(error)

    def failed(self, where: str, error: BaseException) -> None:
        """Count and log a failure of our own code; the application goes on.

        Raises:
            BaseException: *error* again, if a signal handler of the application raised it (a time limit), or if a test
                has set `reraise`.
        """
        pass_on(error)
        self.internal_errors += 1
        if self.reraise:
            raise error
        self.tell(f"internal_error:{where}", f"otel_metadata failed in {where}: {type(error).__name__}")
        if self._is_locked_here():
            return
        try:
            if _LOGGER.isEnabledFor(logging.DEBUG):
                lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
                _LOGGER.debug("otel_metadata failed in %s\n%s", where, "\n".join(map(visible, lines)))
        except BaseException as failure:  # noqa: BLE001 # as in tell
            pass_on(failure)


REPORTER: Final = Reporter()
"""The reporter of this process."""
