"""Generators whose body runs in a private context, so that nothing leaks to the consumer between steps.

A `with span:` around a `yield` goes wrong in many ways: the consumer's spans become children, two interleaved
generators take each other's parent, an early `break` leaves the span open, and a close on another thread logs
"Failed to detach context". So the body's context is copied once, the span is attached in it once, and each step runs
inside it; nothing is ever detached.

What is returned are real generators, so that `inspect`, `send`, `throw`, `close`, `return` values and an event loop's
finalizer hooks all hold. The price: the body does not see context variables that its consumer sets between steps.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, final

from opentelemetry import context as otel_context

if TYPE_CHECKING:
    from opentelemetry.context import Context

__all__ = ["Observer", "PrivateContext", "Start", "drive", "drive_async"]

_T = TypeVar("_T")


class PrivateContext:
    """A copy of the caller's context variables, with one OpenTelemetry Context attached in it."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        """Copy and attach."""
        self._context = contextvars.copy_context()
        self._context.run(otel_context.attach, context)

    def run(self, step: Callable[..., _T], *args: object) -> _T:
        """Run one step of the body inside."""
        return self._context.run(step, *args)


class Observer:
    """What is told of a generator's life; the base class does nothing."""

    def item(self, value: object) -> None:
        """One value was yielded."""

    def end(self, error: BaseException | None, result: object = None) -> None:
        """It ended: returned *result*, or *error* left it; called once."""


class Start(NamedTuple):
    """What the first step of a driven generator begins with.

    Attributes:
        body: The generator itself.
        context: Where its steps run.
        observer: What is told of its life.
    """

    body: Any
    context: PrivateContext
    observer: Observer


def drive(start: Callable[[], Start]) -> Generator[Any, Any, Any]:
    """Yield what a generator yields, each step inside its context.

    Args:
        start: Called at the first step, so that a generator which nobody starts leaves nothing behind.
    """
    body, context, observer = start()
    step: Callable[..., Any] = body.send
    argument: object = None
    try:
        while True:
            try:
                item = context.run(step, argument)
            except StopIteration as stop:
                observer.end(None, stop.value)
                return stop.value
            observer.item(item)
            try:
                argument = yield item
            except GeneratorExit:
                context.run(body.close)
                raise
            except BaseException as error:  # noqa: BLE001 # thrown in by the consumer: the body decides
                step, argument = body.throw, error
            else:
                step = body.send
    except BaseException as error:
        observer.end(error)
        raise


async def drive_async(start: Callable[[], Start]) -> AsyncGenerator[Any, Any]:
    """Yield what an async generator yields, each step of each awaitable inside its context, in the consumer's task.

    Args:
        start: Called at the first step.
    """
    body, context, observer = start()
    step: Callable[..., Awaitable[Any]] = body.asend
    argument: object = None
    try:
        while True:
            try:
                item = await _Inside(context, step(argument))
            except StopAsyncIteration:
                observer.end(None)
                return
            observer.item(item)
            try:
                argument = yield item
            except GeneratorExit:
                await _Inside(context, body.aclose())
                raise
            except BaseException as error:  # noqa: BLE001 # thrown in by the consumer: the body decides
                step, argument = body.athrow, error
            else:
                step = body.asend
    except BaseException as error:
        observer.end(error)
        raise


@final
class _Inside:
    """An awaitable whose every step runs inside a private context.

    Not a new task per item: the task's identity, its cancellation and `asyncio.timeout` stay the consumer's.
    """

    __slots__ = ("_awaitable", "_context")

    def __init__(self, context: PrivateContext, awaitable: Awaitable[Any]) -> None:
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
