"""The files of the embedded store under a running application: removed, moved, replaced, emptied, cut off, locked.

What is written afterwards is in the file that has the name then, or its write is an error.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.store.contract import ended_span, metadata, only

import otel_metadata as om
from otel_metadata.destination_factory import open_store
from otel_metadata.environment import absolute_path
from otel_metadata.errors import ConfigurationError, StoreError
from otel_metadata.exporters.store import StorePatchExporter, StoreSpanExporter
from otel_metadata.model.outcome import Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.spool.spool_settings import SpoolSettings
from otel_metadata.store.sqlite import store as sqlite_module
from otel_metadata.store.sqlite.store import SqliteStore

ALL = ("", "-wal", "-shm")
TRACE = 0x0AF7651916CD43DD8448EB211C80319C


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    return directory / "spans.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """An application's store that has written a span named `before`, and has read it."""
    store = SqliteStore(path)
    store.write([ended_span(1, name="before")])
    assert only(store).name == "before"
    yield store
    store.close()


def names(path: Path) -> list[str]:
    """Return what another process finds at the path."""
    other = SqliteStore(path, create=False)
    try:
        return sorted(record.name for record in other.query(SpanQuery()))
    finally:
        other.close()


def write(store: SqliteStore) -> None:
    store.write([ended_span(2, name="after")])


def backup(path: Path) -> Path:
    """Return a whole store of another time, in one file."""
    other = SqliteStore(path.with_name("backup.db"))
    other.write([ended_span(3, name="of the backup")])
    other.close()
    return Path(other.path)


def remove(path: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("old.db"))


def restore(path: Path) -> None:
    backup(path).replace(path)


