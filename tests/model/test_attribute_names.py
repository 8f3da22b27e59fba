"""Names of attributes without a special beginning are remembered, within bounds."""

from __future__ import annotations

from otel_metadata.model import attribute_names
from otel_metadata.model.attribute_names import NamesWithout


def test_a_name_is_found_among_many_that_are_known() -> None:
    """Names that have been seen do not hide one that has not."""
    names = NamesWithout("metadata.", "tag.")
    known = {f"app.key.{number}": 1 for number in range(20)}

    assert names.include(known.keys())
    assert names.include(known.keys())
    assert not names.include({**known, "metadata.plan": 1}.keys())
    assert not names.include({"metadata.plan": 1, **known}.keys())
    assert names.include({"metadata": 1, "xmetadata.plan": 1, "": 1}.keys())


def test_what_is_remembered_is_bounded() -> None:
    """Names that differ in each span, and very long ones, get an answer and take no more memory."""
    names = NamesWithout("metadata.")

    for number in range(2 * attribute_names._MAX_NAMES):
        assert names.include({f"key.{number}": 1}.keys())
    assert names.include({"k" * (attribute_names._MAX_CHARS + 1): 1}.keys())
    assert not names.include({"key.1": 1, f"metadata.{'k' * 1_000}": 1}.keys())

    assert len(names._names) == attribute_names._MAX_NAMES
    assert max(map(len, names._names)) <= attribute_names._MAX_CHARS
