"""The command line: `otel-metadata`."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: With the exit code. A missing package is reported on one line.
    """
    try:
        from otel_metadata.cli.app import app  # typer and rich are an extra
    except ModuleNotFoundError as error:
        raise SystemExit(f"otel-metadata: {error.name} is not installed; pip install 'otel-metadata[cli]'.") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # the exit code of an interrupted program; from here on, typer handles Ctrl-C
    app()
