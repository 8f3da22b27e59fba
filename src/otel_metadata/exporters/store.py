"""Exporters that write spans and patches into a span store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_metadata.arguments import checked
from otel_metadata.errors import StoreAccessError, StoreError
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Pause, Retry
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.model.patch import Patch
    from otel_metadata.seams import Convergence, SpanStore


__all__ = ["StorePatchExporter", "StoreSpanExporter"]


@final
class StoreSpanExporter(SpanExporter):
    """Writes ended spans, with their exact fields, into a store."""

    @checked
    def __init__(self, store: SpanStore) -> None:
        """Write into *store*. The patch exporter of the same destination closes it."""
        self.store = store

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write all of them, or none."""
        try:
            self.store.write(spans)
        except StoreError as error:
            REPORTER.tell("store_write", f"{error}")
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """The patch exporter closes the store."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # nothing is buffered
        """Nothing is buffered."""
        return True


@final
class StorePatchExporter:
    """Merges patches into a store: versioned, so any order and any repetition lead to the same state.

    A patch may come before its span: its fields wait there.
    """

    max_batch: int = 1_000
    grace_millis: int = 0
    reports_missing: bool = False
    convergence: Convergence = "versioned"

    @checked
    def __init__(self, store: SpanStore, name: str = "store") -> None:
        """Write into *store*, and close it at shutdown."""
        self.name = name
        self.store = store

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        """Merge all of them, or none."""
        try:
            self.store.patch(patches, timeout_millis=timeout_millis)
        except StoreAccessError as error:
            return [Pause(DeliveryError("unauthorized", f"{error}"))] * len(patches)
        except StoreError as error:
            return [Retry(DeliveryError("connection_failure", f"{error}"))] * len(patches)
        return [Delivered()] * len(patches)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # nothing is buffered
        """Nothing is buffered."""
        return True

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """Close the store; a write that waits for another process is given up."""
        self.store.close()
