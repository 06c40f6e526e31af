"""Forgetting a project, or tasks of one: rows, sounds, checkpoints and files, so that nothing brings them back.

First it is written down that they are forgotten, and from then on nothing is written about them (`store.departures`).
Then what is running is waited for, and everything is deleted, as often as something is found.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clapboard.errors import NotFoundError, RequestError, SourceError
from clapboard.project.disconnection import WAIT_S, wait_for_jobs
from clapboard.queue.names import LEARN
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.departures import WHOLE_PROJECT
from clapboard.store.forgetting import Forgetting
from clapboard.store.jobs import JobRequest

_MOST_PASSES = 10


@dataclass(frozen=True)
class Forgotten:
    """How much went: rows by table, cached files, and folders of checkpoints and training runs."""

    rows: dict[str, int]
    num_files: int
    num_folders: int


def require_forgettable(store: Store, project: int, tasks: Sequence[int], *, is_label_studio_gone: bool) -> None:
    """Raise `NotFoundError` if nothing is known of the project, `RequestError` if it is connected as a whole."""
    if not store.departures.is_known(project):
        raise NotFoundError(f"Nothing is known here about project {project}: check its number.")
    if not tasks and not is_label_studio_gone and project in store.catalog.connected_projects():
        raise RequestError(
            f"Project {project} is connected: run `clapboard disconnect --project {project}` first, or add "
            "--label-studio-gone if Label Studio no longer exists."
        )


def forget(
    store: Store,
    settings: Settings,
    project: int,
    tasks: Sequence[int] = (),
    *,
    wait_s: float = WAIT_S,
    on_wait: Callable[[str], object] = lambda _sentence: None,
) -> Forgotten:
    """Delete everything about the tasks, or without tasks about the whole project. May be repeated after a kill.

    Raises `ProjectBusy` if jobs about it go on for too long; nothing has been deleted then but queued jobs.
    """
    subjects = tuple(tasks) or (WHOLE_PROJECT,)
    store.departures.forget(project, subjects)
    command = " ".join([f"forget --project {project}", *(f"--task {task}" for task in tasks)])
    for task in subjects:
        wait_for_jobs(store, settings, project, command, task=task, wait_s=wait_s, on_wait=on_wait)
    rows: Counter[str] = Counter()
    num_files = num_folders = 0
    for _ in range(_MOST_PASSES):  # a transaction that was open when it was written down may still have come through
        forgetting = Forgetting(store.database, project, subjects)
        num_files += _delete_sounds(settings, forgetting)
        if not tasks:
            num_folders += _delete_checkpoints(settings, forgetting, project)
        _delete_from_snapshots(settings, project, tasks)
        forgetting.versions()
        forgetting.events()
        forgetting.rows()
        forgetting.inline_audio()
        forgetting.rest()
        rows += forgetting.counts
        if not forgetting.counts.total():
            break
    if tasks and project in store.catalog.connected_projects():
        store.jobs.add(LEARN, [JobRequest("learn", project)])  # heads that don't know the labels
    return Forgotten(dict(sorted((+rows).items())), num_files, num_folders)


def _delete_sounds(settings: Settings, forgetting: Forgetting) -> int:
    """Delete the sounds that nothing else has, first their files. Returns how many files went."""
    uri_keys = forgetting.uri_keys()
    sources = AudioSources(settings)
    num_files = sources.forget({*uri_keys, *_cache_keys(sources, forgetting.addresses(uri_keys))})
    forgetting.sounds(uri_keys)
    if forgetting.counts["embeddings"]:
        shutil.rmtree(settings.vectors_dir, ignore_errors=True)  # copies, which are made again
    return num_files


def _cache_keys(sources: AudioSources, addresses: Iterable[str]) -> set[str]:
    keys = set()
    for address in addresses:
        try:
            keys.add(sources.key(address))
        except SourceError:  # it was never fetched
            continue
    return keys


def _delete_checkpoints(settings: Settings, forgetting: Forgetting, project: int) -> int:
    """Delete finetuned encoders and training runs. Returns how many folders went."""
    on_disk = (settings.model_dir / "models" / str(project)).glob("*")
    checkpoints = forgetting.checkpoints(str(folder.relative_to(settings.model_dir)) for folder in on_disk)
    folders = [settings.model_dir / checkpoint for checkpoint in checkpoints]
    folders += (settings.model_dir / "training").glob(f"{project}-*")
    there = [folder for folder in folders if _is_inside(folder, settings.model_dir) and folder.is_dir()]
    for folder in there:
        shutil.rmtree(folder)
    forgetting.encoders(checkpoints)
    return len(there)


def _delete_from_snapshots(settings: Settings, project: int, tasks: Sequence[int]) -> None:
    """Delete the tasks' labels from what finetunings keep of them, which can't be repeated then."""
    for file in (settings.model_dir / "models" / str(project)).glob("*/snapshot.json"):
        snapshot = json.loads(file.read_text("utf-8"))
        kept = [clip for clip in snapshot["clips"] if clip["task"] not in tasks]
        num_forgotten = len(snapshot["clips"]) - len(kept)
        if num_forgotten:
            snapshot |= {"clips": kept, "num_forgotten": snapshot.get("num_forgotten", 0) + num_forgotten}
            building = file.with_suffix(".building")
            building.write_text(json.dumps(snapshot), "utf-8")
            building.replace(file)


def _is_inside(folder: Path, model_dir: Path) -> bool:
    return model_dir.resolve() in folder.resolve().parents
