"""One row of figures: what, figure, aim, verdict."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple


class Row(NamedTuple):
    """What a script found.

    Attributes:
        what: Of what.
        figure: As measured.
        aim: What it should be.
        is_reached: Whether it is; None where nothing was measured.
        is_hard: Whether missing it fails the script: what may be lost, never how long something took.
    """

    what: str
    figure: str
    aim: str
    is_reached: bool | None
    is_hard: bool = True


def show(rows: list[Row]) -> int:
    """Print the rows; return the exit code: 1 when a hard aim was missed."""
    for row in rows:
        verdict = {True: "reached", False: "NOT REACHED" if row.is_hard else "not reached in this run", None: "-"}
        print(f"{row.what:52} {row.figure:>34}  {row.aim:22} {verdict[row.is_reached]}", flush=True)
    return int(any(row.is_hard and row.is_reached is False for row in rows))


def is_long() -> bool:
    """Whether the long forms were asked for: `make stress LONG=1`."""
    return os.environ.get("LONG", "") not in {"", "0"}


def percentile(values: Iterable[float], share: float) -> float:
    """Return the *share* quantile of nanoseconds, in microseconds."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1000
