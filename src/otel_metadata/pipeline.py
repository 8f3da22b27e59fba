"""`configure`: the one place where all parts meet.

It makes the destinations, joins the application's tracer provider, and keeps the pipeline that `flush`, `shutdown`,
`stats` and `outcome` are about.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple, final

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME

from otel_metadata import settings
from otel_metadata._version import __version__
from otel_metadata.delivery import metrics
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.delivery.stats import DestinationStats, PipelineStats
from otel_metadata.destination_factory import free_name, make_destinations
from otel_metadata.environment import flag
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters import proxy as http_proxy
from otel_metadata.joining.providers import found_provider, join_provider, resource_of
from otel_metadata.joining.sharing import share_places
from otel_metadata.live import ended_provider, live_settings, routing
from otel_metadata.live.author import author_named, chosen_author
from otel_metadata.live.misuse import kind_of, log_misfits, misfit
from otel_metadata.live.registry import LOCK, REGISTRY
from otel_metadata.model.receipt import Receipt
from otel_metadata.model.update_outcome import DestinationOutcome, UpdateOutcome
from otel_metadata.reporting import REPORTER, after_fork_in_child
from otel_metadata.seams import SystemClock, bounded_millis
from otel_metadata.span_processor import MetadataSpanProcessor

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.sdk.trace import TracerProvider

    from otel_metadata.delivery.destination import Destination
    from otel_metadata.model.dead_letter import DeadLetter
    from otel_metadata.model.masking import Mask
    from otel_metadata.spool.spool import Spool
    from otel_metadata.spool.spool_settings import SpoolSettings


@final
class Pipeline:
    """The parts that `configure` set up.

    Attributes:
        processor: The span processor, with its outboxes.
        tracer_provider: The provider that it was added to.
        destinations: The destinations, in the order given.
    """

    def __init__(
        self, processor: MetadataSpanProcessor, tracer_provider: TracerProvider, destinations: tuple[Destination, ...]
    ) -> None:
        """Keep the parts."""
        self.processor = processor
        self.tracer_provider = tracer_provider
        self.destinations = destinations

    def flush(self, timeout_millis: int = 30_000) -> bool:
        """Send everything that waits: see `flush`."""
        return self.processor.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """Stop accepting updates and send everything that waits: see `shutdown`. The tracer provider stays open."""
        self.processor.shutdown(timeout_millis)

    def stats(self) -> PipelineStats:
        """Return the counts of every update so far."""
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

# Processors that were added by hand and closed by `shutdown()`: `stats()` still counts their updates.
_closed: tuple[MetadataSpanProcessor, ...] = ()

_CLOCK: Final = SystemClock()

# Longer than one call may take to shut down the earlier pipeline.
_TURN_SECONDS: Final = 60


_MADE_GLOBAL: Final = (
    "There was no global tracer provider, so configure() has made it, and OpenTelemetry lets nobody replace it. Where "
    "the application sets up tracing by itself (TracerProvider, logfire.configure()), call configure() after that."
)


class _Made(NamedTuple):
    """The result of one call of `configure`: pipeline, settings, author, and whether its provider becomes global."""

    pipeline: Pipeline
    live: live_settings.LiveSettings
    author: Callable[[], str]
    becomes_global: bool


@final
class _Turns:
    """Lets calls of `configure` run one after the other; a signal handler may call it while it interrupts another call.

    Attributes:
        made: The results that are not shut down yet, by the number of their call. The highest number is in force.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self.made: dict[int, _Made] = {}
        after_fork_in_child(self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()  # another thread may have held it at the fork

    @contextmanager
    def wait(self) -> Iterator[int]:
        """Wait for earlier calls, then yield the number of this one.

        Raises:
            ConfigurationError: The earlier calls do not end; or this thread must not wait, because it holds a lock of
                ours that they may need.
        """
        lock = self._lock
        if not lock.acquire(timeout=0 if _must_not_wait() else _TURN_SECONDS):
            raise ConfigurationError(
                "configure", "a call while another thread configures", "one call at a time; call it again"
            )
        try:
            yield next(self._numbers)
        finally:
            lock.release()

    def latest(self) -> int:
        """Return the number of the call that is in force."""
        return max(list(self.made))

    def shut_down_before(self, number: int) -> None:
        """Shut down the pipelines of earlier calls."""
        for earlier in list(self.made):
            made = self.made.get(earlier)
            if earlier < number and made is not None:
                made.pipeline.shutdown()
                self.made.pop(earlier, None)


_TURNS: Final = _Turns()


def configure(
    *destinations: str | Destination,
    tracer_provider: TracerProvider | None = None,
    set_global: bool = False,
    adopt: bool | None = None,
    mask: Mask | None = None,
    mask_credentials: bool | None = None,
    capture: bool | None = None,
    outbox: OutboxSettings | None = None,
    spool: str | SpoolSettings | None = None,
    on_dead_letter: Callable[[DeadLetter], None] | None = None,
    proxy: bool | str | None = None,
    author: str | None = None,
) -> Pipeline:
    """Send the spans of the application, and updates of them at any time, to *destinations*.

    It joins the application's tracer provider, or makes a global one where there is none. It removes nothing from the
    provider. Where an exporter of the application sends to the same place as a destination, each span leaves
    once, by that exporter, and a log line says so: see *adopt*, and `docs/joining.md`.

    A second call shuts the first pipeline down and takes over. Calls from several threads run one after the other, and
    the last one is in force.

    Args:
        destinations: Each a `Destination`, or a text: `"sqlite:///file.db"` (four slashes for an absolute path),
            `"clickhouse://user:password@host:8123/database"`, `"serve://host:4318"` (a server of otel-metadata;
            `"serve"` for that of the environment), `"otlp"` (as OpenTelemetry's `OTEL_EXPORTER_OTLP_*` say),
            `"http://127.0.0.1:4318"` (OTLP over HTTP), `"console"`, or a name that a package has registered. None at
            all: `OTEL_PYTHON_METADATA_DESTINATIONS`, else `"sqlite:///otel_metadata.db"`.
        tracer_provider: The provider to join; by default the global one. A proxy of OpenTelemetry's SDK will do.
        set_global: Make *tracer_provider* the global one too; OpenTelemetry allows that once.
        adopt: Where an exporter of the application sends to the same place as a destination, let the destination send
            its spans by that exporter, with the updates that come before they leave. The application's processor
            stays, and no longer exports by itself until the pipeline is shut down. None for
            `OTEL_PYTHON_METADATA_ADOPT`.
        mask: Called with (path, value) of everything that is set through this library, once, before it is set or
            stored; returns what to keep. `model.masking.Masking` makes one of key and pattern rules.
        mask_credentials: Whether values of keys that name a secret (`password`, `authorization`, ...) are replaced
            first; None for `OTEL_PYTHON_METADATA_MASK_CREDENTIALS`.
        capture: Whether observed functions capture input and output; None for `OTEL_PYTHON_METADATA_CAPTURE`.
        outbox: Bounds and times; None for `OTEL_BSP_*`.
        spool: A file for updates that must survive the process, in a directory of its own, shared by any number of
            processes: its path, or `settings.SpoolSettings`. None for `OTEL_PYTHON_METADATA_SPOOL`, else none.
        on_dead_letter: Called with each patch that is given up (`model.dead_letter.DeadLetter`): on a thread of ours,
            or on the one that flushes or shuts down.
        proxy: The HTTP proxy that everything goes through: True for the one that `HTTP_PROXY`, `HTTPS_PROXY` and
            `ALL_PROXY` name, `"http://user:password@host:port"`, or False for none. None for
            `OTEL_PYTHON_METADATA_PROXY`, else none. `NO_PROXY` holds in each case. See docs/http.md.
        author: The name under which this process sets values, for people, such as `"nightly judge"`. Several processes
            may have one name. None for `OTEL_PYTHON_METADATA_AUTHOR`, else `service.name` of the resource and the
            process: `checkout (pid 4711)`.

    Raises:
        ConfigurationError: A destination, setting or provider cannot be used. Nothing was changed.
    """
    if on_dead_letter is not None and not callable(on_dead_letter):
        raise ConfigurationError("configure(on_dead_letter=)", type(on_dead_letter), "a function of one dead letter")
    if mask is not None and not callable(mask):
        raise ConfigurationError("configure(mask=)", type(mask), "a function of (path, value)")
    if outbox is not None and not isinstance(outbox, OutboxSettings):
        raise ConfigurationError("configure(outbox=)", type(outbox), "an OutboxSettings")
    if not isinstance(set_global, bool):
        raise ConfigurationError("configure(set_global=)", set_global, "True or False")
    _tell_misspelled()
    # Everything that can fail is checked before the earlier pipeline is shut down.
    adopts = _chosen("adopt", adopt, settings.ADOPT, default=False)
    is_captured = _chosen("capture", capture, live_settings.CAPTURE, default=True)
    are_masked = _chosen("mask_credentials", mask_credentials, live_settings.MASK_CREDENTIALS, default=True)
    provider, becomes_global = _provider(tracer_provider, set_global=set_global)
    resource = resource_of(provider)
    signed = author_named(chosen_author("configure(author=)", author), resource.attributes.get(SERVICE_NAME))
    made = make_destinations(*destinations, resource=resource)
    bounds = outbox or OutboxSettings.from_environment()
    proxies = http_proxy.asked_for(proxy)
    opened = open_spool(spool)
    processor: MetadataSpanProcessor | None = None
    try:
        with _TURNS.wait() as number:
            if becomes_global:  # another thread may have set a global provider meanwhile
                provider, becomes_global = _provider(tracer_provider, set_global=set_global, made=provider)
            _TURNS.shut_down_before(number)
            http_proxy.use(proxies)
            live_settings.VERSIONS.sign(signed)  # before the processor, which would ask the first span for it
            processor = MetadataSpanProcessor(*made, settings=bounds, spool=opened, on_dead_letter=on_dead_letter)
            metrics.observe(stats)
            share_places(processor, provider, adopts=adopts)
            tracer = provider.get_tracer(live_settings.SCOPE_NAME, __version__)
            live = live_settings.LiveSettings(
                mask=mask, masks_credentials=are_masked, capture=is_captured, tracer=tracer
            )
            pipeline = Pipeline(processor, provider, made)
            _TURNS.made[number] = _Made(pipeline, live, signed, becomes_global)
            while True:
                latest = _TURNS.latest()
                in_force = _TURNS.made.get(latest)
                if in_force is not None:
                    _put_in_force(in_force)
                if _TURNS.latest() == latest:  # a signal handler may have configured meanwhile
                    break
            _TURNS.shut_down_before(latest)
            if becomes_global and not set_global:
                REPORTER.tell("made_global", _MADE_GLOBAL, level=logging.INFO)
            return pipeline
    except BaseException:
        if processor is not None:
            processor.shutdown(0)
        elif opened is not None:
            opened.close()
        raise


def _tell_misspelled() -> None:
    """Log a warning for each environment variable that has our prefix but is not known."""
    prefix = settings.PREFIX
    known = [one.name.removeprefix(prefix) for one in settings.VARIABLES if one.name.startswith(prefix)]
    for name in list(os.environ):
        rest = name.removeprefix(prefix)
        if rest != name and rest not in known:
            close = get_close_matches(rest, known, 1)
            every = ", ".join(f"{prefix}{one}" for one in known)
            remedy = f"did you mean {prefix}{close[0]}?" if close else f"expected one of {every}."
            REPORTER.tell(f"variable:{name}", f"The environment variable {name} has no effect; {remedy}")


def _provider(
    given: TracerProvider | None, *, set_global: bool, made: TracerProvider | None = None
) -> tuple[TracerProvider, bool]:
    """Return the provider to join, and whether it becomes the global one; *made* in place of a new one."""
    provider, is_new = found_provider(given) if made is None or not _is_free() else (made, True)
    becomes_global = is_new or (set_global and trace.get_tracer_provider() is not provider)
    if becomes_global and not _is_free():
        raise ConfigurationError(
            "configure(set_global=)",
            set_global,
            "False: there is a global tracer provider, and OpenTelemetry does not let it be replaced; leave out "
            "tracer_provider= to join it",
        )
    return provider, becomes_global


def _chosen(name: str, given: object, variable: str, *, default: bool) -> bool:
    """Return *given*; for None, the value of the environment variable."""
    if given is None:
        return flag(variable, default=default)
    if not isinstance(given, bool):
        raise ConfigurationError(f"configure({name}=)", given, f"True, False, or None for {variable}")
    return given


def _must_not_wait() -> bool:
    """Whether this thread was interrupted while it held a lock of ours: see `MetadataSpanProcessor.must_not_wait`."""
    processors = _added() if _pipeline is None else (_pipeline.processor, *_added())
    return LOCK.is_held_by_current_thread() or any(processor.must_not_wait for processor in processors)


def _is_free() -> bool:
    """Whether there is no global tracer provider yet."""
    return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _put_in_force(made: _Made) -> None:
    """Route spans and calls to a pipeline."""
    global _pipeline, _closed  # what flush(), shutdown() and stats() are about
    join_provider(made.pipeline.tracer_provider, made.pipeline.processor)
    if made.becomes_global and _is_free():
        trace.set_tracer_provider(made.pipeline.tracer_provider)
    live_settings.use(made.live)
    live_settings.VERSIONS.sign(made.author)
    with LOCK:
        _pipeline, _closed = made.pipeline, ()


def flush(timeout_millis: int = 30_000) -> bool:
    """Send everything that waits, to all destinations in parallel, and wait until it has arrived.

    This includes processors that were added by hand. It skips schedules, holding and back-off, waits for a backend's
    grace, and tries each failure once.

    Args:
        timeout_millis: How long to wait at most.

    Returns:
        Whether everything that waited at the call has arrived; False too when nothing is configured.
    """
    try:
        return _flush(_processors(), _millis("flush", timeout_millis, 30_000))
    except RecursionError:
        REPORTER.internal_errors += 1  # the stack has no room for another call
        return False
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("flush", error)
        return False


def shutdown(timeout_millis: int = 5_000) -> None:
    """Stop accepting updates, send spans and then patches, and close the exporters, all under one deadline.

    Processors that were added by hand are shut down too. A second call does nothing. At exit, OpenTelemetry's provider
    calls it.

    Args:
        timeout_millis: How long to wait at most; updates that could not be sent by then are counted as lost.
    """
    global _closed  # noqa: PLW0603 # for stats()
    try:
        timeout_millis = _millis("shutdown", timeout_millis, 5_000)
        processors = _added()  # the one of configure() is there until it is shut down
        before = _pipeline
        deadline_ns = _CLOCK.monotonic_ns() + timeout_millis * 1_000_000
        if len(processors) > 1:
            # Side by side, so that a destination that hangs does not take the time of the others.
            _flush(processors, timeout_millis)
        for processor in processors:
            processor.shutdown(max((deadline_ns - _CLOCK.monotonic_ns()) // 1_000_000, 0))
        with LOCK:
            if _pipeline is before:  # configure() has begun anew otherwise
                _closed = processors or _closed
                ended_provider.clear()
    except RecursionError:
        REPORTER.internal_errors += 1  # the stack has no room for another call
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("shutdown", error)


def stats() -> PipelineStats:
    """Return the counts of every update so far, for each destination; empty when nothing is configured.

    This includes processors that were added by hand. Of two destinations with one name the second gets a number.
    """
    destinations: dict[str, DestinationStats] = {}
    refused: dict[str, int] = {}
    for processor in _processors():
        found = processor.stats()
        for name, counts in found.destinations.items():
            destinations[free_name(name, destinations)] = counts
        # Each processor counts every refusal of the process since it was added.
        for reason, count in found.refused.items():
            refused[reason] = max(count, refused.get(reason, 0))
    return PipelineStats(destinations, refused, REPORTER.internal_errors, REGISTRY.bytes)


def outcome(receipt: object) -> UpdateOutcome:
    """Return what became of an update, for each destination: `receipt` says where it went, this what followed.

    ```python
    receipt = om.update_span(ref, metadata={"thumbs": "up"})
    ...
    om.outcome(receipt).destinations["langfuse"].state  # "delivered"
    ```

    It is remembered for the latest 10,000 spans and traces of a destination, in this process. An update counts as
    delivered where a later value of the same field took its place, and arrived.

    Args:
        receipt: What an update call returned. For anything else the answer is unknown.
    """
    try:
        if not isinstance(receipt, Receipt):
            log_misfits("outcome", [misfit("receipt", kind_of(receipt), "a Receipt", "the answer is unknown")])
            return UpdateOutcome()
        if receipt.refusal is not None:
            return UpdateOutcome(reason=receipt.refusal)
        found = {name: DestinationOutcome("unknown") for name in receipt.routes}
        for processor in _processors():
            for name, one in processor.outcome(receipt).items():
                if found[name].state == "unknown":  # two processors may have destinations of one name
                    found[name] = one
        return UpdateOutcome(found)
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("outcome", error)
        return UpdateOutcome()


def _millis(function: str, given: object, default: int) -> int:
    """Return the time that a call may take. For a value that is not a time, log it and return the default."""
    millis = bounded_millis(given, -1)
    if millis >= 0:
        return millis
    if given is not None:
        log_misfits(
            function, [misfit("timeout_millis", kind_of(given), "milliseconds, a number", f"{default} was taken")]
        )
    return default


def _processors() -> tuple[MetadataSpanProcessor, ...]:
    """Return the processor of `configure`, those that were added by hand, and those that `shutdown` has closed."""
    with LOCK:
        pipeline, added, closed = _pipeline, _added(), _closed
    configured = (pipeline.processor,) if pipeline is not None else ()
    return tuple(dict.fromkeys((*configured, *added, *closed)))


def _added() -> tuple[MetadataSpanProcessor, ...]:
    """Return every processor that takes updates."""
    return tuple(router for router in routing.routers() if isinstance(router, MetadataSpanProcessor))


def _flush(processors: Sequence[MetadataSpanProcessor], timeout_millis: int) -> bool:
    if len(processors) == 1:
        return processors[0].force_flush(timeout_millis)
    if any(one.must_not_wait or any(worker.runs_here for worker in one.workers) for one in processors):
        return False  # as in MetadataSpanProcessor.force_flush
    finishes = []
    for processor in processors:
        deadline_ns = processor._clock.monotonic_ns() + timeout_millis * 1_000_000
        finishes += [worker.begin_flush(deadline_ns) for worker in processor.workers]
    answers = [finish() for finish in finishes]
    return bool(answers) and all(answers) and not ended_provider.has_missed()


def open_spool(given: str | SpoolSettings | None) -> Spool | None:
    """Return the spool that the argument or the environment names; None where neither does.

    Raises:
        ConfigurationError: The spool cannot be used.
    """
    chosen = given if given is not None else os.environ.get(settings.SPOOL, "").strip() or None
    if chosen is None:
        return None
    from otel_metadata.spool.spool import Spool  # `import otel_metadata` loads no sqlite3
    from otel_metadata.spool.spool_settings import SpoolSettings

    if not isinstance(chosen, str | SpoolSettings):
        raise ConfigurationError("configure(spool=)", type(chosen), "a path as text, or SpoolSettings")
    if isinstance(chosen, SpoolSettings):
        return Spool(chosen)
    quota = os.environ.get(settings.SPOOL_QUOTA, "").strip()
    if quota and not quota.isdecimal():
        raise ConfigurationError(settings.SPOOL_QUOTA, quota, "a whole number of bytes, for example 1073741824")
    durability = os.environ.get(settings.SPOOL_DURABILITY, "").strip() or "process"
    return Spool(
        SpoolSettings(chosen, durability, int(quota)) if quota else SpoolSettings(chosen, durability)  # type: ignore[arg-type] # checked there
    )
