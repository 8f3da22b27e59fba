"""`observe` over the matrix of callable kinds: the result, what `inspect` says, the span."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import copy
import dataclasses
import functools
import inspect
import json
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import pytest
import typer
import wrapt
from click.testing import CliRunner
from opentelemetry import trace
from opentelemetry.trace import SpanKind

import otel_metadata as om
from otel_metadata.errors import ConfigurationError

ORDERS = ["above", "below"]


def function(x: int, y: int = 2) -> list[int]:
    """Add."""
    return [x, y]


async def coroutine(x: int, y: int = 2) -> list[int]:
    """Add later."""
    await asyncio.sleep(0)
    return [x, y]


def generator(x: int, y: int = 2) -> Iterator[int]:
    """Count."""
    yield x
    yield y


async def async_generator(x: int, y: int = 2) -> AsyncIterator[int]:
    """Count later."""
    yield x
    await asyncio.sleep(0)
    yield y


class Plain:
    def method(self, x: int, y: int = 2) -> list[int]:
        """Add."""
        return [x, y]

    @classmethod
    def class_method(cls, x: int, y: int = 2) -> list[int]:
        """Add."""
        return [x, y]

    @staticmethod
    def static_method(x: int, y: int = 2) -> list[int]:
        """Add."""
        return [x, y]

    async def coroutine_method(self, x: int, y: int = 2) -> list[int]:
        """Add later."""
        return [x, y]


class Called:
    def __call__(self, x: int, y: int = 2) -> list[int]:
        return [x, y]


class AsyncCalled:
    async def __call__(self, x: int, y: int = 2) -> list[int]:
        return [x, y]


class CalledGenerator:
    def __call__(self, x: int, y: int = 2) -> Iterator[int]:
        yield x
        yield y


def class_with(decorate: Callable[[Any], Any], builtin: type, order: str) -> type:
    """Return a class with a class or static method that is decorated above or below its decorator."""

    def plain(cls, x: int, y: int = 2) -> list[int]:
        """Add."""
        return [x, y]

    def static(x: int, y: int = 2) -> list[int]:
        """Add."""
        return [x, y]

    func = plain if builtin is classmethod else static
    func.__qualname__ = "Owner.member"
    func.__name__ = "member"
    return type("Owner", (), {"member": decorate(builtin(func)) if order == "above" else builtin(decorate(func))})


def kinds() -> dict[str, tuple[Callable[[], Any], str]]:
    """Return every kind of callable by name: a maker of the observed callable, and its span's name."""
    made: dict[str, tuple[Callable[[], Any], str]] = {
        "function": (lambda: om.observe(function), "function"),
        "function with parentheses": (lambda: om.observe()(function), "function"),
        "coroutine function": (lambda: om.observe(coroutine), "coroutine"),
        "generator function": (lambda: om.observe(generator), "generator"),
        "async generator function": (lambda: om.observe(async_generator), "async_generator"),
        "bound method": (lambda: om.observe(Plain().method), "Plain.method"),
        "bound class method": (lambda: om.observe(Plain.class_method), "Plain.class_method"),
        "bound coroutine method": (lambda: om.observe(Plain().coroutine_method), "Plain.coroutine_method"),
        "static method taken from its class": (lambda: om.observe(Plain.static_method), "Plain.static_method"),
        "callable object": (lambda: om.observe(Called()), "Called"),
        "async callable object": (lambda: om.observe(AsyncCalled()), "AsyncCalled"),
        "generator callable object": (lambda: om.observe(CalledGenerator()), "CalledGenerator"),
        "partial": (lambda: om.observe(functools.partial(function)), "function"),
        "partial of a coroutine function": (lambda: om.observe(functools.partial(coroutine)), "coroutine"),
        "partial of a generator function": (lambda: om.observe(functools.partial(generator)), "generator"),
        "lambda": (lambda: om.observe(lambda x, y=2: [x, y]), "<lambda>"),
        "nested function": (nested, "inner"),
        "function that wraps another": (wrapping, "function"),
    }
    for order in ORDERS:
        for builtin in (classmethod, staticmethod):
            for on in ("class", "instance"):

                def make(order: str = order, builtin: type = builtin, on: str = on) -> Any:
                    owner = class_with(om.observe, builtin, order)
                    return (owner if on == "class" else owner()).member

                made[f"{builtin.__name__} {order} observe, on the {on}"] = (make, "Owner.member")
    return made


def nested() -> Any:
    @om.observe
    def inner(x: int, y: int = 2) -> list[int]:
        return [x, y]

    return inner


