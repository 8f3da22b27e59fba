"""`observe`: a span around every call of a function, whatever kind of callable it is.

This module decides what a decorated callable does; spans are opened and ended as in `spans`, generators driven by
`generators`, arguments bound by `capture`.

The wrapping is `wrapt`'s: it keeps the signature and the `inspect` kinds, and binding decides whether a method, class
method or static method is called, in either decorator order. Each kind of callable has one short wrapper below; the
common steps are inlined in the synchronous and asynchronous ones because they are the application's hot path.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from typing import Any, TypeVar, final, overload

import wrapt
from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanKind, Tracer, set_span_in_context

from otel_metadata.errors import ConfigurationError
from otel_metadata.live import generators, settings
from otel_metadata.live.capture import Arguments, PartialOutput, output_value
from otel_metadata.live.context import detach
from otel_metadata.live.routing import set_captured
from otel_metadata.live.spans import record_end, set_values, span_kind_attributes
from otel_metadata.live.values import Values, span_values
from otel_metadata.model.merge import Json
from otel_metadata.model.unset import UNSET, UnsetType
from otel_metadata.reporting import REPORTER

__all__ = ["observe"]

_C = TypeVar("_C", bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any]")


@overload
def observe(func: _C, /) -> _C: ...
@overload
def observe(
    func: None = None,
    /,
    *,
    name: str | None = None,
    as_type: str | None = None,
    capture_input: bool | None = None,
    capture_output: bool | None = None,
    ignore_arguments: Iterable[str] = (),
    process_input: Callable[[dict[str, Any]], object] | None = None,
    process_output: Callable[[Any], object] | None = None,
    metadata: Mapping[str, object] | None = None,
    tags: Iterable[str] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    tracer: Tracer | None = None,
) -> Callable[[_C], _C]: ...
def observe(
    func: Any = None,
    /,
    *,
    name: str | None = None,
    as_type: str | None = None,
    capture_input: bool | None = None,
    capture_output: bool | None = None,
    ignore_arguments: Iterable[str] = (),
    process_input: Callable[[dict[str, Any]], object] | None = None,
    process_output: Callable[[Any], object] | None = None,
    metadata: Mapping[str, object] | None = None,
    tags: Iterable[str] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    tracer: Tracer | None = None,
) -> Any:
    """Open a span around every call of a function; inside, it is the current span.

    For functions, coroutine functions, generator and async generator functions, methods, class methods and static
    methods (above or below their decorator), callable objects; on a class: every public method of its own. The
    signature, the `inspect` kind and the result are unchanged; an exception is recorded and goes on. Each step of a
    generator runs in a private context, so the consumer keeps its own current span.

    Args:
        func: What to observe, when used without parentheses.
        name: The span's name; by default the function's, with its class.
        as_type: What it is for, as in `start_span`.
        capture_input: Keep the arguments by parameter name, without `self` or `cls`; None: unless
            `OTEL_PYTHON_METADATA_CAPTURE=false`.
        capture_output: Keep the result, of a generator what it yielded; None as above.
        ignore_arguments: Parameter names that are not captured.
        process_input: Turns the arguments by name into what is captured.
        process_output: Turns the result into what is captured.
        metadata: Set on every span.
        tags: Set on every span.
        kind: OpenTelemetry's span kind.
        tracer: Opens the spans; by default the one of `configure`, else of the global provider.

    Raises:
        ConfigurationError: At decoration: it cannot be observed, or an argument is wrong.
    """
    if isinstance(ignore_arguments, str):
        raise ConfigurationError("observe(ignore_arguments=)", ignore_arguments, "a list of parameter names")
    options = _Options(
        name=name,
        attributes=span_kind_attributes(as_type),
        capture_input=capture_input,
        capture_output=capture_output,
        ignored=tuple(ignore_arguments),
        process_input=process_input,
        process_output=process_output,
        values=span_values("span", [], metadata=metadata, tags=tags),
        kind=kind,
        tracer=tracer,
    )
    if func is None:
        return functools.partial(_observe, options=options)
    return _observe(func, options=options)


@final
class _Options:
    __slots__ = (
        "attributes",
        "capture_input",
        "capture_output",
        "ignored",
        "kind",
        "name",
        "process_input",
        "process_output",
        "tracer",
        "values",
    )

    def __init__(
        self,
        *,
        name: str | None,
        attributes: Mapping[str, str],
        capture_input: bool | None,
        capture_output: bool | None,
        ignored: tuple[str, ...],
        process_input: Callable[[dict[str, Any]], object] | None,
        process_output: Callable[[Any], object] | None,
        values: Values,
        kind: SpanKind,
        tracer: Tracer | None,
    ) -> None:
        self.name = name
        self.attributes = attributes or None
        self.capture_input = capture_input
        self.capture_output = capture_output
        self.ignored = ignored
        self.process_input = process_input
        self.process_output = process_output
        self.values = values
        self.kind = kind
        self.tracer = tracer


def _observe(func: Any, *, options: _Options) -> Any:
    if inspect.isclass(func):
        return _observe_class(func, options)
    if not callable(func) and not isinstance(func, classmethod | staticmethod):
        raise ConfigurationError("observe", type(func).__name__, "a function, method, callable object or class")
    return wrapt.FunctionWrapper(func, _wrapper(func, options))


def _observe_class(cls: type, options: _Options) -> type:
    for name, member in list(vars(cls).items()):
        is_method = inspect.isfunction(member) or isinstance(member, classmethod | staticmethod | wrapt.FunctionWrapper)
        if is_method and not name.startswith("_"):
            setattr(cls, name, _observe(member, options=options))
    return cls


def _function_of(func: Any) -> Any:
    """Return the plain function behind what was decorated: where its kind and its parameters are written."""
    if isinstance(func, classmethod | staticmethod):
        func = func.__func__
    while isinstance(func, functools.partial):
        func = func.func
    func = inspect.unwrap(func)
    if not inspect.isroutine(func) and hasattr(type(func), "__call__"):  # noqa: B004 # its class's, not whether it is callable
        func = type(func).__call__
    return func


def _span_name(func: Any) -> str:
    if isinstance(func, classmethod | staticmethod):
        func = func.__func__
    while isinstance(func, functools.partial):
        func = func.func
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _wrapper(func: Any, options: _Options) -> Callable[..., Any]:
    """Return the wrapt wrapper for the kind of callable that *func* is."""
    function = _function_of(func)
    call = _Call(func, function, options)
    if inspect.iscoroutinefunction(function):
        return call.coroutine
    if inspect.isgeneratorfunction(function):
        return call.generator
    if inspect.isasyncgenfunction(function):
        return call.async_generator
    return call.plain


@final
class _Call:
    """One observed callable: how each of its calls becomes a span."""

    __slots__ = ("_arguments", "_is_static", "_name", "_options")

    def __init__(self, func: Any, function: Any, options: _Options) -> None:
        self._options = options
        self._name = options.name or _span_name(func)
        self._is_static = isinstance(func, staticmethod)
        bound_already = inspect.ismethod(func) or (not inspect.isroutine(func) and function is not func)
        self._arguments = Arguments(
            functools.partial(function, None)
            if bound_already and not isinstance(func, classmethod | staticmethod | functools.partial)
            else function,
            options.ignored,
            options.process_input,
        )

    def plain(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        span = self._start()
        if span is None:
            return wrapped(*args, **kwargs)
        token = otel_context.attach(set_span_in_context(span))
        given: Json | UnsetType = UNSET
        try:
            given = self._input(instance, args, kwargs) if span.is_recording() else UNSET
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            self._end(span, given, error, None)
            raise
        else:
            self._end(span, given, None, result)
            return result
        finally:
            detach(token)

    async def coroutine(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        span = self._start()
        if span is None:
            return await wrapped(*args, **kwargs)
        token = otel_context.attach(set_span_in_context(span))
        given: Json | UnsetType = UNSET
        try:
            given = self._input(instance, args, kwargs) if span.is_recording() else UNSET
            result = await wrapped(*args, **kwargs)
        except BaseException as error:
            self._end(span, given, error, None)
            raise
        else:
            self._end(span, given, None, result)
            return result
        finally:
            detach(token)

    def generator(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Generator[Any, Any, Any]:
        return generators.drive(self._starter(wrapped, instance, args, kwargs))

    def async_generator(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> AsyncGenerator[Any, Any]:
        return generators.drive_async(self._starter(wrapped, instance, args, kwargs))

    def _starter(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Callable[[], generators.Start]:
        # The parent is the caller's span at the call; the span itself starts with the first step.
        parent = otel_context.get_current()

        def start() -> generators.Start:
            span = self._start(parent)
            if span is None:
                context, observer = generators.PrivateContext(parent), generators.Observer()
            else:
                context = generators.PrivateContext(set_span_in_context(span, parent))
                observer = self._observer(span, instance, args, kwargs)
            try:
                body = context.run(functools.partial(wrapped, *args, **kwargs))
            except BaseException as error:
                observer.end(error)
                raise
            return generators.Start(body, context, observer)

        return start

    def _start(self, context: Any = None) -> Span | None:
        """Start the span; None when that failed, and the call goes on without one."""
        options = self._options
        try:
            tracer = options.tracer or settings.current().tracer
            span = tracer.start_span(self._name, context, kind=options.kind, attributes=options.attributes)
            if options.values and span.is_recording():
                set_values(span, options.values)
        except Exception as error:  # noqa: BLE001 # the host's door
            REPORTER.failed("observe", error)
            return None
        return span

    def _input(self, instance: Any, args: Any, kwargs: Any) -> Json | UnsetType:
        """Return the captured input; UNSET when it is not wanted."""
        wanted = self._options.capture_input
        if not (settings.current().capture if wanted is None else wanted):
            return UNSET
        try:
            return self._arguments.value(args, kwargs, is_bound=instance is not None and not self._is_static)
        except Exception as error:  # noqa: BLE001 # the host's door
            REPORTER.failed("capture_input", error)
            return UNSET

    def _output(self, result: Any) -> Json | UnsetType:
        """Return the captured output; UNSET when it is not wanted."""
        if not self._wants_output():
            return UNSET
        return output_value(self._options.process_output, result)

    def _wants_output(self) -> bool:
        wanted = self._options.capture_output
        return settings.current().capture if wanted is None else wanted

    def _end(self, span: Span, given: Json | UnsetType, error: BaseException | None, result: Any) -> None:
        """End the span with what was captured, unless the application has ended it."""
        try:
            if not span.is_recording():
                return
            output: Json | UnsetType = UNSET
            if error is not None:
                record_end(span, error)
            else:
                output = self._output(result)
            if given is not UNSET or output is not UNSET:
                set_captured(span, given, output)
            span.end()
        except Exception as failure:  # noqa: BLE001 # the host's door
            REPORTER.failed("end", failure)

    def end_generator(
        self,
        span: Span,
        given: Json | UnsetType,
        error: BaseException | None,
        output: PartialOutput | None,
        result: Any,
    ) -> None:
        """End the span of a generator: what it yielded is kept, also when an error or an early close ended it."""
        try:
            if not span.is_recording():
                return
            if error is not None:
                record_end(span, error)
            kept = UNSET if output is None else output_value(self._options.process_output, output.value(result))
            if given is not UNSET or kept is not UNSET:
                set_captured(span, given, kept)
            span.end()
        except Exception as failure:  # noqa: BLE001 # the host's door
            REPORTER.failed("end", failure)

    def _observer(self, span: Span, instance: Any, args: Any, kwargs: Any) -> generators.Observer:
        if not span.is_recording():
            return _GeneratorSpan(self, span, UNSET, None)
        output = PartialOutput() if self._wants_output() else None
        return _GeneratorSpan(self, span, self._input(instance, args, kwargs), output)


@final
class _GeneratorSpan(generators.Observer):
    """The span of a generator: ended once, however it ends, with what it yielded."""

    def __init__(self, call: _Call, span: Span, given: Json | UnsetType, output: PartialOutput | None) -> None:
        self._call = call
        self._span = span
        self._given = given
        self._output = output

    def item(self, value: object) -> None:
        if self._output is not None:
            self._output.add(value)

    def end(self, error: BaseException | None, result: object = None) -> None:
        self._call.end_generator(self._span, self._given, error, self._output, result)
