"""Functions that are wrapped and otherwise themselves: to copy, to pickle, to look at.

The wrapping is `wrapt`'s; this module adds what its proxies refuse: a wrapped function can be copied (it is its own
copy, as a function is) and pickled (by its name, as a function is), so that a process pool takes it.
"""

from __future__ import annotations

from functools import reduce
from importlib import import_module
from typing import Any

import wrapt

__all__ = ["Wrapped"]


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
