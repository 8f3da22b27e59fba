"""A spool in a directory of its own, which the tests open as often as they need."""

from __future__ import annotations

import pytest

from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import ManualClock


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "spool" / "spool.db")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def open_spool(path, clock):
    """Open the spool, as often as it is asked for; all are closed at the end."""
    opened = []

    def make(**changed) -> Spool:
        opened.append(Spool(SpoolSettings(path, **changed), clock=clock))
        return opened[-1]

    yield make
    for spool in opened:
        spool.close()
