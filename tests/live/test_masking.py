"""A mask sees every value once, before it is set on the live span, and what it replaces is nowhere."""

from __future__ import annotations

import asyncio

import pytest

import otel_metadata as om
from otel_metadata.model.masking import MASK_FAILED, Masking

SECRET = "sk-secret"


def everything(scene) -> str:
    """Return all that any exporter and the store have, as one text."""
    scene.deliver()
    beside = [(span.name, dict(span.attributes), span.status.description) for span in scene.beside.spans]
    return repr((beside, scene.pipeline.records()))


def hide(path, value):
    """Replace every text that holds the secret, at any depth."""
    return Masking(patterns=[SECRET])(path, value)


def in_span(action):
    """Return a caller that runs *action* in a plain span."""

    def run(scene):
        with scene.tracer.start_as_current_span("span"):
            assert action()

    return run


def observed(**options):
    def run(scene):
        om.observe(name="span", **options)(lambda key: {"deep": [key]})(SECRET)

    return run


def observed_generator(scene):
    @om.observe(name="span")
    def body(key):
        yield key

    list(body(SECRET))


def observed_coroutine(scene):
    @om.observe(name="span")
    async def body(key):
        return key

    asyncio.run(body(SECRET))


def bound(scene):
    with om.using_metadata({"k": SECRET}, user_id=SECRET, session_id=SECRET, tags=[SECRET]):
        scene.tracer.start_span("span").end()


def started(scene):
    with om.start_span("span", metadata={"k": [SECRET]}, tags=[SECRET], input=SECRET, attributes={"plain": SECRET}):
        pass


def late(scene):
    with om.start_span("span") as handle:
        pass
    handle.update(metadata={"k": SECRET})
    scene.deliver()
    handle.update(metadata={"late": SECRET}, output=SECRET)
    handle.annotate("note", text=SECRET)


