"""Stored spans as people see them: a table of many spans (`ls`) or traces (`traces`), a tree of one trace (`show`).

Pure: takes records, returns tables and trees of rich. All text of a span goes through `visible` and is never read as
markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich import box
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from otel_metadata.cli.shell import one_or_many
from otel_metadata.foreign_text import visible
from otel_metadata.model.instrumented import SPAN_KIND
from otel_metadata.model.merge import json_text

if TYPE_CHECKING:
    import datetime as dt

    from otel_metadata.model.evaluation import Annotation, Evaluation
    from otel_metadata.model.merge import Json
    from otel_metadata.model.record import SpanRecord, TraceRecord

WIDE: Final = 110
"""Width of a terminal from which the table has a column of evaluations."""

VERY_WIDE: Final = 150
"""Width of a terminal from which the table has a column of trace ids."""

MAX_DEPTH: Final = 10
"""Levels of spans that are indented; deeper indentation would leave no room for text."""

MAX_VALUE_CHARS: Final = 200
"""Characters that are shown of one metadata value."""

MAX_TEXT_CHARS: Final = 1_000
"""Characters that are kept of an input or output, before the terminal cuts it to its width."""

_MILLISECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000
_HOURS_OF_TWO_DAYS: Final = 48

# How a table shows the starts of its rows if all are of one day.
_OF_ONE_DAY: Final = "%H:%M:%S"


def span_table(records: Sequence[SpanRecord], *, width: int) -> Table:
    """Return a table of spans, one line each, in the order given.

    Ids are shown whole, so that they can be copied; on a narrow terminal, names and metadata are cut.

    Args:
        records: At least one.
        width: Columns of the terminal.
    """
    start, period = _start_of([record.start_time for record in records])
    has_evaluations = width >= WIDE and any(record.evaluations for record in records)
    table = listing(f"{one_or_many(len(records), 'span')}, {period}, times in UTC")
    table.add_column("start", no_wrap=True)
    table.add_column("name")
    table.add_column("latency", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("span id", no_wrap=True)
    if width >= VERY_WIDE:
        table.add_column("trace id", no_wrap=True)
    if has_evaluations:
        table.add_column("evaluations")
    table.add_column("metadata")
    for record in records:
        cells = [
            Text(f"{record.start_time:{start}}"),
            _one_line(Text(visible(record.name), style="bold")),
            Text(duration(_latency_ns(record))),
            _status(record.status_code),
            Text(record.span_id),
        ]
        if width >= VERY_WIDE:
            cells.append(Text(record.trace_id))
        if has_evaluations:
            cells.append(_one_line(Text("  ").join(map(_verdict, record.evaluations.values()))))
        table.add_row(*cells, _one_line(_pairs(record.metadata)))
    return table


def trace_table(traces: Sequence[TraceRecord], *, width: int) -> Table:
    """Return a table of traces, one line each, in the order given; as `span_table` otherwise."""
    start, period = _start_of([trace.start_time for trace in traces])
    table = listing(f"{one_or_many(len(traces), 'trace')}, {period}, times in UTC")
    is_wide = width >= WIDE
    # Beside a whole id, a long name and all counts do not fit.
    room = 6 if start == _OF_ONE_DAY else 9
    has_counts = is_wide or max(len(trace.name) for trace in traces) <= room
    if not is_wide and start != _OF_ONE_DAY:
        # Room for the names.
        start, table.padding = start.removesuffix(":%S"), 0
    table.add_column("start", no_wrap=True)
    table.add_column("name")
    table.add_column("latency", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("status", no_wrap=True)
    if has_counts:
        table.add_column("spans", justify="right", no_wrap=True)
    table.add_column("errors", justify="right", no_wrap=True)
    has_late = has_counts and any(trace.late_values for trace in traces)
    if has_late:
        table.add_column("late", justify="right", no_wrap=True)
    table.add_column("trace id", no_wrap=True)
    if is_wide:
        table.add_column("evaluations")
    for trace in traces:
        cells = [
            Text(f"{trace.start_time:{start}}"),
            _one_line(Text(visible(trace.name), style="bold")),
            Text(duration(trace.end_ns - trace.start_ns)),
            *([Text(f"{trace.spans:,}")] if has_counts else []),
            Text(f"{trace.errors:,}", style="red" if trace.errors else "dim"),
            *([Text(f"{trace.late_values:,}", style="cyan" if trace.late_values else "dim")] if has_late else []),
            Text(trace.trace_id),
        ]
        if is_wide:
            cells.insert(3, _status(trace.status_code))
            cells.append(_one_line(Text("  ").join(map(_verdict, trace.evaluations.values()))))
        table.add_row(*cells)
    return table


def listing(title: str | None = None) -> Table:
    """Return a table without rows and columns, as all commands show it."""
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=title,
        title_justify="left",
        title_style="dim",
    )


def trace_trees(
    records: Iterable[SpanRecord], *, marked: str | None = None, with_attributes: bool = False
) -> Iterator[Tree]:
    """Yield a tree for each trace, earliest first: each span below its parent, with everything that was set on it.

    A span whose parent is missing is at the top, with a note.

    Args:
        records: In any order.
        marked: The span id that gets an arrow.
        with_attributes: Show plain attributes too.
    """
    traces: dict[str, list[SpanRecord]] = {}
    for record in sorted(records, key=lambda one: one.position):
        traces.setdefault(record.trace_id, []).append(record)
    for spans in traces.values():
        yield _trace_tree(spans, marked, with_attributes=with_attributes)


def duration(nanoseconds: int) -> str:
    """Return a time span for people: `0.4 ms`, `1.25 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if nanoseconds < 0:
        return f"-{duration(-nanoseconds)}"
    if nanoseconds < _SECOND - _MILLISECOND // 20:
        return f"{nanoseconds / _MILLISECOND:.1f} ms"
    if nanoseconds < 60 * _SECOND - _SECOND // 200:
        return f"{nanoseconds / _SECOND:.2f} s"
    minutes, seconds = divmod(round(nanoseconds / _SECOND), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < _HOURS_OF_TWO_DAYS else f"{hours // 24:,} d {hours % 24} h"


def short(value: Json, limit: int = MAX_VALUE_CHARS) -> str:
    """Return a text on one line, and any other value as JSON; cut after *limit* characters."""
    text = value if isinstance(value, str) else json_text(value)
    return visible(text if len(text) <= limit else f"{text[: limit - 1]}…")


def _start_of(times: Sequence[dt.datetime]) -> tuple[str, str]:
    """Return the format in which a table shows these times, and their days, which it need not repeat in each row."""
    days = {f"{time:%Y-%m-%d}" for time in times}
    years = {day[:4] for day in days}
    start = _OF_ONE_DAY if len(days) == 1 else "%m-%d %H:%M:%S" if len(years) == 1 else "%Y-%m-%d %H:%M"
    return start, min(days) if len(days) == 1 else f"{min(days)} to {max(days)}"


def _trace_tree(spans: Sequence[SpanRecord], marked: str | None, *, with_attributes: bool) -> Tree:
    first = spans[0]
    tree = Tree(_trace_label(first), guide_style="dim")
    tree.add(_trace_measures(spans))
    # A user that was set on the trace is the same on all spans. Where they differ, each span shows its own.
    has_one = len({(record.user_id, record.session_id) for record in spans}) == 1
    for fact in _facts(
        "trace ",
        first.trace_metadata,
        first.trace_tags,
        first.trace_input,
        first.trace_output,
        first.trace_evaluations,
        first.trace_annotations,
    ):
        tree.add(fact)
    if has_one:
        _add_user(tree, first)
    nodes = [tree]
    for depth, parent_is_missing, record in _walk(spans):
        del nodes[min(depth, MAX_DEPTH) + 1 :]
        label = _span_label(record, first.span.start_ns)
        if depth > MAX_DEPTH:
            label.append(f"  {depth} levels down", style="dim")
        if parent_is_missing:
            label.append(f"  its parent {record.parent_id} is not here", style="yellow")
        if record.span_id == marked:
            label.append("  <--", style="bold cyan")
        node = nodes[-1].add(label)
        nodes.append(node)
        _add_span_facts(node, record, with_user=not has_one, with_attributes=with_attributes)
    return tree


def _walk(spans: Sequence[SpanRecord]) -> Iterator[tuple[int, bool, SpanRecord]]:
    """Yield (depth, whether its parent is missing, span), each span before those below it."""
    ids = {record.span_id for record in spans}
    below: dict[str | None, list[SpanRecord]] = {}
    for record in spans:
        below.setdefault(record.parent_id if record.parent_id in ids else None, []).append(record)
    seen: set[str] = set()
    # In a ring each span is its own ancestor, and none is below a root: the earliest one goes to the top.
    for top in [*below.get(None, []), *spans]:
        waiting = [(0, top)]
        while waiting:
            depth, record = waiting.pop()
            if record.span_id in seen:
                continue
            seen.add(record.span_id)
            yield depth, not depth and record.parent_id is not None and record.parent_id not in ids, record
            waiting += [(depth + 1, child) for child in reversed(below.get(record.span_id, []))]


def _trace_label(record: SpanRecord) -> Text:
    label = Text.assemble(("trace ", "bold"), record.trace_id)
    return label.append(f"  {visible(record.trace_name)}", style="bold") if record.trace_name else label


def _trace_measures(spans: Sequence[SpanRecord]) -> Text:
    first = spans[0]
    whole_ns = max(record.span.end_ns for record in spans) - first.span.start_ns
    facts = [f"{first.start_time:%Y-%m-%d %H:%M:%S} UTC", one_or_many(len(spans), "span"), duration(whole_ns)]
    if first.project:
        facts.append(visible(first.project))
    return Text(", ".join(facts), style="dim")


def _span_label(record: SpanRecord, first_ns: int) -> Text:
    facts = [
        visible(record.span_kind or record.kind).lower(),
        f"+{duration(record.span.start_ns - first_ns)}",
        duration(_latency_ns(record)),
    ]
    label = Text.assemble((visible(record.name), "bold"), (f"  {', '.join(facts)}  ", "dim"))
    if record.status_code != "UNSET":
        label.append_text(_status(record.status_code)).append("  ")
    label.append(record.span_id, style="dim")
    if record.status_message:
        label.append(f"  {short(record.status_message)}", style="red")
    return label


def _add_span_facts(node: Tree, record: SpanRecord, *, with_user: bool, with_attributes: bool) -> None:
    for fact in _facts(
        "", record.metadata, record.tags, record.input, record.output, record.evaluations, record.annotations
    ):
        node.add(fact)
    if with_user:
        _add_user(node, record)
    attributes = {key: value for key, value in record.attributes.items() if key != SPAN_KIND}
    if with_attributes and attributes:
        below = node.add(Text("attributes", style="dim"))
        for key, value in attributes.items():
            below.add(_one_line(_pairs({key: value})))


def _add_user(node: Tree, record: SpanRecord) -> None:
    who = {"user": record.user_id, "session": record.session_id}
    known = [_fact(name, Text(visible(value))) for name, value in who.items() if value is not None]
    if known:
        node.add(Text("  ").join(known))


def _facts(
    level: str,
    metadata: Mapping[str, Json],
    tags: Sequence[str],
    input: Json,
    output: Json,
    evaluations: Mapping[str, Evaluation],
    annotations: Sequence[Annotation],
) -> Iterator[Text]:
    if metadata:
        yield _fact(f"{level}metadata", _pairs(metadata))
    if tags:
        yield _fact(f"{level}tags", Text(visible(", ".join(tags))))
    for name, value in (("input", input), ("output", output)):
        if value is not None:
            yield _one_line(_fact(f"{level}{name}", Text(short(value, MAX_TEXT_CHARS))))
    for evaluation in evaluations.values():
        fact = _fact(f"{level}evaluation", _verdict(evaluation))
        if evaluation.explanation is not None:
            fact.append(f": {short(evaluation.explanation)}")
        yield fact.append(f"  by {evaluation.source}", style="dim")
    for note in annotations:
        fact = _fact(f"{level}annotation", _verdict(note))
        if note.text is not None:
            fact.append(f": {short(note.text)}")
        yield fact.append(f"  by {visible(note.annotator)}", style="dim") if note.annotator is not None else fact


def verdict_text(verdict: Evaluation | Annotation) -> str:
    """Return label and score, as far as there are any: `correct, 1.0`."""
    return ", ".join(short(part) for part in (verdict.label, verdict.score) if part is not None)


def _verdict(verdict: Evaluation | Annotation) -> Text:
    text = verdict_text(verdict)
    return Text(visible(verdict.name)).append(f"={text}" if text else "", style="magenta")


def _pairs(values: Mapping[str, Json]) -> Text:
    return Text(" ").join(
        # As JSON, so that "5" and 5 differ.
        Text(f"{visible(key)}=").append(short(json_text(value)), style="magenta")
        for key, value in values.items()
    )


def _fact(name: str, value: Text) -> Text:
    return Text.assemble((f"{name} ", "dim"), value)


def _one_line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text


def _status(code: str | int) -> Text:
    is_error = code == "ERROR" or (isinstance(code, int) and code >= 400)
    return Text(visible(str(code)), style="red" if is_error else "green" if code == "OK" else "dim")


def _latency_ns(record: SpanRecord) -> int:
    return record.span.end_ns - record.span.start_ns
