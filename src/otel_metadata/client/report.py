"""The report of a call over many spans: how many rows there were, how many were applied, why the others were not."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final, Literal, TypedDict, final, overload

from otel_metadata.model.outcome import DeliveryError

_LOGGER: Final = logging.getLogger("otel_metadata")

_TOLD_ERRORS: Final = 10

MAX_NOTES: Final = 100
"""Notes in one report: a frame has thousands of rows, and their notes repeat."""


class SpanError(TypedDict):
    """Why one row was not applied.

    Attributes:
        span_id: As the row has it; "" when it has none.
        error_type: See `model.outcome.ErrorType`.
        error_message: A sentence that begins with the type in brackets. It names the row, and the column if one column
            is the reason. It never has a metadata value.
    """

    span_id: str
    error_type: str
    error_message: str


def span_error(span_id: str, error: DeliveryError) -> SpanError:
    """Return the entry of a report for *error*."""
    return {"span_id": span_id, "error_type": error.type, "error_message": f"[{error.type}] {error.message}"}


@final
class UpdateReport(dict[str, Any]):
    """The report of a call over many spans, readable by key and by attribute.

    It is a dict of four keys, which are always there: programs written for Arize expect a dict and print it as JSON. It
    does not change after it was returned. `spans_processed == spans_updated + spans_failed`; the unit is the row, so a
    span that two rows name counts twice.

    Attributes:
        notes: What the clean-up or the backend changed; at most `MAX_NOTES`. Not a key of the dict.
    """

    def __init__(self, *, spans_updated: int, errors: Iterable[SpanError] = (), notes: Iterable[str] = ()) -> None:
        """Count the rows: each was applied, or has an entry in *errors*."""
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
        """Return one of the four values."""
        return super().__getitem__(key)

    @property
    def spans_processed(self) -> int:
        """Rows that were given."""
        return self["spans_processed"]

    @property
    def spans_updated(self) -> int:
        """Rows that were applied, including rows that name a known span and set nothing."""
        return self["spans_updated"]

    @property
    def spans_failed(self) -> int:
        """Rows that were not applied."""
        return self["spans_failed"]

    @property
    def errors(self) -> list[SpanError]:
        """One entry for each row that failed, in the order of the rows."""
        return self["errors"]

    @property
    def status_code(self) -> int:
        """An HTTP status code: 200 if no row failed, 207 if some failed, 422 if all failed."""
        if not self.spans_failed:
            return 200
        return 207 if self.spans_updated else 422

    def joined(self, other: UpdateReport) -> UpdateReport:
        """Return one report of the rows of both."""
        return UpdateReport(
            spans_updated=self.spans_updated + other.spans_updated,
            errors=[*self.errors, *other.errors],
            notes=[*self.notes, *other.notes],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict of the four keys, which shares nothing with this one."""
        return {**self, "errors": [dict(error) for error in self.errors]}

    def __repr__(self) -> str:
        """A status line, with the first error."""
        first = f": {self.errors[0]['error_message']}" if self.errors else ""
        return (
            f"<UpdateReport {self.spans_updated} of {self.spans_processed} updated, {self.spans_failed} failed{first}>"
        )

    __str__ = __repr__


def tell(report: UpdateReport) -> None:
    """Log the counts of a report and its first errors."""
    _LOGGER.info("%d of %d spans updated, %d failed", report.spans_updated, report.spans_processed, report.spans_failed)
    for error in report.errors[:_TOLD_ERRORS]:
        _LOGGER.info("%s", ascii(error["error_message"]))
