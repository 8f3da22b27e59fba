"""Input and output of an observed function, as values.

This module decides what is captured of a call: the arguments by parameter name, defaults included, without `self` and
`cls`, and the result. `observe` decides whether anything is captured, and `model.value` how a value is cleaned.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final

import orjson

from otel_metadata.interrupts import pass_on
from otel_metadata.live import live_settings as settings
from otel_metadata.live.values import loggable
from otel_metadata.model.credentials import NAMES_BESIDE, VALUES_BESIDE, is_credential, may_authorize
from otel_metadata.model.merge import json_text
from otel_metadata.model.snapshot import Snapshot, snapshot
from otel_metadata.model.value import CAPTURE_LIMITS, clean, is_clean_scalar, is_cut
from otel_metadata.reporting import REPORTER

# How much of a generator's output is kept: items that are not texts, and characters of all items. The rest is counted.
MAX_ITEMS: Final = 1_000
MAX_TEXT_CHARS: Final = 262_144

# So many arguments are within every limit, because a clean text has at most 32 Ki characters.
_FEW: Final = 7

_SELVES: Final = (("self",), ("cls",))


def parameter_names(func: Callable[..., object]) -> frozenset[str] | None:
    """Return the names under which arguments of *func* may be captured; None if it accepts any keyword."""
    func = getattr(func, "__func__", func)  # of a class method, static method or bound method
    while isinstance(func, functools.partial):
        func = func.func
    parameters = _parameters(func)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def _parameters(func: Callable[..., object]) -> list[inspect.Parameter]:
    """Return the parameters of *func*; `*args, **kwargs` for a built-in function without a signature."""
    try:
        return list(inspect.signature(func).parameters.values())
    except (TypeError, ValueError):
        return [
            inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
            inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
        ]


@final
class Arguments:
    """Binds the arguments of one function to its parameters; `inspect.Signature.bind` is too slow for every call."""

    __slots__ = (
        "_all_names",
        "_count",
        "_defaults",
        "_filled",
        "_ignored",
        "_is_plain",
        "_keeps_rest",
        "_names",
        "_names_after_first",
        "_process",
        "_rest",
        "_starts_with_self",
    )

    def __init__(
        self, func: Callable[..., object], ignored: Iterable[str], process: Callable[[dict[str, Any]], object] | None
    ) -> None:
        """Read the signature once.

        Args:
            func: The function itself, not bound.
            ignored: Parameter names that are not captured.
            process: Turns the arguments by name into what is captured; None captures the arguments.
        """
        self._ignored = frozenset(ignored)
        self._process = process
        # The arguments that partials have filled, innermost first; the parameters are those of the function inside.
        filled: tuple[tuple[object, ...], dict[str, object]] = ((), {})
        while isinstance(func, functools.partial):
            filled = ((*func.args, *filled[0]), {**func.keywords, **filled[1]})
            func = func.func
        self._filled = filled if filled[0] or filled[1] else None
        parameters = _parameters(func)
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._names = tuple(p.name for p in parameters if p.kind in positional)
        self._rest = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), "")
        self._names_after_first = self._names[1:]
        self._starts_with_self = self._names[:1] in _SELVES
        self._defaults = tuple((p.name, p.default) for p in parameters if p.default is not inspect.Parameter.empty)
        self._count = len(parameters)
        self._all_names = frozenset(p.name for p in parameters)
        keywords = {p.name for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD}
        # No hook, no `**kwargs`, and no parameter that names a secret.
        self._is_plain = (
            process is None
            and not keywords
            and not any(map(is_credential, self._all_names))
            and (self._all_names.isdisjoint(NAMES_BESIDE) or self._all_names.isdisjoint(VALUES_BESIDE))
        )
        self._keeps_rest = not keywords & self._ignored

    def value(self, args: tuple[object, ...], kwargs: Mapping[str, object], *, is_bound: bool) -> Snapshot:
        """Return the captured input of one call.

        Args:
            args: Positional arguments; without the instance or class when *is_bound*.
            kwargs: Keyword arguments.
            is_bound: Whether the first parameter is bound already.
        """
        if self._filled is not None:
            args, kwargs = (*self._filled[0], *args), {**self._filled[1], **kwargs}
        names = self._names_after_first if is_bound else self._names
        bound: dict[str, Any] = dict(zip(names, args))  # noqa: B905 # either may be longer, and strict= costs time
        if self._rest and len(args) > len(names):
            bound[self._rest] = args[len(names) :]
        for name, value in kwargs.items():
            # A keyword may have the name of a positional-only parameter, which comes first.
            if name not in bound and (self._keeps_rest or name in self._all_names):
                bound[name] = value
        if len(bound) < self._count:
            for name, value in self._defaults:
                if name not in bound:
                    bound[name] = value
        if self._starts_with_self and not is_bound:
            bound.pop(names[0], None)
        for name in self._ignored:
            bound.pop(name, None)
        if self._is_plain and len(bound) <= _FEW and all(map(is_clean_scalar, bound.values())):
            # The usual call: the same as `snapshot` would return, in less time.
            text = orjson.dumps(bound)
            # URLs and headers that contain a secret have one of these.
            if b"@" not in text and b"=" not in text and not may_authorize(text.decode()):
                return (text.decode(),)
        return _processed("input", self._process, bound)


def output_value(process: Callable[[Any], object] | None, result: object, missing: int = 0) -> Snapshot:
    """Return the captured output of one call.

    Args:
        process: The application's own hook.
        result: What the function returned; the items of a generator.
        missing: How many further items a generator yielded. The hook gets the kept items; its result is marked.
    """
    if (
        type(result) is str
        and process is None
        and not missing
        and is_clean_scalar(result)
        and "@" not in result
        and "=" not in result
        and not may_authorize(result)
    ):
        return result
    return _processed("output", process, result, missing)


def _processed(kind: str, process: Callable[[Any], object] | None, value: object, missing: int = 0) -> Snapshot:
    if process is not None:
        try:
            value = process(value)
        except BaseException as error:  # noqa: BLE001 # the hook is the application's; a value that it failed on is not kept
            pass_on(error)
            value = f"<process_{kind} raised {type(error).__name__}>"
    if missing:
        value = _marked(value, missing)
    notes: list[str] = []
    taken = snapshot(value, notes, kind, masks_credentials=settings.in_force.masks_credentials)
    if notes:
        _tell(kind, notes)
    return taken


def _tell(kind: str, notes: list[str]) -> None:
    """Log that a part of a captured value is missing, because there is no receipt that could say it."""
    note = next(filter(is_cut, notes), None)
    if note is not None:
        REPORTER.tell(
            f"captured_{kind}",
            f"A captured {kind} was too large: {loggable(note)}. "
            f"The captured value shows where something is missing; capture less with process_{kind}=.",
        )


def _marked(value: object, missing: int) -> object:
    """Say that items of a generator are missing: in the log, and in *value* if it is a text or a list."""
    REPORTER.tell(
        "captured_output", f"A captured output was too large: output: cut, {missing} yielded values are missing."
    )
    mark = f"<{missing:,} more>"
    if type(value) is str:
        return f"{value} {mark}"
    return [*value, mark] if type(value) is list else value


@final
class PartialOutput:
    """What a generator has yielded so far, within bounds: one joined text, or a list if an item is not a text."""

    def __init__(self, *, is_processed: bool) -> None:
        """Start empty.

        Args:
            is_processed: Whether a hook of the application gets the items, which are kept unchanged for it.
        """
        self._is_processed = is_processed
        self._items: list[Any] = []
        self._chars = 0
        self._count = 0
        self._others = 0

    def add(self, item: object) -> None:
        """Take one item, if there is room."""
        self._count += 1
        is_text = type(item) is str
        # A streamed answer has thousands of small texts, so for texts only the length counts.
        if self._chars >= MAX_TEXT_CHARS or (not is_text and self._others >= MAX_ITEMS):
            return
        self._others += not is_text
        if self._is_processed:
            self._chars += len(item) if is_text else 0  # type: ignore[arg-type] # the exact type was just tested
            self._items.append(item)
            return
        # Cleaned now, so that the item itself is not kept alive and a later change of it has no effect.
        limits = CAPTURE_LIMITS._replace(text_chars=MAX_TEXT_CHARS - self._chars)
        notes: list[str] = []
        kept = clean(item, notes, f"output.{self._count - 1}", limits)
        if notes:
            _tell("output", notes)
        self._chars += len(kept) if isinstance(kept, str) else len(json_text(kept))
        self._items.append(kept)

    def value(self, process: Callable[[Any], object] | None, result: object = None) -> Snapshot:
        """Return the joined text or the list of items; *result*, the return value, when nothing was yielded."""
        if not self._count:
            return output_value(process, result)
        items = list(self._items)
        texts = [item for item in items if isinstance(item, str)]
        return output_value(
            process, "".join(texts) if len(texts) == len(items) else items, missing=self._count - len(items)
        )
