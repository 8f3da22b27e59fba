"""Where and how updates are kept on disk: values only, so that `configure` can check them without opening anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, final

from otel_metadata.arguments import check_fields
from otel_metadata.environment import absolute_path
from otel_metadata.errors import ConfigurationError

Durability = Literal["process", "power"]
"""process: rows survive the process (the operating system has them). power: they survive the machine, too (fsync)."""

DURABILITIES: Final[tuple[Durability, ...]] = ("process", "power")


@final
@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where and how updates are kept on disk.

    Attributes:
        path: The file, in a directory of its own (mode 0700); both are made. A relative path is made absolute here, `~`
            is the user's home. The write-ahead log of SQLite, a file of leases, and a journal for each process and
            destination are beside it.
        durability: See `Durability`.
        quota_bytes: Size beyond which nothing more is written, checked about once a second: then updates wait in
            memory, and are lost as `spool_full` when there is no room either.
    """

    path: str
    durability: Durability = "process"
    quota_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        """Check what can be checked without looking at the disk.

        Raises:
            ConfigurationError: A value cannot be used.
        """
        if not isinstance(self.path, str) or not self.path:
            raise ConfigurationError(
                "spool path", self.path, "a path of a file, for example otel_metadata_spool/spool.db"
            )
        check_fields(self)
        object.__setattr__(self, "path", absolute_path("spool path", self.path))
        if self.durability not in DURABILITIES:
            raise ConfigurationError("spool durability", self.durability, "'process' or 'power'")
        if not isinstance(self.quota_bytes, int) or self.quota_bytes < 64 * 1024:
            raise ConfigurationError("spool quota_bytes", self.quota_bytes, "at least 65536 bytes")
