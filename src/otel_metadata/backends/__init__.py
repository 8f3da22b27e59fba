"""Ready-made destinations, one folder for each vendor: endpoint, keys, span exporter, dialect and patch exporter.

Each folder has a function `destination(...)`. All its arguments are keywords, and the variables that the vendor's own
SDK reads take the place of those that are left out. `configure("langfuse")` calls it without arguments.

A new vendor needs a folder with that function, its name in `NAMES`, and its variables in `settings.VENDOR_VARIABLES`.
For patches, `exporters.rest.RestPatchExporter` leaves one method to write: it sends one patch. For spans,
`dialects.openinference.OpenInferenceDialect` or `"otel"` may do; a dialect of its own uses `dialects.spelling`.
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
"""The folders of this package; each is also a name for `configure`."""


def named_project(resource: Resource | None) -> str:
    """Return the project that a resource names as OpenInference does (`openinference.project.name`), else `default`."""
    named = resource.attributes.get(PROJECT_NAMES[0]) if resource is not None else None
    return named if isinstance(named, str) and named else "default"


def first_set(*variables: str) -> str | None:
    """Return the text of the first variable that is set and not empty; None where no variable is."""
    return next(filter(None, (os.environ.get(name, "").strip() for name in variables)), None)


def from_environment(given: str | None, *variables: str, default: str | None = None, expected: str = "") -> str:
    """Return an argument, else the text of the first variable that is set, else the default.

    Args:
        given: The argument; None when it was left out.
        variables: Names of variables, in the order in which the vendor's SDK reads them.
        default: The text to use when nothing is given or set; None when that is an error.
        expected: For that error: what the value is, and where to get it.

    Raises:
        ConfigurationError: Nothing is given or set, and there is no default. The error names the first variable.
    """
    if given is not None:
        return given
    found = first_set(*variables) or default
    if found is None:
        raise ConfigurationError(variables[0], None, expected)
    return found
