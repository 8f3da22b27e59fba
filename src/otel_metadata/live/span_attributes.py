"""The attributes that show metadata on a live span, for everybody who reads the span.

Destinations get the sidecar. The attributes are set with the span's own setters, and take at most our share of the
span's attribute limit.
"""

from __future__ import annotations

import sys
from _thread import LockType
from typing import TYPE_CHECKING, Final, TypeAlias

from opentelemetry.trace import Status, StatusCode

from otel_metadata.dialects.canonical import (
    JSON,
    JSON_NAMES,
    NATIVE_NAMES,
    NATIVE_SCALARS,
    NOT_ATTRIBUTES,
    TEXT,
    is_native,
    native_name,
    spell,
    tags_attribute,
    texts,
    to_attributes,
)
from otel_metadata.live import live_settings as settings
from otel_metadata.live.registry import ATTRIBUTE_BYTES, LOCK, REGISTRY, LiveSpan
from otel_metadata.live.values import masked_value
from otel_metadata.model.encoding import is_error_status
from otel_metadata.model.snapshot import Snapshot, encoded, value_of
from otel_metadata.model.unset import UNSET

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from otel_metadata.live.values import Values
    from otel_metadata.model.merge import FieldName, Fields, Json, Level, Version
    from otel_metadata.model.unset import UnsetType

MAX_SHOWN: Final = 128
"""The most tags of a level, and the most JSON texts, that a span shows.

An attribute that lists something is set whole each time, so a list without a bound would slow every update down.
"""

_INPUT: Final[FieldName] = ("span", "input", "")
_OUTPUT: Final[FieldName] = ("span", "output", "")

# A list becomes a tuple on the span.
_COPY_BYTES: Final = sys.getsizeof(())

# A text of at most this length counts as a part of `ATTRIBUTE_BYTES`; most are the names of types, which are shared.
_SHORT: Final = 20

# A name of at most this length counts as a part of `ATTRIBUTE_BYTES`, or is known for the process.
_LONG_NAME: Final = 100

# Kinds whose parts are shown as attributes of their own.
_WITH_PARTS: Final = ("evaluation", "annotation")

# What the first tag of a span adds beside its text, as `tracemalloc` counts it.
_SHOWN_TAGS_BYTES: Final = 400

# The module of the SDK's spans.
_SDK: Final = "opentelemetry.sdk.trace"

_STATUS_MESSAGE: Final[FieldName] = ("span", "status_message", "")


def show(span: Span, entry: LiveSpan, values: Values) -> None:
    """Spell values as canonical attributes on a live span, within our share of its attribute limit."""
    before = len(entry.attribute_names or ())
    attributes = _within_budget(entry, _spelled(span, values, _tags_in(entry, values), entry))
    if attributes:
        span.set_attributes(attributes)
        _count_shown(entry, attributes, values, before)


def set_unseen(span: Span, values: Values) -> None:
    """Set masked values on a recording span of a provider that has no processor of ours: its exporters get them.

    Values that we set on it before are read from the span if it has `attributes`; OpenTelemetry's API has no getter.
    """
    attributes: Mapping[str, object] = getattr(span, "attributes", None) or {}
    groups = _spelled(span, values, _tags_on(attributes, values), None)
    merged: dict[str, AttributeValue] = {}
    named: list[str] = []
    for group, names in groups:
        merged.update(group)
        named.extend(names)
    before = texts(attributes.get(JSON_NAMES))
    # Not those that the SDK has evicted: the list is no longer than the span.
    json_names = [*(name for name in before if name in attributes and name not in merged), *named]
    if json_names != before:
        merged[JSON_NAMES] = json_names
    if merged:
        span.set_attributes(merged)


