"""Patches kept in memory: the fake patch exporter, for our tests and for those of applications."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

from otel_metadata.arguments import checked
from otel_metadata.model.outcome import Delivered, Outcome

if TYPE_CHECKING:
    from otel_metadata.model.patch import Patch
    from otel_metadata.seams import Convergence

__all__ = ["InMemoryPatchExporter"]


@final
class InMemoryPatchExporter:
    """Keeps the patches that it was sent, and answers as it is told.

    Attributes:
        patches: Every patch that was answered with `Delivered`, in order.
        calls: Every batch that was sent, whatever the answer.
        answer: Called with each patch; returns its outcome. A plain function, as in httpx's mock transport.
        is_shut_down: Whether `shutdown` was called.
    """

    @checked
    def __init__(
        self,
        answer: Callable[[Patch], Outcome] | None = None,
        *,
        name: str = "memory",
        max_batch: int = 100,
        grace_millis: int = 0,
        reports_missing: bool = False,
        convergence: Convergence = "versioned",
    ) -> None:
        """Answer each patch with the result of *answer*; None answers `Delivered`."""
        self.name = name
        self.max_batch = max_batch
        self.grace_millis = grace_millis
        self.reports_missing = reports_missing
        self.convergence: Convergence = convergence
        self.answer = answer
        self.patches: list[Patch] = []
        self.calls: list[tuple[Patch, ...]] = []
        self.is_shut_down = False

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:  # never waits
        """Keep the patches and return an outcome for each."""
        self.calls.append(tuple(patches))
        outcomes = [self.answer(patch) if self.answer is not None else Delivered() for patch in patches]
        self.patches.extend(
            patch for patch, outcome in zip(patches, outcomes, strict=True) if isinstance(outcome, Delivered)
        )
        return outcomes

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # nothing is buffered
        """Nothing is buffered."""
        return True

    def shutdown(self, timeout_millis: int = 5_000) -> None:  # nothing to wait for
        """Set `is_shut_down`."""
        self.is_shut_down = True
