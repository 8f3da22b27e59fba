"""Patches for LangWatch: fields of a trace go through its API, fields of a span travel on a new span beside it.

`PATCH /api/traces/{id}/metadata` answers 200, and later LangWatch merges the values into the trace as if a span had
brought them: the first value of a key wins, labels are united, nothing is removed, and values that it cannot read are
lost. So a 200 says only that the request arrived. `flattened` and `packed` decide what can be known beforehand, and the
note of each key says that an earlier value may win: we never claim that a value was replaced.

LangWatch changes no stored span. Fields of a span leave on a new OTLP span: a child of the target, at the target's end.
LangWatch merges its metadata into the trace too, again only keys that the trace does not have. With
`strategy="otlp_span"` the fields of the trace travel on that span as well. That keeps objects; the synthetic span that
LangWatch makes for a PATCH would also rename a trace that has no span yet, and make it last until now.

An evaluation goes to `/api/collector`, with an id that follows from its target and name. An annotation goes to
`/api/events/track`, with an id that follows from the update; one with text and score goes to `/api/annotations`, where
we look for ours first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, final, get_args

import orjson
from opentelemetry.sdk.resources import Resource

from otel_metadata.arguments import checked
from otel_metadata.backends.langwatch.dialect import LangWatchDialect, as_labels
from otel_metadata.dialects.canonical import as_text
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.altered_spans import altered
from otel_metadata.exporters.http import with_path
from otel_metadata.exporters.notes import words_for
from otel_metadata.exporters.otlp import synthetic_span
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.exporters.rest import Budget, RestAnswer, RestPatchExporter, not_from, path_segment
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.merge import Field, FieldName, Fields, Json, Version
from otel_metadata.model.outcome import Delivered, DeliveryError, NotKept, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch, patch_id

if TYPE_CHECKING:
    from otel_metadata.seams import Convergence

Strategy: TypeAlias = Literal["patch", "otlp_span"]
"""How late fields of a trace travel: by `PATCH`, or on a new span beside the target."""

OTLP_PATH: Final = "/api/otel/v1/traces"

# From the server's own check (trace metadata update schema, 2026-08-22); `String.length` counts UTF-16 code units.
MAX_VALUE_UNITS: Final = 4_096
MAX_METADATA_UNITS: Final = 32_768

THUMBS: Final = "thumbs_up_down"
"""LangWatch's own event for feedback: an annotation of this name. Its score is the vote, from -1 to 1."""

_ADDED: Final = "an earlier value of the trace may win"
_NOT_LANGWATCH: Final = not_from("LangWatch")
_RESERVED: Final = {"user_id": "user_id", "session_id": "thread_id"}
_ID_KEYS: Final = frozenset({"user_id", "thread_id", "customer_id"})
_ON_A_SPAN: Final = frozenset({"metadata", "attribute", "user_id", "session_id", "tag"})
_DIALECT: Final = LangWatchDialect()


class _Kept(NamedTuple):
    """What became of one field.

    Attributes:
        shown: Words for the field.
        how: What became of it.
        is_whole: Whether LangWatch keeps all of it somewhere.
    """

    shown: str
    how: str
    is_whole: bool = True

    @property
    def note(self) -> str:
        note = f"{self.shown}: {self.how}"
        return note if self.is_whole else NotKept(note)


