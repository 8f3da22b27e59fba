"""Stored spans from a shell: `ls`, `show`, `patch`, `score`, `annotate`, `delete`, `export`, `import`.

Each command is a call of `Client`, and what is printed of its answer. What a command line can say is read in `given`,
how spans look is decided in `shown`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, cast

import typer
from rich.console import Console

from otel_metadata.cli.given import (
    json_object,
    json_or_text,
    key_values,
    moment,
    named,
    number,
    status_of,
    whole_number,
)
from otel_metadata.cli.shell import fail, failures, in_ascii, one_or_many, print_json, say, speaks_json
from otel_metadata.cli.shown import span_table, trace_trees
from otel_metadata.client import Client
from otel_metadata.client.page import record_to_dict
from otel_metadata.destination_factory import default_store
from otel_metadata.errors import FileError, MissingExtraError
from otel_metadata.foreign_text import visible
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.model.unset import UNSET
from otel_metadata.seams import SystemClock

if TYPE_CHECKING:
    from io import BufferedReader

    from otel_metadata.client.client import Spans
    from otel_metadata.client.imports import ImportReport
    from otel_metadata.client.report import UpdateReport
    from otel_metadata.model.merge import Level
    from otel_metadata.model.record import SpanRecord

__all__ = ["annotate", "delete", "export", "import_", "ls", "patch", "score", "show"]

_CLOCK = SystemClock()

_STANDARD_STREAM: Final = "-"

# Spans of one trace are read in pages of this size.
_PAGE_SPANS = 1_000

_Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The store, such as sqlite:///spans.db; by default the first one among OTEL_PYTHON_METADATA_DESTINATIONS, "
        "else sqlite:///otel_metadata.db.",
    ),
]
_Project = Annotated[str | None, typer.Option("--project", metavar="NAME", help="Only spans of this project.")]
_Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Only spans that started then or later: 30min, 12h, 7d, 2026-01-31 (UTC)."
    ),
]
_Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only spans that started before; as --since.")
]
_Filter = Annotated[
    str | None,
    typer.Option("--filter", metavar="TEXT", help="What must hold, such as \"metadata.region = 'us-west'\"."),
]
_AsJson = Annotated[
    bool | None,
    typer.Option("--json/--no-json", help="JSON, one object a line, or text to look at; JSON when piped."),
]
_Span = Annotated[
    str,
    typer.Argument(metavar="SPAN", help="A span id of 16 hex digits, a traceparent, or a trace id of 32: the trace."),
]
_OfTrace = Annotated[bool, typer.Option("--trace", help="Say it of the trace that the span belongs to.")]


class _Judge(str, Enum):
    """`model.evaluation.Source`, as every release of typer takes a choice."""

    CODE = "code"
    LLM = "llm"
    HUMAN = "human"


class _Format(str, Enum):
    """What a file of spans may be."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    CSV = "csv"


