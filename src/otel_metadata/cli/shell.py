"""The parts that all commands share: error messages, the terminal, and JSON output."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from otel_metadata.errors import FilterError, MissingExtraError, OtelMetadataError
from otel_metadata.foreign_text import visible

if TYPE_CHECKING:
    from otel_metadata.model.merge import Json

# The class has no public name that every release has: earlier ones take it from click, later ones have their own.
_UsageError: Final[type[Any]] = typer.BadParameter.__bases__[0]

_NOT_PLAIN: Final = re.compile(r"[^\n\x20-\x7e]")


AsJson = Annotated[
    bool | None,
    typer.Option("--json/--no-json", help="JSON, one object a line, or text; JSON by default when piped."),
]


class Commands(TyperGroup):
    """A group of commands that reports a usage error on one line, like any other error."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; in standalone mode, end the process with its exit code.

        Raises:
            SystemExit: With 2 for a usage error, 1 where a question was not answered.
        """
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except _UsageError as error:
            _tell_usage_error(error)
            code = error.exit_code
        except typer.Abort as error:
            if error.__context__ is not None:  # Ctrl-C or Ctrl-D: the question has not ended its line
                typer.echo(err=True)
            say("aborted; nothing was changed.")
            code = 1
        sys.exit(code)


def _tell_usage_error(error: Any) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help was printed already
        return
    # Some of typer's messages have line breaks or the name of an exception; and some begin with "Invalid value" though
    # they are about no single value.
    words = " ".join(error.format_message().split())
    message = words.removeprefix("Invalid value: ").replace(": Value error, ", ": ", 1)
    command = error.ctx.command_path if error.ctx is not None else "otel-metadata"
    say(f"{message}{'' if message.endswith(('.', '?')) else '.'} See {command} --help.")


def fail(message: str, *more: str) -> NoReturn:
    """Write an error to standard error and end with exit code 1. The arguments are those of `say`."""
    say(message, *more)
    raise typer.Exit(1)


def say(message: str, *more: str) -> None:
    """Write *message* to standard error, which is not piped into the next program.

    Args:
        message: One line.
        more: Lines below it, such as a filter with a caret.
    """
    if sys.stderr is not None:  # None where the parent process has closed it
        lines = "\n".join(map(visible, (f"otel-metadata: {message}", *more)))
        typer.echo(_encodable(lines, sys.stderr.encoding), err=True)


@contextmanager
def failures() -> Iterator[None]:
    """Turn errors that a user can cause into one line and exit code 1; let all others through."""
    if sys.stdout is None:
        fail("standard output is closed; expected one that can be written, such as /dev/null.")
    # It also raises each error that it warns of. Without a handler Python would write the warning to standard error
    # beside our line.
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    # Escape characters that the encoding lacks: a Windows console would raise in the middle of a table.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except FilterError as error:
        fail(*f"{error}".split("\n"))
    except OtelMetadataError as error:
        fail(f"{error}")
    except BrokenPipeError:
        raise  # the reader has closed the pipe, as `head` does: not an error to report
    except OSError as error:
        fail(f"{error.filename or 'standard output'}: {error.strerror or error}.")


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn the error of an import into one that names the extra.

    Raises:
        MissingExtraError: A package of *extra* is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "otel_metadata":
            raise
        raise MissingExtraError(package, extra) from None


def speaks_json(chosen: bool | None) -> bool:
    """Return whether output is JSON: as the user chose, otherwise whenever standard output is not a terminal."""
    return not sys.stdout.isatty() if chosen is None else chosen


def console() -> Console:
    """Return a terminal that shows text as it is: nothing from a span is read as markup."""
    return Console(highlight=False, markup=False, emoji=False)


def print_json(facts: Json) -> None:
    """Print *facts* as JSON on one line, in ASCII without control characters."""
    typer.echo(in_ascii(json.dumps(facts)))


def in_ascii(text: str) -> str:
    """Return the same JSON in ASCII, without control characters other than line ends."""
    return _NOT_PLAIN.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _utf16(found[0])), text)


def one_or_many(count: int, noun: str, several: str = "") -> str:
    """Return a count with its noun: `1 span`, `2 spans`."""
    return f"{count:,} {noun if count == 1 else several or f'{noun}s'}"


def _utf16(char: str) -> tuple[int, ...]:
    data = char.encode("utf-16-be", "surrogatepass")
    return tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))


def _encodable(text: str, encoding: str | None) -> str:
    return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
