"""Reads what an object holds, without running the code of its class.

This module decides which objects are data, and reads them: the instance's own state, and standard containers by their
built-in methods. `value` decides what the parts look like as JSON.

An object is data when its class declares its fields (dataclass, attrs, msgspec, pydantic, named tuple, protobuf), when
it is a known container or value, when it is an exception, or when its class has a method such as `to_dict` (the state
is read, the method is not called). Every other object is opaque: a request, response, session, client, connection,
engine, file, lock, iterator, proxy, lazy module. A foreign `Mapping` is opaque too: reading it would run its code, and
web requests and header objects are mappings.

Why so strict: a property, a descriptor or a serializer may query a database, consume a stream, warn, or raise.
"""

from __future__ import annotations

import array
import builtins
import collections
import dataclasses
import datetime as dt
import decimal
import gc
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, final

from otel_metadata.interrupts import pass_on
from otel_metadata.model.span_ref import SpanRef


@final
class Parts(NamedTuple):
    """The parts of a container.

    Attributes:
        items: Its items, or its pairs of key and value.
        size: The number of items.
        is_mapping: Whether the items are pairs.
        is_set: Whether the items have no order of their own.
    """

    items: Iterable[Any]
    size: int
    is_mapping: bool = False
    is_set: bool = False


@final
class Opaque(NamedTuple):
    """An object that is not data, or is too large to read.

    Attributes:
        name: The name that takes its place; empty for the name of its class.
        why: Why it was not read; empty for an object that is not data.
    """

    name: str = ""
    why: str = ""


OPAQUE: Final = Opaque()

Contents: TypeAlias = "str | Parts | Opaque | Instead"


@final
class Instead(NamedTuple):
    """An object that another value can replace.

    Attributes:
        value: That value.
    """

    value: object


_MISSING: Final = object()

_MRO: Final = type.__dict__["__mro__"]
_CLASS_DICT: Final = type.__dict__["__dict__"]
_CLASS_MODULE: Final = type.__dict__["__module__"]
_CLASS_NAME: Final = type.__dict__["__name__"]
_ARGS: Final = BaseException.__dict__["args"]
# The types of descriptors that only read memory: slots, and attributes of classes written in C.
_MEMBERS: Final = (types.MemberDescriptorType, types.GetSetDescriptorType)
_SLOT_METHOD: Final = type(BaseException.__str__)

# A class with one of these methods makes records of data.
_TO_DICT: Final = ("to_dict", "model_dump", "_asdict", "as_dict", "asdict", "to_json_dict")

_MESSAGES: Final = ("message", "msg", "detail", "description", "reason")
_MAX_ARGUMENTS: Final = 8
_PLAIN: Final = (str, int, float, bool, bytes)
_GROUP: Final[Any] = getattr(builtins, "BaseExceptionGroup", None)  # from Python 3.11 on


def type_name(value: object) -> str:
    """Return the name of the class of *value*: ASCII, at most 100 characters."""
    try:
        return str.__str__(_CLASS_NAME.__get__(type(value)))[:100].encode("ascii", "replace").decode()
    except BaseException as error:  # noqa: BLE001 # a metaclass may do anything
        pass_on(error)
        return "object"


def contents(value: Any, kind: type, max_items: int) -> Contents:
    """Return what *value* holds; `OPAQUE` when it is not data.

    Args:
        value: Any object but a scalar, dict, list, tuple, set, bytes, or an instance of a subclass of those.
        kind: Its class.
        max_items: Arrays with more items are not read.
    """
    for known, read in _TEXTS:
        if issubclass(kind, known):
            return str.__str__(read(value))
    for known, parts in _CONTAINERS:
        if issubclass(kind, known):
            return parts(value)
    if issubclass(kind, BaseException):
        return _exception(value, kind)
    bases = _MRO.__get__(kind)
    for base in bases[:-1]:
        library = _LIBRARIES.get(_full_name(base))
        if library is not None and _is_genuine(base):
            return library(value, base, max_items)
    return _record(value, kind, bases)


