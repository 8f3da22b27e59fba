"""What the environment says that several parts read: switches, the attribute limit of a span, the working directory."""

from __future__ import annotations

import os
from typing import Final

from otel_metadata.errors import ConfigurationError

__all__ = ["absolute_path", "flag", "our_share", "span_attribute_limit"]

_DEFAULT_ATTRIBUTE_LIMIT: Final = 128


def flag(variable: str, *, default: bool) -> bool:
    """Return what a variable says.

    Args:
        variable: Its name.
        default: What holds where it is not set.

    Raises:
        ConfigurationError: It is neither `true` nor `false`.
    """
    text = os.environ.get(variable, "").strip().lower()
    if text in {"", "true", "false"}:
        return text != "false" if text else default
    raise ConfigurationError(variable, text, "true or false")


def absolute_path(setting: str, path: str) -> str:
    """Return a path that stays what it is when the process changes its working directory; `~` is the user's home.

    Args:
        setting: What was set, for the error.
        path: As a user gives it.

    Raises:
        ConfigurationError: It is relative, and the working directory has been removed.
    """
    expanded = os.path.expanduser(path)
    try:
        # Not `abspath`: where a directory is a link, `..` behind it is not the directory before it.
        return expanded if os.path.isabs(expanded) else os.path.join(os.getcwd(), expanded)
    except OSError:
        raise ConfigurationError(
            setting, path, "an absolute path, because the working directory does not exist any more"
        ) from None


def span_attribute_limit() -> int | None:
    """Return how many attributes one span may have; None for no limit.

    Source: OpenTelemetry, "Span Limits" and "Attribute Limits" of the SDK environment variables. The limits that a
    tracer provider was given in code are private to it.
    """
    for variable in ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"):
        text = os.environ.get(variable, "").strip()
        if text.isdecimal():
            return int(text)
    return _DEFAULT_ATTRIBUTE_LIMIT


def our_share(limit: int | None) -> int | None:
    """Return how many attributes of one span ours may be: a quarter, so that we never evict the application's."""
    return None if limit is None else limit // 4
