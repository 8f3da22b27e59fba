"""Input and output of an observed function, as values.

This module decides what of a call is captured: arguments by parameter name, defaults included, never `self` or `cls`;
the result. It does not decide whether (`observe`) nor how a value is cleaned (`values`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final

from otel_metadata.live import settings
from otel_metadata.live.values import cleaned
from otel_metadata.model.merge import Json
from otel_metadata.model.value import CAPTURE_LIMITS, is_clean_scalar

__all__ = ["Arguments", "PartialOutput", "output_value"]

# What a generator yielded is kept up to these; beyond, its length goes on being counted.
MAX_ITEMS: Final = 1_000
MAX_TEXT_CHARS: Final = 262_144

_SELVES: Final = frozenset({"self", "cls"})


@final
class Arguments:
    """The parameters of one function, bound by hand: `inspect.Signature.bind` costs as much as half a span."""

    __slots__ = ("_count", "_defaults", "_ignored", "_names", "_names_after_first", "_process", "_rest")

    def __init__(
        self, func: Callable[..., object], ignored: Iterable[str], process: Callable[[dict[str, Any]], object] | None
    ) -> None:
        """Read the signature once.

        Args:
            func: The function itself, not bound.
            ignored: Parameter names that are not captured.
            process: Turns the arguments by name into what is captured; None for themselves.
        """
        self._ignored = frozenset(ignored)
        self._process = process
        try:
            parameters = list(inspect.signature(func).parameters.values())
        except (TypeError, ValueError):  # a built-in function without a signature
            parameters = [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._names = tuple(p.name for p in parameters if p.kind in positional)
        self._rest = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), "")
        self._names_after_first = self._names[1:]
        self._defaults = tuple((p.name, p.default) for p in parameters if p.default is not inspect.Parameter.empty)
        self._count = len(parameters)

    def value(self, args: tuple[object, ...], kwargs: Mapping[str, object], *, is_bound: bool) -> Json:
        """Return the captured input of one call, cleaned and masked.

        Args:
            args: Positional arguments; without the instance or class when *is_bound*.
            kwargs: Keyword arguments.
            is_bound: Whether the first parameter was bound already.
        """
        names = self._names_after_first if is_bound else self._names
        bound: dict[str, Any] = dict(zip(names, args, strict=False))
        if self._rest and len(args) > len(names):
            bound[self._rest] = args[len(names) :]
        if kwargs:
            bound.update(kwargs)
        if len(bound) < self._count:
            for name, value in self._defaults:
                if name not in bound:
                    bound[name] = value
        if not is_bound and names and names[0] in _SELVES:
            bound.pop(names[0], None)
        for name in self._ignored:
            bound.pop(name, None)
        if self._process is None and settings.current().mask is None and all(map(is_clean_scalar, bound.values())):
            return bound
        return _processed("input", self._process, bound)


def output_value(process: Callable[[Any], object] | None, result: object) -> Json:
    """Return the captured output of one call, cleaned and masked."""
    if process is None and is_clean_scalar(result) and settings.current().mask is None:
        return result  # type: ignore[return-value] # is_clean_scalar has decided
    return _processed("output", process, result)


def _processed(kind: str, process: Callable[[Any], object] | None, value: object) -> Json:
    if process is not None:
        try:
            value = process(value)
        except Exception as error:  # noqa: BLE001 # the hook is the application's; what it could not judge is not kept
            value = f"<process_{kind} raised {type(error).__name__}>"
    return cleaned(kind, value, [], CAPTURE_LIMITS)


@final
class PartialOutput:
    """What a generator has yielded so far, within bounds; texts are joined, other values are a list."""

    def __init__(self) -> None:
        """Start empty."""
        self._items: list[object] = []
        self._chars = 0
        self._count = 0

    def add(self, item: object) -> None:
        """Take one item, if there is room."""
        self._count += 1
        if len(self._items) >= MAX_ITEMS or self._chars >= MAX_TEXT_CHARS:
            return
        if type(item) is str:
            self._chars += len(item)
        self._items.append(item)

    def value(self, result: object = None) -> object:
        """Return the joined text, or the list of items; the return value instead when nothing was yielded."""
        if not self._count:
            return result
        items: list[object] = list(self._items)
        dropped = self._count - len(items)
        if items and all(type(item) is str for item in items):
            text = "".join(items)  # type: ignore[arg-type] # all of them are texts
            return f"{text}<{dropped} more>" if dropped else text
        return [*items, f"<{dropped} more>"] if dropped else items
