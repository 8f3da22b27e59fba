"""Processes that are killed: forked from a server that has imported everything, so that a start takes no second."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "opentelemetry.exporter.otlp.proto.common.trace_encoder",
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2",
        "otel_metadata.spool.spool",
        "stress.application",
    ]
)


def say(line: str) -> None:
    """Write one line at once: it is in the pipe when this returns, whatever happens to the process."""
    os.write(1, f"{line}\n".encode())


class Child:
    """One process of the application; what it says is in `lines`.

    It is its own process from the start: the server that it is forked from has configured nothing and has no threads.
    """

    def __init__(self, target: Callable[..., None], *args: object, traced: list[str] | None = None) -> None:
        """Start it.

        Args:
            target: A function of a module.
            args: Its arguments.
            traced: Options of strace, which is attached before the target is called.
        """
        reader, writer = _CONTEXT.Pipe(duplex=False)
        waits, go = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_run, args=(writer, waits, target, args))
        self._process.start()
        writer.close()
        waits.close()
        self.lines = os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="replace")
        reader.close()
        self.pid = self._process.pid or 0
        self._strace: subprocess.Popen[bytes] | None = None
        if traced is not None:
            self._strace = subprocess.Popen(
                ["strace", "-f", "-qq", *traced, "-p", str(self.pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._wait_for_tracer()
        go.send_bytes(b"go")
        go.close()

    def _wait_for_tracer(self) -> None:
        until = time.monotonic() + 20
        status = Path(f"/proc/{self.pid}/status")
        while "TracerPid:\t0\n" in status.read_text():
            if time.monotonic() > until or (self._strace is not None and self._strace.poll() is not None):
                self.end()
                raise OSError("strace could not attach")
            time.sleep(0.002)

    def __enter__(self) -> Child:
        """Return it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it."""
        self.end()

    def __iter__(self) -> Iterator[str]:
        """Yield its lines until it has ended."""
        return iter(self.lines)

    def within(self, seconds: float) -> str:
        """Return all that it says until it ends; it is killed after *seconds*."""
        until = time.monotonic() + seconds
        said = bytearray()
        descriptor = self.lines.fileno()
        while select.select([descriptor], [], [], max(until - time.monotonic(), 0))[0]:
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                break
            said += piece
        else:
            self.kill()
        return said.decode("utf-8", "replace")

    def kill(self) -> None:
        """Send SIGKILL."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def end(self) -> int:
        """Kill it if it runs, and return how it ended, as subprocess does."""
        if self._process.exitcode is None:
            self._process.join(0)
        if self._process.exitcode is None:
            self.kill()
        self._process.join(30)
        self.lines.close()
        if self._strace is not None:
            try:
                self._strace.wait(10)
            except subprocess.TimeoutExpired:
                self._strace.kill()
                self._strace.wait()
        code = self._process.exitcode
        return -signal.SIGKILL if code is None else code

    def wait(self, seconds: float) -> int:
        """Wait for its end, at most *seconds*; return how it ended."""
        self._process.join(seconds)
        return self.end()


def _run(writer: object, waits: object, target: Callable[..., None], args: tuple[object, ...]) -> None:
    waits.recv_bytes()  # type: ignore[attr-defined]
    os.dup2(writer.fileno(), 1)  # type: ignore[attr-defined]
    writer.close()  # type: ignore[attr-defined]
    target(*args)
