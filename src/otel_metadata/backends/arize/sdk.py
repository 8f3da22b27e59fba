"""Calls to Arize's SDK: silent, and bounded in time.

By itself, the SDK (8.37.1 to 8.61.0) waits for an answer without limit, logs to standard output, replaces the handlers
of its logger on import, and takes a second to import. `backends.arize.patches` decides what is sent and what an answer
means.
"""

from __future__ import annotations

import contextvars
import importlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent import futures
from queue import SimpleQueue
from typing import Any, Final, Protocol, TypeAlias, TypeVar, final, runtime_checkable

from otel_metadata.model.outcome import DeliveryError, Pause
from otel_metadata.reporting import after_fork_in_child
from otel_metadata.seams import bounded_millis

EXTRA: Final = "otel-metadata[arize]"

T = TypeVar("T")

_Job: TypeAlias = "tuple[futures.Future[Any], Callable[[], Any]] | None"

MAX_LEFT: Final = 4
"""Abandoned calls that may still run; at this number nothing is sent until one has ended."""

_LOG_ENABLE: Final = "ARIZE_LOG_ENABLE"
_SILENT: Final = logging.CRITICAL + 10


@runtime_checkable
class ArizeClient(Protocol):
    """The part of `arize.ArizeClient(...).spans` that we use. `dataframe` is a pandas DataFrame; a reply is a dict."""

    def update_metadata(self, *, space_id: str, project_name: str, dataframe: Any) -> Any:  # noqa: ANN401 # pandas is not loaded
        """Merge the column `patch_document` into `attributes.metadata` of each span."""

    def update_evaluations(self, *, space_id: str, project_name: str, dataframe: Any) -> Any:  # noqa: ANN401 # as above
        """Set the columns `eval.<name>.…` and `trace_eval.<name>.…` of each span."""

    def update_annotations(self, *, space_id: str, project_name: str, dataframe: Any) -> Any:  # noqa: ANN401 # as above
        """Set the columns `annotation.<name>.…` of each span."""


class NoClientError(Exception):
    """There is no client.

    Attributes:
        outcome: A pause, whose message says what to do.
    """

    def __init__(self, message: str) -> None:
        """Keep the facts."""
        self.outcome = Pause(DeliveryError("backend_rejection", message))
        super().__init__(message)


def connect(api_key: str, region: str | None = None) -> Callable[[], ArizeClient]:
    """Return a function that makes the SDK's client; the SDK is imported when it is called.

    Args:
        api_key: The key. The function holds it, and shows it nowhere.
        region: Arize's name of a region; None leaves it to the SDK, which reads `ARIZE_REGION`, `ARIZE_FLIGHT_HOST`, …
    """

    def make() -> ArizeClient:
        try:
            sdk = _loaded()
            kind, regions = sdk.ArizeClient, sdk.Region
        except (ImportError, AttributeError) as error:
            raise NoClientError(f"the SDK cannot be used ({type(error).__name__}); install {EXTRA}") from None
        try:
            spans = kind(api_key=api_key, **({} if region is None else {"region": regions(region)})).spans
        except Exception as error:  # noqa: BLE001 # its settings come from a dozen variables
            raise NoClientError(
                f"the SDK refuses its settings ({type(error).__name__}); check the ARIZE_ variables"
            ) from None
        if not isinstance(spans, ArizeClient):
            raise NoClientError(f"the SDK lacks a call; install {EXTRA}")
        return spans

    return make


def _loaded() -> Any:  # noqa: ANN401 # an extra; its types need not be there
    """Import the SDK, which must neither print nor replace the handlers that the application gave its logger."""
    is_ours = _LOG_ENABLE not in os.environ
    if is_ours:
        os.environ[_LOG_ENABLE] = "false"
    try:
        return importlib.import_module("arize")
    finally:
        if is_ours:
            os.environ.pop(_LOG_ENABLE, None)


@final
class Calls:
    """Runs one call at a time on a thread of its own, and abandons a call that takes too long.

    The thread is started in advance, also in a forked child: Python starts no thread while the interpreter exits, which
    is when many late patches are sent. An abandoned call keeps its thread until it ends.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._is_closed = False
        self._begin()
        after_fork_in_child(self._begin)

    def _begin(self) -> None:
        self._left: list[threading.Thread] = []
        self._thread: threading.Thread | None = None
        if not self._is_closed:
            self._start()

    def _start(self) -> None:
        self._left = [thread for thread in self._left if thread.is_alive()]
        if len(self._left) >= MAX_LEFT:
            return
        jobs: SimpleQueue[_Job] = SimpleQueue()
        thread = threading.Thread(target=_serve, args=(jobs,), name="otel_metadata:arize-sdk", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter exits
            return
        self._jobs, self._thread = jobs, thread

    def run(self, call: Callable[[], T], timeout_millis: int) -> T:
        """Return what *call* returns.

        Args:
            call: It runs with the caller's context, so that suppressed instrumentation stays suppressed.
            timeout_millis: How long to wait for it.

        Raises:
            futures.TimeoutError: The call is abandoned, and goes on; or there is no thread for it.
            Exception: Whatever *call* raised.
        """
        if self._thread is None and not self._is_closed:
            self._start()
        if self._thread is None:
            raise futures.TimeoutError
        future: futures.Future[T] = futures.Future()
        context = contextvars.copy_context()
        self._jobs.put((future, lambda: context.run(call)))
        if not futures.wait([future], timeout_millis / 1_000).done:
            self._left.append(self._thread)
            self._stop()
            self._start()
            raise futures.TimeoutError
        return future.result()

    def close(self, timeout_millis: int) -> None:
        """End the thread."""
        self._is_closed = True
        thread = self._thread
        self._stop()
        if thread is not None:
            thread.join(bounded_millis(timeout_millis, 5_000) / 1_000)

    def _stop(self) -> None:
        if self._thread is not None:
            self._jobs.put(None)
        self._thread = None


def _serve(jobs: SimpleQueue[_Job]) -> None:
    while (job := jobs.get()) is not None:
        future, call = job
        try:
            with _QUIET:
                result = call()
        except BaseException as error:  # noqa: BLE001 # it belongs to the caller, who waits for it
            future.set_exception(error)
        else:
            future.set_result(result)
            del result
        # Drop the references: without this, the values that were sent would live until the next call.
        del job, future, call


@final
class _Quiet:
    """Keeps the SDK's loggers silent while a call of ours runs: their lines hold ids and text of the server.

    It raises the level of the parent of all these loggers, which children made in the meantime obey too. For that time,
    calls of the application's own to the SDK log nothing either.
    """

    def __init__(self) -> None:
        """Silence nothing yet."""
        self._logger = logging.getLogger("arize")
        self._depth = 0
        self._before = logging.NOTSET
        self._begin()
        after_fork_in_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        if self._depth:  # only in a forked child: the parent's calls do not go on there
            self._depth = 0
            self._logger.setLevel(self._before)

    def __enter__(self) -> None:
        with self._lock:
            if not self._depth:
                self._before = self._logger.level
                self._logger.setLevel(_SILENT)
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth = max(self._depth - 1, 0)
            if not self._depth and self._logger.level == _SILENT:
                self._logger.setLevel(self._before)


_QUIET: Final = _Quiet()
