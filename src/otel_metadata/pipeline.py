"""`configure`: the one place where all parts meet.

It turns names and URLs into destinations, joins the application's tracer provider, and keeps the pipeline that `flush`,
`shutdown` and `stats` are about. Every environment variable of ours is a row of `VARIABLES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, NamedTuple, final

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_metadata._version import __version__
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.errors import ConfigurationError
from otel_metadata.late.destination import Destination, our_share, span_attribute_limit
from otel_metadata.late.outbox import OutboxSettings
from otel_metadata.late.stats import PipelineStats
from otel_metadata.live import settings
from otel_metadata.reporting import REPORTER
from otel_metadata.span_processor import MetadataSpanProcessor

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_metadata.model.masking import Mask
    from otel_metadata.seams import SpanStore

__all__ = ["VARIABLES", "Pipeline", "configure", "flush", "open_store", "shutdown", "stats"]

DEFAULT_DESTINATION: Final = "sqlite:///otel_metadata.db"

ENTRY_POINT_GROUP: Final = "otel_metadata_destination"
"""A package adds a destination by an entry point of this group: its name, or the scheme of its URLs, to a callable that
takes the text given to `configure` and returns a `Destination`."""


class Variable(NamedTuple):
    """An environment variable that we read.

    Attributes:
        name: Its name.
        default: What holds without it, as text.
        meaning: One sentence.
    """

    name: str
    default: str
    meaning: str


VARIABLES: Final = (
    Variable(
        "OTEL_PYTHON_METADATA_DESTINATIONS", DEFAULT_DESTINATION, "Destinations of `configure()`, separated by commas."
    ),
    Variable(
        "OTEL_PYTHON_METADATA_CAPTURE", "true", "Whether observed functions capture input and output by themselves."
    ),
    Variable("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "Ended spans that wait in one outbox."),
    Variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512", "Spans in one export."),
    Variable("OTEL_BSP_SCHEDULE_DELAY", "5000", "Milliseconds that a span or patch waits for company."),
    Variable("OTEL_BSP_EXPORT_TIMEOUT", "30000", "Milliseconds that one export of patches may take."),
    Variable("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "128", "Attributes of one span; ours are at most a quarter of them."),
)


@final
class Pipeline:
    """What `configure` set up.

    Attributes:
        processor: The span processor, with its outboxes.
        tracer_provider: The provider that it was added to.
        destinations: In the order given.
    """

    def __init__(
        self, processor: MetadataSpanProcessor, tracer_provider: TracerProvider, destinations: tuple[Destination, ...]
    ) -> None:
        """Keep the parts."""
        self.processor = processor
        self.tracer_provider = tracer_provider
        self.destinations = destinations

    def flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits: see `flush`."""
        return self.processor.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """Take nothing more and send what waits: see `shutdown`. The tracer provider itself goes on."""
        self.processor.shutdown(timeout_millis)

    def stats(self) -> PipelineStats:
        """Return what became of every update so far."""
        return self.processor.stats()

    def __enter__(self) -> Pipeline:
        """Return the pipeline itself."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Shut it down."""
        self.shutdown()

    def __repr__(self) -> str:
        """A status line."""
        return f"<Pipeline {self.processor!r}>"


_pipeline: Pipeline | None = None


