"""`Client("serve://…")`: the store of a real server keeps the contract of every store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from tests.exporters import test_patch_exporters
from tests.exporters.loopback import Loopback, never
from tests.server.conftest import PATIENCE, Server, StartServer
from tests.store.conditions import (
    AUTHOR_SUBJECTS,
    CHANGE_SUBJECTS,
    LATE_COUNTS,
    ROUTE_SUBJECTS,
    conditions,
    spelled_name,
)
from tests.store.contract import (
    END_NS,
    START_NS,
    TRACE,
    OpenStore,
    StoreContract,
    ended_span,
    in_one_store,
    metadata,
    only,
    trace_hex,
)
from tests.store.contract_filters import FilterContract, fill, with_origins
from tests.store.contract_history import HistoryContract
from tests.store.contract_reads import ReadsContract
from tests.store.evaluator import Origins
from tests.store.spans import patches_of
from typer.testing import CliRunner

from otel_metadata.backends.serve import store as serve_store
from otel_metadata.backends.serve.patches import ServePatchExporter
from otel_metadata.backends.serve.store import ServeStore
from otel_metadata.cli.app import app
from otel_metadata.client.client import Client
from otel_metadata.destination_factory import make_destinations
from otel_metadata.destination_factory import open_store as open_url
from otel_metadata.errors import OtelMetadataError, StoreAccessError, StoreError, StoreUnsupportedError
from otel_metadata.model.condition import Condition, Subject
from otel_metadata.model.merge import LAST_NS
from otel_metadata.model.outcome import Delivered, Pause, Rejected
from otel_metadata.model.patch import Patch
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import PatchExporter
from otel_metadata.server.access import Access
from otel_metadata.server.run import LocalServer
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.sqlite import search
from otel_metadata.store.sqlite.store import SqliteStore
from otel_metadata.testing import ManualClock


def _url(server: Server) -> str:
    return server.url.replace("http", "serve", 1)


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """Return a server for which no version of the contracts is in the future."""
    return start_server(clock=ManualClock((1 << 63) - 1))


@pytest.fixture
def open_store(server: Server) -> Iterator[OpenStore]:
    opened: list[ServeStore] = []

    def one() -> ServeStore:
        store = open_url(_url(server))
        assert isinstance(store, ServeStore)
        opened.append(store)
        return store

    yield one
    for store in opened:
        store.close()


class TestContract(StoreContract):
    """What every store promises; a server refuses versions that no update of its own could follow."""

    last_ns = LAST_NS


class TestHistory(HistoryContract):
    """What a store with a memory promises."""

    last_ns = LAST_NS

    # The store behind the server has the names.
    test_a_store_remembers_the_names_of_a_bounded_number_of_writers = None


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """The store of the server."""
    store = SqliteStore(tmp_path_factory.mktemp("served") / "spans.db")
    yield store
    store.close()


@pytest.fixture(scope="module")
def filled(inside: SqliteStore) -> Iterator[ServeStore]:
    """A store of 150 spans; a search of the server looks at few of them between two looks at the clock."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search, "_FIRST_SLICE", 7)
        patched.setattr(search, "_LARGEST_SLICE", 20)
        server = LocalServer(inside).start()
        store = ServeStore(server.url)
        fill(store)
        yield store
        store.close()
        server.stop()


@pytest.fixture(scope="module")
def origins(filled: ServeStore) -> list[tuple[SpanRecord, Origins]]:
    return with_origins(filled)


# The server gets a filter as a text that means the same (`store.filter.text`), so fewer filters will do.
_SOME_ORIGINS = [*ROUTE_SUBJECTS[::4], *AUTHOR_SUBJECTS[2::4], *LATE_COUNTS]


