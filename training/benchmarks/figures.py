"""Computes a benchmark's figures from its embeddings: zero-shot, linear probe and retrieval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from clapboard.suggest.scoring import Array, mean_direction
from training.benchmarks.benchmark import TEST, TRAIN, VALIDATION, Benchmark
from training.benchmarks.embedding import EmbeddedClips
from training.evaluate import Truth, mean_average_precision
from training.evaluation import probe
from training.evaluation.retrieval import Retrieval, retrieval

EmbedTexts = Callable[[Sequence[str]], Array]

_VALIDATION_SHARE = 10  # every tenth training clip, where the authors define no validation split


@dataclass(frozen=True)
class Classification:
    """The figures of a classification. `score` is top-1 accuracy, or mAP where clips have several labels; in [0, 1]."""

    score: float
    num_clips: int
    top_5: float | None = None  # where clips have one label
    by_fold: Mapping[str, float] = field(default_factory=dict)
    strengths: Mapping[str, float] = field(default_factory=dict)  # of the probe, as chosen for each fold or split


def zero_shot(
    benchmark: Benchmark, embedded: EmbeddedClips, embed_texts: EmbedTexts, *, captions: bool = False
) -> Classification | None:
    """The figures of zero-shot classification on the test clips; None if none of them could be embedded."""
    rows = _places(embedded, [clip.part for clip in benchmark.tested])
    if not rows.size:
        return None
    prompts = [benchmark.prompts(label, captions=captions) for label in benchmark.labels]
    weights = np.stack([mean_direction(embed_texts(texts)) for texts in prompts])  # [L, D]
    scores, truth = embedded.embeddings[rows] @ weights.T, _truth(benchmark, embedded)[rows]
    return _classification(benchmark, scores, truth, np.array([embedded.clips[row].part for row in rows]))


def supervised(benchmark: Benchmark, embedded: EmbeddedClips) -> Classification | None:
    """The figures of a linear probe that learns from the training folds or splits; None if there are too few of them.

    Its regularisation is chosen on part of the training clips: the fold after the tested one, the validation split, or
    every tenth clip. Then it learns from all of them. With folds, the score is the mean of the folds' scores, as the
    authors of ESC-50 and UrbanSound8K require.
    """
    truth = _truth(benchmark, embedded)
    parts = np.array([clip.part for clip in embedded.clips])
    trials = _fold_trials(parts) if benchmark.folds else _split_trial(parts)
    if not trials:
        return None
    exclusive = benchmark.kind == "labels"
    metric = _accuracy if exclusive else _mean_average_precision
    embeddings = embedded.embeddings
    scores = np.zeros(truth.shape, np.float32)
    strengths = {}
    for name, (train, validation, test) in trials.items():
        strength = probe.tune(
            embeddings[train], truth[train], embeddings[validation], truth[validation], exclusive, metric
        )
        known = np.concatenate([train, validation])
        fitted = probe.fit(embeddings[known], truth[known], strength, exclusive=exclusive)
        scores[test] = fitted.logits(embeddings[test])
        strengths[name] = strength
    tested = np.concatenate([test for _, _, test in trials.values()])
    figures = _classification(benchmark, scores[tested], truth[tested], parts[tested], strengths)
    return replace(figures, score=float(np.mean([*figures.by_fold.values()]))) if figures.by_fold else figures


def retrieve(embedded: EmbeddedClips, embed_texts: EmbedTexts) -> Retrieval | None:
    """The figures of retrieval between clips and captions; None if no clip could be embedded."""
    if not embedded.clips:
        return None
    captions = [caption for clip in embedded.clips for caption in clip.captions]
    owners = np.repeat(np.arange(len(embedded.clips)), [len(clip.captions) for clip in embedded.clips])
    return retrieval(embedded.embeddings, embed_texts(captions), owners)


def top_k_accuracy(scores: Array, truth: Truth, k: int) -> float:
    """The share of clips `[N, L]` whose label is among the k highest scores; equal scores keep the labels' order."""
    own = scores[truth][:, None]  # [N, 1]
    earlier = np.arange(scores.shape[1]) < truth.argmax(axis=1)[:, None]
    above = (scores > own).sum(axis=1) + ((scores == own) & earlier).sum(axis=1)
    return float((above < k).mean())


Rows = npt.NDArray[np.int64]
Trial = tuple[Rows, Rows, Rows]
"""The rows to train on, to choose the regularisation by, and to test on."""


def _fold_trials(parts: npt.NDArray[np.str_]) -> dict[str, Trial]:
    """A trial for each fold, validated on the fold after it; none if there are fewer than three folds."""
    folds = sorted(set(parts.tolist()), key=lambda fold: (len(fold), fold))  # 2 before 10
    if len(folds) < 3:
        return {}
    trials = {}
    for number, fold in enumerate(folds):
        following = folds[(number + 1) % len(folds)]
        is_train = (parts != fold) & (parts != following)
        trials[fold] = (np.flatnonzero(is_train), np.flatnonzero(parts == following), np.flatnonzero(parts == fold))
    return trials


def _split_trial(parts: npt.NDArray[np.str_]) -> dict[str, Trial]:
    """The one trial of train, validation and test; none if train or test is empty."""
    train, validation, test = (np.flatnonzero(parts == name) for name in (TRAIN, VALIDATION, TEST))
    if not validation.size:
        is_validation = np.arange(len(train)) % _VALIDATION_SHARE == _VALIDATION_SHARE - 1
        train, validation = train[~is_validation], train[is_validation]
    return {TEST: (train, validation, test)} if train.size and validation.size and test.size else {}


def _classification(
    benchmark: Benchmark,
    scores: Array,
    truth: Truth,
    parts: npt.NDArray[np.str_],
    strengths: Mapping[str, float] | None = None,
) -> Classification:
    chosen = strengths or {}
    if benchmark.kind == "tags":
        return Classification(_mean_average_precision(scores, truth), len(scores), strengths=chosen)
    folds = sorted(set(parts.tolist()), key=lambda fold: (len(fold), fold)) if benchmark.folds else []
    by_fold = {fold: _accuracy(scores[parts == fold], truth[parts == fold]) for fold in folds}
    return Classification(_accuracy(scores, truth), len(scores), top_k_accuracy(scores, truth, 5), by_fold, chosen)


def _accuracy(scores: Array, truth: Truth) -> float:
    return top_k_accuracy(scores, truth, 1)


def _mean_average_precision(scores: Array, truth: Truth) -> float:
    return mean_average_precision(scores, truth) or 0.0


def _places(embedded: EmbeddedClips, parts: Sequence[str]) -> Rows:
    wanted = set(parts)
    return np.array([row for row, clip in enumerate(embedded.clips) if clip.part in wanted], np.int64)


def _truth(benchmark: Benchmark, embedded: EmbeddedClips) -> Truth:
    """The true labels as a mask `[N, L]`."""
    place = {label: number for number, label in enumerate(benchmark.labels)}
    truth = np.zeros((len(embedded.clips), len(benchmark.labels)), bool)
    for row, clip in enumerate(embedded.clips):
        truth[row, [place[label] for label in clip.labels]] = True
    return truth
