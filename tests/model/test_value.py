"""The clean-up: whatever goes in, bounded JSON comes out, and nothing is raised."""

from __future__ import annotations

import base64
import collections
import copy
import datetime as dt
import decimal
import enum
import math
import pathlib
import threading
import tracemalloc
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import strategies as own

from otel_metadata.model.merge import Json, json_text
from otel_metadata.model.value import (
    CAPTURE_LIMITS,
    MAX_KEY_CHARS,
    METADATA_LIMITS,
    Limits,
    clean,
    clean_key,
    is_clean_scalar,
    is_cut,
)

# Small enough that ordinary examples reach every one of them.
TIGHT = Limits(depth=3, nodes=12, text_chars=24, total_chars=60)

hostile = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def cleaned(value: object, limits: Limits = METADATA_LIMITS) -> tuple[Json, list[str]]:
    """Return what comes out, and the notes."""
    notes: list[str] = []
    return clean(value, notes, "metadata.key", limits), notes


def walk(value: Json, depth: int = 0) -> Iterator[tuple[Any, int, bool]]:
    """Yield (part, depth, whether it is a key) of a value and of everything inside."""
    yield value, depth, False
    if type(value) is dict:
        for key, item in value.items():
            yield key, depth, True
            yield from walk(item, depth + 1)
    elif type(value) is list:
        for item in value:
            yield from walk(item, depth + 1)


def assert_is_json(value: Json) -> None:
    """Only exact builtin types, integers within 64 bits, finite floats, text that is UTF-8 and free of NUL."""
    for part, _, is_key in walk(value):
        kind = type(part)
        assert kind in {str, int, float, bool, type(None), list, dict}
        if kind is int:
            assert -(1 << 63) <= part < 1 << 63
        elif kind is float:
            assert math.isfinite(part)
        elif kind is str:
            part.encode()
            assert "\0" not in part
        if is_key:
            assert kind is str
            assert 0 < len(part) <= MAX_KEY_CHARS
    assert orjson.loads(orjson.dumps(value)) == value


def assert_is_within(value: Json, limits: Limits) -> None:
    """No limit is exceeded, marks and cuts included."""
    parts = list(walk(value))
    texts = [part for part, _, _ in parts if type(part) is str]
    assert sum(not is_key for _, _, is_key in parts) <= limits.nodes
    assert all(depth <= limits.depth for _, depth, _ in parts)
    assert all(len(text) <= limits.text_chars for text in texts if len(text) > MAX_KEY_CHARS)
    assert sum(map(len, texts)) <= limits.total_chars


# Ten values an example: most of the time of an example is Hypothesis's own.
batches = st.lists(own.hostile_values(), min_size=10, max_size=10)


