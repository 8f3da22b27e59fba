"""Rows of ClickHouse lose nothing, and its greatest text is the field that stands; without an engine."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.contract import END_NS, START_NS
from tests.strategies import json_values, keys, versions

from otel_metadata.client import Client
from otel_metadata.destination_factory import open_store
from otel_metadata.errors import ConfigurationError, StoreError
from otel_metadata.model.merge import Json, Version, json_text, merge
from otel_metadata.model.record import StoredSpan
from otel_metadata.store.clickhouse.client import Address
from otel_metadata.store.clickhouse.rows import (
    EXACT,
    ROW,
    decode_field,
    encode_field,
    encode_map,
    read_columns,
    read_map,
    row_of,
    span_of,
    typed,
)
from otel_metadata.store.clickhouse.schema import SPAN_COLUMNS, create_statements

DOCS = Path(__file__).parents[3] / "docs" / "clickhouse.md"

# Names that are read in a special way are among them.
names = st.sampled_from(["metadata", "user.id", "eval.a.label", "eval.a.score", "service.name", EXACT, ROW]) | keys()
values = json_values() | st.sampled_from(["-0", "1e5", "1.50", "00", "1e999", "9223372036854775808", "[1,", "[NaN]"])
objects = st.dictionaries(names, values, max_size=5)


class TestFields:
    @given(
        kind=st.sampled_from(["metadata", "tag"]),
        first=st.tuples(json_values(), versions()),
        second=st.tuples(json_values(), versions()),
    )
    def test_the_greatest_text_is_the_field_that_stands(
        self, kind: Any, first: tuple[Json, Version], second: tuple[Json, Version]
    ) -> None:
        """What `max` of ClickHouse, which compares bytes, makes of two fields is what the pure merge makes of them."""
        name = ("span", kind, "k")
        ((stands, version),) = merge({name: first}, {name: second}).values()  # type: ignore[dict-item]

        greatest = max((encode_field(kind, *one) for one in (first, second)), key=str.encode)

        found, found_version = decode_field(kind, greatest)
        assert (json_text(found), found_version) == (json_text(stands), version)


class TestMaps:
    @given(attributes=objects)
    def test_what_is_written_is_read_exactly(self, attributes: dict[str, Json]) -> None:
        """Of any JSON value under any name, though each is one text there."""
        texts = encode_map(attributes)

        assert all(isinstance(text, str) for text in texts.values())
        assert json_text(read_map(texts)) == json_text(attributes)

    @given(
        attributes=st.dictionaries(
            keys().map("app.".__add__), st.sampled_from([1, -5, True, "word", 1.25, ["a"]]), max_size=4
        )
    )
    def test_what_text_says_exactly_is_there_once(self, attributes: dict[str, Json]) -> None:
        """The common case is as a Collector writes it, with nothing beside it."""
        assert EXACT not in encode_map(attributes)

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("5", 5),
            ("-5", -5),
            ("0.5", 0.5),
            ("1e+21", 1e21),
            ("1e-7", 1e-7),
            ("9223372036854775807", (1 << 63) - 1),
            ("9223372036854775808", "9223372036854775808"),
            ("1e999", "1e999"),
            ("1.10", "1.10"),
            ("1.0", "1.0"),
            ("007", "007"),
            ("+5", "+5"),
            ("5 ", "5 "),
            ("5\n", "5\n"),
            ("\u0665", "\u0665"),
            ("true", True),
            ("false", False),
            ("True", "True"),
            ("null", "null"),
            ("", ""),
            ('["a",1]', ["a", 1]),
            ("[a]", "[a]"),
            ('{"a":1}', '{"a":1}'),
        ],
    )
    def test_a_text_is_read_as_what_a_collector_wrote_it_for(self, text: str, value: Json) -> None:
        """Numbers in the Collector's form, its two bools, its lists; the rest is text."""
        assert json_text(typed("a", text)) == json_text(value)

    @pytest.mark.parametrize(
        "name",
        ["user.id", "session.id", "input.value", "trace.output.value", "service.name", "eval.a.b.label", "metadata"],
    )
    def test_what_has_to_be_text_stays_text(self, name: str) -> None:
        """A user called 5 is no number."""
        assert typed(name, "5") == "5"

    def test_a_score_is_a_number(self) -> None:
        """It is the one part of a verdict that is."""
        assert typed("eval.a.score", "5") == 5

    def test_an_exact_object_of_somebody_else_does_no_harm(self) -> None:
        """A Collector wrote an attribute of this name that is no JSON, or no object."""
        assert read_map({EXACT: "no JSON", "a": "1"}) == {"a": 1}
        assert read_map({EXACT: "[1]", "a": "1"}) == {"a": 1}


