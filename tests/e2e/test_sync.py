"""With every webhook lost, one cycle of reconciliation makes the ledger what it is with none lost: the real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from clapboard.feedback.entries import Entry, Outcome
from clapboard.label_studio.client import LabelStudioClient
from clapboard.project.sync import reconcile
from clapboard.store.predictions import StoredPrediction
from clapboard.suggest.prediction import shown_name
from tests.support.processes import Installation
from tests.support.programs import free_port
from tests.support.waiting import wait_for

pytestmark = pytest.mark.e2e

VERSION = "mini-0123456789abcdef.zero-shot.01234567"
CONFIG = """<View>
  <Audio name="audio" value="$audio"/>
  <Choices name="clip" toName="audio"><Choice value="dog"/><Choice value="rain"/></Choices>
  <Labels name="event" toName="audio"><Label value="bark"/><Label value="drop"/></Labels>
</View>"""
NUM_TASKS = 16


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A state folder, and the backend's processes on it."""
    with Installation(tmp_path_factory.mktemp("house"), "mini") as installation:
        yield installation


def test_a_ledger_without_any_webhook_is_the_same_one_cycle_later(
    house: Installation, label_studio_client: LabelStudioClient, label_studio_api: httpx.Client
) -> None:
    backend = house.serve()
    told, dropped = (_project(house, label_studio_client, title) for title in ("Webhooks come", "Webhooks are lost"))
    label_studio_client.ensure_webhook(told[0], str(backend.client.base_url.join("/webhook")), {})
    label_studio_client.ensure_webhook(dropped[0], f"http://127.0.0.1:{free_port()}/webhook", {})  # nobody is there
    for project, tasks in (told, dropped):
        annotator = Annotator(label_studio_client, label_studio_api, project)
        annotator.work(tasks)
    wait_for(lambda: _num_events(house, told[0]) == annotator.num_deeds, "not every event of the webhook has come")
    assert _num_events(house, dropped[0]) == 0
    house.store.ledger.catch_up()
    assert _comparable(house, *dropped) == []

    found = reconcile(house.store, label_studio_client, dropped[0])
    expected = _comparable(house, *told)
    assert _comparable(house, *dropped) == expected
    assert {entry.outcome for entry in expected} == set(Outcome) - {Outcome.WITHDRAWN}
    assert found.num_annotations == found.num_entered == label_studio_client.num_annotations(dropped[0])
    assert found.num_deleted == 0  # what came and went between two cycles leaves no trace

    for project, _ in (told, dropped):
        assert reconcile(house.store, label_studio_client, project).num_entered == 0
        short = reconcile(house.store, label_studio_client, project, changed_since=found.until)
        assert (short.num_entered, short.num_deleted, short.is_complete) == (0, 0, False)
        label_studio_client.delete_project(project)


