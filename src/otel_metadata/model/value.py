"""The bounded clean-up: any Python value becomes JSON, and no value can harm the application or its batch.

This module decides the JSON form of a value, and what is left out when there is too much. It runs once, before a value
is set, spooled or sent. `contents` reads what an object holds.

Why so strict (OpenTelemetry SDK 1.45.2, 20,000 hostile values): 4,593 values made `Span.set_attribute` raise into the
application; 32 nested maps make a receiver refuse the whole batch; one lone surrogate loses the batch. So only exact
builtin types come out, with bounds on depth, nodes and text. No code of the application's types runs, because it may
query a database or raise. Every part that is replaced or left out leaves a mark in the value, and a note with the
update.
"""

from __future__ import annotations

import base64
import enum
import itertools
import math
from typing import Any, Final, NamedTuple, TypeAlias, cast, final

import orjson

from otel_metadata.interrupts import pass_on
from otel_metadata.model.contents import OPAQUE, Instead, Opaque, Parts, contents, enum_value, named_tuple, type_name
from otel_metadata.model.merge import Json, json_text


@final
class Limits(NamedTuple):
    """Bounds of one clean-up. A value beyond a bound is cut, with a note.

    Attributes:
        depth: Nesting of lists and dicts. OTLP receivers parse 100 protobuf levels, and each of ours takes three.
        nodes: Number of values on all levels.
        text_chars: Characters of one text.
        total_chars: Characters of all texts and keys together.
    """

    depth: int = 16
    nodes: int = 10_000
    text_chars: int = 32_768
    total_chars: int = 262_144


METADATA_LIMITS: Final = Limits()
"""For metadata, attributes, tags, evaluations and annotations."""

CAPTURE_LIMITS: Final = Limits(text_chars=262_144, total_chars=1_048_576)
"""For captured input and output: prompts are longer than metadata."""

STORE_LIMITS: Final = Limits(depth=64, nodes=10_000_000, text_chars=1 << 31, total_chars=1 << 31)
"""For a span's own attributes on their way into a store: all that OpenTelemetry accepted is kept."""

MAX_KEY_CHARS: Final = 256

_SHORT_TEXT_CHARS: Final = METADATA_LIMITS.text_chars

# So many texts of at most 32 Ki characters are within every budget.
_SMALL_DICT: Final = 7

_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1
# str() of an int takes quadratic time, and is refused above 4,300 digits since Python 3.11; 2,048 bits are 617 digits.
_MAX_INT_TEXT_BITS: Final = 2_048
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_CUT: Final = "<cut>"
_BYTES: Final[tuple[Any, ...]] = (bytes, bytearray, memoryview)
_ITERABLES: Final[tuple[Any, ...]] = (list, tuple, set, frozenset)
_BUILTIN_CONTAINERS: Final = (dict, *_ITERABLES)

# When there is too much: every text keeps this many characters, and a list or dict keeps room for its mark.
_SHORT: Final = 256
_MARK_CHARS: Final = 32
# An item of at most this many values, such as a row or a message, is kept whole or not at all.
_WHOLE: Final = 32
_IMAGE_HEAD: Final = 128


