"""Updates for a server of ours: each field with its version and author, by `POST /api/v1/spans:batch`.

The server merges by version, so an update that is sent again changes nothing. It answers each update by itself. An
update of a span that it does not have yet waits there, unless the update does not name the trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast, final, get_args

from otel_metadata.arguments import checked
from otel_metadata.dialects.canonical import names_of
from otel_metadata.exporters.rest import Budget, RestAnswer, RestPatchExporter, member, not_from
from otel_metadata.model.outcome import Delivered, DeliveryError, ErrorType, Outcome, Pause, Rejected, Retry

if TYPE_CHECKING:
    from otel_metadata.model.merge import Fields, Json
    from otel_metadata.model.patch import Patch
    from otel_metadata.seams import Convergence

BATCH: Final = "/api/v1/spans:batch"

SERVER: Final = "a server of otel-metadata"

_ERROR_TYPES: Final = frozenset(get_args(ErrorType))


@final
class ServePatchExporter(RestPatchExporter):
    """Sends updates in batches, and returns the server's answer for each."""

    max_batch = 200
    reports_missing = False
    convergence: Convergence = "versioned"
    # The server looks up the trace of a span that it has.
    found_by: Final = frozenset({"span_id"})

    @checked
    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, name: str = "serve") -> None:
        """Connect later.

        Args:
            url: The address of the server, without `/api`.
            headers: Headers of every request, the token among them.
            name: The name of the exporter, for people.

        Raises:
            ConfigurationError: The URL or a header cannot be used.
        """
        super().__init__(url, headers=headers, name=name)

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        """Send all patches in one request, or in smaller ones if the server refuses it as a whole."""
        return self._outcomes(patches, Budget(timeout_millis)) if patches else []

    def _outcomes(self, patches: Sequence[Patch], budget: Budget) -> list[Outcome]:
        updates = [
            update_of(
                patch.target.trace_id_hex if patch.target.trace_id else None,
                patch.target.span_id_hex if patch.target.span_id else "",
                patch.fields,
            )
            for patch in patches
        ]
        answer = self._client.call("POST", BATCH, body_of(updates, (one.fields for one in patches)), budget=budget)
        is_about_one = isinstance(answer.outcome, Rejected) and answer.outcome.error.type != "too_large"
        if len(patches) > 1 and (is_about_one or answer.is_cut):
            half = len(patches) // 2
            first = self._outcomes(patches[:half], budget)
            stop = next((one for one in first if isinstance(one, Pause | Retry)), None)
            rest = patches[half:]
            return [*first, *([stop] * len(rest) if stop is not None else self._outcomes(rest, budget))]
        if answer.outcome is not None:
            return [answer.outcome] * len(patches)
        return outcomes_of(answer, len(patches))


def update_of(trace_id: str | None, span_id: str, fields: Fields) -> dict[str, Json]:
    """Return one update for the body of a batch."""
    return {
        "trace_id": trace_id,
        "span_id": span_id,
        "fields": [
            {"level": level, "kind": kind, "key": key, "value": value, "time_ns": f"{ns}", "writer": f"{writer:016x}"}
            for (level, kind, key), (value, (ns, writer)) in fields.items()
        ],
    }


def body_of(updates: Sequence[Any], fields: Iterable[Fields], route: str = "late") -> dict[str, Any]:
    """Return the body of a batch.

    Args:
        updates: Made by `update_of`.
        fields: All fields in them.
        route: How they reach the store.
    """
    authors: dict[str, str] = {}
    for one in fields:
        authors |= names_of(one)
    return {"updates": updates, "authors": authors, "route": route}


def outcomes_of(answer: RestAnswer, count: int) -> list[Outcome]:
    """Return the outcome of each of *count* updates, as the success of a batch reports them."""
    found = answer.member("outcomes")
    if not isinstance(found, list) or len(found) != count:
        return [not_from(SERVER)] * count
    return [_outcome(one) for one in found]


def _outcome(found: Json) -> Outcome:
    status, reason = member(found, "status"), member(found, "reason")
    if status == "updated" or status == "pending":  # noqa: PLR1714 # another server may answer a list
        return Delivered()
    if status != "failed":
        return not_from(SERVER)
    # The server's message may repeat a value.
    known = cast("ErrorType", reason) if isinstance(reason, str) and reason in _ERROR_TYPES else "patch_failure"
    return Rejected(DeliveryError(known, "the server refused the update"))
