"""The `mlflow` dialect: fields of the trace as trace tags on the root, span metadata as one JSON text.

MLflow parses a text that looks like JSON, so `metadata` keeps every null and every integer. It takes the tags of a
trace from `mlflow.traceTag.<key>` on the span without a parent, and from no other span. Without an error it skips a key
that it does not allow, and cuts a long value; for a session of 251 characters it refuses the whole batch. So a field
that does not fit leaves as a patch, which gets an answer (measured with MLflow 3.17.2). Evaluations and annotations
leave as a patch too. `backends.mlflow.spans` makes sure that a text comes back as the same text.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, final

from otel_metadata.dialects.canonical import as_text, spell, tags_attribute, to_attributes
from otel_metadata.dialects.openinference import METADATA, as_object
from otel_metadata.dialects.spelling import encoded, is_attribute, of_kind, own_tags
from otel_metadata.model.merge import Field, FieldName, Fields, Json, json_text

if TYPE_CHECKING:
    from otel_metadata.model.encoding import Encoded, SpanView
    from otel_metadata.model.outcome import ErrorType

MAX_TAG_CHARACTERS: Final = 4096
"""Characters, not bytes, of the value of a trace tag. MLflow cuts a longer one, and answers with a success."""

MAX_NAME_CHARACTERS: Final = 250
"""Characters of a tag's key, of a user or session on a span, and of the name and the author of an assessment."""

_TAG_PREFIX: Final = "mlflow.traceTag."
_RESERVED_PREFIX: Final = "mlflow."
_TAG_KEY: Final = re.compile(r"[\w./: -]+")
_TAG_OF_KIND: Final = {"name": "mlflow.traceName", "user_id": "user.id", "session_id": "session.id"}
_WHO: Final = frozenset({"user_id", "session_id"})


class TraceTag(NamedTuple):
    """The trace tag that holds a field of the trace.

    Attributes:
        key: Its key.
        text: Its value.
        fault: The type of an error and a reason, where MLflow does not take the tag; else None.
    """

    key: str
    text: str
    fault: tuple[ErrorType, str] | None


def trace_tag(name: FieldName, value: Json) -> TraceTag | None:
    """Return the trace tag for a field of the trace; None for a kind that no tag holds.

    A tag becomes MLflow's tag `tag.<text>`: MLflow's tags have keys, so several are kept side by side, and none gets in
    the way of a metadata key.
    """
    _, kind, key = name
    if kind in {"metadata", "tag"}:
        tag = key if kind == "metadata" else f"tag.{key}"
    elif kind in _TAG_OF_KIND and isinstance(value, str):
        tag = _TAG_OF_KIND[kind]
    else:
        return None
    text = as_text(value)
    fault: tuple[ErrorType, str] | None = None
    if kind == "metadata" and key.startswith(_RESERVED_PREFIX):
        fault = "unsupported", f"keys that begin with {_RESERVED_PREFIX} are MLflow's own"
    elif not _is_tag_key(tag):
        letters = "letters, digits, blanks and _-.:/ that read as a clean path"
        fault = "unsupported", f"MLflow takes keys of {letters}, at most {MAX_NAME_CHARACTERS} characters"
    elif len(text) > MAX_TAG_CHARACTERS:
        fault = "too_large", f"MLflow cuts a trace tag after {MAX_TAG_CHARACTERS} characters"
    return TraceTag(tag, text, fault)


@final
class MlflowDialect:
    """Trace tags on the root, metadata as one JSON text, the rest in canonical spelling, verdicts as a patch."""

    def encode(self, span: SpanView, fields: Fields, *, is_local_root: bool) -> Encoded:
        """Return the span's attributes with *fields*, name, status, and the fields that leave as a patch."""
        spelled: dict[str, Json] = {}
        remainder: dict[FieldName, Field] = {}
        for name, field in sorted(fields.items(), key=lambda item: (item[1][1], item[0])):
            parts = _spelled(name, field[0], is_root=is_local_root and span.parent is None)
            if parts is None:
                remainder[name] = field
            else:
                spelled.update(parts)
        attributes, _ = to_attributes(spelled)
        metadata = of_kind(fields, "span", "metadata")
        if metadata:
            attributes[METADATA] = json_text({**as_object((span.attributes or {}).get(METADATA)), **metadata})
        if any(name[:2] == ("span", "tag") for name in fields):
            attributes[tags_attribute("span")] = own_tags(span, fields, "span")
        result = encoded(span, fields, attributes, remainder)
        # Its canonical attribute must not stay on the span: MLflow would cut it, or refuse the batch for it.
        unfit = {one for name, (value, _) in remainder.items() if name[1] in _WHO for one in spell(name, value)}
        unfit -= attributes.keys()
        return replace(result, attributes={key: one for key, one in result.attributes.items() if key not in unfit})


def _spelled(name: FieldName, value: Json, *, is_root: bool) -> dict[str, Json] | None:
    """Return one field as attributes: an empty dict where others spell it too, None where it leaves as a patch."""
    level, kind, _ = name
    if not is_attribute(name):
        return None
    if kind in _WHO:
        # Any span of the trace may name the user or session; the first one wins.
        fits = isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS
        return spell(name, value) if fits else None
    if level == "span":
        return {} if kind in {"metadata", "tag"} else spell(name, value)
    tag = trace_tag(name, value)
    if not is_root or (tag is not None and tag.fault is not None):
        return None
    # The input and output of a trace are not tags: they stay on its root.
    return spell(name, value) if tag is None else {f"{_TAG_PREFIX}{tag.key}": tag.text}


def _is_tag_key(key: str) -> bool:
    # As MLflow checks it (utils/validation.py, _validate_tag_name), but for a line end, which it lets pass at the end.
    is_clean_path = posixpath.normpath(key) == key and key != "." and not key.startswith(("..", "/"))
    return len(key) <= MAX_NAME_CHARACTERS and _TAG_KEY.fullmatch(key) is not None and is_clean_path
