"""`learn` jobs: labels that people added → a head fitted to all labels, within seconds, and its rollout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.plurals import counted
from clapboard.project.agreement import refresh_labels
from clapboard.project.serving import Serving, find_serving
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.versions import Version
from clapboard.suggest import prediction
from clapboard.suggest.head import ZERO_SHOT, Head
from workers.canaries import Canaries
from workers.encoder_pool import EncoderPool
from workers.head_cache import HeadCache
from workers.head_fitting import FittedHead, fit, is_noticeable
from workers.head_trials import HeadTrials
from workers.label_sample import LabelSample, LabelSampler
from workers.region_fitting import NOTICED_RECORDINGS, FittedFrames, FrameFitter, is_noticeable_in
from workers.region_gate import judge_on_held_out
from workers.rollout import Rollout, Takeover

log = logging.getLogger(__name__)

OnPage = Callable[[int], None]


@dataclass(frozen=True)
class Refitted:
    """What came of it. `num_waiting` tasks are to be pushed before it serves; `num_missing` aren't embedded yet."""

    model_version: str
    num_labels: int
    num_waiting: int
    changed: bool
    num_missing: int = 0
    pinned: bool = False
    left_out: str = ""  # a sentence on what isn't learnt from
    rolled_back: str = ""  # a sentence on the heads that were surely worse

    def __str__(self) -> str:
        if self.pinned:
            return (
                f"{self.model_version} is pinned: learning goes on with the next label, or after "
                "`clapboard models unpin`."
            )
        if self.rolled_back:
            return self.rolled_back
        outcome = "promoted" if self.changed else "still right"
        sentence = f"{counted(self.num_labels, 'label')}; {self.model_version} is {outcome}."
        return f"{sentence} {self.left_out}".rstrip()


