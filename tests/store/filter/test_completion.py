"""What can be written next in a filter, with the parser as the judge."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_metadata.errors import FilterError
from otel_metadata.store.filter.completion import Completion, InUse, completions
from otel_metadata.store.filter.language import parse
from otel_metadata.store.filter.tokens import tokens_of

IN_USE = {
    ("metadata", "span"): ["region", "reason", "user-id", "a.b", "order", "and", 'say "hi"'],
    ("metadata", "trace"): ["plan"],
    ("tag", "span"): ["vip", "it's"],
    ("evaluation", "span"): ["Correctness", "on topic"],
    ("evaluation", "trace"): ["Whole"],
}

FILTERS = [
    "latency_ms > 1000",
    "status_code = 'ERROR' AND metadata.region = 'us-west'",
    "status_code IN ('OK', 'ERROR') OR kind != 'CLIENT'",
    "span_kind = 'LLM' AND NOT model LIKE 'gpt-%'",
    "NOT (name = 'a' OR metadata.region IS NULL)",
    "metadata.region IS NOT NULL AND metadata.\"user-id\" NOT IN ('a', 'b')",
    "metadata.a.b = TRUE AND metadata.reason != FALSE",
    "latency_ms BETWEEN 1 AND 5 AND name = 'x'",
    "metadata.reason NOT BETWEEN 1 AND 5 OR name NOT LIKE 'x%'",
    "'vip' IN tags AND NOT 'new' IN trace.tags",
    "eval.Correctness.label = 'wrong' AND eval.Correctness.score < 0.5",
    "trace.eval.Whole.score >= 1 OR trace.metadata.plan = 'free'",
    "route.metadata.region = 'late' AND late_count > 0",
    "changed_at.metadata.region > '2026-11-01' AND author.metadata.region = 'ada'",
    "start_time >= TIMESTAMP '2026-01-31' AND end_time < '2026-02-01'",
    "5 < latency_ms AND trace.name = 'x' AND user_id = 'u'",
]


def in_use(wanted: InUse) -> Sequence[str]:
    return [name for name in IN_USE.get((wanted.kind, wanted.level), []) if name.startswith(wanted.prefix)]


def at_end(text: str) -> list[Completion]:
    return completions(text, len(text), in_use)


def texts(text: str) -> list[str]:
    return [one.text for one in at_end(text)]


# What a store does not know, or a person has to think of.
FREE = re.compile(r"'(?!ERROR|OK|late|LLM|CLIENT).*|[0-9.]+|TIMESTAMP.*|,|\)|\(")


@pytest.mark.parametrize("text", FILTERS)
def test_the_next_token_of_a_filter_is_among_the_completions(text: str) -> None:
    """At each token of a whole filter: the token itself, or what it begins with."""
    parse(text)
    tokens = tokens_of(text)
    for number, token in enumerate(tokens):
        if FREE.fullmatch(token.text):
            continue
        found = texts(text[: token.start])
        wanted = text[token.start :]
        assert any(wanted.startswith(one) for one in found), (
            text[: token.start],
            number,
            found,
        )


@pytest.mark.parametrize("text", FILTERS)
def test_a_name_is_completed_while_it_is_written(text: str) -> None:
    """With each further character the rest is offered, until the name is whole."""
    for token in tokens_of(text):
        if token.kind != "name" or token.text.startswith('metadata."'):
            continue
        for end in range(token.start + 1, token.start + len(token.text)):
            found = completions(text[:end], end, in_use)
            wanted = token.text
            assert all(one.start == token.start for one in found), (text[:end], found)
            assert any(wanted.startswith(one.text) for one in found), (text[:end], found)


def test_keys_of_the_store_are_spelled_so_that_they_are_read() -> None:
    """In quotes where the language needs them."""
    found = texts("metadata.")
    assert set(found) == {
        "metadata.region", "metadata.reason", 'metadata."user-id"', "metadata.a.b", "metadata.order", 'metadata."and"',
        'metadata."say ""hi"""',
    }  # fmt: skip
    for name in found:
        parse(f"{name} IS NULL")
    assert texts("metadata.re") == ["metadata.region", "metadata.reason"]
    assert texts('metadata."us') == ['metadata."user-id"']
    assert texts("trace.metadata.") == ["trace.metadata.plan"]
    assert texts("eval.") == ["eval.Correctness.", 'eval."on topic".']
    assert texts("eval.Correctness.") == [
        "eval.Correctness.label",
        "eval.Correctness.score",
        "eval.Correctness.explanation",
    ]
    assert texts("name = 'x' AND changed_at.metadata.reg") == ["changed_at.metadata.region"]


