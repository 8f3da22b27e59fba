"""From the arguments of an update to its values: cleaned once, masked once, by field name.

This module decides what the arguments of `update_*`, `score_*`, `annotate_*` mean as fields. Versions are given, and
the way is found, in `routing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from otel_metadata.live import settings
from otel_metadata.model.evaluation import Annotation, Evaluation, Source, annotation_key
from otel_metadata.model.masking import MASK_FAILED
from otel_metadata.model.merge import FieldName, Json, Kind, Level
from otel_metadata.model.unset import UNSET
from otel_metadata.model.value import CAPTURE_LIMITS, METADATA_LIMITS, Limits, clean, clean_key, is_clean_scalar

__all__ = [
    "KNOWN_METADATA_KEYS",
    "StatusLike",
    "Values",
    "annotation_values",
    "cleaned",
    "evaluation_values",
    "mapping_values",
    "put",
    "span_values",
]

Values: TypeAlias = dict[FieldName, Json]

StatusLike: TypeAlias = Literal["ok", "error"] | int
"""OpenTelemetry's status, or an integer code as Galileo has it: 400 and above is an error."""

_CAPTURED: Final[frozenset[Kind]] = frozenset({"input", "output"})


def span_values(
    level: Level,
    notes: list[str],
    metadata: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
    name: str | None = None,
    user_id: str | None = None,
    session_id: str | None = None,
    input: object = UNSET,  # the public word
    output: object = UNSET,
    tags: Iterable[str] | None = None,
    status: StatusLike | None = None,
    status_message: str | None = None,
) -> Values:
    """Return the values of one update; empty when nothing was given."""
    values: Values = {}
    if metadata is not None:
        mapping_values(values, level, "metadata", metadata, notes)
    if attributes is not None:
        mapping_values(values, "span", "attribute", attributes, notes)
    if name is not None:
        put(values, (level, "name", ""), name, notes)
    if user_id is not None:
        put(values, (level, "user_id", ""), user_id, notes)
    if session_id is not None:
        put(values, (level, "session_id", ""), session_id, notes)
    if input is not UNSET:
        put(values, (level, "input", ""), input, notes)
    if output is not UNSET:
        put(values, (level, "output", ""), output, notes)
    if tags is not None:
        _put_tags(values, level, tags, notes)
    if status is not None:
        _put_status(values, status, notes)
    if status_message is not None:
        put(values, ("span", "status_message", ""), status_message, notes)
    return values


# Keys that were found clean, with the name of their field: the keys of an application are few and come again and again.
# At most MAX_KNOWN_KEYS for each kind; beyond, the others are checked each time.
_known_keys: Final[dict[tuple[Level, Kind], dict[str, FieldName]]] = {}
MAX_KNOWN_KEYS: Final = 4_096

KNOWN_METADATA_KEYS: Final[dict[str, tuple[FieldName, str]]] = {}
"""Of the most frequent kind, a span's metadata: clean key → its field and its attribute."""


def mapping_values(values: Values, level: Level, kind: Kind, given: Mapping[str, object], notes: list[str]) -> None:
    """Put each first-level key of *given* into *values*."""
    if type(given) is not dict:
        as_json = clean(given, notes, kind)
        if not isinstance(as_json, dict):
            notes.append(f"{kind}: a mapping with string keys was expected; nothing of it was set")
            return
        given = as_json
    known = _known_keys.setdefault((level, kind), {})
    mask = settings.current().mask
    # list() is one C call: a thread that changes the dict meanwhile cannot break the iteration.
    for key, value in list(given.items()):
        name = known.get(key) if type(key) is str else None
        if name is None:
            name = (level, kind, clean_key(key, notes, kind))
            if type(key) is str and name[2] == key and len(known) < MAX_KNOWN_KEYS:
                known[key] = name
                if (level, kind) == ("span", "metadata"):
                    KNOWN_METADATA_KEYS[key] = (name, f"metadata.{key}")
        if mask is None and (type(value) is bool or value is None or is_clean_scalar(value)):
            values[name] = value
        else:
            put(values, name, value, notes)


