"""The filter language: which texts are filters, what each says, and where an error points."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from tests.store.conditions import conditions, spelled
from tests.strategies import keys, texts

from otel_metadata.errors import FilterError, OtelMetadataError
from otel_metadata.model.condition import (
    COLUMN_KINDS,
    ORIGINS,
    And,
    Between,
    Compare,
    Condition,
    HasTag,
    In,
    IsNull,
    Like,
    Not,
    Or,
    Subject,
    SubjectKind,
)
from otel_metadata.model.merge import Level
from otel_metadata.model.times import nanoseconds
from otel_metadata.store.filter.language import MAX_LEVELS, parse
from otel_metadata.store.filter.names import LISTED
from otel_metadata.store.filter.text import text_of
from otel_metadata.store.filter.tokens import MAX_BYTES

PAGE = Path(__file__).parents[3] / "docs" / "filters.md"

NAME = Subject("span", "name")
LATENCY = Subject("span", "latency_ms")
START = Subject("span", "start_time")
A, B, C = (Compare(Subject("span", "metadata", key), "=", 1) for key in "abc")
TEN = 1_769_853_600_000_000_000
"""2026-01-31T10:00:00Z."""


def metadata(key: str) -> Subject:
    return Subject("span", "metadata", key)


WITH_ORIGIN: dict[str, tuple[Level, SubjectKind, str]] = {
    "metadata.thumbs": ("span", "metadata", "thumbs"),
    'metadata."a b".changed_at': ("span", "metadata", "a b.changed_at"),
    "trace.metadata.plan": ("trace", "metadata", "plan"),
    "attributes.http.route": ("span", "attribute", "http.route"),
    "attributes.metadata.region": ("span", "metadata", "region"),
    "attributes.user.id": ("span", "user_id", ""),
    "name": ("span", "name", ""),
    "trace.name": ("trace", "name", ""),
    "trace.output": ("trace", "output", ""),
    "status_code": ("span", "status", ""),
    "session_id": ("span", "session_id", ""),
    "tags.vip": ("span", "tag", "vip"),
    'trace.tags."a b".c': ("trace", "tag", "a b.c"),
    "eval.Correctness": ("span", "evaluation", "Correctness"),
    "eval.Correctness.label": ("span", "evaluation", "Correctness"),
    "eval.Correctness.text": ("span", "evaluation", "Correctness.text"),
    'eval."Correctness.label"': ("span", "evaluation", "Correctness.label"),
    "eval.label": ("span", "evaluation", "label"),
    "trace.annotation.quality": ("trace", "annotation", "quality"),
    "trace.annotation.quality.text": ("trace", "annotation", "quality"),
}

NAMES = {
    **{name: Subject("span", name) for name in COLUMN_KINDS},  # type: ignore[arg-type]
    "name": NAME,
    "status_code": Subject("span", "status"),
    "status_message": Subject("span", "status_message"),
    "user_id": Subject("span", "user_id"),
    "session_id": Subject("span", "session_id"),
    "input": Subject("span", "input"),
    "output": Subject("span", "output"),
    "trace.name": Subject("trace", "name"),
    "trace.input": Subject("trace", "input"),
    "trace.output": Subject("trace", "output"),
    "context.trace_id": Subject("span", "trace_id"),
    "context.span_id": Subject("span", "span_id"),
    "span_kind": Subject("span", "span_kind"),
    "late_count": Subject("span", "late_count"),
    "trace.late_count": Subject("trace", "late_count"),
    "model": Subject("span", "model"),
    "metadata.region": metadata("region"),
    "metadata.a.b.c.d.e.f": metadata("a.b.c.d.e.f"),
    "metadata.messages.0.role": metadata("messages.0.role"),
    "metadata.2nd": metadata("2nd"),
    "metadata.order": metadata("order"),
    "metadata.名": metadata("名"),
    'metadata."user-id"': metadata("user-id"),
    'metadata."a.b"': metadata("a.b"),
    'metadata."say ""hi"""': metadata('say "hi"'),
    'metadata."not"': metadata("not"),
    'metadata.a."b c".d': metadata("a.b c.d"),
    "metadata.Region": metadata("Region"),
    "metadata.metadata.a": metadata("metadata.a"),
    "trace.metadata.plan": Subject("trace", "metadata", "plan"),
    # A word about the origin comes first. Behind the level it is part of a key.
    **{
        name: metadata(name.removeprefix("metadata."))
        for origin in ORIGINS
        for name in (f"metadata.thumbs.{origin}", f"metadata.{origin}", f"metadata.{origin}.metadata.thumbs")
    },
    **{
        f"{origin}.{name}": Subject(level, kind, key, origin)
        for origin in ORIGINS
        for name, (level, kind, key) in WITH_ORIGIN.items()
    },
    "attributes.llm.model_name": Subject("span", "attribute", "llm.model_name"),
    "attributes.metadata": Subject("span", "attribute", "metadata"),
    "attributes.metadata.region": metadata("region"),
    'attributes."metadata.region"': metadata("region"),
    "attributes.input.value": Subject("span", "input"),
    "attributes.output.value": Subject("span", "output"),
    "attributes.user.id": Subject("span", "user_id"),
    "attributes.session.id": Subject("span", "session_id"),
    "resource.service.name": Subject("span", "resource", "service.name"),
    "eval.Correctness.label": Subject("span", "evaluation", "Correctness", "label"),
    "eval.Correctness.score": Subject("span", "evaluation", "Correctness", "score"),
    "eval.Correctness.explanation": Subject("span", "evaluation", "Correctness", "explanation"),
    "eval.rag.v2.label": Subject("span", "evaluation", "rag.v2", "label"),
    'eval."Is it true?".label': Subject("span", "evaluation", "Is it true?", "label"),
    "eval.label.label": Subject("span", "evaluation", "label", "label"),
    "trace.eval.Goal.score": Subject("trace", "evaluation", "Goal", "score"),
    "annotation.quality.label": Subject("span", "annotation", "quality", "label"),
    "annotation.quality.score": Subject("span", "annotation", "quality", "score"),
    "annotation.quality.text": Subject("span", "annotation", "quality", "text"),
    "trace.annotation.quality.text": Subject("trace", "annotation", "quality", "text"),
}

