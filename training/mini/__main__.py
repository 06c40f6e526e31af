"""`python -m training.mini --esc10 DIR --out DIR`: trains the embedded checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import torch
import typer

from training.mini.esc10 import list_clips, load_recordings
from training.mini.recipe import Recipe, make
from training.pretrain import Schedule


def main(
    esc10: Annotated[Path, typer.Option(help="folder with esc10.csv and audio/")],
    out: Annotated[Path, typer.Option(help="folder for state.pt, curves/ and the checkpoint, mini/")],
    epochs: Annotated[int, typer.Option(min=1)] = 120,
    seed: Annotated[int, typer.Option()] = 0,
    train_folds: Annotated[str, typer.Option(help="comma-separated folds to learn from")] = "1,2,3",
    validation_fold: Annotated[int, typer.Option(help="fold that is only measured on")] = 4,
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Trains the embedded checkpoint and publishes it in OUT/mini. The same seed and threads give the same weights."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    recipe = Recipe(schedule=Schedule(epochs=epochs, seed=seed))
    real = load_recordings(list_clips(esc10, [int(fold) for fold in train_folds.split(",")]))
    make(recipe, real, load_recordings(list_clips(esc10, [validation_fold])), out)


if __name__ == "__main__":
    typer.run(main)
