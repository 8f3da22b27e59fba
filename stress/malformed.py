"""OTLP requests that are wrong in every way, sent to a real server: it refuses them, keeps its memory, and goes on.

Requests in protobuf and JSON are cut off anywhere, have bits flipped, members of other types, bombs of gzip, of nesting
and of many small parts. Every tenth is sent over gRPC, every bomb over both. Heads without end come as well. No answer
may be a 5xx, the memory of the server has a bound, and in the end a good request is stored.

Run: `python -m stress.malformed [requests] [seed]`.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import select
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import urllib3
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from stress.processes import Child, say
from stress.table import Row, show

from otel_metadata.model.record import SpanQuery
from otel_metadata.seams import SystemClock
from otel_metadata.server.run import LocalServer
from otel_metadata.store.sqlite.store import SqliteStore

PROTOBUF, JSON = "application/x-protobuf", "application/json"
MEGABYTE = 1 << 20

MAX_GROWTH = 768 * MEGABYTE
"""How much memory the server may take on top, at any time."""

_BOMB_EVERY = 50

_TYPES: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e400,
    1 << 70,
    "",
    "x",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    "\0",
    "\N{GRINNING FACE}",
)
_GRPC = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Malformed(NamedTuple):
    """One request.

    Attributes:
        kind: What is wrong with it.
        media_type: Of its body.
        body: As it is sent.
        encoding: `gzip` or "".
    """

    kind: str
    media_type: str
    body: bytes
    encoding: str = ""


def request() -> dict[str, Any]:
    """Return a request in JSON with every kind of member."""
    values: list[dict[str, Any]] = [
        {"stringValue": "pro"},
        {"boolValue": True},
        {"intValue": "3"},
        {"doubleValue": 0.5},
        {"bytesValue": "AQI="},
        {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": 1}]}},
        {"kvlistValue": {"values": [{"key": "a", "value": {"stringValue": "b"}}]}},
    ]
    attributes = [{"key": f"a.{number}", "value": value} for number, value in enumerate(values)]
    attributes.append({"key": "metadata.plan", "value": {"stringValue": "pro"}})
    ids = {"traceId": "01" * 16, "spanId": "02" * 8}
    event = {"name": "token", "timeUnixNano": "15", "attributes": attributes}
    times = {"startTimeUnixNano": "10", "endTimeUnixNano": "20"}
    span = {
        **ids, "parentSpanId": "03" * 8, "name": "answer", "kind": 3, **times, "traceState": "a=b",
        "attributes": attributes, "events": [event], "links": [{**ids, "attributes": attributes}],
        "status": {"code": 2, "message": "no"},
    }  # fmt: skip
    scope = {"name": "shop", "version": "1"}
    return {
        "resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [{"scope": scope, "spans": [span]}]}]
    }


def good(span_id: bytes = b"\x09" * 8) -> bytes:
    """Return a request in protobuf."""
    found = ExportTraceServiceRequest()
    of_resource = found.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = "shop"
    span = of_scope.spans.add()
    span.trace_id, span.span_id, span.name = b"\x01" * 16, span_id, "answer"
    span.start_time_unix_nano, span.end_time_unix_nano = 10, 20
    for number in range(5):
        span.attributes.add(key=f"a.{number}").value.string_value = "pro"
        item = span.attributes.add(key=f"l.{number}").value.array_value.values.add()
        item.kvlist_value.values.add(key="k").value.int_value = number
    span.events.add(name="token", time_unix_nano=15).attributes.add(key="a").value.double_value = 0.5
    span.links.add(trace_id=b"\x01" * 16, span_id=b"\x02" * 8)
    return found.SerializeToString()


def malformed(count: int, seed: int) -> Iterator[Malformed]:
    """Yield *count* requests, the same ones for the same seed."""
    chance = random.Random(seed)
    protobuf, text = good(), json.dumps(request()).encode()
    bombs = _bombs()
    for number in range(count):
        if number % _BOMB_EVERY == 0 and (bomb := next(bombs, None)) is not None:
            yield bomb
            continue
        media_type, whole = chance.choice([(PROTOBUF, protobuf), (JSON, text)])
        kind = chance.choice(["cut", "flipped", "several flipped", "types", "noise", "swapped", "gzip cut"])
        if kind == "cut":
            body = whole[: chance.randrange(len(whole))]
        elif kind == "flipped":
            body = _flipped(whole, chance, 1)
        elif kind == "several flipped":
            body = _flipped(whole, chance, chance.randrange(2, 40))
        elif kind == "types":
            changed = json.loads(text)  # no part of it is in two places
            _change(changed, chance, chance.randrange(1, 4))
            media_type, body = JSON, json.dumps(changed).encode()
        elif kind == "swapped":  # a part of the body in another place
            first, second = sorted(chance.randrange(len(whole)) for _ in range(2))
            body = whole[:first] + whole[second:] + whole[first:second]
        elif kind == "noise":
            body = chance.randbytes(chance.randrange(400))
        else:
            body = gzip.compress(whole)
            body = body[: chance.randrange(1, len(body))]
            yield Malformed(kind, media_type, _flipped(body, chance, chance.randrange(3)), "gzip")
            continue
        yield Malformed(kind, media_type, body)


def _flipped(whole: bytes, chance: random.Random, count: int) -> bytes:
    body = bytearray(whole)
    for _ in range(count):
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return bytes(body)


def _change(found: Any, chance: random.Random, count: int) -> None:
    """Replace members at random places by values of other types."""
    for _ in range(count):
        place, key = found, "resourceSpans"
        while isinstance(place[key], dict | list) and place[key] and chance.random() < 0.85:
            place = place[key]
            key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
        place[key] = json.loads(json.dumps(chance.choice(_TYPES)))  # a new one in each place


def _member(number: int, contents: bytes) -> bytes:
    size, parts = len(contents), b""
    while size > 127:
        parts += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + parts + bytes([size]) + contents


def _of_spans(*spans: bytes) -> bytes:
    return _member(1, _member(2, b"".join(_member(2, one) for one in spans)))


def _bombs() -> Iterator[Malformed]:
    deep = b"\x0a\x01x"
    for _ in range(60_000):
        deep = _member(5, _member(1, deep))
    value = b'{"arrayValue":{"values":['
    for media_type, body in [
        (PROTOBUF, b"\0" * (300 * MEGABYTE)),
        (JSON, b" " * (300 * MEGABYTE)),
        (PROTOBUF, b"\x0a\x00" * (30 * MEGABYTE)),
        (PROTOBUF, _of_spans(*[b""] * 900_000)),
        (PROTOBUF, _of_spans(b"\x4a\x00" * (30 * MEGABYTE))),
        (PROTOBUF, _of_spans(b"\x5a\x00" * (30 * MEGABYTE))),
        (PROTOBUF, _of_spans(*[b"\x0a\x10" + b"\1" * 16 + b"\x12\x08" + b"\2" * 8 + b"\x5a\x00" * 60_000] * 300)),
        (PROTOBUF, _of_spans(_member(9, _member(1, b"a") + _member(2, deep)))),
        (JSON, b'{"resourceSpans":[' + b"{}," * (20 * MEGABYTE) + b"{}]}"),
        (JSON, b'{"resourceSpans":' + b"[" * (30 * MEGABYTE)),
        (JSON, b'{"a":' * (5 * MEGABYTE)),
        (JSON, b'{"x":"' + b'\\"' * (30 * MEGABYTE) + b'"}'),
        (JSON, b'{"a":"' + b'","a":"' * (6 * MEGABYTE) + b'"}'),
        (JSON, b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"a","value":' + value * 200_000),
        (JSON, b"[" + b"1," * (30 * MEGABYTE) + b"1]"),
    ]:
        yield Malformed("bomb", media_type, gzip.compress(body, 1), "gzip")
    once = gzip.compress(b"\0" * MEGABYTE)
    yield Malformed("bomb", PROTOBUF, once * 200, "gzip")
    yield Malformed("bomb", PROTOBUF, gzip.compress(gzip.compress(b"\0" * (64 * MEGABYTE))), "gzip")


def _endless_heads() -> Iterator[Iterator[bytes]]:
    """Yield heads of requests, each in parts of 1 MB."""
    part = b"x" * MEGABYTE
    chunked = b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for begin in (b"GET /", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", chunked + b"0\r\nX: ", chunked + b"1;a="):
        yield itertools.chain([begin], itertools.repeat(part, 1_000))
    lines = b"X: y\r\n" * (MEGABYTE // 6)
    yield itertools.chain([b"GET / HTTP/1.1\r\n"], itertools.repeat(lines, 1_000))


def serve(path: str) -> None:
    """Serve until the process is killed; say the ports."""
    server = LocalServer(SqliteStore(path), grpc_port=0).start()
    say(f"{server.port} {server.grpc_port}")
    threading.Event().wait()


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        statuses: How often each status was answered, over HTTP and gRPC.
        failures: What is wrong about an answer.
        growth: The most memory that the server took beyond what it had at first, in bytes.
        is_serving: Whether a good request was stored at the end.
    """

    statuses: Counter[str]
    failures: list[str]
    growth: int
    is_serving: bool


