"""What each backend shows of one update of each kind, live and late: the generated part of `docs/backends.md`.

Live is what the dialect writes on the span, late what the exporter's outcome says against the double of the server.
Run: `python -m tests.backends.shown` writes it into the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.dialects.columns import galileo, langfuse, langwatch, mlflow
from tests.dialects.test_golden import Span
from tests.exporters.vendors import arize as arize_double
from tests.exporters.vendors import galileo as galileo_double
from tests.exporters.vendors import langfuse as langfuse_double
from tests.exporters.vendors import langfuse_v3, phoenix
from tests.exporters.vendors import langwatch as langwatch_double
from tests.exporters.vendors import mlflow as mlflow_double
from tests.exporters.vendors.case import Case

from otel_metadata.dialects.openinference import OpenInferenceDialect
from otel_metadata.exporters.arize import ArizePatchExporter
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Fields, Json, json_text
from otel_metadata.model.outcome import Delivered, Outcome
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import Dialect

PAGE: Final = Path(__file__).parents[2] / "docs" / "backends.md"
BEGIN, END = "<!-- generated: python -m tests.backends.shown -->\n", "<!-- end -->\n"
HEAD: Final = "| what | live, in flight: on the span | late: the outcome's note |"
AT: Final = 1_700_000_000_000_000_000

VALUES: Final[dict[str, Json]] = {
    "s": "x",
    "n": 0,
    "f": 0.5,
    "b": False,
    "none": None,
    "o": {"a": [1]},
    "l": ["a", "b"],
}
FACTS: Final[dict[str, Fields]] = {
    **{f"`{key}: {json_text(value)}`": {("span", "metadata", key): (value, (AT, 7))} for key, value in VALUES.items()},
    "trace user `u1`": {("trace", "user_id", ""): ("u1", (AT, 7))},
    "trace tag `vip`": {("trace", "tag", "vip"): (True, (AT, 7))},
    "evaluation": {
        ("span", "evaluation", "Correctness"): (Evaluation("Correctness", 0.5, "partly", "why").to_json(), (AT, 7))
    },
    "annotation": {
        ("span", "annotation", annotation_key("quality", "ann")): (
            Annotation("quality", "good", 1.0, "well said", "ann").to_json(),
            (AT, 7),
        )
    },
}

BACKENDS: Final[dict[str, tuple[Dialect, Case | None]]] = {
    "Arize AX": (OpenInferenceDialect(scalars=True), None),
    "Galileo": (galileo.DIALECT, galileo_double.CASE),
    "Langfuse 4, Cloud": (langfuse.DIALECT, langfuse_double.CASE),
    "Langfuse 3": (langfuse.DIALECT, langfuse_v3.CASE),
    "LangWatch": (langwatch.DIALECT, langwatch_double.CASE),
    "MLflow": (mlflow.DIALECT, mlflow_double.CASE),
    "Phoenix": (OpenInferenceDialect(flattens=True), phoenix.CASE),
}


def live(dialect: Dialect, fields: Fields) -> str:
    """Return what is on the span, as attributes."""
    encoded = dialect.encode(Span(), fields, is_local_root=True)
    said = [f"`{name}` = `{_text(value)}`" for name, value in encoded.attributes.items()]
    return "<br>".join(said + (["sent after the span, as late"] if encoded.remainder else []))


def _text(value: object) -> str:
    return json_text(list(value) if isinstance(value, tuple) else value)  # type: ignore[arg-type] # an attribute value


def late(outcome: Outcome) -> str:
    """Return what an outcome says of what was sent."""
    if isinstance(outcome, Delivered):
        return "; ".join(outcome.notes) or "as it is"
    return f"**not kept**: {outcome.error.message}"


def outcomes(case: Case | None) -> Iterator[Outcome]:
    """Send each fact alone, for a span of its own that the double knows."""
    if case is None:
        spans = arize_double.ArizeSpans()
        exporter = ArizePatchExporter(lambda: spans, space_id=arize_double.SPACE, project=arize_double.PROJECT)
        for number, fields in enumerate(FACTS.values(), 1):
            spans.know(f"{number:016x}")
            yield from exporter.export([Patch(SpanRef(5, number), fields)], timeout_millis=10_000)
        exporter.shutdown()
        return
    with case.double() as double:
        sender = case.exporter(double.url)
        for number, fields in enumerate(FACTS.values(), 1):
            target = case.patch(number).target
            if case.name == "galileo":
                target = target.with_backend_id("galileo.trace", galileo_double.identifier(100 + number))
                double.stored["trace", galileo_double.identifier(100 + number)] = galileo_double.Stored()
            patch = Patch(target, fields, (AT - 1_000_000_000, AT))
            case.know(double, patch)
            yield from sender.export([patch], timeout_millis=10_000)
        sender.shutdown()


def tables() -> str:
    """Return one table for each backend."""
    parts: list[str] = []
    for name, (dialect, case) in BACKENDS.items():
        parts += [
            f"### {name}\n",
            "| what | live, in flight: on the span | late: the outcome's note |",
            "|---|---|---|",
        ]
        for (fact, fields), outcome in zip(FACTS.items(), outcomes(case), strict=True):
            parts.append(f"| {fact} | {live(dialect, fields)} | {late(outcome)} |".replace("\n", " "))
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    """Write the tables into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}")


if __name__ == "__main__":
    main()
