"""The name of a span across processes, and its text form, the W3C `traceparent`.

This module decides what names a span. It does not know whether that span lives, waits or is stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias, final

from otel_metadata.errors import InvalidSpanRefError

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

__all__ = ["INVALID_SPAN_REF", "OF_TRACE", "SpanKey", "SpanRef", "parse_trace_id"]

SpanKey: TypeAlias = tuple[int, int]
"""(trace id, span id): what the maps of this process are keyed by. A span id of 0 means the trace alone."""

# W3C Trace Context level 2, "traceparent Header Field Values": version 00 has exactly four fields; a higher version may
# have more, which a reader of version 00 ignores; version ff is forbidden.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED: Final = 0x01
_MAX_TRACE_ID: Final = (1 << 128) - 1
_MAX_SPAN_ID: Final = (1 << 64) - 1
OF_TRACE: Final = ".trace"
"""After a backend's name: the id is that of the trace."""

_NO_BACKEND_IDS: Final[Mapping[str, str]] = MappingProxyType({})


@final
@dataclass(frozen=True, slots=True)
class SpanRef:
    """The name of a span across processes: trace id, span id, sampled flag.

    Hashable, comparable, picklable. A reference without a span (`span_id == 0`) names the trace alone; one without a
    trace is invalid, false, and refused by every update.

    Attributes:
        trace_id: 128-bit integer, 0 when invalid.
        span_id: 64-bit integer, 0 for the trace alone.
        sampled: Whether the span is exported at all; an update of an unsampled span is refused.
        backend_ids: Ids that backends gave this span, or the trace when it names that alone, by backend name; under
            `<backend>.trace` that of the span's trace. Not part of `traceparent` nor of equality.
    """

    trace_id: int
    span_id: int
    sampled: bool = True
    backend_ids: Mapping[str, str] = field(default_factory=lambda: _NO_BACKEND_IDS, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse ids outside their width.

        Raises:
            InvalidSpanRefError: An id is negative or too wide.
        """
        if not 0 <= self.trace_id <= _MAX_TRACE_ID:
            raise InvalidSpanRefError(self.trace_id, "a trace id of at most 128 bits, not negative")
        if not 0 <= self.span_id <= _MAX_SPAN_ID:
            raise InvalidSpanRefError(self.span_id, "a span id of at most 64 bits, not negative")

    @classmethod
    def from_traceparent(cls, text: str) -> SpanRef:
        """Read a W3C `traceparent`, for example `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`.

        Source: W3C Trace Context, "traceparent Header Field Values". Surrounding white space is ignored.

        Raises:
            InvalidSpanRefError: The text has another form, or an id is all zeros.
        """
        match = _TRACEPARENT.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None or (match[1] == "00" and match[5] is not None):
            raise InvalidSpanRefError(text, "a W3C traceparent such as 00-<32 hex>-<16 hex>-01, in lower case")
        trace_id, span_id = int(match[2], 16), int(match[3], 16)
        if not trace_id or not span_id:
            raise InvalidSpanRefError(text, "a W3C traceparent whose ids are not all zeros")
        return cls(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED))

    @classmethod
    def from_span_context(cls, context: SpanContext) -> SpanRef:
        """Take the ids and the sampled flag of an OpenTelemetry `SpanContext`."""
        return cls(context.trace_id, context.span_id, context.trace_flags.sampled)

    def to_traceparent(self) -> str:
        """Return the W3C `traceparent`, version 00, 55 characters; all zeros when invalid."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    def with_backend_id(self, backend: str, identifier: str) -> SpanRef:
        """Return a copy that also carries the id that *backend* knows this span by, for example Galileo's uuid."""
        return self.with_backend_ids({backend: str(identifier)})

    def with_backend_ids(self, identifiers: Mapping[str, str]) -> SpanRef:
        """Return a copy that also carries *identifiers*, by backend; itself when there are none."""
        if not identifiers:
            return self
        return replace(self, backend_ids=MappingProxyType({**self.backend_ids, **identifiers}))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by value: a mapping proxy cannot be pickled."""
        return (_rebuild, (self.trace_id, self.span_id, self.sampled, dict(self.backend_ids)))

    def __bool__(self) -> bool:
        """Whether this names anything."""
        return self.trace_id != 0

    def __str__(self) -> str:
        """The `traceparent`."""
        return self.to_traceparent()

    @property
    def is_valid(self) -> bool:
        """Whether both ids are there: it names a span."""
        return self.trace_id != 0 and self.span_id != 0

    @property
    def key(self) -> SpanKey:
        """(trace id, span id)."""
        return self.trace_id, self.span_id

    @property
    def trace_id_hex(self) -> str:
        """32 lower-case hex digits."""
        return f"{self.trace_id:032x}"

    @property
    def span_id_hex(self) -> str:
        """16 lower-case hex digits."""
        return f"{self.span_id:016x}"


def _rebuild(trace_id: int, span_id: int, sampled: bool, backend_ids: dict[str, str]) -> SpanRef:
    return SpanRef(trace_id, span_id, sampled, MappingProxyType(backend_ids) if backend_ids else _NO_BACKEND_IDS)


INVALID_SPAN_REF: Final = SpanRef(0, 0, sampled=False)
"""Names nothing; every update of it is refused."""


def parse_trace_id(text: str) -> SpanRef:
    """Read a trace id of 32 hex digits as a reference to the trace alone.

    Raises:
        InvalidSpanRefError: Another form, or all zeros.
    """
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]{32}", text, re.ASCII) or not int(text, 16):
        raise InvalidSpanRefError(text, "a trace id of 32 lower-case hex digits, not all zeros")
    return SpanRef(int(text, 16), 0)
