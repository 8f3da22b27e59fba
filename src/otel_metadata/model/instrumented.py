"""What instrumentors say of a span's input, output, model and kind, each in attributes of its own.

The one reading of these attributes: a record shows it, and a filter looks for it. It is made when a span is read, so it
holds for spans that were stored long ago. What was said by a field (`input.value`, an update) stands over it.

Sources: OpenTelemetry semantic conventions for generative AI 1.37; OpenInference semantic conventions, "LLM Spans";
OpenLLMetry, `opentelemetry.semconv_ai`; what the SDKs of Langfuse 5, LangWatch and MLflow set on a span.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import orjson

from otel_metadata.model.merge import Json, json_text
from otel_metadata.model.value import CAPTURE_LIMITS, clean

__all__ = [
    "CONTENTS",
    "INPUT",
    "KINDS",
    "MARKED",
    "MODEL",
    "OUTPUT",
    "SPAN_KIND",
    "Spelling",
    "kind_of",
    "text_of",
    "value_of",
]


class Spelling(NamedTuple):
    """Where instrumentors say one thing.

    Attributes:
        names: Attributes that say all of it; the first that is there and not empty counts.
        stems: Where none is: what attributes begin with that say one message or part each; they end as in `CONTENTS`.
    """

    names: tuple[str, ...]
    stems: tuple[str, ...] = ()


INPUT: Final = Spelling(
    (
        "gen_ai.input.messages",
        "gen_ai.prompt",
        "gen_ai.tool.call.arguments",
        "traceloop.entity.input",
        "langfuse.observation.input",
        "langwatch.input",
        "mlflow.spanInputs",
    ),
    ("gen_ai.prompt.", "llm.input_messages.", "llm.prompts."),
)
OUTPUT: Final = Spelling(
    (
        "gen_ai.output.messages",
        "gen_ai.completion",
        "gen_ai.tool.call.result",
        "traceloop.entity.output",
        "langfuse.observation.output",
        "langwatch.output",
        "mlflow.spanOutputs",
    ),
    ("gen_ai.completion.", "llm.output_messages.", "llm.completions."),
)
MODEL: Final = Spelling(
    (
        "gen_ai.request.model",
        "llm.model_name",
        "gen_ai.response.model",
        "embedding.model_name",
        "reranker.model_name",
        "langfuse.observation.model.name",
    )
)

CONTENTS: Final = (".content", ".text", ".arguments")
"""How the names of attributes end that hold the text of a message, of a part of it, or of a call of a tool."""

SPAN_KIND: Final = "openinference.span.kind"
"""The attribute whose words `kind_of` speaks."""

KINDS: Final[tuple[tuple[str, Mapping[str, str]], ...]] = (
    (
        "gen_ai.operation.name",
        {
            "chat": "LLM",
            "text_completion": "LLM",
            "generate_content": "LLM",
            "embeddings": "EMBEDDING",
            "execute_tool": "TOOL",
            "invoke_agent": "AGENT",
            "create_agent": "AGENT",
            "invoke_workflow": "CHAIN",
            "retrieval": "RETRIEVER",
        },
    ),
    (
        "llm.request.type",
        {"chat": "LLM", "completion": "LLM", "embedding": "EMBEDDING", "rerank": "RERANKER"},
    ),
    ("traceloop.span.kind", {"workflow": "CHAIN", "task": "CHAIN", "agent": "AGENT", "tool": "TOOL"}),
    (
        "langfuse.observation.type",
        {
            "generation": "LLM",
            "agent": "AGENT",
            "tool": "TOOL",
            "chain": "CHAIN",
            "retriever": "RETRIEVER",
            "evaluator": "EVALUATOR",
            "embedding": "EMBEDDING",
            "guardrail": "GUARDRAIL",
        },
    ),
    (
        "langwatch.span.type",
        {
            "llm": "LLM",
            "agent": "AGENT",
            "tool": "TOOL",
            "chain": "CHAIN",
            "rag": "RETRIEVER",
            "guardrail": "GUARDRAIL",
            "evaluation": "EVALUATOR",
        },
    ),
    (
        "mlflow.spanType",  # as JSON
        {
            '"llm"': "LLM",
            '"chat_model"': "LLM",
            '"agent"': "AGENT",
            '"tool"': "TOOL",
            '"chain"': "CHAIN",
            '"retriever"': "RETRIEVER",
            '"embedding"': "EMBEDDING",
            '"reranker"': "RERANKER",
        },
    ),
)
"""Attributes that say the kind of a span where `SPAN_KIND` does not, and what their words mean; in lower case."""

MARKED: Final = re.compile(
    "gen_ai[.]|llm[.]|traceloop[.]|langfuse[.]|langwatch[.]|mlflow[.]|openinference[.]|[.]model_name"
)
"""Found in the names of attributes, or their JSON text, when one of them may be among those named here."""

_NUMBERS: Final = re.compile("[0-9]+")


def value_of(spelling: Spelling, attributes: Mapping[str, Json], parts: Mapping[str, Json]) -> Json:
    """Return what attributes say: a text, an object or list where the text is one in JSON; None where they say nothing.

    Args:
        spelling: Which of the three.
        attributes: Of the span, as they are now.
        parts: Attributes that came with the span: messages that have an attribute each are read from them alone.
    """
    for name in spelling.names:
        raw = attributes.get(name)
        if raw is not None and raw != "":
            return _value(raw)
    found = [name for name in parts if name.startswith(spelling.stems) and name.endswith(CONTENTS)]
    if not found:
        return None
    found.sort(key=lambda name: ([int(digits) for digits in _NUMBERS.findall(name)], name))
    return "\n".join(text for name in found if (text := _text(parts[name]))) or None


def kind_of(attributes: Mapping[str, Json]) -> str | None:
    """Return the kind of a span in OpenInference's words (`LLM`, `TOOL`, …), or None."""
    own = attributes.get(SPAN_KIND)
    if isinstance(own, str) and own:
        return own.upper()
    for name, words in KINDS:
        said = attributes.get(name)
        if isinstance(said, str) and (kind := words.get(said.lower())) is not None:
            return kind
    return None


def text_of(value: Json) -> Json:
    """Return what an input or output is compared as: an object or list as its JSON text, all else as it is."""
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


def _text(raw: Json) -> str:
    return raw if isinstance(raw, str) else "" if raw is None else json_text(raw)
