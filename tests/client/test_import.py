"""Imports: the Collector's OTLP JSON lines, and exports of ours, into a store."""

from __future__ import annotations

import base64
import gzip
import io
import os
import random
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext, SpanKind, Status, StatusCode, TraceState
from tests.store.contract import START_NS, TRACE, ended_span, metadata, shown
from tests.strategies import field_sets

from otel_metadata.client import export
from otel_metadata.client.client import Spans
from otel_metadata.client.imports import MAX_PROBLEMS, ImportReport, import_file
from otel_metadata.dialects.canonical import AUTHOR
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.errors import ConfigurationError, FileError, MissingExtraError, StoreError
from otel_metadata.exporters.otlp import synthetic_span
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.evaluation import Evaluation
from otel_metadata.model.merge import Fields
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.store import table
from otel_metadata.store.sqlite.store import SqliteStore

SPAN_ID = f"{1:016x}"
TRACE_ID = f"{TRACE:032x}"

slow = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
def store() -> SqliteStore:
    return SqliteStore(":memory:")


# What hardly becomes smaller, so that a part of the compressed bytes is a part of the lines.
NOISE = [random.Random(7).getrandbits(4_000) for _ in range(1_000)]


def records(store: SqliteStore) -> list[SpanRecord]:
    return store.query(SpanQuery(limit=None))


def collector_line(*spans: Any, ids: str = "hex") -> dict[str, Any]:
    """Return what the Collector writes of spans: protobuf's JSON, but with ids in hex digits."""
    request = MessageToDict(encode_spans(spans), use_integers_for_enums=True)
    for of_resource in request["resourceSpans"]:
        for of_scope in of_resource["scopeSpans"]:
            for span in of_scope["spans"]:
                for owner in (span, *span.get("links", [])):
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if name in owner:
                            owner[name] = base64.b64decode(owner[name]).hex()
    return request


def lines(path: Path, *objects: Any) -> Path:
    path.write_bytes(b"".join((one if isinstance(one, bytes) else orjson.dumps(one)) + b"\n" for one in objects))
    return path


FULL = ended_span(
    attributes={
        "text": "a",
        "yes": True,
        "whole": 1 << 60,
        "real": 0.5,
        "list": [1, 2],
        "bytes": b"ok",
        "metadata.region": "us",
        "eval.C.label": "ok",
        "user.id": "u",
        "openinference.span.kind": "LLM",
    },
    parent=SpanContext(TRACE, 9, is_remote=True),
    context={"trace_state": TraceState([("k", "v")])},
    kind=SpanKind.CLIENT,
    status=Status(StatusCode.ERROR, "no"),
    events=[Event("e", {"x": 1.5}, timestamp=START_NS + 1)],
    links=[Link(SpanContext(3, 4, is_remote=True), {"l": "m"})],
    resource=Resource({"service.name": "s"}),
    instrumentation_scope=InstrumentationScope("scope", "1.2"),
)


# One attribute says them of both levels, so that of two values the later one arrives.
ONE_FOR_BOTH = {"user_id", "session_id"}

MEMBERS = [
    *("resourceSpans", "scopeSpans", "spans", "scope", "resource", "attributes", "key", "value", "status", "events"),
    *("links", "kvlistValue", "values", "traceId", "spanId", "name"),
]


