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
