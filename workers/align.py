"""`align` jobs: have Label Studio show what it has stored, or ask the backend while predictions are missing."""

from __future__ import annotations

from dataclasses import dataclass

from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels.label_config import parse_label_config
from clapboard.plurals import counted, plural
from clapboard.project.display import completed_tasks, num_coming, settle
from clapboard.project.serving import Serving, find_serving
from clapboard.queue.celery_app import LEARN
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import Job, JobRequest
from workers.put_off import PutOff

COMING_S = 5.0
"""How long the job is put off while predictions are still to come."""

KEPT_S = 5.0
"""How long after a change to check that Label Studio kept it; twice as long after each further change.

When anything reads a backend there, such as its settings page or a task being opened, Label Studio writes the backend's
whole row again a moment later, which undoes changes made in between.
"""

MOST_CHANGES = 4
"""After so many changes, it is clear that something goes on undoing them."""


class Aligner:
    """Runs `align` jobs. It remembers each project's job between its tries."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._tries: dict[int, _Tries] = {}

    def run(self, client: LabelStudioClient, job: Job) -> str:
        """Align the project; a sentence on what Label Studio shows now.

        Raises `PutOff` until Label Studio has kept the change, `LabelStudioError`, `LabelConfigError`, `NoWorkerError`.
        """
        tries = self._tries.get(job.project)
        if tries is None or tries.job != job.id:
            tries = self._tries[job.project] = _Tries(job.id)
        outcome = self._try(client, job.project, tries)
        del self._tries[job.project]
        return outcome

    def _try(self, client: LabelStudioClient, project: int, tries: _Tries) -> str:
        label_space = parse_label_config(self._store.catalog.project(project).label_config)
        serving = find_serving(self._store, self._settings.model, project, label_space)
        version = serving.shown_as
        num_known, _ = self._store.tasks.count(project)
        is_renamed = self._rename(client, project, serving)
        num_to_come = num_coming(self._store, project, version)
        if is_renamed and num_to_come:  # until then, what has the old name goes on being shown
            raise PutOff(COMING_S, _still_to_come(num_to_come))
        if num_to_come and tries.num_settled == num_known:  # nothing has to change before all have come
            raise PutOff(COMING_S, _still_to_come(num_to_come))
        settled = settle(self._store, client, self._settings, project, version)
        tries.num_settled = num_known if num_to_come and not settled.changed else None
        tries.num_changes += settled.changed
        if num_to_come or (num_to_come := num_coming(self._store, project, version)):
            raise PutOff(COMING_S, _still_to_come(num_to_come))
        if not settled.changed:
            return (
                f"Label Studio's versions are {version}; {settled.num_unserved} tasks get their suggestion when opened."
            )
        if tries.num_changes < MOST_CHANGES:
            raise PutOff(
                KEPT_S * 2 ** (tries.num_changes - 1), "Label Studio was changed, and will be checked once more"
            )
        return (
            f"Label Studio was made to show {version} {tries.num_changes} times, and each time something undid it: "
            f"`clapboard doctor --project {project}` tells what it shows now."
        )

    def _rename(self, client: LabelStudioClient, project: int, serving: Serving) -> bool:
        """Owe the open tasks what an earlier release delivered under the version's own name, under today's.

        Returns whether Label Studio still shows that other name.
        """
        shown_as = self._store.displays.get(project).shown_as
        if shown_as == serving.shown_as or shown_as not in ("", serving.model_version):
            return False
        if delivered := self._store.predictions.under_own_name(project, serving.model_version):
            completed = completed_tasks(self._store, project, client.project(project).annotations_per_task)
            self._store.predictions.owe(project, sorted(delivered - completed), serving.model_version)
            self._store.jobs.add(LEARN, [JobRequest("prune", project, delay_s=self._settings.prune_quiet_s)])
        return True


@dataclass
class _Tries:
    """What the tries of one job have seen so far."""

    job: int
    num_changes: int = 0
    num_settled: int | None = None  # how many tasks were known when all was right while some were still to come


def _still_to_come(num_tasks: int) -> str:
    return f"{counted(num_tasks, 'task')} {plural(num_tasks, 'is', 'are')} still to be embedded or pushed"
