"""A training step, from log-mel to updated weights: our tower by what learns, beside the reference model as a whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from transformers import ClapModel

from clapboard.audio.windows import WINDOW_SAMPLES
from clapboard.model.clap import ClapEncoder
from clapboard.model.device import training_dtype
from tests.bench.embedding import EXACT, noise
from tests.bench.peers import TRANSFORMERS
from tests.bench.rows import Case, Figures, Goal
from tests.bench.sections import Effort, Outcome, Section
from tests.bench.timing import median_seconds
from training.finetuning.label_loss import label_loss
from training.finetuning.tower import Tower
from training.finetuning.tower_stages import TrainableStages

BATCH = 8
STAGE_4: TrainableStages = "stage4"
ALL_LAYERS: TrainableStages = "all"

_REFERENCE = f"ClapModel of {TRANSFORMERS}, fp32, all layers"
_RATE, _DECAY, _NUM_CLASSES = 1e-5, 0.05, 10
_GOALS = {torch.bfloat16: (4.5, 2.2), torch.float32: (None, None)}

Step = Callable[[], object]


def _cases(dtype: torch.dtype) -> tuple[Case, Case, Case]:
    """Of steps in this dtype: stage 4 from features, the same from what is kept of the frozen part, all layers."""
    name = f"training step, batch {BATCH}, {str(dtype).removeprefix('torch.')}"
    stage_4, whole = (None if bound is None else Goal(ratio_at_least=bound) for bound in _GOALS[dtype])
    return (
        Case(f"{name}, stage 4 and projection", "s/clip", _REFERENCE, stage_4),
        Case(f"{name}, the same from what finetuning keeps of the frozen part", "s/clip", _REFERENCE),
        Case(f"{name}, all layers", "s/clip", _REFERENCE, whole),
    )


_CASES = {dtype: _cases(dtype) for dtype in _GOALS}


def measure(effort: Effort) -> Mapping[Case, Outcome]:
    """Forward, backward and AdamW's update of all the ways, in turns on the same features, in the dtype of `auto`."""
    device = torch.device("cpu")
    features = random_features(effort, BATCH, device)
    dtype = training_dtype("auto", device)
    from_features, from_kept, whole = _CASES[dtype]
    works: dict[Case | str, Step] = {
        from_features: tower_step(effort, STAGE_4, features, dtype),
        from_kept: tower_step(effort, STAGE_4, features, dtype, keep_lower=True),
        whole: tower_step(effort, ALL_LAYERS, features, dtype),
        _REFERENCE: _reference_step(effort, features),
    }
    seconds = median_seconds(works, effort.of(5, 1))
    others = f"not measured: training takes {str(dtype).removeprefix('torch.')} here"
    return {case: others for cases in _CASES.values() for case in cases} | {
        case: Figures(seconds[case] / BATCH, seconds[_REFERENCE] / BATCH) for case in _CASES[dtype]
    }


def random_features(effort: Effort, num_windows: int, device: torch.device) -> torch.Tensor:
    """Log-mel `[N, 1001, 64]` of noise; larger batches hold the same windows several times."""
    log_mel = EXACT.load(effort, engine="reference").log_mel
    with torch.no_grad():
        some = log_mel(torch.from_numpy(noise(min(num_windows, BATCH)).reshape(-1, WINDOW_SAMPLES)))
    return some[torch.arange(num_windows) % len(some)].to(device)


def tower_step(
    effort: Effort,
    trainable: TrainableStages,
    features: torch.Tensor,
    dtype: torch.dtype = torch.bfloat16,
    *,
    keep_lower: bool = False,
) -> Step:
    """A step of our tower; with `keep_lower` the frozen part isn't computed again."""
    encoder = ClapEncoder.load(
        str(effort.checkpoint), device=str(features.device), dtype="float32", engine="reference", batch_size=1
    )
    tower = Tower(encoder.model, trainable, dtype)
    rates: dict[str, float] = defaultdict(lambda: _RATE)
    optimiser = torch.optim.AdamW(tower.parameter_groups(rates, _DECAY), fused=True)
    rows, truth = _task(encoder.identity.dim, features)

    kept = tower.lower(features).float() if keep_lower else None

    def step() -> None:
        hidden = tower.lower(features) if kept is None else kept
        optimiser.zero_grad()
        embeddings = tower.upper(hidden)
        loss = label_loss(embeddings @ rows.T, truth, torch.ones_like(truth[:, :1]), multiple=False) / len(features)
        (loss + _DECAY * tower.anchor_distance()).backward()
        optimiser.step()

    return step


def _reference_step(effort: Effort, features: torch.Tensor) -> Step:
    model = ClapModel.from_pretrained(effort.checkpoint, dtype=torch.float32).eval()
    learning = [*model.audio_model.parameters(), *model.audio_projection.parameters()]
    optimiser = torch.optim.AdamW(learning, lr=_RATE, weight_decay=_DECAY, fused=True)
    rows, truth = _task(model.config.projection_dim, features)

    def step() -> None:
        optimiser.zero_grad()
        embeddings = model.get_audio_features(features[:, None]).pooler_output
        loss = torch.nn.functional.cross_entropy(embeddings @ rows.T, truth)
        loss.backward()
        optimiser.step()

    return step


def _task(dim: int, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A head's rows `[L, D]`, and which label each window has, `[B, L]`."""
    generator = torch.Generator().manual_seed(0)
    rows = 10 * torch.nn.functional.normalize(torch.randn(_NUM_CLASSES, dim, generator=generator), dim=-1)
    truth = torch.eye(_NUM_CLASSES)[torch.arange(len(features)) % _NUM_CLASSES]
    return rows.to(features.device), truth.to(features.device)


SECTION = Section(tuple(case for cases in _CASES.values() for case in cases), measure)
