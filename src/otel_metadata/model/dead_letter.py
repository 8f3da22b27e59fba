"""A patch given up on, with its reason: what an operator reads, and what can be tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from otel_metadata.model.merge import Fields
from otel_metadata.model.outcome import DeliveryError
from otel_metadata.model.receipt import LossReason
from otel_metadata.model.span_ref import SpanRef

__all__ = ["DeadLetter"]


@final
@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A patch given up on.

    Attributes:
        id: Its number in the spool; 0 without a spool: only the callback sees the dead letter.
        destination: The destination's name.
        target: The span or trace that it is about.
        fields: What it would have set.
        updates: How many update calls are in it.
        reason: As what they are counted.
        error: What the backend, or its exporter, said at the last try.
        tries: How often it was tried.
        accepted_ns: When its oldest update was accepted; wall nanoseconds.
        died_ns: When it was given up; wall nanoseconds.
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