UNDERSTOOD: dict[str, Condition] = {
    "name = 'a'": Compare(NAME, "=", "a"),
    "'a' = name": Compare(NAME, "=", "a"),
    "name <> 'a'": Compare(NAME, "!=", "a"),
    "name != 'a'": Compare(NAME, "!=", "a"),
    "name = 'it''s'": Compare(NAME, "=", "it's"),
    "name = ''": Compare(NAME, "=", ""),
    # What is stored in one case only is found in either; a name is not.
    "name = 'Error'": Compare(NAME, "=", "Error"),
    "status_code = 'error'": Compare(Subject("span", "status"), "=", "ERROR"),
    "status_code IN ('ok', 'Unset')": In(Subject("span", "status"), ("OK", "UNSET")),
    "kind = 'server'": Compare(Subject("span", "kind"), "=", "SERVER"),
    "span_id = '00F067AA0BA902B7'": Compare(Subject("span", "span_id"), "=", "00f067aa0ba902b7"),
    "context.trace_id LIKE '0AF7%'": Like(Subject("span", "trace_id"), "0af7%"),
    "parent_id BETWEEN 'A' AND 'B'": Between(Subject("span", "parent_id"), "a", "b"),
    "name = 'a -- b /* c */ ; \\ \"d\"'": Compare(NAME, "=", 'a -- b /* c */ ; \\ "d"'),
    "name = 'a\nb'": Compare(NAME, "=", "a\nb"),
    "\n name\t=\u00a0'é\N{GRINNING FACE}' ": Compare(NAME, "=", "é\N{GRINNING FACE}"),
    "name='a'and name='b'": And((Compare(NAME, "=", "a"), Compare(NAME, "=", "b"))),
    "latency_ms > 1000": Compare(LATENCY, ">", 1000),
    "1000 < latency_ms": Compare(LATENCY, ">", 1000),
    "1000 >= latency_ms": Compare(LATENCY, "<=", 1000),
    "latency_ms >= -.5": Compare(LATENCY, ">=", -0.5),
    "latency_ms >= - 5.": Compare(LATENCY, ">=", -5.0),
    "latency_ms < +1E-3": Compare(LATENCY, "<", 0.001),
    "latency_ms <= 9223372036854775807": Compare(LATENCY, "<=", (1 << 63) - 1),
    "latency_ms <= -9223372036854775808": Compare(LATENCY, "<=", -(1 << 63)),
    "metadata.ok = TRUE": Compare(metadata("ok"), "=", True),
    "metadata.ok != false": Compare(metadata("ok"), "!=", False),
    "False = metadata.ok": Compare(metadata("ok"), "=", False),
    "metadata.n = 5.0": Compare(metadata("n"), "=", 5.0),
    "status_code = 404": Compare(Subject("span", "status"), "=", 404),
    "span_id = 'no hex'": Compare(Subject("span", "span_id"), "=", "no hex"),
    "name IN ('a')": In(NAME, ("a",)),
    "name in ('a','b' , 'c')": In(NAME, ("a", "b", "c")),
    "name NOT IN ('a')": Not(In(NAME, ("a",))),
    "metadata.n IN (1, 2.5, -3)": In(metadata("n"), (1, 2.5, -3)),
    "metadata.n IN (TRUE)": In(metadata("n"), (True,)),
    "'vip' IN tags": HasTag("span", "vip"),
    "'vip' NOT IN trace.tags": Not(HasTag("trace", "vip")),
    "name LIKE 'a_%'": Like(NAME, "a_%"),
    "name NOT LIKE 'a%'": Not(Like(NAME, "a%")),
    "NOT name NOT LIKE 'a%'": Not(Not(Like(NAME, "a%"))),
    "name IS NULL": IsNull(NAME),
    "start_time is not null": Not(IsNull(START)),
    "latency_ms BETWEEN 1 AND 2.5": Between(LATENCY, 1, 2.5),
    "latency_ms NOT BETWEEN -2 AND -1": Not(Between(LATENCY, -2, -1)),
    "metadata.a BETWEEN 'a' AND 'b'": Between(metadata("a"), "a", "b"),
    "start_time >= '2026-01-31'": Compare(START, ">=", TEN - 36_000_000_000_000),
    "start_time >= TIMESTAMP '2026-01-31T10:00'": Compare(START, ">=", TEN),
    "timestamp'2026-01-31 10:00:00.000000001Z' < end_time": Compare(Subject("span", "end_time"), ">", TEN + 1),
    "start_time IN ('2026-01-31T10:00:00Z')": In(START, (TEN,)),
    "metadata.day = '2026-01-31'": Compare(metadata("day"), "=", "2026-01-31"),
    # What binds what.
    "metadata.a = 1 AND metadata.b = 1 AND metadata.c = 1": And((A, B, C)),
    "metadata.a = 1 AND (metadata.b = 1 AND metadata.c = 1)": And((A, B, C)),
    "(metadata.a = 1 OR metadata.b = 1) OR metadata.c = 1": Or((A, B, C)),
    "metadata.a = 1 OR metadata.b = 1 AND metadata.c = 1": Or((A, And((B, C)))),
    "metadata.a = 1 AND metadata.b = 1 OR metadata.c = 1": Or((And((A, B)), C)),
    "(metadata.a = 1 OR metadata.b = 1) AND metadata.c = 1": And((Or((A, B)), C)),
    "NOT metadata.a = 1 AND metadata.b = 1": And((Not(A), B)),
    "NOT (metadata.a = 1 AND metadata.b = 1)": Not(And((A, B))),
    "NOT NOT metadata.a = 1": Not(Not(A)),
    "metadata.a = 1 AND NOT metadata.b = 1": And((A, Not(B))),
    "latency_ms BETWEEN 1 AND 2 AND metadata.a = 1": And((Between(LATENCY, 1, 2), A)),
    "NOT latency_ms BETWEEN 1 AND 2 OR metadata.a = 1": Or((Not(Between(LATENCY, 1, 2)), A)),
    "latency_ms NOT BETWEEN 1 AND 2 AND metadata.a = 1": And((Not(Between(LATENCY, 1, 2)), A)),
    "latency_ms BETWEEN 1 AND 2 OR NOT NOT metadata.a = 1": Or((Between(LATENCY, 1, 2), Not(Not(A)))),
    "NOT name IS NOT NULL AND metadata.a = 1 OR metadata.b = 1": Or((And((Not(Not(IsNull(NAME))), A)), B)),
    "metadata.a = 1 OR metadata.b = 1 AND NOT metadata.c = 1 OR name IS NULL": Or((A, And((B, Not(C))), IsNull(NAME))),
    "((metadata.a = 1))": A,
}

