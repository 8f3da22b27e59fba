"""From the arguments of an update to values by field name: cleaned at the call, masked when they are set.

This module decides what the arguments of `update_*`, `score_*`, `annotate_*` mean as fields. `routing` gives them their
version and their destination. An argument is the application's and may be any object. Its exact type is tested before
it is compared, because a comparison runs somebody's code; an argument that cannot be read leaves the others alone.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any, Final, Literal, TypeAlias

from opentelemetry.trace import Status, StatusCode

from otel_metadata.dialects.canonical import is_field, read
from otel_metadata.interrupts import pass_on
from otel_metadata.live import live_settings as settings
from otel_metadata.live.misuse import Misfit, kind_of, log_misfits, misfit, shown
from otel_metadata.model.credentials import (
    HEADERS,
    MASKED,
    is_credential,
    without_credentials,
    without_credentials_under,
)
from otel_metadata.model.evaluation import Annotation, Evaluation, Source, annotation_key
from otel_metadata.model.masking import KEY_PATH, MASK_FAILED, Masking, parts_of_a_field, with_keys
from otel_metadata.model.merge import FieldName, Json, Kind, Level, json_text
from otel_metadata.model.unset import UNSET
from otel_metadata.model.value import CAPTURE_LIMITS, METADATA_LIMITS, clean, clean_key, is_clean_scalar, is_opaque
from otel_metadata.model.weight import SHARED_NAMES

Values: TypeAlias = dict[FieldName, Json]

StatusLike: TypeAlias = Literal["ok", "error"] | int | StatusCode | Status
"""OpenTelemetry's status as a word or as its own objects, or an integer code as Galileo has it: 400 and above is an
error."""

MAX_TAGS: Final = 1_000
"""How many tags of one update are read: an iterable may have no end."""

# One text each, although it can be iterated.
_TEXTS: Final = (str, bytes, bytearray, memoryview, enum.Enum)

# As OpenTelemetry's API and OTLP spell it.
_STATUS_WORD: Final = re.compile(r"(?:statuscode\.|status_code_)?(ok|error|unset)", re.ASCII)

# An enumeration that numbers words starts near 0; the codes of HTTP start at 100.
_FIRST_CODE: Final = 100

# Keys that were found clean, and the names of their fields: an application uses the same few keys again and again.
# At most MAX_KNOWN_KEYS of each kind; further keys are checked each time.
_known_keys: Final[dict[tuple[Level, Kind], dict[str, FieldName]]] = {}
MAX_KNOWN_KEYS: Final = 4_096

KNOWN_METADATA_KEYS: Final[dict[str, str]] = {}
"""Known keys of a span's metadata, the most frequent kind, that name no secret: clean key → its attribute."""

# Kinds of fields whose key may name a secret.
_KEYED: Final = frozenset({"metadata", "attribute"})

_NO_VERSION: Final = (0, 0)

_STATUS_MESSAGE: Final[FieldName] = ("span", "status_message", "")

# What a part of a verdict may be, and how a note says it; every other part is a text.
_PARTS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "score": ((int, float), "a finite number"),
    "metadata": ((dict,), "a mapping with string keys"),
}


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
        _put_text(values, _STATUS_MESSAGE, status_message, notes)
    return values


def evaluation_values(
    level: Level,
    name: str | None,
    notes: list[str],
    *,
    score: float | None,
    label: str | None,
    explanation: str | None,
    source: Source,
    metadata: Mapping[str, object] | None,
) -> Values:
    """Return the values of one evaluation, not masked yet."""
    if name is None:
        notes.append(misfit("name", "None", "a text", "nothing was set"))
        return {}
    parts = _cleaned_parts(
        "evaluation", {"score": score, "label": label, "explanation": explanation, "metadata": metadata}, notes
    )
    judge = clean(source, [], "source")
    if not parts.keys() - {"metadata"}:
        notes.append(Misfit("score: expected a score, label or explanation; nothing was set"))
        return {}
    if judge not in ("code", "llm", "human"):
        notes.append(misfit("source", shown(source), "'code', 'llm' or 'human'", "taken as 'code'"))
        judge = "code"
    key = _name(name, notes, "evaluation")
    return {(level, "evaluation", key): Evaluation.from_json(key, {**parts, "source": judge}).to_json()}


