"""The model of the demo: a loopback server that answers like OpenAI's chat API, without a network.

The demo asks one question after another, so one thread serves them all. Each connection ends with its answer, as in
HTTP/1.0, so nothing is left open when the server stops.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, final

_WORDS: Final = ("The", " answer", " is", " forty-two.")
_USAGE: Final = {"prompt_tokens": 11, "completion_tokens": len(_WORDS), "total_tokens": 11 + len(_WORDS)}


@contextmanager
def demo_model() -> Iterator[str]:
    """Serve chat completions on a free loopback port.

    Yields:
        The base URL for the `openai` client.
    """
    # Not http.server.HTTPServer: it looks up the name of its host, which takes long on some machines without a network.
    with socketserver.TCPServer(("127.0.0.1", 0), _Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,), name="demo-model", daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            serving.join()


@final
class _Handler(BaseHTTPRequestHandler):
    """Answers one request for a chat completion, as a whole or as server-sent events."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        completion = {"id": "chatcmpl-demo", "created": 1_700_000_000, "model": f"{asked['model']}-stub"}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if asked.get("stream") else "application/json")
        self.end_headers()
        if asked.get("stream"):
            completion["object"] = "chat.completion.chunk"
            deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in _WORDS), {}]
            chunks = [{**completion, "choices": [_choice(delta=delta, is_last=not delta)]} for delta in deltas]
            self.wfile.write("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode())
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            message = {"role": "assistant", "content": "".join(_WORDS)}
            completion["object"] = "chat.completion"
            whole = {**completion, "choices": [_choice(message=message, is_last=True)], "usage": _USAGE}
            self.wfile.write(json.dumps(whole).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the terminal belongs to the demo."""


def _choice(*, is_last: bool, **members: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": "stop" if is_last else None, **members}
