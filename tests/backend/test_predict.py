"""PredictService by itself: on a real store, with the workers' part played by the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.answer import OpenRequest, PredictAnswer
from backend.predict import PredictService, pause_s, project_id
from clapboard import prediction
from clapboard.errors import NoWorkerError, RequestError
from clapboard.head import ZERO_SHOT
from clapboard.jobs import BATCH, INTERACTIVE, LEARN, PredictPayload
from clapboard.labels import parse_label_config
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import JobRequest, State
from clapboard.store.predictions import Delivery, StoredPrediction
from tests.support.fake_label_studio import CHOICES
from tests.support.processes import wait_for
from tests.support.together import together

ENCODER = Encoder("mini", "0123456789abcdef", "float32", 2, 10.0)
LABELS = parse_label_config(CHOICES)
VERSION = prediction.model_version(ENCODER, LABELS)
RESULT = [{"id": "c", "from_name": "clip", "to_name": "audio", "type": "choices", "value": {"choices": ["dog"]}}]


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Bell:
    """Keeps for whom it was rung."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, queue: str) -> bool:
        self.rung.append(queue)
        return True


class World:
    """A service with its store, and what a worker does to it."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.bell = Bell()
        self.store = Store(f"sqlite:///{folder / 'clapboard.db'}", clock=self.clock)
        settings = Settings(MODEL_DIR=folder, CLAPBOARD_MODEL="mini", CLAPBOARD_PREDICT_WAIT_S=20)
        self.sources = AudioSources(settings)
        self.service = PredictService(settings, self.store, self.bell)

    def begin(self, *tasks: dict[str, Any], config: str = CHOICES) -> OpenRequest:
        return self.service.begin(tasks, config, "1.1")

    def finish(self, request: OpenRequest) -> list[Any]:
        return self.service.finish(request).results

    def predict(self, *tasks: dict[str, Any]) -> list[Any]:
        """The answer of a request for which nobody waits."""
        return self.finish(self.begin(*tasks))

    def cache(self, *tasks: int) -> None:
        """The tasks' predictions were made before."""
        keys = {number: self.sources.key(uri(number)) for number in tasks}
        self.store.predictions.put_all(
            [StoredPrediction(1, n, VERSION, k, n / 100, RESULT) for n, k in keys.items()], push=False
        )

    def work(self, *queues: str) -> list[int]:
        """What a worker does with all that is queued: the tasks that it predicted."""
        jobs = [job for queue in queues or (INTERACTIVE,) for job in self.store.jobs.claim("worker", queue, 100)]
        for job in jobs:
            found = StoredPrediction(1, job.task, VERSION, job.payload["uri_key"], job.task / 100, RESULT)
            self.store.finish_with_prediction(job, found)
        return [job.task for job in jobs]

    def embed(self, *tasks: int) -> None:
        """The tasks' recordings are embedded already, and the labels' class weights known."""
        vectors = np.array([[1.0, 0.0]], np.float32)
        for number in tasks:
            self.store.embeddings.put(f"{number:064}", ENCODER.version, ENCODER.dtype, 0, vectors)
            self.store.embeddings.put_recording(self.sources.key(uri(number)), Recording(f"{number:064}", 1, 1.0))
        space_id = prediction.space_id(LABELS)
        self.store.catalog.put_label_space(space_id, CHOICES)
        weights = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], np.float32)
        self.store.catalog.put_class_weights(ENCODER.version, space_id, weights)

    def delivery(self, task: int) -> dict[Delivery, int]:
        assert self.store.predictions.model_versions(1) == [VERSION]
        counts = self.store.predictions.counts(1, VERSION)
        assert sum(counts.values()) == 1
        return counts


def uri(number: int) -> str:
    return f"https://host.example/{number}.wav"


def task(number: int, **others: Any) -> dict[str, Any]:
    return {"id": number, "data": {"audio": uri(number)}} | others


def said(number: int) -> dict[str, Any]:
    return {"result": RESULT, "score": number / 100, "model_version": VERSION}


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[World]:
    """Before any worker."""
    world = World(tmp_path)
    yield world
    world.store.close()


@pytest.fixture
def world(bare: World) -> World:
    bare.store.catalog.announce_encoder(ENCODER)
    return bare