def ls(
    store: _Store = None,
    project: _Project = None,
    since: _Since = None,
    until: _Until = None,
    filter: _Filter = None,  # the word of the client
    limit: Annotated[str, typer.Option(metavar="NUMBER", help="At most so many spans.")] = "100",
    cursor: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Go on behind the page that named this cursor.")
    ] = None,
    as_json: _AsJson = None,
) -> None:
    """List spans, newest first; those of the last seven days unless --since looks further back.

    Where there are more, the cursor of the next page is told on standard error, as JSON when the spans are.
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
        if speaks_json(as_json):
            _print_rows(page)
            if page.next_cursor is not None:
                typer.echo(json.dumps({"next_cursor": page.next_cursor}), err=True)
            return
        console = _console()
        if page.spans:
            console.print(span_table(page.spans, width=console.width))
        else:
            say("no such span" + ("." if since else " in the last seven days; --since looks further back."))
        if page.next_cursor is not None:
            say(f"there are more; go on with --cursor {page.next_cursor}")


def show(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="A trace id (32 hex digits), a span id (16), or a traceparent.")
    ],
    store: _Store = None,
    with_attributes: Annotated[bool, typer.Option("--attributes", help="Show plain attributes too.")] = False,
    as_json: _AsJson = None,
) -> None:
    """Show a trace as a tree, with everything that was said of it.

    As JSON, the spans of a trace, or one span where one is named, with everything that is stored of them.
    """
    with _opened(store) as spans:
        found = _found(spans, name)
        is_span = named(name).span_id is not None
        if speaks_json(as_json):
            _print_rows([found] if is_span else _trace(spans, found.trace_id))
            return
        console = _console()
        marked = found.span_id if is_span else None
        for tree in trace_trees(_trace(spans, found.trace_id), marked=marked, with_attributes=with_attributes):
            console.print(tree)


def patch(
    name: _Span,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            metavar="KEY=VALUE",
            help="One key of the metadata, as often as needed; the value is JSON where it is some, else text.",
        ),
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="Keys of the metadata as an object; -m is applied after it.")
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option("--attribute", metavar="KEY=VALUE", help="One plain attribute of the span, as -m."),
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TEXT", help="A tag to add, as often as needed.")
    ] = None,
    new_name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="A new name.")] = None,
    user_id: Annotated[str | None, typer.Option("--user", metavar="ID", help="The user behind it.")] = None,
    session_id: Annotated[str | None, typer.Option("--session", metavar="ID", help="Its session.")] = None,
    input: Annotated[  # shadows the builtin on purpose: it is the name of the field
        str | None, typer.Option("--input", metavar="VALUE", help="What went in: JSON where it is some, else text.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", metavar="VALUE", help="What came out, as --input.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="ok, error, or an integer code; 400 and above is an error.")
    ] = None,
    status_message: Annotated[str | None, typer.Option(metavar="TEXT", help="A description of an error.")] = None,
    of_trace: _OfTrace = False,
    store: _Store = None,
    as_json: _AsJson = None,
) -> None:
    """Set metadata, tags and more on a stored span, or on its trace.

    Metadata merges at the first level: other keys stay, a nested value is replaced whole, and null is a value.
    """
    options = (pairs, metadata, attributes, tags, new_name, user_id, session_id, input, output, status, status_message)
    if all(option is None or option == [] for option in options):
        raise typer.BadParameter("nothing to set was given; expected -m, --metadata, --tag, or another of the options.")
    level = _level(name, of_trace=of_trace)
    if level == "trace" and (attributes or status is not None or status_message is not None):
        raise typer.BadParameter("a trace has no --attribute, --status or --status-message; name one of its spans.")
    keys = {**json_object(metadata, "--metadata"), **key_values(pairs, "-m")}
    given_attributes = key_values(attributes, "--attribute")
    given_status = status_of(status)
    with _opened(store) as spans:
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
    evaluation: Annotated[str, typer.Argument(metavar="NAME", help="What was judged, such as Correctness.")],
    value: Annotated[str | None, typer.Option("--score", metavar="NUMBER", help="A number.")] = None,
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="A word, such as correct.")] = None,
    explanation: Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")] = None,
    source: Annotated[_Judge, typer.Option(help="Who judged: a program, a judge model, a person.")] = _Judge.CODE,
    of_trace: _OfTrace = False,
    store: _Store = None,
    as_json: _AsJson = None,
) -> None:
    """Put an evaluation on a stored span, or on its trace; one of the same name is replaced whole."""
    parts = _contents("--explanation", score=number(value, "--score"), label=label, explanation=explanation)
    with _opened(store) as spans:
        found, level = _found(spans, name), _level(name, of_trace=of_trace)
        row = _verdict_row(found, level, "eval", evaluation, {**parts, "source": source.value})
        _tell(spans.update_evaluations([row]), found, level, "scored", as_json)


def annotate(
    name: _Span,
    annotation: Annotated[str, typer.Argument(metavar="NAME", help="What it is about, such as quality.")],
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="A word, such as good.")] = None,
    value: Annotated[str | None, typer.Option("--score", metavar="NUMBER", help="A number.")] = None,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="Free text.")] = None,
    annotator: Annotated[
        str | None, typer.Option(metavar="WHO", help="Who says it; of one name, each has an annotation of their own.")
    ] = None,
    of_trace: _OfTrace = False,
    store: _Store = None,
    as_json: _AsJson = None,
) -> None:
    """Put a person's annotation on a stored span, or on its trace; one of the same name and annotator is replaced."""
    parts = _contents("--text", score=number(value, "--score"), label=label, text=text)
    if annotator is not None:
        parts["annotator"] = annotator
    with _opened(store) as spans:
        found, level = _found(spans, name), _level(name, of_trace=of_trace)
        row = _verdict_row(found, level, "annotation", annotation, parts)
        _tell(spans.update_annotations([row]), found, level, "annotated", as_json)


