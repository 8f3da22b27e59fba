"""A patch that was given up: an operator can read why, and have it tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from otel_metadata.model.merge import Fields
from otel_metadata.model.outcome import DeliveryError
from otel_metadata.model.receipt import LossReason
from otel_metadata.model.span_ref import SpanRef


@final
@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A patch that was given up.

    Attributes:
        id: Its number in the spool; 0 without a spool: only the callback sees the dead letter.
        destination: The destination's name.
        target: The span or trace that it is about.
        fields: The fields that it would have set.
        updates: The number of update calls in it.
        reason: The reason that `stats()` counts its updates under.
        error: The error of the backend, or of its exporter, at the last try.
        tries: The number of tries.
        accepted_ns: The time when its oldest update was accepted; wall nanoseconds.
        died_ns: The time when it was given up; wall nanoseconds.
    """

    id: int
    destination: str
    target: SpanRef
    fields: Fields
    updates: int
    reason: LossReason
    error: DeliveryError
    tries: int
    accepted_ns: int
    died_ns: int
