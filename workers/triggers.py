"""When a finetuning starts by itself: so many new labels, of every class, and then some quiet."""

from __future__ import annotations

from clapboard.feedback.consensus import Consensus, consensus
from clapboard.jobs import TRAIN, Bell
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest


def consider_training(settings: Settings, store: Store, bell: Bell, project: int) -> int | None:
    """The `train` job that is due for the project after a while of quiet, if any: each further label puts it off."""
    if not settings.train_after:
        return None
    standing = store.ledger.standing(project)
    last = store.jobs.last("train", project)
    since = last.started_at or 0.0 if last else 0.0
    fresh = {entry.task for entry in standing if entry.revision > since}
    label_space = parse_label_config(store.catalog.project(project).label_config)
    agreed = consensus(standing, label_space)
    if len(fresh & agreed.labels.keys()) < settings.train_after:
        return None
    if least_labels(label_space, agreed) < settings.train_min_per_class:
        return None
    (job,) = store.jobs.add(TRAIN, [JobRequest("train", project, delay_s=settings.train_quiet_s)])
    bell.ring(TRAIN)
    return job


def least_labels(label_space: LabelSpace, agreed: Consensus) -> int:
    """How many tasks the rarest label has."""
    counts = {(control.name, label.value): 0 for control in label_space.predicted for label in control.labels}
    for labels in agreed.labels.values():
        for control, said in labels.items():
            for label in said.labels:
                counts[control, label] += 1
    return min(counts.values(), default=0)
