"""What an object holds, and that nothing of its class runs while it is read."""

from __future__ import annotations

import argparse
import array
import collections
import dataclasses
import datetime as dt
import enum
import fractions
import functools
import io
import ipaddress
import re
import sqlite3
import sys
import threading
import types
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl
import pydantic
import pydantic.v1
import pytest
from google.protobuf import struct_pb2, timestamp_pb2

from otel_metadata.model.merge import Json
from otel_metadata.model.value import CAPTURE_LIMITS, clean


def cleaned(value: object) -> Json:
    return clean(value, [], "output", CAPTURE_LIMITS)


def fail(*_: object, **__: object) -> Any:
    raise AssertionError("code of the application ran")


class Loud:
    """A base class whose every method fails the test."""

    __slots__ = ()
    __getattr__ = __str__ = __repr__ = __len__ = __iter__ = __eq__ = __bool__ = __getitem__ = __contains__ = fail
    to_dict = model_dump = dict = items = keys = values = property(fail)


@dataclasses.dataclass(eq=False, repr=False)
class LoudPoint(Loud):
    x: int
    y: int = 2
    of_class: ClassVar[int] = 3

    @functools.cached_property
    def computed(self) -> int:
        return int(fail())

    def __getattribute__(self, name: str) -> Any:
        return fail()


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int
    y: int = 2
    later: int = dataclasses.field(init=False)


class Recorded:
    """As records of ORMs and SDKs are: state, properties, and a method that makes a dict."""

    def __init__(self) -> None:
        self.city = "Oslo"
        self._size = 5
        self._session = "hidden"

    @property
    def size(self) -> Any:
        return fail()

    def to_dict(self) -> Any:
        return fail()


class Dumped:
    def __init__(self) -> None:
        self.city = "Oslo"

    def model_dump(self, **_: object) -> Any:
        return fail()


class Slots:
    __slots__ = ("__private", "_size", "city", "unset")

    def __init__(self) -> None:
        self.city = "Oslo"
        self._size = 5
        self.__private = 1

    @property
    def size(self) -> Any:
        return fail()

    def to_dict(self) -> Any:
        return fail()


class SlotsAndDict(Slots):
    def __init__(self) -> None:
        super().__init__()
        self.more = 1


class SlotsHidden(Slots):
    __slots__ = iter(["year"])

    def __init__(self) -> None:
        super().__init__()
        self.year = 1

    @property
    def city(self) -> Any:
        return fail()

    @city.setter
    def city(self, _: object) -> None:
        pass


class Lazy:
    """An attribute that an ORM loads when it is asked for."""

    def __get__(self, instance: object, owner: type) -> Any:
        return fail()

    def __set__(self, instance: object, value: object) -> None:
        fail()


@dataclasses.dataclass
class Expired:
    name: str = "never"


Expired.name = Lazy()  # type: ignore[assignment]


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    city: str = "Oslo"
    hidden: str = pydantic.Field("x", exclude=True)
    key: pydantic.SecretStr = pydantic.SecretStr("secret")

    @pydantic.field_serializer("city")
    def _city(self, _: str) -> Any:
        return fail()

    @pydantic.model_serializer(mode="wrap")
    def _all(self, _: object) -> Any:
        return fail()

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def computed(self) -> Any:
        return fail()


class Root(pydantic.RootModel[list[int]]):
    pass


class OldModel(pydantic.v1.BaseModel):
    city: str = "Oslo"
    hidden: str = pydantic.v1.Field("x", exclude=True)

    class Config:
        extra = "allow"

    def dict(self, **_: object) -> Any:
        return fail()


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


Pair = collections.namedtuple("Pair", ["user", "password"])


def _struct() -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct["a"] = [1, None]
    return struct


def _row() -> Any:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute("SELECT 1 AS a, 'b' AS b").fetchone()
    finally:
        connection.close()


