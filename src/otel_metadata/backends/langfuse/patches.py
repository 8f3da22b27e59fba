"""Patches to Langfuse's public API: a field that the server can change is changed, the others are kept beside the span.

Langfuse 4 never changes a stored span, and shows the newest span without a parent as the trace. There, fields become:

- metadata: a score named `otel_metadata`, on the span or on the trace, whose own metadata is all the late metadata,
- user, session and tags of the trace: attributes of a short span, a child of the target, never a root,
- evaluations, and annotations with a score or label: a score, upserted by its id,
- annotations and evaluations with text alone: a comment. A comment takes no id, so we look before we write,
- name, input, output, status, attributes: nothing can hold them (`unsupported`).

Langfuse 3 takes `span-update` and `trace-create` through `/ingestion`. It finds an observation by type, start time and
id, and replaces it whole, so we read it first. The health endpoint tells the version of the server. A server that
refuses updates, whatever its version, is treated as Langfuse 4 from then on.

A patch may take several requests. Sending one of them again changes nothing, so when one fails, all are sent again.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final
from urllib.parse import urlencode

from opentelemetry.sdk.resources import Resource

from otel_metadata.arguments import checked
from otel_metadata.backends.langfuse import bodies
from otel_metadata.backends.langfuse.dialect import TRACE_TAGS
from otel_metadata.exporters.http import Reply, outcome_of, with_path
from otel_metadata.exporters.otlp import synthetic_span
from otel_metadata.exporters.otlp_http import OtlpHttpSender
from otel_metadata.exporters.rest import Budget, RestAnswer, RestPatchExporter, member, not_from, path_segment
from otel_metadata.model.merge import Fields, Json, Level, json_text, latest_version, merge
from otel_metadata.model.outcome import Delivered, DeliveryError, NotKept, Outcome, Pause, Rejected
from otel_metadata.model.patch import Patch
from otel_metadata.model.recent import RecentMap

if TYPE_CHECKING:
    from otel_metadata.model.span_ref import SpanKey, SpanRef
    from otel_metadata.seams import Convergence

TRACES_PATH: Final = "/api/public/otel/v1/traces"

SCORE_NAME: Final = "otel_metadata"
"""The score that holds late metadata on a server that never changes a stored span."""

MAX_SCORE_BYTES: Final = 1_000_000
"""Bytes in one request with scores; the server takes 1 MiB (Langfuse SDK 5 stops here too)."""

MAX_EVENT_BYTES: Final = 3_500_000
"""Bytes in one request with updates (Langfuse, "Ingestion", documented limit)."""

MAX_COMMENT_CHARS: Final = 5_000

# Late metadata of this many targets is remembered and sent whole with the next update; together at most 16 MiB.
_REMEMBERED: Final = 512
_REMEMBERED_BYTES: Final = 16_384

_Parts: TypeAlias = "Iterator[tuple[Iterable[str], Outcome]]"
"""The parts of a patch: for each, words for its fields, and its outcome."""

_NOT_FOUND: Final = Rejected(DeliveryError("segment_not_found", "Langfuse does not know the span or trace"))
_UNSUPPORTED: Final = Rejected(DeliveryError("unsupported", "Langfuse cannot hold it once the span is stored"))
_REFUSED: Final = Rejected(DeliveryError("patch_failure", "Langfuse cannot use what was sent"))
_REFUSED_SPAN: Final = Rejected(DeliveryError("backend_rejection", "Langfuse rejected the span that carries it"))
_NO_PARENT: Final = Rejected(
    DeliveryError("unsupported", "the update names no span: a new span without a parent would be shown as the trace")
)
_NOT_LANGFUSE: Final = not_from("Langfuse")


def request_headers(public_key: str, secret_key: str) -> dict[str, str]:
    """Return the headers of every request: the keys, and a version that makes the server write spans at once."""
    pair = base64.b64encode(f"{public_key}:{secret_key}".encode()).decode()
    return {"authorization": f"Basic {pair}", "x-langfuse-ingestion-version": "4"}


class _Kept(NamedTuple):
    """The late metadata of one target, and the score that holds it."""

    id: str
    at_ns: int
    fields: Fields


class _UpdatesRefusedError(Exception):
    """The server takes new events only, no updates."""


@final
class LangfusePatchExporter(RestPatchExporter):
    """Sends each patch as scores, comments and a span; as updates where the server still takes them."""

    max_batch = 50
    # The server takes scores and spans for any id; only updates and comments are refused for an unknown one.
    reports_missing = False
    # Within one process the latest version wins; another process writes a score of its own.
    convergence: Convergence = "none"

    @checked
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
            url: The address of the server, for example `https://cloud.langfuse.com`.
            public_key: The public key of the project.
            secret_key: The secret key of the project.
            resource: The resource of the spans that carry user, session and tags. Its environment is also that of the
                scores. By default the resource that the environment variables describe.
            name: The name of the exporter, for people.

        Raises:
            ConfigurationError: The URL or a key cannot be used.
        """
        headers = request_headers(public_key, secret_key)
        super().__init__(url, headers=headers, name=name)
        self._spans = OtlpHttpSender(with_path(url, TRACES_PATH), headers=headers)
        self._resource = resource or Resource.create()
        self._environment = bodies.environment_of(self._resource)
        self._takes_updates: bool | None = None
        self._wants_lists = False
        self._project: str | None = None
        self._kept: RecentMap[SpanKey, _Kept] = RecentMap(_REMEMBERED)
        self._tags: RecentMap[int, Fields] = RecentMap(_REMEMBERED)

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """Close both connections, from any thread."""
        super().shutdown(timeout_millis)
        self._spans.shutdown()

    def send_one(self, patch: Patch, budget: Budget) -> Outcome:
        """Send a patch with as many requests as its fields take."""
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
        """Find out, once, whether the server takes updates; return an outcome where it does not tell."""
        if self._takes_updates is not None:
            return None
        answer = self._client.call("GET", "/api/public/health", budget=budget)
        if isinstance(answer.outcome, Rejected):
            return Pause(answer.outcome.error)  # about the server: no patch was sent
        if answer.outcome is not None:
            return answer.outcome
        version = answer.member("version")
        match = re.match(r"v?([0-9]{1,4})\.", version) if isinstance(version, str) else None
        if match is None:
            return _NOT_LANGFUSE
        self._takes_updates = int(match[1]) < 4
        return None

    # --- Langfuse 4: beside the span ---------------------------------------------------------------------------------

    def _adding(self, patch: Patch, budget: Budget) -> _Parts:
        groups = bodies.grouped(patch.fields, bodies.ADDED)
        levels: tuple[Level, Level] = ("span", "trace")
        for level in levels:
            if level in groups:
                yield bodies.labels_of(groups[level]), self._keep(patch, level, groups[level], budget)
        if "child" in groups:
            yield bodies.labels_of(groups["child"]), self._add_span(patch, groups["child"], budget)
        yield from self._verdicts(patch, groups.get("verdict", {}), budget)
        if "nowhere" in groups:
            yield bodies.labels_of(groups["nowhere"]), _UNSUPPORTED

    def _keep(self, patch: Patch, level: Level, fields: Fields, budget: Budget) -> Outcome:
        """Put metadata on a score, with the late metadata before it: a target has one score."""
        key = (patch.target.trace_id, patch.target.span_id if level == "span" else 0)
        new = _Kept(f"om-{patch.id}-{level}", patch.version[0], {})
        kept = self._kept.get(key) or new
        all_fields = merge(kept.fields, fields)
        if bodies.size_of(all_fields, level) > _REMEMBERED_BYTES:
            # A score that is too large to remember must not be overwritten, so this is another score.
            kept, all_fields = new, dict(fields)
        is_small = bodies.size_of(all_fields, level) <= _REMEMBERED_BYTES
        score: dict[str, Json] = {
            "id": kept.id,
            **bodies.place_of(patch.target, level),
            "name": SCORE_NAME,
            "value": "patch",
            "dataType": "CATEGORICAL",
            "metadata": bodies.metadata_of(all_fields, level),
            "timestamp": bodies.iso(kept.at_ns),
        }
        labels = bodies.labels_of(fields)
        outcome = self._score(score, labels, budget)
        if is_small:
            # After a failure only the id is kept: the next try may have more fields, and replaces those that arrived.
            self._kept[key] = kept._replace(fields=all_fields) if isinstance(outcome, Delivered) else kept
        return _noted(outcome, [f"{one}: kept on a score, because a stored span is never changed" for one in labels])

    def _add_span(self, patch: Patch, fields: Fields, budget: Budget) -> Outcome:
        """Send fields of the trace on a new span: Langfuse shows those of the newest span that has any."""
        if not patch.target.is_valid:
            return _NO_PARENT
        values, notes = bodies.ids_of_trace(fields)
        trace_id = patch.target.trace_id
        tags = {name: field for name, field in fields.items() if name[1] == "tag"}
        if tags:
            tags = merge(self._tags.get(trace_id) or {}, tags)
            values[TRACE_TAGS] = bodies.tags_of(tags, "trace")
            labels = bodies.labels_of(fields, "tag")
            notes += [NotKept(f"{one}: tags that spans had before are not shown any more") for one in labels]
        if not values:
            return _UNSUPPORTED
        version = latest_version(fields)
        attributes: Fields = {("span", "attribute", name): (value, version) for name, value in values.items()}
        span = synthetic_span(Patch(patch.target, attributes, patch.window_ns), self._resource)
        outcome = self._spans.send([span], timeout_millis=budget.left_millis)
        if not isinstance(outcome, Delivered):
            return outcome
        if outcome.rejected:
            return _REFUSED_SPAN
        if tags:
            self._tags[trace_id] = tags
        return Delivered(tuple(notes))

    # --- Langfuse 3: on the span -------------------------------------------------------------------------------------

    def _updating(self, patch: Patch, budget: Budget) -> _Parts:
        groups = bodies.grouped(patch.fields, bodies.UPDATED)
        stored: dict[str, Json] = {}
        if not groups.keys().isdisjoint({"span", "trace"}):
            found = self._stored(patch.target, budget)
            if not isinstance(found, dict):
                yield (), found
                return
            stored = found
        if "span" in groups and stored:
            kind, body, notes = bodies.observation_update(patch.target, groups["span"], stored)
            labels = bodies.labels_of(groups["span"])
            yield labels, _noted(self._event(patch, kind, body, labels, budget), notes)
        elif "span" in groups:
            # The observation is too large to be read, so it cannot be written whole.
            yield from self._adding(Patch(patch.target, groups["span"], patch.window_ns), budget)
        if "trace" in groups:
            body, notes = bodies.trace_update(patch.target, groups["trace"], self._environment)
            labels = bodies.labels_of(groups["trace"])
            yield labels, _noted(self._event(patch, "trace-create", body, labels, budget), notes)
        yield from self._verdicts(patch, groups.get("verdict", {}), budget)
        if "nowhere" in groups:
            yield bodies.labels_of(groups["nowhere"]), _UNSUPPORTED

    def _stored(self, target: SpanRef, budget: Budget) -> dict[str, Json] | Outcome:
        """Return the stored observation; an empty one for a trace alone, and for one that is too large to read.

        Raises:
            _UpdatesRefusedError: The server was replaced by one that has no such endpoint.
        """
        span_id, trace_id = target.span_id_hex, target.trace_id_hex
        path = f"observations/{path_segment(span_id)}" if target.span_id else f"traces/{path_segment(trace_id)}"
        answer = self._client.call("GET", f"/api/public/{path}", budget=budget)
        if answer.status in {404, 405, 410}:
            self._takes_updates = None
            return self._ask_version(budget) or self._missing()
        if answer.outcome is not None:
            return answer.outcome
        if not target.span_id or (answer.body is None and answer.text):
            return {}
        found = answer.body
        if not isinstance(found, dict) or found.get("id") != span_id or not found.get("type"):
            return _NOT_LANGFUSE
        return found if found.get("traceId") == trace_id else _NOT_FOUND

    def _missing(self) -> Outcome:
        if not self._takes_updates:
            raise _UpdatesRefusedError
        return _NOT_FOUND

    def _event(self, patch: Patch, kind: str, body: dict[str, Json], labels: Sequence[str], budget: Budget) -> Outcome:
        # An event is stored under its id: sent again, it replaces itself.
        event_id = f"om-{patch.id}-{kind}"
        event: dict[str, Json] = {
            "id": event_id,
            "type": kind,
            "timestamp": bodies.iso(patch.version[0]),
            "body": body,
        }
        batch: dict[str, Json] = {"batch": [event]}
        if len(json_text(batch).encode()) > MAX_EVENT_BYTES:
            return _too_large(labels, MAX_EVENT_BYTES)
        answer = self._client.call("POST", "/api/public/ingestion", batch, budget=budget)
        if answer.outcome is not None:
            return answer.outcome
        return _judged_event(answer.body, event_id)

    # --- verdicts ----------------------------------------------------------------------------------------------------

    def _verdicts(self, patch: Patch, fields: Fields, budget: Budget) -> _Parts:
        for name, (value, version) in sorted(fields.items(), key=lambda one: one[1][1]):
            labels = bodies.labels_of([name], value=value)
            verdict = bodies.Verdict.read(name, value)
            at_ns = patch.window_ns[1] if patch.window_ns is not None else version[0]
            if verdict.value is None:
                yield labels, self._comment(patch.target, name[0], verdict, labels, budget)
                continue
            notes = verdict.notes(labels[0])
            place = bodies.place_of(patch.target, name[0])
            digest = hashlib.blake2b(json_text([*place.values(), *name]).encode(), digest_size=16)
            score: dict[str, Json] = {
                "id": f"om-{digest.hexdigest()}",
                **place,
                "name": verdict.name,
                "value": verdict.value,
                "dataType": verdict.data_type,
                "metadata": dict(verdict.metadata),
                # Langfuse replaces a score only where id, name and date are the same: so the date must not change.
                "timestamp": bodies.iso(at_ns),
            }
            if verdict.text is not None:
                score["comment"] = verdict.text
            yield labels, _noted(self._score(score, labels, budget), notes)

    def _score(self, score: dict[str, Json], labels: Sequence[str], budget: Budget) -> Outcome:
        """Create or replace one score; alone, or as a list of one where the server takes only lists."""
        if self._environment is not None:
            score["environment"] = self._environment
        if len(json_text(score).encode()) > MAX_SCORE_BYTES:
            return _too_large(labels, MAX_SCORE_BYTES)
        if not self._wants_lists:
            answer = self._client.call("POST", "/api/public/scores", score, budget=budget)
            if answer.status != 400:
                return _judged_score(answer)
        answer = self._client.call("POST", "/api/public/scores", [score], budget=budget)
        self._wants_lists = self._wants_lists or answer.status in {202, 207}
        return _judged_score(answer)

    def _comment(
        self, target: SpanRef, level: Level, verdict: bodies.Verdict, labels: Sequence[str], budget: Budget
    ) -> Outcome:
        if verdict.text is None:
            return _UNSUPPORTED
        content = f"{verdict.title}: {verdict.text}"
        if len(content) > MAX_COMMENT_CHARS:
            return _too_large(labels, MAX_COMMENT_CHARS, "characters")
        if self._project is None:
            answer = self._client.call("GET", "/api/public/projects", budget=budget)
            projects = answer.member("data")
            first = projects[0] if isinstance(projects, list) and projects else None
            project = member(first, "id")
            if not isinstance(project, str):
                return answer.outcome or _NOT_LANGFUSE
            self._project = project
        is_on_span = level == "span" and target.span_id != 0
        place = {
            "objectType": "OBSERVATION" if is_on_span else "TRACE",
            "objectId": target.span_id_hex if is_on_span else target.trace_id_hex,
        }
        answer = self._client.call("GET", f"/api/public/comments?{urlencode(place)}", budget=budget)
        if answer.status == 404:
            return _NOT_FOUND
        if answer.outcome is not None:
            return answer.outcome
        notes = [f"{one}: a comment, beside those that were there before" for one in labels]
        is_by_a_model = verdict.metadata.get("otel_metadata.source") == "llm"
        if is_by_a_model or any(not key.startswith("otel_metadata.") for key in verdict.metadata):
            notes += [NotKept(f"{one}: unsupported: a comment has no source and no metadata") for one in labels]
        there = answer.member("data")
        if isinstance(there, list) and any(member(one, "content") == content for one in there):
            return Delivered(tuple(notes))
        if not isinstance(there, list) and answer.body is not None:
            return _NOT_LANGFUSE
        body: dict[str, Json] = {"projectId": self._project, **place, "content": content}
        answer = self._client.call("POST", "/api/public/comments", body, budget=budget)
        if answer.status == 404:
            return _NOT_FOUND
        return _noted(_judged(answer, isinstance(answer.member("id"), str)), notes)


