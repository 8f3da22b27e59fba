"""The rows that a patch becomes in the tables of Arize's SDK, and a note on each field that changes on the way. Pure.

Limits and forms are those of the SDK's own validation (8.61.0). It refuses a whole table for one bad cell, and drops an
unknown column with a success; so these rows have only what it accepts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from otel_metadata.dialects.openinference import scalar
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.outcome import DeliveryError, NotKept

if TYPE_CHECKING:
    from otel_metadata.model.merge import Json, Level, Version
    from otel_metadata.model.patch import Patch

Call: TypeAlias = Literal["update_metadata", "update_evaluations", "update_annotations"]

SPAN_ID: Final = "context.span_id"
PATCH_DOCUMENT: Final = "patch_document"

MAX_DOCUMENT_CHARACTERS: Final = 1_000_000
"""Characters of one patch document as ASCII JSON, in which a letter beyond ASCII takes six characters or twelve."""

# A word that is too long is left out, because a part of it is another word; prose is cut.
_MAX_WORD: Final = {"label": 100, "updated_by": 100}
_MAX_PROSE: Final = {"explanation": 10_000, "text": 10_000}

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_ ]")
_SENT: Final = frozenset({"metadata", "evaluation", "annotation"})


class Row(NamedTuple):
    """One row of a table, without the column for its span.

    Attributes:
        call: The call of the SDK that takes the table.
        cells: The values, by column. A patch document is a dict of texts, numbers and nulls.
    """

    call: Call
    cells: Mapping[str, Json]

    @property
    def paths(self) -> tuple[str, ...]:
        """Keys and names of its values, for people."""
        document = self.cells.get(PATCH_DOCUMENT)
        if isinstance(document, dict):
            return tuple(f"metadata.{key}" for key in document)
        return tuple(dict.fromkeys(column.rpartition(".")[0] for column in self.cells))

    def halves(self) -> tuple[Row, ...]:
        """Return two rows with half of the metadata each; an empty tuple for a single key, and for no metadata."""
        document = self.cells.get(PATCH_DOCUMENT)
        if not isinstance(document, dict) or len(document) < 2:
            return ()
        items = list(document.items())
        middle = len(items) // 2
        return tuple(Row(self.call, {PATCH_DOCUMENT: dict(half)}) for half in (items[:middle], items[middle:]))


class Plan(NamedTuple):
    """The part of a patch that is sent.

    Attributes:
        rows: Rows, each with at least one value. Each may be sent without the others, in any order.
        notes: One note for each field that Arize cannot hold as it is.
        refused: Why there is nothing to send; None where there are rows.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    refused: DeliveryError | None = None


def plan(patch: Patch, now_millis: int) -> Plan:
    """Return the rows of *patch*: one of metadata unless it is very large, one of evaluations, one of annotations.

    Args:
        patch: The patch.
        now_millis: Wall milliseconds: the SDK refuses an annotation with a later date.
    """
    if not patch.target.span_id:
        return Plan((), (), DeliveryError("unsupported", "Arize changes spans; it has no place for a trace alone"))
    notes: list[str] = []
    documents, too_large = _documents(_metadata(patch, notes))
    verdicts = _verdicts(patch, now_millis, notes)
    rows = (*(Row("update_metadata", {PATCH_DOCUMENT: document}) for document in documents), *verdicts)
    unsupported = dict.fromkeys(_path(*name) for name in patch.fields if name[1] not in _SENT)
    only_live = (NotKept(f"{path}: unsupported, Arize sets it only with the span") for path in unsupported)
    all_notes = (*notes, *too_large, *only_live)
    if rows:
        return Plan(rows, all_notes)
    return Plan((), (), DeliveryError("too_large" if too_large else "unsupported", "; ".join(all_notes)))


def _metadata(patch: Patch, notes: list[str]) -> dict[str, Json]:
    """Return metadata as texts, numbers and nulls: Arize's own pages differ about all other types."""
    document: dict[str, Json] = {}
    own = patch.metadata()
    for key, value in patch.metadata("trace").items():
        path = _path("trace", "metadata", key)
        if key in own:
            notes.append(NotKept(f"{path}: not kept, the span itself has metadata of this name"))
            continue
        notes.append(f"{path}: kept as metadata of the root span, in place of what that has under this key")
        document[key] = _scalar(value, path, notes)
    for key, value in own.items():
        document[key] = _scalar(value, _path("span", "metadata", key), notes)
    return document


def _scalar(value: Json, path: str, notes: list[str]) -> Json:
    kept = scalar(value)
    if kept is not value:
        notes.append(f"{path}: kept as the text of its JSON")
    return kept


def _documents(metadata: Mapping[str, Json]) -> tuple[list[dict[str, Json]], list[str]]:
    """Return documents within the limit, and notes on values that are too large by themselves."""
    documents: list[dict[str, Json]] = []
    notes: list[str] = []
    room = 0
    for key, value in metadata.items():
        # The braces are counted for each key: they are as long as the comma and blank between two keys.
        size = len(json.dumps({key: value}))
        if size > MAX_DOCUMENT_CHARACTERS:
            limit = f"{MAX_DOCUMENT_CHARACTERS:,} characters of JSON"
            notes.append(NotKept(f"{_path('span', 'metadata', key)}: not sent, it is over Arize's limit of {limit}"))
            continue
        if size > room:
            documents.append({})
            room = MAX_DOCUMENT_CHARACTERS
        documents[-1][key] = value
        room -= size
    return documents, notes


