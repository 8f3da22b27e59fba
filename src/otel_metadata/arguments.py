"""Check the arguments of public constructors and functions: an error names an argument of the wrong type.

The expected types are read from the annotations, so each is written once. If an annotation names a type that is
not in the tables below, the function itself has to check the argument.

Functions that run inside an application's requests must not raise; `live.misuse` checks their arguments.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, cast

from otel_metadata.errors import ConfigurationError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Method = TypeVar("_Method", bound=Callable[..., object])

_Kind: TypeAlias = tuple[Callable[[Any], bool], str]


def _is_whole(value: object) -> bool:
    return hasattr(type(value), "__index__") and not isinstance(value, bool)


_KINDS: Final[Mapping[str, _Kind]] = {
    "str": (lambda value: isinstance(value, str), "a text"),
    "bytes": (lambda value: isinstance(value, bytes), "bytes"),
    "int": (_is_whole, "a whole number"),
    "float": (lambda value: _is_whole(value) or isinstance(value, float), "a number"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "None": (lambda value: value is None, "None"),
    "Mapping": (lambda value: isinstance(value, Mapping), "a mapping"),
    "Callable": (callable, "a function"),
    "Collection": (lambda value: isinstance(value, Iterable) and not isinstance(value, str), "a list"),
    "Iterable": (lambda value: isinstance(value, Iterable), "a list"),
    "Path": (lambda value: hasattr(type(value), "__fspath__"), "a path"),
    "os.PathLike": (lambda value: hasattr(type(value), "__fspath__"), "a path"),
    "TextIO": (lambda value: _has(value, "write"), "an open text file"),
    # By their methods: the application may bring its own.
    "Clock": (lambda value: _has(value, "wall_ns", "monotonic_ns"), "an object with wall_ns and monotonic_ns"),
    "SpanStore": (lambda value: _has(value, "query", "patch"), "a store"),
    "SpanExporter": (lambda value: _has(value, "export", "shutdown"), "an OpenTelemetry SpanExporter"),
    "EventSender": (lambda value: _has(value, "send"), "an object with send()"),
}

_CLASSES: Final[Mapping[str, str]] = {
    "Destination": "otel_metadata.delivery.destination",
    "OutboxSettings": "otel_metadata.delivery.outbox_settings",
    "Resource": "opentelemetry.sdk.resources",
    "Spool": "otel_metadata.spool.spool",
    "SpoolSettings": "otel_metadata.spool.spool_settings",
}
"""The module of each class. Whoever has an instance has loaded the module, so nothing is imported here."""


def _has(value: object, *names: str) -> bool:
    return not isinstance(value, type) and all(hasattr(value, name) for name in names)


def checked(func: Callable[_P, _T]) -> Callable[_P, _T]:
    """Refuse arguments of *func* whose type does not match their annotation.

    Raises:
        ConfigurationError: A call has such an argument; nothing was done.
    """
    where = _shown_name(func)
    parameters = inspect.signature(func).parameters
    several = next((name for name, one in parameters.items() if one.kind is one.VAR_POSITIONAL), None)
    kinds = {
        name: found
        for name in parameters
        # A timeout of any kind and size is bounded where it is used: see `seams.bounded_millis`.
        if not name.endswith("timeout_millis") and (found := _kinds(func.__annotations__.get(name)))
    }
    positional = tuple(name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD)

    @functools.wraps(func)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        for name, value in (*zip(positional, args), *kwargs.items()):  # noqa: B905 # Python refuses surplus arguments itself
            if name in kinds:
                _check(f"{where}({name}=)", name, value, kinds[name])
        if several in kinds:
            for value in args[len(positional) :]:
                _check(f"{where}({several})", several, value, kinds[several])
        return func(*args, **kwargs)

    return call


def check_fields(given: Any) -> None:  # noqa: ANN401 # a dataclass of any kind
    """Refuse fields of a dataclass whose type does not match their annotation.

    Raises:
        ConfigurationError: A field is of another type.
    """
    kind = type(given)
    for name, annotation in kind.__annotations__.items():
        kinds = _kinds(annotation)
        if kinds:
            _check(f"{kind.__name__}({name}=)", name, getattr(given, name), kinds)


def unpacks(*kinds: type) -> Callable[[_Method], _Method]:
    """Show the keys of TypedDicts, which a method takes as `**name: Unpack[...]`, as arguments of its own.

    Type checkers and editors unpack them by themselves. `help` and `inspect.signature` do not, and Python would take
    any other name as well.

    Args:
        kinds: What is unpacked, after the TypedDicts that it is made of. Each describes its keys in its docstring, and
            the keys of the last one are None where they are not given.
    """

    def shown(func: _Method) -> _Method:
        signature = inspect.signature(func)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        keys = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind.__forward_arg__)
            for name, kind in kinds[-1].__annotations__.items()
        ]
        signature = signature.replace(parameters=[*own, *keys])

        @functools.wraps(func)
        def call(*args: object, **given: object) -> object:
            for name in given:
                if name not in signature.parameters:
                    raise TypeError(f"{func.__qualname__}() got an unexpected keyword argument {name!r}")
            return func(*args, **given)

        described = "\n".join(inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2] for kind in kinds)
        call.__doc__ = re.sub(r" *\*\*.*", lambda _: described, inspect.cleandoc(func.__doc__ or ""), count=1)
        call.__signature__ = signature  # type: ignore[attr-defined] # inspect reads it, type checkers do not know it
        return cast("_Method", call)

    return shown


def _check(setting: str, name: str, value: object, kinds: tuple[_Kind, ...]) -> None:
    if any(is_right(value) for is_right, _ in kinds):
        return
    words = [word for _, word in kinds]
    if name.endswith("_millis"):
        words[0] = "a whole number of milliseconds"
    expected = f"{', '.join(words[:-1])} or {words[-1]}" if words[1:] else words[0]
    if isinstance(value, str) and words == ["a Destination"]:
        expected += ", such as wrap_exporter(exporter) makes; names and URLs are for configure()"
    if isinstance(value, type):
        raise ConfigurationError(setting, f"the class {value.__name__}", f"{expected}: {value.__name__}(...)")
    raise ConfigurationError(setting, type(value), expected)


def _kinds(annotation: object) -> tuple[_Kind, ...]:
    """Return the types that an annotation allows; an empty tuple if one of them is not known here."""
    if not isinstance(annotation, str):
        return ()
    found: list[_Kind] = []
    while "[" in annotation:  # from the inside out
        shorter = re.sub(r"\[[^\[\]]*\]", "", annotation)
        if shorter == annotation:
            return ()
        annotation = shorter
    for part in annotation.split("|"):
        name = part.strip()
        if name in _KINDS:
            found.append(_KINDS[name])
        elif name in _CLASSES:
            found.append((functools.partial(_is_instance, name), f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"))
        else:
            return ()
    return tuple(found)


def _is_instance(name: str, value: object) -> bool:
    kind = getattr(sys.modules.get(_CLASSES[name]), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _shown_name(func: Callable[..., object]) -> str:
    """Return the name of a function as callers write it."""
    owner, _, name = func.__qualname__.rpartition(".")
    if name == "__init__":
        return owner
    if func.__module__.startswith("otel_metadata.backends."):
        return f"{func.__module__.removeprefix('otel_metadata.')}.{name}"
    return name