def is_clean_scalar(value: object) -> bool:
    """Whether `clean` returns *value* as it is; quick for the hot path.

    True for None, an exact bool, an int within 64 bits, a finite float, and a short ASCII text without NUL.
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

    An exact builtin type in range is returned as it is. Known types (datetime, UUID, Enum, Decimal, Path, set, tuple,
    bytes, dataclass, attrs, msgspec, pydantic, named tuple, exception, numpy scalar or array, ...) become their JSON
    form, read without running their code (`contents`). NaN, infinities and integers beyond 64 bits become text. Lone
    surrogates and NUL become U+FFFD. A cycle, a value that is too deep, and every other type become a marked substitute
    such as `"<Session>"`, with a note.

    Where there are too many values or characters, small parts stay, and large parts are cut and marked: a list ends
    with `"<1,667 more>"`, a dict has this text under the key `"<cut>"`, a text ends with `<cut>`.

    Args:
        value: Anything. A later change of it by the caller has no effect.
        notes: Gets one sentence for each change. It names *path* and types, never values.
        path: The name of the value in the notes: `"metadata.customer"`.
        limits: See `Limits`.
    """
    if is_clean_scalar(value):
        return value  # type: ignore[return-value] # is_clean_scalar has decided
    if type(value) is dict and len(value) <= _SMALL_DICT:
        # The common case of captured arguments: a small dict of scalars, which needs no budget.
        copy = value.copy()
        if all(
            type(key) is str and 0 < len(key) <= MAX_KEY_CHARS and is_clean_scalar(key) and is_clean_scalar(item)
            for key, item in copy.items()
        ):
            return copy
    told = len(notes)
    try:
        return cast("Json", _Cleaner(notes, limits).clean(value, (None, path)))
    except _TooMuchError:
        del notes[told:]
    return _SharingCleaner(notes, limits).shared(value, (None, path))


def clean_key(key: object, notes: list[str], path: str) -> str:
    """Return the text form of a metadata key: at most 256 characters, not empty, without lone surrogates."""
    if type(key) is str and 0 < len(key) <= MAX_KEY_CHARS and key.isascii() and "\0" not in key:
        return key
    return _Cleaner(notes, METADATA_LIMITS).key(key, (None, path))


def is_cut(note: str) -> bool:
    """Whether a note says that a part of the value is missing because it was too much."""
    return ": cut" in note


def is_opaque(note: str) -> bool:
    """Whether a note says that the value, or a part of it, became the name of its type."""
    return ": became <" in note


_Path: TypeAlias = "tuple[_Path | None, object]"
"""The path of the container, and a key or index. The text is made only for a note."""


class _TooMuchError(Exception):
    """The value is beyond a limit, so its parts have to share the room."""


