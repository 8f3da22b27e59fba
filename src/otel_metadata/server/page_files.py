"""The page: one document for all its places, and the files that it loads.

The files have the same address as long as none of them changes, and then all have another one, so a browser keeps them
for ever and never mixes two releases. Only the document is asked for again.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from otel_metadata.server.operations import Answer, Call, Operation

if TYPE_CHECKING:
    from importlib.abc import Traversable

PLACES: Final = ("/", "/traces/{trace_id}", "/compare", "/overview", "/changes", "/connect")
"""Paths of the document; the browser decides what to show."""

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "json": "application/json",
}

_FOR_EVER: Final = "public, max-age=31536000, immutable"
_SHELL: Final = "index.html"
_BASE: Final = b"/page/"
"""Where the document says its files are; the digest of all files goes behind it."""


def _found(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _found(entry, f"{prefix}{entry.name}/")
        elif entry.name.rpartition(".")[2] in _TYPES:
            yield f"{prefix}{entry.name}", entry.read_bytes()


FILES: Final = dict(sorted(_found(files("otel_metadata.server") / "page")))
"""Every file of the page, by its path."""


def _digest() -> str:
    digest = hashlib.sha256()
    for path, data in FILES.items():
        digest.update(b"%s %d\n%s" % (path.encode(), len(data), data))
    return digest.hexdigest()[:16]


BASE: Final = f"/page/{_digest()}"
"""Where the files are."""


@cache
def _compressed(path: str) -> bytes:
    return gzip.compress(_data(path), 9, mtime=0)


def _data(path: str) -> bytes:
    data = FILES[path]
    return data.replace(_BASE, f"{BASE}/".encode()) if path == _SHELL else data


def _answer(call: Call, path: str, cache_control: str) -> Answer:
    etag = f'"{BASE[-16:]}"'
    headers = {"Cache-Control": cache_control, "ETag": etag, "Vary": "Accept-Encoding"}
    known = call.headers.get("if-none-match", "")
    if etag in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Answer(status=304, headers=headers)
    data = _data(path)
    if _takes_gzip(call.headers.get("accept-encoding", "")):
        compressed = _compressed(path)
        if len(compressed) < len(data):
            data, headers["Content-Encoding"] = compressed, "gzip"
    return Answer(data, media_type=_TYPES[path.rpartition(".")[2]], headers=headers)


def _takes_gzip(accepted: str) -> bool:
    """Tell whether a client takes gzip: `gzip`, `gzip;q=0.5`, but not `gzip;q=0`."""
    for one in accepted.split(","):
        name, _, quality = one.partition(";")
        if name.strip().lower() == "gzip":
            return quality.replace(" ", "").rstrip("0.") not in {"q=", "q"}
    return False


async def _document(call: Call) -> Answer:
    return _answer(call, _SHELL, "no-cache")


def _file(path: str) -> Operation:
    async def handler(call: Call) -> Answer:
        return _answer(call, path, _FOR_EVER)

    return Operation(
        "GET", f"{BASE}/{path}", f"page:{path}", "A file of the page.", handler, None, "page", answer=bytes
    )


OPERATIONS: Final[tuple[Operation, ...]] = (
    *(Operation("GET", place, f"page {place}", "The page.", _document, None, "page", answer=bytes) for place in PLACES),
    *(_file(path) for path in FILES if path != _SHELL),
)
