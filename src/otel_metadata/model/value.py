"""The bounded clean-up: any Python value becomes JSON, and no value can harm the application or its batch.

This module decides what a value looks like once it is ours. It is run once, before a value is set, spooled or sent.

Why so strict (OpenTelemetry SDK 1.45.2, 20,000 hostile values): 4,593 made `Span.set_attribute` raise into the
application; 32 nested maps make a receiver refuse the whole batch; one lone surrogate loses it. So only exact builtin
types come out, with bounds on depth, nodes and text; no `str(value)` of a type we do not know, because `__str__` is
somebody's code; and what is replaced leaves a mark in the value and a note with the update.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import itertools
import math
import pathlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, final

from otel_metadata.model.merge import Json, json_text
from otel_metadata.model.span_ref import SpanRef

__all__ = ["CAPTURE_LIMITS", "METADATA_LIMITS", "STORE_LIMITS", "Limits", "clean", "clean_key", "is_clean_scalar"]


@final
class Limits(NamedTuple):
    """Bounds of one clean-up; what is beyond is cut and noted.

    Attributes:
        depth: Nesting of lists and dicts. OTLP receivers parse 100 protobuf levels, three for each of ours.
        nodes: Values in all, counted at every level.
        text_chars: Characters of one text.
        total_chars: Characters of all texts and keys together.
    """

    depth: int = 16
    nodes: int = 10_000
    text_chars: int = 32_768
    total_chars: int = 262_144


METADATA_LIMITS: Final = Limits()
"""For metadata, attributes, tags, evaluations, annotations."""

CAPTURE_LIMITS: Final = Limits(text_chars=262_144, total_chars=1_048_576)
"""For captured input and output: prompts are longer than metadata."""

STORE_LIMITS: Final = Limits(depth=64, nodes=10_000_000, text_chars=1 << 31, total_chars=1 << 31)
"""For a span's own attributes on their way into a store: what OpenTelemetry let through is kept."""

MAX_KEY_CHARS: Final = 256

_SHORT_TEXT_CHARS: Final = METADATA_LIMITS.text_chars

# With texts of at most 32 Ki characters, less than any budget.
_SMALL_DICT: Final = 7

_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1
# str() of an int is quadratic, and refused above 4,300 digits since Python 3.11; 2,048 bits are 617 digits.
_MAX_INT_TEXT_BITS: Final = 2_048
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_CUT: Final = "<cut>"
_ITERABLES: Final[tuple[Any, ...]] = (list, tuple, set, frozenset)


def is_clean_scalar(value: object) -> bool:
    """Whether *value* comes out of `clean` as it is, told without a call for the common types.

    For the hot path: an exact bool, None, int within 64 bits, finite float, or short ASCII text without NUL.
    """
    kind = type(value)
    if kind is bool or value is None:
        return True
    if kind is str:
        return value.isascii() and len(value) <= _SHORT_TEXT_CHARS and "\0" not in value  # type: ignore[arg-type, attr-defined, operator] # the exact type was just tested
    if kind is int:
        return _INT64_MIN <= value <= _INT64_MAX  # type: ignore[operator] # the exact type was just tested
    return kind is float and math.isfinite(value)  # type: ignore[arg-type] # the exact type was just tested


def clean(value: object, notes: list[str], path: str, limits: Limits = METADATA_LIMITS) -> Json:
    """Return the JSON form of *value*; never raises an `Exception`.

    Exact and in range: returned as it is. Known types (datetime, UUID, Enum, Decimal, Path, set, tuple, bytes,
    dataclass, pydantic model, numpy scalar or array, any Mapping): their JSON form. NaN, infinities, integers beyond
    64 bits: text. Lone surrogates and NUL: U+FFFD. Cycles, too deep, too many, too long, and every other type: a marked
    substitute such as `"<cycle>"`, with a note.

    Args:
        value: Anything. Read once; a later change of it by the caller has no effect.
        notes: Gets one sentence for each change, naming *path* and types, never values.
        path: What the value is, for the notes: `"metadata.customer"`.
        limits: See `Limits`.
    """
    if is_clean_scalar(value):
        return value  # type: ignore[return-value] # is_clean_scalar has decided
    if type(value) is dict and len(value) <= _SMALL_DICT:
        # The common case of captured arguments: a small dict of scalars, without a budget to keep.
        copy = value.copy()
        if all(
            type(key) is str and 0 < len(key) <= MAX_KEY_CHARS and is_clean_scalar(key) and is_clean_scalar(item)
            for key, item in copy.items()
        ):
            return copy
    return _Cleaner(notes, limits).clean(value, path)


def clean_key(key: object, notes: list[str], path: str) -> str:
    """Return the text form of a metadata key: at most 256 characters, not empty, without lone surrogates."""
    if type(key) is str and 0 < len(key) <= MAX_KEY_CHARS and key.isascii() and "\0" not in key:
        return key
    return _Cleaner(notes, METADATA_LIMITS).key(key, path)


