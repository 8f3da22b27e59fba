"""What can still be read of a damaged spool file: bytes in, frames out. Pure.

SQLite finds its rows through pages that point at pages, so one flipped bit can hide a thousand rows, and a damaged
frame of the write-ahead log hides every later one. Here the file is read without any of that. The pages of the database
are laid out, those of the log over them in the order in which they were written, and each page is searched for our own
frames, which carry their length and checksum. So only a frame whose own bytes were hit is lost.

A frame that does not fit into a page goes on in overflow pages, each beginning with the number of the next; where the
first part ends follows from the size (https://www.sqlite.org/fileformat2.html, sections 1.5 to 1.7 and 4.1).

What is not promised: that a row which was deleted just before is gone. It may be seen again where only the log's
damaged part says so; delivering it again changes nothing (`model.merge`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_metadata.late.frames import HEAD_BYTES, MAGIC, read_frame

__all__ = ["PAGE_BYTES", "salvage"]

PAGE_BYTES: Final = 4096
"""The page size of our spool files."""

_LOG_HEAD_BYTES: Final = 32
_LOG_FRAME_HEAD_BYTES: Final = 24


def salvage(database: bytes, log: bytes) -> dict[int, Mapping[str, Any]]:
    """Return the JSON object of every sound frame, by its number.

    Args:
        database: The bytes of the file, whatever is left of it.
        log: Those of its write-ahead log (`…-wal`); empty for none.
    """
    pages = _pages(database, log)
    found: dict[int, Mapping[str, Any]] = {}
    for page in pages.values():
        at = page.find(MAGIC)
        while at >= 0:
            data = read_frame(page, at) or read_frame(_joined(pages, page, at))
            if data is not None and isinstance(data.get("i"), int):
                found[data["i"]] = data
            at = page.find(MAGIC, at + 1)
    return found


def _pages(database: bytes, log: bytes) -> dict[int, bytes]:
    pages = {
        number + 1: database[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        for number in range(-(-len(database) // PAGE_BYTES))
    }
    # Frames of an earlier round, behind the end of the present one, have other salts.
    salts = log[16:24]
    step = _LOG_FRAME_HEAD_BYTES + PAGE_BYTES
    for at in range(_LOG_HEAD_BYTES, len(log), step):
        head = log[at : at + _LOG_FRAME_HEAD_BYTES]
        page = log[at + _LOG_FRAME_HEAD_BYTES : at + step]
        if head[8:16] == salts or not pages:
            pages[int.from_bytes(head[:4], "big")] = page
        else:
            # A salt that was hit, or a frame of an earlier round: looked at too, but it replaces no page.
            pages[-at] = page
    return pages


def _joined(pages: Mapping[int, bytes], page: bytes, at: int) -> bytes:
    """Return the bytes from *at*, followed through the overflow pages."""
    try:
        length = HEAD_BYTES + int(page[at + 12 : at + HEAD_BYTES], 16)
    except ValueError:
        return b""
    # A row is (NULL, blob): a header of its own size, a 0, and the blob's type as a varint.
    header = 2 + max((2 * length + 12).bit_length() + 6, 7) // 7
    local = _local_bytes(header + length) - header
    if local >= length or local < HEAD_BYTES:
        return b""
    data = page[at : at + local]
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    seen: set[int] = set()
    while len(data) < length and following in pages and following not in seen:
        seen.add(following)
        data += pages[following][4 : 4 + length - len(data)]
        following = int.from_bytes(pages[following][:4], "big")
    return data


def _local_bytes(payload: int) -> int:
    """Return how many bytes of a payload stay on its page: "Cell Payload Overflow Pages" of the file format."""
    usable = PAGE_BYTES
    most, least = usable - 35, (usable - 12) * 32 // 255 - 23
    if payload <= most:
        return payload
    wanted = least + (payload - least) % (usable - 4)
    return wanted if wanted <= most else least
