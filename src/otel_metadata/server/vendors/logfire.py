"""What Logfire's SDK asks when it starts: whether its token is valid, and where the project is shown."""

from __future__ import annotations

from typing import Final

from otel_metadata.server.operations import JSON, Answer, Call, Operation


async def info(call: Call) -> Answer:
    """Name the project; the SDK prints its address."""
    host = call.headers.get("host", "127.0.0.1")
    return Answer({"project_name": call.caller.project or "otel-metadata", "project_url": f"http://{host}/"})


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        "/v1/info",
        "logfireInfo",
        "Say which project a token belongs to.",
        info,
        "traces:write",
        tag="logfire",
        answer=bytes,
        answer_type=JSON,
    ),
)
