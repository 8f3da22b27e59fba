"""The spans that are live in this process, with the fields that were set on them.

Theory of operation. A span enters when a `MetadataSpanProcessor` sees it start and leaves when it sees it end. While it
is here and open, an update is merged into its *sidecar*: the versioned fields, with exact values, beside the span. The
update also sets attributes on the span, for everybody else who reads it. Our destinations get the sidecar.

One lock decides. `LOCK` guards every sidecar and every outbox of the process; it is held briefly and never while
foreign code runs (no span method, no exporter, no callback). Starting and ending a span take no lock at all:

    start   the entry is put into `entries` (one atomic store)
    end     the entry is appended to the inbox of each outbox (atomic), then taken out of `entries`
    admit   an outbox takes its inbox in, under the lock, and closes the sidecar; it does so before it looks at anything

An update takes the lock. If it finds the span open, its fields are in the sidecar before any outbox reads it. If it
finds the span closed, each outbox admits the span first, and then joins the update to it. So an update is always in
exactly one of the two. The SDK freezes a span's attributes a moment before its processors hear of the end; an update in
that moment is in the sidecar in time, and leaves with the span.

The bound. `LiveRegistry.bytes` is the memory of the sidecars of open spans and of the attributes that show them, as
`model.weight` estimates it. An update that would exceed `LiveSettings.max_bytes` is lost (`buffer_full`), so the oldest
values stay; an update that replaces a value counts for the difference. When a span is closed its bytes are subtracted:
its outboxes count them from then on. A forked child begins at 0.

`LOCK` is re-entrant, because a finalizer (an abandoned generator) or a signal handler may end a span while its thread
holds the lock. Therefore nothing here iterates over a map that another entry may change, and state is consistent
between any two statements.

If you add a field to `LiveSpan`, remember that one is made for every span that starts.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, final

from opentelemetry import trace

from otel_metadata.interrupts import pass_on
from otel_metadata.locks import ReentrantLock
from otel_metadata.model.recent import RecentMap
from otel_metadata.model.weight import NO_LARGE, SHARED_NAMES, weigh_name, weigh_value
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded
    from opentelemetry.trace import Span, SpanContext

    from otel_metadata.live.capture_spans import CapturedSpan
    from otel_metadata.model.merge import Field, FieldName, Json, Level, Version
    from otel_metadata.model.receipt import Refusal, Routed
    from otel_metadata.model.snapshot import Snapshot
    from otel_metadata.model.span_ref import SpanKey, SpanRef
    from otel_metadata.model.unset import UnsetType
    from otel_metadata.model.weight import Weight

LOCK: Final = ReentrantLock()
"""Guards the in-memory state of the process: the registry and the outboxes.

A call that finds it held by its own thread comes from a finalizer or signal handler that interrupted one of our calls.
Such a call must not wait for another thread, because that thread may need the lock.
"""

REPORTER.hold_back_while(LOCK.is_held_by_current_thread)

# How many traces are remembered after their local root ended, for `update_trace`.
MAX_ROOTS: Final = 8_192

# Frequent updates that wait to be merged into a sidecar: enough to save the work for spans with a few of them.
MAX_LOG: Final = 32

SIDECAR_BYTES: Final = 480
"""Bytes of a span's first field, beside the field itself; measured with `tracemalloc`."""

ATTRIBUTE_BYTES: Final = 60
"""Bytes of an attribute that shows a field on the span and shares its value."""

LOGGED_BYTES: Final = 310
"""Bytes of an entry of `LiveSpan.log`."""

LOGGED_KEY_BYTES: Final = 110
"""Bytes of each key of such an entry, with its attribute, without a text."""

_NO_IDS: Final[Mapping[str, str]] = MappingProxyType({})


def _weigh_change(value: Json, held: Json) -> int:
    """Return the bytes by which a field grows when a text, or a value of another type, replaces its value."""
    if type(value) is str and type(held) is str and held.isascii():
        return len(value) - len(held)
    return weigh_value(value) - weigh_value(held)


def _weigh_fresh(name: FieldName, value: Json) -> int:
    """Return the bytes of a new field and its attribute; what is in the log has been shown on the span."""
    return weigh_name(name) + ATTRIBUTE_BYTES + weigh_value(value)


class Inbox(Protocol):
    """An outbox, as the registry sees it: it takes spans that end."""

    def arrive(self, entry: LiveSpan) -> None:
        """Take a span that ended, without a lock: it is admitted before anything else is decided."""
        ...

    def arrive_surely(self, entry: LiveSpan) -> None:
        """Take a span unless it has arrived: a call of `arrive` was interrupted at an unknown place."""
        ...


