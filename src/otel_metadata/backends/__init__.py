"""Ready-made destinations, one module a vendor: endpoint, keys, span exporter, dialect and patch exporter together.

Each has a function `destination(...)` that takes everything as a keyword and what is not given from the variables that
the vendor's own SDK reads. `configure("langfuse")` calls it without arguments. How the parts work is in `exporters` and
`dialects`; nothing here talks to a server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from otel_metadata.errors import ConfigurationError
from otel_metadata.model.record import PROJECT_NAMES

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource  # a name in a signature; nothing is loaded

__all__ = ["NAMES", "first_set", "from_environment", "named_project"]

NAMES: Final = ("arize", "galileo", "langfuse", "langwatch", "mlflow", "phoenix", "splunk_ao")
"""Each is a module of this package, and a name for `configure`."""


def named_project(resource: Resource | None) -> str:
    """Return the project that a resource names as OpenInference does (`openinference.project.name`), else `default`."""
    named = resource.attributes.get(PROJECT_NAMES[0]) if resource is not None else None
    return named if isinstance(named, str) and named else "default"


def first_set(*variables: str) -> str | None:
    """Return the text of the first variable that is set and not empty; None where no variable is."""
    return next(filter(None, (os.environ.get(name, "").strip() for name in variables)), None)


def from_environment(given: str | None, *variables: str, default: str | None = None, expected: str = "") -> str:
    """Return an argument, else what the first of *variables* says that is set, else the default.

    Args:
        given: The argument; None when it was left out.
        variables: In the order in which the vendor's SDK looks at them.
        default: None when there must be one.
        expected: For the error, where there must be one: what it is, and where to get it.

    Raises:
        ConfigurationError: There is none; it names the first variable.
    """
    if given is not None:
        return given
    found = first_set(*variables) or default
    if found is None:
        raise ConfigurationError(variables[0], None, expected)
    return found
