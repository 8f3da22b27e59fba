"""A patch as the attributes of a span, and back."""

from __future__ import annotations

from hypothesis import example, given
from tests.strategies import field_sets

from otel_metadata.dialects.patch_span import TARGET, attributes_of, fields_of
from otel_metadata.model.merge import Fields, json_text
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef


@example(
    {
        ("trace", "annotation", "0"): ({"name": "0", "text": ""}, (0, 0)),
        ("trace", "annotation", '["0",""]'): ({"name": "0", "annotator": ""}, (0, 0)),
    }
)
@example(
    {
        ("span", "annotation", "a"): ({"name": "a"}, (0, 0)),
        ("span", "annotation", "b"): ({"name": "b"}, (0, 0)),
    }
)
@given(field_sets())
def test_a_patch_comes_back_with_its_versions(fields: Fields):
    """Every field, or another of the same attribute that wins over it; none with a value that it never had."""
    attributes = attributes_of(Patch(SpanRef(1, 2), fields))

    found = fields_of(attributes)

    assert attributes[TARGET] == "0000000000000002"
    for name, (value, version) in fields.items():
        level, kind, _ = name
        other = fields.get(("trace" if level == "span" else "span", kind, ""))
        if kind in {"user_id", "session_id"} and other is not None and name not in found:
            # One attribute for both levels: it has the later value of the two.
            assert (version, level) < (other[1], "trace" if level == "span" else "span")
            continue
        assert (json_text([found[name][0]]), found[name][1]) == (json_text([value]), version), name
    assert found.keys() <= fields.keys()
