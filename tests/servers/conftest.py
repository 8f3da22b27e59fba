"""One real server for all tests of a run; skipped unless OTEL_METADATA_TEST_BACKENDS is set."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.servers.servers import Phoenix

VARIABLE = "OTEL_METADATA_TEST_BACKENDS"


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    """A Phoenix that runs."""
    if not os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} is not set; `make test-backends` sets it, and builds the server's environment")
    server = Phoenix(tmp_path_factory.mktemp("phoenix"))
    server.start()
    try:
        yield server
    finally:
        server.stop()
