"""The decision after one try of one patch: arrived, again, or given up. Pure: values in, a value out.

The exporter gives the outcome; this module decides what the delivery contract makes of it.

| outcome | verdict |
|---|---|
| `Delivered` | arrived |
| `Retry`, `Pause`, no outcome | again after the back-off, or after the time that the backend asked for |
| `Rejected(segment_not_found)` | again while the span may still appear, then given up |
| `Rejected(too_large)` | again at once, half as many together; alone, with half its fields; one field: given up |
| `Rejected` otherwise | given up |

Whatever keeps a patch waiting, it is given up once it is too old, or once its span is known to have failed for good and
the deadline that follows from that has passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, final

from otel_metadata.delivery.backoff import backoff_ns
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Pause, Rejected, Retry

if TYPE_CHECKING:
    from otel_metadata.delivery.outbox_settings import OutboxSettings
    from otel_metadata.model.receipt import LossReason

_MILLI: Final = 1_000_000

NO_ANSWER: Final = Retry(DeliveryError("connection_failure", "the exporter gave no outcome for this patch"))
"""The outcome that stands for the missing answer of an exporter that raised, or answered too little."""


@final
@dataclass(frozen=True, slots=True)
class Tried:
    """The history of a patch, this try included.

    Attributes:
        attempts: How often it was tried, this time included.
        age_ns: Since its oldest update was accepted.
        overdue: Whether its span failed for good and the deadline that follows has passed.
        has_deadline: Whether its span failed for good.
        missing_ns: Since the backend first said that it does not know the span; 0 the first time.
        batch_size: Number of patches that were sent in one request.
        fields: Fields that were sent.
    """

    attempts: int
    age_ns: int
    overdue: bool
    has_deadline: bool
    missing_ns: int
    batch_size: int
    fields: int


@final
@dataclass(frozen=True, slots=True)
class Arrived:
    """The backend has it."""

    notes: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class Again:
    """Another try.

    Attributes:
        error: Why.
        wait_ns: Until then.
        asked: Whether the backend asked for that wait: then a flush obeys it too.
        at_once: Whether it goes on in smaller pieces, as long as it takes: a flush or shutdown goes on with it.
        batch_size: At most so many patches in its next request; None leaves it.
        max_fields: At most so many of its fields; None leaves it.
    """

    error: DeliveryError
    wait_ns: int
    asked: bool = False
    at_once: bool = False
    batch_size: int | None = None
    max_fields: int | None = None


@final
@dataclass(frozen=True, slots=True)
class GivenUp:
    """It becomes a dead letter."""

    reason: LossReason
    error: DeliveryError


Verdict: TypeAlias = Arrived | Again | GivenUp


def verdict(outcome: Outcome | None, tried: Tried, settings: OutboxSettings, chance: float) -> Verdict:
    """Return what follows from *outcome*.

    Args:
        outcome: The exporter's; None when it gave none (it raised): then the batch is halved as well, for one patch in
            the exporter may choke on it.
        tried: The patch.
        settings: Bounds.
        chance: Uniform in [0, 1), for the jitter of the back-off.
    """
    if isinstance(outcome, Delivered):
        return Arrived(tuple(outcome.notes))
    answer = NO_ANSWER if outcome is None else outcome
    error = answer.error
    is_missing = False
    if isinstance(answer, Rejected):
        is_missing = error.type == "segment_not_found"
        if error.type == "too_large" and tried.batch_size > 1:
            return Again(error, 0, at_once=True, batch_size=tried.batch_size // 2)
        if error.type == "too_large" and tried.fields > 1:
            return Again(error, 0, at_once=True, batch_size=1, max_fields=tried.fields // 2)
        if not is_missing or not _may_still_appear(tried, settings):
            return GivenUp(_reason(answer, tried), error)
    if tried.overdue:
        return GivenUp("target_not_exported", error)
    if tried.age_ns > settings.max_age_millis * _MILLI:
        return GivenUp("expired", error)
    after_millis = answer.after_millis if isinstance(answer, Retry) else None
    if isinstance(answer, Pause):
        after_millis = settings.pause_millis
    return Again(
        error,
        backoff_ns(tried.attempts, after_millis, chance),
        asked=after_millis is not None,
        batch_size=max(tried.batch_size // 2, 1) if outcome is None else None,
    )


def _may_still_appear(tried: Tried, settings: OutboxSettings) -> bool:
    if tried.has_deadline:
        return not tried.overdue
    return tried.missing_ns < settings.visibility_millis * _MILLI


def _reason(outcome: Rejected, tried: Tried) -> LossReason:
    if outcome.error.type == "unsupported":
        return "unsupported"
    if outcome.error.type == "segment_not_found":
        return "target_not_exported" if tried.has_deadline else "target_not_found"
    return "rejected"
