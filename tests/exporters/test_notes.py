"""Which notes say that something was not kept: those are warnings, all others are how a backend works."""

from __future__ import annotations

import pytest
from tests.backends.vendors import arize, galileo, langfuse, langfuse_v3, langwatch, mlflow, phoenix
from tests.backends.vendors.case import Case

from otel_metadata.backends.arize.patches import ArizePatchExporter
from otel_metadata.model.merge import FieldName, Fields, Json
from otel_metadata.model.outcome import Delivered, NotKept, Outcome
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

AT = (1_700_000_000_000_000_000, 7)

# A field that each keeps in another place or form, and one that it has no place for.
KEPT: FieldName = ("trace", "metadata", "kept")
CASES: list[tuple[Case, FieldName, FieldName]] = [
    (galileo.CASE, ("span", "status", ""), ("span", "metadata", "gone")),
    (langfuse.CASE, KEPT, ("span", "name", "")),
    (langfuse_v3.CASE, KEPT, ("span", "attribute", "gone")),
    (langwatch.CASE, KEPT, ("span", "name", "")),
    (mlflow.CASE, KEPT, ("trace", "input", "")),
    (phoenix.CASE, KEPT, ("span", "metadata", "gone")),
]


def parts(outcome: Outcome) -> tuple[list[str], list[str]]:
    """Return the notes of what is somewhere, and of what is nowhere."""
    assert isinstance(outcome, Delivered), outcome
    gone = [note for note in outcome.notes if isinstance(note, NotKept)]
    return [note for note in outcome.notes if note not in gone], gone


def said(kept: FieldName, gone: FieldName) -> Fields:
    values: dict[str, Json] = {"status": "error", "metadata": {"a": 1}}
    return {name: (values.get(name[1], "x"), AT) for name in (kept, gone)}


@pytest.mark.parametrize(("case", "kept", "gone"), CASES, ids=lambda one: getattr(one, "name", ""))
def test_what_is_nowhere_is_told_apart(case, kept, gone):
    """One note of each."""
    with case.double() as double:
        exporter = case.exporter(double.url)
        target = case.patch(1).target
        if case is phoenix.CASE:
            # It has a place for everything, but for a span that is not named.
            target = SpanRef(target.trace_id, 0)
        one = Patch(target, said(kept, gone))
        case.know(double, case.patch(1))
        (outcome,) = exporter.export([one], timeout_millis=5_000)
        exporter.shutdown()
    elsewhere, nowhere = parts(outcome)
    assert len(elsewhere) == len(nowhere) == 1, outcome


def test_arize_tells_them_apart_too():
    """A bool is text there; a name is nowhere."""
    spans = arize.ArizeSpans()
    spans.know(f"{1:016x}")
    exporter = ArizePatchExporter(lambda: spans, space_id=arize.SPACE, project=arize.PROJECT)
    fields: Fields = {("span", "metadata", "b"): (True, AT), ("span", "name", ""): ("x", AT)}
    (outcome,) = exporter.export([Patch(SpanRef(5, 1), fields)], timeout_millis=5_000)
    exporter.shutdown()
    assert parts(outcome) == (
        ["metadata.b: kept as the text of its JSON"],
        ["name: unsupported, Arize sets it only with the span"],
    )
