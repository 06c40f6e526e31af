"""Trains a CLAP on pairs of sounds and captions, from scratch or from a checkpoint.

`pretrain` is the loop, for any model and any batches. A run that was killed continues from its last saved state when it
is started again with the same arguments, and ends with identical weights. Processes started by `torchrun` share each
batch. The schedule is fixed, and the weights at its end are published: validation selects nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.optim.swa_utils import AveragedModel

from clapboard.errors import TrainingError
from training.checkpoint import load_state, save_state
from training.pretraining.batch import Batch
from training.pretraining.contrastive import Contrastive
from training.pretraining.curves import Curves
from training.pretraining.optimiser import Optimiser, OptimiserName, cosine_rate
from training.pretraining.processes import ALONE, Processes

_START_HORIZONS = 5.0
"""However short the run is, the initial weights make up at most e^−5, 0.7 %, of the average."""


@dataclass(frozen=True)
class Schedule:
    """The settings that decide the result besides model and data (the fields in `repr`), and how often to save."""

    epochs: int
    seed: int = 0
    peak_rate: float = 1e-3
    warmup_epochs: float = 4
    optimiser: OptimiserName = "muon"
    weight_decay: float = 0.05
    max_gradient_norm: float = 1.0
    averaging: float = 0.997  # highest decay of the published moving average, per step; 0: publish the last weights
    evaluate_every: int = field(default=10, repr=False)  # epochs
    save_every: int = field(default=500, repr=False)  # steps; the end of each epoch is saved too


class Batches(Protocol):
    """The training data, as the loop needs it."""

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[Batch]:
        """The epoch's batches without the first `skip`: the same ones on every call."""


def pretrain(
    task: Contrastive,
    batches: Batches,
    schedule: Schedule,
    out: Path,
    *,
    identity: str,
    publish: Callable[[Any], None],
    evaluate: Callable[[], Mapping[str, float]] = dict,
    processes: Processes = ALONE,
) -> None:
    """Runs the schedule from the state in `out/state.pt`, if any; publishes the averaged weights and evaluates them.

    `identity` names what else decides the result, model and data, so that no run continues from the state of another.
    Raises `TrainingError` if the saved state belongs to another run, or if the loss stops being a finite number.
    """
    run = Run(task, schedule, batches.num_batches, identity)
    step = run.resume(out / "state.pt")
    processes.require_same_step(step)
    with Curves(out / "curves", step, run.num_steps, batches.num_batches, quiet=processes.rank > 0) as curves:
        while True:
            epoch, done = divmod(step, batches.num_batches)
            is_due = step == run.num_steps or (step > 0 and done == 0 and epoch % schedule.evaluate_every == 0)
            if (
                processes.rank == 0 and is_due
            ):  # after a resume too: the run may have been killed between saving and publishing
                publish(run.published)
                curves.figures(step, evaluate())
            processes.wait()
            if step == run.num_steps:
                break
            for batch in ahead(batches.epoch(epoch, skip=done)):
                curves.step(step, run.step(batch, step))
                step += 1
                if processes.rank == 0 and (step % schedule.save_every == 0 or step % batches.num_batches == 0):
                    run.save(out / "state.pt", step)


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each prepared while the previous one is in use."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = maker.submit(next, batches, None)
            yield batch


class Run:
    """The state of a run: model, optimiser and averaged weights, which a step changes and `save` writes."""

    def __init__(self, task: Contrastive, schedule: Schedule, steps_an_epoch: int, identity: str) -> None:
        self.num_steps = schedule.epochs * steps_an_epoch
        self._task, self._schedule = task, schedule
        self._key = f"{schedule!r} {steps_an_epoch} {identity}"
        self._warmup_steps = round(schedule.warmup_epochs * steps_an_epoch)
        self._optimiser = Optimiser(task.model, schedule.optimiser, schedule.weight_decay)
        decay = max(0.0, min(schedule.averaging, 1 - _START_HORIZONS / self.num_steps))
        self._averaged = AveragedModel(task.model, multi_avg_fn=partial(_average, decay), use_buffers=True)

    @property
    def published(self) -> Any:
        """The model as it is published: the running average of its weights."""
        return self._averaged.module

    def step(self, batch: Batch, number: int) -> dict[str, float]:
        """Takes one optimiser step; returns its loss, rate, gradient norm and scale, by name."""
        schedule = self._schedule
        loss = self._task.gradients(batch, seed=schedule.seed * 1_000_000_007 + number)
        rate = cosine_rate(number, peak=schedule.peak_rate, warmup_steps=self._warmup_steps, num_steps=self.num_steps)
        norm = self._optimiser.step(rate, schedule.max_gradient_norm)
        if not torch.isfinite(torch.tensor([loss, norm])).all():
            raise TrainingError(f"Training diverged at step {number}, with a loss of {loss}: choose a lower peak rate.")
        self._task.limit_scales()
        self._averaged.update_parameters(self._task.model)
        return {"loss": loss, "rate": rate, "gradient norm": norm, "scale": self._task.scale}

    def save(self, file: Path, next_step: int) -> None:
        """Writes atomically what `resume` needs."""
        file.parent.mkdir(parents=True, exist_ok=True)
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        save_state(file, {"key": self._key, "next_step": next_step} | parts)

    def resume(self, file: Path) -> int:
        """Loads the saved state and returns the step to continue with; 0 if there is none.

        Raises `TrainingError` if the state belongs to another run.
        """
        state = load_state(file, self._key)
        if state is None:
            if file.is_file():
                raise TrainingError(
                    f"{file} belongs to a run with another schedule or other data: choose another --out, or delete it."
                )
            return 0
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        return int(state["next_step"])

    def _parts(self) -> dict[str, Any]:
        return {"model": self._task.model, "averaged": self._averaged, "optimiser": self._optimiser}


@torch.no_grad()
def _average(decay: float, averaged: list[torch.Tensor], current: list[torch.Tensor], _num_averaged: Any) -> None:
    """Sets `averaged` to decay · averaged + (1 − decay) · current, tensors of one dtype; integers are copied."""
    if averaged[0].is_floating_point():
        torch._foreach_lerp_(averaged, current, 1 - decay)
    else:
        torch._foreach_copy_(averaged, current)
