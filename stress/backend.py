"""A backend on loopback that answers, refuses, hangs, drops its answers, applies late, or asks to try later.

It speaks OTLP over HTTP with whoever comes, and keeps what it was told: for each destination (the first part of the
path), target and metadata key the values that arrived, with their versions where they came on a patch.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from typing import IO, Literal, TypeAlias

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Mode: TypeAlias = Literal["answer", "reset", "hang", "hang_applied", "drop", "late", "busy", "fail"]
"""answer: apply, 200. reset: neither. hang: neither, and the connection stays open. hang_applied: apply, no answer.
drop: apply, reset. late: reset, and apply it after later requests. busy: 503 with Retry-After. fail: 500."""

Target: TypeAlias = tuple[str, str]
Version: TypeAlias = tuple[int, int]
Place: TypeAlias = tuple[str, Target, str]
"""Destination, target, metadata key."""

FAULTS: dict[Mode, int] = {
    "answer": 70,
    "reset": 6,
    "hang": 5,
    "hang_applied": 5,
    "drop": 12,
    "late": 6,
    "busy": 2,
    "fail": 3,
}
"""How often each is drawn while everything goes wrong."""

_APPLIED_AFTER = 3
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Backend:
    """One server; every method may be called from any thread.

    Attributes:
        port: On 127.0.0.1, the same for as long as it lives; nothing listens there while it is down.
        modes: What is drawn from for each request, with weights.
        patched: What arrived on patches: how often each version of each place came, with the value's id.
        plain: What arrived on spans themselves, without a version.
        versioned: What arrived on spans themselves, with one.
        requests: How many requests came in each mode.
        connections: When each connection was accepted; monotonic seconds.
    """

    def __init__(self, *, seed: int = 0, modes: dict[Mode, int] | None = None, is_up: bool = True) -> None:
        """Bind a port; *seed* decides what is drawn."""
        self.modes: dict[Mode, int] = modes or {"answer": 1}
        self.patched: dict[Place, Counter[tuple[Version, str]]] = defaultdict(Counter)
        self.plain: dict[Place, set[str]] = defaultdict(set)
        self.versioned: dict[Place, set[tuple[Version, str]]] = defaultdict(set)
        self.requests: Counter[str] = Counter()
        self.connections: list[float] = []
        self._chance = random.Random(seed)
        self._lock = threading.RLock()
        self._delayed: list[tuple[int, bytes, str]] = []
        self._open: set[socket.socket] = set()
        self._release = threading.Event()
        self._listener: socket.socket | None = None
        # Bound by number: a listener that is closed must be able to come back at the same place.
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._holder = self._bound()
        if is_up:
            self.up()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Backend:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every connection and thread."""
        self.down()
        self._holder.close()

    def up(self) -> None:
        """Listen."""
        with self._lock:
            if self._listener is None:
                self._release = threading.Event()
                self._listener = self._bound()
                self._listener.listen(64)
                threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections, and cut off those that are open."""
        with self._lock:
            listener, self._listener = self._listener, None
            self._release.set()
            for connection in list(self._open):
                _reset(connection)
            if listener is not None:
                try:
                    listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
                except OSError:
                    pass
                listener.close()

    def settle(self) -> None:
        """Answer everything from now on, and apply what was kept back."""
        with self._lock:
            self.modes = {"answer": 1}
            self._release.set()
            self._release = threading.Event()
            delayed, self._delayed = self._delayed, []
            for _, body, destination in delayed:
                self._apply(body, destination)
        self.up()

    def _bound(self) -> socket.socket:
        made = socket.socket()
        # A second socket on the port, which never listens, keeps it ours while the listener is closed.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("127.0.0.1", self.port))
        return made

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections.append(time.monotonic())
                if self._listener is not listener:
                    connection.close()
                    return
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection.makefile("rb") as incoming:
                while self._answer(connection, incoming):
                    pass
        except (OSError, ValueError):  # the client has gone, in the middle of a line perhaps
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _answer(self, connection: socket.socket, incoming: IO[bytes]) -> bool:
        parts = incoming.readline().split()
        if len(parts) != 3:
            return False
        length = 0
        while line := incoming.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = incoming.read(length)
        if len(body) < length:
            return False
        destination = parts[1].decode().strip("/").split("/")[0]
        with self._lock:
            mode = self._chance.choices(list(self.modes), list(self.modes.values()))[0]
            self.requests[mode] += 1
            release = self._release
            if mode in {"answer", "drop", "hang_applied"}:
                self._apply(body, destination)
            elif mode == "late":
                self._delayed.append((sum(self.requests.values()) + _APPLIED_AFTER, body, destination))
            if mode == "answer":
                self._apply_delayed()
        if mode in {"hang", "hang_applied"}:
            release.wait(60)
            return False
        if mode in {"reset", "drop", "late"}:
            _reset(connection)
            return False
        status = {"busy": b"503 Busy\r\nRetry-After: 1", "fail": b"500 Failed"}.get(mode, b"200 OK")
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        return True

    def _apply_delayed(self) -> None:
        at = sum(self.requests.values())
        ready = [one for one in self._delayed if one[0] <= at]
        self._delayed = [one for one in self._delayed if one[0] > at]
        for _, body, destination in ready:
            self._apply(body, destination)

    def _apply(self, body: bytes, destination: str) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {one.key: one.value.string_value for one in span.attributes}
                    trace_id = span.trace_id.hex()
                    versions = {
                        key: (nanoseconds, int(writer, 16))
                        for level, kind, key, nanoseconds, writer in json.loads(
                            attributes.get("otel_metadata.versions", "[]")
                        )
                        if (level, kind) == ("span", "metadata")
                    }
                    span_id = attributes.get("otel_metadata.target_span_id", span.span_id.hex())
                    for name, value in attributes.items():
                        if not name.startswith("metadata."):
                            continue
                        key, given = name[9:], value_id(value)
                        place = (destination, (trace_id, span_id), key)
                        if "otel_metadata.target_span_id" in attributes:
                            self.patched[place][versions[key], given] += 1
                        elif key in versions:
                            self.versioned[place].add((versions[key], given))
                        else:
                            self.plain[place].add(given)


def value_id(value: str) -> str:
    """Return which update a value came with: values are texts `<id>`, or objects `{"id": "<id>"}`."""
    return str(json.loads(value)["id"]) if value.startswith("{") else value


def _reset(connection: socket.socket) -> None:
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        # Closing alone leaves a thread that reads from it waiting.
        connection.shutdown(socket.SHUT_RD)
        connection.close()
    except OSError:
        pass
