"""`otel-metadata demo --serve`: what is in its store, how it goes on, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import urllib3

from otel_metadata.cli.demo_application import changes
from otel_metadata.cli.demo_serve import apply, fill
from otel_metadata.client import Client
from otel_metadata.store.sqlite.store import SqliteStore

PATIENCE = 60
PROGRAM = [sys.executable, "-c", "from otel_metadata.cli import main; main()", "demo", "--serve"]
NOW_NS = 1_790_000_000 * 1_000_000_000
DAY_NS = 86_400 * 1_000_000_000


def test_the_demo_goes_on_in_the_page_until_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else has the usual port; the browser is told where the page is; what changes comes while one watches."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", f"{temporary}")
    opened = tmp_path / "opened"
    monkeypatch.setenv("BROWSER", f"{sys.executable} -c \"open({str(opened)!r}, 'w').write('%s')\"")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 4318))
            taken.listen()
        except OSError:
            pass  # then somebody has it indeed
        running = subprocess.Popen(PROGRAM, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert running.stderr is not None
            said = running.stderr.readline()
            found = re.search(r"the demo is at (http://127\.0\.0\.1:(\d+))/ and goes on", said)
            assert found is not None, said + running.stderr.read()
            assert found[2] != "4318"
            http = urllib3.PoolManager(retries=False, timeout=PATIENCE)
            assert b"<div id" in http.request("GET", f"{found[1]}/").data
            traces = http.request("GET", f"{found[1]}/api/v1/traces?limit=1000").json()["traces"]
            assert len(traces) > 100
            events = http.request("GET", f"{found[1]}/api/v1/events", preload_content=False)
            assert any(line.startswith(b"event: changed") for line in events)
            events.release_conn()
            http.clear()
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=PATIENCE)
        finally:
            running.kill()
            running.communicate()
    assert (running.returncode, out) == (0, "")
    assert err == "otel-metadata: ended; the spans of the demo are removed.\n"
    assert list(temporary.iterdir()) == []
    assert opened.read_text() == f"{found[1]}/"


def test_the_store_of_the_demo_can_be_kept(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [*PROGRAM, "--no-browser", "--keep", "kept.db"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stderr is not None
        assert "the demo is at" in running.stderr.readline()
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 0
    assert err == f"otel-metadata: ended; the spans are in {tmp_path / 'kept.db'}.\n"
    with Client(f"sqlite:///{tmp_path / 'kept.db'}") as client:
        assert len(client.spans.list(limit=5)) == 5
    again = subprocess.run(
        [*PROGRAM, "--keep", "kept.db"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert again.returncode == 2
    assert "the file exists already" in again.stderr


def test_the_demo_has_what_one_looks_for(tmp_path: Path) -> None:
    """Errors of each kind, streams, verdicts, and corrections by people; nothing from the future."""
    with closing(SqliteStore(tmp_path / "demo.db")) as store:
        fill(store, NOW_NS)
    with Client(f"sqlite:///{tmp_path / 'demo.db'}") as client:

        def found(condition: str) -> int:
            return len(client.spans.list(filter=condition, start_time="2020-01-01", limit=9_000))

        assert found("parent_id IS NULL") > 300
        assert found(f"start_time > '{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(NOW_NS / 1e9))}'") == 0
        assert found("span_kind = 'LLM' AND status_code = 'ERROR' AND latency_ms > 20000") > 3
        assert found("span_kind = 'TOOL' AND status_message LIKE 'OrderNotFound%'") > 3
        assert found("user_id = 'u-7' AND eval.Correctness.label = 'incorrect'") > 2
        assert found("route.metadata.stream = 'in_flight' AND metadata.first_token_ms > 0") > 100
        assert found("metadata.thumbs = 'down' AND author.metadata.thumbs IN ('page:ada', 'page:ben')") > 5
        assert found("route.metadata.plan = 'live' AND route.eval.Correctness = 'late'") > 100
        assert found("project = 'ticket-digest' AND parent_id IS NULL") > 3
        corrected = client.spans.list(filter="annotation.quality.label = 'wrong'", start_time="2020-01-01")[0]
        thumbs = client.spans.history(corrected.span_id, "metadata.thumbs")
        assert [(one.value, one.route) for one in thumbs] == [("down", "late"), ("up", "late")]
        assert thumbs[1].author == "shop-site"


def test_what_is_to_come_goes_on_without_end_and_in_order(tmp_path: Path) -> None:
    """Feedback on what is watched comes within a minute or two, on spans that are stored by then."""
    with closing(SqliteStore(tmp_path / "demo.db")) as store:
        coming = fill(store, NOW_NS)
        next_changes = [next(coming) for _ in range(600)]
        times = [one.time_ns for one in next_changes]
        assert times == sorted(times)
        assert times[0] > NOW_NS
        assert times[-1] < NOW_NS + DAY_NS
        apply(store, next_changes)
        ended = {one.span_id: one.time_ns for one in next_changes if one.span is not None}
        late = [one for one in next_changes if one.span is None and one.span_id in ended]
        assert len(late) > 20
        assert all(ended[one.span_id] < one.time_ns < ended[one.span_id] + 60 * 1_000_000_000 for one in late)


def test_two_demos_are_alike() -> None:
    """The same now makes the same changes."""
    some, others = (changes(NOW_NS) for _ in range(2))
    assert [next(some) for _ in range(3_000)] == [next(others) for _ in range(3_000)]
