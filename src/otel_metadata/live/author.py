"""The author of what this process sets: as `configure` or the environment says, otherwise its service and process.

A person reads the default at a glance: `checkout (pid 4711)`. It says which of several processes of a service it was,
and nothing about a person or a host.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from otel_metadata.errors import ConfigurationError
from otel_metadata.model.authors import MAX_AUTHOR_CHARACTERS

AUTHOR: Final = "OTEL_PYTHON_METADATA_AUTHOR"
"""The environment variable with the name of the author."""

_UNKNOWN_SERVICE: Final = "unknown_service"  # OpenTelemetry's word for it

_MAX_SERVICE_CHARACTERS: Final = MAX_AUTHOR_CHARACTERS - len(" (pid 4194304)")

_SHOWN_CHARACTERS: Final = 40


def chosen_author(setting: str, given: object) -> str | None:
    """Return the name that an argument gives, or else the environment; None if neither does.

    Args:
        setting: The argument, for the error.
        given: Its value; None for the variable.

    Raises:
        ConfigurationError: It is not a text, is empty, or is too long.
    """
    if given is None:
        setting, given = AUTHOR, os.environ.get(AUTHOR, "").strip() or None
    if given is None:
        return None
    expected = f"a name of 1 to {MAX_AUTHOR_CHARACTERS} characters, such as nightly judge"
    if not isinstance(given, str):
        raise ConfigurationError(setting, type(given), expected)
    name = given.strip()
    if not name or len(name) > MAX_AUTHOR_CHARACTERS:
        got = f"{name[:_SHOWN_CHARACTERS]}... ({len(name)} characters)" if name else given[:_SHOWN_CHARACTERS]
        raise ConfigurationError(setting, got, expected)
    return name


def author_named(name: str | None, service: object) -> Callable[[], str]:
    """Return a function that returns the author: *name*, or else the service and the process that calls it.

    Args:
        name: The name that was chosen; None for the default.
        service: `service.name` of the resource, whatever it is; None if there is none.
    """
    if name is not None:
        return lambda: name
    beginning = f"{service or _UNKNOWN_SERVICE}"[:_MAX_SERVICE_CHARACTERS]
    return lambda: f"{beginning} (pid {os.getpid()})"
