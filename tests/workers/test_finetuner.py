"""Finetuner: a `train` job is a process of its own, and ends as a candidate with its verdict, or as one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from clapboard.cli import app
from clapboard.errors import InternalError, ModelError, NotFoundError, TrainingError
from clapboard.labels.label_config import parse_label_config
from clapboard.model.clap import ClapEncoder
from clapboard.model.htsat.openvino import save_float32_model
from clapboard.model.int8.calibration import Calibration, content_of
from clapboard.model.load import load_encoder
from clapboard.model.towers import probe_windows
from clapboard.project.serving import find_serving, has_checkpoint
from clapboard.queue.celery_app import TRAIN
from clapboard.settings import Settings, env_name
from clapboard.store import Store
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import Job, JobRequest, State
from clapboard.store.predictions import StoredPrediction
from clapboard.store.tasks import KnownTask
from clapboard.store.versions import Version
from clapboard.suggest.head import ControlHead, Head
from clapboard.suggest.prediction import space_id
from tests.support.audio_server import AudioServer, wav
from tests.support.fake_label_studio import CHOICES
from tests.support.processor import needs_int8
from tests.support.waiting import WAIT_S, wait_for
from training.finetuning.run import run as training_run
from training.finetuning.snapshot import remove_checkpoint
from training.finetuning.spec import Outcome, RunSpec
from workers.encoder_pool import announce_encoder
from workers.evidence import judged_before
from workers.finetuner import Finetuned, Finetuner
from workers.process import WorkerProcess

PROJECT = 7
LABELS = parse_label_config(CHOICES)
LEARNT, TEST = range(1, 25), range(31, 43)  # even ones are dogs


class Project:
    """A connected project with labelled clips, and a worker's part that trains on them."""

    def __init__(self, folder: Path, model: Path, audio: AudioServer, *, dtype: str = "auto") -> None:
        self.audio = audio
        self.settings = Settings(
            MODEL_DIR=folder,
            CLAPBOARD_MODEL=str(model),
            CLAPBOARD_ENGINE="auto" if dtype == "int8" else "torch",
            CLAPBOARD_DTYPE=dtype,
            CLAPBOARD_DEVICE="cpu",
            CLAPBOARD_TORCH_THREADS=1,
            CLAPBOARD_ALLOW_PRIVATE_URLS=True,
        )
        self.store = Store.open(self.settings)
        self.stopping = threading.Event()
        self.finetuner = Finetuner(self.settings, self.store, self.stopping)
        announce_encoder(self.store, load_encoder(self.settings, self.settings.model))
        self.store.catalog.put_project(PROJECT, CHOICES, "v0")
        self.store.catalog.set_connected(PROJECT, 0.3)
        self.add(*LEARNT)
        self.add(*TEST, held_out=True)

    def add(self, *tasks: int, held_out: bool = False, path: str = "{}/clip.wav") -> None:
        uris = {task: self.audio.url(path.format(task)) for task in tasks}
        known = [KnownTask(task, uri, f"key-{task}", f"tape {task}", held_out) for task, uri in uris.items()]
        self.store.tasks.put(PROJECT, known)

    def say(self, *tasks: int, bulk: bool = False, suggested: bool = False) -> None:
        """People label the tasks."""
        for task in tasks:
            label = "rain" if task % 2 else "dog"
            value = {"choices": [label]}
            result = {"id": "r", "from_name": "clip", "to_name": "audio", "type": "choices", "value": value}
            annotation = {"id": task, "task": task, "project": PROJECT, "result": [result], "completed_by": 1}
            annotation |= {"updated_at": "2026-11-22T12:00:00Z", "bulk_created": bulk}
            suggestion = {"model_version": "v1", "score": 0.5, "result": [result]}
            body = {"action": "ANNOTATION_CREATED", "annotation": annotation}
            self.store.inbox.append("ANNOTATION_CREATED", PROJECT, body, {str(task): suggestion} if suggested else None)

    def job(self) -> Job:
        self.store.jobs.add(TRAIN, [JobRequest("train", PROJECT)])
        (job,) = self.store.jobs.claim("worker", TRAIN, 1)
        return job

    def repetition(self, model_version: str) -> Job:
        for running in self.store.jobs.newest(project=PROJECT):
            self.store.jobs.done(running)
        self.store.jobs.add(TRAIN, [JobRequest("repeat", PROJECT, model_version=model_version)])
        (job,) = self.store.jobs.claim("worker", TRAIN, 1)
        return job

    def prepare(self, job: Job, **config: Any) -> dict[str, Any]:
        """The run as a worker that stopped at once left it, now with a quicker config; what it says."""
        self.stopping.set()
        assert self.finetuner.run(job) is None
        self.stopping.clear()
        file = self.folder(job) / "run.json"
        said: dict[str, Any] = json.loads(file.read_text("utf-8"))
        quick = {"epochs": 3, "num_views": 1, "min_steps": 1, "rung": "projection"}
        file.write_text(json.dumps(said | {"config": quick | config}), "utf-8")
        return said

    def folder(self, job: Job) -> Path:
        return self.settings.model_dir / "training" / f"{PROJECT}-{job.id}"

    def progress(self, job: Job) -> str:
        return str(self.store.jobs.get(job.id).progress)

    def version(self) -> str:
        """What serves."""
        return find_serving(self.store, self.settings.model, PROJECT, LABELS).model_version


