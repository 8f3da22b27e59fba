"""Receipts: an update call returns one at once, with the route of the update for each destination.

A receipt says what was decided when the call returned. `outcome(receipt)` says what became of the update later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias, final, get_args

from otel_metadata.model.merge import FieldName, Version
from otel_metadata.model.patch import patch_id
from otel_metadata.model.span_ref import SpanKey

Route: TypeAlias = Literal["live", "in_flight", "late", "dropped"]
"""live: set on the span while it records. in_flight: joined to the ended span before it is exported.
late: a patch after the export. dropped: not taken, with a reason."""

LossReason: TypeAlias = Literal[
    "target_not_exported",
    "target_not_found",
    "buffer_full",
    "spool_full",
    "spool_damaged",
    "rejected",
    "unsupported",
    "expired",
    "shutdown_deadline",
    "fork_child",
    "internal_error",
]
"""Why an accepted update did not arrive. The list is closed: `stats()` counts by these words."""

LOSS_REASONS: Final[frozenset[str]] = frozenset(get_args(LossReason))

Refusal: TypeAlias = Literal[
    "unsampled", "invalid_target", "not_configured", "after_shutdown", "no_current_span", "empty", "internal_error"
]
"""Why an update was not accepted. `empty` is an update that sets nothing: that is no failure, and is logged only where
an argument does not fit. `internal_error` is a failure of ours, which is logged and counted
(`stats().internal_errors`)."""

# The route of a whole receipt is the one that is furthest from the span.
_DISTANCE: Final[Mapping[Route, int]] = {"live": 0, "in_flight": 1, "late": 2, "dropped": 3}


class Routed(NamedTuple):
    """Where an update went for one destination.

    Attributes:
        route: See `Route`.
        reason: Why the update was dropped, or a remark; else None.
    """

    route: Route
    reason: str | None = None


_LIVE: Final = Routed("live")
_NOTHING: Final[tuple[SpanKey, Iterable[FieldName | str]]] = ((0, 0), ())


@final
class Receipt:
    """The result of an update call: true unless no destination took the update.

    Attributes:
        version: The version of the update's fields; (0, 0) when it was refused.
        notes: One sentence for each change that the clean-up made to its values. It names keys, never values.
    """

    __slots__ = ("_about", "_reason", "_routes", "notes", "version")

    def __init__(
        self,
        version: Version,
        routes: Mapping[str, Routed] | tuple[str, ...],
        about: tuple[SpanKey, Iterable[FieldName | str]] = _NOTHING,
        notes: tuple[str, ...] = (),
        reason: Refusal | None = None,
    ) -> None:
        """Make a receipt.

        Args:
            version: The version of the update.
            routes: The routes, by destination name. A tuple of names means that all of them took the update live. That
                is the common case on the application's hot path, so the mapping is made only when it is read.
            about: The span or trace, and the names of the fields, for `outcome`; a text is a metadata key of the span.
                It is one argument because a late update into memory costs little more than its receipt.
            notes: See the attribute.
            reason: Why the update was refused as a whole.
        """
        self.version = version
        self.notes = notes
        self._routes = routes
        self._reason = reason
        self._about = about

    @classmethod
    def refused(cls, reason: Refusal, notes: tuple[str, ...] = ()) -> Receipt:
        """Make a false receipt."""
        return cls((0, 0), {}, _NOTHING, notes, reason)

    @property
    def routes(self) -> Mapping[str, Routed]:
        """Destination name → route and reason."""
        if isinstance(self._routes, tuple):
            return dict.fromkeys(self._routes, _LIVE)
        return self._routes

    @property
    def route(self) -> Route:
        """The route that is furthest from the span, of destinations that took the update; else `dropped`."""
        taken = [routed.route for routed in self.routes.values() if routed.route != "dropped"]
        return max(taken, key=_DISTANCE.__getitem__, default="dropped")

    @property
    def reason(self) -> str | None:
        """Why the whole update was refused, or why the first destination that dropped it did."""
        if self._reason is not None:
            return self._reason
        return next((routed.reason for routed in self.routes.values() if routed.route == "dropped"), None)

    @property
    def refusal(self) -> Refusal | None:
        """Why the update was refused as a whole; None when it was accepted."""
        return self._reason

    @property
    def key(self) -> SpanKey:
        """(trace id, span id) of the target; a span id of 0 means the trace alone."""
        return self._about[0]

    @property
    def names(self) -> tuple[FieldName, ...]:
        """The names of the fields that it sets."""
        return tuple(("span", "metadata", name) if isinstance(name, str) else name for name in self._about[1])

    @property
    def patch_id(self) -> str:
        """32 hex digits; all zeros when the update was refused."""
        return patch_id(self.version)

    def __bool__(self) -> bool:
        """False only when no destination took the update."""
        return self.route != "dropped"

    def __repr__(self) -> str:
        """A status line."""
        reason = f", reason={self.reason!r}" if self.reason else ""
        notes = f", notes={len(self.notes)}" if self.notes else ""
        routes = ", ".join(f"{name}: {routed.route}" for name, routed in self.routes.items())
        return f"<Receipt {self.route}{reason}{notes} [{routes}]>"