def annotation_values(
    name: str | None,
    notes: list[str],
    *,
    label: str | None,
    score: float | None,
    text: str | None,
    annotator: str | None,
) -> Values:
    """Return the values of one annotation, not masked yet."""
    if name is None:
        notes.append(misfit("name", "None", "a text", "nothing was set"))
        return {}
    parts = _cleaned_parts("annotation", {"label": label, "score": score, "text": text, "annotator": annotator}, notes)
    note = Annotation.from_json({**parts, "name": _name(name, notes, "annotation")})
    return {("span", "annotation", annotation_key(note.name, note.annotator)): note.to_json()}


def _name(name: object, notes: list[str], kind: str) -> str:
    """Return the name of a verdict; an object that is no text becomes one, as a key does."""
    if not issubclass(type(name), str):
        notes.append(misfit("name", kind_of(name), "a text", "it became one"))
    return clean_key(name, notes, kind)


def masked(values: Values, notes: list[str]) -> Values:
    """Return *values* as they may be set: without credentials, and through the mask in force, if there is one."""
    values = {name: without_credentials_in(name, value) for name, value in values.items()}
    if settings.in_force.mask is None:
        return values
    kept: Values = {}
    for name, value in values.items():
        field, shown = _masked_field(name, value, notes)
        if field in kept and field[1] != "tag":
            notes.append(_same_keys(f"{field[1]}.{field[2]}"))
        kept[field] = shown
    return kept


def _masked_field(name: FieldName, value: Json, notes: list[str]) -> tuple[FieldName, Json]:
    level, kind, key = name
    if kind == "tag":
        tag = masked_value("tag", key, notes)
        return (level, "tag", tag if isinstance(tag, str) and tag else MASK_FAILED), True
    if not key:
        return name, masked_value(kind, value, notes)
    if kind == "annotation":
        given = Annotation.from_json(value)
        shown = _masked_key(given.name, notes)
        value = masked_value(f"annotation.{given.name}", value, notes, f"annotation.{shown}")
        kept = Annotation.from_json(value)
        if kept.name in ("", given.name):
            kept = replace(kept, name=shown)
        # The key repeats name and annotator, so it is made of the masked ones.
        key = annotation_key(kept.name, kept.annotator)
        return (level, kind, key), {**value, "name": kept.name} if isinstance(value, dict) else value
    shown = _masked_key(key, notes)
    return (level, kind, shown), masked_value(f"{kind}.{key}", value, notes, f"{kind}.{shown}")


def without_credentials_in(name: FieldName, value: Json) -> Json:
    """Return the value of a field without credentials, if settings mask them: see `model.credentials`."""
    if not settings.in_force.masks_credentials:
        return MASKED if name[1] == "attribute" and name[2] in HEADERS and value else value
    return without_credentials_under(name[2], value) if name[1] in _KEYED else without_credentials(value)


def masked_value(path: str, value: Json, notes: list[str], shown: str | None = None) -> Json:
    """Return one value, with its keys, as the mask in force returns it; a replacement when the mask fails.

    Args:
        path: The path that the mask gets.
        value: JSON.
        notes: Gets a note for each change.
        shown: The path that notes may contain, where it differs: a key in *path* may have been masked.
    """
    mask = settings.in_force.mask
    if mask is None:
        return value
    shown = path if shown is None else shown
    try:
        # `Masking` would mask the keys as well, but cannot note which of them became the same.
        answer = clean((mask.values if type(mask) is Masking else mask)(path, value), notes, shown, CAPTURE_LIMITS)
    except BaseException as error:  # noqa: BLE001 # the mask is the application's; a value that it failed on must not leave
        pass_on(error)
        notes.append(f"{shown[:256]}: the mask failed; the value was replaced")
        return MASK_FAILED
    if not isinstance(answer, dict | list):
        return answer
    ask = cache(lambda key: _masked_key(key, notes))  # the keys of a table are few
    return with_keys(
        answer, ask, lambda key: notes.append(_same_keys(f"{shown}.{key}")), keeps_own=parts_of_a_field(path, answer)
    )


def masked_text_value(path: str, text: str) -> str:
    """Return a text as the mask in force returns it; always a text, as the name of a span has to be."""
    if settings.in_force.mask is None:
        return text
    kept = masked_value(path, text, [])
    return kept if isinstance(kept, str) and kept else MASK_FAILED


def loggable(note: str) -> str:
    """Return a note as it may be logged: without its keys when a mask is in force, because the mask may hide them."""
    if settings.in_force.mask is None:
        return note
    kind = re.split(r"[.:]", note, maxsplit=1)[0]
    return f"{kind}: with a mask in force the log does not say where"


