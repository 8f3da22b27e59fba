"""The JSON of Galileo's API: the bodies, which are checked by these types, and the answers.

The OpenAPI document has the same types. Members that they do not name are ignored, except those of a record that is
ingested, which become attributes (`galileo_records`). Ids are checked by `galileo_ids.uuid4`, because a type of msgspec
cannot demand a UUID of version 4.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from otel_metadata.model.value import MAX_KEY_CHARS
from otel_metadata.server import schema_errors
from otel_metadata.server.operations import Problem
from otel_metadata.server.vendors.bodies import json_of
from otel_metadata.server.vendors.galileo_ids import unprocessable

T = TypeVar("T")

IDS: Final = ("log_stream_id", "experiment_id", "metrics_testing_id")

_UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_AS_UUID4 = {"type": "string", "pattern": f"^{_UUID4}$"}
Uuid4 = Annotated[Any, Meta(extra_json_schema=_AS_UUID4)]
Uuid4OrNone = Annotated[Any, Meta(extra_json_schema={"anyOf": [_AS_UUID4, {"type": "null"}]})]
SpanId = Annotated[Any, Meta(extra_json_schema={"type": "string", "pattern": f"^({_UUID4}|[0-9a-f]{{16}})$"})]
TraceId = Annotated[Any, Meta(extra_json_schema={"type": "string", "pattern": f"^({_UUID4}|[0-9a-f]{{32}})$"})]
Tag = Annotated[str, Meta(min_length=1, max_length=MAX_KEY_CHARS)]
Duration = Annotated[int, Meta(ge=0, lt=1 << 62, description="Nanoseconds.")]
Method = Literal["playground", "python_client", "typescript_client", "api_direct"]

_Key = Annotated[str, Meta(min_length=1, max_length=MAX_KEY_CHARS)]
# The values are checked by hand, because msgspec does not say whose value is wrong.
_Metadata = Annotated[dict[_Key, Any], Meta(extra_json_schema={"additionalProperties": {"type": "string"}})]


class _Ids(Struct, kw_only=True):
    log_stream_id: Uuid4OrNone = None
    experiment_id: Uuid4OrNone = None
    metrics_testing_id: Uuid4OrNone = None


class GalileoUpdate(_Ids, kw_only=True):
    """What the updates of spans and traces have in common. Null changes nothing.

    Attributes:
        log_stream_id: For the answer.
        experiment_id: For the answer.
        metrics_testing_id: For the answer.
        logging_method: Who calls.
        client_version: Who calls.
        reliable: Whether the answer waits for the store, and reports a failure.
        tags: Tags to add.
        status_code: The new status: 400 and above is an error.
        duration_ns: The new duration.
    """

    logging_method: Method = "api_direct"
    client_version: str | None = None
    reliable: bool = False
    tags: list[Tag] | None = None
    status_code: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)] | None = None
    duration_ns: Duration | None = None


class GalileoSpanUpdate(GalileoUpdate, kw_only=True):
    """What changes in a span.

    Attributes:
        span_id: The id in the path.
        input: The new input: a text, messages or documents.
        output: The new output.
    """

    span_id: SpanId
    input: str | dict[str, Any] | list[Any] | None = None
    output: str | dict[str, Any] | list[Any] | None = None


class GalileoTraceUpdate(GalileoUpdate, kw_only=True):
    """What changes in a trace.

    Attributes:
        trace_id: The id in the path.
        input: The new input.
        output: The new output.
        is_complete: Ignored.
    """

    trace_id: TraceId
    input: str | None = None
    output: str | None = None
    is_complete: bool | None = None


class _Recorded(_Ids, kw_only=True):
    project_id: Uuid4
    project_name: str
    session_id: Uuid4
    records_count: int


class GalileoSpanUpdated(_Recorded, kw_only=True):
    """The answer to an update of a span."""

    span_id: str


class GalileoTraceUpdated(_Recorded, kw_only=True):
    """The answer to an update of a trace."""

    trace_id: str


class GalileoRecord(Struct):
    """A trace, or a span in it. Every other member becomes an attribute `galileo.<member>`."""

    id: Uuid4OrNone = None
    type: str | None = None
    name: str | None = None
    input: Any = None
    output: Any = None
    created_at: str | None = None
    user_metadata: _Metadata | None = None
    tags: list[Tag] | None = None
    status_code: Annotated[int, Meta(ge=0, lt=1 << 62)] | None = None
    metrics: dict[str, Any] | None = None
    spans: list[GalileoRecord] | None = None


class GalileoTraces(_Ids, kw_only=True):
    """Traces to store, each with its spans."""

    traces: Annotated[list[GalileoRecord], Meta(min_length=1)]
    session_id: Uuid4OrNone = None
    session_external_id: str | None = None


class GalileoSpans(_Ids, kw_only=True):
    """Spans to store below a record, which may come later."""

    spans: Annotated[list[GalileoRecord], Meta(min_length=1)]
    trace_id: Uuid4
    parent_id: Uuid4


class GalileoTracesStored(_Recorded, kw_only=True):
    """The answer to traces."""

    traces_count: int
    traces_id: list[str]


class GalileoSpansStored(_Recorded, kw_only=True):
    """The answer to spans."""

    trace_id: str
    parent_id: str


class GalileoHealth(Struct):
    """Says that the server answers."""

    message: str
    version: str
    api_version: str


class GalileoKey(Struct):
    """An API key."""

    api_key: str


class GalileoToken(Struct):
    """A token in the form of a JSON Web Token, which the SDK sends in place of the key."""

    access_token: str
    token_type: str


class GalileoUser(Struct):
    """Who calls."""

    id: str
    email: str
    role: str


class GalileoNew(Struct):
    """The name of a new project or log stream."""

    name: Annotated[str, Meta(min_length=1)]


class GalileoProject(Struct):
    """A project."""

    id: str
    name: str
    type: str
    created_by: str
    created_by_user: GalileoUser
    created_at: str
    updated_at: str
    runs: list[Any]
    permissions: list[Any]


class GalileoLogStream(Struct):
    """A log stream of a project."""

    id: str
    name: str
    project_id: str
    created_by: str
    created_by_user: GalileoUser
    created_at: str
    updated_at: str
    has_user_created_sessions: bool


class _Page(Struct, kw_only=True):
    starting_token: int = 0
    limit: int
    paginated: bool = False
    next_starting_token: int | None = None


class GalileoLogStreams(_Page, kw_only=True):
    """All log streams of a project, as one page."""

    log_streams: list[GalileoLogStream]


class GalileoNewSession(_Ids, kw_only=True):
    """A new session, or with the same external id an earlier one."""

    name: str | None = None
    external_id: str | None = None
    previous_session_id: Uuid4OrNone = None


class GalileoSession(_Ids, kw_only=True):
    """A session."""

    id: str
    name: str | None
    project_id: str
    project_name: str
    external_id: str | None
    previous_session_id: Uuid4OrNone = None


class GalileoSearch(Struct):
    """Which sessions are looked for: those with an external id, otherwise all.

    Attributes:
        filters: Objects `{"name": "external_id", "value": …}`; others are ignored.
    """

    filters: Annotated[Any, Meta(extra_json_schema={"type": "array", "items": {"type": "object"}})] = ()


class GalileoFoundSession(Struct, kw_only=True):
    """A session that was found."""

    type: Literal["session"] = "session"
    id: str
    name: str
    external_id: str
    project_id: str


class GalileoSessions(_Page, kw_only=True):
    """The sessions that were found, as one page."""

    records: list[GalileoFoundSession]
    num_records: int


class GalileoPlace(Struct):
    """What is wrong in a request: FastAPI's word for it, the place, and a sentence."""

    type: str
    loc: list[str | int]
    msg: str


