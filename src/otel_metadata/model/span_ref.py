"""A reference to a span that works across processes, and its text form, the W3C `traceparent`.

This module decides what identifies a span. It does not know whether that span is live, waits or is stored.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias, final

from otel_metadata.errors import InvalidSpanRefError

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

SpanKey: TypeAlias = tuple[int, int]
"""(trace id, span id): the key of the maps of this process. A span id of 0 means the trace alone."""

# W3C Trace Context level 2, "traceparent Header Field Values": version 00 has exactly four fields; a higher version may
# have more, which a reader of version 00 ignores; version ff is forbidden.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED: Final = 0x01
_MAX_TRACE_ID: Final = (1 << 128) - 1
_MAX_SPAN_ID: Final = (1 << 64) - 1
OF_TRACE: Final = ".trace"
"""The suffix of a backend's name whose id is that of the trace."""

# As 32 hex digits, with 0x before them (OpenTelemetry's `Span.to_json`) or tr- (MLflow), or in the groups of a UUID.
_TRACE_ID: Final = re.compile(r"(?:0x|tr-)?[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

_BACKEND: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)

_NO_BACKEND_IDS: Final[Mapping[str, str]] = MappingProxyType({})


@final
@dataclass(frozen=True, slots=True)
class SpanRef:
    """A reference to a span that works across processes: trace id, span id, sampled flag.

    It is hashable, comparable and picklable. A reference without a span (`span_id == 0`) names the trace alone. A
    reference without a trace is invalid and false, and every update of it is refused, unless it is made of a backend's
    id (`from_backend_id`).

    Attributes:
        trace_id: 128-bit integer, 0 when invalid.
        span_id: 64-bit integer, 0 for the trace alone.
        sampled: Whether the span is exported at all; an update of an unsampled span is refused.
        backend_ids: By the backend's name, the id that a backend gave this span, or this trace where the reference
            names the trace alone; by `<backend>.trace`, the id of the span's trace. They are not part of `traceparent`,
            and do not count for equality.
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
        # The exact type is the quick check, and comes first: each update of a current span makes a reference.
        if type(self.trace_id) is not int and not isinstance(self.trace_id, int):
            raise InvalidSpanRefError(self.trace_id, "trace_id, an integer; SpanRef.from_text() reads a text")
        if type(self.span_id) is not int and not isinstance(self.span_id, int):
            raise InvalidSpanRefError(self.span_id, "span_id, an integer; SpanRef.from_text() reads a text")
        if not 0 <= self.trace_id <= _MAX_TRACE_ID:
            raise InvalidSpanRefError(self.trace_id, "a trace_id of at most 128 bits, not negative")
        if not 0 <= self.span_id <= _MAX_SPAN_ID:
            raise InvalidSpanRefError(self.span_id, "a span_id of at most 64 bits, not negative")

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
    def from_backend_id(cls, backend: str, identifier: str) -> SpanRef:
        """Make a reference to a span, or a trace, from nothing but the id that one backend has for it.

        ```python
        ref = otel_metadata.SpanRef.from_backend_id("galileo", "6f0c9f1e-3c8e-4b0a-9d3e-1f2a3b4c5d6e")
        otel_metadata.update_span(ref, output="corrected")
        ```

        Only destinations that can find the span by this id take an update of it; the others refuse it
        (`invalid_target`). The text form is `<backend>:<identifier>`, which works wherever a `traceparent` does.

        Args:
            backend: The backend's name, for example `galileo`.
            identifier: The id that it gave the span, as text or `uuid.UUID`.

        Raises:
            InvalidSpanRefError: An argument is empty, or the backend's name has another form.
        """
        identifier = str(identifier).strip()
        if not isinstance(backend, str) or not _BACKEND.fullmatch(backend) or not identifier:
            raise InvalidSpanRefError(
                f"{backend}:{identifier}", "the name of a backend, such as galileo, and the id that it gave the span"
            )
        ids = MappingProxyType({backend: identifier})
        return cls(0, _stand_in(backend, identifier), backend_ids=ids)

    @classmethod
    def from_text(cls, text: str) -> SpanRef:
        """Read a W3C `traceparent`, or `<backend>:<identifier>`: both are what `str()` of a reference returns.

        Upper case is read as lower case here, unlike in `from_traceparent`: people and programs write ids in both.

        Raises:
            InvalidSpanRefError: The text has another form.
        """
        if isinstance(text, str):
            backend, colon, identifier = text.partition(":")
            if colon:
                return cls.from_backend_id(backend.strip(), identifier)
            text = text.lower()
        return cls.from_traceparent(text)  # refuses anything but text

    @classmethod
    def from_span_context(cls, context: SpanContext) -> SpanRef:
        """Take the ids and the sampled flag of an OpenTelemetry `SpanContext`.

        Raises:
            InvalidSpanRefError: *context* is not a `SpanContext`.
        """
        if not hasattr(context, "trace_flags"):
            raise InvalidSpanRefError(context, "context, an OpenTelemetry SpanContext: span.get_span_context()")
        return cls(context.trace_id, context.span_id, context.trace_flags.sampled)

    def to_traceparent(self) -> str:
        """Return the W3C `traceparent`, version 00, 55 characters.

        The ids are zeros when the reference is invalid, or made of a backend's id alone.
        """
        span_id = 0 if self.is_backend_only else self.span_id
        return f"00-{self.trace_id:032x}-{span_id:016x}-{int(self.sampled):02x}"

    def to_trace(self) -> SpanRef:
        """Return the reference to the trace alone, with the ids that backends gave the trace.

        Where this reference names a trace alone, or is made of a backend's id alone, its ids are taken for the trace's.
        """
        is_of_trace = not self.span_id or self.is_backend_only
        ids = {
            f"{name.removesuffix(OF_TRACE)}{OF_TRACE}": identifier
            for name, identifier in self.backend_ids.items()
            if is_of_trace or name.endswith(OF_TRACE)
        }
        span_id = self.span_id if self.is_backend_only else 0
        return SpanRef(self.trace_id, span_id, self.sampled, MappingProxyType(ids) if ids else _NO_BACKEND_IDS)

    def with_backend_id(self, backend: str, identifier: str) -> SpanRef:
        """Return a copy that also has the id that *backend* gave this span, for example Galileo's UUID."""
        if not isinstance(backend, str):
            raise InvalidSpanRefError(backend, "backend, the name of a backend, such as galileo")
        return self.with_backend_ids({backend: str(identifier)})

    def with_backend_ids(self, identifiers: Mapping[str, str]) -> SpanRef:
        """Return a copy that also has *identifiers*, by backend; this reference itself when they are empty."""
        if not isinstance(identifiers, Mapping):
            raise InvalidSpanRefError(identifiers, "identifiers, a mapping of backend names to ids")
        if not identifiers:
            return self
        return replace(self, backend_ids=MappingProxyType({**self.backend_ids, **identifiers}))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by value: a mapping proxy cannot be pickled."""
        return (_rebuild, (self.trace_id, self.span_id, self.sampled, dict(self.backend_ids)))

    def __bool__(self) -> bool:
        """Whether this names a span or a trace."""
        return self.trace_id != 0 or self.is_backend_only

    def __str__(self) -> str:
        """The `traceparent`; for a reference that is made of a backend's id alone, `<backend>:<identifier>`."""
        made_of = (f"{name}:{one}" for name, one in self.backend_ids.items() if self._is_made_of(name, one))
        return next(made_of, None) or self.to_traceparent()

    @property
    def is_valid(self) -> bool:
        """Whether this names a span: both ids are set."""
        return self.trace_id != 0 and self.span_id != 0

    @property
    def is_backend_only(self) -> bool:
        """Whether only a backend's id of the span is known: see `from_backend_id`."""
        return self.trace_id == 0 and any(self._is_made_of(*one) for one in self.backend_ids.items())

    def _is_made_of(self, backend: str, identifier: str) -> bool:
        return self.trace_id == 0 and self.span_id == _stand_in(backend, identifier)

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


