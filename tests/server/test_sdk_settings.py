"""The lines that point an SDK at a server."""

from __future__ import annotations

import pytest

from otel_metadata.errors import ConfigurationError
from otel_metadata.server.sdk_settings import NAMES, settings_of


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_one_variable(name):
    """And at least one of them has an address of the server."""
    lines = settings_of(name, "http://127.0.0.1:4318", "http://127.0.0.1:4317")
    assert all(line.partition("=")[0].isupper() for line in lines)
    assert any("127.0.0.1:431" in line for line in lines)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match="langfuse, langwatch, galileo"):
        settings_of("jaeger", "http://127.0.0.1:4318", "http://127.0.0.1:4317")
