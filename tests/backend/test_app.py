"""Label Studio's contract, on a real `clapboard serve` that asks for credentials."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from clapboard.labels.label_config import parse_label_config
from clapboard.store.predictions import StoredPrediction
from clapboard.suggest import prediction
from tests.backend.conftest import ENCODER, PASSWORD
from tests.support.fake_label_studio import CHOICES
from tests.support.labelled_project import add_labels
from tests.support.processes import Backend, Installation
from tests.support.waiting import wait_for

VERSION = prediction.shown_name(prediction.model_version(ENCODER, parse_label_config(CHOICES)))
ROUTES = [
    ("GET", "/"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
    ("GET", "/versions"),
    ("POST", "/versions"),
    ("POST", "/train"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
    ("GET", "/health/"),
]


def problem(answer: httpx.Response) -> str:
    """The one sentence of an error."""
    body = answer.json()
    assert set(body) == {"error", "detail"}
    assert body["detail"].endswith(".")
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    return str(body["detail"])


class TestBeforeAWorker:
    def test_setup_and_predict_say_that_no_worker_has_loaded_the_model(self, backend_before_workers: Backend) -> None:
        for answer in (
            backend_before_workers.setup(CHOICES),
            backend_before_workers.predict(CHOICES, [{"id": 1, "data": {"audio": "/a.wav"}}]),
        ):
            assert answer.status_code == 503
            assert problem(answer).startswith("No worker has loaded the model mini yet: start one with")

    def test_health_is_up(self, backend_before_workers: Backend) -> None:
        assert backend_before_workers.client.get("/health").json()["status"] == "UP"

    def test_setup_answers_once_a_worker_is_up(self, backend: Backend) -> None:
        assert backend.setup(CHOICES).json() == {"model_version": VERSION}


class TestCredentials:
    @pytest.mark.parametrize("auth", [None, ("ls", PASSWORD), ("ls", "wrong"), ("", "")])
    def test_health_answers_with_and_without_credentials(self, backend: Backend, auth: tuple[str, str] | None) -> None:
        answer = httpx.get(f"{backend.client.base_url}/health", auth=auth, trust_env=False)
        assert answer.status_code == 200
        assert answer.json() == {"status": "UP", "model_class": "Clapboard", "version": "0.1.0"}

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_every_other_route_needs_credentials(self, backend: Backend, method: str, path: str) -> None:
        address = f"{str(backend.client.base_url).rstrip('/')}{path}"
        for auth in (None, ("ls", "wrong"), ("", ""), ("LS", PASSWORD)):
            answer = httpx.request(method, address, auth=auth, trust_env=False)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic")
            assert "BASIC_AUTH_USER" in problem(answer)

    @pytest.mark.parametrize(
        "header",
        [
            b"",
            b"Basic",
            b"Basic !!!",
            b"Basic \xff\xfe",
            b"Basic " + base64.b64encode(b"ls"),
            b"Bearer " + base64.b64encode(f"ls:{PASSWORD}".encode()),
            b"Basic " + base64.b64encode(f"ls:{PASSWORD} ".encode()),
        ],
    )
    def test_a_malformed_authorization_header_is_refused(self, backend: Backend, header: bytes) -> None:
        answer = httpx.get(f"{backend.client.base_url}/versions", headers=[(b"Authorization", header)], trust_env=False)
        assert answer.status_code == 401

    def test_the_description_needs_credentials_and_says_so(self, backend: Backend) -> None:
        assert "openapi.json" in backend.client.get("/docs").text
        paths = backend.client.get("/openapi.json").json()["paths"]
        for_people = {"/", "/versions", "/train", "/metrics", "/ledger", "/search"}
        assert set(paths) == {"/health", "/setup", "/predict", "/webhook"} | for_people
        assert set(paths["/versions"]) == {"get", "post"}

    def test_the_root_answers_like_health(self, backend: Backend) -> None:
        assert backend.client.get("/").json()["status"] == "UP"


class TestSetup:
    @pytest.mark.parametrize("extra_params", [None, {"a": 1}, '{"a": 1}', "plain text", "", [1], 5])
    def test_extra_params_may_have_any_form(self, backend: Backend, extra_params: Any) -> None:
        assert backend.setup(CHOICES, extra_params=extra_params).json() == {"model_version": VERSION}

    @pytest.mark.parametrize(("project", "number"), [("2.1795338111", 2), ("3", 3), (4, 4)])
    def test_a_project_may_have_any_form_and_is_stored(
        self, backend: Backend, installation: Installation, project: Any, number: int
    ) -> None:
        assert backend.setup(CHOICES, project).status_code == 200
        wait_for(lambda: number in known_projects(installation), f"project {number} isn't written down")
        assert installation.store.catalog.project(number).model_version == VERSION

    @pytest.mark.parametrize("project", [None, ""])
    def test_a_setup_without_a_project_is_answered(self, backend: Backend, project: Any) -> None:
        assert backend.setup(CHOICES, project).json() == {"model_version": VERSION}

    @pytest.mark.parametrize("project", ["two", "-1", "2 or 1=1", "9" * 40, "²", [2], True])
    def test_an_impossible_project_is_refused(self, backend: Backend, project: Any) -> None:
        answer = backend.setup(CHOICES, project)
        assert answer.status_code == 422
        assert "project" in problem(answer)

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ("", "is empty"),
            ("<View/>", "no Audio object"),
            ("<View", "not well-formed"),
            ('<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', "declares a DTD"),
            ("\ud800", "label config"),
        ],
    )
    def test_an_unusable_label_config_is_refused_in_one_sentence(
        self, backend: Backend, config: str, reason: str
    ) -> None:
        for answer in (backend.setup(config), backend.predict(config, [{"id": 1, "data": {}}])):
            assert answer.status_code == 422
            assert reason in problem(answer)

    def test_a_project_may_change_its_labels(self, backend: Backend, installation: Installation) -> None:
        backend.setup(CHOICES, "5.1")
        changed = CHOICES.replace("rain", "wind")
        version = backend.setup(changed, "5.1").json()["model_version"]
        assert version != VERSION
        wait_for(
            lambda: (
                5 in known_projects(installation) and installation.store.catalog.project(5).model_version == version
            ),
            "the new version isn't written down",
        )


class TestVersionsAndTraining:
    def test_versions_lists_one_projects_or_all_by_get_and_by_post(
        self, backend: Backend, installation: Installation
    ) -> None:
        found = [StoredPrediction(project, 1, version, "key", 0.5, []) for project, version in [(20, "b"), (21, "a")]]
        installation.store.predictions.put_all(found, push=False)
        get, post = backend.client.get, backend.client.post
        assert get("/versions").json() == post("/versions").json() == {"versions": ["a", "b"]}
        assert get("/versions", params={"project": "20"}).json() == {"versions": ["b"]}
        assert post("/versions", json={"project": "21.1795338111"}).json() == {"versions": ["a"]}
        assert get("/versions", params={"project": "22"}).json() == {"versions": []}
        assert get("/versions", params={"project": "x"}).status_code == 422

    def test_train_pressed_twice_is_one_job(self, backend: Backend, installation: Installation) -> None:
        add_labels(installation.store, 30, {"dog": 8, "rain": 8})
        answers = [backend.client.post("/train", json={"project": project}) for project in ("30.1", 30)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].json() == answers[1].json()
        (job,) = installation.store.jobs.newest(project=30)
        assert (job.id, job.kind, job.queue) == (answers[0].json()["job"], "train", "train")

    def test_train_without_labels_is_refused_with_the_reason(
        self, backend: Backend, installation: Installation
    ) -> None:
        answer = backend.client.post("/train", json={"project": 31})
        assert (answer.status_code, answer.json()["error"]) == (409, "training")
        assert "run `clapboard connect --project 31`" in problem(answer)

    @pytest.mark.parametrize("body", [{}, {"project": None}, {"project": "0"}, {"project": "x"}])
    def test_train_without_a_project_is_refused(self, backend: Backend, body: Any) -> None:
        answer = backend.client.post("/train", json=body)
        assert answer.status_code == 422
        assert "project" in problem(answer)


class TestMalformedRequests:
    @pytest.mark.parametrize("path", ["/setup", "/predict", "/train", "/webhook"])
    @pytest.mark.parametrize(
        "body", [b"", b"t0ken-t0ken", b"[]", b'"x"', b"null", b"{", b"\xff\xfe", b'{"a":' * 100_000, b"[" * 100_000]
    )
    def test_a_body_that_is_no_json_object_is_refused_in_one_sentence(
        self, backend: Backend, path: str, body: bytes
    ) -> None:
        answer = backend.client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500
        assert "t0ken" not in problem(answer)

    @pytest.mark.parametrize(
        "change",
        [
            {"tasks": None},
            {"tasks": "t0ken-t0ken"},
            {"tasks": [1]},
            {"tasks": ["t0ken-t0ken"]},
            {"label_config": None},
            {"label_config": 3},
            {"project": {"id": 1}},
        ],
    )
    def test_a_malformed_predict_is_refused_without_quoting_it(self, backend: Backend, change: dict[str, Any]) -> None:
        answer = backend.client.post("/predict", json={"tasks": [], "label_config": CHOICES, "project": "1.1"} | change)
        assert answer.status_code == 422
        assert "t0ken" not in problem(answer)

    @pytest.mark.parametrize(
        "task",
        [
            {},
            {"id": 1},
            {"id": 1, "data": None},
            {"id": 1, "data": []},
            {"id": 1, "data": {}},
            {"id": 1, "data": {"audio": None}},
            {"id": 1, "data": {"audio": ""}},
            {"id": 1, "data": {"audio": 5}},
            {"id": 1, "data": {"audio": ["/a.wav"]}},
            {"id": 1, "data": {"audio": "ftp://host.example/a.wav"}},
            {"id": 1, "data": {"audio": "file:///etc/passwd"}},
            {"id": 1, "data": {"audio": "\ud800"}},
            {"id": 1, "data": {"audio": "/data/\x00.wav"}},
            {"id": None, "data": {"audio": "/a.wav"}},
            {"id": "7", "data": {"audio": "/b.wav"}},
            {"id": True, "data": {"audio": "/c.wav"}},
            {"id": 2**70, "data": {"audio": "/d.wav"}},
            {"id": 1, "data": {"audio": "/e.wav"}, "predictions": None, "annotations": None},
            {"id": 1, "data": {"audio": "/f.wav"}, "predictions": ["x", {"model_version": 5}]},
        ],
    )
    def test_a_strange_task_gets_an_empty_entry(self, backend: Backend, task: dict[str, Any]) -> None:
        answer = backend.predict(CHOICES, [task], "40.1")
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"results": [[]], "model_version": VERSION}

    def test_a_request_without_tasks_has_no_results(self, backend: Backend) -> None:
        assert backend.predict(CHOICES, []).json() == {"results": [], "model_version": VERSION}

    def test_unknown_paths_and_methods_are_refused_in_one_sentence(self, backend: Backend) -> None:
        assert "/docs" in problem(backend.client.get("/nowhere"))
        assert "/docs" in problem(backend.client.put("/setup"))


def test_neither_tracebacks_nor_passwords_were_logged(backend: Backend) -> None:
    assert "Traceback" not in backend.process.log
    assert PASSWORD not in backend.process.log
    assert "t0k" not in backend.process.log
    for line in backend.process.log.splitlines():
        assert json.loads(line)["level"] in {"INFO", "WARNING"}, line


def known_projects(installation: Installation) -> set[int]:
    """The projects that introduced themselves."""
    from sqlalchemy import text

    with installation.store.database.read() as connection:
        return set(connection.scalars(text("SELECT id FROM projects")))
