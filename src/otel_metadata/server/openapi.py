"""The OpenAPI 3.1 document, made from the same table as the routes.

https://spec.openapis.org/oas/v3.1.1
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import msgspec

from otel_metadata._version import __version__
from otel_metadata.server.operations import JSON, Operation, Stream
from otel_metadata.server.problems import PROBLEM_JSON, ProblemDetails

_Object: TypeAlias = "dict[str, Any]"

_References: TypeAlias = "Mapping[Any, _Object]"

_REFERENCE: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


def document(operations: Sequence[Operation]) -> _Object:
    """Return the document of a table."""
    described = dict.fromkeys(
        one
        for operation in operations
        for one in (
            operation.query,
            operation.body,
            operation.body_schema,
            operation.answer,
            operation.other_answer,
            ProblemDetails,
        )
        if one not in {None, bytes, Stream}
    )
    references, schemas = msgspec.json.schema_components(described, ref_template=_REFERENCE)
    reference_of = dict(zip(described, references, strict=True))
    # The members of a query become parameters.
    queries = {
        one: schemas.pop(reference_of[one]["$ref"].rpartition("/")[2])
        for one in {operation.query for operation in operations if operation.query is not None}
    }
    paths: dict[str, _Object] = {}
    for operation in operations:
        query = queries[operation.query] if operation.query is not None else {}
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, query, reference_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "otel-metadata",
            "version": __version__,
            "description": "Spans over OTLP, updates of spans and traces at any time, and reads of what is stored.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in sorted({operation.tag for operation in operations})],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The token is the password."},
                "key": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
            },
        },
    }


def _operation(operation: Operation, query: _Object, reference_of: _References) -> _Object:
    made: _Object = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(operation.path)
        ],
        "responses": _responses(operation, reference_of),
    }
    required = query.get("required", ())
    for name, one in query.get("properties", {}).items():
        made["parameters"].append(
            {"name": name, "in": "query", "required": name in required, **_described(_without_null(one))}
        )
    if operation.body is not None:
        media = _media(operation.body_schema or operation.body, reference_of)
        content = dict.fromkeys(_body_types(operation), media)
        made["requestBody"] = {"required": True, "content": content}
    if operation.scope is None:
        made["security"] = []
    else:
        # On a loopback address nobody needs one: the empty object.
        made["security"] = [{"token": []}, {"basic": []}, {"key": []}, {}]
        made["x-scope"] = operation.scope
    return made


def _responses(operation: Operation, reference_of: _References) -> _Object:
    success: _Object = {"description": HTTPStatus(operation.status).phrase}
    if operation.answer is not None:
        one_type = JSON if operation.answer is not bytes else operation.answer_type
        media = _media(operation.answer, reference_of)
        if operation.other_answer is not None:
            media = {"schema": {"anyOf": [media["schema"], reference_of[operation.other_answer]]}}
        success["content"] = dict.fromkeys(one_type.split(", "), media)
    refusal: _Object = {PROBLEM_JSON: _media(ProblemDetails, reference_of)}
    if operation.refusal is not None:
        refusal = {one: {} for one in operation.body_types}
    has_values = operation.query is not None or operation.body is not None
    reasons = {
        **({400: "The request is wrong: the answer says where, and what was expected."} if has_values else {}),
        **operation.problems,
        **({401: "No token that is known.", 403: "Another scope, project or page."} if operation.scope else {}),
    }
    return {
        f"{operation.status}": success,
        **{
            f"{status}": {
                "description": reasons[status],
                "content": success.get("content", {}) if status < 400 else refusal,
            }
            for status in sorted(reasons)
        },
        "default": {"description": "Any other refusal.", "content": refusal},
    }


def _body_types(operation: Operation) -> Sequence[str]:
    return operation.body_types if operation.body in {bytes, Stream} else (JSON,)


def _media(one: Any, reference_of: _References) -> _Object:
    return {"schema": reference_of[one]} if one in reference_of else {}


def _without_null(schema: _Object) -> _Object:
    """Return the schema of a parameter: one that is left out has no text for null."""
    kept = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    if schema.get("default") is not None:
        rest["default"] = schema["default"]
    return {**rest, **(kept[0] if len(kept) == 1 else {"anyOf": kept} if kept else {})}


def _described(schema: _Object) -> _Object:
    """Return a parameter with the description of its schema."""
    text = schema.pop("description", None)
    return {"schema": schema, **({"description": text} if text is not None else {})}
