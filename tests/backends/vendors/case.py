"""What the contract suite needs to know of a vendor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.backends.vendors.server import Double

from otel_metadata.model.patch import Patch
from otel_metadata.seams import PatchExporter


@dataclass(frozen=True)
class Case:
    """One vendor.

    Attributes:
        name: As in `backends.NAMES`, and the exporter's name.
        double: Makes the double.
        exporter: Makes an exporter for a double, or for the address of one; with `server.KEY` as key.
        patch: Returns a patch for the target with a number; one that the exporter can deliver in one request.
        know: Makes the double know the target of a patch, as after the export of its span.
        reports_missing: Whether a patch of an unknown target is `segment_not_found`.
        answers: What a status means here, where it is not what `docs/http.md` says: status to the outcome's type.
        success: A 2xx whose body is empty, a page or no JSON is a success all the same (the vendor sends no body).
        path: What every path must match.
    """

    name: str
    double: Callable[[], Double]
    exporter: Callable[[str], PatchExporter]
    patch: Callable[[int], Patch]
    know: Callable[[Any, Patch], None]
    reports_missing: bool
    path: str
    answers: Mapping[int, type] = field(default_factory=dict)
    success: bool = False
