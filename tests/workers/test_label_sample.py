"""What a head is fitted to: all labels of a small project, a bounded sample of a large one's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import workers.label_sample as label_sample
from clapboard.project.agreement import refresh_labels
from clapboard.store.embeddings import Recording
from tests.support.fake_label_studio import FakeLabelStudio
from tests.workers.conftest import LABELS
from tests.workers.learning import ENCODER, PROJECT, Learning
from workers.label_sample import LabelSample, LabelSampler, quotas

DOGS, RAINS = range(1, 61), range(101, 111)


@pytest.fixture
def learning(tmp_path: Path) -> Iterator[Learning]:
    with FakeLabelStudio() as label_studio:
        learning = Learning(tmp_path, label_studio)
        learning.introduce()
        learning.add(dict.fromkeys(DOGS, 0) | dict.fromkeys(RAINS, 1))
        learning.add({200: 0}, held_out=True)
        for task in (*DOGS, 200):
            learning.say(task, "dog")
        for task in RAINS:
            learning.say(task, "rain")
        learning.store.ledger.catch_up()
        yield learning
        learning.close()


def draw(learning: Learning) -> LabelSample:
    """As a process does that has just started."""
    refresh_labels(learning.store, PROJECT, LABELS)
    encoder = learning.store.catalog.encoder(ENCODER.identity.model)
    assert encoder is not None
    return LabelSampler(learning.store).draw(PROJECT, LABELS, encoder)


def test_few_labels_are_all_learnt_from_and_count_alike(learning: Learning) -> None:
    sample = draw(learning)
    assert set(sample.clips["clip"]) == {*DOGS, *RAINS, 200}
    assert set(sample.clips["clip"].values()) == {1.0}
    assert set(sample.means) == set(sample.pool) == {*DOGS, *RAINS}  # none held out


def test_of_many_each_label_gives_as_many_and_counts_for_all_of_its_own(
    learning: Learning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_sample, "clips_per_control", lambda *_: 30)
    monkeypatch.setattr(label_sample, "POOL_SIZE", 12)
    sample = draw(learning)
    clips = sample.clips["clip"]
    dogs, rains = ({task: clips[task] for task in clips if (task in RAINS) == is_rain} for is_rain in (False, True))
    assert (len(dogs), set(rains)) == (20, set(RAINS))
    assert sum(dogs.values()) / sum(rains.values()) == pytest.approx(61 / 10)
    assert sum(clips.values()) == pytest.approx(30)
    assert len(sample.pool) <= 12
    assert {*sample.pool} & {*RAINS}, "the pool is a draw of all tasks, not the oldest"


def test_the_sound_of_a_held_out_task_is_neither_learnt_nor_in_the_pool(learning: Learning) -> None:
    for address in ("1", "200"):
        key = learning.sources.key(f"https://host.example/{address}.wav")
        learning.store.embeddings.put_recording(key, Recording(f"{200:064}", 1, 1.0))
    sample = draw(learning)
    assert set(sample.means) == set(sample.pool) == {*DOGS, *RAINS} - {1}


def test_each_process_draws_the_same_and_a_further_label_changes_little(
    learning: Learning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_sample, "clips_per_control", lambda *_: 30)
    first, second = draw(learning), draw(learning)
    assert (first.clips, list(first.pool)) == (second.clips, list(second.pool))
    learning.add({300: 0})
    learning.say(300, "dog")
    learning.store.ledger.catch_up()
    assert len(first.clips["clip"].keys() - draw(learning).clips["clip"].keys()) <= 1


@pytest.mark.parametrize(
    ("totals", "num_clips", "expected"),
    [
        ({"a": 5, "b": 0}, 9, {"a": 5, "b": 0}),
        ({"a": 100, "b": 100}, 10, {"a": 5, "b": 5}),
        ({"a": 100, "b": 2, "c": 50}, 20, {"a": 9, "b": 2, "c": 9}),
        ({"a": 100, "b": 2, "c": 6}, 20, {"a": 12, "b": 2, "c": 6}),
    ],
)
def test_quotas(totals: dict[str, int], num_clips: int, expected: dict[str, int]) -> None:
    assert quotas(totals, num_clips) == expected
