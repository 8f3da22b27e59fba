"""Makes a picture of every state of the page, in both themes and two widths: `make screenshots`.

The store is that of the demo, at a fixed time for server and browser, so a picture changes only when the page does. Two
pictures go to docs/images, for the README.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from playwright.sync_api import Browser, Page, expect, sync_playwright

from otel_metadata.cli.demo_serve import fill
from otel_metadata.client.queries import query_of
from otel_metadata.model.record import SpanRecord
from otel_metadata.seams import SystemClock
from otel_metadata.server.access import Access
from otel_metadata.server.run import LocalServer
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.sqlite.store import SqliteStore

ROOT: Final = Path(__file__).parents[1]
NOW: Final = dt.datetime(2026, 11, 30, 15, 20, tzinfo=dt.timezone.utc)
NOW_NS: Final = int(NOW.timestamp()) * 1_000_000_000
WIDTHS: Final = (1280, 400)
THEMES: Final = ("light", "dark")


class FixedClock:
    """Time that stands still for the wall, and goes on for waits."""

    wait = staticmethod(SystemClock.wait)
    monotonic_ns = staticmethod(time.monotonic_ns)

    @staticmethod
    def wall_ns() -> int:
        """Return the time of the pictures."""
        return NOW_NS


class Demo:
    """The demo's store on a server, and the spans that the pictures show."""

    def __init__(self, store: SqliteStore, url: str) -> None:
        """Look for spans that have what is to be seen."""
        self.url = url
        self.store = store
        self.corrected = self._newest("annotation.quality.label = 'wrong'")
        self.failed = self._newest("span_kind = 'TOOL' AND status_code = 'ERROR'")
        self.stream = self._newest("metadata.stream IS NOT NULL")
        self.other = self._newest(f"metadata.stream IS NOT NULL AND name != '{self.stream.name}'")
        self.digest = self._newest("name = 'digest tickets'")

    def _newest(self, condition: str) -> SpanRecord:
        query = query_of(project=None, start_time=None, end_time=None, filter=condition)
        return self.store.query(query)[0]


def trace(record: SpanRecord, more: str = "") -> str:
    """Return the address of a span in its trace."""
    return f"/traces/{record.trace_id}?span={record.span_id}{more}"


def states(demo: Demo) -> dict[str, tuple[str, Callable[[Page], None] | None]]:
    """Return the states by name: an address, and what is done there."""
    compared = [f"{one.trace_id}-{one.span_id}" for one in (demo.stream, demo.other)]
    filtered = quote("status_code = 'ERROR' AND metadata.plan = 'team'")
    nothing, calls = quote("name = 'nothing'"), quote("span_kind = 'LLM'")

    def completion(page: Page) -> None:
        page.get_by_role("combobox", name="Filter").click()
        page.keyboard.type("metadata.")
        expect(page.get_by_role("option").first).to_be_visible()

    def moment(page: Page) -> None:
        page.get_by_role("slider", name="Moment").focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".past")).to_be_visible()

    def verdict(page: Page) -> None:
        page.get_by_role("button", name="Give a verdict").click()
        page.get_by_label("Name", exact=True).fill("Correctness")
        page.get_by_label("Label").fill("incorrect")

    def receipt(page: Page) -> None:
        page.get_by_role("button", name="Set metadata").click()
        page.get_by_role("textbox", name="Key", exact=True).fill("reviewed")
        page.locator("[name=value]").fill("true")
        page.keyboard.press("Enter")
        expect(page.locator(".receipt")).to_contain_text("Stored")

    def find(page: Page) -> None:
        page.get_by_label("Search in this trace").fill("chat")
        page.get_by_label("Matches only").check()

    def lost(page: Page) -> None:
        page.route("**/api/**", lambda route: route.abort())
        page.get_by_role("button", name="Pause live updates").click()
        page.get_by_role("button", name="Resume live updates").click()
        expect(page.get_by_role("alert").first).to_be_visible()

    def numbers(page: Page) -> None:
        expect(page.locator(".numbers table").first).to_be_visible()

    return {
        "list": ("/", None),
        "list-spans": ("/?rows=spans", None),
        "list-filtered": (f"/?filter={filtered}", None),
        "list-completion": ("/?rows=spans", completion),
        "list-wrong-filter": (f"/?filter={quote('metadata.plan == 1')}", None),
        "list-no-match": (f"/?window=24h&filter={nothing}", None),
        "list-selected": ("/", lambda page: page.keyboard.press("j")),
        "list-compare": (f"/?rows=spans&compare={compared[0]}", None),
        "keys": ("/", lambda page: page.keyboard.press("?")),
        "lost": ("/", lost),
        "nowhere": ("/traces/12", None),
        "trace": (trace(demo.corrected), None),
        "trace-no-span": (f"/traces/{demo.failed.trace_id}", None),
        "trace-error": (trace(demo.failed), None),
        "trace-large": (trace(demo.digest), None),
        "trace-search": (trace(demo.digest), find),
        "trace-as-it-was": (trace(demo.corrected), moment),
        "trace-missing": (f"/traces/{1:032x}", None),
        "span-contents": (trace(demo.stream, "&tab=io"), None),
        "span-verdicts": (trace(demo.corrected, "&tab=evaluations"), None),
        "span-events": (trace(demo.stream, "&tab=events"), None),
        "span-raw": (trace(demo.stream, "&tab=raw"), None),
        "span-verdict-form": (trace(demo.corrected), verdict),
        "compare-spans": (f"/compare?a={compared[0]}&b={compared[1]}", None),
        "compare-traces": (f"/compare?a={demo.stream.trace_id}&b={demo.failed.trace_id}", None),
        "compare-nothing": ("/compare", None),
        "overview": ("/overview?by=metadata.plan", None),
        "overview-numbers": ("/overview?by=metadata.plan&numbers=latency.usage.verdicts", numbers),
        "overview-spans": (f"/overview?rows=spans&by=model&filter={calls}", None),
        "changes": ("/changes", None),
        "connect": ("/connect", None),
        "list-longest": (f"/?rows=spans&window=yesterday&sort=duration&filter={calls}", None),
        # Last, as it changes the store.
        "span-receipt": (trace(demo.stream), receipt),
    }


