"""An HTTP front for the embedded ClickHouse engine: a program of its own, run by the interpreter of `.venv-clickhouse`.

The engine has no listener, and one process at a time owns its directory. This one owns it and speaks as much of
ClickHouse's HTTP interface as clickhouse-connect uses, on loopback, so that tests run the real client over a real
connection against the real engine. It imports nothing of ours.

    python front.py FOLDER       prints the port, then serves until it is ended

`POST /front/faults` takes a JSON list of faults; each meets the next statement in which its `match`, a regular
expression, is found:

    {"kind": "status", "status": 503, "code": 202, "match": "INSERT"}    answered so, not run
    {"kind": "delay", "seconds": 30, "match": "SELECT"}                  run after a wait
    {"kind": "drop", "match": "INSERT", "when": "before" | "after"}      connection closed, not run or already run

`GET /front/statements` and `GET /front/targets` give the statements that were run, and the request targets that were
seen, since they were last asked for.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import re
import socket
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import chdb
import pyarrow as pa

# What the HTTP interface keeps for itself; every other parameter that is no `param_…` is a setting.
_TRANSPORT = frozenset(
    {
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "session_id",
        "session_timeout",
        "session_check",
        "query_id",
        "quota_key",
        "compress",
        "decompress",
        "wait_end_of_query",
        "client_protocol_version",
        "role",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "enable_http_compression",
        "buffer_size",
    }
)
_CODECS = {"gzip": "gzip", "lz4": "lz4", "zstd": "zstd"}
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_INSERT = re.compile(rb"\s*INSERT\s.*?\bFORMAT\s+(\w+)\s", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"Code: (\d+)\.")


class _DroppedError(Exception):
    """The connection is closed without an answer."""


class Front(ThreadingHTTPServer):
    """The server, the engine, and the faults that wait."""

    daemon_threads = True

    def __init__(self, folder: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.engine = chdb.connect(folder)
        self.lock = threading.Lock()
        self.faults: list[dict[str, object]] = []
        self.statements: list[str] = []
        self.targets: list[str] = []

    def fault(self, statement: str) -> dict[str, object] | None:
        with self.lock:
            found = next((one for one in self.faults if re.search(str(one["match"]), statement)), None)
            if found is not None:
                self.faults.remove(found)
            return found

    def run(self, statement: str, data: bytes | None, params: dict[str, str], fmt: str) -> bytes:
        """Run one statement; what it sets does not outlive it longer than the next one that sets it."""
        settings = {name: value for name, value in params.items() if name not in _TRANSPORT and name[:6] != "param_"}
        bound = {name[6:]: value for name, value in params.items() if name.startswith("param_")}
        with self.lock:
            self.statements.append(statement)
            self.engine.query(f"USE `{params.get('database') or 'default'}`")
            for name, value in settings.items():
                self.engine.query(f"SET {name} = {_quoted(value)}")
            if data is None:
                return bytes(self.engine.query(statement, fmt, params=bound or None).bytes() or b"")
            with tempfile.NamedTemporaryFile(suffix=f".{fmt}") as file:
                file.write(data)
                file.flush()
                head = _FORMAT.sub("", statement)
                self.engine.query(f"{head} FROM INFILE {_quoted(file.name)} FORMAT {fmt}")
                return b""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    server: Front

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/ping":
            self._answer(200, b"Ok.\n")
        elif url.path == "/front/statements":
            with self.server.lock:
                seen, self.server.statements = self.server.statements, []
            self._answer(200, json.dumps(seen).encode())
        elif url.path == "/front/targets":
            with self.server.lock:
                seen, self.server.targets = self.server.targets, []
            self._answer(200, json.dumps(seen).encode())
        else:
            self.server.targets.append(self.path)
            self._query(dict(parse_qsl(url.query, keep_blank_values=True)), b"")

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        body = self._body()
        if url.path == "/front/faults":
            with self.server.lock:
                self.server.faults = json.loads(body)
            self._answer(200, b"")
            return
        self.server.targets.append(self.path)
        params = dict(parse_qsl(url.query, keep_blank_values=True))
        if self.headers.get("content-type", "").startswith("multipart/form-data"):
            params.update(_form(self.headers["content-type"], body))
            body = b""
        self._query(params, body)

    def _query(self, params: dict[str, str], body: bytes) -> None:
        statement, data = params.get("query", ""), None
        insert = _INSERT.match(body) if not statement else None
        if insert is not None:
            statement, data = body[: insert.end()].decode(), body[insert.end() :]
        elif statement and body:
            data = body
        else:
            statement += body.decode()
        statement = statement.strip().rstrip(";")
        named = _FORMAT.search(statement)
        fmt = named.group(1) if named else params.get("default_format") or "TabSeparated"
        if named and data is None:
            statement = _FORMAT.sub("", statement)
        try:
            result = self._with_faults(statement, data, params, fmt)
        except _DroppedError:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        except Exception as error:
            code = _CODE.search(str(error))
            self._answer(500, str(error).encode(), {"X-ClickHouse-Exception-Code": code.group(1) if code else "1001"})
        else:
            if result is not None:
                self._answer(200, result, {"X-ClickHouse-Format": fmt})

    def _with_faults(self, statement: str, data: bytes | None, params: dict[str, str], fmt: str) -> bytes | None:
        fault = self.server.fault(statement) or {}
        kind = fault.get("kind")
        if kind == "status":
            code = fault.get("code")
            text = f"Code: {code}. DB::Exception: told to. (FRONT)" if code else "told to"
            self._answer(
                int(str(fault["status"])), text.encode(), {"X-ClickHouse-Exception-Code": code} if code else {}
            )
            return None
        if kind == "delay":
            threading.Event().wait(float(str(fault["seconds"])))
        if kind == "drop" and fault.get("when") != "after":
            raise _DroppedError
        result = self.server.run(statement, data, params, fmt)
        if kind == "drop":
            raise _DroppedError
        return result

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
        encoding = self.headers.get("content-encoding", "")
        if encoding in _CODECS and body:
            return bytes(pa.CompressedInputStream(pa.BufferReader(body), _CODECS[encoding]).read())
        return body

    def _answer(self, status: int, body: bytes, headers: dict[str, object] | None = None) -> None:
        self.send_response(status)
        given = {
            "X-ClickHouse-Query-Id": "front",
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Server-Display-Name": "front",
            "X-ClickHouse-Summary": "{}",
            "Content-Length": len(body),
            **(headers or {}),
        }
        for name, value in given.items():
            self.send_header(name, str(value))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # the client did not wait
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing: the port is all that is read of this program."""


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _form(content_type: str, body: bytes) -> dict[str, str]:
    head = f"content-type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    return {
        str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True).decode()
        for part in message.iter_parts()
    }


if __name__ == "__main__":
    front = Front(str(Path(sys.argv[1]).resolve()))
    print(front.server_address[1], flush=True)
    front.serve_forever()
