"""Stored spans and traces from a shell: each command of `otel-metadata` that reads or changes them.

Each command calls `Client` and prints the answer. `given` reads the arguments; `shown` and
`shown_history` decide how the answer looks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from otel_metadata.cli.given import (
    author_of,
    json_object,
    json_or_text,
    key_values,
    moment,
    named,
    number,
    size,
    status_of,
    whole_number,
)
from otel_metadata.cli.shell import (
    AsJson,
    console,
    fail,
    failures,
    in_ascii,
    one_or_many,
    print_json,
    say,
    speaks_json,
)
from otel_metadata.cli.shown import span_table, trace_table, trace_trees
from otel_metadata.cli.shown_history import history_table
from otel_metadata.client import Client
from otel_metadata.client.history import field_name, value_to_dict
from otel_metadata.client.page import record_to_dict
from otel_metadata.client.traces import trace_to_dict
from otel_metadata.destination_factory import default_store
from otel_metadata.errors import FileError, MissingExtraError
from otel_metadata.foreign_text import visible
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.model.unset import UNSET
from otel_metadata.seams import SystemClock

if TYPE_CHECKING:
    import datetime as dt
    from io import BufferedReader

    from rich.table import Table

    from otel_metadata.client.client import Spans
    from otel_metadata.client.imports import ImportReport
    from otel_metadata.client.page import Page
    from otel_metadata.client.report import UpdateReport
    from otel_metadata.client.traces import TracePage
    from otel_metadata.model.merge import Json, Level
    from otel_metadata.model.record import SpanRecord

_CLOCK = SystemClock()

_STANDARD_STREAM: Final = "-"

_Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The store, such as sqlite:///spans.db. By default the first store in OTEL_PYTHON_METADATA_DESTINATIONS, "
        "or sqlite:///otel_metadata.db.",
    ),
]
_Project = Annotated[str | None, typer.Option("--project", metavar="NAME", help="Only those of this project.")]
_Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Only those from this time on: 30min, 12h or 7d ago, or 2026-01-31 (UTC)."
    ),
]
_Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only those that started before; written as --since.")
]
_Filter = Annotated[
    str | None,
    typer.Option("--filter", metavar="TEXT", help="Only spans that match, such as \"metadata.region = 'us-west'\"."),
]
_Cursor = Annotated[str | None, typer.Option(metavar="TEXT", help="Continue after the page that gave this cursor.")]
_Span = Annotated[
    str,
    typer.Argument(metavar="SPAN", help="A span id (16 hex digits), a traceparent, or a trace id (32): the trace."),
]
_Author = Annotated[
    str | None,
    typer.Option(
        "--author",
        metavar="NAME",
        help="Who changes it, for people. By default OTEL_PYTHON_METADATA_AUTHOR, or cli:<user>.",
    ),
]
_OfTrace = Annotated[bool, typer.Option("--trace", help="Change the trace of the span instead of the span.")]


class _Judge(str, Enum):
    """`model.evaluation.Source` as an Enum: older releases of typer take no Literal."""

    CODE = "code"
    LLM = "llm"
    HUMAN = "human"


class _Format(str, Enum):
    """The formats of a file of spans."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    CSV = "csv"


def ls(
    store: _Store = None,
    project: _Project = None,
    since: _Since = None,
    until: _Until = None,
    filter: _Filter = None,  # shadows the builtin on purpose: the name is that of `Client`
    limit: Annotated[str, typer.Option(metavar="NUMBER", help="List at most this many spans.")] = "100",
    cursor: _Cursor = None,
    as_json: AsJson = None,
) -> None:
    """List spans, newest first. Without --since, only those of the last seven days.

    When there are more, the cursor of the next page is written to standard error, as JSON when the spans are JSON.
    """
    now_ns = _CLOCK.wall_ns()
    with _opened(store) as spans:
        page = spans.list(
            project=project,
            start_time=moment(since, now_ns, "--since"),
            end_time=moment(until, now_ns, "--until"),
            filter=filter,
            limit=whole_number(limit, "--limit"),
            cursor=cursor,
        )
        _print_page(page, record_to_dict, span_table, "span", as_json, has_since=since is not None)


