"""The address that a span exporter sends to, and whether two exporters send to the same place.

They do when address and credentials are the same: two projects on one host are two places. A header that nobody here
knows may name a tenant, so it counts. Different spellings of one thing do not count: "Bearer", a key that is sent
under two names, headers that only describe the sender.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from otel_metadata.exporters.altered_spans import AlteredSpans, OnResource
from otel_metadata.exporters.http import with_path
from otel_metadata.exporters.otlp_sender import OtlpSender
from otel_metadata.joining.providers import held_by

_MAX_DEPTH: Final = 6
_PROJECT: Final = "openinference.project.name"
_PROJECT_HEADER: Final = "x-project-name"

# Headers that describe the sender or the message, not the receiver. Langfuse's public key is in `authorization` too.
_DESCRIPTIVE: Final = re.compile(
    r"accept(-encoding)?|connection|user-agent|content-(type|encoding|length)|language-version|arize-interface"
    r"|x-langfuse-(ingestion-version|public-key)|.*sdk-.*"
)
_LOCAL: Final = {"127.0.0.1", "::1", "0.0.0.0"}  # noqa: S104 # names for this machine, nothing is bound
_PORTS: Final = {"http": 80, "https": 443, "grpc": 443}
_OTLP_PORTS: Final = {"grpc": 4317, "http": 4318}
"""One receiver has both (OTLP, "OTLP/gRPC Default Port", "OTLP/HTTP Default Port")."""


class Address(NamedTuple):
    """Where an exporter sends.

    Attributes:
        kind: `http`, `grpc`, or `stream`.
        host: In lower case; `localhost` for this machine. For a stream, its identity.
        port: 0 for a stream.
        path: The path and query of an HTTP URL.
        keys: The values of the headers that identify the receiver.
        project: The project of Phoenix or Arize that the spans go to.
        is_phoenix: Whether the receiver is known to be Phoenix, where any gRPC port may go with any HTTP port.
    """

    kind: str
    host: str
    port: int = 0
    path: str = ""
    keys: frozenset[str] = frozenset()
    project: str = ""
    is_phoenix: bool = False


def is_same(one: Address | None, other: Address | None) -> bool:
    """Whether both are the same place; False where one is unknown."""
    if one is None or other is None:
        return False
    if (one.host, one.keys, one.project) != (other.host, other.keys, other.project):
        return False
    if one.kind == other.kind:
        return (one.port, one.path) == (other.port, other.path)
    if {one.kind, other.kind} != {"grpc", "http"}:
        return False
    http = one if one.kind == "http" else other
    ports = {one.kind: one.port, other.kind: other.port}
    return (
        (ports == _OTLP_PORTS and http.path == "/v1/traces")
        or (one.is_phoenix and other.is_phoenix)
        # The same port of one host, and the same key: a backend that takes both protocols.
        or (one.port == other.port and bool(one.keys))
    )


def address_of(exporter: object, resource: Resource) -> Address | None:
    """Return the address to which *exporter* sends spans of *resource*; None where it cannot be read."""
    is_phoenix = False
    for one in _chain(exporter):
        is_phoenix = is_phoenix or is_of(one, "phoenix.", "otel_metadata.backends.phoenix.")
        if isinstance(one, AlteredSpans):
            is_phoenix = is_phoenix or one.alter.__module__.endswith(".phoenix.spans")
            if isinstance(one.alter, OnResource):
                resource = one.alter.of(resource)
        where = _where(one)
        if where is not None:
            return _address(*where, resource, is_phoenix=is_phoenix)
    return None


def wraps(exporter: object, other: object) -> bool:
    """Whether the two are the same exporter, or wrap a common one."""
    parts = {id(one) for one in _chain(exporter)}
    return any(id(one) in parts for one in _chain(other))


def is_of(exporter: object, *packages: str) -> bool:
    """Whether the class of an exporter, or a base class, is defined in one of *packages*, each with its dot."""
    return any(f"{part.__module__}.".startswith(packages) for part in type(exporter).__mro__)


def is_of_mlflow(exporter: object) -> bool:
    """Whether an exporter is MLflow's."""
    return is_of(exporter, "mlflow.tracing.")


