"""The destination for LangWatch, in its cloud or self-hosted: `configure("langwatch")`."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING, Final

from otel_metadata.arguments import checked
from otel_metadata.backends import from_environment
from otel_metadata.backends.langwatch.dialect import LangWatchDialect
from otel_metadata.backends.langwatch.patches import OTLP_PATH, LangWatchPatchExporter, Strategy
from otel_metadata.delivery.destination import Destination
from otel_metadata.exporters.http import with_path
from otel_metadata.exporters.otlp_http import OtlpHttpSender

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource  # a name in a signature; nothing is loaded

__all__ = ["destination"]

# LangWatch's SDK tells keys apart by these forms; every other key names its project itself.
_NEEDS_PROJECT: Final = re.compile(r"ik-lw-.*|sk-lw-[0-9A-Za-z]{16}_[0-9A-Za-z]{48}")


@checked
def destination(
    *,
    api_key: str | None = None,
    endpoint: str | None = None,
    project_id: str | None = None,
    strategy: Strategy = "patch",
    name: str = "langwatch",
    hold_millis: int = 0,
    resource: Resource | None = None,
) -> Destination:
    """Return a destination that sends spans and patches to LangWatch.

    LangWatch never replaces a value that a trace has, so an update that leaves with its span is worth more here than
    with other vendors: see *hold_millis*.

    Args:
        api_key: The key; None for `LANGWATCH_API_KEY`.
        endpoint: The address without a path; None for `LANGWATCH_ENDPOINT`, else `https://app.langwatch.ai`.
        project_id: The project of a key that does not name it; None for `LANGWATCH_PROJECT_ID`.
        strategy: How late metadata of a trace travels: `"patch"` by LangWatch's API, `"otlp_span"` on a span beside the
            target, which keeps objects, name and duration.
        name: The name of the destination, for receipts and `stats()`.
        hold_millis: How long an ended span is held, so that an update soon after its end still leaves with it.
        resource: The resource of the spans that carry patches.

    Raises:
        ConfigurationError: The key is missing, or a value cannot be used.
    """
    key = from_environment(
        api_key, "LANGWATCH_API_KEY", expected="an API key of a LangWatch project (its Settings, API Keys)"
    )
    url = from_environment(endpoint, "LANGWATCH_ENDPOINT", default="https://app.langwatch.ai")
    project = from_environment(project_id, "LANGWATCH_PROJECT_ID", default="")
    headers = _headers(key, project)
    return Destination(
        name,
        OtlpHttpSender(with_path(url, OTLP_PATH), headers=headers),
        LangWatchPatchExporter(
            url, headers=headers, strategy=strategy, resource=resource, name=name, project=project or None
        ),
        LangWatchDialect(),
        hold_millis=hold_millis,
    )


def _headers(key: str, project: str) -> dict[str, str]:
    """Return the headers that LangWatch's own SDK sends for such a key."""
    if key.startswith("pat-lw-") and project:
        return {"Authorization": f"Basic {b64encode(f'{project}:{key}'.encode()).decode()}"}
    headers = {"Authorization": f"Bearer {key}", "X-Auth-Token": key}
    if project and _NEEDS_PROJECT.fullmatch(key):
        headers["X-Project-Id"] = project
    return headers
