"""The task of pretraining: computes a batch's loss and the gradient of each parameter.

The loss is the contrastive one; that of the frames of mixtures, for a model that learns frames (`learn_frames`); and
the distance of sounds' embeddings from those of a teacher, if there is one.

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
from typing import Any, NamedTuple

import torch
from torch.nn.functional import normalize

from clapboard.model.checkpoints import max_tokens
from clapboard.model.frame_scores import FrameScores
from training.pretraining.audio_input import AudioInput, Prepared, on_device
from training.pretraining.batch import Batch
from training.pretraining.frames import FrameScorer, frame_loss, frame_targets
from training.pretraining.loss import affinity, contrastive_loss
from training.pretraining.processes import ALONE, Processes

MAX_SCALE = 100.0
"""The largest factor from cosine to logit: with an unbounded temperature, training becomes unstable (as in CLIP)."""

Tokens = dict[str, torch.Tensor]


def learn_frames(model: Any, start: FrameScores | None = None) -> None:
    """Lets a model learn frames from the mixtures in batches; `start` is what it has learnt about them before.

    What is learnt for them becomes part of the model in training, as `frame_scorer`.
    """
    model.frame_scorer = FrameScorer(model.config.projection_dim, start).to(model.device)


class Teacher(NamedTuple):
    """A model whose embeddings shall be kept, as its own input and projection, and how much that weighs."""

    audio: AudioInput
    projection: torch.nn.Module
    weight: float


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
        frame_weight: float = 1.0,
        teacher: Teacher | None = None,
    ) -> None:
        """At most `portion` clips go through the model at once; 0: the whole batch.

        `frame_weight` is the frame loss's weight beside the contrastive one's 1.
        """
        self.model = model.train()
        self.tokenizer = tokenizer
        self._audio = audio
        self._dtype = dtype
        self._portion = portion
        self._processes = processes
        self._frame_weight = frame_weight
        self._teacher = teacher
        self._processes.share_statistics(model)

    def gradients(self, batch: Batch, seed: int) -> float:
        """Returns the batch's loss and sets each parameter's `grad` to its gradient, averaged over all processes.

        All randomness depends on `seed` and the process's rank alone.
        """
        seed = seed * self._processes.count + self._processes.rank
        torch.manual_seed(seed)
        self.model.zero_grad()
        prepared = self._audio.prepare(batch.sounds, [mixture.waveform for mixture in batch.mixtures])
        tokens = self._tokens([*batch.captions, *batch.shared_captions])
        if 0 < self._portion < max(len(prepared), len(tokens["input_ids"])):
            loss = self._by_portions(prepared, tokens, batch, seed)
        else:
            sounds, mixtures = _parted(prepared, batch)
            frames = self._embed_frames(mixtures) if batch.mixtures else None
            loss = self._loss(self._embed_audio(sounds), self._embed_text(tokens), frames, batch, self._kept(sounds))
            loss.backward()  # type: ignore[no-untyped-call]
        self._processes.average_gradients(self.model.parameters())
        return float(self._processes.gather(loss.detach()[None]).mean().item())

    @property
    def scale(self) -> float:
        """The factor from cosine to logit, as learnt so far."""
        return float(self.model.logit_scale_a.exp().item())

    def limit_scales(self) -> None:
        """Limits the temperatures to `MAX_SCALE`. Call it after each optimiser step."""
        with torch.no_grad():
            for scale in (self.model.logit_scale_a, self.model.logit_scale_t):
                scale.clamp_(max=math.log(MAX_SCALE))

    def _loss(
        self,
        audio: torch.Tensor,
        text: torch.Tensor,
        frames: torch.Tensor | None,
        batch: Batch,
        kept: torch.Tensor | None,
    ) -> torch.Tensor:
        """The loss over the clips and captions of all processes; its mean over them is that of the whole batch.

        The frame loss is that of this process's mixtures, and the teacher's that of its clips.
        """
        gather, gather_items = self._processes.gather, self._processes.gather_items
        own, shared = torch.split(text, [len(batch.captions), len(batch.shared_captions)])
        texts = torch.cat([gather(own), shared])
        meanings = [*gather_items(batch.caption_meanings), *batch.shared_meanings]
        fit = on_device(affinity(gather_items(batch.meanings), meanings), audio.device)
        scales = self.model.logit_scale_a.exp(), self.model.logit_scale_t.exp()
        loss = contrastive_loss(gather(audio), texts, fit, *scales)
        if frames is not None:
            targets = frame_targets(batch.mixtures, meanings, self._audio.num_frames, self._audio.frame_s)
            logits = self.model.frame_scorer(frames, texts)
            loss = loss + self._frame_weight * frame_loss(logits, *(on_device(x, frames.device) for x in targets))
        if kept is not None and self._teacher:
            loss = loss + self._teacher.weight * (1 - (audio * kept).sum(dim=1)).mean()
        return loss

    def _by_portions(self, prepared: Prepared, tokens: Tokens, batch: Batch, seed: int) -> torch.Tensor:
        leaf = prepared.as_leaf()
        sounds, mixtures = _parted(leaf, batch)
        parts = [
            [partial(self._embed_audio, part) for part in sounds.split(self._portion)],
            [partial(self._embed_text, part) for part in self._token_parts(tokens)],
            [partial(self._embed_frames, part) for part in mixtures.split(self._portion)] if batch.mixtures else [],
        ]
        counted = iter(range(sum(map(len, parts))))
        embeds = [[_repeatable(embed, (seed, next(counted))) for embed in of_kind] for of_kind in parts]
        with torch.no_grad(), _statistics_held(self.model):
            rows = [torch.cat([embed() for embed in of_kind]).requires_grad_() for of_kind in embeds if of_kind]
        audio, text, *frames = rows
        loss = self._loss(audio, text, frames[0] if frames else None, batch, self._kept(sounds))
        loss.backward()  # type: ignore[no-untyped-call]
        for of_kind, row in zip(embeds, rows, strict=False):
            assert row.grad is not None
            for embed, part in zip(of_kind, torch.split(row.grad, self._portion), strict=True):
                if (again := embed()).requires_grad:  # unless that tower is frozen
                    again.backward(part)  # type: ignore[no-untyped-call]
        if leaf.features.grad is not None:
            prepared.features.backward(leaf.features.grad)  # type: ignore[no-untyped-call]
        return loss

    def _kept(self, sounds: Prepared) -> torch.Tensor | None:
        """The teacher's embeddings of the sounds `[B, D]`."""
        if self._teacher is None:
            return None
        with torch.no_grad():
            parts = sounds.split(self._portion or len(sounds))
            pooled = torch.cat([self._teacher.audio.pooled(part) for part in parts])
            return normalize(self._teacher.projection(pooled).float(), dim=-1)

    def _embed_audio(self, prepared: Prepared) -> torch.Tensor:
        """`[B, D]` float32."""
        pooled = self._audio.pooled(prepared, shared=self._processes.count > 1)
        return normalize(self.model.audio_projection(pooled).float(), dim=-1)

    def _embed_frames(self, prepared: Prepared) -> torch.Tensor:
        """`[B, T, D]` float32."""
        frames = self._audio.frames(prepared, shared=self._processes.count > 1)
        return normalize(self.model.audio_projection(frames).float(), dim=-1)

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


def _parted(prepared: Prepared, batch: Batch) -> tuple[Prepared, Prepared]:
    """The batch's sounds, and its mixtures."""
    num_sounds = len(batch.sounds)
    return prepared.take(slice(num_sounds)), prepared.take(slice(num_sounds, None))


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
