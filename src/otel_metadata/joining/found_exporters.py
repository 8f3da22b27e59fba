"""The exporters that the application has added to its tracer provider, found inside its span processors.

A processor may be any object that wraps other processors or an exporter. Only attributes are read, so nothing of the
application's is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, SynchronousMultiSpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from otel_metadata.joining.addresses import is_exporter, is_of_mlflow, is_processor
from otel_metadata.joining.providers import ReplaceableProcessor, held_by, real_provider
from otel_metadata.span_processor import MetadataSpanProcessor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_MAX_DEPTH: Final = 16
_TAIL_SAMPLING: Final = re.compile("tail_?sampl", re.IGNORECASE)
_MLFLOWS: Final = "mlflow.traceRequestId"
"""On a span that MLflow's processor has registered; its exporter drops the others."""


class FoundExporter(NamedTuple):
    """An exporter on the application's provider.

    Attributes:
        exporter: The exporter.
        processor: The processor that hands spans to it.
        holder: The object that has the exporter in an attribute; None where that attribute must not be replaced.
        name: The name of that attribute.
        takes_all: Whether the exporter alone decides about every sampled span that ends. Otherwise a filter may come
            before it.
        mark: Where it exports only spans with a certain attribute, the name of that attribute.
    """

    exporter: SpanExporter
    processor: Any
    holder: Any = None
    name: str = ""
    takes_all: bool = True
    mark: str | None = None


def processors_of(provider: TracerProvider) -> object:
    """Return the processors of a provider: another object after each addition; None where they cannot be read."""
    return getattr(_root_processor(provider), "_span_processors", None)


def exporters_on(provider: TracerProvider) -> list[FoundExporter]:
    """Return the exporters that get spans of *provider*, without those of an earlier pipeline of ours."""
    return list(_found_in(_root_processor(provider), is_direct=True, is_tail_sampled=False))


def _root_processor(provider: TracerProvider) -> object:
    return getattr(real_provider(provider), "_active_span_processor", None)


def _found_in(
    processor: object, *, is_direct: bool, is_tail_sampled: bool, depth: int = _MAX_DEPTH
) -> Iterator[FoundExporter]:
    """Yield the exporters inside *processor*.

    Args:
        processor: A span processor, or None.
        is_direct: Whether every span of the provider comes to it, not only those that an outer processor hands on.
        is_tail_sampled: Whether it is inside a processor that samples when a trace has ended.
        depth: How many levels to look into.
    """
    if isinstance(processor, ReplaceableProcessor) or not depth:
        return
    # What it hands over comes when the trace has ended, or never: it decides about every span (Logfire's).
    is_tail_sampled = is_tail_sampled or bool(_TAIL_SAMPLING.search(type(processor).__name__))
    if isinstance(processor, MetadataSpanProcessor):
        for outbox in processor.outboxes:
            destination = outbox.destination
            if destination.spans and destination.span_exporter is not None:
                yield FoundExporter(destination.span_exporter, processor)
        return
    held = held_by(processor)
    several = held.get("_span_processors")
    if isinstance(several, tuple):
        is_direct = is_direct and type(processor) in {SynchronousMultiSpanProcessor, ConcurrentMultiSpanProcessor}
        for one in several:
            yield from _found_in(one, is_direct=is_direct, is_tail_sampled=is_tail_sampled, depth=depth - 1)
        return
    seen: list[object] = []
    for value in held.values():
        for one in value if type(value) in {tuple, list} else (value,):  # type: ignore[attr-defined] # these two
            if is_processor(one):
                for found in _found_in(one, is_direct=False, is_tail_sampled=is_tail_sampled, depth=depth - 1):
                    seen.append(found.exporter)
                    yield found
    is_stock = getattr(type(processor), "on_end", None) in {BatchSpanProcessor.on_end, SimpleSpanProcessor.on_end}
    takes_all = is_direct and is_stock and "on_end" not in held
    # BatchSpanProcessor keeps its exporter in another object since SDK 1.34.
    for holder in (held.get("_batch_processor"), processor):
        for name, value in held_by(holder).items():
            if is_exporter(value) and not any(value is one for one in seen):
                seen.append(value)
                exporter = cast("SpanExporter", value)
                if is_of_mlflow(exporter):
                    # It returns no result of an export, so no destination can send by it.
                    yield FoundExporter(exporter, processor, takes_all=False, mark=_MLFLOWS)
                elif is_tail_sampled:
                    yield FoundExporter(exporter, processor)
                else:
                    yield FoundExporter(exporter, processor, holder, name, takes_all)
