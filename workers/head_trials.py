"""Heads on trial: what people label after a head took over tells whether it, or those that followed, made it worse.

A head serves within seconds of the label that it learnt, with nothing to judge it by. From then on each further label
is compared with what the serving head, which hasn't learnt it yet, and the version before the trial say of the clip. If
the heads are surely worse, that version comes back by itself and stays until somebody labels something.

People see the serving head's suggestions alone: half of them held back would slow learning down. They lean towards what
they see, which favours the serving head, so fewer bad ones are found than by labels given to an empty form, such as
those of held-out tasks, but none is rolled back by that.
"""

from __future__ import annotations

import logging

from clapboard.errors import NotFoundError
from clapboard.labels.label_space import LabelSpace
from clapboard.project.serving import Serving
from clapboard.queue.celery_app import LEARN
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.trials import Kind, State, Trial
from clapboard.store.versions import Version
from clapboard.suggest.head import ZERO_SHOT
from training.trial_verdict import TrialVerdict, judge_trial
from workers.encoder_pool import EncoderPool
from workers.head_cache import HeadCache
from workers.trial_answers import Contender, collect_answers, version_of

ALPHA = 0.05
"""Of heads that are no worse, at most this share is rolled back."""

log = logging.getLogger(__name__)


class HeadTrials:
    """Begins, judges and ends trials of heads. The caller holds the project's lock."""

    def __init__(self, settings: Settings, store: Store, encoders: EncoderPool, heads: HeadCache) -> None:
        self._settings = settings
        self._store = store
        self._encoders = encoders
        self._heads = heads

    def begin(self, version: Version, serving: Serving) -> None:
        """Put the head that is about to take over from what serves on trial, unless heads before it still are."""
        num_labels = self._settings.head_trial_labels
        is_head = version.head != ZERO_SHOT and version.encoder_version == serving.encoder.version
        if not num_labels or not is_head or self._store.trials.open(version.project, Kind.HEAD):
            return
        self._store.versions.put(version_of(version.project, serving))  # so that it can be promoted again
        self._store.trials.begin(
            Trial(version.project, Kind.HEAD, version.model_version, serving.model_version, num_labels, ALPHA)
        )

    def look(self, project: int, label_space: LabelSpace, serving: Serving) -> str:
        """Judge the open trial by the labels that came since; a sentence if the heads are rolled back, else empty.

        Call it when the labels are fresh, and before a head that has learnt them serves.
        """
        trial = self._store.trials.open(project, Kind.HEAD)
        if trial is None:
            return ""
        try:
            reference = self._store.versions.get(project, trial.reference)
            verdict = self._judge(trial, label_space, serving, reference)
        except NotFoundError:  # the reference, or its head
            verdict = TrialVerdict(State.ENDED, f"{trial.reference} is no longer stored.")
        if verdict is None:
            return ""
        sentence = ""
        if verdict.state is State.DROPPED:
            sentence = f"{trial.reference} comes back into service. {verdict.reason}"
            if serving.model_version != trial.reference:
                self._roll_back(trial)
        self._store.trials.end(trial, verdict.state, verdict.reason)
        log.info(
            "a trial of heads has ended", extra={"project": project, "outcome": verdict.state, "reason": verdict.reason}
        )
        return sentence

    def settle(self, project: int, pinned: str) -> None:
        """End the trial whose roll-back to the pinned version was interrupted after everything else was done."""
        trial = self._store.trials.open(project, Kind.HEAD)
        if trial is None or trial.reference != pinned:
            return
        verdict = judge_trial(trial, self._store.trials.answers(trial))
        if verdict is not None:
            self._store.trials.end(trial, verdict.state, verdict.reason)

    def _judge(
        self, trial: Trial, label_space: LabelSpace, serving: Serving, reference: Version
    ) -> TrialVerdict | None:
        if (reference.encoder_version, reference.space_id) != (serving.encoder.version, serving.space_id):
            return TrialVerdict(State.ENDED, "Another encoder or label config took over.")
        if not self._settings.head_trial_labels:
            return TrialVerdict(State.ENDED, "CLAPBOARD_HEAD_TRIAL_LABELS is 0.")
        if serving.model_version == trial.reference:  # the head hasn't taken over yet, or is rolled back already
            return judge_trial(trial, self._store.trials.answers(trial))
        candidate, before = (self._contender(serving, name) for name in (serving.head, reference.head))
        return judge_trial(trial, collect_answers(self._store, trial, label_space, candidate, before))

    def _contender(self, serving: Serving, head: str) -> Contender:
        _, loaded = self._heads.get(self._encoders.get(serving.encoder.model), serving.space_id, head)
        return Contender(serving.encoder, loaded)

    def _roll_back(self, trial: Trial) -> None:
        """Bring the reference back. Each step may be repeated: until the last one the trial is open."""
        self._store.versions.pin(trial.project, trial.reference)
        self._store.jobs.add(LEARN, [JobRequest("promote", trial.project, model_version=trial.reference)])
