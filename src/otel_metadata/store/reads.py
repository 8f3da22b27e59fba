"""What the quick reads of every store ask for."""

from __future__ import annotations

from typing import Final

from otel_metadata.model.condition import And, Compare, Condition, IsNull, Subject

NO_PARENT: Final = IsNull(Subject("span", "parent_id"))

IS_ERROR: Final = Compare(Subject("span", "status"), "=", "ERROR")


def both(first: Condition, second: Condition | None) -> Condition:
    """Return the condition that two conditions hold."""
    if second is None:
        return first
    return And((first, *(second.parts if isinstance(second, And) else (second,))))
