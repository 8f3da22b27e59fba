"""Spans so that MLflow reads back the texts on them as they were, and can read them back at all.

MLflow reads a text that looks like JSON into structure. It takes the quotes off one that is itself a text in JSON. One
with an integer beyond 64 bits, or with more levels than its readers bear, it stores with a success, and from then on
answers 500 for the whole trace; one with a thousand levels refuses the whole batch (measured with MLflow 3.17.2). Such
a text is put in quotes, which MLflow takes off again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from otel_metadata.exporters.altered_spans import altered
from otel_metadata.model.merge import json_text
from otel_metadata.model.value import STORE_LIMITS, clean

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["quoted", "readable"]

# 32 objects in each other can be read.
_READABLE: Final = STORE_LIMITS._replace(depth=30)

_BEGINNINGS: Final = ('"', "{", "[")


def readable(span: ReadableSpan) -> ReadableSpan:
    """Return *span*, or a view of it in which texts that would not come back are in quotes."""
    own = span.attributes or {}
    changed = {
        name: text for name, value in own.items() if isinstance(value, str) and (text := quoted(value)) is not value
    }
    return altered(span, attributes={**own, **changed}) if changed else span


def quoted(text: str) -> str:
    """Return *text*, or the text in JSON that MLflow reads back as *text*."""
    if not text.lstrip().startswith(_BEGINNINGS):
        return text
    try:
        found = json.loads(text)  # not orjson: it takes a large integer for a float
    except RecursionError:
        return json_text(text)
    except ValueError:
        return text
    return json_text(text) if isinstance(found, str) or clean(found, [], "", _READABLE) != found else text
