"""Hypothesis strategies that several folders share: JSON values, versions, fields, span refs, hostile values."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, cast, get_args

import numpy as np
import pydantic
from hypothesis import settings
from hypothesis import strategies as st

from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Field, FieldName, Json, Kind, Version
from otel_metadata.model.span_ref import SpanRef

KINDS: tuple[Kind, ...] = get_args(Kind)
SINGLE_KINDS: tuple[Kind, ...] = ("name", "input", "output", "status", "status_message", "user_id", "session_id")

# What may be inside a value after the clean-up: no NUL, no lone surrogate.
_CLEAN = st.characters(exclude_categories=("Cs",), exclude_characters="\0")


def examples(count: int) -> int:
    """Return *count* examples, or three tenths of it in the profile `brief`, as of all properties."""
    return count if settings.default.max_examples >= 50 else count * 3 // 10


def texts(*, min_size: int = 0, max_size: int = 12) -> st.SearchStrategy[str]:
    """Texts as they are after the clean-up."""
    return st.text(_CLEAN, min_size=min_size, max_size=max_size)


def keys() -> st.SearchStrategy[str]:
    """Keys as they are after the clean-up, often the same ones, some with what other spellings use as separators."""
    return st.sampled_from(["a", "b", "a.b", "user-id", "label", "x.label", "metadata", "名", '"', "[", "%"]) | texts(
        min_size=1
    )


def scalars() -> st.SearchStrategy[Json]:
    """JSON values without parts."""
    return (
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 63) - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts()
        | st.sampled_from(["null", "[]", "{}", "1", "true", '"a"'])
    )


def json_values(*, max_leaves: int = 8) -> st.SearchStrategy[Json]:
    """JSON values as they are after the clean-up."""
    return st.recursive(
        scalars(),
        lambda parts: st.lists(parts, max_size=4) | st.dictionaries(keys(), parts, max_size=4),
        max_leaves=max_leaves,
    )


def versions(last_ns: int = (1 << 63) - 1) -> st.SearchStrategy[Version]:
    """Versions that are often equal, or equal in one half, and sometimes as far apart as they can be."""
    nanoseconds = st.integers(0, 4) | st.integers(1_700_000_000_000_000_000, last_ns)
    return st.tuples(nanoseconds, st.integers(0, 3) | st.integers(0, (1 << 64) - 1))


def evaluations(name: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Evaluation]:
    """Evaluations of every shape."""
    return st.builds(
        Evaluation,
        name=name or keys(),
        score=st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
        label=st.none() | texts(),
        explanation=st.none() | texts(),
        source=st.sampled_from(["code", "llm", "human"]),
        metadata=st.none() | st.dictionaries(keys(), json_values(max_leaves=3), max_size=2),
    )


def annotations(name: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Annotation]:
    """Annotations of every shape."""
    return st.builds(
        Annotation,
        name=name or keys(),
        label=st.none() | texts(),
        score=st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
        text=st.none() | texts(),
        annotator=st.none() | texts(),
    )


@st.composite
def named_values(draw: st.DrawFn, kinds: tuple[Kind, ...] = KINDS) -> tuple[FieldName, Json]:
    """One field's name with a value of the shape that an update of ours gives this kind."""
    kind = draw(st.sampled_from(kinds))
    level = (
        draw(st.sampled_from(["span", "trace"])) if kind not in {"attribute", "status", "status_message"} else "span"
    )
    if kind == "evaluation":
        verdict = draw(evaluations())
        return (level, kind, verdict.name), verdict.to_json()
    if kind == "annotation":
        note = draw(annotations())
        return (level, kind, annotation_key(note.name, note.annotator)), note.to_json()
    if kind == "tag":
        return (level, kind, draw(keys())), True
    if kind == "metadata":
        return (level, kind, draw(keys())), draw(json_values())
    if kind == "attribute":
        # A name space of its own: an attribute that is called `metadata.x` is the same thing as that metadata.
        return (level, kind, "app." + draw(keys())), draw(json_values())
    if kind in {"input", "output"}:
        return (level, kind, ""), draw(json_values())
    if kind == "status":
        return (level, kind, ""), draw(st.sampled_from(["ok", "error", 200, 404]))
    return (level, kind, ""), draw(texts(min_size=1))


