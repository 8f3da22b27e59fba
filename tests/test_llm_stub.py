"""The LLM stub answers the real `openai` client as OpenAI does, misbehaves when asked to, and leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.llm_stub import Knobs, LlmStub, RecordedRequest

# Longer than any test: a wait of this length that ends was ended by something else than the clock.
HOURS_MILLIS = 9 * 3_600_000
# What a stream says that ends too early: the client's own error, or, before openai 3, that of its HTTP library.
BROKEN = "Connection error|incomplete chunked read"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the answer?"}]


@pytest.fixture
def stub() -> Iterator[LlmStub]:
    with LlmStub() as stub:
        yield stub


@pytest.fixture
def client(stub: LlmStub) -> Iterator[openai.OpenAI]:
    with client_of(stub) as client:
        yield client


def client_of(stub: LlmStub) -> openai.OpenAI:
    return openai.OpenAI(base_url=stub.url + "/v1", api_key="no-key", max_retries=0)


def post(stub: LlmStub, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, object]:
    """Send *body* as it is and return status and JSON of the answer, for what the `openai` client would not send."""
    with closing(http.client.HTTPConnection(urlsplit(stub.url).netloc)) as connection:
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


class TestChat:
    def test_a_plain_call_is_answered_in_full(self, client: openai.OpenAI) -> None:
        """The whole plain answer is fixed but for its number."""
        answer = client.chat.completions.create(model="gpt-5", messages=QUESTION)

        assert answer.to_dict() == {
            "id": "chatcmpl-stub-1",
            "object": "chat.completion",
            "created": 1_700_000_001,
            "model": "gpt-5-stub",
            "system_fingerprint": "fp_stub",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "The answer is forty-two.", "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
        }

    def test_a_stream_has_a_role_chunk_the_words_and_a_final_chunk(self, client: openai.OpenAI) -> None:
        """A stream says the role, then one word a chunk, then why it ended."""
        chunks = list(client.chat.completions.create(model="gpt-5", messages=QUESTION, stream=True))

        assert [(chunk.choices[0].delta.to_dict(), chunk.choices[0].finish_reason) for chunk in chunks] == [
            ({"role": "assistant", "content": ""}, None),
            ({"content": "The"}, None),
            ({"content": " answer"}, None),
            ({"content": " is"}, None),
            ({"content": " forty-two."}, None),
            ({}, "stop"),
        ]

    def test_a_stream_ends_with_usage_if_asked(self, client: openai.OpenAI) -> None:
        """`include_usage` adds a last chunk without choices that carries the token counts."""
        *_, last = client.chat.completions.create(
            model="gpt-5", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )

        assert last.choices == []
        assert last.usage is not None
        assert last.usage.to_dict() == {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}

    def test_answers_are_numbered_by_request(self, client: openai.OpenAI) -> None:
        """The n-th request gets the n-th id, whatever it asks for."""
        ids = [client.chat.completions.create(model="m", messages=QUESTION).id for _ in range(3)]

        assert ids == ["chatcmpl-stub-1", "chatcmpl-stub-2", "chatcmpl-stub-3"]

    @pytest.mark.parametrize("text", ["", " ", "one", "  two\nlines \n", "Größe: 100 % 🙂"])
    def test_the_words_of_a_stream_are_the_text(self, client: openai.OpenAI, text: str) -> None:
        """White space and characters beyond ASCII survive the header and the division into words."""
        stream = client.chat.completions.create(
            model="m", messages=QUESTION, stream=True, extra_headers={"x-stub-text": quote(text)}
        )

        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text

    def test_a_tool_is_called_plainly(self, client: openai.OpenAI) -> None:
        """The tool knob makes the answer a call of that tool."""
        choice = client.chat.completions.create(
            model="m", messages=QUESTION, extra_headers={"x-stub-tool": "weather"}
        ).choices[0]

        assert choice.finish_reason == "tool_calls"
        assert [call.to_dict() for call in choice.message.tool_calls or ()] == [
            {"id": "call-stub-1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        ]

    def test_a_tool_is_called_in_a_stream(self, client: openai.OpenAI) -> None:
        """The client's own accumulation of a tool call stream finds the call."""
        with client.chat.completions.stream(
            model="m", messages=QUESTION, extra_headers={"x-stub-tool": "weather"}
        ) as stream:
            message = stream.get_final_completion().choices[0].message

        assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()] == [
            ("call-stub-1", "weather", "{}")
        ]

    def test_the_async_client_streams_too(self, stub: LlmStub) -> None:
        """An asyncio client gets the same stream."""
        import asyncio

        async def text() -> str:
            async with openai.AsyncOpenAI(base_url=stub.url + "/v1", api_key="no-key", max_retries=0) as client:
                stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert asyncio.run(text()) == "The answer is forty-two."


