"""The checks of `clapboard doctor`, in the order in which to mend things. Each passes, or says what to do."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator

import httpx

from clapboard.audio.confined.seccomp import lacking
from clapboard.doctor.schedules import check_plans
from clapboard.errors import (
    ClapboardError,
    LabelConfigError,
    LabelStudioError,
    SourceError,
    SourceRefused,
    SourceTooLarge,
    SourceUnavailable,
)
from clapboard.installation.backend_password import with_password
from clapboard.installation.public_address import audio_sources
from clapboard.label_studio.checks import Check, check_token, inspect_connection
from clapboard.label_studio.client import LabelStudioClient
from clapboard.labels.coverage import no_suggestions, with_suggestions, without_suggestions
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.plurals import counted
from clapboard.project.agreement import agreement
from clapboard.project.display import name_in_use
from clapboard.project.serving import find_serving
from clapboard.queue.celery_app import INTERACTIVE, CeleryWaker, make_celery
from clapboard.settings import Settings
from clapboard.settings.certificates import trusted_authorities
from clapboard.settings.state_folder import is_open_to_others
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.job_records import claimable

MIN_FREE_GB = 2.0
OLD_JOB_S = 300.0


def examine(settings: Settings, store: Store, project_id: int | None) -> Iterator[Check]:
    """Run the checks one by one; those of a project only if `project_id` is given."""
    yield Check("store", True, f"{store.database} can be read and written")
    yield _privacy(settings)
    yield _disk(settings)
    yield _decoding()
    yield from _workers(settings, store)
    encoder = store.catalog.encoder(settings.model)
    yield _model(settings, encoder)
    yield _queue(store)
    yield _claimable(settings, store)
    yield _broker(settings)
    yield _backend(settings)
    yield from check_plans(settings, store)
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


def _privacy(settings: Settings) -> Check:
    folder = settings.model_dir
    if is_open_to_others(folder):
        message = f"Other users of this machine can read {folder}: run `chmod -R o-rwx {folder}`."
        return Check("privacy", False, message)
    return Check("privacy", True, f"{folder} is readable only by its owner, or a group")


def _disk(settings: Settings) -> Check:
    existing = next(folder for folder in (settings.model_dir, *settings.model_dir.parents) if folder.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    if free_gb < MIN_FREE_GB:
        return Check(
            "disk", False, f"{settings.model_dir} has only {free_gb:.1f} GB left: free some space, or move MODEL_DIR."
        )
    return Check("disk", True, f"{settings.model_dir} has {free_gb:.0f} GB left")


def _decoding() -> Check:
    """Whether decoders run fully confined on this machine."""
    if reason := lacking():
        message = (
            "Decoders of audio run in processes with little memory and none of our secrets, but without a filter of "
            f"system calls: {reason}. Run workers on Linux, in a container that allows seccomp."
        )
        return Check("decoding", False, message)
    return Check("decoding", True, "decoders run confined: they can open no file and reach no network")


def _workers(settings: Settings, store: Store) -> Iterator[Check]:
    alive = store.catalog.workers(settings.job_lease_s)
    if not alive:
        yield Check("worker", False, "No worker is alive: start one with `clapboard worker`, or use `clapboard up`.")
        return
    for worker in alive:
        if worker.model == settings.model:
            computing = f" ({worker.computing})" if worker.computing else ""
            message = f"{worker.name} serves {worker.queues} with {worker.model} on {worker.device}{computing}"
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
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(failures.items()))
    return Check("queue", True, f"no job has waited long; failed so far: {reasons or 'none'}")


def _claimable(settings: Settings, store: Store) -> Check:
    """Whether each queued job has a living worker that can take it."""
    alive = store.catalog.workers(settings.job_lease_s)
    loaded = {name for worker in alive for name in claimable(worker.model, *worker.encoder.partition(" ")[::2])}
    waiting = {name: num for name, num in sorted(store.jobs.queued_for().items()) if name and name not in loaded}
    if not waiting:
        return Check("encoders", True, "every queued job has a worker with its encoder")
    counts = ", ".join(f"{num} for {name}" for name, num in waiting.items())
    return Check(
        "encoders",
        False,
        f"No living worker can take some of the queued jobs ({counts}): start one with that CLAPBOARD_MODEL and "
        "CLAPBOARD_DTYPE. Jobs of a model that you have replaced stay queued until then.",
    )


def _broker(settings: Settings) -> Check:
    if CeleryWaker(make_celery(settings)).wake(INTERACTIVE):
        return Check("broker", True, "it accepts wake-ups")
    return Check("broker", False, "The broker can't be reached: check CLAPBOARD_BROKER_URL and that it runs.")


def _backend(settings: Settings) -> Check:
    password = settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()
    try:
        began = time.perf_counter()
        answer = httpx.get(
            f"{settings.backend_url}/health",
            auth=password if password[0] else None,  # label-studio-ml asks for it even here
            timeout=2.0,
            trust_env=False,
            verify=trusted_authorities(settings),
        )
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
    name = name_in_use(store, project_id, served.model_version)
    yield from inspect_connection(client, with_password(settings, store), project_id, name)
    yield _label_config(label_space)
    yield _labels(store, label_space, project_id)
    yield _audio(settings, store, client, label_space, project_id)


def _label_config(label_space: LabelSpace) -> Check:
    if not label_space.suggested:
        return Check("label config", False, no_suggestions(label_space))
    sentences = [f"suggestions for {with_suggestions(label_space)}.", *without_suggestions(label_space)]
    return Check("label config", True, " ".join(sentences))


def _labels(store: Store, label_space: LabelSpace, project_id: int) -> Check:
    """Whether every annotation is learnt from. Disagreement between annotators is mentioned, but isn't a failure."""
    store.ledger.catch_up()
    agreed = agreement(store, project_id, label_space)
    left_out = agreed.left_out
    message = f"{counted(len(agreed.labels), 'task')} learnt from or tested on. {left_out.sentence}".rstrip()
    if left_out.unknown:
        label = left_out.unknown[0].label
        remedy = f"clapboard labels rename --project {project_id} {shlex.quote(label)} NEW"
        return Check("labels", False, f'{message} If it was renamed: `{remedy}`, or give the label alias="{label}".')
    if left_out.ties:
        message += f" `clapboard ledger --project {project_id}` names them."
    return Check("labels", True, message)


def _audio(
    settings: Settings, store: Store, client: LabelStudioClient, label_space: LabelSpace, project_id: int
) -> Check:
    """Whether the audio of the project's first task can be fetched. It is fetched."""
    task = next(client.tasks(project_id, page_size=1), None)
    if task is None:
        return Check("audio", True, "the project has no tasks yet, so no audio was tried")
    try:
        audio_file = audio_sources(settings, store).fetch(label_space.audio_uri(task.data), task_id=task.id)
    except SourceError as error:
        return Check("audio", False, f"Task {task.id}: {error} {_audio_remedy(error, label_space.audio_key)}".strip())
    return Check("audio", True, f"task {task.id}'s audio was fetched, {audio_file.path.stat().st_size:,} bytes")


def _audio_remedy(error: SourceError, key: str) -> str:
    """What to do about the error; empty if its sentence says so already."""
    if isinstance(error, SourceUnavailable):
        return "Mend that, then run this again."
    if isinstance(error, SourceTooLarge):
        return "Raise it, or remove the task."
    if isinstance(error, SourceRefused) and ": " in str(error):
        return ""
    return f"Correct the address in the task's “{key}”, or import the file again."
