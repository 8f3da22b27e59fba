"""Generators whose body runs in an OpenTelemetry Context of its own, so that nothing leaks to the consumer.

A `with span:` around a `yield` goes wrong in many ways: the consumer's spans become children, two interleaved
generators take each other's parent, an early `break` leaves the span open, and a close on another thread logs
"Failed to detach context". So the body's Context is attached when a step begins, and the consumer's Context is put back
when the step ends. All other context variables are shared, as they are without us.

When the consumer is a `with` block (`contextlib.contextmanager`, a fixture), the body's Context stays attached in the
block, because the generator opens things around its `yield` for the block.

Callers get real generators, so that `inspect`, `send`, `throw`, `close`, `return` values and an event loop's finalizer
hooks all work.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar, final

from opentelemetry import context as otel_context

from otel_metadata.live.context import ContextScope, detach

if TYPE_CHECKING:
    from types import FrameType

    from opentelemetry.context import Context

_T = TypeVar("_T")


@final
class BodyContext:
    """The OpenTelemetry Context of a body: attached for each step, and kept as the step leaves it.

    In a block it stays attached between the steps, until `leave`. A step that runs where it is not attached (on another
    thread) attaches it for that step alone, as outside of a block.
    """

    __slots__ = ("_context", "_scope")

    def __init__(self, context: Context, *, is_block: bool = False) -> None:
        """Begin with *context*; in a block it is attached from here on."""
        self._context = context
        self._scope = ContextScope() if is_block else None
        if self._scope is not None:
            self._scope.enter(context)
            self._context = otel_context.get_current()

    def run(self, step: Callable[..., _T], *args: object) -> _T:
        """Run one step of the body inside."""
        is_attached = self._scope is not None and self._scope.is_current()
        token = None if is_attached else otel_context.attach(self._context)
        try:
            return step(*args)
        finally:
            self._context = otel_context.get_current()
            if token is not None:
                detach(token)

    def leave(self) -> None:
        """Put the Context back that was current before the block."""
        if self._scope is not None:
            self._scope.exit()


class Observer:
    """Is told what a generator yields and how it ends; the base class does nothing."""

    def item(self, value: object) -> None:
        """Called with each value that was yielded."""

    def end(self, error: BaseException | None, result: object = None) -> None:
        """Called once, at the end: the generator returned *result*, or raised *error*."""

    def is_collected(self) -> bool:
        """Whether the generator is closed because it was dropped; the application may still use its body then."""
        return False


class Start(NamedTuple):
    """What the first step begins with.

    Attributes:
        context: The Context in which the steps run.
        observer: Is told what the body yields and how it ends.
    """

    context: Context
    observer: Observer


Starter: TypeAlias = "Callable[[Context | None], Start]"
"""Called at the first step, so that a generator that nobody starts leaves nothing behind. Its argument is the current
Context if the consumer is a `with` block, else None."""


def driven(body: Any, start: Starter) -> Any:
    """Return a generator of the kind and name of *body*, whose steps run inside the Context that *start* returns.

    Anything that is not a generator is returned as it is: a decorator may have made a generator function return it.
    """
    if type(body) is not GeneratorType and type(body) is not AsyncGeneratorType:
        return body
    if type(body) is AsyncGeneratorType:
        return named(_drive_async(body, start), body)
    if body.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE:
        return named(_drive_awaitable(body, start), body)
    return named(_drive(body, start), body)


def named(made: Any, like: Any) -> Any:
    """Give a generator or coroutine the name of another, because the interpreter shows it in warnings and tasks."""
    made.__name__, made.__qualname__ = like.__name__, like.__qualname__
    return made


def _drive(body: Generator[Any, Any, Any], start: Starter) -> Generator[Any, Any, Any]:
    """Yield what a generator yields, each step inside its Context."""
    context, observer = _begun(start, sys._getframe(1))
    held = [body]
    step: Callable[..., Any] = body.send
    argument: object = None
    closing: BaseException | None = None
    try:
        while True:
            try:
                item = context.run(step, argument)
            except StopIteration as stop:
                observer.end(closing, stop.value)
                return stop.value
            observer.item(item)
            try:
                argument = yield item
            except BaseException as error:  # thrown in by the consumer: the body decides
                closing = error if type(error) is GeneratorExit else None
                if closing is not None and observer.is_collected():
                    # Released, not closed: the application may hold the inner generator itself.
                    del body, step
                    context.run(held.clear)
                    raise
                step, argument = body.throw, error
            else:
                step = body.send
    except BaseException as error:
        observer.end(error)
        raise
    finally:
        context.leave()


_drive_awaitable: Final = types.coroutine(types.FunctionType(_drive.__code__, globals(), _drive.__name__))
"""`_drive`, for a generator that `types.coroutine` has made awaitable."""


async def _drive_async(body: AsyncGenerator[Any, Any], start: Starter) -> AsyncGenerator[Any, Any]:
    """Yield what an async generator yields, each step of each awaitable inside its Context, in the consumer's task."""
    context, observer = _begun(start, sys._getframe(1))
    step: Callable[..., Awaitable[Any]] = _unregistered(body.asend)
    argument: object = None
    closing: BaseException | None = None
    try:
        while True:
            try:
                item = await _Inside(context, step(argument))
            except StopAsyncIteration:
                observer.end(closing)
                return
            observer.item(item)
            try:
                argument = yield item
            except BaseException as error:  # noqa: BLE001 # thrown in by the consumer: the body decides
                closing = error if type(error) is GeneratorExit else None
                step, argument = body.athrow, error
            else:
                step = body.asend
    except BaseException as error:
        observer.end(error)
        raise
    finally:
        context.leave()


