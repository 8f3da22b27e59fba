"""The canonical spelling: every kind of field as attributes, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from tests.strategies import KINDS, json_values, named_values, scalars

from otel_metadata.dialects.canonical import (
    JSON_NAMES,
    NOT_ATTRIBUTES,
    VERSIONS,
    is_native,
    native_name,
    read,
    spell,
    spell_nothing,
    spelled_names,
    tags_attribute,
    to_attributes,
    versions,
    versions_text,
)
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import FieldName, Json, Kind, Level, Version, json_text

VERSION: Version = (1_700_000_000_000_000_000, 0)

# value → (as an attribute, whether its name is listed as JSON)
VALUES: list[tuple[Json, object, bool]] = [
    ("text", "text", False),
    ("null", "null", False),
    ("", "", False),
    (0, 0, False),
    (-7, -7, False),
    (0.0, 0.0, False),
    (1.5, 1.5, False),
    (True, True, False),
    (False, False, False),
    ([], [], False),
    (["a", "b"], ["a", "b"], False),
    ([1, 2], [1, 2], False),
    ([1.0, 2.5], [1.0, 2.5], False),
    ([True, False], [True, False], False),
    (None, "null", True),
    ({}, "{}", True),
    ({"b": 1, "a": None}, '{"a":null,"b":1}', True),
    ([1, "a"], '[1,"a"]', True),
    ([1, 2.0], "[1,2.0]", True),
    ([True, 1], "[true,1]", True),
    ([None], "[null]", True),
    ([[1]], "[[1]]", True),
    ([{}], "[{}]", True),
]


def written(name: FieldName, value: Json) -> dict[str, object]:
    """Return the attributes of one field as they stand on a span, the list of JSON names included."""
    if name[1] == "tag":
        return {tags_attribute(name[0]): [name[2]]}
    attributes, json_names = to_attributes(spell(name, value))
    return {**attributes, **({JSON_NAMES: json_names} if json_names else {})}


def read_back(attributes: Mapping[str, object]) -> dict[FieldName, Json]:
    """Return the fields that a span with these attributes has, without their version."""
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("s", attributes=attributes)  # type: ignore[arg-type]
    fields, taken = read(dict(span.attributes), VERSION)  # type: ignore[attr-defined]
    assert {version for _, version in fields.values()} <= {VERSION}
    assert taken == set(attributes)
    return {name: value for name, (value, _) in fields.items()}


class TestTable:
    @pytest.mark.parametrize(
        ("name", "attribute"),
        [
            (("span", "metadata", "k"), "metadata.k"),
            (("span", "metadata", "a.b"), "metadata.a.b"),
            (("trace", "metadata", "k"), "trace.metadata.k"),
            (("trace", "name", ""), "trace.name"),
            (("span", "user_id", ""), "user.id"),
            (("span", "session_id", ""), "session.id"),
        ],
    )
    @pytest.mark.parametrize(("value", "attribute_value", "is_listed"), VALUES)
    def test_a_plain_value_is_one_attribute(
        self, name: FieldName, attribute: str, value: Json, attribute_value: object, is_listed: bool
    ) -> None:
        """Scalars and lists of one scalar type are native, everything else is JSON text and listed; both read back."""
        expected = {attribute: attribute_value, **({JSON_NAMES: [attribute]} if is_listed else {})}

        assert written(name, value) == expected
        found = read_back(expected)
        assert json_text([found[name]]) == json_text([value])
        assert list(found) == [name]

    @pytest.mark.parametrize("kind", ["input", "output"])
    @pytest.mark.parametrize(("level", "prefix"), [("span", ""), ("trace", "trace.")])
    @pytest.mark.parametrize("value", [value for value, _, _ in VALUES], ids=repr)
    def test_input_and_output_say_their_type(self, kind: Kind, level: str, prefix: str, value: Json) -> None:
        """A text is plain text, everything else JSON text, told by the MIME type and not by the list."""
        name: FieldName = (level, kind, "")  # type: ignore[assignment]
        expected = {
            f"{prefix}{kind}.value": value if isinstance(value, str) else json_text(value),
            f"{prefix}{kind}.mime_type": "text/plain" if isinstance(value, str) else "application/json",
        }

        assert written(name, value) == expected
        assert json_text(read_back(expected)[name]) == json_text(value)

    @pytest.mark.parametrize(("level", "prefix"), [("span", ""), ("trace", "trace.")])
    def test_an_evaluation_is_an_attribute_for_each_part(self, level: str, prefix: str) -> None:
        """Parts that were not given are not there; its metadata is JSON text and listed."""
        verdict = Evaluation("Is it right?", 1.0, "correct", None, "llm", {"model": None})
        name: FieldName = (level, "evaluation", "Is it right?")  # type: ignore[assignment]
        expected = {
            f"{prefix}eval.Is it right?.source": "llm",
            f"{prefix}eval.Is it right?.score": 1.0,
            f"{prefix}eval.Is it right?.label": "correct",
            f"{prefix}eval.Is it right?.metadata": '{"model":null}',
            JSON_NAMES: [f"{prefix}eval.Is it right?.metadata"],
        }

        assert written(name, verdict.to_json()) == expected
        assert read_back(expected) == {name: verdict.to_json()}

    @pytest.mark.parametrize(("level", "prefix"), [("span", ""), ("trace", "trace.")])
    def test_an_annotation_is_an_attribute_for_each_part(self, level: str, prefix: str) -> None:
        """Its name is in the attributes' names, its annotator is a part."""
        note = Annotation("a.b", "good", 0, "fine", "ann")
        name: FieldName = (level, "annotation", annotation_key("a.b", "ann"))  # type: ignore[assignment]
        expected = {
            f"{prefix}annotation.a.b.label": "good",
            f"{prefix}annotation.a.b.score": 0,
            f"{prefix}annotation.a.b.text": "fine",
            f"{prefix}annotation.a.b.annotator": "ann",
        }

        assert written(name, note.to_json()) == expected
        assert read_back(expected) == {name: note.to_json()}

    @pytest.mark.parametrize(("level", "attribute"), [("span", "tag.tags"), ("trace", "trace.tags")])
    def test_tags_are_one_list(self, level: str, attribute: str) -> None:
        """The tags of a level share one attribute, each is a field."""
        assert read_back({attribute: ["b", "a"]}) == {(level, "tag", "b"): True, (level, "tag", "a"): True}

    def test_an_attribute_keeps_its_name(self) -> None:
        """A plain attribute is spelled as it is called."""
        assert written(("span", "attribute", "http.route"), "/") == {"http.route": "/"}
        assert written(("span", "attribute", "x"), None) == {"x": "null", JSON_NAMES: ["x"]}

    @pytest.mark.parametrize("name", sorted(NOT_ATTRIBUTES))
    def test_a_part_of_the_span_itself_is_no_attribute(self, name: FieldName) -> None:
        """Name, status and its message are not spelled."""
        assert spell(name, "ok") == {}

    def test_every_kind_is_spelled_or_known_not_to_be(self) -> None:
        """A new kind of field cannot be forgotten here."""
        assert set(KINDS) == set(get_args(Kind))
        samples: dict[Kind, Json] = {"evaluation": {"source": "code"}, "annotation": {"name": "q", "label": "x"}}
        for kind in KINDS:
            is_spelled = bool(spell(("span", kind, "k"), samples.get(kind, "text")))
            assert is_spelled is (kind not in {"tag", "name", "status", "status_message"})


