"""The OpenAPI document, as the server answers it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.conftest import Server, StartServer

from otel_metadata._version import __version__
from otel_metadata.server import openapi
from otel_metadata.server.app import OPERATIONS
from otel_metadata.server.operations import Stream

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


@pytest.fixture
def document(server: Server) -> Any:
    response = server.call("GET", "/api/v1/openapi.json")
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    return response.json()


LISTED = [one for one in OPERATIONS if one.tag != "page"]
"""A browser asks for the files of the page, and nobody else does."""


def parts(value: Any) -> Iterator[Any]:
    """Yield every object inside a JSON value."""
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from parts(one)
    elif isinstance(value, list):
        for one in value:
            yield from parts(one)


def test_every_operation_is_in_the_document_and_nothing_else(document: Any) -> None:
    said = {
        (method.upper(), path): operation["operationId"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert said == {(one.method, one.path): one.name for one in LISTED}
    assert len({one.name for one in OPERATIONS}) == len(OPERATIONS)


def test_the_document_has_the_structure_of_openapi(document: Any) -> None:
    """What the specification demands of each object that we write."""
    assert set(document) <= {"openapi", "info", "servers", "tags", "paths", "components"}
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert {"title", "version"} <= set(document["info"])
    assert document["info"]["version"] == __version__
    tags = {one["name"] for one in document["tags"]}
    for path, item in document["paths"].items():
        assert path.startswith("/")
        assert set(item) <= METHODS
        for operation in item.values():
            assert operation["summary"].endswith("."), path
            assert set(operation["tags"]) <= tags
            declared = [(one["name"], one["in"]) for one in operation["parameters"]]
            assert len(set(declared)) == len(declared)
            assert {name for name, place in declared if place == "path"} == set(re.findall(r"\{(\w+)\}", path))
            for one in operation["parameters"]:
                assert one["in"] in {"path", "query"}
                assert one["required"] is True or one["in"] == "query"
                assert isinstance(one["schema"], dict)
                assert {"type": "null"} not in one["schema"].get("anyOf", [])
            for status, response in operation["responses"].items():
                assert re.fullmatch(r"[1-5]\d\d|default", status)
                assert response["description"]
                for media_type, media in response.get("content", {}).items():
                    assert re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", media_type)
                    assert set(media) <= {"schema"}
            assert any(status.startswith("2") for status in operation["responses"])
            assert operation.get("requestBody", {"content": {"": {}}})["content"]
            for requirement in operation["security"]:
                assert set(requirement) <= set(document["components"]["securitySchemes"])


def test_every_reference_leads_somewhere(document: Any) -> None:
    schemas = document["components"]["schemas"]
    references = {one["$ref"] for one in parts(document) if isinstance(one.get("$ref"), str)}
    assert references
    assert {one.removeprefix("#/components/schemas/") for one in references} == set(schemas)
    for schema in schemas.values():
        for name in schema.get("required", ()):
            assert name in schema["properties"]


def test_bodies_and_scopes_are_those_of_the_table(document: Any) -> None:
    for one in LISTED:
        said = document["paths"][one.path][one.method.lower()]
        assert said.get("x-scope") == one.scope
        assert (said["security"] == []) == (one.scope is None)
        assert ("requestBody" in said) == (one.body is not None)
        if one.body not in {None, bytes, Stream}:
            assert "$ref" in said["requestBody"]["content"]["application/json"]["schema"]
        assert f"{one.status}" in said["responses"]
        assert {f"{status}" for status in one.problems} <= set(said["responses"])


def test_calls_of_vendors_have_schemas(document: Any) -> None:
    """Their handlers read the body themselves, by the same types."""
    for one in LISTED:
        if one.tag in {"langfuse", "langwatch", "logfire"}:
            said = document["paths"][one.path][one.method.lower()]
            for media in (said.get("requestBody"), said["responses"][f"{one.status}"]):
                assert media is None or "$ref" in f"{media['content']['application/json']}", one.name
    schemas = document["components"]["schemas"]
    assert set(schemas["LangWatchMetadata"]["properties"]) == {"user_id", "thread_id", "customer_id", "labels"}
    assert schemas["LangfuseScore"]["required"] == ["name", "value", "traceId"]


def test_a_parameter_has_its_limits_and_its_description(document: Any) -> None:
    parameters = {one["name"]: one for one in document["paths"]["/api/v1/spans"]["get"]["parameters"]}
    assert parameters["limit"]["schema"]["type"] == "integer"
    assert parameters["filter"]["schema"]["type"] == "string"
    assert any("description" in one for one in parameters.values())


def test_another_table_has_another_document(start_server: StartServer) -> None:
    server = start_server(operations=[one for one in OPERATIONS if one.name == "get_openapi"])
    assert server.call("GET", "/api/v1/openapi.json").status == 200
    assert server.call("GET", "/api/v1/spans").status == 404


def test_each_call_that_takes_values_says_how_it_refuses_wrong_ones() -> None:
    for one in OPERATIONS:
        if one.query is not None or one.body is not None:
            answers = openapi.document([one])["paths"][one.path][one.method.lower()]["responses"]
            assert answers["400"]["description"], one.name
            assert answers["400"]["content"] == answers["default"]["content"]
