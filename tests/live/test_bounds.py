"""What is set on live spans is bounded in bytes, for all of them together; what is beyond is lost, and counted."""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
from dataclasses import replace

import pytest
from opentelemetry import trace
from tests.delivery.conftest import Scene

import otel_metadata as om
from otel_metadata.live import live_settings as settings
from otel_metadata.live import values
from otel_metadata.live.registry import MAX_LOG, REGISTRY
from otel_metadata.live.values import MAX_KNOWN_KEYS
from otel_metadata.model.weight import SHARED_NAMES

KIB = 1_024


@pytest.fixture
def live(monkeypatch):
    """A scene whose live spans have 64 KiB, for it alone: a span that an earlier test left open counts as well."""
    gc.collect()
    monkeypatch.setattr(REGISTRY, "bytes", 0)
    scene = Scene()
    monkeypatch.setattr(settings, "in_force", replace(settings.in_force, max_bytes=64 * KIB, tracer=scene.tracer))
    yield scene
    assert REGISTRY.bytes >= 0


def opened(scene):
    """Open a span, and make it nobody's current one."""
    return scene.tracer.start_span("span")


def update(span, **fields):
    """Update a span as its current one."""
    with trace.use_span(span):
        return om.update_current_span(**fields)


def test_an_update_beyond_the_bound_is_lost_as_buffer_full(live):
    """The oldest values stay, the update that has no room is dropped and counted, and the balance holds."""
    spans = [opened(live) for _ in range(9)]
    receipts = [update(span, output="x" * 8_000) for span in spans]
    assert [bool(receipt) for receipt in receipts] == [True] * 7 + [False] * 2
    assert (receipts[-1].route, receipts[-1].reason) == ("dropped", "buffer_full")
    assert om.outcome(receipts[-1]).destinations["memory"].reason == "buffer_full"
    assert (live.stats.accepted, live.stats.live, live.lost) == (9, 7, {"buffer_full": 2})
    assert live.stats.is_balanced
    assert live.processor.stats().live_bytes == REGISTRY.bytes <= 64 * KIB
    assert "output.value" not in spans[-1].attributes
    for span in spans:
        span.end()
    assert (live.stats.in_flight, REGISTRY.bytes) == (7, 0)
    assert live.stats.is_balanced


@pytest.mark.parametrize("value", ["x" * 6_000, [[] for _ in range(100)], 7], ids=["text", "container", "number"])
def test_frequent_updates_are_bounded_too(live, value):
    """The bound holds for the path of a few native values as well, whatever is set."""
    span, receipts = opened(live), []
    for n in range(700):
        receipts.append(update(span, metadata={f"key{n % 600}": value}))
        assert REGISTRY.bytes <= 64 * KIB
    assert not all(receipts)
    assert live.lost == {"buffer_full": sum(not receipt for receipt in receipts)}
    assert live.stats.is_balanced
    span.end()
    assert (live.stats.live, REGISTRY.bytes) == (0, 0)


def test_a_value_that_is_replaced_takes_its_room_once(live):
    """A counter or a text that is set again and again takes the room of one, by either path."""
    span = opened(live)
    for n in range(1_000):
        assert update(span, metadata={"count": n, "state": f"{n % 10}" * 100})
        assert update(span, output=f"{n:04}" * 1_000)
    assert 4_000 < REGISTRY.bytes < 8_000 + 32 * 600
    span.end()
    assert (live.stats.is_balanced, REGISTRY.bytes) == (True, 0)


def test_a_smaller_value_fits_when_nothing_else_does(live):
    """In full room a value that is replaced by a smaller one is taken."""
    span = opened(live)
    assert update(span, output="x" * 60_000)
    assert not update(opened(live), input="y" * 9_000)
    assert update(span, output="z")
    assert update(opened(live), input="y" * 9_000)


def test_an_abandoned_span_gives_its_room_back(live):
    """A span that nobody ends gives its bytes back when it is collected."""
    span = opened(live)
    assert update(span, output="x" * 9_000)
    assert REGISTRY.bytes > 9_000
    del span
    gc.collect()
    assert (live.lost, REGISTRY.bytes) == ({"target_not_exported": 1}, 0)


def test_a_span_that_outlives_the_pipeline_gives_its_room_back(live):
    """At a shutdown the live spans give their bytes back, and not once more when they end."""
    span = opened(live)
    assert update(span, output="x" * 9_000)
    live.processor.shutdown()
    assert REGISTRY.bytes == 0
    span.end()
    assert (REGISTRY.bytes, live.stats.is_balanced) == (0, True)


def test_options_of_a_span_are_bounded_too(live):
    """What a span is started with takes room as well; without room it starts without it."""
    handles = [om.start_span("span", metadata={"text": "x" * 9_000}) for _ in range(9)]
    for handle in handles:
        handle.__enter__()
    assert 50_000 < REGISTRY.bytes <= 64 * KIB
    for handle in reversed(handles):
        handle.__exit__(None, None, None)
    assert (live.stats.is_balanced, REGISTRY.bytes) == (True, 0)


