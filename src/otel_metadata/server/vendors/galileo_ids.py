"""Galileo's ids and OpenTelemetry's.

Galileo knows a record by a UUID of version 4. Of a record that came through Galileo's own API, OpenTelemetry's ids
follow from the UUID: the trace id is the UUID of the trace, and the span id is the second half of a record's UUID. So
every server finds a record again, on any store and after a restart, without a table that grows with the spans. Half of
a UUID has 62 random bits, as many as matter in a random span id.

A span that came through OTLP has no UUID. In a path, its own 16 digits, or the 32 of its trace, are accepted instead.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from uuid import UUID

from otel_metadata.server.operations import Problem

_TRACE_ID: Final = re.compile("[0-9a-f]{32}")
_SPAN_ID: Final = re.compile("[0-9a-f]{16}")

_VERSION: Final = 4


def uuid4(value: object, pointer: str) -> UUID:
    """Return a UUID of version 4.

    Raises:
        Problem: 422 in the words of FastAPI, which Galileo's server is made with.
    """
    if not isinstance(value, str):
        raise unprocessable(pointer, "uuid_type", "UUID input should be a string, bytes or UUID object")
    try:
        found = UUID(value)
    except ValueError:
        raise unprocessable(
            pointer, "uuid_parsing", "Input should be a valid UUID, as 32 hexadecimal digits with or without hyphens"
        ) from None
    if found.version != _VERSION:
        raise unprocessable(pointer, "uuid_version", "UUID version 4 expected")
    return found


def unprocessable(pointer: str, kind: str, message: str) -> Problem:
    """Return a refusal with status 422.

    Args:
        pointer: The place: `/path/span_id`, `/body/tags/0`.
        kind: What FastAPI calls the problem, such as `uuid_parsing`.
        message: For people.
    """
    return Problem(422, message, pointer=pointer, expected=kind)


def trace_id_in_path(text: str) -> str:
    """Return OpenTelemetry's id of a trace for the last part of a path: a UUID of version 4, or 32 digits.

    Raises:
        Problem: 422.
    """
    digits = text.lower()
    return digits if _is_id(_TRACE_ID, digits) else uuid4(text, "/path/trace_id").hex


def span_id_in_path(text: str) -> str:
    """Return OpenTelemetry's id of a span for the last part of a path: a UUID of version 4, or 16 digits.

    Raises:
        Problem: 422.
    """
    digits = text.lower()
    return digits if _is_id(_SPAN_ID, digits) else span_id_of(uuid4(text, "/path/span_id"))


def span_id_of(record: UUID) -> str:
    """Return OpenTelemetry's id of a record's span."""
    return record.hex[16:]


def derived_uuid4(*parts: str) -> str:
    """Return a UUID of version 4 that is always the same for the same texts."""
    return f"{UUID(bytes=hashlib.sha256(chr(0).join(parts).encode()).digest()[:16], version=_VERSION)}"


def _is_id(form: re.Pattern[str], text: str) -> bool:
    return form.fullmatch(text) is not None and text.strip("0") != ""
