"""The second process of the demo: it knows only a store and a `traceparent`.

Prints one line for each update: the span, the update, and the receipt's route, separated by tabs.
"""

from __future__ import annotations

import sys
from typing import Final

from otel_metadata.live.current import annotate_span, score_span, update_span
from otel_metadata.pipeline import configure, flush

REVIEWER: Final = "ada"
"""The author of these updates."""


def main(store: str, traceparent: str) -> int:
    """Update the span that *traceparent* names, and return the exit code."""
    configure(store, author=REVIEWER)
    receipts = [
        ("metadata thumbs='down'", update_span(traceparent, metadata={"thumbs": "down"})),
        (
            "evaluation Correctness='correct'",
            score_span(
                traceparent,
                "Correctness",
                label="correct",
                score=1.0,
                explanation="Rayleigh scattering, as the book has it.",
                source="human",
            ),
        ),
        ("annotation tone='friendly'", annotate_span(traceparent, "tone", label="friendly", annotator="ada")),
    ]
    for call, receipt in receipts:
        print(f"answer\t{call}\t{receipt.route}")  # read by the demo
    return 0 if flush() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