class TestProperties:
    @given(named_values(tuple(kind for kind in KINDS if kind not in {"attribute", "name", "status", "status_message"})))
    def test_a_field_reads_back_as_itself(self, named: tuple[FieldName, Json]) -> None:
        """For every kind that is an attribute, reading what was spelled is the field."""
        name, value = named
        # What has no parts is not there; and these two are spelled alike on both levels, and read as the span's.
        assume(name[1] != "annotation" or written(name, value))
        expected = ("span", *name[1:]) if name[1] in {"user_id", "session_id"} else name

        assert json_text(list(read_back(written(name, value)).items())) == json_text([(expected, value)])

    @given(named_values(tuple(kind for kind in KINDS if kind not in {"name", "status", "status_message"})))
    def test_attributes_that_spell_nothing_are_told_at_once(self, named: tuple[FieldName, Json]) -> None:
        """What is found in attributes beside foreign ones is never overlooked, also if their names are known."""
        foreign = {"http.route": "/", "gen_ai.system": "openai"}
        assert spell_nothing(foreign)
        assert spell_nothing(foreign)

        attributes = {**foreign, **written(*named)}

        assert spell_nothing(attributes) is (read(attributes, VERSION) == ({}, set()))

    @given(json_values())
    def test_a_null_and_the_word_null_are_told_apart(self, value: Json) -> None:
        """Two values that differ are spelled differently."""
        name: FieldName = ("span", "metadata", "k")
        as_text = json_text(value)

        assert written(name, value) != written(name, as_text) or value == as_text

    @given(named_values(), st.data())
    def test_the_names_of_a_field_do_not_depend_on_its_value(
        self, named: tuple[FieldName, Json], data: st.DataObject
    ) -> None:
        """What an earlier value may have left on the span is among the names of the field."""
        name, value = named
        same = [other for other in (data.draw(named_values((name[1],)))[1], value) if isinstance(value, dict)]
        for other in same:
            if name[1] == "annotation" and isinstance(other, dict) and isinstance(value, dict):
                other = {**other, "name": value["name"]}
            if name[1] in {"evaluation", "annotation"}:
                assert set(spell(name, other)) <= spelled_names(name, value)

    @given(scalars() | st.lists(scalars(), max_size=3))
    def test_a_native_value_is_kept_by_the_sdk(self, value: Json) -> None:
        """What is called native comes back from a span as it was set, lists as tuples."""
        assume(is_native(value))
        span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("s")
        span.set_attribute("k", value)  # type: ignore[arg-type]

        kept = span.attributes["k"]  # type: ignore[attr-defined]
        assert json_text(list(kept) if isinstance(kept, tuple) else kept) == json_text(value)

    @given(named_values())
    def test_the_short_way_agrees_with_the_long_one(self, named: tuple[FieldName, Json]) -> None:
        """The hot path's name of a metadata or attribute field is the one it is spelled with."""
        name, value = named

        short = native_name(name)
        assert (short is not None) == (name[1] in {"metadata", "attribute"})
        if short is not None:
            assert spell(name, value) == {short: value}


