"""Environment variables that point a vendor's SDK, OpenTelemetry's, or this library at a server.

The key in them is `local`. A server that demands no token takes any text as key; otherwise a token takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from otel_metadata.errors import ConfigurationError

_ENVIRONMENTS: Final[Mapping[str, Mapping[str, str]]] = {
    "langfuse": {
        "LANGFUSE_BASE_URL": "{http}",
        "LANGFUSE_PUBLIC_KEY": "local",
        "LANGFUSE_SECRET_KEY": "local",
    },
    "langwatch": {"LANGWATCH_ENDPOINT": "{http}", "LANGWATCH_API_KEY": "local"},
    "galileo": {
        "GALILEO_CONSOLE_URL": "{http}",
        "GALILEO_API_URL": "{http}",
        "GALILEO_API_KEY": "local",
        "GALILEO_PROJECT": "default",
        "GALILEO_LOG_STREAM": "default",
    },
    "splunk-ao": {
        "SPLUNK_AO_CONSOLE_URL": "{http}",
        "SPLUNK_AO_API_URL": "{http}",
        "SPLUNK_AO_API_KEY": "local",
        "SPLUNK_AO_PROJECT": "default",
        "SPLUNK_AO_AGENT_STREAM": "default",
    },
    "arize": {"ARIZE_COLLECTOR_ENDPOINT": "{grpc}", "ARIZE_SPACE_ID": "default", "ARIZE_API_KEY": "local"},
    # It sends over gRPC unless `register` is told otherwise, to the host of the endpoint and this port.
    "phoenix": {
        "PHOENIX_COLLECTOR_ENDPOINT": "{http}",
        "PHOENIX_GRPC_PORT": "{grpc_port}",
        "PHOENIX_API_KEY": "local",
    },
    "logfire": {"LOGFIRE_BASE_URL": "{http}", "LOGFIRE_TOKEN": "local"},
    "traceloop": {"TRACELOOP_BASE_URL": "{http}", "TRACELOOP_API_KEY": "local"},
    "otel": {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "{http}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20local",
    },
    "otel-metadata": {
        "OTEL_PYTHON_METADATA_DESTINATIONS": "{serve}",
        "OTEL_PYTHON_METADATA_SERVE_TOKEN": "local",
    },
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
    variables = _ENVIRONMENTS.get(name)
    if variables is None:
        raise ConfigurationError("serve --env", name, f"one of {', '.join(NAMES)}")
    http, grpc = http_url.rstrip("/"), grpc_url.rstrip("/")
    parts = {
        "http": http,
        "grpc": grpc,
        "grpc_port": urlsplit(grpc).port or 4317,
        "serve": http.replace("http", "serve", 1),
    }
    return [f"{variable}={template.format(**parts)}" for variable, template in variables.items()]
