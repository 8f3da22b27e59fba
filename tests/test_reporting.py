"""Log lines that do not repeat endlessly, and the count of our own failures."""

from __future__ import annotations

import gc
import logging
import os

import pytest

from otel_metadata import reporting
from otel_metadata.reporting import REPEAT_AFTER_NS, Reporter, after_fork_in_child


@pytest.fixture
def now(monkeypatch):
    """The monotonic time of the reporter, as a list of one number."""
    time = [10**18]
    monkeypatch.setattr(reporting.time, "monotonic_ns", lambda: time[0])
    return time


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "otel_metadata"]


def test_a_reason_is_told_once_a_minute(now, caplog):
    """Of many lines of one reason within a minute only the first is logged."""
    reporter = Reporter()
    for _ in range(5):
        reporter.tell("lost", "An update was lost.")
    now[0] += REPEAT_AFTER_NS - 1
    reporter.tell("lost", "An update was lost.")
    assert lines(caplog) == ["An update was lost."]


def test_the_next_line_says_how_many_there_were(now, caplog):
    """After a minute the line comes again, with the count of those that were not logged."""
    reporter = Reporter()
    for _ in range(5):
        reporter.tell("lost", "An update was lost.")
    now[0] += REPEAT_AFTER_NS
    reporter.tell("lost", "An update was lost.")
    now[0] += REPEAT_AFTER_NS
    reporter.tell("lost", "An update was lost.")
    assert lines(caplog) == [
        "An update was lost.",
        "An update was lost. (4 more since the last such line)",
        "An update was lost.",
    ]


def test_reasons_are_told_apart(now, caplog):
    """Another reason has its own line in the same minute, at its own level."""
    caplog.set_level(logging.INFO, "otel_metadata")
    reporter = Reporter()
    reporter.tell("lost", "Lost.")
    reporter.tell("paused", "Paused.", level=logging.INFO)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("WARNING", "Lost."), ("INFO", "Paused.")]


def test_a_line_is_ascii_and_short(caplog):
    """What a line names cannot break the handler's stream: it is escaped and cut."""
    Reporter().tell("hostile", "\ud800 ü " + "x" * 10_000)
    (line,) = lines(caplog)
    assert line.isascii()
    assert line.startswith("\\ud800 \\xfc x")
    assert len(line) == 2_000


class Broken(logging.Handler):
    """Raises at every line."""

    def emit(self, record):
        raise RuntimeError("broken handler")


@pytest.fixture
def broken_handler():
    handler, logger = Broken(), logging.getLogger("otel_metadata")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


def test_a_logging_handler_that_raises_does_no_harm(broken_handler):
    """A handler of the application's that fails does not reach the caller."""
    Reporter().tell("lost", "Lost.")


def test_a_failure_of_ours_is_counted_and_logged(caplog):
    """A failure of our own code is counted, and logged with its place and type, without its message."""
    reporter = Reporter()
    reporter.failed("on_end", ValueError("a metadata value"))
    assert reporter.internal_errors == 1
    assert lines(caplog)[0] == "otel_metadata failed in on_end: ValueError"


def test_a_failure_of_ours_does_no_harm_although_logging_fails(broken_handler):
    """A failure is counted even when it cannot be logged."""
    reporter = Reporter()
    reporter.failed("on_end", ValueError())
    assert reporter.internal_errors == 1


def test_a_test_can_have_failures_raised_again():
    """With `reraise` a swallowed bug cannot hide."""
    reporter = Reporter()
    reporter.reraise = True
    with pytest.raises(ValueError, match="boom"):
        reporter.failed("on_end", ValueError("boom"))
    assert reporter.internal_errors == 1


class Renewed:
    """Says that it was called in the child."""

    def __init__(self, name, said):
        self.name, self.said = name, said
        after_fork_in_child(self.renew)

    def renew(self):
        if self.name == "broken":
            raise RuntimeError
        self.said.append(self.name)


def test_hooks_of_a_fork_are_given_back(monkeypatch):
    """A thousand clients that come and go leave no hook with Python, which never gives one back, and no reference."""
    hooks = []
    monkeypatch.setattr(os, "register_at_fork", lambda **given: hooks.append(given))

    class Client:
        def __init__(self):
            after_fork_in_child(self.renew)

        def renew(self):
            pass

    kept = Client()
    for _ in range(1_000):
        Client()
    gc.collect()
    assert len(hooks) == 1
    assert len(reporting._of_functions.pop(Client.renew)) == 1
    assert kept


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_renews_what_lives(monkeypatch):
    """In the order in which it was made; what is gone is not called, and one that fails holds up no other."""
    monkeypatch.setattr(reporting.REPORTER, "reraise", False)
    said = []
    alive = [Renewed("first", said), Renewed("broken", said), Renewed("last", said)]
    Renewed("gone", said)
    gc.collect()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, " ".join(said).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b"first last"
    assert said == []
    assert alive
