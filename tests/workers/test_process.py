"""The worker inside a process: wake-ups, turns, leases and stopping, with an encoder that needs no torch."""

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

from clapboard.queue.celery_app import BATCH, INTERACTIVE, QUEUES, TRAIN, make_celery
from clapboard.store.jobs import Job, JobRequest, State
from tests.support.programs import free_port, needs_program
from tests.support.waiting import WAIT_S, wait_for
from tests.workers.conftest import World
from workers.process import WorkerProcess


@pytest.fixture
def worker(world: World) -> Iterator[WorkerProcess]:
    """A worker that nothing wakes, since no Celery runs: the test calls `drain`."""
    worker = WorkerProcess(world.settings, world.store, world.encoder, QUEUES)  # type: ignore[arg-type]
    yield worker
    worker.close()


def states(world: World) -> dict[int, State]:
    return {job.task: job.state for job in world.store.jobs.newest(limit=1000)}


def messages(world: World, queue: str) -> int:
    with make_celery(world.settings).connection() as connection:
        return int(connection.default_channel._size(queue))


class TestDraining:
    def test_a_wake_up_empties_its_queue_over_many_batches_and_touches_no_other(
        self, world: World, worker: WorkerProcess
    ) -> None:
        world.ask(*range(1, 41))
        world.ask(41, queue=BATCH)
        worker.threads.drain(INTERACTIVE)
        assert states(world) == dict.fromkeys(range(1, 41), State.DONE) | {41: State.QUEUED}

    def test_two_threads_at_most_do_batch_work_while_interactive_work_still_runs(
        self, world: World, worker: WorkerProcess
    ) -> None:
        held = [f"{task}/clip.wav" for task in (1, 2, 3)]
        with world.audio.holding(*held):
            threads = []
            for task in (1, 2, 3):
                world.ask(task, queue=BATCH)
                threads.append(threading.Thread(target=worker.threads.drain, args=[BATCH]))
                threads[-1].start()
                wait_for(lambda t=task: t == 3 or world.audio.waiting[f"{t}/clip.wav"], "no thread took the job")
            threads[2].join(WAIT_S)
            assert not threads[2].is_alive()
            assert states(world) == {1: State.RUNNING, 2: State.RUNNING, 3: State.QUEUED}
            world.ask(9)
            worker.threads.drain(INTERACTIVE)
            assert states(world)[9] == State.DONE
        for thread in threads:
            thread.join(WAIT_S)
        assert set(states(world).values()) == {State.DONE}

    def test_a_thread_takes_no_project_job_that_it_cannot_begin_at_once(
        self, world: World, worker: WorkerProcess
    ) -> None:
        began, go_on = threading.Event(), threading.Event()

        def linger(job: Job) -> str:
            if job.project == 1:
                began.set()
                go_on.wait(WAIT_S)
            return "done"

        worker.jobs._project_jobs._kinds = {"prelabel": linger}  # type: ignore[assignment]
        first, second = world.store.jobs.add(BATCH, [JobRequest("prelabel", project) for project in (1, 2)])
        thread = threading.Thread(target=worker.threads.drain, args=[BATCH])
        thread.start()
        assert began.wait(WAIT_S)
        worker.threads.drain(BATCH)
        assert world.store.jobs.get(second).state == State.DONE
        go_on.set()
        thread.join(WAIT_S)
        assert world.store.jobs.get(first).state == State.DONE

    def test_a_wake_up_without_work_does_nothing(self, world: World, worker: WorkerProcess) -> None:
        for queue in QUEUES:
            worker.threads.drain(queue)
        assert world.encoder.batches == []

    def test_jobs_of_a_dropped_batch_are_tried_again(self, world: World, worker: WorkerProcess) -> None:
        world.ask(1, 2)
        worker.start()
        with world.store.database.write() as connection:
            refusal = "BEFORE INSERT ON {} BEGIN SELECT RAISE(ABORT, 't0ken'); END"
            connection.exec_driver_sql(f"CREATE TRIGGER a {refusal.format('recordings')}")
        worker.threads.drain(INTERACTIVE)
        assert set(states(world).values()) <= {State.RUNNING, State.QUEUED}
        with world.store.database.write() as connection:
            connection.exec_driver_sql("DROP TRIGGER a")
        wait_for(lambda: set(states(world).values()) == {State.QUEUED}, "the jobs stay with a worker that dropped them")
        with world.store.database.write() as connection:
            connection.exec_driver_sql("UPDATE jobs SET not_before = 0")
        worker.threads.drain(INTERACTIVE)
        assert set(states(world).values()) == {State.DONE}


