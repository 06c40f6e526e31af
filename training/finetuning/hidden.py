"""Hidden states: the outputs of the tower's frozen part, computed once for every window and kept in a file.

Each clip is decoded once. What is stored of it are the hidden states of its windows, unchanged and in a few augmented
views.
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

from clapboard.audio.log_mel import LogMel
from clapboard.audio.windows import windows
from clapboard.errors import AudioError, TrainingError
from training.augment import Augment
from training.finetuning.labelled import LabelledClip

LogMels = torch.Tensor
_DECODED_AHEAD = 8
_DECODERS = 2
_WINDOWS_AT_ONCE = 64  # of a long clip: each has several views, and each view hidden states


@dataclass(frozen=True)
class Place:
    """Where a clip's rows lie: from `first` on, `num_views` rows for each window, the first of which is unchanged."""

    first: int
    num_windows: int
    num_views: int


class HiddenStates:
    """The rows of all clips, `[rows, …]` float16 on disk, and each clip's place; None for an unreadable clip."""

    def __init__(self, folder: Path, shape: Sequence[int], places: Sequence[Place | None]) -> None:
        self.places = tuple(places)
        num_rows = sum(place.num_windows * place.num_views for place in places if place)
        self._rows = np.memmap(folder / "hidden.f16", np.float16, "r", shape=(num_rows, *shape)) if num_rows else None

    def rows(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        """The rows with these indices, `[B, …]` float32."""
        assert self._rows is not None
        return torch.from_numpy(self._rows[indices].astype(np.float32))

    def unchanged_rows(self, clip: int) -> npt.NDArray[np.int64]:
        """The indices `[W]` of the clip's unaugmented rows, each followed by its views. The clip must be readable."""
        place = self.places[clip]
        assert place is not None
        return place.first + np.arange(place.num_windows) * place.num_views

    def unreadable(self, clips: Sequence[LabelledClip]) -> list[str]:
        """The names of the files that can't be read."""
        return [clip.path.name for clip, place in zip(clips, self.places, strict=True) if place is None]

    def draw(self, clips: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """The row indices `[B]` of a random window of each clip, in a random view."""
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
    """The hidden states of all clips, computed by `lower`: log-mel `[B, 1001, 64]` → `[B, …]`.

    Each window gets `num_views` augmented views besides itself. Hidden states that a run with the same key has stored
    are reused. `on_clip` is called with the number of clips done. Raises `TrainingError` if they can't be written.
    """
    table = folder / "hidden.json"
    stored = json.loads(table.read_text("utf-8")) if table.is_file() else {}
    if stored.get("key") != key:
        table.unlink(missing_ok=True)
        try:
            stored = {"key": key} | _write(folder, clips, lower, log_mel, num_views, seed, on_clip)
        except OSError as error:
            raise TrainingError(f"Folder {folder} can't be written to ({error.strerror}): free some space.") from error
        building = table.with_suffix(".building")
        building.write_text(json.dumps(stored), "utf-8")
        building.replace(table)
    places = [place and Place(**place) for place in stored["places"]]
    return HiddenStates(folder, stored["shape"], places)


def remove_hidden_states(folder: Path) -> None:
    """Deletes the files that `compute_hidden_states` wrote."""
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
    """Writes the rows to disk; returns the rows' shape and the clips' places as JSON values."""
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
                for number, portion in enumerate(torch.split(features, _WINDOWS_AT_ONCE)):
                    hidden = lower(_views(portion, views, augment, seed + index + number * len(clips)))  # [W · V, …]
                    shape = tuple(hidden.shape[1:])
                    num_rows += len(hidden)
                    file.write(hidden.to(torch.float16).cpu().numpy().tobytes())
            on_clip(index + 1)
        file.flush()
        os.fsync(file.fileno())
    return {"shape": shape, "places": places}


def _views(features: LogMels, num_views: int, augment: Augment, seed: int) -> LogMels:
    """Each window unchanged, then its augmented views: `[W · V, 1001, 64]`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        views = [features, *(augment(features) for _ in range(num_views - 1))]
    return torch.stack(views, dim=1).flatten(0, 1)


def _decoded(clips: Sequence[LabelledClip], log_mel: LogMel) -> Iterator[LogMels | None]:
    """Each clip's features `[W, 1001, 64]`, decoded a few clips ahead; None for an unreadable clip."""
    with ThreadPoolExecutor(_DECODERS) as decoders:
        pending: deque[Future[LogMels | None]] = deque()
        for clip in clips:
            pending.append(decoders.submit(_features, clip, log_mel))
            if len(pending) > _DECODED_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@torch.no_grad()
def _features(clip: LabelledClip, log_mel: LogMel) -> LogMels | None:
    try:
        clip_windows = windows(clip.path, channel=clip.channel, longest_s=clip.longest_s)
        return torch.cat([log_mel(torch.from_numpy(window.waveform)[None]) for window in clip_windows])
    except AudioError:
        return None
