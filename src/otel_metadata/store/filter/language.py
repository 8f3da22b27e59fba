"""The filter language: it turns a text into a checked tree of comparisons.

This module decides which texts are filters. It does not decide what a name means (`store.filter.names`), what is a
token (`store.filter.tokens`), or what a condition means (`model.condition`).

Each parenthesis is parsed by itself, the innermost first, and becomes one operand of the text around it. Open
parentheses and unfinished operations are kept in lists. Recursion would need frames on Python's stack, and the
application may have few left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias, cast, final

from otel_metadata.errors import FilterError
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
    Operator,
    Or,
    Part,
    Scalar,
    Subject,
    SubjectKind,
)
from otel_metadata.model.merge import Level
from otel_metadata.model.record import ROUTES
from otel_metadata.model.times import nanoseconds
from otel_metadata.store.filter.names import TAGS, UnknownNameError, subject_of
from otel_metadata.store.filter.tokens import OPERATORS, Token, tokens_of

MAX_LEVELS: Final = 32
"""Limit of nested parentheses, and of the tree: a comparison is one level, each AND, OR or NOT around it another."""

_MIRRORED: Final[Mapping[Operator, Operator]] = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

# NOT before an operand reaches as far as the next AND or OR.
_LOOSE_TO_TIGHT: Final = ("", "OR", "AND", "NOT", "= !=", "< <= > >=", "IS IN LIKE BETWEEN")
_BEFORE_WORD: Final = re.compile(r"\s*(?:NOT\s+)?", re.IGNORECASE)
_PRECEDENCE: Final = {word: level for level, words in enumerate(_LOOSE_TO_TIGHT) for word in words.split(" ")}
_AFTER_NOT: Final = frozenset({"IN", "LIKE", "BETWEEN"})
_ANY: Final = frozenset({"metadata", "attribute", "resource", "input", "output"})
# These are stored in one case only. A literal in the other case would silently find nothing.
_CASE: Final[Mapping[SubjectKind | Part, Callable[[str], str]]] = {
    "route": str.lower,
    "trace_id": str.lower,
    "span_id": str.lower,
    "parent_id": str.lower,
    "kind": str.upper,
    "span_kind": str.upper,
    "status": str.upper,
}
_ROUTES: Final = f"{', '.join(map(repr, ROUTES[:-1]))} or {ROUTES[-1]!r}"
_SPELLED: Final = {"text": "text in single quotes", "number": "number"}
_TIMES: Final = "start_time, end_time and changed_at.<name>"

_FORMS: Final = "name = literal, !=, <, <=, >, >=, IN (…), LIKE '…', BETWEEN … AND …, IS NULL, or 'tag' IN tags"
_ONE_FORM: Final = f"one of these between AND, OR and the ends: {_FORMS}"


@final
@dataclass(frozen=True, slots=True)
class _Tags:
    level: Level


_Value: TypeAlias = Subject | _Tags | Token | Condition | tuple[Token, ...]
"""The value of an operand: a name, tags, the token of a literal, a condition in parentheses, or a list of literals."""


@final
@dataclass(frozen=True, slots=True)
class _Operand:
    start: int
    text: str
    value: _Value


_Item: TypeAlias = Token | _Operand


@final
@dataclass(slots=True)
class _Operation:
    word: str
    sides: list[_Side]
    is_negated: bool = False


_Side: TypeAlias = _Operand | _Operation

_MISSING: Final = _Operand(0, "", ())


def parse(text: str) -> Condition:
    """Return the condition of a filter.

    It has a normal form: `And` and `Or` hold no part of their own kind, and `5 < latency_ms` is `latency_ms > 5`.

    Args:
        text: One expression of at most 4,096 bytes and 32 levels.

    Raises:
        FilterError: The text is not one expression of the language; the message points at the place.
    """
    if not isinstance(text, str):
        raise FilterError(
            ascii(text)[:100], 0, f"a value of type {type(text).__name__}", "a text such as latency_ms > 1000"
        )
    return _Parser(text).condition()


@final
class _Parser:
    """Parses one text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def condition(self) -> Condition:
        """Return the condition of the whole text."""
        open_groups: list[tuple[int, list[_Item]]] = [(0, [])]
        for token in tokens_of(self._text):
            items = open_groups[-1][1]
            if token.kind == "(":
                self._check_neighbours(items, token)
                open_groups.append((token.start, []))
                if len(open_groups) > MAX_LEVELS + 1:
                    self._fail(token.start, "one more parenthesis", f"at most {MAX_LEVELS} inside of one another")
            elif token.kind == ")":
                start, _ = open_groups.pop()
                if not open_groups:
                    self._fail(token.start, "`)`", "a ( before it")
                if not items:
                    self._fail(token.start, "`)`", "a condition or a list of literals between the parentheses")
                open_groups[-1][1].append(_Operand(start, "(", self._group(start, items, token.start)))
            elif token.kind in {"name", "literal", "time"}:
                self._check_neighbours(items, token)
                items.append(_Operand(token.start, token.text, self._value(token)))
            else:
                items.append(token)
        start, items = open_groups.pop()
        if open_groups:
            self._fail(start, "`(`", "a ) that closes it")
        if not items:
            self._fail(0, "nothing", "a condition such as latency_ms > 1000")
        return self._tree(0, items, len(self._text))

    def _value(self, token: Token) -> _Value:
        if token.kind != "name":
            return token
        segments = tuple(segment for segment, _ in token.segments)
        if ".".join(segments) in TAGS:
            return _Tags(TAGS[".".join(segments)])
        try:
            return subject_of(segments)
        except UnknownNameError as error:
            segment, place = token.segments[min(error.segment, len(segments) - 1)]
            if self._text[token.start + len(token.text) :].lstrip().startswith("("):
                self._fail(place, f"`{token.text}(`", "no functions: a name is compared as it is")
            expected = error.expected
            if self._text[: token.start].rstrip().upper().endswith(("=", "<", ">", " LIKE")):
                literal = _shortened(f"'{token.text}'")
                expected = f"{literal} in single quotes if it is a text, or {expected}"
            raise FilterError(self._text, place, _shortened(f"`{segment}`"), expected) from None

    def _check_neighbours(self, before: Sequence[_Item], token: Token) -> None:
        last = before[-1] if before else None
        if not isinstance(last, _Operand):
            return
        if token.kind == "(" and isinstance(last.value, Subject | _Tags):
            self._fail(token.start, "`(` after a name", f"an operator, or IN before a list; they are {OPERATORS}")
        if token.kind == "literal" and token.text[0] in "+-":
            self._fail(token.start, f"`{token.text[0]}`", "a comparison or the end: there is no arithmetic")
        self._fail(token.start, f"`{token.text}`", f"an operator before it, or the end; they are {OPERATORS}")

    def _group(self, start: int, items: list[_Item], end: int) -> Condition | tuple[Token, ...]:
        """Return the content of a parenthesis: a list of literals, or a condition."""
        if len(items) > 1 and not any(isinstance(item, Token) and item.kind == "," for item in items):
            return self._tree(start, items, end)
        if len(items) == 1 and _is_condition(items[0]):
            return cast("Condition", cast("_Operand", items[0]).value)
        literals = []
        for index, item in enumerate(items):
            if index % 2 == 1:
                if not (isinstance(item, Token) and item.kind == ","):
                    self._fail(item.start, f"`{item.text}`", "a comma between two literals")
            elif isinstance(item, _Operand) and isinstance(item.value, Token):
                literals.append(item.value)
            else:
                self._fail(item.start, f"`{item.text}`", f"a literal in a list; a condition is {_FORMS}")
        if len(items) % 2 == 0:
            self._fail(items[-1].start, "`,`", "a literal after it")
        return tuple(literals)

    def _tree(self, start: int, items: list[_Item], end: int) -> Condition:
        """Return the condition of items that have no parentheses or lists among them."""
        words = ["" if isinstance(item, _Operand) else item.text for item in items]
        self._check_words(words, items, end)
        condition = self._condition_of(self._bind([*words, ""], items))
        if _levels(condition) > MAX_LEVELS:
            self._fail(start, "an expression that is nested too deeply", f"at most {MAX_LEVELS} levels of AND, OR, NOT")
        return condition

    def _check_words(self, words: list[str], items: list[_Item], end: int) -> None:
        """Check that operands and operators alternate, and that IS, NULL and NOT are beside the words they need."""
        is_open = True  # An operand has to follow.
        for index, (word, item) in enumerate(zip(words, items, strict=True)):
            before, after = words[max(0, index - 2) : index], words[index + 1 : index + 3]
            if word == ",":
                self._fail(item.start, "`,`", "commas in a list in parentheses only")
            if word == "IS" and after[:1] != ["NULL"] and after != ["NOT", "NULL"]:
                self._fail(item.start, "`IS`", "IS NULL or IS NOT NULL; other values are compared with =")
            if word == "NULL" and before[-1:] != ["IS"] and before != ["IS", "NOT"]:
                self._fail(item.start, "`NULL`", "IS NULL or IS NOT NULL: nothing is equal to NULL")
            if words[index : index + MAX_LEVELS + 1] == ["NOT"] * (MAX_LEVELS + 1):
                self._fail(item.start, f"more than {MAX_LEVELS} NOT in a row", "one NOT, or none")
            if word == "NOT":
                if not is_open and after[:1] not in (["IN"], ["LIKE"], ["BETWEEN"]):
                    self._fail(
                        item.start, "`NOT`", "NOT IN, NOT LIKE or NOT BETWEEN after a name; else AND NOT, OR NOT"
                    )
            elif word in {"", "NULL"}:
                is_open = False
            elif is_open:
                self._fail(item.start, f"`{word}`", "a name, a literal or a condition before it")
            else:
                is_open = True
        if is_open:
            self._fail(end, "the end", f"a name, a literal or a condition after `{words[-1]}`")

    def _bind(self, words: list[str], items: list[_Item]) -> _Side:
        """Return the items as one operation, with the precedence of SQL.

        Each operation waits in a list for its last operand, until a word follows that does not bind tighter. The result
        may not be part of the language, such as `a = 1 = 2`; `_condition_of` refuses it.
        """
        operands = [*(item if isinstance(item, _Operand) else _MISSING for item in items), _MISSING]
        waiting: list[_Operation] = []
        side: _Side = _MISSING
        index, is_open = 0, True
        while True:
            word = words[index]
            is_negated = word == "NOT" and words[index + 1] in _AFTER_NOT
            if is_open and word == "NOT" and not (waiting and waiting[-1].word == "IN"):
                waiting.append(_Operation("NOT", []))
                index += 1
            elif is_open:
                side, is_open = operands[index], False
                index += side is not _MISSING
            elif waiting and _PRECEDENCE[waiting[-1].word] >= _PRECEDENCE[words[index + is_negated]]:
                operation = waiting.pop()
                if side is not _MISSING or operation.word != "IN":  # In `x IN NOT y` the NOT is left over.
                    operation.sides.append(side)
                if operation.word == "BETWEEN" and len(operation.sides) == 2:  # Only the lower bound is read.
                    waiting.append(operation)
                    index, is_open = index + (word == "AND"), True
                elif _MISSING in (operation.sides[0], operation.sides[-1]):
                    self._refuse(items[min(index, len(items) - 1)])
                else:
                    side = operation
            elif word == "IS":
                is_negated = words[index + 1] == "NOT"
                side = _Operation("IS", [side], is_negated)
                index += 2 + is_negated
            elif is_negated or word not in {"", "NOT"}:
                word = words[index + is_negated]
                if not (word in {"AND", "OR"} and isinstance(side, _Operation) and side.word == word):
                    side = _Operation(word, [side], is_negated)
                waiting.append(side)
                index, is_open = index + 1 + is_negated, True
            elif index == len(items):
                return side
            else:
                # Only NULL can be followed by an operand. The message points behind that operand if more follows.
                self._refuse(items[min(index + (not word), len(items) - 1)])

    def _condition_of(self, side: _Side) -> Condition:
        """Return the condition of an operation. If several parts of AND or OR have errors, the last one is reported."""
        if isinstance(side, _Operand):
            if not _is_condition(side):
                self._fail(side.start, f"`{side.text}` by itself", f"a condition: {_FORMS}")
            return cast("Condition", side.value)
        if side.word in {"AND", "OR"}:
            parts = [self._condition_of(part) for part in reversed(side.sides)]
            return _joined(And if side.word == "AND" else Or, parts[::-1])
        if side.word == "NOT":
            return Not(self._condition_of(side.sides[0]))
        for part in side.sides:
            if isinstance(part, _Operation):
                self._refuse(part)
        condition = self._predicate(side.word, *cast("list[_Operand]", side.sides))
        return Not(condition) if side.is_negated else condition

    def _predicate(self, word: str, left: _Operand, *right: _Operand) -> Condition:
        if word == "IS":
            return IsNull(self._subject(left))
        if word not in {"=", "!=", "IN"}:
            self._check_no_route(word, left, *right)
        if word == "IN":
            return self._membership(left, *right)
        if word == "LIKE":
            return Like(self._subject(left), self._pattern(left, *right))
        if word == "BETWEEN":
            return self._range(left, *right)
        return self._comparison(left, cast("Operator", word), *right)

    def _check_no_route(self, word: str, *sides: _Operand) -> None:
        if any(isinstance(side.value, Subject) and side.value.part == "route" for side in sides):
            first = min(sides, key=lambda side: side.start)
            before_word = _BEFORE_WORD.match(self._text, first.start + len(first.text))
            place = before_word.end()  # type: ignore[union-attr] # matches everywhere
            self._fail(place, f"`{word}`", f"=, != or IN with a route, which is {_ROUTES}")

    def _refuse(self, item: _Item | _Operation) -> NoReturn:
        while isinstance(item, _Operation):
            item = item.sides[-1]
        self._fail(item.start, f"`{item.text}`", _ONE_FORM)

    # The two sides of an operator.

    def _comparison(self, left: _Operand, op: Operator, right: _Operand) -> Condition:
        if isinstance(left.value, Token) and isinstance(right.value, Subject):
            return self._comparison(right, _MIRRORED[op], left)
        subject = self._subject(left)
        value = self._literal(subject, left, right)
        if isinstance(value, bool) and op not in {"=", "!="}:
            self._fail(right.start, f"`{right.text}`", "a number or a text: TRUE and FALSE have no order")
        return Compare(subject, op, value)

    def _membership(self, left: _Operand, right: _Operand) -> Condition:
        if isinstance(right.value, _Tags):
            if not (
                isinstance(left.value, Token) and left.value.kind == "literal" and isinstance(left.value.value, str)
            ):
                self._fail(left.start, f"`{left.text}`", f"a tag as text: 'vip' IN {right.text}")
            return HasTag(right.value.level, left.value.value)
        subject = self._subject(left)
        if not isinstance(right.value, tuple):
            self._fail(right.start, f"`{right.text}`", "a list of literals in parentheses, or tags")
        literals = [_Operand(token.start, token.text, token) for token in right.value]
        values = [self._literal(subject, left, literal) for literal in literals]
        for literal, value in zip(literals, values, strict=True):
            self._check_alike(literals[0], values[0], literal, value)
        return In(subject, tuple(values))

    def _range(self, left: _Operand, low: _Operand, high: _Operand) -> Between:
        subject = self._subject(left)
        values = [self._literal(subject, left, bound) for bound in (low, high)]
        for bound, value in zip((low, high), values, strict=True):
            if isinstance(value, bool):
                self._fail(bound.start, f"`{bound.text}`", "a number or a text: TRUE and FALSE have no order")
        self._check_alike(low, values[0], high, values[1])
        return Between(subject, *values)

    def _pattern(self, left: _Operand, right: _Operand) -> str:
        subject = self._subject(left)
        if "text" not in types_of(subject):
            self._fail(
                left.start, f"`{left.text}`", f"the name of a text before LIKE; this is a {types_of(subject)[0]}"
            )
        value = self._literal(subject, left, right)
        if not isinstance(value, str):
            self._fail(right.start, f"`{right.text}`", "a pattern in single quotes, for example 'gpt-%'")
        return value

    def _subject(self, operand: _Operand) -> Subject:
        if isinstance(operand.value, _Tags):
            self._fail(operand.start, f"`{operand.text}`", f"tags on the right of IN only: 'vip' IN {operand.text}")
        if isinstance(operand.value, Token):
            self._fail(operand.start, f"`{operand.text}`", "a name on the left, or one literal and one name")
        if not isinstance(operand.value, Subject):
            self._fail(operand.start, "a parenthesis", "a name, without parentheses, before an operator")
        return operand.value

    def _literal(self, subject: Subject, name: _Operand, operand: _Operand) -> Scalar:
        """Return the value of a literal. Its type must be one that the name can have."""
        token = operand.value
        if isinstance(token, Subject | _Tags):
            self._fail(operand.start, f"`{operand.text}`", "a literal: a name is compared with text, number or bool")
        if not isinstance(token, Token):
            self._fail(operand.start, "a parenthesis", "a literal, without parentheses; a list follows IN")
        wanted, value = types_of(subject), token.value
        if subject.part == "route" and not (isinstance(value, str) and value.lower() in ROUTES):
            self._fail(token.start, f"`{token.text}`", f"a route: {_ROUTES}")
        if wanted == ("time",):
            time = nanoseconds(value) if isinstance(value, str) else None
            if time is None:
                self._fail(
                    token.start, f"`{token.text}`", f"a time for {name.text}, 1678 to 2261: '2026-01-31T10:00:00Z'"
                )
            return time
        if token.kind == "time":
            self._fail(token.start, f"`{token.text}`", f"no time: {name.text} is not one; {_TIMES} are")
        if _type_name(value) not in wanted:
            types = " or a ".join(_SPELLED[word] for word in wanted)
            self._fail(token.start, f"`{token.text}`", f"a {types}: {name.text} is compared with nothing else")
        case = _CASE.get(subject.part or subject.kind)
        return case(value) if isinstance(value, str) and case is not None else value

    def _check_alike(self, first: _Operand, one: Scalar, second: _Operand, other: Scalar) -> None:
        if _type_name(one) != _type_name(other):
            self._fail(
                second.start, f"`{second.text}`", f"a {_type_name(one)} as `{first.text}` is: literals of one type"
            )

    def _fail(self, place: int, found: str, expected: str) -> NoReturn:
        raise FilterError(self._text, place, _shortened(found), expected)


