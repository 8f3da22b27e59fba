"""One page of stored spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final, overload

if TYPE_CHECKING:
    from otel_metadata.model.record import SpanRecord

__all__ = ["Page"]


@final
@dataclass(frozen=True, slots=True)
class Page(Sequence["SpanRecord"]):
    """Spans, newest start first; a sequence of them.

    Attributes:
        spans: At most as many as were asked for.
        next_cursor: What to give to `list(cursor=)` for the next page; None when this is the last one.
    """

    spans: tuple[SpanRecord, ...]
    next_cursor: str | None = None

    @overload
    def __getitem__(self, index: int) -> SpanRecord: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[SpanRecord]: ...

    def __getitem__(self, index: int | slice) -> SpanRecord | Sequence[SpanRecord]:
        """Return one span, or several."""
        return self.spans[index]

    def __len__(self) -> int:
        """How many spans are here."""
        return len(self.spans)

    def __iter__(self) -> Iterator[SpanRecord]:
        """Yield each span."""
        return iter(self.spans)
