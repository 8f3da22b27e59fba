"""Which targets an update takes, and what its receipt says: where it went, or why nobody took it."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan

import otel_metadata as om
from otel_metadata.testing import InMemoryPipeline

TARGETS = {
    "an upper-case traceparent": lambda span: (
        om.SpanRef.from_span_context(span.get_span_context()).to_traceparent().upper()
    ),
    "SpanRef": lambda span: om.SpanRef.from_span_context(span.get_span_context()),
    "traceparent": lambda span: om.SpanRef.from_span_context(span.get_span_context()).to_traceparent(),
    "Span": lambda span: span,
    "SpanContext": lambda span: span.get_span_context(),
    "NonRecordingSpan": lambda span: NonRecordingSpan(span.get_span_context()),
    "what says its span context": lambda span: SimpleNamespace(get_span_context=span.get_span_context),
    "what has a context": lambda span: SimpleNamespace(context=span.get_span_context()),
    "what has a context of its own kind": lambda span: SimpleNamespace(context=ids(span)),
    "what has ids as numbers": lambda span: ids(span),
    "what has ids as text": lambda span: SimpleNamespace(**hex_ids(span)),
    "what has its trace's id and its own": lambda span: SimpleNamespace(
        trace_id=hex_ids(span)["trace_id"], id=hex_ids(span)["span_id"]
    ),
    "what has a span inside": lambda span: SimpleNamespace(_otel_span=span),
    "what has an ended span inside": lambda span: SimpleNamespace(
        trace_id="tr-" + hex_ids(span)["trace_id"], _span=SimpleNamespace(get_span_context=span.get_span_context)
    ),
    "what passes on what it is asked for": lambda span: PassingOn(span),
}


def ids(span):
    context = span.get_span_context()
    return SimpleNamespace(trace_id=context.trace_id, span_id=context.span_id)


def hex_ids(span):
    context = span.get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


class PassingOn:
    """As Logfire's span, which is none of OpenTelemetry's."""

    def __init__(self, span):
        self._span = span

    def __getattr__(self, name):
        return getattr(self._span, name)


CALLS = {
    "update_span": lambda target: om.update_span(target, metadata={"a": 1}),
    "update_trace": lambda target: om.update_trace(target, metadata={"a": 1}),
    "score_span": lambda target: om.score_span(target, "Quality", score=1),
    "score_span of the trace": lambda target: om.score_span(target, "Quality", score=1, level="trace"),
    "annotate_span": lambda target: om.annotate_span(target, "note", text="x"),
}

CURRENT_CALLS = {
    "update_current_span": lambda: om.update_current_span(metadata={"a": 1}),
    "update_current_trace": lambda: om.update_current_trace(metadata={"a": 1}),
    "score_current_span": lambda: om.score_current_span("Quality", score=1),
    "annotate_current_span": lambda: om.annotate_current_span("note", text="x"),
}


class BrokenRef:
    @property
    def ref(self):
        raise RuntimeError("no ref for you")


class BrokenSpan(NonRecordingSpan):
    def get_span_context(self):
        raise RuntimeError("no context for you")


class BrokenText(str):
    __slots__ = ()

    def strip(self, *_args):
        raise RuntimeError("no text for you")


class RefOfAnotherType:
    ref = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


WRONG = {
    "None": None,
    "a negative number": -5,
    "a number of too many bits": 1 << 128,
    "a truth value": True,
    "empty text": "",
    "another text": "xyz",
    "a trace id that is all zeros": "0" * 32,
    "a traceparent of zeros": "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
    "bytes": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "an invalid span": trace.INVALID_SPAN,
    "an invalid span context": trace.INVALID_SPAN_CONTEXT,
    "an object": object(),
    "a class": dict,
    "a list": [],
    "an object whose ref raises": BrokenRef(),
    "an object whose ref is a text": RefOfAnotherType(),
    "a span whose context raises": BrokenSpan(trace.INVALID_SPAN_CONTEXT),
    "a text that raises": BrokenText("xyz"),
    "a lone surrogate": "\ud800",
    "a mock": MagicMock(),
    "a span that was never entered": PassingOn(None),
    "what has no ids": SimpleNamespace(trace_id=None, span_id=None),
    "what has other ids": SimpleNamespace(trace_id="abc", id="def"),
    "what has ids that are too wide": SimpleNamespace(trace_id=1 << 128, span_id=1),
    "what has negative ids": SimpleNamespace(trace_id=-1, span_id=-1),
    "what has ids of hex digits with a prefix": SimpleNamespace(trace_id="0x" + "1" * 30, span_id="0x" + "1" * 14),
    "what has flags as ids": SimpleNamespace(trace_id=True, span_id=True),
}


class RecordOnly(Sampler):
    """Records every span and samples none."""

    def should_sample(self, parent_context: Context | None, trace_id: int, name: str, *_args, **_kwargs):
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        return "RecordOnly"


class TestTargets:
    @pytest.mark.parametrize("moment", ["live", "in_flight", "late"])
    @pytest.mark.parametrize("kind", TARGETS)
    def test_every_kind_of_target_is_taken_at_every_moment(self, scene, kind, moment):
        """A span of plain OpenTelemetry is updated by every form of its name, live, in flight and late."""
        span = scene.tracer.start_span("span")
        if moment != "live":
            span.end()
        if moment == "late":
            scene.deliver()
        receipts = [call(TARGETS[kind](span)) for call in CALLS.values()]
        span.end() if moment == "live" else None

        assert [receipt.route for receipt in receipts] == [moment] * len(CALLS)
        record = scene.record("span")
        assert (record.metadata, record.trace_metadata) == ({"a": 1}, {"a": 1})
        assert record.evaluations["Quality"].score == 1
        assert record.annotations[0].text == "x"

    def test_a_bare_trace_id_is_no_span(self, scene):
        """32 hex digits name a trace: update_span refuses them."""
        receipt = om.update_span("0af7651916cd43dd8448eb211c80319c", metadata={"a": 1})

        assert (bool(receipt), receipt.reason) == (False, "invalid_target")

    def test_white_space_around_a_traceparent_is_ignored(self, scene):
        """A traceparent that came out of a header line with spaces is understood."""
        span = scene.tracer.start_span("span")
        assert om.update_span(f" {TARGETS['traceparent'](span)}\n", metadata={"a": 1}).route == "live"
        span.end()

    def test_a_span_of_another_process_is_late(self, scene):
        """A traceparent of a span that nobody here has seen is taken as a patch."""
        receipt = om.update_span("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", metadata={"a": 1})

        assert receipt.route == "late"

    def test_an_unsampled_traceparent_is_refused(self, scene):
        """Flags 00 say that no backend has the span."""
        receipt = om.update_span("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", metadata={"a": 1})

        assert (bool(receipt), receipt.route, receipt.reason) == (False, "dropped", "unsampled")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_target_is_a_false_receipt_with_its_reason(scene, case, call):
    """What names no span is refused as invalid_target, and nothing raises."""
    receipt = CALLS[call](WRONG[case])

    assert (bool(receipt), receipt.route, receipt.reason) == (False, "dropped", "invalid_target")
    assert receipt.routes == {}
    assert scene.pipeline.stats().refused == {"invalid_target": 1}


@pytest.mark.parametrize("call", CALLS)
def test_none_is_never_taken_for_the_current_span(scene, call):
    """A target of None, a forgotten value, is refused inside a span as well, and nothing is set on that span."""
    with scene.tracer.start_as_current_span("span"):
        receipt = CALLS[call](None)

    assert (bool(receipt), receipt.reason) == (False, "invalid_target")
    assert dict(scene.ended("span").attributes) == {}


def test_a_level_that_is_none_sets_nothing(scene):
    """score_span with a misspelt level is a false receipt, or falls back with a note; nothing fails inside."""
    with scene.tracer.start_as_current_span("span"):
        receipt = om.score_span(om.current_span_ref(), "Quality", score=1, level="Trace")

    assert not receipt or receipt.notes
    assert set(scene.record("span").evaluations) <= {"Quality"}


@pytest.mark.parametrize("call", CURRENT_CALLS)
class TestNoTarget:
    def test_without_a_current_span_it_is_refused(self, scene, call):
        """No current span: a false receipt that says so."""
        receipt = CURRENT_CALLS[call]()

        assert (bool(receipt), receipt.reason) == (False, "no_current_span")
        assert scene.pipeline.stats().refused == {"no_current_span": 1}

    def test_the_log_says_it_once(self, scene, call, caplog):
        """Ten refusals in a row are one log line."""
        for _ in range(10):
            CURRENT_CALLS[call]()

        assert len([record for record in caplog.records if record.name == "otel_metadata"]) == 1

    @pytest.mark.parametrize("sampler", [ALWAYS_OFF, RecordOnly()], ids=["dropped", "recorded only"])
    def test_an_unsampled_span_is_refused(self, scene, call, sampler):
        """A span that never leaves refuses updates, also when it records."""
        tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("x")
        with tracer.start_as_current_span("span"):
            receipt = CURRENT_CALLS[call]()

        assert (bool(receipt), receipt.reason) == (False, "unsampled")

    def test_after_shutdown_it_is_refused(self, call):
        """When the pipeline is shut down, an update of a span that is still live is refused as after_shutdown."""
        pipeline = InMemoryPipeline()
        span = pipeline.provider.get_tracer("x").start_span("span")
        with trace.use_span(span, end_on_exit=True):
            before = CURRENT_CALLS[call]()
            pipeline.close()
            receipt = CURRENT_CALLS[call]()

        assert before.route == "live"
        assert (bool(receipt), receipt.reason) == (False, "after_shutdown")


class TestReceipt:
    def test_a_live_receipt(self, scene):
        """A live update is live for every destination, true, with a patch id and without notes."""
        with scene.tracer.start_as_current_span("span"):
            receipt = om.update_current_span(metadata={"a": 1})

        assert receipt
        assert {name: routed.route for name, routed in receipt.routes.items()} == {"store": "live", "second": "live"}
        assert (receipt.route, receipt.reason, receipt.notes) == ("live", None, ())
        assert len(receipt.patch_id) == 32
        assert int(receipt.patch_id, 16)

    def test_patch_ids_differ_and_rise(self, scene):
        """Each update has a patch id of its own, later ones higher."""
        with scene.tracer.start_as_current_span("span"):
            ids = [om.update_current_span(metadata={"a": number}).patch_id for number in range(10)]

        assert ids == sorted(set(ids))

    def test_notes_name_the_key_and_never_the_value(self, scene):
        """What the clean-up changed is told by key, without the value."""
        with scene.tracer.start_as_current_span("span"):
            receipt = om.update_current_span(metadata={"blob": b"\xff\x00secret", "size": 1 << 70})

        assert receipt
        assert any("metadata.blob" in note for note in receipt.notes)
        assert any("metadata.size" in note for note in receipt.notes)
        assert "secret" not in " ".join(receipt.notes)

    def test_an_empty_update_is_refused_as_empty(self, scene, caplog):
        """An update that sets nothing is false, reason empty, is not logged and not counted as refused."""
        with scene.tracer.start_as_current_span("span"):
            receipts = [om.update_current_span(), om.update_current_span(metadata={}), om.update_current_trace(tags=[])]

        assert [(bool(one), one.reason) for one in receipts] == [(False, "empty")] * 3
        assert caplog.records == []

    def test_a_refused_receipt(self, scene):
        """A refusal has no routes and a patch id of zeros."""
        receipt = om.update_span(None, metadata={"a": 1})

        assert (receipt.routes, receipt.patch_id) == ({}, "0" * 32)

    def test_an_ended_trace_takes_updates_in_flight(self, scene):
        """After every span of a trace has ended, its trace is updated where the root waits."""
        with scene.tracer.start_as_current_span("root") as root:
            pass

        assert om.update_trace(root, metadata={"a": 1}).route == "in_flight"
        assert scene.record("root").trace_metadata == {"a": 1}

    def test_the_repr_is_a_status_line(self, scene):
        """repr tells route and destinations."""
        with scene.tracer.start_as_current_span("span"):
            receipt = om.update_current_span(metadata={"a": 1})

        assert repr(receipt) == "<Receipt live [store: live, second: live]>"


class TestCurrentSpanRef:
    def test_it_names_the_current_span(self, scene):
        """The ref has the ids and the sampled flag of the current span, also a plain one."""
        with scene.tracer.start_as_current_span("span") as span:
            ref = om.current_span_ref()

        context = span.get_span_context()
        assert (ref.trace_id, ref.span_id, ref.sampled) == (context.trace_id, context.span_id, True)
        assert om.SpanRef.from_traceparent(ref.to_traceparent()) == ref

    def test_without_one_it_is_invalid_and_refused(self, scene):
        """Without a current span the ref is false, and updates of it are refused."""
        ref = om.current_span_ref()

        assert not ref
        assert om.update_span(ref, metadata={"a": 1}).reason == "invalid_target"

    def test_of_an_unsampled_span_it_says_so(self, scene):
        """An unsampled span's ref has the flag, and updates of it are refused as unsampled."""
        tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("x")
        with tracer.start_as_current_span("span"):
            ref = om.current_span_ref()

        assert not ref.sampled
        assert om.update_span(ref, metadata={"a": 1}).reason == "unsampled"


