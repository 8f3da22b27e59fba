"""`Client`: what a program does with stored spans.

It reads a store by itself and needs no pipeline in its process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from otel_metadata.client import export
from otel_metadata.client.page import Page
from otel_metadata.client.queries import cursor_behind, hex_id, page_query, query_of
from otel_metadata.errors import ConfigurationError, SpanNotFoundError
from otel_metadata.late.destination import Destination
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.pipeline import open_store
from otel_metadata.seams import SystemClock, VersionSource

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from types import TracebackType

    import pandas as pd

    from otel_metadata.client.queries import Time
    from otel_metadata.seams import Clock, SpanStore

__all__ = ["Client", "DeleteReport", "Spans"]


@final
class Client:
    """Stored spans, for programs.

    ```python
    with otel_metadata.Client("sqlite:///spans.db") as client:
        print(client.spans.get(span_id).metadata)
    ```

    Attributes:
        spans: The spans of the store.
    """

    def __init__(self, url_or_destination: str | Destination) -> None:
        """Open the store when it is first read.

        Args:
            url_or_destination: `"sqlite:///relative.db"`, `"sqlite:////absolute.db"`, or a destination that keeps its
                spans in a store.

        Raises:
            ConfigurationError: It names no store.
        """
        if isinstance(url_or_destination, Destination):
            store = getattr(url_or_destination.patch_exporter, "store", None)
            if store is None:
                raise ConfigurationError(
                    "Client", url_or_destination.name, "a destination that keeps its spans in a store"
                )
            self._owns_store = False
        else:
            store = open_store(url_or_destination, create=False)
            self._owns_store = True
        self._store: SpanStore = store
        self.spans = Spans(store)

    def close(self) -> None:
        """Close the store, if it was opened here."""
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> Client:
        """Return the client itself."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """A status line."""
        return f"<Client {self._store!r}>"


@final
class Spans:
    """The spans of one store."""

    def __init__(self, store: SpanStore, clock: Clock | None = None) -> None:
        """Work on *store*.

        Args:
            store: Where the spans are; closed by whoever opened it.
            clock: Time; None for the system's.
        """
        self._store = store
        self._clock = clock or SystemClock()
        self._versions = VersionSource(self._clock)

    def get(self, span_id: str | SpanRef, *, trace_id: str | None = None) -> SpanRecord:
        """Return one span with everything that was set on it.

        Args:
            span_id: 16 hex digits, a `SpanRef`, or a `traceparent`.
            trace_id: 32 hex digits, where span ids alone are not unique; the newest span is taken without it.

        Raises:
            InvalidSpanRefError: An id has another form.
            SpanNotFoundError: It is not stored.
            StoreError: The store cannot be read.
        """
        named, wanted = _ids(span_id)
        found = self._store.query(SpanQuery(hex_id(trace_id, 32) if trace_id is not None else named, wanted, limit=1))
        if not found:
            raise SpanNotFoundError(wanted, repr(self._store))
        return found[0]

    def list(
        self,
        *,
        project: str | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        filter: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        trace_id: str | None = None,
    ) -> Page:
        """Return one page of spans, newest start first.

        ```python
        page = client.spans.list(filter="status_code = 'ERROR' AND metadata.region = 'us-west'")
        rest = client.spans.list(filter="...", cursor=page.next_cursor)
        ```

        Args:
            project: Only spans of this project: `openinference.project.name` of their resource, else `service.name`.
            start_time: Only spans that started then or later; without it the last seven days, or any time for a trace.
            end_time: Only spans that started before.
            filter: What must hold; docs/filters.md has the language.
            limit: At most this many, at least 1.
            cursor: `next_cursor` of the page before, asked with the same arguments.
            trace_id: Only those of one trace, 32 hex digits.

        Raises:
            ConfigurationError: The limit is not positive; a time or the cursor is none.
            FilterError: The filter cannot be understood; the message points at the place.
            InvalidSpanRefError: The trace id has another form.
            StoreError: The store cannot be read.
        """
        query = page_query(
            trace_id=trace_id,
            project=project,
            start_time=start_time,
            end_time=end_time,
            filter=filter,
            limit=limit,
            cursor=cursor,
            now_ns=self._clock.wall_ns(),
        )
        # One more than asked for tells whether this is the last page.
        found = self._store.query(replace(query, limit=limit + 1))
        spans = tuple(found[:limit])
        return Page(spans, cursor_behind(spans[-1], query) if len(found) > limit else None)

    def export_to_df(
        self,
        *,
        project: str | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        filter: str | None = None,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Return all spans of a window as a DataFrame of pandas, with the columns of `Page.to_df`.

        Args:
            project: As for `list`.
            start_time: Only spans that started then or later; without it from the first.
            end_time: Only spans that started before.
            filter: What must hold; docs/filters.md has the language.
            progress: Show the count on standard error; None where that is a terminal and rich is installed.

        Raises:
            ConfigurationError: A time is none.
            FilterError: The filter cannot be understood; the message points at the place.
            MissingExtraError: pandas or pyarrow is not installed.
            StoreError: The store cannot be read.
        """
        query = query_of(project=project, start_time=start_time, end_time=end_time, filter=filter)
        return export.export_to_df(self._store.export(query), progress=progress)

    def export_to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        project: str | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        filter: str | None = None,
        progress: bool | None = None,
    ) -> int:
        """Write all spans of a window to a Parquet file, and return how many they are.

        Compressed with zstd; docs/export.md has the columns. `otel-metadata import` takes it, as does every reader of
        Parquet.
        Streamed: memory does not grow with the number of spans. What is at *path* is replaced when all is written.

        Args:
            path: In a directory that exists.
            project: As for `list`.
            start_time: Only spans that started then or later; without it from the first.
            end_time: Only spans that started before.
            filter: What must hold; docs/filters.md has the language.
            progress: Show the count on standard error; None where that is a terminal and rich is installed.

        Raises:
            ConfigurationError: A time is none.
            FilterError: The filter cannot be understood; the message points at the place.
            MissingExtraError: pyarrow is not installed.
            FileError: The file cannot be written; what was there is as it was.
            StoreError: The store cannot be read; what was there is as it was.
        """
        query = query_of(project=project, start_time=start_time, end_time=end_time, filter=filter)
        return export.export_to_file(self._store.export(query), path, export.parquet, progress=progress)

    def export_to_jsonl(
        self,
        path: str | os.PathLike[str],
        *,
        project: str | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        filter: str | None = None,
        progress: bool | None = None,
    ) -> int:
        """Write all spans of a window to a file of JSON Lines, and return how many they are.

        One object a line; docs/export.md has the keys. `otel-metadata import` takes it.
        Streamed: memory does not grow with the number of spans. What is at *path* is replaced when all is written.

        Args:
            path: In a directory that exists.
            project: As for `list`.
            start_time: Only spans that started then or later; without it from the first.
            end_time: Only spans that started before.
            filter: What must hold; docs/filters.md has the language.
            progress: Show the count on standard error; None where that is a terminal and rich is installed.

        Raises:
            ConfigurationError: A time is none.
            FilterError: The filter cannot be understood; the message points at the place.
            MissingExtraError: pyarrow is not installed.
            FileError: The file cannot be written; what was there is as it was.
            StoreError: The store cannot be read; what was there is as it was.
        """
        query = query_of(project=project, start_time=start_time, end_time=end_time, filter=filter)
        return export.export_to_file(self._store.export(query), path, export.jsonl, progress=progress)

    def export_to_csv(
        self,
        path: str | os.PathLike[str],
        *,
        project: str | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        filter: str | None = None,
        progress: bool | None = None,
    ) -> int:
        """Write all spans of a window to a CSV file, and return how many they are.

        For spreadsheets; docs/export.md has the columns. It is not imported again.
        Streamed: memory does not grow with the number of spans. What is at *path* is replaced when all is written.

        Args:
            path: In a directory that exists.
            project: As for `list`.
            start_time: Only spans that started then or later; without it from the first.
            end_time: Only spans that started before.
            filter: What must hold; docs/filters.md has the language.
            progress: Show the count on standard error; None where that is a terminal and rich is installed.

        Raises:
            ConfigurationError: A time is none.
            FilterError: The filter cannot be understood; the message points at the place.
            MissingExtraError: pyarrow is not installed.
            FileError: The file cannot be written; what was there is as it was.
            StoreError: The store cannot be read; what was there is as it was.
        """
        query = query_of(project=project, start_time=start_time, end_time=end_time, filter=filter)
        return export.export_to_file(self._store.export(query), path, export.csv, progress=progress)

    def delete(self, span_ids: Iterable[str | SpanRef]) -> DeleteReport:
        """Delete spans and all that was said of them, for good; unknown ones are ignored.

        What comes later for a deleted span and is not newer than the deletion is refused. With the last span of a
        trace goes what was said of the trace.

        Args:
            span_ids: 16 hex digits each, a `SpanRef`, or a `traceparent`; of one id in several traces the newest span.

        Returns:
            Which were deleted, and which were not there.

        Raises:
            InvalidSpanRefError: An id has another form; nothing was deleted.
            StoreError: Nothing was deleted.
        """
        refs = [_ids(span_id) for span_id in ([span_ids] if isinstance(span_ids, str | SpanRef) else span_ids)]
        found = self._store.find([span_id for trace_id, span_id in refs if trace_id is None])
        keys = [
            (trace_id or found[span_id].trace_id, span_id)
            for trace_id, span_id in dict.fromkeys(refs)
            if trace_id is not None or span_id in found
        ]
        deleted = {span_id for _, span_id in self._store.delete(keys, self._versions.next())}
        asked = list(dict.fromkeys(span_id for _, span_id in refs))
        return DeleteReport(
            tuple(span_id for span_id in asked if span_id in deleted),
            tuple(span_id for span_id in asked if span_id not in deleted),
        )


@final
@dataclass(frozen=True, slots=True)
class DeleteReport:
    """What a deletion found.

    Attributes:
        deleted_span_ids: Those that were there and are gone.
        unknown_span_ids: Those that were not there.
    """

    deleted_span_ids: tuple[str, ...]
    unknown_span_ids: tuple[str, ...]


def _ids(given: str | SpanRef) -> tuple[str | None, str]:
    """Return trace id and span id of whatever names a span; None for a trace that is not named.

    Raises:
        InvalidSpanRefError: It names none.
    """
    if isinstance(given, str) and given.count("-") >= 3:
        given = SpanRef.from_traceparent(given)
    if isinstance(given, SpanRef):
        return given.trace_id_hex, given.span_id_hex
    return None, hex_id(given, 16)