class TestVersions:
    def test_a_field_has_the_version_that_stands_beside_it(self) -> None:
        """What is not listed is of the span's end."""
        said: Version = (VERSION[0] + 5, 0xFEDC)
        attributes = {"metadata.a": 1, "metadata.b": 2}
        attributes |= {VERSIONS: versions_text({("span", "metadata", "a"): (1, said)})}

        assert read(attributes, VERSION) == (
            {("span", "metadata", "a"): (1, said), ("span", "metadata", "b"): (2, VERSION)},
            set(attributes),
        )

    @given(named_values())
    def test_versions_read_back(self, named: tuple[FieldName, Json]) -> None:
        """Whatever the kind and the key, what was written is what is read."""
        name, value = named

        assert versions({VERSIONS: versions_text({name: (value, (1 << 60, (1 << 64) - 1))})}) == {
            name: (1 << 60, (1 << 64) - 1)
        }

    @pytest.mark.parametrize(
        ("listed", "found"),
        [
            ({"span": 3}, ("span", 3)),
            ({"trace": 3}, ("trace", 3)),
            ({"span": 4, "trace": 3}, ("span", 4)),
            ({"span": 3, "trace": 4}, ("trace", 4)),
            ({}, ("span", 1)),
        ],
    )
    def test_a_user_is_of_the_level_that_was_set_last(self, listed: dict[Level, int], found: tuple[Level, int]) -> None:
        """Span and trace share `user.id`; the list says whose value it has."""
        text = versions_text({(level, "user_id", ""): ("u", (ns, 7)) for level, ns in listed.items()})

        fields, _ = read({"user.id": "u", VERSIONS: text}, (1, 7))

        assert fields == {(found[0], "user_id", ""): ("u", (found[1], 7))}

    @pytest.mark.parametrize(
        "text",
        [
            7,
            "no json",
            "{}",
            "[1]",
            '[["span","metadata","a",1]]',
            '[["span","metadata","a",true,"0000000000000001"]]',
            '[["span","metadata","a",-1,"0000000000000001"]]',
            '[["span","metadata","a",9223372036854775808,"0000000000000001"]]',
            '[["span","metadata","a",18446744073709551616,"0000000000000001"]]',
            '[["span","metadata","a",1,"1"]]',
            '[["span","metadata","a",1,"00000000000000_1"]]',
            '[["span","metadata",[],1,"0000000000000001"]]',
        ],
    )
    def test_what_is_no_list_of_versions_is_not_heard(self, text: object) -> None:
        """Another program's attribute of that name changes nothing."""
        assert read({"metadata.a": 1, VERSIONS: text}, VERSION)[0] == {("span", "metadata", "a"): (1, VERSION)}


