"""Everything that must survive a restart, on SQLAlchemy Core: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clapboard.feedback.suggestions import annotations_in, answered
from clapboard.settings import Settings
from clapboard.store.catalog import Catalog
from clapboard.store.database import Database
from clapboard.store.embeddings import EmbeddingStore
from clapboard.store.inbox import Inbox
from clapboard.store.jobs import Job, JobStore
from clapboard.store.ledger import LedgerStore
from clapboard.store.predictions import PredictionStore, StoredPrediction
from clapboard.store.progress import ProgressReader
from clapboard.store.searches import SearchStore
from clapboard.store.tasks import TaskStore
from clapboard.store.versions import VersionStore

__all__ = ["Store"]


class Store:
    """All tables, opened once per process and shared by its threads."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time, max_attempts: int = 3) -> None:
        self.database = Database(url)
        self.clock = clock
        self.catalog = Catalog(self.database, clock)
        self.embeddings = EmbeddingStore(self.database)
        self.inbox = Inbox(self.database, clock)
        self.jobs = JobStore(self.database, clock, max_attempts)
        self.ledger = LedgerStore(self.database)
        self.predictions = PredictionStore(self.database, clock)
        self.progress = ProgressReader(self.database, clock)
        self.searches = SearchStore(self.database, clock)
        self.tasks = TaskStore(self.database)
        self.versions = VersionStore(self.database, clock)

    @classmethod
    def open(cls, settings: Settings) -> Store:
        """The store that the settings name. Raises `SettingsError` if it can't be opened."""
        return cls(settings.database, max_attempts=settings.job_attempts)

    def append_event(self, action: str, project: int | None, body: Mapping[str, Any]) -> int:
        """Keep an event in the inbox, with the suggestions that its annotations answered; its id, once on disk."""
        annotations = {item["task"]: item for item in annotations_in(body) if _is_id(item.get("task"))}
        delivered = self.predictions.delivered(project, list(annotations)) if project and annotations else {}
        suggestions = {
            str(task): found.as_json()
            for task, annotation in annotations.items()
            if (found := answered(annotation, delivered.get(task, ())))
        }
        return self.inbox.append(action, project, body, suggestions)

    def finish_with_prediction(self, job: Job, prediction: StoredPrediction) -> bool:
        """End the job and keep what came of it, as one: whether the prediction is now owed through the API."""
        return self.finish_with_predictions([(job, prediction)])

    def finish_with_predictions(self, found: Sequence[tuple[Job, StoredPrediction]]) -> bool:
        """End the jobs and keep what came of them, as one: whether anything is now owed through the API.

        What came of a job that is no longer this worker's is discarded.
        """
        ended: dict[bool, list[StoredPrediction]] = {True: [], False: []}
        with self.database.write() as connection:
            # In the order in which everybody takes several jobs' rows, so that no two wait for each other.
            for job, prediction in sorted(
                found, key=lambda pair: (pair[0].project, pair[0].task, pair[0].model_version)
            ):
                push = self.jobs.finish(connection, job)
                if push is not None:
                    ended[push].append(prediction)
            for push, predictions in ended.items():
                if predictions:
                    self.predictions.put(connection, predictions, push=push)
        return bool(ended[True])

    def close(self) -> None:
        """Give all connections back."""
        self.database.close()


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
