"""JSON requests to a vendor's own API, and the patch exporter that all vendors with such an API extend.

`exporters.http` sends one request and bounds it. This module reads and writes JSON, keeps one deadline for all requests
of an export, and stops a batch at the first answer that is about the backend rather than about one patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, final
from urllib.parse import quote

import orjson

from otel_metadata.exporters.http import MAX_BODY_BYTES, Failure, HttpClient, outcome_of
from otel_metadata.model.outcome import DeliveryError, Outcome, Pause, Retry
from otel_metadata.seams import SystemClock, bounded_millis

if TYPE_CHECKING:
    from otel_metadata.model.merge import Json
    from otel_metadata.model.patch import Patch
    from otel_metadata.seams import Clock, Convergence

OUT_OF_TIME: Final = Retry(DeliveryError("connection_failure", "the time for one export was over before its turn came"))

_JSON_TYPE: Final = {"content-type": "application/json"}
_CLOCK: Final = SystemClock()


class RestAnswer(NamedTuple):
    """The answer to one request.

    Attributes:
        status: The status code; 0 without a complete answer.
        body: The JSON of the body; None for an empty body, and for one that is not JSON.
        text: The body as text, for decisions. It never goes into a message: servers repeat values and keys.
        outcome: The outcome that `exporters.http.ANSWERS` has for this answer; None for a success.
        is_cut: Whether there was more of the body than the client reads.
    """

    status: int
    body: Json
    text: str
    outcome: Outcome | None
    is_cut: bool = False

    def member(self, name: str) -> Json:
        """Return one member of the body; None where the body has no such member, or is not an object."""
        return member(self.body, name)


@final
class Budget:
    """The rest of the time for one export."""

    def __init__(self, timeout_millis: int, clock: Clock = _CLOCK) -> None:
        """Begin now."""
        self._clock = clock
        self._until_ns = clock.monotonic_ns() + bounded_millis(timeout_millis, 10_000) * 1_000_000

    @property
    def left_millis(self) -> int:
        """Milliseconds, not below 0."""
        return max((self._until_ns - self._clock.monotonic_ns()) // 1_000_000, 0)


@final
class RestClient:
    """JSON requests to one address, one at a time."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        """Connect later.

        Args:
            url: `http` or `https`; the paths of requests are added to its own.
            headers: Sent with every request. Where keys belong: they are never shown.
            max_body_bytes: How much of an answer is read.

        Raises:
            ConfigurationError: The URL or a header cannot be used.
        """
        self._http = HttpClient(url, headers=headers, max_body_bytes=max_body_bytes)
        self.shown_url = self._http.shown_url

    def __repr__(self) -> str:
        """Return the address, without what may be secret."""
        return f"<RestClient {self.shown_url}>"

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | Sequence[Json] | bytes | None = None,
        *,
        budget: Budget,
        headers: Mapping[str, str] | None = None,
    ) -> RestAnswer:
        """Send one request, once.

        Args:
            method: `GET`, `POST`, …
            path: Begins with a slash; its variable parts went through `path_segment`.
            body: Sent as JSON; bytes as they are, with a type among the headers; None sends none.
            budget: Of the whole export.
            headers: More headers.
        """
        left = budget.left_millis
        if not left:
            return RestAnswer(0, None, "", OUT_OF_TIME)
        data = body if isinstance(body, bytes | None) else orjson.dumps(body)
        answer = self._http.request(
            method,
            path,
            body=data,
            headers={**(_JSON_TYPE if data is not None else {}), **(headers or {})},
            timeout_millis=left,
        )
        outcome = outcome_of(answer, _CLOCK.wall_ns())
        if isinstance(answer, Failure):
            return RestAnswer(0, None, "", outcome)
        text = answer.body.decode("utf-8", "replace")
        try:
            found: Json = orjson.loads(answer.body) if answer.body.strip() and not answer.is_cut else None
        except orjson.JSONDecodeError:
            found = None
            if outcome is None:
                error = DeliveryError(
                    "connection_failure",
                    f"the 2xx response is not JSON; check the endpoint (HTTP {answer.status})",
                )
                outcome = Retry(error)
        return RestAnswer(answer.status, found, text, outcome, answer.is_cut)

    def without_keys(self, text: str) -> str:
        """Return a server's text in a form that may be shown, without secrets of the client's headers."""
        return self._http.without_keys(text)

    def close(self) -> None:
        """Give the connection back, from any thread; a request that waits for its answer ends."""
        self._http.close()


def path_segment(text: str) -> str:
    """Return *text* as one segment of a path (RFC 3986, 3.3): no slash, dot segment or query comes out of it."""
    return quote(text, safe="").replace(".", "%2E")


def member(value: Json, name: str) -> Json:
    """Return one member of a JSON object; None where it has no such member, or *value* is not an object."""
    return value.get(name) if isinstance(value, dict) else None


def not_from(vendor: str) -> Retry:
    """Return the outcome of a success that has another form than the vendor's: a proxy or another product answered."""
    return Retry(
        DeliveryError("connection_failure", f"the 2xx response does not come from {vendor}; check the endpoint")
    )


class RestPatchExporter:
    """A patch exporter (`seams.PatchExporter`) for a vendor's own API; it sends one patch after the other.

    A vendor's class extends it, says `max_batch`, and writes `send_one`.

    Attributes:
        place: The project that the patches go to, where it is known; `Client` compares it with what a caller names.
    """

    max_batch: int
    grace_millis: int = 0
    reports_missing: bool = True
    convergence: Convergence = "ordered"

    def __init__(self, url: str, *, headers: Mapping[str, str] | None, name: str, project: str | None = None) -> None:
        """Connect later.

        Args:
            url: The address of the API.
            headers: Sent with every request, the key among them.
            name: The name of the exporter, for people.
            project: The project that the patches go to; None where it is not known.

        Raises:
            ConfigurationError: The URL or a header cannot be used.
        """
        self.name = name
        self.place: Mapping[str, str] = {"project": project} if project else {}
        self._client: Final = RestClient(url, headers=headers)

    def __repr__(self) -> str:
        """Return the address, without what may be secret."""
        return f"<{type(self).__name__} {self._client.shown_url}>"

    def export(self, patches: Sequence[Patch], *, timeout_millis: int) -> Sequence[Outcome]:
        """Send one patch after the other. An answer about the backend as a whole is the outcome of the rest too."""
        budget = Budget(timeout_millis)
        outcomes: list[Outcome] = []
        stop: Outcome | None = None
        for patch in patches:
            if stop is None and not budget.left_millis:
                stop = OUT_OF_TIME
            outcome = stop if stop is not None else self.send_one(patch, budget)
            if isinstance(outcome, Pause | Retry):
                stop = outcome
            outcomes.append(outcome)
        return outcomes

    def send_one(self, patch: Patch, budget: Budget) -> Outcome:
        """Send one patch. `Retry` and `Pause` mean that every other patch would get the same answer.

        Args:
            patch: The patch.
            budget: The time that is left for the whole batch.
        """
        raise NotImplementedError  # each backend has its own request

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # nothing is buffered
        """Nothing is buffered."""
        return True

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """Close the connection, from any thread; a request that waits for its answer ends."""
        self._client.close()