def configure(
    *destinations: str | Destination,
    tracer_provider: TracerProvider | None = None,
    set_global: bool = False,
    mask: Mask | None = None,
    capture: bool | None = None,
    outbox: OutboxSettings | None = None,
    spool: str | None = None,
) -> Pipeline:
    """Send the spans of the application, and what is said of them at any time, to *destinations*.

    It joins the tracer provider that the application has; where there is none it makes a global one. In the provider it
    takes the place of a `BatchSpanProcessor(exporter)` for each destination: an exporter that the application added by
    itself goes on beside it.

    A second call shuts the first pipeline down and takes over.

    Args:
        destinations: Each a `Destination`, or a text: `"sqlite:///file.db"` (four slashes for an absolute path),
            `"otlp"` (as OpenTelemetry's `OTEL_EXPORTER_OTLP_*` say), `"http://127.0.0.1:4318"` (OTLP over HTTP),
            `"console"`, or a name that a package has registered. None at all: `OTEL_PYTHON_METADATA_DESTINATIONS`, else
            `"sqlite:///otel_metadata.db"`.
        tracer_provider: The provider to join; by default the global one.
        set_global: Make *tracer_provider* the global one too.
        mask: Called with (path, value) of everything that is set through this library, once, before it is set or
            stored; returns what to keep. `model.masking.Masking` makes one of key and pattern rules.
        capture: Whether observed functions capture input and output; None for `OTEL_PYTHON_METADATA_CAPTURE`.
        outbox: Bounds and times; None for `OTEL_BSP_*`.
        spool: A directory for updates that must survive the process; not available in this version.

    Raises:
        ConfigurationError: A destination, setting or provider cannot be used. Nothing was changed.
    """
    global _pipeline  # noqa: PLW0603 # the pipeline of flush(), shutdown() and stats()
    if spool is not None:
        raise ConfigurationError("configure(spool=)", spool, "None: this version keeps updates in memory only")
    if mask is not None and not callable(mask):
        raise ConfigurationError("configure(mask=)", type(mask).__name__, "a function of (path, value)")
    provider, is_new = _provider(tracer_provider)
    made = _renamed([_destination(one, provider.resource) for one in destinations or _from_environment()], destinations)
    names = [destination.name for destination in made]
    if len(set(names)) != len(names):
        raise ConfigurationError("configure", names, "destinations of different names: Destination(name=...)")
    # All that can be wrong is looked at before the first pipeline is shut down.
    bounds = outbox or OutboxSettings.from_environment()
    is_captured = _flag("OTEL_PYTHON_METADATA_CAPTURE", default=True) if capture is None else capture
    if _pipeline is not None:
        _pipeline.shutdown()
    processor = MetadataSpanProcessor(*made, settings=bounds)
    provider.add_span_processor(processor)
    if is_new or set_global:
        trace.set_tracer_provider(provider)
    share = our_share(span_attribute_limit())
    settings.use(
        settings.LiveSettings(
            mask=mask,
            capture=is_captured,
            max_attributes=1 << 30 if share is None else share,
            tracer=provider.get_tracer(settings.SCOPE_NAME, __version__),
        )
    )
    _pipeline = Pipeline(processor, provider, made)
    return _pipeline


def flush(timeout_millis: int = 30_000) -> bool:
    """Send what waits, for all destinations in parallel, and wait for it.

    Schedules, holding and back-off are skipped, a backend's grace is waited for, and what fails is tried once.

    Args:
        timeout_millis: How long to wait at most.

    Returns:
        Whether everything that waited at the call has arrived; False too when nothing is configured.
    """
    try:
        return _pipeline is not None and _pipeline.flush(timeout_millis)
    except Exception as error:  # noqa: BLE001 # the host's door
        REPORTER.failed("flush", error)
        return False


def shutdown(timeout_millis: int = 5_000) -> None:
    """Take nothing more, send what waits (spans, then patches), and close the exporters, all under one deadline.

    A second call does nothing. OpenTelemetry's provider calls it at exit by itself.

    Args:
        timeout_millis: How long to wait at most; what could not be sent by then is counted as lost.
    """
    try:
        if _pipeline is not None:
            _pipeline.shutdown(timeout_millis)
    except Exception as error:  # noqa: BLE001 # the host's door
        REPORTER.failed("shutdown", error)


def stats() -> PipelineStats:
    """Return what became of every update so far, for each destination; empty when nothing is configured."""
    return _pipeline.stats() if _pipeline is not None else PipelineStats(internal_errors=REPORTER.internal_errors)


