"""Exports: what each format holds, and that a file is whole or not there."""

from __future__ import annotations

import csv
import errno
import io
import os
import resource
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.store.contract import END_NS, START_NS, ended_span, metadata, trace_hex

import otel_metadata as om
from otel_metadata.client import export
from otel_metadata.client.client import Spans
from otel_metadata.errors import FileError, FilterError, MissingExtraError, StoreError
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.times import time_text
from otel_metadata.store import table
from otel_metadata.store.sqlite.store import SqliteStore

FORMATS = {"parquet": export.parquet, "jsonl": export.jsonl, "csv": export.csv}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[om.Client]:
    """A client of a store with two spans."""
    (tmp_path / "store").mkdir()
    store = SqliteStore(tmp_path / "store" / "spans.db")
    store.write(
        [
            ended_span(1, fields={**metadata(odd='a,"b"\nc', n=None), ("span", "tag", "vip"): (True, (START_NS, 1))}),
            ended_span(2, start_ns=START_NS + 1, fields={("span", "input", ""): ("", (START_NS, 1))}),
        ]
    )
    store.close()
    with om.Client(f"sqlite:///{tmp_path}/store/spans.db") as client:
        yield client


@pytest.fixture(params=sorted(FORMATS))
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(client: om.Client, format: str, path: Path, **query: Any) -> int:
    count = getattr(client.spans, f"export_to_{format}")(path, **query)
    assert isinstance(count, int)
    return count


def batches(*more: Any) -> Iterator[Any]:
    """Yield one good batch, then raise or yield what is given."""
    store = SqliteStore(":memory:")
    store.write([ended_span()])
    yield from store.export(SpanQuery())
    for one in more:
        if isinstance(one, BaseException):
            raise one
        yield one


