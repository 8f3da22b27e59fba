"""What is particular to Galileo: what it ignores, refuses or cannot hold is told, for each key."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.backends.vendors.galileo import LOG_STREAM, PROJECT, Galileo, Stored, identifier, know, patch
from tests.backends.vendors.server import KEY, Request, Response

import otel_metadata as om
from otel_metadata.backends.galileo import destination
from otel_metadata.backends.galileo.patches import GalileoPatchExporter
from otel_metadata.errors import ConfigurationError
from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import FieldName, Json
from otel_metadata.model.outcome import Delivered, Outcome, Pause, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef

SPAN, TRACE = identifier(1), identifier(2)
OTEL = SpanRef(0xABC, 1)
TARGET = OTEL.with_backend_id("galileo", SPAN).with_backend_id("galileo.trace", TRACE)
VALUES = {"s": "x", "n": 0, "f": 0.5, "b": False, "none": None, "o": {"a": [1]}, "l": ["a", "b"]}
NO_FIELD = "not sent: there is no field for it once a record is stored"


@pytest.fixture
def double() -> Iterator[Galileo]:
    with Galileo() as double:
        double.stored = {("span", SPAN): Stored(), ("trace", TRACE): Stored()}
        yield double


def send(double: Galileo, target: SpanRef, *fields: tuple[FieldName, Json], **options) -> Outcome:
    given = {"project_id": PROJECT, **options}
    exporter = GalileoPatchExporter(double.url, api_key=KEY, **given)
    set_on = {name: (value, (place + 1, 1)) for place, (name, value) in enumerate(fields)}
    (outcome,) = exporter.export([Patch(target, set_on)], timeout_millis=5_000)
    exporter.shutdown()
    return outcome


def bodies(double: Galileo) -> list[object]:
    return [request.json for request in double.requests]


OUTPUT: tuple[FieldName, Json] = (("span", "output", ""), "bye")
TAG: tuple[FieldName, Json] = (("span", "tag", "late"), True)


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_a_span_is_changed_by_one_request(double):
    """Input, output, tags and status are the whole body, beside the routing; it waits until Galileo has stored it."""
    outcome = send(
        double,
        TARGET,
        (("span", "input", ""), "hello"),
        OUTPUT,
        TAG,
        (("span", "tag", "vip"), True),
        (("span", "status", ""), 404),
        log_stream_id=LOG_STREAM,
    )
    assert outcome == Delivered()
    (request,) = double.requests
    assert (request.method, request.path) == ("PATCH", f"/v2/projects/{PROJECT}/spans/{SPAN}")
    assert request.headers["galileo-api-key"] == KEY
    assert request.json == {
        "span_id": SPAN,
        "log_stream_id": LOG_STREAM,
        "logging_method": "api_direct",
        "reliable": True,
        "input": "hello",
        "output": "bye",
        "tags": ["late", "vip"],
        "status_code": 404,
    }


def test_a_trace_is_changed_by_a_request_of_its_own(double):
    """Fields of both levels are two requests, each to its own record."""
    outcome = send(double, TARGET, OUTPUT, (("trace", "output", ""), "done"), (("trace", "tag", "vip"), True))
    assert outcome == Delivered()
    assert [request.path.rpartition("/v2")[2] for request in double.requests] == [
        f"/projects/{PROJECT}/spans/{SPAN}",
        f"/projects/{PROJECT}/traces/{TRACE}",
    ]
    assert bodies(double)[1] == {
        "trace_id": TRACE,
        "logging_method": "api_direct",
        "reliable": True,
        "output": "done",
        "tags": ["vip"],
    }


def test_a_trace_alone_has_its_own_id(double):
    """On the name of a trace alone, Galileo's id is that of the trace."""
    target = SpanRef(0xABC, 0).with_backend_id("galileo", TRACE)
    assert send(double, target, (("trace", "tag", "vip"), True)) == Delivered()
    assert double.stored["trace", TRACE].tags == ["vip"]


def test_the_header_of_the_key_can_have_another_name(double):
    """The API has been renamed, and its header with it."""
    send(double, TARGET, OUTPUT, api_key_header="Splunk-AO-API-Key")
    assert double.requests[0].headers["splunk-ao-api-key"] == KEY
    assert "galileo-api-key" not in double.requests[0].headers


