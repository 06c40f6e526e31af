"""A connected project with labels that people gave, in a store without a Label Studio."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from clapboard.store import Store
from clapboard.store.tasks import KnownTask
from tests.support.annotation_events import annotation, clip, said
from tests.support.fake_label_studio import CHOICES


def add_labels(
    store: Store, project: int, num_clips: Mapping[str, int], *, num_aside: int = 0, label_config: str = CHOICES
) -> None:
    """So many clips of each label, of which the first ones are set aside; nobody saw a suggestion."""
    store.catalog.put_project(project, label_config, "v1")
    store.catalog.set_connected(project)
    numbers = itertools.count(1)
    known = []
    for label, number in num_clips.items():
        for task in itertools.islice(numbers, number):
            action, body = said(annotation(task, clip(label), task=task))
            store.append_event(action, project, body)
            known.append(
                KnownTask(task, f"https://host.example/{task}.wav", f"{task:064}", str(task), task <= num_aside)
            )
    store.tasks.put(project, known)
