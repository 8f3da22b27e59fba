"""The lines that point an SDK at a server."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from otel_metadata.errors import ConfigurationError
from otel_metadata.server.sdk_settings import NAMES, settings_of


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_one_variable(name):
    """At least one has an address of the server, and one has the key, whose place a token can take."""
    lines = settings_of(name, "http://127.0.0.1:4318", "http://127.0.0.1:4317")
    assert all(line.partition("=")[0].isupper() for line in lines)
    assert any("127.0.0.1:431" in line for line in lines)
    assert any(re.search(r"(KEY|TOKEN|HEADERS)=(.*%20)?local$", line) for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_an_address_of_ipv6_is_in_brackets(name):
    """Each address is one that its reader can take apart."""
    lines = settings_of(name, "http://[::1]:4318/", "http://[::1]:4317")
    (address, *_) = (value for line in lines if "//" in (value := line.partition("=")[2]))
    assert (urlsplit(address).hostname, urlsplit(address).port) in {("::1", 4318), ("::1", 4317)}


def test_a_server_with_tls_is_reached_with_tls():
    lines = settings_of("otel-metadata", "https://host", "http://host:4317")
    assert "OTEL_PYTHON_METADATA_DESTINATIONS=serves://host" in lines


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match="langfuse, langwatch, galileo"):
        settings_of("jaeger", "http://127.0.0.1:4318", "http://127.0.0.1:4317")
