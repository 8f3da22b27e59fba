"""A row of the spool as bytes: a frame that can be found and checked without the database around it.

    otm1 | CRC-32 of the JSON, 8 hex digits | its length in bytes, 8 hex digits | JSON

The frame says everything itself, its own number and its destination included, so that a damaged file loses only the
frames that were hit: see `spool.salvage`. Pure: bytes and values.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast, final

import orjson

from otel_metadata.model.dead_letter import DeadLetter
from otel_metadata.model.outcome import DeliveryError
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.spool.span_codec import span_from_json, span_to_json

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.model.merge import Field, FieldName, Fields, Json, Kind, Level, Version

MAGIC: Final = b"otm1"
HEAD_BYTES: Final = 20


@final
@dataclass(frozen=True, slots=True)
class SpooledUpdate:
    """An update, or what is left of several, on disk.

    Attributes:
        id: Its number: 31 bits of the slot, 32 of the order in which it came (see `spool.spool`).
        destination: Whose it is.
        target: The span or trace.
        fields: What it sets.
        updates: How many update calls it stands for.
        accepted_ns: When; wall nanoseconds.
        window_ns: Start and end of the span, where they were known.
    """

    id: int
    destination: str
    target: SpanRef
    fields: Fields
    updates: int
    accepted_ns: int
    window_ns: tuple[int, int] | None = None


@final
@dataclass(frozen=True, slots=True)
class SpooledSpan:
    """An ended span that is held, on disk.

    Attributes:
        id: As of an update.
        destination: Whose it is.
        span: The span as it ended.
        fields: Its sidecar.
        updates: How many update calls are in the sidecar.
        is_local_root: Whether it has no parent that a processor of ours has seen in this process.
        accepted_ns: When it ended; wall nanoseconds.
        backend_ids: Ids that backends gave it, as far as live updates brought them.
    """

    id: int
    destination: str
    span: ReadableSpan
    fields: Fields
    updates: int
    is_local_root: bool
    accepted_ns: int
    backend_ids: Mapping[str, str] = field(default_factory=dict[str, str])


@final
class PlainUpdate(NamedTuple):
    """A late update of a few clean metadata values, as the hot path hands it over; on disk it is a `SpooledUpdate`.

    Attributes:
        target: The span.
        version: Of all its fields.
        metadata: Clean values by key.
    """

    target: SpanRef
    version: Version
    metadata: dict[str, Json]

    @property
    def fields(self) -> dict[FieldName, Field]:
        """What it sets."""
        return {("span", "metadata", key): (value, self.version) for key, value in self.metadata.items()}

    @property
    def updates(self) -> int:
        """It is one update call."""
        return 1

    def spooled(self, destination: str) -> SpooledUpdate:
        """Return it as it is read back from disk."""
        return SpooledUpdate(0, destination, self.target, self.fields, 1, self.version[0])


SpooledRow: TypeAlias = SpooledUpdate | SpooledSpan | DeadLetter


def frame(row: SpooledRow, row_id: int) -> bytes:
    """Return the bytes of *row* under its number."""
    return _framed(orjson.dumps(row_to_json(row, row_id)))


def plain_frame(update: PlainUpdate, row_id: int, destination: str) -> bytes:
    """Return the bytes of a plain update, those that `frame` would make of it: on the application's thread."""
    (ns, writer), target = update.version, update.target
    data: dict[str, object] = {
        "i": row_id,
        "d": destination,
        "n": 1,
        "at": ns,
        "f": [("span", "metadata", key, value, ns, writer) for key, value in update.metadata.items()],
        "t": f"{target.trace_id:032x}",
        "s": f"{target.span_id:016x}",
        "k": "update",
    }
    if target.backend_ids:
        data["b"] = dict(target.backend_ids)
    return _framed(orjson.dumps(data))


def _framed(body: bytes) -> bytes:
    return b"otm1%08x%08x%b" % (zlib.crc32(body), len(body), body)


def read_frame(data: bytes, at: int = 0) -> Mapping[str, Any] | None:
    """Return the JSON object of the frame at *at*; None when there is none, or it is damaged."""
    head = data[at : at + HEAD_BYTES]
    if len(head) < HEAD_BYTES or head[:4] != MAGIC:
        return None
    try:
        checksum, length = int(head[4:12], 16), int(head[12:20], 16)
    except ValueError:
        return None
    body = data[at + HEAD_BYTES : at + HEAD_BYTES + length]
    if len(body) != length or zlib.crc32(body) != checksum:
        return None
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return cast("Mapping[str, Any]", decoded) if isinstance(decoded, dict) else None


def frame_bytes(data: bytes, at: int) -> int:
    """Return how long the sound frame at *at* is."""
    return HEAD_BYTES + int(data[at + 12 : at + HEAD_BYTES], 16)


def row_to_json(row: SpooledRow, row_id: int) -> dict[str, Json]:
    """Return *row* as a JSON object."""
    data: dict[str, Json] = {"i": row_id, "d": row.destination, "n": row.updates, "at": row.accepted_ns}
    data["f"] = [[*name, value, ns, writer] for name, (value, (ns, writer)) in row.fields.items()]
    if isinstance(row, SpooledSpan):
        data |= {"k": "span", "span": span_to_json(row.span), "root": row.is_local_root}
        if row.backend_ids:
            data["b"] = dict(row.backend_ids)
        return data
    target = row.target
    data["t"], data["s"] = target.trace_id_hex, target.span_id_hex
    if target.backend_ids:
        data["b"] = dict(target.backend_ids)
    if isinstance(row, SpooledUpdate):
        data["k"] = "update"
        if row.window_ns is not None:
            data["w"] = list(row.window_ns)
        return data
    return data | {
        "k": "dead",
        "reason": row.reason,
        "type": row.error.type,
        "message": row.error.message,
        "tries": row.tries,
        "died": row.died_ns,
    }


def row_from_json(data: Mapping[str, Any]) -> SpooledRow:
    """Return the row that `row_to_json` was given.

    Raises:
        Exception: As `span_codec.span_from_json`.
    """
    row_id, destination, updates = int(data["i"]), str(data["d"]), int(data["n"])
    fields: dict[FieldName, tuple[Json, tuple[int, int]]] = {
        (cast("Level", level), cast("Kind", kind), key): (value, (ns, writer))
        for level, kind, key, value, ns, writer in data["f"]
    }
    if data["k"] == "span":
        return SpooledSpan(
            id=row_id,
            destination=destination,
            updates=updates,
            span=span_from_json(data["span"]),
            fields=fields,
            is_local_root=bool(data["root"]),
            accepted_ns=int(data["at"]),
            backend_ids=data.get("b", {}),
        )
    target = SpanRef(int(data["t"], 16), int(data["s"], 16)).with_backend_ids(data.get("b", {}))
    if data["k"] == "update":
        window = data.get("w")
        return SpooledUpdate(
            id=row_id,
            destination=destination,
            updates=updates,
            target=target,
            fields=fields,
            accepted_ns=int(data["at"]),
            window_ns=(window[0], window[1]) if window else None,
        )
    return DeadLetter(
        id=row_id,
        destination=destination,
        updates=updates,
        target=target,
        fields=fields,
        reason=data["reason"],
        error=DeliveryError(data["type"], data["message"]),
        tries=int(data["tries"]),
        accepted_ns=int(data["at"]),
        died_ns=int(data["died"]),
    )
