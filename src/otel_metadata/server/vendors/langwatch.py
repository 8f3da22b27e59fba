"""The call of LangWatch's API that changes the metadata of a stored trace: `PATCH /api/traces/{traceId}/metadata`.

It does what LangWatch's documentation says ("Update trace metadata"): the last write of a key wins, labels are replaced
as a whole, and a refusal is a 400. LangWatch's own server, as of August 2026, answers 422 instead, and keeps the first
value of a key.

| in the body | in the store |
|---|---|
| `user_id` | the user of the trace |
| `thread_id` | the session of the trace |
| `customer_id`, `labels` | the trace's metadata, under these names |
| any other key | the trace's metadata |

Labels are not tags of the trace: a tag can only be added, and the labels of an update replace all earlier ones. What
LangWatch's SDK says on its spans has the same places (`server.vendors.attributes`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from otel_metadata.live.values import masked
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.value import clean_key
from otel_metadata.server.operations import Answer, Call, Operation, Problem
from otel_metadata.server.problems import in_json
from otel_metadata.server.schema_errors import invalid
from otel_metadata.server.vendors.bodies import check_project, fields_of, json_of, refuse_changed

MAX_VALUE_UNITS: Final = 4_096
"""The largest value, in UTF-16 code units: of a string itself, of any other value its compact JSON. LangWatch's
documentation says 4 KB; its server counts these units, and only those of strings."""

MAX_METADATA_UNITS: Final = 32_768
"""The largest metadata object, in UTF-16 code units of its compact JSON. LangWatch's documentation says 32 KB."""

IDS: Final[Mapping[str, FieldName]] = {
    "user_id": ("trace", "user_id", ""),
    "thread_id": ("trace", "session_id", ""),
}
"""Reserved keys that are no metadata in the store."""

CUSTOMER: Final = "customer_id"
LABELS: Final = "labels"

_TRACE_ID: Final = re.compile("[0-9a-f]{32}")

_Custom: TypeAlias = str | int | float | list[str] | dict[str, Any] | bool
_CUSTOM_SCHEMA: Final = msgspec.json.schema(_Custom)


class LangWatchMetadata(msgspec.Struct, frozen=True):
    """Metadata of a trace: the reserved keys, and any others.

    Attributes:
        user_id: The user of the trace.
        thread_id: The session of the trace.
        customer_id: Metadata of the trace.
        labels: Metadata of the trace; they replace all earlier ones.
    """

    user_id: str | UnsetType = UNSET
    thread_id: str | UnsetType = UNSET
    customer_id: str | UnsetType = UNSET
    labels: list[str] | UnsetType = UNSET


class LangWatchUpdate(msgspec.Struct, frozen=True):
    """What changes in a trace.

    Attributes:
        metadata: Has at least one key, and at most 32,768 UTF-16 units of JSON; a value has at most 4,096.
    """

    metadata: Annotated[
        LangWatchMetadata, Meta(extra_json_schema={"minProperties": 1, "additionalProperties": _CUSTOM_SCHEMA})
    ]


class LangWatchUpdated(msgspec.Struct, rename="camel", frozen=True):
    """The answer of a success.

    Attributes:
        trace_id: The id as it was sent.
    """

    trace_id: str


def values_of(body: bytes) -> dict[FieldName, Json]:
    """Return what a body sets.

    Raises:
        Problem: 400 with the place of the first value that is refused.
    """
    document = json_of(body, 400)
    try:
        msgspec.convert(document, LangWatchUpdate)
    except msgspec.ValidationError as error:
        raise invalid("The body", error, LangWatchUpdate, pointer="") from None
    metadata = document["metadata"]
    if not metadata:
        raise _refused("metadata is empty", "at least one key", "/metadata")
    _check_size("metadata", metadata, MAX_METADATA_UNITS, "/metadata")
    for key, value in metadata.items():
        _check(key, value)
    return masked({IDS.get(key, ("trace", "metadata", key)): value for key, value in metadata.items()}, [])


def _check(key: str, value: Any) -> None:
    """Refuse a value that LangWatch does not take, or that the store could only keep in part."""
    pointer = f"/metadata/{key.replace('~', '~0').replace('/', '~1')}"
    if clean_key(key, [], "metadata") != key:
        raise _refused(f"A key of metadata is {key[:40]!r}", "a key of 1 to 256 characters", pointer)
    shown = f"metadata.{key}"
    try:
        msgspec.convert(value, _Custom)
    except msgspec.ValidationError as error:
        raise invalid(shown, error, _Custom, pointer=pointer) from None
    refuse_changed(value, shown, pointer)
    _check_size(shown, value, MAX_VALUE_UNITS, pointer)


def _check_size(shown: str, value: Json, most: int, pointer: str) -> None:
    # The JSON is LangWatch's, in which an integer may be longer than 64 bits.
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    units = len(text.encode("utf-16-le")) // 2
    if units > most:
        raise _refused(f"{shown} has {units:,} UTF-16 units", f"at most {most:,}", pointer)


def _refused(got: str, expected: str, pointer: str) -> Problem:
    return Problem(400, f"{got}; expected {expected}.", pointer=pointer, expected=expected)


def trace_id_of(text: str) -> str:
    """Return a trace id in lower case; with the hyphens of a UUID it is the same id.

    Raises:
        Problem: 400 for any other text: no span is in such a trace.
    """
    found = text.lower().replace("-", "")
    if _TRACE_ID.fullmatch(found) is None or not found.strip("0"):
        expected = "32 hexadecimal digits, not all zero"
        raise Problem(400, f"traceId is {text[:100]!r}; expected {expected}.", expected=expected)
    return found


async def update_metadata(call: Call) -> Answer:
    """Merge the body's metadata into the trace, whether or not a span of it is stored yet."""
    trace_id = trace_id_of(call.path["traceId"])
    values = await call.service.decode(partial(values_of, call.body))
    await check_project(call, trace_id)
    await call.service.ingest((), [(trace_id, "", fields_of(call, values))], size=call.size)
    return Answer(LangWatchUpdated(call.path["traceId"]))


def problem_body(problem: Problem) -> object:
    """Return a refusal in LangWatch's form."""
    if problem.status == 401:
        return {"error": "Unauthorized", "message": problem.title}
    if problem.status == 403:
        return {"error": "api_key_permission_denied", "message": problem.title}
    if problem.pointer is None:
        return {"error": "malformed_request" if problem.status == 400 else problem.title, "message": problem.title}
    # LangWatch names a member of the body, or a key of the metadata, and no place inside a value.
    place = ".".join(step.replace("~1", "/").replace("~0", "~") for step in problem.pointer.split("/")[1:3])
    place = place or "metadata"
    meta = {"field": place, "type": problem.expected, "message": problem.title}
    return {
        "error": "validation_error",
        "message": problem.title,
        "fields": [place],
        "reasons": [{"code": "schema_failure", "meta": meta}],
    }


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "PATCH",
        "/api/traces/{traceId}/metadata",
        "langwatchUpdateTraceMetadata",
        "Merge metadata into a trace, as LangWatch's API does.",
        update_metadata,
        "traces:update",
        tag="langwatch",
        body=bytes,
        body_schema=LangWatchUpdate,
        answer=LangWatchUpdated,
        problems={
            400: "metadata is empty, too large, or has a value that is not allowed",
            403: "traces:update is missing, or the trace is of another project than the token",
            404: "the trace is not stored, and the token is for one project",
        },
        refusal=in_json(problem_body),
    ),
)
