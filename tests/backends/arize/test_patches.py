"""Patches for Arize AX: the promises of every vendor's exporter, and the traps of its SDK.

The contract suite speaks HTTP and Arize's SDK does not, so its promises are made here, against the calls of the SDK.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from pyarrow import flight
from pyarrow.lib import ArrowInvalid, ArrowKeyError
from tests.backends.vendors.arize import PROJECT, SPACE, Arize, ArizeSpans
from tests.backends.vendors.server import KEY

import otel_metadata as om
from otel_metadata.backends import arize as backend
from otel_metadata.backends.arize.patches import ArizePatchExporter
from otel_metadata.backends.arize.rows import plan
from otel_metadata.backends.arize.sdk import MAX_LEFT, Calls, connect
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Field, FieldName, Json
from otel_metadata.model.outcome import Delivered, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import PatchExporter
from otel_metadata.testing import ManualClock

LONG = 30_000
AT = 1_700_000_000_000_000_000
SDK_LOGGER = logging.getLogger("arize")


def span_id(number: int) -> str:
    return f"{number:016x}"


def fields(*given: tuple[FieldName, Json]) -> dict[FieldName, Field]:
    return {name: (value, (AT + at, 7)) for at, (name, value) in enumerate(given)}


def patch(number: int = 1, /, **metadata: Json) -> Patch:
    """Return a patch of metadata for the span with a number."""
    given = metadata or {"k": number}
    return Patch(SpanRef(5, number), fields(*((("span", "metadata", key), value) for key, value in given.items())))


def verdicts(*given: Evaluation | Annotation, level: Any = "span", number: int = 1) -> Patch:
    """Return a patch of evaluations and annotations."""
    named: list[tuple[FieldName, Json]] = [
        ((level, "evaluation", one.name), one.to_json())
        if isinstance(one, Evaluation)
        else ((level, "annotation", annotation_key(one.name, one.annotator)), one.to_json())
        for one in given
    ]
    return Patch(SpanRef(5, number), fields(*named))


def wrapped(error: BaseException) -> BaseException:
    """Return *error* as the SDK raises it."""
    for text in ("Error logging arrow table to Arize", "Error during update request"):
        outer = RuntimeError(f"{text}: {error} {KEY}")
        outer.__cause__ = error
        error = outer
    return error


@pytest.fixture
def spans() -> ArizeSpans:
    return ArizeSpans()


@pytest.fixture
def exporter(spans: ArizeSpans) -> Iterator[ArizePatchExporter]:
    exporter = ArizePatchExporter(lambda: spans, space_id=SPACE, project=PROJECT)
    yield exporter
    exporter.shutdown()
    # No call of ours was one that the SDK refuses or silently cuts, whatever a test was about.
    assert (spans.refused, spans.dropped) == ([], [])


def known(spans: ArizeSpans, *patches: Patch) -> list[Patch]:
    for one in patches:
        spans.know(one.target.span_id_hex)
    return list(patches)


def raising(spans: ArizeSpans, error: BaseException) -> None:
    def fault(_call: str, _frame: Any) -> None:
        raise error

    spans.fault = fault


class TestContract:
    """What every patch exporter promises."""

    def test_it_has_what_an_outbox_reads(self, exporter):
        """Every attribute of the seam is there, of its type and in its range."""
        assert isinstance(exporter, PatchExporter)
        assert exporter.name == "arize"
        assert exporter.max_batch >= 1
        assert exporter.grace_millis >= 0
        assert exporter.reports_missing
        assert exporter.convergence == "ordered"

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_each_patch_has_one_outcome(self, spans, exporter, count):
        """As many outcomes as patches, all delivered where Arize knows the spans, by one call at most."""
        patches = known(spans, *(patch(number) for number in range(1, count + 1)))

        assert exporter.export(patches, timeout_millis=LONG) == [Delivered()] * count
        assert len(spans.calls) == min(count, 1)
        assert [spans.span(span_id(number))["metadata"] for number in range(1, count + 1)] == [
            {"k": number} for number in range(1, count + 1)
        ]

    def test_a_patch_may_come_again(self, spans, exporter):
        """The same patch twice is the same span, the date of an annotation included."""
        (one,) = known(spans, replace(patch(a=1), fields=patch(a=1).fields | verdicts(Annotation("q", "good")).fields))
        shown = []
        for _ in range(2):
            assert exporter.export([one], timeout_millis=LONG) == [Delivered()]
            shown.append(dict(spans.span(span_id(1))))

        assert shown[0] == shown[1]
        assert shown[0]["annotation.q.updated_at"] == AT // 1_000_000

    @pytest.mark.parametrize("make", [patch, lambda number: verdicts(Evaluation("e", 1.0), number=number)])
    def test_one_that_is_unknown_does_not_keep_the_others_back(self, spans, exporter, make):
        """Outcomes are in order: an unknown span is told as such, and taken when it is there."""
        known(spans, make(1), make(3))
        outcomes = exporter.export([make(1), make(2), make(3)], timeout_millis=LONG)
        assert [type(outcome) for outcome in outcomes] == [Delivered, Rejected, Delivered]
        assert outcomes[1].error.type == "segment_not_found"

        known(spans, make(2))
        assert exporter.export([make(2)], timeout_millis=LONG) == [Delivered()]

    @pytest.mark.parametrize(
        ("error", "kind", "type_"),
        [
            (flight.FlightUnavailableError("down"), Retry, "connection_failure"),
            (flight.FlightTimedOutError("slow"), Retry, "connection_failure"),
            (flight.FlightInternalError("bug"), Retry, "connection_failure"),
            (flight.FlightServerError("bug"), Retry, "connection_failure"),
            (flight.FlightUnauthenticatedError("who"), Pause, "unauthorized"),
            (flight.FlightUnauthorizedError("no"), Pause, "unauthorized"),
            (ArrowKeyError("no such scheme"), Pause, "backend_rejection"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
    )
    def test_an_answer_about_the_backend_is_asked_for_once(self, spans, exporter, error, kind, type_):
        """What Flight raises, wrapped as the SDK does, holds for the whole batch, which is not sent further."""
        raising(spans, wrapped(error))
        batch = [patch(1), verdicts(Evaluation("e", 1.0), number=2), verdicts(Annotation("a", "x"), number=3)]
        outcomes = exporter.export(batch, timeout_millis=LONG)

        assert [(type(outcome), outcome.error.type) for outcome in outcomes] == [(kind, type_)] * 3
        assert len(spans.calls) == 1
        assert KEY not in repr(outcomes)

    @pytest.mark.parametrize(
        "reply",
        [
            {},
            [],
            "ok",
            7,
            {"spans_processed": "1"},
            {"spans_updated": "many"},
            {"spans_updated": 0, "spans_failed": 0, "errors": []},
            {"spans_updated": None, "errors": "none"},
            {"spans_failed": "1"},
            {"errors": [{"span_id": "another", "error_message": "[type_conflict]"}]},
            {"records_updated": "0", "unmatched_ids": ["another"]},
        ],
        ids=repr,
    )
    def test_a_reply_that_accounts_for_nothing_is_not_believed(self, spans, exporter, reply):
        """A call that returns is no delivery: a row is counted as changed, or it is tried again."""
        spans.fault = lambda *_: reply
        for one in (patch(), verdicts(Evaluation("e", 1.0)), verdicts(Annotation("a", "x"))):
            (outcome,) = exporter.export([one], timeout_millis=LONG)
            assert isinstance(outcome, Retry)

    def test_counts_may_be_numbers_or_text(self, spans, exporter):
        """Protobuf's JSON form writes 64-bit integers as text; a later SDK may not."""
        for count in (1, "1"):
            spans.fault = lambda *_, count=count: {"spans_updated": count}
            assert exporter.export([patch()], timeout_millis=LONG) == [Delivered()]

    def test_a_call_that_hangs_is_left_in_time(self, spans, exporter):
        """The SDK waits for ever; the batch does not, nothing more of it is sent, and the next one gets through."""
        release = threading.Event()
        spans.fault = lambda *_: release.wait(LONG / 1_000) and None
        outcomes = exporter.export([patch(1), verdicts(Evaluation("e", 1.0), number=2)], timeout_millis=50)
        assert [type(outcome) for outcome in outcomes] == [Retry, Retry]
        assert len(spans.calls) == 1

        spans.fault = lambda *_: None
        known(spans, patch(3))
        assert exporter.export([patch(3)], timeout_millis=LONG) == [Delivered()]
        release.set()

    def test_calls_that_hang_are_few(self, spans, exporter):
        """Each that was left keeps a thread, so from a certain number on nothing is sent until one has ended."""
        release = threading.Event()
        spans.fault = lambda *_: release.wait(LONG / 1_000) and None
        for _ in range(MAX_LEFT + 3):
            (outcome,) = exporter.export([patch()], timeout_millis=20)
            assert isinstance(outcome, Retry)
        assert len(spans.calls) == MAX_LEFT

        release.set()
        for thread in list(exporter._calls._left):
            thread.join(LONG / 1_000)
        spans.fault = lambda *_: None
        known(spans, patch())
        assert exporter.export([patch()], timeout_millis=LONG) == [Delivered()]

    def test_when_the_time_is_over_the_rest_is_not_sent(self, spans):
        """The tables of one batch share its time."""
        clock = ManualClock()
        exporter = ArizePatchExporter(lambda: spans, space_id=SPACE, project=PROJECT, clock=clock)
        spans.fault = lambda *_: clock.advance(2_000)
        first, second = known(spans, patch(1), verdicts(Evaluation("e", 1.0), number=2))
        outcomes = exporter.export([first, second], timeout_millis=1_000)
        exporter.shutdown()

        assert [type(outcome) for outcome in outcomes] == [Delivered, Retry]
        assert len(spans.calls) == 1

    def test_nothing_is_said_of_a_call(self, spans, exporter, caplog, capfd):
        """No log line of the SDK's, nothing printed, no key anywhere; its logger is as before."""
        caplog.set_level(logging.DEBUG)
        SDK_LOGGER.setLevel(logging.INFO)
        try:
            for error in (None, wrapped(flight.FlightServerError(KEY)), ValueError(KEY), SystemError(KEY)):
                if error is not None:
                    raising(spans, error)
                assert KEY not in repr(exporter.export([patch()], timeout_millis=LONG))
            assert SDK_LOGGER.level == logging.INFO
        finally:
            SDK_LOGGER.setLevel(logging.NOTSET)
        assert caplog.text == ""
        assert capfd.readouterr() == ("", "")
        assert KEY not in repr(exporter) + repr(vars(exporter))

    def test_the_caller_s_context_goes_along(self, spans, exporter):
        """Instrumentation that is suppressed for a delivery is so on the thread of the SDK too."""
        seen: list[object] = []
        spans.fault = lambda *_: seen.append(otel_context.get_value("suppress"))
        token = otel_context.attach(otel_context.set_value("suppress", "yes"))
        exporter.export([patch()], timeout_millis=LONG)
        otel_context.detach(token)

        assert seen == ["yes"]

    def test_after_a_shutdown_nothing_is_sent(self, spans, exporter):
        """A late call is answered, without the SDK, and the thread has ended."""
        exporter.shutdown()
        (outcome,) = exporter.export([patch()], timeout_millis=LONG)
        assert isinstance(outcome, Retry)
        assert spans.calls == []
        assert exporter._calls._thread is None

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_forked_child_can_send(self, spans, exporter):
        """The thread of the SDK is there in a child too."""
        known(spans, patch(1))
        assert exporter.export([patch(1)], timeout_millis=LONG) == [Delivered()]
        child = os.fork()
        if child == 0:
            outcome = None
            with suppress(BaseException):
                (outcome,) = exporter.export([patch(1)], timeout_millis=LONG)
            os._exit(0 if outcome == Delivered() else 1)
        assert os.waitpid(child, 0)[1] == 0