class Annotator:
    """Somebody who does everything that can be done to an annotation."""

    def __init__(self, client: LabelStudioClient, api: httpx.Client, project: int) -> None:
        self._client = client
        self._api = api
        self._project = project
        self.num_deeds = 0  # each is an event

    def work(self, tasks: list[int]) -> None:
        """The same on every project: `tasks` hold the same clips in the same order."""
        suggested = {task: ids[0] for task, ids in self._client.predictions(self._project, tasks) if ids}
        todo = iter(tasks)

        def say(*result: Any, **fields: Any) -> int:
            task = next(todo)
            return self._say(task, list(result), parent_prediction=suggested.get(task), **fields)

        say(choice("dog"), region())  # accepted
        say(choice("rain"), region())  # corrected
        say(choice("dog"), region(label="drop"), region("new", start_s=5.0, label="drop"))  # relabelled, added
        say(choice("dog"), region(start_s=1.6))  # moved
        say(choice("dog"))  # region deleted
        say(choice("rain", "by-hand"), ground_truth=True)
        say(was_cancelled=True)  # skipped
        self._update(say(choice("dog"), region()), result=[choice("rain"), region()])
        self._update(say(was_cancelled=True), was_cancelled=False, result=[choice("dog"), region()])
        self._delete(say(choice("dog"), region()))
        twice = next(todo)
        self._say(twice, [choice("dog"), region()])
        self._say(twice, [choice("rain"), region()])
        self._act("delete_tasks_annotations", [self._said_on(next(todo))])
        bulk = [next(todo), next(todo)]
        self._act("predictions_to_annotations", bulk, model_version=shown_name(VERSION))
        (opened,) = self._annotations(bulk[1])
        self._update(opened, result=[choice("rain"), region()], lead_time=6.0)
        self._update(say(choice("dog"), region()), lead_time=8.0)
        assert len(list(todo)) == 1  # left open

    def _say(self, task: int, result: list[dict[str, Any]], **fields: Any) -> int:
        self.num_deeds += 1
        body = {"result": result, "lead_time": 3.5} | fields
        answer = self._api.post(f"/api/tasks/{task}/annotations/", json=body)
        return int(answer.raise_for_status().json()["id"])

    def _said_on(self, task: int) -> int:
        self._say(task, [choice("dog"), region()])
        return task

    def _update(self, annotation: int, **fields: Any) -> None:
        self.num_deeds += 1
        self._api.patch(f"/api/annotations/{annotation}/", json=fields).raise_for_status()

    def _delete(self, annotation: int) -> None:
        self.num_deeds += 1
        self._api.delete(f"/api/annotations/{annotation}/").raise_for_status()

    def _act(self, action: str, tasks: list[int], **fields: Any) -> None:
        self.num_deeds += 1
        body = {"selectedItems": {"all": False, "included": tasks}, "project": self._project} | fields
        params: dict[str, Any] = {"id": action, "project": self._project}
        self._api.post("/api/dm/actions/", params=params, json=body).raise_for_status()

    def _annotations(self, task: int) -> list[int]:
        annotations = self._api.get(f"/api/tasks/{task}/annotations/").raise_for_status().json()
        return [annotation["id"] for annotation in annotations]


def choice(label: str, number: str = "c1") -> dict[str, Any]:
    value = {"choices": [label]}
    return {"id": number, "from_name": "clip", "to_name": "audio", "type": "choices", "value": value}


def region(number: str = "r1", *, start_s: float = 1.0, label: str = "bark") -> dict[str, Any]:
    value = {"start": start_s, "end": start_s + 2.0, "channel": 0, "labels": [label]}
    head = {"id": number, "from_name": "event", "to_name": "audio", "type": "labels", "original_length": 10.0}
    return head | {"value": value}


def _project(house: Installation, client: LabelStudioClient, title: str) -> tuple[int, list[int]]:
    """A project and its tasks, each with the same suggestion in Label Studio and in the store."""
    project = client.create_project(title, CONFIG).id
    tasks = client.import_tasks(project, [{"audio": f"/clip{number}.wav"} for number in range(NUM_TASKS)])
    result = [choice("dog") | {"score": 0.75}, region() | {"score": 0.5}]
    stored = [StoredPrediction(project, task, VERSION, f"key-{task}", 0.5, result) for task in tasks]
    house.store.predictions.put_for_push(stored)
    items = [one.as_json() | {"task": one.task} for one in stored]
    assert client.push_predictions(project, items) == NUM_TASKS
    house.store.predictions.pushed(project, tasks, VERSION)
    return project, tasks


def _num_events(house: Installation, project: int) -> int:
    counts = house.store.inbox.counts(project)
    return sum(count for action, count in counts.items() if action.startswith("ANNOTATION"))


def _comparable(house: Installation, project: int, tasks: list[int]) -> list[Entry]:
    """What stands for the project, with its own numbers replaced: tasks by their place, annotations by their order."""
    standing = house.store.ledger.standing(project)
    places = {task: place for place, task in enumerate(tasks)}
    order = {number: place for place, number in enumerate(sorted({entry.annotation for entry in standing}))}
    return [
        replace(entry, project=0, revision=0.0, task=places[entry.task], annotation=order[entry.annotation])
        for entry in standing
    ]
