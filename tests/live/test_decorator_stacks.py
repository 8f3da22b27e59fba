"""Observed functions among other decorators, in pickles, and as streams: what runs is what was decorated."""

import asyncio
import contextlib
import functools
import pickle
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

import otel_metadata as om
from otel_metadata.live.registry import LOCK, REGISTRY
from otel_metadata.testing import InMemoryPipeline


@om.observe
def shout(text: str) -> str:
    return text.upper()


@om.using_metadata({"pool": 1})
def whisper(text: str) -> str:
    return text.lower()


class Speaker:
    @om.observe
    def speak(self, text: str) -> str:
        return text

    @om.observe
    @staticmethod
    def still(text: str) -> str:
        return text


class Wrapping:
    """Ordinary decorators that change what a function is."""

    @staticmethod
    def run_here(func):
        @functools.wraps(func)
        def wrapper(*args):
            return asyncio.run(func(*args))

        return wrapper

    @staticmethod
    def pass_through(func):
        @functools.wraps(func)
        def wrapper(*args):
            return func(*args)

        return wrapper

    @staticmethod
    def collect(func):
        @functools.wraps(func)
        def wrapper(*args):
            return list(func(*args))

        return wrapper

    @staticmethod
    def make_async(func):
        @functools.wraps(func)
        async def wrapper(*args):
            return func(*args)

        return wrapper


async def later(x):
    return x + 1


def numbers(x):
    yield x
    yield x + 1


@pytest.mark.parametrize("decorate", [om.observe, om.using_metadata({"a": 1})], ids=["observe", "using_metadata"])
class TestStacks:
    def test_a_context_manager_function_stays_one(self, metadata_pipeline, decorate):
        """What contextlib made of a generator function is still entered by with."""

        @decorate
        @contextlib.contextmanager
        def block():
            yield 5

        with block() as value:
            assert value == 5

    def test_a_coroutine_function_that_another_decorator_runs_gives_its_result(self, metadata_pipeline, decorate):
        """A synchronous wrapper of an async def returns the value, not a coroutine."""
        assert decorate(Wrapping.run_here(later))(6) == 7

    def test_a_generator_function_that_another_decorator_collects_gives_the_list(self, metadata_pipeline, decorate):
        """A wrapper that returns a list of a generator's values returns a list."""
        assert decorate(Wrapping.collect(numbers))(1) == [1, 2]

    def test_a_plain_function_that_another_decorator_made_async_is_awaited(self, metadata_pipeline, decorate):
        """An async wrapper of a plain function is awaited."""
        assert asyncio.run(decorate(Wrapping.make_async(lambda x: x * 2))(4)) == 8


def test_the_span_of_a_passed_on_coroutine_lasts_until_its_end(metadata_pipeline):
    """A plain wrapper that returns the coroutine of an async def has one span, with the coroutine's result."""
    seen = []

    async def body(x):
        seen.append(om.current_span_ref())
        return x * 2

    result = asyncio.run(om.observe(name="call")(Wrapping.pass_through(body))(4))

    metadata_pipeline.deliver()
    record = metadata_pipeline.record("call")
    assert (result, record.output, record.span_id) == (8, 8, seen[0].span_id_hex)


class TestPickles:
    @pytest.mark.parametrize(
        "func", [shout, whisper, Speaker().speak, Speaker.still], ids=["observed", "using", "bound", "static"]
    )
    def test_a_decorated_function_goes_through_a_pickle(self, func):
        """A process pool takes a decorated function as it takes the function."""
        assert pickle.loads(pickle.dumps(func))("Hi") == func("Hi")

    def test_a_function_comes_out_as_itself(self):
        """The name is pickled, as for every function."""
        assert pickle.loads(pickle.dumps(shout)) is shout


def test_a_streamed_answer_of_thousands_of_chunks_is_kept_whole(metadata_pipeline):
    """Small texts are bounded by their length together, not by their number."""

    @om.observe(name="stream")
    def stream():
        for _ in range(3_000):
            yield "word"

    assert len(list(stream())) == 3_000
    metadata_pipeline.deliver()
    assert metadata_pipeline.record("stream").output == "word" * 3_000


