"""The merge contract: the laws for every set of fields, and the examples that explain them."""

from __future__ import annotations

import copy
import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import any_field_sets, field_sets, json_values

from otel_metadata.model.merge import Field, FieldName, Fields, Json, json_text, latest_version, merge, merge_into


def metadata(**values: tuple[Json, int]) -> dict[FieldName, Field]:
    """Return metadata fields: key → (value, nanoseconds of the update)."""
    return {("span", "metadata", key): (value, (ns, 1)) for key, (value, ns) in values.items()}


def exactly(fields: Fields) -> bytes:
    """Return a text that also tells 1 from 1.0 and from True, and 0.0 from -0.0."""
    return orjson.dumps(sorted([[*name, json_text(value), *version] for name, (value, version) in fields.items()]))


class TestLaws:
    @given(any_field_sets())
    def test_merging_with_itself_changes_nothing(self, fields: Fields) -> None:
        """Merge is idempotent."""
        assert exactly(merge(fields, fields)) == exactly(fields)

    @given(any_field_sets(), any_field_sets())
    def test_the_order_of_two_sets_does_not_matter(self, one: Fields, two: Fields) -> None:
        """Merge is commutative, for equal versions with different values as well."""
        assert exactly(merge(one, two)) == exactly(merge(two, one))

    @given(any_field_sets(), any_field_sets(), any_field_sets())
    def test_the_grouping_of_three_sets_does_not_matter(self, one: Fields, two: Fields, three: Fields) -> None:
        """Merge is associative."""
        assert exactly(merge(merge(one, two), three)) == exactly(merge(one, merge(two, three)))

    @given(any_field_sets(), st.lists(any_field_sets(), max_size=4))
    def test_composing_and_applying_are_one_operation(self, document: Fields, patches: list[Fields]) -> None:
        """Patches that were composed first lead to what the same patches lead to one by one."""
        one_by_one = dict(document)
        for patch in patches:
            merge_into(one_by_one, patch)
        composed: dict[FieldName, Field] = {}
        for patch in patches:
            merge_into(composed, patch)

        assert exactly(merge(document, composed)) == exactly(one_by_one)

    @given(st.lists(field_sets(), min_size=1, max_size=4), st.data())
    def test_any_order_and_any_repetition_lead_to_the_same_fields(
        self, patches: list[Fields], data: st.DataObject
    ) -> None:
        """Delivery may reorder and repeat as it likes."""
        again = data.draw(st.permutations([*patches, *data.draw(st.lists(st.sampled_from(patches), max_size=4))]))
        once: dict[FieldName, Field] = {}
        for patch in patches:
            merge_into(once, patch)
        delivered: dict[FieldName, Field] = {}
        for patch in again:
            merge_into(delivered, patch)

        assert exactly(delivered) == exactly(once)

    @given(any_field_sets(), any_field_sets())
    def test_nothing_is_ever_deleted(self, one: Fields, two: Fields) -> None:
        """The merged names are the union of both, and every merged field is one of the two whole."""
        merged = merge(one, two)

        assert merged.keys() == one.keys() | two.keys()
        assert all(field in (one.get(name), two.get(name)) for name, field in merged.items())

    @given(any_field_sets())
    def test_the_empty_patch_changes_nothing(self, fields: Fields) -> None:
        """The empty set of fields is neutral on both sides."""
        assert merge(fields, {}) == merge({}, fields) == fields

    @given(any_field_sets(), any_field_sets())
    def test_neither_argument_is_changed(self, one: Fields, two: Fields) -> None:
        """Merge makes a new set of fields."""
        before = copy.deepcopy((one, two))

        merge(one, two)

        assert (one, two) == before

    @given(any_field_sets(), any_field_sets())
    def test_the_higher_version_of_a_field_stands(self, one: Fields, two: Fields) -> None:
        """Of every kind but tags, the merged version is the higher one; of a tag it is the lower one."""
        for name, (_, version) in merge(one, two).items():
            both = [fields[name][1] for fields in (one, two) if name in fields]
            assert version == (min(both) if name[1] == "tag" else max(both))


class TestFirstLevel:
    def test_a_later_value_wins_and_null_is_kept(self) -> None:
        """`{"step": 1, "status": "started"}` then `{"step": 2, "error": None}` keeps all three keys."""
        first = metadata(step=(1, 1), status=("started", 1))
        second = metadata(step=(2, 2), error=(None, 2))

        assert merge(first, second) == metadata(step=(2, 2), status=("started", 1), error=(None, 2))

    def test_a_nested_value_is_replaced_whole(self) -> None:
        """Objects are never merged deeper than the first level."""
        first = metadata(call=({"model": "m", "tokens": 3}, 1))
        second = metadata(call=({"model": "n"}, 2))

        assert merge(first, second) == second

    @pytest.mark.parametrize("value", [None, 0, "", False, [], {}], ids=repr)
    def test_an_empty_value_is_a_value(self, value: Json) -> None:
        """Null, zero, the empty text, false, the empty list and the empty object replace what was there."""
        assert merge(metadata(key=("before", 1)), metadata(key=(value, 2))) == metadata(key=(value, 2))

    def test_an_old_null_does_not_hide_a_newer_value(self) -> None:
        """Null stands by its version like any other value."""
        assert merge(metadata(key=("new", 2)), metadata(key=(None, 1))) == metadata(key=("new", 2))

    def test_the_writer_decides_within_one_nanosecond(self) -> None:
        """Two processes that update in the same nanosecond agree on whose update stands."""
        name: FieldName = ("span", "output", "")

        assert merge({name: ("a", (5, 9))}, {name: ("b", (5, 8))}) == {name: ("a", (5, 9))}

    def test_equal_versions_are_decided_by_the_greater_json_text(self) -> None:
        """Two exporters that read another value at the end of one span lead to one value."""
        name: FieldName = ("span", "metadata", "k")
        values: list[Json] = [1, 1.0, True, None, "1", [1], {"a": 1}]

        for one, two in itertools.permutations(values, 2):
            expected = max(one, two, key=json_text)
            merged = merge({name: (one, (5, 0))}, {name: (two, (5, 0))})
            assert json_text(merged[name][0]) == json_text(expected)

    def test_a_tag_keeps_its_first_version(self) -> None:
        """A tag that is set again stays where it was in the order of tags."""
        name: FieldName = ("span", "tag", "vip")

        assert merge({name: (True, (9, 1))}, {name: (True, (3, 1))}) == {name: (True, (3, 1))}

    def test_the_levels_are_apart(self) -> None:
        """The same key of a span and of its trace are two fields."""
        span: Fields = {("span", "metadata", "k"): (1, (1, 1))}
        trace: Fields = {("trace", "metadata", "k"): (2, (2, 1))}

        assert merge(span, trace) == {**span, **trace}

    def test_the_latest_version_of_no_fields_is_zero(self) -> None:
        """An empty patch is older than everything."""
        assert latest_version({}) == (0, 0)


class TestJsonText:
    @given(json_values())
    def test_it_reads_back_as_the_same_value(self, value: Json) -> None:
        """The text of a JSON value is that value."""
        assert orjson.loads(json_text(value)) == value

    def test_keys_are_sorted_at_every_depth(self) -> None:
        """Two equal objects have one text, whatever the order of their keys."""
        assert json_text({"b": {"d": 1, "c": 2}, "a": None}) == '{"a":null,"b":{"c":2,"d":1}}'
