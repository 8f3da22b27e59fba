"""What is particular to the `langfuse` dialect; what it has in common with others is in the golden table."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanContext
from tests.dialects.facts import FACTS
from tests.dialects.test_golden import Span

from otel_metadata.backends.langfuse.dialect import LangfuseDialect

REMOTE = SpanContext(1, 2, is_remote=True)


@pytest.mark.parametrize("fact", ["trace metadata", "trace name", "trace input", "trace output"])
def test_what_counts_on_the_root_only_leaves_a_local_root_as_a_patch(fact):
    """A local root whose parent is in another process is no root in Langfuse: what it said would be lost there."""
    encoded = LangfuseDialect().encode(Span(parent=REMOTE), FACTS[fact], is_local_root=True)
    assert (dict(encoded.attributes), encoded.remainder) == ({}, FACTS[fact])


@pytest.mark.parametrize("fact", ["trace user", "trace session", "trace tags"])
def test_what_counts_on_any_span_stays_on_a_local_root(fact):
    """User, session and tags are taken from any span of the trace."""
    assert not LangfuseDialect().encode(Span(parent=REMOTE), FACTS[fact], is_local_root=True).remainder


@pytest.mark.parametrize(("value", "expected"), [("x", '"x"'), ("123", '"123"'), (None, "null"), ([1], "[1]")])
def test_text_is_in_quotes_where_the_server_wants_json(value, expected):
    """With `json_strings` a text that looks like a number stays a text."""
    fields = {("span", "metadata", "k"): (value, (1, 1))}
    encoded = LangfuseDialect(json_strings=True).encode(Span(), fields, is_local_root=True)
    assert encoded.attributes == {"langfuse.observation.metadata.k": expected}


def test_tags_join_those_of_the_application():
    """What the application has set as `langfuse.trace.tags` by itself stays, first."""
    span = Span({"langfuse.trace.tags": ("own", "one"), "trace.tags": ("one",)})
    encoded = LangfuseDialect().encode(span, FACTS["trace tags"], is_local_root=True)
    assert encoded.attributes == {"langfuse.trace.tags": ["own", "one", "two"]}


def test_an_empty_key_leaves_as_a_patch():
    """The server drops an attribute whose key ends with the prefix."""
    fields = {("span", "metadata", ""): (1, (1, 1))}
    assert LangfuseDialect().encode(Span(), fields, is_local_root=True).remainder == fields


def test_a_key_of_the_span_that_the_trace_has_too_leaves_as_a_patch_as_well():
    """The root has one metadata for both in Langfuse 4, and there the trace's value hides the span's."""
    spans, traces = ({(level, "metadata", key): (value, (1, 1)) for key, value in values.items()} for level, values in (
        ("span", {"k": "mine", "same": 1, "own": 2}), ("trace", {"k": "theirs", "same": 1}),
    ))  # fmt: skip
    root = LangfuseDialect().encode(Span({"metadata.k": "mine"}), {**spans, **traces}, is_local_root=True)
    assert root.attributes["langfuse.observation.metadata.k"] == "mine"
    assert root.attributes["langfuse.trace.metadata.k"] == "theirs"
    assert "metadata.k" not in root.attributes
    assert root.remainder == {("span", "metadata", "k"): ("mine", (1, 1))}
    local = LangfuseDialect().encode(Span(parent=REMOTE), {**spans, **traces}, is_local_root=True)
    assert local.remainder == traces
