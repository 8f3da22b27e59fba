"""The destination for a server of ours, `otel-metadata serve`: `configure("serve")`, `configure("serve://host:4318")`.

Spans go over OTLP with their exact fields (`backends.serve.dialect`), and updates as they are. So the server stores
what a store in this process would. `Client` reads and writes the same server as a store.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple, final
from urllib.parse import unquote, urlsplit

from otel_metadata.backends.serve.dialect import ServeDialect
from otel_metadata.backends.serve.patches import ServePatchExporter
from otel_metadata.backends.serve.store import ServeStore
from otel_metadata.delivery.destination import Destination
from otel_metadata.errors import ConfigurationError, shown_url
from otel_metadata.exporters.http import with_path
from otel_metadata.exporters.otlp_http import OtlpHttpSender

__all__ = ["destination", "open_store"]

URL: Final = "OTEL_PYTHON_METADATA_SERVE_URL"
TOKEN: Final = "OTEL_PYTHON_METADATA_SERVE_TOKEN"  # noqa: S105 # the name of a variable
DEFAULT_URL: Final = "serve://127.0.0.1:4318"

_SCHEMES: Final = {"serve": ("http", 4318), "serves": ("https", 443), "http": ("http", 80), "https": ("https", 443)}
"""The scheme and port of HTTP for each scheme. Those of HTTP itself are for the variable, which says what it names."""

_EXPECTED: Final = (
    "serve://host:4318, serves://host for TLS, a token before the host if the server wants one (serve://token@host), "
    "and a path if a proxy adds one"
)


@final
class _Server(NamedTuple):
    """Where a server is.

    Attributes:
        url: Its HTTP address.
        headers: Of every request.
    """

    url: str
    headers: dict[str, str]


def destination(text: str) -> Destination:
    """Return a server as a destination.

    Args:
        text: `serve` for the server of the environment, or the URL of one.

    Raises:
        ConfigurationError: The URL or the token cannot be used.
    """
    url, headers = _server(text)
    spans = OtlpHttpSender(with_path(url, "/v1/traces"), headers=headers)
    return Destination("serve", spans, ServePatchExporter(url, headers=headers), ServeDialect())


def open_store(text: str) -> ServeStore:
    """Return the store of a server; the arguments are those of `destination`."""
    url, headers = _server(text)
    return ServeStore(url, headers=headers)


def _server(text: str) -> _Server:
    setting, given = "serve", text.strip()
    if given.lower() == "serve":
        setting, given = URL, os.environ.get(URL, "").strip() or DEFAULT_URL
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    scheme, default_port = _SCHEMES.get(parts.scheme, ("", 0))
    is_whole = scheme and host and parts.password is None and not (parts.query or parts.fragment)
    if not is_whole or re.search(r"[^!-~]", given):
        raise ConfigurationError(setting, shown_url(given), _EXPECTED)
    shown_host = f"[{host}]" if ":" in f"{host}" else host
    token = unquote(parts.username or "") or os.environ.get(TOKEN, "").strip()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return _Server(f"{scheme}://{shown_host}:{port or default_port}{parts.path.rstrip('/')}", headers)
