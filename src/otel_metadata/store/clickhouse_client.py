"""The connection to ClickHouse: its URL, a client for each thread, our own timeouts, and what its errors mean.

clickhouse-connect is the extra `clickhouse`, loaded when a connection is first needed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from urllib.parse import parse_qsl, unquote, urlsplit

import urllib3

from otel_metadata.errors import ConfigurationError, MissingExtraError, StoreAccessError, StoreError
from otel_metadata.reporting import after_fork_in_child
from otel_metadata.store.clickhouse_schema import SPANS, checked_name

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = ["NO_TABLE", "Address", "Connection"]

EXPECTED: Final = "clickhouse://user:password@host:8123/database, with ?cluster=, &secure= or &table= if needed"

_OPTIONS: Final = ("cluster", "secure", "table")
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

_CODE: Final = re.compile(r"[Cc]ode:? *(\d+)")
_CONNECT_SECONDS: Final = 5

_left_to_the_parent: Final[list[urllib3.PoolManager]] = []


@final
class Address(NamedTuple):
    """Where a store is, from its URL. Its text has neither user nor password.

    Attributes:
        host: A name or an address.
        port: By default 8123, with TLS 8443.
        database: `default` when the URL names none.
        user: `default` when the URL names none.
        password: "" when the URL has none.
        is_secure: Whether TLS is spoken.
        cluster: The cluster on which tables are made, or None.
        table: The span table.
    """

    host: str
    port: int
    database: str
    user: str
    password: str
    is_secure: bool
    cluster: str | None
    table: str

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Read `clickhouse://…`, or `clickhouses://…` for TLS.

        Raises:
            ConfigurationError: It has another form.
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
        """Connect when it is first used.

        Args:
            address: Where.
            timeout_millis: How long a server may take to answer.
        """
        self.address = address
        self._timeout_millis = timeout_millis
        self._local = threading.local()
        self._pool = _new_pool()
        after_fork_in_child(self._start_afresh)

    @contextmanager
    def client(self, timeout_millis: int | None = None) -> Iterator[Client]:
        """Give this thread's client, and turn what goes wrong into a `StoreError`.

        Args:
            timeout_millis: How long the server may take to answer, where that is less than usual.

        Raises:
            StoreAccessError: It does not let us: rights, password, tables.
            StoreError: Anything else that went wrong.
        """
        millis = self._timeout_millis if timeout_millis is None else min(timeout_millis, self._timeout_millis)
        timeout = urllib3.Timeout(connect=min(_CONNECT_SECONDS, millis / 1000), read=millis / 1000)
        try:
            client = getattr(self._local, "client", None)
            if client is None:
                client = self._local.client = self._connect()
            client.timeout = timeout  # type: ignore[union-attr, unused-ignore] # of HTTP clients, which ours is
            yield client
        except (StoreError, MissingExtraError):
            raise
        except Exception as error:
            told = self._told(error)
            if told is None:
                raise
            raise told from error

    def run(self, client: Client, sql: str, values: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Return the rows of a SELECT."""
        return client.query(sql, parameters=dict(values or {})).result_rows  # type: ignore[no-any-return, unused-ignore]

    def close(self) -> None:
        """Close idle connections. A request of another thread goes on until its timeout; a later one opens again."""
        self._pool.clear()
        self._local = threading.local()

    def _start_afresh(self) -> None:
        # Its sockets are the parent's: left open, unused.
        _left_to_the_parent.append(self._pool)
        self._local = threading.local()
        self._pool = _new_pool()

    def _connect(self) -> Client:
        try:
            import clickhouse_connect
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "clickhouse_connect", "clickhouse") from None
        address = self.address
        return clickhouse_connect.get_client(
            interface="https" if address.is_secure else "http",
            host=address.host,
            port=address.port,
            username=address.user,
            password=address.password,
            database=address.database,
            # Whole seconds here; what holds is set before each call.
            connect_timeout=_CONNECT_SECONDS,
            send_receive_timeout=max(self._timeout_millis // 1000, 1),
            # The outbox decides about another try, and a server refuses two queries at once in one session.
            query_retries=0,
            autogenerate_session_id=False,
            # Values in the body: what stands in a URL stands in access logs, and its length is limited on the way.
            form_encode_query_params=True,
            # Of our own: no proxy of the environment, no redirects.
            pool_mgr=self._pool,
            client_name="otel-metadata",
        )

    def _told(self, error: Exception) -> StoreError | None:
        """Return what an error of the client means, without the server's text: it may have values in it."""
        from clickhouse_connect.driver.exceptions import ClickHouseError, DataError

        if isinstance(error, OverflowError | UnicodeEncodeError | DataError):
            return StoreError(
                f"{self.address}: a value cannot be sent ({type(error).__name__}); expected 64-bit times."
            )
        if isinstance(error, urllib3.exceptions.HTTPError):
            return self._unreachable(error)
        if not isinstance(error, ClickHouseError):
            return None
        code = _code(error)
        if code is not None and code in _NO_ACCESS:
            name, what = _NO_ACCESS[code]
            return StoreAccessError(f"{self.address} refuses (error {code}, {name}); expected to be let in: {what}.")
        if code is not None:
            name, what = _TRIED_AGAIN.get(code, ("see ClickHouse's list of error codes", "look into the server's log"))
            return StoreError(f"{self.address} answers with error {code} ({name}); {what}.")
        return self._unreachable(error)

    def _unreachable(self, error: Exception) -> StoreError:
        return StoreError(
            f"{self.address} does not answer ({type(error).__name__}); expected ClickHouse's HTTP interface there, "
            "within the time that was given."
        )


def _new_pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(maxsize=8, retries=urllib3.Retry(0, redirect=0))


def _code(error: Exception) -> int | None:
    """Return ClickHouse's code of an error; older clients have it in their text alone."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code
    found = _CODE.search(str(error))
    return int(found[1]) if found else None
