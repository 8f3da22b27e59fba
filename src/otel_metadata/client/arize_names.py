"""Arguments and older names of methods that Arize's client has and this one does not need.

A script for Arize's client runs with only the client changed. So its arguments are taken, and this is their meaning:
a project or space has to be the one that the destination sends to; in a store, where an id alone finds a span, it means
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypedDict

from otel_metadata.client.columns import PATCH_DOCUMENT
from otel_metadata.client.queries import Window
from otel_metadata.client.report import UpdateReport, tell
from otel_metadata.errors import ConfigurationError
from otel_metadata.model.unset import UNSET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Unpack

    from otel_metadata.client.dataframes import Frame
    from otel_metadata.client.queries import Time
    from otel_metadata.delivery.destination import Destination

_PLACES: Final = ("project", "project_name", "model_id", "space", "space_id")
"""Arguments and columns that name a project or a space."""


class Space(TypedDict, total=False):
    """A space that means nothing.

    Attributes:
        space: Arize's; has no meaning here.
    """

    space: str | None


class SpaceId(TypedDict, total=False):
    """The same by its older name.

    Attributes:
        space_id: Arize's; has no meaning here.
    """

    space_id: str | None


class ArizeWindow(Window, total=False):
    """A window with names of Arize's.

    Attributes:
        project_name: Arize's name for `project`.
        space_id: Arize's; has no meaning here.
    """

    project_name: str | None
    space_id: str | None


class Place(TypedDict, total=False):
    """Where an update goes.

    Attributes:
        space_id: The space of the destination; another one is refused. A store has none.
        project_name: The project of the destination; another one is refused. A store finds spans of any project.
        model_id: Arize's older name of it.
    """

    space_id: str | None
    project_name: str | None
    model_id: str | None


class ProjectAndSpace(TypedDict, total=False):
    """The same by its newer names.

    Attributes:
        project: The project of the destination; another one is refused. A store finds spans of any project.
        space: The space of the destination; another one is refused. A store has none.
    """

    project: str | None
    space: str | None


class PlaceOfRecords(ProjectAndSpace, total=False):
    """The same, with the window in which Arize looks for spans.

    Attributes:
        start_time: Arize's; has no meaning here, for spans of any time are found.
        end_time: Arize's; has no meaning here.
    """

    start_time: Time | None
    end_time: Time | None


def own(window: ArizeWindow) -> Window:
    """Return a window without Arize's names."""
    project_name = window.pop("project_name", None)
    window.pop("space_id", None)
    if window.get("project") is None:
        window["project"] = project_name
    return window


def check_place(destination: Destination, given: Mapping[str, object], frame: Frame | None = None) -> list[str]:
    """Refuse a project or space that is not the destination's own: it would be sent elsewhere than was asked.

    Args:
        destination: Where to.
        given: Arguments by name. None is not given.
        frame: May have a column of the same names. `project` beside `start_time` is of a stored span, and says where
            the span came from.

    Returns:
        A note for each one that cannot be compared.

    Raises:
        ConfigurationError: One of them differs.
    """
    place: Mapping[str, str] = getattr(destination.patch_exporter, "place", {})
    asked = [(f"{name}=", name, given[name]) for name in _PLACES if given.get(name) is not None]
    for name in _PLACES if frame is not None else ():
        if frame is not None and name in frame and not (name == "project" and "start_time" in frame):
            cells = (cell for cell in frame.column(name) if cell is not UNSET and cell is not None)
            values = dict.fromkeys(cell if isinstance(cell, str) else ascii(cell)[:100] for cell in cells)
            asked += [(f"column {name!r}", name, value) for value in values]
    notes = []
    for shown, name, value in asked:
        expected = place.get("space" if name.startswith("space") else "project")
        if expected is None:
            notes.append(f"{shown}: not compared; the credentials of {destination.name} decide where the update goes")
        # Names and ids are told apart by case, as the vendors do; white space around them comes from files.
        elif not isinstance(value, str) or value.strip() != expected.strip():
            raise ConfigurationError(
                shown,
                value,
                f"{expected!r}, where this client sends to: leave it out, or make a client of a destination for the "
                f"other, for example Client(otel_metadata.backends.{destination.name}.destination(...))",
            )
    return notes


class _Updates(Protocol):
    def update_metadata(
        self, dataframe: object, column: str, /, *, validate: bool, **place: Unpack[Place]
    ) -> UpdateReport: ...


def log_metadata(
    self: _Updates,
    dataframe: object,
    project_name: str | None = None,
    *,
    validate: bool = True,
    verbose: bool = True,
    patch_document_column_name: str = PATCH_DOCUMENT,
    space_id: str | None = None,
    model_id: str | None = None,
) -> UpdateReport:
    """Do as `update_metadata`: the name that Arize's client had before version 8.

    Args:
        self: The spans.
        dataframe: As there.
        project_name: As there.
        validate: As there.
        verbose: Log the report, and its first errors, at level INFO to the logger `otel_metadata`.
        patch_document_column_name: As there.
        space_id: As there.
        model_id: As there.

    Returns:
        As there.

    Raises:
        ConfigurationError: As there.
        StoreError: As there.
    """
    place: Place = {"project_name": project_name, "model_id": model_id, "space_id": space_id}
    report = self.update_metadata(dataframe, patch_document_column_name, validate=validate, **place)
    if verbose:
        tell(report)
    return report
