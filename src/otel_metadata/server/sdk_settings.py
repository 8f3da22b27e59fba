"""Environment variables that point a vendor's SDK, OpenTelemetry's, or this library at a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from otel_metadata.errors import ConfigurationError

_Lines: TypeAlias = "Mapping[str, str]"

_KEY: Final = "local"
"""The key of SDKs that refuse to start without one. A server on this machine asks for none; elsewhere it is a token."""

_ENVIRONMENTS: Final[Mapping[str, Callable[[str, str], _Lines]]] = {
    "langfuse": lambda http, _: {
        "LANGFUSE_BASE_URL": http,
        "LANGFUSE_PUBLIC_KEY": _KEY,
        "LANGFUSE_SECRET_KEY": _KEY,
    },
    "langwatch": lambda http, _: {"LANGWATCH_ENDPOINT": http, "LANGWATCH_API_KEY": _KEY},
    "galileo": lambda http, _: {
        "GALILEO_CONSOLE_URL": http,
        "GALILEO_API_URL": http,
        "GALILEO_API_KEY": _KEY,
        "GALILEO_PROJECT": "default",
        "GALILEO_LOG_STREAM": "default",
    },
    "splunk-ao": lambda http, _: {
        "SPLUNK_AO_CONSOLE_URL": http,
        "SPLUNK_AO_API_URL": http,
        "SPLUNK_AO_API_KEY": _KEY,
        "SPLUNK_AO_PROJECT": "default",
        "SPLUNK_AO_AGENT_STREAM": "default",
    },
    "arize": lambda _, grpc: {"ARIZE_COLLECTOR_ENDPOINT": grpc, "ARIZE_SPACE_ID": _KEY, "ARIZE_API_KEY": _KEY},
    # It sends over gRPC unless `register` is told otherwise, to the host of the one and the port of the other.
    "phoenix": lambda http, grpc: {
        "PHOENIX_COLLECTOR_ENDPOINT": http,
        "PHOENIX_GRPC_PORT": f"{urlsplit(grpc).port or 4317}",
    },
    "logfire": lambda http, _: {"LOGFIRE_BASE_URL": http, "LOGFIRE_TOKEN": _KEY},
    "traceloop": lambda http, _: {"TRACELOOP_BASE_URL": http},
    "otel": lambda http, _: {
        "OTEL_EXPORTER_OTLP_ENDPOINT": http,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    },
    "otel-metadata": lambda http, _: {"OTEL_PYTHON_METADATA_DESTINATIONS": f"serve://{urlsplit(http).netloc}"},
}

NAMES: Final = tuple(_ENVIRONMENTS)
"""What `settings_of` knows."""


def settings_of(name: str, http_url: str, grpc_url: str) -> list[str]:
    """Return the lines to export, each `NAME=value`.

    Args:
        name: One of `NAMES`.
        http_url: The server's address over HTTP, without a path.
        grpc_url: Its address over gRPC.

    Raises:
        ConfigurationError: The name is unknown.
    """
    made = _ENVIRONMENTS.get(name)
    if made is None:
        raise ConfigurationError("serve --env", name, f"one of {', '.join(NAMES)}")
    return [f"{variable}={value}" for variable, value in made(http_url.rstrip("/"), grpc_url.rstrip("/")).items()]
