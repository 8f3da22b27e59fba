"""Logfire's SDK at work, configured by its environment: run by `test_sdks.py`."""

from __future__ import annotations

import json

import logfire

# Its own list of words to scrub has "session".
logfire.configure(service_name="shop", console=False, send_to_logfire=True, scrubbing=False)
with logfire.span("ask", _tags=["t1"], **{"user.id": "u1", "session.id": "s1", "metadata.k": "v"}):
    logfire.info("note {x}", x=1)
logfire.shutdown()
print(json.dumps({}))
