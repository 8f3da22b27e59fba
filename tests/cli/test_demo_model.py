"""The model of the demo answers the real `openai` client, and leaves nothing behind."""

import socket
import threading
from urllib.parse import urlsplit

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from otel_metadata.cli.demo_model import demo_model

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the answer?"}]


def test_a_plain_call_is_answered_in_full() -> None:
    """The answer is one message, with the tokens that it took."""
    with demo_model() as url, openai.OpenAI(base_url=url, api_key="no-key", max_retries=0) as client:
        answer = client.chat.completions.create(model="gpt-5", messages=QUESTION)

    assert answer.to_dict() == {
        "id": "chatcmpl-demo",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-5-stub",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The answer is forty-two."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
    }


def test_a_stream_has_a_role_chunk_the_words_and_a_final_chunk() -> None:
    """A stream says the role, then one word a chunk, then why it ended."""
    with demo_model() as url, openai.OpenAI(base_url=url, api_key="no-key", max_retries=0) as client:
        chunks = list(client.chat.completions.create(model="gpt-5", messages=QUESTION, stream=True))

    assert [(chunk.choices[0].delta.to_dict(), chunk.choices[0].finish_reason) for chunk in chunks] == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "The"}, None),
        ({"content": " answer"}, None),
        ({"content": " is"}, None),
        ({"content": " forty-two."}, None),
        ({}, "stop"),
    ]


def test_it_prints_nothing_and_leaves_no_thread_and_no_port(capfd: pytest.CaptureFixture[str]) -> None:
    """After its `with`, also one that an exception ends, nobody listens any more."""
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), demo_model() as url:
        with openai.OpenAI(base_url=url, api_key="no-key", max_retries=0) as client:
            client.chat.completions.create(model="gpt-5", messages=QUESTION)
        raise KeyboardInterrupt

    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=1)
    assert capfd.readouterr() == ("", "")
