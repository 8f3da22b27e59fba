"""What an observed call captures of its arguments and its result, when, and when not."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult

import otel_metadata as om
from otel_metadata.live import live_settings
from otel_metadata.testing import InMemoryPipeline


class RecordOnly(Sampler):
    """Records every span and samples none."""

    def should_sample(self, parent_context: Context | None, trace_id: int, name: str, *_args, **_kwargs):
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        return "RecordOnly"


class Poison(Mapping):
    """Counts how often somebody looks at it."""

    def __init__(self) -> None:
        self.looks = 0

    def _look(self, *_args, **_kwargs):
        self.looks += 1
        return iter(())

    def __len__(self) -> int:
        self.looks += 1
        return 0

    __getitem__ = __iter__ = items = keys = values = _look


def captured_input(scene, func, *args, **kwargs):
    """Call an observed function and return what was captured of its arguments."""
    om.observe(name="call")(func)(*args, **kwargs)
    return scene.record("call").input


SIGNATURES = {
    "by position": (lambda a, b: None, (1, 2), {}, {"a": 1, "b": 2}),
    "by keyword": (lambda a, b: None, (), {"b": 2, "a": 1}, {"a": 1, "b": 2}),
    "a default": (lambda a, b=2: None, (1,), {}, {"a": 1, "b": 2}),
    "a default of None": (lambda a=None: None, (), {}, {"a": None}),
    "a default that was overridden": (lambda a, b=2: None, (1, 3), {}, {"a": 1, "b": 3}),
    "keyword only": (lambda a, *, b, c=3: None, (1,), {"b": 2}, {"a": 1, "b": 2, "c": 3}),
    "no parameters": (lambda: None, (), {}, {}),
    "the rest by position": (lambda a, *rest: None, (1, 2, 3), {}, {"a": 1, "rest": [2, 3]}),
    "a named parameter after the rest": (lambda *rest, last=0: None, (1,), {"last": 2}, {"rest": [1], "last": 2}),
    "the rest by keyword": (lambda a, **others: None, (1,), {"b": 2, "c": 3}, {"a": 1, "b": 2, "c": 3}),
    "both rests": (lambda *args, **kwargs: None, (1,), {"b": 2}, {"args": [1], "b": 2}),
}


class TestInput:
    @pytest.mark.parametrize("case", SIGNATURES)
    def test_arguments_are_captured_by_parameter_name(self, scene, case):
        """Every form of parameter is captured under its name, with defaults."""
        func, args, kwargs, expected = SIGNATURES[case]

        assert captured_input(scene, func, *args, **kwargs) == expected

    def test_positional_only_arguments_are_captured_by_name(self, scene):
        """A parameter before the slash has a name as well."""

        def func(a, b=2, /, c=3): ...

        assert captured_input(scene, func, 1) == {"a": 1, "b": 2, "c": 3}

    def test_a_keyword_with_the_name_of_a_positional_only_parameter_does_not_replace_it(self, scene):
        """Of `def f(a, /, **rest)` called as `f(1, a=2)` the parameter a is 1."""

        def func(a, /, **rest): ...

        assert captured_input(scene, func, 1, a=2)["a"] == 1

    def test_a_first_parameter_called_self_is_never_captured(self, scene):
        """A plain function's self or cls is an instance that was passed by hand, and is left out."""
        assert captured_input(scene, lambda self, x: None, object(), 1) == {"x": 1}

    @pytest.mark.parametrize(
        ("ignored", "expected"),
        [
            (["b"], {"a": 1, "rest": [3], "k": 5, "x": 6}),
            (["a", "k"], {"b": 2, "rest": [3], "x": 6}),
            (["rest"], {"a": 1, "b": 2, "k": 5, "x": 6}),
            (["x"], {"a": 1, "b": 2, "rest": [3], "k": 5}),
            (["others"], {"a": 1, "b": 2, "rest": [3], "k": 5}),
            (["no such name"], {"a": 1, "b": 2, "rest": [3], "k": 5, "x": 6}),
            (iter(["b", "a"]), {"rest": [3], "k": 5, "x": 6}),
        ],
        ids=["b", "a-k", "rest", "x", "others", "unknown", "iterator"],
    )
    def test_ignored_arguments_are_left_out(self, scene, ignored, expected):
        """ignore_arguments leaves parameters out by name: also *rest, **others as a whole, and single keywords."""

        def func(a, b, *rest, k=4, **others): ...

        om.observe(name="call", ignore_arguments=ignored)(func)(1, 2, 3, k=5, x=6)

        assert scene.record("call").input == expected

    def test_an_ignored_argument_is_never_looked_at(self, scene):
        """An ignored argument is not read at all."""
        poison = Poison()

        om.observe(name="call", ignore_arguments=["secret"])(lambda secret, x: None)(poison, 1)

        assert scene.record("call").input == {"x": 1}
        assert poison.looks == 0

    def test_process_input_turns_the_arguments_into_what_is_captured(self, scene):
        """process_input gets the arguments by name and its answer is the input."""
        om.observe(name="call", process_input=lambda given: f"{given['a']}+{given['b']}")(lambda a, b=2: None)(1)

        assert scene.record("call").input == "1+2"

    def test_process_input_gets_no_ignored_arguments(self, scene):
        """What is ignored is gone before process_input."""
        om.observe(name="call", ignore_arguments=["b"], process_input=sorted)(lambda a, b=2: None)(1)

        assert scene.record("call").input == ["a"]

    def test_process_input_may_change_its_mapping(self, scene):
        """The mapping is process_input's own: changing it does not change the call."""

        def strip(given):
            given.clear()
            return given

        assert om.observe(name="call", process_input=strip)(lambda **kwargs: kwargs)(a=1) == {"a": 1}

    def test_a_process_input_that_raises_leaves_its_type_only(self, scene):
        """If process_input raises, the call goes on and nothing of the arguments is kept."""

        def judge(given):
            raise ValueError("secret")

        assert om.observe(name="call", process_input=judge)(lambda a: a)("secret") == "secret"
        assert scene.record("call").input == "<process_input raised ValueError>"

    def test_input_is_captured_before_the_body_can_change_it(self, scene):
        """What the body does to its arguments is not in the input."""

        @om.observe(name="call")
        def call(items, options):
            items.append(2)
            options["b"] = items

        call([1], {"a": 1})

        assert scene.record("call").input == {"items": [1], "options": {"a": 1}}

    @pytest.mark.parametrize("kind", ["generator", "async generator"])
    def test_a_generators_input_is_captured_before_its_body_can_change_it(self, scene, kind):
        """The same for generators, whose body starts later than the call."""

        def plain(items):
            items.append(2)
            yield 1

        async def later(items):
            items.append(2)
            yield 1

        async def run(made):
            return [item async for item in made]

        observed = om.observe(name="call")(plain if kind == "generator" else later)
        list(observed([1])) if kind == "generator" else asyncio.run(run(observed([1])))

        assert scene.record("call").input == {"items": [1]}


