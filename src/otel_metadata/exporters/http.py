"""The HTTP client of every exporter of ours, and the meaning of each answer for the patches or spans in the request.

One client is one connection to one address. It knows no redirects, retries, cookies or `.netrc`, and a proxy only when
one was asked for (`exporters.proxy`): a redirect is an answer like any other, so no header of ours ever reaches an
address that the user did not name. It decides nothing: it returns a `Reply` or a `Failure`, and `outcome_of` reads off
`ANSWERS` what follows.

Whatever the peer does, a request is bounded: in bytes, by `MAX_BODY_BYTES` unless a client reads more, before and after
decompression, and in time by one deadline: each wait on the socket gets the rest of it. Only the lookup of a name takes
as long as the system's resolver does. The import loads urllib3, which `import otel_metadata` does not.
"""

from __future__ import annotations

# `socket.getaddrinfo` imports this codec when it first resolves a host name, which happens on the worker's thread. If
# the process forked during that import, the child would inherit an import lock that nobody releases, and its worker
# would wait for that lock for ever.
import encodings.idna  # noqa: F401
import errno
import http.client
import re
import socket
import ssl
import threading
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias, final
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.exceptions import SSLError as Urllib3TlsError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from otel_metadata._version import __version__
from otel_metadata.errors import ConfigurationError, shown_url
from otel_metadata.exporters import proxy
from otel_metadata.foreign_text import without_secrets
from otel_metadata.interrupts import pass_on
from otel_metadata.model.outcome import DeliveryError, ErrorType, Outcome, Pause, Rejected, Retry
from otel_metadata.reporting import after_fork_in_child
from otel_metadata.seams import SystemClock, bounded_millis
from otel_metadata.wire import Incoming, Response, at_most

MAX_BODY_BYTES: Final = 64 * 1024
MAX_RETRY_AFTER_MILLIS: Final = 300_000
"""A backend may not keep us waiting longer than five minutes: it may have meant another client, or be wrong."""

FailureKind: TypeAlias = Literal["name", "refused", "timeout", "broken", "tls", "certificate", "proxy", "closed"]