class TestHostileValues:
    """20,000 of them in all, a third of that in the profile `brief`."""

    @settings(hostile, max_examples=own.examples(900))
    @given(batches)
    def test_any_value_becomes_bounded_json(self, makes: list[own.Make]) -> None:
        """Nothing is raised, and what comes out is JSON of exact builtin types within every limit."""
        for make in makes:
            result, notes = cleaned(make())

            assert_is_json(result)
            assert_is_within(result, METADATA_LIMITS)
            assert len(notes) <= 16
            assert all(type(note) is str and note.startswith("metadata.key") and note.encode() for note in notes)

    @settings(hostile, max_examples=own.examples(600))
    @given(batches)
    def test_a_clean_value_is_not_changed_again(self, makes: list[own.Make]) -> None:
        """The clean-up is idempotent, and a second one has nothing to note."""
        for make in makes:
            once, _ = cleaned(make())
            before = copy.deepcopy(once)

            assert cleaned(once) == (before, [])
            assert once == before

    @settings(hostile, max_examples=own.examples(400))
    @given(batches)
    def test_tight_limits_hold_as_well(self, makes: list[own.Make]) -> None:
        """Whatever the limits are, what comes out keeps them."""
        for make in makes:
            result, _ = cleaned(make(), TIGHT)

            assert_is_json(result)
            assert_is_within(result, TIGHT)

    @settings(hostile, max_examples=own.examples(100))
    @given(batches, st.lists(st.sampled_from(own.HOSTILE_KEY_MAKERS), max_size=5))
    def test_any_key_becomes_a_text(self, makes: list[own.Make], keys: list[own.Make]) -> None:
        """A key of a metadata update is never empty, too long, or no text; and nothing is raised."""
        for make in [*makes, *keys]:
            text = clean_key(make(), [], "metadata")

            assert_is_json({text: None})
            assert clean_key(text, [], "metadata") == text

    # By number: pytest itself cannot look at all of them.
    @pytest.mark.parametrize("number", range(len(own.HOSTILE_MAKERS) + len(own.BIG_MAKERS)))
    def test_every_hostile_value_leaves_its_siblings_alone(self, number: int) -> None:
        """Beside any one bad value the others of the same object arrive, unless it used up all room."""
        make = (own.HOSTILE_MAKERS + own.BIG_MAKERS)[number]

        result, notes = cleaned({"before": 1, "bad": make(), "after": [2]})

        assert isinstance(result, dict)
        assert result["before"] == 1
        assert result.get("after") == [2] or any("cut" in note for note in notes)

    def test_a_depth_of_100_000_is_cut(self) -> None:
        """A value nested beyond all bounds costs no recursion."""
        value: object = 1
        for _ in range(100_000):
            value = [value]

        result, notes = cleaned(value)

        assert_is_within(result, METADATA_LIMITS)
        assert notes == [f"metadata.key{'.0' * 16}: became <too deep>: more than 16 levels"]

    def test_shared_parts_are_not_multiplied_without_end(self) -> None:
        """A value that is small in memory and enormous as JSON is cut: nulls and booleans count as well."""
        row = [None] * 10_000
        value = [[row] * 10_000] * 10_000

        result, notes = cleaned(value)

        assert_is_within(result, METADATA_LIMITS)
        assert notes

    def test_long_keys_count_as_characters(self) -> None:
        """Keys alone cannot exceed the limit of all characters."""
        result, notes = cleaned({f"{number:0200}": number for number in range(9_000)})

        assert_is_within(result, METADATA_LIMITS)
        assert isinstance(result, dict)
        assert METADATA_LIMITS.total_chars // 200 - 5 < len(result) < METADATA_LIMITS.total_chars // 200 + 1
        assert result["<cut>"] == f"<{9_000 - len(result) + 1:,} more>"
        assert notes

    def test_the_cost_is_bounded_whatever_the_size(self) -> None:
        """Ten million values cost no more memory than the limit allows: the rest is never copied."""
        value = [0] * 10_000_000
        tracemalloc.start()
        try:
            cleaned({"a": value, "b": value})
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert peak < 4_000_000

    def test_an_endless_iteration_is_cut(self) -> None:
        """A mapping whose items never end is read as far as the limit."""
        result, notes = cleaned(own.BadMapping())

        assert_is_within(result, METADATA_LIMITS)
        assert notes

    def test_a_value_that_another_thread_changes_is_read_all_the_same(self) -> None:
        """A dict, list and set that grow and shrink meanwhile never make the clean-up fail."""
        value: dict[str, Any] = {"list": [], "set": set(), "dict": {}}
        stop = threading.Event()

        def change() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                for key in (number, number - 50):
                    value["dict"][str(key)] = value["dict"].pop(str(key - 20), key)
                    value["set"].symmetric_difference_update({key, key - 20})
                    value["list"].append(key)
                del value["list"][:1]
                if number % 100 == 0:
                    value["dict"].clear()
                    value["list"].clear()

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(2_000):
                result, _ = cleaned(value)
                assert_is_json(result)
                assert isinstance(result, dict)
                assert result.keys() == {"list", "set", "dict"}
        finally:
            stop.set()
            thread.join()

    def test_generators_and_iterators_are_not_consumed(self) -> None:
        """What the application will read itself is left as it is."""
        numbers = iter([1, 2, 3])

        result, notes = cleaned(numbers)

        assert result == "<list_iterator>"
        assert notes
        assert list(numbers) == [1, 2, 3]


