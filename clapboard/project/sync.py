"""Reconciliation: annotations whose webhook events were lost are read through Label Studio's API and entered.

Label Studio sends each event only once. Its annotations are compared with the ledger, and each difference goes into the
inbox as the event that should have arrived. The ledger treats both alike, so an annotation that also arrives by
webhook, before or after, changes nothing.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from clapboard.errors import NotFoundError, RequestError
from clapboard.feedback.entries import Entry, Outcome, entries, states_visibility
from clapboard.label_studio.annotations import AnnotatedTask
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Project
from clapboard.plurals import counted, plural
from clapboard.store import Store
from clapboard.store.database import in_chunks
from clapboard.store.inbox import Event

OVERLAP_S = 900.0
"""How far before the previous cycle's beginning a cycle looks, for changes that weren't committed yet then."""
_IDS_PER_EVENT = 1000
_SAME_REVISION_S = 0.001  # revisions made by people are farther apart

log = logging.getLogger(__name__)


@dataclass
class Reconciled:
    """What a cycle read and entered."""

    project: int
    until: float  # `changed_since` of the next cycle, by Label Studio's clock
    ahead_s: float = 0.0  # our clock minus Label Studio's
    is_complete: bool = False  # all annotations were read, not only those of changed tasks
    num_tasks: int = 0  # whose annotations were read
    num_annotations: int = 0  # read
    num_entered: int = 0  # annotations, new or changed
    num_refused: int = 0  # annotations that can't be stored
    num_deleted: int = 0  # annotations
    num_tasks_deleted: int = 0
    label_config_changed: bool = False  # since the project last introduced itself
    label_config: str = ""  # for events that can't be read without it

    def __str__(self) -> str:
        were = plural(self.num_annotations, "was", "were")
        text = f"{counted(self.num_annotations, 'annotation')} on {counted(self.num_tasks, 'task')} {were} read: "
        if not (self.num_entered or self.num_deleted):
            text += "nothing was missing"
        else:
            text += f"{self.num_entered:,} new or changed and {self.num_deleted:,} deleted were entered"
        if self.num_refused:
            text += f"; {counted(self.num_refused, 'annotation')} can't be stored (the log says why)"
        if self.num_tasks_deleted:
            were = plural(self.num_tasks_deleted, "was", "were")
            text += f"; {counted(self.num_tasks_deleted, 'deleted task')} {were} forgotten"
        return f"{text}."


def reconcile(
    store: Store,
    client: LabelStudioClient,
    project_id: int,
    *,
    changed_since: float | None = None,
    on_task: Callable[[AnnotatedTask], None] = lambda _: None,
) -> Reconciled:
    """Enter the project's annotations that the ledger lacks, after which it agrees with Label Studio.

    With `changed_since`, the `until` of an earlier cycle, only changed tasks are read, unless the number of annotations
    then shows that some were deleted; if nothing happened, that takes four requests. `on_task` is called with each
    annotated task that is read. Raises `LabelStudioError`.
    """
    now = client.clock()  # Label Studio's; 0 if it sends none, and then the next cycle reads everything
    until = now - OVERLAP_S if now else 0.0
    ahead_s = store.clock() - now if now else 0.0
    project = client.project(project_id)
    store.ledger.catch_up()
    cycle = Reconciled(project_id, until, ahead_s=ahead_s, label_config_changed=_is_changed(store, project))
    cycle.label_config = project.label_config if states_visibility(project.label_config) else ""
    if changed_since is not None:
        _enter_changed(store, client, cycle, changed_since, on_task)
    if changed_since is None or store.annotations.count(project_id) != client.num_annotations(project_id):
        _enter_all(store, client, cycle, on_task)
    num_known, _ = store.tasks.count(project_id)
    if num_known > project.num_tasks:
        _forget_tasks(store, client, cycle)
    return cycle


def _enter_changed(
    store: Store,
    client: LabelStudioClient,
    cycle: Reconciled,
    changed_since: float,
    on_task: Callable[[AnnotatedTask], None],
) -> None:
    revisions = store.ledger.revisions(cycle.project)
    ledger = {annotation: _LedgerState(revision) for annotation, revision in revisions.items()}
    for task in client.annotated_tasks(cycle.project, changed_since=changed_since):
        _enter_task(store, ledger, task, cycle)
        on_task(task)
    store.ledger.catch_up()


def _enter_all(
    store: Store, client: LabelStudioClient, cycle: Reconciled, on_task: Callable[[AnnotatedTask], None]
) -> None:
    """Enter all annotations, and the deletion of those that Label Studio no longer lists."""
    # Read before Label Studio is asked, so that an annotation that isn't listed can only have been deleted.
    ledger = _ledger_states(store, cycle.project)
    unlisted = dict.fromkeys(ledger)
    cycle.num_tasks = cycle.num_annotations = 0
    cycle.is_complete = True
    for task in client.annotated_tasks(cycle.project):
        for annotation in task.annotations:
            unlisted.pop(annotation["id"], None)
        _enter_task(store, ledger, task, cycle)
        on_task(task)
    _enter_deleted(store, client, unlisted, cycle)
    store.ledger.catch_up()


@dataclass(frozen=True, slots=True)
class _LedgerState:
    """An annotation as the ledger has it; `content` is None if it isn't to be compared."""

    revision: float
    content: int | None = None
    is_bulk: bool = False


