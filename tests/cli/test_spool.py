"""`otel-metadata spool`: what an operator sees and does."""

from __future__ import annotations

import inspect
import json
import re

import pytest
from opentelemetry.sdk.trace import TracerProvider
from typer.testing import CliRunner

import otel_metadata as om
from otel_metadata.cli.app import app
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.outcome import Delivered, DeliveryError, Rejected, Retry
from otel_metadata.testing import RecordingSpanExporter

CONFLICT = Rejected(DeliveryError("type_conflict", "metadata.a is a number there"))
DOWN = Retry(DeliveryError("connection_failure", "down"))

# Before click 8.2 the two outputs were one, unless one asked.
RUNNER = CliRunner(**{"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {})


def call(*words, answer=None):
    """Run the command line; return its exit code, its lines, and what it said of an error."""
    result = RUNNER.invoke(app, ["spool", *map(str, words)], input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout.splitlines(), result.stderr


@pytest.fixture
def spool(tmp_path):
    """A spool in which three updates wait for the destination `sqlite`, and three dead letters lie."""
    path = tmp_path / "spool" / "spool.db"
    patches = InMemoryPatchExporter(lambda patch: CONFLICT if patch.target.span_id <= 3 else DOWN)
    pipeline = om.configure(
        om.Destination("sqlite", RecordingSpanExporter(), patches),
        tracer_provider=TracerProvider(shutdown_on_exit=False),
        spool=str(path),
    )
    for number in range(1, 7):
        om.update_span(om.SpanRef(7, number), metadata={"a": f"secret-{number}"})
    om.flush()
    pipeline.shutdown()
    return path


def listed(path):
    code, lines, _ = call("list", "--spool", path)
    assert code == 0
    return [json.loads(line) for line in lines]


def test_list_shows_what_waits_and_what_was_given_up(spool):
    """Piped, each destination and each dead letter is a JSON object on a line, without values."""
    waiting, *letters = listed(spool)
    assert waiting.pop("oldest").startswith("20")
    assert waiting == {"kind": "waiting", "destination": "sqlite", "updates": 3, "spans": 0}
    assert [(one["number"], one["reason"], one["error"], one["tries"]) for one in letters] == [
        (number, "rejected", "type_conflict", 1) for number in (1, 2, 3)
    ]
    assert "secret" not in json.dumps([waiting, *letters])


EVIL = "[red]\x1b]0;pwned\x07\u202e\x9b2J\u200b\n:smile:"


@pytest.fixture
def hostile_spool(tmp_path):
    """A spool whose destination has a name that a terminal and rich would obey."""
    path = tmp_path / "spool.db"
    patches = InMemoryPatchExporter(lambda patch: CONFLICT if patch.target.span_id == 1 else DOWN)
    pipeline = om.configure(
        om.Destination(EVIL, RecordingSpanExporter(), patches),
        tracer_provider=TracerProvider(shutdown_on_exit=False),
        spool=str(path),
    )
    for number in (1, 2):
        om.update_span(om.SpanRef(7, number), metadata={EVIL: 1})
    om.flush()
    pipeline.shutdown()
    return path


def test_names_are_shown_and_not_obeyed(hostile_spool, monkeypatch):
    """On a terminal, a name has neither colours of rich nor commands of the terminal; as JSON it is exact."""
    assert {one["destination"] for one in listed(hostile_spool)} == {EVIL}
    monkeypatch.setattr("otel_metadata.cli.spool.speaks_json", lambda _: False)
    monkeypatch.setenv("COLUMNS", "200")
    code, lines, _ = call("list", "--spool", hostile_spool)
    assert code == 0
    shown = "\n".join(lines)
    assert shown.count(r"[red]\x1b]0;pwned\x07\u202e\x9b2J\u200b\n:smile:") == 2
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", shown)


def test_a_path_is_one_line(tmp_path):
    """Also in an error."""
    code, _, error = call("list", "--spool", f"{tmp_path}/\x1b[2J\nnext")
    assert code == 1
    assert error.count("\n") == 1
    assert r"\x1b[2J\nnext: no such file" in error


def test_show_shows_values_only_when_asked(spool):
    """One dead letter with the names of its fields; with --values what it would have set."""
    _, (line,), _ = call("show", 2, "--spool", spool)
    assert json.loads(line)["fields"] == [{"level": "span", "kind": "metadata", "key": "a"}]
    assert json.loads(line)["message"] == "metadata.a is a number there"
    _, (line,), _ = call("show", 2, "--values", "--spool", spool)
    assert json.loads(line)["fields"][0]["value"] == "secret-2"


def test_retry_lets_a_dead_letter_wait_again(spool):
    """What is tried again is no dead letter any more, and waits for its destination."""
    assert call("retry", 1, 3, "--spool", spool)[:2] == (0, ["2 of 2 wait again."])
    waiting, letter = listed(spool)
    assert (waiting["updates"], letter["number"]) == (5, 2)


def test_drop_asks_first(spool):
    """Dead letters are erased for good only when it was confirmed, or --yes was said."""
    assert call("drop", 1, "--spool", spool, answer="n\n")[0] == 1
    assert len(listed(spool)) == 4
    assert call("drop", "--all", "--yes", "--spool", spool)[:2] == (0, ["3 erased."])
    assert len(listed(spool)) == 1


def test_drain_sends_what_is_left(spool, tmp_path):
    """Another process sends what waits, to the destination of the same name, and says what became of it."""
    url = f"sqlite:///{tmp_path / 'spans.db'}"
    code, lines, _ = call("drain", "--spool", spool, "--to", url)
    assert (code, lines) == (0, ["sqlite: 3 taken over, 3 delivered, 0 given up, 0 left in the spool."])
    assert [one["kind"] for one in listed(spool)] == ["dead_letter"] * 3


def test_drain_says_what_it_gave_up_and_what_is_left_and_why(spool, tmp_path, monkeypatch):
    """Per destination: what was sent, what was given up and what stays, each with what the backend said."""

    def answer(patch):
        return {4: CONFLICT, 5: DOWN}.get(patch.target.span_id)

    def made(*_, **__):
        return (
            om.Destination(
                "sqlite", RecordingSpanExporter(), InMemoryPatchExporter(lambda p: answer(p) or Delivered())
            ),
        )

    monkeypatch.setattr("otel_metadata.cli.spool.make_destinations", made)
    code, lines, _ = call("drain", "--spool", spool, "--to", "sqlite:///unused.db", "--timeout-seconds", "1")

    assert code == 1
    assert lines[0] == "sqlite: 3 taken over, 1 delivered, 1 given up, 1 left in the spool."
    assert lines[1] == "  given up: 1 dead letter: type_conflict: metadata.a is a number there"
    assert re.fullmatch(r"  left: 1 update and 0 held spans, the oldest of \d+ (s|min) ago", lines[2])
    assert lines[3:] == ["  not sent: 1 span or patch: connection_failure: down"]


def test_drain_says_what_waits_for_a_destination_that_was_not_named(spool, tmp_path):
    """A spool whose destination has another name: nothing is sent, and the command says which one is missing."""
    code, lines, _ = call("drain", "--spool", spool, "--to", "console")

    assert lines == [
        "console: 0 taken over, 0 delivered, 0 given up, 0 left in the spool.",
        "sqlite: 3 updates and 0 held spans left; expected a destination of this name (--to), or a process that has "
        "one.",
    ]
    assert code == 0


def test_drain_shows_hostile_names_and_answers_on_one_line(hostile_spool, monkeypatch):
    """What a backend said may be anything."""
    evil = Retry(DeliveryError("connection_failure", EVIL))

    def made(*_, **__):
        return (om.Destination(EVIL, RecordingSpanExporter(), InMemoryPatchExporter(lambda _: evil)),)

    monkeypatch.setattr("otel_metadata.cli.spool.make_destinations", made)
    _, lines, _ = call("drain", "--spool", hostile_spool, "--to", "x", "--timeout-seconds", "1")

    assert len(lines) == 3
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", "".join(lines))


def test_what_was_retried_is_drained_with_its_values(spool, tmp_path):
    """A dead letter that waits again is delivered as it was made."""
    call("retry", "--all", "--spool", spool)
    url = f"sqlite:///{tmp_path / 'spans.db'}"
    assert call("drain", "--spool", spool, "--to", url)[1] == [
        "sqlite: 6 taken over, 6 delivered, 0 given up, 0 left in the spool."
    ]
    import sqlite3

    connection = sqlite3.connect(tmp_path / "spans.db")
    values = [row[0] for row in connection.execute("SELECT value FROM fields ORDER BY span_id")]
    connection.close()
    assert values == [f'"secret-{number}"' for number in range(1, 7)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list"], "no spool was named; expected --spool PATH, or OTEL_PYTHON_METADATA_SPOOL."),
        (["list", "--spool", "nowhere.db"], "nowhere.db: no such file; expected the spool that"),
        (["drain", "--spool", "{spool}", "--to", "nowhere"], "destination is 'nowhere'; expected a Destination"),
        (["show", "9", "--spool", "{spool}"], "there is no dead letter 9; expected one of [1, 2, 3]."),
        (["drop", "--spool", "{spool}"], "no dead letter was named; expected numbers as"),
    ],
)
def test_an_error_is_one_line(spool, words, message):
    """What cannot be done is one line that says what to do, and exit code 1."""
    code, lines, error = call(*[word.format(spool=spool) for word in words])
    assert (code, lines) == (1, [])
    assert error.startswith(f"otel-metadata: {message}")
    assert error.count("\n") == 1


def test_the_spool_can_be_named_by_the_environment(spool, monkeypatch):
    """OTEL_PYTHON_METADATA_SPOOL stands for --spool."""
    monkeypatch.setenv("OTEL_PYTHON_METADATA_SPOOL", str(spool))
    assert len(call("list")[1]) == 4


def test_another_file_is_left_as_it_is(tmp_path):
    """A file that is no spool is named, and not changed."""
    (tmp_path / "private").mkdir(mode=0o700)
    path = tmp_path / "private" / "notes.txt"
    path.write_text("dear diary " * 100)
    code, _, error = call("list", "--spool", path)
    assert (code, path.read_text()) == (1, "dear diary " * 100)
    assert "not an SQLite database" in error
