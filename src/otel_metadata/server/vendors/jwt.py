"""An API key in the form of a JSON Web Token, for SDKs that change their key for one.

Galileo's SDK reads when the token ends, and sends it as `Authorization: Bearer`. The token holds the key itself, in the
place of a signature, and is checked as the key is: nothing has to be kept for it, and it is worth as much as the key
that the same client sends anyway.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

_HEADER: Final = b'{"alg":"none","typ":"JWT"}'
_CLAIMS: Final = b'{"sub":"otel-metadata","exp":4102444800}'  # the year 2100: the key decides


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


_START: Final = f"{_part(_HEADER)}.{_part(_CLAIMS)}."


def jwt_of(api_key: str) -> str:
    """Return the token for a key."""
    return _START + _part(api_key.encode(errors="surrogatepass"))


def key_of(token: str) -> str | None:
    """Return the key that is in a token of `jwt_of`; None for every other text."""
    if not token.startswith(_START):
        return None
    text = token.removeprefix(_START)
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return None
