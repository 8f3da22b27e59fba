"""Credentials: by default they are replaced, wherever a key names them, or a URL or an `Authorization` shows them.

This module decides which keys name a secret. It looks at names, not at values. For a secret under any other key, and
for one in the middle of a text that is neither in a URL nor behind `Authorization`, an application needs a mask of its
own (`masking`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from otel_metadata.model.merge import Json

MASKED: Final = "<masked>"
"""The text that replaces a value."""

HEADERS: Final = frozenset({"gen_ai.headers", "llm.headers"})
"""OpenLLMetry copies all extra headers of a request into the first attribute; older versions into the second."""

# The texts with which instrumentations and scrubbing processors replace a secret.
_GONE: Final = re.compile(r"[\[<(]?(redacted|scrubbed|masked|filtered|removed|hidden)[\])>]?|\*+", re.IGNORECASE)

_SEPARATORS: Final = re.compile(r"[\W_]+")

# Ends of keys, without case and separators: `X-API-Key`, `db_password`, `clientSecret`, `aws.secret_access_key`.
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
    "passcode",
    "masterkey",
    "sharedkey",
    "licensekey",
    "servicerolekey",
    # `stripe_key` is a secret, `primary_key` and `cache_key` are not: the word before `key` decides.
    *(
        f"{vendor}key"
        for vendor in (
            *("openai", "anthropic", "claude", "gemini", "azure", "aws", "mistral", "cohere", "groq", "deepseek"),
            *("openrouter", "perplexity", "huggingface", "hf", "replicate", "elevenlabs", "voyage", "tavily"),
            *("serpapi", "pinecone", "supabase", "stripe", "twilio", "sendgrid", "mailgun", "github", "gitlab"),
            *("slack", "datadog", "langfuse", "langsmith", "braintrust"),
        )
    ),
)
# Words that may follow a name: `authorization_header`, `secret_value`, `password_text`. But `token_text` is text of a
# language model.
_ENDS: Final = re.compile("(header|value)$")
_ENDS_OF_TEXTS: Final = re.compile("(plaintext|text|string)$")
_WORDS: Final = frozenset(
    {"auth", "basicauth", "proxyauth", "bearer", "jwt", "sshkey", "jsessionid", "phpsessid", "connectsid", "sessdata"}
)
# In this spelling it is Django's cookie; `session_id` and `sessionId` name conversations.
_EXACT: Final = frozenset({"sessionid"})

# Tokens of language models, and of pages of results.
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
_LIKELIHOODS: Final = frozenset(
    {"logprob", "logprobs", "log_prob", "log_probs", "log_probability", "prob", "probability", "rank", "token_id"}
    | {"special", "top_logprobs"}
)
_OF_A_TOKEN: Final = _LIKELIHOODS | {"id", "text", "token", "bytes", "index", "start", "end", "text_offset"}
# Only tokens of spaces are longer in vocabularies; keys of vendors have 32 characters and more.
_MAX_TOKEN: Final = 31

# The keys of a dict that holds a name and its value, as headers and variables often do.
NAMES_BESIDE: Final = ("name", "key", "header", "Name", "Key", "Header")
VALUES_BESIDE: Final = ("value", "Value")
# A longer text, or one with more words, is a sentence, such as a question in a conversation.
_MAX_NAME: Final = 64
_MAX_SPACES: Final = 1
_PAIR: Final = 2
# Words alone, such as tags or the names of columns (`address_2`), but not `Bearer abc`.
_WORDS_ALONE: Final = re.compile(
    r"(?!(?:bearer|basic|digest|token|negotiate)\s)[^\W\d]+(?:[ -][^\W\d]+)*(?:(?<=_)\d{1,2})?", re.IGNORECASE
)

# JSON Schema, which describes the arguments of tools.
_SCHEMA_TELLS: Final = frozenset({"type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf"})
_SCHEMA_SAMPLES: Final = ("default", "const", "example", "examples")
_SCHEMA_KEYS: Final = _SCHEMA_TELLS.union(
    _SCHEMA_SAMPLES,
    ("description", "title", "items", "prefixItems", "properties", "required", "format", "pattern", "nullable"),
    ("additionalProperties", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minimum", "maximum"),
    ("readOnly", "writeOnly", "deprecated", "$defs", "definitions", "not", "strict"),
)
# These hold names, or all allowed values.
_SCHEMA_LISTS: Final = frozenset({"required", "enum", "propertyOrdering"})
_SCHEMA_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})

# The password of a URL, up to the last @ of its authority. The bounds keep the cost for a hostile text linear.
_URL_PASSWORD: Final = re.compile(r"(://[^\s/?#:@\"'<>]{0,256}:)[^\s/?#\"'<>]{1,1024}(?=@)")
# In an HTTP URL, a user without a password is a token; in others, such as `ssh://git@host`, it is a user.
_URL_TOKEN: Final = re.compile(r"(https?://)[\w.~%+=$!*-]{1,1024}(?=:?@|:x-oauth-basic@)", re.IGNORECASE)
# The query of a path without an address: a name follows the question mark.
_PATH_QUERY: Final = re.compile(r"\?[\w.~%;\[\]-]{1,64}=")
# The scheme shows that a token follows. A quote may be escaped, because the text may be JSON.
_AUTHORIZATION: Final = re.compile(
    r"(authorization(?:\\{0,3}[\"'])?\s{0,4}[:=]\s{0,4}(?:\\{0,3}[\"'])?(?:bearer|basic|token|digest|apikey)\s{1,4})"
    r"[^\s\"'\\<>]{1,8192}",
    re.IGNORECASE,
)
_URL_QUERY: Final = re.compile(r"([?&#])([\w.~%;\[\]-]{1,64})=[^&\s\"'<>#]+")


def folded(key: str) -> str:
    """Return a key without case and separators: the same for `X-API-Key`, `x_api_key` and `xApiKey`."""
    return _SEPARATORS.sub("", key.casefold())


@functools.lru_cache(4_096)
def is_credential(key: str) -> bool:
    """Whether a key names a secret."""
    word = _word(key)
    return (
        _ENDS_OF_TEXTS.sub("", word).endswith(_ENDINGS)
        or word.endswith(_ENDINGS)
        or word in _WORDS
        or key in _EXACT
        or key in HEADERS
        or _is_token(word)
    )


def _word(key: str) -> str:
    """Return the part of a key that may name a secret: without a number, `header` or `value` at its end."""
    word = folded(key).rstrip("0123456789")
    return _ENDS.sub("", word)


def _is_token(word: str) -> bool:
    return word.endswith("token") and word not in _NO_SECRET_TOKENS


def names_a_secret(value: object) -> bool:
    """Whether a value is the name of a header or variable, and names a secret."""
    return (
        type(value) is str and 0 < len(value) <= _MAX_NAME and value.count(" ") <= _MAX_SPACES and is_credential(value)
    )


def is_named_secret(value: Mapping[str, Any]) -> bool:
    """Whether a dict holds a name and its value, and the name is that of a secret."""
    return _name_beside(value) is not None


def _name_beside(value: Mapping[str, Any]) -> str | None:
    if "value" in value or "Value" in value:
        for key in NAMES_BESIDE:
            if names_a_secret(name := value.get(key)):
                return str(name)
    return None


def attributes_with_secrets(attributes: Mapping[str, Any], *, by_name: bool) -> list[str]:
    """Return the names of the attributes whose values are secrets.

    Args:
        attributes: The attributes of a span, an event or a link, whoever set them.
        by_name: Whether to look at every name; False looks at `HEADERS` alone.
    """
    tells = is_credential if by_name else HEADERS.__contains__
    return [
        name for name in attributes if tells(name) and _is_secret(name, held := attributes[name]) and not _is_gone(held)
    ]


def _is_gone(value: object) -> bool:
    """Whether somebody has replaced the secret already."""
    return isinstance(value, str) and _GONE.fullmatch(value) is not None


def may_tell_a_secret(text: str) -> bool:
    """Whether `masked_text` has to look at a text: a quick check that rules most texts out."""
    return (
        "://" in text or ("=" in text and "?" in text and _PATH_QUERY.search(text) is not None) or may_authorize(text)
    )


def may_authorize(text: str) -> bool:
    """Whether a text contains `Authorization`. A letter is found much more quickly than a word, so it comes first."""
    return ("z" in text and "uthorization" in text) or ("Z" in text and "UTHORIZATION" in text)


def masked_text(text: str) -> str:
    """Return a text with the secrets in it replaced.

    These are passwords, tokens and secret parameters of URLs, and tokens after `Authorization: Bearer` and the like.
    """
    if not may_tell_a_secret(text):
        return text
    if may_authorize(text):
        text = _AUTHORIZATION.sub(rf"\g<1>{MASKED}", text)
    if "@" in text and "://" in text:
        text = _URL_TOKEN.sub(rf"\g<1>{MASKED}", _URL_PASSWORD.sub(_masked_password, text))
    return _URL_QUERY.sub(_masked_parameter, text) if "=" in text else text


def _masked_password(found: re.Match[str]) -> str:
    # With GitHub the user is the token, and this word is the password.
    return found[0] if found[0].endswith(":x-oauth-basic") else f"{found[1]}{MASKED}"


def _masked_parameter(found: re.Match[str]) -> str:
    name = found[2]
    # A signature in a URL gives access, like a password.
    word = folded(name.removeprefix("amp;"))
    if is_credential(name) or word == "sig" or word.endswith("signature"):
        return f"{found[1]}{name}={MASKED}"
    return found[0]


def without_credentials_under(key: str, value: Json) -> Json:
    """Return the value of *key*: `MASKED` when the key names a secret, else the value without secrets inside."""
    if not (is_credential(key) and _is_secret(key, value)):
        return without_credentials(value)
    if not _is_schema(value):
        return MASKED
    samples: dict[str, Json] = {
        name: MASKED for name in _SCHEMA_SAMPLES if name in value and _is_secret(key, value[name])
    }
    changed = any(value[name] != MASKED for name in samples)
    return without_credentials({**value, **samples} if changed else value)


def without_credentials(value: Json) -> Json:
    """Return *value* with every secret replaced that a key, a pair, a name beside it, or a text shows.

    A value without a secret is returned itself. A pair is a list of a name and a value, as headers are often written.
    """
    if type(value) is str:
        return masked_text(value)
    if type(value) is dict:
        changed = {}
        name = _name_beside(value)
        for key, item in value.items():
            if name is not None and key in VALUES_BESIDE:
                kept = without_credentials_under(name, item)
            elif key in _SCHEMA_LISTS and type(item) is list and all(type(one) is str for one in item):
                kept = item
            elif is_credential(key) and not _is_of_a_model(key, item, value):
                kept = without_credentials_under(key, item)
            else:
                kept = without_credentials(item)
            if kept is not item:
                changed[key] = kept
        return {**value, **changed} if changed else value
    if type(value) is list:
        if _is_lone_pair(value):
            return [value[0], MASKED]
        # In a list of lists, as headers are written, any list of two is a pair.
        are_lists = all(type(item) is list for item in value)
        items = [_without_credentials_of_a_pair(item) if are_lists else without_credentials(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _is_secret(key: str, value: Json) -> bool:
    """Whether the value of such a key is a secret: not if it is empty or a bool, nor a number under a `token` key."""
    if value is None or type(value) is bool or value in ("", [], {}):
        return False
    return type(value) not in (int, float) or not _is_token(_word(key))


def _is_of_a_model(key: str, value: Json, siblings: dict[str, Json]) -> bool:
    """Whether a `token` is a piece of a model's answer: its likelihood is beside it, or in it."""
    if folded(key) != "token":
        return False
    if type(value) is dict:
        text = value.get("text", value.get("token"))
        return value.keys() <= _OF_A_TOKEN and not _LIKELIHOODS.isdisjoint(value) and _is_short(text)
    return not _LIKELIHOODS.isdisjoint(siblings) and _is_short(value)


