"""The canonical spelling: one field as span attributes, and back.

Every span processor and exporter of the application sees these attributes on a live span. The `otel` dialect exports
them, and a store reads them from spans that came without their fields.

Scalars and lists of one scalar type are native attributes. Every other value (null, dict, mixed list) is JSON text, and
`otel_metadata.json` lists the names of such attributes: no reader has to guess whether `"null"` was a word or a null,
and the result is the same with every SDK version (before 1.45 a null or dict vanishes with a warning).

A plain attribute has no time of its own; it is read as if it was set at its span's end. `otel_metadata.versions` has
the versions of fields that were set later, and `otel_metadata.author` the name of whoever set them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, cast

import orjson

from otel_metadata.model.attribute_names import NamesWithout
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import (
    PLAIN_ATTRIBUTE_WRITER,
    FieldName,
    Fields,
    Json,
    Kind,
    Level,
    Version,
    json_text,
)
from otel_metadata.model.value import CAPTURE_LIMITS, clean

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

JSON_NAMES: Final = "otel_metadata.json"
"""The attribute that lists the names of attributes whose text is JSON."""

VERSIONS: Final = "otel_metadata.versions"
"""The attribute that lists the versions of fields that were set after the span's end."""

AUTHOR: Final = "otel_metadata.author"
"""The attribute with the name of whoever set the fields that `VERSIONS` lists, if all have one author."""

AUTHORS_BY_WRITER: Final = "otel_metadata.authors"
"""The attribute in place of `AUTHOR` if they have several: a JSON object from writers to names."""

FIELDS: Final = "otel_metadata.fields"
"""The attribute with all fields of a span as they are, for a server of ours: values, versions and authors."""

NOT_ATTRIBUTES: Final[frozenset[FieldName]] = frozenset(
    {("span", "name", ""), ("span", "status", ""), ("span", "status_message", "")}
)
"""Fields that are parts of the span itself, not attributes."""

TEXT: Final = "text/plain"
JSON: Final = "application/json"
"""The two values of `input.mime_type` and `output.mime_type`."""

# Kinds of which a span has only one field: the attribute that holds its value.
_SINGLE: Final[dict[tuple[Level, Kind], str]] = {
    ("span", "input"): "input.value",
    ("span", "output"): "output.value",
    ("trace", "input"): "trace.input.value",
    ("trace", "output"): "trace.output.value",
    ("trace", "name"): "trace.name",
    ("span", "user_id"): "user.id",
    ("trace", "user_id"): "user.id",
    ("span", "session_id"): "session.id",
    ("trace", "session_id"): "session.id",
}
_ABOUT_FIELDS: Final = frozenset({JSON_NAMES, VERSIONS, AUTHOR, AUTHORS_BY_WRITER, FIELDS})
_ON_BOTH_LEVELS: Final = frozenset({"user_id", "session_id"})
_WRITER: Final = re.compile("[0-9a-f]{16}")
_WITH_MIME_TYPE: Final = frozenset({"input", "output"})
_TAGS: Final[Mapping[str, str]] = {"span": "tag.tags", "trace": "trace.tags"}
_LEVEL_PREFIX: Final[Mapping[Level, str]] = {"span": "", "trace": "trace."}

# (prefix, level, kind) of the kinds with a key, for reading; the longer prefix first.
_PREFIXES: Final[tuple[tuple[str, Level, Kind], ...]] = (
    ("trace.metadata.", "trace", "metadata"),
    ("metadata.", "span", "metadata"),
    ("trace.eval.", "trace", "evaluation"),
    ("eval.", "span", "evaluation"),
    ("trace.annotation.", "trace", "annotation"),
    ("annotation.", "span", "annotation"),
)

# Each canonical attribute begins with one of these, so one call tells that an attribute is none.
_BEGINNINGS: Final = (
    *("trace.", "metadata", "eval.", "annotation.", "tag.", "otel_metadata."),
    *("input.", "output.", "user.", "session."),
)
_NO_FIELDS: Final = NamesWithout(*_BEGINNINGS)
_EVALUATION_PARTS: Final = ("label", "score", "explanation", "source", "metadata")
_ANNOTATION_PARTS: Final = ("label", "score", "text", "annotator")


