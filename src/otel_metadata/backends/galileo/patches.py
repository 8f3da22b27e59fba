"""Patches to Galileo: input, output, tags and status of a stored span or trace.

Source: Galileo API, "Update Span" and "Update Trace" (`PATCH /v2/projects/{project}/spans/{span}` and `/traces/`).

Neither has a field for metadata. A request with metadata is answered with 200, and the metadata is lost. So a field of
ours without a field of Galileo's is not sent, and a note says so. `reliable` is always true: without it Galileo answers
before it looks for the record. Tags are added and never removed; input, output and status are overwritten.

Splunk Agent Observability, Galileo's successor, has the same API (`backends.splunk_ao`).

Galileo knows a record by a UUID of version 4. The UUID does not follow from OpenTelemetry's ids, and the OTLP receiver
does not return it. So it is on the target (`SpanRef.with_backend_id("galileo", uuid)`), or a function of the user's
finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final
from urllib.parse import quote

from otel_metadata.arguments import checked
from otel_metadata.backends.galileo.dialect import uuid4
from otel_metadata.dialects.canonical import as_text
from otel_metadata.errors import ConfigurationError
from otel_metadata.exporters.notes import words_for
from otel_metadata.exporters.rest import Budget, RestAnswer, RestPatchExporter, member, not_from, path_segment
from otel_metadata.model.outcome import Delivered, DeliveryError, NotKept, Outcome, Pause, Rejected, Retry
from otel_metadata.model.span_ref import OF_TRACE, SpanRef

if TYPE_CHECKING:
    from uuid import UUID

    from otel_metadata.model.merge import FieldName, Json, Level
    from otel_metadata.model.patch import Patch

Record: TypeAlias = Literal["span", "trace"]
"""What Galileo calls the two kinds of stored records that can be changed."""

Resolve: TypeAlias = "Callable[[SpanRef], tuple[UUID | str, Record] | None]"
"""Takes a span, or a trace alone (`span_id` 0), and returns its record in Galileo; None while there is no record.

It is called on the worker's thread, for each try of a patch whose target carries no id."""

BACKEND: Final = "galileo"
"""The key under which `SpanRef.backend_ids` holds a record's UUID."""

API_KEY_HEADER: Final = "Galileo-API-Key"

MAX_TAG_CHARS: Final = 50
MAX_TAGS: Final = 50
"""Limits of one record. Source: Galileo documentation, "Tags and metadata"."""

_LEVELS: Final[tuple[Level, Level]] = ("span", "trace")
_STATUS_CODES: Final[Mapping[str, int]] = {"ok": 200, "error": 500}

_NO_FIELD: Final = NotKept("not sent: there is no field for it once a record is stored")
_TOO_LONG: Final = NotKept(f"not sent: a tag has at most {MAX_TAG_CHARS} characters")
_TOO_MANY: Final = NotKept(f"not sent: a record has at most {MAX_TAGS} tags")
_NO_NULL: Final = NotKept("not sent: this API takes a null for no change")
_AS_TEXT: Final = "sent as JSON text"
_AS_TAG: Final = "added as a tag, beside that of an earlier value"
_REFUSED: Final = NotKept("refused")
_NO_RECORD: Final = NotKept("not sent: no UUID is known for it")

_BAD_ID: Final = Rejected(
    DeliveryError("patch_failure", "the id is not a UUID of version 4 with hyphens; nothing was sent")
)
_MISSING: Final = Rejected(DeliveryError("segment_not_found", "there is no such record, or not yet"))
_NOTHING_TO_SAY: Final = Rejected(
    DeliveryError("unsupported", "of a stored record only input, output, tags and status can be changed")
)
_NOT_GALILEO: Final = not_from("this API")


@dataclass(slots=True)
class _Body:
    """The values that one request changes.

    Attributes:
        values: The new values, by Galileo's field.
        names: For each of Galileo's fields, the fields of ours that are in it.
        notes: A note on each field of ours that is changed or left out.
    """

    values: dict[str, Json] = field(default_factory=dict[str, "Json"])
    names: dict[str, list[FieldName]] = field(default_factory=dict[str, "list[FieldName]"])
    notes: dict[FieldName, str] = field(default_factory=dict["FieldName", str])

    def without(self, refused: set[str]) -> _Body:
        """Return the rest, where Galileo refuses some of its fields."""
        notes = {name: _REFUSED for one in refused for name in self.names[one]}
        values = {one: value for one, value in self.values.items() if one not in refused}
        return _Body(values, self.names, {**self.notes, **notes})


