"""The judge itself: SQL's three values, types, the latest annotation, worked out by hand."""

from __future__ import annotations

import pytest
from tests.store.evaluator import FieldOrigin, holds

from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Fields
from otel_metadata.model.record import StoredSpan, assemble
from otel_metadata.store.filter.language import parse

FIELDS: Fields = {
    ("span", "metadata", "n"): (5, (1, 1)),
    ("span", "metadata", "big"): ((1 << 53) + 1, (1, 1)),
    ("span", "metadata", "text"): ("a%\nb", (1, 1)),
    ("span", "metadata", "yes"): (True, (1, 1)),
    ("span", "metadata", "nil"): (None, (1, 1)),
    ("span", "metadata", "list"): ([5], (1, 1)),
    ("trace", "metadata", "n"): (6, (1, 1)),
    ("trace", "name", ""): ("chat", (1, 1)),
    ("trace", "output", ""): ("bye", (1, 1)),
    ("span", "input", ""): (7, (1, 1)),
    ("span", "status", ""): (404, (1, 1)),
    ("span", "user_id", ""): ("earlier", (1, 1)),
    ("trace", "user_id", ""): ("later", (2, 1)),
    ("span", "tag", "vip"): (True, (1, 1)),
    ("trace", "tag", "old"): (True, (1, 1)),
    ("span", "attribute", "over"): ("field", (1, 1)),
    ("span", "evaluation", "C"): (Evaluation("C", score=0.5, label="good").to_json(), (1, 1)),
    ("trace", "evaluation", "C"): (Evaluation("C", label="fair").to_json(), (1, 1)),
    ("span", "annotation", annotation_key("q", "b")): (Annotation("q", label="first", annotator="b").to_json(), (1, 1)),
    ("span", "annotation", annotation_key("q", "a")): (Annotation("q", label="last", annotator="a").to_json(), (2, 1)),
    ("trace", "annotation", "q"): (Annotation("q", text="note").to_json(), (1, 1)),
}

ROUTES = {"n": "late", "text": "import", "C": "late", "vip": "live", "q": "late"}
ORIGINS = {
    name: FieldOrigin(version, ROUTES.get(name[2]), "ada" if name[1] == "metadata" else None)
    for name, (_, version) in FIELDS.items()
}

