"""The tables in ClickHouse, as SQL text: one that the OpenTelemetry Collector writes, too, and two beside it.

`otel_traces` has the columns, order and indexes that the Collector's ClickHouse exporter gives it (version 0.100 and
later, attributes as Map). Whichever comes first makes it, and both write into it.
Source: opentelemetry-collector-contrib, exporter/clickhouseexporter, "Traces" of its README.

`otel_metadata_fields` has a row for each write of a field; the engine merges the rows of a field into one. The merge
contract (`model.merge`) is a total order: the higher (nanoseconds, writer), of equal ones the greater JSON text; of a
tag the lower version. A ReplacingMergeTree cannot express it: its version must be a number (a text is refused, code
169), and of equal versions the last insert wins. `SimpleAggregateFunction(max, String)` can: `Field` is the version in
32 hex digits and then the JSON text, and the greatest `Field` wins. Text is compared by bytes, which is the order of
the digits and of code points. The digits of a tag's version are inverted, so that its lowest version is the greatest
text. Every read takes `max(Field)` of each field, so it does not matter what the engine has merged by then, and
conditions on values are only checked after that.

`otel_metadata_deleted` has the tombstones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from otel_metadata.errors import ConfigurationError

SPANS: Final = "otel_traces"
"""The span table's usual name."""

FIELDS: Final = "otel_metadata_fields"

DELETED: Final = "otel_metadata_deleted"

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)

_LOW: Final = "LowCardinality(String)"
_MAP: Final = f"Map({_LOW}, String)"

_COLUMNS: Final = {
    "Timestamp": "DateTime64(9)",
    "TraceId": "String",
    "SpanId": "String",
    "ParentSpanId": "String",
    "TraceState": "String",
    "SpanName": _LOW,
    "SpanKind": _LOW,
    "ServiceName": _LOW,
    "ResourceAttributes": _MAP,
    "ScopeName": "String",
    "ScopeVersion": "String",
    "SpanAttributes": _MAP,
    "Duration": "UInt64",
    "StatusCode": _LOW,
    "StatusMessage": "String",
}
_NESTED: Final = {
    "Events": {"Timestamp": "DateTime64(9)", "Name": _LOW, "Attributes": _MAP},
    "Links": {"TraceId": "String", "SpanId": "String", "TraceState": "String", "Attributes": _MAP},
}

SPAN_COLUMNS: Final[Mapping[str, str]] = _COLUMNS | {
    f"{name}.{part}": f"Array({kind})" for name, parts in _NESTED.items() for part, kind in parts.items()
}
"""The columns of the span table in the order in which they are written, each with its type."""

_SPAN_TABLE: Final = (
    *(f"{name} {kind} CODEC({'Delta, ' * (name == 'Timestamp')}ZSTD(1))" for name, kind in _COLUMNS.items()),
    *(
        f"{name} Nested ({', '.join(f'{part} {kind}' for part, kind in parts.items())}) CODEC(ZSTD(1))"
        for name, parts in _NESTED.items()
    ),
    "INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1",
    "INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX idx_span_attr_key mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX idx_span_attr_value mapValues(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX idx_duration Duration TYPE minmax GRANULARITY 1",
)
_SPAN_ORDER: Final = (
    "PARTITION BY toDate(Timestamp)\nORDER BY (ServiceName, SpanName, toDateTime(Timestamp))\n"
    "SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1"
)

_FIELDS_TABLE: Final = (
    "TraceId String CODEC(ZSTD(1))",
    "SpanId String CODEC(ZSTD(1))",
    "Level LowCardinality(String)",
    "Kind LowCardinality(String)",
    "Key String CODEC(ZSTD(1))",
    "Field SimpleAggregateFunction(max, String) CODEC(ZSTD(1))",
    # For people who read the table by hand: computed on reading.
    "Value String ALIAS substring(Field, 33)",
)

_DELETED_TABLE: Final = (
    "TraceId String CODEC(ZSTD(1))",
    "SpanId String CODEC(ZSTD(1))",
    "Version SimpleAggregateFunction(max, String)",
)


def create_statements(spans: str = SPANS, cluster: str | None = None) -> tuple[str, str, str]:
    """Return the SQL that makes those of the three tables that are missing.

    Args:
        spans: The span table's name, a plain word.
        cluster: Make the tables on every replica of this cluster, with replicated engines whose path and replica name
            are the server's defaults (`default_replica_path`, `default_replica_name`).
    """
    on_cluster, replicated = (f" ON CLUSTER `{cluster}`", "Replicated") if cluster else ("", "")

    def create(name: str, columns: tuple[str, ...], engine: str, order: str) -> str:
        lines = ",\n".join(f"    {column}" for column in columns)
        return f"CREATE TABLE IF NOT EXISTS `{name}`{on_cluster} (\n{lines}\n)\nENGINE = {replicated}{engine}\n{order}"

    return (
        create(spans, _SPAN_TABLE, "MergeTree", _SPAN_ORDER),
        create(FIELDS, _FIELDS_TABLE, "AggregatingMergeTree", "ORDER BY (TraceId, SpanId, Level, Kind, Key)"),
        create(DELETED, _DELETED_TABLE, "AggregatingMergeTree", "ORDER BY (TraceId, SpanId)"),
    )


def checked_name(what: str, name: str) -> str:
    """Return *name* if SQL can have it without escaping.

    Args:
        what: What it is the name of, for the message.
        name: The name in a URL.

    Raises:
        ConfigurationError: The name has other characters.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{what} of a clickhouse:// URL", name, "letters, digits, '_' and '-'")
    return name
