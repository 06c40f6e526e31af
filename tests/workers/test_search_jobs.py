"""`search` jobs, with an encoder that follows the samples, and audio over HTTP."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clapboard.queue.celery_app import INTERACTIVE, SEARCH
from clapboard.sources import AudioSources
from clapboard.store.catalog import Encoder
from clapboard.store.jobs import Job, JobRequest
from clapboard.store.tasks import KnownTask
from tests.support.audio_server import wav
from tests.support.fake_label_studio import CHOICES
from tests.support.waiting import WAIT_S, wait_for
from tests.workers.conftest import CountingEncoder, World
from workers.predict_jobs import PredictJobs
from workers.process import WorkerProcess
from workers.search_jobs import SearchJobs

PROJECT = 1
TASKS = (1, 2, 3)
CLIP_S = 0.6  # doesn't fit a whole number of times into a quarter of a window, all of which would then be alike


@pytest.fixture
def world(world: World) -> World:
    """With a project whose tasks are embedded, by content of their own."""
    world.store.catalog.put_project(PROJECT, CHOICES, "v1")
    named = world.encoder.identity
    world.store.catalog.announce_encoder(Encoder(named.model, named.version, named.dtype, named.dim, named.logit_scale))
    return world


@pytest.fixture
def embedded(world: World) -> World:
    """The same, and the project's tasks are embedded."""
    embed(world, *TASKS)
    world.encoder.batches.clear()
    return world


def embed(world: World, *tasks: int) -> None:
    """The tasks become the project's, and embedded."""
    uris = {task: world.audio.url(f"{task}/clip.wav?s={CLIP_S}") for task in tasks}
    keys = {task: world.sources.key(uri) for task, uri in uris.items()}
    world.store.tasks.put(PROJECT, [KnownTask(task, uris[task], keys[task], keys[task], False) for task in tasks])
    world.ask(*tasks, path=f"{{}}/clip.wav?s={CLIP_S}")
    PredictJobs(world.store, world.stage, world.encoders, world.heads, on_owed=lambda: None).run(world.claimed())


@pytest.fixture
def searcher(world: World) -> SearchJobs:
    return SearchJobs(world.settings, world.store, world.sources, world.encoders)


def asked(world: World, **request: Any) -> Job:
    """A claimed job."""
    search = world.store.searches.ask(json.dumps({"project": PROJECT} | request))
    world.store.jobs.add(SEARCH, [JobRequest("search", PROJECT, model_version=search, payload={"search": search})])
    (job,) = world.claimed(SEARCH)
    return job


def answered(world: World, searcher: SearchJobs, **request: Any) -> dict[str, Any]:
    job = asked(world, **request)
    searcher.run(job)
    return dict(json.loads(world.store.searches.answer_to(job.payload["search"]) or ""))


def found(world: World, searcher: SearchJobs, **request: Any) -> list[int]:
    answer = answered(world, searcher, **request)
    assert "matches" in answer, answer
    return [one["task"] for one in answer["matches"]]


def data_uri(seed: int) -> str:
    return "data:audio/wav;base64," + base64.b64encode(wav(seed, CLIP_S)).decode()


class TestAnswers:
    def test_a_text_and_a_number_of_places(self, embedded: World, searcher: SearchJobs) -> None:
        job = asked(embedded, text="dog bark", top=2)
        assert searcher.run(job) == "2 places found."
        answer = json.loads(embedded.store.searches.answer_to(job.payload["search"]) or "")
        first, second = answer["matches"]
        assert first["score"] >= second["score"]
        assert list(first) == ["task", "start_s", "end_s", "best_s", "score", "audio", "url"]
        assert first["url"] == f"{embedded.settings.label_studio_url}/projects/1/data?task={first['task']}"
        assert (first["start_s"], first["end_s"]) == (0, CLIP_S)

    def test_a_task_isnt_among_what_is_like_it(self, embedded: World, searcher: SearchJobs) -> None:
        assert sorted(found(embedded, searcher, like=[{"task": 2}])) == [1, 3]
        assert embedded.encoder.batches == []  # its embedding is in the store

    @pytest.mark.parametrize("seed", TASKS)
    def test_an_address_and_a_data_uri_find_the_task_of_that_sound(
        self, embedded: World, searcher: SearchJobs, seed: int
    ) -> None:
        for audio in (embedded.audio.url(f"{seed}/another.wav?s={CLIP_S}"), data_uri(seed)):
            assert found(embedded, searcher, like=[{"audio": audio}])[0] == seed
            assert found(embedded, searcher, like=[{"audio": audio, "start_s": 0, "end_s": CLIP_S}])[0] == seed

    def test_what_was_embedded_isnt_embedded_again(self, embedded: World, searcher: SearchJobs) -> None:
        piece = {"audio": data_uri(1), "start_s": 0.1, "end_s": 0.4}
        first = answered(embedded, searcher, like=[piece])
        assert answered(embedded, searcher, like=[piece]) == first
        assert embedded.encoder.batches == [1]
        answered(embedded, searcher, like=[piece], not_like=[{"audio": data_uri(2)}])
        assert embedded.encoder.batches == [1, 1]

    def test_a_task_embedded_since_the_last_search_is_found(self, embedded: World, searcher: SearchJobs) -> None:
        assert len(found(embedded, searcher, text="rain")) == 3
        embed(embedded, 4)
        assert sorted(found(embedded, searcher, text="rain")) == [1, 2, 3, 4]

    def test_a_task_that_is_gone_isnt_found_until_it_is_back(self, embedded: World, searcher: SearchJobs) -> None:
        assert len(found(embedded, searcher, text="rain")) == 3
        known = embedded.store.tasks.get(PROJECT, [3])[3]
        embedded.store.tasks.forget(PROJECT, [3])
        assert sorted(found(embedded, searcher, text="rain")) == [1, 2]
        embedded.store.tasks.put(PROJECT, [known])
        assert len(found(embedded, searcher, text="rain")) == 3