def _together(parts: Iterable[tuple[Iterable[str], Outcome]]) -> Outcome:
    """Return one outcome for a patch; its parts are sent while this iterates over them.

    An outcome that asks for another try, or a smaller one, is the outcome of the whole patch. A part that will never
    arrive becomes a note, as long as another part was delivered.
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
            notes += [NotKept(f"{label}: {outcome.error.type}: {outcome.error.message}") for label in labels]
        else:
            return outcome
    return refused if refused is not None and not is_delivered else Delivered(tuple(notes))


def _noted(outcome: Outcome, notes: Iterable[str]) -> Outcome:
    """Return an outcome, with *notes* where it is a delivery."""
    return Delivered(tuple(notes)) if isinstance(outcome, Delivered) else outcome


def _judged(answer: RestAnswer, is_right: bool) -> Outcome:
    return answer.outcome or (Delivered() if is_right else _NOT_LANGFUSE)


def _judged_score(answer: RestAnswer) -> Outcome:
    """Return the outcome of one score: 200 has its id, 202 a message, 207 the number of rejected scores."""
    if answer.outcome is None and answer.status == 207:
        rejected = answer.member("rejected")
        return _REFUSED if rejected == 1 else _judged(answer, rejected == 0)
    confirmation = answer.member("message" if answer.status == 202 else "id")
    return _judged(answer, isinstance(confirmation, str))


def _judged_event(body: Json, event_id: str) -> Outcome:
    """Return the outcome of one event from the body of a 207.

    Raises:
        _UpdatesRefusedError: The server never takes events of this type.
    """
    for one in _list(body, "successes"):
        if member(one, "id") == event_id and member(one, "status") in {200, 201}:
            return Delivered()
    for one in _list(body, "errors"):
        status = member(one, "status")
        if member(one, "id") != event_id or not isinstance(status, int):
            continue
        if status == 400 and "Event type not accepted" in str(member(one, "message")):
            raise _UpdatesRefusedError
        if status in {401, 403, 408, 429} or status // 100 == 5:
            return outcome_of(Reply(status), 0) or _NOT_LANGFUSE
        if status // 100 == 4:
            return _REFUSED
    return _NOT_LANGFUSE


def _list(body: Json, name: str) -> list[Json]:
    found = member(body, name)
    return found if isinstance(found, list) else []


def _too_large(labels: Sequence[str], limit: int, unit: str = "bytes") -> Rejected:
    return Rejected(DeliveryError("too_large", f"{', '.join(labels)}: Langfuse takes {limit:,} {unit} at once"))
