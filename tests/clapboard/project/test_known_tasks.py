"""Tasks as Clapboard keeps them: their recording, and which are set aside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clapboard.errors import SourceError
from clapboard.labels.label_config import parse_label_config
from clapboard.project.known_tasks import TaskReader, embedded, remember_tasks
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.tasks import KnownTask
from tests.support.fake_label_studio import CHOICES

LABELS = parse_label_config(CHOICES)
SETTINGS = Settings()
SOURCES = AudioSources(SETTINGS)


def reader(share: float = 0.0, project: int = 1) -> TaskReader:
    return TaskReader(SETTINGS, SOURCES, project, share)


def data(number: int, **others: Any) -> dict[str, Any]:
    return {"audio": f"https://host.example/{number}.wav"} | others


def aside(share: float, numbers: range, project: int = 1) -> set[int]:
    reading = reader(share, project)
    return {number for number in numbers if reading.read(LABELS, number, data(number)).held_out}


def test_a_task_knows_where_its_audio_lies_and_which_recording_it_was_cut_from() -> None:
    key = SOURCES.key("https://host.example/3.wav")
    for named, source in (({}, key), ({"recording": "tape 4"}, "tape 4"), ({"recording": 17}, "17")):
        found = reader().read(LABELS, 3, data(3, **named))
        assert found == KnownTask(3, "https://host.example/3.wav", key, source, False)


@pytest.mark.parametrize("named", [None, "", "  ", [], {}])
def test_a_recording_without_a_name_is_the_file(named: Any) -> None:
    found = reader().read(LABELS, 3, data(3, recording=named))
    assert found.source == found.uri_key


def test_the_key_that_names_the_recording_can_be_chosen() -> None:
    settings = SETTINGS.with_overrides(recording_key="tape")
    found = TaskReader(settings, SOURCES, 1, 0.0).read(LABELS, 3, data(3, recording="a", tape="b"))
    assert found.source == "b"


def test_a_task_without_audio_says_so() -> None:
    with pytest.raises(SourceError):
        reader().read(LABELS, 3, {"other": 1})


def test_about_the_share_that_was_asked_for_is_held_out() -> None:
    numbers = range(4000)
    assert aside(0.0, numbers) == set()
    tenth = aside(0.1, numbers)
    assert 320 <= len(tenth) <= 480
    assert tenth < aside(0.3, numbers)  # a greater share takes others along, and none back
    assert aside(0.1, numbers) == tenth
    assert aside(0.1, numbers, project=2) != tenth


def test_all_clips_of_a_recording_are_on_one_side() -> None:
    reading = reader(0.5)
    sides = {
        tape: {reading.read(LABELS, n, data(100 * tape + n, recording=tape)).held_out for n in range(5)}
        for tape in range(20)
    }
    assert all(len(side) == 1 for side in sides.values())
    assert {True, False} == set().union(*sides.values())


class TestRemembering:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = Store(f"sqlite:///{tmp_path / 'clapboard.db'}")
        yield store
        store.close()

    def remember(self, store: Store, task: Any, project: int = 1) -> None:
        remember_tasks(SETTINGS, store, SOURCES, project, {"task": task})

    def test_an_events_tasks_are_kept_for_a_connected_project_alone(self, store: Store) -> None:
        self.remember(store, {"id": 3, "data": data(3)})
        store.catalog.put_project(1, CHOICES, "v1")
        self.remember(store, {"id": 3, "data": data(3)})
        assert store.tasks.count(1) == (0, 0)
        store.catalog.set_connected(1, 0.5)
        self.remember(store, {"id": 3, "data": data(3)})
        self.remember(store, [{"id": number, "data": data(number)} for number in range(4, 40)])
        num_known, num_aside = store.tasks.count(1)
        assert num_known == 37
        assert 5 <= num_aside <= 32

    def test_what_cannot_be_read_is_left_out(self, store: Store) -> None:
        store.catalog.put_project(1, CHOICES, "v1")
        store.catalog.set_connected(1)
        for task in (None, 5, {"id": 1}, {"id": "x", "data": data(1)}, {"id": 2, "data": {}}, {"data": data(1)}):
            self.remember(store, task)
        assert store.tasks.count(1) == (0, 0)
        self.remember(store, [{"id": 1, "data": {}}, {"id": 2, "data": data(2)}])
        assert list(store.tasks.get(1, [1, 2])) == [2]

    def test_a_project_whose_label_config_cannot_be_used_keeps_none(self, store: Store) -> None:
        store.catalog.put_project(1, "<View/>", "v1")
        store.catalog.set_connected(1)
        self.remember(store, {"id": 3, "data": data(3)})
        assert store.tasks.count(1) == (0, 0)

    def test_those_whose_audio_the_encoder_has_embedded_are_found_with_it(self, store: Store) -> None:
        encoder = Encoder("mini", "e1", "float32", 2, 10.0)
        tasks = [reader().read(LABELS, number, data(number)) for number in (1, 2, 3)]
        vectors = np.array([[1, 0], [0, 1]], np.float32)
        for task, version in ((tasks[0], "e1"), (tasks[1], "e2")):
            store.embeddings.put_recording(task.uri_key, Recording(f"sha-{task.task}", 2, 20.0))
            store.embeddings.put(f"sha-{task.task}", version, "float32", 0, vectors)
        found = embedded(store, tasks, encoder)
        assert list(found) == [1]
        assert np.array_equal(found[1], vectors)
