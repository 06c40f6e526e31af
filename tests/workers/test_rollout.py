"""Rollout: a version takes over a project without anybody seeing half of it, whatever dies on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from clapboard.errors import SourceError
from clapboard.label_studio.checks import STORED_TITLE
from clapboard.label_studio.client import LabelStudioClient
from clapboard.project.serving import find_serving, zero_shot_version
from clapboard.queue.celery_app import BATCH, LEARN
from clapboard.store import Store
from clapboard.store.jobs import JobRequest, State
from clapboard.store.versions import Version
from clapboard.suggest.prediction import shown_name
from tests.support.fake_label_studio import FakeLabelStudio
from tests.workers.conftest import LABELS
from tests.workers.learning import ENCODER, PROJECT, Clock, Learning, tuned_encoder
from workers.rollout import Takeover

TASKS = dict.fromkeys(range(1, 7), 0) | dict.fromkeys(range(11, 17), 1)
OPEN = sorted(set(TASKS) - {1, 2, 11, 12})
STEPS = {
    "add",
    "advance",
    "owe_answered",
    "supersede",
    "announce_encoder",
    "append",
    "begin_sweep",
    "catch_up",
    "change_prediction",
    "claim",
    "delete_model_version",
    "done",
    "forget",
    "forget_names",
    "promote",
    "push_predictions",
    "pushed",
    "put",
    "put_all",
    "put_for_push",
    "put_project",
    "set_model_version",
    "shows",
    "update_backend",
}
"""Whatever writes, here or in Label Studio."""


class Mortal:
    """Stands before an object, and calls `on_step` after each call of it that is a step."""

    def __init__(self, mortal: Any, on_step: Callable[[str], None]) -> None:
        self._mortal = mortal
        self._on_step = on_step

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._mortal, name)
        if name not in STEPS:
            return found

        def step(*arguments: Any, **named: Any) -> Any:
            answer = found(*arguments, **named)
            self._on_step(name)
            return answer

        return step


class MortalStore(Store):
    """A store whose every change is a step."""

    def __init__(self, url: str, clock: Clock, on_step: Callable[[str], None]) -> None:
        super().__init__(url, clock=clock)
        for name in ("catalog", "displays", "jobs", "ledger", "predictions", "versions"):
            setattr(self, name, Mortal(getattr(self, name), on_step))


def mortal(learning: Learning, on_step: Callable[[str], None]) -> Learning:
    """The project as another process sees it, which counts its steps."""
    return Learning(
        learning.settings.model_dir,
        learning.label_studio,
        clock=Clock(learning.clock.now),
        store=lambda url, clock: MortalStore(url, clock, on_step),
        load=tuned_encoder,
        client=lambda settings: Mortal(LabelStudioClient(settings, max_retries=0), on_step),  # type: ignore[return-value]
    )


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio() as server:
        yield server


@pytest.fixture
def learning(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Learning]:
    learning = begun(tmp_path, label_studio)
    yield learning
    learning.close()


def begun(folder: Path, label_studio: FakeLabelStudio) -> Learning:
    """A project whose tasks show zero-shot suggestions; people have labelled four of them, and a job is to learn."""
    learning = Learning(folder, label_studio, load=tuned_encoder)
    learning.introduce()
    label_studio.setup = learning.answer
    learning.add(TASKS)
    learning.add({31: 0, 32: 1}, held_out=True)
    learning.rollout.run(Takeover(zero_shot(learning)))
    assert label_studio.versions(PROJECT) == {shown_name(learning.zero_shot): len(TASKS)}
    for task in (1, 2):
        learning.say(task, "dog")
        learning.say(task + 10, "rain")
    return learning


def zero_shot(learning: Learning) -> Version:
    """The base model's version, kept."""
    version = zero_shot_version(learning.store, "counting", PROJECT)
    learning.store.versions.put(version)
    return version


def state(learning: Learning) -> dict[str, Any]:
    """All that must be the same in the end."""
    store, label_studio = learning.store, learning.label_studio
    promoted = learning.promoted
    return {
        "promoted": promoted,
        "project": store.catalog.project(PROJECT).model_version,
        "versions": sorted(version.model_version for version in store.versions.of_project(PROJECT)),
        "owed": store.predictions.num_owed(),
        "undelivered": set(OPEN) - store.predictions.delivered_tasks(PROJECT, shown_name(promoted)),
        "shown": learning.shown(promoted),
        "in Label Studio": label_studio.versions(PROJECT),
        "once": set(label_studio.count(shown_name(promoted), *OPEN).values()),
        "project shows": label_studio.shown.get(PROJECT),
        "title": label_studio.backends[PROJECT]["title"],
        "failed": [job.error for job in store.jobs.newest(state=State.FAILED)],
        "open": [job.kind for job in store.jobs.newest(state=State.QUEUED)],
    }


