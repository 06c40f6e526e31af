"""Jobs that come by the clock: `sync` at intervals, `train` by a crontab.

Each run happens once, however many workers there are. A run that was missed because no worker was up happens once, when
one is up again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clapboard.plurals import counted
from clapboard.queue.celery_app import LEARN, TRAIN, Waker
from clapboard.settings import Settings
from clapboard.settings.crontab import next_time
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.plans import Plan

PLANNED = {"planned": True}
"""The payload of jobs that the clock asked for, not a person."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Schedule:
    """When jobs of a kind are due, by this worker's settings. The store keeps it as the plan of that name."""

    kind: str
    queue: str
    text: str  # as the store keeps it, to notice a change
    next_after: Callable[[float], float]  # the time of the first run after a time, both in seconds since 1970
    is_due_at_start: bool


class Planner:
    """Queues a job for every connected project whenever a schedule is due."""

    def __init__(
        self, settings: Settings, store: Store, waker: Waker, queues: Sequence[str], *, has_token: bool
    ) -> None:
        """`queues` are those that this worker serves: it plans for no others. Without a token nothing can be synced."""
        self._store = store
        self._waker = waker
        self._serves_training = TRAIN in queues
        self._schedules = [schedule for schedule in _schedules(settings, has_token) if schedule.queue in queues]

    def start(self) -> None:
        """Write this worker's schedules into the store. One that has changed starts over; any other keeps its time."""
        now = self._store.clock()
        if self._serves_training and not any(schedule.kind == "train" for schedule in self._schedules):
            self._store.plans.drop("train")
        for schedule in self._schedules:
            next_at = now if schedule.is_due_at_start else schedule.next_after(now)
            plan = Plan(schedule.kind, schedule.text, next_at)
            self._store.plans.settle(plan, anew=schedule.is_due_at_start)
        self.look()

    def look(self) -> None:
        """Queue what is due."""
        plans, now = self._store.plans.all(), self._store.clock()
        for schedule in self._schedules:
            plan = plans.get(schedule.kind)
            if plan is None:  # dropped by a worker without this setting
                self._store.plans.settle(Plan(schedule.kind, schedule.text, schedule.next_after(now)))
            elif plan.schedule == schedule.text and plan.next_at <= now:
                self._queue_jobs(schedule, plan, now)

    def _queue_jobs(self, schedule: _Schedule, plan: Plan, now: float) -> None:
        projects = self._store.catalog.connected_projects()
        requests = [JobRequest(schedule.kind, project, payload=PLANNED) for project in projects]
        if not self._store.carry_out(plan, schedule.next_after(now), schedule.queue, requests):
            return  # another worker was first
        log.info("planned: %s of %s", schedule.kind, counted(len(projects), "connected project"))
        if requests:
            self._waker.wake(schedule.queue)


def _schedules(settings: Settings, has_token: bool) -> list[_Schedule]:
    schedules = []
    if has_token:
        interval_s = settings.sync_s or math.inf  # 0: at a worker's start alone
        schedules.append(
            _Schedule("sync", LEARN, f"{settings.sync_s:g}", lambda time: time + interval_s, is_due_at_start=True)
        )
    if crontab := settings.train_schedule:
        schedules.append(
            _Schedule("train", TRAIN, crontab, lambda time: next_time(crontab, time), is_due_at_start=False)
        )
    return schedules
