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
    return [(line, f"{one}" if isinstance(one, ValueError) else one) for line, one in documents(io.BytesIO(content))]


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
    """They take memory as a whole; lines do not."""
    monkeypatch.setattr(json_documents, "MAX_SPREAD_BYTES", 1 << 20)
    one_line = json.dumps({"a": "a" * (2 << 20)}).encode()

    assert found(b'{\n"a": "' + b"a" * (2 << 20) + b'"}') == [
        (1, "more than 1 MB of JSON over several lines; expected one document a line")
    ]
    assert [line for line, _ in found(one_line + b"\n" + one_line)] == [1, 2]