class TestAsking:
    """What `/predict` calls: an answer at once where all is cached."""

    def test_what_is_all_cached_is_answered_at_once_and_counts_as_answered(self, world: World) -> None:
        world.cache(1, 2)
        answer = world.service.ask([task(2), task(1)], CHOICES, "1.1")
        assert isinstance(answer, PredictAnswer)
        assert answer.results == [said(2), said(1)]
        assert json.loads(answer.to_json()) == {"results": answer.results, "model_version": VERSION}
        assert world.store.predictions.counts(1, VERSION) == {Delivery.ANSWERED: 2}
        assert world.store.jobs.newest() == []

    def test_where_something_is_missing_nothing_is_taken_before_the_end(self, world: World) -> None:
        world.cache(1)
        request = world.service.ask([task(1), task(2)], CHOICES, "1.1")
        assert isinstance(request, OpenRequest)
        assert world.store.predictions.counts(1, VERSION) == {Delivery.READY: 1}
        assert world.work() == [2]
        answer = world.service.finish(request)
        assert answer.results == [said(1), said(2)]
        assert answer.num_empty == 0

    def test_what_another_request_is_delivering_is_not_answered_twice(self, world: World) -> None:
        world.cache(1)
        first = world.service.ask([task(1)], CHOICES, "1.1")
        assert isinstance(first, PredictAnswer)
        second = world.service.ask([task(1)], CHOICES, "1.1")  # at the same moment
        assert isinstance(second, OpenRequest)
        answer = world.service.finish(second)
        assert (answer.results, answer.num_empty) == ([[]], 1)
        assert json.loads(answer.to_json()) == {"results": [[]], "model_version": VERSION}

    def test_a_task_named_twice_and_one_that_is_held_already_are_left_empty(self, world: World) -> None:
        world.cache(1, 2)
        held = task(2, predictions=[{"model_version": VERSION}])
        answer = world.service.ask([task(1), held, task(1)], CHOICES, "1.1")
        assert isinstance(answer, PredictAnswer)
        assert answer.results == [said(1), [], []]

    def test_threads_that_ask_for_the_same_get_it_once(self, world: World) -> None:
        world.cache(*range(1, 21))
        tasks = [task(number) for number in range(1, 21)]
        answers = together([lambda: world.service.predict(tasks, CHOICES, "1.1").results for _ in range(6)])
        given = [entry["score"] for answer in answers for entry in answer if entry]
        assert sorted(given) == [number / 100 for number in range(1, 21)]


class TestAnswers:
    def test_what_is_cached_is_answered_at_once_in_the_order_of_the_tasks(self, world: World) -> None:
        world.cache(1, 2, 3)
        request = world.begin(task(3), task(1), task(2))
        assert world.service.is_ready(request)
        assert world.finish(request) == [said(3), said(1), said(2)]
        assert world.bell.rung == []
        assert world.store.jobs.newest() == []

    def test_what_is_missing_is_queued_and_what_is_cached_waits_for_it(self, world: World) -> None:
        world.cache(1)
        request = world.begin(task(2), task(1))
        assert not world.service.is_ready(request)
        assert world.bell.rung == [INTERACTIVE]
        assert world.work() == [2]
        assert world.service.is_ready(request)
        assert world.finish(request) == [said(2), said(1)]

    def test_a_task_named_twice_has_two_entries_and_one_prediction(self, world: World) -> None:
        request = world.begin(task(1), task(2), task(1))
        assert sorted(world.work()) == [1, 2]
        assert world.finish(request) == [said(1), said(2), []]

    def test_a_task_that_carries_this_versions_prediction_gets_an_empty_entry_and_no_job(self, world: World) -> None:
        held = [{"model_version": "older"}, {"model_version": VERSION, "result": []}]
        older = [{"model_version": "older", "result": []}]
        request = world.begin(task(1, predictions=held), task(2, predictions=older))
        assert world.work() == [2]
        assert world.finish(request) == [[], said(2)]

    def test_another_uri_is_predicted_anew(self, world: World) -> None:
        world.cache(1)
        request = world.begin({"id": 1, "data": {"audio": uri(9)}})
        assert world.work() == [1]
        assert world.store.jobs.newest()[0].payload["uri"] == uri(9)
        assert world.finish(request) == [said(1)]

    def test_annotations_and_other_predictions_never_reach_a_job(self, world: World) -> None:
        world.begin(task(1, annotations=[{"result": ["dog"]}], predictions=[{"model_version": "older"}]))
        (job,) = world.store.jobs.newest()
        assert set(job.payload) == set(PredictPayload.model_fields)

    def test_a_task_without_an_id_is_predicted_under_one_of_its_audios(self, world: World) -> None:
        request = world.begin({"data": {"audio": uri(1)}}, {"id": "x", "data": {"audio": uri(1)}})
        (number,) = world.work()
        assert number < 0
        assert [entry != [] for entry in world.finish(request)] == [True, False]

    def test_a_config_without_anything_to_predict_gets_empty_entries(self, world: World) -> None:
        config = '<View><Audio name="audio" value="$audio"/><Rating name="r" toName="audio"/></View>'
        request = world.begin(task(1), task(2), config=config)
        assert world.service.is_ready(request)
        assert world.finish(request) == [[], []]
        assert world.store.jobs.newest() == []

    def test_a_task_that_cannot_be_predicted_keeps_its_reason_once(self, world: World) -> None:
        world.cache(2)
        bad = {"id": 1, "data": {"audio": "ftp://host.example/a.wav"}}
        for _ in range(3):
            world.clock.now += 10
            assert world.predict(bad, task(2)) == [[], said(2)]
        (job,) = world.store.jobs.newest(state=State.FAILED)
        assert (job.task, job.model_version, job.error_code) == (1, VERSION, "source_refused")
        assert "«ftp»" in str(job.error)

    def test_a_job_that_fails_ends_the_waiting(self, world: World) -> None:
        request = world.begin(task(1))
        (job,) = world.store.jobs.claim("worker", INTERACTIVE, 1)
        world.store.jobs.fail(job, RequestError("Just so."))
        assert world.service.is_ready(request)
        assert world.finish(request) == [[]]

    def test_thousands_of_tasks_in_one_request_are_answered_in_order(self, world: World) -> None:
        numbers = [*range(1, 1501), *range(3000, 1501, -1)]
        world.cache(*numbers)
        assert world.predict(*map(task, numbers)) == list(map(said, numbers))