DATA: dict[str, tuple[Callable[[], object], Json]] = {
    "a dataclass": (lambda: LoudPoint(1), {"x": 1, "y": 2}),
    "a dataclass with slots": (lambda: Slotted(1), {"x": 1, "y": 2}),
    "an object with to_dict": (Recorded, {"city": "Oslo", "size": 5}),
    "an object with to_dict and slots": (Slots, {"city": "Oslo", "size": 5}),
    "an object with to_dict, slots and more": (SlotsAndDict, {"city": "Oslo", "size": 5, "more": 1}),
    "an object with to_dict and slots of a base that a property hides": (SlotsHidden, {"year": 1, "size": 5}),
    "an object with model_dump": (Dumped, {"city": "Oslo"}),
    "a pydantic model": (lambda: Model(more=1), {"city": "Oslo", "key": "<SecretStr>", "more": 1}),  # type: ignore[call-arg]
    "a pydantic root model": (lambda: Root([1]), [1]),
    "a pydantic model of version 1": (lambda: OldModel(more=1), {"city": "Oslo", "more": 1}),  # type: ignore[call-arg]
    "a named tuple": (lambda: Pair("u", "p"), {"user": "u", "password": "p"}),
    "a simple namespace": (lambda: types.SimpleNamespace(a=1), {"a": 1}),
    "an argparse namespace": (lambda: argparse.Namespace(a=1), {"a": 1}),
    "a deque": (lambda: collections.deque([1, "a"]), [1, "a"]),
    "a UserDict": (lambda: collections.UserDict(a=1), {"a": 1}),
    "a UserList": (lambda: collections.UserList([1]), [1]),
    "a UserString": (lambda: collections.UserString("a"), "a"),
    "a ChainMap": (lambda: collections.ChainMap({"a": 1}, {"a": 2, "b": 3}), {"a": 1, "b": 3}),
    "a mapping proxy": (lambda: types.MappingProxyType({"a": 1}), {"a": 1}),
    "an OrderedDict": (lambda: collections.OrderedDict(a=1), {"a": 1}),
    "a defaultdict": (lambda: collections.defaultdict(list, a=[1]), {"a": [1]}),
    "a Counter": (lambda: collections.Counter("aab"), {"a": 2, "b": 1}),
    "an array": (lambda: array.array("d", [1, 2]), [1.0, 2.0]),
    "a range": (lambda: range(2, 10**12), "range(2, 1000000000000)"),
    "keys": (lambda: {"a": 1}.keys(), ["a"]),
    "values": (lambda: {"a": 1}.values(), [1]),
    "items": (lambda: {"a": 1}.items(), [["a", 1]]),
    "a pattern": (lambda: re.compile("a+"), "a+"),
    "an address": (lambda: ipaddress.ip_address("::1"), "::1"),
    "a network": (lambda: ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    "a fraction": (lambda: fractions.Fraction(1, 3), "1/3"),
    "a complex number": (lambda: 1 + 2j, "(1+2j)"),
    "flags": (lambda: Level.LOW | Level.HIGH, 3),
    "a time zone": (lambda: zoneinfo.ZoneInfo("Europe/Oslo"), "Europe/Oslo"),
    "a time in a zone": (
        lambda: dt.datetime(2025, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Oslo")),
        "2025-01-01T00:00:00+01:00",
    ),
    "a row": (_row, {"a": 1, "b": "b"}),
    "a protobuf message": (lambda: timestamp_pb2.Timestamp(seconds=3), {"seconds": 3}),
    "a nested protobuf message": (
        _struct,
        {"fields": {"a": {"list_value": {"values": [{"number_value": 1.0}, {"null_value": 0}]}}}},
    ),
    "an exception": (lambda: ValueError("wrong"), {"type": "ValueError", "message": "wrong"}),
    "an exception with a code": (
        lambda: FileNotFoundError(2, "No such file", "x"),
        {"type": "FileNotFoundError", "message": "[Errno 2] No such file: 'x'"},
    ),
    "an exception that says nothing": (KeyboardInterrupt, {"type": "KeyboardInterrupt", "message": ""}),
    "results and exceptions": (lambda: [1, ValueError("a")], [1, {"type": "ValueError", "message": "a"}]),
    "a float of numpy": (lambda: np.float32(0.5), 0.5),
    "an array of numpy": (lambda: np.array([[1, 2]]), [[1, 2]]),
}


@pytest.mark.parametrize("name", DATA)
def test_data_keeps_its_fields_and_runs_none_of_its_code(name: str) -> None:
    """What is data becomes JSON; neither properties nor serializers nor other methods of its class are called."""
    make, expected = DATA[name]

    assert cleaned(make()) == expected


class ShownError(Exception):
    """An exception whose text is made by code of its own."""

    __str__ = fail


class WithDetailError(Exception):
    def __init__(self) -> None:
        super().__init__()
        self.detail = "not found"

    __str__ = fail


class TestExceptions:
    def test_the_text_of_its_own_is_not_asked_for(self) -> None:
        """The arguments, or what is called its message, say what it said."""
        assert cleaned(ShownError("a", 1)) == {"type": "ShownError", "message": ["a", 1]}
        assert cleaned(ShownError("a")) == {"type": "ShownError", "message": "a"}
        assert cleaned(WithDetailError()) == {"type": "WithDetailError", "message": "not found"}

    def test_an_argument_of_a_foreign_type_is_not_turned_into_text(self) -> None:
        """`str(error)` would call the text of its argument."""
        assert cleaned(ValueError(Recorded())) == {"type": "ValueError", "message": {"city": "Oslo", "size": 5}}

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are of Python 3.11")
    def test_a_group_keeps_its_members(self) -> None:
        """A group has a message, and exceptions with theirs."""
        group = vars(__import__("builtins"))["ExceptionGroup"]("both", [ValueError("a"), ShownError("b")])

        assert cleaned(group) == {
            "type": "ExceptionGroup",
            "message": "both",
            "exceptions": [{"type": "ValueError", "message": "a"}, {"type": "ShownError", "message": "b"}],
        }


class OwnZone(dt.tzinfo):
    utcoffset = tzname = dst = fail


class LoudMapping(collections.abc.MutableMapping[str, str]):
    __getitem__ = __setitem__ = __delitem__ = __iter__ = __len__ = fail
    keys = items = values = get = fail


class LoudModule(types.ModuleType):
    def __getattribute__(self, name: str) -> Any:
        return fail()


class Proxy:
    @property
    def __class__(self) -> type:  # type: ignore[override]
        return fail()

    __getattr__ = fail


def _generator() -> Iterator[int]:
    yield 1


OPAQUE: dict[str, tuple[Callable[[], object], str]] = {
    "a foreign mapping": (LoudMapping, "<LoudMapping>"),
    "a lazy module": (lambda: LoudModule("lazy"), "<LoudModule>"),
    "a proxy": (Proxy, "<Proxy>"),
    "a mock": (mock.MagicMock, "<MagicMock>"),
    "an object without data": (Loud, "<Loud>"),
    "an object of which nothing is loaded": (lambda: Expired.__new__(Expired), "<Expired>"),
    "a generator": (_generator, "<generator>"),
    "an iterator": (lambda: iter([1]), "<list_iterator>"),
    "a map": (lambda: map(fail, [1]), "<map>"),
    "a lock": (threading.Lock, "<lock>"),
    "an event": (threading.Event, "<Event>"),
    "a file": (io.StringIO, "<StringIO>"),
    "a connection": (lambda: sqlite3.connect(":memory:"), "<Connection>"),
    "a function": (lambda: fail, "<function>"),
    "a class": (lambda: Model, "<ModelMetaclass>"),
    "a secret": (lambda: pydantic.SecretStr("s"), "<SecretStr>"),
    "a frame of pandas": (lambda: pd.DataFrame({"a": [1, 2]}), "<DataFrame 2 x 1>"),
    "a series of pandas": (lambda: pd.Series([1]), "<Series 1>"),
    "a frame of polars": (lambda: pl.DataFrame({"a": [1]}), "<DataFrame 1 x 1>"),
    "a lazy frame of polars": (lambda: pl.LazyFrame({"a": [1]}), "<LazyFrame>"),
    "a large array": (lambda: np.zeros(20_000), "<numpy array of 20000 values>"),
    "a time in a zone of its own": (lambda: dt.datetime(2025, 1, 1, tzinfo=OwnZone()), "2025-01-01T00:00:00 <OwnZone>"),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_what_is_not_data_is_opaque(name: str) -> None:
    """A handle becomes a short text, and none of its code runs."""
    make, expected = OPAQUE[name]
    value = make()
    try:
        assert cleaned(value) == expected
    finally:
        if type(value) is sqlite3.Connection:
            value.close()


def test_a_class_that_only_says_to_be_of_a_library_is_not_read_as_one() -> None:
    """A class is known by what its module has under its name."""
    fake = type("Fraction", (), {"__module__": "fractions", "__str__": fail})

    assert cleaned(fake()) == "<Fraction>"


def test_a_note_names_the_key_that_it_is_about() -> None:
    """Keys and indexes lead to the value."""
    notes: list[str] = []

    clean({"customer": [{"name": threading.Lock()}]}, notes, "metadata")

    assert notes == [
        "metadata.customer.0.name: became <lock>: a lock has no JSON form here; convert it first",
    ]


def test_what_pandas_counts_in_nanoseconds_keeps_them():
    notes: list[str] = []
    found = clean([pd.Timestamp("2026-01-31T10:00:00.000000001Z"), pd.Timedelta(1, "ns")], notes, "k")
    assert (found, notes) == (["2026-01-31T10:00:00.000000001+00:00", "0 days 00:00:00.000000001"], [])
