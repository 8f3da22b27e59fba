"""`using_metadata`: metadata for every span that starts inside a block, and for the current span.

OpenTelemetry's Context holds the metadata, so the metadata reaches the same threads and tasks. The span processor sets
it as a span starts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast, final

from opentelemetry import context as otel_context
from opentelemetry import trace

from otel_metadata.errors import ConfigurationError
from otel_metadata.live import generators, streams
from otel_metadata.live.context import ContextScope, with_bound
from otel_metadata.live.misuse import unknown_arguments
from otel_metadata.live.opened_spans import set_values
from otel_metadata.live.values import Values, log_notes, span_values
from otel_metadata.live.wrapped import Wrapped, inside_context_manager, refuse_registered
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.context import Context

    from otel_metadata.live.context import Bound

_F = TypeVar("_F", bound=Callable[..., Any])


@final
class UsingMetadata:
    """A block, or a decorated function, whose spans all get the same metadata. Made by `using_metadata`.

    It can be entered again before it is left, and from several threads and tasks.
    """

    def __init__(self, values: Values) -> None:
        """Keep the values."""
        self._values = values
        self._scope = ContextScope()

    def __enter__(self) -> UsingMetadata:
        """Bind the values in the Context, and set them on the current span."""
        self._scope.enter(with_bound(self._bind))
        self._set_on_current()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Go back to the metadata that was bound before."""
        self._scope.exit()

    async def __aenter__(self) -> UsingMetadata:
        """Bind the values in the Context of this task."""
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Go back to the metadata that was bound before."""
        self.__exit__(exc_type, exc, traceback)

    def __call__(self, func: _F) -> _F:
        """Decorate a function, coroutine function, generator function or async generator function."""
        refuse_registered(func, "using_metadata")
        manager = inside_context_manager(func, self)
        if manager is not None:
            return cast("_F", manager)
        function = getattr(func, "__func__", func)
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            wrapper = self._generator
        elif inspect.iscoroutinefunction(function):
            wrapper = self._coroutine
        else:
            wrapper = self._plain
        return cast("_F", Wrapped(func, wrapper))

    def _plain(self, wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
        with self:
            return self._going_on(wrapped(*args, **kwargs))

    def _coroutine(self, wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
        return generators.named(self._awaiting(wrapped, args, kwargs), wrapped)

    async def _awaiting(self, wrapped: Any, args: Any, kwargs: Any) -> Any:
        with self:
            return self._going_on(await wrapped(*args, **kwargs))

    def _generator(self, wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
        return generators.driven(wrapped(*args, **kwargs), self._start)

    def _start(self, _block: Context | None) -> generators.Start:
        self._set_on_current()
        return generators.Start(with_bound(self._bind), generators.Observer())

    def _going_on(self, result: Any) -> Any:
        """Return the result of a function; a result that goes on after the call keeps the values."""
        if id(type(result)) in streams.WHOLE:
            return result
        try:
            context = otel_context.get_current()
            made = streams.going_on(
                result, streams.ResultObserver, lambda block: context if block is None else with_bound(self._bind)
            )
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
            return result
        except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
            REPORTER.failed("using_metadata", error)
            return result
        return result if made is None else made

    def _bind(self, bound: Bound) -> Bound:
        return bound.with_values(self._values)

    def _set_on_current(self) -> None:
        try:
            if self._values:
                set_values(trace.get_current_span(), self._values)
        except RecursionError:
            REPORTER.internal_errors += 1  # there is no room for a call
        except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
            REPORTER.failed("using_metadata", error)


def using_metadata(
    metadata: Mapping[str, object] | None = None,
    *_unknown: NoReturn,
    user_id: str | None = None,
    session_id: str | None = None,
    tags: Iterable[str] | None = None,
    **_misplaced: NoReturn,
) -> UsingMetadata:
    """Give every span that starts inside a block the same metadata, whoever starts it; the current span too.

    ```python
    with otel_metadata.using_metadata({"tenant": "acme"}, user_id="u-1"):
        client.chat.completions.create(...)  # the instrumentor's span has both
    ```

    Works with `with`, `async with` and as a decorator. Nested blocks merge; the inner one wins key by key. The values
    are read once, at this call. They reach spans of every provider that has a `MetadataSpanProcessor`, in whatever
    thread or task OpenTelemetry's context reaches.

    Args:
        metadata: First-level keys.
        user_id: The user behind the spans.
        session_id: The session they belong to.
        tags: Texts.

    A wrong or unknown argument is left out, and a log line says so.

    Raises:
        ConfigurationError: It was used as a decorator without parentheses.
    """
    # By its type: asking the object for its class may run code of the application.
    if issubclass(type(metadata), type | FunctionType | BuiltinFunctionType | MethodType):
        raise ConfigurationError("using_metadata", type(metadata), "@using_metadata({...}), with metadata")
    values: Values = {}
    try:
        notes = unknown_arguments(using_metadata, _unknown, _misplaced)
        values = span_values("span", notes, metadata=metadata, user_id=user_id, session_id=session_id, tags=tags)
        log_notes("using_metadata", notes)
    except RecursionError:
        REPORTER.internal_errors += 1  # there is no room for a call
    except Exception as error:  # noqa: BLE001 # boundary: no exception may reach the application
        REPORTER.failed("using_metadata", error)
    return UsingMetadata(values)
