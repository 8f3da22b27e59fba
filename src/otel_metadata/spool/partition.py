"""A destination's part of the spool, as its outbox sees it: rows that are put, settled, buried and loaded.

The seam between what is decided under the lock and what is written without it. No method here does I/O but `load` and
`sync`: the others queue what is to be written, in order, and `sync` writes it, on the thread of the caller for what was
put (before its call returns), on the worker's for the rest. `NoPartition` is the partition of an outbox without a
spool.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, final

if TYPE_CHECKING:
    from otel_metadata.model.dead_letter import DeadLetter
    from otel_metadata.spool.frames import PlainUpdate, SpooledRow, SpooledSpan, SpooledUpdate


@final
class Row:
    """One row of the spool, from the moment at which it was put.

    Attributes:
        id: Its number; 0 until it is written.
        entry: What is to be written; None once it is, or once nobody needs it any more.
    """

    __slots__ = ("entry", "id")

    def __init__(self, entry: PlainUpdate | SpooledUpdate | SpooledSpan | None, row_id: int = 0) -> None:
        """Wait to be written, or stand for a row that is."""
        self.entry = entry
        self.id = row_id

    @property
    def is_written(self) -> bool:
        """Whether it survives the process."""
        return self.id != 0 and self.entry is None


class Loaded(NamedTuple):
    """A row that was read back.

    Attributes:
        row: Its handle.
        content: What it says; None when it is damaged.
        is_adopted: Whether another process had put it.
        updates: How many update calls it stands for; 1 when it is damaged.
        size: Bytes that were read.
    """

    row: Row
    content: SpooledRow | PlainUpdate | None
    is_adopted: bool
    updates: int
    size: int = 0


class Partition(Protocol):
    """What an outbox asks of the spool."""

    @property
    def destination(self) -> str:
        """Whose it is."""
        ...

    @property
    def is_durable(self) -> bool:
        """Whether there is a spool at all."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether rows wait there that nobody has loaded: left by another process, or spilled by this one."""
        ...

    def put(self, entry: PlainUpdate | SpooledUpdate | SpooledSpan) -> Row | None:
        """Queue a row of something that is in memory as well; None when there is no room or no spool."""
        ...

    def spill(self, entry: PlainUpdate | SpooledUpdate) -> bool:
        """Queue a row of something that is *not* in memory; False when there is no room: then it was not taken."""
        ...

    def settle(self, rows: Iterable[Row]) -> None:
        """Queue the erasure of rows."""
        ...

    def bury(self, rows: Iterable[Row], letter: DeadLetter) -> None:
        """Queue the erasure of rows, and keep *letter* in their place."""
        ...

    def keeps(self, rows: Sequence[Row]) -> bool:
        """Whether all of *rows* are written: then they outlive the process."""
        ...

    def sync(self) -> None:
        """Write what was put. Any thread; does nothing when another call of the same thread is at it."""
        ...

    def tend(self) -> None:
        """Do what has to be done now and then: erase, recover, measure, take over from dead processes. The worker's."""
        ...

    def load(self, limit: int, max_bytes: int) -> Sequence[Loaded]:
        """Read at most *limit* rows that wait there, oldest first, and no more after *max_bytes*. The worker's."""
        ...

    def lost(self) -> int:
        """Return how many rows turned out to be damaged since the last call; they were put by other processes."""
        ...

    @property
    def unwritten(self) -> int:
        """How many rows wait in memory because they could not be written."""
        ...

    @property
    def unkept(self) -> int:
        """How many rows that were spilled are not on disk: they end with the process."""
        ...

    @property
    def bytes(self) -> int:
        """Size of the spool file; 0 without one."""
        ...


@final
class NoPartition:
    """The partition of an outbox that keeps everything in memory."""

    is_durable = False
    has_more = False
    unwritten = 0
    unkept = 0
    bytes = 0

    def __init__(self, destination: str = "") -> None:
        """Remember the name: it stands on dead letters."""
        self.destination = destination

    def put(self, entry: PlainUpdate | SpooledUpdate | SpooledSpan) -> Row | None:
        """Keep nothing."""
        return None

    def spill(self, entry: PlainUpdate | SpooledUpdate) -> bool:
        """Take nothing."""
        return False

    def settle(self, rows: Iterable[Row]) -> None:
        """Nothing is kept."""

    def bury(self, rows: Iterable[Row], letter: DeadLetter) -> None:
        """Nothing is kept."""

    def keeps(self, rows: Sequence[Row]) -> bool:
        """Nothing is kept."""
        return False

    def sync(self) -> None:
        """Nothing is to be written."""

    def tend(self) -> None:
        """Nothing is to be done."""

    def load(self, limit: int, max_bytes: int) -> Sequence[Loaded]:
        """Nothing is there."""
        return ()

    def lost(self) -> int:
        """Nothing was there."""
        return 0
