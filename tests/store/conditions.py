"""Random filters over a small vocabulary, and how each is written."""

from __future__ import annotations

import datetime as dt
import functools
import re
from dataclasses import replace

from hypothesis import strategies as st
from tests.store.contract import END_NS

from otel_metadata.model.condition import (
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
    Scalar,
    Subject,
)
from otel_metadata.model.record import ROUTES

KEYS = ("a", "a.b", "user-id", "Ключ", 'say "hi"', "not", "0", "label", "%")
"""Keys and names: what needs double quotes and what does not."""

TEXTS = ("", "a", "A", "ab", "a%b", "a_b", "it's", "\N{GREEK SMALL LETTER ALPHA}", "\N{GRINNING FACE}", "5", "true")
"""Texts that many values share, beyond the first plane of Unicode too."""

NUMBERS: tuple[int | float, ...] = (0, 1, 1.0, -1, 0.5, -2.5, 5, 1e300, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63))
"""Numbers that many values share, integers that no float holds among them."""

TIMES = tuple(1_700_000_000_123_456_789 + step for step in (-1, 0, 1, 1_000_000_000))
"""Nanoseconds that differ by one."""

CHANGE_TIMES = (*(TIMES[-1] + step for step in (0, 40, 150, 1_100)), *(END_NS + step for step in (0, 20, 150)))
"""Nanoseconds between the versions of fields."""

AUTHORS = ("page:ada", "shop", "it's")

TAGS = ("vip", "it's", "")

_TEXT_COLUMNS = ("project", "scope_name", "scope_version")
_TEXT_FIELDS = ("name", "status_message", "user_id", "session_id", "model")
_VERDICTS = (("evaluation", "label", "explanation"), ("annotation", "label", "text"))

TEXT_SUBJECTS = (
    *(Subject("span", kind) for kind in (*_TEXT_COLUMNS, *_TEXT_FIELDS)),
    Subject("trace", "name"),
    *(
        Subject(level, kind, key, part)
        for level in ("span", "trace")
        for kind, *parts in _VERDICTS
        for part in parts
        for key in KEYS[:3]
    ),
)
ID_SUBJECTS = tuple(Subject("span", kind) for kind in ("trace_id", "span_id", "parent_id"))
KIND = Subject("span", "kind")
SPAN_KIND = Subject("span", "span_kind")
NUMBER_SUBJECTS = (
    Subject("span", "latency_ms"),
    *(
        Subject(level, kind, key, "score")
        for level in ("span", "trace")
        for kind in ("evaluation", "annotation")
        for key in KEYS[:3]
    ),
)
TIME_SUBJECTS = (Subject("span", "start_time"), Subject("span", "end_time"))
ANY_SUBJECTS = (
    *(Subject(level, "metadata", key) for level in ("span", "trace") for key in KEYS),
    *(Subject("span", kind, key) for kind in ("attribute", "resource") for key in KEYS),
    *(Subject(level, kind) for level in ("span", "trace") for kind in ("input", "output")),
)
STATUS = Subject("span", "status")
WITH_ORIGIN = (
    *(Subject(level, "metadata", key) for level in ("span", "trace") for key in KEYS[:3]),
    *(Subject(level, kind) for level in ("span", "trace") for kind in ("input", "output", "name")),
    *(Subject("span", kind) for kind in ("status", "status_message", "user_id", "session_id")),
    *(Subject(level, kind, key) for level in ("span", "trace") for kind, *_ in _VERDICTS for key in KEYS[:3]),
    *(Subject(level, "tag", tag) for level in ("span", "trace") for tag in TAGS[:2]),
    Subject("span", "attribute", "a"),
)
"""What is changed at a time, by somebody."""
ROUTE_SUBJECTS, AUTHOR_SUBJECTS, CHANGE_SUBJECTS = (
    tuple(replace(subject, part=origin) for subject in WITH_ORIGIN) for origin in ORIGINS
)
LATE_COUNTS = (Subject("span", "late_count"), Subject("trace", "late_count"))
SUBJECTS = (
    *TEXT_SUBJECTS,
    *ID_SUBJECTS,
    KIND,
    SPAN_KIND,
    *NUMBER_SUBJECTS,
    *TIME_SUBJECTS,
    *ANY_SUBJECTS,
    STATUS,
    *ROUTE_SUBJECTS,
    *AUTHOR_SUBJECTS,
    *CHANGE_SUBJECTS,
    *LATE_COUNTS,
)

_texts = st.sampled_from(TEXTS)
_numbers = st.sampled_from(NUMBERS)
_bools = st.booleans()


def conditions(*, max_leaves: int = 6) -> st.SearchStrategy[Condition]:
    """Conditions as `parse` returns them: no `And` in an `And`, no `Or` in an `Or`."""
    return st.recursive(_leaf(), _compounds, max_leaves=max_leaves)


