"""From a request to a handler and back: routes, bodies, queries, refusals. Every request is a real one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import itertools
import json
import socket
import sqlite3
import threading
import weakref
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from tests.server.conftest import PATIENCE, Server, StartServer
from tests.store.contract import ended_span, trace_hex

from otel_metadata.client.queries import query_of
from otel_metadata.errors import SpanNotFoundError, StoreError
from otel_metadata.reporting import REPORTER
from otel_metadata.server import bodies
from otel_metadata.server.app import OPERATIONS
from otel_metadata.server.operations import Answer, Call, Caller, Operation, Problem, Stream
from otel_metadata.server.problems import in_json


class Inner(msgspec.Struct):
    name: str
    numbers: list[int] = []


class Document(msgspec.Struct):
    inner: Inner
    anything: Any = None
    by_name: dict[str, int] = {}


class Query(msgspec.Struct, forbid_unknown_fields=True):
    limit: int = 10
    deep: bool = False
    project: str | None = None
    tag: list[str] = []


async def echo(call: Call) -> Answer:
    body = call.body.decode("latin-1") if isinstance(call.body, bytes) else call.body
    return Answer({"path": dict(call.path), "query": call.query, "body": body, "headers": dict(call.headers)})


async def refuse(call: Call) -> Answer:
    raise Problem(418, "No coffee.", pointer="/pot", expected="tea", position=3, headers={"Retry-After": "7"})


async def stream(call: Call) -> Answer:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number

    return Answer(parts(), media_type="application/jsonl")


async def bad_filter(call: Call) -> Answer:
    return Answer(await call.service.read(lambda: query_of(filter="name = ")))


async def unknown(call: Call) -> Answer:
    raise SpanNotFoundError("00" * 8, "the store")


async def locked(call: Call) -> Answer:
    def write() -> None:
        raise StoreError("it is locked")

    return Answer(await call.service.write(write))


async def empty(call: Call) -> Answer:
    return Answer(status=204)


def vendor(problem: Problem) -> object:
    return {"error": problem.title}


def plain(problem: Problem, headers: Mapping[str, str]) -> Answer:
    text = f"{headers['content-type']}: {problem.title}"
    return Answer(text.encode(), problem.status, "text/plain")


async def sizes(call: Call) -> Answer:
    return Answer([len(part) async for part in call.body])


TABLE = (
    Operation("POST", "/otlp", "otlp", "", echo, None, body=Document, refusal=plain),
    Operation("POST", "/large", "large", "", sizes, None, body=Stream, max_bytes=1),
    Operation("GET", "/plain", "plain", "", echo, None, query=Query),
    Operation("POST", "/document", "document", "", echo, None, body=Document),
    Operation("POST", "/small", "small", "", echo, None, body=Document, max_bytes=1_000),
    Operation("POST", "/bytes", "bytes", "", echo, None, body=bytes, max_bytes=1_000_000),
    Operation("POST", "/vendor", "vendor", "", echo, None, body=Document, refusal=in_json(vendor)),
    Operation("GET", "/spans/{span_id}/values/{name}", "value", "", echo, None),
    Operation("DELETE", "/spans/{span_id}/values/{name}", "drop", "", echo, None),
    Operation("GET", "/spans/fixed/values/name", "fixed", "", empty, None),
    Operation("POST", "/spans:batch", "batch", "", empty, None),
    Operation("GET", "/refuse", "refuse", "", refuse, None),
    Operation("GET", "/stream", "stream", "", stream, None),
    Operation("GET", "/filter", "filter", "", bad_filter, None),
    Operation("GET", "/unknown", "unknown", "", unknown, None),
    Operation("GET", "/locked", "locked", "", locked, None),
)

DOCUMENT = {"inner": {"name": "a", "numbers": [1, 2]}}


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """Return a server that answers the table above."""
    return start_server(operations=TABLE)


def problem(response: Any, status: int) -> dict[str, Any]:
    """Return the body of a refusal, which says its own status."""
    assert response.status == status, response.data
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["type"] == "about:blank"
    assert body["title"]
    return body


def test_a_body_of_the_right_type_reaches_its_handler(server: Server) -> None:
    response = server.call("POST", "/document", json=DOCUMENT)
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json()["body"] == {**DOCUMENT, "anything": None, "by_name": {}}


@pytest.mark.parametrize(
    ("body", "pointer", "expected"),
    [
        ({}, "", "object"),
        ([], "", "object"),
        ({"inner": {}}, "/inner", None),
        ({"inner": {"name": 1}}, "/inner/name", "str"),
        ({"inner": {"name": "a", "numbers": [1, "2"]}}, "/inner/numbers/1", "int"),
        ({**DOCUMENT, "by_name": {"a/b": "x"}}, "/by_name", "int"),
    ],
)
def test_a_body_of_another_type_is_refused_with_the_place(
    server: Server, body: object, pointer: str, expected: str | None
) -> None:
    found = problem(server.call("POST", "/document", json=body), 400)
    assert found["pointer"] == pointer
    if body != {}:
        assert found.get("expected") == expected


@pytest.mark.parametrize("body", [b"", b"{", b'{"inner": }', b'{"inner": "\xff"}', b"\xff\xfe{}", b'{"a":NaN}'])
def test_what_is_not_json_is_refused(server: Server, body: bytes) -> None:
    problem(server.call("POST", "/document", body=body, headers={"Content-Type": "application/json"}), 400)


def test_a_place_in_damaged_json_is_a_position(server: Server) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert problem(server.call("POST", "/document", body=b'{"inner": }', headers=headers), 400)["position"] == 10


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_another_type_of_content_is_refused(server: Server, media_type: str) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    found = problem(server.call("POST", "/document", body=json.dumps(DOCUMENT).encode(), headers=headers), 415)
    assert found["expected"] == "application/json"


def test_bytes_come_as_they_are_with_any_type_of_content(server: Server) -> None:
    assert server.call("POST", "/bytes", body=b"\x00\xff").json()["body"] == "\x00\xff"


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
        ("gzip", lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:])),
    ],
)
def test_compressed_bodies_are_decompressed(server: Server, encoding: str, pack: Any) -> None:
    body = pack(json.dumps(DOCUMENT).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    assert server.call("POST", "/document", body=body, headers=headers).json()["body"]["inner"] == DOCUMENT["inner"]


@pytest.mark.parametrize(
    "body", [gzip.compress(b"x" * 1_000)[:-5], b"no gzip at all", gzip.compress(b"x") + b"more", zlib.compress(b"x")]
)
def test_damaged_compressed_bodies_are_refused(server: Server, body: bytes) -> None:
    problem(server.call("POST", "/bytes", body=body, headers={"Content-Encoding": "gzip"}), 400)


def test_an_unknown_encoding_is_refused_with_those_that_are_known(server: Server) -> None:
    response = server.call("POST", "/bytes", body=b"x", headers={"Content-Encoding": "br"})
    problem(response, 415)
    assert response.headers["Accept-Encoding"] == "gzip, deflate"


def test_bodies_that_are_too_large_are_refused(server: Server) -> None:
    problem(server.call("POST", "/bytes", body=b"x" * 1_000_001), 413)
    assert server.call("POST", "/bytes", body=b"x" * 1_000_000).status == 200
    chunked = server.http.request("POST", f"{server.url}/bytes", body=(b"x" * 1_000 for _ in range(1_001)))
    problem(chunked, 413)


def test_a_bomb_is_cut_off_before_it_is_in_memory(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    add = bodies.Buffered.add

    def watched(buffered: bodies.Buffered, size: int) -> None:
        add(buffered, size)
        held.append(buffered.size)

    monkeypatch.setattr(bodies.Buffered, "add", watched)
    bomb = gzip.compress(bytes(200 << 20))
    assert len(bomb) < 1_000_000
    problem(server.call("POST", "/bytes", body=bomb, headers={"Content-Encoding": "gzip"}), 413)
    assert max(held) <= 2 << 20


def test_bodies_of_all_requests_together_are_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BUFFERED", 50_000)
    response = server.call("POST", "/bytes", body=b"x" * 60_000)
    problem(response, 503)
    assert response.headers["Retry-After"] == "1"
    for _ in range(3):  # what was counted is given back
        assert server.call("POST", "/bytes", body=b"x" * 40_000).status == 200
        assert (
            server.call(
                "POST", "/bytes", body=gzip.compress(b"x" * 40_000), headers={"Content-Encoding": "gzip"}
            ).status
            == 200
        )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"inner":{"name":"a"},"anything":' + b"[" * 99 + b"]" * 99 + b"}", 200),
        (b'{"inner":{"name":"a"},"anything":' + b"[" * 100 + b"]" * 100 + b"}", 400),
        (b'{"inner":{"name":"a"},"anything":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}", 400),
        (b'{"inner":{"name":"a"},"anything":' + b"[" * 500_000, 400),
        (b'{"inner":{"name":"a"},"anything":"' + b"[" * 500 + b'\\"' + b"]" * 7 + b'"}', 200),
        (b'{"inner":{"name":"a"},"anything":[' + b"[]," * 50_000 + b"{}]}", 200),
        (b'{"inner":{"name":"a"},"anything":[' + b'"\\\\",' * 500 + b"[" * 500 + b"]" * 500 + b"]}", 400),
        # Escapes and strings over the borders of what is looked at in one piece.
        *(
            (b'{"inner":{"name":"a"},"anything":"' + b"x" * n + b'\\"' * 70_000 + b"[" * 500 + b'"}', 200)
            for n in (0, 1)
        ),
        *(
            (b'{"inner":{"name":"a"},"anything":["' + b"x" * n + b"\\\\" * 70_000 + b'",' + b"[" * 99, 400)
            for n in (0, 1)
        ),
    ],
)
def test_nesting_is_bounded(server: Server, body: bytes, status: int) -> None:
    response = server.call("POST", "/document", body=body, headers={"Content-Type": "application/json"})
    assert response.status == status, response.data[:200]
    if status == 400 and not body.endswith(b"["):
        assert "100 deep" in response.json()["title"]


def test_a_check_of_nesting_looks_at_each_byte_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs inside pairs as well as pairs side by side. Deep JSON is refused at its first piece."""
    steps: list[int] = []

    def counted(values: Sequence[int], *, initial: int) -> Iterator[int]:
        steps.append(len(values))
        return itertools.accumulate(values, initial=initial)

    monkeypatch.setattr(bodies, "accumulate", counted)
    body = b"[" + b",".join([b"[" * 99 + b"]" * 99] * 5_000) + b"]"
    bodies.refuse_deep(body)
    assert sum(steps) == 2 + 2 * 99 * 5_000
    steps.clear()
    with pytest.raises(Problem, match="100 deep"):
        bodies.refuse_deep(b"[" * 4_000_000)
    assert sum(steps) < 100_000


