"""Where span exporters send: of destinations of ours, and of what the application's provider has already.

Two exporters send to the same place when address and credentials are the same: two projects on one host are two places.
A header that nobody here knows may name a tenant, so it counts; a spelling of what is known does not ("Bearer", a key
that is sent under two names, what only describes the sender).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, SynchronousMultiSpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

from otel_metadata.exporters.altered_spans import AlteredSpans, OnResource
from otel_metadata.exporters.http import with_path
from otel_metadata.exporters.otlp_sender import OtlpSender
from otel_metadata.interrupts import pass_on
from otel_metadata.joining.providers import Place, real_provider
from otel_metadata.span_processor import MetadataSpanProcessor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["Address", "FoundExporter", "address_of", "exporters_on", "is_same", "processors_of"]

_MAX_DEPTH: Final = 6
_MAX_PROCESSOR_DEPTH: Final = 16
_PROJECT: Final = "openinference.project.name"
_PROJECT_HEADER: Final = "x-project-name"

# Headers that say who sends or how, not to whom. The public key of Langfuse is in its `authorization` too.
_DESCRIPTIVE: Final = re.compile(
    r"accept(-encoding)?|connection|user-agent|content-(type|encoding|length)|language-version|arize-interface"
    r"|x-langfuse-(ingestion-version|public-key)|.*sdk-.*"
)
_TAIL_SAMPLING: Final = re.compile("tail_?sampl", re.IGNORECASE)
_MLFLOW: Final = "mlflow.tracing."
_MLFLOWS: Final = "mlflow.traceRequestId"
"""On a span that MLflow's processor has registered; its exporter drops the others."""
_LOCAL: Final = {"127.0.0.1", "::1", "0.0.0.0"}  # noqa: S104 # names for this machine, nothing is bound
_PORTS: Final = {"http": 80, "https": 443}
_OTLP_PORTS: Final = {"grpc": 4317, "http": 4318}
"""One receiver has both (OTLP, "OTLP/gRPC Default Port", "OTLP/HTTP Default Port")."""


class Address(NamedTuple):
    """Where an exporter sends.

    Attributes:
        kind: `http`, `grpc`, or `stream`.
        host: In lower case; `localhost` for this machine. Of a stream, which one.
        port: 0 where there is none.
        path: Of HTTP.
        keys: The values of the headers that say to whom.
        project: The project of Phoenix or Arize that the spans go to.
        is_phoenix: Whether it is known to be Phoenix, whose gRPC port nothing ties to its HTTP port.
    """

    kind: str
    host: str
    port: int = 0
    path: str = ""
    keys: frozenset[str] = frozenset()
    project: str = ""
    is_phoenix: bool = False


class FoundExporter(NamedTuple):
    """An exporter on the application's provider.

    Attributes:
        exporter: The exporter.
        processor: What hands spans to it.
        holder: The object that has the exporter in an attribute; None where it is not ours to look into.
        name: The name of that attribute.
        takes_all: Whether every sampled span that ends is the application's to export; else a filter may come before
            it.
        mark: The attribute of the spans that it takes, where it takes no others.
    """

    exporter: SpanExporter
    processor: Any
    holder: Any
    name: str
    takes_all: bool
    mark: str | None = None


def is_same(one: Address | None, other: Address | None) -> bool:
    """Whether both send to the same place; False where one of them cannot be told."""
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
        # One port of one host, and the same key: a backend that takes both protocols.
        or (one.port == other.port and bool(one.keys))
    )


# --- addresses --------------------------------------------------------------------------------------------------------


