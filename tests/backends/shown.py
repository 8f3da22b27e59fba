"""What each backend shows of one update of each kind, live and late: the generated part of `docs/backends.md`.

Live is what the dialect writes on the span, late what the double of the server then has that it had not before, and
what the exporter's outcome says of it.
Run: `python -m tests.backends.shown` writes it into the page.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.backends.vendors import arize as arize_double
from tests.backends.vendors import galileo as galileo_double
from tests.backends.vendors import langfuse as langfuse_double
from tests.backends.vendors import langfuse_v3, otlp, phoenix
from tests.backends.vendors import langwatch as langwatch_double
from tests.backends.vendors import mlflow as mlflow_double
from tests.backends.vendors import splunk_ao as splunk_ao_double
from tests.backends.vendors.case import Case
from tests.dialects.columns import galileo, langfuse, langwatch, mlflow, splunk_ao
from tests.dialects.test_golden import Span

from otel_metadata.backends.arize.patches import ArizePatchExporter
from otel_metadata.dialects.openinference import OpenInferenceDialect
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.exporters.otlp_events import EVENT_NAME
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Fields, Json, json_text
from otel_metadata.model.outcome import Delivered, Outcome
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import Dialect

PAGE: Final = Path(__file__).parents[2] / "docs" / "backends.md"
BEGIN, END = "<!-- generated: python -m tests.backends.shown -->\n", "<!-- end -->\n"
HEAD: Final = "| what | live, in flight: on the span | late: what the backend then shows | the outcome's note |"
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
    "Any OTLP backend": (OtelDialect(), otlp.CASE),
    "Arize AX": (OpenInferenceDialect(scalars=True), None),
    "Galileo": (galileo.DIALECT, galileo_double.CASE),
    "Langfuse 4, Cloud": (langfuse.DIALECT, langfuse_double.CASE),
    "Langfuse 3": (langfuse.DIALECT, langfuse_v3.CASE),
    "LangWatch": (langwatch.DIALECT, langwatch_double.CASE),
    "MLflow": (mlflow.DIALECT, mlflow_double.CASE),
    "Phoenix": (OpenInferenceDialect(flattens=True), phoenix.CASE),
    "Splunk Agent Observability": (splunk_ao.DIALECT, splunk_ao_double.CASE),
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


State: TypeAlias = dict[str, Any]
"""What somebody who looks at a span and its trace sees, as JSON."""


def _arize(spans: arize_double.ArizeSpans, target: SpanRef) -> State:
    return {"span": spans.span(target.span_id_hex)}


def _galileo(double: galileo_double.Galileo, target: SpanRef) -> State:
    ids = {"trace" if name.endswith(".trace") else "span": one for name, one in target.backend_ids.items()}
    return {level: asdict(double.stored[level, one]) for level, one in ids.items()}


def _langfuse(double: langfuse_double.LangfuseDouble, target: SpanRef) -> State:
    row = double.observation(target.span_id_hex)
    trace = {key: value for key, value in double.trace(target.trace_id_hex).items() if key != "id"}
    found: State = {"observation": {"metadata": row.metadata}, "trace": trace}
    for level, span_id in (("observation", target.span_id_hex), ("trace", None)):
        for name, score in double.scores_of(target.trace_id_hex, span_id).items():
            kept = {key: score[key] for key in ("value", "comment", "metadata") if score.get(key) is not None}
            found[f"score {name} on the {level}"] = kept
    comments = [one["content"] for one in double.comments if one["objectId"] in _ids(target)]
    return found | ({"comments": comments} if comments else {})


def _langwatch(double: langwatch_double.LangWatch, target: SpanRef) -> State:
    trace = double.traces.get(target.trace_id_hex, langwatch_double.Trace())
    verdicts = {f"evaluation {one['name']}": one for one in trace.evaluations.values()}
    events = {f"event {one['event_type']}": [one["metrics"], one["event_details"]] for one in trace.events.values()}
    comments = {"comments": [[one["comment"], one["isThumbsUp"]] for one in trace.annotations]}
    return {
        "trace": {"metadata": dict(trace.metadata)},
        **verdicts,
        **events,
        **(comments if trace.annotations else {}),
    }


def _mlflow(double: mlflow_double.MlflowDouble, target: SpanRef) -> State:
    trace = double.know(target.trace_id)
    parts = ("feedback", "expectation", "rationale", "metadata")
    assessments = {
        f"assessment {one['assessment_name']}": {part: one[part] for part in parts if one.get(part) is not None}
        for one in trace["assessments"].values()
    }
    return {"trace": {"tags": dict(trace["tags"])}, **assessments}


def _phoenix(double: phoenix.PhoenixDouble, target: SpanRef) -> State:
    return {
        f"annotation {name} of the {level}": {"result": row["result"], "metadata": row["metadata"]}
        for level, one in (("span", target.span_id_hex), ("trace", target.trace_id_hex))
        for (name, _), row in double.of(level, one).items()
    }


def _ids(target: SpanRef) -> tuple[str, str]:
    return target.span_id_hex, target.trace_id_hex


def _otlp(double: otlp.OtlpReceiver, target: SpanRef) -> State:
    spans = [one for one in double.spans.values() if one.parent_span_id.hex() == target.span_id_hex]
    events = [one for one in double.events if one.span_id.hex() == target.span_id_hex]
    found = {f"span {one.name}": one.attributes for one in spans}
    found |= {f"log event {EVENT_NAME}": one.attributes for one in events}
    return {
        what: {one.key: langwatch_double.any_value(one.value) for one in said if one.key not in _HOUSEKEEPING}
        for what, said in found.items()
    }


_HOUSEKEEPING: Final = frozenset({f"otel_metadata.{word}" for word in ("patch_id", "target_span_id", "versions")}) | {
    # Older versions of opentelemetry-proto have no field for it.
    "event.name"
}


READERS: Final[Mapping[str, Callable[[Any, SpanRef], State]]] = {
    "arize": _arize,
    "galileo": _galileo,
    "langfuse": _langfuse,
    "langfuse_v3": _langfuse,
    "langwatch": _langwatch,
    "mlflow": _mlflow,
    "otlp": _otlp,
    "phoenix": _phoenix,
    "splunk_ao": _galileo,
}


def new(before: State, after: State) -> State:
    """Return what is in *after* and was not, or otherwise, in *before*."""
    found: State = {}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := new(old, value):
                found[key] = inner
        elif key not in before or old != value:
            found[key] = value
    return found


def _shown(state: State) -> str:
    return f"`{json_text(state)}`" if state else "–"


@contextmanager
def sending(name: str) -> Iterator[Callable[[Fields], tuple[Outcome, State]]]:
    """Yield what sends fields, for a span and trace of their own that the backend knows; it returns what became."""
    case = BACKENDS[name][1]
    numbers = itertools.count(1)
    if case is None:
        spans = arize_double.ArizeSpans()
        exporter = ArizePatchExporter(lambda: spans, space_id=arize_double.SPACE, project=arize_double.PROJECT)

        def send(fields: Fields) -> tuple[Outcome, State]:
            target = SpanRef(5, next(numbers))
            spans.know(target.span_id_hex)
            before = copy.deepcopy(_arize(spans, target))
            (outcome,) = exporter.export([Patch(target, fields)], timeout_millis=10_000)
            return outcome, new(before, _arize(spans, target))

        yield send
        exporter.shutdown()
        return
    with case.double() as double:
        sender, read = case.exporter(double.url), READERS[case.name]

        def send(fields: Fields) -> tuple[Outcome, State]:
            number = next(numbers)
            target = replace(case.patch(number).target, trace_id=0xF0000 + number)
            if case.name in {"galileo", "splunk_ao"}:
                trace = galileo_double.identifier(10_000 + number)
                target = target.with_backend_id(f"{case.name}.trace", trace)
                double.stored["trace", trace] = galileo_double.Stored()
            patch = Patch(target, fields, (AT - 1_000_000_000, AT))
            case.know(double, patch)
            before = copy.deepcopy(read(double, target))
            (outcome,) = sender.export([patch], timeout_millis=10_000)
            return outcome, new(before, read(double, target))

        yield send
        sender.shutdown()


def outcomes(name: str) -> Iterator[tuple[Outcome, State]]:
    """Send each fact alone; yield what became of it."""
    with sending(name) as send:
        for fields in FACTS.values():
            yield send(fields)


def tables() -> str:
    """Return one table for each backend."""
    parts: list[str] = []
    for name, (dialect, _) in BACKENDS.items():
        parts += [
            f"### {name}\n",
            HEAD,
            "|---|---|---|---|",
        ]
        for (fact, fields), (outcome, state) in zip(FACTS.items(), outcomes(name), strict=True):
            row = f"| {fact} | {live(dialect, fields)} | {_shown(state)} | {late(outcome)} |"
            parts.append(row.replace("\n", " "))
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    """Write the tables into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}")


if __name__ == "__main__":
    main()
