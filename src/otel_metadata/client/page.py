"""One page of stored spans, what it shares with other sequences of records, and the plain dict of a span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, final, overload

import orjson

from otel_metadata.client.flat import data_frame, flat
from otel_metadata.model.times import time_text
from otel_metadata.store.table import readable

if TYPE_CHECKING:
    import datetime as dt

    import pandas as pd

    from otel_metadata.model.merge import Json
    from otel_metadata.model.record import SpanRecord


_T = TypeVar("_T")


class Records(Sequence[_T], Generic[_T]):
    """A sequence of the records that an attribute of the subclass has."""

    __slots__ = ()

    @property
    def _records(self) -> tuple[_T, ...]:
        raise NotImplementedError  # each subclass names its attribute

    @overload
    def __getitem__(self, index: int) -> _T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[_T]: ...

    def __getitem__(self, index: int | slice) -> _T | Sequence[_T]:
        """Return one record, or several."""
        return self._records[index]

    def __len__(self) -> int:
        """The number of records."""
        return len(self._records)


@final
@dataclass(frozen=True, slots=True)
class Page(Records["SpanRecord"]):
    """Spans, newest start first; a sequence of them.

    Attributes:
        spans: At most `limit` spans.
        next_cursor: The value of `list(cursor=)` for the next page; None on the last page.
        searched_to: The time down to which the page shows every span, if `timeout_millis` was over before the page was
            full; `next_cursor` continues from there. Otherwise None.
    """

    spans: tuple[SpanRecord, ...]
    next_cursor: str | None = None
    searched_to: dt.datetime | None = None

    @property
    def _records(self) -> tuple[SpanRecord, ...]:
        return self.spans

    def to_dict(self) -> dict[str, Json]:
        """Return `{"spans": [...], "next_cursor": ...}`, each span as `record_to_dict` has it.

        A page that ended early has `searched_to` as well, an ISO 8601 text.
        """
        spans: list[Json] = [record_to_dict(record) for record in self.spans]
        return {"spans": spans, **continued(self.next_cursor, self.searched_to)}

    def to_json(self) -> str:
        """Return the JSON text of `to_dict()`, in one line."""
        return orjson.dumps(self.to_dict()).decode()

    def to_df(self) -> pd.DataFrame:
        """Return a DataFrame of pandas with one row for each span.

        A column for each key: `context.span_id`, `attributes.metadata.<key>`, `eval.<Name>.label`, … A missing
        value is NA, a JSON null is None. The updating methods of `client.spans` take the frame back, with columns added
        or changed.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(flat(readable(record)) for record in self.spans)


def continued(next_cursor: str | None, searched_to: dt.datetime | None) -> dict[str, Json]:
    """Return how a listing goes on, as its `to_dict` has it."""
    ended = {} if searched_to is None else {"searched_to": searched_to.isoformat()}
    return {"next_cursor": next_cursor, **ended}


def record_to_dict(record: SpanRecord) -> dict[str, Json]:
    """Return a span as a JSON object, under the names of `SpanRecord`.

    Times are ISO 8601 texts in UTC to the nanosecond. Evaluations are objects by name, annotations a list. What only
    OTLP has (`trace_state`, `events`, `links`, `resource`, `scope_name`, `scope_version`) is on the same level.
    """
    span = record.span
    return {
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "parent_id": record.parent_id,
        "trace_state": span.trace_state,
        "project": record.project,
        "name": record.name,
        "kind": record.kind,
        "span_kind": record.span_kind,
        "start_time": time_text(span.start_ns),
        "end_time": time_text(span.end_ns),
        "latency_ms": (span.end_ns - span.start_ns) / 1e6,
        "status_code": record.status_code,
        "status_message": record.status_message,
        "user_id": record.user_id,
        "session_id": record.session_id,
        "input": record.input,
        "output": record.output,
        "metadata": dict(record.metadata),
        "tags": list(record.tags),
        "evaluations": {name: verdict.to_json() for name, verdict in record.evaluations.items()},
        "annotations": [note.to_json() for note in record.annotations],
        "attributes": dict(record.attributes),
        "trace_name": record.trace_name,
        "trace_input": record.trace_input,
        "trace_output": record.trace_output,
        "trace_metadata": dict(record.trace_metadata),
        "trace_tags": list(record.trace_tags),
        "trace_evaluations": {name: verdict.to_json() for name, verdict in record.trace_evaluations.items()},
        "trace_annotations": [note.to_json() for note in record.trace_annotations],
        "events": [dict(event) for event in span.events],
        "links": [dict(link) for link in span.links],
        "resource": dict(span.resource),
        "scope_name": span.scope_name,
        "scope_version": span.scope_version,
    }
