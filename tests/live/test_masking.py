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


def hide_in_values(path, value):
    """Look at texts, dicts and lists, and leave the keys of a dict as they are: masks are often written so."""
    if isinstance(value, str):
        return value.replace(SECRET, "***")
    if isinstance(value, list):
        return [hide_in_values(path, item) for item in value]
    if isinstance(value, dict):
        return {key: hide_in_values(path, item) for key, item in value.items()}
    return value


MASKS = {"a rule": Masking(patterns=[SECRET]), "a function": hide, "a function of values": hide_in_values}


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


def start(block):
    with block:
        pass


def started_in(block, scene):
    with block:
        scene.tracer.start_span("span").end()


def late_keys(scene):
    with om.start_span("span") as handle:
        pass
    handle.update(metadata={SECRET: 1})
    handle.annotate("note", text="in flight", annotator=SECRET)
    scene.deliver()
    handle.update(metadata={"late": [{SECRET: 1}]}, attributes={SECRET: 1})
    handle.annotate("note", text="late", annotator=SECRET)
    handle.score(SECRET, score=1)


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
    "key of metadata": in_span(lambda: om.update_current_span(metadata={SECRET: 1})),
    "key in metadata": in_span(lambda: om.update_current_span(metadata={"k": [{"deep": {SECRET: None}}]})),
    "key of a trace's metadata": in_span(lambda: om.update_current_trace(metadata={SECRET: {SECRET: 1}})),
    "key of an attribute": in_span(lambda: om.update_current_span(attributes={f"plain.{SECRET}": 1})),
    "key of metadata in an attribute": in_span(lambda: om.update_current_span(attributes={f"metadata.{SECRET}": 1})),
    "key in an input": in_span(lambda: om.update_current_span(input={SECRET: 1}, output=[{SECRET: 1}])),
    "name of an evaluation": in_span(lambda: om.score_current_span(f"Quality of {SECRET}", score=1)),
    "key in an evaluation": in_span(lambda: om.score_current_span("Quality", score=1, metadata={"k": {SECRET: 1}})),
    "name of an annotation": in_span(lambda: om.annotate_current_span(f"by {SECRET}", text="x", annotator="a")),
    "name and annotator": in_span(lambda: om.annotate_current_span(SECRET, score=1, annotator=SECRET)),
    "name of a span that starts": lambda scene: start(om.start_span(f"call {SECRET}")),
    "name of a function": lambda scene: om.observe(name=f"call {SECRET}")(lambda: None)(),
    "key of an argument": lambda scene: om.observe(lambda **given: given)(**{SECRET: {SECRET: 1}}),
    "key in using_metadata": lambda scene: started_in(om.using_metadata({SECRET: {SECRET: 1}}), scene),
    "key in start_span": lambda scene: start(om.start_span("span", metadata={SECRET: 1}, attributes={SECRET: "x"})),
    "keys late": late_keys,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("way", WAYS)
def test_what_the_mask_replaces_is_nowhere(scene, use_settings, caplog, way, mask):
    """Whatever the way of a value or key onto a span, the secret is in no exporter's span, store, or log."""
    use_settings(mask=MASKS[mask])

    WAYS[way](scene)

    assert SECRET not in everything(scene) + caplog.text


@pytest.mark.parametrize("way", WAYS)
def test_without_a_mask_the_secret_is_there(scene, way):
    """The control: each of the ways does bring the value."""
    WAYS[way](scene)

    assert SECRET in everything(scene)


class TestWhatTheMaskIsGiven:
    def test_the_path_names_kind_and_key(self, scene, use_settings):
        """Each value comes with its kind and key, exactly once, and each key by itself."""
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
                *(("key", key) for key in ("a", "b", "c", "x", "Quality", "note")),
            ],
            key=repr,
        )

    def test_the_mask_gets_clean_values(self, scene, use_settings):
        """The mask is called after the clean-up: JSON values only."""
        seen = []
        use_settings(mask=lambda path, value: (path == "key" or seen.append(value), value)[1])
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