@contextmanager
def opened(browser: Browser, url: str, theme: str, width: int, height: int = 800) -> Iterator[Page]:
    """Open a page of its own, at the time of the pictures."""
    context = browser.new_context(
        base_url=url,
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
        timezone_id="UTC",
        locale="en-GB",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.clock.set_fixed_time(NOW)
    yield page
    context.close()


def settle(page: Page) -> None:
    """Wait until everything that was asked for is there."""
    expect(page.locator("main, .sign-in").first).to_be_visible()
    expect(page.locator(".loading")).to_have_count(0)
    expect(page.get_by_text("Adding up…")).to_have_count(0)
    page.evaluate(
        "document.fonts.ready.then(() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50))))"
    )


def take(browser: Browser, demo: Demo, folder: Path, wanted: str) -> int:
    """Make the pictures of all states, or of those whose name has a text in it; return how many."""
    count = 0
    for name, (address, act) in states(demo).items():
        if wanted not in name:
            continue
        for theme in THEMES:
            for width in WIDTHS:
                with opened(browser, demo.url, theme, width) as page:
                    page.goto(address)
                    settle(page)
                    if act is not None:
                        act(page)
                        if name != "lost":
                            settle(page)
                    if width < 700 and name != "keys":  # what is below, but not all of a long list
                        height = page.evaluate("document.documentElement.scrollHeight")
                        page.set_viewport_size({"width": width, "height": min(max(height, 800), 2_000)})
                    page.screenshot(path=folder / f"{name}-{theme}-{width}.png")
                    count += 1
    return count


def take_empty(browser: Browser, empty: str, closed: str, folder: Path) -> None:
    """Make the pictures of an empty store, and of a server that wants a token."""
    for name, url in (("empty", empty), ("sign-in", closed)):
        for theme in THEMES:
            for width in WIDTHS:
                with opened(browser, url, theme, width) as page:
                    page.goto("/?window=all")
                    settle(page)
                    page.screenshot(path=folder / f"{name}-{theme}-{width}.png")


def take_for_readme(browser: Browser, demo: Demo, folder: Path) -> None:
    """Make the two pictures of the README."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, theme, address in (
        ("trace", "light", trace(demo.corrected)),
        ("overview", "dark", "/overview?by=metadata.plan"),
    ):
        with opened(browser, demo.url, theme, 1280, 760) as page:
            page.goto(address)
            settle(page)
            page.screenshot(path=folder / f"{name}.png")


def main() -> int:
    """Make the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description="Make pictures of every state of the page.")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/screenshots")
    parser.add_argument("--only", default="", help="only states whose name has this text in it")
    given = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("no chromium was found; install the package chromium, or name the program in CHROMIUM.", file=sys.stderr)
        return 1
    given.folder.mkdir(parents=True, exist_ok=True)
    clock = FixedClock()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stores = [stack.enter_context(closing(SqliteStore(directory / f"{name}.db"))) for name in ("demo", "empty")]
        fill(stores[0], NOW_NS)
        tokens = Tokens(str(directory / "tokens.json"))
        tokens.create("ada", ["read"], None, NOW_NS)
        full, empty = (stack.enter_context(LocalServer(store, clock=clock).start()) for store in stores)
        closed = stack.enter_context(
            LocalServer(stores[1], clock=clock, access=Access(tokens, needs_token=True)).start()
        )
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] * (os.geteuid() == 0))
        demo = Demo(stores[0], full.url)
        if not given.only:
            take_for_readme(browser, demo, ROOT / "docs/images")
            take_empty(browser, empty.url, closed.url, given.folder)
        count = take(browser, demo, given.folder, given.only)
        browser.close()
    print(f"{count} pictures of states are in {given.folder}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