class TestMetadata:
    def test_rows_with_other_keys_are_no_ragged_table(self, spans, exporter):
        """Patches with different keys go together as documents: nothing is NaN, and no key is set on another span."""
        first, second = known(spans, patch(1, a=1, b="x"), patch(2, c=0.5))
        assert exporter.export([first, second], timeout_millis=LONG) == [Delivered(), Delivered()]

        ((call, frame),) = spans.calls
        assert call == "update_metadata"
        assert sorted(frame.columns) == ["context.span_id", "patch_document"]
        assert list(frame["patch_document"]) == [{"a": 1, "b": "x"}, {"c": 0.5}]
        assert spans.span(span_id(1))["metadata"] == {"a": 1, "b": "x"}
        assert spans.span(span_id(2))["metadata"] == {"c": 0.5}

    def test_only_texts_numbers_and_nulls_are_sent(self, spans, exporter):
        """What Arize would turn into text, in a way that its pages do not agree on, is text before; each has a note."""
        (one,) = known(spans, patch(s="x", n=0, f=0.5, b=False, none=None, o={"a": [1]}, l=["a", "b"]))
        (outcome,) = exporter.export([one], timeout_millis=LONG)

        assert spans.span(span_id(1))["metadata"] == {
            "s": "x", "n": 0, "f": 0.5, "b": "false", "none": None, "o": '{"a":[1]}', "l": '["a","b"]',
        }  # fmt: skip
        assert outcome == Delivered(tuple(f"metadata.{key}: kept as the text of its JSON" for key in ("b", "o", "l")))

    def test_an_integer_stays_one(self, spans, exporter):
        """No value goes through a column, where pandas makes numbers of its own of it."""
        (one,) = known(spans, patch(n=2**63 - 1, one=1))
        exporter.export([one], timeout_millis=LONG)

        assert spans.span(span_id(1))["metadata"] == {"n": 2**63 - 1, "one": 1}
        assert {type(value) for value in spans.calls[0][1]["patch_document"][0].values()} == {int}

    def test_a_key_of_another_type_is_the_only_one_that_is_not_set(self, spans, exporter):
        """Arize refuses the whole document for one key; the others arrive, and the outcome names the one."""
        first, second = known(spans, patch(1, a=1, bad="x", c="y", d=4), patch(2, a=1))
        spans.span(span_id(1))["metadata"] = {"bad": 3}
        outcomes = exporter.export([first, second], timeout_millis=LONG)

        assert isinstance(outcomes[0], Rejected)
        assert outcomes[0].error.type == "type_conflict"
        assert outcomes[0].error.message.startswith("metadata.bad: ")
        assert outcomes[0].error.message.endswith("the rest of the patch arrived")
        assert outcomes[1] == Delivered()
        assert spans.span(span_id(1))["metadata"] == {"bad": 3, "a": 1, "c": "y", "d": 4}

    @pytest.mark.parametrize(
        ("tag", "expected"),
        [
            ("[parse_failure] x", "parse_failure"),
            ("[patch_failure] x", "patch_failure"),
            ("[type_conflict] x", "type_conflict"),
        ],
    )
    def test_the_errors_of_a_span_have_types(self, spans, exporter, tag, expected):
        """Each tag is an error type, and the server's words stay where they are."""
        spans.fault = lambda *_: {"spans_failed": "1", "errors": [{"span_id": span_id(1), "error_message": tag}]}
        (outcome,) = exporter.export([patch()], timeout_millis=LONG)
        assert (type(outcome), outcome.error.type) == (Rejected, expected)
        assert tag not in outcome.error.message

    @pytest.mark.parametrize("tag", ["[druid_rejection] x", "[something_new] x", "no tag"])
    def test_what_the_store_refuses_is_tried_three_times(self, spans, exporter, tag):
        """It may have been busy; then it is given up, and the next update of the key has three tries again."""
        spans.fault = lambda *_: {"spans_failed": "1", "errors": [{"span_id": span_id(1), "error_message": tag}]}
        outcomes = [exporter.export([patch()], timeout_millis=LONG)[0] for _ in range(6)]
        assert [type(outcome) for outcome in outcomes] == [Retry, Retry, Rejected] * 2
        assert {outcome.error.type for outcome in outcomes} == {"backend_rejection"}
        assert tag not in outcomes[0].error.message

    def test_a_store_that_arize_cannot_reach_is_tried_again(self, spans, exporter):
        """`connection_failure` is about Arize's own network; the other rows are delivered."""
        message = {"span_id": span_id(1), "error_message": "[connection_failure] x"}
        spans.fault = lambda *_: {"spans_updated": "1", "spans_failed": "1", "errors": [message]}
        outcomes = exporter.export([patch(1), patch(2)], timeout_millis=LONG)
        assert [type(outcome) for outcome in outcomes] == [Retry, Delivered]

    @pytest.mark.parametrize("error", [ValueError("Length of values"), wrapped(ArrowInvalid("x"))])
    def test_what_the_sdk_refuses_is_found_by_halves(self, spans, exporter, error):
        """One row that the SDK does not take refuses the whole table; only that row is given up, by its key."""
        patches = known(spans, *(patch(number, **{f"k{number}": number}) for number in range(1, 6)))

        def fault(_call: str, frame: Any) -> None:
            if any("k4" in document for document in frame["patch_document"]):
                raise error

        spans.fault = fault
        outcomes = exporter.export(patches, timeout_millis=LONG)

        assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered, Delivered, Rejected, Delivered]
        assert outcomes[3].error.message == "metadata.k4: the SDK does not take what was to be sent"

    def test_a_value_over_the_limit_is_not_sent(self, spans, exporter):
        """It is told by key and limit, counted as the SDK counts: a letter beyond ASCII is six characters."""
        (one,) = known(spans, patch(big="é" * 166_667, small=1))
        assert len("é" * 166_667) < 1_000_000
        assert exporter.export([one], timeout_millis=LONG) == [
            Delivered(("metadata.big: not sent, it is over Arize's limit of 1,000,000 characters of JSON",))
        ]
        assert spans.span(span_id(1))["metadata"] == {"small": 1}

    def test_a_patch_that_is_too_large_as_a_whole_is_rejected(self, spans, exporter):
        """Nothing of it can be sent, and nothing is."""
        (outcome,) = exporter.export([patch(big="x" * 1_000_001)], timeout_millis=LONG)
        assert (type(outcome), outcome.error.type) == (Rejected, "too_large")
        assert spans.calls == []

    def test_much_metadata_goes_in_several_documents(self, spans, exporter):
        """Values that are within the limit one by one all arrive, one document of a span at a time."""
        values = {f"k{number}": "x" * 400_000 for number in range(5)}
        (one,) = known(spans, patch(1, **values))
        assert exporter.export([one], timeout_millis=LONG) == [Delivered()]
        assert spans.span(span_id(1))["metadata"] == values
        assert [len(frame) for _, frame in spans.calls] == [1, 1, 1]

    def test_metadata_of_the_trace_goes_to_its_root(self, spans, exporter):
        """Arize has no store for a trace: the root span has it, unless it has a key of that name."""
        given = fields(
            (("trace", "metadata", "plan"), "gold"), (("span", "metadata", "k"), 1), (("trace", "metadata", "k"), 2)
        )
        (one,) = known(spans, Patch(SpanRef(5, 1), given))
        assert exporter.export([one], timeout_millis=LONG) == [
            Delivered(
                (
                    "trace metadata.plan: kept as metadata of the root span, in place of what that has under this key",
                    "trace metadata.k: not kept, the span itself has metadata of this name",
                )
            )
        ]
        assert spans.span(span_id(1))["metadata"] == {"plan": "gold", "k": 1}

    def test_a_trace_by_itself_is_unsupported(self, spans, exporter):
        """Without a root's span id there is nothing to change."""
        (outcome,) = exporter.export([replace(patch(), target=SpanRef(5, 0))], timeout_millis=LONG)
        assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")
        assert spans.calls == []


