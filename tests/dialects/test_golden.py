"""The golden table: facts as rows, dialects as columns, and what holds for every dialect."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from opentelemetry.trace import SpanContext, SpanKind, Status
from tests.dialects import columns
from tests.dialects.facts import FACTS, PATCH
from tests.strategies import field_sets

from otel_metadata.dialects.canonical import is_native, spell, to_attributes
from otel_metadata.seams import Dialect

MODULES = {
    one.name: importlib.import_module(f"{columns.__name__}.{one.name}")
    for one in pkgutil.iter_modules(columns.__path__)
}
DIALECTS: dict[str, Dialect] = {name: module.DIALECT for name, module in MODULES.items()}


@dataclass
class Span:
    """An ended span, as far as a dialect looks."""

    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = "work"
    kind: SpanKind = SpanKind.INTERNAL
    status: Status = field(default_factory=Status)
    parent: SpanContext | None = None
    end_time: int | None = None


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_fact_is_spelled_as_the_table_says(dialect, fact):
    """What leaves on a span without attributes of its own, or `patch` for what leaves after it."""
    encoded = DIALECTS[dialect].encode(Span(), FACTS[fact], is_local_root=not fact.endswith("on a child"))
    expected = MODULES[dialect].EXPECTED[fact]
    if expected == PATCH:
        assert (dict(encoded.attributes), encoded.remainder) == ({}, FACTS[fact])
        return
    found = dict(encoded.attributes)
    if encoded.name is not None:
        found["(name)"] = encoded.name
    if encoded.status is not None:
        found["(status)"] = encoded.status
    assert found == expected
    assert not encoded.remainder


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_table_is_whole(dialect):
    """Every dialect has a cell for every fact."""
    assert MODULES[dialect].EXPECTED.keys() == FACTS.keys()


@pytest.mark.parametrize("dialect", DIALECTS)
@given(fields=field_sets())
def test_whatever_is_set_the_attributes_can_be_exported(dialect, fields):
    """No field set makes a dialect raise, hand on what no attribute can hold, or lose a field of the span's own."""
    canonical: dict[str, Any] = {"http.method": "GET"}
    for name, (value, _) in fields.items():
        canonical.update(to_attributes(spell(name, value))[0])
    encoded = DIALECTS[dialect].encode(Span(canonical), fields, is_local_root=True)
    assert encoded.attributes["http.method"] == "GET"
    assert all(is_native(list(one) if isinstance(one, tuple) else one) for one in encoded.attributes.values())
    assert encoded.remainder.keys() <= fields.keys()
    assert all(encoded.remainder[name] == fields[name] for name in encoded.remainder)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(fields=field_sets())
def test_the_same_fields_twice_are_the_same_span(dialect, fields):
    """Encoding depends on the fields, not on the order in which they are held."""
    backwards = dict(reversed(list(fields.items())))
    one = DIALECTS[dialect].encode(Span(), fields, is_local_root=True)
    other = DIALECTS[dialect].encode(Span(), backwards, is_local_root=True)
    assert one == other
