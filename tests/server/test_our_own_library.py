"""Our own library against a server in a process of its own: live, in flight and late, and a server that is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.server.conftest import PATIENCE, Child

import otel_metadata as om
from otel_metadata.client.client import Client

SERVER = """
import sys, threading
from otel_metadata.server.run import LocalServer
from otel_metadata.store.sqlite.store import SqliteStore

server = LocalServer(SqliteStore(sys.argv[1]), port=int(sys.argv[2])).start()
print(server.port, flush=True)
threading.Event().wait()
"""

APPLICATION = """
import sys
import otel_metadata as om

pipeline = om.configure(sys.argv[1], spool=sys.argv[2], author="shop")
spans = []
for line in sys.stdin:
    word, _, given = line.strip().partition(" ")
    if word == "span":
        with om.start_span(given) as span:
            span.update(metadata={"live": given, "nested": {"a": [None, 1.5]}})
        spans.append(span.ref)
        receipt = om.update_span(span.ref, metadata={"in_flight": given})
        print(span.ref, receipt.route, flush=True)
    elif word == "late":
        print(om.update_span(om.SpanRef.from_text(given), metadata={"late": "shop"}).route, flush=True)
    elif word == "many":
        # Each is one that was answered: what the server has acknowledged it must have after a kill.
        for number in range(int(given)):
            with om.start_span("many") as span:
                span.update(metadata={"n": number})
            spans.append(span.ref)
            om.update_span(spans[number // 2], metadata={f"late {number}": number})
            if number % 10 == 9:
                om.flush(200)
                print("sent", number + 1, flush=True)
    elif word == "flush":
        print(om.flush(int(given)), flush=True)
    elif word == "state":
        counts = pipeline.stats().destinations["serve"]
        print(counts.delivered, counts.waiting, counts.adopted, flush=True)
"""


class World:
    """A server, whose port stays the same after a restart, and applications that send to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []
        self.server = self.started(SERVER, f"{folder}/spans.db", "0")
        self.port = self.server.line()
        self.url = f"serve://127.0.0.1:{self.port}"

    def started(self, program: str, *arguments: str) -> Child:
        self.children.append(Child(program, *arguments))
        return self.children[-1]

    def application(self) -> Child:
        return self.started(APPLICATION, self.url, f"{self.folder}/spool.db")

    def restart(self) -> None:
        self.server = self.started(SERVER, f"{self.folder}/spans.db", self.port)
        assert self.server.line() == self.port

    def close(self) -> None:
        for child in reversed(self.children):
            if child.process.poll() is None:
                child.kill()
            else:
                child.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(World(tmp_path)) as world:
        yield world


def test_live_in_flight_and_late_values_are_seen_with_route_and_author(world: World) -> None:
    """Of two processes: an application that sends, and a program that updates a stored span by its id."""
    shop = world.application()
    ref, route = shop.ask("span work").split()
    assert route == "in_flight"
    assert shop.ask("flush 20000") == "True"
    assert shop.ask(f"late {ref}") == "late"
    assert shop.ask("flush 20000") == "True"
    span_id = om.SpanRef.from_text(ref).span_id_hex
    judge = f"""
import otel_metadata as om
with om.Client({world.url!r}, author="judge") as client:
    print(client.spans.update({span_id!r}, metadata={{"verdict": "good", "live": "replaced"}}).spans_updated)
    print(client.spans.update({span_id!r}, level="trace", tags=["seen"]).spans_updated)
"""
    done = subprocess.run([sys.executable, "-c", judge], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout.split(), done.stderr) == (["1", "1"], "")

    with Client(world.url) as client:
        record = client.spans.get(span_id)
        history = {
            (value.key, value.value if isinstance(value.value, str) else None): (value.route, value.author)
            for value in client.spans.history(span_id)
        }
        (row,) = client.traces.list()
        late = client.spans.list(filter="author.metadata.verdict = 'judge' AND route.metadata.live = 'late'")
    assert dict(record.metadata) == {
        "live": "replaced",
        "nested": {"a": [None, 1.5]},
        "in_flight": "work",
        "late": "shop",
        "verdict": "good",
    }
    assert record.trace_tags == ("seen",)
    assert history == {
        ("live", "work"): ("live", "shop"),
        ("nested", None): ("live", "shop"),
        ("in_flight", "work"): ("in_flight", "shop"),
        ("late", "shop"): ("late", "shop"),
        ("live", "replaced"): ("late", "judge"),
        ("verdict", "good"): ("late", "judge"),
        ("seen", None): ("late", "judge"),
    }
    assert (row.name, row.spans, row.late_values) == ("work", 1, 4)
    assert [one.span_id for one in late] == [span_id]


def test_nothing_is_lost_when_the_server_is_killed(world: World) -> None:
    """In the middle of spans and updates: what was acknowledged is on disk, and the rest waits for the next server."""
    shop = world.application()
    shop.tell("many 60")
    while shop.line() != "sent 20":
        pass
    world.server.kill()
    while shop.line() != "sent 60":
        pass
    assert shop.ask("flush 300") == "False"
    world.restart()
    assert shop.ask("flush 60000") == "True"

    with Client(world.url) as client:
        spans = [*client.spans.iter()]
    numbers = sorted(record.metadata["n"] for record in spans)  # type: ignore[type-var] # numbers
    assert numbers == [*range(60)]
    late = {key: value for record in spans for key, value in record.metadata.items() if key != "n"}
    assert late == {f"late {number}": number for number in range(60)}


def test_what_waits_on_disk_is_sent_by_the_next_application(world: World) -> None:
    """The server and then the application are killed; the spool has the update that neither has seen through."""
    shop = world.application()
    ref, _ = shop.ask("span work").split()
    assert shop.ask("flush 20000") == "True"
    world.server.kill()
    assert shop.ask(f"late {ref}") == "late"
    assert shop.ask("flush 300") == "False"
    shop.kill()
    world.restart()
    following = world.application()
    assert following.ask("flush 60000") == "True"

    with Client(world.url) as client:
        (value,) = client.spans.history(om.SpanRef.from_text(ref).span_id_hex, "metadata.late")
    assert (value.value, value.route, value.author) == ("shop", "late", "shop")
