"""`GET /api/v1/export.jsonl`, `.csv` and `.parquet`: a window of spans, sent as it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast, final

from otel_metadata.client import export
from otel_metadata.client.queries import query_of
from otel_metadata.server import api_types
from otel_metadata.server.operations import Answer, Call, Operation, Problem
from otel_metadata.server.projects import visible_project
from otel_metadata.server.slots import Slots
from otel_metadata.store import table

if TYPE_CHECKING:
    from typing import BinaryIO

    from otel_metadata.model.record import SpanQuery
    from otel_metadata.seams import SpanStore
    from otel_metadata.server.service import Service

_EXPORTS: Final = Slots(4, "exports")

_TRIES: Final = 100
_PAUSE_SECONDS: Final = 0.1
"""A part that finds the pool of readers full is read again after this time, so many times."""


@final
class _Sink:
    """A file that keeps what is written until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, part: Any) -> int:
        data = bytes(part)
        self._parts.append(data)
        self._size += len(data)
        return len(data)

    def writelines(self, parts: Iterator[bytes]) -> None:
        for part in parts:
            self.write(part)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Do nothing: there is no file behind the sink."""

    def close(self) -> None:
        """Do nothing: what was written is taken afterwards."""

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _lines(store: SpanStore, query: SpanQuery) -> Iterator[bytes]:
    return map(b"".join, export.json_lines(store, query))


def _formatted(make: export.Format, store: SpanStore, query: SpanQuery) -> Iterator[bytes]:
    table.schema()  # a missing package is a refusal, and no half answer
    sink = _Sink()
    with make(cast("BinaryIO", sink)) as write:
        for batch in store.export(query):
            write(batch)
            yield sink.take()
    yield sink.take()


async def _export(
    call: Call, parts_of: Callable[[SpanStore, SpanQuery], Iterator[bytes]], media_type: str, suffix: str
) -> Answer:
    given: api_types.Window = call.query
    query = query_of(
        project=visible_project(call.caller, given.project),
        start_time=given.start_time,
        end_time=given.end_time,
        filter=given.filter,
    )
    service = call.service
    stream = _stream(service, parts_of(service.store, query))
    await anext(stream)  # what cannot be read is a refusal, and no half answer
    headers = {"Content-Disposition": f'attachment; filename="spans.{suffix}"', "Cache-Control": "no-store"}
    return Answer(stream, media_type=media_type, headers=headers)


async def _stream(service: Service, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield nothing as soon as the first part of an export is there, then all parts.

    Each is read when the one before has been sent.
    """
    with _EXPORTS.slot():
        part = await service.read(partial(next, parts, None))
        yield b""
        while part is not None:
            if part:
                yield part
            part = await _next(service, parts)


async def _next(service: Service, parts: Iterator[bytes]) -> bytes | None:
    for _ in range(_TRIES):
        try:
            return await service.read(partial(next, parts, None))
        except Problem:
            await asyncio.sleep(_PAUSE_SECONDS)
    raise Problem(503, "The store was not read in time; the export ends here.")


def _operation(suffix: str, media_type: str, parts_of: Callable[[SpanStore, SpanQuery], Iterator[bytes]]) -> Operation:
    return Operation(
        "GET",
        f"/api/v1/export.{suffix}",
        f"export_{suffix}",
        f"Export the spans of a window as {_NAMES[suffix]}, newest start first.",
        partial(_export, parts_of=parts_of, media_type=media_type, suffix=suffix),
        "read",
        tag="reads",
        query=api_types.Window,
        answer=bytes,
        answer_type=media_type.partition(";")[0],
        problems={
            501: "The server lacks pyarrow.",
            503: "Too many exports run.",
        },
    )


_NAMES: Final = {"jsonl": "JSON Lines", "csv": "CSV", "parquet": "Parquet"}

OPERATIONS: Final[tuple[Operation, ...]] = (
    _operation("jsonl", "application/jsonl", _lines),
    _operation("csv", "text/csv; charset=utf-8", partial(_formatted, export.csv)),
    _operation("parquet", "application/vnd.apache.parquet", partial(_formatted, export.parquet)),
)
