"""HTTP proxies on request: which one, for whom, what each of its answers means, and that its password stays with it."""

from __future__ import annotations

import base64
import http.client
import logging
import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.phoenix import PhoenixDouble
from tests.backends.vendors.server import KEY
from tests.exporters.loopback import Loopback, dripping, never, reply, then_closed
from tests.exporters.test_http import CERTIFICATE, tls_server

import otel_metadata as om
from otel_metadata.backends import phoenix
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters import proxy
from otel_metadata.exporters.http import Failure, HttpClient, Reply, outcome_of
from otel_metadata.exporters.otlp_grpc import OtlpGrpcSender
from otel_metadata.model.outcome import Delivered, Pause, Retry

PASSWORD = "pa:ss/wo@rd%äöü"
ENCODED = "pa%3Ass%2Fwo%40rd%25%C3%A4%C3%B6%C3%BC"
KNOWN = f"Basic {base64.b64encode(f'us er:{PASSWORD}'.encode()).decode()}"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD", "grpc_proxy", proxy.PROXY)


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the machine has a say, and no test has one afterwards."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    proxy.use(None)
    yield
    proxy.use(None)


class RealProxy(Loopback):
    """Makes tunnels and forwards, for those who know user and password where it has them."""

    def __init__(self, *, known: str | None = None) -> None:
        self.known = known
        super().__init__(self.serve)

    def url_for(self, who: str = "") -> str:
        return f"http://{who}127.0.0.1:{self.address[1]}"

    def serve(self, connection: socket.socket, stopping: threading.Event) -> None:
        request = self.requests[-1]
        method, target, _ = request.line.split(" ")
        if self.known is not None and request.headers.get("proxy-authorization") != self.known:
            connection.sendall(reply(407, b"who are you?"))
        elif method == "CONNECT":
            host, _, port = target.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as server:
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                while not stopping.is_set():
                    ready, _, _ = select.select([connection, server], [], [], 0.05)
                    for one in ready:
                        data = one.recv(65_536)
                        if not data:
                            return
                        (server if one is connection else connection).sendall(data)
        else:
            parts = urlsplit(target)
            assert parts.hostname is not None
            server_connection = http.client.HTTPConnection(parts.hostname, parts.port)
            kept = {name: value for name, value in request.headers.items() if not name.startswith("proxy-")}
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            server_connection.request(method, path, request.body, kept)
            answer = server_connection.getresponse()
            connection.sendall(reply(answer.status, answer.read()))
            server_connection.close()


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE)
    return str(path)


def ask(url: str, timeout_millis: int = 30_000, **options: object) -> Reply | Failure:
    client = HttpClient(url, headers={"Authorization": KEY}, **options)  # type: ignore[arg-type]
    try:
        return client.request("POST", body=b"body", timeout_millis=timeout_millis)
    finally:
        client.close()


def asked(given: bool | str) -> None:
    proxy.use(proxy.asked_for(given))


