"""What the golden table cannot say of the `mlflow` dialect: spans that have attributes of their own."""

from __future__ import annotations

import json

from tests.dialects.facts import AT
from tests.dialects.test_golden import Span

from otel_metadata.backends.mlflow.dialect import MlflowDialect

LATER = (AT[0] + 1, AT[1])


def test_metadata_that_the_application_has_set_by_itself_stays():
    """Ours is merged over it at the first level."""
    span = Span({"metadata": '{"own": 1, "k": "old"}', "metadata.k": "new"})
    encoded = MlflowDialect().encode(span, {("span", "metadata", "k"): ("new", AT)}, is_local_root=True)
    assert {name: json.loads(str(text)) for name, text in encoded.attributes.items()} == {
        "metadata": {"own": 1, "k": "new"}
    }


def test_a_session_that_does_not_fit_gives_way_to_one_that_does():
    """The one of the span stays on it, though the one of the trace, which has the same attribute, leaves as a patch."""
    fields = {("trace", "session_id", ""): ("s" * 251, LATER), ("span", "session_id", ""): ("s1", AT)}
    encoded = MlflowDialect().encode(Span({"session.id": "s" * 251}), fields, is_local_root=True)
    assert encoded.attributes == {"session.id": "s1"}
    assert encoded.remainder.keys() == {("trace", "session_id", "")}
