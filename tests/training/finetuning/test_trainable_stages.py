from __future__ import annotations

from pathlib import Path

import pytest

from clapboard.errors import TrainingError
from clapboard.labels.label_space import Control, LabelSpace, label_space_of
from training.finetuning.labelled import LabelledClip, Split, count_labels
from training.finetuning.trainable_stages import choose_trainable_stages
from training.finetuning.trainer import FinetuneConfig

SPACE = label_space_of(["a", "b", "c"])


def stages_for(
    sizes: dict[tuple[str, ...], int], space: LabelSpace = SPACE, config: FinetuneConfig | None = None
) -> str:
    """The stages that learn with so many clips with each answer, every fourth of them for validation."""
    clips = [
        LabelledClip(Path(f"{labels} {number}"), f"{labels} {number}", {"label": labels}, split_of(number))
        for labels, size in sizes.items()
        for number in range(size)
    ]
    return choose_trainable_stages(space, count_labels(space, clips), config or FinetuneConfig())


def split_of(number: int) -> Split:
    return "validation" if number % 4 == 0 else "train"


@pytest.mark.parametrize(
    ("sizes", "stages"),
    [
        ((8, 8, 8), "projection"),
        ((15, 90, 90), "projection"),
        ((16, 16, 90), "stage4"),
        ((31, 32, 90), "stage4"),
        ((32, 32, 32), "stages34"),
        ((40, 40, 0), "stages34"),
        ((40, 40, 7), "stages34"),  # a rare class is learnt, but doesn't hold the others back
        ((40, 40, 8), "projection"),
    ],
)
def test_the_smallest_class_that_counts_decides(sizes: tuple[int, int, int], stages: str) -> None:
    assert stages_for(dict(zip([("a",), ("b",), ("c",)], sizes, strict=True))) == stages


def test_the_config_can_name_the_stages() -> None:
    assert stages_for({("a",): 8, ("b",): 8}, config=FinetuneConfig(rung="stage4")) == "stage4"


def test_two_classes_have_to_count() -> None:
    with pytest.raises(TrainingError, match=r"too few labels to train on \(“a” 90, “b” 7\): label at least 8"):
        stages_for({("a",): 90, ("b",): 7})


def test_where_labels_dont_exclude_each_other_not_having_one_counts_too() -> None:
    (control,) = SPACE.controls
    several = Control("label", "choices", "audio", control.labels, True, False, None)
    space = LabelSpace("audio", "audio", (several,))
    assert stages_for({("a",): 16, (): 20}, space) == "stage4"
    assert stages_for({("a", "b"): 16, ("a",): 20}, space) == "stage4"  # by b: everything has a
    with pytest.raises(TrainingError, match="the only label"):
        stages_for({("a",): 90}, space)