class TestRecordOnly:
    """A span that records but is not sampled never leaves: nothing of ours is put on it."""

    @pytest.fixture
    def ended(self):
        return []

    @pytest.fixture
    def tracer(self, ended):
        class Watch(SpanProcessor):
            def on_end(self, span):
                ended.append(dict(span.attributes))

        provider = TracerProvider(sampler=RecordOnly(), shutdown_on_exit=False)
        provider.add_span_processor(Watch())
        return provider.get_tracer("x")

    def test_bound_metadata_is_not_set_on_the_current_span(self, scene, tracer, ended):
        """using_metadata leaves an unsampled current span alone."""
        with tracer.start_as_current_span("span"), om.using_metadata({"a": 1}):
            pass

        assert ended == [{}]

    def test_the_options_of_observe_are_not_set(self, scene, tracer, ended):
        """metadata= of observe is not set on an unsampled span."""
        om.observe(tracer=tracer, metadata={"a": 1})(lambda: None)()

        assert ended == [{}]

    def test_the_arguments_of_start_span_are_not_set(self, scene, tracer, ended):
        """metadata= and input= of start_span are not set on an unsampled span."""
        with om.start_span("span", tracer=tracer, metadata={"a": 1}, input="x"):
            pass

        assert ended == [{}]


class WithoutContext(NonRecordingSpan):
    """As MLflow's span that does nothing."""

    def get_span_context(self):
        return None


@pytest.mark.parametrize("call", CURRENT_CALLS)
def test_a_current_span_without_a_context_is_none(scene, call):
    """Another library may make such a span the current one; nothing of ours fails, and a span can be opened in it."""
    with trace.use_span(WithoutContext(trace.INVALID_SPAN_CONTEXT)):
        assert CURRENT_CALLS[call]().reason == "no_current_span"
        assert not om.current_span_ref()
        assert not om.update_span(trace.get_current_span(), metadata={"a": 1})
