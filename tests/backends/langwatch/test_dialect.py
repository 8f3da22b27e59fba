"""What is particular to the `langwatch` dialect; what it has in common with others is in the golden table."""

from __future__ import annotations

import json

from tests.dialects.test_golden import Span

from otel_metadata.backends.langwatch.dialect import LangWatchDialect
from otel_metadata.model.merge import Fields

FIELDS: Fields = {
    ("span", "metadata", "k"): ("mine", (2, 1)),
    ("span", "metadata", "own"): (1, (2, 1)),
    ("trace", "metadata", "k"): ("theirs", (1, 1)),
}


def test_a_key_of_the_root_that_the_trace_has_too_stays_with_the_span():
    """One metadata object has one value of a key: the trace's, whichever was set last."""
    span = Span({"langwatch.params": '{"temperature": 0}', "metadata.k": "mine", "trace.metadata.k": "theirs"})
    encoded = LangWatchDialect().encode(span, FIELDS, is_local_root=True)
    assert {name: json.loads(str(text)) for name, text in encoded.attributes.items()} == {
        "metadata": {"k": "theirs", "own": 1},
        "langwatch.params": {"temperature": 0, "k": "mine"},
    }
    assert not encoded.remainder
