from __future__ import annotations

from pathlib import Path

from training.mini.card import PARAPHRASES, attributions
from training.mini.esc10 import Clip
from training.sounds.synthesis import KINDS


def clip(author: str, licence: str, freesound_id: str) -> Clip:
    return Clip(Path("x.ogg"), 1, "rain", freesound_id, licence, author)


def test_every_author_is_named_once_a_licence_with_all_recordings_in_order() -> None:
    clips = [
        clip("Zoe", "CC0", "20"),
        clip("ann", "CC0", "100"),
        clip("ann", "CC0", "9"),
        clip("ann", "CC0", "9"),
        clip("ann", "CC-BY", "7"),
    ]
    assert attributions(clips) == "- CC-BY: ann 7\n- CC0: ann 9, 100; Zoe 20"


def test_there_are_three_paraphrases_of_each_of_the_ten_names_and_none_is_a_name() -> None:
    assert len(PARAPHRASES) == 10
    assert set(PARAPHRASES) < set(KINDS)
    texts = [text for group in PARAPHRASES.values() for text in group]
    assert len(texts) == len(set(texts)) == 30
    assert not set(texts) & set(KINDS)