def _is_short(text: Json) -> bool:
    return text is None or (type(text) is str and (len(text) <= _MAX_TOKEN or text.isspace()))


def _is_schema(value: Json) -> TypeGuard[dict[str, Json]]:
    """Whether a value is a JSON Schema, which describes a value."""
    if type(value) is not dict or not value.keys() <= _SCHEMA_KEYS or _SCHEMA_TELLS.isdisjoint(value):
        return False
    kinds = value.get("type", "string")
    return (
        all(type(kind) is str and kind.lower() in _SCHEMA_TYPES for kind in (kinds if type(kinds) is list else [kinds]))
        and all(type(value.get(name, {})) in (dict, bool) for name in ("items", "properties", "additionalProperties"))
        and all(type(part) is dict for name in ("anyOf", "oneOf", "allOf") for part in _listed(value.get(name, [])))
        and str(value.get("$ref", "#")).startswith(("#", "http"))
    )


def _listed(value: Json) -> list[Json]:
    return value if type(value) is list else [value]


def _is_lone_pair(items: list[Json]) -> bool:
    """Whether a list holds a name and its secret, and not two plain words."""
    return (
        len(items) == _PAIR
        and names_a_secret(items[0])
        and type(items[1]) is str
        and items[1] not in ("", MASKED)
        and not _WORDS_ALONE.fullmatch(items[1])
    )


def _without_credentials_of_a_pair(items: Json) -> Json:
    """Return a list without credentials; in a list of two, the first item may name the second."""
    if type(items) is not list or len(items) != _PAIR or not names_a_secret(items[0]):
        return without_credentials(items)
    kept = without_credentials_under(str(items[0]), items[1])
    return items if kept is items[1] else [items[0], kept]
