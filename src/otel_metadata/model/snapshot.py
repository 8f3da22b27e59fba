"""A captured value as one text, made while the application waits.

This module decides which values are encoded at once, and which are cleaned first. Captured input and output become JSON
text on a span. A value that is JSON already, within the limits and without credentials, is checked once and encoded by
one C call. Every other value is cleaned (`value`), freed of credentials, and then encoded. The result is the same.

The check comes first, and `orjson` gets no `default`. A `default` is Python code in the middle of the C call: when
another thread changes a list or dict at that moment, orjson 3 reads freed memory and the process dies (tried with
3.13).
"""

from __future__ import annotations

import re
from itertools import chain
from math import isfinite
from typing import Any, Final, TypeAlias, cast

import orjson

from otel_metadata.interrupts import pass_on
from otel_metadata.model.credentials import (
    is_credential,
    is_named_secret,
    masked_text,
    may_tell_a_secret,
    names_a_secret,
    without_credentials,
)
from otel_metadata.model.merge import Json
from otel_metadata.model.value import CAPTURE_LIMITS, MAX_KEY_CHARS, clean, is_clean_scalar

Snapshot: TypeAlias = str | tuple[str]
"""A text as it is, or a tuple of one text: the JSON of any other value, exactly as it is on the span."""

# orjson reads no instance of an application's class.
_EXACT_TYPES: Final = (
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)

# A value within the limit of one text has no text beyond it.
_MAX_CHARS: Final = CAPTURE_LIMITS.text_chars
_MAX_NODES: Final = CAPTURE_LIMITS.nodes
_MAX_DEPTH: Final = CAPTURE_LIMITS.depth
_MAX_INT: Final = (1 << 63) - 1
_MIN_INT: Final = -(1 << 63)
# With more parts than this, a C call for all of them costs less than a loop.
_MANY: Final = 8
_DICTS: Final = {dict}
_TEXTS: Final = {str}
_FLOATS: Final = {float}
# The user and password of a URL are at most this long. With more candidates than this, the value is cleaned instead.
_MAX_URL_USER: Final = 1_400
_MAX_LOOKS: Final = 32

# Keys that stay as they are, without and with masking of credentials: an application uses few keys, again and again.
_fit_keys: Final[tuple[set[str], set[str]]] = (set(), set())
# As in `credentials`, for the JSON text.
_PATH_QUERY: Final = re.compile(rb"\?[\w.~%;\[\]-]{1,64}=")
MAX_FIT_KEYS: Final = 4_096


def snapshot(value: object, notes: list[str], path: str, *, masks_credentials: bool) -> Snapshot:
    """Return *value* as text or JSON; a later change of it has no effect.

    Args:
        value: Anything.
        notes: As for `clean`.
        path: As for `clean`.
        masks_credentials: Whether credentials are replaced.
    """
    kind = type(value)
    if kind is dict or kind is list or kind is tuple:
        try:
            rows: list[dict[Any, Any]] = []
            if _is_plain([value], rows, _fit_keys[masks_credentials], masks_credentials=masks_credentials):
                text = orjson.dumps(value, option=_EXACT_TYPES)  # refuses keys that are not exact texts
                if (
                    len(text) <= _MAX_CHARS
                    and not _has_nul(text)
                    and not (masks_credentials and _tells_a_secret(text))
                    and (not rows or _have_fit_keys(rows, _fit_keys[masks_credentials], masks=masks_credentials))
                ):
                    return (text.decode(),)
        except Exception as error:  # noqa: BLE001 # the careful way takes values that orjson refuses, or that others change
            pass_on(error)
    elif is_clean_scalar(value) and not (kind is str and may_tell_a_secret(value)):  # type: ignore[arg-type] # the exact type was just tested
        return encoded(value)  # type: ignore[arg-type] # is_clean_scalar has decided
    cleaned = clean(value, notes, path, CAPTURE_LIMITS)
    return encoded(without_credentials(cleaned) if masks_credentials else cleaned)


def encoded(value: Json) -> Snapshot:
    """Return a clean value as text or JSON."""
    return value if type(value) is str else (orjson.dumps(value).decode(),)


def value_of(taken: Snapshot) -> Json:
    """Return the value again."""
    return taken if type(taken) is str else cast("Json", orjson.loads(taken[0]))


