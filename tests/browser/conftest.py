"""A real browser on a real server. Whatever the page logs as an error, or the policy stops, fails the test."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.browser import application

from otel_metadata.server.run import LocalServer
from otel_metadata.store.sqlite.store import SqliteStore

PATIENCE_MS = 30_000
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium as the system has it, without a window."""
    if CHROMIUM is None:
        pytest.fail("no chromium was found; install the package chromium, or name the program in CHROMIUM")
    with sync_playwright() as playwright:
        # As root, as in a container, Chromium starts without its sandbox only.
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] * (os.geteuid() == 0))
        yield running
        running.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """An empty store."""
    with_spans = SqliteStore(tmp_path / "page.db")
    yield with_spans
    with_spans.close()


@pytest.fixture
def url(store: SqliteStore) -> Iterator[str]:
    """The address of a server of the store."""
    server = LocalServer(store).start()
    yield server.url
    server.stop()


@pytest.fixture
def filled(store: SqliteStore) -> SqliteStore:
    """The store with some traces."""
    application.fill(store, time.time_ns())
    return store


@pytest.fixture
def problems() -> list[str]:
    """What the page must not log; a test about a failure clears it."""
    return []


@pytest.fixture
def page(browser: Browser, url: str, problems: list[str]) -> Iterator[Page]:
    """A page in a browser that knows nothing yet."""
    context = browser.new_context(
        base_url=url, viewport={"width": 1280, "height": 800}, timezone_id="UTC", locale="en-GB"
    )
    context.set_default_timeout(PATIENCE_MS)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    tab.on("pageerror", lambda error: problems.append(f"{error}"))
    tab.on("console", lambda line: problems.append(line.text) if line.type in {"error", "warning"} else None)
    tab.on("request", lambda request: None if request.url.startswith(url) else problems.append(request.url))
    # In the page itself, as not every violation is logged.
    tab.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.error('policy', e.violatedDirective, e.blockedURI))"
    )
    yield tab
    context.close()
    assert problems == []