# The caret stands under the character after `^`.
REFUSED: dict[str, str] = {
    # Nothing, or not all.
    "^": "found nothing",
    "^   ": "found nothing",
    "name =^": "found the end; expected a name, a literal or a condition after `=`",
    "name = 'a' AND^": "after `AND`",
    "(name = 'a' AND^) OR name = 'b'": "found the end",
    "name NOT IN^": "after `IN`",
    "^= 5": "found `=`; expected a name, a literal or a condition before it",
    "^AND name = 'a'": "found `AND`",
    "name = 'a' OR ^OR name = 'b'": "found `OR`",
    "^name": "found `name` by itself; expected a condition",
    "NOT ^metadata.ok": "found `metadata.ok` by itself",
    "metadata.a = 1 AND ^TRUE": "found `TRUE` by itself",
    "(^name)": "found `name`; expected a literal in a list",
    "metadata.a = 1 AND ^(1, 2)": "found `(` by itself",
    "^tags": "found `tags` by itself",
    # Parentheses, lists, quotes.
    "^(name = 'a'": "expected a ) that closes it",
    "name = 'a'^)": "expected a ( before it",
    "name IN (^)": "a list of literals",
    "name IN ('a'^,)": "expected a literal after it",
    "name IN (^,'a')": "expected a literal in a list",
    "name IN ('a', ^= 'b')": "found `=`; expected a literal in a list",
    "name IN ('a' ^'b')": "found `'b'`; expected an operator",
    "name IN ('a' ^= 'b', 'c')": "found `=`; expected a comma between two literals",
    "name IN (^name, 'a')": "found `name`; expected a literal",
    "name IN ^'a'": "expected a list of literals in parentheses",
    "name IN ^name": "expected a list of literals in parentheses",
    "name = 'a'^, name = 'b'": "expected commas in a list",
    "(^name, name) = ('a', 'b')": "expected a literal in a list",
    "name = ^('a')": "expected a literal, without parentheses",
    "^(name = 'a') = 'b'": "expected a name, without parentheses",
    "^(name = 'a') IS NULL": "expected a name, without parentheses",
    "name = ^'a": "expected a closing '",
    "name = ^'a''": "expected a closing '",
    'metadata^."a = 1': 'expected a closing "',
    'name = ^"a"': "expected single quotes around a text",
    '^"name" = 1': "expected single quotes around a text",
    'metadata.^"" = 1': "found an empty key",
    # Names.
    "^region = 'x'": "found `region`; expected metadata.region, perhaps, or one of trace_id",
    "^status_cod = 'x'": "expected status_code, perhaps",
    "^NAME = 'x'": "expected name, perhaps",
    "^metdata.region = 'x'": "expected metadata.region, perhaps",
    "^Attributes.a.b = 'x'": "expected attributes.a.b, perhaps",
    "^qqq.zzz = 'x'": "found `qqq`; expected one of trace_id",
    "name = ^answer": "expected 'answer' in single quotes if it is a text, or metadata.answer, perhaps",
    "name LIKE ^gpt": "expected 'gpt' in single quotes if it is a text",
    "^trace = 'x'": "found `trace`",
    "trace.^nam = 'x'": "expected trace.name, perhaps",
    "trace.^user_id = 'x'": "found `user_id`",
    "trace.^resource.a = 'x'": "found `resource`",
    "trace.^attributes.a = 'x'": "found `attributes`",
    "^metadata = 'x'": "expected metadata.<key>",
    "trace.^metadata IS NULL": "expected metadata.<key>",
    "^eval.Correctness = 'x'": "expected eval.<Name> and then label, score or explanation",
    "eval.Correctness.^lable = 'x'": "found `lable`; expected label, score or explanation",
    "trace.eval.Goal.^text = 'x'": "found `text`; expected label, score or explanation",
    "annotation.q.^explanation = 'x'": "expected label, score or text",
    "metadata.^not = 1": 'found `not`, a word of SQL; expected it in double quotes as a key: "not"',
    "metadata.a.^Null = 1": '"Null"',
    "metadata.^timestamp = 1": '"timestamp"',
    "metadata^. = 1": "a key with other characters in double quotes",
    "metadata^..a = 1": "a name before the dot and a key after it",
    "metadata ^.a = 1": "without spaces",
    "metadata.user^-id = 1": 'a key with other characters goes in double quotes: metadata."user-id"',
    "metadata.a^#b = 1": "goes in double quotes",
    "^tags = 'vip'": "expected tags on the right of IN only: 'vip' IN tags",
    "^tags IS NULL": "tags on the right of IN only",
    "^5 IN tags": "expected a tag as text: 'vip' IN tags",
    "^name IN trace.tags": "expected a tag as text: 'vip' IN trace.tags",
    "^TIMESTAMP '2026-01-31' IN tags": "expected a tag as text",
    # The origin of a value.
    "^changed_at > '2026-11-01'": "expected changed_at.<name>, such as changed_at.metadata.<key>; or metadata.",
    "changed_at.^thumbs IS NULL": "found `thumbs`; expected metadata.thumbs, perhaps",
    "^changed.metadata.thumbs IS NULL": "expected changed_at.metadata.thumbs, perhaps",
    "changed_at.^metadata IS NULL": "expected metadata.<key>",
    "changed_at.trace.^metadata IS NULL": "expected metadata.<key>",
    "changed_at.^trace IS NULL": "found `trace`; expected",
    "changed_at.^tags IS NULL": "expected tags.<tag>: each tag has an origin of its own",
    "changed_at.trace.^tags IS NULL": "expected trace.tags.<tag>",
    "changed_at.^eval IS NULL": "expected eval.<Name>",
    "changed_at.^start_time IS NULL": "such as metadata.<key>: start_time has no origin of its own",
    "changed_at.^resource.a IS NULL": "resource.a has no origin of its own",
    "changed_at.^model IS NULL": "model has no origin of its own",
    "changed_at.^changed_at.metadata.a IS NULL": "changed_at.metadata.a has no origin of its own",
    "trace.^changed_at.metadata.a IS NULL": "expected changed_at.trace.metadata.a: changed_at comes first",
    "trace.^changed_at IS NULL": "expected changed_at.trace.…",
    "changed_at.metadata.thumbs > ^'yesterday'": "found `'yesterday'`; expected a time for changed_at.metadata.thumbs",
    "changed_at.metadata.thumbs > ^1762000000000000000": "expected a time for changed_at.metadata.thumbs",
    "changed_at.tags.vip IN ('2026-11-01', ^'2026-11-31')": "expected a time for changed_at.tags.vip",
    "changed_at.eval.C.score = ^0.5": "expected a time for changed_at.eval.C.score",
    "^changed_at.name LIKE '2026%'": "this is a time",
    "^route = 'late'": "expected route.<name>, such as route.metadata.<key>; or metadata.route, a key",
    "^rout.metadata.a = 'late'": "expected route.metadata.a, perhaps",
    "trace.^author.metadata.a = 'ada'": "expected author.trace.metadata.a: author comes first",
    "author.^route.metadata.a = 'ada'": "route.metadata.a has no origin of its own",
    "route.^late_count = 'late'": "late_count has no origin of its own",
    "route.metadata.a = ^'lat'": "found `'lat'`; expected a route: 'live', 'in_flight', 'late', 'import' or 'log'",
    "route.metadata.a = ^late": "expected 'late' in single quotes",
    "route.metadata.a IN ('late', ^'never')": "found `'never'`; expected a route: 'live'",
    "route.metadata.a = ^5": "expected a route: 'live'",
    "route.metadata.a = ^TRUE": "expected a route: 'live'",
    "route.metadata.a = ^TIMESTAMP '2026-01-31'": "expected a route: 'live'",
    "route.metadata.a ^> 'late'": "found `>`; expected =, != or IN with a route, which is 'live', 'in_flight', 'late'",
    "'late'  ^<= route.tags.vip": "found `<=`; expected =, != or IN with a route",
    "route.metadata.a ^LIKE 'l%'": "found `LIKE`; expected =, != or IN with a route",
    "route.metadata.a not\t^like 'l%'": "found `LIKE`; expected =, != or IN with a route",
    "route.metadata.a ^BETWEEN 'a' AND 'b'": "found `BETWEEN`; expected =, != or IN with a route",
    "author.metadata.a = ^5": "expected a text in single quotes: author.metadata.a is compared with nothing else",
    "late_count > ^'0'": "expected a number: late_count is compared with nothing else",
    "trace.late_count = ^TRUE": "expected a number",
    "^late_count LIKE '1%'": "this is a number",
    # Types.
    "latency_ms > ^'1000'": "expected a number: latency_ms is compared with nothing else",
    "^'1000' < latency_ms": "expected a number",
    "latency_ms = ^TRUE": "expected a number",
    "eval.X.score = ^'a'": "expected a number",
    "name = ^5": "expected a text in single quotes",
    "status_code = ^TRUE": "expected a text in single quotes or a number",
    "start_time > ^5": "expected a time for start_time",
    "start_time > ^'yesterday'": "expected a time for start_time",
    "start_time BETWEEN '2026-01-31' AND ^'2026-02-30'": "expected a time for start_time",
    "start_time > ^TIMESTAMP 'now'": "expected a time for start_time",
    "start_time > ^TIMESTAMP 5": "expected a time in quotes after it",
    "name = ^TIMESTAMP": "expected a time in quotes after it",
    "metadata.day = ^TIMESTAMP '2026-01-31'": "expected no time",
    "metadata.ok < ^TRUE": "TRUE and FALSE have no order",
    "metadata.ok BETWEEN ^FALSE AND TRUE": "TRUE and FALSE have no order",
    "metadata.a BETWEEN 1 AND ^'b'": "expected a number as `1` is",
    "metadata.a IN ('a', 'b', ^1)": "expected a text as `'a'` is",
    "metadata.a IN (1, ^TRUE)": "expected a number as `1` is",
    "^latency_ms LIKE '1%'": "expected the name of a text before LIKE; this is a number",
    "^start_time LIKE '2026%'": "this is a time",
    "metadata.a LIKE ^5": "expected a pattern in single quotes",
    "^'a' LIKE name": "expected a name on the left",
    "^1 BETWEEN 0 AND latency_ms": "expected a name on the left",
    "latency_ms BETWEEN 0 AND ^latency_ms": "found `latency_ms`; expected a literal",
    "^1 = 1": "expected a name on the left",
    "^5 IN (5)": "expected a name on the left",
    "^'a' IS NULL": "expected a name on the left",
    "name = ^name": "found `name`; expected a literal",
    "name = ^tags": "found `tags`; expected a literal",
    "metadata.a = ^9223372036854775808": "found an integer beyond 64 bits",
    "metadata.a = ^-9223372036854775809": "found an integer beyond 64 bits",
    "metadata.a = ^1e999": "expected a number of at most",
    "metadata.a = ^1_000": "expected a number such as",
    "metadata.a = ^0x1F": "expected a number such as",
    "metadata.a = ^1.5.2": "expected a number such as",
    "metadata.a = ^NULL": "expected IS NULL or IS NOT NULL",
    "metadata.a IN (1, ^NULL)": "found `NULL`",
    "^NULL IS NULL": "found `NULL`",
    "metadata.a ^IS TRUE": "expected IS NULL or IS NOT NULL",
    "metadata.a ^IS NOT 5": "expected IS NULL or IS NOT NULL",
    "metadata.a ^IS": "expected IS NULL or IS NOT NULL",
    "name ^NOT 'a'": "expected NOT IN, NOT LIKE or NOT BETWEEN",
    "name = 'a' ^NOT name = 'b'": "AND NOT, OR NOT",
    # What SQL has and a filter has not.
    "name = 'a' ^name": "expected an operator before it, or the end; they are =, !=, <, <=, >, >=, AND, OR",
    "name = 'a' ^AS": "expected an operator before it, or the end; they are =, !=, <, <=, >, >=, AND, OR",
    "name ^ILIKE 'a'": "expected an operator before it, or the end; they are =, !=, <, <=, >, >=, AND, OR",
    "name ^REGEXP 'a'": "AND, OR, NOT, IN, LIKE, BETWEEN and IS NULL",
    "name ^CONTAINS 'a'": "AND, OR, NOT, IN, LIKE, BETWEEN and IS NULL",
    "name ^~ 'a'": "and the operators =, !=, <, <=, >, >=, AND, OR, NOT, IN, LIKE, BETWEEN and IS NULL",
    "^lower(name) = 'a'": "found `lower(`; expected no functions",
    "^COUNT (name) > 1": "expected no functions",
    "name ^('a')": "expected an operator, or IN before a list",
    "name = 'a' ^(name = 'b')": "found `(`; expected an operator",
    "name = ^ANY ('a')": "expected no functions",
    "^SELECT name": "found `SELECT`",
    "name IN (^SELECT 1)": "found `SELECT`",
    "^CASE WHEN name = 'a' THEN 1 END = 1": "found `CASE`",
    "name = 'a'^; DROP TABLE spans": "expected one expression",
    "name = 'a'^;": "expected one expression",
    "name = 'a' ^-- b": "expected a filter without comments",
    "^/* b */ name = 'a'": "expected a filter without comments",
    "name ^== 'a'": "expected =",
    "name ^<=> 'a'": "expected = or IS NULL",
    "name = 'a' ^|| 'b'": "expected OR",
    "name = 'a' ^&& name = 'b'": "expected AND",
    "^!name = 'a'": "expected NOT, or !=",
    "name = ^?": "a filter has no parameters",
    "name = ^:x": "a filter has no parameters",
    "name = ^@x": "a filter has no parameters",
    "name = ^$1": "a filter has no parameters",
    "name^::text = 'a'": "no casts",
    "^* = 1": "expected a name or a literal",
    "metadata^[0] = 1": "expected ( before a list",
    "^`name` = 1": "expected double quotes around a key",
    "name = ^{x}": "expected names, literals, parentheses, and the operators =, !=,",
    "metadata.a = 1 ^+ 2": "there is no arithmetic",
    "metadata.a ^-5 > 1": "there is no arithmetic",
    "metadata.a = ^- metadata.b": "there is no arithmetic",
    "metadata.a = ^1 = 2": "expected one of these between AND, OR and the ends",
    "name BETWEEN 'a' ^OR 'b'": "expected one of these between AND, OR and the ends",
    "name = ^x'ff'": "found `x`",
    # Operators that do not go together: the operand, or the word, at which the form ends.
    "metadata.a = 1 = 2 OR ^name": "found `name` by itself",
    "metadata.a = 1 = ^2 = 3": "found `2`; expected one of these between",
    "metadata.a = 1 < ^2": "found `2`; expected one of these between",
    "metadata.a < ^1 = 2": "found `1`; expected one of these between",
    "name LIKE ^'x' LIKE 'y'": "found `'x'`; expected one of these between",
    "name IN ^('x') NOT IN ('y')": "found `(`; expected one of these between",
    "^name IS NULL IS NULL": "found `name`; expected one of these between",
    "^name IS NULL BETWEEN 1 AND 2": "found `name`; expected one of these between",
    "metadata.a = ^name IS NULL": "found `name`; expected one of these between",
    "name IS NULL ^'x'": "found `'x'`; expected one of these between",
    "name IS NULL 'x' ^= 'y'": "found `=`; expected one of these between",
    "metadata.a = NOT metadata.b = ^1 AND name IS NULL": "found `1`; expected one of these between",
    "name LIKE NOT ^'x'": "found `'x'`; expected one of these between",
    "name IN ^NOT ('x')": "found `NOT`; expected one of these between",
    "metadata.a BETWEEN NOT 1 = ^2 AND 3": "found `2`; expected one of these between",
    "metadata.a BETWEEN NOT ^name IN NOT 'x'": "found `name`; expected one of these between",
    "metadata.a BETWEEN ^1": "found `1`; expected one of these between",
    "metadata.a BETWEEN 1 ^= 2": "found `=`; expected one of these between",
    "metadata.a BETWEEN 1 ^LIKE 'x' AND 2": "found `LIKE`; expected one of these between",
    "metadata.a BETWEEN 1 ^IS NULL": "found `IS`; expected one of these between",
    "metadata.a BETWEEN 1 ^IN (2)": "found `IN`; expected one of these between",
    "metadata.a BETWEEN 1 NOT LIKE 'x' ^OR name IS NULL": "found `OR`; expected one of these between",
    # Of several errors the last part tells its own, unless there is a form that does not end.
    "name = 5 AND latency_ms = ^'a'": "found `'a'`",
    "name BETWEEN 'a' ^OR latency_ms = 'a'": "found `OR`",
    # Bytes that no store takes.
    "name = 'a^\0b'": r"found '\x00'; expected text without NUL",
    "name = '^\udc80'": r"found '\udc80'",
    # Size.
    "(" * MAX_LEVELS + "^(" + "name = 'a'" + ")" * (MAX_LEVELS + 1): "expected at most 32 inside of one another",
    "(" * MAX_LEVELS + "^" + "(" * 4_000: "expected at most 32 inside of one another",
    "^" + "NOT " * 1_000 + "name = 'a'": "found more than 32 NOT in a row",
    "^" + "NOT " * MAX_LEVELS + "name = 'a'": "found an expression that is nested too deeply",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stands_for_one_subject(name: str) -> None:
    """Every column, level and part, with keys of any depth and any characters."""
    assert parse(f"{name} IS NULL") == IsNull(NAMES[name])


def test_every_column_is_listed_in_messages() -> None:
    """The list of what exists leaves no fixed name out."""
    fixed = {name for name in NAMES if re.fullmatch(r"(trace\.|context\.)?\w+", name)}
    assert fixed | {"tags", "trace.tags"} == {
        name for name in LISTED.split(", ") if "<" not in name and "…" not in name
    }


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_a_text_is_understood(text: str) -> None:
    """Operators, literals, precedence, in upper and lower case."""
    # By `repr`: True, 1 and 1.0 are equal in Python and different in a filter.
    assert repr(parse(text)) == repr(UNDERSTOOD[text])


@pytest.mark.parametrize("marked", REFUSED, ids=lambda marked: ascii(marked)[:60])
def test_an_error_points_at_the_place(marked: str) -> None:
    """The error says what was found there and what was expected, with a caret below the text."""
    before, _, after = marked.partition("^")
    with pytest.raises(FilterError) as caught:
        parse(before + after)

    assert (caught.value.text, caught.value.place) == (before + after, len(before))
    assert REFUSED[marked] in str(caught.value)
    _, shown, caret = str(caught.value).splitlines()
    under = shown.ljust(len(caret))[len(caret) - 1]
    assert under == after[:1] or not after[:1].isprintable() or not after


def test_the_error_is_one_of_ours_and_a_value_error() -> None:
    """A caller of either kind catches it."""
    with pytest.raises(ValueError) as caught:
        parse("nam = 'a'")

    assert isinstance(caught.value, OtelMetadataError)
    message, shown, caret = str(caught.value).splitlines()
    assert message.startswith("Filter, character 1: found `nam`; expected name, perhaps, or one of trace_id, span_id,")
    assert (shown, caret) == ("  nam = 'a'", "  ^")


@pytest.mark.parametrize("text", ["日本語", "e\u0301", "\u200d", "\n", "é"])
def test_the_caret_stands_right_after_letters_of_any_width(text: str) -> None:
    """Some take two columns of a terminal, some none."""
    with pytest.raises(FilterError) as caught:
        parse(f"name = '{text}' AND nam = 1")

    _, shown, caret = str(caught.value).splitlines()
    assert cell_len(shown[: shown.rindex("nam")]) == len(caret) - 1


def test_an_error_far_inside_shows_what_is_around_it() -> None:
    """Of a long filter a part is shown, and the caret is under the place in it."""
    with pytest.raises(FilterError) as caught:
        parse(f"metadata.a IN ({'1, ' * 200}'b'{', 1' * 200})")

    _, shown, caret = str(caught.value).splitlines()
    assert len(shown) < 110
    assert shown[len(caret) - 1 :].startswith("'b', 1")
    assert shown.startswith("  …")
    assert shown.endswith("…")


@pytest.mark.parametrize(
    "text",
    ["name = 'a' 'b\nc\r\x1b[0m'", "a" * 4_000, "name = 'a' '" + "b" * 3_000 + "'", "name = 'a' metadata.\"x\ny\""],
)
def test_an_error_has_three_short_lines(text: str) -> None:
    """Whatever stands in the text: line breaks, control codes, thousands of characters."""
    with pytest.raises(FilterError) as caught:
        parse(text)

    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() and len(line) < 1_000 for line in lines)


