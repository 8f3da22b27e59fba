"""What an update call returns at once: where the update went, for each destination.

A receipt says what was decided when the call returned. What became of it later says `outcome(receipt)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias, final, get_args

from otel_metadata.model.merge import FieldName, Version
from otel_metadata.model.patch import patch_id
from otel_metadata.model.span_ref import SpanKey

__all__ = ["LossReason", "Receipt", "Refusal", "Route", "Routed"]

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
"""Why an update that was accepted did not arrive. The list is closed: `stats()` counts by it."""

LOSS_REASONS: Final[frozenset[str]] = frozenset(get_args(LossReason))

Refusal: TypeAlias = Literal[
    "unsampled", "invalid_target", "not_configured", "after_shutdown", "no_current_span", "empty", "internal_error"
]
"""Why an update was not accepted. `empty` is an update that sets nothing: no failure, and logged only where an argument
does not fit.
`internal_error` is a failure of ours, which was logged and counted (`stats().internal_errors`)."""

# The furthest from the span decides what a receipt is called as a whole.
_DISTANCE: Final[Mapping[Route, int]] = {"live": 0, "in_flight": 1, "late": 2, "dropped": 3}


class Routed(NamedTuple):
    """Where an update went for one destination.

    Attributes:
        route: See `Route`.
        reason: Why it was dropped, or a remark; None otherwise.
    """

    route: Route
    reason: str | None = None


_LIVE: Final = Routed("live")
_NOTHING: Final[tuple[SpanKey, Iterable[FieldName | str]]] = ((0, 0), ())


@final
class Receipt:
    """What an update call returns: true unless nobody took the update.

    Attributes:
        version: The version that the update's fields carry; (0, 0) when it was refused.
        notes: What the clean-up of its values changed, one sentence each, naming keys and never values.
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
            routes: By destination name. A bare tuple of names means that all of them took it live, which is the common
                case on the application's hot path: the mapping is then made only for who asks.
            about: The span or trace, and the names of the fields, for `outcome`; a bare text is a metadata key of the
                span. One argument and no more: a late update into memory costs little more than its receipt.
            notes: What was changed.
            reason: Why it was refused as a whole.
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
        """The furthest from the span among those that took it; `dropped` when nobody did."""
        taken = [routed.route for routed in self.routes.values() if routed.route != "dropped"]
        return max(taken, key=_DISTANCE.__getitem__, default="dropped")

    @property
    def reason(self) -> str | None:
        """Why it was dropped: of the whole update, or of the first destination that dropped it."""
        if self._reason is not None:
            return self._reason
        return next((routed.reason for routed in self.routes.values() if routed.route == "dropped"), None)

    @property
    def refusal(self) -> Refusal | None:
        """Why the update was refused as a whole; None when it was accepted."""
        return self._reason

    @property
    def key(self) -> SpanKey:
        """(trace id, span id) of what it is about; a span id of 0 is the trace alone."""
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
        """False only when nobody took the update."""
        return self.route != "dropped"

    def __repr__(self) -> str:
        """A status line."""
        reason = f", reason={self.reason!r}" if self.reason else ""
        notes = f", notes={len(self.notes)}" if self.notes else ""
        routes = ", ".join(f"{name}: {routed.route}" for name, routed in self.routes.items())
        return f"<Receipt {self.route}{reason}{notes} [{routes}]>"
