"""Which captions count as English: short ones must survive, others mustn't."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clapboard.errors import SettingsError
from training.corpus.language import LanguageJudge

ENGLISH = """
a dog barks twice, rain, a man speaks, birds chirping, engine idling, thunder rolls in the distance, water drips,
glass breaks, footsteps on gravel, a siren wails, children laughing, crowd cheering, applause, a baby cries, wind howls,
someone types on a keyboard, cat meows, a drone hovers overhead, Dubstep bassline at 140 BPM, door creaks open,
a car horn honks, a train passes by, clock ticking, static, music, hum, snare drum, violin solo, reggae beat,
frogs croak, toilet flush, gunshot, church bells ring, sizzling, sea waves, snoring, sneeze, a pig oinks, hen clucks,
mouse click, rooster, cicadas, door, A door, cow, gun, tap, tram, Honk, a tuba, jazz, marimba
"""
OTHERS = {
    "de": "ein Hund bellt zweimal, Regen fällt auf ein Blechdach, ein Mann spricht, Vögel zwitschern, "
    "Kinder lachen laut",
    "fr": "un chien aboie deux fois, la pluie tombe sur un toit, un homme parle, le vent souffle, un bébé pleure",
    "es": "un perro ladra dos veces, llueve sobre el tejado, un hombre habla, suena una sirena",
    "it": "un cane abbaia due volte, la pioggia cade, un uomo parla",
    "pt": "um cachorro late duas vezes, a chuva cai no telhado, um homem fala",
    "nl": "een hond blaft twee keer, regen valt op het dak, een man praat",
    "sv": "en hund skäller två gånger, regnet faller på taket",
    "fi": "koira haukkuu kahdesti",
    "pl": "pies szczeka dwa razy",
    "tr": "bir köpek iki kez havlar",
    "ru": "собака лает дважды",
    "zh": "一只狗叫了两声",
    "ja": "犬が二回吠える",
    "ko": "개가 두 번 짖는다",
    "ar": "كلب ينبح مرتين",
    "hi": "कुत्ता दो बार भौंकता है",
    "id": "anjing menggonggong dua kali",
}


def captions(text: str) -> list[str]:
    return [caption.strip() for caption in text.replace("\n", " ").split(",")]


@pytest.fixture(scope="module")
def accepts() -> Callable[[str], bool]:
    return LanguageJudge(["en"]).accepts


@pytest.mark.parametrize("caption", captions(ENGLISH))
def test_short_english_captions_survive(accepts: Callable[[str], bool], caption: str) -> None:
    assert accepts(caption)


@pytest.mark.parametrize("caption", [caption for text in OTHERS.values() for caption in captions(text)])
def test_short_captions_in_other_languages_do_not(accepts: Callable[[str], bool], caption: str) -> None:
    assert not accepts(caption)


def test_what_has_no_letters_is_in_every_language(accepts: Callable[[str], bool]) -> None:
    assert accepts("140 – 440")


def test_several_languages_may_be_wanted_also_rare_ones() -> None:
    judge = LanguageJudge(["de", "is"])
    assert judge.accepts("ein Hund bellt zweimal")
    assert judge.accepts("hundur geltir tvisvar við húsið")
    assert not judge.accepts("footsteps on gravel and laughing children")


def test_a_code_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="Language “english” is unknown: give ISO 639-1 codes"):
        LanguageJudge(["english"])
