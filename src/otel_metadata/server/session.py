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
    access = call.service.access
    session, caller = access.sign_in(call.body.token)
    cookie = f"{access.cookie}={session}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Strict"
    who = SignedIn(caller.name, sorted(caller.scopes), caller.project)
    return Answer(who, headers={"Set-Cookie": cookie, "Cache-Control": "no-store"})


async def _sign_out(call: Call) -> Answer:
    access = call.service.access
    access.sign_out(call.caller)
    cookie = f"{access.cookie}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"
    return Answer(status=204, headers={"Set-Cookie": cookie})


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
