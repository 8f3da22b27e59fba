"""OTLP over gRPC: spans, and log events, with an answer that says what became of them.

OpenTelemetry's own exporter does not read how many spans a receiver rejected, and tries again by itself while a
shutdown waits. This one sends once and returns the outcome, as `exporters.otlp_http` does. The channel is gRPC's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped] # its types are a package of their own
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # its types are a package of their own
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped] # as above
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from otel_metadata.errors import ConfigurationError, shown_url
from otel_metadata.exporters import otlp_environment, proxy
from otel_metadata.exporters.http import MAX_BODY_BYTES, MAX_RETRY_AFTER_MILLIS
from otel_metadata.exporters.otlp_sender import OtlpSender, judged, not_otlp
from otel_metadata.foreign_text import without_secrets
from otel_metadata.model.outcome import DeliveryError, ErrorType, Outcome, Pause, Rejected, Retry
from otel_metadata.reporting import after_fork_in_child
from otel_metadata.seams import bounded_millis

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_metadata.exporters.otlp_environment import Signal

_DEFAULT_ENDPOINT: Final = "http://localhost:4317"
_OPTIONS: Final = (("grpc.max_receive_message_length", MAX_BODY_BYTES),)
_COMPRESSIONS: Final = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}


class _Meaning(NamedTuple):
    outcome: Callable[[DeliveryError], Outcome]
    error: ErrorType
    message: str


_KEYS: Final = _Meaning(Pause, "unauthorized", "the credentials were refused; check the key")

CODES: Final[Mapping[str, _Meaning]] = {
    **dict.fromkeys(("UNAUTHENTICATED", "PERMISSION_DENIED"), _KEYS),
    "UNIMPLEMENTED": _Meaning(Pause, "backend_rejection", "nothing takes this there; check the endpoint"),
    "INVALID_ARGUMENT": _Meaning(Rejected, "patch_failure", "the backend cannot use what was sent"),
    **dict.fromkeys(
        ("NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"),
        _Meaning(Rejected, "backend_rejection", "the backend refused what was sent"),
    ),
}
"""What each status code means; after any other code a batch is sent again. Source: OTLP, "OTLP/gRPC Response". It does
not call UNKNOWN and INTERNAL retryable; after them, too, a batch is sent again, as after HTTP's 500."""

_SHUT_DOWN: Final = Retry(DeliveryError("connection_failure", "the exporter was shut down meanwhile"))


class _Receiver:
    """Sends the requests of one signal over one gRPC channel, opened on use. A forked child opens its own."""

    def __init__(self, signal: Signal, stub: Callable[[Any], Any]) -> None:
        name, text = otlp_environment.variable(signal, "ENDPOINT")
        parts = urlsplit(text or _DEFAULT_ENDPOINT)
        insecure = otlp_environment.variable(signal, "INSECURE")[1].lower()
        target = parts.netloc or text
        if not target or "@" in target or parts.query:
            expected = "http://host:port, https://host:port or host:port; over gRPC a key belongs into the headers"
            raise ConfigurationError(name, shown_url(text), expected)
        is_plain = parts.scheme == "http" if parts.netloc and not insecure else insecure == "true"
        proxy.in_use()  # raises now if the variable cannot be used
        self.target, self._stub = target, stub
        self._credentials = None if parts.scheme != "https" and is_plain else _credentials(signal)
        _, headers = otlp_environment.headers(signal)
        self.where = f"grpc://{target}", headers
        # A name of gRPC metadata is in lower case.
        self._metadata = tuple((header.lower(), value) for header, value in headers.items())
        self.timeout_millis = otlp_environment.timeout_millis(signal)
        variable, compression = otlp_environment.variable(signal, "COMPRESSION")
        if (compression or "none") not in _COMPRESSIONS:
            raise ConfigurationError(variable, compression, f"one of {', '.join(_COMPRESSIONS)}")
        self._compression = _COMPRESSIONS[compression or "none"]
        self._is_closed = False
        self._begin()
        after_fork_in_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._channel: Any = None
        self._client: Any = None

    def send(self, request: Any, count: int, *, timeout_millis: int) -> Outcome:  # noqa: ANN401 # protobuf
        """Send *count* spans or log records in one request, once."""
        with self._lock:
            if self._is_closed:
                return _SHUT_DOWN
            if self._client is None:
                make = grpc.insecure_channel if self._credentials is None else grpc.secure_channel
                security = () if self._credentials is None else (self._credentials,)
                options = [*_OPTIONS, *_proxy_options(self.target, is_plain=self._credentials is None)]
                self._channel = make(self.target, *security, options=options, compression=self._compression)
                self._client = self._stub(self._channel)
            client = self._client
        try:
            response = client.Export(
                request,
                metadata=self._metadata,
                timeout=min(bounded_millis(timeout_millis, self.timeout_millis), self.timeout_millis) / 1000,
            )
        except grpc.RpcError as error:
            return _outcome_of(error)
        except ValueError:  # the channel was closed meanwhile
            return _SHUT_DOWN
        return judged(response.partial_success, count, lambda text: without_secrets(text, dict(self._metadata)))

    def close(self) -> None:
        """Close the channel, from any thread; a request that waits for its answer ends."""
        self._is_closed = True
        with self._lock:
            channel, self._channel, self._client = self._channel, None, None
        if channel is not None:
            channel.close()


