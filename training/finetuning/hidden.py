"""What the frozen part of the tower makes of every window, computed once and kept in a file beside the run's state.

A clip is decoded once and never held whole: what is kept of it is its windows' hidden states, as they are and, a few
times, as the augmentation changes them.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clapboard.audio import windows
from clapboard.errors import AudioError, TrainingError
from clapboard.features import LogMel
from training.augment import Augment
from training.finetuning.labelled import LabelledClip

LogMels = torch.Tensor
_DECODED_AHEAD = 8
_DECODERS = 2


@dataclass(frozen=True)
class Place:
    """Where a clip's rows begin: of each of its windows `num_views` rows, the first of them unchanged."""

    first: int
    num_windows: int
    num_views: int


class HiddenStates:
    """The rows of all clips, `[rows, …]` float16 on disk, and each clip's place; None for a clip that can't be read."""

    def __init__(self, folder: Path, shape: Sequence[int], places: Sequence[Place | None]) -> None:
        self.places = tuple(places)
        num_rows = sum(place.num_windows * place.num_views for place in places if place)
        self._rows = np.memmap(folder / "hidden.f16", np.float16, "r", shape=(num_rows, *shape)) if num_rows else None

    def rows(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        """Those rows, `[B, …]` float32."""
        assert self._rows is not None
        return torch.from_numpy(self._rows[indices].astype(np.float32))

    def unchanged_rows(self, clip: int) -> npt.NDArray[np.int64]:
        """Where the clip's windows as they are lie, `[W]`; the views of each follow it. It must have been read."""
        place = self.places[clip]
        assert place is not None
        return place.first + np.arange(place.num_windows) * place.num_views

    def unreadable(self, clips: Sequence[LabelledClip]) -> list[str]:
        """The names of the files that could not be read."""
        return [clip.path.name for clip, place in zip(clips, self.places, strict=True) if place is None]

    def draw(self, clips: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """A random window of each clip in a random view: its row, `[B]`."""
        places = [place for clip in clips if (place := self.places[clip])]
        return np.array([place.first + rng.integers(place.num_windows * place.num_views) for place in places])


def compute_hidden_states(
    folder: Path,
    key: str,
    clips: Sequence[LabelledClip],
    lower: Callable[[LogMels], torch.Tensor],
    log_mel: LogMel,
    *,
    num_views: int,
    seed: int,
    on_clip: Callable[[int], None],
) -> HiddenStates:
    """The hidden states of all clips by `lower`, log-mel `[B, 1001, 64]` → `[B, …]`.

    A window is heard `num_views` times more, through the augmentation. What a run with the same key has finished before
    is read again. `on_clip` hears of each clip that is done.
    Raises `TrainingError` if the disk is full.
    """
    table = folder / "hidden.json"
    known = json.loads(table.read_text("utf-8")) if table.is_file() else {}
    if known.get("key") != key:
        table.unlink(missing_ok=True)
        try:
            known = {"key": key} | _write(folder, clips, lower, log_mel, num_views, seed, on_clip)
        except OSError as error:
            raise TrainingError(f"Folder {folder} can't be written to ({error.strerror}): free some space.") from error
        building = table.with_suffix(".building")
        building.write_text(json.dumps(known), "utf-8")
        building.replace(table)
    places = [place and Place(**place) for place in known["places"]]
    return HiddenStates(folder, known["shape"], places)


def remove_hidden_states(folder: Path) -> None:
    """Takes away what `compute_hidden_states` wrote."""
    for name in ("hidden.json", "hidden.f16"):
        (folder / name).unlink(missing_ok=True)


def _write(
    folder: Path,
    clips: Sequence[LabelledClip],
    lower: Callable[[LogMels], torch.Tensor],
    log_mel: LogMel,
    num_views: int,
    seed: int,
    on_clip: Callable[[int], None],
) -> dict[str, object]:
    augment = Augment()
    places: list[dict[str, int] | None] = []
    shape: tuple[int, ...] = ()
    num_rows = 0
    with (folder / "hidden.f16").open("wb") as file:
        for index, features in enumerate(_decoded(clips, log_mel)):
            if features is None:
                places.append(None)
            else:
                views = 1 + num_views
                place = Place(num_rows, len(features), views)
                places.append(asdict(place))
                hidden = lower(_views(features, views, augment, seed + index))  # [W · V, …]
                shape = tuple(hidden.shape[1:])
                num_rows += len(hidden)
                file.write(hidden.to(torch.float16).cpu().numpy().tobytes())
            on_clip(index + 1)
        file.flush()
        os.fsync(file.fileno())
    return {"shape": shape, "places": places}


def _views(features: LogMels, num_views: int, augment: Augment, seed: int) -> LogMels:
    """`[W · V, 1001, 64]`: each window unchanged, then augmented."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        views = [features, *(augment(features) for _ in range(num_views - 1))]
    return torch.stack(views, dim=1).flatten(0, 1)


def _decoded(clips: Sequence[LabelledClip], log_mel: LogMel) -> Iterator[LogMels | None]:
    """Each clip's features `[W, 1001, 64]`, a few clips ahead of their use; None for one that can't be decoded."""
    with ThreadPoolExecutor(_DECODERS) as decoders:
        coming: deque[Future[LogMels | None]] = deque()
        for clip in clips:
            coming.append(decoders.submit(_features, clip.path, log_mel))
            if len(coming) > _DECODED_AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


@torch.no_grad()
def _features(path: Path, log_mel: LogMel) -> LogMels | None:
    try:
        return torch.cat([log_mel(torch.from_numpy(window.waveform)[None]) for window in windows(path)])
    except AudioError:
        return None