@pytest.mark.parametrize("size", [1_000, 1_000_000])
def test_a_large_body_is_decoded_off_the_event_loop(server: Server, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    threads: list[str] = []
    check = bodies.refuse_deep

    def seen(body: bytes) -> None:
        threads.append(threading.current_thread().name)
        check(body)

    monkeypatch.setattr(bodies, "refuse_deep", seen)
    body = b'{"inner":{"name":"a"},"anything":"' + b"x" * size + b'"}'
    assert server.call("POST", "/document", body=body, headers={"Content-Type": "application/json"}).status == 200
    assert [name.startswith("otel-metadata-decode") for name in threads] == [size > bodies.LARGE]


def test_parameters_of_the_query_have_their_types(server: Server) -> None:
    query = server.call("GET", "/plain?limit=3&deep=true&project=caf%C3%A9&tag=a&tag=b").json()["query"]
    assert query == {"limit": 3, "deep": True, "project": "café", "tag": ["a", "b"]}


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=1&limit=2", "limti=3", "project=%ff", "deep=5", "&".join(["tag=a"] * 201)]
)
def test_wrong_parameters_are_refused(server: Server, query: str) -> None:
    assert "pointer" not in problem(server.call("GET", f"/plain?{query}"), 400)


def test_parameters_in_the_path_may_have_any_characters(server: Server) -> None:
    assert server.call("GET", "/spans/ab/values/a%2Fb%20%C3%A9").json()["path"] == {"span_id": "ab", "name": "a/b é"}
    assert server.call("GET", "/spans/ab/values/a%252Fb").json()["path"]["name"] == "a%2Fb"
    assert server.call("POST", "/spans%3Abatch").status == 204


