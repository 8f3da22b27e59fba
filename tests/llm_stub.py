"""Own a loopback HTTP/1.1 server that answers like OpenAI's API, for tests without a network.

It owns the shapes of the answers, the server-sent events and the ways to misbehave on request.
It does not own what is asserted about the calls, knows nothing of spans, imports nothing of this package, and is no
model: the answer is a given text.

Theory of operation:

- One thread accepts, one thread serves each connection. Both start in `LlmStub.__enter__` or later, and `close()`
  waits for all of them: after it there is no thread, no socket and no port left.
- Every wait of a serving thread (a delay, a held stream) is a wait *on its connection*. So a client that leaves, and
  `close()`, which shuts the connections down, both end any wait at once, and no wait outlives its reason.
- What the client did not stay for is an abort: it left before the last byte of its answer was written. That a client
  closes an idle kept-alive connection is no abort, and neither is a connection that the stub itself breaks.
- The `_Ledger` is the only state that is shared between threads; all of it is under one lock.
- Everything in an answer is fixed but its number n, which counts requests from 1: it is in the id `…-stub-<n>` and
  in the creation time `FIRST_CREATED_S + n`. Only concurrent requests make the numbering depend on arrival.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Final, TypeAlias, cast, final
from urllib.parse import unquote, urlsplit

__all__ = ["Knobs", "LlmStub", "RecordedRequest"]

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
"""Any value that JSON can hold, as `json.loads` returns it."""

JsonObject: TypeAlias = "dict[str, JsonValue]"
"""A JSON object."""

HOST: Final = "127.0.0.1"
"""The only address that is bound: nothing outside this machine reaches the stub."""

DEFAULT_TEXT: Final = "The answer is forty-two."
"""What is answered unless a knob says otherwise: four words, so a chat stream has six events before `[DONE]`."""

MODEL_SUFFIX: Final = "-stub"
"""Appended to the requested model, so that a reader can tell the requested model from the answering one."""

FIRST_CREATED_S: Final = 1_700_000_000
"""Creation time, in seconds, of an answer before its number is added. A constant: answers do not read the clock."""

PROMPT_TOKENS: Final = 11
"""Input tokens of every answer. The prompt is not counted; a constant is easier to assert on."""

EMBEDDING_DIMENSIONS: Final = 8
"""Length of every embedding vector: enough to differ, short enough to print."""

KNOB_PREFIX: Final = "x-stub-"
"""A request header of this prefix sets one knob for that request: `x-stub-break-after-chunks: 2`."""


@final
@dataclass(frozen=True, slots=True)
class Knobs:
    """How the stub behaves: for all requests as its default, for one request through headers.

    The header of a knob is `x-stub-` and its name with hyphens: `hold_after_chunks` is `x-stub-hold-after-chunks`.
    A chunk is one server-sent event; a chat stream's first chunk carries only the role. A plain answer has none.

    Raises:
        ValueError: A number is negative, or the status is neither 200 nor an error.
    """

    text: str = DEFAULT_TEXT
    """The answer. In a header it is percent-encoded UTF-8; text in Latin-1 without a percent sign stands for itself."""

    tool: str = ""
    """Name of a tool: the chat answer calls it with an empty argument object instead of giving the text."""

    status: int = 200
    """200, or an error from 400 to 599, which every POST route then answers with OpenAI's error object."""

    delay_millis: int = 0
    """Wait before the answer, headers included."""

    chunk_delay_millis: int = 0
    """Wait before every chunk of a stream but the first."""

    break_after_chunks: int | None = None
    """Break the connection after that many chunks, without ending the body. 0 breaks a plain answer before it starts;
    any other number leaves plain answers whole."""

    hold_after_chunks: int | None = None
    """Write nothing more after that many chunks until the client leaves or the stub closes: a stream that is certainly
    unfinished, however fast the machine is. Plain answers are not held."""

    def __post_init__(self) -> None:
        """Refuse numbers that no server could act on."""
        if self.status != 200 and not 400 <= self.status <= 599:
            raise ValueError(f"status is {self.status!r}; expected 200, or an error from 400 to 599.")
        for name in ("delay_millis", "chunk_delay_millis", "break_after_chunks", "hold_after_chunks"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise ValueError(f"{name} is {number!r}; expected 0 or more.")

    def overridden_by(self, headers: Mapping[str, str]) -> Knobs:
        """Return these knobs with those that *headers* set in their place.

        Args:
            headers: Request headers, names in lower case. Names that are no knob are ignored.

        Raises:
            ValueError: The value of a knob's header is not a whole number, or out of range.
        """
        changes: dict[str, str | int] = {}
        for knob in fields(self):
            header = KNOB_PREFIX + knob.name.replace("_", "-")
            value = headers.get(header)
            if value is None:
                continue
            if knob.name in ("text", "tool"):
                changes[knob.name] = unquote(value)
            elif re.fullmatch(r"[0-9]{1,9}", value):
                changes[knob.name] = int(value)
            else:
                raise ValueError(f"Header {header} is {value!r}; expected a whole number of 0 or more.")
        # mypy cannot relate a dict of changes to the fields' types; the loop above builds them by name.
        return replace(self, **changes)  # type: ignore[arg-type]


@final
@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as it arrived, complete with its body, before it was answered."""

    method: str
    """`GET` or `POST`."""

    path: str
    """Path and query as sent, for example `/v1/chat/completions`."""

    headers: Mapping[str, str]
    """Names in lower case. Of a header that was sent twice the last value is kept."""

    body: JsonValue
    """The parsed JSON body; None if there was none or if it was not JSON."""

    time_ns: int
    """Wall clock, nanoseconds since the epoch."""


@final
class LlmStub:
    """An OpenAI-like server on a free loopback port, from `with` to its end.

    Routes are matched by the end of the path, so a base URL with and without `/v1` works: `/chat/completions`,
    `/responses` and `/embeddings` (POST), `/models` and `/health` (GET). The first two also stream.

    Any thread may read the properties at any time, also after the end. A stub serves once; make another for more.

    Example:
        >>> from urllib.request import urlopen
        >>> with LlmStub(text="Hello there.") as stub:
        ...     with urlopen(stub.url + "/health") as answer:
        ...         answer.read()
        b'{"status": "ok"}'
        >>> [request.path for request in stub.requests]
        ['/health']
    """

    def __init__(
        self,
        *,
        text: str = DEFAULT_TEXT,
        tool: str = "",
        status: int = 200,
        delay_millis: int = 0,
        chunk_delay_millis: int = 0,
        break_after_chunks: int | None = None,
        hold_after_chunks: int | None = None,
        first_number: int = 1,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Set the default knobs; nothing is opened before `with`.

        Args:
            text: See `Knobs`, as for the other knobs.
            tool: See `Knobs`.
            status: See `Knobs`.
            delay_millis: See `Knobs`.
            chunk_delay_millis: See `Knobs`.
            break_after_chunks: See `Knobs`.
            hold_after_chunks: See `Knobs`.
            first_number: The number of the first request. Two stubs that one process uses after each other need
                different ones where somebody remembers answers by their id.
            wall_ns: Gives the time of `RecordedRequest.time_ns`. Called from the serving threads.

        Raises:
            ValueError: A knob is out of range.
        """
        self._knobs = Knobs(
            text=text,
            tool=tool,
            status=status,
            delay_millis=delay_millis,
            chunk_delay_millis=chunk_delay_millis,
            break_after_chunks=break_after_chunks,
            hold_after_chunks=hold_after_chunks,
        )
        self._ledger = _Ledger(first_number, wall_ns)
        self._server: _Server | None = None
        self._accepting: threading.Thread | None = None

    def __enter__(self) -> LlmStub:
        """Bind a free port and start to accept.

        Raises:
            RuntimeError: The stub was started before.
        """
        if self._server is not None:
            raise RuntimeError("This LlmStub was started before; expected one `with` each. Make a new LlmStub.")
        self._server = _Server(self._knobs, self._ledger)
        self._accepting = threading.Thread(target=self._server.accept_until_closed, name="llm-stub-accept", daemon=True)
        self._accepting.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the stub."""
        self.close()

    def __repr__(self) -> str:
        """Return a status line."""
        state = "not started" if self._server is None else f"port {self._server.port}"
        return f"<LlmStub {state}, {len(self.requests)} requests, {self.aborts} aborts>"

    @property
    def url(self) -> str:
        """The base URL without `/v1`, for example `http://127.0.0.1:40123`.

        Raises:
            RuntimeError: The stub was not started, so it has no port yet.
        """
        if self._server is None:
            raise RuntimeError("This LlmStub has no URL yet; expected to be used inside `with LlmStub() as stub:`.")
        return f"http://{HOST}:{self._server.port}"

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """All requests so far, in the order of their arrival: the first is answered with the first number."""
        return self._ledger.requests

    @property
    def aborts(self) -> int:
        """How many answers the client did not stay for.

        The count follows the client's leaving as soon as the serving thread notices it: at once while it waits, with
        the next write or the one after that otherwise. To wait for it, use `wait_for_aborts`.
        """
        return self._ledger.aborts

    def wait_for_aborts(self, count: int, *, timeout_millis: int = 10_000) -> bool:
        """Wait until at least *count* answers were left by their client.

        Args:
            count: 0 or more.
            timeout_millis: The longest wait. Long by default: a wait that succeeds is as short as it can be.

        Returns:
            Whether that many aborts were seen.
        """
        return self._ledger.wait_for_aborts(count, timeout_millis=timeout_millis)

    def close(self) -> None:
        """End every connection and thread and free the port. Again, or before the start, it does nothing."""
        if self._server is None or self._accepting is None:
            return
        self._server.stop_accepting()
        self._accepting.join()
        self._server.end_connections()
        self._accepting = None


@final
class _Ledger:
    """What happened: the requests and the aborts. Written by serving threads, read by anybody."""

    def __init__(self, first_number: int, wall_ns: Callable[[], int]) -> None:
        self._first_number = first_number
        self._wall_ns = wall_ns
        self._changed = threading.Condition()
        self._requests: list[RecordedRequest] = []
        self._aborts = 0

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        with self._changed:
            return tuple(self._requests)

    @property
    def aborts(self) -> int:
        with self._changed:
            return self._aborts

    def record(self, method: str, path: str, headers: Mapping[str, str], body: JsonValue) -> int:
        """Keep a request and return its number."""
        with self._changed:
            self._requests.append(RecordedRequest(method, path, headers, body, self._wall_ns()))
            return self._first_number + len(self._requests) - 1

    def count_abort(self) -> None:
        with self._changed:
            self._aborts += 1
            self._changed.notify_all()

    def wait_for_aborts(self, count: int, *, timeout_millis: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._aborts >= count, timeout_millis / 1000)


@final
class _Server(socketserver.TCPServer):
    """Accepts connections, gives each a thread, and knows the open ones, so that all of them can be ended."""

    # A test may open a hundred connections at once; the default of 5 would make some of them wait a second.
    request_queue_size = 128

    def __init__(self, knobs: Knobs, ledger: _Ledger) -> None:
        self.knobs = knobs
        self.ledger = ledger
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._serving: dict[threading.Thread, socket.socket] = {}
        super().__init__((HOST, 0), _Handler)
        self.port = int(self.socket.getsockname()[1])

    def accept_until_closed(self) -> None:
        """Accept one connection after the other; the body of the accepting thread."""
        while not self.closing.is_set():
            # Blocks without polling: `stop_accepting` wakes it with a connection of its own.
            self.handle_request()
        self.server_close()

    def stop_accepting(self) -> None:
        self.closing.set()
        try:
            socket.create_connection((HOST, self.port), timeout=1).close()
        except OSError:
            # Nobody accepts any more, which is what was wanted.
            pass

    def end_connections(self) -> None:
        """Shut down every connection and wait for the threads that serve them."""
        with self._lock:
            serving = dict(self._serving)
        for thread, connection in serving.items():
            _shut_down(connection)
            thread.join()

    def process_request(self, request: object, client_address: object) -> None:
        """Serve an accepted connection in a thread of its own."""
        # socketserver's type allows for datagrams; the request of a TCP server is the connection.
        connection = cast("socket.socket", request)
        thread = threading.Thread(target=self._serve, args=(connection, client_address), name="llm-stub", daemon=True)
        with self._lock:
            self._serving[thread] = connection
        thread.start()

    def _serve(self, connection: socket.socket, client_address: object) -> None:
        try:
            self.finish_request(connection, client_address)
        except ConnectionError:
            # The client reset a connection on which no answer was under way.
            pass
        finally:
            self.shutdown_request(connection)
            with self._lock:
                del self._serving[threading.current_thread()]


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The client, or the serving thread, was faster.
        pass


class _ClientLeftError(Exception):
    """The client closed its connection, or the stub is closing: there is nobody to answer."""


class _InvalidRequestError(ValueError):
    """The request's body cannot be answered; the message says why."""


@final
class _Handler(BaseHTTPRequestHandler):
    """Serves one connection: reads each request, records it and writes its answer."""

    protocol_version = "HTTP/1.1"
    # Small writes would otherwise wait for the client's delayed acknowledgement, 40 ms each.
    disable_nagle_algorithm = True
    server: _Server
    connection: socket.socket

    def do_GET(self) -> None:
        self._answer_or_count_abort()

    def do_POST(self) -> None:
        self._answer_or_count_abort()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: requests are recorded, and the terminal is the caller's."""

    def _answer_or_count_abort(self) -> None:
        try:
            self._answer()
        except (_ClientLeftError, ConnectionError):
            self.close_connection = True
            if not self.server.closing.is_set():
                self.server.ledger.count_abort()

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = _parsed(self._read_body(headers))
        number = self.server.ledger.record(self.command, self.path, headers, body)
        route = urlsplit(self.path).path.rstrip("/")
        if self.command == "GET":
            plain = _get_answer(route)
            self._write_json(number, *(plain or _not_found(self.command, route)))
            return
        answer = next((answer for suffix, answer in _POST_ROUTES.items() if route.endswith(suffix)), None)
        if answer is None:
            self._write_json(number, *_not_found(self.command, route))
            return
        try:
            knobs = self.server.knobs.overridden_by(headers)
            call = _Call.from_body(number, knobs, body)
        except ValueError as error:
            self._write_json(number, 400, _error_object(400, str(error)))
            return
        self._wait_on_client(knobs.delay_millis / 1000)
        if knobs.status != 200:
            message = f"The stub was asked to answer {knobs.status}."
            self._write_json(number, knobs.status, _error_object(knobs.status, message))
            return
        if call.stream and answer.events is not None:
            self._write_events(number, knobs, answer.events(call))
        elif knobs.break_after_chunks == 0:
            self.close_connection = True
        else:
            self._write_json(number, knobs.status, answer.plain(call))

    def _read_body(self, headers: Mapping[str, str]) -> bytes:
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit():
            return self.rfile.read(int(length))
        # What follows on the connection cannot be told apart from a next request.
        self.close_connection = True
        return b""

    def _write_head(self, number: int, status: int, headers: Mapping[str, str]) -> None:
        # Not `send_response`: it adds a Date, and answers do not depend on the clock.
        self.send_response_only(status)
        for name, value in {**headers, "x-request-id": f"req-stub-{number}"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _write_json(self, number: int, status: int, answer: JsonObject) -> None:
        body = json.dumps(answer).encode()
        self._write_head(number, status, {"content-type": "application/json", "content-length": str(len(body))})
        self.wfile.write(body)

    def _write_events(self, number: int, knobs: Knobs, events: Iterator[bytes]) -> None:
        self._write_head(number, knobs.status, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for written, event in enumerate(events):
            if written == knobs.break_after_chunks:
                # The end of the connection without the end of the body is what "broken" means to a client. An orderly
                # end, not a reset: a reset could overtake chunks that the client has not read yet.
                self.close_connection = True
                return
            if written == knobs.hold_after_chunks:
                self._wait_on_client(None)
            if written:
                self._wait_on_client(knobs.chunk_delay_millis / 1000)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

    def _wait_on_client(self, seconds: float | None) -> None:
        """Wait so long, or without end if None, unless the client leaves or the stub closes.

        Raises:
            _ClientLeftError: The client left, or the stub is closing.
        """
        previous = self.connection.gettimeout()
        self.connection.settimeout(seconds)
        try:
            peeked = self.connection.recv(1, socket.MSG_PEEK)
        except (TimeoutError, BlockingIOError):
            # The client said nothing, that is, it waits.
            return
        finally:
            self.connection.settimeout(previous)
        if not peeked:
            raise _ClientLeftError
        # The client already sent its next request, so its connection says no more; only the stub can end the wait.
        if self.server.closing.wait(seconds):
            raise _ClientLeftError


@final
@dataclass(frozen=True, slots=True)
class _Call:
    """One request for an answer: all that the functions below need to know, so that they are pure."""

    number: int
    model: str
    stream: bool
    body: JsonObject
    text: str
    tool: str
    words: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        # As models do, a token carries the white space before it; together the words are the text.
        object.__setattr__(self, "words", tuple(re.findall(r"\s*\S+|\s+$", self.text)))

    @classmethod
    def from_body(cls, number: int, knobs: Knobs, body: JsonValue) -> _Call:
        """Return the call that *body* asks for.

        Raises:
            _InvalidRequestError: The body is not a JSON object with a model.
        """
        if not isinstance(body, dict):
            raise _InvalidRequestError(f"The request's body is {type(body).__name__}; expected a JSON object.")
        model = body.get("model")
        if not isinstance(model, str):
            raise _InvalidRequestError(f"model is {type(model).__name__}; expected the name of a model.")
        return cls(number, model + MODEL_SUFFIX, body.get("stream") is True, body, knobs.text, knobs.tool)

    @property
    def created_s(self) -> int:
        return FIRST_CREATED_S + self.number


@final
@dataclass(frozen=True, slots=True)
class _Answer:
    """How a route answers: as a whole, and, where the API can stream, as server-sent events."""

    plain: Callable[[_Call], JsonObject]
    events: Callable[[_Call], Iterator[bytes]] | None = None


def _chat_plain(call: _Call) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": call.text, "refusal": None}
    if call.tool:
        message |= {"content": None, "tool_calls": [_tool_call(call)]}
    return {
        **_chat_head(call, "chat.completion"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(call)}],
        "usage": _chat_usage(call),
    }


def _chat_events(call: _Call) -> Iterator[bytes]:
    head = _chat_head(call, "chat.completion.chunk")
    deltas: list[JsonObject] = [{"role": "assistant", "content": None if call.tool else ""}]
    if call.tool:
        # As OpenAI does: the name and no arguments first, then the arguments in pieces.
        start = _tool_call(call)
        deltas.append({"tool_calls": [{"index": 0, **start, "function": {"name": call.tool, "arguments": ""}}]})
        deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})
    else:
        deltas.extend({"content": word} for word in call.words)
    for delta in deltas:
        yield _event({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]})
    end: JsonObject = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": _finish_reason(call)}
    yield _event({**head, "choices": [end]})
    options = call.body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        yield _event({**head, "choices": [], "usage": _chat_usage(call)})
    yield b"data: [DONE]\n\n"


