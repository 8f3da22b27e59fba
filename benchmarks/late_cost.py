"""What a late update costs on the application's thread, into memory and into the spool, as ratios to one bare span.

Thread CPU time, best of several interleaved rounds, as in `live_cost.py`; another span each time, so nothing coalesces.
Run: `python benchmarks/late_cost.py`.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.spool.spool import Spool, SpoolSettings

ROUNDS = 15
CALLS = 2_000
ONE: dict[str, object] = {"thumbs": "up"}
THREE: dict[str, object] = {"thumbs": "up", "score": 0.5, "reviewed": True}


class Discard(SpanExporter):
    """Acknowledges everything."""

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def per_call(run: Callable[[], None]) -> float:
    """Return the microseconds of thread CPU time of one call."""
    gc.collect()
    start = time.thread_time_ns()
    run()
    return (time.thread_time_ns() - start) / CALLS / 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        best = measure(folder)
    span = best["bare span"]
    aims = {"late update into memory": 0.10, "late update into the spool": 1.5}
    print("Thread CPU time; the ratio is to one bare span.\n")
    print(f"{'what':40} {'us':>7} {'ratio':>6}  aim")
    for name, cost in best.items():
        aim = aims.get(name)
        said = "" if aim is None else f"{aim:.2f}{'' if round(cost / span, 2) <= aim else '  not reached in this run'}"
        print(f"{name:40} {cost:7.2f} {cost / span:6.2f}  {said}")


def measure(folder: str) -> dict[str, float]:
    """Return the best cost of each."""
    names = ["bare span", "late update into memory", "the same, 3 keys", "late update into the spool", "spool, 3 keys"]
    best = dict.fromkeys(names, float("inf"))
    numbers = iter(range(1, 1 << 62))
    for number in range(ROUNDS):
        spool = Spool(SpoolSettings(str(Path(folder) / str(number) / "spool.db")))
        for spooled, (span, one, three) in ((None, names[:3]), (spool, ["", *names[3:]])):
            # Nothing leaves on its own meanwhile: what is measured is the application's thread.
            processor = om.MetadataSpanProcessor(
                om.Destination("discard", Discard(), InMemoryPatchExporter()),
                settings=OutboxSettings(schedule_delay_millis=3_600_000),
                spool=spooled,
            )
            provider = TracerProvider(shutdown_on_exit=False)
            provider.add_span_processor(processor)
            tracer = provider.get_tracer("benchmark")
            if span:
                best[span] = min(best[span], per_call(lambda tracer=tracer: bare(tracer)))
            for name, metadata in ((one, ONE), (three, THREE)):
                refs = [om.SpanRef(1 << 90, next(numbers)) for _ in range(CALLS)]
                om.update_span(refs[0], metadata=THREE)
                best[name] = min(best[name], per_call(lambda refs=refs, metadata=metadata: late(refs, metadata)))
            processor.force_flush()
            processor.shutdown()
    return best


def bare(tracer: Tracer) -> None:
    for _ in range(CALLS):
        with tracer.start_as_current_span("work"):
            pass


def late(refs: list[om.SpanRef], metadata: dict[str, object]) -> None:
    for ref in refs:
        om.update_span(ref, metadata=metadata)


if __name__ == "__main__":
    main()
