"""Reconciliation: what people said in Label Studio while its events got lost is read through the API and entered.

Label Studio sends each event once and never again. What it holds is compared with what stands in the ledger, and each
difference goes into the inbox as the event that should have come, so that the ledger treats both alike: an annotation
that came through the webhook too, before or after, changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from clapboard.errors import NotFoundError
from clapboard.feedback.entries import Entry, Outcome, entries
from clapboard.label_studio.annotations import AnnotatedTask
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Project
from clapboard.store import Store
from clapboard.store.database import in_chunks
from clapboard.store.inbox import Event

OVERLAP_S = 900.0
"""How far cycles look back behind the beginning of the one before: for changes that were not committed yet."""
_IDS_PER_EVENT = 1000
_SAME_REVISION_S = 0.001  # revisions that people make are farther apart


@dataclass
class Reconciled:
    """What a cycle found and entered."""

    project: int
    until: float  # for `changed_since` of the next cycle
    is_complete: bool = False  # all annotations were read, not only those on tasks that changed
    num_tasks: int = 0  # with annotations that were read
    num_annotations: int = 0  # that were read
    num_entered: int = 0  # annotations, new or changed
    num_deleted: int = 0  # annotations
    num_tasks_deleted: int = 0
    label_config_changed: bool = False  # against the one that the project last introduced itself with

    def __str__(self) -> str:
        said = f"{self.num_annotations} annotations on {self.num_tasks} tasks were read: "
        if not (self.num_entered or self.num_deleted):
            said += "nothing was missing"
        else:
            said += f"{self.num_entered} new or changed and {self.num_deleted} deleted ones were entered"
        return said + (f"; {self.num_tasks_deleted} deleted tasks were forgotten." if self.num_tasks_deleted else ".")


def reconcile(
    store: Store,
    client: LabelStudioClient,
    project_id: int,
    *,
    changed_since: float | None = None,
    on_task: Callable[[AnnotatedTask], None] = lambda _: None,
) -> Reconciled:
    """Enter what the ledger lacks of the project's annotations; afterwards it says what Label Studio says.

    With `changed_since`, the `until` of an earlier cycle, only tasks that changed are looked at, unless the number of
    annotations then tells that some are gone: four requests where nothing happened. `on_task` hears of each annotated
    task that was looked at. Raises `LabelStudioError`.
    """
    until = (client.clock() or store.clock()) - OVERLAP_S
    project = client.project(project_id)
    store.ledger.catch_up()
    found = Reconciled(project_id, until, label_config_changed=_is_changed(store, project))
    if changed_since is not None:
        _enter_changed(store, client, found, changed_since, on_task)
    if changed_since is None or len(store.ledger.revisions(project_id)) != client.num_annotations(project_id):
        _enter_all(store, client, found, on_task)
    num_known, _ = store.tasks.count(project_id)
    if num_known > project.num_tasks:
        _forget_tasks(store, client, found)
    return found


def _enter_changed(
    store: Store,
    client: LabelStudioClient,
    found: Reconciled,
    changed_since: float,
    on_task: Callable[[AnnotatedTask], None],
) -> None:
    revisions = store.ledger.revisions(found.project)
    known = {number: _Known(revision) for number, revision in revisions.items()}
    for task in client.annotated_tasks(found.project, changed_since=changed_since):
        _enter_task(store, known, task, found)
        on_task(task)
    store.ledger.catch_up()


def _enter_all(
    store: Store, client: LabelStudioClient, found: Reconciled, on_task: Callable[[AnnotatedTask], None]
) -> None:
    """All annotations, which also tells which are gone."""
    # Read before Label Studio is asked: what stood then and isn't listed can only have gone away.
    known = _known(store, found.project)
    unseen = dict.fromkeys(known)
    found.num_tasks = found.num_annotations = 0
    found.is_complete = True
    for task in client.annotated_tasks(found.project):
        for annotation in task.annotations:
            unseen.pop(annotation["id"], None)
        _enter_task(store, known, task, found)
        on_task(task)
    _enter_deleted(store, client, unseen, found)
    store.ledger.catch_up()


@dataclass(frozen=True, slots=True)
class _Known:
    """What stands in the ledger of an annotation; `content` is None where it isn't compared."""

    revision: float
    content: int | None = None
    is_bulk: bool = False


def _known(store: Store, project_id: int) -> dict[int, _Known]:
    found = {}
    for number, standing in itertools.groupby(store.ledger.standing(project_id), lambda entry: entry.annotation):
        said = list(standing)
        is_bulk = any(entry.outcome is Outcome.BULK for entry in said)
        found[number] = _Known(said[0].revision, _content(said), is_bulk)
    return found


