"""The tokens of a filter: its text cut into names, literals, operators and parentheses, each with its place.

An SQL library is not used for this. There `metadata.a.0` is a name and a number, comments vanish, `GROUP BY` is one
token, and the words that can be metadata keys change with the release. Here every character that is not part of the
language is refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

from otel_metadata.errors import FilterError
from otel_metadata.model.condition import Scalar

MAX_BYTES: Final = 4_096
"""The greatest size of a filter, in UTF-8."""

TokenKind: TypeAlias = Literal["name", "literal", "time", "word", "operator", "(", ")", ","]
"""`time` is `TIMESTAMP '…'`; `word` is one of AND OR NOT IN LIKE IS NULL BETWEEN, in upper case."""

_WORDS: Final = frozenset({"AND", "OR", "NOT", "IN", "LIKE", "IS", "NULL", "BETWEEN"})
_BOOLS: Final = {"TRUE": True, "FALSE": False}
RESERVED: Final = _WORDS | set(_BOOLS) | {"TIMESTAMP"}

_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1

_SEGMENT: Final = re.compile(r'"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>\w+)')

_TOKEN: Final = re.compile(
    r"""
      (?P<comment> -- | /\* )
    | (?P<time> (?i:TIMESTAMP) \s* '[^']*' (?!') )
    | (?P<name> [^\W\d]\w* (?: \. (?: \w+ | "[^"]* (?: ""[^"]* )*" (?!") ) )* )
    | (?P<text> '[^']* (?: \'\'[^']* )*' (?!') )
    | (?P<number> (?: [+-]\s* )? (?: [0-9]+ (?: \.[0-9]* )? | \.[0-9]+ ) (?: [eE][+-]?[0-9]+ )? (?! [\w.] ) )
    | (?P<operator> <= (?!>) | >= | <> | != | = (?!=) | < (?!=) | > )
    | (?P<mark> [(),] )
    """,
    re.VERBOSE,
)
_SPACE: Final = re.compile(r"\s*")

# Characters that are refused, and what to write instead.
_INSTEAD: Final = {
    "--": "a filter without comments",
    "/*": "a filter without comments",
    ";": "one expression, without `;`",
    "==": "=",
    "<=>": "= or IS NULL",
    "!": "NOT, or !=",
    "||": "OR",
    "|": "OR",
    "&&": "AND",
    "&": "AND",
    "?": "the value itself: a filter has no parameters",
    ":": "the value itself: a filter has no parameters and no casts",
    "@": "the value itself: a filter has no parameters",
    "$": "the value itself: a filter has no parameters",
    "*": "a name or a literal",
    "[": "( before a list",
    "`": "double quotes around a key",
    ".": "a name before the dot and a key after it, without spaces; a key with other characters in double quotes",
    '."': 'a closing " (inside of a key it is written twice)',
    "'": "a closing ' (inside of a text it is written twice)",
    '"': 'single quotes around a text; double ones are for keys, after their level: metadata."user-id"',
}

OPERATORS: Final = "=, !=, <, <=, >, >=, AND, OR, NOT, IN, LIKE, BETWEEN and IS NULL"
"""All operators, for messages."""


@final
@dataclass(frozen=True, slots=True)
class Token:
    """One token of a filter.

    Attributes:
        kind: The kind of token.
        text: The text as it was written; a word or operator in its normal spelling.
        start: Index of the first character.
        value: The value of a literal; for a time, the text between its quotes; otherwise "".
        segments: The parts of a name between the dots, without quotes, each with its index; otherwise empty.
    """

    kind: TokenKind
    text: str
    start: int
    value: Scalar = ""
    segments: tuple[tuple[str, int], ...] = ()


def tokens_of(text: str) -> list[Token]:
    """Cut a filter into tokens.

    Raises:
        FilterError: The filter is too long, or has a comment, or a character, number or text that is not understood.
    """
    _check_size(text)
    tokens: list[Token] = []
    place = _SPACE.match(text).end()  # type: ignore[union-attr] # matches everywhere
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None or found.lastgroup == "comment":
            raise _refused(text, place, tokens)
        tokens.append(_token(text, found))
        place = _SPACE.match(text, found.end()).end()  # type: ignore[union-attr] # matches everywhere
    return tokens


def _check_size(text: str) -> None:
    place = next((index for index, char in enumerate(text) if char == "\0" or "\ud800" <= char <= "\udfff"), None)
    if place is not None:
        raise FilterError(text, place, ascii(text[place]), "text without NUL and lone surrogates")
    size = len(text.encode())
    if size > MAX_BYTES:
        kept = len(text.encode()[:MAX_BYTES].decode(errors="ignore"))
        raise FilterError(text, kept, f"{size:,} bytes", f"at most {MAX_BYTES:,}; select by fewer values at once")


def _token(text: str, found: re.Match[str]) -> Token:
    raw, start = found.group(), found.start()
    if found.lastgroup == "name":
        return _name(text, raw, start)
    if found.lastgroup == "time":
        return Token("time", raw, start, raw[raw.index("'") + 1 : -1])
    if found.lastgroup == "text":
        return Token("literal", raw, start, raw[1:-1].replace("''", "'"))
    if found.lastgroup == "number":
        return Token("literal", raw, start, _number(text, raw, start))
    if found.lastgroup == "operator":
        return Token("operator", "!=" if raw == "<>" else raw, start)
    return Token("(" if raw == "(" else ")" if raw == ")" else ",", raw, start)


def _name(text: str, raw: str, start: int) -> Token:
    upper = raw.upper()
    if upper in _BOOLS:
        return Token("literal", raw, start, _BOOLS[upper])
    if upper in _WORDS:
        return Token("word", upper, start)
    if upper == "TIMESTAMP":
        raise FilterError(text, start, f"`{raw}`", "a time in quotes after it: TIMESTAMP '2026-01-31'")
    segments = []
    for segment in _SEGMENT.finditer(raw):
        place = start + segment.start()
        key = segment["plain"]
        if key is None:
            key = segment["quoted"].replace('""', '"')
        elif key.upper() in RESERVED:
            raise FilterError(text, place, f"`{key}`, a word of SQL", f'it in double quotes as a key: "{key}"')
        if not key:
            raise FilterError(text, place, "an empty key", "at least one character between the quotes")
        segments.append((key, place))
    return Token("name", raw, start, segments=tuple(segments))


def _number(text: str, raw: str, start: int) -> int | float:
    digits = "".join(raw.split())
    try:
        number: int | float = int(digits)
    except ValueError:
        number = float(digits)
    if isinstance(number, float) and not math.isfinite(number):
        raise FilterError(text, start, f"`{raw}`", "a number of at most 1.797e308")
    if isinstance(number, int) and not _INT64_MIN <= number <= _INT64_MAX:
        raise FilterError(text, start, "an integer beyond 64 bits", f"{_INT64_MIN} to {_INT64_MAX}, or it as text")
    return number


def _refused(text: str, place: int, tokens: list[Token]) -> FilterError:
    mark = next((mark for mark in sorted(_INSTEAD, key=len, reverse=True) if text.startswith(mark, place)), text[place])
    if mark in _INSTEAD:
        return FilterError(text, place, f"`{mark}`", _INSTEAD[mark])
    before = tokens[-1] if tokens else None
    if before is not None and before.kind == "name" and before.start + len(before.text) == place and mark in "-/#%~+":
        return FilterError(
            text,
            place,
            f"`{mark}`",
            'a comparison; a key with other characters goes in double quotes: metadata."user-id"',
        )
    if mark in "0123456789+-":
        return FilterError(text, place, f"`{mark}`", "a number such as 12, -0.5 or 1e6: there is no arithmetic")
    return FilterError(text, place, ascii(mark), f"names, literals, parentheses, and the operators {OPERATORS}")
