"""A server in a process of its own, on free ports: run by `conftest.py`.

It prints its addresses as JSON, and stops gracefully when its standard input ends. Argument: the file of the store.
"""

from __future__ import annotations

import json
import sys

from otel_metadata.server.run import LocalServer
from otel_metadata.store.sqlite.store import SqliteStore

store = SqliteStore(sys.argv[1])
with LocalServer(store, grpc_port=0).start() as server:
    print(json.dumps({"http": server.url, "grpc": f"http://{server.host}:{server.grpc_port}"}), flush=True)
    sys.stdin.read()
store.close()
