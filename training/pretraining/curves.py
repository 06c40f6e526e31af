"""The display of a run: a progress bar on terminals, TensorBoard curves on disk, and a log line an epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


class Curves:
    """Figures by step from `first_step` on; what a killed run wrote for later steps is discarded."""

    def __init__(
        self, folder: Path, first_step: int, num_steps: int, steps_an_epoch: int, *, quiet: bool = False
    ) -> None:
        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=console, disable=quiet or not console.is_terminal)
        self._steps = self._bar.add_task("steps", total=num_steps, completed=first_step)
        self._writer = None if quiet else SummaryWriter(folder, purge_step=first_step)
        self._steps_an_epoch = steps_an_epoch
        self._losses: list[float] = []
        self._epoch_start = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._writer:
            self._writer.close()

    def step(self, number: int, figures: Mapping[str, float]) -> None:
        """Records the figures of step `number`, and logs a line at the end of an epoch."""
        self._write(number, figures)
        self._losses.append(figures["loss"])
        self._bar.update(self._steps, advance=1, description=f"loss {figures['loss']:.3f}")
        if (number + 1) % self._steps_an_epoch == 0:
            seconds = time.monotonic() - self._epoch_start
            epoch, loss = (number + 1) // self._steps_an_epoch, float(np.mean(self._losses))
            if self._writer:
                log.info("epoch %d: loss %.3f, %.1f s", epoch, loss, seconds)
            self._losses, self._epoch_start = [], time.monotonic()

    def figures(self, number: int, figures: Mapping[str, float]) -> None:
        """Records figures that were measured after `number` steps."""
        self._write(number, figures)
        if figures:
            log.info("after %d steps: %s", number, ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))

    def _write(self, number: int, figures: Mapping[str, float]) -> None:
        if self._writer:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, number)
