"""Find out how large the pages of a Parquet file become, before one of them is unpacked.

A few bytes of zstd can become a page of 2 GB, and the sizes in the footer may be wrong. A reader allocates what the
header in front of each page says. So this module reads those headers, and from the footer the places of the pages:
pyarrow's own objects for these end the process if the footer is damaged
(26.0.1, "Definition level histogram size mismatch"). Headers and footer are in Thrift's compact protocol:
https://github.com/apache/thrift, "thrift-compact-protocol"; the members are those of
https://github.com/apache/parquet-format, "parquet.thrift".
"""

from __future__ import annotations

from typing import IO, Any, Final, NamedTuple, final

# A header has statistics, which may repeat the smallest and the largest value of its page.
_HEADER_BYTES: Final = (256, 1 << 20)

_FOOTER_END: Final = 8  # the footer's length and a magic word
_MAX_DEPTH: Final = 16

# Types of Thrift's compact protocol.
_BOOLEANS: Final = (1, 2)
_INTEGERS: Final = (4, 5, 6)
_LISTS: Final = (9, 10)
_BYTE, _DOUBLE, _BINARY, _STRUCT = 3, 7, 8, 12


class PageError(ValueError):
    """The footer or a header of a page cannot be read; the message says why."""


@final
class Group(NamedTuple):
    """A row group.

    Attributes:
        rows: How many it has.
        chunks: For each column, where its pages begin, and how many bytes of the file they take.
    """

    rows: int
    chunks: list[tuple[int, int]]


@final
class Pages(NamedTuple):
    """The unpacked size of the pages of a column chunk.

    Attributes:
        total: Bytes of all of them.
        largest: Bytes of the largest one.
        values: Values in all of them, counting each value of a list.
    """

    total: int
    largest: int
    values: int


def groups_of(file: IO[bytes]) -> list[Group]:
    """Return the row groups of a Parquet file; moves the position in *file*.

    Raises:
        PageError: The footer cannot be read.
    """
    end = file.seek(0, 2) - _FOOTER_END
    file.seek(end)
    size = int.from_bytes(file.read(4), "little")
    file.seek(max(0, end - size))
    try:
        groups = _Thrift(file.read(size)).struct(0)[4]
        return [Group(group[3], [_chunk(chunk[3]) for chunk in group[1]]) for group in groups]
    except (LookupError, TypeError):
        raise PageError("the footer is damaged") from None


def _chunk(facts: dict[int, Any]) -> tuple[int, int]:
    # The page of a dictionary, if there is one (not 0), comes before the pages of data.
    return min(at for at in (facts[9], facts.get(11, 0)) if at), facts[7]


def pages_of(file: IO[bytes], start: int, size: int) -> Pages:
    """Return the unpacked size of the pages of a column chunk; moves the position in *file*.

    Args:
        file: A Parquet file.
        start: Where the chunk begins.
        size: Its bytes in the file.

    Raises:
        PageError: A header cannot be read.
    """
    total = largest = values = 0
    at, end = start, start + size
    while at < end:
        header, length = _header(file, at, end)
        unpacked, packed = header.get(2), header.get(3)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or min(unpacked, packed) < 0:
            raise PageError("the header of a page has no sizes")
        total += unpacked
        largest = max(largest, unpacked)
        for data in (header.get(5), header.get(8)):  # of either version
            values += data.get(1, 0) if isinstance(data, dict) else 0
        at += length + packed
    return Pages(total, largest, values)


def _header(file: IO[bytes], at: int, end: int) -> tuple[dict[int, Any], int]:
    for size in _HEADER_BYTES:
        file.seek(at)
        thrift = _Thrift(file.read(min(size, end - at)))
        try:
            return thrift.struct(0), thrift.at
        except IndexError:
            continue
    raise PageError("the header of a page does not end")


class _Thrift:
    """Reads values one after the other; raises IndexError if the bytes end too early.

    Attributes:
        at: How many bytes were read.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, depth: int) -> dict[int, Any]:
        """Return the members of a struct by number: integers, structs and lists; None in place of everything else."""
        found: dict[int, Any] = {}
        member = 0
        while head := self._byte():
            member = member + (head >> 4) if head >> 4 else self._signed()
            found[member] = None if head & 15 in _BOOLEANS else self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise PageError("what describes the pages is nested too deeply")
        if kind in _INTEGERS:
            return self._signed()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in _LISTS:
            return self._list(depth + 1)
        if kind not in (_BYTE, _DOUBLE, _BINARY, *_BOOLEANS):
            raise PageError(f"what describes the pages has a member of type {kind}")
        size = self._unsigned() if kind == _BINARY else 8 if kind == _DOUBLE else 1
        self.at += size
        if self.at > len(self._data):
            raise IndexError
        return None

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._unsigned()
        return [self._value(head & 15, depth) for _ in range(count)]  # a wrong count ends with the bytes

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _unsigned(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise PageError("what describes the pages has an integer without end")

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)