RECORD = assemble(
    StoredSpan(
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="00f067aa0ba902b7",
        parent_id=None,
        trace_state="",
        name="work",
        kind="CLIENT",
        start_ns=1_769_853_600_000_000_001,
        end_ns=1_769_853_600_001_500_001,
        status_code="OK",
        status_message=None,
        attributes={"over": "plain", "plain": 1},
        events=(),
        links=(),
        resource={"service.name": "shop"},
        scope_name="lib",
        scope_version="1.0",
    ),
    FIELDS,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metadata.n = 5.0", True),
        ("metadata.n != 5", False),
        ("metadata.n = '5'", None),
        ("metadata.n = TRUE", None),
        ("metadata.yes = 1", None),
        ("metadata.yes = TRUE", True),
        ("metadata.yes IN (FALSE)", False),
        ("metadata.big > 9007199254740992.0", True),
        ("metadata.gone != 5", None),
        ("metadata.nil != 5", None),
        ("metadata.list = 5", None),
        ("metadata.gone IS NULL", True),
        ("metadata.nil IS NULL", True),
        ("metadata.list IS NULL", False),
        ("NOT metadata.gone = 5", None),
        ("metadata.gone = 5 AND metadata.n = 6", False),
        ("metadata.gone = 5 AND metadata.n = 5", None),
        ("metadata.gone = 5 OR metadata.n = 5", True),
        ("metadata.gone = 5 OR metadata.n = 6", None),
        ("metadata.n IN (4, 5)", True),
        ("metadata.n NOT IN (4, 6)", True),
        ("metadata.gone NOT IN (4)", None),
        ("metadata.n BETWEEN 5 AND 6", True),
        ("metadata.n BETWEEN 6 AND 5", False),
        ("metadata.n NOT BETWEEN 6 AND 7", True),
        ("metadata.n BETWEEN 'a' AND 'b'", None),
        ("metadata.text LIKE 'a__b'", True),
        ("metadata.text LIKE 'A%'", False),
        ("metadata.text LIKE 'a.%'", False),
        ("metadata.text LIKE 'a%b'", True),
        ("metadata.n LIKE '5'", None),
        ("metadata.text < 'b' AND metadata.text > 'Z'", True),
        ("'\N{GRINNING FACE}' > metadata.text", True),
        ("trace.metadata.n = 6", True),
        ("trace.name = 'chat' AND trace.output = 'bye' AND trace.input IS NULL", True),
        ("input = 7", True),
        ("name = 'work' AND kind = 'CLIENT' AND parent_id IS NULL AND status_message IS NULL", True),
        ("trace_id LIKE '0af7%' AND span_id = '00f067aa0ba902b7'", True),
        ("status_code = 404", True),
        ("status_code = 'OK'", None),
        ("user_id = 'later' AND session_id IS NULL", True),
        ("latency_ms = 1.5", True),
        ("start_time > '2026-01-31T10:00:00Z'", True),
        ("start_time = '2026-01-31T10:00:00.000000001Z'", True),
        ("end_time = '2026-01-31T10:00:00.001500001Z'", True),
        ("project = 'shop' AND resource.service.name = 'shop'", True),
        ("scope_name = 'lib' AND scope_version = '1.0'", True),
        ("attributes.over = 'field' AND attributes.plain = 1", True),
        ("'vip' IN tags", True),
        ("'vip' IN trace.tags", False),
        ("'old' NOT IN trace.tags", False),
        ("eval.C.score >= 0.5 AND eval.C.label = 'good' AND eval.C.explanation IS NULL", True),
        ("trace.eval.C.label = 'fair'", True),
        ("eval.D.label = 'good'", None),
        ("annotation.q.label = 'last'", True),
        ("changed_at.metadata.n = '1970-01-01T00:00:00.000000001Z'", True),
        ("changed_at.metadata.nil < '1970-01-02'", True),
        ("changed_at.metadata.gone < '2026-01-01'", None),
        ("changed_at.metadata.gone IS NULL AND changed_at.metadata.nil IS NOT NULL", True),
        ("changed_at.user_id = '1970-01-01T00:00:00.000000002Z'", True),
        ("changed_at.annotation.q > '1970-01-01T00:00:00.000000001Z'", True),
        ("changed_at.trace.annotation.q > '1970-01-01T00:00:00.000000001Z'", False),
        ("changed_at.eval.C IS NOT NULL AND changed_at.trace.tags.vip IS NULL", True),
        ("changed_at.tags.vip IS NOT NULL AND changed_at.name IS NULL AND changed_at.status_code IS NOT NULL", True),
        ("changed_at.attributes.over IS NOT NULL AND changed_at.attributes.plain IS NULL", True),
        ("route.metadata.n = 'LATE'", True),
        ("route.metadata.text != 'late'", True),
        ("route.metadata.yes != 'late'", None),
        ("route.metadata.gone = 'late'", None),
        ("route.eval.C IN ('late', 'log') AND route.trace.eval.C.label = 'late' AND route.tags.vip = 'live'", True),
        ("author.metadata.nil = 'ada' AND author.trace.metadata.n LIKE 'a%'", True),
        ("author.input = 'ada'", None),
        ("late_count = 2 AND trace.late_count > 2", True),
        ("late_count > 2", False),
        ("annotation.gone.text IS NULL AND trace.annotation.q.text = 'note'", True),
    ],
)
def test_the_judge_says_what_sql_would(text: str, expected: bool | None) -> None:
    """True, False or None for one record with values of every kind."""
    assert holds(parse(text), RECORD, ORIGINS) is expected
