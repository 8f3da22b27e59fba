"""Patches for Arize AX, through its own SDK.

A batch becomes tables. A table has rows with the same call and the same columns, and at most one row for each span. A
row without one of the columns would have NaN there, which Arize stores or refuses, so there is no such row. Each answer
is read row by row: the SDK raises nothing for a span that was not changed, and leaves out every count that is zero.

One bad row may make Arize refuse the whole table, and one bad key the whole row. Then each half is sent by itself,
until only the bad row or key is left. Sending a row twice does no harm: merging it again changes nothing.

Arize does not compare versions, so it is `ordered`. `backends.arize.sdk` makes sure that a call ends in time.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

from otel_metadata.arguments import checked
from otel_metadata.backends.arize.rows import SPAN_ID, Plan, Row, plan
from otel_metadata.backends.arize.sdk import EXTRA, ArizeClient, Calls, NoClientError
from otel_metadata.exporters.rest import OUT_OF_TIME, Budget
from otel_metadata.model.outcome import Delivered, DeliveryError, ErrorType, Outcome, Pause, Rejected, Retry
from otel_metadata.model.recent import RecentMap
from otel_metadata.seams import SystemClock

if TYPE_CHECKING:
    from otel_metadata.model.patch import Patch
    from otel_metadata.seams import Clock, Convergence

_CLOCK: Final = SystemClock()
_DELIVERED: Final = Delivered()
_UNKNOWN_SPAN: Final = Rejected(DeliveryError("segment_not_found", "Arize does not know the span"))
_UNCLEAR: Final = Retry(DeliveryError("connection_failure", "the answer does not say whether the span was changed"))
_LATE: Final = Retry(DeliveryError("connection_failure", "there was no whole answer in time"))
_SHUT_DOWN: Final = Retry(DeliveryError("connection_failure", "the exporter was shut down meanwhile"))

_MAX_NAMED: Final = 8

_MAX_TRIES: Final = 3
"""Tries for a row that Arize's store refuses: the store may be busy, or the schema may have another type."""

_REMEMBERED: Final = 1_024


class _Refused(NamedTuple):
    """A refusal of the rows that were sent; fewer rows, or fewer keys, may be accepted."""

    type: ErrorType
    message: str


class _Entry(NamedTuple):
    """A row, its span, and the index of its patch in the batch."""

    place: int
    span_id: str
    row: Row


_Table: TypeAlias = list[_Entry]
_Answer: TypeAlias = Outcome | _Refused

# An error of one span begins with a tag in brackets ("spans" client, "errors").
_TAG: Final = re.compile(r"\[(\w+)\]")
_OTHER: Final = _Refused("backend_rejection", "Arize refused what was sent")
_OF_TAG: Final[Mapping[str, _Answer]] = {
    "segment_not_found": _UNKNOWN_SPAN,
    "connection_failure": Retry(DeliveryError("connection_failure", "Arize could not reach its own store")),
    "type_conflict": _Refused("type_conflict", "the span has a value of another type there, which stays"),
    "parse_failure": _Refused("parse_failure", "Arize cannot read what was sent"),
    "patch_failure": _Refused("patch_failure", "Arize cannot apply what was sent"),
    "druid_rejection": _OTHER,
}

# By the names of exception classes: the SDK and pyarrow may be missing. The first row with a matching name counts.
_OF_EXCEPTION: Final[Sequence[tuple[frozenset[str], _Answer]]] = (
    (
        frozenset({"FlightUnauthenticatedError", "FlightUnauthorizedError"}),
        Pause(DeliveryError("unauthorized", "the credentials were refused; check the key and the space")),
    ),
    (
        frozenset({"ArrowKeyError", "ArrowNotImplementedError"}),
        Pause(DeliveryError("backend_rejection", "nothing takes this there; check ARIZE_FLIGHT_SCHEME, _HOST, _PORT")),
    ),
    (frozenset({"RecordBatchTooLargeError"}), _Refused("too_large", "it is too large for one request")),
    (
        frozenset({"ValidationFailure", "ValueError"}),
        _Refused("patch_failure", "the SDK does not take what was to be sent"),
    ),
)