def _chat_head(call: _Call, kind: str) -> JsonObject:
    return {
        "id": f"chatcmpl-stub-{call.number}",
        "object": kind,
        "created": call.created_s,
        "model": call.model,
        "system_fingerprint": "fp_stub",
    }


def _tool_call(call: _Call) -> JsonObject:
    return {
        "id": f"call-stub-{call.number}",
        "type": "function",
        "function": {"name": call.tool, "arguments": "{}"},
    }


def _finish_reason(call: _Call) -> str:
    return "tool_calls" if call.tool else "stop"


def _chat_usage(call: _Call) -> JsonObject:
    answer_tokens = len(call.words)
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": answer_tokens,
        "total_tokens": PROMPT_TOKENS + answer_tokens,
    }


def _responses_plain(call: _Call) -> JsonObject:
    item = _output_item(call, "completed", [_output_text(call.text)])
    return _response_object(call, "completed", [item])


def _responses_events(call: _Call) -> Iterator[bytes]:
    place: JsonObject = {"item_id": f"msg-stub-{call.number}", "output_index": 0, "content_index": 0}
    started = _output_item(call, "in_progress", [])
    finished = _output_item(call, "completed", [_output_text(call.text)])
    events: list[tuple[str, JsonObject]] = [
        ("response.created", {"response": _response_object(call, "in_progress", [])}),
        ("response.output_item.added", {"output_index": 0, "item": started}),
        ("response.content_part.added", {**place, "part": _output_text("")}),
        *(("response.output_text.delta", {**place, "delta": word, "logprobs": []}) for word in call.words),
        ("response.output_text.done", {**place, "text": call.text, "logprobs": []}),
        ("response.content_part.done", {**place, "part": _output_text(call.text)}),
        ("response.output_item.done", {"output_index": 0, "item": finished}),
        ("response.completed", {"response": _responses_plain(call)}),
    ]
    for sequence_number, (name, content) in enumerate(events):
        yield _event({"type": name, "sequence_number": sequence_number, **content}, name)


