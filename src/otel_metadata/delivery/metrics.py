"""The balance as OpenTelemetry metrics, for whoever has a meter provider; without one they cost nothing.

Names follow the SDK's own (`otel.sdk.processor.span.processed` with `error.type`). Every instrument has the attribute
`otel_metadata.destination`.

| instrument | kind | unit | counts |
|---|---|---|---|
| `otel_metadata.patch.accepted` | counter | `{update}` | updates taken, those adopted from the spool included |
| `otel_metadata.patch.processed` | counter | `{update}` | updates settled; lost ones with `error.type`, the reason |
| `otel_metadata.patch.retried` | counter | `{patch}` | patches sent again |
| `otel_metadata.patch.waiting` | up-down counter | `{update}` | updates whose end is open |
| `otel_metadata.patch.waiting.size` | up-down counter | `By` | updates and spans that wait in memory |
| `otel_metadata.patch.waiting.age` | gauge | `s` | age of the oldest patch that waits in memory |
| `otel_metadata.spool.size` | up-down counter | `By` | the spool file |
| `otel_metadata.span.processed` | counter | `{span}` | ended spans: exported, or with `error.type` failed, evicted |
| `otel_metadata.span.retried` | counter | `{span}` | tries of an export beyond the first |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from otel_metadata._version import __version__

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions

    from otel_metadata.delivery.stats import DestinationStats, PipelineStats

METER_NAME: Final = "otel_metadata"

Counts: TypeAlias = "Callable[[DestinationStats], Iterable[tuple[float, dict[str, str]]]]"

_is_observed = False


def observe(stats: Callable[[], PipelineStats]) -> None:
    """Register the instruments with the global meter provider, once in a process; *stats* is asked at each collection.

    OpenTelemetry's API stands in until the application sets a provider, so the order of the two does not matter.
    """
    global _is_observed  # noqa: PLW0603 # OpenTelemetry has no way to take an instrument back
    if _is_observed:
        return
    _is_observed = True
    meter = metrics.get_meter(METER_NAME, __version__)

    def reading(counts: Counts) -> list[Callable[[CallbackOptions], Iterable[Observation]]]:
        def read(options: CallbackOptions) -> Iterator[Observation]:  # OpenTelemetry passes it
            for name, destination in stats().destinations.items():
                for value, attributes in counts(destination):
                    yield Observation(value, {"otel_metadata.destination": name, **attributes})

        return [read]

    counter, level = meter.create_observable_counter, meter.create_observable_up_down_counter
    counter("otel_metadata.patch.accepted", reading(lambda one: [(one.accepted + one.adopted, {})]), "{update}")
    counter("otel_metadata.patch.processed", reading(_processed), "{update}")
    counter("otel_metadata.patch.retried", reading(lambda one: [(one.retried, {})]), "{patch}")
    level("otel_metadata.patch.waiting", reading(lambda one: [(one.waiting, {})]), "{update}")
    level("otel_metadata.patch.waiting.size", reading(lambda one: [(one.buffered_bytes, {})]), "By")
    meter.create_observable_gauge(
        "otel_metadata.patch.waiting.age", reading(lambda one: [(one.oldest_millis / 1000, {})]), "s"
    )
    level("otel_metadata.spool.size", reading(lambda one: [(one.spool_bytes, {})]), "By")
    counter("otel_metadata.span.processed", reading(_spans), "{span}")
    counter("otel_metadata.span.retried", reading(lambda one: [(one.spans_retried, {})]), "{span}")


def _processed(stats: DestinationStats) -> Iterator[tuple[float, dict[str, str]]]:
    yield stats.delivered, {}
    for reason, updates in stats.lost.items():
        yield updates, {"error.type": reason}


def _spans(stats: DestinationStats) -> Iterator[tuple[float, dict[str, str]]]:
    yield stats.spans_exported, {}
    yield stats.spans_failed, {"error.type": "target_not_exported"}
    yield stats.spans_evicted, {"error.type": "buffer_full"}