def test_start_span_gives_its_attributes_to_the_sampler():
    """Plain attributes of start_span are there from the start."""
    seen = []

    class Watch(Sampler):
        def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, links=None, **_):
            seen.append(dict(attributes or {}))
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)

        def get_description(self):
            return "watch"

    tracer = TracerProvider(sampler=Watch(), shutdown_on_exit=False).get_tracer("test")
    with om.start_span("s", attributes={"route": "/a"}, tracer=tracer):
        pass

    assert seen == [{"route": "/a"}]


def test_a_backend_id_stays_with_an_update_of_the_trace(metadata_pipeline):
    """An update of a trace by a ref that carries a backend's id hands the id on."""
    ref = om.SpanRef(7, 0).with_backend_id("galileo", "uuid")
    submitted = []
    submit = metadata_pipeline.processor.outboxes[0].submit
    metadata_pipeline.processor.outboxes[0].submit = lambda target, *rest: (
        submitted.append(target) or submit(target, *rest)
    )

    om.update_trace(ref, metadata={"a": 1})

    assert [dict(target.backend_ids) for target in submitted] == [{"galileo": "uuid"}]


def test_an_update_that_interrupts_the_reading_of_a_sidecar_is_not_overwritten(metadata_pipeline):
    """What a signal handler sets while a sidecar is merged is newer, and stands."""
    tracer = metadata_pipeline.provider.get_tracer("test")
    with tracer.start_as_current_span("span") as span:
        om.update_current_span(metadata={"a": 0})
        om.update_current_span(metadata={"a": 1})
        entry = REGISTRY.entries[span.get_span_context()[:2]]

        class Interrupted(list):
            is_done = False

            def __delitem__(self, index):
                super().__delitem__(index)
                if not self and not self.is_done:
                    self.is_done = True
                    om.update_current_span(metadata={"a": "newest"})

        entry.log = Interrupted(entry.log)
        with LOCK:
            assert entry.fields is not None

    metadata_pipeline.deliver()
    assert metadata_pipeline.record("span").metadata == {"a": "newest"}


def test_a_shutdown_while_a_span_ends_counts_each_update_once():
    """Of a span that ends while the pipeline shuts down, every update is counted exactly once."""
    pipeline = InMemoryPipeline()
    outbox = pipeline.processor.outboxes[0]
    arrive = outbox.arrive
    outbox.arrive = lambda entry: (arrive(entry), pipeline.processor.shutdown())
    with om.start_span("span") as span:
        span.update(metadata={"a": 1})

    stats = pipeline.stats().destinations["store"]
    assert (stats.accepted, stats.is_balanced) == (1, True)
    pipeline.close()


def test_shutdowns_that_race_with_ends_count_each_update_once():
    """Whichever comes first, an update is accepted once: 50 spans end on one thread while another shuts down."""
    for _ in range(20):
        pipeline = InMemoryPipeline()
        tracer = pipeline.provider.get_tracer("race")
        spans = [tracer.start_span(f"s{number}") for number in range(50)]
        for span in spans:
            om.update_span(span, metadata={"a": 1})
        start = threading.Barrier(2)

        def end(spans=spans, start=start):
            start.wait()
            for span in spans:
                span.end()

        thread = threading.Thread(target=end)
        thread.start()
        start.wait()
        pipeline.processor.shutdown()
        thread.join()
        stats = pipeline.stats().destinations["store"]
        assert (stats.accepted, stats.is_balanced) == (50, True), stats
        pipeline.close()


def test_an_evaluation_that_says_nothing_is_refused(metadata_pipeline):
    """A verdict without score, label and explanation sets nothing, and says so."""
    with metadata_pipeline.provider.get_tracer("test").start_as_current_span("span"):
        receipt = om.score_current_span("q", score="0.5")

    assert (bool(receipt), receipt.reason) == (False, "empty")
    assert any("score, label or explanation" in note for note in receipt.notes)


def test_a_span_ref_is_captured_as_its_traceparent(metadata_pipeline):
    """What a function returns to find its span again reads as the text that names it."""
    ref = om.observe(name="call")(om.current_span_ref)()

    metadata_pipeline.deliver()
    assert metadata_pipeline.record("call").output == ref.to_traceparent()
