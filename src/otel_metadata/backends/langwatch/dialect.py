"""The `langwatch` dialect.

LangWatch has one metadata object for the whole trace. It builds it from the attributes of all spans: the first value of
a key wins, and children arrive before their parents. So:

- The trace's metadata is on the local root, as one JSON text (`metadata`), together with the root's own.
- A child's metadata is its `langwatch.params`, which LangWatch shows with the span. It hides nothing of the trace.
- A key of the root's own that the trace has too is in the root's `langwatch.params`.
- The canonical attributes of a child do not leave: LangWatch reads `metadata.<key>` of any span as the trace's.

Evaluations and annotations are no attributes in LangWatch: they leave as a patch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import orjson

from otel_metadata.dialects.canonical import as_text, spell, texts, to_attributes
from otel_metadata.dialects.spelling import encoded, is_attribute, own_tags
from otel_metadata.model.merge import Field, FieldName, Fields, Json, Level, json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_metadata.model.encoding import Encoded, SpanView

METADATA: Final = "metadata"
PARAMS: Final = "langwatch.params"
LABELS: Final = "langwatch.labels"
IDS: Final[Mapping[str, str]] = {"user_id": "langwatch.user.id", "session_id": "langwatch.thread.id"}

# In metadata these keys are ids of the trace; LangWatch loses them unless they are texts.
_ID_KEYS: Final = frozenset({"user_id", "userId", "thread_id", "threadId", "customer_id", "customerId"})
_LEVELS: Final[tuple[Level, Level]] = ("span", "trace")
_IO: Final = frozenset({"input", "output"})
_MAX_SAFE_INTEGER: Final = (1 << 53) - 1  # ECMA-262, Number.MAX_SAFE_INTEGER: beyond it LangWatch rounds


@final
class LangWatchDialect:
    """Metadata as one JSON text, ids, labels, input and output under LangWatch's names, verdicts as a patch."""

    def encode(self, span: SpanView, fields: Fields, *, is_local_root: bool) -> Encoded:
        """Return the span's attributes with *fields*, name, status, and the fields that leave as a patch."""
        metadata: dict[str, Json] = {}
        hidden: dict[str, Json] = {}
        spelled: dict[str, Json] = {}
        remainder: dict[FieldName, Field] = {}
        # Input and output come last, and the trace's after the span's: LangWatch shows the last one.
        for name, field in sorted(fields.items(), key=lambda item: (item[0][1] in _IO, item[1][1], item[0])):
            (level, kind, key), value = name, field[0]
            if not is_attribute(name) or (level == "trace" and not is_local_root):
                remainder[name] = field
            elif kind == "metadata":
                is_hidden = is_local_root and level == "span" and ("trace", kind, key) in fields
                (hidden if is_hidden else metadata)[key] = _kept(key, value)
            elif kind in IDS:
                spelled[IDS[kind]] = as_text(value)
            elif kind in _IO:
                if level == "span" and ("trace", kind, "") in fields:
                    spelled.update(spell(name, value))
                else:
                    spelled[f"langwatch.{kind}"] = json_text(_typed(value))
            elif kind != "tag":
                spelled.update(spell(name, value))
        attributes, _ = to_attributes(spelled)
        place = METADATA if is_local_root else PARAMS
        own = _own_object(span, place)
        if metadata:
            attributes[place] = json_text({**own, **metadata})
        if hidden:
            attributes[PARAMS] = json_text({**_own_object(span, PARAMS), **hidden})
        levels = [at for at in _LEVELS if is_local_root or at == "span"]
        if any(name[1] == "tag" and name[0] in levels for name in fields):
            # Where this attribute is set, LangWatch does not look for labels in the metadata.
            also = as_labels({**own, **metadata}.get("labels", [])) if is_local_root else []
            tags = [tag for level in levels for tag in own_tags(span, fields, level)]
            attributes[LABELS] = [*dict.fromkeys([*texts(_own(span, LABELS)), *also, *tags])]
        return encoded(span, fields, attributes, remainder)


def as_labels(value: Json) -> list[str]:
    """Return the value of the metadata key `labels` as the list of texts that LangWatch takes."""
    return [as_text(one) for one in (value if isinstance(value, list) else [value])]


def _kept(key: str, value: Json) -> Json:
    """Return *value* in a form that LangWatch keeps: it drops nulls, and rounds integers beyond 53 bits."""
    if key == "labels":
        return [*as_labels(value)]
    is_rounded = isinstance(value, int) and abs(value) > _MAX_SAFE_INTEGER
    return as_text(value) if value is None or is_rounded or key in _ID_KEYS else value


def _typed(value: Json) -> dict[str, Json]:
    return {"type": "text" if isinstance(value, str) else "json", "value": value}


def _own(span: SpanView, name: str) -> object:
    """Return the attribute that the application or LangWatch's SDK has set, read as JSON where it is JSON."""
    raw = (span.attributes or {}).get(name)
    try:
        return orjson.loads(raw) if isinstance(raw, str) else raw
    except orjson.JSONDecodeError:
        return raw


def _own_object(span: SpanView, name: str) -> dict[str, Json]:
    found = _own(span, name)
    return found if isinstance(found, dict) else {}
