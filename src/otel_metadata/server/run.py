"""Runs the server: in a thread, or in the foreground until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, final

import uvicorn

from otel_metadata.errors import ConfigurationError
from otel_metadata.server.access import Access
from otel_metadata.server.app import OPERATIONS, App
from otel_metadata.server.browsers import HEADERS, is_loopback
from otel_metadata.server.connections import Connection
from otel_metadata.server.otlp.grpc import GrpcServer
from otel_metadata.server.service import Service

if TYPE_CHECKING:
    from types import FrameType

    from otel_metadata.seams import Clock, SpanStore
    from otel_metadata.server.operations import Operation

_STOP_SECONDS: Final = 10
"""How long running requests may take when the server stops."""

_MAX_CONNECTIONS: Final = 1_000
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@final
class LocalServer:
    """A server on one address.

    ```python
    with LocalServer(store).start() as server:
        print(server.url)
    ```

    Attributes:
        service: What the handlers share.
        host: The address that it listens on.
        port: The port that it listens on.
        grpc_port: The port for OTLP over gRPC, or None.
    """

    def __init__(
        self,
        store: SpanStore,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        grpc_port: int | None = None,
        access: Access | None = None,
        clock: Clock | None = None,
        operations: Sequence[Operation] = OPERATIONS,
        access_log: bool = False,
    ) -> None:
        """Take the address; nothing is answered before `start` or `run`.

        Args:
            store: Closed by whoever opened it, after the server has stopped.
            host: An address of this machine, or a name of one.
            port: 0 for a free one.
            grpc_port: The same for OTLP over gRPC; None for none.
            access: Who may call; None for everybody on this machine.
            clock: Time; None for the system's.
            operations: What it answers.
            access_log: Log each request on one line, at INFO to `otel_metadata.server.access`.

        Raises:
            ConfigurationError: The address cannot be had, or others than this machine could call without a token.
        """
        self._socket = _listen(host, port)
        self.host, self.port = self._socket.getsockname()[:2]
        if access is None:
            access = Access()
        if not access.needs_token and not is_loopback(self.host):
            self._socket.close()
            raise ConfigurationError(
                "host", host, "127.0.0.1, or tokens: others than this machine may call this address"
            )
        access.cookie = f"otel_metadata_{self.port}"
        self.service = Service(store, access, clock, access_log=access_log)
        self._is_answering = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._loop = _new_event_loop()
        app = App(self.service, operations)
        try:
            over_grpc = None if grpc_port is None else GrpcServer(self.service, host, grpc_port, self._loop)
        except ConfigurationError:
            self._loop.close()
            self._socket.close()
            raise
        self.grpc_port = self.service.grpc_port = None if over_grpc is None else over_grpc.port
        self._uvicorn = _Uvicorn(_config(app), self.service, over_grpc, self._is_answering)

    @property
    def url(self) -> str:
        """The address of the server, as clients name it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def start(self) -> LocalServer:
        """Answer requests in a thread, and return when the first one can come.

        Raises:
            RuntimeError: The server has failed to start.
        """
        self._thread = threading.Thread(target=self._run_in_thread, name="otel-metadata-server", daemon=True)
        self._thread.start()
        self._is_answering.wait()
        if self._failure is not None:
            raise RuntimeError("the server has failed to start") from self._failure
        return self

    def run(self, tell: Callable[[], object] = lambda: None) -> None:
        """Answer requests until SIGINT or SIGTERM; then finish those that run. Call it on the main thread.

        Args:
            tell: Called when the first request can come.
        """
        self._uvicorn.tell = tell
        self._run()

    def stop(self) -> None:
        """Finish the requests that run, and return when everything that was acknowledged is stored."""
        self._uvicorn.should_exit = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> LocalServer:
        """Return the server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def _run_in_thread(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 # `start` raises it
            self._failure = error
        finally:
            self._is_answering.set()

    def _run(self) -> None:
        loop = self._loop
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self._uvicorn.serve([self._socket]))
            _end_tasks(loop)
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            self._socket.close()
            self.service.close()


@final
class _Uvicorn(uvicorn.Server):
    """Uvicorn's server, which tells when it answers, and ends endless streams before it waits for running requests."""

    def __init__(
        self, config: uvicorn.Config, service: Service, over_grpc: GrpcServer | None, is_answering: threading.Event
    ) -> None:
        super().__init__(config)
        self._service = service
        self._grpc = over_grpc
        self._is_answering = is_answering
        self.tell: Callable[[], object] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._grpc is not None:
            await self._grpc.start()
        self._is_answering.set()
        self.tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.changes.close()
        grpc_stopped = asyncio.ensure_future(self._grpc.stop(_STOP_SECONDS)) if self._grpc is not None else None
        await super().shutdown(sockets)
        if grpc_stopped is not None:
            await grpc_stopped
        await self._service.finish()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Uvicorn's own sends the signal again at the end, which would kill the process before the store is closed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self._on_signal) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.force_exit = self.should_exit  # the second signal does not wait for running requests
        self.should_exit = True


def _config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who calls is never read from a header that the caller writes
        headers=list(HEADERS),  # also on what uvicorn answers by itself
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what still runs, as `asyncio.run` does."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # not on Windows
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigurationError: The address cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # `localhost` often means ::1 first, and most clients go to 127.0.0.1.
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigurationError("host", host, f"an address of this machine, such as 127.0.0.1: {error}") from None
    try:
        if os.name == "posix":  # on Windows it would let two servers share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            "port", port, f"a free port of {host}, with --port ({error.strerror or error})"
        ) from None
    listening.setblocking(False)
    return listening
