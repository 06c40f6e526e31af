"""`python -m training.mini --esc10 DIR --out DIR`: trains the embedded checkpoint."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from training.mini.esc10 import list_clips, load_recordings
from training.mini.frame_stage import FrameRecipe, teach_frames
from training.mini.recipe import Recipe, make
from training.pretrain import Schedule


def main(
    esc10: Annotated[Path, typer.Option(help="folder with esc10.csv and audio/")],
    out: Annotated[Path, typer.Option(help="folder for state.pt, curves/, the checkpoint mini/, and clips/")],
    epochs: Annotated[int, typer.Option(min=1, help="of the first stage, which learns whole clips")] = 120,
    frame_epochs: Annotated[int, typer.Option(min=1, help="of the second stage, which learns frames")] = 60,
    start: Annotated[
        Path | None, typer.Option(help="a checkpoint of the first stage, to begin with the second")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    train_folds: Annotated[str, typer.Option(help="comma-separated folds to learn from")] = "1,2,3",
    validation_fold: Annotated[int, typer.Option(help="fold that is only measured on")] = 4,
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Trains the embedded checkpoint in two stages and publishes it in OUT/mini, the first one's in OUT/clips/mini.

    The same seed and threads give the same weights.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    real = load_recordings(list_clips(esc10, [int(fold) for fold in train_folds.split(",")]))
    validation = load_recordings(list_clips(esc10, [validation_fold]))
    if start is None:
        start = make(Recipe(schedule=Schedule(epochs=epochs, seed=seed)), real, validation, out / "clips")
    frames = FrameRecipe()
    schedule = replace(frames.schedule, epochs=frame_epochs, seed=seed, evaluate_every=frame_epochs)
    teach_frames(replace(frames, schedule=schedule), start, real, validation, out)


if __name__ == "__main__":
    typer.run(main)
