"""The demo: a small LLM application whose spans get metadata while they run, after their end, and after their export.

Only the model is a stub, on loopback. The `openai` client, its instrumentor, the store, and the second process, which
knows only a `traceparent`, are real.

The demo checks what it shows: it fails when a value read back differs from the merge contract.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import openai
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from otel_metadata.cli.demo_late import REVIEWER
from otel_metadata.cli.demo_model import demo_model
from otel_metadata.cli.demo_store import demo_store
from otel_metadata.cli.shown import trace_trees
from otel_metadata.cli.shown_history import history_table
from otel_metadata.client import Client
from otel_metadata.foreign_text import visible
from otel_metadata.live.capture_spans import capture_spans
from otel_metadata.live.current import (
    current_span_ref,
    score_span,
    update_current_span,
    update_current_trace,
    update_span,
)
from otel_metadata.live.observe import observe
from otel_metadata.live.opened_spans import start_span
from otel_metadata.live.using import using_metadata
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.receipt import Receipt
from otel_metadata.model.record import SpanRecord, ValueRecord
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.pipeline import configure, flush, shutdown, stats

_STYLES = {"live": "green", "in_flight": "yellow", "late": "cyan", "dropped": "red"}


_ANOTHER_PROCESS = "late, another process"

# The route that a receipt must name at each moment.
_ROUTES = {"while it runs": "live", "after its end": "in_flight", "after its export": "late", _ANOTHER_PROCESS: "late"}


class _Shown(NamedTuple):
    """One update: a row of the first table."""

    moment: str
    span: str
    call: str
    receipt: str


def run(keep: str = "") -> int:
    """Run the demo and return the exit code: 0 when every value read back follows the merge contract.

    Args:
        keep: A file for the store, kept afterwards; "" for a temporary one.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    with demo_store(keep) as path:
        store = f"sqlite:///{path}"
        console.print("\n[bold]otel-metadata demo[/]: one question to an LLM application, traced by OpenTelemetry.\n")
        application = _Application(store)
        updates = application.serve()
        with Client(store) as client:
            records = client.spans.list()
            answer = next((record for record in records if record.name == "answer"), None)
            thumbs = client.spans.history(answer.span_id, "metadata.thumbs") if answer is not None else []
        _print_updates(console, updates)
        console.print("[bold]The trace, as read back from the store[/]")
        for tree in trace_trees(records):
            console.print(tree)
        console.print()
        statistics = stats().destinations["sqlite"]
        wrong = _check(records) + _check_history(thumbs, AUTHORS.own and AUTHORS.own[1])
        wrong += [
            f"the receipt of {update.call!r}, {update.moment}: {update.receipt}; expected {_ROUTES[update.moment]}"
            for update in updates
            if update.receipt != _ROUTES[update.moment]
        ]
        if not application.has_arrived or not statistics.is_balanced or statistics.delivered != statistics.accepted:
            wrong.append(f"not everything arrived: {statistics}")
        console.print(
            f"{statistics.accepted} updates in this process: "
            f"{statistics.delivered} delivered, {statistics.waiting} waiting, "
            f"{sum(statistics.lost.values())} lost; {len(records)} spans.\n"
        )
        if answer is not None and thumbs:
            what, end_ns = f"span {answer.span_id} answer", answer.span.end_ns
            console.print("[bold]When each value of thumbs came, from whom, and what it replaced[/]")
            console.print(history_table(thumbs, what=what, end_ns=end_ns, options=console.options))
            console.print()
        if wrong:
            for line in wrong:
                console.print(f"[red]wrong:[/] {escape(visible(line))}")
            return 1
        console.print("[green]Every value is as the merge contract says.[/]")
        if keep:
            console.print(f"The spans are in {escape(visible(str(path)))}.")
        return 0


