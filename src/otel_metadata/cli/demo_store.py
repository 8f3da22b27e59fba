"""The file of the demo's store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from otel_metadata.cli.shell import failures, say
from otel_metadata.store.sqlite.file import create_private_file


@contextmanager
def demo_store(keep: str) -> Iterator[Path]:
    """Give the path of a new store, which is removed at the end unless it is kept.

    Args:
        keep: A file for the store; "" for a temporary one.

    Raises:
        typer.Exit: The file exists already, or cannot be made. Nothing else was shown before.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(keep).resolve() if keep else Path(directory) / "spans.db"
        if keep:
            if path.exists():
                say(f"{path}: the file exists already; expected the name of a new file.")
                raise typer.Exit(2)
            with failures():
                create_private_file(str(path))
        yield path
