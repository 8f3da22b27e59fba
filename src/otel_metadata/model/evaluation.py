"""Verdicts on a span: evaluations by a program or a judge model, annotations by a person.

This module decides the parts of a verdict, and how a field holds it as its value. `dialects` and `backends` decide how
a backend spells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, final

from otel_metadata.model.merge import Json, json_text

Source: TypeAlias = Literal["code", "llm", "human"]
"""Who judged: a program, a judge model or a person. Phoenix calls this annotator kind, MLflow source type."""


@final
@dataclass(frozen=True, slots=True)
class Evaluation:
    """A verdict by a program or a judge model. A second one of the same name replaces the first as a whole.

    Attributes:
        name: What was judged, for example "Correctness".
        score: A number, or None.
        label: A word, for example "correct", or None.
        explanation: Why, or None.
        source: Who judged.
        metadata: A JSON object about the verdict itself, or None.
    """

    name: str
    score: float | None = None
    label: str | None = None
    explanation: str | None = None
    source: Source = "code"
    metadata: Mapping[str, Json] | None = None

    def to_json(self) -> dict[str, Json]:
        """Return the value of the field, without parts that are None. The name is the field's key."""
        parts = {"score": self.score, "label": self.label, "explanation": self.explanation}
        value: dict[str, Json] = {"source": self.source, **_given(parts)}
        if self.metadata is not None:
            value["metadata"] = dict(self.metadata)
        return value

    @classmethod
    def from_json(cls, name: str, value: Json) -> Evaluation:
        """Read the value of a field; a part that is missing, or has another type, is None."""
        parts = value if isinstance(value, dict) else {}
        metadata = parts.get("metadata")
        source = parts.get("source")
        return cls(
            name=name,
            score=_number(parts.get("score")),
            label=_text(parts.get("label")),
            explanation=_text(parts.get("explanation")),
            # A tuple: what a foreign exporter wrote here may be a list, which has no hash.
            source=cast("Source", source) if source in ("code", "llm", "human") else "code",
            metadata=metadata if isinstance(metadata, dict) else None,
        )


@final
@dataclass(frozen=True, slots=True)
class Annotation:
    """A note, label or rating by a person. A second one of the same name and annotator replaces the first.

    Attributes:
        name: What the note is about, for example "quality".
        label: A word, or None.
        score: A number, or None.
        text: Free text, or None.
        annotator: Who made it, or None.
    """

    name: str
    label: str | None = None
    score: float | None = None
    text: str | None = None
    annotator: str | None = None

    def to_json(self) -> dict[str, Json]:
        """Return the value of the field. It has name and annotator for readers, though the field's key has them too."""
        parts = {"label": self.label, "score": self.score, "text": self.text, "annotator": self.annotator}
        return {"name": self.name, **_given(parts)}

    @classmethod
    def from_json(cls, value: Json) -> Annotation:
        """Read the value of a field; a part that is missing, or has another type, is None."""
        parts = value if isinstance(value, dict) else {}
        return cls(
            name=_text(parts.get("name")) or "",
            label=_text(parts.get("label")),
            score=_number(parts.get("score")),
            text=_text(parts.get("text")),
            annotator=_text(parts.get("annotator")),
        )


def annotation_key(name: str, annotator: str | None) -> str:
    """Return the key of the field: *name*, or the JSON text of [name, annotator].

    A name that begins with a bracket is written as [name], so that two fields never share a key.
    """
    if annotator is not None:
        return json_text([name, annotator])
    return json_text([name]) if name.startswith("[") else name


def _given(parts: Mapping[str, str | float | None]) -> dict[str, Json]:
    return {key: part for key, part in parts.items() if part is not None}


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Json) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
