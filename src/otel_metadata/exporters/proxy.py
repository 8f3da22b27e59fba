"""Which HTTP proxy a request goes through: none, unless `configure(proxy=...)` or a variable of ours asks for one.

What is asked for holds for the whole process, destinations that were made before included: a client looks when it
connects. The proxies of the environment are read as curl reads them: small letters before capitals, and `HTTP_PROXY`
not in a CGI program, where a client sets it (https://httpoxy.org).
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final
from urllib.parse import quote, unquote, urlsplit

from otel_metadata.errors import ConfigurationError, shown_url

__all__ = ["NO_PROXIES", "PROXY", "Proxies", "Proxy", "asked_for", "in_use", "use"]

PROXY: Final = "OTEL_PYTHON_METADATA_PROXY"

_DEFAULT_PORT: Final = 80
_PORTS: Final = {"http": 80, "https": 443}
_EXPECTED: Final = (
    "http://host:port or http://user:password@host:port, percent-encoded; a proxy that speaks SOCKS or TLS itself is "
    "not supported"
)

# An address in brackets with a port, a name with a port, or an address of IPv6 without either.
_ENTRY: Final = re.compile(r"\[(.*)\](?::([0-9]+))?|([^:]*)(?::([0-9]+))?|(.*)")


@final
@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy, spoken to without TLS.

    Attributes:
        host: A name or an address.
        port: 80 where none was given.
        user: What it wants to know, or None; not shown.
        password: As above.
    """

    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What a request to it has beside others (RFC 7617)."""
        if self.user is None:
            return {}
        known = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"proxy-authorization": f"Basic {known}"}

    @property
    def url(self) -> str:
        """The whole URL, with user and password."""
        known = "" if self.user is None else f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        return f"http://{known}{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@final
@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxy each request goes through.

    Attributes:
        by_scheme: For `http` and `https`; one that is missing means none.
        direct: The entries of `NO_PROXY`.
    """

    by_scheme: Mapping[str, Proxy]
    direct: tuple[str, ...] = ()

    def of(self, scheme: str, host: str, port: int | None) -> Proxy | None:
        """Return the proxy on the way to an address, or None."""
        proxy = self.by_scheme.get(scheme)
        if proxy is None or _is_direct(host, port or _PORTS[scheme], self.direct):
            return None
        return proxy


NO_PROXIES: Final = Proxies({})

_in_use: Proxies | None = None


def use(proxies: Proxies | None) -> None:
    """Let every connection from now on go through *proxies*; None leaves it to the variable."""
    global _in_use  # noqa: PLW0603 # one setting for the process
    _in_use = proxies


def in_use() -> Proxies:
    """Return what holds now.

    Raises:
        ConfigurationError: The variable holds, and cannot be used.
    """
    return _in_use if _in_use is not None else asked_for(None)


def asked_for(given: bool | str | None) -> Proxies:
    """Return what a setting means.

    Args:
        given: True for the proxies of the environment, the URL of one, False for none; None for what `PROXY` says.

    Raises:
        ConfigurationError: It cannot be used, or a variable that it refers to.
    """
    setting = "configure(proxy=)"
    if given is None:
        setting, text = PROXY, os.environ.get(PROXY, "").strip()
        given = text.lower() == "true" if text.lower() in {"", "true", "false"} else text
    if given is False:
        return NO_PROXIES
    from urllib.request import getproxies_environment  # loaded on use

    found = getproxies_environment()
    direct = tuple(filter(None, re.split(r"[,\s]+", found.get("no", "").strip())))
    if given is True:
        named = {scheme: next((one for one in (scheme, "all") if found.get(one)), None) for scheme in _PORTS}
        return Proxies(
            {scheme: _proxy(f"{one.upper()}_PROXY", found[one]) for scheme, one in named.items() if one}, direct
        )
    if not isinstance(given, str):
        raise ConfigurationError(setting, type(given), f"True, False, or {_EXPECTED}")
    if "://" not in given:
        raise ConfigurationError(setting, shown_url(given), f"true, false, or {_EXPECTED}")
    one = _proxy(setting, given.strip())
    return Proxies(dict.fromkeys(_PORTS, one), direct)


def _proxy(setting: str, text: str) -> Proxy:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    is_plain = parts.path in {"", "/"} and not parts.query and not parts.fragment
    if parts.scheme != "http" or not host or not is_plain or re.search(r"[^!-~]", url):
        raise ConfigurationError(setting, shown_url(url), _EXPECTED)
    user = None if parts.username is None else unquote(parts.username)
    return Proxy(host, port or _DEFAULT_PORT, user, unquote(parts.password or ""))


def _is_direct(host: str, port: int, entries: tuple[str, ...]) -> bool:
    """Whether an entry of `NO_PROXY` names this host: itself, a domain that it is in, a network, or `*`."""
    import ipaddress  # loaded on use: whoever has no proxy needs none of it

    name = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        address = None
    for entry in entries:
        if entry == "*":
            return True
        match = _ENTRY.fullmatch(entry)
        bracketed, bracketed_port, plain, plain_port, rest = match.groups() if match else (None,) * 5
        wanted, wanted_port = bracketed or plain or rest or "", bracketed_port or plain_port
        if wanted_port and int(wanted_port) != port:
            continue
        if address is None:
            domain = wanted.lstrip("*").strip(".").lower()
            if domain and (name == domain or name.endswith(f".{domain}")):
                return True
            continue
        try:
            if address in ipaddress.ip_network(wanted, strict=False):
                return True
        except ValueError:
            continue
    return False