def restore_alone(path: Path) -> None:
    remove(path, "-wal", "-shm")
    restore(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_directory_anew(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.mkdir()


def link_to_another(path: Path) -> None:
    remove(path, *ALL)
    path.symlink_to(backup(path.with_name("else.db")))


@pytest.mark.parametrize(
    ("happens", "kept"),
    [
        (lambda path: remove(path, *ALL), []),
        (lambda path: remove(path, ""), []),
        (lambda path: remove(path, "", "-wal"), []),
        (lambda path: remove(path, "", "-shm"), []),
        (lambda path: remove(path, "-wal"), ["before"]),
        (lambda path: remove(path, "-shm"), ["before"]),
        (lambda path: remove(path, "-wal", "-shm"), ["before"]),
        (move, []),
        (empty, []),
        (restore, ["of the backup"]),
        (restore_alone, ["of the backup"]),
        (link_to_another, ["of the backup"]),
        (make_directory_anew, []),
    ],
    ids=lambda one: None if isinstance(one, list) else getattr(one, "__name__", "removed"),
)
@pytest.mark.parametrize("is_folded_in", [False, True])
def test_later_spans_are_in_the_file_that_has_the_name(
    store: SqliteStore, path: Path, happens: Callable[[Path], None], kept: list[str], is_folded_in: bool
) -> None:
    """No call fails, the file is sound, and what was there before is what the file has."""
    if is_folded_in:
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA wal_checkpoint(FULL)")
        other.close()
    happens(path)
    write(store)
    assert sorted(record.name for record in store.query(SpanQuery())) == sorted(["after", *kept])
    assert names(path) == sorted(["after", *kept])
    store.close()
    with sqlite3.connect(path) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()
    assert names(path) == sorted(["after", *kept])


def test_a_file_that_was_moved_is_whole(store: SqliteStore, path: Path) -> None:
    """What was in the log of the old file is in it when the application has let it go."""
    move(path)
    write(store)
    assert names(path.with_name("old.db")) == ["before"]


def test_a_reader_follows_too(store: SqliteStore, path: Path) -> None:
    """A reader that was open shows the new file, and says so where there is none; it makes none."""
    reader = SqliteStore(path, create=False)
    assert only(reader).name == "before"
    remove(path, *ALL)
    with pytest.raises(StoreError, match="no such file"):
        reader.query(SpanQuery())
    assert not path.exists()
    write(store)
    assert only(reader).name == "after"
    reader.close()


def test_a_patch_for_a_span_that_went_away_waits_for_it(store: SqliteStore, path: Path) -> None:
    """It is in the new file, as a patch that came before its span."""
    remove(path, *ALL)
    store.patch([Patch(SpanRef(TRACE, 1), metadata(late=1))])
    assert store.query(SpanQuery()) == []
    store.write([ended_span(1, name="sent again")])
    assert only(store).metadata == {"late": 1}


@pytest.mark.parametrize("size", [4096, 8192, 100])
def test_a_file_that_was_cut_off_takes_nothing(store: SqliteStore, path: Path, size: int) -> None:
    """What is missing cannot be told from cached pages, so the file is checked; a new one in its place is used."""
    store.write([ended_span(10 + number, name="x" * 2_000) for number in range(50)])
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    write(store)  # in the log
    os.truncate(path, size)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"malformed|not a database|disk I/O"):
            store.write([ended_span(3, name="later")])
    for suffix in ALL:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    store.write([ended_span(3, name="later")])
    assert names(path) == ["later"]


def test_a_file_that_vacuum_has_made_smaller_is_sound(store: SqliteStore, path: Path) -> None:
    store.write([ended_span(10 + number, name="x" * 2_000) for number in range(50)])
    store.write([])
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.write([])
        before = path.stat().st_size
        other.execute("DELETE FROM spans WHERE name <> 'before'")
        other.commit()
        other.isolation_level = None
        other.execute("VACUUM")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    assert path.stat().st_size < before
    write(store)
    assert names(path) == ["after", "before"]


def test_a_directory_that_is_gone_is_an_error_until_it_is_back(store: SqliteStore, path: Path) -> None:
    """Nothing is delivered meanwhile: spans fail, patches are tried again, and both arrive later."""
    spans, patches = StoreSpanExporter(store), StorePatchExporter(store)
    shutil.rmtree(path.parent)
    assert spans.export([ended_span(2, name="after")]) is SpanExportResult.FAILURE
    patch = Patch(SpanRef(TRACE, 2), metadata(late=1))
    assert isinstance(patches.export([patch], timeout_millis=1_000)[0], Retry)
    path.parent.mkdir()
    assert spans.export([ended_span(2, name="after")]) is SpanExportResult.SUCCESS
    patches.export([patch], timeout_millis=1_000)
    assert only(store).metadata == {"late": 1}


def test_a_file_that_vanishes_during_a_write_is_no_success(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed into a file without a name is written again by whoever hears of the error."""
    merge = sqlite_module._field_rows

    def vanishing(*arguments: object) -> object:
        remove(path, *ALL)
        return merge(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patching:
        patching.setattr(sqlite_module, "_field_rows", vanishing)
        with pytest.raises(StoreError, match="removed or replaced during a write"):
            store.patch([Patch(SpanRef(TRACE, 2), metadata(late=1))])
    store.patch([Patch(SpanRef(TRACE, 2), metadata(late=1))])
    write(store)
    assert only(store).metadata == {"late": 1}


@pytest.mark.parametrize("way", ["file", "directory"])
def test_what_may_not_be_written_is_written_once_it_may(way: str) -> None:
    """SQLite keeps a connection read-only that was opened so; and a directory may be closed while it is in use."""
    program = """
        import os, sys, tempfile
        from tests.store.spans import ended_span
        from otel_metadata.errors import StoreError
        from otel_metadata.model.record import SpanQuery
        from otel_metadata.store.sqlite.store import SqliteStore
        if os.geteuid() == 0:
            os.seteuid(65534)  # root may do everything
        directory = tempfile.mkdtemp()
        path = directory + "/spans.db"
        store = SqliteStore(path)
        store.write([ended_span(1)])
        if sys.argv[1] == "file":
            store.close()
            os.chmod(path, 0o400)
        else:
            os.chmod(directory, 0)
        for _ in range(2):
            try:
                store.write([ended_span(2)])
            except StoreError as error:
                print("refused")
        os.chmod(directory, 0o700)
        for name in os.listdir(directory):
            os.chmod(directory + "/" + name, 0o600)  # SQLite has made the log as it found the file
        store.write([ended_span(3)])
        print(len(store.query(SpanQuery())))
        store.close()
        os.unlink(path)
        os.rmdir(directory)
        """
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in program.splitlines()), way],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (run.returncode, run.stdout) == (0, "refused\nrefused\n2\n"), run.stderr


@pytest.mark.parametrize(("gone", "kept"), [([""], []), (list(ALL), []), (["-wal", "-shm"], ["before"] * 4)])
def test_several_processes_meet_in_the_same_files(path: Path, gone: list[str], kept: list[str]) -> None:
    """Each notices by itself; nothing of an old log gets into a new file, and a log that was removed is not lost."""
    program = """
        import sys
        from tests.store.spans import ended_span
        from otel_metadata.errors import StoreError
        from otel_metadata.store.sqlite.store import SqliteStore
        store, number = SqliteStore(sys.argv[1]), int(sys.argv[2])
        store.write([ended_span(number, name="before")])
        print("written", flush=True)
        sys.stdin.readline()
        for one in range(20):
            while True:
                try:
                    store.write([ended_span(1_000 * number + one, name="after")])
                    break
                except StoreError as error:  # it was removed in the middle of this write, which is done again
                    assert "removed or replaced during a write" in str(error), error
        store.close()
        """
    lines = "\n".join(line[8:] for line in program.splitlines())
    running = [
        subprocess.Popen(
            [sys.executable, "-c", lines, str(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(1, 5)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
    remove(path, *gone)
    ends = [process.communicate("go\n", timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * 4
    said = {line.partition(": ")[2] for _, error in ends for line in error.splitlines()}
    assert said <= {"the file was removed or replaced; later spans go into the one of that name."}
    assert names(path) == ["after"] * 80 + kept
    with sqlite3.connect(path) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Start in `tmp_path`; a call goes to another directory."""
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    return lambda: monkeypatch.chdir(other)


def test_a_relative_path_is_that_of_its_moment(
    tmp_path: Path, elsewhere: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store, a client's, and a spool are where they were named, whoever changes the working directory later."""
    store = open_store("sqlite:///spans.db")
    spool = SpoolSettings("spool/spool.db")
    client = om.Client("sqlite:///made.db", create=True)
    elsewhere()
    assert spool.path == str(tmp_path / "spool" / "spool.db")
    store.write([ended_span(1)])
    client.spans.list()
    assert sorted(one.name for one in tmp_path.glob("*.db")) == ["made.db", "spans.db"]
    client.close()
    store.close()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert SqliteStore("~/x.db").path == f"{tmp_path}/x.db"
    assert SqliteStore(":memory:").path == ":memory:"


def test_an_export_that_takes_long_ends_where_it_was_asked_to(tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    """The file gets its name when all of it is written; the directory may have been changed by then."""
    store = open_store("sqlite:///spans.db")
    store.write([ended_span(1)])
    client = om.Client("sqlite:///spans.db")
    batches = store.export(SpanQuery())
    from otel_metadata.client.export import export_to_file, jsonl

    def slowly() -> Iterator[object]:
        for batch in batches:
            elsewhere()
            yield batch

    assert export_to_file(slowly(), "spans.jsonl", jsonl) == 1  # type: ignore[arg-type]
    assert (tmp_path / "spans.jsonl").exists()
    client.close()
    store.close()


def test_a_working_directory_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path names nothing then; an absolute one needs none."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match=r"store is 'spans\.db'; expected an absolute path, because the work"):
        open_store("sqlite:///spans.db")
    with pytest.raises(ConfigurationError, match=r"spool path is 'spool\.db'; expected an absolute path"):
        SpoolSettings("spool.db")
    assert absolute_path("x", f"{tmp_path}/a") == f"{tmp_path}/a"
    monkeypatch.chdir(tmp_path)
