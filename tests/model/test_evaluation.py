"""Evaluations and annotations: as the value of a field and back, and keys that never collide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import annotations, evaluations, json_values, texts

from otel_metadata.model.evaluation import Annotation, Evaluation, annotation_key
from otel_metadata.model.merge import Json, json_text


@given(evaluations())
def test_an_evaluation_reads_back_as_itself(evaluation: Evaluation) -> None:
    """The value of its field, with its name as the key, is the evaluation."""
    assert Evaluation.from_json(evaluation.name, evaluation.to_json()) == evaluation


@given(annotations())
def test_an_annotation_reads_back_as_itself(annotation: Annotation) -> None:
    """The value of its field is the annotation."""
    assert Annotation.from_json(annotation.to_json()) == annotation


def test_an_evaluation_says_only_what_was_given() -> None:
    """The name is the key of the field, and what was not given is not there."""
    assert Evaluation("Correctness", score=0.5).to_json() == {"source": "code", "score": 0.5}
    assert Evaluation("C", 1, "ok", "why", "llm", {"model": None}).to_json() == {
        "source": "llm",
        "score": 1,
        "label": "ok",
        "explanation": "why",
        "metadata": {"model": None},
    }


def test_zero_and_the_empty_text_are_values() -> None:
    """Only None is left out."""
    assert Evaluation("C", score=0.0, label="").to_json() == {"source": "code", "score": 0.0, "label": ""}
    assert Annotation("q", score=0, text="").to_json() == {"name": "q", "score": 0, "text": ""}


@given(json_values())
def test_any_value_reads_as_some_verdict(value: Json) -> None:
    """What a foreign exporter wrote never raises."""
    assert Evaluation.from_json("C", value).name == "C"
    assert isinstance(Annotation.from_json(value).name, str)


@pytest.mark.parametrize("wrong", [[], {}, None, True, "maybe", ["llm"]], ids=repr)
def test_a_part_of_another_type_is_left_out(wrong: Json) -> None:
    """A source that is none of ours is a program; a score that is no number is none."""
    read = Evaluation.from_json("C", {"source": wrong, "score": wrong, "label": 5, "metadata": 5})

    assert read == Evaluation("C")


class TestAnnotationKey:
    @given(
        st.tuples(texts(), st.none() | texts())
        | st.tuples(texts(), texts()).map(lambda pair: (json_text([*pair]), None)),
        st.tuples(texts(), st.none() | texts()),
    )
    def test_two_annotations_never_share_a_key(self, one: tuple[str, str | None], two: tuple[str, str | None]) -> None:
        """Name and annotator can be told from the key, whatever they are made of."""
        assert (annotation_key(*one) == annotation_key(*two)) == (one == two)

    @given(texts(), texts())
    def test_a_name_that_looks_like_a_key_is_not_taken_for_it(self, name: str, annotator: str) -> None:
        """The key of a pair, used as a name or wrapped again, is another key."""
        key = annotation_key(name, annotator)
        wrapped = annotation_key(key, None)

        assert len({key, wrapped, annotation_key(wrapped, None), annotation_key(key, annotator)}) == 4

    def test_a_plain_name_is_its_own_key(self) -> None:
        """Without an annotator the key is what people search for."""
        assert annotation_key("quality", None) == "quality"
        assert annotation_key("quality", "") == '["quality",""]'
