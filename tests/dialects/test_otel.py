"""The `otel` dialect: what fits on a span, what does not, and that nothing is lost between the two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanContext, SpanKind, Status
from tests.strategies import field_sets, keys, scalars

from otel_metadata.dialects.canonical import (
    AUTHOR,
    AUTHORS_BY_WRITER,
    JSON_NAMES,
    NOT_ATTRIBUTES,
    VERSIONS,
    read,
    spell,
    tags_attribute,
    to_attributes,
    versions,
)
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.exporters.otlp import synthetic_span
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.encoding import Encoded
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Field, FieldName, Fields, Json, Kind, json_text, merge_into
from otel_metadata.model.patch import Patch
from otel_metadata.model.recent import RecentMap
from otel_metadata.model.span_ref import SpanRef

ONCE = (5, 1)


@dataclass
class Span:
    """An ended span, as far as a dialect looks."""

    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = "work"
    kind: SpanKind = SpanKind.INTERNAL
    status: Status = field(default_factory=Status)
    parent: SpanContext | None = None
    end_time: int | None = None


def encode(attributes: dict[str, Any], fields: Fields, *, end_ns: int | None = None, **limits: int | None) -> Encoded:
    return OtelDialect(**{"max_attributes": None, "span_limit": None, **limits}).encode(
        Span(attributes, end_time=end_ns), fields, is_local_root=True
    )


def said(encoded: Encoded) -> dict[FieldName, Json]:
    """Return everything that a reader finds in what leaves: on the span, and in the patch after it."""
    found = {name: value for name, (value, _) in read(encoded.attributes, ONCE)[0].items()}
    found.update({name: value for name, (value, _) in encoded.remainder.items()})
    if encoded.name is not None:
        found["span", "name", ""] = encoded.name
    if encoded.status is not None:
        found["span", "status", ""] = encoded.status[0]
        if encoded.status[1] is not None:
            found["span", "status_message", ""] = encoded.status[1]
    return found


def spans_own() -> st.SearchStrategy[dict[str, Any]]:
    """Attributes of the application, sometimes with tags and JSON names of an earlier round."""
    names = st.integers(0, 40).map("http.attribute.{}".format)
    values = st.sampled_from(["GET", 200, True, ("a", "b")])
    return st.tuples(
        st.dictionaries(names, values, max_size=20),
        st.fixed_dictionaries({}, optional={"tag.tags": st.lists(keys(), max_size=3).map(tuple)}),
    ).map(lambda parts: {**parts[0], **parts[1]})


limits = st.none() | st.integers(0, 12)
ends = st.none() | st.integers(0, 5) | st.just(1_800_000_000_000_000_000)


def name_writers(fields: Fields, authors: str) -> None:
    """Give the writers no name, one name, or each its own."""
    AUTHORS._names = RecentMap(100)
    for _, (_, writer) in fields.values() if authors else ():
        AUTHORS.add(writer, authors if authors == "one" else f"author {writer}")


class TestNothingIsLost:
    @given(spans_own(), field_sets(max_size=12), limits, limits, ends)
    def test_span_and_remainder_say_every_field(
        self, own: dict[str, Any], fields: Fields, ours: int | None, limit: int | None, end_ns: int | None
    ) -> None:
        """Whatever the budget, every field is on the span or in the remainder, with its value."""
        encoded = encode(own, fields, max_attributes=ours, span_limit=limit, end_ns=end_ns)

        found = said(encoded)
        for name, (value, version) in fields.items():
            level, kind, _ = name
            if kind == "attribute" and name not in encoded.remainder:
                expected = to_text(value) if name[2] in encoded.attributes.get(JSON_NAMES, ()) else value  # type: ignore[operator]
                assert json_text(encoded.attributes[name[2]]) == json_text(expected)  # type: ignore[arg-type]
                continue
            if kind in {"user_id", "session_id"} and name not in encoded.remainder:
                # One attribute for both levels: the later of the two, unless it is in the remainder.
                both = [fields[at, kind, ""] for at in ("span", "trace") if (at, kind, "") in fields]
                both = [one for one in both if encoded.remainder.get((level, kind, "")) != one]
                values = [found[at, kind, ""] for at in ("span", "trace") if (at, kind, "") in found]
                assert values
                assert all(one in [field[0] for field in both] for one in values)
                continue
            if kind == "annotation" and value == {"name": value["name"]} if isinstance(value, dict) else False:
                assert name in encoded.remainder  # nothing of it can be said in attributes
            assert json_text([found[name]]) == json_text([value])
            if name in encoded.remainder:
                assert encoded.remainder[name] == (value, version)

    @given(spans_own(), field_sets(max_size=12), limits, limits, ends, st.sampled_from(["", "one", "several"]))
    def test_foreign_attributes_are_never_evicted_or_changed(
        self, own: dict[str, Any], fields: Fields, ours: int | None, limit: int | None, end_ns: int | None, authors: str
    ) -> None:
        """The application's attributes leave as they are, and the span never has more than its limit because of us."""
        name_writers(fields, authors)
        encoded = encode(own, fields, max_attributes=ours, span_limit=limit, end_ns=end_ns)

        foreign = {name: value for name, value in own.items() if name.startswith("http.")}
        assert {name: encoded.attributes.get(name) for name in foreign} == foreign
        assert limit is None or len(encoded.attributes) <= max(limit, len(own))

    @given(spans_own(), field_sets(max_size=12), st.integers(0, 12), ends, st.sampled_from(["", "one", "several"]))
    def test_our_share_is_never_exceeded(
        self, own: dict[str, Any], fields: Fields, ours: int, end_ns: int | None, authors: str
    ) -> None:
        """At most the budget; the list of JSON names, the versions and their authors apart."""
        name_writers(fields, authors)
        encoded = encode(own, fields, max_attributes=ours, end_ns=end_ns)

        beside = {JSON_NAMES, VERSIONS, AUTHOR, AUTHORS_BY_WRITER}
        assert len(encoded.attributes.keys() - own.keys() - beside) <= ours

    @given(spans_own(), field_sets(max_size=12), limits, limits)
    def test_the_span_is_not_changed(
        self, own: dict[str, Any], fields: Fields, ours: int | None, limit: int | None
    ) -> None:
        """A dialect is pure: another destination encodes the same span with the same fields."""
        before = dict(own), dict(fields)

        first = encode(own, fields, max_attributes=ours, span_limit=limit)
        second = encode(own, fields, max_attributes=ours, span_limit=limit)

        assert (own, fields) == before
        assert first == second

    @given(spans_own(), field_sets())
    def test_without_bounds_only_what_cannot_be_said_remains(self, own: dict[str, Any], fields: Fields) -> None:
        """A store's dialect leaves nothing over that an attribute can say."""
        for name, (value, _) in encode(own, fields).remainder.items():
            names = set(spell(name, value))
            # Two annotators of one name cannot both have its attributes; a lone message has no status to go with.
            assert name[1] == "annotation" or name == ("span", "status_message", "")
            assert name[1] != "annotation" or not names or sum(n[1] == "annotation" for n in fields) > 1