class TestOnTheWay:
    @pytest.mark.parametrize("is_secure", [False, True])
    def test_a_request_goes_through_the_proxy(self, certificate: str, is_secure: bool) -> None:
        """http is forwarded, https is a tunnel; user and password are for the proxy, the key for the server."""
        tls = tls_server(Path(certificate)) if is_secure else None
        with RealProxy(known=KNOWN) as relay, Loopback(reply(200, b"ok"), tls=tls) as server:
            asked(relay.url_for(f"us%20er:{ENCODED}@"))
            options = {"certificate_file": certificate} if is_secure else {}
            answer = ask(f"{server.url}/v1/traces?a=b", **options)
            assert isinstance(answer, Reply)
            assert (answer.status, answer.body) == (200, b"ok")
            place = f"127.0.0.1:{server.address[1]}"
            (passed,), (arrived,) = relay.requests, server.requests
            wanted = f"CONNECT {place}" if is_secure else f"POST http://{place}/v1/traces?a=b"
            assert passed.line == f"{wanted} HTTP/1.1"
            assert passed.headers["host"] == place
            assert passed.headers["proxy-authorization"] == KNOWN
            assert ("authorization" in passed.headers) is not is_secure
            assert arrived.line == "POST /v1/traces?a=b HTTP/1.1"
            assert (arrived.headers["authorization"], arrived.body) == (KEY, b"body")
            assert "proxy-authorization" not in arrived.headers

    def test_a_tunnel_is_kept(self, certificate: str) -> None:
        """Two requests of one client are one tunnel."""
        with RealProxy() as relay, Loopback(reply(200), tls=tls_server(Path(certificate))) as server:
            asked(relay.url_for())
            client = HttpClient(server.url, certificate_file=certificate)
            for _ in range(2):
                assert isinstance(client.request("GET", timeout_millis=30_000), Reply)
            client.close()
            assert (len(relay.requests), len(server.requests)) == (1, 2)

    def test_the_certificate_is_still_the_servers(self, certificate: str) -> None:
        """A proxy in the middle changes nothing about who is trusted."""
        with RealProxy() as relay, Loopback(reply(200), tls=tls_server(Path(certificate))) as server:
            asked(relay.url_for())
            assert ask(server.url) == Failure("certificate", "SSLCertVerificationError")

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            *((status, Pause) for status in (302, 400, 401, 403, 404, 405, 407, 413, 422)),
            *((status, Retry) for status in (408, 429, 500, 502, 503, 504)),
        ],
    )
    def test_a_proxy_without_a_tunnel_gives_nothing_up(self, certificate: str, status: int, kind: type) -> None:
        """It has not seen what is sent, so no answer of it rejects that."""
        with Loopback(reply(status, b"<html>no</html>", Retry_After="7")) as relay:
            asked(relay.url)
            outcome = outcome_of(ask("https://127.0.0.1:9", certificate_file=certificate), 0)
            assert isinstance(outcome, kind)
            assert f"HTTP {status}" in outcome.error.message  # type: ignore[attr-defined] # Pause and Retry have one
            if isinstance(outcome, Retry):
                assert outcome.after_millis == 7_000

    def test_a_password_that_is_refused_is_told_apart(self, certificate: str) -> None:
        """407 is about the proxy's user, not about the key; when http is forwarded as well."""
        with RealProxy(known=KNOWN) as relay:
            asked(relay.url_for("somebody:else@"))
            for url, options in (
                ("http://127.0.0.1:9", {}),
                ("https://127.0.0.1:9", {"certificate_file": certificate}),
            ):
                outcome = outcome_of(ask(url, **options), 0)
                assert isinstance(outcome, Pause)
                assert "the proxy wants a user and password" in outcome.error.message

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://127.0.0.1:9"])
    def test_a_proxy_that_is_not_there_is_told_apart(self, url: str) -> None:
        asked("http://127.0.0.1:9")
        assert ask(url) == Failure("refused", "ConnectionRefusedError, at the proxy")

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (never, "timeout"),
            (dripping(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"), "timeout"),
            (then_closed(b""), "broken"),
            (then_closed(b"HTTP/1.1 2"), "broken"),
            (then_closed(b"SSH-2.0-x\r\n\r\n"), "broken"),
        ],
        ids=["never", "dripping", "closed", "cut off", "not HTTP"],
    )
    def test_a_proxy_that_breaks_off_is_a_retry(self, certificate: str, answer: object, kind: str) -> None:
        """Within the time of the request, whatever it does."""
        with Loopback(answer) as relay:  # type: ignore[arg-type] # one of those above
            asked(relay.url)
            found = ask("https://127.0.0.1:9", 300, certificate_file=certificate)
            assert isinstance(found, Failure)
            assert (found.kind, "at the proxy" in found.detail) == (kind, True)
            assert isinstance(outcome_of(found, 0), Retry)

    def test_a_page_in_place_of_a_tunnel_is_no_tunnel(self, certificate: str) -> None:
        """A portal that answers 200 with a page is not spoken TLS with, and nothing is delivered."""
        with Loopback(then_closed(reply(200, b"<html>log in</html>", content_type="text/html"))) as relay:
            asked(relay.url)
            found = ask("https://127.0.0.1:9", 2_000, certificate_file=certificate)
            assert isinstance(found, Failure)
            assert isinstance(outcome_of(found, 0), Retry)

    def test_a_page_in_place_of_what_is_forwarded_is_a_pause(self) -> None:
        with Loopback(reply(200, b"<html>log in</html>", content_type="text/html")) as relay:
            asked(relay.url)
            assert isinstance(outcome_of(ask("http://127.0.0.1:9"), 0), Pause)

    def test_a_password_is_shown_nowhere(self, caplog: pytest.LogCaptureFixture) -> None:
        """Not in a representation, an outcome or a log line of any level."""
        caplog.set_level(logging.DEBUG)
        with RealProxy(known=KNOWN) as relay:
            asked(relay.url_for(f"{KEY}:{KEY}@"))
            answer = ask("http://127.0.0.1:9")
            shown = f"{answer!r} {outcome_of(answer, 0)!r} {proxy.in_use()!r} {caplog.text}"
        assert KEY not in shown


