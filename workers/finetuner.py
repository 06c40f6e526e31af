"""`train` jobs: the project's labels → a training run → a candidate version with the gate's verdict.

A run that is interrupted is continued by another worker from its last epoch, with the labels that it began with. These
are kept beside the checkpoint, and `repeat` jobs train it again from them.
"""

from __future__ import annotations

import filecmp
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clapboard.errors import TrainingError
from clapboard.labels.label_config import parse_label_config
from clapboard.model.load import load_encoder
from clapboard.project.serving import is_tuned
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import Job
from clapboard.store.versions import Version
from clapboard.suggest import prediction
from clapboard.suggest.head import Head
from training.finetuning.snapshot import read_snapshot, write_snapshot
from training.finetuning.spec import HEAD, OUTCOME, RUN, Outcome, RunSpec
from workers.training_process import train_in_process
from workers.training_set import TrainingSet

_CANDIDATE = "candidate"
WEIGHTS, MANIFEST = "model.safetensors", "manifest.json"


@dataclass(frozen=True)
class Finetuned:
    """What came of a run: the candidate's version, and whether the gate passed it, with its reason.

    `is_likely`: it wasn't passed, but is likely better, and may go on trial.
    """

    model_version: str
    promote: bool
    reason: str
    is_likely: bool = False


class Finetuner:
    """Runs `train` jobs. What serves is left alone."""

    def __init__(self, settings: Settings, store: Store, stopping: threading.Event) -> None:
        self._settings = settings
        self._store = store
        self._stopping = stopping
        self._training_set = TrainingSet(settings, store)

    def run(self, job: Job) -> Finetuned | None:
        """Train, judge, and keep the candidate with its verdict. None if the worker stops before the end.

        Raises `TrainingError` where there is nothing to learn from, `NotFoundError`, `LabelConfigError`,
        `NoWorkerError`, and `InternalError` if the process died, which may be tried again.
        """
        folder = self._settings.model_dir / "training" / f"{job.project}-{job.id}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            outcome = self._outcome(job, folder, lambda: self._training_set.collect(job.project, folder))
        except TrainingError:
            shutil.rmtree(folder)
            raise
        if outcome is None:
            return None
        model_version = self._keep_candidate(job, folder, outcome)
        shutil.rmtree(folder)
        is_likely = self._settings.canary_labels > 0 and bool(outcome.verdict.get("likely"))
        return Finetuned(model_version, outcome.promote, outcome.reason, is_likely)

    def repeat(self, job: Job) -> str | None:
        """Train the job's version again from its snapshot; a sentence on what came of it. None if the worker stops.

        A checkpoint that was removed is put back. Raises `NotFoundError`, and `TrainingError` if the version can't be
        repeated or other weights come of it.
        """
        version = self._store.versions.get(job.project, job.model_version)
        checkpoint = Path(self._settings.checkpoint(version.encoder))
        snapshot = read_snapshot(checkpoint) if is_tuned(version.encoder) else None
        if snapshot is None:
            raise TrainingError(
                f"Version {version.model_version} can't be repeated: it has no label snapshot. Only finetunings "
                "have one, since this release."
            )
        folder = self._settings.model_dir / "training" / f"{job.project}-{job.id}"
        folder.mkdir(parents=True, exist_ok=True)
        again = partial(self._training_set.collect_again, snapshot, job.project, folder)
        try:
            outcome = self._outcome(job, folder, again)
            if outcome is None:
                return None
            sentence = _compare(version, checkpoint, folder / _CANDIDATE, outcome)
        except TrainingError:
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
        return sentence

    def _outcome(self, job: Job, folder: Path, collect: Callable[[], None]) -> Outcome | None:
        """The run's outcome, from an earlier try if it ended then. None if the worker stops before the end."""
        if not (folder / RUN).exists():
            self._store.jobs.report(job, "collecting labels and audio")
            collect()
        if not (folder / OUTCOME).exists():
            train_in_process(folder, lambda progress: self._store.jobs.report(job, progress), self._stopping)
        if not (folder / OUTCOME).exists():
            return None
        outcome = Outcome.model_validate_json((folder / OUTCOME).read_text("utf-8"))
        if outcome.error:
            raise TrainingError(outcome.error)
        return outcome

    def _keep_candidate(self, job: Job, folder: Path, outcome: Outcome) -> str:
        """Move the candidate's checkpoint to its place, then write its version, whose name is returned."""
        spec = RunSpec.model_validate_json((folder / RUN).read_text("utf-8"))
        label_space = parse_label_config(spec.label_config)
        space_id = prediction.space_id(label_space)
        base = Path(self._settings.model.rstrip("/")).name
        encoder = f"models/{job.project}/{base}-tuned-{job.id}"
        checkpoint = self._settings.model_dir / encoder
        if (folder / _CANDIDATE).exists():  # otherwise an earlier try has moved it, and was killed then
            shutil.rmtree(checkpoint, ignore_errors=True)  # of a try that was judged but not written down
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_snapshot(spec, folder / _CANDIDATE)
            (folder / _CANDIDATE).replace(checkpoint)
        identity = load_encoder(self._settings, encoder).identity
        head = Head.from_bytes((folder / HEAD).read_bytes())
        name = prediction.model_version(identity, label_space, head.name)
        manifest = {
            "kind": "finetuned",
            "job": job.id,
            "base": self._settings.model,
            "verdict": outcome.verdict,
            "training": outcome.manifest,
            "clips": _num_clips(spec),
        }
        version = Version(job.project, name, encoder, identity.version, head.name, space_id, manifest=manifest)
        self._store.catalog.put_label_space(space_id, spec.label_config)
        self._store.versions.put(version, head)
        return name


def _compare(version: Version, checkpoint: Path, again: Path, outcome: Outcome) -> str:
    """Whether the repetition gave the version's weights, in a sentence; if its checkpoint was removed, put it back.

    Raises `TrainingError` if it gave others.
    """
    weights = checkpoint / WEIGHTS
    was_removed = not (checkpoint / MANIFEST).is_file()
    is_equal = (
        outcome.encoder_version == version.manifest["training"]["encoder_version"]  # hashes the weights
        if was_removed
        else filecmp.cmp(weights, again / WEIGHTS, shallow=False)
    )
    if not is_equal:
        raise TrainingError(
            f"The repetition of {version.model_version} gave other weights: this machine computes otherwise than the "
            "one that made it, or the base model or a library has changed since. Repeat it where it was made."
        )
    if not was_removed:
        return f"The repetition gave the same weights as {version.model_version}, byte for byte."
    for file in sorted(again.iterdir(), key=lambda file: file.name == MANIFEST):  # which says that the rest is complete
        file.replace(checkpoint / file.name)
    return (
        f"The repetition gave the weights of {version.model_version} again. Its checkpoint, which had been removed, is "
        f"back: `clapboard models promote --project {version.project} {version.model_version}` brings it into service."
    )


def _num_clips(spec: RunSpec) -> dict[str, int]:
    counts = Counter("test" if clip.is_test else "learnt" for clip in spec.clips)
    return {"learnt": counts["learnt"], "test": counts["test"]}
