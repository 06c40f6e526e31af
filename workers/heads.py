"""The heads that a worker scores with, fitted or zero-shot, computed or read once."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from clapboard import prediction
from clapboard.clap import ClapEncoder
from clapboard.head import ZERO_SHOT, Head, zero_shot_head
from clapboard.labels import LabelSpace, parse_label_config
from clapboard.scoring import Array
from clapboard.store import Store

_MEMORY = 64


class Heads:
    """Label spaces and heads by their names. Threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[tuple[str, str, str], tuple[LabelSpace, Head]] = OrderedDict()
        self._turn = threading.Lock()

    def get(self, encoder: ClapEncoder, space_id: str, name: str = ZERO_SHOT) -> tuple[LabelSpace, Head]:
        """The label space and a head of it.

        Raises `NotFoundError` or `LabelConfigError` if either isn't known or can't be used.
        """
        key = (encoder.identity.version, space_id, name)
        with self._turn:
            if key not in self._known:
                label_space = parse_label_config(self._store.catalog.label_config(space_id))
                self._known[key] = label_space, self._head(encoder, label_space, space_id, name)
                while len(self._known) > _MEMORY:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key]

    def _head(self, encoder: ClapEncoder, label_space: LabelSpace, space_id: str, name: str) -> Head:
        if name != ZERO_SHOT:
            return self._store.versions.head(encoder.identity.version, space_id, name)
        return zero_shot_head(label_space, self._class_weights(encoder, label_space, space_id), encoder.logit_scale)

    def _class_weights(self, encoder: ClapEncoder, label_space: LabelSpace, space_id: str) -> Array:
        """The class weights `[L + 1, D]`, computed once and kept in the store."""
        version = encoder.identity.version
        kept = self._store.catalog.class_weights(version, space_id)
        if kept is None:
            kept = prediction.compute_class_weights(label_space, encoder.embed_texts)
            self._store.catalog.put_class_weights(version, space_id, kept)
        return np.asarray(kept)
