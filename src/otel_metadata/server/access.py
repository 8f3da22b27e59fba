"""Who may call: names of hosts, origins of pages, tokens."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final, get_args

from otel_metadata.server.operations import Caller, Scope

if TYPE_CHECKING:
    from otel_metadata.server.operations import Operation

SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))


@final
class Access:
    """The rules of one server."""

    def __init__(self) -> None:
        """Let everybody on this machine in."""
        try:
            user = getpass.getuser()
        except (ImportError, KeyError, OSError):  # a container's user without a name
            user = "local"
        self._local = Caller(f"http:{user}", SCOPES)

    def caller(self, operation: Operation, headers: Mapping[str, str]) -> Caller:
        """Return who calls.

        Raises:
            Problem: The call is refused.
        """
        return self._local
