"""Every prediction reaches Label Studio exactly once: real backends and workers, on both kinds of installation.

`embedded` is the folder transport and SQLite, `distributed` is Redis and PostgreSQL.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from clapboard.labels.label_config import parse_label_config
from clapboard.queue.celery_app import BATCH, INTERACTIVE, PredictPayload
from clapboard.sources import AudioSources
from clapboard.store.jobs import Job, JobRequest, State
from clapboard.suggest import prediction
from clapboard.suggest.head import ZERO_SHOT
from clapboard.suggest.prediction import shown_name
from tests.support.audio_server import AudioServer
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.support.processes import SERVING, Backend, Installation, Running
from tests.support.waiting import WAIT_S, wait_for

LEASE_S = 2.0  # shorter, and a busy machine loses jobs that nobody killed


class Site:
    """One installation with two backends, some workers, and what they talk to."""

    def __init__(self, house: Installation, audio: AudioServer, label_studio: FakeLabelStudio) -> None:
        self.house = house
        self.audio = audio
        self.label_studio = label_studio
        self.workers = [house.start("worker") for _ in range(2)]
        self.patient = house.serve(predict_wait_s=60)  # longer than a busy machine takes to bring up sixty requests
        self.hasty = house.serve(predict_wait_s=0.2)
        self.sources = AudioSources(house.settings)
        self._projects = itertools.count(1)
        self._numbers = itertools.count(1)
        for worker in self.workers:
            worker.wait_for_log(SERVING)
        # Those who will be killed load their model while the first tests run: as many as the poison takes, and one.
        self.workers += [house.start("worker") for _ in range(house.settings.job_attempts)]
        for backend in (self.patient, self.hasty):
            wait_for(lambda b=backend: b.setup(CHOICES, "").status_code == 200, "the backend sees no worker")
        self.version = str(self.patient.setup(CHOICES, "").json()["model_version"])

    def new_project(self, *paths: str | None) -> tuple[int, list[dict[str, Any]]]:
        """A project with a task for each path, None being a clip of its own."""
        project = next(self._projects)
        tasks = [self.audio.task(next(self._numbers), path) for path in paths]
        self.label_studio.add_tasks(project, *tasks)
        return project, tasks

    def retrieve(self, backend: Backend, project: int, tasks: Sequence[dict[str, Any]]) -> list[Any]:
        """What Label Studio does at «Retrieve Predictions»: it stores whatever is answered."""
        results = backend.results(CHOICES, tasks, f"{project}.1795338111")
        for task, entry in zip(tasks, results, strict=True):
            if entry:
                assert entry["model_version"] == self.version
                self.label_studio.store({"task": task["id"]} | entry)
        return results

    def stored(self, tasks: Sequence[dict[str, Any]]) -> list[int]:
        """How many predictions of our version each task has in Label Studio."""
        numbers = [task["id"] for task in tasks]
        found = self.label_studio.count(shown_name(self.version), *numbers)
        return [found[number] for number in numbers]

    def settled(self, project: int, tasks: Sequence[dict[str, Any]]) -> list[int]:
        """The same, once nothing of the project is open or owed any more."""
        store = self.house.store
        wait_for(
            lambda: not store.jobs.num_predicting(project) and not store.predictions.num_owed(project),
            f"project {project} doesn't settle: {store.jobs.newest(project=project)}",
        )
        return self.stored(tasks)

    def jobs(self, project: int) -> dict[int, Job]:
        """The project's newest job of each task."""
        return {job.task: job for job in reversed(self.house.store.jobs.newest(project=project, limit=1000))}

    def queue(self, project: int, tasks: Sequence[dict[str, Any]], queue: str = INTERACTIVE) -> None:
        """Queue jobs for the tasks without waking a worker."""
        space_id = prediction.space_id(parse_label_config(CHOICES))
        self.house.store.catalog.put_label_space(space_id, CHOICES)
        requests = []
        for task in tasks:
            uri = task["data"]["audio"]
            payload = PredictPayload(
                uri=uri,
                uri_key=self.sources.key(uri),
                encoder=self.house.settings.model,
                space_id=space_id,
                head=ZERO_SHOT,
            )
            requests.append(JobRequest("predict", project, task["id"], self.version, payload.model_dump(), push=True))
        self.house.store.jobs.add(queue, requests)

    def holder(self, job: Job) -> Running:
        """The worker that runs the job."""
        return next(worker for worker in self.workers if str(job.worker).startswith(f"clapboard-{worker.pid}-"))

    def kill(self, *workers: Running) -> None:
        """SIGKILL."""
        for worker in workers:
            worker.kill()
            self.workers.remove(worker)


