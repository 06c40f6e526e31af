"""Log-mel beside transformers' feature extractor, on one thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from transformers import ClapFeatureExtractor

from clapboard.audio.windows import SAMPLE_RATE
from clapboard.errors import ModelError
from tests.bench.embedding import BATCH, BFLOAT16, EXACT, Variant, noise
from tests.bench.peers import TRANSFORMERS
from tests.bench.rows import Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.bench.timing import median_seconds

EXTRACTOR = f"ClapFeatureExtractor of {TRANSFORMERS}"
_CASES = {
    EXACT: Case("log-mel, one thread, exact", "s/clip", EXTRACTOR, Goal(ratio_at_least=2.5)),
    BFLOAT16: Case("log-mel, one thread, of the bfloat16 encoder", "s/clip", EXTRACTOR, Goal(ratio_at_least=4)),
}


def measure(effort: Effort) -> Mapping[Case, Outcome]:
    """The features that each encoder makes for itself, and the peer's, in turns."""
    windows = noise(BATCH)
    waveforms, pieces = torch.from_numpy(windows), list(windows)
    extractor = ClapFeatureExtractor.from_pretrained(effort.checkpoint)
    log_mels, reasons = {}, {}
    for variant in _CASES:
        try:
            log_mels[variant] = variant.load(effort, engine="reference").log_mel
        except ModelError as error:
            reasons[variant] = str(error)
    works: dict[Variant | str, Callable[[], object]] = {
        variant: torch.inference_mode()(lambda log_mel=log_mel: log_mel(waveforms))
        for variant, log_mel in log_mels.items()
    }
    works[EXTRACTOR] = lambda: extractor(pieces, sampling_rate=SAMPLE_RATE)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = median_seconds(works, effort.of(9, 1))
    finally:
        torch.set_num_threads(num_threads)
    return {
        case: reasons.get(variant) or Figures(seconds[variant] / BATCH, seconds[EXTRACTOR] / BATCH)
        for variant, case in _CASES.items()
    }


SECTION = Section(tuple(_CASES.values()), measure)
