"""The end of worker processes that run none of Python's exit handlers.

- A child of multiprocessing (`Process`, `Pool`, `ProcessPoolExecutor`, loky) runs the finalizers of
  `multiprocessing.util` and then leaves by `os._exit`. A finalizer is used.
- The same child, when it is terminated (every `with Pool()` does that to its workers, and every parent to its daemons),
  ends by the default action of SIGTERM. See `termination`.
- A child of Celery's prefork pool leaves by `os._exit` after the signal `worker_process_shutdown`. That is used.

A forked child of multiprocessing first clears the finalizers that it has inherited and then calls the functions that
were given to `register_after_fork`; therefore the finalizer is made there. A spawned child does neither: there it is
made as soon as the child has a span processor. Neither multiprocessing nor Celery is imported here: a process that has
not loaded them has no such workers.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from otel_metadata.delivery.termination import watch_termination
from otel_metadata.reporting import REPORTER

# After the finalizers of the application, and of multiprocessing itself (the lowest of those is -100).
_EXIT_PRIORITY: Final = -1_000

_end: Callable[[], object] = bool  # what `call_at_process_end` was given
_must_go_on: Callable[[], bool] = bool
_is_registered = False
_watched_pid = 0


def call_at_process_end(end: Callable[[], None], must_go_on: Callable[[], bool]) -> None:
    """Call *end* when a worker process ends that runs no exit handlers; in this process or in one forked from it.

    Args:
        end: Sends waiting spans and patches within a bound, and does not raise.
        must_go_on: Whether the calling thread has what *end* needs on another thread.
    """
    global _end, _must_go_on  # set once
    _end, _must_go_on = end, must_go_on
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(watch_process_end, is_forked=True))


def watch_process_end(*, is_forked: bool = False) -> None:
    """Attach to the packages that are loaded by now; a second call changes nothing.

    Args:
        is_forked: The process has just been forked.
    """
    try:
        _watch_multiprocessing(is_forked=is_forked)
        _watch_celery()
    except Exception as error:  # noqa: BLE001 # boundary: a fork, and configure(), go on
        REPORTER.failed("watch_process_end", error)


def _watch_multiprocessing(*, is_forked: bool) -> None:
    global _is_registered  # noqa: PLW0603 # of this process and of those forked from it
    util: Any = sys.modules.get("multiprocessing.util")
    process: Any = sys.modules.get("multiprocessing.process")
    if util is None or process is None:
        return
    if not _is_registered:
        _is_registered = True
        # The object is one that lives as long as the process: the registry holds it weakly.
        util.register_after_fork(_in_child, lambda in_child: in_child(is_forked=True))
    # A spawned child has the second while it imports the program's main module.
    is_child = process.parent_process() is not None or hasattr(process.current_process(), "_inheriting")
    if is_child and _watched_pid != os.getpid():
        _in_child(is_forked=is_forked)


def _in_child(*, is_forked: bool) -> None:
    """Attach to the end of this process, which is a child of multiprocessing."""
    global _watched_pid  # noqa: PLW0603 # of this process
    _watched_pid = os.getpid()
    util: Any = sys.modules["multiprocessing.util"]
    util.Finalize(None, _at_exit, exitpriority=_EXIT_PRIORITY)
    watch_termination(_end, _must_go_on, is_forked=is_forked)


def _at_exit() -> None:
    """Send waiting spans and patches, after the threads that the process still waits for have ended."""
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    waited_for = [thread for thread in others if not thread.daemon]
    if not waited_for:
        _end()
        return

    def call_after_them() -> None:
        for thread in waited_for:
            thread.join()
        _end()

    # The process joins this thread like those: it ends once all of them have.
    threading.Thread(target=call_after_them, name="otel_metadata:end").start()


def _watch_celery() -> None:
    signals: Any = sys.modules.get("celery.signals")
    if signals is not None:
        # Sent in the child as its last step. The identifier makes a second connection change nothing.
        signals.worker_process_shutdown.connect(_at_celery_end, weak=False, dispatch_uid="otel_metadata")


def _at_celery_end(**_arguments: object) -> None:
    _end()