class TestFilters(FilterContract):
    """What every store promises."""

    @pytest.fixture
    def judged(self, origins: list[tuple[SpanRecord, Origins]]) -> list[tuple[SpanRecord, Origins]]:
        return origins

    @in_one_store
    @given(condition=conditions())
    def test_a_filter_selects_what_the_evaluator_says(
        self, filled: ServeStore, judged: list[tuple[SpanRecord, Origins]], condition: Condition
    ) -> None:
        """As the client spells it."""
        self.check(filled, judged, SpanQuery(condition=condition, limit=None))

    @pytest.mark.parametrize("subject", CHANGE_SUBJECTS[1::4], ids=spelled_name)
    def test_a_value_is_found_by_the_time_it_was_set(
        self, filled: ServeStore, judged: list[tuple[SpanRecord, Origins]], subject: Subject
    ) -> None:
        super().test_a_value_is_found_by_the_time_it_was_set(filled, judged, subject)

    @pytest.mark.parametrize("subject", _SOME_ORIGINS, ids=spelled_name)
    def test_a_value_is_found_by_how_it_came_and_from_whom(
        self, filled: ServeStore, judged: list[tuple[SpanRecord, Origins]], subject: Subject
    ) -> None:
        super().test_a_value_is_found_by_how_it_came_and_from_whom(filled, judged, subject)


class TestReads(ReadsContract):
    """What every store promises."""

    @pytest.fixture
    def judge(self, inside: SqliteStore) -> SqliteStore:
        return inside


class TestPatchExporter(test_patch_exporters.TestContract):
    """What every patch exporter promises."""

    @pytest.fixture
    def exporter(self, server: Server) -> Iterator[PatchExporter]:
        (destination,) = make_destinations(_url(server))
        yield destination.patch_exporter
        destination.patch_exporter.shutdown()


LATE = {("span", "metadata", "k"): ("v", (END_NS + 1, 7))}


