"""The destination for Arize Phoenix, in its cloud or self-hosted: `configure("phoenix")`.

`dialects.openinference` and `backends.phoenix.patches` decide how fields are spelled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from otel_metadata.arguments import checked
from otel_metadata.backends import from_environment, named_project
from otel_metadata.backends.phoenix.patches import PhoenixPatchExporter
from otel_metadata.backends.phoenix.spans import storable
from otel_metadata.delivery.destination import Destination
from otel_metadata.dialects.openinference import OpenInferenceDialect
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.altered_spans import AlteredSpans
from otel_metadata.exporters.http import split_url, with_path
from otel_metadata.exporters.otlp_environment import read_headers
from otel_metadata.exporters.otlp_http import OtlpHttpSender

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource  # a name in a signature; nothing is loaded

__all__ = ["destination"]

_ENDPOINTS: Final = ("PHOENIX_COLLECTOR_ENDPOINT", "PHOENIX_BASE_URL")
_DEFAULT_ENDPOINT: Final = "http://localhost:6006"
_CLOUD: Final = "phoenix.arize.com"
_GRPC_PORT: Final = 4317
_TRACES: Final = "/v1/traces"
_HEADERS: Final = "PHOENIX_CLIENT_HEADERS"
_AUTHORIZATION: Final = "authorization"


@checked
def destination(
    *,
    endpoint: str | None = None,
    api_key: str | None = None,
    project: str | None = None,
    headers: Mapping[str, str] | None = None,
    name: str = "phoenix",
    hold_millis: int = 0,
    resource: Resource | None = None,
) -> Destination:
    """Return Phoenix as a destination.

    Args:
        endpoint: Phoenix's HTTP address, with or without `/v1/traces`, and not the port of gRPC; None for
            `PHOENIX_COLLECTOR_ENDPOINT`, else `PHOENIX_BASE_URL`, else `http://localhost:6006`.
        api_key: The key, for Phoenix's cloud and for a server with authentication; None for `PHOENIX_API_KEY`.
        project: The project of new traces; None for `PHOENIX_PROJECT`, else `PHOENIX_PROJECT_NAME`, else the project
            that the spans' resource names (`openinference.project.name`), else Phoenix's `default`.
        headers: More headers; None for `PHOENIX_CLIENT_HEADERS`, as `name=value,name=value` with percent-encoded
            values.
        name: The name of the destination.
        hold_millis: How long an ended span is held, so that an update soon after its end is still on it.
        resource: The resource of the application's spans.

    Raises:
        ConfigurationError: The key of the cloud is missing, or a value cannot be used.
    """
    base = from_environment(endpoint, *_ENDPOINTS, default=_DEFAULT_ENDPOINT)
    address, query = split_url(base)
    base = address.removesuffix(_TRACES) + query
    host, port = _host_and_port(base)
    if port == _GRPC_PORT:
        raise ConfigurationError(
            _setting(endpoint),
            f"port {port}",
            "Phoenix's HTTP address, such as http://localhost:6006, not that of gRPC",
        )
    given = read_headers(_HEADERS, os.environ.get(_HEADERS, "")) if headers is None else headers
    sent = {header.lower(): value for header, value in given.items()}
    is_cloud = host == _CLOUD or host.endswith(f".{_CLOUD}")
    needs_key = is_cloud and _AUTHORIZATION not in sent
    key = from_environment(
        api_key, "PHOENIX_API_KEY", default=None if needs_key else "", expected="an API key of Phoenix's settings page"
    )
    if key:
        sent[_AUTHORIZATION] = f"Bearer {key}"
    wanted = from_environment(project, "PHOENIX_PROJECT", "PHOENIX_PROJECT_NAME", default="")
    try:
        return Destination(
            name,
            AlteredSpans(
                OtlpHttpSender(
                    with_path(base, _TRACES), headers={**sent, **({"x-project-name": wanted} if wanted else {})}
                ),
                storable,
            ),
            PhoenixPatchExporter(base, headers=sent, name=name, project=wanted or named_project(resource)),
            OpenInferenceDialect(flattens=True),
            hold_millis=hold_millis,
        )
    except ConfigurationError as error:
        if error.setting in {"url", "endpoint"}:
            raise ConfigurationError(_setting(endpoint), error.got, error.expected) from None
        raise


def _setting(endpoint: str | None) -> str:
    """Return the argument or variable that the endpoint came from."""
    if endpoint is not None:
        return "endpoint"
    return next((variable for variable in _ENDPOINTS if os.environ.get(variable, "").strip()), _ENDPOINTS[0])


def _host_and_port(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port
    except ValueError:  # the exporters refuse it with an error that says why
        return "", None
