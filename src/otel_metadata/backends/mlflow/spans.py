"""Spans whose texts MLflow can read back, and reads back unchanged.

MLflow parses a text that looks like JSON, and takes the quotes off a text that is a JSON string. A text with an integer
beyond 64 bits, or with too many levels, is stored with a success, and from then on MLflow answers 500 for the whole
trace; with a thousand levels, it refuses the whole batch (measured with MLflow 3.17.2). Such texts are put in quotes,
which MLflow takes off again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from otel_metadata.exporters.altered_spans import with_texts
from otel_metadata.model.merge import json_text
from otel_metadata.model.value import STORE_LIMITS, clean

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

# MLflow can read 32 nested objects.
_READABLE: Final = STORE_LIMITS._replace(depth=30)

_BEGINNINGS: Final = ('"', "{", "[")


def readable(span: ReadableSpan) -> ReadableSpan:
    """Return *span*, or a view of it in which texts that would not come back unchanged are in quotes."""
    return with_texts(span, lambda _, text: quoted(text))


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
