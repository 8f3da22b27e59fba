"""The input and the output of a dialect (`seams.Dialect`); the dialects themselves are in `dialects`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, final

from otel_metadata.model.merge import FieldName, Fields, Json

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext, SpanKind, Status
    from opentelemetry.util.types import AttributeValue

Attributes: TypeAlias = "Mapping[str, AttributeValue]"

SpanStatus: TypeAlias = "tuple[Json, str | None]"
"""("ok", "error" or an integer code; a message or None)."""


class SpanView(Protocol):
    """The part of an ended span that a dialect may read."""

    @property
    def name(self) -> str:
        """The span's name as it ended."""

    @property
    def attributes(self) -> Attributes | None:
        """The span's attributes as it ended, with those that we set while it was live."""

    @property
    def kind(self) -> SpanKind:
        """OpenTelemetry's span kind."""

    @property
    def status(self) -> Status:
        """The span's status as it ended."""

    @property
    def parent(self) -> SpanContext | None:
        """The parent's context; None for a root."""

    @property
    def end_time(self) -> int | None:
        """The end of the span, in wall nanoseconds."""


@final
@dataclass(frozen=True, slots=True)
class Encoded:
    """A span's fields in one backend's spelling.

    Attributes:
        attributes: The attributes of the span as it leaves: the application's own, and ours in this spelling.
        name: The new name of the span; None keeps its name.
        status: The new status of the span; None keeps its status.
        remainder: Fields that the spelling has no attribute for, or that do not fit. They leave as a patch later.
    """

    attributes: Attributes
    name: str | None = None
    status: SpanStatus | None = None
    remainder: Fields = field(default_factory=dict[FieldName, "tuple[Json, tuple[int, int]]"])


def is_error_status(value: Json) -> bool:
    """Whether a status field means an error: the word, or a code of 400 and above (Galileo's `status_code`)."""
    return value == "error" or (isinstance(value, int) and not isinstance(value, bool) and value >= 400)
