"""Refitter: from what people said to a head in service, for every task that is still open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clapboard.errors import NotFoundError
from clapboard.label_studio.checks import STORED_TITLE
from clapboard.store.versions import Version
from clapboard.suggest.head import ZERO_SHOT
from clapboard.suggest.prediction import shown_name
from tests.support.fake_label_studio import CHOICES, FakeLabelStudio
from tests.workers.learning import ENCODER, PROJECT, Learning
from workers.refit import Refitted

DOGS, RAINS = dict.fromkeys(range(1, 11), 0), dict.fromkeys(range(11, 21), 1)
TWO_CONTROLS = """
<View>
  <Audio name="audio" value="$audio"/>
  <Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
  <Choices name="place" toName="audio"><Choice value="near"/><Choice value="far"/></Choices>
</View>
"""


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio() as server:
        yield server


@pytest.fixture
def learning(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Learning]:
    learning = Learning(tmp_path, label_studio)
    learning.introduce()
    label_studio.setup = learning.answer
    learning.add(DOGS | RAINS)
    yield learning
    learning.close()


def refit(learning: Learning) -> Refitted:
    return learning.refitter.run(PROJECT)


def test_what_was_said_about_a_few_tasks_is_predicted_for_all_that_are_open(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    learning.add({99: 0}, held_out=True)
    for task in (1, 2, 3):
        learning.say(task, "dog")
        learning.say(task + 10, "rain")
    found = refit(learning)
    assert (found.num_labels, found.num_waiting, found.changed) == (6, 0, True)
    assert found.model_version == learning.promoted != learning.zero_shot
    expected = dict.fromkeys(range(4, 11), "dog") | dict.fromkeys(range(14, 21), "rain")
    assert learning.shown(found.model_version) == expected  # neither annotated nor held-out tasks
    assert set(label_studio.count(shown_name(found.model_version), *expected).values()) == {1}
    assert label_studio.shown[PROJECT] == shown_name(found.model_version)
    assert label_studio.backends[PROJECT]["title"] == STORED_TITLE  # all is there: nobody is to be asked
    assert learning.store.catalog.project(PROJECT).model_version == shown_name(found.model_version)
    assert learning.store.versions.get(PROJECT, found.model_version).manifest == {
        "kind": "head",
        "num_labels": 6,
        "num_entries": 6,
    }


def test_a_label_turned_round_turns_the_suggestions_round(learning: Learning) -> None:
    for task in (1, 2, 3):
        learning.say(task, "rain")
        learning.say(task + 10, "dog")
    shown = learning.shown(refit(learning).model_version)
    assert (shown[10], shown[20]) == ("rain", "dog")


def test_a_held_out_task_is_never_learnt_from(learning: Learning) -> None:
    learning.add(dict.fromkeys(range(30, 36), 1), held_out=True)
    for task in range(30, 36):
        learning.say(task, "dog")
    found = refit(learning)
    assert (found.num_labels, found.changed) == (0, False)


def test_without_labels_nothing_is_rolled_out(learning: Learning, label_studio: FakeLabelStudio) -> None:
    assert not refit(learning).changed
    learning.say(1, "dog")
    learning.say(11, "rain")
    assert refit(learning).changed
    label_studio.asked.clear()
    again = refit(learning)
    assert (again.changed, again.model_version) == (False, learning.promoted)
    assert label_studio.asked == []


def test_labels_that_were_withdrawn_are_forgotten_down_to_zero_shot(learning: Learning) -> None:
    learning.say(1, "dog")
    learning.say(11, "rain")
    first = refit(learning).model_version
    learning.withdraw(1, 11)
    found = refit(learning)
    learning.sweep()
    assert found.model_version == learning.promoted == learning.zero_shot != first
    assert learning.store.versions.get(PROJECT, found.model_version).head == ZERO_SHOT
    learning.pusher.push_owed()
    assert set(learning.shown(learning.zero_shot)) == set(DOGS | RAINS)


def test_a_new_class_is_suggested_by_its_text_at_once_and_what_was_said_before_still_holds(
    learning: Learning,
) -> None:
    for task in (1, 2, 3):
        learning.say(task, "dog")
        learning.say(task + 10, "rain")
    before = refit(learning).model_version
    wider = CHOICES.replace('<Choice value="rain"/>', '<Choice value="rain"/><Choice value="a very different sound"/>')
    learning.configure(wider)
    assert learning.version_of(wider) == learning.zero_shot
    found = refit(learning)
    assert found.num_labels == 6
    assert learning.promoted == found.model_version == learning.version_of(wider)
    assert found.model_version not in {before, learning.zero_shot}
    head = learning.store.versions.get(PROJECT, found.model_version)
    rows = learning.store.versions.head(head.encoder_version, head.space_id, head.head).controls[0]
    assert len(rows.weights) == 3
    shown = learning.shown(found.model_version)
    assert set(shown) == set(range(4, 11)) | set(range(14, 21))


def test_a_class_that_is_gone_takes_its_labels_along(learning: Learning) -> None:
    for task in (1, 2, 3):
        learning.say(task, "dog")
        learning.say(task + 10, "rain")
    learning.configure(CHOICES.replace("rain", "wind"))
    found = refit(learning)
    assert found.num_labels == 3
    assert set(learning.shown(found.model_version).values()) <= {"dog", "wind"}


def test_each_of_two_controls_learns_from_its_own_labels(tmp_path: Path, label_studio: FakeLabelStudio) -> None:
    learning = Learning(tmp_path, label_studio)
    learning.introduce(TWO_CONTROLS)
    label_studio.setup = learning.answer
    learning.add(DOGS | RAINS)
    for task in (1, 2, 3):
        learning.say(task, "dog")
        learning.say(task + 10, "rain")
    for task in (4, 5, 6):
        learning.say(task, "near", control="place")
        learning.say(task + 10, "far", control="place")
    found = refit(learning)
    assert found.num_labels == 6
    said = {
        one["task"]: {result["from_name"]: result["value"]["choices"][0] for result in one["result"]}
        for one in label_studio.stored
        if one["model_version"] == shown_name(found.model_version)
    }
    assert said[10] == {"clip": "dog", "place": "near"}
    assert said[20] == {"clip": "rain", "place": "far"}
    learning.close()


def test_whoever_promotes_meanwhile_wins(learning: Learning, tmp_path: Path, label_studio: FakeLabelStudio) -> None:
    learning.say(1, "dog")
    learning.say(11, "rain")
    before = label_studio.shown[PROJECT]
    other = Version(PROJECT, "by-hand", "counting", ENCODER.identity.version, ZERO_SHOT, "x", manifest={})
    learning.store.versions.put(other)

    # It happens while the head's predictions are being pushed.
    label_studio.on_stored = lambda: learning.store.versions.promote(PROJECT, "by-hand")
    assert refit(learning).changed
    assert learning.promoted == "by-hand"
    assert label_studio.shown[PROJECT] == before


def test_tasks_that_are_not_embedded_are_queued_and_the_others_do_not_wait_for_them(learning: Learning) -> None:
    learning.add({21: 0, 22: 1}, embedded=False)
    learning.say(1, "dog")
    learning.say(11, "rain")
    found = refit(learning)
    assert (found.num_waiting, found.num_missing, learning.promoted) == (0, 2, found.model_version)
    queued = learning.store.jobs.claim("worker", "batch", 10)
    assert [(job.task, job.model_version, job.push) for job in queued] == [
        (task, learning.zero_shot, True) for task in (21, 22)
    ]


def test_a_project_that_never_introduced_itself_is_not_known(learning: Learning) -> None:
    with pytest.raises(NotFoundError, match="Project 8 is unknown here"):
        learning.refitter.run(8)