def delete(
    names: Annotated[list[str], typer.Argument(metavar="SPAN", help="Span ids of 16 hex digits, or traceparents.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: _Store = None,
    as_json: _AsJson = None,
) -> None:
    """Delete spans and all that was said of them, for good; unknown ones are told.

    With the last span of a trace goes what was said of the trace.
    """
    for name in names:
        if named(name).span_id is None:
            raise typer.BadParameter(f"{name} is a trace id; expected span ids, which `show` and `ls` have.")
    with _opened(store) as spans:
        if not yes:
            if sys.stdin is None or not sys.stdin.isatty():
                fail("deletes nothing without --yes where nobody can be asked.")
            typer.confirm(f"Delete {one_or_many(len(names), 'span')} for good?", abort=True, err=True)
        report = spans.delete([name.strip().lower() for name in names])
        if speaks_json(as_json):
            print_json(report.to_dict())
        else:
            rest = "unknown" if report.completed else "not deleted"
            left = f"; {rest}: {', '.join(report.not_deleted_span_ids)}" if report.not_deleted_span_ids else ""
            typer.echo(f"{one_or_many(len(report.deleted_span_ids), 'span')} deleted{left}.")
        if not report.completed:
            fail(f"{report.error_message} The same command again goes on with the rest.")


def export(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A new file, or `-` for JSON Lines on standard output.")],
    format: Annotated[
        _Format | None, typer.Option(help="By default the one that the path ends with: .parquet, .jsonl, .csv.")
    ] = None,
    store: _Store = None,
    project: _Project = None,
    since: _Since = None,
    until: _Until = None,
    filter: _Filter = None,
    as_json: _AsJson = None,
) -> None:
    """Write all spans, or those that were selected, to a file; what is there is replaced when all is written."""
    chosen = _format_of(path, format)
    now_ns = _CLOCK.wall_ns()
    start_time, end_time = moment(since, now_ns, "--since"), moment(until, now_ns, "--until")
    with _opened(store) as spans:
        if path == _STANDARD_STREAM:
            # A line of progress would get among the lines of spans.
            progress = False if sys.stdout.isatty() else None
            spans.export_to_jsonl(
                cast("BinaryIO", _Terminal()) if sys.stdout.isatty() else sys.stdout.buffer,
                project=project,
                start_time=start_time,
                end_time=end_time,
                filter=filter,
                progress=progress,
            )
            return
        writers: Mapping[_Format, Callable[..., int]] = {
            _Format.PARQUET: spans.export_to_parquet,
            _Format.JSONL: spans.export_to_jsonl,
            _Format.CSV: spans.export_to_csv,
        }
        count = writers[chosen](path, project=project, start_time=start_time, end_time=end_time, filter=filter)
        if speaks_json(as_json):
            print_json({"path": path, "spans": count})
        else:
            typer.echo(f"{one_or_many(count, 'span')} in {visible(path)}.")


def import_(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="OTLP as JSON lines, as a Collector writes them; exports in Parquet or JSON Lines; or `-` for what "
            "comes on standard input.",
        ),
    ],
    store: _Store = None,
    as_json: _AsJson = None,
) -> None:
    """Write the spans of files into the store, which is made where there is none; twice is the same as once.

    What cannot be read is told on standard error, the rest is imported, and the exit code is 1; so it is for a file
    without spans.
    """
    is_whole = True
    with _opened(store, create=True) as spans:
        for path in paths:
            try:
                report = spans.import_file(_standard_input() if path == _STANDARD_STREAM else path)
            except (FileError, MissingExtraError) as error:  # the other files are part of the rest
                say(f"{error}")
                is_whole = False
                continue
            is_whole = is_whole and not report.spans_failed and report.found_instead is None
            _tell_import(path, report, as_json)
    raise typer.Exit(0 if is_whole else 1)


