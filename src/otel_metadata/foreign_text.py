"""Makes text of others safe to show: in a log line, in the message of an error, on a terminal.

A span, a file, a server or an exception may contain any text. An escape sequence could clear the screen, a line break
could add a line to a log, and a mark of writing direction could reverse the text beside it. A server may repeat the key
that it was sent. Everything here is pure.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import reprlib
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote

# Characters that Python takes for printable but that are invisible: they hide text, or make two names look alike.
# Source: Unicode, DerivedCoreProperties, Default_Ignorable_Code_Point; without U+FE00 to U+FE0F, which emoji need.
_BLANK: Final = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\U000e0100-\U000e01ef]")

_SECRET_NAME: Final = re.compile(r"auth|cookie|key|pass|secret|sign|token", re.IGNORECASE)
_SCHEMES: Final = frozenset({"apikey", "basic", "bearer", "digest", "negotiate", "token"})

# Shorter words are not hidden, because they occur in many sentences. A value whose name says that it is a secret is
# hidden from a smaller length on.
_LEAST: Final = 8
_LEAST_OF_SECRET: Final = 4


def visible(text: str) -> str:
    """Return *text* on one line, with escapes for characters that a terminal or a log would obey instead of showing."""
    if text.isprintable() and (text.isascii() or _BLANK.search(text) is None):
        return text
    return "".join(char if _is_shown(char) else _escape(char) for char in text)


# How much of a value a message shows. `repr` of the whole value would take time and memory in proportion to its size,
# and would raise if it is deep.
_SHOWN: Final = 60
_REPR: Final = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxdict, _REPR.maxlist = 3, _SHOWN, 4, 6


def described(value: object) -> str:
    """Return the type of a value and its beginning, in ASCII: short, however large or deep the value is."""
    beginning = ascii(value[:_SHOWN]) if isinstance(value, str | bytes) else _REPR.repr(value)
    return f"{type(value).__name__} {beginning.encode('ascii', 'backslashreplace').decode()[:_SHOWN]}"


def without_secrets(text: str, headers: Mapping[str, str], query: str = "") -> str:
    """Return a peer's *text*, made visible, with `***` for every secret that was sent to the peer.

    Secrets are the values of headers and of the query, their words, and the contents of Basic credentials. They are
    found in each form in which a peer may repeat them: encoded, and in upper or lower case.

    Args:
        text: The text of the peer.
        headers: The headers of the request.
        query: The query of the request's URL.
    """
    shown = visible(text)
    forms = {form for secret in _secrets(headers, query) for form in _forms(secret)}
    if not forms:
        return shown
    # The longest first, because one secret may be the beginning of another.
    pattern = "|".join(map(re.escape, sorted(forms, key=lambda form: (-len(form), form))))
    return re.sub(pattern, "***", shown, flags=re.IGNORECASE)


def _is_shown(char: str) -> bool:
    if char.isprintable():
        return _BLANK.match(char) is None
    return unicodedata.category(char) == "Zs"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _secrets(headers: Mapping[str, str], query: str) -> Iterator[str]:
    pairs = [part.partition("=") for part in query.split("&")]
    given = [(name, value or name) for name, _, value in pairs]  # a query may be the key alone
    for name, value in [*headers.items(), *given, *parse_qsl(query)]:
        least = _LEAST_OF_SECRET if _SECRET_NAME.search(name) else _LEAST
        words = [value.strip(), *value.split(), *re.split(r"[\s,;=\"]+", value)]
        for word in [*words, *(part for inside in map(_decoded, words) for part in (inside, *inside.split(":", 1)))]:
            if len(word) >= least and word.lower() not in _SCHEMES:
                yield word


def _decoded(word: str) -> str:
    """Return the text that a word encodes in base64, as Basic credentials do; "" if it does not encode a text."""
    try:
        text = base64.b64decode(word + "=" * (-len(word) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return text if text.isprintable() else ""


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield visible(secret)
    yield quote(secret, safe="")
    yield json.dumps(secret)[1:-1]