class TestWhoIsAsked:
    """`Proxies.of`, as the environment has it."""

    @pytest.mark.parametrize(
        ("variables", "url", "expected"),
        [
            ({"HTTP_PROXY": "http://a:1"}, "http://h", "a:1"),
            ({"HTTP_PROXY": "http://a:1"}, "https://h", None),
            ({"HTTPS_PROXY": "http://a:1"}, "https://h", "a:1"),
            ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "https://h", "a:1"),
            ({"ALL_PROXY": "http://a:1"}, "https://h", "a:1"),
            ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "https://h", "b:2"),
            ({"HTTP_PROXY": "a:1"}, "http://h", "a:1"),
            ({"HTTP_PROXY": "http://a"}, "http://h", "a:80"),
            ({"HTTP_PROXY": "HTTP://[::1]:3128/"}, "http://h", "::1:3128"),
            ({"HTTP_PROXY": ""}, "http://h", None),
            ({"http_proxy": "", "HTTP_PROXY": "http://a:1"}, "http://h", None),
            ({"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}, "http://h", None),
        ],
    )
    def test_the_environment_names_it(
        self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, expected: str | None
    ) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        found = proxy.asked_for(True).of(*url.split("://"), None)  # type: ignore[call-arg] # scheme and host
        assert (f"{found.host}:{found.port}" if found else None) == expected

    @pytest.mark.parametrize(
        ("entry", "direct", "through"),
        [
            ("*", ["h:1", "127.0.0.1:1"], []),
            ("example.com", ["example.com:1", "a.b.EXAMPLE.com.:1"], ["notexample.com:1", "example.com.evil:1"]),
            (".example.com", ["example.com:1", "a.example.com:1"], ["xexample.com:1"]),
            ("*.example.com", ["a.example.com:1"], ["example.org:1"]),
            ("example.com:8080", ["example.com:8080"], ["example.com:443"]),
            ("localhost", ["localhost:1"], ["127.0.0.1:1", "[::1]:1"]),
            ("127.0.0.1", ["127.0.0.1:1"], ["127.0.0.2:1", "h:1"]),
            ("127.0.0.1:4318", ["127.0.0.1:4318"], ["127.0.0.1:4317"]),
            ("127.0.0.0/8", ["127.0.0.1:1", "127.9.9.9:1"], ["128.0.0.1:1", "[::1]:1"]),
            ("10.1.2.3/8", ["10.9.9.9:1"], []),
            ("::1", ["[::1]:1"], ["127.0.0.1:1", "[::2]:1"]),
            ("[::1]", ["[::1]:1"], ["[::2]:1"]),
            ("[::1]:4318", ["[::1]:4318"], ["[::1]:1"]),
            ("fd00::/8", ["[fd12::1]:1"], ["[fe80::1]:1"]),
            ("a, b  c,,", ["a:1", "b:1", "c:1"], ["d:1"]),
            ("10.0.0.0/99,ok", ["ok:1"], ["10.0.0.1:1"]),
            ("", [], ["a:1"]),
        ],
    )
    def test_who_is_connected_to_directly(
        self, monkeypatch: pytest.MonkeyPatch, entry: str, direct: list[str], through: list[str]
    ) -> None:
        """For the proxies of the environment and for one that is named."""
        monkeypatch.setenv("HTTP_PROXY", "http://p:1")
        monkeypatch.setenv("NO_PROXY", entry)
        for given in (True, "http://p:1"):
            found = proxy.asked_for(given)
            for place in direct + through:
                parts = urlsplit(f"//{place}")
                assert parts.hostname is not None
                assert (found.of("http", parts.hostname, parts.port) is None) is (place in direct), place

    @pytest.mark.parametrize(
        ("given", "variables", "setting"),
        [
            ("socks5://p:1", {}, r"configure\(proxy=\)"),
            ("https://p:1", {}, r"configure\(proxy=\)"),
            (f"http://u:{KEY}@p:x", {}, r"configure\(proxy=\)"),
            (f"http://u:{KEY}@p/path", {}, r"configure\(proxy=\)"),
            (f"p:1?{KEY}", {}, r"configure\(proxy=\)"),
            ("", {}, r"configure\(proxy=\)"),
            (3, {}, r"configure\(proxy=\)"),
            (True, {"HTTPS_PROXY": f"socks5h://u:{KEY}@p:1"}, "HTTPS_PROXY"),
            (True, {"ALL_PROXY": "https://p:1"}, "ALL_PROXY"),
            (None, {proxy.PROXY: "1"}, proxy.PROXY),
            (None, {proxy.PROXY: f"ftp://{KEY}@h"}, proxy.PROXY),
            (None, {proxy.PROXY: "true", "HTTP_PROXY": "http://"}, "HTTP_PROXY"),
        ],
    )
    def test_what_cannot_be_used_is_named(
        self, monkeypatch: pytest.MonkeyPatch, given: object, variables: dict[str, str], setting: str
    ) -> None:
        """At `configure`, which changes nothing then; without the password."""
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
        with pytest.raises(ConfigurationError, match=f"^{setting} is .*http://host:port") as caught:
            om.configure("http://127.0.0.1:9", tracer_provider=provider, proxy=given)  # type: ignore[arg-type] # on purpose
        assert KEY not in f"{caught.value}"


