"""The spelling for a server of ours: what a span takes along is what a store in the process would have been given."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from tests.store.contract import END_NS, START_NS, assert_same, ended_span
from tests.strategies import field_sets

from otel_metadata.backends.serve.dialect import ServeDialect
from otel_metadata.delivery.in_flight import MergedSpan, merged
from otel_metadata.dialects.canonical import FIELDS, fields_text
from otel_metadata.dialects.otel import OtelDialect
from otel_metadata.model.authors import AUTHORS
from otel_metadata.model.record import assemble
from otel_metadata.store.rows import row_of

LIVE = {"metadata.step": 0, "tag.tags": ["own"], "user.id": "u", "eval.C.explanation": "old", "plain": 1}


def as_sent(span: ReadableSpan) -> ReadableSpan:
    """Return a span without what OTLP does not carry: the fields beside it."""
    return ReadableSpan(
        name=span.name,
        context=span.context,
        attributes=span.attributes,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        resource=span.resource,
    )


@given(field_sets(max_size=6), st.sets(st.sampled_from(sorted(LIVE))))
def test_the_server_reads_what_a_store_is_given(fields, live):
    """Every field with its value and version, whatever is on the live span already."""
    ended = ended_span(attributes={name: LIVE[name] for name in live})
    sent, remainder = merged(ended, fields, ServeDialect(), is_local_root=True)
    beside, _ = merged(ended, fields, OtelDialect(max_attributes=None, span_limit=None), is_local_root=True)

    over_otlp, given_here = row_of(as_sent(sent)), row_of(beside)

    assert remainder == {}
    assert {name: over_otlp[1][name] for name in fields} == dict(fields)
    assert over_otlp[1] == given_here[1]
    assert FIELDS not in over_otlp[0].attributes
    assert_same(assemble(*over_otlp), assemble(*given_here))


def test_the_authors_come_along():
    """Of values that were set while the span ran, too."""
    AUTHORS.add(4711, "page:ada")
    fields = {("span", "metadata", "k"): (1, (START_NS, 4711))}
    sent, _ = merged(ended_span(), fields, ServeDialect(), is_local_root=True)
    assert isinstance(sent, MergedSpan)
    assert orjson.loads(sent.attributes[FIELDS])["authors"] == {f"{4711:016x}": "page:ada"}
    AUTHORS._names.pop(4711)
    row_of(as_sent(sent))
    assert AUTHORS.name_of(4711) == "page:ada"


GOOD = ["span", "metadata", "k", END_NS, f"{7:016x}", "v"]
BAD = (
    None,
    [],
    GOOD[:5],
    [*GOOD, 1],
    ["page", *GOOD[1:]],
    ["span", "color", *GOOD[2:]],
    ["span", ["x"], *GOOD[2:]],
    ["span", "name", "with a key", *GOOD[3:]],
    [*GOOD[:3], "1", *GOOD[4:]],
    [*GOOD[:3], 1 << 63, *GOOD[4:]],
    [*GOOD[:4], "g", "v"],
    [*GOOD[:4], "1" * 17, "v"],
    [*GOOD[:4], 7, "v"],
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1",
        "[]",
        "{}",
        '{"fields": 5, "authors": 5}',
        *(orjson.dumps({"fields": [one, GOOD], "authors": [1]}).decode() for one in BAD),
    ],
)
def test_what_is_not_of_this_form_is_left_out(text):
    """Anybody can send a span: its other fields and attributes stay."""
    row, fields = row_of(ended_span(attributes={FIELDS: text, "metadata.x": 1, "plain": 1}))
    assert row.attributes == {"plain": 1}
    expected = {("span", "metadata", "x"): (1, (END_NS, 0))}
    if text.endswith('"authors":[1]}'):
        expected["span", "metadata", "k"] = ("v", (END_NS, 7))
    assert fields == expected


def test_the_text_is_the_same_for_the_same_fields():
    """Whatever their order: a span that is sent again is the same."""
    fields = {("span", "metadata", key): (key, (1, 7)) for key in "ba"}
    assert fields_text(fields) == fields_text(dict(reversed(fields.items())))
