"""Destinations and stores made from the names and URLs that users write, and from the environment.

`make_destinations` reads the arguments of `configure`; `open_store` reads the URL of a store.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import Resource

from otel_metadata import backends
from otel_metadata.delivery.destination import Destination
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.errors import ConfigurationError, MissingExtraError, shown_url
from otel_metadata.joining.addresses import address_of, is_same
from otel_metadata.settings import DEFAULT_DESTINATION, DESTINATIONS

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_metadata.exporters.otlp import EventSender
    from otel_metadata.seams import SpanStore

ENTRY_POINT_GROUP: Final = "otel_metadata_destination"
"""Packages add destinations with an entry point of this group. Its name is the name of the destination or the scheme of
its URLs; it refers to a callable that takes the text given to `configure` and returns a `Destination`."""

_CLICKHOUSE: Final = ("clickhouse", "clickhouses")
_SERVE: Final = ("serve", "serves")
_STORE_SCHEMES: Final = ("sqlite", *_CLICKHOUSE, *_SERVE)
_HISTORY: Final = {"history=on": True, "history=off": False}
_CLICKHOUSE_URL: Final = "clickhouse://host:8123/database"
_SERVE_URL: Final = "serve://host:4318"


def make_destinations(*given: str | Destination, resource: Resource | None = None) -> tuple[Destination, ...]:
    """Return the destinations that the arguments of `configure` name; without arguments, those of the environment.

    Args:
        given: As for `configure`.
        resource: The resource of the spans that destinations make themselves; None for the one that the environment
            describes.

    Raises:
        ConfigurationError: A destination cannot be used, or two have the same name or send to the same place.
    """
    resource = resource if resource is not None else Resource.create()
    wanted = given or tuple(_from_environment())
    made = [_make_destination(one, resource) for one in wanted]
    _refuse_same_place(wanted, made, resource, "configure(destinations)" if given else DESTINATIONS)
    taken = {one.name for one in wanted if isinstance(one, Destination)}
    for index, one in enumerate(wanted):
        if isinstance(one, str):  # the second of two that were given as text gets a number
            made[index] = replace(made[index], name=free_name(made[index].name, taken))
            taken.add(made[index].name)
    names = [destination.name for destination in made]
    if len(set(names)) != len(names):
        raise ConfigurationError(
            "configure(destinations)", names, "destinations of different names: Destination(name=...)"
        )
    return tuple(made)


def free_name(name: str, taken: Collection[str]) -> str:
    """Return *name*, with a number when it is taken."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)


def open_store(url: str, *, create: bool = True) -> SpanStore:
    """Return the store that a URL names.

    Args:
        url: `"sqlite:///relative.db"`, `"sqlite:////absolute.db"`,
            `"clickhouse://user:password@host:8123/database"` (`clickhouses://` for TLS), or `"serve://token@host:4318"`
            for a server of ours (`serves://` for TLS; `"serve"` for that of the environment). With `?history=off`
            behind a file or ClickHouse the store keeps no values that are superseded.
        create: Make a missing file or missing tables; False for programs that only read.

    Raises:
        ConfigurationError: *url* is not the URL of a store.
        MissingExtraError: The client of ClickHouse is not installed.
    """
    shown: object = url
    if isinstance(url, str):
        _refuse_several(url, "store")
        scheme = _scheme(url)
        _, separator, rest = url.strip().partition("://")
        if scheme in _CLICKHOUSE and separator:
            if find_spec("clickhouse_connect") is None:
                raise MissingExtraError("clickhouse-connect", "clickhouse")
            from otel_metadata.store.clickhouse.store import ClickHouseStore  # loaded on use

            return ClickHouseStore(url, create=create)
        if scheme in _SERVE:
            from otel_metadata.backends import serve  # loaded on use

            return serve.open_store(url)
        if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
            from otel_metadata.store.sqlite.store import SqliteStore  # `import otel_metadata` loads no sqlite3

            path, has_query, query = rest[1:].partition("?")
            if path and (not has_query or query in _HISTORY):
                return SqliteStore(path, create=create, history=_HISTORY.get(query, True))
        shown = shown_url(url)
    expected = (
        f"sqlite:///relative.db, sqlite:////absolute.db (?history=off behind either), {_CLICKHOUSE_URL}, "
        f"or {_SERVE_URL}"
    )
    raise ConfigurationError("store", shown, expected)