@pytest.fixture(scope="module", params=["embedded", "distributed"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_clap: Path) -> Iterator[Site]:
    settings: dict[str, Any] = {"allow_private_urls": True, "job_lease_s": LEASE_S, "label_studio_api_key": TOKEN}
    if request.param == "distributed":
        settings["broker_url"] = request.getfixturevalue("redis_url")
        settings["job_attempts"] = 2  # a worker less to wear out
        settings["database_url"] = request.getfixturevalue("new_postgres_url")()
    folder = tmp_path_factory.mktemp(request.param)
    with (
        AudioServer() as audio,
        FakeLabelStudio() as label_studio,
        Installation(folder, tiny_clap, label_studio_url=label_studio.url, **settings) as house,
    ):
        yield Site(house, audio, label_studio)


class TestAnswers:
    def test_suggestions_come_at_once_and_from_the_store_the_second_time(self, site: Site) -> None:
        project, tasks = site.new_project(None, None, None, None, None)
        first = site.patient.results(CHOICES, tasks, project)
        for entry in first:
            assert entry["model_version"] == site.version
            assert 0.0 <= entry["score"] <= 1.0
            (result,) = entry["result"]
            assert result["value"]["choices"][0] in {"dog", "rain"}
        num_requests = sum(site.audio.requests.values())
        backwards = site.hasty.results(CHOICES, tasks[::-1], project)
        assert backwards == first[::-1]
        assert sum(site.audio.requests.values()) == num_requests
        assert site.settled(project, tasks) == [0] * 5  # what was answered isn't pushed as well

    def test_a_batch_with_bad_clips_gets_an_entry_for_each_task_and_their_reasons_are_kept(self, site: Site) -> None:
        project, tasks = site.new_project(None, "corrupt/a.wav", None, "missing/b.wav", None)
        refused = {"id": 10_000 + project, "data": {"audio": "ftp://host.example/t0ken.wav?t0ken"}}
        results = site.patient.results(CHOICES, [*tasks, refused, tasks[0]], project)
        assert [entry != [] for entry in results] == [True, False, True, False, True, False, False]
        reasons = {job["task"]: job for job in site.house.jobs("--project", str(project), "--state", "failed")}
        codes = {task: job["error_code"] for task, job in reasons.items()}
        assert codes == {tasks[1]["id"]: "audio", tasks[3]["id"]: "source", refused["id"]: "source_refused"}
        assert "HTTP 404" in reasons[tasks[3]["id"]]["error"]
        assert "payload" not in reasons[refused["id"]]

    def test_the_same_audio_under_two_addresses_is_embedded_once(self, site: Site) -> None:
        project, tasks = site.new_project("777/a.wav", "777/b.wav")
        before = site.house.store.embeddings.count()
        first, second = site.patient.results(CHOICES, tasks, project)
        assert first == second != []
        assert site.house.store.embeddings.count() == before + 1

    def test_tasks_that_carry_this_versions_prediction_are_left_alone(self, site: Site) -> None:
        project, tasks = site.new_project(None, None)
        tasks[0]["predictions"] = [{"model_version": site.version, "result": []}]
        first, second = site.patient.results(CHOICES, tasks, project)
        assert first == []
        assert second != []
        assert list(site.jobs(project)) == [tasks[1]["id"]]


class TestExactlyOnce:
    def test_what_is_late_is_pushed_once_however_often_it_is_asked_for(self, site: Site) -> None:
        project, tasks = site.new_project(None, None, None)
        late = tasks[1]
        with site.audio.holding(f"{late['id']}/clip.wav"):
            results = [site.retrieve(site.hasty, project, tasks) for _ in range(3)]
            assert results[0][1] == results[1][1] == results[2][1] == []
        assert site.settled(project, tasks)[1] == 1
        job = site.jobs(project)[late["id"]]
        assert (job.state, job.attempts, job.push) == (State.DONE, 1, True)
        assert site.audio.requests[f"{late['id']}/clip.wav"] == 1

    def test_of_two_requests_at_once_one_answers_and_a_later_one_answers_again(self, site: Site) -> None:
        project, tasks = site.new_project(None)
        held = f"{tasks[0]['id']}/clip.wav"
        with ThreadPoolExecutor(2) as pool:
            with site.audio.holding(held):
                asking = [pool.submit(site.retrieve, site.patient, project, tasks) for _ in range(2)]
                wait_for(lambda: site.audio.waiting[held], "nobody asks for the clip")
                time.sleep(0.2)
            entries = [request.result()[0] for request in asking]
        assert sorted(entry != [] for entry in entries) == [False, True]
        assert site.settled(project, tasks) == [1]
        assert site.patient.results(CHOICES, tasks, project)[0] in entries
        assert len(site.jobs(project)) == 1

    def test_the_prediction_of_a_caller_who_hangs_up_is_pushed(self, site: Site) -> None:
        project, tasks = site.new_project(None)
        held = f"{tasks[0]['id']}/clip.wav"
        with site.audio.holding(held):
            with pytest.raises(Exception, match="timed out"):
                site.patient.client.post(
                    "/predict", json={"tasks": tasks, "label_config": CHOICES, "project": project}, timeout=0.5
                )
            wait_for(lambda: site.jobs(project)[tasks[0]["id"]].push, "the job isn't to be pushed")
        assert site.settled(project, tasks) == [1]

    def test_what_label_studio_cannot_take_now_is_pushed_when_it_is_back(self, site: Site) -> None:
        project, tasks = site.new_project(None, None)
        site.label_studio.is_down = True
        with site.audio.holding(*(f"{task['id']}/clip.wav" for task in tasks)):
            assert site.retrieve(site.hasty, project, tasks) == [[], []]
        wait_for(lambda: "predictions wait" in site.house.logs, "nobody tried to push")
        assert site.stored(tasks) == [0, 0]
        site.label_studio.is_down = False

        def time_passes() -> bool:
            with site.house.store.database.write() as connection:
                connection.exec_driver_sql("UPDATE predictions SET delivered_at = 0 WHERE delivery = 'owed'")
            return all(site.stored(tasks))

        wait_for(time_passes, "nothing is pushed")
        assert site.settled(project, tasks) == [1, 1]

    def test_several_workers_do_each_job_once(self, site: Site) -> None:
        project, tasks = site.new_project(*[None] * 60)
        site.queue(project, tasks[:30], INTERACTIVE)
        site.queue(project, tasks[30:], BATCH)
        assert site.settled(project, tasks) == [1] * 60
        assert {job.attempts for job in site.jobs(project).values()} == {1}
        assert {site.audio.requests[f"{task['id']}/clip.wav"] for task in tasks} == {1}

    def test_lost_wake_ups_are_made_good_within_seconds_and_new_ones_arrive(self, site: Site) -> None:
        broker = site.house.settings.broker_url.get_secret_value()
        if broker:
            with redis.Redis.from_url(broker) as client:
                client.flushdb()  # others use the same server
        else:
            site.house.settings.broker_dir.rename(site.house.folder / "lost")
        project, tasks = site.new_project(None, None)
        site.queue(project, tasks)
        began = time.monotonic()
        assert site.settled(project, tasks) == [1, 1]
        assert time.monotonic() - began < 5
        project, tasks = site.new_project(None)
        began = time.monotonic()
        assert site.patient.results(CHOICES, tasks, project) != [[]]
        assert time.monotonic() - began < 0.9  # sooner than a worker looks by itself


class TestUnderLoad:
    def test_label_studio_gets_its_quick_answers_in_time_while_workers_are_busy_and_sixty_requests_wait(
        self, site: Site
    ) -> None:
        busy, long = site.new_project(*[f"{n}/long.wav?s=300" for n in range(900, 909)])
        site.queue(busy, long, BATCH)
        project, tasks = site.new_project(*[None] * 60)
        with ThreadPoolExecutor(60) as pool:
            with site.audio.holding(*(f"{task['id']}/clip.wav" for task in tasks)):
                asking = [pool.submit(site.retrieve, site.patient, project, [task]) for task in tasks]
                wait_for(lambda: len(site.jobs(project)) == 60, "not all requests are waiting")
                client = site.patient.client
                health = timed(20, lambda: client.get("/health"))
                setup = timed(20, lambda: site.patient.setup(CHOICES, project))
                event = {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}, "project": {"id": project}}
                webhook = timed(20, lambda: client.post("/webhook", json=event))
                assert site.house.store.jobs.num_predicting(busy) > 0, "the workers weren't busy"
                assert not any(request.done() for request in asking), "the sixty weren't waiting"
            assert all(request.result() != [[]] for request in asking)
        # What Label Studio waits for each. How much faster it is on a free machine, the benchmark tells.
        assert statistics.median(health) < 1
        assert statistics.median(setup) < 3
        assert statistics.median(webhook) < 1
        assert site.stored(tasks) == [1] * 60
        assert site.settled(busy, long) == [1] * 9