class TestRefusals:
    def test_what_cant_be_answered_is_the_answer(self, embedded: World, searcher: SearchJobs) -> None:
        closed = "http://127.0.0.1:9/a.wav"
        for request, status, error, detail in (
            ({"like": [{"task": 9}]}, 404, "not_found", "Task 9 of project 1 isn't embedded"),
            ({"text": " "}, 422, "label_config", "empty"),
            ({"like": [{"audio": embedded.audio.url("corrupt/a.wav")}]}, 422, "audio", "The sound like[0] is no audio"),
            (
                {"like": [{"audio": data_uri(1), "start_s": 3, "end_s": 4}]},
                422,
                "audio",
                "is 0.6 s long: choose a piece that ends before that, not 3–4 s",
            ),
            (
                {"like": [{"task": 1}], "not_like": [{"task": 2}, {"audio": embedded.audio.url("corrupt/b.wav")}]},
                422,
                "audio",
                "The sound not_like[1] is no audio",
            ),
            ({"like": [{"audio": "data:audio/wav;base64,?"}]}, 422, "source", "isn't valid base64"),
            ({"like": [{"audio": closed}]}, 503, "source_unreachable", "connection"),
        ):
            answer = answered(embedded, searcher, **request)  # type: ignore[arg-type]
            assert (answer["status"], answer["error"]) == (status, error)
            assert detail in answer["detail"]

    def test_private_addresses_are_refused_unless_they_are_allowed(self, embedded: World) -> None:
        settings = embedded.settings.with_overrides(allow_private_urls=False)
        searcher = SearchJobs(settings, embedded.store, AudioSources(settings), embedded.encoders)
        answer = answered(embedded, searcher, like=[{"audio": embedded.audio.url("1/private.wav")}])
        assert (answer["status"], answer["error"]) == (422, "source_refused")
        assert not embedded.audio.requests["1/private.wav"]

    def test_a_worker_with_another_checkpoint_says_so(self, embedded: World, searcher: SearchJobs) -> None:
        embedded.store.catalog.announce_encoder(Encoder("counting", "feedfeedfeedfeed", "float32", 4, 10.0))
        (vector,) = embedded.store.embeddings.rows("0123456789abcdef", "float32", after=0, until=1 << 60, limit=1)
        embedded.store.embeddings.put(
            vector.sha256, "feedfeedfeedfeed", "float32", 0, np.frombuffer(vector.vector, "<f4")[None]
        )
        answer = answered(embedded, searcher, text="rain")
        assert (answer["status"], answer["error"]) == (500, "model")

    def test_nothing_is_done_for_who_has_gone(self, embedded: World, searcher: SearchJobs) -> None:
        job = asked(embedded, like=[{"audio": embedded.audio.url("8/clip.wav")}])
        embedded.store.searches.forget(job.payload["search"])
        assert searcher.run(job) == "Nobody waits for it any more."
        assert not embedded.audio.requests["8/clip.wav"]

    def test_sounds_stay_embedded_when_the_caller_goes_meanwhile(self, embedded: World, searcher: SearchJobs) -> None:
        sounds = [{"audio": data_uri(seed)} for seed in (1, 2, 3)]
        job = asked(embedded, like=sounds)

        class Leaving(CountingEncoder):
            """The caller goes while the first sound is embedded."""

            def embed_windows(self, waveforms: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
                embedded.store.searches.forget(job.payload["search"])
                return super().embed_windows(waveforms)

        embedded.encoders.base = Leaving()  # type: ignore[assignment]
        assert searcher.run(job) == "It can't be answered (busy)."
        embedded.encoders.base = embedded.encoder  # type: ignore[assignment]
        found(embedded, searcher, like=sounds)
        assert embedded.encoder.batches == [1, 1]  # the first one was remembered

    def test_nothing_more_is_fetched_for_who_has_gone(self, embedded: World, searcher: SearchJobs) -> None:
        job = asked(embedded, like=[{"audio": embedded.audio.url(f"{seed}/gone.wav")} for seed in (11, 12)])
        with embedded.audio.holding("11/gone.wav"):
            thread = threading.Thread(target=searcher.run, args=[job])
            thread.start()
            wait_for(lambda: embedded.audio.waiting["11/gone.wav"], "nothing was fetched")
            embedded.store.searches.forget(job.payload["search"])
        thread.join(WAIT_S)
        assert not embedded.audio.requests["12/gone.wav"]
        assert embedded.encoder.batches == []

    def test_no_fetch_takes_longer_than_anybody_waits(self, embedded: World) -> None:
        settings = embedded.settings.with_overrides(search_wait_s=0.3)
        searcher = SearchJobs(settings, embedded.store, embedded.sources, embedded.encoders)
        began = time.monotonic()
        with embedded.audio.holding("13/slow.wav"):
            answer = answered(embedded, searcher, like=[{"audio": embedded.audio.url("13/slow.wav")}])
        assert time.monotonic() - began < 5
        assert (answer["status"], answer["error"]) == (503, "source_unavailable")

    def test_it_holds_one_sound_on_disk_at_a_time(self, embedded: World, tmp_path: Path) -> None:
        settings = embedded.settings.with_overrides(cache_mb=0.03, model_dir=tmp_path / "other")  # room for one
        searcher = SearchJobs(settings, embedded.store, AudioSources(settings), embedded.encoders)
        sounds = [{"audio": embedded.audio.url(f"{seed}/big.wav?s={CLIP_S}")} for seed in range(20, 26)]
        found(embedded, searcher, like=sounds[:3], not_like=sounds[3:])
        kept = [path.stat().st_size for path in settings.audio_cache_dir.glob("[0-9a-f][0-9a-f]/*")]
        assert 0 < sum(kept) <= 30_000


class TestInTheWorker:
    @pytest.fixture
    def worker(self, embedded: World) -> Iterator[WorkerProcess]:
        worker = WorkerProcess(embedded.settings, embedded.store, embedded.encoder, [INTERACTIVE, SEARCH])  # type: ignore[arg-type]
        yield worker
        worker.close()

    def test_it_is_a_job_among_others(self, embedded: World, worker: WorkerProcess) -> None:
        search = embedded.store.searches.ask(json.dumps({"project": PROJECT, "text": "rain"}))
        payload = {"search": search}
        embedded.store.jobs.add(SEARCH, [JobRequest("search", PROJECT, model_version=search, payload=payload)])
        embedded.ask(5)
        worker.threads.drain(INTERACTIVE)
        worker.threads.drain(SEARCH)
        assert {job.kind: job.state.value for job in embedded.store.jobs.newest(limit=2)} == {
            "search": "done",
            "predict": "done",
        }
        assert len(json.loads(embedded.store.searches.answer_to(search) or "")["matches"]) == 3

    def test_searches_that_wait_for_audio_hold_up_no_prediction(self, embedded: World, worker: WorkerProcess) -> None:
        held = [f"{seed}/held.wav" for seed in (14, 15)]
        with embedded.audio.holding(*held):
            threads = []
            for path in held:
                request = {"project": PROJECT, "like": [{"audio": embedded.audio.url(path)}]}
                search = embedded.store.searches.ask(json.dumps(request))
                asked = JobRequest("search", PROJECT, model_version=search, payload={"search": search})
                embedded.store.jobs.add(SEARCH, [asked])
                threads.append(threading.Thread(target=worker.threads.drain, args=[SEARCH]))
                threads[-1].start()
            wait_for(lambda: all(embedded.audio.waiting[path] for path in held), "the searches aren't under way")
            (job,) = embedded.ask(5)
            worker.threads.drain(INTERACTIVE)
            assert embedded.store.jobs.get(job).state == "done"
        for thread in threads:
            thread.join(WAIT_S)

    def test_one_that_a_killed_worker_left_is_answered_by_another(self, embedded: World, worker: WorkerProcess) -> None:
        job = asked(embedded, text="rain")  # claimed by somebody who never comes back
        with embedded.store.database.write() as connection:
            connection.exec_driver_sql("UPDATE jobs SET heartbeat_at = 0 WHERE state = 'running'")
        embedded.store.jobs.requeue_lost(embedded.settings.job_lease_s)
        worker.threads.drain(SEARCH)
        assert embedded.store.searches.answer_to(job.payload["search"]) is not None
        assert embedded.store.jobs.get(job.id).state == "done"
