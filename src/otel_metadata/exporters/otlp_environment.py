"""The variables `OTEL_EXPORTER_OTLP_*`. A signal's own variable counts before the general one; an empty one is unset.

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

Signal: TypeAlias = Literal["traces", "logs"]

DEFAULT_TIMEOUT_MILLIS: Final = 10_000
_DEFAULT_HTTP_ENDPOINT: Final = "http://localhost:4318"

# As in opentelemetry.util.re, which is not called because it logs a header that it cannot read, and that may be a key.
_HEADER: Final = re.compile(r"([!#-'*+.0-9A-Z^-z|~-]+)[ \t]*=[ \t]*([ !#-+\--:<-\[\]-~]*)")


def variable(signal: Signal, name: str) -> tuple[str, str]:
    """Return the name and the text of the variable that applies to *signal*."""
    general, own = f"OTEL_EXPORTER_OTLP_{name}", f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}"
    text = os.environ.get(own, "").strip()
    return (own, text) if text else (general, os.environ.get(general, "").strip())


def http_endpoint(signal: Signal) -> tuple[str, str]:
    """Return the variable's name and the whole URL. The general endpoint gets the signal's path appended."""
    name, text = variable(signal, "ENDPOINT")
    if signal.upper() in name:
        return name, text
    return name, with_path(text or _DEFAULT_HTTP_ENDPOINT, f"/v1/{signal}")


def wants_logs() -> bool:
    """Whether log events may be sent over OTLP. They may not if `OTEL_LOGS_EXPORTER` names only other exporters."""
    named = os.environ.get("OTEL_LOGS_EXPORTER", "").strip()
    return not named or any(one.strip().startswith("otlp") for one in named.split(","))


def has_logs_endpoint() -> bool:
    """Whether the receiver of log events is known.

    It is not if only the endpoint for traces is set: then probably nothing listens at the default address for logs.
    """
    return bool(variable("logs", "ENDPOINT")[1]) or not variable("traces", "ENDPOINT")[1]


def headers(signal: Signal) -> tuple[str, dict[str, str]]:
    """Return the variable's name and the headers.

    Raises:
        ConfigurationError: The text has another form.
    """
    name, text = variable(signal, "HEADERS")
    return name, read_headers(name, text)


def read_headers(name: str, text: str) -> dict[str, str]:
    """Return the headers in the text of a variable: `name=value,name=value` with percent-encoded values.

    Args:
        name: The variable's name, for the error.
        text: The variable's text.

    Raises:
        ConfigurationError: The text has another form.
    """
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        match = _HEADER.fullmatch(part)
        if match is None:
            raise ConfigurationError(name, "***", "name=value,name=value with percent-encoded values")
        header, value = match.groups()
        # A value with a space was not encoded: many backends tell people to set "Bearer ...".
        found[unquote(header)] = value if " " in value.strip() else unquote(value)
    return found


def timeout_millis(signal: Signal) -> int:
    """Return the time limit of one request. The variable is in seconds, as everywhere in OpenTelemetry's Python.

    Raises:
        ConfigurationError: The text is not a number above 0.
    """
    name, text = variable(signal, "TIMEOUT")
    try:
        seconds = float(text) if text else DEFAULT_TIMEOUT_MILLIS / 1000
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(name, text, "a number of seconds above 0, for example 10")
    return max(bounded_millis(seconds * 1000, DEFAULT_TIMEOUT_MILLIS), 1)