NATIVE_NAMES: Final[dict[FieldName, str]] = {}
"""Results of `native_name` so far: a look-up here saves the call."""

MAX_NATIVE_NAMES: Final = 8_192

NATIVE_SCALARS: Final = frozenset({str, int, float, bool})
"""Exact types whose values are attributes as they are."""


def is_native(value: Json) -> bool:
    """Whether an attribute can hold *value* as it is: a scalar, or a list of one scalar type."""
    kind = type(value)
    if kind in NATIVE_SCALARS:
        return True
    if kind is list:
        kinds = {type(item) for item in value}  # type: ignore[union-attr] # the exact type was just tested
        return len(kinds) <= 1 and kinds <= NATIVE_SCALARS
    return False


def native_name(name: FieldName) -> str | None:
    """Return the attribute of a metadata or attribute field; None for the other kinds.

    A field of these two kinds is one attribute, and a native value is written as it is. This is on the application's
    hot path, so results are kept: an application has few keys.
    """
    known = NATIVE_NAMES.get(name)
    if known is not None:
        return known
    level, kind, key = name
    if kind == "metadata":
        attribute = f"metadata.{key}" if level == "span" else f"trace.metadata.{key}"
    elif kind == "attribute":
        attribute = key
    else:
        return None
    if len(NATIVE_NAMES) < MAX_NATIVE_NAMES:
        NATIVE_NAMES[name] = attribute
    return attribute


def as_text(value: Json) -> str:
    """Return a text as it is, and any other value as its JSON text."""
    return value if isinstance(value, str) else json_text(value)


def spell(name: FieldName, value: Json) -> dict[str, Json]:
    """Return one field as attributes whose values are still JSON; empty for tags and for parts of the span itself."""
    level, kind, key = name
    attribute = native_name(name)
    if attribute is not None:
        return {attribute: value}
    single = _SINGLE.get((level, kind))
    if single is not None:
        if kind not in _WITH_MIME_TYPE:
            return {single: value}
        mime_type = TEXT if isinstance(value, str) else JSON
        return {single: as_text(value), single.removesuffix("value") + "mime_type": mime_type}
    if kind == "evaluation" and isinstance(value, dict):
        return {f"{_LEVEL_PREFIX[level]}eval.{key}.{part}": item for part, item in value.items()}
    if kind == "annotation" and isinstance(value, dict):
        stem = f"{_LEVEL_PREFIX[level]}annotation.{value.get('name')}."
        return {stem + part: item for part, item in value.items() if part != "name"}
    return {}


def spelled_names(name: FieldName, value: Json) -> set[str]:
    """Return every attribute that belongs to one field: those of *value*, and those of any earlier value.

    A live attribute can be overwritten but never removed: when an evaluation is set again without its explanation, the
    old explanation is still on the span. The set is empty for tags, which share one attribute.
    """
    level, kind, key = name
    names = set(spell(name, value))
    if kind == "evaluation":
        names.update(f"{_LEVEL_PREFIX[level]}eval.{key}.{part}" for part in _EVALUATION_PARTS)
    elif kind == "annotation" and isinstance(value, dict):
        names.update(f"{_LEVEL_PREFIX[level]}annotation.{value.get('name')}.{part}" for part in _ANNOTATION_PARTS)
    return names


def tags_attribute(level: Level) -> str:
    """Return the attribute that lists the tags of a level."""
    return _TAGS[level]


def to_attributes(spelled: Mapping[str, Json]) -> tuple[dict[str, AttributeValue], list[str]]:
    """Return attributes that every SDK version keeps, and the names of those whose text is JSON."""
    attributes: dict[str, AttributeValue] = {}
    json_names: list[str] = []
    for name, value in spelled.items():
        if is_native(value):
            attributes[name] = value
        else:
            attributes[name] = json_text(value)
            json_names.append(name)
    return attributes, json_names


def versions_text(fields: Fields) -> str:
    """Return the value of `VERSIONS`: a JSON list of [level, kind, key, nanoseconds, writer as 16 hex digits]."""
    return json_text([[*name, version[0], f"{version[1]:016x}"] for name, (_, version) in sorted(fields.items())])


