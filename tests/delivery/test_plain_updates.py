"""The most frequent late update is handed over as it is and coalesced by the worker: nobody can tell the difference."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

import otel_metadata as om
from otel_metadata.delivery import outbox as outbox_module
from otel_metadata.live import routing

KNOWN = ("a", "b", "c")

pytestmark = pytest.mark.usefixtures("unknown_keys")


def learn(scene):
    """Let the keys be known, so that the next update of them is plain."""
    for key in KNOWN:
        om.update_span(scene.unseen(99), metadata={key: 0})
    scene.outbox.weigh_waiting()


def plain(scene):
    """Return how many plain updates wait to be coalesced."""
    return len(scene.outbox._late)


def test_a_known_key_with_a_clean_value_is_plain(scene):
    """Such an update waits unlooked at, and is counted, as late."""
    learn(scene)
    receipt = om.update_span(scene.unseen(), metadata={"a": 1, "b": None, "c": "x"})
    assert (plain(scene), receipt.route, receipt.routes["memory"].reason) == (1, "late", None)
    assert scene.stats.late == 4
    assert plain(scene) == 0


def test_what_is_not_plain_goes_the_general_way(scene):
    """Nested values, long texts, many keys, other fields, other keys and traces are looked at at once."""
    learn(scene)
    ref = scene.unseen()
    om.update_span(ref, metadata={"a": {"x": 1}})
    om.update_span(ref, metadata={"a": "x" * (routing.MAX_PLAIN_CHARS + 1)})
    om.update_span(ref, metadata={f"new-{number}": 1 for number in range(routing.MAX_PLAIN_KEYS + 1)})
    om.update_span(ref, metadata={"a": 1}, output="x")
    om.update_span(ref, metadata={"never seen before": 1})
    om.update_span(ref, metadata={"a": float("nan")})
    om.update_trace(ref, metadata={"a": 1})
    assert plain(scene) == 0
    assert scene.stats.accepted == 10


def test_an_update_of_a_live_or_waiting_span_is_never_plain(scene):
    """A span that is live or in the outbox takes its update itself, also one that has just ended."""
    learn(scene)
    with scene.tracer.start_as_current_span("span") as span:
        ref = om.SpanRef.from_span_context(span.get_span_context())
        assert om.update_span(ref, metadata={"a": 1}).route == "live"
    assert om.update_span(ref, metadata={"b": 2}).route == "in_flight"
    scene.wait_and_step()
    assert scene.on_span(ref) == {"a": 1, "b": 2}
    assert om.update_span(ref, metadata={"c": 3}).route == "late"


def test_an_unsampled_ref_is_refused_all_the_same(scene):
    """A ref whose sampled flag is off is refused, plain or not."""
    learn(scene)
    assert om.update_span(om.SpanRef(1, 1, sampled=False), metadata={"a": 1}).reason == "unsampled"


def test_a_mask_sees_every_value(scene):
    """With a mask no update is plain."""
    from otel_metadata.live import live_settings as settings

    learn(scene)
    settings.use(settings.LiveSettings(mask=lambda path, value: value if path == "key" else "***"))
    om.update_span(scene.unseen(), metadata={"a": "secret"})
    scene.processor.force_flush()
    assert scene.final(scene.unseen()) == {"a": "***"}


def test_what_the_caller_changes_afterwards_changes_nothing(scene):
    """The values are those of the call."""
    learn(scene)
    given_metadata = {"a": 1}
    om.update_span(scene.unseen(), metadata=given_metadata)
    given_metadata["a"] = 2
    scene.processor.force_flush()
    assert scene.final(scene.unseen()) == {"a": 1}


def test_its_schedule_counts_from_the_call(scene):
    """A plain update leaves when its schedule has passed since the call, however late the worker looks."""
    learn(scene)
    scene.processor.force_flush()
    om.update_span(scene.unseen(), metadata={"a": 1})
    assert scene.wait_and_step(4_999) == 0
    assert scene.wait_and_step(1) == 1


def test_the_worker_is_woken_before_many_wait(scene):
    """After a thousand plain updates the worker is woken; when it does not come, callers help, and none is lost."""
    learn(scene)
    woken = []
    scene.outbox.wake = lambda: woken.append(True)
    total = outbox_module._LATE_BOUND + 500
    for number in range(total):
        om.update_span(scene.unseen(number + 1), metadata={"a": number})
    assert woken
    assert plain(scene) <= outbox_module._LATE_BOUND
    assert scene.stats.late == total + len(KNOWN)


def test_no_plain_update_is_taken_where_there_is_little_room(make_scene):
    """In an outbox with a small bound each update is looked at, so that its receipt is right."""
    scene = make_scene(max_patches=4)
    for number in range(4):
        assert om.update_span(scene.unseen(number + 1), metadata={"a": number})
    assert om.update_span(scene.unseen(9), metadata={"a": 1}).reason == "buffer_full"


def test_after_shutdown_a_plain_update_is_refused(scene):
    """A closed outbox takes nothing, also not unlooked at."""
    learn(scene)
    scene.processor.shutdown()
    assert om.update_span(scene.unseen(), metadata={"a": 1}).reason == "after_shutdown"


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.dictionaries(st.sampled_from(KNOWN), st.none() | st.integers(0, 9) | st.just({"x": 1}), min_size=1),
            st.booleans(),
        )
    )
)
def test_plain_and_general_updates_merge_alike(updates):
    """Whatever mixture of both, and whenever the worker looks, each key has the value of its last update."""
    from tests.delivery.conftest import Scene

    scene = Scene()
    learn(scene)
    expected = {}
    for number, metadata, does_look in updates:
        om.update_span(scene.unseen(number), metadata=metadata)
        expected.setdefault(number, {}).update(metadata)
        if does_look:
            scene.outbox.weigh_waiting()
    scene.processor.force_flush()
    assert {number: scene.final(scene.unseen(number)) for number in expected} == expected
    assert scene.stats.is_balanced
    scene.processor.shutdown()
