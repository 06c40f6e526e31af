"""Everything that must survive a restart, on SQLAlchemy Core: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clapboard.errors import RequestError
from clapboard.feedback.suggestions import annotations_in, answered, changed_at
from clapboard.settings import Settings
from clapboard.settings.state_folder import make_state_folder
from clapboard.store.access import AccessStore
from clapboard.store.annotations import AnnotationStore
from clapboard.store.audio_failures import AudioFailureStore
from clapboard.store.catalog import Catalog
from clapboard.store.clock import DatabaseClock
from clapboard.store.database import Database
from clapboard.store.departures import WHOLE_PROJECT, DepartureStore, forgotten_tasks, is_empty, without_tasks
from clapboard.store.displays import DisplayStore
from clapboard.store.embeddings import EmbeddingStore
from clapboard.store.frames import FrameStore
from clapboard.store.inbox import Inbox
from clapboard.store.jobs import Job, JobRequest, JobStore
from clapboard.store.labels import LabelStore
from clapboard.store.learning import LearningStore
from clapboard.store.ledger import LedgerStore
from clapboard.store.locks import LockStore
from clapboard.store.plans import Plan, PlanStore
from clapboard.store.predictions import PredictionStore, StoredPrediction
from clapboard.store.progress import ProgressReader
from clapboard.store.renames import RenameStore
from clapboard.store.searches import SearchStore
from clapboard.store.tabs import TabStore
from clapboard.store.tasks import TaskStore
from clapboard.store.trials import TrialStore
from clapboard.store.versions import VersionStore
from clapboard.untrusted import MAX_DEPTH, depth, identifier

__all__ = ["Store"]


class Store:
    """All tables, opened once per process and shared by its threads."""

    def __init__(
        self, url: str, *, clock: Callable[[], float] | None = None, max_attempts: int = 3, model: str = ""
    ) -> None:
        """Times come from `clock`; by default it is the database's.

        Jobs that are queued here are for workers of `model`, a value of CLAPBOARD_MODEL; if it is empty, for any.
        """
        self.database = Database(url)
        self.clock = clock = clock or DatabaseClock(self.database)
        self.access = AccessStore(self.database)
        self.annotations = AnnotationStore(self.database)
        self.catalog = Catalog(self.database, clock)
        self.departures = DepartureStore(self.database, clock)
        self.displays = DisplayStore(self.database, clock)
        self.embeddings = EmbeddingStore(self.database)
        self.frames = FrameStore(self.database)
        self.audio_failures = AudioFailureStore(self.database, clock)
        self.inbox = Inbox(self.database, clock)
        self.jobs = JobStore(self.database, clock, max_attempts, model)
        self.labels = LabelStore(self.database)
        self.learning = LearningStore(self.database)
        self.ledger = LedgerStore(self.database)
        self.locks = LockStore(self.database, clock)
        self.plans = PlanStore(self.database, clock)
        self.predictions = PredictionStore(self.database, clock)
        self.progress = ProgressReader(self.database, clock)
        self.renames = RenameStore(self.database)
        self.searches = SearchStore(self.database, clock)
        self.tabs = TabStore(self.database)
        self.tasks = TaskStore(self.database)
        self.trials = TrialStore(self.database, clock)
        self.versions = VersionStore(self.database, clock)

    @classmethod
    def open(cls, settings: Settings) -> Store:
        """Open the settings' store. Raises `SettingsError` if it can't be opened, `StoreError` if not right now."""
        if not settings.database_url.get_secret_value():
            make_state_folder(settings.model_dir)
        return cls(settings.database, max_attempts=settings.job_attempts, model=settings.model)

    def append_event(
        self, action: str, project: int | None, body: Mapping[str, Any], *, ahead_s: float | None = None
    ) -> int:
        """Put an event into the inbox, with the suggestions that its annotations answered; its id, once it is on disk.

        What it says of forgotten tasks is left out; the id is 0 if nothing is left then.

        `ahead_s` is our clock minus Label Studio's. If unknown, it is estimated from the event, which is sent as soon
        as its annotation is made or changed. Raises `RequestError` for an event that is nested too deeply.
        """
        if depth(body) > MAX_DEPTH:
            raise RequestError(f"The event is nested more deeply than {MAX_DEPTH} levels: it can't be stored.")
        with self.database.read() as connection:
            forgotten = forgotten_tasks(connection, project)
        if forgotten:
            whole, body = body, without_tasks(body, forgotten)
            if WHOLE_PROJECT in forgotten or is_empty(whole, body):
                return 0
        annotations = {item["task"]: item for item in annotations_in(body) if identifier(item.get("task"))}
        delivered = self.predictions.delivered(project, list(annotations)) if project and annotations else {}
        suggestions = {
            str(task): suggestion.as_json()
            for task, annotation in annotations.items()
            if (suggestion := answered(annotation, delivered.get(task, ()), self._ahead_s(annotation, ahead_s)))
        }
        return self.inbox.append(action, project, body, suggestions)

    def _ahead_s(self, annotation: Mapping[str, Any], ahead_s: float | None) -> float:
        if ahead_s is not None:
            return ahead_s
        changed = changed_at(annotation)
        return 0.0 if changed is None else self.clock() - changed

    def carry_out(self, plan: Plan, next_at: float, queue: str, requests: Sequence[JobRequest]) -> bool:
        """Queue the plan's jobs and set its next run to `next_at`, in one transaction; False if another worker did.

        A job that is open already is left as it is.
        """
        with self.database.write() as connection:
            if not self.plans.take(connection, plan, next_at):
                return False
            self.jobs.add_unless_open(connection, queue, requests)
        return True

    def finish_with_prediction(self, job: Job, prediction: StoredPrediction) -> bool:
        """End the job and store its prediction in one transaction. Returns whether it now has to be pushed."""
        return self.finish_with_predictions([(job, prediction)])

    def finish_with_predictions(
        self, predicted: Sequence[tuple[Job, StoredPrediction]], outcomes: Mapping[int, str] | None = None
    ) -> bool:
        """End the jobs and store their predictions in one transaction. Returns whether any now has to be pushed.

        `outcomes` describe the results of some jobs in words, by job id. The result of a job that is no longer this
        worker's is discarded.
        """
        ended: dict[bool, list[StoredPrediction]] = {True: [], False: []}
        with self.database.write() as connection:
            # Every writer locks the rows of several jobs in this order, so that there are no deadlocks.
            for job, prediction in sorted(
                predicted, key=lambda pair: (pair[0].project, pair[0].task, pair[0].model_version)
            ):
                push = self.jobs.finish(connection, job, (outcomes or {}).get(job.id))
                if push is not None:
                    ended[push].append(prediction)
            for push, predictions in ended.items():
                if predictions:
                    self.predictions.put(connection, predictions, push=push)
        return bool(ended[True])

    def close(self) -> None:
        """Close all connections."""
        self.database.close()
