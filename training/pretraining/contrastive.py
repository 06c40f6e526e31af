"""The task of pretraining: computes a batch's contrastive loss and the gradient of each parameter.

A batch that doesn't fit into memory is computed in portions (GradCache, Gao et al. 2021, arXiv 2101.06983): first all
embeddings, without a graph; then the loss's gradient with respect to them; then each portion again, with its part of
that gradient. The loss is still that of the whole batch. Only BatchNorms inside the tower (fusion's and PANN-14's)
normalise by the mean and variance of each portion, and update their statistics with each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.functional import normalize

from clapboard.model.checkpoints import max_tokens
from training.pretraining.audio_input import AudioInput, Prepared, on_device
from training.pretraining.batch import Batch
from training.pretraining.loss import affinity, contrastive_loss
from training.pretraining.processes import ALONE, Processes

MAX_SCALE = 100.0
"""The largest factor from cosine to logit: with an unbounded temperature, training becomes unstable (as in CLIP)."""

Tokens = dict[str, torch.Tensor]


class Contrastive:
    """A model in training: pulls the sound and caption of a pair together, and pushes others apart."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        audio: AudioInput,
        *,
        dtype: torch.dtype = torch.float32,
        portion: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        """At most `portion` clips go through the model at once; 0: the whole batch."""
        self.model = model.train()
        self.tokenizer = tokenizer
        self._audio = audio
        self._dtype = dtype
        self._portion = portion
        self._processes = processes
        self._processes.share_statistics(model)

    def gradients(self, batch: Batch, seed: int) -> float:
        """Returns the batch's loss and sets each parameter's `grad` to its gradient, averaged over all processes.

        All randomness depends on `seed` and the process's rank alone.
        """
        seed = seed * self._processes.count + self._processes.rank
        torch.manual_seed(seed)
        self.model.zero_grad()
        sounds = self._audio.prepare(batch.sounds)
        tokens = self._tokens([*batch.captions, *batch.shared_captions])
        if 0 < self._portion < max(len(batch.sounds), len(tokens["input_ids"])):
            loss = self._by_portions(sounds, tokens, batch, seed)
        else:
            audio, text = self._embed_audio(sounds), self._embed_text(tokens)
            loss = self._loss(audio, text, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        self._processes.average_gradients(self.model.parameters())
        return float(loss.item())

    @property
    def scale(self) -> float:
        """The factor from cosine to logit, as learnt so far."""
        return float(self.model.logit_scale_a.exp().item())

    def limit_scales(self) -> None:
        """Limits the temperatures to `MAX_SCALE`. Call it after each optimiser step."""
        with torch.no_grad():
            for scale in (self.model.logit_scale_a, self.model.logit_scale_t):
                scale.clamp_(max=math.log(MAX_SCALE))

    def _loss(self, audio: torch.Tensor, text: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss over the clips and captions of all processes; it is the same in each."""
        gather, gather_items = self._processes.gather, self._processes.gather_items
        own, shared = torch.split(text, [len(batch.captions), len(batch.shared_captions)])
        meanings = [*gather_items(batch.caption_meanings), *batch.shared_meanings]
        fit = on_device(affinity(gather_items(batch.meanings), meanings), audio.device)
        scales = self.model.logit_scale_a.exp(), self.model.logit_scale_t.exp()
        return contrastive_loss(gather(audio), torch.cat([gather(own), shared]), fit, *scales)

    def _by_portions(self, sounds: Prepared, tokens: Tokens, batch: Batch, seed: int) -> torch.Tensor:
        leaf = sounds.as_leaf()
        audio_parts = [partial(self._embed_audio, part) for part in leaf.split(self._portion)]
        text_parts = [partial(self._embed_text, part) for part in self._token_parts(tokens)]
        embeds = [_repeatable(embed, (seed, index)) for index, embed in enumerate((*audio_parts, *text_parts))]
        with torch.no_grad(), _statistics_held(self.model):
            rows = [embed() for embed in embeds]
        audio = torch.cat(rows[: len(audio_parts)]).requires_grad_()
        text = torch.cat(rows[len(audio_parts) :]).requires_grad_()
        loss = self._loss(audio, text, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        assert audio.grad is not None
        assert text.grad is not None
        parts = [*torch.split(audio.grad, self._portion), *torch.split(text.grad, self._portion)]
        for embed, part in zip(embeds, parts, strict=True):
            embed().backward(part)  # type: ignore[no-untyped-call]
        if leaf.features.grad is not None:
            sounds.features.backward(leaf.features.grad)  # type: ignore[no-untyped-call]
        return loss

    def _embed_audio(self, prepared: Prepared) -> torch.Tensor:
        """`[B, D]` float32."""
        pooled = self._audio.pooled(prepared, shared=self._processes.count > 1)
        return normalize(self.model.audio_projection(pooled).float(), dim=-1)

    def _embed_text(self, tokens: Tokens) -> torch.Tensor:
        """`[T, D]` float32."""
        with torch.autocast(self.model.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return normalize(self.model.get_text_features(**tokens).pooler_output.float(), dim=-1)

    def _tokens(self, texts: Sequence[str]) -> Tokens:
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=max_tokens(self.model), return_tensors="pt"
        )
        return {name: on_device(encoded[name], self.model.device) for name in ("input_ids", "attention_mask")}

    def _token_parts(self, tokens: Tokens) -> list[Tokens]:
        parts = zip(*(torch.split(rows, self._portion) for rows in tokens.values()), strict=True)
        return [dict(zip(tokens, part, strict=True)) for part in parts]


@contextmanager
def _statistics_held(model: torch.nn.Module) -> Iterator[None]:
    """Keeps BatchNorms from updating their statistics, for a pass that will be repeated."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _repeatable(embed: Callable[[], torch.Tensor], seed: tuple[int, int]) -> Callable[[], torch.Tensor]:
    """The same function, with the same dropout on every call."""

    def again() -> torch.Tensor:
        torch.manual_seed(hash(seed))  # the hash of integers is the same in every process
        return embed()

    return again
