"""Rollout: a model version takes over a project, step by step, while the one before goes on serving.

    predict every open task → push → move the pointer → align Label Studio → prune what it replaced → verify

Each step looks at what is there first. Interrupted anywhere and run again, a rollout ends in the same state; until the
pointer moves, nobody sees anything of it, and once it has moved, a job that was queued before sees to the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from clapboard import prediction
from clapboard.errors import LabelStudioUnreachable
from clapboard.head import Head
from clapboard.jobs import BATCH, LEARN, Bell
from clapboard.known_tasks import embedded
from clapboard.label_studio.checks import Connection
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.connect import align
from clapboard.label_studio.records import Project
from clapboard.labels import LabelSpace
from clapboard.prelabel import predict_request
from clapboard.scoring import Array
from clapboard.serving import Serving, find_serving
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.predictions import Delivery, StoredPrediction
from clapboard.store.tasks import KnownTask
from clapboard.store.versions import Version
from workers.encoders import EncoderPool, announce
from workers.heads import Heads
from workers.push import Pusher

VERSIONS_IN_VIEW = 50
"""How many replaced versions' predictions are remembered: people may still have tasks open that show them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rolled:
    """How far a rollout came. While `num_waiting` tasks are being embedded or pushed, it is to be run again.

    `num_missing` tasks aren't embedded yet, whether or not the rollout waits for them.
    """

    num_predicted: int
    num_waiting: int
    num_missing: int = 0


