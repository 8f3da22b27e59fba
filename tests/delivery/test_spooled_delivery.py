"""Delivery with a spool, through the lives of several processes: each update ends in exactly one count."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from tests.delivery.conftest import SaysNothing, Scene
from tests.delivery.processes import forget_what_is_queued

import otel_metadata as om
from otel_metadata.delivery.outbox_settings import OutboxSettings
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.exporters.memory import InMemoryPatchExporter
from otel_metadata.live import routing
from otel_metadata.model.outcome import Delivered, DeliveryError, Rejected, Retry
from otel_metadata.spool import dead_letters
from otel_metadata.spool import spool as spool_module
from otel_metadata.spool.spool import Spool, SpoolSettings
from otel_metadata.testing import ManualClock, RecordingSpanExporter

DOWN = Retry(DeliveryError("connection_failure", "down"))


class Life(Scene):
    """A process with one destination, `memory`, and the spool at a path."""

    def __init__(
        self,
        path,
        *,
        clock=None,
        hold_millis=0,
        convergence="versioned",
        answer=None,
        durability="process",
        dialect=None,
        **changed,
    ) -> None:
        self.clock = clock or ManualClock()
        self.spans = RecordingSpanExporter()
        self.patches = InMemoryPatchExporter(answer, convergence=convergence)
        self.letters: list[object] = []
        self.spool = Spool(SpoolSettings(str(path), durability), clock=self.clock)
        destination = om.Destination(
            "memory",
            self.spans,
            self.patches,
            dialect or OtelDialect(max_attributes=None, span_limit=None),
            hold_millis=hold_millis,
            remote_grace_millis=0,
        )
        self.processor = om.MetadataSpanProcessor(
            destination,
            settings=OutboxSettings(**changed),
            clock=self.clock,
            start_workers=False,
            chance=lambda: 1.0,
            spool=self.spool,
            on_dead_letter=self.letters.append,
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("application")
        self.worker = self.processor.workers[0]

    def take_over(self, millis: float = 5_000) -> None:
        """Read what dead processes have left, then let its time come."""
        self.step_all()
        self.wait_and_step(millis)

    def die(self) -> None:
        """End as a kill does: nothing that is queued is written, nothing is counted; the leases end."""
        assert self.stats.is_balanced
        forget_what_is_queued(self.spool)
        self.spool.close()
        self.processor.shutdown()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spool" / "spool.db"


def test_a_late_update_survives_its_process(path):
    """The next process adopts it, delivers it, and nothing stays behind."""
    first = Life(path, answer=lambda _: DOWN)
    ref = first.unseen()
    assert om.update_span(ref, metadata={"thumbs": "up"}).route == "late"
    first.die()
    second = Life(path)
    second.take_over()
    assert second.final(ref) == {"thumbs": "up"}
    assert (second.stats.adopted, second.stats.delivered, second.stats.waiting) == (1, 1, 0)


def test_a_held_span_survives_with_what_was_joined(path):
    """The span and its updates come back as one exported span."""
    first = Life(path, hold_millis=60_000)
    ref = first.ended(step=1)
    assert om.update_span(ref, metadata={"step": 2, "verdict": "good"}).route == "in_flight"
    first.worker.step()
    first.die()
    second = Life(path, hold_millis=60_000)
    second.take_over(61_000)
    assert second.on_span(ref) == {"step": 2, "verdict": "good"}
    assert second.patches.patches == []
    assert (second.stats.adopted, second.stats.delivered) == (2, 2)


@pytest.mark.parametrize("processes", [1, 4])
def test_large_held_spans_that_are_taken_over_push_out_none(path, processes):
    """What dead processes have left is read as there is room for it: none of it is dropped from a full outbox."""
    for process in range(processes):
        before = Life(path, hold_millis=60_000)
        for number in range(60 // processes):
            with before.tracer.start_as_current_span("span", attributes={"text": "x" * 20_000}):
                om.update_current_span(metadata={"n": number, "process": process})
            before.worker.step()
        before.die()
    life = Life(path, hold_millis=60_000, max_bytes=400 * 1024, max_export_batch_size=8)
    life.take_over(60_000)
    assert (life.stats.spans_exported, life.stats.spans_evicted, life.lost) == (60, 0, {})
    assert (life.stats.delivered, life.stats.waiting) == (60, 0)


def test_an_update_in_flight_stays_until_its_span_was_acknowledged(path):
    """While the export fails, the joined update is on disk; a death then loses the span, not the update."""
    first = Life(path)
    first.spans.answer = lambda: SpanExportResult.FAILURE
    ref = first.ended()
    assert om.update_span(ref, metadata={"a": 1}).route == "in_flight"
    first.clock.advance(5_000)
    first.worker.step()
    first.die()
    second = Life(path)
    second.take_over()
    assert second.final(ref) == {"a": 1}


def test_after_the_acknowledgement_nothing_is_left(path):
    """An update that left with its span is not adopted by the next process."""
    first = Life(path)
    ref = first.ended()
    om.update_span(ref, metadata={"a": 1})
    first.wait_and_step()
    first.worker.step()
    assert first.on_span(ref) == {"a": 1}
    first.die()
    assert not Life(path).outbox.partition.has_more


@pytest.mark.parametrize("count", [1, 7])
def test_what_is_handed_over_is_what_the_next_adopts(path, count):
    """At a shutdown that could not deliver, `handed_over` here is `adopted` there."""
    first = Life(path, answer=lambda _: DOWN)
    refs = [first.unseen(number) for number in range(1, count + 1)]
    for ref in refs:
        om.update_span(ref, metadata={"n": ref.span_id})
    first.processor.shutdown()
    assert (first.stats.handed_over, first.lost) == (count, {})
    second = Life(path)
    second.take_over()
    assert second.stats.adopted == count
    assert [second.final(ref) for ref in refs] == [{"n": ref.span_id} for ref in refs]


def test_beyond_the_window_updates_are_spilled_and_arrive_in_order(path):
    """What does not fit into memory waits on disk alone, and versions of a target still ascend."""
    life = Life(path, spool_window=3, convergence="ordered")
    for number in range(1, 31):
        om.update_span(life.unseen(number % 10 + 1), metadata={"n": number})
    assert life.stats.late == 30
    for _ in range(20):
        life.wait_and_step()
    assert [life.final(life.unseen(number % 10 + 1)) for number in range(21, 31)] == [
        {"n": number} for number in range(21, 31)
    ]
    sent: dict[int, list[object]] = {}
    for patch in life.patches.patches:
        sent.setdefault(patch.target.span_id, []).append(patch.metadata()["n"])
    assert all(values == sorted(values) for values in sent.values())  # type: ignore[type-var] # numbers
    assert (life.stats.delivered, life.lost) == (30, {})


def test_no_update_overtakes_one_that_was_spilled(path):
    """What finds no room beside its span goes to disk, and all that follows goes after it, not with the span."""
    life = Life(path, convergence="ordered", max_bytes=40 * 1024)
    for number in range(1, 4):
        om.update_span(life.unseen(number), metadata={"text": ["x" * 12_000]})
    ref = life.ended()
    life.outbox.weigh_waiting()
    assert om.update_span(ref, metadata={"a": 1, "text": [letter * 13_000 for letter in "xyz"]}).route == "late"
    assert life.outbox._spilled == 1
    assert om.update_span(ref, metadata={"a": 2}).route == "late"
    for _ in range(5):
        life.wait_and_step()
    assert (life.on_span(ref), life.final(ref)["a"], life.stats.delivered) == ({}, 2, 5)


@pytest.mark.parametrize("is_held", [False, True])
def test_one_field_that_is_set_again_and_again_takes_no_more_memory_than_the_window(path, is_held):
    """The rows of what is merged in memory count for its bound: beyond it further updates are on disk only."""
    life = Life(path, max_bytes=40 * 1024, hold_millis=3_600_000)
    ref = life.ended() if is_held else life.unseen()
    life.outbox.weigh_waiting()
    for number in range(1_000):
        assert om.update_span(ref, metadata={"n": [number]})
    spans, patches = life.outbox._spans, life.outbox._patches
    held = [len(one.rows or ()) for one in (*spans.all(), *patches.all())]
    assert sum(held) < 2 * 410
    assert life.stats.buffered_bytes <= 2 * 41 * 1024
    assert life.stats.late + life.stats.in_flight == 1_000
    for _ in range(20):
        life.processor.force_flush()
        life.wait_and_step(10_000)
    assert (life.final(ref), life.stats.delivered, life.stats.buffered_bytes) == ({"n": [999]}, 1_000, 0)


@pytest.mark.usefixtures("unknown_keys")
def test_a_plain_update_is_spilled_unlooked_at(path, monkeypatch):
    """While others are on disk alone, an update of known keys goes there at once: nothing else decides about it."""
    life = Life(path, spool_window=2)
    for number in range(1, 4):
        om.update_span(life.unseen(number), metadata={"n": number})
    monkeypatch.setattr(life.outbox, "submit", lambda *_: pytest.fail("the general way"))
    for number in range(4, 8):
        assert om.update_span(life.unseen(number % 3 + 1), metadata={"n": number}).route == "late"
    monkeypatch.undo()
    assert life.stats.late == 7
    for _ in range(6):
        life.wait_and_step()
    assert [life.final(life.unseen(number)) for number in (1, 2, 3)] == [{"n": 6}, {"n": 7}, {"n": 5}]
    assert (life.stats.delivered, life.lost) == (7, {})


def test_plain_updates_that_cannot_be_written_are_spilled_in_memory(path):
    """Where the disk cannot be written any more, what is spilled waits in the queue, and is delivered from there."""
    life = Life(path, spool_window=2, durability="power")
    for number in range(1, 4):
        om.update_span(life.unseen(number), metadata={"n": number})
    with life.spool.reading() as connection:
        connection.execute("PRAGMA query_only = ON")
    for number in range(4, 8):
        om.update_span(life.unseen(number), metadata={"n": number})
    assert life.stats.unspooled == 4
    for _ in range(6):
        life.wait_and_step()
    assert [life.final(life.unseen(number)) for number in range(1, 8)] == [{"n": number} for number in range(1, 8)]
    assert (life.stats.delivered, life.lost) == (7, {})


@pytest.mark.parametrize("is_exported", [True, False], ids=["remainder", "failed"])
def test_what_follows_a_span_is_spilled_beyond_the_window(path, is_exported):
    """Patches that spans leave behind do not fill memory either: they are on disk, and delivered from there."""
    life = Life(path, dialect=SaysNothing(), spool_window=3, span_retry_millis=0, answer=lambda _: DOWN)
    life.spans.answer = None if is_exported else lambda: SpanExportResult.FAILURE
    refs = [life.ended() for _ in range(10)]
    for ref in refs:
        om.update_span(ref, metadata={"a": [1]})
        om.update_span(ref, metadata={"b": [2]})
    life.wait_and_step()
    assert (len(life.outbox._patches), life.stats.late, life.lost) == (3, 20, {})
    life.patches.answer = None
    for _ in range(30):
        life.wait_and_step(10_000)
    assert [life.final(ref) for ref in refs] == [{"a": [1], "b": [2]}] * 10
    assert (life.stats.delivered, life.stats.waiting, life.lost) == (20, 0, {})


def test_what_followed_a_span_and_was_spilled_survives(path):
    """A shutdown hands over each update in a spilled patch, and the next process has them."""
    first = Life(path, dialect=SaysNothing(), spool_window=1, answer=lambda _: DOWN)
    refs = [first.ended() for _ in range(3)]
    for ref in refs:
        om.update_span(ref, metadata={"a": [1]})
        om.update_span(ref, metadata={"b": [2]})
    first.wait_and_step()
    first.processor.shutdown()
    assert (first.stats.handed_over, first.lost) == (6, {})
    second = Life(path)
    second.take_over()
    assert [second.final(ref) for ref in refs] == [{"a": [1], "b": [2]}] * 3
    assert second.stats.adopted == 6


def test_what_followed_a_span_and_could_not_be_spilled_is_counted(path):
    """Spilled patches that are not on disk at the end are lost, each update in them."""
    life = Life(path, dialect=SaysNothing(), spool_window=1, answer=lambda _: DOWN, durability="power")
    for _ in range(3):
        ref = life.ended()
        om.update_span(ref, metadata={"a": [1]})
        om.update_span(ref, metadata={"b": [2]})
    with life.spool.reading() as connection:
        connection.execute("PRAGMA query_only = ON")
    life.wait_and_step()
    life.processor.shutdown()
    assert (life.stats.waiting, life.stats.handed_over, life.lost) == (0, 0, {"shutdown_deadline": 6})


def test_spilled_updates_survive_too(path):
    """A death with spilled rows: the next process has them all."""
    first = Life(path, spool_window=2, answer=lambda _: DOWN)
    for number in range(1, 11):
        om.update_span(first.unseen(number), metadata={"n": number})
    first.die()
    second = Life(path)
    second.take_over()
    assert [second.final(second.unseen(number)) for number in range(1, 11)] == [{"n": n} for n in range(1, 11)]
    assert (second.stats.adopted, second.stats.delivered) == (10, 10)


def test_a_dead_letter_is_kept(path):
    """What was refused for good is in the spool with its reason, and is not sent again by the next process."""
    first = Life(path, answer=lambda _: Rejected(DeliveryError("patch_failure", "bad")))
    om.update_span(first.unseen(), metadata={"a": 1})
    first.wait_and_step()
    first.worker.step()
    assert first.lost == {"rejected": 1}
    assert len(first.letters) == 1
    first.die()
    second = Life(path)
    second.take_over()
    assert second.stats.adopted == 0
    (letter,) = dead_letters.letters(second.spool)
    assert (letter.reason, letter.target, letter.updates) == ("rejected", second.unseen(), 1)


def test_a_stale_version_is_not_sent_where_versions_are_not_compared(path):
    """An adopted update that is older than what was said here changes nothing on an `ordered` destination."""
    first = Life(path, answer=lambda _: DOWN)
    om.update_span(first.unseen(), metadata={"a": "old"})
    routing.remove_router(first.processor)  # as in another process
    second = Life(path, convergence="ordered")
    om.update_span(second.unseen(), metadata={"a": "new"})
    second.take_over()
    first.die()
    second.wait_and_step(6_000)
    second.take_over()
    assert second.sent() == [{"a": "new"}]
    assert (second.stats.adopted, second.stats.delivered, second.stats.waiting) == (1, 2, 0)


def test_a_disk_that_cannot_be_written_is_counted_and_delivery_goes_on(path):
    """Updates wait in memory, `unspooled` says how many, and they are delivered from there."""
    life = Life(path, durability="power")
    with life.spool.reading() as connection:
        connection.execute("PRAGMA query_only = ON")
    ref = life.unseen()
    assert om.update_span(ref, metadata={"a": 1}).route == "late"
    assert life.stats.unspooled == 1
    life.wait_and_step()
    assert life.final(ref) == {"a": 1}
    life.worker.step()
    assert (life.stats.unspooled, life.stats.delivered) == (0, 1)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_full_disk_is_no_worse_than_no_spool(path, durability):
    """What was spilled before is read, from the database and from the journal, without writing; what comes after has
    the room in memory that it has without a spool."""
    up = []
    life = Life(path, durability=durability, spool_window=5, answer=lambda _: Delivered() if up else DOWN)
    for number in range(40):
        assert om.update_span(om.SpanRef(7, number + 1), metadata={f"k{number}": [number]})
        if number == 20:
            life.wait_and_step()  # some rows are in the database, some in the journal
            with life.spool.reading() as connection:
                connection.execute("PRAGMA query_only = ON")
    up.append(True)
    for _ in range(20):
        life.wait_and_step(60_000)
    sent = {key for patch in life.patches.patches for key in patch.metadata()}
    assert sent == {f"k{number}" for number in range(40)}
    assert (life.stats.waiting, life.stats.delivered, life.lost) == (0, 40, {})


def test_a_full_queue_of_the_spool_leaves_updates_to_memory(path, monkeypatch):
    monkeypatch.setattr(spool_module, "_MAX_QUEUED", 3)
    life = Life(path, durability="power", spool_window=2)
    with life.spool.reading() as connection:
        connection.execute("PRAGMA query_only = ON")
    for number in range(30):
        assert om.update_span(om.SpanRef(7, number + 1), metadata={f"k{number}": [number]})
    for _ in range(5):
        life.wait_and_step(60_000)
    assert (life.stats.waiting, life.stats.delivered, life.lost) == (0, 30, {})


def test_what_was_delivered_before_a_kill_is_delivered_at_most_again(path):
    """A death between the answer and the erasure: the same version goes twice, and the value is the same."""
    first = Life(path, answer=lambda _: Delivered())
    ref = first.unseen()
    om.update_span(ref, metadata={"a": 1})
    first.clock.advance(5_000)
    first.worker.step()
    first.die()
    second = Life(path)
    second.take_over()
    assert second.sent() in ([], [{"a": 1}])


# --- flush and shutdown -----------------------------------------------------------------------------------------------


def ticket_of(life, seconds=30):
    """Ask for a flush; return its ticket, and a list that is true once it is over."""
    done = []
    return life.outbox.request_flush(lambda: done.append(True), life.clock.monotonic_ns() + seconds * 10**9), done


def waits_for_minutes(*numbers):
    """Answer patches for these spans with a long Retry-After, others with delivered."""
    later = Retry(DeliveryError("connection_failure", "busy"), after_millis=250_000)
    return lambda patch: later if patch.target.span_id in numbers else Delivered()


def test_a_flush_is_over_when_nothing_more_is_read(path):
    """While patches that may not go leave too little room to read what is on disk, a flush does not wait for that."""
    life = Life(path, spool_window=4, answer=waits_for_minutes(1, 2, 3))
    for number in range(1, 10):
        om.update_span(life.unseen(number), metadata={"n": [number]})
    life.wait_and_step()
    assert (len(life.outbox._patches), life.outbox._spilled) == (3, 5)
    ticket, done = ticket_of(life)
    assert (done, ticket.is_clean) == ([True], False)


def test_a_flush_does_not_wait_for_what_may_not_go_in_time_and_was_read_back(path):
    """An update that is read back and joins a patch that waits out a Retry-After is not waited for either."""
    life = Life(path, spool_window=4, answer=waits_for_minutes(1))
    for number in (1, 2, 3, 4, 5, 1):
        om.update_span(life.unseen(number), metadata={f"n{number}": [number]})
    assert life.outbox._spilled == 2
    ticket, done = ticket_of(life)
    life.step_all()
    assert (done, ticket.is_clean) == ([True], False)
    assert (life.stats.delivered, life.stats.late) == (4, 2)


def test_what_a_flush_reads_back_need_not_wait_for_the_back_off(path):
    """An update that is read back for a flush, and joins a patch that waits out its back-off, is tried in it."""
    life = Life(path, spool_window=4)
    for number in (1, 2, 3, 4, 5, 1):
        om.update_span(life.unseen(number), metadata={f"n{number}": [number]})
    answers = [DOWN]
    life.patches.answer = lambda patch: answers.pop() if answers and patch.target.span_id == 1 else Delivered()
    ticket, done = ticket_of(life)
    life.step_all()
    assert (done, ticket.is_clean) == ([True], False)
    assert (life.stats.delivered, life.stats.late) == (6, 0)


def test_rows_that_are_read_while_a_shutdown_gives_up_stay_with_the_spool(path):
    """They were handed over: the reader that comes back changes no count, and holds nothing."""
    life = Life(path, spool_window=2, answer=lambda _: DOWN)
    for number in range(1, 4):
        om.update_span(life.unseen(number), metadata={"n": [number]})
    rows = life.outbox.partition.load(10, 1 << 30)
    assert len(rows) == 1
    life.processor.shutdown()
    after = life.stats
    life.outbox.admit_rows(rows, 0)
    assert life.stats == after
    assert (after.handed_over, after.waiting, len(life.outbox._patches)) == (3, 0, 0)


def test_only_what_has_a_row_is_handed_over(path, monkeypatch):
    """Of the updates joined to a span, one for which the spool had no room is lost at shutdown, not handed over."""
    life = Life(path, span_retry_millis=0)
    life.spans.answer = lambda: SpanExportResult.FAILURE
    ref = life.ended()
    om.update_span(ref, metadata={"a": [1]})
    with monkeypatch.context() as patch:
        patch.setattr(life.spool, "has_room", lambda: False)
        om.update_span(ref, metadata={"b": [1]})
    om.update_span(ref, metadata={"c": [1]})
    life.outbox.close()
    life.worker.give_up("shutdown_deadline")
    assert (life.stats.handed_over, life.lost) == (2, {"shutdown_deadline": 1})