def traces(
    store: _Store = None,
    project: _Project = None,
    since: _Since = None,
    until: _Until = None,
    filter: Annotated[
        str | None, typer.Option("--filter", metavar="TEXT", help="Only traces whose root matches, as in ls.")
    ] = None,
    limit: Annotated[str, typer.Option(metavar="NUMBER", help="List at most this many traces.")] = "100",
    cursor: _Cursor = None,
    as_json: AsJson = None,
) -> None:
    """List traces, one line each, newest first. Without --since, only those of the last seven days.

    A trace is listed once its root is stored. Cursors are as those of `ls`.
    """
    now_ns = _CLOCK.wall_ns()
    with _client(store) as client:
        page = client.traces.list(
            project=project,
            start_time=moment(since, now_ns, "--since"),
            end_time=moment(until, now_ns, "--until"),
            filter=filter,
            limit=whole_number(limit, "--limit"),
            cursor=cursor,
        )
        _print_page(page, trace_to_dict, trace_table, "trace", as_json, has_since=since is not None)


def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="ID",
            help="A trace id (32 hex digits), a span id (16), or a traceparent. Without it, the newest trace.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Show everything as it was then: 30min, 12h or 7d ago, or 2026-01-31T10:00 (UTC)."
        ),
    ] = None,
    store: _Store = None,
    with_attributes: Annotated[bool, typer.Option("--attributes", help="Show plain attributes too.")] = False,
    as_json: AsJson = None,
) -> None:
    """Show a trace as a tree, with everything that was set on it and its spans.

    As JSON: every span of the trace, or one span for a span id, with everything that is stored of it.
    """
    time = moment(at, _CLOCK.wall_ns(), "--at")
    with _client(store) as client:
        trace_id, span_id = named(name) if name is not None else (_newest_trace(client.spans, time), None)
        if span_id is not None:
            found = client.spans.get(span_id, trace_id=trace_id, at=time)
            trace_id = found.trace_id
            if speaks_json(as_json):
                _print_rows([found])
                return
        trace = client.traces.get(f"{trace_id}", at=time)
        if speaks_json(as_json):
            _print_rows(reversed(trace))
            return
        terminal = console()
        if time is not None:
            terminal.print(f"as it was at {time if isinstance(time, str) else f'{time:%Y-%m-%d %H:%M:%S} UTC'}")
        for tree in trace_trees(trace, marked=span_id, with_attributes=with_attributes):
            terminal.print(tree)


def history(
    name: _Span,
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY",
            help="Only this one: a metadata key, or a name as filters have it, such as eval.Correctness.",
        ),
    ] = None,
    store: _Store = None,
    as_json: AsJson = None,
) -> None:
    """Show when each value of a span and its trace was set, by whom, and what it replaced; newest first.

    Of a trace id: the values of the trace itself. Times are relative to the end of the span or trace.
    """
    with _client(store) as client:
        trace_id, span_id = named(name)
        if span_id is not None:
            span = client.spans.get(span_id, trace_id=trace_id)
            what, end_ns = f"span {span_id} {visible(span.name)}", span.span.end_ns
            records = client.spans.history(span_id, key, trace_id=span.trace_id)
        else:
            trace = client.traces.get(f"{trace_id}")
            what, end_ns = f"trace {trace_id}", max(span.span.end_ns for span in trace)
            records = client.traces.history(f"{trace_id}", key)
            span = trace.root
        if speaks_json(as_json):
            for record in records:
                place = span.span_id if record.level == "span" else None
                print_json({"trace_id": span.trace_id, "span_id": place, **value_to_dict(record)})
        elif records:
            terminal = console()
            terminal.print(history_table(records, what=what, end_ns=end_ns, options=terminal.options))
        elif key is None:
            say(f"nothing was set on {what}.")
        else:
            values = (
                client.traces.history(span.trace_id)
                if span_id is None
                else client.spans.history(span_id, trace_id=span.trace_id)
            )
            known = dict.fromkeys(map(field_name, values))
            say(f"{key} was not set on {what}; set were: {', '.join(known) or 'no values'}.")


