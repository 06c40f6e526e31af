"""Every form of event in Label Studio's contract, sent to a real backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from backend.webhook import WebhookService
from clapboard.errors import RequestError
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.inbox import Event
from clapboard.store.predictions import StoredPrediction
from tests.backend.conftest import PASSWORD
from tests.support.labelled_project import add_labels
from tests.support.processes import Backend, Installation

RESULT = [{"id": "r1", "from_name": "clip", "to_name": "audio", "type": "choices", "value": {"choices": ["dog"]}}]
TASK = {"id": 11, "project": 6, "data": {"audio": "/data/upload/6/a b.wav", "häufig": ["☃", 1.5, None, True]}}
ANNOTATION = {"id": 3, "task": 11, "project": 6, "result": RESULT, "was_cancelled": False, "lead_time": 12.25}
PROJECT = {"id": 6, "title": "Dogs", "label_config": "<View/>", "created_by": {"id": 1, "email": "a@example.org"}}

FORMS: dict[str, dict[str, Any]] = {
    "START_TRAINING": {"action": "START_TRAINING", "project": PROJECT},
    "ANNOTATION_CREATED": {
        "action": "ANNOTATION_CREATED",
        "annotation": ANNOTATION,
        "project": PROJECT,
        "task": TASK,
    },
    "a skip": {
        "action": "ANNOTATION_CREATED",
        "annotation": ANNOTATION | {"was_cancelled": True, "result": []},
        "project": PROJECT,
        "task": TASK,
    },
    "ANNOTATION_UPDATED": {
        "action": "ANNOTATION_UPDATED",
        "annotation": ANNOTATION,
        "project": PROJECT,
        "task": TASK,
    },
    "ANNOTATIONS_CREATED": {
        "action": "ANNOTATIONS_CREATED",
        "annotation": [ANNOTATION, ANNOTATION | {"id": 4, "task": 12}],
        "project": PROJECT,
        "task": [TASK, TASK | {"id": 12}],
    },
    "ANNOTATIONS_DELETED": {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 3}, {"id": 4}], "project": PROJECT},
    "TASKS_CREATED": {"action": "TASKS_CREATED", "tasks": [TASK, TASK | {"id": 12}], "project": PROJECT},
    "TASKS_DELETED": {"action": "TASKS_DELETED", "tasks": [{"id": 11}, {"id": 12}], "project": PROJECT},
    "PROJECT_UPDATED": {"action": "PROJECT_UPDATED", "project": PROJECT},
    "an action to come": {"action": "WEBHOOK_OF_TOMORROW", "project": 6, "news": {"a": [1, {"b": None}]}},
    "no project but a task's": {"action": "LABEL_LINK_CREATED", "task": {"project": 6}},
    "no project but a list's": {"action": "LABEL_LINK_CREATED", "annotation": [{"project": 6}]},
}


def posted(backend: Backend, body: Any) -> httpx.Response:
    return backend.client.post("/webhook", content=json.dumps(body), headers={"Content-Type": "application/json"})


@pytest.fixture
def new_events(installation: Installation) -> Callable[[], list[Event]]:
    """The events since the test began."""
    held = installation.store.inbox.events()
    last = held[-1].id if held else 0
    return lambda: installation.store.inbox.events(after_id=last)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_event_is_stored_as_it_was_sent(
    backend: Backend, new_events: Callable[[], list[Event]], form: str
) -> None:
    answer = posted(backend, FORMS[form])
    assert answer.status_code == 201
    (event,) = new_events()
    assert answer.json()["event"] == event.id
    assert (event.action, event.project, event.body) == (FORMS[form]["action"], 6, FORMS[form])


def test_an_event_without_any_project_is_stored_too(backend: Backend, new_events: Callable[[], list[Event]]) -> None:
    body = {"action": "ORGANIZATION_RENAMED", "organization": {"id": 1}}
    assert posted(backend, body).status_code == 201
    (event,) = new_events()
    assert (event.project, event.body) == (None, body)


def test_half_a_surrogate_pair_is_stored_as_it_was_sent(
    backend: Backend, new_events: Callable[[], list[Event]]
) -> None:
    body = {"action": "TASKS_CREATED", "project": {"id": 6}, "tasks": [{"data": {"text": "\ud83d and \u0000"}}]}
    assert posted(backend, body).status_code == 201
    (event,) = new_events()
    assert event.body == body


def test_credentials_are_left_out_except_in_task_data_and_annotations(
    backend: Backend, new_events: Callable[[], list[Event]]
) -> None:
    said = [{"value": {"choices": ["password"], "token": "people's own"}}]
    body = {
        "action": "ANNOTATION_CREATED",
        "project": {"id": 6, "access_token": "t0ken-1", "title": "Dogs", "task_data_password": "t0ken-2"},
        "owners": [{"email": "a@example.org", "token": "t0ken-3"}],
        "task": {"id": 1, "data": {"audio": "/a.wav", "login": "people's own"}},
        "annotation": {"id": 1, "result": said},
    }
    assert posted(backend, body).status_code == 201
    (event,) = new_events()
    without = {"project": {"id": 6, "title": "Dogs"}, "owners": [{"email": "a@example.org"}]}
    assert event.body == body | without
    assert "t0ken" not in backend.process.log


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"action": None},
        {"action": ""},
        {"action": 5},
        {"action": ["START_TRAINING"]},
        {"action": "\ud800"},
        {"action": "A\u0000B"},
        {"action": "A" * 1000},
        {"action": "START_TRAINING", "project": {"id": "t0ken-t0ken"}},
        {"action": "START_TRAINING", "project": {"id": 2**80}},
        [FORMS["PROJECT_UPDATED"]],
        "START_TRAINING",
        None,
    ],
)
def test_a_body_that_is_no_event_is_refused_in_one_sentence_and_not_stored(
    backend: Backend, new_events: Callable[[], list[Event]], body: Any
) -> None:
    answer = posted(backend, body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "detail"}
    assert answer.json()["detail"].endswith(".")
    assert "t0ken" not in answer.text
    assert new_events() == []


def test_start_training_pressed_twice_is_one_job_and_says_what_it_will_do(
    backend: Backend, installation: Installation
) -> None:
    add_labels(installation.store, 61, {"dog": 9, "rain": 8})
    event = {"action": "START_TRAINING", "project": {"id": 61}}
    answers = [posted(backend, event).json() for _ in range(2)]
    (job,) = installation.store.jobs.newest(project=61)
    assert [answer["job"] for answer in answers] == [job.id, job.id]
    assert (job.kind, job.queue) == ("train", "train")
    for answer in answers:
        assert (
            f"Job {job.id} finetunes project 61 on 17 labelled tasks with 2 labels; the rarest that counts has 8 clips."
            in answer["message"]
        )


def test_start_training_without_enough_labels_says_why_not(backend: Backend, installation: Installation) -> None:
    add_labels(installation.store, 166, {"dog": 3})
    answer = posted(backend, {"action": "START_TRAINING", "project": {"id": 166}}).json()
    assert answer["job"] is None
    assert answer["message"].startswith("Nothing is started. There are too few labels to learn from (“dog” 3)")
    assert posted(backend, {"action": "PROJECT_UPDATED", "project": {"id": 166}}).json()["message"] is None


def test_new_tasks_start_a_prelabel_job_in_connected_projects_only(
    backend: Backend, installation: Installation
) -> None:
    for project in (62, 63):
        installation.store.catalog.put_project(project, "<View/>", "v1")
    installation.store.catalog.set_connected(63)
    answers = {
        project: posted(backend, {"action": "TASKS_CREATED", "project": {"id": project}, "tasks": []}).json()["job"]
        for project in (62, 63, 64)
    }
    (job,) = installation.store.jobs.newest(project=63)
    assert answers == {62: None, 63: job.id, 64: None}
    assert (job.kind, job.queue) == ("prelabel", "batch")


@pytest.mark.parametrize("tasks", [[{"id": 1}], [1], [{"id": 1}, {"id": 2**80}, {"id": None}, "x"]])
def test_deleted_tasks_lose_their_predictions(backend: Backend, installation: Installation, tasks: list[Any]) -> None:
    installation.store.predictions.put_all(
        [StoredPrediction(65, task, "v1", "key", 0.5, []) for task in (1, 2)], push=False
    )
    assert posted(backend, {"action": "TASKS_DELETED", "project": {"id": 65}, "tasks": tasks}).status_code == 201
    assert installation.store.predictions.cached(65, {1: "key", 2: "key"}, "v1") == {2}


def test_an_event_survives_the_kill_of_the_backend(installation: Installation) -> None:
    backend = installation.serve()
    event = posted(backend, {"action": "PROJECT_UPDATED", "project": {"id": 66}}).json()["event"]
    backend.process.kill()
    assert [found.id for found in installation.store.inbox.events(project=66)] == [event]


def test_no_event_logged_an_error(backend: Backend) -> None:
    assert PASSWORD not in backend.process.log
    assert "ERROR" not in backend.process.log


class SilentWaker:
    """A waker whose broker is unreachable."""

    def wake(self, queue: str) -> bool:
        return False


def test_a_job_is_queued_even_if_no_wake_up_can_be_sent() -> None:
    store = Store("sqlite://")
    service = WebhookService(Settings(), store, SilentWaker())
    add_labels(store, 1, {"dog": 8, "rain": 8})
    receipt = service.receive({"action": "START_TRAINING", "project": {"id": 1}})
    assert receipt.job is not None
    assert store.jobs.get(receipt.job).kind == "train"
    with pytest.raises(RequestError, match="no action"):
        service.receive({"project": {"id": 1}})
    store.close()