@final
class LangWatchPatchExporter(RestPatchExporter):
    """Sends patches to LangWatch; the docstring of this module says which field travels how.

    Attributes:
        strategy: See `Strategy`.
    """

    max_batch = 100
    # LangWatch acknowledges spans before it merges them, and the value that is merged first wins.
    grace_millis = 1_000
    # LangWatch takes any trace id: an unknown one makes a new trace.
    reports_missing = False
    convergence: Convergence = "add_only"

    @checked
    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        strategy: Strategy = "patch",
        resource: Resource | None = None,
        name: str = "langwatch",
        project: str | None = None,
    ) -> None:
        """Connect later.

        Args:
            url: LangWatch's address, without a path of its API.
            headers: Headers of every request, the key among them.
            strategy: See `Strategy`.
            resource: The resource of the spans that carry patches; by default the one that the environment describes.
            name: The name of the exporter, for people.
            project: The id of the key's project; None where it is not known.

        Raises:
            ConfigurationError: An argument cannot be used.
        """
        if strategy not in get_args(Strategy):
            raise ConfigurationError("strategy", strategy, "'patch' or 'otlp_span'")
        super().__init__(url, headers=headers, name=name, project=project)
        self.strategy = strategy
        self._spans = OtlpHttpSender(with_path(url, OTLP_PATH), headers=dict(headers or {}))
        self._resource = resource or Resource.create()

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """Close both connections."""
        super().shutdown(timeout_millis)
        self._spans.shutdown()

    def send_one(self, patch: Patch, budget: Budget) -> Outcome:
        """Send a patch in parts. One that arrived in part is sent whole again, which changes nothing."""
        notes: list[str] = []
        refused: list[DeliveryError] = []
        is_sent = False
        for outcome in self._outcomes(patch, budget, refused):
            if isinstance(outcome, Retry | Pause):
                return outcome
            if isinstance(outcome, Rejected):
                refused.append(outcome.error)
            else:
                is_sent = True
                notes += outcome.notes
        if not is_sent:
            return Rejected(refused[0])
        return Delivered((*dict.fromkeys(notes), *(NotKept(error.message) for error in refused)))

    def _outcomes(self, patch: Patch, budget: Budget, refused: list[DeliveryError]) -> Iterator[Outcome]:
        """Send one part after the other and yield its outcome.

        Args:
            patch: The patch.
            budget: The time that is left.
            refused: Gets an error for each field that is not sent.
        """
        by_way: dict[str, dict[FieldName, Field]] = {}
        for name, field in sorted(patch.fields.items(), key=lambda item: (item[1][1], item[0])):
            by_way.setdefault(self._way(name, patch), {})[name] = field
        refused += (_unsupported(_shown(name), "LangWatch changes no stored span") for name in by_way.get("", {}))
        trace = by_way.get("trace", {})
        if trace:
            values, kept = flattened(trace, refused)
            for metadata in packed(values, refused):
                yield self._patched(patch, metadata, kept, budget)
        if "span" in by_way:
            yield self._beside(patch, by_way["span"], budget)
        judged: list[tuple[FieldName, Evaluation, Version]] = []
        for name, (value, version) in by_way.get("evaluation", {}).items():
            evaluation = Evaluation.from_json(name[2], value)
            if evaluation.score is None and evaluation.label is None:
                refused.append(_unsupported(_shown(name), "LangWatch takes no evaluation without a score or a label"))
            else:
                judged.append((name, evaluation, version))
        if judged:
            yield self._evaluated(patch, judged, budget)
        for name, (value, version) in by_way.get("annotation", {}).items():
            note = Annotation.from_json(value)
            is_comment = note.text and note.score is not None and note.name != THUMBS
            outcome = self._commented(patch, note, budget) if is_comment else None
            yield outcome or self._tracked(patch, note, _stable_id(patch, name, patch_id(version)), version, budget)

    def _way(self, name: FieldName, patch: Patch) -> str:
        level, kind, _ = name
        if kind in {"evaluation", "annotation"}:
            return kind
        if kind not in _ON_A_SPAN or (level == "span" and not patch.target.is_valid):
            return ""
        # Only a valid target: a new span without a parent would become the root of the trace.
        rides = level == "span" or (self.strategy == "otlp_span" and patch.target.is_valid)
        return "span" if rides else "trace"

    def _patched(self, patch: Patch, metadata: dict[str, Json], kept: Mapping[str, _Kept], budget: Budget) -> Outcome:
        trace_id = patch.target.trace_id_hex
        path = f"/api/traces/{path_segment(trace_id)}/metadata"
        refused: list[NotKept] = []
        answer = self._client.call("PATCH", path, {"metadata": metadata}, budget=budget)
        # LangWatch takes all keys or none, and names those that it cannot take; `otel-metadata serve` names the first.
        while named := _named_fields(answer) & metadata.keys():
            refused += [NotKept(f"{kept[key].shown}: LangWatch refused the value") for key in sorted(named)]
            metadata = {key: value for key, value in metadata.items() if key not in named}
            if not metadata:
                return Rejected(DeliveryError("patch_failure", "; ".join(dict.fromkeys(refused))))
            answer = self._client.call("PATCH", path, {"metadata": metadata}, budget=budget)
        if answer.outcome is not None:
            return _about(answer.outcome, (kept[key] for key in metadata))
        if answer.member("traceId") != trace_id:
            return _NOT_LANGWATCH
        return Delivered((*dict.fromkeys(kept[key].note for key in metadata), *dict.fromkeys(refused)))

    def _beside(self, patch: Patch, fields: Fields, budget: Budget) -> Outcome:
        span = synthetic_span(Patch(patch.target, fields, patch.window_ns), self._resource)
        attributes = _DIALECT.encode(span, fields, is_local_root=True).attributes
        outcome = self._spans.send([altered(span, attributes=attributes)], timeout_millis=budget.left_millis)
        kept = list(dict.fromkeys(_beside_note(name, value) for name, (value, _) in fields.items()))
        if isinstance(outcome, Delivered):
            if outcome.rejected:
                # One span was sent, so this is the one that was rejected.
                message = "LangWatch rejected the span that carries the patch"
                return Rejected(DeliveryError("backend_rejection", message))
            return _delivered(kept)
        return _about(outcome, kept)

    def _evaluated(
        self, patch: Patch, evaluations: Sequence[tuple[FieldName, Evaluation, Version]], budget: Budget
    ) -> Outcome:
        body: dict[str, Json] = {
            "trace_id": patch.target.trace_id_hex,
            "spans": [],
            "evaluations": [_evaluation(patch, *one) for one in evaluations],
        }
        kept = [
            _Kept(
                _shown(name),
                "kept on the trace; LangWatch has no source and no metadata of an evaluation",
                is_whole=not evaluation.metadata,
            )
            for name, evaluation, _ in evaluations
        ]
        answer = self._client.call("POST", "/api/collector", body, budget=budget)
        return _message(answer, kept)

    def _tracked(self, patch: Patch, note: Annotation, event_id: str, version: Version, budget: Budget) -> Outcome:
        is_thumb = note.name == THUMBS
        metrics: dict[str, Json] = {}
        if note.score is not None:
            metrics["vote" if is_thumb else "score"] = note.score
        details: dict[str, Json] = {"label": note.label, "annotator": note.annotator}
        details["feedback" if is_thumb else "text"] = note.text
        body: dict[str, Json] = {
            "trace_id": patch.target.trace_id_hex,
            "event_type": note.name,
            "event_id": event_id,
            "metrics": metrics,
            "event_details": {key: value for key, value in details.items() if value is not None},
            "timestamp": version[0] // 1_000_000,
        }
        kept = _Kept(f"annotation {note.name!r}", "kept as an event of the trace; an earlier one of this name stays")
        return _message(self._client.call("POST", "/api/events/track", body, budget=budget), [kept])

    def _commented(self, patch: Patch, note: Annotation, budget: Budget) -> Outcome | None:
        """Write a note as a comment; return None where it cannot be one.

        LangWatch takes no id for a comment, so ours is found by its first line. Comments have permissions of their own:
        a key that lacks them may do everything else. A trace may also have too many comments to find ours among them.
        """
        path = f"/api/annotations/trace/{path_segment(patch.target.trace_id_hex)}"
        how = "kept on the trace as a comment; of the score only whether it is above 0"
        kept = [_Kept(f"annotation {note.name!r}", how, is_whole=False)]
        answer = self._client.call("GET", path, budget=budget)
        if answer.status == 403:
            return None
        if answer.outcome is not None:
            return _about(answer.outcome, kept)
        if answer.body is None and answer.text:
            return None
        rows = answer.member("data")
        if not isinstance(rows, list):
            return _NOT_LANGWATCH
        head, body = _comment(note)
        ours = [row for row in rows if isinstance(row, dict) and _is_ours(row, head)]
        if any(body.items() <= row.items() for row in ours):
            return _delivered(kept)
        identifier = ours[0].get("id") if ours else None
        if isinstance(identifier, str):
            answer = self._client.call("PATCH", f"/api/annotations/{path_segment(identifier)}", body, budget=budget)
        else:
            answer = self._client.call("POST", path, body, budget=budget)
        if answer.status == 403:
            return None
        if answer.outcome is not None:
            return _about(answer.outcome, kept)
        return _delivered(kept) if isinstance(answer.member("data"), dict) else _NOT_LANGWATCH


