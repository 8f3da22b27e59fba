"""What environment variables say that both sides of the library read."""

from __future__ import annotations

import pytest

from otel_metadata.environment import our_share, span_attribute_limit


@pytest.mark.parametrize(
    ("variables", "limit"),
    [
        ({}, 128),
        ({"OTEL_ATTRIBUTE_COUNT_LIMIT": "64"}, 64),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "32", "OTEL_ATTRIBUTE_COUNT_LIMIT": "64"}, 32),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, 128),
    ],
)
def test_the_attribute_limit_is_the_environments(monkeypatch, variables, limit):
    """The span's own variable wins over the general one; without either it is OpenTelemetry's 128."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert span_attribute_limit() == limit


def test_our_share_is_a_quarter():
    """Ours may be a quarter of a span's attributes; without a limit there is none."""
    assert (our_share(128), our_share(None)) == (32, None)