class TestOutput:
    def test_the_result_is_captured(self, scene):
        """The result is the output."""
        om.observe(name="call")(lambda: {"a": [1, None]})()

        assert scene.record("call").output == {"a": [1, None]}

    @pytest.mark.parametrize("result", [None, 0, "", False, [], {}])
    def test_an_empty_result_is_a_value(self, scene, result):
        """A falsy result is captured as it is; None becomes null and not nothing."""
        om.observe(name="call")(lambda: result)()

        record = scene.record("call")
        assert (record.output, type(record.output)) == (result, type(result))
        assert "output.value" in scene.ended("call").attributes

    def test_the_result_is_the_same_object(self, scene):
        """What the caller gets is the very object that the body returned."""
        result = {"a": object()}

        assert om.observe(lambda: result)() is result

    def test_process_output_turns_the_result_into_what_is_captured(self, scene):
        """process_output changes what is captured, not what is returned."""
        assert om.observe(name="call", process_output=len)(lambda: "four")() == "four"
        assert scene.record("call").output == 4

    def test_a_process_output_that_raises_leaves_its_type_only(self, scene):
        """If process_output raises, the result is returned and nothing of it is kept."""
        assert om.observe(name="call", process_output=len)(lambda: 5)() == 5
        assert scene.record("call").output == "<process_output raised TypeError>"

    def test_an_update_inside_wins_over_the_captured_output(self, scene):
        """What the body says of its output stands."""

        @om.observe(name="call")
        def call():
            om.update_current_span(output="said")
            return "returned"

        call()

        assert scene.record("call").output == "said"
        assert scene.ended("call").attributes["output.value"] == "said"

    def test_an_update_inside_wins_over_the_captured_input(self, scene):
        """What the body says of its input stands, also null."""

        @om.observe(name="call")
        def call(question):
            om.update_current_span(input=None)

        call("why")

        assert scene.record("call").input is None
        assert (scene.ended("call").attributes["input.value"], scene.ended("call").attributes["input.mime_type"]) == (
            "null",
            "application/json",
        )

    def test_text_is_itself_with_its_mime_type(self, scene):
        """On the live span, an output that is a text is output.value as it is, and output.mime_type says so."""
        om.observe(name="call")(lambda: "plain")()

        attributes = scene.ended("call").attributes
        assert (attributes["output.value"], attributes["output.mime_type"]) == ("plain", "text/plain")

    def test_other_output_is_json_with_its_mime_type(self, scene):
        """On the live span, any other output is JSON text, and output.mime_type says so."""
        om.observe(name="call")(lambda: {"b": 1, "a": None})()

        attributes = scene.ended("call").attributes
        assert json.loads(attributes["output.value"]) == {"b": 1, "a": None}
        assert attributes["output.mime_type"] == "application/json"

    @pytest.mark.parametrize("room", [0, 1, 2, 3, 4])
    def test_captured_values_keep_to_the_budget(self, scene, use_settings, room):
        """Captured input and output take no more attributes than ours may be, never one without its mime type."""
        use_settings(max_attributes=room)

        om.observe(name="call")(lambda x: x)({"deep": 1})

        attributes = scene.ended("call").attributes
        assert len(attributes) <= room
        for name in ("input", "output"):
            assert (f"{name}.value" in attributes) == (f"{name}.mime_type" in attributes)
        assert (scene.record("call").input, scene.record("call").output) == ({"x": {"deep": 1}}, {"deep": 1})


