"""The values that a field has and had, in order. Pure; every store reads its history through this module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

import orjson

from otel_metadata.errors import StoreUnsupportedError
from otel_metadata.model.merge import FieldName
from otel_metadata.model.record import ROUTES, Route, ValueRecord

HISTORY_LIMIT: Final = 100
"""How many superseded values of a field are shown."""

UNKNOWN_ROUTE: Final = len(ROUTES)
"""The route of values that were stored before routes were kept: later than any other."""

Value: TypeAlias = "tuple[int, str, str, int]"
"""(ns, writer in hex digits, JSON text, place of the route in `ROUTES`)"""

Values: TypeAlias = "tuple[list[Value], bool]"
"""The values of a field, the one that wins first, and whether older ones were dropped."""


def not_kept(store: object, what: str) -> StoreUnsupportedError:
    """Return the error for a question about earlier values of a store that keeps none; *what* was asked."""
    return StoreUnsupportedError(
        f"{store}?history=off: {what}, but this store does not keep superseded values; expected a store "
        "without ?history=off."
    )


def route_name(route: int) -> Route | None:
    """Return a route from its place in `ROUTES`; None for an unknown one."""
    return ROUTES[route] if route < UNKNOWN_ROUTE else None


@lru_cache(maxsize=1024)  # most spans have as many fields as another one, which came by the same routes
def routes_text(routes: tuple[int, ...]) -> str | None:
    """Return the text that an export has of the routes of fields; None if none of them is known."""
    names = [route_name(route) for route in routes]
    return orjson.dumps(names).decode() if any(names) else None


def in_order(name: FieldName, current: Value, superseded: Iterable[Value], limit: int) -> Values:
    """Return the values of a field, the newest *limit* of the superseded ones behind the current one."""
    older = sorted(superseded, reverse=True)
    kept = older[:limit]
    # Of a tag the lower version wins.
    return [current, *(reversed(kept) if name[1] == "tag" else kept)], len(older) > limit


def records(found: Mapping[FieldName, Values], name_of: Callable[[str], str | None]) -> list[ValueRecord]:
    """Return the values of fields, newest first.

    Args:
        found: The values of each field.
        name_of: Returns the author for a writer in hex digits, or None.
    """
    shown = []
    for (level, kind, key), (values, is_cut) in found.items():
        oldest, above = min(values[1:], default=None), None
        for one in values:
            ns, writer, text, route = one
            shown.append(
                ValueRecord(
                    level=level,
                    kind=kind,
                    key=key,
                    value=orjson.loads(text),
                    time_ns=ns,
                    writer=int(writer, 16),
                    route=route_name(route),
                    author=name_of(writer),
                    superseded_by=above,
                    is_oldest_kept=is_cut and one is oldest,
                )
            )
            above = ns, int(writer, 16)
    shown.sort(key=lambda one: (one.time_ns, one.writer, one.level, one.kind, one.key), reverse=True)
    return shown