def test_a_path_without_parameters_comes_before_one_that_has_some(server: Server) -> None:
    assert server.call("GET", "/spans/fixed/values/name").status == 204


def test_an_unknown_path_and_an_unknown_method_are_told_apart(server: Server) -> None:
    problem(server.call("GET", "/nothing"), 404)
    response = server.call("PATCH", "/spans/ab/values/b")
    problem(response, 405)
    assert response.headers["Allow"] == "DELETE, GET, HEAD"


def test_head_is_answered_as_get_without_a_body(server: Server) -> None:
    get, head = server.call("GET", "/refuse"), server.call("HEAD", "/refuse")
    assert (head.status, head.data) == (418, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert (server.call("HEAD", "/stream").status, server.call("HEAD", "/stream").data) == (200, b"")
    assert server.call("HEAD", "/document").status == 405


def test_a_refusal_says_what_it_knows(server: Server) -> None:
    response = server.call("GET", "/refuse")
    found = problem(response, 418)
    assert (found["title"], found["pointer"], found["expected"], found["position"]) == ("No coffee.", "/pot", "tea", 3)
    assert response.headers["Retry-After"] == "7"


def test_a_vendor_gets_refusals_in_its_own_form(server: Server) -> None:
    response = server.call("POST", "/vendor", json={"inner": 3})
    assert (response.status, response.headers["Content-Type"]) == (400, "application/json")
    assert list(response.json()) == ["error"]


def test_a_refusal_may_be_in_the_type_of_the_request(server: Server) -> None:
    response = server.call("POST", "/otlp", body=b"", headers={"Content-Type": "text/x-other"})
    assert (response.status, response.headers["Content-Type"]) == (415, "text/plain")
    assert response.data.startswith(b"text/x-other: Content-Type is")


def test_a_body_that_is_read_while_it_comes_has_any_size(server: Server) -> None:
    body = gzip.compress(bytes(5 << 20))
    parts = server.call("POST", "/large", body=body, headers={"Content-Encoding": "gzip"}).json()
    assert sum(parts) == 5 << 20
    assert max(parts) <= 1 << 20
    assert sum(server.call("POST", "/large", body=bytes(3_000_000)).json()) == 3_000_000
    problem(server.call("POST", "/large", body=body[:-9], headers={"Content-Encoding": "gzip"}), 400)


def test_errors_of_the_library_are_refusals(server: Server) -> None:
    found = problem(server.call("GET", "/filter"), 400)
    assert (found["position"], bool(found["expected"])) == (7, True)
    problem(server.call("GET", "/unknown"), 404)
    response = server.call("GET", "/locked")
    problem(response, 503)
    assert response.headers["Retry-After"] == "1"


def test_a_stream_is_sent_as_it_comes(server: Server) -> None:
    response = server.call("GET", "/stream")
    assert (response.data, response.headers["Content-Type"]) == (b"0\n1\n2\n", "application/jsonl")


def test_credentials_do_not_reach_handlers(server: Server) -> None:
    names = ["Authorization", "Cookie", "X-Auth-Token", "Galileo-API-Key", "api_key", "X-API-Key"]
    headers = server.call("GET", "/plain", headers={**dict.fromkeys(names, "s3cr3t"), "X-Other": "o"}).json()["headers"]
    assert "s3cr3t" not in str(headers)
    assert headers["x-other"] == "o"


def test_an_error_of_our_own_is_a_500_that_says_nothing_of_it(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(call: Call) -> Answer:
        raise ZeroDivisionError("s3cr3t")

    server = start_server(operations=[Operation("GET", "/fail", "fail", "", fail, None)])
    monkeypatch.setattr("otel_metadata.reporting.REPORTER.reraise", False)
    found = problem(server.call("GET", "/fail"), 500)
    assert "s3cr3t" not in str(found)
    assert "server:fail: ZeroDivisionError" in caplog.text


def test_more_calls_than_fit_are_refused_and_nothing_is_kept(start_server: StartServer) -> None:
    go_on, waiting = threading.Event(), threading.Semaphore(0)

    async def slow(call: Call) -> Answer:
        def read() -> int:
            waiting.release()
            go_on.wait(PATIENCE)
            return 1

        return Answer(await call.service.read(read))

    server = start_server(operations=[Operation("GET", "/slow", "slow", "", slow, None), *TABLE])
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(server.call("GET", "/slow").status)) for _ in range(80)]
    for thread in threads:
        thread.start()
    for _ in range(4):  # all threads of the pool are busy
        assert waiting.acquire(timeout=PATIENCE)
    # A busy pool of readers holds up nothing else.
    assert server.call("POST", "/document", json=DOCUMENT).status == 200
    while len(statuses) < 80 - 4 - 64:
        assert server.call("POST", "/document", json=DOCUMENT).status == 200
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert (statuses.count(200), statuses.count(503)) == (68, 12)


