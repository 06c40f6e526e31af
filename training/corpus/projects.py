"""A Label Studio project → pairs: what people wrote (TextArea) and chose (whole-clip Choices) of each task's audio.

What counts of several annotations is what counts everywhere (`clapboard.feedback.consensus`). Nobody listened to what
was accepted in bulk, and tasks that are set aside judge the models that are trained: both are left out.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from clapboard.errors import NotFoundError, SourceError, TrainingError
from clapboard.feedback.consensus import consensus, counting
from clapboard.feedback.entries import Entry, entries
from clapboard.feedback.sync import made_in_bulk
from clapboard.known_tasks import TaskReader
from clapboard.label_studio.annotations import AnnotatedTask
from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.inbox import Event
from training.corpus.filters import Reason
from training.corpus.pairs import Pair, unique, unique_tags

_TASKS_AT_ONCE = 500

log = logging.getLogger("training.corpus")


@dataclass(frozen=True)
class LabelStudioAccess:
    """What it takes to read a project: its annotations, its audio, and which of its tasks are set aside."""

    settings: Settings
    store: Store
    client: LabelStudioClient
    audio: AudioSources


def project_pairs(access: LabelStudioAccess, project_id: int) -> Iterator[Pair]:
    """The project's annotated tasks by ascending id, read page by page; a recording's tasks are one group.

    Then those that are set aside and that nobody has annotated yet, since their sounds may lie in another source too.
    Raises `TrainingError` if nothing in the project describes whole clips, `LabelConfigError`, `LabelStudioError`.
    """
    label_space = parse_label_config(access.client.project(project_id).label_config)
    texts = [control.name for control in label_space.controls if control.kind == "textarea" and not control.per_region]
    if not texts and not label_space.predicted:
        raise TrainingError(f"Project {project_id} has neither a TextArea nor Choices for whole clips: add one.")
    reader = TaskReader(access.settings, access.audio, project_id, _test_share(access.store, project_id))
    tasks = _annotated_first(access.client, project_id)
    while page := list(itertools.islice(tasks, _TASKS_AT_ONCE)):
        known = access.store.tasks.get(project_id, [task.id for task in page])
        aside = {number for number, one in known.items() if one.set_aside}
        for task in page:
            pair = _said(project_id, label_space, texts, task)
            try:
                found = reader.read(label_space, task.id, task.data)
            except SourceError as error:
                if task.annotations:
                    yield replace(pair, audio=partial(_refuse, error))
                continue
            left_out = Reason.SET_ASIDE if found.set_aside or task.id in aside else pair.left_out
            if not task.annotations and left_out != Reason.SET_ASIDE:
                continue
            audio = partial(access.audio.fetch, found.uri, task_id=task.id)
            yield replace(pair, audio=audio, group=f"{project_id}: {found.source}", left_out=left_out)


def _annotated_first(client: LabelStudioClient, project_id: int) -> Iterator[AnnotatedTask]:
    """All tasks of the project: those that have annotations, then the others."""
    annotated: set[int] = set()
    for task in client.annotated_tasks(project_id):
        annotated.add(task.id)
        yield task
    yield from (AnnotatedTask(task.id, task.data, []) for task in client.tasks(project_id) if task.id not in annotated)


def _test_share(store: Store, project_id: int) -> float:
    try:
        project = store.catalog.project(project_id)
    except NotFoundError:
        project = None
    if project and project.connected:
        return project.test_share
    log.warning(
        "Project %d isn't connected here, so none of its new tasks is held back from training: if it is connected "
        "under another MODEL_DIR, build with that one.",
        project_id,
    )
    return 0.0


def _refuse(error: SourceError) -> NoReturn:
    raise error


def _said(project_id: int, label_space: LabelSpace, texts: Sequence[str], task: AnnotatedTask) -> Pair:
    """The pair without its sound: every caption of those who count, and the labels that they agree on."""
    heard = [said for one in task.annotations if not made_in_bulk(one) and (said := _entries(project_id, one))]
    whole_clip = [entry for said in counting(heard) for entry in said if not entry.region]
    captions = unique([text for entry in whole_clip if entry.control in texts for text in entry.labels])
    agreed = consensus(itertools.chain.from_iterable(heard), label_space).labels.get(task.id, {})
    tags = unique_tags([label for control in agreed.values() for label in control.labels])
    only_bulk = bool(task.annotations) and all(made_in_bulk(one) for one in task.annotations)
    return Pair(f"task {task.id}", b"", captions, tags, left_out=Reason.BULK if only_bulk else "")


def _entries(project_id: int, annotation: Mapping[str, Any]) -> list[Entry]:
    """What the annotation says, read as if its event had come."""
    body = {"annotation": dict(annotation) | {"result": annotation["result"] or []}}
    return entries(Event(0, 0.0, "ANNOTATION_UPDATED", project_id, body, {}))