class TestJsonValues:
    @given(own.json_values(max_leaves=20))
    def test_json_within_the_limits_is_kept(self, value: Json) -> None:
        """What is JSON already comes out equal, of the same types, without a note."""
        result, notes = cleaned(value)

        assert json_text(result) == json_text(value)
        assert notes == []

    @settings(max_examples=own.examples(500))
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
            lambda parts: st.lists(parts) | st.dictionaries(st.text(st.characters()), parts),
            max_leaves=20,
        )
    )
    def test_a_change_is_always_noted(self, value: Any) -> None:
        """What has the shape of JSON and comes out without a note is unchanged."""
        result, notes = cleaned(value, TIGHT)

        if notes == []:
            assert json_text(result) == json_text(value)
        else:
            assert repr(result) != repr(value)

    @given(own.json_values())
    def test_the_result_is_not_the_callers_own(self, value: Json) -> None:
        """A later change by the caller has no effect."""
        result, _ = cleaned([value])

        assert not {id(part) for part, _, _ in walk(result) if type(part) in {list, dict}} & {
            id(part) for part, _, _ in walk(value) if type(part) in {list, dict}
        }

    @given(st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary())
    def test_a_clean_scalar_is_one_that_comes_out_as_it_is(self, value: Any) -> None:
        """The short way of the hot path agrees with the long one."""
        if is_clean_scalar(value):
            assert cleaned([value]) == ([value], [])


