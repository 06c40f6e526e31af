"""Trains the embedded checkpoint from scratch: `python -m training.pretrain --esc10 DIR --out DIR`.

The schedule is fixed and the averaged weights of its end are what is published: the validation fold selects nothing.
An interrupted run goes on from its last epoch when it is started again with the same arguments. Because the rate is
constant until the cool-down, `--epochs` may be changed then too, as long as the cool-down has not begun.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
import typer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import ClapModel, RobertaTokenizer

from clapboard.clap import ClapEncoder
from clapboard.features import LogMel
from training.augment import Augment
from training.dataset import Batch, BatchMaker, Recording, load_recordings, read_manifest, synthetic_recordings
from training.evaluate import zero_shot
from training.loss import affinity, contrastive_loss
from training.mini import new_model, publish
from training.texts import pretrain_texts
from training.tokenizer import caption_corpus, train_tokenizer

log = logging.getLogger("training.pretrain")


@dataclass(frozen=True)
class Schedule:
    """What decides the result, apart from the recordings."""

    epochs: int = 120
    seed: int = 0
    batch_size: int = 16
    synthetic_per_epoch: int = 80
    text_steps: int = 200
    peak_rate: float = 1e-3
    warmup_epochs: float = 4
    cooldown: float = 0.3  # the last part of the epochs, in which the rate falls to zero
    weight_decay: float = 0.05
    averaging: float = 0.997
    evaluate_every: int = 10


class Batches(Protocol):
    """What `BatchMaker` offers to the loop."""

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds that the text tower has to know."""

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """The epoch's batches: the same ones whenever they are asked for."""


def pretrain(
    model: ClapModel,
    tokenizer: RobertaTokenizer,
    batches: Batches,
    validation: list[Recording],
    schedule: Schedule,
    out: Path,
) -> None:
    """Runs the schedule from where `out/state.pt` stands, and publishes the averaged weights in `out/mini`."""
    if not (out / "state.pt").exists():
        log.info(
            "texts: loss %.3f",
            pretrain_texts(model, tokenizer, batches.kinds, steps=schedule.text_steps, seed=schedule.seed),
        )
    trainer = Trainer(model, tokenizer, schedule)
    for epoch in range(trainer.resume(out / "state.pt"), schedule.epochs):
        started = time.monotonic()
        torch.manual_seed(schedule.seed * 1_000_003 + epoch)
        losses = []
        for step, batch in enumerate(ahead(batches.epoch(epoch))):
            trainer.set_rate(epoch + step / batches.num_batches)
            losses.append(trainer.step(batch))
        trainer.save(out / "state.pt", next_epoch=epoch + 1)
        log.info("epoch %d: loss %.3f, %.1f s", epoch + 1, sum(losses) / len(losses), time.monotonic() - started)
        if (epoch + 1) % schedule.evaluate_every == 0 or epoch + 1 == schedule.epochs:
            publish(trainer.averaged.module, tokenizer, out / "mini")
            if validation:
                log.info("validation: %s", zero_shot(ClapEncoder.load(str(out / "mini"), device="cpu"), validation))


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made while the one before it is in use."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = maker.submit(next, batches, None)
            yield batch


