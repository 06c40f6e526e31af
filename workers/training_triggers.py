"""When a finetuning starts by itself: after enough new labels of every class and a quiet while, or by the clock."""

from __future__ import annotations

from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.project.agreement import refresh_labels
from clapboard.queue.celery_app import TRAIN
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest, State
from clapboard.store.labels import LabelCounts
from workers.job_queue import JobQueue


def queue_due_training(settings: Settings, store: Store, queue: JobQueue, project: int) -> int | None:
    """Queue a `train` job if enough labels have come since the last one; its id, or None.

    The job begins when the project has been quiet for a while: each further label delays it.
    """
    if not settings.train_after:
        return None
    label_space = parse_label_config(store.catalog.project(project).label_config)
    last_training = store.jobs.last("train", project)
    since = last_training.started_at or 0.0 if last_training else 0.0
    refresh_labels(store, project, label_space)
    if num_of_rarest_label(label_space, store.labels.counts(project)) < settings.train_min_per_class:
        return None
    if not store.labels.has_new(project, since, at_least=settings.train_after):
        return None
    (job_id,) = queue.add(TRAIN, [JobRequest("train", project, delay_s=settings.train_quiet_s)])
    return job_id


def reason_to_skip(store: Store, project: int) -> str:
    """Why a finetuning that only the clock asks for would learn nothing new; empty if it would."""
    label_space = parse_label_config(store.catalog.project(project).label_config)
    refresh_labels(store, project, label_space)
    if not store.labels.counts(project).num_labelled:
        return "There are no labels to learn from yet."
    last_training = store.jobs.last_ended("train", project, State.DONE)
    if last_training is not None and store.inbox.last_annotated_at(project) < (last_training.started_at or 0.0):
        return f"Nobody has labelled anything since the finetuning of job {last_training.id}: there is nothing new."
    return ""


def num_of_rarest_label(label_space: LabelSpace, counts: LabelCounts) -> int:
    """How many tasks have the label that the fewest tasks have."""
    of_labels = (
        counts.of_label(control.name, label.value) for control in label_space.predicted for label in control.labels
    )
    return min(of_labels, default=0)
