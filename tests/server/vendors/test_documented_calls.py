"""The calls on the page about the server, with curl as they are written there; only the address differs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.server.conftest import PATIENCE, Server
from tests.store.contract import only

from otel_metadata.server import events, exports, filters, spans, traces, updates

PAGE = Path(__file__).parents[3] / "docs" / "server.md"
TITLE = "## Read and change spans over HTTP\n"
SECTION = re.split("^## ", PAGE.read_text().partition(TITLE)[2], flags=re.MULTILINE)[0]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
MODULES = (spans, traces, updates, exports, filters, events)


def store_documented_spans(server: Server) -> None:
    """Store the trace of the page as the page does: a newcomer has no other one."""
    found = re.search(r"^```sh\n(now=.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    line = found[1].replace("http://127.0.0.1:4318", server.url).replace("curl ", "curl --silent --fail-with-body ", 1)
    done = subprocess.run(["sh", "-e", "-c", line], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (0, {})


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_each_call_of_the_page_is_answered_as_it_says(server: Server, tmp_path: Path) -> None:
    """One after the other; a JSON block below a call has the members of its answer."""
    store_documented_spans(server)
    printed = ""
    for language, block in BLOCKS:
        if language == "json":
            wanted, got = json.loads(block), json.loads(printed)
            assert list(got) == list(wanted)
            assert all(type(got[name]) is type(wanted[name]) for name in wanted if wanted[name] is not None), got
            continue
        lines = block.replace("http://127.0.0.1:4318", server.url)
        lines = re.sub(r"\bcurl ", "curl --silent --show-error --fail-with-body ", lines)
        ends = 0
        if "/events" in lines:  # it does not end by itself: 28 is curl's word for a time that is over
            lines, ends = lines.replace("curl ", "curl --max-time 0.5 "), 28
        done = subprocess.run(
            ["sh", "-e", "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == ends, (block, done.stdout, done.stderr)
        printed = done.stdout
    assert (tmp_path / "spans.jsonl").read_bytes().count(b"\n") == 1
    assert (tmp_path / "spans.parquet").stat().st_size > 0
    assert json.loads(server.call("GET", "/api/v1/spans/b7ad6b7169203331").data)["metadata"] == {"thumbs": "up"}


def test_the_page_has_every_call() -> None:
    """Each operation is shown with a curl line."""
    lines = "".join(block for language, block in BLOCKS if language == "sh")
    for module in MODULES:
        for operation in module.OPERATIONS:
            path = re.sub(r"\\\{\w+\\\}", r"[^/?\\s']+", re.escape(operation.path))
            assert re.search(rf"http://127\.0\.0\.1:4318{path}(?=[\s'?])", lines), operation.path
            assert operation.method in {"GET", "POST"} or f"--request {operation.method} " in lines


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("vendor", ["LangWatch", "Galileo"])
def test_a_vendors_call_of_the_page_is_answered(server: Server, vendor: str) -> None:
    """As it is written there; only the address differs."""
    store_documented_spans(server)
    section = re.search(
        rf"^## Update a [a-z ]+ as {vendor}'s API does\n(.*?)(?=^## )",
        PAGE.read_text() + "\n## ",
        re.MULTILINE | re.DOTALL,
    )
    assert section is not None
    (line,) = re.findall(r"^```sh\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)
    line = line.replace("http://127.0.0.1:4318", server.url).replace("curl ", "curl --silent --fail-with-body ", 1)
    done = subprocess.run(["sh", "-e", "-c", line], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout
    record = only(server.store, trace_id=TRACE_ID, span_id=SPAN_ID)
    if vendor == "LangWatch":
        assert json.loads(done.stdout) == {"traceId": TRACE_ID}
        assert record.trace_metadata == {"labels": ["reviewed"], "environment": "staging"}
    else:
        assert json.loads(done.stdout)["span_id"] == SPAN_ID
        assert (record.output, record.tags, record.status_code) == ("42", ("checked",), 200)