def utf16_units(text: str) -> int:
    """Return the length of *text* as JavaScript counts it."""
    return len(text.encode("utf-16-le")) // 2


def flattened(fields: Fields, refused: list[DeliveryError]) -> tuple[dict[str, Json], dict[str, _Kept]]:
    """Return fields of a trace as metadata that LangWatch can keep, and for each key what became of its field.

    All values are sent as text: LangWatch reads a number as a double, and loses a zero. A null is the text `null`.
    LangWatch loses objects and lists, also as JSON text, so their parts are sent under dotted keys.

    Args:
        fields: The fields of the trace.
        refused: Gets an error for each field, or part, that LangWatch cannot keep.
    """
    values: dict[str, Json] = {}
    kept: dict[str, _Kept] = {}
    labels: list[str] = []
    for name, (value, _) in sorted(fields.items(), key=lambda item: (item[0][1] in _RESERVED, item[1][1])):
        kind, key, shown = name[1], name[2], _shown(name)
        if kind == "tag" or (kind, key) == ("metadata", "labels"):
            labels += [key] if kind == "tag" else as_labels(value)
            kept.setdefault("labels", _Kept(shown, "added to the labels of the trace; none is removed"))
            continue
        key = _RESERVED.get(kind, key)
        if key in _ID_KEYS and (value in ("", None) or isinstance(value, list | dict)):
            refused.append(_unsupported(shown, "LangWatch takes a text that is not empty"))
            continue
        for path, leaf in _leaves(key, value).items():
            if isinstance(leaf, dict | list):
                refused.append(_unsupported(shown, "LangWatch keeps no empty object or list"))
                continue
            text = as_text(leaf)
            if utf16_units(text) > MAX_VALUE_UNITS:
                message = f"{shown}: longer than the {MAX_VALUE_UNITS} UTF-16 units that LangWatch takes for a value"
                refused.append(DeliveryError("too_large", message))
                continue
            if path in values:
                refused.append(_unsupported(kept[path].shown, f"{shown} has its place"))
            values[path] = text
            how = "added" if path == key else "added in parts, under dotted keys"
            kept[path] = _Kept(shown, f"{how}{'' if isinstance(value, str) else ', as text'}; {_ADDED}")
    if any(labels):
        values["labels"] = [*dict.fromkeys(filter(None, labels))]
    elif "labels" in kept:
        refused.append(_unsupported(kept["labels"].shown, "LangWatch removes no label"))
    return values, kept


