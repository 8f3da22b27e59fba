"""Patches for Arize Phoenix: annotations of the span or trace, because Phoenix never changes a stored span.

A request replaces one annotation as a whole, found by (name, span, identifier). So each field is an annotation of its
own, whose identifier follows from the field's key: sending it again changes nothing, and overwrites neither another
field nor another process. One annotation with all metadata would have to be read, merged and written again. Phoenix has
no conditional write, so of two processes that do this at once, one loses its values (`docs/backends/phoenix.md` has the
measurements).

| field | annotation |
|---|---|
| metadata | `otel_metadata`, identifier and label the key, explanation the value as text, metadata `{key: value}` |
| any other but a verdict | the same as `otel_metadata.<kind>` |
| evaluation | its own name, kind, label, score, explanation and metadata |
| annotation | its own name, kind HUMAN; the annotator in the metadata and the identifier |
| annotation named `note` that has a text alone | a note |

Source: Phoenix 20.26.1, `POST /v1/{span,trace}_annotations?sync=true`, `POST /v1/{span,trace}_notes`. Without `sync`
the answer is always a success. With it, Phoenix refuses the whole request for an unknown span, and names the span.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, final

from otel_metadata.arguments import checked
from otel_metadata.dialects.canonical import as_text
from otel_metadata.exporters.notes import words_for
from otel_metadata.exporters.rest import Budget, RestAnswer, RestPatchExporter, member
from otel_metadata.model.evaluation import Annotation, Evaluation
from otel_metadata.model.merge import Json, Kind, Level, Version
from otel_metadata.model.outcome import Delivered, DeliveryError, NotKept, Outcome, Pause, Rejected, Retry

if TYPE_CHECKING:
    from otel_metadata.model.patch import Patch

ANNOTATION_NAME: Final = "otel_metadata"
"""The annotation that holds late metadata."""

_NOTE: Final = "note"
"""The name that Phoenix reserves for notes: it refuses an annotation of this name."""

_MAX_ROWS: Final = 500
"""Rows in one request: few enough for a quick answer."""

_What: TypeAlias = Literal["annotations", "notes"]

_MISSING: Final = re.compile(r"(?:Span|Trace)s? with IDs? ([0-9a-f, ]+) (?:do not exist\.|not found)")

_UNKNOWN: Final = Rejected(DeliveryError("segment_not_found", "Phoenix does not know the span or trace (yet)"))
_UNSUPPORTED: Final = Rejected(
    DeliveryError("unsupported", "the patch names no span, and nothing in it is about the trace")
)
_UNCONFIRMED: Final = Retry(
    DeliveryError("connection_failure", "the 2xx response does not confirm what was sent; check the endpoint")
)


class _Row(NamedTuple):
    """One annotation or note.

    Attributes:
        version: The version of the field.
        place: The index of its patch in the batch.
        target: The id of the span or trace, as in `body`.
        body: The JSON of the annotation or note.
    """

    version: Version
    place: int
    target: str
    body: dict[str, Json]


@final
class PhoenixPatchExporter(RestPatchExporter):
    """Upserts one annotation for each field of a patch."""

    max_batch = 200
    # Phoenix knows a span some time after it acknowledged the export, later under load; until then we try again.
    grace_millis = 1_000
    # An annotation of a span names its span id alone.
    found_by: Final = frozenset({"span_id"})

    @checked
    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        name: str = "phoenix",
        project: str | None = None,
    ) -> None:
        """Connect later.

        Args:
            url: The address of Phoenix, without `/v1`.
            headers: Headers of every request, the key among them.
            name: The name of the exporter, for people.
            project: The project of the spans; None where it is not known.

        Raises:
            ConfigurationError: The URL or a header cannot be used.
        """
        super().__init__(url, headers=headers, name=name, project=project)

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        """Send the fields of all patches together. An unknown target or a refused field keeps no other one back."""
        budget = Budget(timeout_millis)
        notes = [list[str]() for _ in patches]
        rows: defaultdict[tuple[Level, _What], list[_Row]] = defaultdict(list)
        for place, patch in enumerate(patches):
            for level, what, row in _rows(patch, place, notes[place]):
                rows[level, what].append(row)
        sent = {row.place for group in rows.values() for row in group}
        failed: dict[int, Outcome] = {place: _UNSUPPORTED for place in range(len(patches)) if place not in sent}
        stop: Outcome | None = None
        for level, what, some in _requests(rows):
            waiting = [row for row in some if row.place not in failed]
            answers = self._answers(level, what, waiting, budget) if stop is None else _all(waiting, stop)
            failed.update(answers)
            stop = stop or next((one for one in answers.values() if isinstance(one, Pause | Retry)), None)
        return [failed.get(place) or Delivered(tuple(notes[place])) for place in range(len(patches))]

    def _answers(self, level: Level, what: _What, rows: list[_Row], budget: Budget) -> dict[int, Outcome]:
        """Send rows in one request, or in as many as it takes; return the failures, by the index of the patch."""
        if not rows:
            return {}
        is_note = what == "notes"
        path = f"/v1/{level}_notes" if is_note else f"/v1/{level}_annotations?sync=true"
        data: Json = rows[0].body if is_note else [row.body for row in rows]
        answer = self._client.call("POST", path, {"data": data}, budget=budget)
        unknown = _unknown(answer)
        known = [row for row in rows if row.target not in unknown]
        if len(known) < len(rows):
            # Phoenix wrote nothing of the request.
            missing = [row for row in rows if row.target in unknown]
            return {**_all(missing, _UNKNOWN), **self._answers(level, what, known, budget)}
        if isinstance(answer.outcome, Rejected) and len(rows) > 1:
            half = len(rows) // 2
            first = self._answers(level, what, rows[:half], budget)
            return {
                **first,
                **self._answers(level, what, [row for row in rows[half:] if row.place not in first], budget),
            }
        if answer.outcome is not None:
            return _all(rows, answer.outcome)
        return {} if _confirms(answer, len(rows)) else _all(rows, _UNCONFIRMED)


def _requests(
    rows: Mapping[tuple[Level, _What], list[_Row]],
) -> Iterator[tuple[Level, _What, list[_Row]]]:
    """Yield the rows of each request, lowest version first, so that the later of two rows with one key wins."""
    for (level, what), group in rows.items():
        group.sort(key=lambda row: row.version)
        size = 1 if what == "notes" else _MAX_ROWS
        for start in range(0, len(group), size):
            yield level, what, group[start : start + size]


def _rows(patch: Patch, place: int, notes: list[str]) -> Iterator[tuple[Level, _What, _Row]]:
    """Yield the rows of a patch; *notes* gets a sentence for each field that is kept in another form, or not at all."""
    for (level, kind, key), (value, version) in sorted(patch.fields.items(), key=lambda item: item[1][1]):
        if not (patch.target.span_id if level == "span" else patch.target.trace_id):
            notes.append(NotKept(f"{words_for((level, kind, key), value)}: not kept, for the patch names no {level}"))
            continue
        target = patch.target.span_id_hex if level == "span" else patch.target.trace_id_hex
        what, body = _body(level, kind, key, value, notes)
        yield level, what, _Row(version, place, target, {f"{level}_id": target, **body})


def _body(level: Level, kind: Kind, key: str, value: Json, notes: list[str]) -> tuple[_What, dict[str, Json]]:
    shown = words_for((level, kind, key), value)
    if kind == "evaluation":
        verdict = Evaluation.from_json(key, value)
        body = _annotation(
            _free_name(verdict.name, shown, notes),
            f"{ANNOTATION_NAME}:{kind}",
            verdict.source,
            (verdict.label, verdict.score, verdict.explanation),
            verdict.metadata or {},
        )
        return "annotations", body
    if kind == "annotation":
        note = Annotation.from_json(value)
        identifier = f"{ANNOTATION_NAME}:{kind}" + (f":{note.annotator}" if note.annotator is not None else "")
        if note.name == _NOTE and (note.label, note.score) == (None, None) and (note.text or "").strip():
            if note.text != (note.text or "").strip():
                notes.append(f"{shown}: Phoenix takes off the blanks around it")
            if note.annotator is not None:
                notes.append(f"{shown}: its annotator is in the identifier of the note alone, a note has no author")
            return "notes", {"note": note.text, "identifier": identifier}
        about: dict[str, Json] = {} if note.annotator is None else {"annotator": note.annotator}
        parts = (note.label, note.score, note.text)
        return "annotations", _annotation(_free_name(note.name, shown, notes), identifier, "human", parts, about)
    name = ANNOTATION_NAME if kind == "metadata" else f"{ANNOTATION_NAME}.{kind}"
    notes.append(f"{shown}: kept as an annotation of the {level} ({name}); Phoenix does not change what it has stored")
    word = key or kind
    return "annotations", _annotation(name, word, "code", (word, None, as_text(value)), {word: value})


def _annotation(
    name: str,
    identifier: str,
    source: str,
    parts: tuple[str | None, float | None, str | None],
    metadata: Mapping[str, Json],
) -> dict[str, Json]:
    label, score, explanation = parts
    return {
        "name": name,
        "identifier": identifier,
        "annotator_kind": source.upper(),
        "result": {"label": label, "score": score, "explanation": explanation},
        "metadata": dict(metadata),
    }


def _free_name(name: str, shown: str, notes: list[str]) -> str:
    if name != _NOTE:
        return name
    free = f"{ANNOTATION_NAME}.{_NOTE}"
    notes.append(f"{shown}: kept as the annotation {free}; Phoenix keeps the name for texts by people")
    return free


def _unknown(answer: RestAnswer) -> set[str]:
    """Return the ids that a 404 names as unknown; an empty set where the 404 is about something else."""
    match = _MISSING.fullmatch(answer.text.strip()) if answer.status == 404 else None
    return set(match[1].split(", ")) if match is not None else set()


def _confirms(answer: RestAnswer, count: int) -> bool:
    """Whether a success has an id for each row that was sent."""
    data = answer.member("data")
    written = data if isinstance(data, list) else [data]
    return len(written) == count and all(member(one, "id") for one in written)


def _all(rows: Sequence[_Row], outcome: Outcome) -> dict[int, Outcome]:
    return dict.fromkeys((row.place for row in rows), outcome)
