"""Spans to an OTLP receiver over HTTP, with an answer that says what became of them.

OpenTelemetry's own exporter takes a redirect for success, does not read how many spans a receiver rejected, lets
`.netrc` replace the credentials, and tries again by itself while a shutdown waits. This one sends once and tells; when
to try again is decided in `late`. Endpoint, headers and the rest come from the variables that the other obeys.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast, final
from urllib.parse import unquote

from google.protobuf import json_format  # type: ignore[import-untyped] # its types are a package of their own
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # as above
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.http import HttpClient, Reply, outcome_of
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Retry
from otel_metadata.reporting import REPORTER
from otel_metadata.seams import SystemClock

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["OtlpHttpSender"]

_DEFAULT_ENDPOINT: Final = "http://localhost:4318"
_DEFAULT_TIMEOUT_MILLIS: Final = 10_000
_MAX_MESSAGE_CHARACTERS: Final = 200

_COMPRESSIONS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "none": bytes,
    "gzip": lambda body: gzip.compress(body, 6, mtime=0),
    "deflate": zlib.compress,
}

# As in opentelemetry.util.re, which logs what it does not understand: a key, here.
_HEADER: Final = re.compile(r"([!#-'*+.0-9A-Z^-z|~-]+)[ \t]*=[ \t]*([ !#-+\--:<-\[\]-~]*)")


@final
class OtlpHttpSender(SpanExporter):
    """A span exporter for OTLP over HTTP, in protobuf, that can say what became of a batch (`seams.SpanSender`).

    It tries once and never waits to try again. What is not given comes from `OTEL_EXPORTER_OTLP_TRACES_<NAME>`, else
    from `OTEL_EXPORTER_OTLP_<NAME>`: `ENDPOINT` (the general one gets `/v1/traces` appended), `HEADERS`, `TIMEOUT` (in
    seconds, as everywhere in OpenTelemetry's Python), `COMPRESSION`, `CERTIFICATE`, `CLIENT_KEY`, `CLIENT_CERTIFICATE`.

    Attributes:
        endpoint: Where spans go, without its query.
    """

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
        names = {"url": "endpoint"}
        if endpoint is None:
            names["url"], endpoint = _endpoint()
        if headers is None:
            names["headers"], headers = _headers()
        self._timeout_millis = _timeout_millis() if timeout_millis is None else timeout_millis
        self._encoding, self._compress = _compression(compression)
        files: dict[str, str | None] = {}
        for argument in ("certificate", "client_certificate", "client_key"):
            names[f"{argument}_file"], value = _variable(argument.upper())
            files[f"{argument}_file"] = value or None
        try:
            self._client = HttpClient(endpoint, headers=headers, **files)
        except ConfigurationError as error:
            raise ConfigurationError(names.get(error.setting, error.setting), error.got, error.expected) from None
        self.endpoint = self._client.shown_url

    def __repr__(self) -> str:
        """Return the endpoint, without what may be secret."""
        return f"<OtlpHttpSender {self.endpoint}>"

    def send(self, spans: Sequence[ReadableSpan], *, timeout_millis: int) -> Outcome:
        """Send *spans* in one request, once, and return what became of all of them.

        Spans that the receiver rejected out of a batch that it accepted are not sent again (OTLP, "Partial success"):
        the batch is delivered, with a note.

        Args:
            spans: What to send.
            timeout_millis: For everything; the sender's own timeout holds where it is shorter.

        Raises:
            Exception: OpenTelemetry's encoder cannot encode one of the spans.
        """
        body = self._compress(encode_spans(spans).SerializePartialToString())
        headers = {"content-type": "application/x-protobuf"}
        if self._encoding != "none":
            headers["content-encoding"] = self._encoding
        answer = self._client.request(
            "POST", body=body, headers=headers, timeout_millis=min(timeout_millis, self._timeout_millis)
        )
        outcome = outcome_of(answer, SystemClock.wall_ns())
        # Only a reply is left undecided.
        return self._judged(cast("Reply", answer), len(spans)) if outcome is None else outcome

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send *spans*, once; what the result cannot say is logged."""
        try:
            outcome = self.send(spans, timeout_millis=self._timeout_millis)
        except Exception as error:  # noqa: BLE001 # an exporter does not raise, and a span may hold anything
            REPORTER.tell("otlp_http:encoder", f"OTLP: {len(spans)} spans cannot be encoded ({type(error).__name__}).")
            return SpanExportResult.FAILURE
        if isinstance(outcome, Delivered):
            for note in outcome.notes:
                REPORTER.tell("otlp_http:note", f"OTLP: {note}.")
            return SpanExportResult.SUCCESS
        REPORTER.tell(f"otlp_http:{outcome.error.type}", f"OTLP: {len(spans)} spans failed: {outcome.error.message}.")
        return SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # nothing is buffered
        """Nothing is buffered."""
        return True

    def shutdown(self) -> None:
        """Close the connection; from any thread, a request that waits for its answer ends."""
        self._client.close()

    def _judged(self, reply: Reply, count: int) -> Outcome:
        """Return what a success says in its body."""
        try:
            response = _parsed(reply)
        except (DecodeError, json_format.ParseError, ValueError, RecursionError):
            return Retry(
                DeliveryError(
                    "connection_failure",
                    f"the answer to a success is none of an OTLP receiver; check the endpoint (HTTP {reply.status})",
                )
            )
        rejected, said = response.partial_success.rejected_spans, response.partial_success.error_message
        words = self._client.without_keys(" ".join(said.split()))
        if len(words) > _MAX_MESSAGE_CHARACTERS:
            words = f"{words[:_MAX_MESSAGE_CHARACTERS]}…"
        if rejected > 0:
            return Delivered((f"the backend rejected {rejected} of {count} spans: {words or 'it does not say why'}",))
        return Delivered((f"the backend says: {words}",) if words else ())


def _parsed(reply: Reply) -> ExportTraceServiceResponse:
    """Return what a body says; an empty one, and JSON's null, say that all is well.

    Raises:
        Exception: It is no answer to an export of spans.
    """
    if reply.is_cut:
        raise ValueError
    response = ExportTraceServiceResponse()
    if reply.media_type != "application/json":
        response.ParseFromString(reply.body)
    elif reply.body.strip() not in {b"", b"null"}:
        text = reply.body.decode()
        if not text.lstrip().startswith("{"):
            raise ValueError
        json_format.Parse(text, response, ignore_unknown_fields=True)
    return response


def _variable(name: str) -> tuple[str, str]:
    """Return the variable that holds for spans, and its text; an empty one says nothing."""
    general, own = f"OTEL_EXPORTER_OTLP_{name}", f"OTEL_EXPORTER_OTLP_TRACES_{name}"
    text = os.environ.get(own, "").strip()
    return (own, text) if text else (general, os.environ.get(general, "").strip())


def _endpoint() -> tuple[str, str]:
    variable, text = _variable("ENDPOINT")
    if "TRACES" in variable:
        return variable, text
    return variable, f"{(text or _DEFAULT_ENDPOINT).removesuffix('/')}/v1/traces"


def _headers() -> tuple[str, dict[str, str]]:
    variable, text = _variable("HEADERS")
    headers: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        match = _HEADER.fullmatch(part)
        if match is None:
            raise ConfigurationError(variable, "***", "name=value,name=value with percent-encoded values")
        name, value = match.groups()
        # A value with a blank was written by hand, not encoded: "Bearer ..." is what many backends tell people to set.
        headers[unquote(name)] = value if " " in value.strip() else unquote(value)
    return variable, headers


def _timeout_millis() -> int:
    variable, text = _variable("TIMEOUT")
    try:
        seconds = float(text) if text else _DEFAULT_TIMEOUT_MILLIS / 1000
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(variable, text, "a number of seconds above 0, for example 10")
    return max(int(seconds * 1000), 1)


def _compression(given: str | None) -> tuple[str, Callable[[bytes], bytes]]:
    variable, text = ("compression", given) if given is not None else _variable("COMPRESSION")
    name = text.strip().lower() or "none"
    if name not in _COMPRESSIONS:
        raise ConfigurationError(variable, text, f"one of {', '.join(_COMPRESSIONS)}")
    return name, _COMPRESSIONS[name]
