"""Who owns which rows of the spool, and how many there should be: a small file beside the database.

Rows are numbered in *slots*, and a slot is leased by locking one byte of this file. The kernel gives the lock back when
the process dies, however it dies, so a lease needs no clock and no heartbeat, and a dead process is known at once. A
forked child does not inherit it (POSIX record locks), unlike one of `flock`.

Beside the lock a slot has a tally: how many rows were put, how many were settled, for which destination. What is
missing in the database by that count was lost to damage, and can be said.

The first byte is the *door* of the spool file: who opens it shares that lock for a moment, who replaces it by a new one
has it alone, so nobody opens half of an old file and half of a new one.

Danger: POSIX drops every lock of a process on a file when *any* descriptor of that file is closed in it. So there is
one descriptor for each file in a process, kept in `_OPEN` and shared.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, final

try:
    import fcntl
except ImportError:  # pragma: no cover # Windows: `spool.spool` refuses to open a spool there
    fcntl = None  # type: ignore[assignment]

# Rows put, rows settled, the destination's name (cut); then the CRC-32 of the three.
_BODY: Final = struct.Struct("<QQ40s")
_CHECKSUM: Final = struct.Struct("<I")
_STRIDE: Final = 64
_NAME_BYTES: Final = 40
_DIGEST_CHARS: Final = 12

MAX_SLOTS: Final = 100_000
"""More than this many processes at once are not expected; a larger number is damage."""

_OPEN: Final[dict[str, Owners]] = {}
_OPEN_LOCK: threading.RLock = threading.RLock()


def is_supported() -> bool:
    """Whether this system has POSIX record locks."""
    return fcntl is not None


class Tally(NamedTuple):
    """What should be in a slot.

    Attributes:
        puts: Rows that were ever written.
        settled: Rows that were erased, or found to be lost.
        name: The name of the destination, as `Owners.cut` writes it.
    """

    puts: int
    settled: int
    name: bytes

    @property
    def expected(self) -> int:
        """How many rows there should be."""
        return max(self.puts - self.settled, 0)


@final
class Owners:
    """The leases of one spool file. Any thread."""

    def __init__(self, path: str) -> None:
        """Open the file; use `shared`, which keeps one object for each file."""
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = threading.RLock()
        # POSIX locks are a process's, so two threads of one are kept apart here.
        self._door = threading.RLock()
        self._held: set[int] = set()
        self._users = 0

    @classmethod
    def shared(cls, path: str) -> Owners:
        """Return the object of this process for *path*; give it back with `close`.

        Raises:
            OSError: The file cannot be made.
        """
        key = os.path.realpath(path)
        with _OPEN_LOCK:
            owners = _OPEN.get(key)
            if owners is None:
                owners = _OPEN[key] = cls(key)
            owners._users += 1
            return owners

    def close(self) -> None:
        """Close the file when nobody in this process uses it any more; all its leases end."""
        with _OPEN_LOCK:
            self._users -= 1
            if self._users <= 0:
                self._leave()
                os.close(self._fd)

    def _leave(self) -> None:
        if _OPEN.get(self.path) is self:
            del _OPEN[self.path]

    def abandon(self) -> None:
        """Leave a file that was replaced: who asks for its name from now on gets the new one."""
        with _OPEN_LOCK:
            self._leave()
            self.close()

    def take(self, slot: int) -> bool:
        """Lease *slot*; False when another process has it, or another user in this one."""
        with self._lock:
            if slot in self._held:
                return False
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot * _STRIDE)
            except OSError:
                return False
            self._held.add(slot)
            return True

    def give_back(self, slot: int) -> None:
        """End a lease."""
        with self._lock:
            if slot in self._held:
                self._held.discard(slot)
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, slot * _STRIDE)

    @contextmanager
    def door(self, *, alone: bool) -> Iterator[bool]:
        """Hold the door of the spool file while it is opened, or *alone* while it is replaced; False: not free now."""
        with self._door:
            kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
            try:
                fcntl.lockf(self._fd, kind | fcntl.LOCK_NB, 1, 0)
            except OSError:
                yield False
                return
            try:
                yield True
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, 0)

    @property
    def is_replaced(self) -> bool:
        """Whether another file, or none, has this name now: then these leases are seen by nobody."""
        try:
            there = os.stat(self.path)
        except OSError:
            return True
        here = os.fstat(self._fd)
        return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)

    def note(self, slot: int, puts: int, settled: int, name: bytes) -> None:
        """Write the tally of a slot; *name* is what `cut` made of the destination's.

        Raises:
            OSError: It cannot be written.
        """
        body = _BODY.pack(puts, settled, name)
        if os.pwrite(self._fd, body + _CHECKSUM.pack(zlib.crc32(body)), slot * _STRIDE) != _BODY.size + _CHECKSUM.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Let the tallies survive the machine.

        Raises:
            OSError: They cannot be written.
        """
        os.fsync(self._fd)

    def read(self) -> dict[int, Tally]:
        """Return the sound tallies by slot, those that were never written included; slots begin at 1."""
        try:
            data = os.pread(self._fd, MAX_SLOTS * _STRIDE, 0)
        except OSError:
            return {}
        tallies: dict[int, Tally] = {}
        for slot in range(1, -(-len(data) // _STRIDE)):
            body = data[slot * _STRIDE : slot * _STRIDE + _BODY.size]
            checksum = data[slot * _STRIDE + _BODY.size : slot * _STRIDE + _BODY.size + _CHECKSUM.size]
            if not any(body) and not any(checksum):
                tallies[slot] = Tally(0, 0, b"")
                continue
            if len(checksum) == _CHECKSUM.size and _CHECKSUM.unpack(checksum)[0] == zlib.crc32(body):
                puts, settled, name = _BODY.unpack(body)
                tallies[slot] = Tally(puts, settled, name.rstrip(b"\0"))
        return tallies

    def damaged(self) -> set[int]:
        """Return the slots whose tally cannot be read."""
        try:
            slots = -(-os.fstat(self._fd).st_size // _STRIDE)
        except OSError:
            return set()
        return set(range(1, min(slots, MAX_SLOTS))) - self.read().keys()

    @staticmethod
    def cut(destination: str) -> bytes:
        """Return a destination's name as a tally has it: 40 bytes, and of a longer one its beginning and a digest."""
        name = destination.encode("utf-8", "replace")
        if len(name) <= _NAME_BYTES:
            return name
        digest = hashlib.sha256(name).hexdigest()[:_DIGEST_CHARS].encode()
        return name[: _NAME_BYTES - _DIGEST_CHARS] + digest


def _after_fork_in_child() -> None:
    # The locks are the parent's, and closing here gives none of them back: they belong to a process.
    global _OPEN_LOCK  # noqa: PLW0603 # another thread may have held it
    _OPEN_LOCK = threading.RLock()
    for owners in _OPEN.values():
        os.close(owners._fd)
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def owners_path(path: str | Path) -> str:
    """Return the name of the file beside a spool."""
    return f"{path}-owners"