def _ledger_states(store: Store, project_id: int) -> dict[int, _LedgerState]:
    """By annotation."""
    states = {}
    entered = itertools.chain.from_iterable(store.annotations.standing_pages(project_id))
    for annotation, group in itertools.groupby(entered, lambda entry: entry.annotation):
        standing = list(group)
        is_bulk = any(entry.outcome is Outcome.BULK for entry in standing)
        states[annotation] = _LedgerState(standing[0].revision, _content(standing), is_bulk)
    return states


def _content(standing: Collection[Entry]) -> int:
    """A hash of an annotation's task and labels, without what was suggested."""
    labels = {(entry.task, entry.control, entry.region, *entry.labels) for entry in standing if entry.labels}
    return hash(frozenset(labels | {(entry.task,) for entry in standing}))


def _enter_task(store: Store, ledger: Mapping[int, _LedgerState], task: AnnotatedTask, cycle: Reconciled) -> None:
    """Enter the task's annotations that the ledger has neither in this nor in a later revision."""
    cycle.num_tasks += 1
    cycle.num_annotations += len(task.annotations) + task.num_unreadable
    cycle.num_refused += task.num_unreadable
    event_task = {"id": task.id, "data": task.data, "project": cycle.project}
    for annotation in task.annotations:
        # The result is null if the annotation was made without any.
        current: dict[str, Any] = annotation | {"result": annotation.get("result") or []}
        before = ledger.get(annotation["id"])
        is_bulk = made_in_bulk(annotation)
        if before and before.revision >= _revision(current):
            if not _is_changed_in_silence(current, before, cycle):
                continue
            current["updated_at"] = _just_after(before.revision)  # the ledger takes only the first event of a revision
            is_bulk = before.is_bulk
        try:
            if is_bulk:
                _append(store, "ANNOTATIONS_CREATED", cycle, annotation=[current], task=[event_task])
            else:
                action = "ANNOTATION_UPDATED" if before else "ANNOTATION_CREATED"
                _append(store, action, cycle, annotation=current, task=event_task)
        except RequestError as error:  # the others are entered all the same
            log.warning("annotation %s is left out: %s", annotation["id"], error, extra={"task": task.id})
            cycle.num_refused += 1
            continue
        cycle.num_entered += 1


def _is_changed_in_silence(annotation: Mapping[str, Any], before: _LedgerState, cycle: Reconciled) -> bool:
    """Whether the annotation's content changed within the ledger's revision.

    The Data Manager's «rename labels» and «remove duplicated tasks» change annotations without a new `updated_at`.
    """
    if before.content is None or before.revision > _revision(annotation) + _SAME_REVISION_S:
        return False
    body = {"annotation": annotation, "project": _event_project(cycle)}
    return before.content != _content(entries(Event(0, 0.0, "ANNOTATION_UPDATED", cycle.project, body, {})))


def _revision(annotation: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(annotation["updated_at"]).timestamp()


def _just_after(revision: float) -> str:
    return (datetime.fromtimestamp(revision, UTC) + timedelta(microseconds=1)).isoformat()


def _enter_deleted(store: Store, client: LabelStudioClient, unlisted: Iterable[int], cycle: Reconciled) -> None:
    """Enter the deletions. Each is verified, because an annotation made during the listing isn't listed, either."""
    deleted = [annotation for annotation in unlisted if _is_deleted(client, annotation, cycle.project)]
    for annotation_ids in in_chunks(deleted, _IDS_PER_EVENT):
        _append(store, "ANNOTATIONS_DELETED", cycle, annotations=[{"id": number} for number in annotation_ids])
    cycle.num_deleted += len(deleted)


def _is_deleted(client: LabelStudioClient, annotation_id: int, project_id: int) -> bool:
    annotation = client.annotation(annotation_id)
    return annotation is None or annotation["project"] != project_id


def _forget_tasks(store: Store, client: LabelStudioClient, cycle: Reconciled) -> None:
    """Forget the tasks that no longer exist, and their predictions."""
    deleted = {task.task for page in store.tasks.of_project(cycle.project) for task in page}
    for task in client.tasks(cycle.project):
        deleted.discard(task.id)
    for task_ids in in_chunks(sorted(deleted), _IDS_PER_EVENT):
        _append(store, "TASKS_DELETED", cycle, tasks=[{"id": task} for task in task_ids])
        store.predictions.forget_tasks(cycle.project, task_ids)
        store.tasks.forget(cycle.project, task_ids)
    cycle.num_tasks_deleted = len(deleted)


def _is_changed(store: Store, project: Project) -> bool:
    try:
        return store.catalog.project(project.id).label_config != project.label_config
    except NotFoundError:  # it never introduced itself
        return False


def made_in_bulk(annotation: Mapping[str, Any]) -> bool:
    """Whether the Data Manager made the annotation from a prediction or another annotation, so that nobody listened.

    Label Studio doesn't record that: `bulk_created` is false, and `parent_prediction` becomes null when the prediction
    is deleted. But only the Data Manager and imports make annotations that nobody has updated, and an imported one is a
    ground truth or has the id of the annotation that it was exported from.
    """
    by_nobody = annotation.get("updated_by") is None and annotation.get("lead_time") is None
    imported = bool(annotation.get("ground_truth")) or annotation.get("import_id") is not None
    return annotation.get("bulk_created") is True or (by_nobody and not imported)


def _append(store: Store, action: str, cycle: Reconciled, **content: Any) -> None:
    """Put the event into the inbox as the webhook would have delivered it."""
    body = {"action": action, **content, "project": _event_project(cycle), "source": "sync"}
    store.append_event(action, cycle.project, body, ahead_s=cycle.ahead_s)


def _event_project(cycle: Reconciled) -> dict[str, Any]:
    return {"id": cycle.project} | ({"label_config": cycle.label_config} if cycle.label_config else {})
