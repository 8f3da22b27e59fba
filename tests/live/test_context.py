"""What is inherited where: threads, pools, tasks; and that nothing leaks between what runs at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace

import otel_metadata as om

pytestmark = pytest.mark.usefixtures("no_detach_errors")


def bare_child(scene) -> None:
    """Open and end a plain OpenTelemetry span."""
    with scene.tracer.start_as_current_span("child"):
        pass


def in_thread(run) -> None:
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def in_pool(run) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


def in_thread_with_context(run) -> None:
    """Run on a thread, the way that OpenTelemetry's docs pass the context on by hand."""
    context = otel_context.get_current()

    def attached() -> None:
        token = otel_context.attach(context)
        run()
        otel_context.detach(token)

    in_thread(attached)


class TestThreads:
    @pytest.mark.parametrize("carry", [in_thread, in_pool])
    def test_a_thread_inherits_what_opentelemetry_inherits(self, scene, carry):
        """A new thread and a pool inherit neither span nor metadata, exactly as without us."""
        inherited = []
        with om.using_metadata({"tenant": "acme"}), om.start_span("parent"):
            carry(lambda: (inherited.append(trace.get_current_span()), bare_child(scene)))

        assert inherited == [trace.INVALID_SPAN]
        assert scene.parent_name("child") is None
        assert scene.record("child").metadata == {}

    def test_a_context_that_is_passed_by_hand_carries_metadata_too(self, scene):
        """Attached OpenTelemetry context on another thread brings the span and the metadata."""
        with om.using_metadata({"tenant": "acme"}), om.start_span("parent"):
            in_thread_with_context(lambda: bare_child(scene))

        assert scene.parent_name("child") == "parent"
        assert scene.record("child").metadata == {"tenant": "acme"}

    def test_to_thread_inherits(self, scene):
        """asyncio.to_thread carries span and metadata, and an update there is of the task's span."""

        @om.observe(name="caller")
        async def caller():
            with om.using_metadata({"tenant": "acme"}):
                await asyncio.to_thread(
                    lambda: (om.update_current_span(metadata={"from": "thread"}), bare_child(scene))
                )

        asyncio.run(caller())

        assert scene.parent_name("child") == "caller"
        assert scene.record("child").metadata == {"tenant": "acme"}
        assert scene.record("caller").metadata == {"from": "thread", "tenant": "acme"}

    def test_threads_at_once_do_not_mix(self, scene):
        """Eight threads that are inside the same observed function at once have a trace and metadata each."""
        barrier = threading.Barrier(8)

        @om.observe(name="work")
        def work(number):
            with om.using_metadata({"number": number}):
                barrier.wait(10)
                om.update_current_span(metadata={"again": number})
                with om.start_span("inner"):
                    barrier.wait(10)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        scene.deliver()

        outer = {one.span_id: one for one in scene.pipeline.records() if one.name == "work"}
        inner = [one for one in scene.pipeline.records() if one.name == "inner"]
        assert sorted(one.metadata["number"] for one in outer.values()) == list(range(8))
        assert all(one.metadata["number"] == one.metadata["again"] == one.input["number"] for one in outer.values())
        assert all(one.metadata["number"] == outer[one.parent_id].metadata["number"] for one in inner)

    def test_one_block_may_be_entered_on_many_threads(self, scene):
        """One using_metadata object, entered by several threads at once, binds on each and leaves nothing behind."""
        shared = om.using_metadata({"shared": True})
        barrier = threading.Barrier(4)
        left = []

        def work(number):
            with shared:
                barrier.wait(10)
                with om.start_span(f"inside {number}"):
                    barrier.wait(10)
            barrier.wait(10)
            with om.start_span(f"after {number}"):
                left.append(otel_context.get_current())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        scene.deliver()

        assert {one.name: one.metadata for one in scene.pipeline.records()} == {
            **{f"inside {number}": {"shared": True} for number in range(4)},
            **{f"after {number}": {} for number in range(4)},
        }


class TestTasks:
    def test_a_task_inherits_span_and_metadata(self, scene):
        """create_task carries both, from where it is called."""

        async def child():
            bare_child(scene)

        async def main():
            with om.using_metadata({"tenant": "acme"}), om.start_span("parent"):
                await asyncio.create_task(child())

        asyncio.run(main())

        assert scene.parent_name("child") == "parent"
        assert scene.record("child").metadata == {"tenant": "acme"}

    def test_what_a_task_binds_is_not_its_parents(self, scene):
        """Metadata bound in a task reaches neither its parent nor its siblings."""

        async def child(number):
            with om.using_metadata({"number": number}):
                await asyncio.sleep(0)
                with om.start_span(f"child {number}"):
                    await asyncio.sleep(0)

        async def main():
            await asyncio.gather(child(1), child(2))
            with om.start_span("parent"):
                pass

        asyncio.run(main())
        scene.deliver()

        assert {one.name: one.metadata for one in scene.pipeline.records()} == {
            "child 1": {"number": 1},
            "child 2": {"number": 2},
            "parent": {},
        }

    def test_a_thousand_tasks_at_once_leak_nothing(self, scene):
        """1,000 concurrent tasks, each with its own metadata and updates at every level, end with their own only."""

        @om.observe(name="inner")
        async def inner(number):
            await asyncio.sleep(0)
            om.update_current_span(metadata={"inner": number})
            om.update_current_trace(metadata={"seen by": number})
            await asyncio.sleep(0)
            return number

        @om.observe(name="outer")
        async def outer(number):
            async with om.using_metadata({"bound": number}, user_id=f"u-{number}", tags=[f"t-{number}"]):
                await asyncio.sleep(0)
                om.update_current_span(metadata={"outer": number})
                with om.capture_spans() as captured:
                    assert await inner(number) == number
            await asyncio.sleep(0)
            assert len(captured.all) == 1
            om.update_span(captured.last, metadata={"captured": number})

        async def main():
            await asyncio.gather(*(outer(number) for number in range(1_000)))

        asyncio.run(main())
        scene.deliver()

        records = scene.pipeline.records()
        assert len(records) == 2_000
        outers = {one.trace_id: one for one in records if one.name == "outer"}
        assert len(outers) == 1_000
        for trace_id, one in outers.items():
            number = one.input["number"]
            assert one.metadata == {"bound": number, "outer": number}
            assert (one.trace_metadata, one.user_id, one.tags) == (
                {"seen by": number},
                f"u-{number}",
                (f"t-{number}",),
            )
            below = next(other for other in records if other.trace_id == trace_id and other.name == "inner")
            assert below.metadata == {"bound": number, "inner": number, "captured": number}
            assert (below.user_id, below.tags) == (f"u-{number}", (f"t-{number}",))

    def test_a_span_may_be_left_in_another_order_than_entered(self, scene):
        """Two tasks that share one object leave it in another order than they entered, and nothing stays bound."""
        shared = om.using_metadata({"shared": True})

        async def hold(release, entered):
            with shared:
                entered.set()
                await release.wait()
            return otel_context.get_current()

        async def main():
            releases = [asyncio.Event(), asyncio.Event()]
            entered = [asyncio.Event(), asyncio.Event()]
            tasks = [asyncio.create_task(hold(*pair)) for pair in zip(releases, entered, strict=True)]
            for event in entered:
                await event.wait()
            for release, task in zip(releases, tasks, strict=True):
                release.set()
                await task
            with om.start_span("after"):
                pass

        asyncio.run(main())

        assert scene.record("after").metadata == {}
