"""Who owns which rows of the spool, and how many there should be: a small file beside the database.

Rows are numbered in *slots*, and a slot is leased by locking one byte of this file. The kernel gives the lock back when
the process dies, however it dies, so a lease needs no clock and no heartbeat, and a dead process is known at once. A
forked child does not inherit it (POSIX record locks), unlike one of `flock`.

Beside the lock a slot has a tally: how many rows were put, how many were settled, for which destination. What is
missing in the database by that count was lost to damage, and can be said.

Danger: POSIX drops every lock of a process on a file when *any* descriptor of that file is closed in it. So there is
one descriptor for each file in a process, kept in `_OPEN` and shared.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Final, NamedTuple, final

try:
    import fcntl
except ImportError:  # pragma: no cover # Windows: `late.spool` refuses to open a spool there
    fcntl = None  # type: ignore[assignment]

__all__ = ["MAX_SLOTS", "Owners", "Tally", "is_supported"]

# Rows put, rows settled, the destination's name (cut); then the CRC-32 of the three.
_BODY: Final = struct.Struct("<QQ40s")
_CHECKSUM: Final = struct.Struct("<I")
_STRIDE: Final = 64
_NAME_BYTES: Final = 40

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
        name: The name of the destination, cut to 40 bytes.
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
            if self._users <= 0 and _OPEN.get(self.path) is self:
                del _OPEN[self.path]
                os.close(self._fd)

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

    def note(self, slot: int, puts: int, settled: int, name: bytes) -> None:
        """Write the tally of a slot; *name* is what `cut` made of the destination's.

        Raises:
            OSError: It cannot be written.
        """
        body = _BODY.pack(puts, settled, name)
        os.pwrite(self._fd, body + _CHECKSUM.pack(zlib.crc32(body)), slot * _STRIDE)

    def read(self) -> dict[int, Tally]:
        """Return the sound tallies by slot; slots begin at 1."""
        try:
            data = os.pread(self._fd, MAX_SLOTS * _STRIDE, 0)
        except OSError:
            return {}
        tallies: dict[int, Tally] = {}
        for slot in range(1, -(-len(data) // _STRIDE)):
            body = data[slot * _STRIDE : slot * _STRIDE + _BODY.size]
            checksum = data[slot * _STRIDE + _BODY.size : slot * _STRIDE + _BODY.size + _CHECKSUM.size]
            if len(checksum) == _CHECKSUM.size and _CHECKSUM.unpack(checksum)[0] == zlib.crc32(body):
                puts, settled, name = _BODY.unpack(body)
                tallies[slot] = Tally(puts, settled, name.rstrip(b"\0"))
        return tallies

    @staticmethod
    def cut(destination: str) -> bytes:
        """Return a destination's name as a tally has it."""
        return destination.encode("utf-8", "replace")[:_NAME_BYTES]


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