def _response_object(call: _Call, status: str, output: list[JsonValue]) -> JsonObject:
    usage: JsonValue = None
    if status == "completed":
        answer_tokens = len(call.words)
        usage = {
            "input_tokens": PROMPT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": answer_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": PROMPT_TOKENS + answer_tokens,
        }
    return {
        "id": f"resp-stub-{call.number}",
        "object": "response",
        "created_at": call.created_s,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": call.model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }


def _output_item(call: _Call, status: str, content: list[JsonValue]) -> JsonObject:
    return {
        "id": f"msg-stub-{call.number}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _output_text(text: str) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _embeddings_plain(call: _Call) -> JsonObject:
    inputs = _embedding_inputs(call.body.get("input"))
    data: list[JsonValue] = []
    for index, value in enumerate(inputs):
        vector = _vector(value)
        embedding: JsonValue = [*vector]
        if call.body.get("encoding_format") == "base64":
            embedding = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    return {
        "object": "list",
        "data": data,
        "model": call.model,
        "usage": {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS},
    }


def _embedding_inputs(value: JsonValue) -> list[JsonValue]:
    """Return what gets a vector each: a text, each of several texts, one list of tokens, each of several lists."""
    if isinstance(value, list) and not all(isinstance(item, int) for item in value):
        return value
    return [value]


def _vector(value: JsonValue) -> list[float]:
    """Return a vector that depends on nothing but *value*; its numbers are exact as 32-bit floats too."""
    digest = hashlib.sha256(json.dumps(value).encode()).digest()
    return [byte / 256 for byte in digest[:EMBEDDING_DIMENSIONS]]


_POST_ROUTES: Final[Mapping[str, _Answer]] = {
    "/chat/completions": _Answer(_chat_plain, _chat_events),
    "/responses": _Answer(_responses_plain, _responses_events),
    "/embeddings": _Answer(_embeddings_plain),
}


def _get_answer(route: str) -> tuple[int, JsonObject] | None:
    if route.endswith("/models"):
        model: JsonObject = {"id": "gpt-stub", "object": "model", "created": FIRST_CREATED_S, "owned_by": "stub"}
        return 200, {"object": "list", "data": [model]}
    if route.endswith("/health"):
        return 200, {"status": "ok"}
    return None


def _not_found(method: str, route: str) -> tuple[int, JsonObject]:
    return 404, _error_object(404, f"The stub has no route {method} {route}.")


def _error_object(status: int, message: str) -> JsonObject:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _event(content: JsonObject, name: str | None = None) -> bytes:
    """Return one server-sent event (WHATWG HTML, section 9.2)."""
    prefix = f"event: {name}\n" if name else ""
    return f"{prefix}data: {json.dumps(content)}\n\n".encode()


def _parsed(body: bytes) -> JsonValue:
    try:
        # A body is whatever the client sends; that it is a JSON value is all that json.loads promises, untyped.
        value: JsonValue = json.loads(body) if body else None
    except ValueError:
        return None
    return value
