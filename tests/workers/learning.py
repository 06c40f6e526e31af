"""A project that people label: a store and a Label Studio side by side, and a worker's project jobs between them.

Recordings are embedded beforehand, as two heaps of sounds, and the labels' texts say nothing about either, so that
whatever is predicted right was learnt.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels.label_config import parse_label_config
from clapboard.model.clap import ClapEncoder
from clapboard.project.lock import ProjectLocks
from clapboard.project.serving import find_serving
from clapboard.queue.celery_app import LEARN
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import Job, JobRequest
from clapboard.store.tasks import KnownTask
from clapboard.store.versions import Version
from clapboard.suggest import prediction
from clapboard.suggest.head import ControlHead, Head
from clapboard.suggest.prediction import result_id, shown_name
from tests.support.fake_label_studio import CHOICES, TOKEN, FakeLabelStudio
from tests.workers.conftest import LABELS, CountingEncoder, no_checkpoint
from workers.canaries import Canaries
from workers.changed_suggestions import ChangedSuggestions
from workers.encoder_pool import EncoderPool
from workers.finetuner import Finetuner
from workers.head_cache import HeadCache
from workers.job_queue import JobQueue
from workers.label_studio_jobs import LabelStudioJobs
from workers.learning_jobs import LearningJobs
from workers.project_jobs import ProjectJobs
from workers.promote import Promoter
from workers.pruning import Pruner
from workers.push import Pusher
from workers.refit import Refitter
from workers.rollout import Rollout
from workers.rollout_pages import RolloutPages
from workers.rollout_plan import RolloutPlanner
from workers.search_jobs import SearchJobs
from workers.shown_version import ShownVersion
from workers.sweep import Sweeper

PROJECT = 7
BACKEND = "http://backend.example:9090"
ENCODER = CountingEncoder()


class Clock:
    """Stands still until a test moves it."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Waker:
    """Keeps the queues whose workers were woken."""

    def __init__(self) -> None:
        self.woken: list[str] = []

    def wake(self, queue: str) -> bool:
        self.woken.append(queue)
        return True


def tuned_encoder(name: str) -> ClapEncoder:
    """Any finetuned checkpoint: an encoder whose version follows from its name."""
    number = int(name.rpartition("-")[2])
    return CountingEncoder(version=f"{number:016x}", model=name)  # type: ignore[return-value]


