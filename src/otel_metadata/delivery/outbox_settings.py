"""Bounds and times of an outbox, and their values in OpenTelemetry's variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import final

from otel_metadata.arguments import check_fields
from otel_metadata.errors import ConfigurationError

_AT_LEAST_ONE = ("max_queue_size", "max_export_batch_size")


@final
@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """Bounds and times of an outbox.

    Attributes:
        max_queue_size: Ended spans that wait, at least 1 (`OTEL_BSP_MAX_QUEUE_SIZE`); when full the oldest is dropped.
        max_export_batch_size: Spans in one export (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
        schedule_delay_millis: How long a span or patch waits for others to be sent with (`OTEL_BSP_SCHEDULE_DELAY`).
        export_timeout_millis: How long one export of patches may take (`OTEL_BSP_EXPORT_TIMEOUT`).
        max_patches: Targets with a waiting patch; beyond, an update is lost (`buffer_full`).
        max_bytes: Estimated size of the ended spans that wait or are being exported, and of the patches: each of the
            two may be this large. Ended spans that were not admitted yet come on top: at most max_queue_size of them,
            and about a quarter of this.
        spool_window: With a spool, targets with a waiting patch that are in memory; further updates stay on disk.
        span_retry_millis: How long a span whose export failed is tried again; 0 for never.
        visibility_millis: How long "span not found" is answered with another try.
        failed_span_millis: How long the patch of a span whose export failed for good is tried.
        max_age_millis: How long a patch is tried at all.
        pause_millis: How long a paused destination waits before the next probe.
    """

    max_queue_size: int = 2_048
    max_export_batch_size: int = 512
    schedule_delay_millis: int = 5_000
    export_timeout_millis: int = 30_000
    max_patches: int = 100_000
    max_bytes: int = 64 * 1024 * 1024
    spool_window: int = 5_000
    span_retry_millis: int = 60_000
    visibility_millis: int = 120_000
    failed_span_millis: int = 120_000
    max_age_millis: int = 86_400_000
    pause_millis: int = 60_000

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigurationError: One is no whole number, is negative, or is 0 where something has to have room.
        """
        check_fields(self)
        for name in self.__slots__:
            value, least = getattr(self, name), 1 if name in _AT_LEAST_ONE else 0
            if value < least:
                raise ConfigurationError(f"OutboxSettings({name}=)", value, f"{least} or more")

    @classmethod
    def from_environment(cls) -> OutboxSettings:
        """Return the settings of OpenTelemetry's `OTEL_BSP_*` variables, with our own defaults for the rest.

        Source: OpenTelemetry, "Batch Span Processor" of the SDK environment variables.

        Raises:
            ConfigurationError: A value is not a whole number of 1 or more.
        """
        queue = _number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)
        return cls(
            max_queue_size=queue,
            max_export_batch_size=min(_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512), queue),
            schedule_delay_millis=_number("OTEL_BSP_SCHEDULE_DELAY", 5_000),
            export_timeout_millis=_number("OTEL_BSP_EXPORT_TIMEOUT", 30_000),
        )


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(variable, text, f"a whole number of 1 or more, for example {default}")
    return int(text)
