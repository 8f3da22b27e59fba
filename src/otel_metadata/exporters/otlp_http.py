"""OTLP over HTTP: spans, and log events, with an answer that says what became of them.

OpenTelemetry's own exporter takes a redirect for success, does not read how many spans a receiver rejected, lets
`.netrc` replace the credentials, and tries again by itself while a shutdown waits. This one sends once and returns the
outcome; `delivery` decides when to try again. Endpoint, headers and the rest come from the same variables.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast, final

from google.protobuf import json_format  # type: ignore[import-untyped] # its types are a package of their own
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # as above
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_metadata.arguments import checked
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters import otlp_environment
from otel_metadata.exporters.http import HttpClient, Reply, outcome_of
from otel_metadata.exporters.otlp_sender import OtlpSender, judged, not_otlp
from otel_metadata.model.outcome import Outcome
from otel_metadata.seams import SystemClock, bounded_millis

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.exporters.otlp_environment import Signal

_COMPRESSIONS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "none": bytes,
    "gzip": lambda body: gzip.compress(body, 6, mtime=0),
    "deflate": zlib.compress,
}


_ANSWERS: Final[Mapping[Signal, Any]] = {"traces": ExportTraceServiceResponse, "logs": ExportLogsServiceResponse}


class _Receiver:
    """Sends the requests of one signal to one address."""

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
        self._answer_class = _ANSWERS[signal]
        self._encoding, self._compress = _compression(signal, compression)
        files: dict[str, Any] = {}
        for argument in ("certificate", "client_certificate", "client_key"):
            names[f"{argument}_file"], value = otlp_environment.variable(signal, argument.upper())
            files[f"{argument}_file"] = value or None
        self.where = endpoint, headers
        try:
            self.client = HttpClient(endpoint, headers=headers, **files)
        except ConfigurationError as error:
            raise ConfigurationError(names.get(error.setting, error.setting), error.got, error.expected) from None

    def send(self, request: Any, count: int, *, timeout_millis: int) -> Outcome:  # noqa: ANN401 # protobuf
        """Send *count* spans or log records in one request, once."""
        headers = {"content-type": "application/x-protobuf"}
        if self._encoding != "none":
            headers["content-encoding"] = self._encoding
        answer = self.client.request(
            "POST",
            body=self._compress(request.SerializePartialToString()),
            headers=headers,
            timeout_millis=min(bounded_millis(timeout_millis, self.timeout_millis), self.timeout_millis),
        )
        outcome = outcome_of(answer, SystemClock.wall_ns())
        if outcome is not None:
            return outcome
        reply = cast("Reply", answer)  # only a reply is left undecided
        response = self._answer_class()
        try:
            _read(reply, response)
        except (DecodeError, json_format.ParseError, ValueError, RecursionError):
            return not_otlp(f"HTTP {reply.status}")
        return judged(response.partial_success, count, self.client.without_keys)

    def close(self) -> None:
        """Close the connection, from any thread; a request that waits for its answer ends."""
        self.client.close()


@final
class OtlpHttpSender(OtlpSender):
    """A span exporter for OTLP over HTTP, in protobuf, that can say what became of a batch (`seams.SpanSender`).

    It sends each batch once. An argument that is not given is read from `OTEL_EXPORTER_OTLP_TRACES_<NAME>`, or else
    from `OTEL_EXPORTER_OTLP_<NAME>`: `ENDPOINT` (the general one gets `/v1/traces` appended), `HEADERS`, `TIMEOUT` (in
    seconds, as everywhere in OpenTelemetry's Python), `COMPRESSION`, `CERTIFICATE`, `CLIENT_KEY`, `CLIENT_CERTIFICATE`.

    Attributes:
        endpoint: The URL that spans go to, without its query.
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
            timeout_millis: Time limit of one request.
            compression: `none`, `gzip` or `deflate`.

        Raises:
            ConfigurationError: One of these cannot be used. It names the argument or the variable.
        """
        self._receiver = _Receiver("traces", endpoint, headers, timeout_millis, compression)
        self.timeout_millis = self._receiver.timeout_millis
        self.endpoint = self._receiver.client.shown_url
        self.where = self._receiver.where

    def __repr__(self) -> str:
        """Return the endpoint, without parts that may be secret."""
        return f"<OtlpHttpSender {self.endpoint}>"

    def send(self, spans: Sequence[ReadableSpan], *, timeout_millis: int) -> Outcome:
        """See `OtlpSender.send`."""
        return self._receiver.send(encode_spans(spans), len(spans), timeout_millis=timeout_millis)

    def shutdown(self) -> None:
        """Close the connection, from any thread; a request that waits for its answer ends."""
        self._receiver.close()


@final
class OtlpHttpEvents(_Receiver):
    """Sends log events to an OTLP receiver over HTTP (`exporters.otlp.EventSender`).

    An argument that is not given is read from `OTEL_EXPORTER_OTLP_LOGS_<NAME>`, or else from
    `OTEL_EXPORTER_OTLP_<NAME>`, as for spans.
    """

    @checked
    def __init__(self, endpoint: str | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        """Read the environment; connect later. The arguments are those of `OtlpHttpSender`."""
        super().__init__("logs", endpoint, headers, None, None)


def _read(reply: Reply, response: Any) -> None:  # noqa: ANN401 # protobuf
    """Read a body into *response*. An empty body, and JSON's null, mean that everything was accepted.

    Raises:
        Exception: The body is no answer to an export.
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
