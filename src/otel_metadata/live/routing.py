"""Where an update goes: onto the live span, else to the processors that hold the span, else out as a patch.

What an outbox then makes of it is in `delivery.outbox`.
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
from otel_metadata.live import ended_provider
from otel_metadata.live import live_settings as settings
from otel_metadata.live.misuse import Misfit
from otel_metadata.live.registry import (
    ATTRIBUTE_BYTES,
    INPUT,
    LOCK,
    LOGGED_BYTES,
    LOGGED_KEY_BYTES,
    MAX_LOG,
    MAX_SHOWN,
    OUTPUT,
    REGISTRY,
    SIDECAR_BYTES,
    LiveSpan,
    Router,
)
from otel_metadata.live.values import KNOWN_METADATA_KEYS, loggable, masked, masked_value
from otel_metadata.model.encoding import is_error_status
from otel_metadata.model.receipt import Receipt, Refusal, Routed
from otel_metadata.model.snapshot import Snapshot, encoded, value_of
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.model.unset import UNSET
from otel_metadata.model.value import METADATA_LIMITS, is_clean_scalar
from otel_metadata.model.weight import FIELD_BYTES, LARGE_BYTES, NO_LARGE, Weight, weigh_common, weigh_name, weigh_value
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from otel_metadata.live.values import Values
    from otel_metadata.model.merge import Field, FieldName, Fields, Json, Level, Version
    from otel_metadata.model.span_ref import SpanKey
    from otel_metadata.model.unset import UnsetType

__all__ = [
    "add_router",
    "refuse",
    "remove_router",
    "route",
    "routers",
    "set_captured",
    "set_late_metadata",
    "set_live",
    "set_on_start",
    "set_unseen",
]

_REFUSALS: Final[Mapping[Refusal, str]] = {
    "unsampled": "An update was dropped: its span is not sampled, so no backend will ever have it.",
    "not_configured": "An update was dropped: otel_metadata is not configured; call otel_metadata.configure() first.",
    "after_shutdown": "An update was dropped: it came after shutdown().",
    "no_current_span": "An update was dropped: there is no current span; open one with @observe or start_span, or name "
    "the span with update_span(target, ...).",
}

MAX_PLAIN_KEYS: Final = 8
"""The most keys of a late update that an outbox takes unweighed: updates that wait unweighed must be small."""

MAX_PLAIN_CHARS: Final = 256
"""The longest text in such an update."""

_MAX_TEXT_CHARS: Final = METADATA_LIMITS.text_chars

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

_FULL: Final = Routed("dropped", "buffer_full")

# The module of the SDK's spans.
_SDK: Final = "opentelemetry.sdk.trace"
_NOT_SHOWN: Final = (
    "not set as attributes on the span: the call interrupted OpenTelemetry in the lock of the same span. Destinations "
    "get the values"
)

_STATUS_MESSAGE: Final[FieldName] = ("span", "status_message", "")

_routers: tuple[Router, ...] = ()
_was_shut_down = False
_has_told_unseen = False

_UNSEEN: Final = (
    "An update was set on a span of another tracer provider than that of configure(): the exporters of that provider "
    "have it, the destinations of configure() do not. Call configure() after your own tracing is set up, or name the "
    "provider: configure(tracer_provider=...)."
)


def add_router(router: Router) -> None:
    """Let *router* take updates. The router that was added last takes updates of spans that no router has seen."""
    global _routers, _was_shut_down, _has_told_unseen  # noqa: PLW0603 # one for the process, replaced whole
    with LOCK:
        _routers = (*_routers, router)
        _was_shut_down = _has_told_unseen = False
        ended_provider.clear()


def routers() -> tuple[Router, ...]:
    """Return the routers that take updates now, in the order in which they were added."""
    return _routers


def remove_router(router: Router) -> None:
    """Let *router* take no more updates."""
    global _routers, _was_shut_down  # noqa: PLW0603 # one for the process, replaced whole
    with LOCK:
        _routers = tuple(other for other in _routers if other is not router)
        _was_shut_down = True


def refuse(reason: Refusal, notes: list[str] | None = None) -> Receipt:
    """Return a false receipt, and say why in the log, at most once a minute."""
    if reason == "no_current_span" and not _routers and not _was_shut_down:
        reason = "not_configured"  # that there is no span follows from it
    if reason != "after_shutdown" or not ended_provider.miss():
        message = _REFUSALS.get(reason)
        if message is not None:  # else the caller has said what it was called with
            REPORTER.tell(reason, message)
    for router in _routers:
        router.refused(reason)
    return Receipt.refused(reason, tuple(notes or ()))


def route(
    key: SpanKey,
    values: Values,
    notes: list[str],
    *,
    is_sampled: bool = True,
    ref: SpanRef | None = None,
    span: Span | None = None,
) -> Receipt:
    """Hand one update over where it can still go, and return a receipt that says where.

    Any thread. Waits briefly for `LOCK`, and for the disk if there is a spool. The only foreign code that it calls are
    the span's own setters.

    Args:
        key: The span, or the trace alone.
        values: Clean values; they are masked here.
        notes: What the clean-up changed.
        is_sampled: Whether the span is exported at all.
        ref: The span ref, if the caller has it; otherwise it is made from the key.
        span: The span itself, if the caller holds it. On a span of a provider without our processor the values are set
            directly.
    """
    if not values:
        if notes and not any(type(note) is Misfit for note in notes):
            REPORTER.tell("empty", f"An update sets nothing: {loggable(notes[0])}.")
        return Receipt.refused("empty", tuple(notes))
    values = masked(values, notes)
    if not is_sampled:
        return refuse("unsampled", notes)
    routers = _routers
    if not routers:
        return refuse("after_shutdown" if _was_shut_down else "not_configured", notes)
    entry = REGISTRY.entries.get(key)
    if entry is not None:
        receipt = set_live(entry, values, notes, ref)
        if receipt is not None:
            return receipt
    elif (
        span is not None
        and key not in REGISTRY.inherited
        and span.is_recording()
        and not _is_interrupted(span)
        and not any(router.knows(key) for router in routers)
    ):
        set_unseen(span, values)
        _tell_unseen()
        with LOCK:
            version = settings.VERSIONS.next()
        return Receipt(
            version,
            {"span": Routed("live", "its provider carries no MetadataSpanProcessor")},
            (key, tuple(values)),
            tuple(notes),
        )
    weight, _ = _weigh(values)
    target = ref if ref is not None else SpanRef(*key)
    for router in routers:
        router.take_in_spans()
    with LOCK:
        version = settings.VERSIONS.next()
        fields: dict[FieldName, Field] = {name: (value, version) for name, value in values.items()}
        routes: dict[str, Routed] = {}
        if len(routers) > 1:
            for router in routers:
                routes.update(router.submit(target, fields, weight, only_if_known=True))
        if not routes:
            routes = routers[-1].submit(target, fields, weight)
    # With a spool the update is on disk before the call returns. Not under the lock, because a disk may be slow.
    for router in routers:
        router.sync()
    return Receipt(version, routes, (target.key, tuple(values)), tuple(notes))


def _tell_unseen() -> None:
    """Log once for a pipeline: an application may have two providers, and mean it."""
    global _has_told_unseen  # noqa: PLW0603 # one for the process
    if not _has_told_unseen:
        _has_told_unseen = True
        REPORTER.tell("unseen", _UNSEEN)


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


def set_on_start(entry: LiveSpan, span: Span, values: Values, *, are_shared: bool = False) -> None:
    """Set masked values that a span has from its start, such as context metadata and options. There is no receipt.

    Args:
        entry: The span.
        span: The span itself.
        values: What to set.
        are_shared: Whether a Context holds the values anyway, so that they take no more memory here.
    """
    weight, shown = (Weight(FIELD_BYTES * len(values)), 0) if are_shared else _weigh(values)
    with LOCK:
        if not entry.is_open:
            return
        growth = _growth(entry, values, weight)
        has_room = are_shared or REGISTRY.bytes + growth + shown <= settings.in_force.max_bytes
        if has_room:
            _merge(entry, values, weight)
            entry.grow(growth)
    if has_room:
        _show(span, entry, values)
    else:
        REPORTER.tell("live_full", "Values of a span were dropped: live spans have no room for more.")


def _weigh(values: Values) -> tuple[Weight, int]:
    """Return what fields weigh, and the most bytes that their attributes may take; see `_count_shown`."""
    size = shown = 0
    large: dict[FieldName, int] = {}
    for name, value in values.items():
        weight = weigh_value(value)
        size += weigh_name(name) + weight
        shown += ATTRIBUTE_BYTES
        if type(value) is dict or type(value) is list:
            shown += weight
            if weight > LARGE_BYTES:
                large[name] = weight
    return Weight(size, large or NO_LARGE), shown


def _growth(entry: LiveSpan, values: Values, weight: Weight) -> int:
    """Return by how many bytes *values* make the sidecar grow; the caller holds `LOCK`."""
    held = entry.fields
    return weight.size - (weigh_common(held, values, entry.large) if held else 0)


def set_captured(span: Span, given: Snapshot | UnsetType, result: Snapshot | UnsetType) -> None:
    """Set captured input and output as the span is about to end, with one call of the span's setter.

    They are plain values of the span: they have the version of its end, so a value that the application set for either
    wins. `UNSET` where nothing was captured.
    """
    if settings.in_force.mask is not None:
        given = given if given is UNSET else encoded(masked_value("input", value_of(given), []))
        result = result if result is UNSET else encoded(masked_value("output", value_of(result), []))
    entry = REGISTRY.entries.get(span.get_span_context()[:2])
    said: Fields = {}
    if entry is not None:
        entry.captured = (given, result)
        said = entry.said or said
    attributes: dict[str, AttributeValue] = {}
    if given is not UNSET and INPUT not in said:
        is_text = type(given) is str
        attributes["input.value"] = given if is_text else given[0]
        attributes["input.mime_type"] = TEXT if is_text else JSON
    if result is not UNSET and OUTPUT not in said:
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


def set_live_metadata(entry: LiveSpan, span: Span, metadata: object) -> Receipt | None:
    """Do what `set_live` does, for the most frequent update: a few keys seen before, with native values, no mask.

    It takes the same steps in one loop, because applications make this call on every request. If anything is out of the
    ordinary, it sets nothing and returns None.
    """
    config = settings.in_force
    if type(metadata) is not dict or entry.json_names or config.mask is not None or _is_interrupted(span):
        return None
    given = metadata.copy()
    attributes: dict[str, AttributeValue] = {}
    size = LOGGED_BYTES
    for key, value in given.items():
        attribute = KNOWN_METADATA_KEYS.get(key) if type(key) is str else None
        if attribute is None or value is None:
            return None
        # A text, the usual value, is recognized without a call. A text with "://" may hold a password.
        kind = type(value)
        if kind is str:
            length = len(value)
            if length > _MAX_TEXT_CHARS or not value.isascii() or "\0" in value or "://" in value:
                return None
            size += length
        elif kind is not bool and not is_clean_scalar(value):
            return None
        attributes[attribute] = value
    size += LOGGED_KEY_BYTES * len(given)
    if not entry.size:
        size += SIDECAR_BYTES
    used = entry.attribute_names
    if used is None:
        used = entry.attribute_names = set()
    if not attributes or len(used) + len(attributes) > config.max_attributes:
        return None  # the general way counts exactly, and leaves out what has no room
    with LOCK:
        if not entry.is_open or REGISTRY.bytes + size > config.max_bytes:
            return None
        version = settings.VERSIONS.next()
        log = entry.log
        log.append((version, given))
        entry.size += size
        REGISTRY.bytes += size
        if len(log) > MAX_LOG:
            _ = entry.fields  # reading merges
        entry.updates += 1
    used.update(attributes)
    if span.is_recording():
        span.set_attributes(attributes)
    return Receipt(version, entry.names, (entry.key, given))


def set_late_metadata(ref: SpanRef, metadata: object) -> Receipt | None:
    """Do what `route` does, for the most frequent late update: a few keys seen before, clean values, no mask.

    Only the version is drawn here; the worker makes the fields and merges them. This costs a fraction of `route`. If
    anything is out of the ordinary, it takes nothing and returns None.
    """
    routers = _routers
    if (
        len(routers) != 1
        or type(metadata) is not dict
        or not 0 < len(metadata) <= MAX_PLAIN_KEYS
        or settings.in_force.mask is not None
    ):
        return None
    given = metadata.copy()
    for name, value in given.items():
        if type(name) is not str or name not in KNOWN_METADATA_KEYS:
            return None
        # A text, the usual value, is recognized without a call.
        if type(value) is str:
            if len(value) > MAX_PLAIN_CHARS or not value.isascii() or "\0" in value or "://" in value:
                return None
        elif not is_clean_scalar(value):
            return None
    key = (ref.trace_id, ref.span_id)
    if key in REGISTRY.entries or not ref.trace_id:
        return None
    router = routers[0]
    with LOCK:
        version = settings.VERSIONS.next()
        routes = router.submit_plain(ref, key, version, given)
    if routes is None:
        return None
    router.sync()
    return Receipt(version, routes, (key, given))


def _merge(entry: LiveSpan, values: Values, weight: Weight) -> Version:
    """Merge *values* into the sidecar with a new version; the caller holds `LOCK`.

    A version drawn under the lock is above all that are in the sidecar.
    """
    version = settings.VERSIONS.next()
    fields = entry.fields
    if fields is None:
        fields = entry.fields = {}
    for name, value in values.items():
        held = fields.get(name)
        # An update made by a signal handler may come between; of a tag the first version counts.
        if held is None or (name[1] != "tag" and held[1] < version):
            if name[1] == "tag":
                _list_tag(entry, name, version)
            fields[name] = (value, version)
    if entry.large or weight.large:
        came = {name for name, value in values.items() if fields[name][0] is value}
        kept = {name: size for name, size in entry.large.items() if name not in came}
        entry.large = {**kept, **{name: size for name, size in weight.large.items() if name in came}}
    return version


def _list_tag(entry: LiveSpan, name: FieldName, version: Version) -> None:
    """Let the span show a tag that is new on it, while there is room; the caller holds `LOCK`."""
    level, _, tag = name
    if entry.shown_tags is None:
        entry.shown_tags = {}
        entry.grow(_SHOWN_TAGS_BYTES)
    shown = entry.shown_tags.setdefault(level, {})
    if len(shown) < MAX_SHOWN:
        shown.setdefault(tag, version)


def set_live(entry: LiveSpan, values: Values, notes: list[str], ref: SpanRef | None = None) -> Receipt | None:
    """Merge masked values into the sidecar if it is open, then show them on the span; None when the span has ended.

    The backend ids of *ref* are kept, too: fields that a dialect cannot put on the span leave as a patch, which needs
    them.
    """
    span = entry()
    if span is None:
        return None
    REGISTRY.bury()  # their room is free
    weight, shown = _weigh(values)
    is_shown = span.is_recording()
    if is_shown and _is_interrupted(span):
        is_shown = False
        notes.append(_NOT_SHOWN)
    told = tuple(notes) if notes else ()
    with LOCK:
        if not entry.is_open:
            return None
        growth = _growth(entry, values, weight)
        # An update that makes nothing larger passes even when live spans have no room.
        if REGISTRY.bytes + growth + shown > max(settings.in_force.max_bytes, REGISTRY.bytes):
            for router in entry.routers:
                router.overflowed()
            version = settings.VERSIONS.next()
            return Receipt(version, dict.fromkeys(entry.names, _FULL), (entry.key, tuple(values)), told)
        version = _merge(entry, values, weight)
        entry.grow(growth)
        entry.updates += 1
        if ref is not None and ref.backend_ids:
            entry.backend_ids = {**entry.backend_ids, **ref.backend_ids}
    if is_shown:
        _show(span, entry, values)
    # A span that was frozen a moment ago, but that no outbox has yet, takes the update all the same: the update is in
    # the sidecar and leaves with the span, so its route is live. In flight, it would be in the spool as well.
    return Receipt(version, entry.names, (entry.key, tuple(values)), told)


def _is_interrupted(span: Span) -> bool:
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


def _show(span: Span, entry: LiveSpan, values: Values) -> None:
    """Spell values as canonical attributes on a live span, within our share of its attribute limit."""
    before = len(entry.attribute_names or ())
    attributes = _within_budget(entry, _spelled(span, values, _tags_in(entry, values), entry))
    if attributes:
        span.set_attributes(attributes)
        _count_shown(entry, attributes, values, before)


def _count_shown(entry: LiveSpan, attributes: Mapping[str, AttributeValue], values: Values, before: int) -> None:
    """Count the memory of attributes on the span, without the values that they share with the sidecar.

    Args:
        entry: The span.
        attributes: What was set.
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
