"""What `clapboard doctor` looks at, in the order in which to mend things. Each line is ok, or says what to do."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import httpx

from clapboard.errors import ClapboardError, LabelConfigError, LabelStudioError, SourceError
from clapboard.jobs import INTERACTIVE, CeleryBell, make_celery
from clapboard.label_studio.checks import Check, check_token, inspect_connection
from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.serving import find_serving
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder

MIN_FREE_GB = 2.0
OLD_JOB_S = 300.0


def examine(settings: Settings, store: Store, project_id: int | None) -> Iterator[Check]:
    """Every check as it is done; those of a project only where one is named."""
    yield Check("store", True, f"{store.database} can be read and written")
    yield _disk(settings)
    yield from _workers(settings, store)
    encoder = store.catalog.encoder(settings.model)
    yield _model(settings, encoder)
    yield _queue(store)
    yield _broker(settings)
    yield _backend(settings)
    if not settings.label_studio_api_key.get_secret_value():
        yield Check("token", False, "LABEL_STUDIO_API_KEY is not set: copy a token from Label Studio's account page.")
        return
    try:
        client = LabelStudioClient(settings)
    except LabelStudioError as error:
        yield Check("token", False, str(error))
        return
    with client:
        if project_id is None or encoder is None:
            yield check_token(client)
        else:
            yield from _project(settings, store, client, project_id)


def _disk(settings: Settings) -> Check:
    there = next(folder for folder in (settings.model_dir, *settings.model_dir.parents) if folder.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    if free_gb < MIN_FREE_GB:
        return Check("disk", False, f"{settings.model_dir} has {free_gb:.1f} GB left: free some, or move MODEL_DIR.")
    return Check("disk", True, f"{settings.model_dir} has {free_gb:.0f} GB left")


def _workers(settings: Settings, store: Store) -> Iterator[Check]:
    alive = store.catalog.workers(settings.job_lease_s)
    if not alive:
        yield Check("worker", False, "No worker is alive: start one with `clapboard worker`, or use `clapboard up`.")
        return
    for worker in alive:
        if worker.model == settings.model:
            message = f"{worker.name} serves {worker.queues} with {worker.model} on {worker.device}"
            yield Check("worker", True, message)
        else:
            yield Check(
                "worker",
                False,
                f"{worker.name} has loaded {worker.model}, but CLAPBOARD_MODEL is {settings.model}: set both alike.",
            )


def _model(settings: Settings, encoder: Encoder | None) -> Check:
    if encoder is None:
        return Check("model", False, f"No worker has loaded {settings.model} yet: start one and look at its log.")
    return Check(
        "model", True, f"{encoder.model} is version {encoder.version}, {encoder.dim} dimensions, {encoder.dtype}"
    )


def _queue(store: Store) -> Check:
    oldest_s = max(store.jobs.oldest_queued_s().values(), default=0.0)
    if oldest_s > OLD_JOB_S:
        return Check("queue", False, f"A job has waited {oldest_s:.0f} s: add workers, or look at `clapboard jobs`.")
    failures = store.jobs.failures()
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(failures.items()))
    return Check("queue", True, f"nothing waits long; failed so far: {told or 'none'}")


def _broker(settings: Settings) -> Check:
    if CeleryBell(make_celery(settings)).ring(INTERACTIVE):
        return Check("broker", True, "the workers' bell can be rung")
    return Check("broker", False, "The broker can't be reached: check CLAPBOARD_BROKER_URL and that it runs.")


def _backend(settings: Settings) -> Check:
    try:
        began = time.perf_counter()
        answer = httpx.get(f"{settings.backend_url}/health", timeout=2.0, trust_env=False)
        spent_ms = 1000 * (time.perf_counter() - began)
    except (httpx.HTTPError, httpx.InvalidURL):
        answer = None
    if answer is None or answer.status_code != httpx.codes.OK or "status" not in answer.text:
        return Check(
            "http backend",
            False,
            f"No backend answers at {settings.backend_url}: start it with `clapboard serve`, or set CLAPBOARD_URL.",
        )
    return Check("http backend", True, f"{settings.backend_url} answers in {spent_ms:.0f} ms")


def _project(settings: Settings, store: Store, client: LabelStudioClient, project_id: int) -> Iterator[Check]:
    try:
        label_space = parse_label_config(client.project(project_id).label_config)
    except LabelConfigError as error:
        yield check_token(client)
        yield Check("label config", False, str(error))
        return
    except ClapboardError as error:
        yield check_token(client)
        yield Check("project", False, str(error))
        return
    served = find_serving(store, settings.model, project_id, label_space)
    yield from inspect_connection(client, settings, project_id, served.model_version)
    yield _label_config(label_space)
    yield _audio(settings, client, label_space, project_id)


def _label_config(label_space: LabelSpace) -> Check:
    told = [f"{control.name} ({len(control.labels)} labels)" for control in label_space.predicted]
    if not told:
        return Check("label config", False, label_space.controls[0].why_not_predicted)
    return Check("label config", True, f"suggestions for {', '.join(told)}")


def _audio(settings: Settings, client: LabelStudioClient, label_space: LabelSpace, project_id: int) -> Check:
    """Whether the audio of the project's first task can really be fetched."""
    task = next(client.tasks(project_id, page_size=1), None)
    if task is None:
        return Check("audio", True, "the project has no tasks yet, so no audio was tried")
    try:
        found = AudioSources(settings).fetch(label_space.audio_uri(task.data), task_id=task.id)
    except SourceError as error:
        return Check("audio", False, f"Task {task.id}: {error}")
    return Check("audio", True, f"task {task.id}'s audio was fetched, {found.path.stat().st_size:,} bytes")
