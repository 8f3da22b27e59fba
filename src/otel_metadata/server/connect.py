"""`GET /api/v1/connect`: the lines of `otel-metadata serve --env NAME`, for every NAME."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from otel_metadata.server import api_types
from otel_metadata.server.operations import Answer, Call, Operation, Problem
from otel_metadata.server.sdk_settings import NAMES, settings_of

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_GRPC_PORT: Final = 4317


async def _connect(call: Call) -> Answer:
    given: api_types.Address = call.query
    url = given.url if given.url is not None else f"http://{call.headers.get('host', '')}"
    host = _parts(url).hostname
    shown = f"[{host}]" if host is not None and ":" in host else host
    grpc = f"http://{shown}:{call.service.grpc_port or _GRPC_PORT}"
    return Answer(
        api_types.Environments(
            [api_types.Environment(name, [_exported(line) for line in settings_of(name, url, grpc)]) for name in NAMES],
            call.service.grpc_port is not None,
            call.service.grpc_port,
        )
    )


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0):
            return parts
    except ValueError:
        pass
    raise Problem(
        400, f"url is {url[:200]!r}; expected the address of the server, such as http://127.0.0.1:4318.", expected="url"
    )


def _exported(line: str) -> str:
    name, _, value = line.partition("=")
    return f"export {name}={shlex.quote(value)}"


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        "/api/v1/connect",
        "get_environments",
        "Return the variables that point each known SDK at the server, as lines for a shell.",
        _connect,
        None,
        tag="server",
        query=api_types.Address,
        answer=api_types.Environments,
        problems={400: "`url` is no address of a server."},
    ),
)
