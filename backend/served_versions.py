"""Which model version serves each project, from memory: Label Studio asks each time that a task is opened."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clapboard.labels.label_space import LabelSpace
from clapboard.project.canary import CanaryArm, canary_arm
from clapboard.project.serving import Serving, base_encoder, is_tuned, serving
from clapboard.queue.celery_app import INTERACTIVE
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder, Project, Worker
from clapboard.store.job_records import claimable, number_format
from clapboard.store.trials import Trial
from clapboard.store.versions import Version

_MEMORY_S = 1.0
_SILENT_S = 8.0  # workers send a heartbeat every second; one that is silent for so long isn't waited for


@dataclass(frozen=True)
class _Directory:
    """The store's encoders, promoted versions, connected projects, workers and sweeps, read at one moment."""

    base: Encoder
    encoders: Mapping[str, Encoder]
    promoted: Mapping[int, Version]
    connected: Mapping[int, Project]
    workers: Sequence[Worker]
    canaries: Mapping[int, Trial]
    asking: Mapping[int, str]  # by project, the version that Label Studio asks for although it has predictions


class ServedVersions:
    """The versions that one CLAPBOARD_MODEL serves, at most a second old after `refresh`. Threads may share it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._directory: _Directory | None = None
        self._read_at = -math.inf

    def refresh(self, *, at_once: bool = False) -> None:
        """Read the store again, unless that was done within a second. Raises `NoWorkerError`, `StoreError`."""
        now = time.monotonic()
        if at_once or now - self._read_at > _MEMORY_S:
            self._directory = _Directory(
                base_encoder(self._store, self._settings.model),
                self._store.catalog.encoders(),
                self._store.versions.all_promoted(),
                self._store.catalog.connected_projects(),
                self._workers(),
                self._store.trials.open_canaries(),
                self._store.displays.asking(),
            )
            self._read_at = now

    def serving(self, project: int, label_space: LabelSpace) -> Serving:
        """What answers the project's label space. Raises `NoWorkerError` before the first worker is up."""
        directory = self._remembered()
        return serving(label_space, directory.base, directory.promoted.get(project), directory.encoders)

    def canary(self, project: int, label_space: LabelSpace) -> CanaryArm | None:
        """The project's open canary, if its suggestions are shown."""
        directory = self._remembered()
        trial = directory.canaries.get(project)
        return canary_arm(self._store, trial, directory.encoders, label_space) if trial else None

    def answered_as(self, project: int, served: Serving) -> str:
        """The name under which Label Studio gets the version's predictions in answers.

        That which they have there; the version's own as long as it is to ask for each task that is opened.
        """
        asks = self._remembered().asking.get(project) == served.model_version
        return served.model_version if asks else served.shown_as

    def connected_project(self, project: int) -> Project | None:
        """The project, if `clapboard connect` has connected it."""
        return self._remembered().connected.get(project)

    def has_worker_for(self, encoder: Encoder) -> bool:
        """Whether a live worker can predict with the encoder. Before the answer is no, the store is asked again."""
        model = self._settings.model
        return _can_any_predict(self._remembered().workers, model, encoder) or _can_any_predict(
            self._workers(), model, encoder
        )

    def _remembered(self) -> _Directory:
        if self._directory is None:
            self.refresh()
        assert self._directory is not None
        return self._directory

    def _workers(self) -> list[Worker]:
        return self._store.catalog.workers(min(_SILENT_S, self._settings.job_lease_s))


def _can_any_predict(workers: Iterable[Worker], model: str, encoder: Encoder) -> bool:
    """Whether one of the workers serves the interactive queue and has the encoder loaded, or can load it.

    `model` is CLAPBOARD_MODEL. `predict_request` decides which workers may claim a job.
    """
    exact = f"{model} {encoder.version} {encoder.dtype}"
    claim = f"{model} {number_format(encoder.dtype)}" if is_tuned(encoder.model) else exact
    return any(
        INTERACTIVE in worker.queues.split(",")
        and claim in claimable(worker.model, *worker.encoder.partition(" ")[::2])
        for worker in workers
    )
