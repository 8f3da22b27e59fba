"""A patch as the attributes of a span, and back."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from tests.strategies import field_sets

from otel_metadata.dialects.canonical import AUTHOR, AUTHORS_BY_WRITER, VERSIONS, author_attributes
from otel_metadata.dialects.patch_span import TARGET, attributes_of, fields_of
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER, Fields, json_text
from otel_metadata.model.patch import Patch
from otel_metadata.model.recent import RecentMap
from otel_metadata.model.span_ref import SpanRef


@example(
    {
        ("trace", "annotation", "0"): ({"name": "0", "text": ""}, (0, 0)),
        ("trace", "annotation", '["0",""]'): ({"name": "0", "annotator": ""}, (0, 0)),
    }
)
@example(
    {
        ("span", "annotation", "a"): ({"name": "a"}, (0, 0)),
        ("span", "annotation", "b"): ({"name": "b"}, (0, 0)),
    }
)
@given(field_sets())
def test_a_patch_comes_back_with_its_versions(fields: Fields):
    """Every field, or another of the same attribute that wins over it; none with a value that it never had."""
    attributes = attributes_of(Patch(SpanRef(1, 2), fields))

    found = fields_of(attributes)

    assert attributes[TARGET] == "0000000000000002"
    for name, (value, version) in fields.items():
        level, kind, _ = name
        other = fields.get(("trace" if level == "span" else "span", kind, ""))
        if kind in {"user_id", "session_id"} and other is not None and name not in found:
            # One attribute for both levels: it has the later value of the two.
            assert (version, level) < (other[1], "trace" if level == "span" else "span")
            continue
        assert (json_text([found[name][0]]), found[name][1]) == (json_text([value]), version), name
    assert found.keys() <= fields.keys()


def by(*writers: int) -> Fields:
    """Return one field for each writer."""
    return {("span", "metadata", f"k{writer}"): (1, (writer, writer)) for writer in writers}


def forget() -> None:
    """Know no names, as another process."""
    AUTHORS._names = RecentMap(100)


@pytest.mark.parametrize(
    ("names", "attributes"),
    [
        ({}, {}),
        ({1: "ada"}, {AUTHORS_BY_WRITER: '{"0000000000000001":"ada"}'}),
        ({1: "ada", 2: "ada"}, {AUTHOR: "ada"}),
        ({1: "b", 2: "a"}, {AUTHORS_BY_WRITER: '{"0000000000000001":"b","0000000000000002":"a"}'}),
        ({1: '{"a": 1}', 2: '{"a": 1}'}, {AUTHOR: '{"a": 1}'}),
    ],
)
def test_authors_come_back_for_their_writers(names: dict[int, str], attributes: dict[str, str]) -> None:
    """One name as it is, for people who look at the span; several by writer. A writer without a name gets none."""
    for writer, name in names.items():
        AUTHORS.add(writer, name)
    fields = by(1, 2, PLAIN_ATTRIBUTE_WRITER)
    assert author_attributes(fields) == attributes
    forget()

    assert fields_of({**attributes_of(Patch(SpanRef(1, 2), fields)), **attributes}) == fields

    assert {writer: AUTHORS.name_of(writer) for writer in (0, 1, 2)} == {0: None, 1: None, 2: None, **names}


@pytest.mark.parametrize(
    "attributes",
    [
        {AUTHOR: 5},
        {AUTHOR: ["ada"]},
        {AUTHOR: ""},
        {AUTHORS_BY_WRITER: "{"},
        {AUTHORS_BY_WRITER: "[1]"},
        {AUTHORS_BY_WRITER: 7},
        {AUTHORS_BY_WRITER: '{"0000000000000001": {"a": 1}, "x": "ada"}'},
        {AUTHORS_BY_WRITER: '{"0000000000000003": "not listed"}'},
        {AUTHOR: "ada", VERSIONS: "{"},
    ],
)
def test_what_author_attributes_would_not_write_is_ignored(attributes: dict[str, object]) -> None:
    """The fields are read all the same; a writer whose versions are not on the span gets no name from it."""
    fields_of({**attributes_of(Patch(SpanRef(1, 2), by(1, 2))), **attributes})
    assert [AUTHORS.name_of(writer) for writer in (1, 2, 3)] == [None, None, None]


def test_vendors_get_no_author() -> None:
    """Vendors' patch exporters send these attributes, too; only an OTLP destination adds the author."""
    AUTHORS.add(1, "ada")
    assert not {AUTHOR, AUTHORS_BY_WRITER} & attributes_of(Patch(SpanRef(1, 2), by(1))).keys()