class TestOtherRoutes:
    def test_a_response_is_answered(self, client: openai.OpenAI) -> None:
        """The Responses API gives the text and its usage."""
        answer = client.responses.create(model="gpt-5", input="What is the answer?")

        assert (answer.id, answer.status, answer.model) == ("resp-stub-1", "completed", "gpt-5-stub")
        assert answer.output_text == "The answer is forty-two."
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (11, 4)

    def test_a_streamed_response_has_numbered_events(self, client: openai.OpenAI) -> None:
        """The events of a streamed response come in OpenAI's order, numbered from 0, and end with the whole answer."""
        events = list(client.responses.create(model="gpt-5", input="What?", stream=True))

        assert [event.type for event in events] == [
            "response.created",
            "response.output_item.added",
            "response.content_part.added",
            *["response.output_text.delta"] * 4,
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [event.sequence_number for event in events] == list(range(11))
        assert events[-1].type == "response.completed"
        assert events[-1].response.output_text == "The answer is forty-two."

    def test_the_client_accumulates_a_streamed_response(self, client: openai.OpenAI) -> None:
        """The client's own accumulation accepts the events."""
        with client.responses.stream(model="gpt-5", input="What?") as stream:
            assert stream.get_final_response().output_text == "The answer is forty-two."

    def test_an_embedding_is_the_same_packed_and_plain(self, client: openai.OpenAI) -> None:
        """base64, which the client asks for by itself, and plain numbers give the same vectors, one for each input."""
        packed = client.embeddings.create(model="e", input=["one", "two"])
        plain = client.embeddings.create(model="e", input=["one", "two"], encoding_format="float")

        assert [item.embedding for item in packed.data] == [item.embedding for item in plain.data]
        assert [len(item.embedding) for item in plain.data] == [8, 8]
        assert plain.data[0].embedding != plain.data[1].embedding

    @pytest.mark.parametrize(("value", "count"), [("text", 1), ([1, 2, 3], 1), (["a", "b"], 2), ([[1], [2], [3]], 3)])
    def test_every_form_of_embedding_input_is_counted(self, client: openai.OpenAI, value: object, count: int) -> None:
        """A text and a list of tokens are one input; lists of either are as many as they hold."""
        answer = client.embeddings.create(model="e", input=value)  # type: ignore[arg-type]

        assert len(answer.data) == count

    def test_models_are_listed(self, client: openai.OpenAI) -> None:
        """There is one model."""
        assert [model.id for model in client.models.list()] == ["gpt-stub"]

    def test_health_is_ok(self, stub: LlmStub) -> None:
        """Health is answered without `/v1` and without a key."""
        with urlopen(stub.url + "/health") as answer:
            assert json.load(answer) == {"status": "ok"}

    def test_an_unknown_route_is_404(self, client: openai.OpenAI) -> None:
        """What the stub does not have is refused as OpenAI refuses it, naming the route."""
        with pytest.raises(openai.NotFoundError, match="no route POST /v1/moderations"):
            client.moderations.create(input="What?")

    def test_an_unknown_page_is_404(self, client: openai.OpenAI) -> None:
        """The same holds for GET."""
        with pytest.raises(openai.NotFoundError, match="no route GET /v1/files"):
            client.files.list()


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "The request's body is NoneType; expected a JSON object."),
            (b"{", "The request's body is NoneType; expected a JSON object."),
            (b"[]", "The request's body is list; expected a JSON object."),
            (b"{}", "model is NoneType; expected the name of a model."),
        ],
    )
    def test_a_body_without_a_model_is_400(self, stub: LlmStub, body: bytes, message: str) -> None:
        """A body that cannot be answered is refused with the reason."""
        assert post(stub, "/v1/chat/completions", body) == (
            400,
            {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}},
        )

    def test_a_length_that_is_no_number_is_an_empty_body(self, stub: LlmStub) -> None:
        """A body of unknown length is not read, and refused as missing."""
        status, _ = post(stub, "/v1/embeddings", b"", {"content-length": "all"})

        assert status == 400

    def test_a_knob_that_is_no_number_is_400(self, client: openai.OpenAI) -> None:
        """A misspelt knob is refused by name rather than ignored."""
        with pytest.raises(openai.BadRequestError, match=r"Header x-stub-delay-millis is '5s'; expected a whole"):
            client.chat.completions.create(model="m", messages=QUESTION, extra_headers={"x-stub-delay-millis": "5s"})

    @pytest.mark.parametrize("status", [199, 204, 302, 600])
    def test_a_status_without_a_body_of_its_own_is_refused(self, status: int) -> None:
        """A default status is 200 or an error."""
        with pytest.raises(ValueError, match=f"status is {status}; expected 200, or an error from 400 to 599"):
            LlmStub(status=status)

    def test_a_negative_knob_is_refused(self) -> None:
        """A default number is 0 or more."""
        with pytest.raises(ValueError, match="hold_after_chunks is -1; expected 0 or more"):
            Knobs(hold_after_chunks=-1)


