"""How notes and errors name a field: the same words for every backend, never a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_metadata.model.evaluation import Annotation

if TYPE_CHECKING:
    from otel_metadata.model.merge import FieldName, Json

_MAX_KEY_CHARACTERS = 50


def words_for(name: FieldName, value: Json = None) -> str:
    """Return the words that name a field in notes and errors: `metadata 'k'`, `trace user id`, `annotation 'quality'`.

    Args:
        name: The field's name.
        value: The field's value. The name of an annotation is read from it, because the key also holds the annotator.
    """
    level, kind, key = name
    shown = (Annotation.from_json(value).name or key) if kind == "annotation" else key
    words = f"{'trace ' if level == 'trace' else ''}{kind.replace('_', ' ')}"
    return f"{words} {shown[:_MAX_KEY_CHARACTERS]!r}" if shown else words
