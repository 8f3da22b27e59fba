"""A span's input, output, model and kind, from the attributes that each instrumentor has for them.

This is the only place that reads these attributes, for records and for filters. It reads them when a span is read, so
it works for spans that were stored long ago. A field (`input.value`, an update) wins over them.

Sources: OpenTelemetry semantic conventions for generative AI 1.37; OpenInference semantic conventions, "LLM Spans";
OpenLLMetry, `opentelemetry.semconv_ai`; spans of the SDKs of Langfuse 5, LangWatch, MLflow and Logfire. Read in
documentation: Vercel's AI SDK, "Telemetry, collected data"; semantic conventions 1.26 to 1.36, whose messages are span
events; Pydantic AI, Google ADK, Genkit, Haystack, Braintrust and LangSmith on their export by OpenTelemetry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import orjson

from otel_metadata.model.merge import Json, json_text
from otel_metadata.model.value import CAPTURE_LIMITS, clean


class Spelling(NamedTuple):
    """The places where instrumentors put one fact.

    Attributes:
        names: Attributes that hold all of it; the first one that is set and not empty counts.
        stems: If no such attribute is set: beginnings of attributes that hold one message or part each. Their names end
            as in `CONTENTS`.
        events: If no such attribute is set either: the names of span events that hold one message each.
        texts: The attributes of such an event that may hold the message; the first that is set and not empty counts.
    """

    names: tuple[str, ...]
    stems: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


# Inputs and outputs of each instrumentor. The order counts: see `Spelling.names`.
_INPUTS_AND_OUTPUTS: Final = (
    ("gen_ai.input.messages", "gen_ai.output.messages"),
    ("gen_ai.prompt", "gen_ai.completion"),
    ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
    ("traceloop.entity.input", "traceloop.entity.output"),
    ("langfuse.observation.input", "langfuse.observation.output"),
    ("langwatch.input", "langwatch.output"),
    ("mlflow.spanInputs", "mlflow.spanOutputs"),
    ("ai.prompt.messages ai.prompt", "ai.response.text ai.response.object ai.response.toolCalls"),
    ("ai.toolCall.args ai.value ai.values", "ai.result.text ai.result.object ai.result.toolCalls ai.toolCall.result"),
    ("pydantic_ai.all_messages all_messages_events", "final_result"),
    ("tool_arguments", "tool_response"),
    ("gcp.vertex.agent.llm_request", "gcp.vertex.agent.llm_response"),
    ("gcp.vertex.agent.tool_call_args", "gcp.vertex.agent.tool_response"),
    ("genkit:input", "genkit:output"),
    ("haystack.component.input", "haystack.component.output"),
    ("braintrust.input_json braintrust.input", "braintrust.output_json braintrust.output"),
    ("gen_ai.content.prompt", "gen_ai.content.completion"),
    ("llm.prompts", "llm.responses"),
    ("events", "events"),
    ("request_data", "response_data"),
)
_TEXTS: Final = (
    *("gen_ai.event.content", "content", "message", "message.content", "gen_ai.prompt", "gen_ai.completion"),
    *("text", "tool_calls"),
)

INPUT: Final = Spelling(
    tuple(name for inputs, _ in _INPUTS_AND_OUTPUTS for name in inputs.split()),
    ("gen_ai.prompt.", "llm.input_messages.", "llm.prompts.", "embedding.embeddings."),
    (
        "gen_ai.client.inference.operation.details",
        "gen_ai.system.message",
        "gen_ai.user.message",
        "gen_ai.assistant.message",
        "gen_ai.tool.message",
        "gen_ai.content.prompt",
    ),
    ("gen_ai.input.messages", *_TEXTS),
)
OUTPUT: Final = Spelling(
    tuple(name for _, outputs in _INPUTS_AND_OUTPUTS for name in outputs.split()),
    ("gen_ai.completion.", "llm.output_messages.", "llm.completions.", "llm.choices.", "retrieval.documents."),
    ("gen_ai.client.inference.operation.details", "gen_ai.choice", "gen_ai.content.completion"),
    ("gen_ai.output.messages", *_TEXTS),
)
MODEL: Final = Spelling(
    (
        "gen_ai.request.model",
        "llm.model_name",
        "gen_ai.response.model",
        "embedding.model_name",
        "reranker.model_name",
        "langfuse.observation.model.name",
        "mlflow.llm.model",
        "ai.model.id",
    )
)

CONTENTS: Final = (".content", ".text", ".arguments")
"""Ends of the names of attributes that hold the text of a message, of a part of it, or of a tool call."""

INPUT_TOKENS: Final = (
    "gen_ai.usage.input_tokens",
    "llm.token_count.prompt",
    "gen_ai.usage.prompt_tokens",
    "ai.usage.inputTokens",
    "ai.usage.promptTokens",
)
OUTPUT_TOKENS: Final = (
    "gen_ai.usage.output_tokens",
    "llm.token_count.completion",
    "gen_ai.usage.completion_tokens",
    "ai.usage.outputTokens",
    "ai.usage.completionTokens",
)
COST: Final = ("llm.cost.total", "gen_ai.usage.cost", "operation.cost")
COST_KEYS: Final = ("cost_usd", "cost", "total_cost")
"""Keys of metadata under which people keep the cost of a call."""

SPAN_KIND: Final = "openinference.span.kind"
"""OpenInference's attribute, whose words `kind_of` returns."""


