"""How suggestions that a head changes reach Label Studio behind its back: the sweep's pace, and what is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from clapboard.label_studio.checks import STORED_TITLE
from clapboard.project.display import name_in_use, settle
from clapboard.project.serving import zero_shot_version
from clapboard.queue.celery_app import LEARN
from clapboard.suggest.prediction import shown_name
from tests.support.fake_label_studio import FakeLabelStudio
from tests.workers.learning import PROJECT, Learning
from workers.changed_suggestions import FIRST, MOST_AT_ONCE
from workers.rollout import Takeover
from workers.sweep import ANNOTATING_S

NUM_TASKS = 2 * MOST_AT_ONCE + 20


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with FakeLabelStudio() as server:
        yield server


@pytest.fixture
def learning(tmp_path: Path, label_studio: FakeLabelStudio) -> Iterator[Learning]:
    learning = Learning(tmp_path, label_studio)
    learning.introduce()
    label_studio.setup = learning.answer
    yield learning
    learning.close()


def labelled(learning: Learning, num_tasks: int) -> None:
    """All tasks show what the labels' texts suggest, which is the same for both heaps; each heap has a label now."""
    learning.add({task: task % 2 for task in range(1, num_tasks + 1)})
    version = zero_shot_version(learning.store, "counting", PROJECT)
    learning.store.versions.put(version)
    learning.rollout.run(Takeover(version))
    learning.say(1, "dog")
    learning.say(2, "rain")


def test_the_sweep_rests_longer_the_slower_label_studio_gets_and_while_somebody_annotates(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    labelled(learning, NUM_TASKS)
    change_s = 0.25

    def take_time() -> None:
        learning.monotonic.now += change_s

    label_studio.on_changed = take_time
    learning.refitter.run(PROJECT)
    learning.pusher.push_owed()

    def rest_s() -> float:
        """How long it rests after a slice, by the time that the slice took."""
        began_at, asked = learning.monotonic.now, len(label_studio.asked)
        learning.clock.now += 100
        (job,) = (job for job in learning.store.jobs.claim("sweeper", LEARN, 100) if job.kind == "sweep")
        learning.project_jobs.run(job)
        assert len(label_studio.asked) > asked
        took_s = learning.monotonic.now - began_at
        assert 0 < took_s <= 4 * change_s  # a slice is short, however much there is to do
        return (learning.store.displays.get(PROJECT).rests_until - learning.clock.now) / took_s

    assert rest_s() == pytest.approx(1.0)
    change_s = 1.0
    assert rest_s() > 10
    change_s = 0.25
    assert rest_s() == pytest.approx(1.0)
    learning.say(3, "rain")
    learning.clock.now -= 100 - ANNOTATING_S / 2  # it was just before the next slice
    assert rest_s() >= 3.0


def test_where_anything_may_come_next_label_studio_asks_until_all_suggestions_are_up_to_date(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    label_studio.sampling = "Uniform sampling"
    labelled(learning, 12)
    name = shown_name(learning.promoted)
    assert settle(learning.store, learning.client, learning.settings, PROJECT, name).num_unserved == 0
    assert label_studio.backends[PROJECT]["title"] == STORED_TITLE
    learning.refitter.run(PROJECT)
    assert (label_studio.backends[PROJECT]["title"], label_studio.shown[PROJECT]) == (name, name)
    assert learning.store.displays.asking() == {PROJECT: learning.promoted}
    # Somebody opens a task, and gets the newest suggestion under the version's own name.
    task, promoted = 11, learning.promoted
    key = learning.store.tasks.get(PROJECT, [task])[task].uri_key
    asked = {"model_version": promoted, "since": learning.clock.now, "own_name": True}
    (taken,) = learning.store.predictions.take_for_answer(PROJECT, {task: key}, **asked).values()
    assert taken.shown_as == promoted
    learning.work_off(LEARN)
    assert learning.store.displays.asking() == {}
    assert (label_studio.backends[PROJECT]["title"], label_studio.shown[PROJECT]) == (STORED_TITLE, name)
    shown = learning.shown(promoted)
    assert {task: shown[task] for task in range(3, 13)} == {n: "dog" if n % 2 else "rain" for n in range(3, 13)}


def test_what_comes_next_goes_ahead_of_what_an_earlier_head_still_owes(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    labelled(learning, 6 * FIRST)
    learning.refitter.run(PROJECT)
    store = learning.store
    assert store.predictions.num_owed() > FIRST  # nobody has pushed what came after the first ones
    earlier = learning.promoted
    for task in (3, 5, 7):  # somebody finds that the other heap is a dog as well
        learning.say(task, "rain")
    learning.refitter.run(PROJECT)
    assert learning.promoted != earlier
    assert earlier not in {prediction.model_version for prediction in store.predictions.take_for_push(1000, 30)}


def test_an_earlier_releases_name_is_shown_until_all_have_todays(
    learning: Learning, label_studio: FakeLabelStudio
) -> None:
    labelled(learning, 12)
    own, name = learning.promoted, shown_name(learning.promoted)
    with learning.store.database.write() as connection:  # as an earlier release left it
        connection.execute(text("UPDATE predictions SET shown_as = ''"))
        connection.execute(text("DELETE FROM displays"))
    for prediction in label_studio.stored:
        prediction["model_version"] = own
    label_studio.backends[PROJECT]["title"], label_studio.shown[PROJECT] = STORED_TITLE, own
    assert name_in_use(learning.store, PROJECT, own) == own
    settle(learning.store, learning.client, learning.settings, PROJECT, own)  # `clapboard connect`
    assert label_studio.shown[PROJECT] == own
    seen: list[str] = []
    label_studio.on_stored = lambda: seen.append(label_studio.shown[PROJECT])
    learning.queue.add_for_project(LEARN, "align", PROJECT)
    learning.work_off(LEARN)
    assert seen == [own]
    assert label_studio.shown[PROJECT] == name == name_in_use(learning.store, PROJECT, own)
    assert learning.shown(own).keys() >= set(range(3, 13))
