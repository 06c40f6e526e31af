from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest

from clapboard.errors import ClapboardError
from clapboard.labels.captions import RULES, Captioner, KeywordsAlone, Relation, RuleCaptioner, ensemble, raw
from clapboard.labels.captions.wordings import WORDINGS, Wording
from clapboard.labels.prompts import TEMPLATE, prompts_for
from tests.support.text_models import save_random_t5
from training.captions.t5 import T5Captioner
from training.captions.text_generator import TextGenerator

MANY = 300
RELATIONS: tuple[Relation, ...] = get_args(Relation)
UNKNOWN = ("Male speech, man speaking", "Car_passing_by", "HVAC unit", "Walk_and_footsteps", "Mice", "a dog barks")


@pytest.fixture(scope="module", params=["rules", "alone", "t5"])
def captioner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    if request.param == "t5":
        return T5Captioner(TextGenerator.load(str(save_random_t5(tmp_path_factory.mktemp("t5")))))
    return RuleCaptioner() if request.param == "rules" else KeywordsAlone()


def drawn(keywords: Sequence[str], relation: Relation = "together", seed: int = 1, count: int = MANY) -> list[str]:
    rng = np.random.default_rng(seed)
    return [RULES.caption(keywords, rng, relation=relation) for _ in range(count)]


def assert_grammatical(text: str) -> None:
    assert text[0].isupper()
    assert not re.search(r"[{}]|  | [.,]|\.\.", text), text
    assert not re.search(r"\b[Aa] [aeio]", text), text
    assert not re.search(r"\b[Aa]n [^aeiouhH]", text), text
    assert not re.search(r"\b(?:an?|one|two|many) (?:an?|the|someone|two)\b", text, re.IGNORECASE), text
    assert not re.search(r"\b(?:persons|mices|(?:an?|one) (?:people|mice)|is mice)\b", text), text


@pytest.mark.parametrize("relation", RELATIONS)
def test_captions_depend_on_keywords_and_generator_alone(captioner: Captioner, relation: Relation) -> None:
    def some() -> list[str]:
        rngs = [np.random.default_rng(seed) for seed in range(20)]
        return [captioner.caption(("rain", "steam_whistle"), rng, relation=relation) for rng in rngs]

    assert some() == some()
    assert all("steam whistle" in text.lower() for text in some())


WORDLESS = ["", " ", "()", "(unknown)", "(Other)", "/", ",", "?", "-", "&", "'", "\u200b"]


@pytest.mark.parametrize("keywords", [(), *((one,) for one in WORDLESS), ("rain", "?")])
def test_nothing_to_name_is_refused(captioner: Captioner, keywords: tuple[str, ...]) -> None:
    reason = f"“{keywords[-1]}” has none" if keywords else "such as “dog bark”"
    with pytest.raises(ClapboardError, match="A caption needs keywords with a word in each.*" + re.escape(reason)):
        captioner.caption(keywords, np.random.default_rng(0))


@pytest.mark.parametrize("keyword", [*sorted(WORDINGS), *UNKNOWN])
def test_captions_of_one_sound_are_grammatical_and_many(keyword: str) -> None:
    texts = drawn((keyword,))
    for text in texts:
        assert_grammatical(text)
    assert len(set(texts)) > 8


def test_a_third_of_the_captions_is_the_very_prompt() -> None:
    prompts = {TEMPLATE.format(name) for name in WORDINGS["rain"].all}
    share = np.mean([text in prompts for text in drawn(("rain",), count=2000)])
    assert 0.32 < share < 0.38


def test_only_what_can_be_counted_is_counted() -> None:
    counted = [text for text in drawn(("rain",)) if re.match(r"(Two|Three|Several|Many)", text)]
    assert counted
    assert {text.split(" ", 1)[1] for text in counted} <= {"rain showers.", "downpours.", "drizzles.", "rainstorms."}


