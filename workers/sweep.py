"""`sweep` jobs: bring the suggestions that a new head changes to Label Studio, behind the people who work there.

A head takes over by moving the project's pointer; only what people get next is sent at once. The sweep goes round all
other tasks in slices. How far it has come is in the store (`clapboard.store.displays`), so that any worker goes on
after a kill. A newer version sends it once round again from where it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from clapboard.plurals import counted, plural
from clapboard.queue.celery_app import LEARN
from clapboard.store import Store
from clapboard.store.displays import Display
from clapboard.store.jobs import Job
from workers.changed_suggestions import ChangedSuggestions
from workers.job_queue import JobQueue
from workers.put_off import PutOff
from workers.rollout_pages import RolloutPages, TaskPage, page_of
from workers.rollout_plan import RolloutPlan, RolloutPlanner

QUIET_S = 2.0
"""The sweep begins when no version has taken over for so long: the next one may change the same suggestions."""

PATIENCE_S = 30.0
"""It begins after so long even while versions follow each other."""

SLICE_S = 0.5
"""How long a slice may keep Label Studio, and the queue of labels to learn from, busy."""

FEWEST, MOST = 2, 50
"""How many predictions a slice changes at least and at most."""

GIVE_WAY_S = 0.1
"""How long it rests at least: of jobs that are due, the oldest goes first, and labels wait to be learnt from."""

TASKS_PER_PAGE = 500

SLOWER = 1.5
"""Label Studio is busy if it takes this many times as long as usual."""

USUAL_GROWS = 1.05
"""How much longer than before it may take in each slice and count as idle: its tables grow."""

REST, REST_OF_PEOPLE = 1.0, 3.0
"""The sweep rests for so many times as long as a slice took: while nobody annotates, and while somebody does."""

ANNOTATING_S = 20.0
LONGEST_REST_S = 60.0

EMBEDDING_S = 5.0
"""How long the job is put off while tasks are being embedded."""


class Sweeper:
    """Runs a project's `sweep` jobs. The caller holds the project's lock."""

    def __init__(
        self,
        store: Store,
        queue: JobQueue,
        planner: RolloutPlanner,
        pages: RolloutPages,
        changed: ChangedSuggestions,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._queue = queue
        self._planner = planner
        self._pages = pages
        self._changed = changed
        self._monotonic = monotonic

    def run(self, job: Job) -> str:
        """Sweep a slice. Raises `PutOff` until the sweep has come round, `ModelError`, `NotFoundError`."""
        display = self._display(job.project)
        if not display.model_version:
            return self._end(display)
        if (wait_s := _begins_at(display) - self._store.clock()) > 0:
            raise PutOff(wait_s, "suggestions wait to be brought up to date")
        plan = self._planner.plan_changes(self._store.versions.get(job.project, display.model_version))
        began_at = self._monotonic()
        num_changed, display = self._slice(plan, display)
        self._rest(display, self._monotonic() - began_at, num_changed)
        if not display.model_version:
            return self._end(display)
        rest_s = self._store.displays.get(job.project).rests_until - self._store.clock()
        raise PutOff(max(GIVE_WAY_S, rest_s), f"suggestions are brought up to date, by now up to task {display.cursor}")

    def _display(self, project: int) -> Display:
        """The project's display; its sweep begins again if another version serves than the one that is swept out."""
        display = self._store.displays.get(project)
        promoted = self._store.versions.promoted(project)
        if display.model_version and promoted and promoted.model_version != display.model_version:
            self._store.displays.begin_sweep(project, promoted.model_version)
            return self._store.displays.get(project)
        return display

    def _end(self, display: Display) -> str:
        """What came of the round. What was embedded meanwhile is learnt from: labels, and what it adds to the pool."""
        if display.awaits_embeddings:
            if num_open := self._store.jobs.num_predicting(display.project):
                verb = plural(num_open, "is", "are")
                raise PutOff(EMBEDDING_S, f"{counted(num_open, 'task')} {verb} still to be embedded")
            self._store.displays.await_embeddings(display.project, False)
            self._queue.add_for_project(LEARN, "learn", display.project)
        if promoted := self._store.versions.promoted(display.project):
            self._store.predictions.owe_answered(display.project, promoted.model_version)
        if display.is_live:  # Label Studio may show what it has stored again
            self._queue.add_for_project(LEARN, "align", display.project)
        return "All suggestions are up to date."

    def _slice(self, plan: RolloutPlan, display: Display) -> tuple[int, Display]:
        """Sweep some tasks; how many predictions were changed, and how far the sweep has come."""
        limit = FEWEST if not display.answer_s else int(min(MOST, max(FEWEST, SLICE_S / display.answer_s)))
        ends_at = self._monotonic() + SLICE_S
        num_changed = 0
        while display.model_version and num_changed < limit and self._monotonic() < ends_at:
            page, is_last = self._page(plan, display)
            if self._pages.queue_missing(plan, page):
                self._store.displays.await_embeddings(plan.project, True)
            changed = self._changed.find(plan, display.shown_as, page, limit=limit - num_changed)
            num_changed += self._changed.send(changed)
            last_task = changed.up_to or (page.tasks[-1].task if page.tasks else display.cursor)
            self._store.displays.advance(display, last_task, is_at_end=is_last and changed.up_to is None)
            display, before = self._store.displays.get(plan.project), display
            if display.took_over_at != before.took_over_at or changed.up_to is not None:
                break
        return num_changed, display

    def _page(self, plan: RolloutPlan, display: Display) -> tuple[TaskPage, bool]:
        """The next tasks of this half of the round, and whether none follow."""
        tasks = self._store.tasks.after(plan.project, display.cursor, TASKS_PER_PAGE)
        is_last = len(tasks) < TASKS_PER_PAGE
        if display.has_wrapped and tasks and tasks[-1].task >= display.ends_at:
            tasks, is_last = [task for task in tasks if task.task <= display.ends_at], True
        tasks = [task for task in tasks if not task.held_out]
        task_ids = [task.task for task in tasks]
        still_open = (
            self._store.tasks.open_after(plan.project, -1, len(tasks), display.annotations_per_task, among=task_ids)
            if tasks
            else []
        )
        open_ids = {task.task for task in still_open}
        return page_of(self._store, plan, tasks, open_ids), is_last

    def _rest(self, display: Display, took_s: float, num_changed: int) -> None:
        """Leave Label Studio in peace, for longer the more the slice's changes took it compared with usually."""
        if not num_changed or not display.model_version:
            return
        now, answer_s = self._store.clock(), took_s / num_changed
        usual_s = min(answer_s, USUAL_GROWS * display.answer_s) if display.answer_s else answer_s
        is_annotated = now - self._store.inbox.last_annotated_at(display.project) < ANNOTATING_S
        rest_s = took_s * (REST_OF_PEOPLE if is_annotated else REST)
        if answer_s > SLOWER * usual_s:
            rest_s *= (answer_s / usual_s) ** 2
        self._store.displays.rest(display.project, now + min(rest_s, LONGEST_REST_S), usual_s)


def _begins_at(display: Display) -> float:
    """When the next slice may begin, in seconds since 1970."""
    settled_at = min(display.took_over_at + QUIET_S, display.unswept_since + PATIENCE_S)
    return max(settled_at, display.rests_until)
