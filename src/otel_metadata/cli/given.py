"""The arguments of commands, read as values: a time, a span, a key with its value, a number, a status, an author.

An argument that cannot be read is a usage error (exit code 2).
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
import math
import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import typer

from otel_metadata.client.queries import to_ns
from otel_metadata.errors import ConfigurationError
from otel_metadata.live.author import chosen_author
from otel_metadata.live.values import read_status
from otel_metadata.model.authors import MAX_AUTHOR_CHARACTERS
from otel_metadata.model.span_ref import SpanRef, trace_of
from otel_metadata.model.times import utc

if TYPE_CHECKING:
    from otel_metadata.live.values import StatusLike
    from otel_metadata.model.merge import Json

_AGO: Final = re.compile(r"(\d{1,6})\s*(s|min|m|h|d|w)", re.ASCII)

_UNITS: Final = {
    "s": dt.timedelta(seconds=1),
    "min": dt.timedelta(minutes=1),
    "m": dt.timedelta(minutes=1),
    "h": dt.timedelta(hours=1),
    "d": dt.timedelta(days=1),
    "w": dt.timedelta(weeks=1),
}

_SIZE: Final = re.compile(r"(\d{1,15})(?:\.(\d{1,3}))?\s*([kmgt]?)(i?)b?", re.ASCII | re.IGNORECASE)


class Named(NamedTuple):
    """The ids of a span or a trace.

    Attributes:
        trace_id: 32 hex digits, or None where only a span id was given.
        span_id: 16 hex digits, or None where a trace id was given.
    """

    trace_id: str | None
    span_id: str | None


def named(text: str) -> Named:
    """Read a trace id, a span id, or a `traceparent`; upper case counts as lower case.

    Raises:
        typer.BadParameter: *text* is none of these.
    """
    trace = trace_of(text)
    if trace is not None:
        return Named(trace.trace_id_hex, None)
    lower = text.strip().lower()
    if re.fullmatch(r"[0-9a-f]{16}", lower, re.ASCII):
        return Named(None, lower)
    try:
        ref = SpanRef.from_traceparent(lower)
    except ValueError:
        raise _bad(text, "is neither a span id (16 hex digits), nor a trace id (32), nor a traceparent") from None
    return Named(ref.trace_id_hex, ref.span_id_hex)


def moment(text: str | None, now_ns: int, option: str) -> str | dt.datetime | None:
    """Return the time that a text such as `7d` means, counted back from *now_ns*; the text of a time stays as it is.

    Raises:
        typer.BadParameter: *text* is neither.
    """
    match = _AGO.fullmatch(text.strip()) if text is not None else None
    try:
        if match is None:
            to_ns(option, text)
            return text
        return utc(now_ns) - int(match[1]) * _UNITS[match[2]]
    except (ConfigurationError, OverflowError):
        what = "is neither how long ago (30min, 12h, 7d) nor a time such as 2026-01-31T10:00:00Z"
        raise _bad(text, what, option) from None


def ago(text: str | None, option: str) -> dt.timedelta | None:
    """Return how long a text such as `7d` means.

    Raises:
        typer.BadParameter: *text* is not a length of time.
    """
    if text is None:
        return None
    match = _AGO.fullmatch(text.strip())
    try:
        if match is not None and int(match[1]):
            return int(match[1]) * _UNITS[match[2]]
    except OverflowError:
        pass
    raise _bad(text, "is not a length of time such as 30min, 12h or 7d", option)


def key_values(pairs: list[str] | None, option: str) -> dict[str, Json]:
    """Read pairs `key=value`. A value that is JSON is read as JSON, any other as text; the last of equal keys wins.

    Raises:
        typer.BadParameter: A pair has no key or no `=`.
    """
    values: dict[str, Json] = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise _bad(pair, "is not of the form key=value", option)
        values[key] = json_or_text(value)
    return values


def json_or_text(text: str) -> Json:
    """Return the value of a JSON text, or the text itself where it is not JSON."""
    try:
        value: Json = _loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def json_object(text: str | None, option: str) -> dict[str, Json]:
    """Return a JSON object; an empty one for None.

    Raises:
        typer.BadParameter: *text* is not a JSON object.
    """
    if text is None:
        return {}
    try:
        value = _loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(text, f"is not JSON: {error}", option) from None
    if not isinstance(value, dict):
        raise _bad(text, "is not a JSON object such as '{\"key\": 1}'", option)
    return value


def whole_number(text: str, option: str) -> int:
    """Read a count.

    Raises:
        typer.BadParameter: *text* is not a whole number of 1 or more.
    """
    if not re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII) or not int(text):
        raise _bad(text, "is not a whole number of 1 or more", option)
    return int(text)


def size(text: str | None, option: str) -> int | None:
    """Return the bytes that a text such as `2GB` or `500 MiB` means.

    Raises:
        typer.BadParameter: *text* is not a size.
    """
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise _bad(text, "is not a size such as 500MB or 2GiB", option)
    whole, fraction, unit, is_binary = match.groups(default="")
    factor: int = (1024 if is_binary else 1000) ** " kmgt".index(unit.lower() or " ")
    return int(whole) * factor + int(fraction.ljust(3, "0")) * factor // 1000


def number(text: str | None, option: str) -> float | None:
    """Read a finite number.

    Raises:
        typer.BadParameter: *text* is not a finite number.
    """
    if text is None:
        return None
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise _bad(text, "is not a finite number such as 0.5", option)
    return found


def author_of(text: str | None) -> str:
    """Return who uses the shell: *text*, else what the environment says, else `cli:<user>`.

    Raises:
        typer.BadParameter: The name is empty or too long.
    """
    try:
        name = chosen_author("--author", text)
    except ConfigurationError as error:
        raise typer.BadParameter(f"{error}") from None
    return f"cli:{_user()}"[:MAX_AUTHOR_CHARACTERS] if name is None else name


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name; the first on Windows
        return f"{os.getuid()}" if hasattr(os, "getuid") else "unknown"


def status_of(text: str | None) -> StatusLike | None:
    """Read `ok`, `error`, or an integer code.

    Raises:
        typer.BadParameter: *text* is none of these.
    """
    if text is None:
        return None
    code, _ = read_status(text)
    if code is not None and code != "unset":
        return cast("StatusLike", code)
    raise _bad(text, "is neither ok, nor error, nor an integer code", "--status")


def _bad(text: str | None, what: str, option: str | None = None) -> typer.BadParameter:
    return typer.BadParameter(f"{ascii(text)[:100]} {what}.", param_hint=option)


def _loads(text: str) -> Any:
    # NaN and Infinity are not JSON, though Python reads them; as text they stay what the user wrote.
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")