class TestMisbehaviour:
    def test_an_error_status_raises_in_the_client(self, client: openai.OpenAI) -> None:
        """Status 500 reaches the caller as the client's own error, with the stub's message."""
        with pytest.raises(openai.InternalServerError, match="The stub was asked to answer 500") as raised:
            client.chat.completions.create(model="m", messages=QUESTION, extra_headers={"x-stub-status": "500"})

        assert raised.value.type == "server_error"
        assert raised.value.request_id == "req-stub-1"

    def test_a_broken_stream_gives_its_chunks_and_then_an_error(self, client: openai.OpenAI, stub: LlmStub) -> None:
        """Exactly the chunks before the break arrive; what the stub breaks is no abort of the client's."""
        stream = client.chat.completions.create(
            model="m", messages=QUESTION, stream=True, extra_headers={"x-stub-break-after-chunks": "3"}
        )

        arrived = [next(stream).choices[0].delta.content for _ in range(3)]
        with pytest.raises(Exception, match=BROKEN):
            next(stream)

        assert arrived == ["", "The", " answer"]
        assert stub.aborts == 0

    def test_a_break_at_zero_leaves_a_plain_call_unanswered(self, client: openai.OpenAI) -> None:
        """A plain answer can be broken too: then nothing of it arrives."""
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(
                model="m", messages=QUESTION, extra_headers={"x-stub-break-after-chunks": "0"}
            )

    def test_a_stream_that_is_closed_early_is_an_abort(self, client: openai.OpenAI, stub: LlmStub) -> None:
        """A held stream waits for its client, and the client's leaving is counted."""
        stream = client.chat.completions.create(
            model="m", messages=QUESTION, stream=True, extra_headers={"x-stub-hold-after-chunks": "2"}
        )
        next(stream)
        stream.close()

        assert stub.wait_for_aborts(1)
        assert stub.aborts == 1

    def test_leaving_during_a_delay_is_an_abort(self, stub: LlmStub) -> None:
        """A delayed answer is given up as soon as its client leaves."""
        with closing(http.client.HTTPConnection(urlsplit(stub.url).netloc)) as connection:
            connection.request(
                "POST", "/v1/chat/completions", b'{"model": "m"}', {"x-stub-delay-millis": str(HOURS_MILLIS)}
            )

        assert stub.wait_for_aborts(1)

    def test_leaving_between_delayed_chunks_is_an_abort(self, stub: LlmStub) -> None:
        """The second chunk waits, so only the first arrives."""
        headers = {"x-stub-chunk-delay-millis": str(HOURS_MILLIS)}
        with closing(http.client.HTTPConnection(urlsplit(stub.url).netloc)) as connection:
            connection.request("POST", "/v1/responses", b'{"model": "m", "stream": true}', headers)
            first_line = connection.getresponse().readline()

        assert first_line == b"event: response.created\n"
        assert stub.wait_for_aborts(1)

    def test_short_delays_change_nothing_else(self, client: openai.OpenAI) -> None:
        """After its delays the stream is what it would have been."""
        stream = client.chat.completions.create(
            model="m",
            messages=QUESTION,
            stream=True,
            extra_headers={"x-stub-delay-millis": "1", "x-stub-chunk-delay-millis": "1"},
        )

        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "The answer is forty-two."

    def test_a_client_that_sends_its_next_request_early_still_waits(self, stub: LlmStub) -> None:
        """A delay holds for a client whose next request is already in the pipe, and both are answered in order."""
        request = (
            b'POST /v1/chat/completions HTTP/1.1\r\nx-stub-delay-millis: 1\r\ncontent-length: 14\r\n\r\n{"model": "m"}'
        )
        with socket.create_connection((urlsplit(stub.url).hostname, urlsplit(stub.url).port)) as connection:
            connection.sendall(request + request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            answers = b"".join(iter(lambda: connection.recv(65536), b""))

        assert answers.index(b"chatcmpl-stub-1") < answers.index(b"chatcmpl-stub-2")

    def test_an_idle_connection_that_is_closed_is_no_abort(self, stub: LlmStub) -> None:
        """A client that got its whole answer may leave."""
        with client_of(stub) as client:
            client.chat.completions.create(model="m", messages=QUESTION)
        stub.close()

        assert stub.aborts == 0

    def test_a_wait_for_aborts_that_do_not_come_ends(self, stub: LlmStub) -> None:
        """Waiting for an abort says no after its time."""
        assert not stub.wait_for_aborts(1, timeout_millis=0)


class TestDefaults:
    def test_the_constructor_sets_what_all_answers_are(self) -> None:
        """Knobs of the constructor hold for requests without a header."""
        with LlmStub(text="Hello.") as stub, client_of(stub) as client:
            answer = client.chat.completions.create(model="m", messages=QUESTION)

        assert answer.choices[0].message.content == "Hello."

    def test_a_header_goes_before_the_constructor(self) -> None:
        """A request's header replaces the default, for that request."""
        with LlmStub(status=500) as stub, client_of(stub) as client:
            answer = client.chat.completions.create(
                model="m", messages=QUESTION, extra_headers={"x-stub-status": "200"}
            )
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(model="m", messages=QUESTION)

        assert answer.choices[0].message.content == "The answer is forty-two."

    def test_numbers_start_where_they_are_told(self) -> None:
        """A first number of its own keeps the ids of a stub apart from those of another."""
        with LlmStub(first_number=1001) as stub, client_of(stub) as client:
            ids = [client.chat.completions.create(model="m", messages=QUESTION).id for _ in range(2)]

        assert ids == ["chatcmpl-stub-1001", "chatcmpl-stub-1002"]


class TestRecord:
    def test_a_request_is_recorded_as_it_came(self) -> None:
        """Method, path, lower-case header names, parsed body and time are kept."""
        with LlmStub(wall_ns=lambda: 7) as stub:
            post(stub, "/v1/embeddings?a=1", b'{"model": "e", "input": "x"}', {"X-Question": "Why"})

        (request,) = stub.requests
        assert request == RecordedRequest(
            method="POST",
            path="/v1/embeddings?a=1",
            headers=request.headers,
            body={"model": "e", "input": "x"},
            time_ns=7,
        )
        assert request.headers["x-question"] == "Why"

    def test_a_refused_request_is_recorded_too(self, stub: LlmStub) -> None:
        """The record is of what arrived, not of what could be answered."""
        post(stub, "/v1/unknown", b"not JSON")

        assert [(request.path, request.body) for request in stub.requests] == [("/v1/unknown", None)]


class TestLife:
    def test_nothing_is_left_after_the_end(self) -> None:
        """Kept-alive connections, a held stream and a delayed answer end with the stub; no thread or port stays."""
        before = set(threading.enumerate())
        with LlmStub() as stub, client_of(stub) as client:
            client.chat.completions.create(model="m", messages=QUESTION)
            stream = client.chat.completions.create(
                model="m", messages=QUESTION, stream=True, extra_headers={"x-stub-hold-after-chunks": "1"}
            )
            next(stream)
            url = urlsplit(stub.url)
            delayed = http.client.HTTPConnection(url.netloc)
            delayed.request(
                "POST", "/v1/chat/completions", b'{"model": "m"}', {"x-stub-delay-millis": str(HOURS_MILLIS)}
            )
            stub.close()
            with pytest.raises(Exception, match=BROKEN):
                next(stream)
            delayed.close()

        assert set(threading.enumerate()) == before
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((url.hostname, url.port))

    def test_the_end_of_the_stub_is_no_abort(self) -> None:
        """Only clients abort: a stream that the stub ends by closing is not counted."""
        with LlmStub() as stub, client_of(stub) as client:
            stream = client.chat.completions.create(
                model="m", messages=QUESTION, stream=True, extra_headers={"x-stub-hold-after-chunks": "1"}
            )
            next(stream)
            stub.close()
            stream.close()

        assert stub.aborts == 0

    def test_closing_again_does_nothing(self, stub: LlmStub) -> None:
        """A stub may be closed inside its `with`."""
        stub.close()
        stub.close()

    def test_closing_before_the_start_does_nothing(self) -> None:
        """A stub that was never started has nothing to close."""
        LlmStub().close()

    def test_there_is_no_url_before_the_start(self) -> None:
        """The port is known when it is bound, not before."""
        with pytest.raises(RuntimeError, match="has no URL yet"):
            _ = LlmStub().url

    def test_a_second_start_is_refused(self) -> None:
        """A stub serves once."""
        with LlmStub() as stub, pytest.raises(RuntimeError, match="was started before"):
            stub.__enter__()

    def test_its_repr_is_a_status_line(self, stub: LlmStub) -> None:
        """The repr tells state and counts."""
        port = urlsplit(stub.url).port

        assert repr(LlmStub()) == "<LlmStub not started, 0 requests, 0 aborts>"
        assert repr(stub) == f"<LlmStub port {port}, 0 requests, 0 aborts>"

    def test_many_clients_are_served_at_once(self, stub: LlmStub) -> None:
        """Each connection has a thread of its own: held streams do not keep others waiting."""
        with client_of(stub) as client:
            streams = [
                client.chat.completions.create(
                    model="m", messages=QUESTION, stream=True, extra_headers={"x-stub-hold-after-chunks": "1"}
                )
                for _ in range(20)
            ]
            roles = [next(stream).choices[0].delta.role for stream in streams]
            for stream in streams:
                stream.close()

        assert roles == ["assistant"] * 20
        assert stub.wait_for_aborts(20)


def test_the_stub_imports_nothing_of_the_package() -> None:
    """The stub stands alone, so that it can be loaded beside any version of the library."""
    import ast
    from pathlib import Path

    from tests import llm_stub

    tree = ast.parse(Path(llm_stub.__file__).read_text(encoding="utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }

    assert not {name for name in imported if name.startswith("otel_metadata")}
