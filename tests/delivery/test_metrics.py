"""The balance as OpenTelemetry metrics."""

from __future__ import annotations

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_metadata as om
from otel_metadata.delivery import metrics
from otel_metadata.model.outcome import Delivered, DeliveryError, Rejected


def collected(reader):
    """Return every value by instrument and attributes."""
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            assert scope.scope.name == metrics.METER_NAME
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    attributes = dict(point.attributes)
                    assert attributes.pop("otel_metadata.destination") == "memory"
                    found[metric.name, attributes.get("error.type")] = point.value
    return found


def test_the_metrics_say_what_the_stats_say(scene, monkeypatch):
    """Each instrument has the value of its count, lost updates by error.type, for each destination."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "_is_observed", False)
    monkeypatch.setattr(metrics.metrics, "get_meter", provider.get_meter)
    metrics.observe(scene.processor.stats)
    scene.exported(a=1)
    om.update_span(scene.unseen(1), metadata={"a": 1})
    om.update_span(scene.unseen(2), metadata={"b": 1})
    scene.patches.answer = lambda patch: (
        Rejected(DeliveryError("type_conflict", "no")) if patch.target.span_id == 1 else Delivered()
    )
    scene.processor.force_flush()
    om.update_span(scene.unseen(3), metadata={"c": 1})
    scene.clock.advance(2_000)
    values = collected(reader)
    provider.shutdown()
    size = values.pop(("otel_metadata.patch.waiting.size", None))
    assert size > 0
    assert values == {
        ("otel_metadata.patch.accepted", None): 4,
        ("otel_metadata.patch.processed", None): 2,
        ("otel_metadata.patch.processed", "rejected"): 1,
        ("otel_metadata.patch.retried", None): 0,
        ("otel_metadata.patch.waiting", None): 1,
        ("otel_metadata.patch.waiting.age", None): 2.0,
        ("otel_metadata.spool.size", None): 0,
        ("otel_metadata.span.processed", None): 1,
        ("otel_metadata.span.processed", "buffer_full"): 0,
        ("otel_metadata.span.processed", "target_not_exported"): 0,
        ("otel_metadata.span.retried", None): 0,
    }


def test_the_instruments_are_registered_once(monkeypatch):
    """OpenTelemetry cannot take an instrument back, so configuring again makes no second set."""
    made = []
    monkeypatch.setattr(metrics, "_is_observed", False)
    real = metrics.metrics.get_meter
    monkeypatch.setattr(metrics.metrics, "get_meter", lambda *names: made.append(names) or real(*names))
    metrics.observe(om.stats)
    metrics.observe(om.stats)
    assert len(made) == 1
