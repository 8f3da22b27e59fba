"""Patches for MLflow: fields of the trace as trace tags, evaluations and annotations as assessments.

MLflow changes no stored span: a span that is sent again replaces the old one whole. It keeps late values in two places.
A *trace tag* is a text under a key. An *assessment* is a feedback or an expectation about a trace or a span, with one
value and metadata of texts. So all late fields of a span itself go into the metadata of one assessment,
`otel_metadata`, whose keys MLflow merges by itself.

The sender chooses the id of an assessment. Ours follow from the target and the field, so that a second try meets the
first. MLflow answers 500 for an id that exists, 400 for the tag of an unknown trace, and 200 where it cut a text or
stopped reading at a value that is not text; hence the checks before and after (measured with MLflow 3.17.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

from otel_metadata.arguments import checked
from otel_metadata.backends.mlflow.dialect import MAX_NAME_CHARACTERS, trace_tag
from otel_metadata.dialects.canonical import as_text
from otel_metadata.exporters.notes import words_for
from otel_metadata.exporters.rest import Budget, RestAnswer, RestPatchExporter, member, not_from, path_segment
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.merge import Field, FieldName, Json
from otel_metadata.model.outcome import Delivered, DeliveryError, ErrorType, NotKept, Outcome, Rejected
from otel_metadata.model.times import utc

if TYPE_CHECKING:
    from otel_metadata.model.patch import Patch

SPAN_ASSESSMENT: Final = "otel_metadata"
"""The name of the assessment whose metadata holds the late fields of its span."""

_SOURCES: Final = {"code": "CODE", "llm": "LLM_JUDGE", "human": "HUMAN"}
_UNKNOWN_TRACE: Final = Rejected(DeliveryError("segment_not_found", "MLflow does not know the trace, or not yet"))
_NOT_MLFLOW: Final = not_from("MLflow")


class _Tag(NamedTuple):
    """A trace tag to set."""

    subject: str
    key: str
    text: str
    notes: tuple[str, ...]


class _Assessment(NamedTuple):
    """An assessment to create; one that exists gets its metadata merged (`is_merged`), or is replaced whole."""

    subject: str
    body: Mapping[str, Json]
    metadata: Mapping[str, str]
    is_merged: bool
    notes: tuple[str, ...]

    @property
    def id(self) -> str:
        return str(self.body["assessment_id"])


class _Fault(NamedTuple):
    """A field that is not sent."""

    type: ErrorType
    message: str


_Step: TypeAlias = _Tag | _Assessment | _Fault


@final
class MlflowPatchExporter(RestPatchExporter):
    """Sends patches to an MLflow tracking server, one request for each tag and each assessment."""

    max_batch = 64
    grace_millis = 0  # MLflow acknowledges spans when they can be read

    @checked
    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        expectations: Collection[str] = (),
        name: str = "mlflow",
        experiment_id: str | None = None,
    ) -> None:
        """Connect later.

        Args:
            url: The address of the tracking server.
            headers: Headers of every request, the credentials among them.
            expectations: Names of evaluations and annotations that say what the answer should have been: they become
                expectations, all others feedback.
            name: The name of the exporter, for people.
            experiment_id: The experiment of the spans, which other vendors call project; None where it is not known.

        Raises:
            ConfigurationError: The URL or a header cannot be used.
        """
        super().__init__(url, headers=headers, name=name, project=experiment_id)
        self._expectations = frozenset(expectations)

    def send_one(self, patch: Patch, budget: Budget) -> Outcome:
        """Send all of one patch; a field that MLflow refuses does not keep the others back."""
        path = f"/api/3.0/mlflow/traces/{path_segment(f'tr-{patch.target.trace_id_hex}')}"
        is_any_delivered = False
        notes: list[str] = []
        faults: list[_Fault] = []
        for step in _steps(patch, self._expectations):
            if isinstance(step, _Fault):
                faults.append(step)
                continue
            outcome = self._set_tag(path, step, budget) if isinstance(step, _Tag) else self._put(path, step, budget)
            if isinstance(outcome, Delivered):
                is_any_delivered = True
                notes.extend(outcome.notes)
            elif isinstance(outcome, Rejected) and outcome.error.type != "segment_not_found":
                faults.append(_Fault(outcome.error.type, f"{step.subject}: {outcome.error.message}"))
            else:
                return outcome
        lost = [NotKept(fault.message) for fault in faults]
        if faults and not is_any_delivered:
            return Rejected(DeliveryError(faults[0].type, "; ".join(lost)))
        return Delivered((*notes, *lost))

    def _set_tag(self, path: str, tag: _Tag, budget: Budget) -> Outcome:
        answer = self._client.call("PATCH", f"{path}/tags", {"key": tag.key, "value": tag.text}, budget=budget)
        failure = _failure(answer)
        if failure is not None:
            return failure
        return Delivered(tag.notes) if isinstance(answer.body, dict) else _NOT_MLFLOW

    def _put(self, path: str, assessment: _Assessment, budget: Budget) -> Outcome:
        """Create an assessment; one that exists is merged or replaced."""
        everything = f"{path}/assessments"
        one = f"{everything}/{path_segment(assessment.id)}"
        # The metadata comes last: a reader that cannot read it ignores everything after it.
        new: dict[str, Json] = {"assessment": {**assessment.body, "metadata": dict(assessment.metadata)}}
        answer = self._client.call("POST", everything, new, budget=budget)
        if _exists(answer) and assessment.is_merged:
            change: dict[str, Json] = {
                "assessment": {
                    **{key: assessment.body[key] for key in ("assessment_id", "trace_id")},
                    "metadata": dict(assessment.metadata),
                },
                "update_mask": "metadata",
            }
            answer = self._client.call("PATCH", one, change, budget=budget)
        elif _exists(answer):
            # An update would leave the metadata, rationale and source of the old assessment in place.
            answer = self._client.call("DELETE", one, budget=budget)
            if answer.outcome is None:
                answer = self._client.call("POST", everything, new, budget=budget)
        return _failure(answer) or _judged(answer.body, assessment)


def _failure(answer: RestAnswer) -> Outcome | None:
    """Return the outcome of an answer that is not a success; None for a success."""
    is_unknown = answer.status == 404 and answer.member("error_code") == "RESOURCE_DOES_NOT_EXIST"
    # SQLite, PostgreSQL and MySQL all use these words.
    if is_unknown or (answer.status == 400 and "foreign key constraint" in answer.text.lower()):
        return _UNKNOWN_TRACE
    return answer.outcome


def _exists(answer: RestAnswer) -> bool:
    """Whether a create failed because the id exists."""
    is_internal = answer.status == 500 and answer.member("error_code") == "INTERNAL_ERROR"
    return is_internal and "constraint violation" in answer.text


def _judged(body: Json, sent: _Assessment) -> Outcome:
    """Return the outcome from the stored assessment, which is the answer: MLflow drops parts without an error."""
    stored = member(body, "assessment")
    if not isinstance(stored, dict):
        return _NOT_MLFLOW
    notes = list(sent.notes)
    if stored.get("assessment_id") != sent.id:
        notes.append(f"{sent.subject}: stored under an id of the backend's own; a second try would store it twice")
    lost = (key for key, text in sent.metadata.items() if member(stored.get("metadata"), key) != text)
    notes += [NotKept(f"{sent.subject}: {key!r} was not kept") for key in lost]
    return Delivered(tuple(notes))


def _steps(patch: Patch, expectations: Collection[str]) -> Iterator[_Step]:
    """Yield the steps that deliver a patch, lowest version first; all fields of the span itself are one step."""
    held: dict[FieldName, Field] = {}
    for name, field in sorted(patch.fields.items(), key=lambda item: (item[1][1], item[0])):
        level, kind, _ = name
        if level == "span" and not patch.target.span_id:
            yield _Fault("unsupported", f"{words_for(name, field[0])}: the update names a trace, not a span")
        elif kind in {"evaluation", "annotation"}:
            yield _verdict(patch, name, field, expectations)
        elif level == "span":
            held[name] = field
        else:
            yield _tag(name, field[0])
    if held:
        yield _of_the_span(patch, held)


def _tag(name: FieldName, value: Json) -> _Tag | _Fault:
    subject = words_for(name, value)
    tag = trace_tag(name, value)
    if tag is None:
        return _Fault("unsupported", f"{subject}: MLflow takes it only with the span")
    if tag.fault is not None:
        return _Fault(tag.fault[0], f"{subject}: not sent, as {tag.fault[1]}")
    notes = []
    if name[1] in {"tag", "user_id", "session_id"}:
        notes.append(f"{subject}: kept as the trace tag {tag.key!r}")
    elif not isinstance(value, str):
        notes.append(f"{subject}: kept as JSON text, as a trace tag is a text")
    return _Tag(subject, tag.key, tag.text, tuple(notes))


def _of_the_span(patch: Patch, held: Mapping[FieldName, Field]) -> _Assessment:
    metadata = {_held_key(name): as_text(value) for name, (value, _) in held.items()}
    notes = tuple(
        f"{words_for(name, value)}: kept as text in the assessment {SPAN_ASSESSMENT!r}; MLflow changes no stored span"
        for name, (value, _) in held.items()
    )
    body: dict[str, Json] = {
        **_head(patch, ("span", "metadata", ""), min(version for _, version in held.values())[0]),
        "assessment_name": SPAN_ASSESSMENT,
        "source": {"source_type": "CODE", "source_id": SPAN_ASSESSMENT},
        "feedback": {"value": None},
        "rationale": "What was said of the span after it was stored.",
    }
    return _Assessment(f"assessment {SPAN_ASSESSMENT!r}", body, metadata, is_merged=True, notes=notes)


def _held_key(name: FieldName) -> str:
    _, kind, key = name
    if kind == "metadata":
        return key
    return f"{kind}.{key}" if key else f"otel_metadata.{kind}"


def _verdict(patch: Patch, name: FieldName, field: Field, expectations: Collection[str]) -> _Assessment | _Fault:
    """Return an evaluation or annotation as an assessment; parts that MLflow has no place for go into its metadata."""
    value, version = field
    subject = words_for(name, value)
    metadata: Mapping[str, Json] = {}
    parts: dict[str, Json]
    if name[1] == "evaluation":
        verdict = Evaluation.from_json(name[2], value)
        title, source, author, text = verdict.name, _SOURCES[verdict.source], SPAN_ASSESSMENT, "explanation"
        parts = {"score": verdict.score, "label": verdict.label, text: verdict.explanation}
        metadata = verdict.metadata or {}
    else:
        note = Annotation.from_json(value)
        title, source, author, text = note.name, "HUMAN", note.annotator or "default", "text"
        parts = {"score": note.score, "label": note.label, text: note.text}
    if max(len(title), len(author)) > MAX_NAME_CHARACTERS:
        limit = f"{MAX_NAME_CHARACTERS} characters for a name and {MAX_NAME_CHARACTERS} for an annotator"
        return _Fault("too_large", f"{subject}: not sent, as MLflow has {limit}")
    given = {word: part for word, part in parts.items() if part is not None}
    is_expectation = title in expectations
    # An expectation has no rationale.
    rationale = None if is_expectation else given.pop(text, None)
    main = next(iter(given), None)
    if main is None and is_expectation:
        return _Fault("unsupported", f"{subject}: MLflow has no expectation without a value")
    body: dict[str, Json] = {
        **_head(patch, name, version[0]),
        "assessment_name": title,
        "source": {"source_type": source, "source_id": author},
        "expectation" if is_expectation else "feedback": {"value": given.pop(main) if main is not None else None},
    }
    if rationale is not None:
        body["rationale"] = rationale
    notes = [f"{subject}: its {word} is kept in the assessment's metadata" for word in given]
    notes += [f"{subject}: {key!r} is kept as JSON text" for key, item in metadata.items() if not isinstance(item, str)]
    texts = {key: as_text(item) for key, item in metadata.items()}
    texts |= {f"otel_metadata.{word}": as_text(part) for word, part in given.items()}
    return _Assessment(subject, body, texts, is_merged=False, notes=tuple(notes))


def _head(patch: Patch, name: FieldName, at_ns: int) -> dict[str, Json]:
    """Return the members that identify an assessment, the same for each try: id, target, and time of the update."""
    target = patch.target
    span_id = target.span_id_hex if name[0] == "span" else ""
    seed = "\0".join((target.trace_id_hex, span_id, name[1], name[2]))
    at = utc(at_ns).isoformat()
    head: dict[str, Json] = {
        # 35 of the 50 characters of MLflow's column.
        "assessment_id": f"om-{hashlib.blake2b(seed.encode(), digest_size=16).hexdigest()}",
        "trace_id": f"tr-{target.trace_id_hex}",
        "create_time": at,
        "last_update_time": at,
    }
    return {**head, "span_id": span_id} if span_id else head
