"""`Client`: read and change stored spans from a program.

It works directly on a store, or sends updates through a destination. It needs no pipeline in its process.
"""

from __future__ import annotations

import builtins
import datetime as dt
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final, final, get_args

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME

from otel_metadata.arguments import unpacks
from otel_metadata.client import arize_names, export, imports, updates
from otel_metadata.client.columns import (
    PATCH_DOCUMENT,
    AnnotateRecordInput,
    Rows,
    annotation_rows,
    evaluation_rows,
    metadata_rows,
    read_name,
    record_rows,
)
from otel_metadata.client.dataframes import read_frame
from otel_metadata.client.history import of_field, spans_at
from otel_metadata.client.page import Page
from otel_metadata.client.queries import (
    Window,
    check_bytes,
    check_timeout,
    goes_on,
    page_query,
    past_ns,
    query_of,
    reads_of,
    store_of,
)
from otel_metadata.client.report import UpdateReport
from otel_metadata.client.span_rows import span_rows
from otel_metadata.client.traces import Traces
from otel_metadata.client.updates import DestinationUpdates, StoreUpdates, draw
from otel_metadata.delivery.destination import Destination
from otel_metadata.destination_factory import make_destinations, names_store, open_store
from otel_metadata.errors import ConfigurationError, SpanNotFoundError, StoreError
from otel_metadata.joining.providers import resource_of
from otel_metadata.live import live_settings as settings
from otel_metadata.live.author import author_named, chosen_author
from otel_metadata.live.misuse import log_misfits
from otel_metadata.live.values import span_values
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.merge import Level
from otel_metadata.model.record import Found, Retained, SpanCount, SpanQuery, SpanRecord, ValueRecord
from otel_metadata.model.span_ref import SpanRef, parse_trace_id, trace_of
from otel_metadata.model.unset import UNSET
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import AuthorVersions, SystemClock, VersionSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from io import BufferedReader
    from types import TracebackType
    from uuid import UUID

    import pandas as pd
    import pyarrow as pa
    from typing_extensions import Unpack

    from otel_metadata.client.dataframes import Frame
    from otel_metadata.client.imports import ImportReport
    from otel_metadata.client.queries import Time
    from otel_metadata.live.values import StatusLike
    from otel_metadata.seams import Clock, SpanStore

_MOST_COUNTED: Final = 1 << 62

# A page of an iteration.
_PAGE_SPANS: Final = 500


