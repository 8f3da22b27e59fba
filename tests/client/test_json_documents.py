"""Where the JSON documents of a file begin and end."""

from __future__ import annotations

import codecs
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_metadata.client import json_documents
from otel_metadata.client.json_documents import documents

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=3), parts, max_size=3),
    max_leaves=10,
)


def found(content: bytes) -> list[tuple[int, Any]]:
    """Return what is read, with the text of an error in its place."""
    return [(line, f"{one}" if isinstance(one, ValueError) else one) for line, _, one in documents(io.BytesIO(content))]


@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, min_size=1, max_size=3), min_size=1, max_size=4))
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", codecs.BOM_UTF8])
def test_documents_are_the_same_on_one_line_and_on_many(start: bytes, end: str, objects: list[Any]) -> None:
    """Whatever a pretty-printer makes of them; each with the line on which it begins."""
    texts = [json.dumps(one, indent=2, ensure_ascii=False) for one in objects]
    lines = [1 + sum(text.count("\n") + 1 for text in texts[:index]) for index in range(len(texts))]

    for pretty in (False, True):
        written = texts if pretty else [json.dumps(one) for one in objects]
        content = start + "".join(f"{text}\n" for text in written).replace("\n", end).encode("utf-8", "surrogatepass")

        read = found(content)

        assert read == list(zip(lines if pretty else range(1, len(texts) + 1), objects, strict=True))


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (b"", []),
        (b"\n \n", []),
        (b'{"a": 1}', [(1, {"a": 1})]),
        (b'\n{"a": 1}\n\n[2]\n', [(2, {"a": 1}), (4, [2])]),
        (b'[\n{"a": 1},\n{"b":\n2}\n]\n', [(1, [{"a": 1}, {"b": 2}])]),
        (b'\n{"a": [\n1]} {"b": 2}\n\n{"c": 3}', [(2, {"a": [1]}), (3, {"b": 2}), (5, {"c": 3})]),
        (b'{"a": 1}\n{\n{"b": 2}\n', [(1, {"a": 1}), (2, "no JSON (unexpected end of data, column 2)"), (3, {"b": 2})]),
        (b'{"a\n{"b": 2}\n', [(1, "no JSON (unexpected end of data, column 4)"), (2, {"b": 2})]),
        (b'\xff\n{"b": 2}\n', [(1, None), (2, {"b": 2})]),
        (b'{\n"a": NaN}\n{"b": 2}\n', [(1, None), (3, {"b": 2})]),
        (b'{\n"a": "\xff"}\n{"b": 2}\n', [(1, None), (3, {"b": 2})]),
        (b'{\n"a": 1}\n{\n"b": 2\n"c"', [(1, {"a": 1}), (5, "no JSON (Expecting ',' delimiter, column 1)")]),
        (b'{\n"a": 1' + b"0" * 308 + b'}\n{"b": 2}\n', [(1, {"a": 1e308}), (3, {"b": 2})]),
        (b'{\n"a": ' + b"9" * 5_000 + b'}\n{"b": 2}\n', [(1, None), (3, {"b": 2})]),
        (b"[\n" * 100_000, [(1, "JSON that is nested too deeply")]),
    ],
)
def test_what_is_read(content: bytes, read: list[tuple[int, Any]]) -> None:
    """Lines one by one; documents over several lines up to the first that does not end. None stands for any error."""
    shown = [
        (line, None if expected is None and isinstance(one, str) and one.startswith("no JSON (") else one)
        for (line, one), (_, expected) in zip(found(content), read, strict=True)
    ]
    assert shown == read


def test_documents_over_several_lines_are_read_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take memory as a whole."""
    monkeypatch.setattr(json_documents, "MAX_DOCUMENT_BYTES", 1 << 20)

    assert found(b'{\n"a": "' + b"a" * (2 << 20) + b'"}') == [
        (1, "more than 1 MB of JSON over several lines; expected one document a line")
    ]


def test_a_line_is_read_up_to_a_size_and_the_lines_behind_it_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error for each; a line that is just as long as it may be is a document."""
    monkeypatch.setattr(json_documents, "MAX_DOCUMENT_BYTES", 1 << 20)
    told = "a line of more than 1 MB; expected one request a line, of 1 MB at most"
    whole, long = b'"' + b"a" * ((1 << 20) - 2) + b'"', b"[" * (3 << 20)

    assert [(line, len(one)) for line, one in found(whole + b"\n" + whole)] == [
        (1, len(whole) - 2),
        (2, len(whole) - 2),
    ]
    assert found(long + b"\n{}\n" + whole + b"\n" + long) == [(1, told), (2, {}), (3, whole[1:-1].decode()), (4, told)]


def test_a_line_without_end_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe may write one for ever."""
    monkeypatch.setattr(json_documents, "MAX_DOCUMENT_BYTES", 1 << 20)
    monkeypatch.setattr(json_documents, "MAX_SKIPPED_BYTES", 8 << 20)

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:] = b"[" * len(buffer)
            return len(buffer)

    ((line, _, error),) = documents(io.BufferedReader(Endless()))

    assert line == 1
    assert f"{error}".startswith("a line of more than 8 MB, after which nothing was read; expected")


@pytest.mark.parametrize("part", [b"{},", b"[],", b"0,", b'{"a":0},', b"[[{}]],"])
@pytest.mark.parametrize("is_spread", [False, True])
def test_values_are_read_up_to_a_number(monkeypatch: pytest.MonkeyPatch, part: bytes, is_spread: bool) -> None:
    """Three bytes of text take up to 240 bytes as a value."""
    monkeypatch.setattr(json_documents, "MAX_DOCUMENT_VALUES", 1_000)
    many = (b"[\n" if is_spread else b"[") + part * 1_000 + b"0]"

    assert found(many) == [(1, "JSON of more than 1,000 values; expected smaller requests")]
    assert [type(one) for _, one in found(many.replace(part, b"", 900))] == [list]


def test_files_that_were_put_one_behind_the_other_are_read() -> None:
    """Each may have a mark of byte order."""
    one = codecs.BOM_UTF8 + b"{}\n"

    assert found(one * 3) == [(1, {}), (2, {}), (3, {})]
