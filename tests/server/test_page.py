"""The page as the server sends it; tests/browser opens it in a browser."""

from __future__ import annotations

import gzip
import hashlib
import json
import re

import pytest
from tests.server.conftest import Server

from otel_metadata.server.page_files import BASE, FILES, OPERATIONS, PLACES

OWN = [path for path in FILES if path.endswith(".js") and not path.startswith("vendor/")]
TRACE = "/traces/" + "0" * 31 + "1"


@pytest.mark.parametrize("path", [TRACE if "{" in place else place for place in PLACES])
def test_every_place_is_the_same_document_under_a_strict_policy(server: Server, path: str) -> None:
    response = server.call("GET", path)
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache"
    policy = dict(one.split(" ", 1) for one in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert response.data == server.call("GET", "/").data


def test_the_document_names_every_module_of_a_first_visit_and_nothing_is_inline(server: Server) -> None:
    """Modules that it does not name are found one after the other, each a round trip later; places load on demand."""
    text = server.call("GET", "/").data.decode()
    named = re.findall(rf'(?:href|src)="{BASE}/([^"]+)"', text)
    first: set[str] = set()
    waiting = {"main.js", "trace.js"}  # a trace is opened soon, so its modules come right behind the list
    while waiting:
        path = waiting.pop()
        first.add(path)
        folder = path.rpartition("/")[0]
        for found in re.findall(r'\bfrom\s*"\./([^"]+)"', FILES[path].decode()):
            waiting |= {f"{folder}/{found}".lstrip("/")} - first
    assert first == {path for path in named if path.endswith(".js")}
    assert len(named) == len(set(named)) == len(re.findall(r"(?:href|src)=", text))
    assert not re.search(r"<style|style=|<script>|\son\w+=", text)


def test_every_module_is_loaded_by_another_or_by_the_document() -> None:
    everything = "".join(FILES[path].decode() for path in FILES if path.endswith((".js", ".html")))
    for path in FILES:
        if path.endswith(".js"):
            assert path.rpartition("/")[2] in everything, path


@pytest.mark.parametrize("path", [path for path in FILES if path != "index.html"])
def test_files_are_kept_for_ever(server: Server, path: str) -> None:
    response = server.call("GET", f"{BASE}/{path}")
    assert response.data == FILES[path]
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    kind = {
        "js": "text/javascript",
        "css": "text/css",
        "svg": "image/svg+xml",
        "txt": "text/plain",
        "json": "application/json",
    }
    assert response.headers["Content-Type"].startswith(kind[path.rpartition(".")[2]])


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [("gzip, deflate, br", True), ("GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.000", False), ("br", False)],
)
def test_a_client_gets_gzip_if_it_takes_it(server: Server, accepted: str, is_compressed: bool) -> None:
    headers = {"Accept-Encoding": accepted}
    response = server.http.request("GET", f"{server.url}{BASE}/style.css", headers=headers, decode_content=False)
    assert (response.headers.get("Content-Encoding") == "gzip") == is_compressed
    assert (gzip.decompress(response.data) if is_compressed else response.data) == FILES["style.css"]
    assert response.headers["Vary"] == "Accept-Encoding"


def test_a_browser_that_has_the_document_does_not_get_it_again(server: Server) -> None:
    etag = server.call("GET", "/").headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        response = server.call("GET", "/", headers={"If-None-Match": known})
        assert (response.status, response.data) == (304, b"")
        assert response.headers["ETag"] == etag
    assert server.call("GET", "/", headers={"If-None-Match": '"other"'}).status == 200


def test_only_the_files_of_the_page_are_answered(server: Server) -> None:
    for path in (
        "/page/index.html",
        f"{BASE}/../page.py",
        f"{BASE}/%2e%2e/page.py",
        f"{BASE}/nothing.js",
        f"{BASE}/vendor/",
    ):
        assert server.http.request("GET", server.url + path).status == 404


def test_the_first_visit_is_at_most_60_kb() -> None:
    text = FILES["index.html"].decode()
    named = re.findall(r'(?:href|src)="/page/([^"]+)"', text)
    assert sum(len(gzip.compress(FILES[path], 9)) for path in ["index.html", *named]) <= 60_000


def test_the_libraries_are_as_they_were_vendored() -> None:
    """Each file has the digest that was written down, and its package a licence."""
    expected = {"vendor/vendored.json"}
    for package in json.loads(FILES["vendor/vendored.json"]):
        names = package["files"].values()
        assert any(name.endswith(".LICENSE.txt") for name in names)
        for name in names:
            expected.add(f"vendor/{name}")
            assert hashlib.sha256(FILES[f"vendor/{name}"]).hexdigest() == package["written"][name], name
    assert expected == {path for path in FILES if path.startswith("vendor/")}


@pytest.mark.parametrize("path", OWN)
def test_modules_ask_nobody_else_and_turn_no_text_into_markup(path: str) -> None:
    text = FILES[path].decode()
    for specifier in re.findall(r'\b(?:from\s+|import\()"([^"]+)"', text):
        assert specifier.startswith("./"), specifier
        assert specifier.removeprefix("./") in FILES, specifier
    assert not re.search(
        r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )


def test_the_page_needs_no_scope_and_shows_no_data() -> None:
    """Somebody without a token has to see where to put one."""
    assert {operation.scope for operation in OPERATIONS} == {None}
    assert {operation.method for operation in OPERATIONS} == {"GET"}
