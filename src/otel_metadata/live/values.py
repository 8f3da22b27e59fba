"""From the arguments of an update to its values: cleaned when they are given, masked when they are set, by field name.

This module decides what the arguments of `update_*`, `score_*`, `annotate_*` mean as fields. Versions are given, and
the way is found, in `routing`. Arguments are the application's and may be anything: each is looked at by its exact type
before it is compared, because a comparison is somebody's code, and one that cannot be read leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from otel_metadata.dialects.canonical import is_field, read
from otel_metadata.live import settings
from otel_metadata.model.evaluation import Annotation, Evaluation, Source, annotation_key
from otel_metadata.model.masking import MASK_FAILED
from otel_metadata.model.merge import FieldName, Json, Kind, Level, json_text
from otel_metadata.model.unset import UNSET
from otel_metadata.model.value import CAPTURE_LIMITS, clean, clean_key, is_clean_scalar

__all__ = [
    "KNOWN_METADATA_KEYS",
    "StatusLike",
    "Values",
    "annotation_values",
    "evaluation_values",
    "masked",
    "masked_value",
    "span_values",
]

Values: TypeAlias = dict[FieldName, Json]

StatusLike: TypeAlias = Literal["ok", "error"] | int
"""OpenTelemetry's status, or an integer code as Galileo has it: 400 and above is an error."""

# Keys that were found clean, with the name of their field: the keys of an application are few and come again and again.
# At most MAX_KNOWN_KEYS for each kind; beyond, the others are checked each time.
_known_keys: Final[dict[tuple[Level, Kind], dict[str, FieldName]]] = {}
MAX_KNOWN_KEYS: Final = 4_096

KNOWN_METADATA_KEYS: Final[dict[str, str]] = {}
"""Of the most frequent kind, a span's metadata: clean key → its attribute."""

_NO_VERSION: Final = (0, 0)

_PART_TYPES: Final[Mapping[str, tuple[type, ...]]] = {"score": (int, float), "metadata": (dict,)}


def span_values(
    level: Level,
    notes: list[str],
    metadata: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
    name: str | None = None,
    user_id: str | None = None,
    session_id: str | None = None,
    input: object = UNSET,
    output: object = UNSET,
    tags: Iterable[str] | None = None,
    status: StatusLike | None = None,
    status_message: str | None = None,
) -> Values:
    """Return the values of one update, not masked yet; empty when nothing was given."""
    values: Values = {}
    if attributes is not None:
        _put_mapping(values, "span", "attribute", attributes, notes)
    if metadata is not None:
        _put_mapping(values, level, "metadata", metadata, notes)
    if name is not None:
        _put_text(values, (level, "name", ""), name, notes)
    if user_id is not None:
        _put_text(values, (level, "user_id", ""), user_id, notes)
    if session_id is not None:
        _put_text(values, (level, "session_id", ""), session_id, notes)
    if input is not UNSET:
        values[level, "input", ""] = clean(input, notes, "input", CAPTURE_LIMITS)
    if output is not UNSET:
        values[level, "output", ""] = clean(output, notes, "output", CAPTURE_LIMITS)
    if tags is not None:
        _put_tags(values, level, tags, notes)
    if status is not None:
        _put_status(values, status, notes)
    if status_message is not None:
        _put_text(values, ("span", "status_message", ""), status_message, notes)
    return values


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
    """Return the values of one evaluation, not masked yet."""
    parts = _cleaned_parts(
        "evaluation", {"score": score, "label": label, "explanation": explanation, "metadata": metadata}, notes
    )
    judge = clean(source, notes, "evaluation.source")
    if not parts.keys() - {"metadata"}:
        notes.append("evaluation: a score, label or explanation was expected; nothing was set")
        return {}
    if judge not in ("code", "llm", "human"):
        notes.append("evaluation.source: expected 'code', 'llm' or 'human'; taken as 'code'")
        judge = "code"
    key = clean_key(name, notes, "evaluation")
    return {(level, "evaluation", key): Evaluation.from_json(key, {**parts, "source": judge}).to_json()}


def annotation_values(
    name: str,
    notes: list[str],
    *,
    label: str | None,
    score: float | None,
    text: str | None,
    annotator: str | None,
) -> Values:
    """Return the values of one annotation, not masked yet."""
    parts = _cleaned_parts("annotation", {"label": label, "score": score, "text": text, "annotator": annotator}, notes)
    note = Annotation.from_json({**parts, "name": clean_key(name, notes, "annotation")})
    return {("span", "annotation", annotation_key(note.name, note.annotator)): note.to_json()}


def masked(values: Values, notes: list[str]) -> Values:
    """Return *values* as they may be set: through the mask in force, where there is one."""
    if settings.in_force.mask is None:
        return values
    kept: Values = {}
    for (level, kind, key), value in values.items():
        if kind == "tag":
            tag = masked_value("tag", key, notes)
            kept[level, "tag", tag if isinstance(tag, str) and tag else MASK_FAILED] = True
        elif kind == "annotation" and isinstance(value, dict):
            kept[level, kind, key] = masked_value(f"annotation.{value.get('name')}", value, notes)
        else:
            kept[level, kind, key] = masked_value(f"{kind}.{key}" if key else kind, value, notes)
    return kept


