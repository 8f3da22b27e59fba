"""A program for Phoenix's own environment: annotate with Phoenix's client, or read late metadata as the docs say.

Arguments: the server's address, `write` or `read`, and a JSON text with what to pass on.
"""

import json
import sys

from phoenix.client import Client

url, what, text = sys.argv[1:]
given = json.loads(text)
client = Client(base_url=url, headers={"authorization": f"Bearer {given.pop('key')}"})
if what == "write":
    client.spans.log_span_annotations(span_annotations=given["span"], sync=True)
    client.traces.log_trace_annotations(trace_annotations=given["trace"], sync=True)
    client.spans.add_span_note(**given["note"])
else:
    rows = client.spans.get_span_annotations(**given)
    late = {key: value for row in rows if row["name"] == "otel_metadata" for key, value in row["metadata"].items()}
    print(json.dumps(late))
