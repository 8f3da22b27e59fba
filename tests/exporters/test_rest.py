"""A vendor with an API of its own: a class of one method is a whole patch exporter."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.exporters.loopback import Loopback, reply

from otel_metadata.exporters.rest import Budget, RestPatchExporter, not_from, path_segment
from otel_metadata.model.outcome import Delivered, Outcome, Rejected, Retry
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.seams import PatchExporter

KEY = "sk-4711"
JSON = {"content_type": "application/json"}


class AcmeExporter(RestPatchExporter):
    """A vendor that stores the metadata of a span under its id."""

    max_batch = 10

    def send_one(self, patch: Patch, budget: Budget) -> Outcome:
        path = f"/spans/{path_segment(patch.target.span_id_hex)}"
        answer = self._client.call("PUT", path, patch.metadata(), budget=budget)
        return answer.outcome or (Delivered() if answer.member("stored") is True else not_from("Acme"))


@pytest.fixture
def patches() -> list[Patch]:
    return [Patch(SpanRef(1, number), {("span", "metadata", "k"): (number, (number, 1))}) for number in (2, 3, 4)]


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply(200, b'{"stored": true}', **JSON)) as server:
        yield server


def exporter_for(server: Loopback) -> AcmeExporter:
    return AcmeExporter(server.url, headers={"authorization": f"Bearer {KEY}"}, name="acme", project="tests")


def test_one_method_is_enough(server, patches):
    """It has all that an outbox reads, sends each patch by itself, and shows no key."""
    exporter = exporter_for(server)
    assert isinstance(exporter, PatchExporter)
    assert exporter.export(patches, timeout_millis=5_000) == [Delivered()] * 3
    assert [json.loads(request.body) for request in server.requests] == [{"k": 2}, {"k": 3}, {"k": 4}]
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert exporter.place == {"project": "tests"}
    assert exporter.force_flush()
    assert repr(exporter) == f"<AcmeExporter {server.url}>"
    exporter.shutdown()
    (outcome,) = exporter.export(patches[:1], timeout_millis=5_000)
    assert isinstance(outcome, Retry)
    assert len(server.requests) == 3


def test_an_answer_about_the_backend_is_that_of_the_rest(server, patches):
    """After a failure that every patch would meet, no other patch is sent; a refusal is of one patch alone."""
    server.answers[:] = [reply(400, b"{}", **JSON), reply(503), reply(200, b'{"stored": true}', **JSON)]
    exporter = exporter_for(server)
    first, second, third = exporter.export(patches, timeout_millis=5_000)
    exporter.shutdown()
    assert isinstance(first, Rejected)
    assert isinstance(second, Retry)
    assert third is second
    assert len(server.requests) == 2


def test_without_time_nothing_is_sent(server, patches):
    """A batch whose time is over is to be tried again, and asks nobody."""
    exporter = exporter_for(server)
    assert {type(outcome) for outcome in exporter.export(patches, timeout_millis=0)} == {Retry}
    exporter.shutdown()
    assert server.requests == []


@pytest.mark.parametrize("body", [b'{"ok": 1}', b"[]", b'"stored"', b"1", b"null"])
def test_a_success_of_another_program_is_told(server, patches, body):
    """JSON of another shape is never delivered, and the error says which endpoint to check."""
    server.answers[:] = [reply(200, body, **JSON)]
    exporter = exporter_for(server)
    (outcome,) = exporter.export(patches[:1], timeout_millis=5_000)
    exporter.shutdown()
    assert isinstance(outcome, Retry)
    assert outcome.error.message == "the 2xx response does not come from Acme; check the endpoint"
