"""Variables that several parts read: switches, the attribute limit of a span, the working directory."""

from __future__ import annotations

import os
from typing import Final

from otel_metadata.errors import ConfigurationError

_DEFAULT_ATTRIBUTE_LIMIT: Final = 128


def flag(variable: str, *, default: bool) -> bool:
    """Return the value of a switch.

    Args:
        variable: The name of the environment variable.
        default: The value if the variable is not set.

    Raises:
        ConfigurationError: The variable is neither `true` nor `false`.
    """
    text = os.environ.get(variable, "").strip().lower()
    if text in {"", "true", "false"}:
        return text != "false" if text else default
    raise ConfigurationError(variable, text, "true or false")


def absolute_path(setting: str, path: str) -> str:
    """Return a path that stays valid when the process changes its working directory; `~` is the user's home.

    Args:
        setting: The name of the setting, for the error.
        path: The path as a user gives it.

    Raises:
        ConfigurationError: The path is relative, and the working directory has been removed.
    """
    expanded = os.path.expanduser(path)
    try:
        # Not `abspath`, which drops `link/..`: if the directory is a link, its `..` is another directory.
        return expanded if os.path.isabs(expanded) else os.path.join(os.getcwd(), expanded)
    except OSError:
        raise ConfigurationError(
            setting, path, "an absolute path, because the working directory does not exist any more"
        ) from None


def span_attribute_limit() -> int | None:
    """Return how many attributes one span may have; None for no limit.

    Source: OpenTelemetry, "Span Limits" and "Attribute Limits" of the SDK environment variables. Limits that were given
    to a tracer provider in code are private to it.
    """
    for variable in ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"):
        text = os.environ.get(variable, "").strip()
        if text.isdecimal():
            return int(text)
    return _DEFAULT_ATTRIBUTE_LIMIT


def our_share(limit: int | None) -> int | None:
    """Return how many attributes of one span may be ours: a quarter, so that we never evict the application's."""
    return None if limit is None else limit // 4
