"""The destination for Arize AX: spans by OTLP over HTTP, patches through Arize's own SDK (extra `arize`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from otel_metadata.arguments import checked
from otel_metadata.backends import first_set, from_environment, named_project
from otel_metadata.backends.arize.patches import ArizePatchExporter
from otel_metadata.backends.arize.sdk import EXTRA, connect
from otel_metadata.delivery.destination import Destination
from otel_metadata.dialects.openinference import OpenInferenceDialect
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.altered_spans import AlteredSpans, OnResource
from otel_metadata.exporters.http import split_url, with_path
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.model.record import PROJECT_NAMES

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource  # a name in a signature; nothing is loaded

    from otel_metadata.backends.arize.sdk import ArizeClient

__all__ = ["destination"]

REGIONS: Final = ("ca-central-1a", "eu-west-1a", "us-central-1a", "us-east-1b")


@checked
def destination(
    *,
    api_key: str | None = None,
    space_id: str | None = None,
    project: str | None = None,
    region: str | None = None,
    endpoint: str | None = None,
    client: Callable[[], ArizeClient] | None = None,
    name: str = "arize",
    hold_millis: int = 0,
    resource: Resource | None = None,
) -> Destination:
    """Return Arize as a destination. The variables are those of `arize-otel` and of the SDK.

    Args:
        api_key: The key; None for `ARIZE_API_KEY`.
        space_id: The id of the space, in base64 as Arize shows it; None for `ARIZE_SPACE_ID`.
        project: The project; None for `ARIZE_PROJECT_NAME`, else the project that the resource names, else `default`.
            Spans leave under this project, and patches change spans of this project.
        region: One of `REGIONS`, or "" for the United States; None for `ARIZE_REGION`.
        endpoint: The address for spans; None for `ARIZE_COLLECTOR_ENDPOINT`, else the host of `ARIZE_BASE_DOMAIN` or of
            the region. `/v1/traces` is added where it is missing. Patches go to the address of the SDK's own variables
            (`ARIZE_FLIGHT_HOST`, …).
        client: Makes the client that sends the patches, on a thread of ours; for an SDK with another configuration.
            None for the SDK as its own variables configure it.
        name: The name of the destination.
        hold_millis: How long an ended span is held, so that an update soon after its end still leaves with it.
        resource: The resource of the application's spans.

    Raises:
        ConfigurationError: A key or id is missing, a value cannot be used, or the extra is not installed.
    """
    key = from_environment(api_key or None, "ARIZE_API_KEY", expected="an API key of Arize (Settings, API Keys)")
    space = from_environment(space_id or None, "ARIZE_SPACE_ID", expected="the id of a space of Arize (Settings)")
    chosen = from_environment(project or None, "ARIZE_PROJECT_NAME", default=named_project(resource))
    where = from_environment(region, "ARIZE_REGION", default="")
    if where and where not in REGIONS:
        raise ConfigurationError(
            "ARIZE_REGION" if region is None else "destination(region=)", where, f"one of {', '.join(REGIONS)}"
        )
    if client is None and not _has_sdk():
        raise ConfigurationError("the package arize", "missing", f"Arize's SDK; install it: pip install '{EXTRA}'")
    headers = {
        "authorization": key,
        "arize-space-id": space,
        "arize-interface": "otel",
        # The older names, which arize-otel still sends too.
        "api_key": key,
        "space_id": space,
    }
    return Destination(
        name,
        AlteredSpans(
            OtlpHttpSender(_traces_url(endpoint, where), headers=headers),
            # Arize shows no span without this attribute, and patches name the project that the span is in.
            OnResource({PROJECT_NAMES[0]: chosen}, overrides=True),
        ),
        ArizePatchExporter(client or connect(key, where or None), space_id=space, project=chosen),
        OpenInferenceDialect(scalars=True),
        hold_millis=hold_millis,
    )


def _has_sdk() -> bool:
    """Whether Arize's SDK can be imported. It is not imported here: that takes a second."""
    spec = importlib.util.find_spec("arize")
    # arize-otel alone leaves a namespace package of this name, which has no origin.
    return spec is not None and spec.origin is not None


def _traces_url(endpoint: str | None, region: str) -> str:
    """Return the whole address for spans over HTTP: Arize answers 200 on other paths too, and keeps nothing."""
    domain = first_set("ARIZE_BASE_DOMAIN") or (f"{region}.arize.com" if region else "arize.com")
    url = from_environment(endpoint, "ARIZE_COLLECTOR_ENDPOINT", default=f"https://otlp.{domain}")
    path = split_url(url)[0].partition("://")[2].partition("/")[2]
    return with_path(url, "/v1/traces" if not path else "/traces" if f"/{path}".endswith("/v1") else "")
