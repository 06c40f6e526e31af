"""PredictService: Label Studio's tasks → predictions, from the store at once, from the workers within a bound.

What isn't ready when the bound ends is answered with `[]`, the legal «not yet», and pushed through Label Studio's API
once it is. See `clapboard.store.predictions` for why each prediction arrives exactly once.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Self

from clapboard import prediction
from clapboard.errors import NoWorkerError, RequestError, SourceError
from clapboard.jobs import INTERACTIVE, Bell, CeleryBell, PredictPayload, make_celery
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.jobs import JobRequest
from clapboard.store.predictions import StoredPrediction

_FIRST_POLL_S, _LONGEST_POLL_S = 0.03, 0.3
_ENCODER_MEMORY_S = 1.0

parse = lru_cache(maxsize=256)(parse_label_config)


@dataclass(frozen=True)
class PredictAnswer:
    """The answer to `/predict`: one entry per task, each a prediction or the empty list."""

    model_version: str
    results: list[dict[str, Any] | list[Any]]


@dataclass
class OpenRequest:
    """A `/predict` that is being answered."""

    project: int
    model_version: str
    began_at: float
    tasks: list[int | None]  # None: nothing can be said about this one
    uris: dict[int, tuple[str, str]] = field(default_factory=dict)  # of each task, with its key
    waiting_for: list[int] = field(default_factory=list)  # jobs

    @cached_property
    def keys(self) -> dict[int, str]:
        """The URI key of each task that can be predicted, once all are admitted."""
        return {task: key for task, (_, key) in self.uris.items()}


class PredictService:
    """Answers for one CLAPBOARD_MODEL. Thread-safe; holds no more than a memory of the announced encoder."""

    def __init__(self, store: Store, sources: AudioSources, bell: Bell, *, model: str, wait_s: float) -> None:
        self._store = store
        self._sources = sources
        self._bell = bell
        self._model = model
        self.wait_s = wait_s
        self._encoder: Encoder | None = None
        self._encoder_read_at = -math.inf
        self._versions: dict[int, str] = {}
        self._introduced: deque[tuple[int, str, str]] = deque()
        self._remembering = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The service on the store and the broker that the settings name."""
        return cls(
            Store.open(settings),
            AudioSources(settings),
            CeleryBell(make_celery(settings)),
            model=settings.model,
            wait_s=settings.predict_wait_s,
        )

    def setup(self, project: str, schema: str) -> str:
        """The model version that answers the project's label config. Raises `LabelConfigError`, `NoWorkerError`."""
        number = project_id(project)
        version = prediction.model_version(self.encoder(), parse(schema))
        if number and self._versions.get(number) != version:
            self._versions[number] = version
            self._introduced.append((number, schema, version))
        return version

    def remember_projects(self) -> None:
        """Write down the projects that introduced themselves, and have connected ones aligned to a new version.

        Apart from `setup`, which answers from memory: Label Studio waits 3 s for it, and a disk may take longer.
        """
        with self._remembering:
            while self._introduced:
                number, schema, version = self._introduced[0]
                self._store.catalog.put_project(number, schema, version)
                if self._store.catalog.project(number).connected:
                    self._store.jobs.add(INTERACTIVE, [JobRequest("align", number, model_version=version)])
                    self._bell.ring(INTERACTIVE)
                self._introduced.popleft()

    def predict(self, tasks: Sequence[Mapping[str, Any]], label_config: str, project: str | None) -> PredictAnswer:
        """The answer, waited for as long as the service may. Raises `LabelConfigError`, `NoWorkerError`."""
        request = self.begin(tasks, label_config, project)
        while not self.is_ready(request) and self._store.clock() < self.deadline(request):
            time.sleep(pause_s(self._store.clock() - request.began_at))
        return self.finish(request)

    def begin(self, tasks: Sequence[Mapping[str, Any]], label_config: str, project: str | None) -> OpenRequest:
        """Find what is cached and queue what is missing."""
        self.refresh_encoder()
        label_space, encoder = parse(label_config), self.encoder()
        version = prediction.model_version(encoder, label_space)
        request = OpenRequest(project_id(project), version, self._store.clock(), [])
        if not label_space.predicted:
            request.tasks = [None] * len(tasks)
            return request
        for task in tasks:
            request.tasks.append(self._admit(request, task, label_space))
        missing = request.uris.keys() - self._store.predictions.cached(request.project, request.keys, version)
        missing -= self._score_cached_embeddings(request, missing, label_space, encoder)
        if missing:
            self._queue(request, missing, label_config, label_space)
        return request

    def is_ready(self, request: OpenRequest) -> bool:
        """Whether no job of the request is open any more."""
        if request.waiting_for:
            open_ids = self._store.jobs.open_ids(request.waiting_for)
            request.waiting_for = [job_id for job_id in request.waiting_for if job_id in open_ids]
        return not request.waiting_for

    def deadline(self, request: OpenRequest) -> float:
        """When the request is answered whatever is missing, in seconds since 1970."""
        return request.began_at + self.wait_s

    def finish(self, request: OpenRequest) -> PredictAnswer:
        """The answer as it stands now; what it lacks and is still being computed will be pushed."""
        self._owe_what_is_open(request)
        taken = self._store.predictions.take_for_answer(
            request.project, request.keys, request.model_version, since=request.began_at
        )
        results: list[dict[str, Any] | list[Any]] = []
        for task in request.tasks:
            # A task named twice in one request is answered once: Label Studio would store it twice.
            found = taken.pop(task, None) if task is not None else None
            results.append(found.as_json() if found else [])
        return PredictAnswer(request.model_version, results)

    def abandon(self, request: OpenRequest) -> PredictAnswer:
        """An answer that nobody hears any more, and so without predictions: those to come will be pushed."""
        self._owe_what_is_open(request)
        return PredictAnswer(request.model_version, [[] for _ in request.tasks])

    def refresh_encoder(self) -> None:
        """Look which encoder the workers serve, unless that was done within a second."""
        now = time.monotonic()
        if now - self._encoder_read_at > _ENCODER_MEMORY_S:
            self._encoder = self._store.catalog.encoder(self._model)
            self._encoder_read_at = now

    def encoder(self) -> Encoder:
        """The encoder that workers serve, from memory. Raises `NoWorkerError` before the first worker is up."""
        if self._encoder is None:
            self.refresh_encoder()
        if self._encoder is None:
            raise NoWorkerError(
                f"No worker has loaded the model {self._model} yet: start one with `clapboard worker` (or use "
                "`clapboard up`), with the same CLAPBOARD_MODEL and store as this backend."
            )
        return self._encoder

    def _owe_what_is_open(self, request: OpenRequest) -> None:
        if request.waiting_for:
            self._store.jobs.owe_push(request.project, list(request.uris), request.model_version)

    def _admit(self, request: OpenRequest, task: Mapping[str, Any], label_space: LabelSpace) -> int | None:
        """The task's id, its URI noted; or None, with the reason kept, if it can't be predicted."""
        number = task.get("id")
        data = task.get("data")
        task_id = number if isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**63 else None
        try:
            uri = label_space.audio_uri(data if isinstance(data, Mapping) else {})
            key = self._sources.key(uri)
        except SourceError as error:
            if task_id is not None:
                refused = JobRequest("predict", request.project, task_id, request.model_version)
                self._store.jobs.record_failure(INTERACTIVE, refused, error)
            return None
        if _has_prediction(task, request.model_version):
            return None  # Label Studio holds it already; a second one would be a duplicate
        if task_id is None:
            task_id = _made_up_id(key)
        request.uris[task_id] = uri, key
        return task_id

    def _score_cached_embeddings(
        self, request: OpenRequest, tasks: Set[int], label_space: LabelSpace, encoder: Encoder
    ) -> set[int]:
        """Those of the tasks whose embeddings and class weights are there, now scored and stored."""
        weights = self._store.catalog.class_weights(encoder.version, prediction.head_id(label_space)) if tasks else None
        if weights is None:
            return set()
        keys = {task: request.keys[task] for task in tasks}
        recordings = self._store.embeddings.recordings(list(keys.values()))
        vectors = self._store.embeddings.get(list(recordings.values()), encoder.version, encoder.dtype)
        scored = []
        for task, key in keys.items():
            if key in recordings and recordings[key].sha256 in vectors:
                found = prediction.predict(label_space, vectors[recordings[key].sha256], weights, encoder.logit_scale)
                scored.append(
                    StoredPrediction(request.project, task, request.model_version, key, found.score, found.result)
                )
        self._store.predictions.put_ready(scored)
        return {done.task for done in scored}

    def _queue(self, request: OpenRequest, tasks: Set[int], label_config: str, label_space: LabelSpace) -> None:
        head_id = prediction.head_id(label_space)
        self._store.catalog.put_label_space(head_id, label_config)
        requests = [
            JobRequest(
                "predict",
                request.project,
                task,
                request.model_version,
                PredictPayload(uri=uri, uri_key=key, head_id=head_id).model_dump(),
            )
            for task, (uri, key) in request.uris.items()
            if task in tasks
        ]
        request.waiting_for = self._store.jobs.add(INTERACTIVE, requests)
        self._bell.ring(INTERACTIVE)


def pause_s(waited_s: float) -> float:
    """How long to pause before looking again: little at first, then a tenth of the wait, so that many can wait."""
    return min(_LONGEST_POLL_S, max(_FIRST_POLL_S, waited_s / 10))


def project_id(project: str | int | None) -> int:
    """Label Studio's project number from `«id».«timestamp»`, a plain id, or nothing (0)."""
    head = str(project or "0").partition(".")[0]
    if not head.isascii() or not head.isdigit() or len(head) > 18:
        raise RequestError("The request's project is no Label Studio project: it must look like 2 or 2.1795338111.")
    return int(head)


def _has_prediction(task: Mapping[str, Any], model_version: str) -> bool:
    held = task.get("predictions")
    return isinstance(held, list) and any(
        isinstance(one, Mapping) and one.get("model_version") == model_version for one in held
    )


def _made_up_id(uri_key: str) -> int:
    """A negative id for a task that has none, as callers other than Label Studio send: the same audio, the same id."""
    return -int(hashlib.sha256(uri_key.encode()).hexdigest()[:13], 16)
