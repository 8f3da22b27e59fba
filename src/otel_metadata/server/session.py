"""`/api/v1/session`: a browser trades a token for a cookie, which scripts of a page cannot read."""

from __future__ import annotations

from typing import Final

import msgspec

from otel_metadata.server.access import SESSION_SECONDS
from otel_metadata.server.operations import Answer, Call, Operation


class SignIn(msgspec.Struct, forbid_unknown_fields=True):
    """A token."""

    token: str


class SignedIn(msgspec.Struct):
    """Who is signed in, and what they may do."""

    name: str
    scopes: list[str]
    project: str | None


async def _sign_in(call: Call) -> Answer:
    session, caller = call.service.access.sign_in(call.body.token)
    cookie = _cookie(call, session, SESSION_SECONDS)
    who = SignedIn(caller.name, sorted(caller.scopes), caller.project)
    return Answer(who, headers={"Set-Cookie": cookie, "Cache-Control": "no-store"})


async def _sign_out(call: Call) -> Answer:
    call.service.access.sign_out(call.caller)
    return Answer(status=204, headers={"Set-Cookie": _cookie(call, "", 0)})


def _cookie(call: Call, session: str, seconds: int) -> str:
    # Only the browser knows whether there is a proxy with TLS: it says so in the Origin of its page.
    secure = "; Secure" if call.headers.get("origin", "").lower().startswith("https://") else ""
    return f"{call.service.access.cookie}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "POST",
        "/api/v1/session",
        "sign_in",
        "Trade a token for a cookie.",
        _sign_in,
        None,
        tag="server",
        body=SignIn,
        answer=SignedIn,
        max_bytes=8 << 10,
        problems={401: "The token is not known."},
    ),
    Operation(
        "DELETE",
        "/api/v1/session",
        "sign_out",
        "End all sessions of the token, in every browser.",
        _sign_out,
        None,
        tag="server",
        status=204,
    ),
)
