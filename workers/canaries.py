"""Canaries: finetuned candidates that the gate found likely but not surely better go on trial.

A random half of the tasks that people open next gets the candidate's suggestion, the other half goes on getting that of
the version in service; Label Studio shows both under one name. Each label that people give from then on is compared
with what both said of the clip. Both have the heads that they had when the trial began, so that neither has learnt the
label, nor knows more labels than the other. People lean towards what they see; since chance decides which they see,
that favours neither. Where the candidate's suggestion isn't there in time, it holds the candidate back at worst.

What the gate had seen counts, too: it was the first look of the same test, and trials spend the part of the allowed
false promotions that it left.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from clapboard.errors import ModelError, NotFoundError
from clapboard.labels.label_space import LabelSpace
from clapboard.plurals import counted
from clapboard.project.canary import canary_version
from clapboard.project.known_tasks import embedded
from clapboard.project.prelabel import predict_request
from clapboard.project.serving import Serving
from clapboard.queue.celery_app import BATCH, LEARN, Waker
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.trials import Kind, State, Trial
from clapboard.store.versions import Version
from clapboard.suggest.prediction import shown_name
from training.gate import GATE_SHARE, Rules
from training.significance import allowed_chance
from training.trial_verdict import TrialVerdict, judge_trial
from workers.changed_suggestions import next_tasks
from workers.encoder_pool import EncoderPool, announce_encoder
from workers.head_cache import HeadCache
from workers.put_off import PutOff
from workers.trial_answers import Contender, collect_answers, version_of

EMBEDDING_S = 5.0
"""How long the job is put off while tasks are being embedded."""

PREPARE_EVERY = 50
"""After so many labels, the tasks that people open next are prepared again."""

log = logging.getLogger(__name__)


class Canaries:
    """Begins, judges and ends canaries. The caller holds the project's lock."""

    def __init__(self, settings: Settings, store: Store, encoders: EncoderPool, heads: HeadCache, waker: Waker) -> None:
        self._settings = settings
        self._store = store
        self._encoders = encoders
        self._heads = heads
        self._waker = waker

    def begin(self, project: int, candidate: Version, label_space: LabelSpace, serving: Serving) -> str:
        """Put the candidate on trial if the gate found it likely better; a sentence on what came of it.

        A canary that is open ends: the newer candidate has learnt more.
        """
        name = candidate.model_version
        canaries = [trial for trial in self._store.trials.of_project(project) if trial.kind is Kind.CANARY]
        if any(trial.candidate == name for trial in canaries):
            return f"{name} was on trial already."
        likely = candidate.manifest.get("verdict", {}).get("likely")  # see `training.verdict.Likely`
        if likely is None or candidate.space_id != serving.space_id or not self._settings.canary_labels:
            return f"{name} isn't tried: the gate, the label config or CLAPBOARD_CANARY_LABELS is against it."
        if canaries and canaries[-1].state is State.OPEN:
            self._end(canaries[-1], TrialVerdict(State.ENDED, f"{name} is newer."))
        self._store.versions.put(version_of(project, serving))
        trial = self._store.trials.begin(
            Trial(
                project,
                Kind.CANARY,
                name,
                serving.model_version,
                self._settings.canary_labels,
                allowed_chance((1 - GATE_SHARE) * Rules().alpha, 1 + _num_since_promotion(canaries)),
                shown_as="" if label_space.on_frames else canary_version(name, serving),
                evidence={
                    "leads": likely["leads"],
                    "num_folds": likely["num_folds"],
                    "right": likely["right"],
                    "alpha": likely["allowed"],
                },
            )
        )
        return f"{name} is on trial: {counted(trial.num_labels, 'further label')} decide at the latest."

    def prepare(self, project: int, label_space: LabelSpace) -> str:
        """Have the open canary's half of the next tasks show its suggestions; a sentence.

        Raises `PutOff` while the candidate is embedding them, `ModelError`, `NotFoundError`.
        """
        trial = self._store.trials.open(project, Kind.CANARY)
        display = self._store.displays.get(project)
        if trial is None or not trial.shown_as or display.shown_as != shown_name(trial.shown_as):
            return ""
        candidate = self._store.versions.get(project, trial.candidate)
        contender = self._contender(candidate)
        tasks = next_tasks(self._store, display)
        if num_missing := self._embed(trial, label_space, candidate, contender, [task.task for task in tasks]):
            raise PutOff(EMBEDDING_S, f"{counted(num_missing, 'task')} to be embedded by {trial.candidate}")
        self._sweep(trial)
        return f"{trial.candidate} is shown on half of the next {counted(len(tasks), 'task')}."

    def look(self, project: int, label_space: LabelSpace, serving: Serving) -> None:
        """Judge the open canary by the labels that came since. If it is surely better, its promotion is queued.

        Call it when the labels are fresh.
        """
        trial = self._store.trials.open(project, Kind.CANARY)
        if trial is None:
            return
        try:
            candidate, reference = (
                self._store.versions.get(project, name) for name in (trial.candidate, trial.reference)
            )
            verdict = self._judge(trial, label_space, serving, candidate, reference)
        except (NotFoundError, ModelError) as error:  # a version, its head or its checkpoint
            verdict = TrialVerdict(State.ENDED, str(error))
        if verdict is not None:
            self._end(trial, verdict)

    def _judge(
        self, trial: Trial, label_space: LabelSpace, serving: Serving, candidate: Version, reference: Version
    ) -> TrialVerdict | None:
        if (reference.encoder_version, reference.space_id) != (serving.encoder.version, serving.space_id):
            return TrialVerdict(State.ENDED, "Another encoder or label config took over.")
        if not self._settings.canary_labels:
            return TrialVerdict(State.ENDED, "CLAPBOARD_CANARY_LABELS is 0.")
        ours, others = self._contender(candidate), self._contender(reference)
        arrived = [arrival.task for arrival in self._store.trials.arrivals(trial)]
        self._embed(trial, label_space, candidate, ours, arrived)
        answers = collect_answers(self._store, trial, label_space, ours, others)
        verdict = judge_trial(trial, answers)
        if verdict is None and arrived and answers and len(answers) % PREPARE_EVERY == 0:
            self._store.jobs.add(LEARN, [JobRequest("canary", trial.project, model_version=trial.candidate)])
        return verdict

    def _contender(self, version: Version) -> Contender:
        loaded = self._encoders.get(version.encoder)
        _, head = self._heads.get(loaded, version.space_id, version.head)
        return Contender(announce_encoder(self._store, loaded), head)

    def _embed(
        self, trial: Trial, label_space: LabelSpace, candidate: Version, ours: Contender, task_ids: Sequence[int]
    ) -> int:
        """Queue those of the tasks that the candidate hasn't embedded, unless that has failed; how many those are."""
        known = list(self._store.tasks.get(trial.project, list(task_ids)).values())
        by_candidate = embedded(self._store, known, ours.encoder)
        failed = self._store.jobs.failed_tasks(trial.project, candidate.model_version)
        version = Serving(
            ours.encoder, candidate.head, candidate.space_id, candidate.model_version, channel=label_space.channel
        )
        requests = [
            predict_request(trial.project, task, version, push=False)
            for task in known
            if task.task not in by_candidate and task.task not in failed
        ]
        if requests:
            self._store.jobs.add(BATCH, requests)
            self._waker.wake(BATCH)
        return len(requests)

    def _sweep(self, trial: Trial) -> None:
        """Have all open tasks show what they should by now."""
        promoted = self._store.versions.promoted(trial.project)
        self._store.displays.begin_sweep(trial.project, promoted.model_version if promoted else trial.reference)
        self._store.jobs.add(LEARN, [JobRequest("sweep", trial.project)])

    def _end(self, trial: Trial, verdict: TrialVerdict) -> None:
        if verdict.state is State.PROMOTED:  # queued first: until the trial has ended, this may be repeated
            self._store.jobs.add(LEARN, [JobRequest("promote", trial.project, model_version=trial.candidate)])
        elif trial.shown_as:
            self._sweep(trial)
        self._store.trials.end(trial, verdict.state, verdict.reason)
        log.info(
            "a canary has ended",
            extra={"project": trial.project, "outcome": verdict.state, "reason": verdict.reason},
        )


def _num_since_promotion(canaries: list[Trial]) -> int:
    """How many canaries there were since the last one that was promoted: they share the allowed false promotions."""
    states = [trial.state for trial in reversed(canaries)]
    return states.index(State.PROMOTED) if State.PROMOTED in states else len(states)
