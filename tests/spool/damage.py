"""A spool as a killed process leaves it, damaged on purpose, and what the next process makes of it.

`lay_down` makes the files once; `Spoolfiles.copied` gives them to a test that may damage them; `taken_over` is the next
process. `judged` states the claim: no exception, what was not hit is delivered as it was, what was is counted.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.model.merge import merge
from otel_metadata.spool.frames import MAGIC, SpooledUpdate, read_frame
from otel_metadata.spool.spool import Spool
from otel_metadata.spool.spool_settings import Durability, SpoolSettings
from otel_metadata.testing import ManualClock, RecordingSpanExporter

SUFFIXES = ("", "-wal", "-owners", "-journal-1")
NAMES = {"": "database", "-wal": "log", "-owners": "owners", "-journal-1": "journal"}

# What the pages of a record that goes over several of them are known by.
LARGE = b"x" * 64


@dataclass(frozen=True)
class SpoolFiles:
    """The files of a dead process's spool.

    Attributes:
        files: The bytes by suffix.
        records: What each row says: (span id, key) and value, by row number.
    """

    files: dict[str, bytes]
    records: dict[int, dict[tuple[int, str], Any]]

    def copied(self, folder: Path, **changed: bytes) -> Path:
        """Write the files into *folder*, with other bytes for those of `NAMES`; return the spool's path."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        for suffix, data in self.files.items():
            data = changed.get(NAMES[suffix], data)
            if data or suffix == "":
                (folder / f"spool.db{suffix}").write_bytes(data)
                (folder / f"spool.db{suffix}").chmod(0o600)
        return folder / "spool.db"

    def hit_by(self, suffix: str, at: int) -> set[int]:
        """Return the rows whose own bytes, or the head of whose cell or overflow page, are at this place."""
        hit = {row for row, where, start, end in self.places() if where == suffix and start - 16 <= at < end}
        head, page = (32, 24 + 4096) if suffix == "-wal" else (0, 4096)
        if at >= head and suffix != "-journal-1":
            start = at - (at - head) % page
            if LARGE in self.files[suffix][start : start + page]:
                hit |= {row for row, said in self.records.items() if LARGE.decode() in str(said)}
        return hit

    def places(self) -> Iterator[tuple[int, str, int, int]]:
        """Yield (row, suffix, start, end) of each whole frame that is in one piece."""
        for suffix, data in self.files.items():
            at = data.find(MAGIC)
            while at >= 0:
                found = read_frame(data, at)
                if found is not None:
                    yield int(found["i"]), suffix, at, at + 20 + int(data[at + 12 : at + 20], 16)
                at = data.find(MAGIC, at + 1)


@dataclass(frozen=True)
class TakenOver:
    """What the next process made of it.

    Attributes:
        values: What arrived, merged: value by (span id, key).
        adopted: Updates that it took over.
        lost: What was lost, by reason.
        refusal: Why it did not begin, if it refused.
    """

    values: dict[tuple[int, str], Any]
    adopted: int = 0
    lost: dict[str, int] | None = None
    refusal: str = ""


def lay_down(
    folder: Path,
    *,
    rows: int = 12,
    large: int = 20_000,
    erased: int = 0,
    copied_back: bool = False,
    journaled: bool = False,
) -> SpoolFiles:
    """Make the files as a process leaves them that is killed after *rows* updates.

    Args:
        folder: Where; it is not kept.
        rows: Updates: each of a span of its own, but that every third says something of the first span.
        large: Length of the text in one of them, which goes over several pages; 0 for none.
        erased: So many of the first were delivered and erased before.
        copied_back: Whether the log was copied into the database, and is empty.
        journaled: Whether the rows are in the journal still, rather than in the database.
    """
    path = folder / "original" / "spool.db"
    durability: Durability = "process" if journaled else "power"
    spool = Spool(SpoolSettings(str(path), durability), clock=ManualClock())
    partition = spool.partition("memory")
    records: dict[int, dict[tuple[int, str], Any]] = {}
    kept = []
    for number in range(1, rows + 1):
        span_id = 1 if number % 3 == 0 else number
        value: Any = "x" * large if large and number == rows // 2 else number
        fields = {("span", "metadata", "k"): (value, (number, 1))}
        row = partition.put(
            SpooledUpdate(0, "memory", om.SpanRef(7, span_id), fields, 1, 1_700_000_000_000_000_000 + number)
        )
        assert row is not None
        spool.sync()
        kept.append(row)
        records[row.id] = {(span_id, "k"): (number, value)}
    for row in kept[:erased]:
        del records[row.id]
    partition.settle(kept[:erased])
    spool.tend()
    if copied_back:
        with spool.reading() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    files = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in SUFFIXES if Path(f"{path}{suffix}").exists()}
    if journaled:
        files["-journal-1"] = files["-journal-1"].rstrip(b"\0")
    spool.close()
    shutil.rmtree(folder / "original")
    return SpoolFiles(files, records)


