"""The heads that a worker scores with, fitted or zero-shot: read from the store or computed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

import numpy as np

from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.model.clap import ClapEncoder
from clapboard.store import Store
from clapboard.suggest import prediction
from clapboard.suggest.head import ZERO_SHOT, Head, zero_shot_head
from clapboard.suggest.regions import zero_shot_frames
from clapboard.suggest.scoring import Array

_CAPACITY = 64


class HeadCache:
    """Label spaces and heads by encoder version, label space and name. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached: OrderedDict[tuple[str, str, str], tuple[LabelSpace, Head]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, encoder: ClapEncoder, space_id: str, name: str = ZERO_SHOT) -> tuple[LabelSpace, Head]:
        """The label space, and its head of that name.

        Raises `NotFoundError` if the store has no such label space or head, `LabelConfigError` if it can't be used.
        """
        key = (encoder.identity.version, space_id, name)
        with self._lock:
            if key not in self._cached:
                label_space = parse_label_config(self._store.catalog.label_config(space_id))
                self._cached[key] = label_space, self._head(encoder, label_space, space_id, name)
                while len(self._cached) > _CAPACITY:
                    self._cached.popitem(last=False)
            self._cached.move_to_end(key)
            return self._cached[key]

    def _head(self, encoder: ClapEncoder, label_space: LabelSpace, space_id: str, name: str) -> Head:
        if name == ZERO_SHOT:
            return self._zero_shot(encoder, label_space, space_id)
        head = self._store.versions.head(encoder.identity.version, space_id, name)
        if label_space.on_frames and not head.frame_controls:  # it has learnt of clips only
            head = replace(head, frame_controls=self._zero_shot(encoder, label_space, space_id).frame_controls)
        return head

    def _zero_shot(self, encoder: ClapEncoder, label_space: LabelSpace, space_id: str) -> Head:
        """The head of the labels' texts, stored for the backend where that can't make it from the class weights."""
        class_weights = self._class_weights(encoder, label_space, space_id)
        head = zero_shot_head(label_space, class_weights, encoder.logit_scale)
        if label_space.on_frames:
            on_frames = zero_shot_frames(label_space, class_weights, encoder.logit_scale, encoder.frame_scores)
            head = replace(head, frame_controls=on_frames)
            self._store.versions.put_zero_shot(encoder.identity.version, space_id, head)
        return head

    def _class_weights(self, encoder: ClapEncoder, label_space: LabelSpace, space_id: str) -> Array:
        """The class weights `[L + 1, D]`, computed once and stored for all workers and the backend."""
        version = encoder.identity.version
        stored = self._store.catalog.class_weights(version, space_id)
        if stored is None:
            stored = prediction.compute_class_weights(label_space, encoder.embed_texts)
            self._store.catalog.put_class_weights(version, space_id, stored)
        return np.asarray(stored)
