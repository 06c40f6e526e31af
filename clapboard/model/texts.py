"""Texts → unit-norm embeddings, by a checkpoint's text tower; the latest ones are remembered."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from clapboard.memo import Memory
from clapboard.model.checkpoints import max_tokens

if TYPE_CHECKING:
    from clapboard.model.checkpoints import Clap

Embedding = npt.NDArray[np.float32]
"""A unit-norm vector `[D]`, float32."""

_TEXTS_AT_ONCE = 64
_TEXTS_REMEMBERED = 10_000


class TextEncoder:
    """A checkpoint's text tower, projection and tokenizer. Threads may share it."""

    def __init__(self, model: Clap, tokenizer: Any, turn: threading.Lock) -> None:
        """`turn` is held during a forward pass."""
        self._model = model
        self._tokenizer = tokenizer
        self._turn = turn
        self._remembered: Memory[str, Embedding] = Memory(_TEXTS_REMEMBERED)

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """The embedding `[D]` of each text."""
        embeddings = self._remembered.known(texts)
        missing = sorted({text for text in texts if text not in embeddings})
        for start in range(0, len(missing), _TEXTS_AT_ONCE):
            batch = missing[start : start + _TEXTS_AT_ONCE]
            rows = self._forward(batch)
            # Copies: a view of one row would keep the whole batch for as long as that text is remembered.
            computed = {text: row.copy() for text, row in zip(batch, rows, strict=True)}
            self._remembered.keep(computed)
            embeddings |= computed
        return [embeddings[text] for text in texts]

    def _forward(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """`[len(texts), D]`."""
        longest, device = max_tokens(self._model), self._model.device
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with self._turn, torch.inference_mode():
            output = self._model.get_text_features(
                input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
            )
            return np.asarray(torch.nn.functional.normalize(output.pooler_output.float(), dim=-1).cpu())
