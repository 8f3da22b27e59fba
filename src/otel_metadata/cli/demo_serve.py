"""`otel-metadata demo --serve`: a store that a realistic application fills, the server on it, and the page.

The application goes on while one watches: traces start, and feedback arrives on those that are stored.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Final

from otel_metadata.cli.demo_application import Change, changes
from otel_metadata.cli.demo_store import demo_store
from otel_metadata.cli.shell import failures, needs_extra, say
from otel_metadata.errors import ConfigurationError, StoreError
from otel_metadata.foreign_text import visible
from otel_metadata.seams import SystemClock
from otel_metadata.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

    from otel_metadata.seams import SpanStore
    from otel_metadata.server.run import LocalServer

_PORT: Final = 4318
_AT_ONCE: Final = 2_000

_logger = logging.getLogger(__name__)


def fill(store: SpanStore, now_ns: int) -> Iterator[Change]:
    """Store what happened before *now_ns*, and return what is still to come."""
    coming = changes(now_ns)
    batch: list[Change] = []
    for change in coming:
        if change.time_ns > now_ns:
            apply(store, batch)
            return chain((change,), coming)
        batch.append(change)
        if len(batch) >= _AT_ONCE:
            apply(store, batch)
            batch = []
    return iter(())


def apply(store: SpanStore, happened: Iterable[Change]) -> None:
    """Store changes: spans first, so that the feedback on each of them comes late.

    Raises:
        StoreError: They were not all stored.
    """
    happened = list(happened)
    store.write_rows([(one.span, one.fields) for one in happened if one.span is not None])
    store.patch_rows([(one.trace_id, one.span_id, one.fields) for one in happened if one.span is None])


def serve(keep: str, *, opens: bool) -> None:
    """Run it until Ctrl-C or SIGTERM.

    Args:
        keep: A file for the store, kept afterwards; "" for a temporary one.
        opens: Open the page in a browser.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with demo_store(keep) as path, failures():
        with needs_extra("server"):
            from otel_metadata.server.run import LocalServer
        logging.basicConfig(level=logging.WARNING)
        with closing(SqliteStore(path)) as store:
            _serve(store, _server(LocalServer, store), path if keep else None, opens=opens)


def _server(kind: type[LocalServer], store: SpanStore) -> LocalServer:
    try:
        return kind(store, port=_PORT)
    except ConfigurationError:
        return kind(store)  # somebody has the port already


def _serve(store: SpanStore, server: LocalServer, kept: Path | None, *, opens: bool) -> None:
    clock, is_over = SystemClock(), threading.Event()
    coming = fill(store, clock.wall_ns())

    def live() -> None:
        for change in coming:
            if clock.wait(is_over, max(0, change.time_ns - clock.wall_ns())):
                return
            try:
                apply(store, (change,))
            except StoreError as error:
                _logger.warning("A change of the demo is missing: %s", error)

    going_on = threading.Thread(target=live, name="demo-application", daemon=True)

    def tell() -> None:
        say(
            f"the demo is at {server.url}/ and goes on: traces start, and feedback comes late on those that are there; "
            "Ctrl-C ends it."
        )
        going_on.start()
        if opens and _has_screen():
            # Some browsers end first, and the page needs the server.
            threading.Thread(target=webbrowser.open, args=(f"{server.url}/",), daemon=True).start()

    try:
        server.run(tell)
    finally:
        is_over.set()
        if going_on.ident is not None:
            going_on.join()
    say("ended; " + (f"the spans are in {visible(str(kept))}." if kept else "the spans of the demo are removed."))


def _has_screen() -> bool:
    """Tell whether a browser would have a window; one without would take the terminal."""
    return sys.platform in {"win32", "darwin"} or any(map(os.environ.get, ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")))
