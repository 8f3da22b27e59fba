"""SIGTERM in a child of multiprocessing: waiting spans and patches are sent, then the signal ends the process.

Python runs a signal handler between two steps of the main thread. A child that was asked to end while its main thread
is about to wait for a lock, or inside a long call of C, would run it much later or never, where the default action ends
it at once. So a thread hears the signal: CPython's own handler, in C, writes the number of each signal to the wake-up
file descriptor (`signal.set_wakeup_fd`), whatever the main thread does.

Only the main thread may set an action (`signal.signal`). But `faulthandler.unregister` gives back the action that
`faulthandler.register` found, on any thread: that is how the thread makes the default action end the process.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

# What the handler writes when another handler has called it: no number of a signal.
_ASKED: Final = b"\0"

# How long the main thread stops while the other thread sends: longer than a shutdown takes.
_PAUSE_SECONDS: Final = 6.0

_watched_pid = 0
_reading = _writing = -1
_must_go_on: Callable[[], bool] = bool
_masks_at_fork: Final[dict[int, set[int | signal.Signals]]] = {}


def watch_termination(end: Callable[[], object], must_go_on: Callable[[], bool], *, is_forked: bool) -> None:
    """Call *end* on SIGTERM, on a thread of its own, before the signal ends this process; once for each process.

    Nothing is changed where SIGTERM has another action than the default one, and away from the main thread.

    Args:
        end: Sends waiting spans and patches within a bound. A second SIGTERM ends the process at once.
        must_go_on: Whether *end* needs something, such as a lock, that the interrupted main thread holds; else that
            thread stops meanwhile.
        is_forked: The process has just been forked: the parent listens at the wake-up file descriptor.
    """
    global _watched_pid, _must_go_on  # noqa: PLW0603 # of this process
    if not hasattr(faulthandler, "register") or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) not in {signal.SIG_DFL, _on_sigterm}:
        return
    # A signal that comes while this is half done would be heard by nobody, or by the parent.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        if _watched_pid != os.getpid():
            _must_go_on = must_go_on
            _open_pipe()
            threading.Thread(target=_hear, args=(_reading, end), name="otel_metadata:termination", daemon=True).start()
            if not _watched_pid:  # nor in the process that this one was forked from
                faulthandler.register(signal.SIGTERM, _writing, chain=False)
                os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_after_fork_in_child)
            signal.signal(signal.SIGTERM, _on_sigterm)
            _watched_pid = os.getpid()
        _wake_up_with(_writing, is_forked=is_forked)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _open_pipe() -> None:
    """Open a pipe of this process, in place of the one that it inherited."""
    global _reading, _writing  # of this process
    inherited = _reading, _writing
    _reading, _writing = os.pipe()
    os.set_blocking(_writing, False)
    if inherited != (-1, -1):
        for descriptor in inherited:
            os.close(descriptor)


def _wake_up_with(descriptor: int, *, is_forked: bool) -> None:
    before = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
    if before not in {-1, descriptor} and not is_forked:
        # An event loop of the application's. The signal is heard when the main thread runs the handler.
        signal.set_wakeup_fd(before)


def _hear(reading: int, end: Callable[[], object]) -> None:
    waiting = select.poll()  # gevent's, where it has patched: a read would stop all its greenlets
    waiting.register(reading, select.POLLIN)
    while True:
        waiting.poll()
        numbers = os.read(reading, 512)
        if _ASKED in numbers:
            break
        # The application may have set a handler since.
        if signal.SIGTERM in numbers and signal.getsignal(signal.SIGTERM) is _on_sigterm:
            break
    faulthandler.unregister(signal.SIGTERM)  # from here on the action is the default one: a second SIGTERM ends at once
    try:
        end()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def _on_sigterm(_signum: int, _frame: FrameType | None) -> None:
    try:
        os.write(_writing, _ASKED)
    except BlockingIOError:  # it is full: the thread hears of it anyway
        pass
    if not _must_go_on():
        time.sleep(_PAUSE_SECONDS)  # the process ends meanwhile: the application was asked to stop


def _block() -> None:
    """Keep SIGTERM from a child until it has a pipe of its own. Through the inherited pipe it would end its parent."""
    _masks_at_fork[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _unblock() -> None:
    mask = _masks_at_fork.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    if _watched_pid != os.getpid():  # it was not watched anew, for whatever reason
        signal.set_wakeup_fd(-1)
        if signal.getsignal(signal.SIGTERM) is _on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _unblock()
    _masks_at_fork.clear()
