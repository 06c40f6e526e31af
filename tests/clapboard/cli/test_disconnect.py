"""`clapboard disconnect` as typed, beside a Label Studio whose other contents must stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clapboard.feedback.entries import Outcome
from clapboard.queue.names import BATCH
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.predictions import Delivery, StoredPrediction
from clapboard.store.tasks import KnownTask
from tests.clapboard.cli.conftest import Main
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio

PROJECT = 7
BACKEND = "http://localhost:9090"
OURS, OLD, FOREIGN = "mini-0123.zero-shot.abcd", "mini-0123.head.abcd", "somebody-else"


class Connected:
    """A connected project, in the store and in Label Studio."""

    def __init__(self, folder: Path, label_studio: FakeLabelStudio, typed: Main) -> None:
        settings: dict[str, Any] = {
            "label_studio_url": label_studio.url,
            "label_studio_api_key": TOKEN,
            "job_lease_s": 1,
        }
        self.run: Callable[..., tuple[int, str]] = partial(typed, "disconnect", "--project", str(PROJECT), **settings)
        self.label_studio = label_studio
        self.store = Store.open(Settings(MODEL_DIR=folder))
        self.store.catalog.put_project(PROJECT, CHOICES, OURS)
        self.store.catalog.set_connected(PROJECT, 0.25, last_task=2)
        self.store.access.add_url(BACKEND)
        self.store.tasks.put(
            PROJECT, [KnownTask(n, f"https://host.example/{n}.wav", f"k{n}", "s", False) for n in (1, 2)]
        )
        label_studio.connect(PROJECT, BACKEND)
        label_studio.add_tasks(PROJECT, *({"id": number, "data": {}} for number in (1, 2)))
        label_studio.webhooks = [
            {"id": 1, "project": PROJECT, "url": f"{BACKEND}/webhook"},
            {"id": 2, "project": PROJECT, "url": "http://others.example/webhook"},
        ]
        label_studio.views = [{"id": number, "project": PROJECT, "data": {"title": "t"}} for number in (31, 32, 33)]
        self.store.tabs.put(PROJECT, "unsure first", 31)
        self.store.tabs.put(PROJECT, "no audio", 32)
        for version in (OURS, OLD):
            self.predict(version)
        label_studio.store({"task": 1, "model_version": FOREIGN, "result": []})
        label_studio.shown[PROJECT] = OURS

    def predict(self, version: str) -> None:
        """Both tasks have a prediction of the version, which Label Studio holds."""
        new = [StoredPrediction(PROJECT, task, version, f"k{task}", 0.5, []) for task in (1, 2)]
        self.store.predictions.put_for_push(new)
        self.store.predictions.pushed(PROJECT, [1, 2], version)
        for task in (1, 2):
            self.label_studio.store({"task": task, "model_version": version, "result": []})

    def assert_gone(self) -> None:
        """Nothing of ours is left there, and all that others have made is."""
        assert self.label_studio.backends == {}
        assert [webhook["id"] for webhook in self.label_studio.webhooks] == [2]
        assert [view["id"] for view in self.label_studio.views] == [33]
        assert self.label_studio.versions(PROJECT) == {FOREIGN: 1}
        assert not self.store.catalog.project(PROJECT).connected


@pytest.fixture
def connected(tmp_path: Path, typed: Main) -> Iterator[Connected]:
    with FakeLabelStudio() as label_studio:
        connected = Connected(tmp_path / "state", label_studio, typed)
        yield connected
        connected.store.close()


def test_what_we_made_goes_and_is_told_and_a_second_run_finds_nothing(connected: Connected) -> None:
    code, written = connected.run("--json")
    assert code == 0, written
    connected.assert_gone()
    assert json.loads(written) == {
        "project": PROJECT,
        "was_connected": True,
        "backends": [BACKEND],
        "webhooks": [f"{BACKEND}/webhook"],
        "tabs": ["no audio", "unsure first"],
        "predictions": {OLD: 2, OURS: 2},
    }
    code, written = connected.run()
    assert code == 0
    assert "there was nothing to take out" in written


def test_everything_to_connect_again_stays(connected: Connected) -> None:
    event = {"action": "ANNOTATION_CREATED", "annotation": annotation(), "project": {"id": PROJECT}}
    connected.store.append_event("ANNOTATION_CREATED", PROJECT, event)
    connected.store.ledger.catch_up()
    connected.store.jobs.add(BATCH, [JobRequest("predict", PROJECT, 1, OURS)])
    code, written = connected.run()
    assert code == 0, written
    assert "2 predictions of" in written
    store = connected.store
    assert [entry.outcome for entry in store.ledger.standing(PROJECT)] == [Outcome.ADDED]
    assert {task.task for page in store.tasks.of_project(PROJECT) for task in page} == {1, 2}
    assert store.jobs.num_open(PROJECT, OURS) == 0
    assert store.predictions.counts_of_version(PROJECT, OURS) == {Delivery.READY: 2}  # pushed again by `prelabel`
    store.catalog.set_connected(PROJECT, 0.9, last_task=50)
    back = store.catalog.project(PROJECT)
    assert (back.connected, back.test_share, back.last_task) == (True, 0.25, 2)


@pytest.mark.parametrize("asked", ["DELETE /api/webhooks", "DELETE /api/projects"])
def test_a_run_that_label_studio_interrupts_says_so_and_the_next_one_finishes(connected: Connected, asked: str) -> None:
    connected.label_studio.down_at = asked
    code, written = connected.run()
    assert code == 3
    sentence = " ".join(written.split())
    assert sentence.startswith(f"error: Project {PROJECT} is only partly disconnected (")
    assert sentence.endswith(f"run `clapboard disconnect --project {PROJECT}` again, which goes on where it stopped.")
    connected.label_studio.down_at, connected.label_studio.is_down = "", False
    assert connected.run()[0] == 0
    connected.assert_gone()


def test_nothing_changes_while_label_studio_is_away(connected: Connected) -> None:
    connected.label_studio.is_down = True
    code, written = connected.run("--json")
    assert (code, json.loads(written)["error"]) == (3, "label_studio_unreachable")
    assert connected.store.catalog.project(PROJECT).connected
    assert connected.store.tabs.of_project(PROJECT) == {"unsure first": 31, "no audio": 32}


def test_a_project_that_was_deleted_there_is_disconnected_here(connected: Connected) -> None:
    del connected.label_studio.tasks[PROJECT]
    code, written = connected.run("--json")
    assert (code, json.loads(written)["was_connected"]) == (0, True)
    assert connected.store.catalog.connected_projects() == {}


def test_a_project_that_nobody_knows_is_an_error(connected: Connected) -> None:
    code, written = connected.run("--project", "99")
    assert code == 3
    assert "project 99" in written


def annotation() -> dict[str, Any]:
    """One that somebody has made of task 1."""
    value = {"from_name": "clip", "to_name": "audio", "type": "choices", "id": "r", "value": {"choices": ["dog"]}}
    content = {"id": 4, "task": 1, "result": [value], "completed_by": 1, "updated_at": "2026-01-01T00:00:00Z"}
    return dict(json.loads(json.dumps(content)))
