"""What the application of `otel-metadata demo --serve` does: a support assistant, a nightly digest, and their feedback.

Everything comes from the number of a trace and its start, so two runs at one time make the same. Times may be past or
future: whoever stores the changes decides when.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias, final

from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.merge import Fields, Json, Kind, json_text
from otel_metadata.model.record import StoredSpan

_MS: Final = 1_000_000
_SECOND: Final = 1_000 * _MS
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR

_SHOP, _DIGEST, _JUDGE, _ADA, _BEN, _SITE = range(0xDE30_0001, 0xDE30_0007)
_AUTHORS: Final = {
    _SHOP: "support-assistant",
    _DIGEST: "ticket-digest",
    _JUDGE: "quality-judge",
    _ADA: "page:ada",
    _BEN: "page:ben",
    _SITE: "shop-site",
}

# Question, answer, tool, plan.
_TALKS: Final = (
    ("What is the status of order 1042?", "Order 1042 left our warehouse this morning.", "lookup_order"),
    ("Cancel my subscription", "Your subscription ends on the last day of this month.", "cancel_subscription"),
    ("Which plan has single sign-on?", "Single sign-on is part of the Enterprise plan.", "search_docs"),
    ("Why was I billed twice in November?", "You see an authorisation; only one payment is taken.", "lookup_invoice"),
    ("How do I export my data as Parquet?", "Open Settings, then Data, and choose Parquet.", "search_docs"),
    ("My parcel arrived damaged", "I am sorry. A replacement is on its way to you.", "create_return"),
)
_MODELS: Final = (("gpt-5", 1.25, 10.0), ("claude-sonnet-4-5", 3.0, 15.0), ("gpt-5-mini", 0.25, 2.0))
_PLANS: Final = ("free", "team", "enterprise")
_USERS: Final = (*range(1, 13), 7, 7, 7)  # one asks often

_TRACES_BEFORE: Final = 320
_TRACE_EVERY_NS: Final = 4 * _SECOND


@final
class Change(NamedTuple):
    """Something that happens to the store.

    Attributes:
        time_ns: When it happens, in wall nanoseconds.
        trace_id: 32 hex digits.
        span_id: 16 hex digits; "" for the trace.
        span: The span that is stored; None if only fields are set.
        fields: What is set.
    """

    time_ns: int
    trace_id: str
    span_id: str
    span: StoredSpan | None
    fields: Fields


_Values: TypeAlias = "dict[str, Json]"


def changes(now_ns: int) -> Iterator[Change]:
    """Yield what happens, in order and without end: of the last seven days first, then what is to come.

    Args:
        now_ns: What was before is the past; from then on a trace starts every few seconds, and feedback comes soon.
    """
    for writer, name in _AUTHORS.items():
        AUTHORS.add(writer, name)
    waiting: list[Change] = []
    for number, start_ns in _starts(now_ns):
        while waiting and waiting[0].time_ns <= start_ns:
            yield heapq.heappop(waiting)
        of_trace = _digest if number % 40 == 11 else _support
        for change in of_trace(_Trace(number, start_ns, is_past=start_ns < now_ns)):
            heapq.heappush(waiting, change)


def _starts(now_ns: int) -> Iterator[tuple[int, int]]:
    past = random.Random("starts")
    # More of them lately, so that each window of the page has some.
    before = sorted((int(7 * _DAY * past.random() ** 2.2) + 30 * _SECOND for _ in range(_TRACES_BEFORE)), reverse=True)
    for number, age_ns in enumerate(before):
        yield number, now_ns - age_ns
    for number in range(1_000_000):
        yield _TRACES_BEFORE + number, now_ns + number * _TRACE_EVERY_NS


@final
class _Trace:
    """One trace in the making."""

    def __init__(self, number: int, start_ns: int, *, is_past: bool) -> None:
        self.random = random.Random(number)
        self.number = number
        self.start_ns = start_ns
        self.is_past = is_past
        self.trace_id = f"{self.random.getrandbits(128) | 1 << 127:032x}"
        self.project = ""
        self.writer = 0

    def new_id(self) -> str:
        return f"{self.random.getrandbits(64) | 1 << 63:016x}"

    def millis(self, least: float, most: float) -> int:
        """Return a time between two numbers of milliseconds, in nanoseconds; long ones are rare."""
        return int((least + (most - least) * self.random.random() ** 3) * _MS)

    def span(
        self,
        span_id: str,
        parent_id: str | None,
        name: str,
        start_ns: int,
        end_ns: int,
        kind: str,
        *,
        otel_kind: str = "INTERNAL",
        error: str | None = None,
        attributes: _Values | None = None,
        events: tuple[_Values, ...] = (),
        metadata: _Values | None = None,
        in_flight: _Values | None = None,
        contents: Mapping[Kind, Json] | None = None,
    ) -> Change:
        """Return the change that stores a span at its end.

        Args:
            span_id: 16 hex digits.
            parent_id: 16 hex digits, or None for the root.
            name: Its name.
            start_ns: Wall nanoseconds.
            end_ns: Wall nanoseconds.
            kind: In OpenInference's words; "" for none.
            otel_kind: In OpenTelemetry's words.
            error: What went wrong.
            attributes: Plain attributes.
            events: Its events.
            metadata: Set soon after its start.
            in_flight: Metadata that was set between its end and its export.
            contents: Fields without a key, such as `input`.
        """
        soon = start_ns + (end_ns - start_ns) // 8
        fields: Fields = {
            **{("span", "metadata", key): (value, (soon, self.writer)) for key, value in (metadata or {}).items()},
            **{("span", kind, ""): (value, (soon, self.writer)) for kind, value in (contents or {}).items()},
            **{
                ("span", "metadata", key): (value, (end_ns + 2 * _MS, self.writer))
                for key, value in (in_flight or {}).items()
            },
        }
        span = StoredSpan(
            trace_id=self.trace_id,
            span_id=span_id,
            parent_id=parent_id,
            trace_state="",
            name=name,
            kind=otel_kind,
            start_ns=start_ns,
            end_ns=end_ns,
            status_code="ERROR" if error else "UNSET",
            status_message=error,
            attributes={**({"openinference.span.kind": kind} if kind else {}), **(attributes or {})},
            events=events,
            links=(),
            resource={"service.name": self.project, "service.version": "2026.11.3"},
            scope_name="otel_metadata.demo",
            scope_version=None,
        )
        return Change(end_ns + 5 * _MS, self.trace_id, span_id, span, fields)

    def later(self, at_ns: int, span_id: str, writer: int, *set_fields: tuple[Kind, str, Json]) -> Change:
        """Return the change that sets fields of a stored span, each by its kind and key."""
        fields: Fields = {("span", kind, key): (value, (at_ns, writer)) for kind, key, value in set_fields}
        return Change(at_ns, self.trace_id, span_id, None, fields)

    def chat(self, parent_id: str, start_ns: int, question: str, answer: str, *, is_streamed: bool) -> _Chat:
        """Return a call of a model, and when it ended."""
        chosen = self.random
        model, input_price, output_price = chosen.choice(_MODELS)
        tokens_in, tokens_out = chosen.randrange(400, 2_400), chosen.randrange(30, 420)
        cost = round((tokens_in * input_price + tokens_out * output_price) / 1e6, 6)
        error, end_ns = None, start_ns + self.millis(500, 4_200)
        luck = chosen.random()
        if luck < 0.015:
            error, end_ns = "APITimeoutError: no answer within 20 s", start_ns + 20 * _SECOND + self.millis(1, 900)
        elif luck < 0.03:
            error, end_ns = "RateLimitError: 429, too many requests", start_ns + self.millis(60, 400)
        attributes: _Values = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model}
        metadata: _Values = {"prompt_version": "v12" if self.number % 3 else "v13"}
        events: tuple[_Values, ...] = ()
        if error is None:
            attributes |= {
                "gen_ai.usage.input_tokens": tokens_in,
                "gen_ai.usage.output_tokens": tokens_out,
                "gen_ai.response.finish_reasons": ["stop"],
            }
            metadata["cost_usd"] = cost
            if is_streamed:
                first_ns = start_ns + (end_ns - start_ns) // 5
                events = ({"name": "first token", "time_ns": first_ns, "attributes": {"index": 0}},)
                metadata["first_token_ms"] = (first_ns - start_ns) // _MS
        else:
            attributes["error.type"] = error.partition(":")[0]
        span_id = self.new_id()
        change = self.span(
            span_id,
            parent_id,
            f"chat {model}",
            start_ns,
            end_ns,
            "LLM",
            otel_kind="CLIENT",
            error=error,
            attributes=attributes,
            events=events,
            metadata=metadata,
            in_flight={"stream": "read to the end"} if is_streamed and error is None else None,
            contents={"input": [{"role": "user", "content": question}], "output": None if error else answer},
        )
        return _Chat(change, span_id, end_ns, error)


@final
class _Chat(NamedTuple):
    change: Change
    span_id: str
    end_ns: int
    error: str | None


def _support(trace: _Trace) -> Iterator[Change]:
    """A question to the support assistant, and what people and judges say of the answer."""
    trace.project, trace.writer = "support-assistant", _SHOP
    chosen = trace.random
    question, answer, tool = chosen.choice(_TALKS)
    root, agent, retrieve = trace.new_id(), trace.new_id(), trace.new_id()
    user = f"u-{chosen.choice(_USERS)}"
    at = trace.start_ns + trace.millis(20, 60)
    agent_ns = at
    found_ns = at + 10 * _MS + trace.millis(90, 700)
    yield trace.span(
        trace.new_id(), retrieve, "embed query", at + 12 * _MS, at + 40 * _MS, "EMBEDDING", otel_kind="CLIENT"
    )
    yield trace.span(
        trace.new_id(), retrieve, "search index", at + 45 * _MS, found_ns - 4 * _MS, "", otel_kind="CLIENT"
    )
    yield trace.span(
        retrieve,
        agent,
        "retrieve documents",
        at + 10 * _MS,
        found_ns,
        "RETRIEVER",
        metadata={"hits": chosen.randrange(0, 9), "index": {"name": "help-centre", "shards": [1, 2]}},
    )
    plan = trace.chat(agent, found_ns + 5 * _MS, question, f"I need {tool}.", is_streamed=False)
    yield plan.change
    error, at = plan.error, plan.end_ns
    tool_id = trace.new_id()
    if error is None:
        end_ns = at + trace.millis(30, 900)
        error = "OrderNotFound: order 1042 does not exist" if chosen.random() < 0.04 else None
        yield trace.span(
            tool_id,
            agent,
            f"tool {tool}",
            at + 4 * _MS,
            end_ns,
            "TOOL",
            error=error,
            metadata={"attempt": 1},
            contents={"input": {"question": question}, "output": None if error else {"status": "found"}},
        )
        at = end_ns
    chat = plan
    if error is None:
        chat = trace.chat(agent, at + 6 * _MS, question, answer, is_streamed=True)
        yield chat.change
        error, at = chat.error, chat.end_ns
    yield trace.span(agent, root, "agent support", agent_ns, at + 4 * _MS, "AGENT", error=error, metadata={"steps": 2})
    end_ns = at + trace.millis(8, 40)
    yield trace.span(
        root,
        None,
        "POST /answer",
        trace.start_ns,
        end_ns,
        "CHAIN",
        otel_kind="SERVER",
        error=error,
        attributes={"http.request.method": "POST", "http.response.status_code": 500 if error else 200},
        metadata={
            "plan": _PLANS[chosen.randrange(3)],
            "region": chosen.choice(("eu", "us")),
            "release": "2026.11.3" if trace.number % 4 else "2026.11.2",
        },
        contents={
            "user_id": user,
            "session_id": f"s-{user}-{trace.number // 30}",
            "input": {"question": question},
            "output": None if error else answer,
        },
    )
    if error is None:
        yield from _feedback(trace, root, chat.span_id, end_ns)


def _feedback(trace: _Trace, root: str, chat: str, end_ns: int) -> Iterator[Change]:
    chosen = trace.random
    unit = _MINUTE if trace.is_past else _SECOND  # whoever watches waits for seconds only
    is_bad = chosen.random() < 0.3
    at = end_ns + unit * chosen.randrange(2, 7)
    if chosen.random() < 0.6:
        verdict: _Values = {
            "source": "llm",
            "label": "incorrect" if is_bad else "correct",
            "score": round(chosen.uniform(0.05, 0.45) if is_bad else chosen.uniform(0.7, 1.0), 2),
            "explanation": "It does not answer what was asked." if is_bad else "It answers what was asked.",
        }
        yield trace.later(at, root, _JUDGE, ("evaluation", "Correctness", verdict))
        tone: _Values = {"source": "llm", "label": chosen.choice(("friendly", "friendly", "curt"))}
        yield trace.later(at, chat, _JUDGE, ("evaluation", "Tone", tone))
    if chosen.random() < 0.45:
        at += unit * chosen.randrange(1, 9)
        thumbs: Json = "down" if is_bad else "up"
        first = "up" if is_bad and chosen.random() < 0.5 else thumbs
        yield trace.later(at, root, _SITE, ("metadata", "thumbs", first))
        if first != thumbs:
            who, name = (_ADA, "ada") if trace.number % 2 else (_BEN, "ben")
            at += unit * chosen.randrange(3, 15) * (8 if trace.is_past else 1)
            note: _Values = {"name": "quality", "label": "wrong", "text": "She called again.", "annotator": name}
            key = json_text(["quality", name])
            yield trace.later(at, root, who, ("metadata", "thumbs", thumbs), ("annotation", key, note))


def _digest(trace: _Trace) -> Iterator[Change]:
    """A batch that sums tickets up."""
    trace.project, trace.writer = "ticket-digest", _DIGEST
    root, at = trace.new_id(), trace.start_ns + 30 * _MS
    failed = 0
    for ticket in range(1, trace.random.randrange(8, 16)):
        one = trace.new_id()
        chat = trace.chat(one, at + 8 * _MS, f"Sum up ticket {ticket}", f"Ticket {ticket}: solved.", is_streamed=False)
        failed += chat.error is not None
        yield chat.change
        yield trace.span(
            one,
            root,
            f"sum up ticket {ticket}",
            at,
            chat.end_ns + 3 * _MS,
            "CHAIN",
            error=chat.error,
            metadata={"ticket": ticket},
        )
        at = chat.end_ns + 10 * _MS
    yield trace.span(
        root,
        None,
        "digest tickets",
        trace.start_ns,
        at + 50 * _MS,
        "CHAIN",
        metadata={"plan": "internal", "tickets_failed": failed},
    )
