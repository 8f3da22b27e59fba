"""Values of other libraries: data keeps its fields, handles are opaque, no query is made, no credential leaves.

Run by `make test-backends`, in an environment that has them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp.test_utils
import attrs
import django
import flask
import httpx
import msgspec
import multidict
import peewee
import pytest
import requests
import sqlalchemy as sa
import sqlmodel
import starlette.datastructures
import starlette.requests
from django.conf import settings
from django.db import models
from django.http import HttpRequest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from sqlalchemy import orm

import otel_metadata as om
from otel_metadata.testing import InMemoryPipeline

SECRET = "s3cr3t"


@pytest.fixture
def kept() -> Iterator[Callable[[object], Any]]:
    """Return what an observed function keeps of its result."""
    pipeline = InMemoryPipeline()

    def capture(value: object) -> Any:
        om.observe(name="call")(lambda: value)()
        pipeline.deliver()
        return pipeline.records()[0].output

    yield capture
    pipeline.close()


@attrs.define
class Slotted:
    city: str
    size: int = 5


@attrs.frozen(slots=False)
class Plain:
    city: str


class Struct(msgspec.Struct):
    city: str
    password: str


class Base(orm.DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]

    def to_dict(self) -> Any:
        raise AssertionError("code of the application ran")


class DataBase(orm.MappedAsDataclass, orm.DeclarativeBase):
    pass


class Owner(DataBase):
    __tablename__ = "owners"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, init=False)
    name: orm.Mapped[str] = orm.mapped_column(default="never")


class Hero(sqlmodel.SQLModel, table=True):
    id: int | None = sqlmodel.Field(default=None, primary_key=True)
    name: str


@pytest.fixture
def session() -> Iterator[orm.Session]:
    """A session on a database in memory; `session.info["sql"]` lists what it is asked."""
    engine = sa.create_engine("sqlite://")
    for base in (Base, DataBase, sqlmodel.SQLModel):
        base.metadata.create_all(engine)
    said: list[str] = []
    with orm.Session(engine, info={"sql": said}) as opened:
        sa.event.listen(engine, "before_cursor_execute", lambda *given: said.append(given[2]))
        yield opened
    engine.dispose()


@pytest.mark.parametrize("make", [lambda: User(name="A"), lambda: Owner(name="A"), lambda: Hero(name="A")])
class TestOrm:
    def test_what_is_not_loaded_is_not_asked_for(self, kept, session, make) -> None:
        """After a commit all attributes are expired: no query, no transaction."""
        record = make()
        session.add(record)
        session.commit()
        session.info["sql"].clear()

        assert kept(record) == f"<{type(record).__name__}>"
        assert session.info["sql"] == []
        assert not session.in_transaction()

    def test_what_is_loaded_is_kept(self, kept, session, make) -> None:
        """Columns by name, without the state of the ORM."""
        session.add(make())
        session.commit()
        record = session.scalars(sa.select(type(make()))).one()
        session.info["sql"].clear()

        assert kept([record]) == [{"id": 1, "name": "A"}]
        assert session.info["sql"] == []


def test_rows_keep_their_columns(kept, session) -> None:
    """Rows and mappings of a result are data; the result itself is not consumed."""
    rows = session.execute(sa.text("SELECT 1 AS a, 'x' AS b"))

    assert kept(rows) == "<CursorResult>"
    assert kept(rows.all()) == [{"a": 1, "b": "x"}]
    assert kept(session.execute(sa.text("SELECT 1 AS a")).mappings().all()) == [{"a": 1}]


DATA: dict[str, tuple[Callable[[], object], object]] = {
    "attrs with slots": (lambda: Slotted("Oslo"), {"city": "Oslo", "size": 5}),
    "attrs": (lambda: Plain("Oslo"), {"city": "Oslo"}),
    "msgspec": (lambda: Struct("Oslo", SECRET), {"city": "Oslo", "password": "<masked>"}),
    "a document of LangChain": (
        lambda: Document("text", metadata={"a": 1}),
        {"id": None, "metadata": {"a": 1}, "page_content": "text", "type": "Document"},
    ),
}


@pytest.mark.parametrize("name", DATA)
def test_data_keeps_its_fields(kept, name: str) -> None:
    """What is data by its class becomes a dict."""
    make, expected = DATA[name]

    assert kept(make()) == expected


def test_a_message_of_langchain_keeps_its_content(kept) -> None:
    """A model with many fields, some of them computed."""
    assert kept(AIMessage("hi"))["content"] == "hi"


def _django() -> HttpRequest:
    if not settings.configured:
        settings.configure()
    django.setup()
    request = HttpRequest()
    request.META["HTTP_AUTHORIZATION"] = SECRET
    request.COOKIES["sessionid"] = SECRET
    return request


@functools.cache
def _django_model() -> Any:
    _django()
    attributes = {"__module__": __name__, "name": models.TextField(), "Meta": type("Meta", (), {"app_label": "app"})}
    return type("Author", (models.Model,), attributes)


def _flask() -> Any:
    app = flask.Flask("app")
    with app.test_request_context(headers={"Authorization": SECRET, "Cookie": f"a={SECRET}"}):
        return flask.request._get_current_object()  # type: ignore[attr-defined]


_SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "query_string": b"",
    "headers": [(b"authorization", SECRET.encode()), (b"cookie", f"a={SECRET}".encode())],
}


class Author(peewee.Model):
    name = peewee.CharField()


HANDLES: dict[str, Callable[[], object]] = {
    "a request of Starlette": lambda: starlette.requests.Request(_SCOPE),
    "headers of Starlette": lambda: starlette.datastructures.Headers({"authorization": SECRET}),
    "a request of Flask": _flask,
    "headers of Flask": lambda: _flask().headers,
    "the current request of Flask": lambda: flask.request,
    "a request of Django": _django,
    "a record of Django": lambda: _django_model()(name="A"),
    "a query of Django": lambda: _django_model().objects.all(),
    "a record of peewee": lambda: Author(name="A"),
    "a request of aiohttp": lambda: aiohttp.test_utils.make_mocked_request("GET", "/", {"Authorization": SECRET}),
    "headers of aiohttp": lambda: multidict.CIMultiDict(authorization=SECRET),
    "a request of httpx": lambda: httpx.Request("GET", "http://x", headers={"authorization": SECRET}),
    "a response of httpx": lambda: httpx.Response(200, headers={"set-cookie": SECRET}),
    "headers of httpx": lambda: httpx.Headers({"authorization": SECRET}),
    "a client of httpx": lambda: httpx.Client(auth=("u", SECRET)),
    "cookies of httpx": lambda: httpx.Cookies({"a": SECRET}),
    "a request of requests": lambda: requests.Request("GET", "http://x", auth=("u", SECRET)).prepare(),
    "a session of requests": requests.Session,
    "headers of requests": lambda: requests.structures.CaseInsensitiveDict(Authorization=SECRET),
    "cookies of requests": lambda: requests.cookies.cookiejar_from_dict({"a": SECRET}),
    "an engine of SQLAlchemy": lambda: sa.create_engine(f"sqlite:///{SECRET}"),
    "a session of SQLAlchemy": orm.Session,
}


@pytest.mark.parametrize("name", HANDLES)
def test_a_handle_is_opaque(kept, name: str) -> None:
    """It becomes a short text, and its headers, cookies and keys are nowhere."""
    value = HANDLES[name]()

    assert kept([value]) == [f"<{type(value).__name__}>"]


def test_credentials_of_a_scope_and_of_a_url_are_masked(kept) -> None:
    """What is data and holds credentials keeps the rest."""
    scope = kept(_SCOPE)

    assert SECRET not in json.dumps(scope)
    assert scope["headers"] == [["authorization", "<masked>"], ["cookie", "<masked>"]]
    assert kept(sa.make_url(f"postgresql://app:{SECRET}@db/x"))["password"] == "<masked>"
