"""The methods that few-shot evaluation compares: those in service, by the same code, and simpler ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from clapboard.errors import TrainingError
from clapboard.model.load import load_encoder
from clapboard.settings import Settings
from clapboard.suggest.head import ControlHead, scores_of_all
from clapboard.suggest.scoring import Array
from training.evaluation.listed_clips import EmbeddedClips, embed_clips
from training.finetune import choose_trainable_stages, finetune
from training.finetuning.labelled import LabelledClip, count_labels, split_clips
from training.finetuning.trainer import FinetuneConfig
from training.fit_head import LabelledEmbeddings, fit_head
from training.gate import Trial, judge

ZERO_SHOT = "zero-shot"
CENTRED = "centred zero-shot"
REGRESSION = "logistic regression"
PROTOTYPES = "prototypes"
HEAD = "our head"
FINETUNING = "our finetuning"
SERVED = "ladder"  # what would be served at each number of labels; stored results use this name
METHODS = (ZERO_SHOT, CENTRED, REGRESSION, PROTOTYPES, HEAD, FINETUNING, SERVED)


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw of labelled clips by a seed, `shots` for each class, with the clips to judge and to test by."""

    seed: int
    shots: int
    support: EmbeddedClips  # to learn from
    held_out: EmbeddedClips  # for the gate
    test: EmbeddedClips


Finetune = Callable[[Draw], Draw]
"""Returns the same draw, embedded by an encoder that is finetuned on its support."""


def accuracies(draw: Draw, tune: Finetune | None) -> dict[str, float]:
    """The accuracy of each method on the draw's test clips; methods that can't be used on it are left out.

    Without `tune`, what would be served is unknown as soon as there may be enough labels to finetune.
    """
    fitted = _fitted(draw)
    heads = {ZERO_SHOT: _text_head(draw.test), CENTRED: _centred(draw)}
    scores = {name: _scores(draw.test, head) for name, head in heads.items()}
    if draw.support.clips:
        scores |= {REGRESSION: _regression(draw), PROTOTYPES: _prototypes(draw), HEAD: _scores(draw.test, fitted)}
    if tune or draw.shots < FinetuneConfig.min_labels:
        scores[SERVED] = _scores(draw.test, fitted)
    if tune and is_enough_to_finetune(draw):
        tuned = tune(draw)
        scores[FINETUNING] = _scores(tuned.test, _fitted(tuned))
        if _is_promoted(draw, tuned):
            scores[SERVED] = scores[FINETUNING]
    return {name: float((values.argmax(axis=1) == draw.test.labels).mean()) for name, values in scores.items()}


def is_enough_to_finetune(draw: Draw) -> bool:
    """Whether training would start with the draw's labels."""
    label_space = draw.support.label_space
    try:
        choose_trainable_stages(label_space, count_labels(label_space, _training_clips(draw)), FinetuneConfig())
    except TrainingError:
        return False
    return True


@dataclass(frozen=True)
class DrawFinetuner:
    """Finetunes the model of the settings, as a project's training would."""

    settings: Settings

    def __call__(self, draw: Draw) -> Draw:
        """The draw, embedded by an encoder finetuned on its support. Raises `TrainingError` and `ModelError`."""
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
        parts = (embed_clips(encoder, label_space, part.clips)[0] for part in (draw.support, draw.held_out, draw.test))
        return Draw(draw.seed, draw.shots, *parts)


def _training_clips(draw: Draw) -> list[LabelledClip]:
    control = draw.support.control.name
    clips = [LabelledClip(clip.path, clip.group, {control: (clip.label,)}) for clip in draw.support.clips]
    return split_clips(clips, seed=draw.seed)


def _is_promoted(draw: Draw, tuned: Draw) -> bool:
    """Whether the gate would replace the fitted head alone with the finetuned encoder and its head."""
    held_out = draw.held_out
    if not held_out.clips:
        return False
    trial = Trial(
        control=held_out.control.name,
        labels=held_out.values,
        multiple=False,
        groups=held_out.groups.tolist(),
        truth=held_out.truth,
        candidate=_scores(tuned.held_out, _fitted(tuned)),
        in_service=_scores(held_out, _fitted(draw)),
        zero_shot=_scores(held_out, _text_head(held_out)),
    )
    return judge([trial]).promote


def _scores(clips: EmbeddedClips, head: ControlHead) -> Array:
    """Scores `[N, L]`, computed as in service."""
    return scores_of_all(clips.control, head, clips.windows)


def _text_head(clips: EmbeddedClips) -> ControlHead:
    """The zero-shot head."""
    return clips.zero_shot.controls[0]


def _fitted(draw: Draw) -> ControlHead:
    """The head fitted to the draw's labels; without labels, the zero-shot head."""
    support = draw.support
    if not support.clips:
        return _text_head(support)
    weights = np.ones(len(support.clips), np.float32)
    labelled = LabelledEmbeddings(support.embeddings, support.truth.astype(np.float32), weights)
    return fit_head(support.label_space, support.zero_shot, {support.control.name: labelled}, _pool(draw)).controls[0]


def _pool(draw: Draw) -> Array:
    """The embeddings `[P, D]` of the clips that aren't held out, as a project would have them."""
    return np.concatenate([draw.test.embeddings, draw.support.embeddings])


def _centred(draw: Draw) -> ControlHead:
    """The zero-shot head with centred text embeddings, for centred audio embeddings."""
    texts = _text_head(draw.test)
    rows = texts.weights - texts.weights.mean(axis=0)
    return ControlHead(_pool(draw).mean(axis=0), rows / np.linalg.norm(rows, axis=1, keepdims=True), texts.bias)


def _regression(draw: Draw) -> Array:
    """scikit-learn's logistic regression with its defaults, `[T, L]`; a label without support is never predicted."""
    scores = np.zeros((len(draw.test.clips), len(draw.test.values)), np.float32)
    known_labels = np.unique(draw.support.labels)
    if len(known_labels) == 1:
        scores[:, known_labels] = 1.0
        return scores
    regression = LogisticRegression().fit(draw.support.embeddings, draw.support.labels)
    scores[:, known_labels] = regression.predict_proba(draw.test.embeddings)
    return scores


def _prototypes(draw: Draw) -> Array:
    """Cosines to each label's mean embedding, `[T, L]`; a label without support is never predicted."""
    scores = np.full((len(draw.test.clips), len(draw.test.values)), -np.inf, np.float32)
    for label in np.unique(draw.support.labels):
        prototype = draw.support.embeddings[draw.support.labels == label].mean(axis=0)
        scores[:, label] = draw.test.embeddings @ (prototype / np.linalg.norm(prototype))
    return scores
