"""A captured value as text: encoded at once or cleaned first, the result is the same."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import strategies as own

from otel_metadata.model.credentials import without_credentials
from otel_metadata.model.snapshot import MAX_FIT_KEYS, _fit_keys, encoded, snapshot, value_of
from otel_metadata.model.value import CAPTURE_LIMITS, clean

hostile = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def taken(value: object, *, masks: bool = True) -> Any:
    """Return the value that a snapshot holds."""
    return value_of(snapshot(value, [], "input", masks_credentials=masks))


def carefully(value: object) -> Any:
    """Return the same, always cleaned first."""
    return without_credentials(clean(value, [], "input", CAPTURE_LIMITS))


# What is on the border between both ways: numbers, depths, keys, texts.
borderline = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 65), 1 << 65)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["a\0b", "\ud800", "https://user:word@host/", "a@b", "https://h/?sig=x", "Bearer x", r"\u0000"]),
    lambda parts: (
        st.lists(parts, max_size=12)
        | st.lists(parts, max_size=12).map(tuple)
        | st.tuples(st.sampled_from(["authorization", "a"]), parts)
        | st.dictionaries(st.sampled_from(["a", "password", "token", "logprob", ""]) | st.integers(), parts, max_size=4)
        | st.fixed_dictionaries(
            {"value": parts, "name": st.sampled_from(["authorization", "host"])}, optional={"token": parts}
        )
        | st.lists(st.dictionaries(st.sampled_from(["role", "api_key", 1]), parts), min_size=9, max_size=12)
        | st.builds(lambda part, depth: _nested(part, depth), parts, st.integers(13, 18))
    ),
    max_leaves=12,
)


def _nested(value: object, depth: int) -> object:
    for _ in range(depth):
        value = [value]
    return value


class TestOneResult:
    @settings(hostile, max_examples=own.examples(1_500))
    @given(borderline)
    def test_the_short_way_says_what_the_careful_way_says(self, value: Any) -> None:
        """Whatever way a value takes, what is kept of it is the same."""
        assert taken(value) == carefully(value)

    @settings(hostile, max_examples=own.examples(300))
    @given(st.lists(own.hostile_values(), min_size=5, max_size=5))
    def test_hostile_values_are_taken_as_well(self, makes: list[own.Make]) -> None:
        """Anything becomes text, and the text says what the careful way says."""
        for make in makes:
            text = snapshot(make(), [], "input", masks_credentials=True)
            assert type(text) in {str, tuple}
            assert value_of(text) == carefully(make())

    @pytest.mark.parametrize(
        "value",
        [
            [[0.5] * 1_536 for _ in range(8)],
            [float("nan")] * 20,
            [1.0] * 20 + [float("inf")],
            [1 << 62] * 20 + [1 << 64],
            ["x" * 200_000, "y" * 200_000],
            ["x\0"] * 20,
            [{"a": 1}] * 20 + [{"a": {1}}],
            [{"password": "x"}] * 20,
            [{"k" * 300: 1}] * 20,
            ["x" * 300_000],
            {"text": "é" * 200_000},
            [["authorization", "x"]] * 20,
            [{"name": "authorization", "value": "x"}] * 20,
            [{"name": "host", "value": "x"}] * 20 + [{"key": "cookie", "value": "x", "name": 1}],
            {"Key": "db_password", "Value": "x"},
            {"url": "https://host/?a=b&access_token=x"},
            ["password", "x1"],
            [("cookie", "x"), ("a",)],
            (1, [2, (3,)]),
            [],
            {},
        ],
        ids=range(21),
    )
    def test_large_and_odd_values(self, value: object) -> None:
        """The same at the limits, and where C calls look at many parts at once."""
        assert taken(value) == carefully(value)

    def test_a_text_is_itself_and_all_else_is_json(self) -> None:
        """A text that looks like JSON stays a text."""
        assert snapshot('{"a": 1}', [], "input", masks_credentials=True) == '{"a": 1}'
        assert snapshot({"a": 1}, [], "input", masks_credentials=True) == ('{"a":1}',)
        assert snapshot(None, [], "input", masks_credentials=True) == ("null",)
        assert encoded("a") == "a"


class TestNoForeignCode:
    def test_types_are_compared_before_a_value_is_asked(self) -> None:
        """Length, iteration, hash, comparison, text and truth of the application's types are never called."""
        calls: list[str] = []

        def record(name: str, answer: Any) -> Any:
            return lambda *_: (calls.append(name), answer)[1]

        names = {"__len__": 2, "__bool__": True, "__eq__": True, "__str__": "x", "__repr__": "x", "__float__": 1.0}
        spy: type = type("Spy", (), {name: record(name, answer) for name, answer in names.items()})
        mapping = type(
            "Headers", (Mapping,), {name: record(name, 2) for name in ("__len__", "__iter__", "__getitem__")}
        )
        spy.__hash__ = record("__hash__", 5)  # type: ignore[method-assign]
        for value in (
            spy(),
            [spy()] * 20,
            {"a": spy()},
            mapping(),
            [mapping()],
            own.BadEnum.ONE,
            [own.BadEnum.ONE] * 20,
        ):
            taken(value)
        assert calls == []

    @pytest.mark.parametrize("item", [2, "two"])
    def test_a_key_of_a_foreign_type_is_never_hashed_or_compared(self, item: object) -> None:
        """A dict knows the hashes of its keys; nobody else asks for them."""
        calls: list[str] = []

        class Key:
            def __hash__(self) -> int:
                calls.append("hash")
                return hash("role")

            def __eq__(self, other: object) -> bool:
                calls.append("eq")
                return True

        value = {Key(): item}
        rows = [{"role": item, "content": item}] * 10 + [value]  # type: ignore[list-item]
        calls.clear()

        assert taken(value) == {"<Key>": item}
        assert taken({"rows": [value]}) == {"rows": [{"<Key>": item}]}
        assert calls == []
        assert taken(rows)[-1] == {"<Key>": item}

    @pytest.mark.parametrize("item", [2, "two"])
    @pytest.mark.parametrize("kind", [str, object])
    def test_a_key_that_raises_when_it_is_compared_loses_nothing(self, kind: type, item: object) -> None:
        """Not even where one call looks at the keys of many dicts."""
        calls: list[str] = []

        def refuse(*_: object) -> bool:
            calls.append("eq")
            raise ValueError("Not comparable.")

        key: Any = type("Key", (kind,), {"__eq__": refuse, "__hash__": lambda _: hash("role")})
        rows = [{key("role") if kind is str else key(): item} for _ in range(20)]

        assert taken(rows) == [{"role" if kind is str else "<Key>": item}] * 20
        assert calls == []

    def test_a_list_that_another_thread_changes_meanwhile(self) -> None:
        """orjson runs no code in the middle of a value, so no other thread can change it under its hands."""
        stop = threading.Event()
        value: list[Any] = [{"a": [1, own.Order()]} for _ in range(50)]

        def change() -> None:
            while not stop.is_set():
                value.append({"a": [2]})
                del value[:2]
                value.extend([own.Point(1), {"b": 1}])
                if len(value) > 200:
                    value.clear()

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(500):
                assert isinstance(taken(value), list)
        finally:
            stop.set()
            thread.join()


def test_the_keys_that_are_remembered_are_bounded() -> None:
    """An application that makes up its keys does not fill the memory."""
    for number in range(MAX_FIT_KEYS + 100):
        taken({f"made-up-{number}": 1})

    assert len(_fit_keys[True]) <= MAX_FIT_KEYS
    assert taken({"made-up-too": [1]}) == {"made-up-too": [1]}
    _fit_keys[True].clear()


def test_credentials_stay_where_they_are_not_masked() -> None:
    """Without masking the same value is kept as it is."""
    value = {"password": "p", "headers": [["cookie", "c"], ["a", "b"]], "url": "https://u:w@h/"}

    assert taken(value, masks=False) == value
    assert orjson.dumps(taken(value)).count(b"<masked>") == 3
