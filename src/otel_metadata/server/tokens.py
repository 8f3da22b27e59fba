"""Tokens: who may call from elsewhere. A file has the hash of each, never the token itself.

The file is append-only: one JSON object on a line, for a token or for a revocation. So two commands that run at once
lose nothing, and a running server sees a change when it next looks at the file.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
from typing import Final, TypeAlias, final

import msgspec

from otel_metadata.environment import absolute_path
from otel_metadata.errors import ConfigurationError
from otel_metadata.model.authors import MAX_AUTHOR_CHARACTERS, shown_author
from otel_metadata.server.operations import Scope

NOBODY: Final = "nobody"
"""The name of a caller without a token, where one is needed."""

LOCAL: Final = "http:"
"""The beginning of the name of a caller on this machine. The user follows."""

# The names of those who change something without a token: over HTTP, on the command line, and from agents.
_TAKEN_PREFIXES: Final = (LOCAL, "cli:", "mcp:")

_PREFIX: Final = "om_"
"""The beginning of every token, by which scanners of sources find one that was published by mistake."""

_SECRET_BYTES: Final = 32
_EXPECTED: Final = "a line that `otel-metadata token create` has written"


class Token(msgspec.Struct, frozen=True, tag="token", omit_defaults=True):
    """What is known of a token.

    Attributes:
        name: The author of what is changed with it.
        sha256: The hash of the token. A token is 256 random bits, so there is nothing to guess and no salt is needed.
        scopes: What it may do.
        project: The only project that it sees and changes; None for all.
        created_ns: When it was made, in wall nanoseconds.
    """

    name: str
    sha256: str
    scopes: list[Scope]
    created_ns: int
    project: str | None = None


class _Revoked(msgspec.Struct, frozen=True, tag="revoked"):
    """Ends all tokens of a name that come before it."""

    name: str
    revoked_ns: int


_Line: TypeAlias = "Token | _Revoked"
_read_line: Final = msgspec.json.Decoder(Token | _Revoked).decode


@final
class Tokens:
    """The tokens of one file. Any thread."""

    def __init__(self, path: str) -> None:
        """Read nothing yet; the file need not exist."""
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._known: tuple[tuple[bytes, Token], ...] = ()

    def create(self, name: str, scopes: list[Scope], project: str | None, now_ns: int) -> str:
        """Add a token and return it: the only time that anybody sees it.

        Raises:
            ConfigurationError: The name is taken, empty or too long, or the file cannot be used.
        """
        if not name.strip() or len(name) > MAX_AUTHOR_CHARACTERS or name != shown_author(name):
            expected = f"a name of 1 to {MAX_AUTHOR_CHARACTERS} characters on one line"
            raise ConfigurationError("name", name[:MAX_AUTHOR_CHARACTERS], expected)
        if name == NOBODY or name.startswith(_TAKEN_PREFIXES):
            taken = ", ".join(_TAKEN_PREFIXES)
            expected = f"another name: {NOBODY} and names with {taken} are those of callers without a token"
            raise ConfigurationError("name", name, expected)
        if any(token.name == name for token in self.all()):
            raise ConfigurationError("name", name, "a name that no token has; revoke that token first")
        text = _PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=")
        self._append(Token(name, _hash(text).hex(), scopes, now_ns, project))
        return text

    def revoke(self, name: str, now_ns: int) -> bool:
        """End the token of this name; return whether there was one.

        Raises:
            ConfigurationError: The file cannot be used.
        """
        if not any(token.name == name for token in self.all()):
            return False
        self._append(_Revoked(name, now_ns))
        return True

    def all(self) -> list[Token]:
        """Return the tokens that are in force, oldest first.

        Raises:
            ConfigurationError: The file cannot be used.
        """
        return [token for _, token in self._current()]

    def find(self, text: str) -> Token | None:
        """Return what is known of a token; None if it is not in force.

        Raises:
            ConfigurationError: The file cannot be used.
        """
        digest, found = _hash(text), None
        # Hashes are compared, all of them, each in constant time: how long it takes says neither which token is near
        # nor whether there is one.
        for known, token in self._current():
            if hmac.compare_digest(known, digest):
                found = token
        return found

    def _current(self) -> tuple[tuple[bytes, Token], ...]:
        try:
            status = os.stat(self.path)
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._known = self._read(status)
                self._seen = seen
        except FileNotFoundError:
            self._known, self._seen = (), None
        except OSError as error:
            raise ConfigurationError("tokens", self.path, f"a file that can be read: {error.strerror}") from None
        return self._known

    def _read(self, status: os.stat_result) -> tuple[tuple[bytes, Token], ...]:
        if os.name == "posix" and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise ConfigurationError(
                "tokens", f"{self.path} with mode {mode}", f"a file that only its owner can read: chmod 600 {self.path}"
            )
        found: list[tuple[bytes, Token]] = []
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    one: _Line = _read_line(line)
                    if isinstance(one, Token):
                        found.append((bytes.fromhex(one.sha256), one))
                    else:
                        found = [(digest, token) for digest, token in found if token.name != one.name]
                except (msgspec.MsgspecError, ValueError):
                    raise ConfigurationError("tokens", f"{self.path}, line {number}", _EXPECTED) from None
        return tuple(found)

    def _append(self, line: _Line) -> None:
        self._current()  # raises for a file that is not ours
        data = msgspec.json.encode(line)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                # One write, which no other comes between; on a new line even after one that was torn.
                os.write(descriptor, b"\n" + data + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ConfigurationError("tokens", self.path, f"a file that can be written: {error.strerror}") from None


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def beside(store: str) -> str:
    """Return the usual file for the tokens of a store: beside an SQLite file, else in the working directory."""
    scheme, _, rest = store.strip().partition("://")
    path = rest.partition("?")[0].removeprefix("/")
    if scheme.lower() != "sqlite" or not path or path == ":memory:":
        path = "otel_metadata"
    return absolute_path("tokens", f"{path.removesuffix('.db')}.tokens")
