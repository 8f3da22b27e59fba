"""What every command does alike: how it fails, how it speaks JSON, and which text a terminal may have."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from otel_metadata.errors import FilterError, OtelMetadataError

if TYPE_CHECKING:
    from otel_metadata.model.merge import Json

__all__ = ["Commands", "fail", "failures", "one_or_many", "print_json", "say", "speaks_json", "visible"]

# The class has no public name that every release has: earlier ones take it from click, later ones have their own.
_UsageError: Final[type[Any]] = typer.BadParameter.__bases__[0]


class Commands(TyperGroup):
    """A group of commands that says on one line, as any other error, why a command line cannot be understood."""

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
            SystemExit: With 2 for what cannot be understood, 1 where a question was not answered.
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
    # Some of typer's messages have line breaks or the name of an exception, and it calls "invalid value" what is about
    # no single value.
    words = " ".join(error.format_message().split())
    message = words.removeprefix("Invalid value: ").replace(": Value error, ", ": ", 1)
    command = error.ctx.command_path if error.ctx is not None else "otel-metadata"
    say(f"{message}{'' if message.endswith(('.', '?')) else '.'} See {command} --help.")


def visible(text: str) -> str:
    """Return *text* on one line, with escapes for what a terminal would obey instead of showing.

    Names and values come from everywhere: an escape sequence in one could clear the screen, a line break the table, and
    a mark of writing direction turn what stands beside it around.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or unicodedata.category(char) == "Zs" else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def fail(message: str) -> NoReturn:
    """Say what is wrong on standard error and end with exit code 1.

    Args:
        message: One line; further ones only point into what the user wrote.
    """
    say(message)
    raise typer.Exit(1)


def say(message: str) -> None:
    """Write *message* to standard error, where it does not get into what is piped."""
    if sys.stderr is not None:  # whoever started us may have closed it
        typer.echo(_encodable(f"otel-metadata: {_visible_lines(message)}", sys.stderr.encoding), err=True)


@contextmanager
def failures() -> Iterator[None]:
    """Turn what a user can cause into one line and exit code 1; let anything else through."""
    if sys.stdout is None:
        fail("standard output is closed; expected one that can be written, such as /dev/null.")
    # What it warns of it raises too; without a handler Python would write it to standard error, beside our line.
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    # What the terminal's encoding lacks is escaped: a Windows console would raise in the middle of a table.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except FilterError as error:
        fail(f"{error}")
    except OtelMetadataError as error:
        fail(" ".join(f"{error}".splitlines()))  # a server's words may have several
    except BrokenPipeError:
        raise  # who reads has enough, as `head` does; it is no failure of ours to speak of
    except OSError as error:
        fail(f"{error.filename or 'standard output'}: {error.strerror or error}.")


def speaks_json(chosen: bool | None) -> bool:
    """Return whether output is JSON: as the user chose, else whenever nobody looks at a terminal."""
    return not sys.stdout.isatty() if chosen is None else chosen


def print_json(facts: Json) -> None:
    """Print *facts* as JSON on one line, in ASCII."""
    typer.echo(json.dumps(facts, ensure_ascii=True))


def one_or_many(count: int, noun: str) -> str:
    """Return a count with its noun: `1 span`, `2 spans`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _visible_lines(text: str) -> str:
    return "\n".join(visible(line) for line in text.split("\n"))


def _encodable(text: str, encoding: str | None) -> str:
    return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