def _compounds(parts: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    return (
        st.builds(Not, parts)
        | st.lists(parts.filter(lambda part: not isinstance(part, And)), min_size=2, max_size=4).map(
            lambda many: And(tuple(many))
        )
        | st.lists(parts.filter(lambda part: not isinstance(part, Or)), min_size=2, max_size=4).map(
            lambda many: Or(tuple(many))
        )
    )


@st.composite
def _leaf(draw: st.DrawFn) -> Condition:
    """One comparison. A composite, because Hypothesis warns of a strategy whose `repr` lists the whole vocabulary."""
    return draw(_leaves())


@functools.cache  # made anew for each comparison it is most of the time of a test
def _leaves() -> st.SearchStrategy[Condition]:
    # Metadata is what most filters are about.
    any_subjects = st.sampled_from(ANY_SUBJECTS)
    return st.one_of(
        _ordered(any_subjects, _texts),
        _ordered(any_subjects, _numbers),
        _equal(any_subjects, _bools),
        _ordered(st.sampled_from(TEXT_SUBJECTS), _texts),
        # As `parse` returns them: ids in lower case, words in upper.
        _ordered(st.sampled_from(ID_SUBJECTS), st.sampled_from(["", "a", "5", "0" * 15 + "1"])),
        _ordered(st.just(KIND), st.sampled_from(["", "CLIENT", "INTERNAL"])),
        _ordered(st.just(SPAN_KIND), st.sampled_from(["", "LLM", "TOOL"])),
        _ordered(st.sampled_from(NUMBER_SUBJECTS), _numbers),
        _ordered(st.sampled_from(TIME_SUBJECTS), st.sampled_from(TIMES)),
        _ordered(st.sampled_from(CHANGE_SUBJECTS), st.sampled_from(CHANGE_TIMES)),
        _equal(st.sampled_from(ROUTE_SUBJECTS), st.sampled_from(ROUTES)),
        _ordered(st.sampled_from(AUTHOR_SUBJECTS), st.sampled_from(AUTHORS)),
        _ordered(st.sampled_from(LATE_COUNTS), st.sampled_from([0, 1, 2, 2.5, 5])),
        _ordered(st.just(STATUS), st.sampled_from(["OK", "ERROR", "UNSET"])),
        _ordered(st.just(STATUS), st.sampled_from([200, 404])),
        st.builds(
            Like,
            st.sampled_from((*ANY_SUBJECTS, *TEXT_SUBJECTS, *ID_SUBJECTS, *AUTHOR_SUBJECTS)),
            st.sampled_from(["%", "_", "a%", "%b", "__"]),
        ),
        st.builds(IsNull, st.sampled_from(SUBJECTS)),
        st.builds(HasTag, st.sampled_from(["span", "trace"]), st.sampled_from(TAGS)),
    )


def _equal(subjects: st.SearchStrategy[Subject], values: st.SearchStrategy[Scalar]) -> st.SearchStrategy[Condition]:
    lists = st.lists(values, min_size=1, max_size=3).map(tuple)
    return st.builds(Compare, subjects, st.sampled_from(["=", "!="]), values) | st.builds(In, subjects, lists)


def _ordered(subjects: st.SearchStrategy[Subject], values: st.SearchStrategy[Scalar]) -> st.SearchStrategy[Condition]:
    return (
        _equal(subjects, values)
        | st.builds(Compare, subjects, st.sampled_from(["<", "<=", ">", ">="]), values)
        | st.builds(Between, subjects, values, values)
    )


def spelled(condition: Condition) -> str:
    """Return the text of a condition, with no more parentheses than it needs around one part."""
    if isinstance(condition, And):
        return " AND ".join(
            _in_parentheses(part) if isinstance(part, Or) else spelled(part) for part in condition.parts
        )
    if isinstance(condition, Or):
        return " OR ".join(spelled(part) for part in condition.parts)
    if isinstance(condition, Not):
        part = condition.part
        return f"NOT {_in_parentheses(part) if isinstance(part, And | Or) else spelled(part)}"
    if isinstance(condition, HasTag):
        return f"{_literal(condition.tag)} IN {'tags' if condition.level == 'span' else 'trace.tags'}"
    name = spelled_name(condition.subject)
    if isinstance(condition, IsNull):
        return f"{name} IS NULL"
    if isinstance(condition, Like):
        return f"{name} LIKE {_literal(condition.pattern)}"
    is_time = condition.subject in TIME_SUBJECTS or condition.subject.part == "changed_at"
    if isinstance(condition, Compare):
        return f"{name} {condition.op} {_literal(condition.value, is_time)}"
    if isinstance(condition, In):
        return f"{name} IN ({', '.join(_literal(value, is_time) for value in condition.values)})"
    return f"{name} BETWEEN {_literal(condition.low, is_time)} AND {_literal(condition.high, is_time)}"


def spelled_name(subject: Subject) -> str:
    """Return the name of a subject, its key in double quotes where it has to be."""
    heads = {"attribute": "attributes", "evaluation": "eval", "status": "status_code", "tag": "tags"}
    head = heads.get(subject.kind, subject.kind)
    level = "trace." if subject.level == "trace" else ""
    if subject.part in ORIGINS:
        return f"{subject.part}.{spelled_name(replace(subject, part=''))}"
    plain = re.fullmatch(r"\w+(\.\w+)*", subject.key) and subject.key != "not"
    key = subject.key if plain else '"' + subject.key.replace('"', '""') + '"'
    path = [head, *([key] if subject.key else []), *([subject.part] if subject.part else [])]
    return level + ".".join(path)


def _in_parentheses(condition: Condition) -> str:
    return f"({spelled(condition)})"


def _literal(value: Scalar, is_time: bool = False) -> str:
    if is_time:
        seconds, rest = divmod(int(value), 1_000_000_000)
        moment = dt.datetime.fromtimestamp(seconds, dt.timezone.utc)
        return f"'{moment:%Y-%m-%dT%H:%M:%S}.{rest:09}Z'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value).upper() if isinstance(value, bool) else repr(value)