def packed(values: Mapping[str, Json], refused: list[DeliveryError]) -> Iterator[dict[str, Json]]:
    """Yield *values* in objects that LangWatch takes; a value that is too large by itself goes to *refused*."""
    pack: dict[str, Json] = {}
    room = MAX_METADATA_UNITS
    for key, value in values.items():
        # Two braces are counted here: for the first key those of the object, for any other one counts as its comma.
        units = utf16_units(orjson.dumps({key: value}).decode())
        if units > MAX_METADATA_UNITS:
            message = f"{key}: longer than the {MAX_METADATA_UNITS} UTF-16 units that LangWatch takes at once"
            refused.append(DeliveryError("too_large", message))
            continue
        if pack and units - 1 > room:
            yield pack
            pack, room = {}, MAX_METADATA_UNITS
        room -= units - bool(pack)
        pack[key] = value
    if pack:
        yield pack


def _leaves(path: str, value: Json) -> dict[str, Json]:
    """Return the scalars in *value*, and its empty objects and lists, by dotted path."""
    if isinstance(value, str):
        value = _as_the_server_reads(value)
    if not value or not isinstance(value, dict | list):
        return {path: value}
    items: Iterable[tuple[object, Json]] = value.items() if isinstance(value, dict) else enumerate(value)
    leaves: dict[str, Json] = {}
    for key, item in items:
        leaves.update(_leaves(f"{path}.{key}", item))
    return leaves