@final
class OtlpGrpcSender(OtlpSender):
    """A span exporter for OTLP over gRPC that can say what became of a batch (`seams.SpanSender`).

    Everything comes from `OTEL_EXPORTER_OTLP_TRACES_<NAME>`, else from `OTEL_EXPORTER_OTLP_<NAME>`: `ENDPOINT`,
    `INSECURE`, `HEADERS`, `TIMEOUT`, `COMPRESSION` (`none`, `gzip`), `CERTIFICATE`, `CLIENT_KEY`, `CLIENT_CERTIFICATE`.
    """

    def __init__(self) -> None:
        """Read the environment; connect later.

        Raises:
            ConfigurationError: A variable cannot be used. The error names it.
        """
        self._receiver = _Receiver("traces", TraceServiceStub)
        self.timeout_millis = self._receiver.timeout_millis
        self.where = self._receiver.where

    def __repr__(self) -> str:
        """Return the address."""
        return f"<OtlpGrpcSender {self._receiver.target}>"

    def send(self, spans: Sequence[ReadableSpan], *, timeout_millis: int) -> Outcome:
        """See `OtlpSender.send`."""
        return self._receiver.send(encode_spans(spans), len(spans), timeout_millis=timeout_millis)

    def shutdown(self) -> None:
        """Close the channel, from any thread; a request that waits for its answer ends."""
        self._receiver.close()


@final
class OtlpGrpcEvents(_Receiver):
    """Sends log events to an OTLP receiver over gRPC (`exporters.otlp.EventSender`), as `OTEL_EXPORTER_OTLP_*` say."""

    def __init__(self) -> None:
        """Read the environment; connect later."""
        super().__init__("logs", LogsServiceStub)


def _proxy_options(target: str, *, is_plain: bool) -> list[tuple[str, object]]:
    """Return gRPC's options for the proxy that is set. Without one, gRPC must not look for one by itself."""
    parts = urlsplit(f"//{target}")
    through = None
    if parts.hostname and not target.startswith(("unix:", "unix-abstract:")):
        through = proxy.in_use().of("http" if is_plain else "https", parts.hostname, parts.port)
    return [("grpc.enable_http_proxy", 0)] if through is None else [("grpc.http_proxy", through.url)]


def _outcome_of(error: grpc.RpcError) -> Outcome:
    code = error.code().name if isinstance(error, grpc.Call) else "UNKNOWN"
    details = (error.details() or "") if code == "RESOURCE_EXHAUSTED" else ""
    if "CLIENT:" in details and "larger than max" in details:
        return not_otlp(f"gRPC {code}")
    if "larger than max" in details:
        return Rejected(DeliveryError("too_large", f"the backend does not take that much at once (gRPC {code})"))
    meaning = CODES.get(code)
    if meaning is None:
        asked = DeliveryError(
            "connection_failure", f"the backend asks to try later, or cannot be reached (gRPC {code})"
        )
        return Retry(asked, _retry_millis(error))
    return meaning.outcome(DeliveryError(meaning.error, f"{meaning.message} (gRPC {code})"))


def _retry_millis(error: grpc.RpcError) -> int | None:
    """Return how long the backend asks to wait (OTLP, "OTLP/gRPC Throttling"), at most five minutes, or None."""
    trailing = dict(error.trailing_metadata() or ()) if isinstance(error, grpc.Call) else {}
    data = trailing.get("google.rpc.retryinfo-bin")
    try:
        delay = RetryInfo.FromString(data).retry_delay if data is not None else None
    except DecodeError:
        return None
    return min(max(int(delay.ToMilliseconds()), 0), MAX_RETRY_AFTER_MILLIS) if delay is not None else None


def _credentials(signal: Signal) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        *(_file(signal, one) for one in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"))
    )


def _file(signal: Signal, name: str) -> bytes | None:
    variable, path = otlp_environment.variable(signal, name)
    try:
        return Path(path).read_bytes() if path else None
    except OSError:
        raise ConfigurationError(variable, path, "a PEM file that can be read") from None
