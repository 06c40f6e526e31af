"""Retrieval figures: how well sounds and captions find each other, with several captions a sound.

The definitions are those of LAION's evaluation of AudioCaps and Clotho, which it took from Mei et al., «On Metric
Learning for Audio-Text Cross-Modal Retrieval» (Interspeech 2022): from text to audio, every caption is a query and one
sound is right; from audio to text, every sound is a query, R@k counts the best of its captions, and mAP@10 counts all
of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clapboard.suggest.scoring import Array

Places = npt.NDArray[np.int64]
Kinds = npt.NDArray[np.int64]

_DEPTH = 10
_BLOCK_SCORES = 1 << 26
"""The number of cosines in memory at a time, 256 MB; for 50,000 sounds of five captions, all would take 50 GB."""


@dataclass(frozen=True)
class Recalls:
    """Recall at 1, 5 and 10 and mAP at 10, in [0, 1]."""

    recall_1: float
    recall_5: float
    recall_10: float
    map_10: float


@dataclass(frozen=True)
class Retrieval:
    """The figures of both directions over N sounds and C captions.

    `audio_to_text_map_10_unsorted` is what LAION's code computes from audio to text: contrary to its comment, it leaves
    the ranks of a sound's captions in the order of the table, which makes the figure higher, even above 1. Compare
    figures that were published with that code with this one.
    """

    num_clips: int
    num_captions: int
    text_to_audio: Recalls
    audio_to_text: Recalls
    audio_to_text_map_10_unsorted: float


def retrieval(audio: Array, texts: Array, owners: Places) -> Retrieval:
    """The figures for unit-norm sounds `[N, D]` and captions `[C, D]`; `owners` `[C]` are the captions' sounds.

    Raises `ValueError` if the owners don't ascend, or if a sound has no caption.
    """
    if not np.array_equal(np.unique(owners), np.arange(len(audio))) or (np.diff(owners) < 0).any():
        raise ValueError("owners must ascend and name every sound")
    captions = np.arange(len(texts))
    of_captions = ranks(texts, audio, captions, owners)  # [C]
    of_clips = ranks(audio, texts, owners, captions)  # [C], the rank of each caption in the answer to its sound
    starts = np.flatnonzero(np.diff(owners, prepend=-1))  # [N]
    own = np.split(of_clips, starts[1:])
    return Retrieval(
        len(audio),
        len(texts),
        _recalls(of_captions, _precisions(of_captions)),
        _recalls(np.minimum.reduceat(of_clips, starts), np.array([average_precision(np.sort(part)) for part in own])),
        float(np.mean([average_precision(part) for part in own])),
    )


def first_right(queries: Array, gallery: Array, asked: Kinds, offered: Kinds) -> Places:
    """The rank, from 0, of the first right answer to each query `[Q]`: the first item of the same kind in the gallery.

    `asked` `[Q]` and `offered` `[G]` are the kinds' numbers; each query's kind must be offered. Equal cosines keep the
    gallery's order.
    """
    first_ranks = np.empty(len(queries), np.int64)
    step = max(1, _BLOCK_SCORES // len(gallery))
    for start in range(0, len(queries), step):
        for number, row in enumerate(queries[start : start + step] @ gallery.T, start):  # [G]
            right = offered == asked[number]
            best = int(np.argmax(np.where(right, row, -np.inf)))
            wrong = row[~right]
            before = int(np.count_nonzero(~right[:best]))  # wrong items before it in the gallery
            first_ranks[number] = np.count_nonzero(wrong > row[best]) + np.count_nonzero(wrong[:before] == row[best])
    return first_ranks


def ranks(queries: Array, gallery: Array, asked: Places, wanted: Places) -> Places:
    """The rank `[P]`, from 0, of gallery row `wanted[i]` in the answer to query `asked[i]`; `asked` must ascend.

    Equal cosines keep the gallery's order, so that an encoder for which all sounds are equal gains nothing.
    """
    pair_ranks = np.empty(len(asked), np.int64)
    step = max(1, _BLOCK_SCORES // len(gallery))
    for start in range(0, len(queries), step):
        cosines = queries[start : start + step] @ gallery.T  # [B, G]
        for pair in range(*np.searchsorted(asked, (start, start + step))):
            row, place = cosines[asked[pair] - start], wanted[pair]
            pair_ranks[pair] = np.count_nonzero(row > row[place]) + np.count_nonzero(row[:place] == row[place])
    return pair_ranks


def average_precision(ordered: Places) -> float:
    """AP@10 of one query, from the ranks, from 0, of its right answers: the mean precision at each of them."""
    top_ranks = ordered[ordered < _DEPTH]
    return float((np.arange(1, len(top_ranks) + 1) / (top_ranks + 1)).sum() / min(len(ordered), _DEPTH))


def _precisions(places: Places) -> npt.NDArray[np.float64]:
    """AP@10 `[Q]` of queries with a single right answer."""
    return np.where(places < _DEPTH, 1 / (places + 1), 0.0)


def _recalls(best: Places, precisions: npt.NDArray[np.float64]) -> Recalls:
    first, fifth, tenth = (float((best < depth).mean()) for depth in (1, 5, 10))
    return Recalls(first, fifth, tenth, float(precisions.mean()))
