"""The folder OUT.building. It is renamed to OUT once complete; only files that a build has made are ever deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from clapboard.errors import TrainingError
from training.corpus.manifest import MANIFEST, SPLITS

LOCK = ".clapboard-build"
"""Locked while a build runs; a folder that has this file belongs to a build."""


def require_free(out: Path) -> None:
    """Raises `TrainingError` if `out` isn't empty or can't be replaced: better before hours of work than after."""
    if any((out / place / MANIFEST).is_file() for place in ("", *SPLITS)):
        raise TrainingError(f"{out} holds a data set already: name another folder, or delete it first.")
    if out.is_mount():
        raise TrainingError(f"{out} is a mount point, which can't be replaced: name a new folder in it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} isn't an empty folder: name a new one, so that none of your files are lost.")


@contextmanager
def building_folder(out: Path) -> Iterator[Path]:
    """Yields OUT.building, empty; renames it to `out` at the end, or deletes it after an error.

    Raises `TrainingError` if the folder holds files that no build has put there, if another build is using it, or if it
    can't be written.
    """
    building = out.with_name(f"{out.name}.building")
    try:
        building.mkdir(parents=True, exist_ok=True)
        if any(building.iterdir()) and not (building / LOCK).is_file():
            raise TrainingError(f"{building} exists, but no build has made it: move it, or name another folder.")
        lock = FileLock(building / LOCK)
        lock.acquire(timeout=0)
    except OSError as error:
        if isinstance(error, Timeout):
            raise TrainingError(f"{out} is being built already: wait for it, or name another folder.") from error
        raise TrainingError(f"{out} can't be written ({error.strerror}): name another folder.") from error
    try:
        _clear(building)
        yield building
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        lock.release()
        raise
    try:
        building.rename(out)  # also onto an empty folder
    except OSError as error:
        raise TrainingError(
            f"{building} is a complete data set, but can't be renamed to {out} ({error.strerror}): rename it yourself."
        ) from error
    finally:
        for place in (building, out):
            (place / LOCK).unlink(missing_ok=True)
        lock.release()


def _clear(building: Path) -> None:
    """Deletes what a killed build has left behind."""
    for leftover in building.iterdir():
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        elif leftover.name != LOCK:
            leftover.unlink()
