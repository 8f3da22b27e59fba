"""The destination for an MLflow tracking server: `configure("mlflow")`.

`backends.mlflow.dialect` and `backends.mlflow.patches` decide where fields go; `docs/backends/mlflow.md` tells users.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from otel_metadata.arguments import checked
from otel_metadata.backends import from_environment
from otel_metadata.backends.mlflow.dialect import MlflowDialect
from otel_metadata.backends.mlflow.patches import MlflowPatchExporter
from otel_metadata.backends.mlflow.spans import readable
from otel_metadata.delivery.destination import Destination
from otel_metadata.errors import ConfigurationError, shown_url
from otel_metadata.exporters.altered_spans import AlteredSpans
from otel_metadata.exporters.http import with_path
from otel_metadata.exporters.otlp_http import OtlpHttpSender

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource  # a name in a signature; nothing is loaded

__all__ = ["EXPERIMENT", "TRACES", "destination", "request_headers"]

TRACES: Final = "/v1/traces"
"""The path for OTLP."""

_URI: Final = "MLFLOW_TRACKING_URI"
EXPERIMENT: Final = "MLFLOW_EXPERIMENT_ID"
_EXPERIMENT_HEADER: Final = "x-mlflow-experiment-id"


@checked
def destination(
    *,
    tracking_uri: str | None = None,
    experiment_id: str | None = None,
    username: str | None = None,
    password: str | None = None,
    token: str | None = None,
    workspace: str | None = None,
    expectations: Collection[str] = (),
    name: str = "mlflow",
    hold_millis: int = 0,
    resource: Resource | None = None,
) -> Destination:
    """Return a destination for an MLflow tracking server.

    Args:
        tracking_uri: The `http` or `https` address; None for `MLFLOW_TRACKING_URI`.
        experiment_id: The experiment's id, not its name; None for `MLFLOW_EXPERIMENT_ID`.
        username: The user of basic authentication; None for `MLFLOW_TRACKING_USERNAME`.
        password: The password of that user; None for `MLFLOW_TRACKING_PASSWORD`.
        token: The bearer token, where there is no user with a password; None for `MLFLOW_TRACKING_TOKEN`.
        workspace: The workspace, on a server that has workspaces; None for `MLFLOW_WORKSPACE`.
        expectations: Names of evaluations and annotations that say what the answer should have been.
        name: The name of the destination.
        hold_millis: How long an ended span is held, so that an update soon after its end is on the span itself.
        resource: Not used: MLflow gets no patch as a span.

    Raises:
        ConfigurationError: A value is missing or cannot be used; the error names the variable.
    """
    uri = from_environment(tracking_uri, _URI, expected="the http or https address of an MLflow server")
    if not uri.lower().startswith(("http://", "https://")):
        expected = "an address that begins with http:// or https://; spans go to a server, not into a file or database"
        raise ConfigurationError(_URI, shown_url(uri), expected)
    experiment = from_environment(
        experiment_id,
        EXPERIMENT,
        expected="the id of an experiment, as the address of its page shows it; MLflow takes no spans by a name",
    )
    headers = _headers(username, password, token, workspace)
    try:
        sender = OtlpHttpSender(with_path(uri, TRACES), headers={**headers, _EXPERIMENT_HEADER: experiment})
        patches = MlflowPatchExporter(
            uri, headers=headers, expectations=expectations, name=name, experiment_id=experiment
        )
    except ConfigurationError as error:
        if error.setting not in {"endpoint", "url"}:
            raise
        raise ConfigurationError(_URI, error.got, error.expected) from None
    return Destination(name, AlteredSpans(sender, readable), patches, MlflowDialect(), hold_millis=hold_millis)


def request_headers(experiment: str) -> dict[str, str]:
    """Return the headers of a request with spans of an experiment, from MLflow's own variables."""
    return {**_headers(), _EXPERIMENT_HEADER: experiment}


def _headers(
    username: str | None = None, password: str | None = None, token: str | None = None, workspace: str | None = None
) -> dict[str, str]:
    """Return the headers of every request. As in MLflow's own client, a user with a password wins over a token."""
    user = from_environment(username, "MLFLOW_TRACKING_USERNAME", default="")
    secret = from_environment(password, "MLFLOW_TRACKING_PASSWORD", default="")
    bearer = from_environment(token, "MLFLOW_TRACKING_TOKEN", default="")
    space = from_environment(workspace, "MLFLOW_WORKSPACE", default="")
    headers: dict[str, str] = {}
    if user and secret:
        headers["authorization"] = f"Basic {b64encode(f'{user}:{secret}'.encode()).decode()}"
    elif bearer:
        headers["authorization"] = f"Bearer {bearer}"
    if space:
        headers["x-mlflow-workspace"] = space
    return headers
