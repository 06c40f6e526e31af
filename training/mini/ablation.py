"""An ablation of the embedded checkpoint's recipe: `python -m training.mini.ablation --esc10 DIR --out DIR`.

Each variant leaves out or adds one part, and takes as many steps as the recipe does. All are measured on a fold from
which none of them learns, and which isn't the fold that the model card reports.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from clapboard.audio.windows import Waveform, window_waveform
from clapboard.model.clap import ClapEncoder, Embeddings
from clapboard.suggest.scoring import mean_direction
from training.mini.batches import Mixing, lengthened
from training.mini.card import PARAPHRASES
from training.mini.esc10 import Recording, list_clips, load_recordings
from training.mini.recipe import Recipe, make
from training.mini.zero_shot import zero_shot
from training.pretrain import Schedule

FIGURES = ("by name", "by paraphrase", "in 12–30 s, windows", "in 12–30 s, whole")


def variants(recipe: Recipe, num_real: int) -> dict[str, Recipe]:
    """The variants by their names in the table, the recipe first."""
    epochs = round(recipe.schedule.epochs * (num_real + recipe.synthetic_per_epoch) / num_real)
    real_alone = replace(recipe.schedule, epochs=epochs, evaluate_every=epochs)
    return {
        "the recipe": recipe,
        "without keyword-to-caption": replace(recipe, captions=False),
        "without SpecAugment": replace(recipe, spec_augment=False),
        "without mixtures": replace(recipe, mixing=Mixing(0.0, 0.0)),
        "without synthetic sound": replace(recipe, synthetic_per_kind=0, schedule=real_alone),
        "with fusion": replace(recipe, fused=True, mixing=replace(recipe.mixing, lengthened=0.4)),
    }


def measure(checkpoint: Path, held_out: Sequence[Recording]) -> dict[str, float]:
    """Zero-shot accuracy on recordings: by name, by paraphrase, and placed somewhere in longer recordings."""
    encoder = ClapEncoder.load(str(checkpoint), device="cpu", engine="torch")
    alone = [{kind: (texts[index],) for kind, texts in PARAPHRASES.items()} for index in range(3)]
    rng = np.random.default_rng(0)
    longer = [Recording(recording.kind, lengthened(recording.waveform, rng)) for recording in held_out]
    figures = (
        zero_shot(encoder, held_out).accuracy,
        float(np.mean([zero_shot(encoder, held_out, texts).accuracy for texts in alone])),
        zero_shot(_ByWindows(encoder), longer).accuracy,
        zero_shot(encoder, longer).accuracy,
    )
    return dict(zip(FIGURES, figures, strict=True))


class _ByWindows:
    """An encoder that embeds a recording window by window, even if it is fused."""

    def __init__(self, encoder: ClapEncoder) -> None:
        self.logit_scale = encoder.logit_scale
        self.embed_texts = encoder.embed_texts
        self._encoder = encoder

    def embed_recording(self, recording: Waveform, /) -> Embeddings:
        return mean_direction(self._encoder.embed_windows(window_waveform(recording)))


def table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as a Markdown table with a row for each variant."""
    lines = [f"| | {' | '.join(FIGURES)} |", "|---" * (len(FIGURES) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{row[figure]:.3f}' for figure in FIGURES)} |" for name, row in figures.items()]
    return "\n".join(lines)


def main(
    esc10: Annotated[Path, typer.Option(help="folder with esc10.csv and audio/")],
    out: Annotated[Path, typer.Option(help="folder for the runs, and ablation.json")],
    train_folds: Annotated[str, typer.Option(help="comma-separated folds to learn from")] = "1,2",
    held_out_fold: Annotated[int, typer.Option(help="fold that is measured on")] = 3,
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    seed: Annotated[int, typer.Option()] = 0,
    only: Annotated[str, typer.Option(help="variants whose names have this in them")] = "",
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Trains every variant and prints the table. Finished variants are kept, and a killed run continues."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    real = load_recordings(list_clips(esc10, [int(fold) for fold in train_folds.split(",")]))
    held_out = load_recordings(list_clips(esc10, [held_out_fold]))
    figures = {}
    recipe = Recipe(schedule=Schedule(epochs=epochs, seed=seed, evaluate_every=epochs))
    for name, variant in variants(recipe, len(real)).items():
        if only in name:
            figures[name] = measure(make(variant, real, [], out / name.replace(" ", "-")), held_out)
            logging.info("%s: %s", name, figures[name])
    (out / "ablation.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    typer.echo(table(figures))


if __name__ == "__main__":
    typer.run(main)