def _standard_input() -> BufferedReader:
    if sys.stdin is None:
        fail("standard input is closed; expected one that can be read, or a file.")
    return cast("BufferedReader", sys.stdin.buffer)  # typeshed leaves open what a test may have put there


def _tell_import(path: str, report: ImportReport, as_json: bool | None) -> None:
    """Say what became of a file."""
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


@contextmanager
def _opened(store: str | None, *, create: bool = False) -> Iterator[Spans]:
    """Open the store; what a user can cause is one line and exit code 1."""
    with failures(), Client(store if store is not None else default_store(), create=create) as client:
        yield client.spans


def _format_of(path: str, chosen: _Format | None) -> _Format:
    """Return the format to write.

    Raises:
        typer.BadParameter: Neither an option nor the path names one, or standard output is to have another.
    """
    if path == _STANDARD_STREAM:
        if chosen not in (None, _Format.JSONL):
            raise typer.BadParameter("standard output takes jsonl only; name a file.", param_hint="--format")
        return _Format.JSONL
    suffix = PurePath(path).suffix.lower().removeprefix(".")
    if chosen is None and suffix not in list(_Format):
        raise typer.BadParameter(
            f"{ascii(path)[:200]} ends with neither .parquet, nor .jsonl, nor .csv; expected one of them, or --format.",
            param_hint="PATH",
        )
    return chosen or _Format(suffix)


class _Terminal:
    """Standard output for lines of JSON, where somebody looks at it."""

    def writelines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            sys.stdout.write(in_ascii(line.decode()))

    def flush(self) -> None:
        sys.stdout.flush()


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False)


def _print_rows(records: Iterable[SpanRecord]) -> None:
    for record in records:
        print_json(record_to_dict(record))


def _found(spans: Spans, name: str) -> SpanRecord:
    """Return the span that was named, or one of the trace that was.

    Raises:
        SpanNotFoundError: It is not stored.
        typer.BadParameter: It is no name of either.
    """
    trace_id, span_id = named(name)
    if span_id is not None:
        return spans.get(span_id, trace_id=trace_id)
    found = spans.list(trace_id=trace_id, limit=1)
    if not found:
        fail(f"no span of trace {trace_id} is stored here; expected one whose spans were exported.")
    return found[0]


def _trace(spans: Spans, trace_id: str) -> Iterator[SpanRecord]:
    """Yield every span of a trace, newest first."""
    cursor: str | None = None
    while True:
        page = spans.list(trace_id=trace_id, limit=_PAGE_SPANS, cursor=cursor)
        yield from page
        cursor = page.next_cursor
        if cursor is None:
            return


def _level(name: str, *, of_trace: bool) -> Level:
    """Return what an update is about: a trace id alone means the trace.

    Raises:
        typer.BadParameter: It is no name of either.
    """
    return "trace" if named(name).span_id is None or of_trace else "span"


def _contents(last: str, **parts: float | str | None) -> dict[str, float | str]:
    """Return what a verdict says.

    Raises:
        typer.BadParameter: Nothing.
    """
    given = {part: value for part, value in parts.items() if value is not None}
    if not given:
        raise typer.BadParameter(f"nothing to say was given; expected --score, --label, or {last}.")
    return given


def _verdict_row(
    record: SpanRecord, level: Level, kind: str, name: str, parts: Mapping[str, float | str]
) -> dict[str, float | str]:
    """Return one row of a frame, as the client takes it, that says a verdict of *record*."""
    if not name:
        raise typer.BadParameter("an empty name; expected one such as Correctness.", param_hint="NAME")
    prefix = f"trace.{kind}" if level == "trace" else kind
    ids: dict[str, float | str] = {"context.trace_id": record.trace_id, "context.span_id": record.span_id}
    return ids | {f"{prefix}.{name}.{part}": value for part, value in parts.items()}


def _tell(report: UpdateReport, record: SpanRecord, level: Level, verb: str, as_json: bool | None) -> None:
    """Say what became of an update."""
    for note in report.notes:
        say(f"note: {note}")
    if report.errors:
        fail(report.errors[0]["error_message"])
    if speaks_json(as_json):
        print_json(report.to_dict())
        return
    what = f"trace {record.trace_id}" if level == "trace" else f"span {record.span_id} ({visible(record.name)})"
    typer.echo(f"{what}: {verb}.")
