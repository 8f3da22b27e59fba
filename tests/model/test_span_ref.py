"""Span refs: the W3C text form both ways, and what is equal to what."""

from __future__ import annotations

import copy
import pickle
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from tests.strategies import span_refs

from otel_metadata.errors import InvalidSpanRefError
from otel_metadata.model.span_ref import INVALID_SPAN_REF, SpanRef, parse_trace_id

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
REF = SpanRef(int(TRACE, 16), int(SPAN, 16))


class TestTraceparent:
    @given(span_refs())
    def test_it_reads_back_as_the_same_ref(self, ref: SpanRef) -> None:
        """Text and ref are two forms of one thing, in both directions."""
        text = ref.to_traceparent()

        assert SpanRef.from_traceparent(text) == ref
        assert SpanRef.from_traceparent(text).to_traceparent() == text == str(ref)

    @given(span_refs())
    def test_opentelemetry_reads_it_as_the_same_span(self, ref: SpanRef) -> None:
        """The text is what OpenTelemetry's own propagator understands."""
        from opentelemetry import trace

        context = TraceContextTextMapPropagator().extract({"traceparent": ref.to_traceparent()})

        assert SpanRef.from_span_context(trace.get_current_span(context).get_span_context()) == ref

    def test_the_form_is_that_of_version_00(self) -> None:
        """Version, ids in lower case with all their zeros, flags."""
        assert SpanRef(1, 0xAB, sampled=False).to_traceparent() == f"00-{1:032x}-00000000000000ab-00"

    @pytest.mark.parametrize(
        "text",
        [
            f"00-{TRACE}-{SPAN}-01",
            f" 00-{TRACE}-{SPAN}-01\n",
            f"00-{TRACE}-{SPAN}-03",
            f"00-{TRACE}-{SPAN}-ff",
            f"01-{TRACE}-{SPAN}-01",
            f"cc-{TRACE}-{SPAN}-01",
            f"cc-{TRACE}-{SPAN}-01-",
            f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
            f"fe-{TRACE}-{SPAN}-09-x",
        ],
    )
    def test_other_flags_and_higher_versions_are_read(self, text: str) -> None:
        """W3C Trace Context asks a reader to take what it knows of a higher version, and of flags the sampled bit."""
        assert SpanRef.from_traceparent(text) == REF

    @pytest.mark.parametrize("flags", ["00", "02", "fe"])
    def test_without_the_sampled_bit_it_is_not_sampled(self, flags: str) -> None:
        """Only the lowest bit of the flags counts."""
        assert SpanRef.from_traceparent(f"00-{TRACE}-{SPAN}-{flags}") == SpanRef(REF.trace_id, REF.span_id, False)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "00",
            TRACE,
            f"ff-{TRACE}-{SPAN}-01",
            f"00-{TRACE}-{SPAN}",
            f"00-{TRACE}-{SPAN}-",
            f"00-{TRACE}-{SPAN}-1",
            f"00-{TRACE}-{SPAN}-011",
            f"00-{TRACE}-{SPAN}-01-",
            f"00-{TRACE}-{SPAN}-01-extra",
            f"cc-{TRACE}-{SPAN}-01.extra",
            f"cc-{TRACE}-{SPAN}-012",
            f"0-{TRACE}-{SPAN}-01",
            f"000-{TRACE}-{SPAN}-01",
            f"00-{TRACE[1:]}-{SPAN}-01",
            f"00-0{TRACE}-{SPAN}-01",
            f"00-{TRACE}-{SPAN[1:]}-01",
            f"00-{TRACE}-0{SPAN}-01",
            f"00-{TRACE.upper()}-{SPAN}-01",
            f"00-{TRACE}-{SPAN.upper()}-01",
            f"0A-{TRACE}-{SPAN}-01",
            f"00-{TRACE}-{SPAN}-0A",
            f"00_{TRACE}_{SPAN}_01",
            f"00-{TRACE[:-1]}g-{SPAN}-01",
            f"00-{TRACE[:-1]}٣-{SPAN}-01",
            f"00-{TRACE[:-1]} -{SPAN}-01",
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"cc-{TRACE}-{SPAN}-01-a\nb",
            f"\ud800-{TRACE}-{SPAN}-01",
            f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        ],
    )
    def test_every_other_form_is_refused(self, text: str) -> None:
        """What W3C calls invalid names no span, and the error says what was expected."""
        with pytest.raises(InvalidSpanRefError, match="expected a W3C traceparent") as error:
            SpanRef.from_traceparent(text)

        assert error.value.got == text
        str(error.value).encode()

    @pytest.mark.parametrize("value", [None, 5, b"00", ["00"], REF])
    def test_what_is_no_text_is_refused(self, value: object) -> None:
        """Another type is the same error, not another one."""
        with pytest.raises(InvalidSpanRefError):
            SpanRef.from_traceparent(value)  # type: ignore[arg-type]

    @given(st.text(max_size=80))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """No text raises anything else."""
        try:
            assert SpanRef.from_traceparent(text).is_valid
        except InvalidSpanRefError:
            pass