def call_of(kind, **options):
    """Return an observed callable of a kind with a parameter `value`, run to its end."""

    def function(value):
        return value

    async def coroutine(value):
        return value

    def generator(value):
        yield value

    async def async_generator(value):
        yield value

    async def gathered(made):
        return [item async for item in made]

    func = {"function": function, "coroutine": coroutine, "generator": generator, "async generator": async_generator}
    observed = om.observe(name="call", **options)(func[kind])

    def complete(value):
        made = observed(value)
        if inspect.isasyncgen(made):
            return asyncio.run(gathered(made))[0]
        if inspect.iscoroutine(made):
            return asyncio.run(made)
        return next(iter(list(made))) if inspect.isgenerator(made) else made

    return complete


every_kind = pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])


@every_kind
class TestOff:
    def test_input_off_reads_no_argument(self, scene, kind):
        """capture_input=False captures and reads no argument; the output is captured."""
        poison = Poison()

        assert call_of(kind, capture_input=False, process_output=lambda _: "out")(poison) is poison
        assert poison.looks == 0
        assert scene.record("call").input is None
        assert scene.record("call").output == "out"

    def test_output_off_reads_no_result(self, scene, kind):
        """capture_output=False captures and reads no result; the input is captured."""
        poison = Poison()

        assert call_of(kind, capture_output=False, process_input=lambda _: "in")(poison) is poison
        assert poison.looks == 0
        assert (scene.record("call").input, scene.record("call").output) == ("in", None)

    def test_the_setting_turns_both_off(self, scene, use_settings, kind):
        """With the setting off neither is captured nor read."""
        use_settings(capture=False)
        poison = Poison()

        assert call_of(kind)(poison) is poison
        assert poison.looks == 0
        record = scene.record("call")
        assert (record.input, record.output) == (None, None)
        assert not [name for name in scene.ended("call").attributes if name.startswith(("input", "output"))]

    def test_the_decorator_stands_over_the_setting(self, scene, use_settings, kind):
        """capture_input=True and capture_output=True capture with the setting off."""
        use_settings(capture=False)

        call_of(kind, capture_input=True, capture_output=True)("text")

        record = scene.record("call")
        assert record.input == {"value": "text"}
        assert record.output in ("text", ["text"])

    def test_an_unsampled_call_reads_nothing(self, kind):
        """A call whose span is not recorded reads neither argument nor result, and calls no hook."""
        provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)

        def fail(_value):
            raise AssertionError("a hook was called for nothing")

        poison = Poison()
        options = {"tracer": provider.get_tracer("x"), "process_input": fail, "process_output": fail}

        assert call_of(kind, **options)(poison) is poison
        assert poison.looks == 0

    def test_a_recorded_but_unsampled_call_reads_nothing(self, kind):
        """A call whose span records but will never leave reads neither argument nor result, and stores nothing."""
        provider = TracerProvider(sampler=RecordOnly(), shutdown_on_exit=False)
        ended = []

        class Watch(SpanProcessor):
            def on_end(self, span):
                ended.append(dict(span.attributes))

        provider.add_span_processor(Watch())
        poison = Poison()

        assert call_of(kind, tracer=provider.get_tracer("x"))(poison) is poison
        assert poison.looks == 0
        assert ended == [{}]

    def test_an_unconfigured_call_reads_nothing(self, kind):
        """Without an SDK a call reads neither argument nor result."""
        poison = Poison()

        assert call_of(kind)(poison) is poison
        assert poison.looks == 0

    def test_a_captured_call_keeps_it(self, scene, kind):
        """The control: with capture on, the same argument is captured, as far as it may be without its own code."""
        poison = Poison()

        assert call_of(kind)(poison) is poison
        assert poison.looks == 0
        assert scene.record("call").input == {"value": "<Poison>"}


