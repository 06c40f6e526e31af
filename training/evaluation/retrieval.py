"""How well sounds and sentences find each other, several sentences a sound.

The definitions are those of LAION's evaluation of AudioCaps and Clotho, which it took from Mei et al., «On Metric
Learning for Audio-Text Cross-Modal Retrieval» (Interspeech 2022): from text to audio, every sentence is a query and one
sound is right; from audio to text, every sound is a query, R@k asks for the best of its sentences, and mAP@10 counts
them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clapboard.scoring import Array

Places = npt.NDArray[np.int64]

_DEPTH = 10
_BLOCK_SCORES = 1 << 26
"""Cosines held at a time, 256 MB: all of them would be 50 GB for 50,000 sounds with five sentences each."""


@dataclass(frozen=True)
class Recalls:
    """Shares of queries, in [0, 1]."""

    recall_1: float
    recall_5: float
    recall_10: float
    map_10: float


@dataclass(frozen=True)
class Retrieval:
    """Both directions over N sounds and C sentences.

    `audio_to_text_map_10_unsorted` is what LAION's code computes from audio to text: other than its comment says, it
    leaves the ranks of a sound's sentences in the order of its table, so that the figure comes out higher, even
    above 1. Published figures by that code compare with this one.
    """

    num_clips: int
    num_captions: int
    text_to_audio: Recalls
    audio_to_text: Recalls
    audio_to_text_map_10_unsorted: float


def retrieval(audio: Array, texts: Array, owners: Places) -> Retrieval:
    """Both directions for unit-norm sounds `[N, D]` and sentences `[C, D]`, whose sound `owners` `[C]` names.

    Raises `ValueError` if the owners don't ascend, or if a sound has no sentence.
    """
    if not np.array_equal(np.unique(owners), np.arange(len(audio))) or (np.diff(owners) < 0).any():
        raise ValueError("owners must ascend and name every sound")
    captions = np.arange(len(texts))
    of_captions = ranks(texts, audio, captions, owners)  # [C]
    of_clips = ranks(audio, texts, owners, captions)  # [C], each sentence's among all, when its sound asks
    starts = np.flatnonzero(np.diff(owners, prepend=-1))  # [N]
    own = np.split(of_clips, starts[1:])
    return Retrieval(
        len(audio),
        len(texts),
        _recalls(of_captions, _precisions(of_captions)),
        _recalls(np.minimum.reduceat(of_clips, starts), np.array([average_precision(np.sort(part)) for part in own])),
        float(np.mean([average_precision(part) for part in own])),
    )


def ranks(queries: Array, gallery: Array, asked: Places, wanted: Places) -> Places:
    """The place, from 0, of row `wanted[i]` of the gallery in the answer to query `asked[i]`: `[P]`, `asked` ascending.

    Equal cosines keep the gallery's order, so that an encoder to which all sounds alike gains nothing.
    """
    found = np.empty(len(asked), np.int64)
    step = max(1, _BLOCK_SCORES // len(gallery))
    for start in range(0, len(queries), step):
        cosines = queries[start : start + step] @ gallery.T  # [B, G]
        for pair in range(*np.searchsorted(asked, (start, start + step))):
            row, place = cosines[asked[pair] - start], wanted[pair]
            found[pair] = np.count_nonzero(row > row[place]) + np.count_nonzero(row[:place] == row[place])
    return found


def average_precision(ordered: Places) -> float:
    """AP@10 of one query from the ranks, from 0, of all that is right: the mean of the precision at each one found."""
    found = ordered[ordered < _DEPTH]
    return float((np.arange(1, len(found) + 1) / (found + 1)).sum() / min(len(ordered), _DEPTH))


def _precisions(places: Places) -> npt.NDArray[np.float64]:
    """AP@10 where a single answer is right, `[Q]`."""
    return np.where(places < _DEPTH, 1 / (places + 1), 0.0)


def _recalls(best: Places, precisions: npt.NDArray[np.float64]) -> Recalls:
    first, fifth, tenth = (float((best < depth).mean()) for depth in (1, 5, 10))
    return Recalls(first, fifth, tenth, float(precisions.mean()))