def test_values_that_are_no_text_are_told(double):
    """JSON is sent as text; a word for the status as a code; a null, which would change nothing, not at all."""
    outcome = send(
        double,
        TARGET,
        (("span", "input", ""), None),
        (("span", "output", ""), {"a": 1}),
        (("span", "status", ""), "error"),
        (("span", "status_message", ""), "too slow"),
    )
    assert outcome == Delivered(
        (
            "input: not sent: this API takes a null for no change",
            "output: sent as JSON text",
            "status: sent as the status code 500",
            f"status message: {NO_FIELD}",
        )
    )
    assert double.stored["span", SPAN].changed == {"output": '{"a":1}', "status_code": 500}


def test_sending_again_changes_nothing(double):
    """The same patch twice leaves the record as once."""
    for _ in range(2):
        assert send(double, TARGET, OUTPUT, TAG) == Delivered()
    assert double.stored["span", SPAN] == Stored(tags=["late"], changed={"output": "bye"})


# --- what Galileo has no field for -----------------------------------------------------------------------------------


def test_metadata_is_never_sent_to_be_ignored(double):
    """Galileo answers 200 and drops metadata: we send none, and a note names each key, never its value."""
    outcome = send(double, TARGET, OUTPUT, *((("span", "metadata", key), value) for key, value in VALUES.items()))
    assert outcome == Delivered(tuple(f"metadata {key!r}: {NO_FIELD}" for key in VALUES))
    assert double.ignored == []


@pytest.mark.parametrize(
    "field",
    [
        (("span", "metadata", "k"), "x"),
        (("trace", "metadata", "k"), "x"),
        (("span", "attribute", "k"), 1),
        (("span", "name", ""), "n"),
        (("trace", "name", ""), "n"),
        (("trace", "user_id", ""), "u"),
        (("trace", "session_id", ""), "s"),
        (("span", "evaluation", "Correctness"), Evaluation("Correctness", 0.5).to_json()),
        (("span", "annotation", annotation_key("q", "ann")), Annotation("q", "good").to_json()),
    ],
    ids=lambda field: f"{field[0][0]} {field[0][1]}",
)
def test_a_patch_of_which_nothing_can_be_said_is_unsupported(double, field):
    """Nothing is asked, and the outbox is told at once."""
    outcome = send(double, TARGET, field)
    assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")
    assert double.requests == []


def test_metadata_can_be_tags_if_the_user_wants_it(double):
    """`metadata_as_tags` adds what fits into a tag, and says of each key what became of it."""
    fields = [(("span", "metadata", key), value) for key, value in {**VALUES, "long": "x" * 50}.items()]
    outcome = send(double, TARGET, *fields, (("trace", "metadata", "k"), "v"), metadata_as_tags=True)
    tags = ["s:x", "n:0", "f:0.5", "b:false", "none:null", 'o:{"a":[1]}', 'l:["a","b"]']
    assert double.stored["span", SPAN].tags == tags
    assert double.stored["trace", TRACE].tags == ["k:v"]
    assert outcome == Delivered(
        (
            *(f"metadata {key!r}: added as a tag, beside that of an earlier value" for key in VALUES),
            "metadata 'long': not sent: a tag has at most 50 characters",
            "trace metadata 'k': added as a tag, beside that of an earlier value",
        )
    )


def test_limits_of_tags_are_looked_at_before(double):
    """A tag of more than 50 characters, and those beyond 50, are not sent, and named in short."""
    long = "x" * 51
    tags = [(("span", "tag", tag), True) for tag in (long, "y" * 50, *(f"t{number:02}" for number in range(50)))]
    outcome = send(double, TARGET, *tags)
    assert outcome == Delivered(
        (
            f"tag {long[:50]!r}: not sent: a tag has at most 50 characters",
            "tag 't49': not sent: a record has at most 50 tags",
        )
    )
    assert double.stored["span", SPAN].tags == ["y" * 50, *(f"t{number:02}" for number in range(49))]


# --- whose record it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        "b7ad6b7169203331",
        "0af7651916cd43dd8448eb211c80319c",
        str(uuid.UUID(int=uuid.UUID(SPAN).int, version=1)),
        str(uuid.UUID(int=0xB7AD6B7169203331)),
        "",
        " ",
        "../../projects",
        f"{SPAN}/../../x",
        f"{SPAN}\n",
        f"{SPAN}?x=1",
    ],
)
@pytest.mark.parametrize("way", ["on the target", "resolved"])
def test_what_is_no_uuid_of_version_4_reaches_no_url(double, wrong, way):
    """A span id, a trace id that happens to have the bits, another version, a path: rejected without a request."""
    if way == "resolved":
        outcome = send(double, OTEL, OUTPUT, resolve=lambda _: (wrong, "span"))
    else:
        outcome = send(double, OTEL.with_backend_id("galileo", wrong), OUTPUT)
    assert (type(outcome), outcome.error.type) == (Rejected, "patch_failure")
    assert double.requests == []


