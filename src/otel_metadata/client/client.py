"""`Client`: what a program does with stored spans.

It reads a store by itself and needs no pipeline in its process.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, final

from otel_metadata.errors import ConfigurationError, InvalidSpanRefError, SpanNotFoundError
from otel_metadata.late.destination import Destination
from otel_metadata.model.record import SpanQuery, SpanRecord
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.pipeline import open_store

if TYPE_CHECKING:
    from types import TracebackType

    from otel_metadata.seams import SpanStore

__all__ = ["Client", "Spans"]


@final
class Client:
    """Stored spans, for programs.

    ```python
    with otel_metadata.Client("sqlite:///spans.db") as client:
        print(client.spans.get(span_id).metadata)
    ```

    Attributes:
        spans: The spans of the store.
    """

    def __init__(self, url_or_destination: str | Destination) -> None:
        """Open the store when it is first read.

        Args:
            url_or_destination: `"sqlite:///relative.db"`, `"sqlite:////absolute.db"`, or a destination that keeps its
                spans in a store.

        Raises:
            ConfigurationError: It names no store.
        """
        if isinstance(url_or_destination, Destination):
            store = getattr(url_or_destination.patch_exporter, "store", None)
            if store is None:
                raise ConfigurationError(
                    "Client", url_or_destination.name, "a destination that keeps its spans in a store"
                )
            self._owns_store = False
        else:
            store = open_store(url_or_destination, create=False)
            self._owns_store = True
        self._store: SpanStore = store
        self.spans = Spans(store)

    def close(self) -> None:
        """Close the store, if it was opened here."""
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> Client:
        """Return the client itself."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """A status line."""
        return f"<Client {self._store!r}>"


@final
class Spans:
    """The spans of one store."""

    def __init__(self, store: SpanStore) -> None:
        """Read from *store*."""
        self._store = store

    def get(self, span_id: str | SpanRef, *, trace_id: str | None = None) -> SpanRecord:
        """Return one span with everything that was set on it.

        Args:
            span_id: 16 hex digits, a `SpanRef`, or a `traceparent`.
            trace_id: 32 hex digits, where span ids alone are not unique; the newest span is taken without it.

        Raises:
            InvalidSpanRefError: An id has another form.
            SpanNotFoundError: It is not stored.
            StoreError: The store cannot be read.
        """
        ref = span_id
        if isinstance(ref, str) and ref.count("-") >= 3:
            ref = SpanRef.from_traceparent(ref)
        if isinstance(ref, SpanRef):
            span_id, trace_id = ref.span_id_hex, ref.trace_id_hex
        query = SpanQuery(_id(trace_id, 32) if trace_id is not None else None, _id(span_id, 16), limit=1)
        found = self._store.query(query)
        if not found:
            raise SpanNotFoundError(str(span_id), repr(self._store))
        return found[0]

    def list(self, *, trace_id: str | None = None, limit: int = 100) -> list[SpanRecord]:
        """Return spans, newest start first.

        Args:
            trace_id: Only those of one trace, 32 hex digits.
            limit: At most this many, at least 1.

        Raises:
            ConfigurationError: The limit is not positive.
            InvalidSpanRefError: The trace id has another form.
            StoreError: The store cannot be read.
        """
        if limit < 1:
            raise ConfigurationError("list(limit=)", limit, "1 or more")
        return self._store.query(SpanQuery(_id(trace_id, 32) if trace_id is not None else None, None, limit))


def _id(text: object, digits: int) -> str:
    if not isinstance(text, str) or not re.fullmatch(rf"[0-9a-f]{{{digits}}}", text.lower(), re.ASCII):
        raise InvalidSpanRefError(text, f"{digits} hex digits")
    return text.lower()