class TestExactlyOnce:
    def test_what_is_not_ready_in_time_is_owed_once_it_is(self, world: World) -> None:
        world.cache(2)
        assert world.predict(task(1), task(2)) == [[], said(2)]
        world.work()
        assert world.store.predictions.num_owed() == 1
        (owed,) = world.store.predictions.take_for_push(10, 30)
        assert owed.task == 1

    def test_asked_again_while_it_is_computed_it_is_one_job_and_not_pushed_if_answered(self, world: World) -> None:
        assert world.predict(task(1)) == [[]]
        request = world.begin(task(1))
        assert world.work() == [1]
        assert world.finish(request) == [said(1)]
        assert world.store.predictions.num_owed() == 0

    def test_of_two_overlapping_requests_one_gets_it_and_a_later_one_gets_it_again(self, world: World) -> None:
        first, second = world.begin(task(1)), world.begin(task(1))
        world.work()
        assert [world.finish(first), world.finish(second)] == [[said(1)], [[]]]
        world.clock.now += 1
        assert world.predict(task(1)) == [said(1)]

    def test_a_request_that_gives_up_owes_nothing_that_another_answers(self, world: World) -> None:
        hasty, patient = world.begin(task(1)), world.begin(task(1))
        assert world.finish(hasty) == [[]]
        world.work()
        assert world.finish(patient) == [said(1)]
        assert world.store.predictions.take_for_push(10, 30) == []

    def test_while_it_is_pushed_no_request_answers_it(self, world: World) -> None:
        world.predict(task(1))
        world.work()
        assert [owed.task for owed in world.store.predictions.take_for_push(10, 30)] == [1]
        world.clock.now += 1
        assert world.predict(task(1)) == [[]]

    def test_many_requests_at_once_answer_each_task_once_if_only_the_embeddings_are_there(self, world: World) -> None:
        numbers = range(1, 31)
        world.embed(*numbers)
        answers = together([lambda: world.predict(*map(task, numbers)) for _ in range(8)])
        for position, number in enumerate(numbers):
            found = [answer[position] for answer in answers if answer[position] != []]
            assert len(found) == 1, f"task {number} was answered {len(found)} times"
            assert found[0]["result"][0]["value"] == {"choices": ["dog"]}
        assert world.store.jobs.newest() == []

    def test_a_job_that_ends_after_its_task_was_answered_from_embeddings_delivers_nothing_more(
        self, world: World
    ) -> None:
        slow = world.begin(task(1))
        world.embed(1)  # another task with the same audio was faster
        world.clock.now += 1
        quick = world.begin(task(1))
        assert len(world.finish(quick)[0]["result"]) == 1
        world.work()
        assert world.finish(slow) == [[]]
        assert world.delivery(1) == {Delivery.ANSWERED: 1}

    def test_the_same_where_the_first_request_had_given_up(self, world: World) -> None:
        assert world.predict(task(1)) == [[]]
        world.embed(1)
        world.clock.now += 1
        assert world.predict(task(1)) != [[]]
        world.work()
        assert world.delivery(1) == {Delivery.ANSWERED: 1}

    def test_a_job_that_prelabel_queued_is_moved_to_the_front_and_still_pushed(self, world: World) -> None:
        key = world.sources.key(uri(1))
        space_id = prediction.space_id(LABELS)
        payload = PredictPayload(uri=uri(1), uri_key=key, encoder="mini", space_id=space_id, head=ZERO_SHOT)
        world.store.jobs.add(BATCH, [JobRequest("predict", 1, 1, VERSION, payload.model_dump(), push=True)])
        request = world.begin(task(1))
        (job,) = world.store.jobs.newest()
        assert (job.queue, job.push) == (INTERACTIVE, True)
        world.work()
        assert world.finish(request) == [said(1)]
        assert world.store.predictions.num_owed() == 0

    def test_a_request_whose_asker_hung_up_has_it_pushed(self, world: World) -> None:
        request = world.begin(task(1))
        world.service.abandon(request)
        world.work()
        assert [owed.task for owed in world.store.predictions.take_for_push(10, 30)] == [1]

    def test_what_was_ready_when_the_asker_hung_up_is_answered_to_the_next(self, world: World) -> None:
        world.cache(1)
        world.service.abandon(world.begin(task(1)))
        assert world.predict(task(1)) == [said(1)]