def test_metadata_of_a_context_is_held_once(live):
    """What many spans have of one block takes the room of a place on each of them, not of its text."""
    with om.using_metadata({"text": "x" * 9_000}):
        spans = [opened(live) for _ in range(40)]
    assert 0 < REGISTRY.bytes < 40_000
    assert all(update(span, metadata={"text": "y"}) for span in spans)
    for span in spans:
        span.end()
    assert (live.stats.is_balanced, REGISTRY.bytes) == (True, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_all_the_room(live):
    """A child counts nothing of its parent's live spans, and their ends there give nothing back."""
    span = opened(live)
    assert update(span, output="x" * 60_000)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own = opened(live)
            is_taken = REGISTRY.bytes == 0 and bool(update(own, output="x" * 60_000))
            span.end()
            own.end()
            code = 0 if is_taken and live.stats.is_balanced and REGISTRY.bytes == 0 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    span.end()
    assert (live.stats.is_balanced, REGISTRY.bytes) == (True, 0)


LIVE = {
    "one small": lambda n: [{f"k{n % 7}": n + 1_000}],
    "five small": lambda n: [{f"k{i}": n + 1_000 + i for i in range(5)}],
    "many updates": lambda n: [{f"k{i}": n + 1_000 + i} for i in range(MAX_LOG)],
    "many keys": lambda n: [{f"k{i}": n + 1_000 + i for i in range(200)}],
    "many keys, many updates": lambda n: [{f"k{i}": n + 1_000 + i} for i in range(90)],
    "a large container beside many keys": lambda n: [
        {f"k{i}": n for i in range(90)},
        {"rows": [{"id": n * i + 1_000, "name": f"{n} {i}"} for i in range(100)]},
    ],
    "a container again and again": lambda n: [{"k": [[n + i, m] for m in range(90)]} for i in range(5)],
    "text": lambda n: [{"k": f"{n}" * 900}],
    "list of texts": lambda n: [{"k": [f"{n}" * 900]}],
    "container of texts": lambda n: [{"k": {"a": f"{n}" * 900}}],
    "container of wide texts": lambda n: [{"k": {"a": f"日{n}日本語" * 300}}],
    "empty lists": lambda n: [{"k": [[] for _ in range(900)]}],
    "rows": lambda n: [{"k": [{"id": n * i + 1_000, "name": f"{n} {i}"} for i in range(100)]}],
}


@pytest.mark.parametrize("room", [MAX_KNOWN_KEYS, 0], ids=["keys are kept", "no room for keys"])
@pytest.mark.parametrize("make", LIVE.values(), ids=LIVE)
def test_what_is_live_weighs_what_it_takes(monkeypatch, make, room):
    """The bytes that are counted for live spans are within 1.5 of what their updates take.

    Also once a process has seen so many keys that no more are kept: then each field has a name of its own.
    """
    weighs_what_it_takes(monkeypatch, room, lambda n: [update_with(metadata=metadata) for metadata in make(n)])


def update_with(**fields):
    return lambda: om.update_current_span(**fields)


def score(name, **parts):
    return lambda: om.score_current_span(name, **parts)


def annotate(name, **parts):
    return lambda: om.annotate_current_span(name, **parts)


SAID = {
    "one tag": lambda n: [update_with(tags=[f"{n:04}" * 60])],
    "one tag in emoji": lambda n: [update_with(tags=[f"{n}" + "\U0001f600" * 200])],
    "tags in emoji": lambda n: [update_with(tags=[f"{n} {i}" + "\U0001f600" * 200 for i in range(30)])],
    "explanations": lambda n: [score(f"q{i}", score=0.5, explanation=f"{n} {i}" * 900) for i in range(4)],
    "wide explanations": lambda n: [score(f"q{i}", explanation=f"日{n} {i}日本語" * 300) for i in range(4)],
    "texts of annotations": lambda n: [annotate(f"q{i}", text=f"{n} {i}" * 900) for i in range(4)],
    "long names of scores": lambda n: [score(f"{n:04} {i}" * 40, score=0.5) for i in range(4)],
    "wide names of annotations": lambda n: [annotate(f"{n} {i}" + "日本語" * 60, score=0.5) for i in range(4)],
}


@pytest.mark.parametrize("case", SAID)
def test_what_is_said_of_a_live_span_weighs_what_it_takes(monkeypatch, case):
    """The same holds for tags, scores and annotations, whose texts are in names, and are shown as attributes."""
    if case == "one tag" and sys.version_info < (3, 11):
        pytest.skip("on CPython 3.10 the first tag of a span takes 1.7 times what is counted (docs/reliability.md)")
    make = SAID[case]
    weighs_what_it_takes(monkeypatch, MAX_KNOWN_KEYS, make)


# To CPython 3.10 the first values may cost each span a dict of its own, which depends on the spans before it.
FACTOR = 1.5 if sys.version_info >= (3, 11) else 1.7


def weighs_what_it_takes(monkeypatch, room, make):
    """Compare what is counted with what is taken, for updates that are made on each of 30 spans."""
    for known in (values._known_keys, values.KNOWN_METADATA_KEYS, SHARED_NAMES):
        for name in known.copy():
            monkeypatch.delitem(known, name)
    monkeypatch.setattr(values, "MAX_KNOWN_KEYS", room)
    scene = Scene()
    monkeypatch.setattr(settings, "in_force", replace(settings.in_force, max_bytes=1 << 40))
    spans = [opened(scene) for _ in range(110)]

    def run(numbers):
        for n in numbers:
            for one in make(n):
                with trace.use_span(spans[n]):
                    assert one()

    run(range(20))
    counted = true = 0
    # Again if it is not near: what happens to be allocated by the way is not allocated at each time.
    for start in (20, 50, 80):
        gc.collect()
        before = REGISTRY.bytes
        tracemalloc.start()
        try:
            first = tracemalloc.get_traced_memory()[0]
            run(range(start, start + 30))
            gc.collect()
            true = tracemalloc.get_traced_memory()[0] - first
        finally:
            tracemalloc.stop()
        counted = REGISTRY.bytes - before
        if true / FACTOR <= counted <= true * FACTOR:
            break
    for span in spans:
        span.end()
    assert scene.stats.is_balanced
    assert true / FACTOR <= counted <= true * FACTOR, (counted, true)