def run(count: int, seed: int) -> Outcome:
    """Send *count* requests, one after the other."""
    statuses: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder, Child(serve, str(Path(folder) / "spans.db")) as child:
        port, grpc_port = child.lines.readline().split()
        http = urllib3.PoolManager(retries=False, timeout=60)
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}", options=[("grpc.max_send_message_length", -1)]) as channel:
            export = channel.unary_unary(_GRPC)
            url = f"http://127.0.0.1:{port}/v1/traces"
            _send(http, url, Malformed("good", PROTOBUF, good(b"\x08" * 8)))
            before = _memory(child.pid, "VmRSS")
            for number, one in enumerate(malformed(count, seed)):
                if number % 10 == 9 or one.kind == "bomb":
                    status = _call(export, one)
                    statuses[status] += 1
                    if status in {"INTERNAL", "UNKNOWN", "UNAVAILABLE"}:
                        failures.append(f"request {number} ({one.kind}): {status}")
                if number % 10 != 9 or one.kind == "bomb":
                    answer = _send(http, url, one)
                    statuses[f"{answer.status}"] += 1
                    if answer.status >= 500:
                        failures.append(f"request {number} ({one.kind}): {answer.status}")
                    if answer.headers.get("Content-Type") != one.media_type:
                        failures.append(
                            f"request {number} ({one.kind}): answered as {answer.headers.get('Content-Type')}"
                        )
            for number, head in enumerate(_endless_heads()):
                status = _send_head(int(port), head)
                statuses[status] += 1
                if status != "431":
                    failures.append(f"head {number}: {status or 'no answer'}")
            growth = _memory(child.pid, "VmHWM") - before
            last = _send(http, url, Malformed("good", PROTOBUF, good()))
        store = SqliteStore(Path(folder) / "spans.db", create=False)
        query = SpanQuery(trace_id="01" * 16, span_id="09" * 8)
        is_serving = last.status == 200 and [one.name for one in store.query(query)] == ["answer"]
        store.close()
        http.clear()
    return Outcome(statuses, failures, growth, is_serving)


