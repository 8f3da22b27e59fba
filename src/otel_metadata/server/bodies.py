"""Bodies and queries of requests: read within limits, decompressed, decoded into the types that operations name."""

from __future__ import annotations

import asyncio
import zlib
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import parse_qsl

import msgspec

from otel_metadata.server.operations import JSON, Problem
from otel_metadata.server.problems import overloaded
from otel_metadata.server.schema_errors import invalid

if TYPE_CHECKING:
    from starlette.types import Receive

MAX_COMPRESSED: Final = 16 << 20
"""The largest compressed body, in bytes."""

MAX_BUFFERED: Final = 256 << 20
"""How many bytes of bodies are in memory at once, of all requests together."""

MAX_PAUSE_SECONDS: Final = 30
"""How long a client may send nothing in the middle of a body."""

LARGE: Final = 256 << 10
"""A body with more bytes is decoded on a thread, so that other requests need not wait."""

MAX_NESTING: Final = 100
"""How deep arrays and objects may be nested in JSON."""

_PORTION: Final = 1 << 20
_UNPACKED_AT_ONCE: Final = 1 << 14
_ENCODINGS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Names of content encodings, with zlib's `wbits` for the format."""

# One call in C per chunk is fast, and between two chunks other threads may run.
_CHECKED_AT_ONCE: Final = 1 << 16
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # 1 and -1 as signed bytes
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")


@final
class Buffered:
    """The bytes of bodies that are in memory, of all requests together. For the event loop alone."""

    def __init__(self) -> None:
        """Start with none."""
        self.size = 0

    def add(self, size: int) -> None:
        """Count *size* bytes more.

        Raises:
            Problem: 503, because too many are in memory already.
        """
        if self.size + size > MAX_BUFFERED:
            raise overloaded("The server holds as many bodies of requests as it can; try again in 1 s.")
        self.size += size


@final
class Body:
    """The body of one request."""

    def __init__(self, receive: Receive, headers: Mapping[str, str], limit: int, buffered: Buffered) -> None:
        """Read nothing yet.

        Args:
            receive: ASGI's.
            headers: With names in lower case.
            limit: The largest size after decompression, in bytes.
            buffered: What the bodies of all requests count into.
        """
        self._receive = receive
        self._headers = headers
        self._limit = limit
        self._buffered = buffered
        self.size = 0  # of what was read into memory

    async def read(self) -> bytes:
        """Return the whole body, decompressed. The caller calls `release` after use.

        Raises:
            Problem: 413 for a body that is too large, 415 for an unknown encoding, 400 for a damaged one, 408 if its
                next part does not come, 503 if the bodies of other requests need the memory.
        """
        compressed = min(self._limit, MAX_COMPRESSED) if self._encoding() != "identity" else self._limit
        parts = []
        async for part in self._unpacked(compressed):
            self._buffered.add(len(part))
            self.size += len(part)
            if self.size > self._limit:
                raise _too_large(self._limit, "decompressed ")
            parts.append(part)
        return b"".join(parts)

    def stream(self) -> AsyncIterator[bytes]:
        """Yield the body in parts of at most 1 MiB or as they come, decompressed, whatever its size.

        Raises:
            Problem: 415 for an unknown encoding, 400 for a damaged body, 408 if its next part does not come.
        """
        return self._unpacked(None)

    def release(self) -> None:
        """Say that the body is not in memory any more."""
        self._buffered.size -= self.size
        self.size = 0

    def _encoding(self) -> str:
        return self._headers.get("content-encoding", "identity").strip().lower()

    async def _unpacked(self, limit: int | None) -> AsyncIterator[bytes]:
        encoding = self._encoding()
        if encoding == "identity":
            async for part in self._received(limit, ""):
                yield part
            return
        if encoding not in _ENCODINGS:
            raise Problem(
                415,
                f"Content-Encoding is {encoding[:40]!r}; expected gzip, deflate or identity.",
                expected="gzip, deflate or identity",
                headers={"Accept-Encoding": "gzip, deflate"},
            )
        unpacker = Unpacker(
            encoding, f"The body is not complete {encoding} data, although Content-Encoding says {encoding}."
        )
        async for received in self._received(limit, "compressed "):
            for part in unpacker.unpack(received):
                yield part
        unpacker.end()

    async def _received(self, limit: int | None, what: str) -> AsyncIterator[bytes]:
        declared = self._headers.get("content-length", "")
        if limit is not None and declared.isdecimal() and int(declared) > limit:
            raise _too_large(limit, what)
        size = 0
        while True:
            try:
                message = await asyncio.wait_for(self._receive(), MAX_PAUSE_SECONDS)
            except asyncio.TimeoutError:
                title = f"No byte of the body came for {MAX_PAUSE_SECONDS:g} s; expected the rest."
                raise Problem(408, title, headers={"Connection": "close"}) from None
            if message["type"] == "http.disconnect":
                raise Problem(400, "The connection was closed before the end of the body.")
            part: bytes = message.get("body", b"")
            size += len(part)
            if limit is not None and size > limit:
                raise _too_large(limit, what)
            if part:
                yield part
            if not message.get("more_body", False):
                return


