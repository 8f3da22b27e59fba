"""Credentials are replaced by default, wherever their key or their place in a URL tells them.

This module decides which keys name a secret. It looks at names, not at values: a key without a telling name, and a
secret in the middle of a text, are the business of a mask of the application's own (`masking`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

from otel_metadata.model.merge import Json

__all__ = [
    "HEADERS",
    "MASKED",
    "attributes_with_secrets",
    "folded",
    "is_credential",
    "masked_text",
    "without_credentials",
    "without_credentials_under",
]

MASKED: Final = "<masked>"
"""What stands for a value that was replaced."""

HEADERS: Final = frozenset({"gen_ai.headers", "llm.headers"})
"""Attributes into which OpenLLMetry copies all extra headers of a request; the second is their former name."""

# As instrumentations and scrubbing processors write it.
_GONE: Final = re.compile(r"[\[<(]?(redacted|scrubbed|masked|filtered|removed|hidden)[\])>]?|\*+", re.IGNORECASE)

_SEPARATORS: Final = re.compile(r"[\W_]+")

# The end of a key, without case and separators: `X-API-Key`, `db_password`, `clientSecret`, `aws.secret_access_key`.
_ENDINGS: Final = (
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "pwd",
    "passwordhash",
    "passwordconfirmation",
    "secret",
    "secrets",
    "apikey",
    "apikeys",
    "accesskey",
    "secretkey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "subscriptionkey",
    "accountkey",
    "authkey",
    "authorization",
    "credential",
    "credentials",
    "cookie",
    "cookies",
    "connectionstring",
)
_WORDS: Final = frozenset(
    {"auth", "basicauth", "proxyauth", "bearer", "jwt", "sshkey", "jsessionid", "phpsessid", "connectsid", "sessdata"}
)
# Written so, it is Django's cookie; `session_id` and `sessionId` are names of conversations.
_EXACT: Final = frozenset({"sessionid"})

# Of language models, and of pages.
_NO_SECRET_TOKENS: Final = frozenset(
    f"{word}token"
    for word in (
        *("bos", "eos", "pad", "unk", "sep", "cls", "mask", "stop", "special", "control", "image", "audio", "think"),
        *(
            "prompt",
            "completion",
            "input",
            "output",
            "decoded",
            "sampled",
            "predicted",
            "start",
            "end",
            "first",
            "last",
        ),
        *("next", "page", "nextpage", "pagination", "continuation", "cursor", "sync", "nextsync", "cancellation"),
    )
)
_LIKELIHOODS: Final = ("logprob", "log_prob", "prob", "rank", "token_id", "special")

# user:password@ of a URL. The bounds keep a hostile text from costing more than its length.
_URL_PASSWORD: Final = re.compile(r"(://[^\s/?#:@\"'<>]{0,256}:)[^\s/?#@\"'<>]{1,1024}(?=@)")


def folded(key: str) -> str:
    """Return a key without case and separators: `X-API-Key`, `x_api_key` and `xApiKey` are the same."""
    return _SEPARATORS.sub("", key.casefold())


@functools.lru_cache(4_096)
def is_credential(key: str) -> bool:
    """Whether a key names a secret."""
    word = folded(key).rstrip("0123456789")
    return word.endswith(_ENDINGS) or word in _WORDS or key in _EXACT or key in HEADERS or _is_token(word)


def _is_token(word: str) -> bool:
    return word.endswith("token") and word not in _NO_SECRET_TOKENS


def attributes_with_secrets(attributes: Mapping[str, Any], *, by_name: bool) -> list[str]:
    """Return the names of the attributes whose values are secrets.

    Args:
        attributes: Of a span, an event or a link; set by anybody.
        by_name: Whether each name is looked at; False for `HEADERS` alone.
    """
    tells = is_credential if by_name else HEADERS.__contains__
    return [
        name for name in attributes if tells(name) and _is_secret(name, held := attributes[name]) and not _is_gone(held)
    ]


def _is_gone(value: object) -> bool:
    """Whether somebody has replaced a secret before."""
    return isinstance(value, str) and _GONE.fullmatch(value) is not None


def masked_text(text: str) -> str:
    """Return a text with the passwords of its URLs replaced."""
    return _URL_PASSWORD.sub(rf"\g<1>{MASKED}", text) if "://" in text and "@" in text else text


def without_credentials_under(key: str, value: Json) -> Json:
    """Return a value that stands under *key*: `MASKED` when the key names a secret, else without those inside."""
    return MASKED if is_credential(key) and _is_secret(key, value) else without_credentials(value)


def without_credentials(value: Json) -> Json:
    """Return *value* with every secret replaced that a key, a pair or a URL tells; itself when there is none.

    A pair is a list of two in a list of such pairs, as headers are written.
    """
    if type(value) is str:
        return masked_text(value)
    if type(value) is dict:
        changed = {}
        for key, item in value.items():
            is_secret = is_credential(key) and _is_secret(key, item) and not _is_of_a_model(key, item, value)
            kept = MASKED if is_secret else without_credentials(item)
            if kept is not item:
                changed[key] = kept
        return {**value, **changed} if changed else value
    if type(value) is list:
        items = _pairs(value) or [without_credentials(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _is_secret(key: str, value: Json) -> bool:
    """Whether a value under a telling key is a secret: nothing, yes and no are none, nor is the number of a token."""
    if value is None or type(value) is bool or value in ("", [], {}):
        return False
    return type(value) not in (int, float) or not _is_token(folded(key))


def _is_of_a_model(key: str, value: Json, siblings: dict[str, Json]) -> bool:
    """Whether a `token` is a piece of a model's answer: its likelihood stands beside it, or in it."""
    if folded(key) != "token":
        return False
    beside = value if type(value) is dict else siblings
    return any(name.startswith(_LIKELIHOODS) for name in beside)


def _pairs(items: list[Json]) -> list[Json] | None:
    """Return a list of pairs without credentials; None when it is another list."""
    pairs: list[Json] = []
    for item in items:
        if type(item) is not list or len(item) != 2 or type(item[0]) is not str:
            return None
        kept = without_credentials_under(item[0], item[1])
        pairs.append(item if kept is item[1] else [item[0], kept])
    return pairs