class TestSpans:
    @given(
        attributes=objects,
        resource=objects,
        inner=objects,
        duration_ns=st.integers(-5, 1 << 40),
        parent=st.sampled_from([None, f"{1:016x}"]),
        message=st.sampled_from([None, "no"]),
    )
    def test_a_span_comes_back_whole(
        self, attributes: Any, resource: Any, inner: Any, duration_ns: int, parent: str | None, message: str | None
    ) -> None:
        """Everything of it, also where a clock went back while it ran."""
        span = StoredSpan(
            trace_id=f"{1:032x}",
            span_id=f"{2:016x}",
            parent_id=parent,
            trace_state="k=v",
            name="n",
            kind="CLIENT",
            start_ns=START_NS,
            end_ns=START_NS + duration_ns,
            status_code="ERROR",
            status_message=message,
            attributes=attributes,
            events=({"name": "e", "time_ns": END_NS, "attributes": inner},),
            links=({"trace_id": f"{3:032x}", "span_id": f"{4:016x}", "attributes": inner},),
            resource=resource,
            scope_name="s",
            scope_version=parent,
        )

        found, fields, written = span_of(row_of(span, (START_NS, 255)))

        assert (fields, written) == ({}, f"{START_NS:016x}{255:016x}")
        assert repr(found) == repr(span) or found == span
        for mine, theirs in ((found.attributes, attributes), (found.resource, resource)):
            assert json_text(dict(mine)) == json_text(theirs)

    def test_what_is_read_is_in_the_order_of_what_is_written(self) -> None:
        """One list of columns for both ways."""
        asked = [one.rsplit(" AS ", 1)[1].strip("`").removesuffix("_") for one in read_columns("t").split("`, ")]
        assert [one.strip("`").removesuffix("_") for one in asked] == [one.replace(".", "_") for one in SPAN_COLUMNS]


class TestTables:
    def test_the_page_has_the_sql_that_makes_the_tables(self) -> None:
        """Whoever may not create tables gives it to somebody who may."""
        page = DOCS.read_text()

        assert [one for one in create_statements().values() if f"{one};" not in page] == []

    def test_on_a_cluster_every_replica_makes_replicated_tables(self) -> None:
        """The same columns and order; only the first line and the engine differ. Not run: there is no cluster here."""
        plain, of_cluster = create_statements(), create_statements(cluster="main")
        view = plain.pop("otel_metadata_history_view")

        assert of_cluster.pop("otel_metadata_history_view") == view.replace("` TO", "` ON CLUSTER `main` TO")
        for one, other in zip(plain.values(), of_cluster.values(), strict=True):
            changed = [
                (before, after)
                for before, after in zip(one.splitlines(), other.splitlines(), strict=True)
                if before != after
            ]
            (name, on_cluster), (engine, replicated) = changed
            assert on_cluster == name.replace("` (", "` ON CLUSTER `main` (")
            assert replicated == engine.replace("ENGINE = ", "ENGINE = Replicated")


def test_retain_says_that_clickhouse_deletes_old_rows_itself() -> None:
    """Nothing is asked of the server."""
    told = r"localhost:1/db: retain deletes from an SQLite store only; expected a TTL on the tables"
    with Client("clickhouse://localhost:1/db") as client, pytest.raises(StoreError, match=told):
        client.spans.retain(older_than=dt.timedelta(days=30))


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("clickhouse://h", ("h", 8123, "default", "default", "", False, None, "otel_traces", True)),
            ("clickhouses://h/otel", ("h", 8443, "otel", "default", "", True, None, "otel_traces", True)),
            (
                "clickhouse://me:p%40ss%2F@h:9000/otel?cluster=main&secure=true&table=spans&history=off",
                ("h", 9000, "otel", "me", "p@ss/", True, "main", "spans", False),
            ),
            ("clickhouse://[::1]/x?history=on", ("::1", 8123, "x", "default", "", False, None, "otel_traces", True)),
        ],
    )
    def test_a_url_says_where_and_how(self, url: str, expected: tuple[Any, ...]) -> None:
        """Port, database and user have defaults; what is percent-encoded is decoded."""
        assert tuple(Address.from_url(url)) == expected

    @pytest.mark.parametrize(
        "url",
        [
            "clickhouse://",
            "clickhouse:///database",
            "clickhouse://me:secret@h:port/x",
            "clickhouse://me:secret@h/x?compress=1",
            "clickhouse://me:secret@h/x;DROP",
            "clickhouse://me:secret@h/x?table=a%60b",
            "clickhouse://me:secret@h/x?cluster=a b",
            "clickhouse://me:secret@h/x?secure=perhaps",
            "clickhouse://me:secret@h/x?history=no",
            "clickhouse://me:secret@h/x?history",
            "clickhouse://me:secret@h/x#part",
        ],
    )
    def test_another_form_is_an_error_without_the_password(self, url: str) -> None:
        """A misspelt option is one too; a name that would change the SQL is no name."""
        with pytest.raises(ConfigurationError) as raised:
            Address.from_url(url)

        assert "secret" not in f"{raised.value}"

    def test_it_is_shown_without_user_and_password(self) -> None:
        """In messages, in logs, and inside the text of whatever holds it."""
        url = "clickhouse://me:secret@h/otel"

        shown = f"{Address.from_url(url)} {Address.from_url(url)!r} {open_store(url)!r}"

        assert shown == "clickhouse://h:8123/otel clickhouse://h:8123/otel <ClickHouseStore clickhouse://h:8123/otel>"
