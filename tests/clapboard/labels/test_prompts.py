from __future__ import annotations

import pytest

from clapboard.labels import prompts


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("dog bark", "dog bark"),
        ("dog_bark", "dog bark"),
        ("Dog-bark", "dog bark"),
        ("DogBark", "dog bark"),
        ("HVACUnit", "HVAC unit"),
        ("Rain / Wind", "rain wind"),
        ("  sea   waves ", "sea waves"),
        ("Motor2Start", "motor2 start"),
        ("3D printer", "3D printer"),
        ("Relay2ON", "relay2 ON"),
        ("1 kHz tone", "1 khz tone"),
        ("80 dB noise", "80 db noise"),
        ("Hund bellt", "hund bellt"),
    ],
)
def test_a_label_is_read_as_words(label: str, words: str) -> None:
    assert prompts.spoken(label) == words


def test_prompts_are_the_template_with_the_label_and_then_with_each_synonym() -> None:
    assert prompts.prompts_for("dog_bark", ("woofing", "Barking")) == (
        "This is a sound of dog bark.",
        "This is a sound of woofing.",
        "This is a sound of barking.",
    )
