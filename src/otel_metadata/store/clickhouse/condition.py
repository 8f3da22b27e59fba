"""A question about stored spans as SQL of ClickHouse; every value is bound.

The SQL decides as `model.record.assemble` does in Python: which field covers which column, which of two levels counts,
and what is shown as text. A value whose type differs from the literal's reads as NULL. So ClickHouse's own three-valued
logic is that of `model.condition`.

A value has up to three sources. Each gives a text as described in `clickhouse.schema`, 32 hex digits of a version and
then JSON, or "" for nothing, with the route as spaces at its end. The greatest text wins:

- `sf`, `tf`: the table of fields, a row for each span or trace and a column for each field that is asked for;
- the row itself, if a Collector wrote it: its canonical attributes, each with the version that
  `otel_metadata.versions` names, or else that of the span's end;
- `tm`: the same from all rows of the trace, for values of the trace.

`cr` is the version of the row that counts. `sl` and `tl` are the numbers of late values, and `w0`, `w1`, … the names of
writers, for each author that is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from otel_metadata.dialects.canonical import JSON, JSON_NAMES, VERSIONS, read, tags_attribute
from otel_metadata.model.condition import (
    ORIGINS,
    And,
    Between,
    Compare,
    Condition,
    HasTag,
    In,
    IsNull,
    Like,
    Not,
    Or,
    Subject,
)
from otel_metadata.model.evaluation import annotation_key
from otel_metadata.model.instrumented import (
    ASKS_A_MODEL,
    CONTENTS,
    INPUT,
    KINDS,
    MODEL,
    OUTPUT,
    SPAN_KIND,
    Spelling,
)
from otel_metadata.model.merge import Level, json_text
from otel_metadata.model.record import PROJECT_NAMES, ROUTES, SpanQuery
from otel_metadata.store.clickhouse.rows import EXACT, INVERTED, NUMBER, ROW, TEXT_PARTS, is_text
from otel_metadata.store.clickhouse.schema import DELETED, FIELDS, ROW_KIND, WRITER_KIND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_metadata.model.record import Position

TRACE_REACH_NS: Final = 86_400_000_000_000
"""How far from a span, in nanoseconds, the other rows of its trace are looked for: one day."""


_ALL: Final = SpanQuery(limit=None)

_OUTLINE: Final = (
    Subject("span", "span_id"),
    Subject("span", "parent_id"),
    Subject("span", "name"),
    Subject("span", "kind"),
    Subject("span", "start_time"),
    Subject("span", "end_time"),
    Subject("span", "status"),
)


class Sql(NamedTuple):
    """SQL, and its values by the names of its parameters."""

    sql: str
    values: dict[str, Any]


TOMBSTONES: Final = f"(SELECT TraceId, SpanId, max(Version) AS Version FROM `{DELETED}` GROUP BY TraceId, SpanId)"
"""SQL of the tombstones, one for each span or trace."""

_TOMBSTONES_OF_TRACES: Final = (
    f"(SELECT TraceId, max(Version) AS Version FROM `{DELETED}` WHERE SpanId = '' GROUP BY TraceId)"
)

# A user's profile may make joins give NULL for missing rows (`join_use_nulls`).
_TOMBSTONE: Final = "ifNull(g.Version, '')"

_NULL: Final = "CAST(NULL, 'Nullable(UInt8)')"
_ATTRIBUTES: Final = "t.SpanAttributes"
_RESOURCE: Final = "t.ResourceAttributes"
_IS_OURS: Final = f"mapContains({_ATTRIBUTES}, '{ROW}')"
_START: Final = "toUnixTimestamp64Nano(t.Timestamp)"
_LATENCY: Final = "reinterpretAsInt64(toUInt64(t.Duration))"
END: Final = f"({_START} + {_LATENCY})"
"""The end of the row `t`, in nanoseconds."""
_KIND: Final = "replaceOne(upper(t.SpanKind), 'SPAN_KIND_', '')"
_STATUS: Final = "replaceOne(upper(t.StatusCode), 'STATUS_CODE_', '')"

_OWN_STATUS: Final = f"if({_STATUS} IN ('', 'UNSPECIFIED'), 'UNSET', {_STATUS})"
_OWN: Final = {"name": "toString(t.SpanName)", "status": f"lower({_OWN_STATUS})", "status_message": "t.StatusMessage"}
"""The kinds of fields that lie over a column of the row, each with the value of that column."""

_TEXT_COLUMNS: Final = {
    "trace_id": "t.TraceId",
    "span_id": "t.SpanId",
    "parent_id": "nullIf(t.ParentSpanId, '')",
    "kind": f"if({_KIND} IN ('', 'UNSPECIFIED'), 'INTERNAL', {_KIND})",
    "scope_name": "t.ScopeName",
    "scope_version": "nullIf(t.ScopeVersion, '')",
}
_NUMBER_COLUMNS: Final = {"start_time": _START, "end_time": END, "latency_ms": f"({_LATENCY} / 1000000.)"}

_PARTS_OF: Final = {
    "evaluation": ("label", "score", "explanation", "source", "metadata"),
    "annotation": ("label", "score", "text", "annotator"),
}
_STEM: Final = {"evaluation": "eval", "annotation": "annotation"}


_END_KEY: Final = f"concat(leftPad(lower(hex(toUInt64({END}))), 16, '0'), '0000000000000000')"
"""The version, as 32 hex digits, of values in the row `t` that have no version of their own."""

_LIVE_SPACES, _IN_FLIGHT_SPACES, _LATE_SPACES = (
    " " * (len(ROUTES) - ROUTES.index(route)) for route in ("live", "in_flight", "late")
)

NAMES_OF_WRITERS: Final = (
    f"(SELECT Key AS Writer, max(Field) AS Name FROM `{FIELDS}` WHERE TraceId = '' AND Kind = '{WRITER_KIND}' "
    "GROUP BY Key)"
)
"""SQL of the names of writers, each with the writer in 16 hex digits."""

LIVE: Final = f"{_END_KEY} > {_TOMBSTONE}"
"""Whether the row `t` is newer than the tombstone `g` of its span, if it has one."""

_ONE_BY_ONE: Final = f"JSONExtractArrayRaw({_ATTRIBUTES}['{VERSIONS}'])"
_NAME: Final = "concat(JSONExtractString(one, 1), ' ', JSONExtractString(one, 2), ' ', JSONExtractString(one, 3))"
_DIGITS: Final = "concat(leftPad(lower(hex(JSONExtractUInt(one, 4))), 16, '0'), JSONExtractString(one, 5))"
_NAMED_VERSIONS: Final = (
    f"mapFromArrays(arrayMap(one -> {_NAME}, {_ONE_BY_ONE}), arrayMap(one -> {_DIGITS}, {_ONE_BY_ONE}))"
)


def _with_versions(of: Level) -> str:
    """Return entries of a WITH that read the versions of rows: those that they name, and that of their end."""
    return f"{_NAMED_VERSIONS} AS versions_of_{of}, {_END_KEY} AS end_of_{of}"


class _Value(NamedTuple):
    """SQL of a value. json: JSON text, "" for nothing. text, number: the value, or NULL."""

    form: Literal["json", "text", "number"]
    sql: str


def select_keys(
    query: SpanQuery, spans: str, limit: int | None = None, until: Position | None = None, skip: int = 0
) -> Sql:
    """Return the SELECT of the rows that answer *query*, newest start first.

    A row is the start in nanoseconds, trace id, span id, and the version of its writing, or "" for a Collector's row.
    For a span that was written more than once, outdated rows may be among them.

    Args:
        query: The question. Its `limit` is ignored.
        spans: The span table.
        limit: The most rows; None for all.
        until: No row behind this position; None for all.
        skip: The rows that are left out before; 0 if there is no *limit*.
    """
    columns = f"{_START} AS start, t.TraceId AS trace_id, t.SpanId AS span_id, {_ATTRIBUTES}['{ROW}'] AS written"
    order = "ORDER BY t.Timestamp DESC, t.TraceId DESC, t.SpanId DESC"
    return _Select(query, spans, until).select(
        columns, order if limit is None else f"{order} LIMIT {skip:d}, {limit:d}"
    )


def select_count(query: SpanQuery, spans: str, limit: int | None, until: Position | None) -> Sql:
    """Return the SELECT of the number of spans that answer *query*, counted up to *limit*."""
    order = "" if limit is None else f"LIMIT {limit:d}"
    found = _Select(query, spans, until, is_current=True).select("DISTINCT t.TraceId, t.SpanId", order)
    return Sql(f"SELECT count() FROM ({found.sql})", found.values)


def select_bars(query: SpanQuery, spans: str, start_ns: int, width_ns: int, until: Position | None) -> Sql:
    """Return the SELECT of the numbers of spans that answer *query*, in parts of *width_ns* from *start_ns* on."""
    part = f"intDiv({_START} - ({start_ns:d}), {width_ns:d}) AS part"
    return _Select(query, spans, until, is_current=True).select(
        f"{part}, uniqExact(t.TraceId, t.SpanId)", "GROUP BY part"
    )


def select_outline(query: SpanQuery, spans: str) -> Sql:
    """Return the SELECT of what an outline shows of the spans that answer *query*, oldest start first.

    A row has the members of `OutlineSpan`, the status as JSON.
    """
    one = _Select(query, spans, is_current=True)
    columns = ", ".join(map(one.read, _OUTLINE))
    return one.select(columns, f"ORDER BY {_START}, t.SpanId")


def select_traces(trace_ids: Sequence[str], spans: str) -> Sql:
    """Return the SELECT of the traces *trace_ids*.

    A row is the trace id, the numbers of spans and of errors, and the first root as [start, span id].
    """
    one = _Select(_ALL, spans, is_current=True, trace_ids=trace_ids)
    is_error = f"{one.read(Subject('span', 'status'))} = '{json_text('ERROR')}'"
    return one.select(
        f"t.TraceId, uniqExact(t.SpanId), uniqExactIf(t.SpanId, {is_error}), "
        f"minIf(({_START}, t.SpanId), t.ParentSpanId = '')",
        "GROUP BY t.TraceId",
    )


def select_late(trace_ids: Sequence[str], spans: str) -> Sql:
    """Return the SELECT of the numbers of late values of traces and their spans: rows of trace id and number."""
    return _Select(_ALL, spans, trace_ids=trace_ids).late()


def select_names(kind: str, level: Level, prefix: str, limit: int) -> Sql:
    """Return the SELECT of the keys in use that begin with *prefix*, in order."""
    one = _Select(_ALL, "")
    which = f"f.Kind = '{kind}' AND startsWith(f.Key, {one.bind(prefix, 'String')})"
    sql = f"SELECT DISTINCT f.Key {one.from_fields(level, which, is_asked=False)} ORDER BY f.Key LIMIT {limit:d}"
    return Sql(sql, one.values)


class _Select:
    """One SELECT while it is composed."""

    def __init__(
        self,
        query: SpanQuery,
        spans: str,
        until: Position | None = None,
        *,
        is_current: bool = False,
        trace_ids: Sequence[str] | None = None,
    ) -> None:
        self._query = query
        self._spans = f"`{spans}` AS t"
        self._until = until
        self._is_current = is_current  # of a span that was written more than once, only the last row
        self._trace_ids = trace_ids
        self.values: dict[str, Any] = {}
        self._named: dict[str, str] = {}  # SQL by the alias under which WITH has it
        self._fields: dict[Level, dict[str, str]] = {"span": {}, "trace": {}}  # alias by aggregate
        self._fields_wanted: dict[Level, list[str]] = {"span": [], "trace": []}
        self._rows: dict[tuple[str, str], str] = {}  # alias by text of the rows of a trace, and by aggregate
        self._late: set[Level] = set()  # the levels whose late values are counted
        self._writers: list[str] = []  # SQL of the writers whose names are asked for

    def select(self, columns: str, rest: str) -> Sql:
        """Return the SELECT of *columns* of the rows that answer the question.

        Args:
            columns: Of the rows `t`.
            rest: What follows the WHERE.
        """
        wanted, project = self._query.condition, self._query.project
        where = [*self._window(), LIVE]
        if project is not None:
            where.append(f"{self._project()} = {self.bind(project, 'String')}")
        if wanted is not None:
            where.append(self._holds(wanted))
        if self._is_current:
            where.append(f"{_ATTRIBUTES}['{ROW}'] = ifNull(cr.Written, '')")
        named = ", ".join([_with_versions("span"), *(f"{sql} AS {alias}" for alias, sql in self._named.items())])
        sql = (
            f"WITH {named} SELECT {columns} FROM {self._spans} "
            f"LEFT ANY JOIN {TOMBSTONES} AS g ON t.TraceId = g.TraceId AND t.SpanId = g.SpanId"
            f"{self._joins()} WHERE {' AND '.join(f'({one})' for one in where)} {rest}"
        )
        return Sql(sql, self.values)

    def read(self, subject: Subject) -> str:
        """Return SQL of a value of the row `t`."""
        return self._read(subject).sql

    def late(self) -> Sql:
        """Return the SELECT of the numbers of late values."""
        every = " UNION ALL ".join(f"SELECT TraceId, Late FROM {self._of_late(level)}" for level in ("span", "trace"))
        return Sql(f"SELECT TraceId, sum(Late) FROM ({every}) GROUP BY TraceId", self.values)

    def bind(self, value: object, kind: str) -> str:
        """Return the placeholder of a value."""
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f"{{{name}:{kind}}}"

    def _name(self, sql: str) -> str:
        """Return a short alias for SQL that is used more than once."""
        alias = f"j{len(self._named)}"
        self._named[alias] = sql
        return alias

    def _window(self, reach_ns: int = 0) -> list[str]:
        """Return the conditions on the rows `t` that need only their own columns."""
        query, where = self._query, []

        def time(at_ns: int) -> str:
            return f"fromUnixTimestamp64Nano({self.bind(at_ns, 'Int64')})"

        if self._trace_ids is not None:
            where.append(f"t.TraceId IN {self.bind(list(self._trace_ids), 'Array(String)')}")
        if query.trace_id is not None:
            where.append(f"t.TraceId = {self.bind(query.trace_id, 'String')}")
        if query.start_ns is not None:
            where.append(f"t.Timestamp >= {time(query.start_ns - reach_ns)}")
        if query.end_ns is not None:
            where.append(f"t.Timestamp < {time(query.end_ns + reach_ns)}")
        if query.after is not None:
            start_ns, *ids = query.after
            at = time(start_ns + reach_ns)
            where.append(f"t.Timestamp <= {at}")  # a condition of its own, so that partitions are skipped
            if not reach_ns:
                trace_id, span_id = (self.bind(one, "String") for one in ids)
                where.append(f"t.Timestamp < {at} OR (t.TraceId, t.SpanId) < ({trace_id}, {span_id})")
        if self._until is not None:
            start_ns, *ids = self._until
            at = time(start_ns - reach_ns)
            where.append(f"t.Timestamp >= {at}")
            if not reach_ns:
                trace_id, span_id = (self.bind(one, "String") for one in ids)
                where.append(f"t.Timestamp > {at} OR (t.TraceId, t.SpanId) >= ({trace_id}, {span_id})")
        if query.at_ns is not None and not reach_ns:
            where.append(f"t.Timestamp <= {time(query.at_ns)}")
        if query.span_id is not None and not reach_ns:
            where.append(f"t.SpanId = {self.bind(query.span_id, 'String')}")
        return where

    def _asked_about(self, columns: str) -> str:
        where = self._window()
        return f"(SELECT {columns} FROM {self._spans}" + (
            f" WHERE {' AND '.join(f'({one})' for one in where)})" if where else ")"
        )

    def _joins(self) -> str:
        sql = ""
        if self._is_current:
            sql += (
                f" LEFT ANY JOIN (SELECT TraceId, SpanId, substring(max(Field), 1, 32) AS Written FROM `{FIELDS}` "
                f"WHERE Kind = '{ROW_KIND}' AND (TraceId, SpanId) IN {self._asked_about('t.TraceId, t.SpanId')} "
                "GROUP BY TraceId, SpanId) AS cr ON t.TraceId = cr.TraceId AND t.SpanId = cr.SpanId"
            )
        if self._fields["span"]:
            sql += f" LEFT ANY JOIN {self._of_fields('span')} AS sf ON t.TraceId = sf.TraceId AND t.SpanId = sf.SpanId"
        if self._fields["trace"]:
            sql += f" LEFT ANY JOIN {self._of_fields('trace')} AS tf ON t.TraceId = tf.TraceId"
        if self._rows:
            sql += f" LEFT ANY JOIN {self._of_rows()} AS tm ON t.TraceId = tm.TraceId"
        if "span" in self._late:
            sql += f" LEFT ANY JOIN {self._of_late('span')} AS sl ON t.TraceId = sl.TraceId AND t.SpanId = sl.SpanId"
        if "trace" in self._late:
            sql += f" LEFT ANY JOIN {self._of_late('trace')} AS tl ON t.TraceId = tl.TraceId"
        for number, writer in enumerate(self._writers):
            sql += f" LEFT ANY JOIN {NAMES_OF_WRITERS} AS w{number} ON {writer} = w{number}.Writer"
        return sql

    def _of_fields(self, level: Level) -> str:
        columns = ", ".join(f"{sql} AS {alias}" for sql, alias in self._fields[level].items())
        ids = _ids(level)
        named = ", ".join(f"{one} AS {one[2:]}" for one in ids.split(", "))
        wanted = " OR ".join(self._fields_wanted[level])
        return f"(SELECT {named}, {columns} {self.from_fields(level, wanted)} GROUP BY {ids})"

    def _of_late(self, level: Level) -> str:
        ids, every = _ids(level), self.from_fields(level, f"f.Kind != '{ROW_KIND}'")
        fields = (
            f"(SELECT f.TraceId AS TraceId, f.SpanId AS SpanId, max(f.Field) AS Winning {every} "
            "GROUP BY f.TraceId, f.SpanId, f.Kind, f.Key)"
        )
        is_late = f"length(Winning) - length(trimRight(Winning)) = {len(_LATE_SPACES)}"
        named = ids.replace("f.", "")
        return f"(SELECT {named}, countIf({is_late}) AS Late FROM {fields} GROUP BY {named})"

    def from_fields(self, level: Level, wanted: str, *, is_asked: bool = True) -> str:
        """Return FROM and WHERE of the fields `f`.

        Args:
            level: Those of spans, or of traces.
            wanted: SQL of those that are wanted.
            is_asked: Only those of spans or traces that may be asked for.
        """
        # The digits of a tag's version are inverted (see `clickhouse.schema`).
        digits, inverted = (f"'{one}'" for one in INVERTED)
        version = "substring(f.Field, 1, 32)"
        is_newer = (
            f"{_TOMBSTONE} = '' OR if(f.Kind = 'tag', {version} < translate({_TOMBSTONE}, {digits}, {inverted}), "
            f"{version} > {_TOMBSTONE})"
        )
        ids = _ids(level)
        of_asked = f" AND ({ids}) IN {self._asked_about(ids.replace('f.', 't.'))}" if is_asked else ""
        return (
            f"FROM `{FIELDS}` AS f "
            f"LEFT ANY JOIN {TOMBSTONES} AS g ON f.TraceId = g.TraceId AND f.SpanId = g.SpanId "
            f"WHERE f.Level = '{level}' AND f.SpanId {'!=' if level == 'span' else '='} '' "
            f"AND ({wanted}) AND ({is_newer}){of_asked}"
        )

    def _of_rows(self) -> str:
        # The version of a missing value is "", which is not newer.
        columns = ", ".join(
            f"{aggregate}If({sql}, substring({sql}, 1, 32) > ifNull(h.Version, '')) AS {alias}"
            for (sql, aggregate), alias in self._rows.items()
        )
        asked = self._asked_about("t.TraceId")
        where = [*self._window(TRACE_REACH_NS), f"NOT {_IS_OURS}", LIVE, f"t.TraceId IN {asked}"]
        return (
            f"(WITH {_with_versions('trace')} SELECT t.TraceId AS TraceId, {columns} FROM {self._spans} "
            f"LEFT ANY JOIN {TOMBSTONES} AS g ON t.TraceId = g.TraceId AND t.SpanId = g.SpanId "
            f"LEFT ANY JOIN {_TOMBSTONES_OF_TRACES} AS h ON t.TraceId = h.TraceId "
            f"WHERE {' AND '.join(f'({one})' for one in where)} GROUP BY t.TraceId)"
        )

    # Conditions

    def _holds(self, wanted: Condition) -> str:
        """Return SQL that is 1, 0 or NULL."""
        match wanted:
            case And(parts):
                return " AND ".join(f"({self._holds(part)})" for part in parts)
            case Or(parts):
                return " OR ".join(f"({self._holds(part)})" for part in parts)
            case Not(part):
                return f"NOT ({self._holds(part)})"
            case Compare(subject, op, value):
                return self._compared(self._read(subject), op, value)
            case In(subject, options):
                return self._in(self._read(subject), options)
            case Between(subject, low, high):
                found = self._read(subject)
                return f"({self._compared(found, '>=', low)}) AND ({self._compared(found, '<=', high)})"
            case Like(subject, pattern):
                text = _text_of(self._read(subject))
                # ClickHouse's LIKE has an escape character; a filter's has none.
                escaped = self.bind(pattern.replace("\\", "\\\\"), "String")
                return _NULL if text is None else f"{text} LIKE {escaped}"
            case IsNull(subject):
                found = self._read(subject)
                return f"JSONType({found.sql}) = 'Null'" if found.form == "json" else f"isNull({found.sql})"
            case HasTag(level, tag):
                return self._has_tag(level, tag)

    def _compared(self, found: _Value, op: str, value: object) -> str:
        if isinstance(value, bool):
            if found.form != "json":
                return _NULL
            return f"if(JSONType({found.sql}) = 'Bool', JSONExtractBool({found.sql}) {op} {value:d}, NULL)"
        if isinstance(value, str):
            text = _text_of(found)
            return _NULL if text is None else f"{text} {op} {self.bind(value, 'String')}"
        bound = self.bind(value, "Int64" if isinstance(value, int) else "Float64")
        if found.form == "number":
            return f"{found.sql} {op} {bound}"
        if found.form == "text":
            return _NULL
        json = found.sql
        # ClickHouse compares integers with floats exactly, so an integer must not be read as a float.
        return (
            f"multiIf(JSONType({json}) = 'Int64', JSONExtractInt({json}) {op} {bound}, "
            f"JSONType({json}) IN ('UInt64', 'Double'), JSONExtractFloat({json}) {op} {bound}, NULL)"
        )

    def _in(self, found: _Value, options: tuple[object, ...]) -> str:
        if isinstance(options[0], str):
            text = _text_of(found)
            if text is None:
                return _NULL
            return f"if(isNull({text}), NULL, has({self.bind(list(options), 'Array(String)')}, assumeNotNull({text})))"
        return " OR ".join(f"({self._compared(found, '=', option)})" for option in options)

    def _has_tag(self, level: Level, tag: str) -> str:
        field, in_row = self._tag(level, tag)
        return f"{field} != '' OR {in_row} != ''"

    def _tag(self, level: Level, tag: str) -> tuple[str, str]:
        """Return the texts of a tag in the table of fields and in a Collector's row, "" for nothing.

        The lower version wins. In the table, but not in the row, its digits are inverted.
        """
        field = self._field(level, f"f.Kind = 'tag' AND f.Key = {self.bind(tag, 'String')}")
        name = tags_attribute(level)
        listed = f"{_ATTRIBUTES}['{name}']"
        tags = f"if(startsWith({listed}, '['), JSONExtract({listed}, 'Array(String)'), [{listed}])"
        is_listed = f"mapContains({_ATTRIBUTES}, '{name}') AND has({tags}, {self.bind(tag, 'String')})"
        in_row = f"if({is_listed}, {self._of_row(level, 'tag', tag, _quoted('true'))}, '')"
        return field, self._if_collector(level, in_row, "min")

    # Values

    def _read(self, subject: Subject) -> _Value:
        kind = subject.kind
        if subject.part in ORIGINS:
            return self._origin(subject)
        if kind == "late_count":
            self._late.add(subject.level)
            return _Value("number", f"ifNull({subject.level[0]}l.Late, 0)")
        if kind in _TEXT_COLUMNS:
            return _Value("text", _TEXT_COLUMNS[kind])
        if kind in _NUMBER_COLUMNS:
            return _Value("number", _NUMBER_COLUMNS[kind])
        if kind == "project":
            return _Value("text", self._project())
        form, sql = self._by_kind(subject)
        return _Value(form, self._name(sql))

    def _origin(self, subject: Subject) -> _Value:
        """Return SQL of the time, the route or the author of the value that a subject names."""
        winning = self._name(self._winning(subject))
        if subject.part == "changed_at":
            ns = f"substring({winning}, 1, 16)"
            return _Value("number", f"if({winning} = '', NULL, reinterpretAsInt64(reverse(unhex({ns}))))")
        if subject.part == "route":
            words = ", ".join(map(_quoted, reversed(ROUTES)))
            numbers = list(range(1, len(ROUTES) + 1))
            spaces = f"length({winning}) - length(trimRight({winning}))"
            return _Value("text", f"nullIf(transform({spaces}, {numbers}, [{words}], ''), '')")
        self._writers.append(f"substring({winning}, 17, 16)")
        return _Value("text", f"nullIf(ifNull(w{len(self._writers) - 1}.Name, ''), '')")

    def _by_kind(self, subject: Subject) -> _Value:
        level, kind, key = subject.level, subject.kind, subject.key
        if kind == "resource":
            return _Value("json", self._entry(_RESOURCE, key))
        if kind == "attribute":
            return _Value("json", self._own_attribute(key))
        if kind in ("evaluation", "annotation"):
            return _Value("json", self._verdict(subject))
        if kind == "span_kind":
            return _Value("text", self._kind())
        if kind == "model":
            return _Value("text", f"nullIf({self._of_instrumentor(MODEL)}, '')")
        winning = self._winning(subject)
        if kind in ("user_id", "session_id"):
            return self._shown(winning)
        if kind == "name" and level == "span":
            json = self._name(_json_of(winning))
            return _Value("text", f"if(JSONType({json}) = 'String', JSONExtractString({json}), {_OWN[kind]})")
        if kind == "status":
            return _Value("json", self._status(winning))
        if kind == "status_message":
            shown = self._shown(winning).sql
            return _Value("text", f"coalesce(nullIf({shown}, ''), nullIf(t.StatusMessage, ''))")
        if kind in ("input", "output"):
            return _Value("json", self._input_or_output(level, kind, winning))
        return self._shown(winning) if kind == "name" else _Value("json", _json_of(winning))

    def _winning(self, subject: Subject) -> str:
        """Return the text of the field that a subject means, "" for nothing; of a verdict without its JSON."""
        level, kind, key = subject.level, subject.kind, subject.key
        if kind == "tag":
            # The lower version wins; in the table, but not in the row, its digits are inverted.
            field, in_row = self._tag(level, key)
            return _inverted(_greatest(field, _inverted(in_row)))
        if kind in ("evaluation", "annotation"):
            spaces = "concat(substring(one, 1, 32), substring(one, length(trimRight(one)) + 1))"
            return _greatest(_with(self._verdict_field(subject), spaces), self._verdict_in_row(subject, "''"))
        if kind == "attribute":
            return self._single(level, kind, key)
        if level == "span" and kind in _OWN:
            return self._or_own(kind, _OWN[kind])
        if kind in ("user_id", "session_id"):
            of_span = self._name(_greatest(self._single("span", kind), self._from_attribute("span", kind)))
            of_trace = self._name(_greatest(self._single("trace", kind), self._from_attribute("trace", kind)))
            # The value that was set last; of equal versions, the trace's.
            is_of_trace = f"substring({of_trace}, 1, 32) >= substring({of_span}, 1, 32)"
            return f"if({is_of_trace}, {of_trace}, {of_span})"
        return _greatest(self._single(level, kind, key), self._from_attribute(level, kind, key))

    def _input_or_output(self, level: Level, kind: str, stands: str) -> str:
        """Return the JSON of an input or output. An object or list becomes a text, its JSON text."""
        instead = "''"
        if level == "span":
            text = self._of_instrumentor(INPUT if kind == "input" else OUTPUT)
            instead = _with(text, "if(one = '', '', toJSONString(one))")
        json = _json_of("field")
        shown = f"if(JSONType({json}) IN ('Array', 'Object'), toJSONString(JSONExtractRaw({json})), {json})"
        return _with(stands, f"if(field = '', {instead}, {shown})", "field")

    def _of_instrumentor(self, spelling: Spelling) -> str:
        """Return the text of `model.instrumented.value_of` as it is compared, "" for nothing."""
        first = f"arrayFirst(one -> one != '', {self._attribute_texts(spelling.names)})"
        is_more = "(startsWith(one, '[') OR startsWith(one, '{')) AND isValidJSON(one)"
        as_json = f"if({is_more}, JSONExtractRaw(one), one)"
        whole = _with(first, as_json)
        if not spelling.stems:
            return whole
        starts = " OR ".join(f"startsWith(name, {_quoted(stem)})" for stem in spelling.stems)
        ends = " OR ".join(f"endsWith(name, {_quoted(end)})" for end in CONTENTS)
        names = f"arrayFilter(name -> ({starts}) AND ({ends}), mapKeys({_ATTRIBUTES}))"
        numbers = "arrayMap(one -> toUInt64OrZero(one), extractAll(name, '[0-9]+'))"
        in_order = f"arraySort(name -> ({numbers}, name), {names})"
        parts = f"arrayFilter(one -> one != '', arrayMap(name -> {_ATTRIBUTES}[name], {in_order}))"
        texts = ", ".join(f"attributes[{_quoted(text)}]" for text in spelling.texts)
        message = (
            f"if(name IN ({', '.join(map(_quoted, spelling.events))}), arrayFirst(one -> one != '', [{texts}]), '')"
        )
        messages = f"arrayMap((name, attributes) -> {message}, t.`Events.Name`, t.`Events.Attributes`)"
        of_events = f"arrayMap(one -> {as_json}, arrayFilter(one -> one != '', {messages}))"
        joined = [f"nullIf(arrayStringConcat({lines}, '\\n'), '')" for lines in (parts, of_events)]
        return f"ifNull(coalesce(nullIf({whole}, ''), {', '.join(joined)}), '')"

    def _kind(self) -> str:
        """Return the result of `model.instrumented.kind_of`, or NULL."""
        names = [SPAN_KIND, *(name for name, _ in KINDS), ASKS_A_MODEL]
        texts = self._name(self._attribute_texts(names))
        kinds = [f"nullIf(upperUTF8({texts}[1]), '')"]
        for number, (_, words) in enumerate(KINDS, 2):
            spelled, known = (self.bind(list(some), "Array(String)") for some in (words, words.values()))
            kinds.append(f"nullIf(transform(lowerUTF8({texts}[{number}]), {spelled}, {known}, ''), '')")
        kinds.append(f"if({texts}[{len(names)}] = '', NULL, 'LLM')")
        return f"coalesce({', '.join(kinds)})"

    def _attribute_texts(self, names: Sequence[str]) -> str:
        """Return an array of the attributes' present values: a text as it is, other values as JSON, "" for nothing."""
        wanted = self.bind(list(names), "Array(String)")
        which = f"f.Kind = 'attribute' AND has({wanted}, f.Key)"
        late = self._column("span", which, f"groupArrayIf((f.Key, f.Field), {which})")
        json = _json_of("field")
        text = f"if(JSONType({json}) = 'String', JSONExtractString({json}), {json})"
        field = f"arrayReduce('max', arrayMap(one -> one.2, arrayFilter(one -> one.1 = name, {late})))"
        now = f"if(field = '', {_ATTRIBUTES}[name], {text})"
        return f"arrayMap(name -> {_with(field, now, 'field')}, {wanted})"

    def _own_attribute(self, name: str) -> str:
        """Return the JSON of an attribute's present value, "" for nothing."""
        field = self._name(self._single("span", "attribute", name))
        return f"if({field} != '', {_json_of(field)}, {self._attribute(name)})"

    def _shown(self, field: str) -> _Value:
        """Return what a record shows of a field: a text as it is, NULL for null, other values as JSON text."""
        json = self._name(_json_of(field))
        return _Value(
            "text",
            f"multiIf(JSONType({json}) = 'String', JSONExtractString({json}), JSONType({json}) = 'Null', NULL, {json})",
        )

    def _status(self, winning: str) -> str:
        json = self._name(_json_of(winning))
        return (
            f"multiIf(JSONType({json}) = 'String', toJSONString(upperUTF8(JSONExtractString({json}))), "
            f"JSONType({json}) = 'Int64', {json}, toJSONString({_OWN_STATUS}))"
        )

    def _verdict(self, subject: Subject) -> str:
        part = subject.part
        field = self._name(self._verdict_field(subject))
        of_part = f"concat(substring({field}, 1, 32), JSONExtractRaw({_json_of(field)}, {_quoted(part)}))"
        in_row = self._verdict_in_row(subject, self._canonical(_stem(subject) + part))
        stands = self._name(_json_of(_greatest(f"if({field} = '', '', {of_part})", in_row)))
        allowed = "'String'" if part in TEXT_PARTS else "'Int64', 'UInt64', 'Double'"
        return f"if(JSONType({stands}) IN ({allowed}), {stands}, '')"

    def _verdict_field(self, subject: Subject) -> str:
        """Return the text of an evaluation or annotation in the table of fields, "" for nothing."""
        level, kind, name = subject.level, subject.kind, subject.key
        if kind == "evaluation":
            return self._single(level, kind, name)
        # The key is the bare name, or has an annotator. Of several fields the latest counts, of equal versions the one
        # with the greater key.
        key = self.bind(annotation_key(name, None), "String")
        pair = self.bind(_pair(name), "String")
        which = f"f.Kind = 'annotation' AND (f.Key = {key} OR startsWith(f.Key, {pair}))"
        by = "(substring(f.Field, 1, 32), f.Key, f.Field)"
        return self._field(level, which, f"argMaxIf(f.Field, {by}, {which})")

    def _verdict_in_row(self, subject: Subject, what: str) -> str:
        """Return the version and *what* of an evaluation or annotation in a Collector's row, "" for nothing."""
        level, kind, stem = subject.level, subject.kind, _stem(subject)
        every = ", ".join(self.bind(stem + one, "String") for one in _PARTS_OF[kind])
        any_part = f"hasAny(mapKeys({_ATTRIBUTES}), [{every}])"
        in_row = f"if({any_part}, {self._of_row(level, kind, subject.key, what)}, '')"
        return self._if_collector(level, in_row)

    def _single(self, level: Level, kind: str, key: str = "") -> str:
        return self._field(level, f"f.Kind = '{kind}' AND f.Key = {self.bind(key, 'String')}")

    def _field(self, level: Level, which: str, aggregate: str | None = None) -> str:
        """Return the column of the table of fields with the text of the field that *which* selects, "" for nothing."""
        column = self._column(level, which, aggregate or f"maxIf(f.Field, {which})")
        return f"ifNull({column}, '')"

    def _column(self, level: Level, which: str, aggregate: str) -> str:
        columns = self._fields[level]
        alias = columns.setdefault(aggregate, f"{level[0]}f{len(columns)}")
        self._fields_wanted[level].append(f"({which})")
        return f"{level[0]}f.{alias}"

    # Values in the rows of a Collector

    def _from_attribute(self, level: Level, kind: str, key: str = "") -> str:
        """Return the text of a field that is one attribute of the row, or of a row of the trace."""
        prefix = "trace." if level == "trace" else ""
        if kind == "metadata":
            name = f"{prefix}metadata.{key}"
            json = self._canonical(name)
            if level == "span":
                # OpenInference has one object for all keys; an attribute for the key alone is more exact.
                whole, in_whole = f"{_ATTRIBUTES}['metadata']", self.bind(key, "String")
                is_own = f"mapContains({_ATTRIBUTES}, {self.bind(name, 'String')})"
                in_object = f"JSONHas({whole}, {in_whole}), JSONExtractRaw({whole}, {in_whole})"
                json = f"multiIf({is_own}, {json}, {in_object}, '')"
        elif kind in ("input", "output"):
            stem = f"{prefix}{kind}"
            text = f"{_ATTRIBUTES}['{stem}.value']"
            is_json = f"{_ATTRIBUTES}['{stem}.mime_type'] = '{JSON}' AND isValidJSON({text})"
            json = f"if(mapContains({_ATTRIBUTES}, '{stem}.value'), if({is_json}, {text}, toJSONString({text})), '')"
        else:
            name = {"user_id": "user.id", "session_id": "session.id", "name": "trace.name"}[kind]
            json = f"if(mapContains({_ATTRIBUTES}, '{name}'), toJSONString({_ATTRIBUTES}['{name}']), '')"
            if kind != "name":
                # Both levels share one attribute. It belongs to the level with the later version, if any is named.
                span = self._named_version(level, "span", kind, "")
                trace = self._named_version(level, "trace", kind, "")
                of_trace = f"({trace} != '' AND {trace} >= {span})"
                json = f"if({of_trace if level == 'trace' else f'NOT {of_trace}'}, {json}, '')"
        return self._if_collector(level, f"if({json} = '', '', {self._of_row(level, kind, key, json)})")

    def _or_own(self, kind: str, own: str) -> str:
        """Return the text of a field of the span, or of the row's column *own* if the row names its version."""
        named = self._named_version("span", "span", kind, "")
        in_row = f"if({named} = '' OR {own} = '', '', {self._of_row('span', kind, '', f'toJSONString({own})')})"
        return _greatest(self._single("span", kind), self._if_collector("span", in_row))

    def _of_row(self, level: Level, kind: str, key: str, json: str) -> str:
        """Return the text of a field whose value the row has: its version, *json*, and its route."""
        named, end = self._named_version(level, level, kind, key), f"end_of_{level}"
        version = f"if({named} = '', {end}, {named})"
        is_later = f"substring({named}, 1, 16) > substring({end}, 1, 16)"
        return f"concat({version}, {json}, if({is_later}, '{_IN_FLIGHT_SPACES}', '{_LIVE_SPACES}'))"

    def _named_version(self, of: Level, level: Level, kind: str, key: str) -> str:
        """Return the version that `otel_metadata.versions` of a row names for a field, or "".

        Args:
            of: The rows: that of the span, or those of the trace.
            level: The field's level.
            kind: The field's kind.
            key: The field's key; for an annotation its name, whoever annotated.
        """
        if kind != "annotation":
            return f"versions_of_{of}[{self.bind(_name_of(level, kind, key), 'String')}]"
        bare = self.bind(_name_of(level, kind, annotation_key(key, None)), "String")
        pair = self.bind(_name_of(level, kind, _pair(key)), "String")
        return f"mapValues(mapFilter((name, _) -> name = {bare} OR startsWith(name, {pair}), versions_of_{of}))[1]"

    def _if_collector(self, level: Level, text: str, aggregate: Literal["max", "min"] = "max") -> str:
        """Return *text* of the row if a Collector wrote it; for the trace, the *aggregate* of the texts of its rows."""
        if level == "span":
            return f"if({_IS_OURS}, '', {text})"
        alias = self._rows.setdefault((text, aggregate), f"m{len(self._rows)}")
        return f"ifNull(tm.{alias}, '')"

    def _canonical(self, name: str) -> str:
        """Return the JSON of a canonical attribute: as it is if `otel_metadata.json` lists it, else by its form."""
        bound = self.bind(name, "String")
        text = f"{_ATTRIBUTES}[{bound}]"
        return (
            f"multiIf(NOT mapContains({_ATTRIBUTES}, {bound}), '', "
            f"has(JSONExtract({_ATTRIBUTES}['{JSON_NAMES}'], 'Array(String)'), {bound}) AND isValidJSON({text}), "
            f"{text}, "
            f"{_typed(name, text)})"
        )

    def _attribute(self, key: str) -> str:
        """Return the JSON of an attribute of the row that is shown as one."""
        is_taken = key in read({key: ""}, (0, 0))[1]
        of_collector = "''" if is_taken else self._canonical(key)
        return f"if({_IS_OURS}, {self._entry(_ATTRIBUTES, key)}, {of_collector})"

    def _entry(self, column: str, key: str) -> str:
        """Return the JSON of an entry of a map: the exact value if the row has it, else by its form."""
        bound = self.bind(key, "String")
        exact, text = f"{column}['{EXACT}']", f"{column}[{bound}]"
        plain = "0" if key in (EXACT, ROW) else f"mapContains({column}, {bound})"
        return f"multiIf(JSONHas({exact}, {bound}), JSONExtractRaw({exact}, {bound}), {plain}, {_typed(key, text)}, '')"

    def _project(self) -> str:
        entries = [self._entry(_RESOURCE, name) for name in PROJECT_NAMES]
        return f"coalesce({', '.join(_string(entry) for entry in entries)})"


