"""Of nothing that a backend lost or changed an outcome says that it was delivered, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from tests.backends import shown
from tests.strategies import field_sets

from otel_metadata.model.merge import FieldName, Fields, Json, Kind, json_text
from otel_metadata.model.outcome import Delivered


def leaves(state: Any) -> Iterator[str]:
    """Yield everything that is in *state*, whole and in parts, as JSON; and what a tag is called."""
    yield json_text(state)
    if isinstance(state, dict):
        for key, value in state.items():
            yield json_text(key)
            yield from leaves(value)
    elif isinstance(state, list):
        for value in state:
            yield from leaves(value)


def wanted(fields: Fields) -> list[Json]:
    """Return the values that somebody set: of a verdict each part, of a tag its text."""
    ((name, (value, _)),) = fields.items()
    if name[1] in {"evaluation", "annotation"} and isinstance(value, dict):
        return [part for key, part in value.items() if key not in {"name", "source"} and part is not None]
    return [name[2] if name[1] == "tag" else value]


@pytest.mark.parametrize("name", shown.BACKENDS)
def test_what_is_not_there_as_it_was_set_is_told(name):
    """Each fact is shown exactly, or has a note, or was not delivered; and what was delivered is somewhere."""
    for (fact, fields), (outcome, state) in zip(shown.FACTS.items(), shown.outcomes(name), strict=True):
        if not isinstance(outcome, Delivered):
            assert not state, (fact, state)
            continue
        assert state, fact
        there = set(leaves(state))
        is_exact = all(json_text(value) in there for value in wanted(fields))
        assert is_exact or outcome.notes, (fact, state)


@pytest.mark.parametrize("name", shown.BACKENDS)
def test_a_note_says_which_field_it_is_about(name):
    """By key for metadata, by name for a verdict; but for OTLP, where one note is for all."""
    for (fact, fields), (outcome, _) in zip(shown.FACTS.items(), shown.outcomes(name), strict=True):
        ((field, _value),) = fields.items()
        words = {"user_id": "user", "tag": "tag", "evaluation": "Correctness", "annotation": "quality"}
        word = words.get(field[1], field[2])
        for note in outcome.notes if isinstance(outcome, Delivered) and name != "Any OTLP backend" else ():
            assert word in note, (fact, note)


# What is one value each; of verdicts and a span's own parts the readers do not show everything.
KINDS: tuple[Kind, ...] = ("metadata", "tag", "user_id", "session_id")


def is_told(name: FieldName, notes: tuple[str, ...]) -> bool:
    """Whether a note names the field: a metadata key, or what it is."""
    _, kind, key = name
    words = (repr(key[:50]), f"metadata.{key}") if kind == "metadata" else (kind.removesuffix("_id"),)
    return any(word in note for note in notes for word in words)


@pytest.mark.parametrize("name", shown.BACKENDS)
def test_of_whatever_is_set_nothing_is_missing_without_a_note(name):
    """Any set of fields: each is shown exactly, or has a note that names it, or nothing at all was delivered."""
    with shown.sending(name) as send:

        @given(field_sets(KINDS))
        def each(fields: Fields) -> None:
            if not fields:
                return
            outcome, state = send({one: (value, (shown.AT, 7)) for one, (value, _) in fields.items()})
            if not isinstance(outcome, Delivered):
                assert not state
                return
            there = set(leaves(state))
            for one, (value, version) in fields.items():
                is_exact = all(json_text(part) in there for part in wanted({one: (value, version)}))
                assert is_exact or is_told(one, outcome.notes) or name == "Any OTLP backend", (one, outcome, state)

        each()