class _Cleaner:
    """One clean-up: the budgets that are left, and the containers that are open.

    The result is within every limit, marks and cuts included, and a value within every limit is not changed. So a value
    that was cleaned once (before a mask, by another process) comes out of a second clean-up as it is.
    """

    def __init__(self, notes: list[str], limits: Limits) -> None:
        self._notes = notes
        self._limits = limits
        self._nodes = limits.nodes
        self._chars = limits.total_chars
        self._open: set[int] = set()

    def clean(self, value: object, path: _Path, depth: int = 0, floor: int = 0) -> Any:
        """Return the JSON form of *value*, and leave *floor* nodes for the values after it."""
        try:
            return self._clean(value, path, depth, floor)
        except _TooMuchError:
            raise
        except BaseException as error:  # noqa: BLE001 # a value may be broken in every way
            pass_on(error)
            return self._mark(path, f"unreadable {type_name(value)}", f"reading it raised {type_name(error)}")

    def key(self, key: object, path: _Path) -> str:
        try:
            text = self._key_text(key, path)
        except BaseException as error:  # noqa: BLE001 # as above
            pass_on(error)
            text = f"<unreadable {type_name(key)}>"
            self._note(path, f"a key of type {type_name(key)} could not be read")
        if not text:
            self._note(path, "an empty key became <empty>")
            text = "<empty>"
        return self._fit(self._cut(text, path, MAX_KEY_CHARS), path)

    def _key_text(self, key: object, path: _Path) -> str:
        if issubclass(type(key), enum.Enum):
            key = enum_value(key)
        kind = type(key)
        if issubclass(kind, str):
            return str.__str__(key)
        if key is None or kind is bool or kind is int or kind is float:
            self._note(path, f"a key of type {type_name(key)} became text")
            if is_clean_scalar(key):
                return json_text(key)  # type: ignore[arg-type] # is_clean_scalar has decided
            return _float_text(key) if kind is float else _integer_text(key)  # type: ignore[arg-type] # one of the two
        if kind is bytes and len(key) <= MAX_KEY_CHARS:  # type: ignore[arg-type] # the exact type was just tested
            # Header names are written like this. With one substitute for all of them, a mask would not know them.
            self._note(path, "a key of type bytes became text")
            return bytes.decode(key, "utf-8", "replace")  # type: ignore[arg-type] # the same
        self._note(path, f"a key of type {type_name(key)} became <{type_name(key)}>")
        return f"<{type_name(key)}>"

    def _clean(self, value: object, path: _Path, depth: int, floor: int) -> Any:
        kind = type(value)
        self._nodes -= 1
        if self._nodes < 0:
            raise _TooMuchError
        return self._form(value, kind, path, depth, floor)

    def _form(self, value: object, kind: type, path: _Path, depth: int, floor: int) -> Any:
        if value is None or kind is bool:
            return value
        if issubclass(kind, enum.Enum):
            inner = enum_value(value)
            return (
                self._form(inner, type(inner), path, depth, floor) if inner is not value else self._unknown(value, path)
            )
        if issubclass(kind, str):
            return self._text(str.__str__(value), path)
        if issubclass(kind, int):
            return self._integer(int.__int__(value), path)  # type: ignore[arg-type] # a subclass of int
        if issubclass(kind, float):
            return self._float(float.__float__(value), path)  # type: ignore[arg-type] # a subclass of float
        for base in _BYTES:
            if issubclass(kind, base):
                return self._bytes(value, base, path)
        if id(value) in self._open:
            return self._mark(path, "cycle", "it contains itself")
        self._open.add(id(value))
        try:
            return self._container(value, kind, path, depth, floor)
        finally:
            self._open.discard(id(value))

    def _container(self, value: Any, kind: type, path: _Path, depth: int, floor: int) -> Any:
        if issubclass(kind, dict):
            return self._parts(Parts(dict.items(value), dict.__len__(value), is_mapping=True), path, depth, floor)
        for base in _ITERABLES:
            if issubclass(kind, base):
                fields = named_tuple(value, kind) if base is tuple and kind is not tuple else None
                if fields is not None:
                    return self._parts(fields, path, depth, floor)
                # The base type's own iterator: a subclass's iterator is foreign code.
                is_set = base is set or base is frozenset
                return self._parts(Parts(base.__iter__(value), base.__len__(value), is_set=is_set), path, depth, floor)
        found = contents(value, kind, self._limits.nodes)
        if isinstance(found, str):
            return self._text(found, path)
        if isinstance(found, Instead):
            return self._form(found.value, type(found.value), path, depth, floor)
        if isinstance(found, Opaque):
            return self._unknown(value, path, found)
        return self._parts(found, path, depth, floor)

    def _unknown(self, value: object, path: _Path, what: Opaque = OPAQUE) -> str:
        kind = type_name(value)
        return self._mark(path, what.name or kind, what.why or f"a {kind} has no JSON form here; convert it first")

    def _parts(self, parts: Parts, path: _Path, depth: int, floor: int) -> Any:
        if depth >= self._limits.depth:
            return self._mark(path, "too deep", f"more than {self._limits.depth} levels")
        return (self._mapping if parts.is_mapping else self._sequence)(parts, path, depth, floor)

    def _mapping(self, parts: Parts, path: _Path, depth: int, _: int) -> Any:
        if parts.size > self._nodes:
            raise _TooMuchError
        result: dict[str, Json] = {}
        # One C call copies the items, so a thread that changes the dict at the same time cannot break the iteration.
        for key, value in list(itertools.islice(parts.items, self._nodes + 1)):
            text = self._new_key(key, result, path)
            result[text] = self.clean(value, (path, text), depth + 1)
        return result

    def _new_key(self, key: object, result: dict[str, Json], path: _Path) -> str:
        if type(key) is str and 0 < len(key) <= MAX_KEY_CHARS and key.isascii() and "\0" not in key:
            text = key
        else:
            text = self.key(key, path)
        self._take(len(text))
        if text in result:
            self._note(path, "two keys are the same as text; the later one wins")
        return text

    def _sequence(self, parts: Parts, path: _Path, depth: int, _: int) -> Any:
        if parts.size > self._nodes:
            raise _TooMuchError
        snapshot = list(itertools.islice(parts.items, self._nodes + 1))
        items = [self.clean(value, (path, index), depth + 1) for index, value in enumerate(snapshot)]
        return sorted(items, key=json_text) if parts.is_set else items

    def _take(self, chars: int) -> None:
        self._chars -= chars
        if self._chars < 0:
            raise _TooMuchError

    def _text(self, text: str, path: _Path) -> Any:
        return self._short_text(text, path, self._limits.text_chars)

    def _short_text(self, text: str, path: _Path, limit: int) -> str:
        text = self._cut(text, path, limit)
        self._take(len(text))
        return self._fit(text, path)

    def _cut(self, text: str, path: _Path, limit: int) -> str:
        if len(text) <= limit:
            return text
        if _is_image(text):
            limit = min(limit, _IMAGE_HEAD)  # A part of an image is no image.
        self._note(path, f"cut from {len(text)} to {limit} characters")
        return _with_mark(text, limit)

    def _fit(self, text: str, path: _Path) -> str:
        if "\0" in text:
            self._note(path, "NUL characters became U+FFFD")
            text = text.replace("\0", _REPLACEMENT)
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:
            self._note(path, "lone surrogates became U+FFFD")
            return _without_surrogates(text)
        return text

    def _integer(self, number: int, path: _Path) -> Any:
        if _INT64_MIN <= number <= _INT64_MAX:
            return number
        self._note(path, "an integer beyond 64 bits became text")
        return self._text(_integer_text(number), path)

    def _float(self, number: float, path: _Path) -> Any:
        if math.isfinite(number):
            return number
        self._note(path, f"{_float_text(number)} became text")
        return self._text(_float_text(number), path)

    def _bytes(self, value: Any, base: Any, path: _Path) -> Any:  # bytes, bytearray or memoryview, and its class
        return self._short_text(
            self._decoded(value, base, path, self._limits.text_chars), path, self._limits.text_chars
        )

    def _decoded(self, value: Any, base: Any, path: _Path, limit: int) -> str:
        # The base type's own methods: a subclass's methods are foreign code. Bytes beyond the limit are not read.
        size = base.__len__(value)
        head = bytes(base.__getitem__(value, slice(limit)))
        is_cut = size > limit
        try:
            text = head.decode()
        except UnicodeDecodeError as error:
            if is_cut and error.start >= len(head) - 3:
                text = head[: error.start].decode()  # The cut went through a character.
            else:
                self._note(path, "bytes became base64 text")
                # Three bytes are four characters.
                room = max(limit - len(_CUT), 0) // 4 * 3
                is_cut = is_cut or len(head) > room
                text = base64.b64encode(head[:room]).decode()
        if is_cut:
            self._note(path, f"cut from {size} bytes")
            text = f"{text[: max(limit - len(_CUT), 0)]}{_CUT}"[:limit]
        return text

    def _mark(self, path: _Path, what: str, why: str) -> str:
        self._note(path, f"became <{what}>: {why}")
        return self._short_text(f"<{what}>", path, self._limits.text_chars)

    def _note(self, path: _Path, what: str) -> None:
        # A hostile value can cause a note for each node. Sixteen are enough; the last two are kept for cuts.
        note = f"{_path_text(path)}: {what}"
        if len(self._notes) < (16 if is_cut(note) else 14) and note not in self._notes:
            self._notes.append(note)


