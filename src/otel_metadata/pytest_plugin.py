"""Fixtures for applications that use otel_metadata; pytest finds them by the `pytest11` entry point.

Every pytest run in an environment with the package imports this module, so it imports nothing before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from otel_metadata.testing import InMemoryPipeline, ManualClock


@pytest.fixture
def metadata_pipeline() -> Iterator[InMemoryPipeline]:
    """A pipeline on a store in memory, without threads: see `otel_metadata.testing.InMemoryPipeline`."""
    from otel_metadata.testing import InMemoryPipeline  # see the module's docstring

    pipeline = InMemoryPipeline()
    yield pipeline
    pipeline.close()


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock that the test moves: see `otel_metadata.testing.ManualClock`."""
    from otel_metadata.testing import ManualClock  # see the module's docstring

    return ManualClock()
