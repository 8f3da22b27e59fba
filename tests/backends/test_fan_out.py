"""Several backends at once, by name and environment: each has its own outcome, and a dead one harms no other."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.langfuse import PUBLIC_KEY, LangfuseDouble
from tests.backends.vendors.phoenix import PhoenixDouble
from tests.backends.vendors.server import KEY

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.errors import ConfigurationError


@pytest.fixture
def servers(monkeypatch):
    """Doubles of Langfuse and Phoenix, named by the vendors' own variables."""
    with LangfuseDouble() as langfuse, PhoenixDouble() as phoenix:
        monkeypatch.setenv("LANGFUSE_BASE_URL", langfuse.url)
        monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", PUBLIC_KEY)
        monkeypatch.setenv("LANGFUSE_SECRET_KEY", KEY)
        monkeypatch.setenv("PHOENIX_COLLECTOR_ENDPOINT", phoenix.url)
        monkeypatch.setenv("PHOENIX_API_KEY", KEY)
        yield langfuse, phoenix


def application(tmp_path):
    provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    return om.configure(
        "langfuse", "phoenix", f"sqlite:///{tmp_path}/spans.db", tracer_provider=provider, outbox=OutboxSettings()
    )


def used(tmp_path):
    """Update a span live and late; return the late receipt and what became of everything."""
    pipeline = application(tmp_path)
    with om.start_span("work") as span:
        om.update_current_span(metadata={"step": 1})
    om.flush(10_000)
    receipt = om.update_span(span.ref, metadata={"step": 2})
    om.flush(10_000)
    found = pipeline.stats().destinations
    pipeline.shutdown(0)
    return receipt, found


def test_each_destination_has_its_route_and_its_balance(servers, tmp_path):
    """A receipt and a row of stats for each; all of them have both updates."""
    receipt, found = used(tmp_path)
    assert {name: routed.route for name, routed in receipt.routes.items()} == {
        "langfuse": "late",
        "phoenix": "late",
        "sqlite": "late",
    }
    assert {name: (counts.delivered, counts.waiting) for name, counts in found.items()} == {
        "langfuse": (2, 0),
        "phoenix": (2, 0),
        "sqlite": (2, 0),
    }


def test_a_dead_one_changes_nothing_for_the_others(servers, tmp_path):
    """While Langfuse is down, Phoenix and the store have everything; Langfuse's share is still waiting, or counted."""
    langfuse, _ = servers
    langfuse.close()
    _, found = used(tmp_path)
    assert {name: counts.delivered for name, counts in found.items()} == {"langfuse": 0, "phoenix": 2, "sqlite": 2}
    assert all(counts.is_balanced for counts in found.values())


def test_without_its_key_a_name_is_one_error_and_nothing_changes(servers, monkeypatch, tmp_path):
    """configure names the variable, and the pipeline that was there goes on."""
    before = application(tmp_path)
    monkeypatch.delenv("LANGFUSE_SECRET_KEY")
    with pytest.raises(ConfigurationError, match="LANGFUSE_SECRET_KEY"):
        om.configure("langfuse", "phoenix")
    assert before.stats().destinations.keys() == {"langfuse", "phoenix", "sqlite"}
    before.shutdown(0)
