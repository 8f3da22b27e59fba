"""Import of spans under `/api/v1`: lines of an export, or of OTLP as JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final, TypeVar

from otel_metadata.client.imports import GZIP, PARQUET, START_BYTES, Importer, other_kind
from otel_metadata.errors import FileError
from otel_metadata.model.authors import AUTHORS
from otel_metadata.server import api_types
from otel_metadata.server.bodies import Unpacker
from otel_metadata.server.operations import Answer, Call, Operation, Problem, Stream
from otel_metadata.server.projects import refuse_project
from otel_metadata.server.slots import Slots

T = TypeVar("T")

MAX_LINE: Final = 64 << 20
"""Bytes of one line of an import."""

_PORTION: Final = 4 << 20
"""Bytes of an import that are read at once."""

_IMPORTS: Final = Slots(2, "imports")


async def _import(call: Call) -> Answer:
    refuse_project(call.caller, "An import stores spans of all projects")
    if "traces:update" not in call.caller.scopes:
        raise Problem(403, "An import updates spans as well; expected a token with the scope traces:update, too.")
    importer = Importer(call.service.store, "The body", is_checked=True)
    await _IMPORTS.wait()
    try:
        with _IMPORTS.slot():
            async for portion in _portions(call.body):
                await call.service.write(partial(_named_by, call, partial(importer.feed, portion)))
                call.service.changed()
            report = await call.service.write(partial(_named_by, call, importer.report))
    except FileError as error:
        raise Problem(400, f"{error}") from None
    finally:
        call.service.changed()
    return Answer(
        api_types.Imported(
            report.spans_imported,
            report.updates_imported,
            report.spans_failed,
            report.lines_ignored,
            [api_types.ImportProblem(one.line, one.message) for one in report.problems],
            report.found_instead,
        )
    )


def _named_by(call: Call, work: Callable[[], T]) -> T:
    """Do *work*, which takes over only the names of writers that the caller may bring."""
    with AUTHORS.taking(call.service.may_name(call.caller)):
        return work()


async def _portions(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield whole lines, about `_PORTION` bytes at a time.

    Raises:
        Problem: 415 for another format, 413 for a line that is too long, 400 for damaged gzip.
    """
    held = bytearray()
    end = 0  # behind the last whole line; only what is new is searched, because parts may be of one byte
    is_first = True
    async for part in _unpacked(parts):
        line_end = part.rfind(b"\n") + 1
        if line_end:
            end = len(held) + line_end
        held += part
        if is_first and len(held) >= START_BYTES:
            is_first = False
            _check_format(held)
        if len(held) >= _PORTION:
            if end:
                yield bytes(held[:end])
                del held[:end]
                end = 0
            elif len(held) > MAX_LINE:
                raise Problem(413, f"A line has more than {MAX_LINE >> 20} MB; expected one span or request a line.")
    if is_first:
        _check_format(held)
    if held:
        yield bytes(held)


def _check_format(held: bytearray) -> None:
    other = other_kind(bytes(held[:START_BYTES]))
    if other is not None:
        got = "Parquet" if held.startswith(PARQUET) else other[0]
        expected = "lines of JSON: an export of ours (export.jsonl), or OTLP; gzip is taken as well"
        raise Problem(415, f"The body is {got}; expected {expected}.", expected=expected)


async def _unpacked(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts of a body; of a gzip file its content, in portions."""
    start, is_begun = b"", False
    unpacker: Unpacker | None = None
    async for part in parts:
        if not is_begun:
            start += part
            if len(start) < len(GZIP):
                continue
            is_begun, part = True, start  # noqa: PLW2901 # the parts so far
            if start.startswith(GZIP):
                unpacker = Unpacker("gzip", "The gzip of the body is damaged; what was read before is imported.")
        for piece in unpacker.unpack(part) if unpacker is not None else (part,):
            yield piece
    if start and not is_begun:
        yield start
    if unpacker is not None:
        unpacker.end()


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "POST",
        "/api/v1/import",
        "import_spans",
        "Import lines of an export, or of OTLP as JSON.",
        _import,
        "traces:write",
        tag="updates",
        body=Stream,
        body_types=("application/jsonl", "application/x-ndjson", "application/json", "application/gzip"),
        answer=api_types.Imported,
        problems={
            403: "The token is for one project, or lacks traces:update.",
            415: "Another format.",
        },
    ),
)
