"""The destination for Splunk Agent Observability, Galileo's successor: `configure("splunk_ao")`.

It reads the variables of the package `splunk-ao` (0.6.1), and finds the addresses as that package does:
`SPLUNK_AO_REALM` means Splunk Observability Cloud; a key and a console mean an installation of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from otel_metadata.arguments import checked
from otel_metadata.backends import first_set, from_environment
from otel_metadata.backends.galileo.patches import GalileoPatchExporter, Resolve, checked_uuid
from otel_metadata.backends.splunk_ao.dialect import SplunkAoDialect
from otel_metadata.delivery.destination import Destination
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.altered_spans import AlteredSpans, OnResource
from otel_metadata.exporters.otlp_http import OtlpHttpSender

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource  # a name in a signature; nothing is loaded

__all__ = ["BACKEND", "destination"]

BACKEND: Final = "splunk_ao"
"""The name of the destination, and the key under which `SpanRef.backend_ids` holds a record's UUID."""

_API_KEY: Final = "SPLUNK_AO_API_KEY"
_CONSOLE_URL: Final = "SPLUNK_AO_CONSOLE_URL"
_API_URL: Final = "SPLUNK_AO_API_URL"
_REALM: Final = "SPLUNK_AO_REALM"
_TOKEN: Final = "SPLUNK_AO_O11Y_TOKEN"  # noqa: S105 # the name of a variable
_API_TOKEN: Final = "SPLUNK_AO_O11Y_API_TOKEN"  # noqa: S105 # likewise
_PROJECT: Final = "SPLUNK_AO_PROJECT"
_PROJECT_ID: Final = "SPLUNK_AO_PROJECT_ID"
# The second name of each is the older one, which the SDK still reads.
_STREAM: Final = ("SPLUNK_AO_AGENT_STREAM", "SPLUNK_AO_LOG_STREAM")
_STREAM_ID: Final = ("SPLUNK_AO_AGENT_STREAM_ID", "SPLUNK_AO_LOG_STREAM_ID")
_DEFAULT: Final = "default"
"""The project and the agent stream of an installation where none is named, as in the vendor's SDK."""


class _Place(NamedTuple):
    """Addresses and keys.

    Attributes:
        traces: The address for OTLP.
        api: The address of the API, without a slash at its end.
        header: The name of the header that has the key.
        key: The key for spans.
        api_key: The key for patches.
    """

    traces: str
    api: str
    header: str
    key: str
    api_key: str