class Router(Protocol):
    """The span processor, as the live side sees it: it takes updates that no live span takes, for its destinations."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its destinations."""
        ...

    @property
    def outboxes(self) -> tuple[Inbox, ...]:
        """The outbox of each destination."""
        ...

    def knows(self, key: SpanKey) -> bool:
        """Whether one of its destinations holds or recently exported this span."""
        ...

    def take_in_spans(self) -> None:
        """Take in most of the spans that have ended; called without `LOCK`, so that a later call finds few."""
        ...

    def submit(
        self, target: SpanRef, fields: dict[FieldName, Field], weight: Weight, *, only_if_known: bool = False
    ) -> dict[str, Routed]:
        """Join the fields to the span in flight, or make a patch of them.

        Returns:
            Which of the two for each destination; nothing where the span had to be known and is not.
        """
        ...

    def submit_plain(
        self, target: SpanRef, key: SpanKey, version: Version, metadata: dict[str, Json]
    ) -> Mapping[str, Routed] | None:
        """Take the most frequent late update without looking at it; None, and nothing taken, where that cannot be."""
        ...

    def sync(self) -> None:
        """Write the updates that were just taken to the spool; called without `LOCK`."""
        ...

    def refused(self, reason: Refusal) -> None:
        """Count an update that was not accepted."""
        ...

    def abandoned(self, entry: LiveSpan) -> None:
        """Count the updates of a span that was collected without being ended."""
        ...

    def overflowed(self) -> None:
        """Count an update for which live spans have no room."""
        ...


@final
class LiveSpan(weakref.ref["Span"]):
    """A live span and its sidecar. It is a weak reference to the span, so that a span that nobody ends is collected.

    Defaults are in the class, because one of these is made for every span that starts.

    Attributes:
        key: (trace id, span id).
        root_key: The local root of its trace in this process; itself when it is the root.
        routers: Processors that saw the span start.
        names: The names of the destinations of those processors.
        outboxes: The outboxes of those processors.
        is_open: Whether the sidecar still takes fields; closed under `LOCK`.
        size: What `LiveRegistry.bytes` counts for it; 0 once it is closed.
        fields: The sidecar; None before the first field. Read under `LOCK`.
        log: Frequent updates that are not in `fields` yet: a version, and metadata by plain keys; at most MAX_LOG.
        large: The weights of the large values in `fields`.
        captured: Captured input and output, `UNSET` where nothing was captured: fields of the span as of its end. They
            are not in `fields`, because decoding them under `LOCK` takes long. The worker decodes them.
        updates: How many update calls it holds.
        lost_in: The outboxes that have counted those updates as lost, because the span will never end.
        ended: The ended span, once it has ended.
        attribute_names: The attributes that we set on the span; None before the first.
        shown_bytes: The bytes of the attributes whose value is their own: a JSON text, a copy of a list.
        json_names: The attributes whose text is JSON.
        shown_tags: The tags that the span shows, by level, with their first versions; see
            `span_attributes.list_tag`.
        captures: The captures that watch it.
        backend_ids: Ids that backends gave the span, and that updates brought.
    """

    key: SpanKey
    root_key: SpanKey
    routers: tuple[Router, ...] = ()
    names: tuple[str, ...]
    outboxes: tuple[Inbox, ...]
    log: list[tuple[Version, dict[str, Json]]]
    large: Mapping[FieldName, int] = NO_LARGE
    is_open: bool = True
    size: int = 0
    captured: tuple[Snapshot | UnsetType, Snapshot | UnsetType] | None = None
    updates: int = 0
    lost_in: tuple[object, ...] = ()
    ended: ReadableSpan | None = None
    attribute_names: set[str] | None = None
    shown_bytes: dict[str, int] | None = None
    json_names: list[str] | None = None
    shown_tags: dict[Level, dict[str, Version]] | None = None
    captures: tuple[CapturedSpan, ...] = ()
    backend_ids: Mapping[str, str] = _NO_IDS
    _fields: dict[FieldName, Field] | None = None

    @property
    def fields(self) -> dict[FieldName, Field] | None:
        """The sidecar; None before the first field. The caller holds `LOCK`, or the span is closed."""
        log = self.log
        if log:
            fields = self._fields
            if fields is None:
                fields = self._fields = {}
            is_weighed = self.is_open
            growth = 0
            # One entry at a time, and only higher versions: a signal handler may make an update in between. An entry is
            # merged before it is taken out, because the handler may raise.
            try:
                while log:
                    first = log[0]
                    version, metadata = first
                    change = LOGGED_BYTES + LOGGED_KEY_BYTES * len(metadata)
                    for key, value in metadata.items():
                        name: FieldName = ("span", "metadata", key)
                        name = SHARED_NAMES.get(name, name)
                        held = fields.get(name)
                        kind = type(value)
                        if kind is str:
                            change += len(value)  # type: ignore[arg-type] # the exact type was just tested
                        if held is None or held[1] < version:
                            if held is None:
                                change -= _weigh_fresh(name, value)
                            elif name in self.large:
                                change += self.large[name] - weigh_value(value)
                                self.large = {one: size for one, size in self.large.items() if one != name}
                            elif kind is str or kind is not type(held[0]):
                                change -= _weigh_change(value, held[0])
                            fields[name] = (value, version)
                    if log and log[0] is first:
                        growth -= change
                        del log[0]
            finally:
                if is_weighed:
                    self.grow(growth)
        return self._fields

    @fields.setter
    def fields(self, fields: dict[FieldName, Field] | None) -> None:
        self._fields = fields

    def grow(self, size: int) -> None:
        """Count that the sidecar takes *size* bytes more, or less; the caller holds `LOCK`, or the span is closed."""
        if self.is_open:
            if size > 0 and not self.size:
                size += SIDECAR_BYTES
            size = size if size + self.size >= 0 else -self.size
            self.size += size
            REGISTRY.bytes += size

    def close(self) -> None:
        """Take no more fields, and subtract their bytes from `LiveRegistry.bytes`; the caller holds `LOCK`."""
        REGISTRY.leaves(self)
        self.is_open = False
        size, self.size = self.size, 0
        REGISTRY.bytes -= size

    @property
    def merged(self) -> dict[FieldName, Field] | None:
        """The sidecar without the entries of `log`; may be read without the lock."""
        return self._fields

    @property
    def is_local_root(self) -> bool:
        """Whether it has no parent that a processor of ours has seen in this process."""
        return self.root_key == self.key