class TestOtherFields:
    GIVEN = (
        (("span", "tag", "secret"), True),
        (("trace", "user_id", ""), "u1"),
        (("span", "session_id", ""), "s1"),
        (("span", "input", ""), "hello"),
        (("span", "name", ""), "answer"),
        (("span", "attribute", "app.key"), 5),
    )

    def test_each_has_a_note(self, spans, exporter):
        """What Arize sets only with the span is named beside what was delivered; the text of a tag is not."""
        (one,) = known(spans, Patch(SpanRef(5, 1), {**fields(*self.GIVEN), **patch(k=1).fields}))
        (outcome,) = exporter.export([one], timeout_millis=LONG)
        assert outcome == Delivered(
            tuple(
                f"{path}: unsupported, Arize sets it only with the span"
                for path in ("tags", "trace user_id", "session_id", "input", "name", "attribute.app.key")
            )
        )
        assert "secret" not in repr(outcome)

    def test_a_patch_of_nothing_else_is_rejected(self, spans, exporter):
        """Nothing can be said, so nothing is pretended."""
        (outcome,) = exporter.export([Patch(SpanRef(5, 1), fields(*self.GIVEN))], timeout_millis=LONG)
        assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")
        assert spans.calls == []


class TestVerdicts:
    def test_tables_have_rows_of_the_same_columns(self, spans, exporter):
        """A row that lacks a column would say NaN there, so rows are sent by what they have; nothing is null."""
        patches = known(
            spans,
            verdicts(Evaluation("e", 1.0, "good"), number=1),
            verdicts(Evaluation("e", 0.0), number=2),
            verdicts(Evaluation("f", None, "bad", "why"), Evaluation("e", 0.5), number=3),
            verdicts(Evaluation("e", 0.25, "fair"), number=4),
        )
        assert exporter.export(patches, timeout_millis=LONG) == [Delivered()] * 4

        assert [len(frame) for _, frame in spans.calls] == [2, 1, 1]
        assert not any(frame.isnull().any(axis=None) for _, frame in spans.calls)
        assert spans.span(span_id(2)) == {"metadata": {}, "eval.e.score": 0.0}
        assert spans.span(span_id(3)) == {
            "metadata": {}, "eval.f.label": "bad", "eval.f.explanation": "why", "eval.e.score": 0.5,
        }  # fmt: skip

    def test_metadata_and_verdicts_of_a_patch_are_one_outcome(self, spans, exporter):
        """Three calls, and the patch is delivered when all of them were."""
        given = {**patch(k=1).fields, **verdicts(Evaluation("e", 1.0), Annotation("a", "x")).fields}
        (one,) = known(spans, Patch(SpanRef(5, 1), given))
        assert exporter.export([one], timeout_millis=LONG) == [Delivered()]
        assert [call for call, _ in spans.calls] == ["update_metadata", "update_evaluations", "update_annotations"]

        spans.fault = lambda call, _: {} if call == "update_annotations" else None
        (outcome,) = exporter.export([one], timeout_millis=LONG)
        assert isinstance(outcome, Retry)

    def test_an_unknown_span_outranks_what_is_refused(self, spans, exporter):
        """While one call does not know the span yet, the patch waits for it and is not given up for a key."""
        refused = {"span_id": span_id(1), "error_message": "[type_conflict] x"}
        spans.fault = lambda call, _: (
            {"spans_failed": "1", "errors": [refused]} if call == "update_metadata" else {"unmatched_ids": [span_id(1)]}
        )
        given = {**patch(k=1).fields, **verdicts(Evaluation("e", 1.0)).fields}
        (outcome,) = exporter.export([Patch(SpanRef(5, 1), given)], timeout_millis=LONG)
        assert (type(outcome), outcome.error.type) == (Rejected, "segment_not_found")

    def test_verdicts_that_the_sdk_refuses_are_named(self, spans, exporter):
        """A row of verdicts has no halves: it is rejected as a whole, by its columns."""
        raising(spans, ValueError("x"))
        (outcome,) = exporter.export([verdicts(Evaluation("e", 1.0), Evaluation("f", 1.0))], timeout_millis=LONG)
        assert (type(outcome), outcome.error.type) == (Rejected, "patch_failure")
        assert outcome.error.message.startswith("eval.e, eval.f: ")

    def test_a_name_becomes_one_that_is_not_dropped(self, spans, exporter):
        """The SDK drops a column with a dot or dash in its name and reports success; the name is changed, and told."""
        (one,) = known(spans, verdicts(Evaluation("my-eval.v2", 1.0)))
        assert exporter.export([one], timeout_millis=LONG) == [
            Delivered(
                ("evaluation.my-eval.v2: Arize allows letters, digits, blanks and _ in a name; it became 'my_eval_v2'",)
            )
        ]
        assert spans.span(span_id(1))["eval.my_eval_v2.score"] == 1.0

    @pytest.mark.parametrize(
        ("verdict", "expected", "note"),
        [
            (Evaluation("e", 1.0, "x" * 101), {"eval.e.score": 1.0}, "its label is not sent"),
            (Evaluation("e", 1.0, ""), {"eval.e.score": 1.0}, "its label is not sent"),
            (
                Evaluation("e", 1.0, None, "x" * 10_001),
                {"eval.e.score": 1.0, "eval.e.explanation": "x" * 10_000},
                "its explanation is cut at Arize's limit of 10000 characters",
            ),
            (Evaluation("e", 1.0, None, None, "llm"), {"eval.e.score": 1.0}, "its source is unsupported"),
            (Evaluation("e", 1.0, metadata={"m": 1}), {"eval.e.score": 1.0}, "its metadata is unsupported"),
        ],
    )
    def test_what_is_over_a_limit_or_has_no_place_is_told(self, spans, exporter, verdict, expected, note):
        """A part that the SDK would refuse is left out or cut; the rest arrives, and a note says so."""
        (one,) = known(spans, verdicts(verdict))
        (outcome,) = exporter.export([one], timeout_millis=LONG)
        assert isinstance(outcome, Delivered)
        (told,) = outcome.notes
        assert told.startswith(f"evaluation.e: {note}")
        assert spans.span(span_id(1)) == {"metadata": {}, **expected}

    @pytest.mark.parametrize(
        "verdict",
        [
            Evaluation("e", explanation="why"),
            Evaluation("e", label="x" * 101),
            Annotation("a"),
            Annotation("a", text=""),
        ],
    )
    def test_a_verdict_that_says_nothing_is_rejected(self, spans, exporter, verdict):
        """Without a label or score (or text) the SDK refuses the whole table, so it is not sent."""
        (outcome,) = exporter.export([verdicts(verdict)], timeout_millis=LONG)
        assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")
        assert spans.calls == []

    def test_a_verdict_of_a_person_is_an_annotation(self, spans, exporter):
        """Arize keeps what people say as annotations; the explanation is the text."""
        (one,) = known(spans, verdicts(Evaluation("e", 1.0, "good", "because", "human")))
        (outcome,) = exporter.export([one], timeout_millis=LONG)
        assert outcome == Delivered(("evaluation.e: kept as an annotation, as Arize does with what people say",))
        assert spans.span(span_id(1)) == {
            "metadata": {},
            "annotation.e.label": "good",
            "annotation.e.score": 1.0,
            "annotation.e.text": "because",
            "annotation.e.updated_by": "SDK",
            "annotation.e.updated_at": AT // 1_000_000,
        }

    def test_verdicts_of_the_trace_are_on_its_root(self, spans, exporter):
        """An evaluation of the trace has a column of its own; an annotation is one of the root span."""
        (one,) = known(spans, verdicts(Evaluation("e", 1.0), Annotation("a", "x", annotator="ann"), level="trace"))
        assert exporter.export([one], timeout_millis=LONG) == [
            Delivered(("trace annotation.a: kept on the root span",))
        ]
        assert spans.span(span_id(1)) == {
            "metadata": {},
            "trace_eval.e.score": 1.0,
            "annotation.a.label": "x",
            "annotation.a.updated_by": "ann",
            "annotation.a.updated_at": (AT + 1) // 1_000_000,
        }

    def test_of_two_annotators_the_later_one_stands(self, spans, exporter):
        """Arize keeps one annotation of a name; the other is told."""
        (one,) = known(
            spans, verdicts(Annotation("a", "x", 1.0, annotator="ann"), Annotation("a", "y", annotator="bob"))
        )
        (outcome,) = exporter.export([one], timeout_millis=LONG)
        assert outcome == Delivered(("annotation.a: replaced by a later one; Arize keeps one of a name",))
        found = spans.span(span_id(1))
        assert (found["annotation.a.label"], found["annotation.a.updated_by"]) == ("y", "bob")
        assert "annotation.a.score" not in found

    def test_a_clock_that_is_ahead_does_not_lose_an_annotation(self):
        """The SDK refuses a date in the future, so it is now."""
        (row,) = plan(verdicts(Annotation("a", "x")), 5).rows
        assert row.cells["annotation.a.updated_at"] == 5


