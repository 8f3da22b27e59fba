"""`history`, `traces` and `show --at` in a shell, on stores that several processes have written."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import Status, StatusCode
from rich.cells import cell_len
from tests.cli.test_spans import call, lines, rows
from tests.store.contract import END_NS, START_NS, ended_span, metadata, trace_hex

from otel_metadata.model.merge import Fields
from otel_metadata.store.sqlite.store import SqliteStore

MAIN = [sys.executable, "-c", "from otel_metadata.cli import main; main()"]

TRACE = trace_hex(5)
ROOT, CHILD = f"{1:016x}", f"{2:016x}"

HOUR = 3_600_000_000_000


def at_ns(ns: int, value: object, writer: int = 7) -> Fields:
    return {("span", "metadata", "thumbs"): (value, (ns, writer))}  # type: ignore[dict-item] # any JSON value


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return a store: a trace of a root and a child with an error, and an earlier trace without a root."""
    path = tmp_path / "spans.db"
    elsewhere = ended_span(0xABC, trace_id=6).context
    with closing(SqliteStore(path)) as store:
        store.write(
            [
                ended_span(
                    1,
                    trace_id=5,
                    name="answer",
                    fields={**metadata(step=2), **at_ns(END_NS + 1_200_000, "up"), **metadata("trace", plan="free")},
                    resource=Resource({"service.name": "shop"}),
                ),
                ended_span(
                    2,
                    trace_id=5,
                    name="retrieve",
                    start_ns=START_NS + 500_000,
                    parent=ended_span(1, trace_id=5).context,
                    status=Status(StatusCode.ERROR),
                ),
                ended_span(9, trace_id=6, name="elsewhere", start_ns=START_NS - 1, parent=elsewhere),
            ]
        )
        late = at_ns(END_NS + 2 * HOUR + 14 * HOUR // 60, "down", 8)
        store.patch_rows([(TRACE, ROOT, late)])
    monkeypatch.setenv("OTEL_PYTHON_METADATA_DESTINATIONS", f"sqlite:///{path}")
    return path


def in_another_process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, *words], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=True
    )