def patch(
    name: _Span,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            metavar="KEY=VALUE",
            help="A metadata key; repeat it for more. A value that is not JSON is a text.",
        ),
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="Metadata keys as one object; -m is applied after it.")
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option("--attribute", metavar="KEY=VALUE", help="A plain attribute of the span, written as for -m."),
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TEXT", help="A tag to add; repeat it for more.")
    ] = None,
    new_name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="A new name.")] = None,
    user_id: Annotated[str | None, typer.Option("--user", metavar="ID", help="The user id.")] = None,
    session_id: Annotated[str | None, typer.Option("--session", metavar="ID", help="The session id.")] = None,
    input: Annotated[  # shadows the builtin on purpose: it is the name of the field
        str | None, typer.Option("--input", metavar="VALUE", help="The input. A value that is not JSON is a text.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="VALUE", help="The output, read as --input.")
    ] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="ok, error, or an integer code; 400 and above is an error.")
    ] = None,
    status_message: Annotated[str | None, typer.Option(metavar="TEXT", help="A description of an error.")] = None,
    of_trace: _OfTrace = False,
    author: _Author = None,
    store: _Store = None,
    as_json: AsJson = None,
) -> None:
    """Set metadata, tags and more on a stored span or its trace.

    Metadata merges at the first level: other keys stay, and a nested value is replaced as a whole. null is a value.
    """
    options = (pairs, metadata, attributes, tags, new_name, user_id, session_id, input, output, status, status_message)
    if all(option is None or option == [] for option in options):
        raise typer.BadParameter("nothing to set was given; expected -m, --metadata, --tag, or another option.")
    level = _level(name, of_trace=of_trace)
    if level == "trace" and (attributes or status is not None or status_message is not None):
        raise typer.BadParameter("a trace has no --attribute, --status or --status-message; expected a span id.")
    keys = {**json_object(metadata, "--metadata"), **key_values(pairs, "-m")}
    given_attributes = key_values(attributes, "--attribute")
    given_status = status_of(status)
    with _opened(store, author=author) as spans:
        found = _found(spans, name)
        report = spans.update(
            SpanRef(int(found.trace_id, 16), int(found.span_id, 16)),
            level=level,
            metadata=keys,
            attributes=given_attributes if level == "span" else None,
            name=new_name,
            user_id=user_id,
            session_id=session_id,
            input=UNSET if input is None else json_or_text(input),
            output=UNSET if output is None else json_or_text(output),
            tags=tags,
            status=given_status,
            status_message=status_message,
        )
        _tell(report, found, level, "updated", as_json)


def score(
    name: _Span,
    evaluation: Annotated[str, typer.Argument(metavar="NAME", help="The name of the evaluation, such as Correctness.")],
    value: Annotated[str | None, typer.Option("--score", metavar="NUMBER", help="The score.")] = None,
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="The label, such as correct.")] = None,
    explanation: Annotated[str | None, typer.Option(metavar="TEXT", help="Why it was judged so.")] = None,
    source: Annotated[_Judge, typer.Option(help="Who judged: a program, a model, or a person.")] = _Judge.CODE,
    of_trace: _OfTrace = False,
    author: _Author = None,
    store: _Store = None,
    as_json: AsJson = None,
) -> None:
    """Add an evaluation to a stored span or its trace. It replaces an evaluation of the same name."""
    parts = _contents("--explanation", score=number(value, "--score"), label=label, explanation=explanation)
    with _opened(store, author=author) as spans:
        found, level = _found(spans, name), _level(name, of_trace=of_trace)
        row = _verdict_row(found, level, "eval", evaluation, {**parts, "source": source.value})
        _tell(spans.update_evaluations([row]), found, level, "scored", as_json)


