"""Rollout: bring a model version into service in a project, while the version before it goes on serving.

    step      returns                 writes                                          repeated after a kill
    plan      RolloutPlan             the version's encoder in the catalog            reads the same again
    predict   predictions of a page   nothing                                         computes the same again
    deliver   nothing                 predictions, then Label Studio                  pushes what Label Studio lacks
    switch    whether it serves       a `prune` job, then the project's pointer       finds the pointer moved
    align     nothing                 the project's version, what Label Studio shows  writes the same again
    prune     Pruned                  a job of its own, after a pause: `pruning`      takes out what is left

A version whose name Label Studio shows already, as another head of the encoder and label space that serve, takes over
at once, whatever the project's size: the pointer moves, what people get next is changed, and a `sweep` job does the
rest (`workers.sweep`). That job is queued before the pointer moves, too. Where nobody can tell which tasks people get
next, Label Studio asks for each task that its label stream opens until the sweep has come round (`Display.asks`).

The lock is the project's: the caller holds it (`ProjectLocks.hold`), and `switch` checks that it still does. Until the
pointer moves nobody sees anything of the version; once it has moved, the `prune` job that was queued before sees to the
rest. Interrupted anywhere and run again, a rollout ends in the same state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from clapboard.project.lock import ProjectLocks
from clapboard.queue.celery_app import LEARN
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.versions import Version
from workers.changed_suggestions import ChangedSuggestions, next_tasks
from workers.rollout_pages import RolloutPages, page_of, page_predictions
from workers.rollout_plan import RolloutPlanner
from workers.shown_version import ShownVersion

REST = 2.0
"""After all tasks were predicted, a project rests so many times as long as that took: people need Label Studio, too."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Takeover:
    """A version that is to serve its project, and on which terms.

    `is_new`: Label Studio can't hold any prediction of it, so it isn't asked, which is faster. `instead_of`: take over
    only from this version (empty: from the base model). `pinned_as`: the name under which a person chose it. Without
    `waits_for_embeddings` it takes over before every task is embedded, which is right for a head on the encoder that
    serves: tasks that are embedded later are predicted with it too.
    """

    version: Version
    is_new: bool = False
    instead_of: str | None = None
    pinned_as: str | None = None
    waits_for_embeddings: bool = True


@dataclass(frozen=True)
class RolloutProgress:
    """How far a rollout came. While `num_waiting` tasks are being embedded or pushed, it has to be run again.

    `num_missing` tasks aren't embedded yet, whether or not the rollout waits for them.
    """

    num_predicted: int
    num_waiting: int
    num_missing: int = 0


class Rollout:
    """Brings versions into service. Every call goes through all steps; those that are done change nothing."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        locks: ProjectLocks,
        planner: RolloutPlanner,
        pages: RolloutPages,
        shown: ShownVersion,
        changed: ChangedSuggestions,
    ) -> None:
        self._settings = settings
        self._store = store
        self._locks = locks
        self._planner = planner
        self._pages = pages
        self._shown = shown
        self._changed = changed

    def run(self, takeover: Takeover, *, on_page: Callable[[int], None] = lambda _num_tasks: None) -> RolloutProgress:
        """Take the rollout as far as it goes now. `on_page` gets the number of tasks in each page that is done.

        Raises `LabelStudioError`, `ModelError` if the version's checkpoint is gone, `NotFoundError` if its head is,
        `ProjectBusy` if the lock was lost.
        """
        if self._shown.is_shown(takeover.version):
            return self._take_over_at_once(takeover)
        began_at = self._store.clock()
        plan = self._planner.plan(takeover.version, is_new=takeover.is_new)
        num_predicted = num_missing = 0
        for page in self._pages.read(plan):  # page by page, so that memory doesn't grow with the project
            predictions = page_predictions(plan, page)
            num_missing += self._pages.queue_missing(plan, page)
            self._pages.deliver(plan, predictions)
            num_predicted += len(predictions)
            on_page(len(page.tasks))
        num_waiting = num_missing if takeover.waits_for_embeddings else 0
        num_waiting += self._shown.num_undelivered(takeover.version)
        if not num_waiting and self._switch(takeover):
            self._shown.show(takeover.version)
            now = self._store.clock()
            self._store.learning.rest(takeover.version.project, now + REST * (now - began_at))
        return RolloutProgress(num_predicted, num_waiting, num_missing)

    def _take_over_at_once(self, takeover: Takeover) -> RolloutProgress:
        """Move the pointer, change what people get next, and leave the rest to the sweep."""
        version = takeover.version
        self._store.displays.begin_sweep(version.project, version.model_version)
        self._store.jobs.add(LEARN, [JobRequest("sweep", version.project)])
        if not self._switch(takeover):
            return RolloutProgress(0, 0)
        self._store.predictions.supersede(version.project, version.model_version)
        plan, display = self._planner.plan_changes(version), self._store.displays.get(version.project)
        if display.asks and not display.is_live:
            self._shown.ask(version)
        tasks = next_tasks(self._store, display)
        page = page_of(self._store, plan, tasks, {task.task for task in tasks})
        return RolloutProgress(self._changed.send_next(plan, display, page), 0)

    def _switch(self, takeover: Takeover) -> bool:
        """Move the project's pointer to the version; False if another version was promoted meanwhile."""
        project, name = takeover.version.project, takeover.version.model_version
        # Queued before the pointer moves: if the process dies between the two, pruning still happens.
        self._store.jobs.add(LEARN, [JobRequest("prune", project, delay_s=self._settings.prune_quiet_s)])
        self._locks.check(project)
        promoted = self._store.versions.promote(
            project, name, instead_of=takeover.instead_of, pinned_as=takeover.pinned_as
        )
        if promoted:
            log.info("promoted", extra={"project": project, "model_version": name})
        return promoted
