"""Trains a checkpoint on a data set, from another checkpoint or from two untrained towers: `clapboard pretrain`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clapboard.audio.log_mel import LogMel
from clapboard.audio.windows import WINDOW_S
from clapboard.errors import ModelError
from clapboard.labels.captions import Captioner, raw
from clapboard.model.checkpoints import (
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
from clapboard.model.clap import ClapEncoder
from clapboard.model.device import training_dtype
from clapboard.model.frame_scores import FrameScores
from clapboard.model.htsat.engines import Engine
from clapboard.suggest.scoring import Array
from training.augment import Augment
from training.checkpoint import publish
from training.corpus.batches import PairBatches
from training.corpus.manifest import read_manifest
from training.corpus.stream import PairStream
from training.corpus.texts import captions_of, texts_of
from training.evaluation.retrieval import first_right
from training.pretrain import Schedule, pretrain
from training.pretraining.audio_input import AudioInput
from training.pretraining.contrastive import Contrastive, learn_frames
from training.pretraining.processes import ALONE, Processes
from training.pretraining.tokenizer import train_tokenizer

FUSED_S = 30.0
"""The longest excerpt of a recording in training, for models that fuse four mels."""

_VOCABULARY = 8000
_MAX_TOKENS = 77
_VALIDATED_AT_ONCE = 16  # windows: few, since training holds memory too, and it isn't worth looking for a faster number

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UntrainedTowers:
    """Two towers with random weights. Sizes that aren't given are the defaults of transformers' configs."""

    audio: AudioTowerName = "htsat"
    text: TextTowerName = "roberta"
    projection_dim: int = 512
    audio_sizes: Mapping[str, Any] = field(default_factory=dict)
    text_sizes: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None  # hub id or folder; None: trained on the captions


@dataclass(frozen=True)
class Plan:
    """The model, data and settings of a run."""

    data: Path
    out: Path
    start: str | UntrainedTowers  # a checkpoint to continue from, or towers
    captioner: Captioner
    schedule: Schedule
    batch_size: int
    portion: int = 0  # clips that go through the model at once; 0: a process's whole part of a batch
    validation: Path | None = None
    augment: bool = True
    device: str = "cpu"
    dtype: str = "auto"
    engine: Engine = "auto"  # with which the validation data is embedded
    threads: int = 2  # for decoding ahead
    mixtures: int = 0  # a step, for the frame loss
    frame_weight: float = 1.0


def run(plan: Plan, processes: Processes = ALONE) -> Path:
    """Trains by the plan, from the saved state in its folder if there is one, and returns the checkpoint's folder.

    Raises `ModelError` and `TrainingError` if the model or data set can't be used.
    """
    device = torch.device(plan.device)
    validation = PairStream(plan.validation, seed=0, threads=plan.threads) if plan.validation else None
    dtype = training_dtype(plan.dtype, device)
    torch.manual_seed(plan.schedule.seed)
    plan.captioner.prepare(chain.from_iterable(map(_tags_alone, filter(None, (plan.data, plan.validation)))))
    model, tokenizer, log_mel = _initial_model(plan)
    model.to(device)
    base = checkpoint_folder(plan.start) if isinstance(plan.start, str) else None
    known_scores = FrameScores.read(base, str(plan.start), model.config.projection_dim) if base else None
    if plan.mixtures or known_scores:
        learn_frames(model, known_scores)
    audio = AudioInput(model, log_mel.to(device), augment=Augment() if plan.augment else None, dtype=dtype)
    batches = PairBatches(
        plan.data,
        plan.captioner,
        batch_size=plan.batch_size,
        seed=plan.schedule.seed,
        threads=plan.threads,
        processes=processes,
        max_s=FUSED_S if audio.is_fused else WINDOW_S,
        mixtures=plan.mixtures,
    )
    folder = plan.out / "checkpoint"
    log.info("%d batches of %d an epoch, on %s in %s", batches.num_batches, plan.batch_size, device, dtype)

    def evaluate() -> Mapping[str, float]:
        if validation is None:
            return {}
        encoder = ClapEncoder.load(str(folder), device=str(device), engine=plan.engine, batch_size=_VALIDATED_AT_ONCE)
        return retrieval_figures(encoder, validation, plan.captioner)

    task = Contrastive(
        model,
        tokenizer,
        audio,
        dtype=dtype,
        portion=plan.portion,
        processes=processes,
        frame_weight=plan.frame_weight,
    )
    pretrain(
        task,
        batches,
        plan.schedule,
        plan.out,
        identity=_identity(plan, dtype, processes),
        publish=lambda averaged: publish(averaged, tokenizer, folder, base=base),
        evaluate=evaluate,
        processes=processes,
    )
    return folder


def retrieval_figures(encoder: ClapEncoder, pairs: PairStream, captioner: Captioner) -> dict[str, float]:
    """Recall at 1 and 10 in both directions, by name.

    A sound that has only tags gets a caption made of them, always the same one, and all sounds with the same tags are
    right answers to it.
    """
    sounds: list[Array] = []
    texts: list[str] = []
    sound_kinds: list[int] = []
    text_kinds: list[int] = []
    kinds: dict[frozenset[str], int] = {}
    for number, sample in enumerate(pairs.epoch(0)):
        tags = frozenset(map(raw, sample.tags))
        kind = number if sample.captions else kinds.setdefault(tags, number)
        captions = sample.captions or (captioner.caption(sample.tags, np.random.default_rng(number)),)
        sounds.append(encoder.embed_recording(sample.waveform))
        sound_kinds.append(kind)
        texts += captions
        text_kinds += [kind] * len(captions)
    audio, text = np.stack(sounds), encoder.embed_texts(texts)
    sound_ranks = first_right(text, audio, np.array(text_kinds), np.array(sound_kinds))
    text_ranks = first_right(audio, text, np.array(sound_kinds), np.array(text_kinds))
    return {
        f"{direction} R@{depth}": float((ranks < depth).mean())
        for direction, ranks in (("text to audio", sound_ranks), ("audio to text", text_ranks))
        for depth in (1, 10)
    }


def _tags_alone(folder: Path) -> Iterator[Sequence[str]]:
    """The tags of the samples without captions."""
    return (sample.tags for sample in texts_of(folder) if not sample.captions)


def _identity(plan: Plan, dtype: torch.dtype, processes: Processes) -> str:
    """Identifies what decides the result besides the schedule."""
    shards = [shard.sha256 for shard in read_manifest(plan.data).shards]
    start = fingerprint(checkpoint_folder(plan.start)) if isinstance(plan.start, str) else plan.start
    settings = plan.batch_size, plan.portion, plan.augment, str(dtype), processes.count
    frames = (plan.mixtures, plan.frame_weight) if plan.mixtures else ()
    return repr((shards, start, plan.captioner.identity, settings, *frames))


def _initial_model(plan: Plan) -> tuple[Clap, Any, LogMel]:
    """The model, tokenizer and log-mel to start with: the checkpoint's, or new ones."""
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
    token_settings = {
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
        text_sizes={name: value for name, value in token_settings.items() if value is not None}
        | dict(towers.text_sizes),
    )
    if model.config.text_config.vocab_size < len(tokenizer):
        raise ModelError(f"The text tower's vocab_size is below its tokenizer's {len(tokenizer)}: leave it out.")
    return model, tokenizer, LogMel("htk" if model.config.audio_config.enable_fusion else "slaney")