def test_readers_that_hang_hold_up_no_update(start_server: StartServer) -> None:
    """Neither one that has to find its span first, nor spans over OTLP."""
    go_on = threading.Event()

    async def slow(call: Call) -> Answer:
        return Answer(await call.service.read(lambda: go_on.wait(PATIENCE)))

    server = start_server(operations=[Operation("GET", "/slow", "slow", "", slow, None), *OPERATIONS])
    server.store.write([ended_span(1)])
    is_full = threading.Event()

    def read() -> None:
        if server.call("GET", "/slow").status == 503:
            is_full.set()

    readers = [threading.Thread(target=read) for _ in range(69)]  # one more than run and wait
    for reader in readers:
        reader.start()
    assert is_full.wait(PATIENCE)
    assert server.call("PATCH", f"/api/v1/spans/{1:016x}", json={"metadata": {"a": 1}}).status == 200
    assert server.call("PATCH", f"/api/traces/{trace_hex()}/metadata", json={"metadata": {"a": 1}}).status == 200
    span = {"traceId": trace_hex(), "spanId": f"{2:016x}", "name": "n", "startTimeUnixNano": "1"}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    assert server.call("POST", "/v1/traces", json=body).status == 200
    assert server.call("GET", "/healthz").status == 200
    go_on.set()
    for reader in readers:
        reader.join(PATIENCE)


