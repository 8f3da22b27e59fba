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
LangWatch's SDK says on its spans has the same places (`server.vendor_spans`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from otel_metadata.live.values import masked
from otel_metadata.model.merge import FieldName, Json, json_text
from otel_metadata.model.value import METADATA_LIMITS, clean, clean_key
from otel_metadata.server.operations import JSON, Answer, Call, Operation, Problem
from otel_metadata.server.vendors.bodies import check_project, fields_of, json_of

MAX_VALUE_BYTES: Final = 4_096
"""The largest value, in bytes of UTF-8: of a string itself, of any other value its compact JSON. LangWatch's
documentation says 4 KB; its server counts UTF-16 units, and only those of strings."""

MAX_METADATA_BYTES: Final = 32_768
"""The largest metadata object, in bytes of UTF-8 of its compact JSON. LangWatch's documentation says 32 KB."""

IDS: Final[Mapping[str, FieldName]] = {
    "user_id": ("trace", "user_id", ""),
    "thread_id": ("trace", "session_id", ""),
}
"""Reserved keys that are no metadata in the store."""

CUSTOMER: Final = "customer_id"
LABELS: Final = "labels"

_TEXTS: Final = frozenset({*IDS, CUSTOMER})
_TRACE_ID: Final = re.compile("[0-9a-f]{32}")


def values_of(body: bytes) -> dict[FieldName, Json]:
    """Return what a body sets.

    Raises:
        Problem: 400 with the place of the first value that is refused.
    """
    document = json_of(body, 400)
    if not isinstance(document, dict):
        raise _refused("", document, 'an object: {"metadata": {...}}')
    if "metadata" not in document:
        raise Problem(400, "metadata is missing; expected an object.", pointer="/metadata", expected="an object")
    metadata = document["metadata"]
    if not isinstance(metadata, dict):
        raise _refused("/metadata", metadata, "an object")
    if not metadata:
        raise Problem(
            400, "metadata is empty; expected at least one key.", pointer="/metadata", expected="at least one key"
        )
    for key, value in metadata.items():
        _check(key, value)
    size = len(json_text(metadata).encode())
    if size > MAX_METADATA_BYTES:
        raise Problem(
            400,
            f"metadata has {size:,} bytes of JSON in UTF-8; expected at most {MAX_METADATA_BYTES:,}.",
            pointer="/metadata",
            expected=f"at most {MAX_METADATA_BYTES} bytes",
        )
    return masked({IDS.get(key, ("trace", "metadata", key)): value for key, value in metadata.items()}, [])


def _check(key: str, value: Any) -> None:
    """Refuse a value that LangWatch does not take, or that the store could only keep in part."""
    pointer = f"/metadata/{key[:100].replace('~', '~0').replace('/', '~1')}"
    if clean_key(key, [], "metadata") != key:
        expected = "a key of 1 to 256 characters"
        raise Problem(
            400, f"A key of metadata is {key[:40]!r}; expected {expected}.", pointer=pointer, expected=expected
        )
    if key == LABELS:
        expected, is_right = "an array of strings", isinstance(value, list)
    elif key in _TEXTS:
        expected, is_right = "a string", isinstance(value, str)
    else:
        expected = "a string, a number, a boolean, an array of strings or an object"
        is_right = isinstance(value, str | int | float | list | dict)
    if not is_right or (isinstance(value, list) and not all(isinstance(one, str) for one in value)):
        raise _refused(pointer, value, expected)
    notes: list[str] = []
    if clean(value, notes, key, METADATA_LIMITS) != value:
        raise Problem(400, f"metadata.{notes[0] if notes else key}; expected plain JSON.", pointer=pointer)
    size = len((value if isinstance(value, str) else json_text(value)).encode())
    if size > MAX_VALUE_BYTES:
        raise Problem(
            400,
            f"metadata.{key} has {size:,} bytes in UTF-8; expected at most {MAX_VALUE_BYTES:,}.",
            pointer=pointer,
            expected=f"at most {MAX_VALUE_BYTES} bytes",
        )


def _refused(pointer: str, value: Any, expected: str) -> Problem:
    place = pointer.removeprefix("/").replace("/", ".") or "The body"
    return Problem(400, f"{place} is {_kind(value)}; expected {expected}.", pointer=pointer, expected=expected)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "an array" if all(isinstance(one, str) for one in value) else "an array with other values than strings"
    kinds: tuple[tuple[type, str], ...] = ((bool, "a boolean"), (str, "a string"), (dict, "an object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "a number")


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
    values = values_of(call.body)
    await check_project(call, trace_id)
    await call.service.ingest((), [(trace_id, "", fields_of(call, values))])
    return Answer({"traceId": call.path["traceId"]})


def problem_body(problem: Problem) -> object:
    """Return a refusal in LangWatch's form."""
    if problem.status == 401:
        return {"error": "Unauthorized", "message": problem.title}
    if problem.status == 403:
        return {"error": "api_key_permission_denied", "message": problem.title}
    if problem.pointer is None:
        return {"error": "malformed_request" if problem.status == 400 else problem.title, "message": problem.title}
    place = problem.pointer.removeprefix("/").replace("/", ".")
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
        answer=bytes,
        answer_type=JSON,
        problems={
            400: "metadata is empty, too large, or has a value that is not allowed",
            403: "traces:update is missing",
        },
        problem_body=problem_body,
    ),
)
