"""The connection to ClickHouse: its URL, a client for each thread, our own timeouts, and what its errors mean.

clickhouse-connect is the extra `clickhouse`, loaded when a connection is first needed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
import urllib3

from otel_metadata.errors import (
    ConfigurationError,
    MissingExtraError,
    OtelMetadataError,
    StoreAccessError,
    StoreError,
)
from otel_metadata.reporting import after_fork_in_child
from otel_metadata.seams import bounded_millis
from otel_metadata.store.clickhouse.pool import (
    MAX_HELD_BYTES,
    MAX_LINE_BYTES,
    MAX_PAGE_BYTES,
    BoundedPool,
    TooLargeError,
    lines,
    weight,
)
from otel_metadata.store.clickhouse.schema import SPANS, checked_name

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

EXPECTED: Final = "clickhouse://user:password@host:8123/database, with ?cluster=, &history=off, &secure= or &table="

_OPTIONS: Final = ("cluster", "history", "secure", "table")
_HISTORY: Final = {"on": True, "off": False}
_PORTS: Final = {False: 8123, True: 8443}

NO_TABLE: Final = 60
"""ClickHouse's code of UNKNOWN_TABLE."""

_RUN_DDL: Final = (
    "make the tables with the SQL in docs/clickhouse.md, with Client(..., create=True) or `otel-metadata import`, or "
    "let a user with the right CREATE write first"
)

# What to do, by code. Names and numbers: ClickHouse, src/Common/ErrorCodes.cpp.
_NO_ACCESS: Final[Mapping[int, tuple[str, str]]] = {
    NO_TABLE: ("UNKNOWN_TABLE", _RUN_DDL),
    81: ("UNKNOWN_DATABASE", "make it with CREATE DATABASE, or name another one in the URL"),
    16: ("NO_SUCH_COLUMN_IN_TABLE", f"the table is not as docs/clickhouse.md has it; {_RUN_DDL}"),
    47: ("UNKNOWN_IDENTIFIER", f"a table is not as docs/clickhouse.md has it; {_RUN_DDL}"),
    164: ("READONLY", "the user may only read; give it INSERT on the tables, or another user in the URL"),
    192: ("UNKNOWN_USER", "check the user in the URL"),
    193: ("WRONG_PASSWORD", "check user and password in the URL"),
    194: ("REQUIRED_PASSWORD", "put the password into the URL"),
    497: ("ACCESS_DENIED", f"give the user SELECT and INSERT on the tables (and ALTER DELETE to delete); {_RUN_DDL}"),
    516: ("AUTHENTICATION_FAILED", "check user and password in the URL"),
}
_TRIED_AGAIN: Final[Mapping[int, tuple[str, str]]] = {
    159: ("TIMEOUT_EXCEEDED", "ask for less, or raise max_execution_time of the user"),
    160: ("TOO_SLOW", "ask for less, or raise the limits of the user"),
    202: ("TOO_MANY_SIMULTANEOUS_QUERIES", "it is tried again later"),
    209: ("SOCKET_TIMEOUT", "it is tried again later"),
    210: ("NETWORK_ERROR", "it is tried again later"),
    241: ("MEMORY_LIMIT_EXCEEDED", "ask for less, or raise max_memory_usage of the user"),
    242: ("TABLE_IS_READ_ONLY", "the replica has lost its keeper; it is tried again later"),
    252: ("TOO_MANY_PARTS", "write less often and more at once: raise OTEL_BSP_SCHEDULE_DELAY"),
    26: ("CANNOT_PARSE_QUOTED_STRING", "a value could not be sent; report it with the version of clickhouse-connect"),
    53: ("TYPE_MISMATCH", "a column has another type than in docs/clickhouse.md"),
    62: ("SYNTAX_ERROR", "the server is older than what is supported (24.3)"),
    46: ("UNKNOWN_FUNCTION", "the server is older than what is supported (24.3)"),
}

_CODE: Final = re.compile(r"[Cc]ode:? *(\d{1,9})")

# An error in the middle of an answer comes as a mark and then its text, after the rows that were sent before.
_LINES_OF_AN_ERROR: Final = 10

# What the client and this module raise when there is no answer, or one that does not come from ClickHouse.
_NOT_UNDERSTOOD: Final = (
    urllib3.exceptions.HTTPError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)

_left_to_the_parent: Final[list[urllib3.PoolManager]] = []


class AnswerTooLargeError(StoreError):
    """An answer has more rows than may be held at once."""


