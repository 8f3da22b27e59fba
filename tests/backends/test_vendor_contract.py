"""What every vendor's patch exporter promises, against a double of its server: one suite over all of them."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import re
from collections.abc import Iterator

import pytest
from tests.backends import vendors
from tests.backends.vendors.case import Case
from tests.backends.vendors.server import KEY, Double, Response
from tests.exporters.loopback import Loopback, never, reply, then_closed, then_reset

from otel_metadata.model.outcome import Delivered, Pause, Rejected, Retry
from otel_metadata.seams import PatchExporter

MODULES = [importlib.import_module(f"{vendors.__name__}.{one.name}") for one in pkgutil.iter_modules(vendors.__path__)]
CASES: list[Case] = [module.CASE for module in MODULES if hasattr(module, "CASE")]
assert CASES
OUTCOMES = (Delivered, Retry, Pause, Rejected)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param  # type: ignore[no-any-return] # a parameter above


# The others take patches of spans that they do not know.
TELLING = pytest.mark.parametrize("case", [case for case in CASES if case.reports_missing], ids=lambda case: case.name)


@pytest.fixture
def double(case: Case) -> Iterator[Double]:
    with case.double() as double:
        yield double


@pytest.fixture
def exporter(case: Case, double: Double) -> Iterator[PatchExporter]:
    exporter = case.exporter(double.url)
    yield exporter
    exporter.shutdown()


def known(case: Case, double: Double, *numbers: int):
    patches = [case.patch(number) for number in numbers]
    for patch in patches:
        case.know(double, patch)
    return patches


def test_it_has_what_an_outbox_reads(case, exporter):
    """Every attribute of the seam is there, of its type and in its range."""
    assert isinstance(exporter, PatchExporter)
    assert exporter.name == case.name
    assert exporter.max_batch >= 1
    assert exporter.grace_millis >= 0
    assert exporter.reports_missing is case.reports_missing
    assert exporter.convergence in {"versioned", "ordered", "add_only", "none"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_each_patch_has_one_outcome(case, double, exporter, count):
    """As many outcomes as patches, all delivered where the backend knows the spans."""
    outcomes = exporter.export(known(case, double, *range(1, count + 1)), timeout_millis=5_000)
    assert [type(outcome) for outcome in outcomes] == [Delivered] * count


def test_nothing_is_sent_for_no_patch(exporter, double):
    """An empty batch asks nobody."""
    assert list(exporter.export([], timeout_millis=1_000)) == []
    assert double.requests == []


def test_a_patch_may_come_again(case, double, exporter):
    """The same patch twice is delivered twice, as after an answer that was lost."""
    (patch,) = known(case, double, 1)
    for _ in range(2):
        assert isinstance(exporter.export([patch], timeout_millis=5_000)[0], Delivered)


@TELLING
def test_one_that_is_unknown_does_not_keep_the_others_back(case, double, exporter):
    """Outcomes are in order, one each: an unknown span among known ones is the only one that is not delivered."""
    first, third = known(case, double, 1, 3)
    outcomes = exporter.export([first, case.patch(2), third], timeout_millis=5_000)
    assert [type(outcome) for outcome in outcomes] == [Delivered, Rejected, Delivered]
    assert outcomes[1].error.type == "segment_not_found"


@TELLING
def test_one_that_is_unknown_now_may_be_known_later(case, double, exporter):
    """A span that arrives after its patch takes the patch when it is tried again."""
    patch = case.patch(1)
    (outcome,) = exporter.export([patch], timeout_millis=5_000)
    assert (type(outcome), outcome.error.type) == (Rejected, "segment_not_found")
    case.know(double, patch)
    assert isinstance(exporter.export([patch], timeout_millis=5_000)[0], Delivered)


@pytest.mark.parametrize("family", [1, 3, 4, 5])
def test_no_status_but_a_success_is_believed(case, double, family):
    """Statuses from 100 to 599: what is no 2xx is never delivered; keys pause, overload and failures are retries."""
    # Interim answers are waited for in vain, so there are few of them; after 101 it is HTTP no more.
    for status in (100, 103, 199) if family == 1 else range(family * 100, family * 100 + 100):
        exporter = case.exporter(double.url)
        double.fault = lambda _, status=status: Response(status, {"detail": "no"} if status not in {204, 304} else b"")
        double.requests.clear()
        (outcome,) = exporter.export([case.patch(1)], timeout_millis=300 if status < 200 else 5_000)
        exporter.shutdown()
        expected = case.answers.get(status)
        if expected is None:
            expected = {401: Pause, 403: Pause, 402: Pause, 429: Retry, 408: Retry}.get(status)
        if expected is None and (status >= 500 or status < 200):
            expected = Retry
        if expected is None and status < 400:
            expected = Pause
        assert isinstance(outcome, expected or (Rejected, Pause)), (status, outcome)
        assert KEY not in repr(outcome)


def test_retry_after_is_handed_on(case, double, exporter):
    """What a backend asks for reaches the outbox, for every patch of the batch."""
    double.fault = lambda _: Response(429, {"detail": "slow down"}, {"Retry-After": "7"})
    outcomes = exporter.export([case.patch(1), case.patch(2)], timeout_millis=5_000)
    assert [(type(one), one.after_millis) for one in outcomes] == [(Retry, 7_000)] * 2


@pytest.mark.parametrize(
    "answer",
    [
        then_reset(b""),
        then_closed(b""),
        then_closed(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        reply(200, b"<!doctype html><title>Sign in</title>", content_type="text/html"),
        reply(200, b"{not json", content_type="application/json"),
        reply(200, b"[1, 2]", content_type="application/json"),
        reply(200, b'"text"', content_type="application/json"),
        reply(302, b"", location="http://127.0.0.1:9/"),
    ],
    ids=["reset", "closed", "cut-off", "page", "no-json", "list", "text", "redirect"],
)
def test_a_broken_answer_is_never_delivered(case, answer, request):
    """A reset, a login page with 200, JSON of another shape, a redirect: nothing of it is taken for a success."""
    with Loopback(answer) as server:
        exporter = case.exporter(server.url)
        (outcome,) = exporter.export([case.patch(1)], timeout_millis=2_000)
        exporter.shutdown()
    if case.success and request.node.callspec.id.rsplit("-", 1)[-1] in {"json", "list", "text"}:
        return
    assert isinstance(outcome, Retry | Pause), outcome


def test_a_backend_that_hangs_is_left_in_time(case):
    """The time of an export holds for all its requests together, and the rest of the batch is to be tried again."""
    with Loopback(never) as server:
        exporter = case.exporter(server.url)
        outcomes = exporter.export([case.patch(number) for number in (1, 2, 3)], timeout_millis=200)
        exporter.shutdown()
        assert len(server.requests) <= 1
    assert [type(outcome) for outcome in outcomes] == [Retry] * 3


def test_a_backend_that_is_down_is_asked_once(case, double):
    """After the first failed connection the rest of the batch is not tried."""
    double.close()
    exporter = case.exporter(double.url)
    outcomes = exporter.export([case.patch(number) for number in (1, 2, 3)], timeout_millis=2_000)
    exporter.shutdown()
    assert [type(outcome) for outcome in outcomes] == [Retry] * 3


def test_a_refused_key_is_asked_once(case, double, exporter):
    """401 for the first is 401 for all: the batch pauses after one request."""
    double.fault = lambda _: Response(401, {"detail": "no"})
    outcomes = exporter.export([case.patch(number) for number in (1, 2, 3)], timeout_millis=5_000)
    assert [type(outcome) for outcome in outcomes] == [Pause] * 3
    assert {outcome.error.type for outcome in outcomes} == {"unauthorized"}
    assert len(double.requests) == 1


def test_the_key_is_shown_nowhere(case, double, exporter, caplog):
    """Not in a log line, not in an outcome, not in the exporter's own representation, though the server repeats it."""
    caplog.set_level(logging.DEBUG)
    for status in (200, 400, 401, 404, 422, 500):
        double.fault = lambda _, status=status: Response(status, {"message": f"bad key {KEY}", "detail": KEY})
        for outcome in exporter.export([case.patch(1)], timeout_millis=5_000):
            assert KEY not in repr(outcome)
    assert KEY not in caplog.text
    assert KEY not in repr(exporter)
    assert KEY not in repr(vars(exporter)) if hasattr(exporter, "__dict__") else True


def test_ids_are_spelled_as_the_backend_spells_them(case, double, exporter):
    """Every path is of the vendor's form, and no credential is part of it."""
    exporter.export(known(case, double, 1, 2), timeout_millis=5_000)
    assert double.requests
    for request in double.requests:
        assert re.fullmatch(case.path, request.path), request.path
        assert KEY not in request.path
        assert KEY not in "".join(request.query.values())


def test_after_a_shutdown_nothing_is_sent(case, double, exporter):
    """A late call is answered, without a request."""
    exporter.shutdown()
    (outcome,) = exporter.export([case.patch(1)], timeout_millis=1_000)
    assert isinstance(outcome, Retry)
    assert double.requests == []