WAYS = {
    "metadata": in_span(lambda: om.update_current_span(metadata={"k": SECRET})),
    "nested metadata": in_span(lambda: om.update_current_span(metadata={"k": {"deep": [SECRET]}})),
    "attributes": in_span(lambda: om.update_current_span(attributes={"plain": SECRET})),
    "name": in_span(lambda: om.update_current_span(name=SECRET)),
    "input": in_span(lambda: om.update_current_span(input=SECRET)),
    "output": in_span(lambda: om.update_current_span(output=[SECRET])),
    "tags": in_span(lambda: om.update_current_span(tags=["a", SECRET])),
    "status message": in_span(lambda: om.update_current_span(status="error", status_message=SECRET)),
    "trace": in_span(
        lambda: om.update_current_trace(
            metadata={"k": SECRET}, name=SECRET, user_id=SECRET, session_id=SECRET, tags=[SECRET], input=SECRET
        )
    ),
    "evaluation": in_span(
        lambda: om.score_current_span("Quality", label=SECRET, explanation=SECRET, metadata={"k": SECRET})
    ),
    "annotation": in_span(lambda: om.annotate_current_span("note", label=SECRET, text=SECRET)),
    "annotator": in_span(lambda: om.annotate_current_span("note", annotator=SECRET)),
    "captured input and output": observed(),
    "processed input": observed(process_input=lambda given: given["key"]),
    "captured input and output of a generator": observed_generator,
    "captured input and output of a coroutine": observed_coroutine,
    "options of observe": observed(metadata={"k": SECRET}, tags=[SECRET]),
    "using_metadata": bound,
    "start_span": started,
    "in flight and late": late,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_the_mask_replaces_is_nowhere(scene, use_settings, way):
    """Whatever the way of a value onto a span, the secret is in no exporter's span and not in the store."""
    use_settings(mask=hide)

    WAYS[way](scene)

    assert SECRET not in everything(scene)


@pytest.mark.parametrize("way", WAYS)
def test_without_a_mask_the_secret_is_there(scene, way):
    """The control: each of the ways does bring the value."""
    WAYS[way](scene)

    assert SECRET in everything(scene)


class TestWhatTheMaskIsGiven:
    def test_the_path_names_kind_and_key(self, scene, use_settings):
        """Each value comes with its kind and key, exactly once."""
        seen = []
        use_settings(mask=lambda path, value: (seen.append((path, value)), value)[1])
        with scene.tracer.start_as_current_span("span"):
            om.update_current_span(metadata={"a": 1, "b": {"c": None}}, output="o", tags=["t"], attributes={"x": 1})
            om.score_current_span("Quality", score=1)
            om.annotate_current_span("note", text="hm")
        scene.deliver()

        assert sorted(seen, key=repr) == sorted(
            [
                ("metadata.a", 1),
                ("metadata.b", {"c": None}),
                ("attribute.x", 1),
                ("output", "o"),
                ("tag", "t"),
                ("evaluation.Quality", {"source": "code", "score": 1}),
                ("annotation.note", {"name": "note", "text": "hm"}),
            ],
            key=repr,
        )

    def test_the_mask_gets_clean_values(self, scene, use_settings):
        """The mask is called after the clean-up: JSON values only."""
        seen = []
        use_settings(mask=lambda path, value: (seen.append(value), value)[1])
        with scene.tracer.start_as_current_span("span"):
            om.update_current_span(metadata={"a": {1, 2}, "b": float("nan")})

        assert seen == [[1, 2], "NaN"]

    def test_the_mask_cannot_change_the_applications_value(self, scene, use_settings):
        """A mask that changes what it is given changes our copy only."""

        def clear(path, value):
            value.clear()
            return value

        use_settings(mask=clear)
        given, result = {"deep": {"a": 1}}, [{"b": 2}]
        with scene.tracer.start_as_current_span("span"):
            om.update_current_span(metadata={"k": given})

        assert om.observe(lambda arg: arg)(result) is result
        assert (given, result) == ({"deep": {"a": 1}}, [{"b": 2}])

    def test_what_the_mask_answers_is_cleaned(self, scene, use_settings):
        """An answer that is no JSON does no harm."""
        use_settings(mask=lambda path, value: object())
        with scene.tracer.start_as_current_span("span"):
            assert om.update_current_span(metadata={"a": SECRET}, tags=[SECRET], output=SECRET)
            assert om.score_current_span("Quality", label=SECRET)

        assert SECRET not in everything(scene)


class TestMaskThatFails:
    def test_the_value_is_replaced_and_noted(self, scene, use_settings):
        """What the mask could not judge does not leave; the rest of the update does."""

        def judge(path, value):
            if path == "metadata.bad":
                raise ValueError(SECRET)
            return value

        use_settings(mask=judge)
        with scene.tracer.start_as_current_span("span"):
            receipt = om.update_current_span(metadata={"bad": SECRET, "good": 1})

        assert receipt
        assert scene.record("span").metadata == {"bad": MASK_FAILED, "good": 1}
        assert SECRET not in everything(scene) + repr(receipt.notes)
        assert any("mask failed" in note for note in receipt.notes)

    @pytest.mark.parametrize("way", WAYS)
    def test_nothing_leaks_on_any_way(self, scene, use_settings, way):
        """With a mask that always fails, no way brings the secret, and nothing raises."""

        def fail(path, value):
            raise RuntimeError("no")

        use_settings(mask=fail)

        WAYS[way](scene)

        assert SECRET not in everything(scene)


class TestMaskThatComesLater:
    """Decorators run at import, before the application configures its mask."""

    def test_the_options_of_observe_are_masked(self, scene, use_settings):
        """metadata= and tags= of a function that was decorated before the mask was set are masked when it is called."""
        func = om.observe(name="span", metadata={"k": SECRET}, tags=[SECRET])(lambda: None)
        use_settings(mask=hide)

        func()

        assert SECRET not in everything(scene)

    def test_a_using_metadata_decorator_is_masked(self, scene, use_settings):
        """What using_metadata binds as a decorator is masked by the mask that is in force at the call."""
        func = om.using_metadata({"k": SECRET}, user_id=SECRET)(lambda: scene.tracer.start_span("span").end())
        use_settings(mask=hide)

        func()

        assert SECRET not in everything(scene)


def received(scene, headers):
    """Return an observed call that gets a web request, as every framework hands it over."""
    om.observe(name="span")(lambda request, headers: None)({"headers": headers}, headers)


CREDENTIALS = {
    "an argument": lambda scene: om.observe(name="span")(lambda password: None)(SECRET),
    "a keyword": lambda scene: om.observe(name="span")(lambda **rest: None)(api_key=SECRET),
    "an argument in a partial": lambda scene: om.observe(name="span")(lambda user, *, token: None)("a", token=SECRET),
    "a result": lambda scene: om.observe(name="span")(lambda: {"user": {"access_token": SECRET}})(),
    "pairs": lambda scene: received(scene, [(b"authorization", SECRET.encode()), (b"host", b"a")]),
    "a header": lambda scene: received(scene, {b"cookie": SECRET}),
    "items of a generator": lambda scene: list(
        om.observe(name="span")(lambda: (one for one in [{"secret": SECRET}]))()
    ),
    "processed output": lambda scene: om.observe(name="span", process_output=lambda _: {"auth": SECRET})(lambda: 1)(),
    "metadata": in_span(lambda: om.update_current_span(metadata={"password": SECRET})),
    "metadata again": in_span(
        lambda: (
            om.update_current_span(metadata={"password": 1}) and om.update_current_span(metadata={"password": SECRET})
        )
    ),
    "nested metadata": in_span(lambda: om.update_current_span(metadata={"k": [{"X-API-Key": SECRET}]})),
    "attributes": in_span(lambda: om.update_current_span(attributes={"http.request.header.cookie": SECRET})),
    "output": in_span(lambda: om.update_current_span(output={"client_secret": SECRET})),
    "trace": in_span(lambda: om.update_current_trace(metadata={"password": SECRET}, input={"token": SECRET})),
    "evaluation": in_span(lambda: om.score_current_span("Quality", score=1, metadata={"password": SECRET})),
    "a URL": in_span(lambda: om.update_current_span(metadata={"database": f"postgresql://app:{SECRET}@db/x"})),
    "a URL again": in_span(
        lambda: (
            om.update_current_span(metadata={"database": "x"})
            and om.update_current_span(metadata={"database": f"postgresql://app:{SECRET}@db/x"})
        )
    ),
    "a URL as argument": lambda scene: om.observe(name="span")(lambda url: url)(f"postgresql://app:{SECRET}@db/x"),
    "options of observe": lambda scene: om.observe(name="span", metadata={"password": SECRET})(lambda: None)(),
    "using_metadata": lambda scene: [
        om.using_metadata({"password": SECRET})(lambda: scene.tracer.start_span("span").end())()
    ],
    "start_span": lambda scene: (
        om.start_span("span", attributes={"password": SECRET}, input={"pwd": SECRET})
        .__enter__()
        .__exit__(None, None, None)
    ),
}


@pytest.mark.parametrize("way", CREDENTIALS)
class TestCredentials:
    def test_they_are_masked_by_default(self, scene, way):
        """Whatever the way, a secret that its key tells is in no exporter's span and not in the store."""
        CREDENTIALS[way](scene)

        assert SECRET not in everything(scene)
        assert "<masked>" in everything(scene)

    def test_masking_can_be_ended(self, scene, use_settings, way):
        """The control: without it, each of the ways brings the value."""
        use_settings(masks_credentials=False)

        CREDENTIALS[way](scene)

        assert SECRET in everything(scene)

    def test_a_mask_of_the_applications_own_comes_on_top(self, scene, use_settings, way):
        """With a mask that changes nothing they are masked all the same."""
        use_settings(mask=lambda path, value: value)

        CREDENTIALS[way](scene)

        assert SECRET not in everything(scene)