@st.composite
def field_sets(
    draw: st.DrawFn, kinds: tuple[Kind, ...] = KINDS, *, max_size: int = 8, version: Any = None
) -> dict[FieldName, Field]:
    """Sets of fields as updates of ours make them."""
    named = draw(st.lists(named_values(kinds), max_size=max_size))
    return {name: (value, draw(versions() if version is None else version)) for name, value in named}


def any_field_sets() -> st.SearchStrategy[dict[FieldName, Field]]:
    """Sets of fields of any name with any value, so that two sets often disagree about one field."""
    names = st.tuples(st.sampled_from(["span", "trace"]), st.sampled_from(KINDS), st.sampled_from(["", "a", "b"]))
    return cast(
        "st.SearchStrategy[dict[FieldName, Field]]",
        st.dictionaries(names, st.tuples(json_values(max_leaves=3), versions()), max_size=8),
    )


def span_refs() -> st.SearchStrategy[SpanRef]:
    """Valid span refs."""
    return st.builds(
        SpanRef,
        trace_id=st.integers(1, (1 << 128) - 1),
        span_id=st.integers(1, (1 << 64) - 1),
        sampled=st.booleans(),
    )


Make: TypeAlias = Callable[[], Any]
"""Makes a value anew: some are changed by being read."""

# Hostile values. Every class below breaks one more of the things that code usually takes for granted.


class Raises:
    """Whatever is asked of it, it raises."""

    def _fail(self, *_: object, **__: object) -> Any:
        raise RuntimeError("hostile")

    __str__ = __repr__ = __iter__ = __len__ = __eq__ = __bool__ = __getattr__ = __call__ = __float__ = __int__ = _fail
    __format__ = __getitem__ = __contains__ = __lt__ = __enter__ = __index__ = __reduce__ = __sizeof__ = _fail  # type: ignore[assignment]

    def __hash__(self) -> int:
        raise RuntimeError("hostile")

    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise RuntimeError("hostile")


class Liar:
    """Says that it is a dict."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return dict


class HostileMeta(type):
    """A class of classes that raises when its classes are looked at."""

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError("hostile")

    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("hostile")

    def __subclasscheck__(cls, subclass: type) -> bool:
        raise RuntimeError("hostile")

    def __hash__(cls) -> int:
        raise RuntimeError("hostile")

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("hostile")


class OfHostileMeta(metaclass=HostileMeta):
    """An instance of a hostile class."""


class BadStr(str):
    """A text whose own methods fail or lie."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("hostile")

    def __len__(self) -> int:
        return 10**9

    def isascii(self) -> bool:
        return True

    def encode(self, *_: object) -> bytes:  # type: ignore[override]
        raise RuntimeError("hostile")

    __repr__ = __format__ = __getitem__ = __iter__ = __contains__ = __str__  # type: ignore[assignment]


class BadInt(int):
    """A number whose own methods fail."""

    def __int__(self) -> int:
        raise RuntimeError("hostile")

    __index__ = __str__ = __repr__ = __le__ = __ge__ = __neg__ = bit_length = __int__  # type: ignore[assignment]


class BadFloat(float):
    """A number whose own methods fail."""

    def __float__(self) -> float:
        raise RuntimeError("hostile")

    __str__ = __repr__ = __eq__ = __ne__ = __gt__ = __float__  # type: ignore[assignment]
    __hash__ = float.__hash__


