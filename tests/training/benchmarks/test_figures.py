from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from torchmetrics.classification import MultilabelAveragePrecision

from clapboard.labels.captions import ensemble
from clapboard.labels.prompts import prompts_for
from clapboard.suggest.scoring import Array
from training.benchmarks.benchmark import Benchmark, BenchmarkClip, Kind
from training.benchmarks.embedding import EmbeddedClips
from training.benchmarks.figures import retrieve, supervised, top_k_accuracy, zero_shot
from training.evaluate import mean_average_precision
from training.evaluation.probe import STRENGTHS

LABELS = ("bark", "hum", "rain", "siren", "tick", "wind")
DIM = 8


def embed_texts(texts: Sequence[str]) -> Array:
    """Each text at a place of its own, which its label decides."""
    places = [next(number for number, label in enumerate(LABELS) if label in text) for text in texts]
    return np.eye(DIM, dtype=np.float32)[places]


def benchmark_of(labels: Sequence[tuple[str, ...]], parts: Sequence[str], kind: Kind, folds: bool) -> Benchmark:
    rows = enumerate(zip(labels, parts, strict=True))
    clips = tuple(BenchmarkClip(str(number), Path("x"), part, own) for number, (own, part) in rows)
    return Benchmark("b", "B", kind, clips, LABELS, folds)


def heard(benchmark: Benchmark, noise: float, seed: int = 0) -> EmbeddedClips:
    """The clips near their labels' texts."""
    rng = np.random.default_rng(seed)
    rows = np.stack([sum(embed_texts([f"a {label}"])[0] for label in clip.labels) for clip in benchmark.clips])
    rows = rows + noise * rng.standard_normal(rows.shape)
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return EmbeddedClips(benchmark.clips, unit, (), ())


def single(num_clips: int, parts: Sequence[str], *, folds: bool = True, seed: int = 1) -> Benchmark:
    drawn = np.random.default_rng(seed).integers(len(LABELS), size=num_clips)
    return benchmark_of([(LABELS[number],) for number in drawn], parts, "labels", folds)


def several(num_clips: int, parts: Sequence[str]) -> Benchmark:
    rng = np.random.default_rng(2)
    drawn = [tuple(rng.choice(LABELS, rng.integers(1, 4), replace=False)) for _ in range(num_clips)]
    return benchmark_of(drawn, parts, "tags", False)


def truth_of(benchmark: Benchmark) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.array([[label in clip.labels for label in LABELS] for clip in benchmark.clips])


def test_zero_shot_accuracy_is_scikit_learns() -> None:
    benchmark = single(200, [str(1 + number % 4) for number in range(200)])
    clips = heard(benchmark, 1.2)
    found = zero_shot(benchmark, clips, embed_texts)
    assert found is not None
    scores, right = clips.embeddings[:, : len(LABELS)], truth_of(benchmark).argmax(axis=1)
    assert found.score == pytest.approx(metrics.accuracy_score(right, scores.argmax(axis=1)))
    assert found.top_5 == pytest.approx(metrics.top_k_accuracy_score(right, scores, k=5))
    assert 0.3 < found.score < found.top_5 < 1
    assert found.num_clips == 200
    assert list(found.by_fold) == ["1", "2", "3", "4"]
    in_third = np.arange(200) % 4 == 2
    assert found.by_fold["3"] == pytest.approx(np.mean(scores.argmax(axis=1)[in_third] == right[in_third]))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_is_scikit_learns_and_equal_scores_win_nothing(k: int) -> None:
    rng = np.random.default_rng(3)
    scores, right = rng.standard_normal((80, 5)).astype(np.float32), rng.integers(5, size=80)
    truth = np.eye(5, dtype=bool)[right]
    assert top_k_accuracy(scores, truth, k) == pytest.approx(metrics.top_k_accuracy_score(right, scores, k=k))
    assert top_k_accuracy(np.zeros_like(scores), truth, k) == pytest.approx(np.mean(right < k))


def test_zero_shot_of_several_labels_is_the_mean_average_precision_of_both_libraries() -> None:
    benchmark = several(150, ["test"] * 150)
    clips = heard(benchmark, 0.8)
    found = zero_shot(benchmark, clips, embed_texts)
    assert found is not None
    scores, truth = clips.embeddings[:, : len(LABELS)], truth_of(benchmark)
    assert found.score == pytest.approx(metrics.average_precision_score(truth, scores, average="macro"))
    theirs = MultilabelAveragePrecision(num_labels=len(LABELS), average="macro")
    assert found.score == pytest.approx(
        float(theirs(torch.from_numpy(scores), torch.from_numpy(truth).int())), abs=1e-5
    )
    assert (found.top_5, found.by_fold) == (None, {})


def test_the_mean_average_precision_by_hand() -> None:
    scores = np.float32([[0.9, 0.1, 0], [0.8, 0.9, 0], [0.1, 0.8, 0]])
    truth = np.array([[True, False, False], [False, True, False], [True, True, False]])  # the last label has no clip
    assert mean_average_precision(scores, truth) == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


def test_zero_shot_is_about_the_test_split_alone() -> None:
    parts = ["train"] * 30 + ["test"] * 10
    benchmark = single(40, parts, folds=False)
    clips = heard(benchmark, 0.0)
    clips.embeddings[:30] = -1  # nonsense, which must not be looked at
    found = zero_shot(benchmark, clips, embed_texts)
    assert found is not None
    assert (found.score, found.num_clips) == (1.0, 10)