def author_attributes(fields: Fields) -> dict[str, str]:
    """Return the attribute that says who set *fields*; none if no name is known.

    It is `AUTHOR` with the name of all writers. If not all have one name, it is `AUTHORS_BY_WRITER`: a JSON object from
    writers, as 16 hex digits, to names.
    """
    writers = {version[1] for _, version in fields.values()} - {PLAIN_ATTRIBUTE_WRITER}
    names = names_of(fields)
    if not names:
        return {}
    one, *others = sorted(set(names.values()))
    if others or len(names) < len(writers):
        return {AUTHORS_BY_WRITER: json_text({**names})}
    return {AUTHOR: one}


def names_of(fields: Fields) -> dict[str, str]:
    """Return the names of those who set *fields*, as far as they are known, by writer as 16 hex digits."""
    writers = sorted({version[1] for _, version in fields.values()} - {PLAIN_ATTRIBUTE_WRITER})
    return {f"{writer:016x}": name for writer in writers if (name := AUTHORS.name_of(writer)) is not None}


def fields_text(fields: Fields) -> str:
    """Return the value of `FIELDS`: a JSON object with `fields` and `authors`.

    `fields` is a list as that of `VERSIONS`, with each value behind its version; `authors` is as `AUTHORS_BY_WRITER`.
    """
    entries: list[Json] = [
        [*name, version[0], f"{version[1]:016x}", value] for name, (value, version) in sorted(fields.items())
    ]
    return json_text({"fields": entries, "authors": {**names_of(fields)}})


def note_authors(attributes: Mapping[str, object]) -> None:
    """Enter the names that `author_attributes` wrote into `AUTHORS`, for the writers that `VERSIONS` lists."""
    name, by_writer = attributes.get(AUTHOR), _parsed(attributes.get(AUTHORS_BY_WRITER))
    if name is None and by_writer is None:
        return  # nearly every span
    names = by_writer if isinstance(by_writer, dict) else {}
    for writer in {version[1] for version in versions(attributes).values()}:
        author = names.get(f"{writer:016x}", name)
        if isinstance(author, str):
            AUTHORS.add(writer, author)


def read(attributes: Mapping[str, object], version: Version) -> tuple[dict[FieldName, tuple[Json, Version]], set[str]]:
    """Return the fields that canonical attributes spell, and the names of those attributes.

    A field has its version from `VERSIONS`, else *version*, which is that of the span's end. OpenInference's `metadata`
    (one JSON object as text) is read as well.
    """
    json_names = texts(attributes.get(JSON_NAMES))
    values: dict[FieldName, Json] = {}
    taken: set[str] = set()
    verdicts: dict[tuple[Level, Kind, str], dict[str, Json]] = {}
    for name, raw in attributes.items():
        if not name.startswith(_BEGINNINGS) and name not in json_names:
            continue
        value = _json(name, raw, json_names)
        match = next((one for one in _PREFIXES if name.startswith(one[0])), None)
        if match is not None:
            found = _read_part(name, value, match, verdicts)
        else:
            found = _read_single(name, value, attributes)
            if found is None and name in json_names:
                found = {("span", "attribute", name): value}  # an attribute of the application's own that is JSON
        if found is not None:
            values.update(found)
            taken.add(name)
    for (level, kind, key), parts in verdicts.items():
        if kind == "evaluation":
            values[level, kind, key] = Evaluation.from_json(key, parts).to_json()
        else:
            note = Annotation.from_json({"name": key, **parts})
            values[level, kind, annotation_key(key, note.annotator)] = note.to_json()
    listed = versions(attributes)
    return dict(_at_version(name, value, listed, version) for name, value in values.items()), taken


def spell_nothing(attributes: Mapping[str, object]) -> bool:
    """Whether `read` and `versions` find nothing in *attributes*, as in those of nearly every span."""
    return _NO_FIELDS.include(attributes.keys())


def is_field(name: str) -> bool:
    """Whether an attribute of this name spells a field of its span, or several fields, by itself.

    False for a part of an evaluation or annotation, whose parts are one field together, and for fields of the trace.
    """
    return name.startswith("metadata.") or name in _FIELD_NAMES


