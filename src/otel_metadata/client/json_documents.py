"""The JSON documents of a file: one on each line, or spread over lines as pretty-printers and `jq` write them.

This module decides where a document begins and ends, and which line it is told with; what it means is the caller's.
Lines are read one by one. Documents over several lines are read whole, because only a parser knows where one ends.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from io import BufferedIOBase

__all__ = ["MAX_SPREAD_BYTES", "documents"]

MAX_SPREAD_BYTES: Final = 64 << 20
"""Documents over several lines, all of a file: as text and as values they take ten times as much memory."""

# A value that goes on below ends so; a line that was cut off hardly ever does.
_GOES_ON: Final = (b"{", b"[", b",", b":")

_SPACE: Final = re.compile(r"[ \t\r\n]*")
# It only finds where a value ends, so numbers stay texts: Python refuses to read an integer of 4,301 digits.
_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str)


def documents(file: BufferedIOBase) -> Iterator[tuple[int, Any]]:
    """Yield each document with the number of its line, from 1; a ValueError in place of what is no JSON.

    A mark of byte order at the start and empty lines are passed over. Whether documents are spread over lines is
    decided by the first line that is not empty.
    """
    is_first = True
    for number, line in enumerate(file, 1):
        text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
        if not text:
            continue
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            if is_first and text.startswith((b"{", b"[")) and text.endswith(_GOES_ON):
                yield from _spread(text + b"\n" + file.read(MAX_SPREAD_BYTES + 1), number)
                return
            found = _no_json(error)
        is_first = False
        yield number, found


def _spread(text: bytes, number: int) -> Iterator[tuple[int, Any]]:
    """Yield the documents of *text*, which begins on line *number*; after an error nobody knows where the next is."""
    if len(text) > MAX_SPREAD_BYTES:
        limit = f"{MAX_SPREAD_BYTES >> 20} MB"
        yield number, ValueError(f"more than {limit} of JSON over several lines; expected one document a line")
        return
    # What is no UTF-8 becomes lone surrogates, which orjson refuses below.
    whole = text.decode("utf-8", "surrogateescape")
    end = 0
    while (at := _after_space(whole, end)) < len(whole):
        number += whole.count("\n", end, at)
        try:
            _, end = _DECODER.raw_decode(whole, at)
        except json.JSONDecodeError as error:
            yield number + whole.count("\n", at, error.pos), _no_json(error)
            return
        except RecursionError:
            yield number, ValueError("JSON that is nested too deeply")
            return
        try:
            # Python's reader takes more than JSON has; what a document is, is the same on one line and on many.
            yield number, orjson.loads(whole[at:end])
        except orjson.JSONDecodeError as error:
            yield number, _no_json(error)
        number += whole.count("\n", at, end)


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match is not None else at


def _no_json(error: json.JSONDecodeError) -> ValueError:
    return ValueError(f"no JSON ({error.msg}, column {error.colno})")