def log_notes(function: str, notes: list[str]) -> None:
    """Log the notes of a call that has no receipt: about changed values as well as misfits."""
    log_misfits(function, [note if type(note) is Misfit else Misfit(loggable(note)) for note in notes])


def _masked_key(key: str, notes: list[str]) -> str:
    """Return a key as the mask in force returns it; a replacement when the mask fails or returns no text."""
    mask = settings.in_force.mask
    if mask is None:
        return key
    try:
        answer = mask(KEY_PATH, key)
        name = clean_key(answer, notes, KEY_PATH) if isinstance(answer, str) and answer else MASK_FAILED
    except BaseException as error:  # noqa: BLE001 # as in `masked_value`
        pass_on(error)
        name = MASK_FAILED
    if name == MASK_FAILED != key:
        notes.append("key: the mask failed; a key was replaced")
    return name


def _same_keys(shown: str) -> str:
    return f"{shown[:256]}: the mask made two keys the same; the later one was kept"


def _put_mapping(values: Values, level: Level, kind: Kind, given: Mapping[str, object], notes: list[str]) -> None:
    """Put each first-level key of *given* into *values*."""
    pairs = _pairs(given, notes, kind)
    if pairs is None:
        argument = "attributes" if kind == "attribute" else kind
        notes.append(misfit(argument, kind_of(given), "a mapping with string keys", "nothing of it was set"))
        return
    known = _known_keys.setdefault((level, kind), {})
    spelled: dict[str, Json] = {}
    for key, value in pairs:
        name = known.get(key) if type(key) is str else None
        if name is None:
            name = (level, kind, clean_key(key, notes, kind))
            if kind == "attribute" and is_field(name[2]):
                # As long as an input may be; `_put_fields` shortens everything else.
                spelled[name[2]] = clean(value, notes, f"attribute.{name[2]}", CAPTURE_LIMITS)
                continue
            if type(key) is str and name[2] == key and len(known) < MAX_KNOWN_KEYS:
                known[key] = SHARED_NAMES[name] = name
                if kind == "metadata" and level == "span" and not is_credential(key):
                    KNOWN_METADATA_KEYS[key] = f"metadata.{key}"
        values[name] = value if is_clean_scalar(value) else clean(value, notes, f"{kind}.{name[2]}")
    if spelled:
        _put_fields(values, spelled, notes)


def _pairs(given: object, notes: list[str], path: str) -> list[tuple[Any, Any]] | None:
    """Return the items of any mapping, read once; None if *given* is not a mapping.

    An object with `keys` and `__getitem__` is a mapping, whatever its class. A value that cannot be read leaves the
    others alone.
    """
    kind = type(given)
    if issubclass(kind, dict):
        # dict's own method, in one C call: neither a subclass nor a thread that changes it can break the iteration.
        return list(dict.items(given))  # type: ignore[arg-type] # a subclass of dict, as was just tested
    try:
        if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):
            mapping: Any = given
            pairs = []
            for key in islice(mapping.keys(), METADATA_LIMITS.nodes):
                try:
                    pairs.append((key, mapping[key]))
                except BaseException as error:  # noqa: BLE001 # as below
                    pass_on(error)
                    notes.append(f"{path}.{clean_key(key, [], path)}: reading it raised {type(error).__name__}")
            return pairs
    except BaseException as error:  # noqa: BLE001 # the mapping is the application's
        pass_on(error)
        notes.append(f"{path}: reading its keys raised {type(error).__name__}")
        return None
    as_json = clean(given, notes, path)
    return list(as_json.items()) if isinstance(as_json, dict) else None


def _put_fields(values: Values, attributes: dict[str, Json], notes: list[str]) -> None:
    """Put the fields that *attributes* spell: `session.id` is the session, however late it is set.

    The attributes of a live span are read the same way, so a late update has to mean the same. A field may have the
    same values as the argument of its name.
    """
    if "tag.tags" in attributes:
        _put_tags(values, "span", attributes.pop("tag.tags"), notes)
    fields, taken = read(attributes, _NO_VERSION)
    # The type of an input or output means nothing without it.
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
    if text is UNSET:
        return
    kind = name[1]
    cleaning: list[str] = []
    value = clean(text, cleaning, kind)
    if isinstance(value, int | float):  # a number for a user id is common
        value = json_text(value)
    if isinstance(value, str) and not any(map(is_opaque, cleaning)):
        values[name] = value
        notes += cleaning
    else:
        notes.append(misfit(kind, kind_of(text), "a text"))


