"""The tables in ClickHouse, as SQL text: one that the OpenTelemetry Collector writes, too, and three beside it.

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

Spaces at the end of a `Field` tell its route: none for an unknown one, one for the last of `ROUTES`, and so on. JSON
may end with spaces, so programs that know no routes read the field as before. A text that goes on with spaces is
greater than one that ends, and less than one that goes on with JSON, so of equal values the earliest route wins. The
names of writers are rows of the same table, with neither trace nor span, and the kind `WRITER_KIND`. So no table that
an earlier version made has to change.

`otel_metadata_history` has every `Field` that was ever inserted: a materialized view copies each insert, and equal ones
become one. Rows leave it by a TTL, from their arrival on. A TTL from the time in a version was rejected: old values
that an import brings would leave at once.

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

HISTORY: Final = "otel_metadata_history"

HISTORY_VIEW: Final = "otel_metadata_history_view"

ROW_KIND: Final = "row"
"""The kind, in the table of fields, of the version of the row that counts."""

WRITER_KIND: Final = "writer"
"""The kind, in the table of fields, of the name of a writer. Its key is the writer in 16 hex digits."""

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

# Not only the field, as in the table of fields: here each value has a row.
_HISTORY_TABLE: Final = (
    "TraceId String CODEC(ZSTD(1))",
    "SpanId String CODEC(ZSTD(1))",
    "Level LowCardinality(String)",
    "Kind LowCardinality(String)",
    "Key String CODEC(ZSTD(1))",
    "Field String CODEC(ZSTD(1))",
    "Arrived DateTime DEFAULT now()",
)
# Values may be long, and the primary key is held in memory.
_HISTORY_ORDER: Final = (
    "PARTITION BY toYYYYMM(Arrived)\nPRIMARY KEY (TraceId, SpanId, Level, Kind, Key)\n"
    "ORDER BY (TraceId, SpanId, Level, Kind, Key, Field)\nTTL Arrived + INTERVAL 90 DAY\n"
    "SETTINGS ttl_only_drop_parts = 1"
)
_HISTORY_OF_FIELDS: Final = (
    f"SELECT TraceId, SpanId, Level, Kind, Key, Field FROM `{FIELDS}` WHERE Kind NOT IN ('{ROW_KIND}', '{WRITER_KIND}')"
)

COPY_TO_HISTORY: Final = f"INSERT INTO `{HISTORY}` (TraceId, SpanId, Level, Kind, Key, Field) {_HISTORY_OF_FIELDS}"
"""SQL that copies the values of a table of fields which was there before its history."""

_DELETED_TABLE: Final = (
    "TraceId String CODEC(ZSTD(1))",
    "SpanId String CODEC(ZSTD(1))",
    "Version SimpleAggregateFunction(max, String)",
)


def create_statements(spans: str = SPANS, cluster: str | None = None) -> dict[str, str]:
    """Return the SQL that makes each of the tables and views, by its name.

    Args:
        spans: The span table's name, a plain word.
        cluster: Make the tables on every replica of this cluster, with replicated engines whose path and replica name
            are the server's defaults (`default_replica_path`, `default_replica_name`).
    """
    on_cluster, replicated = (f" ON CLUSTER `{cluster}`", "Replicated") if cluster else ("", "")

    def create(name: str, columns: tuple[str, ...], engine: str, order: str) -> str:
        lines = ",\n".join(f"    {column}" for column in columns)
        return f"CREATE TABLE IF NOT EXISTS `{name}`{on_cluster} (\n{lines}\n)\nENGINE = {replicated}{engine}\n{order}"

    view = (
        f"CREATE MATERIALIZED VIEW IF NOT EXISTS `{HISTORY_VIEW}`{on_cluster} TO `{HISTORY}`\nAS {_HISTORY_OF_FIELDS}"
    )
    return {
        spans: create(spans, _SPAN_TABLE, "MergeTree", _SPAN_ORDER),
        FIELDS: create(FIELDS, _FIELDS_TABLE, "AggregatingMergeTree", "ORDER BY (TraceId, SpanId, Level, Kind, Key)"),
        DELETED: create(DELETED, _DELETED_TABLE, "AggregatingMergeTree", "ORDER BY (TraceId, SpanId)"),
        HISTORY: create(HISTORY, _HISTORY_TABLE, "ReplacingMergeTree", _HISTORY_ORDER),
        HISTORY_VIEW: view,
    }


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
