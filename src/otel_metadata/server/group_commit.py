"""Group commit: what many requests bring at the same time is stored in one transaction.

A transaction costs more than the rows of a small request. So one thread writes. While it writes, requests wait in a
queue, and it stores all of them together when it is done. A request is answered only after its transaction.

An update that the server draws a version for is the last write, and wins, whatever the clocks of others say. A value
with a version from the future, such as a live value of a machine whose clock is ahead, would win over it. So the
writing thread reads the versions that are stored, for all requests of a group at once, and lifts the update above them.

Spans of a caller that may not update bring plain values, whose version is an end that the caller chooses. The writing
thread leaves out those for which the store has a value that somebody has set.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

from otel_metadata.client.updates import draw
from otel_metadata.errors import StoreError
from otel_metadata.live import live_settings
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER
from otel_metadata.model.times import MAX_NS
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import VersionReads
from otel_metadata.server.operations import Problem
from otel_metadata.server.problems import overloaded
from otel_metadata.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from otel_metadata.model.merge import FieldName, Fields, Version
    from otel_metadata.model.record import StoredSpan
    from otel_metadata.seams import SpanStore

MAX_ROWS: Final = 50_000
"""How many spans and updates wait at most."""

MAX_BYTES: Final = 64 << 20
"""How many bytes of spans and updates wait at most, as their senders count them."""

# Of one transaction, so that no other process waits long for its turn.
_GROUP_ROWS: Final = 5_000

# Of one transaction, whose values are in memory once more as text for the store.
_GROUP_BYTES: Final = 16 << 20

# A request that fails alone may be at fault itself. When so many fail one after the other, it is the store.
_FAILURES_OF_THE_STORE: Final = 3

_ROW_BYTES: Final = 1_024
"""The size of a span or an update whose sender does not count it."""

# What Python and SQLite say of a value that cannot be held. Later tries would fail as well. Any other error may be a
# fault of ours: a sender must not throw its spans away for it.
_OF_THE_VALUES: Final = (
    TypeError,
    ValueError,
    OverflowError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
)

Rows: TypeAlias = "Sequence[tuple[StoredSpan, Fields]]"
Patches: TypeAlias = "Sequence[tuple[str, str, Fields]]"
_Place: TypeAlias = "tuple[str, str, FieldName]"

"""The last time that a version can have."""

_OF_BOTH: Final = frozenset({"user_id", "session_id"})
"""Of these a span shows the later one of its own and its trace's."""


class _Waiting(NamedTuple):
    """What one request brings."""

    rows: Rows
    patches: Patches
    size: int
    is_stored: Future[Patches]
    wins: bool
    may_update: bool

    @property
    def length(self) -> int:
        return len(self.rows) + len(self.patches)