def _cleaned_parts(kind: str, parts: Mapping[str, object], notes: list[str]) -> dict[str, Json]:
    kept: dict[str, Json] = {}
    for part, value in parts.items():
        if value is None or value is UNSET:
            continue
        path = f"{kind}.{part}"
        if part == "metadata":
            pairs = _pairs(value, notes, path)
            as_dict = {clean_key(key, notes, path): one for key, one in pairs or ()}
            item = clean(as_dict, notes, path) if pairs is not None else None
        else:
            item = clean(value, notes, path)
        if isinstance(item, bool) and part == "score":
            item = int(item)
        types, expected = _PARTS.get(part, ((str,), "a text"))
        if isinstance(item, types):
            kept[part] = item
        else:
            notes.append(misfit(part, kind_of(value), expected))
    return kept


def _put_tags(values: Values, level: Level, tags: object, notes: list[str]) -> None:
    if tags is UNSET:
        return
    items = _items(tags, notes)
    as_json = clean(items, notes, "tags")
    others: list[object] = []
    for tag, item in zip(as_json if isinstance(as_json, list) else (), items):  # noqa: B905 # the first may be cut
        if isinstance(tag, str) and tag:
            values[level, "tag", tag] = True
        else:
            others.append(item)
    if others:
        got = "an empty text" if type(others[0]) is str else kind_of(others[0])
        notes.append(misfit("tags", f"{got} among the texts", "texts"))


def _items(tags: object, notes: list[str]) -> list[object]:
    """Return the first `MAX_TAGS` items of any iterable, read once; a text is one tag."""
    kind = type(tags)
    items: list[object] = []
    try:
        if issubclass(kind, _TEXTS):
            return [tags]
        if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
            notes.append(misfit("tags", kind_of(tags), "an iterable of texts", "nothing was set"))
            return []
        if issubclass(kind, Mapping):
            notes.append(misfit("tags", kind_of(tags), "an iterable of texts", "its keys were taken"))
        iterable: Any = tags
        for item in islice(iterable, MAX_TAGS + 1):
            if len(items) == MAX_TAGS:
                notes.append(f"tags: cut after {MAX_TAGS}")
                break
            items.append(item)
    except BaseException as error:  # noqa: BLE001 # the iterable is the application's
        pass_on(error)
        notes.append(Misfit(f"tags: reading them raised {type(error).__name__} after {len(items)} tags"))
    return items


def _put_status(values: Values, status: object, notes: list[str]) -> None:
    code: str | int | None = None
    message: object = None
    try:
        code, message = read_status(status)
    except BaseException as error:  # noqa: BLE001 # an enumeration of the application's, whose value is its code
        pass_on(error)
    if code is None:
        expected = "'ok', 'error', OpenTelemetry's StatusCode or Status, or an integer code"
        notes.append(misfit("status", shown(status), expected))
    elif code != "unset":
        values["span", "status", ""] = code
    if message is not None:
        _put_text(values, _STATUS_MESSAGE, message, notes)


def read_status(status: object) -> tuple[str | int | None, object]:
    """Return "ok", "error", "unset" or an integer code, None for anything else; and the description of a `Status`.

    Words may have any case, and OTLP's prefix. A member of an enumeration means its word even if its value is a number:
    the number of `StatusCode.ERROR` is 2, which as a code would not be an error. A code of HTTP means itself. Every
    code of gRPC except OK is an error.
    """
    message: object = None
    if issubclass(type(status), Status):
        status, message = status.status_code, status.description  # type: ignore[attr-defined] # as was just tested
    if issubclass(type(status), enum.Enum):
        member: Any = status
        status = member.value
        if type(status) is tuple and status and type(status[0]) is int:  # grpc.StatusCode: (number, word)
            status = "error" if status[0] else "ok"
        word = _STATUS_WORD.fullmatch(member.name.lower())
        if word is not None and not (isinstance(status, int) and status >= _FIRST_CODE):
            return word[1], message
    code = clean(status, [], "status")
    if isinstance(code, str):
        text = code.strip().lower()
        word = _STATUS_WORD.fullmatch(text)
        if word is not None:
            return word[1], message
        code = int(text) if re.fullmatch(r"\d{1,10}", text, re.ASCII) else None
    elif isinstance(code, float) and code.is_integer():
        code = int(code)  # in pandas, a column of integers with gaps
    if isinstance(code, int) and not isinstance(code, bool) and 0 <= code < 1 << 31:
        return code, message
    return None, message
