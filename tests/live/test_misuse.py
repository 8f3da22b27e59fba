"""Calls inside a request that do not fit: nothing is raised, the rest holds, and the receipt and the log say it."""

from __future__ import annotations

import inspect
import itertools

import pytest
from opentelemetry.trace import SpanKind
from tests.strategies import OfHostileMeta, Raises

import otel_metadata as om
from otel_metadata.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("_as_in_production")

REF = om.SpanRef(1, 1)

CALLS = {
    "update_current_span": lambda handle: om.update_current_span,
    "update_current_trace": lambda handle: om.update_current_trace,
    "update_span": lambda handle: om.update_span,
    "update_trace": lambda handle: om.update_trace,
    "score_current_span": lambda handle: om.score_current_span,
    "score_span": lambda handle: om.score_span,
    "annotate_current_span": lambda handle: om.annotate_current_span,
    "annotate_span": lambda handle: om.annotate_span,
    "current_span_ref": lambda handle: om.current_span_ref,
    "start_span": lambda handle: om.start_span,
    "using_metadata": lambda handle: om.using_metadata,
    "capture_spans": lambda handle: om.capture_spans,
    "handle.update": lambda handle: handle.update,
    "handle.score": lambda handle: handle.score,
    "handle.annotate": lambda handle: handle.annotate,
}

WRONG = [None, 3, 0.5, "text", b"bytes", [1], {"a": 1}, {1: object()}, object(), len, int, ..., om.UNSET, REF]


def lines(caplog):
    """Return what we logged."""
    return [record.getMessage() for record in caplog.records if record.name == "otel_metadata"]


