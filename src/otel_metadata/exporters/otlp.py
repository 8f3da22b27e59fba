"""Patches for any OTLP backend: one short span in the same trace, child of the target.

No OTLP receiver changes a stored span, and a span id that is sent twice is kept, dropped, doubled or replaced,
depending on who receives it. So a patch is a span of its own. It always has a parent, because several backends take a
new root for the trace. It is at the end of the target, because a span that starts "now" would stretch the trace. It is
linked to the target. Its id is derived from the patch, so that sending the patch again sends the same span. It carries
the fields as canonical attributes, with their versions and authors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from otel_metadata._version import __version__
from otel_metadata.arguments import checked
from otel_metadata.dialects.canonical import author_attributes
from otel_metadata.dialects.patch_span import PATCH_SCOPE, attributes_of
from otel_metadata.exporters.otlp_events import evaluation_records, evaluations, events_request
from otel_metadata.exporters.rest import Budget
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Rejected, Retry
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import SpanSender, SystemClock

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    from otel_metadata.model.patch import Patch
    from otel_metadata.seams import Clock, Convergence

PATCH_SPAN_NAME: Final = "otel_metadata.update"

_MAX_SPAN_ID: Final = (1 << 64) - 1

# Events leave on the same worker as spans, so a receiver of logs that never answers must not hold it long or often.
_MAX_EVENTS_MILLIS: Final = 2_000
_EVENTS_PAUSE_MILLIS: Final = 60_000

_BARE: Final = Rejected(
    DeliveryError("unsupported", "a bare trace id: a span without a parent would become the trace's root")
)
_NOTE: Final = "kept on a span of its own beside the target: an OTLP backend does not change a stored span"


def synthetic_span(patch: Patch, resource: Resource, more: Mapping[str, str] | None = None) -> ReadableSpan:
    """Return the span that carries *patch*: same trace, child of and linked to the target.

    Its attributes are those of `dialects.patch_span`, and *more*: the authors, which vendors are not sent.
    """
    target, sampled = patch.target, TraceFlags(TraceFlags.SAMPLED)
    parent = SpanContext(target.trace_id, target.span_id, is_remote=True, trace_flags=sampled)
    at_ns = patch.window_ns[1] if patch.window_ns is not None else patch.version[0]
    return ReadableSpan(
        name=PATCH_SPAN_NAME,
        context=SpanContext(target.trace_id, _span_id(patch), is_remote=False, trace_flags=sampled),
        parent=parent,
        resource=resource,
        attributes={**attributes_of(patch), **(more or {})},
        links=[Link(parent, {"otel_metadata.patch_id": patch.id})],
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.UNSET),
        start_time=at_ns,
        end_time=at_ns,
        instrumentation_scope=InstrumentationScope(PATCH_SCOPE, __version__),
    )


def _span_id(patch: Patch) -> int:
    """Return a span id derived from the patch: equal for equal patches, different for different ones."""
    nanoseconds, writer = patch.version
    # Multiplication by an odd constant permutes the 64-bit numbers (Knuth, TAOCP 6.4), so that patches a nanosecond
    # apart do not get ids in a row.
    mixed = ((nanoseconds * 0x9E3779B97F4A7C15) ^ writer ^ patch.target.span_id) & _MAX_SPAN_ID
    return mixed or 1


class EventSender(Protocol):
    """Sends log events to an OTLP receiver: `otlp_http.OtlpHttpEvents`, `otlp_grpc.OtlpGrpcEvents`."""

    def send(self, request: ExportLogsServiceRequest, count: int, *, timeout_millis: int) -> Outcome:
        """Send *count* records in one request, once."""
        ...

    def close(self) -> None:
        """Close the connection, from any thread."""
        ...


@final
class OtlpPatchExporter:
    """Sends each patch as a synthetic span through a span exporter of OTLP, then its evaluations as log events.

    The span carries the evaluations too, so a patch is delivered when its span is. An event that the receiver does not
    take becomes a note. Each event is sent once. After a refusal, no more events are sent to the receiver; after a
    failure, or no answer within two seconds, none for a minute.
    """

    max_batch: int = 512
    grace_millis: int = 0
    reports_missing: bool = False
    convergence: Convergence = "none"

    @checked
    def __init__(
        self,
        span_exporter: SpanExporter | SpanSender,
        *,
        events: EventSender | None = None,
        resource: Resource | None = None,
        name: str = "otlp",
        clock: Clock | None = None,
    ) -> None:
        """Send through *span_exporter*, which its owner closes.

        Args:
            span_exporter: One that says what became of a batch (`exporters.otlp_http.OtlpHttpSender`), or
                OpenTelemetry's OTLP exporter, HTTP or gRPC.
            events: Takes the evaluations as log events, and is closed at shutdown. None sends no events.
            resource: The resource of the synthetic spans; by default the one that the environment describes.
            name: For people.
            clock: Time; None for the system's.
        """
        self.name = name
        self._clock = clock or SystemClock()
        self._span_exporter = span_exporter
        self._resource = resource or Resource.create()
        self._events = events
        self._takes_events = events is not None
        self._events_at_ns = 0

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        """Send one synthetic span for each patch. A patch for a bare trace id is `unsupported`: it has no parent."""
        budget = Budget(timeout_millis)
        sendable = [patch for patch in patches if patch.target.is_valid]
        spans = [synthetic_span(one, self._resource, author_attributes(one.fields)) for one in sendable]
        answers = self._outcomes(spans, budget)
        arrived = [patch for patch, answer in zip(sendable, answers, strict=True) if isinstance(answer, Delivered)]
        # Events come after the spans: each event is then sent once, and no span waits for a receiver of logs.
        taken = self._send_events(arrived, budget)
        found = iter(answers)
        return [_with_notes(patch, next(found), taken) if patch.target.is_valid else _BARE for patch in patches]

    def _send_events(self, patches: Sequence[Patch], budget: Budget) -> set[str] | None:
        """Send the evaluations; return the update ids of those that were taken, or None if no events are sent."""
        if self._events is None:
            return None
        records = dict(record for patch in patches for record in evaluation_records(patch))
        timeout_millis = min(budget.left_millis // 2, _MAX_EVENTS_MILLIS)
        now_ns = self._clock.monotonic_ns()
        if not records or not timeout_millis or not self._takes_events or now_ns < self._events_at_ns:
            return set()
        request = events_request(list(records.values()), self._resource)
        outcome = self._events.send(request, len(records), timeout_millis=timeout_millis)
        if isinstance(outcome, Delivered):
            return set(records) if outcome.rejected < len(records) else set()
        if isinstance(outcome, Retry):
            pause_millis = max(outcome.after_millis or 0, _EVENTS_PAUSE_MILLIS)
            self._events_at_ns = self._clock.monotonic_ns() + pause_millis * 1_000_000
        elif outcome.error.type != "too_large":
            # Most receivers of spans do not take logs.
            self._takes_events = False
        REPORTER.tell(f"otlp_events:{self.name}", f"{self.name}: no log events are taken ({outcome.error.message}).")
        return set()

    def _outcomes(self, spans: Sequence[ReadableSpan], budget: Budget) -> list[Outcome]:
        """Return one outcome for each span, though OTLP answers for a request as a whole.

        A refused request is sent again in halves, so that only the span that the receiver cannot read is refused.
        """
        if not spans:
            return []
        answer = self._sent(spans, budget.left_millis)
        if isinstance(answer, Rejected) and answer.error.type != "too_large" and len(spans) > 1:
            half = len(spans) // 2
            return [*self._outcomes(spans[:half], budget), *self._outcomes(spans[half:], budget)]
        if isinstance(answer, Delivered) and answer.rejected >= len(spans):
            answer = Rejected(DeliveryError("backend_rejection", "; ".join(answer.notes)))
        elif isinstance(answer, Delivered):
            answer = Delivered((_NOTE, *answer.notes), answer.rejected)
        return [answer] * len(spans)

    def _sent(self, spans: Sequence[ReadableSpan], timeout_millis: int) -> Outcome:
        if isinstance(self._span_exporter, SpanSender):
            return self._span_exporter.send(spans, timeout_millis=timeout_millis)
        # OpenTelemetry's exporter has its own timeout.
        if self._span_exporter.export(spans) is SpanExportResult.SUCCESS:
            return Delivered()
        return Retry(DeliveryError("connection_failure", "the OTLP exporter failed; its log line says why"))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # nothing is buffered
        """Nothing is buffered."""
        return True

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """The span exporter is closed by its destination."""
        if self._events is not None:
            self._events.close()


def _with_notes(patch: Patch, outcome: Outcome, taken: set[str] | None) -> Outcome:
    """Return *outcome* with a note for each evaluation whose event was not taken; *taken* is None without events."""
    if not isinstance(outcome, Delivered) or taken is None:
        return outcome
    names = [name for update_id, name in evaluations(patch).items() if update_id not in taken]
    notes = (f"evaluation {name!r}: no log event, the receiver did not take it" for name in names)
    return Delivered((*outcome.notes, *notes), outcome.rejected)
