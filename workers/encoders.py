"""The encoders of a worker: the base model for good, finetuned ones as projects ask for them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from clapboard.clap import ClapEncoder
from clapboard.serving import is_tuned
from clapboard.store import Store
from clapboard.store.catalog import Encoder


class EncoderPool:
    """At most `capacity` encoders, the base model among them; the least recently used one leaves. Threads share it."""

    def __init__(self, base: ClapEncoder, load: Callable[[str], ClapEncoder], *, capacity: int) -> None:
        self.base = base
        self._load = load
        self._num_tuned = max(1, capacity - 1)
        self._tuned: OrderedDict[str, ClapEncoder] = OrderedDict()
        self._turn = threading.Lock()

    def get(self, name: str) -> ClapEncoder:
        """The encoder of that name. Raises `ModelError` if its checkpoint can't be read.

        Whatever isn't finetuned is the base model: a worker has one, and says in each version which one it was.
        """
        if not is_tuned(name):
            return self.base
        with self._turn:
            if name not in self._tuned:
                while len(self._tuned) >= self._num_tuned:
                    self._tuned.popitem(last=False)
                self._tuned[name] = self._load(name)
            self._tuned.move_to_end(name)
            return self._tuned[name]


def announce(store: Store, encoder: ClapEncoder) -> Encoder:
    """Say in the store that the encoder is there: from then on the backend can name its versions."""
    identity = encoder.identity
    known = Encoder(identity.model, identity.version, identity.dtype, identity.dim, identity.logit_scale)
    store.catalog.announce_encoder(known)
    return known
