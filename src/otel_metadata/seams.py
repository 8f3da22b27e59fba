"""The interfaces between the parts: patch exporter, span sender, dialect, span store, clock; and the system's clock.

The implementations are elsewhere: exporters in `exporters` (for tests `exporters.memory`), dialects in `dialects` and
in `backends`, stores in `store`, the manual clock in `testing`.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, final, runtime_checkable

from otel_metadata.interrupts import pass_on
from otel_metadata.model.authors import AUTHORS, shown_author
from otel_metadata.reporting import after_fork_in_child

if TYPE_CHECKING:
    import pyarrow as pa
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 # a name in a signature; nothing is loaded

    from otel_metadata.model.encoding import Encoded, SpanView
    from otel_metadata.model.merge import FieldName, Fields, Level, Version
    from otel_metadata.model.outcome import Outcome
    from otel_metadata.model.patch import Patch
    from otel_metadata.model.record import (
        Found,
        FoundTraces,
        Histogram,
        Located,
        NamedKind,
        OutlineSpan,
        Retained,
        Route,
        SpanCount,
        SpanQuery,
        SpanRecord,
        StoredKey,
        StoredSpan,
        ValueRecord,
    )
    from otel_metadata.model.span_ref import SpanRef

__all__ = [
    "AuthorReads",
    "AuthorVersions",
    "Clock",
    "Convergence",
    "Dialect",
    "DurationStore",
    "PatchExporter",
    "ProjectStore",
    "RowStore",
    "SpanReads",
    "SpanSender",
    "SpanStore",
    "StoreWatch",
    "SystemClock",
    "VersionReads",
    "VersionSource",
    "WatchableStore",
    "takes",
]

Convergence: TypeAlias = Literal["versioned", "ordered", "add_only", "none"]
"""The result when the same updates arrive in another order. versioned: always the same state. ordered: the same state
when they are sent one at a time in ascending version. add_only: the first value of a key stays. none: each patch makes
another record."""


@runtime_checkable
class PatchExporter(Protocol):
    """Sends patches to one backend.

    One thread at a time calls it. It knows nothing of queues, retries or spans in flight: it tries once and returns the
    outcomes.

    Attributes:
        name: The backend's name, for people.
        max_batch: The largest number of patches in one call, at least 1.
        grace_millis: How long after a span's export was acknowledged the backend needs before it takes a patch for it.
        reports_missing: Whether it reports an unknown span (as `segment_not_found`).
        convergence: See `Convergence`.

    It may have one more attribute, the frozenset `found_by`: how it finds a span whose trace id is unknown. `"span_id"`
    means by the span id alone; the name of a backend means by the id that this backend gave the span
    (`SpanRef.backend_ids`). Without the attribute, the exporter gets only targets with a trace id.
    """

    name: str
    max_batch: int
    grace_millis: int
    reports_missing: bool
    convergence: Convergence

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        """Send *patches*, each for another target, and return one outcome for each, in order.

        A patch whose outcome is missing counts as a retry; an exception as a retry of all.
        """
        ...

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send everything that is buffered inside; True when nothing is left."""
        ...

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """Release resources. Called once, after the last export."""
        ...


def takes(exporter: PatchExporter, target: SpanRef) -> bool:
    """Whether an exporter can find *target*: always by a trace id, otherwise by its `found_by`."""
    if target.trace_id:
        return True
    found_by: frozenset[str] = getattr(exporter, "found_by", frozenset())
    if target.is_backend_only:
        return not found_by.isdisjoint(target.backend_ids)
    return "span_id" in found_by and target.span_id != 0


@runtime_checkable
class SpanSender(Protocol):
    """A span exporter that returns an `Outcome`; the worker prefers `send` to `export` where an exporter has it.

    It tries once: it neither waits nor tries again.
    """

    def send(self, spans: Sequence[ReadableSpan], *, timeout_millis: int) -> Outcome:
        """Send *spans* together and return one outcome for all of them.

        It may raise for a batch that cannot be encoded: the caller finds the span by sending fewer.

        Args:
            spans: Ended spans.
            timeout_millis: For the whole call, up to the last byte of the answer.
        """
        ...


class Dialect(Protocol):
    """How one backend spells metadata, evaluations, … as span attributes. Pure; called on the worker."""

    def encode(self, span: SpanView, fields: Fields, *, is_local_root: bool) -> Encoded:
        """Return the span's attributes with *fields* in this spelling, and the fields that it has no spelling for.

        Canonical keys that are spelled anew are removed. Never raises for fields that went through the clean-up.
        """
        ...


