"""A patch: a target and a set of fields. An update becomes a patch, and patches are delivered.

This module holds the value only. `delivery` decides where it goes; `exporters` and `backends` decide how it is spelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from otel_metadata.model.merge import Fields, Json, Kind, Level, Version, latest_version
from otel_metadata.model.span_ref import SpanRef

# 64 bits of the writer, and 63 of the nanoseconds.
_PATCH_ID: Final = re.compile("[0-9a-f]{16}[0-7][0-9a-f]{15}")


@final
@dataclass(frozen=True, slots=True)
class Patch:
    """A target and the fields to set on it.

    Attributes:
        target: The span, or the trace alone when `target.span_id` is 0.
        fields: At least one versioned field, by name. Not changed after it is handed over.
        window_ns: Start and end of the target span in wall nanoseconds, where they are known here; else None.
    """

    target: SpanRef
    fields: Fields
    window_ns: tuple[int, int] | None = None

    @property
    def version(self) -> Version:
        """The highest version among the fields."""
        return latest_version(self.fields)

    @property
    def id(self) -> str:
        """32 hex digits, the same for the same set of updates: for backends that take an id or identifier."""
        return patch_id(self.version)

    def of_kind(self, level: Level, kind: Kind) -> Iterator[tuple[str, Json]]:
        """Yield (key, value) of each field of one level and kind, lowest version first."""
        chosen = [(field[1], name[2], field[0]) for name, field in self.fields.items() if name[:2] == (level, kind)]
        for _, key, value in sorted(chosen, key=lambda one: one[:2]):
            yield key, value

    def metadata(self, level: Level = "span") -> dict[str, Json]:
        """Return the metadata of one level as a JSON object, keys in the order of their versions."""
        return dict(self.of_kind(level, "metadata"))


def patch_id(version: Version) -> str:
    """Return the id of the update with this version: 16 hex digits of the writer, 16 of the nanoseconds."""
    return f"{version[1]:016x}{version[0]:016x}"


def version_of_id(found: object) -> Version | None:
    """Return the version in the id of an update; None if it was not made by `patch_id`."""
    if not isinstance(found, str) or _PATCH_ID.fullmatch(found) is None:
        return None
    return int(found[16:], 16), int(found[:16], 16)
