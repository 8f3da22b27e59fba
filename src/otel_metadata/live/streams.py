"""Results that go on after the call that returned them: coroutines, generators, streaming responses.

A decorated function that returns one has not done its work yet. What is returned in its place is of the same kind, and
takes its steps in the Context of the call; of a response of a web framework, the same object, its iterator is replaced.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator, Iterable, Mapping
from inspect import CO_COROUTINE, CO_GENERATOR
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import context as otel_context

from otel_metadata.live.context import detach
from otel_metadata.live.generators import Observer, Start, Starter, driven, named

if TYPE_CHECKING:
    from opentelemetry.context import Context

__all__ = ["WHOLE", "ResultObserver", "going_on"]

WHOLE: Final = frozenset(map(id, (type(None), bool, int, float, str, bytes, list, tuple, dict, set)))
"""Ids of the types of the plain values that most functions return: they do not go on.

Ids, for a metaclass may have a hash of its own, which is the application's code.
"""

# What `type` itself says of a class, whatever its metaclass says.
_bases_of: Final = type.__dict__["__mro__"].__get__
_name_of: Final = type.__dict__["__name__"].__get__
_module_of: Final = type.__dict__["__module__"].__get__

# Web responses that are sent while an iterator runs: module and name of the class, and the attribute that has it.
_RESPONSES: Final[Mapping[tuple[str, str], str]] = {
    ("starlette.responses", "Response"): "body_iterator",  # FastAPI's and sse-starlette's are made of it
    ("werkzeug.sansio.response", "Response"): "response",  # Flask's
    ("django.http.response", "StreamingHttpResponse"): "_iterator",
}
_NAMES: Final = frozenset(name for _, name in _RESPONSES)


class ResultObserver(Observer):
    """What is told of a result; the base class does nothing.

    Unlike a generator function, whoever returned the result has begun: it is told, too, when nobody takes a step.
    """

    _has_ended = False
    _standing: Callable[[], object | None] | None = None

    def stands_for(self, standing: object) -> None:
        """Remember, weakly, what was returned in place of the result."""
        self._standing = weakref.ref(standing)

    def is_collected(self) -> bool:
        """Whether what was returned in place of the result was dropped by the application."""
        return self._standing is not None and self._standing() is None

    def end(self, error: BaseException | None, result: object = None) -> None:
        """Tell the end once."""
        if not self._has_ended:
            self._has_ended = True
            self.ended(error, result)

    def ended(self, error: BaseException | None, result: object) -> None:
        """It ended; called once."""

    def returned(self, result: Any) -> Any:
        """Take what a coroutine returned, and return what its caller gets."""
        self.end(None, result)
        return result

    def __del__(self) -> None:
        """End what was collected, or closed, before its first step."""
        try:
            self.end(GeneratorExit())
        except Exception:  # noqa: BLE001, S110 # the interpreter exits, and its modules are gone
            pass


def going_on(
    result: Any, make_observer: Callable[[], ResultObserver], context_of: Callable[[Context | None], Context]
) -> Any:
    """Return what stands for a result that goes on, of the same kind; None when it does not go on.

    Args:
        result: What a function returned, or a coroutine that it awaited.
        make_observer: Called for a result that goes on: the observer is told of its life.
        context_of: Makes the Context of its steps; of the current one when a `with` block consumes it, else of None.
    """
    kind = type(result)
    if kind is CoroutineType:
        observer = make_observer()
        made = named(_passed_on(result, context_of(None), observer), result)
        made.send(None)
    elif (kind is GeneratorType and _has_steps(result.gi_frame, result.gi_running)) or (
        kind is AsyncGeneratorType and _has_steps(result.ag_frame, result.ag_running)
    ):
        observer = make_observer()
        made = driven(result, lambda block: Start(context_of(block), observer))
    else:
        stream = _stream_in(result)
        if stream is None:
            return None
        observer = make_observer()
        _replace(result, stream, lambda block: Start(context_of(block), observer))
        return result
    observer.stands_for(made)
    return made


def _has_steps(frame: object, is_running: bool) -> bool:
    return frame is not None and not is_running


def _passed_on_steps(coroutine: Any, context: Context, observer: ResultObserver) -> Generator[Any, Any, Any]:
    """Await a coroutine; the bare `yield` is where it waits to be awaited itself.

    A coroutine that is cancelled before its first step never runs: nothing could end the span or close what it was
    to await, and the interpreter would warn of that. So this one has taken a step before anybody gets it.
    """
    try:
        try:
            yield
        except GeneratorExit:
            if not observer.is_collected():  # else the interpreter warns, as it should, that it was never awaited
                coroutine.close()
            raise
        except BaseException as error:
            coroutine.throw(error)
            raise
        token = otel_context.attach(context)
        try:
            result = yield from coroutine
        finally:
            detach(token)
    except BaseException as error:
        observer.end(error)
        raise
    return observer.returned(result)


# A coroutine's code cannot have a bare `yield`, and one that is suspended in an `await` cannot be awaited. So a
# generator's code is made a coroutine's, by the flag, as `types.coroutine` does with its own flag.
_passed_on: Final = cast(
    "Callable[[Any, Context, ResultObserver], Coroutine[Any, Any, Any]]",
    types.FunctionType(
        _passed_on_steps.__code__.replace(co_flags=_passed_on_steps.__code__.co_flags & ~CO_GENERATOR | CO_COROUTINE),
        globals(),
        _passed_on_steps.__name__,
    ),
)


def _stream_in(result: object) -> str | None:
    """Return the attribute of a web response that is sent while an iterator runs; None for all else."""
    for base in _bases_of(type(result)):
        name = _name_of(base)
        attribute = _RESPONSES.get((str(_module_of(base)), name)) if name in _NAMES else None
        if attribute is not None:
            # Read without running code of the application's.
            held: dict[str, Any] = object.__getattribute__(result, "__dict__")
            is_file = held.get("direct_passthrough") or held.get("file_to_stream") is not None
            kind = type(held.get(attribute))
            # A file is sent by the server itself, in its own way.
            return attribute if not is_file and (hasattr(kind, "__aiter__") or hasattr(kind, "__next__")) else None
    return None


def _replace(response: object, attribute: str, start: Starter) -> None:
    held: dict[str, Any] = object.__getattribute__(response, "__dict__")
    body = held[attribute]
    if type(body) is not GeneratorType and type(body) is not AsyncGeneratorType:
        body = _async_items(body) if hasattr(type(body), "__aiter__") else _items(body)
    held[attribute] = made = driven(body, start)
    closers = held.get("_resource_closers")
    if closers is not None and type(made) is GeneratorType:
        closers.insert(0, made.close)  # Django closes what it was given, which is inside now


def _items(body: Iterable[Any]) -> Generator[Any, None, None]:
    yield from body


async def _async_items(body: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    async for item in body:
        yield item
