"""PCM → embedding: our encoder in each of its settings beside the peers, on the same windows and threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from clapboard.audio.windows import WINDOW_S, WINDOW_SAMPLES, Waveform
from clapboard.errors import ModelError
from clapboard.model.clap import ClapEncoder
from clapboard.model.device import serving_dtype
from clapboard.model.int8.calibrate import LEAST_WINDOWS, calibrate
from tests.bench.peers import CANDIDATE_LABELS, TRANSFORMERS, LaionClap, Transformers, laion_clap_version
from tests.bench.rows import Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.bench.timing import median_seconds
from tests.support.recordings import sweep

BATCH = 8
MIN_COSINE = 0.999
"""Between our embedding of a window and transformers' own: else it is no comparison."""


@dataclass(frozen=True)
class Variant:
    """Settings of ours that are measured: the name in the row, and what `ClapEncoder.load` is told."""

    name: str
    settings: Mapping[str, Any] = field(hash=False)

    def load(self, effort: Effort, **others: Any) -> ClapEncoder:
        """The encoder on the CPU, with other settings too. Raises `ModelError` where one can't be used here."""
        return ClapEncoder.load(str(effort.checkpoint), device="cpu", **{**self.settings, **others})


DEFAULT = Variant("default", {})
BFLOAT16 = Variant("bfloat16, fastest engine", {"dtype": "bfloat16"})
BFLOAT16_TORCH = Variant("bfloat16, torch alone", {"dtype": "bfloat16", "engine": "torch"})
EXACT = Variant("exact float32, fastest engine", {"dtype": "float32"})
EXACT_TORCH = Variant("exact float32, torch alone", {"dtype": "float32", "engine": "torch"})
INT8 = Variant("int8", {"dtype": "int8"})
VARIANTS = (DEFAULT, BFLOAT16, BFLOAT16_TORCH, EXACT, EXACT_TORCH)

BY_HAND = f"{TRANSFORMERS}, fp32, batched by hand"
PIPELINE_AUDIO = f"{TRANSFORMERS}, fp32, its pipeline's way file by file, without the text"
PIPELINE = f"{TRANSFORMERS}, fp32, its pipeline file by file with {len(CANDIDATE_LABELS)} labels"
LAION_CLAP = f"laion-clap {laion_clap_version() or '(not installed)'}, HTSAT-tiny and its own mel, fp32"

OUR_FLOAT32 = "ours in exact float32, fastest engine"

_GOALS = {
    (DEFAULT, BY_HAND): None,
    (BFLOAT16, BY_HAND): 6.0,
    (BFLOAT16_TORCH, BY_HAND): 4.5,
    (EXACT, BY_HAND): 2.0,
    (EXACT_TORCH, BY_HAND): None,
    (BFLOAT16, PIPELINE_AUDIO): 9.0,
    (BFLOAT16, PIPELINE): None,
    (BFLOAT16, LAION_CLAP): 6.0,
    (INT8, OUR_FLOAT32): 1.6,
}
_PAIRS = {
    Case(
        f"PCM → embedding, batch {BATCH}, {variant.name}",
        "s/clip",
        peer,
        None if bound is None else Goal(ratio_at_least=bound),
    ): (variant, peer)
    for (variant, peer), bound in _GOALS.items()
}


def measure(effort: Effort) -> Mapping[Case, Outcome]:
    """All variants and all peers in turns."""
    windows = noise(effort.of(BATCH, 2))
    works: dict[Variant | str, Callable[[], object]] = {}
    reasons: dict[Variant | str, str] = {}
    transformers = Transformers(effort.checkpoint)
    expected = transformers.by_hand(windows)()
    for variant in VARIANTS:
        try:
            works[variant] = _ours(variant.load(effort), windows, expected)
        except ModelError as error:
            reasons[variant] = str(error)
    try:
        works[INT8] = _in_int8(effort, windows)
    except ModelError as error:
        reasons[INT8] = str(error)
    if EXACT in works:
        works[OUR_FLOAT32] = works[EXACT]
    works[BY_HAND] = transformers.by_hand(windows)
    works[PIPELINE_AUDIO] = transformers.one_by_one(windows)
    works[PIPELINE] = transformers.through_pipeline(windows)
    try:
        works[LAION_CLAP] = LaionClap().batched(windows)
    except ImportError as error:
        reasons[LAION_CLAP] = str(error)
    seconds = median_seconds(works, effort.of(5, 1))
    return {
        case: reasons.get(variant)
        or reasons.get(peer)
        or Figures(seconds[variant] / len(windows), seconds[peer] / len(windows))
        for case, (variant, peer) in _PAIRS.items()
    }


def noise(num_windows: int) -> Waveform:
    """Windows `[N, 480000]` of noise, always the same."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (num_windows, WINDOW_SAMPLES)).astype(np.float32)


def _ours(encoder: ClapEncoder, windows: Waveform, expected: torch.Tensor) -> Callable[[], object]:
    """Embedding the windows. Raises `RuntimeError` if it gives other vectors than the peer."""
    cosine = (torch.from_numpy(encoder.embed_windows(windows)) * expected).sum(dim=1).min().item()
    if cosine < MIN_COSINE:
        raise RuntimeError(f"the encoder's vectors aren't transformers' (a cosine of {cosine:.5f})")
    return lambda: encoder.embed_windows(windows)


def _in_int8(effort: Effort, windows: Waveform) -> Callable[[], object]:
    """Embedding the windows by a calibration on rising tones. Raises `ModelError` where it can't be had."""
    folder = effort.folder / "int8"
    serving_dtype("int8", torch.device("cpu"))
    samples = [sweep(WINDOW_S, seed=seed) for seed in range(LEAST_WINDOWS)]
    calibrate(EXACT_TORCH.load(effort), samples, folder)
    encoder = INT8.load(effort, calibration=folder)
    return lambda: encoder.embed_windows(windows)


SECTION = Section(tuple(_PAIRS), measure)