def is_processor(value: object) -> bool:
    """Whether *value* is a span processor. The class is asked: an object may make up its attributes."""
    return callable(getattr(type(value), "on_start", None)) and callable(getattr(type(value), "on_end", None))


def is_exporter(value: object) -> bool:
    """Whether *value* is a span exporter. The class is asked, as above."""
    kind = type(value)
    return (
        callable(getattr(kind, "export", None))
        and callable(getattr(kind, "shutdown", None))
        and not is_processor(value)
    )


def _chain(exporter: object) -> Iterator[object]:
    """Yield an exporter, then the one that it wraps, and so on."""
    seen: set[int] = set()
    one: object | None = exporter
    while one is not None and id(one) not in seen and len(seen) < _MAX_DEPTH:
        seen.add(id(one))
        yield one
        one = next(filter(is_exporter, held_by(one).values()), None)


def _where(exporter: object) -> tuple[str, Mapping[str, str]] | None:
    """Return the URL and the headers of one exporter; None where it has no URL."""
    if isinstance(exporter, OtlpSender):
        return exporter.where
    held = held_by(exporter)
    if isinstance(exporter, ConsoleSpanExporter):
        return f"stream://{id(held.get('out'))}", {}
    if is_of_mlflow(exporter):
        return _where_mlflow_sends(held.get("_client"))
    endpoint = held.get("_endpoint")
    if not isinstance(endpoint, str) or not endpoint:
        return None
    if "://" not in endpoint and any(".grpc" in part.__module__ for part in type(exporter).__mro__):
        endpoint = f"grpc://{endpoint}"
    return endpoint, dict(_headers(exporter, _MAX_DEPTH))


def _where_mlflow_sends(client: object) -> tuple[str, Mapping[str, str]] | None:
    """Return the OTLP address that is the same place as MLflow's own client; None for a file or database."""
    uri = held_by(client).get("tracking_uri")
    if not isinstance(uri, str):
        return None
    from otel_metadata.backends import mlflow  # only where there is MLflow

    # Its client reads these variables for each request, and `set_experiment` writes the last one.
    experiment = os.environ.get(mlflow.EXPERIMENT, "") or "0"
    return with_path(uri, mlflow.TRACES), mlflow.request_headers(experiment)


def _headers(holder: object, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the headers that an OTLP exporter sends: its own, and those of its client, transport and session."""
    held = held_by(holder)
    for name in ("_headers", "headers"):
        found = held.get(name)
        pairs = found.items() if isinstance(found, Mapping) else found if isinstance(found, tuple | list) else ()
        for pair in pairs:
            if isinstance(pair, tuple) and len(pair) == 2:
                value = pair[1].decode("latin-1") if isinstance(pair[1], bytes) else str(pair[1])
                yield str(pair[0]).lower(), value
    if depth:
        for name in ("_client", "client", "_transport", "_session"):
            if name in held:
                yield from _headers(held[name], depth - 1)


def _address(url: str, headers: Mapping[str, str], resource: Resource, *, is_phoenix: bool) -> Address | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = (parts.hostname or "").lower()
    named = {name.lower(): value for name, value in headers.items()}
    project = named.pop(_PROJECT_HEADER, "") or str(resource.attributes.get(_PROJECT, ""))
    keys = (value.strip() for name, value in named.items() if not _DESCRIPTIVE.fullmatch(name))
    return Address(
        "http" if parts.scheme == "https" else parts.scheme,
        "localhost" if host in _LOCAL else host,
        port or _PORTS.get(parts.scheme, 0),
        parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else ""),
        frozenset(key.removeprefix("Bearer ") for key in keys if key),
        project,
        is_phoenix,
    )
