"""Clips listed in a CSV, and their embeddings, computed as in service."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clapboard.errors import AudioError, TrainingError
from clapboard.labels.label_space import Control, LabelSpace
from clapboard.model.clap import ClapEncoder
from clapboard.suggest import scoring
from clapboard.suggest.head import Head, zero_shot_head
from clapboard.suggest.prediction import compute_class_weights
from clapboard.suggest.scoring import Array
from training.evaluate import Truth

_NEEDED = ("path", "label", "group")


@dataclass(frozen=True)
class ListedClip:
    """A row of the manifest: a file, its label, its source recording, and its fold if the manifest has folds."""

    path: Path
    label: str
    group: str
    fold: str | None = None


@dataclass(frozen=True)
class Unreadable:
    """A file that is left out, and the reason in one sentence."""

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
        """The only control."""
        return self.label_space.predicted[0]

    @property
    def values(self) -> tuple[str, ...]:
        """The control's L labels."""
        return tuple(label.value for label in self.control.labels)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Each clip's label as its index in the control, `[N]`."""
        return np.array([self.values.index(clip.label) for clip in self.clips], int)

    @property
    def truth(self) -> Truth:
        """The true labels as a mask `[N, L]`."""
        return np.eye(len(self.values), dtype=bool)[self.labels]

    @cached_property
    def groups(self) -> npt.NDArray[np.str_]:
        """Each clip's source recording, `[N]`."""
        return np.array([clip.group for clip in self.clips], str)

    @cached_property
    def embeddings(self) -> Array:
        """One embedding for each clip, the mean direction of its windows: `[N, D]`."""
        empty = np.zeros((0, self.zero_shot.controls[0].center.size), np.float32)
        return np.concatenate([empty, *(scoring.mean_direction(windows)[None] for windows in self.windows)])

    def take(self, places: npt.NDArray[np.int64]) -> EmbeddedClips:
        """Only the clips at these places, in this order."""
        return replace(self, clips=tuple(self.clips[i] for i in places), windows=tuple(self.windows[i] for i in places))


def read_clips(manifest: Path) -> list[ListedClip]:
    """Reads the clips that the manifest lists; paths are relative to the manifest's folder.

    Raises `TrainingError` if it can't be read, lacks a column or a value, names a missing file, or has only one label.
    """
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            _require_columns(manifest, rows.fieldnames or ())
            clips = [_clip(manifest, rows.line_num, row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't CSV in UTF-8"
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
        content = f"only the label “{labels[0]}”" if labels else "no clips"
        raise TrainingError(f"Manifest {manifest} has {content}: list clips of at least two labels.")
    return clips


def embed_clips(
    encoder: ClapEncoder,
    label_space: LabelSpace,
    clips: Sequence[ListedClip],
    *,
    on_clip: Callable[[], None] = lambda: None,
) -> tuple[EmbeddedClips, list[Unreadable]]:
    """The readable clips with their embeddings, and the unreadable files. `on_clip` is called after each clip."""
    readable: list[ListedClip] = []
    windows: list[Array] = []
    unreadable = []
    for clip in clips:
        try:
            windows.append(encoder.embed_file(clip.path))
            readable.append(clip)
        except AudioError as error:
            unreadable.append(Unreadable(clip.path, str(error)))
        on_clip()
    zero_shot = zero_shot_head(
        label_space, compute_class_weights(label_space, encoder.embed_texts), encoder.logit_scale
    )
    return EmbeddedClips(label_space, zero_shot, tuple(readable), tuple(windows)), unreadable


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
            raise TrainingError(f"Manifest {manifest} has no {name} in line {line}: fill it in, or remove the line.")
    return ListedClip(manifest.parent / path, label, group, (row.get("fold") or "").strip() or None)