class TestFormats:
    def test_json_lines_go_to_an_open_file_too(self, client: om.Client, tmp_path: Path) -> None:
        """The same lines as under a name; the file stays open."""
        write(client, "jsonl", tmp_path / "s.jsonl")
        stream = io.BytesIO(b"before")
        stream.seek(6)

        assert client.spans.export_to_jsonl(stream) == 2

        assert stream.getvalue() == b"before" + (tmp_path / "s.jsonl").read_bytes()

    def test_parquet_has_the_table(self, client: om.Client, tmp_path: Path) -> None:
        """Its schema with our format number, a row a span; the count is returned."""
        assert write(client, "parquet", tmp_path / "s.parquet") == 2

        read = pq.read_table(tmp_path / "s.parquet")
        assert read.schema.equals(table.schema())
        assert read.schema.metadata[b"otel_metadata.format"] == b"1"
        assert read["context.span_id"].to_pylist() == [f"{2:016x}", f"{1:016x}"]
        assert read["start_time"].cast(pa.int64()).to_pylist() == [START_NS + 1, START_NS]

    def test_polars_reads_the_parquet(self, client: om.Client, tmp_path: Path) -> None:
        """Lists, times and JSON texts."""
        write(client, "parquet", tmp_path / "s.parquet")

        row = pl.read_parquet(tmp_path / "s.parquet").row(1, named=True)

        assert (row["tags"], orjson.loads(row["attributes.metadata"])) == (["vip"], {"odd": 'a,"b"\nc', "n": None})

    def test_json_lines_have_json_in_json(self, client: om.Client, tmp_path: Path) -> None:
        """No text of JSON inside; times as text; what a span lacks is left out."""
        assert write(client, "jsonl", tmp_path / "s.jsonl") == 2

        _, line = (tmp_path / "s.jsonl").read_bytes().splitlines()

        assert orjson.loads(line) == {
            "context.trace_id": trace_hex(),
            "context.span_id": f"{1:016x}",
            "name": "work",
            "kind": "INTERNAL",
            "start_time": time_text(START_NS),
            "end_time": time_text(END_NS),
            "latency_ms": 1.0,
            "status_code": "UNSET",
            "attributes.metadata": {"odd": 'a,"b"\nc', "n": None},
            "tags": ["vip"],
            "scope_name": "",
            "otel_metadata.versions": [
                ["span", kind, key, START_NS, f"{1:016x}"]
                for kind, key in (("metadata", "n"), ("metadata", "odd"), ("tag", "vip"))
            ],
            "otel_metadata.routes": ["live", "live", "live"],
        }

    def test_csv_keeps_commas_quotes_and_line_ends(self, client: om.Client, tmp_path: Path) -> None:
        """And tells an empty text from nothing by its quotes."""
        assert write(client, "csv", tmp_path / "s.csv") == 2

        text = (tmp_path / "s.csv").read_text()
        second, first = csv.DictReader(io.StringIO(text, newline=""))
        assert orjson.loads(first["attributes.metadata"])["odd"] == 'a,"b"\nc'
        assert (first["tags"], first["start_time"]) == ('["vip"]', time_text(START_NS))
        assert second["attributes.input.mime_type"] == "text/plain"
        assert ',"","text/plain",,' in text

    @pytest.mark.parametrize(
        "text",
        [
            *("=1+1", "+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "  =1", "'=1", '"=1', "\u00a0=1", "\u200b=1"),
            *("\ufeff=1", "\uff1d1", "\uff20x", '=cmd|"/c x"!A1', "\tx"),
        ],
    )
    def test_csv_has_no_cell_that_a_spreadsheet_would_run(self, tmp_path: Path, text: str) -> None:
        """In every column of texts; JSON Lines has the text as it is."""
        store = SqliteStore(":memory:")
        store.write([ended_span(name=text, attributes={"input.value": text, "user.id": text})])
        spans = Spans(store)

        spans.export_to_csv(tmp_path / "s.csv")
        spans.export_to_jsonl(tmp_path / "s.jsonl")

        (row,) = csv.DictReader(io.StringIO((tmp_path / "s.csv").read_bytes().decode(), newline=""))
        columns = ("name", "attributes.input.value", "attributes.user.id")
        assert [row[column] for column in columns] == [f"'{text}"] * 3
        exact = orjson.loads((tmp_path / "s.jsonl").read_bytes())
        assert [exact[column] for column in columns] == [text] * 3

    @pytest.mark.parametrize("text", ["a=1", "", " ", "a\n=1", "1", "'a'", "[1]", "\u00e9"])
    def test_csv_has_every_other_text_as_it_is(self, tmp_path: Path, text: str) -> None:
        """Most of them."""
        store = SqliteStore(":memory:")
        store.write([ended_span(name=text)])

        Spans(store).export_to_csv(tmp_path / "s.csv")

        (row,) = csv.DictReader(io.StringIO((tmp_path / "s.csv").read_bytes().decode(), newline=""))
        assert row["name"] == text

    def test_a_frame_has_the_columns_of_a_page(self, client: om.Client) -> None:
        """Cell by cell what a page shows."""
        made = client.spans.export_to_df()

        pd.testing.assert_frame_equal(made, client.spans.list(start_time="2000-01-01").to_df())

    def test_no_spans_are_a_file_of_none(self, client: om.Client, format: str, tmp_path: Path) -> None:
        """With all columns, where the format has a place for them."""
        assert write(client, format, tmp_path / "s", project="none") == 0

        if format == "parquet":
            assert pq.read_table(tmp_path / "s").schema.names == list(table.COLUMNS)
        elif format == "csv":
            assert next(csv.reader([(tmp_path / "s").read_text()])) == list(table.COLUMNS)
        else:
            assert (tmp_path / "s").read_bytes() == b""

    def test_row_groups_are_written_as_they_fill(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Memory holds one at most."""
        monkeypatch.setattr(export, "_GROUP_BYTES", 1)

        assert export.export_to_file(batches(*batches(*batches())), tmp_path / "s", export.parquet) == 3

        assert pq.ParquetFile(tmp_path / "s").num_row_groups == 3


class TestSelection:
    def test_window_project_and_filter_hold(self, client: om.Client, format: str, tmp_path: Path) -> None:
        """As for a list, but from the first span unless a start is named."""
        assert write(client, format, tmp_path / "a", filter="'vip' IN tags") == 1
        assert write(client, format, tmp_path / "b", start_time="2023-11-15") == 0
        assert write(client, format, tmp_path / "c", end_time="2023-11-15", project="none") == 0
        assert len(client.spans.export_to_df(filter="'vip' IN tags")) == 1

    def test_a_filter_that_is_not_understood_touches_nothing(
        self, client: om.Client, format: str, tmp_path: Path
    ) -> None:
        """It is told before a file is made."""
        with pytest.raises(FilterError):
            write(client, format, tmp_path / "s", filter="nonsense >")

        assert [one.name for one in tmp_path.iterdir()] == ["store"]


class TestWhole:
    @pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("gone"), RuntimeError("bug")])
    def test_an_export_that_ends_early_leaves_what_was_there(
        self, format: str, tmp_path: Path, error: BaseException
    ) -> None:
        """Nothing of its own, and the older file untouched."""
        (tmp_path / "s").write_text("old")

        with pytest.raises(type(error)):
            export.export_to_file(batches(error), tmp_path / "s", FORMATS[format])

        assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"s": "old"}

    def test_the_name_is_there_only_when_all_is_written(self, format: str, tmp_path: Path) -> None:
        """Beside it meanwhile, in a hidden file of the owner's alone."""
        seen = []

        def watched() -> Iterator[Any]:
            yield from batches()
            seen.extend((one.name, stat.S_IMODE(one.stat().st_mode)) for one in tmp_path.iterdir())

        export.export_to_file(watched(), tmp_path / "s", FORMATS[format])

        ((part, mode),) = seen
        assert part.startswith(".s.")
        assert part.endswith(".part")
        assert mode == 0o600
        assert [one.name for one in tmp_path.iterdir()] == ["s"]

    @pytest.mark.parametrize("is_there", [True, False])
    def test_a_link_is_replaced_and_not_followed(
        self, client: om.Client, format: str, tmp_path: Path, is_there: bool
    ) -> None:
        """Who put it there does not choose what is overwritten."""
        if is_there:
            (tmp_path / "aim").write_text("precious")
        (tmp_path / "s").symlink_to(tmp_path / "aim")

        write(client, format, tmp_path / "s")

        assert not (tmp_path / "s").is_symlink()
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
        assert ((tmp_path / "aim").read_text() if is_there else (tmp_path / "aim").exists()) == (
            is_there and "precious"
        )

    def test_the_part_is_opened_once(self, format: str, tmp_path: Path) -> None:
        """Who may write the directory can put a link in its place: nothing is written where that leads."""
        (tmp_path / "aim").write_text("precious")

        def hostile() -> Iterator[Any]:
            (part,) = tmp_path.glob(".s.*.part")
            part.unlink()
            part.symlink_to(tmp_path / "aim")
            yield from batches()

        export.export_to_file(hostile(), tmp_path / "s", FORMATS[format])

        assert (tmp_path / "aim").read_text() == "precious"

    def test_an_existing_file_is_replaced(self, client: om.Client, format: str, tmp_path: Path) -> None:
        """Whole, however long it was."""
        (tmp_path / "s").write_text("x" * 1_000_000)

        write(client, format, tmp_path / "s")

        assert "xxx" not in (tmp_path / "s").read_bytes().decode(errors="replace")

    @pytest.mark.parametrize("path", ["missing/s", ".", "file/s"])
    def test_a_path_that_cannot_be_written_is_told(
        self, client: om.Client, format: str, tmp_path: Path, path: str
    ) -> None:
        """With the path and what was expected; an OSError as well."""
        (tmp_path / "file").write_text("")

        with pytest.raises(FileError, match="expected a path of a file in a directory that exists") as error:
            write(client, format, tmp_path / path)

        assert isinstance(error.value, OSError)
        assert error.value.path == str(tmp_path / path)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "store"]

    def test_what_is_no_file_is_not_replaced(self, client: om.Client, format: str, tmp_path: Path) -> None:
        """A pipe stays one: a device such as /dev/null would be gone for everybody."""
        os.mkfifo(tmp_path / "pipe")

        with pytest.raises(FileError, match="not a regular file; expected a path of a file"):
            write(client, format, tmp_path / "pipe")

        assert (tmp_path / "pipe").is_fifo()

    def test_a_full_disk_is_told_and_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The bytes may be refused as late as when they are brought to the disk."""

        def refuse(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(export.os, "fsync", refuse)

        with pytest.raises(FileError, match="No space left on device"):
            export.export_to_file(batches(), tmp_path / "s", export.jsonl)

        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_must_not_grow_further_is_told_and_leaves_nothing(self, format: str, tmp_path: Path) -> None:
        """As of a full disk: the system refuses what each format writes on the way."""
        store = SqliteStore(":memory:")
        store.write([ended_span(fields={("span", "input", ""): (secrets.token_hex(1_000_000), (START_NS, 1))})])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        try:
            with pytest.raises(FileError, match="has room"):
                export.export_to_file(store.export(SpanQuery()), tmp_path / "s", FORMATS[format])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert list(tmp_path.iterdir()) == []

    def test_a_missing_package_is_told_before_a_file_is_made(
        self, client: om.Client, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With its extra."""
        monkeypatch.setitem(sys.modules, "pyarrow", None)

        with pytest.raises(MissingExtraError, match=r"otel-metadata\[dataframe\]"):
            write(client, format, tmp_path / "s")

        assert [one.name for one in tmp_path.iterdir()] == ["store"]


class TestProgress:
    def test_a_bar_counts_on_standard_error_when_asked_for(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """And nothing is printed elsewhere."""
        export.export_to_file(batches(), tmp_path / "s", export.jsonl, progress=True)

        out, err = capsys.readouterr()
        assert out == ""
        assert "1 spans" in err

    def test_nothing_is_shown_where_there_is_no_terminal(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A log file is no place for a bar."""
        export.export_to_file(batches(), tmp_path / "s", export.jsonl)

        assert capsys.readouterr() == ("", "")

    def test_without_rich_there_is_no_bar(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It belongs to another extra."""
        monkeypatch.setitem(sys.modules, "rich.console", None)

        assert export.export_to_file(batches(), tmp_path / "s", export.jsonl, progress=True) == 1

        assert capsys.readouterr() == ("", "")


def test_the_page_about_exports_names_every_column() -> None:
    """A user finds what a column holds."""
    page = (Path(__file__).parent.parent.parent / "docs" / "export.md").read_text()

    assert {name for name in table.COLUMNS if f"`{name}`" not in page} == set()
