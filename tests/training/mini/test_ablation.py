from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from training.mini.ablation import FIGURES, measure, table, variants
from training.mini.esc10 import Recording
from training.mini.recipe import Recipe
from training.pretrain import Schedule
from training.sounds.synthesis import synthesise


def test_every_variant_differs_from_the_recipe_in_one_part() -> None:
    recipe = Recipe(schedule=Schedule(epochs=30))
    found = variants(recipe, num_real=160)
    assert next(iter(found)) == "the recipe"
    parts = {
        name: {part for part, value in asdict(variant).items() if value != asdict(recipe)[part]}
        for name, variant in found.items()
    }
    assert parts == {
        "the recipe": set(),
        "without keyword-to-caption": {"captions"},
        "without SpecAugment": {"spec_augment"},
        "without mixtures": {"mixing"},
        "without synthetic sound": {"synthetic_per_kind", "schedule"},
        "with fusion": {"fused", "mixing"},  # without long recordings, fusion would never be used
    }


def test_all_variants_take_as_many_steps() -> None:
    recipe = Recipe(schedule=Schedule(epochs=30))
    without = variants(recipe, num_real=160)["without synthetic sound"]
    assert without.schedule.epochs * 160 == 30 * (160 + recipe.synthetic_per_epoch)


@pytest.mark.parametrize("checkpoint", ["mini", "tiny_fused_clap"])
def test_a_checkpoint_is_measured_by_all_figures(checkpoint: str, request: pytest.FixtureRequest) -> None:
    folder = "mini" if checkpoint == "mini" else request.getfixturevalue(checkpoint)
    kinds = ("dog bark", "rain", "sea waves", "baby cry", "clock tick", "person sneeze", "helicopter", "chainsaw")
    held_out = [Recording(kind, synthesise(kind, 9, 5.0)) for kind in (*kinds, "rooster", "fire crackling")]
    found = measure(Path(folder), held_out)
    assert tuple(found) == FIGURES
    assert all(0 <= value <= 1 for value in found.values())
    if checkpoint == "mini":
        assert found["by name"] >= 0.8


def test_the_table_has_a_row_for_each_variant() -> None:
    figures = {"the recipe": dict.fromkeys(FIGURES, 0.5), "with fusion": dict.fromkeys(FIGURES, 0.25)}
    rows = table(figures).splitlines()
    assert rows[0].count("|") == rows[1].count("|") == len(FIGURES) + 2
    assert rows[2] == "| the recipe | 0.500 | 0.500 | 0.500 | 0.500 |"
    assert rows[3] == "| with fusion | 0.250 | 0.250 | 0.250 | 0.250 |"
