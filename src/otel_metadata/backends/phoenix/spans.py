"""Spans that Phoenix can store.

Phoenix reads a few attributes as JSON when a span arrives. For an integer beyond 64 bits in one of them it drops the
whole span without an error, after the export has succeeded (measured with 20.26.1). Such an integer becomes text.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from otel_metadata.exporters.altered_spans import with_texts
from otel_metadata.model.merge import json_text
from otel_metadata.model.value import STORE_LIMITS, clean

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

# OpenInference semantic conventions: the attributes whose text is JSON.
_READ: Final = re.compile(r"metadata|llm\.prompt_template\.variables|tool\.parameters|.*\.document\.metadata")


def storable(span: ReadableSpan) -> ReadableSpan:
    """Return *span*, or a view of it in which integers that cannot be stored are text."""
    return with_texts(span, _cleaned)


def _cleaned(name: str, text: str) -> str:
    if _READ.fullmatch(name) is None:
        return text
    try:
        found = json.loads(text)  # not orjson: it takes a large integer for a float
    except (ValueError, RecursionError):
        return text
    plain = clean(found, [], "", STORE_LIMITS)
    return text if plain == found else json_text(plain)