def address_of(exporter: object, resource: Resource) -> Address | None:
    """Return where *exporter* sends spans of *resource*; None where it cannot be told."""
    is_phoenix = False
    for one in _chain(exporter):
        is_phoenix = is_phoenix or any(
            part.__module__.startswith(("phoenix.", "otel_metadata.backends.phoenix.")) for part in type(one).__mro__
        )
        if isinstance(one, AlteredSpans):
            is_phoenix = is_phoenix or one.alter.__module__.endswith(".phoenix.spans")
            if isinstance(one.alter, OnResource):
                resource = one.alter.of(resource)
        where = _where(one)
        if where is not None:
            return _address(*where, resource, is_phoenix=is_phoenix)
    return None


def _where(exporter: object) -> tuple[str, Mapping[str, str]] | None:
    """Return the URL and the headers of one exporter; None where it has none."""
    if isinstance(exporter, OtlpSender):
        return exporter.where
    held = _held_by(exporter)
    if isinstance(exporter, ConsoleSpanExporter):
        return f"stream://{id(held.get('out'))}", {}
    if _is_of_mlflow(exporter):
        return _where_mlflow_sends(held.get("_client"))
    endpoint = held.get("_endpoint")
    if not isinstance(endpoint, str) or not endpoint:
        return None
    is_grpc = any(".grpc" in part.__module__ for part in type(exporter).__mro__)
    if is_grpc and "://" not in endpoint:
        endpoint = f"grpc://{endpoint}"
    return endpoint, dict(_headers(exporter, _MAX_DEPTH))


def _is_of_mlflow(exporter: object) -> bool:
    return any(part.__module__.startswith(_MLFLOW) for part in type(exporter).__mro__)


def _where_mlflow_sends(client: object) -> tuple[str, Mapping[str, str]] | None:
    """Return where OTLP goes that comes to the same as MLflow's own client does; None for a file or database."""
    uri = _held_by(client).get("tracking_uri")
    if not isinstance(uri, str):
        return None
    from otel_metadata.backends import mlflow  # only where there is MLflow

    # Its client reads these variables for each request, and `set_experiment` writes the last one.
    experiment = os.environ.get(mlflow.EXPERIMENT, "") or "0"
    return with_path(uri, mlflow.TRACES), mlflow.request_headers(experiment)


