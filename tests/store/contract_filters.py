"""Random filters over random spans: what a store selects is what the plain Python evaluator says of its records.

A store's test module subclasses `FilterContract` and gives a fixture `filled`: a store into which `corpus()` was
written. The spans and what is said of them are the same in every run, the filters are not.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from tests.store.conditions import (
    AUTHOR_SUBJECTS,
    AUTHORS,
    CHANGE_SUBJECTS,
    KEYS,
    LATE_COUNTS,
    NUMBERS,
    ROUTE_SUBJECTS,
    TAGS,
    TEXTS,
    TIMES,
    conditions,
    spelled,
    spelled_name,
)
from tests.store.contract import START_NS, SUPPRESSED, ended_span
from tests.store.evaluator import FieldOrigin, Origins, holds, value_of
from tests.store.spans import SpanWithFields
from tests.strategies import examples

from otel_metadata.model import authors
from otel_metadata.model.condition import And, Compare, Condition, IsNull, Not, Or, Subject
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Field, FieldName, Json
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import SpanStore
from otel_metadata.store.filter import language as filters

SPANS = 150
FILTERS = examples(1_000)

_NESTED: tuple[Json, ...] = (None, True, False, [], ["a"], {}, {"a": 1}, {"label": "a"})
_VALUES: tuple[Json, ...] = (*TEXTS, *NUMBERS, *_NESTED)


_MESSAGES: tuple[Json, ...] = ("", "a", "A", '["a"]', '[{"b":"a"}]', '{"b":"a"}', "[a", "{", "5", "true", "null", "[]")
_INSTRUMENTED: dict[str, tuple[Json, ...]] = {
    "gen_ai.input.messages": _MESSAGES,
    "gen_ai.prompt.10.content": _MESSAGES,
    "gen_ai.prompt.9.content": _MESSAGES,
    "gen_ai.prompt.9.role": ("user",),
    "traceloop.entity.input": _MESSAGES,
    "gen_ai.output.messages": _MESSAGES,
    "llm.output_messages.0.message.content": _MESSAGES,
    "llm.output_messages.0.message.contents.1.message_content.text": _MESSAGES,
    "llm.model_name": ("", "a", "A", "ab"),
    "gen_ai.request.model": ("", "a", "it's"),
    "openinference.span.kind": ("LLM", "llm", "Tool", ""),
    "gen_ai.operation.name": ("chat", "CHAT", "execute_tool", "something_new", ""),
    "traceloop.span.kind": ("tool", "task"),
    "ai.operationId": ("ai.toolCall", "ai.embed"),
    "ai.response.text": _MESSAGES,
    "response_data": _MESSAGES,
}
"""Attributes by which instrumentors say one of the names of a filter, and texts of theirs."""

ANSWERS: dict[str, dict[str, Any]] = {
    "OpenInference": {
        "input.value": '{"messages": [{"content": "Which animal is quick?"}]}',
        "input.mime_type": "application/json",
        "output.value": '{"choices": [{"message": {"content": "The brown fox, é."}}]}',
        "output.mime_type": "application/json",
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-5",
    },
    "OpenInference, messages alone": {
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "Which animal is quick?",
        "llm.output_messages.0.message.contents.0.message_content.text": "The brown fox, é.",
        "openinference.span.kind": "llm",
        "llm.model_name": "gpt-5",
    },
    "OpenLLMetry": {
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": "You know animals.",
        "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": "Which animal is quick?",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": "The brown fox, é.",
        "llm.request.type": "chat",
        "gen_ai.request.model": "gpt-5",
    },
    "semantic conventions": {
        "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "Which animal is quick?"}]}]',
        "gen_ai.output.messages": '[{"role": "assistant", "parts": [{"content": "The brown fox, \\u00e9."}]}]',
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-5",
    },
    "Traceloop's decorators": {
        "traceloop.entity.input": '{"args": ["Which animal is quick?"]}',
        "traceloop.entity.output": '"The brown fox, é."',
        "gen_ai.operation.name": "text_completion",
        "gen_ai.response.model": "gpt-5",
    },
    "Logfire": {
        "request_data": '{"messages":[{"role":"user","content":"Which animal is quick?"}],"model":"gpt-5"}',
        "response_data": '{"message":{"role":"assistant","content":"The brown fox, é."},"usage":{"total_tokens":15}}',
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-5",
        "logfire.tags": ("LLM",),
    },
    "MLflow": {
        "mlflow.spanInputs": '{"q": "Which animal is quick?"}',
        "mlflow.spanOutputs": '{"answer": "The brown fox, \\u00e9."}',
        "mlflow.spanType": '"LLM"',
        "mlflow.llm.model": "gpt-5",
    },
    "Langfuse": {
        "langfuse.observation.input": '{"args": ["Which animal is quick?"], "kwargs": {}}',
        "langfuse.observation.output": '{"a": "The brown fox, é."}',
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "gpt-5",
    },
    "LangWatch": {
        "langwatch.input": '{"type": "chat_messages", "value": [{"content": "Which animal is quick?"}]}',
        "langwatch.output": '{"type": "text", "value": "The brown fox, \\u00e9."}',
        "langwatch.span.type": "llm",
        "gen_ai.request.model": "gpt-5",
    },
    "Vercel's AI SDK, text": {
        "ai.operationId": "ai.generateText.doGenerate",
        "operation.name": "ai.generateText.doGenerate ask",
        "ai.prompt.messages": '[{"role":"user","content":[{"type":"text","text":"Which animal is quick?"}]}]',
        "ai.response.text": "The brown fox, é.",
        "ai.model.id": "gpt-5",
    },
    "Vercel's AI SDK, object": {
        "ai.operationId": "ai.streamObject.doStream",
        "ai.prompt": '{"prompt":"Which animal is quick?"}',
        "ai.response.object": '{"found":"The brown fox, é."}',
        "ai.model.id": "gpt-5",
    },
    "Vercel's AI SDK, tools": {
        "ai.operationId": "ai.streamText.doStream",
        "ai.prompt.messages": '[{"role":"user","content":[{"type":"text","text":"Which animal is quick?"}]}]',
        "ai.response.text": "",
        "ai.response.toolCalls": '[{"toolName":"show","input":"{\\"found\\":\\"The brown fox, é.\\"}"}]',
        "ai.model.id": "gpt-5",
    },
    "messages as span events": {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5"},
    "messages as JSON in span events": {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5"},
    "contents as span events": {"llm.request.type": "chat", "gen_ai.request.model": "gpt-5"},
    "details as a span event": {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5"},
}
"""The same question and answer, as instrumentors put it on a span."""

_EVENTS: dict[str, dict[str, dict[str, Any]]] = {
    "messages as span events": {
        "gen_ai.system.message": {"gen_ai.system": "openai", "content": "You know animals."},
        "gen_ai.user.message": {"gen_ai.system": "openai", "content": "Which animal is quick?"},
        "gen_ai.choice": {"index": 0, "finish_reason": "stop", "message": "The brown fox, é."},
    },
    "messages as JSON in span events": {
        "gen_ai.user.message": {"gen_ai.event.content": '{"role": "user", "content": "Which animal is quick?"}'},
        "exception": {"exception.message": "none of its"},
        "gen_ai.choice": {"gen_ai.event.content": '{"message": {"content": "The brown fox, \\u00e9."}, "index": 0}'},
    },
    "contents as span events": {
        "gen_ai.content.prompt": {"gen_ai.prompt": '[{"role": "user", "content": "Which animal is quick?"}]'},
        "gen_ai.content.completion": {"gen_ai.completion": '[{"content": "The brown fox, \\u00e9."}]'},
    },
    "details as a span event": {
        "gen_ai.client.inference.operation.details": {
            "gen_ai.input.messages": '[{"role": "user", "parts": [{"content": "Which animal is quick?"}]}]',
            "gen_ai.output.messages": '[{"role": "assistant", "parts": [{"content": "The brown fox, é."}]}]',
        },
    },
}
"""What is in span events there."""


def answered() -> list[SpanWithFields]:
    """Return a span of each instrumentor, of a project of their own."""
    return [
        ended_span(
            9_000 + number,
            trace_id=9_000 + number,
            name=name,
            attributes=attributes,
            events=[Event(event, said, START_NS) for event, said in _EVENTS.get(name, {}).items()],
            resource=_ANSWERS,
        )
        for number, (name, attributes) in enumerate(ANSWERS.items())
    ]


_ANSWERS = Resource({"service.name": "answers"})


def corpus() -> tuple[list[SpanWithFields], list[Patch]]:
    """Return spans of a few traces, and what is said of them late."""
    chance = random.Random(20)
    spans, patches = [], []
    for number in range(1, SPANS + 1):
        start_ns = chance.choice(TIMES)
        span = ended_span(
            number,
            trace_id=number % 40 + 1,
            start_ns=start_ns,
            name=chance.choice(TEXTS),
            attributes={key: value for key, value in _some(chance, KEYS).items() if _is_native(value)}
            | {key: chance.choice(values) for key, values in _INSTRUMENTED.items() if chance.random() < 0.2},
            parent=SpanContext(number % 40 + 1, number + 1, is_remote=False) if number % 3 else None,
            kind=chance.choice(list(SpanKind)),
            status=Status(StatusCode.ERROR, chance.choice(TEXTS))
            if number % 4 == 0
            else Status(StatusCode(number % 2)),
            resource=Resource({key: value for key, value in _some(chance, KEYS).items() if _is_native(value)}).merge(
                Resource({"service.name": chance.choice(TEXTS)} if number % 2 else {})
            ),
            instrumentation_scope=InstrumentationScope(chance.choice(TEXTS), chance.choice(TEXTS) or None),
            events=[
                Event(event, {chance.choice(("content", "message", "other")): chance.choice(_MESSAGES)}, start_ns)
                for event in ("gen_ai.user.message", "gen_ai.choice", "gen_ai.choice", "exception")
                if chance.random() < 0.3
            ],
            fields=_fields(chance, number),
        )
        spans.append(span)
        for late in range(number % 3):
            target = SpanRef(number % 40 + 1, number if late else 0)
            patches.append(Patch(target, _fields(chance, 1_000 * late + number, only="span" if late else "trace")))
    spans += answered()
    chance.shuffle(patches)
    return spans, [patch for patch in patches if patch.fields]


def _some(chance: random.Random, keys: Sequence[str]) -> dict[str, Any]:
    return {key: chance.choice(_VALUES) for key in keys if chance.random() < 0.4}


def _is_native(value: Json) -> bool:
    return value is not None and not isinstance(value, dict)


def _fields(chance: random.Random, number: int, only: str = "") -> dict[FieldName, Field]:
    found: dict[FieldName, Json] = {}
    for level in ("span", "trace"):
        for key, value in _some(chance, KEYS).items():
            found[level, "metadata", key] = value
        for kind in ("input", "output"):
            if chance.random() < 0.3:
                found[level, kind, ""] = chance.choice(_VALUES)
        for kind in ("name", "user_id", "session_id"):
            if chance.random() < 0.3:
                found[level, kind, ""] = chance.choice(TEXTS)
        for key in KEYS[:3]:
            if chance.random() < 0.4:
                verdict = Evaluation(key, chance.choice((None, *NUMBERS)), chance.choice((None, *TEXTS)))
                found[level, "evaluation", key] = verdict.to_json()
            for annotator in (None, "ann", "bob"):
                if chance.random() < 0.2:
                    note = Annotation(
                        key, chance.choice((None, *TEXTS)), chance.choice((None, *NUMBERS)), annotator=annotator
                    )
                    found[level, "annotation", annotation_key(key, annotator)] = note.to_json()
        for tag in TAGS:
            if chance.random() < 0.3:
                found[level, "tag", tag] = True
    for key, value in _some(chance, KEYS[:4]).items():
        found["span", "attribute", key] = value
    for key, values in _INSTRUMENTED.items():
        if chance.random() < 0.05 and key.rpartition(".")[2] not in ("content", "text"):
            found["span", "attribute", key] = chance.choice(values)
    if chance.random() < 0.3:
        found["span", "status", ""] = chance.choice(["ok", "error", 200, 404])
    if chance.random() < 0.3:
        found["span", "status_message", ""] = chance.choice(TEXTS)
    return {
        name: (value, ((TIMES[-1] if number % 5 else TIMES[0]) + number, number % 4 * 100 + at))
        for at, (name, value) in enumerate(found.items(), 1)
        if only in ("", name[0])
    }


def _is_no_and(condition: Condition) -> bool:
    return not isinstance(condition, And)


_LEVELS = st.sampled_from(("span", "trace"))
_TEXT = st.sampled_from(TEXTS)
# What is asked by equality, and so may be read off an index.
_INDEXED = st.builds(
    Compare,
    st.builds(Subject, _LEVELS, st.just("metadata"), st.sampled_from(KEYS)),
    st.just("="),
    st.sampled_from((*TEXTS, *NUMBERS, True, False)),
) | st.builds(
    Compare,
    st.builds(Subject, st.just("span"), st.sampled_from(("user_id", "session_id")))
    | st.builds(Subject, _LEVELS, st.just("evaluation"), st.sampled_from(KEYS[:3]), st.just("label")),
    st.just("="),
    _TEXT,
)
_INDEXED |= st.builds(Compare, st.sampled_from(ROUTE_SUBJECTS), st.just("="), st.just("late")) | st.builds(
    Compare, st.sampled_from(LATE_COUNTS), st.sampled_from(["=", ">", ">=", "!="]), st.sampled_from([0, 0.5, 1, 2])
)


def fill(store: SpanStore) -> None:
    """Write the corpus, the patches by several routes, by writers of whom most have a name."""
    spans, patches = corpus()
    for writer in range(100, 400):
        authors.AUTHORS.add(writer, AUTHORS[writer // 100 - 1])
    store.write(spans)
    store.patch(patches[::2])
    rows = [(patch.target.trace_id_hex, patch.target.span_id_hex, patch.fields) for patch in patches[1::2]]
    store.patch_rows(rows[::2], route="import")
    store.patch_rows(rows[1::2], route="log")


@functools.cache
def with_origins(store: SpanStore) -> list[tuple[SpanRecord, Origins]]:
    """Return all spans of a store, in the order of a page, each with the origins of its fields."""
    return [
        (
            record,
            {
                (value.level, value.kind, value.key): FieldOrigin(
                    (value.time_ns, value.writer), value.route, value.author
                )
                for value in store.history(record.trace_id, record.span_id)
                if value.is_current
            },
        )
        for record in store.query(SpanQuery(limit=None))
    ]


class FilterContract:
    """The tests; a subclass gives the fixture `filled`."""

    @pytest.fixture
    def judged(self, filled: SpanStore) -> list[tuple[SpanRecord, Origins]]:
        return with_origins(filled)

    def check(self, store: SpanStore, judged: list[tuple[SpanRecord, Origins]], query: SpanQuery) -> None:
        """Check that a question is answered as the evaluator says."""
        assert query.condition is not None
        places = [record.position for record, origins in judged if holds(query.condition, record, origins)]
        wanted = [place for place in places if query.after is None or place < query.after][: query.limit]
        assert [record.position for record in store.query(query)] == wanted

    def test_the_corpus_is_there(self, judged: list[tuple[SpanRecord, Origins]]) -> None:
        """Every span, with what was said of it live and late."""
        records = [record for record, _ in judged]
        assert len(records) == SPANS + len(ANSWERS)
        assert sum(len(record.metadata) for record in records) > SPANS
        assert sum(len(record.trace_annotations) for record in records) > SPANS / 2

    @pytest.mark.parametrize("name", ANSWERS)
    def test_an_answer_is_found_whoever_says_it(self, filled: SpanStore, name: str) -> None:
        """By words of question and answer, by the kind and by the model, as the record shows them."""
        texts = [
            "output LIKE '%brown fox, é%'",
            "input LIKE '%animal is quick%'",
            "span_kind = 'LLM'",
            "span_kind IN ('llm', 'TOOL')",
            "model = 'gpt-5'",
            "NOT (output IS NULL OR input IS NULL OR model IS NULL OR span_kind IS NULL)",
        ]
        for text in texts:
            found = filled.query(SpanQuery(condition=filters.parse(text), project="answers"))
            assert name in {record.name for record in found}, text
        for text in (
            "output LIKE '%animal%'",
            "input LIKE '%fox%'",
            "span_kind = 'TOOL'",
            "output = TRUE",
            "input > 5",
        ):
            found = filled.query(SpanQuery(condition=filters.parse(text), project="answers"))
            assert name not in {record.name for record in found}, text
        (record,) = filled.query(SpanQuery(condition=Compare(Subject("span", "name"), "=", name)))
        assert (record.span_kind, record.model) == ("LLM", "gpt-5")
        assert "brown fox, é" in f"{record.output}"
        assert "animal is quick" in f"{record.input}"

    @pytest.mark.parametrize("subject", CHANGE_SUBJECTS, ids=spelled_name)
    def test_a_value_is_found_by_the_time_it_was_set(
        self, filled: SpanStore, judged: list[tuple[SpanRecord, Origins]], subject: Subject
    ) -> None:
        """Before the middle of all such times, at it, and from then on, of every kind of value; or not set."""
        times = sorted(ns for record, origins in judged if isinstance(ns := value_of(subject, record, origins), int))
        middle = times[len(times) // 2]
        assert times[0] < middle
        before, then = Compare(subject, "<", middle), Compare(subject, "=", middle)
        for condition in (before, then, Compare(subject, ">=", middle), IsNull(subject)):
            self.check(filled, judged, SpanQuery(condition=filters.parse(spelled(condition)), limit=None))

    @pytest.mark.parametrize("subject", [*ROUTE_SUBJECTS, *AUTHOR_SUBJECTS, *LATE_COUNTS], ids=spelled_name)
    def test_a_value_is_found_by_how_it_came_and_from_whom(
        self, filled: SpanStore, judged: list[tuple[SpanRecord, Origins]], subject: Subject
    ) -> None:
        """By each route, each author and each count that a value has, and by what it has not."""
        found = {value_of(subject, record, origins) for record, origins in judged} - {None}
        assert len(found) > 1
        equal = [Compare(subject, "=", value) for value in found]
        for condition in (*equal, Not(equal[0]), Not(Or(tuple(equal))), IsNull(subject)):
            self.check(filled, judged, SpanQuery(condition=condition, limit=None))

    @settings(max_examples=FILTERS, suppress_health_check=SUPPRESSED, deadline=None)
    @given(condition=conditions())
    def test_a_filter_selects_what_the_evaluator_says(
        self, filled: SpanStore, judged: list[tuple[SpanRecord, Origins]], condition: Condition
    ) -> None:
        """As it is written, parsed, and put as the store's own question; in the order of a page."""
        self.check(filled, judged, SpanQuery(condition=filters.parse(spelled(condition)), limit=None))

    @settings(max_examples=FILTERS // 10, suppress_health_check=SUPPRESSED, deadline=None)
    @given(data=st.data())
    def test_an_index_finds_what_a_walk_finds(
        self, filled: SpanStore, judged: list[tuple[SpanRecord, Origins]], data: st.DataObject
    ) -> None:
        """What is asked by equality, alone, beside another such, or beside more; on a page or behind a place."""
        condition: Condition = data.draw(_INDEXED)
        others = data.draw(st.lists(_INDEXED | conditions(max_leaves=1).filter(_is_no_and), max_size=2))
        if others:
            condition = And((*others, condition))
        after = data.draw(st.none() | st.sampled_from([record.position for record, _ in judged]))
        limit = data.draw(st.none() | st.integers(1, 5))
        self.check(filled, judged, SpanQuery(condition=condition, after=after, limit=limit))
