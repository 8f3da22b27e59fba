"""`otel-metadata serve`: runs the server in the foreground."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import typer

from otel_metadata.cli.given import ago, size
from otel_metadata.cli.shell import fail, failures, needs_extra, say
from otel_metadata.cli.token import StoreOption, TokensOption, tokens_of
from otel_metadata.client.queries import check_bytes
from otel_metadata.destination_factory import default_store, names_server, open_store
from otel_metadata.errors import ConfigurationError, shown_url
from otel_metadata.model.record import SpanQuery
from otel_metadata.seams import SystemClock
from otel_metadata.spool.spool_settings import DURABILITIES

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on. Any other than a loopback address demands tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port for HTTP; 0 for a free one.")] = 4318,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The port for OTLP over gRPC; 0 for a free one.")
    ] = 4317,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="Do not listen for gRPC.")] = False,
    store: StoreOption = None,
    max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Delete the oldest spans beyond this size, such as 500MB or 2GB."),
    ] = None,
    retain: Annotated[
        str | None, typer.Option(metavar="AGE", help="Delete spans that started longer ago, such as 12h or 30d.")
    ] = None,
    durability: Annotated[
        str,
        typer.Option(
            metavar="process|power",
            help="What an acknowledged write survives: the end of the process, or also that of the machine (one fsync "
            "for each group of requests).",
        ),
    ] = "process",
    access_log: Annotated[bool, typer.Option("--access-log", help="Log each request on one line.")] = False,
    tokens: TokensOption = None,
    require_tokens: Annotated[
        bool, typer.Option("--require-tokens", help="Demand tokens on a loopback address too, as behind a proxy.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name of this machine in the Host header; repeat it for more."),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print the variables that point an SDK at the server, and end: langfuse, …"),
    ] = None,
) -> None:
    """Run the server: OTLP in, updates of spans and traces, and reads, over a store.

    It runs until Ctrl-C or SIGTERM. Then it answers the requests that run, and everything that was acknowledged is
    stored. If an update that was answered at once could not be stored, the exit code is 1.
    """
    # gRPC logs a taken port by itself, beside our error; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with failures():
        with needs_extra("server"):
            from otel_metadata.server.access import Access
            from otel_metadata.server.background_retention import BackgroundRetention
            from otel_metadata.server.browsers import is_loopback
            from otel_metadata.server.run import LocalServer
            from otel_metadata.server.sdk_settings import settings_of
            from otel_metadata.store.sqlite.store import SqliteStore
        if env is not None:
            if port == 0:
                raise typer.BadParameter("--port is 0; expected the port on which the server listens, with --env")
            at = f"http://{_reachable(host)}"
            with _wrong_option("--env"):
                lines = settings_of(env, f"{at}:{port}", f"{at}:{grpc_port}")
            for line in lines:
                name, _, value = line.partition("=")
                typer.echo(f"export {name}={shlex.quote(value)}")
            return
        older_than, max_bytes = ago(retain, "--retain"), size(max_size, "--max-size")
        with _wrong_option("--max-size"):
            check_bytes(max_bytes)
        deletes = older_than is not None or max_bytes is not None
        url = _store_url(store, deletes=deletes)
        if durability not in DURABILITIES:
            raise typer.BadParameter(f"--durability is {durability!r}; expected {' or '.join(DURABILITIES)}")
        logging.basicConfig(format=_LOG_FORMAT, level=logging.WARNING)
        if access_log:
            logging.getLogger("otel_metadata.server.access").setLevel(logging.INFO)
        needs_token = require_tokens or not is_loopback(host.lower())
        access = Access(tokens_of(store, tokens), needs_token=needs_token, hosts=allow_host or ())
        clock = SystemClock()
        with closing(open_store(url)) as opened:
            if durability == "power":
                if not isinstance(opened, SqliteStore):
                    raise ConfigurationError("--store", shown_url(url), "an SQLite store with --durability power")
                opened.survives_power_loss = True
            opened.query(SpanQuery(limit=1))  # a store that cannot be used is an error now, not of the first request
            server = LocalServer(
                opened,
                host=host,
                port=port,
                grpc_port=None if no_grpc else grpc_port,
                access=access,
                clock=clock,
                access_log=access_log,
            )
            retention = None
            if deletes:
                retention = BackgroundRetention(opened, clock, older_than=older_than, max_bytes=max_bytes)
                retention.start()

            def tell() -> None:
                over_grpc = f", OTLP over gRPC on port {server.grpc_port}" if server.grpc_port is not None else ""
                say(f"serving {opened} at {server.url}{over_grpc}; Ctrl-C ends it.")

            try:
                server.run(tell)
            finally:
                if retention is not None:
                    retention.stop()
    lost = server.service.metrics.updates_lost
    if lost:
        fail(f"stopped; of the updates that were answered at once, {lost:,} could not be stored: the log says why.")
    say("stopped; everything that was acknowledged is stored.")


@contextmanager
def _wrong_option(option: str) -> Iterator[None]:
    """Turn a wrong value into a usage error, which ends with exit code 2.

    Raises:
        typer.BadParameter: The value of *option* is wrong.
    """
    try:
        yield
    except ConfigurationError as error:
        raise typer.BadParameter(f"{option} is {error.got!r}; expected {error.expected}") from None


def _reachable(host: str) -> str:
    """Return how a program on this machine names a host in a URL."""
    named = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 # nothing is bound
    return f"[{named}]" if ":" in named else named


def _store_url(store: str | None, *, deletes: bool) -> str:
    """Return the URL of the store.

    Raises:
        ConfigurationError: It is a server, or *deletes* and not an SQLite store.
    """
    url = store if store is not None else default_store(of_server=True)
    if names_server(url):
        raise ConfigurationError("--store", shown_url(url), "SQLite or ClickHouse: this command is such a server")
    if deletes and not url.strip().lower().startswith("sqlite:"):
        raise ConfigurationError(
            "--store", shown_url(url), "an SQLite store with --retain and --max-size; ClickHouse has a TTL"
        )
    return url