class TestForeignAttributes:
    def test_what_is_not_canonical_is_left(self) -> None:
        """Other attributes are neither read nor taken."""
        attributes = {"http.route": "/", "evaluation": 1, "eval.": 1, "eval.x": 1, "eval.x.other": 1, "metadatax": 1}

        assert read(attributes, VERSION) == ({}, set())

    def test_openinference_metadata_is_read(self) -> None:
        """One JSON object as text is the same as its keys one by one."""
        assert read_back({"metadata": '{"a": null, "b": {"c": 1}}'}) == {
            ("span", "metadata", "a"): None,
            ("span", "metadata", "b"): {"c": 1},
        }

    @pytest.mark.parametrize("text", ["", "no json", "[1]", "{", '"\ud800"', "[" * 2_000, "1" * 5_000])
    def test_metadata_that_is_no_object_stays_an_attribute(self, text: str) -> None:
        """What cannot be read is neither lost nor an error."""
        assert read({"metadata": text}, VERSION) == ({}, set())

    def test_json_of_another_program_is_cleaned(self) -> None:
        """What is too deep or too large to be written again is bounded as it is read."""
        text = '{"a":' * 400 + "18446744073709551615" + "}" * 400

        fields, _ = read({"metadata": text, "metadata.x": text, JSON_NAMES: ("metadata.x",)}, VERSION)

        assert set(fields) == {("span", "metadata", "a"), ("span", "metadata", "x")}
        json_text([value for value, _ in fields.values()])

    def test_wrong_types_never_raise(self) -> None:
        """Canonical names with values that no spelling of ours has are read as far as they make sense."""
        attributes: dict[str, object] = {
            "eval.C.source": ("llm", "code"),
            "eval.C.score": "high",
            "eval.C.label": "ok",
            "annotation.q.annotator": 7,
            "tag.tags": "single",
            JSON_NAMES: "metadata.n",
            "metadata.n": "null",
        }

        fields, _ = read(attributes, VERSION)

        assert {name: value for name, (value, _) in fields.items()} == {
            ("span", "evaluation", "C"): {"source": "code", "label": "ok"},
            ("span", "annotation", "q"): {"name": "q"},
            ("span", "tag", "single"): True,
            ("span", "metadata", "n"): None,
        }
