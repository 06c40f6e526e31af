"""Regions as Label Studio's editor stores them, from a recording's frames."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

from clapboard.labels.label_config import parse_label_config
from clapboard.model.frame_scores import FrameScores
from clapboard.suggest import prediction
from clapboard.suggest.head import FrameHead, Head, zero_shot_head
from clapboard.suggest.regions import channel_index, event_rules, region_id, region_results, zero_shot_frames
from clapboard.suggest.scoring import Array

AXES = np.eye(8, dtype=np.float32)
BARK, RAIN, FAR, CLEAN, NOISY, QUIET = AXES[:6]
CONFIG = """<View><Audio name="audio" value="$audio"/>
<Labels name="ev" toName="audio" min_duration="0"><Label value="bark"/><Label value="rain" merge_gap="0.1"/></Labels>
<Labels name="who" toName="audio"><Label value="far"/></Labels>
<Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="storm"/></Choices>
<Choices name="quality" toName="audio" perRegion="true"><Choice value="clean"/><Choice value="noisy"/></Choices>
</View>"""
SPACE = parse_label_config(CONFIG)
WEIGHTS = np.stack([BARK, RAIN, BARK, RAIN, FAR, CLEAN, NOISY, QUIET])  # clip, ev, who, quality, neutral


@dataclass(frozen=True)
class Sound:
    """Frames of half a second."""

    frames: Array
    frame_s: float = 0.5

    @property
    def duration_s(self) -> float:
        return len(self.frames) * self.frame_s


def sound(*parts: tuple[Array, int]) -> Sound:
    """So many frames of each vector."""
    rows = np.concatenate([np.tile(vector, (number, 1)) for vector, number in parts])
    return Sound((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))


SCORES = FrameScores(30.0, np.zeros(8, np.float32), -15.0)


def head_of(space: object = SPACE, weights: Array = WEIGHTS) -> Head:
    base = zero_shot_head(space, weights, 30.0)  # type: ignore[arg-type]
    return replace(base, frame_controls=zero_shot_frames(space, weights, 30.0, SCORES))  # type: ignore[arg-type]


YARD = sound((QUIET, 6), (BARK + 0.9 * NOISY, 4), (QUIET, 6), (RAIN, 8), (QUIET, 4))


def test_each_event_is_a_region_as_the_editor_stores_it() -> None:
    predicted = prediction.predict(SPACE, RAIN[None], head_of(), "v1", YARD)
    clip, bark, noisy, rain, quality_of_rain = predicted.result
    assert clip["value"] == {"choices": ["storm"]}
    assert bark | {"score": 0.0} == {
        "id": region_id("ev", "bark", bark["value"]["start"], bark["value"]["end"]),
        "from_name": "ev",
        "to_name": "audio",
        "type": "labels",
        "original_length": 14.0,
        "value": {"start": pytest.approx(3.0, abs=0.3), "end": pytest.approx(5.0, abs=0.3), "channel": 0}
        | {"labels": ["bark"]},
        "score": 0.0,
    }
    assert (rain["value"]["labels"], rain["value"]["end"]) == (["rain"], pytest.approx(12.0, abs=0.3))
    for region, choice in ((bark, noisy), (rain, quality_of_rain)):
        extent = {key: region["value"][key] for key in ("start", "end", "channel")}
        assert {key: choice["value"][key] for key in extent} == extent
        assert (choice["id"], choice["from_name"], choice["type"]) == (region["id"], "quality", "choices")
        assert 0.0 <= choice["score"] <= 1.0
        assert 0.5 < region["score"] <= 1.0
    assert noisy["value"]["choices"] == ["noisy"]
    assert json.loads(json.dumps(predicted.result)) == predicted.result
    body = {"model_version": "v1", "score": predicted.score, "result": predicted.result}
    assert LabelInterface(CONFIG).validate_prediction(body)


def test_where_nothing_is_heard_nothing_is_suggested() -> None:
    assert prediction.predict(SPACE, RAIN[None], head_of(), "v1", sound((QUIET, 40))).result[1:] == []
    assert len(prediction.predict(SPACE, RAIN[None], head_of(), "v1").result) == 1  # without frames


def test_the_same_region_keeps_its_id_whatever_version_suggests_it() -> None:
    first, second = (prediction.predict(SPACE, RAIN[None], head_of(), version, YARD) for version in ("v1", "v2"))
    assert [item["id"] for item in first.result[1:]] == [item["id"] for item in second.result[1:]]
    assert first.result[0]["id"] != second.result[0]["id"]
    ids = {region_id("ev", "bark", 1.0, 2.0), region_id("ev", "rain", 1.0, 2.0), region_id("ev", "bark", 1.0, 2.001)}
    assert len(ids) == 3
    assert region_id("ev", "bark", 1.0, 2.0) == region_id("ev", "bark", 1.0004, 2.0)


def test_the_score_is_that_of_the_region_to_look_at() -> None:
    sure = prediction.predict(SPACE, RAIN[None], head_of(), "v1", sound((QUIET, 20))).score
    unsure = prediction.predict(SPACE, RAIN[None], head_of(), "v1", sound((QUIET, 20), (0.6 * BARK + QUIET, 4))).score
    assert 0.0 <= unsure < 0.99 < sure <= 1.0


def test_the_label_config_has_precedence_over_what_was_learnt_and_that_over_the_defaults() -> None:
    xml = """<View><Audio name="audio" value="$audio"/><Labels name="ev" toName="audio" max_duration="20"
      model_score_threshold="0.6"><Label value="a" min_duration="2" model_score_threshold="0.7"/><Label value="b"/>
    </Labels></View>"""
    (control,) = parse_label_config(xml).marking
    learnt = np.array([[0.4, 8.0, np.nan], [np.nan, np.nan, 0.3]], np.float32)
    a, b = event_rules(control, learnt).labels
    assert (a.threshold, a.min_s, a.max_s) == (0.7, 2.0, 20.0)
    assert (b.threshold, b.max_s, b.gap_s) == (0.6, 20.0, pytest.approx(0.3))
    assert a.gap_s == event_rules(control, np.full((2, 3), np.nan, np.float32)).labels[1].gap_s


@pytest.mark.parametrize(
    ("scope", "of"),
    [
        ("", ["bark", "rain", "far"]),
        ('whenTagName="ev"', ["bark", "rain"]),
        ('whenLabelValue="rain,far"', ["rain", "far"]),
        ('visibleWhen="region-selected" whenTagName="who"', ["far"]),
    ],
)
def test_per_region_choices_are_suggested_for_the_regions_that_they_are_about(scope: str, of: list[str]) -> None:
    space = parse_label_config(CONFIG.replace('perRegion="true"', f'perRegion="true" {scope}'))
    yard = sound((BARK, 4), (QUIET, 4), (RAIN, 4), (QUIET, 4), (FAR, 4))
    results = [item for given in region_results(space, head_of(space), yard).values() for item in given.results]
    labels = {item["id"]: item["value"]["labels"][0] for item in results if item["type"] == "labels"}
    assert sorted(labels.values()) == ["bark", "far", "rain"]
    assert sorted(labels[item["id"]] for item in results if item["type"] == "choices") == sorted(of)


def test_hidden_labels_get_no_regions() -> None:
    labels = CONFIG[CONFIG.index('<Labels name="ev"') : CONFIG.index('<Labels name="who"')]
    when = f'<View visibleWhen="choice-selected" whenTagName="clip" whenChoiceValue="dog">{labels}</View>'
    space = parse_label_config(CONFIG.replace(labels, when))
    assert [control.name for control in space.marking] == ["ev", "who"]
    shown, hidden = (prediction.predict(space, clip[None], head_of(space), "v1", YARD) for clip in (BARK, RAIN))
    assert [item["from_name"] for item in hidden.result] == ["clip"]
    assert "ev" in [item["from_name"] for item in shown.result]


@pytest.mark.parametrize(("channel", "index"), [("", 0), ("left", 0), ("right", 1), ("3", 2)])
def test_regions_are_on_the_channel_that_was_embedded(channel: str, index: int) -> None:
    space = replace(SPACE, channel=channel)
    assert channel_index(channel) == index
    (bark, *_) = region_results(space, head_of(), YARD)["ev"].results
    assert bark["value"]["channel"] == index


def test_a_head_is_stored_with_what_it_has_on_frames() -> None:
    head = head_of()
    read = Head.from_bytes(head.to_bytes())
    assert read.name == head.name != zero_shot_head(SPACE, WEIGHTS, 30.0).name
    assert [part.limits.shape for part in read.frame_controls] == [(2, 3), (1, 3), (2, 3)]
    assert np.array_equal(read.frame_controls[1].control.weights, head.frame_controls[1].control.weights)
    limited = replace(head.frame_controls[0], limits=np.ones((2, 3), np.float32))
    assert replace(head, frame_controls=(limited, *head.frame_controls[1:])).name != head.name
    assert isinstance(read.frame_controls[0], FrameHead)