class TestEverySecond:
    def test_it_is_alive_and_has_announced_its_encoder(self, world: World, worker: WorkerProcess) -> None:
        worker.start()
        found = world.store.catalog.encoder("counting")
        assert found is not None
        assert found.version == world.encoder.identity.version
        (alive,) = wait_for(lambda: world.store.catalog.workers(5), "the worker says nothing")
        assert alive.computing == world.encoder.computing
        assert (alive.name, alive.model, alive.device) == (worker.name, "counting", "cpu")
        assert alive.queues == "interactive,search,learn,batch,train"

    def test_jobs_whose_wake_up_got_lost_are_found(self, world: World, worker: WorkerProcess) -> None:
        worker.start()
        world.ask(1)
        world.ask(2, queue=BATCH)
        wait_for(lambda: states(world) == {1: State.DONE, 2: State.DONE}, "nobody looked for jobs")

    def test_jobs_are_found_while_one_thread_is_held_up_in_the_same_queue(
        self, world: World, worker: WorkerProcess
    ) -> None:
        worker.start()
        world.ask(1)
        with world.audio.holding("1/clip.wav"):
            wait_for(lambda: world.audio.waiting["1/clip.wav"], "nobody asked for the clip")
            world.ask(2)
            wait_for(lambda: states(world) == {1: State.RUNNING, 2: State.DONE}, "the other thread has nothing to do")

    def test_the_thread_that_takes_a_wake_up_is_free_for_the_next_one(
        self, world: World, worker: WorkerProcess
    ) -> None:
        world.ask(1)
        world.ask(2, queue=BATCH)
        with world.audio.holding("1/clip.wav"):
            worker.threads.wake(INTERACTIVE)
            worker.threads.wake(BATCH)
            wait_for(lambda: states(world)[2] == State.DONE, "the first queue's work holds up the second one's wake-up")
        wait_for(lambda: states(world)[1] == State.DONE, "the job isn't done")

    def test_what_is_older_than_it_is_to_be_kept_goes(self, world: World, worker: WorkerProcess) -> None:
        world.ask(1, 2)
        worker.threads.drain(INTERACTIVE)
        with world.store.database.write() as connection:
            connection.exec_driver_sql("UPDATE jobs SET finished_at = 1.7e9 WHERE task = 1")
        worker.start()
        wait_for(lambda: states(world) == {2: State.DONE}, "nobody looks for old jobs")

    def test_the_jobs_of_a_worker_that_fell_silent_are_queued_again(self, world: World, worker: WorkerProcess) -> None:
        world.ask(1)
        world.claimed()
        worker.start()
        wait_for(lambda: states(world) == {1: State.DONE}, "the job stays with the silent worker")

    def test_a_worker_that_signed_off_is_gone_for_good(self, world: World, worker: WorkerProcess) -> None:
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
        self, world: World, worker: WorkerProcess
    ) -> None:
        world.ask(1)
        worker.start()
        with world.audio.holding("1/clip.wav"):
            thread = threading.Thread(target=worker.threads.drain, args=[INTERACTIVE])
            thread.start()
            wait_for(lambda: world.audio.waiting["1/clip.wav"], "nobody asked for the clip")
            world.ask(2)
            worker.stop()
            time.sleep(2.5)  # longer than the lease of 1 s
            assert world.store.jobs.requeue_lost(world.settings.job_lease_s) == set()
        thread.join(WAIT_S)
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
        worker = WorkerProcess(settings, world.store, world.encoder, QUEUES)  # type: ignore[arg-type]
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
        deadline = time.monotonic() + WAIT_S
        while states(world) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
            ages += [world.store.clock() - one.heartbeat_at for one in world.store.catalog.workers(60)]
        assert states(world) == expected
        assert max(ages) < 2.5
        worker.close()
