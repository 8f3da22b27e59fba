"""gunicorn with `--preload`: threads that run before the fork, monkey patching after it, and every way to end."""

from __future__ import annotations

import urllib.request
from collections import Counter

import pytest
from tests.workers.programs import Program, stored

WSGI = """
    import os

    import otel_metadata as om

    om.configure(os.environ["STORE"])

    def serve():
        with om.start_span("request", metadata={"process": os.getpid()}) as span:
            pass
        om.update_span(span, metadata={"late": 1})
        return str(os.getpid()).encode()

    def application(environ, start_response):
        body = serve()
        start_response("200 OK", [("Content-Length", str(len(body))), ("Connection", "close")])
        return [body]
"""

# The recipe of docs/reliability.md: uvicorn raises SIGTERM again, and then nothing runs any more.
ASGI = """
    import asyncio

    from wsgi import om, serve

    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await asyncio.to_thread(om.shutdown)
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = serve()
        headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""

UVICORN = "uvicorn_worker.UvicornWorker"


@pytest.mark.parametrize("more", [[], ["--max-requests", "3"]], ids=["", "recycled"])
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent", UVICORN])
def test_spans_of_every_worker_arrive(tmp_path, kind, more):
    """The spans and late updates of every worker arrive, and no traceback is printed."""
    Program.write(tmp_path, "wsgi.py", WSGI)
    Program.write(tmp_path, "asgi.py", ASGI)
    module = "asgi" if kind == UVICORN else "wsgi"
    options = ["--preload", "-k", kind, "-w", "2", "-b", "127.0.0.1:0", "--graceful-timeout", "2", *more]
    processes = Counter()
    with Program(tmp_path, "gunicorn", *options, f"{module}:application") as server:
        address = server.address()
        for _ in range(10):
            with urllib.request.urlopen(address, timeout=60) as answer:
                processes[int(answer.read())] += 1
        assert server.end() == 0, server.log
    assert stored(tmp_path) == {("request", process, 1): count for process, count in processes.items()}
    assert "Traceback" not in server.log