class SpanStore(Protocol):
    """Spans at rest, and the fields that were set on them."""

    def write(self, spans: Iterable[ReadableSpan]) -> None:
        """Store ended spans; one that is there already is replaced, its fields are kept and merged.

        Raises:
            StoreError: Nothing was written.
        """
        ...

    def write_rows(self, rows: Iterable[tuple[StoredSpan, Fields]], *, route: Route | None = None) -> None:
        """Store spans that are rows already, with their fields; as `write` otherwise.

        Args:
            rows: The spans and their fields.
            route: How the fields got here; None for "live" or "in_flight", by the version of each. A store that keeps
                no history need not keep routes.

        Raises:
            StoreError: Nothing was written.
        """
        ...

    def patch(self, patches: Iterable[Patch], *, timeout_millis: int | None = None) -> None:
        """Merge fields, whether or not their span is there yet; None waits for others as long as the store does.

        Raises:
            StoreError: Nothing was written.
        """
        ...

    def patch_rows(self, rows: Iterable[tuple[str, str, Fields]], *, route: Route = "late") -> None:
        """Merge fields of spans, each (trace id, span id, fields) with ids in hex digits; as `patch` otherwise.

        For many at once: to make objects for the ids of each would take much of the time of the write.

        Args:
            rows: The spans and their fields.
            route: As for `write_rows`.

        Raises:
            StoreError: Nothing was written.
        """
        ...

    def query(self, query: SpanQuery) -> list[SpanRecord]:
        """Return the records that *query* selects, newest first.

        Raises:
            StoreError: It cannot be read, or the query names a time and the store keeps no history.
        """
        ...

    def history(self, trace_id: str, span_id: str = "", field: FieldName | None = None) -> list[ValueRecord]:
        """Return every value that the fields of a span and of its trace have or had, newest first.

        A value that lost when it arrived is among them. The set is the same for any order and any repetition of the
        writes.

        Args:
            trace_id: 32 hex digits.
            span_id: 16 hex digits; "" for the fields of the trace alone.
            field: Only values of this field; None for all.

        Raises:
            StoreError: It cannot be read, or the store keeps no history.
        """
        ...

    def find(self, span_ids: Collection[str]) -> Mapping[str, StoredKey]:
        """Return where each of *span_ids* (16 hex digits) is stored: of several traces, that of the newest span.

        Raises:
            StoreError: It cannot be read.
        """
        ...

    def delete(self, keys: Collection[tuple[str, str]], version: Version) -> list[tuple[str, str]]:
        """Delete spans, each (trace id, span id) in hex digits, with everything set on them; return which were there.

        Spans and updates that are not newer than *version* are refused from then on, so that a span which is sent
        again, or an update that was under way, brings nothing back. With the last span of a trace go the fields of the
        trace.

        Raises:
            StoreError: Nothing was deleted.
        """
        ...

    def retain(self, before_ns: int | None, max_bytes: int | None) -> Retained:
        """Delete the oldest spans with everything set on them, in steps that let others write in between.

        No tombstones are left. What was set before the same time on spans that are not there is deleted as well.

        Args:
            before_ns: Delete spans that started before, in wall nanoseconds, and the tombstones from before; None for
                none.
            max_bytes: Delete spans until so much is stored; None for any size.

        Raises:
            StoreError: It cannot be written, and what was deleted until then stays deleted; or the store does not
                delete by age or size.
        """
        ...

    def export(self, query: SpanQuery) -> Iterator[pa.RecordBatch]:
        """Yield what *query* selects as batches of the table in `store.table`, at most a few ten megabytes each.

        Each span comes once, also while others write; no lock is held between batches.

        Raises:
            MissingExtraError: pyarrow is not installed.
            StoreError: It cannot be read.
        """
        ...

    def close(self) -> None:
        """Give back the connection, within about a second, also while another thread's write waits."""
        ...


