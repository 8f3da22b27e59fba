"""Patches to Langfuse's public API: what the server can still change is changed, the rest is kept beside the span.

Langfuse 4 never changes a stored span, and shows the newest span without a parent as the trace. So there a patch is:

- metadata: a score named `otel_metadata`, on the span or on the trace, whose own metadata is all that has come late,
- user, session and tags of the trace: attributes of a short span, child of the target, never a root,
- evaluations, and annotations with a score or label: a score, upserted by its id,
- text without either: a comment, which has no id of ours, so we look before we write,
- name, input, output, status, attributes: nothing can hold them (`unsupported`).

Langfuse 3 takes `span-update` and `trace-create` through `/ingestion`; there the observation is read first, for it is
found again by its type and start time as well as by its id, and written whole. Which of the two a server is, its health
says by its version. A server that refuses updates whatever its version says is served like Langfuse 4 from then on.

A patch may take several requests. Each is the same when it is sent again, so that all of them are when one fails.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final
from urllib.parse import urlencode

from opentelemetry.sdk.resources import Resource

from otel_metadata.dialects.langfuse import SPAN_TAGS, TRACE_TAGS
from otel_metadata.exporters.http import Reply, outcome_of
from otel_metadata.exporters.otlp import synthetic_span
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.exporters.rest import Budget, RestAnswer, RestClient, one_by_one, path_segment
from otel_metadata.model.encoding import is_error_status
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.merge import FieldName, Fields, Json, Level, json_text, latest_version, merge
from otel_metadata.model.outcome import Delivered, DeliveryError, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.recent import RecentMap

if TYPE_CHECKING:
    from otel_metadata.model.span_ref import SpanKey, SpanRef
    from otel_metadata.seams import Convergence

__all__ = ["SCORE_NAME", "TRACES_PATH", "LangfusePatchExporter", "request_headers"]

TRACES_PATH: Final = "/api/public/otel/v1/traces"

SCORE_NAME: Final = "otel_metadata"
"""The score that holds late metadata where a stored span is never changed."""

MAX_SCORE_BYTES: Final = 1_000_000
"""Of one request with scores; the server takes 1 MiB (Langfuse SDK 5 stops here too)."""

MAX_EVENT_BYTES: Final = 3_500_000
"""Of one request with updates (Langfuse, "Ingestion", documented limit)."""

MAX_COMMENT_CHARS: Final = 5_000

# Late metadata is remembered for this many targets, to be sent whole with the next update: 16 MiB at the most.
_REMEMBERED: Final = 512
_REMEMBERED_BYTES: Final = 16_384

_Parts: TypeAlias = "Iterator[tuple[Iterable[str], Outcome]]"
"""What became of each part of a patch: what it says, as words for a note, and its outcome."""

# Where a field goes, by level and kind; what is not here goes nowhere.
_VERDICTS: Final[Mapping[tuple[str, str], str]] = {
    (level, kind): "verdict" for level in ("span", "trace") for kind in ("evaluation", "annotation")
}
_ADDED: Final[Mapping[tuple[str, str], str]] = {
    **_VERDICTS,
    ("span", "metadata"): "span",
    ("span", "tag"): "span",
    ("trace", "metadata"): "trace",
    ("trace", "tag"): "child",
    **{(level, kind): "child" for level in ("span", "trace") for kind in ("user_id", "session_id")},
}
_UPDATED: Final[Mapping[tuple[str, str], str]] = {
    **_VERDICTS,
    **{("span", kind): "span" for kind in ("metadata", "tag", "name", "input", "output", "status", "status_message")},
    **{("trace", kind): "trace" for kind in ("metadata", "tag", "name", "input", "output", "user_id", "session_id")},
    ("span", "user_id"): "trace",
    ("span", "session_id"): "trace",
}

_EVENT_TYPES: Final = {"SPAN": "span-update", "GENERATION": "generation-update"}
_COPIED: Final = (
    *("name", "startTime", "endTime", "parentObservationId", "level", "statusMessage", "version", "environment"),
    *("input", "output", "model", "modelParameters", "completionStartTime", "usageDetails", "costDetails"),
    *("promptName", "promptVersion"),
)
"""What an observation keeps only when it is written again with its update (some projects skip the read)."""

_NOT_FOUND: Final = Rejected(DeliveryError("segment_not_found", "Langfuse does not know the span or trace"))
_UNSUPPORTED: Final = Rejected(DeliveryError("unsupported", "Langfuse cannot hold it once the span is stored"))
_REFUSED: Final = Rejected(DeliveryError("patch_failure", "Langfuse cannot use what was sent"))
_NO_PARENT: Final = Rejected(
    DeliveryError("unsupported", "a bare trace id: a span without a parent would take the place of the trace")
)
_NOT_OURS: Final = Retry(
    DeliveryError("connection_failure", "the answer to a success is none of Langfuse's; check the endpoint")
)


def request_headers(public_key: str, secret_key: str) -> dict[str, str]:
    """Return what every request carries: the keys, and the wish that spans are written at once rather than queued."""
    pair = base64.b64encode(f"{public_key}:{secret_key}".encode()).decode()
    return {"authorization": f"Basic {pair}", "x-langfuse-ingestion-version": "4"}


class _Kept(NamedTuple):
    """The late metadata of one target: the score that holds it."""

    id: str
    at_ns: int
    fields: Fields


class _UpdatesRefusedError(Exception):
    """The server keeps events only."""


@final
class LangfusePatchExporter:
    """Sends each patch as scores, comments and a span, or as updates where the server still takes them."""

    max_batch: int = 50
    grace_millis: int = 0
    # Scores and spans are taken for any id; only updates and comments tell an unknown one.
    reports_missing: bool = False
    # Of one process and server the latest version stands; another process writes a score of its own.
    convergence: Convergence = "none"

    def __init__(
        self,
        url: str,
        *,
        public_key: str,
        secret_key: str,
        resource: Resource | None = None,
        name: str = "langfuse",
    ) -> None:
        """Connect later.

        Args:
            url: Of the server, for example `https://cloud.langfuse.com`.
            public_key: Of the project.
            secret_key: Of the project.
            resource: Of the spans that carry user, session and tags; its environment is that of the scores too. By
                default the one that the environment variables describe.
            name: For people.

        Raises:
            ConfigurationError: The URL or a key cannot be used.
        """
        headers = request_headers(public_key, secret_key)
        self.name = name
        self._rest = RestClient(url, headers=headers)
        self._spans = OtlpHttpSender(url.rstrip("/") + TRACES_PATH, headers=headers)
        self._resource = resource or Resource.create()
        self._environment = _environment(self._resource)
        self._takes_updates: bool | None = None
        self._wants_lists = False
        self._project: str | None = None
        self._kept: RecentMap[SpanKey, _Kept] = RecentMap(_REMEMBERED)
        self._tags: RecentMap[int, Fields] = RecentMap(_REMEMBERED)

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        """Send one patch after the other; each with the requests that its fields take."""
        budget = Budget(timeout_millis)
        return one_by_one(patches, lambda patch: self._deliver(patch, budget), budget)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # nothing is buffered
        """Nothing is buffered."""
        return True

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """Close the connections; from any thread."""
        self._rest.close()
        self._spans.shutdown()

    def _deliver(self, patch: Patch, budget: Budget) -> Outcome:
        failed = self._ask_version(budget)
        if failed is not None:
            return failed
        if self._takes_updates:
            try:
                return _together(self._updating(patch, budget))
            except _UpdatesRefusedError:
                self._takes_updates = False
        return _together(self._adding(patch, budget))

    def _ask_version(self, budget: Budget) -> Outcome | None:
        """Find out, once, whether the server takes updates; return what to do when it does not say."""
        if self._takes_updates is not None:
            return None
        answer = self._rest.call("GET", "/api/public/health", budget=budget)
        if isinstance(answer.outcome, Rejected):
            return Pause(answer.outcome.error)  # not about a patch: none was sent
        if answer.outcome is not None:
            return answer.outcome
        version = answer.body.get("version") if isinstance(answer.body, dict) else None
        match = re.match(r"v?([0-9]{1,4})\.", version) if isinstance(version, str) else None
        if match is None:
            return _NOT_OURS
        self._takes_updates = int(match[1]) < 4
        return None

    # --- Langfuse 4: beside the span ---------------------------------------------------------------------------------

    def _adding(self, patch: Patch, budget: Budget) -> _Parts:
        groups = _grouped(patch.fields, _ADDED)
        levels: tuple[Level, Level] = ("span", "trace")
        for level in levels:
            if level in groups:
                yield _labels(groups[level]), self._keep(patch, level, groups[level], budget)
        if "child" in groups:
            yield _labels(groups["child"]), self._add_span(patch, groups["child"], budget)
        yield from self._verdicts(patch, groups.get("verdict", {}), budget)
        if "nowhere" in groups:
            yield _labels(groups["nowhere"]), _UNSUPPORTED

    def _keep(self, patch: Patch, level: Level, fields: Fields, budget: Budget) -> Outcome:
        """Put metadata on a score, together with what had come late before: of one target it is one score."""
        key = (patch.target.trace_id, patch.target.span_id if level == "span" else 0)
        new = _Kept(f"om-{patch.id}-{level}", patch.version[0], {})
        kept = self._kept.get(key) or new
        all_fields = merge(kept.fields, fields)
        if _size(all_fields, level) > _REMEMBERED_BYTES:
            # What is not remembered must not be written over: it is another score.
            kept, all_fields = new, dict(fields)
        is_small = _size(all_fields, level) <= _REMEMBERED_BYTES
        score: dict[str, Json] = {
            "id": kept.id,
            **_where(patch.target, level),
            "name": SCORE_NAME,
            "value": "patch",
            "dataType": "CATEGORICAL",
            "metadata": _metadata(all_fields, level),
            "timestamp": _iso(kept.at_ns),
        }
        outcome = self._score(score, _labels(fields), budget)
        if is_small:
            # After a failure the id alone: the next try may come with more fields, and is to replace what arrived.
            self._kept[key] = kept._replace(fields=all_fields) if isinstance(outcome, Delivered) else kept
        if not isinstance(outcome, Delivered):
            return outcome
        notes = [f"{one}: kept on a score, for a stored span is never changed" for one in _labels(fields)]
        return Delivered(tuple(notes))

    def _add_span(self, patch: Patch, fields: Fields, budget: Budget) -> Outcome:
        """Say it on a span of its own: the newest that says something of the trace stands."""
        if not patch.target.is_valid:
            return _NO_PARENT
        values, notes = _of_trace(fields)
        trace_id = patch.target.trace_id
        tags = {name: field for name, field in fields.items() if name[1] == "tag"}
        if tags:
            tags = merge(self._tags.get(trace_id) or {}, tags)
            values[TRACE_TAGS] = _texts(tags, "trace")
            notes += [f"{one}: tags that spans had before are not shown any more" for one in _labels(fields, "tag")]
        if not values:
            return _UNSUPPORTED
        version = latest_version(fields)
        said: Fields = {("span", "attribute", name): (value, version) for name, value in values.items()}
        span = synthetic_span(Patch(patch.target, said, patch.window_ns), self._resource)
        outcome = self._spans.send([span], timeout_millis=budget.left_millis)
        if not isinstance(outcome, Delivered):
            return outcome
        if tags:
            self._tags[trace_id] = tags
        if outcome.notes:
            notes += [f"{one}: the receiver of spans did not take all of it" for one in _labels(fields)]
        return Delivered(tuple(notes))

    # --- Langfuse 3: on the span -------------------------------------------------------------------------------------

    def _updating(self, patch: Patch, budget: Budget) -> _Parts:
        groups = _grouped(patch.fields, _UPDATED)
        stored: dict[str, Json] = {}
        if not groups.keys().isdisjoint({"span", "trace"}):
            found = self._stored(patch.target, budget)
            if not isinstance(found, dict):
                yield (), found
                return
            stored = found
        if "span" in groups and stored:
            event = _observation_update(patch.target, groups["span"], stored)
            yield _labels(groups["span"]), self._event(patch, *event, _labels(groups["span"]), budget)
        elif "span" in groups:
            # It is too large to be read, so it cannot be written whole.
            yield from self._adding(Patch(patch.target, groups["span"], patch.window_ns), budget)
        if "trace" in groups:
            body, notes = _trace_update(patch.target, groups["trace"], self._environment)
            outcome = self._event(patch, "trace-create", body, _labels(groups["trace"]), budget)
            yield _labels(groups["trace"]), Delivered(tuple(notes)) if isinstance(outcome, Delivered) else outcome
        yield from self._verdicts(patch, groups.get("verdict", {}), budget)
        if "nowhere" in groups:
            yield _labels(groups["nowhere"]), _UNSUPPORTED

    def _stored(self, target: SpanRef, budget: Budget) -> dict[str, Json] | Outcome:
        """Return the stored observation; an empty one for a trace alone, and where it is larger than what we read.

        Raises:
            _UpdatesRefusedError: The server has become one that has no such endpoint.
        """
        span_id, trace_id = target.span_id_hex, target.trace_id_hex
        path = f"observations/{path_segment(span_id)}" if target.span_id else f"traces/{path_segment(trace_id)}"
        answer = self._rest.call("GET", f"/api/public/{path}", budget=budget)
        if answer.status in {404, 405, 410}:
            self._takes_updates = None
            return self._ask_version(budget) or self._missing()
        if answer.outcome is not None:
            return answer.outcome
        if not target.span_id or (answer.body is None and answer.text):
            return {}
        found = answer.body
        if not isinstance(found, dict) or found.get("id") != span_id or not found.get("type"):
            return _NOT_OURS
        return found if found.get("traceId") == trace_id else _NOT_FOUND

    def _missing(self) -> Outcome:
        if not self._takes_updates:
            raise _UpdatesRefusedError
        return _NOT_FOUND

    def _event(self, patch: Patch, kind: str, body: dict[str, Json], labels: Sequence[str], budget: Budget) -> Outcome:
        # The id of an event is also the place where it is stored: the same one again replaces itself.
        event_id = f"om-{patch.id}-{kind}"
        event: dict[str, Json] = {
            "id": event_id,
            "type": kind,
            "timestamp": _iso(patch.version[0]),
            "body": body,
        }
        batch: dict[str, Json] = {"batch": [event]}
        if len(json_text(batch).encode()) > MAX_EVENT_BYTES:
            return _too_large(labels, MAX_EVENT_BYTES)
        answer = self._rest.call("POST", "/api/public/ingestion", batch, budget=budget)
        if answer.outcome is not None:
            return answer.outcome
        return _judged_event(answer.body, event_id)

    # --- verdicts ----------------------------------------------------------------------------------------------------

    def _verdicts(self, patch: Patch, fields: Fields, budget: Budget) -> _Parts:
        for name, (value, version) in sorted(fields.items(), key=lambda one: one[1][1]):
            labels = _labels([name], value=value)
            verdict = _Verdict.read(name, value)
            at_ns = patch.window_ns[1] if patch.window_ns is not None else version[0]
            if verdict.value is None:
                yield labels, self._comment(patch.target, name[0], verdict, labels, budget)
                continue
            notes = verdict.notes(labels[0])
            place = _where(patch.target, name[0])
            digest = hashlib.blake2b(json_text([*place.values(), *name]).encode(), digest_size=16)
            score: dict[str, Json] = {
                "id": f"om-{digest.hexdigest()}",
                **place,
                "name": verdict.name,
                "value": verdict.value,
                "dataType": verdict.data_type,
                "metadata": dict(verdict.metadata),
                # The same day each time: a score is replaced only where id, name and date are the same.
                "timestamp": _iso(at_ns),
            }
            if verdict.text is not None:
                score["comment"] = verdict.text
            outcome = self._score(score, labels, budget)
            yield labels, Delivered(tuple(notes)) if isinstance(outcome, Delivered) else outcome

    def _score(self, score: dict[str, Json], labels: Sequence[str], budget: Budget) -> Outcome:
        """Create or replace one score; alone, or as a list of one where the server takes only lists."""
        if self._environment is not None:
            score["environment"] = self._environment
        if len(json_text(score).encode()) > MAX_SCORE_BYTES:
            return _too_large(labels, MAX_SCORE_BYTES)
        if not self._wants_lists:
            answer = self._rest.call("POST", "/api/public/scores", score, budget=budget)
            if answer.status != 400:
                return _judged_score(answer)
        answer = self._rest.call("POST", "/api/public/scores", [score], budget=budget)
        self._wants_lists = self._wants_lists or answer.status in {202, 207}
        return _judged_score(answer)

    def _comment(
        self, target: SpanRef, level: Level, verdict: _Verdict, labels: Sequence[str], budget: Budget
    ) -> Outcome:
        if verdict.text is None:
            return _UNSUPPORTED
        content = f"{verdict.title}: {verdict.text}"
        if len(content) > MAX_COMMENT_CHARS:
            return _too_large(labels, MAX_COMMENT_CHARS, "characters")
        if self._project is None:
            answer = self._rest.call("GET", "/api/public/projects", budget=budget)
            projects = _member(answer.body, "data")
            first = projects[0] if isinstance(projects, list) and projects else None
            project = _member(first, "id")
            if not isinstance(project, str):
                return answer.outcome or _NOT_OURS
            self._project = project
        is_on_span = level == "span" and target.span_id != 0
        place = {
            "objectType": "OBSERVATION" if is_on_span else "TRACE",
            "objectId": target.span_id_hex if is_on_span else target.trace_id_hex,
        }
        answer = self._rest.call("GET", f"/api/public/comments?{urlencode(place)}", budget=budget)
        if answer.status == 404:
            return _NOT_FOUND
        if answer.outcome is not None:
            return answer.outcome
        there = _member(answer.body, "data")
        if isinstance(there, list) and any(_member(one, "content") == content for one in there):
            return Delivered()
        if not isinstance(there, list) and answer.body is not None:
            return _NOT_OURS
        body: dict[str, Json] = {"projectId": self._project, **place, "content": content}
        answer = self._rest.call("POST", "/api/public/comments", body, budget=budget)
        if answer.status == 404:
            return _NOT_FOUND
        outcome = _judged(answer, isinstance(_member(answer.body, "id"), str))
        if isinstance(outcome, Delivered):
            notes = [f"{one}: a comment, beside those that were there before" for one in labels]
            if any(not key.startswith("otel_metadata.") for key in verdict.metadata):
                notes += [f"{one}: unsupported: a comment has no metadata" for one in labels]
            return Delivered(tuple(notes))
        return outcome


class _Verdict(NamedTuple):
    """An evaluation or annotation as Langfuse sees it; a value of None makes it a comment."""

    name: str
    title: str
    value: float | str | None
    data_type: str
    text: str | None
    metadata: Mapping[str, Json]
    has_both: bool

    @classmethod
    def read(cls, name: FieldName, raw: Json) -> _Verdict:
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
        return [f"{label}: its label is in the metadata of the score, which has one value"] if self.has_both else []


def _together(parts: Iterable[tuple[Iterable[str], Outcome]]) -> Outcome:
    """Return one outcome for a patch, whose parts are sent while this goes over them.

    Where another try, or a smaller one, may help, that is what comes of all of it. A part that never will arrive is a
    note beside those that did.
    """
    notes: list[str] = []
    refused: Rejected | None = None
    is_delivered = False
    for labels, outcome in parts:
        if isinstance(outcome, Delivered):
            is_delivered = True
            notes += outcome.notes
        elif isinstance(outcome, Rejected) and outcome.error.type not in {"segment_not_found", "too_large"}:
            refused = refused or outcome
            notes += [f"{label}: {outcome.error.type}: {outcome.error.message}" for label in labels]
        else:
            return outcome
    return refused if refused is not None and not is_delivered else Delivered(tuple(notes))


def _grouped(fields: Fields, places: Mapping[tuple[str, str], str]) -> dict[str, Fields]:
    groups: dict[str, dict[FieldName, tuple[Json, tuple[int, int]]]] = {}
    for name, field in fields.items():
        groups.setdefault(places.get(name[:2], "nowhere"), {})[name] = field
    return dict(groups)


def _labels(names: Iterable[FieldName], kind: str | None = None, *, value: Json = None) -> list[str]:
    """Return words for each field: its level where that is the trace, its kind, its key."""
    labels = []
    for level, what, key in names:
        if kind in {None, what}:
            shown = _member(value, "name") if what == "annotation" and value is not None else key
            prefix = "trace " if level == "trace" else ""
            labels.append(f"{prefix}{what}{f' {shown!r}' if shown else ''}")
    return labels


def _metadata(fields: Fields, level: Level) -> dict[str, Json]:
    """Return metadata as a JSON object; the tags of a span are under the key under which its dialect has them."""
    found = {
        name[2]: field[0] for name, field in sorted(fields.items(), key=lambda one: one[1][1]) if name[1] == "metadata"
    }
    tags = _texts(fields, level)
    return {**found, SPAN_TAGS: tags} if tags else found


def _size(fields: Fields, level: Level) -> int:
    return len(json_text(_metadata(fields, level)).encode())


def _texts(fields: Fields, level: Level) -> list[Json]:
    return [name[2] for name, _ in sorted(fields.items(), key=lambda one: one[1][1]) if name[:2] == (level, "tag")]


def _of_trace(fields: Fields) -> tuple[dict[str, Json], list[str]]:
    """Return user and session as attributes, and a note on each that is not kept as it was meant."""
    values: dict[str, Json] = {}
    notes: list[str] = []
    for name, (value, _) in sorted(fields.items(), key=lambda one: one[1][1]):
        level, kind, _ = name
        if kind not in {"user_id", "session_id"}:
            continue
        (label,) = _labels([name])
        if not isinstance(value, str) or not value:
            notes.append(f"{label}: unsupported: Langfuse takes a text that is not empty")
            continue
        values["user.id" if kind == "user_id" else "session.id"] = value
        if level == "span":
            notes.append(f"{label}: Langfuse has it for the trace as a whole")
    return values, notes


def _observation_update(target: SpanRef, fields: Fields, stored: Mapping[str, Json]) -> tuple[str, dict[str, Json]]:
    """Return the type of the event, and the whole observation with *fields*."""
    kind = str(stored["type"])
    before = stored.get("metadata")
    metadata = {**(before if isinstance(before, dict) else {}), **_metadata(fields, "span")}
    earlier = before.get(SPAN_TAGS) if isinstance(before, dict) else None
    if SPAN_TAGS in metadata and isinstance(earlier, list):
        metadata[SPAN_TAGS] = list(dict.fromkeys([*map(str, earlier), *map(str, _texts(fields, "span"))]))
    body: dict[str, Json] = {name: stored[name] for name in _COPIED if stored.get(name) is not None}
    body |= {"id": target.span_id_hex, "traceId": target.trace_id_hex, "metadata": metadata}
    for (_, what, _), (value, _) in fields.items():
        if what in {"name", "input", "output"}:
            body[what] = value
        elif what == "status":
            body["level"] = "ERROR" if is_error_status(value) else "DEFAULT"
        elif what == "status_message":
            body["statusMessage"] = value
    return _EVENT_TYPES.get(kind, f"{kind.lower()}-create"), body


def _trace_update(target: SpanRef, fields: Fields, environment: str | None) -> tuple[dict[str, Json], list[str]]:
    """Return the body of a `trace-create`, which is an upsert, and a note on each field that it may change."""
    body: dict[str, Json] = {"id": target.trace_id_hex}
    if environment is not None:
        body["environment"] = environment
    values, notes = _of_trace(fields)
    if "user.id" in values:
        body["userId"] = values["user.id"]
    if "session.id" in values:
        body["sessionId"] = values["session.id"]
    for name, (value, _) in fields.items():
        if name[1] in {"name", "input", "output"}:
            body[name[1]] = value
        elif name[1] == "metadata" and isinstance(value, dict | list):
            (label,) = _labels([name])
            notes.append(f"{label}: it may be merged into an earlier list or object rather than replace it")
    tags, metadata = (
        _texts(fields, "trace"),
        _metadata({n: f for n, f in fields.items() if n[1] == "metadata"}, "trace"),
    )
    if tags:
        body["tags"] = tags
    if metadata:
        body["metadata"] = metadata
    return body, notes


def _judged(answer: RestAnswer, is_right: bool) -> Outcome:
    return answer.outcome or (Delivered() if is_right else _NOT_OURS)


def _judged_score(answer: RestAnswer) -> Outcome:
    """Return what an answer says of one score: 200 has its id, 202 a message, 207 how many were rejected."""
    if answer.outcome is None and answer.status == 207:
        rejected = _member(answer.body, "rejected")
        return _REFUSED if rejected == 1 else _judged(answer, rejected == 0)
    said = _member(answer.body, "message" if answer.status == 202 else "id")
    return _judged(answer, isinstance(said, str))


def _judged_event(body: Json, event_id: str) -> Outcome:
    """Return what a 207 says of one event.

    Raises:
        _UpdatesRefusedError: The server takes no such event, and never will.
    """
    for one in _list(body, "successes"):
        if _member(one, "id") == event_id and _member(one, "status") in {200, 201}:
            return Delivered()
    for one in _list(body, "errors"):
        status = _member(one, "status")
        if _member(one, "id") != event_id or not isinstance(status, int):
            continue
        if status == 400 and "Event type not accepted" in str(_member(one, "message")):
            raise _UpdatesRefusedError
        if status in {401, 403, 408, 429} or status // 100 == 5:
            return outcome_of(Reply(status), 0) or _NOT_OURS
        if status // 100 == 4:
            return _REFUSED
    return _NOT_OURS


def _list(body: Json, name: str) -> list[Json]:
    found = _member(body, name)
    return found if isinstance(found, list) else []


def _member(body: Json, name: str) -> Json:
    return body.get(name) if isinstance(body, dict) else None


def _where(target: SpanRef, level: Level) -> dict[str, Json]:
    if level == "span" and target.span_id:
        return {"traceId": target.trace_id_hex, "observationId": target.span_id_hex}
    return {"traceId": target.trace_id_hex}


def _too_large(labels: Sequence[str], limit: int, unit: str = "bytes") -> Rejected:
    return Rejected(DeliveryError("too_large", f"{', '.join(labels)}: Langfuse takes {limit:,} {unit} at once"))


def _iso(ns: int) -> str:
    at = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ns // 1_000_000)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _environment(resource: Resource) -> str | None:
    """Return the environment in which Langfuse puts the spans of a resource; None where it is the default."""
    for name in ("langfuse.environment", "deployment.environment", "deployment.environment.name"):
        found = resource.attributes.get(name)
        if isinstance(found, str) and re.fullmatch(r"(?!langfuse)[a-z0-9_-]{1,40}", found):
            return found
    return None