def test_values_follow_names_that_have_few() -> None:
    assert texts("status_code = ") == ["'OK'", "'ERROR'", "'UNSET'"]
    assert texts("status_code = 'E") == ["'ERROR'"]
    assert texts("status_code IN ('OK', 'E") == ["'ERROR'"]
    assert texts("route.metadata.a = 'l") == ["'live'", "'late'", "'log'"]
    assert texts("metadata.a = ") == ["TRUE", "FALSE"]
    assert texts("latency_ms > ") == []
    assert texts("name = 'E") == []


def test_operators_fit_the_name() -> None:
    assert "LIKE" not in texts("latency_ms ")
    assert "LIKE" in texts("name ")
    assert texts("route.metadata.a ") == ["=", "!=", "IN", "IS NULL", "IS NOT NULL", "NOT IN"]
    assert texts("latency_ms >") == [">="]
    assert texts("name NOT ") == ["IN", "LIKE", "BETWEEN"]
    assert texts("name IS ") == ["NULL", "NOT NULL"]
    assert texts("name IS NOT ") == ["NULL"]
    assert texts("latency_ms BETWEEN 1 ") == ["AND"]
    assert texts("latency_ms BETWEEN 1 AND ") == []
    assert texts("latency_ms > 5 ") == ["AND", "OR"]
    assert texts("(latency_ms > 5) ") == ["AND", "OR"]
    assert texts("name IN ") == ["("]


def test_a_completion_replaces_the_word_around_the_place() -> None:
    text = "stat = 'OK'"
    found = completions(text, 3, in_use)
    assert {(one.text, one.start, one.end) for one in found} == {
        ("start_time", 0, 4), ("status_code", 0, 4), ("status_message", 0, 4),
    }  # fmt: skip


def test_an_open_quote_is_completed_with_a_tag() -> None:
    assert texts("name = 'a' AND '") == ["'vip' IN tags", "'it''s' IN tags"]
    assert texts("'vip' ") == ["IN", "=", "!=", "<", "<=", ">", ">="]
    assert texts("'vip' IN ") == ["tags", "trace.tags"]


@pytest.mark.parametrize("text", ["name = 'a' ; ", "name == ", "/* ", "name = 1e999 ", "\ud800 "])
def test_behind_what_is_not_understood_nothing_is_offered(text: str) -> None:
    assert at_end(text) == []


@pytest.mark.parametrize("part", ["a", "a.", "'", "x'", 'a."', 'a."b".', "<", "(", " "])
def test_a_long_text_takes_no_more_time_than_its_length(part: str) -> None:
    """Four times the text takes the regular expressions no more than some eight times the steps."""
    short, long = (steps(part * (size // len(part)) + "-") for size in (4_000, 16_000))
    assert long < max(8 * short, 0.2)


def steps(text: str) -> float:
    """Return the seconds of this thread alone, the least of three tries."""

    def once() -> float:
        start = time.thread_time()
        at_end(text)
        return time.thread_time() - start

    return min(once() for _ in range(3))


@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(
                [
                    "name",
                    "metadata.",
                    "metadata.a",
                    "=",
                    "'x'",
                    "'",
                    "(",
                    ")",
                    ",",
                    "AND",
                    "OR",
                    "NOT",
                    "IN",
                    "IS",
                    "NULL",
                    "BETWEEN",
                    "LIKE",
                    "5",
                    "<",
                    "tags",
                    "eval.",
                    '"',
                    ".",
                ]
            ),
            max_size=9,
        ).map(" ".join),
    ),
    st.integers(min_value=0, max_value=40),
)
def test_any_text_has_completions_that_begin_as_it_is_written(text: str, position: int) -> None:
    """None raises, and each replaces what surrounds the place."""
    position = min(position, len(text))
    for one in completions(text, position, in_use):
        assert one.start <= position <= one.end
        assert one.text.lower().startswith(text[one.start : position].lower())
        try:
            tokens_of(one.text.rstrip("."))
        except FilterError as error:
            raise AssertionError(one) from error
