"""The methods that few-shot evaluation compares: those that serve, by the very code that serves, and simpler ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from clapboard.encoder import load_encoder
from clapboard.errors import TrainingError
from clapboard.head import ControlHead, scores_of_all
from clapboard.scoring import Array
from clapboard.settings import Settings
from training.evaluation.listed_clips import EmbeddedClips, embed_clips
from training.finetune import choose_rung, finetune
from training.finetuning.labelled import LabelledClip, count_labels, split_clips
from training.finetuning.trainer import FinetuneConfig
from training.gate import Trial, judge
from training.head import LabelledEmbeddings, fit_head

ZERO_SHOT = "zero-shot"
CENTRED = "centred zero-shot"
REGRESSION = "logistic regression"
PROTOTYPES = "prototypes"
HEAD = "our head"
FINETUNING = "our finetuning"
LADDER = "ladder"
METHODS = (ZERO_SHOT, CENTRED, REGRESSION, PROTOTYPES, HEAD, FINETUNING, LADDER)


@dataclass(frozen=True, eq=False)
class Draw:
    """So many labelled clips a class, as the seed draws them, those that the gate judges by, and those tested on."""

    seed: int
    shots: int
    support: EmbeddedClips
    aside: EmbeddedClips
    test: EmbeddedClips


Finetune = Callable[[Draw], Draw]
"""A draw → the same one, embedded by an encoder that was finetuned on its support."""


def accuracies(draw: Draw, tune: Finetune | None) -> dict[str, float]:
    """The accuracy on the draw's test clips of each method that has an answer.

    Without `tune`, what would be served isn't known once there may be enough labels to finetune.
    """
    fitted = _fitted(draw)
    heads = {ZERO_SHOT: _texts(draw.test), CENTRED: _centred(draw)}
    scores = {name: _scores(draw.test, head) for name, head in heads.items()}
    if draw.support.clips:
        scores |= {REGRESSION: _regression(draw), PROTOTYPES: _prototypes(draw), HEAD: _scores(draw.test, fitted)}
    if tune or draw.shots < FinetuneConfig.min_labels:
        scores[LADDER] = _scores(draw.test, fitted)
    if tune and is_enough_to_finetune(draw):
        tuned = tune(draw)
        scores[FINETUNING] = _scores(tuned.test, _fitted(tuned))
        if _is_promoted(draw, tuned):
            scores[LADDER] = scores[FINETUNING]
    return {name: float((found.argmax(axis=1) == draw.test.labels).mean()) for name, found in scores.items()}


def is_enough_to_finetune(draw: Draw) -> bool:
    """Whether training would start with the draw's labels."""
    label_space = draw.support.label_space
    try:
        choose_rung(label_space, count_labels(label_space, _training_clips(draw)), FinetuneConfig())
    except TrainingError:
        return False
    return True


@dataclass(frozen=True)
class DrawFinetuner:
    """Finetunes the settings' model as a project's training would."""

    settings: Settings

    def __call__(self, draw: Draw) -> Draw:
        """The draw, embedded by an encoder that was finetuned on its support. Raises `TrainingError`, `ModelError`."""
        config = FinetuneConfig(seed=draw.seed)
        label_space = draw.support.label_space
        with tempfile.TemporaryDirectory(prefix="clapboard-") as folder:
            candidate = finetune(
                self.settings.model,
                label_space,
                _training_clips(draw),
                config,
                Path(folder),
                device=self.settings.device,
                fusion=self.settings.fusion,
            )
            encoder = load_encoder(self.settings, str(candidate.folder))
        parts = (embed_clips(encoder, label_space, part.clips)[0] for part in (draw.support, draw.aside, draw.test))
        return Draw(draw.seed, draw.shots, *parts)


def _training_clips(draw: Draw) -> list[LabelledClip]:
    control = draw.support.control.name
    clips = [LabelledClip(clip.path, clip.group, {control: (clip.label,)}) for clip in draw.support.clips]
    return split_clips(clips, seed=draw.seed)


def _is_promoted(draw: Draw, tuned: Draw) -> bool:
    """Whether the gate lets the finetuned encoder with its head take the place of the head alone."""
    aside = draw.aside
    if not aside.clips:
        return False
    trial = Trial(
        control=aside.control.name,
        labels=aside.values,
        multiple=False,
        groups=aside.groups.tolist(),
        truth=aside.truth,
        candidate=_scores(tuned.aside, _fitted(tuned)),
        in_service=_scores(aside, _fitted(draw)),
        zero_shot=_scores(aside, _texts(aside)),
    )
    return judge([trial]).promote


def _scores(clips: EmbeddedClips, head: ControlHead) -> Array:
    """Scores `[N, L]`, by the rule that serves."""
    return scores_of_all(clips.control, head, clips.windows)


def _texts(clips: EmbeddedClips) -> ControlHead:
    return clips.zero_shot.controls[0]


def _fitted(draw: Draw) -> ControlHead:
    """The head that is served with the draw's labels; without any, the texts."""
    support = draw.support
    if not support.clips:
        return _texts(support)
    even = np.ones(len(support.clips), np.float32)
    labelled = LabelledEmbeddings(support.embeddings, support.truth.astype(np.float32), even)
    return fit_head(support.label_space, support.zero_shot, {support.control.name: labelled}, _pool(draw)).controls[0]


def _pool(draw: Draw) -> Array:
    """The embeddings that a project would have of clips that aren't set aside, `[P, D]`."""
    return np.concatenate([draw.test.embeddings, draw.support.embeddings])


def _centred(draw: Draw) -> ControlHead:
    """The texts without their mean, for embeddings without theirs."""
    texts = _texts(draw.test)
    rows = texts.weights - texts.weights.mean(axis=0)
    return ControlHead(_pool(draw).mean(axis=0), rows / np.linalg.norm(rows, axis=1, keepdims=True), texts.bias)


def _regression(draw: Draw) -> Array:
    """scikit-learn's logistic regression with its defaults, `[T, L]`; a label without support is never called."""
    scores = np.zeros((len(draw.test.clips), len(draw.test.values)), np.float32)
    known = np.unique(draw.support.labels)
    if len(known) == 1:
        scores[:, known] = 1.0
        return scores
    regression = LogisticRegression().fit(draw.support.embeddings, draw.support.labels)
    scores[:, known] = regression.predict_proba(draw.test.embeddings)
    return scores


def _prototypes(draw: Draw) -> Array:
    """Cosines to each label's mean embedding, `[T, L]`; a label without support is never called."""
    scores = np.full((len(draw.test.clips), len(draw.test.values)), -np.inf, np.float32)
    for label in np.unique(draw.support.labels):
        prototype = draw.support.embeddings[draw.support.labels == label].mean(axis=0)
        scores[:, label] = draw.test.embeddings @ (prototype / np.linalg.norm(prototype))
    return scores
