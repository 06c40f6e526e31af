"""PredictService by itself: see `service_world`."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from sqlalchemy import event

from backend.answering import OpenRequest, PredictAnswer
from clapboard.errors import NoWorkerError, RequestError, SourceError, SourceUnavailable, SourceUnreachable
from clapboard.project.canary import canary_version
from clapboard.project.serving import find_serving
from clapboard.queue.celery_app import BATCH, INTERACTIVE, PredictPayload
from clapboard.store.catalog import Encoder
from clapboard.store.jobs import JobRequest, State
from clapboard.store.predictions import Delivery, StoredPrediction
from clapboard.store.trials import Kind, Trial
from clapboard.store.versions import Version
from clapboard.suggest import prediction
from clapboard.suggest.head import ZERO_SHOT, ControlHead, Head
from tests.backend.service_world import ENCODER, LABELS, LOADED, RESULT, SHOWN, VERSION, World, predicted, task, uri
from tests.support.fake_label_studio import CHOICES
from tests.support.together import together
from tests.support.waiting import wait_for


class TestOpen:
    """`open`: an answer at once if every prediction is stored."""

    def test_stored_predictions_are_answered_at_once_and_count_as_answered(self, world: World) -> None:
        world.store_predictions(1, 2)
        answer = world.predictions.open([task(2), task(1)], CHOICES, "1.1")
        assert isinstance(answer, PredictAnswer)
        assert answer.results == [predicted(2), predicted(1)]
        assert json.loads(answer.to_json()) == {"results": answer.results, "model_version": SHOWN}
        assert world.store.predictions.counts(1, SHOWN) == {Delivery.ANSWERED: 2}
        assert world.store.jobs.newest() == []

    def test_if_a_prediction_is_missing_none_is_taken_before_the_answer(self, world: World) -> None:
        world.store_predictions(1)
        request = world.predictions.open([task(1), task(2)], CHOICES, "1.1")
        assert isinstance(request, OpenRequest)
        assert world.store.predictions.counts(1, SHOWN) == {Delivery.READY: 1}
        assert world.work() == [2]
        answer = world.predictions.finish(request)
        assert answer.results == [predicted(1), predicted(2)]
        assert answer.num_empty == 0

    def test_a_prediction_that_another_request_is_answering_is_not_answered_twice(self, world: World) -> None:
        world.store_predictions(1)
        first = world.predictions.open([task(1)], CHOICES, "1.1")
        assert isinstance(first, PredictAnswer)
        second = world.predictions.open([task(1)], CHOICES, "1.1")  # at the same moment
        assert isinstance(second, OpenRequest)
        answer = world.predictions.finish(second)
        assert (answer.results, answer.num_empty) == ([[]], 1)
        assert json.loads(answer.to_json()) == {"results": [[]], "model_version": SHOWN}

    def test_a_repeated_task_and_one_that_label_studio_has_a_prediction_for_get_empty_entries(
        self, world: World
    ) -> None:
        world.store_predictions(1, 2)
        held = task(2, predictions=[{"model_version": SHOWN}])
        answer = world.predictions.open([task(1), held, task(1)], CHOICES, "1.1")
        assert isinstance(answer, PredictAnswer)
        assert answer.results == [predicted(1), [], []]

    def test_of_many_threads_that_ask_for_the_same_tasks_each_task_is_answered_to_one(self, world: World) -> None:
        world.store_predictions(*range(1, 21))
        tasks = [task(number) for number in range(1, 21)]
        answers = together([lambda: world.predictions.predict(tasks, CHOICES, "1.1").results for _ in range(6)])
        given = [entry["score"] for answer in answers for entry in answer if entry]
        assert sorted(given) == [number / 100 for number in range(1, 21)]


class TestAnswers:
    def test_stored_predictions_are_answered_in_the_order_of_the_tasks(self, world: World) -> None:
        world.store_predictions(1, 2, 3)
        assert world.predict(task(3), task(1), task(2)) == [predicted(3), predicted(1), predicted(2)]
        assert world.waker.woken == []
        assert world.store.jobs.newest() == []

    def test_missing_predictions_are_queued_and_stored_ones_wait_for_them(self, world: World) -> None:
        world.store_predictions(1)
        request = world.open(task(2), task(1))
        assert not world.predictions.is_ready(request)
        assert world.waker.woken == [INTERACTIVE]
        assert world.work() == [2]
        assert world.predictions.is_ready(request)
        assert world.finish(request) == [predicted(2), predicted(1)]

    def test_a_task_named_twice_has_two_entries_and_one_prediction(self, world: World) -> None:
        request = world.open(task(1), task(2), task(1))
        assert sorted(world.work()) == [1, 2]
        assert world.finish(request) == [predicted(1), predicted(2), []]

    def test_a_task_that_carries_this_versions_prediction_gets_an_empty_entry_and_no_job(self, world: World) -> None:
        held = [{"model_version": "older"}, {"model_version": SHOWN, "result": []}]
        older = [{"model_version": "older", "result": []}]
        request = world.open(task(1, predictions=held), task(2, predictions=older))
        assert world.work() == [2]
        assert world.finish(request) == [[], predicted(2)]

    def test_a_task_with_another_uri_is_predicted_again(self, world: World) -> None:
        world.store_predictions(1)
        request = world.open({"id": 1, "data": {"audio": uri(9)}})
        assert world.work() == [1]
        assert world.store.jobs.newest()[0].payload["uri"] == uri(9)
        assert world.finish(request) == [predicted(1)]

    def test_annotations_and_other_predictions_never_reach_a_job(self, world: World) -> None:
        world.open(task(1, annotations=[{"result": ["dog"]}], predictions=[{"model_version": "older"}]))
        (job,) = world.store.jobs.newest()
        assert set(job.payload) == set(PredictPayload.model_fields)

    def test_a_task_without_an_id_is_predicted_under_an_id_of_its_audio(self, world: World) -> None:
        request = world.open({"data": {"audio": uri(1)}}, {"id": "x", "data": {"audio": uri(1)}})
        (number,) = world.work()
        assert number < 0
        assert [entry != [] for entry in world.finish(request)] == [True, False]

    def test_a_label_config_without_predicted_controls_gets_empty_entries(self, world: World) -> None:
        config = '<View><Audio name="audio" value="$audio"/><Rating name="r" toName="audio"/></View>'
        assert world.predict(task(1), task(2), config=config) == [[], []]
        assert world.store.jobs.newest() == []

    def test_why_a_task_cannot_be_predicted_is_stored_once(self, world: World) -> None:
        world.store_predictions(2)
        bad = {"id": 1, "data": {"audio": "ftp://host.example/a.wav"}}
        for _ in range(3):
            world.clock.now += 10
            assert world.predict(bad, task(2)) == [[], predicted(2)]
        (job,) = world.store.jobs.newest(state=State.FAILED)
        assert (job.task, job.model_version, job.error_code) == (1, VERSION, "source_refused")
        assert "«ftp»" in str(job.error)

    def test_a_failed_job_ends_the_wait(self, world: World) -> None:
        request = world.open(task(1))
        (job,) = world.store.jobs.claim("worker", INTERACTIVE, 1)
        world.store.jobs.fail(job, RequestError("Just so."))
        assert world.predictions.is_ready(request)
        assert world.finish(request) == [[]]

    def test_thousands_of_tasks_in_one_request_are_answered_in_order(self, world: World) -> None:
        numbers = [*range(1, 1501), *range(3000, 1501, -1)]
        world.store_predictions(*numbers)
        assert world.predict(*map(task, numbers)) == list(map(predicted, numbers))


class TestExactlyOnce:
    def test_a_prediction_that_comes_after_the_answer_is_pushed(self, world: World) -> None:
        world.store_predictions(2)
        assert world.predict(task(1), task(2)) == [[], predicted(2)]
        world.work()
        assert world.store.predictions.num_owed() == 1
        (owed,) = world.store.predictions.take_for_push(10, 30)
        assert owed.task == 1

    def test_a_task_asked_for_again_while_its_job_is_open_has_one_job_and_no_push_if_answered(
        self, world: World
    ) -> None:
        assert world.predict(task(1)) == [[]]
        request = world.open(task(1))
        assert world.work() == [1]
        assert world.finish(request) == [predicted(1)]
        assert world.store.predictions.num_owed() == 0

    def test_of_two_overlapping_requests_one_gets_the_prediction_and_a_later_one_gets_it_again(
        self, world: World
    ) -> None:
        first, second = world.open(task(1)), world.open(task(1))
        world.work()
        assert [world.finish(first), world.finish(second)] == [[predicted(1)], [[]]]
        world.clock.now += 1
        assert world.predict(task(1)) == [predicted(1)]

    def test_nothing_is_pushed_for_a_request_that_gave_up_if_another_answers_it(self, world: World) -> None:
        hasty, patient = world.open(task(1)), world.open(task(1))
        assert world.finish(hasty) == [[]]
        world.work()
        assert world.finish(patient) == [predicted(1)]
        assert world.store.predictions.take_for_push(10, 30) == []

    def test_a_prediction_that_is_being_pushed_is_not_answered(self, world: World) -> None:
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
        slow = world.open(task(1))
        world.embed(1)  # another task with the same audio was faster
        world.clock.now += 1
        quick = world.open(task(1))
        assert len(world.finish(quick)[0]["result"]) == 1
        world.work()
        assert world.finish(slow) == [[]]
        assert world.delivery(1) == {Delivery.ANSWERED: 1}

    def test_the_same_if_the_first_request_had_given_up(self, world: World) -> None:
        assert world.predict(task(1)) == [[]]
        world.embed(1)
        world.clock.now += 1
        assert world.predict(task(1)) != [[]]
        world.work()
        assert world.delivery(1) == {Delivery.ANSWERED: 1}

    def test_a_job_queued_by_prelabel_becomes_interactive_and_is_still_pushed(self, world: World) -> None:
        key = world.sources.key(uri(1))
        space_id = prediction.space_id(LABELS)
        payload = PredictPayload(uri=uri(1), uri_key=key, encoder="mini", space_id=space_id, head=ZERO_SHOT)
        world.store.jobs.add(BATCH, [JobRequest("predict", 1, 1, VERSION, payload.model_dump(), push=True)])
        request = world.open(task(1))
        (job,) = world.store.jobs.newest()
        assert (job.queue, job.push) == (INTERACTIVE, True)
        world.work()
        assert world.finish(request) == [predicted(1)]
        assert world.store.predictions.num_owed() == 0

    def test_predictions_for_a_caller_who_disconnected_are_pushed(self, world: World) -> None:
        request = world.open(task(1))
        world.predictions.abandon(request)
        world.work()
        assert [owed.task for owed in world.store.predictions.take_for_push(10, 30)] == [1]

    def test_a_prediction_stored_when_the_caller_disconnected_is_answered_to_the_next(self, world: World) -> None:
        world.store_predictions(1)
        world.predictions.abandon(world.open(task(1), task(2)))
        assert world.predict(task(1)) == [predicted(1)]


class TestWaiting:
    def test_predict_returns_as_soon_as_every_prediction_is_stored(self, world: World) -> None:
        def work() -> None:
            wait_for(world.work, "nothing is queued")

        working = threading.Timer(0.1, work)
        working.start()
        answer = world.predictions.predict([task(1)], CHOICES, "1")
        working.join()
        assert (answer.model_version, answer.results) == (SHOWN, [predicted(1)])

    def test_predict_returns_when_its_time_is_up(self, world: World) -> None:
        def give_up() -> None:
            wait_for(world.store.jobs.newest, "nothing is queued")
            world.clock.now += 20

        bound = threading.Timer(0.1, give_up)
        bound.start()
        assert world.predictions.predict([task(1)], CHOICES, "1").results == [[]]
        bound.join()
        assert world.store.jobs.newest()[0].push

    def test_nothing_is_answered_before_a_worker_has_announced_its_encoder(self, world_before_workers: World) -> None:
        for call in (
            lambda: world_before_workers.services.setups.setup("1", CHOICES),
            lambda: world_before_workers.open(task(1)),
        ):
            with pytest.raises(NoWorkerError, match="start one with `clapboard worker`"):
                call()
        assert world_before_workers.store.jobs.newest() == []


class TestNotWaiting:
    """Predictions that won't come soon aren't waited for; `test_unreachable_audio` has the same with real processes."""

    def test_a_failed_try_that_will_be_repeated_ends_the_wait_and_is_pushed(self, world: World) -> None:
        request = world.open(task(1))
        (job,) = world.store.jobs.claim("worker", INTERACTIVE, 1)
        world.store.jobs.fail(job, SourceUnavailable("Not now."))
        assert world.predictions.is_ready(request)
        assert world.finish(request) == [[]]
        assert [(job.state, job.push) for job in world.store.jobs.newest()] == [(State.QUEUED, True)]

    @pytest.mark.parametrize(
        ("queues", "model", "silent_s"),
        [("batch,train", "mini", 0), ("interactive", "another", 0), ("interactive", "mini", 9), (None, "", 0)],
    )
    def test_without_a_suitable_worker_the_job_is_queued_to_be_pushed(
        self, world_before_workers: World, queues: str | None, model: str, silent_s: float
    ) -> None:
        world_before_workers.store.catalog.announce_encoder(ENCODER)
        if queues:
            world_before_workers.store.catalog.worker_alive("a worker", model, "cpu", queues, LOADED)
        world_before_workers.clock.now += silent_s
        request = world_before_workers.open(task(1))
        assert world_before_workers.predictions.is_ready(request)
        assert [job.push for job in world_before_workers.store.jobs.newest()] == [True]
        world_before_workers.store.catalog.worker_alive(
            "another", "mini", "cpu", "interactive", LOADED
        )  # is believed at once
        assert not world_before_workers.predictions.is_ready(world_before_workers.open(task(2)))

    @pytest.mark.parametrize(
        ("error", "recent_s"), [(SourceUnavailable("Not now."), 60), (SourceError("Not there."), 600)]
    )
    def test_a_recent_failure_is_not_tried_and_an_older_one_is_tried_without_waiting(
        self, world: World, error: SourceError, recent_s: float
    ) -> None:
        world.store.audio_failures.put({world.sources.key(uri(1)): error})
        world.clock.now += recent_s - 1
        assert world.predict(task(1)) == [[]]
        assert world.store.jobs.newest() == []
        world.clock.now += 2
        world.store.catalog.worker_alive("a worker", "mini", "cpu", "interactive", LOADED)
        assert world.predictions.is_ready(world.open(task(1)))
        assert [job.push for job in world.store.jobs.newest()] == [True]

    def test_failed_tasks_are_tried_at_once_if_several_are_asked_for(self, world: World) -> None:
        world.store.audio_failures.put({world.sources.key(uri(1)): SourceError("Not there.")})
        request = world.open(task(1), task(2))
        assert [(job.task, job.push) for job in world.store.jobs.newest()] == [(2, False), (1, True)]
        assert len(request.jobs.awaited) == 1

    def test_a_recent_failure_whose_job_is_open_is_pushed_if_the_next_try_succeeds(self, world: World) -> None:
        request = world.open(task(1))
        (job,) = world.store.jobs.claim("worker", INTERACTIVE, 1)
        world.store.audio_failures.put({world.sources.key(uri(1)): SourceUnavailable("Not now.")})
        world.store.jobs.fail(job, SourceUnavailable("Not now."))
        assert world.predict(task(1)) == [[]]
        assert [job.push for job in world.store.jobs.newest()] == [True]
        assert request.jobs.awaited

    def test_tasks_on_an_unreachable_host_are_not_waited_for_and_those_elsewhere_are(self, world: World) -> None:
        world.store.audio_failures.put({"https://host.example": SourceUnreachable("No connection.")})
        assert world.predictions.is_ready(world.open(task(1)))
        assert [job.push for job in world.store.jobs.newest()] == [True]
        assert not world.predictions.is_ready(world.open({"id": 2, "data": {"audio": "https://other.example/2.wav"}}))
        world.clock.now += 31
        world.store.catalog.worker_alive("a worker", "mini", "cpu", "interactive", LOADED)
        assert not world.predictions.is_ready(world.open(task(3)))

    def test_a_thousand_tasks_that_are_held_out_or_refused_are_two_writes(self, world: World) -> None:
        world.services.setups.setup("1.1", CHOICES)
        world.services.setups.store_introductions()
        world.store.catalog.set_connected(1, 0.5)
        world.services.versions.refresh(at_once=True)
        bad = [{"id": number, "data": {"audio": "ftp://host.example/a.wav"}} for number in range(1, 501)]
        writes: list[object] = []
        event.listen(world.store.database.engine, "commit", writes.append)
        request = world.predictions.open([*bad, *map(task, range(501, 1001))], CHOICES, "1.1")
        assert isinstance(request, OpenRequest)
        assert len(world.store.jobs.newest(state=State.FAILED, limit=1000)) == 500
        known, aside = world.store.tasks.count(1)
        assert known == 500
        assert 150 < aside < 350
        assert len(writes) < 20


class TestAskedAnew:
    """While suggestions are brought up to date, Label Studio asks for tasks whose predictions it has."""

    def ask(self, world: World) -> None:
        """Any task may come next, and not all suggestions are up to date."""
        world.store.displays.configured(1, "Uniform sampling", 1)
        world.store.displays.begin_sweep(1, VERSION)

    def test_the_newest_is_answered_under_the_versions_own_name(self, world: World) -> None:
        world.embed(1)
        self.ask(world)
        assert world.services.setups.setup("1.1", CHOICES) == VERSION
        opened = task(1, predictions=[{"model_version": SHOWN}])
        (entry,) = world.predict(opened)
        assert entry["model_version"] == VERSION
        assert entry["result"][0]["id"] == prediction.result_id("clip", VERSION)
        (suggestion,) = world.store.predictions.delivered(1, [1])[1]  # an annotation may answer it
        assert suggestion.result == entry["result"]
        assert world.predict(task(1, predictions=[{"model_version": VERSION}])) == [[]]

    def test_what_label_studio_has_or_gets_is_left_as_it_is(self, world: World) -> None:
        world.store_predictions(1, 2)
        (pushing,) = world.store.predictions.claim([_stored(world, 1)])
        world.store.predictions.claim([_stored(world, 2)])
        world.store.predictions.pushed(1, [2], VERSION)
        self.ask(world)
        answered = world.predict(task(1), task(2))
        assert [entry["model_version"] for entry in answered] == [VERSION, VERSION]
        assert world.store.predictions.counts(1, pushing.shown_as) == {Delivery.PUSHING: 1, Delivery.PUSHED: 1}

    def test_once_all_are_up_to_date_the_names_agree_again(self, world: World) -> None:
        self.ask(world)
        display = world.store.displays.get(1)
        world.store.displays.advance(display, 5, is_at_end=True)
        assert world.services.setups.setup("1.1", CHOICES) == SHOWN


def _stored(world: World, number: int) -> StoredPrediction:
    return StoredPrediction(1, number, VERSION, world.sources.key(uri(number)), number / 100, RESULT)


class TestCanary:
    """A candidate on trial answers for its half of the tasks."""

    def test_its_half_gets_its_suggestions_under_the_serving_name_once_it_has_embedded_them(self, world: World) -> None:
        world.embed(*range(1, 13))
        tuned = Encoder("models/1/mini-tuned-3", "33" * 8, "float32", 2, 10.0)
        world.store.catalog.announce_encoder(tuned)
        rows = np.array([[0.0, 1.0], [9.0, 0.0]], np.float32)  # what the base takes for a dog is rain to it
        head = Head((ControlHead(np.zeros(2, np.float32), rows, np.zeros(2, np.float32)),))
        name = prediction.model_version(tuned, LABELS, head.name)
        space_id = prediction.space_id(LABELS)
        world.store.versions.put(Version(1, name, tuned.model, tuned.version, head.name, space_id), head)
        served = find_serving(world.store, "mini", 1, LABELS)
        shown_as = canary_version(name, served)
        assert prediction.shown_name(shown_as) == SHOWN
        trial = world.store.trials.begin(Trial(1, Kind.CANARY, name, VERSION, 200, 0.0125, shown_as=shown_as))
        half = [number for number in range(1, 13) if trial.shows_candidate(number)]
        for number in half[1:]:
            world.store.embeddings.put(f"{number:064}", tuned.version, tuned.dtype, 0, np.array([[1, 0]], np.float32))
        world.services.versions.refresh(at_once=True)
        suggested = {}
        for number in range(1, 13):
            (entry,) = world.predict(task(number))
            assert entry["model_version"] == SHOWN
            (result,) = entry["result"]
            suggested[number] = (result["value"]["choices"][0], result["id"])
        by_candidate = ("rain", prediction.result_id("clip", shown_as))
        by_serving = ("dog", prediction.result_id("clip", VERSION))
        assert suggested == {number: by_candidate if number in half[1:] else by_serving for number in range(1, 13)}
