"""`observe`: a span around every call of a function, whatever kind of callable it is.

This module decides what a decorated callable does. `opened_spans` records how a span ended, `generators` drives
generators, `streams` replaces results that go on after the call, and `call_values` binds the arguments.

`wrapt` does the wrapping. It keeps the signature and the `inspect` kinds; binding decides whether a method, class
method or static method is called, in either decorator order. Each kind of callable has one short wrapper below. The
synchronous and the asynchronous wrapper repeat the common steps inline, because they are the application's hot path.
"""

from __future__ import annotations

import codecs
import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeVar, final, overload

import wrapt
from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanKind, Tracer, set_span_in_context

from otel_metadata.errors import ConfigurationError
from otel_metadata.live import generators, streams
from otel_metadata.live import live_settings as settings
from otel_metadata.live.call_values import Arguments, PartialOutput, output_value, parameter_names
from otel_metadata.live.context import detach
from otel_metadata.live.opened_spans import end_at_least, is_kept, record_end, set_values, span_kind_attributes
from otel_metadata.live.span_attributes import set_captured
from otel_metadata.live.values import Values, log_notes, masked_text_value, span_values
from otel_metadata.live.wrapped import Wrapped, inside_context_manager, refuse_registered
from otel_metadata.model.snapshot import Snapshot
from otel_metadata.model.unset import UNSET, UnsetType
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from opentelemetry.context import Context

_SELVES: Final = frozenset({"self", "cls"})

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
    """Open a span around every call of a function; inside the call it is the current span.

    For functions, coroutine functions, generator and async generator functions, methods, class methods and static
    methods (above or below their decorator), and callable objects; on a class, for every public method that is written
    in it. The signature, the `inspect` kind and the result are unchanged; an exception is recorded and goes on.

    The consumer of a generator keeps its own current span; the block of a `contextlib.contextmanager` is inside the
    span. If a function returns a coroutine, a generator or a streaming response, its span lasts until that ends.

    Write it directly above `def`, below decorators that register the function (routes, tasks, commands, tools), because
    those call the object that they were given.

    Args:
        func: What to observe, when used without parentheses.
        name: The span's name; by default the function's, with its class.
        as_type: What it is for, as in `start_span`.
        capture_input: Whether to capture the arguments by parameter name, without `self` and `cls`; None captures them
            unless `OTEL_PYTHON_METADATA_CAPTURE=false`.
        capture_output: Whether to capture the result, or what a generator yielded; None as above.
        ignore_arguments: Parameter names that are not captured. The function must have these parameters, unless it
            takes any keyword; for a class, one of its methods must have them.
        process_input: Turns the arguments by name into what is captured.
        process_output: Turns the result into what is captured.
        metadata: Set on every span.
        tags: Set on every span.
        kind: OpenTelemetry's span kind.
        tracer: Opens the spans; by default the tracer of `configure`, else of the global provider.

    Raises:
        ConfigurationError: At decoration, if *func* cannot be observed or an argument is wrong.
    """
    ignored = _checked(
        name=name,
        capture_input=capture_input,
        capture_output=capture_output,
        ignore_arguments=ignore_arguments,
        process_input=process_input,
        process_output=process_output,
        metadata=metadata,
        tags=tags,
        kind=kind,
        tracer=tracer,
    )
    notes: list[str] = []
    values = span_values("span", notes, metadata=metadata, tags=tags)
    log_notes("observe", notes)
    options = _Options(
        name=name,
        attributes=span_kind_attributes(as_type),
        capture_input=capture_input,
        capture_output=capture_output,
        ignored=ignored,
        process_input=process_input,
        process_output=process_output,
        values=values,
        kind=kind,
        tracer=tracer,
    )
    if func is None:
        return functools.partial(_decorated, options=options)
    return _decorated(func, options=options)


def _checked(*, ignore_arguments: Iterable[str], **given: object) -> tuple[str, ...]:
    """Return the names to ignore; raise here, at the decorator, for arguments that can never work."""
    expected: dict[str, tuple[Callable[[Any], bool], str]] = {
        "name": (lambda value: isinstance(value, str), "a text"),
        "capture_input": (lambda value: isinstance(value, bool), "True, False or None"),
        "capture_output": (lambda value: isinstance(value, bool), "True, False or None"),
        "process_input": (callable, "a function of the arguments by name"),
        "process_output": (callable, "a function of the result"),
        "metadata": (lambda value: isinstance(value, Mapping), "a mapping of first-level keys"),
        "tags": (lambda value: isinstance(value, Iterable), "an iterable of texts"),
        "kind": (lambda value: isinstance(value, SpanKind), "an opentelemetry.trace.SpanKind"),
        "tracer": (lambda value: hasattr(value, "start_span"), "an opentelemetry.trace.Tracer"),
    }
    for argument, value in given.items():
        is_right, what = expected[argument]
        if (value is not None or argument == "kind") and not is_right(value):
            raise ConfigurationError(f"observe({argument}=)", type(value), what)
    names = (
        None
        if isinstance(ignore_arguments, str) or not isinstance(ignore_arguments, Iterable)
        else tuple(ignore_arguments)
    )
    if names is None or not all(isinstance(name, str) for name in names):
        raise ConfigurationError("observe(ignore_arguments=)", ignore_arguments, "a list of parameter names")
    return names


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

    def with_name(self, name: str) -> _Options:
        """Return a copy with another name."""
        renamed = _Options.__new__(_Options)
        for slot in self.__slots__:
            setattr(renamed, slot, getattr(self, slot))
        renamed.name = name
        return renamed


