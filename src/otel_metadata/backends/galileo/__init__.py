"""The destination for Galileo: spans by OTLP, patches by its API. `configure("galileo")`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_metadata.arguments import checked
from otel_metadata.backends import first_set, from_environment
from otel_metadata.backends.galileo.dialect import GalileoDialect
from otel_metadata.backends.galileo.patches import API_KEY_HEADER, GalileoPatchExporter, Resolve, checked_uuid
from otel_metadata.backends.galileo.spans import routed
from otel_metadata.delivery.destination import Destination
from otel_metadata.exporters.altered_spans import AlteredSpans
from otel_metadata.exporters.http import with_path
from otel_metadata.exporters.otlp_http import OtlpHttpSender

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource  # a name in a signature; nothing is loaded

__all__ = ["destination"]


@checked
def destination(
    *,
    api_key: str | None = None,
    api_url: str | None = None,
    console_url: str | None = None,
    project: str | None = None,
    project_id: str | None = None,
    log_stream: str | None = None,
    log_stream_id: str | None = None,
    api_key_header: str = API_KEY_HEADER,
    resolve: Resolve | None = None,
    metadata_as_tags: bool = False,
    name: str = "galileo",
    hold_millis: int = 0,
    resource: Resource | None = None,  # configure() gives it to every destination
) -> Destination:
    """Return a destination for one log stream.

    Args:
        api_key: The key; None for `GALILEO_API_KEY`.
        api_url: The address of the API; None for `GALILEO_API_URL`, else the address that follows from the console's.
        console_url: The address of the console; None for `GALILEO_CONSOLE_URL`, else the hosted one.
        project: The name of the project; None for `GALILEO_PROJECT`.
        project_id: Its UUID, instead of the name; None for `GALILEO_PROJECT_ID`.
        log_stream: The name of the log stream; None for `GALILEO_LOG_STREAM`, else `default`.
        log_stream_id: Its UUID, instead of the name; None for `GALILEO_LOG_STREAM_ID`.
        api_key_header: The name of the header that has the key.
        resolve: Finds Galileo's record of a span or trace; see `backends.galileo.patches.Resolve`.
        metadata_as_tags: Add late metadata as tags, `key:value`, as far as they fit into a tag.
        name: The name of the destination, for receipts and `stats()`.
        hold_millis: How long an ended span is held. Metadata that comes after that is `unsupported`.
        resource: Not used: Galileo gets no patch as a span.

    Raises:
        ConfigurationError: A value is missing or cannot be used.
    """
    key = from_environment(
        api_key,
        "GALILEO_API_KEY",
        expected="an API key of Galileo (console, Settings, API keys); with the variables SPLUNK_AO_…, name the "
        "destination splunk_ao",
    )
    url = _found_api_url(api_url, console_url)
    if project is None and project_id is None:
        project_id = first_set("GALILEO_PROJECT_ID")
    if project_id is None:
        project = from_environment(
            project, "GALILEO_PROJECT", expected="the name of a Galileo project, or its UUID in GALILEO_PROJECT_ID"
        )
    if log_stream is None and log_stream_id is None:
        log_stream_id = first_set("GALILEO_LOG_STREAM_ID")
    # Checked here, so that an error names the variable that the user knows.
    project_id = checked_uuid("GALILEO_PROJECT_ID", project_id)
    log_stream_id = checked_uuid("GALILEO_LOG_STREAM_ID", log_stream_id)
    headers = {api_key_header: key}
    headers |= {"projectid": project_id} if project_id is not None else {"project": project or ""}
    if log_stream_id is not None:
        headers["logstreamid"] = log_stream_id
    else:
        headers["logstream"] = from_environment(log_stream, "GALILEO_LOG_STREAM", default="default")
    patches = GalileoPatchExporter(
        url,
        api_key=key,
        project=project,
        project_id=project_id,
        log_stream_id=log_stream_id,
        api_key_header=api_key_header,
        resolve=resolve,
        metadata_as_tags=metadata_as_tags,
        name=name,
    )
    spans = AlteredSpans(OtlpHttpSender(with_path(url, "/otel/traces"), headers=headers), routed)
    return Destination(name, spans, patches, GalileoDialect(), hold_millis=hold_millis)


def _found_api_url(api_url: str | None, console_url: str | None) -> str:
    """Return the address of the API, found as the vendor's SDK finds it."""
    found = from_environment(api_url, "GALILEO_API_URL", default="")
    if not found and (console := from_environment(console_url, "GALILEO_CONSOLE_URL", default="")):
        if "://" not in console:
            console = f"https://{console}"
        if "localhost" in console or "127.0.0.1" in console:
            found = "http://localhost:8088"
        elif "app.galileo.ai" not in console:
            found = console.replace("console", "api")
    return found or "https://api.galileo.ai"
