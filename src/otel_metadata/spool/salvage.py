"""What can still be read of a damaged spool file: bytes in, frames out. Pure.

SQLite finds its rows through pages that point at pages, so one flipped bit can hide a thousand rows, and a damaged
frame of the write-ahead log hides every later one. Here the file is read without any of that. The pages of the database
are laid out, those of the log over them in the order in which they were written, and each page is searched for our own
frames, which carry their length and checksum. So only a frame whose own bytes were hit is lost.

A frame that does not fit into a page goes on in overflow pages, each beginning with the number of the next; where the
first part ends follows from the size (https://www.sqlite.org/fileformat2.html, sections 1.5 to 1.7 and 4.1). A page of
the log that does not have its checksum replaces none: it is searched as well as what was in its place.

What is not promised: that a row which was deleted just before is gone. It may be seen again where only the log's
damaged part says so; delivering it again changes nothing (`model.merge`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple, Protocol

from otel_metadata.spool.frames import HEAD_BYTES, MAGIC, read_frame

PAGE_BYTES: Final = 4096
"""The page size of our spool files."""

_LOG_HEAD_BYTES: Final = 32
_LOG_FRAME_HEAD_BYTES: Final = 24


class Bytes(Protocol):
    """Bytes, or what is sliced like them: a file need not be in memory as a whole."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, where: slice, /) -> bytes:
        """Return a part."""
        ...


class Found(NamedTuple):
    """A sound frame.

    Attributes:
        id: Its number.
        kind: `update`, `span` or `dead`.
        body: The frame, as it was written.
    """

    id: int
    kind: str
    body: bytes


class _Page(NamedTuple):
    source: Bytes
    at: int

    def read(self) -> bytes:
        return self.source[self.at : self.at + PAGE_BYTES]


def salvage(database: Bytes, log: Bytes) -> Iterator[Found]:
    """Yield every sound frame, the present ones first; one that is in several places comes several times.

    Args:
        database: The bytes of the file, whatever is left of it.
        log: Those of its write-ahead log (`…-wal`); empty for none.
    """
    laid_out = _Pages(database, log)
    for place in [*laid_out.present.values(), *laid_out.doubtful]:
        page = place.read()
        at = page.find(MAGIC)
        while at >= 0:
            found = laid_out.frame_at(page, at)
            if found is not None:
                yield found
            at = page.find(MAGIC, at + 1)


class _Pages:
    """Where the pages of a file and its log are.

    Attributes:
        present: Each page as SQLite should see it, by number.
        doubtful: Pages of the log that do not have their checksum, and what was in their places before.
    """

    def __init__(self, database: Bytes, log: Bytes) -> None:
        self.present = {at // PAGE_BYTES + 1: _Page(database, at) for at in range(0, len(database), PAGE_BYTES)}
        self.doubtful: list[_Page] = []
        self._damaged: dict[int, _Page] = {}
        step = _LOG_FRAME_HEAD_BYTES + PAGE_BYTES
        places = range(_LOG_HEAD_BYTES, len(log), step)
        # Those of the present round come first; frames of an earlier one, behind its end, have other salts. The log's
        # own head may have been hit.
        first = [log[16:24], *(log[at + 8 : at + 16] for at in places[:3])]
        salts = max(first, key=first.count)
        order: Literal["<", ">"] = ">" if log[:4] == b"\x37\x7f\x06\x83" else "<"
        before = log[24:32]
        for at in places:
            head = log[at : at + _LOG_FRAME_HEAD_BYTES]
            page = _Page(log, at + _LOG_FRAME_HEAD_BYTES)
            number = int.from_bytes(head[:4], "big")
            if head[8:16] != salts and before:
                before = b""
            is_sound = bool(before) and _checksum(before, head[:8] + page.read(), order) == head[16:24]
            if is_sound:
                self.present[number] = page
            else:
                self.doubtful.append(page)
                self._damaged[number] = page
                # Each frame's checksum begins with that of the one before, so one that was hit spoils no other here.
            if before:
                before = head[16:24]

    def frame_at(self, page: bytes, at: int) -> Found | None:
        """Return the frame that begins at *at*; None where it was hit."""
        for pages in (self.present, {**self.present, **self._damaged} if self._damaged else None):
            body = _frame_at(pages, page, at) if pages is not None else b""
            data = read_frame(body)
            if data is not None and isinstance(data.get("i"), int) and 0 < data["i"] < 1 << 63:
                return Found(data["i"], str(data.get("k")), body)
        return None


def _checksum(seed: bytes, data: bytes, order: Literal["<", ">"]) -> bytes:
    """Return the checksum of a frame of the log: "Checksum Algorithm" of the file format."""
    one, two = struct.unpack(">II", seed)
    words = struct.unpack(f"{order}{len(data) // 8 * 2}I", data[: len(data) // 8 * 8])
    for even, odd in zip(words[::2], words[1::2], strict=True):
        one = (one + even + two) & 0xFFFF_FFFF
        two = (two + odd + one) & 0xFFFF_FFFF
    return struct.pack(">II", one, two)


def _frame_at(pages: Mapping[int, _Page], page: bytes, at: int) -> bytes:
    """Return the bytes of the frame that begins at *at*, followed through the overflow pages."""
    try:
        length = HEAD_BYTES + int(page[at + 12 : at + HEAD_BYTES], 16)
    except ValueError:
        return b""
    # A row is (NULL, blob): a header of its own size, a 0, and the blob's type as a varint.
    header = 2 + max((2 * length + 12).bit_length() + 6, 7) // 7
    local = _local_bytes(header + length) - header
    if local >= length:
        return page[at : at + length]
    if local < HEAD_BYTES:
        return b""
    parts = [page[at : at + local]]
    have = local
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    seen: set[int] = set()
    while have < length and following in pages and following not in seen:
        seen.add(following)
        overflow = pages[following].read()
        parts.append(overflow[4 : 4 + length - have])
        have += len(parts[-1])
        following = int.from_bytes(overflow[:4], "big")
    return b"".join(parts)


def _local_bytes(payload: int) -> int:
    """Return how many bytes of a payload stay on its page: "Cell Payload Overflow Pages" of the file format."""
    usable = PAGE_BYTES
    most, least = usable - 35, (usable - 12) * 32 // 255 - 23
    if payload <= most:
        return payload
    wanted = least + (payload - least) % (usable - 4)
    return wanted if wanted <= most else least