def names_store(text: str) -> bool:
    """Whether a text given to `configure` is the URL of a store; otherwise it names another destination."""
    return _scheme(text) in _STORE_SCHEMES


def names_server(text: str) -> bool:
    """Whether the URL of a store is that of a server of ours."""
    return _scheme(text) in _SERVE


def default_store(*, of_server: bool = False) -> str:
    """Return the URL of the store that `configure()` sends to: the first one that the environment names.

    Args:
        of_server: For the server itself. What the environment names for applications that send to it does not count.

    Raises:
        ConfigurationError: The environment names destinations, but no store.
    """
    named = [one for one in _from_environment() if not (of_server and names_server(one))] or [DEFAULT_DESTINATION]
    store = next(filter(names_store, named), None)
    if store is None:
        raise ConfigurationError(
            DESTINATIONS,
            ",".join(map(shown_url, named)),
            "a store among them, such as sqlite:///spans.db; or name one (on the command line by --store)",
        )
    return store


def _from_environment() -> list[str]:
    text = os.environ.get(DESTINATIONS, "")
    return [part.strip() for part in text.split(",") if part.strip()] or [DEFAULT_DESTINATION]


def _scheme(text: str) -> str:
    """Return the scheme of a URL in lower case (RFC 3986, 3.1); of a name, the name."""
    return text.strip().partition("://")[0].lower()


def _make_destination(given: str | Destination, resource: Resource) -> Destination:
    if isinstance(given, Destination):
        return given
    if not isinstance(given, str):
        raise ConfigurationError(
            "configure(destinations)",
            type(given),
            "a Destination, or a name or URL as text; of several, each as an argument of its own",
        )
    given = given.strip()
    _refuse_several(given, "configure(destinations)")
    scheme = _scheme(given)
    if scheme in _SERVE:
        from otel_metadata.backends import serve  # loaded on use

        return serve.destination(given)
    if scheme in _STORE_SCHEMES:
        return _store_destination("clickhouse" if scheme in _CLICKHOUSE else scheme, open_store(given))
    if scheme in {"http", "https"}:
        return _otlp_destination(given, resource)
    if given in _BUILT_IN:
        return _BUILT_IN[given](resource)
    if given in backends.NAMES:
        vendor: Destination = import_module(f"otel_metadata.backends.{given}").destination(resource=resource)
        return vendor
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name.lower() == scheme:
            made = entry_point.load()(given)
            if not isinstance(made, Destination):
                raise ConfigurationError(f"entry point {entry_point.value}", type(made), "a Destination")
            return made
    raise ConfigurationError(
        "destination",
        shown_url(given),
        f"a Destination, sqlite:///file.db, {_CLICKHOUSE_URL}, {_SERVE_URL}, an http:// or https:// OTLP endpoint, "
        "or one of " + ", ".join(sorted([*_BUILT_IN, *backends.NAMES, "serve"])),
    )


def _refuse_several(text: str, setting: str) -> None:
    """Refuse several destinations in one text. A file name may have a comma, so each part must name a destination.

    Raises:
        ConfigurationError: Each part names a destination.
    """
    parts = [part.strip() for part in re.split("[,;]", text) if part.strip()]
    if len(parts) < 2:  # nearly always: the entry points of all packages need not be read
        return
    known = {*_BUILT_IN, *backends.NAMES, "serve", *(one.name.lower() for one in entry_points(group=ENTRY_POINT_GROUP))}
    if all("://" in part or part in known for part in parts):
        raise ConfigurationError(
            setting,
            ",".join(map(shown_url, parts)),
            f"one destination in each text: configure({', '.join(repr(shown_url(part)) for part in parts)}); only in "
            f"{DESTINATIONS} are they separated by commas",
        )


