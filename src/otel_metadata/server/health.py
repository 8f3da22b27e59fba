"""Whether the server lives, is ready, and what it is: for supervisors, Prometheus, and clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from otel_metadata._version import __version__
from otel_metadata.errors import StoreError
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.times import time_text
from otel_metadata.seams import SpanReads
from otel_metadata.server import metrics
from otel_metadata.server.bodies import MAX_COMPRESSED, MAX_NESTING
from otel_metadata.server.openapi import document
from otel_metadata.server.operations import JSON, Answer, Call, Operation
from otel_metadata.server.problems import overloaded

if TYPE_CHECKING:
    from collections.abc import Sequence


class Health(msgspec.Struct):
    """A server that lives."""

    status: str


class Info(msgspec.Struct):
    """What the server is.

    Attributes:
        name: Always `otel-metadata`.
        version: Of otel-metadata.
        store: Where spans are stored.
        has_reads: Whether the store can list traces, count, and find names in use.
        needs_token: Whether every call needs a token.
        caller: The author of what this caller changes.
        scopes: What this caller may do.
        project: The only project that this caller sees; null for all.
        start_time: When the server started.
        start_time_ns: The same in nanoseconds, as text.
        max_compressed_bytes: The largest compressed body.
        max_nesting: How deep JSON may be nested.
    """

    name: str
    version: str
    store: str
    has_reads: bool
    needs_token: bool
    caller: str
    scopes: list[str]
    project: str | None
    start_time: str
    start_time_ns: str
    max_compressed_bytes: int
    max_nesting: int


async def _live(_: Call) -> Answer:
    return Answer(Health("ok"))


async def _ready(call: Call) -> Answer:
    store = call.service.store
    try:
        await call.service.read(lambda: store.query(SpanQuery(limit=1)))
    except StoreError:
        # Nobody in particular asks, so the reason, which may name paths, is only in the log.
        raise overloaded("The store cannot be read.", 5) from None
    return Answer(Health("ready"))


async def _info(call: Call) -> Answer:
    service, caller = call.service, call.caller
    started_ns = service.metrics.started_ns
    return Answer(
        Info(
            name="otel-metadata",
            version=__version__,
            store=f"{service.store}",
            has_reads=isinstance(service.store, SpanReads),
            needs_token=service.access.needs_token,
            caller=caller.name,
            scopes=sorted(caller.scopes),
            project=caller.project,
            start_time=time_text(started_ns),
            start_time_ns=f"{started_ns}",
            max_compressed_bytes=MAX_COMPRESSED,
            max_nesting=MAX_NESTING,
        )
    )


async def _metrics(call: Call) -> Answer:
    return Answer(call.service.metrics.text().encode(), media_type=metrics.MEDIA_TYPE)


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation("GET", "/healthz", "is_live", "Say that the server answers.", _live, None, tag="server", answer=Health),
    Operation(
        "GET",
        "/readyz",
        "is_ready",
        "Say whether the store can be read.",
        _ready,
        None,
        tag="server",
        answer=Health,
        problems={503: "The store cannot be read."},
    ),
    Operation("GET", "/api/v1/info", "get_info", "Say what the server is.", _info, "read", tag="server", answer=Info),
    Operation(
        "GET",
        "/metrics",
        "get_metrics",
        "Return the counts of the server for Prometheus.",
        _metrics,
        "read",
        tag="server",
        answer=bytes,
        answer_type=metrics.MEDIA_TYPE.partition(";")[0],
    ),
)


def with_document(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return a table with one more operation: the one that answers with the document of all."""
    data: list[bytes] = []  # made when it is first wanted

    async def answer(_: Call) -> Answer:
        if not data:
            data.append(msgspec.json.encode(document(table)))
        return Answer(data[0])

    table = (
        *operations,
        Operation(
            "GET",
            "/api/v1/openapi.json",
            "get_openapi",
            "Return this document.",
            answer,
            None,
            tag="server",
            answer=bytes,
            answer_type=JSON,
        ),
    )
    return table
