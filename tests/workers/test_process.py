"""The worker inside a process: bells, turns, leases and stopping, with an encoder that needs no torch."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery.schedules import crontab, schedule

from clapboard.jobs import BATCH, INTERACTIVE, QUEUES, TRAIN, make_celery
from clapboard.store import Store
from clapboard.store.jobs import Job, JobRequest, State
from tests.support.fake_label_studio import CHOICES, TOKEN
from tests.support.fixtures_services import free_port, needs_program
from tests.support.processes import wait_for
from tests.workers.conftest import World
from workers.process import ALL_PROJECTS, Worker, beat_schedule


@pytest.fixture
def worker(world: World) -> Iterator[Worker]:
    """A worker that hears no bells, since no Celery runs: the test calls `drain`."""
    worker = Worker(world.settings, world.store, world.encoder, QUEUES)  # type: ignore[arg-type]
    yield worker
    worker.close()


def states(world: World) -> dict[int, State]:
    return {job.task: job.state for job in world.store.jobs.newest(limit=1000)}


def messages(world: World, queue: str) -> int:
    with make_celery(world.settings).connection() as connection:
        return int(connection.default_channel._size(queue))


class TestDraining:
    def test_a_bell_empties_its_queue_over_many_batches_and_touches_no_other(
        self, world: World, worker: Worker
    ) -> None:
        world.ask(*range(1, 41))
        world.ask(41, queue=BATCH)
        worker.drain(INTERACTIVE)
        assert states(world) == dict.fromkeys(range(1, 41), State.DONE) | {41: State.QUEUED}

    def test_two_threads_at_most_do_batch_work_while_interactive_work_still_runs(
        self, world: World, worker: Worker
    ) -> None:
        held = [f"{task}/clip.wav" for task in (1, 2, 3)]
        with world.audio.holding(*held):
            threads = []
            for task in (1, 2, 3):
                world.ask(task, queue=BATCH)
                threads.append(threading.Thread(target=worker.drain, args=[BATCH]))
                threads[-1].start()
                wait_for(lambda t=task: t == 3 or world.audio.waiting[f"{t}/clip.wav"], "no thread took the job")
            threads[2].join(5)
            assert not threads[2].is_alive()
            assert states(world) == {1: State.RUNNING, 2: State.RUNNING, 3: State.QUEUED}
            world.ask(9)
            worker.drain(INTERACTIVE)
            assert states(world)[9] == State.DONE
        for thread in threads:
            thread.join(10)
        assert set(states(world).values()) == {State.DONE}

    def test_a_chore_that_another_thread_could_do_is_not_held_by_one_that_has_not_begun_it(
        self, world: World, worker: Worker
    ) -> None:
        began, go_on = threading.Event(), threading.Event()

        def linger(job: Job) -> str:
            if job.project == 1:
                began.set()
                go_on.wait(10)
            return "done"

        worker._chores._kinds = {"prelabel": linger}  # type: ignore[assignment]
        first, second = world.store.jobs.add(BATCH, [JobRequest("prelabel", project) for project in (1, 2)])
        thread = threading.Thread(target=worker.drain, args=[BATCH])
        thread.start()
        assert began.wait(5)
        worker.drain(BATCH)
        assert world.store.jobs.get(second).state == State.DONE
        go_on.set()
        thread.join(10)
        assert world.store.jobs.get(first).state == State.DONE

    def test_a_bell_without_work_does_nothing(self, world: World, worker: Worker) -> None:
        for queue in QUEUES:
            worker.drain(queue)
        assert world.encoder.batches == []

    def test_jobs_whose_batch_broke_off_are_tried_again(self, world: World, worker: Worker) -> None:
        world.ask(1, 2)
        worker.start()
        with world.store.database.write() as connection:
            refusal = "BEFORE INSERT ON {} BEGIN SELECT RAISE(ABORT, 't0ken'); END"
            connection.exec_driver_sql(f"CREATE TRIGGER a {refusal.format('recordings')}")
        worker.drain(INTERACTIVE)
        assert set(states(world).values()) <= {State.RUNNING, State.QUEUED}
        with world.store.database.write() as connection:
            connection.exec_driver_sql("DROP TRIGGER a")
        wait_for(lambda: set(states(world).values()) == {State.QUEUED}, "the jobs stay with a worker that dropped them")
        with world.store.database.write() as connection:
            connection.exec_driver_sql("UPDATE jobs SET not_before = 0")
        worker.drain(INTERACTIVE)
        assert set(states(world).values()) == {State.DONE}


class TestEverySecond:
    def test_it_is_alive_and_has_announced_its_encoder(self, world: World, worker: Worker) -> None:
        worker.start()
        found = world.store.catalog.encoder("counting")
        assert found is not None
        assert found.version == world.encoder.identity.version
        (alive,) = wait_for(lambda: world.store.catalog.workers(5), "the worker says nothing")
        assert (alive.name, alive.model, alive.device) == (worker.name, "counting", "cpu")
        assert alive.queues == "interactive,search,learn,batch,train"

    def test_a_lost_bell_is_rung_again(self, world: World, worker: Worker) -> None:
        worker.start()
        world.ask(1)
        world.ask(2, queue=BATCH)
        wait_for(lambda: messages(world, INTERACTIVE) and messages(world, BATCH), "the bells weren't rung again")
        assert messages(world, TRAIN) == 0

    def test_a_lost_bell_is_rung_again_while_one_thread_is_held_up_in_the_same_queue(
        self, world: World, worker: Worker
    ) -> None:
        worker.start()
        world.ask(1)
        with world.audio.holding("1/clip.wav"):
            thread = threading.Thread(target=worker.drain, args=[INTERACTIVE])
            thread.start()
            wait_for(lambda: world.audio.waiting["1/clip.wav"], "nobody asked for the clip")
            world.ask(2)
            wait_for(lambda: messages(world, INTERACTIVE), "the bell wasn't rung again")
        thread.join(10)

    def test_the_jobs_of_a_worker_that_fell_silent_are_queued_again(self, world: World, worker: Worker) -> None:
        world.ask(1)
        world.claimed()
        worker.start()
        wait_for(lambda: states(world) == {1: State.QUEUED}, "the job stays with the silent worker")

    def test_a_worker_that_signed_off_is_gone_for_good(self, world: World, worker: Worker) -> None:
        worker.start()
        wait_for(lambda: world.store.catalog.workers(5), "the worker says nothing")
        worker.stop()
        other = World(world.settings.model_dir, world.audio)
        worker.close()
        time.sleep(1.2)
        assert other.store.catalog.workers(60) == []
        other.store.close()


class TestStopping:
    def test_the_batch_in_hand_is_finished_under_its_lease_and_no_other_is_begun(
        self, world: World, worker: Worker
    ) -> None:
        world.ask(1)
        worker.start()
        with world.audio.holding("1/clip.wav"):
            thread = threading.Thread(target=worker.drain, args=[INTERACTIVE])
            thread.start()
            wait_for(lambda: world.audio.waiting["1/clip.wav"], "nobody asked for the clip")
            world.ask(2)
            worker.stop()
            time.sleep(2.5)  # longer than the lease of 1 s
            assert world.store.jobs.requeue_lost(world.settings.job_lease_s) == set()
        thread.join(10)
        assert states(world) == {1: State.DONE, 2: State.QUEUED}


class TestWithoutABroker:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
        """A Redis of the test's own, to be stopped."""
        port = free_port()
        command = [needs_program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        with (tmp_path / "redis.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=tmp_path, stdout=log)
        url = f"redis://127.0.0.1:{port}/0"

        def answers() -> bool:
            try:
                with redis.Redis(port=port) as client:
                    return bool(client.ping())
            except redis.ConnectionError:
                return False

        wait_for(answers, "Redis doesn't answer")
        yield process, url
        process.kill()
        process.wait()

    @pytest.mark.parametrize("how", ["gone", "hanging"])
    def test_the_worker_looks_for_work_by_itself_and_keeps_its_lease(
        self, world: World, server: tuple[subprocess.Popen[bytes], str], how: str
    ) -> None:
        process, url = server
        settings = world.settings.with_overrides(broker_url=url)
        worker = Worker(settings, world.store, world.encoder, QUEUES)  # type: ignore[arg-type]
        worker.start()
        if how == "gone":
            process.kill()
        else:
            os.kill(process.pid, signal.SIGSTOP)
        world.ask(1)
        world.ask(2, queue=BATCH)
        world.store.jobs.add(TRAIN, [JobRequest("train", 1)])  # of a project that nobody knows
        expected = {1: State.DONE, 2: State.DONE, 0: State.FAILED}
        ages = []
        deadline = time.monotonic() + 15
        while states(world) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
            ages += [world.store.clock() - one.heartbeat_at for one in world.store.catalog.workers(60)]
        assert states(world) == expected
        assert max(ages) < 2.5
        worker.close()


class TestPlanned:
    def test_the_schedule_is_that_of_the_settings(self, world: World) -> None:
        settings = world.settings.with_overrides(sync_s=90, train_schedule="5 3 1 * 0")
        planned = beat_schedule(settings, QUEUES)
        assert planned["sync"] == {
            "task": ALL_PROJECTS,
            "args": ["learn", "sync"],
            "options": {"queue": "learn", "expires": 60},
            "schedule": schedule(90),
        }
        assert planned["train"]["args"] == ["train", "train"]
        assert planned["train"]["options"] == {"queue": "train", "expires": 60}
        assert planned["train"]["schedule"] == crontab("5", "3", "0", "1", "*")

    @pytest.mark.parametrize(
        ("sync_s", "train_schedule", "queues", "names"),
        [
            (90.0, "0 3 * * *", QUEUES, ["sync", "train"]),
            (0.0, "0 3 * * *", QUEUES, ["train"]),
            (90.0, "", QUEUES, ["sync"]),
            (90.0, "0 3 * * *", [TRAIN], ["train"]),  # what nobody here serves is for another worker to ask for
            (90.0, "0 3 * * *", [BATCH], []),
        ],
    )
    def test_nothing_is_planned_that_is_switched_off_or_served_elsewhere(
        self, world: World, sync_s: float, train_schedule: str, queues: list[str], names: list[str]
    ) -> None:
        settings = world.settings.with_overrides(sync_s=sync_s, train_schedule=train_schedule)
        assert sorted(beat_schedule(settings, queues)) == names

    def test_what_is_planned_is_asked_for_once_in_every_connected_project(self, world: World, worker: Worker) -> None:
        worker.ask_for_all(TRAIN, "train")
        assert world.store.jobs.newest() == []
        assert messages(world, TRAIN) == 0
        for project in (1, 2, 3):
            world.store.catalog.put_project(project, CHOICES, "v1")
        for project in (1, 3):
            world.store.catalog.set_connected(project)
        for _ in range(2):  # two workers' beats
            worker.ask_for_all(TRAIN, "train")
        assert sorted((job.kind, job.queue, job.project) for job in world.store.jobs.newest()) == [
            ("train", TRAIN, 1),
            ("train", TRAIN, 3),
        ]
        assert messages(world, TRAIN) > 0

    def test_a_worker_that_starts_looks_for_annotations_whose_event_was_lost(self, world: World) -> None:
        world.store.catalog.put_project(1, CHOICES, "v1")
        world.store.catalog.set_connected(1)
        for token, queues, kinds in (("", QUEUES, []), (TOKEN, [BATCH], []), (TOKEN, QUEUES, ["sync"])):
            settings = world.settings.with_overrides(
                label_studio_api_key=token, label_studio_url=f"http://127.0.0.1:{free_port()}"
            )
            worker = Worker(settings, Store.open(settings), world.encoder, queues)  # type: ignore[arg-type]
            worker.start()
            worker.close()
            assert [job.kind for job in world.store.jobs.newest()] == kinds