def _stand_in(backend: str, identifier: str) -> int:
    """Return a substitute for the span id where only a backend's id is known, so that a target always has one key."""
    text = f"{backend.removesuffix(OF_TRACE)}:{identifier}"
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest(), "big") or 1


def _rebuild(trace_id: int, span_id: int, sampled: bool, backend_ids: dict[str, str]) -> SpanRef:
    return SpanRef(trace_id, span_id, sampled, MappingProxyType(backend_ids) if backend_ids else _NO_BACKEND_IDS)


INVALID_SPAN_REF: Final = SpanRef(0, 0, sampled=False)
"""A reference to nothing; every update of it is refused."""


def trace_of(given: object) -> SpanRef | None:
    """Return the reference to the trace of a trace id; None where *given* is not a trace id.

    Args:
        given: 32 hex digits, in either case, with white space around them or in the groups of a UUID; a `uuid.UUID`;
            an integer.
    """
    number = 0
    if isinstance(given, str):
        text = given.strip().lower()
        if _TRACE_ID.fullmatch(text):
            number = int(text.removeprefix("tr-").replace("-", ""), 16)
    elif isinstance(given, uuid.UUID):
        number = given.int
    elif isinstance(given, int) and not isinstance(given, bool):
        number = int(given)
    return SpanRef(number, 0) if 0 < number <= _MAX_TRACE_ID else None


def parse_trace_id(given: object) -> SpanRef:
    """Read a trace id as `trace_of` does.

    Raises:
        InvalidSpanRefError: *given* is not a trace id.
    """
    ref = trace_of(given)
    if ref is None:
        raise InvalidSpanRefError(given, "a trace id of 32 hex digits, not all zeros")
    return ref
