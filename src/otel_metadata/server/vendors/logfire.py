"""What Logfire's SDK asks when it starts: whether its token is valid, and where the project is shown."""

from __future__ import annotations

from typing import Final

import msgspec

from otel_metadata.server.operations import Answer, Call, Operation


class LogfireInfo(msgspec.Struct, frozen=True):
    """The project that a token belongs to.

    Attributes:
        project_name: Its name.
        project_url: Where its spans are shown; the SDK prints it.
    """

    project_name: str
    project_url: str


async def info(call: Call) -> Answer:
    """Name the project."""
    host = call.headers.get("host", "127.0.0.1")
    return Answer(LogfireInfo(call.caller.project or "otel-metadata", f"http://{host}/"))


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        "/v1/info",
        "logfireInfo",
        "Say which project a token belongs to.",
        info,
        "traces:write",
        tag="logfire",
        answer=LogfireInfo,
    ),
)
