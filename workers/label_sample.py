"""Which labels a head is fitted to, and which clips it is centred on: all in a small project, a sample in a large one.

The sample is bounded by the work of a fit, so that a label costs the same in a project of any size. It is stratified:
each label gets an equal share, and rare labels all their clips. A clip counts for all those that it was drawn from, so
that frequent labels stay frequent. Which clips, a hash of their tasks decides: every process fits the same head, and a
further label changes the sample by a few clips at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clapboard.feedback.consensus import TaskLabels
from clapboard.labels.label_space import Control, LabelSpace
from clapboard.memo import Memory
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.labels import LabelCounts
from clapboard.suggest.scoring import Array, mean_direction

POOL_SIZE = 2_000
"""How many clips a head is centred on at most, and how many tell whether people would notice it."""

_FIT_WORK = 40_000_000
"""How many clips · dimensions · (labels + `_FIXED_WORK`) the fits of all controls may take: 0.2 s on one core."""
_FIXED_WORK = 12
_LEAST_CLIPS = 1_500
_WINDOWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class LabelSample:
    """The clips of a fit, by task. Each control is fitted to its own `clips`, which count with these weights."""

    labels: Mapping[int, TaskLabels]
    clips: Mapping[str, Mapping[int, float]]  # by control
    means: Mapping[int, Array]  # [D], of the tasks in `clips` that are embedded and not held out
    pool: Mapping[int, Array]  # [W, D], a uniform sample of all tasks


class LabelSampler:
    """Draws samples. Remembers embeddings, which never change, because one sample is much like the last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._means: Memory[tuple[str, str, str], Array] = Memory(12_000)
        self._windows: Memory[tuple[str, str, str], Array] = Memory(POOL_SIZE)

    def draw(self, project: int, label_space: LabelSpace, encoder: Encoder) -> LabelSample:
        """The sample of the labels as of the last refresh."""
        counts = self._store.labels.counts(project)
        num_clips = clips_per_control(label_space, encoder.dim)
        clips = {control.name: self._clips(project, control, counts, num_clips) for control in label_space.predicted}
        tasks = sorted({task for of_control in clips.values() for task in of_control})
        recordings = self._store.tasks.learnable(project, tasks)
        pool = dict(sorted(_within(self._store.tasks.sample(project, POOL_SIZE), _WINDOWS_AT_ONCE).items()))
        return LabelSample(
            self._store.labels.agreed(project, tasks),
            clips,
            self._of_tasks(recordings, encoder, self._means, mean_direction),
            self._of_tasks(pool, encoder, self._windows, np.copy),
        )

    def _clips(self, project: int, control: Control, counts: LabelCounts, num_clips: int) -> dict[int, float]:
        """By task, how much it counts: as much as all the clips that it was drawn from, relative to the others."""
        names = [label.value for label in control.labels] + ([""] if control.multiple else [])
        totals = {name: counts.of_label(control.name, name) for name in names}
        share: dict[int, float] = {}  # by task, the share of its label's clips that are drawn
        for name, quota in quotas(totals, num_clips).items():
            for task in self._store.labels.first_drawn(project, control.name, name, quota):
                share[task] = max(share.get(task, 0.0), quota / totals[name])
        mean = sum(1.0 / drawn for drawn in share.values()) / len(share) if share else 1.0
        return {task: 1.0 / drawn / mean for task, drawn in sorted(share.items())}

    def _of_tasks(
        self,
        recordings: Mapping[int, Recording],
        encoder: Encoder,
        memory: Memory[tuple[str, str, str], Array],
        reduce: Callable[[Array], Array],
    ) -> dict[int, Array]:
        """By task, what `reduce` makes of the recording's embeddings `[W, D]`; without tasks that aren't embedded."""
        keys = {
            task: (recording.sha256, encoder.version, encoder.dtype) for task, recording in sorted(recordings.items())
        }
        known = memory.known(keys.values())
        missing = {keys[task][0]: recording for task, recording in recordings.items() if keys[task] not in known}
        for batch in _batches(missing.values()):
            vectors = self._store.embeddings.get(batch, encoder.version, encoder.dtype)
            new = {(sha256, encoder.version, encoder.dtype): reduce(windows) for sha256, windows in vectors.items()}
            memory.keep(new)
            known |= new
        return {task: known[key] for task, key in keys.items() if key in known}


def clips_per_control(label_space: LabelSpace, dim: int) -> int:
    """How many clips each control may be fitted to."""
    width = sum(len(control.labels) + _FIXED_WORK for control in label_space.predicted)
    return max(_LEAST_CLIPS, _FIT_WORK // (dim * width)) if width else 0


def quotas(totals: Mapping[str, int], num_clips: int) -> dict[str, int]:
    """How many clips of each label to draw, from how many it has: all if they are few enough.

    Else each label gives the same number, and those that have fewer give all.
    """
    if sum(totals.values()) <= num_clips:
        return dict(totals)
    even = _even(sorted(totals.values()), num_clips)
    return {name: min(number, even) for name, number in totals.items()}


def _even(totals: Sequence[int], num_clips: int) -> int:
    """The largest number such that, if each of the ascending totals gives at most it, they give `num_clips` at most."""
    for place, total in enumerate(totals):
        if total * (len(totals) - place) > num_clips:
            return num_clips // (len(totals) - place)
        num_clips -= total
    return totals[-1]


def _within(recordings: Mapping[int, Recording], num_windows: int) -> dict[int, Recording]:
    """The first of the recordings, as many as have so many windows together; at least one."""
    first: dict[int, Recording] = {}
    for task, recording in recordings.items():
        num_windows -= recording.num_windows
        if first and num_windows < 0:
            break
        first[task] = recording
    return first


def _batches(recordings: Iterable[Recording]) -> Iterator[list[Recording]]:
    """The recordings in batches, each with few enough windows to be read at once."""
    batch: list[Recording] = []
    num_windows = 0
    for recording in recordings:
        if batch and num_windows + recording.num_windows > _WINDOWS_AT_ONCE:
            yield batch
            batch, num_windows = [], 0
        batch.append(recording)
        num_windows += recording.num_windows
    if batch:
        yield batch
