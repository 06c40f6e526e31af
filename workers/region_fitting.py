"""Agreed regions and stored frames → heads on frames, within half a second, and whether held-out tasks speak against.

Of each reviewed recording, the frames inside its regions are kept, and some of the others; what was kept of a recording
is remembered, so that one more annotation costs one recording. See `training.fit_frame_head` for what a frame counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from clapboard.feedback.agreed_regions import AgreedRegion
from clapboard.feedback.consensus import Agreed
from clapboard.labels.label_space import Control, LabelSpace
from clapboard.memo import Memory
from clapboard.plurals import counted
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.suggest.head import FrameHead, Head
from clapboard.suggest.regions import Frames, region_results
from clapboard.suggest.scoring import Array
from training.fit_frame_head import LabelledSpan, drawn_frames, fit_frame_head, frame_targets, learnt_limits
from workers.head_fitting import LEAST_CHANGE

MAX_TASKS = 1_000
"""How many reviewed tasks a control's head is fitted to at most; those of each label in the order of their draw."""

_FRAMES_OF_TASK = 400  # kept of one recording, so that one of an hour doesn't outweigh the others
_POOL_OF_TASK = 40
_REMEMBERED_TASKS = 2_000
_SAME_LENGTH_S, _SAME_LENGTH_SHARE = 0.5, 0.01  # decoders differ by some frames of MP3
NOTICED_RECORDINGS = 20
_NOTICED_S = 3_600.0


@dataclass(frozen=True, eq=False)
class ReviewedFrames:
    """What is kept of one recording: frames `[n, D]`, targets and weights `[n, L]`, and some of all frames."""

    frames: Array
    targets: Array
    weights: Array
    pool: Array
    spans: tuple[LabelledSpan, ...]


@dataclass(frozen=True)
class FittedFrames:
    """The heads on frames, from how many tasks and regions, and what wasn't learnt from, in a sentence."""

    frame_controls: tuple[FrameHead, ...]
    num_tasks: int = 0
    num_regions: int = 0
    left_out: str = ""


@dataclass
class _Refused:
    changed: set[int] = field(default_factory=set)  # tasks whose audio isn't what the regions were marked on
    outside: set[int] = field(default_factory=set)  # tasks with a region behind the recording's end

    @property
    def sentence(self) -> str:
        reasons = []
        if self.changed:
            reasons.append(
                f"{counted(len(self.changed), 'task')} whose audio has changed since its regions were marked"
            )
        if self.outside:
            reasons.append(f"regions of {counted(len(self.outside), 'task')} that lie behind the recording's end")
        return f"Left out of learning: {'; '.join(reasons)}." if reasons else ""


