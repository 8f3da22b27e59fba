"""What `OTEL_EXPORTER_OTLP_*` says: a variable of the signal's own before the general one, an empty one says nothing.

Source: OpenTelemetry Protocol Exporter, "Configuration Options".
"""

from __future__ import annotations

import math
import os
import re
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.http import with_path
from otel_metadata.seams import bounded_millis

__all__ = [
    "DEFAULT_TIMEOUT_MILLIS",
    "Signal",
    "has_logs_endpoint",
    "headers",
    "http_endpoint",
    "read_headers",
    "timeout_millis",
    "variable",
    "wants_logs",
]

Signal: TypeAlias = Literal["traces", "logs"]

DEFAULT_TIMEOUT_MILLIS: Final = 10_000
_DEFAULT_HTTP_ENDPOINT: Final = "http://localhost:4318"

# As in opentelemetry.util.re, which logs what it does not understand: a key, here.
_HEADER: Final = re.compile(r"([!#-'*+.0-9A-Z^-z|~-]+)[ \t]*=[ \t]*([ !#-+\--:<-\[\]-~]*)")


def variable(signal: Signal, name: str) -> tuple[str, str]:
    """Return the variable that holds for *signal*, and its text."""
    general, own = f"OTEL_EXPORTER_OTLP_{name}", f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}"
    text = os.environ.get(own, "").strip()
    return (own, text) if text else (general, os.environ.get(general, "").strip())


def http_endpoint(signal: Signal) -> tuple[str, str]:
    """Return the variable and the whole URL: the general one gets the signal's path appended."""
    name, text = variable(signal, "ENDPOINT")
    if signal.upper() in name:
        return name, text
    return name, with_path(text or _DEFAULT_HTTP_ENDPOINT, f"/v1/{signal}")


def wants_logs() -> bool:
    """Whether log events may leave over OTLP at all: not where `OTEL_LOGS_EXPORTER` names only other exporters."""
    named = os.environ.get("OTEL_LOGS_EXPORTER", "").strip()
    return not named or any(one.strip().startswith("otlp") for one in named.split(","))


def has_logs_endpoint() -> bool:
    """Whether it is known where log events go.

    Who sets an endpoint for traces alone has not said it: the default on this machine is then nobody's.
    """
    return bool(variable("logs", "ENDPOINT")[1]) or not variable("traces", "ENDPOINT")[1]


def headers(signal: Signal) -> tuple[str, dict[str, str]]:
    """Return the variable and the headers.

    Raises:
        ConfigurationError: The text has another form.
    """
    name, text = variable(signal, "HEADERS")
    return name, read_headers(name, text)


def read_headers(name: str, text: str) -> dict[str, str]:
    """Return the headers that a variable says, as `name=value,name=value` with percent-encoded values.

    Args:
        name: Of the variable, for the error.
        text: What it says.

    Raises:
        ConfigurationError: The text has another form.
    """
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        match = _HEADER.fullmatch(part)
        if match is None:
            raise ConfigurationError(name, "***", "name=value,name=value with percent-encoded values")
        header, value = match.groups()
        # A value with a blank was written by hand, not encoded: "Bearer ..." is what many backends tell people to set.
        found[unquote(header)] = value if " " in value.strip() else unquote(value)
    return found


def timeout_millis(signal: Signal) -> int:
    """Return the time for one request; the variable is in seconds, as everywhere in OpenTelemetry's Python.

    Raises:
        ConfigurationError: It is no number above 0.
    """
    name, text = variable(signal, "TIMEOUT")
    try:
        seconds = float(text) if text else DEFAULT_TIMEOUT_MILLIS / 1000
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(name, text, "a number of seconds above 0, for example 10")
    return max(bounded_millis(seconds * 1000, DEFAULT_TIMEOUT_MILLIS), 1)
