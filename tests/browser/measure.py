"""Measures the page in Chromium, and prints a table: `.venv-browser/bin/python -m tests.browser.measure`.

With a number of spans behind it, it measures the list over so many stored spans instead.
Times begin with the navigation, or with the key, and end after the frame that shows the result.
"""

from __future__ import annotations

import gzip
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright
from tests.browser import application
from tests.browser.conftest import CHROMIUM

from otel_metadata.server.page_files import FILES
from otel_metadata.server.run import LocalServer
from otel_metadata.store.sqlite.store import SqliteStore

ROUNDS = 5

PAINTED = """selector => new Promise(done => {
  const look = () => document.querySelector(selector)
    ? requestAnimationFrame(() => setTimeout(() => done(performance.now()))) : requestAnimationFrame(look);
  look();
})"""

PRESSED = """key => new Promise(done => {
  const start = performance.now();
  document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""

SERVER = """() => performance.getEntriesByType('resource').filter(one => /api.*traces/.test(one.name))
  .map(one => one.duration)[0]"""

# How long the page could not answer a key, at most. Tasks below 50 ms are not reported (W3C, "Long Tasks API").
LONGEST = """() => new Promise(done => {
  new PerformanceObserver(list => done(Math.max(...list.getEntries().map(one => one.duration))))
    .observe({type: 'longtask', buffered: true});
  setTimeout(() => done(0), 1000);
})"""


def main() -> None:
    """Print every row."""
    row("what", "measured", "aim")
    loaded = [path for path in FILES if not path.startswith("vendor/") or path.endswith(".js")]
    row(
        "page with all places, compressed",
        f"{sum(len(gzip.compress(FILES[path], 9)) for path in loaded) / 1_000:.0f} kB",
        "",
    )
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "page.db")
        application.fill(store, time.time_ns())
        traces = {
            count: application.large(store, time.time_ns(), count, 900 + number)
            for number, count in enumerate((10_000, 100_000))
        }
        with LocalServer(store).start() as server, sync_playwright() as playwright:
            sandbox = ["--no-sandbox"] * (os.geteuid() == 0)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
            page = browser.new_context(base_url=server.url, viewport={"width": 1280, "height": 800}).new_page()
            page.goto("/")  # the files are in the browser's cache from here on
            row("list, painted", painted(page, "/", ".rows tbody tr"), "300 ms")
            late_update(page, store)
            for count, trace in traces.items():
                large(page, count, trace)
            browser.close()
        store.close()


def listed(spans: int) -> None:
    """Print how long the list takes over a store of so many spans."""
    rows = ".rows tbody tr"
    row("what", "measured", "aim")
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "page.db")
        application.many(store, time.time_ns(), spans)
        with LocalServer(store).start() as server, sync_playwright() as playwright:
            sandbox = ["--no-sandbox"] * (os.geteuid() == 0)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
            page = browser.new_context(base_url=server.url, viewport={"width": 1280, "height": 800}).new_page()
            page.goto("/")
            of = f"{spans:,} spans"
            row(f"list of traces over {of}, painted", painted(page, "/", rows), "300 ms")
            row(f"list of spans over {of}, painted", painted(page, "/?rows=spans", rows), "300 ms")
            for text in ("metadata.plan = 'team'", "metadata.batch = 7", "status_code = 'ERROR'", "user_id = 'u-7'"):
                path = f"/?rows=spans&filter={quote(text)}"
                row(f"{text} over {of}, painted", painted(page, path, rows), "300 ms")
            browser.close()
        store.close()


def late_update(page: Page, store: SqliteStore) -> None:
    span = (f"{application.trace_id(5):032x}", f"{application.span_id(5, 1):016x}")
    page.goto(f"/traces/{span[0]}?span={span[1]}")
    page.locator(".values tbody tr").first.wait_for()
    took = []
    for number in range(ROUNDS):
        fields: Any = {("span", "metadata", "round"): (f"round {number}", (time.time_ns(), application.ADA))}
        start = time.perf_counter()
        store.patch_rows([(*span, fields)], route="late")
        page.wait_for_function(
            "text => document.querySelector('.values').textContent.includes(text)", arg=f"round {number}"
        )
        took.append((time.perf_counter() - start) * 1_000)
    row("late update of another process, visible", shown(took), "500 ms")


def large(page: Page, count: int, trace: str) -> None:
    what = f"trace of {count:,} spans"
    row(
        f"{what}, painted",
        painted(page, f"/traces/{trace}", ".tree-rows [role=row]"),
        "800 ms" if count == 10_000 else "",
    )
    row(f"{what}, of it until the answer has come", f"{page.evaluate(SERVER):.0f} ms", "")
    row(f"{what}, longest task of the page", f"{page.evaluate(LONGEST):.0f} ms", "")
    for keys, name in (
        ("jj", "select"),
        (("End", "Home"), "last and first row"),
        ("hl", "fold and unfold all"),
        ("eE", "next error"),
    ):
        took = [page.evaluate(PRESSED, key) for _ in range(ROUNDS) for key in keys]
        row(f"{what}, {name}", shown(took), "100 ms")


def painted(page: Page, path: str, selector: str) -> str:
    took = []
    for _ in range(ROUNDS):
        page.goto("about:blank")
        page.goto(path, wait_until="commit")
        took.append(page.evaluate(PAINTED, selector))
    return shown(took)


def shown(took: list[float]) -> str:
    return f"{statistics.median(took):.0f} ms (slowest {max(took):.0f})"


def row(what: str, measured: str, aim: str) -> None:
    print(f"| {what} | {measured} | {aim} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        listed(int(sys.argv[1]))
    else:
        main()
