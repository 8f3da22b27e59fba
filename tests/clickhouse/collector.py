"""Rows as the OpenTelemetry Collector's ClickHouse exporter writes them: all that is in a map is text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.clickhouse.engine import Engine
from tests.store.contract import END_NS, START_NS, TRACE

from otel_metadata.store.clickhouse.schema import create_statements


def make_tables(engine: Engine, database: str) -> None:
    """Make the span table alone, as a Collector does at its start."""
    engine.run(create_statements()["otel_traces"].replace("`otel_traces`", f"{database}.otel_traces"))


def text(value: Any) -> str:
    """Return an attribute as the Collector's `AsString` does."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def row(span_id: int = 1, attributes: Mapping[str, Any] | None = None, **columns: Any) -> dict[str, Any]:
    """Return a row; columns that are not given have what a plain span has."""
    return {
        "Timestamp": f"{START_NS // 10**9}.{START_NS % 10**9:09}",
        "TraceId": f"{TRACE:032x}",
        "SpanId": f"{span_id:016x}",
        "ParentSpanId": "",
        "TraceState": "",
        "SpanName": "work",
        "SpanKind": "Internal",
        "ServiceName": "shop",
        "ResourceAttributes": {"service.name": "shop", "process.pid": "7"},
        "ScopeName": "scope",
        "ScopeVersion": "1.2",
        "SpanAttributes": {name: text(value) for name, value in (attributes or {}).items()},
        "Duration": END_NS - START_NS,
        "StatusCode": "Unset",
        "StatusMessage": "",
        **columns,
    }


def write(engine: Engine, database: str, *rows: Mapping[str, Any]) -> None:
    """Insert rows past our client."""
    lines = "\n".join(json.dumps(one) for one in rows)
    engine.run(f"INSERT INTO {database}.otel_traces FORMAT JSONEachRow\n{lines}")
