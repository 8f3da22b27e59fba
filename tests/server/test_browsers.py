"""Which hosts and pages are refused. That every request is checked is tested in test_access.py, with real requests."""

from __future__ import annotations

import pytest

from otel_metadata.server.app import OPERATIONS
from otel_metadata.server.browsers import check_host, check_origin
from otel_metadata.server.operations import Operation, Problem

OTLP = next(one for one in OPERATIONS if one.path == "/v1/traces")
PATCH = next(one for one in OPERATIONS if one.path == "/api/v1/spans/{span_id}" and one.method == "PATCH")
DELETE = next(one for one in OPERATIONS if one.path == "/api/v1/spans" and one.method == "DELETE")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:4318", "localhost.:1", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:4318"]
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    check_host({"host": host}, frozenset())


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4318",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#localhost",
        "10.0.0.1",
        "0.0.0.0:4318",
        "[::]",
        "2130706433",
        "127.1",
        "localhost:4318:1",
        "localhost, evil.example",
        "::1",
        "",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    with pytest.raises(Problem) as refused:
        check_host({"host": host}, frozenset({"traces.example"}))
    assert (refused.value.status, refused.value.expected) == (421, "localhost")
    check_host({"host": host}, None)


def test_a_request_without_a_host_is_refused() -> None:
    with pytest.raises(Problem) as refused:
        check_host({}, None)
    assert refused.value.status == 400


@pytest.mark.parametrize("operation", [OTLP, PATCH, DELETE], ids=lambda one: one.name)
@pytest.mark.parametrize("trusts_site", [False, True])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "null"},
        {"origin": "null", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://localhost:1@evil.example"},
        {"origin": "file://"},
        {"origin": "file://", "sec-fetch-site": "same-origin"},
        {"origin": "chrome-extension://127.0.0.1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
)
def test_writes_from_another_site_are_refused(
    operation: Operation, headers: dict[str, str], *, trusts_site: bool
) -> None:
    with pytest.raises(Problem) as refused:
        check_origin(operation.method, operation, {"host": "127.0.0.1:4318", **headers}, trusts_site=trusts_site)
    assert refused.value.status == 403