def _refuse_same_place(
    given: Sequence[str | Destination], made: Sequence[Destination], resource: Resource, setting: str
) -> None:
    """Refuse two destinations that send to the same place, however they are spelled.

    Two `Destination` objects of one address are allowed: the application made both, so it may mean both.

    Raises:
        ConfigurationError: The place would get each span twice.
    """
    for (one, first), (other, second) in itertools.combinations(zip(given, made, strict=True), 2):
        if isinstance(one, Destination) and isinstance(other, Destination) and one is not other:
            continue
        if first.spans and second.spans and (first is second or _is_same_place(first, second, resource)):
            shown = [shown_url(text) if isinstance(text, str) else text.name for text in (one, other)]
            raise ConfigurationError(
                setting, shown, "each place once: both are the same, and would get each span twice"
            )


def _is_same_place(one: Destination, other: Destination, resource: Resource) -> bool:
    places = [getattr(getattr(each.patch_exporter, "store", None), "place", None) for each in (one, other)]
    if places == [None, None]:
        return is_same(address_of(one.span_exporter, resource), address_of(other.span_exporter, resource))
    return places[0] == places[1]


def _store_destination(name: str, store: SpanStore) -> Destination:
    from otel_metadata.exporters.store import StorePatchExporter, StoreSpanExporter  # loaded on use

    # A store keeps fields as they are, so they need not fit onto the span.
    dialect = OtelDialect(max_attributes=None, span_limit=None)
    return Destination(name, StoreSpanExporter(store), StorePatchExporter(store, name), dialect)


def _otlp_destination(url: str, resource: Resource) -> Destination:
    from otel_metadata.exporters.http import split_url  # loaded on use
    from otel_metadata.exporters.otlp_environment import wants_logs  # loaded on use
    from otel_metadata.exporters.otlp_http import OtlpHttpEvents, OtlpHttpSender  # loaded on use

    address, query = split_url(url)
    spans = address if "/" in address.partition("://")[2] else f"{address}/v1/traces"
    # The address of logs follows from a path that ends with /v1/traces, and from no other.
    logs = f"{spans.removesuffix('traces')}logs" if spans.endswith("/v1/traces") and wants_logs() else None
    return _with_otlp(OtlpHttpSender(spans + query), OtlpHttpEvents(logs + query) if logs else None, resource)


def _otlp_from_environment(resource: Resource) -> Destination:
    from otel_metadata.exporters import otlp_environment  # loaded on use

    name, text = otlp_environment.variable("traces", "PROTOCOL")
    spans = _otlp_senders(name, text)[0]()
    events: EventSender | None = None
    if otlp_environment.wants_logs() and otlp_environment.has_logs_endpoint():
        logs_name, logs_text = otlp_environment.variable("logs", "PROTOCOL")
        events = _otlp_senders(logs_name, logs_text or text)[1]()
    return _with_otlp(spans, events, resource)


def _otlp_senders(variable: str, protocol: str) -> tuple[Callable[[], SpanExporter], Callable[[], EventSender]]:
    if protocol == "grpc":
        from otel_metadata.exporters.otlp_grpc import OtlpGrpcEvents, OtlpGrpcSender  # loaded on use

        return OtlpGrpcSender, OtlpGrpcEvents
    if protocol in {"", "http/protobuf"}:
        from otel_metadata.exporters.otlp_http import OtlpHttpEvents, OtlpHttpSender  # loaded on use

        return OtlpHttpSender, OtlpHttpEvents
    raise ConfigurationError(variable, protocol, "grpc or http/protobuf")


def _with_otlp(exporter: SpanExporter, events: EventSender | None, resource: Resource) -> Destination:
    from otel_metadata.exporters.otlp import OtlpPatchExporter  # loaded on use

    return Destination("otlp", exporter, OtlpPatchExporter(exporter, events=events, resource=resource))


def _console(_resource: Resource) -> Destination:
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # loaded on use

    from otel_metadata.exporters.console import ConsolePatchExporter  # loaded on use

    return Destination("console", ConsoleSpanExporter(), ConsolePatchExporter())


_BUILT_IN: Final[Mapping[str, Callable[[Resource], Destination]]] = {
    "otlp": _otlp_from_environment,
    "console": _console,
}