def set_captured(span: Span, given: Snapshot | UnsetType, result: Snapshot | UnsetType) -> None:
    """Set captured input and output as the span is about to end, with one call of the span's setter.

    They are plain values of the span: they have the version of its end, so a value that the application set for either
    wins. `UNSET` where nothing was captured.
    """
    if settings.in_force.mask is not None:
        given = given if given is UNSET else encoded(masked_value("input", value_of(given), []))
        result = result if result is UNSET else encoded(masked_value("output", value_of(result), []))
    entry = REGISTRY.entries.get(span.get_span_context()[:2])
    merged: Fields = {}
    if entry is not None:
        entry.captured = (given, result)
        merged = entry.merged or merged
    attributes: dict[str, AttributeValue] = {}
    if given is not UNSET and _INPUT not in merged:
        is_text = type(given) is str
        attributes["input.value"] = given if is_text else given[0]
        attributes["input.mime_type"] = TEXT if is_text else JSON
    if result is not UNSET and _OUTPUT not in merged:
        is_text = type(result) is str
        attributes["output.value"] = result if is_text else result[0]
        attributes["output.mime_type"] = TEXT if is_text else JSON
    if entry is not None and len(entry.attribute_names or ()) + len(attributes) > settings.in_force.max_attributes:
        pairs = [
            {name: attributes[name] for name in attributes if name.startswith(kind)} for kind in ("input", "output")
        ]
        attributes = _within_budget(entry, [(pair, []) for pair in pairs if pair])
    if attributes:
        span.set_attributes(attributes)


def is_interrupted(span: Span) -> bool:
    """Whether this call interrupts OpenTelemetry while it holds the lock of *span*.

    A signal handler or a finalizer may come there. The SDK's lock is not re-entrant, so a setter would wait for ever.
    """
    lock = getattr(span, "_lock", None)
    if type(lock) is not LockType or not lock.locked():
        return False
    frame: FrameType | None = sys._getframe(1)  # no other way is as quick; this is the rare case
    while frame is not None:
        if frame.f_globals.get("__name__") == _SDK and frame.f_locals.get("self") is span:
            return True
        frame = frame.f_back
    return False  # another thread holds it, for a moment


def list_tag(entry: LiveSpan, name: FieldName, version: Version) -> None:
    """Let the span show a tag that is new on it, while there is room; the caller holds `LOCK`."""
    level, _, tag = name
    if entry.shown_tags is None:
        entry.shown_tags = {}
        entry.grow(_SHOWN_TAGS_BYTES)
    shown = entry.shown_tags.setdefault(level, {})
    if len(shown) < MAX_SHOWN:
        shown.setdefault(tag, version)


def _count_shown(entry: LiveSpan, attributes: Mapping[str, AttributeValue], values: Values, before: int) -> None:
    """Count the memory of attributes on the span, without the values that they share with the sidecar.

    Args:
        entry: The span.
        attributes: The attributes that were set.
        values: The fields that they show.
        before: How many attributes of ours the span had.
    """
    growth = (len(entry.attribute_names or ()) - before) * ATTRIBUTE_BYTES
    sizes: dict[str, int] = {}
    for name, value in attributes.items():
        if type(value) is list:
            sizes[name] = _COPY_BYTES + 8 * len(value)
        elif type(value) is str and len(value) > _SHORT and not _is_in(value, values):
            # Once a container was encoded, the texts in it keep their UTF-8 form.
            sizes[name] = sys.getsizeof(value) + (0 if value.isascii() else len(value.encode()))
        if len(name) > _LONG_NAME:
            sizes[name] = sizes.get(name, 0) + sys.getsizeof(name)
    shown = entry.shown_bytes
    if not (growth or sizes or shown):
        return
    with LOCK:
        if sizes or shown:
            if shown is None:
                shown = entry.shown_bytes = {}
            for name in attributes:
                size = sizes.get(name, 0)
                if size or name in shown:
                    growth += size - shown.get(name, 0)
                    shown[name] = size
        entry.grow(growth)


