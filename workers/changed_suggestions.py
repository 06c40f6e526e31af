"""Which suggestions a version changes compared with what Label Studio has, and sending those that people see next.

Label Studio has a task's suggestion by some version of the same name (`prediction.shown_name`). If the new version
suggests the same about as surely, that one stays. Label Studio takes 0.1 s to change a prediction, but many seconds to
import one into a large project, so predictions that are there are changed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from clapboard.errors import LabelStudioError
from clapboard.label_studio.client import LabelStudioClient
from clapboard.store import Store
from clapboard.store.displays import UNCERTAINTY, Display
from clapboard.store.prediction_records import Delivery, StoredPrediction
from clapboard.store.tasks import KnownTask
from workers.push import Pusher
from workers.rollout_pages import TaskPage, page_predictions
from workers.rollout_plan import RolloutPlan

NOTICEABLE = 0.05
"""A score that moves by more than this is sent, so that uncertainty sampling and the Data Manager follow."""

LOOKED_AT = 300
"""Among so many tasks that people get next, those whose suggestion changes are sent at once."""

MOST_AT_ONCE = 100
FIRST = 10
"""So many are sent before anything else, in the order in which people get them; the rest by the thread that pushes."""

SOON_S = 1.0
"""How long after Label Studio refused one of the first ones it is tried again."""

FIRST_S = 0.5
"""How long sending the first ones may take: the next label is waiting to be learnt from."""

_TASKS_PER_LOOK = 2000


@dataclass(frozen=True)
class Changed:
    """Predictions that differ from those in Label Studio, and those of tasks that have none there."""

    to_change: list[StoredPrediction] = field(default_factory=list)
    to_add: list[StoredPrediction] = field(default_factory=list)
    up_to: int | None = None  # the last task that was compared, if not all were


class ChangedSuggestions:
    """Finds and sends them. Without a token, there is neither client nor pusher, and nothing is sent."""

    def __init__(self, store: Store, client: LabelStudioClient | None, pusher: Pusher | None) -> None:
        self._store = store
        self._client = client
        self._pusher = pusher

    def send_next(self, plan: RolloutPlan, display: Display, page: TaskPage) -> int:
        """Send what changes for the tasks that people get next; how many predictions that are."""
        if self._client is None or not page.tasks:
            return 0
        changed = self.find(plan, display.shown_as, page)
        coming = changed.to_change[:MOST_AT_ONCE]
        claimed = self._store.predictions.claim(coming[:FIRST])
        claimed_ids = {prediction.task for prediction in claimed}
        later = [prediction for prediction in coming if prediction.task not in claimed_ids]
        self._store.predictions.put_all(later + changed.to_add[:MOST_AT_ONCE], push=True)
        self._send_first(self._client, claimed, display.shown_as)
        return len(coming)

    def send(self, changed: Changed) -> int:
        """Send all of them, and wait for those that are changed; how many those are."""
        if self._pusher is None:
            return 0
        self._store.predictions.put_all(changed.to_add, push=True)
        return self._pusher.push(self._store.predictions.claim(changed.to_change))

    def find(self, plan: RolloutPlan, shown_as: str, page: TaskPage, *, limit: int | None = None) -> Changed:
        """What the version changes for the page's open tasks, in the page's order.

        With a `limit`, it stops at so many changes, and before a task to which another version's prediction is being
        pushed at this moment.
        """
        changed = Changed()
        predictions = page_predictions(plan, page)
        current = self._store.predictions.current(plan.project, [new.task for new in predictions], shown_as)
        for new in predictions:
            delivery, old = current.get(new.task, (None, None))
            is_busy = delivery == Delivery.PUSHING and old is not None and old.model_version != new.model_version
            if limit is not None and (is_busy or len(changed.to_change) == limit):
                return replace(changed, up_to=new.task - 1)
            if old is None:
                changed.to_add.append(new)
            elif is_changed(old, new):
                changed.to_change.append(new)
        return changed

    def _send_first(self, client: LabelStudioClient, claimed: Sequence[StoredPrediction], shown_as: str) -> None:
        """Change these predictions one by one; those that fail or take too long are left to the thread that pushes."""
        if not claimed:
            return
        project, model_version = claimed[0].project, claimed[0].model_version
        left = {prediction.task for prediction in claimed}
        ends_at, delay_s = time.monotonic() + FIRST_S, 0.0
        try:
            for prediction in claimed:
                if time.monotonic() > ends_at:
                    break
                ids = client.predictions_of_task(prediction.task, shown_as)
                if ids and client.change_prediction(project, ids[-1], prediction.as_json()):
                    self._store.predictions.pushed(project, [prediction.task], model_version)
                    left.remove(prediction.task)
        except LabelStudioError:
            delay_s = SOON_S
        self._store.predictions.push_later(project, sorted(left), model_version, delay_s)


def next_tasks(store: Store, display: Display) -> list[KnownTask]:
    """The open tasks that people get next, first ones first, by the project's sampling.

    In random order, which Label Studio uses for uniform sampling, these are no likelier than others.
    """
    if display.sampling != UNCERTAINTY:
        tasks = store.tasks.open_after(display.project, display.front - 1, LOOKED_AT, display.annotations_per_task)
        if tasks and tasks[0].task != display.front:
            store.displays.set_front(display.project, tasks[0].task)
        return tasks
    ordered: list[KnownTask] = []
    task_ids = store.predictions.least_sure(display.project, display.shown_as)
    for start in range(0, len(task_ids), _TASKS_PER_LOOK):
        chunk = task_ids[start : start + _TASKS_PER_LOOK]
        still_open = store.tasks.open_after(display.project, -1, len(chunk), display.annotations_per_task, among=chunk)
        place = {task_id: number for number, task_id in enumerate(chunk)}
        ordered += sorted(still_open, key=lambda task: place[task.task])
        if len(ordered) >= LOOKED_AT:
            break
    return ordered[:LOOKED_AT]


def is_changed(old: StoredPrediction, new: StoredPrediction) -> bool:
    """Whether people, or Label Studio's sampling, would notice the difference."""
    if old.model_version == new.model_version and old.uri_key == new.uri_key:
        return False
    if old.uri_key != new.uri_key or abs(old.score - new.score) > NOTICEABLE or len(old.result) != len(new.result):
        return True
    return any(
        (before["from_name"], before["value"]) != (after["from_name"], after["value"])
        or abs(before["score"] - after["score"]) > NOTICEABLE
        for before, after in zip(old.result, new.result, strict=True)
    )
