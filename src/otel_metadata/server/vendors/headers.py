"""What vendors' headers say of the spans in an OTLP request, as attributes of their resource."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_metadata.model.record import PROJECT_NAMES
from otel_metadata.server.operations import Problem
from otel_metadata.server.vendors.galileo_ids import derived_uuid4, uuid4
from otel_metadata.server.vendors.names import Named, NameKind, vendor_names

if TYPE_CHECKING:
    from otel_metadata.model.merge import Json
    from otel_metadata.server.service import Service

PROJECT_HEADERS: Final = ("x-project-name", "project", "projectid", "x-project-id")
"""Headers that name the project: of Phoenix; of Galileo, by name and by id; of LangWatch. The first that is set counts.
Arize's `space_id` is not among them: a space has several projects."""

_GALILEO: Final = {
    "logstream": "galileo.logstream.name",
    "logstreamid": "galileo.logstream.id",
    "experimentid": "galileo.experiment.id",
}

_MAX_CHARACTERS: Final = 256


async def resource_of(service: Service, headers: Mapping[str, str]) -> dict[str, Json]:
    """Return the attributes; the name of a project or log stream whose id of Galileo's a header has.

    Args:
        service: Knows the names.
        headers: Of the request, with names in lower case.

    Raises:
        StoreError: The names cannot be read.
    """
    said = {name: text for name, value in headers.items() if (text := value.strip()[:_MAX_CHARACTERS])}
    resource: dict[str, Json] = {attribute: said[name] for name, attribute in _GALILEO.items() if name in said}
    project = next((said[name] for name in PROJECT_HEADERS if name in said), None)
    if project is None:
        return resource
    named = await _named(service, "project", project)
    if named is not None:
        resource["galileo.project.id"] = named.id
    owner = named or Named(derived_uuid4("project", project), project, "")
    resource[PROJECT_NAMES[0]] = owner.name
    log_stream = await _named(service, "log_stream", said.get("logstreamid", ""), owner.id)
    if log_stream is not None:
        resource.setdefault("galileo.logstream.name", log_stream.name)
    return resource


async def _named(service: Service, kind: NameKind, text: str, parent: str = "") -> Named | None:
    """Return what has an id; None also if a text is no id of Galileo's."""
    try:
        identifier = f"{uuid4(text, '')}"
    except Problem:
        return None
    return await service.find(partial(vendor_names(service.store).get, kind, identifier, parent))
