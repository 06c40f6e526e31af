"""All benchmarks there are, and where they lie below a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from clapboard.errors import SettingsError
from training.benchmarks.benchmark import Source
from training.benchmarks.captioned import AUDIO_CAPS, CLOTHO
from training.benchmarks.environmental import ESC10, ESC50, URBAN_SOUND_8K
from training.benchmarks.fsd50k import FSD50K
from training.benchmarks.music import GTZAN
from training.benchmarks.vggsound import VGGSOUND

SOURCES = (AUDIO_CAPS, CLOTHO, ESC50, URBAN_SOUND_8K, VGGSOUND, GTZAN, FSD50K, ESC10)


def choose(keys: Sequence[str]) -> tuple[Source, ...]:
    """The benchmarks of these names; all if there are none. Raises `SettingsError` for a name that nothing has."""
    known = {source.key: source for source in SOURCES}
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise SettingsError(f"Data set “{unknown[0]}” is unknown: choose from {', '.join(known)}.")
    return tuple(source for source in SOURCES if not keys or source.key in keys)


def locate(source: Source, root: Path) -> Path | None:
    """The folder that holds the data set: the root, or one below it by its usual name, or one inside of that.

    Of several, the one whose name stands first in the source's counts.

    Raises `SettingsError` if the root is no folder.
    """
    if not root.is_dir():
        raise SettingsError(f"Folder {root} doesn't exist: name the one that holds the data sets.")
    named = [child for name in source.folders for child in _folders(root) if _bare(child.name).startswith(name)]
    nested = [grandchild for child in named for grandchild in _folders(child)]
    return next((folder for folder in (root, *named, *nested) if source.is_in(folder)), None)


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir())


def _bare(name: str) -> str:
    """A folder's name without case and signs: `ESC-50-master` and `esc50` begin alike."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
