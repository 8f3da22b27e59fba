"""Secrets that a mask names are searched in all that is written, sent and logged: bytes of files, bodies, log lines.

Every kind of field says one, as value and as key, live, in flight and late, by every public function. The receiver and
the two files are real ones.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.exporters.loopback import Loopback, reply

import otel_metadata as om
from otel_metadata.model.masking import Masking

PLAIN = "visible"
"""Stands beside each secret: what shows that the field itself has come."""

SPAN = "00000000000000ab"
TRACE = f"{7:032x}"


class Secrets:
    """Texts that no other text contains, one for each place."""

    def __init__(self) -> None:
        self.planted: list[str] = []

    def __call__(self, place: str) -> str:
        secret = f"s3cr3t-{len(self.planted):03d}-{place.replace(' ', '-')}@example.org"
        self.planted.append(secret)
        return f"{PLAIN} {secret}"


def replace(value: Any) -> Any:
    """Do by a function what a rule does."""
    if isinstance(value, str):
        return " ".join("***" if "s3cr3t" in word else word for word in value.split(" "))
    if isinstance(value, list):
        return [replace(item) for item in value]
    return {key: replace(item) for key, item in value.items()} if isinstance(value, dict) else value


MASKS: Mapping[str, Callable[[str, Any], Any]] = {
    "rule": Masking(patterns=[r"s3cr3t\S*?@example\.org"]),
    "function": lambda path, value: replace(value),
}


def nested(secret: Secrets, place: str) -> dict[str, Any]:
    """Return a value that says secrets in every part of itself."""
    return {
        secret(f"{place} key"): secret(f"{place} value"),
        "list": [secret(f"{place} item"), {secret(f"{place} deep key"): {"deep": secret(f"{place} deep")}}],
    }


def update(secret: Secrets, when: str, do: Callable[..., om.Receipt]) -> None:
    assert do(
        metadata=nested(secret, f"{when} metadata"),
        attributes={secret(f"{when} attribute key"): secret(f"{when} attribute"), "user.id": secret(f"{when} user id")},
        name=secret(f"{when} name"),
        input=nested(secret, f"{when} input"),
        output=nested(secret, f"{when} output"),
        tags=[secret(f"{when} tag")],
        status="error",
        status_message=secret(f"{when} message"),
    )


def judge(secret: Secrets, when: str, score: Callable[..., om.Receipt], annotate: Callable[..., om.Receipt]) -> None:
    assert score(
        secret(f"{when} evaluation name"),
        label=secret(f"{when} label"),
        explanation=secret(f"{when} explanation"),
        metadata=nested(secret, f"{when} evaluation"),
    )
    for name in ("note", secret(f"{when} annotation name")):
        assert annotate(
            name, label=secret(f"{when} label"), text=secret(f"{when} text"), annotator=secret(f"{when} annotator")
        )


def say_everything(secret: Secrets, flush: Callable[[], object]) -> None:
    """Say a secret in every field, at every time, by every public function."""
    bound = om.using_metadata(
        nested(secret, "using"), user_id=secret("user"), session_id=secret("session"), tags=[secret("using tag")]
    )
    with (
        bound,
        om.start_span(
            secret("start name"),
            metadata=nested(secret, "start"),
            tags=[secret("start tag")],
            input=nested(secret, "start input"),
            attributes={secret("start attribute key"): secret("start attribute")},
        ) as handle,
    ):
        update(secret, "live", om.update_current_span)
        judge(secret, "live", om.score_current_span, om.annotate_current_span)
        assert om.update_current_trace(
            metadata=nested(secret, "trace"),
            name=secret("trace name"),
            user_id=secret("trace user"),
            session_id=secret("trace session"),
            tags=[secret("trace tag")],
            input=nested(secret, "trace input"),
            output=nested(secret, "trace output"),
        )
        om.observe(name=secret("observe name"), metadata=nested(secret, "observe"), tags=[secret("observe tag")])(
            lambda **given: given
        )(given=nested(secret, "argument"))
        list(om.observe(name="generator")(lambda one: iter([one]))(nested(secret, "yielded")))
    for when in ("in flight", "late"):
        update(secret, when, handle.update)
        judge(secret, when, handle.score, handle.annotate)
        assert om.update_trace(handle.ref, metadata=nested(secret, f"{when} trace"))
        flush()
    # What is too much, or cannot be read, is told in the log and in notes.
    om.observe(name="cut")(lambda given: given)({secret("cut key"): "x" * 300_000})
    om.update_span(handle.ref, metadata={secret("not set"): om.UNSET})
    flush()


def text_of(receiver: Loopback) -> bytes:
    """Return what was sent: bodies as they are under the compression, and headers."""
    parts = []
    for request in receiver.requests:
        is_packed = request.headers.get("content-encoding") == "gzip"
        parts += [gzip.decompress(request.body) if is_packed else request.body, repr(request).encode()]
    return b"".join(parts)


def found(secret: Secrets, *texts: bytes) -> list[str]:
    """Return the secrets that are in one of the texts, however a letter outside of ASCII is written there."""
    return [one for one in secret.planted if any(one.encode() in text for text in texts)]


@pytest.fixture
def receiver() -> Iterator[Loopback]:
    """A receiver of OTLP that takes everything."""
    with Loopback(reply(content_type="application/x-protobuf")) as receiver:
        yield receiver


@pytest.mark.parametrize("mask", [*MASKS, None])
def test_what_a_mask_names_is_in_no_file_no_request_and_no_log(
    tmp_path: Path, receiver: Loopback, caplog: pytest.LogCaptureFixture, mask: str | None
) -> None:
    """With a mask none of the secrets is anywhere; without one they are found, which shows that the search works."""
    caplog.set_level(logging.DEBUG)
    secret = Secrets()
    files = tmp_path / "files"
    files.mkdir(mode=0o700)
    written: list[bytes] = []

    def flush() -> None:
        written.extend(file.read_bytes() for file in files.iterdir())  # before: what is delivered is erased
        assert om.flush()
        written.extend(file.read_bytes() for file in files.iterdir())

    provider = TracerProvider(shutdown_on_exit=False)
    address = "http://{}:{}".format(*receiver.address)
    om.configure(
        f"sqlite:///{files / 'spans.db'}",
        address,
        tracer_provider=provider,
        mask=MASKS[mask] if mask is not None else None,
        spool=str(files / "spool.db"),
    )
    say_everything(secret, flush)
    log_from_tables(secret, f"sqlite:///{files / 'spans.db'}")
    flush()
    om.shutdown()
    provider.shutdown()
    written.extend(file.read_bytes() for file in files.iterdir())

    texts = (*written, text_of(receiver), caplog.text.encode())
    assert any(PLAIN.encode() in text for text in texts)
    if mask is not None:
        assert found(secret, *texts) == []
    else:
        # What was said last of each field; what was said before it of the same field has not left.
        missed = set(secret.planted) - set(found(secret, *texts))
        before = ("live-", "in-flight-", "start-", "using-", "user@", "session@", "not-set", "logged-")
        assert {place for one in missed if not (place := one.split("-", 2)[2]).startswith(before)} == set()
        assert len(missed) * 2 < len(secret.planted)


def log_from_tables(secret: Secrets, store: str) -> None:
    """Say a secret in every column of a table."""
    client = om.Client(store)
    row = {
        "context.span_id": SPAN,
        "context.trace_id": TRACE,
        "name": secret("logged name"),
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-01-01T00:00:01Z",
        "status_code": "ERROR",
        "status_message": secret("logged message"),
        f"attributes.{secret('logged attribute key')}": secret("logged attribute"),
        "attributes.metadata": nested(secret, "logged metadata"),
        "attributes.tag.tags": [secret("logged tag")],
        "attributes.session.id": secret("logged session"),
    }
    assert client.spans.log([row]).errors == []
    patch = {"context.span_id": SPAN, "patch_document": nested(secret, "table")}
    assert client.spans.update_metadata([patch]).errors == []
    name = secret("table evaluation name")
    scores = {"context.span_id": SPAN, f"eval.{name}.label": secret("table label"), f"eval.{name}.score": 1}
    assert client.spans.update_evaluations([scores]).errors == []
    update(secret, "client", lambda **given: client.spans.update(SPAN, **given))
    assert not client.spans.update(SPAN, level="trace", metadata=nested(secret, "client trace")).errors
    notes = {
        "context.span_id": SPAN,
        **{part: secret(f"table {part}") for part in ("name", "label", "text", "annotator")},
    }
    assert client.spans.update_annotations([notes]).errors == []
    annotation = {part: secret(f"record {part}") for part in ("name", "label", "text", "annotator")}
    assert client.spans.annotate([{"record_id": SPAN, "values": [annotation]}]).errors == []
    client.close()