@final
class Address(NamedTuple):
    """The address of a store, read from its URL. Its text form has neither user nor password.

    Attributes:
        host: A name or an address.
        port: By default 8123, with TLS 8443.
        database: `default` if the URL names none.
        user: `default` if the URL names none.
        password: "" if the URL has none.
        is_secure: Whether the connection uses TLS.
        cluster: The cluster on which tables are made, or None.
        table: The span table.
        keeps_history: Whether the store keeps superseded values.
    """

    host: str
    port: int
    database: str
    user: str
    password: str
    is_secure: bool
    cluster: str | None
    table: str
    keeps_history: bool

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Read `clickhouse://…`, or `clickhouses://…` for TLS.

        Raises:
            ConfigurationError: The URL has another form.
        """
        shown = f"{url.partition('://')[0]}://***"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigurationError("store", shown, EXPECTED) from None
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = [name for name in options if name not in _OPTIONS]
        if parts.scheme not in ("clickhouse", "clickhouses") or not host or unknown or parts.fragment:
            raise ConfigurationError("store", f"{shown}?{'='.join(unknown)}" if unknown else shown, EXPECTED)
        secure = options.get("secure", "").lower()
        if secure not in ("", "true", "false", "1", "0"):
            raise ConfigurationError("secure of a clickhouse:// URL", secure, "true or false")
        is_secure = parts.scheme == "clickhouses" or secure in ("true", "1")
        history = options.get("history", "on")
        if history not in _HISTORY:
            raise ConfigurationError("history of a clickhouse:// URL", history, "on or off")
        cluster = options.get("cluster")
        return cls(
            host=host,
            port=port or _PORTS[is_secure],
            database=checked_name("database", unquote(parts.path.strip("/")) or "default"),
            user=unquote(parts.username or "") or "default",
            password=unquote(parts.password or ""),
            is_secure=is_secure,
            cluster=checked_name("cluster", cluster) if cluster else None,
            table=checked_name("table", options.get("table") or SPANS),
            keeps_history=_HISTORY[history],
        )

    def __str__(self) -> str:
        """As it may be shown."""
        return f"clickhouse{'s' if self.is_secure else ''}://{self.host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        """As it may be shown."""
        return str(self)


@final
class Connection:
    """Clients for one address, one for each thread; any thread. A forked child makes its own."""

    def __init__(self, address: Address, timeout_millis: int) -> None:
        """Connect at the first use.

        Args:
            address: The address.
            timeout_millis: How long a server may take to answer.
        """
        self.address = address
        self._timeout_millis = max(bounded_millis(timeout_millis, 10_000), 1)
        self._local = threading.local()
        self._pool = BoundedPool()
        after_fork_in_child(self._start_afresh)

    @contextmanager
    def client(self, timeout_millis: int | None = None) -> Iterator[Client]:
        """Yield this thread's client, and turn every failure into a `StoreError`.

        Args:
            timeout_millis: How long the server may take to answer, if that is less than the store's timeout.

        Raises:
            StoreAccessError: The server refuses: rights, password or tables.
            StoreError: Something else failed.
        """
        millis = min(bounded_millis(timeout_millis, self._timeout_millis), self._timeout_millis)
        try:
            self._pool.wait_at_most(millis, for_all=timeout_millis is not None)
            client = getattr(self._local, "client", None)
            if client is None:
                client = self._local.client = self._connect()
            yield client
        except OtelMetadataError:
            raise
        except Exception as error:
            told = self._error_for(error)
            if told is None:
                raise
            raise told from None  # the text of *error* comes from the server, and may hold values

    def run(self, client: Client, sql: str, values: Mapping[str, Any]) -> list[Sequence[Any]]:
        """Return the rows of a SELECT.

        64-bit integers may come as text, as older servers write them.

        Raises:
            AnswerTooLargeError: There are more rows than may be held at once; ask for fewer.
        """
        try:
            return list(self.stream(client, sql, values, MAX_PAGE_BYTES))
        except TooLargeError:
            raise AnswerTooLargeError(
                f"{self.address} answers with more than {MAX_PAGE_BYTES:,} bytes at once; expected less. "
                "If it is one span, delete it with ClickHouse's own client."
            ) from None

    def stream(
        self, client: Client, sql: str, values: Mapping[str, Any], max_bytes: int | None = None
    ) -> Generator[Sequence[Any]]:
        """Yield the rows of a SELECT as they arrive. Closing the generator ends the request.

        Args:
            client: This thread's.
            sql: The SELECT.
            values: Its values, by name.
            max_bytes: Of the whole answer. None for any number of short rows.

        Raises:
            TooLargeError: The answer, a row of it, or what is read from it takes more bytes than may be.
        """
        # Lines of JSON, which take no more room than they have bytes. With the binary format the client reads the
        # number of rows from the answer and allocates room for them first.
        response = client.raw_stream(
            sql,
            parameters=dict(values),
            fmt="JSONCompactEachRow",
            # With this, an error in the middle of the answer is reported at its start.
            settings={"wait_end_of_query": 1} if max_bytes is not None else None,
        )
        found = lines(response, max_line_bytes=max_bytes or MAX_LINE_BYTES, max_bytes=max_bytes)
        held = 0
        for line in found:
            if max_bytes is not None:
                held += weight(line)
                if held > MAX_HELD_BYTES:
                    found.close()
                    raise TooLargeError
            try:
                row = orjson.loads(line.decode("utf-8", "replace"))
            except ValueError:
                row = None
            if not isinstance(row, list):
                code = _CODE.search(" ".join(map(repr, [line, *islice(found, _LINES_OF_AN_ERROR)])))
                raise self._error_of_code(int(code[1]) if code else None, "no row")
            yield row

    def close(self) -> None:
        """Close idle connections. A request of another thread goes on until its timeout; a new one reconnects."""
        self._pool.clear()
        self._local = threading.local()

    def _start_afresh(self) -> None:
        # The old pool's sockets belong to the parent, so they stay open and unused.
        _left_to_the_parent.append(self._pool)
        self._local = threading.local()
        self._pool = BoundedPool()

    def _connect(self) -> Client:
        try:
            client_class = _client_class()
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "clickhouse_connect", "clickhouse") from None
        address = self.address
        return client_class(  # type: ignore[no-any-return, unused-ignore] # as above
            interface="https" if address.is_secure else "http",
            host=address.host,
            port=address.port,
            username=address.user,
            password=address.password,
            database=address.database,
            # The client asks the server to send progress within this time. The limits that count are the pool's.
            send_receive_timeout=max(self._timeout_millis // 1000, 1),
            # The outbox decides when to try again, and a server refuses two queries at once in one session.
            query_retries=0,
            autogenerate_session_id=False,
            # Values go in the body: URLs appear in access logs, and their length is limited on the way.
            form_encode_query_params=True,
            # Our pool: it uses no proxy of the environment, follows no redirects, and bounds every answer.
            pool_mgr=self._pool,
            client_name="otel-metadata",
        )

    def _error_for(self, error: Exception) -> StoreError | None:
        """Return the error to raise for an error of the client, without the server's text, which may hold values."""
        from clickhouse_connect.driver.exceptions import ClickHouseError, DataError

        if isinstance(error, OverflowError | UnicodeEncodeError | DataError):
            return StoreError(
                f"{self.address}: a value cannot be sent ({type(error).__name__}); expected 64-bit times."
            )
        if isinstance(error, ClickHouseError):
            return self._error_of_code(_code(error), type(error).__name__)
        return self._error_of_code(None, type(error).__name__) if isinstance(error, _NOT_UNDERSTOOD) else None

    def _error_of_code(self, code: int | None, name: str) -> StoreError:
        if code is not None and code in _NO_ACCESS:
            name, what = _NO_ACCESS[code]
            return StoreAccessError(f"{self.address} refuses (error {code}, {name}); expected to be let in: {what}.")
        if code is not None:
            name, what = _TRIED_AGAIN.get(code, ("see ClickHouse's list of error codes", "look into the server's log"))
            return StoreError(f"{self.address} answers with error {code} ({name}); {what}.")
        return StoreError(
            f"{self.address} does not answer ({name}); expected ClickHouse's HTTP interface there, "
            "within the time that was given."
        )


def _client_class() -> Any:  # of an extra
    """Return a client class of clickhouse-connect that reads the server's settings as JSON, too; see `stream`."""
    from clickhouse_connect.driver.httpclient import HttpClient
    from clickhouse_connect.driver.query import QueryResult

    class JsonClient(HttpClient):  # type: ignore[misc, unused-ignore] # the package need not be there
        def _query_with_context(self, context: Any) -> Any:
            data = self.raw_query(context.final_query, fmt="JSONCompactEachRowWithNames")
            names, *rows = map(orjson.loads, data.decode("utf-8", "replace").rstrip("\n").split("\n"))
            if not all(isinstance(line, list) for line in (names, *rows)):
                raise TypeError("no row")
            return QueryResult(rows, column_names=tuple(names))

    return JsonClient


def _code(error: Exception) -> int | None:
    """Return ClickHouse's code of an error. In older clients only the text has it."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code
    found = _CODE.search(str(error))
    return int(found[1]) if found else None
