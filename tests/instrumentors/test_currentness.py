"""Which span is current while a call runs, and what follows for updates made from inside the HTTP client."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import openai
import pytest

import otel_metadata as om

if TYPE_CHECKING:
    from tests.instrumentors.conftest import Instrumentor, Scene


def client_with_hook(scene: Scene, hook: Callable[[], object]) -> openai.OpenAI:
    """Return a client that calls *hook* when a request is about to be sent."""
    http_client = openai.DefaultHttpxClient(event_hooks={"request": [lambda _: hook()]})
    return openai.OpenAI(base_url=scene.stub.url + "/v1", api_key="no-key", max_retries=0, http_client=http_client)


def test_the_named_instrumentor_is_installed(instrumentor: Instrumentor) -> None:
    """Every instrumentor that this environment names can be imported: a missing one fails rather than hides."""
    assert importlib.import_module(instrumentor.module).OpenAIInstrumentor


def test_an_update_from_the_http_client_reaches_the_llm_span(scene: Scene) -> None:
    """While a chat request is sent its span is current: an update of the current span is live on it."""
    receipts = []
    with (
        client_with_hook(scene, lambda: receipts.append(om.update_current_span(metadata={"is_sent": True}))) as client,
        scene.caller(),
    ):
        client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "Why?"}])
    scene.export()

    assert [receipt.route for receipt in receipts] == ["live"]
    assert scene.metadata_of(scene.llm) == {"is_sent": True}
    assert scene.metadata_of(scene.span("caller")) == {}


class TestSpanThatIsNeverCurrent:
    """OpenLLMetry makes the span of a Responses call when the call is over."""

    @pytest.mark.only("openllmetry")
    def test_the_current_span_is_the_callers_during_the_call(self, scene: Scene) -> None:
        """An update of the current span from inside the HTTP client is the caller's: there is no other yet."""
        with (
            client_with_hook(scene, lambda: om.update_current_span(metadata={"is_sent": True})) as client,
            scene.caller(),
        ):
            client.responses.create(model="gpt-5", input="Why?")
        scene.export()

        assert scene.metadata_of(scene.span("caller")) == {"is_sent": True}
        assert scene.metadata_of(scene.llm) == {}

    @pytest.mark.only("openllmetry")
    def test_its_capture_is_empty_during_the_call_and_full_after_it(self, scene: Scene) -> None:
        """A capture refuses updates of a span that does not exist yet, and knows it when the call has returned."""
        during = []
        with scene.caller(), om.capture_spans() as captured:
            with client_with_hook(
                scene, lambda: during.append(om.update_span(captured.llm, metadata={"is_early": True}))
            ) as client:
                client.responses.create(model="gpt-5", input="Why?")
            after = om.update_span(captured.llm, metadata={"is_late": True})
        scene.export()

        assert [(receipt.route, bool(receipt)) for receipt in during] == [("dropped", False)]
        assert after.route == "in_flight"
        assert scene.metadata_of(scene.llm) == {"is_late": True}


@pytest.mark.only("openai_v2")
def test_a_call_without_a_span_has_an_empty_capture(scene: Scene) -> None:
    """openai-v2 does not trace the Responses API: the capture is empty and refuses updates."""
    with scene.caller(), om.capture_spans() as captured:
        scene.client.responses.create(model="gpt-5", input="Why?")
        receipt = om.update_span(captured.llm, metadata={"verdict": "good"})
    scene.export()

    assert captured.all == ()
    assert (receipt.route, bool(receipt)) == ("dropped", False)
    assert [(span.name, scene.metadata_of(span)) for span in scene.exported] == [("caller", {})]


def test_calls_in_one_block_are_told_apart(scene: Scene) -> None:
    """Of several calls in one capture each is updated by its own name; `.llm` is the last."""
    with scene.caller(), om.capture_spans() as captured:
        for _ in range(3):
            scene.chat()
        for number, span in enumerate(captured.all):
            om.update_span(span, metadata={"number": number})
        om.update_span(captured.llm, metadata={"is_last": True})
    scene.export()

    spans = [span for span in scene.exported if span.name != "caller"]
    assert [scene.metadata_of(span) for span in spans] == [{"number": 0}, {"number": 1}, {"number": 2, "is_last": True}]


def test_nested_bindings_merge_on_the_llm_span(scene: Scene) -> None:
    """Inner bound metadata wins key by key over outer, on a span that somebody else opens."""
    with scene.caller(), om.using_metadata({"tenant": "acme", "step": 1}), om.using_metadata({"step": 2}):
        scene.chat()
    scene.export()

    assert scene.metadata_of(scene.llm) == {"tenant": "acme", "step": 2}


def test_nothing_bound_is_left_for_the_next_call(scene: Scene) -> None:
    """After its block bound metadata is gone: the next call's span has none."""
    with scene.caller():
        with om.using_metadata({"tenant": "acme"}):
            scene.chat()
        scene.chat()
    scene.export()

    assert [scene.metadata_of(span) for span in scene.exported] == [{"tenant": "acme"}, {}, {"tenant": "acme"}]


def test_a_call_without_a_caller_is_captured_too(scene: Scene) -> None:
    """An LLM span that is the root of its trace is bound, captured and updated like any other."""
    with om.using_metadata({"tenant": "acme"}), om.capture_spans() as captured:
        scene.chat()
    om.update_span(captured.llm, metadata={"verdict": "good"})
    scene.export()

    assert scene.llm.parent is None
    assert scene.metadata_of(scene.llm) == {"tenant": "acme", "verdict": "good"}
