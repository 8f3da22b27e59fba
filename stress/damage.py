"""A full disk at each write, and a spool file that is truncated everywhere and has bits flipped.

*Full*: the application may write files of so many bytes only (RLIMIT_FSIZE), for every limit up to what it needs, and
on a small tmpfs of every size, where mounting is allowed. No call may raise. Then either the disk has room again, and
everything must be delivered, or the application is killed, and what was on disk must be delivered by the next.

*Damaged*: a spool that a killed application left (rows in the log) and one that was closed (rows in the file) are cut
off at every so many bytes and around every page, and bits are flipped at random. A record whose bytes are still there
must be delivered as it was; each of the others must be counted as lost; and no call may raise.

Run: `python -m stress.damage [flips] [seed]`.
"""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from stress.application import QUICK
from stress.processes import Child, say
from stress.table import Row, is_long, show

import otel_metadata as om
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.reporting import REPORTER
from otel_metadata.spool.journal import journaled_rows
from otel_metadata.spool.spool import Spool
from otel_metadata.spool.spool_settings import Durability, SpoolSettings
from otel_metadata.testing import ManualClock

RECORDS = 24
SETTLED = 4
"""Of the records so many were delivered before the application died."""

JOURNAL = "-journal-1"
_PAGE = 4096
_FRAME = _PAGE + 24
_LOG_HEADER = 32
_JOURNAL_HEADER = 8


class Scene:
    """One application whose time stands still, and that is stepped by hand."""

    def __init__(self, spool: str, durability: Durability = "process") -> None:
        """Open the spool."""
        self.clock = ManualClock()
        self.patches = InMemoryPatchExporter()
        self.spool = Spool(SpoolSettings(spool, durability), clock=self.clock)
        self.processor = om.MetadataSpanProcessor(
            om.Destination("memory", None, self.patches, spans=False, remote_grace_millis=0),
            settings=QUICK,
            clock=self.clock,
            start_workers=False,
            spool=self.spool,
        )
        self.worker = self.processor.workers[0]

    def pass_seconds(self, seconds: int = 8) -> None:
        """Let time pass, long enough for the worker to try the file again, to adopt, and to send."""
        for _ in range(seconds):
            self.clock.advance(1_100)
            while self.worker.step():
                pass

    @property
    def delivered(self) -> list[tuple[int, object]]:
        """Target and value of each field that arrived."""
        return [(patch.target.span_id, value) for patch in self.patches.patches for value in patch.metadata().values()]

    @property
    def stats(self) -> Any:
        """The counts."""
        return self.processor.stats().destinations["memory"]


def quiet() -> None:
    """Say nothing of what is broken on purpose."""
    logging.disable(logging.CRITICAL)


# --- a full disk ------------------------------------------------------------------------------------------------------