class TestHistory:
    def test_each_value_is_a_row_with_its_moment(self, path):
        """Glyph and word, the time from the end of the span, the author, the value, what it replaced."""
        assert lines("history", ROOT, "thumbs", columns=80) == [
            f"span {ROOT} answer, ended 2023-11-14 22:13:20 UTC",
            "arrived        after end  author  metadata.thumbs",
            "─" * 50,
            '○ late       +2 h 14 min  -       "down", was "up"',
            '◐ in flight      +1.2 ms  -       "up"',
        ]

    def test_without_a_key_each_value_is_named(self, path):
        assert lines("history", ROOT, columns=80)[3:] == [
            '○ late       +2 h 14 min  -       metadata.thumbs = "down", was "up"',
            '◐ in flight      +1.2 ms  -       metadata.thumbs = "up"',
            '● live           -1.0 ms  -       trace.metadata.plan = "free"',
            "● live           -1.0 ms  -       metadata.step = 2",
        ]

    def test_an_update_by_another_process_has_its_author(self, path):
        """Two shells, one after the other."""
        in_another_process("patch", ROOT, "-m", "thumbs=left", "--author", "page:ada")
        in_another_process("patch", ROOT, "-m", "thumbs=right", OTEL_PYTHON_METADATA_AUTHOR="bo")
        newest, before = lines("history", ROOT, "metadata.thumbs", columns=80)[3:5]
        assert re.fullmatch(r'○ late +\+[\d,]+ d \d+ h +bo +"right", was "left"', newest)
        assert re.fullmatch(r'○ late +\+[\d,]+ d \d+ h +page:ada +"left", was "down"', before)

    def test_verdicts_and_tags_read_as_elsewhere(self, path):
        """Label, score, explanation and who judged; a tag that was set twice."""
        for label in ("wrong", "right"):
            call("score", ROOT, "Is it", "--label", label, "--score", 1, "--explanation", "so", "--source", "human")
        call("annotate", ROOT, "tone", "--text", "warm", "--annotator", "bo")
        for _ in range(2):
            call("patch", ROOT, "--tag", "vip")
        shown = "\n".join(lines("history", ROOT, columns=200))
        assert 'eval."Is it" = right, 1.0: so by human, was wrong, 1.0: so by human' in shown
        assert "annotation.tone = warm by bo" in shown
        assert re.search(r"tags\.vip, set again\n.*tags\.vip$", shown, re.MULTILINE)

    def test_each_route_has_its_mark(self, path):
        """An import, a log, and a value that was stored before routes were kept."""
        with closing(SqliteStore(path)) as store:
            store.patch_rows([(TRACE, ROOT, metadata(imported=1))], route="import")
            store.patch_rows([(TRACE, ROOT, metadata(logged=1))], route="log")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE fields SET route = 5 WHERE key = 'step'")
            connection.commit()
        marks = {line.split()[-3]: line.split("  ")[0] for line in lines("history", ROOT, columns=100)[3:]}
        assert {key: marks[f"metadata.{key}"] for key in ("imported", "logged", "step")} == {
            "imported": "◇ import",
            "logged": "◇ log",
            "step": "? unknown",
        }

    def test_dropped_values_are_told(self, path):
        """A field that had too many values."""
        with closing(SqliteStore(path)) as store:
            store.patch_rows([(TRACE, ROOT, at_ns(END_NS + n, n)) for n in range(150)])
        shown = lines("history", ROOT, "thumbs", columns=80)[3:]
        assert len(shown) == 101
        assert [line for line in shown if "dropped" in line] == shown[-1:]

    def test_a_wide_terminal_shows_the_time_too(self, path):
        row = lines("history", ROOT, "thumbs", columns=120)[4]
        assert re.fullmatch(r'◐ in flight  2023-11-14 22:13:20\.125 +\+1\.2 ms  - +"up"', row)

    @pytest.mark.parametrize("columns", [40, 80, 120])
    def test_long_and_evil_values_stay_in_their_columns(self, path, columns):
        """Nothing is wider than the terminal; escapes of a terminal are shown, not obeyed."""
        evil = "\x1b[2J\u202e[red]" + "x" * 500
        call("patch", ROOT, "-m", f"{evil[:20]}={evil}", "--name", evil, "--author", "a" * 100)
        code, output, _ = call("history", ROOT, "--no-json", columns=columns)
        assert code == 0
        assert max(cell_len(line) for line in output.splitlines()) <= columns
        assert "[red]" in output.replace("\n", "")
        assert not re.search("[\x1b\u202e]", output)

    def test_a_terminal_without_glyphs_has_the_words(self, path):
        shown = in_another_process("history", ROOT, "thumbs", "--no-json", PYTHONIOENCODING="ascii").stdout
        assert "in flight" in shown
        assert "\\u" not in shown
        assert shown.isascii()

    def test_piped_each_value_is_a_json_object(self, path):
        newest, oldest = rows("history", ROOT, "thumbs")
        assert newest == {
            "trace_id": TRACE,
            "span_id": ROOT,
            "field": "metadata.thumbs",
            "level": "span",
            "kind": "metadata",
            "key": "thumbs",
            "value": "down",
            "time": "2023-11-15T00:27:20.124456789Z",
            "route": "late",
            "author": None,
            "writer": f"{8:016x}",
            "superseded_by": None,
            "is_oldest_kept": False,
        }
        assert oldest["superseded_by"] == {"time": newest["time"], "writer": newest["writer"]}

    def test_of_a_trace_id_it_is_the_history_of_the_trace(self, path):
        call("patch", TRACE, "-m", "plan=gold", "--author", "ada")
        title, _, _, newest, oldest = lines("history", TRACE, columns=80)
        assert title == f"trace {TRACE}, ended 2023-11-14 22:13:20 UTC"
        assert newest.endswith('ada     "gold", was "free"')
        assert re.fullmatch('● live +-1.5 ms  -       "free"', oldest)  # of the end of its last span
        assert [(one["span_id"], one["value"]) for one in rows("history", TRACE)] == [(None, "gold"), (None, "free")]

    def test_what_was_never_set_is_told(self, path):
        """With the names that have a history; as JSON, there is nothing."""
        code, output, error = call("history", ROOT, "nope", "--no-json")
        assert (code, output) == (0, "")
        assert error == (
            f"otel-metadata: nope was not set on span {ROOT} answer; set were: metadata.thumbs, trace.metadata.plan, "
            "metadata.step.\n"
        )
        error = call("history", TRACE, "metadata.step", "--no-json")[2]
        assert error == f"otel-metadata: metadata.step was not set on trace {TRACE}; set were: trace.metadata.plan.\n"
        assert rows("history", ROOT, "nope") == []
        assert call("history", f"{9:016x}", "--no-json")[2].endswith(
            "nothing was set on span 0000000000000009 elsewhere.\n"
        )