@final
class Ingest:
    """Stores what requests bring, in the order in which they come. Any thread may call it."""

    def __init__(
        self,
        store: SpanStore,
        draws_for: Callable[[int], bool] = lambda _: False,
        *,
        max_rows: int = MAX_ROWS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Start no thread yet.

        Args:
            store: Closed by whoever opened it, after this.
            draws_for: Whether the server draws the versions of a writer. Updates with such versions are lifted.
            max_rows: How many spans and updates wait at most.
            max_bytes: How many bytes wait at most.
        """
        self._store = store
        self._draws_for = draws_for
        self._fold = store.fold_later() if isinstance(store, SqliteStore) else None
        self._is_to_fold = False
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._rows = self._bytes = 0  # of the queue
        self._is_writing = self._is_closed = False
        self._thread: threading.Thread | None = None

    def put(
        self,
        rows: Rows,
        patches: Patches = (),
        size: int | None = None,
        *,
        may_write: bool = False,
        wins: bool = True,
        may_update: bool = True,
        is_answered: bool = False,
    ) -> Future[Patches]:
        """Queue spans and updates. The result, once they are on disk, is the updates with the versions that they got.

        A request that is larger than the queue is taken when nothing else waits. A future that is cancelled before its
        turn is not stored.

        Args:
            rows: Spans with their fields.
            patches: Updates, each (trace id, span id or "", fields).
            size: Their bytes, where the caller has them at hand.
            may_write: Whether this thread writes by itself if no other does. That saves two changes of threads.
            wins: Whether updates with versions that were drawn here are lifted above those that are stored.
            may_update: Whether the spans may replace values that somebody has set.
            is_answered: Whether the sender has its answer. Then the queue takes them even if it is full: another bound
                counts them (`Service.soon`).

        Raises:
            Problem: 503, because too much waits already, or the server stops. The future raises it as well.
        """
        waiting = _Waiting(rows, patches, 0, Future(), wins, may_update)
        if not waiting.length:
            waiting.is_stored.set_result(patches)
            return waiting.is_stored
        waiting = waiting._replace(size=waiting.length * _ROW_BYTES if size is None else size)
        group: list[_Waiting] = []
        with self._changed:
            if self._is_closed:
                raise overloaded("The server stops; try again in 1 s.")
            is_full = self._rows + waiting.length > self._max_rows or self._bytes + waiting.size > self._max_bytes
            if self._queue and is_full and not is_answered:
                raise overloaded(f"{self._rows:,} spans and updates wait to be stored; try again in 1 s.")
            self._queue.append(waiting)
            self._rows += waiting.length
            self._bytes += waiting.size
            if may_write and not self._is_writing:
                group = self._next_group()
            else:
                self._wake()
        if group:
            self._write(group)
        return waiting.is_stored

    @property
    def waiting_rows(self) -> int:
        """How many spans and updates wait."""
        return self._rows

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Refuse new requests and store the queue. Requests still queued after *timeout_seconds* are refused."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            is_done = self._changed.wait_for(lambda: not self._queue and not self._is_writing, timeout_seconds)
            left = self._taken(len(self._queue))
            thread = self._thread
        if is_done and thread is not None:
            thread.join()
        for one in left:
            if one.is_stored.set_running_or_notify_cancel():
                one.is_stored.set_exception(overloaded("The server stops; try again in 1 s."))

    def _wake(self) -> None:
        """Let the writing thread look at the queue. The lock is held."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="otel-metadata-ingest", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._is_writing or not (self._queue or self._is_to_fold):
                    if self._is_closed and not self._queue and not self._is_writing:
                        return
                    self._changed.wait()
                if self._queue:
                    group = self._next_group()
                else:
                    group, self._is_to_fold = [], False
            if group:
                self._write(group)
            elif self._fold is not None:
                self._fold()

    def _next_group(self) -> list[_Waiting]:
        """Take what is written next; only who has it writes. The lock is held."""
        self._is_writing = True
        count = rows = size = 0
        for one in self._queue:
            rows += one.length
            size += one.size
            if count and (rows > _GROUP_ROWS or size > _GROUP_BYTES):
                break
            count += 1
        return self._taken(count)

    def _write(self, group: list[_Waiting]) -> None:
        try:
            # From here on a future cannot be cancelled: it is stored, or it has an error.
            self._store_group([one for one in group if one.is_stored.set_running_or_notify_cancel()])
        finally:
            with self._changed:
                self._is_writing = False
                # Between requests: the sender makes its next one meanwhile.
                self._is_to_fold = self._fold is not None
                if self._queue or self._is_to_fold:
                    self._wake()
                self._changed.notify_all()

    def _taken(self, count: int) -> list[_Waiting]:
        group = [self._queue.popleft() for _ in range(count)]
        self._rows -= sum(one.length for one in group)
        self._bytes -= sum(one.size for one in group)
        return group

    def _store_group(self, group: list[_Waiting]) -> None:
        error = self._tried(group)
        if error is None:
            return
        if len(group) == 1 or _is_of_the_store(error):
            _refuse(group, error)
        else:
            self._store_each(group)
        # After all have their answers, because it raises where a test wants to see failures of ours.
        if not isinstance(error, StoreError):
            REPORTER.failed("server:ingest", error)

    def _store_each(self, group: list[_Waiting]) -> None:
        """Store each request by itself, so that a bad one harms no other."""
        failures = 0
        for index, one in enumerate(group):
            error = self._tried([one])
            if error is None:
                failures = 0
                continue
            _refuse([one], error)
            failures = 0 if _is_of_the_values(error) else failures + 1
            if failures == _FAILURES_OF_THE_STORE or _is_of_the_store(error):
                _refuse(group[index + 1 :], error)
                return

    def _tried(self, group: list[_Waiting]) -> BaseException | None:
        """Store requests together and answer them; return why none of them was stored."""
        patches: list[tuple[str, str, Fields]] = [patch for one in group for patch in one.patches]
        try:
            rows = self._rows_of(group)
            if rows:
                self._store.write_rows(rows)
            if patches:
                patches = self._lifted(patches, [one.wins for one in group for _ in one.patches])
                self._store.patch_rows(patches, route="late")
        except BaseException as error:  # noqa: BLE001 # the thread serves all requests, and each gets an answer
            return error
        stored = iter(patches)
        for one in group:
            one.is_stored.set_result([*islice(stored, len(one.patches))])
        return None

    def _rows_of(self, group: list[_Waiting]) -> list[tuple[StoredSpan, Fields]]:
        """Return the spans of requests, those of callers that may not update without what would replace an update."""
        places = {
            place
            for one in group
            if not one.may_update
            for span, fields in one.rows
            for name in fields
            for place in _shown_together(span.trace_id, span.span_id, name)
        }
        held = self._store.versions(places) if places and isinstance(self._store, VersionReads) else {}
        is_set = {place for place, version in held.items() if version[1] != PLAIN_ATTRIBUTE_WRITER}
        if not is_set:
            return [row for one in group for row in one.rows]

        def left(span: StoredSpan, fields: Fields) -> Fields:
            return {
                name: field
                for name, field in fields.items()
                if is_set.isdisjoint(_shown_together(span.trace_id, span.span_id, name))
            }

        return [(span, fields if one.may_update else left(span, fields)) for one in group for span, fields in one.rows]

    def _lifted(self, patches: list[tuple[str, str, Fields]], wins: list[bool]) -> list[tuple[str, str, Fields]]:
        """Return updates of which those that win, with versions drawn here, are above what others have stored."""
        drawn = {
            at: [*_places(patch, wins=wins[at])]
            for at, patch in enumerate(patches)
            if self._draws_for(_version_of(patch)[1])
        }
        asked = {place for places in drawn.values() for place in places}
        if not asked or not isinstance(self._store, VersionReads):
            return patches
        held = dict(self._store.versions(asked))
        if not held:
            return patches
        lifted = [*patches]
        for at, places in drawn.items():
            trace_id, span_id, fields = patches[at]
            version = _version_of(patches[at])
            above = [held[place] for place in places if self._is_to_lose(held.get(place), version)]
            if above:
                version = lifted_above(version, max(above))
                lifted[at] = trace_id, span_id, {name: (value, version) for name, (value, _) in fields.items()}
            # Of two updates in one group the later one is lifted above the earlier one.
            held |= {place: max(version, held.get(place, version)) for place in _set_places(patches[at])}
        return lifted

    def _is_to_lose(self, held: Version | None, drawn: Version) -> bool:
        """Whether a stored version that wins over one that was drawn here is not that of a later update.

        Versions that are drawn here are in the order of their updates. So a greater one is that of a later update, or
        it was lifted itself and is in the future.
        """
        if held is None or held < drawn:
            return False
        return not self._draws_for(held[1]) or held > next(draw(live_settings.VERSIONS, 1))


def lifted_above(version: Version, other: Version) -> Version:
    """Return a version with the same writer that is above *other*, as far as a time can be."""
    ns, writer = version
    return max(ns, min(other[0] + 1, MAX_NS)), writer


def _version_of(patch: tuple[str, str, Fields]) -> Version:
    """Return the version of an update; what is drawn here has one for all its fields."""
    return next((version for _, version in patch[2].values()), (0, 0))


def _places(patch: tuple[str, str, Fields], *, wins: bool) -> Iterator[_Place]:
    """Yield where an update may find values that win over its own. Of a tag the earliest version counts.

    An update with `If-Match` was compared with what is set on its span or trace. So only what is set on the spans of
    its trace is left.
    """
    trace_id, span_id, fields = patch
    for name in fields:
        level, kind, key = name
        if kind == "tag":
            continue
        if wins:
            yield trace_id, span_id if level == "span" else "", name
        if kind in _OF_BOTH:
            if level == "trace":
                yield trace_id, "", ("span", kind, key)  # on any span
            elif wins:
                yield trace_id, "", ("trace", kind, key)


def _set_places(patch: tuple[str, str, Fields]) -> Iterator[_Place]:
    """Yield where later updates of a group find what an update has set."""
    trace_id, span_id, fields = patch
    for name in fields:
        level, kind, _ = name
        yield trace_id, span_id if level == "span" else "", name
        if level == "span" and kind in _OF_BOTH:
            yield trace_id, "", name


def _shown_together(trace_id: str, span_id: str, name: FieldName) -> Iterator[_Place]:
    """Yield the places of which a span shows the value with the latest version."""
    level, kind, key = name
    yield trace_id, span_id if level == "span" else "", name
    if level == "span" and kind in _OF_BOTH:
        yield trace_id, "", ("trace", kind, key)


def _refuse(group: Sequence[_Waiting], error: BaseException) -> None:
    problem = _refusal(error)
    for one in group:
        one.is_stored.set_exception(problem)


def _refusal(error: BaseException) -> Problem:
    if _is_of_the_values(error):
        return Problem(400, f"The store does not take these values: {error}")
    if isinstance(error, StoreError):
        return overloaded(f"The store cannot be written: {error}")
    return overloaded("Internal error; the server's log has the details.")


def _is_of_the_store(error: BaseException) -> bool:
    """Whether the file is locked, the disk full, …: every other request would fail as well."""
    return isinstance(error, StoreError) and isinstance(error.__cause__, sqlite3.OperationalError)


def _is_of_the_values(error: BaseException) -> bool:
    """Whether a later try would fail as well: a value is at fault."""
    return isinstance(error.__cause__ if isinstance(error, StoreError) else error, _OF_THE_VALUES)
