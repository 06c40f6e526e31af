"""Requests for a finetuning: they are queued with a forecast in one sentence, or refused with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from clapboard.errors import ClapboardError, NotFoundError, TrainingError
from clapboard.feedback.consensus import TaskLabels
from clapboard.labels.coverage import no_suggestions
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import Control
from clapboard.plurals import counted
from clapboard.project.agreement import agreement
from clapboard.queue.names import TRAIN
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import Job, JobRequest, State

LEAST_LABELS = 8
"""How many clips a label needs to count. A training needs two labels that count."""


@dataclass(frozen=True)
class RequestedTraining:
    """The project's training job and its forecast; or no job, and the reason why it was refused."""

    job: int | None
    message: str


@dataclass(frozen=True)
class _Prospect:
    """The labels that a training would learn from, and those that would judge it."""

    num_training: int
    num_test: int
    num_labels: int
    num_rarest: int  # clips of the rarest label that counts


def request_training(settings: Settings, store: Store, project: int) -> RequestedTraining:
    """Queue the project's training. If one is waiting already, it becomes due now; if one is running, it is returned.

    With too few labels none is queued, and the refusal is recorded as a failed job with its reason. Wake-ups are the
    caller's.
    """
    if (under_way := store.jobs.newest_open("train", project)) and under_way.state == State.RUNNING:
        return RequestedTraining(under_way.id, f"{_under_way(under_way)} {_where(project)}")
    request = JobRequest("train", project, delay_s=0.0)
    try:
        prospect = _prospect(store, project)
    except ClapboardError as error:
        if under_way is None:
            store.jobs.record_failures(TRAIN, [(request, error)])
        return RequestedTraining(None, f"Nothing is started. {error}")
    (job,) = store.jobs.add(TRAIN, [request])
    sentences = [_forecast(prospect, project, job), _where(project)]
    if not any(TRAIN in worker.queues.split(",") for worker in store.catalog.workers(settings.job_lease_s)):
        sentences.insert(
            0, "It waits because no training worker is alive: start one with `clapboard worker --queues train`."
        )
    return RequestedTraining(job, " ".join(sentences))


def _prospect(store: Store, project: int) -> _Prospect:
    """Raises `NotFoundError`, `LabelConfigError`, or `TrainingError` where there are too few labels."""
    store.ledger.catch_up()
    record = store.catalog.project(project)
    if not record.connected:
        raise NotFoundError(f"Project {project} is not connected: run `clapboard connect --project {project}`.")
    label_space = parse_label_config(record.label_config)
    if not label_space.suggested:
        raise TrainingError(f"Nothing in project {project} gets suggestions. {no_suggestions(label_space)}")
    if not label_space.predicted:
        raise TrainingError(
            f"Project {project} marks regions only, whose head learns from each annotation at once. Finetuning learns "
            "from Choices about whole clips: add such Choices, or leave it."
        )
    labelled = agreement(store, project, label_space).labels
    tasks = store.tasks.get(project, list(labelled))
    training = [labels for task, labels in labelled.items() if task in tasks and not tasks[task].held_out]
    num_test = sum(
        task in tasks and tasks[task].held_out and any(not (s.bulk or s.suggestion_biased) for s in labels.values())
        for task, labels in labelled.items()
    )
    counts = [(control, _counts(control, training)) for control in label_space.predicted]
    smallest = [size for control, sizes in counts if (size := _smallest_class(control, sizes, training))]
    sizes = sum((sizes for _, sizes in counts), Counter[str]())
    if not smallest:
        raise TrainingError(_too_few(sizes))
    return _Prospect(len(training), num_test, len(sizes), min(smallest))


def _counts(control: Control, training: list[TaskLabels]) -> Counter[str]:
    """By label, how many clips have it."""
    return Counter(label for labels in training if control.name in labels for label in labels[control.name].labels)


def _smallest_class(control: Control, counts: Counter[str], training: list[TaskLabels]) -> int:
    """The size of the control's smallest class that is large enough to count; 0 if fewer than two are.

    Counted as in `training.finetuning.trainable_stages`: in a multi-label control, having and not having a label are
    two classes.
    """
    if control.multiple:
        num_answers = sum(control.name in labels for labels in training)
        smaller_classes = [min(size, num_answers - size) for size in counts.values()]
        return min((size for size in smaller_classes if size >= LEAST_LABELS), default=0)
    large = [size for size in counts.values() if size >= LEAST_LABELS]
    return min(large) if len(large) > 1 else 0


def _too_few(counts: Counter[str]) -> str:
    remedy = f"label at least {LEAST_LABELS} clips of each of two labels. Held-out tasks don't count"
    if not counts:
        return f"There are no labels to learn from yet: {remedy}."
    largest = ", ".join(f"“{label}” {number}" for label, number in counts.most_common(3))
    return f"There are too few labels to learn from ({largest}{', …' if len(counts) > 3 else ''}): {remedy}."


def _forecast(prospect: _Prospect, project: int, job: int) -> str:
    judged = (
        f"{counted(prospect.num_test, 'labelled held-out task')} will judge the result."
        if prospect.num_test
        else "No held-out task has a label, so the result can't be judged and won't serve: label a few of them."
    )
    return (
        f"Job {job} finetunes project {project} on {counted(prospect.num_training, 'labelled task')} with "
        f"{counted(prospect.num_labels, 'label')}; the rarest that counts has "
        f"{counted(prospect.num_rarest, 'clip')}. {judged}"
    )


def _under_way(job: Job) -> str:
    return f"Job {job.id} is already training ({job.progress or 'it has just begun'})."


def _where(project: int) -> str:
    return f"`clapboard jobs` shows its progress, `clapboard models list --project {project}` its result."
