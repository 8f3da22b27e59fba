"""The ASGI application: from a request to a handler of the table, and from its answer or refusal to a response."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, final
from urllib.parse import unquote

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.routing import compile_path

from otel_metadata.server import (
    browsers,
    connect,
    deletion,
    events,
    exports,
    filters,
    health,
    imports,
    late_values,
    page_files,
    session,
    spans,
    summary,
    traces,
    updates,
)
from otel_metadata.server.access import CREDENTIALS
from otel_metadata.server.bodies import LARGE, Body, decode, decode_query
from otel_metadata.server.operations import JSON, Answer, Call, Operation, Problem, Stream
from otel_metadata.server.otlp import http as otlp_http
from otel_metadata.server.problems import as_problem, failure, problem_of
from otel_metadata.server.vendors import galileo, langfuse, langwatch, logfire

if TYPE_CHECKING:
    import re

    from starlette.types import Receive, Scope, Send

    from otel_metadata.server.service import Service

OPERATIONS: Final[tuple[Operation, ...]] = (
    *health.with_document(
        (
            *spans.OPERATIONS,
            *traces.OPERATIONS,
            *summary.OPERATIONS,
            *late_values.OPERATIONS,
            *exports.OPERATIONS,
            *filters.OPERATIONS,
            *events.OPERATIONS,
            *updates.OPERATIONS,
            *deletion.OPERATIONS,
            *imports.OPERATIONS,
            *langwatch.OPERATIONS,
            *galileo.OPERATIONS,
            *langfuse.OPERATIONS,
            *logfire.OPERATIONS,
            *otlp_http.OPERATIONS,
            *session.OPERATIONS,
            *connect.OPERATIONS,
            *health.OPERATIONS,
        )
    ),
    *page_files.OPERATIONS,  # files for browsers, which the document does not list
)
"""All that the server can do."""

_MAX_SHOWN_PATH: Final = 500
_NOTHING: Final[tuple[bytes, ...]] = ()

_encode: Final = msgspec.json.Encoder().encode


class _Bound(NamedTuple):
    """An operation, with the decoder of its body."""

    operation: Operation
    decoder: msgspec.json.Decoder[Any] | None


@final
class App:
    """Answers the requests of one server."""

    def __init__(self, service: Service, operations: Sequence[Operation] = OPERATIONS) -> None:
        """Make the routes.

        Args:
            service: What the handlers share.
            operations: Two with the same path have different methods.
        """
        self._service = service
        self._access = service.access
        # Most paths have no parameter, and a server has many paths: a dictionary finds those at once.
        self._fixed: dict[str, dict[str, _Bound]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, _Bound]]] = []
        by_path: dict[str, dict[str, _Bound]] = {}
        for operation in operations:
            methods = by_path.setdefault(operation.path, {})
            has_struct = operation.body not in {None, bytes, Stream}
            methods[operation.method] = _Bound(operation, msgspec.json.Decoder(operation.body) if has_struct else None)
            if operation.method == "GET":
                methods["HEAD"] = methods["GET"]
        for path, methods in by_path.items():
            if "{" in path:
                self._patterns.append((compile_path(path)[0], methods))
            else:
                self._fixed[path] = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":  # a WebSocket; uvicorn refuses it when the application returns
            return
        method: str = scope["method"]
        headers = _headers(scope)
        begun_ns = self._service.clock.monotonic_ns()
        name, caller = "", None
        operation: Operation | None = None
        body: Body | None = None
        allowed: Mapping[str, str] = {}
        response: Response
        stream: AsyncGenerator[bytes] | None = None
        try:
            browsers.check_host(headers, self._access.hosts)
            methods, path = self._route(scope)
            if method == "OPTIONS":
                response = _response(self._preflight(methods, headers), method)
            else:
                operation, decoder = _of_method(methods, method)
                name = operation.name
                allowed = browsers.check_origin(method, operation, headers, trusts_site=self._access.needs_token)
                caller = self._access.caller(operation.scope, headers)
                body = Body(receive, headers, operation.max_bytes, self._service.buffered)
                call = Call(
                    self._service,
                    caller,
                    path,
                    decode_query(scope["query_string"], operation.query) if operation.query is not None else None,
                    await self._value(operation, decoder, body, headers),
                    {name: text for name, text in headers.items() if name not in CREDENTIALS},
                    body.size,
                )
                # Made before the first byte is sent, so that a value without JSON is a refusal and no half answer.
                answer = await operation.handler(call)
                stream = answer.body if isinstance(answer.body, AsyncGenerator) else None
                response = _response(answer, method)
        except Exception as error:  # noqa: BLE001 # every error is an answer
            problem = problem_of(error) or failure(name or "app", error)
            response = _response(_refusal(problem, operation, headers), method)
        finally:
            if body is not None:
                body.release()
        response.headers.update(allowed)
        try:
            await response(scope, receive, send)
        finally:
            if stream is not None:  # its client may not have read it to its end
                await stream.aclose()
            took_ns = self._service.clock.monotonic_ns() - begun_ns
            client = (scope.get("client") or ("-",))[0]
            self._service.answered(name, _shown(scope), client, caller, response.status_code, took_ns)

    async def _value(
        self, operation: Operation, decoder: msgspec.json.Decoder[Any] | None, body: Body, headers: Mapping[str, str]
    ) -> Any:
        if operation.body is None:
            return None
        if operation.body is Stream:
            return body.stream()
        data = await body.read()
        if decoder is None:
            return data
        call = partial(decode, data, headers.get("content-type", ""), decoder)
        return await self._service.decode(call) if len(data) > LARGE else call()

    def _preflight(self, methods: Mapping[str, _Bound], headers: Mapping[str, str]) -> Answer:
        """Answer OPTIONS: what can be done here, and whether a page of another site may."""
        may = {"Allow": ", ".join(sorted(methods))}
        if "access-control-request-method" not in headers:
            return Answer(status=204, headers=may)
        bound = methods.get(headers["access-control-request-method"])
        operation = bound.operation if bound is not None else None
        allowed = browsers.preflight(operation, headers, trusts_site=self._access.needs_token)
        return Answer(status=204, headers={**may, **allowed})

    def _route(self, scope: Scope) -> tuple[Mapping[str, _Bound], Mapping[str, str]]:
        """Return what answers a path, by method, and the parameters in the path.

        Raises:
            Problem: 404.
        """
        path: str = scope["path"]
        raw: bytes = scope.get("raw_path") or b""
        # `%2F` is a slash inside a name, not a separator.
        has_slash = b"%2f" in raw.lower()
        if has_slash:
            path = raw.decode("ascii", "replace")
        methods = self._fixed.get(path)
        if methods is not None:
            return methods, {}
        for pattern, found in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                named = match.groupdict()
                return found, {name: unquote(text) for name, text in named.items()} if has_slash else named
        raise Problem(404, f"Nothing is at {path[:200]!r}; expected a path that /api/v1/openapi.json lists.")


def _of_method(methods: Mapping[str, _Bound], method: str) -> _Bound:
    bound = methods.get(method)
    if bound is None:
        allowed = ", ".join(sorted(methods))
        raise Problem(
            405,
            f"{method[:20]} is not answered here; expected {allowed}.",
            expected=allowed,
            headers={"Allow": allowed},
        )
    return bound


def _headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _response(answer: Answer, method: str) -> Response:
    body, headers = answer.body, answer.headers
    if body is None:
        return Response(None, answer.status, headers)
    if hasattr(body, "__aiter__"):
        parts = _NOTHING if method == "HEAD" else cast("AsyncIterator[bytes]", body)
        return StreamingResponse(parts, answer.status, headers, media_type=answer.media_type)
    data, media_type = (body, answer.media_type) if isinstance(body, bytes) else (_encode(body), JSON)
    return Response(data, answer.status, {"Content-Type": media_type, **headers})


def _refusal(problem: Problem, operation: Operation | None, headers: Mapping[str, str]) -> Answer:
    refusal = as_problem if operation is None or operation.refusal is None else operation.refusal
    answer = refusal(problem, headers)
    return replace(answer, headers={**answer.headers, **problem.headers})


def _shown(scope: Scope) -> str:
    """Return a request for a log: no query, which may have values of users."""
    path: bytes = scope.get("raw_path") or b""
    return f"{scope['method']} {path[:_MAX_SHOWN_PATH].decode('ascii', 'backslashreplace')}"
