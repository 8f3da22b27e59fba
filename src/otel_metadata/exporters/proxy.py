"""Which HTTP proxy a request goes through: none, unless `configure(proxy=...)` or a variable of ours asks for one.

The setting holds for the whole process, also for destinations that were made before it: a client reads it when it
connects. The variables of the environment are read as curl reads them: lower case before upper case, and no
`HTTP_PROXY` in a CGI program, where a client could set it (https://httpoxy.org).
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
    """One proxy, reached without TLS.

    Attributes:
        host: A name or an address.
        port: 80 where none was given.
        user: For authentication at the proxy, or None; not shown.
        password: Likewise.
    """

    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request that authenticate it at the proxy (RFC 7617)."""
        if self.user is None:
            return {}
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"proxy-authorization": f"Basic {credentials}"}

    @property
    def url(self) -> str:
        """The whole URL, with user and password."""
        credentials = "" if self.user is None else f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        return f"http://{credentials}{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@final
@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxy each request goes through.

    Attributes:
        by_scheme: The proxies for `http` and `https`; no proxy for a scheme that is missing.
        direct: The entries of `NO_PROXY`.
    """

    by_scheme: Mapping[str, Proxy]
    direct: tuple[str, ...] = ()

    def of(self, scheme: str, host: str, port: int | None) -> Proxy | None:
        """Return the proxy for requests to an address, or None."""
        proxy = self.by_scheme.get(scheme)
        if proxy is None or _is_direct(host, port or _PORTS[scheme], self.direct):
            return None
        return proxy


NO_PROXIES: Final = Proxies({})

_in_use: Proxies | None = None


def use(proxies: Proxies | None) -> None:
    """Open every connection from now on through *proxies*; None reads the variable instead."""
    global _in_use  # noqa: PLW0603 # one setting for the process
    _in_use = proxies


def in_use() -> Proxies:
    """Return the current setting.

    Raises:
        ConfigurationError: The setting is left to the variable, which cannot be used.
    """
    return _in_use if _in_use is not None else asked_for(None)


def asked_for(given: bool | str | None) -> Proxies:
    """Return the proxies that a setting names.

    Args:
        given: True for the proxies of the environment, the URL of one, False for none; None for what `PROXY` says.

    Raises:
        ConfigurationError: The setting, or a variable that it refers to, cannot be used.
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
    import ipaddress  # loaded on use: only a process with a proxy needs it

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
