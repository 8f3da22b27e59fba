"""What the arguments of an update may be: any iterable of tags, any mapping, any name of a trace, any status."""

from __future__ import annotations

import collections
import enum
import http
import itertools
import types
import uuid

import grpc
import numpy
import pytest
from opentelemetry.trace import Status, StatusCode

import otel_metadata as om


class Hostile:
    """What an application may pass by mistake: every look at it raises."""

    def __iter__(self):
        raise ValueError("no")

    def keys(self):
        raise ValueError("no")

    def __getitem__(self, key):
        raise ValueError("no")

    def __eq__(self, other):
        raise ValueError("no")

    __hash__ = None


async def endless():
    yield "a"


def broken(items):
    yield from items
    raise ValueError("no")


def interrupted():
    yield "a"
    raise KeyboardInterrupt


class Pairs(collections.abc.Mapping):
    """A mapping of somebody's own, one value of which cannot be read."""

    def __getitem__(self, key):
        if key == "broken":
            raise ValueError("no")
        return {"a": 1, "b": None}[key]

    def __iter__(self):
        return iter(["a", "broken", "b"])

    def __len__(self):
        return 3


def attributes_after(scene, *updates, **start):
    """Open a plain OpenTelemetry span, apply updates of the current span in it, return its live attributes."""
    with scene.tracer.start_as_current_span("span", **start):
        for update in updates:
            assert om.update_current_span(**update)
    return dict(scene.ended("span").attributes)


class TestTags:
    """Any iterable of texts is tags, wherever tags are taken."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: ["a", "b"],
            lambda: ("a", "b"),
            lambda: {"b", "a"},
            lambda: frozenset(("a", "b")),
            lambda: (tag for tag in "ab"),
            lambda: map(str, "ab"),
            lambda: filter(None, ["a", "", "b"]),
            lambda: {"a": 1, "b": 2}.keys(),
            lambda: {1: "a", 2: "b"}.values(),
            lambda: {"a": 1, "b": 2},
            lambda: types.MappingProxyType({"a": 1, "b": 2}),
            lambda: collections.deque("ab"),
            lambda: collections.OrderedDict.fromkeys("ab"),
            lambda: numpy.array(["a", "b"]),
            lambda: itertools.chain("a", "b"),
            lambda: broken(["a", "b"]),
            lambda: ["a", 5, None, "", [], "b"],
        ],
    )
    def test_every_place_takes_any_iterable(self, scene, make):
        """`observe`, `start_span`, `using_metadata`, and updates, each of which reads it once."""
        om.observe(tags=make(), name="observe")(lambda: None)()
        with om.start_span("start", tags=make()):
            pass
        with om.using_metadata(tags=make()), om.start_span("using"):
            pass
        with om.start_span("update") as span, om.start_span("current"):
            span.update(tags=make())
            om.update_current_span(tags=make())
            om.update_current_trace(tags=make())
        scene.deliver()
        span.update(tags=make())
        scene.deliver()

        assert {record.name: record.tags for record in scene.pipeline.records()} == dict.fromkeys(
            ("observe", "start", "using", "update", "current"), ("a", "b")
        )
        assert scene.record("update").trace_tags == ("a", "b")

    @pytest.mark.parametrize("text", ["one tag", b"one tag", bytearray(b"one tag"), enum.Enum("T", {"A": "one tag"}).A])
    def test_a_text_is_one_tag(self, scene, text):
        """Its letters are none, nor are its bytes."""
        attributes_after(scene, {"tags": text})

        assert scene.record("span").tags == ("one tag",)

    def test_an_iterable_without_end_is_cut(self, scene):
        """A thousand are read, and a note says so."""
        with scene.tracer.start_as_current_span("span"):
            receipt = om.update_current_span(tags=map(str, itertools.count()))

        assert len(scene.record("span").tags) == 1_000
        assert receipt.notes == ("tags: cut after 1000",)

    @pytest.mark.parametrize("tags", [Hostile(), broken([]), 5, object(), itertools.count(), endless()])
    def test_what_is_no_tags_leaves_the_rest_of_the_update_alone(self, scene, tags):
        """Nothing raises, and a note names the argument."""
        with scene.tracer.start_as_current_span("span"):
            receipt = om.update_current_span(tags=tags, metadata={"a": 1})

        assert receipt
        assert receipt.notes[0].startswith("tags: ")
        assert (scene.record("span").tags, scene.record("span").metadata) == ((), {"a": 1})

    def test_an_interrupt_while_reading_goes_on(self, scene):
        """It is the application's, as in any of its own loops."""
        with scene.tracer.start_as_current_span("span"), pytest.raises(KeyboardInterrupt):
            om.update_current_span(tags=interrupted())