class TestKnownTypes:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (dt.datetime(2025, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc), "2025-01-02T03:04:05+00:00"),
            (dt.date(2025, 1, 2), "2025-01-02"),
            (dt.time(3, 4), "03:04:00"),
            (dt.timedelta(hours=1, seconds=2), "1:00:02"),
            (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
            (decimal.Decimal("1.10"), "1.10"),
            (pathlib.PurePosixPath("/a/b"), "/a/b"),
            (own.Colour.RED, "red"),
            (enum.IntEnum("Level", "LOW").LOW, 1),  # type: ignore[attr-defined]
            ((1, (2,)), [1, [2]]),
            ({3, 1, 2}, [1, 2, 3]),
            (frozenset({"b", None, "a"}), ["a", "b", None]),
            (b"text", "text"),
            (bytearray("é".encode()), "é"),
            (own.Order(number=2), {"number": 2, "note": None, "when": "2025-01-02T00:00:00+00:00"}),
            (own.Point(1), {"x": 1, "y": 0}),
            (own.Pair(1, None), {"left": 1, "right": None}),
            (own.BadEnum.ONE, 1),
            (own.BadModel(), {"number": 1}),
            (own.BadStr("text"), "text"),
            (own.BadInt(5), 5),
            (own.BadFloat(0.5), 0.5),
            (own.BadList([1]), [1]),
            (own.BadDict(a=1), {"a": 1}),
            (np.float32(0.5), 0.5),
            (np.int64(7), 7),
            (np.bool_(True), True),
            (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_it_becomes_its_json_form(self, value: object, expected: Json) -> None:
        """A known type is written as people expect it, without a note."""
        result, notes = cleaned(value)

        assert json_text(result) == json_text(expected)
        assert notes == []

    @pytest.mark.parametrize(
        ("make", "expected"),
        [
            (lambda: math.nan, "NaN"),
            (lambda: math.inf, "Infinity"),
            (lambda: -math.inf, "-Infinity"),
            (lambda: 1 << 63, "9223372036854775808"),
            (lambda: -(1 << 63) - 1, "-9223372036854775809"),
            (lambda: 10**5000, "<integer of 16610 bits>"),
            (lambda: "a\ud800b", "a\N{REPLACEMENT CHARACTER}b"),
            (lambda: "a\0b", "a\N{REPLACEMENT CHARACTER}b"),
            (lambda: b"\xff\x00", base64.b64encode(b"\xff\x00").decode()),
            (lambda: object(), "<object>"),
            (lambda: int, "<type>"),
            (lambda: own.Raises(), "<Raises>"),
            (lambda: own.OfHostileMeta(), "<OfHostileMeta>"),
            (lambda: {"": 1}, {"<empty>": 1}),
            (lambda: {1: "a", None: "b", False: "c"}, {"1": "a", "null": "b", "false": "c"}),
            (lambda: {1: "a", "1": "b"}, {"1": "b"}),
            (lambda: {(1, 2): "a"}, {"<tuple>": "a"}),
            (lambda: {"\0": {"\0": 1}}, {"\N{REPLACEMENT CHARACTER}": {"\N{REPLACEMENT CHARACTER}": 1}}),
        ],
    )
    def test_what_is_no_json_becomes_a_marked_substitute(self, make: own.Make, expected: Json) -> None:
        """The substitute shows that something is missing, and a note says what."""
        result, notes = cleaned(make())

        assert result == expected
        assert notes

    def test_a_cycle_is_marked_where_it_closes(self) -> None:
        """A container inside itself is replaced there; the same container twice is no cycle."""
        twice = [1]
        value: dict[str, object] = {"twice": [twice, twice]}
        value["self"] = value

        assert cleaned(value) == (
            {"twice": [[1], [1]], "self": "<cycle>"},
            ["metadata.key.self: became <cycle>: it contains itself"],
        )

    def test_a_text_that_is_too_long_says_so(self) -> None:
        """A cut text ends with a mark and is no longer than the limit."""
        result, notes = cleaned("x" * 40_000)

        assert result == "x" * (32_768 - 5) + "<cut>"
        assert notes == ["metadata.key: cut from 40000 to 32768 characters"]

    @pytest.mark.parametrize("character", ["é", "名", "😀"])
    @pytest.mark.parametrize("shift", range(4))
    def test_bytes_that_are_text_stay_text_when_they_are_cut(self, character: str, shift: int) -> None:
        """A cut through a character does not make base64 of a long UTF-8 text."""
        result, notes = cleaned(("x" * shift + character * 40_000).encode())

        assert isinstance(result, str)
        assert result.startswith("x" * shift + character)
        assert result.endswith(character + "<cut>")
        assert len(notes) == 1

    def test_many_bytes_become_base64_that_can_be_decoded(self) -> None:
        """A cut base64 text is whole groups of four before its mark."""
        value = bytes(range(256)) * 400

        result, notes = cleaned(value)

        assert isinstance(result, str)
        assert value.startswith(base64.b64decode(result.removesuffix("<cut>"), validate=True))
        assert len(notes) == 2

    def test_captured_values_may_be_longer(self) -> None:
        """A prompt of 200,000 characters is kept whole."""
        prompt = "x" * 200_000

        assert cleaned(prompt, CAPTURE_LIMITS) == (prompt, [])

    def test_notes_name_paths_and_types_and_never_values(self) -> None:
        """A secret that had to be replaced does not appear in what is told about it."""
        _, notes = cleaned({"call": {"headers": [b"\xffsecret", "secret\0", own.Point("secret" * 9_000)]}})

        assert notes == [
            "metadata.key.call.headers.0: bytes became base64 text",
            "metadata.key.call.headers.1: NUL characters became U+FFFD",
            "metadata.key.call.headers.2.x: cut from 54000 to 32768 characters",
        ]


def test_no_value_of_the_application_is_turned_into_text_by_its_own_code() -> None:
    """`__str__` and `__repr__` of an unknown type are never called: they may be slow, or tell secrets."""
    asked: list[str] = []

    class Spy:
        def __str__(self) -> str:
            asked.append("str")
            return "secret"

        __repr__ = __str__

    result, _ = cleaned([Spy(), {Spy(): 1}])

    assert result == ["<Spy>", {"<Spy>": 1}]
    assert asked == []


class TestMarks:
    """What is too much is marked where it was cut, and what is small stays."""

    def test_a_list_that_is_too_long_ends_with_how_many_are_missing(self) -> None:
        """Rows are kept whole, and the mark counts the others."""
        result, notes = cleaned([{"id": number, "v": "x"} for number in range(5_000)])

        assert isinstance(result, list)
        assert result[-2] == {"id": len(result) - 2, "v": "x"}
        assert result[-1] == f"<{5_000 - len(result) + 1:,} more>"
        assert notes == ["metadata.key: cut: more than 10000 values, or 262144 characters"]

    @pytest.mark.parametrize(
        "make",
        [
            lambda: tuple(range(20_000)),
            lambda: set(range(20_000)),
            lambda: collections.deque(range(20_000)),
            lambda: np.zeros(9_999).tolist() + [1] * 10_001,
        ],
        ids=["tuple", "set", "deque", "list"],
    )
    def test_the_mark_is_last_whatever_the_container(self, make: own.Make) -> None:
        """Nothing comes after it."""
        result, notes = cleaned(make())

        assert isinstance(result, list)
        assert result[-1] == f"<{20_000 - len(result) + 1:,} more>"
        assert any(is_cut(note) for note in notes)

    def test_a_dict_that_has_too_many_keys_says_so(self) -> None:
        """Its mark has a key of its own, and a note is not crowded out by others."""
        result, notes = cleaned({number: {"a": 1, "b": 2} for number in range(5_000)})

        assert isinstance(result, dict)
        assert result["<cut>"] == f"<{5_000 - len(result) + 1:,} more>"
        assert any(is_cut(note) for note in notes)

    def test_what_is_small_stays_beside_a_large_vector(self) -> None:
        """In whatever order the keys are."""
        result, _ = cleaned({"vector": [0.5] * 20_000, "question": "why?", "user": {"id": 1}, "tail": [1]})

        assert isinstance(result, dict)
        assert [*result] == ["vector", "question", "user", "tail"]
        assert (result["question"], result["user"], result["tail"]) == ("why?", {"id": 1}, [1])
        assert result["vector"][-1] == f"<{20_000 - len(result['vector']) + 1:,} more>"

    def test_each_of_several_vectors_keeps_its_beginning(self) -> None:
        """The first of a list of vectors does not take the room of all others."""
        result, _ = cleaned([[0.5] * 15_000, [0.25] * 15_000, ["last"]])

        assert isinstance(result, list)
        assert [part[0] for part in result] == [0.5, 0.25, "last"]

    def test_the_question_stays_beside_four_large_images(self) -> None:
        """An image that does not fit keeps its head; texts are kept whole."""
        image = f"data:image/png;base64,{'A' * 400_000}"
        content = [{"type": "text", "text": "What is this?"}]
        content += [{"type": "image_url", "url": image} for _ in range(4)]

        result, notes = cleaned(
            [{"role": "user", "content": content}, {"role": "user", "content": "x" * 100_000}], CAPTURE_LIMITS
        )

        assert isinstance(result, list)
        assert result[0]["content"][0] == {"type": "text", "text": "What is this?"}  # type: ignore[call-overload, index]
        assert result[1] == {"role": "user", "content": "x" * 100_000}
        urls = [part["url"] for part in result[0]["content"][1:]]  # type: ignore[call-overload, index, union-attr]
        assert urls == [f"{image[:123]}<cut>"] * 4
        assert len(notes) == 4

    def test_images_are_kept_as_long_as_they_fit(self) -> None:
        """Of five, those that have room are whole."""
        image = f"data:image/png;base64,{'A' * 240_000}"

        result, _ = cleaned(["question", *[image] * 5], CAPTURE_LIMITS)

        assert result == ["question", *[image] * 4, f"{image[:123]}<cut>"]

    def test_long_texts_share_what_is_left(self) -> None:
        """The shortest of them stays whole, and the others are as long as each other."""
        result, notes = cleaned(["q" * 2_000, *["y" * 250_000] * 6], CAPTURE_LIMITS)

        assert isinstance(result, list)
        assert result[0] == "q" * 2_000
        lengths = {len(part) for part in result[1:]}  # type: ignore[arg-type]
        assert max(lengths) - min(lengths) <= 6
        assert sum(len(part) for part in result) == CAPTURE_LIMITS.total_chars  # type: ignore[arg-type]
        assert len(notes) == 6

    @settings(hostile, max_examples=own.examples(100))
    @given(own.json_values(max_leaves=6), st.integers(1, 3), st.booleans())
    def test_large_values_are_cut_once(self, small: Json, count: int, is_list: bool) -> None:
        """Whatever stands beside what is too much, the limits hold, and a second clean-up changes nothing."""
        large: list[Any] = [[0] * 12_000, "x" * 300_000, {str(number): {} for number in range(11_000)}]
        value = (
            [small, *large[:count], small] if is_list else {"a": small, **dict(enumerate(large[:count])), "z": small}
        )

        result, notes = cleaned(value)

        assert_is_json(result)
        assert_is_within(result, METADATA_LIMITS)
        assert any(is_cut(note) for note in notes)
        assert cleaned(result) == (result, [])
        assert result[0 if is_list else "a"] == small  # type: ignore[call-overload, index]
