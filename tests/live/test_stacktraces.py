"""An exception that leaves many spans, one around the other: what each of them shows, and what it costs."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import otel_metadata as om

LEFT_OUT = "Frames were left out here"


def recursive(kind: str, tracer: Any) -> Callable[[int], object]:
    """Return a function that calls itself *depth* times and raises, with a span for each call."""
    if kind == "function":

        @om.observe(tracer=tracer)
        def function(depth: int) -> object:
            if not depth:
                raise ValueError("the deepest")
            return function(depth - 1)

        return function
    if kind == "coroutine":

        @om.observe(tracer=tracer)
        async def coroutine(depth: int) -> object:
            if not depth:
                raise ValueError("the deepest")
            return await coroutine(depth - 1)

        return lambda depth: asyncio.run(coroutine(depth))
    if kind == "generator":

        @om.observe(tracer=tracer)
        def generator(depth: int) -> Any:
            if not depth:
                raise ValueError("the deepest")
            yield from generator(depth - 1)

        return lambda depth: list(generator(depth))
    if kind == "block":

        def block(depth: int) -> object:
            with om.start_span("block", tracer=tracer):
                if not depth:
                    raise ValueError("the deepest")
                return block(depth - 1)

        return block

    @om.observe(tracer=tracer)
    def wrapping(depth: int) -> object:
        if not depth:
            raise ValueError("the deepest")
        if kind == "cause":
            try:
                return wrapping(depth - 1)
            except Exception as error:
                raise RuntimeError(f"level {depth}") from error
        try:
            return wrapping(depth - 1)
        except Exception:
            raise RuntimeError(f"level {depth}")  # noqa: B904 # what is shown of it

    return wrapping


every_kind = pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "block", "cause", "context"])


def stacktraces(scene: Any, kind: str, depth: int) -> list[str]:
    """Return those of all spans, the innermost first."""
    scene.beside.spans.clear()
    with pytest.raises((ValueError, RuntimeError)):
        recursive(kind, scene.tracer)(depth)
    events = [event for span in scene.beside.spans for event in span.events]
    assert [event.name for event in events] == ["exception"] * (depth + 1)
    assert {frozenset(event.attributes) for event in events} == {frozenset(events[0].attributes)}
    return [str(event.attributes["exception.stacktrace"]) for event in events]


@every_kind
def test_the_cost_grows_with_the_depth_alone(scene, kind, monkeypatch):
    """Twice the levels are about twice the frames that are formatted; each span formatted all below it."""
    formatted = 0
    made = traceback.FrameSummary.__init__

    def counting(self, *args, **kwargs):
        nonlocal formatted
        formatted += 1
        made(self, *args, **kwargs)

    monkeypatch.setattr(traceback.FrameSummary, "__init__", counting)
    counts = []
    depth = 120 if kind == "block" else 60  # a block adds one frame
    for levels in (depth, 2 * depth):
        formatted = 0
        stacktraces(scene, kind, levels)
        counts.append(formatted)

    assert counts[1] < 2.5 * counts[0]


@every_kind
def test_a_span_shows_where_it_was_left_and_where_it_began(scene, kind):
    """The innermost has all; the outermost its own call and the first raise; no text is long."""
    texts = stacktraces(scene, kind, 120)

    assert LEFT_OUT not in texts[0]
    assert all("ValueError: the deepest" in text for text in texts)
    assert all("in test_a_span_shows" not in text for text in texts)
    assert all('raise ValueError("the deepest")' in text for text in texts)
    last_line = texts[-1].splitlines()[-1]
    assert last_line == ("RuntimeError: level 120" if kind in {"cause", "context"} else "ValueError: the deepest")
    assert texts[-1].startswith("Traceback (most recent call last):\n")
    assert max(map(len, texts)) < 40_000


@every_kind
def test_a_short_one_is_opentelemetrys(scene, kind):
    """Letter by letter."""
    scene.beside.spans.clear()
    with pytest.raises((ValueError, RuntimeError)), scene.tracer.start_as_current_span("plain"):
        recursive(kind, scene.tracer)(3)
    *ours, plain = (span.events[0].attributes for span in scene.beside.spans)

    assert LEFT_OUT not in f"{ours}"
    for name in ("exception.type", "exception.message", "exception.escaped"):
        assert ours[-1][name] == plain[name]
    assert plain["exception.stacktrace"].endswith(ours[-1]["exception.stacktrace"].splitlines()[-1] + "\n")


def test_a_deep_one_has_the_frames_that_opentelemetry_shows(scene):
    """In the same order, from the outermost on and up to the innermost."""
    function = recursive("function", scene.tracer)
    with pytest.raises(ValueError, match="deepest") as caught:
        function(60)
    shown = scene.beside.spans[-1].events[0].attributes["exception.stacktrace"]
    # The frame of this test is outside of the span.
    whole = traceback.format_tb(caught.value.__traceback__.tb_next)

    before, _, after = shown.partition(f"  [{LEFT_OUT}")
    assert "".join(whole).startswith(before.removeprefix("Traceback (most recent call last):\n")[:2_000])
    assert "".join([*whole, "ValueError: the deepest\n"]).endswith(after[-2_000:])


def test_the_first_span_that_sees_one_has_all_of_it(scene):
    """Also after others of the same type and message, whose memory it may have got."""

    def plain(depth: int) -> None:
        if not depth:
            raise ValueError("the deepest")
        (plain if depth % 2 else other)(depth - 1)

    def other(depth: int) -> None:
        plain(depth - 1)

    for _ in range(5):
        stacktraces(scene, "function", 60)
        scene.beside.spans.clear()
        with pytest.raises(ValueError, match="deepest"), om.start_span("outer", tracer=scene.tracer):
            plain(201)
        (span,) = scene.beside.spans
        text = span.events[0].attributes["exception.stacktrace"]
        assert LEFT_OUT not in text
        assert text.count("in plain") + text.count("in other") == 203 - 1


def test_nothing_is_kept_alive(scene):
    """Neither the exception nor what its frames hold."""

    class HeldError(Exception):
        pass

    def body() -> weakref.ref[HeldError]:
        error = HeldError("x")
        with pytest.raises(HeldError), om.start_span("outer", tracer=scene.tracer):
            raise error
        return weakref.ref(error)

    seen = body()
    gc.collect()
    assert seen() is None
