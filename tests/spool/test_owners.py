"""Who owns which rows: leases that end with their process, and tallies that are sound or known to be damaged."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from otel_metadata.spool.owners import Owners, Tally, owners_path

HOLDER = """
import sys
from otel_metadata.spool.owners import Owners
owners = Owners.shared(sys.argv[1])
print([owners.take(slot) for slot in (1, 2)], flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return owners_path(tmp_path / "spool.db")


@pytest.fixture
def owners(path):
    owners = Owners.shared(path)
    yield owners
    owners.close()


@pytest.fixture
def holder(path):
    """Another process, which holds slots 1 and 2."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"[True, True]\n"
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


def test_a_slot_is_one_process_s(owners, holder):
    """What another process holds cannot be taken; its neighbour can."""
    assert [owners.take(slot) for slot in (1, 2, 3)] == [False, False, True]


def test_a_killed_process_gives_its_slots_back(owners, holder):
    """The kernel ends the leases of a process that was killed."""
    holder.kill()
    holder.wait()
    assert [owners.take(slot) for slot in (1, 2)] == [True, True]


def test_two_users_in_one_process_do_not_share_a_slot(owners, path):
    """POSIX locks are a process's, so the second user is told by us."""
    other = Owners.shared(path)
    assert other is owners
    assert (owners.take(5), other.take(5)) == (True, False)
    owners.give_back(5)
    assert other.take(5)
    other.close()


def test_a_user_who_leaves_ends_no_lease_of_another(owners, path, holder):
    """Closing one descriptor would end all locks of this process, so there is one, and it stays."""
    owners.take(3)
    Owners.shared(path).close()
    script = "import sys; from otel_metadata.spool.owners import Owners; print(Owners.shared(sys.argv[1]).take(3))"
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True)
    assert done.stdout == b"False\n"


def test_a_forked_child_has_no_lease(owners):
    """A child does not inherit the locks, and cannot take what its parent holds."""
    owners.take(1)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, b"1" if Owners.shared(owners.path).take(1) else b"0")
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    assert os.read(read, 1) == b"0"
    os.close(read)


def test_tallies_are_read_as_they_were_noted(owners):
    """Rows put, rows settled, the name; a slot in between that was never used is empty."""
    owners.note(1, 5, 2, b"memory")
    owners.note(3, 1, 1, b"")
    assert owners.read() == {1: Tally(5, 2, b"memory"), 2: Tally(0, 0, b""), 3: Tally(1, 1, b"")}
    assert [tally.expected for tally in owners.read().values()] == [3, 0, 0]


def test_a_damaged_tally_is_left_out_and_known(owners):
    """One flipped bit anywhere in a tally is noticed; its neighbours are read."""
    for slot in (1, 2, 3):
        owners.note(slot, 5, 2, b"memory")
    with open(owners.path, "rb") as file:
        data = file.read()
    for bit in range(64 * 2 * 8, (64 * 2 + 60) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        os.pwrite(owners._fd, bytes(changed), 0)
        assert owners.read().keys() == {1, 3}
        assert owners.damaged() == {2}


def test_long_names_that_begin_alike_differ():
    """A name that does not fit is cut, and what was cut off still counts."""
    names = {Owners.cut("https://traces.example.com/v1/organizations/7/" + end) for end in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) <= 40 for name in names)
    assert Owners.cut("x" * 40) == b"x" * 40


def test_who_replaces_the_file_is_alone(owners):
    """The door lets many open the spool, or one replace it."""
    script = """
import sys
from otel_metadata.spool.owners import Owners
owners = Owners.shared(sys.argv[1])
for alone in (False, True):
    with owners.door(alone=alone) as is_free:
        print(is_free, end=" ")
"""
    said = []
    for alone in (False, True):
        with owners.door(alone=alone) as is_free:
            assert is_free
            done = subprocess.run([sys.executable, "-c", script, owners.path], capture_output=True, check=True)
            said.append(done.stdout)
    assert said == [b"True False ", b"False False "]


def test_a_file_that_was_removed_is_noticed(owners):
    """Leases in a file that nobody sees any more are worth nothing."""
    assert not owners.is_replaced
    os.unlink(owners.path)
    assert owners.is_replaced