@final
class GalileoPatchExporter(RestPatchExporter):
    """Sends the fields of a patch about its span in one request, and those about its trace in another."""

    max_batch = 50

    @checked
    def __init__(
        self,
        url: str,
        *,
        api_key: str,
        project: str | None = None,
        project_id: str | None = None,
        log_stream_id: str | None = None,
        api_key_header: str = API_KEY_HEADER,
        resolve: Resolve | None = None,
        metadata_as_tags: bool = False,
        name: str = BACKEND,
        backend: str = BACKEND,
    ) -> None:
        """Connect later.

        Args:
            url: The address of the API, for example `https://api.galileo.ai`.
            api_key: The key.
            project: The name of the project; its id is looked up once.
            project_id: The project's UUID, instead of the name.
            log_stream_id: The log stream's UUID, sent with each request; None sends no log stream.
            api_key_header: The name of the header that has the key: `Splunk-AO-API-Key` for Galileo's successor,
                `X-SF-Token` in Splunk's cloud.
            resolve: Finds the record of a target that carries no id.
            metadata_as_tags: Add span and trace metadata as tags, `key:value`, as far as they fit into a tag.
            name: The name of the exporter, for people.
            backend: The key under which `SpanRef.backend_ids` holds a record's UUID.

        Raises:
            ConfigurationError: The URL or an id cannot be used, or no project is given.
        """
        self._project = project
        self._project_id = checked_uuid("project_id", project_id)
        if project is None and project_id is None:
            raise ConfigurationError("project", None, "the name of a Galileo project, or project_id=")
        super().__init__(url, headers={api_key_header: api_key}, name=name, project=project or self._project_id)
        self.found_by = frozenset({backend, backend + OF_TRACE})
        self._backend = backend
        self._unaddressed = Rejected(
            DeliveryError(
                "unsupported",
                f"no UUID is known for the target; name it with SpanRef.with_backend_id('{backend}', uuid) or "
                f"SpanRef.from_backend_id('{backend}', uuid), or give a function: resolve=",
            )
        )
        self._log_stream_id = checked_uuid("log_stream_id", log_stream_id)
        self._resolve = resolve
        self._metadata_as_tags = metadata_as_tags

    def send_one(self, patch: Patch, budget: Budget) -> Outcome:
        """Send the fields about the span, then those about the trace."""
        requests: list[tuple[Record, str, _Body]] = []
        notes: dict[FieldName, str] = {}
        refusal = _NOTHING_TO_SAY
        for level in _LEVELS:
            body = self._body(patch, level)
            notes |= body.notes
            if not body.values:
                continue
            address = self._address(patch.target, level)
            if isinstance(address, tuple):
                requests.append((*address, body))
            elif address is self._unaddressed:
                # The other level may have an id.
                refusal = address
                notes |= {name: _NO_RECORD for names in body.names.values() for name in names}
            else:
                return address
        if not requests:
            return refusal
        project = self._found_project(budget)
        if not isinstance(project, str):
            return project
        for record, identifier, body in requests:
            outcome = self._patch(f"/v2/projects/{path_segment(project)}", record, identifier, body, notes, budget)
            if outcome is not None:
                return outcome
        noted = [(words_for(name, value), notes[name]) for name, (value, _) in patch.fields.items() if name in notes]
        return Delivered(tuple(type(note)(f"{field}: {note}") for field, note in noted))

    def _address(self, target: SpanRef, level: Level) -> tuple[Record, str] | Rejected:
        """Return the record of the target's span or trace, or the reason why nothing can be sent for it."""
        ids = target.backend_ids
        if level == "trace":
            found = ids.get(self._backend + OF_TRACE) or (None if target.span_id else ids.get(self._backend))
        else:
            found = ids.get(self._backend) if target.span_id else None
        record: Record = level
        if found is None:
            if self._resolve is None or not target.trace_id:
                return self._unaddressed
            try:
                resolved = self._resolve(target if level == "span" else SpanRef(target.trace_id, 0))
                if resolved is None:
                    return _MISSING
                found, record = str(resolved[0]), resolved[1]
            except Exception as error:  # noqa: BLE001 # the user's function; the other patches go on without it
                return Rejected(DeliveryError("segment_not_found", f"resolve= raised {type(error).__name__}"))
        identifier = uuid4(found)
        if identifier is None or record not in _LEVELS:
            return _BAD_ID
        return record, identifier

    def _body(self, patch: Patch, level: Level) -> _Body:
        """Return the values for one level, and a note on each field that is changed or left out."""
        body = _Body()
        tags: dict[str, FieldName] = {}
        for name, (value, _) in sorted(patch.fields.items(), key=lambda item: (item[1][1], item[0])):
            kind = name[1]
            if name[0] != level:
                continue
            if kind == "tag" or (kind == "metadata" and self._metadata_as_tags):
                tag = name[2] if kind == "tag" else f"{name[2]}:{as_text(value)}"
                if len(tag) > MAX_TAG_CHARS:
                    body.notes[name] = _TOO_LONG
                elif len(tags) >= MAX_TAGS and tag not in tags:
                    body.notes[name] = _TOO_MANY
                else:
                    tags[tag] = name
                    if kind == "metadata":
                        body.notes[name] = _AS_TAG
            elif kind in {"input", "output"}:
                if value is None:
                    body.notes[name] = _NO_NULL
                    continue
                body.values[kind], body.names[kind] = as_text(value), [name]
                if not isinstance(value, str):
                    body.notes[name] = _AS_TEXT
            elif kind == "status" and (code := _status_code(value)) is not None:
                body.values["status_code"], body.names["status_code"] = code, [name]
                if code != value:
                    body.notes[name] = f"sent as the status code {code}"
            else:
                body.notes[name] = _NO_FIELD
        if tags:
            body.values["tags"], body.names["tags"] = list(tags), list(tags.values())
        return body

    def _patch(
        self, base: str, record: Record, identifier: str, body: _Body, notes: dict[FieldName, str], budget: Budget
    ) -> Outcome | None:
        """Change one record; return None when it was changed. A refused field does not keep the others back."""
        answer = self._call(base, record, identifier, body, budget)
        refused = _refused_fields(answer) & body.values.keys()
        if refused and refused != body.values.keys():
            body = body.without(refused)
            notes |= body.notes
            answer = self._call(base, record, identifier, body, budget)
        if _is_missing(answer):
            return _MISSING
        if answer.outcome is not None:
            return answer.outcome
        count = answer.member("records_count")
        if uuid4(answer.member(f"{record}_id")) != identifier or not isinstance(count, int):
            return _NOT_GALILEO
        return None if count else _MISSING

    def _call(self, base: str, record: Record, identifier: str, body: _Body, budget: Budget) -> RestAnswer:
        sent: dict[str, Json] = {
            f"{record}_id": identifier,
            "reliable": True,
            "logging_method": "api_direct",
            **body.values,
        }
        if self._log_stream_id is not None:
            sent["log_stream_id"] = self._log_stream_id
        return self._client.call("PATCH", f"{base}/{record}s/{path_segment(identifier)}", sent, budget=budget)

    def _found_project(self, budget: Budget) -> str | Outcome:
        """Return the project's id; asks for it once."""
        if self._project_id is not None:
            return self._project_id
        name = self._project or ""
        answer = self._client.call("GET", f"/projects?project_name={quote(name, safe='')}&type=gen_ai", budget=budget)
        if isinstance(answer.outcome, Rejected):
            # The refusal is about the destination, not about this patch, which only happens to be the first.
            return Pause(answer.outcome.error)
        if answer.outcome is not None:
            return answer.outcome
        if not isinstance(answer.body, list):
            # Galileo lists a project with all its runs.
            hint = "the answer is not a list of projects, or is too long to be read; set the project's id, not its name"
            return Retry(DeliveryError("connection_failure", hint))
        for project in answer.body:
            if member(project, "name") == name:
                self._project_id = uuid4(member(project, "id"))
        hint = "there is no project of the configured name; check it in the settings"
        return self._project_id or Pause(DeliveryError("backend_rejection", hint))