def test_writers_that_hang_hold_up_no_update(start_server: StartServer) -> None:
    """Neither the look-up of its span, nor that of its ETag."""
    go_on, runs = threading.Event(), threading.Semaphore(0)

    async def slow(call: Call) -> Answer:
        def write() -> bool:
            runs.release()
            return go_on.wait(PATIENCE)

        return Answer(await call.service.write(write))

    server = start_server(operations=[Operation("POST", "/slow", "slow", "", slow, None), *OPERATIONS])
    server.store.write([ended_span(1)])
    writers = [threading.Thread(target=server.call, args=("POST", "/slow")) for _ in range(2)]
    for writer in writers:
        writer.start()
        assert runs.acquire(timeout=PATIENCE)
    path, body = f"/api/v1/spans/{1:016x}", {"metadata": {"a": 1}}
    assert server.call("PATCH", path, json=body).status == 200
    assert server.call("PATCH", path, json=body, headers={"If-Match": "*"}).headers["ETag"]
    batch = {"updates": [{"span_id": f"{1:016x}", **body}]}
    assert server.call("POST", "/api/v1/spans:batch", json=batch).json()["updated"] == 1
    go_on.set()
    for writer in writers:
        writer.join(PATIENCE)


def test_a_store_that_is_locked_leaves_two_threads_for_decoding(start_server: StartServer) -> None:
    """A thread of them writes, and waits for another process; large bodies are decoded meanwhile."""
    both = threading.Barrier(2)

    async def decode(call: Call) -> Answer:
        return Answer(await call.service.decode(lambda: both.wait(PATIENCE)))

    server = start_server(operations=[Operation("POST", "/decode", "decode", "", decode, None), *OPERATIONS])
    server.store.write([ended_span(1)])
    span = {"traceId": trace_hex(), "spanId": f"{2:016x}", "name": "n", "startTimeUnixNano": "1"}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    statuses: list[int] = []
    with contextlib.closing(sqlite3.connect(server.store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        senders = [
            threading.Thread(target=lambda: statuses.append(server.call("POST", "/v1/traces", json=body).status))
            for _ in range(4)
        ]
        for sender in senders:
            sender.start()
        service = server.local.service
        while service._ingest.waiting_rows < 3:  # one is being written
            assert server.call("GET", "/healthz").status == 200
        decoders = [threading.Thread(target=server.call, args=("POST", "/decode")) for _ in range(2)]
        for decoder in decoders:
            decoder.start()
        for decoder in decoders:
            decoder.join(PATIENCE)
        assert both.broken is False
        assert not statuses
        other.execute("ROLLBACK")
    for sender in senders:
        sender.join(PATIENCE)
    assert statuses == [200] * 4


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (Problem(404, "It is not stored."), 0),
        (Problem(503, "The store cannot be written: locked"), 1),
        (StoreError("the disk is full"), 1),
        (KeyError("a fault of ours"), 1),
    ],
)
def test_what_fails_after_its_answer_is_counted(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, error: Exception, lost: int
) -> None:
    """Unless the caller is at fault."""
    monkeypatch.setattr(REPORTER, "reraise", False)

    async def answer(call: Call) -> Answer:
        async def work() -> None:
            raise error

        call.service.soon(work())
        return Answer(status=202)

    server = start_server(operations=[Operation("POST", "/soon", "soon", "", answer, None), *OPERATIONS])
    assert server.call("POST", "/soon").status == 202
    server.local.stop()
    assert server.local.service.metrics.updates_lost == lost
    assert f"otel_metadata_server_updates_lost_total {lost}\n" in server.local.service.metrics.text()