@runtime_checkable
class SpanReads(Protocol):
    """Reads of a store that look at much in a short time: for pages that people wait for.

    The limit and the window of a query hold as in `SpanStore.query`. A read with `timeout_millis` ends soon after that
    time, with what it has found by then and the position down to which it has looked at every span; the next read goes
    on behind that position. Each read gets on, even with a timeout of 0.

    Every method raises `StoreError` if the store cannot be read.
    """

    def search(self, query: SpanQuery, *, timeout_millis: float | None = None) -> Found:
        """Return the records that *query* selects, newest first."""
        ...

    def outline(self, trace_id: str) -> list[OutlineSpan]:
        """Return the spans of a trace (32 hex digits), oldest start first."""
        ...

    def traces(self, query: SpanQuery, *, timeout_millis: float | None = None) -> FoundTraces:
        """Return the traces whose root *query* selects, newest root first."""
        ...

    def count(self, query: SpanQuery, *, timeout_millis: float | None = None) -> SpanCount:
        """Count the spans that *query* selects, up to its limit."""
        ...

    def histogram(
        self, query: SpanQuery, *, start_ns: int, width_ns: int, bars: int, timeout_millis: float | None = None
    ) -> Histogram:
        """Count the spans that *query* selects, and the errors among them, in *bars* parts of *width_ns* each."""
        ...

    def names(self, kind: NamedKind, *, level: Level = "span", prefix: str = "", limit: int = 1_000) -> list[str]:
        """Return metadata keys, tags, or names of evaluations that are in use and begin with *prefix*, in order."""
        ...


@runtime_checkable
class RowStore(Protocol):
    """A store whose export needs no pyarrow."""

    def export_rows(self, query: SpanQuery) -> Iterator[list[tuple[Any, ...]]]:
        """Yield what `SpanStore.export` yields, each span as a tuple in the order of `store.table.COLUMNS`.

        Raises:
            StoreError: It cannot be read.
        """
        ...


@runtime_checkable
class ProjectStore(Protocol):
    """A store that says for many spans at once whether they are of a project."""

    def locate(
        self, keys: Collection[tuple[str | None, str]], project: str | None
    ) -> Mapping[tuple[str | None, str], Located]:
        """Return where spans and traces are stored; those that are not stored are missing.

        Args:
            keys: (trace id or None, span id), or (trace id, "") for a trace. Of a span id in several traces, the spans
                of the project come first, then the newest.
            project: None for all: every span is then of the project.

        Raises:
            StoreError: The store cannot be read.
        """
        ...


@runtime_checkable
class DurationStore(Protocol):
    """A store that can change how long a span took, and nothing else of it."""

    def set_durations(self, durations: Iterable[tuple[str, str, int]]) -> None:
        """Move the ends of spans, each (trace id, span id, nanoseconds from its start); one that is not stored is left.

        A span that is written at the same time keeps everything else of its newer row.

        Raises:
            StoreError: Nothing was written.
        """
        ...


@runtime_checkable
class VersionReads(Protocol):
    """A store that says cheaply which versions its values have."""

    def versions(self, fields: Collection[tuple[str, str, FieldName]]) -> Mapping[tuple[str, str, FieldName], Version]:
        """Return the versions of fields; those that are not set are missing.

        Args:
            fields: The trace id, the span id ("" for a field of the trace), and the name of each. For a field of a span
                with the span id "", the version is the greatest one on any stored span of the trace.

        Raises:
            StoreError: It cannot be read.
        """
        ...


@runtime_checkable
class AuthorReads(Protocol):
    """A store that says cheaply which names its writers have."""

    def authors(self, writers: Collection[int]) -> Mapping[int, str]:
        """Return the names of writers; those without one are missing.

        Raises:
            StoreError: It cannot be read.
        """
        ...


class StoreWatch(Protocol):
    """The state of a store, as a value to compare."""

    def state(self) -> object:
        """Return a value that differs from the one before if the store was changed in between, by any process."""
        ...

    def close(self) -> None:
        """Give back the connection; the next call of `state` opens another."""
        ...


@runtime_checkable
class WatchableStore(Protocol):
    """A store that can say cheaply whether it was changed."""

    def watch(self) -> StoreWatch | None:
        """Return a watch of its own for each caller; None if no other process can change the store."""
        ...


class Clock(Protocol):
    """Time as a variable: `SystemClock` in production, `testing.ManualClock` in tests."""

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch; may jump."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since some moment; never goes back."""
        ...

    def wait(self, event: threading.Event, timeout_ns: int | None) -> bool:
        """Wait until *event* is set or the time is over; return whether it is set. None waits without limit."""
        ...


MAX_TIMEOUT_MILLIS: Final = 2_000_000_000
"""The longest wait, 23 days: longer ones are an error in some system calls, and end at once in others."""


