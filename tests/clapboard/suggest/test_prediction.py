"""Predictions from embeddings done by hand, as Label Studio must be able to take them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

from clapboard.labels.label_config import parse_label_config
from clapboard.labels.prompts import NEGATIVES
from clapboard.suggest.head import ControlHead, Head, zero_shot_head
from clapboard.suggest.prediction import (
    Prediction,
    model_version,
    predict,
    predict_many,
    prompt_groups,
    result_id,
    shown_name,
    space_id,
)

SCALE = math.log(9)  # a cosine of 1 against one of 0 gives odds of 9 to 1
X, Y, NEUTRAL = [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]


@dataclass(frozen=True)
class Name:
    model: str = "mini"
    version: str = "3f2a9c1d0000"


def config(*controls: str) -> str:
    return f'<View><Audio name="audio" value="$audio"/>{"".join(controls)}</View>'


def choices(*labels: str, name: str = "clip", attributes: str = "") -> str:
    found = "".join(f'<Choice value="{label}"/>' for label in labels)
    return f'<Choices name="{name}" toName="audio" {attributes}>{found}</Choices>'


def made(xml: str, windows: list[list[float]], weights: list[list[float]]) -> Prediction:
    """The prediction, once label-studio-sdk has found nothing wrong with it."""
    space = parse_label_config(xml)
    head = zero_shot_head(space, np.array([*weights, NEUTRAL], np.float32), SCALE)
    found = predict(space, np.array(windows, np.float32), head, "v1")
    item = {"model_version": "v1", "score": found.score, "result": found.result}
    assert LabelInterface(xml).validate_prediction(item, return_errors=True) == []
    assert type(found.score) is float
    return found


def chosen(found: Prediction) -> dict[str, list[str]]:
    return {result["from_name"]: result["value"]["choices"] for result in found.result}


def test_many_recordings_are_predicted_to_the_bit_as_each_alone() -> None:
    rng = np.random.default_rng(5)
    space = parse_label_config(
        config(
            choices(*"abcde", name="one"),
            choices(*"fgh", name="any", attributes='choice="multiple" model_score_threshold="0.4"'),
            choices("i", name="single"),
        )
    )
    dim = 67  # no multiple of what a processor takes at once
    head = Head(
        tuple(
            ControlHead(*(rng.normal(size=shape).astype(np.float32) for shape in ((dim,), (labels, dim), (labels,))))
            for labels in (5, 3, 1)
        )
    )
    recordings = [rng.normal(size=(1 + number % 9, dim)).astype(np.float32) for number in range(300)]
    many = predict_many(space, recordings, head, "v1")
    assert many == [predict(space, one, head, "v1") for one in recordings]
    assert many[::-1] == predict_many(space, recordings[::-1], head, "v1")
    assert {type(one.score) for one in many} == {float}
    assert predict_many(space, [], head, "v1") == []


def test_many_windows_are_predicted_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    space = parse_label_config(config(choices("a", "b")))
    head = zero_shot_head(space, np.array([X, Y, NEUTRAL], np.float32), SCALE)
    recordings = [np.array([X, Y, X, X][: 1 + i % 4], np.float32) for i in range(11)]
    whole = predict_many(space, recordings, head, "v1")
    monkeypatch.setattr("clapboard.suggest.prediction._WINDOWS_AT_ONCE", 3)
    assert predict_many(space, recordings, head, "v1") == whole


class TestSingleChoice:
    def test_the_best_label_is_chosen_with_its_score(self) -> None:
        found = made(config(choices("dog", "rain")), [X], [X, Y])
        assert found.score == pytest.approx(0.9)
        assert found.result == [
            {
                "id": result_id("clip", "v1"),
                "from_name": "clip",
                "to_name": "audio",
                "type": "choices",
                "value": {"choices": ["dog"]},
                "score": pytest.approx(0.9),
            }
        ]
        assert type(found.result[0]["score"]) is float

    def test_an_unsure_model_still_suggests_something(self) -> None:
        found = made(config(choices("a", "b", "c")), [X], [X, X, X])
        assert chosen(found) == {"clip": ["a"]}
        assert found.score == pytest.approx(1 / 3)

    @pytest.mark.parametrize(("threshold", "labels"), [("0.89", ["dog"]), ("0.91", None), ("0", ["dog"])])
    def test_a_threshold_is_obeyed_to_the_letter(self, threshold: str, labels: list[str] | None) -> None:
        attributes = f'model_score_threshold="{threshold}"'
        found = made(config(choices("dog", "rain", attributes=attributes)), [X], [X, Y])
        assert chosen(found) == ({"clip": labels} if labels else {})
        assert found.score == pytest.approx(0.9)

    def test_what_is_stored_is_the_alias(self) -> None:
        xml = config('<Choices name="clip" toName="audio"><Choice value="Hund" alias="dog"/></Choices>')
        assert chosen(made(xml, [X], [X])) == {"clip": ["dog"]}


class TestMultipleChoice:
    MULTIPLE = 'choice="multiple"'

    def test_every_label_above_the_neutral_prompts_is_chosen_best_first(self) -> None:
        weights = [[0.2, 0.0], [-0.5, 0.0], X]
        found = made(config(choices("a", "b", "c", attributes=self.MULTIPLE)), [X], weights)
        assert chosen(found) == {"clip": ["c", "a"]}
        assert found.result[0]["score"] == pytest.approx(0.9)
        # sure of each: 9^0.2, 9^0.5 and 9 to 1
        sure = [9**0.2 / (1 + 9**0.2), 9**0.5 / (1 + 9**0.5), 0.9]
        assert found.score == pytest.approx(sum(sure) / 3)

    def test_the_best_label_is_suggested_even_if_none_is_above_the_neutral_prompts(self) -> None:
        found = made(config(choices("a", "b", attributes=self.MULTIPLE)), [X], [[-1.0, 0.0], [-0.5, 0.0]])
        assert chosen(found) == {"clip": ["b"]}

    def test_a_threshold_is_obeyed_to_the_letter(self) -> None:
        for threshold, labels in (("0.85", {"clip": ["a"]}), ("0.95", {}), ("0.1", {"clip": ["a", "b"]})):
            attributes = f'{self.MULTIPLE} model_score_threshold="{threshold}"'
            found = made(config(choices("a", "b", attributes=attributes)), [X], [X, [-0.9, 0.0]])
            assert chosen(found) == labels

    def test_labels_are_found_in_different_windows(self) -> None:
        found = made(config(choices("a", "b", attributes=self.MULTIPLE)), [X, Y], [X, Y])
        assert chosen(found) == {"clip": ["a", "b"]}


class TestSeveralControls:
    XML = config(choices("dog", "rain"), choices("near", "far", name="place"), '<TextArea name="t" toName="audio"/>')

    def test_each_has_its_result_and_the_least_sure_one_gives_the_tasks_score(self) -> None:
        half = [math.sqrt(0.5), math.sqrt(0.5)]
        found = made(self.XML, [X], [X, Y, half, half])
        assert chosen(found) == {"clip": ["dog"], "place": ["near"]}
        assert found.score == pytest.approx(0.5)
        assert len({result["id"] for result in found.result}) == 2

    def test_each_reads_its_own_rows_of_the_class_weights(self) -> None:
        assert chosen(made(self.XML, [Y], [X, Y, Y, X])) == {"clip": ["rain"], "place": ["near"]}

    def test_the_prompts_stand_in_the_order_of_the_rows(self) -> None:
        space = parse_label_config(self.XML)
        groups = prompt_groups(space)
        assert len(groups) == 5
        assert groups[-1] == NEGATIVES
        assert [any("rain" in prompt for prompt in group) for group in groups] == [False, True, False, False, False]

    def test_a_config_without_choices_predicts_nothing(self) -> None:
        found = predict(
            parse_label_config(config('<TextArea name="t" toName="audio"/>')), np.array([X], np.float32), Head(()), "v1"
        )
        assert found == Prediction([], 0.0)


def test_scores_stay_within_bounds_where_float32_rounds_over_one() -> None:
    rng = np.random.default_rng(1)
    space = parse_label_config(config(choices("a", "b"), choices("c", "d", name="m", attributes='choice="multiple"')))
    for scale in (1.0, 100.0):
        for _ in range(50):
            vectors = rng.normal(size=(6, 8)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            found = predict(space, vectors[:1], zero_shot_head(space, vectors[1:], scale), "v1")
            for score in (found.score, *(result["score"] for result in found.result)):
                assert 0.0 <= score <= 1.0


def test_a_results_id_tells_control_and_version_and_label_studio_keeps_it() -> None:
    xml = config(choices("dog", "rain"), choices("near", "far", name="place"))
    space = parse_label_config(xml)
    head = zero_shot_head(space, np.array([X, Y, X, Y, NEUTRAL], np.float32), SCALE)
    ids = [
        result["id"]
        for version in ("v1", "v2", "v1")
        for result in predict(space, np.array([X], np.float32), head, version).result
    ]
    assert ids[:2] == [result_id("clip", "v1"), result_id("place", "v1")] == ids[4:]
    assert len(set(ids)) == 4
    assert all(re.fullmatch("clapboard-(clip|place)-[0-9a-f]{8}", found) for found in ids)


class TestModelVersion:
    SPACE = parse_label_config(config(choices("dog", "rain")))

    def test_it_names_encoder_and_head(self) -> None:
        assert model_version(Name(), self.SPACE) == f"mini-3f2a9c1d.zero-shot.{space_id(self.SPACE)}"
        assert (
            model_version(Name(), self.SPACE, "head-00112233") == f"mini-3f2a9c1d.head-00112233.{space_id(self.SPACE)}"
        )
        assert re.fullmatch("[0-9a-f]{8}", space_id(self.SPACE))

    @pytest.mark.parametrize(
        ("model", "name"),
        [
            ("laion/clap-htsat-unfused", "clap-htsat-unfused"),
            ("/models/my clap/", "my-clap"),
            ("/models/çłap", "ap"),
            ("/", "clap"),
            ("a.b", "a-b"),
        ],
    )
    def test_a_models_name_is_made_fit_for_it(self, model: str, name: str) -> None:
        assert model_version(Name(model), self.SPACE).startswith(f"{name}-3f2a9c1d.zero-shot.")

    def version(self, *controls: str, name: Name = Name()) -> str:  # frozen
        return model_version(name, parse_label_config(config(*controls)))

    @pytest.mark.parametrize(
        ("version", "name"),
        [
            ("mini-3f2a9c1d.zero-shot.b81c22aa", "mini-3f2a9c1d.b81c22aa"),
            ("mini-3f2a9c1d.head-00112233.b81c22aa", "mini-3f2a9c1d.b81c22aa"),
            ("a.b-3f2a9c1d.head-00112233.b81c22aa", "a.b-3f2a9c1d.b81c22aa"),
            ("mini-3f2a9c1d.b81c22aa", "mini-3f2a9c1d.b81c22aa"),
            ("somebody's own.v1.2", "somebody's own.v1.2"),
            ("v1", "v1"),
            ("", ""),
        ],
    )
    def test_heads_share_a_name_in_label_studio(self, version: str, name: str) -> None:
        assert shown_name(version) == shown_name(name) == name

    def test_it_changes_with_whatever_changes_a_prediction(self) -> None:
        versions = [
            self.version(choices("dog", "rain")),
            self.version(choices("dog", "rain"), name=Name(version="4f2a9c1d0000")),
            self.version(choices("dog", "wind")),
            self.version(choices("rain", "dog")),
            self.version(choices("dog", "rain", name="other")),
            self.version(choices("dog", "rain", attributes='choice="multiple"')),
            self.version(choices("dog", "rain", attributes='model_score_threshold="0.3"')),
            self.version(choices("dog", "rain", attributes='prompt="the noise of {}"')),
        ]
        assert len(set(versions)) == len(versions)

    def test_it_stays_the_same_for_what_does_not(self) -> None:
        same = [
            self.version(choices("dog", "rain")),
            self.version('<Header value="Listen"/>', choices("dog", "rain", attributes='showInline="true"')),
            self.version(choices("dog", "rain"), '<TextArea name="remarks" toName="audio"/>'),
        ]
        assert len(set(same)) == 1


class TestHiddenControls:
    """What `visibleWhen` hides gets neither a result nor a say in the task's score."""

    WHEN_DOG = 'visibleWhen="choice-selected" whenTagName="clip" whenChoiceValue="dog"'

    def test_a_control_is_suggested_where_the_suggestion_it_depends_on_is(self) -> None:
        xml = config(choices("dog", "rain"), choices("big", "small", name="breed", attributes=self.WHEN_DOG))
        weights = [X, Y, X, Y]
        assert chosen(made(xml, [X], weights)) == {"clip": ["dog"], "breed": ["big"]}
        assert chosen(made(xml, [Y], weights)) == {"clip": ["rain"]}

    def test_what_is_hidden_does_not_lower_the_score(self) -> None:
        unsure = choices("big", "small", name="breed", attributes=self.WHEN_DOG)
        xml = config(choices("dog", "rain"), unsure)
        weights = [X, Y, NEUTRAL, NEUTRAL]
        assert made(xml, [X], weights).score == pytest.approx(0.5)
        assert made(xml, [Y], weights).score == pytest.approx(0.9)

    def test_a_control_that_depends_on_a_hidden_one_is_hidden_too(self) -> None:
        deeper = 'visibleWhen="choice-selected" whenTagName="breed"'
        xml = config(
            choices("dog", "rain"),
            choices("big", "small", name="breed", attributes=self.WHEN_DOG),
            choices("near", "far", name="place", attributes=deeper),
        )
        weights = [X, Y, X, Y, X, Y]
        assert set(chosen(made(xml, [X], weights))) == {"clip", "breed", "place"}
        assert set(chosen(made(xml, [Y], weights))) == {"clip"}

    def test_hidden_controls_are_found_for_each_recording_of_a_batch(self) -> None:
        xml = config(choices("dog", "rain"), choices("big", "small", name="breed", attributes=self.WHEN_DOG))
        space = parse_label_config(xml)
        head = zero_shot_head(space, np.array([X, Y, X, Y, NEUTRAL], np.float32), SCALE)
        recordings = [np.array([row], np.float32) for row in (X, Y, X)]
        assert [len(found.result) for found in predict_many(space, recordings, head, "v1")] == [2, 1, 2]