@final
class Unpacker:
    """Decompresses a body in portions, so that a bomb is seen before it is in memory."""

    def __init__(self, encoding: str, damaged: str) -> None:
        """Expect *encoding*, one of `_ENCODINGS`; *damaged* is the title of the refusal of anything else."""
        self._wbits = _ENCODINGS[encoding]
        self._damaged = damaged
        self._stream = zlib.decompressobj(self._wbits)
        self._is_begun = False

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Yield what *data* holds, at most `_PORTION` bytes at a time.

        Raises:
            Problem: It is not of this encoding.
        """
        # Each member copies what follows it in its piece: with pieces, many small members cost no square of their size.
        for begin in range(0, len(data), _UNPACKED_AT_ONCE):
            rest = data[begin : begin + _UNPACKED_AT_ONCE]
            while rest:
                if self._stream.eof:  # gzip may have several members, one behind the other (RFC 1952, 2.2)
                    self._stream = zlib.decompressobj(self._wbits)
                self._is_begun = True
                try:
                    part = self._stream.decompress(rest, _PORTION)
                except zlib.error:
                    raise Problem(400, self._damaged) from None
                rest = self._stream.unconsumed_tail or self._stream.unused_data
                yield part

    def end(self) -> None:
        """Say that nothing follows.

        Raises:
            Problem: The end is missing.
        """
        if self._is_begun and not self._stream.eof:
            raise Problem(400, self._damaged)


def _too_large(limit: int, what: str) -> Problem:
    return Problem(
        413,
        f"The {what}body is larger than {limit:,} bytes; expected less: send it in parts.",
        expected=f"{limit} bytes",
    )


def refuse_deep(body: bytes) -> None:
    """Refuse JSON that is nested more than `MAX_NESTING` deep.

    Raises:
        Problem: It is nested too deep.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_NESTING:
        return
    level, is_in_string, end = 0, 0, 0
    while end < len(body):
        begin, end = end, end + _CHECKED_AT_ONCE
        chunk = body[begin:end]
        if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2:  # it ends in the middle of an escape
            chunk = body[begin : end + 1]
            end += 1
        parts = chunk.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        steps = array("b", b"".join(parts[is_in_string::2]).translate(_STEPS, _NO_BRACKETS))
        is_in_string ^= (len(parts) - 1) % 2
        if max(accumulate(steps, initial=level)) > MAX_NESTING:
            raise Problem(400, f"The JSON is nested more than {MAX_NESTING} deep; expected less.")
        level += sum(steps)


def decode(body: bytes, content_type: str, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Return the value of a JSON body.

    Raises:
        Problem: 415 for another type of content, 400 for a body that is not what the decoder expects.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != JSON and not media_type.endswith("+json"):
        got = f"is {media_type[:100]!r}" if media_type else "is missing"
        raise Problem(415, f"Content-Type {got}; expected {JSON}.", expected=JSON)
    refuse_deep(body)
    try:
        return decoder.decode(body)
    except RecursionError:
        raise Problem(400, f"The JSON is nested more than {MAX_NESTING} deep; expected less.") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise invalid("The body", error, decoder.type, pointer="") from None


def decode_query(text: bytes, query: type) -> Any:
    """Return the parameters after the `?`.

    Raises:
        Problem: One is unknown, given twice, or of another type than *query* expects.
    """
    values: dict[str, Any] = {}
    lists = {
        one.encode_name for one in msgspec.structs.fields(query) if getattr(one.type, "__origin__", one.type) is list
    }
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=200)
    except ValueError:
        raise Problem(400, "The query is not text in UTF-8 with %-escapes, or has more than 200 parameters.") from None
    for name, value in pairs:
        if name in lists:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise Problem(400, f"The query has the parameter {name[:100]!r} twice; expected it once.")
        else:
            values[name] = value
    try:
        return msgspec.convert(values, query, strict=False)
    except msgspec.ValidationError as error:
        raise invalid("The query", error, query, pointer=None) from None