def on_full_disk(spool: str, limit: int | None, remount: list[str] | None, kills: bool, records: int) -> None:
    """Update while the disk is full; then it is killed, or has room again and delivers everything.

    Says which records were on disk, then what happened.
    """
    quiet()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    problems: list[str] = []
    try:
        scene = Scene(spool)
        refused = 0
        for number in range(1, records + 1):
            receipt = om.update_span(om.SpanRef(0xDA, number), metadata={"score": number})
            refused += not receipt
            if receipt and not scene.stats.unspooled:
                say(f"D {number}")
            # The worker tries again, and erases.
            if number % 8 == 0:
                scene.clock.advance(1_100)
                scene.worker.outbox.partition.tend()
        if kills:
            os.kill(os.getpid(), signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        if remount is not None:
            subprocess.run(remount, check=True)
        scene.pass_seconds()
        stats = scene.stats
        if sorted(scene.delivered) != [(number, number) for number in range(1, records + 1)] or refused:
            problems.append(f"delivered {len(scene.delivered)}, refused {refused}, {stats}")
        if not stats.is_balanced or REPORTER.internal_errors or stats.unspooled:
            problems.append(f"internal errors {REPORTER.internal_errors}, {stats}")
        scene.processor.shutdown()
    except Exception as error:  # noqa: BLE001 # this is what must not happen
        problems.append(f"{type(error).__name__}: {error}")
    say(f"P {json.dumps(problems)}")


def after_full_disk(spool: str) -> None:
    """Be the next application, on a disk with room; say what was delivered."""
    quiet()
    scene = Scene(spool)
    scene.pass_seconds()
    say(f"N {json.dumps([sorted(scene.delivered), scene.stats.is_balanced, REPORTER.internal_errors])}")


def one_limit(folder: str, limit: int | None, remount: list[str] | None, *, kills: bool, records: int) -> list[str]:
    """Run one application on a full disk; return what is wrong."""
    spool = os.path.join(folder, "spool", "spool.db")
    durable: list[int] = []
    problems: list[str] | None = None
    with Child(on_full_disk, spool, limit, remount, kills, records) as child:
        for line in child:
            if line.startswith("D "):
                durable.append(int(line[2:]))
            elif line.startswith("P "):
                problems = json.loads(line[2:])
        code = child.wait(30)
    if code != (-signal.SIGKILL if kills else 0):
        return [f"ended with {code}, {problems}"]
    found = problems or []
    if kills:
        if remount is not None:
            subprocess.run(remount, check=True)
        with Child(after_full_disk, spool) as child:
            said = child.within(60)
            child.wait(30)
        if not said.startswith("N "):
            return [f"the next application said {said!r}"]
        delivered, is_balanced, errors = json.loads(said[2:])
        missing = set(durable) - {number for number, value in delivered if number == value}
        if missing or not is_balanced or errors:
            found.append(f"of {len(durable)} on disk lost {sorted(missing)}, balanced {is_balanced}, errors {errors}")
    return found


class Full(NamedTuple):
    """What was found on full disks."""

    runs: int
    problems: list[str]
    is_mounted: bool


def full_disk(*, limits: Sequence[int], sizes: Sequence[int], records: int = RECORDS) -> Full:
    """Run with each limit of bytes for a file, and on a tmpfs of each size in KiB; twice each, killed and not."""

    def limited(case: tuple[int, bool]) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            found = one_limit(folder, case[0], None, kills=case[1], records=records)
        return [f"limit {case[0]}, killed {case[1]}: {one}" for one in found]

    def mounted(case: tuple[int, bool]) -> list[str] | None:
        with tempfile.TemporaryDirectory() as folder:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={case[0]}k,mode=0700", "tmpfs", folder]
            try:
                if subprocess.run(mount, capture_output=True, check=False).returncode:
                    return None
            except OSError:
                return None
            try:
                more = ["mount", "-o", "remount,size=8m", folder]
                found = one_limit(folder, None, more, kills=case[1], records=records)
            finally:
                subprocess.run(["umount", folder], check=False)
        return [f"tmpfs {case[0]} KiB, killed {case[1]}: {one}" for one in found]

    with ThreadPoolExecutor(2) as pool:
        cases = [(limit, kills) for limit in limits for kills in (False, True)]
        found: list[list[str] | None] = list(pool.map(limited, cases))
        on_tmpfs = [(size, kills) for size in sizes for kills in (False, True)]
        found += (results := list(pool.map(mounted, on_tmpfs)))
    done = [one for one in found if one is not None]
    return Full(len(done), [problem for one in done for problem in one], None not in results and bool(results))


# --- a damaged file ---------------------------------------------------------------------------------------------------


class Image(NamedTuple):
    """The files of a spool that an application left, and what is in it.

    Attributes:
        name: Of how it was left.
        files: Suffix of the name → bytes.
        waiting: Number → bytes of each record that must still be delivered.
    """

    name: str
    files: dict[str, bytes]
    waiting: dict[int, bytes]


class Damage(NamedTuple):
    """What is done to one file: cut off to *at* bytes, or bit *bit* of byte *at* flipped."""

    suffix: str
    at: int
    bit: int | None

    def apply(self, data: bytes) -> bytes:
        """Return the damaged bytes."""
        if self.bit is None:
            return data[: self.at]
        return data[: self.at] + bytes([data[self.at] ^ (1 << self.bit)]) + data[self.at + 1 :]


def left(spool: str, name: str) -> None:
    """Put the records, deliver the first few, and leave: killed, or in order."""
    quiet()
    scene = Scene(spool, "process" if name == "journaled" else "power")
    for number in range(1, SETTLED + 1):
        om.update_span(om.SpanRef(0xDA, number), metadata={"score": number})
    scene.pass_seconds(2)
    for number in range(SETTLED + 1, RECORDS + 1):
        om.update_span(om.SpanRef(0xDA, number), metadata={"score": number, "note": f"record {number} " * 4})
    if name == "closed":
        scene.processor.shutdown(0)
    say("left")
    os.kill(os.getpid(), signal.SIGKILL)


def image(name: str) -> Image:
    """Make a spool that was `closed`, or whose process was killed with its rows in the log or `journaled`."""
    with tempfile.TemporaryDirectory() as folder:
        spool = os.path.join(folder, "spool", "spool.db")
        with Child(left, spool, name) as child:
            said = child.within(60)
            child.wait(30)
        if not said.endswith("left\n"):
            raise RuntimeError(said)
        files = {
            suffix: Path(spool + suffix).read_bytes()
            for suffix in ("", "-wal", "-shm", "-owners", JOURNAL)
            if os.path.exists(spool + suffix)
        }
        if JOURNAL in files:  # what is behind its last row was never written
            files[JOURNAL] = files[JOURNAL].rstrip(b"\0")
        connection = sqlite3.connect(spool)
        rows = connection.execute("SELECT body FROM items ORDER BY id").fetchall()
        connection.close()
        rows += [(body,) for body in journaled_rows(spool).values()]
    bodies = [row[0] if isinstance(row[0], bytes) else str(row[0]).encode() for row in rows]
    if len(bodies) != RECORDS - SETTLED:
        raise RuntimeError(f"{len(bodies)} rows; expected {RECORDS - SETTLED}")
    return Image(name, files, dict(enumerate(bodies, SETTLED + 1)))


def truncations(of: Image, step: int) -> Iterator[Damage]:
    """Yield cuts at every *step* bytes, and around every page, of each file that has something to lose."""
    for suffix in ("", "-wal", "-owners", JOURNAL):
        size = len(of.files.get(suffix, b""))
        start, length = (_LOG_HEADER, _FRAME) if suffix == "-wal" else (0, _PAGE)
        edges = {edge + near for edge in range(start, size, length) for near in (-1, 0, 1, 24)}
        for at in sorted(edges | set(range(0, size, step))):
            # What is gone as a whole says nothing of the rows that came since they were last counted, once a second.
            if (_JOURNAL_HEADER if suffix == JOURNAL else 0) <= at < size:
                yield Damage(suffix, at, None)


def flips(of: Image, count: int, seed: int) -> Iterator[Damage]:
    """Yield *count* flipped bits; every third in the first bytes of a page or frame, where the structure is."""
    chance = random.Random(seed)
    names = [suffix for suffix in ("", "-wal", "-owners", JOURNAL) if of.files.get(suffix)]
    for number in range(count):
        suffix = chance.choice(names)
        size = len(of.files[suffix])
        at = chance.randrange(size)
        if number % 3 == 0 and suffix not in {"-owners", JOURNAL}:
            start, length = (_LOG_HEADER, _FRAME) if suffix == "-wal" else (0, _PAGE)
            at = min(
                start + chance.randrange(max((size - start) // length, 1)) * length + chance.randrange(124), size - 1
            )
        yield Damage(suffix, at, chance.randrange(8))


def judge(of: Image, damage: Damage, folder: str) -> list[str]:
    """Open a damaged copy as the next application does; return what is wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder, 0o700)
    spool = os.path.join(folder, "spool.db")
    files = {suffix: damage.apply(data) if suffix == damage.suffix else data for suffix, data in of.files.items()}
    for suffix, data in files.items():
        Path(spool + suffix).write_bytes(data)
        os.chmod(spool + suffix, 0o600)
    errors = REPORTER.internal_errors
    try:
        scene = Scene(spool)
        try:
            scene.pass_seconds()
            # And it goes on: new updates are kept and delivered.
            receipt = om.update_span(om.SpanRef(0xDB, 1), metadata={"score": 0})
            scene.pass_seconds(1)
            stats, delivered = scene.stats, set(scene.delivered)
        finally:
            scene.processor.shutdown(0)
    except ConfigurationError as error:
        # Where the version is what was hit it says to be of a newer one: refused at the set-up, and nothing is changed.
        is_kept = all(Path(spool + suffix).read_bytes() == files[suffix] for suffix in ("", "-owners"))
        return [] if "install a newer" in str(error) and is_kept else [f"{type(error).__name__}: {error}"]
    except Exception as error:  # noqa: BLE001 # this is what must not happen
        return [f"{type(error).__name__}: {error}"]
    problems = []
    if not receipt or (1, 0) not in delivered:
        problems.append("a new update was not delivered")
    if not stats.is_balanced or REPORTER.internal_errors != errors:
        problems.append(f"internal errors {REPORTER.internal_errors - errors}, {stats}")
    arrived = {number for number in of.waiting if (number, number) in delivered}
    everything = files.get("", b"") + files.get("-wal", b"") + files.get(JOURNAL, b"")
    sound = {number for number, body in of.waiting.items() if body in everything}
    if sound - arrived:
        problems.append(f"{len(sound - arrived)} lost that are still there: {sorted(sound - arrived)}")
    true = {(number, value) for number in range(1, RECORDS + 1) for value in (number, f"record {number} " * 4)} | {
        (1, 0)
    }
    if delivered - true:
        problems.append(f"delivered what nobody set: {sorted(map(str, delivered - true))[:3]}")
    missing = len(of.waiting) - len(arrived)
    # A log that is cut off may show rows that were erased after that point; each stands for a missing one in the count.
    # More may be counted than is lost: a record that was found in the bytes as well.
    again = sum((number, number) in delivered for number in range(1, SETTLED + 1))
    counted = sum(stats.lost.values())
    if counted < missing - again:
        problems.append(f"{missing} missing, {counted} counted: {dict(stats.lost)}; {again} came again")
    return problems


def judge_all(of: Image, damages: Sequence[Damage]) -> None:
    """Judge one after the other; say what is wrong."""
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        for number, damage in enumerate(damages):
            say(f"J {json.dumps([*damage, judge(of, damage, os.path.join(folder, str(number)))])}")
            shutil.rmtree(os.path.join(folder, str(number)), ignore_errors=True)


class Damaged(NamedTuple):
    """What was found in damaged files."""

    runs: int
    problems: list[str]


def damaged(of: Image, damages: Sequence[Damage], *, portion: int = 60) -> Damaged:
    """Judge all, in portions, two at a time, each portion in a process of its own: it may be that one crashes."""

    def some(part: Sequence[Damage]) -> list[str]:
        with Child(judge_all, of, part) as child:
            lines = [json.loads(line[2:]) for line in child.within(30 + 2 * len(part)).splitlines() if line[:2] == "J "]
            code = child.wait(30)
        found = [f"{of.name} {line[:3]}: {problem}" for line in lines for problem in line[3]]
        if len(lines) < len(part) or code:
            found.append(f"{of.name} {part[min(len(lines), len(part) - 1)]}: ended with {code}")
        return found

    parts = [damages[at : at + portion] for at in range(0, len(damages), portion)]
    with ThreadPoolExecutor(2) as pool:
        return Damaged(len(damages), [problem for found in pool.map(some, parts) for problem in found])


def show_first(problems: list[str]) -> None:
    """Print the first of each kind."""
    kinds: Counter[str] = Counter()
    for problem in problems:
        kind = "".join(letter for letter in problem.split(": ", 1)[-1] if not letter.isdigit())[:40]
        kinds[kind] += 1
        if kinds[kind] <= 2:
            print(problem)


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 16)
    step = 16 if is_long() else 128
    full = full_disk(limits=range(0, 230_000, 1_500), sizes=[*range(16, 400, 16), *range(1_040, 1_500, 20)])
    print(f"seed {seed}; a tmpfs {'was' if full.is_mounted else 'could not be'} mounted")
    show_first(full.problems)
    cut = flipped = 0
    cuts: list[str] = []
    flags: list[str] = []
    for name in ("killed", "closed", "journaled"):
        made = image(name)
        found = damaged(made, list(truncations(made, step)))
        cut += found.runs
        cuts += found.problems
        found = damaged(made, list(flips(made, count // 3, seed)))
        flipped += found.runs
        flags += found.problems
    show_first(cuts)
    show_first(flags)
    return show(
        [
            Row(
                f"disk full, {full.runs} runs: exceptions, durable lost",
                str(len(full.problems)),
                "0",
                not full.problems,
            ),
            Row(f"{cut} truncations: exceptions, uncounted, unhit lost", str(len(cuts)), "0", not cuts),
            Row(f"{flipped} flipped bits: the same", str(len(flags)), "0", not flags),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