@pytest.mark.parametrize("value", [None, 5, b"name = 'a'"])
def test_what_is_no_text_is_refused(value: object) -> None:
    """As any other filter that is not understood."""
    with pytest.raises(FilterError, match=f"found a value of type {type(value).__name__}"):
        parse(value)  # type: ignore[arg-type]


def test_a_filter_has_at_most_4096_bytes() -> None:
    """Bytes of UTF-8, not characters; one more is refused."""
    whole = "name = '" + "é" * 2_043 + "'"
    assert len(whole.encode()) == MAX_BYTES - 1
    parse(whole + " ")

    with pytest.raises(FilterError, match=r"found 4,097 bytes; expected at most 4,096"):
        parse(whole + "  ")


def test_a_long_chain_is_one_level() -> None:
    """As many comparisons as fit, without nesting."""
    chain = parse(" AND ".join(["input=1"] * 200) + " OR " + " OR ".join(["input=2"] * 100))
    assert isinstance(chain, Or)
    assert len(chain.parts) == 101
    assert isinstance(chain.parts[0], And)
    assert len(chain.parts[0].parts) == 200


def test_32_levels_are_understood() -> None:
    """AND, OR and NOT around a comparison, 31 of them."""
    text = "metadata.a = 1"
    for level in range(31):
        text = f"{text} {'AND' if level % 2 else 'OR'} metadata.b = 1"
        text = f"({text})" if level < 30 else text
    parse(text)

    with pytest.raises(FilterError, match="at most 32 levels"):
        parse(f"NOT ({text})")
    assert parse("(" * 32 + "metadata.a = 1" + ")" * 32) == A