def to_text(value: Json) -> str:
    return json_text(value)


class TestBudget:
    def test_the_oldest_fields_stay_on_the_span(self) -> None:
        """What came last is what leaves as a patch."""
        fields: dict[FieldName, Field] = {("span", "metadata", f"k{at}"): (at, (at, 1)) for at in range(5)}

        encoded = encode({}, fields, max_attributes=2)

        assert encoded.attributes == {"metadata.k0": 0, "metadata.k1": 1}
        assert set(encoded.remainder) == {("span", "metadata", f"k{at}") for at in (2, 3, 4)}

    def test_a_value_that_was_set_live_is_replaced_in_place(self) -> None:
        """An attribute that is there already takes no further room, on a full span as well."""
        own = {"a": 1, "b": 2, "metadata.k": "old"}

        encoded = encode(own, {("span", "metadata", "k"): ("new", ONCE)}, span_limit=3)

        assert encoded == Encoded({"a": 1, "b": 2, "metadata.k": "new"})

    def test_a_list_of_json_names_counts(self) -> None:
        """A null needs two places: its own, and one for the list that says it is JSON."""
        fields: Fields = {("span", "metadata", "k"): (None, ONCE)}

        assert encode({"a": 1}, fields, span_limit=2) == Encoded({"a": 1}, remainder=fields)
        assert encode({"a": 1}, fields, span_limit=3) == Encoded(
            {"a": 1, "metadata.k": "null", JSON_NAMES: ["metadata.k"]}
        )

    def test_a_field_that_needs_several_attributes_is_not_split(self) -> None:
        """An evaluation is on the span whole, or not at all."""
        fields: Fields = {("span", "evaluation", "C"): (Evaluation("C", 1.0, "ok").to_json(), ONCE)}

        assert encode({}, fields, max_attributes=2) == Encoded({}, remainder=fields)


