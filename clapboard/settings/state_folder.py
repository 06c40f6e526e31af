"""MODEL_DIR: who may read what Clapboard keeps.

It holds people's audio and annotations, so only its owner may read it (700, files 600). To share it with a group, make
it before Clapboard does: `install --directory --mode 2770 --group GROUP FOLDER`. If the group may write to the folder,
new files in it belong to the group too (660). Nobody else can read them, whatever the folder's mode.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from clapboard.errors import SettingsError

_OWNER_ALONE, _GROUP_TOO = 0o077, 0o007


def make_state_folder(folder: Path) -> None:
    """Create the folder, readable by its owner only. Raises `SettingsError` if it can't be written to."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o777 & ~_OWNER_ALONE, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"MODEL_DIR: {folder} can't be written to ({error.strerror}): choose a folder of this user's, or fix its "
            "permissions or disk."
        ) from None


def private_umask(folder: Path) -> int:
    """The umask for new files in the folder: for the owner only or, if the group may write there, for the group too."""
    try:
        return _GROUP_TOO if folder.stat().st_mode & stat.S_IWGRP else _OWNER_ALONE
    except OSError:
        return _OWNER_ALONE


def is_open_to_others(folder: Path) -> bool:
    """Whether users who are neither the owner nor in the group have any access to the folder."""
    try:
        return bool(folder.stat().st_mode & stat.S_IRWXO)
    except OSError:
        return False


def keep_private(folder: Path) -> None:
    """Let new files of this process and its children be readable only by those who may use the folder."""
    os.umask(private_umask(folder))
