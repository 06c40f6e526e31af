"""Runs one finetuning, `python -m training.finetuning.run FOLDER`: a process that a worker starts and watches.

The run is described by FOLDER/run.json. Progress goes to standard output as JSON lines; the outcome is written last, to
FOLDER/outcome.json. A run that was killed continues when it is started again in the same folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from clapboard.errors import AudioError, ClapboardError
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.model.clap import ClapEncoder
from clapboard.suggest.head import ZERO_SHOT, Head, scores_of_all, zero_shot_head
from clapboard.suggest.prediction import compute_class_weights
from clapboard.suggest.scoring import Array, mean_direction
from training.finetune import FinetuneConfig, Progress, finetune
from training.finetuning.labelled import LabelledClip, split_clips, targets_of
from training.finetuning.spec import HEAD, OUTCOME, RUN, SERVED_HEAD, Outcome, RunSpec
from training.fit_head import LabelledEmbeddings, fit_head
from training.gate import Rules, Trial, judge


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
    clips = split_clips(
        [
            LabelledClip(
                clip.path,
                clip.group,
                clip.targets,
                "test" if clip.is_test else "train",
                clip.weight,
                label_space.channel,
                spec.longest_s,
            )
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
        on_progress=_print_progress,
    )
    tuned = _load(spec, str(candidate.folder))
    embedded = _embed(tuned, [clip for clip in clips if clip.split != "test"])
    zero_shot = _zero_shot(tuned, label_space)
    head = fit_head(
        label_space, zero_shot, _labelled(label_space, embedded), np.stack([mean_direction(w) for _, w in embedded])
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
    """Each control's trial on the test clips that all contenders can decode."""
    embedded = [dict(_embed_by_path(encoder, test)) for encoder, _ in contenders]
    readable = [clip for clip in test if all(clip.path in windows for windows in embedded)]
    trials = []
    for index, control in enumerate(label_space.predicted):
        targets = targets_of(control, readable)
        answered = [clip for clip, known in zip(readable, targets.known, strict=True) if known]
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
        dtype=spec.dtype,  # type: ignore[arg-type]  # the settings have validated it
        engine=spec.engine,  # type: ignore[arg-type]
        batch_size=spec.batch_size,
        fusion=spec.fusion,
    )


def _zero_shot(encoder: ClapEncoder, label_space: LabelSpace) -> Head:
    return zero_shot_head(label_space, compute_class_weights(label_space, encoder.embed_texts), encoder.logit_scale)


def _embed(encoder: ClapEncoder, clips: Sequence[LabelledClip]) -> list[tuple[LabelledClip, Array]]:
    """The clips that can be decoded, each with its windows' embeddings `[W, D]`."""
    embedded = []
    for clip in clips:
        with contextlib.suppress(AudioError):
            embedded.append((clip, encoder.embed_file(clip.path, channel=clip.channel, longest_s=clip.longest_s)))
    return embedded


def _embed_by_path(encoder: ClapEncoder, clips: Sequence[LabelledClip]) -> list[tuple[Path, Array]]:
    return [(clip.path, windows) for clip, windows in _embed(encoder, clips)]


def _labelled(label_space: LabelSpace, embedded: Sequence[tuple[LabelledClip, Array]]) -> dict[str, LabelledEmbeddings]:
    """The labelled embeddings of each control that has an answer."""
    by_control = {}
    for control in label_space.predicted:
        targets = targets_of(control, [clip for clip, _ in embedded])
        if targets.known.any():
            answered = [pair for pair, known in zip(embedded, targets.known, strict=True) if known]
            by_control[control.name] = LabelledEmbeddings(
                np.stack([mean_direction(windows) for _, windows in answered]),
                targets.truth[targets.known].astype(np.float32),
                np.array([clip.weight for clip, _ in answered], np.float32),
            )
    return by_control


def _print_progress(progress: Progress) -> None:
    sys.stdout.write(json.dumps(vars(progress)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