def _decorated(func: Any, *, options: _Options) -> Any:
    made = _observe(func, options=options)
    if options.ignored:
        _refuse_unknown(func, options.ignored)
    return made


def _refuse_unknown(func: Any, ignored: tuple[str, ...]) -> None:
    """Refuse names to ignore that are no parameters: the argument that should stay private would be captured."""
    members = vars(func).items() if inspect.isclass(func) else [("", func)]
    known = set(_SELVES)  # never captured anyway
    for owned, member in members:
        if owned.startswith("_") or not (callable(member) or isinstance(member, classmethod | staticmethod)):
            continue
        names = parameter_names(member)
        if names is None:
            return
        known |= names
    for name in ignored:
        if name not in known:
            close = get_close_matches(name, known, 1)
            remedy = f"did you mean {close[0]!r}?" if close else ", ".join(sorted(known - _SELVES)) or "it has none"
            shown = getattr(_callable_of(func), "__qualname__", type(func).__qualname__)
            raise ConfigurationError("observe(ignore_arguments=)", name, f"a parameter of {shown}: {remedy}")


def _observe(func: Any, *, options: _Options) -> Any:
    refuse_registered(func, "observe")
    if inspect.isclass(func):
        return _observe_class(func, options)
    if not callable(func) and not isinstance(func, classmethod | staticmethod):
        raise ConfigurationError(
            "observe",
            type(func),
            "a function, method, callable object or class; arguments by name, as in @observe(name=...)",
        )
    manager = inside_context_manager(func, lambda generator: _observe(generator, options=options))
    if manager is not None:
        return manager
    if not inspect.isroutine(func) and not isinstance(func, classmethod | staticmethod | functools.partial):
        return _ObservedObject(func, options)
    return _Observed(func, _wrapper(func, options))  # type: ignore[arg-type] # a class method object is no callable to mypy


def _observe_class(cls: type, options: _Options) -> type:
    made: dict[int, Any] = {}
    for name, member in list(vars(cls).items()):
        if not name.startswith("_") and _is_own_method(cls, member):
            # A method that has two names is one object under both.
            setattr(cls, name, made.setdefault(id(member), _observe(member, options=options)))
    return cls


def _is_own_method(cls: type, member: Any) -> bool:
    """Whether *member* is a method that is written in the class, and not observed yet.

    A function that was assigned (a default, a callback, an imported helper) or generated has another name or module. A
    decorator that uses `functools.wraps` keeps both.
    """
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    # Of a context manager, the generator function inside is observed.
    if any(isinstance(one, _Observed) for one in (member, function, getattr(function, "__wrapped__", None))):
        return False
    if not inspect.isfunction(function):
        return False
    owner, _, name = str(function.__qualname__).rpartition(".")
    return (owner, function.__module__) == (cls.__qualname__, cls.__module__) and name != "<lambda>"


class _Observed(Wrapped):
    """An observed function; observing its class leaves it as it is."""


class _ObservedObject(wrapt.ObjectProxy):  # type: ignore[type-arg] # generic in wrapt's types, not at run time
    """An observed callable object: like the object itself in every respect except its calls.

    Its `__call__` is the observed bound method, so that a framework that inspects the kind of `__call__` (as Starlette
    does) sees the same kind as without us.
    """

    def __init__(self, wrapped: Any, options: _Options) -> None:
        super().__init__(wrapped)
        named = options if options.name is not None else options.with_name(_span_name(wrapped))
        self._self_options = options
        self._self_call = _Observed(wrapped.__call__, _wrapper(wrapped.__call__, named))

    def __copy__(self) -> _ObservedObject:
        return _ObservedObject(copy.copy(self.__wrapped__), self._self_options)

    def __deepcopy__(self, memo: dict[int, object]) -> _ObservedObject:
        return _ObservedObject(copy.deepcopy(self.__wrapped__, memo), self._self_options)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        # The object itself, not observed, because a tracer does not travel to another process.
        return copy.copy, (self.__wrapped__,)

    @property
    def __call__(self) -> Any:
        return self._self_call