def enum_value(value: Any) -> Any:
    """Return the value of a member of an Enum; the member itself where it has no value."""
    return _state(value, type(value)).get("_value_", value)


def named_tuple(value: Any, kind: type) -> Parts | None:
    """Return the fields of a named tuple; None for any other tuple."""
    names = _static(kind, "_fields")
    size = tuple.__len__(value)
    if type(names) is not tuple or len(names) != size or not all(type(name) is str for name in names):
        return None
    return Parts(zip(names, tuple.__iter__(value), strict=True), size, is_mapping=True)


# --- reading memory ---------------------------------------------------------------------------------------------------


def _static(kind: type, name: str) -> Any:
    """Return an attribute of a class without binding it, so that no descriptor runs."""
    for base in _MRO.__get__(kind):
        found = _CLASS_DICT.__get__(base).get(name, _MISSING)
        if found is not _MISSING:
            return found
    return _MISSING


def _state(value: Any, kind: type) -> dict[str, Any]:
    """Return a copy of the instance's `__dict__`; empty when it has none."""
    descriptor = _static(kind, "__dict__")
    if type(descriptor) not in _MEMBERS:
        return {}
    state = descriptor.__get__(value)
    return dict(dict.items(state)) if issubclass(type(state), dict) else {}


def _slots(value: Any, kind: type) -> dict[str, Any]:
    """Return the values in the slots of an instance, those of its base classes first."""
    held = {}
    for base in reversed(_MRO.__get__(kind)):
        written = _CLASS_DICT.__get__(base)
        if "__slots__" in written:
            # `__slots__` itself is not read: it may be an exhausted iterator, and its private names are not mangled.
            for name in [name for name, member in written.items() if type(member) is types.MemberDescriptorType]:
                part = _attribute({}, value, kind, name)
                if part is not _MISSING:
                    held[name] = part
    return held


def _attribute(state: Mapping[str, Any], value: Any, kind: type, name: str) -> Any:
    """Return the value of *name* in an instance: from its `__dict__`, a slot, or a plain default of its class."""
    found = state.get(name, _MISSING)
    if found is not _MISSING:
        return found
    found = _static(kind, name)
    if found is _MISSING:
        return _MISSING
    if type(found) is types.MemberDescriptorType:
        try:
            return found.__get__(value)
        except AttributeError:  # a slot that was not set
            return _MISSING
    # Descriptors are not run: a property, a cached value that is not computed, an ORM's attribute that is not loaded.
    return _MISSING if _static(type(found), "__get__") is not _MISSING else found


def _fields(value: Any, kind: type, names: Iterable[str]) -> Contents:
    state = _state(value, kind)
    named = [(name, _attribute(state, value, kind, name)) for name in names]
    found = [(name, part) for name, part in named if part is not _MISSING]
    if named and not found:
        return OPAQUE  # nothing is loaded, as in an ORM's object after a commit
    return Parts(found, len(found), is_mapping=True)


def _full_name(base: type) -> str:
    module = _CLASS_MODULE.__get__(base)
    return f"{module}.{_CLASS_NAME.__get__(base)}" if type(module) is str else ""


def _is_genuine(base: type) -> bool:
    """Whether a module really has this class under the class's name, which any class may claim."""
    module, _, name = _full_name(base).rpartition(".")
    return vars(sys.modules.get(module, types)).get(name) is base


# --- records ----------------------------------------------------------------------------------------------------------