def _verdicts(patch: Patch, now_millis: int, notes: list[str]) -> list[Row]:
    """Return a row of evaluations and one of annotations, where there are any."""
    found: dict[tuple[Call, str], tuple[str, dict[str, Json]]] = {}
    for (level, kind, key), (value, version) in sorted(patch.fields.items(), key=lambda item: (item[1][1], item[0])):
        if kind == "evaluation":
            path = _path(level, kind, key)
            call, stem, cells = _evaluation(Evaluation.from_json(key, value), level, version, now_millis, path, notes)
        elif kind == "annotation":
            annotation = Annotation.from_json(value)
            path = _path(level, kind, annotation.name)
            call, stem, cells = _annotation(annotation, level, version, now_millis, path, notes)
        else:
            continue
        if not cells:
            continue
        if (call, stem) in found:
            notes.append(NotKept(f"{found[call, stem][0]}: replaced by a later one; Arize keeps one of a name"))
        found[call, stem] = (path, cells)
    rows: dict[Call, dict[str, Json]] = {"update_evaluations": {}, "update_annotations": {}}
    for (call, _), (_, cells) in found.items():
        rows[call].update(cells)
    return [Row(call, cells) for call, cells in rows.items() if cells]


def _evaluation(
    evaluation: Evaluation, level: Level, version: Version, now_millis: int, path: str, notes: list[str]
) -> tuple[Call, str, dict[str, Json]]:
    if evaluation.metadata is not None:
        notes.append(NotKept(f"{path}: its metadata is unsupported"))
    if evaluation.source == "human":
        notes.append(f"{path}: kept as an annotation, as Arize does with what people say")
        annotation = Annotation(evaluation.name, evaluation.label, evaluation.score, evaluation.explanation)
        return _annotation(annotation, level, version, now_millis, path, notes)
    if evaluation.source != "code":
        notes.append(NotKept(f"{path}: its source is unsupported"))
    stem = f"{'eval' if level == 'span' else 'trace_eval'}.{_name(evaluation.name, path, notes)}"
    parts: dict[str, Json] = {
        "label": evaluation.label,
        "score": evaluation.score,
        "explanation": evaluation.explanation,
    }
    return "update_evaluations", stem, _cells(stem, parts, ("label", "score"), path, notes)


def _annotation(
    annotation: Annotation, level: Level, version: Version, now_millis: int, path: str, notes: list[str]
) -> tuple[Call, str, dict[str, Json]]:
    if level == "trace":
        notes.append(f"{path}: kept on the root span")
    stem = f"annotation.{_name(annotation.name, path, notes)}"
    parts: dict[str, Json] = {
        "label": annotation.label,
        "score": annotation.score,
        "text": annotation.text,
        "updated_by": annotation.annotator,
        # Without it the SDK takes the time of each try, and a second try is another annotation.
        "updated_at": min(version[0] // 1_000_000, now_millis),
    }
    return "update_annotations", stem, _cells(stem, parts, ("label", "score", "text"), path, notes)


def _name(name: str, path: str, notes: list[str]) -> str:
    allowed = _NOT_IN_NAMES.sub("_", name) or "_"
    if allowed != name:
        notes.append(f"{path}: Arize allows letters, digits, blanks and _ in a name; it became {allowed!r}")
    return allowed


def _cells(stem: str, parts: Mapping[str, Json], needed: Sequence[str], path: str, notes: list[str]) -> dict[str, Json]:
    """Return the parts that have a value, by column; an empty dict where all of *needed* are missing."""
    cells: dict[str, Json] = {}
    for part, value in parts.items():
        if value is None:
            continue
        if isinstance(value, str):
            word, prose = _MAX_WORD.get(part), _MAX_PROSE.get(part)
            if (not value and part != "explanation") or (word is not None and len(value) > word):
                notes.append(NotKept(f"{path}: its {part} is not sent, Arize takes 1 to {word or prose} characters"))
                continue
            if prose is not None and len(value) > prose:
                notes.append(NotKept(f"{path}: its {part} is cut at Arize's limit of {prose} characters"))
                value = value[:prose]  # noqa: PLW2901 # the same part, shorter
        # A column has one type: pandas turns integers beside floats into floats, but not an integer alone.
        cells[f"{stem}.{part}"] = float(value) if part == "score" and isinstance(value, int | float) else value
    if any(f"{stem}.{part}" in cells for part in needed):
        return cells
    notes.append(NotKept(f"{path}: not sent, Arize wants one of {', '.join(needed)}"))
    return {}


def _path(level: Level, kind: str, key: str) -> str:
    """Return words for a field in a note. Tags are not named: the text of a tag is its value."""
    named = "tags" if kind == "tag" else f"{kind}.{key}" if key else kind
    return f"trace {named}" if level == "trace" else named
