"""What users write after a command: names of traces and spans, and a status, in the forms in which they have them."""

from __future__ import annotations

import uuid

import pytest
import typer

from otel_metadata.cli.given import Named, named, size, status_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, (TRACE, None)) for text in (TRACE, TRACE.upper(), f" {TRACE} ", f"{uuid.UUID(TRACE)}", f"0x{TRACE}")),
        *((text, (None, SPAN)) for text in (SPAN, SPAN.upper(), f" {SPAN} ")),
        *((text, (TRACE, SPAN)) for text in (f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01".upper())),
    ],
)
def test_a_name_is_read_in_every_form(text: str, expected: tuple[str | None, str | None]) -> None:
    """A trace id alone names the trace."""
    assert named(text) == Named(*expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ok", "ok"),
        ("ERROR", "error"),
        (" Error ", "error"),
        ("STATUS_CODE_ERROR", "error"),
        ("404", 404),
        (None, None),
    ],
)
def test_a_status_is_read_as_in_an_application(text: str | None, expected: str | int | None) -> None:
    """Words in any case, and integer codes."""
    assert status_of(text) == expected


@pytest.mark.parametrize("text", ["unset", "bogus", "", "1.5", "-1", "99999999999"])
def test_what_is_no_status_is_a_usage_error(text: str) -> None:
    """UNSET never overwrites, so there is nothing to do with it."""
    with pytest.raises(typer.BadParameter, match="neither ok, nor error"):
        status_of(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GB", 2_000_000_000),
        ("2 gb", 2_000_000_000),
        ("2G", 2_000_000_000),
        ("1.5MB", 1_500_000),
        ("500MiB", 500 << 20),
        ("1.5 GiB", 3 << 29),
        ("1TB", 10**12),
        ("1000000", 1_000_000),
        ("7B", 7),
        (None, None),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str | None, expected: int | None) -> None:
    """With the units of disks (1,000) or of memory (1,024)."""
    assert size(text, "--max-size") == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "1.GB", ".5GB", "1,5GB", "2GBps", "٣MB", "1" * 16])
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    """Nothing is guessed: a wrong size deletes."""
    with pytest.raises(typer.BadParameter, match="is not a size such as 500MB or 2GiB"):
        size(text, "--max-size")