def checked_uuid(setting: str, given: str | None) -> str | None:
    """Return an id in the form that Galileo writes; None where no id is given.

    Raises:
        ConfigurationError: *given* is not a UUID of version 4.
    """
    found = uuid4(given)
    if given is not None and found is None:
        raise ConfigurationError(setting, given, "a UUID of version 4 with hyphens, as the Galileo console shows it")
    return found


def _status_code(value: Json) -> int | None:
    if isinstance(value, str):
        return _STATUS_CODES.get(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _details(answer: RestAnswer) -> list[Mapping[str, Json]]:
    """Return FastAPI's errors, one for each part of a request that it refuses."""
    detail = answer.member("detail") if answer.status == 422 else None
    return [one for one in detail if isinstance(one, dict)] if isinstance(detail, list) else []


def _refused_fields(answer: RestAnswer) -> set[str]:
    places = [one.get("loc") for one in _details(answer)]
    return {
        place[1]
        for place in places
        if isinstance(place, list) and len(place) > 1 and place[0] == "body" and isinstance(place[1], str)
    }


def _is_missing(answer: RestAnswer) -> bool:
    """Whether the record is unknown: a 404 in JSON, or a 422 that says so. A 404 as a page is about the endpoint."""
    if not isinstance(answer.body, dict) or answer.status not in {404, 422}:
        return False
    # Only Galileo's own words are searched: beside them it repeats the values that were sent.
    messages = [answer.body.get("detail"), *(one.get("msg") for one in _details(answer))]
    return answer.status == 404 or any(
        isinstance(one, str) and ("not found" in one.lower() or "not ingested" in one.lower()) for one in messages
    )