def _is_plain(level: Any, rows: list[dict[Any, Any]], fit: set[str], *, masks_credentials: bool) -> bool:
    """Whether containers hold only JSON of exact builtin types, within the limits and without keys that name a secret.

    The dicts that it adds to *rows* hold only texts. Their keys are not checked: `orjson` checks the types of keys in
    its one call, and `_have_fit_keys` the keys after it.

    It goes level by level, which counts the depth and makes no call for a part. No code of the application runs: types
    are compared before a value is used. Rows and vectors are checked by C calls, and the parts of other values in two
    loops, one for dicts and one for lists, because a function call for each would cost more.
    """
    nodes = _MAX_NODES - len(level)
    chars = _MAX_CHARS
    dicts = 0  # the number of parts of this level that are known to be dicts
    for _ in range(_MAX_DEPTH):
        count = sum(map(len, level))
        nodes -= count
        if nodes < 0:
            return False
        if len(level) > _MANY and (dicts == len(level) or {*map(type, level)} == _DICTS):
            try:
                # Messages and rows of texts: one call checks that all are texts, and counts their characters.
                chars -= len("".join(chain.from_iterable(map(dict.values, level))))
            except TypeError:
                # A set compares keys, which runs the code of an application's class: so all keys must be exact texts.
                if [*map(type, chain.from_iterable(level))].count(str) != count:
                    return False
                if not _have_fit_keys(level, fit, masks=masks_credentials):
                    return False
                level = ([*chain.from_iterable(map(dict.values, level))],)
            else:
                rows += level
                return chars >= 0
        below: list[Any] = []
        dicts = 0
        for part in level:
            if type(part) is dict:
                for key, item in part.items():
                    if type(key) is not str or (key not in fit and not _is_fit(key, fit, masks=masks_credentials)):
                        return False
                    kind = type(item)
                    if kind is str:
                        chars -= len(item)
                    elif kind is dict or kind is list or kind is tuple:
                        below.append(item)
                    elif kind is int:
                        if not _MIN_INT <= item <= _MAX_INT:
                            return False
                    elif not (item is None or kind is bool or (kind is float and isfinite(item))):
                        return False
                if masks_credentials and ("value" in part or "Value" in part) and is_named_secret(part):
                    return False
                continue
            if len(part) > _MANY:
                kinds = {*map(type, part)}
                if kinds == _TEXTS:
                    chars -= sum(map(len, part))
                    continue
                if kinds == _DICTS:
                    below += part
                    dicts += len(part)
                    continue
                if kinds == _FLOATS and isfinite(sum(part)):
                    continue
            elif len(part) == 2 and masks_credentials and names_a_secret(part[0]):
                return False
            for item in part:
                kind = type(item)
                if kind is str:
                    chars -= len(item)
                elif kind is dict or kind is list or kind is tuple:
                    below.append(item)
                elif kind is int:
                    if not _MIN_INT <= item <= _MAX_INT:
                        return False
                elif not (item is None or kind is bool or (kind is float and isfinite(item))):
                    return False
        if chars < 0:
            return False
        if not below:
            return True
        level = below
    return False


def _may_show_a_user(text: bytes) -> bool:
    at = text.find(b"@")
    for _ in range(_MAX_LOOKS):
        if at < 0:
            return False
        if text.rfind(b"://", max(at - _MAX_URL_USER, 0), at) >= 0:
            return True
        at = text.find(b"@", at + 1)
    return at >= 0


def _has_nul(text: bytes) -> bool:
    """Whether a text in the JSON may hold a NUL. The search for a backslash is the quicker one, so it comes first."""
    return b"\\" in text and b"\\u0000" in text


def _tells_a_secret(text: bytes) -> bool:
    """Whether there may be a secret: a URL with `://` not far before the rare `@`, or a secret parameter or header."""
    # A single letter is found quickest.
    if b"@" in text and b"://" in text and _may_show_a_user(text):
        return True
    has_query = b"=" in text and (b"://" in text or (b"?" in text and _PATH_QUERY.search(text) is not None))
    has_header = (b"z" in text and b"uthorization" in text) or (b"Z" in text and b"UTHORIZATION" in text)
    if not (has_query or has_header):
        return False
    return masked_text(shown := text.decode()) != shown


def _have_fit_keys(rows: list[dict[str, Any]], fit: set[str], *, masks: bool) -> bool:
    """Whether the keys, all exact texts, stay as they are, and no key and no name beside a value names a secret."""
    keys = set().union(*rows)
    return (keys <= fit or all(_is_fit(key, fit, masks=masks) for key in keys)) and not (
        masks and ("value" in keys or "Value" in keys) and any(map(is_named_secret, rows))
    )


def _is_fit(key: object, fit: set[str], *, masks: bool) -> bool:
    """Whether a key stays as it is, and names no credential."""
    if (
        type(key) is not str
        or not 0 < len(key) <= MAX_KEY_CHARS
        or not key.isprintable()
        or (masks and is_credential(key))
    ):
        return False
    if len(fit) < MAX_FIT_KEYS:
        fit.add(key)
    return True
