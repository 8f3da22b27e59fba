"""JSON requests to a backend's own API, and what each answer means: what the vendors' exporters have in common.

`exporters.http` sends and bounds; this module reads JSON, keeps one deadline for all requests of an export, and stops a
batch at the first answer that is about the backend rather than about a patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final
from urllib.parse import quote

import orjson

from otel_metadata.exporters.http import Failure, HttpClient, outcome_of
from otel_metadata.model.outcome import DeliveryError, Outcome, Pause, Retry
from otel_metadata.seams import SystemClock, bounded_millis

if TYPE_CHECKING:
    from otel_metadata.model.merge import Json
    from otel_metadata.seams import Clock

__all__ = ["OUT_OF_TIME", "Budget", "RestAnswer", "RestClient", "one_by_one", "path_segment"]

T = TypeVar("T")

OUT_OF_TIME: Final = Retry(DeliveryError("connection_failure", "the time for one export was over before its turn came"))

_JSON_TYPE: Final = {"content-type": "application/json"}
_CLOCK: Final = SystemClock()


class RestAnswer(NamedTuple):
    """What came back.

    Attributes:
        status: The status code; 0 when there was no whole answer.
        body: The JSON of the body; None where there is none, or it is no JSON.
        text: The body as text, for decisions. Never for a message: a server repeats values and keys.
        outcome: What `exporters.http.ANSWERS` says of it; None for a success.
    """

    status: int
    body: Json
    text: str
    outcome: Outcome | None


@final
class Budget:
    """What is left of the time for one export."""

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

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, clock: Clock = _CLOCK) -> None:
        """Connect later.

        Args:
            url: `http` or `https`; the paths of requests are added to its own.
            headers: Sent with every request. Where keys belong: they are never shown.
            clock: For a date in `Retry-After`.

        Raises:
            ConfigurationError: The URL or a header cannot be used.
        """
        self._http = HttpClient(url, headers=headers)
        self._clock = clock
        self.shown_url = self._http.shown_url

    def __repr__(self) -> str:
        """Return the address, without what may be secret."""
        return f"<RestClient {self.shown_url}>"

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Json] | Sequence[Json] | None = None,
        *,
        budget: Budget,
        headers: Mapping[str, str] | None = None,
    ) -> RestAnswer:
        """Send one request, once.

        Args:
            method: `GET`, `POST`, …
            path: Begins with a slash; what varies in it went through `path_segment`.
            body: Sent as JSON; None sends none.
            budget: Of the whole export.
            headers: More headers.
        """
        left = budget.left_millis
        if not left:
            return RestAnswer(0, None, "", OUT_OF_TIME)
        data = orjson.dumps(body) if body is not None else None
        answer = self._http.request(
            method,
            path,
            body=data,
            headers={**(_JSON_TYPE if data is not None else {}), **(headers or {})},
            timeout_millis=left,
        )
        outcome = outcome_of(answer, self._clock.wall_ns())
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
                    f"the answer to a success is no JSON; check the endpoint (HTTP {answer.status})",
                )
                outcome = Retry(error)
        return RestAnswer(answer.status, found, text, outcome)

    def close(self) -> None:
        """Give the connection back, from any thread; a request that waits for its answer ends."""
        self._http.close()


def path_segment(text: str) -> str:
    """Return *text* as one segment of a path (RFC 3986, 3.3): no slash, dot segment or query comes out of it."""
    return quote(text, safe="").replace(".", "%2E")


def one_by_one(items: Iterable[T], send: Callable[[T], Outcome], budget: Budget) -> list[Outcome]:
    """Send each by itself; once an answer is about the backend as a whole, the rest get it without being sent.

    Args:
        items: What is sent, in order.
        send: Sends one. It answers `Retry` or `Pause` only where another item would fare alike.
        budget: When it is used up, the rest is to be tried again.
    """
    outcomes: list[Outcome] = []
    stop: Outcome | None = None
    for item in items:
        if stop is None and not budget.left_millis:
            stop = OUT_OF_TIME
        outcome = stop if stop is not None else send(item)
        if isinstance(outcome, Pause | Retry):
            stop = outcome
        outcomes.append(outcome)
    return outcomes