class TestUpdates:
    @pytest.fixture
    def exporter(self, server: Server) -> Iterator[ServePatchExporter]:
        exporter = ServePatchExporter(server.url)
        yield exporter
        exporter.shutdown()

    def test_an_update_without_its_trace_needs_the_span(self, server: Server, exporter: ServePatchExporter) -> None:
        """A span that is not stored is reported, and found once it is; its siblings in the batch are not kept back."""
        patches = [Patch(SpanRef(trace_id, 1), LATE) for trace_id in (0, TRACE)]
        missing, waiting = exporter.export(patches, timeout_millis=5_000)
        assert (type(missing), type(waiting)) == (Rejected, Delivered)
        assert missing.error.type == "segment_not_found"

        server.store.write([ended_span()])

        assert exporter.export(patches[:1], timeout_millis=5_000) == [Delivered()]
        assert only(server.store).metadata == {"k": "v"}

    def test_a_batch_that_is_larger_than_the_server_takes_is_too_large(self, exporter: ServePatchExporter) -> None:
        """The outbox then sends less at once."""
        large = {("span", "metadata", f"{at}"): ("x" * 1_000_000, (1, 7)) for at in range(20)}
        (outcome,) = exporter.export([Patch(SpanRef(TRACE, 1), large)], timeout_millis=20_000)
        assert isinstance(outcome, Rejected)
        assert outcome.error.type == "too_large"

    def test_a_token_that_may_not_update_pauses_the_destination(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        """Everything is kept until somebody gives it the scope; a program is told, and may still read."""
        tokens = Tokens(f"{tmp_path}/tokens")
        token = tokens.create("reader", ["read"], None, START_NS)
        server = start_server(access=Access(tokens))
        url = _url(server).replace("//", f"//{token}@")
        (destination,) = make_destinations(url)
        (outcome,) = destination.patch_exporter.export([Patch(SpanRef(TRACE, 1), LATE)], timeout_millis=5_000)
        assert isinstance(outcome, Pause)
        assert outcome.error.type == "unauthorized"
        destination.patch_exporter.shutdown()
        store = open_url(url)
        with pytest.raises(StoreAccessError, match="HTTP 403") as raised:
            store.patch([Patch(SpanRef(TRACE, 1), LATE)])
        assert token not in f"{raised.value}"
        assert store.query(SpanQuery()) == []
        store.close()


def said(step: Callable[[Client], object], client: Client) -> str:
    """Return the result of a step, or its error, without the name of the store."""
    try:
        return f"{step(client)!r}".replace(f"{client.spans._store}", "STORE")
    except OtelMetadataError as error:
        return f"{error!r}".replace(f"{client.spans._store}", "STORE")


class TestStore:
    def test_many_rows_go_in_several_requests(self, server: Server) -> None:
        """More than one request may hold, and pages of more than one answer may hold."""
        store = ServeStore(server.url)
        rows = [(ended_span(at, start_ns=START_NS + at, attributes={"text": "x" * 20_000})) for at in range(1, 401)]
        store.write(rows)
        store.patch_rows((trace_hex(), f"{at:016x}", LATE) for at in range(1, 401))
        every = store.query(SpanQuery(limit=None))
        assert every == server.store.query(SpanQuery(limit=None))
        assert {record.metadata["k"] for record in every} == {"v"}
        assert len(store.find([f"{at:016x}" for at in range(1, 6_000)])) == 400
        deleted = store.delete([(trace_hex(), f"{at:016x}") for at in range(1, 6_000)], (END_NS + 9, 7))
        assert len(deleted) == 400
        store.close()

    def test_an_answer_that_is_too_large_is_asked_for_in_parts(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half of the spans at once, and so on; a single one of that size is an error that says so."""
        monkeypatch.setattr(serve_store, "_MAX_ANSWER_BYTES", 50_000)
        store = ServeStore(server.url)
        spans = [ended_span(at, start_ns=START_NS + at, attributes={"text": "x" * 20_000}) for at in range(1, 8)]
        store.write(spans)
        assert store.query(SpanQuery(limit=None)) == server.store.query(SpanQuery(limit=None))
        assert len(store.query(SpanQuery(limit=3))) == 3
        store.write([ended_span(9, start_ns=START_NS - 1, attributes={"text": "x" * 60_000})])
        with pytest.raises(StoreError, match="came back for one span"):
            store.query(SpanQuery(limit=None))
        store.close()

    def test_what_the_store_of_the_server_does_not_keep_is_told_at_once(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        """It is no failure that a later try would mend, so nobody waits for one."""
        server = start_server(store=SqliteStore(tmp_path / "spans.db", history=False))
        server.store.write([ended_span()])
        store = ServeStore(server.url)
        for ask in (
            lambda: store.history(trace_hex(), f"{1:016x}"),
            lambda: store.query(SpanQuery(at_ns=END_NS)),
            lambda: store.export_rows(SpanQuery(at_ns=END_NS)),
        ):
            with pytest.raises(StoreUnsupportedError):
                ask()
        assert server.call("GET", f"/api/v1/spans/{1:016x}/history").status == 501
        store.close()

    def test_a_retention_is_that_of_the_server(self, server: Server) -> None:
        """By age; what is left is counted there."""
        store = ServeStore(server.url)
        store.write([ended_span(at, start_ns=START_NS + at) for at in (1, 2, 3)])
        assert store.retain(START_NS + 3, None).spans_deleted == 2
        assert [record.span_id[-1] for record in store.query(SpanQuery())] == ["3"]
        store.close()

    def test_an_export_brings_the_history_along(self, server: Server, tmp_path: Path) -> None:
        """From the server to a file, and from there into another store: the same values with their routes."""
        pytest.importorskip("pyarrow")
        server.store.write([ended_span(fields=metadata(k="live"))])
        server.store.patch([Patch(SpanRef(TRACE, 1), LATE)])
        with Client(_url(server)) as client, Client(f"sqlite:///{tmp_path}/copy.db", create=True) as copy:
            assert client.spans.export_to_parquet(tmp_path / "spans.parquet") == 1
            copy.spans.import_file(tmp_path / "spans.parquet")
            span_id = f"{1:016x}"
            assert copy.spans.history(span_id) == client.spans.history(span_id)
            assert [(value.value, value.route) for value in copy.spans.history(span_id)] == [
                ("v", "late"),
                ("live", "live"),
            ]

    def test_a_client_says_the_same_of_a_server_as_of_a_file(self, server: Server, tmp_path: Path) -> None:
        """Results and errors of its methods, but for the name of the store."""
        root = ended_span(1, name="root")
        spans = [root, *(ended_span(at, start_ns=START_NS + at, parent=root.context) for at in range(2, 8))]
        here = SqliteStore(tmp_path / "here.db")
        for store in (here, server.store):
            store.write(spans)
        ids, unknown = [f"{at:016x}" for at in range(1, 8)], "f" * 16
        rows = [{"context.span_id": one, "attributes.metadata.k": at} for at, one in enumerate([*ids, unknown])]
        logged = {
            "context.span_id": "a" * 16,
            "context.trace_id": trace_hex(77),
            "name": "logged",
            "start_time": "2026-01-01",
            "end_time": "2026-01-02",
        }
        ever = {"start_time": "2000-01-01"}
        steps: list[Callable[[Client], object]] = [
            lambda client: client.spans.update(ids[0], metadata={"a": [None]}, status=404, user_id="u").spans_updated,
            lambda client: client.spans.update(trace_hex(), level="trace", name="T", tags=["t"]).spans_updated,
            lambda client: client.spans.update(unknown, metadata={"a": 1}),
            lambda client: client.spans.update_metadata(rows).errors,
            lambda client: client.spans.log([logged], project_name="p").spans_updated,
            lambda client: [(one.name, dict(one.metadata)) for one in client.spans.list(**ever)],
            lambda client: [one.span_id for one in client.spans.list(filter="NOT metadata.k > 2", limit=2, **ever)],
            lambda client: [one.span_id for one in client.spans.iter(**ever)],
            lambda client: client.spans.list(filter="metadata.k >"),
            lambda client: client.spans.get(ids[0], at="2023-11-15").metadata,
            lambda client: client.spans.get(ids[0], at="2020-01-01"),
            lambda client: client.spans.get(unknown),
            lambda client: [(one.key, one.value, one.route, one.author) for one in client.spans.history(ids[0])],
            lambda client: [(one.name, one.spans, one.late_values) for one in client.traces.list(**ever)],
            lambda client: [one.span_id for one in client.traces.get(trace_hex()).spans],
            lambda client: client.traces.outline(trace_hex()),
            lambda client: client.traces.outline(trace_hex(99)),
            lambda client: client.spans.count(filter="metadata.k < 3", **ever),
            lambda client: client.spans.delete([ids[6], unknown]),
            lambda client: client.spans.retain(older_than="2024-01-01").spans_deleted,
            lambda client: [one.span_id for one in client.spans.list(**ever)],
        ]
        with Client(f"sqlite:///{here.path}", author="judge") as file, Client(_url(server), author="judge") as served:
            for number, step in enumerate(steps):
                assert said(step, file) == said(step, served), number
        here.close()

    def test_the_command_line_works_on_a_server(self, server: Server) -> None:
        """With `--store`, as on any other store."""
        server.store.write([ended_span()])
        for words in (["patch", f"{1:016x}", "-m", "k=5"], ["show", f"{1:016x}", "--json"]):
            result = CliRunner().invoke(app, [*words, "--store", _url(server)], env={"TERM": "dumb"})
            assert result.exit_code == 0, result.output
        assert only(server.store).metadata == {"k": 5}

    def test_threads_share_a_store(self, server: Server) -> None:
        """Each has a connection of its own while it waits."""
        store = ServeStore(server.url)
        store.write([ended_span()])

        def update(writer: int) -> int:
            for patch in patches_of(writer, 10):
                store.patch([patch])
            return len(store.query(SpanQuery()))

        with ThreadPoolExecutor(4) as pool:
            assert [*pool.map(update, range(4))] == [1] * 4
        assert len(only(store).metadata) == 41
        store.close()

    def test_many_threads_write_spans_at_once(self, server: Server) -> None:
        """More than the server imports at once: they wait for one another, and none is refused."""
        store = ServeStore(server.url)

        def write(number: int) -> None:
            for at in range(3):
                store.write([ended_span(number * 1_000 + at * 100 + one + 1) for one in range(50)])

        with ThreadPoolExecutor(12) as pool:
            assert [*pool.map(write, range(12))] == [None] * 12
        assert store.count(SpanQuery(limit=None)).counted == 12 * 3 * 50
        store.close()

    def test_a_forked_child_has_connections_of_its_own(self, server: Server) -> None:
        """Both go on with the same store, and neither reads the other's answer."""
        store = ServeStore(server.url)
        store.write([ended_span()])
        child = os.fork()
        if child == 0:
            try:
                store.patch([Patch(SpanRef(TRACE, 1), LATE)])
                os._exit(len(store.query(SpanQuery())))
            finally:
                os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert only(store).metadata == {"k": "v"}
        store.close()

    def test_closing_ends_a_request_that_waits(self) -> None:
        """Of another thread, which gets an error; the store can be used again."""
        with Loopback(never) as silent:
            store = ServeStore(silent.url)
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(store.query, SpanQuery())
                assert silent.is_asked.wait(PATIENCE)
                store.close()
                with pytest.raises(StoreError, match=r"answer broke off|shut down"):
                    asked.result(PATIENCE)
