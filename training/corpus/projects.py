"""Pairs of a Label Studio project: each task's audio with what people wrote (TextArea) and chose (whole-clip Choices).

Several annotations of a task are combined as everywhere (`clapboard.feedback.consensus`). Tasks accepted in bulk are
left out because nobody listened to them, and held-out tasks because trained models are judged by them.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from clapboard.errors import NotFoundError, SourceError, TrainingError
from clapboard.feedback.consensus import consensus, counted_annotations
from clapboard.feedback.entries import Entry, entries
from clapboard.feedback.renames import Rename, renamed
from clapboard.label_studio.annotations import AnnotatedTask
from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.project.known_tasks import TaskReader
from clapboard.project.sync import made_in_bulk
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
    """What is needed to read a project: its annotations, its audio, and which of its tasks are held out."""

    settings: Settings
    store: Store
    client: LabelStudioClient
    audio: AudioSources


def project_pairs(access: LabelStudioAccess, project_id: int) -> Iterator[Pair]:
    """The pairs of the project's annotated tasks by ascending id; the tasks of a recording are one group.

    Held-out tasks that nobody has annotated yet follow, marked as left out, since other sources may hold their sounds.
    Raises `TrainingError` if nothing in the project describes whole clips, `LabelConfigError` and `LabelStudioError`.
    """
    label_space = parse_label_config(access.client.project(project_id).label_config)
    texts = [control.name for control in label_space.controls if control.kind == "textarea" and not control.per_region]
    if not texts and not label_space.predicted:
        raise TrainingError(f"Project {project_id} has neither a TextArea nor Choices for whole clips: add one.")
    reader = TaskReader(access.settings, access.audio, project_id, _test_share(access.store, project_id))
    renames = access.store.renames.of_project(project_id)
    tasks = _annotated_first(access.client, project_id)
    while page := list(itertools.islice(tasks, _TASKS_AT_ONCE)):
        stored_tasks = access.store.tasks.get(project_id, [task.id for task in page])
        held_out_ids = {task_id for task_id, stored in stored_tasks.items() if stored.held_out}
        for task in page:
            pair = _pair_without_sound(project_id, label_space, texts, renames, task)
            try:
                recording = reader.read(label_space, task.id, task.data)
            except SourceError as error:
                if task.annotations:
                    yield replace(pair, audio=partial(_refuse, error))
                continue
            left_out = Reason.HELD_OUT if recording.held_out or task.id in held_out_ids else pair.left_out
            if not task.annotations and left_out != Reason.HELD_OUT:
                continue
            audio = partial(access.audio.fetch, recording.uri, task_id=task.id)
            yield replace(
                pair,
                audio=audio,
                group=f"{project_id}: {recording.source}",
                left_out=left_out,
                channel=label_space.channel,
            )


def _annotated_first(client: LabelStudioClient, project_id: int) -> Iterator[AnnotatedTask]:
    """All tasks of the project: annotated ones first, then the others."""
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
        "Project %d isn't connected here, so none of its new tasks are held out of training: if it is connected under "
        "another MODEL_DIR, build with that one.",
        project_id,
    )
    return 0.0


def _refuse(error: SourceError) -> NoReturn:
    raise error


def _pair_without_sound(
    project_id: int, label_space: LabelSpace, texts: Sequence[str], renames: Sequence[Rename], task: AnnotatedTask
) -> Pair:
    """The pair without its sound: all captions of the annotations that count, and the labels that they agree on."""
    annotations = [
        renamed(annotation_entries, renames, label_space)
        for annotation in task.annotations
        if not made_in_bulk(annotation) and (annotation_entries := _entries(project_id, annotation))
    ]
    whole_clip = [entry for annotation in counted_annotations(annotations) for entry in annotation if not entry.region]
    captions = unique([text for entry in whole_clip if entry.control in texts for text in entry.labels])
    agreed = consensus(itertools.chain.from_iterable(annotations), label_space).labels.get(task.id, {})
    tags = unique_tags([label for control in agreed.values() for label in control.labels])
    only_bulk = bool(task.annotations) and all(map(made_in_bulk, task.annotations))
    return Pair(f"task {task.id}", b"", captions, tags, left_out=Reason.BULK if only_bulk else "")


def _entries(project_id: int, annotation: Mapping[str, Any]) -> list[Entry]:
    """The annotation's entries, read as if its event had been received."""
    body = {"annotation": dict(annotation) | {"result": annotation["result"] or []}}
    return entries(Event(0, 0.0, "ANNOTATION_UPDATED", project_id, body, {}))