def _is_recording(context: Context | None) -> bool:
    """Whether the current span of a Context is recording, whoever made it."""
    try:
        return trace.get_current_span(context).is_recording()
    except Exception as error:  # noqa: BLE001 # a span of somebody else's
        pass_on(error)
        return False


@final
class _Left(dict[int, "tuple[int, tuple[Router, ...]]"]):
    """The updates and routers of spans before they left, by `id`; a dict that can be referred to weakly."""


@final
class LiveRegistry:
    """The live spans of the process, and the local root of each recent trace.

    Attributes:
        entries: The spans by key.
        inherited: Keys of the spans that were live in the parent when this process was forked.
        bytes: The memory of the sidecars of open spans. Changed under `LOCK`.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.entries: dict[SpanKey, LiveSpan] = {}
        self.inherited: frozenset[SpanKey] = frozenset()
        self.bytes = 0
        self._roots: RecentMap[int, SpanKey] = RecentMap(MAX_ROOTS)
        self._counting: list[weakref.ref[_Left]] = []
        self._gone: deque[weakref.ref[Span]] = deque()
        self._bury_later = self._gone.append

    def begin(
        self,
        span: Span,
        context: SpanContext,
        parent: SpanContext | None,
        router: Router,
        parent_context: Context | None = None,
    ) -> LiveSpan | None:
        """Enter a span that starts; return None if another router has entered it, and then only add this router.

        Args:
            span: The span.
            context: Its context.
            parent: Its parent's span context, None for a root.
            router: The processor that saw it start.
            parent_context: The Context that it starts in, None for the current one.
        """
        key = context[:2]
        known = self.entries.get(key)
        if known is not None and known() is span:
            known.routers += (router,)
            known.names += router.names
            known.outboxes += router.outboxes
            return None
        if self._gone:
            self.bury()
        entry = LiveSpan(span, self._bury_later)
        entry.key = key
        entry.routers = (router,)
        entry.names = router.names
        entry.outboxes = router.outboxes
        entry.log = []
        if parent is None or parent.is_remote:
            entry.root_key = self._roots[key[0]] = key
        else:
            above = self.entries.get((parent.trace_id, parent.span_id))
            if above is not None and router in above.routers:
                entry.root_key = above.root_key
            else:
                # A parent that lives, and that this router has not seen, is of another provider, of another process, or
                # older than the router: no destination gets it from here. One that has ended may have been seen.
                is_foreign = above is not None or _is_recording(parent_context)
                entry.root_key = self._local_root(key, None if is_foreign else self._roots.get(key[0]))
        self.entries[key] = entry
        return entry

    def take_unseen(self, entry: LiveSpan, parent: SpanContext | None) -> None:
        """Find the local root of a span that has ended and that no router saw start.

        Args:
            entry: The span, with its key.
            parent: Its parent's span context, None for a root.
        """
        is_inner = parent is not None and not parent.is_remote
        entry.root_key = self._local_root(entry.key, self._roots.get(entry.key[0]) if is_inner else None)

    def _local_root(self, key: SpanKey, known: SpanKey | None) -> SpanKey:
        """Return *known*, the root of the trace; if it is None, make the span itself the local root."""
        if known is None:
            known = self._roots[key[0]] = key
        return known

    def root_of(self, key: SpanKey) -> SpanKey | None:
        """Return the local root of a span or trace; None when this process does not know it."""
        entry = self.entries.get(key)
        return entry.root_key if entry is not None else self._roots.get(key[0])

    def drop(self, router: Router) -> None:
        """Remove a router that takes no more updates from the live spans, and let it count their updates as lost.

        A span that has just ended keeps its router: it is in the outboxes already.
        """
        self.bury()
        for portion in LOCK.portions(list(self.entries.values())):
            with LOCK:
                for entry in portion:
                    if router in entry.routers and entry.ended is None:
                        self._drop(router, entry)

    def _drop(self, router: Router, entry: LiveSpan) -> None:
        self.leaves(entry)
        # Counted first: to count it again, where an exception from outside interrupts us, does no harm.
        router.abandoned(entry)
        entry.routers = tuple(other for other in entry.routers if other is not router)
        entry.outboxes = tuple(outbox for other in entry.routers for outbox in other.outboxes)
        entry.names = tuple(name for other in entry.routers for name in other.names)
        if not entry.routers:
            entry.close()
            # Should its end be under way on another thread, its updates are not counted again.
            entry.updates = 0
            self.entries.pop(entry.key, None)

    def live_updates(self, router: Router) -> Callable[[], int]:
        """Return a function that counts the updates on spans of *router* that have not ended by now.

        The caller holds `LOCK` now, but not where it calls the function: there may be many spans. A span counts once,
        also where it ends meanwhile. An update that comes meanwhile may count.
        """
        left = _Left()
        self._counting = [*(one for one in self._counting if one() is not None), weakref.ref(left)]
        entries = list(self.entries.values())

        def count() -> int:
            total = 0
            for entry in entries:
                # These are read first: what was read after the span has ended is in `left` already.
                now = (entry.updates, entry.routers if entry.is_open else ())
                updates, routers = left.get(id(entry), now)
                total += updates if router in routers else 0
            return total

        return count

    def leaves(self, entry: LiveSpan) -> None:
        """Note the updates of a span that ends, or that a router leaves, for those who count."""
        for one in self._counting:
            left = one()
            if left is not None:
                left.setdefault(id(entry), (entry.updates, entry.routers if entry.is_open else ()))

    def after_fork(self) -> None:
        """Leave the live spans to the parent, which ends them; for the child they are spans of another process."""
        self.inherited = frozenset({*self.inherited, *self.entries})
        self.bytes = 0
        self._counting = []  # by threads that the child does not have
        for entry in [*self.entries.values()]:
            entry.size = 0
        self.entries = {}

    def bury(self) -> None:
        """Count the updates of spans that were collected before anybody ended them.

        This is not done in the collector's callback: an exception of a signal handler would be swallowed there.
        """
        if not self._gone:  # nearly always
            return
        for portion in LOCK.portions(range(len(self._gone))):
            with LOCK:
                for _ in portion:
                    self._bury_first()

    def _bury_first(self) -> None:
        gone = self._gone
        weak = gone[0] if gone else None
        if isinstance(weak, LiveSpan) and weak.ended is None and self.entries.get(weak.key) is weak:
            weak.close()
            for router in weak.routers:
                router.abandoned(weak)
            weak.updates = 0
            self.entries.pop(weak.key, None)
        if gone and gone[0] is weak:
            gone.popleft()


REGISTRY: Final = LiveRegistry()
"""The registry of this process."""


def _release_in_child() -> None:
    REGISTRY.after_fork()
    LOCK.release()


if hasattr(os, "register_at_fork"):
    # Held across the fork, so that the child never inherits it locked by a thread that it does not have, nor a state
    # half changed. The owners of the state decide which of it the child keeps.
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=_release_in_child)
