"""Patches as lines of text, for people who watch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TextIO, final

from otel_metadata.arguments import checked
from otel_metadata.foreign_text import visible
from otel_metadata.model.merge import json_text
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Rejected

if TYPE_CHECKING:
    from otel_metadata.model.patch import Patch
    from otel_metadata.seams import Convergence


@final
class ConsolePatchExporter:
    """Prints each patch as one line: the target, then each field with its value as JSON."""

    name: str = "console"
    max_batch: int = 100
    grace_millis: int = 0
    reports_missing: bool = False
    convergence: Convergence = "none"

    @checked
    def __init__(self, out: TextIO | None = None) -> None:
        """Print to *out*; None prints to `sys.stdout` as it is at the time."""
        self._out: Final = out

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:  # never waits
        """Print the patches."""
        out = self._out or sys.stdout
        outcomes: list[Outcome] = []
        for patch in patches:
            parts = (
                # As JSON, so that the end of a key can be seen.
                f"{name[0]}.{name[1]}{'.' + json_text(name[2])[1:-1] if name[2] else ''}={json_text(value)}"
                for name, (value, _) in sorted(patch.fields.items())
            )
            line = visible(f"patch {patch.target} {' '.join(parts)}") + "\n"
            try:
                out.write(line.encode("ascii", "backslashreplace").decode())
                out.flush()
            except (OSError, ValueError) as error:
                outcomes.append(
                    Rejected(DeliveryError("backend_rejection", f"the console is closed ({type(error).__name__})"))
                )
            else:
                outcomes.append(Delivered())
        return outcomes

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # nothing is buffered
        """Nothing is buffered."""
        return True

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """Standard output is not ours to close."""
