"""What waits weighs what it takes: the counted bytes against `tracemalloc`, for values of every shape."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.trace import Link, SpanContext

import otel_metadata as om
from otel_metadata.live import live_settings as settings
from otel_metadata.live import values
from otel_metadata.live.registry import REGISTRY
from otel_metadata.model.merge import Json
from otel_metadata.model.weight import weigh_span, weigh_value

FACTOR = 1.5
SHAPES = 1_000
HISTORIES = 6


@pytest.fixture(autouse=True, scope="module")
def tracing():
    """Trace every allocation of these tests; what is there before is no matter of the collector meanwhile."""
    gc.collect()
    gc.freeze()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()
    gc.unfreeze()


def taken(make: Callable[[], object]) -> tuple[object, int]:
    """Return what *make* makes, and how many bytes that took."""
    gc.collect()  # which empties the interpreter's free lists as well
    before = tracemalloc.get_traced_memory()[0]
    made = make()
    gc.collect()
    return made, tracemalloc.get_traced_memory()[0] - before


def is_near(counted: float, true: float) -> bool:
    """Whether a count is within the factor of the truth."""
    return true / FACTOR <= counted <= true * FACTOR


def nearest(measure: Callable[[int], tuple[float, float]]) -> tuple[float, float]:
    """Return what was counted and what was taken: at the first time at which they are near, or at the last of three.

    What happens to be allocated meanwhile (a table of the process that grows, a thread that ends) is not allocated
    again at the next time. What is counted wrongly is wrong at each time.

    Args:
        measure: Takes the number of the time, from 0, and makes other objects at each time.
    """
    counted = true = 0.0
    for time in range(3):
        counted, true = measure(time)
        if is_near(counted, true):
            break
    return counted, true


# --- values ----------------------------------------------------------------------------------------------------------

TEXTS = ("", "a", "é", "plain ", "größer ", "日本語", "🙂🙃", "mixed 日 🙂 ")


def scalar(draw: random.Random) -> Json:
    """Draw a scalar; each call returns a new object, as parsing and computing do."""
    kind = draw.randrange(6)
    if kind == 0:
        return draw.choice((None, True, False))
    if kind == 1:
        return draw.choice((draw.randrange(-5, 257), draw.randrange(1 << 20), draw.randrange(1 << 62)))
    if kind == 2:
        return draw.random()
    return draw.choice(TEXTS) * draw.choice((2, 7, 40, 900))


def shape(draw: random.Random, depth: int = 0) -> Json:
    """Draw a value of any shape."""
    kind = draw.randrange(10) if depth < 5 else 0
    many = draw.choice((0, 1, 3, 9, 30, 200)) >> (2 * depth)
    if kind < 2:
        return scalar(draw)
    if kind == 2:
        one = scalar(draw)
        return [one] * many
    if kind == 3:
        return [draw.random() for _ in range(many)]
    if kind == 4:
        return [draw.randrange(1 << 40) for _ in range(many)]
    if kind == 5:
        return [draw.choice(TEXTS) * draw.randrange(9) for _ in range(many)]
    if kind == 6:
        columns = [f"column {n}" for n in range(draw.randrange(1, 6))]
        return [{column: scalar(draw) for column in columns} for _ in range(many)]
    if kind == 7:
        return [[] if draw.random() < 0.5 else {} for _ in range(many)]
    if kind == 8:
        return [shape(draw, depth + 1) for _ in range(many)]
    return {f"key {n}" * draw.choice((1, 1, 20)): shape(draw, depth + 1) for n in range(many)}


def test_values_of_every_shape_weigh_what_they_take():
    """The weight of each of 1,000 random values is within 1.5 of what ten copies of it take, each."""
    wrong = []
    for seed in range(SHAPES):

        def measure(_time, seed=seed):
            copies, true = taken(lambda: [shape(random.Random(seed)) for _ in range(10)])
            # The list of the copies, and what a draw leaves behind.
            return weigh_value(copies[0]), (true - 184) / 10

        counted, true = nearest(measure)
        if not (is_near(counted, true) or abs(counted - true) < 100):
            wrong.append((seed, counted, true, repr(shape(random.Random(seed)))[:100]))
    assert wrong == [], wrong


@pytest.mark.parametrize("part", [[], {}, [[]], [{}], "", None, 7, 1_000_000, 0.5, "é", "é" * 9], ids=repr)
@pytest.mark.parametrize("many", [1, 5, 2_000])
def test_containers_of_small_things_weigh_what_they_take(part, many):
    """A list of the same small thing is weighed by its objects, not by its text: a shared one takes its slot alone."""
    code = compile(repr(part), "part", "eval")

    def make() -> list[list[object]]:
        return [[eval(code) for _ in range(many)] for _ in range(4)]  # a new object each

    make()  # what the interpreter keeps of the first time is not the values'

    def measure(_time):
        copies, true = taken(make)
        return weigh_value(copies[0]), (true - 88) / 4

    counted, true = nearest(measure)
    assert is_near(counted, true) or abs(counted - true) < 100


def test_a_text_weighs_the_same_after_it_was_encoded():
    """What is taken off when a field is replaced is what was counted for it, also when it was sent meanwhile."""
    text = "".join(["日本語"] * 1_000)
    before = weigh_value([text])
    orjson.dumps(text)
    assert weigh_value([text]) == before


# --- what waits ------------------------------------------------------------------------------------------------------


def waiting(scene, call: Callable[[range], object], start: int, many: int) -> tuple[float, float]:
    """Return `nearest` of what *call* adds to what waits, for *many* numbers from *start* on."""

    def measure(time):
        before = scene.stats.buffered_bytes
        _, true = taken(lambda: call(range(start + many * time, start + many * (time + 1))))
        return scene.stats.buffered_bytes - before, true

    return nearest(measure)


UPDATES = {
    "one small": lambda n: {"k": n + 1_000},
    "five small": lambda n: {f"k{i}": n + 1_000 + i for i in range(5)},
    "twenty small": lambda n: {f"k{i}": n + 1_000 + i for i in range(20)},
    "text": lambda n: {"k": f"{n}" * 300},
    "wide text": lambda n: {"k": f"日{n}" * 300},
    "empty lists": lambda n: {"k": [[] for _ in range(300)]},
    "empty dicts": lambda n: {"k": [{} for _ in range(300)]},
    "floats": lambda n: {"k": [n + i / 7 for i in range(300)]},
    "rows": lambda n: {"k": [{"id": n * i + 1_000, "name": f"{n} {i}"} for i in range(100)]},
    "nested": lambda n: {"k": {"a": {"b": {"c": [n + 1_000, [n + 2_000]]}}}},
}


@pytest.mark.parametrize("make", UPDATES.values(), ids=UPDATES)
def test_patches_weigh_what_they_take(make_scene, make):
    """The bytes of patches that wait are within 1.5 of what they take."""
    scene = make_scene(max_bytes=1 << 40)
    first = make(0)

    def update(numbers):
        for number in numbers:
            om.update_span(om.SpanRef(1 << 90, number), metadata=make(number))
        scene.outbox.weigh_waiting()

    update(range(1, 50))  # what is remembered of keys, and what is made once
    counted, true = waiting(scene, update, 50, 200)
    assert is_near(counted, true), (first.keys(), counted, true)


def history(seed: int) -> list[dict[str, object]]:
    """Draw the metadata of the updates of one span; each call returns new objects."""
    draw = random.Random(seed)
    updates = []
    for _ in range(draw.choice((1, 1, 2, 5, 20, 40))):
        kind, key = draw.randrange(4), "key" * draw.choice((1, 1, 3, 10))
        metadata: dict[str, object] = {}
        for _ in range(draw.choice((1, 1, 2, 5, 8, 30, 100))):
            value = (draw.randrange(1 << 40), str(draw.random()) * 3, scalar(draw), shape(draw, 2))[kind]
            metadata[f"{key}{draw.randrange(200)}"] = value
        updates.append(metadata)
    return updates


@pytest.mark.parametrize("room", [4_096, 0], ids=["keys are kept", "no room for keys"])
@pytest.mark.parametrize("when", ["live", "in flight", "late"])
def test_any_history_of_a_span_weighs_what_it_takes(make_scene, unknown_keys, monkeypatch, when, room):
    """Whatever is set on a span, how often and under how many keys: what is counted is within 1.5 of what it takes."""
    monkeypatch.setattr(values, "MAX_KNOWN_KEYS", room)
    monkeypatch.setattr(settings, "in_force", replace(settings.in_force, max_bytes=1 << 40))
    scene = make_scene(max_bytes=1 << 40, max_queue_size=1_000, max_patches=10_000)
    wrong = []

    def measure(time, seed):
        spans = [scene.tracer.start_span("span") for _ in range(6)]
        refs = [om.SpanRef(1 << 90 | seed, 1 + 6 * time + number) for number in range(6)]
        if when == "in flight":
            refs = [om.SpanRef(*span.get_span_context()[:2]) for span in spans]
            for span in spans:
                span.end()
            scene.outbox.weigh_waiting()

        def update(numbers):
            for number in numbers:
                for metadata in history(seed):
                    if when == "live":
                        with trace.use_span(spans[number]):
                            assert om.update_current_span(metadata=metadata)
                    else:
                        assert om.update_span(refs[number], metadata=metadata)
            scene.outbox.weigh_waiting()

        update(range(2))
        before = REGISTRY.bytes + scene.stats.buffered_bytes
        _, true = taken(lambda: update(range(2, 6)))
        counted = REGISTRY.bytes + scene.stats.buffered_bytes - before
        for span in spans:
            span.end()
        return counted, true

    for seed in range(HISTORIES):
        counted, true = nearest(lambda time, seed=seed: measure(time, seed))
        if not is_near(counted, true):
            wrong.append((seed, counted, true))
    assert wrong == []


SPANS = {
    "bare": lambda n: {},
    "attributes": lambda n: {"attributes": {f"k{i}": f"{n} {i}" for i in range(20)}},
    "a large text": lambda n: {"attributes": {"k": f"{n}" * 5_000}},
    "lists": lambda n: {"attributes": {"k": [f"{n} {i}" for i in range(200)], "f": [i + n / 7 for i in range(200)]}},
    "links": lambda n: {"links": [Link(SpanContext(1 << 100 | n, 1 << 50 | n, False)) for _ in range(50)]},
    "events": lambda n: {"events": [(f"event {i}", None) for i in range(50)]},
    "events with attributes": lambda n: {"events": [("event", {"k": f"{n} {i}"}) for i in range(50)]},
}


@pytest.mark.parametrize("make", SPANS.values(), ids=SPANS)
def test_ended_spans_weigh_what_they_take(make):
    """The weight of an ended span is within 1.5 of what it takes: its attributes, events and links."""
    tracer = TracerProvider(shutdown_on_exit=False, span_limits=SpanLimits()).get_tracer("application")

    def span(number: int) -> ReadableSpan:
        given = make(number)
        events = given.pop("events", ())
        made = tracer.start_span("span", **given)
        for name, attributes in events:
            made.add_event(name, attributes)
        made.end()
        return made._readable_span()

    span(0)

    def measure(_time):
        spans, true = taken(lambda: [span(number) for number in range(1, 101)])
        return sum(map(weigh_span, spans)), true

    counted, true = nearest(measure)
    assert is_near(counted, true), (counted, true)


LIVE = {
    "a text": lambda n: {"output": f"{n}" * 9_000},
    "a wide text": lambda n: {"output": f"日{n}" * 9_000},
    "a container": lambda n: {"metadata": {"k": [f"{n} {i}" * 9 for i in range(300)]}},
    "empty lists": lambda n: {"metadata": {"k": [[] for _ in range(300)]}},
}


@pytest.mark.parametrize("make", LIVE.values(), ids=LIVE)
def test_what_was_set_live_weighs_what_it_takes_once_it_has_ended(make_scene, make):
    """A text that is both an attribute of the span and a field is counted once."""
    scene = make_scene(max_bytes=1 << 40, max_queue_size=1_000)

    def end(numbers):
        for number in numbers:
            with scene.tracer.start_as_current_span("span"):
                om.update_current_span(**make(number))
        scene.outbox.weigh_waiting()

    end(range(20))
    counted, true = waiting(scene, end, 20, 80)
    assert is_near(counted, true), (counted, true)


@om.observe
def answer(question):
    """Return what was asked."""
    return {"said": [question, question + "!"]}


def test_captured_texts_weigh_once(make_scene, monkeypatch):
    """Captured input and output are on the span as attributes: the same texts are not counted again."""
    scene = make_scene(max_bytes=1 << 40, max_queue_size=1_000)
    monkeypatch.setattr(settings, "in_force", settings.LiveSettings(tracer=scene.tracer))

    def end(numbers):
        for number in numbers:
            with scene.tracer.start_as_current_span("span"):
                answer(f"{number}" * 9_000)
        scene.outbox.weigh_waiting()

    end(range(20))
    counted, true = waiting(scene, end, 20, 40)
    assert is_near(counted, true), (counted, true)
