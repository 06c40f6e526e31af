"""One finetuning, `python -m training.finetuning.run FOLDER`: a process of its own that a worker looks after.

FOLDER/run.json says what to learn from. Progress goes to standard output, a JSON line at a time; what came of it stands
in FOLDER/outcome.json, written last. Started again in the same folder, it goes on where it was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from clapboard.clap import ClapEncoder
from clapboard.errors import AudioError, ClapboardError
from clapboard.head import ZERO_SHOT, Head, scores_of_all, zero_shot_head
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.prediction import compute_class_weights
from clapboard.scoring import Array, mean_direction
from training.finetune import FinetuneConfig, Progress, finetune
from training.finetuning.labelled import LabelledClip, split_clips, targets_of
from training.gate import Rules, Trial, judge
from training.head import LabelledEmbeddings, fit_head

RUN, OUTCOME, HEAD, SERVED_HEAD = "run.json", "outcome.json", "head.npz", "served-head.npz"


class ClipSpec(BaseModel):
    """A labelled clip of the run; `is_test` ones are judged on and never learnt from."""

    model_config = ConfigDict(frozen=True)

    path: Path
    group: str
    targets: dict[str, tuple[str, ...]]
    weight: float
    is_test: bool


class RunSpec(BaseModel):
    """What a run needs to know. `served` is the checkpoint in service, with its head beside this file, if fitted."""

    model_config = ConfigDict(frozen=True)

    base: str
    served: str
    served_head: str
    label_config: str
    clips: list[ClipSpec]
    config: dict[str, Any]
    max_fall: float
    device: str
    dtype: str
    engine: str = "auto"
    fusion: bool = False
    batch_size: int
    threads: int


class Outcome(BaseModel):
    """What came of a run: an error that ends it, or a verdict on the candidate."""

    model_config = ConfigDict(frozen=True)

    error: str = ""
    promote: bool = False
    reason: str = ""
    encoder_version: str = ""
    manifest: dict[str, Any] = {}
    verdict: dict[str, Any] = {}


def main() -> None:
    """Run what the folder says; the outcome is written whatever it is, unless the process dies."""
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
    """Finetune, fit a head on it, and judge both together on clips that neither has seen."""
    label_space = parse_label_config(spec.label_config)
    clips = split_clips(
        [
            LabelledClip(clip.path, clip.group, clip.targets, "test" if clip.is_test else "train", clip.weight)
            for clip in spec.clips
        ],
        seed=int(spec.config.get("seed", 0)),
    )
    candidate = finetune(
        spec.base,
        label_space,
        clips,
        FinetuneConfig(**spec.config),
        folder,
        device=spec.device,
        fusion=spec.fusion,
        on_progress=_say,
    )
    tuned = _load(spec, str(candidate.folder))
    learnt = _embed(tuned, [clip for clip in clips if clip.split != "test"])
    zero_shot = _zero_shot(tuned, label_space)
    head = fit_head(
        label_space, zero_shot, _labelled(label_space, learnt), np.stack([mean_direction(w) for _, w in learnt])
    )
    (folder / HEAD).write_bytes(head.to_bytes())

    test = [clip for clip in clips if clip.split == "test"]
    base = _load(spec, spec.base)
    served = base if spec.served == spec.base else _load(spec, spec.served)
    served_head = (
        _zero_shot(served, label_space)
        if spec.served_head == ZERO_SHOT
        else Head.from_bytes((folder / SERVED_HEAD).read_bytes())
    )
    contenders = [(tuned, head), (served, served_head), (base, _zero_shot(base, label_space))]
    trials = _trials(label_space, contenders, test)
    verdict = judge(trials, Rules(max_fall=spec.max_fall))
    return Outcome(
        promote=verdict.promote,
        reason=verdict.reason,
        encoder_version=candidate.encoder_version,
        manifest=dict(candidate.manifest),
        verdict=verdict.to_json(),
    )


def _trials(
    label_space: LabelSpace, contenders: Sequence[tuple[ClapEncoder, Head]], test: Sequence[LabelledClip]
) -> list[Trial]:
    embedded = [dict(_embed_by_path(encoder, test)) for encoder, _ in contenders]
    heard = [clip for clip in test if all(clip.path in windows for windows in embedded)]
    trials = []
    for index, control in enumerate(label_space.predicted):
        targets = targets_of(control, heard)
        answered = [clip for clip, known in zip(heard, targets.known, strict=True) if known]
        scores = [
            scores_of_all(control, head.controls[index], [windows[clip.path] for clip in answered])
            if answered
            else np.zeros((0, len(control.labels)), np.float32)
            for windows, (_, head) in zip(embedded, contenders, strict=True)
        ]
        labels = tuple(label.value for label in control.labels)
        groups = [clip.group for clip in answered]
        truth = targets.truth[targets.known]
        trials.append(Trial(control.name, labels, control.multiple, groups, truth, *scores))
    return trials


def _load(spec: RunSpec, model: str) -> ClapEncoder:
    return ClapEncoder.load(
        model,
        device=spec.device,
        dtype=spec.dtype,  # type: ignore[arg-type]  # as the settings validated it
        engine=spec.engine,  # type: ignore[arg-type]
        batch_size=spec.batch_size,
        fusion=spec.fusion,
    )


def _zero_shot(encoder: ClapEncoder, label_space: LabelSpace) -> Head:
    return zero_shot_head(label_space, compute_class_weights(label_space, encoder.embed_texts), encoder.logit_scale)


def _embed(encoder: ClapEncoder, clips: Sequence[LabelledClip]) -> list[tuple[LabelledClip, Array]]:
    """Those of the clips that can be decoded, with their windows' embeddings `[W, D]`."""
    found = []
    for clip in clips:
        with contextlib.suppress(AudioError):
            found.append((clip, encoder.embed_file(clip.path)))
    return found


def _embed_by_path(encoder: ClapEncoder, clips: Sequence[LabelledClip]) -> list[tuple[Path, Array]]:
    return [(clip.path, windows) for clip, windows in _embed(encoder, clips)]


def _labelled(label_space: LabelSpace, embedded: Sequence[tuple[LabelledClip, Array]]) -> dict[str, LabelledEmbeddings]:
    found = {}
    for control in label_space.predicted:
        targets = targets_of(control, [clip for clip, _ in embedded])
        if targets.known.any():
            chosen = [pair for pair, known in zip(embedded, targets.known, strict=True) if known]
            found[control.name] = LabelledEmbeddings(
                np.stack([mean_direction(windows) for _, windows in chosen]),
                targets.truth[targets.known].astype(np.float32),
                np.array([clip.weight for clip, _ in chosen], np.float32),
            )
    return found


def _say(progress: Progress) -> None:
    sys.stdout.write(json.dumps(vars(progress)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