@final
class _Long:
    """A text or bytes whose share is not decided yet.

    Attributes:
        value: The text or bytes.
        base: Its builtin class.
        path: Its name in the notes.
        wanted: Characters that it needs to stay whole.
        room: Characters that it gets.
    """

    __slots__ = ("base", "path", "room", "value", "wanted")

    def __init__(self, value: Any, base: Any, path: _Path, wanted: int, room: int) -> None:
        self.value = value
        self.base = base
        self.path = path
        self.wanted = wanted
        self.room = room


@final
class _SharingCleaner(_Cleaner):
    """A clean-up of a value that is beyond a limit: small parts stay, and large parts share the rest.

    Values: a dict keeps its small parts first, and its large parts share the rest. A list keeps its items in order; an
    item takes at most half of what is left, and small items (rows, messages) are kept whole or not at all.

    Characters: every text keeps its beginning, and the long texts share the rest evenly, so that the shorter ones among
    them stay whole. An image (a `data:` URL) that does not fit as a whole keeps only its head.
    """

    def __init__(self, notes: list[str], limits: Limits) -> None:
        super().__init__(notes, limits)
        self._long: list[_Long] = []
        # They are smaller where a test sets tight limits.
        self._short = max(min(_SHORT, limits.total_chars // 8), 8)
        self._mark_chars = min(_MARK_CHARS, limits.total_chars // 8)

    def shared(self, value: object, path: _Path) -> Json:
        """Return the JSON form of *value*, within every limit."""
        result = self.clean(value, path)
        self._share_out()
        return cast("Json", self._finished(result))

    def _mapping(self, parts: Parts, path: _Path, depth: int, floor: int) -> Any:
        room = self._nodes - floor
        # Small parts are sought among the first pairs only, so that the search costs no more than the parts kept.
        pairs = list(itertools.islice(parts.items, 8 * max(room, 0) + 64))
        size = max(parts.size, len(pairs))
        if size and room < 1:
            return self._more(size, path, is_counted=True)
        kept: dict[int, tuple[str, Any]] = {}
        names: dict[str, Json] = {}
        for done, at in enumerate(sorted(range(len(pairs)), key=lambda at: _least(pairs[at][1]))):
            key, value = pairs[at]
            below = self._floor(value, size - done, floor, depth, share_of=size - done)
            text = "" if below is None else self.key(key, path)
            if below is None or len(text) > self._chars - self._short - self._mark_chars * (depth + 1):
                break
            self._new_key(text, names, path)
            names[text] = None
            kept[at] = text, self.clean(value, (path, text), depth + 1, below)
        result = dict(kept[at] for at in sorted(kept))
        if len(kept) < size and self._chars > len(_CUT):
            self._chars -= len(_CUT)
            result[_CUT] = self._more(size - len(kept), path)
        return result

    def _sequence(self, parts: Parts, path: _Path, depth: int, floor: int) -> Any:
        room = self._nodes - floor
        items = list(itertools.islice(parts.items, max(room, 0) + 1))
        size = max(parts.size, len(items))
        if size and room < 1:
            return self._more(size, path, is_counted=True)
        result: list[Any] = []
        for index, value in enumerate(items):
            below = self._floor(value, size - index, floor, depth, share_of=2)
            if below is None:
                break
            result.append(self.clean(value, (path, index), depth + 1, below))
        if parts.is_set:
            result.sort(key=_set_order)
        if len(result) < size:
            result.append(self._more(size - len(result), path))
        return result

    def _floor(self, value: object, left: int, floor: int, depth: int, *, share_of: int) -> int | None:
        """Return how many nodes *value* must leave for what comes after it; None when there is no room for it.

        Args:
            value: The next part of a container.
            left: How many parts the container has from this one on.
            floor: How many nodes the container must leave.
            depth: The depth of the container.
            share_of: A large value may take one part in this many of what is left.
        """
        room = self._nodes - floor
        if self._chars < self._short + self._mark_chars * (depth + 1):
            return None
        if left == 1:
            return floor
        least = _least(value)
        if room < 2 or room - 1 < least <= _WHOLE:  # one for it, one for the mark
            return None
        return floor + room - min(max(room // share_of, least if least <= _WHOLE else 1), room - 1)

    def _more(self, count: int, path: _Path, *, is_counted: bool = False) -> str:
        self._nodes -= not is_counted
        self._note(path, f"cut: more than {self._limits.nodes} values, or {self._limits.total_chars} characters")
        return self._short_text(f"<{count:,} more>", path, self._limits.text_chars)

    def _take(self, chars: int) -> None:
        self._chars -= chars

    def _short_text(self, text: str, path: _Path, limit: int) -> str:
        return super()._short_text(text, path, min(limit, max(self._chars, 0)))

    def _text(self, text: str, path: _Path) -> Any:
        if len(text) <= self._short:
            return super()._text(text, path)
        return self._later(text, str, path, len(text))

    def _bytes(self, value: Any, base: Any, path: _Path) -> Any:
        size = base.__len__(value)
        if size <= self._short // 2:
            return super()._bytes(value, base, path)
        return self._later(value, base, path, size * 4 // 3 + _MARK_CHARS)  # as much as it takes as base64

    def _later(self, value: Any, base: Any, path: _Path, size: int) -> _Long:
        wanted = min(size, self._limits.text_chars)
        one = _Long(value, base, path, wanted, min(self._short, wanted, max(self._chars, 0)))
        self._chars -= one.room
        self._long.append(one)
        return one

    def _share_out(self) -> None:
        """Share what is left: evenly among long texts, then among images that can stay whole."""
        rest = max(self._chars, 0)
        texts = [one for one in self._long if not _is_image(one.value)]
        for count, one in enumerate(sorted(texts, key=lambda one: one.wanted - one.room)):
            more = min(one.wanted - one.room, rest // (len(texts) - count))
            one.room += more
            rest -= more
        images = [one for one in self._long if _is_image(one.value)]
        for one in sorted(images, key=lambda one: len(one.value)):
            missing = len(one.value) - one.room
            if len(one.value) <= one.wanted and missing <= rest:
                one.room += missing
                rest -= missing

    def _finished(self, value: Any) -> Any:
        if type(value) is _Long:
            text = value.value
            if value.base is not str:
                text = self._decoded(text, value.base, value.path, value.room)
            return self._fit(self._cut(text, value.path, value.room), value.path)
        if type(value) is list:
            return [self._finished(item) for item in value]
        if type(value) is dict:
            return {key: self._finished(item) for key, item in value.items()}
        return value


def _set_order(item: Any) -> bytes:
    return orjson.dumps(item, default=_beginning, option=orjson.OPT_SORT_KEYS)


def _beginning(long: _Long) -> str:
    """Return the sort key of a long text in a set. It is not called for values of the application."""
    head = long.value[:_SHORT]
    return _without_surrogates(head) if long.base is str else repr(bytes(head))


def _least(value: object) -> int:
    """Return the least number of values in *value*, as far as its builtin class shows."""
    kind = type(value)
    return 1 + len(value) if any(kind is one for one in _BUILTIN_CONTAINERS) else 1  # type: ignore[arg-type] # one of these


def _is_image(value: object) -> bool:
    return type(value) is str and value.startswith("data:")


def _with_mark(text: str, limit: int) -> str:
    """Return the beginning of a text with the mark that something is missing, *limit* characters in all."""
    return f"{text[: limit - len(_CUT)]}{_CUT}" if limit >= len(_CUT) else text[:limit]


def _without_surrogates(text: str) -> str:
    return "".join(_REPLACEMENT if "\ud800" <= char <= "\udfff" else char for char in text)


def _path_text(path: _Path) -> str:
    keys: list[str] = []
    above: _Path | None = path
    while above is not None:
        above, key = above
        keys.append(str(key))
    return ".".join(reversed(keys))[:MAX_KEY_CHARS]


def _integer_text(number: int) -> str:
    if number.bit_length() > _MAX_INT_TEXT_BITS:
        return f"<integer of {number.bit_length()} bits>"
    return str(number)


def _float_text(number: float) -> str:
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"  # noqa: PLR0124 # NaN is the float that differs from itself
