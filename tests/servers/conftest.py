"""One real server for all tests of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.servers.servers import Phoenix


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    """A Phoenix that runs."""
    server = Phoenix(tmp_path_factory.mktemp("phoenix"))
    server.start()
    try:
        yield server
    finally:
        server.stop()