def test_without_an_id_the_user_learns_what_to_do(double):
    """Galileo's id does not follow from OpenTelemetry's: nothing is tried, and nothing waits."""
    outcome = send(double, OTEL, OUTPUT)
    assert (type(outcome), outcome.error.type) == (Rejected, "unsupported")
    assert "with_backend_id" in outcome.error.message
    assert double.requests == []


def test_the_id_of_a_span_is_not_that_of_its_trace(double):
    """Fields of the trace are not sent where only the span's id is known: a note says so."""
    outcome = send(double, OTEL.with_backend_id("galileo", SPAN), OUTPUT, (("trace", "tag", "vip"), True))
    assert outcome == Delivered(("trace tag 'vip': not sent: no UUID is known for it",))
    assert [request.path.rpartition("/")[2] for request in double.requests] == [SPAN]


def test_a_resolver_finds_the_records(double):
    """It is asked for the span, and for the trace alone; it may say that a span of ours is a trace there."""
    asked = []

    def resolve(ref):
        asked.append(ref)
        return uuid.UUID(TRACE), "trace"

    assert send(double, OTEL, OUTPUT, (("trace", "tag", "vip"), True), resolve=resolve) == Delivered()
    assert asked == [OTEL, SpanRef(OTEL.trace_id, 0)]
    assert double.stored["trace", TRACE] == Stored(tags=["vip"], changed={"output": "bye"})


def test_an_id_on_the_target_stands_over_the_resolver(double):
    """Who names the record need not be asked."""
    assert send(double, TARGET, OUTPUT, resolve=lambda _: pytest.fail("asked")) == Delivered()


@pytest.mark.parametrize("answer", [None, KeyError("b7ad6b7169203331"), (SPAN, "session"), (SPAN,)])
def test_a_resolver_that_does_not_know_is_asked_again(double, answer):
    """None, or an exception, may be another thing later: the outbox tries for as long as a span may still appear."""

    def resolve(_):
        if isinstance(answer, Exception):
            raise answer
        return answer

    outcome = send(double, OTEL, OUTPUT, resolve=resolve)
    expected = "patch_failure" if answer == (SPAN, "session") else "segment_not_found"
    assert (type(outcome), outcome.error.type) == (Rejected, expected)
    assert "b7ad" not in outcome.error.message
    assert double.requests == []


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_200_that_changed_nothing_is_not_believed(double):
    """A count of 0 says that no record was changed."""
    double.fault = lambda _: Response(body={"project_id": PROJECT, "span_id": SPAN, "records_count": 0})
    assert send(double, TARGET, OUTPUT).error.type == "segment_not_found"


@pytest.mark.parametrize(
    "body", [{}, {"span_id": SPAN}, {"records_count": 1}, {"span_id": TRACE, "records_count": 1}, {"message": "ok"}]
)
def test_a_200_about_something_else_is_not_believed(double, body):
    """Without the record's own id and a count, it is no answer of Galileo's."""
    double.fault = lambda _: Response(body=body)
    assert isinstance(send(double, TARGET, OUTPUT), Retry)


def test_an_unknown_record_is_not_delivered(double):
    """`reliable` is sent, so an update of what is not there is a 404 and not a 200."""
    double.stored.clear()
    assert send(double, TARGET, OUTPUT).error.type == "segment_not_found"


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("Span not found", "segment_not_found"),
        (
            [{"loc": ["path", "span_id"], "msg": "It is not ingested yet", "type": "value"}],
            "segment_not_found",
        ),
        ([{"loc": ["path", "span_id"], "msg": "bad", "type": "uuid_parsing", "input": "not found"}], "patch_failure"),
        ("no", "patch_failure"),
        ([], "patch_failure"),
        ([{"loc": "body"}, {"loc": ["body"]}, {"loc": ["body", 3]}, 5], "patch_failure"),
    ],
)
def test_a_422_says_what_it_is_about(double, detail, expected):
    """A record that is not there yet may appear; anything else will not work later. What was sent decides nothing."""
    double.fault = lambda _: Response(422, {"detail": detail})
    assert send(double, TARGET, OUTPUT).error.type == expected


def test_a_404_that_is_a_page_is_about_the_endpoint(double):
    """Nothing is given up for an address where no Galileo is."""
    double.fault = lambda _: Response(404, "<html>no</html>", {"Content-Type": "text/html"})
    assert isinstance(send(double, TARGET, OUTPUT), Pause)