@checked
def destination(
    *,
    api_key: str | None = None,
    console_url: str | None = None,
    api_url: str | None = None,
    realm: str | None = None,
    token: str | None = None,
    api_token: str | None = None,
    project: str | None = None,
    project_id: str | None = None,
    agent_stream: str | None = None,
    agent_stream_id: str | None = None,
    resolve: Resolve | None = None,
    metadata_as_tags: bool = False,
    name: str = BACKEND,
    hold_millis: int = 0,
    resource: Resource | None = None,  # configure() gives it to every destination
) -> Destination:
    """Return a destination for one agent stream.

    Args:
        api_key: The key of an installation; None for `SPLUNK_AO_API_KEY`.
        console_url: The console of an installation; None for `SPLUNK_AO_CONSOLE_URL`.
        api_url: The API of an installation; None for `SPLUNK_AO_API_URL`, else the address that follows from the
            console's.
        realm: The realm of Splunk Observability Cloud; None for `SPLUNK_AO_REALM`. It replaces the three above.
        token: The token for spans in the cloud; None for `SPLUNK_AO_O11Y_TOKEN`.
        api_token: The token for patches in the cloud; None for `SPLUNK_AO_O11Y_API_TOKEN`, else the token for spans.
        project: The name of the project; None for `SPLUNK_AO_PROJECT`, else `default` for an installation.
        project_id: Its UUID, instead of the name; None for `SPLUNK_AO_PROJECT_ID`.
        agent_stream: The name of the agent stream; None for `SPLUNK_AO_AGENT_STREAM`, else `default` for an
            installation.
        agent_stream_id: Its UUID, instead of the name; None for `SPLUNK_AO_AGENT_STREAM_ID`.
        resolve: Finds the record of a span or trace; see `backends.galileo.patches.Resolve`.
        metadata_as_tags: Add late metadata as tags, `key:value`, as far as they fit into a tag.
        name: The name of the destination, for receipts and `stats()`.
        hold_millis: How long an ended span is held. Metadata that comes after that is `unsupported`.
        resource: Not used: no patch leaves as a span.

    Raises:
        ConfigurationError: A value is missing, contradicts another one, or cannot be used.
    """
    own = {_API_KEY: api_key, _CONSOLE_URL: console_url, _API_URL: api_url}
    cloud = {_REALM: realm, _TOKEN: token, _API_TOKEN: api_token}
    # Keywords decide whether the cloud or an installation is meant; without keywords, the environment decides.
    is_cloud = any(cloud.values()) if any((*own.values(), *cloud.values())) else any(map(first_set, cloud))
    if is_cloud and (any(own.values()) or (not any(cloud.values()) and any(map(first_set, own)))):
        raise ConfigurationError(
            _REALM, "set beside a key or an address of an installation", f"one of the two: unset {', '.join(own)}"
        )
    place = _in_the_cloud(realm, token, api_token) if is_cloud else _installed(api_key, console_url, api_url)
    default = None if is_cloud else _DEFAULT
    project, project_id = _name_or_id(project, project_id, (_PROJECT,), (_PROJECT_ID,), default)
    if project is None and project_id is None:
        raise ConfigurationError(_PROJECT, None, f"the name of a project, or its UUID in {_PROJECT_ID}")
    stream, stream_id = _name_or_id(agent_stream, agent_stream_id, _STREAM, _STREAM_ID, default)
    # As the SDK does, we send the same names in headers and on the resource.
    routing = {"project": project, "projectid": project_id, "logstream": stream, "logstreamid": stream_id}
    on_resource = {
        "splunk_ao.project.name": project,
        "splunk_ao.project.id": project_id,
        "splunk_ao.logstream.name": stream,
        "splunk_ao.logstream.id": stream_id,
    }
    patches = GalileoPatchExporter(
        place.api,
        api_key=place.api_key,
        project=project,
        project_id=project_id,
        log_stream_id=stream_id,
        api_key_header=place.header,
        resolve=resolve,
        metadata_as_tags=metadata_as_tags,
        name=name,
        backend=BACKEND,
    )
    spans = AlteredSpans(
        OtlpHttpSender(place.traces, headers={place.header: place.key, **_without_none(routing)}),
        OnResource(_without_none(on_resource), overrides=True),
    )
    return Destination(name, spans, patches, SplunkAoDialect(), hold_millis=hold_millis)


def _installed(api_key: str | None, console_url: str | None, api_url: str | None) -> _Place:
    key = from_environment(
        api_key, _API_KEY, expected=f"an API key of Splunk Agent Observability, or {_REALM} with {_TOKEN} for the cloud"
    )
    console = from_environment(
        console_url, _CONSOLE_URL, expected="the address of the console, such as https://console.example.com"
    )
    api = from_environment(
        api_url,
        _API_URL,
        default=console.replace("://console.", "://api.", 1).replace("://app.", "://api.", 1),
    ).rstrip("/")
    return _Place(f"{api}/otel/v1/traces", api, "Splunk-AO-API-Key", key, key)


def _in_the_cloud(realm: str | None, token: str | None, api_token: str | None) -> _Place:
    where = from_environment(realm, _REALM, expected="a realm of Splunk Observability Cloud, such as us0")
    if not where.replace("-", "").isalnum() or not where.isascii():
        raise ConfigurationError(_REALM, where, "a realm of Splunk Observability Cloud, such as us0")
    key = from_environment(token, _TOKEN, expected="an ingest token of Splunk Observability Cloud")
    domain = f"{where}.observability.splunkcloud.com"
    return _Place(
        f"https://ingest.{domain}/v2/trace/otlp",
        f"https://app.{domain}/ao/api",
        "X-SF-Token",
        key,
        from_environment(api_token, _API_TOKEN, default=key),
    )


def _name_or_id(
    name: str | None, identifier: str | None, names: tuple[str, ...], ids: tuple[str, ...], default: str | None
) -> tuple[str | None, str | None]:
    """Return the name of a project or stream, or its id: from keywords, else the environment, else the default."""
    if name is None and identifier is None:
        identifier = first_set(*ids)
    if identifier is not None:
        return None, checked_uuid(ids[0], identifier)
    return name if name is not None else first_set(*names) or default, None


def _without_none(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