class GalileoRefusal(Struct):
    """A refusal, in the form of FastAPI."""

    detail: str | list[GalileoPlace]


# What FastAPI calls the types of JSON.
_TYPES: Final = {
    "str": ("string", "string"),
    "bool": ("bool", "boolean"),
    "int": ("int", "integer"),
    "array": ("list", "list"),
    "object": ("dict", "dictionary"),
}
_EXPECTED: Final = re.compile(r"(\w*)(?: of length)?(?: ([<>]=) (-?\d+))?")
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")


def read(body: bytes, wanted: type[T]) -> tuple[T, dict[str, Any]]:
    """Return a body as its type has it, and as it was sent.

    Raises:
        Problem: 422 in the words of FastAPI.
    """
    try:
        document = json_of(body, 422)
    except Problem as problem:
        raise unprocessable("/body", "json_invalid", f"JSON decode error: {problem.title}") from None
    try:
        return msgspec.convert(document, wanted), document
    except msgspec.ValidationError as error:
        wrong = schema_errors.invalid("The body", error, wanted, pointer="/body")
        raise unprocessable(*_in_words(f"{error}", f"{wrong.pointer}", f"{wrong.expected}")) from None


def _in_words(error: str, pointer: str, expected: str) -> tuple[str, str, str]:
    """Return the place of an error of msgspec, and what FastAPI calls it."""
    missing = _MISSING.match(error)
    if missing is not None:
        return f"{pointer}/{missing[1]}", "missing", "Field required"
    if pointer == "/body":
        return pointer, "model_attributes_type", "Input should be a valid dictionary or object"
    if pointer == "/body/logging_method":
        *others, last = map(repr, get_args(Method))
        return pointer, "enum", f"Input should be {', '.join(others)} or {last}"
    kind, relation, number = _EXPECTED.search(expected).groups()  # type: ignore[union-attr] # it finds any text
    name, word = _TYPES.get(kind, ("value", "value"))
    if relation is None:
        return pointer, f"{name}_type", f"Input should be a valid {word}"
    if kind == "int":
        return pointer, "int_range", f"Input should be {relation} {number}"
    bound = f"at {'least' if relation == '>=' else 'most'} {number}"
    if kind == "array":
        return pointer, "too_short", f"List should have {bound} item after validation"
    return pointer, f"string_too_{'short' if relation == '>=' else 'long'}", f"String should have {bound} characters"