def test_a_call_whose_caller_is_gone_holds_nothing(start_server: StartServer) -> None:
    """It stays with the threads until its turn. Over gRPC, a client that cancels would fill the memory otherwise."""
    service = start_server().local.service

    class Values:
        """What a call has to do, and its values."""

        def __call__(self) -> None:
            pytest.fail("nobody waits for it")

    async def cancelled() -> None:
        go_on = threading.Event()
        busy = [asyncio.ensure_future(service.write(lambda: go_on.wait(PATIENCE))) for _ in range(2)]
        await asyncio.sleep(0)
        values = Values()
        call, reference = asyncio.ensure_future(service.write(values)), weakref.ref(values)
        del values
        await asyncio.sleep(0)
        assert reference() is not None
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        del call
        gc.collect()
        assert reference() is None
        go_on.set()
        await asyncio.gather(*busy)

    asyncio.run(cancelled())


def test_work_after_an_answer_is_finished_before_the_server_ends(start_server: StartServer) -> None:
    done: list[str] = []
    go_on = threading.Event()

    async def answer(call: Call) -> Answer:
        async def work() -> None:
            await call.service.write(lambda: go_on.wait(PATIENCE))
            done.append("work")

        call.service.soon(work())
        return Answer(status=202)

    server = start_server(operations=[Operation("POST", "/soon", "soon", "", answer, None)], own=True)
    assert server.call("POST", "/soon").status == 202
    stop = threading.Thread(target=server.local.stop)
    stop.start()
    assert not done
    go_on.set()
    stop.join(PATIENCE)
    assert done == ["work"]


def test_a_request_that_runs_is_answered_before_the_server_ends(start_server: StartServer) -> None:
    runs, go_on = threading.Event(), threading.Event()

    async def slow(call: Call) -> Answer:
        def write() -> str:
            runs.set()
            go_on.wait(PATIENCE)
            return "stored"

        return Answer(await call.service.write(write))

    server = start_server(operations=[Operation("POST", "/slow", "slow", "", slow, None)], own=True)
    answers: list[Any] = []
    request = threading.Thread(target=lambda: answers.append(server.call("POST", "/slow").json()))
    request.start()
    assert runs.wait(PATIENCE)
    stop = threading.Thread(target=server.local.stop)
    stop.start()
    go_on.set()
    request.join(PATIENCE)
    stop.join(PATIENCE)
    assert answers == ["stored"]


def test_a_stream_of_events_ends_when_the_server_does(start_server: StartServer) -> None:
    server = start_server(own=True)
    response = server.call("GET", "/api/v1/events", preload_content=False)
    parts = response.stream()
    assert b"event: ready" in next(parts)
    server.local.stop()
    assert list(parts) == []


def test_changes_are_stored_under_the_name_of_the_caller(start_server: StartServer) -> None:
    caller = Caller("ada", frozenset())

    async def patch(call: Call) -> Answer:
        for plan, version in zip(("pro", "free"), call.service.versions(caller, 2), strict=True):
            await call.service.ingest([], [(trace_hex(), "", {("trace", "metadata", "plan"): (plan, version)})])
        return Answer(status=204)

    server = start_server(operations=[Operation("PATCH", "/patch", "patch", "", patch, None)])
    server.store.write([ended_span(1)])
    assert server.call("PATCH", "/patch").status == 204
    found = [(one.value, one.author, one.route) for one in server.store.history(trace_hex())]
    assert found == [("free", "ada", "late"), ("pro", "ada", "late")]


def test_a_connection_that_closes_in_its_body_leaves_nothing(server: Server) -> None:
    with socket.create_connection((server.local.host, server.local.port)) as client:
        client.sendall(b"POST /bytes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\nxxx")
    assert server.call("POST", "/bytes", body=b"x").status == 200