def test_one_field_that_is_refused_does_not_take_the_others(double):
    """The rest is sent once more without it, and a note names each key that was in it."""

    def fault(request: Request) -> Response | None:
        if "tags" not in json.loads(request.body):
            return None
        return Response(422, {"detail": [{"loc": ["body", "tags", 0], "msg": "no", "type": "x", "input": KEY}]})

    double.fault = fault
    outcome = send(double, TARGET, OUTPUT, TAG, (("span", "tag", "vip"), True))
    assert outcome == Delivered(("tag 'late': refused", "tag 'vip': refused"))
    assert double.stored["span", SPAN] == Stored(changed={"output": "bye"})
    assert len(double.requests) == 2


def test_a_field_that_is_refused_alone_is_rejected(double):
    """Where nothing is left, there is no second request."""
    double.fault = lambda _: Response(422, {"detail": [{"loc": ["body", "output"], "msg": "no", "type": "x"}]})
    assert send(double, TARGET, OUTPUT).error.type == "patch_failure"
    assert len(double.requests) == 1


# --- the project -----------------------------------------------------------------------------------------------------


def test_the_projects_id_is_looked_up_once(double):
    """With a name alone, one look-up comes before the first patch; of several projects the one of this very name."""
    double.projects = {"shop-old": LOG_STREAM, "shop": PROJECT, "my shop": LOG_STREAM}
    exporter = GalileoPatchExporter(double.url, api_key=KEY, project="shop")
    patches = [patch(number) for number in (1, 2)]
    for one in patches:
        know(double, one)
    for one in patches:
        assert exporter.export([one], timeout_millis=5_000) == [Delivered()]
    exporter.shutdown()
    assert [request.method for request in double.requests] == ["GET", "PATCH", "PATCH"]
    assert double.requests[0].query == {"project_name": "shop", "type": "gen_ai"}
    assert double.requests[1].path.startswith(f"/v2/projects/{PROJECT}/")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, Pause),
        (Response(401, {}), Pause),
        (Response(404, {}), Pause),
        (Response(422, {}), Pause),
        (Response(503, {}), Retry),
        (Response(200, {"projects": []}), Retry),
        (Response(200, [{"name": "a b&c", "id": PROJECT, "runs": ["x" * 70_000]}]), Retry),
        (Response(200, [{"name": "a b&c", "id": "../x"}]), Pause),
    ],
    ids=range(8),
)
def test_no_patch_is_given_up_for_its_project(double, answer, kind):
    """A project that is not found concerns every patch: all are kept."""
    double.fault = lambda _: answer
    exporter = GalileoPatchExporter(double.url, api_key=KEY, project="a b&c")
    outcomes = exporter.export([patch(1), patch(2)], timeout_millis=5_000)
    exporter.shutdown()
    assert [type(one) for one in outcomes] == [kind, kind]
    assert [request.query["project_name"] for request in double.requests] == ["a b&c"]


def test_there_must_be_a_project():
    """An exporter without a project, or with an id that is none, says so when it is made."""
    for wrong in ({}, {"project_id": "shop"}, {"project": "shop", "log_stream_id": "default"}):
        with pytest.raises(ConfigurationError):
            GalileoPatchExporter("http://127.0.0.1:9", api_key=KEY, **wrong)


# --- from end to end -------------------------------------------------------------------------------------------------


def verdicts(target: om.SpanRef) -> None:
    om.score_span(target, "Correctness", score=0.5, label="partly")
    om.annotate_span(target, "quality", label="good", annotator="ann")


