"""Results that go on after the call that returned them: coroutines, generators, streaming responses.

A decorated function that returns one of these has not done its work yet. Its caller gets another object of the same
kind, whose steps run in the Context of the call. A response of a web framework stays the same object; its iterator is
replaced.
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

WHOLE: Final = frozenset(map(id, (type(None), bool, int, float, str, bytes, list, tuple, dict, set)))
"""Ids of the types of the plain values that most functions return: such a result does not go on.

Ids of types, because hashing a type may run the application's code: its metaclass may define `__hash__`.
"""

# The attributes of a class as `type` has them, whatever its metaclass returns.
_bases_of: Final = type.__dict__["__mro__"].__get__
_name_of: Final = type.__dict__["__name__"].__get__
_module_of: Final = type.__dict__["__module__"].__get__

# Web responses that are sent while an iterator runs: module and name of the class, and the attribute with the iterator.
_RESPONSES: Final[Mapping[tuple[str, str], str]] = {
    ("starlette.responses", "Response"): "body_iterator",  # also FastAPI's and sse-starlette's
    ("werkzeug.sansio.response", "Response"): "response",  # Flask's
    ("django.http.response", "StreamingHttpResponse"): "_iterator",
}
_NAMES: Final = frozenset(name for _, name in _RESPONSES)


class ResultObserver(Observer):
    """Is told how a result goes on; the base class does nothing.

    Unlike the call of a generator function, the call that returned the result has already begun. So the end is told
    even if nobody takes a step.
    """

    _has_ended = False
    _replacement: Callable[[], object | None] | None = None

    def watch(self, replacement: object) -> None:
        """Keep a weak reference to the object that was returned in place of the result."""
        self._replacement = weakref.ref(replacement)

    def is_collected(self) -> bool:
        """Whether the application dropped the object that was returned in place of the result."""
        return self._replacement is not None and self._replacement() is None

    def end(self, error: BaseException | None, result: object = None) -> None:
        """Call `ended` once."""
        if not self._has_ended:
            self._has_ended = True
            self.ended(error, result)

    def ended(self, error: BaseException | None, result: object) -> None:
        """Called once, when the result has ended."""

    def returned(self, result: Any) -> Any:
        """Take what a coroutine returned; return what the awaiting caller gets."""
        self.end(None, result)
        return result

    def __del__(self) -> None:
        """End a result that was collected or closed before its first step."""
        try:
            self.end(GeneratorExit())
        except Exception:  # noqa: BLE001, S110 # the interpreter exits, and its modules are gone
            pass


def going_on(
    result: Any, make_observer: Callable[[], ResultObserver], context_of: Callable[[Context | None], Context]
) -> Any:
    """Return the replacement of a result that goes on, of the same kind; None for a result that needs none.

    Args:
        result: What a function returned, or what awaiting its coroutine returned.
        make_observer: Makes the observer of a result that goes on.
        context_of: Makes the Context of the steps; its argument is the current Context when a `with` block consumes the
            result, else None.
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
    observer.watch(made)
    return made


def _has_steps(frame: object, is_running: bool) -> bool:
    return frame is not None and not is_running


def _passed_on_steps(coroutine: Any, context: Context, observer: ResultObserver) -> Generator[Any, Any, Any]:
    """Await a coroutine, after a bare `yield` at which this one waits until somebody awaits it.

    A coroutine that is cancelled before its first step never runs: nothing could end the span or close the coroutine
    that it was to await, and the interpreter would warn of that. So this one has taken a step before anybody gets it.
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
# generator's code gets the flag of a coroutine, as `types.coroutine` sets its own flag.
_passed_on: Final = cast(
    "Callable[[Any, Context, ResultObserver], Coroutine[Any, Any, Any]]",
    types.FunctionType(
        _passed_on_steps.__code__.replace(co_flags=_passed_on_steps.__code__.co_flags & ~CO_GENERATOR | CO_COROUTINE),
        globals(),
        _passed_on_steps.__name__,
    ),
)


def _stream_in(result: object) -> str | None:
    """Return the attribute with the iterator of a web response; None if *result* is not such a response."""
    for base in _bases_of(type(result)):
        name = _name_of(base)
        attribute = _RESPONSES.get((str(_module_of(base)), name)) if name in _NAMES else None
        if attribute is not None:
            # Read without running the application's code.
            held: dict[str, Any] = object.__getattribute__(result, "__dict__")
            is_file = held.get("direct_passthrough") or held.get("file_to_stream") is not None
            kind = type(held.get(attribute))
            # The server itself sends a file, in its own way.
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
        closers.insert(0, made.close)  # Django closes what it was given, which is now the inner iterator


def _items(body: Iterable[Any]) -> Generator[Any, None, None]:
    yield from body


async def _async_items(body: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    async for item in body:
        yield item
