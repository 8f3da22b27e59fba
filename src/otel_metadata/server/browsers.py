"""What a browser may send: names of this machine, and pages of this server.

Two attacks come through a browser. A page can make its own name mean 127.0.0.1 (DNS rebinding): the Host header has
that name. A page can send requests to another site than its own: Origin and Sec-Fetch-Site say so.

https://www.w3.org/TR/fetch-metadata/ · https://fetch.spec.whatwg.org/#cors-protocol
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from otel_metadata.server.operations import Problem

if TYPE_CHECKING:
    from otel_metadata.server.operations import Operation

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

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::\d{1,5})?", re.IGNORECASE)
_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::\d{1,5})?", re.IGNORECASE)
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9_, -]{1,1000}")

_NO_HEADERS: Final[Mapping[str, str]] = {}


def is_loopback(name: str) -> bool:
    """Whether a host, in lower case, can only be this machine: `localhost`, or a loopback address."""
    if name in {"localhost", "localhost."}:
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def check_host(headers: Mapping[str, str], allowed: Collection[str] | None) -> None:
    """Refuse a request that was meant for another host.

    Args:
        headers: With names in lower case.
        allowed: Names besides the loopback ones, in lower case; None for every name. Where tokens are demanded the name
            does not matter: a page of another name has neither a token nor the cookie.

    Raises:
        Problem: 400 without a Host header, 421 for the name of another host.
    """
    if "host" not in headers:
        raise Problem(400, "The request has no Host header; expected one, as HTTP/1.1 demands.")
    if allowed is None:
        return
    match = _HOST.fullmatch(headers["host"])
    name = match[1].lower() if match is not None else ""
    if not is_loopback(name) and name not in allowed:
        raise Problem(
            421,
            f"Host is {headers['host'][:200]!r}; expected localhost or a loopback address: this server answers "
            "calls of its own machine. Another name is allowed with --allow-host.",
            expected="localhost",
        )


def check_origin(
    method: str, operation: Operation | None, headers: Mapping[str, str], *, trusts_site: bool
) -> Mapping[str, str]:
    """Refuse what a page of another site sends; return the headers that let an allowed page read the answer.

    Args:
        method: Of HTTP.
        operation: What is asked for; None for nothing.
        headers: With names in lower case.
        trusts_site: See `is_own`.

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
        if is_own(origin, headers, trusts_site=trusts_site):
            return _NO_HEADERS
        match = _ORIGIN.fullmatch(origin)
        if operation is not None and operation.is_ingestion and match is not None and is_loopback(match[1].lower()):
            return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
    raise Problem(
        403,
        f"The request comes from a page of another site: Origin is {(origin or 'missing')[:200]!r}, Sec-Fetch-Site "
        f"{(site or 'missing')[:40]!r}; expected a page of this server.",
    )


def preflight(operation: Operation | None, headers: Mapping[str, str], *, trusts_site: bool) -> Mapping[str, str]:
    """Return the headers that answer a browser which asks before it sends.

    Raises:
        Problem: 403, because the page may not send this.
    """
    allowed = check_origin("OPTIONS", operation, headers, trusts_site=trusts_site)
    wanted = headers.get("access-control-request-headers", "")
    if not allowed or operation is None:
        return allowed
    return {
        **allowed,
        "Access-Control-Allow-Methods": operation.method,
        "Access-Control-Allow-Headers": wanted if _HEADER_NAMES.fullmatch(wanted) else "Content-Type",
        "Access-Control-Max-Age": "600",
    }


def is_own(origin: str, headers: Mapping[str, str], *, trusts_site: bool) -> bool:
    """Whether an origin is this server.

    Args:
        origin: Of the page.
        headers: Of the request, with names in lower case.
        trusts_site: Whether `Sec-Fetch-Site: same-origin` is enough. Behind a proxy the Host header may be another one
            than the browser has sent, and no page can set this header. It says nothing where a page may have made its
            own name mean this machine: so it counts only where a token is needed.
    """
    site = headers.get("sec-fetch-site")
    scheme, _, host = origin.lower().partition("://")
    if site not in {None, "same-origin"} or scheme not in {"http", "https"}:
        return False
    return host == headers.get("host", "").lower() or (trusts_site and site is not None)
