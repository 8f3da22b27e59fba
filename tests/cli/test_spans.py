"""Stored spans from a shell: what each command shows, what it changes, and how it fails."""

from __future__ import annotations

import inspect
import json
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import closing
from typing import get_args

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import Status, StatusCode
from rich.cells import cell_len
from tests.store.contract import START_NS, ended_span, metadata, trace_hex
from typer.testing import CliRunner

from otel_metadata.cli import spans as commands
from otel_metadata.cli.app import app
from otel_metadata.cli.shown import MAX_DEPTH, duration
from otel_metadata.client import Client
from otel_metadata.client import client as client_module
from otel_metadata.errors import StoreError
from otel_metadata.foreign_text import visible
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.evaluation import Source
from otel_metadata.seams import SystemClock
from otel_metadata.store.sqlite.store import SqliteStore

MAIN = [sys.executable, "-c", "from otel_metadata.cli import main; main()"]

# Before click 8.2 the two outputs were one, unless one asked.
RUNNER = CliRunner(**{"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {})

TRACE = trace_hex(5)
ROOT, CHILD, ORPHAN = (f"{number:016x}" for number in (1, 2, 3))
OTHER = f"{9:016x}"

# The spans of these tests are older than seven days.
EVER = ("--since", "2000-01-01")

EVIL = "\x1b[2J\u202etxt\nnext\t\x07[red]日本語[/]"


def call(*words, answer=None, columns=100):
    """Run the command line; return its exit code, its standard output, and what it said on standard error."""
    result = RUNNER.invoke(
        app, [str(word) for word in words], input=answer, env={"COLUMNS": str(columns), "TERM": "dumb"}
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def rows(*words):
    """Run a command that prints JSON and return what each line says."""
    code, output, error = call(*words)
    assert (code, error) == (0, "")
    return [json.loads(line) for line in output.splitlines()]


def lines(*words, columns=100):
    """Run a command that prints text and return its lines without what is blank at their ends."""
    code, output, error = call(*words, "--no-json", columns=columns)
    assert (code, error) == (0, "")
    return [line.rstrip() for line in output.splitlines()]


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return a store: a trace of a root, its child, and a span whose parent is elsewhere; and another trace."""
    path = tmp_path / "spans.db"
    failed = {"status": Status(StatusCode.ERROR, "no\nluck")}
    child = ended_span(1, trace_id=5).context
    elsewhere = ended_span(0xABC, trace_id=5).context
    with closing(SqliteStore(path)) as store:
        store.write(
            [
                ended_span(
                    1,
                    trace_id=5,
                    name="answer",
                    fields={**metadata(region="eu", step=2), **metadata("trace", plan="free")},
                    attributes={"openinference.span.kind": "CHAIN", "llm.model_name": "m-1"},
                    resource=Resource({"service.name": "shop"}),
                ),
                ended_span(2, trace_id=5, name="retrieve", start_ns=START_NS + 200_000, parent=child, **failed),
                ended_span(3, trace_id=5, name="orphan", start_ns=START_NS + 300_000, parent=elsewhere),
                ended_span(9, trace_id=6, name="other", start_ns=START_NS + 5_000_000_000),
            ]
        )
    monkeypatch.setenv("OTEL_PYTHON_METADATA_DESTINATIONS", f"console, sqlite:///{path}")
    return path


def record(path, span_id=ROOT):
    """Read one span as a program would."""
    with Client(f"sqlite:///{path}") as client:
        return client.spans.get(span_id)


class TestLs:
    def test_piped_each_span_is_a_json_object_on_a_line(self, path):
        """Newest first, with everything that is stored of it."""
        found = rows("ls", *EVER)
        assert [one["span_id"] for one in found] == [OTHER, ORPHAN, CHILD, ROOT]
        assert found[-1]["metadata"] == {"region": "eu", "step": 2}

    def test_on_a_terminal_it_is_a_table(self, path):
        """One line a span: start, name, latency, status, the id to copy, metadata."""
        assert lines("ls", *EVER) == [
            "4 spans, 2023-11-14, times in UTC",
            "start     name      latency  status  span id           metadata",
            "─" * 73,
            f"22:13:25  other      1.0 ms  UNSET   {OTHER}",
            f"22:13:20  orphan     1.0 ms  UNSET   {ORPHAN}",
            f"22:13:20  retrieve   1.0 ms  ERROR   {CHILD}",
            f'22:13:20  answer     1.0 ms  UNSET   {ROOT}  region="eu" step=2',
        ]

    @pytest.mark.parametrize("columns", [60, 80, 200])
    def test_the_table_fits_the_terminal(self, path, columns):
        """However long names and metadata are, no line is broken and no id is cut."""
        with Client(f"sqlite:///{path}") as client:
            client.spans.update(ROOT, name="名" * 300, metadata={"long": "m" * 300})
        shown = lines("ls", *EVER, columns=columns)
        assert len(shown) == 7
        assert max(map(cell_len, shown)) <= columns  # some letters take two columns
        assert all(any(span_id in line for line in shown) for span_id in (ROOT, CHILD, ORPHAN, OTHER))

    def test_a_wide_terminal_shows_more(self, path):
        """Trace ids and evaluations have columns of their own where there is room."""
        call("score", ROOT, "Tone", "--label", "kind", "--score", "0.5")
        assert not any(TRACE in line or "Tone" in line for line in lines("ls", *EVER, columns=80))
        assert f"{ROOT}  {TRACE}  Tone=kind, 0.5  region" in lines("ls", *EVER, columns=200)[-1]

    def test_spans_of_several_days_show_the_day(self, path):
        """The day is left out only where it is the same for all."""
        with closing(SqliteStore(path)) as store:
            store.write([ended_span(0xD, trace_id=7, start_ns=START_NS + 86_400_000_000_000)])
        assert lines("ls", *EVER)[3].startswith("11-15 22:13:20  work")

    def test_selection_is_passed_on(self, path):
        """Project, filter and window select as they do for a program."""
        assert [one["span_id"] for one in rows("ls", *EVER, "--project", "shop")] == [ROOT]
        assert [one["span_id"] for one in rows("ls", *EVER, "--filter", "metadata.region = 'eu'")] == [ROOT]
        assert [one["span_id"] for one in rows("ls", "--since", "2023-11-14T22:13:24Z")] == [OTHER]
        assert len(rows("ls", *EVER, "--until", "2023-11-14T22:13:24Z")) == 3

    def test_without_a_start_it_is_the_last_seven_days(self, path):
        """What is older is not there, and on a terminal that is said."""
        assert call("ls") == (0, "", "")
        assert call("ls", "--no-json")[2] == (
            "otel-metadata: no span was found in the last seven days; --since looks further back.\n"
        )

    @pytest.mark.parametrize(("since", "found"), [("2h", 1), ("90 min", 1), ("1d", 1), ("1w", 1), ("50s", 0)])
    def test_a_start_may_be_so_long_ago(self, path, since, found):
        """A number with a unit counts back from now."""
        minute_ago_ns = SystemClock.wall_ns() - 60_000_000_000
        with closing(SqliteStore(path)) as store:
            store.write([ended_span(0xE, trace_id=8, start_ns=minute_ago_ns)])
        assert len(rows("ls", "--since", since)) == found

    def test_pages_follow_one_another(self, path):
        """The cursor of the next page is on standard error, as JSON when the spans are; the last page has none."""
        code, output, error = call("ls", *EVER, "--limit", 3)
        cursor = json.loads(error)["next_cursor"]
        assert (code, len(output.splitlines())) == (0, 3)
        assert [one["span_id"] for one in rows("ls", *EVER, "--limit", 3, "--cursor", cursor)] == [ROOT]
        assert call("ls", *EVER, "--limit", 3, "--no-json")[2] == (
            f"otel-metadata: there are more; continue with --cursor {cursor}\n"
        )

    def test_what_a_terminal_would_obey_is_escaped(self, path):
        """Escape sequences, marks of direction and line breaks in names and values are shown, not obeyed."""
        with Client(f"sqlite:///{path}") as client:
            client.spans.update(ROOT, name=EVIL, metadata={EVIL: EVIL}, tags=[EVIL], output=EVIL, status_message=EVIL)
            client.spans.update_evaluations([{"context.span_id": ROOT, f"eval.{EVIL}.label": EVIL}])
        for words in (("ls", *EVER), ("show", ROOT)):
            shown = call(*words, "--no-json", columns=300)[1]
            assert r"\x1b[2J\u202etxt\nnext\t\x07[red]日本語[/]" in shown
            assert not re.search(r"[\x1b\x07\t\u202e]", shown)
        assert rows("ls", *EVER)[-1]["name"] == EVIL


class TestShow:
    def test_a_trace_is_a_tree(self, path):
        """Each span below its parent, with offset and duration; one whose parent is not stored says so."""
        call("patch", ROOT, "--tag", "vip", "--output", '{"text": "42"}', "--user", "u-1")
        call("score", ROOT, "Correctness", "--score", 1, "--explanation", "as the book says", "--source", "human")
        call("annotate", CHILD, "quality", "--label", "good", "--text", "nice", "--annotator", "ada")
        call("annotate", TRACE, "plan", "--score", 3)
        assert lines("show", TRACE) == [
            f"trace {TRACE}",
            "├── 2023-11-14 22:13:20 UTC, 3 spans, 1.3 ms, shop",
            '├── trace metadata plan="free"',
            "├── trace annotation plan=3.0",
            f"├── answer  chain, +0.0 ms, 1.0 ms  {ROOT}",
            '│   ├── metadata region="eu" step=2',
            "│   ├── tags vip",
            '│   ├── output {"text":"42"}',
            "│   ├── evaluation Correctness=1.0: as the book says  by human",
            "│   ├── user u-1",
            rf"│   └── retrieve  internal, +0.2 ms, 1.0 ms  ERROR  {CHILD}  no\nluck",
            "│       └── annotation quality=good: nice  by ada",
            f"└── orphan  internal, +0.3 ms, 1.0 ms  {ORPHAN}  its parent 0000000000000abc is not here",
        ]

    def test_a_span_is_shown_in_its_trace(self, path):
        """By its id or its traceparent: the whole trace, and an arrow at the span."""
        whole = lines("show", TRACE)
        for name in (CHILD, CHILD.upper(), f"00-{TRACE}-{CHILD}-01"):
            shown = lines("show", name)
            assert [line.removesuffix("  <--") for line in shown] == whole
            assert [line for line in shown if line.endswith("<--")] == [
                rf"│   └── retrieve  internal, +0.2 ms, 1.0 ms  ERROR  {CHILD}  no\nluck  <--"
            ]

    def test_as_json_a_trace_is_its_spans_and_a_span_is_one(self, path):
        """Whole records; a span that was named is not hidden among the others."""
        assert {one["span_id"] for one in rows("show", TRACE)} == {ROOT, CHILD, ORPHAN}
        assert [one["span_id"] for one in rows("show", CHILD)] == [CHILD]
        assert rows("show", ROOT)[0]["metadata"] == {"region": "eu", "step": 2}

    def test_attributes_are_shown_when_asked_for(self, path):
        """Plain attributes are many, so they are left out by default."""
        assert not any("m-1" in line for line in lines("show", TRACE))
        assert "│   ├── attributes" in lines("show", TRACE, "--attributes")
        assert '│   │   └── llm.model_name="m-1"' in lines("show", TRACE, "--attributes")

    def test_a_trace_of_several_pages_is_shown_whole(self, path, monkeypatch):
        """Its spans are read in pages."""
        monkeypatch.setattr(client_module, "_PAGE_SPANS", 2)
        assert len(rows("show", TRACE)) == 3

    def test_long_texts_are_cut(self, path):
        """An input takes one line, a value of metadata 200 characters; JSON has all of it."""
        call("patch", ROOT, "--input", "i" * 5_000, "-m", f"long={'m' * 5_000}")
        shown = lines("show", ROOT, columns=80)
        assert [line for line in shown if "input" in line] == [f"│   ├── input {'i' * 65}…"]
        assert sum(line.count("m") for line in shown if "mmm" in line) == 198
        assert len(rows("show", ROOT)[0]["metadata"]["long"]) == 5_000

    def test_who_is_its_own_ancestor_is_shown_once(self, path):
        """A ring of parents has no root; each of its spans is there, once."""
        first, second = ended_span(1, trace_id=0xA), ended_span(2, trace_id=0xA)
        with closing(SqliteStore(path)) as store:
            store.write(
                [
                    ended_span(1, trace_id=0xA, name="first", parent=second.context),
                    ended_span(2, trace_id=0xA, name="second", parent=first.context),
                    ended_span(3, trace_id=0xA, name="itself", parent=ended_span(3, trace_id=0xA).context),
                ]
            )
        shown = "\n".join(lines("show", trace_hex(0xA)))
        assert [shown.count(name) for name in ("first", "second", "itself")] == [1, 1, 1]
        assert "is not here" not in shown

    def test_a_deep_trace_keeps_its_text_on_the_screen(self, path):
        """Spans deeper than MAX_DEPTH stand below one another and say how deep they are; the stack is not exhausted."""
        deep = 3_000
        with closing(SqliteStore(path)) as store:
            store.write(
                ended_span(
                    number,
                    trace_id=0xB,
                    name=f"level{number}",
                    start_ns=START_NS + number,
                    parent=ended_span(number - 1, trace_id=0xB).context if number > 1 else None,
                )
                for number in range(1, deep + 1)
            )
        shown = lines("show", trace_hex(0xB), columns=160)
        assert len(shown) == deep + 2
        assert f"level{deep}" in shown[-1]
        assert f"{deep - 1} levels down" in shown[-1]
        assert shown[-1].index("level") == 4 * (MAX_DEPTH + 1)


class TestUpdates:
    def test_patch_merges_metadata_at_the_first_level(self, path):
        """An object, then single keys; a value is JSON where it is some, else text; what is not named stays."""
        code, output, error = call(
            "patch",
            ROOT,
            "--metadata",
            '{"step": 1, "o": {"a": [1]}}',
            "-m",
            "step=3",
            "-m",
            "who=ada=b",
            "-m",
            "no=null",
        )
        assert (code, error) == (0, "")
        assert json.loads(output) == {"spans_processed": 1, "spans_updated": 1, "spans_failed": 0, "errors": []}
        assert record(path).metadata == {"region": "eu", "step": 3, "o": {"a": [1]}, "who": "ada=b", "no": None}

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("5", 5),
            ('"5"', "5"),
            ("true", True),
            ("True", "True"),
            ("", ""),
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            ("[1, {}]", [1, {}]),
            ("{half", "{half"),
            ("[" * 100_000, "[" * 32_763 + "<cut>"),
            ("9" * 5_000, "9" * 5_000),
        ],
    )
    def test_a_value_is_json_or_text(self, path, text, value):
        """Nothing that somebody writes after the equals sign is an error."""
        assert call("patch", ROOT, "-m", f"k={text}")[0] == 0
        assert record(path).metadata["k"] == value

    def test_patch_sets_everything_that_an_update_can(self, path):
        """Each option is the argument of the same name in code."""
        code, output, _ = call(
            *("patch", ROOT, "--attribute", "a=1", "--tag", "vip", "--tag", "new", "--name", "renamed"),
            *("--user", "u-1"),
            *("--session", "s-1", "--input", "question", "--output", '{"a": 1}', "--status", "404"),
            *("--status-message", "gone", "--no-json"),
        )
        assert (code, output) == (0, f"span {ROOT} (answer): updated.\n")
        found = record(path)
        assert found.attributes["a"] == 1
        assert (found.tags, found.name, found.user_id, found.session_id) == (("new", "vip"), "renamed", "u-1", "s-1")
        assert (found.input, found.output) == ("question", {"a": 1})
        assert (found.status_code, found.status_message) == (404, "gone")
        assert record(path, CHILD).user_id is None

    @pytest.mark.parametrize("words", [(TRACE,), (CHILD, "--trace"), (f"00-{TRACE}-{CHILD}-01", "--trace")])
    def test_patch_updates_the_trace(self, path, words):
        """By a trace id, or by a span with --trace; every span of the trace shows it."""
        name, *option = words
        given = ("-m", "plan=gold", "--tag", "t", "--name", "visit", "--user", "u-2", "--session", "s-2")
        code, output, _ = call("patch", name, *option, *given, "--no-json")
        assert (code, output) == (0, f"trace {TRACE}: updated.\n")
        found = record(path)
        assert (found.trace_metadata, found.trace_tags, found.trace_name) == ({"plan": "gold"}, ("t",), "visit")
        assert (found.user_id, found.session_id) == ("u-2", "s-2")
        assert (found.metadata, found.name) == ({"region": "eu", "step": 2}, "answer")

    @pytest.mark.parametrize(("text", "code"), [("ok", "OK"), ("ERROR", "ERROR"), ("7", 7)])
    def test_a_status_is_a_word_or_a_code(self, path, text, code):
        """In capitals or not."""
        assert call("patch", CHILD, "--status", text)[0] == 0
        assert record(path, CHILD).status_code == code

    def test_a_later_patch_stands(self, path):
        """Updates from a shell have versions as any other: the last one wins, whichever process writes it."""
        for number in range(3):
            call("patch", ROOT, "-m", f"k={number}")
        assert record(path).metadata["k"] == 2

    def test_what_the_clean_up_changed_is_told(self, path):
        """On standard error, so that it does not get into what is piped."""
        code, output, error = call("patch", ROOT, "-m", f"k={1 << 70}")
        assert (code, error) == (0, "otel-metadata: note: metadata.k: an integer beyond 64 bits became text\n")
        assert json.loads(output)["spans_updated"] == 1

    def test_score_sets_an_evaluation(self, path):
        """On a span, or on its trace; a second one of the name replaces the first whole."""
        given = ("--score", "0.5", "--label", "good", "--explanation", "why", "--source", "human")
        assert call("score", ROOT, "Correct.v2", *given, "--no-json")[1] == f"span {ROOT} (answer): scored.\n"
        (verdict,) = record(path).evaluations.values()
        assert (verdict.name, verdict.score, verdict.label, verdict.explanation, verdict.source) == (
            *("Correct.v2", 0.5, "good", "why", "human"),
        )
        assert call("score", ROOT, "Correct.v2", "--label", "bad")[0] == 0
        assert call("score", ROOT, "Goal", "--score", "1", "--trace")[0] == 0
        found = record(path)
        assert (found.evaluations["Correct.v2"].label, found.evaluations["Correct.v2"].score) == ("bad", None)
        assert found.evaluations["Correct.v2"].source == "code"
        assert record(path, CHILD).trace_evaluations["Goal"].score == 1

    def test_annotate_sets_an_annotation(self, path):
        """On a span, or on its trace; one for each name and annotator."""
        for words in (
            ("--label", "good", "--annotator", "ada"),
            ("--text", "hm", "--annotator", "bob"),
            ("--score", 3),
        ):
            assert call("annotate", ROOT, "quality", *words)[0] == 0
        assert call("annotate", TRACE, "plan", "--label", "kept", "--no-json")[1] == f"trace {TRACE}: annotated.\n"
        found = record(path)
        assert [(note.annotator, note.label, note.text, note.score) for note in found.annotations] == [
            ("ada", "good", None, None),
            ("bob", None, "hm", None),
            (None, None, None, 3),
        ]
        assert [(note.name, note.label) for note in found.trace_annotations] == [("plan", "kept")]


def test_everybody_who_can_judge_can_be_said():
    """The choices of --source are the sources that there are."""
    assert [judge.value for judge in commands._Judge] == list(get_args(Source))


OTLP_LINE = json.dumps(
    {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "collector"}}]},
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": "0af7651916cd43dd8448eb211c80319c",
                                "spanId": "b7ad6b7169203331",
                                "name": "from the Collector",
                                "kind": 2,
                                "startTimeUnixNano": "1700000000000000000",
                                "endTimeUnixNano": "1700000000250000000",
                                "attributes": [{"key": "metadata.region", "value": {"stringValue": "us"}}],
                            }
                        ]
                    }
                ],
            }
        ]
    }
)


class TestFiles:
    @pytest.mark.parametrize("name", ["spans.parquet", "spans.jsonl", "SPANS.JSONL"])
    def test_an_export_is_imported_again(self, path, name, tmp_path):
        """Into a store that is made for it: all that was said of the spans is there."""
        call("score", ROOT, "Tone", "--label", "kind")
        target = tmp_path / name
        assert rows("export", target) == [{"path": str(target), "spans": 4}]
        copy = f"sqlite:///{tmp_path / 'copy.db'}"
        assert rows("import", target, "--store", copy) == [
            {"path": str(target), "spans_imported": 4, "updates_imported": 0, "spans_failed": 0, "lines_ignored": 0}
        ]
        assert rows("ls", *EVER, "--store", copy) == rows("ls", *EVER)

    def test_the_selection_of_a_list_selects_for_an_export(self, path, tmp_path):
        """Without one it is everything, however old; the format may be said."""
        target = tmp_path / "spans"
        words = ("--format", "csv", "--project", "shop", "--filter", "metadata.step = 2", "--since", "2023-01-01")
        assert lines("export", target, *words) == [f"1 span in {target}."]
        assert len(target.read_text().splitlines()) == 2
        assert lines("export", target, *words, "--until", "2023-06-01") == [f"0 spans in {target}."]

    def test_standard_output_gets_json_lines(self, path, tmp_path):
        """The same lines as a file, as they come, and nothing else."""
        call("export", tmp_path / "spans.jsonl")
        assert call("export", "-")[1:] == ((tmp_path / "spans.jsonl").read_text(), "")
        assert len(rows("export", "-", "--filter", "name = 'answer'")) == 1

    @pytest.mark.parametrize(
        ("content", "found"), [("", "nothing"), ('{"resourceLogs": []}\n', "OpenTelemetry logs (1)")]
    )
    def test_a_file_without_spans_is_told(self, tmp_path, content, found):
        """What it holds, and the exit code is 1."""
        file = tmp_path / "otel.jsonl"
        file.write_text(content)

        code, output, error = call("import", file, "--no-json")

        assert code == 1
        assert output.startswith(f"{file}: 0 spans imported")
        assert f"{file}: no spans were found; the file holds {found}." in error

    def test_the_file_of_a_collector_is_imported(self, path, tmp_path):
        """OTLP JSON lines; what cannot be read is told with its line, the rest is there, and the exit code is 1."""
        file = tmp_path / "collector.jsonl"
        file.write_text(f'{OTLP_LINE}\n{{"resourceLogs": []}}\nnonsense\n')
        code, output, error = call("import", file, "--no-json")
        assert (code, output) == (
            1,
            f"{file}: 1 span imported, 1 could not be read, 1 line of other signals left out.\n",
        )
        assert error.startswith(f"otel-metadata: {file}, line 3: ")
        assert error.count("\n") == 1
        assert rows("show", "b7ad6b7169203331")[0]["metadata"] == {"region": "us"}

    def test_a_file_that_cannot_be_read_keeps_no_other_one_away(self, path, tmp_path, monkeypatch):
        """Each is imported for itself, and the exit code is 1."""
        file = tmp_path / "collector.jsonl"
        file.write_text(f"{OTLP_LINE}\n")
        call("export", tmp_path / "spans.parquet")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        code, output, error = call("import", tmp_path / "nowhere.jsonl", tmp_path / "spans.parquet", file)
        assert (code, json.loads(output)["spans_imported"]) == (1, 1)
        missing, unreadable = error.splitlines()
        assert missing.startswith(f"otel-metadata: {tmp_path / 'nowhere.jsonl'}: No such file or directory")
        assert unreadable.startswith("otel-metadata: pyarrow is not installed")

    def test_of_many_problems_the_first_are_told(self, path, tmp_path):
        """The others are counted."""
        file = tmp_path / "collector.jsonl"
        file.write_text(f"{OTLP_LINE}\n" + "nonsense\n" * 103)
        code, output, error = call("import", file)
        assert (code, json.loads(output)["spans_failed"]) == (1, 103)
        assert error.splitlines()[-1] == f"otel-metadata: {file}: 3 more could not be read."

    @pytest.mark.parametrize(
        ("words", "package"),
        [(("export", "a.parquet"), "pyarrow"), (("export", "-"), "pyarrow"), (("import", "{file}"), "pyarrow")],
    )
    def test_a_missing_extra_is_named(self, path, tmp_path, monkeypatch, words, package):
        """One line says what to install."""
        file = tmp_path / "spans.parquet"
        call("export", file)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, package, None)
        code, output, error = call(*[word.format(file=file) for word in words])
        assert (code, output) == (1, "")
        assert error.startswith(f"otel-metadata: {package} is not installed; expected the extra: pip install 'otel-m")

    def test_nothing_is_left_of_an_export_that_fails(self, path, tmp_path):
        """What was there is as it was."""
        target = tmp_path / "files" / "spans.jsonl"
        target.parent.mkdir()
        target.write_text("mine")
        assert call("export", target, "--store", "sqlite:///nowhere.db")[0] == 1
        assert call("export", target, "--filter", "name =")[0] == 1
        assert [file.name for file in target.parent.iterdir()] == ["spans.jsonl"]
        assert target.read_text() == "mine"


class TestDelete:
    def test_nothing_is_deleted_where_nobody_can_be_asked(self, path):
        """Without a terminal, --yes has to be said."""
        assert call("delete", ROOT) == (
            1,
            "",
            "otel-metadata: nothing was deleted, because there is no terminal to ask on; expected --yes.\n",
        )
        assert record(path).name == "answer"

    def test_deletion_tells_which_were_there(self, path):
        """Unknown ones are no error."""
        (report,) = rows("delete", ROOT, "f" * 16, f"00-{TRACE}-{CHILD}-01", "--yes")
        assert report == {
            "completed": True,
            "deleted_span_ids": [ROOT, CHILD],
            "not_deleted_span_ids": ["f" * 16],
        }
        assert [one["span_id"] for one in rows("ls", *EVER)] == [OTHER, ORPHAN]
        assert lines("delete", ORPHAN, "--yes") == ["1 span deleted."]
        assert lines("delete", ORPHAN, "--yes") == [f"0 spans deleted; unknown: {ORPHAN}."]

    @pytest.mark.parametrize(("answer", "code", "is_there"), [("n\n", 1, True), ("\n", 1, True), ("y\n", 0, False)])
    def test_on_a_terminal_it_asks(self, path, answer, code, is_there):
        """Anything but a yes deletes nothing."""
        status, output = on_a_terminal("delete", ROOT, answer=answer)
        assert "Delete 1 span for good? [y/N]" in output
        assert status == code
        assert (ROOT in {one["span_id"] for one in rows("ls", *EVER)}) is is_there

    def test_an_interrupt_ends_it(self, path):
        """Ctrl-C at the question deletes nothing and shows no traceback."""
        status, output = on_a_terminal("delete", ROOT, is_interrupted=True)
        assert status != 0
        assert "\notel-metadata: aborted; nothing was changed.\n" in output.partition("[y/N]")[2]
        assert "Traceback" not in output
        assert len(rows("ls", *EVER)) == 4


NO_SPAN = f"Span {'f' * 16} is not in sqlite:///"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ls", "--store", "sqlite:///nowhere.db"), "{here}/nowhere.db: no such file; expected a store"),
        (("ls", "--store", "otlp"), "Client is 'otlp'; expected a destination that keeps its spans in a store"),
        (("ls", "--store", "sqlite:///{directory}"), "{directory} is not a file; expected"),
        (("ls", "--store", "sqlite:///{notes}"), "{notes} is not an SQLite database"),
        (("ls", "--cursor", "x"), "cursor is 'x'; expected the `next_cursor` of a page"),
        (("show", "f" * 16), NO_SPAN),
        (("show", "f" * 32), f"Trace {'f' * 32} is not in sqlite:///"),
        (
            ("show", ROOT, "--at", "2020-01-01"),
            "at is '2020-01-01'; expected the start of the span, 2023-11-14T22:13:20",
        ),
        (("show", TRACE, "--at", "2020-01-01"), "at is '2020-01-01'; expected the start of the trace, 2023-11-14T22"),
        (("show", "--at", "2020-01-01"), "no span is stored here; expected"),
        (("history", "f" * 16), NO_SPAN),
        (("history", "f" * 32), f"Trace {'f' * 32} is not in sqlite:///"),
        (("history", ROOT, "tags"), "field is 'tags'; expected a name such as metadata.thumbs"),
        (("show", f"00-{'f' * 32}-{ROOT}-01"), f"Span {ROOT} is not in sqlite:///"),
        (("patch", "f" * 16, "-m", "k=1"), NO_SPAN),
        (("patch", "f" * 32, "-m", "k=1"), f"no span of trace {'f' * 32} is stored"),
        (("score", "f" * 16, "Tone", "--score", "1"), NO_SPAN),
        (("annotate", "f" * 16, "quality", "--label", "good"), NO_SPAN),
        (("export", "{directory}/nowhere/a.jsonl"), "{directory}/nowhere/a.jsonl: No such file or directory; expected"),
        (("export", "{directory}", "--format", "csv"), "{directory}: a directory; expected"),
        (("import", "{directory}/nowhere.jsonl"), "{directory}/nowhere.jsonl: No such file or directory; expected"),
        (("import", "{directory}"), "{directory}: Is a directory; expected"),
    ],
)
def test_an_error_is_one_line(path, tmp_path, words, message):
    """What cannot be done is one line on standard error that says what to do, and exit code 1."""
    notes = tmp_path / "notes.txt"
    notes.write_text("dear diary " * 100)
    places = {"directory": tmp_path, "notes": notes, "here": os.getcwd()}
    code, output, error = call(*[word.format(**places) for word in words])
    assert (code, output) == (1, "")
    assert error.startswith(f"otel-metadata: {message.format(**places)}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("patch", ROOT, "-m", "k=1"), f"Span {ROOT} is not in"),
        (("score", ROOT, "Tone", "--score", "1"), f"[segment_not_found] Row 0: span {ROOT} is not in"),
        (("annotate", ROOT, "quality", "--score", "1"), f"[segment_not_found] Row 0: span {ROOT} is not in"),
    ],
)
def test_a_span_that_goes_meanwhile_is_told(path, monkeypatch, words, message):
    """Somebody deletes it between the look and the update: no success is told."""
    found = record(path)
    call("delete", ROOT, "--yes")
    monkeypatch.setattr(commands, "_found", lambda spans, name: found)
    code, output, error = call(*words)
    assert (code, output, error.count("\n")) == (1, "", 1)
    assert error.startswith(f"otel-metadata: {message}")


def test_the_words_of_a_server_are_one_line_too(path, monkeypatch):
    """Whatever a store says of itself."""

    def refuse(*_, **__):
        raise StoreError("host: refused.\nStack trace:\n  0. \x1b[31mhere")

    monkeypatch.setattr(SqliteStore, "query", refuse)
    assert call("ls") == (1, "", r"otel-metadata: host: refused.\nStack trace:\n  0. \x1b[31mhere" + "\n")


def test_a_filter_error_points_at_the_place(path):
    """The message of the filter language keeps its lines, and what a terminal would obey is escaped in them."""
    code, output, error = call("ls", "--filter", "name = = '\x1b'")
    assert (code, output) == (1, "")
    first, text, caret = error.splitlines()
    assert first.startswith("otel-metadata: Filter")
    assert text.index("= '") == caret.index("^")
    assert "\x1b" not in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lss",), "No such command 'lss'"),
        (("ls", "--nope"), "No such option: --nope"),
        (("ls", "--li\x1b[31m\nx"), "No such option"),
        (("ls", "words"), "(words)"),
        (("ls", "--limit"), "Option '--limit' requires an argument"),
        (("ls", "--limit", "0"), "--limit: '0' is not a whole number of 1 or more"),
        (("ls", "--limit", "x"), "--limit: 'x' is not a whole number of 1 or more"),
        (("spool", "lst"), "No such command 'lst'"),
        (("show", "--at", "yesterday"), "neither how long ago (30min, 12h, 7d) nor a time"),
        (("history",), "Missing argument 'SPAN'"),
        (("history", "thumbs"), "neither a span id"),
        (("ls", "--since", "yesterday"), "neither how long ago (30min, 12h, 7d) nor a time"),
        (("ls", "--until", "999999w"), "neither how long ago (30min, 12h, 7d) nor a time"),
        (("show", "answer"), "neither a span id (16 hex digits), nor a trace id (32), nor a traceparent"),
        (("show", "0" * 7), "neither a span id"),
        (("patch", ROOT), "nothing to set was given"),
        (("patch", ROOT, "-m", "novalue"), "'novalue' is not of the form key=value"),
        (("patch", ROOT, "-m", "=1"), "'=1' is not of the form key=value"),
        (("patch", ROOT, "--attribute", "a"), "'a' is not of the form key=value"),
        (("patch", ROOT, "--metadata", "{"), "is not JSON"),
        (("patch", ROOT, "--metadata", '{"a": NaN}'), "NaN is not a number in JSON"),
        (("patch", ROOT, "--metadata", "[1]"), "is not a JSON object"),
        (("patch", ROOT, "--status", "fine"), "neither ok, nor error, nor an integer code"),
        (("patch", TRACE, "--status", "ok"), "a trace has no --attribute, --status or --status-message"),
        (("patch", ROOT, "--trace", "--attribute", "a=1"), "a trace has no --attribute"),
        (("score", ROOT, "Tone"), "expected --score, --label, or --explanation"),
        (("score", ROOT, "Tone", "--score", "nan"), "--score: 'nan' is not a finite number"),
        (("score", ROOT, "Tone", "--score", "high"), "--score: 'high' is not a finite number"),
        (
            ("score", ROOT, "Tone", "--score", "1", "--source", "boss"),
            "--source': 'boss' is not one of 'code', 'llm', 'human'",
        ),
        (("score", ROOT, "", "--score", "1"), "the name is empty"),
        (("annotate", ROOT, "quality"), "expected --score, --label, or --text"),
        (("annotate", ROOT, "quality", "--annotator", "ada"), "expected --score, --label, or --text"),
        (("export", "spans.txt"), "ends with neither .parquet, nor .jsonl, nor .csv"),
        (("export", "spans"), "ends with neither"),
        (("export", "-", "--format", "csv"), "standard output takes only jsonl"),
        (("export",), "PATH"),
        (("import",), "PATH"),
        (("delete", TRACE, "--yes"), "is a trace id; expected span ids"),
        (("delete", "x", "--yes"), "neither a span id"),
        (("delete", "--yes"), "SPAN"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(path, words, message):
    """One line names what was written and what was expected; it ends with exit code 2, and changes nothing."""
    before = rows("ls", *EVER)
    code, output, error = call(*words)
    assert (code, output) == (2, "")
    assert re.fullmatch(r"otel-metadata: [^\x00-\x1f]+[.?] See otel-metadata.* --help\.\n", error)
    assert message in error
    assert rows("ls", *EVER) == before


@pytest.mark.parametrize("words", [(), ("spool",)])
def test_without_a_command_the_help_is_shown(words):
    """Whoever types the name alone wants to know what there is."""
    _, output, error = call(*words)
    assert "Usage: otel-metadata" in output
    assert error == ""


class TestStore:
    def test_without_destinations_it_is_the_store_of_configure(self, path, monkeypatch):
        """`otel_metadata.db` in the working directory, where `configure()` has it."""
        monkeypatch.delenv("OTEL_PYTHON_METADATA_DESTINATIONS")
        monkeypatch.chdir(path.parent)
        assert call("ls")[2].startswith(f"otel-metadata: {path.parent}/otel_metadata.db: no such file")
        path.rename("otel_metadata.db")
        assert len(rows("ls", *EVER)) == 4

    def test_destinations_without_a_store_are_told(self, monkeypatch):
        """It does not read another store than the one that the application writes; credentials are not shown."""
        monkeypatch.setenv("OTEL_PYTHON_METADATA_DESTINATIONS", "otlp,https://user:secret@host")
        code, _, error = call("ls")
        assert code == 1
        assert error == (
            "otel-metadata: OTEL_PYTHON_METADATA_DESTINATIONS is 'otlp,https://***@host'; expected a store among them, "
            "such as sqlite:///spans.db; or name one (on the command line by --store).\n"
        )

    def test_an_option_wins(self, path, monkeypatch):
        """--store is looked at before the environment."""
        monkeypatch.setenv("OTEL_PYTHON_METADATA_DESTINATIONS", "sqlite:///nowhere.db")
        assert len(rows("ls", *EVER, "--store", f"sqlite:///{path}")) == 4


def run(*words, **options):
    """Run the command line in a process of its own."""
    return subprocess.run([*MAIN, *words], capture_output=True, timeout=120, check=False, **options)


def on_a_terminal(*words, answer="", is_interrupted=False, columns=100):
    """Run the command line on a terminal of its own, and answer or interrupt it when it asks.

    Returns:
        The exit code, and all that is shown there.
    """
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
    # Where this run was started in the background of a shell, an interrupt is ignored, and would be in the program.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*MAIN, *words], stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm"}
        )
    finally:
        signal.signal(signal.SIGINT, before)
    os.close(theirs)
    shown = b""
    has_answered, seconds_left = False, 120
    try:
        while seconds_left:
            if not select.select([ours], [], [], 1)[0]:
                seconds_left -= 1
                # One that comes just before Python reads is noted, and the read goes on: so people press it again.
                if is_interrupted and has_answered:
                    process.send_signal(signal.SIGINT)
                continue
            chunk = os.read(ours, 65_536)
            if not chunk:
                break
            shown += chunk
            if b"[y/N]" in shown and not has_answered:
                has_answered = True
                if is_interrupted:
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(ours, answer.encode())
    except OSError:
        pass  # Linux says so when the other side is closed
    os.close(ours)
    return process.wait(120), shown.decode().replace("\r\n", "\n")


class TestProcess:
    def test_on_a_terminal_spans_are_a_table_of_its_width(self, path):
        """Without an option, what is looked at is a table, and what is piped is JSON."""
        code, shown = on_a_terminal("ls", *EVER, columns=72)
        plain = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
        assert code == 0
        assert plain[0].rstrip() == "4 spans, 2023-11-14, times in UTC"
        assert max(map(len, plain)) <= 72
        assert json.loads(run("ls", *EVER).stdout.splitlines()[0])["span_id"] == OTHER

    def test_lines_of_json_on_a_terminal_are_obeyed_by_none(self, path):
        """`export -` shows in ASCII what it writes as it is into a pipe."""
        with closing(SqliteStore(path)) as store:
            store.write([ended_span(1, trace_id=0xE, name="\x7f\x9b2J\u202e" + EVIL)])
        code, shown = on_a_terminal("export", "-")
        piped = run("export", "-").stdout
        assert code == 0
        assert shown.isascii()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", shown)
        assert [json.loads(line) for line in shown.splitlines()] == [json.loads(line) for line in piped.splitlines()]

    @pytest.mark.parametrize(
        "words",
        [
            ("ls", *EVER, "--limit", "9999", "--json"),
            ("ls", *EVER, "--limit", "9999", "--no-json"),
            ("show", trace_hex(0xC), "--json"),
            ("show", trace_hex(0xC), "--no-json"),
            ("export", "-"),
        ],
    )
    def test_a_closed_pipe_is_quiet(self, path, words):
        """Whoever reads only the first lines, as `head` does, gets no traceback."""
        with closing(SqliteStore(path)) as store:
            store.write(ended_span(number, trace_id=0xC, name="n" * 100) for number in range(1, 5_000))
        process = subprocess.Popen([*MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        process.wait(120)

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no device that is always full")
    @pytest.mark.parametrize("words", [("ls", *EVER), ("show", ROOT, "--no-json"), ("export", "-")])
    def test_a_full_disk_behind_the_pipe_is_told(self, path, words):
        """What cannot be written is no success, and no traceback."""
        with open("/dev/full", "wb") as full:
            failed = subprocess.run([*MAIN, *words], stdout=full, stderr=subprocess.PIPE, timeout=120, check=False)
        assert failed.returncode == 1
        assert failed.stderr == b"otel-metadata: standard output: No space left on device.\n"

    @pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
    def test_any_encoding_will_do(self, path, encoding):
        """What the terminal's encoding lacks is escaped; JSON is ASCII everywhere."""
        run("patch", ROOT, "--name", "naïve 日本語", env={**os.environ, "PYTHONUTF8": "1"})
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        for words in (("ls", *EVER), ("show", ROOT)):
            shown = run(*words, "--no-json", env=environment)
            assert (shown.returncode, shown.stderr) == (0, b"")
            assert "naïve 日本語".encode(encoding, "backslashreplace") in shown.stdout
        assert json.loads(run("show", ROOT, env=environment).stdout.decode("ascii"))["name"] == "naïve 日本語"

    def test_an_error_can_be_written_in_any_encoding(self, tmp_path):
        """A path that standard error cannot write is escaped."""
        environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
        failed = run("ls", "--store", "sqlite:///sp\u00e4ns.db", cwd=tmp_path, env=environment)
        assert (failed.returncode, failed.stderr[:15]) == (1, b"otel-metadata: ")
        assert rb"/sp\xe4ns.db: no such file; expec" in failed.stderr

    @pytest.mark.parametrize(
        ("program", "code", "error"),
        [
            (
                "sys.modules['typer'] = None",
                1,
                "otel-metadata: typer is not installed; pip install 'otel-metadata[cli]'.\n",
            ),
            (
                "class Interrupt:\n"
                "    def find_spec(name, *_):\n"
                "        if name == 'otel_metadata.cli.app': raise KeyboardInterrupt\n"
                "sys.meta_path.insert(0, Interrupt)",
                130,
                "",
            ),
        ],
    )
    def test_what_happens_before_the_first_command_is_no_traceback(self, program, code, error):
        """The extra is missing, or somebody interrupts while packages are loaded."""
        done = subprocess.run(
            [sys.executable, "-c", f"import sys\n{program}\nfrom otel_metadata.cli import main\nmain()", "ls"],
            capture_output=True,
            timeout=120,
            check=False,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (code, "", error)

    def test_an_export_is_piped_into_an_import(self, path, tmp_path):
        """Both have `-` for it, and so has the shell its own names."""
        exported = run("export", "-").stdout
        for name in ("-", "/dev/stdin") if os.path.exists("/dev/stdin") else ("-",):
            copy = f"sqlite:///{tmp_path / f'{len(name)}.db'}"
            done = run("import", name, "--store", copy, input=exported)
            assert (done.returncode, json.loads(done.stdout)["spans_imported"]) == (0, 4)
            assert rows("ls", *EVER, "--store", copy) == rows("ls", *EVER)

    @pytest.mark.skipif(not os.path.exists("/bin/sh"), reason="has no shell that closes them")
    @pytest.mark.parametrize(
        ("closed", "words", "error"),
        [
            (">&-", ("ls", *EVER), "standard output is closed"),
            (">&-", ("export", "-"), "standard output is closed"),
            (">&-", ("delete", ROOT, "--yes"), "standard output is closed"),
            ("<&-", ("delete", ROOT), "nothing was deleted, because there is no terminal to ask on"),
            ("<&-", ("import", "-"), "standard input is closed"),
            (">&- 2>&-", ("ls", *EVER), ""),
            ("2>&-", ("ls", "--store", "sqlite:///nowhere.db"), ""),
        ],
    )
    def test_what_is_closed_is_told(self, path, closed, words, error):
        """Where there is somebody to tell: no traceback, nothing changed."""
        shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *MAIN, *words]
        done = subprocess.run(shell, capture_output=True, timeout=120, check=False, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == bool(error)
        assert error in done.stderr
        assert len(rows("ls", *EVER)) == 4

    def test_a_store_that_does_not_answer_is_one_line(self):
        """Whatever its client logs beside the error that it raises."""
        pytest.importorskip("clickhouse_connect")
        failed = run("ls", "--store", "clickhouse://127.0.0.1:1/otel")
        assert failed.returncode == 1
        assert failed.stderr.startswith(b"otel-metadata: clickhouse://127.0.0.1:1/otel does not answer")
        assert failed.stderr.count(b"\n") == 1

    def test_a_list_loads_no_heavy_package(self, path):
        """The command line starts fast: what only some commands need is loaded by them."""
        program = (
            "import sys\n"
            "from otel_metadata.cli import main\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            "heavy = ('pandas', 'pyarrow', 'polars', 'numpy', 'openai', 'clickhouse_connect', 'grpc', 'requests')\n"
            "print([name for name in heavy if name in sys.modules], file=sys.stderr)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, "ls", *EVER], capture_output=True, timeout=120, check=False, text=True
        )
        assert (len(done.stdout.splitlines()), done.stderr) == (4, "[]\n")


def test_the_spans_of_the_demo_are_shown(tmp_path):
    """Spans of a real client and a real instrumentor are listed, shown as a tree, patched, and deleted."""
    store = ("--store", f"sqlite:///{tmp_path / 'demo.db'}")
    assert run("demo", "--keep", str(tmp_path / "demo.db")).returncode == 0
    calls = rows("ls", *store, "--filter", "span_kind = 'LLM'")
    assert [one["name"] for one in calls] == ["ChatCompletion", "ChatCompletion"]
    (answer,) = rows("ls", *store, "--filter", "name = 'answer'")
    shown = lines("show", answer["trace_id"], *store)
    assert [re.sub(r"[\d.]+ m?s|[0-9a-f]{16}", "…", line) for line in shown[4:9]] == [
        "└── answer  chain, +…, …  …",
        '    ├── metadata tenant="acme" error=null step=2 thumbs="down" status="reviewed"',
        '    ├── input {"question":"Why is the sky blue?"}',
        "    ├── output The answer is forty-two.: The answer is forty-two.",
        "    ├── evaluation Correctness=correct, 1.0: Rayleigh scattering, as the book has it.  by human",
    ]
    assert sum("ChatCompletion  llm, +" in line for line in shown) == 2
    assert call("patch", calls[0]["span_id"], *store, "-m", "cost=0.5")[0] == 0
    assert rows("show", calls[0]["span_id"], *store)[0]["metadata"]["cost"] == 0.5
    assert lines("delete", *[one["span_id"] for one in calls], "--yes", *store) == ["2 spans deleted."]
    assert len(rows("ls", *store)) == 3


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0.0 ms"),
        (1_234_567, "1.2 ms"),
        (999_940_000, "999.9 ms"),
        (999_960_000, "1.00 s"),
        (59_994_000_000, "59.99 s"),
        (59_999_000_000, "1 min 0 s"),
        (185_000_000_000, "3 min 5 s"),
        (7_800_000_000_000, "2 h 10 min"),
        (47 * 3_600_000_000_000, "47 h 0 min"),
        (99 * 3_600_000_000_000, "4 d 3 h"),
        (-1_500_000, "-1.5 ms"),
    ],
)
def test_durations_are_for_people(nanoseconds, text):
    """A unit that fits, and never sixty of one."""
    assert duration(nanoseconds) == text


def test_ordinary_text_is_left_as_it_is():
    """Letters of any script, emoji and every kind of space are shown as they are."""
    text = "naïve 日本語 🙂 a\u00a0b\u3000c"
    assert visible(text) == text


class TestAuthor:
    """Who changed a span, as the store is told."""

    COMMANDS = (
        ("patch", ROOT, "-m", "a=1"),
        ("score", ROOT, "C", "--score", "1"),
        ("annotate", ROOT, "quality", "--label", "good"),
    )

    @staticmethod
    def of_latest(store):
        """Return the author of the latest value of the span."""
        found = next(one for one in rows("export", "-", *EVER) if one["context.span_id"] == ROOT)
        return AUTHORS.name_of(int(max(found["otel_metadata.versions"], key=lambda one: one[3])[4], 16))

    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
    def test_by_default_it_is_the_user(self, path, command, monkeypatch):
        """The shell is a person's."""
        monkeypatch.setenv("LOGNAME", "ada")
        assert call(*command)[0] == 0
        assert self.of_latest(path) == "cli:ada"

    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
    def test_an_option_wins_over_the_variable_and_that_over_the_user(self, path, command, monkeypatch):
        """As for the other options."""
        monkeypatch.setenv("OTEL_PYTHON_METADATA_AUTHOR", "nightly job")
        assert call(*command)[0] == 0
        assert self.of_latest(path) == "nightly job"
        assert call(*command, "--author", "judge")[0] == 0
        assert self.of_latest(path) == "judge"

    def test_a_user_without_a_name_is_a_number(self, path, monkeypatch):
        """Containers run as users who are in no list."""

        def nobody():
            raise KeyError("getpwuid(): uid not found: 4711")

        monkeypatch.setattr("getpass.getuser", nobody)
        assert call("patch", ROOT, "-m", "a=1")[0] == 0
        assert self.of_latest(path) == f"cli:{os.getuid()}"

    @pytest.mark.parametrize("given", ["", " ", "x" * 201])
    def test_a_wrong_name_is_one_line(self, path, given):
        """Nothing is changed."""
        code, output, error = call("patch", ROOT, "-m", "a=1", "--author", given)
        assert (code, output) == (2, "")
        assert re.fullmatch(r"otel-metadata: --author is .*; expected a name of 1 to 200 characters, .*\n", error)


class TestRetain:
    def test_what_started_before_is_deleted(self, path):
        """And told, with what is left."""
        (found,) = rows("retain", "--older-than", "2023-11-14T22:13:21Z", "--yes")
        assert 0 < found.pop("stored_bytes") < 1_000_000
        assert found == {"spans_deleted": 3, "updates_deleted": 0}
        assert [one["span_id"] for one in rows("ls", *EVER)] == [OTHER]
        (line,) = lines("retain", "--older-than", "1d", "--max-size", "1MB", "--yes")
        assert re.fullmatch(r"1 span deleted; 0\.\d MB are stored\.", line)

    def test_updates_that_wait_for_a_span_are_told(self, path):
        """Of spans that never came."""
        with closing(SqliteStore(path)) as store:
            store.patch_rows([(TRACE, "f" * 16, metadata(a=1)), ("f" * 32, "", metadata("trace", a=1))])
        (line,) = lines("retain", "--older-than", "1d", "--yes")
        assert line.startswith("4 spans deleted, and updates of 2 spans or traces that the store does not have; 0.")

    def test_nothing_is_deleted_where_nobody_can_be_asked(self, path):
        """Without a terminal, --yes has to be said."""
        assert call("retain", "--older-than", "1d") == (
            1,
            "",
            "otel-metadata: nothing was deleted, because there is no terminal to ask on; expected --yes.\n",
        )
        assert len(rows("ls", *EVER)) == 4

    @pytest.mark.parametrize(("answer", "left"), [("n\n", 4), ("y\n", 0)])
    def test_on_a_terminal_it_asks(self, path, answer, left):
        """Anything but a yes deletes nothing."""
        _, output = on_a_terminal("retain", "--older-than", "1d", answer=answer)
        assert "Delete the oldest spans for good? [y/N]" in output
        assert len(rows("ls", *EVER)) == left

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            ((), 2, "nothing to delete was named; expected --older-than, --max-size, or both."),
            (("--older-than", "soon"), 2, "'soon' is neither how long ago (30min, 12h, 7d) nor a time"),
            (("--max-size", "many"), 2, "'many' is not a size such as 500MB or 2GiB."),
            (("--max-size", "-1"), 2, "'-1' is not a size such as 500MB or 2GiB."),
            (("--older-than", "2200-01-01"), 1, "older_than is '2200-01-01'; expected a timedelta of 0 or more, or"),
            (("--max-size", "2kB"), 1, "max_bytes is 2000; expected a whole number of bytes, at least 1,000,000"),
        ],
    )
    def test_a_wrong_option_deletes_nothing(self, path, words, code, message):
        """One error says what is wrong."""
        status, output, error = call("retain", *words, "--yes", columns=300)
        assert (status, output) == (code, "")
        assert message in error
        assert len(rows("ls", *EVER)) == 4
