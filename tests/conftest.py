"""What holds for every test: nothing of ours is swallowed, nothing leaks into the next test, and the balance holds.

Hypothesis runs its `fast` profile unless HYPOTHESIS_PROFILE names another. What needs a vendor's own SDK, server or
engine, a browser, or a framework, is collected only where OTEL_METADATA_TEST_BACKENDS is set, as `make test-backends`
does, which builds their environments: some gigabytes that the other tests need not wait for.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import hypothesis
import pytest
from opentelemetry import context as otel_context

from otel_metadata import instrumentor, pipeline, settings
from otel_metadata.live import ended_provider, live_settings, routing
from otel_metadata.live.registry import MAX_ROOTS, REGISTRY
from otel_metadata.model.authors import AUTHORS, MAX_AUTHORS
from otel_metadata.model.recent import RecentMap
from otel_metadata.reporting import REPORTER
from otel_metadata.span_processor import MetadataSpanProcessor

# Examples run beside other work on a small machine, so none has a deadline of its own.
hypothesis.settings.register_profile("fast", max_examples=50, stateful_step_count=40, deadline=None)
hypothesis.settings.register_profile("brief", max_examples=15, stateful_step_count=30, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=2_000, stateful_step_count=80, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# What other tests have left of gRPC can hang a forked child that collects it. So a child leaves its parent's garbage.
os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)

NEEDS_MORE = [
    "browser",
    "clickhouse",
    "frameworks",
    "joined",
    "oracles",
    "sdks",
    "server/test_schemathesis.py",
    "servers",
    "workers",
]
collect_ignore = [] if os.environ.get("OTEL_METADATA_TEST_BACKENDS") else NEEDS_MORE


def pytest_report_header() -> str | None:
    """Say what is left out, so that no run looks like more than it is."""
    return (
        f"left out unless named, run by `make test-backends`: {', '.join(collect_ignore)}" if collect_ignore else None
    )


@pytest.fixture(autouse=True)
def isolation() -> Iterator[None]:
    """Start from an empty process; at the end shut down every processor of the test and assert its balance.

    The current context is as it was: what is left in it would change what the next tests see.

    Failures of our own code are raised again instead of being counted. A test about that counting sets
    `REPORTER.reraise = False` for itself.
    """
    made: list[MetadataSpanProcessor] = []
    add_router = routing.add_router

    def add_and_remember(router: routing.Router) -> None:
        add_router(router)
        if isinstance(router, MetadataSpanProcessor):
            made.append(router)

    with pytest.MonkeyPatch.context() as patch:
        for variable in [*(row.name for row in settings.VARIABLES), "OTEL_SDK_DISABLED"]:
            patch.delenv(variable, raising=False)
        patch.setattr(REPORTER, "reraise", True)
        patch.setattr(REPORTER, "internal_errors", 0)
        patch.setattr(REPORTER, "_told", {})
        patch.setattr(ended_provider, "_is_ended", False)
        patch.setattr(ended_provider, "_has_missed", False)
        patch.setattr(routing, "_routers", ())
        patch.setattr(routing, "_was_shut_down", False)
        patch.setattr(routing, "add_router", add_and_remember)
        patch.setattr(pipeline, "_pipeline", None)
        patch.setattr(pipeline, "_closed", ())
        patch.setattr(pipeline._TURNS, "made", {})
        patch.setattr(instrumentor, "_is_instrumented", False)
        patch.setattr(AUTHORS, "_names", RecentMap(MAX_AUTHORS))
        patch.setattr(AUTHORS, "_of_process", RecentMap(MAX_AUTHORS))
        patch.setattr(AUTHORS, "own", None)
        patch.setattr(REGISTRY, "entries", {})
        patch.setattr(REGISTRY, "inherited", frozenset())
        patch.setattr(REGISTRY, "_roots", RecentMap(MAX_ROOTS))
        before = live_settings.in_force
        live_settings.use(live_settings.LiveSettings())
        context = otel_context.get_current()
        yield
        live_settings.use(before)
        left = otel_context.get_current()
        if left != context:
            otel_context.attach(context)  # the next test starts as this one did
        assert left == context, "the test, or what it interrupted, left another current context than it found"
        for processor in made:
            assert_balanced(processor)
            processor.shutdown()
            assert_balanced(processor)


def assert_balanced(processor: MetadataSpanProcessor) -> None:
    """Assert that every accepted update is delivered, waits, or is lost with a reason: for each destination."""
    for name, counts in processor.stats().destinations.items():
        assert counts.is_balanced, f"{name}: {counts}"