class BadList(list):  # type: ignore[type-arg]
    """A list whose own iteration never ends."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self

    def __len__(self) -> int:
        raise RuntimeError("hostile")


class BadDict(dict):  # type: ignore[type-arg]
    """A dict whose own methods fail."""

    def items(self) -> Any:
        raise RuntimeError("hostile")

    __iter__ = __len__ = keys = values = __getitem__ = copy = __contains__ = items


class BadBytes(bytes):
    """Bytes that promise to be very many."""

    def __len__(self) -> int:
        return 10**15

    def __getitem__(self, _: object) -> Any:
        return 10**15


class BadMapping(Mapping[str, object]):
    """A mapping whose items never end."""

    def __getitem__(self, key: str) -> object:
        return key

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"k{number}"

    def __len__(self) -> int:
        return 3


class NotPairs(BadMapping):
    """A mapping whose items are no pairs."""

    def items(self) -> Any:
        return [1, (2,), "abc"]


class BadDate(dt.datetime):
    """A moment that is written as something else than a text."""

    def isoformat(self, *_: object) -> Any:  # type: ignore[override]
        return {"no": "text"}


class BadPath(pathlib.PurePosixPath):
    """A path that is written as a text of a class of its own."""

    def __str__(self) -> str:
        return BadStr("/a")


class Colour(enum.Enum):
    """An ordinary Enum."""

    RED = "red"
    NUMBER = 10**40
    NOTHING = None


class BadEnum(enum.Enum):
    """An Enum whose value cannot be read."""

    ONE = 1

    @property
    def value(self) -> Any:
        raise RuntimeError("hostile")


class LoopEnum(enum.Enum):
    """An Enum whose value is itself."""

    ONE = 1

    @property
    def value(self) -> Any:
        return self


@dataclasses.dataclass
class Point:
    """An ordinary dataclass with a field that is not there yet."""

    x: object
    y: object = 0
    later: object = dataclasses.field(init=False)


@dataclasses.dataclass
class BadPoint:
    """A dataclass of which one field cannot be read."""

    x: object = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "x":
            raise RuntimeError("hostile")
        return object.__getattribute__(self, name)


class Order(pydantic.BaseModel):
    """An ordinary pydantic model."""

    number: int = 1
    note: str | None = None
    when: dt.datetime = dt.datetime(2025, 1, 2, tzinfo=dt.timezone.utc)


class BadModel(pydantic.BaseModel):
    """A pydantic model that cannot be dumped."""

    number: int = 1

    def model_dump(self, **_: object) -> Any:  # type: ignore[override]
        raise RuntimeError("hostile")


class EndlessModel:
    """What looks like a pydantic model and dumps another one of its kind, for ever."""

    model_fields = ()

    def model_dump(self, **_: object) -> object:
        return EndlessModel()


Pair = collections.namedtuple("Pair", ["left", "right"])


def _cycle() -> object:
    inner: dict[str, object] = {}
    outer = [inner, {"again": inner}]
    inner["up"] = outer
    return outer


def _generator() -> Iterator[int]:
    yield 1


def _released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


HOSTILE_MAKERS: tuple[Make, ...] = (
    Raises,
    Liar,
    lambda: OfHostileMeta(),
    lambda: OfHostileMeta,
    lambda: Raises,
    BadModel,
    NotPairs,
    BadPoint,
    Order,
    EndlessModel,
    object,
    _cycle,
    _generator,
    _released,
    lambda: BadStr("text"),
    lambda: BadStr("\ud800"),
    lambda: BadInt(5),
    lambda: BadInt(10**40),
    lambda: BadFloat(0.5),
    lambda: BadFloat("nan"),
    lambda: BadList([1, "two"]),
    lambda: BadDict(a=1, b=[2]),
    lambda: BadBytes(b"abc"),
    lambda: BadDate(2025, 1, 1, tzinfo=dt.timezone.utc),
    lambda: BadPath("/a"),
    lambda: Point(1),
    lambda: Point([1, {2}], y=Colour.RED),
    lambda: Pair(1, None),
    lambda: dt.datetime(2025, 1, 2, 3, 4, 5),  # noqa: DTZ001
    lambda: dt.date(2025, 1, 2),
    lambda: dt.time(1, 2),
    lambda: dt.timedelta(days=-1, seconds=1),
    lambda: uuid.UUID(int=7),
    lambda: decimal.Decimal("1.10"),
    lambda: decimal.Decimal("sNaN"),
    lambda: decimal.Decimal(10**5000),
    lambda: fractions.Fraction(1, 3),
    lambda: pathlib.PurePosixPath("/a/\udcff"),
    lambda: 10**5000,
    lambda: -(10**5000),
    lambda: 1 << 63,
    lambda: complex(1, 2),
    lambda: np.float32(0.5),
    lambda: np.float64("nan"),
    lambda: np.int64(7),
    lambda: np.uint64(2**64 - 1),
    lambda: np.bool_(True),
    lambda: np.str_("\ud800"),
    lambda: np.longdouble(1),
    lambda: np.datetime64("NaT", "s"),
    lambda: np.array([[1.0, float("inf")], [2.0, 3.0]]),
    lambda: np.array([object(), {"a": {1}}], dtype=object),
    lambda: np.ma.masked,
    lambda: iter([1]),
    lambda: (number for number in range(3)),
    lambda: memoryview(b"abcdef")[::2],
    lambda: memoryview(b"abcd").cast("I"),
    lambda: memoryview(b"abcd").cast("B", (2, 2)),
    lambda: bytearray(b"\xff\xfe"),
    lambda: range(10),
    lambda: {}.keys(),
    lambda: collections.ChainMap({"a": 1}, {"b": 2}),
    lambda: collections.deque([1]),
    lambda: collections.Counter("aab"),
    lambda: collections.OrderedDict(a=1),
    lambda: frozenset({1, "a", None, (2, 3)}),
    lambda: type,
    lambda: len,
    lambda: HostileMeta,
    lambda: NotImplemented,
    lambda: ...,
    lambda: ValueError("x"),
)

BIG_MAKERS: tuple[Make, ...] = (
    BadMapping,
    lambda: np.zeros(100_000),
    lambda: [None] * 30_000,
    lambda: {str(number): True for number in range(20_000)},
    lambda: "x" * 300_000,
    lambda: "é" * 40_000,
    lambda: ("é" * 40_000).encode(),
    lambda: bytes(range(256)) * 400,
)

HOSTILE_KEY_MAKERS: tuple[Make, ...] = (
    lambda: BadStr("key"),
    lambda: Colour.RED,
    lambda: Colour.NUMBER,
    lambda: BadEnum.ONE,
    lambda: LoopEnum.ONE,
    lambda: None,
    lambda: True,
    lambda: 10**5000,
    lambda: float("nan"),
    lambda: (1, 2),
    lambda: b"key",
    lambda: "",
    lambda: "\0",
    lambda: "\udfff",
    lambda: "k" * 1_000,
    lambda: "é" * 1_000,
    lambda: 5,
    lambda: "5",
    object,
)


def hostile_values(*, max_leaves: int = 8) -> st.SearchStrategy[Make]:
    """Anything that an application may hand over by mistake, alone and inside containers: a function makes it.

    A function, because Hypothesis itself cannot look at all of these values.
    """
    plain = st.text(st.characters(), max_size=20) | st.binary(max_size=20) | st.floats() | st.integers()
    enums = st.sampled_from([*Colour, *BadEnum, *LoopEnum])
    hashable = (
        plain | enums | scalars() | st.uuids() | st.decimals(allow_nan=False) | st.datetimes() | st.timedeltas()
    ).map(_given)
    keys_of_all_kinds = st.sampled_from(HOSTILE_KEY_MAKERS) | hashable
    alone = st.sampled_from([*HOSTILE_MAKERS * 20, *BIG_MAKERS]) | hashable | st.decimals().map(_given)
    # Beside `recursive`, of whose values only 1 in 25 is no container.
    return alone | st.recursive(
        alone,
        lambda parts: (
            st.builds(_make_many, st.sampled_from([list, tuple, BadList]), st.lists(parts, max_size=4))
            | st.builds(_make_many, st.sampled_from([set, frozenset]), st.lists(hashable, max_size=3))
            | st.builds(
                _make_dict,
                st.sampled_from([dict, BadDict]),
                st.lists(st.tuples(keys_of_all_kinds, parts), max_size=4),
            )
            | st.builds(_make_deep, st.integers(1, 40), st.sampled_from(["list", "dict", "point"]), parts)
        ),
        max_leaves=max_leaves,
    )


def _given(value: Any) -> Make:
    return lambda: value


def _make_many(kind: Any, makes: list[Make]) -> Make:
    return lambda: kind([make() for make in makes])


def _make_dict(kind: Any, pairs: list[tuple[Make, Make]]) -> Make:
    return lambda: kind({key(): value() for key, value in pairs})


def _make_deep(depth: int, kind: str, make: Make) -> Make:
    wraps: dict[str, Any] = {"list": lambda value: [value], "dict": lambda value: {"k": value}, "point": Point}

    def made() -> Any:
        value = make()
        for _ in range(depth):
            value = wraps[kind](value)
        return value

    return made
