from __future__ import annotations

import pytest

from clapboard.labels.captions import grammar


@pytest.mark.parametrize(
    ("noun", "several"),
    [
        ("dog bark", "dog barks"),
        ("church", "churches"),
        ("stomach", "stomachs"),
        ("baby cry", "baby cries"),
        ("toy", "toys"),
        ("bark of a dog", "barks of a dog"),
        ("knock on a door", "knocks on a door"),
        ("man with a drum", "men with a drum"),
        ("siren", "sirens"),
        ("buzz", "buzzes"),
        ("talking person", "talking people"),
        ("woman", "women"),
        ("human", "humans"),
        ("crying child", "crying children"),
        ("foot", "feet"),
        ("goose", "geese"),
        ("mouse", "mice"),
        ("mouse click", "mouse clicks"),
        ("knife", "knives"),
        ("wolf", "wolves"),
        ("roof", "roofs"),
        ("sheep", "sheep"),
        ("echo", "echoes"),
        ("piano", "pianos"),
        ("HVAC unit", "HVAC units"),
    ],
)
def test_the_head_of_a_noun_phrase_takes_the_plural(noun: str, several: str) -> None:
    assert grammar.plural(noun) == several


@pytest.mark.parametrize(
    ("noun", "article"),
    [
        ("alarm", "an"),
        ("siren", "a"),
        ("unicycle", "a"),
        ("unintended noise", "an"),
        ("ukulele", "a"),
        ("umbrella", "an"),
        ("utensil", "a"),
        ("hour", "an"),
        ("ewe", "a"),
        ("one man band", "a"),
        ("HVAC unit", "an"),
        ("UPS alarm", "a"),
        ("MRI scanner", "an"),
        ("TV", "a"),
        ("8 bit tune", "an"),
    ],
)
def test_the_article_follows_the_sound(noun: str, article: str) -> None:
    assert grammar.article(noun) == article


@pytest.mark.parametrize("phrase", ["dog barking", "walking on snow", "car passing by", "children playing outside"])
def test_a_gerund_is_recognised_by_its_form(phrase: str) -> None:
    assert grammar.is_gerund(phrase)


@pytest.mark.parametrize("phrase", ["phone ring", "building", "string", "washing machine", "lightning", "king"])
def test_not_every_word_in_ing_is_a_gerund(phrase: str) -> None:
    assert not grammar.is_gerund(phrase)


@pytest.mark.parametrize(
    "phrase", ["church bells", "dogs barking", "waves on a beach", "mice", "women", "birds singing loudly", "teeth"]
)
def test_a_plural_is_recognised_by_its_form(phrase: str) -> None:
    assert grammar.is_plural(phrase)


@pytest.mark.parametrize(
    "phrase",
    ["a dog barking", "bus", "glass", "tennis", "knock on doors", "ticking of watches", "blues", "GPS", "omen"],
)
def test_not_everything_in_s_is_a_plural(phrase: str) -> None:
    assert not grammar.is_plural(phrase)


def test_an_object_after_a_gerund_is_told_from_a_tool_or_a_subject() -> None:
    assert all(map(grammar.has_object, ("washing dishes", "cutting hair", "brushing teeth")))
    assert not any(map(grammar.has_object, ("washing machine", "cutting board", "ringing bells", "washing")))
    assert not grammar.is_plural("washing dishes")


@pytest.mark.parametrize(
    ("verb", "infinitive", "doing"),
    [
        ("barks", "bark", "barking"),
        ("hums", "hum", "humming"),
        ("flies", "fly", "flying"),
        ("lies", "lie", "lying"),
        ("passes", "pass", "passing"),
        ("wheezes", "wheeze", "wheezing"),
        ("buzzes", "buzz", "buzzing"),
        ("rains", "rain", "raining"),
        ("closes", "close", "closing"),
        ("blows", "blow", "blowing"),
        ("goes", "go", "going"),
        ("sees", "see", "seeing"),
    ],
)
def test_verbs_become_participles(verb: str, infinitive: str, doing: str) -> None:
    assert grammar.infinitive(verb) == infinitive
    assert grammar.participle(infinitive) == doing


@pytest.mark.parametrize(
    "forms",
    [
        "cry cries cried crying",
        "bark barks barked barking",
        "run runs running",
        "sneeze sneezes sneezed sneezing",
        "wave waves",
        "pass passes passing",
        "glass glasses",
        "fall falls falling",
    ],
)
def test_the_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len({grammar.stem(word) for word in forms.split()}) == 1


def test_other_words_have_other_stems() -> None:
    assert len({grammar.stem(word) for word in ("car", "cart", "bell", "belt", "rain", "ring", "sea", "see")}) == 8