class Refitter:
    """Runs a project's `learn` jobs. The caller holds the project's lock."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        encoders: EncoderPool,
        heads: HeadCache,
        rollout: Rollout,
        canaries: Canaries,
    ) -> None:
        self._settings = settings
        self._store = store
        self._encoders = encoders
        self._heads = heads
        self._rollout = rollout
        self._canaries = canaries
        self._trials = HeadTrials(settings, store, encoders, heads)
        self._sampler = LabelSampler(store)
        self._frame_fitter = FrameFitter(store)

    def run(self, project: int, *, on_page: OnPage = lambda _num_tasks: None) -> Refitted:
        """Enter new events in the ledger, fit a head and roll it out.

        `on_page` gets the number of tasks in each page that a rollout has finished. Raises `NotFoundError` for a
        project that was never connected, `LabelConfigError`, `NoWorkerError`, `LabelStudioError`.
        """
        self._store.ledger.catch_up()
        label_config = self._store.catalog.project(project).label_config
        label_space = parse_label_config(label_config)
        self._store.catalog.put_label_space(prediction.space_id(label_space), label_config)
        if pinned := self._pinned(project):
            self._trials.settle(project, pinned)
            return self._keep_pinned(project, label_space, pinned, on_page)
        if unfinished := self._finish_rollout(project, label_space, on_page):
            return unfinished
        return self._refit(project, label_space, on_page)

    def _pinned(self, project: int) -> str:
        """The version that a person chose, if it serves or is about to; empty if there is none."""
        pinned = self._store.versions.pinned(project)
        if not pinned or pinned == _name(self._store.versions.promoted(project)):
            return pinned
        if pinned in self._store.jobs.open_versions("promote", project):
            return pinned
        self._store.versions.unpin(project)  # it couldn't be promoted
        return ""

    def _keep_pinned(self, project: int, label_space: LabelSpace, pinned: str, on_page: OnPage) -> Refitted:
        """Fit nothing. Under a new label config, the pinned version's encoder takes over with the labels' texts."""
        promoted = self._store.versions.promoted(project)
        serving = find_serving(self._store, self._settings.model, project, label_space)
        if promoted is None or pinned != promoted.model_version or serving.model_version == pinned:
            return Refitted(pinned, 0, 0, changed=False, pinned=True)
        version = _version(project, serving, serving.model_version, serving.head, {"kind": ZERO_SHOT})
        is_new = self._store.versions.put(version)
        takeover = Takeover(version, is_new, instead_of=pinned, pinned_as=pinned, waits_for_embeddings=False)
        progress = self._rollout.run(takeover, on_page=on_page)
        return Refitted(
            version.model_version, 0, progress.num_waiting, True, num_missing=progress.num_missing, pinned=True
        )

    def _finish_rollout(self, project: int, label_space: LabelSpace, on_page: OnPage) -> Refitted | None:
        """Go on with a rollout that an earlier try began, if no label came since; None once it has ended.

        Fitting again would start over: while recordings are being embedded, each fit is centred a little differently.
        """
        promoted = self._store.versions.promoted(project)
        version = self._head_on_its_way(project, label_space, promoted)
        if version is None:
            return None
        self._trials.begin(version, find_serving(self._store, self._settings.model, project, label_space))
        takeover = Takeover(version, instead_of=_name(promoted), waits_for_embeddings=False)
        progress = self._rollout.run(takeover, on_page=on_page)
        if not progress.num_waiting:
            return None
        return Refitted(version.model_version, version.manifest["num_labels"], progress.num_waiting, changed=True)

    def _head_on_its_way(self, project: int, label_space: LabelSpace, promoted: Version | None) -> Version | None:
        """The newest head that hasn't served yet and was fitted to all that the ledger holds."""
        serving = find_serving(self._store, self._settings.model, project, label_space)
        since = promoted.promoted_at or 0.0 if promoted else 0.0
        num_entries = self._store.ledger.num_entries(project)
        for version in reversed(self._store.versions.of_project(project)):
            is_waiting = version.promoted_at is None and version.created_at >= since
            fits = (version.encoder_version, version.space_id) == (serving.encoder.version, serving.space_id)
            if is_waiting and fits and version.manifest.get("num_entries") == num_entries:
                return version
        return None

    def _refit(self, project: int, label_space: LabelSpace, on_page: OnPage) -> Refitted:
        # Read the pointer first: a version that is promoted from here on must not be replaced by this head.
        promoted = self._store.versions.promoted(project)
        serving = find_serving(self._store, self._settings.model, project, label_space)
        num_entries = self._store.ledger.num_entries(project)
        refresh_labels(self._store, project, label_space)
        sample = self._sampler.draw(project, label_space, serving.encoder)
        self._canaries.look(project, label_space, serving)
        if rolled_back := self._trials.look(project, label_space, serving):  # by the labels that the next head learns
            return Refitted(serving.model_version, 0, 0, changed=False, rolled_back=rolled_back)
        zero_shot = self._head(serving, ZERO_SHOT)
        fitted = fit(label_space, zero_shot, sample)
        on_frames = FittedFrames(zero_shot.frame_controls)
        if label_space.on_frames:
            on_frames = self._frame_fitter.fit(project, label_space, zero_shot, serving.encoder)
            num_labels = fitted.num_labels + on_frames.num_regions
            fitted = FittedHead(replace(fitted.head, frame_controls=on_frames.frame_controls), num_labels)
        name = fitted.head.name if fitted.num_labels else ZERO_SHOT
        version = _version(
            project,
            serving,
            prediction.model_version(self._encoders.get(serving.encoder.model).identity, label_space, name),
            name,
            {
                "kind": "head" if fitted.num_labels else ZERO_SHOT,
                "num_labels": fitted.num_labels,
                "num_entries": num_entries,
            },
        )
        left_out = " ".join(filter(None, [self._store.labels.counts(project).left_out, on_frames.left_out]))
        if version.model_version == serving.model_version:
            is_worth_it = self._others_predicted(project, promoted, version.model_version)
        else:
            is_worth_it = self._is_noticeable(project, label_space, serving, fitted.head, sample)
        if is_worth_it and label_space.marking and fitted.head.frame_controls:
            verdict = judge_on_held_out(
                self._store, project, label_space, serving.encoder, self._head(serving, serving.head), fitted.head
            )
            if verdict.is_worse:
                is_worth_it, left_out = False, f"{verdict} {left_out}".rstrip()
        if not is_worth_it:
            return Refitted(serving.model_version, fitted.num_labels, 0, changed=False, left_out=left_out)
        is_new = self._store.versions.put(version, fitted.head if fitted.num_labels else None)
        self._trials.begin(version, serving)
        takeover = Takeover(version, is_new, instead_of=_name(promoted), waits_for_embeddings=False)
        progress = self._rollout.run(takeover, on_page=on_page)
        return Refitted(
            version.model_version,
            fitted.num_labels,
            progress.num_waiting,
            True,
            num_missing=progress.num_missing,
            left_out=left_out,
        )

    def _is_noticeable(
        self, project: int, label_space: LabelSpace, serving: Serving, head: Head, sample: LabelSample
    ) -> bool:
        served = self._head(serving, serving.head)
        if label_space.predicted and is_noticeable(label_space, served, head, sample.pool.values()):
            return True
        if not label_space.on_frames:
            return False
        recordings = list(self._store.tasks.sample(project, NOTICED_RECORDINGS).values())
        return is_noticeable_in(label_space, served, head, recordings, self._store, serving.encoder)

    def _head(self, serving: Serving, name: str) -> Head:
        _, head = self._heads.get(self._encoders.get(serving.encoder.model), serving.space_id, name)
        return head

    def _others_predicted(self, project: int, promoted: Version | None, model_version: str) -> bool:
        """Whether another version may have made the stored predictions, as under an earlier label config."""
        if promoted is not None:
            return promoted.model_version != model_version
        return bool(set(self._store.predictions.model_versions(project)) - {model_version})


def _name(promoted: Version | None) -> str:
    """The project's pointer: empty where the base model serves."""
    return promoted.model_version if promoted else ""


def _version(project: int, serving: Serving, name: str, head: str, manifest: dict[str, object]) -> Version:
    """A version of the serving encoder and label space."""
    return Version(
        project, name, serving.encoder.model, serving.encoder.version, head, serving.space_id, manifest=manifest
    )
