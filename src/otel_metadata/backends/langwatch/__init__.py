"""LangWatch, hosted or on one's own machines."""

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

# As LangWatch's SDK tells them apart: the other keys carry their project.
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

    LangWatch never replaces a value that a trace has, so what can still leave with its span is worth more here than
    elsewhere: see *hold_millis*.

    Args:
        api_key: None for `LANGWATCH_API_KEY`.
        endpoint: Its address without a path; None for `LANGWATCH_ENDPOINT`, else `https://app.langwatch.ai`.
        project_id: For a key that does not name its project; None for `LANGWATCH_PROJECT_ID`, else none.
        strategy: How late metadata of a trace travels: `"patch"` by LangWatch's API, `"otlp_span"` on a span beside the
            target, which keeps objects, name and duration.
        name: What receipts and `stats()` call it.
        hold_millis: How long an ended span is kept so that what comes soon after still leaves with it.
        resource: Of the spans that carry patches.

    Raises:
        ConfigurationError: There is no key, or one of these cannot be used.
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
