"""`POST /api/v1/filter`, with real requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.server.api import SPAN_ID, TRACE_ID, Plain, fill, fits, refused, start_with_tokens, token_of, update
from tests.server.conftest import Server, StartServer

PATH = "/api/v1/filter"


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> Server:
    """Return a server with one trace of three spans, and a few names in use."""
    started = start_with_tokens(start_server, tmp_path)
    fill(started.store)
    update(started, f"spans/{SPAN_ID}", {"metadata": {"region": 1, "user-id": 2}, "tags": ["vip"]})
    update(started, f"spans/{SPAN_ID}/evaluations/Correctness", {"score": 1})
    return started


def ask(server: Server, text: str, position: int | None = None, **headers: str) -> Any:
    body = {"text": text} if position is None else {"text": text, "position": position}
    return fits(server.call("POST", PATH, json=body, headers=headers), "check_filter")


def completed(server: Server, text: str, position: int | None = None, **headers: str) -> list[str]:
    return [one["text"] for one in ask(server, text, position, **headers)["completions"]]


def test_a_filter_is_valid_or_says_where_it_is_not(server: Server) -> None:
    assert ask(server, "latency_ms > 5")["is_valid"]
    found = ask(server, "latency_ms > now")
    assert (found["is_valid"], found["problem"]["position"]) == (False, 13)
    assert found["problem"]["found"] == "`now`"
    assert found["problem"]["message"].endswith(".")
    assert not ask(server, "")["is_valid"]


def test_the_store_completes_keys_tags_and_names(server: Server) -> None:
    assert completed(server, "metadata.") == ["metadata.region", 'metadata."user-id"']
    assert completed(server, "eval.Corr") == ["eval.Correctness."]
    assert completed(server, "'v") == ["'vip' IN tags"]
    assert completed(server, "stat = 'x'", 4) == ["status_code", "status_message"]
    assert ask(server, "😀 metadata.r")["completions"] == []


def test_the_store_completes_values_the_commonest_first(server: Server) -> None:
    for number, plan in enumerate(("team", "free", "team"), 1):
        update(server, f"spans/{number:016x}", {"metadata": {"plan": plan, "beta": number == 2}, "user_id": "u'7"})
    update(server, f"spans/{SPAN_ID}/evaluations/Tone", {"label": "curt"})
    update(server, f"traces/{TRACE_ID}", {"metadata": {"plan": "whole"}})
    assert completed(server, "metadata.plan = ") == ["'team'", "'free'"]
    assert completed(server, "metadata.plan != 'f") == ["'free'"]
    assert completed(server, "metadata.plan IN ('team', ") == ["'team'", "'free'"]
    assert completed(server, "metadata.region = ") == ["1"]
    assert completed(server, "metadata.beta = ") == ["FALSE", "TRUE"]
    assert completed(server, "metadata.nothing = ") == ["TRUE", "FALSE"]
    assert completed(server, "trace.metadata.plan = ") == ["'whole'"]
    assert completed(server, "eval.Tone.label = ") == ["'curt'"]
    assert completed(server, "user_id = ") == ["'u''7'"]
    assert completed(server, "name = 'step 2") == ["'step 2'"]
    assert completed(server, "metadata.plan > ") == []
    assert completed(server, "metadata.plan = ", **token_of(server, "bank")) == ["TRUE", "FALSE"]


def test_a_caller_with_a_project_is_offered_names_of_that_only(server: Server) -> None:
    assert completed(server, "metadata.re", **token_of(server, "bank")) == []
    assert completed(server, "metadata.re", **token_of(server, "shop")) == ["metadata.region"]


def test_a_store_without_names_completes_the_language(start_server: StartServer, server: Server) -> None:
    plain = start_server(store=Plain(server.store))  # type: ignore[arg-type] # a store by its methods
    assert completed(plain, "metadata.") == []
    assert completed(plain, "latency_ms > 5 ") == ["AND", "OR"]


@pytest.mark.parametrize(
    "body",
    [{}, {"text": 5}, {"text": "x" * 5_000}, {"text": "x", "position": -1}, {"text": "x", "place": 1}, {"text": None}],
)
def test_a_wrong_body_is_refused(server: Server, body: Any) -> None:
    refused(server.call("POST", PATH, json=body), 400)