def test_nesting_takes_little_of_the_stack() -> None:
    """All 32 levels are understood by a caller who has most of the stack in use."""
    text = "NOT (" * (MAX_LEVELS - 1) + "metadata.a = 1" + ")" * (MAX_LEVELS - 1)

    def deep(frames: int) -> Condition:
        return parse(text) if frames == 0 else deep(frames - 1)

    assert deep(600)


@pytest.mark.parametrize(
    ("start", "again", "end"),
    [("", "metadata.a = NOT ", "^1"), ("", "1 BETWEEN NOT ", "1 AND ^1"), ("metadata.a = ", "1 = ", "^1 = 1")],
)
def test_a_long_mistake_takes_little_of_the_stack(start: str, again: str, end: str) -> None:
    """Hundreds of operators in one another are refused as two are, not by a RecursionError."""
    before, _, after = (start + again * ((MAX_BYTES - len(start + end)) // len(again)) + end).partition("^")
    with pytest.raises(FilterError, match="expected one of these between AND, OR and the ends") as caught:
        parse(before + after)

    assert caught.value.place == len(before)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01", 0),
        ("2026-01-31T10:00:00Z", TEN),
        ("2026-01-31 10:00", TEN),
        ("2026-01-31T10:00:00z", TEN),
        ("2026-01-31T12:00:00+02:00", TEN),
        ("2026-01-31T12:00:00+0200", TEN),
        ("2026-01-31T06:30:00-03:30", TEN),
        ("2026-01-31T12:00+02", TEN),
        ("2026-01-31 10:00:00 Z", TEN),
        ("2026-01-31T10:00:00.5Z", TEN + 500_000_000),
        ("2026-01-31T10:00:00.123456789Z", TEN + 123_456_789),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("1678-01-01", -9_214_560_000_000_000_000),
        ("2261-12-31T23:59:59.999999999", 9_214_646_399_999_999_999),
        ("1677-12-31", None),
        ("2262-01-01", None),
        ("2026-02-30", None),
        ("2026-01-31T24:00:00", None),
        ("2026-01-31T10:00:60", None),
        ("2026-01-31T10:00:00.1234567890", None),
        ("2026-01-31T10:00:00+24:00", None),
        ("2026-01-31T10:00:00+01:60", None),
        ("2026-01-31T10", None),
        ("2026-1-31", None),
        ("20260131", None),
        ("٢٠٢٦-01-31", None),
        ("", None),
    ],
)
def test_a_time_is_whole_nanoseconds(text: str, expected: int | None) -> None:
    """Dates and times with offset and fraction, to the nanosecond; None for what is no time."""
    assert nanoseconds(text) == expected


