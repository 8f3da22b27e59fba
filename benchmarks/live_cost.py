"""What our calls cost on the application's thread, as ratios to one bare span in the same run.

Thread CPU time, garbage collection as it is; each figure is the best of several rounds, interleaved, because a shared
machine only ever adds time. One span is `with tracer.start_as_current_span(...)` on the same provider, with the same
processor; the last column divides by one with the stock batch processor instead. Run: `python benchmarks/live_cost.py`.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import live_settings as settings

ROUNDS = 15
CALLS = 2_000

NESTED = {"user": {"id": 7, "name": "Ada"}, "tags": ["a", "b"], "limit": 3}
"""A small nested dict, in and out."""

MESSAGES = [
    {"role": role, "content": "A sentence of a conversation, as long as people and models write them. " * 7}
    for role in ("user", "assistant") * 10
]
"""10 KB of chat messages, in and out."""


class Discard(SpanExporter):
    """Acknowledges everything."""

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def per_call(run: Callable[[int], None]) -> float:
    """Return the microseconds of thread CPU time of one call."""
    start = time.thread_time_ns()
    run(CALLS)
    return (time.thread_time_ns() - start) / CALLS / 1000


def main() -> None:
    provider = TracerProvider()
    processor = om.MetadataSpanProcessor(om.Destination("discard", Discard(), InMemoryPatchExporter()))
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")
    settings.use(settings.LiveSettings(tracer=tracer))
    stock = TracerProvider()
    stock.add_span_processor(BatchSpanProcessor(Discard()))
    stock_tracer = stock.get_tracer("benchmark")

    def bare(n: int) -> None:
        for _ in range(n):
            with tracer.start_as_current_span("work"):
                pass

    def bare_stock(n: int) -> None:
        for _ in range(n):
            with stock_tracer.start_as_current_span("work"):
                pass

    @om.observe(capture_input=False, capture_output=False)
    def silent(question: str, limit: int = 3) -> str:
        return question

    @om.observe
    def captured(question: str, limit: int = 3) -> str:
        return question

    @om.observe
    def nested(given: object) -> object:
        return given

    @om.observe(capture_input=False, capture_output=False)
    async def silent_async(question: str, limit: int = 3) -> str:
        return question

    @om.observe
    async def captured_async(question: str, limit: int = 3) -> str:
        return question

    def call(func: Callable[..., object], given: object = "what is it?") -> Callable[[int], None]:
        def run(n: int) -> None:
            for _ in range(n):
                func(given)

        return run

    def call_async(func: Callable[..., object]) -> Callable[[int], None]:
        async def loop(n: int) -> None:
            for _ in range(n):
                await func("what is it?")  # type: ignore[misc]

        return lambda n: asyncio.run(loop(n))

    async def plain_async() -> None:
        return None

    def bare_async(n: int) -> None:
        async def loop() -> None:
            for _ in range(n):
                with tracer.start_as_current_span("work"):
                    await plain_async()

        asyncio.run(loop())

    def update(n: int) -> None:
        with tracer.start_as_current_span("work"):
            for index in range(n):
                om.update_current_span(metadata={"step": index, "status": "started", "ok": True})

    def ends(of: object) -> Callable[[int], float]:
        def run(n: int) -> float:
            spans = [of.start_span("work") for _ in range(n)]  # type: ignore[attr-defined]
            start = time.thread_time_ns()
            for span in spans:
                span.end()
            return (time.thread_time_ns() - start) / n / 1000

        return run

    runs: dict[str, Callable[[int], None]] = {
        "bare span": bare,
        "bare span, stock processor": bare_stock,
        "bare span, async": bare_async,
        "observe, no capture": call(silent),
        "observe, capture": call(captured),
        "observe, capture, nested dict": call(nested, NESTED),
        "observe, capture, 10 KB messages": call(nested, MESSAGES),
        "observe, no capture, async": call_async(silent_async),
        "observe, capture, async": call_async(captured_async),
        "update_current_span, 3 keys": update,
    }
    best = dict.fromkeys(runs, float("inf"))
    bursts = (1_000, 2_000)
    ends_of = {"ours": tracer, "stock": stock_tracer}
    best_end = {(name, burst): float("inf") for name in ends_of for burst in bursts}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            gc.collect()
            best[name] = min(best[name], per_call(run))
            processor.force_flush()
            stock.force_flush()
        for (name, burst), before in best_end.items():
            gc.collect()
            best_end[name, burst] = min(before, ends(ends_of[name])(burst))
            processor.force_flush()
            stock.force_flush()

    span, async_span = best["bare span"], best["bare span, async"]
    divisors = {
        "observe, no capture": (span, 1.0),
        "observe, capture": (span, 1.5),
        "observe, capture, nested dict": (span, 1.8),
        "observe, capture, 10 KB messages": (span, 2.5),
        "observe, no capture, async": (async_span, 1.0),
        "observe, capture, async": (async_span, 1.5),
        "update_current_span, 3 keys": (span, 0.30),
    }
    print("Thread CPU time; the ratio is to one bare span, of `end` to the stock batch processor's.\n")
    print(f"{'what':36} {'us':>7} {'ratio':>6} {'stock':>6}  aim")
    for name, cost in best.items():
        report(name, cost, *divisors.get(name, (span, None)), best["bare span, stock processor"])
    for burst in bursts:
        ends_stock = best_end["stock", burst]
        report(f"end, our outbox, burst of {burst}", best_end["ours", burst], ends_stock, 1.0, ends_stock)


def report(name: str, cost: float, divisor: float, aim: float | None, stock: float) -> None:
    """Print one row."""
    ratio = cost / divisor
    verdict = "" if aim is None else f"{aim:.2f}{'' if round(ratio, 2) <= aim else '  not reached in this run'}"
    print(f"{name:36} {cost:7.2f} {ratio:6.2f} {cost / stock:6.2f}  {verdict}")


if __name__ == "__main__":
    main()