def _kinds(**words: str) -> dict[str, str]:
    """Return the kind that each word means, from the words for each kind."""
    return {word: kind for kind, listed in words.items() for word in listed.split()}


_OF_MLFLOW: Final = _kinds(
    LLM="llm chat_model",
    AGENT="agent",
    TOOL="tool",
    CHAIN="chain workflow task",
    RETRIEVER="retriever",
    EMBEDDING="embedding",
    RERANKER="reranker",
    GUARDRAIL="guardrail",
    EVALUATOR="evaluator",
)

KINDS: Final[tuple[tuple[str, Mapping[str, str]], ...]] = (
    (
        "gen_ai.operation.name",
        _kinds(
            LLM="chat text_completion generate_content",
            EMBEDDING="embeddings",
            TOOL="execute_tool",
            AGENT="invoke_agent create_agent",
            CHAIN="invoke_workflow",
            RETRIEVER="retrieval",
        ),
    ),
    ("llm.request.type", _kinds(LLM="chat completion", EMBEDDING="embedding", RERANKER="rerank")),
    ("traceloop.span.kind", _kinds(CHAIN="workflow task", AGENT="agent", TOOL="tool")),
    (
        "langfuse.observation.type",
        _kinds(
            LLM="generation",
            AGENT="agent",
            TOOL="tool",
            CHAIN="chain",
            RETRIEVER="retriever",
            EVALUATOR="evaluator",
            EMBEDDING="embedding",
            GUARDRAIL="guardrail",
        ),
    ),
    (
        "langwatch.span.type",
        _kinds(
            LLM="llm",
            AGENT="agent",
            TOOL="tool",
            CHAIN="chain workflow component module task",
            RETRIEVER="rag",
            GUARDRAIL="guardrail",
            EVALUATOR="evaluation",
        ),
    ),
    # MLflow writes the word as JSON, in quotes.
    ("mlflow.spanType", {**{f'"{word}"': kind for word, kind in _OF_MLFLOW.items()}, **_OF_MLFLOW}),
    (
        "ai.operationId",
        _kinds(
            # Each of the first four is a whole call with its tools; each of the next four is one call of the model.
            AGENT="ai.generatetext ai.streamtext ai.generateobject ai.streamobject",
            LLM="ai.generatetext.dogenerate ai.streamtext.dostream"
            " ai.generateobject.dogenerate ai.streamobject.dostream",
            CHAIN="ai.embed ai.embedmany",
            EMBEDDING="ai.embed.doembed ai.embedmany.doembed",
            RERANKER="ai.rerank ai.rerank.dorerank",
            TOOL="ai.toolcall",
        ),
    ),
    (
        "langsmith.span.kind",
        _kinds(LLM="llm", TOOL="tool", CHAIN="chain", RETRIEVER="retriever", EMBEDDING="embedding"),
    ),
)
"""Attributes that hold the kind of a span where `SPAN_KIND` does not, and their words in lower case."""

