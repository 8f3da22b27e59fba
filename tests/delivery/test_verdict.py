"""What follows from each outcome: the whole table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_metadata.delivery.backoff import backoff_ns
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.delivery.verdict import NO_ANSWER, Again, Arrived, GivenUp, Tried, verdict
from otel_metadata.model.outcome import Delivered, DeliveryError, Pause, Rejected, Retry

SETTINGS = OutboxSettings()
MILLI = 1_000_000
FRESH = Tried(attempts=1, age_ns=0, overdue=False, has_deadline=False, missing_ns=0, batch_size=8, fields=6)
OLD = replace(FRESH, age_ns=SETTINGS.max_age_millis * MILLI + 1)
JUST = replace(FRESH, age_ns=SETTINGS.max_age_millis * MILLI)
FAILED_SPAN = replace(FRESH, has_deadline=True)
OVERDUE = replace(FRESH, has_deadline=True, overdue=True)
LONG_MISSING = replace(FRESH, missing_ns=SETTINGS.visibility_millis * MILLI)
ALONE = replace(FRESH, batch_size=1)
LAST_FIELD = replace(FRESH, batch_size=1, fields=1)

DOWN = DeliveryError("connection_failure", "down")
BUSY = DeliveryError("rate_limited", "busy")
KEY = DeliveryError("unauthorized", "key")
MISSING = DeliveryError("segment_not_found", "no such span")
LARGE = DeliveryError("too_large", "too large")
NEVER = DeliveryError("unsupported", "cannot")
BAD = DeliveryError("patch_failure", "bad")

BACKOFF = backoff_ns(1, None, 1.0)
PAUSED = backoff_ns(1, SETTINGS.pause_millis, 1.0)

ROWS = [
    ("delivered", Delivered(), FRESH, Arrived(())),
    ("delivered, late or not", Delivered(("cut",)), OVERDUE, Arrived(("cut",))),
    ("retry", Retry(DOWN), FRESH, Again(DOWN, BACKOFF)),
    ("retry, third time", Retry(DOWN), replace(FRESH, attempts=3), Again(DOWN, backoff_ns(3, None, 1.0))),
    ("retry, as asked", Retry(BUSY, 2_000), FRESH, Again(BUSY, backoff_ns(1, 2_000, 1.0), asked=True)),
    ("retry, at the last moment", Retry(DOWN), JUST, Again(DOWN, BACKOFF)),
    ("retry, too old", Retry(DOWN), OLD, GivenUp("expired", DOWN)),
    ("retry, its span failed", Retry(DOWN), FAILED_SPAN, Again(DOWN, BACKOFF)),
    ("retry, its span failed long ago", Retry(DOWN), OVERDUE, GivenUp("target_not_exported", DOWN)),
    ("pause", Pause(KEY), FRESH, Again(KEY, PAUSED, asked=True)),
    ("pause, too old", Pause(KEY), OLD, GivenUp("expired", KEY)),
    ("no answer", None, FRESH, Again(NO_ANSWER.error, BACKOFF, batch_size=4)),
    ("no answer, alone", None, ALONE, Again(NO_ANSWER.error, BACKOFF, batch_size=1)),
    ("no answer, too old", None, OLD, GivenUp("expired", NO_ANSWER.error)),
    ("missing", Rejected(MISSING), FRESH, Again(MISSING, BACKOFF)),
    ("missing for long", Rejected(MISSING), LONG_MISSING, GivenUp("target_not_found", MISSING)),
    ("missing, its span failed", Rejected(MISSING), FAILED_SPAN, Again(MISSING, BACKOFF)),
    ("missing, its span failed long ago", Rejected(MISSING), OVERDUE, GivenUp("target_not_exported", MISSING)),
    ("missing, too old", Rejected(MISSING), OLD, GivenUp("expired", MISSING)),
    ("too large, in a batch", Rejected(LARGE), FRESH, Again(LARGE, 0, at_once=True, batch_size=4)),
    ("too large, in a batch, too old", Rejected(LARGE), OLD, Again(LARGE, 0, at_once=True, batch_size=4)),
    ("too large, alone", Rejected(LARGE), ALONE, Again(LARGE, 0, at_once=True, batch_size=1, max_fields=3)),
    ("too large, one field", Rejected(LARGE), LAST_FIELD, GivenUp("rejected", LARGE)),
    ("unsupported", Rejected(NEVER), FRESH, GivenUp("unsupported", NEVER)),
    ("refused", Rejected(BAD), FRESH, GivenUp("rejected", BAD)),
    ("refused, its span failed", Rejected(BAD), FAILED_SPAN, GivenUp("rejected", BAD)),
]


@pytest.mark.parametrize(("outcome", "tried", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_verdict_follows_the_table(outcome, tried, expected):
    """Each outcome, in each situation that makes a difference, has one verdict."""
    assert verdict(outcome, tried, SETTINGS, 1.0) == expected
