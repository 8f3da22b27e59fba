"""The lock of our own says whether the calling thread holds it, and is otherwise the lock of the interpreter."""

import subprocess
import sys
import threading

import pytest

from otel_metadata.locks import ReentrantLock


def asked_by_another_thread(lock: ReentrantLock) -> bool:
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(lock.is_held_by_current_thread()))
    thread.start()
    thread.join()
    return answers[0]


def test_it_is_held_by_the_thread_that_took_it_until_it_gave_it_back_as_often() -> None:
    """Nested, too; no other thread holds it meanwhile."""
    lock = ReentrantLock()
    assert not lock.is_held_by_current_thread()
    with lock:
        with lock:
            assert lock.is_held_by_current_thread()
        assert lock.is_held_by_current_thread()
        assert not asked_by_another_thread(lock)
    assert not lock.is_held_by_current_thread()


def test_a_lock_that_another_thread_holds_is_not_held_here() -> None:
    """To ask takes nothing and waits for nobody."""
    lock = ReentrantLock()
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    assert not lock.is_held_by_current_thread()
    assert not lock.acquire(blocking=False)
    done.set()
    thread.join()


@pytest.mark.parametrize("name", ["acquire", "release", "__enter__", "__exit__"])
def test_taking_it_costs_what_a_lock_of_the_interpreter_costs(name: str) -> None:
    """The hot path calls the code of the base class, not a function in Python around it."""
    assert getattr(ReentrantLock, name) is getattr(type(threading.RLock()), name)


def test_it_is_a_lock_of_gevent_where_gevent_has_patched_threading() -> None:
    """Then a greenlet that waits for it lets the others run, and each one's hold is its own."""
    program = """
from gevent import monkey
monkey.patch_all()
import gevent
from otel_metadata.locks import ReentrantLock

lock = ReentrantLock()
said = []

def hold():
    with lock:
        gevent.sleep(0)
        said.append(("holder", lock.is_held_by_current_thread()))

def wait():
    said.append(("waiter", lock.is_held_by_current_thread()))
    with lock:
        said.append(("waiter", lock.is_held_by_current_thread()))

gevent.joinall([gevent.spawn(hold), gevent.spawn(wait)], raise_error=True)
assert said == [("waiter", False), ("holder", True), ("waiter", True)], said
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_thread_that_waits_gets_the_lock_where_it_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that has released it and takes it again at once would have it before the other one wakes up."""
    lock = ReentrantLock()
    begun, got = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        with lock:
            got.set()

    thread = threading.Thread(target=wait)
    monkeypatch.setattr("otel_metadata.locks.monotonic_ns", lambda: 0)
    with lock:
        thread.start()
        begun.wait()
    for _ in range(1_000):
        if got.is_set():
            break
        with lock:
            pass
        lock.give_way()
    assert got.is_set()
    thread.join()


def test_a_lock_that_its_thread_still_holds_does_not_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others would not get it; they would only wait for longer."""
    waits: list[float] = []
    monkeypatch.setattr("otel_metadata.locks.sleep", waits.append)
    lock = ReentrantLock()
    with lock:
        lock.give_way()
        assert list(lock.portions(range(150))) == [range(64), range(64, 128), range(128, 150)]
    assert waits == []


@pytest.mark.parametrize(("many", "ways"), [(0, 0), (64, 0), (65, 2), (150, 3)])
def test_it_gives_way_after_each_of_several_portions(monkeypatch: pytest.MonkeyPatch, many: int, ways: int) -> None:
    """What fits into one portion is one hold, after which the caller is done."""
    waits: list[float] = []
    monkeypatch.setattr("otel_metadata.locks.sleep", waits.append)
    monkeypatch.setattr("otel_metadata.locks.monotonic_ns", lambda: 0)
    assert sum(len(portion) for portion in ReentrantLock().portions(range(many))) == many
    assert len(waits) == ways


def test_giving_way_takes_at_most_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a thread that computes each time takes milliseconds; then it is done more rarely."""
    clock = {"now": 0, "worked": 0, "waited": 0}

    def spend(what: str, nanoseconds: int) -> None:
        clock["now"] += nanoseconds
        clock[what] += nanoseconds

    monkeypatch.setattr("otel_metadata.locks.sleep", lambda _: spend("waited", 5_000_000))
    monkeypatch.setattr("otel_metadata.locks.monotonic_ns", lambda: clock["now"])
    lock = ReentrantLock()
    for _ in range(100):
        with lock:
            spend("worked", 300_000)
        lock.give_way()
    assert 0 < clock["waited"] <= clock["worked"] + 5_000_000