def test_an_update_live_in_flight_and_late(double):
    """Live and in flight everything is on the span; late Galileo has what it can hold, and every other key is told."""
    letters = []
    provider = TracerProvider(shutdown_on_exit=False)
    records = {}
    made = destination(
        api_key=KEY, api_url=double.url, project="shop", hold_millis=60_000, resolve=lambda ref: records.get(ref)
    )
    told: list[Outcome] = []
    export = made.patch_exporter.export
    made.patch_exporter.export = lambda *given, **named: told.extend(found := export(*given, **named)) or found  # type: ignore[method-assign]
    pipeline = om.configure(made, tracer_provider=provider, on_dead_letter=letters.append)
    tracer = provider.get_tracer("application")

    with tracer.start_as_current_span("live") as span:
        live = om.SpanRef.from_span_context(span.get_span_context())
        assert om.update_span(live, metadata=VALUES).route == "live"
        assert om.update_trace(live, user_id="u1", tags=["vip"]).route == "live"
        verdicts(live)
    with tracer.start_as_current_span("in flight") as span:
        flown = om.SpanRef.from_span_context(span.get_span_context())
    assert om.update_span(flown, metadata=VALUES).route == "in_flight"
    assert om.update_trace(flown, user_id="u1", tags=["vip"]).route == "in_flight"
    verdicts(flown)
    with tracer.start_as_current_span("late") as span:
        late = om.SpanRef.from_span_context(span.get_span_context())
    assert pipeline.flush()

    for name in ("live", "in flight"):
        attributes = dict(double.span(name).attributes)
        assert json.loads(attributes.pop("metadata")) == VALUES
        assert attributes == {
            "user.id": "u1",
            "trace.tags": ["vip"],
            "eval.Correctness.score": 0.5,
            "eval.Correctness.label": "partly",
            "eval.Correctness.source": "code",
            "annotation.quality.label": "good",
            "annotation.quality.annotator": "ann",
        }
    assert told == []

    # Now Galileo's own ids can be looked up.
    records[late] = (double.uuids[late.span_id_hex], "span")
    records[om.SpanRef(late.trace_id, 0)] = (double.uuids[late.trace_id_hex], "trace")
    assert om.update_span(late, metadata=VALUES, output="bye").route == "late"
    assert om.update_trace(late, user_id="u1", tags=["vip"]).route == "late"
    verdicts(late)
    assert pipeline.flush()
    pipeline.shutdown()

    assert double.span("late").changed == {"output": "bye"}
    assert double.trace(late.trace_id_hex).tags == ["vip"]
    assert double.ignored == []
    (outcome,) = told
    assert isinstance(outcome, Delivered)
    named = [
        *(f"metadata {key!r}" for key in VALUES),
        "trace user id",
        "evaluation 'Correctness'",
        "annotation 'quality'",
    ]
    assert sorted(outcome.notes) == sorted(f"{name}: {NO_FIELD}" for name in named)
    assert letters == []
    assert pipeline.stats().destinations["galileo"].lost == {}


def test_late_metadata_alone_is_lost_with_a_reason(double):
    """Galileo takes none: the update is counted as `unsupported`, and the dead letter has it."""
    letters = []
    pipeline = om.configure(
        destination(api_key=KEY, api_url=double.url, project="shop"),
        tracer_provider=TracerProvider(shutdown_on_exit=False),
        on_dead_letter=letters.append,
    )
    om.update_span(OTEL.with_backend_id("galileo", SPAN), metadata={"n": 0})
    assert not pipeline.flush()
    pipeline.shutdown()
    assert pipeline.stats().destinations["galileo"].lost == {"unsupported": 1}
    assert [letter.fields["span", "metadata", "n"][0] for letter in letters] == [0]
    assert double.requests == []


def test_a_second_annotator_of_one_name_leaves_with_the_span_too(double):
    """Two annotations of one name share attributes: the second is in a list beside them, and nothing follows."""
    provider = TracerProvider(shutdown_on_exit=False)
    made = destination(api_key=KEY, api_url=double.url, project="shop", hold_millis=60_000)
    pipeline = om.configure(made, tracer_provider=provider)
    with provider.get_tracer("application").start_as_current_span("answer") as span:
        pass
    for annotator in ("ann", "bob"):
        om.annotate_span(span, "quality", label="good", annotator=annotator)
    assert pipeline.flush()
    pipeline.shutdown()
    attributes = double.span("answer").attributes
    assert attributes["annotation.quality.annotator"] == "ann"
    assert json.loads(attributes["otel_metadata.annotations"]) == [
        {"name": "quality", "label": "good", "annotator": "bob"}
    ]


def test_a_session_of_galileos_own_has_its_name(double):
    """An id that is a UUID is also Galileo's routing attribute; any other text is `session.id` alone."""
    provider = TracerProvider(shutdown_on_exit=False)
    made = destination(api_key=KEY, api_url=double.url, project="shop")
    pipeline = om.configure(made, tracer_provider=provider)
    for name, session in (("own", TRACE), ("other", "s1")):
        with provider.get_tracer("application").start_as_current_span(name) as span:
            om.update_trace(span, session_id=session)
    assert pipeline.flush()
    pipeline.shutdown()
    assert double.span("own").attributes == {"session.id": TRACE, "galileo.session.id": TRACE}
    assert double.span("other").attributes == {"session.id": "s1"}
