"""`POST /search` on a real backend: its answers with a worker, without one and when the time is up, and refusals."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx
import pytest

from clapboard.errors import InternalError
from clapboard.queue.celery_app import SEARCH
from clapboard.search.search_request import MAX_AUDIO_CHARS
from clapboard.store.jobs import Job
from tests.backend.conftest import PASSWORD
from tests.support.fake_label_studio import CHOICES
from tests.support.processes import Backend, Installation
from tests.support.waiting import WAIT_S, wait_for

PROJECT = 88


@pytest.fixture(scope="module")
def patient(installation: Installation, backend: Backend) -> Backend:
    """A backend that waits 20 s, and knows the project."""
    installation.store.catalog.put_project(PROJECT, CHOICES, "v1")
    return backend


@pytest.fixture
def worker(installation: Installation) -> str:
    """A worker that announces itself for searches, and does nothing."""
    installation.store.catalog.worker_alive("idle", "mini", "cpu", "search,batch")
    return "idle"


def ask(backend: Backend, **request: Any) -> httpx.Response:
    body = json.dumps({"project": PROJECT, "text": "rain"} | request)
    return backend.client.post("/search", content=body, headers={"Content-Type": "application/json"})


class SearchInAThread:
    """A request in a thread, and the job that it made."""

    def __init__(self, installation: Installation, backend: Backend, **request: Any) -> None:
        self.answers: list[httpx.Response] = []
        known = {job.id for job in installation.store.jobs.newest(project=PROJECT)}
        self._thread = threading.Thread(target=lambda: self.answers.append(ask(backend, **request)))
        self._thread.start()

        def made() -> list[Job]:
            return [job for job in installation.store.jobs.claim("idle", SEARCH, 10) if job.id not in known]

        (self.job,) = wait_for(made, "nothing was queued")
        self.search = str(self.job.payload["search"])

    def answer(self) -> httpx.Response:
        self._thread.join(WAIT_S)
        return self.answers[0]


@pytest.mark.usefixtures("worker")
class TestWithAWorker:
    def test_a_search_reaches_the_worker_and_its_answer_comes_back(
        self, installation: Installation, patient: Backend
    ) -> None:
        like = [{"task": 3}, {"audio": "https://host.example/a.wav", "start_s": 1, "end_s": 2.5}]
        asking = SearchInAThread(installation, patient, texts=["dog bark \0"], like=like, not_like=[{"task": 4}], top=7)
        assert (asking.job.kind, asking.job.queue, asking.job.project) == ("search", SEARCH, PROJECT)
        asked = json.loads(installation.store.searches.request(asking.search) or "")
        nothing = {"task": None, "audio": None, "name": None, "start_s": None, "end_s": None}
        assert asked == {
            "project": PROJECT,
            "text": "rain",
            "texts": ["dog bark \0"],
            "like": [nothing | sound for sound in like],
            "not_like": [nothing | {"task": 4}],
            "top": 7,
        }
        match = {"task": 1, "start_s": 0.0, "end_s": 5.0, "best_s": 0.0, "score": 0.5, "audio": "a.wav", "url": "http"}
        installation.store.searches.answer(asking.search, json.dumps({"matches": [match]}))
        installation.store.jobs.done(asking.job)
        answer = asking.answer()
        assert (answer.status_code, answer.json()) == (200, {"matches": [match]})
        assert installation.store.searches.request(asking.search) is None  # nothing is kept of it

    def test_a_workers_refusal_is_answered_with_its_status(self, installation: Installation, patient: Backend) -> None:
        asking = SearchInAThread(installation, patient)
        refusal = {"status": 404, "error": "not_found", "detail": "Task 9 isn't there."}
        installation.store.searches.answer(asking.search, json.dumps(refusal))
        installation.store.jobs.done(asking.job)
        answer = asking.answer()
        assert (answer.status_code, answer.json()) == (404, {"error": "not_found", "detail": "Task 9 isn't there."})

    def test_a_job_that_failed_for_good_ends_the_wait(self, installation: Installation, patient: Backend) -> None:
        asking = SearchInAThread(installation, patient)
        with installation.store.database.write() as connection:
            connection.exec_driver_sql("UPDATE jobs SET attempts = 99 WHERE state = 'running'")
        installation.store.jobs.fail(installation.store.jobs.get(asking.job.id), InternalError("It burns."))
        answer = asking.answer()
        assert (answer.status_code, answer.json()["error"]) == (500, "internal")
        assert f"`clapboard jobs` says why of {asking.job.id}" in answer.json()["detail"]

    def test_a_worker_that_never_answers_is_waited_for_no_longer_than_the_limit(
        self, installation: Installation, patient: Backend
    ) -> None:
        hasty = installation.serve(basic_auth_user="ls", basic_auth_pass=PASSWORD, search_wait_s=0.2)
        began = time.monotonic()
        answer = ask(hasty)
        assert time.monotonic() - began < 5
        assert (answer.status_code, answer.json()["error"]) == (503, "busy")
        assert "haven't answered in 0.2 s (CLAPBOARD_SEARCH_WAIT_S): search again" in answer.json()["detail"]
        (job,) = [job for job in installation.store.jobs.newest(project=PROJECT, limit=1) if job.kind == "search"]
        assert installation.store.searches.request(job.payload["search"]) is None

    def test_equal_searches_are_separate_jobs(self, installation: Installation, patient: Backend) -> None:
        asking = [SearchInAThread(installation, patient), SearchInAThread(installation, patient)]
        for number, one in enumerate(asking):
            installation.store.searches.answer(
                one.search, json.dumps({"status": 422, "error": "audio", "detail": str(number)})
            )
            installation.store.jobs.done(one.job)
        assert [one.answer().json()["detail"] for one in asking] == ["0", "1"]

    @pytest.mark.parametrize(
        ("request_", "fault"),
        [
            ({"text": None}, "body: give a text, or a sound in like"),
            ({"text": None, "not_like": [{"task": 1}]}, "body: give a text, or a sound in like"),
            ({"top": 0}, "body.top: Input should be greater than or equal to 1"),
            ({"top": 1001}, "body.top: Input should be less than or equal to 1000"),
            ({"project": 0}, "body.project"),
            ({"text": "x" * 1001}, "body.text: String should have at most 1000 characters"),
            ({"like": [{"task": 1}] * 32}, "body: give at most 32 texts and sounds together"),
            ({"like": [{}]}, "body.like.0: give task or audio, one of the two"),
            ({"like": [{"task": 1, "audio": "data:,"}]}, "body.like.0: give task or audio, one of the two"),
            ({"like": [{"path": "/etc/passwd"}]}, "body.like.0.path: Extra inputs are not permitted"),
            ({"like": [{"task": 1, "start_s": 1}]}, "body.like.0: give start_s and end_s, or neither"),
            ({"like": [{"task": 1, "start_s": 2, "end_s": 2}]}, "body.like.0: start_s must come before end_s"),
            ({"like": [{"task": 1, "start_s": -1, "end_s": 2}]}, "body.like.0.start_s"),
            ({"like": [{"task": 1, "start_s": 1, "end_s": float("inf")}]}, "body.like.0.end_s"),
            ({"like": [{"audio": "data:," + "x" * MAX_AUDIO_CHARS}]}, "body: send at most 16000000 characters"),
            ({"text": "half \ud83d"}, "body.text: Input should be a valid string"),
            ({"unlike": []}, "body.unlike: Extra inputs are not permitted"),
        ],
    )
    def test_malformed_requests_are_refused_in_a_sentence(
        self, patient: Backend, request_: dict[str, Any], fault: str
    ) -> None:
        answer = ask(patient, **request_)
        assert (answer.status_code, answer.json()["error"]) == (422, "request")
        assert fault in answer.json()["detail"]

    @pytest.mark.parametrize("audio", ["/etc/passwd", "file:///etc/passwd", "http://user:pass@host.example/a.wav"])
    def test_addresses_that_are_never_fetched_are_refused_at_once(
        self, installation: Installation, patient: Backend, audio: str
    ) -> None:
        before = installation.store.jobs.newest(limit=1)
        answer = ask(patient, like=[{"audio": audio}])
        assert (answer.status_code, answer.json()["error"]) == (422, "source_refused")
        assert installation.store.jobs.newest(limit=1) == before

    def test_an_unknown_project_is_refused(self, patient: Backend) -> None:
        answer = ask(patient, project=4242)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


def test_without_a_worker_for_searches_it_says_so_at_once(installation: Installation, patient: Backend) -> None:
    installation.store.catalog.worker_gone("idle")
    installation.store.catalog.worker_alive("trainer", "mini", "cpu", "interactive,train")
    answer = ask(patient)
    assert (answer.status_code, answer.json()["error"]) == (503, "no_worker")
    assert "start one with `clapboard worker`" in answer.json()["detail"]


def test_search_needs_credentials_and_is_described(patient: Backend) -> None:
    assert patient.client.post("/search", json={}, auth=("ls", "wrong")).status_code == 401
    described = patient.client.get("/openapi.json").json()["paths"]["/search"]["post"]
    assert set(described["responses"]) >= {"200", "401", "404", "422", "500", "503"}
    assert described["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/SearchRequest")