def _at_version(
    name: FieldName, value: Json, listed: Mapping[FieldName, Version], otherwise: Version
) -> tuple[FieldName, tuple[Json, Version]]:
    """Return a field with its version, under the level at which it was set."""
    _, kind, key = name
    if kind in _ON_BOTH_LEVELS:
        # Both levels share one attribute, which has the later of their two values.
        both: list[FieldName] = [(at, kind, key) for at in _LEVEL_PREFIX if (at, kind, key) in listed]
        name = max(both, key=lambda one: (listed[one], one), default=name)
    return name, (value, listed.get(name, otherwise))


def versions(attributes: Mapping[str, object]) -> dict[FieldName, Version]:
    """Return the versions that `VERSIONS` lists; entries that `versions_text` would not write are ignored."""
    listed: dict[FieldName, Version] = {}
    entries = _parsed(attributes.get(VERSIONS))
    for one in entries if isinstance(entries, list) else ():
        if not isinstance(one, list) or [type(part) for part in one] != [str, str, str, int, str]:
            continue
        level, kind, key, nanoseconds, writer = cast("tuple[Level, Kind, str, int, str]", one)
        if 0 <= nanoseconds < 1 << 63 and _WRITER.fullmatch(writer):
            listed[level, kind, key] = (nanoseconds, int(writer, 16))
    return listed


def _read_part(
    name: str,
    value: Json,
    match: tuple[str, Level, Kind],
    verdicts: dict[tuple[Level, Kind, str], dict[str, Json]],
) -> dict[FieldName, Json] | None:
    """Return the metadata that an attribute spells; a part of a verdict goes to *verdicts*. None for anything else."""
    prefix, level, kind = match
    rest = name.removeprefix(prefix)
    if kind == "metadata":
        return {(level, kind, rest): value}
    key, _, part = rest.rpartition(".")
    if not key or part not in (_EVALUATION_PARTS if kind == "evaluation" else _ANNOTATION_PARTS):
        return None
    verdicts.setdefault((level, kind, key), {})[part] = value
    return {}


def _read_single(name: str, value: Json, attributes: Mapping[str, object]) -> dict[FieldName, Json] | None:
    """Return the fields that an attribute spells by itself; None for an attribute that is not canonical."""
    if name in _ABOUT_FIELDS:
        return {}
    if name in {"tag.tags", "trace.tags"}:
        level: Level = "span" if name == "tag.tags" else "trace"
        return {(level, "tag", tag): True for tag in texts(value)}
    if name == "metadata":
        found = _parsed(value)
        return {("span", "metadata", key): item for key, item in found.items()} if isinstance(found, dict) else None
    field = _SINGLE_NAMES.get(name)
    if field is None:
        is_mime_type = name.endswith(".mime_type") and name.removesuffix("mime_type") + "value" in _SINGLE_NAMES
        return {} if is_mime_type else None
    if field[1] in _WITH_MIME_TYPE and attributes.get(name.removesuffix("value") + "mime_type") == JSON:
        value = _parsed(value)
    return {field: value}


# Reversed: `user.id` and `session.id` are spelled alike on both levels, and are read as the span's.
_SINGLE_NAMES: Final[Mapping[str, FieldName]] = {
    attribute: (level, kind, "") for (level, kind), attribute in reversed(_SINGLE.items())
}


_FIELD_NAMES: Final = frozenset(
    {"metadata", "tag.tags", "input.mime_type", "output.mime_type"}
    | {name for name, (level, _, _) in _SINGLE_NAMES.items() if level == "span"}
)


def _json(name: str, raw: object, json_names: Iterable[str]) -> Json:
    if isinstance(raw, tuple):
        return list(raw)
    if name in json_names:
        return _parsed(raw)
    return raw  # type: ignore[return-value] # an attribute value is JSON but for the tuple above


def _parsed(raw: object) -> Json:
    """Return the value of a JSON text; the text itself when it is not JSON."""
    if not isinstance(raw, str):
        return raw  # type: ignore[return-value] # an attribute value that is no text
    try:
        # Another program may have written it: deeper, longer or with larger integers than we can write again.
        return clean(orjson.loads(raw), [], "", CAPTURE_LIMITS)
    except orjson.JSONDecodeError:
        return raw


def texts(value: object) -> list[str]:
    """Return the texts of an attribute that lists texts; a bare text is a list of one."""
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []
