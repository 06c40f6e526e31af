"""Scores of a Choices' labels → the labels to suggest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clapboard.suggest.scoring import Array

if TYPE_CHECKING:
    from clapboard.labels.label_space import Control

DEFAULT_THRESHOLD = 0.5


def chosen_labels(control: Control, scores: Array) -> list[list[int]]:
    """The indices of the labels to suggest for each recording or region, best first, by scores `[N, L]`.

    A threshold in the label config is followed strictly. Without one, something is always suggested: correcting a wrong
    suggestion costs a click, and a blank would hide what the model thought.
    """
    orders = np.argsort(-scores, axis=1, kind="stable")
    if not control.multiple:
        orders = orders[:, :1]
    ranked = np.take_along_axis(scores, orders, axis=1)
    if control.threshold is not None:
        num_chosen = (ranked >= control.threshold).sum(axis=1)
    else:
        num_chosen = np.maximum((ranked >= DEFAULT_THRESHOLD).sum(axis=1), 1)
    return [order[:number] for order, number in zip(orders.tolist(), num_chosen.tolist(), strict=True)]
