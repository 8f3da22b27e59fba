"""The tracer provider of the application: found by what it can do, and joined without removing anything from it."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast, final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from otel_metadata.errors import ConfigurationError

if TYPE_CHECKING:
    from otel_metadata.span_processor import MetadataSpanProcessor

__all__ = ["Place", "found_provider", "place_in", "real_provider", "resource_of"]

_MAX_DEPTH: Final = 5

_EXPECTED: Final = (
    "an opentelemetry.sdk.trace.TracerProvider, or a proxy of one that takes span processors (Logfire's is one). A "
    "provider of your own works beside this one: "
    "configure(..., tracer_provider=opentelemetry.sdk.trace.TracerProvider()); it gets the spans of observe() and "
    "start_span()"
)


@final
class Place(SpanProcessor):
    """The place of our processor in one tracer provider, which keeps whatever is added to it for good.

    Calling `configure` again puts another processor here, so that spans do not go through those that were shut down.
    The methods are the processor's own: a call costs what it costs without this.
    """

    def put(self, processor: MetadataSpanProcessor) -> None:
        """Let *processor* have what OpenTelemetry calls, from now on."""
        self.on_start = processor.on_start  # type: ignore[method-assign]
        self.on_end = processor.on_end  # type: ignore[method-assign]
        self.shutdown = processor.shutdown_with_provider  # type: ignore[method-assign]
        self.force_flush = processor.force_flush  # type: ignore[method-assign]
        self.look = processor.look


# By identity: a provider may compare by value, and then it has no hash (Logfire's proxy).
_places: Final[dict[int, tuple[weakref.ref[Any], Place]]] = {}


def found_provider(given: object | None) -> tuple[TracerProvider, bool]:
    """Return the provider to join, and whether it is new: *given*, else the global one, else one of our own.

    Raises:
        ConfigurationError: It takes no span processors; the message names what does.
    """
    if isinstance(given, trace.ProxyTracerProvider):
        given = None  # OpenTelemetry's stand-in for a global provider that may have been set since
    provider = trace.get_tracer_provider() if given is None else given
    if isinstance(provider, trace.ProxyTracerProvider):
        return TracerProvider(), True
    if _takes_processors(provider):
        return cast("TracerProvider", provider), False
    real = real_provider(provider)
    if real is not None:
        return real, False
    setting = "the global tracer provider" if given is None else "configure(tracer_provider=)"
    kind = type(provider)
    got = kind if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise ConfigurationError(setting, got, _EXPECTED)


def _takes_processors(provider: object) -> bool:
    return callable(getattr(provider, "add_span_processor", None)) and callable(getattr(provider, "get_tracer", None))


def real_provider(provider: object, depth: int = _MAX_DEPTH) -> TracerProvider | None:
    """Return the SDK's provider: *provider* itself, or the one that it wraps; None where none is found."""
    if isinstance(provider, TracerProvider):
        return provider
    if depth:
        for held in _held_by(provider):
            if isinstance(held, trace.TracerProvider) and not isinstance(held, trace.ProxyTracerProvider):
                real = real_provider(held, depth - 1)
                if real is not None:
                    return real
    return None


def _held_by(proxy: object) -> Iterator[object]:
    """Yield what a proxy may wrap."""
    yield from list(getattr(proxy, "__dict__", {}).values())
    yield getattr(proxy, "__wrapped__", None)


def resource_of(provider: object) -> Resource:
    """Return the resource of a provider's spans; where it does not say, the one that the environment describes."""
    for one in (provider, real_provider(provider)):
        resource = getattr(one, "resource", None)
        if isinstance(resource, Resource):
            return resource
    return Resource.create()


def place_in(provider: TracerProvider, processor: MetadataSpanProcessor) -> None:
    """Let *processor* have the spans of *provider*: in the place that an earlier one had, or in a new one."""
    real = real_provider(provider) or provider
    known = _places.get(id(real))
    if known is not None and known[0]() is real:
        known[1].put(processor)
        return
    place = Place()
    place.put(processor)
    number = id(real)
    # Known once it is there: interrupted in between, the next call adds another, and this one has nothing to do.
    _add(real, place)
    _places[number] = (weakref.ref(real, lambda _: _places.pop(number, None)), place)
    _look_after_additions(real, place)


def _look_after_additions(provider: TracerProvider, place: Place) -> None:
    """Let our processor look at what is added to the provider from now on, before a span comes to it.

    Without this it would be seen a moment too late: a processor that exports at once has exported by then.
    """
    add = provider.add_span_processor

    @functools.wraps(add)
    def add_span_processor(*arguments: Any, **options: Any) -> None:
        add(*arguments, **options)
        place.look()

    try:
        provider.add_span_processor = add_span_processor  # type: ignore[method-assign] # of this one provider
    except (AttributeError, TypeError):  # it does not let itself be changed
        pass


def _add(provider: TracerProvider, place: Place) -> None:
    """Add *place*, and remove nothing: the first processor that is added replaces the default of some providers."""
    options = {"replace_default_processor": False}  # Phoenix
    try:
        parameters = inspect.signature(provider.add_span_processor).parameters
    except (TypeError, ValueError):  # not written in Python
        parameters = {}  # type: ignore[assignment] # an empty mapping of another kind
    if options.keys() <= parameters.keys():
        provider.add_span_processor(place, **options)
    elif isinstance(provider, TracerProvider) and getattr(provider, "_default_processor", None):
        # The same without a way to say so: arize-otel, and Phoenix before it had the argument.
        TracerProvider.add_span_processor(provider, place)
    else:
        provider.add_span_processor(place)
