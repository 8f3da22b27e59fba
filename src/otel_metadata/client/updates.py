"""Apply the rows of a frame to their spans: in a store, or through a destination's patch exporter.

`client.columns` decides what a row means. This module gives each row a version, finds its span, and reports the row
as updated, or as failed with a reason. A row is one patch, so it is applied whole or not at all.

A store is written in parts of about `PART_FIELDS`, each a transaction, so that other processes get their turn. A
destination gets batches of its own size; a patch that it answers with a retry is tried a few times while the caller
waits, and a destination that is down or paused ends the call: the rest fails with its answer instead of waiting for
each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Final, final

from otel_metadata.client.columns import TRACE_ID, TRACEPARENT, Rows
from otel_metadata.client.report import MAX_NOTES, UpdateReport, span_error
from otel_metadata.delivery.foreign_parts import outcomes_of, run_suppressed
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.delivery.verdict import NO_ANSWER, Again, Arrived, Tried, Verdict, verdict
from otel_metadata.errors import ConfigurationError, SpanNotFoundError, StoreError
from otel_metadata.interrupts import pass_on
from otel_metadata.live import live_settings as settings
from otel_metadata.live.registry import LOCK
from otel_metadata.live.values import masked, without_credentials_in
from otel_metadata.model.merge import Fields, merge
from otel_metadata.model.outcome import DeliveryError, Outcome, Pause, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanKey, SpanRef
from otel_metadata.model.unset import UNSET
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import SystemClock, takes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_metadata.delivery.destination import Destination
    from otel_metadata.model.merge import Version
    from otel_metadata.model.record import StoredKey, StoredSpan
    from otel_metadata.seams import AuthorVersions, Clock, SpanStore, VersionSource

PART_FIELDS: Final = 150_000
"""Fields in one transaction of a store, about 50,000 rows of three columns. Each part writes the pages of the indexes
that it touches anew, so smaller parts take longer in all. Another process's write waits meanwhile, and may wait for ten
seconds: counted in rows, a frame of 50 columns would make it fail."""

PART_SPANS: Final = 5_000
"""Spans that are deleted in one transaction, for the same reason: each may have many fields."""

_FIND_ROWS: Final = 1_000

MAX_TRIES: Final = 4
"""How often a patch is sent before its row fails: somebody waits for the call."""

MAX_WAIT_NS: Final = 60_000_000_000
"""The longest wait for another try; a destination that asks for more ends the call."""

_TIMEOUT_MILLIS: Final = 30_000

_SETTINGS: Final = OutboxSettings(visibility_millis=0)


def _report_of(rows: Rows) -> UpdateReport:
    """Return the report of *rows*: those without a problem were applied."""
    errors = [span_error(rows.span_ids[row], problem) for row, problem in sorted(rows.problems.items())]
    return UpdateReport(spans_updated=len(rows.span_ids) - len(errors), errors=errors, notes=rows.notes)


@final
class StoreUpdates:
    """Merges rows into a store. Any thread."""

    def __init__(self, store: SpanStore, versions: VersionSource | AuthorVersions = settings.VERSIONS) -> None:
        """Write into *store*, with versions from the source of this process: later updates win over earlier ones."""
        self._store = store
        self._versions = versions

    def close(self) -> None:
        """Do nothing: whoever opened the store closes it."""

    def apply(self, rows: Rows) -> UpdateReport:
        """Apply every row whose span is stored, and report why the others were not applied.

        Raises:
            StoreError: The store cannot be read or written, and nothing was changed. Where a part was written before,
                the report says so instead.
        """
        rows = _masked(rows)
        self._in_parts(rows, rows.weight, lambda part: self._apply(rows, part))
        return _report_of(rows)

    def apply_all(self, rows: Rows) -> UpdateReport:
        """Apply all rows, or none.

        Raises:
            SpanNotFoundError: A span is not stored. Nothing was changed.
            StoreError: The store cannot be read or written. Nothing was changed.
        """
        rows = _masked(rows)
        self._apply(rows, rows.good(), all_or_none=True)
        return _report_of(rows)

    def _apply(self, rows: Rows, part: Sequence[int], *, all_or_none: bool = False) -> None:
        span_ids = rows.span_ids
        placed: list[int] = []
        by_trace: dict[str, list[int]] = {}
        # A few at a time: the garbage collector visits every object that is held.
        for start in range(0, len(part), _FIND_ROWS):
            some = part[start : start + _FIND_ROWS]
            found = self._store.find({span_ids[row] for row in some})
            for row in some:
                trace_id = self._trace_id(span_ids[row], rows.trace_ids[row], found)
                if trace_id is not None:
                    by_trace.setdefault(trace_id, []).append(len(placed))
                    placed.append(row)
                elif all_or_none:
                    raise SpanNotFoundError(span_ids[row], f"{self._store}")
                else:
                    trace = f" of trace {rows.trace_ids[row]}" if span_ids[row] in found else ""
                    rows.reject(row, "segment_not_found", f": span {span_ids[row]}{trace} is not in {self._store}.")
        versions = list(draw(self._versions, len(placed)))
        # In the order of the store: SQLite writes rows in any other order more slowly. One after the other, because the
        # garbage collector visits every object that is held.
        self._store.patch_rows(
            (trace_id, span_ids[placed[at]], fields)
            for trace_id in sorted(by_trace)
            for at in by_trace[trace_id]
            if (fields := rows.fields(placed[at], versions[at]))
        )

    def log(
        self, rows: Rows, spans: Mapping[int, tuple[StoredSpan, Fields]], evaluations: Rows | None = None
    ) -> UpdateReport:
        """Store *spans*, each the span of a row, then apply *evaluations*, and report on all rows.

        Raises:
            StoreError: The store cannot be written, and nothing was. Where a part was, the report says so instead.
        """

        def store(part: Sequence[int]) -> None:
            self._store.write_rows([spans[row] for row in part], route="log")
            there = self._store.find({rows.span_ids[row] for row in part})
            for row in part:
                if rows.span_ids[row] not in there:
                    rows.reject(row, "patch_failure", f": span {rows.span_ids[row]} was deleted; expected a new span.")

        self._in_parts(rows, lambda row: 1 + len(spans[row][1]), store)
        report = _report_of(rows)
        if evaluations is None:
            return report
        to_apply = _masked(evaluations)
        is_changed = report.spans_updated > 0
        self._in_parts(to_apply, to_apply.weight, lambda part: self._apply(to_apply, part), is_changed=is_changed)
        return report.joined(_report_of(to_apply))

    def _in_parts(
        self,
        rows: Rows,
        weight: Callable[[int], int],
        apply: Callable[[Sequence[int]], None],
        *,
        is_changed: bool = False,
    ) -> None:
        """Call *apply* with the good rows, part by part, until one fails.

        Raises:
            StoreError: The first part failed, and the call has changed nothing before.
        """
        parts = _parts(rows.good(), weight)
        for part in parts:
            try:
                apply(part)
            except StoreError as error:
                if not is_changed:
                    raise
                for row in chain(part, *parts):
                    rows.reject(row, "connection_failure", f": {error}")
            is_changed = True

    def _trace_id(self, span_id: str, trace_id: str | None, found: Mapping[str, StoredKey]) -> str | None:
        """Return the id of the trace in which a span is stored; None if it is not stored."""
        key = found.get(span_id)
        if key is None or trace_id is None or key.trace_id == trace_id:
            return key.trace_id if key is not None else None
        # The newest span with this id belongs to another trace.
        return trace_id if self._store.query(SpanQuery(trace_id, span_id, limit=1)) else None


@final
@dataclass(slots=True)
class _Sent:
    """A patch, the rows that it was made of, and the reason why it has not arrived yet."""

    patch: Patch
    rows: list[int]
    problem: DeliveryError | None = None


@final
class DestinationUpdates:
    """Sends rows through the patch exporter of a destination. Any thread; one call at a time, others wait.

    The destination has to be one of its own: an exporter is called by one thread at a time, and in a pipeline that is
    its worker.
    """

    def __init__(
        self,
        destination: Destination,
        clock: Clock | None = None,
        versions: VersionSource | AuthorVersions = settings.VERSIONS,
    ) -> None:
        """Send to *destination*. Whoever made it shuts it down."""
        self._name = destination.name
        self._exporter = destination.patch_exporter
        self._clock = clock or SystemClock()
        self._versions = versions
        self._lock = threading.Lock()
        self._is_closing = threading.Event()

    def close(self) -> None:
        """End the wait of a running call: the rows that it still has to send fail. Any thread."""
        self._is_closing.set()

    def apply(self, rows: Rows) -> UpdateReport:
        """Send every row that can be read, and report which ones arrived.

        Rows of one span are one patch. A destination that cannot tell an unknown span (`reports_missing`) counts it as
        updated.

        Raises:
            ConfigurationError: No row says its trace, and the destination needs it. Nothing was sent.
        """
        rows = _masked(rows)
        good = rows.good()
        targets = {row: rows.target(row) for row in good}
        if good and not any(takes(self._exporter, target) for target in targets.values()):
            only_of_backend = all(target.is_backend_only for target in targets.values())
            raise ConfigurationError(
                "the name of each span",
                "a backend's id alone" if only_of_backend else "its span id alone",
                f"its trace as well ({TRACE_ID} in a frame), or a {TRACEPARENT}: {self._name} is no store in which a "
                "trace can be looked up",
            )
        with self._lock:
            sent = self._patches(rows, targets)
            self._deliver(sent, rows)
        for one in sent:
            if one.problem is not None:
                for row in one.rows:
                    rows.problems[row] = replace(one.problem, message=f"Row {row}: {one.problem.message}")
        return _report_of(rows)

    def apply_all(self, rows: Rows) -> UpdateReport:
        """Do as `apply`: nobody can ask a destination first which spans it has, so each row succeeds or fails alone."""
        return self.apply(rows)

    def _patches(self, rows: Rows, targets: Mapping[int, SpanRef]) -> list[_Sent]:
        """Return one patch for each span, in the order of their first rows."""
        by_span: dict[SpanKey, _Sent] = {}
        for (row, target), version in zip(targets.items(), draw(self._versions, len(targets)), strict=True):
            if not takes(self._exporter, target):
                got = "a backend's id alone" if target.is_backend_only else "nothing"
                rows.reject(row, "segment_not_found", f", column {TRACE_ID!r}: {got}; expected 32 hex digits.")
                continue
            fields = rows.fields(row, version)
            if not fields:
                continue
            one = by_span.setdefault(target.key, _Sent(Patch(target, fields), []))
            one.rows.append(row)
            known = one.patch.target.with_backend_ids(target.backend_ids)
            one.patch = Patch(known, merge(one.patch.fields, fields))
        return list(by_span.values())

    def _deliver(self, sent: Sequence[_Sent], rows: Rows) -> None:
        size = self._exporter.max_batch
        for start in range(0, len(sent), size):
            end = self._send(sent[start : start + size], rows)
            if end is not None:
                for one in sent[start + size :]:
                    one.problem = end
                return

    def _send(self, batch: Sequence[_Sent], rows: Rows) -> DeliveryError | None:
        """Send a batch, and try again what has not arrived; return an error if the whole call has to end."""
        due, attempt = [batch], 1
        while True:
            again: list[_Sent] = []
            wait_ns = 0
            while due:
                group = due.pop(0)
                smaller: list[_Sent] = []
                pause: DeliveryError | None = None
                for one, outcome in zip(group, self._export(group), strict=True):
                    decided = _verdict(outcome, attempt, len(group))
                    one.problem = None if isinstance(decided, Arrived) else decided.error
                    if isinstance(outcome, Pause):
                        pause = outcome.error
                    if isinstance(decided, Arrived):
                        rows.remember(decided.notes)
                    elif isinstance(decided, Again) and (decided.batch_size or len(group)) < len(group):
                        smaller.append(one)  # at once: too large together, or one of them makes the exporter raise
                    elif isinstance(decided, Again):
                        again.append(one)
                        wait_ns = max(wait_ns, decided.wait_ns)
                if pause is not None:
                    for one in (*again, *smaller, *chain.from_iterable(due)):
                        one.problem = pause
                    return pause
                half = max(len(group) // 2, 1)
                due += [smaller[at : at + half] for at in range(0, len(smaller), half)]
            if not again:
                return None
            too_long = wait_ns > MAX_WAIT_NS
            if attempt == MAX_TRIES or too_long or self._clock.wait(self._is_closing, wait_ns):
                # Nothing of the batch arrived, so the batches after it would wait as long for nothing.
                is_down = len(again) == len(batch) or too_long or self._is_closing.is_set()
                return again[0].problem if is_down else None
            due, attempt = [again], attempt + 1

    def _export(self, group: Sequence[_Sent]) -> list[Outcome | None]:
        """Return one outcome for each patch; None for each of a batch if the exporter raised."""
        patches = [one.patch for one in group]
        try:
            outcomes = run_suppressed(outcomes_of, self._exporter, patches, _TIMEOUT_MILLIS)
        except BaseException as error:  # noqa: BLE001 # a foreign exporter
            pass_on(error)
            REPORTER.tell(
                f"patch_export:{self._name}", f"{self._name}: the patch exporter raised {type(error).__name__}."
            )
            return [None] * len(group) if len(group) > 1 else [_RAISED]
        return [*outcomes, *[NO_ANSWER] * (len(group) - len(outcomes))]


def _verdict(outcome: Outcome | None, attempt: int, batch_size: int) -> Verdict:
    """Return what follows from a try. The caller waits, so an unknown span is given up at once."""
    tried = Tried(
        attempts=attempt,
        age_ns=0,
        overdue=False,
        has_deadline=False,
        missing_ns=0,
        batch_size=batch_size,
        fields=1,  # a row is applied whole or not at all
    )
    return verdict(outcome, tried, _SETTINGS, chance=1.0)


def _parts(rows: Iterable[int], weight: Callable[[int], int]) -> Iterator[list[int]]:
    """Yield *rows* in parts: a part ends with the row that makes it heavy enough."""
    part: list[int] = []
    full = 0
    for row in rows:
        part.append(row)
        full += weight(row)
        if full >= PART_FIELDS:
            yield part
            part, full = [], 0
    if part:
        yield part


_RAISED: Final = Retry(DeliveryError("connection_failure", "the patch exporter raised; the log says what"))


def _masked(rows: Rows) -> Rows:
    """Return *rows* without credentials and masked by the mask of this process, as every other update is."""
    if settings.in_force.mask is None:
        columns = [
            (name, [cell if cell is UNSET else without_credentials_in(name, cell) for cell in cells])
            for name, cells in rows.columns
        ]
        documents = {row: masked(values, rows.notes) for row, values in rows.documents.items()}
        return replace(rows, columns=columns, documents=documents)
    documents = {row: masked(rows.values(row), rows.notes) for row in rows.good()}
    del rows.notes[MAX_NOTES:]
    return replace(rows, columns=[], documents=documents)


def draw(versions: VersionSource | AuthorVersions, count: int) -> Iterator[Version]:
    """Reserve *count* versions under the lock; return them in ascending order."""
    with LOCK:  # under which every update of this process draws its version
        return versions.several(count)
