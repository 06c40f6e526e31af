"""Replaced versions leave Label Studio, but for what somebody had in view, or may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from clapboard.errors import LabelStudioUnreachable
from clapboard.label_studio.client import LabelStudioClient
from clapboard.queue.celery_app import LEARN
from clapboard.settings import Settings
from clapboard.store.jobs import State
from clapboard.suggest.prediction import shown_name
from tests.support.fake_label_studio import FakeLabelStudio
from tests.workers.learning import PROJECT, Learning, tuned_encoder
from workers.replaced_versions import KEPT

TASKS = range(1, 11)
HEAPS = dict.fromkeys(TASKS, 0) | {task + 10: 1 for task in TASKS}


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio() as server:
        yield server


@pytest.fixture
def learning(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Learning]:
    with _learning(tmp_path, label_studio) as learning:
        yield learning


@contextmanager
def _learning(folder: Path, label_studio: FakeLabelStudio, **settings: str) -> Iterator[Learning]:
    """A project whose suggestions are a finetuned encoder's."""
    learning = Learning(folder, label_studio, load=tuned_encoder, **settings)
    learning.introduce()
    learning.add(HEAPS)
    label_studio.setup = learning.answer
    learning.say(1, "dog")
    learning.say(11, "rain")
    learning.store.ledger.catch_up()
    learning.promoter.run(PROJECT, learning.finetuned(1, HEAPS).model_version)
    try:
        yield learning
    finally:
        learning.close()


def replaced(learning: Learning, *annotated: int) -> str:
    """The name of what served, with those of its suggestions in view that somebody then said otherwise about."""
    before = learning.promoted
    for task in annotated:
        learning.say(task, "rain", in_view=before)
    learning.store.ledger.catch_up()
    learning.promoter.run(PROJECT, learning.finetuned(2, HEAPS).model_version)
    assert shown_name(learning.promoted) != shown_name(before)
    return shown_name(before)


@pytest.mark.parametrize("num_annotated", [1, 7], ids=["as a whole", "one by one"])
def test_the_predictions_that_annotations_answered_stay_as_they_are(
    learning: Learning, label_studio: FakeLabelStudio, num_annotated: int
) -> None:
    annotated = TASKS[1 : 1 + num_annotated]
    before = replaced(learning, *annotated)
    answered = {one["task"]: one for one in label_studio.stored if one["model_version"] == before}
    assert learning.pruner.run(PROJECT).num_gone == 1
    left = {one["task"]: one for one in label_studio.stored if one["model_version"] == before}
    assert left == {task: answered[task] for task in annotated}  # with the ids that annotations name
    assert set(label_studio.versions(PROJECT)) == {before, shown_name(learning.promoted)}
    assert label_studio.shown[PROJECT] == shown_name(learning.promoted)


def test_a_head_that_is_stored_late_keeps_no_replaced_name_in_view(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    before = replaced(learning)
    of_before = next(
        version
        for version in learning.store.versions.of_project(PROJECT)
        if shown_name(version.model_version) == before
    )
    encoder, space = before.rsplit(".", 1)
    learning.store.versions.put(replace(of_before, model_version=f"{encoder}.head-01234567.{space}", promoted_at=None))
    assert learning.pruner.run(PROJECT).num_gone == 1
    assert set(label_studio.versions(PROJECT)) == {shown_name(learning.promoted)}


def test_once_its_others_are_gone_a_version_costs_no_more_requests(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    replaced(learning, 2, 3)
    learning.pruner.run(PROJECT)
    label_studio.asked.clear()
    assert learning.pruner.run(PROJECT).num_gone == 0
    assert not [
        asked for asked in label_studio.asked if "predictions" in asked or "tasks" in asked or "DELETE" in asked
    ]


def test_with_its_annotation_a_prediction_goes_too(learning: Learning, label_studio: FakeLabelStudio) -> None:
    before = replaced(learning, 2, 3)
    learning.pruner.run(PROJECT)
    learning.withdraw(2)
    learning.store.ledger.catch_up()
    learning.pruner.run(PROJECT)
    assert [one["task"] for one in label_studio.stored if one["model_version"] == before] == [3]


def test_an_annotation_whose_event_was_lost_keeps_its_prediction_too(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    before = replaced(learning, 2)
    heard = label_studio.annotations[1002]
    result = heard["result"]
    label_studio.annotations[1003] = heard | {"id": 1003, "task": 3, "result": result}  # made while nobody listened
    learning.clock.now += learning.settings.prune_quiet_s
    learning.work_off(LEARN)
    assert {one["task"] for one in label_studio.stored if one["model_version"] == before} == {2, 3}


def test_somebody_may_have_a_replaced_suggestion_open_for_a_while(
    tmp_path: Path, label_studio: FakeLabelStudio
) -> None:
    with _learning(tmp_path, label_studio, CLAPBOARD_PRUNE_AFTER_S="900") as learning:
        before = replaced(learning, 2)
        learning.clock.now += learning.settings.prune_quiet_s + 1
        job = learning.ask(LEARN, "prune")
        learning.project_jobs.run(job)
        waits = learning.store.jobs.get(job.id)
        assert waits.state == State.QUEUED
        assert "may still be in view" in str(waits.progress)
        assert label_studio.versions(PROJECT)[before] > 1
        learning.clock.now += 900
        learning.work_off(LEARN)
        assert label_studio.versions(PROJECT)[before] == 1
        assert learning.store.jobs.get(job.id).state == State.DONE


@pytest.mark.parametrize("after", range(4))
def test_killed_at_any_step_another_process_brings_it_to_its_end(
    tmp_path: Path, label_studio: FakeLabelStudio, after: int
) -> None:
    with _learning(tmp_path, label_studio) as learning:
        before = replaced(learning, 2)
        mortal = Learning(
            tmp_path,
            label_studio,
            clock=learning.clock,
            load=tuned_encoder,
            client=lambda settings: _Mortal(settings, after),
        )
        try:
            with pytest.raises(LabelStudioUnreachable):
                mortal.pruner.run(PROJECT)
        finally:
            mortal.close()
        learning.pruner.run(PROJECT)
        assert [one["task"] for one in label_studio.stored if one["model_version"] == before] == [2]
        assert not [name for name in label_studio.versions(PROJECT) if name.endswith(KEPT)]
        assert label_studio.shown[PROJECT] == shown_name(learning.promoted)


class _Mortal(LabelStudioClient):
    """A client whose changes of predictions fail for good after so many."""

    def __init__(self, settings: Settings, num_left: int) -> None:
        super().__init__(settings, max_retries=0)
        self._num_left = num_left

    def _asking(self, subject: str) -> Callable[..., object]:  # type: ignore[override]
        if subject.startswith(("prediction ", "model version ")):
            self._num_left -= 1
            if self._num_left < 0:
                raise LabelStudioUnreachable("The process was killed.")
        return super()._asking(subject)  # type: ignore[return-value]