@final
class ArizePatchExporter:
    """Merges metadata, evaluations and annotations into spans that Arize has stored."""

    name: str = "arize"
    max_batch: int = 500
    # No page says when a span can be changed; people report seconds to minutes. Before, it is `segment_not_found`.
    grace_millis: int = 10_000
    reports_missing: bool = True
    convergence: Convergence = "ordered"
    # The requests have no trace id.
    found_by: Final = frozenset({"span_id"})

    @checked
    def __init__(
        self, connect: Callable[[], ArizeClient], *, space_id: str, project: str, clock: Clock = _CLOCK
    ) -> None:
        """Connect later.

        Args:
            connect: Makes the client, when the first patch is sent: see `backends.arize.sdk.connect`.
            space_id: The space of the spans.
            project: The project of the spans, in that space.
            clock: The clock for the date of an annotation, and for the time that is left.
        """
        self._connect = connect
        self._space_id = space_id
        self._project = project
        self._clock = clock
        self._client: ArizeClient | None = None
        self._calls: Final = Calls()
        self._is_shut_down = False
        self._refusals: RecentMap[tuple[str, tuple[str, ...]], int] = RecentMap(_REMEMBERED)

    @property
    def place(self) -> Mapping[str, str]:
        """The project and the space that patches go to."""
        return {"project": self._project, "space": self._space_id}

    def __repr__(self) -> str:
        """Return the project, without the key."""
        return f"<ArizePatchExporter {self._project!r}>"

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        """Send *patches* in as few tables as their columns allow."""
        if self._is_shut_down:
            return [_SHUT_DOWN] * len(patches)
        budget = Budget(timeout_millis, self._clock)
        plans = [plan(patch, self._clock.wall_ns() // 1_000_000) for patch in patches]
        found: list[list[Outcome]] = [[] for _ in patches]
        tables = deque(
            _tables(
                _Entry(place, patches[place].target.span_id_hex, row)
                for place, one in enumerate(plans)
                for row in one.rows
            )
        )
        stop: Outcome | None = None
        while tables:
            table = tables.popleft()
            if stop is None and not budget.left_millis:
                stop = OUT_OF_TIME
            answer = stop if stop is not None else self._send(table, budget)
            if isinstance(answer, _Refused) and len(table) > 1:
                middle = len(table) // 2
                tables += [table[:middle], table[middle:]]
                continue
            if isinstance(answer, Outcome):
                stop = answer
            answers = answer if isinstance(answer, list) else [answer] * len(table)
            tables += self._judge(table, answers, found)
        return [_combined(one, outcomes) for one, outcomes in zip(plans, found, strict=True)]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # nothing is buffered
        """Nothing is buffered."""
        return True

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """End the thread of the SDK; a call that still waits for its answer is abandoned."""
        self._is_shut_down = True
        self._calls.close(timeout_millis)

    def _send(self, table: _Table, budget: Budget) -> list[_Answer] | _Answer:
        """Return an answer for each row, or one for all rows: a refusal of them, or an outcome about the backend."""
        try:
            reply = self._calls.run(lambda: self._call(table), budget.left_millis)
        except futures.TimeoutError:
            return _LATE
        except NoClientError as error:
            return error.outcome
        except Exception as error:  # noqa: BLE001 # whatever the SDK and its dependencies raise
            return _of_exception(error)
        return _read(reply, table)

    def _judge(self, table: _Table, answers: Sequence[_Answer], found: list[list[Outcome]]) -> list[_Table]:
        """Add the outcome of each row to *found*; return tables with the halves of the refused rows."""
        halves: list[_Table] = [[], []]
        for entry, answer in zip(table, answers, strict=True):
            if not isinstance(answer, _Refused):
                found[entry.place].append(answer)
                continue
            for part, half in zip(halves, entry.row.halves(), strict=False):
                part.append(entry._replace(row=half))
            if not entry.row.halves():
                found[entry.place].append(self._refused(entry, answer))
        return [part for part in halves if part]

    def _refused(self, entry: _Entry, answer: _Refused) -> Outcome:
        """Return the outcome of a refused row that cannot be halved."""
        paths = entry.row.paths
        error = DeliveryError(answer.type, f"{', '.join(paths[:_MAX_NAMED])}: {answer.message}")
        if answer.type != "backend_rejection":
            return Rejected(error)
        tries = (self._refusals.get((entry.span_id, paths)) or 0) + 1
        self._refusals[entry.span_id, paths] = tries % _MAX_TRIES
        return Retry(error) if tries < _MAX_TRIES else Rejected(error)

    def _call(self, table: _Table) -> object:
        if self._client is None:
            self._client = self._connect()
        call = getattr(self._client, table[0].row.call)
        return call(space_id=self._space_id, project_name=self._project, dataframe=_frame(table))


def _tables(entries: Iterable[_Entry]) -> list[_Table]:
    """Put rows of the same call and columns into a table, one for each span: no page says which of two would win."""
    tables: dict[object, _Table] = {}
    before = Counter[object]()
    for entry in entries:
        of_span = (entry.row.call, entry.place)
        tables.setdefault((entry.row.call, tuple(sorted(entry.row.cells)), before[of_span]), []).append(entry)
        before[of_span] += 1
    return list(tables.values())


def _frame(table: _Table) -> Any:  # noqa: ANN401 # a DataFrame; pandas comes with the SDK
    try:
        import pandas as pd
    except ImportError as error:
        raise NoClientError(f"pandas cannot be imported ({type(error).__name__}); install {EXTRA}") from None
    columns: dict[str, list[object]] = {SPAN_ID: [entry.span_id for entry in table]}
    for column in table[0].row.cells:
        columns[column] = [entry.row.cells[column] for entry in table]
    return pd.DataFrame(columns)


def _read(reply: object, table: _Table) -> list[_Answer]:
    """Return the answer for each row.

    A reply names the spans that were not changed, and counts the others; a row that is neither named nor counted is
    unclear. It is protobuf's JSON form: 64-bit integers are text, and members that are 0 or empty are missing.
    """
    parts = reply if isinstance(reply, Mapping) else {}
    named: dict[str, _Answer] = dict.fromkeys(map(str, _items(parts, "unmatched_ids")), _UNKNOWN_SPAN)
    for error in _items(parts, "errors"):
        if isinstance(error, Mapping):
            tag = _TAG.match(str(error.get("error_message")))
            named[str(error.get("span_id"))] = _OF_TAG.get(tag[1], _OTHER) if tag is not None else _OTHER
    others = sum(entry.span_id not in named for entry in table)
    changed = _count(parts.get("spans_updated", parts.get("records_updated")))
    return [named.get(entry.span_id, _DELIVERED if changed >= others else _UNCLEAR) for entry in table]


def _items(parts: Mapping[object, object], name: str) -> list[object]:
    items = parts.get(name)
    return items if isinstance(items, list) else []


def _count(value: object) -> int:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0


def _of_exception(error: BaseException) -> _Answer:
    """Return the answer that an exception means, by its class and the classes of its causes: the SDK wraps twice."""
    names: set[str] = set()
    last: BaseException | None = error
    innermost = error
    while last is not None:
        names |= {kind.__name__ for kind in type(last).__mro__}
        innermost, last = last, last.__cause__
    for known, answer in _OF_EXCEPTION:
        if names & known:
            return answer
    detail = type(innermost).__name__
    return Retry(DeliveryError("connection_failure", f"Arize has failed or is not available ({detail})"))


def _combined(one: Plan, outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of a patch from those of its rows: first one that is not final, then a refusal."""
    if one.refused is not None:
        return Rejected(one.refused)
    for kind in (Pause, Retry):
        for outcome in outcomes:
            if isinstance(outcome, kind):
                return outcome
    rejected = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
    if not rejected:
        return Delivered(one.notes)
    if _UNKNOWN_SPAN in rejected:
        return _UNKNOWN_SPAN
    messages = "; ".join(outcome.error.message for outcome in rejected[:_MAX_NAMED])
    rest = "; the rest of the patch arrived" if len(rejected) < len(outcomes) else ""
    return Rejected(DeliveryError(rejected[0].error.type, f"{messages}{rest}"))
