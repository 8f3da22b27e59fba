"""A store as an application with an agent fills it: calls, tools, errors, late feedback, values of all kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.merge import Fields
from otel_metadata.seams import SpanStore

MS = 1_000_000
SECOND = 1_000 * MS
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

SHOP, WORKER, ADA = 11, 12, 13
SCRIPT = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"

QUESTIONS = (
    "What is the status of order 1042?",
    "Cancel my subscription",
    "Which plan has SSO?",
    "Why was I billed twice in November?",
    "How do I export my data as Parquet?",
)


class SpanWithFields(ReadableSpan):
    """An ended span with its exact fields beside it, as a store is given it."""

    fields: Fields = {}  # noqa: RUF012 # each span has its own


def trace_id(number: int) -> int:
    return (0xA11CE << 100) + number


def span_id(trace: int, number: int) -> int:
    return (trace << 16) + number


def name_authors() -> None:
    """Name the writers of the spans."""
    AUTHORS.add(SHOP, "shop")
    AUTHORS.add(WORKER, "quality-worker")
    AUTHORS.add(ADA, "page:ada")


def fill(store: SpanStore, now_ns: int, traces: int = 24) -> None:
    """Store some traces that ended in the last hours, and what came late on some of them."""
    name_authors()
    for number in range(1, traces + 1):
        start = now_ns - 2 * HOUR - 20 * MINUTE - number * number * MINUTE - number * 7 * SECOND
        store.write(list(_answer(number, start)))
        _feedback(store, number, start)


def large(store: SpanStore, now_ns: int, spans: int, number: int = 900) -> str:
    """Store one trace of many spans; return its id."""
    name_authors()
    start = now_ns - 2 * MINUTE
    made = [
        _span(
            number,
            index,
            None if index == 1 else index // 6 + 1 if index < 7 else index // 6,
            f"{('agent', 'retrieve', 'chat gpt-5', 'tool search', 'parse')[index % 5]} {index}"
            if index > 1
            else "batch",
            start + index * 3 * MS,
            (spans - index) * 3 * MS + MS if index == 1 else (index % 40 + 1) * 5 * MS,
            failed=index % 997 == 5,
        )
        for index in range(1, spans + 1)
    ]
    for first in range(0, spans, 2_000):
        store.write(made[first : first + 2_000])
    return f"{trace_id(number):032x}"


def many(store: SpanStore, now_ns: int, spans: int) -> None:
    """Store traces of eight spans over the last six days, each with a plan, a user and the number of its trace."""
    name_authors()
    step = 6 * 24 * HOUR // (spans // 8)
    portion: list[SpanWithFields] = []
    for number in range(spans // 8):
        start = now_ns - number * step - MINUTE
        set_at = (start + MS, SHOP)
        fields: Fields = {
            ("span", "metadata", "plan"): (("free", "team", "enterprise")[number % 3], set_at),
            ("span", "metadata", "batch"): (number // 100, set_at),
            ("span", "user_id", ""): (f"u-{number % 5_000}", set_at),
        }
        portion += [
            _span(
                10_000 + number,
                index,
                None if index == 1 else 1,
                "POST /answer" if index == 1 else f"step {index}",
                start + index * MS,
                (9 - index) * 100 * MS,
                failed=number % 50 == 0 and index == 3,
                fields=fields if index == 1 else None,
            )
            for index in range(1, 9)
        ]
        if len(portion) >= 2_000:
            store.write(portion)
            portion = []
    store.write(portion)


def _answer(number: int, start: int) -> Iterator[SpanWithFields]:
    """The spans of one answer, each with what was set while it ran."""
    failed = number % 4 == 3
    question = QUESTIONS[number % len(QUESTIONS)]
    plan = ("free", "team", "enterprise")[number % 3]

    def live(offset_ms: float, **values: Any) -> Fields:
        return {
            ("span", "metadata", key): (value, (start + int(offset_ms * MS), SHOP)) for key, value in values.items()
        }

    chat = "chat gpt-5" if number % 2 else "chat claude-4"
    yield _span(
        number,
        1,
        None,
        "POST /answer",
        start,
        (2_480 + number * 157 % 1_900) * MS,
        kind=SpanKind.SERVER,
        failed=failed,
        fields={
            **live(12, plan=plan, region=("eu", "us")[number % 2], release="2026.11.3"),
            ("trace", "metadata", "experiment"): ("short-answers", (start + 20 * MS, SHOP)),
            ("span", "user_id", ""): (f"u-{number % 9}", (start + 9 * MS, SHOP)),
            ("span", "input", ""): ({"question": question}, (start + 5 * MS, SHOP)),
            ("span", "output", ""): (
                None if failed else "Your order has left our warehouse.",
                (start + 2_470 * MS, SHOP),
            ),
            ("span", "tag", "vip"): (True, (start + 15 * MS, SHOP)),
        },
        attributes={"http.request.method": "POST", "http.route": "/answer", "http.response.status_code": 200},
    )
    yield _span(number, 2, 1, "agent support", start + 40 * MS, 2_380 * MS, failed=failed, fields=live(60, steps=3))
    yield _span(number, 3, 2, "retrieve documents", start + 60 * MS, 310 * MS, kind=SpanKind.CLIENT)
    yield _span(number, 4, 3, "embed query", start + 70 * MS, 48 * MS, kind=SpanKind.CLIENT)
    yield _span(number, 5, 3, "search index", start + 130 * MS, 220 * MS, kind=SpanKind.CLIENT)
    yield _span(
        number,
        6,
        2,
        chat,
        start + 400 * MS,
        1_240 * MS,
        kind=SpanKind.CLIENT,
        fields={
            **live(420, temperature=0.2, prompt_version="v12", note=SCRIPT if number == 1 else "as usual"),
            ("span", "metadata", "tokens"): ({"input": 812, "output": 164}, (start + 1_700 * MS, SHOP)),
            ("span", "input", ""): ([{"role": "user", "content": question}], (start + 401 * MS, SHOP)),
            ("span", "output", ""): ("Let me look that up.", (start + 1_630 * MS, SHOP)),
        },
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": chat.removeprefix("chat "),
            "gen_ai.usage.input_tokens": 812,
            "gen_ai.usage.output_tokens": 164,
            "openinference.span.kind": "LLM",
        },
        events=[
            Event("gen_ai.choice", {"finish_reason": "tool_calls"}, start + 1_600 * MS),
        ],
    )
    yield _span(
        number,
        7,
        2,
        "tool lookup_order",
        start + 1_660 * MS,
        90 * MS,
        failed=failed,
        message="OrderNotFound: order 1042 does not exist" if failed else None,
    )
    yield _span(
        number, 8, 2, chat, start + 1_770 * MS, 610 * MS, kind=SpanKind.CLIENT, fields=live(1_790, temperature=0.2)
    )
    yield _span(number, 9, 1, "publish answer", start + 2_400 * MS, 60 * MS, kind=SpanKind.PRODUCER)


def _feedback(store: SpanStore, number: int, start: int) -> None:
    """What came when the trace was stored: feedback, a verdict, a correction."""
    root = (f"{trace_id(number):032x}", f"{span_id(number, 1):016x}")
    chat = (root[0], f"{span_id(number, 6):016x}")
    later = start + 90 * SECOND
    patches: list[tuple[str, str, Fields]] = []
    if number % 3 == 1:
        patches.append((*root, {("span", "metadata", "thumbs"): ("up", (later, SHOP))}))
        patches.append((*root, {("span", "metadata", "thumbs"): ("down", (start + 8_040 * SECOND, ADA))}))
    if number % 2 == 0:
        good = number % 4 != 2
        verdict = {
            "source": "llm",
            "label": "correct" if good else "incorrect",
            "score": 0.92 if good else 0.31,
            "explanation": "The answer names the order and its state." if good else "The answer names no order.",
        }
        patches.append((*root, {("span", "evaluation", "Correctness"): (verdict, (later, WORKER))}))
        patches.append((*chat, {("span", "metadata", "cost_usd"): (0.0041, (later, WORKER))}))
    for patch in patches:
        store.patch_rows([patch], route="late")


def _span(
    trace: int,
    number: int,
    parent: int | None,
    name: str,
    start: int,
    length: int,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    failed: bool = False,
    message: str | None = None,
    fields: Fields | None = None,
    attributes: Mapping[str, Any] | None = None,
    events: list[Event] | None = None,
) -> SpanWithFields:
    def context(of: int) -> SpanContext:
        return SpanContext(trace_id(trace), span_id(trace, of), is_remote=False, trace_flags=TraceFlags(1))

    span = SpanWithFields(
        name,
        context(number),
        None if parent is None else context(parent),
        Resource({"service.name": "shop", "service.version": "2026.11.3"}),
        attributes,
        events or [],
        kind=kind,
        status=Status(StatusCode.ERROR, message or "the tool failed") if failed else Status(StatusCode.UNSET),
        start_time=start,
        end_time=start + length,
    )
    span.fields = fields or {}
    return span