class TestSpelling:
    def test_a_span_and_its_fields_become_one_span(self) -> None:
        """The whole of what leaves, for one span with one field of each kind."""
        fields: Fields = {
            ("span", "metadata", "step"): (2, (1, 1)),
            ("span", "metadata", "error"): (None, (2, 1)),
            ("trace", "metadata", "source"): ("api", (3, 1)),
            ("span", "attribute", "http.route"): ("/", (4, 1)),
            ("span", "input", ""): ({"q": "hi"}, (5, 1)),
            ("span", "output", ""): ("HI", (6, 1)),
            ("trace", "user_id", ""): ("u-1", (7, 1)),
            ("span", "tag", "b"): (True, (8, 1)),
            ("span", "tag", "a"): (True, (9, 1)),
            ("trace", "tag", "t"): (True, (9, 1)),
            ("span", "evaluation", "C"): (Evaluation("C", 1.0).to_json(), (10, 1)),
            ("span", "annotation", annotation_key("q", "ann")): (
                Annotation("q", "ok", annotator="ann").to_json(),
                (11, 1),
            ),
            ("span", "name", ""): ("answer", (12, 1)),
            ("span", "status", ""): ("error", (13, 1)),
            ("span", "status_message", ""): ("no", (13, 1)),
        }

        assert encode({"http.route": "/old", "x": 1, "tag.tags": ("z", "a")}, fields) == Encoded(
            {
                "http.route": "/",
                "x": 1,
                "tag.tags": ["z", "a", "b"],
                "metadata.step": 2,
                "metadata.error": "null",
                "trace.metadata.source": "api",
                "input.value": '{"q":"hi"}',
                "input.mime_type": "application/json",
                "output.value": "HI",
                "output.mime_type": "text/plain",
                "user.id": "u-1",
                "trace.tags": ["t"],
                "eval.C.source": "code",
                "eval.C.score": 1.0,
                "annotation.q.label": "ok",
                "annotation.q.annotator": "ann",
                JSON_NAMES: ["metadata.error"],
            },
            name="answer",
            status=("error", "no"),
        )

    @given(st.lists(keys(), max_size=4), st.dictionaries(keys(), st.integers(1, 9), max_size=4))
    def test_tags_are_added_to_those_of_the_span(self, present: list[str], added: dict[str, int]) -> None:
        """First what the span had, then ours in the order in which they were first set, none twice."""
        fields: dict[FieldName, Field] = {("span", "tag", tag): (True, (ns, 1)) for tag, ns in added.items()}

        encoded = encode({"tag.tags": tuple(present)}, fields)

        ours = sorted(added, key=lambda tag: (added[tag], tag))
        assert list(encoded.attributes["tag.tags"]) == (list(dict.fromkeys([*present, *ours])) if added else present)  # type: ignore[arg-type]

    def test_a_single_tag_that_is_no_list_is_kept(self) -> None:
        """An application that set one text as its tags keeps it."""
        assert encode({"tag.tags": "vip"}, {("span", "tag", "a"): (True, ONCE)}).attributes["tag.tags"] == ["vip", "a"]

    def test_a_second_annotator_of_one_name_is_the_remainder(self) -> None:
        """The attributes of one name hold one annotation; the other leaves whole."""
        one: tuple[FieldName, Field] = (
            ("span", "annotation", annotation_key("q", "ann")),
            (Annotation("q", "good", annotator="ann").to_json(), (1, 1)),
        )
        two: tuple[FieldName, Field] = (
            ("span", "annotation", annotation_key("q", "bob")),
            (Annotation("q", text="hm", annotator="bob").to_json(), (2, 1)),
        )

        assert encode({}, dict([one, two])) == Encoded(
            {"annotation.q.label": "good", "annotation.q.annotator": "ann"}, remainder=dict([two])
        )

    def test_what_an_earlier_verdict_left_on_the_span_is_removed(self) -> None:
        """An evaluation is replaced whole, though a live attribute cannot be deleted."""
        live = {"eval.C.source": "llm", "eval.C.explanation": "old", "eval.D.label": "kept"}

        encoded = encode(live, {("span", "evaluation", "C"): ({"source": "code", "score": 1}, ONCE)})

        assert encoded.attributes == {"eval.D.label": "kept", "eval.C.source": "code", "eval.C.score": 1}

    def test_a_name_listed_as_json_is_not_listed_when_it_becomes_native(self) -> None:
        """A null that was set live and then replaced by a number is read as the number."""
        live = {"metadata.k": "null", "other": "{}", JSON_NAMES: ("metadata.k", "other")}

        encoded = encode(live, {("span", "metadata", "k"): (1, ONCE)})

        assert encoded.attributes == {"metadata.k": 1, "other": "{}", JSON_NAMES: ["other"]}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            (("span", "evaluation", "C"), "<masked>"),
            (("span", "annotation", "q"), "<masked>"),
            (("span", "name", ""), None),
            (("span", "status_message", ""), "alone"),
        ],
    )
    def test_what_has_no_spelling_leaves_as_a_patch(self, name: FieldName, value: Json) -> None:
        """A field that no attribute can say is in the remainder, never lost."""
        fields: Fields = {name: (value, ONCE)}

        assert encode({"a": 1}, fields) == Encoded({"a": 1}, remainder=fields)

    @given(scalars())
    def test_no_fields_change_nothing(self, value: Json) -> None:
        """A span without updates leaves as it ended."""
        own = {"a": value, JSON_NAMES: ("a",)}

        assert {name: list(v) if isinstance(v, tuple) else v for name, v in encode(own, {}).attributes.items()} == {
            "a": value,
            JSON_NAMES: ["a"],
        }