def test_nobody_sees_anything_of_another_encoders_version_before_all_of_it_is_there(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    before, shown_before = learning.promoted, label_studio.shown[PROJECT]
    after = learning.finetuned(1, TASKS).model_version
    seen: list[tuple[str, Any, str]] = []
    label_studio.on_stored = lambda: seen.append((learning.promoted, label_studio.shown[PROJECT], learning.answer()))
    learning.store.ledger.catch_up()
    learning.promoter.run(PROJECT, after)
    assert seen == [(before, shown_before, shown_before)]
    assert (learning.promoted, label_studio.shown[PROJECT], learning.answer()) == (after, *[shown_name(after)] * 2)
    assert label_studio.versions(PROJECT) == {shown_before: len(TASKS), shown_name(after): len(OPEN)}


@pytest.mark.parametrize("is_in_the_middle", [False, True], ids=["from the start", "in the middle of pushing"])
def test_while_label_studio_is_away_the_old_version_goes_on_and_afterwards_it_is_brought_to_its_end(
    learning: Learning, label_studio: FakeLabelStudio, is_in_the_middle: bool
) -> None:
    before, shown_before = learning.promoted, learning.answer()
    version = learning.finetuned(1, TASKS).model_version

    def go_away() -> None:
        label_studio.is_down = True

    label_studio.on_stored = go_away  # what was sent has arrived, but nobody gets to know
    label_studio.is_down = not is_in_the_middle
    job = learning.ask(LEARN, "promote", version)
    learning.project_jobs.run(job)
    assert learning.store.jobs.get(job.id).state == State.QUEUED
    assert (learning.promoted, learning.answer()) == (before, shown_before)
    label_studio.is_down = False
    label_studio.on_stored = lambda: None
    learning.work_off(LEARN, wait_s=15)
    assert (learning.answer(), state(learning)["once"]) == (label_studio.shown[PROJECT], {1})
    assert shown_name(version) == label_studio.shown[PROJECT]
    assert list(label_studio.versions(PROJECT)) == [shown_name(version)]


def test_what_is_not_embedded_is_queued_and_waited_for_where_the_encoder_is_new(learning: Learning) -> None:
    before = learning.promoted
    learning.add({21: 0, 22: 1}, embedded=False)
    waiting = _candidate(learning)
    assert learning.promoter.run(PROJECT, waiting.model_version).num_waiting == 2
    learning.embed(21, 0)
    assert learning.promoter.run(PROJECT, waiting.model_version).num_waiting == 1
    assert learning.promoted == before
    learning.embed(22, 1)
    jobs = learning.store.jobs.claim("worker", BATCH, 10)
    assert [job.task for job in jobs] == [21, 22]  # one for each, however often it was asked for
    for job in jobs:
        learning.store.jobs.done(job)
    assert learning.promoter.run(PROJECT, waiting.model_version).num_waiting == 0
    assert learning.promoted == waiting.model_version
    assert learning.shown(waiting.model_version).keys() >= {21, 22}


def test_a_head_takes_over_before_all_is_embedded_and_asks_once_for_the_rest(learning: Learning) -> None:
    learning.add({21: 0, 22: 1}, embedded=False)
    assert learning.refitter.run(PROJECT).model_version == learning.promoted
    learning.sweep_a_slice()
    learning.say(3, "rain")
    assert learning.refitter.run(PROJECT).model_version == learning.promoted
    learning.sweep_a_slice()
    jobs = learning.store.jobs.claim("worker", BATCH, 10)
    assert {job.task for job in jobs} == {21, 22}
    for job in jobs:
        learning.embed(job.task, job.task - 21)
        learning.store.jobs.done(job)
    learning.work_off(LEARN, wait_s=15)
    assert [job.kind for job in learning.jobs(LEARN)].count("learn") == 1  # they are learnt from
    learning.pusher.push_owed()
    assert learning.shown(learning.promoted).keys() >= {21, 22}


def test_a_task_that_fails_is_not_waited_for(learning: Learning) -> None:
    learning.add({21: 0}, embedded=False)
    waiting = _candidate(learning)
    assert learning.promoter.run(PROJECT, waiting.model_version).num_waiting == 1
    (job,) = learning.store.jobs.claim("worker", BATCH, 10)
    learning.store.jobs.fail(job, SourceError("The clip is gone."))
    assert learning.promoter.run(PROJECT, waiting.model_version).num_waiting == 0
    assert learning.promoted == waiting.model_version
    assert 21 not in learning.shown(waiting.model_version)


def test_prune_takes_away_what_was_replaced_and_leaves_what_is_not_ours(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    label_studio.store({"task": 3, "model_version": "somebody's own", "score": 0.5, "result": []})
    learning.store.ledger.catch_up()
    learning.promoter.run(PROJECT, learning.finetuned(1, TASKS).model_version)
    assert learning.pruner.run(PROJECT).num_gone == 1
    assert label_studio.versions(PROJECT) == {shown_name(learning.promoted): len(OPEN), "somebody's own": 1}
    assert label_studio.shown[PROJECT] == shown_name(learning.promoted)


def test_prune_leaves_a_version_alone_that_is_on_its_way_in(learning: Learning, label_studio: FakeLabelStudio) -> None:
    learning.refitter.run(PROJECT)
    learning.add({21: 0}, embedded=False)
    waiting = _candidate(learning)
    assert learning.promoter.run(PROJECT, waiting.model_version).num_waiting == 1
    num_brought = label_studio.versions(PROJECT)[shown_name(waiting.model_version)]
    learning.pruner.run(PROJECT)
    assert label_studio.versions(PROJECT)[shown_name(waiting.model_version)] == num_brought


def _candidate(learning: Learning) -> Version:
    """A version by the labels' texts alone that never served, made now."""
    learning.clock.now += 1
    space_id, name = learning.zero_shot.split(".")[-1], f"by-hand.{learning.zero_shot}"
    version = Version(PROJECT, name, "counting", ENCODER.identity.version, "zero-shot", space_id)
    learning.store.versions.put(version)
    return learning.store.versions.get(PROJECT, name)


class TestKilled:
    """`kill -9` after each step: whoever goes on comes to the same end."""

    @pytest.mark.parametrize("kind", ["learn", "promote"])
    def test_after_each_step_the_end_is_that_of_a_run_that_nobody_killed(
        self, learning: Learning, label_studio: FakeLabelStudio, kind: str
    ) -> None:
        version = learning.finetuned(1, TASKS).model_version if kind == "promote" else ""
        learning.store.jobs.add(LEARN, [JobRequest(kind, PROJECT, model_version=version)])
        begun = Snapshot(learning)
        label_studio.setup = lambda _project: answered(learning)
        steps: list[str] = []
        worker = mortal(learning, steps.append)
        worker.work_off(LEARN, wait_s=15)
        expected = state(worker)
        assert shown_name(expected["promoted"]) == expected["project"] == expected["project shows"]
        assert expected["title"] == STORED_TITLE  # all is there: nobody is to be asked
        num_left = len(OPEN) if kind == "promote" else len(TASKS)  # a head leaves alone what is annotated
        assert expected["in Label Studio"] == {expected["project"]: num_left}
        assert (expected["once"], expected["owed"], expected["failed"], expected["open"]) == ({1}, 0, [], [])
        taken = {"delete_model_version"} if kind == "promote" else {"begin_sweep", "change_prediction", "advance"}
        assert {"promote", "push_predictions", "pushed", "done"} | taken <= set(steps)
        worker.close()
        if kind == "promote":
            steps = steps[: steps.index("done") + 1]  # the learning and pruning that follow are the other case
        last = {step: number for number, step in enumerate(steps, 1)}
        first = {step: number for number, step in reversed([*enumerate(steps, 1)])}
        for number in sorted({*first.values(), *last.values()}):
            step = steps[number - 1]
            begun.restore()
            # What is sent at once has a time limit, so that another run may take a few steps less.
            was_killed = killed(lambda n=number: mortal(learning, dying_after(n)).work_off(LEARN, wait_s=15))
            assert was_killed or number > len(steps) / 2, step
            heir = mortal(learning, lambda _: None)
            heir.clock.now += 1000
            heir.store.jobs.requeue_lost(1)
            heir.work_off(LEARN)
            assert state(heir) == expected, f"killed after step {number}, {step}"
            heir.close()


def answered(learning: Learning) -> str:
    """What the backend answers at `/setup`, from a connection of its own."""
    store = Store(learning.settings.database)
    name = find_serving(store, "counting", PROJECT, LABELS).shown_as
    store.close()
    return name


class Snapshot:
    """All that a project's store and Label Studio hold, to begin with it anew."""

    def __init__(self, learning: Learning) -> None:
        self._label_studio = learning.label_studio
        self._database = Path(learning.settings.model_dir) / "clapboard.db"
        learning.store.close()
        self._content = self._database.read_bytes()
        self._held = deepcopy((self._label_studio.stored, self._label_studio.shown, self._label_studio.backends))

    def restore(self) -> None:
        """Back to how it was. The store must be closed."""
        for leftover in self._database.parent.glob("clapboard.db-*"):
            leftover.unlink()
        self._database.write_bytes(self._content)
        label_studio = self._label_studio
        label_studio.stored, label_studio.shown, label_studio.backends = deepcopy(self._held)


def dying_after(number: int) -> Callable[[str], None]:
    """SIGKILL to whoever makes so many steps."""
    made: list[str] = []

    def step(name: str) -> None:
        made.append(name)
        if len(made) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def killed(work: Callable[[], object]) -> bool:
    """Do it in a process of its own; whether that was killed."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