def put(values: Values, name: FieldName, value: object, notes: list[str]) -> None:
    """Clean and mask one value and put it into *values*."""
    _, kind, key = name
    path = f"{kind}.{key}" if key else kind
    values[name] = cleaned(path, value, notes, CAPTURE_LIMITS if kind in _CAPTURED else METADATA_LIMITS)


def cleaned(path: str, value: object, notes: list[str], limits: Limits) -> Json:
    """Clean and mask one value."""
    return _masked(path, clean(value, notes, path, limits), notes)


def evaluation_values(
    level: Level,
    name: str,
    notes: list[str],
    *,
    score: float | None,
    label: str | None,
    explanation: str | None,
    source: Source,
    metadata: Mapping[str, object] | None,
) -> Values:
    """Return the values of one evaluation."""
    parts = _cleaned_parts(
        "evaluation",
        {"name": name, "score": score, "label": label, "explanation": explanation, "metadata": metadata},
        notes,
    )
    if source not in ("code", "llm", "human"):
        notes.append("evaluation.source: expected 'code', 'llm' or 'human'; taken as 'code'")
        source = "code"
    key = clean_key(name, notes, "evaluation")
    verdict = Evaluation.from_json(key, {**parts, "source": source}).to_json()
    return {(level, "evaluation", key): _masked(f"evaluation.{key}", verdict, notes)}


def annotation_values(
    name: str,
    notes: list[str],
    *,
    label: str | None,
    score: float | None,
    text: str | None,
    annotator: str | None,
) -> Values:
    """Return the values of one annotation."""
    parts = _cleaned_parts("annotation", {"label": label, "score": score, "text": text, "annotator": annotator}, notes)
    key = clean_key(name, notes, "annotation")
    note = Annotation.from_json({**parts, "name": key})
    field_key = annotation_key(key, note.annotator)
    return {("span", "annotation", field_key): _masked(f"annotation.{key}", note.to_json(), notes)}


_PART_TYPES: Final[Mapping[str, tuple[type, ...]]] = {"score": (int, float), "metadata": (dict,)}


def _cleaned_parts(kind: str, parts: Mapping[str, object], notes: list[str]) -> dict[str, Json]:
    kept: dict[str, Json] = {}
    for part, value in parts.items():
        if value is None:
            continue
        item = clean(value, notes, f"{kind}.{part}")
        expected = _PART_TYPES.get(part, (str,))
        if isinstance(item, bool) and part == "score":
            item = int(item)
        if not isinstance(item, expected):
            notes.append(f"{kind}.{part}: not a {'number' if part == 'score' else part}; it was left out")
            continue
        kept[part] = item
    return kept


def _put_tags(values: Values, level: Level, tags: Iterable[str], notes: list[str]) -> None:
    as_json = clean([tags] if isinstance(tags, str) else tags, notes, "tags")
    if not isinstance(as_json, list):
        notes.append("tags: a list of texts was expected; nothing of it was set")
        return
    for tag in as_json:
        if isinstance(tag, str) and tag:
            masked = _masked("tag", tag, notes)
            values[level, "tag", masked if isinstance(masked, str) else MASK_FAILED] = True
        else:
            notes.append("tags: a tag that is not a text was left out")


def _put_status(values: Values, status: object, notes: list[str]) -> None:
    code = status.lower() if isinstance(status, str) else status
    if code in ("ok", "error") or (type(code) is int and 0 <= code < 1 << 31):
        values["span", "status", ""] = code
    elif code != "unset":
        notes.append("status: expected 'ok', 'error' or an integer code; it was left out")


def _masked(path: str, value: Json, notes: list[str]) -> Json:
    mask = settings.current().mask
    if mask is None:
        return value
    try:
        return clean(mask(path, value), notes, path, CAPTURE_LIMITS)
    except Exception:  # noqa: BLE001 # the mask is the application's; what it could not judge must not leave
        notes.append(f"{path[:256]}: the mask failed; the value was replaced")
        return MASK_FAILED