END_NS = 1_000
MANY: tuple[Kind, ...] = ("metadata", "input", "output", "user_id", "session_id", "tag", "evaluation")
"""Kinds that are attributes, each field one of its own."""


def as_set_live(fields: Fields) -> dict[str, Any]:
    """Return the attributes that a span shows of fields which were set while it was live."""
    spelled: dict[str, Json] = {}
    for name, (value, _) in sorted(fields.items(), key=lambda item: (item[1][1], item[0])):
        spelled.update(spell(name, value))
    attributes, json_names = to_attributes(spelled)
    for level in ("span", "trace"):
        if tags := tuple(name[2] for name in fields if name[:2] == (level, "tag")):
            attributes[tags_attribute(level)] = tags  # type: ignore[arg-type] # both are levels
    return {**attributes, **({JSON_NAMES: tuple(json_names)} if json_names else {})}


def stands(fields: Fields) -> dict[tuple[object, ...], Json]:
    """Return what a program reads: of user and session the later one of span and trace."""
    ordered = sorted(fields.items(), key=lambda item: (item[1][1], item[0]))
    return {name[1:] if name[1] in {"user_id", "session_id"} else name: value for name, (value, _) in ordered}


class TestVersions:
    @given(st.data(), limits, limits)
    def test_any_order_of_delivery_leads_to_the_latest_values(
        self, data: st.DataObject, ours: int | None, limit: int | None
    ) -> None:
        """A span with what was joined to it, its remainder, and patches with the same or other fields."""
        live = data.draw(field_sets(MANY, max_size=4, version=st.tuples(st.integers(1, END_NS), st.just(7))))
        updates: list[Fields] = [
            data.draw(field_sets(MANY, max_size=3, version=st.just((END_NS + number, 7)))) for number in range(1, 6)
        ]
        ways = [data.draw(st.sampled_from(["joined", "patch", "both"])) for _ in updates]
        joined: dict[FieldName, Field] = dict(live)
        for fields, way in zip(updates, ways, strict=True):
            if way != "patch":
                merge_into(joined, fields)
        encoded = encode(as_set_live(live), joined, end_ns=END_NS, max_attributes=ours, span_limit=limit)
        patches = [encoded.remainder, *(one for one, way in zip(updates, ways, strict=True) if way != "joined")]
        spans = [synthetic_span(Patch(SpanRef(1, 2), fields), Resource({})) for fields in patches if fields]
        arrive = data.draw(st.permutations([encoded.attributes, *(span.attributes or {} for span in spans)]))

        found: dict[FieldName, Field] = {}
        for attributes in arrive:
            merge_into(found, read(attributes, (END_NS, 0))[0])

        expected: dict[FieldName, Field] = dict(live)
        for fields in updates:
            merge_into(expected, fields)
        assert {name: json_text(value) for name, value in stands(found).items()} == {
            name: json_text(value) for name, value in stands(expected).items()
        }

    def test_only_what_was_set_after_the_end_has_a_version(self) -> None:
        """A span with live fields alone is as small as before."""
        fields: Fields = {("span", "metadata", "live"): (1, (END_NS, 9)), ("span", "metadata", "late"): (2, (1_001, 9))}

        assert encode({}, fields, end_ns=END_NS).attributes == {
            "metadata.live": 1,
            "metadata.late": 2,
            VERSIONS: '[["span","metadata","late",1001,"0000000000000009"]]',
        }

    def test_an_author_is_named_beside_the_versions(self) -> None:
        """Nothing else on the span says who the writer of a version is; live fields have no version, and no author."""
        AUTHORS.add(9, "ada")
        live: Fields = {("span", "metadata", "live"): (1, (END_NS, 9))}
        late: Fields = {("span", "metadata", "late"): (2, (1_001, 9))}

        assert AUTHOR not in encode({}, live, end_ns=END_NS).attributes
        assert encode({}, {**live, **late}, end_ns=END_NS).attributes == {
            "metadata.live": 1,
            "metadata.late": 2,
            VERSIONS: '[["span","metadata","late",1001,"0000000000000009"]]',
            AUTHOR: "ada",
        }

    @pytest.mark.parametrize(("limit", "is_named"), [(2, False), (3, True)])
    def test_a_full_span_is_not_made_fuller_by_a_name(self, limit: int, is_named: bool) -> None:
        """The value and its version come first: one attribute too many evicts the application's oldest."""
        AUTHORS.add(9, "ada")
        fields: Fields = {("span", "metadata", "late"): (2, (1_001, 9))}

        encoded = encode({}, fields, span_limit=limit, end_ns=END_NS)

        assert len(encoded.attributes) == limit
        assert (AUTHOR in encoded.attributes, encoded.remainder) == (is_named, {})

    def test_a_name_that_is_set_after_the_end_leaves_no_room_for_an_author(self) -> None:
        """The versions of name and status take the last place."""
        AUTHORS.add(9, "ada")

        encoded = encode({"a": 1}, {("span", "name", ""): ("renamed", (1_001, 9))}, span_limit=2, end_ns=END_NS)

        assert encoded.attributes.keys() == {"a", VERSIONS}

    def test_name_and_status_have_theirs(self) -> None:
        """What is said in the span's own parts has a version beside it all the same."""
        fields: Fields = {("span", "name", ""): ("renamed", (1_001, 9)), ("span", "status", ""): ("ok", (1_002, 9))}

        encoded = encode({}, fields, end_ns=END_NS)

        assert (encoded.name, encoded.status) == ("renamed", ("ok", None))
        assert versions(encoded.attributes) == {name: version for name, (_, version) in fields.items()}

    def test_a_field_whose_version_has_no_room_leaves_as_a_patch(self) -> None:
        """On a full span a late value does not replace a live one without saying when it was set."""
        fields: Fields = {("span", "metadata", "k"): ("new", (1_001, 1)), ("span", "tag", "t"): (True, (1_001, 1))}
        own = {"metadata.k": "old", "tag.tags": ("s",)}

        assert encode(own, fields, end_ns=END_NS, span_limit=2) == Encoded(own, remainder=fields)
        assert not encode(own, fields, end_ns=END_NS, span_limit=3).remainder

    def test_a_late_name_stays_on_a_full_span(self) -> None:
        """A name needs no attribute, so it does not wait for a patch."""
        fields: Fields = {("span", "name", ""): ("renamed", (1_001, 9))}

        assert encode({"a": 1}, fields, end_ns=END_NS, span_limit=1) == Encoded({"a": 1}, name="renamed")


def test_parts_of_the_span_itself_and_tags_are_all_that_is_not_spelled() -> None:
    """The dialect handles apart exactly what has no attribute of its own."""
    assert {("span", "name", ""), ("span", "status", ""), ("span", "status_message", "")} == NOT_ATTRIBUTES
    assert [tags_attribute("span"), tags_attribute("trace")] == ["tag.tags", "trace.tags"]
