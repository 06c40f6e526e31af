from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalRecall

from clapboard.suggest.scoring import Array
from training.evaluation import retrieval as module
from training.evaluation.retrieval import Places, Recalls, average_precision, first_right, ranks, retrieval


def unit(rng: np.random.Generator, *shape: int) -> Array:
    rows = rng.standard_normal(shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def pairs(seed: int, num_clips: int = 40, most: int = 5) -> tuple[Array, Array, Places]:
    """Sounds, and from one to `most` sentences near each of them."""
    rng = np.random.default_rng(seed)
    audio = unit(rng, num_clips, 8)
    owners = np.repeat(np.arange(num_clips), rng.integers(1, most + 1, num_clips))
    texts = audio[owners] + 0.9 * unit(rng, len(owners), 8)
    return audio, texts / np.linalg.norm(texts, axis=1, keepdims=True), owners


def positive(cosines: Array) -> torch.Tensor:
    """The scores for torchmetrics, which takes what isn't above 0 for no answer."""
    return torch.from_numpy(2 + cosines).flatten()


def by_torchmetrics(cosines: Array, right: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Recalls:
    """Recalls of the best answer, and AP@10 over all that is right, found or not."""
    asked = torch.arange(len(cosines)).repeat_interleave(cosines.shape[1])
    given = (positive(cosines), torch.from_numpy(right).flatten(), asked)
    hits = [float(RetrievalHitRate(top_k=depth)(*given)) for depth in (1, 5, 10)]
    precisions = []
    for row, truth in zip(cosines, right, strict=True):  # torchmetrics divides by what it found, not by what there is
        one = (positive(row), torch.from_numpy(truth), torch.zeros(len(row), dtype=torch.long))
        precision = RetrievalMAP(top_k=10)(*one) * RetrievalRecall(top_k=10)(*one) * truth.sum() / min(truth.sum(), 10)
        precisions.append(float(precision))
    return Recalls(*hits, float(np.mean(precisions)))


def recalls(found: Recalls) -> tuple[float, ...]:
    return (found.recall_1, found.recall_5, found.recall_10, found.map_10)


@pytest.mark.parametrize(("seed", "most"), [(0, 5), (1, 1), (2, 14)])
def test_both_directions_agree_with_torchmetrics(seed: int, most: int) -> None:
    audio, texts, owners = pairs(seed, most=most)
    found = retrieval(audio, texts, owners)
    right = owners[:, None] == np.arange(len(audio))
    cosines = texts @ audio.T
    assert recalls(found.text_to_audio) == pytest.approx(recalls(by_torchmetrics(cosines, right)), abs=1e-6)
    assert recalls(found.audio_to_text) == pytest.approx(recalls(by_torchmetrics(cosines.T, right.T)), abs=1e-6)
    assert (found.num_clips, found.num_captions) == (40, len(texts))
    assert 0.1 < found.text_to_audio.recall_1 < 0.9


def test_two_sounds_with_two_sentences_by_hand() -> None:
    audio = np.float32([[1, 0], [0, 1]])
    texts = np.float32([[0.6, 0.8], [0.8, 0.6], [0.28, 0.96], [0, 1]])  # the first is nearer to the other sound
    found = retrieval(audio, texts, np.array([0, 0, 1, 1]))
    assert recalls(found.text_to_audio) == (0.75, 1, 1, pytest.approx((0.5 + 3) / 4))
    # The first sound's answers: sentences 1, 0, 2, 3. The second's: 3, 2, 0, 1.
    assert recalls(found.audio_to_text) == (1, 1, 1, 1)
    # Unsorted, its sentences stand at 2 and 1 of both answers: (1/2 + 2/1) / 2.
    assert found.audio_to_text_map_10_unsorted == pytest.approx(1.25)


def test_an_answer_below_the_tenth_place_counts_for_nothing() -> None:
    assert average_precision(np.array([0, 3, 9, 10, 40])) == pytest.approx((1 / 1 + 2 / 4 + 3 / 10) / 5)
    assert average_precision(np.array([10])) == 0
    assert average_precision(np.arange(12)) == 1


def test_equal_cosines_win_nothing() -> None:
    alike = np.tile(np.float32([[1, 0]]), (20, 1))
    found = retrieval(alike, alike, np.arange(20))
    assert recalls(found.text_to_audio)[:3] == recalls(found.audio_to_text)[:3] == (1 / 20, 5 / 20, 10 / 20)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    audio, texts, owners = pairs(3)
    whole = retrieval(audio, texts, owners)
    for scores in (1, 7 * len(texts)):
        monkeypatch.setattr(module, "_BLOCK_SCORES", scores)
        assert retrieval(audio, texts, owners) == whole


def test_ranks_are_places_in_the_sorted_answer() -> None:
    rng = np.random.default_rng(4)
    queries, gallery = unit(rng, 6, 8), unit(rng, 9, 8)
    asked, wanted = (np.array(part) for part in zip(*itertools.product(range(6), range(9)), strict=True))
    order = np.argsort(-(queries @ gallery.T), axis=1)
    assert np.array_equal(ranks(queries, gallery, asked, wanted).reshape(6, 9), np.argsort(order, axis=1))


def test_the_first_right_answer_is_that_of_one_sound_a_sentence_where_kinds_are_sounds() -> None:
    audio, texts, owners = pairs(3)
    found, sounds = retrieval(audio, texts, owners), np.arange(len(audio))
    by_text, by_sound = first_right(texts, audio, owners, sounds), first_right(audio, texts, sounds, owners)
    for depth, named in ((1, "recall_1"), (5, "recall_5"), (10, "recall_10")):
        assert (by_text < depth).mean() == pytest.approx(getattr(found.text_to_audio, named))
        assert (by_sound < depth).mean() == pytest.approx(getattr(found.audio_to_text, named))
    alike = np.tile(np.float32([[1, 0]]), (20, 1))
    assert first_right(alike, alike, np.arange(20), np.arange(20)).tolist() == list(range(20))


def test_whatever_is_of_the_same_kind_is_right_and_no_obstacle() -> None:
    gallery = np.float32([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]])
    kinds = np.array([7, 8, 7, 9])
    places = first_right(np.float32([[1, 0], [0, 1], [0, 1], [0, 1]]), gallery, np.array([7, 7, 8, 9]), kinds)
    assert places.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("owners", [[0, 0, 2], [1, 0, 2], [0, 1, 1]])
def test_every_sound_needs_its_sentences_in_order(owners: list[int]) -> None:
    rows = unit(np.random.default_rng(0), 3, 4)
    with pytest.raises(ValueError, match="owners must ascend"):
        retrieval(rows, rows, np.array(owners))