def test_an_unsampled_call_sets_no_options():
    """metadata= of an unsampled call is stored nowhere, and an update inside is refused as unsampled."""
    pipeline = InMemoryPipeline()
    tracer = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("x")
    receipts = []

    @om.observe(metadata={"a": 1}, tracer=tracer)
    def call():
        receipts.append(om.update_current_span(metadata={"b": 2}))

    call()
    pipeline.deliver()

    assert [(bool(receipt), receipt.reason) for receipt in receipts] == [(False, "unsampled")]
    assert pipeline.records() == []
    pipeline.close()


class TestTooMuch:
    """What of a captured value is missing is marked, and a log line says so: there is no receipt."""

    def lines(self, caplog):
        return [record.getMessage() for record in caplog.records if record.name == "otel_metadata"]

    def test_an_output_that_is_too_long(self, scene, caplog):
        """The line names the place, not the value."""
        om.observe(name="call")(lambda: {"rows": list(range(20_000))})()

        assert scene.record("call").output["rows"][-1].endswith(" more>")
        assert [line for line in self.lines(caplog) if "output" in line] == [
            "A captured output was too large: output.rows: cut: more than 10000 values, or 1048576 characters. "
            "The captured value shows where something is missing; capture less with process_output=."
        ]

    def test_an_input_that_is_too_long(self, scene, caplog):
        """The same for arguments; many such calls write one line."""
        call = om.observe(name="call", capture_output=False)(lambda text: None)
        for _ in range(3):
            call("x" * 300_000)

        assert len([line for line in self.lines(caplog) if "input.text: cut from 300000" in line]) == 1

    def test_items_of_a_generator_that_are_too_many(self, scene, caplog):
        """What was yielded and is missing is counted."""
        list(om.observe(name="call")(lambda: (one for one in range(2_667)))())

        assert scene.record("call").output[-1] == "<1,667 more>"
        assert len(self.lines(caplog)) == 1

    @pytest.mark.parametrize(
        ("process", "kept"),
        [
            (lambda items: "".join(item["t"] for item in items), "x" * 1_000 + " <500 more>"),
            (lambda items: [item["t"] for item in items], ["x"] * 1_000 + ["<500 more>"]),
            (lambda items: {"count": len(items)}, {"count": 1_000}),
            (lambda items: items[0]["missing"], "<process_output raised KeyError> <500 more>"),
        ],
        ids=["text", "list", "dict", "raises"],
    )
    def test_a_hook_gets_the_items_alone(self, scene, caplog, process, kept):
        """What it makes of the kept items is marked where it is a text or a list, and the log says it in any case."""

        @om.observe(process_output=process)
        def call():
            yield from ({"t": "x"} for _ in range(1_500))

        assert len(list(call())) == 1_500
        assert scene.record("call").output == kept
        assert self.lines(caplog) == ["A captured output was too large: output: cut, 500 yielded values are missing."]

    def test_a_hook_gets_texts_without_a_mark(self, scene):
        """The joined text that it gets is what was yielded; the mark comes after what it returns."""
        given = []

        @om.observe(process_output=lambda text: given.append(text) or "short")
        def call():
            yield "x" * 300_000
            yield "end"

        list(call())
        assert given == ["x" * 300_000]
        assert scene.record("call").output == "short <1 more>"

    def test_an_opaque_argument_writes_no_line(self, scene, caplog):
        """A handle is no loss that anybody has to hear of at every call."""
        om.observe(name="call")(lambda handle: None)(object())

        assert self.lines(caplog) == []


def test_capture_is_on_by_default():
    """Without any setting, input and output are captured."""
    assert live_settings.LiveSettings().capture


@pytest.mark.parametrize("text", ["Authorization: Bearer hunter2", "AUTHORIZATION: BASIC hunter2", "/x?token=hunter2"])
def test_a_secret_in_a_text_is_masked_on_every_way(scene, text):
    """As an argument by itself or inside another, and as the result."""

    @om.observe
    def echo(*given: object) -> object:
        return given[0]

    for given in (text, [text], {"a": {"b": text}}):
        echo(given)
    scene.deliver()
    assert "hunter2" not in repr(scene.pipeline.records())
