"""What a file carries from one store to another: routes, authors, and the values that were superseded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.contract import END_NS, START_NS, TRACE, ended_span, in_one_store, metadata, trace_hex
from tests.store.contract_history import SPAN, Held, arrivals, arrive, expected, judge, set_at, shown

from otel_metadata.client import export
from otel_metadata.client.imports import import_file
from otel_metadata.model.authors import AUTHORS, MAX_AUTHORS
from otel_metadata.model.patch import Patch
from otel_metadata.model.recent import RecentMap
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import SpanStore, SystemClock, VersionSource
from otel_metadata.store import table

NewStore: TypeAlias = Callable[[], SpanStore]

TARGET = SpanRef(TRACE, 1)
FORMATS = pytest.mark.parametrize("format", [export.parquet, export.jsonl])

_traces = itertools.count(1 << 81)


def forget_authors() -> None:
    """Know no more names than a new process does."""
    AUTHORS._names = RecentMap(MAX_AUTHORS)


def written(store: SpanStore, path: Path, format: export.Format, trace_id: int = TRACE) -> Path:
    query = SpanQuery(trace_hex(trace_id), limit=None)
    export.export_to_file(store.export(query), path, format)
    return path


def authors(store: SpanStore, trace_id: int) -> dict[int, str | None]:
    return {one.writer: one.author for one in store.history(trace_hex(trace_id), SPAN)}


def write_two_spans(store: SpanStore, come: Iterable[Any], trace_id: int = TRACE) -> None:
    """Write two spans of one trace, and what came."""
    store.write([ended_span(1, trace_id=trace_id), ended_span(2, trace_id=trace_id)])
    for one in come:
        arrive(store, trace_id, [one])


class TransferLaw:
    """The laws; a subclass gives the fixture `new_store`, whose stores may have other traces."""

    @FORMATS
    @in_one_store
    @given(data=st.data())
    def test_an_import_is_the_union_of_both_stores(
        self, new_store: NewStore, tmp_path: Path, format: export.Format, data: st.DataObject
    ) -> None:
        """Into an empty store or into one that has some of it; a second time changes nothing."""
        come = data.draw(st.lists(arrivals(), min_size=1, max_size=6), label="exported")
        there = data.draw(st.lists(arrivals() | st.sampled_from(come), max_size=4), label="there already")
        held: Held = {}
        for one in itertools.chain(come, there):
            judge(held, one)
        trace_id, first, second = next(_traces), new_store(), new_store()
        write_two_spans(first, come, trace_id)
        write_two_spans(second, there, trace_id)
        path = written(first, tmp_path / "s", format, trace_id)

        for _ in range(2):
            assert import_file(second, path).spans_imported == 2
            assert shown(second.history(trace_hex(trace_id), SPAN)) == expected(held)

    @FORMATS
    @in_one_store
    @given(come=st.lists(arrivals(), min_size=1, max_size=6), named=st.sets(st.integers(1, 3)))
    def test_an_export_of_the_import_is_the_same_file(
        self, new_store: NewStore, tmp_path: Path, format: export.Format, come: list[Any], named: set[int]
    ) -> None:
        """With the names of the authors, which a new process does not know."""
        forget_authors()
        for writer in named:
            AUTHORS.add(writer, f"author {writer}")
        trace_id, first, second = next(_traces), new_store(), new_store()
        write_two_spans(first, come, trace_id)
        path = written(first, tmp_path / "s", format, trace_id)
        forget_authors()

        import_file(second, path)

        assert authors(second, trace_id) == authors(first, trace_id)
        assert written(second, tmp_path / "again", format, trace_id).read_bytes() == path.read_bytes()


class TransferContract:
    """The tests; a subclass gives the fixture `new_store`, whose stores are empty."""

    @FORMATS
    def test_routes_authors_and_history_come_along(
        self, new_store: NewStore, tmp_path: Path, format: export.Format
    ) -> None:
        """Of the span and of its trace, of values of now and of earlier ones."""
        AUTHORS.add(1, "shop")
        AUTHORS.add(7, "page:ada")
        first, second = new_store(), new_store()
        first.write([ended_span(1, fields={**set_at(START_NS, "up"), ("trace", "user_id", ""): ("u", (START_NS, 1))})])
        first.patch([Patch(TARGET, {**set_at(END_NS + 9, "down", 7), ("trace", "user_id", ""): ("v", (END_NS, 7))})])
        path = written(first, tmp_path / "s", format)
        forget_authors()

        import_file(second, path)

        found = [(one.key, one.value, one.route, one.author) for one in second.history(trace_hex(), SPAN)]
        assert found == [
            ("thumbs", "down", "late", "page:ada"),
            ("", "v", "late", "page:ada"),
            ("", "u", "live", "shop"),
            ("thumbs", "up", "live", "shop"),
        ]
        assert second.history(trace_hex(), SPAN) == first.history(trace_hex(), SPAN)

    @FORMATS
    def test_a_history_that_lost_its_oldest_values_says_so_after_an_import(
        self, new_store: NewStore, tmp_path: Path, format: export.Format
    ) -> None:
        """A reader sees the same on both sides."""
        first, second = new_store(), new_store()
        first.write([ended_span(1)])
        first.patch([Patch(TARGET, set_at(at, at)) for at in range(1, 150)])

        import_file(second, written(first, tmp_path / "s", format))

        assert second.history(trace_hex(), SPAN) == first.history(trace_hex(), SPAN)
        assert [one.is_oldest_kept for one in second.history(trace_hex(), SPAN)] == [False] * 100 + [True]

    @FORMATS
    @pytest.mark.parametrize("dropped", [{table.ROUTES, table.AUTHORS, table.HISTORY}, {table.ROUTES}], ids=len)
    def test_an_older_export_is_read(
        self, new_store: NewStore, tmp_path: Path, format: export.Format, dropped: set[str]
    ) -> None:
        """It has no columns for these: its values came by an import, and nobody says whose they are."""
        first, second = new_store(), new_store()
        first.write([ended_span(1, fields=metadata(thumbs="up"))])
        first.patch([Patch(TARGET, set_at(END_NS, "down", 7))])
        path = written(first, tmp_path / "s", format)
        if format is export.parquet:
            pq.write_table(pq.read_table(path).drop_columns(list(dropped)), path)
        else:
            row = orjson.loads(path.read_bytes())
            path.write_bytes(orjson.dumps({name: value for name, value in row.items() if name not in dropped}))

        assert import_file(second, path).spans_imported == 1

        assert [(one.value, one.route) for one in second.history(trace_hex(), SPAN) if one.is_current] == [
            ("down", "import")
        ]

    @FORMATS
    def test_what_was_deleted_does_not_come_back_by_an_import(
        self, new_store: NewStore, tmp_path: Path, format: export.Format
    ) -> None:
        """Neither the values nor their history; a value that is newer than the deletion does."""
        versions = VersionSource(SystemClock())
        (before, writer), deletion = versions.next(), versions.next()
        store, other = new_store(), new_store()
        write_two_spans(store, [("late", set_at(before, "up", writer)), ("late", set_at(before - 1, "older", writer))])
        old = written(store, tmp_path / "old", format)

        store.delete([(trace_hex(), SPAN), (trace_hex(), f"{2:016x}")], deletion)
        import_file(store, old)
        assert store.query(SpanQuery()) == []
        assert store.history(trace_hex(), SPAN) == []

        write_two_spans(
            other, [("late", set_at(before, "up", writer)), ("late", set_at(deletion[0] + 1, "new", writer))]
        )
        import_file(store, written(other, tmp_path / "new", format))
        assert [one.value for one in store.history(trace_hex(), SPAN)] == ["new"]

    def test_the_history_of_a_trace_is_with_one_of_its_spans(self, new_store: NewStore) -> None:
        """Ten thousand spans would repeat it ten thousand times."""
        store = new_store()
        write_two_spans(store, [("late", set_at(at, at, name=("trace", "metadata", "thumbs"))) for at in (1, 2)])

        (batch,) = store.export(SpanQuery())

        assert [one is not None for one in batch[table.HISTORY].to_pylist()] == [True, False]