def _name_of(level: Level, kind: str, key: str) -> str:
    """Return the name of a field as a key of `_NAMED_VERSIONS`."""
    return f"{level} {kind} {key}"


def _stem(subject: Subject) -> str:
    """Return the beginning of the names of the attributes that spell an evaluation or annotation."""
    return f"{'trace.' if subject.level == 'trace' else ''}{_STEM[subject.kind]}.{subject.key}."


def _pair(name: str) -> str:
    """Return the beginning of an annotation's key with an annotator."""
    return json_text([name]).removesuffix("]") + ","


def _typed(name: str, text: str) -> str:
    """Return the JSON of a text in a map: `clickhouse.rows.typed` in SQL."""
    if is_text(name):
        return f"toJSONString({text})"
    number = NUMBER.replace("\\", "\\\\")
    return (
        f"if({text} IN ('true', 'false') OR (startsWith({text}, '[') AND isValidJSON({text})) "
        f"OR (match({text}, '{number}') AND JSONType({text}) IN ('Int64', 'Double')), {text}, toJSONString({text}))"
    )


def _text_of(found: _Value) -> str | None:
    """Return SQL of the text, which is NULL if the value has another type; None if it never is a text."""
    if found.form == "number":
        return None
    return found.sql if found.form == "text" else _string(found.sql)


def _string(json: str) -> str:
    return f"if(JSONType({json}) = 'String', JSONExtractString({json}), NULL)"


def _json_of(field: str) -> str:
    return f"trimRight(substring({field}, 33))"


def _ids(level: Level) -> str:
    return "f.TraceId, f.SpanId" if level == "span" else "f.TraceId"


def _inverted(field: str) -> str:
    """Return a field's text with the digits of its version inverted, "" for nothing."""
    digits = f"translate(substring(one, 1, 32), '{INVERTED[0]}', '{INVERTED[1]}')"
    return _with(field, f"concat({digits}, substring(one, 33))")


def _with(value: str, expression: str, name: str = "one") -> str:
    """Return *expression* with *name* bound to a value that is written once; ClickHouse analyses each copy."""
    return f"arrayMap({name} -> {expression}, [{value}])[1]"


def _greatest(*texts: str) -> str:
    return f"greatest({', '.join(texts)})"


def _quoted(word: str) -> str:
    """Return a word of this code as a literal; it is not escaped."""
    return f"'{word}'"
