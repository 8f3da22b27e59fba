"""The short forms of `make stress`: the same functions with small numbers, and no figure of time among the claims."""

from __future__ import annotations

import signal
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("looks at /proc, and kills by signal", allow_module_level=True)

from stress import backend_down, damage, every_write, forks, kill_nine, malformed, server_patches, shutdown, soak


@pytest.mark.parametrize("seed", [1, 2])
def test_an_application_that_is_killed_loses_nothing_it_acknowledged(seed):
    """`kill -9` at random lines, the backend failing in every way: all acknowledged updates arrive, none is wrong."""
    outcome = kill_nine.run(6, seed, updates=150)
    assert not outcome.findings.lost, f"seed {seed}: {outcome.findings}"
    assert not outcome.findings.wrong, f"seed {seed}: {outcome.findings}"
    assert (outcome.is_drained, outcome.left, outcome.kills >= 6) == (True, 0, True), f"seed {seed}: {outcome.counts}"


@pytest.mark.parametrize("with_strace", [pytest.param(True, id="system_calls"), pytest.param(False, id="statements")])
def test_a_kill_at_a_write_loses_nothing(with_strace):
    """SIGKILL at some of the writes of the scripted run; `make stress` does it at each."""
    if with_strace and not every_write.can_trace():
        pytest.skip("processes cannot be traced here")
    found = every_write.run(every=29, with_strace=with_strace)
    assert found.killed > 5
    assert not found.problems


def test_what_arrives_while_the_backend_is_down_is_delivered_afterwards():
    """Every update made while nothing listens is delivered once the backend is back, without a flush."""
    figures, after = backend_down.run(6_000, rate=50_000, schedule_millis=200)
    assert (figures["refused"], after["missing"], after["is_drained"]) == (0, 0, True), after


def test_forked_children_lose_nothing_when_half_of_them_kill_themselves():
    """Every update of every child arrives."""
    outcome = forks.Outcome(forks.family, 4, 40)
    assert outcome.codes == [0, -signal.SIGKILL, 0, -signal.SIGKILL]
    assert (outcome.missing, outcome.is_drained) == (0, True), outcome.findings
    assert outcome.findings.twice == 0


def test_forks_under_load_do_not_deadlock():
    """Children that are forked while threads update and the worker sends do their work and end."""
    outcome = forks.Outcome(forks.under_load, 8, 5)
    assert outcome.codes[1] == 0
    assert (outcome.missing, outcome.is_drained) == (0, True), outcome.findings


@pytest.mark.parametrize("is_dead", [pytest.param(False, id="hangs"), pytest.param(True, id="dead")])
def test_a_shutdown_that_cannot_send_leaves_everything_to_the_spool(is_dead):
    """What was acknowledged before a shutdown without an answer is delivered by the next process."""
    outcome = shutdown.Outcome(is_dead=is_dead, updates=200, is_under_way=False, timeout_millis=500)
    assert outcome.is_whole, (outcome.findings, outcome.counts, outcome.after)


def test_a_full_disk_raises_nothing_and_loses_nothing():
    """With any limit to its files the application goes on, and what was on disk survives a kill."""
    found = damage.full_disk(limits=range(0, 100_000, 14_000), sizes=(32, 128, 1_160), records=12)
    assert not found.problems


@pytest.mark.parametrize("name", ["killed", "closed", "journaled"])
def test_a_damaged_spool_loses_only_what_was_hit(name):
    """Cut off or with bits flipped: no exception, what is still there is delivered, what is not is counted."""
    made = damage.image(name)
    seed = 1
    cuts = list(damage.truncations(made, 8_192))
    found = damage.damaged(made, [*cuts[::5], *damage.flips(made, 40, seed)])
    assert not found.problems, f"seed {seed}"


def test_a_soak_loses_nothing_and_holds_no_more_in_the_end():
    """A backend that changes its ways: everything arrives, and no descriptor or thread is left over."""
    seed = 1
    outcome = soak.Outcome(9, seed, each=60)
    assert outcome.is_whole, f"seed {seed}: {outcome.findings} {outcome.counts}"
    assert outcome.growth(0) <= 0, f"seed {seed}: {outcome.held}"  # a slot that is not leased yet has none open
    assert outcome.growth(1) == 0, f"seed {seed}: {outcome.held}"


@pytest.mark.parametrize("seed", [1, 2])
def test_malformed_otlp_is_refused_and_the_server_goes_on(seed):
    """Cut, flipped and swapped bodies, members of other types, and the first bombs, over HTTP and gRPC."""
    outcome = malformed.run(240, seed)
    assert not outcome.failures
    assert outcome.growth <= malformed.MAX_GROWTH
    assert outcome.is_serving
    assert {"200", "400", "413", "OK", "INVALID_ARGUMENT"} <= set(outcome.statuses)


def test_a_killed_server_has_every_patch_that_it_acknowledged():
    """Forty clients patch at once in three vendors' ways, none is refused, and the server dies in the middle."""
    outcome = server_patches.run(40, 120.0, most=1_000)
    assert not outcome.refused
    assert len(outcome.acknowledged) >= 1_000
    assert not outcome.lost
    assert outcome.is_serving_again
