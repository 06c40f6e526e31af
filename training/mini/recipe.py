"""Trains the embedded checkpoint: its recipe and its architecture."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import ClapConfig, ClapModel

from clapboard.audio.log_mel import LogMel
from clapboard.labels.captions import Captioner, KeywordsAlone, RuleCaptioner
from clapboard.model.clap import ClapEncoder
from training.augment import Augment
from training.checkpoint import publish
from training.mini.batches import BatchMaker, Mixing, synthetic_recordings
from training.mini.esc10 import Recording
from training.mini.text_tower import caption_corpus, pretrain_texts
from training.mini.zero_shot import zero_shot
from training.pretrain import Schedule, pretrain
from training.pretraining.audio_input import AudioInput
from training.pretraining.contrastive import Contrastive
from training.pretraining.tokenizer import MAX_TOKENS, train_tokenizer

log = logging.getLogger("training.mini")


@dataclass(frozen=True)
class Recipe:
    """The settings of a training. Each part can be left out to measure its effect."""

    schedule: Schedule = field(default_factory=lambda: Schedule(epochs=120))
    batch_size: int = 16
    text_steps: int = 200
    synthetic_per_kind: int = 20
    synthetic_per_epoch: int = 80
    captions: bool = True  # from keywords; else the keywords alone
    spec_augment: bool = True
    mixing: Mixing = field(default_factory=Mixing)
    fused: bool = False

    @property
    def captioner(self) -> Captioner:
        """The captioner of this recipe."""
        return RuleCaptioner() if self.captions else KeywordsAlone()


def make(recipe: Recipe, real: Sequence[Recording], validation: Sequence[Recording], out: Path) -> Path:
    """Trains by the recipe, from the saved state in `out` if any, and returns the published checkpoint's folder."""
    schedule, folder = recipe.schedule, out / "mini"
    torch.manual_seed(schedule.seed)
    batches = BatchMaker(
        real,
        synthetic_recordings(recipe.synthetic_per_kind, schedule.seed),
        recipe.captioner,
        synthetic_per_epoch=recipe.synthetic_per_epoch,
        batch_size=recipe.batch_size,
        seed=schedule.seed,
        mixing=recipe.mixing,
    )
    tokenizer = train_tokenizer(caption_corpus(batches.kinds, recipe.captioner, schedule.seed))
    model = new_model(len(tokenizer), fused=recipe.fused)
    log.info("%d real recordings, %d kinds", len(real), len(batches.kinds))
    if not (out / "state.pt").exists():
        loss = pretrain_texts(
            model, tokenizer, batches.kinds, recipe.captioner, steps=recipe.text_steps, seed=schedule.seed
        )
        log.info("texts: loss %.3f", loss)
    augment = Augment(masks=recipe.spec_augment)
    log_mel = LogMel("htk" if recipe.fused else "slaney")
    audio = AudioInput(model, log_mel, augment=augment, dtype=torch.bfloat16)

    def evaluate() -> Mapping[str, float]:
        encoder = ClapEncoder.load(str(folder), device="cpu", engine="torch")
        return {"validation accuracy": zero_shot(encoder, validation).accuracy} if validation else {}

    pretrain(
        Contrastive(model, tokenizer, audio, dtype=torch.bfloat16),
        batches,
        schedule,
        out,
        identity=f"{recipe!r} {digest_of(real)}",
        publish=lambda averaged: publish(averaged, tokenizer, folder, dtype=torch.float16),
        evaluate=evaluate,
    )
    return folder


def digest_of(recordings: Sequence[Recording]) -> str:
    """Hex digits over the recordings' kinds and samples."""
    digest = hashlib.sha256()
    for recording in recordings:
        digest.update(recording.kind.encode())
        digest.update(recording.waveform.tobytes())
    return digest.hexdigest()[:16]


def new_model(
    vocab_size: int, *, width: int = 48, depths: tuple[int, ...] = (2, 2, 4, 2), fused: bool = False
) -> ClapModel:
    """A CLAP with random weights: HTSAT of the given width and depths, and a two-layer text tower."""
    text = {
        "vocab_size": vocab_size,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "max_position_embeddings": MAX_TOKENS + 2,  # RoBERTa counts positions from 2
        "type_vocab_size": 1,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.0,
        "projection_dim": 256,
    }
    audio = {
        # Patches of 8 × 8 instead of 4 × 4: a quarter of the tokens, so that two cores can train it from scratch.
        "patch_size": 8,
        "patch_stride": [8, 8],
        "window_size": 4,
        "patch_embeds_hidden_size": width,
        "depths": list(depths),
        "num_attention_heads": [2, 4, 8, 16][: len(depths)],
        "hidden_size": width << (len(depths) - 1),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "enable_fusion": fused,
        "fusion_type": "aff_2d" if fused else None,
        "projection_dim": 256,
    }
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=256))
    for tower in (model.text_model, model.text_projection):
        for module in tower.modules():
            if isinstance(module, torch.nn.Linear):
                # transformers' own initial weights are so small that all texts start at a cosine of 0.9
                torch.nn.init.xavier_uniform_(module.weight)
    return model
