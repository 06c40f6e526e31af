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
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

from backend.answer import OpenRequest, PredictAnswer
from clapboard import prediction
from clapboard.errors import NotFoundError, RequestError, SourceError
from clapboard.head import Head
from clapboard.jobs import INTERACTIVE, LEARN, Bell, CeleryBell, make_celery
from clapboard.known_tasks import TaskReader
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.prelabel import predict_request
from clapboard.serving import Serving, base_encoder, serving, stored_head
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder, Project
from clapboard.store.jobs import JobRequest
from clapboard.store.predictions import StoredPrediction
from clapboard.store.versions import Version

_FIRST_POLL_S, _LONGEST_POLL_S = 0.03, 0.3
_MEMORY_S = 1.0

parse = lru_cache(maxsize=256)(parse_label_config)


@dataclass(frozen=True)
class _Directory:
    """What answers whom, as the store said it a moment ago."""

    base: Encoder
    encoders: Mapping[str, Encoder]
    promoted: Mapping[int, Version]
    connected: Mapping[int, Project]


class PredictService:
    """Answers for one CLAPBOARD_MODEL. Thread-safe; holds no more than a memory of what is promoted."""

    def __init__(self, settings: Settings, store: Store, bell: Bell) -> None:
        self.wait_s = settings.predict_wait_s
        self._settings = settings
        self._store = store
        self._sources = AudioSources(settings)
        self._bell = bell
        self._directory: _Directory | None = None
        self._directory_read_at = -math.inf
        self._versions: dict[int, str] = {}
        self._introduced: deque[tuple[int, str, str]] = deque()
        self._remembering = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The service on the store and the broker that the settings name."""
        return cls(settings, Store.open(settings), CeleryBell(make_celery(settings)))

    def setup(self, project: str, schema: str) -> str:
        """The model version that answers the project's label config. Raises `LabelConfigError`, `NoWorkerError`."""
        number = project_id(project)
        version = self._serving(number, parse(schema)).model_version
        if number and self._versions.get(number) != version:
            self._versions[number] = version
            self._introduced.append((number, schema, version))
        return version

    def remember_projects(self) -> None:
        """Write down the projects that introduced themselves, and have connected ones learn and align.

        Apart from `setup`, which answers from memory: Label Studio waits 3 s for it, and a disk may take longer.
        """
        with self._remembering:
            while self._introduced:
                number, schema, version = self._introduced[0]
                known = self._store.catalog.connected_projects().get(number)
                self._store.catalog.put_project(number, schema, version)
                if known and (known.label_config, known.model_version) != (schema, version):
                    # Labels that people gave before hold for a new label config too, as far as it has them.
                    self._store.jobs.add(LEARN, [JobRequest("learn", number)])
                    self._store.jobs.add(LEARN, [JobRequest("align", number)])
                    self._bell.ring(LEARN)
                self._introduced.popleft()

    def predict(self, tasks: Sequence[Mapping[str, Any]], label_config: str, project: str | None) -> PredictAnswer:
        """The answer, waited for as long as the service may. Raises `LabelConfigError`, `NoWorkerError`."""
        asked = self.ask(tasks, label_config, project)
        if isinstance(asked, PredictAnswer):
            return asked
        while not self.is_ready(asked) and self._store.clock() < self.deadline(asked):
            time.sleep(pause_s(self._store.clock() - asked.began_at))
        return self.finish(asked)

    def ask(
        self, tasks: Sequence[Mapping[str, Any]], label_config: str, project: str | None
    ) -> PredictAnswer | OpenRequest:
        """The answer if all of it is cached, in one transaction; else the request, begun."""
        label_space = parse(label_config)
        request = self._admitted(tasks, label_space, project)
        taken = self._store.predictions.take_for_answer(
            request.project, request.keys, request.model_version, since=request.began_at, all_or_none=True
        )
        if len(taken) == len(request.keys):
            return request.answer(taken)
        self._seek(request, label_space, label_config)
        return request

    def begin(self, tasks: Sequence[Mapping[str, Any]], label_config: str, project: str | None) -> OpenRequest:
        """Find what is cached and queue what is missing."""
        label_space = parse(label_config)
        request = self._admitted(tasks, label_space, project)
        self._seek(request, label_space, label_config)
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
        return request.answer(taken)

    def abandon(self, request: OpenRequest) -> PredictAnswer:
        """An answer that nobody hears any more, and so without predictions: those to come will be pushed."""
        self._owe_what_is_open(request)
        return request.answer({})

    def refresh(self, *, at_once: bool = False) -> None:
        """Look what is promoted and which encoders the workers serve, unless that was done within a second."""
        now = time.monotonic()
        if at_once or now - self._directory_read_at > _MEMORY_S:
            self._directory = _Directory(
                base_encoder(self._store, self._settings.model),
                self._store.catalog.encoders(),
                self._store.versions.all_promoted(),
                self._store.catalog.connected_projects(),
            )
            self._directory_read_at = now

    def _read(self) -> _Directory:
        """What is promoted, from memory. Raises `NoWorkerError` before the first worker is up."""
        if self._directory is None:
            self.refresh()
        assert self._directory is not None
        return self._directory

    def _serving(self, project: int, label_space: LabelSpace) -> Serving:
        directory = self._read()
        return serving(label_space, directory.base, directory.promoted.get(project), directory.encoders)

    def _owe_what_is_open(self, request: OpenRequest) -> None:
        if request.waiting_for:
            self._store.jobs.owe_push(request.project, list(request.known), request.model_version)

    def _admitted(
        self, tasks: Sequence[Mapping[str, Any]], label_space: LabelSpace, project: str | None
    ) -> OpenRequest:
        self.refresh()
        number = project_id(project)
        request = OpenRequest(number, self._serving(number, label_space), self._store.clock(), [])
        if not label_space.predicted:
            request.tasks = [None] * len(tasks)
            return request
        known = self._read().connected.get(number)
        reader = TaskReader(self._settings, self._sources, number, known.test_share if known else 0.0)
        request.tasks = [self._admit(request, task, label_space, reader) for task in tasks]
        return request

    def _seek(self, request: OpenRequest, label_space: LabelSpace, label_config: str) -> None:
        """Score or queue what isn't cached."""
        cached = self._store.predictions.cached(request.project, request.keys, request.model_version)
        missing = request.keys.keys() - cached
        if request.project in self._read().connected:
            self._store.tasks.put(request.project, [request.known[task] for task in missing])
        missing -= self._score_cached_embeddings(request, missing, label_space)
        if missing:
            self._queue(request, missing, label_config)

    def _admit(
        self, request: OpenRequest, task: Mapping[str, Any], label_space: LabelSpace, reader: TaskReader
    ) -> int | None:
        """The task's id, where its audio lies noted; or None if it can't be predicted, or must not be."""
        number = task.get("id")
        data = task.get("data")
        task_id = number if isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**63 else None
        try:
            known = reader.read(label_space, task_id or 0, data if isinstance(data, Mapping) else {})
        except SourceError as error:
            if task_id is not None:
                refused = JobRequest("predict", request.project, task_id, request.model_version)
                self._store.jobs.record_failure(INTERACTIVE, refused, error)
            return None
        if known.set_aside:  # a label is to be given without a suggestion in sight
            self._store.tasks.put(request.project, [known])
            return None
        if _has_prediction(task, request.model_version):
            return None  # Label Studio holds it already; a second one would be a duplicate
        if task_id is None:
            task_id = _made_up_id(known.uri_key)
            known = replace(known, task=task_id)
        request.known[task_id] = known
        return task_id

    def _score_cached_embeddings(self, request: OpenRequest, tasks: Set[int], label_space: LabelSpace) -> set[int]:
        """Those of the tasks whose embeddings and head are there, now scored and stored."""
        encoder = request.served.encoder
        head = self._head(request.served, label_space) if tasks else None
        if head is None:
            return set()
        keys = {task: request.keys[task] for task in tasks}
        recordings = self._store.embeddings.recordings(list(keys.values()))
        vectors = self._store.embeddings.get(list(recordings.values()), encoder.version, encoder.dtype)
        held = {
            task: vectors[recordings[key].sha256]
            for task, key in keys.items()
            if key in recordings and recordings[key].sha256 in vectors
        }
        found = prediction.predict_many(label_space, list(held.values()), head, request.model_version)
        scored = [
            StoredPrediction(request.project, task, request.model_version, keys[task], one.score, one.result)
            for task, one in zip(held, found, strict=True)
        ]
        self._store.predictions.put_all(scored, push=False)
        return {done.task for done in scored}

    def _head(self, served: Serving, label_space: LabelSpace) -> Head | None:
        try:
            return stored_head(self._store, served, label_space)
        except NotFoundError:  # replaced a moment ago: the worker answers, under the version it finds then
            return None

    def _queue(self, request: OpenRequest, tasks: Set[int], label_config: str) -> None:
        served = request.served
        self._store.catalog.put_label_space(served.space_id, label_config)
        requests = [
            predict_request(request.project, known, served, push=False)
            for task, known in request.known.items()
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
