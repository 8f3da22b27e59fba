"""What a call over many spans answers: how many were named, how many were changed, and why the others were not."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final, Literal, TypedDict, final, overload

from otel_metadata.model.outcome import DeliveryError

__all__ = ["MAX_NOTES", "SpanError", "UpdateReport", "span_error", "tell"]

_LOGGER: Final = logging.getLogger("otel_metadata")

_TOLD_ERRORS: Final = 10

MAX_NOTES: Final = 100
"""Notes in one report: a frame has thousands of rows, and they tell the same of each."""


class SpanError(TypedDict):
    """Why one row was not applied.

    Attributes:
        span_id: As the row has it; "" when it has none.
        error_type: See `model.outcome.ErrorType`.
        error_message: A sentence that begins with the type in brackets and names the row, and the column where it is
            one. Never a metadata value.
    """

    span_id: str
    error_type: str
    error_message: str


def span_error(span_id: str, error: DeliveryError) -> SpanError:
    """Return the entry of a report for *error*."""
    return {"span_id": span_id, "error_type": error.type, "error_message": f"[{error.type}] {error.message}"}


@final
class UpdateReport(dict[str, Any]):
    """The answer of a call over many spans, by key and by attribute.

    A dict of four keys, all always there, because programs written for Arize take it for one and print it as JSON. It
    is not changed after it was returned. `spans_processed == spans_updated + spans_failed`; the unit is the row, so a
    span that two rows name counts twice.

    Attributes:
        notes: What was changed on the way, as a clean-up or a backend says it; at most `MAX_NOTES`. No key.
    """

    def __init__(self, *, spans_updated: int, errors: Iterable[SpanError] = (), notes: Iterable[str] = ()) -> None:
        """Count: every row either was applied or has an entry in *errors*."""
        listed = list(errors)
        super().__init__(
            spans_processed=spans_updated + len(listed),
            spans_updated=spans_updated,
            spans_failed=len(listed),
            errors=listed,
        )
        self.notes: tuple[str, ...] = tuple(dict.fromkeys(notes))[:MAX_NOTES]

    @overload
    def __getitem__(self, key: Literal["errors"], /) -> list[SpanError]: ...

    @overload
    def __getitem__(self, key: Literal["spans_processed", "spans_updated", "spans_failed"], /) -> int: ...

    @overload
    def __getitem__(self, key: str, /) -> Any: ...  # what a dict says of any other key

    def __getitem__(self, key: str, /) -> Any:
        """Return one of the four."""
        return super().__getitem__(key)

    @property
    def spans_processed(self) -> int:
        """Rows that were given."""
        return self["spans_processed"]

    @property
    def spans_updated(self) -> int:
        """Rows whose span now has what they say; a row that says nothing of a known span is one."""
        return self["spans_updated"]

    @property
    def spans_failed(self) -> int:
        """Rows of which nothing was applied."""
        return self["spans_failed"]

    @property
    def errors(self) -> list[SpanError]:
        """One entry for each row that failed, in the order of the rows."""
        return self["errors"]

    @property
    def status_code(self) -> int:
        """The same as a number of HTTP: 200 all, 207 some, 422 none of them."""
        if not self.spans_failed:
            return 200
        return 207 if self.spans_updated else 422

    def joined(self, other: UpdateReport) -> UpdateReport:
        """Return the report of both."""
        return UpdateReport(
            spans_updated=self.spans_updated + other.spans_updated,
            errors=[*self.errors, *other.errors],
            notes=[*self.notes, *other.notes],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the four keys as a plain dict that shares nothing with this one."""
        return {**self, "errors": [dict(error) for error in self.errors]}

    def __repr__(self) -> str:
        """A status line, with the first error."""
        first = f": {self.errors[0]['error_message']}" if self.errors else ""
        return (
            f"<UpdateReport {self.spans_updated} of {self.spans_processed} updated, {self.spans_failed} failed{first}>"
        )

    __str__ = __repr__


def tell(report: UpdateReport) -> None:
    """Log what a report says, and its first errors."""
    _LOGGER.info("%d of %d spans updated, %d failed", report.spans_updated, report.spans_processed, report.spans_failed)
    for error in report.errors[:_TOLD_ERRORS]:
        _LOGGER.info("%s", ascii(error["error_message"]))