def _record(value: Any, kind: type, bases: tuple[type, ...]) -> Contents:
    """Return the fields of an object whose class declares them; `OPAQUE` for any other object."""
    declared = _static(kind, "__dataclass_fields__")
    if type(declared) is dict:
        # The public way to tell fields from class variables, without running code of the class.
        names = [field.name for field in dataclasses.fields(types.SimpleNamespace(__dataclass_fields__=declared))]  # type: ignore[arg-type] # it only reads this attribute
        return _fields(value, kind, names)
    declared = _static(kind, "__attrs_attrs__")
    if issubclass(type(declared), tuple):
        return _fields(value, kind, [attribute.name for attribute in tuple.__iter__(declared)])
    if any(callable(_CLASS_DICT.__get__(base).get(name)) for base in bases[:-1] for name in _TO_DICT):
        return _public(value, kind)
    return OPAQUE


def _public(value: Any, kind: type) -> Contents:
    """Return the public state of an object that has a method such as `to_dict`."""
    state = {**_state(value, kind), **_slots(value, kind)}
    found = [(name, part) for name, part in state.items() if type(name) is str and not name.startswith("_")]
    # A private name is public where a property has the name without the underscore.
    found += [
        (name[1:], part)
        for name, part in state.items()
        if type(name) is str and name.startswith("_") and type(_static(kind, name[1:])) is property
    ]
    return Parts(found, len(found), is_mapping=True) if found else OPAQUE


def _pydantic(value: Any, base: type, _: int) -> Contents:
    """Return the fields of a pydantic model, version 1 or 2, with extra fields and without excluded ones."""
    kind = type(value)
    state = _state(value, kind)
    declared = _static(kind, "__pydantic_fields__")
    for older in ("model_fields", "__fields__"):
        if type(declared) is not dict:
            declared = _static(kind, older)
    if type(declared) is not dict:
        return OPAQUE
    shown = [name for name, field in declared.items() if not _is_excluded(field)]
    pairs = [(name, state[name]) for name in shown if name in state]
    extra = _static(base, "__pydantic_extra__")
    if type(extra) is types.MemberDescriptorType:
        try:
            more = extra.__get__(value)
        except AttributeError:
            more = None
        pairs += [*dict.items(more)] if isinstance(more, dict) else []
    elif "__fields__" in _CLASS_DICT.__get__(base):  # version 1 keeps extra fields beside the declared ones
        pairs += [(name, part) for name, part in state.items() if name not in declared and not name.startswith("_")]
    if [*declared] == ["root"] and len(pairs) == 1:
        return Instead(pairs[0][1])
    if shown and not pairs:
        return OPAQUE
    return Parts(pairs, len(pairs), is_mapping=True)


def _msgspec(value: Any, _: Any, __: int) -> Contents:
    kind = type(value)
    # A member of the metaclass, which is written in C.
    return _fields(value, kind, _static(type(kind), "__struct_fields__").__get__(kind))


def _sqlalchemy_row(value: Any, base: Any, _: int) -> Contents:
    """Return the columns of a row, which holds its values, and a dict from keys to indexes."""
    held = [_static(base, name) for name in ("_data", "_key_to_index")]
    if not all(type(one) in _MEMBERS for one in held):
        return OPAQUE
    parts, indexes = (one.__get__(value) for one in held)
    if type(parts) is not tuple or not issubclass(type(indexes), dict):
        return OPAQUE
    pairs = [(key, parts[at]) for key, at in dict.items(indexes) if type(key) is str]
    return Parts(pairs, len(pairs), is_mapping=True)


def _is_excluded(field: Any) -> bool:
    # pydantic's own classes: `FieldInfo` of version 2, `ModelField` of version 1.
    return getattr(getattr(field, "field_info", field), "exclude", None) is True


# --- exceptions -------------------------------------------------------------------------------------------------------


def _exception(value: Any, kind: type) -> Contents:
    pairs: list[tuple[str, object]] = [("type", type_name(value)), ("message", _message(value, kind))]
    if _GROUP is not None and issubclass(kind, _GROUP):
        pairs.append(("exceptions", vars(_GROUP)["exceptions"].__get__(value)))
    return Parts(pairs, len(pairs), is_mapping=True)


