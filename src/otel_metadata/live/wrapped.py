"""Wrapped functions that can be copied, pickled and inspected like the function itself.

`wrapt` does the wrapping. This module adds what its proxies refuse: a wrapped function can be copied (like a function,
it is its own copy) and pickled (like a function, by its name), so that a process pool accepts it.

It also recognises objects that other decorators make of a function and that must not be decorated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cached_property, partialmethod, reduce, singledispatchmethod
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any, Final

import wrapt

from otel_metadata.errors import ConfigurationError

_MANAGERS: Final[dict[CodeType, Callable[..., Any]]] = {
    make(lambda: None).__code__: make  # type: ignore[arg-type, return-value] # never called
    for make in (contextlib.contextmanager, contextlib.asynccontextmanager)
}
"""The code that all functions made by `contextlib.contextmanager` share, and the decorator that makes them."""

# Packages whose decorators return an object in place of the function, and call the function directly. Other packages
# (FastAPI, Flask, Typer) return the function itself, which cannot be recognised.
_REGISTERING: Final = frozenset(
    {
        "_pytest",
        "airflow",
        "celery",
        "click",
        "dagster",
        "dramatiq",
        "fastmcp",
        "huey",
        "invoke",
        "langchain_core",
        "prefect",
        "procrastinate",
        "taskiq",
        "typer",
    }
)


def refuse_registered(func: Any, decorator: str) -> None:
    """Refuse an object that a framework has made of a function, because the framework would never call our wrapper.

    Raises:
        ConfigurationError: *func* is such an object; the message says which order of decorators works.
    """
    # Only classes are looked at: Celery's task is a proxy, and reading any attribute of it would evaluate the task.
    kind = type(func)
    package = next(
        (name for base in kind.__mro__ if (name := str(base.__module__).partition(".")[0]) in _REGISTERING), ""
    )
    if kind is FunctionType and "_pytestfixturefunction" in vars(func):  # before pytest 8.4
        package = "_pytest"
    if package:
        raise ConfigurationError(
            decorator,
            f"{kind.__module__}.{kind.__qualname__}",
            f"the function itself: write @{decorator} directly above `def`, below the decorator of "
            f"{package.strip('_')}, which calls what it was given and would never call the decorated object",
        )
    if kind in (property, cached_property, singledispatchmethod, partialmethod):
        raise ConfigurationError(
            decorator, kind.__name__, f"a function: write @{decorator} directly above `def`, below @{kind.__name__}"
        )


def inside_context_manager(func: Any, decorate: Callable[[Any], Any]) -> Any:
    """Decorate the generator function behind a function of `contextlib.contextmanager`; None for any other *func*.

    Calling such a function does nothing yet; the work to decorate is the block that enters the result.
    """
    if isinstance(func, classmethod | staticmethod):
        made = inside_context_manager(func.__func__, decorate)
        return None if made is None else type(func)(made)
    make = _MANAGERS.get(func.__code__) if type(func) is FunctionType else None
    return None if make is None else make(decorate(func.__wrapped__))


def _found(module: str, qualname: str) -> Any:
    """Return the object with this name in a module: unpickling a wrapped function calls it."""
    return reduce(getattr, qualname.split("."), import_module(module))


class _Bound(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg] # generic in wrapt's types, not at run time
    """A wrapped function bound to an instance or class."""

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        """Pickle as Python pickles a bound method; a static method by its name."""
        owner = getattr(self, "__self__", None)
        if owner is not None:
            return getattr, (owner, self.__name__)
        return _found, (self.__module__, self.__qualname__)


class Wrapped(wrapt.FunctionWrapper):  # type: ignore[type-arg] # generic in wrapt's types, not at run time
    """A wrapped function, in either order with `classmethod` and `staticmethod`."""

    __bound_function_wrapper__ = _Bound

    def __copy__(self) -> Wrapped:
        """Like a function, it is its own copy."""
        return self

    def __deepcopy__(self, memo: object) -> Wrapped:
        """Like a function, it is its own copy."""
        return self

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        """Pickle by name, as Python pickles a function."""
        return _found, (self.__module__, self.__qualname__)
