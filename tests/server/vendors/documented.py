"""The requests of vendors' documentation, byte by byte: sent with curl where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from tests.server.conftest import PATIENCE, Server


def send(server: Server, method: str, path: str, key: str, document: object) -> tuple[int, Any]:
    """Send a request as the documentation has it, with another host alone; return the status and the reply.

    Args:
        key: The header with the key, as `Name: value`.
    """
    data = json.dumps(document)
    if shutil.which("curl") is None:
        name, _, value = key.partition(": ")
        headers = {"Content-Type": "application/json", name: value}
        answer = server.call(method, path, body=data.encode(), headers=headers)
        return answer.status, answer.json()
    line = [
        *("curl", "--silent", "--show-error", "--max-time", f"{PATIENCE}", "--write-out", "\n%{http_code}"),
        *("--request", method, server.url + path),
        *("--header", "Content-Type: application/json", "--header", key, "--data", data),
    ]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    body, _, status = said.rpartition("\n")
    return int(status), json.loads(body)
