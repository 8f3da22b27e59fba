"""Where each field of a patch goes in Langfuse, and the bodies of scores, updates and spans. Pure.

`backends.langfuse.patches` decides which of them a server takes, and in which order they are sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_metadata.backends.langfuse.dialect import SPAN_TAGS
from otel_metadata.exporters.notes import words_for
from otel_metadata.model.encoding import is_error_status
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.merge import FieldName, Fields, Json, Level, json_text
from otel_metadata.model.outcome import NotKept
from otel_metadata.model.times import utc

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from otel_metadata.model.span_ref import SpanRef

# Where a field goes, by level and kind. A field that is not listed goes nowhere.
_VERDICTS: Final[Mapping[tuple[str, str], str]] = {
    (level, kind): "verdict" for level in ("span", "trace") for kind in ("evaluation", "annotation")
}
ADDED: Final[Mapping[tuple[str, str], str]] = {
    **_VERDICTS,
    ("span", "metadata"): "span",
    ("span", "tag"): "span",
    ("trace", "metadata"): "trace",
    ("trace", "tag"): "child",
    **{(level, kind): "child" for level in ("span", "trace") for kind in ("user_id", "session_id")},
}
UPDATED: Final[Mapping[tuple[str, str], str]] = {
    **_VERDICTS,
    **{("span", kind): "span" for kind in ("metadata", "tag", "name", "input", "output", "status", "status_message")},
    **{("trace", kind): "trace" for kind in ("metadata", "tag", "name", "input", "output", "user_id", "session_id")},
    ("span", "user_id"): "trace",
    ("span", "session_id"): "trace",
}

ENVIRONMENT: Final = "langfuse.environment"
RELEASE: Final = "langfuse.release"
"""Attributes of a resource."""

_EVENT_TYPES: Final = {"SPAN": "span-update", "GENERATION": "generation-update"}
_COPIED: Final = (
    *("name", "startTime", "endTime", "parentObservationId", "level", "statusMessage", "version", "environment"),
    *("input", "output", "model", "modelParameters", "completionStartTime", "usageDetails", "costDetails"),
    *("promptName", "promptVersion"),
)
"""Members that an observation keeps only when its update repeats them: some projects skip the read before the write."""


class Verdict(NamedTuple):
    """An evaluation or annotation as Langfuse sees it: a score, or a comment where the value is None."""

    name: str
    title: str
    value: float | str | None
    data_type: str
    text: str | None
    metadata: Mapping[str, Json]
    has_both: bool

    @classmethod
    def read(cls, name: FieldName, raw: Json) -> Verdict:
        """Read the value of an evaluation or annotation field."""
        metadata: dict[str, Json]
        if name[1] == "evaluation":
            evaluation = Evaluation.from_json(name[2], raw)
            title, text, score, label = name[2], evaluation.explanation, evaluation.score, evaluation.label
            metadata = {**(evaluation.metadata or {}), "otel_metadata.source": evaluation.source}
            verdict = name[2]
        else:
            note = Annotation.from_json(raw)
            verdict, text, score, label = note.name, note.text, note.score, note.label
            title = f"{note.name} ({note.annotator})" if note.annotator is not None else note.name
            metadata = {"otel_metadata.source": "human"}
            if note.annotator is not None:
                metadata["otel_metadata.annotator"] = note.annotator
        has_both = score is not None and label is not None
        if has_both:
            metadata["otel_metadata.label"] = label
        value: float | str | None
        if score is not None:
            value, data_type = score, "NUMERIC"
        elif label is not None and label.lower() in {"true", "false"}:
            value, data_type = int(label.lower() == "true"), "BOOLEAN"
        else:
            value, data_type = label, "CATEGORICAL"
        return cls(verdict, title, value, data_type, text, metadata, has_both)

    def notes(self, label: str) -> list[str]:
        """Return a note on each part that is kept in another form."""
        return [f"{label}: its label is in the metadata of the score, which has one value"] if self.has_both else []


def grouped(fields: Fields, places: Mapping[tuple[str, str], str]) -> dict[str, Fields]:
    """Return fields by the place that *places* has for their level and kind; `nowhere` for fields without a place."""
    groups: dict[str, dict[FieldName, tuple[Json, tuple[int, int]]]] = {}
    for name, field in fields.items():
        groups.setdefault(places.get(name[:2], "nowhere"), {})[name] = field
    return dict(groups)


def labels_of(names: Iterable[FieldName], kind: str | None = None, *, value: Json = None) -> list[str]:
    """Return words for each field, or for those of one kind; *value* is that of an annotation."""
    return [words_for(name, value) for name in names if kind in {None, name[1]}]


def metadata_of(fields: Fields, level: Level) -> dict[str, Json]:
    """Return metadata as a JSON object, with the tags of the level under the key that the dialect uses for them."""
    tags = tags_of(fields, level)
    return {**_metadata(fields), SPAN_TAGS: tags} if tags else _metadata(fields)


def _metadata(fields: Fields) -> dict[str, Json]:
    in_order = sorted(fields.items(), key=lambda one: one[1][1])
    return {key: value for (_, kind, key), (value, _) in in_order if kind == "metadata"}


def size_of(fields: Fields, level: Level) -> int:
    """Return the bytes of `metadata_of` as JSON."""
    return len(json_text(metadata_of(fields, level)).encode())


def tags_of(fields: Fields, level: Level) -> list[Json]:
    """Return the tags of one level, in the order in which they were set."""
    return [name[2] for name, _ in sorted(fields.items(), key=lambda one: one[1][1]) if name[:2] == (level, "tag")]


def ids_of_trace(fields: Fields) -> tuple[dict[str, Json], list[str]]:
    """Return user and session as attributes, and a note on each that is kept in another way, or not at all.

    A value that was set on the trace wins over one that was set on its span.
    """
    values: dict[str, Json] = {}
    notes: list[str] = []
    for name, (value, _) in sorted(fields.items()):
        level, kind, _ = name
        if kind not in {"user_id", "session_id"}:
            continue
        (label,) = labels_of([name])
        if level == "span" and ("trace", kind, "") in fields:
            notes.append(NotKept(f"{label}: not kept, the trace has one of its own"))
            continue
        if not isinstance(value, str) or not value:
            notes.append(NotKept(f"{label}: unsupported: Langfuse takes only a text that is not empty"))
            continue
        values["user.id" if kind == "user_id" else "session.id"] = value
        if level == "span":
            notes.append(f"{label}: Langfuse has it for the trace as a whole")
    return values, notes


def observation_update(
    target: SpanRef, fields: Fields, stored: Mapping[str, Json]
) -> tuple[str, dict[str, Json], list[str]]:
    """Return the type of the event, the whole observation with *fields*, and a note on each field that was changed."""
    notes: list[str] = []
    kind = str(stored["type"])
    before = stored.get("metadata")
    metadata = {**(before if isinstance(before, dict) else {}), **metadata_of(fields, "span")}
    earlier = before.get(SPAN_TAGS) if isinstance(before, dict) else None
    if SPAN_TAGS in metadata and isinstance(earlier, list):
        metadata[SPAN_TAGS] = list(dict.fromkeys([*map(str, earlier), *map(str, tags_of(fields, "span"))]))
    body: dict[str, Json] = {name: stored[name] for name in _COPIED if stored.get(name) is not None}
    body |= {"id": target.span_id_hex, "traceId": target.trace_id_hex, "metadata": metadata}
    for name, (value, _) in fields.items():
        what = name[1]
        if what in {"name", "input", "output"}:
            body[what] = value
            notes += _null_notes(name, value)
        elif what == "status":
            body["level"] = "ERROR" if is_error_status(value) else "DEFAULT"
            if isinstance(value, int):
                (label,) = labels_of([name])
                notes.append(f"{label}: kept as the level {body['level']}, Langfuse has no status codes")
        elif what == "status_message":
            body["statusMessage"] = value
    return _EVENT_TYPES.get(kind, f"{kind.lower()}-create"), body, notes


def _null_notes(name: FieldName, value: Json) -> list[str]:
    return [f"{label}: a null may leave the earlier value" for label in labels_of([name]) if value is None]


def trace_update(target: SpanRef, fields: Fields, environment: str | None) -> tuple[dict[str, Json], list[str]]:
    """Return the body of a `trace-create`, which is an upsert, and a note on each field that may arrive changed."""
    body: dict[str, Json] = {"id": target.trace_id_hex}
    if environment is not None:
        body["environment"] = environment
    values, notes = ids_of_trace(fields)
    if "user.id" in values:
        body["userId"] = values["user.id"]
    if "session.id" in values:
        body["sessionId"] = values["session.id"]
    for name, (value, _) in fields.items():
        if name[1] in {"name", "input", "output"}:
            body[name[1]] = value
            notes += _null_notes(name, value)
        elif name[1] == "metadata" and isinstance(value, dict | list):
            (label,) = labels_of([name])
            notes.append(f"{label}: it may be merged into an earlier list or object rather than replace it")
    if tags := tags_of(fields, "trace"):
        body["tags"] = tags
    if metadata := _metadata(fields):
        body["metadata"] = metadata
    return body, notes


def place_of(target: SpanRef, level: Level) -> dict[str, Json]:
    """Return the ids of the span or trace that a score is about."""
    if level == "span" and target.span_id:
        return {"traceId": target.trace_id_hex, "observationId": target.span_id_hex}
    return {"traceId": target.trace_id_hex}


def iso(ns: int) -> str:
    """Return wall nanoseconds as Langfuse writes a time."""
    return utc(ns).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def environment_of(resource: Resource) -> str | None:
    """Return the environment that Langfuse gives the spans of a resource; None for the default one."""
    for name in (ENVIRONMENT, "deployment.environment.name", "deployment.environment"):
        found = resource.attributes.get(name)
        if isinstance(found, str) and is_environment(found):
            return found
    return None


def is_environment(text: str) -> bool:
    """Whether Langfuse accepts *text* as the name of an environment."""
    return re.fullmatch(r"(?!langfuse)[a-z0-9_-]{1,40}", text) is not None
