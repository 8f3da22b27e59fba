"""The answer of a call over many spans."""

from __future__ import annotations

import copy
import json
import logging
import pickle

import pytest

from otel_metadata.client.report import MAX_NOTES, UpdateReport, span_error, tell
from otel_metadata.model.outcome import DeliveryError

ERROR = span_error("f" * 16, DeliveryError("segment_not_found", "Row 0: gone."))


def test_all_four_keys_are_there_by_key_and_by_attribute() -> None:
    """Also where nothing failed, and nothing was given; counts are integers."""
    assert UpdateReport(spans_updated=0) == {"spans_processed": 0, "spans_updated": 0, "spans_failed": 0, "errors": []}

    report = UpdateReport(spans_updated=2, errors=[ERROR])

    for key, value in {"spans_processed": 3, "spans_updated": 2, "spans_failed": 1, "errors": [ERROR]}.items():
        assert report[key] == value
        assert getattr(report, key) == value
        assert type(report[key]) is type(value)


def test_an_error_begins_with_its_type() -> None:
    """As programs written for Arize read it."""
    assert ERROR == {
        "span_id": "f" * 16,
        "error_type": "segment_not_found",
        "error_message": "[segment_not_found] Row 0: gone.",
    }


def test_it_is_json_and_survives_a_copy() -> None:
    """A program prints it, or sends it to another process."""
    report = UpdateReport(spans_updated=1, errors=[ERROR], notes=["cut"])

    assert json.loads(json.dumps(report)) == report.to_dict() == report
    assert type(report.to_dict()) is dict
    assert report.to_dict()["errors"][0] is not report.errors[0]
    for other in (pickle.loads(pickle.dumps(report)), copy.copy(report)):
        assert other == report
        assert other.notes == ("cut",)


def test_notes_are_told_once_and_bounded() -> None:
    """Thousands of rows say the same."""
    notes = ["again", "again", *(f"{number}" for number in range(200))]

    report = UpdateReport(spans_updated=1, notes=notes)

    assert report.notes[:2] == ("again", "0")
    assert len(report.notes) == MAX_NOTES


@pytest.mark.parametrize(("updated", "failed", "code"), [(0, 0, 200), (2, 0, 200), (1, 1, 207), (0, 2, 422)])
def test_it_has_a_status_code(updated: int, failed: int, code: int) -> None:
    """Programs ask the answer of `log` for 200."""
    assert UpdateReport(spans_updated=updated, errors=[ERROR] * failed).status_code == code


def test_its_repr_is_a_status_line() -> None:
    """Counts and the first error."""
    assert repr(UpdateReport(spans_updated=2)) == "<UpdateReport 2 of 2 updated, 0 failed>"
    assert f"{UpdateReport(spans_updated=1, errors=[ERROR])}" == (
        "<UpdateReport 1 of 2 updated, 1 failed: [segment_not_found] Row 0: gone.>"
    )


def test_two_reports_are_joined() -> None:
    """Counts are added, errors and notes follow one another."""
    joined = UpdateReport(spans_updated=1, notes=["a"]).joined(
        UpdateReport(spans_updated=2, errors=[ERROR], notes=["b"])
    )

    assert (joined.spans_processed, joined.spans_updated, joined.errors, joined.notes) == (4, 3, [ERROR], ("a", "b"))


def test_it_is_told_in_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """The counts, and the first ten errors."""
    with caplog.at_level(logging.INFO, logger="otel_metadata"):
        tell(UpdateReport(spans_updated=1, errors=[ERROR] * 20))

    assert caplog.messages[0] == "1 of 21 spans updated, 20 failed"
    assert len(caplog.messages) == 11
