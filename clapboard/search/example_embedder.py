"""The texts and sounds of a search → their embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from clapboard.audio.channels import content_key
from clapboard.audio.windows import SAMPLE_RATE, blocks
from clapboard.errors import AudioError, BusyError
from clapboard.labels.label_space import label_space_of
from clapboard.memo import Memory
from clapboard.search.search_terms import LONGEST_S, FileSound
from clapboard.suggest.prediction import compute_class_weights
from clapboard.suggest.scoring import Array, mean_direction

if TYPE_CHECKING:
    from clapboard.model.clap import ClapEncoder


class ExampleEmbedder:
    """Embeds what somebody searches by. The encoder is loaded when it is first needed."""

    def __init__(
        self,
        load_encoder: Callable[[], ClapEncoder],
        memory: Memory[Hashable, Array],
        *,
        patience_s: Callable[[], float] = lambda: math.inf,
        longest_s: float = math.inf,
    ) -> None:
        """`patience_s` returns how long somebody still waits for the search: 0 when they have gone.

        `longest_s` is the longest recording that a piece may be taken from.
        """
        self._longest_s = longest_s
        self._encoder = lru_cache(maxsize=1)(load_encoder)
        self._memory = memory
        self._patience_s = patience_s

    def require_patience(self) -> float:
        """How many seconds there are for the next step. Raises `BusyError` if nobody waits any more."""
        patience_s = self._patience_s()
        if patience_s <= 0:
            raise BusyError("Nobody waits for this search any more.")
        return patience_s

    def text(self, text: str) -> tuple[Array, Array]:
        """The text's embedding `[D]`, made as a label's would be, and the embedding `[D]` of a text without meaning.

        Raises `LabelConfigError` for an empty text, `ModelError`.
        """
        weight, neutral = compute_class_weights(label_space_of([text]), self._encoder().embed_texts)
        return weight, neutral

    def sound(self, file: FileSound) -> Array:
        """The mean direction `[D]` of the file's views: its windows or, for an encoder with fusion, the whole of it.

        Raises `AudioError` if it can't be used or is too long, `BusyError` if nobody waits any more.
        """
        self.require_patience()
        if not file.sha256:
            return self._embed(file)
        identity = self._encoder().identity
        content = content_key(file.sha256, file.channel)
        return self._memory.get((identity.version, identity.dtype, content, file.span), lambda: self._embed(file))

    def _embed(self, file: FileSound) -> Array:
        _require_short(file)
        encoder = self._encoder()
        views = encoder.views(
            file.path, name=file.name, span=file.span, channel=file.channel, longest_s=self._longest_s
        )
        batches = iter(lambda: [*islice(views, encoder.batch_size)], [])
        return mean_direction(np.concatenate([encoder.embed_views(batch) for batch in batches]))


def _require_short(file: FileSound) -> None:
    """Raises `AudioError` for a sound that is too long, before any of it is embedded: reading takes far less time."""
    if file.span is not None:
        length_s = file.span.end_s - file.span.start_s
    else:
        num_samples = 0
        for block in blocks(file.path, name=file.name):
            num_samples += block.size
            if num_samples > LONGEST_S * SAMPLE_RATE:
                break
        length_s = num_samples / SAMPLE_RATE
    if length_s > LONGEST_S:
        raise AudioError(
            f"{file.name} is longer than the {LONGEST_S:g} s that can be searched by: name the piece that counts."
        )