def _callable_of(func: Any) -> Any:
    """Return the function or method behind a decorated one: where its name, kind and parameters are written."""
    if isinstance(func, classmethod | staticmethod):
        func = func.__func__
    while isinstance(func, functools.partial):
        func = func.func
    return func


def _span_name(func: Any) -> str:
    func = _callable_of(func)
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _shown_names(function: Any) -> tuple[str, str]:
    """Return `__name__` and `__qualname__` of a function, as the interpreter shows them of its coroutines."""
    name = str(getattr(function, "__name__", type(function).__name__))
    return name, str(getattr(function, "__qualname__", name))


def _wrapper(func: Any, options: _Options) -> Callable[..., Any]:
    """Return the wrapt wrapper for the kind of callable that *func* is."""
    # The kind of the callable itself, never of the function that it wraps: a decorator between us and an `async def`
    # may have made a plain function of it, and the decorator's function is the one that runs.
    function = _callable_of(func)
    call = _Call(func, options)
    if inspect.iscoroutinefunction(function):
        return call.coroutine
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return call.generator
    return call.plain


@final
class _Call:
    """One observed callable: how each of its calls becomes a span."""

    __slots__ = ("_arguments", "_name", "_options", "_shown", "_takes_self")

    def __init__(self, func: Any, options: _Options) -> None:
        self._options = options
        self._name = options.name or _span_name(func)
        self._shown = _shown_names(_callable_of(func))
        # A function in a class has `self` or `cls` among its parameters; a bound method or a callable object does not.
        self._takes_self = inspect.isfunction(_callable_of(func)) and not isinstance(func, staticmethod)
        self._arguments = Arguments(
            func.__func__ if isinstance(func, classmethod | staticmethod) else func,
            options.ignored,
            options.process_input,
        )

    def plain(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        span = self._start()
        if span is None:
            return wrapped(*args, **kwargs)
        context = set_span_in_context(span)
        token = otel_context.attach(context)
        given: Snapshot | UnsetType = UNSET
        kept = is_kept(span)
        try:
            if kept:
                given = self._input(instance, args, kwargs)
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            self._end(span, kept, given, error, None)
            raise
        else:
            if id(type(result)) not in streams.WHOLE:
                made = self.going_on(span, kept, given, result, context)
                if made is not None:
                    return made
            self._end(span, kept, given, None, result)
            return result
        finally:
            detach(token)

    def coroutine(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        made: Any = self._awaiting(wrapped, instance, args, kwargs)
        made.__name__, made.__qualname__ = self._shown  # as in `generators.named`
        return made

    async def _awaiting(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        span = self._start()
        if span is None:
            return await wrapped(*args, **kwargs)
        context = set_span_in_context(span)
        token = otel_context.attach(context)
        given: Snapshot | UnsetType = UNSET
        kept = is_kept(span)
        try:
            if kept:
                given = self._input(instance, args, kwargs)
            result = await wrapped(*args, **kwargs)
        except BaseException as error:
            self._end(span, kept, given, error, None)
            raise
        else:
            if id(type(result)) not in streams.WHOLE:
                made = self.going_on(span, kept, given, result, context)
                if made is not None:
                    return made
            self._end(span, kept, given, None, result)
            return result
        finally:
            detach(token)

    def going_on(self, span: Span, kept: bool, given: Snapshot | UnsetType, result: Any, context: Context) -> Any:
        """Return the replacement of a result that goes on, whose end ends the span; None if the result is complete."""
        try:
            return streams.going_on(
                result,
                lambda: _ResultSpan(self, span, kept, given, context),
                lambda block: context if block is None else set_span_in_context(span, block),
            )
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
            return None
        except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
            REPORTER.failed("observe", error)
            return None

    def generator(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        # The parent is the caller's span at the call; the span itself starts with the first step.
        called_in = otel_context.get_current()

        def start(block: Context | None) -> generators.Start:
            parent = called_in if block is None else block
            span = self._start(parent)
            if span is None:
                return generators.Start(parent, generators.Observer())
            return generators.Start(set_span_in_context(span, parent), self._observer(span, instance, args, kwargs))

        return generators.driven(wrapped(*args, **kwargs), start)

    def _start(self, context: Any = None) -> Span | None:
        """Start the span; return None if that failed, and the call goes on without a span."""
        options = self._options
        try:
            tracer = options.tracer or settings.in_force.tracer
            name = self._name if settings.in_force.mask is None else masked_text_value("name", self._name)
            span = tracer.start_span(name, context, kind=options.kind, attributes=options.attributes)
            if options.values:
                set_values(span, options.values)
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
            return None
        except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
            REPORTER.failed("observe", error)
            return None
        return span

    def _input(self, instance: Any, args: Any, kwargs: Any) -> Snapshot | UnsetType:
        """Return the captured input; UNSET if it is not captured."""
        wanted = self._options.capture_input
        if wanted is None:
            wanted = settings.in_force.capture
        if not wanted:
            return UNSET
        try:
            return self._arguments.value(args, kwargs, is_bound=instance is not None and self._takes_self)
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
            return UNSET
        except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
            REPORTER.failed("capture_input", error)
            return UNSET

    def _output(self, result: Any) -> Snapshot | UnsetType:
        """Return the captured output; UNSET if it is not captured."""
        wanted = self._options.capture_output
        if wanted is None:
            wanted = settings.in_force.capture
        return output_value(self._options.process_output, result) if wanted else UNSET

    def _wants_output(self) -> bool:
        wanted = self._options.capture_output
        return settings.in_force.capture if wanted is None else wanted

    def _end(
        self, span: Span, kept: bool, given: Snapshot | UnsetType, error: BaseException | None, result: Any
    ) -> None:
        """End the span with the captured values, unless the application has ended it."""
        try:
            if not span.is_recording():
                return
            output: Snapshot | UnsetType = UNSET
            if error is not None:
                record_end(span, error)
            elif kept:
                output = self._output(result)
            if given is not UNSET or output is not UNSET:
                set_captured(span, given, output)
            span.end()
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
        except BaseException as failure:  # noqa: BLE001 # boundary: no exception may reach the application
            end_at_least(span, failure)
            REPORTER.failed("end", failure)

    def end_generator(
        self,
        span: Span,
        given: Snapshot | UnsetType,
        error: BaseException | None,
        output: PartialOutput | None,
        result: Any,
    ) -> None:
        """End the span of a generator, and keep what it yielded, even if an error or an early close ended it."""
        try:
            if not span.is_recording():
                return
            if error is not None:
                record_end(span, error)
            kept = UNSET if output is None else output.value(self._options.process_output, result)
            if given is not UNSET or kept is not UNSET:
                set_captured(span, given, kept)
            span.end()
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
        except BaseException as failure:  # noqa: BLE001 # boundary: no exception may reach the application
            end_at_least(span, failure)
            REPORTER.failed("end", failure)

    def partial_output(self) -> PartialOutput | None:
        """Return the collector of a generator's items; None if its output is not captured."""
        return PartialOutput(is_processed=self._options.process_output is not None) if self._wants_output() else None

    def _observer(self, span: Span, instance: Any, args: Any, kwargs: Any) -> generators.Observer:
        if not is_kept(span):
            return _GeneratorSpan(self, span, UNSET, None)
        return _GeneratorSpan(self, span, self._input(instance, args, kwargs), self.partial_output())


@final
class _GeneratorSpan(generators.Observer):
    """The span of a generator: ended once, however the generator ends, with what it yielded."""

    def __init__(self, call: _Call, span: Span, given: Snapshot | UnsetType, output: PartialOutput | None) -> None:
        self._call = call
        self._span = span
        self._given = given
        self._output = output

    def item(self, value: object) -> None:
        if self._output is not None:
            self._output.add(value)

    def end(self, error: BaseException | None, result: object = None) -> None:
        self._call.end_generator(self._span, self._given, error, self._output, result)


@final
class _ResultSpan(streams.ResultObserver):
    """The span of a call whose result goes on: ended once, with what was yielded or returned."""

    def __init__(self, call: _Call, span: Span, kept: bool, given: Snapshot | UnsetType, context: Context) -> None:
        self._call = call
        self._span = span
        self._kept = kept
        self._given = given
        self._context = context
        self._output = call.partial_output() if kept else None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._has_items = False

    def item(self, value: object) -> None:
        self._has_items = True
        if self._output is not None:
            self._output.add(self._text(value) if type(value) is bytes else value)

    def _text(self, chunk: bytes) -> str | bytes:
        """Return the text of a chunk, which may end within a character; the chunk itself if it is not UTF-8."""
        if self._decoder is None:
            self._decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            return self._decoder.decode(chunk)
        except UnicodeDecodeError:
            self._decoder.reset()
            return chunk

    def returned(self, result: Any) -> Any:
        if id(type(result)) not in streams.WHOLE:
            made = self._call.going_on(self._span, self._kept, self._given, result, self._context)
            if made is not None:
                self._has_ended = True  # the observer of the new result ends the span
                return made
        return super().returned(result)

    def ended(self, error: BaseException | None, result: object) -> None:
        output = self._output if error is None or self._has_items else None
        self._call.end_generator(self._span, self._given, error, output, result)
