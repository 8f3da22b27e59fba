"""Names of writers: one name for each, whatever the order, and bounded."""

from __future__ import annotations

import itertools

import pytest

from otel_metadata.model.authors import MAX_AUTHOR_CHARACTERS, MAX_AUTHORS, Authors
from otel_metadata.model.merge import PLAIN_ATTRIBUTE_WRITER


def test_a_writer_without_a_name_has_none() -> None:
    """Values of other libraries have no author."""
    assert Authors().name_of(7) is None


def test_the_writer_of_plain_attributes_gets_no_name() -> None:
    """A file that names it would name every value that other libraries have set."""
    authors = Authors()
    authors.add(PLAIN_ATTRIBUTE_WRITER, "eve")
    assert authors.name_of(PLAIN_ATTRIBUTE_WRITER) is None


@pytest.mark.parametrize("names", list(itertools.permutations(["ada", "grace", "barbara"])))
def test_of_several_names_of_a_writer_the_greatest_is_kept_in_any_order(names: tuple[str, ...]) -> None:
    """Two stores that learn the names in different orders agree."""
    authors = Authors()
    for name in names:
        authors.add(7, name)
    assert authors.name_of(7) == "grace"


def test_two_writers_may_have_one_name() -> None:
    """An author may be several processes."""
    authors = Authors()
    authors.add(7, "judge")
    authors.add(8, "judge")
    assert (authors.name_of(7), authors.name_of(8)) == ("judge", "judge")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("  ada ", "ada"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("two\nlines", "two\\nlines"),
        ("half \ud800", "half \\ud800"),
        ("Zoë", "Zoë"),
        ("x" * 1_000, "x" * MAX_AUTHOR_CHARACTERS),
        ("\n" * MAX_AUTHOR_CHARACTERS + "x", None),
        ("\x1b" * MAX_AUTHOR_CHARACTERS, "\\x1b" * (MAX_AUTHOR_CHARACTERS // 4)),
        ("", None),
        (" \t", None),
    ],
)
def test_a_name_is_kept_as_it_can_be_shown(given: str, kept: str | None) -> None:
    """A name from a file may have any characters, and any length."""
    authors = Authors()
    authors.add(7, given)
    assert authors.name_of(7) == kept


def test_the_latest_writers_are_remembered_and_older_ones_forgotten() -> None:
    """A process that reads the names of ever more writers does not grow."""
    authors = Authors()
    for writer in range(1, 3 * MAX_AUTHORS + 1):
        authors.add(writer, f"author {writer}")
    known = [writer for writer in range(1, 3 * MAX_AUTHORS + 1) if authors.name_of(writer) is not None]
    assert known[-MAX_AUTHORS:] == list(range(2 * MAX_AUTHORS + 1, 3 * MAX_AUTHORS + 1))
    assert len(known) <= 2 * MAX_AUTHORS


def test_names_from_elsewhere_leave_those_of_this_process_alone() -> None:
    """Whether they come before or after, and however many others come."""
    authors = Authors()
    authors.add(7, "zz")
    authors.add_of_process(7, "ada")
    for writer in range(7, 3 * MAX_AUTHORS):
        authors.add(writer, "zz")
    assert authors.name_of(7) == "ada"
    assert authors.name_of(3 * MAX_AUTHORS - 1) == "zz"
