"""What a body or query has that its type does not: an error of msgspec as a refusal that says what was expected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from msgspec import inspect

from otel_metadata.server.operations import Problem

# Messages of msgspec, such as "Expected `int`, got `str` - at `$.spans[0].name`".
_AT: Final = re.compile(r" - at (?:`key` in )?`(?:key in )?([^`]*)`$")
_EXPECTED: Final = re.compile(r"Expected (.*?)(?:, got .*)?$", re.DOTALL)
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|(\[\.\.\.\])")
_BYTE: Final = re.compile(r"\(byte (\d+)\)")


def invalid(what: str, error: Exception, wanted: Any, *, pointer: str | None) -> Problem:
    """Return the refusal that says what msgspec has found, and what was expected.

    Args:
        what: What was read, such as "The body".
        error: Of msgspec.
        wanted: The type that was expected.
        pointer: The place of what was read; None if it has none.
    """
    text = f"{error}"
    at = _AT.search(text)
    text = text[: at.start()] if at is not None else text
    steps = list(_steps(at[1])) if at is not None else []
    shown = "".join(f"/{step}" for step in steps)
    # A pointer ends where the path names no key.
    known = "".join(f"/{step}" for step in steps[: steps.index("*") if "*" in steps else None])
    expected = _expected(text, wanted, tuple(steps))
    place = _BYTE.search(text)
    more = f"; expected {expected}" if expected is not None and not text.startswith("Expected") else ""
    return Problem(
        400,
        f"{what}{f', at {shown},' if shown else ''} is not as expected: {text.replace('`', '')}{more}.",
        pointer=f"{pointer}{known}" if pointer is not None and place is None else None,
        expected=expected,
        position=int(place[1]) if place is not None else None,
    )


def _steps(path: str) -> Iterator[str]:
    """Yield the steps of a path such as `$.spans[0].name`, as a JSON pointer has them; `*` for a key without a name."""
    for name, index, unknown in _STEP.findall(path):
        yield "*" if unknown else index or name.replace("~", "~0").replace("/", "~1")


def _expected(text: str, wanted: Any, steps: tuple[str, ...]) -> str | None:
    found = _EXPECTED.fullmatch(text)
    if found is not None:
        return found[1].replace("`", "")
    if text.startswith("Object contains unknown field"):
        return _choices(wanted, steps, of_members=True)
    return _choices(wanted, steps, of_members=False) if text.startswith("Invalid enum value") else None


@lru_cache(maxsize=256)
def _choices(wanted: Any, steps: tuple[str, ...], *, of_members: bool) -> str | None:
    """Return the members of the object at a place, or the values that are allowed there."""
    types: list[inspect.Type] = [inspect.type_info(wanted)]
    for step in steps:
        types = [inner for one in _flat(types) for inner in _inside(one, step)]
    for one in _flat(types):
        if of_members and isinstance(one, inspect.StructType):
            return ", ".join(field.encode_name for field in one.fields)
        if not of_members and isinstance(one, inspect.LiteralType):
            return ", ".join(f"{value}" for value in one.values)
    return None


def _flat(types: list[inspect.Type]) -> Iterator[inspect.Type]:
    for one in types:
        if isinstance(one, inspect.Metadata):
            yield from _flat([one.type])
        elif isinstance(one, inspect.UnionType):
            yield from _flat(list(one.types))
        else:
            yield one


def _inside(outer: inspect.Type, step: str) -> Iterator[inspect.Type]:
    if isinstance(outer, inspect.StructType):
        yield from (field.type for field in outer.fields if field.encode_name == step)
    elif isinstance(outer, inspect.ListType):
        yield outer.item_type
    elif isinstance(outer, inspect.DictType):
        yield outer.value_type
