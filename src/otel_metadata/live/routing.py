"""Where an update goes: onto the live span, else to the processors that hold the span, else out as a patch.

`delivery.outbox` decides about it after that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_metadata.live import ended_provider
from otel_metadata.live import live_settings as settings
from otel_metadata.live.misuse import Misfit
from otel_metadata.live.registry import (
    ATTRIBUTE_BYTES,
    LOCK,
    LOGGED_BYTES,
    LOGGED_KEY_BYTES,
    MAX_LOG,
    REGISTRY,
    SIDECAR_BYTES,
    LiveSpan,
    Router,
)
from otel_metadata.live.span_attributes import is_interrupted, list_tag, set_unseen, show
from otel_metadata.live.values import KNOWN_METADATA_KEYS, loggable, masked
from otel_metadata.model.receipt import Receipt, Refusal, Routed
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.model.value import METADATA_LIMITS, is_clean_scalar
from otel_metadata.model.weight import FIELD_BYTES, LARGE_BYTES, NO_LARGE, Weight, weigh_common, weigh_name, weigh_value
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from otel_metadata.live.values import Values
    from otel_metadata.model.merge import Field, FieldName, Version
    from otel_metadata.model.span_ref import SpanKey

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

_FULL: Final = Routed("dropped", "buffer_full")

_NOT_SHOWN: Final = (
    "not set as attributes on the span: the call interrupted OpenTelemetry in the lock of the same span. Destinations "
    "get the values"
)

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
        if message is not None:  # else the caller has logged its own
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
        and not is_interrupted(span)
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


def set_on_start(entry: LiveSpan, span: Span, values: Values, *, are_shared: bool = False) -> None:
    """Set masked values that a span has from its start, such as context metadata and options. There is no receipt.

    Args:
        entry: The span.
        span: The span itself.
        values: The values, by field name.
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
        show(span, entry, values)
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


def set_live_metadata(entry: LiveSpan, span: Span, metadata: object) -> Receipt | None:
    """Do what `set_live` does, for the most frequent update: a few keys seen before, with native values, no mask.

    It takes the same steps in one loop, because applications make this call on every request. If anything is out of the
    ordinary, it sets nothing and returns None.
    """
    config = settings.in_force
    if type(metadata) is not dict or entry.json_names or config.mask is not None or is_interrupted(span):
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
        return None  # the general way counts exactly, and leaves out attributes that have no room
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
                list_tag(entry, name, version)
            fields[name] = (value, version)
    if entry.large or weight.large:
        came = {name for name, value in values.items() if fields[name][0] is value}
        kept = {name: size for name, size in entry.large.items() if name not in came}
        entry.large = {**kept, **{name: size for name, size in weight.large.items() if name in came}}
    return version


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
    if is_shown and is_interrupted(span):
        is_shown = False
        notes = [*notes, _NOT_SHOWN]
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
        show(span, entry, values)
    # A span that was frozen a moment ago, but that no outbox has yet, takes the update all the same: the update is in
    # the sidecar and leaves with the span, so its route is live. In flight, it would be in the spool as well.
    return Receipt(version, entry.names, (entry.key, tuple(values)), told)
