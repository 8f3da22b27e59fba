"""A call costs what it brings, not what the span has already: counted in steps of the interpreter."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

import otel_metadata as om
from otel_metadata.live.span_attributes import MAX_SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

BEFORE = 300
"""Calls before the first one that is counted; beyond every bound of what a span shows."""


@pytest.fixture
def foreign(scene):
    """A tracer whose provider does not carry our processor, with the SDK's usual limit."""
    return TracerProvider(shutdown_on_exit=False, span_limits=SpanLimits(max_span_attributes=128)).get_tracer("foreign")


def steps(call: Callable[[], object]) -> int:
    """Return how many lines of our own modules *call* runs: Python 3.12.1 tells of no single instruction."""
    counted = 0

    def count(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal counted
        if "otel_metadata" not in frame.f_globals.get("__name__", ""):
            return None
        counted += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(before)
    return counted


UPDATES = {
    "metadata": lambda span, n: span.update(metadata={f"k{n}": n}),
    "metadata that is JSON": lambda span, n: span.update(metadata={f"k{n}": {"n": n}}),
    "attributes": lambda span, n: span.update(attributes={f"k{n}": n}),
    "tags": lambda span, n: span.update(tags=[f"t{n}"]),
    "score": lambda span, n: span.score(f"e{n}", score=1.0),
    "annotation": lambda span, n: span.annotate(f"a{n}", label="good"),
    "trace metadata": lambda span, n: om.update_trace(span, metadata={f"k{n}": n}),
    "trace tags": lambda span, n: om.update_trace(span, tags=[f"t{n}"]),
}


class TestOneMoreUpdate:
    @pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
    def test_costs_the_same_on_a_span_that_has_ten_times_as_much(self, scene, use_settings, update):
        """After 3,000 updates the next one takes no more steps than after 300, whatever room the span has."""
        use_settings(max_attributes=1 << 30)
        with om.start_span("span") as span:
            for n in range(BEFORE):
                update(span, n)
            early = steps(lambda: [update(span, BEFORE + n) for n in range(40)])
            for n in range(BEFORE + 40, 10 * BEFORE):
                update(span, n)
            late = steps(lambda: [update(span, 10 * BEFORE + n) for n in range(40)])

        assert early
        assert late < early * 1.2

    def test_in_a_span_of_another_provider_lists_no_json_name_that_the_sdk_has_evicted(self, foreign):
        """The list of JSON names is no longer than the span's own limit of attributes."""
        with foreign.start_as_current_span("span") as span:
            for n in range(1_000):
                om.update_current_span(metadata={f"k{n}": None})

        listed = span.attributes["otel_metadata.json"]
        assert "metadata.k999" in listed
        assert len(listed) <= 128


class TestOneLargeCall:
    @pytest.mark.parametrize("kind", ["attributes", "metadata", "tags"])
    def test_costs_in_proportion_to_what_it_brings(self, scene, kind):
        """Twice as many attributes, keys or tags in one call take about twice as many steps, not four times."""

        def given(size: int) -> dict[str, object]:
            names = [f"{kind}{size}-{n}" for n in range(size)]
            return {kind: names if kind == "tags" else dict.fromkeys(names, 1)}

        def enter(size: int) -> int:
            values = given(size)
            return steps(lambda: om.start_span("span", **values).__enter__().__exit__(None, None, None))

        assert enter(2_000) < 2.5 * enter(1_000)

    def test_of_a_span_of_another_provider_costs_in_proportion_too(self, foreign):
        """4,000 tags and JSON values at once are compared with each other once."""
        with foreign.start_as_current_span("span"):
            small = steps(lambda: om.update_current_span(metadata={f"a{n}": None for n in range(500)}))
            large = steps(lambda: om.update_current_span(metadata={f"b{n}": None for n in range(1_000)}))

        assert large < 2.5 * small


class TestWhatASpanShows:
    def test_the_first_tags_are_shown_and_all_arrive(self, scene):
        """Other exporters see the first 128 tags; the destination has every one, in order."""
        tags = [f"t{n:04}" for n in range(3 * MAX_SHOWN)]
        with om.start_span("span") as span:
            for tag in tags:
                span.update(tags=[tag])
            span.update(tags=[tags[0], tags[-1]])

        assert scene.ended("span").attributes["tag.tags"] == tuple(tags[:MAX_SHOWN])
        assert scene.record("span").tags == tuple(tags)

    def test_each_level_has_its_own_room(self, scene):
        """Many tags of the span leave the trace's tags their room."""
        with om.start_span("span", tags=[f"t{n:04}" for n in range(2 * MAX_SHOWN)]) as span:
            om.update_trace(span, tags=["of the trace"])

        attributes = scene.ended("span").attributes
        assert len(attributes["tag.tags"]) == MAX_SHOWN
        assert attributes["trace.tags"] == ("of the trace",)

    def test_json_values_beyond_the_list_arrive_all_the_same(self, scene, use_settings):
        """A live span lists 128 JSON attributes; one that is shown is kept up to date, the others are not shown."""
        use_settings(max_attributes=1 << 30)
        with om.start_span("span") as span:
            for n in range(2 * MAX_SHOWN):
                span.update(metadata={f"k{n}": {"n": n}})
            span.update(metadata={"k0": {"n": "new"}})
            live = dict(span.span.attributes)

        assert len(live["otel_metadata.json"]) == MAX_SHOWN
        assert (live["metadata.k0"], "metadata.k0" in live["otel_metadata.json"]) == ('{"n":"new"}', True)
        assert f"metadata.k{MAX_SHOWN}" not in live
        expected = {f"k{n}": {"n": n} for n in range(2 * MAX_SHOWN)} | {"k0": {"n": "new"}}
        assert scene.record("span").metadata == expected

    def test_start_span_splits_native_values_from_the_others(self, scene):
        """Native attributes are there at the start; what is JSON is set beside them."""
        with om.start_span("span", attributes={"a": 1, "b": {"c": None}, "d": [1, 2]}):
            pass

        attributes = dict(scene.ended("span").attributes)
        assert attributes == {"a": 1, "b": '{"c":null}', "d": (1, 2), "otel_metadata.json": ("b",)}
