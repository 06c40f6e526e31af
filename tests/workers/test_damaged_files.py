"""Damaged, joined and many-channelled files through a real backend and worker, and stores of earlier releases."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from clapboard.queue.celery_app import BATCH, PredictPayload
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import JobRequest, State
from clapboard.store.schema import recordings
from clapboard.suggest.head import ZERO_SHOT
from tests.support.damaged_recordings import noisy, with_hole, with_sizes, written
from tests.support.processes import Backend, Installation
from tests.support.recordings import sweep
from tests.workers.conftest import SPACE_ID, World
from workers.predict_jobs import PredictJobs

CONFIG = (
    '<View><Audio name="a" value="$audio"{channel}/><Choices name="c" toName="a"><Choice value="dog"/>'
    '<Choice value="rain"/></Choices></View>'
)


def uri(content: bytes) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(content).decode()}"


def task(number: int, content: bytes) -> dict[str, Any]:
    return {"id": number, "data": {"audio": uri(content)}}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, tiny_clap: Path) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("house"), tiny_clap, predict_wait_s=60) as house:
        yield house


@pytest.fixture(scope="module")
def backend(house: Installation) -> Backend:
    house.worker()
    return house.serve()


def results(backend: Backend, tasks: list[dict[str, Any]], *, channel: str = "", project: str = "1.1") -> list[Any]:
    said = f' channel="{channel}"' if channel else ""
    found: list[Any] = backend.results(CONFIG.format(channel=said), tasks, project=project)
    return found


def test_damage_is_told_beside_the_suggestion_and_what_is_no_audio_is_tried_once(
    house: Installation, backend: Backend
) -> None:
    holed = with_hole(written(sweep(12, 16_000), "MP3"))
    broken = [b"caff\0\1\0\0desc" + b"\xff" * 60, written(noisy(1), "W64")[:45] + b"\xff" * 80, b"\x30\x26\xb2\x75" * 9]
    found = results(backend, [task(1, holed), *(task(number, it) for number, it in enumerate(broken, 2))])
    assert found[0]["result"]
    assert found[1:] == [[], [], []]
    jobs = {job["task"]: job for job in house.jobs()}
    assert jobs[1]["state"] == "done"
    assert re.fullmatch(r"The recording is damaged: about [01]\.\d s of it can't be decoded\.", jobs[1]["error"])
    for number in (2, 3, 4):
        told = {name: jobs[number][name] for name in ("state", "error_code", "attempts")}
        assert told == {"state": "failed", "error_code": "audio", "attempts": 1}
    assert "is damaged" in " ".join(house.run("jobs").stdout.replace("│", " ").split())


def test_each_project_embeds_the_channel_that_its_label_config_names(house: Installation, backend: Backend) -> None:
    """One file, embedded apart for each choice."""
    content = written(np.stack([sweep(2, 16_000), 0.3 * noisy(2)], axis=1), "FLAC")
    heard = {
        channel: results(backend, [task(20 + number, content)], channel=channel, project=f"{2 + number}.1")[0]["score"]
        for number, channel in enumerate(("", "left", "right"))
    }
    alone = {
        channel: results(backend, [task(30 + index, written(samples, "FLAC"))], project="7.1")[0]["score"]
        for index, (channel, samples) in enumerate({"left": sweep(2, 16_000), "right": 0.3 * noisy(2)}.items())
    }
    assert heard["left"] == pytest.approx(alone["left"], abs=1e-3)
    assert heard["right"] == pytest.approx(alone["right"], abs=1e-3)
    assert len({round(score, 4) for score in heard.values()}) == 3
    assert backend.setup(CONFIG.format(channel=' channel="middle"')).status_code == 422


def test_files_on_disk_are_read_whole_and_their_damage_is_told(house: Installation) -> None:
    clips = {"joined.wav": written(noisy(12), "WAV") + written(sweep(12, 16_000), "WAV")}
    clips |= {"holed.mp3": with_hole(written(sweep(12, 16_000), "MP3"))}
    clips |= {"dead.wav": with_sizes(written(noisy(2), "WAV"), "WAV", lambda _: 0)}
    for name, content in clips.items():
        (house.folder / name).write_bytes(content)
    done = house.run("predict", *clips, "--labels", "dog,rain", "--json")
    joined, holed, dead = json.loads(done.stdout)
    assert done.returncode == 0
    assert "damage" not in joined
    assert "damage" not in dead
    assert "can't be decoded" in holed["damage"]
    assert (joined["duration_s"], dead["duration_s"]) == (24, 2)
    told = " ".join(house.run("predict", "holed.mp3", "--labels", "dog,rain").stderr.split())
    assert "holed.mp3 is damaged: about 1." in told


# Stores of earlier releases


@pytest.fixture
def predict_jobs(world: World) -> PredictJobs:
    return PredictJobs(world.store, world.stage, world.encoders, world.heads, on_owed=lambda: None)


def predict(world: World, predict_jobs: PredictJobs, number: int, content: bytes) -> Recording:
    key = world.sources.key(uri(content))
    payload = PredictPayload(
        uri=uri(content), uri_key=key, encoder="counting", space_id=SPACE_ID, head=ZERO_SHOT
    ).model_dump()
    world.store.jobs.add(BATCH, [JobRequest("predict", 1, number, world.version, payload)])
    predict_jobs.run(world.claimed(BATCH))
    assert {job.state for job in world.store.jobs.newest()} == {State.DONE}
    return world.store.embeddings.recordings([key])[key]


def as_an_earlier_release_left_it(world: World, content: bytes, found: Recording, num_windows: int) -> None:
    """The store's rows, had only so many windows been read."""
    duration_s = found.duration_s if num_windows == found.num_windows else 10.0 * num_windows
    old = {"num_windows": num_windows, "duration_s": duration_s, "damage": "", "reading": 0}
    with world.store.database.write() as connection:
        connection.execute(update(recordings).where(recordings.c.sha256 == found.sha256).values(old))


