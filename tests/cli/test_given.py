"""What users write after a command: names of traces and spans, and a status, in the forms in which they have them."""

from __future__ import annotations

import uuid

import pytest
import typer

from otel_metadata.cli.given import Named, named, status_of

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
