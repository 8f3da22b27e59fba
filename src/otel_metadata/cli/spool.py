"""`otel-metadata spool`: lists updates and spans on disk, handles dead letters, sends what dead processes have left."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from otel_metadata.cli.shell import AsJson, console, fail, failures, one_or_many, print_json, speaks_json
from otel_metadata.destination_factory import make_destinations
from otel_metadata.foreign_text import visible
from otel_metadata.model.dead_letter import DeadLetter
from otel_metadata.seams import SystemClock
from otel_metadata.settings import SPOOL
from otel_metadata.span_processor import MetadataSpanProcessor
from otel_metadata.spool import dead_letters
from otel_metadata.spool.spool import Spool
from otel_metadata.spool.spool_settings import SpoolSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otel_metadata.model.merge import Json
    from otel_metadata.model.outcome import DeliveryError
    from otel_metadata.model.span_ref import SpanRef

spool_app = typer.Typer(help="Updates and spans that wait on disk, and those given up.", no_args_is_help=True)

_CLOCK = SystemClock()

_MAX_REASONS = 5
"""The number of different reasons that are shown for one destination."""

_Path = Annotated[
    str, typer.Option("--spool", envvar=SPOOL, help="The spool file that applications were configured with.")
]
_Numbers = Annotated[list[int] | None, typer.Argument(metavar="NUMBER", help="Numbers of dead letters, from `list`.")]
_All = Annotated[bool, typer.Option("--all", help="Every dead letter.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


@spool_app.command("list")
def list_(path: _Path = "", as_json: AsJson = None) -> None:
    """Show how much waits for each destination, and every dead letter."""
    with _opened(path) as spool:
        found = dead_letters.waiting(spool)
        letters = list(dead_letters.letters(spool))
        now_ns = _CLOCK.wall_ns()
        if speaks_json(as_json):
            for one in found:
                print_json(
                    {
                        "kind": "waiting",
                        "destination": one.destination,
                        "updates": one.updates,
                        "spans": one.spans,
                        "oldest": _time(one.oldest_ns),
                    }
                )
            for letter in letters:
                print_json({"kind": "dead_letter", **_summary(letter)})
            return
        terminal = console()
        if not found and not letters:
            terminal.print(f"{visible(spool.path)}: nothing waits, and nothing was given up.")
        if found:
            names = ("destination", "updates", "held spans", "oldest")
            table = Table(*names, title="waits", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
            for one in found:
                table.add_row(
                    visible(one.destination) or "(damaged)",
                    str(one.updates),
                    str(one.spans),
                    _age(now_ns - one.oldest_ns),
                )
            terminal.print(table)
        if letters:
            table = Table(title="dead letters", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
            table.add_column("no.", justify="right", no_wrap=True)
            for name in ("destination", "span", "reason"):
                table.add_column(name, overflow="fold")
            table.add_column("tries", justify="right", no_wrap=True)
            table.add_column("given up", no_wrap=True)
            for letter in letters:
                table.add_row(
                    str(letter.id),
                    visible(letter.destination),
                    visible(_target(letter.target)),
                    visible(letter.reason),
                    str(letter.tries),
                    _age(now_ns - letter.died_ns),
                )
            terminal.print(table)


@spool_app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="The number of a dead letter.")],
    path: _Path = "",
    values: Annotated[bool, typer.Option("--values", help="Show values too, not only names.")] = False,
) -> None:
    """Show one dead letter: its target, its fields, and why it was given up."""
    with _opened(path) as spool:
        (letter,) = _chosen(spool, [number], everything=False)
        fields: list[Json] = [
            {"level": level, "kind": kind, "key": key, **({"value": value} if values else {})}
            for (level, kind, key), (value, _) in sorted(letter.fields.items())
        ]
        print_json({**_summary(letter), "message": letter.error.message, "fields": fields})


@spool_app.command()
def retry(numbers: _Numbers = None, path: _Path = "", everything: _All = False) -> None:
    """Put dead letters back in the queue. The next process that has their destination sends them, or `drain` does."""
    with _opened(path) as spool:
        chosen = _chosen(spool, numbers or [], everything=everything)
        done = dead_letters.retry(spool, chosen, _CLOCK.wall_ns())
    typer.echo(f"{done} of {len(chosen)} wait again.")
    raise typer.Exit(0 if done == len(chosen) else 1)


@spool_app.command()
def drop(numbers: _Numbers = None, path: _Path = "", everything: _All = False, yes: _Yes = False) -> None:
    """Erase dead letters for good."""
    with _opened(path) as spool:
        chosen = _chosen(spool, numbers or [], everything=everything)
        if not yes:
            typer.confirm(f"Erase {len(chosen)} dead letters for good?", abort=True)
        typer.echo(f"{dead_letters.drop(spool, chosen)} erased.")


@spool_app.command()
def drain(
    path: _Path = "",
    destinations: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            help="As in configure(); repeat it for more. By default OTEL_PYTHON_METADATA_DESTINATIONS.",
        ),
    ] = None,
    timeout_seconds: Annotated[int, typer.Option(min=1, help="Stop after this many seconds.")] = 60,
) -> None:
    """Send what dead processes have left on disk, then stop. What a living process has leased is not touched."""
    given_up: list[DeadLetter] = []
    with failures():
        made = make_destinations(*(destinations or ()))
        spool = Spool(SpoolSettings(_existing(path)))
        processor = MetadataSpanProcessor(*made, spool=spool, on_dead_letter=given_up.append)
    until_ns = _CLOCK.monotonic_ns() + timeout_seconds * 1_000_000_000
    left_millis = timeout_seconds * 1_000
    while left_millis > 0 and not processor.force_flush(left_millis):
        if not any(stats.waiting for stats in processor.stats().destinations.values()):
            break
        # The worker tries again by its own schedule.
        time.sleep(0.2)  # this is a command: nobody's request waits for it
        left_millis = (until_ns - _CLOCK.monotonic_ns()) // 1_000_000
    last_errors = {outbox.destination.name: _counted(outbox.last_errors()) for outbox in processor.outboxes}
    processor.shutdown(max(left_millis, 1_000))
    is_clean = True
    with _opened(path) as closed:
        rest = {one.destination: one for one in dead_letters.waiting(closed)}
    for name, stats in processor.stats().destinations.items():
        lost = sum(stats.lost.values())
        is_clean = is_clean and not lost and not stats.handed_over
        typer.echo(
            f"{visible(name)}: {stats.adopted} taken over, {stats.delivered} delivered, {lost} given up, "
            f"{stats.handed_over} left in the spool."
        )
        if stats.spans_exported or stats.spans_failed:
            typer.echo(f"  spans: {stats.spans_exported} sent, {stats.spans_failed} failed")
        for why, count in _counted(one.error for one in given_up if one.destination == name):
            typer.echo(f"  given up: {one_or_many(count, 'dead letter')}: {why}")
        left = rest.pop(name, None)
        if left is not None:
            typer.echo(f"  left: {_amount(left)}, the oldest of {_age(_CLOCK.wall_ns() - left.oldest_ns)} ago")
            for why, count in last_errors[name]:
                typer.echo(f"  not sent: {one_or_many(count, 'span or patch', 'spans and patches')}: {why}")
            if not last_errors[name]:
                typer.echo("  not sent: there was no time, or a living process has them; see --timeout-seconds")
    for name, left in rest.items():
        typer.echo(
            f"{visible(name) or '(damaged)'}: {_amount(left)} left; expected a destination of this name (--to), or a "
            "process that has one."
        )
    raise typer.Exit(0 if is_clean else 1)


def _counted(errors: Iterable[DeliveryError]) -> list[tuple[str, int]]:
    """Return error messages with their counts, the most frequent first."""
    return Counter(f"{one.type}: {visible(one.message)}" for one in errors).most_common(_MAX_REASONS)


def _amount(left: dead_letters.Waiting) -> str:
    return f"{one_or_many(left.updates, 'update')} and {one_or_many(left.spans, 'held span')}"


@contextmanager
def _opened(path: str) -> Iterator[Spool]:
    """Open a spool that exists; an error is one line and exit code 1."""
    with failures(), closing(Spool(SpoolSettings(_existing(path)))) as spool:
        yield spool


def _existing(path: str) -> str:
    if not path:
        fail(f"no spool was named; expected --spool PATH, or {SPOOL}.")
    if not Path(path).exists():
        fail(f"{path}: no such file; expected the spool that applications were configured with.")
    return path


def _chosen(spool: Spool, numbers: list[int], *, everything: bool) -> list[DeadLetter]:
    found = {letter.id: letter for letter in dead_letters.letters(spool)}
    if everything:
        return list(found.values())
    if not numbers:
        fail("no dead letter was named; expected numbers as `otel-metadata spool list` shows them, or --all.")
    missing = [number for number in numbers if number not in found]
    if missing:
        fail(f"there is no dead letter {missing[0]}; expected one of {sorted(found)[:20] or 'none: there are none'}.")
    return [found[number] for number in numbers]


def _summary(letter: DeadLetter) -> dict[str, Json]:
    return {
        "number": letter.id,
        "destination": letter.destination,
        "target": str(letter.target),
        "updates": letter.updates,
        "reason": letter.reason,
        "error": letter.error.type,
        "tries": letter.tries,
        "accepted": _time(letter.accepted_ns),
        "given_up": _time(letter.died_ns),
    }


def _time(nanoseconds: int) -> str:
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.timezone.utc).isoformat(timespec="seconds")


def _target(target: SpanRef) -> str:
    if target.is_backend_only:
        return str(target)
    return target.span_id_hex if target.span_id else f"trace {target.trace_id_hex}"


def _age(nanoseconds: int) -> str:
    seconds = max(nanoseconds // 1_000_000_000, 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