_MONOTONIC_NS: Final = SystemClock.monotonic_ns
_PIECE_BYTES: Final = 16 * 1024
_MAX_FRAMING_BYTES: Final = 960 * 1024  # headers, and the framing of chunks
_DEFAULT_HEADERS: Final = {"accept-encoding": "identity", "user-agent": f"otel-metadata/{__version__}"}
_UNREACHABLE: Final = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL}
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: token
_HEADER_VALUE: Final = re.compile("[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5; the characters of Latin-1
_DATE: Final = re.compile(
    r"[A-Za-z]{3,9},? [A-Za-z0-9:+ -]{15,40}"
)  # wider than HTTP's three forms; email.utils decides
_HTML_START: Final = re.compile(rb"\s*<(!doctype\s+html|html)\b", re.IGNORECASE)


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered.

    Attributes:
        status: The status code, 100 to 999.
        headers: By lower-case name; not shown, as they may hold cookies.
        body: Decompressed, at most as long as the client reads; not shown, as it may repeat the request.
        is_cut: Whether there was more of the body.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    is_cut: bool = False

    @property
    def media_type(self) -> str:
        """The content type in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_html(self) -> bool:
        """Whether the body is a web page. An empty body is not, though servers often give it the type of one."""
        is_page = self.media_type in {"text/html", "application/xhtml+xml"} or _HTML_START.match(self.body) is not None
        return bool(self.body.strip()) and is_page


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no complete answer.

    Attributes:
        kind: One of the words in `ANSWERS`.
        detail: The name of the exception. Its text is left out, because it may hold an address or a header.
    """

    kind: FailureKind
    detail: str = ""


class Answer(NamedTuple):
    """The meaning of an answer: a row of `ANSWERS`.

    Attributes:
        answer: The answers, for people.
        when: Status codes, kinds of `Failure`, or `html` for a 2xx whose body is a page; the first row that has it.
        outcome: What follows; `judge` leaves it to the exporter, which knows the body of a success.
        message: What happened, and what to check.
        error: The type of the error; None where there is none.
    """

    answer: str
    when: Collection[object]
    outcome: Literal["judge", "retry", "pause", "rejected"]
    message: str
    error: ErrorType | None = "connection_failure"


_REFUSED: Final = "backend_rejection"

# A fault of the destination as a whole (keys, quota, address, a login page in between) is a pause: everything is kept,
# and is sent when somebody has repaired the fault. A batch is rejected only for a fault of its own.
ANSWERS: Final = (
    Answer("2xx with a web page", {"html"}, "pause", "a web page came back; is a login page in between?", _REFUSED),
    Answer("other 2xx", range(200, 300), "judge", "the exporter reads the body", None),
    Answer("3xx", range(300, 400), "pause", "redirects are not followed; set the final address", _REFUSED),
    Answer("401, 403", {401, 403}, "pause", "the credentials were refused; check the key", "unauthorized"),
    Answer("407", {407}, "pause", "the proxy wants a user and password, or other ones", "unauthorized"),
    Answer("402", {402}, "pause", "the quota or the payment has run out; check the account", _REFUSED),
    Answer("404, 405, 415", {404, 405, 415}, "pause", "nothing takes this there; check the endpoint", _REFUSED),
    Answer("400, 422", {400, 422}, "rejected", "the backend cannot use what was sent", "patch_failure"),
    Answer("413", {413}, "rejected", "the backend does not take that much at once", "too_large"),
    Answer("408, 429", {408, 429}, "retry", "the backend asks to try later"),
    Answer("other 4xx", range(400, 500), "rejected", "the backend refused what was sent", _REFUSED),
    Answer("5xx", range(500, 600), "retry", "the backend has failed or is not available"),
    Answer("any other status", range(100, 1000), "retry", "no request ends with this status; what answers there?"),
    Answer("unknown name", {"name"}, "retry", "the host's name has no address; check the endpoint"),
    Answer("no connection", {"refused"}, "retry", "nothing accepts connections there; does the backend run?"),
    Answer("no whole answer in time", {"timeout"}, "retry", "there was no whole answer in time"),
    Answer("reset, cut off, not HTTP", {"broken"}, "retry", "the answer broke off or is no HTTP"),
    Answer("TLS failed", {"tls"}, "retry", "there was no secure connection; should it be http?"),
    Answer("certificate not trusted", {"certificate"}, "pause", "the certificate is not trusted, or not for this host"),
    Answer("the proxy refuses", {"proxy"}, "pause", "the proxy lets nothing through to there; may it?"),
    Answer("shut down", {"closed"}, "retry", "the exporter was shut down meanwhile"),
)
"""What each answer means; see `outcome_of`. `docs/http.md` shows the rows, and a test compares them."""


def outcome_of(answer: Reply | Failure, now_wall_ns: int) -> Outcome | None:
    """Return the outcome of a request by its answer; None for a 2xx, whose body the exporter has to judge.

    An exporter whose backend gives a status a special meaning (404 for an unknown span) must check that status first.

    Args:
        answer: What the client returned.
        now_wall_ns: Wall time, to which a date in `Retry-After` is compared.
    """
    key: object = answer.kind if isinstance(answer, Failure) else answer.status
    if isinstance(answer, Reply) and answer.status // 100 == 2 and answer.is_html:
        key = "html"
    row = next(row for row in ANSWERS if key in row.when)
    if row.error is None:
        return None
    detail = answer.detail if isinstance(answer, Failure) else f"HTTP {answer.status}"
    error = DeliveryError(row.error, f"{row.message} ({detail})" if detail else row.message)
    if row.outcome == "pause":
        return Pause(error)
    if row.outcome == "rejected":
        return Rejected(error)
    asked = answer.headers.get("retry-after") if isinstance(answer, Reply) else None
    return Retry(error, retry_after_millis(asked, now_wall_ns))


def retry_after_millis(value: str | None, now_wall_ns: int) -> int | None:
    """Return how long a `Retry-After` asks to wait (RFC 9110, 10.2.3); None if it cannot be understood.

    Whole seconds, or a date in any of the three forms of HTTP. A date that has passed is 0; more than
    `MAX_RETRY_AFTER_MILLIS` is cut to that; a negative number, a fraction and anything else is None. Never raises.
    """
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]+", text):
        # Python refuses to convert thousands of digits.
        return min(int(text[:10]) * 1000, MAX_RETRY_AFTER_MILLIS)
    if _DATE.fullmatch(text) is None:
        return None
    try:
        at = parsedate_to_datetime(text)
        # A date of C's asctime has no zone; HTTP's are all in UTC.
        at_millis = int((at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(at_millis - now_wall_ns // 1_000_000, 0), MAX_RETRY_AFTER_MILLIS)


def split_url(url: str) -> tuple[str, str]:
    """Return a URL's address and path without slashes at their end, and its query with the question mark, or "".

    The fragment after a `#` is only for browsers, and is left out.
    """
    address, mark, query = url.strip().partition("#")[0].partition("?")
    return address.rstrip("/"), f"{mark}{query}"


def with_path(url: str, path: str) -> str:
    """Return a URL with *path* added to the path that it has, before its query.

    Args:
        url: The URL as a user writes it.
        path: Begins with a slash.
    """
    address, query = split_url(url)
    return f"{address}{path}{query}"


@final
class HttpClient:
    """Requests to one address, over one connection that is opened when it is needed and kept.

    One thread at a time sends; any thread may close, which ends a request that waits for its answer. A forked child
    opens a connection of its own.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        certificate_file: str | None = None,
        client_certificate_file: str | None = None,
        client_key_file: str | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """Check the arguments; connect later.

        Args:
            url: `http` or `https`. Every request has its path and query.
            headers: Sent with every request, and never shown. Keys belong here.
            certificate_file: PEM; the certificates to trust instead of the system's.
            client_certificate_file: PEM; the certificate to show to a server that asks for one.
            client_key_file: PEM, without a password; needed if the file of the client's certificate has no key.
            max_body_bytes: How much of an answer is read.

        Raises:
            ConfigurationError: One of these cannot be used; its `setting` is the argument's name.
        """
        self.shown_url = shown_url(url)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if parts.scheme not in {"http", "https"} or not host or "@" in parts.netloc or re.search(r"[^!-~]", url):
            raise ConfigurationError(
                "url",
                self.shown_url,
                "http://host or https://host with port and path as needed, what is not ASCII percent-encoded, "
                "without user and password: those belong into a header",
            )
        proxy.in_use()  # raises now if the variable cannot be used
        self._host, self._port, self._netloc = host, port, parts.netloc
        self._path, self._query = parts.path, parts.query
        self._headers = _checked(headers or {})
        self._tls = (
            _tls(certificate_file, client_certificate_file, client_key_file) if parts.scheme == "https" else None
        )
        self._max_body_bytes = max_body_bytes
        self._is_closed = False
        self._begin()
        after_fork_in_child(self._after_fork)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._socket: socket.socket | None = None

    def _after_fork(self) -> None:
        # The connection belongs to the parent. Only its socket is closed, which sends nothing to the peer. A thread
        # that does not exist in the child may have held the locks of the rest.
        if self._socket is not None:
            self._socket.close()
        self._begin()

    def __repr__(self) -> str:
        """Return the address, without parts that may be secret."""
        return f"<HttpClient {self.shown_url}>"

    def request(
        self,
        method: str,
        path: str = "",
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_millis: int,
    ) -> Reply | Failure:
        """Send one request, once. Return the complete answer, or why there is none.

        Args:
            method: `GET`, `POST`, …
            path: Added to the path of the URL, percent-encoded. It begins with a slash, or is empty.
            body: The bytes to send.
            headers: These replace headers of the client that have the same name.
            timeout_millis: Time limit of the whole request: connecting, sending, and reading to the last byte.

        Raises:
            ConfigurationError: A header or the path cannot be sent, which is a fault of the exporter.
        """
        if re.fullmatch(r"(/[!-~]*)?", path) is None:
            raise ConfigurationError("path", "***", "a path that begins with a slash, percent-encoded")
        timeout_millis = bounded_millis(timeout_millis, 10_000)
        deadline_ns = _MONOTONIC_NS() + timeout_millis * 1_000_000
        all_headers = {**_DEFAULT_HEADERS, **self._headers, **_checked(headers or {})}
        target = (f"{self._path.rstrip('/')}{path}" if path else self._path) or "/"
        if self._query:
            target += f"{'&' if '?' in path else '?'}{self._query}"
        if not self._lock.acquire(timeout=timeout_millis / 1e3):
            return Failure("timeout")
        is_kept = False
        answer: Reply | Failure
        try:
            answer, is_kept = self._exchange(deadline_ns, method, target, body, all_headers)
        except _ProxyRefusalError as error:
            answer = error.answer
        except (OSError, http.client.HTTPException, HTTPError, zlib.error, UnicodeError) as error:
            pass_on(error)  # the application's own time limit may be a TimeoutError, which is an OSError
            at_proxy = self._connection is not None and self._connection.via and not self._connection.is_established
            answer = Failure(_kind(error), f"{type(error).__name__}{', at the proxy' if at_proxy else ''}")
        finally:
            if not is_kept:
                self._drop()
            self._lock.release()
        if self._is_closed:
            # `close` could not drop the connection while this thread held the lock.
            self.close()
            return answer if isinstance(answer, Reply) else Failure("closed")
        return answer

    def close(self) -> None:
        """Close the connection, from any thread and any number of times. A request that waits for its answer ends."""
        self._is_closed = True
        waiting = self._socket
        if waiting is not None:
            with suppress(OSError):
                # Not `SSLSocket.shutdown`, which would drop the TLS state that the reading thread uses.
                socket.socket.shutdown(waiting, socket.SHUT_RDWR)
        if self._lock.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._lock.release()

    def without_keys(self, text: str) -> str:
        """Return a server's text in a form that may be shown, without secrets of the client's headers and query."""
        return without_secrets(text, self._headers, self._query)

    def _drop(self) -> None:
        connection, self._connection, self._socket = self._connection, None, None
        if connection is not None:
            connection.close()

    def _exchange(
        self, deadline_ns: int, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[Reply | Failure, bool]:
        """Return the answer, and whether the connection can take another request."""
        connection = None if self._is_closed else self._connected(deadline_ns)
        if connection is None or self._is_closed:
            return Failure("closed"), False
        is_kept = True
        if self._tls is None and connection.via is not None:
            # RFC 9112, 3.2.2: a request to a proxy has the whole URL.
            target, headers = f"http://{self._netloc}{target}", {**headers, **connection.via.headers}
        try:
            connection.request(method, target, body, headers, preload_content=False, decode_content=False)
        except (BrokenPipeError, ConnectionResetError):
            # The peer may have answered (413) and closed before it had read the whole body.
            is_kept = False
        response = connection.getresponse()
        if connection.incoming is not None and connection.incoming.is_at_end:
            # `http.client` takes the end of the stream for the end of the headers: a success that was cut off.
            raise http.client.IncompleteRead(b"")
        try:
            found = {name.lower(): value for name, value in response.headers.items()}
            raw = bytearray()
            while len(raw) <= self._max_body_bytes:
                # urllib3 first returns the bytes that have arrived. Only the next read shows that a body was cut off or
                # broken.
                piece = response.read(_PIECE_BYTES, decode_content=False)
                if not piece:
                    break
                raw += piece
        finally:
            response.close()
        limit = self._max_body_bytes
        plain = _decoded(bytes(raw), found.get("content-encoding", ""), limit)
        reply = Reply(response.status, found, plain[:limit], len(plain) > limit)
        # After an interim answer (1xx) the final one is still to come.
        return reply, is_kept and len(raw) <= limit and response.status >= 200

    def _connected(self, deadline_ns: int) -> _Connection:
        connection = self._connection
        if connection is None or not connection.is_connected:  # the peer may have closed it meanwhile
            self._drop()
            via = proxy.in_use().of("http" if self._tls is None else "https", self._host, self._port)
            host, port = (self._host, self._port) if via is None else (via.host, via.port)
            if self._tls is None:
                connection = _Connection(host, port)
            else:
                connection = _TlsConnection(host, port, ssl_context=self._tls, cert_reqs="CERT_REQUIRED")
                if via is not None:
                    connection.set_tunnel(self._host, self._port or 443)
            connection.via = via
            connection.max_bytes = self._max_body_bytes + _MAX_FRAMING_BYTES
            self._connection = connection
        connection.deadline_ns = deadline_ns
        if connection.sock is None:
            connection.connect()
            connection.is_established = True
            self._socket = connection.sock
        return connection


class _Connection(HTTPConnection):
    """A connection on which every wait ends at one deadline.

    urllib3 applies its timeout to each address of a name, and then to each piece that arrives: a peer that sends a byte
    now and then could hold a request for hours.

    Attributes:
        via: The proxy to connect to, or None.
        is_established: Whether it is connected, and has its tunnel if it needs one.
        deadline_ns: The end of the current request's time.
        max_bytes: The most bytes of an answer, with its headers and framing.
        incoming: The bytes that arrive as the current answer.
    """

    via: proxy.Proxy | None = None
    is_established: bool = False
    deadline_ns: int = 0
    max_bytes: int = 0
    incoming: Incoming | None = None

    def left_seconds(self) -> float:
        """Return the time that is left.

        Raises:
            TimeoutError: No time is left.
        """
        left_ns = self.deadline_ns - _MONOTONIC_NS()
        if left_ns <= 0:
            raise TimeoutError
        return left_ns / 1e9

    def _new_conn(self) -> socket.socket:
        failed: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self._dns_host, self.port, type=socket.SOCK_STREAM
        ):
            sock: socket.socket | None = None
            try:
                sock = socket.socket(family, kind, protocol)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(self.left_seconds())
                sock.connect(address)
                sock.settimeout(self.left_seconds())  # for a TLS handshake
            except OSError as error:
                if sock is not None:
                    sock.close()
                failed = error
            else:
                return sock
        raise failed or OSError("the name has no address")

    def send(self, data: Any) -> None:  # noqa: ANN401 # as in http.client
        if self.sock is not None:
            self.sock.settimeout(self.left_seconds())
        super().send(data)

    def response_class(self, sock: socket.socket, *args: Any, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override] # a class in http.client, called with what it reads from
        self.incoming = Incoming(sock, self.left_seconds, at_most(self.max_bytes))
        return Response(self.incoming, *args, **options)  # type: ignore[arg-type] # it asks of a socket only makefile()


class _ProxyRefusalError(Exception):
    """A proxy refused to open a tunnel."""

    def __init__(self, answer: Reply | Failure) -> None:
        super().__init__()
        self.answer = answer


class _TlsConnection(_Connection, HTTPSConnection):
    """A `_Connection` inside TLS."""

    def _tunnel(self) -> None:  # called by urllib3 when it is connected to the proxy
        """Ask the proxy for a tunnel (RFC 9110, 9.3.6). The error of http.client's own method does not have the status.

        Raises:
            _ProxyRefusalError: The proxy refuses.
        """
        host, port = self._tunnel_host or "", self._tunnel_port
        place = f"{f'[{host}]' if ':' in host else host}:{port}"
        headers = {"Host": place, **(self.via.headers if self.via is not None else {})}
        lines = [f"CONNECT {place} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.send("\r\n".join(lines).encode("latin-1"))
        response = self.response_class(self.sock, method="CONNECT")
        try:
            response.begin()
        finally:
            response.close()
        if response.status // 100 == 2:
            self.is_established = True
        elif response.status >= 500 or response.status in {407, 408, 429}:
            found = {name.lower(): value for name, value in response.headers.items()}
            raise _ProxyRefusalError(Reply(response.status, found))
        else:
            # The refusal is not about the batch, which the proxy has not seen.
            raise _ProxyRefusalError(Failure("proxy", f"HTTP {response.status}"))


def _decoded(raw: bytes, encoding: str, limit: int) -> bytes:
    """Return a body without its compression, at most one byte more than the limit.

    No compression is asked for. A body that is neither plain nor gzip stays as it is, and the exporter cannot read it.

    Raises:
        zlib.error: The body is not gzip, or not complete.
    """
    if encoding.strip().lower() not in {"gzip", "x-gzip"} or not raw:
        return raw
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    plain = decompressor.decompress(raw, limit + 1)
    if len(plain) <= limit and not decompressor.eof:
        raise zlib.error
    return plain


def _kind(error: Exception) -> FailureKind:
    """Return the kind of a failure."""
    if isinstance(error, Urllib3TlsError) and error.args and isinstance(error.args[0], ssl.SSLError):
        error = error.args[0]
    if isinstance(error, TimeoutError | Urllib3TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "tls"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "name"
    if isinstance(error, OSError) and (isinstance(error, ConnectionRefusedError) or error.errno in _UNREACHABLE):
        return "refused"
    return "broken"


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers by lower-case name. A header that cannot be sent is refused: a line end would begin another."""
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError("headers", {"***": "***"}, "texts as names and values")
        if _HEADER_NAME.fullmatch(name) is None or _HEADER_VALUE.fullmatch(value) is None:
            raise ConfigurationError(
                "headers",
                {name if _HEADER_NAME.fullmatch(name) else "***": "***"},
                "names of letters, digits and hyphens, and values in Latin-1 without line ends and control characters",
            )
    return {name.lower(): value.strip() for name, value in headers.items()}


def _tls(
    certificate_file: str | None, client_certificate_file: str | None, client_key_file: str | None
) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=certificate_file)
    except OSError:
        raise ConfigurationError(
            "certificate_file", certificate_file, "a file with the certificates to trust, in PEM form"
        ) from None
    if client_certificate_file is None and client_key_file is not None:
        raise ConfigurationError("client_key_file", client_key_file, "a client certificate beside it")
    if client_certificate_file is not None:
        try:
            # The empty password keeps OpenSSL from asking for one on the terminal.
            context.load_cert_chain(client_certificate_file, client_key_file, password="")
        except OSError:
            raise ConfigurationError(
                "client_certificate_file",
                client_certificate_file,
                "a PEM file whose key is in it, or in the client key file, without a password",
            ) from None
    return context
