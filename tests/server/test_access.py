"""Who may call: names of hosts, pages in a browser, tokens and cookies. Every request is a real one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from tests.server.conftest import Server, StartServer
from typer.testing import CliRunner

from otel_metadata.cli.app import app
from otel_metadata.errors import ConfigurationError
from otel_metadata.server import session
from otel_metadata.server.access import CREDENTIALS, SESSION_SECONDS, Access
from otel_metadata.server.operations import Answer, Call, Operation
from otel_metadata.server.run import LocalServer
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import ManualClock

NOW_NS = 1_800_000_000_000_000_000


async def who(call: Call) -> Answer:
    return Answer({"name": call.caller.name, "scopes": sorted(call.caller.scopes), "project": call.caller.project})


TABLE = (
    Operation("GET", "/open", "open", "", who, None),
    Operation("GET", "/read", "read", "", who, "read"),
    Operation("PATCH", "/spans/{span_id}", "update", "", who, "traces:update"),
    Operation("POST", "/v1/traces", "otlp", "", who, "traces:write", body=bytes, is_ingestion=True),
    Operation("DELETE", "/spans", "delete", "", who, "delete"),
    *session.OPERATIONS,
)


@pytest.fixture
def known(tmp_path: Path) -> Tokens:
    return Tokens(str(tmp_path / "server.tokens"))


@pytest.fixture
def ada(known: Tokens) -> str:
    """Return a token that may read and update the spans of one project."""
    return known.create("ada", ["read", "traces:update"], "shop", NOW_NS)


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """Return a server that everybody on this machine may call."""
    return start_server(operations=TABLE)


@pytest.fixture
def strict(start_server: StartServer, known: Tokens, ada: str) -> Server:
    """Return a server that demands tokens."""
    return start_server(operations=TABLE, access=Access(known, needs_token=True))


def status(server: Server, method: str, path: str, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.call(method, path, headers=named).status


def test_another_name_is_refused_whatever_is_called(server: Server) -> None:
    """DNS rebinding: a page's own name was made to mean this machine."""
    assert status(server, "GET", "/read", Host="localhost:4318") == 200
    for method, path in (("GET", "/read"), ("GET", "/open"), ("POST", "/v1/traces"), ("GET", "/nothing")):
        response = server.call(method, path, headers={"Host": "evil.example"})
        assert response.status == 421, (method, path)
        assert response.json()["expected"] == "localhost"


def test_a_host_may_be_allowed_by_name(start_server: StartServer) -> None:
    server = start_server(operations=TABLE, access=Access(hosts=["Host.Docker.Internal"]))
    assert status(server, "GET", "/read", Host="host.docker.internal:4318") == 200
    assert status(server, "GET", "/read", Host="evil.example") == 421


@pytest.mark.parametrize("path", ["/spans/ab", "/v1/traces", "/spans"])
def test_writes_from_another_site_are_refused(server: Server, path: str) -> None:
    method = {"/spans/ab": "PATCH", "/v1/traces": "POST", "/spans": "DELETE"}[path]
    response = server.call(method, path, headers={"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"})
    assert response.status == 403
    assert "Access-Control-Allow-Origin" not in response.headers


def test_writes_of_our_own_page_and_of_programs_are_taken(server: Server) -> None:
    own = server.url
    assert status(server, "PATCH", "/spans/ab") == 200
    assert status(server, "PATCH", "/spans/ab", Sec_Fetch_Site="same-origin") == 200
    assert status(server, "PATCH", "/spans/ab", Sec_Fetch_Site="same-origin", Origin=own) == 200
    assert status(server, "PATCH", "/spans/ab", Origin=own) == 200
    # Browsers say so themselves where the page is another one.
    assert status(server, "PATCH", "/spans/ab", Origin=own, Sec_Fetch_Site="cross-site") == 403


def test_pages_of_other_ports_may_send_spans_and_nothing_else(server: Server) -> None:
    for origin in ("http://localhost:3000", "http://127.0.0.1:5173", "https://localhost", "http://[::1]:1"):
        response = server.call("POST", "/v1/traces", headers={"Origin": origin, "Sec-Fetch-Site": "same-site"})
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (200, origin)
        assert response.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert status(server, "PATCH", "/spans/ab", Origin=origin) == 403
        assert status(server, "GET", "/read", Origin=origin) == 403


