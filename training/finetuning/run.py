"""Runs one finetuning, `python -m training.finetuning.run FOLDER`: a process that a worker starts and watches.

The run is described by FOLDER/run.json. Progress goes to standard output as JSON lines; the outcome is written last, to
FOLDER/outcome.json. A run that was killed continues when it is started again in the same folder.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from clapboard.errors import ClapboardError
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.model.clap import ClapEncoder
from clapboard.model.int8.calibrate import MOST_WINDOWS, calibrate
from clapboard.project.calibration_audio import windows_of_files
from clapboard.settings.settings import CALIBRATION
from clapboard.suggest.head import Head
from clapboard.suggest.scoring import mean_direction
from training.finetune import FinetuneConfig, Progress, finetune
from training.finetuning.judging import Judged, embed, judge_candidate, load, text_head
from training.finetuning.labelled import LabelledClip, split_clips, targets_of
from training.finetuning.spec import HEAD, OUTCOME, RUN, Outcome, RunSpec
from training.fit_head import LabelledEmbeddings, fit_head


def main() -> None:
    """Runs the folder's finetuning and writes its outcome, errors included."""
    folder = Path(sys.argv[1])
    spec = RunSpec.model_validate_json((folder / RUN).read_text("utf-8"))
    torch.set_num_threads(spec.threads or os.cpu_count() or 1)
    try:
        outcome = run(spec, folder)
    except ClapboardError as error:
        outcome = Outcome(error=str(error))
    building = folder / f"{OUTCOME}.building"
    building.write_text(outcome.model_dump_json(), "utf-8")
    building.replace(folder / OUTCOME)


def run(spec: RunSpec, folder: Path) -> Outcome:
    """Finetunes, fits a head to the tuned encoder, and judges both together on clips that neither has learnt from."""
    label_space = parse_label_config(spec.label_config)
    clips = _clips(spec, label_space)
    candidate = finetune(
        spec.start or spec.base,
        label_space,
        clips,
        FinetuneConfig(**spec.config),
        folder,
        device=spec.device,
        fusion=spec.fusion,
        keep_hidden_states=spec.num_folds > 1,
        on_progress=_print_progress,
    )
    encoder_version, manifest = candidate.encoder_version, dict(candidate.manifest)
    if spec.dtype == "int8":
        _calibrate(spec, candidate.folder, clips)
    if spec.is_repetition:
        return Outcome(encoder_version=encoder_version, manifest=manifest)
    tuned = load(spec, str(candidate.folder))
    head = _head(tuned, label_space, clips)
    (folder / HEAD).write_bytes(head.to_bytes())
    judged = Judged(candidate, tuned, head, label_space, clips)
    verdict = judge_candidate(judged, spec, folder, _print_progress)
    return Outcome(
        promote=verdict.promote,
        reason=verdict.reason,
        encoder_version=encoder_version,
        manifest=manifest,
        verdict=verdict.to_json(),
    )


def _calibrate(spec: RunSpec, candidate: Path, clips: Sequence[LabelledClip]) -> None:
    """Calibrate the candidate on what it has learnt from, so that the gate judges it in int8, as it will serve."""
    files = [clip.path for clip in clips if clip.split != "test"]
    waveforms = windows_of_files(files, MOST_WINDOWS, channel=clips[0].channel)
    in_float32 = ClapEncoder.load(str(candidate), device="cpu", dtype="float32", engine=spec.engine)  # type: ignore[arg-type]
    calibrate(in_float32, waveforms, candidate / CALIBRATION)


def _clips(spec: RunSpec, label_space: LabelSpace) -> list[LabelledClip]:
    """The clips, split into train, validation and test."""
    clips = [
        LabelledClip(
            clip.path,
            clip.group,
            clip.targets,
            "test" if clip.is_test else "train",
            clip.weight,
            label_space.channel,
            spec.longest_s,
            clip.evidence,
        )
        for clip in spec.clips
    ]
    return split_clips(clips, seed=int(spec.config.get("seed", 0)))


def _head(tuned: ClapEncoder, label_space: LabelSpace, clips: list[LabelledClip]) -> Head:
    """The head fitted to the clips that aren't held out, over a pool of the same clips."""
    learnt = [clip for clip in clips if clip.split != "test"]
    embedded = [(clip, w) for clip, w in zip(learnt, embed(tuned, learnt), strict=True) if w is not None]
    means = np.stack([mean_direction(windows) for _, windows in embedded])
    labelled = {}
    for control in label_space.predicted:
        targets = targets_of(control, [clip for clip, _ in embedded])
        if targets.known.any():
            weights = np.array([clip.weight for clip, _ in embedded], np.float32)
            truth = targets.truth[targets.known].astype(np.float32)
            labelled[control.name] = LabelledEmbeddings(means[targets.known], truth, weights[targets.known])
    return fit_head(label_space, text_head(tuned, label_space), labelled, means)


def _print_progress(progress: Progress) -> None:
    sys.stdout.write(json.dumps(vars(progress)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