class _Application:
    """A chat application with two functions and one `with` span, and the updates that come later."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._shown: list[_Shown] = []
        self._moment = "while it runs"
        self.has_arrived = True

    def serve(self) -> list[_Shown]:
        provider = TracerProvider(resource=Resource.create({"service.name": "demo"}))
        configure(self._store, tracer_provider=provider)
        instrumentor = OpenAIInstrumentor()
        instrumentor.instrument(tracer_provider=provider)
        try:
            with demo_model() as url, openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
                self._client = client
                with using_metadata({"tenant": "acme"}, session_id="s-1"):
                    reference, plain, streamed = self._answer("Why is the sky blue?")
        finally:
            instrumentor.uninstrument()
        self._moment = "after its end"
        self._in_flight(reference, plain, streamed)
        self.has_arrived = flush()
        self._moment = "after its export"
        self._late(reference)
        self.has_arrived = flush() and self.has_arrived
        shutdown()
        return self._shown

    def _answer(self, question: str) -> tuple[SpanRef, Any, Any]:
        @observe(name="answer", as_type="chain")
        def answer(question: str) -> str:
            self._tell(
                "answer",
                "metadata step=1, status='started'",
                update_current_span(metadata={"step": 1, "status": "started"}),
            )
            with start_span("retrieve", as_type="retriever", input=question) as span:
                receipt = span.update(
                    metadata={"hits": 3, "index": {"name": "physics", "shards": [1, 2]}}, tags=["search"]
                )
                self._tell("retrieve", "metadata hits=3, index={…}; tag search", receipt)
            with capture_spans() as captured:
                reply = self._client.chat.completions.create(
                    model="demo-model", messages=[{"role": "user", "content": question}]
                )
            found.append(captured.llm)
            text = reply.choices[0].message.content or ""
            with capture_spans() as captured:
                headline = "".join(headlines(text))
            found.append(captured.llm)
            self._tell(
                "answer", "metadata step=2, error=None", update_current_span(metadata={"step": 2, "error": None})
            )
            self._tell(
                "answer (trace)",
                "metadata source='api'; user u-1",
                update_current_trace(metadata={"source": "api"}, user_id="u-1"),
            )
            references.append(current_span_ref())
            return f"{headline}: {text}"

        @observe(name="headlines", as_type="chain")
        def headlines(text: str) -> Iterator[str]:
            stream = self._client.chat.completions.create(
                model="demo-model", messages=[{"role": "user", "content": f"A headline for: {text}"}], stream=True
            )
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

        found: list[Any] = []
        references: list[SpanRef] = []
        answer(question)
        return references[0], found[0], found[1]

    def _in_flight(self, reference: SpanRef, plain: Any, streamed: Any) -> None:
        """Update spans that have ended and wait to be exported: the updates leave with them."""
        self._tell("answer", "metadata thumbs='up'", update_span(reference, metadata={"thumbs": "up"}))
        self._tell("LLM call", "metadata cached=False", update_span(plain, metadata={"cached": False}))
        self._tell(
            "LLM call, streamed", "metadata chunks='all read'", update_span(streamed, metadata={"chunks": "all read"})
        )
        self._tell(
            "answer",
            "evaluation Correctness='unsure'",
            score_span(reference, "Correctness", label="unsure", score=0.5, source="llm"),
        )

    def _late(self, reference: SpanRef) -> None:
        """Update a stored span, from another process that knows only its `traceparent`."""
        completed = subprocess.run(
            [sys.executable, "-m", "otel_metadata.cli.demo_late", self._store, reference.to_traceparent()],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        for line in completed.stdout.splitlines():
            span, call, route = line.split("\t")
            self._shown.append(_Shown(_ANOTHER_PROCESS, span, call, route))
        self._tell("answer", "metadata status='reviewed'", update_span(reference, metadata={"status": "reviewed"}))

    def _tell(self, span: str, call: str, receipt: Receipt) -> None:
        self._shown.append(_Shown(self._moment, span, call, receipt.route))


def _print_updates(console: Console, updates: list[_Shown]) -> None:
    table = Table(title="Each update and its receipt", title_justify="left", title_style="bold")
    for column in ("when", "span", "update", "receipt"):
        table.add_column(column)
    for update in updates:
        table.add_row(
            update.moment, update.span, escape(update.call), Text(update.receipt, style=_STYLES[update.receipt])
        )
    console.print(table)
    console.print()


def _check_history(thumbs: Sequence[ValueRecord], author: str | None) -> list[str]:
    """Return a sentence if the history differs from what was done: up in flight, then down by another process."""
    found = [(one.value, one.route, one.author, one.is_current) for one in thumbs]
    wanted = [("down", "late", REVIEWER, True), ("up", "in_flight", author, False)]
    return [] if found == wanted else [f"the history of thumbs: {found}; expected {wanted}"]


def _check(records: Sequence[SpanRecord]) -> list[str]:
    """Return one sentence for each value that differs from the merge contract."""
    by_name: dict[str, list[SpanRecord]] = {}
    for record in records:
        by_name.setdefault(record.name, []).append(record)
    expected: dict[str, list[dict[str, Any]]] = {
        "answer": [{"tenant": "acme", "step": 2, "status": "reviewed", "error": None, "thumbs": "down"}],
        "retrieve": [{"tenant": "acme", "hits": 3, "index": {"name": "physics", "shards": [1, 2]}}],
        "headlines": [{"tenant": "acme"}],
        "ChatCompletion": [{"tenant": "acme", "cached": False}, {"tenant": "acme", "chunks": "all read"}],
    }
    wrong: list[str] = []
    for name, wanted in expected.items():
        found = [dict(record.metadata) for record in sorted(by_name.get(name, []), key=lambda one: one.span.start_ns)]
        if found != wanted:
            wrong.append(f"metadata of {name}: {found}; expected {wanted}")
    if len({record.trace_id for record in records}) != 1:
        wrong.append("the spans are not in one trace")
    answer = next(iter(by_name.get("answer", [])), None)
    if answer is None:
        return [*wrong, "no span is named answer"]
    verdict = answer.evaluations.get("Correctness")
    facts: dict[str, tuple[object, object]] = {
        "trace metadata": (dict(answer.trace_metadata), {"source": "api"}),
        "user": (answer.user_id, "u-1"),
        "session": (answer.session_id, "s-1"),
        "evaluation": (verdict and (verdict.label, verdict.score, verdict.source), ("correct", 1.0, "human")),
        "annotations": (
            [(note.name, note.label, note.annotator) for note in answer.annotations],
            [("tone", "friendly", "ada")],
        ),
        "input": (answer.input, {"question": "Why is the sky blue?"}),
        "tags of retrieve": ([record.tags for record in by_name.get("retrieve", [])], [("search",)]),
    }
    wrong.extend(
        f"{name}: {found!r}; expected {wanted!r}" for name, (found, wanted) in facts.items() if found != wanted
    )
    return wrong
