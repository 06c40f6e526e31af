"""Pretrains the text tower on captions alone, which is cheap, and gives the audio tower clear targets to learn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from transformers import ClapModel, RobertaTokenizer

from clapboard.labels.captions import Captioner
from clapboard.labels.prompts import NEGATIVES
from training.pretraining.batch import respelt
from training.pretraining.loss import contrastive_loss

_CAPTIONS_OF_A_KIND = 2
_CAPTIONS_PER_KIND = 400
_PEAK_RATE = 1e-3


def caption_corpus(kinds: Iterable[str], captioner: Captioner, seed: int) -> list[str]:
    """The tokenizer's training texts: many captions of each kind, and the neutral ones."""
    rng = np.random.default_rng(seed)
    corpus = [captioner.caption([kind], rng) for kind in kinds for _ in range(_CAPTIONS_PER_KIND)]
    return [*corpus, *(text.lower() for text in corpus[::3]), *NEGATIVES]


def pretrain_texts(
    model: ClapModel, tokenizer: RobertaTokenizer, kinds: Sequence[str], captioner: Captioner, *, steps: int, seed: int
) -> float:
    """Trains the model's text tower and text projection in place; returns the loss of the last step."""
    rng = np.random.default_rng(seed)
    parameters = [*model.text_model.parameters(), *model.text_projection.parameters()]
    optimiser = torch.optim.AdamW(parameters, _PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimiser, _PEAK_RATE, total_steps=steps)
    groups = torch.arange(len(kinds) + 1).repeat_interleave(_CAPTIONS_OF_A_KIND)
    fit = (groups[:, None] == groups[None, :]).float()  # [T, T]
    scale = model.logit_scale_t.detach().exp()
    loss = torch.zeros(())
    for _ in range(steps):
        left, right = (_embed(model, tokenizer, _captions(kinds, captioner, rng)) for _ in range(2))
        loss = contrastive_loss(left, right, fit, scale, scale)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        decay.step()
    return float(loss.item())


def _captions(kinds: Sequence[str], captioner: Captioner, rng: np.random.Generator) -> list[str]:
    texts = [captioner.caption([kind], rng) for kind in kinds for _ in range(_CAPTIONS_OF_A_KIND)]
    texts += [str(text) for text in rng.choice(NEGATIVES, _CAPTIONS_OF_A_KIND)]
    return [respelt(text, rng) for text in texts]


def _embed(model: ClapModel, tokenizer: RobertaTokenizer, texts: list[str]) -> torch.Tensor:
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    embeddings: torch.Tensor = model.get_text_features(**tokens).pooler_output
    return embeddings
