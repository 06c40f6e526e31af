"""Embeddings of a benchmark → its figures: zero-shot by texts, a linear probe by its folds or splits, or retrieval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from clapboard.scoring import Array, mean_direction
from training.benchmarks.benchmark import TEST, TRAIN, VALIDATION, Benchmark
from training.benchmarks.embedding import EmbeddedClips
from training.evaluate import Truth, mean_average_precision
from training.evaluation import probe
from training.evaluation.retrieval import Retrieval, retrieval

EmbedTexts = Callable[[Sequence[str]], Array]

_VALIDATION_SHARE = 10  # every tenth training clip validates, where the authors name no clips for it


@dataclass(frozen=True)
class Classification:
    """`score` is top-1 accuracy, or mAP over the labels that some clip has where clips have several; in [0, 1]."""

    score: float
    num_clips: int
    top_5: float | None = None  # for a single label
    by_fold: Mapping[str, float] = field(default_factory=dict)
    strengths: Mapping[str, float] = field(default_factory=dict)  # of the probe, as each fold or split chose it


def zero_shot(
    benchmark: Benchmark, embedded: EmbeddedClips, embed_texts: EmbedTexts, *, captions: bool = False
) -> Classification | None:
    """How well the labels' texts alone tell the tested clips apart; None if none of them could be heard."""
    rows = _places(embedded, [clip.part for clip in benchmark.tested])
    if not rows.size:
        return None
    prompts = [benchmark.prompts(label, captions=captions) for label in benchmark.labels]
    weights = np.stack([mean_direction(embed_texts(texts)) for texts in prompts])  # [L, D]
    scores, truth = embedded.embeddings[rows] @ weights.T, _truth(benchmark, embedded)[rows]
    return _classification(benchmark, scores, truth, np.array([embedded.clips[row].part for row in rows]))


def supervised(benchmark: Benchmark, embedded: EmbeddedClips) -> Classification | None:
    """How well a linear probe does that learnt from the training folds or splits alone; None if they aren't there.

    Its regularisation is chosen on part of the training clips: on the fold that follows the tested one, on the
    validation split, or on every tenth clip. Then it learns from them all. Over folds the score is the mean of theirs,
    as the authors of ESC-50 and UrbanSound8K ask for, whose folds differ in size.
    """
    truth = _truth(benchmark, embedded)
    parts = np.array([clip.part for clip in embedded.clips])
    trials = _fold_trials(parts) if benchmark.folds else _split_trial(parts)
    if not trials:
        return None
    exclusive = benchmark.kind == "labels"
    metric = _accuracy if exclusive else _mean_average_precision
    x = embedded.embeddings
    scores = np.zeros(truth.shape, np.float32)
    strengths = {}
    for name, (train, validation, test) in trials.items():
        strength = probe.tune(x[train], truth[train], x[validation], truth[validation], exclusive, metric)
        learnt = np.concatenate([train, validation])
        scores[test] = probe.fit(x[learnt], truth[learnt], strength, exclusive=exclusive).logits(x[test])
        strengths[name] = strength
    tested = np.concatenate([test for _, _, test in trials.values()])
    found = _classification(benchmark, scores[tested], truth[tested], parts[tested], strengths)
    return replace(found, score=float(np.mean([*found.by_fold.values()]))) if found.by_fold else found


def retrieve(embedded: EmbeddedClips, embed_texts: EmbedTexts) -> Retrieval | None:
    """How well clips and their captions find each other; None if no clip could be heard."""
    if not embedded.clips:
        return None
    captions = [caption for clip in embedded.clips for caption in clip.captions]
    owners = np.repeat(np.arange(len(embedded.clips)), [len(clip.captions) for clip in embedded.clips])
    return retrieval(embedded.embeddings, embed_texts(captions), owners)


def top_k_accuracy(scores: Array, truth: Truth, k: int) -> float:
    """The share of clips `[N, L]` whose label is among the k highest; of equal scores, the first labels count."""
    own = scores[truth][:, None]  # [N, 1]
    earlier = np.arange(scores.shape[1]) < truth.argmax(axis=1)[:, None]
    above = (scores > own).sum(axis=1) + ((scores == own) & earlier).sum(axis=1)
    return float((above < k).mean())


Rows = npt.NDArray[np.int64]
Trial = tuple[Rows, Rows, Rows]
"""Rows to train on, to choose the regularisation by, and to test on."""


def _fold_trials(parts: npt.NDArray[np.str_]) -> dict[str, Trial]:
    """A trial for each fold, validated on the one after it; none if there are fewer than three."""
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
        is_held = np.arange(len(train)) % _VALIDATION_SHARE == _VALIDATION_SHARE - 1
        train, validation = train[~is_held], train[is_held]
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
    """Which labels hold, `[N, L]`."""
    place = {label: number for number, label in enumerate(benchmark.labels)}
    truth = np.zeros((len(embedded.clips), len(benchmark.labels)), bool)
    for row, clip in enumerate(embedded.clips):
        truth[row, [place[label] for label in clip.labels]] = True
    return truth
