"""What the server can do, as values: one table makes the routes (`app`) and the OpenAPI document (`openapi`).

A module with handlers exports `OPERATIONS`. A handler gets a `Call` and returns an `Answer`, or raises a `Problem`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

if TYPE_CHECKING:
    from otel_metadata.server.service import Service

Scope: TypeAlias = Literal["read", "traces:write", "traces:update", "delete"]
"""What a token may do: read; send spans; update spans and traces; delete."""

UPDATE: Final[Scope] = "traces:update"

OCTETS: Final = "application/octet-stream"
JSON: Final = "application/json"


@final
class Stream:
    """Marks, as `Operation.body`, a body of any size: `Call.body` is an `AsyncIterator[bytes]` of its parts."""


@final
@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        name: The author of what the call changes: the name of its token, or a name for this machine.
        scopes: What it may do.
        project: The only project that it sees and changes, or None for all.
    """

    name: str
    scopes: frozenset[Scope]
    project: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked: the caller has the scope, the body and the query have their types.

    Attributes:
        service: The store and everything else that handlers share.
        caller: Who calls.
        path: The parameters in the path, as text.
        query: The parameters after the `?`, of the type that the operation names; None if it names none.
        body: The body, of the type that the operation names: a struct, `bytes` as they came (after decompression), an
            iterator of such bytes for `Stream`, or None.
        headers: With names in lower case.
        size: The bytes of the body, decompressed; 0 for `Stream`.
    """

    service: Service
    caller: Caller
    path: Mapping[str, str]
    query: Any
    body: Any
    headers: Mapping[str, str]
    size: int = 0


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back.

    Attributes:
        body: A value for JSON, or bytes, or an iterator of bytes that is sent as it comes, or None for no body.
        status: The HTTP status.
        media_type: Of bytes; a value for JSON is always `application/json`.
        headers: More headers.
    """

    body: object | bytes | AsyncIterator[bytes] | None = None
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


MAX_TITLE: Final = 2_000
"""Characters of the title of a refusal."""


@final
class Problem(Exception):  # noqa: N818 # the word of RFC 9457
    """A request that is refused: an answer of `application/problem+json` (RFC 9457), or in the vendor's own form.

    Attributes:
        status: The HTTP status, 400 to 599.
        title: What is wrong, in one sentence for people: what was got, what was expected.
        pointer: The place in the body, as a JSON pointer (RFC 6901), or None.
        expected: What would be right, or None.
        position: The place in a text such as a filter, from 0, or None.
        headers: More headers, such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        title: str,
        *,
        pointer: str | None = None,
        expected: str | None = None,
        position: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say what is wrong. A title is cut off when it is long, because what was got may be a whole body."""
        self.title = title if len(title) <= MAX_TITLE else f"{title[: MAX_TITLE - 1]}…"
        super().__init__(self.title)
        self.status = status
        self.pointer = pointer
        self.expected = expected
        self.position = position
        self.headers: Mapping[str, str] = headers or {}


Refusal: TypeAlias = "Callable[[Problem, Mapping[str, str]], Answer]"
"""Makes the answer of a refusal, from the headers of the request, in lower case: OTLP answers in the type of the
request."""


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """One call that the server answers.

    Attributes:
        method: `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
        path: With parameters in braces, as in OpenAPI: `/api/v1/spans/{span_id}`.
        name: The operation's id in the OpenAPI document.
        summary: One sentence.
        handler: Answers the call. It never blocks the event loop: store calls go through `Service.read` and
            `Service.write`.
        scope: What the caller needs, or None for nobody in particular (`/healthz`).
        tag: The group in the OpenAPI document.
        query: A `msgspec.Struct` of the parameters after the `?`, or None.
        body: A `msgspec.Struct`, `bytes` for a body that the handler reads itself, `Stream` for one that it reads while
            it comes and that `max_bytes` does not limit, or None.
        answer: A `msgspec.Struct`, `bytes`, or None: the body of a success.
        other_answer: The body of a success that a parameter, or another form of body, asks for in place of *answer*, or
            None.
        status: The status of a success.
        problems: The statuses of refusals and of other successes, each with its reason in words.
        refusal: The form of refusals; None for `application/problem+json`.
        body_schema: The type that describes a body of `bytes` in JSON, for the document: a `msgspec.Struct`, a list of
            them, or a union of both.
        body_types: The media types of a body of `bytes` or `Stream`, for the document.
        answer_type: The media type of an answer of `bytes`, for the document; several are separated by `, `.
        is_ingestion: Whether pages of other ports on this machine may call it (`http://localhost:*`).
        max_bytes: The largest body, after decompression.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    name: str
    summary: str
    handler: Callable[[Call], Awaitable[Answer]]
    scope: Scope | None
    tag: str = "api"
    query: type | None = None
    body: type | None = None
    answer: type | None = None
    other_answer: type | None = None
    status: int = 200
    problems: Mapping[int, str] = field(default_factory=dict)
    refusal: Refusal | None = None
    body_schema: Any = None
    body_types: tuple[str, ...] = (JSON,)
    answer_type: str = OCTETS
    is_ingestion: bool = False
    max_bytes: int = 4 << 20