class Rollout:
    """Brings versions into service."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        encoders: EncoderPool,
        heads: Heads,
        bell: Bell,
        client: LabelStudioClient | None,
        pusher: Pusher | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._encoders = encoders
        self._heads = heads
        self._bell = bell
        self._client = client
        self._pusher = pusher

    def run(
        self,
        version: Version,
        *,
        is_new: bool = False,
        instead_of: str | None = None,
        waits_for_all: bool = True,
        on_page: Callable[[int], None] = lambda _num_tasks: None,
    ) -> Rolled:
        """Go on with the version's rollout as far as that goes now.

        `is_new` says that nobody can have been given anything of it, which makes it faster; `instead_of`, that it is
        only to replace this version. Without `waits_for_all` it takes over before every task is embedded: right for a
        head on the encoder that serves, under which what is embedded later is predicted too. `on_page` hears how many
        tasks were gone through. Raises `LabelStudioError`, `ModelError` if its checkpoint is gone, `NotFoundError` if
        its head is.
        """
        encoder = self._encoders.get(version.encoder)
        label_space, head = self._heads.get(encoder, version.space_id, version.head)
        served = Serving(announce(self._store, encoder), version.head, version.space_id, version.model_version)
        is_lost = not is_new and self._is_lost(version)
        num_predicted = num_missing = 0
        asked = self._embedding(served, version.project, label_space)
        failed = self._store.jobs.failed_tasks(version.project, asked.model_version)
        record = self._client.project(version.project) if self._client else None
        for tasks, are_open in self._pages(version.project, record.annotations_per_task if record else 1):
            vectors = embedded(self._store, tasks, served.encoder)
            wanted = [task for task in tasks if task.task in are_open and task.task in vectors]
            found = _predict(version, wanted, label_space, [vectors[task.task] for task in wanted], head)
            num_predicted += len(found)
            # Annotated ones too: heads are fitted on their embeddings. Those that have failed aren't waited for.
            missing = [task for task in tasks if task.task not in vectors and task.task not in failed]
            self._queue_unembedded(version.project, asked, missing, are_open)
            num_missing += len(missing)
            self._deliver(found, record, is_new=is_new, is_lost=is_lost)
            on_page(len(tasks))
        num_waiting = num_missing if waits_for_all else 0
        if self._client is not None:
            num_waiting += self._store.predictions.num_owed(version.project, version.model_version)
        if not num_waiting:
            self._switch(version, instead_of)
        return Rolled(num_predicted, num_waiting, num_missing)

    def _pages(self, project: int, enough: int) -> Iterator[tuple[list[KnownTask], set[int]]]:
        """The project's tasks but for those set aside, with the ids of those that people may still annotate.

        `enough` is how many annotations of a task are.
        """
        annotated: dict[int, set[int]] = {}
        for entry in self._store.ledger.standing(project):
            annotated.setdefault(entry.task, set()).add(entry.annotation)
        for page in self._store.tasks.of_project(project):
            tasks = [task for task in page if not task.set_aside]
            yield tasks, {task.task for task in tasks if len(annotated.get(task.task, ())) < enough}

    def _is_lost(self, version: Version) -> bool:
        """Whether Label Studio has less of the version than it was given: pruned once, it must be brought anew."""
        if self._client is None:
            return False
        counts = self._store.predictions.counts(version.project, version.model_version)
        num_given = counts.get(Delivery.ANSWERED, 0) + counts.get(Delivery.PUSHED, 0)
        return self._client.model_versions(version.project).get(version.model_version, 0) < num_given

    def _embedding(self, served: Serving, project: int, label_space: LabelSpace) -> Serving:
        """By whom unembedded tasks are asked for: by what serves now if that has the same encoder.

        So that heads that follow each other while a project is being embedded ask for one job a task, not for many.
        """
        now = find_serving(self._store, self._settings.model, project, label_space)
        return now if now.encoder.version == served.encoder.version else served

    def _queue_unembedded(self, project: int, asked: Serving, tasks: list[KnownTask], are_open: set[int]) -> None:
        requests = [
            predict_request(project, task, asked, push=self._client is not None and task.task in are_open)
            for task in tasks
        ]
        if requests:
            self._store.jobs.add(BATCH, requests)
            self._bell.ring(BATCH)

    def _deliver(self, found: list[StoredPrediction], record: Project | None, *, is_new: bool, is_lost: bool) -> None:
        if not found:
            return
        if self._pusher is not None and is_new:
            self._pusher.push(self._store.predictions.put_for_push(found), known_absent=True, record=record)
            return
        self._store.predictions.put_all(found, push=self._pusher is not None)
        if is_lost:
            self._store.predictions.owe(found[0].project, [one.task for one in found], found[0].model_version)
        if self._pusher is not None:
            self._pusher.push_owed()

    def _switch(self, version: Version, instead_of: str | None) -> None:
        """From here on the version serves, unless another one was promoted meanwhile."""
        project = version.project
        # Queued before the pointer moves, so that it is tidied up even if this process dies between the two.
        self._store.jobs.add(LEARN, [JobRequest("prune", project, delay_s=self._settings.prune_quiet_s)])
        if not self._store.versions.promote(project, version.model_version, instead_of=instead_of):
            return
        log.info("promoted", extra={"project": project, "model_version": version.model_version})
        self._align(version)

    def _align(self, promoted: Version) -> None:
        """Write down what the project answers with, and have Label Studio show it."""
        label_config = self._store.catalog.project(promoted.project).label_config
        self._store.catalog.put_project(promoted.project, label_config, promoted.model_version)
        if self._client is not None:
            align(self._client, self._settings, promoted.project, promoted.model_version)

    def prune(self, project: int) -> int:
        """Take what the promoted version replaced out of Label Studio, and verify that all is aligned.

        Returns how many versions went. Raises `LabelStudioError`; `LabelStudioUnreachable` if versions differ after it.
        """
        promoted = self._store.versions.promoted(project)
        if promoted is None:
            return 0
        ours = {version.model_version for version in self._store.versions.of_project(project)}
        ours |= set(self._store.predictions.model_versions(project))
        ours -= self._on_their_way_in(project, promoted)
        gone = []
        if self._client is not None:
            there = self._client.model_versions(project)
            gone = [name for name in there if name in ours and name != promoted.model_version]
            for name in gone:
                self._client.delete_model_version(project, name)
        self._forget_replaced(project, promoted)
        self._verify(project)
        return len(gone)

    def _on_their_way_in(self, project: int, promoted: Version) -> set[str]:
        """Versions that were made since the promoted one took over, and may be about to replace it."""
        return {
            version.model_version
            for version in self._store.versions.of_project(project)
            if version.promoted_at is None and version.created_at >= (promoted.promoted_at or 0.0)
        }

    def _forget_replaced(self, project: int, promoted: Version) -> None:
        """Forget heads that a later one of the same encoder replaced, and what only they were kept for."""
        versions = self._store.versions.of_project(project)
        newest = {version.encoder_version: version.model_version for version in versions}
        replaced = [
            version.model_version
            for version in versions
            if version.model_version != newest[version.encoder_version] and "verdict" not in version.manifest
        ]
        self._store.versions.forget(project, replaced)
        in_view = self._store.predictions.newest_versions(project, VERSIONS_IN_VIEW)
        stale = set(self._store.predictions.model_versions(project)) - {*in_view, promoted.model_version}
        self._store.predictions.forget_versions(project, stale)

    def _verify(self, project: int) -> None:
        """That Label Studio shows what is promoted by now, which deleting a version may have upset."""
        promoted = self._store.versions.promoted(project)
        assert promoted is not None
        self._align(promoted)
        if self._client is None:
            return
        versions = Connection.look(self._client, self._settings, project).versions(promoted.model_version)
        if not versions.ok:
            raise LabelStudioUnreachable(versions.message)


def _predict(
    version: Version, tasks: Sequence[KnownTask], label_space: LabelSpace, vectors: Sequence[Array], head: Head
) -> list[StoredPrediction]:
    found = prediction.predict_many(label_space, vectors, head, version.model_version)
    return [
        StoredPrediction(version.project, task.task, version.model_version, task.uri_key, one.score, one.result)
        for task, one in zip(tasks, found, strict=True)
    ]