@final
class Client:
    """Stored spans, for programs.

    ```python
    with otel_metadata.Client("sqlite:///spans.db") as client:
        print(client.spans.get(span_id).metadata)
    ```

    Attributes:
        spans: The spans of the store.
        traces: The traces of the store.
    """

    def __init__(
        self, url_or_destination: str | Destination, *, create: bool = False, author: str | None = None
    ) -> None:
        """Open the store when it is first used.

        Args:
            url_or_destination: `"sqlite:///relative.db"`, `"sqlite:////absolute.db"`,
                `"clickhouse://user:password@host:8123/database"`, `"serve://host:4318"` for a server of otel-metadata
                (docs/server.md), or a destination: an object, or a text as `configure` takes it (`"langfuse"`,
                `"otlp"`, …). One that keeps its spans in a store is read and written there; any other takes updates
                only, and has to be one of its own, not the destination of a running pipeline.
            create: Make the store's file or tables if they do not exist, for `spans.log`.
            author: The name under which this client updates spans, for people, such as `"nightly judge"`. None for the
                author of this process: see `configure`.

        Raises:
            ConfigurationError: *url_or_destination* names neither, the destination lacks something that it needs, or
                *author* is empty or too long.
        """
        if not isinstance(url_or_destination, str | Destination):
            raise ConfigurationError(
                "Client(url_or_destination)",
                type(url_or_destination),
                "a Destination, or a text such as sqlite:///file.db, clickhouse://host:8123/database or langfuse",
            )
        if not isinstance(create, bool):
            raise ConfigurationError("Client(create=)", type(create), "True or False")
        name = chosen_author("Client(author=)", author)
        if author is None and AUTHORS.own is None:
            # The updates have the writer of this process, which `configure` has not named.
            service = resource_of(trace.get_tracer_provider()).attributes.get(SERVICE_NAME)
            settings.VERSIONS.sign(author_named(name, service))
        # The client closes the stores and exporters that it has made.
        self._own_store: SpanStore | None = None
        self._own_destination: Destination | None = None
        where: SpanStore | Destination
        if isinstance(url_or_destination, str) and not names_store(url_or_destination):
            (url_or_destination,) = make_destinations(url_or_destination)
            self._own_destination = url_or_destination
        if isinstance(url_or_destination, Destination):
            where = getattr(url_or_destination.patch_exporter, "store", url_or_destination)
        else:
            where = self._own_store = open_store(url_or_destination, create=create)
        self._where = where
        self.spans = Spans(where, author=name if author is not None else None)
        self.traces = Traces(where, SystemClock())

    def close(self) -> None:
        """Close the stores and exporters that this client opened, and end the wait of an update that is being sent.

        If an exporter raises, the log says so. A second call does nothing.
        """
        self.spans.close()
        if self._own_store is not None:
            self._own_store.close()
        destination, self._own_destination = self._own_destination, None
        if destination is None:
            return
        for exporter in (destination.patch_exporter, destination.span_exporter):
            try:
                if exporter is not None:
                    exporter.shutdown()
            except Exception as error:  # noqa: BLE001 # a foreign exporter must hide no error of the block around it
                REPORTER.tell(
                    f"shutdown:{destination.name}", f"{destination.name}: shutdown raised {type(error).__name__}."
                )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """Say where a method of `spans` is."""
            hint = f": expected client.spans.{name}" if not name.startswith("_") and hasattr(Spans, name) else ""
            raise AttributeError(f"Client has no attribute {name!r}{hint}")

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
        return f"<Client {self._where.name if isinstance(self._where, Destination) else repr(self._where)}>"