@given(conditions())
def test_a_condition_that_is_written_is_read_again(condition: Condition) -> None:
    """Writing a condition and parsing it gives the same condition."""
    assert repr(parse(spelled(condition))) == repr(condition)


@given(conditions())
def test_the_text_of_a_condition_is_a_filter_that_means_it(condition: Condition) -> None:
    """A store that is asked over the network gets the question of the store that is asked here."""
    assert repr(parse(text_of(condition))) == repr(condition)


@pytest.mark.parametrize("name", NAMES)
def test_the_text_of_a_condition_has_every_name(name: str) -> None:
    """However the name was spelled, and whichever words or dots are in its key."""
    condition = parse(f"{name} IS NULL")
    assert parse(text_of(condition)) == condition == IsNull(NAMES[name])


@given(keys(), texts(), st.integers(nanoseconds("1678-01-01"), nanoseconds("2261-12-31")))
def test_the_text_of_a_condition_has_any_key_value_and_time(key: str, value: str, ns: int) -> None:
    """A key that is a word of the language or has dots and quotes, any text, any nanosecond."""
    condition = And(
        (
            Compare(metadata(key), "=", value),
            Compare(Subject("trace", "evaluation", key, "label"), "=", value),
            Compare(Subject("span", "annotation", key, "changed_at"), "<", ns),
            IsNull(Subject("span", "tag", key, "author")),
            HasTag("trace", value),
            In(START, (ns, ns + 1)),
        )
    )
    assert repr(parse(text_of(condition))) == repr(condition)


