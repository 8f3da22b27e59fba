"""Retention in the background: deletes the oldest spans while the server runs, in steps that let others write."""

from __future__ import annotations

import datetime as dt
import threading
from typing import TYPE_CHECKING, Final, final

from otel_metadata.errors import StoreError
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from otel_metadata.seams import Clock, SpanStore

_PAUSE_NS: Final = 60_000_000_000
"""The shortest time between two passes."""

_SHARE: Final = 20
"""A pass is followed by a pause of so many times its own length, so that it takes at most a twentieth of the time."""


@final
class BackgroundRetention:
    """Keeps a store small, on a thread of its own."""

    def __init__(
        self, store: SpanStore, clock: Clock, *, older_than: dt.timedelta | None, max_bytes: int | None
    ) -> None:
        """Do nothing before `start`.

        Args:
            store: Whoever opened it closes it, after `stop`.
            clock: Time.
            older_than: Delete spans that started longer ago; None for any age.
            max_bytes: Delete the oldest spans until so much is stored; None for any size.
        """
        self._store = store
        self._clock = clock
        self._age_ns = None if older_than is None else older_than // dt.timedelta(microseconds=1) * 1_000
        self._max_bytes = max_bytes
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel-metadata-background-retention", daemon=True)

    def start(self) -> None:
        """Begin with the first pass."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no other pass. One that runs ends when the store is closed; what it has deleted stays deleted."""
        self._is_stopping.set()

    def _run(self) -> None:
        pause_ns = 0
        while not self._clock.wait(self._is_stopping, pause_ns):
            begun_ns = self._clock.monotonic_ns()
            try:
                before_ns = None if self._age_ns is None else self._clock.wall_ns() - self._age_ns
                self._store.retain(before_ns, self._max_bytes)
            except StoreError as error:
                if not self._is_stopping.is_set():
                    REPORTER.tell("server_background_retention", f"{error}")
            except Exception as error:  # noqa: BLE001 # the boundary: the next pass tries again
                REPORTER.failed("server:background_retention", error)
            pause_ns = max(_PAUSE_NS, _SHARE * (self._clock.monotonic_ns() - begun_ns))
