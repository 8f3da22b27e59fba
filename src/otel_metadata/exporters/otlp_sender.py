"""The part that OTLP over HTTP and over gRPC share: a batch is sent once, and the answer says what was accepted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_metadata.model.outcome import Delivered, DeliveryError, NotKept, Outcome, Retry
from otel_metadata.reporting import REPORTER

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_MAX_MESSAGE_CHARACTERS: Final = 200


class OtlpSender(SpanExporter, ABC):
    """A span exporter that can say what became of a batch (`seams.SpanSender`). It tries once, and never waits."""

    timeout_millis: int
    """Time limit of one request of `export`."""

    where: tuple[str, Mapping[str, str]]
    """The URL, and the headers of every request; over gRPC `grpc://host:port`."""

    @abstractmethod
    def send(self, spans: Sequence[ReadableSpan], *, timeout_millis: int) -> Outcome:
        """Send *spans* in one request, once, and return what became of all of them.

        Spans that the receiver rejected out of a batch that it accepted are not sent again (OTLP, "Partial success"):
        the batch is delivered, with a note and their number.

        Args:
            spans: The batch.
            timeout_millis: Time limit of the whole request; the sender's own holds where it is shorter.

        Raises:
            Exception: OpenTelemetry's encoder cannot encode one of the spans.
        """

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send *spans*, once. The result is success or failure; the log says more."""
        try:
            outcome = self.send(spans, timeout_millis=self.timeout_millis)
        except Exception as error:  # noqa: BLE001 # an exporter does not raise, and a span may hold anything
            REPORTER.tell("otlp:encoder", f"OTLP: {len(spans)} spans cannot be encoded ({type(error).__name__}).")
            return SpanExportResult.FAILURE
        if isinstance(outcome, Delivered):
            for note in outcome.notes:
                REPORTER.tell("otlp:note", f"OTLP: {note}.")
            return SpanExportResult.SUCCESS
        REPORTER.tell(f"otlp:{outcome.error.type}", f"OTLP: {len(spans)} spans failed: {outcome.error.message}.")
        return SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # nothing is buffered
        """Nothing is buffered."""
        return True


def not_otlp(answer: str) -> Outcome:
    """Return the outcome of a batch whose answer, a success by its status, has another form than OTLP's."""
    message = f"the response does not come from an OTLP receiver; check the endpoint ({answer})"
    return Retry(DeliveryError("connection_failure", message))


def judged(partial_success: Any, count: int, without_keys: Callable[[str], str]) -> Outcome:  # noqa: ANN401 # protobuf
    """Return the outcome of a batch that the receiver accepted, in whole or in part.

    Args:
        partial_success: Of an answer about spans or about log records.
        count: How many were sent.
        without_keys: Makes the receiver's text visible, and takes the user's keys out of it.
    """
    is_of_spans = "rejected_spans" in partial_success.DESCRIPTOR.fields_by_name
    what = "spans" if is_of_spans else "log records"
    rejected = partial_success.rejected_spans if is_of_spans else partial_success.rejected_log_records
    words = without_keys(" ".join(partial_success.error_message.split()))
    if len(words) > _MAX_MESSAGE_CHARACTERS:
        words = f"{words[:_MAX_MESSAGE_CHARACTERS]}…"
    if rejected > 0:
        note = f"the backend rejected {rejected} of {count} {what}: {words or 'it does not say why'}"
        return Delivered((NotKept(note),), rejected)
    return Delivered((f"the backend says: {words}",) if words else ())
