"""Canaries: a finetuned candidate is tried by the labels that come next, and taken, dropped or left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clapboard.queue.celery_app import BATCH, LEARN
from clapboard.store.jobs import JobRequest
from clapboard.store.trials import Kind, State, Trial
from clapboard.store.versions import Version
from clapboard.suggest.head import ControlHead, Head
from clapboard.suggest.prediction import result_id
from tests.support.fake_label_studio import FakeLabelStudio
from tests.workers.learning import PROJECT, Learning, tuned_encoder

NUM_LABELS = 20
DOGS, RAINS = dict.fromkeys(range(1, 21), 0), dict.fromkeys(range(101, 121), 1)


@pytest.fixture
def learning(tmp_path: Path) -> Iterator[Learning]:
    with FakeLabelStudio() as label_studio:
        learning = Learning(
            tmp_path,
            label_studio,
            load=tuned_encoder,
            CLAPBOARD_CANARY_LABELS=str(NUM_LABELS),
            CLAPBOARD_HEAD_TRIAL_LABELS="0",
        )
        learning.introduce()
        label_studio.setup = learning.answer
        learning.add(DOGS | RAINS)
        yield learning
        learning.close()


def candidate(learning: Learning, number: int, *, right: bool, embedded: bool = True) -> Version:
    """A finetuned candidate that is likely better by the gate's word, and in truth nearly always right or wrong."""
    version = learning.finetuned(number, DOGS | RAINS if embedded else {}, passed=False)
    rows = (1 if right else -1) * np.array([[0, 9, 0, 0], [0, -9, 0, 0]], np.float32)
    head = Head((ControlHead(np.full(4, number / 100, np.float32), rows, np.zeros(2, np.float32)),))
    likely = {"leads": [0.05, -0.02, 0.01], "num_folds": 3, "right": 1, "allowed": 0.01}
    verdict = {"promote": False, "reason": "because", "likely": likely}
    tried = replace(
        version,
        head=head.name,
        model_version=version.model_version.replace(version.head, head.name),
        manifest={"kind": "finetuned", "verdict": verdict},
    )
    learning.store.versions.put(tried, head)
    return tried


def run(learning: Learning, kind: str, version: str = "") -> str:
    learning.store.jobs.add(LEARN, [JobRequest(kind, PROJECT, model_version=version)])
    job, *_ = learning.work_off(LEARN)
    return job.error or ""


def label(learning: Learning, numbers: range, *, turned: bool = False) -> None:
    """People label a dog and a rain of each number; a worker learns."""
    for number in numbers:
        learning.say(number, "rain" if turned else "dog")
        learning.say(100 + number, "dog" if turned else "rain")
    run(learning, "learn")


def trial(learning: Learning) -> Trial:
    return learning.store.trials.of_project(PROJECT)[-1]


def test_half_of_the_open_tasks_show_its_suggestions_under_the_serving_name_and_the_ledger_knows(
    learning: Learning,
) -> None:
    label(learning, range(1, 3))
    serving = learning.promoted
    before = learning.shown(serving)
    assert (before[20], before[120]) == ("dog", "rain")
    worse = candidate(learning, 1, right=False)
    said = run(learning, "canary", worse.model_version)
    assert said.endswith(f"{worse.model_version} is shown on half of the next 36 tasks.")
    canary = trial(learning)
    half = {task for task in before if canary.shows_candidate(task)}
    assert 5 < len(half) < 31
    assert learning.store.predictions.names(PROJECT) == [learning.label_studio.shown[PROJECT]]  # one for both halves
    shown = learning.shown(serving)
    changed = {task for task in before if shown[task] != before[task]}
    assert changed <= half
    assert len(changed) >= len(half) - 3  # a few sounds are hard to tell
    by_canary = {
        one["task"]
        for one in learning.label_studio.stored
        if one["result"][0]["id"] == result_id("clip", canary.shown_as)
    }
    assert changed <= by_canary <= half

    learning.say(seen := min(changed), "dog", in_view=canary.shown_as)
    label(learning, range(3, 10))  # a new head comes with each, and leaves the candidate's half alone
    (entry,) = (entry for entry in learning.store.ledger.standing(PROJECT, [seen]) if entry.task == seen)
    assert entry.model_version in (canary.shown_as, "")
    assert trial(learning).state == State.DROPPED
    learning.work_off(LEARN)
    now_shown = learning.shown(learning.promoted)
    later = {task for task in changed if task % 100 > 10}
    assert {task: now_shown[task] for task in later} == {task: before[task] for task in later}