@final
class Spans:
    """The spans of one store, or of a destination that takes updates only."""

    def __init__(self, where: SpanStore | Destination, clock: Clock | None = None, author: str | None = None) -> None:
        """Work on a store, or send to a destination.

        Args:
            where: Closed by whoever opened it.
            clock: Time; None for the system's.
            author: Who updates; None for the author of this process.
        """
        self._where = where
        self._clock = clock or SystemClock()
        # One source for all updates of this process, so that a later update wins.
        versions = settings.VERSIONS if clock is None else VersionSource(clock)
        self._versions = versions if author is None else AuthorVersions(versions, author)
        self._updates: StoreUpdates | DestinationUpdates = (
            DestinationUpdates(where, self._clock, self._versions)
            if isinstance(where, Destination)
            else StoreUpdates(where, self._versions)
        )

    @property
    def _store(self) -> SpanStore:
        return store_of(self._where)

    def _apply(self, dataframe: object, read: Callable[[Frame], Rows], place: Mapping[str, object]) -> UpdateReport:
        """Compare *place* and the columns of a frame with the destination, then apply the rows."""
        frame = read_frame(dataframe)
        notes = self._check_place(place, frame)
        rows = read(frame)
        rows.remember(notes)
        return self._updates.apply(rows)

    def _check_place(self, given: Mapping[str, object], frame: Frame | None = None) -> builtins.list[str]:
        """Refuse a project or space that is not the destination's own; a store has spans of all projects."""
        return arize_names.check_place(self._where, given, frame) if isinstance(self._where, Destination) else []

    def close(self) -> None:
        """End the wait of an update that is being sent; the rows that it has not sent fail."""
        self._updates.close()

    def get(
        self, span_id: str | SpanRef, *, trace_id: str | int | UUID | None = None, at: Time | None = None
    ) -> SpanRecord:
        """Return one span with everything that was set on it.

        ```python
        before = client.spans.get(span_id, at="2026-11-30T10:00:00Z")
        ```

        Args:
            span_id: 16 hex digits, a `SpanRef`, or a `traceparent`.
            trace_id: 32 hex digits, if several traces have this span id; without it, the newest span is returned.
            at: Show the span as it was at this time: each value as it was then, on the clock of whoever set it. Without
                it, as it is now. What no update sets, such as the end of the span and its events, is shown as it is
                now. A value is missing at a time before the oldest one that the store has kept of its field. A
                datetime means the end of its microsecond, so the `time` of a value shows that value.

        Raises:
            ConfigurationError: *at* is not a time, or is before the start of the span.
            InvalidSpanRefError: An id has another form.
            SpanNotFoundError: It is not stored.
            StoreError: The store cannot be read, or it keeps no history and *at* is given.
        """
        named, wanted, _ = read_name(span_id)
        trace = parse_trace_id(trace_id).trace_id_hex if trace_id is not None else named
        return spans_at(self._store, SpanQuery(trace, wanted, limit=1), at)[0]

    def history(
        self, span_id: str | SpanRef, field: str | None = None, *, trace_id: str | int | UUID | None = None
    ) -> builtins.list[ValueRecord]:
        """Return every value that the fields of a span and of its trace have or had, newest first.

        ```python
        for value in client.spans.history(span_id, "metadata.thumbs"):
            print(value.time, value.route, value.author, value.value)
        ```

        The current value of a field is among them, and so are values that lost because they were older when they
        arrived. A store keeps the newest 100 superseded values of each field.

        Args:
            span_id: 16 hex digits, a `SpanRef`, or a `traceparent`.
            field: The name of one field, as a filter names it: `metadata.thumbs`, `trace.metadata.plan`,
                `eval.Correctness`, `annotation.quality`, `tags.vip`, `attributes.http.route`, `output`. A word alone
                that is no such name is a key of the metadata: `thumbs`. None for all fields.
            trace_id: 32 hex digits, if several traces have this span id; without it, the newest span is meant.

        Returns:
            The values, each with `level`, `kind`, `key`, `value`, `time`, `route`, `author` and `superseded_by`. An
            empty list if the field was never set.

        Raises:
            ConfigurationError: *field* is not the name of a field.
            InvalidSpanRefError: An id has another form.
            SpanNotFoundError: The span is not stored.
            StoreError: The store cannot be read, or it keeps no history.
        """
        is_wanted = of_field(field)
        found = self.get(span_id, trace_id=trace_id)
        return [*filter(is_wanted, self._store.history(found.trace_id, found.span_id))]

    @unpacks(arize_names.Space)
    def list(
        self,
        *,
        project: str | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        filter: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        trace_id: str | int | UUID | None = None,
        timeout_millis: float | None = None,
        **_arize: Unpack[arize_names.Space],
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
            filter: A condition on spans; docs/filters.md has the language.
            limit: At most this many, at least 1.
            cursor: `next_cursor` of the page before, asked with the same arguments.
            trace_id: Only those of one trace, 32 hex digits.
            timeout_millis: When to end the search. The page then has the spans that were found, `searched_to`, and a
                cursor that continues. None for no limit. A store of a third party may take None only.
            **_arize: See `Space`.

        Raises:
            ConfigurationError: The limit is not positive; a time, the project, the cursor or the timeout is invalid.
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
        check_timeout(timeout_millis)
        return self._page(query, limit, timeout_millis)

    def _page(self, query: SpanQuery, limit: int, timeout_millis: float | None = None) -> Page:
        if timeout_millis is None:
            found = Found(tuple(self._store.query(query)))
        else:
            found = reads_of(self._store, "list(timeout_millis=)").search(query, timeout_millis=timeout_millis)
        return Page(found.records[:limit], *goes_on(query, limit, found.records, found.searched_to))

    @unpacks(Window)
    def count(self, *, limit: int = 10_000, timeout_millis: float | None = None, **window: Unpack[Window]) -> SpanCount:
        """Return the number of spans of a window, counted up to a limit.

        ```python
        print(client.spans.count(filter="status_code = 'ERROR'"))  # 412, or 10,000+
        ```

        Args:
            limit: How far to count, at least 1; a larger number is shown as `10,000+`.
            timeout_millis: When to stop counting; None for no limit.
            **window: See `Window`; without a start the last seven days.

        Raises:
            ConfigurationError: The limit is not positive; a time, the project or the timeout is invalid; the
                store has no such read.
            FilterError: The filter cannot be understood; the message points at the place.
            StoreError: The store cannot be read.
        """
        query = page_query(trace_id=None, limit=limit, cursor=None, now_ns=self._clock.wall_ns(), **window)
        check_timeout(timeout_millis)
        reads = reads_of(self._store, "spans.count")
        return reads.count(replace(query, limit=min(limit, _MOST_COUNTED)), timeout_millis=timeout_millis)

    @unpacks(Window)
    def iter(self, *, trace_id: str | int | UUID | None = None, **window: Unpack[Window]) -> Iterator[SpanRecord]:
        """Return an iterator over all spans of a window, newest start first, which reads one page after the other.

        ```python
        for span in client.spans.iter(filter="eval.Correctness.label = 'wrong'", start_time="2026-01-01"):
            print(span.span_id, span.output)
        ```

        Others may write meanwhile. Each span comes once; spans that start after the first page was read do not come.

        Args:
            trace_id: Only those of one trace, 32 hex digits.
            **window: See `Window`; without a start the last seven days, or any time for a trace.

        Raises:
            ConfigurationError: A time or the project is invalid.
            FilterError: The filter cannot be understood; the message points at the place.
            InvalidSpanRefError: The trace id has another form.
            StoreError: The store cannot be read; the iterator may raise this too.
        """
        now_ns = self._clock.wall_ns()
        query = page_query(trace_id=trace_id, limit=_PAGE_SPANS, cursor=None, now_ns=now_ns, **window)
        store = self._store

        def records(query: SpanQuery) -> Iterator[SpanRecord]:
            while True:
                found = store.query(query)
                yield from found
                if len(found) < _PAGE_SPANS:
                    return
                query = replace(query, after=found[-1].position)

        return records(replace(query, limit=_PAGE_SPANS))

    @unpacks(Window, arize_names.ArizeWindow)
    def export_to_df(
        self,
        *,
        progress: bool | None = None,
        **window: Unpack[arize_names.ArizeWindow],
    ) -> pd.DataFrame:
        """Return all spans of a window as a DataFrame of pandas, with the columns of `Page.to_df`.

        Args:
            progress: Show the count on standard error; None where that is a terminal and rich is installed.
            **window: See `ArizeWindow`.

        Raises:
            ConfigurationError: A time or the project is invalid.
            FilterError: The filter cannot be understood; the message points at the place.
            MissingExtraError: pandas or pyarrow is not installed.
            StoreError: The store cannot be read.
        """
        return export.export_to_df(self._batches(arize_names.own(window)), progress=progress)

    @unpacks(Window, arize_names.ArizeWindow)
    def export_to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        progress: bool | None = None,
        **window: Unpack[arize_names.ArizeWindow],
    ) -> int:
        """Write all spans of a window to a Parquet file, and return their number.

        Compressed with zstd; docs/export.md has the columns. `otel-metadata import` takes it, as does every reader of
        Parquet.
        Streamed: memory does not grow with the number of spans. What is at *path* is replaced when all is written.

        Args:
            path: In a directory that exists.
            progress: Show the count on standard error; None where that is a terminal and rich is installed.
            **window: See `ArizeWindow`.

        Raises:
            ConfigurationError: A time or the project is invalid.
            FilterError: The filter cannot be understood; the message points at the place.
            MissingExtraError: pyarrow is not installed.
            FileError: The file cannot be written; a file that was there is unchanged.
            StoreError: The store cannot be read; a file that was there is unchanged.
        """
        batches = self._batches(arize_names.own(window))
        return export.export_to_file(batches, path, export.parquet, progress=progress)

    @unpacks(Window)
    def export_to_jsonl(
        self,
        path: str | os.PathLike[str] | BinaryIO,
        *,
        progress: bool | None = None,
        **window: Unpack[Window],
    ) -> int:
        """Write all spans of a window to a file of JSON Lines, and return their number.

        One object a line; docs/export.md has the keys. `otel-metadata import` takes it.
        Streamed: memory does not grow with the number of spans. What is at *path* is replaced when all is written.

        Args:
            path: In a directory that exists; or a binary file that is open, such as `sys.stdout.buffer`, which is
                written as the spans come.
            progress: Show the count on standard error; None where that is a terminal and rich is installed.
            **window: See `Window`.

        Raises:
            ConfigurationError: A time or the project is invalid.
            FilterError: The filter cannot be understood; the message points at the place.
            MissingExtraError: pyarrow is not installed.
            FileError: The file cannot be written; a file that was there is unchanged.
            StoreError: The store cannot be read; a file that was there is unchanged.
        """
        batches = self._batches(window)
        if isinstance(path, str | os.PathLike):
            return export.export_to_file(batches, path, export.jsonl, progress=progress)
        return export.export_to_stream(batches, path, progress=progress)

    @unpacks(Window)
    def export_to_csv(
        self,
        path: str | os.PathLike[str],
        *,
        progress: bool | None = None,
        **window: Unpack[Window],
    ) -> int:
        """Write all spans of a window to a CSV file, and return their number.

        For spreadsheets; docs/export.md has the columns. It is not imported again.
        Streamed: memory does not grow with the number of spans. What is at *path* is replaced when all is written.

        Args:
            path: In a directory that exists.
            progress: Show the count on standard error; None where that is a terminal and rich is installed.
            **window: See `Window`.

        Raises:
            ConfigurationError: A time or the project is invalid.
            FilterError: The filter cannot be understood; the message points at the place.
            MissingExtraError: pyarrow is not installed.
            FileError: The file cannot be written; a file that was there is unchanged.
            StoreError: The store cannot be read; a file that was there is unchanged.
        """
        batches = self._batches(window)
        return export.export_to_file(batches, path, export.csv, progress=progress)

    def _batches(self, window: Window) -> Iterator[pa.RecordBatch]:
        return self._store.export(query_of(**window))

    def import_file(self, path: str | os.PathLike[str] | BufferedReader) -> ImportReport:
        """Store the spans of a file, and report the parts that cannot be read. Twice has the effect of once.

        Fields merge by version: an export that is older than the stored values overwrites nothing.

        Args:
            path: OTLP as JSON, one request a line, as the Collector's file exporter writes it, or pretty-printed;
                Parquet or JSON Lines exported from here; JSON may be compressed with gzip. A file opened for
                reading bytes works as well.

        Raises:
            ConfigurationError: It is neither a path nor such a file.
            FileError: The file cannot be read or has another format; the spans before that stay imported.
            MissingExtraError: It is Parquet, and pyarrow is not installed.
            StoreError: The store cannot be written; the spans before that stay stored.
        """
        return imports.import_file(self._store, path)

    @unpacks(arize_names.ProjectAndSpace)
    def delete(self, span_ids: Iterable[str | SpanRef], **place: Unpack[arize_names.ProjectAndSpace]) -> DeleteReport:
        """Delete spans, and everything that was set on them, for good; ignore unknown ids.

        The store refuses a later update of a deleted span, unless it is newer than the deletion. With the last span of
        a trace, everything that was set on the trace is deleted, too.

        Args:
            span_ids: 16 hex digits, a `SpanRef`, or a `traceparent`; if several traces have an id, its newest span.
            **place: See `ProjectAndSpace`.

        Returns:
            What Arize's SDK 8.61 returns: `completed`, `deleted_span_ids`, `not_deleted_span_ids`. More than
            5,000 spans are deleted in parts, so that other processes get their turn. When one part fails after others
            were deleted, `completed` is False, and the same call again goes on with the rest.

        Raises:
            ConfigurationError: It is no list; nothing was deleted.
            InvalidSpanRefError: An id has another form; nothing was deleted.
            StoreError: The store cannot be read or written; nothing was deleted.
        """
        self._check_place(place)
        named = [span_ids] if isinstance(span_ids, str | SpanRef) else span_ids
        if not isinstance(named, Iterable):
            raise ConfigurationError("delete(span_ids=)", type(span_ids), "a list of span ids")
        refs = dict.fromkeys(read_name(span_id)[:2] for span_id in named)
        found = self._store.find([span_id for trace_id, span_id in refs if trace_id is None])
        keys = [
            (trace_id or found[span_id].trace_id, span_id)
            for trace_id, span_id in refs
            if trace_id is not None or span_id in found
        ]
        version = next(draw(self._versions, 1))
        deleted: set[str] = set()
        failure: StoreError | None = None
        for start in range(0, len(keys), updates.PART_SPANS):
            part = keys[start : start + updates.PART_SPANS]
            try:
                deleted.update(span_id for _, span_id in self._store.delete(part, version))
            except StoreError as error:
                if not start:
                    raise
                failure = error
                break
        asked = list(dict.fromkeys(span_id for _, span_id in refs))
        return DeleteReport(
            failure is None,
            [span_id for span_id in asked if span_id in deleted],
            [span_id for span_id in asked if span_id not in deleted],
            f"{failure}" if failure is not None else None,
        )

    def retain(self, *, older_than: dt.timedelta | Time | None = None, max_bytes: int | None = None) -> Retained:
        """Delete the oldest spans, with everything that was set on them, for good.

        It deletes in steps of some milliseconds, so other threads and processes write in between. After an error or an
        interrupt the same call goes on with the rest. A span that comes again, or a late update of it, is deleted by
        the next call that finds it old.

        Args:
            older_than: Delete spans that started longer ago than this, or before this time.
            max_bytes: Then delete the oldest spans until so much is stored, at least 1,000,000. This is the size of the
                pages in use. The file does not shrink: the next writes fill it again.

        Raises:
            ConfigurationError: Neither is given, or one is invalid; nothing was deleted.
            StoreError: The store cannot be read or written, and what was deleted until then stays deleted; or it is not
                an SQLite store, and nothing was deleted.
        """
        if older_than is None and max_bytes is None:
            raise ConfigurationError("retain()", "neither older_than nor max_bytes", "at least one of them")
        before_ns = None if older_than is None else past_ns(older_than, self._clock.wall_ns())
        check_bytes(max_bytes)
        return self._store.retain(before_ns, max_bytes)

    def update(
        self,
        span_id: str | SpanRef | int | UUID,
        *,
        level: Level = "span",
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        name: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        input: object = UNSET,  # shadows the builtin on purpose: it is the name of the field
        output: object = UNSET,
        tags: Iterable[str] | None = None,
        status: StatusLike | None = None,
        status_message: str | None = None,
    ) -> UpdateReport:
        """Update one stored span, or its trace, as `update_span` and `update_trace` do in an application.

        Args:
            span_id: 16 hex digits, a `SpanRef`, or a `traceparent`; of one id in several traces the newest span. With
                `level="trace"` also a trace id: 32 hex digits, a UUID, or an integer.
            level: `"trace"` for the trace of the span.
            metadata: First-level keys.
            attributes: Plain attributes; of a span only.
            name: A new name.
            user_id: The user behind it.
            session_id: The session it belongs to.
            input: What went in.
            output: What came out.
            tags: Texts to add.
            status: As for `update_span`; of a span only.
            status_message: A description of an error; of a span only.

        Returns:
            As `update_metadata`, of one row; `notes` say what the clean-up changed.

        Raises:
            ConfigurationError: There is no such level, or a trace has no such field. Nothing was changed.
            InvalidSpanRefError: The id has another form.
            SpanNotFoundError: The span is not stored.
            StoreError: Nothing was changed.
        """
        if level not in get_args(Level):
            raise ConfigurationError("update(level=)", level, "span or trace")
        if level == "trace" and not (attributes is None and status is None and status_message is None):
            raise ConfigurationError("update(level=)", level, "span for attributes, status and status_message")
        named = self._of_trace(span_id) if level == "trace" else read_name(span_id)
        notes: builtins.list[str] = []
        values = span_values(
            level,
            notes,
            metadata,
            attributes,
            name,
            user_id,
            session_id,
            input,
            output,
            tags,
            status,
            status_message,
        )
        log_misfits("spans.update", notes)
        rows = replace(Rows.of([named]), documents={0: values}, notes=notes)
        return self._updates.apply_all(rows)

    def _of_trace(self, given: object) -> tuple[str | None, str, Mapping[str, str]]:
        """Return the result of `read_name` for the name of a trace, or of one of its spans.

        Raises:
            InvalidSpanRefError: *given* names neither.
            SpanNotFoundError: A trace id was given, and no span of the trace is stored.
        """
        ref = given if isinstance(given, SpanRef) and given.trace_id and not given.span_id else trace_of(given)
        if ref is None:
            named = read_name(given)
            return named if ":" not in named[1] else read_name(SpanRef.from_text(named[1]).to_trace())
        span_id = ref.span_id_hex
        if not isinstance(self._where, Destination):
            found = self._store.query(SpanQuery(ref.trace_id_hex, limit=1))
            if not found:
                raise SpanNotFoundError(ref.trace_id_hex, f"{self._store}")
            span_id = found[0].span_id
        return ref.trace_id_hex, span_id, ref.backend_ids

    @unpacks(arize_names.Place)
    def update_metadata(
        self,
        dataframe: object,
        patch_document_column_name: str = PATCH_DOCUMENT,
        *,
        validate: bool = True,
        **place: Unpack[arize_names.Place],
    ) -> UpdateReport:
        """Merge metadata into many spans at the first level: keys that are not named stay, None is stored as null.

        Args:
            dataframe: One row for each update: of pandas or polars, a pyarrow Table, anything with
                `__arrow_c_stream__`, or a list of dicts. `context.span_id`, and columns `attributes.metadata.<field>`,
                a patch document, or both; the document (a dict, or the JSON text of an object) is applied last and
                wins. A cell that is missing changes nothing. Rows are applied in order. docs/dataframes.md has more.
            patch_document_column_name: The column of the patch document.
            validate: Raise for a column that begins like one of these but is not one; False leaves it out with a note.
            **place: See `Place`.

        Returns:
            How many rows were applied, and why each of the others was not: unknown span (`segment_not_found`), a patch
            document that is no JSON object (`parse_failure`), …

        Raises:
            ConfigurationError: *dataframe* is no table or lacks a column; project or space is not the destination's;
                the destination needs `context.trace_id` or `traceparent` as well. Nothing was changed.
            MissingExtraError: An Arrow table needs pyarrow.
            StoreError: Nothing was changed.
        """
        read = partial(metadata_rows, patch_document_column_name=patch_document_column_name, validate=validate)
        return self._apply(dataframe, read, place)

    log_metadata = arize_names.log_metadata

    @unpacks(arize_names.Place)
    def update_evaluations(
        self,
        dataframe: object,
        *,
        validate: bool = True,
        **place: Unpack[arize_names.Place],
    ) -> UpdateReport:
        """Set evaluations on many spans; the same name again replaces the evaluation whole.

        Args:
            dataframe: As for `update_metadata`, with columns `eval.<Name>.label` (text), `.score` (finite number),
                `.explanation` (text), `.source` (`code`, `llm` or `human`), `.metadata` (object); `trace.eval.<Name>.…`
                for the span's trace. Without any of them: `name`, `label`, `score`, `explanation`, one a row.
                A row without label, score and explanation of a name sets nothing under it.
            validate: As for `update_metadata`: `eval.Correctness.lable` raises.
            **place: See `Place`.

        Returns:
            As `update_metadata`; a cell of a wrong type fails its row (`patch_failure`).

        Raises:
            ConfigurationError: As `update_metadata`.
            MissingExtraError: An Arrow table needs pyarrow.
            StoreError: Nothing was changed.
        """
        return self._apply(dataframe, partial(evaluation_rows, validate=validate), place)

    @unpacks(arize_names.Place)
    def update_annotations(
        self,
        dataframe: object,
        *,
        validate: bool = True,
        **place: Unpack[arize_names.Place],
    ) -> UpdateReport:
        """Set annotations on many spans; the same name by the same annotator again replaces the annotation whole.

        Args:
            dataframe: As for `update_metadata`, with columns `annotation.<Name>.label` (text), `.score` (finite
                number), `.text`, `.annotator` (or `.updated_by`); `trace.annotation.<Name>.…` for the span's trace;
                `annotation.notes` for a text under the name "notes". Without any of them: `name`, `label`, `score`,
                `text`, one annotation a row.
            validate: As for `update_metadata`.
            **place: See `Place`.

        Returns:
            As `update_evaluations`.

        Raises:
            ConfigurationError: As `update_metadata`.
            MissingExtraError: An Arrow table needs pyarrow.
            StoreError: Nothing was changed.
        """
        return self._apply(dataframe, partial(annotation_rows, validate=validate), place)

    @unpacks(arize_names.ProjectAndSpace, arize_names.PlaceOfRecords)
    def annotate(
        self,
        annotations: Iterable[AnnotateRecordInput | Mapping[str, object] | object],
        **place: Unpack[arize_names.PlaceOfRecords],
    ) -> UpdateReport:
        """Set annotations on at most 1,000 spans: all of them, or none when a span is not stored.

        A destination without a store cannot be asked first: there each record fares by itself, as the report says.

        Args:
            annotations: `AnnotateRecordInput`, dicts of the same keys, or objects of Arize's SDK. The same name (and
                annotator) again replaces an annotation.
            **place: See `ProjectAndSpace` and `PlaceOfRecords`.

        Raises:
            ConfigurationError: The project or space is not the destination's; there are more than 1,000, or a record
                cannot be read: it is named. Nothing was changed.
            SpanNotFoundError: A span is not stored. Nothing was changed.
            StoreError: Nothing was changed.
        """
        notes = self._check_place(place)
        rows = record_rows(annotations)
        rows.remember(notes)
        return self._updates.apply_all(rows)

    annotate_spans = annotate
    """The name that Arize's client had from 8.26 to 8.30."""

    @unpacks(arize_names.SpaceId)
    def log(
        self,
        dataframe: object,
        evals_dataframe: object = None,
        *,
        project_name: str | None = None,
        validate: bool = True,
        **_arize: Unpack[arize_names.SpaceId],
    ) -> UpdateReport:
        """Store many spans, and evaluations of them; replace a stored span, but keep later updates of it.

        Metadata, tags, input, output, user and session merge as in any update, with the time of the span's end: a later
        row with the same end, or a later end, replaces what it names; the rest stays.

        Args:
            dataframe: One row for each span, as for `update_metadata`: `context.span_id`, `context.trace_id`, `name`,
                `start_time` and `end_time` (datetimes, or ISO 8601 texts); `parent_id`, `kind`, `span_kind`,
                `status_code`, `status_message`, `project`, `scope_name`, `scope_version`;
                `attributes.metadata.<field>`, `attributes.<name>`. Any other column is left out with a note.
            evals_dataframe: Evaluations, as for `update_evaluations`; set after the spans were stored.
            project_name: The project of spans that do not name theirs.
            validate: As for `update_evaluations`.
            **_arize: See `SpaceId`.

        Returns:
            The rows of both frames together; `status_code` is 200 when all were stored.

        Raises:
            ConfigurationError: This is no store, a frame lacks a column, the project is no text. Nothing was changed.
            MissingExtraError: An Arrow table needs pyarrow.
            StoreError: Nothing was changed.
        """
        evaluations = (
            evaluation_rows(read_frame(evals_dataframe, "evals_dataframe"), validate=validate)
            if evals_dataframe is not None
            else None
        )
        if not isinstance(project_name, str | None):
            raise ConfigurationError("project_name", project_name, "the name of a project, a text")
        frame = read_frame(dataframe)
        rows, spans = span_rows(frame, draw(self._versions, frame.height), project_name)
        return StoreUpdates(self._store, self._versions).log(rows, spans, evaluations)


@final
@dataclass(frozen=True, slots=True)
class DeleteReport:
    """What became of a deletion, with the attributes of Arize's `DeleteSpansResponse`.

    Attributes:
        completed: Whether the call reached its end. If False, make the same call again.
        deleted_span_ids: Ids of spans that were stored, and are deleted.
        not_deleted_span_ids: Ids that are not stored, or that the call did not reach.
        error_message: Why the call did not reach its end; None if it did.
    """

    completed: bool
    deleted_span_ids: builtins.list[str]
    not_deleted_span_ids: builtins.list[str]
    error_message: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict; it has `error_message` only if the call did not reach its end."""
        return {name: value for name, value in asdict(self).items() if value is not None}
