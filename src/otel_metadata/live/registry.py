"""The spans that are live in this process, with the fields that were set on them.

Theory of operation. A span enters when a `MetadataSpanProcessor` sees it start and leaves when it sees it end. While it
is here and open, an update is merged into its *sidecar*: the versioned fields, exact, beside the span. Attributes are
set on the span as well, for everybody else who reads it, but what our destinations get is the sidecar.

One lock decides. `LOCK` guards this registry and every outbox of the process; it is held for microseconds and never
while foreign code runs (no span method, no exporter, no callback). Ending a span closes its sidecar and puts the span
into the outboxes under one holding of the lock, so an update finds it either here and open, or there and queued: never
in neither, never in both. The SDK freezes a span's attributes a moment before its processors hear of the end; an update
in that moment is in the sidecar in time, and leaves with the span.

`LOCK` is re-entrant, because a finalizer (an abandoned generator) or a signal handler may end a span while its thread
holds the lock. Therefore nothing here iterates over a map that another entry may change, and state is consistent
between any two statements.

If you add a field to `LiveSpan`, remember that one is made for every span that starts.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded
    from opentelemetry.trace import Span, SpanContext

    from otel_metadata.live.captured import CapturedSpan
    from otel_metadata.model.merge import Field, FieldName
    from otel_metadata.model.receipt import Refusal, Routed
    from otel_metadata.model.span_ref import SpanKey, SpanRef

__all__ = ["LOCK", "REGISTRY", "LiveRegistry", "LiveSpan", "Router"]

LOCK: threading.RLock = threading.RLock()  # type: ignore[valid-type] # a factory function before Python 3.13
"""Guards the in-memory state of the process: the registry and the outboxes."""

# How many traces are remembered after their local root ended, for `update_trace`; about 150 bytes each.
MAX_ROOTS: Final = 16_384


class Router(Protocol):
    """What takes an update that no live span takes: the span processor, for its destinations."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its destinations."""
        ...

    def knows(self, key: SpanKey) -> bool:
        """Whether one of its destinations holds or recently exported this span."""
        ...

    def submit(self, target: SpanRef, fields: dict[FieldName, Field]) -> dict[str, Routed]:
        """Join the fields to the span in flight, or make a patch of them; say which for each destination."""
        ...

    def take(self, key: SpanKey, span: ReadableSpan, entry: LiveSpan) -> None:
        """Take an ended span with its closed sidecar; the caller holds `LOCK`."""
        ...

    def refused(self, reason: Refusal) -> None:
        """Count an update that was not accepted."""
        ...

    def abandoned(self, entry: LiveSpan) -> None:
        """Count the updates of a span that was collected without being ended."""
        ...


class _WeakSpan(weakref.ref["Span"]):
    """A weak reference that knows its key: a span that nobody ends must not be kept alive by us."""

    __slots__ = ("key",)
    key: SpanKey


@final
class LiveSpan:
    """A span that is live, and its sidecar.

    Attributes:
        key: (trace id, span id).
        root_key: The local root of its trace in this process; itself when it is the root.
        routers: Who gets it when it ends.
        names: The names of their destinations.
        is_open: Whether the sidecar still takes fields.
        fields: The sidecar; None before the first field.
        updates: How many update calls it holds.
        attribute_names: The attributes that we set on the span; None before the first.
        json_names: Those among them whose text is JSON.
        captures: The captures that watch it.
    """

    __slots__ = (
        "_span",
        "attribute_names",
        "captures",
        "fields",
        "is_open",
        "json_names",
        "key",
        "names",
        "root_key",
        "routers",
        "updates",
    )

    def __init__(self, key: SpanKey, root_key: SpanKey, span: _WeakSpan, router: Router) -> None:
        """Open it."""
        self.key = key
        self.root_key = root_key
        self._span = span
        self.routers: tuple[Router, ...] = (router,)
        self.names = router.names
        self.is_open = True
        self.fields: dict[FieldName, Field] | None = None
        self.updates = 0
        self.attribute_names: set[str] | None = None
        self.json_names: list[str] | None = None
        self.captures: tuple[CapturedSpan, ...] = ()

    @property
    def span(self) -> Span | None:
        """The span itself; None when it was collected."""
        return self._span()

    @property
    def is_local_root(self) -> bool:
        """Whether its parent is in another process, or there is none."""
        return self.root_key == self.key


@final
class LiveRegistry:
    """The live spans of the process, and the local root of each recent trace."""

    def __init__(self) -> None:
        """Start empty."""
        self.entries: dict[SpanKey, LiveSpan] = {}
        self.inherited: frozenset[SpanKey] = frozenset()
        self._roots: dict[int, SpanKey] = {}

    def begin(self, span: Span, context: SpanContext, parent: SpanContext | None, router: Router) -> LiveSpan | None:
        """Enter a span that starts; None when another router has entered it already and this one was only added.

        Args:
            span: The span.
            context: Its context.
            parent: Its parent's context, None for a root.
            router: The processor that saw it start.
        """
        key = (context.trace_id, context.span_id)
        weak = _WeakSpan(span, self._collected)
        weak.key = key
        with LOCK:
            known = self.entries.get(key)
            if known is not None:
                known.routers += (router,)
                known.names += router.names
                return None
            if parent is None or parent.is_remote:
                root_key = key
                self._roots[key[0]] = key
                if len(self._roots) > MAX_ROOTS:
                    self._roots.pop(next(iter(self._roots)), None)
            else:
                above = self.entries.get((parent.trace_id, parent.span_id))
                root_key = above.root_key if above is not None else self._roots.get(key[0], key)
            entry = self.entries[key] = LiveSpan(key, root_key, weak, router)
        return entry

    def root_of(self, key: SpanKey) -> SpanKey | None:
        """Return the local root of a span or trace as far as it is known here."""
        with LOCK:
            entry = self.entries.get(key)
            return entry.root_key if entry is not None else self._roots.get(key[0])

    def end(self, key: SpanKey) -> LiveSpan | None:
        """Close a span that ends and let it go; the caller holds `LOCK`."""
        entry = self.entries.pop(key, None)
        if entry is not None:
            entry.is_open = False
        return entry

    def live_updates(self, router: Router) -> int:
        """Return how many updates wait on spans of *router* that have not ended."""
        with LOCK:
            return sum(entry.updates for entry in list(self.entries.values()) if router in entry.routers)

    def after_fork(self) -> None:
        """Leave the live spans to the parent: it ends them, and in the child they are spans of another process."""
        self.inherited = frozenset({*self.inherited, *self.entries})
        self.entries = {}

    def _collected(self, weak: weakref.ref[Span]) -> None:
        # Called by the collector, on any thread: a span of the application that nobody ended.
        with LOCK:
            entry = self.entries.get(weak.key)  # type: ignore[attr-defined] # every reference here is a _WeakSpan
            if entry is None or entry._span is not weak:
                return
            del self.entries[entry.key]
            entry.is_open = False
            for router in entry.routers:
                router.abandoned(entry)


REGISTRY: Final = LiveRegistry()
"""The one of this process."""


def _acquire() -> None:
    LOCK.acquire()


def _release() -> None:
    LOCK.release()


def _release_in_child() -> None:
    REGISTRY.after_fork()
    LOCK.release()


if hasattr(os, "register_at_fork"):
    # Held across the fork, so that the child never inherits it locked by a thread that it does not have, nor a state
    # half changed. What the child may keep of it is decided by the owners of the state.
    os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_release_in_child)