class TestOtlp:
    def test_a_span_of_the_collector_is_the_span_that_was_sent(self, store: SqliteStore, tmp_path: Path) -> None:
        """Whatever OTLP says of it; canonical attributes are fields, as when it is written directly."""
        direct = SqliteStore(":memory:")
        direct.write([FULL])

        report = import_file(store, lines(tmp_path / "traces.jsonl", collector_line(FULL)))

        assert report == ImportReport(1, 0, 0, ())
        assert records(store) == records(direct)
        assert records(store)[0].metadata == {"region": "us"}

    @pytest.mark.parametrize("written", ["zeros", "empty"])
    def test_a_link_to_nothing_is_kept(self, store: SqliteStore, tmp_path: Path, written: str) -> None:
        """The SDK records one that has attributes, and the Collector writes its ids as empty texts."""
        span = ended_span(links=[Link(INVALID_SPAN_CONTEXT, {"why": "batch"})])
        direct = SqliteStore(":memory:")
        direct.write([span])
        line = collector_line(span)
        if written == "empty":
            (link,) = line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["links"]
            link.update(traceId="", spanId="")

        report = import_file(store, lines(tmp_path / "traces.jsonl", line))

        assert (report.spans_imported, report.problems) == (1, ())
        assert records(store) == records(direct)

    @given(st.lists(field_sets(), min_size=1, max_size=4), st.randoms(use_true_random=False))
    def test_late_updates_that_travelled_as_spans_are_on_the_span_that_is_meant(
        self, sets: list[Fields], chance: random.Random
    ) -> None:
        """As if they had been written directly, in whatever order they come, before or after their span."""
        direct, store = SqliteStore(":memory:"), SqliteStore(":memory:")
        sets = [{name: field for name, field in one.items() if name[1] not in ONE_FOR_BOTH} for one in sets]
        patches = [Patch(SpanRef(TRACE, 1), one) for one in sets if one]
        direct.write([FULL])
        direct.patch(patches)
        sent = [FULL, *(synthetic_span(patch, Resource({})) for patch in patches)]
        chance.shuffle(sent)

        with tempfile.TemporaryDirectory() as folder:
            path = lines(Path(folder) / "traces.jsonl", *(collector_line(span) for span in sent))
            report = import_file(store, path)

        assert (report.spans_imported, report.updates_imported, report.spans_failed) == (1, len(patches), 0)
        assert records(store) == records(direct)

    def test_the_authors_of_late_updates_and_of_spans_are_read(self, store: SqliteStore, tmp_path: Path) -> None:
        """Both say who set what came after the end of a span; neither attribute is left on the span."""
        late: Fields = {("span", "metadata", "late"): (1, (1, 21))}
        in_flight: Fields = {("span", "metadata", "flew"): (2, (START_NS * 2, 22))}
        span = ended_span(1, attributes={"a": 1})
        encoded = OtelDialect().encode(span, in_flight, is_local_root=True).attributes
        lined = [
            collector_line(synthetic_span(Patch(SpanRef(TRACE, 1), late), Resource({}), {AUTHOR: "ada"})),
            collector_line(ended_span(1, attributes={**encoded, AUTHOR: "checkout (pid 4711)"})),
        ]

        assert import_file(store, lines(tmp_path / "traces.jsonl", *lined)).spans_failed == 0

        assert (AUTHORS.name_of(21), AUTHORS.name_of(22)) == ("ada", "checkout (pid 4711)")
        (record,) = records(store)
        assert (record.metadata, record.attributes) == ({"late": 1, "flew": 2}, {"a": 1})

    @pytest.mark.parametrize("target", [None, "", "xyz", 5])
    def test_a_late_update_of_no_span_is_told(self, store: SqliteStore, tmp_path: Path, target: Any) -> None:
        """An attribute that something on the way has changed."""
        patch = Patch(SpanRef(TRACE, 1), {("span", "metadata", "k"): (1, (1, 1))})
        line = collector_line(synthetic_span(patch, Resource({})))
        (span,) = line["resourceSpans"][0]["scopeSpans"][0]["spans"]
        (meant,) = (one for one in span["attributes"] if one["key"] == "otel_metadata.target_span_id")
        meant["value"] = {"intValue": target} if target == 5 else {"stringValue": target}

        report = import_file(store, lines(tmp_path / "traces.jsonl", line))

        assert (report.spans_imported, report.updates_imported, report.spans_failed) == (0, 0, 1)
        assert "otel_metadata.target_span_id" in report.problems[0].message

    def test_enums_by_name_and_members_as_in_the_proto_files_are_read(self, store: SqliteStore, tmp_path: Path) -> None:
        """As protobuf's JSON readers do."""
        line = {
            "resource_spans": [
                {
                    "scope_spans": [
                        {
                            "spans": [
                                {
                                    "trace_id": TRACE_ID.upper(),
                                    "span_id": SPAN_ID,
                                    "parent_span_id": "",
                                    "name": "n",
                                    "kind": "SPAN_KIND_SERVER",
                                    "start_time_unix_nano": START_NS,
                                    "status": {"code": "STATUS_CODE_OK"},
                                    "attributes": [{"key": "a", "value": {"string_value": "b"}}],
                                    "later": {"members": "are ignored"},
                                }
                            ]
                        }
                    ]
                }
            ]
        }

        import_file(store, lines(tmp_path / "s", line))

        (record,) = records(store)
        assert (record.trace_id, record.parent_id, record.kind, record.status_code) == (TRACE_ID, None, "SERVER", "OK")
        assert (record.span.start_ns, record.span.end_ns, record.attributes) == (START_NS, START_NS, {"a": "b"})

    @pytest.mark.parametrize(
        ("value", "read"),
        [
            ({"stringValue": ""}, ""),
            ({"stringValue": "\0"}, "\N{REPLACEMENT CHARACTER}"),
            ({"boolValue": False}, False),
            ({"intValue": "-9223372036854775808"}, -(1 << 63)),
            ({"intValue": 5}, 5),
            ({"doubleValue": 5}, 5.0),
            ({"doubleValue": "NaN"}, "NaN"),
            ({"doubleValue": "Infinity"}, "Infinity"),
            ({"bytesValue": base64.b64encode(b"ok").decode()}, "ok"),
            ({"arrayValue": {}}, []),
            ({"arrayValue": {"values": [{"intValue": "1"}, {}, {"arrayValue": {"values": []}}]}}, [1, None, []]),
            (
                {"kvlistValue": {"values": [{"key": "k", "value": {"kvlistValue": {}}}, {"key": "n"}]}},
                {"k": {}, "n": None},
            ),
            ({}, None),
            ({"futureValue": 1}, None),
        ],
    )
    def test_values(self, store: SqliteStore, tmp_path: Path, value: Any, read: Any) -> None:
        """Every kind of AnyValue; what JSON or a store cannot hold is as in a span that is written directly."""
        import_file(store, lines(tmp_path / "s", otlp({"attributes": [{"key": "a", "value": value}]})))

        (record,) = records(store)
        found = record.attributes["a"]
        assert (found, type(found)) == (read, type(read))

    @pytest.mark.parametrize("number", [7, -1, "9", "SPAN_KIND_LATER"])
    def test_a_kind_that_a_later_otlp_has_is_internal(self, store: SqliteStore, tmp_path: Path, number: Any) -> None:
        """Better than no span."""
        code = f"{number}".replace("SPAN_KIND", "STATUS_CODE")

        import_file(store, lines(tmp_path / "s", otlp({"kind": number, "status": {"code": code}})))

        assert (records(store)[0].kind, records(store)[0].status_code) == ("INTERNAL", "UNSET")

    @pytest.mark.parametrize(
        ("parts", "told"),
        [
            (
                {"traceId": "0" * 32},
                "traceId is str '00000000000000000000000000000000'; expected 32 hex digits, not all 0",
            ),
            ({"spanId": "AAAAAAAAAAA="}, "spanId is str 'AAAAAAAAAAA='; expected 16 hex digits, not all 0"),
            ({"spanId": "AAAAAAAA!AE="}, "spanId is str 'AAAAAAAA!AE='; expected 16 hex digits"),
            ({"traceId": f"{TRACE:x}"}, "expected 32 hex digits"),
            ({"spanId": None}, "spanId is NoneType None"),
            ({"parentSpanId": "x"}, "parentSpanId is str 'x'"),
            ({"name": 5}, "name is int 5; expected text"),
            ({"startTimeUnixNano": "soon"}, "startTimeUnixNano is str 'soon'; expected a whole number of 64 bits"),
            ({"endTimeUnixNano": 1 << 63}, "endTimeUnixNano is int"),
            ({"endTimeUnixNano": True}, "endTimeUnixNano is bool"),
            ({"kind": 1.5}, "kind is float 1.5"),
            ({"status": []}, "status is list []; expected an object"),
            ({"attributes": {"a": 1}}, "attributes is dict {'a': 1}; expected a list of objects"),
            ({"attributes": [{"key": "a", "value": 5}]}, "value is int 5; expected an object"),
            ({"attributes": [{"key": "a", "value": {"boolValue": 1}}]}, "boolValue is int 1; expected true or false"),
            (
                {"attributes": [{"key": "a", "value": {"doubleValue": "x"}}]},
                "doubleValue is str 'x'; expected a number",
            ),
            ({"attributes": [{"key": "a", "value": {"bytesValue": "?"}}]}, "bytesValue is str '?'; expected base64"),
            ({"events": [5]}, "events is list [5]; expected a list of objects"),
            ({"links": [{"traceId": "x"}]}, "traceId is str 'x'"),
        ],
    )
    def test_a_bad_span_is_told_with_its_line_and_its_siblings_are_imported(
        self, store: SqliteStore, tmp_path: Path, parts: dict[str, Any], told: str
    ) -> None:
        """What was got, what was expected; never half a span."""
        path = lines(tmp_path / "s", otlp(), otlp({"spanId": f"{2:016x}", **parts}, {"spanId": f"{3:016x}"}))

        report = import_file(store, path)

        assert (report.spans_imported, report.spans_failed) == (2, 1)
        assert report.problems[0].line == 2
        assert told in report.problems[0].message
        assert sorted(record.span_id for record in records(store)) == [f"{1:016x}", f"{3:016x}"]

    @pytest.mark.parametrize(
        ("line", "failed"),
        [
            ({"resourceSpans": 5}, 1),
            ({"resourceSpans": [5, {"scopeSpans": 5}, {"scopeSpans": [5, {"spans": 5}, {"spans": [5]}]}]}, 5),
            ({"resourceSpans": [{"resource": 5, "scopeSpans": [{"spans": [{}]}]}]}, 1),
            ({"resourceSpans": [{"scopeSpans": [{"scope": {"name": 5}, "spans": [{}]}]}]}, 1),
        ],
    )
    def test_bad_parts_around_spans_are_told(self, store: SqliteStore, tmp_path: Path, line: Any, failed: int) -> None:
        """Each once."""
        report = import_file(store, lines(tmp_path / "s", line, otlp()))

        assert (report.spans_imported, report.spans_failed) == (1, failed)

    @slow
    @given(
        junk=st.recursive(
            st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=4),
            lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), parts, max_size=4),
            max_leaves=15,
        )
    )
    def test_nothing_that_is_json_breaks_the_import(self, store: SqliteStore, tmp_path: Path, junk: Any) -> None:
        """Whatever stands in a line, the good line after it is imported."""
        report = import_file(store, lines(tmp_path / "s", {"resourceSpans": [junk]}, junk, otlp()))

        assert report.spans_imported == 1

    @pytest.mark.parametrize("with_names_of_proto", [False, True], ids=["camelCase", "snake_case"])
    @pytest.mark.parametrize("with_enum_names", [False, True], ids=["numbers", "names"])
    def test_the_json_of_protobuf_itself_is_read(
        self, store: SqliteStore, tmp_path: Path, with_names_of_proto: bool, with_enum_names: bool
    ) -> None:
        """Ids are in base64 there; the same span is stored as that of the Collector."""
        request = MessageToDict(
            encode_spans([FULL]),
            preserving_proto_field_name=with_names_of_proto,
            use_integers_for_enums=not with_enum_names,
        )
        other = SqliteStore(":memory:")

        assert import_file(store, lines(tmp_path / "s", request)).spans_imported == 1
        import_file(other, lines(tmp_path / "t", collector_line(FULL)))
        assert records(store) == records(other)

    @pytest.mark.parametrize(
        "renamed",
        [
            ("scopeSpans", "instrumentationLibrarySpans"),
            ("scopeSpans", "instrumentation_library_spans"),
            ("resourceSpans", "batches"),
        ],
    )
    def test_the_members_of_older_and_other_writers_are_read(
        self, store: SqliteStore, tmp_path: Path, renamed: tuple[str, str]
    ) -> None:
        """OTLP before 0.15 had a library where a scope is today."""
        text = orjson.dumps(collector_line(FULL)).decode().replace(f'"{renamed[0]}"', f'"{renamed[1]}"')
        if "nstrumentation" in renamed[1]:
            text = text.replace(
                '"scope":', '"instrumentationLibrary":' if "Library" in renamed[1] else '"instrumentation_library":'
            )

        assert import_file(store, lines(tmp_path / "s", text.encode())).spans_imported == 1
        (record,) = records(store)
        assert (record.span.scope_name, record.span.scope_version) == ("scope", "1.2")
        assert record.span.resource == {"service.name": "s"}

    @pytest.mark.parametrize(
        ("part", "project"),
        [
            (lambda request: {"trace": request}, "s"),
            (lambda request: request["resourceSpans"], "s"),
            (lambda request: request["resourceSpans"][0], "s"),
            (lambda request: request["resourceSpans"][0]["scopeSpans"], None),
            (lambda request: request["resourceSpans"][0]["scopeSpans"][0]["spans"][0], None),
        ],
        ids=["Tempo", "list of ResourceSpans", "ResourceSpans", "list of ScopeSpans", "Span"],
    )
    def test_a_part_of_a_request_is_read_by_itself(
        self, store: SqliteStore, tmp_path: Path, part: Callable[[Any], Any], project: str | None
    ) -> None:
        """As far as it goes: a span alone has no resource."""
        assert import_file(store, lines(tmp_path / "s", part(collector_line(FULL)))).spans_imported == 1
        (record,) = records(store)
        assert (record.span_id, record.metadata["region"], record.project) == (
            FULL.context.span_id.to_bytes(8, "big").hex(),
            "us",
            project,
        )

    @pytest.mark.parametrize("kind", ["SPAN_KIND_SERVER", "server", "Server", "2", 2])
    @pytest.mark.parametrize("code", ["STATUS_CODE_ERROR", "Error", "2"])
    def test_enums_may_be_written_in_any_way(self, store: SqliteStore, tmp_path: Path, kind: Any, code: str) -> None:
        """By name, with and without their prefix, and by number."""
        import_file(store, lines(tmp_path / "s", otlp({"kind": kind, "status": {"code": code}})))

        assert (records(store)[0].kind, records(store)[0].status_code) == ("SERVER", "ERROR")

    @pytest.mark.parametrize("member", ["arrayValue", "kvlistValue"])
    @pytest.mark.parametrize("owner", ["attributes", "events", "links"])
    @pytest.mark.parametrize("levels", [64, 190])
    def test_a_value_that_is_nested_too_deeply_is_told(
        self, store: SqliteStore, tmp_path: Path, member: str, owner: str, levels: int
    ) -> None:
        """Of its span alone, in whatever part of it; the other spans of the request are imported."""
        attributes = [{"key": "a", "value": 5.5}]
        part = {"attributes": attributes} if owner == "attributes" else {owner: [{"attributes": attributes}]}

        # As deep as the reader of JSON goes: a level of a map is five levels of JSON, one of a list three.
        value = nested(member, levels if member == "kvlistValue" or levels == 64 else 330)
        report = import_file(store, lines(tmp_path / "s", holding(value, {"spanId": f"{2:016x}", **part}, {})))

        assert (report.spans_imported, report.spans_failed) == (1, 1)
        assert report.problems[0].message == f"{member} is nested too deeply; expected at most 63 levels"

    def test_a_value_that_is_nested_less_deeply_is_as_in_a_span_that_is_written_directly(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        """Its limit is the same."""
        import_file(
            store,
            lines(tmp_path / "s", holding(nested("arrayValue", 63), {"attributes": [{"key": "a", "value": 5.5}]})),
        )

        (record,) = records(store)
        assert orjson.dumps(record.attributes["a"]) == b"[" * 63 + b"]" * 63

    @pytest.mark.parametrize(
        ("got", "kind"),
        [
            (b"[" * 1_000 + b"]" * 1_000, "list"),
            (b'{"a":' * 1_000 + b"0" + b"}" * 1_000, "dict"),
            (b'"%s"' % (b"x" * 10_000_000), "str"),
            (b"[%s0]" % (b"0," * 1_000_000), "list"),
        ],
        ids=["lists", "maps", "text", "long list"],
    )
    def test_what_was_got_is_told_shortly(self, store: SqliteStore, tmp_path: Path, got: bytes, kind: str) -> None:
        """However deep or large it is."""
        report = import_file(store, lines(tmp_path / "s", holding(got, {"spanId": 5.5}, {})))

        assert (report.spans_imported, report.spans_failed) == (1, 1)
        assert report.problems[0].message.startswith(f"spanId is {kind} ")
        assert len(report.problems[0].message) < 150

    def test_logs_and_metrics_are_ignored_and_counted(self, store: SqliteStore, tmp_path: Path) -> None:
        """A Collector may write all signals into one file."""
        others = [{"resourceLogs": []}, {"resourceMetrics": []}, {"resourceProfiles": []}]

        assert import_file(store, lines(tmp_path / "s", *others, otlp())) == ImportReport(1, 0, 3, ())


def otlp(*parts: dict[str, Any]) -> dict[str, Any]:
    """Return a line with small good spans, with *parts* in place of their own."""
    good = {"traceId": TRACE_ID, "spanId": SPAN_ID, "name": "n", "startTimeUnixNano": f"{START_NS}"}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [{**good, **one} for one in parts or ({},)]}]}]}