def _headers(holder: object, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the headers that an exporter of OTLP sends, from it and from its client, transport and session."""
    held = _held_by(holder)
    for name in ("_headers", "headers"):
        found = held.get(name)
        pairs = found.items() if isinstance(found, Mapping) else found if isinstance(found, tuple | list) else ()
        for pair in pairs:
            if isinstance(pair, tuple) and len(pair) == 2:
                yield str(pair[0]).lower(), _text(pair[1])
    if depth:
        for name in ("_client", "client", "_transport", "_session"):
            if name in held:
                yield from _headers(held[name], depth - 1)


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _address(url: str, headers: Mapping[str, str], resource: Resource, *, is_phoenix: bool) -> Address | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    kind = "http" if parts.scheme in _PORTS else parts.scheme
    host = (parts.hostname or "").lower()
    named = {name.lower(): value for name, value in headers.items()}
    project = named.pop(_PROJECT_HEADER, "") or str(resource.attributes.get(_PROJECT, ""))
    keys = (value for name, value in named.items() if not _DESCRIPTIVE.fullmatch(name))
    return Address(
        kind,
        "localhost" if host in _LOCAL else host,
        port or _PORTS.get(parts.scheme, 443 if kind == "grpc" else 0),
        parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else ""),
        frozenset(key.strip().removeprefix("Bearer ") for key in keys if key.strip()),
        project,
        is_phoenix,
    )


def _chain(exporter: object) -> Iterator[object]:
    """Yield an exporter, then the one that it wraps, and so on."""
    seen: set[int] = set()
    one: object | None = exporter
    while one is not None and id(one) not in seen and len(seen) < _MAX_DEPTH:
        seen.add(id(one))
        yield one
        one = next((held for held in _held_by(one).values() if _is_exporter(held)), None)


def wraps(exporter: object, other: object) -> bool:
    """Whether the two have an exporter in common, or are one."""
    parts = {id(one) for one in _chain(exporter)}
    return any(id(one) in parts for one in _chain(other))


# --- what is on a provider --------------------------------------------------------------------------------------------


def processors_of(provider: TracerProvider) -> object:
    """Return the processors of a provider: another object as soon as one was added; None where it cannot be read."""
    several = getattr(real_provider(provider), "_active_span_processor", None)
    return getattr(several, "_span_processors", None)


def exporters_on(provider: TracerProvider) -> list[FoundExporter]:
    """Return the exporters that get spans of *provider*, those of an earlier pipeline of ours excepted."""
    several = getattr(real_provider(provider), "_active_span_processor", None)
    if several is None:
        return []
    return list(_exporters_of(several, is_direct=True, depth=_MAX_PROCESSOR_DEPTH, is_tail_sampled=False))


def _exporters_of(processor: object, *, is_direct: bool, depth: int, is_tail_sampled: bool) -> Iterator[FoundExporter]:
    if isinstance(processor, Place) or not depth:
        return
    # What it hands over comes when the trace has ended, or never: it decides about every span (Logfire's).
    is_tail_sampled = is_tail_sampled or bool(_TAIL_SAMPLING.search(type(processor).__name__))
    if isinstance(processor, MetadataSpanProcessor):
        for outbox in processor.outboxes:
            destination = outbox.destination
            if destination.spans and destination.span_exporter is not None:
                yield FoundExporter(destination.span_exporter, processor, None, "", takes_all=True)
        return
    held = _held_by(processor)
    several = held.get("_span_processors")
    if isinstance(several, tuple):
        is_plain = type(processor) in {SynchronousMultiSpanProcessor, ConcurrentMultiSpanProcessor}
        for one in several:
            yield from _exporters_of(
                one, is_direct=is_direct and is_plain, depth=depth - 1, is_tail_sampled=is_tail_sampled
            )
        return
    seen: list[object] = []
    for value in held.values():
        for one in value if type(value) in {tuple, list} else (value,):  # type: ignore[attr-defined] # these two
            if _is_processor(one):
                for found in _exporters_of(one, is_direct=False, depth=depth - 1, is_tail_sampled=is_tail_sampled):
                    seen.append(found.exporter)
                    yield found
    stock = getattr(type(processor), "on_end", None) in {BatchSpanProcessor.on_end, SimpleSpanProcessor.on_end}
    takes_all = is_direct and stock and "on_end" not in held
    # BatchSpanProcessor keeps its exporter in another object since SDK 1.34.
    for holder in (held.get("_batch_processor"), processor):
        for name, value in _held_by(holder).items():
            if _is_exporter(value) and not any(value is one for one in seen):
                seen.append(value)
                exporter = cast("SpanExporter", value)
                if _is_of_mlflow(exporter):
                    # Its answer is no result of an export, so no destination can send by it.
                    yield FoundExporter(exporter, processor, None, "", takes_all=False, mark=_MLFLOWS)
                elif is_tail_sampled:
                    yield FoundExporter(exporter, processor, None, "", takes_all=True)
                else:
                    yield FoundExporter(exporter, processor, holder, name, takes_all)


def _held_by(holder: object) -> dict[str, object]:
    """Return what an object has in attributes: nothing is computed, and what does not let itself be read has none."""
    try:
        return dict(object.__getattribute__(holder, "__dict__"))
    except Exception as error:  # noqa: BLE001 # slots, a built-in, or something that makes up its `__dict__`
        pass_on(error)
        return {}


def _is_processor(value: object) -> bool:
    # Asked of the class: an object may make up what it is asked for.
    return callable(getattr(type(value), "on_start", None)) and callable(getattr(type(value), "on_end", None))


def _is_exporter(value: object) -> bool:
    kind = type(value)
    return (
        callable(getattr(kind, "export", None))
        and callable(getattr(kind, "shutdown", None))
        and not _is_processor(value)
    )
