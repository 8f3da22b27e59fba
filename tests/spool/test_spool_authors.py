"""The names of authors in a spool: who takes updates over knows who made them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from tests.delivery.processes import in_child

import otel_metadata as om
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.authors import AUTHORS, MAX_AUTHORS
from otel_metadata.model.outcome import Delivered, DeliveryError, Rejected
from otel_metadata.model.recent import RecentMap
from otel_metadata.spool.dead_letters import letters, retry
from otel_metadata.spool.frames import SpooledUpdate
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import RecordingSpanExporter

# An application that is killed while its updates wait: at once, or in a forked child of its own.
KILLED = """
import os, signal, sys
import otel_metadata as om
from otel_metadata.model.outcome import DeliveryError, Pause
from otel_metadata.exporters.memory import InMemoryPatchExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
exporter = InMemoryPatchExporter(lambda patch: Pause(DeliveryError("unauthorized", "down")))
provider = TracerProvider(resource=Resource({"service.name": "checkout"}), shutdown_on_exit=False)
destination = om.Destination("memory", None, exporter, spans=False)
om.configure(destination, tracer_provider=provider, spool=sys.argv[1], author=sys.argv[2] or None)
om.update_span(om.SpanRef(7, 1), metadata={"a": 1})
if sys.argv[3] == "fork" and os.fork():
    os.wait()