class TestKilled:
    """The last tests: they wear the workers out."""

    def test_a_batch_loses_and_doubles_nothing_and_a_job_that_kills_its_worker_each_time_fails_alone(
        self, site: Site
    ) -> None:
        for worker in site.workers:
            worker.wait_for_log(SERVING)
        project, tasks = site.new_project(*[None] * 8)
        poisonous, *others = tasks
        poison = f"{poisonous['id']}/clip.wav"
        held = [f"{task['id']}/clip.wav" for task in others[:3]]
        with site.audio.holding(poison):
            with site.audio.holding(*held):
                assert site.retrieve(site.hasty, project, tasks)[0] == []
                wait_for(lambda: all(site.audio.waiting[path] for path in (poison, *held)), "nobody asks for the clips")
                site.kill(*{site.holder(job) for job in site.jobs(project).values() if job.state == State.RUNNING})
            max_attempts = site.house.settings.job_attempts
            for attempt in range(2, max_attempts + 1):
                wait_for(lambda n=attempt: site.audio.waiting[poison] == n, f"attempt {attempt} isn't made")
                site.kill(site.holder(site.jobs(project)[poisonous["id"]]))
            assert site.settled(project, tasks) == [0, *[1] * 7]
        job = site.jobs(project)[poisonous["id"]]
        assert (job.state, job.attempts, job.error_code) == (State.FAILED, max_attempts, "worker_lost")
        assert {job.state for task, job in site.jobs(project).items() if task != poisonous["id"]} == {State.DONE}

    def test_a_worker_that_dies_between_pushing_and_writing_it_down_pushes_nothing_twice(self, site: Site) -> None:
        project, tasks = site.new_project(None, None, None)
        site.label_studio.has_stored.clear()
        site.label_studio.hang_after_storing.set()
        site.queue(project, tasks)
        assert site.label_studio.has_stored.wait(WAIT_S)
        site.label_studio.hang_after_storing.clear()
        site.kill(*site.workers)
        site.workers.append(site.house.worker())
        assert site.settled(project, tasks) == [1, 1, 1]

    def test_a_worker_that_is_told_to_stop_finishes_what_it_has_in_hand(self, site: Site) -> None:
        project, (known, *tasks) = site.new_project(None, None, None)
        path = f"{tasks[0]['id']}/clip.wav"
        worker, *others = site.workers
        site.kill(*others)
        worker.wait_for_log(SERVING)
        assert site.patient.results(CHOICES, [known], project) != [[]]  # the label config is known from now on
        with ThreadPoolExecutor(1) as pool:
            with site.audio.holding(path):
                site.queue(project, tasks[:1])
                wait_for(lambda: site.audio.waiting[path], "nobody asks for the clip")
                stopping = pool.submit(worker.stop)
                worker.wait_for_log("stopping as soon as")
                site.queue(project, tasks[1:])
                time.sleep(2 * LEASE_S)
            assert stopping.result() == 0
        first, second = (site.jobs(project)[task["id"]] for task in tasks)
        assert (first.state, first.attempts) == (State.DONE, 1)
        assert (second.state, second.attempts) == (State.QUEUED, 0)
        listed = site.house.store.catalog.workers(60 * LEASE_S)
        assert not any(one.name.startswith(f"clapboard-{worker.pid}-") for one in listed)

    def test_nothing_of_all_this_left_a_traceback_or_the_token_in_a_log(self, site: Site) -> None:
        assert "Traceback" not in site.house.logs
        assert TOKEN not in site.house.logs
        assert "t0ken" not in site.house.logs


def timed(times: int, call: Callable[[], Any]) -> list[float]:
    """How long each call took, in seconds; each must succeed."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        assert call().is_success
        spent.append(time.perf_counter() - began)
    return spent
