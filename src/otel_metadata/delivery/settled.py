"""Whether the fields of patches arrived, for the targets of the most recent ones.

For each target it has the highest version of each field that arrived, and of each that was given up. So whether an
update arrived is a comparison: it did when each of its fields arrived with its own version or a later one, for a later
value takes the place of an earlier one. (Of a tag the earliest version counts.)

Called under the outbox's lock, by the worker. Values are not kept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, final

from otel_metadata.model.recent import RecentMap
from otel_metadata.model.update_outcome import DestinationOutcome

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from otel_metadata.model.merge import FieldName, Fields, Version
    from otel_metadata.model.outcome import DeliveryError
    from otel_metadata.model.receipt import LossReason
    from otel_metadata.model.span_ref import SpanKey

MAX_TARGETS: Final = 10_000
"""Targets that are remembered at least, unless they have many fields."""

_MAX_FIELDS: Final = 50_000
_MAX_NOTES: Final = 20


class _Gone(NamedTuple):
    """A field that was given up, or handed over."""

    version: Version
    outcome: DestinationOutcome


@final
class _Target:
    """Of one target: fields that arrived, fields that did not, and notes with the names of the fields sent."""

    __slots__ = ("arrived", "gone", "notes")

    def __init__(self) -> None:
        self.arrived: dict[FieldName, Version] = {}
        self.gone: dict[FieldName, _Gone] = {}
        self.notes: tuple[tuple[Collection[FieldName], Sequence[str]], ...] = ()


@final
class Settled:
    """The fields of recent patches that arrived or were given up: see the module."""

    def __init__(self, max_targets: int = MAX_TARGETS) -> None:
        """Start empty."""
        self._targets: RecentMap[SpanKey, _Target] = RecentMap(max_targets)
        self._fields = 0

    def arrived(self, key: SpanKey, fields: Fields, notes: Sequence[str] = ()) -> None:
        """Note that the backend has *fields*."""
        target = self._target(key, len(fields))
        versions = target.arrived
        for name, (_, version) in fields.items():
            held = versions.get(name)
            if held is None or not covers(name, held, version):
                versions[name] = version
        if notes:
            target.notes = (*target.notes, (tuple(fields), notes))[-_MAX_NOTES:]

    def gone(self, key: SpanKey, fields: Fields, reason: LossReason | None, error: DeliveryError | None = None) -> None:
        """Note that *fields* are lost, or without a reason that they are left to the spool."""
        if fields:
            target = self._target(key, len(fields))
            outcome = DestinationOutcome("lost" if reason is not None else "handed_over", reason, error)
            target.gone.update({name: _Gone(version, outcome) for name, (_, version) in fields.items()})

    def wait_again(self, key: SpanKey, fields: Fields) -> None:
        """Note that fields wait that may have been given up: somebody retries a dead letter."""
        target = self._targets.get(key)
        if target is not None and target.gone:
            for name in fields:
                target.gone.pop(name, None)

    def versions(self, key: SpanKey) -> dict[FieldName, Version]:
        """Return the version of each field that arrived."""
        target = self._targets.get(key)
        return target.arrived if target is not None else {}

    def of_field(self, key: SpanKey, name: FieldName, version: Version) -> DestinationOutcome | None:
        """Return the outcome of one field of an update; None when nothing is known."""
        target = self._targets.get(key)
        if target is None:
            return None
        held = target.arrived.get(name)
        if held is not None and covers(name, held, version):
            sent = [notes_about(name, notes, names) for names, notes in target.notes if name in names]
            return DestinationOutcome("delivered", notes=tuple(note for notes in sent for note in notes))
        gone = target.gone.get(name)
        return gone.outcome if gone is not None and covers(name, gone.version, version) else None

    def gone_at(self, key: SpanKey, names: Sequence[FieldName], version: Version) -> DestinationOutcome | None:
        """Return why a field of exactly this version was given up; None when none of them was."""
        target = self._targets.get(key)
        gone = target.gone if target is not None else {}
        found = (gone.get(name) for name in names)
        return next((one.outcome for one in found if one is not None and one.version == version), None)

    def _target(self, key: SpanKey, fields: int) -> _Target:
        target = self._targets.get(key)
        if target is None:
            target = _Target()
        self._fields += fields
        if self._fields > _MAX_FIELDS:
            self._fields = fields
            self._targets.turn()
        self._targets[key] = target
        return target


def covers(name: FieldName, held: Version, version: Version) -> bool:
    """Whether a field with version *held* includes an update of *version*: it is that update, or replaced it."""
    return held <= version if name[1] == "tag" else held >= version


def notes_about(name: FieldName, notes: Sequence[str], sent: Collection[FieldName]) -> list[str]:
    """Return the notes about one field, and the general notes of its request."""
    others = [other for other in sent if other != name]
    return [note for note in notes if _names(note, name) or not any(_names(note, other) for other in others)]


def _names(note: str, name: FieldName) -> bool:
    """Whether the subject of a note, the words before its colon, names a field."""
    words = name[2][:50] or name[1].replace("_", " ")
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", note.partition(": ")[0]) is not None
