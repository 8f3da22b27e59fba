"""`GET /api/v1/late-values`, and the lines of `GET /api/v1/connect`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from opentelemetry.sdk.resources import Resource
from tests.server.api import SINCE, TRACE_ID, Plain, fill, fits, refused, start_with_tokens, token_of, update
from tests.server.conftest import Server, StartServer
from tests.store.contract import START_NS, ended_span

from otel_metadata.server.sdk_settings import NAMES, settings_of
from otel_metadata.store.sqlite.store import SqliteStore

SPANS = [f"{number:016x}" for number in (1, 2, 3)]


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> Server:
    """Return a server with one trace of three spans of the project "shop"."""
    started = start_with_tokens(start_server, tmp_path)
    fill(started.store)
    return started


def late(server: Server, query: str = SINCE, **headers: str) -> Any:
    return fits(server.call("GET", f"/api/v1/late-values?{query}", headers=headers), "list_late_values")


def told(page: Any) -> list[tuple[str, str, Any, Any]]:
    return [
        (one["span_id"], one["value"]["field"], one["value"]["value"], one["replaced"] and one["replaced"]["value"])
        for one in page["values"]
    ]


def test_late_values_are_newest_first_each_with_what_it_replaced(server: Server) -> None:
    update(server, f"spans/{SPANS[1]}", {"metadata": {"thumbs": "up"}})
    update(server, f"traces/{TRACE_ID}", {"metadata": {"plan": "free"}})
    update(server, f"spans/{SPANS[1]}", {"metadata": {"thumbs": "down"}})
    update(server, f"spans/{SPANS[2]}", {"tags": ["vip"]})
    page = late(server)
    assert told(page) == [
        (SPANS[2], "tags.vip", True, None),
        (SPANS[1], "metadata.thumbs", "down", "up"),
        ("", "trace.metadata.plan", "free", None),
        (SPANS[1], "metadata.thumbs", "up", None),
    ]
    assert page["searched_to"] is None
    newest = page["values"][0]
    assert (newest["trace_id"], newest["name"], newest["value"]["author"]) == (TRACE_ID, "step 3", "ada")
    assert newest["end_time_ns"] == str(
        fits(server.call("GET", f"/api/v1/spans/{SPANS[2]}"), "get_span")["end_time_ns"]
    )


def test_a_value_that_was_not_late_is_only_told_as_replaced(server: Server) -> None:
    fields: Any = {("span", "metadata", "model"): ("m-1", (START_NS + 1, 7))}
    server.store.patch_rows([(TRACE_ID, SPANS[0], fields)], route="live")
    assert told(late(server)) == []
    update(server, f"spans/{SPANS[0]}", {"metadata": {"model": "m-2"}})
    assert told(late(server)) == [(SPANS[0], "metadata.model", "m-2", "m-1")]


def test_field_filter_and_window_select(server: Server) -> None:
    for span in SPANS:
        update(server, f"spans/{span}", {"metadata": {"thumbs": span[-1], "other": 1}})
    assert [one[2] for one in told(late(server, f"{SINCE}&field=metadata.thumbs"))] == ["3", "2", "1"]
    condition = quote("name = 'step 2' OR name = 'step 1'")
    assert [one[2] for one in told(late(server, f"{SINCE}&field=thumbs&filter={condition}"))] == ["2", "1"]
    assert told(late(server, "")) == []  # the spans are older than a week
    refused(server.call("GET", "/api/v1/late-values?field=start_time"), 400)
    refused(server.call("GET", "/api/v1/late-values?limit=201"), 400)
    assert refused(server.call("GET", "/api/v1/late-values?filter=name+%3D+x"), 400)["position"] == 7


@pytest.mark.parametrize("bound", ["limit=1", "timeout_millis=0"])
def test_a_bounded_answer_says_how_far_it_looked_and_can_be_asked_on(server: Server, bound: str) -> None:
    for span in SPANS:
        update(server, f"spans/{span}", {"metadata": {"thumbs": span[-1]}})
    found, end = [], ""
    for _ in SPANS:
        page = late(server, f"{SINCE}&{bound}{end}")
        found += told(page)
        if page["searched_to"] is None:
            break
        end = f"&end_time={page['searched_to']['start_time']}"
    assert [one[2] for one in found] == ["3", "2", "1"]


def test_a_caller_with_a_project_sees_only_that(server: Server) -> None:
    other = ended_span(9, trace_id=7, start_ns=START_NS + 50, resource=Resource({"service.name": "bank"}))
    server.store.write([other])
    update(server, f"spans/{9:016x}", {"metadata": {"balance": 12}})
    update(server, f"spans/{SPANS[0]}", {"metadata": {"thumbs": "up"}})
    assert len(told(late(server))) == 2
    assert told(late(server, **token_of(server, "shop"))) == [(SPANS[0], "metadata.thumbs", "up", None)]
    assert told(late(server, f"{SINCE}&project=bank")) == [(f"{9:016x}", "metadata.balance", 12, None)]
    refused(server.call("GET", "/api/v1/late-values?project=bank", headers=token_of(server, "shop")), 403)


def test_a_store_without_such_reads_says_so(start_server: StartServer, tmp_path: Any) -> None:
    server = start_server(Plain(SqliteStore(tmp_path / "plain.db")))  # type: ignore[arg-type] # made by hand
    refused(server.call("GET", "/api/v1/late-values"), 501)


def test_the_lines_are_those_of_the_command_and_a_shell_reads_them(server: Server) -> None:
    page = fits(server.call("GET", "/api/v1/connect?url=http://127.0.0.1:4318"), "get_environments")
    assert [one["name"] for one in page["environments"]] == [*NAMES]
    assert page["has_grpc"] is False
    assert page["grpc_port"] is None
    for one in page["environments"]:
        words = [shlex.split(line) for line in one["lines"]]
        assert words == [
            ["export", line] for line in settings_of(one["name"], "http://127.0.0.1:4318", "http://127.0.0.1:4317")
        ]


def test_the_lines_name_the_address_that_was_asked_and_the_port_of_grpc(start_server: StartServer) -> None:
    server = start_server(own=True, grpc_port=0)
    page = fits(server.call("GET", "/api/v1/connect"), "get_environments")
    assert page["has_grpc"] is True
    lines = {one["name"]: one["lines"] for one in page["environments"]}
    assert f"export LANGFUSE_BASE_URL={server.url}" in lines["langfuse"]
    assert f"export ARIZE_COLLECTOR_ENDPOINT=http://127.0.0.1:{server.local.service.grpc_port}" in lines["arize"]
    for url in ("x", "ftp://a", "http://", "http://a:99999999", "http://[::1", "http://a;b c\n:1"):
        response = server.call("GET", f"/api/v1/connect?url={quote(url)}")
        if response.status == 200:  # a strange host, quoted for the shell
            for one in response.json()["environments"]:
                assert all(len(shlex.split(line)) == 2 for line in one["lines"])
        else:
            refused(response, 400)
