"""The exceptions that only otel_metadata raises.

An update never raises into the application. These exceptions are for wrong arguments of decorators and of `configure`,
and for programs that work on stored spans.

    OtelMetadataError
    ├── ConfigurationError            a setting, URL or destination that cannot be used       (also ValueError)
    ├── FilterError                   the text of a filter that is not understood             (also ValueError)
    ├── InvalidSpanRefError           a text or number that does not name a span              (also ValueError)
    ├── MissingExtraError             a package of an extra is not installed                  (also ImportError)
    ├── FileError                     a file of an export or import cannot be used            (also OSError)
    └── StoreError                    the store cannot be read or written
        ├── SpanNotFoundError         no such span in the store                               (also LookupError)
        ├── StoreAccessError          the store refuses access: password, rights, tables
        ├── StoreFormatError          the file is not a store, or a newer version wrote it
        └── StoreUnsupportedError     the store does not keep or do what was asked for
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, final

from otel_metadata.foreign_text import visible

__all__ = [
    "ConfigurationError",
    "FileError",
    "FilterError",
    "InvalidSpanRefError",
    "MissingExtraError",
    "OtelMetadataError",
    "SpanNotFoundError",
    "StoreAccessError",
    "StoreError",
    "StoreFormatError",
    "StoreUnsupportedError",
    "shown_url",
]

_SCHEME: Final = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
"""RFC 3986, 3.1."""

_TRACE_ID_DIGITS: Final = 32


class OtelMetadataError(Exception):
    """Root of the tree above."""

    def __init__(self, *args: object) -> None:
        """Escape line breaks and control codes in the message, because names in it come from everywhere."""
        super().__init__(*(visible(one) if isinstance(one, str) else one for one in args))


class ConfigurationError(OtelMetadataError, ValueError):
    """A setting, URL or destination cannot be used.

    Attributes:
        setting: The setting as the user knows it: an argument, an environment variable, a destination.
        got: The value that was given, or its type if the type is wrong. Never a secret: callers pass credentials as
            `"***"`.
        expected: What would have been right, and what to do.
    """

    def __init__(self, setting: str, got: object, expected: str) -> None:
        """Keep the facts and build the message from them."""
        self.setting = setting
        self.got = got
        self.expected = expected
        shown = repr(got) if not isinstance(got, type) else "None" if got is type(None) else f"of type {got.__name__}"
        super().__init__(f"{setting} is {shown}; expected {expected}.")


@final
class FilterError(OtelMetadataError, ValueError):
    """The text of a filter is not understood; the message shows the place in it.

    Attributes:
        text: The filter as it was given.
        place: Index into `text` of the character that the caret points at; the length of `text` if it ends too early.
        found: The text at that place.
        expected: What would have been right, and what to do.
    """

    def __init__(self, text: str, place: int, found: str, expected: str) -> None:
        """Keep the facts and build the message from them."""
        self.text = text
        self.place = place
        self.found = _on_one_line(found)
        self.expected = _on_one_line(expected)
        message = f"Filter, character {place + 1}: found {self.found}; expected {self.expected}."
        super().__init__(message)
        self.args = (f"{message}\n{_with_caret(text, place)}",)


@final
class InvalidSpanRefError(OtelMetadataError, ValueError):
    """A text or number does not name a span.

    Attributes:
        got: What was given.
        expected: The form that is understood.
    """

    def __init__(self, got: object, expected: str) -> None:
        """Keep the facts and build the message from them."""
        self.got = got
        self.expected = expected
        super().__init__(f"Got {ascii(got)[:200]}; expected {expected}.")


@final
class MissingExtraError(OtelMetadataError, ImportError):
    """A package that only an extra installs is not there.

    Attributes:
        package: The name of the package.
        extra: The extra of otel-metadata that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        """Keep the facts and build the message from them."""
        self.package = package
        self.extra = extra
        super().__init__(f"{package} is not installed; expected the extra: pip install 'otel-metadata[{extra}]'.")


@final
class FileError(OtelMetadataError, OSError):
    """A file of an export or import cannot be used.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str, got: object, expected: str) -> None:
        """Keep the facts and build the message from them."""
        self.path = path
        super().__init__(f"{path}: {got}; expected {expected}.")


class StoreError(OtelMetadataError):
    """The store cannot be read or written."""


@final
class StoreAccessError(StoreError):
    """The store refuses access: a password, a right or a table is missing, and trying again changes nothing."""


@final
class StoreUnsupportedError(StoreError):
    """The store does not keep or do what was asked for, and trying again changes nothing."""


@final
class SpanNotFoundError(StoreError, LookupError):
    """No such span in the store, or no span of such a trace.

    Attributes:
        span_id: The id that was asked for, as 16 hex digits; of a trace, 32.
    """

    def __init__(self, span_id: str, store: str) -> None:
        """Keep the facts and build the message from them."""
        self.span_id = span_id
        what = "Trace" if len(span_id) == _TRACE_ID_DIGITS else "Span"
        super().__init__(
            f"{what} {span_id} is not in {store}; expected a {what.lower()} that was exported there. "
            "Spans wait in the process that made them until they are exported: call flush() there first."
        )


@final
class StoreFormatError(StoreError):
    """The file is not a store of ours, or a newer version wrote it.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str, got: str, expected: str) -> None:
        """Keep the facts and build the message from them."""
        self.path = path
        super().__init__(f"{path} is {got}; expected {expected}. Nothing was changed.")


# A filter may be 4 kB long: the text around the place is enough.
_SHOWN_BEFORE: Final = 60
_SHOWN_AFTER: Final = 40


def _with_caret(text: str, place: int) -> str:
    start, end = max(0, place - _SHOWN_BEFORE), place + _SHOWN_AFTER
    before, after = "…" if start else "", "…" if end < len(text) else ""
    columns = len(before) + sum(map(_columns, text[start:place]))
    return f"  {before}{_on_one_line(text[start:end])}{after}\n  {' ' * columns}^"


def _columns(char: str) -> int:
    """Return how many columns of a terminal a character takes."""
    return 2 if unicodedata.east_asian_width(char) in "WF" else 0 if unicodedata.combining(char) else 1


def _on_one_line(text: str) -> str:
    # One character for each, so that the caret is at the right place; a line break or control code would move it.
    return "".join(char if char.isprintable() else " " for char in text)


def shown_url(url: str) -> str:
    """Return a URL as an error or a log line may show it: without user, password, query and fragment.

    Keys are found in those parts.
    """
    _, at, rest = url.rpartition("@")
    if at:
        # In a text of another form, anything before the last @ may be a password.
        scheme = _SCHEME.match(url)
        rest = f"{scheme[0] if scheme is not None else ''}***@{rest}"
    return rest.partition("?")[0].partition("#")[0]