@given(keys(), texts())
def test_any_key_and_any_text_can_be_written(key: str, value: str) -> None:
    """Quotes are written twice, nothing else is escaped."""
    quoted = key.replace('"', '""')
    literal = value.replace("'", "''")
    assert parse(f"metadata.\"{quoted}\" = '{literal}'") == Compare(metadata(key), "=", value)


WORDS = st.sampled_from(
    [
        "name",
        "metadata.a",
        "tags",
        "latency_ms",
        "start_time",
        "'a'",
        "'b'",
        "1",
        "-2",
        "TRUE",
        "NULL",
        "AND",
        "OR",
        "NOT",
        "IN",
        "LIKE",
        "IS",
        "BETWEEN",
        "=",
        "!=",
        "<",
        ">",
        "(",
        ")",
        ",",
        "TIMESTAMP",
        "eval.X.label",
        'metadata."b"',
        ";",
        "--",
        "::",
        "?",
        "SELECT",
        "CASE",
        "END",
        ".",
        "x",
        "'",
        '"',
    ]
)


@given(st.text(max_size=60) | st.lists(WORDS, max_size=12).map(" ".join) | st.lists(WORDS, max_size=8).map("".join))
def test_any_text_is_understood_or_refused(text: str) -> None:
    """Whatever the text, a condition or a FilterError whose place is inside of it."""
    try:
        parse(text)
        refused = None
    except FilterError as error:
        refused = error
    assert refused is None or (refused.text == text and 0 <= refused.place <= len(text))


@given(conditions(), st.data())
def test_a_filter_with_a_word_changed_is_understood_or_refused(condition: Condition, data: st.DataObject) -> None:
    """One word taken out, put in or exchanged: what is still understood can be written and read again."""
    words = re.findall(r"'[^']*'|\w+|\s+|.", spelled(condition))
    place = data.draw(st.integers(0, len(words) - 1))
    words[place : place + data.draw(st.integers(0, 1))] = data.draw(st.lists(WORDS, max_size=1))
    try:
        changed = parse("".join(words))
    except FilterError:
        return
    assert repr(parse(spelled(changed))) == repr(changed)


def test_the_examples_of_the_page_are_understood() -> None:
    """Each line of each `sql` block of the page on filters is a filter."""
    blocks = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    examples = [line for block in blocks for line in block.splitlines() if line]
    assert len(examples) >= 20
    for example in examples:
        condition = parse(example)
        assert repr(parse(text_of(condition))) == repr(condition)


def test_the_page_names_every_name() -> None:
    """What a message lists is on the page."""
    page = PAGE.read_text()
    assert [name for name in NAMES if re.fullmatch(r"(trace\.|context\.)?\w+", name) and f"`{name}`" not in page] == []
