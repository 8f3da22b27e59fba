"""Who may call: the names of this machine, the pages that a browser shows, tokens and the cookies made from them.

On a loopback address everybody on the machine may call. Two attacks come through a browser there: a page whose name was
made to mean 127.0.0.1 (DNS rebinding), which the Host header gives away, and a page that sends requests to another site
than its own, which Origin and Sec-Fetch-Site give away. Any other address demands tokens.

https://www.w3.org/TR/fetch-metadata/ · https://fetch.spec.whatwg.org/#cors-protocol
"""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, final, get_args

from otel_metadata.errors import ConfigurationError
from otel_metadata.model.recent import RecentMap
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import SystemClock
from otel_metadata.server.operations import Caller, Problem, Scope
from otel_metadata.server.vendors.jwt import key_of

if TYPE_CHECKING:
    from otel_metadata.seams import Clock
    from otel_metadata.server.operations import Operation
    from otel_metadata.server.tokens import Token, Tokens

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

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::\d{1,5})?", re.IGNORECASE)
_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::\d{1,5})?", re.IGNORECASE)
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9_, -]{1,1000}")

_NO_HEADERS: Final[Mapping[str, str]] = {}

HEADERS: Final = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "require-trusted-types-for 'script'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""What every answer says to browsers."""


class _Session(NamedTuple):
    """What a cookie means."""

    token_sha256: str
    begin_ns: int


@final
class Access:
    """The rules of one server. Any thread.

    Attributes:
        needs_token: Whether nobody may call without a token.
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
            ConfigurationError: Tokens are needed and there is none, or their file cannot be used.
        """
        known = tokens.all() if tokens is not None else []
        if needs_token and not known:
            raise ConfigurationError(
                "tokens",
                "no token" if tokens is None else f"{tokens.path} without a token",
                "at least one, because others than this machine may call: otel-metadata token create",
            )
        self.needs_token = needs_token
        self.cookie = "otel_metadata"
        self._tokens = tokens
        self._hosts = frozenset(map(str.lower, hosts))
        self._clock = clock or SystemClock()
        self._local = Caller(f"http:{_user()}", frozenset(SCOPES))
        self._sessions: RecentMap[bytes, _Session] = RecentMap(_MAX_SESSIONS)
        self._signed_out_ns: dict[str, int] = {}

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Refuse a request that was meant for another host.

        With tokens, the name does not matter: a page of another name has neither a token nor the cookie.

        Raises:
            Problem: 400 without a Host header, 421 for the name of another host.
        """
        if "host" not in headers:
            raise Problem(400, "The request has no Host header; expected one, as HTTP/1.1 demands.")
        if self.needs_token:
            return
        match = _HOST.fullmatch(headers["host"])
        name = match[1].lower() if match is not None else ""
        if not is_loopback(name) and name not in self._hosts:
            raise Problem(
                421,
                f"Host is {headers['host'][:200]!r}; expected localhost or a loopback address: this server answers "
                "calls of its own machine. Another name is allowed with --allow-host.",
                expected="localhost",
            )

    def check_origin(self, method: str, operation: Operation | None, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Refuse what a page of another site sends; return the headers that let an allowed page read the answer.

        Raises:
            Problem: 403.
        """
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is None and site in {None, "same-origin"}:  # no browser, or a page of ours
            return _NO_HEADERS
        if origin is None and method in {"GET", "HEAD"}:
            # The address bar, or a link on another page: the answer is shown, and that page cannot read it.
            if site == "none" or headers.get("sec-fetch-mode") == "navigate":
                return _NO_HEADERS
        elif origin is not None:
            if site in {None, "same-origin"} and _is_own(origin, headers):
                return _NO_HEADERS
            match = _ORIGIN.fullmatch(origin)
            if operation is not None and operation.is_ingestion and match is not None and is_loopback(match[1].lower()):
                return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        raise Problem(
            403,
            f"The request comes from a page of another site: Origin is {(origin or 'missing')[:200]!r}, Sec-Fetch-Site "
            f"{(site or 'missing')[:40]!r}; expected a page of this server.",
        )

    def preflight(self, operation: Operation | None, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers that answer a browser which asks before it sends.

        Raises:
            Problem: 403, because the page may not send this.
        """
        allowed = self.check_origin("OPTIONS", operation, headers)
        wanted = headers.get("access-control-request-headers", "")
        if not allowed or operation is None:
            return allowed
        return {
            **allowed,
            "Access-Control-Allow-Methods": operation.method,
            "Access-Control-Allow-Headers": wanted if _HEADER_NAMES.fullmatch(wanted) else "Content-Type",
            "Access-Control-Max-Age": "600",
        }

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
        token = self._find(key)
        if token is None and self.needs_token:
            raise Problem(401, "The token is not known; expected one that `otel-metadata token create` has made.")
        session = secrets.token_urlsafe(32)
        if token is None:
            return session, self._local
        self._sessions[_hash(session)] = _Session(token.sha256, self._clock.wall_ns())
        return session, Caller(token.name, frozenset(token.scopes), token.project)

    def sign_out(self, caller: Caller) -> None:
        """End all sessions of a caller's token."""
        self._signed_out_ns[caller.name] = self._clock.wall_ns()

    def _token_in(self, headers: Mapping[str, str]) -> Token | None:
        for key in _keys_in(headers):
            token = self._find(key)
            if token is not None:
                return token
        # Another page of this machine may send spans, but not in the name of whoever is signed in here.
        origin = headers.get("origin")
        session = self._cookie_in(headers) if origin is None or _is_own(origin, headers) else None
        return self._find(session) if session is not None else None

    def _find(self, key: str) -> Token | None:
        if self._tokens is None or not 0 < len(key) <= _MAX_KEY:
            return None
        try:
            return self._tokens.find(key) or self._of_session(key, self._tokens)
        except ConfigurationError as error:  # somebody has damaged the file: its tokens are worth nothing
            REPORTER.tell("server_tokens", f"{error}")
            return None

    def _of_session(self, session: str, tokens: Tokens) -> Token | None:
        # A hash is looked up, so the time of the look-up says nothing about the session.
        found = self._sessions.get(_hash(session))
        if found is None or self._clock.wall_ns() - found.begin_ns >= SESSION_SECONDS * 1_000_000_000:
            return None
        token = next((one for one in tokens.all() if one.sha256 == found.token_sha256), None)
        if token is None or found.begin_ns <= self._signed_out_ns.get(token.name, -1):
            return None
        return token

    def _cookie_in(self, headers: Mapping[str, str]) -> str | None:
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie and 0 < len(value) <= _MAX_KEY:
                return value
        return None


_NOBODY: Final = Caller("nobody", frozenset())


def is_loopback(name: str) -> bool:
    """Whether a host, in lower case, can only be this machine: `localhost`, or a loopback address."""
    if name in {"localhost", "localhost."}:
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _is_own(origin: str, headers: Mapping[str, str]) -> bool:
    """Whether an origin is this server, as the client names it."""
    scheme, _, host = origin.lower().partition("://")
    return scheme in {"http", "https"} and host == headers.get("host", "").lower()


def _keys_in(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield what may be a token: each place in which an SDK sends its key."""
    given = headers.get("authorization", "").strip()
    scheme, _, rest = given.partition(" ")
    rest = rest.strip()
    if scheme.lower() == "basic":  # Langfuse: the public key is the user, the secret key the password
        try:
            yield base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
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
