"""The destination for Langfuse, in its cloud or self-hosted: `configure("langfuse")`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_metadata.arguments import checked
from otel_metadata.backends import from_environment
from otel_metadata.backends.langfuse.bodies import ENVIRONMENT, RELEASE, is_environment
from otel_metadata.backends.langfuse.dialect import LangfuseDialect
from otel_metadata.backends.langfuse.patches import TRACES_PATH, LangfusePatchExporter, request_headers
from otel_metadata.delivery.destination import Destination
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.altered_spans import AlteredSpans, OnResource
from otel_metadata.exporters.http import with_path
from otel_metadata.exporters.otlp_http import OtlpHttpSender

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource  # a name in a signature; nothing is loaded

__all__ = ["destination"]

_ENVIRONMENT: Final = "LANGFUSE_TRACING_ENVIRONMENT"


@checked
def destination(
    *,
    public_key: str | None = None,
    secret_key: str | None = None,
    base_url: str | None = None,
    environment: str | None = None,
    release: str | None = None,
    json_strings: bool = False,
    name: str = "langfuse",
    hold_millis: int = 0,
    resource: Resource | None = None,
) -> Destination:
    """Return the destination of one Langfuse project.

    Args:
        public_key: None for `LANGFUSE_PUBLIC_KEY`.
        secret_key: None for `LANGFUSE_SECRET_KEY`.
        base_url: None for `LANGFUSE_BASE_URL`, else `LANGFUSE_HOST`, else Langfuse Cloud in the EU.
        environment: The environment of spans and scores; None for `LANGFUSE_TRACING_ENVIRONMENT`. A resource that has
            `langfuse.environment` keeps its own.
        release: The release of spans; None for `LANGFUSE_RELEASE`. A resource that has its own keeps it likewise.
        json_strings: Write text in metadata in quotes, as JSON; for servers from 4.59 on (`backends.langfuse.dialect`).
        name: The name of the destination.
        hold_millis: How long an ended span is held, so that an update soon after its end is on the span itself:
            Langfuse 4 never changes a stored span.
        resource: The resource of the spans that carry late updates. Its environment is also that of the scores.

    Raises:
        ConfigurationError: A key is missing, or a value cannot be used.
    """
    where = "the project's settings in Langfuse, under API keys"
    public = from_environment(public_key, "LANGFUSE_PUBLIC_KEY", expected=f"a public key (pk-lf-...) from {where}")
    secret = from_environment(secret_key, "LANGFUSE_SECRET_KEY", expected=f"a secret key (sk-lf-...) from {where}")
    url = from_environment(base_url, "LANGFUSE_BASE_URL", "LANGFUSE_HOST", default="https://cloud.langfuse.com")
    stage = from_environment(environment, _ENVIRONMENT, default="")
    if stage and not is_environment(stage):
        expected = "at most 40 small letters, digits, - and _ that do not begin with langfuse"
        raise ConfigurationError(_ENVIRONMENT if environment is None else "environment", stage, expected)
    wanted = {ENVIRONMENT: stage, RELEASE: from_environment(release, "LANGFUSE_RELEASE", default="")}
    place = OnResource({key: text for key, text in wanted.items() if text}, overrides=False)
    patches = LangfusePatchExporter(url, public_key=public, secret_key=secret, resource=place.of(resource), name=name)
    sender = OtlpHttpSender(with_path(url, TRACES_PATH), headers=request_headers(public, secret))
    spans = AlteredSpans(sender, place)
    return Destination(name, spans, patches, LangfuseDialect(json_strings=json_strings), hold_millis=hold_millis)