om.update_span(om.SpanRef(7, os.getpid()), metadata={"b": 1})
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(path, author="", way="plain"):
    """Run the application; return the ids of its processes in the order in which they were killed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", KILLED, path, author, way],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return [int(line) for line in done.stdout.split()]


def taken_over(partition):
    """Return the author of each update that is read back."""
    fields = [loaded.content.fields for loaded in partition.load(1_000, 1 << 30)]
    return [AUTHORS.name_of(max(version for _, version in one.values())[1]) for one in fields]


def put(spool, writer, number=1):
    update = SpooledUpdate(
        0, "memory", om.SpanRef(7, number), {("span", "metadata", "k"): (1, (number, writer))}, 1, number
    )
    spool.partition("memory").put(update)
    spool.sync()


def forget():
    """Know no names, as another process."""
    AUTHORS._names, AUTHORS._of_process, AUTHORS.own = RecentMap(MAX_AUTHORS), RecentMap(MAX_AUTHORS), None


def stored(path):
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT writer, name FROM authors"))


@pytest.mark.parametrize("author", ["", "nightly judge"])
def test_who_takes_over_the_updates_of_a_killed_process_knows_its_name(path, open_spool, author):
    """Though it was killed right after its first update."""
    (pid,) = killed(path, author)
    assert taken_over(open_spool().partition("memory")) == [author or f"checkout (pid {pid})"] * 2


def test_a_forked_child_has_the_name_of_its_own_process(path, open_spool):
    """Parent and child write into one file."""
    child, parent = killed(path, way="fork")
    assert sorted(taken_over(open_spool().partition("memory"))) == sorted(
        f"checkout (pid {pid})" for pid in (parent, parent, child)
    )


def test_the_name_arrives_with_the_updates(path):
    """At the destination of the process that sends them."""
    killed(path, "judge")
    destination = om.Destination("memory", RecordingSpanExporter(), InMemoryPatchExporter())
    processor = om.MetadataSpanProcessor(destination, spool=Spool(SpoolSettings(path)))
    assert processor.force_flush()
    assert [AUTHORS.name_of(patch.version[1]) for patch in destination.patch_exporter.patches] == ["judge"] * 2


def test_a_dead_letter_that_is_tried_again_keeps_its_author(path):
    """One process gives it up, another lets it wait again, a third sends it."""
    killed(path, "judge")
    seen = []

    def send(outcome):
        forget()
        exporter = InMemoryPatchExporter(
            lambda patch: seen.append((type(outcome), AUTHORS.name_of(patch.version[1]))) or outcome
        )
        destination = om.Destination("memory", None, exporter, spans=False)
        processor = om.MetadataSpanProcessor(destination, spool=Spool(SpoolSettings(path)))
        processor.force_flush()
        processor.shutdown()

    send(Rejected(DeliveryError("backend_rejection", "no")))
    forget()
    with closing(Spool(SpoolSettings(path))) as handler:
        assert retry(handler, list(letters(handler)), 0) == 2
    send(Delivered())
    assert seen == [(Rejected, "judge")] * 2 + [(Delivered, "judge")] * 2


def test_a_file_of_an_earlier_version_is_read_and_gets_the_names(path, open_spool):
    """Its updates have no author, and none of them is lost."""
    before = open_spool()
    put(before, 9)
    before.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'authors'").fetchone() == (0,)
    AUTHORS.add_own(8, "judge")
    spool = open_spool()
    assert taken_over(spool.partition("memory")) == [None]
    put(spool, 8, 2)
    assert stored(path) == {f"{8:016x}": "judge"}


def test_a_process_that_changes_its_name_writes_both(path, open_spool, clock):
    """The second is written by the worker, when it looks after the file."""
    spool = open_spool()
    AUTHORS.add_own(8, "first")
    put(spool, 8)
    AUTHORS.add_own(9, "second")
    put(spool, 9, 2)
    clock.advance(2_000)
    spool.tend()
    assert stored(path) == {f"{8:016x}": "first", f"{9:016x}": "second"}


def test_of_two_names_of_a_writer_the_greater_is_kept(path, open_spool):
    """As everywhere, so that the order does not matter."""
    for name in ("ada", "grace", "barbara"):
        AUTHORS.add_own(8, name)
        spool = open_spool()
        put(spool, 8)
        spool.close()
    assert stored(path) == {f"{8:016x}": "grace"}


def test_a_name_is_never_waited_for(path, open_spool, clock):
    """While another process writes, the update goes into its journal at once, and the name follows."""
    spool = open_spool()
    spool.partition("memory")
    AUTHORS.add_own(8, "judge")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        put(spool, 8)
        assert spool.unwritten == 0
        assert clock.monotonic_ns() == 0
        other.execute("ROLLBACK")
    clock.advance(2_000)
    spool.tend()
    assert stored(path) == {f"{8:016x}": "judge"}


def test_the_names_of_the_latest_writers_are_kept(path, open_spool, monkeypatch):
    """A spool of ever more short processes does not grow by their names."""
    monkeypatch.setattr("otel_metadata.spool.file.MAX_AUTHORS", 3)
    for writer in range(1, 7):
        AUTHORS.add_own(writer, f"author {writer}")
        spool = open_spool()
        put(spool, writer, writer)
        spool.close()
    assert list(stored(path).values()) == ["author 4", "author 5", "author 6"]


def test_damaged_names_keep_no_update_back(path, open_spool):
    """They are left out, and the rows are read."""
    AUTHORS.add_own(8, "judge")
    spool = open_spool()
    put(spool, 8)
    spool.close()
    for damage in ("UPDATE authors SET writer = 'xyz'", "UPDATE authors SET name = 5", "DROP TABLE authors"):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(damage)
        forget()
        taking = open_spool()
        assert taken_over(taking.partition("memory")) == [None]
        taking.close()


def test_a_file_that_replaces_a_damaged_one_has_the_name_again(path, open_spool, clock):
    """The living process writes its name into the new one."""
    spool = open_spool()
    AUTHORS.add_own(8, "judge")
    put(spool, 8)
    spool._fail(sqlite3.DatabaseError("database disk image is malformed"))
    spool._file._was_found_sound = True  # said to be damaged again: then it is
    for _ in range(2):
        clock.advance(2_000)
        spool.tend()
    assert [name for name in os.listdir(os.path.dirname(path)) if ".damaged-" in name]
    assert stored(path) == {f"{8:016x}": "judge"}


def test_a_child_leaves_the_name_of_its_parent_alone(path, open_spool):
    """It has a connection, and a name, of its own."""
    spool = open_spool()
    AUTHORS.add_own(8, "parent")
    put(spool, 8)

    def child():
        AUTHORS.add_own(9, "child")
        put(spool, 9, 2)
        return sorted(stored(path).values())

    assert in_child(child) == ["child", "parent"]
