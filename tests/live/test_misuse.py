"""Calls inside a request that do not fit: nothing is raised, the rest holds, and the receipt and the log say it."""

from __future__ import annotations

import inspect
import itertools

import pytest
from opentelemetry.trace import SpanKind
from tests.strategies import Raises

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
            (lambda: om.score_span(REF), "a name was expected"),
            (lambda: om.score_current_span(score=1), "a name was expected"),
            (lambda: om.annotate_span(REF, label="good"), "a name was expected"),
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

    def test_using_metadata_without_parentheses_raises_where_it_is_written(self):
        """A decorator without its metadata is misuse at decoration."""
        with pytest.raises(ConfigurationError, match=r"@using_metadata\(\{\.\.\.\}\)"):
            om.using_metadata(lambda: None)

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

    def test_flush_of_what_is_no_time(self, scene):
        """A time that is none is the default."""
        assert om.flush("x") in {True, False}
