"""An ended span that waits in an outbox, with the fields that were set on it live or joined to it since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, final

from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, Field, FieldName, Fields, merge
from otel_metadata.model.snapshot import Snapshot, value_of
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.model.unset import UNSET
from otel_metadata.model.weight import NO_LARGE, weigh_span
from otel_metadata.spool.frames import SpooledSpan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.model.outcome import DeliveryError
    from otel_metadata.model.span_ref import SpanKey
    from otel_metadata.model.unset import UnsetType
    from otel_metadata.spool.partition import Partition, Row

_CAPTURED: Final[tuple[FieldName, FieldName]] = (("span", "input", ""), ("span", "output", ""))


class EndedSpan(Protocol):
    """A span that has ended, as the live side hands it over: see `live.registry.LiveSpan`."""

    key: SpanKey
    fields: dict[FieldName, Field] | None
    captured: tuple[Snapshot | UnsetType, Snapshot | UnsetType] | None
    updates: int
    lost_in: tuple[object, ...]
    ended: ReadableSpan | None
    backend_ids: Mapping[str, str]

    @property
    def is_local_root(self) -> bool:
        """Whether it has no parent that a processor of ours has seen in this process."""
        ...

    def close(self) -> None:
        """Take no more fields."""
        ...


@final
@dataclass(slots=True, eq=False)
class QueuedSpan:
    """An ended span that waits, with the fields that were set on it live or joined to it since.

    Attributes:
        key: (trace id, span id).
        backend_ids: Ids that updates brought, for the fields that cannot leave with the span.
        span: The ended span.
        fields: Its sidecar, closed; without `captured` until somebody needs all of it.
        captured: Captured input and output, as text; decoded without the lock, most often on the worker.
        updates: How many update calls are in the sidecar.
        joined: Fields that came after the end.
        large: The weights of the large values in `joined`.
        joined_updates: How many update calls those are.
        rows: The rows of those updates in the spool.
        unspooled: How many of those are in no row.
        row: The row of the span itself; None when the span is not held, or not in the spool yet.
        is_local_root: Whether it has no parent that a processor of ours has seen in this process.
        due_ns: When it leaves, at the latest; monotonic.
        size: Estimated bytes; 0 until weighed.
        is_elsewhere: Whether the application's exporter sends it; updates that came after its end leave as a patch.
        is_shut: Whether nothing is joined to it any more: it was sent once, the application's exporter sends it, or a
            patch of it waits that must not be overtaken.
        attempts: How often its export failed.
        failed_ns: When it failed first.
        error: The error of the last export; None where it gave none.
    """

    key: SpanKey
    span: ReadableSpan
    fields: Fields
    updates: int
    is_local_root: bool
    due_ns: int
    backend_ids: Mapping[str, str]
    captured: tuple[Snapshot | UnsetType, Snapshot | UnsetType] | None = None
    joined: dict[FieldName, Field] | None = None
    large: Mapping[FieldName, int] = field(default_factory=lambda: NO_LARGE)
    joined_updates: int = 0
    rows: list[Row] | None = None
    unspooled: int = 0
    row: Row | None = None
    size: int = 0
    is_elsewhere: bool = False
    is_shut: bool = False
    attempts: int = 0
    failed_ns: int = 0
    error: DeliveryError | None = None

    @classmethod
    def of_row(cls, row: Row, content: SpooledSpan, due_ns: int) -> QueuedSpan:
        """Return the span that a row of the spool is."""
        span = content.span
        key = (span.context.trace_id, span.context.span_id)
        item = cls(key, span, content.fields, content.updates, content.is_local_root, due_ns, content.backend_ids)
        item.row = row
        return item

    def entry(self, span: ReadableSpan, destination: str, wall_ns: int) -> SpooledSpan:
        """Return the row of the span itself for the spool; fields that were joined have rows of their own.

        Args:
            span: Its span, without credentials.
            destination: Whose it is.
            wall_ns: Now, for a span that does not say when it ended.
        """
        accepted_ns = span.end_time or wall_ns
        return SpooledSpan(
            0,
            destination,
            span,
            self.live_fields(),
            self.updates,
            self.is_local_root,
            accepted_ns,
            self.backend_ids,
        )

    @property
    def window_ns(self) -> tuple[int, int]:
        """Its start and end."""
        return self.span.start_time or 0, self.span.end_time or 0

    @property
    def ref(self) -> SpanRef:
        """The span ref, for fields that follow as a patch."""
        return SpanRef(*self.key, backend_ids=self.backend_ids)

    def live_fields(self) -> Fields:
        """Return the sidecar with the captured values in it: they are plain values of the span, as of its end."""
        if self.captured is not None:
            fields = dict(self.fields)
            version = (self.span.end_time or 0, PLAIN_ATTRIBUTE_WRITER)
            for name, taken in zip(_CAPTURED, self.captured, strict=True):
                if taken is not UNSET:
                    fields.setdefault(name, (value_of(taken), version))
            self.fields = fields
            self.captured = None
        return self.fields

    def all_fields(self) -> Fields:
        """Return sidecar and joined fields, merged."""
        fields = self.live_fields()
        return merge(fields, self.joined) if self.joined else fields

    def weight(self) -> int:
        """Return the estimated bytes of the span and its sidecar."""
        captured = [
            taken if isinstance(taken, str) else taken[0] for taken in self.captured or () if taken is not UNSET
        ]
        return weigh_span(self.span, *captured, fields=self.fields)

    def updates_kept_in(self, partition: Partition) -> int:
        """Return how many of its updates are in rows that another process will find."""
        live = self.updates if self.row is not None and partition.keeps((self.row,)) else 0
        return live + (self.joined_updates - self.unspooled if self.rows and partition.keeps(self.rows) else 0)

    def all_rows(self) -> list[Row]:
        """Return its rows in the spool."""
        rows = list(self.rows or ())
        if self.row is not None:
            rows.append(self.row)
        return rows
