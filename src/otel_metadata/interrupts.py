"""Exceptions that signal handlers and other threads raise in the middle of our code: they pass to the application.

A time limit is an exception that a signal handler raises: Celery's `SoftTimeLimitExceeded`, the `TimeoutError` of
timeout decorators. Python runs the handler wherever the main thread is, often in a call of ours. Other limits are
thrown in by another thread, as Dramatiq's. Our guards catch exceptions of our own code; they must not catch those.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType

# Who ends a task, a greenlet or a job from outside: cancellations and time limits, none of which is an `Exception`.
_SCHEDULERS: Final = frozenset(
    {"asyncio", "concurrent", "trio", "curio", "gevent", "greenlet", "eventlet", "dramatiq", "func_timeout"}
)
# Those whose time limits are an `Exception`, which another thread throws in: `rq.timeouts.TimerDeathPenalty`, stopit.
_TIMERS: Final = frozenset({"rq", "stopit"})


def pass_on(error: BaseException) -> None:
    """Raise *error* again where it came from outside; do nothing otherwise.

    From outside come Ctrl-C, exceptions of signal handlers, cancellations, and exceptions that another thread threw in.
    Everything else, `SystemExit` included, is a failure of who raised it: of ours, or of a callback. Called in each
    `except` that code on the application's thread reaches, and around callbacks.
    """
    if isinstance(error, KeyboardInterrupt) or _is_thrown_in(error) or is_from_a_signal_handler(error):
        raise error


def _is_thrown_in(error: BaseException) -> bool:
    """Whether a scheduler or another thread has thrown *error* in.

    `PyThreadState_SetAsyncExc` raises wherever the thread is: also in code that raises no such thing, as the innermost
    frame of the traceback shows.
    """
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, Exception):
        return package in _TIMERS
    if package in _SCHEDULERS:
        return True
    # Generators are closed in their own frames, and Rust panics in the frame of who called it.
    if isinstance(error, GeneratorExit) or package == "pyo3_runtime":
        return False
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    where = str(traceback.tb_frame.f_globals.get("__name__")).partition(".")[0]
    return where == "otel_metadata" or (package != "builtins" and where in sys.stdlib_module_names)


def is_from_a_signal_handler(error: BaseException) -> bool:
    """Whether *error* came through a Python function that handles a signal of this process.

    Its frame is in the traceback.
    """
    traceback = error.__traceback__
    # The first frame is of who caught it, and most failures have no other.
    if traceback is None or traceback.tb_next is None:
        return False
    handlers = {code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number))) is not None}
    while handlers and traceback is not None:
        if traceback.tb_frame.f_code in handlers:
            return True
        traceback = traceback.tb_next
    return False


def _code_of(handler: object) -> CodeType | None:
    """Return the code that runs when *handler* is called, where it is Python's."""
    for _ in range(8):  # a partial of a bound method of ..., which ends somewhere
        if handler is None or isinstance(handler, int):  # not Python's; SIG_DFL, SIG_IGN
            return None
        code: CodeType | None = getattr(handler, "__code__", None)
        if code is not None:
            return code
        inner = getattr(handler, "__func__", None) or getattr(handler, "func", None)
        handler = inner if inner is not None else vars(type(handler)).get("__call__")
    return None
