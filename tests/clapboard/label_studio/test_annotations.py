"""Reading annotations, against a real Label Studio."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import httpx
import pytest

from clapboard.errors import LabelStudioError
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Project
from tests.support.fixtures_label_studio import RecordingBackend, prediction

RESULT = [{"id": "c1", "from_name": "clip", "to_name": "audio", "type": "choices", "value": {"choices": ["dog"]}}]


@pytest.fixture
def client(label_studio_client: LabelStudioClient) -> LabelStudioClient:
    return label_studio_client


@pytest.fixture
def project(two_choices: Project) -> Project:
    return two_choices


@pytest.fixture
def task_ids(client: LabelStudioClient, project: Project) -> list[int]:
    return client.import_tasks(project.id, [{"audio": f"s3://bucket/clip{i}.wav"} for i in range(4)])


def annotate(api: httpx.Client, task: int, **fields: Any) -> int:
    answer = api.post(f"/api/tasks/{task}/annotations/", json={"result": RESULT, "lead_time": 2.5} | fields)
    return int(answer.raise_for_status().json()["id"])


def test_annotations_come_with_all_that_a_webhook_tells_of_them(
    client: LabelStudioClient, project: Project, task_ids: list[int], label_studio_api: httpx.Client
) -> None:
    client.push_predictions(project.id, [prediction(task_ids[1])])
    (suggested,) = dict(client.predictions(project.id, [task_ids[1]]))[task_ids[1]]
    with RecordingBackend("v1") as listener:
        client.ensure_webhook(project.id, f"{listener.url}/webhook", {})
        annotate(label_studio_api, task_ids[1], parent_prediction=suggested, ground_truth=True)
        told = listener.wait_for("/webhook", lambda request: request.body["action"] == "ANNOTATION_CREATED").body
    (task,) = client.annotated_tasks(project.id)
    (read,) = task.annotations
    not_in_the_api = {"prediction", "result_count", "unique_id"}
    not_told_us = {"draft_created_at", "last_action", "last_created_by"}
    assert read == {k: v for k, v in told["annotation"].items() if k not in not_in_the_api | not_told_us}
    assert read["parent_prediction"] == suggested
    assert (task.id, task.data) == (told["task"]["id"], told["task"]["data"])


def test_every_annotated_task_comes_once_over_several_pages_with_all_its_annotations(
    client: LabelStudioClient, project: Project, task_ids: list[int], label_studio_api: httpx.Client
) -> None:
    first, skipped, _, last = task_ids
    made = [annotate(label_studio_api, first), annotate(label_studio_api, first, lead_time=None)]
    made.append(annotate(label_studio_api, skipped, result=[], was_cancelled=True))
    made.append(annotate(label_studio_api, last))
    found = list(client.annotated_tasks(project.id, page_size=1))
    assert [task.id for task in found] == [first, skipped, last]
    held = [sorted(annotation["id"] for annotation in task.annotations) for task in found]
    assert held == [made[:2], made[2:3], made[3:]]
    assert found[1].annotations[0]["was_cancelled"] is True
    assert found[0].data == {"audio": "s3://bucket/clip0.wav"}
    assert client.num_annotations(project.id) == len(made)


def test_a_project_without_tasks_or_annotations_has_none(client: LabelStudioClient, project: Project) -> None:
    assert list(client.annotated_tasks(project.id)) == []
    client.import_tasks(project.id, [{"audio": "/a.wav"}])
    assert list(client.annotated_tasks(project.id)) == []
    assert list(client.annotated_tasks(project.id, changed_since=0)) == []
    assert client.num_annotations(project.id) == 0


def test_only_tasks_that_changed_since_are_read(
    client: LabelStudioClient, project: Project, task_ids: list[int], label_studio_api: httpx.Client
) -> None:
    updated, deleted, untouched, annotated = task_ids
    numbers = {task: annotate(label_studio_api, task) for task in (updated, deleted, untouched)}
    annotate(label_studio_api, deleted)
    time.sleep(0.01)
    before = _newest_change(label_studio_api, project.id)
    label_studio_api.patch(f"/api/annotations/{numbers[updated]}/", json={"lead_time": 9.0}).raise_for_status()
    label_studio_api.delete(f"/api/annotations/{numbers[deleted]}/").raise_for_status()
    annotate(label_studio_api, annotated)
    found = {task.id: task for task in client.annotated_tasks(project.id, changed_since=before + 0.001)}
    assert found.keys() == {updated, deleted, annotated}
    assert found[updated].annotations[0]["lead_time"] == 9.0
    assert untouched in {task.id for task in client.annotated_tasks(project.id, changed_since=before - 60)}


def test_reading_never_makes_label_studio_ask_the_backend(
    client: LabelStudioClient, project: Project, task_ids: list[int], label_studio_api: httpx.Client
) -> None:
    with RecordingBackend("v1") as backend:
        client.add_backend(project.id, url=backend.url, title="v1")
        settings = {"evaluate_predictions_automatically": True}
        label_studio_api.patch(f"/api/projects/{project.id}/", json=settings).raise_for_status()
        annotate(label_studio_api, task_ids[0])
        assert [task.id for task in client.annotated_tasks(project.id)] == task_ids[:1]
        assert backend.received("/predict") == []


def test_one_annotation_is_found_or_known_to_be_gone(
    client: LabelStudioClient, project: Project, task_ids: list[int], label_studio_api: httpx.Client
) -> None:
    number = annotate(label_studio_api, task_ids[0])
    found = client.annotation(number)
    assert found is not None
    assert (found["id"], found["project"]) == (number, project.id)
    label_studio_api.delete(f"/api/annotations/{number}/").raise_for_status()
    assert client.annotation(number) is None


def test_a_project_that_does_not_exist_is_named(client: LabelStudioClient) -> None:
    with pytest.raises(LabelStudioError, match="knows no annotations of project 987654"):
        list(client.annotated_tasks(987654))


def test_label_studio_says_what_time_it_is(client: LabelStudioClient) -> None:
    said = client.clock()
    assert said is not None
    assert abs(said - time.time()) < 60


def _newest_change(api: httpx.Client, project: int) -> float:
    tasks = api.get("/api/tasks/", params={"project": project, "page_size": 100}).json()["tasks"]
    return max(datetime.fromisoformat(task["updated_at"]).timestamp() for task in tasks)
