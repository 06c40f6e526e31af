"""Embeddings of what is wanted and of what isn't → the direction to search in. numpy alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clapboard.errors import RequestError
from clapboard.suggest.scoring import Array, mean_direction

NOT_LIKE = 0.5
"""Weight of what isn't wanted. On real sounds, rejecting the first wrong answer repaired every search from 0.15 to 0.5;
of these, 0.5 helped most where the wanted sound came mixed with the unwanted. From 0.75 on, what is wanted is lost."""

_INDISTINCT = 1e-2  # far above what rounding to float16 makes of no distance at all
_NO_DIRECTION = 1e-4


def centred(embedding: Array, average: Array) -> Array:
    """The unit-norm direction `[D]` from the average `[D]` of its kind to an embedding `[D]`.

    CLAP's texts and sounds lie in two narrow cones, apart from each other (Liang et al. 2022, «Mind the Gap»,
    arXiv 2203.02053). Seen from the middle of its own cone, a text and a sound can be added up as equals, and what all
    sounds have in common counts neither for nor against a window. An embedding at the average, as in a project of one
    clip, is taken as it is.
    """
    offset = embedding - average
    return mean_direction((offset if np.linalg.norm(offset) > _INDISTINCT else embedding)[None])


def direction(wanted: Sequence[Array], unwanted: Sequence[Array] = ()) -> Array:
    """The unit-norm query `[D]`: the mean of the wanted centred examples `[D]` less `NOT_LIKE` × that of the unwanted.

    Raises `RequestError` if nothing is wanted, or the examples cancel each other out. Rocchio's rule (1971; Manning,
    Raghavan and Schütze 2008, «Introduction to Information Retrieval», section 9.1.1) without an original query: texts
    are examples.
    """
    if not wanted:
        raise RequestError("The search says only what isn't wanted: give a text or a sound that is.")
    query = np.mean(wanted, axis=0)
    if unwanted:
        query = query - NOT_LIKE * np.mean(unwanted, axis=0)
    if np.linalg.norm(query) < _NO_DIRECTION:
        raise RequestError("The search's examples cancel each other out: leave out one of them.")
    return mean_direction(query[None])