class TestShow:
    def test_without_an_id_it_is_the_newest_trace(self, path):
        """The one whose root is the newest; where no root is stored, that of the newest span."""
        assert lines("show")[0] == f"trace {TRACE}"
        assert {one["trace_id"] for one in rows("show")} == {TRACE}
        call("delete", ROOT, "--yes")
        call("delete", CHILD, "--yes")
        assert lines("show")[0] == f"trace {trace_hex(6)}"
        call("delete", f"{9:016x}", "--yes")
        assert call("show", "--no-json")[2].startswith("otel-metadata: no span is stored here; expected")

    def test_at_a_time_it_is_as_it_was(self, path):
        """Values of then, spans that had started; JSON likewise."""
        shown = lines("show", TRACE, "--at", "2023-11-14T23:00:00Z")
        assert shown[0] == "as it was at 2023-11-14T23:00:00Z"
        assert '    ├── metadata step=2 thumbs="up"' in shown
        (early,) = rows("show", TRACE, "--at", "2023-11-14T22:13:20.1235Z")
        assert (early["span_id"], early["metadata"]) == (ROOT, {"step": 2})
        (span,) = rows("show", ROOT, "--at", "2023-11-15T00:00:00Z")
        assert span["metadata"] == {"step": 2, "thumbs": "up"}
        assert lines("show", "--at", "1min")[1] == f"trace {TRACE}"

    def test_a_store_without_history_says_so(self, path):
        for words in (("history", ROOT), ("show", ROOT, "--at", "2023-11-15")):
            code, output, error = call(*words, "--store", f"sqlite:///{path}?history=off")
            assert (code, output) == (1, "")
            assert re.fullmatch(
                r"otel-metadata: .*\?history=off: .*; expected a store without \?history=off\.\n", error
            )


class TestTraces:
    def test_a_trace_is_a_row(self, path):
        """Its id whole, to be copied; the one without a root is not listed."""
        assert lines("traces", "--since", "2000-01-01", columns=80) == [
            "1 trace, 2023-11-14, times in UTC",
            "start     name    latency  spans  errors  late  trace id",
            "─" * 80,
            f"22:13:20  answer   1.0 ms      2       1     1  {TRACE}",
        ]

    def test_without_late_values_there_is_no_column_of_them(self, path, tmp_path):
        with closing(SqliteStore(tmp_path / "other.db")) as store:
            store.write([ended_span(1)])
        shown = lines("traces", "--since", "2000-01-01", "--store", f"sqlite:///{tmp_path / 'other.db'}", columns=80)
        assert shown[1] == "start     name  latency  spans  errors  trace id"

    def test_traces_of_several_days_leave_room_for_names(self, path):
        """Ids are whole, names are cut, and no line is broken."""
        with closing(SqliteStore(path)) as store:
            store.write([ended_span(3, trace_id=7, start_ns=START_NS + 48 * HOUR, name="summarize")])
        assert lines("traces", "--since", "2000-01-01", columns=80)[3:] == [
            f"11-16 22:13 summarize  1.0 ms     1      0    0 {trace_hex(7)}",
            f"11-14 22:13 answer     1.0 ms     2      1    1 {TRACE}",
        ]

    def test_a_long_name_comes_before_counts(self, path):
        with closing(SqliteStore(path)) as store:
            store.write([ended_span(3, trace_id=7, start_ns=START_NS + HOUR // 2, name="POST /checkout")])
        assert lines("traces", "--since", "2000-01-01", columns=80)[1] == (
            "start     name            latency  errors  trace id"
        )
        assert "POST /checkout" in lines("traces", "--since", "2000-01-01", columns=80)[3]

    def test_a_wide_terminal_shows_status_and_verdicts(self, path):
        call("score", TRACE, "Goal", "--label", "reached")
        row = lines("traces", "--since", "2000-01-01", columns=120)[3]
        assert row == f"22:13:20  answer   1.0 ms  UNSET       2       1     2  {TRACE}  Goal=reached"

    def test_piped_each_trace_is_a_json_object(self, path):
        (trace,) = rows("traces", "--since", "2000-01-01", "--filter", "metadata.step = 2", "--project", "shop")
        assert (trace["trace_id"], trace["spans"], trace["errors"]) == (TRACE, 2, 1)
        assert rows("traces", "--since", "2000-01-01", "--filter", "metadata.step = 3") == []

    def test_a_cursor_leads_on(self, path):
        with closing(SqliteStore(path)) as store:
            store.write([ended_span(3, trace_id=7, start_ns=START_NS + 9)])
        code, output, error = call("traces", "--since", "2000-01-01", "--limit", 1)
        cursor = json.loads(error)["next_cursor"]
        assert (code, json.loads(output)["trace_id"]) == (0, trace_hex(7))
        (rest,) = rows("traces", "--since", "2000-01-01", "--limit", 1, "--cursor", cursor)
        assert rest["trace_id"] == TRACE

    def test_without_since_it_is_the_last_seven_days(self, path):
        assert call("traces", "--no-json") == (
            0,
            "",
            "otel-metadata: no trace was found in the last seven days; --since looks further back.\n",
        )