def wrapping() -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return om.observe(wrapper)


KINDS = kinds()
every_kind = pytest.mark.parametrize("kind", KINDS)


async def _gathered(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def complete(result: Any) -> Any:
    """Run what a call returned to its end, whatever kind it is."""
    if inspect.isasyncgen(result):
        return asyncio.run(_gathered(result))
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    if inspect.isgenerator(result):
        return list(result)
    return result


class TestEveryKind:
    @every_kind
    def test_the_result_is_unchanged(self, scene, kind):
        """An observed callable of any kind returns what it returned before."""
        observed = KINDS[kind][0]()

        assert complete(observed(1)) == [1, 2]
        assert complete(observed(1, y=3)) == [1, 3]

    @every_kind
    def test_one_call_is_one_span_of_its_name(self, scene, kind):
        """A call of any kind makes exactly one span, named after what was called, with its class."""
        observed, name = KINDS[kind][0](), KINDS[kind][1]

        complete(observed(1))

        assert scene.names() == [name]

    @every_kind
    def test_arguments_and_result_are_captured(self, scene, kind):
        """A call of any kind captures its arguments by name with defaults, without self or cls, and its result."""
        observed, name = KINDS[kind][0](), KINDS[kind][1]

        complete(observed(1))

        record = scene.record(name)
        assert (record.input, record.output) == ({"x": 1, "y": 2}, [1, 2])

    @every_kind
    def test_the_span_is_a_child_of_the_callers(self, scene, kind):
        """The span of a call of any kind is the child of the span that is current where it is called."""
        observed, name = KINDS[kind][0](), KINDS[kind][1]

        with scene.tracer.start_as_current_span("caller"):
            complete(observed(1))

        assert scene.parent_name(name) == "caller"

    @every_kind
    def test_the_callers_span_is_current_again(self, scene, kind):
        """After a call of any kind the caller's span is the current one again."""
        observed = KINDS[kind][0]()

        with scene.tracer.start_as_current_span("caller") as caller:
            complete(observed(1))
            after = trace.get_current_span()

        assert after is caller


CODE_KINDS = {
    "function": function,
    "coroutine": coroutine,
    "generator": generator,
    "async generator": async_generator,
    "lambda": lambda x, y=2: [x, y],
    "method": Plain.method,
    "bound method": Plain().method,
    "class method": Plain.class_method,
    "coroutine method": Plain().coroutine_method,
    "partial": functools.partial(function, 1),
    "partial of a coroutine": functools.partial(coroutine, y=1),
    "callable object": Called(),
    "async callable object": AsyncCalled(),
    "builtin": len,
}
INSPECTED = [
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
    inspect.signature,
    inspect.getdoc,
    callable,
]


class TestWhatInspectSays:
    @pytest.mark.parametrize("asked", INSPECTED, ids=lambda asked: asked.__name__)
    @pytest.mark.parametrize("kind", CODE_KINDS)
    def test_inspect_says_the_same(self, kind, asked):
        """Kind, signature and doc of an observed callable are what `inspect` says of the callable itself."""
        assert asked(om.observe(CODE_KINDS[kind])) == asked(CODE_KINDS[kind])

    @pytest.mark.parametrize("attribute", ["__name__", "__qualname__", "__module__", "__doc__", "__annotations__"])
    @pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator", "lambda"])
    def test_name_and_doc_are_kept(self, kind, attribute):
        """The attributes that functools.wraps copies are those of the function itself."""
        assert getattr(om.observe(CODE_KINDS[kind]), attribute) == getattr(CODE_KINDS[kind], attribute)

    @pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
    def test_the_function_itself_is_reachable(self, kind):
        """`__wrapped__` and inspect.unwrap lead to the function itself."""
        observed = om.observe(CODE_KINDS[kind])

        assert observed.__wrapped__ is CODE_KINDS[kind]
        assert inspect.unwrap(observed) is CODE_KINDS[kind]

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("builtin", [classmethod, staticmethod], ids=lambda builtin: builtin.__name__)
    @pytest.mark.parametrize("on", ["class", "instance"])
    def test_the_signature_of_a_bound_member_is_the_same(self, on, builtin, order):
        """A class or static method has the same signature observed and not, on its class and on an instance."""
        observed, bare = class_with(om.observe, builtin, order), class_with(lambda func: func, builtin, order)
        if on == "instance":
            observed, bare = observed(), bare()

        assert inspect.signature(observed.member) == inspect.signature(bare.member)

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("builtin", [classmethod, staticmethod], ids=lambda builtin: builtin.__name__)
    def test_a_coroutine_member_stays_a_coroutine_function(self, builtin, order):
        """An async class or static method is a coroutine function on class and instance, in either decorator order."""

        async def body(*args: Any) -> None: ...

        member = om.observe(builtin(body)) if order == "above" else builtin(om.observe(body))
        owner = type("Owner", (), {"member": member})

        assert inspect.iscoroutinefunction(owner.member)
        assert inspect.iscoroutinefunction(owner().member)

    def test_asyncio_sees_the_kind(self):
        """asyncio's own question answers as inspect's does."""
        assert asyncio.iscoroutinefunction(om.observe(coroutine))
        assert not asyncio.iscoroutinefunction(om.observe(function))

    @pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
    def test_a_wrapper_around_it_is_seen_through(self, kind):
        """A functools.wraps wrapper around an observed function keeps signature and name, as web frameworks need."""
        observed = om.observe(CODE_KINDS[kind])

        @functools.wraps(observed)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return observed(*args, **kwargs)

        assert inspect.signature(wrapper) == inspect.signature(CODE_KINDS[kind])
        assert wrapper.__name__ == CODE_KINDS[kind].__name__
        assert inspect.unwrap(wrapper) is CODE_KINDS[kind]

    @pytest.mark.parametrize("kind", ["coroutine", "generator", "async generator"])
    def test_a_partial_of_it_keeps_its_kind(self, kind):
        """A partial of an observed function is of the kind that a partial of the function is (Starlette looks so)."""
        observed, bare = (functools.partial(func, 1) for func in (om.observe(CODE_KINDS[kind]), CODE_KINDS[kind]))

        for asked in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            assert asked(observed) == asked(bare)

    @pytest.mark.parametrize("asked", INSPECTED[:3], ids=lambda asked: asked.__name__)
    @pytest.mark.parametrize("made", [Called, AsyncCalled, CalledGenerator], ids=lambda made: made.__name__)
    def test_the_call_method_of_a_callable_object_is_of_the_same_kind(self, made, asked):
        """A framework that asks for the kind of `__call__` (Starlette, FastAPI) is told the same as without us."""
        assert asked(om.observe(made()).__call__) == asked(made().__call__)

    def test_type_hints_can_be_resolved(self):
        """typing.get_type_hints gives the hints of the function, as FastAPI and pydantic need."""
        assert typing.get_type_hints(om.observe(coroutine)) == typing.get_type_hints(coroutine)

    def test_an_observed_function_can_be_copied(self):
        """copy.deepcopy of something that holds an observed function works, as it does with the function itself."""
        held = {"func": om.observe(function)}

        assert copy.deepcopy(held)["func"](1) == [1, 2]
        assert copy.copy(held["func"])(1) == [1, 2]

    @pytest.mark.parametrize("order", ORDERS)
    def test_an_abstract_method_stays_abstract(self, order):
        """A class with an observed abstract method cannot be made."""

        def method(self) -> None: ...

        decorated = (
            om.observe(abc.abstractmethod(method)) if order == "above" else abc.abstractmethod(om.observe(method))
        )
        owner = abc.ABCMeta("Owner", (), {"method": decorated})

        with pytest.raises(TypeError, match="abstract"):
            owner()

    def test_the_returned_objects_are_of_the_right_kind(self, scene):
        """Generators and coroutines that come back are real ones."""
        assert inspect.isgenerator(om.observe(generator)(1))
        assert inspect.isasyncgen(om.observe(async_generator)(1))
        returned = om.observe(coroutine)(1)
        assert inspect.iscoroutine(returned)
        returned.close()

    def test_an_attribute_set_on_it_can_be_read(self):
        """A function attribute set through the observed function is there, as on any function."""

        @om.observe
        def func() -> None: ...

        func.ref = 5

        assert func.ref == 5
        assert inspect.unwrap(func).ref == 5


class TestMethods:
    def test_an_instance_method_is_called_with_its_instance(self, scene):
        """An observed method gets its own self."""

        class Owner:
            @om.observe
            def itself(self) -> Any:
                return self

        owner = Owner()

        assert owner.itself() is owner
        assert Owner.itself(owner) is owner

    @pytest.mark.parametrize("order", ORDERS)
    def test_a_class_method_is_called_with_the_class_it_was_looked_up_on(self, scene, order):
        """An observed class method gets the subclass when called on one."""

        def member(cls) -> type:
            return cls

        observed = om.observe(classmethod(member)) if order == "above" else classmethod(om.observe(member))
        owner = type("Owner", (), {"member": observed})
        child = type("Child", (owner,), {})

        assert (owner.member(), child.member(), child().member()) == (owner, child, child)

    def test_self_is_never_captured(self, scene):
        """Neither a bound call nor one through the class captures self."""

        class Owner:
            @om.observe
            def method(self, x: int) -> None: ...

        Owner().method(1)
        Owner.method(Owner(), 2)
        scene.deliver()

        assert sorted(record.input["x"] for record in scene.pipeline.records()) == [1, 2]
        assert all(set(record.input) == {"x"} for record in scene.pipeline.records())

    def test_self_of_another_name_is_not_captured(self, scene):
        """The instance is left out by position when the method was bound, whatever its parameter is called."""

        class Owner:
            @om.observe
            def method(this, x: int) -> None: ...  # noqa: N805

        Owner().method(1)

        assert scene.record("Owner.method").input == {"x": 1}

    def test_an_override_that_calls_super_makes_two_spans(self, scene):
        """A subclass's observed method and its base's are parent and child."""

        class Base:
            @om.observe(name="base")
            def run(self) -> list[str]:
                return ["base"]

        class Child(Base):
            @om.observe(name="child")
            def run(self) -> list[str]:
                return ["child", *super().run()]

        assert Child().run() == ["child", "base"]
        assert scene.parent_name("base") == "child"

    def test_a_dunder_call_can_be_observed(self, scene):
        """A decorated `__call__` is used by calling the instance."""

        class Owner:
            @om.observe
            def __call__(self, x: int) -> int:
                return x

        assert Owner()(3) == 3
        assert scene.record("Owner.__call__").input == {"x": 3}

    def test_a_dataclass_method_is_observed(self, scene):
        """Methods of dataclasses, also frozen and slotted ones, are observed like others."""

        @dataclass(frozen=True, slots=True)
        class Point:
            x: int

            @om.observe
            def shifted(self, by: int) -> int:
                return self.x + by

        assert Point(1).shifted(2) == 3
        assert scene.record("Point.shifted").input == {"by": 2}

    def test_a_builtin_is_observed(self, scene):
        """A function written in C is observed, and captured by the names of its signature."""
        assert om.observe(len)([1]) == 1
        assert scene.record("len").input == {"obj": [1]}

    def test_a_builtin_without_a_signature_is_observed(self, scene):
        """A function whose signature nobody knows is captured as args."""
        assert om.observe(max)(1, 2) == 2
        assert scene.record("max").input == {"args": [1, 2]}

    def test_a_bound_method_of_a_builtin_is_observed(self, scene):
        """A C method that is bound already is observed."""
        items: list[int] = []

        om.observe(items.append)(5)

        assert items == [5]
        assert scene.record("list.append").input == {"object": 5}

    def test_decorated_twice_makes_two_spans(self, scene):
        """Each decoration is a span of its own: nothing is guessed."""
        both = om.observe(name="outer")(om.observe(name="inner")(function))

        assert both(1) == [1, 2]
        assert scene.parent_name("inner") == "outer"

    def test_functools_cache_above_and_below_work(self, scene):
        """A cache above skips the span of a hit; a cache below does not, and its methods stay reachable."""
        above = functools.cache(om.observe(name="above")(lambda x: x))
        below = om.observe(name="below")(functools.cache(lambda x: x))

        assert [above(1), above(1), below(1), below(1)] == [1, 1, 1, 1]
        assert sorted(scene.names()) == ["above", "below", "below"]
        assert below.cache_info().hits == 1

    def test_a_partial_method_is_observed(self, scene):
        """functools.partialmethod over an observed method binds as usual."""

        class Owner:
            @om.observe
            def add(self, x: int, y: int) -> int:
                return x + y

            add_one = functools.partialmethod(add, 1)

        assert Owner().add_one(2) == 3
        assert scene.record("Owner.add").input == {"x": 1, "y": 2}


class TestPartials:
    def test_positions_that_a_partial_has_filled_are_captured_under_their_own_names(self, scene):
        """What a partial was given goes by its parameter's name, and so does what the call gives after it."""
        assert om.observe(functools.partial(function, 7))(8) == [7, 8]

        assert scene.record("function").input == {"x": 7, "y": 8}

    def test_keywords_that_a_partial_has_filled_are_captured(self, scene):
        """A keyword that a partial was given is captured like a default."""
        assert om.observe(functools.partial(function, y=9))(8) == [8, 9]

        assert scene.record("function").input == {"x": 8, "y": 9}

    def test_a_keyword_of_a_partial_can_be_overridden(self, scene):
        """The call's keyword wins over the partial's."""
        assert om.observe(functools.partial(function, y=9))(8, y=1) == [8, 1]

        assert scene.record("function").input == {"x": 8, "y": 1}

    def test_a_partial_of_a_bound_method_is_captured_without_self(self, scene):
        """A partial of a bound method has neither self nor a shifted name."""
        assert om.observe(functools.partial(Plain().method, 7))(8) == [7, 8]

        assert scene.record("Plain.method").input == {"x": 7, "y": 8}


class TestClasses:
    def test_every_public_method_of_its_own_is_observed(self, scene):
        """On a class each public method, class method and static method is observed; the class is the same object."""

        class Owner:
            def method(self) -> str:
                return "method"

            @classmethod
            def class_method(cls) -> str:
                return "class method"

            @staticmethod
            def static_method() -> str:
                return "static method"

            async def coroutine(self) -> str:
                return "coroutine"

        assert om.observe(Owner) is Owner
        owner = Owner()
        results = [owner.method(), owner.class_method(), owner.static_method(), asyncio.run(owner.coroutine())]

        assert results == ["method", "class method", "static method", "coroutine"]
        assert [name.rpartition(".")[2] for name in scene.names()] == [
            "method",
            "class_method",
            "static_method",
            "coroutine",
        ]

    def test_private_and_magic_methods_are_left_alone(self, scene):
        """Names with a leading underscore, `__init__` among them, make no spans."""

        @om.observe
        class Owner:
            def __init__(self) -> None:
                self.value = self._private() + self.__mangled()

            def _private(self) -> int:
                return 1

            def __mangled(self) -> int:
                return 2

            def __len__(self) -> int:
                return self.value

        assert len(Owner()) == 3
        assert scene.names() == []

    def test_properties_and_values_are_left_alone(self, scene):
        """Properties, cached properties, nested classes and callable values of a class are as they were."""

        @om.observe
        class Owner:
            builtin = len

            @property
            def size(self) -> int:
                return 1

            @functools.cached_property
            def cached(self) -> int:
                return 2

            class Nested:
                def method(self) -> int:
                    return 3

        assert (Owner().size, Owner().cached, Owner.Nested().method(), Owner.builtin is len) == (1, 2, 3, True)
        assert scene.names() == []

    def test_inherited_methods_are_left_alone(self, scene):
        """Only the class's own methods are observed: its base stays as it is."""

        class Base:
            def inherited(self) -> int:
                return 1

        @om.observe
        class Child(Base):
            def own(self) -> int:
                return 2

        assert (Child().inherited(), Base().inherited(), Child().own()) == (1, 1, 2)
        assert scene.names() == ["Child.own"]

    def test_an_override_in_a_subclass_is_left_alone(self, scene):
        """A subclass's own override is not observed, but the base's method is when super calls it."""

        @om.observe
        class Base:
            def run(self) -> list[str]:
                return ["base"]

        class Child(Base):
            def run(self) -> list[str]:
                return ["child", *super().run()]

        assert Child().run() == ["child", "base"]
        assert scene.names() == ["Base.run"]

    def test_a_dataclass_is_observed(self, scene):
        """A dataclass stays one, in either decorator order."""

        @om.observe
        @dataclass
        class Above:
            x: int

            def double(self) -> int:
                return 2 * self.x

        @dataclass
        @om.observe
        class Below:
            x: int

            def double(self) -> int:
                return 2 * self.x

        assert (Above(2).double(), Below(3).double()) == (4, 6)
        assert dataclasses.asdict(Above(2)) == {"x": 2}
        assert Above(2) == Above(2)
        assert scene.names() == ["Above.double", "Below.double"]

    def test_options_hold_for_every_method(self, scene):
        """With parentheses, the options of a class are those of each method."""

        @om.observe(capture_input=False, metadata={"team": "a"})
        class Owner:
            def one(self, x: int) -> int:
                return x

            def two(self, x: int) -> int:
                return x

        Owner().one(1)
        Owner().two(2)
        scene.deliver()

        assert [(record.input, record.metadata) for record in scene.pipeline.records()] == [(None, {"team": "a"})] * 2

    def test_a_method_that_is_observed_already_makes_one_span(self, scene):
        """A method with an `observe` of its own keeps it, and its options: the class adds no second span."""

        @om.observe
        class Owner:
            @om.observe(name="its own")
            def method(self) -> None: ...

        Owner().method()

        assert scene.names() == ["its own"]


def helper(self: object = None) -> str:
    return "helper"


def kept(func: Any) -> Any:
    """Decorate in the usual way."""

    @functools.wraps(func)
    def wrapper(*args: Any) -> Any:
        return func(*args)

    return wrapper


class TestOwnMethods:
    """Of a class, what is written in it as a method is observed, and nothing else."""

    def test_functions_that_were_assigned_are_left_alone(self):
        """Imported helpers, callbacks, lambdas and methods of other classes are values of the class."""

        @om.observe
        class Owner:
            helper = helper
            static = staticmethod(helper)
            of_class = classmethod(helper)
            key = lambda self: 1  # noqa: E731 # as applications write it
            dumps = json.dumps
            borrowed = Plain.method

            def own(self) -> str:
                return "own"

        plain = vars(Owner)
        assert plain["helper"] is helper
        assert plain["static"].__func__ is helper
        assert plain["of_class"].__func__ is helper
        assert plain["dumps"] is json.dumps
        assert plain["borrowed"] is vars(Plain)["method"]
        assert inspect.isfunction(plain["key"])
        assert type(plain["key"]) is type(helper)
        assert type(plain["own"]) is not type(helper)

    def test_generated_methods_are_left_alone(self):
        """What a dataclass, a named tuple or an enumeration generates is not observed; what is written in it is."""

        @om.observe
        @dataclass(order=True)
        class Point:
            x: int = 0
            callback: Callable[..., Any] = helper

            def own(self) -> int:
                return self.x

        @om.observe
        class Pair(typing.NamedTuple):
            x: int = 0

            def own(self) -> int:
                return self.x

        for cls in (Point, Pair):
            observed = {name for name, member in vars(cls).items() if isinstance(member, wrapt.FunctionWrapper)}
            assert observed == {"own"}

    def test_a_decorated_method_is_own(self, scene):
        """A method under a decorator that uses functools.wraps is observed; an observed one under it only once."""

        @om.observe
        class Owner:
            @kept
            def above(self) -> int:
                return 1

            @kept
            @om.observe(name="once")
            def below(self) -> int:
                return 2

        assert (Owner().above(), Owner().below()) == (1, 2)
        assert [name.rpartition(".")[2] for name in scene.names()] == ["above", "once"]

    def test_a_method_with_two_names_is_one_object(self, scene):
        """An alias in the class stays an alias."""

        @om.observe
        class Owner:
            def get(self) -> int:
                return 1

            fetch = get

        assert vars(Owner)["fetch"] is vars(Owner)["get"]
        assert Owner().fetch() == 1
        assert len(scene.names()) == 1


class TestOrders:
    """Decorators of others: above works, or is refused where it is written."""

    @pytest.mark.parametrize("decorate", [om.observe, om.using_metadata({"a": 1})], ids=["observe", "using_metadata"])
    @pytest.mark.parametrize(
        ("make", "below"),
        [
            (property, "property"),
            (functools.cached_property, "cached_property"),
            (functools.singledispatchmethod, "singledispatchmethod"),
            (functools.partialmethod, "partialmethod"),
            (pytest.fixture, "pytest"),
            (click.command(), "click"),
            (click.group(), "click"),
        ],
        ids=["property", "cached_property", "singledispatchmethod", "partialmethod", "fixture", "command", "group"],
    )
    def test_an_object_that_calls_the_function_behind_our_back_is_refused(self, decorate, make, below):
        """The message says which order works."""

        def func(self: object = None) -> None: ...

        with pytest.raises(ConfigurationError, match=rf"directly above `def`, below .*{below}"):
            decorate(make(func))

    def test_the_right_order_works(self, scene):
        """Below a command, a dispatcher and a cache, the function is observed."""

        @click.command()
        @click.option("--number", type=int)
        @om.observe(name="command")
        def command(number: int) -> None:
            click.echo(number)

        assert CliRunner().invoke(command, ["--number", "3"]).output == "3\n"
        app = typer.Typer()

        @app.command()
        @om.observe(name="typer")
        def typed(number: int) -> None:
            typer.echo(number)

        assert CliRunner().invoke(typer.main.get_command(app), ["4"]).output == "4\n"
        assert scene.record("command").input == {"number": 3}
        assert scene.record("typer").input == {"number": 4}

    def test_a_dispatcher_is_observed_above_its_decorator(self, scene):
        """`singledispatch` above or below: calls are observed, and implementations can be registered."""

        @om.observe(name="dispatch")
        @functools.singledispatch
        def dispatch(value: object) -> str:
            return "object"

        dispatch.register(int)(lambda value: "int")
        assert (dispatch(1), dispatch("a")) == ("int", "object")
        assert scene.names() == ["dispatch"] * 2

    def test_a_cache_is_observed_above_its_decorator(self, scene):
        """`lru_cache` below: each call is a span, also one that the cache answers; its methods are there."""

        @om.observe(name="cached")
        @functools.lru_cache
        def cached(value: int) -> int:
            return value

        assert [cached(1), cached(1)] == [1, 1]
        assert cached.cache_info().hits == 1
        assert scene.names() == ["cached"] * 2


class TestOptions:
    def test_the_name_can_be_given(self, scene):
        """name= is the span's name."""
        om.observe(name="other")(function)(1)

        assert scene.names() == ["other"]

    def test_metadata_and_tags_are_on_every_span(self, scene):
        """metadata= and tags= are set on each span."""
        observed = om.observe(metadata={"team": "a", "note": None}, tags=["x", "y"])(function)

        observed(1)
        observed(2)
        scene.deliver()

        assert [(one.metadata, one.tags) for one in scene.pipeline.records()] == [
            ({"team": "a", "note": None}, ("x", "y"))
        ] * 2

    def test_an_update_inside_wins_over_the_options(self, scene):
        """What the body says of a key of metadata= stands."""

        @om.observe(metadata={"step": 0, "team": "a"})
        def body() -> None:
            om.update_current_span(metadata={"step": 1})

        body()

        assert scene.record("body").metadata == {"step": 1, "team": "a"}

    @pytest.mark.parametrize(
        ("as_type", "kind"),
        [
            ("llm", "LLM"),
            ("generation", "LLM"),
            ("chain", "CHAIN"),
            ("tool", "TOOL"),
            ("Agent", "AGENT"),
            ("retriever", "RETRIEVER"),
            ("embedding", "EMBEDDING"),
            ("reranker", "RERANKER"),
            ("guardrail", "GUARDRAIL"),
            ("evaluator", "EVALUATOR"),
            ("span", None),
            (None, None),
        ],
    )
    def test_as_type_is_the_openinference_kind(self, scene, as_type, kind):
        """as_type= is written as openinference.span.kind, from the start of the span."""
        om.observe(as_type=as_type)(function)(1)

        assert scene.ended("function").attributes.get("openinference.span.kind") == kind

    def test_the_kind_is_opentelemetrys(self, scene):
        """kind= is the span's kind, INTERNAL without it."""
        om.observe(kind=SpanKind.CLIENT)(function)(1)
        om.observe(name="usual")(function)(1)

        assert (scene.ended("function").kind, scene.ended("usual").kind) == (SpanKind.CLIENT, SpanKind.INTERNAL)

    def test_the_tracer_can_be_given(self, scene):
        """tracer= opens the spans."""
        om.observe(tracer=scene.tracer)(function)(1)

        assert scene.ended("function").instrumentation_scope.name == "application"

    def test_the_scope_is_ours_otherwise(self, scene):
        """Without tracer= the scope is otel_metadata."""
        om.observe(function)(1)

        assert scene.ended("function").instrumentation_scope.name == "otel_metadata"

    def test_the_current_span_inside_is_its_own(self, scene):
        """Inside the function the current span is the function's: updates and refs are of it."""

        @om.observe
        def body() -> om.SpanRef:
            om.update_current_span(metadata={"inside": True})
            return om.current_span_ref()

        ref = body()

        record = scene.record("body")
        assert (record.span_id, record.metadata) == (ref.span_id_hex, {"inside": True})


MISUSE = {
    "a number": lambda: om.observe(5),
    "a text": lambda: om.observe("name"),
    "a property": lambda: om.observe(property(lambda self: 1)),
    "an unknown type": lambda: om.observe(as_type="bogus"),
    "a type that is no text": lambda: om.observe(as_type=5),
    "ignore_arguments as one text": lambda: om.observe(ignore_arguments="password"),
    "ignore_arguments that is no list": lambda: om.observe(ignore_arguments=5),
    "process_input that cannot be called": lambda: om.observe(process_input=5),
    "process_output that cannot be called": lambda: om.observe(process_output="strip"),
    "a name that is no text": lambda: om.observe(name=5),
    "metadata that is no mapping": lambda: om.observe(metadata=5),
    "a kind that is no SpanKind": lambda: om.observe(kind="client"),
    "a kind that is None": lambda: om.observe(kind=None),
    "a tracer that is none": lambda: om.observe(tracer=5),
    "tags that are none": lambda: om.observe(tags=5),
    "capture_input that is no bool": lambda: om.observe(capture_input="no"),
    "capture_output that is no bool": lambda: om.observe(capture_output=0),
}


class Methods:
    """A class whose methods have different parameters."""

    def first(self, question): ...

    @classmethod
    def second(cls, password): ...

    @staticmethod
    def third(*, token): ...

    @contextlib.contextmanager
    def fourth(self, key):
        yield


class CallableWithPassword:
    """A callable object."""

    def __call__(self, password): ...


def takes_password(question, password): ...


@functools.wraps(takes_password)
def wraps_it(*args, **kwargs): ...


@contextlib.contextmanager
def manages(password):
    yield


# What has no parameter of the name that is to be ignored, and what the error says of it.
UNKNOWN_NAMES = {
    "a function": (takes_password, "did you mean 'password'"),
    "a function that wraps another": (wraps_it, "did you mean 'password'"),
    "a partial": (functools.partial(takes_password, 1), "did you mean 'password'"),
    "a class method": (classmethod(takes_password), "did you mean 'password'"),
    "a static method": (staticmethod(takes_password), "did you mean 'password'"),
    "a callable object": (CallableWithPassword(), "did you mean 'password'"),
    "a context manager": (manages, "did you mean 'password'"),
    "a class": (Methods, "did you mean 'password'"),
    "a function of other names": (lambda x, y: None, "x, y"),
    "a function without parameters": (lambda: None, "it has none"),
}


class TestMisuse:
    @pytest.mark.parametrize("case", MISUSE)
    def test_misuse_raises_at_decoration_and_says_what_is_expected(self, case):
        """What can never work raises ConfigurationError where it is written, and names what is expected."""
        with pytest.raises(ConfigurationError, match="expected"):
            MISUSE[case]()

    @pytest.mark.parametrize("case", UNKNOWN_NAMES)
    def test_a_name_to_ignore_that_no_call_can_have_raises_at_decoration(self, case):
        """A typo would let the value be captured that was to be kept private."""
        func, remedy = UNKNOWN_NAMES[case]

        with pytest.raises(ConfigurationError) as caught:
            om.observe(ignore_arguments=["pasword"])(func)

        assert str(caught.value).startswith("observe(ignore_arguments=) is 'pasword'; expected a parameter of ")
        assert remedy in str(caught.value)

    @pytest.mark.parametrize(
        ("func", "names"),
        [
            (lambda a, **others: None, ["anything"]),
            (lambda *rest: None, ["rest"]),
            (takes_password, iter(["password"])),
            (max, ["anything"]),
            (functools.partial(takes_password, question=1), ["question"]),
            (Methods().first, ["question"]),
            (Methods.first, ["self"]),
        ],
        ids=["any keyword", "the rest", "an iterator", "a built-in", "a partial", "a bound method", "self"],
    )
    def test_a_name_that_a_call_can_have_may_be_ignored(self, func, names):
        """What takes any keyword has every name."""
        om.observe(ignore_arguments=names)(func)

    def test_a_class_needs_the_name_in_one_of_its_methods(self, scene):
        """A name that one method has is ignored there."""

        @om.observe(ignore_arguments=["password", "token"])
        class Service:
            def ask(self, question): ...

            @classmethod
            def open(cls, password): ...

            @staticmethod
            def renew(*, token): ...

        Service().ask("why")
        Service.open("hunter2")
        Service.renew(token="abc")

        assert [scene.record(f"Service.{name}").input for name in ("ask", "open", "renew")] == [
            {"question": "why"},
            {},
            {},
        ]

    def test_an_unknown_keyword_is_a_type_error(self):
        """A misspelt option is Python's own error."""
        with pytest.raises(TypeError, match="capture_inputs"):
            om.observe(capture_inputs=False)

    def test_a_wrong_call_raises_pythons_own_error(self, scene):
        """A call that does not fit the signature raises the TypeError that it raised before."""
        with pytest.raises(TypeError) as bare:
            function()
        with pytest.raises(TypeError) as observed:
            om.observe(function)()

        assert str(observed.value) == str(bare.value)


class TestWithoutSdk:
    @every_kind
    def test_an_unconfigured_call_works(self, kind):
        """Without any SDK a call of any kind returns what it returned before."""
        assert complete(KINDS[kind][0]()(1)) == [1, 2]
