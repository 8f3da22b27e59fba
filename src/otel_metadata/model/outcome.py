"""The outcome of one patch, as its exporter reports it: delivered, retry, pause or rejected.

Each patch has an outcome of its own, also in a batch. `delivery.verdict` decides what follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from otel_metadata.foreign_text import visible

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
"""Arize's words (spans client, "errors"), with `backend_rejection` for `druid_rejection`, and three more."""


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
        """Escape control characters, which a terminal would obey: names in the message come from everywhere."""
        if type(self.type) is not str and isinstance(self.type, str):  # a member of an enumeration of texts
            object.__setattr__(self, "type", str.__str__(self.type))
        object.__setattr__(self, "message", visible(f"{self.message}"))


@final
class NotKept(str):
    """A note on a value that the backend does not have at all; any other note says where and how the backend has it."""

    __slots__ = ()


@final
@dataclass(frozen=True, slots=True)
class Delivered:
    """The backend answered that it stored the patch or took it over.

    Attributes:
        notes: One sentence for each field that the backend changed, flattened, only added, ignored or cannot hold. A
            `NotKept` is logged as a warning, any other note for information.
        rejected: How many items of the request the backend refused for good, as it reports beside its success (OTLP,
            "Partial success"). It does not report which ones.
    """

    notes: tuple[str, ...] = ()
    rejected: int = 0


@final
@dataclass(frozen=True, slots=True)
class Retry:
    """Another try may work later.

    Attributes:
        error: Why this try failed.
        after_millis: The wait that the backend asked for (`Retry-After`); None leaves it to the back-off.
    """

    error: DeliveryError
    after_millis: int | None = None


@final
@dataclass(frozen=True, slots=True)
class Pause:
    """The destination as a whole takes nothing (keys, quota): the outbox keeps everything, and probes.

    Attributes:
        error: Why it takes nothing.
    """

    error: DeliveryError


@final
@dataclass(frozen=True, slots=True)
class Rejected:
    """No other try will work.

    Attributes:
        error: Why the patch was rejected.
    """

    error: DeliveryError


Outcome: TypeAlias = Delivered | Retry | Pause | Rejected
