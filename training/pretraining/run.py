"""A data set and the name of a model, or of two towers → a checkpoint, as `clapboard pretrain` does it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clapboard.audio import WINDOW_S
from clapboard.captions import Captioner
from clapboard.clap import ClapEncoder, training_dtype
from clapboard.errors import ModelError, TrainingError
from clapboard.features import LogMel
from clapboard.pretrained import (
    AudioTowerName,
    Clap,
    TextTowerName,
    checkpoint_folder,
    fingerprint,
    load_log_mel,
    load_model,
    load_tokenizer,
    tokenizer_folder,
    untrained_model,
)
from clapboard.scoring import Array
from training.augment import Augment
from training.checkpoint import publish
from training.corpus.batches import PairBatches
from training.corpus.manifest import read_manifest
from training.corpus.stream import PairStream
from training.corpus.texts import captions_of, texts_of
from training.evaluation.retrieval import retrieval
from training.pretrain import Schedule, pretrain
from training.pretraining.audio_input import AudioInput
from training.pretraining.contrastive import Contrastive
from training.pretraining.processes import ALONE, Processes
from training.pretraining.tokenizer import train_tokenizer

FUSED_S = 30.0
"""What a model that fuses four mels hears of a recording in training at most."""

_VOCABULARY = 8000
_MAX_TOKENS = 77
_VALIDATED_AT_ONCE = 16  # windows: beside what training holds in memory, and too few to look for a faster number

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UntrainedTowers:
    """Two towers to begin with random weights. What isn't said of their sizes is as in transformers' configs."""

    audio: AudioTowerName = "htsat"
    text: TextTowerName = "roberta"
    projection_dim: int = 512
    audio_sizes: Mapping[str, Any] = field(default_factory=dict)
    text_sizes: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None  # hub id or folder; None: one is learnt from the captions


@dataclass(frozen=True)
class Plan:
    """What is trained on what, and how."""

    data: Path
    out: Path
    start: str | UntrainedTowers  # a checkpoint to go on from, or towers
    captioner: Captioner
    schedule: Schedule
    batch_size: int
    portion: int = 0  # clips that go through the model at once; 0: all of a process's part of a batch
    validation: Path | None = None
    augment: bool = True
    device: str = "cpu"
    dtype: str = "auto"
    threads: int = 2  # that decode ahead


def run(plan: Plan, processes: Processes = ALONE) -> Path:
    """Trains by the plan, from where its folder stands, and returns the checkpoint's folder.

    Raises `ModelError` and `TrainingError` for a model or data set that can't be used.
    """
    device = torch.device(plan.device)
    validation = _captioned(plan.validation, plan.threads) if plan.validation else None
    dtype = training_dtype(plan.dtype, device)
    torch.manual_seed(plan.schedule.seed)
    plan.captioner.prepare(said.tags for said in texts_of(plan.data) if not said.captions)
    model, tokenizer, log_mel = _begin(plan)
    model.to(device)
    audio = AudioInput(model, log_mel.to(device), augment=Augment() if plan.augment else None, dtype=dtype)
    batches = PairBatches(
        plan.data,
        plan.captioner,
        batch_size=plan.batch_size,
        seed=plan.schedule.seed,
        threads=plan.threads,
        processes=processes,
        max_s=FUSED_S if audio.is_fused else WINDOW_S,
    )
    folder = plan.out / "checkpoint"
    base = checkpoint_folder(plan.start) if isinstance(plan.start, str) else None
    log.info("%d batches of %d an epoch, on %s in %s", batches.num_batches, plan.batch_size, device, dtype)

    def evaluate() -> Mapping[str, float]:
        if validation is None:
            return {}
        encoder = ClapEncoder.load(str(folder), device=str(device), batch_size=_VALIDATED_AT_ONCE)
        return retrieval_figures(encoder, validation)

    pretrain(
        Contrastive(model, tokenizer, audio, dtype=dtype, portion=plan.portion, processes=processes),
        batches,
        plan.schedule,
        plan.out,
        identity=_identity(plan, dtype, processes),
        publish=lambda averaged: publish(averaged, tokenizer, folder, base=base),
        evaluate=evaluate,
        processes=processes,
    )
    return folder


def retrieval_figures(encoder: ClapEncoder, pairs: PairStream) -> dict[str, float]:
    """How well sounds and captions find each other; sounds without a caption are left out. There has to be one."""
    sounds: list[Array] = []
    texts: list[str] = []
    owners: list[int] = []
    for sample in pairs.epoch(0):
        if sample.captions:
            owners += [len(sounds)] * len(sample.captions)
            sounds.append(encoder.embed_recording(sample.waveform))
            texts += sample.captions
    found = retrieval(np.stack(sounds), encoder.embed_texts(texts), np.array(owners))
    return {
        "text to audio R@1": found.text_to_audio.recall_1,
        "text to audio R@10": found.text_to_audio.recall_10,
        "audio to text R@1": found.audio_to_text.recall_1,
        "audio to text R@10": found.audio_to_text.recall_10,
    }


def _captioned(folder: Path, threads: int) -> PairStream:
    """The data set to validate on. Raises `TrainingError` if it can't be used, or has nothing to measure."""
    if not read_manifest(folder).captions:
        raise TrainingError(
            f"Validation set {folder} has no captions to measure retrieval by: give one that has, or leave it out."
        )
    return PairStream(folder, seed=0, threads=threads)


def _identity(plan: Plan, dtype: torch.dtype, processes: Processes) -> str:
    """What decides the result besides the schedule."""
    shards = [shard.sha256 for shard in read_manifest(plan.data).shards]
    start = fingerprint(checkpoint_folder(plan.start)) if isinstance(plan.start, str) else plan.start
    how = plan.batch_size, plan.portion, plan.augment, str(dtype), processes.count
    return repr((shards, start, plan.captioner.identity, how))


def _begin(plan: Plan) -> tuple[Clap, Any, LogMel]:
    """Model, tokenizer and features, of the checkpoint or anew."""
    if isinstance(plan.start, str):
        folder = checkpoint_folder(plan.start)
        model = load_model(plan.start, folder)
        return model, load_tokenizer(plan.start, folder), load_log_mel(plan.start, model, folder)
    towers = plan.start
    if towers.tokenizer is None:
        captions = captions_of(plan.data, plan.captioner, plan.schedule.seed)
        tokenizer = train_tokenizer(captions, _VOCABULARY, max_tokens=_MAX_TOKENS)
    else:
        tokenizer = load_tokenizer(towers.tokenizer, tokenizer_folder(towers.tokenizer))
    words = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = untrained_model(
        towers.audio,
        towers.text,
        projection_dim=towers.projection_dim,
        audio_sizes=towers.audio_sizes,
        text_sizes={name: value for name, value in words.items() if value is not None} | dict(towers.text_sizes),
    )
    if model.config.text_config.vocab_size < len(tokenizer):
        raise ModelError(f"The text tower's vocab_size is below its tokenizer's {len(tokenizer)}: leave it out.")
    return model, tokenizer, LogMel("htk" if model.config.audio_config.enable_fusion else "slaney")