class TestWaiting:
    def test_predict_returns_as_soon_as_all_is_there(self, world: World) -> None:
        def work() -> None:
            wait_for(world.work, "nothing is queued")

        working = threading.Timer(0.1, work)
        working.start()
        answer = world.service.predict([task(1)], CHOICES, "1")
        working.join()
        assert (answer.model_version, answer.results) == (VERSION, [said(1)])

    def test_predict_gives_up_at_its_bound(self, world: World) -> None:
        def give_up() -> None:
            wait_for(world.store.jobs.newest, "nothing is queued")
            world.clock.now += 20

        bound = threading.Timer(0.1, give_up)
        bound.start()
        assert world.service.predict([task(1)], CHOICES, "1").results == [[]]
        bound.join()
        assert world.store.jobs.newest()[0].push

    def test_nothing_is_answered_before_a_worker_has_announced_its_encoder(self, bare: World) -> None:
        for call in (lambda: bare.service.setup("1", CHOICES), lambda: bare.begin(task(1))):
            with pytest.raises(NoWorkerError, match="start one with `clapboard worker`"):
                call()
        assert bare.store.jobs.newest() == []


class TestProjects:
    def test_a_project_that_introduces_itself_is_written_down_and_learns_and_aligns_if_connected(
        self, world: World
    ) -> None:
        for project in ("1.1", "2.1"):
            world.service.setup(project, CHOICES)
        world.service.remember_projects()
        assert world.store.catalog.project(1).model_version == VERSION
        assert world.store.jobs.newest() == []
        world.store.catalog.set_connected(2)
        changed = CHOICES.replace("rain", "wind")
        version = world.service.setup("2.1", changed)
        world.service.remember_projects()
        asked = [(job.kind, job.queue, job.project) for job in world.store.jobs.newest()]
        assert asked == [("align", LEARN, 2), ("learn", LEARN, 2)]
        assert world.store.catalog.project(2).label_config == changed
        assert world.store.catalog.project(2).model_version == version

    def test_an_introduction_is_not_lost_where_the_store_fails(self, world: World) -> None:
        world.service.setup("1.1", CHOICES)
        world.store.catalog.set_connected(1)
        with world.store.database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE projects RENAME TO away")
        with pytest.raises(Exception, match="no such table"):
            world.service.remember_projects()
        with world.store.database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO projects")
        world.service.remember_projects()
        assert world.store.catalog.project(1).model_version == VERSION

    def test_a_setup_without_a_project_leaves_none_behind(self, world: World) -> None:
        world.service.setup("", CHOICES)
        world.service.remember_projects()
        with world.store.database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM projects").scalar() == 0

    @pytest.mark.parametrize(
        ("given", "number"), [("2.1795338111", 2), ("2", 2), (2, 2), (None, 0), ("", 0), ("0", 0), ("007", 7)]
    )
    def test_a_projects_number_is_read_in_every_form(self, given: str | int | None, number: int) -> None:
        assert project_id(given) == number

    @pytest.mark.parametrize("given", ["two", "-1", ".5", "2e3", "٣", "9" * 19, " 2"])
    def test_what_is_no_number_is_refused(self, given: str) -> None:
        with pytest.raises(RequestError, match="no Label Studio project"):
            project_id(given)


@pytest.mark.parametrize(("waited_s", "found"), [(0.0, 0.03), (0.2, 0.03), (1.0, 0.1), (2.0, 0.2), (20.0, 0.3)])
def test_who_waits_longer_looks_less_often(waited_s: float, found: float) -> None:
    assert pause_s(waited_s) == pytest.approx(found)