def test_what_an_earlier_release_read_in_part_is_embedded_anew(world: World, predict_jobs: PredictJobs) -> None:
    content = written(noisy(20), "WAV") + written(noisy(15, 1), "WAV")
    key = world.sources.key(uri(content))
    identity = world.encoder.identity
    right = predict(world, predict_jobs, 1, content)
    assert right.num_windows == 4
    vectors = world.store.embeddings.get([right], identity.version, identity.dtype)[right.sha256]
    as_an_earlier_release_left_it(world, content, right, 2)
    wrong = -vectors[:2]
    world.store.embeddings.forget(identity.version)
    world.store.embeddings.put(right.sha256, identity.version, identity.dtype, 0, wrong)
    first_id = world.store.embeddings.extent(identity.version, identity.dtype)
    held = world.prediction(1)
    with world.store.database.write() as connection:
        world.store.predictions.put(connection, [replace(held, task=2, score=0.1)], push=False)
    assert world.store.embeddings.recordings([key], only_read=True) == {}
    assert predict(world, predict_jobs, 3, content) == right
    found = world.store.embeddings.get([right], identity.version, identity.dtype)[right.sha256]
    np.testing.assert_array_equal(found, vectors)
    assert world.predicted(1, 2, 3) == [3]  # what was predicted from a part is gone
    assert world.store.embeddings.extent(identity.version, identity.dtype) != first_id


def test_what_an_earlier_release_read_whole_is_not_embedded_again(world: World, predict_jobs: PredictJobs) -> None:
    content = written(noisy(15), "WAV")[:-16_000]
    found = predict(world, predict_jobs, 1, content)
    as_an_earlier_release_left_it(world, content, found, found.num_windows)
    num_batches = len(world.encoder.batches)
    assert predict(world, predict_jobs, 2, content) == found  # with the damage that nobody told then
    assert found.damage
    assert len(world.encoder.batches) == num_batches
    assert world.predicted(1, 2) == [1, 2]


def test_where_both_channels_cancelled_each_other_an_earlier_release_heard_silence(
    world: World, predict_jobs: PredictJobs
) -> None:
    samples = noisy(5)
    content = written(np.stack([samples, -samples], axis=1), "WAV")
    found = predict(world, predict_jobs, 1, content)
    as_an_earlier_release_left_it(world, content, found, 1)
    num_batches = len(world.encoder.batches)
    assert predict(world, predict_jobs, 2, content) == found
    assert len(world.encoder.batches) == num_batches + 1
