"""What instrumentors say of a model's input, output and kind is found by the same filters, whoever says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_metadata.model.record import SpanQuery
from otel_metadata.store.filter import language as filters
from otel_metadata.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from tests.instrumentors.conftest import Scene


def test_a_call_of_a_model_is_found_by_kind_and_model(scene: Scene) -> None:
    """Also where the instrumentor keeps what was said to itself."""
    scene.chat()
    scene.export()
    store = SqliteStore(":memory:")
    store.write(scene.exported)

    (record,) = store.query(SpanQuery(condition=filters.parse("span_kind = 'LLM' AND model LIKE 'gpt-5%'")))

    assert record.span_kind == "LLM"
    store.close()


@pytest.mark.only("openinference", "openllmetry")  # the other one says it in log events
@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_answer_is_found_in_the_store(scene: Scene, is_streamed: bool) -> None:
    """By a word of it, by a word of the question, by the kind and by the model; the record shows the same."""
    if is_streamed:
        for _ in scene.stream(text="The quick brown fox, é."):
            pass
    else:
        scene.chat(text="The quick brown fox, é.")
    scene.export()
    store = SqliteStore(":memory:")
    store.write(scene.exported)
    (record,) = store.query(SpanQuery())

    for text in (
        "output LIKE '%brown fox, é%'",
        "input LIKE '%the answer%'",
        "span_kind = 'LLM' AND model LIKE 'gpt-5%'",
        "output IS NOT NULL AND input IS NOT NULL",
    ):
        assert store.query(SpanQuery(condition=filters.parse(text))) == [record], text
    assert store.query(SpanQuery(condition=filters.parse("output LIKE '%the answer%' OR span_kind != 'LLM'"))) == []
    assert "brown fox" in f"{record.output}"
    assert "the answer" in f"{record.input}"
    assert record.span_kind == "LLM"
    store.close()
