"""The commands of `otel-metadata`."""

from __future__ import annotations

from typing import Annotated

import typer

from otel_metadata._version import __version__
from otel_metadata.cli import spans
from otel_metadata.cli.serve import serve
from otel_metadata.cli.shell import Commands
from otel_metadata.cli.spool import spool_app
from otel_metadata.cli.token import token_app

app = typer.Typer(
    name="otel-metadata",
    cls=Commands,
    help="Metadata on OpenTelemetry spans, whenever it arrives.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    spans.ls,
    spans.traces,
    spans.show,
    spans.history,
    spans.patch,
    spans.score,
    spans.annotate,
    spans.export,
):
    app.command()(command)
app.command("import")(spans.import_)
app.command()(spans.delete)
app.command()(spans.retain)
app.command()(serve)
app.add_typer(spool_app, name="spool")
app.add_typer(token_app, name="token")


def _show_version(wanted: bool) -> None:  # typer calls it with the flag
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # the callback does it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Metadata on OpenTelemetry spans, whenever it arrives."""


@app.command()
def demo(
    keep: Annotated[str, typer.Option(help="Keep the store in this file; by default it is removed.")] = "",
    serve: Annotated[
        bool, typer.Option("--serve", help="Fill a store with a larger application that goes on, and open the page.")
    ] = False,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="With --serve: say where the page is, and do not open it.")
    ] = False,
) -> None:
    """Watch metadata reach spans live, in flight and late. Needs no network."""
    if serve:
        from otel_metadata.cli import demo_serve

        demo_serve.serve(keep, opens=not no_browser)
        return
    try:
        from otel_metadata.cli.demo import run  # openai and an instrumentor are an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "otel_metadata":
            raise
        typer.echo(f"otel-metadata: {error.name} is not installed; pip install 'otel-metadata[demo]'.", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(run(keep))