def _unregistered(asend: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return an *asend* for the first step that hides the body from the event loop.

    The event loop knows the generator around the body. If it closed both at its end, one would find the other running:
    "asynchronous generator is already running".
    """

    def first(argument: object) -> Awaitable[Any]:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            return asend(argument)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    return first


@final
class _Inside:
    """An awaitable whose every step runs inside a body's Context.

    There is no new task for each item, so that the task's identity, its cancellation and `asyncio.timeout` stay the
    consumer's. There is no single attach around the whole `await`, because an awaitable that is driven by hand, or
    abandoned in the middle, would leave the body's Context attached where it was suspended.
    """

    __slots__ = ("_awaitable", "_context")

    def __init__(self, context: BodyContext, awaitable: Awaitable[Any]) -> None:
        self._context = context
        self._awaitable = awaitable

    def __await__(self) -> Generator[Any, Any, Any]:
        inner: Any = self._context.run(self._awaitable.__await__)
        step: Callable[..., Any] = inner.send
        argument: object = None
        while True:
            try:
                signal = self._context.run(step, argument)
            except StopIteration as stop:
                return stop.value
            try:
                argument = yield signal
                step = inner.send
            except GeneratorExit:
                self._context.run(inner.close)
                raise
            except BaseException as error:  # noqa: BLE001 # cancellation among them: the body decides
                step, argument = inner.throw, error


# The functions that take the first step of a generator for a block of the application's code: module and name.
_BLOCKS: Final = frozenset(
    {
        ("contextlib", "__enter__"),
        ("contextlib", "__aenter__"),
        ("_pytest.fixtures", "call_fixture_func"),
        ("pytest_asyncio.plugin", "setup"),
    }
)

_OWN_STEPS: Final = frozenset(
    {_drive.__code__, _drive_async.__code__, BodyContext.run.__code__, _Inside.__await__.__code__}
)


def _begun(start: Starter, driver: FrameType | None) -> tuple[BodyContext, Observer]:
    """Start a body, as a block if the consumer is one.

    Args:
        start: See `Starter`.
        driver: The frame that took the generator's first step.
    """
    while driver is not None and driver.f_code in _OWN_STEPS:  # a generator of ours around this one
        driver = driver.f_back
    is_block = driver is not None and (driver.f_globals.get("__name__"), driver.f_code.co_name) in _BLOCKS
    context, observer = start(otel_context.get_current() if is_block else None)
    return BodyContext(context, is_block=is_block), observer
