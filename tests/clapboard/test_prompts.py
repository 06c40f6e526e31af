from __future__ import annotations

import re

import numpy as np
import pytest

from clapboard import prompts
from training.sounds.synthesis import KINDS

MANY = 300


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


def test_every_kind_that_we_synthesise_has_its_own_wording() -> None:
    assert set(prompts.WORDINGS) == set(KINDS)
    for keyword, names in prompts.WORDINGS.items():
        assert keyword in names.all or keyword.removesuffix(" beep") in names.all


def test_no_name_stands_for_two_kinds() -> None:
    names = [name for wording in prompts.WORDINGS.values() for name in {*wording.all, *wording.clauses}]
    assert len(names) == len(set(names))


def test_captions_follow_from_the_random_generator_alone() -> None:
    first, second = ([prompts.caption("rain", np.random.default_rng(seed)) for seed in range(20)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 5


@pytest.mark.parametrize("keyword", sorted(prompts.WORDINGS))
def test_captions_are_sentences_with_the_right_article(keyword: str) -> None:
    rng = np.random.default_rng(1)
    for text in (prompts.caption(keyword, rng) for _ in range(MANY)):
        assert text[0].isupper()
        assert "{" not in text
        assert "  " not in text
        assert not re.search(r"\b[Aa] [aeio]", text), text
        assert not re.search(r"\b[Aa]n [^aeiouh]", text), text
        assert not re.search(r"\b(?:an?|one|two|many) (?:an?|the|someone|people)\b", text, re.IGNORECASE), text


def test_only_what_can_be_counted_is_counted() -> None:
    rng = np.random.default_rng(2)
    counted = [t for t in (prompts.caption("rain", rng) for _ in range(MANY)) if re.match(r"(Two|Three|Many)", t)]
    assert counted
    assert {text.split(" ", 1)[1] for text in counted} <= {"rain showers.", "downpours.", "drizzles.", "rainstorms."}


@pytest.mark.parametrize(
    ("noun", "several"),
    [
        ("dog bark", "dog barks"),
        ("church", "churches"),
        ("baby cry", "baby cries"),
        ("bark of a dog", "barks of a dog"),
        ("knock on a door", "knocks on a door"),
        ("siren", "sirens"),
    ],
)
def test_the_head_of_a_noun_phrase_takes_the_plural(noun: str, several: str) -> None:
    assert prompts.plural(noun) == several


@pytest.mark.parametrize(("noun", "article"), [("alarm", "an"), ("siren", "a"), ("unicycle", "a"), ("hour", "an")])
def test_the_article_follows_the_sound(noun: str, article: str) -> None:
    assert prompts.article(noun) == article


def test_captions_of_two_sounds_name_both_in_order() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        together = prompts.mixture("rain maker", "steam whistle", rng).lower()
        after = prompts.sequence("rain maker", "steam whistle", rng).lower()
        assert together.index("rain maker") < together.index("steam whistle")
        assert after.index("rain maker") < after.index("steam whistle")
        assert re.search(r"then|followed|after", after)


def test_an_unknown_keyword_is_captioned_by_its_own_words() -> None:
    rng = np.random.default_rng(4)
    assert all("steam whistle" in prompts.caption("SteamWhistle", rng).lower() for _ in range(30))