def test_a_plural_is_never_counted_as_one() -> None:
    texts = drawn(("fireworks",))
    assert {"Two fireworks.", "Three fireworks.", "Several fireworks.", "Many fireworks."} <= set(texts)
    assert not any(re.match(r"(One|A) firework", text) for text in texts)
    assert "There are fireworks." in texts


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("Mains hum", "There is a mains hum."),
        ("Police car (siren)", "There is a police car."),
        ("police_siren", "There is a police siren."),
        ("police whistle", "There is a police whistle."),
        ("Effects unit", "There is an effects unit."),
        ("fireworks display", "There is a fireworks display."),
        ("bagpipes solo", "There is a bagpipes solo."),
        ("Arts centre", "There is an arts centre."),
        ("cattle grid", "There is a cattle grid."),
        ("lights off", "There are lights off."),
        ("keys jangle", "There are keys jangling."),
        ("people talk", "There are people talking."),
        ("brushing_teeth", "There is brushing teeth."),
        ("hammering nails", "There is hammering nails."),
        ("shuffling cards", "There is shuffling cards."),
        ("washing dishes", "There is washing dishes."),
        ("washing machine", "There is a washing machine."),
        ("cutting hair with electric trimmers", "There is cutting hair with electric trimmers."),
        ("sharpening knife", "There is sharpening knife."),
        ("planing timber", "There is planing timber."),
        ("popping popcorn", "There is popping popcorn."),
        ("Bee, wasp, etc.", "There is a wasp."),
        ("Inside, small room", "There are indoor sounds."),
        ("Outside, rural or natural", "There are outdoor sounds."),
        ("Punk rock", "There is punk rock."),
        ("Rhythm and blues", "There is rhythm and blues."),
        ("Bluegrass", "There is bluegrass."),
        ("man and woman talking", "There are a man and a woman talking."),
        ("happy", "There are happy sounds."),
        ("loud", "There are loud sounds."),
        ("normal", "There are normal sounds."),
        ("other", "There are other sounds."),
        ("Timpani", "There are timpani."),
        ("Canidae", "There is canidae."),
        ("popcorn", "There is popcorn."),
        ("rice", "There is rice."),
        ("1 kHz tone", "There is a 1 khz tone."),
        ("3D printer", "There is a 3D printer."),
        ("sea", "There is the sea."),
        ("ocean", "There is the ocean."),
    ],
)
def test_names_after_there_is_read_naturally(tag: str, said: str) -> None:
    found = {text for text in ensemble(tag) if text.startswith("There ")}
    assert said in found
    assert not any(re.search(r"etc|\b(?:is|are) (?:inside|outside)\b", text) for text in found)


def test_what_takes_no_article_is_never_counted() -> None:
    texts = drawn(("street_music",))
    assert all("street music" in text.lower() for text in texts)
    assert not any(re.search(r"\b(a|one|two|several) street|musics", text.lower()) for text in texts)


def test_a_keyword_is_found_in_the_table_however_it_is_spelt() -> None:
    assert drawn(("Dog_Bark",)) == drawn(("dog bark",))


def test_a_captioner_can_be_given_another_table() -> None:
    own = RuleCaptioner({"K-17": Wording(mass=("bearing noise",))})
    rng = np.random.default_rng(0)
    assert all("bearing noise" in own.caption(("K-17",), rng).lower() for _ in range(30))


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("keywords", [("rain maker", "steam whistle"), ("hen", "mice", "oboe"), UNKNOWN])
def test_captions_of_several_sounds_name_all_in_order(keywords: tuple[str, ...], relation: Relation) -> None:
    for text in drawn(keywords, relation, count=60):
        assert_grammatical(text)
        if keywords is not UNKNOWN:
            places = [text.lower().index(keyword) for keyword in keywords]
            assert places == sorted(places)


def test_three_sounds_are_listed_with_and() -> None:
    texts = drawn(("hen", "mice", "owl"))
    assert "A hen, mice and an owl." in texts
    assert "A hen while there are mice and an owl." in texts


def test_a_sequence_says_what_comes_first_and_last() -> None:
    texts = drawn(("hen", "mice", "owl"), "sequence")
    assert "First a hen, then mice, finally an owl." in texts
    assert "After a hen come mice, then an owl." in texts
    assert all(re.search(r"then|followed|after", text.lower()) for text in texts)
    assert drawn(("hen", "hen"), "sequence", count=1)[0].lower().count("hen") == 2


def test_a_background_is_behind_the_first_sound() -> None:
    texts = drawn(("hen", "owl"), "background")
    assert "A hen with an owl in the background." in texts
    assert all(re.search(r"background|distance|faintly", text) for text in texts)


def test_a_repeated_keyword_is_captioned_once() -> None:
    assert drawn(("hen", "hen")) == drawn(("hen",))
    assert drawn(("car_horn", "Car horn", "CarHorn")) == drawn(("car_horn",))
    assert drawn(("caf\u00e9", "cafe\u0301")) == drawn(("caf\u00e9",))


def test_keywords_alone_are_always_the_same_lower_case_text() -> None:
    rng = np.random.default_rng(0)
    assert {KeywordsAlone().caption(("Dog_Bark", "HVAC"), rng) for _ in range(5)} == {"dog bark, hvac"}
    assert raw("CarHorn") == "car horn"


def test_an_ensemble_is_the_prompt_and_captions_in_the_labels_own_words() -> None:
    assert ensemble("Hand_saw") == (
        "This is a sound of hand saw.",
        "A hand saw.",
        "The sound of a hand saw.",
        "A recording of a hand saw.",
        "We hear a hand saw.",
        "There is a hand saw.",
        "A hand saw in the background.",
        "Several hand saws.",
    )
    assert all("rain" in text.lower() for text in ensemble("rain"))


def test_an_ensemble_has_every_synonym_and_nothing_twice() -> None:
    texts = ensemble("dog", ("hound", "Dog"))
    assert texts[:2] == prompts_for("dog", ("hound",))
    assert {"A dog.", "A hound.", "Several dogs.", "Several hounds."} < set(texts)
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize("tag", UNKNOWN)
def test_an_ensemble_is_grammatical(tag: str) -> None:
    for text in ensemble(tag)[1:]:
        assert_grammatical(text)
