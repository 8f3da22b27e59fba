"""Functions that are wrapped and otherwise themselves: to copy, to pickle, to look at.

The wrapping is `wrapt`'s; this module adds what its proxies refuse: a wrapped function can be copied (it is its own
copy, as a function is) and pickled (by its name, as a function is), so that a process pool takes it.

It also knows what other decorators make of a function, where decorating that would not do what it says.
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

__all__ = ["Wrapped", "inside_context_manager", "refuse_registered"]

_MANAGERS: Final[dict[CodeType, Callable[..., Any]]] = {
    make(lambda: None).__code__: make  # type: ignore[arg-type, return-value] # never called
    for make in (contextlib.contextmanager, contextlib.asynccontextmanager)
}
"""The code that every function of `contextlib.contextmanager` has in common, and who makes it."""

# Packages whose decorators put an object in the place of the function, and call the function behind our back. Others
# return the function itself (FastAPI, Flask, Typer): that cannot be seen.
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
    """Raise for an object that a framework has made of a function: it would not call what we make of that.

    Raises:
        ConfigurationError: It is one; the message says which order works.
    """
    # The classes alone are looked at: Celery's task is a proxy that would be made whole by any attribute of it.
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
    """Decorate the generator function that `contextlib` has made a context manager of; None for all else.

    What such a function returns has done nothing yet: the block that enters it is what is meant.
    """
    if isinstance(func, classmethod | staticmethod):
        made = inside_context_manager(func.__func__, decorate)
        return None if made is None else type(func)(made)
    make = _MANAGERS.get(func.__code__) if type(func) is FunctionType else None
    return None if make is None else make(decorate(func.__wrapped__))


def _found(module: str, qualname: str) -> Any:
    """Return what a module calls by this name: how a wrapped function comes out of a pickle."""
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
