"""The demo, as somebody who has just cloned the project sees it."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from otel_metadata.cli import demo
from otel_metadata.client import Client


def command(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from otel_metadata.cli import main; main()", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_demo_shows_every_route_and_ends_well(tmp_path: Path) -> None:
    """It exits with 0 and shows updates that were live, in flight and late."""
    shown = command("demo", cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert all(route in shown.stdout for route in ("live", "in_flight", "late, another process"))
    assert list(tmp_path.iterdir()) == []


def test_the_demo_ends_with_the_history_of_a_value(tmp_path: Path) -> None:
    """Up while the span was in flight, then down by another process: when, and from whom. Another story is told."""
    kept = tmp_path / "kept.db"
    shown = command("demo", "--keep", str(kept), cwd=tmp_path).stdout
    newest, oldest = re.search(r"metadata\.thumbs *\n─+\n(.*)\n(.*)\n", shown).groups()  # type: ignore[union-attr]
    assert re.fullmatch(r'○ late +\d{4}-.{19} +\+\d.* +ada +"down", was "up" *', newest)
    assert re.fullmatch(r'◐ in flight +\d{4}-.{19} +\+\d.* +demo \(pid \d+\) +"up" *', oldest)

    with Client(f"sqlite:///{kept}") as client:
        (answer,) = client.spans.list(filter="name = 'answer'")
        thumbs = client.spans.history(answer.span_id, "thumbs")
    author = thumbs[1].author
    assert demo._check_history(thumbs, author) == []
    assert demo._check_history(thumbs[:1], author) != []
    assert demo._check_history([replace(thumbs[0], author=None), thumbs[1]], author) != []


def test_the_demo_fails_when_a_value_is_wrong(tmp_path: Path) -> None:
    """What it checks is what was read back: one changed value is named."""
    kept = tmp_path / "kept.db"
    assert command("demo", "--keep", str(kept), cwd=tmp_path).returncode == 0
    with Client(f"sqlite:///{kept}") as client:
        records = client.spans.list()
    assert demo._check(records) == []
    changed = [
        replace(one, metadata={**one.metadata, "thumbs": "up"}) if one.name == "answer" else one for one in records
    ]
    assert [line.partition(":")[0] for line in demo._check(changed)] == ["metadata of answer"]


def test_the_demo_does_not_overwrite_a_file(tmp_path: Path) -> None:
    """A file that is there already is left as it is."""
    kept = tmp_path / "kept.db"
    kept.write_text("mine")
    assert command("demo", "--keep", str(kept), cwd=tmp_path).returncode == 2
    assert kept.read_text() == "mine"


def test_a_place_where_nothing_can_be_kept_is_told_at_once(tmp_path: Path) -> None:
    """One line, before anything runs."""
    done = command("demo", "--keep", "nowhere/kept.db", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "nowhere/kept.db: No such file or directory; expected" in done.stderr


def test_the_version_is_shown(tmp_path: Path) -> None:
    """`--version` prints the version and nothing else."""
    from otel_metadata._version import __version__

    assert command("--version", cwd=tmp_path).stdout.strip() == __version__