class TestIdentity:
    @given(span_refs())
    def test_backend_ids_are_not_part_of_it(self, ref: SpanRef) -> None:
        """A ref that also knows a backend's id is equal to, and hashes as, the one that does not."""
        other = ref.with_backend_id("galileo", "uuid-1").with_backend_id("braintrust", "row-2")

        assert other == ref
        assert hash(other) == hash(ref)
        assert {ref: 1}[other] == 1
        assert other.backend_ids == {"galileo": "uuid-1", "braintrust": "row-2"}
        assert ref.backend_ids == {}

    @pytest.mark.parametrize(
        "other",
        [SpanRef(REF.trace_id, 1), SpanRef(1, REF.span_id), SpanRef(REF.trace_id, REF.span_id, sampled=False)],
        ids=["span", "trace", "sampled"],
    )
    def test_ids_and_the_sampled_flag_are(self, other: SpanRef) -> None:
        """Any of the three makes another ref."""
        assert other != REF

    @given(span_refs())
    def test_it_survives_pickling_and_copying(self, ref: SpanRef) -> None:
        """A ref goes to another process whole, backend ids included."""
        given = ref.with_backend_id("galileo", "uuid-1")

        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(given, protocol))
            assert (again, again.backend_ids) == (given, given.backend_ids)
        assert copy.deepcopy(given).backend_ids == given.backend_ids

    def test_it_cannot_be_changed(self) -> None:
        """A ref is a value: its backend ids are read-only too."""
        with pytest.raises(AttributeError):
            REF.span_id = 1  # type: ignore[misc]
        with pytest.raises(TypeError):
            REF.with_backend_id("a", "b").backend_ids["a"] = "c"  # type: ignore[index]


class TestValidity:
    def test_no_span_is_the_trace_alone(self) -> None:
        """A ref without a span id names something, but no span."""
        ref = parse_trace_id(TRACE)

        assert (ref.trace_id_hex, ref.span_id_hex, bool(ref), ref.is_valid) == (TRACE, "0" * 16, True, False)

    def test_the_invalid_ref_is_false(self) -> None:
        """It names nothing and its text is all zeros."""
        assert not INVALID_SPAN_REF
        assert INVALID_SPAN_REF.to_traceparent() == f"00-{'0' * 32}-{'0' * 16}-00"

    @pytest.mark.parametrize(("trace_id", "span_id"), [(-1, 1), (1 << 128, 1), (1, -1), (1, 1 << 64)])
    def test_an_id_outside_its_width_is_refused(self, trace_id: int, span_id: int) -> None:
        """128 and 64 bits, not negative."""
        with pytest.raises(InvalidSpanRefError):
            SpanRef(trace_id, span_id)

    @pytest.mark.parametrize(
        "given",
        [
            TRACE,
            TRACE.upper(),
            f"  {TRACE}\n",
            f"0x{TRACE}",
            f"tr-{TRACE}",
            str(uuid.UUID(TRACE)),
            str(uuid.UUID(TRACE)).upper(),
            uuid.UUID(TRACE),
            int(TRACE, 16),
        ],
        ids=repr,
    )
    def test_a_trace_id_is_read_as_backends_and_programs_show_it(self, given: object) -> None:
        """Hex digits in either case, with space around, with the prefix of some, a UUID, a number."""
        assert parse_trace_id(given) == SpanRef(int(TRACE, 16), 0)

    @pytest.mark.parametrize(
        "given",
        [
            *("", "0" * 32, TRACE + "0", TRACE[:-1], "٣" * 32, f"-{TRACE[1:]}", f"{TRACE[:16]}-{TRACE[16:]}"),
            *(None, 0, -1, 1 << 128, True, 1.0, b"x" * 16, uuid.UUID(int=0), f"00-{TRACE}-{SPAN}-01"),
        ],
        ids=repr,
    )
    def test_another_form_of_trace_id_is_refused(self, given: object) -> None:
        """A trace id has 128 bits that are not all zeros."""
        with pytest.raises(InvalidSpanRefError):
            parse_trace_id(given)

    def test_the_text_of_a_ref_may_be_in_upper_case(self) -> None:
        """A name that somebody pastes is no header: there W3C wants lower case."""
        assert SpanRef.from_text(REF.to_traceparent().upper()) == REF

    def test_a_span_context_becomes_a_ref(self) -> None:
        """Ids and the sampled flag are taken from OpenTelemetry."""
        context = SpanContext(REF.trace_id, REF.span_id, is_remote=True, trace_flags=TraceFlags(0))

        assert SpanRef.from_span_context(context) == SpanRef(REF.trace_id, REF.span_id, sampled=False)


