"""The encoders that a worker has loaded: the base model for good, finetuned ones as projects need them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from clapboard.model.clap import ClapEncoder
from clapboard.project.serving import is_tuned
from clapboard.store import Store
from clapboard.store.catalog import Encoder


class EncoderPool:
    """Holds at most `capacity` encoders, the base model included, and drops the least recently used. Thread-safe."""

    def __init__(self, base: ClapEncoder, load: Callable[[str], ClapEncoder], *, capacity: int) -> None:
        self.base = base
        self._load = load
        self._tuned_capacity = max(1, capacity - 1)
        self._tuned: OrderedDict[str, ClapEncoder] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> ClapEncoder:
        """The encoder of that name. Any name that isn't a finetuned checkpoint's means the base model.

        Raises `ModelError` if its checkpoint can't be read.
        """
        if not is_tuned(name):
            return self.base
        with self._lock:
            if name not in self._tuned:
                while len(self._tuned) >= self._tuned_capacity:
                    self._tuned.popitem(last=False)
                self._tuned[name] = self._load(name)
            self._tuned.move_to_end(name)
            return self._tuned[name]


def announce_encoder(store: Store, encoder: ClapEncoder) -> Encoder:
    """Write the encoder into the store's catalog, so that the backend can name its versions; its row there."""
    identity = encoder.identity
    row = Encoder(identity.model, identity.version, identity.dtype, identity.dim, identity.logit_scale)
    store.catalog.announce_encoder(row)
    return row