def _content(said: Collection[Entry]) -> int:
    """A number that tells apart what annotations say, and on which task, whatever was suggested there."""
    labels = {(entry.task, entry.control, entry.region, *entry.labels) for entry in said if entry.labels}
    return hash(frozenset(labels | {(entry.task,) for entry in said}))


def _enter_task(store: Store, known: Mapping[int, _Known], task: AnnotatedTask, found: Reconciled) -> None:
    """The task's annotations that are not known as they are, or in a later revision."""
    found.num_tasks += 1
    found.num_annotations += len(task.annotations)
    about = {"id": task.id, "data": task.data, "project": found.project}
    for annotation in task.annotations:
        # Label Studio keeps null where an annotation was made without any result.
        said: dict[str, Any] = annotation | {"result": annotation["result"] or []}
        before = known.get(annotation["id"])
        is_bulk = made_in_bulk(annotation)
        if before and before.revision >= _revision(said):
            if not _is_changed_in_silence(said, before, found.project):
                continue
            said["updated_at"] = _just_after(before.revision)  # of one revision, the first event counts
            is_bulk = before.is_bulk
        if is_bulk:
            _append(store, "ANNOTATIONS_CREATED", found.project, annotation=[said], task=[about])
        else:
            action = "ANNOTATION_UPDATED" if before else "ANNOTATION_CREATED"
            _append(store, action, found.project, annotation=said, task=about)
        found.num_entered += 1


def _is_changed_in_silence(said: Mapping[str, Any], known: _Known, project_id: int) -> bool:
    """Whether the known revision says something else by now.

    The data manager's «rename labels» and «remove duplicated tasks» change annotations without a new `updated_at`.
    """
    if known.content is None or known.revision > _revision(said) + _SAME_REVISION_S:
        return False
    return known.content != _content(entries(Event(0, 0.0, "ANNOTATION_UPDATED", project_id, {"annotation": said}, {})))


def _revision(annotation: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(annotation["updated_at"]).timestamp()


def _just_after(revision: float) -> str:
    return (datetime.fromtimestamp(revision, UTC) + timedelta(microseconds=1)).isoformat()


def _enter_deleted(store: Store, client: LabelStudioClient, unseen: Iterable[int], found: Reconciled) -> None:
    """Those that are really gone: one made while the others were listed is there."""
    gone = [number for number in unseen if _is_gone(client, number, found.project)]
    for some in in_chunks(gone, _IDS_PER_EVENT):
        _append(store, "ANNOTATIONS_DELETED", found.project, annotations=[{"id": number} for number in some])
    found.num_deleted += len(gone)


def _is_gone(client: LabelStudioClient, annotation_id: int, project_id: int) -> bool:
    annotation = client.annotation(annotation_id)
    return annotation is None or annotation["project"] != project_id


def _forget_tasks(store: Store, client: LabelStudioClient, found: Reconciled) -> None:
    """Tasks that no longer exist, with their predictions."""
    gone = {task.task for page in store.tasks.of_project(found.project) for task in page}
    for task in client.tasks(found.project):
        gone.discard(task.id)
    for some in in_chunks(sorted(gone), _IDS_PER_EVENT):
        _append(store, "TASKS_DELETED", found.project, tasks=[{"id": number} for number in some])
        store.predictions.forget_tasks(found.project, some)
        store.tasks.forget(found.project, some)
    found.num_tasks_deleted = len(gone)


def _is_changed(store: Store, project: Project) -> bool:
    try:
        return store.catalog.project(project.id).label_config != project.label_config
    except NotFoundError:  # never introduced: nothing to compare with
        return False


def made_in_bulk(annotation: Mapping[str, Any]) -> bool:
    """Whether the data manager made it, of a prediction or of another annotation, so that nobody listened.

    Label Studio doesn't say so: `bulk_created` is false, and `parent_prediction` becomes null with the prediction. But
    only the data manager and imports make annotations that nobody updated, and imported ones count as ground truth
    or name the annotation that they were.
    """
    by_nobody = annotation.get("updated_by") is None and annotation.get("lead_time") is None
    imported = bool(annotation.get("ground_truth")) or annotation.get("import_id") is not None
    return annotation.get("bulk_created") is True or (by_nobody and not imported)


def _append(store: Store, action: str, project_id: int, **content: Any) -> None:
    """The event as the webhook would have brought it."""
    body = {"action": action, **content, "project": {"id": project_id}, "source": "sync"}
    store.append_event(action, project_id, body)
