"""The history of values, and spans as they were at a time, as a program reads them."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.store.contract import START_NS, ended_span, metadata, trace_hex

from otel_metadata.client import Client
from otel_metadata.client.history import field_name, value_to_dict
from otel_metadata.delivery.destination import Destination
from otel_metadata.errors import ConfigurationError, InvalidSpanRefError, SpanNotFoundError, StoreError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.times import time_text
from otel_metadata.store.sqlite.store import SqliteStore

SPAN, UNKNOWN = f"{1:016x}", f"{99:016x}"

_UPDATE = """
import sys
from otel_metadata import Client
url, author, span_id, value = sys.argv[1:]
with Client(url, author=author) as client:
    client.spans.update(span_id, metadata={"thumbs": value})
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return a store with one span, whose `thumbs` was set while it ran."""
    store = SqliteStore(tmp_path / "spans.db")
    store.write([ended_span(1, fields={**metadata(thumbs="up"), **metadata("trace", plan="free")})])
    store.close()
    return f"sqlite:///{tmp_path / 'spans.db'}"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, author="ada") as client:
        yield client


def update_in_another_process(url: str, author: str, value: str) -> None:
    subprocess.run([sys.executable, "-c", _UPDATE, url, author, SPAN, value], check=True, timeout=60)


class TestHistory:
    def test_it_says_when_each_value_came_by_whom_and_what_took_its_place(self, url: str, client: Client) -> None:
        """One value while the span ran, then two of other processes: newest first."""
        update_in_another_process(url, "page:ada", "down")
        update_in_another_process(url, "page:bo", "up")

        newest, middle, oldest = client.spans.history(SPAN, "metadata.thumbs")

        assert [(one.value, one.route, one.author) for one in (newest, middle, oldest)] == [
            ("up", "late", "page:bo"),
            ("down", "late", "page:ada"),
            ("up", "live", None),
        ]
        assert (newest.superseded_by, middle.superseded_by, oldest.superseded_by) == (
            None,
            newest.version,
            middle.version,
        )
        assert newest.time > middle.time > oldest.time
        assert newest.time.tzinfo is dt.timezone.utc

    def test_without_a_field_it_is_that_of_all_fields_of_the_span_and_its_trace(self, client: Client) -> None:
        assert {field_name(one) for one in client.spans.history(SPAN)} == {"metadata.thumbs", "trace.metadata.plan"}

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            ({"metadata": {"a.b": 1}}, "metadata.a.b"),
            ({"metadata": {"user-id": 1}}, 'metadata."user-id"'),
            ({"metadata": {'say "hi"': 1}}, 'metadata."say ""hi"""'),
            ({"metadata": {"not": 1}}, 'metadata."not"'),
            ({"attributes": {"http.route": "/x"}}, "attributes.http.route"),
            ({"tags": ["vip"]}, "tags.vip"),
            ({"status": "error"}, "status_code"),
            ({"status_message": "bad"}, "status_message"),
            ({"name": "n"}, "name"),
            ({"input": 1}, "input"),
            ({"output": {"a": 1}}, "output"),
            ({"user_id": "u"}, "user_id"),
            ({"level": "trace", "session_id": "s"}, "session_id"),
            ({"level": "trace", "metadata": {"a": 1}}, "trace.metadata.a"),
            ({"level": "trace", "tags": ["vip"]}, "trace.tags.vip"),
            ({"level": "trace", "name": "n"}, "trace.name"),
            ({"level": "trace", "input": 1}, "trace.input"),
        ],
    )
    def test_each_field_has_the_name_that_finds_it(self, client: Client, given: dict[str, Any], name: str) -> None:
        """The name that a value is shown with is the one that asks for its field, and for no other."""
        assert client.spans.history(SPAN, name) == []
        client.spans.update(SPAN, **given)
        (record,) = client.spans.history(SPAN, name)
        assert field_name(record) == name

    def test_an_evaluation_and_an_annotation_are_found_by_their_names(self, client: Client) -> None:
        """With their part too, as filters write them; an annotation of any annotator."""
        rows: list[dict[str, object]] = [{"context.span_id": SPAN, "eval.Is it.label": "wrong"}]
        client.spans.update_evaluations(rows)
        for annotator in ("bo", "ada"):
            note = {"annotation.tone.text": "warm", "annotation.tone.annotator": annotator}
            client.spans.update_annotations([{"context.span_id": SPAN, **note}])

        for name in ('eval."Is it"', 'eval."Is it".label'):
            (verdict,) = client.spans.history(SPAN, name)
            assert (field_name(verdict), verdict.value["label"]) == ('eval."Is it"', "wrong")
        notes = client.spans.history(SPAN, "annotation.tone")
        assert [(field_name(one), one.author) for one in notes] == [("annotation.tone", "ada")] * 2

    def test_a_word_alone_is_a_key_of_the_metadata(self, client: Client) -> None:
        """Unless it is the name of something else."""
        client.spans.update(SPAN, metadata={"name": "a key"}, name="a name")
        assert client.spans.history(SPAN, "thumbs") == client.spans.history(SPAN, "metadata.thumbs") != []
        assert [one.value for one in client.spans.history(SPAN, "name")] == ["a name"]
        assert [one.value for one in client.spans.history(SPAN, "metadata.name")] == ["a key"]

    @pytest.mark.parametrize(
        "field",
        ["", " ", "metadata", "tags", "trace", "start_time", "latency_ms", "span_kind", "resource.service.name",
         "a b", "metadata.user-id", "metdata.thumbs", "changed_at.metadata.thumbs", "metadata.thumbs = 'up'",
         "\ud800", 5, b"a"],
    )  # fmt: skip
    def test_what_names_no_field_is_refused(self, client: Client, field: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^field is .*; expected a name such as metadata\.thumbs"):
            client.spans.history(SPAN, field)

    def test_a_span_that_is_not_stored_is_an_error(self, client: Client) -> None:
        with pytest.raises(SpanNotFoundError, match=f"^Span {UNKNOWN} is not in sqlite:"):
            client.spans.history(UNKNOWN)
        with pytest.raises(InvalidSpanRefError):
            client.spans.history("x")

    def test_of_several_traces_with_the_span_the_named_one_is_meant(self, url: str) -> None:
        store = SqliteStore(url.removeprefix("sqlite:///"))
        store.write([ended_span(1, trace_id=6, fields=metadata(of="six"), start_ns=START_NS + 1)])
        store.close()
        with Client(url) as client:
            assert [one.value for one in client.spans.history(SPAN)] == ["six"]
            (thumbs,) = client.spans.history(SPAN, "thumbs", trace_id=trace_hex())
            assert thumbs.value == "up"

    def test_a_value_reads_well(self, client: Client) -> None:
        """In a shell, and as JSON."""
        client.spans.update(SPAN, metadata={"thumbs": "d" * 500})
        newest, oldest = client.spans.history(SPAN, "thumbs")
        assert repr(oldest).startswith('<ValueRecord span metadata thumbs = "up", live, 2023-11-14T22:13:20.')
        assert repr(oldest).endswith("Z, superseded>")
        assert repr(newest).endswith("Z by ada>")
        assert len(repr(newest)) < 200
        shown = value_to_dict(oldest)
        assert (shown["field"], shown["value"], shown["route"], shown["author"]) == (
            "metadata.thumbs",
            "up",
            "live",
            None,
        )
        assert shown["superseded_by"] == {key: value_to_dict(newest)[key] for key in ("time", "writer")}
        assert value_to_dict(newest)["superseded_by"] is None


class TestAt:
    def test_a_span_is_shown_as_it_was(self, url: str, client: Client) -> None:
        """Before and after an update by another process."""
        update_in_another_process(url, "page:ada", "down")
        newest = client.spans.history(SPAN, "thumbs")[0]

        just_before = pd.Timestamp(newest.time_ns - 1, tz="UTC")
        assert client.spans.get(SPAN, at=just_before).metadata == {"thumbs": "up"}
        assert client.spans.get(SPAN, at=pd.Timestamp(newest.time_ns, tz="UTC")).metadata == {"thumbs": "down"}
        assert client.spans.get(SPAN, at=newest.time).metadata == {"thumbs": "down"}
        assert client.spans.get(SPAN, at=time_text(newest.time_ns - 1)).metadata == {"thumbs": "up"}
        assert client.spans.get(SPAN, at="2023-11-15").metadata == {"thumbs": "up"}
        assert client.spans.get(SPAN, at=dt.datetime(2100, 1, 1, tzinfo=dt.timezone.utc)) == client.spans.get(SPAN)

    def test_a_time_with_a_zone_is_that_moment(self, client: Client) -> None:
        """The span starts at 22:13:20 UTC, which is 00:13:20 of the next day two hours further east."""
        east = dt.timezone(dt.timedelta(hours=2))
        assert client.spans.get(SPAN, at=dt.datetime(2023, 11, 15, 0, 13, 21, tzinfo=east)).span_id == SPAN
        assert client.spans.get(SPAN, at="2023-11-15T00:13:21+02:00").span_id == SPAN
        with pytest.raises(ConfigurationError):
            client.spans.get(SPAN, at="2023-11-15T00:13:19+02:00")

    @pytest.mark.parametrize("at", ["yesterday", "", "2023-02-30", "2023-11-14T25:00", 5, 1.5, True, pd.NaT, b"2023"])
    def test_what_is_no_time_is_refused(self, client: Client, at: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^at is .*; expected a datetime, or a text such as 2026-"):
            client.spans.get(SPAN, at=at)

    def test_before_the_span_started_there_is_nothing_to_show(self, client: Client) -> None:
        """The error names the start; a span that is unknown is told apart."""
        expected = r"^at is '2020-01-01'; expected the start of the span, 2023-11-14T22:13:20\.\d{9}Z, or a later time"
        with pytest.raises(ConfigurationError, match=expected):
            client.spans.get(SPAN, at="2020-01-01")
        with pytest.raises(SpanNotFoundError):
            client.spans.get(UNKNOWN, at="2020-01-01")


def test_a_store_without_history_says_so(url: str) -> None:
    """Its current values would be half of the truth."""
    with Client(f"{url}?history=off") as client:
        client.spans.update(SPAN, metadata={"thumbs": "down"})
        assert client.spans.get(SPAN).metadata == {"thumbs": "down"}
        for call in (lambda: client.spans.history(SPAN), lambda: client.spans.get(SPAN, at="2023-11-15")):
            with pytest.raises(StoreError, match=r"\?history=off: .*; expected a store without \?history=off\.$"):
                call()


def test_a_destination_that_takes_updates_only_has_no_history() -> None:
    with Client(Destination("away", None, InMemoryPatchExporter(), spans=False)) as client:
        with pytest.raises(ConfigurationError, match="a destination that keeps its spans in a store"):
            client.spans.history(SPAN)
        with pytest.raises(ConfigurationError, match="a destination that keeps its spans in a store"):
            client.spans.get(SPAN, at="2023-11-15")


class TestTraces:
    @pytest.fixture
    def path(self, url: str) -> str:
        """Add a child to the trace of the store: it starts a second later."""
        store = SqliteStore(url.removeprefix("sqlite:///"))
        parent = ended_span(1).context
        store.write([ended_span(2, start_ns=START_NS + 1_000_000_000, parent=parent, fields=metadata(of="two"))])
        store.close()
        return url

    def test_a_trace_has_its_spans_and_what_was_set_on_it(self, path: str) -> None:
        with Client(path) as client:
            client.spans.update(SPAN, level="trace", tags=["vip"], name="chat", input="?", output=["!"])
            client.spans.update_evaluations([{"context.span_id": SPAN, "trace.eval.Goal.label": "reached"}])
            client.spans.update_annotations([{"context.span_id": SPAN, "trace.annotation.tone.text": "warm"}])
            trace = client.traces.get(trace_hex())

        assert [span.span_id for span in trace] == [SPAN, f"{2:016x}"]
        assert (len(trace), trace[0], trace[1:]) == (2, trace.root, trace.spans[1:])
        assert (trace.trace_id, trace.name, trace.tags) == (trace_hex(), "chat", ("vip",))
        assert (trace.metadata, trace.input, trace.output) == ({"plan": "free"}, "?", ["!"])
        assert (trace.evaluations["Goal"].label, trace.annotations[0].text) == ("reached", "warm")
        assert [span["metadata"] for span in trace.to_dict()["spans"]] == [{"thumbs": "up"}, {"of": "two"}]

    def test_at_a_time_it_has_the_spans_that_had_started(self, path: str) -> None:
        """With the values of that time, on every level; an update by another process came years later."""
        update_in_another_process(path, "page:ada", "down")
        with Client(path) as client:
            client.spans.update(SPAN, level="trace", metadata={"plan": "gold"})
            for at, spans in (("2023-11-14T22:13:20.5Z", 1), ("2023-11-15", 2)):
                then = client.traces.get(trace_hex(), at=at)
                assert (len(then), then.metadata, then[0].metadata) == (spans, {"plan": "free"}, {"thumbs": "up"})
            now = client.traces.get(trace_hex())
            assert (len(now), now.metadata, now[0].metadata) == (2, {"plan": "gold"}, {"thumbs": "down"})

    def test_its_history_is_that_of_the_trace_itself(self, path: str) -> None:
        with Client(path, author="ada") as client:
            client.spans.update(SPAN, level="trace", metadata={"plan": "gold"}, tags=["vip"])
            plans = client.traces.history(trace_hex(), "trace.metadata.plan")
            assert [(one.value, one.author) for one in plans] == [("gold", "ada"), ("free", None)]
            assert {field_name(one) for one in client.traces.history(trace_hex())} == {
                "trace.metadata.plan",
                "trace.tags.vip",
            }
            assert client.traces.history(trace_hex(), "metadata.thumbs") == []

    def test_a_wrong_argument_is_one_clear_error(self, path: str) -> None:
        with Client(path) as client:
            for call in (client.traces.get, client.traces.history):
                with pytest.raises(SpanNotFoundError, match=f"^Trace {'9' * 32} is not in sqlite:"):
                    call("9" * 32)
                with pytest.raises(InvalidSpanRefError):
                    call("x")
            with pytest.raises(ConfigurationError, match=r"^at is 'x'; expected a datetime"):
                client.traces.get(trace_hex(), at="x")
            with pytest.raises(ConfigurationError, match="expected the start of the trace, 2023-11-14T22:13:20"):
                client.traces.get(trace_hex(), at="2020-01-01")
            with pytest.raises(ConfigurationError, match=r"^field is 'tags'"):
                client.traces.history(trace_hex(), "tags")
        with Client(f"{path}?history=off") as client:
            for ask in (client.traces.history, partial(client.traces.get, at="2024-01-01")):
                with pytest.raises(StoreError, match=r"\?history=off: "):
                    ask(trace_hex())