@pytest.mark.parametrize("captions", [False, True])
def test_labels_are_read_in_captions_where_they_are_asked_for(captions: bool) -> None:
    asked: list[tuple[str, ...]] = []

    def embed(texts: Sequence[str]) -> Array:
        asked.append(tuple(texts))
        return np.eye(DIM, dtype=np.float32)[np.zeros(len(texts), int)]

    benchmark = single(20, ["1"] * 20)
    assert zero_shot(benchmark, heard(benchmark, 0.1), embed, captions=captions) is not None
    assert asked == [ensemble(label) if captions else prompts_for(label) for label in LABELS]
    assert all((len(texts) > 1) is captions for texts in asked)


def reference(x: Array, right: np.ndarray[tuple[int], np.dtype[np.int64]], strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, tol=1e-6, max_iter=5000).fit(x, right)


def test_the_probe_of_folds_is_what_scikit_learn_makes_of_them() -> None:
    parts = [str(1 + number % 10) for number in range(200)]
    benchmark = single(200, parts)
    clips = heard(benchmark, 0.7)
    found = supervised(benchmark, clips)
    assert found is not None
    assert list(found.by_fold) == list(found.strengths) == [str(fold) for fold in range(1, 11)]
    x, right, folds = clips.embeddings, truth_of(benchmark).argmax(axis=1), np.array(parts)
    for fold, following in (("1", "2"), ("10", "1")):
        train = (folds != fold) & (folds != following)
        values = [
            reference(x[train], right[train], c).score(x[folds == following], right[folds == following])
            for c in STRENGTHS
        ]
        strength = STRENGTHS[int(np.argmax(values))]
        assert found.strengths[fold] == strength
        learnt = reference(x[folds != fold], right[folds != fold], strength)
        assert found.by_fold[fold] == pytest.approx(learnt.score(x[folds == fold], right[folds == fold]))
    assert found.num_clips == 200


def test_a_probes_score_is_the_mean_of_its_folds_whatever_their_size() -> None:
    parts = ["1"] * 90 + ["2"] * 20 + ["3"] * 50
    benchmark = single(160, parts)
    found = supervised(benchmark, heard(benchmark, 0.9))
    assert found is not None
    assert found.score == pytest.approx(sum(found.by_fold.values()) / 3)
    pooled = (90 * found.by_fold["1"] + 20 * found.by_fold["2"] + 50 * found.by_fold["3"]) / 160
    assert abs(found.score - pooled) > 1e-3


def test_the_clips_that_are_tested_on_choose_nothing() -> None:
    parts = [str(1 + number % 4) for number in range(120)]
    benchmark = single(120, parts)
    clips = heard(benchmark, 0.9)
    found = supervised(benchmark, clips)
    swapped = tuple(
        BenchmarkClip(clip.name, clip.path, clip.part, (LABELS[number % 6],) if clip.part == "2" else clip.labels)
        for number, clip in enumerate(benchmark.clips)
    )
    other = supervised(benchmark, EmbeddedClips(swapped, clips.embeddings, (), ()))
    assert found is not None
    assert other is not None
    assert other.strengths["2"] == found.strengths["2"]
    assert other.by_fold["2"] != found.by_fold["2"]


def test_a_validation_split_chooses_and_teaches_too() -> None:
    parts = ["train"] * 120 + ["validation"] * 60 + ["test"] * 60
    benchmark = several(240, parts)
    clips = heard(benchmark, 1.0)
    found = supervised(benchmark, clips)
    assert found is not None
    (strength,) = found.strengths.values()
    truth, x = truth_of(benchmark), clips.embeddings
    columns = [LogisticRegression(C=strength, tol=1e-6, max_iter=5000).fit(x[:180], column[:180]) for column in truth.T]
    scores = np.stack([one.decision_function(x[180:]) for one in columns], axis=1)
    assert found.score == pytest.approx(metrics.average_precision_score(truth[180:], scores), abs=2e-3)
    assert found.num_clips == 60


def test_without_a_validation_split_every_tenth_training_clip_is_one() -> None:
    benchmark = single(130, ["train"] * 100 + ["test"] * 30, folds=False)
    found = supervised(benchmark, heard(benchmark, 0.1))
    assert found is not None
    assert (found.score, found.num_clips, found.by_fold) == (1.0, 30, {})


@pytest.mark.parametrize("parts", [["1", "2"] * 20, ["1"] * 40])
def test_fewer_than_three_folds_teach_nothing(parts: list[str]) -> None:
    benchmark = single(40, parts)
    assert supervised(benchmark, heard(benchmark, 0.1)) is None


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_split_that_is_not_there_teaches_nothing(part: str) -> None:
    benchmark = single(40, [part] * 40, folds=False)
    assert supervised(benchmark, heard(benchmark, 0.1)) is None


def test_no_clip_has_no_figure() -> None:
    benchmark = single(10, ["test"] * 10, folds=False)
    nothing = EmbeddedClips((), np.zeros((0, DIM), np.float32), (), ())
    assert zero_shot(benchmark, nothing, embed_texts) is None
    assert supervised(benchmark, nothing) is None
    assert retrieve(nothing, embed_texts) is None


def test_captions_of_the_clips_that_were_heard_are_ranked() -> None:
    captions = [("a bark", "one more bark"), ("some rain",), ("a siren", "the siren", "a siren far away")]
    clips = tuple(BenchmarkClip(str(number), Path("x"), "test", captions=own) for number, own in enumerate(captions))
    found = retrieve(EmbeddedClips(clips, embed_texts(["bark", "rain", "siren"]), ("gone",), ()), embed_texts)
    assert found is not None
    assert (found.num_clips, found.num_captions) == (3, 6)
    assert found.text_to_audio.recall_1 == found.audio_to_text.map_10 == 1.0
