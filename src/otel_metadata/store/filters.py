"""The filter language: text in, a checked tree of comparisons out.

This module decides which texts are filters. It does not decide what a name stands for (`store.filter_names`), what is
a word (`store.filter_tokens`), nor what a condition means (`model.condition`).

Each parenthesis is parsed by itself, the innermost first, and what is in it is one operand of what is around it.
sqlglot therefore sees text of ours only: operands by number, operators and the words of the language, without literal,
key or parenthesis. It knows which word binds what; the nodes that it returns are checked against those allowed here,
with every argument that they carry, because its releases differ (`x NOT LIKE y` is a `Not` in 25 and a flag of `Like`
in 30). Parsed whole, 32 levels would take 700 frames of Python's stack, which an application may not have left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, cast, final

from otel_metadata.errors import FilterError
from otel_metadata.model.condition import (
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
    Scalar,
    Subject,
    SubjectKind,
)
from otel_metadata.model.merge import Level
from otel_metadata.model.times import nanoseconds
from otel_metadata.store.filter_names import TAGS, UnknownNameError, subject_of
from otel_metadata.store.filter_tokens import OPERATORS, Token, tokens_of

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["MAX_LEVELS", "parse"]

MAX_LEVELS: Final = 32
"""Of nested parentheses, and of the tree: a comparison is one level, each AND, OR or NOT around it another."""

_MIRRORED: Final[Mapping[Operator, Operator]] = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

_NEGATE: Final = frozenset({"negate"})
_ANY: Final = frozenset({"metadata", "attribute", "resource", "input", "output"})
# What is stored in one case only: a literal in the other one would find nothing, without a word.
_CASE: Final[Mapping[SubjectKind, Callable[[str], str]]] = {
    "trace_id": str.lower,
    "span_id": str.lower,
    "parent_id": str.lower,
    "kind": str.upper,
    "span_kind": str.upper,
    "status": str.upper,
}
_SPELLED: Final = {"text": "text in single quotes", "number": "number"}

_FORMS: Final = "name = literal, !=, <, <=, >, >=, IN (…), LIKE '…', BETWEEN … AND …, IS NULL, or 'tag' IN tags"
_ONE_FORM: Final = f"one of these between AND, OR and the ends: {_FORMS}"


@final
@dataclass(frozen=True, slots=True)
class _Tags:
    level: Level


_Value: TypeAlias = Subject | _Tags | Token | Condition | tuple[Token, ...]
"""What an operand is: a name; the tags; a literal (its token); a parenthesis; a list of literals."""


@final
@dataclass(frozen=True, slots=True)
class _Operand:
    start: int
    text: str
    value: _Value


_Item: TypeAlias = Token | _Operand


def parse(text: str) -> Condition:
    """Return the condition that a filter states.

    In one form: `And` and `Or` hold no part of their own kind, and `5 < latency_ms` is `latency_ms > 5`.

    Args:
        text: One expression of at most 4,096 bytes and 32 levels. Any thread; reads nothing else.

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
    """One text on its way to a condition."""

    def __init__(self, text: str) -> None:
        self._text = text

    def condition(self) -> Condition:
        """Return the condition of the whole text; parentheses are closed one after another, on a list of ours."""
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
        """Return what stands between two parentheses: literals with commas, or a condition."""
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
        """Return the condition of items without parentheses and lists."""
        self._check_words(items, end)
        condition = self._map(self._sqlglot(items), items)
        if _levels(condition) > MAX_LEVELS:
            self._fail(start, "an expression that is nested too deeply", f"at most {MAX_LEVELS} levels of AND, OR, NOT")
        return condition

    def _check_words(self, items: list[_Item], end: int) -> None:
        """Check what sqlglot's releases disagree about, and what it would report at another place than a reader."""
        words = ["" if isinstance(item, _Operand) else item.text for item in items]
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

    def _sqlglot(self, items: list[_Item]) -> exp.Expression:
        from sqlglot import parse_one
        from sqlglot.errors import ParseError

        # One item a line: the line of an error is the item.
        lines = [f"_{index}" if isinstance(item, _Operand) else item.text for index, item in enumerate(items)]
        try:
            return cast("exp.Expression", parse_one("\n".join(lines)))
        except ParseError as error:
            index = min(int(error.errors[0].get("line") or 1), len(items)) - 1
            item = items[index]
            raise FilterError(self._text, item.start, _shortened(f"`{item.text}`"), _ONE_FORM) from None

    def _map(self, node: exp.Expression, items: list[_Item]) -> Condition:
        """Return the condition of a node; chains of AND and OR, which lean to the left, are followed by a loop."""
        from sqlglot import exp

        if isinstance(node, exp.And | exp.Or):
            return self._chain(node, items)
        if isinstance(node, exp.Not):
            return Not(self._map(self._arguments(node, items, "this")[0], items))
        if isinstance(node, exp.Column | exp.Identifier):
            operand = self._operand(node, items)
            if not _is_condition(operand):
                self._fail(operand.start, f"`{operand.text}` by itself", f"a condition: {_FORMS}")
            return cast("Condition", operand.value)
        condition = self._predicate(node, items)
        return Not(condition) if node.args.get("negate") else condition

    def _chain(self, node: exp.And | exp.Or, items: list[_Item]) -> Condition:
        kind, parts = type(node), []
        rest: exp.Expression = node
        while isinstance(rest, kind):
            rest, right = self._arguments(rest, items, "this", "expression")
            parts.append(self._map(right, items))
        parts.append(self._map(rest, items))
        return _joined(And if kind.__name__ == "And" else Or, parts[::-1])

    def _predicate(self, node: exp.Expression, items: list[_Item]) -> Condition:
        from sqlglot import exp

        operators: dict[type[exp.Expression], Operator] = {
            exp.EQ: "=",
            exp.NEQ: "!=",
            exp.LT: "<",
            exp.LTE: "<=",
            exp.GT: ">",
            exp.GTE: ">=",
        }
        if type(node) in operators:
            left, right = self._operands(node, items, "this", "expression")
            return self._comparison(left, operators[type(node)], right)
        if isinstance(node, exp.In):
            left, right = self._operands(node, items, "this", "field")
            return self._membership(left, right)
        if isinstance(node, exp.Like):
            left, right = self._operands(node, items, "this", "expression")
            return Like(self._subject(left), self._pattern(left, right))
        if isinstance(node, exp.Between):
            left, low, high = self._operands(node, items, "this", "low", "high")
            return self._range(left, low, high)
        if not isinstance(node, exp.Is):
            self._unexpected(node, items)
        operand, null = self._arguments(node, items, "this", "expression", may_have=_NEGATE)
        if not isinstance(null, exp.Null):
            self._unexpected(node, items)
        return IsNull(self._subject(self._operand(operand, items)))

    # What sqlglot returned, checked.

    def _arguments(
        self, node: exp.Expression, items: list[_Item], *names: str, may_have: frozenset[str] = frozenset()
    ) -> list[exp.Expression]:
        """Return the arguments of a node, which must have these and no other."""
        given = {name for name, value in node.args.items() if value}
        if given - may_have != set(names):
            self._unexpected(node, items)
        return [node.args[name] for name in names]

    def _operands(self, node: exp.Expression, items: list[_Item], *names: str) -> list[_Operand]:
        arguments = self._arguments(node, items, *names, may_have=_NEGATE)
        return [self._operand(argument, items) for argument in arguments]

    def _operand(self, node: exp.Expression, items: list[_Item]) -> _Operand:
        from sqlglot import exp

        if not isinstance(node, exp.Column | exp.Identifier):
            self._unexpected(node, items)
        return _numbered(node.name, items)

    def _unexpected(self, node: exp.Expression, items: list[_Item]) -> NoReturn:
        from sqlglot import exp

        last = max((_numbered(part.name, items) for part in node.find_all(exp.Identifier)), key=lambda item: item.start)
        self._fail(last.start, f"`{last.text}`", _ONE_FORM)

    # What stands on the two sides of an operator.

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
        if "text" not in _types_of(subject):
            self._fail(
                left.start, f"`{left.text}`", f"the name of a text before LIKE; this is a {_types_of(subject)[0]}"
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
        """Return the value of a literal, which must be of a type that the name can have."""
        token = operand.value
        if isinstance(token, Subject | _Tags):
            self._fail(operand.start, f"`{operand.text}`", "a literal: a name is compared with text, number or bool")
        if not isinstance(token, Token):
            self._fail(operand.start, "a parenthesis", "a literal, without parentheses; a list follows IN")
        wanted, value = _types_of(subject), token.value
        if wanted == ("time",):
            time = nanoseconds(value) if isinstance(value, str) else None
            if time is None:
                self._fail(
                    token.start, f"`{token.text}`", f"a time for {name.text}, 1678 to 2261: '2026-01-31T10:00:00Z'"
                )
            return time
        if token.kind == "time":
            self._fail(token.start, f"`{token.text}`", f"no time: {name.text} is not one; start_time and end_time are")
        if _type_name(value) not in wanted:
            types = " or a ".join(_SPELLED[word] for word in wanted)
            self._fail(token.start, f"`{token.text}`", f"a {types}: {name.text} is compared with nothing else")
        if isinstance(value, str) and subject.kind in _CASE:
            return _CASE[subject.kind](value)
        return value

    def _check_alike(self, first: _Operand, one: Scalar, second: _Operand, other: Scalar) -> None:
        if _type_name(one) != _type_name(other):
            self._fail(
                second.start, f"`{second.text}`", f"a {_type_name(one)} as `{first.text}` is: literals of one type"
            )

    def _fail(self, place: int, found: str, expected: str) -> NoReturn:
        raise FilterError(self._text, place, _shortened(found), expected)


def _shortened(found: str) -> str:
    # The place is shown below the message: its beginning is enough.
    return found if len(found) <= 80 else f"{found[:79]}…"


def _numbered(name: str, items: list[_Item]) -> _Operand:
    return cast("_Operand", items[int(name[1:])])


def _is_condition(item: _Item) -> bool:
    return isinstance(item, _Operand) and not isinstance(item.value, Subject | _Tags | Token | tuple)


def _joined(kind: type[And | Or], parts: Sequence[Condition]) -> Condition:
    flat: list[Condition] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, And | Or) and isinstance(part, kind) else (part,))
    return kind(tuple(flat))


def _levels(condition: Condition) -> int:
    return 1 + max((_levels(part) for part in _parts(condition)), default=0)


def _parts(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, And | Or):
        yield from condition.parts
    elif isinstance(condition, Not):
        yield condition.part


def _types_of(subject: Subject) -> tuple[str, ...]:
    """Return what a name is compared with: `number`, `time`, `text`, `bool`."""
    if subject.kind in _ANY:
        return ("text", "number", "bool")
    if subject.kind == "status":
        return ("text", "number")
    if subject.kind == "latency_ms" or subject.part == "score":
        return ("number",)
    return ("time",) if subject.kind in {"start_time", "end_time"} else ("text",)


def _type_name(value: Scalar) -> str:
    return "text" if isinstance(value, str) else "bool" if isinstance(value, bool) else "number"
