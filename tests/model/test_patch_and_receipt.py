"""A patch as a value, and the receipt that an update call returns."""

from __future__ import annotations

from otel_metadata.model.encoding import is_error_status
from otel_metadata.model.merge import Fields
from otel_metadata.model.patch import Patch
from otel_metadata.model.receipt import Receipt, Routed
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.model.unset import UNSET

FIELDS: Fields = {
    ("span", "metadata", "b"): (1, (20, 7)),
    ("span", "metadata", "a"): (None, (10, 7)),
    ("trace", "metadata", "t"): ("x", (30, 7)),
    ("span", "tag", "z"): (True, (5, 7)),
    ("span", "tag", "c"): (True, (5, 7)),
}


class TestPatch:
    def test_its_version_and_id_are_those_of_its_latest_field(self) -> None:
        """The id is the writer and the nanoseconds in hex, so the same updates are the same id everywhere."""
        patch = Patch(SpanRef(1, 2), FIELDS)

        assert patch.version == (30, 7)
        assert patch.id == f"{7:016x}{30:016x}"

    def test_fields_of_a_kind_come_in_the_order_of_their_versions(self) -> None:
        """Lowest version first; of equal ones by text."""
        patch = Patch(SpanRef(1, 2), FIELDS)

        assert list(patch.metadata().items()) == [("a", None), ("b", 1)]
        assert patch.metadata("trace") == {"t": "x"}
        assert [tag for tag, _ in patch.of_kind("span", "tag")] == ["c", "z"]


class TestReceipt:
    def test_the_route_is_the_furthest_that_took_it(self) -> None:
        """One destination that still had the span does not hide that another gets it late."""
        receipt = Receipt((1, 1), {"a": Routed("live"), "b": Routed("late"), "c": Routed("dropped", "buffer_full")})

        assert (receipt.route, receipt.reason, bool(receipt)) == ("late", "buffer_full", True)

    def test_it_is_false_only_when_nobody_took_it(self) -> None:
        """All destinations dropped it, or it was refused as a whole."""
        assert not Receipt((1, 1), {"a": Routed("dropped", "buffer_full")})
        assert not Receipt.refused("unsampled")

    def test_a_refused_one_says_why(self) -> None:
        """The reason is there, the id is all zeros."""
        receipt = Receipt.refused("unsampled", ("a note",))

        assert (receipt.route, receipt.reason, receipt.notes, receipt.patch_id) == (
            "dropped",
            "unsampled",
            ("a note",),
            "0" * 32,
        )

    def test_bare_names_mean_live(self) -> None:
        """The short form of the hot path reads as the long one."""
        receipt = Receipt((1, 1), ("a", "b"))

        assert receipt.routes == {"a": Routed("live"), "b": Routed("live")}
        assert repr(receipt) == "<Receipt live [a: live, b: live]>"


def test_a_status_is_an_error_by_its_word_or_from_400() -> None:
    """`error` and integer codes of 400 and above; a boolean is no code."""
    assert [is_error_status(value) for value in ("error", 400, 599)] == [True] * 3
    assert [is_error_status(value) for value in ("ok", 399, 0, True, None, 500.0)] == [False] * 6


def test_the_argument_that_was_not_given_is_false_and_named() -> None:
    """UNSET is no value and shows its name in a signature."""
    assert not UNSET
    assert repr(UNSET) == "UNSET"