class Trainer:
    """Model, averaged copy and optimiser, and the one step that changes them."""

    def __init__(self, model: ClapModel, tokenizer: RobertaTokenizer, schedule: Schedule) -> None:
        self.model = model.train()
        average = get_ema_multi_avg_fn(schedule.averaging)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        self.schedule = schedule
        self._tokenizer = tokenizer
        self._log_mel = LogMel("slaney").float()  # training needs no float64
        self._augment = Augment()
        matrices, others = _matrices_and_others(model)
        # From scratch, Muon (Jordan et al. 2024) learns in a fraction of AdamW's steps; it is made for matrices alone.
        self._optimisers: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(matrices, weight_decay=schedule.weight_decay, adjust_lr_fn="match_rms_adamw"),
            "adamw": torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        }

    def rate_at(self, epoch: float) -> float:
        """The learning rate: a linear warm-up, then constant, then down to zero at the end as 1 − √progress."""
        plan = self.schedule
        rising = min(1.0, (epoch + 0.01) / plan.warmup_epochs)
        progress = max(0.0, 1 - (plan.epochs - epoch) / (plan.cooldown * plan.epochs))
        return plan.peak_rate * rising * (1 - math.sqrt(progress))

    def set_rate(self, epoch: float) -> None:
        """Puts the epoch's learning rate in force."""
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = self.rate_at(epoch)

    def step(self, batch: Batch) -> float:
        """The batch's loss, after one optimiser step on it."""
        with torch.no_grad():
            features = self._augment(self._log_mel(torch.from_numpy(batch.windows)))
        tokens = self._tokenizer(batch.captions, padding=True, truncation=True, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            audio = self.model.get_audio_features(input_features=features[:, None]).pooler_output
            text = self.model.get_text_features(**tokens).pooler_output
        fit = affinity(torch.from_numpy(batch.shares), torch.from_numpy(batch.caption_shares))
        scales = self.model.logit_scale_a.exp(), self.model.logit_scale_t.exp()
        loss = contrastive_loss(audio.float(), text.float(), fit, *scales)
        self.model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self._optimisers.values():
            optimiser.step()
        with torch.no_grad():
            for scale in (self.model.logit_scale_a, self.model.logit_scale_t):
                scale.clamp_(max=math.log(100))
        self.averaged.update_parameters(self.model)
        return float(loss.item())

    def save(self, file: Path, next_epoch: int) -> None:
        """Writes all that `resume` needs, complete or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in self._parts().items()}
        building = file.with_suffix(".building")
        with building.open("wb") as stream:
            torch.save(state | {"next_epoch": next_epoch, "schedule": asdict(self.schedule)}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        building.replace(file)

    def resume(self, file: Path) -> int:
        """The epoch to go on with: 0 if nothing was saved.

        Raises `ValueError` if what was saved belongs to another schedule.
        """
        if not file.is_file():
            return 0
        state = torch.load(file, weights_only=True)
        same = {**state["schedule"], "epochs": self.schedule.epochs} == asdict(self.schedule)
        cooling = state["next_epoch"] > state["schedule"]["epochs"] * (1 - self.schedule.cooldown)
        if not same or (cooling and state["schedule"]["epochs"] != self.schedule.epochs):
            raise ValueError(f"{file} belongs to another schedule: choose another --out, or delete it to start again.")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        return int(state["next_epoch"])

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "averaged": self.averaged, **self._optimisers}


def _matrices_and_others(model: ClapModel) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The weights that multiply activations, and all else: biases, norms, tables, filters, the two temperatures."""
    of_linear = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Linear)}
    parameters = list(model.parameters())
    return [p for p in parameters if id(p) in of_linear], [p for p in parameters if id(p) not in of_linear]


def main(
    esc10: Annotated[Path, typer.Option(help="folder with esc10.csv and audio/")],
    out: Annotated[Path, typer.Option(help="folder for state.pt and the checkpoint, mini/")],
    epochs: Annotated[int, typer.Option(min=1)] = Schedule.epochs,
    seed: Annotated[int, typer.Option()] = Schedule.seed,
    train_folds: Annotated[str, typer.Option(help="comma-separated folds to learn from")] = "1,2,3",
    validation_fold: Annotated[int, typer.Option(help="fold that is only measured on")] = 4,
    synthetic_per_kind: Annotated[int, typer.Option(min=0, help="synthetic recordings of each kind")] = 20,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Trains the embedded checkpoint and publishes it in OUT/mini."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    schedule = Schedule(epochs=epochs, seed=seed)
    real = load_recordings(read_manifest(esc10, [int(fold) for fold in train_folds.split(",")]))
    validation = load_recordings(read_manifest(esc10, [validation_fold]))
    synthetic = synthetic_recordings(synthetic_per_kind, seed)
    batches = BatchMaker(
        real,
        synthetic,
        synthetic_per_epoch=schedule.synthetic_per_epoch,
        batch_size=schedule.batch_size,
        seed=seed,
    )
    tokenizer = train_tokenizer(caption_corpus(batches.kinds, seed))
    model = new_model(len(tokenizer))
    log.info("%d real and %d synthetic recordings, %d kinds", len(real), len(synthetic), len(batches.kinds))
    pretrain(model, tokenizer, batches, validation, schedule, out)


if __name__ == "__main__":
    typer.run(main)
