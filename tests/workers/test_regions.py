"""Regions that people accept, move, delete and add make the next recordings' regions better."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clapboard.audio.windows import SAMPLE_RATE, num_overlapping_windows
from clapboard.model.recording_frames import FramePiece
from clapboard.store.embeddings import Recording
from clapboard.store.frames import StoredPiece
from clapboard.suggest.prediction import shown_name
from clapboard.suggest.scoring import Array
from tests.support.fake_label_studio import FakeLabelStudio
from tests.workers.learning import ENCODER, PROJECT, Learning
from workers.refit import Refitted

CONFIG = """<View><Audio name="audio" value="$audio"/>
<Labels name="ev" toName="audio"><Label value="bark"/><Label value="rain"/></Labels></View>"""
DURATION_S, FRAME_S = 60.0, 0.625
QUIET, BARK, RAIN = np.array([[1, 0, 0, 0.4], [0, 1, 0, 0.4], [0, 0, 1, 0.4]], np.float32)
Span = tuple[str, float, float]


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio() as server:
        yield server


@pytest.fixture
def learning(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Learning]:
    learning = Learning(tmp_path, label_studio)
    learning.introduce(CONFIG)
    label_studio.setup = learning.answer
    yield learning
    learning.close()


def events(task: int) -> list[Span]:
    """What is heard in the task's recording: four events, each between 2.5 and 5 s long."""
    rng = np.random.default_rng(task)
    starts = 15 * np.arange(4) + rng.integers(0, 8, 4) * FRAME_S
    names = [("bark", "rain")[number % 2] for number in range(task, task + 4)]
    return [
        (name, float(start), float(start + rng.integers(4, 9) * FRAME_S))
        for name, start in zip(names, starts, strict=True)
    ]


def add(learning: Learning, *tasks: int, held_out: bool = False) -> None:
    """Tasks whose recordings' frames are in the store."""
    learning.add(dict.fromkeys(tasks, 0), held_out=held_out)
    identity = ENCODER.identity
    for task in tasks:
        num_frames = round(DURATION_S / FRAME_S)
        frames = np.tile(QUIET, (num_frames, 1))
        for name, start_s, end_s in events(task):
            frames[round(start_s / FRAME_S) : round(end_s / FRAME_S)] = BARK if name == "bark" else RAIN
        frames += np.random.default_rng(task).normal(scale=0.1, size=frames.shape).astype(np.float32)
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        key = f"{task:064}"
        uri_key = learning.sources.key(f"https://host.example/{task}.wav")
        learning.store.embeddings.put_recording(uri_key, Recording(key, 1, DURATION_S))
        learning.store.frames.put(list(pieces(key, frames)), identity.version, identity.dtype)


def pieces(sha256: str, frames: Array) -> Iterator[StoredPiece]:
    """The frames as so many windows would give them."""
    number = num_overlapping_windows(round(DURATION_S * SAMPLE_RATE))
    first = 0
    for index, part in enumerate(np.array_split(frames, number)):
        levels = np.full((round(len(part) * FRAME_S / 0.05), 16), -60, np.float32)
        end_s = DURATION_S if index == number - 1 else (first + len(part)) * FRAME_S
        yield StoredPiece(sha256, index, FRAME_S, FramePiece(first, part, levels, part[0], first * FRAME_S, end_s))
        first += len(part)


def mark(learning: Learning, task: int, spans: list[Span], *, recording_s: float = DURATION_S, by: int = 1) -> None:
    """Somebody marks these regions, with an empty form in view."""
    learning.say(task, by=by)
    action, body = "ANNOTATION_UPDATED", dict(learning.label_studio.annotations[1000 * by + task])
    learning.clock.now += 1
    body |= {
        "result": [region(*span, recording_s) for span in spans],
        "updated_at": f"2030-01-01T00:00:{task % 60:02}Z",
    }
    learning.store.append_event(action, PROJECT, {"action": action, "annotation": body, "project": {"id": PROJECT}})


def region(label: str, start_s: float, end_s: float, recording_s: float) -> dict[str, Any]:
    about = {"id": f"{label}{start_s}", "from_name": "ev", "to_name": "audio", "type": "labels"}
    value = {"start": start_s, "end": end_s, "channel": 0, "labels": [label]}
    return about | {"original_length": recording_s, "value": value}


def refit(learning: Learning) -> Refitted:
    return learning.refitter.run(PROJECT)


def shown(learning: Learning, task: int) -> list[Span]:
    """The regions of the promoted version, with their edges to the nearest frame."""
    (made,) = (
        item["result"]
        for item in learning.label_studio.stored
        if item["task"] == task and item["model_version"] == shown_name(learning.promoted)
    )
    return [
        (
            item["value"]["labels"][0],
            round(item["value"]["start"] / FRAME_S) * FRAME_S,
            round(item["value"]["end"] / FRAME_S) * FRAME_S,
        )
        for item in made
    ]


def test_what_was_marked_in_a_few_recordings_is_suggested_in_the_others(learning: Learning) -> None:
    add(learning, *range(1, 7))
    for task in (1, 2, 3):
        mark(learning, task, events(task))
    found = refit(learning)
    assert (found.num_labels, found.changed, found.left_out) == (12, True, "")
    for task in (4, 5, 6):
        assert shown(learning, task) == events(task)
    again = refit(learning)
    assert (again.changed, again.model_version) == (False, learning.promoted)


def test_a_reviewed_recording_without_regions_teaches_that_there_are_none(learning: Learning) -> None:
    add(learning, 1, 2)
    mark(learning, 1, events(1))
    mark(learning, 2, [])
    assert refit(learning).num_labels == 4
    answer = learning.store.labels.agreed(PROJECT, [2])[2]["ev"]
    assert (answer.labels, answer.regions) == ((), ())


def test_a_recording_that_has_changed_and_a_region_behind_its_end_are_left_out_with_a_sentence(
    learning: Learning,
) -> None:
    add(learning, 1, 2, 3, 4)
    mark(learning, 1, events(1))
    mark(learning, 2, events(2), recording_s=90.0)
    mark(learning, 3, [*events(3), ("bark", 60.1, 60.2)], recording_s=60.3)
    mark(learning, 4, [*events(4), ("howl", 1.0, 2.0), ("bark", 3.0, 3.0)])
    found = refit(learning)
    assert found.num_labels == 12
    for sentence in (
        "1 task whose audio has changed since its regions were marked",
        "regions of 1 task that lie behind the recording's end",
        "1 task with a region of “ev” that has no length or lies outside the recording",
        "1 task labelled “howl”, which the label config doesn't have",
    ):
        assert sentence in str(found)


def test_held_out_recordings_keep_a_worse_head_from_serving(learning: Learning) -> None:
    add(learning, *range(1, 9))
    add(learning, *range(20, 28), held_out=True)
    for task in range(20, 28):
        mark(learning, task, events(task))
    mark(learning, 1, events(1))
    mark(learning, 2, events(2))
    good = refit(learning)
    assert good.changed
    other = {"bark": "rain", "rain": "bark"}
    for task in range(3, 9):
        mark(learning, task, [(other[name], start_s, end_s) for name, start_s, end_s in events(task)])
    found = refit(learning)
    assert (found.changed, found.model_version) == (False, good.model_version)
    assert "On 8 held-out recordings the event F1 of its regions would fall from " in str(found)