def annotate(
    name: _Span,
    annotation: Annotated[str, typer.Argument(metavar="NAME", help="The name of the annotation, such as quality.")],
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="The label, such as good.")] = None,
    value: Annotated[str | None, typer.Option("--score", metavar="NUMBER", help="The score.")] = None,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="Free text.")] = None,
    annotator: Annotated[
        str | None, typer.Option(metavar="WHO", help="Who annotates. Several annotators may use one name.")
    ] = None,
    of_trace: _OfTrace = False,
    author: _Author = None,
    store: _Store = None,
    as_json: AsJson = None,
) -> None:
    """Add a person's annotation to a stored span or its trace. It replaces one of the same name and annotator."""
    parts = _contents("--text", score=number(value, "--score"), label=label, text=text)
    if annotator is not None:
        parts["annotator"] = annotator
    with _opened(store, author=author) as spans:
        found, level = _found(spans, name), _level(name, of_trace=of_trace)
        row = _verdict_row(found, level, "annotation", annotation, parts)
        _tell(spans.update_annotations([row]), found, level, "annotated", as_json)


def delete(
    names: Annotated[list[str], typer.Argument(metavar="SPAN", help="Span ids (16 hex digits), or traceparents.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    store: _Store = None,
    as_json: AsJson = None,
) -> None:
    """Delete spans and everything that was set on them, for good. Unknown spans are reported.

    The last span of a trace takes with it what was set on the trace.
    """
    for name in names:
        if named(name).span_id is None:
            raise typer.BadParameter(f"{name} is a trace id; expected span ids, which `show` and `ls` print.")
    with _opened(store) as spans:
        if not yes:
            _confirm(f"Delete {one_or_many(len(names), 'span')} for good?")
        report = spans.delete([name.strip().lower() for name in names])
        if speaks_json(as_json):
            print_json(report.to_dict())
        else:
            rest = "unknown" if report.completed else "not deleted"
            left = f"; {rest}: {', '.join(report.not_deleted_span_ids)}" if report.not_deleted_span_ids else ""
            typer.echo(f"{one_or_many(len(report.deleted_span_ids), 'span')} deleted{left}.")
        if not report.completed:
            fail(f"{report.error_message} Run the same command again to delete the rest.")


def retain(
    older_than: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Delete spans that started before: 30d or 12h ago, or 2026-01-31 (UTC)."),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Delete the oldest spans until this is left, such as 2GB.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    store: _Store = None,
    as_json: AsJson = None,
) -> None:
    """Delete the oldest spans and everything that was set on them, for good, while others write.

    The file does not shrink: the next writes fill it again.
    """
    if older_than is None and max_size is None:
        raise typer.BadParameter("nothing to delete was named; expected --older-than, --max-size, or both.")
    before, max_bytes = moment(older_than, _CLOCK.wall_ns(), "--older-than"), size(max_size, "--max-size")
    with _opened(store) as spans:
        if not yes:
            _confirm("Delete the oldest spans for good?")
        found = spans.retain(older_than=before, max_bytes=max_bytes)
        if speaks_json(as_json):
            print_json(asdict(found))
            return
        updates = one_or_many(found.updates_deleted, "span or trace", "spans or traces")
        waiting = f", and updates of {updates} that the store does not have" if found.updates_deleted else ""
        deleted = one_or_many(found.spans_deleted, "span")
        typer.echo(f"{deleted} deleted{waiting}; {found.stored_bytes / 1e6:,.1f} MB are stored.")


def export(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file, or `-` for JSON Lines on standard output.")],
    format: Annotated[
        _Format | None, typer.Option(help="By default the ending of the path decides: .parquet, .jsonl, .csv.")
    ] = None,
    store: _Store = None,
    project: _Project = None,
    since: _Since = None,
    until: _Until = None,
    filter: _Filter = None,
    as_json: AsJson = None,
) -> None:
    """Write all spans, or the selected ones, to a file. An existing file is replaced once everything is written."""
    chosen = _format_of(path, format)
    now_ns = _CLOCK.wall_ns()
    start_time, end_time = moment(since, now_ns, "--since"), moment(until, now_ns, "--until")
    with _opened(store) as spans:
        writers: Mapping[_Format, Callable[..., int]] = {
            _Format.PARQUET: spans.export_to_parquet,
            _Format.JSONL: spans.export_to_jsonl,
            _Format.CSV: spans.export_to_csv,
        }
        write = partial(writers[chosen], project=project, start_time=start_time, end_time=end_time, filter=filter)
        if path == _STANDARD_STREAM:
            if sys.stdout.isatty():
                write(_Terminal(), progress=False)  # a line of progress would get among the lines of spans
            else:
                write(sys.stdout.buffer)
            return
        count = write(path)
        if speaks_json(as_json):
            print_json({"path": path, "spans": count})
        else:
            typer.echo(f"{one_or_many(count, 'span')} in {visible(path)}.")


def import_(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="OTLP as JSON lines, as a Collector writes them; a Parquet or JSON Lines file that `export` has "
            "written; or `-` for standard input.",
        ),
    ],
    store: _Store = None,
    as_json: AsJson = None,
) -> None:
    """Write the spans of files into the store, and make a missing store. A second import changes nothing.

    Errors are reported on standard error, and the rest is imported. The exit code is 1 after an error, and for a file
    without spans.
    """
    is_whole = True
    with _opened(store, create=True) as spans:
        for path in paths:
            try:
                report = spans.import_file(_standard_input() if path == _STANDARD_STREAM else path)
            except (FileError, MissingExtraError) as error:  # the other files are imported
                say(f"{error}")
                is_whole = False
                continue
            is_whole = is_whole and not report.spans_failed and report.found_instead is None
            _tell_import(path, report, as_json)
    raise typer.Exit(0 if is_whole else 1)


