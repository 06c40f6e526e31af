"""Hostile tasks and events: none makes more fail than itself, on either database."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from backend.app import create_app
from clapboard.feedback.consensus import consensus
from clapboard.labels.label_config import parse_label_config
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.predictions import StoredPrediction
from clapboard.suggest import prediction
from clapboard.untrusted import rebuilt
from tests.backend.conftest import ENCODER
from tests.support import hostile
from tests.support.fake_label_studio import CHOICES

PROJECT = 5
TASKS = (11, 12)
LABELS = parse_label_config(CHOICES)
VERSION = prediction.model_version(ENCODER, LABELS)
GOOD_AUDIO = "https://host.example/2.wav"  # of a recording that isn't set aside
GOOD_KEY = AudioSources(Settings()).key(GOOD_AUDIO)
fuzzed = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@dataclass
class RunningApp:
    """An application, its store, and a client of it."""

    store: Store
    client: TestClient
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1000))

    def post(self, path: str, body: Any) -> Any:
        """The answer to a body as Python writes JSON, with NaN and half surrogate pairs."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, content=content, headers={"Content-Type": "application/json"})

    def suggested(self) -> dict[str, Any]:
        """A new task that has a prediction in the store."""
        task = {"id": next(self.numbers), "data": {"audio": GOOD_AUDIO}}
        self.store.predictions.put_all([StoredPrediction(PROJECT, task["id"], VERSION, GOOD_KEY, 0.5, [])], push=False)
        return task


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """A backend in this process whose project has been connected, on each database."""
    folder = tmp_path_factory.mktemp("hostile")
    url = f"sqlite:///{folder / 'clapboard.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("new_postgres_url")()
    chosen = {"CLAPBOARD_MODEL": "mini", "MODEL_DIR": folder, "CLAPBOARD_DATABASE_URL": url}
    app_settings = Settings(**chosen, CLAPBOARD_PREDICT_WAIT_S=0, LOG_LEVEL="ERROR")
    store = Store.open(app_settings)
    store.catalog.announce_encoder(ENCODER)
    store.catalog.put_project(PROJECT, CHOICES, VERSION)
    store.catalog.set_connected(PROJECT, 0.2)
    suggestion = [{"id": "r1", "from_name": "clip", "type": "choices", "value": {"choices": ["dog"]}}]
    delivered = [StoredPrediction(PROJECT, task, VERSION, "key", 0.5, suggestion) for task in TASKS]
    store.predictions.put_for_push(delivered)
    with TestClient(create_app(app_settings), base_url="http://localhost", raise_server_exceptions=False) as client:
        yield RunningApp(store, client)
    store.close()


@fuzzed
@given(event=hostile.events(PROJECT, *TASKS))
def test_any_event_is_stored_readably_or_refused(app: RunningApp, event: Any) -> None:
    answer = app.post("/webhook", event)
    assert answer.status_code in {201, 422}, answer.text
    if answer.status_code == 422:
        assert set(answer.json()) == {"error", "detail"}
        return
    number = answer.json()["event"]
    (kept,) = app.store.inbox.events(after_id=number - 1, limit=1)
    assert repr(kept.body) == repr(as_kept(event))


