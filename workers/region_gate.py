"""Whether held-out tasks speak against a head on frames: a paired test of event F1, recording by recording.

A head learns from every annotation, and mostly it gets better. If its regions on recordings that it hasn't learnt from
are worse than those of the head that serves, and more so than chance would have it, the serving head stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clapboard.feedback.consensus import Agreed
from clapboard.labels.label_space import LabelSpace
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.suggest.events.event import Event
from clapboard.suggest.head import Head
from clapboard.suggest.regions import Frames, events_of
from training.evaluation.events.figures import Counts, event_counts
from training.significance import chance_of_lead
from workers.region_fitting import has_changed, spans_of

MIN_RECORDINGS = 6  # with fewer, even losing on every one is no proof: 2⁻⁵ > 0.025
MAX_RECORDINGS = 24
_MAX_S = 3_600.0  # how long they may be together
_CHANCE = 0.05
_EXCHANGES = 5_000


@dataclass(frozen=True)
class HeldOutVerdict:
    """The event F1 of both heads on held-out recordings, and the chance of so large a fall if both were equal."""

    num_recordings: int
    before: float
    after: float
    chance: float

    @property
    def is_worse(self) -> bool:
        """Whether the new head is proven worse."""
        return self.num_recordings >= MIN_RECORDINGS and self.after < self.before and self.chance <= _CHANCE

    def __str__(self) -> str:
        return (
            f"On {self.num_recordings} held-out recordings the event F1 of its regions would fall from "
            f"{self.before:.2f} to {self.after:.2f} (chance {self.chance:.3f})."
        )


def judge_on_held_out(
    store: Store, project: int, label_space: LabelSpace, encoder: Encoder, before: Head, after: Head
) -> HeldOutVerdict:
    """Compare the heads on held-out tasks whose annotators had no suggestion in view."""
    totals, leads = [Counts(), Counts()], []
    for frames, true in itertools.islice(_reviewed(store, project, label_space, encoder), MAX_RECORDINGS):
        counts = [_counts(label_space, head, frames, true) for head in (before, after)]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        leads.append(counts[0].f1 - counts[1].f1)
    chance = chance_of_lead(np.array(leads), num_folds=0, num_exchanges=_EXCHANGES, seed=0) if leads else 1.0
    return HeldOutVerdict(len(leads), totals[0].f1, totals[1].f1, chance)


_True = dict[str, list[Event]]  # by control


def _reviewed(store: Store, project: int, label_space: LabelSpace, encoder: Encoder) -> Iterator[tuple[Frames, _True]]:
    """The frames of held-out recordings, and the true events of the controls that were answered without suggestions."""
    tasks = store.tasks.held_out(project)
    keys = {task_id: task.uri_key for task_id, task in store.tasks.get(project, tasks).items()}
    recordings = store.embeddings.recordings(list(keys.values()), only_read=True)
    answers = store.labels.agreed(project, tasks)
    left_s = _MAX_S
    for task in tasks:
        recording = recordings.get(keys.get(task, ""))
        if recording is None or recording.duration_s > left_s:
            continue
        true: _True = {}
        for control in label_space.marking:
            answer = answers.get(task, {}).get(control.name)
            if answer and _is_fair(answer, recording):
                spans = spans_of(control, answer.regions, recording.duration_s)
                true[control.name] = [Event(span.start_s, span.end_s, span.label, 1.0) for span in spans]
        frames = store.frames.get(recording, encoder.version, encoder.dtype) if true else None
        if frames is not None:
            left_s -= recording.duration_s
            yield frames, true


def _is_fair(answer: Agreed, recording: Recording) -> bool:
    return not (answer.bulk or answer.suggestion_biased or answer.unsettled or has_changed(answer, recording))


def _counts(label_space: LabelSpace, head: Head, frames: Frames, true: _True) -> Counts:
    counts = Counts()
    for control, control_head in zip(label_space.on_frames, head.frame_controls, strict=True):
        if control.name in true:
            events, _ = events_of(control, control_head, frames)
            counts += event_counts(events, true[control.name])
    return counts