def bounded_millis(timeout_millis: object, default_millis: int) -> int:
    """Return a time that a caller gave as whole milliseconds from 0 to `MAX_TIMEOUT_MILLIS`. Never raises.

    Args:
        timeout_millis: A number of any kind and size; below 0 it is 0.
        default_millis: Returned for None, NaN and anything that is not a number.
    """
    try:
        if isinstance(timeout_millis, int):
            return min(max(int(timeout_millis), 0), MAX_TIMEOUT_MILLIS)
        millis = float(timeout_millis)  # type: ignore[arg-type] # anything that is not a number raises
        return default_millis if math.isnan(millis) else int(min(max(millis, 0), MAX_TIMEOUT_MILLIS))
    except BaseException as error:  # noqa: BLE001 # numbers of other packages may raise anything
        pass_on(error)
        return default_millis


@final
class SystemClock:
    """The machine's clocks."""

    wall_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)

    @staticmethod
    def wait(event: threading.Event, timeout_ns: int | None) -> bool:
        """Wait on the event."""
        return event.wait(None if timeout_ns is None else min(max(timeout_ns, 0) / 1e9, MAX_TIMEOUT_MILLIS / 1e3))


@final
class VersionSource:
    """Versions: wall nanoseconds that only ever increase here, and a writer id that is new after a fork.

    Two processes never share a writer id (64 random bits), so no two updates share a version. Not safe by itself for
    several threads: whoever draws a version holds the lock under which it is used, so that versions are in the order of
    their use.

    Attributes:
        writer: The writer id of the next version.
    """

    def __init__(self, clock: Clock) -> None:
        """Start with a new writer id."""
        self._wall_ns = clock.wall_ns  # looked up once: every update draws a version
        self._last_ns = 0
        self.writer = _new_writer()
        self._earlier: set[int] = set()
        self._author: Callable[[], str] | None = None
        after_fork_in_child(self._renew)

    def next(self) -> Version:
        """Return a version above all that were returned before; the caller holds its lock."""
        now = self._wall_ns()
        # No call between reading and writing: a finalizer or signal handler cannot interrupt here.
        last = self._last_ns
        if now <= last:
            now = last + 1
        self._last_ns = now
        return now, self.writer

    def several(self, count: int) -> Iterator[Version]:
        """Draw *count* versions, ascending and above all that were drawn before; the caller holds its lock.

        They are made one after the other, when they are taken: that needs no lock.
        """
        first, writer = self.next()
        self._last_ns = first + max(count - 1, 0)
        return ((first + number, writer) for number in range(count))

    def sign(self, author: Callable[[], str]) -> None:
        """Give the writer a name in `AUTHORS`. One that has another name already is replaced by a new writer.

        Args:
            author: Returns the name. It is called again in a forked child, whose writer is new.
        """
        self._author = author
        name, own = author(), AUTHORS.own
        if own is not None and own[0] == self.writer and own[1] != shown_author(name):
            self._earlier.add(self.writer)
            writer = _new_writer()
            AUTHORS.add_own(writer, name)  # before its first version is drawn
            self.writer = writer
        else:
            AUTHORS.add_own(self.writer, name)

    def is_own(self, writer: int) -> bool:
        """Whether versions of *writer* were drawn here: with the name of now, or with an earlier one."""
        return writer == self.writer or writer in self._earlier

    def _renew(self) -> None:
        self.writer = _new_writer()
        self._earlier = set()
        if self._author is not None:
            AUTHORS.add_own(self.writer, self._author())


@final
class AuthorVersions:
    """Versions of one more author in this process: with a writer of their own, in one order with all others.

    Attributes:
        writer: The writer id of the next version.
    """

    def __init__(self, versions: VersionSource, author: str) -> None:
        """Draw from *versions*, under a new writer id whose name is *author*."""
        self._versions = versions
        self._author = author
        self.writer = _new_writer()
        after_fork_in_child(self._renew)

    def several(self, count: int) -> Iterator[Version]:
        """Draw *count* versions as `VersionSource.several` does; the caller holds its lock."""
        writer = self.writer
        # At each call: the names of other authors may have pushed this one out.
        AUTHORS.add_of_process(writer, self._author)
        return ((nanoseconds, writer) for nanoseconds, _ in self._versions.several(count))

    def _renew(self) -> None:
        self.writer = _new_writer()


def _new_writer() -> int:
    # 0 is the writer of plain span attributes (model.merge.PLAIN_ATTRIBUTE_WRITER).
    return int.from_bytes(os.urandom(8), "big") or 1
