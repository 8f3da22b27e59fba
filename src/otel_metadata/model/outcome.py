"""What a patch exporter says of one patch: delivered, retry, pause, rejected.

One outcome a patch, never one for a batch. What follows from it is decided in `late`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from otel_metadata.foreign_text import visible

__all__ = ["Delivered", "DeliveryError", "ErrorType", "NotKept", "Outcome", "Pause", "Rejected", "Retry"]

ErrorType: TypeAlias = Literal[
    "parse_failure",
    "patch_failure",
    "type_conflict",
    "segment_not_found",
    "connection_failure",
    "backend_rejection",
    "unauthorized",
    "too_large",
    "unsupported",
]
"""The words are Arize's (spans client, "errors"), with `backend_rejection` for `druid_rejection`, and three more."""


@final
@dataclass(frozen=True, slots=True)
class DeliveryError:
    """Why a patch did not arrive.

    Attributes:
        type: See `ErrorType`.
        message: A sentence for people, on one line. Never a metadata value, never a key of the user's account.
    """

    type: ErrorType
    message: str

    def __post_init__(self) -> None:
        """Escape what a terminal would obey: names in the message come from everywhere."""
        if type(self.type) is not str and isinstance(self.type, str):  # a member of an enumeration of texts
            object.__setattr__(self, "type", str.__str__(self.type))
        object.__setattr__(self, "message", visible(f"{self.message}"))


@final
class NotKept(str):
    """A note of what the backend has in no place and no form; every other note says in which it has it."""

    __slots__ = ()


@final
@dataclass(frozen=True, slots=True)
class Delivered:
    """The backend answered that it stored the patch or took it over.

    Attributes:
        notes: One sentence for each field that the backend changed, flattened, only added, ignored or cannot hold. What
            is `NotKept` is logged as a warning, all else for information.
        rejected: Of what was sent together, how many the backend refused for good, where it says so beside its success
            (OTLP, "Partial success"). Which, it does not say.
    """

    notes: tuple[str, ...] = ()
    rejected: int = 0


@final
@dataclass(frozen=True, slots=True)
class Retry:
    """It may work later.

    Attributes:
        error: Why not now.
        after_millis: What the backend asked for (`Retry-After`); None leaves it to the back-off.
    """

    error: DeliveryError
    after_millis: int | None = None


@final
@dataclass(frozen=True, slots=True)
class Pause:
    """The destination as a whole cannot go on (keys, quota): keep everything and probe.

    Attributes:
        error: Why.
    """

    error: DeliveryError


@final
@dataclass(frozen=True, slots=True)
class Rejected:
    """It will never work.

    Attributes:
        error: Why.
    """

    error: DeliveryError


Outcome: TypeAlias = Delivered | Retry | Pause | Rejected