class TestWithoutAClient:
    @pytest.mark.parametrize("module", [None, threading], ids=["missing", "another package of that name"])
    def test_the_extra_is_named(self, monkeypatch, module):
        """Without the SDK everything is kept, and the outcome says what to install."""
        monkeypatch.setitem(sys.modules, "arize", module)
        exporter = ArizePatchExporter(connect(KEY), space_id=SPACE, project=PROJECT)
        (outcome,) = exporter.export([patch()], timeout_millis=LONG)
        exporter.shutdown()
        assert isinstance(outcome, Pause)
        assert "otel-metadata[arize]" in outcome.error.message

    def test_an_sdk_that_lacks_a_call_is_told(self, monkeypatch):
        """One of another major may have the client and not its calls."""

        class Sdk:
            Region = str

            class ArizeClient:
                def __init__(self, api_key: str) -> None:
                    self.spans = object()

        monkeypatch.setitem(sys.modules, "arize", Sdk)
        exporter = ArizePatchExporter(connect(KEY), space_id=SPACE, project=PROJECT)
        (outcome,) = exporter.export([patch()], timeout_millis=LONG)
        exporter.shutdown()
        assert isinstance(outcome, Pause)
        assert "otel-metadata[arize]" in outcome.error.message

    def test_pandas_is_part_of_the_extra(self, monkeypatch, spans, exporter):
        """An SDK whose own dependencies are not there is no reason to give a patch up."""
        monkeypatch.setitem(sys.modules, "pandas", None)
        (outcome,) = exporter.export([patch()], timeout_millis=LONG)
        assert isinstance(outcome, Pause)
        assert "otel-metadata[arize]" in outcome.error.message

    def test_settings_that_the_sdk_refuses_are_a_pause(self, monkeypatch):
        """They come from variables that somebody has to change; nothing is given up for them."""

        class Sdk:
            Region = str

            class ArizeClient:
                def __init__(self, api_key: str) -> None:
                    raise ValueError(f"{api_key} and ARIZE_FLIGHT_PORT")

        monkeypatch.setitem(sys.modules, "arize", Sdk)
        exporter = ArizePatchExporter(connect(KEY), space_id=SPACE, project=PROJECT)
        (outcome,) = exporter.export([patch()], timeout_millis=LONG)
        exporter.shutdown()
        assert isinstance(outcome, Pause)
        assert "ValueError" in outcome.error.message
        assert KEY not in repr(outcome)

    def test_the_client_is_made_once(self, monkeypatch, spans):
        """With the key and region that were given."""
        made: list[dict[str, object]] = []

        class Sdk:
            Region = str

            class ArizeClient:
                def __init__(self, **given: object) -> None:
                    made.append(given)
                    self.spans = spans

        monkeypatch.setitem(sys.modules, "arize", Sdk)
        known(spans, patch(1))
        exporter = ArizePatchExporter(connect(KEY, "eu-west-1a"), space_id=SPACE, project=PROJECT)
        for _ in range(2):
            assert exporter.export([patch(1)], timeout_millis=LONG) == [Delivered()]
        exporter.shutdown()
        assert made == [{"api_key": KEY, "region": "eu-west-1a"}]