def _standard_input() -> BufferedReader:
    if sys.stdin is None:
        fail("standard input is closed; expected an open one, or the name of a file.")
    return cast("BufferedReader", sys.stdin.buffer)  # typeshed allows for the stand-in of a test


def _tell_import(path: str, report: ImportReport, as_json: bool | None) -> None:
    """Print the result of importing one file."""
    for problem in report.problems:
        say(f"{path}, line {problem.line}: {problem.message}")
    if report.spans_failed > len(report.problems):
        say(f"{path}: {report.spans_failed - len(report.problems):,} more could not be read.")
    if report.found_instead is not None:
        say(f"{path}: no spans were found; the file holds {report.found_instead}.")
    if speaks_json(as_json):
        print_json(
            {
                "path": path,
                "spans_imported": report.spans_imported,
                "updates_imported": report.updates_imported,
                "spans_failed": report.spans_failed,
                "lines_ignored": report.lines_ignored,
            }
        )
        return
    updates = f", {one_or_many(report.updates_imported, 'late update')}" if report.updates_imported else ""
    failed = f", {report.spans_failed:,} could not be read" if report.spans_failed else ""
    ignored = f", {one_or_many(report.lines_ignored, 'line')} of other signals left out" if report.lines_ignored else ""
    typer.echo(f"{visible(path)}: {one_or_many(report.spans_imported, 'span')}{updates} imported{failed}{ignored}.")


def _confirm(question: str) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        fail("nothing was deleted, because there is no terminal to ask on; expected --yes.")
    typer.confirm(question, abort=True, err=True)


@contextmanager
def _opened(store: str | None, *, create: bool = False, author: str | None = None) -> Iterator[Spans]:
    """Open the spans of the store, as `_client` does."""
    with _client(store, create=create, author=author) as client:
        yield client.spans


@contextmanager
def _client(store: str | None, *, create: bool = False, author: str | None = None) -> Iterator[Client]:
    """Open the store, under the author's name. An error that a user can cause is one line and exit code 1."""
    with failures():
        url = store if store is not None else default_store()
        with Client(url, create=create, author=author_of(author)) as client:
            yield client


def _format_of(path: str, chosen: _Format | None) -> _Format:
    """Return the format to write.

    Raises:
        typer.BadParameter: Neither the option nor the path names a format, or standard output takes another.
    """
    if path == _STANDARD_STREAM:
        if chosen not in (None, _Format.JSONL):
            raise typer.BadParameter("standard output takes only jsonl; name a file.", param_hint="--format")
        return _Format.JSONL
    suffix = PurePath(path).suffix.lower().removeprefix(".")
    if chosen is None and suffix not in list(_Format):
        raise typer.BadParameter(
            f"{ascii(path)[:200]} ends with neither .parquet, nor .jsonl, nor .csv; expected one of them, or --format.",
            param_hint="PATH",
        )
    return chosen or _Format(suffix)