def _message(value: Any, kind: type) -> object:
    """Return the message of an exception: from its C code where no other code would run, else from what it holds."""
    if _GROUP is not None and issubclass(kind, _GROUP):
        return vars(_GROUP)["message"].__get__(value)
    arguments = _ARGS.__get__(value)
    parts = arguments
    if issubclass(kind, OSError):
        parts = (*arguments, *(vars(OSError)[name].__get__(value) for name in ("filename", "filename2")))
    write = _static(kind, "__str__")
    if type(write) is _SLOT_METHOD and all(part is None or type(part) in _PLAIN for part in parts):
        text = str.__str__(write(value))
        if text:
            return text
    state = _state(value, kind)
    for name in _MESSAGES:
        if type(state.get(name)) is str:
            return state[name]
    return arguments[0] if len(arguments) == 1 else [*arguments[:_MAX_ARGUMENTS]] or ""


# --- values of the standard library -----------------------------------------------------------------------------------


def _isoformat(base: Any) -> Callable[[Any], str]:
    def write(value: Any) -> str:
        zone = getattr(base, "tzinfo", None)
        offset = None if zone is None else zone.__get__(value)
        if offset is None or _library_of(offset) in _ZONES:
            # pandas counts nanoseconds, which the base does not know.
            return (type(value) if _library_of(value) == "pandas" else base).isoformat(value)  # type: ignore[no-any-return] # a text
        # The time zone is the application's own class: asking for its offset would run its code.
        return f"{base.isoformat(base.replace(value, tzinfo=None))} <{type_name(offset)}>"

    return write


_ZONES: Final = frozenset({"datetime", "zoneinfo", "pytz", "dateutil", "pendulum", "pandas", "tzlocal"})


def _library_of(value: object) -> str:
    module = _CLASS_MODULE.__get__(type(value))
    return module.partition(".")[0] if type(module) is str else ""


def _duration(value: Any) -> str:
    return str(value) if _library_of(value) == "pandas" else dt.timedelta.__str__(value)


_TEXTS: Final[tuple[tuple[type, Callable[[Any], str]], ...]] = (
    (dt.datetime, _isoformat(dt.datetime)),
    (dt.date, _isoformat(dt.date)),
    (dt.time, _isoformat(dt.time)),
    (dt.timedelta, _duration),
    (uuid.UUID, uuid.UUID.__str__),
    (decimal.Decimal, decimal.Decimal.__str__),
    (pathlib.PurePath, pathlib.PurePath.__str__),
    (SpanRef, SpanRef.to_traceparent),
    (complex, complex.__repr__),
    # Its text, not its items: there may be more than anybody can store.
    (range, range.__repr__),
)
# These are the base's own methods: a subclass's methods are foreign code.


def _data(value: Any, _: Any, __: int) -> Contents:
    data = _state(value, type(value)).get("data", _MISSING)
    return OPAQUE if data is _MISSING else Instead(data)


def _chain_map(value: Any, _: Any, __: int) -> Contents:
    maps = _state(value, type(value)).get("maps")
    if not isinstance(maps, list) or not all(issubclass(type(one), dict) for one in list.__iter__(maps)):
        return OPAQUE
    merged: dict[str, Any] = {}
    others: list[tuple[Any, Any]] = []  # looking such keys up would run their code
    for one in reversed([*list.__iter__(maps)]):
        for key, part in dict.items(one):
            if type(key) is str:
                merged[key] = part
            else:
                others.append((key, part))
    return Parts([*merged.items(), *others], len(merged) + len(others), is_mapping=True)


def _proxied(value: Any) -> Contents:
    # The mapping behind the proxy: the proxy's own methods call those of the mapping.
    return Instead(next(iter(gc.get_referents(value)), None))


def _state_parts(value: Any) -> Contents:
    state = _state(value, type(value))
    return Parts(state.items(), len(state), is_mapping=True)