class TestConfigure:
    @pytest.mark.parametrize(
        ("given", "variables", "is_used"),
        [
            (None, {}, False),
            (None, {"HTTP_PROXY": "{url}", "ALL_PROXY": "{url}"}, False),
            (True, {"HTTP_PROXY": "{url}"}, True),
            (True, {"HTTP_PROXY": "{url}", "NO_PROXY": "127.0.0.1"}, False),
            ("{url}", {}, True),
            (None, {proxy.PROXY: "TRUE", "ALL_PROXY": "{url}"}, True),
            (None, {proxy.PROXY: "{url}"}, True),
            (False, {proxy.PROXY: "{url}"}, False),
        ],
    )
    def test_all_destinations_use_what_was_asked_for(
        self, monkeypatch: pytest.MonkeyPatch, given: bool | str | None, variables: dict[str, str], is_used: bool
    ) -> None:
        """A vendor's spans and patches too, though its destination was made before."""
        with RealProxy() as relay, PhoenixDouble() as server:
            for name, value in variables.items():
                monkeypatch.setenv(name, value.format(url=relay.url_for()))
            destination = phoenix.destination(endpoint=server.url, api_key=KEY)
            chosen = given.format(url=relay.url_for()) if isinstance(given, str) else given
            provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
            pipeline = om.configure(
                destination, tracer_provider=provider, proxy=chosen, outbox=OutboxSettings(), capture=True
            )
            with om.start_span("work") as span:
                pass
            assert pipeline.flush(5_000)
            om.score_span(span.ref, "Correctness", score=1.0)
            pipeline.flush(5_000)
            pipeline.shutdown(500)
            assert len(server.requests) > 1
            assert len(relay.requests) == (len(server.requests) if is_used else 0)

    def test_the_next_configure_asks_anew(self) -> None:
        """What one call has asked for ends with the next."""
        with RealProxy() as relay, Loopback(reply(200)) as server:
            for given in (relay.url_for(), None):
                provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
                om.configure(server.url, tracer_provider=provider, proxy=given).shutdown(500)
                ask(server.url)
            assert (len(relay.requests), len(server.requests)) == (1, 2)


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, _request, _context):  # type: ignore[no-untyped-def]  # noqa: N802 # gRPC's name
        return trace_service_pb2.ExportTraceServiceResponse()


class TestGrpc:
    @pytest.fixture
    def port(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
        server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Receiver(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        yield port
        server.stop(None).wait()

    @pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
    def test_grpc_follows_no_variable_by_itself(
        self, monkeypatch: pytest.MonkeyPatch, port: int, variable: str
    ) -> None:
        """Spans and keys do not go to a proxy that nobody asked for."""
        with RealProxy() as relay:
            monkeypatch.setenv(variable, relay.url_for())
            sender = OtlpGrpcSender()
            assert sender.send([], timeout_millis=10_000) == Delivered()
            sender.shutdown()
            assert relay.requests == []

    def test_grpc_goes_through_the_proxy_that_was_asked_for(self, port: int) -> None:
        """By a tunnel, with user and password."""
        with RealProxy(known=KNOWN) as relay:
            asked(relay.url_for(f"us%20er:{ENCODED}@"))
            sender = OtlpGrpcSender()
            assert sender.send([], timeout_millis=10_000) == Delivered()
            sender.shutdown()
            assert [one.line for one in relay.requests] == [f"CONNECT 127.0.0.1:{port} HTTP/1.1"]

    def test_grpc_obeys_no_proxy(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        """Networks and capitals included, which gRPC itself does not read."""
        monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
        with RealProxy() as relay:
            asked(relay.url_for())
            sender = OtlpGrpcSender()
            assert sender.send([], timeout_millis=10_000) == Delivered()
            sender.shutdown()
            assert relay.requests == []

    def test_a_proxy_that_refuses_grpc_is_a_retry(self, port: int) -> None:
        with RealProxy(known=KNOWN) as relay:
            asked(relay.url_for("somebody:else@"))
            sender = OtlpGrpcSender()
            assert isinstance(sender.send([], timeout_millis=2_000), Retry)
            sender.shutdown()
