"""What Label Studio shows when a task is opened: its stored predictions, or an answer that it asks the backend for.

Label Studio 1.23.2 decides by comparing the backend's title with the project's model version. Measured on a real server
with default flags, for a task whose prediction of the project's version is stored and for one that has none:

    title and version         backend    label stream, stored / none    Data Manager, stored / none
    the same: **live**        up         shown / asked and shown        shown / asked and shown
    the same: **live**        down       BLANK / blank                  shown / blank
    different: **stored**     up         shown / BLANK                  shown / asked and shown
    different: **stored**     down       shown / blank                  shown / blank

- In a live project the label stream («Label All Tasks», `/api/projects/N/next`) asks the backend for every task
  (`Task.get_predictions_for_prelabeling`), and shows nothing if that fails, even if a prediction is stored. In a stored
  project it never asks. The Data Manager (`/api/tasks/N`) shows the stored predictions of the project's version in both
  cases, and asks only if the task has no prediction of any version.
- «Retrieve Predictions», and listing tasks with `evaluate_predictions_automatically`, ask the project's first backend
  in both cases. While it is down they get nothing, though the page still says «Retrieved N predictions».
- Uncertainty sampling, and the Data Manager's score column and its filter, use the project's version only. The flag
  `ff_front_dev_1682…` (off in 1.23.2) would make them use the version of the backend's last answer.
- A backend's title can't be changed while it is down, because Label Studio calls its `/setup` first.
- Any request that reads a backend (listing backends, its settings, opening a task) checks whether it is up and then
  writes the whole row back as it was read (`MLBackend.update_state`), which undoes a title that was set in between: 6
  of 100 times beside a client that kept listing the backends. So a new title is read back, and again seconds later.
- Label Studio accepts only a project version that is a backend's title or a stored prediction's version. If a backend's
  title was the project's version, a new title changes the project's version with it. So when a live project becomes
  stored, its version is wrong between two requests, and uncertainty sampling is random for that moment.

- If a live project's backend answers another version at `/setup` than the title, the label stream asks for every task
  that has no prediction of that version, shows the answer alone, and shows it again without asking. Uncertainty
  sampling and the score column go by the project's version as ever. The Data Manager's form is filled from the
  prediction of the project's version, and the other one stands beside it.

So a project is **stored** once Label Studio has the suggestion of every task that gets one, and **live** as long as
some are missing: before it is pre-labelled, and while imports are being embedded. It is live, too, while a new head's
suggestions are brought up to date, if nobody can tell which tasks people get next (`Display.asks`): then `/setup` and
`/predict` answer the version's own name, and what was answered is owed under the shared name when the sweep ends.

`settle` brings this about. It is called by `connect`, by a rollout's switch, at the end of a pre-labelling and of a
sweep, and at each reconciliation. If a worker dies before its call, the project keeps its state until the next worker's
first reconciliation: a live one with all of its suggestions, or a stored one whose new tasks are blank in the label
stream and asked for in the Data Manager.
"""

from __future__ import annotations

from dataclasses import dataclass

from clapboard.installation.backend_password import with_password
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.connect import align
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.suggest.prediction import shown_name


@dataclass(frozen=True)
class Settled:
    """Whether something was changed in Label Studio, and how many tasks still lack their suggestion."""

    changed: bool
    num_unserved: int


def settle(store: Store, client: LabelStudioClient, settings: Settings, project_id: int, shown_as: str) -> Settled:
    """Make Label Studio show the versions of this name: their stored predictions if complete, else the backend's.

    Raises `LabelStudioError`.
    """
    record = client.project(project_id)
    num_unserved = unserved(store, project_id, shown_as, record.num_tasks, record.annotations_per_task)
    store.displays.configured(project_id, record.sampling, record.annotations_per_task)
    is_live = num_unserved > 0 or store.displays.get(project_id).asks
    changed = align(client, with_password(settings, store), project_id, shown_as, is_live=is_live)
    store.displays.shows(project_id, shown_as)
    store.displays.set_live(project_id, is_live)
    return Settled(changed, num_unserved)


def ask(store: Store, client: LabelStudioClient, settings: Settings, project_id: int) -> None:
    """Make Label Studio ask the backend for each task that its label stream opens. Raises `LabelStudioError`."""
    display = store.displays.get(project_id)
    align(client, with_password(settings, store), project_id, display.shown_as, is_live=True)
    store.displays.set_live(project_id, True)


def name_in_use(store: Store, project_id: int, model_version: str) -> str:
    """The name by which Label Studio has the serving version's predictions: that of today, or an earlier release's.

    An earlier release gave it the version's own name. That one goes on being shown until an `align` job has brought
    all of them under today's, because the Data Manager shows those of one name only.
    """
    name = shown_name(model_version)
    if store.displays.get(project_id).shown_as == name:
        return name
    return model_version if store.predictions.under_own_name(project_id, model_version) else name


def num_coming(store: Store, project_id: int, shown_as: str) -> int:
    """How many of the project's tasks wait to be predicted, or for their prediction to be pushed."""
    return store.jobs.num_to_predict(project_id) + store.predictions.num_owed(project_id, shown_as)


def completed_tasks(store: Store, project_id: int, annotations_per_task: int = 1) -> set[int]:
    """The project's tasks that have so many annotations that nobody gets them any more."""
    num_annotations = store.annotations.num_by_task(project_id)
    return {task for task, number in num_annotations.items() if number >= annotations_per_task}


def unserved(store: Store, project_id: int, shown_as: str, num_tasks: int, enough: int = 1) -> int:
    """How many of the project's `num_tasks` tasks still need a suggestion of this name that Label Studio lacks.

    Held-out tasks need none, nor do tasks whose audio can't be fetched or that have `enough` annotations.
    """
    failed = store.jobs.failed_for_good(project_id)
    served = store.predictions.delivered_tasks(project_id, shown_as) | failed
    served |= completed_tasks(store, project_id, enough)
    num_unserved, num_known = 0, store.departures.num_forgotten(project_id)  # those get none any more
    for page in store.tasks.of_project(project_id):
        failed -= {task.task for task in page}
        num_known += len(page)
        num_unserved += sum(not task.held_out and task.task not in served for task in page)
    return num_unserved + max(0, num_tasks - num_known - len(failed))
