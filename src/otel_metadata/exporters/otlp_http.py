"""OTLP over HTTP: spans, and log events, with an answer that says what became of them.

OpenTelemetry's own exporter takes a redirect for success, does not read how many spans a receiver rejected, lets
`.netrc` replace the credentials, and tries again by itself while a shutdown waits. This one sends once and tells; when
to try again is decided in `late`. Endpoint, headers and the rest come from the variables that the other obeys.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast, final

from google.protobuf import json_format  # type: ignore[import-untyped] # its types are a package of their own
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # as above
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_metadata.arguments import checked
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters import otlp_environment
from otel_metadata.exporters.http import HttpClient, Reply, outcome_of
from otel_metadata.exporters.otlp_sender import OtlpSender, judged
from otel_metadata.model.outcome import DeliveryError, Outcome, Retry
from otel_metadata.seams import SystemClock, bounded_millis

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.exporters.otlp_environment import Signal

__all__ = ["OtlpHttpEvents", "OtlpHttpSender"]

_COMPRESSIONS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "none": bytes,
    "gzip": lambda body: gzip.compress(body, 6, mtime=0),
    "deflate": zlib.compress,
}


@final
class _Address:
    """Where one signal goes."""

    def __init__(
        self,
        signal: Signal,
        endpoint: str | None,
        headers: Mapping[str, str] | None,
        timeout_millis: int | None,
        compression: str | None,
    ) -> None:
        names = {"url": "endpoint"}
        if endpoint is None:
            names["url"], endpoint = otlp_environment.http_endpoint(signal)
        if headers is None:
            names["headers"], headers = otlp_environment.headers(signal)
        self.timeout_millis = (
            otlp_environment.timeout_millis(signal)
            if timeout_millis is None
            else bounded_millis(timeout_millis, otlp_environment.DEFAULT_TIMEOUT_MILLIS)
        )
        self._encoding, self._compress = _compression(signal, compression)
        files: dict[str, str | None] = {}
        for argument in ("certificate", "client_certificate", "client_key"):
            names[f"{argument}_file"], value = otlp_environment.variable(signal, argument.upper())
            files[f"{argument}_file"] = value or None
        self.where = endpoint, headers
        try:
            self.client = HttpClient(endpoint, headers=headers, **files)
        except ConfigurationError as error:
            raise ConfigurationError(names.get(error.setting, error.setting), error.got, error.expected) from None

    def post(self, message: bytes, response: Any, count: int, timeout_millis: int) -> Outcome:  # noqa: ANN401 # protobuf
        """Send one message, once; *response* is what a success is read into."""
        headers = {"content-type": "application/x-protobuf"}
        if self._encoding != "none":
            headers["content-encoding"] = self._encoding
        answer = self.client.request(
            "POST",
            body=self._compress(message),
            headers=headers,
            timeout_millis=min(bounded_millis(timeout_millis, self.timeout_millis), self.timeout_millis),
        )
        outcome = outcome_of(answer, SystemClock.wall_ns())
        if outcome is not None:
            return outcome
        reply = cast("Reply", answer)  # only a reply is left undecided
        try:
            _read(reply, response)
        except (DecodeError, json_format.ParseError, ValueError, RecursionError):
            return Retry(
                DeliveryError(
                    "connection_failure",
                    f"the answer to a success is none of an OTLP receiver; check the endpoint (HTTP {reply.status})",
                )
            )
        return judged(response.partial_success, count, self.client.without_keys)


@final
class OtlpHttpSender(OtlpSender):
    """A span exporter for OTLP over HTTP, in protobuf, that can say what became of a batch (`seams.SpanSender`).

    It tries once and never waits to try again. What is not given comes from `OTEL_EXPORTER_OTLP_TRACES_<NAME>`, else
    from `OTEL_EXPORTER_OTLP_<NAME>`: `ENDPOINT` (the general one gets `/v1/traces` appended), `HEADERS`, `TIMEOUT` (in
    seconds, as everywhere in OpenTelemetry's Python), `COMPRESSION`, `CERTIFICATE`, `CLIENT_KEY`, `CLIENT_CERTIFICATE`.

    Attributes:
        endpoint: Where spans go, without its query.
    """

    @checked
    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_millis: int | None = None,
        compression: str | None = None,
    ) -> None:
        """Read the environment; connect later.

        Args:
            endpoint: The whole URL, with its path.
            headers: Instead of those of the environment, which may hold the key of another destination.
            timeout_millis: For one request.
            compression: `none`, `gzip` or `deflate`.

        Raises:
            ConfigurationError: One of these cannot be used; it names the argument or the variable.
        """
        self._address = _Address("traces", endpoint, headers, timeout_millis, compression)
        self.timeout_millis = self._address.timeout_millis
        self.endpoint = self._address.client.shown_url
        self.where = self._address.where

    def __repr__(self) -> str:
        """Return the endpoint, without what may be secret."""
        return f"<OtlpHttpSender {self.endpoint}>"

    def send(self, spans: Sequence[ReadableSpan], *, timeout_millis: int) -> Outcome:
        """See `OtlpSender.send`."""
        message = encode_spans(spans).SerializePartialToString()
        return self._address.post(message, ExportTraceServiceResponse(), len(spans), timeout_millis)

    def shutdown(self) -> None:
        """Close the connection; from any thread, a request that waits for its answer ends."""
        self._address.client.close()


@final
class OtlpHttpEvents:
    """Sends log events to an OTLP receiver over HTTP (`exporters.otlp.EventSender`).

    What is not given comes from `OTEL_EXPORTER_OTLP_LOGS_<NAME>`, else from `OTEL_EXPORTER_OTLP_<NAME>`, as for spans.
    """

    @checked
    def __init__(self, endpoint: str | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        """Read the environment; connect later. The arguments are those of `OtlpHttpSender`."""
        self._address = _Address("logs", endpoint, headers, None, None)

    def send(self, request: ExportLogsServiceRequest, count: int, *, timeout_millis: int) -> Outcome:
        """Send *count* records in one request, once."""
        return self._address.post(request.SerializeToString(), ExportLogsServiceResponse(), count, timeout_millis)

    def close(self) -> None:
        """Close the connection, from any thread."""
        self._address.client.close()


def _read(reply: Reply, response: Any) -> None:  # noqa: ANN401 # protobuf
    """Read a body; an empty one, and JSON's null, say that all is well.

    Raises:
        Exception: It is no answer to an export.
    """
    if reply.is_cut:
        raise ValueError
    if reply.media_type != "application/json":
        response.ParseFromString(reply.body)
    elif reply.body.strip() not in {b"", b"null"}:
        text = reply.body.decode()
        if not text.lstrip().startswith("{"):
            raise ValueError
        json_format.Parse(text, response, ignore_unknown_fields=True)


def _compression(signal: Signal, given: str | None) -> tuple[str, Callable[[bytes], bytes]]:
    variable, text = ("compression", given) if given is not None else otlp_environment.variable(signal, "COMPRESSION")
    name = text.strip().lower() or "none"
    if name not in _COMPRESSIONS:
        raise ConfigurationError(variable, text, f"one of {', '.join(_COMPRESSIONS)}")
    return name, _COMPRESSIONS[name]
