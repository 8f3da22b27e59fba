"""Arize Phoenix, self-hosted or in its cloud: spans over OTLP/HTTP, what comes late as annotations.

Nothing here decides how a field is spelled: see `dialects.openinference` and `backends.phoenix.patches`.
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
        endpoint: Phoenix's own address; `PHOENIX_COLLECTOR_ENDPOINT`, else `PHOENIX_BASE_URL`, else
            `http://localhost:6006`. With or without `/v1/traces`. Not the port of gRPC.
        api_key: `PHOENIX_API_KEY`; its cloud demands one, a server of your own only when authentication is on.
        project: The project of new traces; `PHOENIX_PROJECT`, else `PHOENIX_PROJECT_NAME`, else what the spans'
            resource says (`openinference.project.name`), else Phoenix's `default`.
        headers: More headers; `PHOENIX_CLIENT_HEADERS`, as `name=value,name=value` with percent-encoded values.
        name: Of the destination.
        hold_millis: How long an ended span is kept, so that what comes soon after is still on it.
        resource: Of the application's spans.

    Raises:
        ConfigurationError: The key of the cloud is missing, or one of these cannot be used.
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
    """Return what the endpoint came from."""
    if endpoint is not None:
        return "endpoint"
    return next((variable for variable in _ENDPOINTS if os.environ.get(variable, "").strip()), _ENDPOINTS[0])


def _host_and_port(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port
    except ValueError:  # whoever sends there says what is wrong with it
        return "", None