class _Terminal:
    """Standard output for lines of JSON, where it is a terminal."""

    def writelines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            sys.stdout.write(in_ascii(line.decode()))

    def flush(self) -> None:
        sys.stdout.flush()


def _print_page(
    page: Page | TracePage,
    to_dict: Callable[[Any], dict[str, Json]],
    table: Callable[..., Table],
    noun: str,
    as_json: bool | None,
    *,
    has_since: bool,
) -> None:
    """Print one page as JSON or as a table; on standard error, how to go on."""
    if speaks_json(as_json):
        for record in page:
            print_json(to_dict(record))
        if page.next_cursor is not None:
            typer.echo(json.dumps({"next_cursor": page.next_cursor}), err=True)
        return
    if page:
        terminal = console()
        terminal.print(table(page, width=terminal.width))
    else:
        say(f"no {noun} was found" + ("." if has_since else " in the last seven days; --since looks further back."))
    if page.next_cursor is not None:
        say(f"there are more; continue with --cursor {page.next_cursor}")


def _print_rows(records: Iterable[SpanRecord]) -> None:
    for record in records:
        print_json(record_to_dict(record))


def _newest_trace(spans: Spans, before: str | dt.datetime | None) -> str:
    """Return the id of the trace whose root is the newest; if no root is stored, of the newest span."""
    newest = partial(spans.list, start_time="1678-01-01", end_time=before, limit=1)
    found = newest(filter="parent_id IS NULL") or newest()
    if not found:
        fail("no span is stored here; expected a store to which an application has exported spans.")
    return found[0].trace_id


def _found(spans: Spans, name: str) -> SpanRecord:
    """Return the span that *name* names; for a trace id, one span of the trace.

    Raises:
        SpanNotFoundError: The span is not stored.
        typer.BadParameter: *name* is not an id of a span or a trace.
    """
    trace_id, span_id = named(name)
    if span_id is not None:
        return spans.get(span_id, trace_id=trace_id)
    found = spans.list(trace_id=trace_id, limit=1)
    if not found:
        fail(f"no span of trace {trace_id} is stored here; expected a trace whose spans were exported.")
    return found[0]


def _level(name: str, *, of_trace: bool) -> Level:
    """Return whether an update is for the span or the trace: a trace id alone means the trace.

    Raises:
        typer.BadParameter: *name* is not an id of a span or a trace.
    """
    return "trace" if named(name).span_id is None or of_trace else "span"


def _contents(last: str, **parts: float | str | None) -> dict[str, float | str]:
    """Return the parts of a verdict that were given.

    Raises:
        typer.BadParameter: No part was given.
    """
    given = {part: value for part, value in parts.items() if value is not None}
    if not given:
        raise typer.BadParameter(f"no value was given; expected --score, --label, or {last}.")
    return given


def _verdict_row(
    record: SpanRecord, level: Level, kind: str, name: str, parts: Mapping[str, float | str]
) -> dict[str, float | str]:
    """Return a verdict about *record* as one row of a frame, as the client takes it."""
    if not name:
        raise typer.BadParameter("the name is empty; expected a name such as Correctness.", param_hint="NAME")
    prefix = f"trace.{kind}" if level == "trace" else kind
    ids: dict[str, float | str] = {"context.trace_id": record.trace_id, "context.span_id": record.span_id}
    return ids | {f"{prefix}.{name}.{part}": value for part, value in parts.items()}


def _tell(report: UpdateReport, record: SpanRecord, level: Level, verb: str, as_json: bool | None) -> None:
    """Print the result of an update."""
    for note in report.notes:
        say(f"note: {note}")
    if report.errors:
        fail(report.errors[0]["error_message"])
    if speaks_json(as_json):
        print_json(report.to_dict())
        return
    what = f"trace {record.trace_id}" if level == "trace" else f"span {record.span_id} ({visible(record.name)})"
    typer.echo(f"{what}: {verb}.")
