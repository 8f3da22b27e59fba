"""Our own library at work, configured by its environment: run by `test_sdks.py`."""

from __future__ import annotations

import json

import otel_metadata as om

om.configure()
with om.start_span("ask") as span:
    span.update(metadata={"live": 1})
in_flight = om.update_span(span.ref, metadata={"in_flight": 2})
is_sent = om.flush(30_000)
late = om.update_span(span.ref, metadata={"late": 3})
is_sent = om.flush(30_000) and is_sent
print(json.dumps({"routes": [in_flight.route, late.route], "delivered": is_sent}))
