"""A destination: where spans go, the dialect it speaks, and the exporter of late patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, final

from otel_metadata.arguments import check_fields
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.environment import our_share, span_attribute_limit
from otel_metadata.errors import ConfigurationError
from otel_metadata.seams import PatchExporter

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_metadata.seams import Dialect

# How long an update for a span of another process waits when the backend cannot say that it does not know the span.
_REMOTE_GRACE_MILLIS: Final = 5_000


@final
@dataclass(frozen=True, eq=False)
class Destination:
    """Where spans go: a span exporter, the dialect it speaks, and the patch exporter for late updates.

    Attributes:
        name: Short and unique among the destinations of a pipeline: receipts and `stats()` use it.
        span_exporter: OpenTelemetry's exporter for its spans. None only with `spans=False`.
        patch_exporter: Takes updates that come after a span was exported.
        dialect: How metadata is spelled on its spans; "otel" for canonical attributes.
        hold_millis: How long an ended span is kept so that updates soon after still leave with it; 0 for the usual
            batch schedule. The only way onto the span itself where a backend never changes a stored one.
        spans: False when the application exports its spans there by other means: then only late patches leave.
        remote_grace_millis: How long an update for a span of another process waits; None for 0 where order does not
            matter to the backend or it tells an unknown span, else 5 s.
    """

    name: str
    span_exporter: SpanExporter | None
    patch_exporter: PatchExporter
    dialect: Dialect | Literal["otel"] = "otel"
    hold_millis: int = 0
    spans: bool = True
    remote_grace_millis: int | None = None

    def __post_init__(self) -> None:
        """Check the parts as far as possible now.

        Raises:
            ConfigurationError: A part is missing or of the wrong kind.
        """
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError("Destination(name=)", self.name, "a short text, for example 'langfuse'")
        where = f"Destination({self.name!r})"
        for part in ("span_exporter", "patch_exporter"):
            given = getattr(self, part)
            if isinstance(given, type):
                raise ConfigurationError(
                    f"{where}.{part}", f"the class {given.__name__}", f"an exporter: {given.__name__}(...)"
                )
        if self.spans and not hasattr(self.span_exporter, "export"):
            raise ConfigurationError(
                f"{where}.span_exporter", self.span_exporter, "an OpenTelemetry SpanExporter, or spans=False"
            )
        if not isinstance(self.patch_exporter, PatchExporter):
            raise ConfigurationError(
                f"{where}.patch_exporter",
                type(self.patch_exporter),
                "an object with export, force_flush, shutdown, name, max_batch, grace_millis, reports_missing and "
                "convergence (otel_metadata.seams.PatchExporter)",
            )
        for part in ("max_batch", "grace_millis"):
            number = getattr(self.patch_exporter, part)
            if type(number) is not int:
                raise ConfigurationError(f"{where}.patch_exporter.{part}", type(number), "a whole number")
        check_fields(self)
        if self.hold_millis < 0:
            raise ConfigurationError(f"{where}.hold_millis", self.hold_millis, "milliseconds, 0 or more")
        dialect: object = self.dialect
        # Any text has an `encode` too.
        if dialect != "otel" and (isinstance(dialect, str) or not hasattr(dialect, "encode")):
            raise ConfigurationError(f"{where}.dialect", self.dialect, "'otel', or an object with encode()")

    @property
    def spelling(self) -> Dialect:
        """The dialect in force."""
        return _CANONICAL if isinstance(self.dialect, str) else self.dialect

    @property
    def remote_grace_ns(self) -> int:
        """Nanoseconds that an update for an unseen span waits."""
        millis = self.remote_grace_millis
        if millis is None:
            grace = self.patch_exporter.grace_millis
            # One that tells a missing span is asked at once, and again while the span may still appear.
            goes_at_once = self.patch_exporter.convergence == "versioned" or self.patch_exporter.reports_missing
            millis = 0 if goes_at_once else max(grace, _REMOTE_GRACE_MILLIS)
        return millis * 1_000_000


_CANONICAL = OtelDialect(max_attributes=our_share(span_attribute_limit()), span_limit=span_attribute_limit())