def _send(http: urllib3.PoolManager, url: str, one: Malformed) -> urllib3.BaseHTTPResponse:
    headers = {"Content-Type": one.media_type, **({"Content-Encoding": one.encoding} if one.encoding else {})}
    return http.request("POST", url, body=one.body, headers=headers)


def _send_head(port: int, parts: Iterator[bytes]) -> str:
    """Send until there is an answer, and return its status."""
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        for part in parts:
            client.sendall(part)
            if select.select([client], [], [], 0)[0]:
                break
        return client.recv(64).decode().partition(" ")[2][:3]


def _call(export: grpc.UnaryUnaryMultiCallable, one: Malformed) -> str:
    body, compression = one.body, grpc.Compression.NoCompression
    if one.kind == "bomb":  # gRPC's client compresses by itself
        body, compression = gzip.decompress(body), grpc.Compression.Gzip
    try:
        export(body, timeout=60, compression=compression)
    except grpc.RpcError as error:
        return f"{error.code().name}"
    return "OK"


def _memory(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def main(count: int = 10_000, seed: int = 1) -> int:
    """Run it, and print what came of it."""
    begin_ns = SystemClock.monotonic_ns()
    outcome = run(count, seed)
    seconds = (SystemClock.monotonic_ns() - begin_ns) / 1e9
    print(f"{count:,} requests in {seconds:.0f} s: {dict(outcome.statuses)}")
    for failure in outcome.failures[:20]:
        print(failure)
    growth = f"{outcome.growth / MEGABYTE:.0f} MB"
    return show(
        [
            Row("answers that are a 5xx, or of another type", f"{len(outcome.failures)}", "0", not outcome.failures),
            Row("memory on top, at most", growth, f"<= {MAX_GROWTH // MEGABYTE} MB", outcome.growth <= MAX_GROWTH),
            Row("serves afterwards", f"{outcome.is_serving}", "True", outcome.is_serving),
        ]
    )


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