ASKS_A_MODEL: Final = "gen_ai.request.model"
"""A span with this attribute, and without a kind, is a call of a language model."""

MARKED: Final = re.compile(
    r"gen_ai[.]|llm[.]|\bai[.]|traceloop[.]|langfuse[.]|langwatch[.]|mlflow[.]|openinference[.]|[.]model_name"
    r"|request_data|response_data|all_messages|final_result|tool_arguments|tool_response|gcp[.]vertex|genkit:"
    r"|haystack[.]|braintrust[.]|langsmith[.]|embedding[.]|retrieval[.]"
)
"""It matches the names of attributes, or their JSON text, when one of them may be named in this module."""

EVENTS: Final = "gen_ai."
"""The beginning of the names of events."""

_NUMBERS: Final = re.compile("[0-9]+")


def value_of(
    spelling: Spelling,
    attributes: Mapping[str, Json],
    parts: Mapping[str, Json],
    events: Iterable[Mapping[str, Json]] = (),
) -> Json:
    """Return the value from the attributes; None where they have none. JSON text of an object or list is parsed.

    Args:
        spelling: `INPUT`, `OUTPUT` or `MODEL`.
        attributes: The attributes of the span as they are now.
        parts: The attributes that came with the span: messages with an attribute each are read only from these.
        events: The events of the span.
    """
    for name in spelling.names:
        raw = attributes.get(name)
        if raw is not None and raw != "":
            return _value(raw)
    found = [name for name in parts if name.startswith(spelling.stems) and name.endswith(CONTENTS)]
    found.sort(key=lambda name: ([int(digits) for digits in _NUMBERS.findall(name)], name))
    if texts := [text for name in found if (text := _text(parts[name]))]:
        return "\n".join(texts)
    messages = [message for event in events if (message := _message(spelling, event)) is not None]
    return messages[0] if len(messages) == 1 else "\n".join(map(_text, messages)) or None


def kind_of(attributes: Mapping[str, Json]) -> str | None:
    """Return the kind of a span in OpenInference's words (`LLM`, `TOOL`, …), or None."""
    own = attributes.get(SPAN_KIND)
    if isinstance(own, str) and own:
        return own.upper()
    for name, words in KINDS:
        word = attributes.get(name)
        if isinstance(word, str) and (kind := words.get(word.lower())) is not None:
            return kind
    return "LLM" if attributes.get(ASKS_A_MODEL) else None


def text_of(value: Json) -> Json:
    """Return an input or output for a comparison: an object or list as its JSON text, any other value as it is."""
    return json_text(value) if isinstance(value, list | dict) else value


def _value(raw: Json) -> Json:
    if not isinstance(raw, str):
        return raw if isinstance(raw, list | dict) else json_text(raw)
    if raw[0] not in "[{":
        return raw
    try:
        return clean(orjson.loads(raw), [], "", CAPTURE_LIMITS)
    except orjson.JSONDecodeError:
        return raw


def _message(spelling: Spelling, event: Mapping[str, Json]) -> Json:
    attributes = event.get("attributes")
    if event.get("name") not in spelling.events or not isinstance(attributes, dict):
        return None
    raws = (attributes.get(name) for name in spelling.texts)
    return next((_value(raw) for raw in raws if raw is not None and raw != ""), None)


def _text(raw: Json) -> str:
    return raw if isinstance(raw, str) else "" if raw is None else json_text(raw)
