"""What users write after a command, as values: a moment, a span, a key with its value, a store.

Pure apart from the variable that names a store. What cannot be read is a usage error (exit code 2).
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import typer

from otel_metadata.client.queries import to_ns
from otel_metadata.errors import ConfigurationError
from otel_metadata.live.values import read_status
from otel_metadata.model.span_ref import SpanRef, trace_of

if TYPE_CHECKING:
    from otel_metadata.live.values import StatusLike
    from otel_metadata.model.merge import Json

__all__ = [
    "Named",
    "json_object",
    "json_or_text",
    "key_values",
    "moment",
    "named",
    "number",
    "status_of",
    "whole_number",
]

_AGO: Final = re.compile(r"(\d{1,6})\s*(s|min|m|h|d|w)", re.ASCII)

_UNITS: Final = {
    "s": dt.timedelta(seconds=1),
    "min": dt.timedelta(minutes=1),
    "m": dt.timedelta(minutes=1),
    "h": dt.timedelta(hours=1),
    "d": dt.timedelta(days=1),
    "w": dt.timedelta(weeks=1),
}

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


class Named(NamedTuple):
    """What names a span or a trace.

    Attributes:
        trace_id: 32 hex digits, or None where only the span was named.
        span_id: 16 hex digits, or None where a trace was named.
    """

    trace_id: str | None
    span_id: str | None


def named(text: str) -> Named:
    """Read a trace id, a span id, or a `traceparent`; upper case counts as lower case.

    Raises:
        typer.BadParameter: It is none of them.
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
        raise typer.BadParameter(
            f"{ascii(text)[:100]} is neither a span id (16 hex digits), nor a trace id (32), nor a traceparent."
        ) from None
    return Named(ref.trace_id_hex, ref.span_id_hex)


def moment(text: str | None, now_ns: int, option: str) -> str | dt.datetime | None:
    """Read how long ago something was, such as `7d`; the text of a time stays as it is.

    Raises:
        typer.BadParameter: It is neither.
    """
    match = _AGO.fullmatch(text.strip()) if text is not None else None
    try:
        if match is None:
            to_ns(option, text)
            return text
        return _EPOCH + dt.timedelta(microseconds=now_ns // 1_000) - int(match[1]) * _UNITS[match[2]]
    except (ConfigurationError, OverflowError):
        raise typer.BadParameter(
            f"{ascii(text)[:100]} is neither how long ago (30min, 12h, 7d) nor a time such as 2026-01-31T10:00:00Z.",
            param_hint=option,
        ) from None


def key_values(pairs: list[str] | None, option: str) -> dict[str, Json]:
    """Read `key=value`, each value JSON where it is some, else text; a later key stands.

    Raises:
        typer.BadParameter: One has no key.
    """
    values: dict[str, Json] = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{ascii(pair)[:100]} is no key=value.", param_hint=option)
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
    """Return a JSON object; an empty one where nothing was given.

    Raises:
        typer.BadParameter: It is no JSON, or no object.
    """
    if text is None:
        return {}
    try:
        value = _loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{ascii(text)[:100]} is no JSON: {error}.", param_hint=option) from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{ascii(text)[:100]} is no JSON object such as '{{\"key\": 1}}'.", param_hint=option)
    return value


def whole_number(text: str, option: str) -> int:
    """Read a number of things, 1 or more.

    Raises:
        typer.BadParameter: *text* is not a whole number of 1 or more.
    """
    if not re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII) or not int(text):
        raise typer.BadParameter(f"{ascii(text)[:100]} is no whole number of 1 or more.", param_hint=option)
    return int(text)


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
        raise typer.BadParameter(f"{ascii(text)[:100]} is no finite number such as 0.5.", param_hint=option)
    return found


def status_of(text: str | None) -> StatusLike | None:
    """Read `ok`, `error`, or an integer code.

    Raises:
        typer.BadParameter: It is none of them.
    """
    if text is None:
        return None
    code, _ = read_status(text)
    if code is not None and code != "unset":
        return cast("StatusLike", code)
    raise typer.BadParameter(
        f"{ascii(text)[:100]} is neither ok, nor error, nor an integer code.", param_hint="--status"
    )


def _loads(text: str) -> Any:
    # NaN and Infinity are no JSON, though Python reads them; as text they stay what the user wrote.
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
