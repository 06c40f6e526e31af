"""The list of benchmarks, and the search for their folders."""

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
    """The benchmarks with these keys; all of them if no key is given. Raises `SettingsError` for an unknown key."""
    known = {source.key: source for source in SOURCES}
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise SettingsError(f"Data set “{unknown[0]}” is unknown: choose from {', '.join(known)}.")
    return tuple(source for source in SOURCES if not keys or source.key in keys)


def locate(source: Source, root: Path) -> Path | None:
    """The data set's folder: the root, a folder in it with a usual name, or a folder in that one; None if none fits.

    Of several, the one whose name comes first in the source's list is returned.

    Raises `SettingsError` if the root isn't a folder.
    """
    if not root.is_dir():
        raise SettingsError(f"Folder {root} doesn't exist: name the one that holds the data sets.")
    named = [child for name in source.folders for child in _folders(root) if _bare(child.name).startswith(name)]
    nested = [grandchild for child in named for grandchild in _folders(child)]
    return next((folder for folder in (root, *named, *nested) if source.is_in(folder)), None)


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir())


def _bare(name: str) -> str:
    """A folder's name in lower case without punctuation: `ESC-50-master` starts like `esc50`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
