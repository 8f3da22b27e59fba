"""The reads under `/api/v1`, with real requests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from tests.server.api import (
    NEVER_STORED,
    OTHER_TRACE,
    SINCE,
    SPAN_ID,
    TRACE_ID,
    Plain,
    fill,
    fits,
    refused,
    start_with_tokens,
    token_of,
    update,
)
from tests.server.conftest import Server, StartServer
from tests.store.contract import START_NS, ended_span
from tests.strategies import examples

from otel_metadata.client.client import Client
from otel_metadata.model.record import SpanQuery, assemble
from otel_metadata.model.times import time_text
from otel_metadata.store import table

SPAN = f"/api/v1/spans/{SPAN_ID}"
TRACE = f"/api/v1/traces/{TRACE_ID}"


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> Server:
    """Return a server with one trace of three spans."""
    started = start_with_tokens(start_server, tmp_path)
    fill(started.store)
    return started


def pages(server: Server, path: str, name: str, members: str) -> list[Any]:
    """Return what all pages have, one after the other."""
    found: list[Any] = []
    cursor = ""
    while True:
        page = fits(server.call("GET", f"{path}{cursor}"), name)
        found += page[members]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_a_list_has_every_span_once_newest_first(server: Server) -> None:
    """Page after page, with the same members that the document promises."""
    spans = pages(server, f"/api/v1/spans?limit=1&{SINCE}", "list_spans", "spans")
    assert [span["name"] for span in spans] == ["step 3", "step 2", "step 1"]
    assert spans[-1]["start_time_ns"] == f"{START_NS + 1}"
    assert spans[-1]["start_time"] == time_text(START_NS + 1)
    assert spans[-1]["parent_id"] is None
    assert {span["project"] for span in spans} == {"shop"}


def test_a_list_takes_filter_project_window_and_trace(server: Server) -> None:
    def names(query: str) -> list[str]:
        page = fits(server.call("GET", f"/api/v1/spans?{query}"), "list_spans")
        return [span["name"] for span in page["spans"]]

    assert names(f"{SINCE}&filter={quote(chr(110) + chr(97) + 'me = ' + repr('step 2'))}") == ["step 2"]
    assert names(f"{SINCE}&project=shop&limit=1") == ["step 3"]
    assert names(f"{SINCE}&project=other") == []
    assert names(f"{SINCE}&end_time={time_text(START_NS + 2)}") == ["step 1"]
    assert names(f"trace_id={TRACE_ID}&limit=2") == ["step 3", "step 2"]
    assert names("") == []  # they are older than a week


def test_one_trace_or_span_can_be_asked_for_everywhere(server: Server) -> None:
    """A span id is looked for in every trace; counts, bars and rows are those of one trace."""
    server.store.write([ended_span(1, trace_id=int(OTHER_TRACE, 16), start_ns=START_NS + 9)])
    of_span = fits(server.call("GET", f"/api/v1/spans?{SINCE}&span_id={SPAN_ID}"), "list_spans")
    assert [span["trace_id"] for span in of_span["spans"]] == [OTHER_TRACE, TRACE_ID]
    asked = f"{SINCE}&trace_id={TRACE_ID}"
    assert fits(server.call("GET", f"/api/v1/count?{asked}"), "count_spans")["counted"] == 3
    window = f"{asked}&end_time={time_text(START_NS + 100)}&bars=1"
    assert fits(server.call("GET", f"/api/v1/histogram?{window}"), "get_histogram")["bars"][0]["spans"] == 3
    rows = fits(server.call("GET", f"/api/v1/traces?{asked}"), "list_traces")["traces"]
    assert [row["trace_id"] for row in rows] == [TRACE_ID]
    first = fits(server.call("GET", f"/api/v1/spans?{SINCE}&span_id={SPAN_ID}&limit=1"), "list_spans")
    other_query = f"/api/v1/spans?{SINCE}&limit=1&cursor={first['next_cursor']}"
    assert "cursor" in refused(server.call("GET", other_query), 400)["title"]
    refused(server.call("GET", "/api/v1/spans?span_id=x"), 400)


def test_span_ids_are_found_in_their_newest_trace(server: Server) -> None:
    """Those that are stored, and for a token only those of its project."""
    server.store.write([ended_span(1, trace_id=int(OTHER_TRACE, 16), start_ns=START_NS + 9)])

    def found(span_ids: list[str], **headers: str) -> dict[str, str]:
        response = server.call("POST", "/api/v1/spans:find", json={"span_ids": span_ids}, headers=headers)
        spans = fits(response, "find_spans")["spans"]
        return {span["span_id"]: span["trace_id"] for span in spans}

    asked = [SPAN_ID, f"{2:016x}", NEVER_STORED, SPAN_ID]
    assert found(asked) == {SPAN_ID: OTHER_TRACE, f"{2:016x}": TRACE_ID}
    assert found(asked, **token_of(server, "shop")) == {SPAN_ID: TRACE_ID, f"{2:016x}": TRACE_ID}
    assert found(asked, **token_of(server, "other")) == {}
    assert found([]) == {}
    refused(server.call("POST", "/api/v1/spans:find", json={"span_ids": ["x"]}), 400)


def test_a_list_goes_on_behind_a_place(server: Server) -> None:
    """`after` names the span before the page, and `searched_to` has the same members."""
    found = fits(server.call("GET", f"/api/v1/spans?{SINCE}&after={START_NS + 3},{TRACE_ID},{3:016x}"), "list_spans")
    assert [span["name"] for span in found["spans"]] == ["step 2", "step 1"]


def test_a_search_that_ends_early_says_how_far_it_got(server: Server) -> None:
    """And its cursor goes on from there, so that every read gets on."""
    server.store.write([ended_span(number, trace_id=number, start_ns=START_NS + number) for number in range(10, 500)])
    path = f"/api/v1/spans?{SINCE}&timeout_millis=0&limit=1000&filter={quote('name LIKE ' + repr('step%'))}"
    first = fits(server.call("GET", path), "list_spans")
    assert first["searched_to"] is not None
    spans = pages(server, path, "list_spans", "spans")
    assert [span["name"] for span in spans] == ["step 3", "step 2", "step 1"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("limit=ten", "limit"),
        ("start_time=yesterday", "start_time"),
        ("end_time=9999-01-01", "end_time"),
        ("at=now", "at"),
        ("cursor=nonsense", "cursor"),
        ("cursor=", "cursor"),
        ("after=1,2", "after"),
        ("after=99999999999999999999,0af7651916cd43dd8448eb211c80319c,0000000000000001", "after"),
        ("after=x&cursor=x", "cursor"),
        ("trace_id=12", "trace id"),
        ("timeout_millis=-1", "timeout_millis"),
        ("timeout_millis=nan", "timeout_millis"),
        ("exact=perhaps", "exact"),
        ("filtre=x", "filtre"),
        ("limit=1&limit=2", "limit"),
        ("filter=name%20%3D", "Filter"),
        ("project=%FF", "UTF-8"),
    ],
)
def test_a_wrong_parameter_is_one_clear_refusal(server: Server, query: str, words: str) -> None:
    assert words in refused(server.call("GET", f"/api/v1/spans?{query}"), 400)["title"]


def test_the_refusal_of_a_filter_has_the_place(server: Server) -> None:
    body = refused(server.call("GET", f"/api/v1/spans?filter={quote('latency_ms > now')}"), 400)
    assert body["position"] == 13
    assert "expected" in body


@pytest.mark.parametrize("other", ["project=shop", f"end_time={time_text(START_NS + 9)}", "filter=latency_ms%3E0"])
@pytest.mark.parametrize("path", ["spans", "traces"])
def test_a_cursor_of_another_query_is_refused(server: Server, other: str, path: str) -> None:
    """Its page would begin somewhere, and miss what is before."""
    server.store.write([ended_span(9, trace_id=9)])
    cursor = json.loads(server.call("GET", f"/api/v1/{path}?{SINCE}&limit=1").data)["next_cursor"]
    assert (
        "another query" in refused(server.call("GET", f"/api/v1/{path}?{SINCE}&{other}&cursor={cursor}"), 400)["title"]
    )
    assert server.call("GET", f"/api/v1/{path}?{SINCE}&limit=2&cursor={cursor}").status == 200


def test_a_cursor_of_another_time_is_refused(server: Server) -> None:
    path = f"/api/v1/spans?{SINCE}&limit=1"
    cursor = json.loads(server.call("GET", path).data)["next_cursor"]
    refused(server.call("GET", f"{path}&cursor={cursor}&at=2030-01-01"), 400)


def test_a_cursor_of_spans_is_none_of_traces(server: Server) -> None:
    cursor = json.loads(server.call("GET", f"/api/v1/spans?{SINCE}&limit=1").data)["next_cursor"]
    refused(server.call("GET", f"/api/v1/traces?{SINCE}&cursor={cursor}"), 400)


def test_one_span_is_what_the_client_shows(server: Server) -> None:
    """By its id, by its id and trace, and by a traceparent."""
    update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "up"}, "tags": ["vip"], "user_id": "u"})
    for path in (
        SPAN,
        f"{SPAN}?trace_id={TRACE_ID}",
        f"/api/v1/spans/00-{TRACE_ID}-{SPAN_ID}-01",
        SPAN.upper().replace("/API/V1/SPANS", "/api/v1/spans"),
    ):
        span = fits(server.call("GET", path), "get_span")
        assert (span["name"], span["metadata"], span["tags"]) == ("step 1", {"thumbs": "up"}, ["vip"])
    with Client(f"sqlite:///{server.store.path}") as client:
        shown = json.loads(client.spans.list(trace_id=TRACE_ID).to_json())["spans"][-1]
    assert {name: value for name, value in span.items() if not name.endswith("_ns")} == shown


def test_a_span_is_shown_as_it_was(server: Server) -> None:
    """With the time of a value the answer has that value, and before it another one."""
    first = update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "up"}})
    update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "down"}})

    def thumbs(path: str, name: str) -> Any:
        return fits(server.call("GET", f"{path}at={first['time']}"), name)

    assert thumbs(f"{SPAN}?", "get_span")["metadata"] == {"thumbs": "up"}
    page = thumbs(f"/api/v1/spans?trace_id={TRACE_ID}&", "list_spans")
    assert page["spans"][-1]["metadata"] == {"thumbs": "up"}
    assert "start" in refused(server.call("GET", f"{SPAN}?at={time_text(START_NS - 9)}"), 400)["title"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/api/v1/spans/{NEVER_STORED}", 404),
        (f"{SPAN}?trace_id={OTHER_TRACE}", 404),
        (f"/api/v1/spans/{NEVER_STORED}/history", 404),
        (f"/api/v1/traces/{OTHER_TRACE}", 404),
        (f"/api/v1/traces/{OTHER_TRACE}?at=2026-01-01", 404),
        (f"/api/v1/traces/{OTHER_TRACE}/history", 404),
        ("/api/v1/spans/xyz", 400),
        ("/api/v1/spans/" + "0" * 16, 400),
        ("/api/v1/spans/langfuse:abc", 400),
        (f"/api/v1/spans/00-{TRACE_ID}-{SPAN_ID}-01?trace_id={OTHER_TRACE}", 400),
        ("/api/v1/traces/xyz", 400),
        (f"{SPAN}/history?field=a%20b", 400),
        (f"{SPAN}/history?stored=false", 200),
        (f"{TRACE}/history?field=.", 400),
    ],
)
def test_an_id_that_names_nothing_is_told(server: Server, path: str, status: int) -> None:
    response = server.call("GET", path)
    if status == 200:
        assert response.status == 200
    else:
        refused(response, status)


def test_the_exact_form_is_the_line_of_an_export(server: Server) -> None:
    """One span, a page of them, and a span as it was: each gives span and fields back as the store has them."""
    update(
        server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "up"}, "tags": ["b", "a"], "output": None, "name": "new"}
    )
    update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "down"}})
    update(server, f"traces/{TRACE_ID}", {"metadata": {"plan": "free"}})
    lines = server.call("GET", "/api/v1/export.jsonl").data.splitlines()
    assert [json.loads(line) for line in lines[-1:]] == [json.loads(server.call("GET", f"{SPAN}?exact=true").data)]
    page = json.loads(server.call("GET", f"/api/v1/spans?trace_id={TRACE_ID}&exact=true&limit=2").data)
    assert [one["context.span_id"] for one in page["spans"]] == [f"{3:016x}", f"{2:016x}"]
    rest = json.loads(
        server.call("GET", f"/api/v1/spans?trace_id={TRACE_ID}&exact=true&cursor={page['next_cursor']}").data
    )
    assert rest["next_cursor"] is rest["searched_to"] is None

    (record,) = server.store.query(SpanQuery(TRACE_ID, SPAN_ID))
    row = {**rest["spans"][0], "start_time": START_NS + 1, "end_time": START_NS + 1 + 1_000_000}
    assert assemble(*table.row_of(row)) == record


def test_the_exact_form_shows_a_span_as_it_was(server: Server) -> None:
    first = update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "up"}, "tags": ["a"]})
    update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "down"}, "tags": ["a", "b"]})
    for path in (
        f"{SPAN}?exact=true&at={first['time']}",
        f"/api/v1/spans?trace_id={TRACE_ID}&exact=true&at={first['time']}",
    ):
        found = json.loads(server.call("GET", path).data)
        row = found["spans"][-1] if "spans" in found else found
        row = {**row, "start_time": START_NS + 1, "end_time": START_NS + 1 + 1_000_000}
        record = assemble(*table.row_of(row))
        at_ns = int(first["time_ns"])
        assert record == replace(server.store.query(SpanQuery(TRACE_ID, SPAN_ID, at_ns=at_ns))[0])


def test_a_history_says_when_by_whom_and_what_was_replaced(server: Server) -> None:
    up = update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "up"}})
    down = update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "down", "other": 1}})
    found = fits(server.call("GET", f"{SPAN}/history?field=metadata.thumbs"), "get_span_history")["values"]
    assert [(one["value"], one["author"], one["route"], one["time_ns"]) for one in found] == [
        ("down", "ada", "late", down["time_ns"]),
        ("up", "ada", "late", up["time_ns"]),
    ]
    assert found[0]["superseded_by"] is None
    assert found[1]["superseded_by"] == {name: down[name] for name in ("time", "time_ns", "writer")}
    assert len(fits(server.call("GET", f"{SPAN}/history"), "get_span_history")["values"]) == 3


def test_the_history_of_a_trace_has_its_own_values(server: Server) -> None:
    update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "up"}})
    update(server, f"traces/{TRACE_ID}", {"metadata": {"plan": "free"}})
    found = fits(server.call("GET", f"{TRACE}/history?field=trace.metadata.plan"), "get_trace_history")
    assert [one["value"] for one in found["values"]] == ["free"]
    assert len(fits(server.call("GET", f"{TRACE}/history"), "get_trace_history")["values"]) == 1


def test_values_that_wait_for_their_span_are_shown_on_request(server: Server) -> None:
    """A store keeps an update that comes before its span."""
    path = f"/api/v1/spans/{NEVER_STORED}/history"
    assert update(server, f"spans/{NEVER_STORED}?trace_id={OTHER_TRACE}", {"metadata": {"a": 1}})["status"] == "pending"
    refused(server.call("GET", f"{path}?trace_id={OTHER_TRACE}"), 404)
    found = fits(server.call("GET", f"{path}?trace_id={OTHER_TRACE}&stored=false"), "get_span_history")
    assert [one["value"] for one in found["values"]] == [1]
    assert (
        fits(server.call("GET", f"/api/v1/traces/{OTHER_TRACE}/history?stored=false"), "get_trace_history")["values"]
        == []
    )


def test_traces_are_one_row_each(server: Server) -> None:
    server.store.write([ended_span(9, trace_id=9, start_ns=START_NS + 99, name="alone")])
    update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "up"}, "evaluations": {"Good": {"score": 1}}})
    traces = pages(server, f"/api/v1/traces?limit=1&{SINCE}", "list_traces", "traces")
    assert [(one["name"], one["spans"], one["errors"]) for one in traces] == [("alone", 1, 0), ("step 1", 3, 1)]
    assert traces[1]["evaluations"] == {"Good": {"source": "code", "score": 1}}
    assert traces[1]["late_values"] == 2


def test_one_trace_is_an_outline(server: Server) -> None:
    """With what was set on the trace, now and as it was."""
    free = update(server, f"traces/{TRACE_ID}", {"metadata": {"plan": "free"}, "name": "checkout", "tags": ["x"]})
    update(server, f"traces/{TRACE_ID}", {"metadata": {"plan": "paid"}})
    response = server.call("GET", TRACE)
    found = fits(response, "get_trace")
    assert (found["name"], found["metadata"], found["tags"]) == ("checkout", {"plan": "paid"}, ["x"])
    assert [span["name"] for span in found["spans"]] == ["step 1", "step 2", "step 3"]
    assert found["spans"][2]["status_code"] == "ERROR"
    assert response.headers["ETag"] == f'"{found["version"]}"'
    before = fits(server.call("GET", f"{TRACE}?at={free['time']}"), "get_trace")
    assert before["metadata"] == {"plan": "free"}
    assert before["spans"] == found["spans"]


def test_bars_count_and_names(server: Server) -> None:
    update(
        server,
        f"spans/{SPAN_ID}",
        {"metadata": {"region": 1, "reason": 2}, "tags": ["vip"], "evaluations": {"Good": {"score": 1}}},
    )
    window = f"{SINCE}&end_time={time_text(START_NS + 9)}"
    bars = fits(server.call("GET", f"/api/v1/histogram?{window}&bars=10"), "get_histogram")
    assert [(bar["spans"], bar["errors"]) for bar in bars["bars"] if bar["spans"]] == [(1, 0), (1, 0), (1, 1)]
    assert bars["width_ns"] == "1"
    assert fits(server.call("GET", f"/api/v1/count?{SINCE}"), "count_spans") == {"counted": 3, "is_exact": True}
    assert fits(server.call("GET", f"/api/v1/count?{SINCE}&limit=2"), "count_spans") == {
        "counted": 2,
        "is_exact": False,
    }

    def names(query: str) -> list[str]:
        found: list[str] = fits(server.call("GET", f"/api/v1/names?{query}"), "list_names")["names"]
        return found

    assert names("kind=metadata") == ["reason", "region"]
    assert names("kind=metadata&prefix=reg") == ["region"]
    assert names("kind=tag") == ["vip"]
    assert names("kind=evaluation&limit=1") == ["Good"]
    assert names("kind=metadata&level=trace") == []


@pytest.mark.parametrize(
    "path",
    [
        "histogram?bars=0",
        f"histogram?start_time={time_text(START_NS)}&end_time={time_text(START_NS)}",
        "histogram?start_time=1678-01-01&end_time=2261-01-01&bars=1",
        "histogram?start_time=2027-01-01&end_time=2026-01-01",
        "count?limit=-1",
        "names",
        "names?kind=output",
        "names?kind=tag&level=both",
    ],
)
def test_wrong_parameters_of_the_other_reads_are_refused(server: Server, path: str) -> None:
    refused(server.call("GET", f"/api/v1/{path}"), 400)


def test_traces_have_metadata_if_it_is_asked_for(server: Server) -> None:
    update(server, f"spans/{SPAN_ID}", {"metadata": {"plan": "free"}})
    update(server, f"traces/{TRACE_ID}", {"metadata": {"experiment": 7}})
    for asked, metadata, of_trace in [("", {}, {}), ("&with_metadata=true", {"plan": "free"}, {"experiment": 7})]:
        (trace,) = fits(server.call("GET", f"/api/v1/traces?{SINCE}{asked}"), "list_traces")["traces"]
        assert (trace["metadata"], trace["trace_metadata"]) == (metadata, of_trace)
    page = fits(server.call("GET", f"/api/v1/traces?{SINCE}&with_metadata=true&filter=name+%3D+'x'"), "list_traces")
    assert page["traces"] == []


def test_a_caller_with_a_project_sees_only_that(server: Server) -> None:
    """Spans of another project are not there for it, also inside a trace of both."""
    server.store.write(
        [
            ended_span(7, start_ns=START_NS + 7, name="foreign", resource=Resource({"service.name": "bank"})),
            ended_span(8, trace_id=8, start_ns=START_NS + 8, name="bank", resource=Resource({"service.name": "bank"})),
        ]
    )
    foreign = f"{7:016x}"
    update(server, f"spans/{foreign}", {"metadata": {"secret": 1}})
    update(server, f"spans/{SPAN_ID}", {"metadata": {"open": 1}})
    shop = token_of(server, "shop")

    def get(path: str, name: str) -> Any:
        return fits(server.call("GET", f"/api/v1/{path}", headers=shop), name)

    assert {span["project"] for span in get(f"spans?{SINCE}", "list_spans")["spans"]} == {"shop"}
    assert [trace["name"] for trace in get(f"traces?{SINCE}", "list_traces")["traces"]] == ["step 1"]
    assert len(get(f"traces/{TRACE_ID}", "get_trace")["spans"]) == 3
    assert len(get(f"traces/{TRACE_ID}?at=2030-01-01", "get_trace")["spans"]) == 3
    assert get(f"count?{SINCE}", "count_spans")["counted"] == 3
    assert get("names?kind=metadata", "list_names")["names"] == ["open"]
    bars = get(f"histogram?{SINCE}&end_time={time_text(START_NS + 99)}&bars=1", "get_histogram")["bars"]
    assert bars[0]["spans"] == 3
    lines = server.call("GET", "/api/v1/export.jsonl", headers=shop).data.splitlines()
    assert len(lines) == 3
    for path in (
        f"spans/{foreign}",
        f"spans/{foreign}?exact=true",
        f"spans/{foreign}?at=2030-01-01",
        f"spans/{foreign}/history",
        f"spans/{foreign}/history?stored=false&trace_id={TRACE_ID}",
        f"traces/{8:032x}",
        f"traces/{8:032x}/history",
        f"traces/{8:032x}/history?stored=false",
    ):
        refused(server.call("GET", f"/api/v1/{path}", headers=shop), 404)
    for path in ("spans", "traces", "count", "histogram", "export.jsonl"):
        refused(server.call("GET", f"/api/v1/{path}?project=bank", headers=shop), 403)
        assert server.call("GET", f"/api/v1/{path}?project=shop", headers=shop).status == 200


def test_a_store_that_cannot_answer_is_said_to(start_server: StartServer, server: Server) -> None:
    """A store of a third party lists and shows spans; what it cannot do is 501."""
    update(server, f"spans/{SPAN_ID}", {"metadata": {"thumbs": "up"}})
    plain = start_server(store=Plain(server.store))  # type: ignore[arg-type] # a store by its methods
    assert len(fits(plain.call("GET", f"/api/v1/spans?{SINCE}"), "list_spans")["spans"]) == 3
    assert fits(plain.call("GET", SPAN), "get_span")["metadata"] == {"thumbs": "up"}
    assert plain.call("GET", f"{SPAN}?exact=true").data == server.call("GET", f"{SPAN}?exact=true").data
    assert len(fits(plain.call("GET", TRACE), "get_trace")["spans"]) == 3
    assert plain.call("GET", "/api/v1/export.jsonl").data == server.call("GET", "/api/v1/export.jsonl").data
    for path in ("traces", "count", "histogram", "names?kind=tag"):
        refused(plain.call("GET", f"/api/v1/{path}"), 501)


TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", "-1", "0", "1e999", "nan", "true", "null", TRACE_ID, SPAN_ID, "2026-01-01", "\0", "name = 'a'", "9" * 40]
    ),
)
PARAMETERS = (
    "filter",
    "project",
    "start_time",
    "end_time",
    "limit",
    "cursor",
    "after",
    "trace_id",
    "at",
    "exact",
    "timeout_millis",
    "field",
    "stored",
    "bars",
    "kind",
    "level",
    "prefix",
)
PATHS = st.one_of(
    st.sampled_from(
        [
            "spans",
            "traces",
            "histogram",
            "count",
            "names",
            f"spans/{SPAN_ID}",
            f"spans/{SPAN_ID}/history",
            f"traces/{TRACE_ID}",
            f"traces/{TRACE_ID}/history",
            "export.jsonl",
        ]
    ),
    st.builds(lambda kind, text: f"{kind}/{quote(text, safe='')}", st.sampled_from(["spans", "traces"]), TEXTS),
)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PATHS, st.dictionaries(st.sampled_from(PARAMETERS), TEXTS, max_size=4), st.binary(max_size=6))
def test_no_parameter_makes_the_server_fail(server: Server, path: str, given: dict[str, str], noise: bytes) -> None:
    query = "&".join(f"{name}={quote(text, safe='')}" for name, text in given.items())
    for extra in ("", f"&x={quote(noise)}"):
        response = server.call("GET", f"/api/v1/{path}?{query}{extra}")
        assert response.status in {200, 400, 404, 405}, (path, query, response.data)