def test_a_candidate_that_is_surely_better_by_what_people_label_takes_over(learning: Learning) -> None:
    better = candidate(learning, 1, right=True)
    assert run(learning, "canary", better.model_version) == (
        f"{better.model_version} is on trial: 20 further labels decide at the latest."
    )
    assert (trial(learning).kind, trial(learning).state) == (Kind.CANARY, State.OPEN)
    assert trial(learning).reference == learning.zero_shot
    assert trial(learning).alpha == pytest.approx(0.0125)
    label(learning, range(1, 8))
    assert trial(learning).state == State.PROMOTED
    assert trial(learning).reason.startswith(f"Surely better than {learning.zero_shot} by ")
    promoted = learning.store.versions.promoted(PROJECT)
    assert promoted is not None
    assert promoted.encoder_version == better.encoder_version
    assert run(learning, "canary", better.model_version) == f"{better.model_version} was on trial already."


def test_one_that_is_surely_worse_is_dropped_and_the_next_needs_to_be_the_surer(learning: Learning) -> None:
    worse = candidate(learning, 1, right=False)
    run(learning, "canary", worse.model_version)
    label(learning, range(1, 8))
    assert trial(learning).state == State.DROPPED
    again = candidate(learning, 2, right=True)
    run(learning, "canary", again.model_version)
    assert trial(learning).candidate == again.model_version
    assert trial(learning).alpha == pytest.approx(0.025 / 6)
    newest = candidate(learning, 3, right=True)
    run(learning, "canary", newest.model_version)
    states = [one.state for one in learning.store.trials.of_project(PROJECT)]
    assert states == [State.DROPPED, State.ENDED, State.OPEN]


def test_undecided_it_ends_after_so_many_labels_and_what_serves_stays(learning: Learning) -> None:
    version = candidate(learning, 1, right=True)
    run(learning, "canary", version.model_version)
    label(learning, range(1, 6))
    if trial(learning).state is State.OPEN:
        label(learning, range(6, 11), turned=True)
    label(learning, range(11, 16), turned=True)
    assert trial(learning).state == State.UNDECIDED
    promoted = learning.store.versions.promoted(PROJECT)
    assert promoted is not None
    assert promoted.encoder == "counting"


def test_labels_whose_audio_the_candidate_has_yet_to_embed_answer_later(learning: Learning) -> None:
    better = candidate(learning, 1, right=True, embedded=False)
    run(learning, "canary", better.model_version)
    label(learning, range(1, 8))
    assert learning.store.trials.answers(trial(learning)) == []
    waiting = {job.task for job in learning.jobs(BATCH) if job.model_version == better.model_version}
    assert waiting == set(range(1, 8)) | set(range(101, 108))
    for task, heap in (DOGS | RAINS).items():
        learning.embed(task, heap, better.encoder_version)
    run(learning, "learn")
    assert trial(learning).state == State.PROMOTED


def test_under_another_label_config_there_is_nothing_to_compare(learning: Learning) -> None:
    version = candidate(learning, 1, right=True)
    run(learning, "canary", version.model_version)
    learning.configure(learning.label_studio.label_config.replace('value="rain"', 'value="rainy"'))
    learning.say(1, "dog")
    run(learning, "learn")
    assert (trial(learning).state, trial(learning).reason) == (
        State.ENDED,
        "Another encoder or label config took over.",
    )


def test_a_candidate_that_isnt_likely_better_is_not_tried(learning: Learning) -> None:
    version = learning.finetuned(1, {}, passed=False)
    assert run(learning, "canary", version.model_version).startswith(f"{version.model_version} isn't tried")
    assert learning.store.trials.of_project(PROJECT) == []