class TestFromBackendId:
    UUID = "6f0c9f1e-3c8e-4b0a-9d3e-1f2a3b4c5d6e"

    @pytest.mark.parametrize(
        "copied",
        [
            lambda ref: SpanRef.from_text(str(ref)),
            lambda ref: pickle.loads(pickle.dumps(ref)),
            copy.deepcopy,
            lambda ref: SpanRef(*ref.key).with_backend_ids(ref.backend_ids),
        ],
        ids=["text", "pickle", "copy", "key"],
    )
    def test_it_names_the_same_record_wherever_it_was(self, copied: Callable[[SpanRef], SpanRef]) -> None:
        """As text, pickled, and from its key and ids, which is how a spool keeps it."""
        ref = SpanRef.from_backend_id("galileo", self.UUID)
        other = copied(ref)

        assert other == ref
        assert other.is_backend_only
        assert dict(other.backend_ids) == {"galileo": self.UUID}
        assert str(other) == f"galileo:{self.UUID}"

    def test_it_names_no_span_of_opentelemetry(self) -> None:
        """It is true, because it names something, and its traceparent is that of nothing."""
        ref = SpanRef.from_backend_id("galileo", uuid.UUID(self.UUID))  # type: ignore[arg-type] # its text is meant

        assert (bool(ref), ref.is_valid) == (True, False)
        assert ref.to_traceparent() == f"00-{'0' * 32}-{'0' * 16}-01"

    def test_each_id_is_a_target_of_its_own(self) -> None:
        """Maps of this process are keyed by it."""
        refs = [SpanRef.from_backend_id(backend, one) for backend in ("a", "b") for one in ("x", "y")]

        assert len({ref.key for ref in refs}) == 4

    def test_of_a_trace_update_it_names_the_trace(self) -> None:
        """The id is the trace's then, under the key of the same target."""
        ref = SpanRef.from_backend_id("galileo", self.UUID)

        assert dict(ref.to_trace().backend_ids) == {"galileo.trace": self.UUID}
        assert ref.to_trace().key == ref.key
        assert ref.to_trace().is_backend_only
        assert SpanRef.from_text(str(ref.to_trace())) == ref

    def test_a_span_id_beside_the_id_of_a_backend_stays_one(self) -> None:
        """A span of which the trace is not known is no record of the backend alone."""
        assert not SpanRef(0, 5).with_backend_id("galileo", self.UUID).is_backend_only

    @pytest.mark.parametrize("text", [":x", "galileo:", "galileo: ", "gal ileo:x", "é:x", ":", "galileo"])
    def test_half_of_a_name_is_refused(self, text: str) -> None:
        """There is no such record."""
        with pytest.raises(InvalidSpanRefError):
            SpanRef.from_text(text)
