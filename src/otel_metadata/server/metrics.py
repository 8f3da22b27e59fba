"""What the server counts, as the text that Prometheus reads.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from otel_metadata.seams import Clock

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
"""Upper bounds of durations in seconds."""


@final
class Metrics:
    """Counts of one server. Only the event loop changes them.

    Attributes:
        spans_stored: Spans that were acknowledged.
        updates_stored: Updates that were acknowledged.
        updates_lost: Updates that were answered at once, and could not be stored afterwards.
        spans_refused: Spans that an OTLP answer refused beside others that it took.
        log_records_refused: The same of log records.
        started_ns: When the server was made, in wall nanoseconds.
    """

    def __init__(self, clock: Clock) -> None:
        """Start with nothing counted."""
        self.spans_stored = 0
        self.updates_stored = 0
        self.updates_lost = 0
        self.spans_refused = 0
        self.log_records_refused = 0
        self.started_ns = clock.wall_ns()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(_BOUNDS) + 1))
        self._seconds: Counter[str] = Counter()

    def add_request(self, operation: str, status: int, nanoseconds: int) -> None:
        """Count a request that was answered.

        Args:
            operation: The name of the operation, "" for a path that has none.
            status: The HTTP status.
            nanoseconds: How long it took.
        """
        seconds = nanoseconds / 1e9
        self._requests[operation, status] += 1
        self._seconds[operation] += seconds  # type: ignore[assignment] # a Counter holds any number
        self._buckets[operation][sum(seconds > bound for bound in _BOUNDS)] += 1

    def text(self) -> str:
        """Return everything that was counted."""
        return "\n".join([*self._lines(), ""])

    def _lines(self) -> Iterator[str]:
        yield from _metric(
            "requests_total",
            "counter",
            "Requests that were answered.",
            ((f'{{operation="{name}",status="{status}"}}', n) for (name, status), n in sorted(self._requests.items())),
        )
        yield from _metric("request_duration_seconds", "histogram", "How long requests took.", self._durations())
        for name, text, count in (
            ("spans_stored_total", "Spans that are on disk.", self.spans_stored),
            ("updates_stored_total", "Updates of spans and traces that are on disk.", self.updates_stored),
            (
                "updates_lost_total",
                "Updates that were answered at once and could not be stored afterwards.",
                self.updates_lost,
            ),
            ("spans_refused_total", "Spans refused in an answer of partial success.", self.spans_refused),
            (
                "log_records_refused_total",
                "Log records refused in an answer of partial success.",
                self.log_records_refused,
            ),
        ):
            yield from _metric(name, "counter", text, [("", count)])
        yield from _metric(
            "start_time_seconds", "gauge", "When the server started, since 1970.", [("", self.started_ns / 1e9)]
        )

    def _durations(self) -> Iterator[tuple[str, float]]:
        for name, counts in sorted(self._buckets.items()):
            bounds = [*map(str, _BOUNDS), "+Inf"]
            for bound, count in zip(bounds, accumulate(counts), strict=True):
                yield f'_bucket{{operation="{name}",le="{bound}"}}', count
            yield f'_sum{{operation="{name}"}}', self._seconds[name]
            yield f'_count{{operation="{name}"}}', sum(counts)


def _metric(name: str, kind: str, text: str, values: Iterable[tuple[str, float]]) -> Iterator[str]:
    full = f"otel_metadata_server_{name}"
    yield f"# HELP {full} {text}"
    yield f"# TYPE {full} {kind}"
    for labels, value in values:
        yield f"{full}{labels} {value}"