def nested(member: str, levels: int) -> bytes:
    """Return a value of OTLP with so many lists or maps, one in the other; no writer of JSON goes as deep."""
    start, end = (b'{"key":"k","value":', b"}") if member == "kvlistValue" else (b"", b"")
    around = b'{"%s":{"values":[%s' % (member.encode(), start)
    return around * (levels - 1) + b'{"%s":{}}' % member.encode() + (end + b"]}}") * (levels - 1)


def holding(value: bytes, *parts: dict[str, Any]) -> bytes:
    """Return a line with spans that have *value* where `5.5` stands."""
    return orjson.dumps(otlp(*parts)).replace(b"5.5", value)


IDS = {"context.trace_id": TRACE_ID, "context.span_id": SPAN_ID}

# In a process of its own: what a process had at most never becomes less.
IMPORT_AND_MEASURE = """
import resource, sys
import pyarrow.compute, pyarrow.parquet
from otel_metadata.client.imports import import_file
from otel_metadata.errors import FileError

class Nowhere:
    def write_rows(self, rows, route):
        pass

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

before = peak()
try:
    report = import_file(Nowhere(), sys.argv[1])
    print((report.spans_imported, report.spans_failed))
except FileError as error:
    print(error)
print(peak() - before)
"""

STUMBLING = [
    *(b"", b"null", b"-1", b"9" * 400, b"1e400", b"\xff\xfe", b"\0", b"[", b"{", b"[]", b"{}", b'""', b"\n"),
    *(b"\\ud800", b"[[" * 200, b"1.5", b"true", b"\xef\xbb\xbf", b"-9223372036854775809"),
]


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """Return bytes that were changed in one to eight places."""
    content = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(content) + 1)
        way, size = chance.randrange(5), chance.randrange(1, 40)
        if way == 0 and at < len(content):
            content[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            content[at : at + size] = chance.choice(STUMBLING)
        elif way == 2:
            content[at:at] = content[size : 2 * size]
        elif way == 3:
            del content[at : at + size]
        elif chance.random() < 0.2:
            del content[at:]
    return bytes(content)


class TestOwn:
    @pytest.mark.parametrize("format", [export.parquet, export.jsonl])
    @slow
    @given(sets=st.lists(field_sets(max_size=6), min_size=1, max_size=3))
    def test_what_was_exported_is_imported_exactly(
        self, tmp_path: Path, format: export.Format, sets: list[Fields]
    ) -> None:
        """Every record as it was; a second time changes nothing."""
        first, second = SqliteStore(":memory:"), SqliteStore(":memory:")
        first.write([ended_span(at, fields=fields, attributes={"a": 1}) for at, fields in enumerate(sets, 1)])
        export.export_to_file(first.export(SpanQuery(limit=None)), tmp_path / "s", format)

        for _ in range(2):
            assert import_file(second, tmp_path / "s") == ImportReport(len(sets), 0, 0, ())
            assert [shown(one) for one in records(second)] == [shown(one) for one in records(first)]

        export.export_to_file(second.export(SpanQuery(limit=None)), tmp_path / "again", format)
        assert (tmp_path / "again").read_bytes() == (tmp_path / "s").read_bytes()

    @pytest.mark.parametrize("format", [export.parquet, export.jsonl])
    def test_an_old_export_overwrites_nothing_newer(
        self, store: SqliteStore, tmp_path: Path, format: export.Format
    ) -> None:
        """Versions decide, so an import may be late as any update."""
        store.write([ended_span(fields=metadata(both=1, old=1))])
        export.export_to_file(store.export(SpanQuery()), tmp_path / "s", format)
        name = ("span", "metadata", "both")
        store.patch([Patch(SpanRef(TRACE, 1), {name: (2, (START_NS + 1, 1))})])  # type: ignore[dict-item]

        import_file(store, tmp_path / "s")

        assert records(store)[0].metadata == {"both": 2, "old": 1}

    def test_a_row_beyond_64_bits_fails_alone(self, store: SqliteStore, tmp_path: Path) -> None:
        """A time that no store holds refuses one row, not the batch that it is in."""
        spans = [ended_span(1), ended_span(2)]
        origin = SqliteStore(":memory:")
        origin.write(spans)
        export.export_to_file(origin.export(SpanQuery()), tmp_path / "s", export.jsonl)
        first, second = (tmp_path / "s").read_bytes().splitlines(keepends=True)
        far = orjson.dumps({**orjson.loads(first), "start_time": "9999-12-31T00:00:00Z"})
        (tmp_path / "s").write_bytes(far + b"\n" + second)

        report = import_file(store, tmp_path / "s")

        assert (report.spans_imported, report.spans_failed) == (1, 1)
        assert report.problems[0].message.endswith("expected a time within 64 bits of nanoseconds")

    def test_parquet_that_polars_wrote_again_is_refused(self, store: SqliteStore, tmp_path: Path) -> None:
        """It no longer says what it is, and its versions may be gone."""
        pq.write_table(pa.table({"context.span_id": [SPAN_ID]}), tmp_path / "s")

        with pytest.raises(FileError, match="a Parquet file that otel-metadata did not export"):
            import_file(store, tmp_path / "s")

    @pytest.mark.parametrize("format", ["2", "x"])
    def test_an_export_of_a_newer_format_is_refused(self, store: SqliteStore, tmp_path: Path, format: str) -> None:
        """Before anything is read."""
        newer = table.schema().with_metadata({"otel_metadata.format": format})
        pq.write_table(newer.empty_table(), tmp_path / "s")

        with pytest.raises(FileError, match="install a newer otel-metadata"):
            import_file(store, tmp_path / "s")

    def test_bad_rows_of_parquet_are_told_with_their_number(self, store: SqliteStore, tmp_path: Path) -> None:
        """The others are imported."""
        store.write([ended_span(at, start_ns=START_NS - at) for at in (1, 2, 3)])
        whole = pa.Table.from_batches(store.export(SpanQuery()))
        whole = whole.set_column(1, "context.span_id", [["no id", f"{2:016x}", f"{3:016x}"]])
        at = whole.schema.get_field_index("attributes")
        whole = whole.set_column(at, "attributes", pa.array([None, "{", None], pa.string()))
        pq.write_table(whole, tmp_path / "s")
        other = SqliteStore(":memory:")

        report = import_file(other, tmp_path / "s")

        assert (report.spans_imported, [problem.line for problem in report.problems]) == (1, [1, 2])
        assert "attributes is str '{'; expected JSON text" in report.problems[1].message
        assert [record.span_id for record in records(other)] == [f"{3:016x}"]

    def test_times_that_are_none_are_told(self, store: SqliteStore, tmp_path: Path) -> None:
        """As of a file that another program has changed."""
        empty = table.schema().empty_table()
        at = empty.schema.get_field_index("start_time")
        changed = empty.set_column(at, "start_time", pa.array([], pa.list_(pa.string())))
        pq.write_table(changed.append_column("x", pa.array([], pa.string())), tmp_path / "empty")
        one = pa.table({"context.span_id": [SPAN_ID], "start_time": [["x"]]})
        pq.write_table(one.replace_schema_metadata({"otel_metadata.format": "1"}), tmp_path / "s")

        assert import_file(store, tmp_path / "empty").spans_imported == 0
        with pytest.raises(FileError, match="damaged Parquet"):
            import_file(store, tmp_path / "s")

    def test_damaged_parquet_is_told(self, store: SqliteStore, tmp_path: Path) -> None:
        """With its path."""
        (tmp_path / "s").write_bytes(b"PAR1" + b"\0" * 100)

        with pytest.raises(FileError, match="damaged Parquet") as error:
            import_file(store, tmp_path / "s")

        assert error.value.path == str(tmp_path / "s")

    def test_a_text_of_parquet_that_is_no_utf_8_fails_its_row_alone(self, store: SqliteStore, tmp_path: Path) -> None:
        """One flipped bit, in a text, in JSON or in a list of texts."""
        store.write([ended_span(at, start_ns=START_NS - at, fields=metadata(a=1)) for at in (1, 2, 3, 4)])
        whole = pa.Table.from_batches(store.export(SpanQuery()))
        for row, name in enumerate(("name", "attributes.metadata", "tags")):
            at = whole.schema.get_field_index(name)
            texts = whole.column(name).combine_chunks().to_pylist()
            texts[row] = "NO" if name != "tags" else ["NO"]
            spoiled = pa.array(texts, whole.schema.field(name).type)
            values = spoiled.values if name == "tags" else spoiled
            data = values.buffers()[2].to_pybytes().replace(b"NO", b"\xff\xfe")
            kept = values.buffers()
            broken = pa.Array.from_buffers(values.type, len(values), [kept[0], kept[1], pa.py_buffer(data)])
            if name == "tags":
                offsets = spoiled.buffers()
                broken = pa.Array.from_buffers(spoiled.type, len(spoiled), offsets[:2], children=[broken])
            whole = whole.set_column(at, whole.schema.field(name), broken)
        pq.write_table(whole, tmp_path / "s")
        other = SqliteStore(":memory:")

        report = import_file(other, tmp_path / "s")

        assert (report.spans_imported, report.spans_failed) == (1, 3)
        assert [problem.message.partition(" is not valid UTF-8 (")[0] for problem in report.problems] == [
            *("name", "attributes.metadata", "tags")
        ]
        assert [record.span_id for record in records(other)] == [f"{4:016x}"]

    @pytest.mark.parametrize(
        ("column", "written", "told"),
        [
            ("attributes.input.value", {"dictionary_pagesize_limit": 1 << 30}, "(400, 0)"),
            ("attributes.input.value", {"use_dictionary": False, "write_batch_size": 1}, "(400, 0)"),
            ("attributes.input.value", {"use_dictionary": False}, "cannot be read: its pages unpack to 400,"),
            ("tags", {}, "cannot be read: it has 11,000,399 values"),
        ],
        ids=["dictionary", "pages", "one page", "runs"],
    )
    def test_a_small_file_of_parquet_that_becomes_large_takes_little_memory(
        self, tmp_path: Path, column: str, written: dict[str, Any], told: str
    ) -> None:
        """400 MB of texts, or eleven million of them, in some kilobytes: read in parts, or refused unread."""
        row: dict[str, Any] = {**IDS, "name": "n", "kind": "INTERNAL", "status_code": "UNSET"}
        row.update(start_time=START_NS, end_time=START_NS)
        row[column] = "x" * 1_000_000 if column != "tags" else None
        many = {"tags": [["x"] * 11_000_000] + [None] * 399} if column == "tags" else {}
        columns = [pa.array(many.get(one.name, [row.get(one.name)] * 400), one.type) for one in table.schema()]
        whole = pa.Table.from_arrays(columns, schema=table.schema())
        pq.write_table(whole, tmp_path / "s", compression="zstd", **written)
        assert (tmp_path / "s").stat().st_size < 200_000

        done = subprocess.run(
            [sys.executable, "-c", IMPORT_AND_MEASURE, tmp_path / "s"], capture_output=True, text=True, check=True
        )

        said, peak = done.stdout.splitlines()
        assert told in said
        assert int(peak) < 250_000_000

    @pytest.mark.parametrize("name", ["start_time", "name", "attributes"])
    def test_a_column_of_parquet_of_another_type_is_told(self, store: SqliteStore, tmp_path: Path, name: str) -> None:
        """By name: lists and structs of any depth are no texts and no times."""
        store.write([ended_span(1)])
        whole = pa.Table.from_batches(store.export(SpanQuery()))
        other = pa.array([[{"a": [[1]]}]])
        pq.write_table(whole.set_column(whole.schema.get_field_index(name), name, other), tmp_path / "s")

        with pytest.raises(FileError, match=f"column {name} is list<.*; expected the type that otel-metadata exports"):
            import_file(store, tmp_path / "s")

    def test_a_time_of_parquet_that_is_beyond_64_bits_fails_its_row_alone(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        """Another program wrote microseconds, of the year 9999."""
        store.write([ended_span(at, start_ns=START_NS - at) for at in (1, 2)])
        whole = pa.Table.from_batches(store.export(SpanQuery()))
        times = pa.array([253_402_214_400_000_000, START_NS // 1_000], pa.timestamp("us", "UTC"))
        at = whole.schema.get_field_index("end_time")
        pq.write_table(whole.set_column(at, "end_time", times), tmp_path / "s")
        other = SqliteStore(":memory:")

        report = import_file(other, tmp_path / "s")

        assert (report.spans_imported, [problem.line for problem in report.problems]) == (1, [1])
        assert report.problems[0].message.startswith("end_time is not a time within 64 bits of nanoseconds")

    def test_the_row_groups_beside_a_damaged_one_are_imported(self, store: SqliteStore, tmp_path: Path) -> None:
        """The damage is told with the number of its row."""
        store.write([ended_span(at, start_ns=START_NS - at) for at in range(1, 7)])
        whole = pa.Table.from_batches(store.export(SpanQuery()))
        pq.write_table(whole, tmp_path / "s", row_group_size=2)
        chunk = pq.read_metadata(tmp_path / "s").row_group(1).column(0)
        content = bytearray((tmp_path / "s").read_bytes())
        content[chunk.dictionary_page_offset] ^= 0xFF
        (tmp_path / "s").write_bytes(content)
        other = SqliteStore(":memory:")

        report = import_file(other, tmp_path / "s")

        assert (report.spans_imported, [problem.line for problem in report.problems]) == (4, [3])
        assert report.problems[0].message.startswith("the rest of row group 2 cannot be read: the header of a page")

    @pytest.mark.parametrize("format", ["parquet", "jsonl", "otlp", "gzip"])
    def test_a_file_that_was_changed_anyhow_is_at_most_an_error(self, tmp_path: Path, format: str) -> None:
        """Bits flipped, parts cut out, doubled, or replaced by what readers stumble over."""
        origin = SqliteStore(":memory:")
        origin.write([FULL, *(ended_span(at, fields=metadata(a=1)) for at in (2, 3))])
        if format in ("parquet", "jsonl"):
            export.export_to_file(origin.export(SpanQuery(limit=None)), tmp_path / "s", getattr(export, format))
            whole = (tmp_path / "s").read_bytes()
        else:
            whole = b"".join(orjson.dumps(one) + b"\n" for one in (collector_line(FULL), otlp()))
            whole = gzip.compress(whole) if format == "gzip" else whole
        for seed in range(150):
            (tmp_path / "s").write_bytes(mutated(whole, random.Random(seed)))
            store = SqliteStore(":memory:")
            try:
                import_file(store, tmp_path / "s")
            except FileError:
                pass
            records(store)  # whatever was imported can be read
            store.close()

    def test_json_lines_need_no_pyarrow(
        self, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only Parquet does, and says so."""
        store.write([ended_span(fields={("span", "evaluation", "C"): (Evaluation("C", 1).to_json(), (1, 1))})])
        for format in (export.parquet, export.jsonl):
            export.export_to_file(store.export(SpanQuery()), tmp_path / format.__name__, format)
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

        assert import_file(store, tmp_path / "jsonl").spans_imported == 1
        with pytest.raises(MissingExtraError, match=r"otel-metadata\[dataframe\]"):
            import_file(store, tmp_path / "parquet")

    def test_a_time_that_is_no_time_is_told_with_its_line(self, store: SqliteStore, tmp_path: Path) -> None:
        """As any other bad column."""
        ids = {"context.trace_id": TRACE_ID, "context.span_id": SPAN_ID}
        good = {**ids, "name": "n", "kind": "INTERNAL", "status_code": "UNSET", "start_time": "today"}

        report = import_file(store, lines(tmp_path / "s", good))

        assert (report.spans_failed, report.problems[0].line) == (1, 1)
        assert "start_time is str 'today'; expected a time" in report.problems[0].message


class TestFiles:
    def test_bad_lines_are_told_and_counted_and_the_rest_is_imported(self, store: SqliteStore, tmp_path: Path) -> None:
        """Blank lines are no lines."""
        path = lines(tmp_path / "s", otlp(), b"", b"{", b"5", {"a": 1}, b"\xff", otlp({"spanId": f"{2:016x}"}))

        report = import_file(store, path)

        assert (report.spans_imported, report.spans_failed) == (2, 4)
        assert [problem.line for problem in report.problems] == [3, 4, 5, 6]
        assert report.problems[0].message.startswith("no JSON (")
        assert report.problems[1].message.startswith("a JSON int; expected an object")
        assert report.problems[2].message.startswith("an object with 'a'; expected OTLP JSON lines")

    def test_problems_are_named_up_to_a_number_and_counted_beyond(self, store: SqliteStore, tmp_path: Path) -> None:
        """A report fits on a screen."""
        report = import_file(store, lines(tmp_path / "s", otlp(), *[b"{"] * 150))

        assert (report.spans_failed, len(report.problems)) == (150, MAX_PROBLEMS)

    @pytest.mark.parametrize(
        ("written", "ignored", "found"),
        [
            ([], 0, "nothing"),
            ([[]], 0, "nothing"),
            ([{"resourceSpans": []}], 0, "OTLP without a span"),
            ([{"resourceSpans": [{"scopeSpans": []}]}, []], 0, "OTLP without a span"),
            ([{"resourceLogs": []}, {"resource_logs": []}], 2, r"OpenTelemetry logs (2)"),
            ([{"resourceMetrics": []}, {"resourceLogs": []}], 2, "OpenTelemetry logs (1) and metrics (1)"),
            ([{"resourceSpans": []}, {"resourceProfiles": []}], 1, "OpenTelemetry profiles (1)"),
        ],
    )
    def test_a_file_without_spans_says_what_it_holds(
        self, store: SqliteStore, tmp_path: Path, written: list[Any], ignored: int, found: str
    ) -> None:
        """It is no error: a Collector that saw nothing writes an empty one."""
        report = import_file(store, lines(tmp_path / "s", *written))

        assert report == ImportReport(0, 0, ignored, (), 0, found)

    def test_so_does_an_export_of_nothing(self, store: SqliteStore, tmp_path: Path) -> None:
        """Parquet, which is not empty as a file."""
        Spans(store).export_to_parquet(tmp_path / "s.parquet")

        assert import_file(store, tmp_path / "s.parquet").found_instead == "nothing"

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            ({"data": [{"traceID": "a", "spans": [{"traceID": "a", "spanID": "b"}]}]}, "JSON of Jaeger"),
            ({"traceID": "a", "spanID": "b", "operationName": "n"}, "JSON of Jaeger"),
            ([{"traceId": "a", "id": "b", "timestamp": 1, "localEndpoint": {}}], "JSON of Zipkin"),
        ],
    )
    @pytest.mark.parametrize("count", [1, 2])
    def test_other_formats_of_traces_are_told_by_name(
        self, store: SqliteStore, tmp_path: Path, written: Any, told: str, count: int
    ) -> None:
        """One document is a problem of the file, and a file of them is of another kind."""
        path = lines(tmp_path / "s", *[written] * count)
        if count == 1:
            report = import_file(store, path)
            assert (report.spans_failed, report.found_instead) == (1, None)
            assert report.problems[0].message.startswith(f"{told}; expected OTLP JSON lines")
        else:
            with pytest.raises(FileError, match=rf"none of 2 lines is understood \(the first is {told}\); expected"):
                import_file(store, path)

    def test_so_is_what_the_console_exporter_prints(self, store: SqliteStore, tmp_path: Path) -> None:
        """The real one, which prints over several lines."""
        with (tmp_path / "s").open("w") as out:
            ConsoleSpanExporter(out=out).export([ended_span(1), ended_span(2)])

        with pytest.raises(FileError, match="the first is the output of OpenTelemetry's console exporter"):
            import_file(store, tmp_path / "s")

    def test_a_file_of_another_kind_is_given_up_on(self, store: SqliteStore, tmp_path: Path) -> None:
        """After a thousand lines that say nothing."""
        with pytest.raises(
            FileError, match=r"none of 1000 lines is understood \(the first is no JSON .*\); expected OTLP JSON lines"
        ):
            import_file(store, lines(tmp_path / "s", *[b"a log line"] * 2_000))

    def test_a_small_file_of_another_kind_is_told_once(self, store: SqliteStore, tmp_path: Path) -> None:
        """Not once for each of its lines."""
        with pytest.raises(
            FileError, match=r"none of 3 lines is understood \(the first is no JSON .*\); expected OTLP JSON lines"
        ):
            import_file(store, lines(tmp_path / "s", *[b"a log line"] * 3))

    def test_what_stands_before_the_first_good_line_is_told(self, store: SqliteStore, tmp_path: Path) -> None:
        """Each with its line, as what stands behind it."""
        report = import_file(store, lines(tmp_path / "s", b"x", b"y", otlp(), b"z"))

        assert (report.spans_imported, [problem.line for problem in report.problems]) == (1, [1, 2, 4])

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"\x28\xb5\x2f\xfd\x00", "compressed with zstd; expected .*: decompress it first"),
            (b"\0\0\x01\0\x28\xb5\x2f\xfd\x00", "compressed by the Collector; expected .*: set no `compression`"),
            (b"SQLite format 3\0\x10", "a binary file; expected"),
            (b"\0\0\0\x05\x0a\x03", "a binary file; expected .* `format: json`"),
            ('{"resourceSpans": []}'.encode("utf-16"), "text in UTF-16; expected .*, in UTF-8"),
        ],
    )
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_what_is_no_text_is_told_once(
        self, store: SqliteStore, tmp_path: Path, content: bytes, told: str, pack: Any
    ) -> None:
        """What it is, and what to do about it."""
        (tmp_path / "s").write_bytes(pack(content))

        with pytest.raises(FileError, match=told):
            import_file(store, tmp_path / "s")

    @pytest.mark.parametrize(
        "written",
        [
            lambda requests: b"".join(orjson.dumps(one, option=orjson.OPT_INDENT_2) + b"\n" for one in requests),
            lambda requests: orjson.dumps(requests),
            lambda requests: orjson.dumps(requests, option=orjson.OPT_INDENT_2),
            lambda requests: b"[\n" + b",\n".join(map(orjson.dumps, requests)) + b"\n]",
            lambda requests: b"\r\n\r\n".join(map(orjson.dumps, requests)),
            lambda requests: b"\xef\xbb\xbf" + b"\n".join(map(orjson.dumps, requests)),
            lambda requests: gzip.compress(b"\n".join(map(orjson.dumps, requests))),
        ],
        ids=["pretty", "array", "pretty array", "array over lines", "crlf", "byte order mark", "gzip"],
    )
    def test_requests_may_be_written_otherwise(self, store: SqliteStore, tmp_path: Path, written: Any) -> None:
        """As people and other programs write them: the same spans are there."""
        requests = [otlp(), {"resourceLogs": []}, otlp({"spanId": f"{2:016x}"}, {"spanId": f"{3:016x}"})]
        (tmp_path / "s").write_bytes(written(requests))

        assert import_file(store, tmp_path / "s") == ImportReport(3, 0, 1, ())

    def test_a_line_of_gzip_that_becomes_large_is_told_and_takes_little_memory(
        self, store: SqliteStore, tmp_path: Path
    ) -> None:
        """400 KB of file become a line of 400 MB; the lines before and behind it are imported."""
        with gzip.open(tmp_path / "s", "wb") as file:
            file.write(orjson.dumps(otlp()) + b"\n" + b'{"resourceSpans": "')
            for _ in range(400):
                file.write(b"a" * 1_000_000)
            file.write(b'"}\n' + orjson.dumps(otlp({"spanId": f"{2:016x}"})) + b"\n")

        tracemalloc.start()
        try:
            report = import_file(store, tmp_path / "s")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert (report.spans_imported, report.spans_failed, report.problems[0].line) == (2, 1, 2)
        assert report.problems[0].message.startswith("a line of more than 64 MB; expected one request a line")
        assert peak < 200_000_000

    def test_large_spans_are_written_before_there_are_many_of_them(self, tmp_path: Path) -> None:
        """Memory holds 16 MB of a file, not a thousand spans of any size."""
        sizes = []

        class Counting:
            def write_rows(self, rows: list[Any], route: str) -> None:
                sizes.append(len(rows))

        text = "a" * 1_000_000
        spans = [
            otlp({"spanId": f"{at:016x}", "attributes": [{"key": "a", "value": {"stringValue": text}}]})
            for at in range(1, 41)
        ]

        import_file(Counting(), lines(tmp_path / "s", *spans))  # type: ignore[arg-type] # all that is used

        assert sizes == [17, 17, 6]

    @pytest.mark.parametrize("content", [gzip.compress(b"{}"), b"PAR1...PAR1"])
    def test_what_is_no_text_inside_of_gzip_is_told(self, store: SqliteStore, tmp_path: Path, content: bytes) -> None:
        """Twice compressed, or Parquet, which has a compression of its own."""
        (tmp_path / "s").write_bytes(gzip.compress(content))

        with pytest.raises(
            FileError, match=r"compressed with gzip, and its contents are not text; expected .*: decompress it"
        ):
            import_file(store, tmp_path / "s")

    @pytest.mark.parametrize(
        ("path", "told"), [("/dev/zero", "a binary file"), ("a\0b", "a path with NUL in it"), ("/", "Is a directory")]
    )
    def test_what_is_no_ordinary_file_is_told(self, store: SqliteStore, path: str, told: str) -> None:
        """A device has no end; a name with NUL cannot be opened."""
        with pytest.raises(FileError, match=told):
            import_file(store, path)

    def test_of_a_damaged_gzip_file_what_can_be_read_is_imported(self, store: SqliteStore, tmp_path: Path) -> None:
        """And the damage is told."""
        spans = [otlp({"spanId": f"{at:016x}", "name": f"{chance:x}"}) for at, chance in enumerate(NOISE, 1)]
        whole = gzip.compress(b"".join(orjson.dumps(one) + b"\n" for one in spans))
        (tmp_path / "s").write_bytes(whole[: len(whole) * 3 // 4])

        report = import_file(store, tmp_path / "s")

        assert 0 < report.spans_imported < len(spans)
        assert [problem.line for problem in report.problems] == [report.spans_imported + 1]
        assert report.problems[0].message.startswith("damaged gzip (")

    @pytest.mark.skipif(not Path("/dev/fd").exists(), reason="has no names for open files")
    @pytest.mark.parametrize("is_named", [True, False])
    def test_a_pipe_is_read_from_its_first_byte(self, store: SqliteStore, is_named: bool) -> None:
        """It gives its bytes once: what was looked at to know its kind is not lost."""
        theirs, ours = os.pipe()
        os.write(ours, b"".join(orjson.dumps(otlp({"spanId": f"{at:016x}"})) + b"\n" for at in range(1, 101)))
        os.close(ours)

        with os.fdopen(theirs, "rb") as pipe:
            report = import_file(store, f"/dev/fd/{theirs}" if is_named else pipe)

        assert report == ImportReport(100, 0, 0, ())

    @pytest.mark.parametrize("path", [5, None, io.StringIO("{}")])
    def test_what_is_no_file_is_refused(self, store: SqliteStore, path: Any) -> None:
        """With an exception of ours, as every argument."""
        with pytest.raises(ConfigurationError, match=r"expected a path, or a file that is open for reading bytes"):
            import_file(store, path)

    def test_bytes_that_have_no_name_are_read(self, store: SqliteStore) -> None:
        """A reader around what came from elsewhere."""
        content = orjson.dumps(otlp({"spanId": f"{1:016x}"}))

        assert import_file(store, io.BufferedReader(io.BytesIO(content))) == ImportReport(1, 0, 0, ())

    def test_parquet_from_a_pipe_is_told(self, store: SqliteStore) -> None:
        """It is read from its end, which a pipe has last."""
        theirs, ours = os.pipe()
        os.write(ours, b"PAR1")
        os.close(ours)

        with os.fdopen(theirs, "rb") as pipe, pytest.raises(FileError, match="Parquet from a pipe; expected a file"):
            import_file(store, pipe)

    @pytest.mark.parametrize("name", ["missing", "."])
    def test_a_file_that_cannot_be_read_is_told(self, store: SqliteStore, tmp_path: Path, name: str) -> None:
        """With its path and what was expected."""
        with pytest.raises(FileError, match="expected a file that can be read"):
            import_file(store, tmp_path / name)

    def test_spans_are_written_in_batches(self, tmp_path: Path) -> None:
        """Memory holds one batch; when the store fails, those before stay."""
        sizes = []

        class Failing:
            def write_rows(self, rows: list[Any], route: str) -> None:
                sizes.append(len(rows))
                if len(sizes) == 2:
                    raise StoreError("full")

        spans = [otlp({"spanId": f"{at:016x}"}) for at in range(1, 3_000)]

        with pytest.raises(StoreError, match="full"):
            import_file(Failing(), lines(tmp_path / "s", *spans))  # type: ignore[arg-type]

        assert sizes == [1_000, 1_000]