def masked_value(path: str, value: Json, notes: list[str]) -> Json:
    """Return one value through the mask in force; replaced when the mask fails."""
    mask = settings.in_force.mask
    if mask is None:
        return value
    try:
        return clean(mask(path, value), notes, path, CAPTURE_LIMITS)
    except Exception:  # noqa: BLE001 # the mask is the application's; what it could not judge must not leave
        notes.append(f"{path[:256]}: the mask failed; the value was replaced")
        return MASK_FAILED


def _put_mapping(values: Values, level: Level, kind: Kind, given: Mapping[str, object], notes: list[str]) -> None:
    """Put each first-level key of *given* into *values*."""
    if type(given) is not dict:
        as_json = clean(given, notes, kind)
        if not isinstance(as_json, dict):
            notes.append(f"{kind}: a mapping with string keys was expected; nothing of it was set")
            return
        given = as_json
    known = _known_keys.setdefault((level, kind), {})
    spelled: dict[str, Json] = {}
    # list() is one C call: a thread that changes the dict meanwhile cannot break the iteration.
    for key, value in list(given.items()):
        name = known.get(key) if type(key) is str else None
        if name is None:
            name = (level, kind, clean_key(key, notes, kind))
            if kind == "attribute" and is_field(name[2]):
                # As long as the input may be; what is no input is shortened below.
                spelled[name[2]] = clean(value, notes, f"attribute.{name[2]}", CAPTURE_LIMITS)
                continue
            if type(key) is str and name[2] == key and len(known) < MAX_KNOWN_KEYS:
                known[key] = name
                if kind == "metadata" and level == "span":
                    KNOWN_METADATA_KEYS[key] = f"metadata.{key}"
        values[name] = value if is_clean_scalar(value) else clean(value, notes, f"{kind}.{name[2]}")
    if spelled:
        _put_fields(values, spelled, notes)


def _put_fields(values: Values, attributes: dict[str, Json], notes: list[str]) -> None:
    """Put the fields that *attributes* spell: `session.id` is the session, however late it is set.

    While the span is live they are read so from it; an update that comes late has to say the same. What a field may be
    is the same as for the argument of its name.
    """
    if "tag.tags" in attributes:
        _put_tags(values, "span", attributes.pop("tag.tags"), notes)
    fields, taken = read(attributes, _NO_VERSION)
    # The type of an input says nothing without the input.
    taken -= {f"{kind}.mime_type" for kind in ("input", "output") if f"{kind}.value" not in attributes}
    for name, value in attributes.items():
        if name not in taken:
            values["span", "attribute", name] = clean(value, notes, f"attribute.{name}")
    metadata: dict[str, Json] = {}
    for field, (value, _) in fields.items():
        if field[1] == "metadata":
            metadata[field[2]] = value
        elif field[1] in ("input", "output"):
            values[field] = value
        else:
            _put_text(values, field, value, notes)
    _put_mapping(values, "span", "metadata", metadata, notes)


def _put_text(values: Values, name: FieldName, text: object, notes: list[str]) -> None:
    kind = name[1]
    value = clean(text, notes, kind)
    if isinstance(value, int | float):  # a number for a user id is common
        value = json_text(value)
    if isinstance(value, str):
        values[name] = value
    else:
        notes.append(f"{kind}: a text was expected; it was left out")


def _cleaned_parts(kind: str, parts: Mapping[str, object], notes: list[str]) -> dict[str, Json]:
    kept: dict[str, Json] = {}
    for part, value in parts.items():
        if value is None:
            continue
        item = clean(value, notes, f"{kind}.{part}")
        if isinstance(item, bool) and part == "score":
            item = int(item)
        if isinstance(item, _PART_TYPES.get(part, (str,))):
            kept[part] = item
        else:
            notes.append(f"{kind}.{part}: not a {'number' if part == 'score' else part}; it was left out")
    return kept


def _put_tags(values: Values, level: Level, tags: object, notes: list[str]) -> None:
    as_json = clean([tags] if issubclass(type(tags), str) else tags, notes, "tags")
    if not isinstance(as_json, list):
        notes.append("tags: a list of texts was expected; nothing of it was set")
        return
    for tag in as_json:
        if isinstance(tag, str) and tag:
            values[level, "tag", tag] = True
        else:
            notes.append("tags: a tag that is not a text was left out")


def _put_status(values: Values, status: object, notes: list[str]) -> None:
    code = clean(status, notes, "status")
    if isinstance(code, str):
        code = code.lower()
    if code in ("ok", "error") or (isinstance(code, int) and not isinstance(code, bool) and 0 <= code < 1 << 31):
        values["span", "status", ""] = code
    elif code != "unset":
        notes.append("status: expected 'ok', 'error' or an integer code; it was left out")