def _listed(base: Any) -> Callable[[Any], Contents]:
    def parts(value: Any) -> Contents:
        return Parts(base.__iter__(value), base.__len__(value))

    return parts


_LISTS: Final[tuple[type, ...]] = (collections.deque, array.array, type({}.keys()), type({}.values()), type({}.items()))

_CONTAINERS: Final[tuple[tuple[type, Callable[[Any], Contents]], ...]] = (
    *((kind, _listed(kind)) for kind in _LISTS),
    (types.SimpleNamespace, _state_parts),
    (types.MappingProxyType, _proxied),
    (re.Pattern, lambda value: Instead(value.pattern)),
)


# --- classes known by name: libraries are not imported here -----------------------------------------------------------


def _as_text(value: Any, base: Any, _: int) -> Contents:
    return str.__str__(base.__str__(value))


def _numpy(value: Any, base: Any, max_items: int) -> Contents:
    size = int(base.size.__get__(value))
    if size > max_items:
        return Opaque(f"numpy array of {size} values", f"more than {max_items}")
    plain = base.tolist(value)
    # A longdouble has no equivalent in Python, and returns itself.
    return OPAQUE if type(plain) is type(value) else Instead(plain)


def _with_shape(value: Any, base: Any, _: int) -> Contents:
    shape = _static(base, "shape")
    sizes = property.__get__(shape, value) if type(shape) is property else shape.__get__(value)
    return Opaque(f"{type_name(value)} {' x '.join(str(int(size)) for size in sizes)}".rstrip())


def _protobuf(value: Any, base: Any, _: int) -> Contents:
    pairs = [(field.name, _protobuf_part(part, base)) for field, part in type(value).ListFields(value)]
    return Parts(pairs, len(pairs), is_mapping=True)


def _protobuf_part(part: Any, message: type) -> object:
    """Return the value of a field of a message: protobuf's own containers as a list or dict."""
    kind = type(part)
    if issubclass(kind, message) or not kind.__module__.startswith("google."):
        return part
    return dict(part.items()) if hasattr(kind, "items") else list(part)


def _sqlite_row(value: Any, base: Any, _: int) -> Contents:
    names = base.keys(value)
    return Parts(zip(names, base.__iter__(value), strict=True), len(names), is_mapping=True)


_LIBRARIES: Final[dict[str, Callable[[Any, Any, int], Contents]]] = {
    "pydantic.main.BaseModel": _pydantic,
    "pydantic.v1.main.BaseModel": _pydantic,
    "msgspec.Struct": _msgspec,
    "sqlalchemy.engine.row.Row": _sqlalchemy_row,
    "sqlalchemy.engine.row.RowMapping": _sqlalchemy_row,
    # Subclasses of abstract base classes: `issubclass` would run code of both classes.
    "collections.UserDict": _data,
    "collections.UserList": _data,
    "collections.UserString": _data,
    "collections.ChainMap": _chain_map,
    "fractions.Fraction": _as_text,
    "ipaddress.IPv4Address": _as_text,
    "ipaddress.IPv6Address": _as_text,
    "ipaddress.IPv4Network": _as_text,
    "ipaddress.IPv6Network": _as_text,
    "zoneinfo.ZoneInfo": _as_text,
    "argparse.Namespace": lambda value, _, __: _state_parts(value),
    "sqlite3.Row": _sqlite_row,
    "numpy.ndarray": _numpy,
    "numpy.generic": _numpy,
    "pandas.DataFrame": _with_shape,
    "pandas.Series": _with_shape,
    "pandas.core.frame.DataFrame": _with_shape,  # before pandas 3
    "pandas.core.series.Series": _with_shape,
    "polars.dataframe.frame.DataFrame": _with_shape,
    "polars.series.series.Series": _with_shape,
    "torch.Tensor": _with_shape,
    "google.protobuf.message.Message": _protobuf,
}
