"""Entity tags: the version of what is set on a span or trace, and `If-Match` (RFC 9110, 13.1.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from otel_metadata.model.merge import latest_version
from otel_metadata.server.operations import Problem

if TYPE_CHECKING:
    from otel_metadata.model.merge import Fields, Version

NOTHING_SET: Final = "0"
"""The version of a span on which nothing was set."""

_ETAGS: Final = re.compile(r'\s*(?:\*|(?:W/)?"[^"]*"(?:\s*,\s*(?:W/)?"[^"]*")*)\s*')
_STRONG: Final = re.compile(r'(?<!W/)"([^"]*)"')


def entity_tag(fields: Fields) -> str:
    """Return the entity tag, without quotes, of a span or trace with these fields: the greatest of their versions."""
    return tag_of(latest_version(fields))


def tag_of(latest: Version) -> str:
    """Return the entity tag, without quotes, of a span or trace whose greatest version this is; (0, 0) for none."""
    return version_text(latest) if latest != (0, 0) else NOTHING_SET


def version_text(version: Version) -> str:
    """Return a version as text."""
    ns, writer = version
    return f"{ns}-{writer:016x}"


def if_match(headers: Mapping[str, str]) -> str | None:
    """Return `If-Match` of a request; None if it has none.

    Raises:
        Problem: 400, because it is no list of entity tags.
    """
    wanted = headers.get("if-match")
    if wanted is not None and not _ETAGS.fullmatch(wanted):
        expected = "the ETag of the span, in quotes, or *"
        raise Problem(400, f"If-Match is {wanted[:100]!r}; expected {expected}.", expected=expected)
    return wanted


def check_match(wanted: str, tag: str | None) -> None:
    """Compare `If-Match` with what is stored.

    Args:
        wanted: Returned by `if_match`.
        tag: The entity tag of now; None for what is not stored.

    Raises:
        Problem: 412.
    """
    if tag is not None and (wanted.strip() == "*" or tag in _STRONG.findall(wanted)):
        return
    got = f'its ETag is "{tag}" now' if tag is not None else "it is not stored"
    raise Problem(
        412,
        f"If-Match is {wanted[:200]}, and {got}; expected the ETag of now: read it again, and decide anew.",
        expected=f'"{tag}"' if tag is not None else None,
        headers={"ETag": f'"{tag}"'} if tag is not None else {},
    )
