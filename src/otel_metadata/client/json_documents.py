"""Read the JSON documents of a file: one on each line, or spread over lines as pretty-printers and `jq` write them.

This module decides where a document begins and ends, and with which line it is reported. The caller decides what it
means. Lines are read one by one. Documents over several lines are read whole: only a parser knows where one ends.

A file may come from anybody, and a few bytes of gzip can become any number of bytes. So the text of a document is
bounded, and so is the number of its values: these take up to 240 bytes for each three bytes of text
(`{},`, `{"a":0},`).
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

MAX_DOCUMENT_BYTES: Final = 64 << 20
"""Bytes of one line, or of all documents of a file that are spread over lines."""

MAX_DOCUMENT_VALUES: Final = 5_000_000
"""Commas and opening brackets in such a text: the values between them take up to half a gigabyte."""

MAX_SKIPPED_BYTES: Final = 4 << 30
"""Bytes of a line that is too long: its rest is skipped up to here, because a pipe may never end its line."""

_SKIP_BYTES: Final = 1 << 20

# A value that continues on the next line ends like this; a line that was cut off hardly ever does.
_GOES_ON: Final = (b"{", b"[", b",", b":")

_NO_SPACE: Final = re.compile(r"[^ \t\r\n]")
# It only finds the end of a value, so numbers stay texts: Python refuses to read an integer of 4,301 digits.
_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str)


def documents(file: BufferedIOBase, lines_before: int = 0) -> Iterator[tuple[int, int, Any]]:
    """Yield each document with the number of its line, from 1, and its bytes; a ValueError for text that is not JSON.

    Byte order marks (also in the middle, if files were concatenated) and empty lines are skipped. The first line that
    is not empty decides whether documents are spread over lines.

    Args:
        file: The text, or a part of one that begins with a line.
        lines_before: The lines of the parts before this one.
    """
    is_first = lines_before == 0
    for number, line in enumerate(_lines(file), lines_before + 1):
        if isinstance(line, ValueError):
            is_first = False
            yield number, 0, line
            continue
        text = line.removeprefix(codecs.BOM_UTF8).strip()
        if not text:
            continue
        found: Any = _too_many_values(text)
        try:
            found = orjson.loads(text) if found is None else found
        except orjson.JSONDecodeError as error:
            if is_first and text.startswith((b"{", b"[")) and text.endswith(_GOES_ON):
                yield from _spread(text + b"\n" + file.read(MAX_DOCUMENT_BYTES + 1), number)
                return
            found = _no_json(error)
        is_first = False
        yield number, len(text), found


def _lines(file: BufferedIOBase) -> Iterator[bytes | ValueError]:
    """Yield each line; for a line that is too long, yield an error and skip its rest."""
    while line := file.readline(MAX_DOCUMENT_BYTES + 1):
        if len(line) <= MAX_DOCUMENT_BYTES or line.endswith(b"\n"):
            yield line
            continue
        skipped = len(line)
        while line and not line.endswith(b"\n") and skipped <= MAX_SKIPPED_BYTES:
            line = file.readline(_SKIP_BYTES)
            skipped += len(line)
        got = f"a line of more than {MAX_DOCUMENT_BYTES >> 20} MB"
        if skipped > MAX_SKIPPED_BYTES:
            got = f"a line of more than {MAX_SKIPPED_BYTES >> 20} MB, after which nothing was read"
        yield ValueError(f"{got}; expected one request a line, of {MAX_DOCUMENT_BYTES >> 20} MB at most")
        if skipped > MAX_SKIPPED_BYTES:
            return


def _too_many_values(text: bytes) -> ValueError | None:
    """Return an error if the values of a text may take too much memory; commas inside strings count as well."""
    if len(text) <= MAX_DOCUMENT_VALUES or sum(map(text.count, (b",", b"[", b"{"))) <= MAX_DOCUMENT_VALUES:
        return None
    return ValueError(f"JSON of more than {MAX_DOCUMENT_VALUES:,} values; expected smaller requests")


def _spread(text: bytes, number: int) -> Iterator[tuple[int, int, Any]]:
    """Yield the documents of *text*, which begins on line *number*; stop at an error, for the next start is unknown."""
    if len(text) > MAX_DOCUMENT_BYTES:
        limit = f"{MAX_DOCUMENT_BYTES >> 20} MB"
        yield number, 0, ValueError(f"more than {limit} of JSON over several lines; expected one document a line")
        return
    if (problem := _too_many_values(text)) is not None:
        yield number, 0, problem
        return
    # Invalid UTF-8 becomes lone surrogates, which orjson refuses below.
    whole = text.decode("utf-8", "surrogateescape")
    end = 0
    while (start := _NO_SPACE.search(whole, end)) is not None:
        at = start.start()
        number += whole.count("\n", end, at)
        try:
            end = _DECODER.raw_decode(whole, at)[1]
        except json.JSONDecodeError as error:
            yield number + whole.count("\n", at, error.pos), 0, _no_json(error)
            return
        except RecursionError:
            yield number, 0, ValueError("JSON that is nested too deeply")
            return
        try:
            # Python's parser accepts more than JSON; with orjson, a document means the same on one line and on many.
            yield number, end - at, orjson.loads(whole[at:end])
        except orjson.JSONDecodeError as error:
            yield number, 0, _no_json(error)
        number += whole.count("\n", at, end)


def _no_json(error: json.JSONDecodeError) -> ValueError:
    return ValueError(f"no JSON ({error.msg}, column {error.colno})")
