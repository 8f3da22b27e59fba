"""What can be written next in a filter: from the parser's own tables of names, operators and words.

It looks at the tokens before the place, not at the whole condition: somebody is writing, so the text is seldom whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, final

from otel_metadata.errors import FilterError
from otel_metadata.model.condition import ORIGINS, Scalar, Subject
from otel_metadata.model.merge import Level
from otel_metadata.model.record import ROUTES, NamedKind
from otel_metadata.store.filter.language import types_of
from otel_metadata.store.filter.names import NAMES, PARTS, TAGS, UnknownNameError, subject_of
from otel_metadata.store.filter.tokens import Token, tokens_of

CompletionKind = Literal["name", "operator", "value", "word"]


@final
class Completion(NamedTuple):
    """A text that may replace a part of the filter.

    Attributes:
        text: What to write.
        kind: What it is.
        start: The first character that it replaces.
        end: The character behind the last one.
    """

    text: str
    kind: CompletionKind
    start: int
    end: int


@final
class InUse(NamedTuple):
    """Names that a store is asked for.

    Attributes:
        kind: Which.
        level: Of spans or of traces.
        prefix: How they begin.
    """

    kind: NamedKind
    level: Level
    prefix: str


Names = Callable[[InUse], Sequence[str]]
"""Returns names that are in use."""

Values = Callable[[Subject], Sequence[Scalar]]
"""Returns values that a name has, the likeliest first."""

# What is being written: the end of a name, the beginning of a text, or of an operator.
# Each begins where a word does: a search from every character of a long word would take quadratic time.
_NAME: Final = re.compile(r'(?<![\w."])(?:[^\W\d]\w*(?:\.(?:\w+|"(?:[^"]|"")*"))*(?:\.(?:"(?:[^"]|"")*)?)?)\Z')
_TEXT: Final = re.compile(r"'(?:[^']|'')*\Z")
_SIGN: Final = re.compile(r"(?<![<>=!])[<>=!]+\Z")
_PLAIN: Final = re.compile(r"\w+", re.ASCII)

_COMPARISONS: Final = ("=", "!=", "<", "<=", ">", ">=")
_ORDERS: Final = _COMPARISONS[2:]
_JOINING: Final = ("AND", "OR")
_VALUES: Final = {
    "status": ("OK", "ERROR", "UNSET"),
    "kind": ("INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"),
    "span_kind": (
        "LLM",
        "CHAIN",
        "TOOL",
        "AGENT",
        "RETRIEVER",
        "EMBEDDING",
        "RERANKER",
        "GUARDRAIL",
        "EVALUATOR",
        "PROMPT",
    ),
}
_KEYED: Final[tuple[tuple[str, NamedKind, Level, str], ...]] = (
    ("metadata.", "metadata", "span", ""),
    ("trace.metadata.", "metadata", "trace", ""),
    ("eval.", "evaluation", "span", "eval"),
    ("trace.eval.", "evaluation", "trace", "eval"),
)
"""Names that end with a key which a store knows, and the parts that follow the key."""


def completions(text: str, position: int, names: Names, values: Values = lambda _: ()) -> list[Completion]:
    """Return what can be written at a place, the likeliest first; nothing inside what is not understood.

    Args:
        text: The filter so far, of any length.
        position: The place, from 0, in characters.
        names: Returns names that are in use in the store. It is asked for few.
        values: Returns values that are in use there.
    """
    before = text[:position]
    started = _TEXT.search(_without_whole_texts(before)) or _NAME.search(before) or _SIGN.search(before)
    start = started.start() if started is not None else position
    try:
        tokens = tokens_of(text[:start])
    except FilterError:
        return []
    written = before[start:]
    end = position
    if started is not None and written[0] not in "'<>=!":
        rest = re.match(r"\w*", text[position:])
        end += rest.end() if rest is not None else 0
    found: dict[str, CompletionKind] = {}
    for one, kind in _after(tokens, written, names, values):
        if one.lower().startswith(written.lower()) and one != written:
            found.setdefault(one, kind)
    return [Completion(one, kind, start, end) for one, kind in found.items()]


def _without_whole_texts(text: str) -> str:
    """Return a text of the same length in which whole texts in quotes are blank, so that an open one is found."""
    return re.sub(r"'(?:[^']|'')*'", lambda found: " " * len(found[0]), text)


def _after(tokens: Sequence[Token], written: str, names: Names, values: Values) -> Iterator[tuple[str, CompletionKind]]:
    last = tokens[-1] if tokens else None
    if last is None or (last.kind == "(" and not _is_list(tokens)) or (last.kind == "word" and last.text in _JOINING):
        if _is_between(tokens):
            return
        yield from _operands(written, names)
        yield "NOT", "word"
    elif last.kind == "name" and _is_mirrored(tokens):
        yield from ((word, "word") for word in _JOINING)
    elif last.kind == "name":
        yield from _operators(_subject(last))
    elif last.kind == "operator" and len(tokens) > 1 and tokens[-2].kind == "literal":
        yield from _names(written, names)
    elif last.kind == "operator" or (last.kind == "word" and last.text in {"LIKE", "BETWEEN"}):
        yield from _values(_subject(tokens[-2]) if len(tokens) > 1 else None, last.text, values)
    elif last.kind in {"(", ","}:
        yield from _values(_list_subject(tokens), "=", values)
    elif last.kind == "word":
        yield from _after_word(tokens, written, names)
    elif last.kind == "literal" and (
        len(tokens) == 1 or tokens[-2].kind == "(" or tokens[-2].text in {*_JOINING, "NOT"}
    ):
        # A literal begins a comparison.
        is_between = _is_between(tokens[:-1])
        yield from ((word, "word") for word in _JOINING) if is_between else _after_literal(last)
    elif last.kind in {"literal", "time"} and _waits_for_and(tokens):
        yield "AND", "word"
    elif last.kind in {"literal", "time", ")"} and not _is_list(tokens):
        yield from ((word, "word") for word in _JOINING)


def _after_word(tokens: Sequence[Token], written: str, names: Names) -> Iterator[tuple[str, CompletionKind]]:
    word = tokens[-1].text
    before = tokens[-2] if len(tokens) > 1 else None
    if word == "IS":
        yield from (("NULL", "word"), ("NOT NULL", "word"))
    elif word == "NULL":
        yield from ((joining, "word") for joining in _JOINING)
    elif word == "IN":
        if before is not None and before.kind == "literal":
            yield from ((name, "name") for name in TAGS)
        else:
            yield "(", "word"
    elif word == "NOT" and before is not None and before.kind == "name":
        yield from ((negated, "operator") for negated in ("IN", "LIKE", "BETWEEN"))
    elif word == "NOT" and before is not None and before.text == "IS":
        yield "NULL", "word"
    elif word == "NOT":
        yield from _operands(written, names)


def _operands(written: str, names: Names) -> Iterator[tuple[str, CompletionKind]]:
    if written.startswith("'"):
        tags = names(InUse("tag", "span", _unquoted(written)))
        yield from ((f"{_quoted(tag)} IN tags", "value") for tag in tags)
    else:
        yield from _names(written, names)


def _names(written: str, names: Names) -> Iterator[tuple[str, CompletionKind]]:
    for head, kind, level, parts in _KEYED:
        if written.lower().startswith(head):
            yield from _keys(head, written[len(head) :], InUse(kind, level, ""), parts, names)
            return
    for origin in ORIGINS:
        if written.lower().startswith(f"{origin}."):
            inner = _names(written[len(origin) + 1 :], names)
            yield from ((f"{origin}.{name}", kind) for name, kind in inner if _has_origin(origin, name))
            return
    yield from ((name, "name") for name in NAMES)
    yield from ((head, "name") for head, *_ in _KEYED)
    yield from ((head, "name") for head in ("attributes.", "resource.", "annotation.", "trace.annotation."))
    yield from ((f"{origin}.", "name") for origin in ORIGINS)


def _keys(head: str, rest: str, wanted: InUse, parts: str, names: Names) -> Iterator[tuple[str, CompletionKind]]:
    """Yield names with the keys that are in use; behind a whole key of a verdict, its parts."""
    key, dot, _ = rest.rpartition(".")
    if parts and dot:
        yield from ((f"{head}{key}.{part}", "name") for part in PARTS[parts][1])
    plain = rest.lstrip('"').replace('""', '"')
    for name in names(wanted._replace(prefix=plain)):
        spelled = ".".join(one if _PLAIN.fullmatch(one) else _key(one) for one in name.split("."))
        if rest.startswith('"') or _subject_key(f"{head}{spelled}", name) is False:
            spelled = _key(name)
        yield f"{head}{spelled}{'.' if parts else ''}", "name"


def _subject_key(path: str, key: str) -> bool:
    """Whether a name means this key: a word of the language needs quotes."""
    try:
        tokens = tokens_of(path)
    except FilterError:
        return False
    return len(tokens) == 1 and path.endswith(key)


def _has_origin(origin: str, name: str) -> bool:
    if name.endswith("."):
        return not name.startswith((*ORIGINS, "resource"))
    try:
        subject_of((origin, *(segment for token in tokens_of(name) for segment, _ in token.segments)))
    except (UnknownNameError, FilterError):
        return False
    return True


def _operators(subject: Subject | None) -> Iterator[tuple[str, CompletionKind]]:
    types = types_of(subject) if subject is not None else ("text", "number", "bool")
    is_route = subject is not None and subject.part == "route"
    for sign in _COMPARISONS:
        if sign in {"=", "!="} or not is_route:
            yield sign, "operator"
    yield "IN", "operator"
    if "text" in types and not is_route:
        yield "LIKE", "operator"
    if not is_route:
        yield "BETWEEN", "operator"
    yield from ((word, "operator") for word in ("IS NULL", "IS NOT NULL", "NOT IN"))
    if not is_route:
        yield from ((word, "operator") for word in ("NOT LIKE", "NOT BETWEEN"))


def _after_literal(literal: Token) -> Iterator[tuple[str, CompletionKind]]:
    if isinstance(literal.value, str):
        yield "IN", "operator"
    yield from ((sign, "operator") for sign in _COMPARISONS)


def _values(subject: Subject | None, operator: str, values: Values) -> Iterator[tuple[str, CompletionKind]]:
    if subject is None:
        return
    if subject.part == "route":
        yield from ((_quoted(route), "value") for route in ROUTES)
    elif not subject.part and subject.kind in _VALUES and operator not in _ORDERS:
        yield from ((_quoted(word), "value") for word in _VALUES[subject.kind])
    elif operator in {"=", "!="}:
        found = [_literal(value) for value in values(subject)]
        if "bool" in types_of(subject) and (not found or not {"TRUE", "FALSE"}.isdisjoint(found)):
            found += ["TRUE", "FALSE"]
        yield from ((one, "value") for one in found)


def _subject(token: Token) -> Subject | None:
    if token.kind != "name":
        return None
    try:
        return subject_of(tuple(segment for segment, _ in token.segments))
    except UnknownNameError:
        return None


def _is_list(tokens: Sequence[Token]) -> bool:
    """Whether the last open parenthesis is that of a list: IN stands before it."""
    return _list_start(tokens) is not None


def _list_start(tokens: Sequence[Token]) -> int | None:
    closed = 0
    for index in range(len(tokens) - 1, -1, -1):
        closed += (tokens[index].kind == ")") - (tokens[index].kind == "(")
        if closed < 0:
            return index if index and tokens[index - 1].text == "IN" else None
    return None


def _list_subject(tokens: Sequence[Token]) -> Subject | None:
    start = _list_start(tokens)
    if start is None or start < 2:
        return None
    name = tokens[start - 2]
    if name.text == "NOT" and start > 2:
        name = tokens[start - 3]
    return _subject(name)


def _is_mirrored(tokens: Sequence[Token]) -> bool:
    """Whether the last name ends a comparison that a literal began: 5 < latency_ms, 'vip' IN tags."""
    return (
        len(tokens) > 2
        and tokens[-3].kind in {"literal", "time"}
        and (tokens[-2].kind == "operator" or tokens[-2].text == "IN")
    )


def _waits_for_and(tokens: Sequence[Token]) -> bool:
    return len(tokens) > 1 and tokens[-2].text == "BETWEEN" and tokens[-2].kind == "word"


def _is_between(tokens: Sequence[Token]) -> bool:
    """Whether the last AND is that of BETWEEN: a literal follows it."""
    return len(tokens) > 2 and tokens[-1].text == "AND" and tokens[-1].kind == "word" and _waits_for_and(tokens[:-1])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return _quoted(value) if isinstance(value, str) else f"{value}"


def _unquoted(written: str) -> str:
    return written[1:].replace("''", "'")


def _key(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
