"""`otel-metadata token`: makes, lists and revokes what lets others call a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, get_args

import typer
from rich import box
from rich.table import Table

from otel_metadata.cli.shell import AsJson, console, fail, failures, needs_extra, print_json, say, speaks_json
from otel_metadata.destination_factory import default_store
from otel_metadata.foreign_text import visible
from otel_metadata.model.times import utc
from otel_metadata.seams import SystemClock
from otel_metadata.server.operations import Scope  # imports nothing of the extra `server`

if TYPE_CHECKING:
    from otel_metadata.server.tokens import Tokens

token_app = typer.Typer(help="Tokens that let others call `otel-metadata serve`.", no_args_is_help=True)

_CLOCK = SystemClock()
_SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The store of the server; by default the first one in OTEL_PYTHON_METADATA_DESTINATIONS, else "
        "otel_metadata.db in the working directory.",
        show_default=False,
    ),
]
TokensOption = Annotated[
    str | None,
    typer.Option(
        "--tokens",
        metavar="FILE",
        help="The file with the hashes of the tokens; by default beside the file of the store.",
        show_default=False,
    ),
]


@token_app.command()
def create(
    name: Annotated[str, typer.Option("--name", help="Who it is for: the author of what is changed with it.")],
    scopes: Annotated[
        list[str],
        typer.Option("--scope", help=f"What it may do: {', '.join(_SCOPES)}. Repeat it for more."),
    ],
    project: Annotated[
        str | None, typer.Option("--project", help="The only project that it sees and changes.", show_default=False)
    ] = None,
    store: StoreOption = None,
    tokens: TokensOption = None,
) -> None:
    """Make a token and print it. Nobody can show it again: the file has only its hash."""
    with failures():
        text = tokens_of(store, tokens).create(name, [_scope(one) for one in scopes], project, _CLOCK.wall_ns())
    typer.echo(text)
    say("keep this token; it is not shown again.")


@token_app.command("list")
def list_(store: StoreOption = None, tokens: TokensOption = None, as_json: AsJson = None) -> None:
    """Show the tokens that are in force, without the tokens themselves."""
    with failures():
        found = tokens_of(store, tokens)
        known = found.all()
    if speaks_json(as_json):
        for one in known:
            created = utc(one.created_ns).isoformat(timespec="seconds")
            print_json({"name": one.name, "scopes": [*one.scopes], "project": one.project, "created": created})
        return
    terminal = console()
    if not known:
        terminal.print(f"{visible(found.path)}: no token is in force.")
        return
    table = Table("name", "scopes", "project", "created", box=box.SIMPLE_HEAD)
    for one in known:
        created = utc(one.created_ns).isoformat(" ", "minutes")
        table.add_row(visible(one.name), " ".join(one.scopes), visible(one.project or "all"), created)
    terminal.print(table)


@token_app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the token.")],
    store: StoreOption = None,
    tokens: TokensOption = None,
) -> None:
    """End a token. A server that runs refuses it from the next call on."""
    with failures():
        found = tokens_of(store, tokens)
        if not found.revoke(name, _CLOCK.wall_ns()):
            fail(f"{found.path} has no token {name!r}; expected a name that `otel-metadata token list` shows.")
    typer.echo(f"{visible(name)} revoked.")


def tokens_of(store: str | None, path: str | None) -> Tokens:
    """Return the tokens that the options of a command name.

    Raises:
        MissingExtraError: The extra `server` is not installed.
        ConfigurationError: The environment names destinations, but no store.
    """
    with needs_extra("server"):
        from otel_metadata.server.tokens import Tokens, beside
    return Tokens(path if path is not None else beside(store if store is not None else default_store(of_server=True)))


def _scope(text: str) -> Scope:
    for scope in _SCOPES:
        if scope == text:
            return scope
    raise typer.BadParameter(
        f"{ascii(text)[:100]} is not a scope; expected {', '.join(_SCOPES)}.", param_hint="--scope"
    )