def _shortened(found: str) -> str:
    # The message shows the whole text, with a mark at the place.
    return found if len(found) <= 80 else f"{found[:79]}…"


def _is_condition(item: _Item) -> bool:
    return isinstance(item, _Operand) and not isinstance(item.value, Subject | _Tags | Token | tuple)


def _joined(kind: type[And | Or], parts: Sequence[Condition]) -> Condition:
    flat: list[Condition] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, And | Or) and isinstance(part, kind) else (part,))
    return kind(tuple(flat))


def _levels(condition: Condition) -> int:
    parts: tuple[Condition, ...] = ()
    if isinstance(condition, And | Or):
        parts = condition.parts
    elif isinstance(condition, Not):
        parts = (condition.part,)
    return 1 + max(map(_levels, parts), default=0)


def types_of(subject: Subject) -> tuple[str, ...]:
    """Return the types that a name can be compared with: `number`, `time`, `text`, `bool`."""
    if subject.part in ORIGINS:
        return ("time",) if subject.part == "changed_at" else ("text",)
    if subject.kind in _ANY:
        return ("text", "number", "bool")
    if subject.kind == "status":
        return ("text", "number")
    if subject.kind in {"latency_ms", "late_count"} or subject.part == "score":
        return ("number",)
    return ("time",) if subject.kind in {"start_time", "end_time"} else ("text",)


def _type_name(value: Scalar) -> str:
    return "text" if isinstance(value, str) else "bool" if isinstance(value, bool) else "number"