def open_store(url: str, *, create: bool = True) -> SpanStore:
    """Return the store that a URL names.

    Args:
        url: `"sqlite:///relative.db"` or `"sqlite:////absolute.db"`.
        create: Make the file where there is none; False for who only reads.

    Raises:
        ConfigurationError: It names none.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and separator and rest.startswith("/") and len(rest) > 1:
        from otel_metadata.store.sqlite import SqliteStore  # `import otel_metadata` loads no sqlite3

        return SqliteStore(rest[1:], create=create)
    raise ConfigurationError("store", _without_password(url), "sqlite:///relative.db or sqlite:////absolute.db")


def _provider(given: TracerProvider | None) -> tuple[TracerProvider, bool]:
    if given is not None:
        if not isinstance(given, TracerProvider):
            raise ConfigurationError(
                "configure(tracer_provider=)", type(given).__name__, "an opentelemetry.sdk.trace.TracerProvider"
            )
        return given, False
    current = trace.get_tracer_provider()
    if isinstance(current, TracerProvider):
        return current, False
    if isinstance(current, trace.ProxyTracerProvider):
        return TracerProvider(), True
    raise ConfigurationError(
        "the global tracer provider",
        type(current).__name__,
        "one of OpenTelemetry's SDK; pass configure(tracer_provider=...) to join another",
    )


def _from_environment() -> Iterable[str]:
    text = os.environ.get("OTEL_PYTHON_METADATA_DESTINATIONS", "")
    return [part.strip() for part in text.split(",") if part.strip()] or [DEFAULT_DESTINATION]


def _destination(given: str | Destination, resource: Resource) -> Destination:
    if isinstance(given, Destination):
        return given
    if not isinstance(given, str):
        raise ConfigurationError("configure", type(given).__name__, "a Destination, or a name or URL as text")
    scheme = given.partition("://")[0]
    if scheme == "sqlite":
        return _store_destination("sqlite", open_store(given))
    if scheme in {"http", "https"}:
        return _otlp_destination(given, resource)
    named: Mapping[str, Callable[[Resource], Destination]] = {"otlp": _otlp_from_environment, "console": _console}
    if given in named:
        return named[given](resource)
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name == scheme:
            made = entry_point.load()(given)
            if not isinstance(made, Destination):
                raise ConfigurationError(f"entry point {entry_point.value}", type(made).__name__, "a Destination")
            return made
    raise ConfigurationError(
        "configure",
        _without_password(given),
        f"a Destination, sqlite:///file.db, an http:// or https:// OTLP endpoint, or one of {', '.join(sorted(named))}",
    )


def _renamed(made: list[Destination], given: Sequence[str | Destination]) -> tuple[Destination, ...]:
    """Return destinations whose names differ: of two that were given as text, the second gets a number."""
    names = {one.name for one in given if isinstance(one, Destination)}
    result: list[Destination] = []
    for destination in made:
        named = destination
        if not any(destination is one for one in given):
            number = 2
            while named.name in names:
                named = replace(destination, name=f"{destination.name}-{number}")
                number += 1
        names.add(named.name)
        result.append(named)
    return tuple(result)


def _store_destination(name: str, store: SpanStore) -> Destination:
    from otel_metadata.exporters.store import StorePatchExporter, StoreSpanExporter  # loaded on use

    # A store keeps fields as they are, so nothing has to fit onto the span.
    dialect = OtelDialect(max_attributes=None, span_limit=None)
    return Destination(name, StoreSpanExporter(store), StorePatchExporter(store, name), dialect)


def _otlp_destination(url: str, resource: Resource) -> Destination:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # loaded on use
        OTLPSpanExporter,
    )

    base = url.rstrip("/")
    has_path = "/" in base.partition("://")[2]
    return _with_otlp(OTLPSpanExporter(endpoint=base if has_path else f"{base}/v1/traces"), resource)


def _otlp_from_environment(resource: Resource) -> Destination:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    exporter: SpanExporter
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc  # loaded on use

        exporter = grpc.OTLPSpanExporter()
    elif protocol in {None, "http/protobuf"}:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # loaded on use

        exporter = http.OTLPSpanExporter()
    else:
        raise ConfigurationError("OTEL_EXPORTER_OTLP_PROTOCOL", protocol, "grpc or http/protobuf")
    return _with_otlp(exporter, resource)


def _with_otlp(exporter: SpanExporter, resource: Resource) -> Destination:
    from otel_metadata.exporters.otlp import OtlpPatchExporter  # loaded on use

    return Destination("otlp", exporter, OtlpPatchExporter(exporter, resource=resource))


def _console(_resource: Resource) -> Destination:
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # loaded on use

    from otel_metadata.exporters.console import ConsolePatchExporter  # loaded on use

    return Destination("console", ConsoleSpanExporter(), ConsolePatchExporter())


def _flag(variable: str, *, default: bool) -> bool:
    text = os.environ.get(variable, "").strip().lower()
    if text in {"", "true", "false"}:
        return text != "false" if text else default
    raise ConfigurationError(variable, text, "true or false")


def _without_password(url: str) -> str:
    """Return a URL as it may be shown: what is before an `@` is not."""
    scheme, separator, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}***@{host}" if at and user else url