def test_a_browser_may_ask_before_it_sends(server: Server) -> None:
    asked = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-custom",
    }
    response = server.call("OPTIONS", "/v1/traces", headers=asked)
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert response.headers["Access-Control-Allow-Methods"] == "POST"
    assert response.headers["Access-Control-Allow-Headers"] == "content-type,x-custom"
    for change in (
        {"Origin": "https://evil.example"},
        {"Access-Control-Request-Method": "PATCH"},
        {"Access-Control-Request-Method": "DELETE"},
    ):
        response = server.call("OPTIONS", "/v1/traces", headers={**asked, **change})
        assert response.status == 403
        assert "Access-Control-Allow-Origin" not in response.headers
    refused = server.call("OPTIONS", "/spans/ab", headers={**asked, "Access-Control-Request-Method": "PATCH"})
    assert refused.status == 403
    plain = server.call("OPTIONS", "/spans/ab")
    assert (plain.status, plain.headers["Allow"]) == (204, "PATCH")


def test_a_refusal_can_be_read_by_the_page_that_may_send(strict: Server) -> None:
    response = strict.call("POST", "/v1/traces", headers={"Origin": "http://localhost:3000"})
    assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (401, "http://localhost:3000")


def test_reads_from_other_pages_are_refused_but_links_work(server: Server) -> None:
    assert status(server, "GET", "/read", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == 403
    assert status(server, "GET", "/read", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200
    assert status(server, "GET", "/read", Sec_Fetch_Site="none") == 200
    assert status(server, "GET", "/read", Origin="https://evil.example") == 403


def test_every_answer_has_the_headers_that_bind_a_browser(server: Server, strict: Server) -> None:
    answers = [
        server.call("GET", "/open"),
        server.call("GET", "/nothing"),
        server.call("PUT", "/open"),
        server.call("GET", "/open", headers={"Host": "evil.example"}),
        server.call("OPTIONS", "/open"),
        strict.call("GET", "/read"),
    ]
    assert [one.status for one in answers] == [200, 404, 405, 421, 204, 401]
    for one in answers:
        policy = one.headers["Content-Security-Policy"]
        assert policy.startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
            "require-trusted-types-for 'script'"
        )
        assert "frame-ancestors 'none'" in policy
        assert one.headers["X-Content-Type-Options"] == "nosniff"
        assert one.headers["Referrer-Policy"] == "no-referrer"
        assert one.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Server" not in one.headers


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


WAYS: dict[str, Callable[[str], dict[str, str]]] = {
    "bearer": lambda token: {"Authorization": f"Bearer {token}"},
    "bearer in lower case": lambda token: {"authorization": f"bearer  {token} "},
    "basic": lambda token: {"Authorization": basic("pk-lf-1", token)},
    "basic without a user": lambda token: {"Authorization": basic("", token)},
    "bare": lambda token: {"Authorization": token},
    "X-Auth-Token": lambda token: {"X-Auth-Token": token},
    "Galileo-API-Key": lambda token: {"Galileo-API-Key": token},
    "api_key": lambda token: {"api_key": token},
    "x-api-key": lambda token: {"X-API-Key": token},
    "beside another key": lambda token: {"Authorization": "Bearer other", "X-Auth-Token": token},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_token_is_read_where_the_sdks_send_it(strict: Server, ada: str, way: str) -> None:
    response = strict.call("GET", "/read", headers=WAYS[way](ada))
    assert response.status == 200
    assert response.json() == {"name": "ada", "scopes": ["read", "traces:update"], "project": "shop"}
    for wrong in (ada[:-1], ada + "x", ada[:-1] + ("A" if ada[-1] != "A" else "B"), "", ada.upper(), "é" * 20):
        assert strict.call("GET", "/read", headers=WAYS[way](wrong.encode().decode("latin-1"))).status == 401, wrong


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic %%%", "Basic \xa8", "Bearer \xa8", "Basic " + base64.b64encode(b"\xff\xfe").decode(), "Bearer"],
)
def test_what_is_no_token_is_refused_like_a_wrong_one(strict: Server, header: str) -> None:
    assert status(strict, "GET", "/read", Authorization=header) == 401


@pytest.mark.parametrize("value", ["\xa8\xff", "Basic \xa8", "=\xa8; =", "a" * 5_000, ',;="', "%ff%00", "9" * 5_000])
def test_no_header_is_a_failure_of_the_server(
    start_server: StartServer, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor a parameter of a query. Each header that the server reads has a text that nobody expects."""
    server = start_server()
    for name in (
        *CREDENTIALS,
        *("accept-encoding", "accept", "baggage", "traceparent", "content-type", "content-encoding", "if-match"),
        *("if-none-match", "last-event-id", "origin", "sec-fetch-site", "sec-fetch-mode", "project", "logstream"),
        *("access-control-request-method", "access-control-request-headers", "projectid", "logstreamid"),
    ):
        for method, path in (
            ("GET", "/api/v1/info"),
            ("GET", "/"),
            ("PATCH", f"/api/v1/spans/{'1' * 16}"),
            ("OPTIONS", "/v1/traces"),
            ("POST", "/v1/traces"),
            ("POST", "/api/v1/import"),
        ):
            body = b"{}" if method in {"PATCH", "POST"} else None
            assert server.call(method, path, body=body, headers={name: value}).status < 500, (method, path, name)
    text = quote(value, encoding="latin-1")
    for name in ("project", "cursor", "start_time", "end_time", "filter", "limit", "at", "name"):
        for path in ("spans", "traces", "histogram", "summary", "changes", "values", f"spans/{'1' * 16}"):
            assert server.call("GET", f"/api/v1/{path}?{name}={text}").status < 500, (path, name)
    assert "failed in" not in caplog.text


def test_no_token_and_a_missing_scope_are_told_apart(strict: Server, ada: str) -> None:
    missing = strict.call("GET", "/read")
    assert (missing.status, missing.headers["WWW-Authenticate"]) == (401, 'Bearer realm="otel-metadata"')
    assert "no token" in missing.json()["title"]
    unknown = strict.call("GET", "/read", headers={"Authorization": "Bearer om_unknown"})
    assert (unknown.status, "not known" in unknown.json()["title"]) == (401, True)
    ada_may_not = strict.call("DELETE", "/spans", headers={"Authorization": f"Bearer {ada}"})
    assert (ada_may_not.status, ada_may_not.json()["expected"]) == (403, "delete")
    assert status(strict, "POST", "/v1/traces", Authorization=f"Bearer {ada}") == 403
    assert status(strict, "PATCH", "/spans/ab", Authorization=f"Bearer {ada}") == 200
    assert status(strict, "GET", "/open") == 200


def test_the_name_of_the_host_does_not_matter_where_tokens_are_demanded(
    start_server: StartServer, known: Tokens, ada: str
) -> None:
    """On every address of this machine."""
    server = start_server(operations=TABLE, own=True, host="0.0.0.0", access=Access(known, needs_token=True))
    server.url = f"http://127.0.0.1:{server.local.port}"
    assert status(server, "GET", "/read", Host="traces.example.com", Authorization=f"Bearer {ada}") == 200
    assert status(server, "GET", "/read", Host="traces.example.com") == 401


def test_on_loopback_a_known_token_gives_its_name_and_its_limits(
    start_server: StartServer, known: Tokens, ada: str
) -> None:
    server = start_server(operations=TABLE, access=Access(known))
    assert server.call("GET", "/read", headers={"Authorization": f"Bearer {ada}"}).json()["name"] == "ada"
    assert status(server, "DELETE", "/spans", Authorization=f"Bearer {ada}") == 403
    # SDKs demand some key from their users; here it may be any.
    local = server.call("GET", "/read", headers={"Authorization": "Bearer sk-lf-anything"}).json()
    assert local["name"].startswith("http:")
    assert (len(local["scopes"]), local["project"]) == (4, None)


def test_a_token_that_is_made_or_revoked_while_the_server_runs(strict: Server, known: Tokens, ada: str) -> None:
    other = Tokens(known.path)  # another process
    bob = other.create("bob", ["read"], None, NOW_NS)
    assert status(strict, "GET", "/read", Authorization=f"Bearer {bob}") == 200
    assert other.revoke("ada", NOW_NS)
    assert status(strict, "GET", "/read", Authorization=f"Bearer {ada}") == 401
    assert status(strict, "GET", "/read", Authorization=f"Bearer {bob}") == 200
    again = other.create("ada", ["delete"], None, NOW_NS)
    assert status(strict, "DELETE", "/spans", Authorization=f"Bearer {again}") == 200
    assert status(strict, "GET", "/read", Authorization=f"Bearer {ada}") == 401


@pytest.mark.parametrize("damage", ["text", "mode", "removed"])
def test_nobody_is_let_in_while_the_file_is_damaged(
    strict: Server, known: Tokens, ada: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(known.path)
    before = path.read_bytes()
    assert status(strict, "GET", "/read", Authorization=f"Bearer {ada}") == 200
    if damage == "text":
        path.write_bytes(before + b"no JSON\n")
    elif damage == "mode":
        path.write_bytes(before + b"\n")
        path.chmod(0o640)
    else:
        path.unlink()
    assert status(strict, "GET", "/read", Authorization=f"Bearer {ada}") == 401
    path.write_bytes(before)
    path.chmod(0o600)
    assert status(strict, "GET", "/read", Authorization=f"Bearer {ada}") == 200


def test_every_hash_is_compared_whatever_token_comes(
    strict: Server, known: Tokens, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long a comparison takes says neither which token is near nor whether there is one."""
    for number in range(5):
        known.create(f"other {number}", ["read"], None, NOW_NS)
    compared: list[tuple[bytes, bytes]] = []

    compare_digest = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    strict.call("GET", "/read", headers={"X-Auth-Token": ada})
    monkeypatch.setattr(hmac, "compare_digest", compare)
    counts = {}
    for name, text in {"first": ada, "near": ada[:-1] + "_", "far": "x", "long": ada * 50}.items():
        compared.clear()
        strict.call("GET", "/read", headers={"X-Auth-Token": text})
        counts[name] = len(compared)
        # Only hashes are compared: a text that is nearly a token has a hash that is as far as any.
        assert {len(part) for pair in compared for part in pair} == {32}
    assert counts == {"first": 6, "near": 6, "far": 6, "long": 6}


def test_the_file_has_hashes_and_only_its_owner_can_read_it(known: Tokens, ada: str) -> None:
    assert stat.S_IMODE(os.stat(known.path).st_mode) == 0o600
    text = Path(known.path).read_text()
    assert ada not in text
    assert ada[3:] not in text
    assert ada.startswith("om_")
    assert len(ada) >= 43
    assert [(one.name, one.project) for one in Tokens(known.path).all()] == [("ada", "shop")]


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 201, " ada"])
def test_a_name_is_one_line(known: Tokens, name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        known.create(name, ["read"], None, NOW_NS)


def test_a_name_is_given_once(known: Tokens, ada: str) -> None:
    with pytest.raises(ConfigurationError, match="revoke"):
        known.create("ada", ["read"], None, NOW_NS)
    assert not known.revoke("bob", NOW_NS)


def test_a_torn_line_damages_no_later_one(known: Tokens, ada: str) -> None:
    with open(known.path, "ab") as file:
        file.write(b'{"type":"token","na')
    with pytest.raises(ConfigurationError, match="line 3"):
        Tokens(known.path).all()


def test_an_address_of_the_network_needs_tokens(tmp_path: Path, known: Tokens) -> None:
    store = SqliteStore(tmp_path / "spans.db")
    with pytest.raises(ConfigurationError, match="tokens"):
        LocalServer(store, host="0.0.0.0")
    with pytest.raises(ConfigurationError, match="tokens"):
        LocalServer(store, host="0.0.0.0", access=Access(known))
    with pytest.raises(ConfigurationError, match="token create"):
        Access(known, needs_token=True)
    with pytest.raises(ConfigurationError, match="token create"):
        Access(needs_token=True)
    store.close()


def test_the_hint_without_a_token_works_as_written(tmp_path: Path) -> None:
    """Whatever the file is called, and whether the address or the option demands tokens."""
    known = Tokens(str(tmp_path / "of a server.tokens"))
    with pytest.raises(ConfigurationError, match="--require-tokens or a --host") as refused:
        Access(known, needs_token=True)
    program, *words = shlex.split(f"{refused.value}".split("`")[1])
    assert program == "otel-metadata"
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert Access(known, needs_token=True).needs_token


def cookie_of(response: Any) -> str:
    return response.headers["Set-Cookie"].partition(";")[0]


def test_a_token_is_traded_for_a_cookie(strict: Server, ada: str) -> None:
    response = strict.call("POST", "/api/v1/session", json={"token": ada})
    assert response.json() == {"name": "ada", "scopes": ["read", "traces:update"], "project": "shop"}
    said = response.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(said.split("; "))
    assert ada not in said
    assert said.startswith(f"otel_metadata_{strict.local.port}=")
    headers = {"Cookie": f"other=1; {cookie_of(response)}"}
    assert strict.call("GET", "/read", headers=headers).json()["name"] == "ada"
    assert strict.call("DELETE", "/spans", headers=headers).status == 403
    assert strict.call("PATCH", "/spans/a", headers={**headers, "Origin": "https://evil.example"}).status == 403
    assert strict.call("POST", "/api/v1/session", json={"token": "om_no"}).status == 401
    assert strict.call("POST", "/api/v1/session", json={"token": ada}, headers={"Origin": "http://x.y"}).status == 403


def test_a_cookie_ends_with_its_token_by_itself_and_when_its_owner_signs_out(
    start_server: StartServer, known: Tokens, ada: str
) -> None:
    clock = ManualClock(NOW_NS)
    access = Access(known, needs_token=True, clock=clock)
    server = start_server(operations=TABLE, access=access)

    def sign_in() -> dict[str, str]:
        clock.advance(1)
        return {"Cookie": cookie_of(server.call("POST", "/api/v1/session", json={"token": ada}))}

    cookie = sign_in()
    assert server.call("GET", "/read", headers=cookie).status == 200
    clock.advance(SESSION_SECONDS * 1_000)
    assert server.call("GET", "/read", headers=cookie).status == 401
    cookie = sign_in()
    gone = server.call("DELETE", "/api/v1/session", headers=cookie)
    assert (gone.status, "Max-Age=0" in gone.headers["Set-Cookie"]) == (204, True)
    assert server.call("GET", "/read", headers=cookie).status == 401
    cookie = sign_in()
    assert server.call("GET", "/read", headers=cookie).status == 200
    known.revoke("ada", NOW_NS)
    assert server.call("GET", "/read", headers=cookie).status == 401


def test_the_cookie_is_no_token(strict: Server, ada: str) -> None:
    """Whoever has a cookie cannot make another one of it, for good, nor use it elsewhere than in a browser."""
    session = cookie_of(strict.call("POST", "/api/v1/session", json={"token": ada})).partition("=")[2]
    assert strict.call("POST", "/api/v1/session", json={"token": session}).status == 401
    for way in WAYS.values():
        assert strict.call("GET", "/read", headers=way(session)).status == 401


def test_signing_out_needs_a_token_or_its_cookie(strict: Server, start_server: StartServer, known: Tokens) -> None:
    """A file may have tokens with the names of callers without a token; `create` refuses them."""
    tokens = Path(known.path).read_bytes()
    local = start_server(operations=TABLE).call("GET", "/read").json()["name"]
    for name in ("nobody", local):
        secret = f"om_{name}"
        line = {"type": "token", "name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest()}
        tokens += msgspec.json.encode({**line, "scopes": ["read"], "created_ns": NOW_NS}) + b"\n"
    Path(known.path).write_bytes(tokens)
    cookie = {"Cookie": cookie_of(strict.call("POST", "/api/v1/session", json={"token": "om_nobody"}))}
    assert strict.call("GET", "/read", headers=cookie).json()["name"] == "nobody"
    assert strict.call("DELETE", "/api/v1/session").status == 204
    assert strict.call("GET", "/read", headers=cookie).status == 200


@pytest.mark.parametrize("name", ["nobody", "http:ada", "cli:ada", "mcp:claude"])
def test_names_of_callers_without_a_token_are_taken(known: Tokens, name: str) -> None:
    with pytest.raises(ConfigurationError, match="callers without a token"):
        known.create(name, ["read"], None, NOW_NS)


def test_a_page_behind_a_proxy_signs_in_and_changes_spans(strict: Server, ada: str) -> None:
    """The proxy speaks TLS, and names its upstream in the Host header, as nginx does."""
    page = {"Origin": "https://traces.example.com", "Sec-Fetch-Site": "same-origin", "Host": "127.0.0.1:4318"}
    response = strict.call("POST", "/api/v1/session", json={"token": ada}, headers=page)
    assert response.status == 200
    assert "Secure" in response.headers["Set-Cookie"].split("; ")
    cookie = {"Cookie": cookie_of(response)}
    assert strict.call("PATCH", "/spans/ab", headers={**page, **cookie}).json()["name"] == "ada"
    for site in ("cross-site", "same-site", "none"):
        assert strict.call("PATCH", "/spans/ab", headers={**page, **cookie, "Sec-Fetch-Site": site}).status == 403
    # A browser that does not say which site the page is of has to be told apart by the Host header.
    old = {"Origin": page["Origin"], **cookie}
    assert strict.call("PATCH", "/spans/ab", headers={**old, "Host": "127.0.0.1:4318"}).status == 403
    assert strict.call("PATCH", "/spans/ab", headers={**old, "Host": "traces.example.com"}).status == 200
    gone = strict.call("DELETE", "/api/v1/session", headers={**page, **cookie})
    assert (gone.status, "Secure" in gone.headers["Set-Cookie"]) == (204, True)
    assert strict.call("GET", "/read", headers=cookie).status == 401


def test_without_tokens_a_page_has_to_have_the_name_of_the_host(server: Server) -> None:
    page = {"Origin": "https://traces.example.com", "Sec-Fetch-Site": "same-origin", "Host": "127.0.0.1:4318"}
    assert server.call("PATCH", "/spans/ab", headers=page).status == 403


def test_another_page_sends_spans_in_its_own_name(start_server: StartServer, known: Tokens) -> None:
    """A browser sends the cookies of a host to all of its ports."""
    eve = known.create("eve", ["traces:write"], None, NOW_NS)
    server = start_server(operations=TABLE, access=Access(known))
    cookie = cookie_of(server.call("POST", "/api/v1/session", json={"token": eve}))
    own = server.call("POST", "/v1/traces", headers={"Cookie": cookie, "Origin": server.url})
    other = server.call("POST", "/v1/traces", headers={"Cookie": cookie, "Origin": "http://localhost:3000"})
    assert (own.json()["name"], other.json()["name"].partition(":")[0]) == ("eve", "http")


def test_nothing_of_a_token_is_logged_or_answered(
    strict: Server, ada: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    cookie = cookie_of(strict.call("POST", "/api/v1/session", json={"token": ada}))
    said = []
    for way in WAYS.values():
        for key in (ada, "om_wrong-s3cr3t"):
            for method, path in (("GET", "/read"), ("DELETE", "/spans"), ("GET", "/nothing"), ("PUT", "/read")):
                response = strict.call(method, path, headers=way(key))
                said.append(f"{response.data!r}{dict(response.headers)}")
    said.append(str(strict.call("GET", "/read", headers={"Cookie": cookie}).data))
    for body in ({"token": ada, "other": 1}, {"token": [ada]}, {"tokens": ada}, [ada]):
        refused = strict.call("POST", "/api/v1/session", json=body)
        assert refused.status == 400
        said.append(str(refused.data))
    known = [ada, ada[3:], "s3cr3t", cookie.partition("=")[2], basic("pk-lf-1", ada).partition(" ")[2]]
    logged = "\n".join(
        f"{record.getMessage()}{record.args}" for record in caplog.records if not record.name.startswith("urllib3")
    )
    out = capfd.readouterr()
    for secret in known:
        for text in (*said, logged, out.out, out.err):
            assert secret not in text