class TestNothingRaises:
    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
    def test_whatever_it_is_called_with(self, scene, name, value):
        """Missing, too many, unknown and wrong arguments, alone and together, of every call."""
        with om.start_span("span") as handle:
            call = CALLS[name](handle)
            parameters = inspect.signature(call).parameters.values()
            known = [one.name for one in parameters if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
            calls = [((), {}), ((value,), {}), ((value, value), {}), ((value,) * 5, {}), ((), {"bogus": value})]
            calls += [((), {one: value}) for one in known]
            calls += [((), dict.fromkeys(known, value)), ((), {**dict.fromkeys(known, value), "bogus": value})]
            calls += [((REF, "name"), {one: value}) for one in known]
            for args, kwargs in calls:
                try:
                    made = call(*args, **kwargs)
                except TypeError as error:
                    # The interpreter's own, for one argument that is given twice.
                    assert "multiple values" in str(error)  # noqa: PT017 # most calls raise nothing
                    continue
                except ConfigurationError:
                    assert (name, args[:1] or (kwargs.get("metadata"),)) in itertools.product(
                        ["using_metadata"], [(len,), (int,)]
                    )
                    continue
                if hasattr(made, "__enter__"):
                    with made, om.start_span("inside"):
                        pass

    @pytest.mark.parametrize("name", CALLS)
    def test_with_an_object_that_raises_wherever_it_is_touched(self, scene, name):
        """An argument is looked at by its type, never by code of its own."""
        with om.start_span("span") as handle:
            call = CALLS[name](handle)
            parameters = inspect.signature(call).parameters.values()
            for one in parameters:
                if one.kind is one.KEYWORD_ONLY or one.name in {"metadata", "match"}:
                    call(**{one.name: Raises()})
            call(Raises())
            call(bogus=Raises())


class TestUpdates:
    def test_an_argument_of_another_call_is_left_out_and_told(self, scene, caplog):
        """The known arguments hold; the receipt and one log line say where the other one belongs."""
        with om.start_span("span"):
            receipt = om.update_current_span(metadata={"a": 1}, user_id="u")
            om.update_current_span(metadata={"b": 2}, user_id="u")

        assert receipt
        assert receipt.notes == (
            "update_current_span: the unknown argument 'user_id' was left out; "
            "it belongs to update_current_trace, update_trace or using_metadata",
        )
        assert lines(caplog) == [f"{receipt.notes[0]}."]
        assert scene.record("span").metadata == {"a": 1, "b": 2}
        assert scene.record("span").user_id is None

    @pytest.mark.parametrize(
        ("call", "remedy"),
        [
            (lambda: om.update_current_span(metadta={"a": 1}), "did you mean metadata?"),
            (lambda: om.update_current_span({"a": 1}), "as in update_current_span(metadata={...})"),
            (lambda: om.update_span(REF, {"a": 1}), "as in update_span(metadata={...})"),
            (lambda: om.update_current_trace(status="error"), "it belongs to update_current_span or update_span"),
            (lambda: om.update_trace(REF, score=1), "it belongs to score_current_span or score_span"),
            (
                lambda: om.score_current_span("C", 0.5),
                "expected keywords, as in score_current_span(score=...)",
            ),
            (lambda: om.score_span(REF), "name: got None; expected a text"),
            (lambda: om.score_current_span(score=1), "name: got None; expected a text"),
            (lambda: om.annotate_span(REF, label="good"), "name: got None; expected a text"),
            (lambda: om.annotate_current_span(comment="x"), "expected one of name, label"),
            (lambda: om.score_span(REF, "C", text="x"), "it belongs to annotate_current_span or annotate_span"),
        ],
    )
    def test_a_call_that_sets_nothing_says_why_once(self, scene, caplog, call, remedy):
        """The receipt is false, `empty`; its note and one log line name the remedy."""
        with om.start_span("span"):
            receipt = call()

        assert (bool(receipt), receipt.reason) == (False, "empty")
        assert remedy in receipt.notes[0]
        assert len(lines(caplog)) == 1
        assert remedy in lines(caplog)[0]

    @pytest.mark.parametrize("call", [om.update_span, om.update_trace, om.score_span, om.annotate_span])
    def test_without_a_target_nothing_is_set(self, scene, call):
        """A call that lacks its target refuses; it does not take the current span instead."""
        with om.start_span("span"):
            receipt = call()

        assert (bool(receipt), receipt.reason) == (False, "invalid_target")

    def test_the_methods_of_a_handle_are_the_same(self, scene):
        """Misplaced arguments of a handle's methods are named, and the others hold."""
        with om.start_span("span") as handle:
            receipts = [
                handle.update(metadata={"a": 1}, session_id="s"),
                handle.score("C", score=1, text="x"),
                handle.annotate("q", label="l", source="human"),
            ]

        assert all(receipts)
        assert [len(receipt.notes) for receipt in receipts] == [1, 1, 1]
        record = scene.record("span")
        assert (record.metadata, record.evaluations["C"].score, record.annotations[0].label) == ({"a": 1}, 1, "l")

    def test_a_hostile_name_of_an_argument_stays_on_one_line(self, scene, caplog):
        """The name of an unknown argument may come from data: it is shortened and escaped."""
        with om.start_span("span"):
            receipt = om.update_current_span(**{"a\n" * 5_000: 1})

        assert len(receipt.notes[0]) < 400
        assert "\n" not in lines(caplog)[0]


STATUS = "expected 'ok', 'error', OpenTelemetry's StatusCode or Status, or an integer code; it was left out"
MAPPING = "expected a mapping with string keys; nothing of it was set"
TEXT = "expected a text; it was left out"
TARGET = "expected a SpanRef, a traceparent text, an OpenTelemetry span or a captured span"

# A call with one argument of the wrong type: the function, and what is said of the argument.
ONE_WRONG = [
    (lambda: om.update_current_span(status="bad"), "update_current_span", f"status: got 'bad'; {STATUS}"),
    (lambda: om.update_current_span(status=-1), "update_current_span", f"status: got -1; {STATUS}"),
    (lambda: om.update_span(REF, status=["error"]), "update_span", f"status: got list; {STATUS}"),
    (
        lambda: om.update_current_span(status="sk-1234567890"),
        "update_current_span",
        f"status: got another text; {STATUS}",
    ),
    (
        lambda: om.update_current_span(tags=5),
        "update_current_span",
        "tags: got int; expected an iterable of texts; nothing was set",
    ),
    (
        lambda: om.update_trace(REF, tags=5),
        "update_trace",
        "tags: got int; expected an iterable of texts; nothing was set",
    ),
    (
        lambda: om.update_current_span(tags={"a": 1}),
        "update_current_span",
        "tags: got dict; expected an iterable of texts; its keys were taken",
    ),
    (
        lambda: om.update_current_span(tags=["a", 5]),
        "update_current_span",
        "tags: got int among the texts; expected texts; it was left out",
    ),
    (lambda: om.update_current_span(metadata=5), "update_current_span", f"metadata: got int; {MAPPING}"),
    (lambda: om.update_current_trace(metadata="a"), "update_current_trace", f"metadata: got str; {MAPPING}"),
    (lambda: om.update_current_span(attributes=[1]), "update_current_span", f"attributes: got list; {MAPPING}"),
    (lambda: om.update_current_span(name=["a"]), "update_current_span", f"name: got list; {TEXT}"),
    (lambda: om.update_current_span(name=object()), "update_current_span", f"name: got object; {TEXT}"),
    (lambda: om.update_current_span(status_message={}), "update_current_span", f"status_message: got dict; {TEXT}"),
    (lambda: om.update_current_trace(user_id=int), "update_current_trace", f"user_id: got type; {TEXT}"),
    (lambda: om.update_trace(REF, session_id=[1]), "update_trace", f"session_id: got list; {TEXT}"),
    (
        lambda: om.score_current_span("C", score="0.5", label="x"),
        "score_current_span",
        "score: got str; expected a finite number; it was left out",
    ),
    (lambda: om.score_current_span("C", score=1, label=5), "score_current_span", f"label: got int; {TEXT}"),
    (lambda: om.score_span(REF, "C", score=1, explanation=[1]), "score_span", f"explanation: got list; {TEXT}"),
    (
        lambda: om.score_span(REF, "C", score=1, source="me"),
        "score_span",
        "source: got 'me'; expected 'code', 'llm' or 'human'; taken as 'code'",
    ),
    (
        lambda: om.score_span(REF, "C", score=1, metadata=5),
        "score_span",
        "metadata: got int; expected a mapping with string keys; it was left out",
    ),
    (
        lambda: om.score_span(REF, "C", score=1, level="banana"),
        "score_span",
        "level: got 'banana'; expected 'span' or 'trace'; nothing was set",
    ),
    (
        lambda: om.score_span(REF, "C", score=1, level=2),
        "score_span",
        "level: got 2; expected 'span' or 'trace'; nothing was set",
    ),
    (lambda: om.score_span(REF, 5, score=1), "score_span", "name: got int; expected a text; it became one"),
    (
        lambda: om.annotate_current_span("q", score="high"),
        "annotate_current_span",
        "score: got str; expected a finite number; it was left out",
    ),
    (lambda: om.annotate_span(REF, "q", text=5), "annotate_span", f"text: got int; {TEXT}"),
    (lambda: om.annotate_span(REF, "q", label="x", annotator=5), "annotate_span", f"annotator: got int; {TEXT}"),
    (lambda: om.update_span(5, metadata={"a": 1}), "update_span", f"target: got int; {TARGET}; nothing was set"),
    (lambda: om.update_span(None, metadata={"a": 1}), "update_span", f"target: got None; {TARGET}; nothing was set"),
    (
        lambda: om.annotate_span("C", 0.5),
        "annotate_span",
        f"target: got a text that names no span; {TARGET}; nothing was set",
    ),
    (
        lambda: om.update_trace("C", name="x"),
        "update_trace",
        f"target: got a text that names no span; {TARGET}, or a trace id; nothing was set",
    ),
    (
        lambda: om.update_span(om.SpanRef(0, 0, sampled=False), name="x"),
        "update_span",
        f"target: got an empty SpanRef: there was no span; {TARGET}; nothing was set",
    ),
    (lambda: om.start_span(5), "start_span", "name: got int; expected a text; the span is called 'span'"),
    (lambda: om.start_span("x", tags=5), "start_span", "tags: got int; expected an iterable of texts; nothing was set"),
    (lambda: om.start_span("x", metadata=5), "start_span", f"metadata: got int; {MAPPING}"),
    (
        lambda: om.start_span("x", kind="client"),
        "start_span",
        "kind: got 'client'; expected an opentelemetry.trace.SpanKind; taken as INTERNAL",
    ),
    (
        lambda: om.start_span("x", tracer=3),
        "start_span",
        "tracer: got int; expected an opentelemetry.trace.Tracer; the tracer of configure() was taken",
    ),
    (lambda: om.using_metadata(5), "using_metadata", f"metadata: got int; {MAPPING}"),
    (lambda: om.using_metadata(user_id=[1]), "using_metadata", f"user_id: got list; {TEXT}"),
    (
        lambda: om.capture_spans(match=3),
        "capture_spans",
        "match: got int; expected a function of a span; every span is captured",
    ),
    (lambda: om.flush("x"), "flush", "timeout_millis: got str; expected milliseconds, a number; 30000 was taken"),
    (lambda: om.outcome("x"), "outcome", "receipt: got str; expected a Receipt; the answer is unknown"),
]


class TestWrongTypes:
    @pytest.mark.parametrize(
        ("call", "function", "note"), ONE_WRONG, ids=[f"{one[1]}({one[2][:24]})" for one in ONE_WRONG]
    )
    def test_one_log_line_names_the_argument_what_was_got_and_what_was_expected(
        self, scene, caplog, call, function, note
    ):
        """Whoever looks at nothing but the log finds the call; the receipt has the same note."""
        with om.start_span("span"):
            made = call()

        assert lines(caplog) == [f"{function}: {note}."]
        if isinstance(made, om.Receipt):
            assert note in made.notes

    def test_the_rest_of_the_call_holds(self, scene):
        """What fits is set."""
        with om.start_span("span"):
            assert om.update_current_span(metadata={"a": 1}, tags=5, status="bad", name=["x"])

        record = scene.record("span")
        assert (record.metadata, record.tags, record.name) == ({"a": 1}, (), "span")

    def test_each_argument_has_a_line_of_its_own_a_minute(self, scene, caplog):
        """A second mistake in the same minute is told too; the first one again is only counted."""
        with om.start_span("span"):
            om.update_current_span(tags=5)
            om.update_current_span(status="bad")
            om.update_current_span(tags=5)

        assert [line.split(";")[0] for line in lines(caplog)] == [
            "update_current_span: tags: got int",
            "update_current_span: status: got 'bad'",
        ]

    def test_an_update_of_no_level_is_not_a_wrong_target(self, scene, caplog):
        """The receipt is `empty`, and the log says nothing of the target."""
        with om.start_span("span"):
            receipt = om.score_span(REF, "C", score=1, level="banana")

        assert (bool(receipt), receipt.reason) == (False, "empty")
        assert "target" not in caplog.text

    def test_unset_leaves_every_argument_alone(self, scene, caplog):
        """UNSET is the same as not given, for texts and tags too."""
        with om.start_span("span"):
            om.update_current_span(name=om.UNSET, tags=om.UNSET, status=om.UNSET, status_message=om.UNSET, output=1)
            om.score_current_span("C", score=1, label=om.UNSET)

        record = scene.record("span")
        assert (record.name, record.tags, record.status_message, record.evaluations["C"].label) == (
            "span",
            (),
            None,
            None,
        )
        assert lines(caplog) == []

    @pytest.mark.parametrize(
        "call",
        [
            lambda: om.update_span(om.UNSET, metadata={"a": 1}),
            lambda: om.update_trace(om.UNSET, metadata={"a": 1}),
            lambda: om.score_span(om.UNSET, "C", score=1),
            lambda: om.annotate_span(om.UNSET, "q", score=1),
        ],
    )
    def test_unset_as_a_target_is_not_the_current_span(self, scene, call):
        """A target that was not given names nothing, whatever span is current."""
        with om.start_span("span"):
            receipt = call()

        assert (bool(receipt), receipt.reason) == (False, "invalid_target")
        record = scene.record("span")
        assert (record.metadata, record.evaluations, record.annotations) == ({}, {}, ())

    def test_with_a_mask_in_force_no_given_word_is_logged(self, scene, use_settings, caplog):
        """The mask was not asked about it, so only its type is told."""
        use_settings(mask=lambda path, value: value)
        with om.start_span("span"):
            om.update_current_span(status="secret")

        assert "secret" not in caplog.text
        assert "status: got another text" in caplog.text

    def test_what_is_changed_of_the_values_of_a_span_that_starts_is_told(self, scene, caplog):
        """There is no receipt that could say it."""
        with om.start_span("span", metadata={"a": object()}):
            pass

        assert "start_span: metadata.a: became <object>" in lines(caplog)[0]


class TestOtherCalls:
    def test_start_span_takes_what_fits(self, scene, caplog):
        """A span starts with what is right of its arguments; one log line says what was left out."""
        with om.start_span(5, kind="client", tracer=3, as_type="typo", metadata={"a": 1}, user_id="u") as handle:
            assert handle.span.kind is SpanKind.INTERNAL

        assert scene.record("span").metadata == {"a": 1}
        (line,) = lines(caplog)
        assert "'user_id' was left out; it belongs to update_current_trace" in line
        assert line.endswith(" 4 more problems in this call.")

    def test_using_metadata_takes_what_fits(self, scene, caplog):
        """Values that are right reach the spans; the others are named."""
        with om.using_metadata({"a": 1}, user="u", tags=5), om.start_span("span"):
            pass

        assert scene.record("span").metadata == {"a": 1}
        assert any("did you mean user_id?" in line for line in lines(caplog))

    @pytest.mark.parametrize("get", [lambda: repr, lambda: OfHostileMeta, lambda: int, lambda: "".join, lambda: lines])
    def test_using_metadata_without_parentheses_raises_where_it_is_written(self, get):
        """A decorator without its metadata is misuse at decoration."""
        with pytest.raises(ConfigurationError, match=r"@using_metadata\(\{\.\.\.\}\)"):
            om.using_metadata(get())

    def test_a_filter_that_cannot_be_called_is_none(self, scene, caplog):
        """capture_spans with a wrong filter captures every span, and says so."""
        with om.capture_spans(match=3) as captured, om.start_span("span"):
            pass

        assert [span.name for span in captured.all] == ["span"]
        assert len(lines(caplog)) == 1

    @pytest.mark.parametrize(
        ("call", "line"),
        [
            (
                lambda: om.current_span_ref(1),
                "current_span_ref: 1 positional argument was left out; it takes no arguments.",
            ),
            (
                lambda: om.current_span_ref(span=1),
                "current_span_ref: the unknown argument 'span' was left out; it takes no arguments.",
            ),
            (
                lambda: om.capture_spans(None, 1, 2),
                "capture_spans: 2 positional arguments were left out; its only argument is match.",
            ),
            (
                lambda: om.capture_spans(bogus=1),
                "capture_spans: the unknown argument 'bogus' was left out; its only argument is match.",
            ),
            (
                lambda: om.using_metadata(None, "u", bogus=1),
                "using_metadata: 1 positional argument was left out; expected keywords, as in "
                "using_metadata(user_id=...). 1 more problem in this call.",
            ),
        ],
    )
    def test_the_line_says_what_the_call_takes(self, scene, caplog, call, line):
        """None, one or several arguments: in the words for that number."""
        with om.start_span("span"):
            call()

        assert lines(caplog) == [line]

    @pytest.mark.parametrize("call", [om.flush, om.shutdown, om.stats, om.outcome], ids=lambda call: call.__name__)
    def test_what_runs_outside_requests_raises_pythons_own_error(self, call):
        """An argument that they do not have is a TypeError, as of any function."""
        with pytest.raises(TypeError, match="bogus"):
            call(bogus=1)

    def test_flush_of_what_is_no_time(self, scene):
        """A time that is none is the default."""
        assert om.flush("x") in {True, False}
