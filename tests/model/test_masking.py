"""Masking: rules by key and by pattern, at every depth."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from tests.strategies import json_values

from otel_metadata.errors import ConfigurationError
from otel_metadata.model.masking import MASKED, Masking
from otel_metadata.model.merge import Json


class TestKeys:
    @pytest.mark.parametrize("key", ["api_key", "API_KEY", "Api-Key", "api-key"])
    def test_a_key_is_compared_without_case_and_dashes(self, key: str) -> None:
        """However a key is written, its value is replaced."""
        mask = Masking(keys=["api-Key"])

        assert mask(f"metadata.{key}", "secret") == MASKED
        assert mask("input", {key: "secret"}) == {key: MASKED}

    def test_a_nested_key_is_found_at_every_depth(self) -> None:
        """Objects inside lists inside objects are searched; what is beside stays."""
        mask = Masking(keys=["token"])
        value: Json = {"calls": [{"token": {"a": 1}, "model": "m"}, [{"token": None}]], "tokens": 3}

        assert mask("output", value) == {"calls": [{"token": MASKED, "model": "m"}, [{"token": MASKED}]], "tokens": 3}

    def test_a_key_with_dots_is_one_key(self) -> None:
        """Everything after the kind is the key of a field."""
        mask = Masking(keys=["user.email"])

        assert mask("metadata.user.email", "a@b") == MASKED
        assert mask("metadata.email", "a@b") == "a@b"

    def test_a_field_without_a_key_matches_none(self) -> None:
        """`input` is a kind, not a key."""
        assert Masking(keys=["input"])("input", "kept") == "kept"


class TestPatterns:
    def test_only_what_a_pattern_matches_is_replaced(self) -> None:
        """The rest of a text stays, in every text at every depth."""
        mask = Masking(patterns=[r"sk-\w+", r"\d{4}"])

        assert mask("input", ["use sk-abc", {"note": "pin 1234, key sk-x"}, 1234]) == [
            f"use {MASKED}",
            {"note": f"pin {MASKED}, key {MASKED}"},
            1234,
        ]

    def test_keys_are_texts_too(self) -> None:
        """At every depth; of two that become the same the later one is kept."""
        mask = Masking(patterns=[r"\w+@\w+"])

        assert mask("input", {"a@b": 1, "c": [{"d@e": {"f@g of h": 2}}], "i@j": 3}) == {
            MASKED: 3,
            "c": [{MASKED: {f"{MASKED} of h": 2}}],
        }
        assert mask("key", "a@b") == MASKED

    @pytest.mark.parametrize("kind", ["evaluation", "annotation"])
    def test_the_parts_of_a_verdict_keep_their_names(self, kind: str) -> None:
        """`label` is a word of ours, and not what a pattern means; what the application put inside is searched."""
        mask = Masking(patterns=["label|metadata"])

        assert mask(f"{kind}.label", {"label": "label", "metadata": {"label": 1}}) == {
            "label": MASKED,
            "metadata": {MASKED: 1},
        }

    def test_a_wrong_pattern_is_refused_at_once(self) -> None:
        """A rule that cannot work is told when it is made, not when a secret passes."""
        with pytest.raises(re.error):
            Masking(patterns=["("])


@pytest.mark.parametrize("rules", [{"keys": "password"}, {"patterns": "secret"}])
def test_one_text_in_place_of_a_list_is_refused(rules: dict[str, str]) -> None:
    """A text is iterable too: its letters as rules would mask nothing that was meant."""
    with pytest.raises(ConfigurationError, match="expected a list of texts"):
        Masking(**rules)


@given(json_values())
def test_without_rules_nothing_is_changed(value: Json) -> None:
    """An empty mask is the identity."""
    assert Masking()("metadata.key", value) == value


@given(json_values())
def test_a_mask_makes_a_new_value(value: Json) -> None:
    """What the mask is given stays as it was."""
    kept = repr(value)

    Masking(keys=["a", "b"], patterns=["."])("metadata.key", value)

    assert repr(value) == kept
