"""Taking a project out of Clapboard's hands: what we made in Label Studio goes, what people said stays in the ledger.

Only what is ours goes: backends and webhooks at our addresses, tabs and predictions that the store knows. Each step
reads what is there, so that an interrupted run can be repeated and goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from clapboard.errors import LabelStudioError, LabelStudioLacks, NotFoundError, ProjectBusy
from clapboard.label_studio.client import LabelStudioClient
from clapboard.plurals import counted
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.job_records import Job
from clapboard.suggest.prediction import shown_name

WAIT_S = 60.0
"""How long jobs and pushes that are under way are waited for."""

_POLL_S = 0.2
_PUSH_LEASES = 4  # of a job's, see workers.push


@dataclass
class Disconnected:
    """What went out of Label Studio."""

    project: int
    was_connected: bool = False
    backends: list[str] = field(default_factory=list)  # their addresses
    webhooks: list[str] = field(default_factory=list)
    tabs: list[str] = field(default_factory=list)
    predictions: dict[str, int] = field(default_factory=dict)  # how many, by model version

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return asdict(self)

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to take out."""
        return not (self.was_connected or self.backends or self.webhooks or self.tabs or self.predictions)


def disconnect(
    store: Store,
    client: LabelStudioClient,
    settings: Settings,
    project: int,
    *,
    wait_s: float = WAIT_S,
    on_wait: Callable[[str], object] = lambda _sentence: None,
) -> Disconnected:
    """Take our backend, webhook, tabs and predictions out of the project. The caller holds the project's lock.

    Raises `LabelStudioError`, and `ProjectBusy` if jobs of the project go on for `wait_s`. Nothing has changed if Label
    Studio didn't answer at all.
    """
    try:
        client.project(project)
        is_there = True
    except LabelStudioLacks:
        if not store.departures.is_known(project):
            raise
        is_there = False  # somebody has deleted it, so only we still think it connected
    gone = Disconnected(project, was_connected=store.departures.disconnect(project))
    try:
        if is_there:
            _remove_connection(store, client, settings, gone)
            _remove_tabs(store, client, gone)
        wait_for_jobs(store, settings, project, f"disconnect --project {project}", wait_s=wait_s, on_wait=on_wait)
        _wait_for_pushes(store, settings, project, wait_s)
        if is_there:
            _remove_predictions(store, client, gone)
    except LabelStudioError as error:
        sentence = str(error).rstrip(".")
        again = f"run `clapboard disconnect --project {project}` again, which goes on where it stopped"
        raise type(error)(f"Project {project} is only partly disconnected ({sentence}): {again}.") from error
    store.departures.undelivered(project)
    return gone


def wait_for_jobs(
    store: Store,
    settings: Settings,
    project: int,
    command: str,
    *,
    task: int = 0,
    wait_s: float = WAIT_S,
    on_wait: Callable[[str], object] = lambda _sentence: None,
) -> None:
    """Wait until no worker runs a job of the project, or one that may be about its `task`.

    Raises `ProjectBusy`, naming the job. Jobs of workers that are lost count as ended.
    """
    deadline = time.monotonic() + wait_s
    has_announced = False
    while running := store.jobs.running(project, settings.job_lease_s, task=task):
        name = _name(running[0])
        if time.monotonic() >= deadline:
            raise ProjectBusy(
                f"{name} of project {project} goes on running: wait until it has ended or stop its worker, and run "
                f"`clapboard {command}` again."
            )
        if not has_announced:
            on_wait(f"{name} of project {project} is running: waiting until it has ended.")
            has_announced = True
        time.sleep(_POLL_S)


def _name(job: Job) -> str:
    return f"Job {job.id} ({job.kind})"


def _wait_for_pushes(store: Store, settings: Settings, project: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while count := store.departures.num_pushing(project, _PUSH_LEASES * settings.job_lease_s):
        if time.monotonic() >= deadline:
            raise ProjectBusy(
                f"A worker is still pushing {counted(count, 'prediction')} of project {project}: run "
                f"`clapboard disconnect --project {project}` again later."
            )
        time.sleep(_POLL_S)


def _remove_connection(store: Store, client: LabelStudioClient, settings: Settings, gone: Disconnected) -> None:
    addresses = {url.rstrip("/") for url in (settings.backend_url, *store.access.urls())}
    for backend in client.backends(gone.project):
        if backend.url.rstrip("/") in addresses:
            client.remove_backend(backend.id)
            gone.backends.append(backend.url)
    for webhook in client.webhooks(gone.project):
        if webhook.url in {f"{address}/webhook" for address in addresses}:
            client.remove_webhook(webhook.id)
            gone.webhooks.append(webhook.url)


def _remove_tabs(store: Store, client: LabelStudioClient, gone: Disconnected) -> None:
    there = {tab.id for tab in client.tabs(gone.project)}
    for name, tab in sorted(store.tabs.of_project(gone.project).items()):
        if tab in there:
            client.delete_tab(gone.project, tab)
            gone.tabs.append(name)
        store.tabs.forget(gone.project, name)


def _remove_predictions(store: Store, client: LabelStudioClient, gone: Disconnected) -> None:
    """Delete the predictions of our versions; the version that is shown last, since each deletion clears it."""
    ours = {version.model_version for version in store.versions.of_project(gone.project)}
    ours |= {*store.predictions.model_versions(gone.project)}
    ours |= {shown_name(version) for version in ours}
    with contextlib.suppress(NotFoundError):
        ours.add(store.catalog.project(gone.project).model_version)
    shown = client.project(gone.project).model_version
    there = ours & {shown, *client.model_versions(gone.project)}
    for version in sorted(there, key=lambda version: (version == shown, version)):
        gone.predictions[version] = client.delete_model_version(gone.project, version)
