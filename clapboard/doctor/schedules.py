"""The checks of scheduled work: when it last ran, how that went, and when it runs next."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

from clapboard.label_studio.checks import Check
from clapboard.queue.pace import duration
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import State
from clapboard.store.plans import Plan

OVERDUE_S = 30.0
"""How late a run may be. Workers look at their plans every second."""

_SYNC, _TRAIN = ("sync", "CLAPBOARD_SYNC_S"), ("train", "CLAPBOARD_TRAIN_SCHEDULE")


def check_plans(settings: Settings, store: Store) -> Iterator[Check]:
    """A check for each kind of scheduled work; for what isn't scheduled, one that says so."""
    if settings.label_studio_api_key.get_secret_value():
        yield _check(store, "lost events", *_SYNC, f"{settings.sync_s:g}")
    if settings.train_schedule:
        yield _check(store, "planned finetuning", *_TRAIN, settings.train_schedule)
    else:
        yield Check("planned finetuning", True, "none: CLAPBOARD_TRAIN_SCHEDULE is empty")


def _check(store: Store, title: str, kind: str, setting: str, schedule: str) -> Check:
    plan = store.plans.all().get(kind)
    if plan is None:
        queue = "learn" if kind == "sync" else "train"
        return Check(title, False, f"No worker has planned it: start one that serves `{queue}` with {setting}.")
    if plan.schedule != schedule:
        return Check(
            title, False, f"The workers use {setting}={plan.schedule}, not {schedule}: set both alike and restart them."
        )
    now = store.clock()
    if plan.next_at < now - OVERDUE_S:
        return Check(
            title,
            False,
            f"It has been overdue since {_moment(plan.next_at)}: start a worker, which makes up for it with one run.",
        )
    times = f"{_last(plan, now)}, {_next(plan, now)}"
    if failed := _failures(store, kind):
        return Check(title, False, f"{times}. The last run failed: {failed}")
    return Check(title, True, times)


def _failures(store: Store, kind: str) -> str:
    """The errors of the connected projects whose newest job failed."""
    ended = (store.jobs.last_ended(kind, project) for project in store.catalog.connected_projects())
    return " ".join(
        f"project {job.project}, job {job.id}: {job.error}" for job in ended if job and job.state == State.FAILED
    )


def _last(plan: Plan, now: float) -> str:
    if plan.last_at is None:
        return "hasn't run yet"
    return f"last ran {duration(max(0.0, now - plan.last_at))} ago ({_moment(plan.last_at)})"


def _next(plan: Plan, now: float) -> str:
    if math.isinf(plan.next_at):
        return "runs next when a worker starts"
    return f"runs next in {duration(max(0.0, plan.next_at - now))} ({_moment(plan.next_at)})"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")