@pytest.mark.parametrize(
    ("task", "annotation"),
    [
        ({"id": TASKS[0], "data": hostile.nested(260)}, {"draft": hostile.nested(260)}),
        ({"id": 2**63, "data": {"audio": GOOD_AUDIO}}, {}),
        ({"id": True, "data": {"audio": GOOD_AUDIO}}, {}),
        ({"id": TASKS[0], "data": {"audio": GOOD_AUDIO, "recording": "\ud800"}}, {}),
        ({"id": TASKS[0], "data": {"audio": GOOD_AUDIO, "recording": "\0"}}, {}),
        ({"id": TASKS[0], "data": {"audio": "data:audio/wav;base64,\0"}}, {}),
        ({"id": TASKS[0], "data": {"loudness": math.nan}}, {"lead_time": math.inf}),
        ({"id": TASKS[0]}, {"result": [{"id": ["r1"], "from_name": "clip", "value": {"choices": None}}]}),
    ],
)
def test_an_annotation_is_stored_and_learnt_from_whatever_comes_with_it(
    app: RunningApp, task: dict[str, Any], annotation: dict[str, Any]
) -> None:
    said = {"id": next(app.numbers), "task": TASKS[0], "result": [], "updated_at": "2026-01-01T00:00:00Z"}
    event = {"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}, "task": task, "annotation": said | annotation}
    answer = app.post("/webhook", event)
    assert answer.status_code == 201, answer.text
    assert answer.json()["job"] is not None
    app.store.ledger.catch_up()
    assert said["id"] in app.store.ledger.revisions(PROJECT)


def test_an_event_nested_too_deeply_to_be_read_again_is_refused(app: RunningApp) -> None:
    answer = app.post("/webhook", {"action": "TASKS_CREATED", "project": PROJECT, "tasks": hostile.nested(600)})
    assert (answer.status_code, answer.json()["error"]) == (422, "request")


def test_more_tasks_than_a_statement_has_parameters_can_be_deleted(app: RunningApp) -> None:
    gone = app.suggested()
    ids = [*range(100_000, 170_000), gone["id"]]
    event = {"action": "TASKS_DELETED", "project": PROJECT, "tasks": [{"id": number} for number in ids]}
    assert app.post("/webhook", event).status_code == 201
    assert app.store.predictions.cached(PROJECT, {gone["id"]: GOOD_KEY}, VERSION) == set()
    app.store.predictions.pushed(PROJECT, ids, VERSION)
    app.store.predictions.forget_names(PROJECT, [f"v{number}" for number in ids[-10:]])  # a statement each
    app.store.versions.forget(PROJECT, [f"v{number}" for number in ids])


@fuzzed
@given(tasks=hostile.st.lists(hostile.tasks(*TASKS), min_size=1, max_size=4))
def test_a_hostile_task_leaves_its_neighbours_answered(app: RunningApp, tasks: list[Any]) -> None:
    good = app.suggested()
    body = {"project": f"{PROJECT}.1795338111", "label_config": CHOICES, "tasks": [*tasks, good]}
    answer = app.post("/predict", body)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert len(results) == len(tasks) + 1
    assert results[-1] == {"result": [], "score": 0.5, "model_version": prediction.shown_name(VERSION)}


@pytest.mark.parametrize("path", ["/setup", "/predict", "/train", "/versions", "/search", "/webhook"])
def test_no_body_makes_the_backend_fail(app: RunningApp, path: str) -> None:
    @fuzzed
    @given(
        body=hostile.values
        | hostile.some_of(
            project=hostile.either(PROJECT),
            schema=hostile.either(CHOICES),
            label_config=hostile.either(CHOICES),
            tasks=hostile.values,
            text=hostile.either("rain"),
            texts=hostile.values,
            like=hostile.values,
            top=hostile.values,
            action=hostile.values,
            extra_params=hostile.values,
        )
    )
    def ask(body: Any) -> None:
        answer = app.post(path, body)
        assert answer.status_code < 500 or (path == "/search" and answer.status_code == 503), answer.text
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error", "detail"}

    ask()


def test_the_ledger_can_be_read_after_any_events(app: RunningApp) -> None:
    project = next(app.numbers)  # of its own, as are its tasks: whatever other tests sent is no part of this
    tasks = next(app.numbers), next(app.numbers)
    app.store.catalog.put_project(project, CHOICES, VERSION)
    app.store.catalog.set_connected(project, 0.2)

    @fuzzed
    @given(event=hostile.events(project, *tasks))
    def tell(event: Any) -> None:
        app.post("/webhook", event)
        assert_readable()

    def assert_readable() -> None:
        for path in ("/ledger", "/metrics", "/versions"):
            answer = app.client.get(path, params={"project": project})
            assert answer.status_code == 200, answer.text

    tell()
    said = {"id": next(app.numbers), "task": tasks[0], "result": [], "updated_at": "2026-01-01T00:00:00Z"}
    told = {"annotation": said, "task": {"id": tasks[0], "data": {"audio": GOOD_AUDIO}}}
    body = {"action": "ANNOTATION_CREATED", "project": {"id": project, "label_config": CHOICES}} | told
    assert app.post("/webhook", body).status_code == 201
    assert_readable()
    assert app.store.ledger.replay(app.store.inbox).agrees
    standing = app.store.ledger.standing(project)
    assert said["id"] in {entry.annotation for entry in standing}
    consensus(standing, LABELS)
    known = {task.task for page in app.store.tasks.of_project(project) for task in page}
    assert tasks[0] in known
    assert min(known) > 0


def as_kept(event: Any) -> Any:
    """The event as the inbox has it: without what might be a credential, and with null for NaN and infinities."""
    return json.loads(
        json.dumps(
            rebuilt(event, leaf=lambda item: None if item in (float("inf"), float("-inf")) or item != item else item)
        )
    )
