"""What one GPU does: absolute figures, without a peer. Rows that are «not measured» where there is none.

The same functions run on the CPU, by which the tests see that they work; their figures mean nothing there.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from clapboard.model.clap import ClapEncoder
from clapboard.model.htsat.engines import load_tower
from tests.bench.clips import COMPRESSED, WAV, Clips
from tests.bench.embedding import noise
from tests.bench.rows import BYTES, Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.bench.timing import seconds_of
from tests.bench.training_step import STAGE_4, random_features, tower_step
from tests.bench.warm_workers import WarmWorkers, broker

TRAINING_BATCH = 64
CLIP_RATE_HZ = 48_000

_RATE = "windows/s"
ON_DEVICE = Case("GPU: PCM on the device → embedding", _RATE, goal=Goal(ours_at_least=10_000))
FROM_HOST = Case("GPU: PCM in host memory → embeddings in host memory", _RATE, goal=Goal(ours_at_least=8_000))
COMPRESSED_FILES = Case("GPU: ogg and mp3 on disk → stored, one worker", "clips/s", goal=Goal(ours_at_least=1_400))
WAV_FILES = Case("GPU: 48 kHz WAV on disk → stored, one worker", "clips/s", goal=Goal(ours_at_least=6_000))
TRAINING = Case(f"GPU: training, batch {TRAINING_BATCH}, stage 4, bfloat16", "clips/s", goal=Goal(ours_at_least=2_500))
TRAINING_MEMORY = Case("GPU: most memory of that training", BYTES, goal=Goal(ours_at_most=8e9))


def measure_encoder(effort: Effort, device: str = "cuda") -> Mapping[Case, Outcome]:
    """Windows a second, from where the samples lie."""
    encoder = ClapEncoder.load(str(effort.checkpoint), device=device)
    windows = np.tile(noise(8), (effort.of(512, 1), 1))
    resident = torch.from_numpy(windows).to(device)
    rounds = effort.of(9, 1)
    on_device = _median_seconds(embed_resident(encoder, resident), rounds, device)
    from_host = _median_seconds(lambda: encoder.embed_windows(windows), rounds, device)
    return {ON_DEVICE: Figures(len(windows) / on_device), FROM_HOST: Figures(len(windows) / from_host)}


def measure_training(effort: Effort, device: str = "cuda") -> Mapping[Case, Outcome]:
    """Clips a second of a step from features that lie on the device, and the most memory allocated meanwhile."""
    features = random_features(effort, effort.of(TRAINING_BATCH, 4), torch.device(device))
    on_gpu = features.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    step = tower_step(effort, STAGE_4, features)
    seconds = _median_seconds(step, effort.of(20, 1), device)
    memory = float(torch.cuda.max_memory_allocated()) if on_gpu else 0.0
    return {TRAINING: Figures(len(features) / seconds), TRAINING_MEMORY: Figures(memory)}


def measure_files(effort: Effort, device: str = "cuda") -> Mapping[Case, Outcome]:
    """A worker that decodes on all cores, fed with files that lie on disk."""
    supplies: Mapping[Case, Sequence[str]] = {COMPRESSED_FILES: COMPRESSED, WAV_FILES: WAV}
    num_clips = effort.of(4096, 4)
    found = {}
    with broker(effort.folder / "redis-gpu") as url:
        threads = len(os.sched_getaffinity(0))
        folder = effort.folder / "installation-gpu"
        with WarmWorkers(folder, effort.checkpoint, num_threads=threads, device=device, broker_url=url) as workers:
            for case, formats in supplies.items():
                clips = Clips(formats, sample_rate=CLIP_RATE_HZ)
                seconds = [workers.seconds(clips.take(num_clips)) for _ in range(effort.of(4, 1))]
                found[case] = Figures(num_clips / statistics.median(seconds[1:] or seconds))
    return found


def embed_resident(encoder: ClapEncoder, windows: torch.Tensor) -> Callable[[], torch.Tensor]:
    """What embeds windows `[N, 480000]` on the encoder's device → unit-norm `[N, D]`, in its batches and as it does."""
    dtype = torch.bfloat16 if encoder.identity.dtype == "bfloat16" else torch.float32
    with torch.inference_mode():
        tower = load_tower(encoder.model.audio_model.audio_encoder, dtype, encoder.log_mel(windows[:8]))

    @torch.inference_mode()
    def embed() -> torch.Tensor:
        parts = windows.split(encoder.batch_size)
        pooled = torch.cat([tower(encoder.log_mel(part)) for part in parts])
        return torch.nn.functional.normalize(encoder.model.audio_projection(pooled).float(), dim=-1)

    return embed


def _median_seconds(work: Callable[[], object], rounds: int, device: str) -> float:
    """Of the work with all that it has the device do; one round before warms up."""

    def finished() -> None:
        work()
        if device == "cuda":
            torch.cuda.synchronize()

    return statistics.median([seconds_of(finished) for _ in range(1 + rounds)][1:])


def _no_gpu() -> str:
    return "" if torch.cuda.is_available() else "not measured: no GPU"


SECTIONS = (
    Section((ON_DEVICE, FROM_HOST), measure_encoder, _no_gpu),
    Section((COMPRESSED_FILES, WAV_FILES), measure_files, _no_gpu),
    Section((TRAINING, TRAINING_MEMORY), measure_training, _no_gpu),
)
