"""MLflow's own variables make a destination, and what is missing is told by its name."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.mlflow import MlflowDouble
from tests.backends.vendors.server import KEY

import otel_metadata as om
from otel_metadata.backends.mlflow import destination
from otel_metadata.errors import ConfigurationError

VARIABLES = ("URI", "USERNAME", "PASSWORD", "TOKEN")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine has a say."""
    for name in (*(f"MLFLOW_TRACKING_{one}" for one in VARIABLES), "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def double() -> Iterator[MlflowDouble]:
    with MlflowDouble() as double:
        yield double


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "MLFLOW_TRACKING_URI"),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "MLFLOW_EXPERIMENT_ID"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "MLFLOW_EXPERIMENT_ID": "1"}, "MLFLOW_TRACKING_URI"),
        ({"MLFLOW_TRACKING_URI": "http://me:secret@host", "MLFLOW_EXPERIMENT_ID": "1"}, "MLFLOW_TRACKING_URI"),
        ({"MLFLOW_TRACKING_URI": "me:secret@host", "MLFLOW_EXPERIMENT_ID": "1"}, "MLFLOW_TRACKING_URI"),
    ],
    ids=["address", "experiment", "no-server", "password-in-address", "password-without-scheme"],
)
def test_what_is_missing_or_wrong_is_told_by_its_variable(monkeypatch, given, missing):
    """One error, with the name of the first variable that has to be set, and no secret."""
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised:
        om.configure("mlflow", tracer_provider=TracerProvider(shutdown_on_exit=False))
    assert raised.value.setting == missing
    assert "secret" not in str(raised.value)


def test_configure_by_name_reaches_the_server(monkeypatch, double):
    """`configure("mlflow")` sends spans with the experiment's id, and patches, both with the token."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{double.url}/")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", KEY)
    provider = TracerProvider(shutdown_on_exit=False)
    om.configure("mlflow", tracer_provider=provider)
    with provider.get_tracer("application").start_as_current_span("work"):
        om.score_current_span("Correctness", score=1.0)
    assert om.flush()
    spans, assessment = double.requests
    assert (spans.path, spans.headers["x-mlflow-experiment-id"]) == ("/v1/traces", "7")
    assert assessment.json["assessment"]["assessment_name"] == "Correctness"
    assert {request.headers["authorization"] for request in double.requests} == {f"Bearer {KEY}"}


def sent_headers(double: MlflowDouble, **given: str) -> dict[str, str]:
    """Return the headers of a patch."""
    made = destination(tracking_uri=double.url, experiment_id="1", **given)
    provider = TracerProvider(shutdown_on_exit=False)
    om.configure(made, tracer_provider=provider)
    with provider.get_tracer("application").start_as_current_span("work"):
        om.score_current_span("Correctness", score=1.0)
    om.flush()
    return dict(double.requests[-1].headers)


def test_a_user_goes_before_a_token(double):
    """As in MLflow's own client: both are sent as basic authentication, and the token is not."""
    headers = sent_headers(double, username="me", password=KEY, token="other")
    assert headers["authorization"] == f"Basic {base64.b64encode(f'me:{KEY}'.encode()).decode()}"


def test_a_workspace_is_a_header(double):
    """Spans and patches name the workspace; without a key nothing is sent for one."""
    headers = sent_headers(double, workspace="team")
    assert headers["x-mlflow-workspace"] == "team"
    assert "authorization" not in headers
    assert double.requests[0].headers["x-mlflow-workspace"] == "team"


def test_the_key_is_in_no_representation():
    """Neither part of the destination shows it."""
    made = destination(tracking_uri="http://127.0.0.1:9", experiment_id="1", token=KEY)
    assert KEY not in repr((made, made.span_exporter, made.patch_exporter))
