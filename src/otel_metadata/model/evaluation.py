"""Verdicts on a span: evaluations by a program or judge, annotations by a person.

This module decides what a verdict consists of and how it is kept as the value of one field.
It does not decide how a backend spells it (`dialects`, `exporters`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, final

from otel_metadata.model.merge import Json, json_text

__all__ = ["Annotation", "Evaluation", "Source", "annotation_key"]

Source: TypeAlias = Literal["code", "llm", "human"]
"""Who judged: a program, a judge model, a person. Phoenix calls it annotator kind, MLflow source type."""


@final
@dataclass(frozen=True, slots=True)
class Evaluation:
    """A verdict by a program or a judge model. Upserted by name: a second one replaces the first whole.

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
        """Return the value of the field: without the name, which is its key, and without what was not given."""
        parts = {"score": self.score, "label": self.label, "explanation": self.explanation}
        value: dict[str, Json] = {"source": self.source, **_given(parts)}
        if self.metadata is not None:
            value["metadata"] = dict(self.metadata)
        return value

    @classmethod
    def from_json(cls, name: str, value: Json) -> Evaluation:
        """Read the value of a field; what is not there, or of another type, is None."""
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
    """A note, label or rating by a person. Upserted by name and annotator.

    Attributes:
        name: What the note is about, for example "quality".
        label: A word, or None.
        score: A number, or None.
        text: Free text, or None.
        annotator: Who, or None.
    """

    name: str
    label: str | None = None
    score: float | None = None
    text: str | None = None
    annotator: str | None = None

    def to_json(self) -> dict[str, Json]:
        """Return the value of the field: its key holds name and annotator, and they are here too for readers."""
        parts = {"label": self.label, "score": self.score, "text": self.text, "annotator": self.annotator}
        return {"name": self.name, **_given(parts)}

    @classmethod
    def from_json(cls, value: Json) -> Annotation:
        """Read the value of a field; what is not there, or of another type, is None."""
        parts = value if isinstance(value, dict) else {}
        return cls(
            name=_text(parts.get("name")) or "",
            label=_text(parts.get("label")),
            score=_number(parts.get("score")),
            text=_text(parts.get("text")),
            annotator=_text(parts.get("annotator")),
        )


def annotation_key(name: str, annotator: str | None) -> str:
    """Return the key of the field: *name* alone, or the JSON text of [name, annotator], which no bare name equals.

    A bare name that itself looks like such a pair is wrapped as [name], so that two fields never share a key.
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