class TestMappings:
    """Any mapping is metadata, and attributes."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: types.MappingProxyType({"a": 1, "b": None}),
            lambda: collections.ChainMap({"a": 1}, {"b": None}),
            lambda: collections.UserDict({"a": 1, "b": None}),
            lambda: collections.OrderedDict({"a": 1, "b": None}),
            Pairs,
        ],
    )
    def test_any_mapping_is_read(self, scene, make):
        """A value that cannot be read leaves the others alone."""
        with om.start_span("span", metadata=make()) as span:
            span.update(attributes=make())
            span.score("s", score=1, metadata=make())

        record = scene.record("span")
        assert record.metadata == record.evaluations["s"].metadata == {"a": 1, "b": None}
        assert record.attributes["a"] == 1

    @pytest.mark.parametrize("given", [Hostile(), 5, "text", ["a"], broken([("a", 1)])])
    def test_what_is_no_mapping_leaves_the_rest_alone(self, scene, given):
        """Nothing raises, and a note says what was expected."""
        with scene.tracer.start_as_current_span("span"):
            receipt = om.update_current_span(metadata=given, tags=["t"])

        assert receipt
        assert receipt.notes[-1].startswith("metadata: got ")
        assert receipt.notes[-1].endswith("; expected a mapping with string keys; nothing of it was set")
        assert (scene.record("span").metadata, scene.record("span").tags) == ({}, ("t",))


class TestTraceIds:
    @pytest.mark.parametrize("form", ["032x", "032X", " 032x ", int, uuid.UUID, str], ids=str)
    def test_a_trace_id_names_a_trace(self, scene, form):
        """In every form in which somebody has one: live and late, for values and for evaluations."""
        with om.start_span("span") as span:
            number = span.ref.trace_id
            if form is int:
                trace_id = number
            elif form is uuid.UUID:
                trace_id = uuid.UUID(int=number)
            else:
                trace_id = str(uuid.UUID(int=number)) if form is str else f" {number:{form.strip()}}"
            assert om.update_trace(trace_id, metadata={"live": 1}).route == "live"
        scene.deliver()
        assert om.update_trace(trace_id, metadata={"late": 1})
        assert om.score_span(trace_id, "s", score=1, level="trace")

        record = scene.record("span")
        assert (record.trace_metadata, record.trace_evaluations["s"].score) == ({"live": 1, "late": 1}, 1)

    def test_it_names_no_span(self, scene):
        """Where a span is meant a trace id is refused."""
        with om.start_span("span") as span:
            receipt = om.update_span(f"{span.ref.trace_id:032x}", metadata={"a": 1})

        assert receipt.reason == "invalid_target"


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "code", "stored"),
        [
            ("Error", StatusCode.ERROR, "ERROR"),
            (" ok ", StatusCode.OK, "OK"),
            ("STATUS_CODE_ERROR", StatusCode.ERROR, "ERROR"),
            (str(StatusCode.ERROR), StatusCode.ERROR, "ERROR"),
            ("404", StatusCode.ERROR, 404),
            (500.0, StatusCode.ERROR, 500),
            (numpy.int32(500), StatusCode.ERROR, 500),
            (StatusCode.OK, StatusCode.OK, "OK"),
            (StatusCode.ERROR, StatusCode.ERROR, "ERROR"),
            (Status(StatusCode.OK), StatusCode.OK, "OK"),
            (Status(StatusCode.ERROR), StatusCode.ERROR, "ERROR"),
            (http.HTTPStatus.OK, StatusCode.OK, 200),
            (http.HTTPStatus.SERVICE_UNAVAILABLE, StatusCode.ERROR, 503),
            (grpc.StatusCode.OK, StatusCode.OK, "OK"),
            (grpc.StatusCode.DEADLINE_EXCEEDED, StatusCode.ERROR, "ERROR"),
            (enum.IntEnum("Proto", {"STATUS_CODE_ERROR": 2}).STATUS_CODE_ERROR, StatusCode.ERROR, "ERROR"),
            (enum.Enum("Word", {"FAILED": "error"}).FAILED, StatusCode.ERROR, "ERROR"),
        ],
        ids=repr,
    )
    def test_words_codes_and_the_objects_of_others(self, scene, status, code, stored):
        """Words in any case, codes of any type, and enumerations: OpenTelemetry's, HTTP's, gRPC's."""
        attributes_after(scene, {"status": status})

        assert scene.ended("span").status.status_code is code
        assert scene.record("span").status_code == stored

    def test_a_status_brings_its_description(self, scene):
        """As status message, unless the update has one of its own; later updates of the message alone replace it."""
        attributes_after(scene, {"status": Status(StatusCode.ERROR, "timed out")})
        with scene.tracer.start_as_current_span("told"):
            om.update_current_span(status=Status(StatusCode.ERROR, "timed out"), status_message="own words")

        assert (scene.ended("span").status.description, scene.record("span").status_message) == ("timed out",) * 2
        assert scene.record("told").status_message == "own words"

    @pytest.mark.parametrize("status", [StatusCode.ERROR, Status(StatusCode.ERROR, "late")], ids=repr)
    def test_a_late_status_is_the_same(self, scene, status):
        """Whether the span is live or stored makes no difference."""
        with om.start_span("span") as span:
            pass
        scene.deliver()
        span.update(status=status)

        assert scene.record("span").status_code == "ERROR"

    @pytest.mark.parametrize(
        "status",
        [
            *(StatusCode.UNSET, Status(StatusCode.UNSET), Status(), "STATUS_CODE_UNSET"),
            *(Hostile(), enum.Enum("Empty", {"NONE": ()}).NONE, b"\xff", float("nan"), ["error"]),
        ],
        ids=lambda status: type(status).__name__,
    )
    def test_anything_else_changes_nothing(self, scene, status):
        """UNSET never overwrites, and what is no status is left out; nothing raises."""
        with scene.tracer.start_as_current_span("span"):
            om.update_current_span(status="error", status_message="why")
            om.update_current_span(status=status)

        span = scene.ended("span")
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "why")
        assert scene.record("span").status_code == "ERROR"


def test_a_status_whose_value_cannot_be_read_is_left_out_with_a_note(scene):
    """An enumeration may compute its value, and that may raise: nothing of it reaches the caller or the log."""

    class Odd(enum.Enum):
        FAILED = 1

        @property
        def value(self):
            raise RuntimeError("no")

    with scene.tracer.start_as_current_span("span"):
        receipt = om.update_current_span(status=Odd.FAILED, metadata={"a": 1})
    assert (receipt.route, len(receipt.notes)) == ("live", 1)
    assert receipt.notes[0].startswith("status: got Odd; expected 'ok'")