class _Cleaner:
    """One clean-up: the budgets that are left, and the containers that are open.

    What comes out keeps every limit, marks and cuts included, and what keeps them all is not touched: so a value that
    was cleaned once (before a mask, by another process) comes out of a second clean-up as it is.
    """

    def __init__(self, notes: list[str], limits: Limits) -> None:
        self._notes = notes
        self._limits = limits
        self._nodes = limits.nodes
        self._chars = limits.total_chars
        self._open: set[int] = set()

    def clean(self, value: object, path: str, depth: int = 0) -> Json:
        try:
            return self._clean(value, path, depth)
        except Exception as error:  # noqa: BLE001 # foreign code runs in here: properties, model_dump, metaclasses
            return self._mark(path, f"unreadable {_type_name(value)}", f"reading it raised {_type_name(error)}")

    def key(self, key: object, path: str) -> str:
        try:
            text = self._key_text(key, path)
        except Exception:  # noqa: BLE001 # the value of an Enum is foreign code
            text = f"<unreadable {_type_name(key)}>"
            self._note(path, f"a key of type {_type_name(key)} could not be read")
        if not text:
            self._note(path, "an empty key became <empty>")
            text = "<empty>"
        return self._text(text, path, MAX_KEY_CHARS)

    def _key_text(self, key: object, path: str) -> str:
        if issubclass(type(key), enum.Enum):
            key = key.value  # type: ignore[attr-defined] # every Enum has it
        kind = type(key)
        if issubclass(kind, str):
            return str.__str__(key)
        if key is None or kind is bool or kind is int or kind is float:
            self._note(path, f"a key of type {_type_name(key)} became text")
            if is_clean_scalar(key):
                return json_text(key)  # type: ignore[arg-type] # is_clean_scalar has decided
            return _float_text(key) if kind is float else _integer_text(key)  # type: ignore[arg-type] # one of the two
        self._note(path, f"a key of type {_type_name(key)} became <{_type_name(key)}>")
        return f"<{_type_name(key)}>"

    def _clean(self, value: object, path: str, depth: int) -> Json:
        kind = type(value)
        self._nodes -= 1
        if self._nodes < 0:
            return self._mark(path, "too many values", f"more than {self._limits.nodes} values")
        if value is None or kind is bool:
            return value  # type: ignore[return-value] # None or an exact bool
        if issubclass(kind, enum.Enum):
            return self.clean(value.value, path, depth)  # type: ignore[attr-defined] # every Enum has it
        if issubclass(kind, str):
            return self._text(str.__str__(value), path, self._limits.text_chars)
        if issubclass(kind, int):
            return self._integer(int.__int__(value), path)  # type: ignore[arg-type] # a subclass of int
        if issubclass(kind, float):
            return self._float(float.__float__(value), path)  # type: ignore[arg-type] # a subclass of float
        for base in (bytes, bytearray, memoryview):
            if issubclass(kind, base):
                return self._bytes(value, base, path)
        for known, form in _TEXT_FORMS:
            if issubclass(kind, known):
                # str() and isoformat() of a subclass may return a subclass of str, or anything.
                return self._text(str.__str__(form(value)), path, self._limits.text_chars)
        return self._container(value, kind, path, depth)

    def _container(self, value: object, kind: type, path: str, depth: int) -> Json:
        if id(value) in self._open:
            return self._mark(path, "cycle", "it contains itself")
        if depth >= self._limits.depth:
            return self._mark(path, "too deep", f"more than {self._limits.depth} levels")
        self._open.add(id(value))
        try:
            if issubclass(kind, dict):
                return self._mapping(dict.items(value), path, depth)  # type: ignore[arg-type] # a subclass of dict
            for base in _ITERABLES:
                if issubclass(kind, base):
                    # The base type's own iterator: that of a subclass is foreign code.
                    items = self._sequence(base.__iter__(value), path, depth)
                    return items if base in {list, tuple} else sorted(items, key=json_text)
            return self._object(value, kind, path, depth)
        finally:
            self._open.discard(id(value))

    def _object(self, value: Any, kind: type, path: str, depth: int) -> Json:
        if dataclasses.is_dataclass(kind):
            # A field(init=False) may not be there yet.
            names = [field.name for field in dataclasses.fields(kind) if hasattr(value, field.name)]
            pairs = ((name, getattr(value, name)) for name in names)
            return self._mapping(pairs, path, depth)
        if hasattr(kind, "model_dump") and hasattr(kind, "model_fields"):
            return self.clean(value.model_dump(mode="python"), path, depth)
        if kind.__module__.partition(".")[0] == "numpy" and hasattr(kind, "tolist"):
            if value.size > self._nodes:
                return self._mark(path, f"numpy array of {int(value.size)} values", f"more than {self._limits.nodes}")
            plain = value.tolist()
            if type(plain) is kind:  # A longdouble has no Python equivalent and returns itself.
                return self._mark(
                    path, _type_name(value), f"a {_type_name(value)} has no JSON form here; convert it first"
                )
            return self.clean(plain, path, depth)
        if issubclass(kind, Mapping):
            return self._mapping(value.items(), path, depth)
        return self._mark(path, _type_name(value), f"a {_type_name(value)} has no JSON form here; convert it first")

    def _mapping(self, items: Iterable[tuple[object, object]], path: str, depth: int) -> dict[str, Json]:
        # One C call takes the snapshot, so a thread that changes the dict meanwhile cannot break the iteration.
        snapshot = list(itertools.islice(items, self._nodes + 1))
        result: dict[str, Json] = {}
        for key, value in snapshot:
            if self._nodes <= 0 or self._chars <= 0:
                self._note(
                    path, f"cut: more than {self._limits.nodes} values, or {self._limits.total_chars} characters"
                )
                break
            if (
                type(key) is str
                and 0 < len(key) <= min(MAX_KEY_CHARS, self._chars)
                and key.isascii()
                and "\0" not in key
            ):
                text = key
                self._chars -= len(text)
            else:
                text = self.key(key, path)
            if text in result:
                self._note(path, "two keys are the same as text; the later one stands")
            result[text] = self.clean(value, f"{path}.{text}", depth + 1)
        return result

    def _sequence(self, items: Iterable[object], path: str, depth: int) -> list[Json]:
        snapshot = list(itertools.islice(items, self._nodes + 1))
        result: list[Json] = []
        for value in snapshot:
            if self._nodes <= 0:
                self._note(path, f"cut after {self._limits.nodes} values")
                break
            result.append(self.clean(value, path, depth + 1))
        return result

    def _text(self, text: str, path: str, limit: int) -> str:
        limit = min(limit, self._chars)
        if len(text) > limit:
            self._note(path, f"cut from {len(text)} to {limit} characters")
            text = f"{text[: limit - len(_CUT)]}{_CUT}" if limit >= len(_CUT) else text[:limit]
        self._chars -= len(text)
        if "\0" in text:
            self._note(path, "NUL characters became U+FFFD")
            text = text.replace("\0", _REPLACEMENT)
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:
            self._note(path, "lone surrogates became U+FFFD")
            return "".join(_REPLACEMENT if "\ud800" <= char <= "\udfff" else char for char in text)
        return text

    def _integer(self, number: int, path: str) -> Json:
        if _INT64_MIN <= number <= _INT64_MAX:
            return number
        self._note(path, "an integer beyond 64 bits became text")
        return self._text(_integer_text(number), path, self._limits.text_chars)

    def _float(self, number: float, path: str) -> Json:
        if math.isfinite(number):
            return number
        self._note(path, f"{_float_text(number)} became text")
        return self._text(_float_text(number), path, self._limits.text_chars)

    def _bytes(self, value: Any, base: Any, path: str) -> Json:  # bytes, bytearray or memoryview, and its class
        # The base type's own methods: those of a subclass are foreign code. More than the limit is not read at all.
        size = base.__len__(value)
        head = bytes(base.__getitem__(value, slice(self._limits.text_chars)))
        is_cut = size > self._limits.text_chars
        try:
            text = head.decode()
        except UnicodeDecodeError as error:
            if is_cut and error.start >= len(head) - 3:
                text = head[: error.start].decode()  # The cut went through a character.
            else:
                self._note(path, "bytes became base64 text")
                # Three bytes are four characters.
                room = (self._limits.text_chars - len(_CUT)) // 4 * 3
                is_cut = is_cut or len(head) > room
                text = base64.b64encode(head[:room]).decode()
        if is_cut:
            self._note(path, f"cut from {size} bytes")
            text = f"{text[: self._limits.text_chars - len(_CUT)]}{_CUT}"
        return self._text(text, path, self._limits.text_chars)

    def _mark(self, path: str, what: str, why: str) -> str:
        self._note(path, f"became <{what}>: {why}")
        return self._text(f"<{what}>", path, self._limits.text_chars)

    def _note(self, path: str, what: str) -> None:
        # A hostile value can make one note a node; the first sixteen tell the story.
        if len(self._notes) < 16:
            self._notes.append(f"{path[:MAX_KEY_CHARS]}: {what}")


def _integer_text(number: int) -> str:
    if number.bit_length() > _MAX_INT_TEXT_BITS:
        return f"<integer of {number.bit_length()} bits>"
    return str(number)


def _float_text(number: float) -> str:
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"  # noqa: PLR0124 # NaN is the float that differs from itself


def _type_name(value: object) -> str:
    try:
        name = type.__dict__["__name__"].__get__(type(value))
        return str.__str__(name)[:100].encode("ascii", "replace").decode()
    except Exception:  # noqa: BLE001 # a metaclass may do anything
        return "object"


_TEXT_FORMS: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], str]], ...]] = (
    ((dt.datetime, dt.date, dt.time), lambda value: value.isoformat()),
    (dt.timedelta, str),
    (uuid.UUID, str),
    (decimal.Decimal, str),
    (pathlib.PurePath, str),
    (SpanRef, lambda ref: ref.to_traceparent()),
)
