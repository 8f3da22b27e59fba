"""Who calls: a token, the cookie that was made from one, or somebody on this machine.

On a loopback address everybody on the machine may call. Any other address demands tokens.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import secrets
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final, get_args

from otel_metadata.errors import ConfigurationError
from otel_metadata.model.recent import RecentMap
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import SystemClock
from otel_metadata.server.browsers import is_own
from otel_metadata.server.operations import Caller, Problem, Scope
from otel_metadata.server.tokens import LOCAL, NOBODY
from otel_metadata.server.vendors.jwt import key_of

if TYPE_CHECKING:
    from otel_metadata.seams import Clock
    from otel_metadata.server.tokens import Token, Tokens

T = TypeVar("T")

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

TOKEN_HEADERS: Final = ("x-auth-token", "galileo-api-key", "splunk-ao-api-key", "api_key", "api-key", "x-api-key")
"""Headers besides `Authorization` in which the SDKs of vendors send a key."""

CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "cookie", *TOKEN_HEADERS})
"""Headers that no handler sees, so that none can log them."""

SESSION_SECONDS: Final = 12 * 3_600
"""How long a browser stays signed in."""

_MAX_SESSIONS: Final = 1_000
_MAX_KEY: Final = 4_096
"""Length of a token or session that is looked at."""


class _Session(NamedTuple):
    """What a cookie means."""

    token_sha256: str
    begin_ns: int


@final
class Access:
    """The rules of one server. Any thread.

    Attributes:
        needs_token: Whether nobody may call without a token.
        hosts: The names for the Host header besides the loopback ones, in lower case; None for every name.
        cookie: The name of the cookie. Browsers send a cookie to every port of a host, so the port is a part of it.
    """

    def __init__(
        self,
        tokens: Tokens | None = None,
        *,
        needs_token: bool = False,
        hosts: Collection[str] = (),
        clock: Clock | None = None,
    ) -> None:
        """Say who may call.

        Args:
            tokens: A token that is known gives a call its name, its scopes and its project.
            needs_token: Refuse calls without one.
            hosts: Names of this machine besides the loopback ones, for the Host header.
            clock: Time; None for the system's.

        Raises:
            ConfigurationError: Tokens are needed but none exist, or their file cannot be used.
        """
        known = tokens.all() if tokens is not None else []
        if needs_token and not known:
            file = "" if tokens is None else f" --tokens {shlex.quote(tokens.path)}"
            raise ConfigurationError(
                "tokens",
                "no token" if tokens is None else f"{tokens.path} without a token",
                f"at least one (`otel-metadata token create --name ada --scope read{file}`), "
                "because --require-tokens or a --host that others reach demands it",
            )
        self.needs_token = needs_token
        self.cookie = "otel_metadata"
        self._tokens = tokens
        self.hosts = None if needs_token else frozenset(map(str.lower, hosts))
        self._clock = clock or SystemClock()
        self._local = Caller(f"{LOCAL}{_user()}", frozenset(SCOPES))
        self._sessions: RecentMap[bytes, _Session] = RecentMap(_MAX_SESSIONS)
        self._signed_out_ns: dict[str, int] = {}

    def caller(self, scope: Scope | None, headers: Mapping[str, str]) -> Caller:
        """Return who calls, by the headers of HTTP or the metadata of gRPC.

        Args:
            scope: What the caller needs; None for nothing.
            headers: With names in lower case.

        Raises:
            Problem: 401 without a token that is known, 403 if it has another scope.
        """
        token = self._token_in(headers)
        if token is not None:
            caller = Caller(token.name, frozenset(token.scopes), token.project)
        elif self.needs_token and scope is not None:
            has_any = any(True for _ in _keys_in(headers)) or self._cookie_in(headers) is not None
            got = "The token is not known" if has_any else "The request has no token"
            raise Problem(
                401,
                f"{got}; expected Authorization: Bearer with a token that `otel-metadata token create` has made.",
                headers={"WWW-Authenticate": 'Bearer realm="otel-metadata"'},
            )
        else:
            caller = self._local if not self.needs_token else _NOBODY
        if scope is not None and scope not in caller.scopes:
            raise Problem(
                403,
                f"The token {caller.name!r} has the scope {', '.join(sorted(caller.scopes))}; expected {scope}.",
                expected=scope,
            )
        return caller

    def sign_in(self, key: str) -> tuple[str, Caller]:
        """Return a session for a token, and whose it is. A session is as good as its token, and ends by itself.

        Args:
            key: A token. Where none is needed, any text is good.

        Raises:
            Problem: 401 for a token that is not known.
        """
        token = self._of_key(key)
        if token is None and self.needs_token:
            raise Problem(401, "The token is not known; expected one that `otel-metadata token create` has made.")
        session = secrets.token_urlsafe(32)
        if token is None:
            return session, self._local
        self._sessions[_hash(session)] = _Session(token.sha256, self._clock.wall_ns())
        return session, Caller(token.name, frozenset(token.scopes), token.project)

    def sign_out(self, caller: Caller) -> None:
        """End all sessions of a caller's token; a caller without one has none."""
        if caller not in {self._local, _NOBODY}:
            self._signed_out_ns[caller.name] = self._clock.wall_ns()

    def is_token(self, name: str) -> bool:
        """Whether a token in force has this name."""
        return self._known(lambda tokens: any(one.name == name for one in tokens.all())) or False

    def _token_in(self, headers: Mapping[str, str]) -> Token | None:
        for key in _keys_in(headers):
            token = self._of_key(key)
            if token is not None:
                return token
        # Another page of this machine may send spans, but not in the name of whoever is signed in here.
        origin = headers.get("origin")
        is_ours = origin is None or is_own(origin, headers, trusts_site=self.needs_token)
        session = self._cookie_in(headers) if is_ours else None
        return self._of_session(session) if session is not None else None

    def _of_key(self, key: str) -> Token | None:
        return self._known(lambda tokens: tokens.find(key)) if 0 < len(key) <= _MAX_KEY else None

    def _of_session(self, session: str) -> Token | None:
        # A hash is looked up, so the time of the look-up says nothing about the session.
        found = self._sessions.get(_hash(session))
        if found is None or self._clock.wall_ns() - found.begin_ns >= SESSION_SECONDS * 1_000_000_000:
            return None
        token = self._known(
            lambda tokens: next((one for one in tokens.all() if one.sha256 == found.token_sha256), None)
        )
        if token is None or found.begin_ns <= self._signed_out_ns.get(token.name, -1):
            return None
        return token

    def _known(self, look_up: Callable[[Tokens], T | None]) -> T | None:
        if self._tokens is None:
            return None
        try:
            return look_up(self._tokens)
        except ConfigurationError as error:  # somebody has damaged the file: its tokens are worth nothing
            REPORTER.tell("server_tokens", f"{error}")
            return None

    def _cookie_in(self, headers: Mapping[str, str]) -> str | None:
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie and 0 < len(value) <= _MAX_KEY:
                return value
        return None


_NOBODY: Final = Caller(NOBODY, frozenset())


def _keys_in(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield what may be a token: each place in which an SDK sends its key."""
    given = headers.get("authorization", "").strip()
    scheme, _, rest = given.partition(" ")
    rest = rest.strip()
    if scheme.lower() == "basic":  # Langfuse: the public key is the user, the secret key the password
        try:
            yield base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, no UTF-8, or characters beyond ASCII
            yield ""
    elif scheme.lower() == "bearer":
        yield key_of(rest) or rest
    elif given:  # Arize and Logfire send the key alone
        yield given
    for name in TOKEN_HEADERS:
        if name in headers:
            yield headers[name].strip()


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name
        return "local"
