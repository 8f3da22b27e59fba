"""Settings beyond the arguments of `configure`: bounds, the spool, and every environment variable that is read.

The tables of variables are public, so that a program can list them; `docs/configuration.md` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.exporters.proxy import PROXY
from otel_metadata.live.author import AUTHOR
from otel_metadata.live.live_settings import CAPTURE, MASK_CREDENTIALS
from otel_metadata.spool.spool_settings import SpoolSettings

__all__ = ["VARIABLES", "VENDOR_VARIABLES", "OutboxSettings", "SpoolSettings", "Variable"]

DEFAULT_DESTINATION: Final = "sqlite:///otel_metadata.db"

PREFIX: Final = "OTEL_PYTHON_METADATA_"
"""The beginning of the names of our own variables."""

DESTINATIONS: Final = "OTEL_PYTHON_METADATA_DESTINATIONS"
ADOPT: Final = "OTEL_PYTHON_METADATA_ADOPT"
SPOOL: Final = "OTEL_PYTHON_METADATA_SPOOL"
SPOOL_QUOTA: Final = "OTEL_PYTHON_METADATA_SPOOL_QUOTA_BYTES"
SPOOL_DURABILITY: Final = "OTEL_PYTHON_METADATA_SPOOL_DURABILITY"


class Variable(NamedTuple):
    """An environment variable that we read.

    Attributes:
        name: Its name.
        default: The value in force when it is not set, as text.
        meaning: One sentence.
    """

    name: str
    default: str
    meaning: str


VARIABLES: Final = (
    Variable(DESTINATIONS, DEFAULT_DESTINATION, "Destinations of `configure()`, separated by commas."),
    Variable(SPOOL, "none", "File in which updates survive the process; without it they wait in memory."),
    Variable(SPOOL_QUOTA, "1073741824", "Size in bytes beyond which nothing more is written to the spool."),
    Variable(SPOOL_DURABILITY, "process", "What a spooled update survives: `process`, or `power` (one fsync a write)."),
    Variable(
        PROXY,
        "false",
        "HTTP proxy of all destinations: `true` for `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`; or its URL.",
    ),
    Variable(AUTHOR, "service.name and the process", "Name of the author of updates, for people."),
    Variable(CAPTURE, "true", "Whether observed functions capture input and output by themselves."),
    Variable(ADOPT, "false", "Whether a destination sends by the application's exporter to the same place."),
    Variable(MASK_CREDENTIALS, "true", "Whether values of keys that name a secret are masked."),
    Variable("OTEL_PYTHON_METADATA_SERVE_URL", "serve://127.0.0.1:4318", "The server that `serve` names."),
    Variable("OTEL_PYTHON_METADATA_SERVE_TOKEN", "none", "Token for a server whose URL has none."),
    Variable("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "Ended spans that wait in one outbox."),
    Variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512", "Spans in one export."),
    Variable(
        "OTEL_BSP_SCHEDULE_DELAY", "5000", "Milliseconds that a span or patch waits to be sent together with others."
    ),
    Variable("OTEL_BSP_EXPORT_TIMEOUT", "30000", "Milliseconds that one export of patches may take."),
    Variable("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "128", "Attributes of one span; ours are at most a quarter of them."),
    Variable("OTEL_ATTRIBUTE_COUNT_LIMIT", "128", "The same, where `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT` is not set."),
)


VENDOR_VARIABLES: Final[Mapping[str, tuple[Variable, ...]]] = MappingProxyType(
    {
        "arize": (
            Variable("ARIZE_API_KEY", "none", "The key; required."),
            Variable("ARIZE_SPACE_ID", "none", "The space; required."),
            Variable("ARIZE_PROJECT_NAME", "what the resource says", "The project."),
            Variable("ARIZE_REGION", "none", "The region, whose hosts are used."),
            Variable("ARIZE_BASE_DOMAIN", "none", "The domain of an installation; `otlp.` comes before it."),
            Variable("ARIZE_COLLECTOR_ENDPOINT", "from the region", "Where spans go."),
        ),
        "galileo": (
            Variable("GALILEO_API_KEY", "none", "The key; required."),
            Variable("GALILEO_PROJECT", "none", "Name of the project, which must exist."),
            Variable("GALILEO_PROJECT_ID", "none", "Its UUID, instead of the name."),
            Variable("GALILEO_LOG_STREAM", "default", "Name of the log stream."),
            Variable("GALILEO_LOG_STREAM_ID", "none", "Its UUID, instead of the name."),
            Variable("GALILEO_API_URL", "https://api.galileo.ai", "The API."),
            Variable("GALILEO_CONSOLE_URL", "none", "The console, from which the address of the API follows."),
        ),
        "langfuse": (
            Variable("LANGFUSE_PUBLIC_KEY", "none", "The public key; required."),
            Variable("LANGFUSE_SECRET_KEY", "none", "The secret key; required."),
            Variable("LANGFUSE_BASE_URL", "https://cloud.langfuse.com", "The server."),
            Variable("LANGFUSE_HOST", "none", "The same, where `LANGFUSE_BASE_URL` is not set."),
            Variable("LANGFUSE_TRACING_ENVIRONMENT", "what the resource says", "The environment of spans and scores."),
            Variable("LANGFUSE_RELEASE", "what the resource says", "The release of spans."),
        ),
        "langwatch": (
            Variable("LANGWATCH_API_KEY", "none", "The key; required."),
            Variable("LANGWATCH_ENDPOINT", "https://app.langwatch.ai", "The server, without a path."),
            Variable("LANGWATCH_PROJECT_ID", "none", "The project, for a key that does not name it."),
        ),
        "mlflow": (
            Variable("MLFLOW_TRACKING_URI", "none", "The tracking server; required."),
            Variable("MLFLOW_EXPERIMENT_ID", "none", "The experiment's id; required."),
            Variable("MLFLOW_TRACKING_USERNAME", "none", "The user of basic authentication."),
            Variable("MLFLOW_TRACKING_PASSWORD", "none", "The password of that user."),
            Variable("MLFLOW_TRACKING_TOKEN", "none", "The bearer token, without a user."),
            Variable("MLFLOW_WORKSPACE", "none", "The workspace, where the server has workspaces."),
        ),
        "phoenix": (
            Variable("PHOENIX_COLLECTOR_ENDPOINT", "http://localhost:6006", "The server."),
            Variable("PHOENIX_BASE_URL", "none", "The same, where `PHOENIX_COLLECTOR_ENDPOINT` is not set."),
            Variable("PHOENIX_API_KEY", "none", "The key; Phoenix's cloud demands one."),
            Variable("PHOENIX_PROJECT", "what the resource says", "The project."),
            Variable("PHOENIX_PROJECT_NAME", "none", "The same, where `PHOENIX_PROJECT` is not set."),
            Variable("PHOENIX_CLIENT_HEADERS", "none", "Headers of every request: `name=value,name=value`."),
        ),
        "splunk_ao": (
            Variable("SPLUNK_AO_API_KEY", "none", "The key of an installation."),
            Variable("SPLUNK_AO_CONSOLE_URL", "none", "Its console, from which the address of the API follows."),
            Variable("SPLUNK_AO_API_URL", "from the console's", "Its API."),
            Variable("SPLUNK_AO_REALM", "none", "The realm of Splunk Observability Cloud, such as `us0`."),
            Variable("SPLUNK_AO_O11Y_TOKEN", "none", "The token for spans in the cloud."),
            Variable("SPLUNK_AO_O11Y_API_TOKEN", "the token for spans", "The token for updates in the cloud."),
            Variable("SPLUNK_AO_PROJECT", "default; none in the cloud", "Name of the project."),
            Variable("SPLUNK_AO_PROJECT_ID", "none", "Its UUID, instead of the name."),
            Variable("SPLUNK_AO_AGENT_STREAM", "default; none in the cloud", "Name of the agent stream."),
            Variable("SPLUNK_AO_AGENT_STREAM_ID", "none", "Its UUID, instead of the name."),
            Variable("SPLUNK_AO_LOG_STREAM", "none", "An older name of `SPLUNK_AO_AGENT_STREAM`."),
            Variable("SPLUNK_AO_LOG_STREAM_ID", "none", "An older name of `SPLUNK_AO_AGENT_STREAM_ID`."),
        ),
    }
)
"""The variables that each vendor's destination reads, by the vendor's name. The vendor's own SDK reads them too."""
