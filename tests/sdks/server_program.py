"""A server in a process of its own, on a free port: run by `conftest.py`.

It prints its addresses as JSON, and stops gracefully when its standard input ends. Argument: the file of the store.
"""

from __future__ import annotations

import json
import sys

from otel_metadata.server.run import LocalServer
from otel_metadata.store.sqlite.store import SqliteStore

store = SqliteStore(sys.argv[1])
with LocalServer(store).start() as server:
    print(json.dumps({"http": server.url, "grpc": server.url}), flush=True)
    sys.stdin.read()
store.close()