class TestKeys:
    def test_the_key_of_an_annotation_says_what_was_kept(self, scene, use_settings):
        """Its name and annotator are those that the mask left, and both annotations of one annotator are one."""
        use_settings(mask=Masking(patterns=["alice"]))
        with scene.tracer.start_as_current_span("span"):
            om.annotate_current_span("note", text="first", annotator="alice")
            om.annotate_current_span("note", text="second", annotator="alice")
            om.annotate_current_span("note of alice", text="third")

        assert [(note.name, note.annotator, note.text) for note in scene.record("span").annotations] == [
            ("note", "<masked>", "second"),
            ("note of <masked>", None, "third"),
        ]

    def test_an_annotation_without_annotator_is_that_of_nobody(self, scene, use_settings):
        """A mask may take the annotator out, or the whole value: then the key does not say it either."""

        def mask(path, value):
            return (
                {**value, "annotator": None} if path == "annotation.a" else "gone" if path.startswith("ann") else value
            )

        use_settings(mask=mask)
        with scene.tracer.start_as_current_span("span"):
            om.annotate_current_span("a", text="x", annotator="alice")
            om.annotate_current_span("b", text="y", annotator="alice")

        assert "alice" not in everything(scene)
        assert [(note.name, note.annotator) for note in scene.record("span").annotations][:1] == [("a", None)]

    def test_of_two_keys_that_become_the_same_the_later_is_kept(self, scene, use_settings):
        """At every level, with a note that does not name what was masked."""
        use_settings(mask=Masking(patterns=[r"\w+@\w+"]))
        with scene.tracer.start_as_current_span("span"):
            receipt = om.update_current_span(
                metadata={"a@b": 1, "c@d": {"e@f": 2, "g@h": 3, "x": 4}}, output={"i@j": 5, "k@l": 6}
            )

        record = scene.record("span")
        assert (record.metadata, record.output) == ({"<masked>": {"<masked>": 3, "x": 4}}, {"<masked>": 6})
        assert receipt.notes == (
            "metadata.<masked>.<masked>: the mask made two keys the same; the later one was kept",
            "metadata.<masked>: the mask made two keys the same; the later one was kept",
            "output.<masked>: the mask made two keys the same; the later one was kept",
        )

    def test_an_answer_that_is_no_text_replaces_the_key(self, scene, use_settings):
        """None, a number, nothing: the key is not kept."""
        answers = iter([None, 5, ""])
        use_settings(mask=lambda path, value: next(answers) if path == "key" else value)
        for key in ("a", "b", "c"):
            with scene.tracer.start_as_current_span(key):
                om.update_current_span(metadata={key: 1})

        assert [scene.record(key).metadata for key in "abc"] == [{MASK_FAILED: 1}] * 3

    def test_the_parts_of_an_evaluation_are_no_keys(self, scene, use_settings):
        """Nothing asks about `label`, `score` or `text`: with them masked nothing would be left of it."""
        use_settings(mask=lambda path, value: value if path != "key" else "***")
        with scene.tracer.start_as_current_span("span"):
            om.score_current_span("Quality", label="good", metadata={"judge": 1})
            om.annotate_current_span("note", text="hm", annotator="a")

        record = scene.record("span")
        assert [(one.name, one.label, one.metadata) for one in record.evaluations.values()] == [
            ("***", "good", {"***": 1})
        ]
        assert [(one.name, one.text, one.annotator) for one in record.annotations] == [("***", "hm", "a")]

    def test_a_long_answer_is_cut_as_any_key(self, scene, use_settings):
        """A key has 256 characters at most, whoever made it."""
        use_settings(mask=lambda path, value: "x" * 1_000 if path == "key" else value)
        with scene.tracer.start_as_current_span("span"):
            om.update_current_span(metadata={"a": 1})

        assert {len(key) <= 256 for key in scene.record("span").metadata} == {True}

    def test_a_log_line_does_not_name_a_masked_key(self, scene, use_settings, caplog):
        """What was cut of a captured value, and an update that sets nothing, are told without keys."""
        use_settings(mask=hide)
        om.observe(name="span")(lambda given: None)({SECRET: ["x" * 300_000]})
        with scene.tracer.start_as_current_span("other"):
            om.update_current_span(metadata=type("Odd", (), {"keys": lambda _: [SECRET], "__getitem__": None})())

        assert SECRET not in caplog.text
        assert "A captured input was too large: input: with a mask in force" in caplog.text
        assert "An update sets nothing: metadata" in caplog.text


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


def test_the_usual_call_is_looked_at_as_well(scene):
    """A URL with a secret parameter, and a name beside its value, are found where an argument or a result is."""

    @om.observe(name="fetch")
    def fetch(url):
        return url

    @om.observe(name="header")
    def header(name, value):
        return None

    fetch(f"https://host/?api_key={SECRET}")
    header("authorization", SECRET)

    shown = everything(scene)
    assert SECRET not in shown
    assert "https://host/?api_key=<masked>" in shown