def _as_the_server_reads(text: str) -> Json:
    trimmed = text.strip()
    if trimmed[:1] + trimmed[-1:] not in ("{}", "[]"):
        return text
    try:
        found: Json = orjson.loads(trimmed)
    except orjson.JSONDecodeError:
        return text
    return found


def _shown(name: FieldName) -> str:
    """Return words for a field. The tags of a trace are its labels, which share one note."""
    level, kind, _ = name
    return words_for((level, kind, "")) + "s" if kind == "tag" else words_for(name)


def _beside_note(name: FieldName, value: Json) -> _Kept:
    as_text = ", as text" if name[1] != "tag" and not isinstance(value, str) else ""
    return _Kept(_shown(name), f"kept on a span of its own beside the target{as_text}; {_ADDED}")


def _unsupported(shown: str, why: str) -> DeliveryError:
    return DeliveryError("unsupported", f"{shown}: unsupported; {why}")


def _delivered(kept: Iterable[_Kept]) -> Delivered:
    return Delivered(tuple(one.note for one in kept))


def _about(outcome: Outcome, kept: Iterable[_Kept]) -> Outcome:
    """Return an outcome; a rejection names the fields, because it may become a note on a delivered patch."""
    if not isinstance(outcome, Rejected):
        return outcome
    shown = ", ".join(dict.fromkeys(one.shown for one in kept))
    return Rejected(DeliveryError(outcome.error.type, f"{shown}: {outcome.error.message}"))


def _message(answer: RestAnswer, kept: Sequence[_Kept]) -> Outcome:
    if answer.outcome is not None:
        return _about(answer.outcome, kept)
    return _delivered(kept) if isinstance(answer.member("message"), str) else _NOT_LANGWATCH


def _named_fields(answer: RestAnswer) -> set[str]:
    """Return the metadata keys that a refusal names: a 422, or the 400 of LangWatch's documentation."""
    fields = answer.member("fields") if answer.status in {400, 422} else None
    named = fields if isinstance(fields, list) else []
    return {one.removeprefix("metadata.") for one in named if isinstance(one, str)}


def _stable_id(patch: Patch, name: FieldName, *more: str) -> str:
    """Return 32 hex digits that follow from target and field; of the target, a trace's field uses the trace alone."""
    target = patch.target
    span_id = target.span_id_hex if name[0] == "span" else ""
    return sha256("\0".join([target.trace_id_hex, span_id, *name, *more]).encode()).hexdigest()[:32]


def _evaluation(patch: Patch, name: FieldName, judged: Evaluation, version: Version) -> Json:
    at_millis = version[0] // 1_000_000
    given: dict[str, Json] = {
        # It follows from target and name alone: LangWatch keeps one evaluation for each id.
        "evaluation_id": f"eval_{_stable_id(patch, name)}",
        "name": judged.name,
        "score": judged.score,
        "label": judged.label,
        "details": judged.explanation,
        "span_id": patch.target.span_id_hex if name[0] == "span" and patch.target.is_valid else None,
    }
    # A timestamp must have 13 digits. It also tells a return to an earlier value from a repetition.
    if len(str(at_millis)) == 13:
        given["timestamps"] = {"started_at": at_millis, "finished_at": at_millis}
    return {"status": "processed", **{key: part for key, part in given.items() if part is not None}}


def _comment(note: Annotation) -> tuple[str, dict[str, Json]]:
    """Return the first line of a comment, which names the note and its annotator, and the body of the request."""
    head = (
        " ".join(f"{note.name}, by {note.annotator}:".split()) if note.annotator else f"{' '.join(note.name.split())}:"
    )
    lines = [head, *([note.label] if note.label else []), note.text or ""]
    body: dict[str, Json] = {"comment": "\n".join(lines), "isThumbsUp": (note.score or 0) > 0}
    if note.annotator and "@" in note.annotator:
        body["email"] = note.annotator
    return head, body


def _is_ours(row: Mapping[str, Json], head: str) -> bool:
    comment = row.get("comment")
    # A comment by a person who is signed in has a user.
    return isinstance(comment, str) and comment.partition("\n")[0] == head and not row.get("userId")