@pytest.fixture(scope="module")
def audio() -> Iterator[AudioServer]:
    with AudioServer() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, tiny_clap: Path, audio: AudioServer) -> Iterator[Project]:
    project = Project(tmp_path, tiny_clap, audio)
    yield project
    project.store.close()


def during(work: Callable[[], Any], watch: Callable[[], None]) -> Any:
    """What `work` gives or raises in a thread of its own, while `watch` looks on."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        watch()
    finally:
        thread.join(WAIT_S)
    assert not thread.is_alive()
    return found[0]


def children() -> list[int]:
    listings = Path("/proc/self/task").glob("*/children")
    numbers = [int(number) for listing in listings for number in listing.read_text().split()]
    return [number for number in numbers if "training.finetuning.run" in Path(f"/proc/{number}/cmdline").read_text()]


def test_what_was_held_out_is_the_test_and_what_owes_to_a_suggestion_is_no_part_of_it(project: Project) -> None:
    project.say(*range(1, 9))
    project.say(*range(9, 13), bulk=True)
    project.say(*range(13, 17), suggested=True)
    project.say(*range(31, 37))
    project.say(37, 38, bulk=True)
    project.say(39, 40, suggested=True)
    project.say(99)  # a task that nobody knows
    project.add(17, path="missing/{}.wav")
    project.say(17)
    spec = project.prepare(project.job())
    clips = {clip["group"]: clip for clip in spec["clips"]}
    assert {group for group, clip in clips.items() if clip["is_test"]} == {f"tape {task}" for task in range(31, 37)}
    assert {group for group, clip in clips.items() if not clip["is_test"]} == {f"tape {task}" for task in range(1, 17)}
    assert {clips[f"tape {task}"]["weight"] for task in range(1, 9)} == {1.0}
    assert {clips[f"tape {task}"]["weight"] for task in range(9, 13)} == {0.3}
    assert clips["tape 2"]["targets"] == {"clip": ["dog"]}
    assert all(Path(clip["path"]).is_file() for clip in clips.values())
    assert (spec["label_config"], spec["base"], spec["served"]) == (CHOICES, project.settings.model, spec["base"])


def test_one_sound_under_two_addresses_lies_on_one_side_of_every_split(project: Project) -> None:
    project.add(2, path="1/again.wav")  # the sound of task 1
    project.add(4, path="31/again.wav")  # that of a held-out one, known only when it is fetched
    project.add(6, path="32/again.wav")  # and of one that is known to be
    project.add(8, path="33/again.wav")  # and of one that got a suggestion here before anybody could know
    project.add(34, path="35/again.wav", held_out=True)
    for task, sound in ((6, "b"), (32, "b"), (8, "c"), (33, "c")):
        recording = Recording(hashlib.sha256(wav(32 if sound == "b" else 33)).hexdigest(), 1, 0.5)
        project.store.embeddings.put_recording(f"key-{task}", recording)
    project.store.predictions.put_all([StoredPrediction(PROJECT, 8, "v1", "key-8", 0.5, [])], push=False)
    project.say(1, 2, 3, 4, 6, 8, *range(31, 37))
    spec = project.prepare(project.job())
    clips = [(clip["group"], Path(clip["path"]).stem, clip["is_test"]) for clip in spec["clips"]]
    learnt = {sound: group for group, sound, is_test in clips if not is_test}
    test = [(group, sound) for group, sound, is_test in clips if is_test]
    sounds = {number: hashlib.sha256(wav(number)).hexdigest() for number in (1, 31, 32, 33, 35, 36)}
    assert [sound for _, sound, is_test in clips if not is_test].count(sounds[1]) == 2  # tasks 1 and 2, one group
    assert len({group for group, sound, _ in clips if sound == sounds[1]}) == 1
    assert {sound for _, sound in test} == {sounds[number] for number in (31, 32, 35, 36)}  # 33 leaves the test
    assert sounds[32] not in learnt
    assert sounds[33] not in learnt
    assert learnt[sounds[31]] in {group for group, _ in test}  # and so `split_clips` leaves it out
    assert len({group for group, sound in test if sound == sounds[35]}) == 1  # tasks 34 and 35


def test_a_run_that_is_killed_goes_on_where_it_was_and_ends_as_a_judged_candidate(project: Project) -> None:
    project.say(*LEARNT, *TEST)
    before = project.version()
    job = project.job()
    project.prepare(job)

    def kill() -> None:
        wait_for(lambda: project.progress(job).startswith("epoch "), "no epoch ends", 240)
        (child,) = children()
        os.kill(child, signal.SIGKILL)

    died = during(lambda: project.finetuner.run(job), kill)
    assert isinstance(died, InternalError)
    assert "it was killed, perhaps for its memory" in str(died)
    assert died.retryable
    assert project.version() == before
    assert project.store.versions.of_project(PROJECT) == []

    told: list[str] = []
    saved = {file.name: file.stat().st_mtime_ns for file in project.folder(job).rglob("*") if file.is_file()}
    assert saved

    def watch() -> None:
        wait_for(lambda: told.append(project.progress(job)) or not project.folder(job).exists(), "it doesn't end", 240)

    found = during(lambda: project.finetuner.run(job), watch)
    assert isinstance(found, Finetuned), found
    epochs = [int(line.split()[1]) for line in told if line.startswith("epoch ")]
    assert epochs == sorted(epochs)  # it goes on behind what was told before the kill
    assert not any(line.startswith("listening") for line in told)
    check_candidate(project, job, found)
    assert project.version() == before
    check_repetition(project, found)


def check_candidate(project: Project, job: Job, found: Finetuned) -> None:
    """It is kept whole: checkpoint, head, verdict and all counts; and it can be loaded."""
    (version,) = project.store.versions.of_project(PROJECT)
    assert version.model_version == found.model_version
    assert version.promoted_at is None
    assert version.manifest["clips"] == {"learnt": len(LEARNT), "test": len(TEST)}
    assert (version.manifest["kind"], version.manifest["job"]) == ("finetuned", job.id)
    verdict = version.manifest["verdict"]
    assert (verdict["promote"], verdict["reason"]) == (found.promote, found.reason)
    assert verdict["reports"][0]["candidate"]["num_clips"] == len(LEARNT) + len(TEST)  # cross-fitted ones too
    assert (verdict["num_held_out"], verdict["num_folds"]) == (len(TEST), 3)
    assert {look: len(recordings[0]) for look, recordings in judged_before(project.store, PROJECT).items()} == {
        "held out": len(TEST),
        "all": len(LEARNT) + len(TEST),
    }
    encoder: ClapEncoder = load_encoder(project.settings, version.encoder)
    assert encoder.identity.version == version.encoder_version
    head = project.store.versions.head(version.encoder_version, version.space_id, version.head)
    assert head.controls[0].weights.shape == (2, encoder.identity.dim)
    assert version.space_id == space_id(LABELS)
    assert project.store.catalog.label_config(version.space_id) == CHOICES
    assert not project.folder(job).exists()


def check_repetition(project: Project, found: Finetuned) -> None:
    """Trained again from its snapshot, it has the same bytes and is put back; with other audio it is refused."""
    version = project.store.versions.get(PROJECT, found.model_version)
    weights = project.settings.model_dir / version.encoder / "model.safetensors"
    before = weights.read_bytes()
    remove_checkpoint(weights.parent)
    assert [file.name for file in weights.parent.iterdir()] == ["snapshot.json"]
    assert not has_checkpoint(project.settings, version.encoder)
    project.say(2)  # as a label given since, it changes nothing
    for running in project.store.jobs.newest(project=PROJECT):
        project.store.jobs.done(running)
    assert f"The repetition gave the weights of {version.model_version} again." in typed_repetition(project, version)
    assert weights.read_bytes() == before
    assert has_checkpoint(project.settings, version.encoder)
    assert [v.model_version for v in project.store.versions.of_project(PROJECT)] == [version.model_version]

    job = project.repetition(version.model_version)
    project.add(2, path="1/another.wav")
    with pytest.raises(TrainingError, match=r"1 recording \(of tasks 2\) can't be had any more, or changed"):
        project.finetuner.repeat(job)
    assert not project.folder(job).exists()


def typed_repetition(project: Project, version: Version) -> str:
    """What `clapboard train --repeat VERSION` says, as typed, while a worker of this process takes its job."""
    encoder = load_encoder(project.settings, project.settings.model)
    worker = WorkerProcess(project.settings, project.store, encoder, [TRAIN])
    worker.start()
    fields = ("model_dir", "model", "engine", "dtype", "device", "torch_threads", "allow_private_urls")
    env = {env_name(field): str(getattr(project.settings, field)) for field in fields}
    try:
        done = CliRunner().invoke(app, ["train", "-p", str(PROJECT), "--repeat", version.model_version], env=env)
    finally:
        worker.stop()
        worker.close()
    assert done.exit_code == 0, (done.output, done.exception)
    return " ".join(done.output.split())


def test_a_version_without_a_snapshot_cant_be_repeated(project: Project) -> None:
    encoder = Version(PROJECT, "mini-00.head.s1", "models/7/mini-tuned-1", "00", "head", "s1")
    project.store.versions.put(encoder)
    with pytest.raises(TrainingError, match=r"mini-00\.head\.s1 can't be repeated: it has no label snapshot"):
        project.finetuner.repeat(project.repetition("mini-00.head.s1"))


def test_a_worker_that_stops_takes_the_process_along_and_leaves_the_run_to_the_next(project: Project) -> None:
    project.say(*LEARNT, *TEST)
    job = project.job()
    project.prepare(job, epochs=500)

    def stop() -> None:
        wait_for(lambda: project.progress(job).startswith("epoch "), "no epoch ends", 240)
        project.stopping.set()

    assert during(lambda: project.finetuner.run(job), stop) is None
    assert children() == []
    assert (project.folder(job) / "run.json").exists()
    assert "of at most" in project.progress(job)
    assert "loss" in project.progress(job)


@needs_int8
def test_in_int8_a_candidate_is_calibrated_before_it_is_judged_and_serves_as_it_was(
    tmp_path: Path, tiny_clap: Path, audio: AudioServer
) -> None:
    """The base model's calibration is a stand-in in float32; the candidate's is real."""
    base = Settings(MODEL_DIR=tmp_path).calibration_dir(str(tiny_clap))
    stand_in(tiny_clap, base)
    project = Project(tmp_path, tiny_clap, audio, dtype="int8")
    project.say(*LEARNT, *TEST)
    job = project.job()
    project.prepare(job, epochs=1)
    folder = project.folder(job)
    outcome = training_run(RunSpec.model_validate_json((folder / "run.json").read_text("utf-8")), folder)
    assert outcome.verdict["reports"]
    (folder / "outcome.json").write_text(outcome.model_dump_json(), "utf-8")
    assert project.finetuner.run(job) is not None
    (version,) = project.store.versions.of_project(PROJECT)
    assert version.encoder_version == outcome.encoder_version
    dtype = load_encoder(project.settings, version.encoder).identity.dtype
    assert dtype.startswith("int8-")
    assert dtype != load_encoder(project.settings).identity.dtype
    shutil.rmtree(project.settings.calibration_dir(version.encoder))
    with pytest.raises(ModelError, match=r"has not been calibrated for int8: run `clapboard calibrate`"):
        load_encoder(project.settings, version.encoder)
    project.store.close()


def stand_in(model: Path, folder: Path) -> None:
    """A calibration that is none: the tower as it is."""
    encoder = load_encoder(Settings(CLAPBOARD_MODEL=str(model), CLAPBOARD_DEVICE="cpu", CLAPBOARD_ENGINE="torch"))
    folder.mkdir(parents=True)
    save_float32_model(encoder.model.audio_model.audio_encoder, folder / "built.xml")
    np.save(folder / "built.npy", encoder.log_mel(probe_windows()).numpy())
    content = content_of(folder / "built.xml")
    Calibration(encoder.identity.version, content, 16, 1.0, 1.0).publish(folder, folder / "built.xml")


@pytest.mark.parametrize("tasks", [[], [99]])
def test_without_any_label_there_is_nothing_to_train_on_and_nothing_is_left_behind(
    project: Project, tasks: list[int]
) -> None:
    project.say(*tasks)  # 99 is a task that nobody knows
    job = project.job()
    with pytest.raises(TrainingError, match="Project 7 has no labels to learn from yet"):
        project.finetuner.run(job)
    assert not project.folder(job).exists()


def test_what_the_process_says_against_it_is_the_jobs_reason_and_the_service_is_left_alone(project: Project) -> None:
    project.say(2, 4, 6, 8)
    before = project.version()
    job = project.job()
    project.prepare(job)
    spec = RunSpec.model_validate_json((project.folder(job) / "run.json").read_text("utf-8"))
    with pytest.raises(TrainingError) as too_few:  # in this process, for once
        training_run(spec, project.folder(job))
    outcome = Outcome(error=str(too_few.value))
    (project.folder(job) / "outcome.json").write_text(outcome.model_dump_json(), "utf-8")
    with pytest.raises(TrainingError, match=r"“dog” is the only label that clips have \(4\)"):
        project.finetuner.run(job)
    assert not project.folder(job).exists()
    assert project.version() == before
    assert project.store.versions.of_project(PROJECT) == []


def test_a_project_that_is_not_connected_is_not_trained(project: Project) -> None:
    project.store.catalog.put_project(8, CHOICES, "v0")
    project.store.jobs.add(TRAIN, [JobRequest("train", 8)])
    (job,) = project.store.jobs.claim("worker", TRAIN, 1)
    with pytest.raises(NotFoundError, match="`clapboard connect --project 8`"):
        project.finetuner.run(job)
    assert project.store.jobs.get(job.id).state == State.RUNNING


def test_a_judged_candidate_that_was_not_written_down_is_not_trained_again(project: Project, tiny_clap: Path) -> None:
    """As `kill -9` leaves it after the checkpoint was moved to its place."""
    project.say(*LEARNT)
    job = project.job()
    project.prepare(job)
    folder = project.folder(job)
    place = project.settings.model_dir / f"models/{PROJECT}/{tiny_clap.name}-tuned-{job.id}"
    place.parent.mkdir(parents=True)
    place.symlink_to(tiny_clap)
    outcome = {"promote": True, "reason": "It is better.", "verdict": {"promote": True, "reports": []}}
    (folder / "outcome.json").write_text(json.dumps(outcome), "utf-8")
    (folder / "head.npz").write_bytes(_head(project).to_bytes())
    found = project.finetuner.run(job)
    assert found == Finetuned(project.store.versions.of_project(PROJECT)[0].model_version, True, "It is better.")
    assert not folder.exists()


def _head(project: Project) -> Head:
    dim = load_encoder(project.settings, project.settings.model).identity.dim
    return Head((ControlHead(np.zeros(dim, np.float32), np.ones((2, dim), np.float32), np.zeros(2, np.float32)),))
