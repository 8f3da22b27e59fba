"""The history of values as people see it: one row for each value, with the moment, the author, and what it replaced.

Pure, as `shown` is: takes records, returns a table of rich.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.text import Text

from otel_metadata.cli.shown import WIDE, duration, listing, short, verdict_text
from otel_metadata.client.history import field_name, replaced_values
from otel_metadata.foreign_text import visible
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.merge import json_text
from otel_metadata.model.times import utc

if TYPE_CHECKING:
    from rich.console import ConsoleOptions

    from otel_metadata.model.record import Route, ValueRecord

_MOMENTS: Final[dict[Route | None, tuple[str, str]]] = {
    "live": ("● live", "green"),
    "in_flight": ("◐ in flight", "yellow"),
    "late": ("○ late", "cyan"),
    "import": ("◇ import", "blue"),
    "log": ("◇ log", "blue"),
    None: ("? unknown", "dim"),
}
"""The glyph and the word for how a value arrived, and its colour."""

MAX_AUTHOR_COLUMNS: Final = 24


def history_table(records: Sequence[ValueRecord], *, what: str, end_ns: int, options: ConsoleOptions) -> Group:
    """Return a line about the span, and a table of values, newest first, with times from the end of the span.

    A value that was superseded is dim. Names are left out if all values are of one field.

    Args:
        records: All values of each field, newest first; at least one.
        what: The span or trace.
        end_ns: When it ended, in wall nanoseconds.
        options: The terminal's; the glyphs are left out if it lacks them.
    """
    is_wide = options.max_width >= WIDE
    names = [visible(field_name(record)) for record in records]
    is_one_field = len(set(names)) == 1
    table = listing()
    table.add_column("arrived", no_wrap=True)
    if is_wide:
        table.add_column("set at (UTC)", no_wrap=True)
    table.add_column("after end", justify="right", no_wrap=True)
    table.add_column("author", no_wrap=True, overflow="ellipsis", max_width=None if is_wide else MAX_AUTHOR_COLUMNS)
    table.add_column(Text(names[0] if is_one_field else "value"), overflow="fold")
    replaced = replaced_values(records)
    for place, record in enumerate(records):
        moment, style = _MOMENTS[record.route]
        cells = [
            Text(moment.partition(" ")[2] if options.ascii_only else moment, style=style),
            Text(f"{'+' if record.time_ns >= end_ns else ''}{duration(record.time_ns - end_ns)}"),
            Text(visible(record.author) if record.author is not None else "-"),
            _value(record, "" if is_one_field else names[place], replaced.get(place)),
        ]
        if is_wide:
            cells.insert(1, Text(f"{record.time:%Y-%m-%d %H:%M:%S.%f}"[:-3]))
        table.add_row(*cells)
    # A title of the table would be broken at the width of the table, which is often narrow.
    return Group(Text(f"{what}, ended {utc(end_ns):%Y-%m-%d %H:%M:%S} UTC", style="dim"), table)


def _value(record: ValueRecord, name: str, replaced: ValueRecord | None) -> Text:
    style = "magenta" if record.is_current else "dim"
    if record.kind == "tag":  # it has no value of its own; its current version is the first
        text = Text(name or visible(record.key), style=style).append("" if record.is_current else ", set again")
    else:
        text = Text(f"{name} = " if name else "").append(_text(record), style=style)
    if replaced is not None:
        text.append(f", was {_text(replaced)}", style="dim")
    if record.is_oldest_kept:
        text.append(", older values were dropped", style="dim")
    return text


def _text(record: ValueRecord) -> str:
    if record.kind == "evaluation":
        evaluation = Evaluation.from_json(record.key, record.value)
        return _judged(verdict_text(evaluation), evaluation.explanation, evaluation.source)
    if record.kind == "annotation":
        note = Annotation.from_json(record.value)
        return _judged(verdict_text(note), note.text, note.annotator)
    return short(json_text(record.value))  # as JSON, so that "5" and 5 differ


def _judged(verdict: str, more: str | None, by: str | None) -> str:
    text = ": ".join(filter(None, (verdict, short(more or ""))))
    return f"{text} by {visible(by)}" if by is not None else text
