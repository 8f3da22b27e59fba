"""The `openinference` dialect: what others have put into `metadata`, and what Phoenix drops of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.backends.vendors.phoenix import flattened
from tests.dialects.test_golden import Span
from tests.strategies import json_values, keys

from otel_metadata.dialects.openinference import OpenInferenceDialect
from otel_metadata.model.merge import Field, FieldName, Fields, Json

OURS: Fields = {("span", "metadata", "k"): (1, (1, 1))}


def encoded(own: object, fields: Fields = OURS) -> Any:
    """Return what `metadata` holds in the end."""
    attributes = OpenInferenceDialect().encode(Span({"metadata": own}), fields, is_local_root=True).attributes
    return json.loads(str(attributes["metadata"]))


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ('{"a": 1, "k": 0}', {"a": 1}),
        ('{"a": NaN, "b": -Infinity}', {"a": "NaN", "b": "-Infinity"}),
        ('{"a": 123456789012345678901234567890}', {"a": "123456789012345678901234567890"}),
        ('{"a": "\\ud800", "": 1}', {"a": "\N{REPLACEMENT CHARACTER}", "<empty>": 1}),
        ({"a": {"b": (1, 2)}}, {"a": {"b": [1, 2]}}),
        ("no JSON", {"metadata": "no JSON"}),
        ("[1, 2]", {"metadata": [1, 2]}),
        (("a", "b"), {"metadata": ["a", "b"]}),
        (5, {"metadata": 5}),
    ],
)
def test_what_the_application_has_put_there_is_kept(own, kept):
    """An object is merged under ours; what is none is kept under the attribute's name; nothing is lost or raises."""
    assert encoded(own) == {**kept, "k": 1}


@pytest.mark.parametrize("depth", [40, 300, 100_000])
def test_a_text_nested_too_deep_does_not_raise(depth):
    """What is deeper than we can write again is cut, or kept as the text that it is."""
    found = encoded('{"a":' * depth + "1" + "}" * depth)
    assert found.pop("k") == 1
    assert len(found) == 1


def test_an_attribute_of_this_name_that_was_set_through_us_is_merged_too():
    """`attributes={"metadata": …}` and `metadata={…}` are two fields, and both are said."""
    fields = {**OURS, ("span", "attribute", "metadata"): ('{"a": 1}', (2, 1))}
    assert encoded("old", fields) == {"a": 1, "k": 1}


def test_what_is_json_in_canonical_spelling_is_listed():
    """A null of the trace is told from the word."""
    fields: Fields = {("trace", "metadata", "a"): (None, (1, 1)), ("trace", "metadata", "b"): ("null", (2, 1))}
    encoded = OpenInferenceDialect().encode(Span({"otel_metadata.json": ("own",)}), fields, is_local_root=True)
    assert encoded.attributes == {
        "trace.metadata.a": "null",
        "trace.metadata.b": "null",
        "otel_metadata.json": ["own", "trace.metadata.a"],
    }


class TestFlattens:
    """With a backend that takes metadata apart."""

    dialect = OpenInferenceDialect(flattens=True)

    @pytest.mark.parametrize("value", [None, {}, {"a": None}, {"a": {"b": {}}}, [{"a": 1}, 2], [{}], [{"a": [{}]}]])
    def test_what_would_not_come_back_whole_leaves_as_a_patch_too(self, value):
        """It is on the span as far as it goes, and whole beside it."""
        fields: Fields = {("span", "metadata", "k"): (value, (1, 1)), ("span", "metadata", "ok"): ([1, None], (2, 1))}
        encoded = self.dialect.encode(Span({"metadata.k": "live"}), fields, is_local_root=True)
        assert json.loads(str(encoded.attributes["metadata"])) == {"k": value, "ok": [1, None]}
        assert "metadata.k" not in encoded.attributes
        assert encoded.remainder == {("span", "metadata", "k"): (value, (1, 1))}

    def test_two_keys_that_are_the_same_with_dots_leave_as_a_patch_both(self):
        """One of them would hide the other."""
        fields: Fields = {
            ("span", "metadata", "a"): ({"b": 1}, (1, 1)),
            ("span", "metadata", "a.b"): (2, (2, 1)),
            ("span", "metadata", "a.c.d"): (3, (3, 1)),
        }
        assert self.dialect.encode(Span(), fields, is_local_root=True).remainder == fields

    @given(st.dictionaries(keys(), json_values(), min_size=1, max_size=4))
    def test_what_is_not_in_the_patch_comes_back(self, metadata):
        """Every leaf of such a key has a dotted key of its own, with its value."""
        fields: dict[FieldName, Field] = {("span", "metadata", key): (value, (1, 1)) for key, value in metadata.items()}
        encoded = self.dialect.encode(Span(), fields, is_local_root=True)
        stored = flattened(dict(encoded.attributes))
        for key, value in metadata.items():
            if ("span", "metadata", key) not in encoded.remainder:
                for path, leaf in leaves(f"metadata.{key}", value):
                    assert json.dumps(stored[path], sort_keys=True) == json.dumps(leaf, sort_keys=True)


def leaves(path: str, value: Json) -> Iterator[tuple[str, Json]]:
    """Yield what a value is made of, each with its dotted key; a list of other things than objects is one."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(f"{path}.{key}", item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for place, item in enumerate(value):
            yield from leaves(f"{path}.{place}", item)
    else:
        yield path, value