def _is_in(text: str, values: Values) -> bool:
    """Whether the text of an attribute is one of the values, or a part of a verdict among them."""
    return any(
        text is value
        or (name[1] in _WITH_PARTS and type(value) is dict and any(text is part for part in value.values()))
        for name, value in values.items()
    )


_Group: TypeAlias = "tuple[dict[str, AttributeValue], list[str]]"
"""The attributes of one field, and the names of the attributes whose text is JSON. All are set, or none."""


def _spelled(span: Span, values: Values, tags: Mapping[Level, list[str]], entry: LiveSpan | None) -> list[_Group]:
    groups: list[_Group] = []
    for name, value in values.items():
        attribute = NATIVE_NAMES.get(name) or native_name(name)
        if attribute is not None and (type(value) in NATIVE_SCALARS or is_native(value)):
            groups.append(({attribute: value}, []))
        elif name in NOT_ATTRIBUTES:
            _set_part(span, name, value, values, entry)
        elif name[1] != "tag":
            groups.append(to_attributes(spell(name, value)))
    groups.extend(({tags_attribute(level): listed}, []) for level, listed in tags.items())
    return groups


def _within_budget(entry: LiveSpan, groups: list[_Group]) -> dict[str, AttributeValue]:
    """Return the attributes for which our share of the span's limit has room; the sidecar has every field anyway."""
    used = entry.attribute_names
    if used is None:
        used = entry.attribute_names = set()
    room = settings.in_force.max_attributes
    attributes: dict[str, AttributeValue] = {}
    json_names: list[str] = []
    listed = len(entry.json_names or ())
    for group, names in groups:
        new = {*group, JSON_NAMES} - used if names else {*group} - used
        # Attributes that are on the span already are always kept up to date.
        if names and listed + len(json_names) + len(names) > MAX_SHOWN and not used.issuperset(group):
            continue
        if len(used) + len(new) <= room:
            used |= new
            attributes.update(group)
            json_names.extend(names)
    if json_names or entry.json_names:
        before = [name for name in entry.json_names or () if name not in attributes]
        entry.json_names = [*before, *json_names]
        attributes[JSON_NAMES] = list(entry.json_names)
    return attributes


def _tags_in(entry: LiveSpan, values: Values) -> Mapping[Level, list[str]]:
    """Return the tags to show of the levels that *values* touches, in the order of their first versions.

    Only where *values* brings one of them: beyond `MAX_SHOWN` a tag is in the sidecar alone.
    """
    shown = entry.shown_tags or {}
    levels = {level for level, kind, tag in values if kind == "tag" and tag in shown.get(level, ())}
    listed: dict[Level, list[str]] = {}
    for level in levels:
        versions = shown[level].copy()  # another thread may add one
        listed[level] = sorted(versions, key=lambda tag: (versions[tag], tag))
    return listed


def _tags_on(attributes: Mapping[str, object], values: Values) -> Mapping[Level, list[str]]:
    """Return the tags of a span that we did not see start: those in its attributes, and those of *values*."""
    tags: dict[Level, dict[str, None]] = {}
    for level, kind, key in values:
        if kind == "tag":
            if level not in tags:
                tags[level] = dict.fromkeys(texts(attributes.get(tags_attribute(level))))
            tags[level][key] = None
    return {level: list(listed) for level, listed in tags.items()}


def _set_part(span: Span, name: FieldName, value: Json, values: Values, entry: LiveSpan | None) -> None:
    """Set a field that is part of the span itself; OpenTelemetry's own rules hold (`ok` is final)."""
    if name[1] == "name" and isinstance(value, str):
        span.update_name(value)
    elif name[1] == "status":
        message = values.get(_STATUS_MESSAGE)
        if message is None and entry is not None:
            with LOCK:
                message = (entry.fields or {}).get(_STATUS_MESSAGE, (None, None))[0]
        if is_error_status(value):
            span.set_status(Status(StatusCode.ERROR, message if isinstance(message, str) else None))
        else:
            span.set_status(Status(StatusCode.OK))