def test_what_a_call_raises_is_raised_where_it_is_waited_for():
    """The thread goes on after it, with the next call."""
    calls = Calls()

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        calls.run(fail, LONG)
    assert calls.run(lambda: 5, LONG) == 5
    calls.close(LONG)


VALUES: dict[str, Json] = {
    "s": "x", "n": 0, "f": 0.5, "b": False, "none": None, "o": {"a": [1]}, "l": ["a", "b"],
}  # fmt: skip


class TestEndToEnd:
    """An application, its spans over OTLP, and updates at each time of a span's life."""

    @pytest.fixture
    def arize(self) -> Iterator[Arize]:
        with Arize() as arize:
            yield arize

    @pytest.fixture
    def provider(self) -> TracerProvider:
        return TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)

    @pytest.fixture
    def pipeline(self, arize: Arize, provider: TracerProvider) -> Iterator[om.Pipeline]:
        destination = backend.destination(
            api_key=KEY, space_id=SPACE, project=PROJECT, endpoint=f"{arize.url}/v1", client=lambda: arize.spans
        )
        destination.patch_exporter.grace_millis = 0
        outcomes: list[Outcome] = []
        export = destination.patch_exporter.export

        def remembered(patches: Any, *, timeout_millis: int) -> Any:
            answers = export(patches, timeout_millis=timeout_millis)
            outcomes.extend(answers)
            return answers

        destination.patch_exporter.export = remembered  # type: ignore[method-assign]
        with om.configure(
            destination, tracer_provider=provider, outbox=replace(OutboxSettings(), schedule_delay_millis=3_600_000)
        ) as pipeline:
            pipeline.outcomes = outcomes  # type: ignore[attr-defined]
            yield pipeline

    def test_an_update_arrives_whenever_it_comes(self, arize, provider, pipeline):
        """Live and in flight as attributes of the span, late through the SDK, with a note for each that is changed."""
        tracer = provider.get_tracer("application")
        with tracer.start_as_current_span("live") as live:
            assert om.update_current_span(metadata=VALUES).route == "live"
        with tracer.start_as_current_span("in flight") as in_flight:
            pass
        assert om.update_span(in_flight, metadata=VALUES).route == "in_flight"
        with tracer.start_as_current_span("late") as late:
            om.update_current_span(metadata={"before": 1})
        assert pipeline.flush()
        assert om.update_span(late, metadata=VALUES).route == "late"
        assert pipeline.flush()

        def shown(span: Any) -> dict[str, Any]:
            return arize.spans.span(span_id(span.get_span_context().span_id))

        alike = {"s": "x", "n": 0, "f": 0.5, "b": "false", "none": None, "o": '{"a":[1]}', "l": '["a","b"]'}
        assert shown(live)["metadata"] == shown(in_flight)["metadata"] == alike
        assert shown(late)["metadata"] == {"before": 1, **alike}
        assert pipeline.outcomes == [
            Delivered(tuple(f"metadata.{key}: kept as the text of its JSON" for key in ("b", "l", "o")))
        ]
        assert pipeline.stats().destinations["arize"].notes == 3

    def test_a_key_has_one_type_whenever_it_is_set(self, arize, provider, pipeline):
        """A bool, a list and an object that were set live can be set again late: Arize refuses another type."""
        with provider.get_tracer("application").start_as_current_span("live") as span:
            om.update_current_span(metadata={"b": True, "o": {"a": 1}, "l": [1]})
        assert pipeline.flush()
        om.update_span(span, metadata={"b": False, "o": [2], "l": {}})
        assert pipeline.flush()
        stored = arize.spans.span(span_id(span.get_span_context().span_id))["metadata"]
        assert stored == {"b": "false", "o": "[2]", "l": "{}"}

    def test_what_is_said_of_the_trace_and_by_judges(self, arize, provider, pipeline):
        """User and tag leave with the root; an evaluation and an annotation are patches of it."""
        with provider.get_tracer("application").start_as_current_span("root") as root:
            om.update_current_trace(user_id="u1", tags=["beta"])
            om.score_current_span("Correctness", score=0.5, label="partly")
        om.annotate_span(root, "quality", label="good", annotator="ann")
        assert pipeline.flush()

        found = arize.spans.span(span_id(root.get_span_context().span_id))
        assert found["(name)"] == "root"
        assert found["user.id"] == "u1"
        assert found["trace.tags"] == ["beta"]
        assert (found["eval.Correctness.score"], found["eval.Correctness.label"]) == (0.5, "partly")
        assert (found["annotation.quality.label"], found["annotation.quality.updated_by"]) == ("good", "ann")
        assert pipeline.outcomes == [Delivered()]

        assert om.update_trace(root, user_id="u2", tags=["late"]).route == "late"
        pipeline.flush()
        assert [type(outcome) for outcome in pipeline.outcomes[1:]] == [Rejected]
        assert dict(pipeline.stats().destinations["arize"].lost) == {"unsupported": 1}

    def test_a_span_leaves_as_one_of_the_project(self, arize, provider, pipeline):
        """Its resource names the project, beside what it said before, with the headers that Arize wants."""
        with provider.get_tracer("application").start_as_current_span("root") as root:
            pass
        assert pipeline.flush()

        assert (SPACE, PROJECT, span_id(root.get_span_context().span_id)) in arize.spans.stored
        (request,) = arize.requests
        assert request.path == "/v1/traces"
        wanted = ("authorization", "arize-space-id", "arize-interface", "api_key", "space_id")
        assert [request.headers[name] for name in wanted] == [KEY, SPACE, "otel", KEY, SPACE]
