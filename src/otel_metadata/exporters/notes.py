"""How notes and errors name a field: the same words for every backend, never a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_metadata.model.evaluation import Annotation

if TYPE_CHECKING:
    from otel_metadata.model.merge import FieldName, Json

__all__ = ["words_for"]

_MAX_KEY_CHARACTERS = 50


def words_for(name: FieldName, value: Json = None) -> str:
    """Return what people read for a field: `metadata 'k'`, `trace user id`, `annotation 'quality'`.

    Args:
        name: Of the field.
        value: Of an annotation, whose name is in there: its key holds the annotator too.
    """
    level, kind, key = name
    shown = (Annotation.from_json(value).name or key) if kind == "annotation" else key
    words = f"{'trace ' if level == 'trace' else ''}{kind.replace('_', ' ')}"
    return f"{words} {shown[:_MAX_KEY_CHARACTERS]!r}" if shown else words