class Learning:
    """A connected project with what a worker needs to learn from it. Opened anew, it is another process's view."""

    def __init__(
        self,
        folder: Path,
        label_studio: FakeLabelStudio,
        *,
        clock: Clock | None = None,
        load: Callable[[str], ClapEncoder] = no_checkpoint,
        store: Callable[[str, Clock], Store] = lambda url, clock: Store(url, clock=clock),
        client: Callable[[Settings], LabelStudioClient] = lambda settings: LabelStudioClient(settings, max_retries=0),
        **settings: Any,
    ) -> None:
        self.label_studio = label_studio
        self.clock = clock or Clock()
        self.label_studio_ahead_s = 0.0  # its clock before ours
        self.settings = Settings(
            **{
                "MODEL_DIR": folder,
                "CLAPBOARD_MODEL": "counting",
                "CLAPBOARD_URL": BACKEND,
                "LABEL_STUDIO_URL": label_studio.url,
                "LABEL_STUDIO_API_KEY": TOKEN,
                "CLAPBOARD_TRAIN_AFTER": "0",
                "CLAPBOARD_PRUNE_AFTER_S": "0",  # nobody has a page open
            }
            | settings
        )
        self.store = store(self.settings.database, self.clock)
        self.client = client(self.settings)
        self.sources = AudioSources(self.settings)
        self.waker = Waker()
        self.queue = JobQueue(self.store, self.waker)
        self.encoders = EncoderPool(ENCODER, load, capacity=4)  # type: ignore[arg-type]
        self.heads = HeadCache(self.store)
        self.pusher = Pusher(self.store, self.client, lease_s=30)
        self.locks = ProjectLocks(self.store, "a worker", self.settings.job_lease_s)
        shown = ShownVersion(self.settings, self.store, self.client)
        planner = RolloutPlanner(self.settings, self.store, self.encoders, self.heads, shown, self.client)
        pages, changed = (
            RolloutPages(self.store, self.waker, self.pusher),
            ChangedSuggestions(self.store, self.client, self.pusher),
        )
        self.rollout = Rollout(self.settings, self.store, self.locks, planner, pages, shown, changed)
        self.monotonic = Clock()  # by which a sweep's pace is measured
        self.sweeper = Sweeper(self.store, self.queue, planner, pages, changed, self.monotonic)
        self.pruner = Pruner(self.settings, self.store, self.locks, shown, self.client)
        self.canaries = Canaries(self.settings, self.store, self.encoders, self.heads, self.waker)
        self.refitter = Refitter(self.settings, self.store, self.encoders, self.heads, self.rollout, self.canaries)
        self.promoter = Promoter(self.settings, self.store, self.encoders, self.rollout)
        self.stopping = threading.Event()
        self.finetuner = Finetuner(self.settings, self.store, self.stopping)

    def introduce(self, label_config: str = CHOICES) -> None:
        """`clapboard connect`."""
        identity = ENCODER.identity
        encoder = Encoder(identity.model, identity.version, identity.dtype, identity.dim, identity.logit_scale)
        self.store.catalog.announce_encoder(encoder)
        self.label_studio.connect(PROJECT, BACKEND)
        self.configure(label_config)
        self.store.catalog.set_connected(PROJECT)
        self.label_studio.backends[PROJECT]["title"] = self.label_studio.shown[PROJECT] = shown_name(self.zero_shot)

    def configure(self, label_config: str) -> None:
        """Somebody saves the label config."""
        self.label_studio.label_config = label_config
        self.store.catalog.put_project(PROJECT, label_config, shown_name(self.version_of(label_config)))

    def add(self, tasks: dict[int, int], *, held_out: bool = False, embedded: bool = True) -> None:
        """Tasks, each with a recording of one of the two heaps of sounds."""
        known = []
        for task, heap in tasks.items():
            uri = _uri(task)
            key = self.sources.key(uri)
            known.append(KnownTask(task, uri, key, key, held_out))
            self.label_studio.add_tasks(PROJECT, {"id": task, "data": {"audio": uri}})
            if embedded:
                self.embed(task, heap)
        self.store.tasks.put(PROJECT, known)

    def embed(self, task: int, heap: int, encoder_version: str = ENCODER.identity.version) -> None:
        """What a worker does with the task's recording."""
        noise = np.random.default_rng(task).normal(scale=0.2, size=4)
        vector = (np.array([[1, 1, 0, 0], [1, -1, 0, 0], [1, 0, 1, 0]][heap]) + noise).astype(np.float32)
        vector /= np.linalg.norm(vector)
        self.store.embeddings.put_recording(self.sources.key(_uri(task)), Recording(f"{task:064}", 1, 1.0))
        self.store.embeddings.put(f"{task:064}", encoder_version, "float32", 0, vector[None])

    def finetuned(self, number: int, heaps: dict[int, int], *, passed: bool = True) -> Version:
        """A candidate with its checkpoint, its head and its verdict; its embeddings of the tasks are there too."""
        name = f"models/{PROJECT}/counting-tuned-{number}"
        folder = self.settings.model_dir / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"key": number}), "utf-8")
        identity = tuned_encoder(name).identity
        rows = np.array([[0, 1, 0, 0], [0, -1, 0, 0]], np.float32)
        head = Head((ControlHead(np.full(4, number / 100, np.float32), rows, np.zeros(2, np.float32)),))
        version = Version(
            PROJECT,
            prediction.model_version(identity, LABELS, head.name),
            name,
            identity.version,
            head.name,
            prediction.space_id(LABELS),
            manifest={"kind": "finetuned", "verdict": {"promote": passed, "reason": "because"}},
        )
        self.store.catalog.put_label_space(version.space_id, CHOICES)
        self.clock.now += 1
        self.store.versions.put(version, head)
        for task, heap in heaps.items():
            self.embed(task, heap, identity.version)
        return version

    def say(
        self, task: int, *labels: str, control: str = "clip", bulk: bool = False, by: int = 1, in_view: str = ""
    ) -> None:
        """Somebody labels the task, with a version's suggestion in view or none."""
        self.clock.now += 1
        number = 1000 * by + task
        said = {
            "id": number,
            "task": task,
            "project": PROJECT,
            "result": [_result(control, labels, result_id(control, in_view) if in_view else "r")],
            "parent_prediction": None,
            "completed_by": by,
            "lead_time": 0.5,
            "created_at": _moment(self.clock.now + self.label_studio_ahead_s),
            "updated_at": _moment(self.clock.now + self.label_studio_ahead_s),
            "bulk_created": bulk,
        }
        self.label_studio.annotations[number] = said
        body = {"action": "ANNOTATION_CREATED", "annotation": said, "project": {"id": PROJECT}}
        self.store.append_event("ANNOTATION_CREATED", PROJECT, body)

    def withdraw(self, *tasks: int) -> None:
        """Somebody deletes the tasks' annotations."""
        self.clock.now += 1
        body = {"annotations": [{"id": 1000 + task} for task in tasks], "project": {"id": PROJECT}}
        self.store.append_event("ANNOTATIONS_DELETED", PROJECT, {"action": "ANNOTATIONS_DELETED"} | body)
        for task in tasks:
            del self.label_studio.annotations[1000 + task]

    def work_off(self, queue: str, *, wait_s: float = 1000.0) -> list[Job]:
        """What a worker does with the queue, time passing meanwhile, until nothing is left; the jobs in their order."""
        ended: list[Job] = []
        for _ in range(50):
            jobs = self.store.jobs.claim("worker", queue, 1)
            if not jobs and not any(job.state == "queued" for job in self.jobs(queue)):
                self.pusher.push_owed()  # as a thread of the worker does
                return ended
            for job in jobs:
                self.project_jobs.run(job)
                ended.append(self.store.jobs.get(job.id))
            if not jobs:
                self.pusher.push_owed()  # as a thread of the worker does
                self.clock.now += wait_s
                self.store.jobs.requeue_lost(wait_s / 2)
        raise AssertionError(f"{queue} never gets empty: {self.jobs(queue)}")

    def ask(self, queue: str, kind: str, model_version: str = "") -> Job:
        """A claimed job for the project."""
        self.store.jobs.add(queue, [JobRequest(kind, PROJECT, model_version=model_version)])
        (job,) = (job for job in self.store.jobs.claim("worker", queue, 10) if job.kind == kind)
        return job

    def jobs(self, queue: str) -> list[Job]:
        return [job for job in self.store.jobs.newest(limit=1000) if job.queue == queue]

    @cached_property
    def project_jobs(self) -> ProjectJobs:
        runners = (self.refitter, self.promoter, self.pruner, self.finetuner, self.canaries)
        learning_jobs = LearningJobs(self.settings, self.store, self.client, self.queue, *runners)
        label_studio_jobs = LabelStudioJobs(self.settings, self.store, self.client, self.waker)
        search_jobs = SearchJobs(self.settings, self.store, AudioSources(self.settings), self.encoders)
        kinds = learning_jobs.kinds | label_studio_jobs.kinds
        kinds |= {"search": search_jobs.run, "sweep": self.sweeper.run}
        return ProjectJobs(self.store, self.queue, self.locks, kinds)

    @property
    def promoted(self) -> str:
        """The pointer."""
        version = self.store.versions.promoted(PROJECT)
        return version.model_version if version else ""

    @property
    def zero_shot(self) -> str:
        """The base model's version for the label config of now."""
        space = parse_label_config(self.store.catalog.project(PROJECT).label_config)
        return prediction.model_version(ENCODER.identity, space)

    def version_of(self, label_config: str) -> str:
        """What answers the label config."""
        return find_serving(self.store, "counting", PROJECT, parse_label_config(label_config)).model_version

    def answer(self, _project: int = PROJECT) -> str:
        """What the backend answers at `/setup`."""
        return shown_name(self.version_of(self.label_studio.label_config))

    def shown(self, model_version: str) -> dict[int, str]:
        """By task, what Label Studio shows under the version's name."""
        return {
            one["task"]: one["result"][0]["value"]["choices"][0]
            for one in self.label_studio.stored
            if one["model_version"] == shown_name(model_version)
        }

    def sweep_a_slice(self) -> None:
        """A worker's next step of bringing suggestions up to date, some time later."""
        self.clock.now += 100
        (job,) = (job for job in self.store.jobs.claim("sweeper", LEARN, 100) if job.kind == "sweep")
        self.project_jobs.run(job)

    def sweep(self) -> None:
        """All that waits to be brought up to date is, some time later."""
        for _ in range(50):
            jobs = [job for job in self.store.jobs.claim("sweeper", LEARN, 100) if job.kind == "sweep"]
            if not jobs:
                return
            self.project_jobs.run(jobs[0])
            self.clock.now += 100
        raise AssertionError("The sweep never comes to its end.")

    def close(self) -> None:
        """Give all back."""
        self.client.close()
        self.store.close()


def _uri(task: int) -> str:
    return f"https://host.example/{task}.wav"


def _result(control: str, labels: tuple[str, ...], number: str) -> dict[str, Any]:
    value = {"choices": list(labels)}
    return {"id": number, "from_name": control, "to_name": "audio", "type": "choices", "value": value}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
