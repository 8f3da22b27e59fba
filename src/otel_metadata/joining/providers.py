"""The application's tracer provider: found by what it can do, and joined without removing anything from it."""

from __future__ import annotations

import functools
import inspect
import weakref
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from otel_metadata.errors import ConfigurationError
from otel_metadata.interrupts import pass_on

if TYPE_CHECKING:
    from otel_metadata.span_processor import MetadataSpanProcessor

_MAX_DEPTH: Final = 5

_EXPECTED: Final = (
    "an opentelemetry.sdk.trace.TracerProvider, or a proxy of one that takes span processors (Logfire's is one). A "
    "provider of your own works beside this one: "
    "configure(..., tracer_provider=opentelemetry.sdk.trace.TracerProvider()); it gets the spans of observe() and "
    "start_span()"
)


@final
class ReplaceableProcessor(SpanProcessor):
    """Stands for our processor in a tracer provider, which keeps every processor for good.

    Each call of `configure` replaces the processor behind it, so that spans do not go through those that were shut
    down. The methods are the processor's own: a call costs the same as without this object.
    """

    def replace(self, processor: MetadataSpanProcessor) -> None:
        """Let OpenTelemetry call *processor* from now on."""
        self.on_start = processor.on_start  # type: ignore[method-assign]
        self.on_end = processor.on_end  # type: ignore[method-assign]
        self.shutdown = processor.shutdown_with_provider  # type: ignore[method-assign]
        self.force_flush = processor.force_flush  # type: ignore[method-assign]
        self.look = processor.look


# By identity: a provider may compare by value, and then it has no hash (Logfire's proxy).
_joined: Final[dict[int, tuple[weakref.ref[Any], ReplaceableProcessor]]] = {}


def found_provider(given: object | None) -> tuple[TracerProvider, bool]:
    """Return the provider to join, and whether it is new: *given*, else the global one, else a new one.

    Raises:
        ConfigurationError: The provider takes no span processors; the message names those that do.
    """
    if isinstance(given, trace.ProxyTracerProvider):
        given = None  # it stands for the global provider, which may have been set since
    provider = trace.get_tracer_provider() if given is None else given
    if isinstance(provider, trace.ProxyTracerProvider):
        return TracerProvider(), True
    if callable(getattr(provider, "add_span_processor", None)) and callable(getattr(provider, "get_tracer", None)):
        return cast("TracerProvider", provider), False
    real = real_provider(provider)
    if real is not None:
        return real, False
    setting = "the global tracer provider" if given is None else "configure(tracer_provider=)"
    kind = type(provider)
    got = kind if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise ConfigurationError(setting, got, _EXPECTED)


def real_provider(provider: object, depth: int = _MAX_DEPTH) -> TracerProvider | None:
    """Return the SDK's provider: *provider* itself, or the one that it wraps; None where it wraps none."""
    if isinstance(provider, TracerProvider):
        return provider
    if depth:
        for held in (*held_by(provider).values(), getattr(provider, "__wrapped__", None)):
            if isinstance(held, trace.TracerProvider) and not isinstance(held, trace.ProxyTracerProvider):
                real = real_provider(held, depth - 1)
                if real is not None:
                    return real
    return None


def held_by(holder: object) -> dict[str, object]:
    """Return the attributes in which *holder* keeps objects, without computing any; empty where they are unreadable."""
    try:
        return dict(object.__getattribute__(holder, "__dict__"))
    except Exception as error:  # noqa: BLE001 # slots, a built-in, or something that makes up its `__dict__`
        pass_on(error)
        return {}


def resource_of(provider: object) -> Resource:
    """Return the resource of a provider's spans; where it names none, the one that the environment describes."""
    for one in (provider, real_provider(provider)):
        resource = getattr(one, "resource", None)
        if isinstance(resource, Resource):
            return resource
    return Resource.create()


def join_provider(provider: TracerProvider, processor: MetadataSpanProcessor) -> None:
    """Let *processor* have the spans of *provider*, in place of the one that joined it before."""
    real = real_provider(provider) or provider
    number = id(real)
    known = _joined.get(number)
    if known is not None and known[0]() is real:
        known[1].replace(processor)
        return
    joining = ReplaceableProcessor()
    joining.replace(processor)
    # Recorded after it was added: if this is interrupted in between, the next call adds another, and this one is idle.
    _add(real, joining)
    _joined[number] = (weakref.ref(real, lambda _: _joined.pop(number, None)), joining)
    _look_after_additions(real, joining)


def _look_after_additions(provider: TracerProvider, joining: ReplaceableProcessor) -> None:
    """Let our processor look at each processor that is added to the provider later, before a span comes to it.

    To look when the next span ends would be too late: a processor that exports at once has exported by then.
    """
    add = provider.add_span_processor

    @functools.wraps(add)
    def add_span_processor(*arguments: Any, **options: Any) -> None:
        add(*arguments, **options)
        joining.look()

    try:
        provider.add_span_processor = add_span_processor  # type: ignore[method-assign] # of this one provider
    except (AttributeError, TypeError):  # the provider refuses the attribute
        pass


def _add(provider: TracerProvider, joining: ReplaceableProcessor) -> None:
    """Add *joining* and remove nothing: in some providers the first processor that is added replaces the default."""
    options = {"replace_default_processor": False}  # Phoenix
    try:
        parameters = inspect.signature(provider.add_span_processor).parameters
    except (TypeError, ValueError):  # not written in Python
        parameters = {}  # type: ignore[assignment] # an empty mapping of another kind
    if options.keys() <= parameters.keys():
        provider.add_span_processor(joining, **options)
    elif isinstance(provider, TracerProvider) and getattr(provider, "_default_processor", None):
        # arize-otel, and Phoenix before it had the argument, replace without asking.
        TracerProvider.add_span_processor(provider, joining)
    else:
        provider.add_span_processor(joining)
