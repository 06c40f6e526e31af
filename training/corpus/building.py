"""The folder that a data set is made in: it becomes OUT when all is there, and nothing but a build's own is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from clapboard.errors import TrainingError
from training.corpus.manifest import MANIFEST, SPLITS

LOCK = ".clapboard-build"
"""Held while a folder is built in; what has it was begun by a build."""


def require_free(out: Path) -> None:
    """Before hours of work: raises `TrainingError` if `out` holds something, or could not be put in place."""
    if any((out / place / MANIFEST).is_file() for place in ("", *SPLITS)):
        raise TrainingError(f"{out} holds a data set already: name another folder, or delete it first.")
    if out.is_mount():
        raise TrainingError(f"{out} is where a disk is mounted, which can't be replaced: name a new folder in it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} is no empty folder: name a new one, in which nothing of yours can be lost.")


@contextmanager
def building_folder(out: Path) -> Iterator[Path]:
    """OUT.building, empty; left without an error it is renamed to `out`, and else deleted.

    Raises `TrainingError` if it holds something that no build has put there, another build is at work in it, or it
    can't be written.
    """
    building = out.with_name(f"{out.name}.building")
    try:
        building.mkdir(parents=True, exist_ok=True)
        if any(building.iterdir()) and not (building / LOCK).is_file():
            raise TrainingError(f"{building} is in the way, and no build has made it: move it, or name another folder.")
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
            f"{building} is a whole data set, but can't become {out} ({error.strerror}): rename it yourself."
        ) from error
    finally:
        for place in (building, out):
            (place / LOCK).unlink(missing_ok=True)
        lock.release()


def _clear(building: Path) -> None:
    """Deletes what a build that was killed has left."""
    for left in building.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        elif left.name != LOCK:
            left.unlink()
