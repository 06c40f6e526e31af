"""Clips listed in a CSV, and their embeddings by the very code that serves."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clapboard import scoring
from clapboard.clap import ClapEncoder
from clapboard.errors import AudioError, TrainingError
from clapboard.head import Head, zero_shot_head
from clapboard.labels import Control, LabelSpace
from clapboard.prediction import compute_class_weights
from clapboard.scoring import Array
from training.evaluate import Truth

_NEEDED = ("path", "label", "group")


@dataclass(frozen=True)
class ListedClip:
    """A row of the manifest: one file, its label, its source recording, and its fold where the manifest has folds."""

    path: Path
    label: str
    group: str
    fold: str | None = None


@dataclass(frozen=True)
class Unreadable:
    """A file that is left out, and why in one sentence."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class EmbeddedClips:
    """N clips of one single-choice control, each with its windows' embeddings `[W, D]`."""

    label_space: LabelSpace
    zero_shot: Head
    clips: tuple[ListedClip, ...]
    windows: tuple[Array, ...]

    @property
    def control(self) -> Control:
        """The one control."""
        return self.label_space.predicted[0]

    @property
    def values(self) -> tuple[str, ...]:
        """The control's L labels."""
        return tuple(label.value for label in self.control.labels)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Each clip's label by its place in the control, `[N]`."""
        return np.array([self.values.index(clip.label) for clip in self.clips], int)

    @property
    def truth(self) -> Truth:
        """Which label holds, `[N, L]`."""
        return np.eye(len(self.values), dtype=bool)[self.labels]

    @cached_property
    def groups(self) -> npt.NDArray[np.str_]:
        """Each clip's source recording, `[N]`."""
        return np.array([clip.group for clip in self.clips], str)

    @cached_property
    def embeddings(self) -> Array:
        """One embedding for each clip, `[N, D]`: the mean direction of its windows."""
        empty = np.zeros((0, self.zero_shot.controls[0].center.size), np.float32)
        return np.concatenate([empty, *(scoring.mean_direction(windows)[None] for windows in self.windows)])

    def take(self, places: npt.NDArray[np.int64]) -> EmbeddedClips:
        """The clips at those places alone, in that order."""
        return replace(self, clips=tuple(self.clips[i] for i in places), windows=tuple(self.windows[i] for i in places))


def read_clips(manifest: Path) -> list[ListedClip]:
    """The clips that the manifest lists; a relative path starts at the manifest's folder.

    Raises `TrainingError` if it can't be read, lacks a column or a value, names a missing file, or has a single label.
    """
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            _require_columns(manifest, rows.fieldnames or ())
            clips = [_clip(manifest, rows.line_num, row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no CSV in UTF-8"
        raise TrainingError(f"Manifest {manifest} can't be read: {reason}.") from error
    missing = [clip.path for clip in clips if not clip.path.is_file()]
    if missing:
        count = f"{len(missing)} of the {len(clips)} files"
        raise TrainingError(
            f"{count} that manifest {manifest} names don't exist, such as {missing[0]}: give paths relative to the "
            "manifest's folder, or absolute ones."
        )
    labels = sorted({clip.label for clip in clips})
    if len(labels) < 2:
        found = f"only the label “{labels[0]}”" if labels else "no clips"
        raise TrainingError(f"Manifest {manifest} has {found}: list clips of two labels at least.")
    return clips


def embed_clips(
    encoder: ClapEncoder,
    label_space: LabelSpace,
    clips: Sequence[ListedClip],
    *,
    on_clip: Callable[[], None] = lambda: None,
) -> tuple[EmbeddedClips, list[Unreadable]]:
    """The clips with their embeddings, and those that can't be decoded.

    `on_clip` hears of each clip that is done.
    """
    heard: list[ListedClip] = []
    windows: list[Array] = []
    unreadable = []
    for clip in clips:
        try:
            windows.append(encoder.embed_file(clip.path))
            heard.append(clip)
        except AudioError as error:
            unreadable.append(Unreadable(clip.path, str(error)))
        on_clip()
    zero_shot = zero_shot_head(
        label_space, compute_class_weights(label_space, encoder.embed_texts), encoder.logit_scale
    )
    return EmbeddedClips(label_space, zero_shot, tuple(heard), tuple(windows)), unreadable


def _require_columns(manifest: Path, columns: Sequence[str]) -> None:
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise TrainingError(
            f"Manifest {manifest} has no column “{missing[0]}”: its first line must name path, label and group, "
            "and may name fold."
        )


def _clip(manifest: Path, line: int, row: dict[str, str | None]) -> ListedClip:
    path, label, group = ((row[name] or "").strip() for name in _NEEDED)
    for name, value in zip(_NEEDED, (path, label, group), strict=True):
        if not value:
            raise TrainingError(f"Manifest {manifest} has no {name} in line {line}: fill it in, or take the line out.")
    return ListedClip(manifest.parent / path, label, group, (row.get("fold") or "").strip() or None)
