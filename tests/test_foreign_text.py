"""What others say, on its way into logs, errors and terminals: nothing that is obeyed, and no secret of ours."""

from __future__ import annotations

import base64
import json
import logging
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_metadata.cli.shell import in_ascii
from otel_metadata.errors import (
    ConfigurationError,
    FileError,
    FilterError,
    MissingExtraError,
    SpanNotFoundError,
    StoreError,
    StoreFormatError,
)
from otel_metadata.foreign_text import visible, without_secrets
from otel_metadata.model.outcome import DeliveryError
from otel_metadata.reporting import Reporter

HOSTILE = "\x1b]0;pwned\x07\x1b[2J \u202e\x9b31m\u200b\u2066\x7f\n\r\u2028\ud800\u3164\U000e0101"

ANY_TEXT = st.text(st.characters()) | st.text(st.sampled_from(HOSTILE + "ab[]{}%\\"))
# As a key may be: a header takes no control character, a user name no colon; and asterisks are what is put in place.
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":*"), min_size=8, max_size=40)


def is_obeyed(text: str) -> bool:
    """Whether a terminal would do something else with *text* than show it on one line."""
    return any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for char in text)


@given(ANY_TEXT)
@example(HOSTILE)
def test_what_is_visible_is_obeyed_by_no_terminal(text: str) -> None:
    """No control, format or surrogate character, no line break; and a second time changes nothing."""
    shown = visible(text)
    assert not is_obeyed(shown)
    assert visible(shown) == shown


def test_what_takes_no_room_is_escaped() -> None:
    """Characters that Python calls printable and nobody sees; but not what an emoji is made of."""
    assert visible("a\u3164b\U000e0101") == r"a\u3164b\U000e0101"
    assert visible("\u26a0\ufe0f") == "\u26a0\ufe0f"


@given(text=ANY_TEXT)
@example(text=HOSTILE)
def test_a_log_line_is_one_line_of_ascii(text: str) -> None:
    """Whatever a line is made of, also when it is cut."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign] # no more of a handler is needed
    logger = logging.getLogger("otel_metadata")
    logger.addHandler(handler)
    try:
        Reporter().tell("reason", text + "x" * 3_000)
    finally:
        logger.removeHandler(handler)
    (record,) = records
    assert record.getMessage().isascii()
    assert not is_obeyed(record.getMessage())


def test_the_traceback_of_a_failure_is_escaped_too(caplog: pytest.LogCaptureFixture) -> None:
    """On the level for developers: each of its lines is one."""
    caplog.set_level(logging.DEBUG, "otel_metadata")
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        reporter = Reporter()
        reporter.failed("here", error)
    *_, record = caplog.records
    formatted = logging.Formatter().format(record)
    assert "Traceback" in formatted
    assert r"ValueError: \x1b]0;pwned" in formatted
    assert not any(map(is_obeyed, formatted.split("\n")))


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError(HOSTILE, HOSTILE, HOSTILE),
        FileError(HOSTILE, HOSTILE, HOSTILE),
        MissingExtraError(HOSTILE, HOSTILE),
        SpanNotFoundError(HOSTILE, HOSTILE),
        StoreError(HOSTILE),
        StoreFormatError(HOSTILE, HOSTILE, HOSTILE),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_message_of_an_error_is_one_line(error: Exception) -> None:
    """An application that logs it logs nothing that a terminal obeys."""
    assert r"\x1b]0;pwned" in str(error)
    assert not is_obeyed(str(error))


def test_the_filter_error_has_the_lines_of_its_caret_alone() -> None:
    """What was found, the text, and the caret."""
    lines = str(FilterError(HOSTILE, 3, HOSTILE, HOSTILE)).split("\n")
    assert len(lines) == 3
    assert not any(map(is_obeyed, lines))


def test_a_delivery_error_is_one_line() -> None:
    """Exporters put names of spans and words of servers into it."""
    assert DeliveryError("patch_failure", HOSTILE).message == visible(HOSTILE)


@given(secret=SECRETS, user=SECRETS, before=ANY_TEXT, after=ANY_TEXT)
@example(secret='p%20+/"\\1', user="pk-12345", before="", after="\x1b")
def test_no_secret_comes_back(secret: str, user: str, before: str, after: str) -> None:
    """Neither as it was sent, nor what Basic credentials say, nor encoded, nor in another case."""
    basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
    headers = {"authorization": f"Basic {basic}", "x-api-key": secret[::-1]}
    forms = {secret, user, basic, secret[::-1], quote(secret, safe=""), json.dumps(secret)[1:-1], secret.upper()}
    for form in forms:
        shown = without_secrets(f"{before}{form}{after}", headers)
        assert not is_obeyed(shown)
        assert form.lower() not in shown.lower()


@pytest.mark.parametrize(
    ("headers", "query", "said"),
    [
        ({"authorization": "Bearer sk-1234567890"}, "", "sk-1234567890"),
        ({"authorization": "Basic " + base64.b64encode(b"pk-lf-1:hunter2").decode()}, "", "hunter2"),
        ({"authorization": "Basic " + base64.b64encode(b"pk-lf-1:hunter2").decode()}, "", "pk-lf-1"),
        ({"authorization": "Basic " + base64.b64encode(b"pk-lf-1:hunter2").decode().rstrip("=")}, "", "hunter2"),
        ({"authorization": "Basic " + base64.b64encode("u:pässwörd".encode()).decode()}, "", "pässwörd"),
        ({"x-api-key": "k3y!"}, "", "k3y!"),
        ({"cookie": "session=abcdefgh; path=x"}, "", "abcdefgh"),
        ({}, "api_key=top%20secret", "top secret"),
        ({}, "api_key=top%20secret", "top%20secret"),
    ],
)
def test_each_place_of_a_secret_is_known(headers: dict[str, str], query: str, said: str) -> None:
    """Headers of any name, the inside of credentials, the query of the URL."""
    assert without_secrets(f"bad key {said}!", headers, query) == "bad key ***!"


def test_ordinary_words_of_a_server_stay() -> None:
    """Short words of headers that hold no secret, and the names of the schemes."""
    headers = {"authorization": "Bearer sk-1234567890", "x-project": "default"}
    assert without_secrets("the default Bearer is basic", headers) == "the default Bearer is basic"


@given(st.text(st.characters(exclude_categories=("Cs",))))
@example("\x7f\x9b\u202e\U0001f600")
def test_json_on_a_terminal_is_exact(text: str) -> None:
    """It is ASCII without control characters, and says the same."""
    shown = in_ascii(json.dumps({text: text}, ensure_ascii=False))
    assert shown.isascii()
    assert not is_obeyed(shown)
    assert json.loads(shown) == {text: text}