def taken_over(path: Path) -> TakenOver:
    """Be the next process: deliver all that is there; its balance is asserted, and that nothing stays behind."""
    clock = ManualClock()
    try:
        spool = Spool(SpoolSettings(str(path)), clock=clock)
    except ConfigurationError as error:
        return TakenOver({}, refusal=str(error))
    patches = InMemoryPatchExporter()
    processor = om.MetadataSpanProcessor(
        om.Destination("memory", RecordingSpanExporter(), patches, remote_grace_millis=0),
        settings=OutboxSettings(),
        clock=clock,
        start_workers=False,
        chance=lambda: 1.0,
        spool=spool,
    )
    TracerProvider(shutdown_on_exit=False).add_span_processor(processor)
    (worker,) = processor.workers
    for _ in range(8):
        clock.advance(5_000)
        while worker.step():
            pass
    stats = processor.stats().destinations["memory"]
    assert stats.is_balanced, stats
    assert stats.waiting == 0, stats
    values: dict[tuple[int, str], Any] = {}
    fields: dict[int, Any] = {}
    for patch in patches.patches:
        fields[patch.target.span_id] = merge(fields.get(patch.target.span_id, {}), patch.fields)
    for span_id, merged in fields.items():
        values.update({(span_id, name[2]): value for name, (value, _) in merged.items()})
    with spool.reading() as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone()[0] == 0
    processor.shutdown()
    stats = processor.stats().destinations["memory"]
    assert stats.is_balanced, stats
    return TakenOver(values, stats.adopted, dict(stats.lost))


def judged(spool: SpoolFiles, found: TakenOver, hit: set[int], *, may_come_back: bool = False) -> int:
    """Assert that only rows in *hit* are lost, each counted once, and all others arrived; return how many are lost.

    Args:
        spool: What was laid down.
        found: What the next process made of it.
        hit: Rows that may be lost.
        may_come_back: Whether rows that were erased may be seen again.
    """
    lost = (found.lost or {}).get("spool_damaged", 0)
    assert set(found.lost or {}) <= {"spool_damaged"}, found.lost
    safe = final(spool, set(spool.records) - hit)
    for key, (number, value) in safe.items():
        # A hit row may be there all the same, and then stands over an earlier one.
        allowed = [value, *(later for at, later in versions(spool, key, hit) if at > number)]
        assert found.values.get(key) in allowed, (key, number)
    assert lost <= len(hit), (lost, hit)
    gone = {key for key in final_values(spool) if key not in found.values}
    assert lost >= len(gone), (lost, gone)
    # One that is found in two places is delivered twice, which changes nothing.
    assert found.adopted >= len(spool.records) or may_come_back, (found.adopted, lost)
    return lost


def final(spool: SpoolFiles, rows: set[int]) -> dict[tuple[int, str], tuple[int, Any]]:
    """Return the values, with their versions, that stand when only *rows* arrive."""
    standing: dict[tuple[int, str], tuple[int, Any]] = {}
    for row in sorted(rows):
        for key, (number, value) in spool.records[row].items():
            if key not in standing or standing[key][0] < number:
                standing[key] = (number, value)
    return standing


def final_values(spool: SpoolFiles) -> dict[tuple[int, str], Any]:
    """Return the values that stand when all rows arrive."""
    return {key: value for key, (_, value) in final(spool, set(spool.records)).items()}


def versions(spool: SpoolFiles, key: tuple[int, str], rows: set[int]) -> list[tuple[int, Any]]:
    """Return what *rows* say of a key."""
    return [spool.records[row][key] for row in rows if row in spool.records and key in spool.records[row]]


def flipped(data: bytes, bit: int) -> bytes:
    """Return *data* with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def flips(
    spool: SpoolFiles, folder: Path, count: int, seed: int, *, suffixes: tuple[str, ...] = ("", "-wal")
) -> dict[str, int]:
    """Flip *count* bits, one at a time, anywhere in some of the files, and judge each; return what came of them.

    For a stress run: `flips(lay_down(folder), folder, 3_000, seed)`.
    """
    chance = random.Random(seed)
    outcomes = {"whole": 0, "lost": 0, "refused": 0}
    bits = [(suffix, bit) for suffix in suffixes for bit in range(len(spool.files.get(suffix, b"")) * 8)]
    for suffix, bit in (chance.choice(bits) for _ in range(count)):
        path = spool.copied(folder / "flipped", **{NAMES[suffix]: flipped(spool.files[suffix], bit)})
        before = {one.name: one.read_bytes() for one in path.parent.iterdir()}
        try:
            found = taken_over(path)
            if found.refusal:
                # The bits of its version: it says to be of a newer one. Nothing is changed, so nothing is lost.
                assert "install a newer" in found.refusal, found.refusal
                assert path.read_bytes() == before["spool.db"]
                outcomes["refused"] += 1
                continue
            lost = judged(spool, found, spool.hit_by(suffix, bit // 8))
            outcomes["lost" if lost else "whole"] += 1
        except BaseException as error:
            error.args = (f"bit {bit} of {suffix or 'the database'}: {error}",)
            raise
    return outcomes