class FrameFitter:
    """Fits heads on frames to a project's agreed regions, as of the last refresh of its labels."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: Memory[tuple[object, ...], ReviewedFrames] = Memory(_REMEMBERED_TASKS)

    def fit(self, project: int, label_space: LabelSpace, zero_shot: Head, encoder: Encoder) -> FittedFrames:
        """The heads of the label space's `on_frames`; zero-shot where nothing was marked."""
        refused = _Refused()
        heads, num_regions = list(zero_shot.frame_controls), 0
        learnt_tasks: set[int] = set()
        for place, control in enumerate(label_space.on_frames):
            if not control.is_labels:
                continue
            reviewed = self._reviewed(project, control, encoder, refused)
            spans = [span for each in reviewed.values() for span in each.spans]
            if spans:
                heads[place] = _fitted(heads[place], [*reviewed.values()], spans)
                num_regions += len(spans)
            learnt_tasks |= reviewed.keys()
        return FittedFrames(tuple(heads), len(learnt_tasks), num_regions, refused.sentence)

    def _reviewed(
        self, project: int, control: Control, encoder: Encoder, refused: _Refused
    ) -> dict[int, ReviewedFrames]:
        """By task, what is kept of its recording."""
        tasks = self._drawn(project, control)
        recordings = self._store.tasks.learnable(project, tasks)
        agreed = self._store.labels.agreed(project, recordings)
        reviewed = {}
        for task, recording in sorted(recordings.items()):
            answer = agreed.get(task, {}).get(control.name)
            if answer is None:
                continue
            if has_changed(answer, recording):
                refused.changed.add(task)
                continue
            spans = spans_of(control, answer.regions, recording.duration_s)
            if len(spans) < len(answer.regions):
                refused.outside.add(task)
            key = (recording.sha256, encoder.version, encoder.dtype, control, spans, answer.unsettled, answer.weight)
            kept = self._kept.known([key]).get(key)
            if kept is None:
                frames = self._store.frames.get(recording, encoder.version, encoder.dtype)
                if frames is None:
                    continue
                kept = _kept(frames, control, spans, answer)
                self._kept.keep({key: kept})
            reviewed[task] = kept
        return reviewed

    def _drawn(self, project: int, control: Control) -> list[int]:
        """The tasks to learn from: an equal number of each label, and of those in which nothing was marked."""
        names = [*(label.value for label in control.labels), ""]
        each = max(1, MAX_TASKS // len(names))
        return sorted(
            {task for name in names for task in self._store.labels.first_drawn(project, control.name, name, each)}
        )


def has_changed(answer: Agreed, recording: Recording) -> bool:
    """Whether the recording isn't as long as it was when its regions were marked."""
    if answer.recording_s is None:
        return False
    tolerance_s = max(_SAME_LENGTH_S, _SAME_LENGTH_SHARE * recording.duration_s)
    return abs(answer.recording_s - recording.duration_s) > tolerance_s


def spans_of(control: Control, regions: Iterable[AgreedRegion], duration_s: float) -> tuple[LabelledSpan, ...]:
    """The regions by their label's place, cut at the recording's end; without those that lie behind it."""
    places = {label.value: place for place, label in enumerate(control.labels)}
    return tuple(
        LabelledSpan(places[region.label], region.start_s, min(region.end_s, duration_s))
        for region in regions
        if region.label in places and region.start_s < duration_s
    )


def is_noticeable_in(
    label_space: LabelSpace, before: Head, after: Head, recordings: Sequence[Recording], store: Store, encoder: Encoder
) -> bool:
    """Whether the heads suggest different regions, or as surely, in any of some recordings; True without any."""
    left_s, num_compared = _NOTICED_S, 0
    for recording in recordings[:NOTICED_RECORDINGS]:
        left_s -= recording.duration_s
        if num_compared and left_s < 0:
            break
        frames = store.frames.get(recording, encoder.version, encoder.dtype)
        if frames is None:
            continue
        num_compared += 1
        if _differ(label_space, before, after, frames):
            return True
    return not num_compared


def _differ(label_space: LabelSpace, before: Head, after: Head, frames: Frames) -> bool:
    old, new = region_results(label_space, before, frames), region_results(label_space, after, frames)
    for name in old:
        if abs(old[name].confidence - new[name].confidence) > LEAST_CHANGE:
            return True
        if [item["value"] for item in old[name].results] != [item["value"] for item in new[name].results]:
            return True
    return False


def _kept(frames: Frames, control: Control, spans: tuple[LabelledSpan, ...], answer: Agreed) -> ReviewedFrames:
    num_labels = len(control.labels)
    unsettled = spans_of(control, answer.unsettled, frames.duration_s)
    targets, weights = frame_targets(spans, len(frames.frames), frames.frame_s, num_labels, unsettled)
    rows, kept_weights = drawn_frames(targets, weights * answer.weight, _FRAMES_OF_TASK)
    step = max(1, len(frames.frames) // _POOL_OF_TASK)
    return ReviewedFrames(frames.frames[rows], targets[rows], kept_weights, frames.frames[::step].copy(), spans)


def _fitted(zero_shot: FrameHead, reviewed: Sequence[ReviewedFrames], spans: Sequence[LabelledSpan]) -> FrameHead:
    targets = np.concatenate([each.targets for each in reviewed])
    rows, weights = drawn_frames(targets, np.concatenate([each.weights for each in reviewed]))
    frames = np.concatenate([each.frames for each in reviewed])[rows]
    pool = np.concatenate([each.pool for each in reviewed])
    head = fit_frame_head(zero_shot.control, frames, targets[rows], weights, pool)
    return FrameHead(head, learnt_limits(spans, targets.shape[1]))
