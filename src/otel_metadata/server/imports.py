"""Import of spans under `/api/v1`: lines of an export, or of OTLP as JSON."""

from __future__ import annotations

import io
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from otel_metadata.client import imports
from otel_metadata.errors import FileError
from otel_metadata.server import api_types
from otel_metadata.server.operations import Answer, Call, Operation, Problem, Stream
from otel_metadata.server.projects import refuse_project
from otel_metadata.server.selection import WRONG_BODY
from otel_metadata.server.slots import Slots

if TYPE_CHECKING:
    from otel_metadata.seams import SpanStore

MAX_LINE: Final = 64 << 20
"""Bytes of one line of an import."""

_PORTION: Final = 4 << 20
"""Bytes of an import that are read at once."""

_NO_SPANS: Final = b'{"resourceSpans":[]}\n'

_IMPORTS: Final = Slots(2, "imports")

_OTHER_FORMAT: Final = {
    b"PAR1": "Parquet",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
}


async def _import(call: Call) -> Answer:
    refuse_project(call.caller, "An import stores spans of all projects")
    if "traces:update" not in call.caller.scopes:
        raise Problem(403, "An import updates spans as well; expected a token with the scope traces:update, too.")
    whole = api_types.Imported(0, 0, 0, 0, [], None)
    slot = await _IMPORTS.wait()
    try:
        lines = 0
        async for portion in _portions(call.body):
            report = await call.service.write(partial(_import_portion, call.service.store, portion, lines))
            _add(whole, report, lines)
            lines += portion.count(b"\n")
            call.service.changed()
    finally:
        slot.give_back()
    if whole.spans_imported or whole.updates_imported or whole.spans_failed:
        whole.found_instead = None
    elif not lines:
        whole.found_instead = whole.found_instead or "nothing"
    return Answer(whole)


def _import_portion(store: SpanStore, portion: bytes, lines: int) -> imports.ImportReport:
    # Only the first line of an import decides whether its documents are spread over lines.
    before = _NO_SPANS if lines else b""
    try:
        report = imports.import_file(store, io.BufferedReader(io.BytesIO(before + portion)))
        problems = (replace(one, line=one.line - before.count(b"\n")) for one in report.problems)
        return replace(report, problems=tuple(problems))
    except FileError as error:
        if not lines:
            raise Problem(400, f"{error}".partition(": ")[2] or f"{error}") from None
        count = sum(1 for line in portion.splitlines() if line.strip())
        problem = imports.ImportProblem(1, f"{error}".partition(": ")[2])
        return imports.ImportReport(0, count, 0, (problem,))


def _add(whole: api_types.Imported, report: imports.ImportReport, lines: int) -> None:
    whole.spans_imported += report.spans_imported
    whole.updates_imported += report.updates_imported
    whole.spans_failed += report.spans_failed
    whole.lines_ignored += report.lines_ignored
    room = imports.MAX_PROBLEMS - len(whole.problems)
    whole.problems += [api_types.ImportProblem(lines + one.line, one.message) for one in report.problems[:room]]
    whole.found_instead = whole.found_instead or report.found_instead


async def _portions(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield whole lines, about `_PORTION` bytes at a time.

    Raises:
        Problem: 415 for another format, 413 for a line that is too long, 400 for damaged gzip.
    """
    held = bytearray()
    is_first = True
    async for part in _unpacked(parts):
        held += part
        if is_first and len(held) >= 4:
            is_first = False
            other = next((name for start, name in _OTHER_FORMAT.items() if held.startswith(start)), None)
            if other is not None:
                expected = "lines of JSON: an export of ours (export.jsonl), or OTLP; gzip is taken as well"
                raise Problem(415, f"The body is {other}; expected {expected}.", expected=expected)
        if len(held) >= _PORTION:
            end = held.rfind(b"\n") + 1
            if end:
                yield bytes(held[:end])
                del held[:end]
            elif len(held) > MAX_LINE:
                raise Problem(413, f"A line has more than {MAX_LINE >> 20} MB; expected one span or request a line.")
    if held:
        yield bytes(held)


async def _unpacked(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts of a body; of a gzip file its content, in portions."""
    unpacker: Any = None
    start = b""
    async for part in parts:
        if unpacker is None:
            start += part
            if len(start) < 2:
                continue
            unpacker, part, start = (zlib.decompressobj(31) if start.startswith(b"\x1f\x8b") else False), start, b""  # noqa: PLW2901 # the parts so far
        if unpacker is False:
            yield part
            continue
        data = part
        while data:
            if unpacker.eof:
                unpacker = zlib.decompressobj(31)
            try:
                yield unpacker.decompress(data, _PORTION)
            except zlib.error as error:
                raise Problem(
                    400, f"The gzip of the body is damaged ({error}); what was read before is imported."
                ) from None
            data = unpacker.unconsumed_tail or unpacker.unused_data
    if start:
        yield start
    if unpacker and not unpacker.eof:
        raise Problem(400, "The gzip of the body ends too early; what was read before is imported.")


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
            400: WRONG_BODY,
            403: "The token is for one project, or lacks traces:update.",
            415: "Another format.",
        },
    ),
)
