"""Names of classes from ESC-50, UrbanSound8K, FSD50K, AudioSet and GTZAN, and tags as people write them."""

from __future__ import annotations

import pytest

from clapboard.errors import ClapboardError
from clapboard.labels.captions.tags import determined, wording_of
from clapboard.labels.captions.wordings import Wording


def countable(*names: str) -> Wording:
    return Wording(countable=names)


def mass(*names: str) -> Wording:
    return Wording(mass=names)


def plurals(*names: str) -> Wording:
    return Wording(plurals=names)


def scenes(*names: str) -> Wording:
    return Wording(scenes=names)


TAGS: list[tuple[str, Wording]] = [
    ("airplane", countable("airplane")),
    ("air_conditioner", countable("air conditioner")),
    ("car_horn", countable("car horn")),
    ("church_bells", plurals("church bells")),
    ("crying_baby", countable("crying baby")),
    ("door_wood_creaks", plurals("door wood creaks")),
    ("fireworks", plurals("fireworks")),
    ("gun_shot", countable("gun shot")),
    ("hand_saw", countable("hand saw")),
    ("hen", countable("hen")),
    ("insects", plurals("insects")),
    ("jackhammer", countable("jackhammer")),
    ("mouse_click", countable("mouse click")),
    ("sheep", countable("sheep")),
    ("thunderstorm", countable("thunderstorm")),
    ("toilet_flush", countable("toilet flush")),
    ("vacuum_cleaner", countable("vacuum cleaner")),
    ("washing_machine", countable("washing machine")),
    ("water_drops", plurals("water drops")),
    ("brushing_teeth", mass("brushing teeth")),
    ("can_opening", mass("can opening")),
    ("children_playing", mass("children playing")),
    ("drilling", mass("drilling")),
    ("drinking_sipping", mass("drinking sipping")),
    ("engine_idling", mass("engine idling")),
    ("glass_breaking", mass("glass breaking")),
    ("keyboard_typing", mass("keyboard typing")),
    ("pouring_water", mass("pouring water")),
    ("street_music", mass("street music")),
    ("Car_passing_by", mass("car passing by")),
    ("Typing on a keyboard", mass("typing on a keyboard")),
    ("Playing guitar", mass("playing guitar")),
    ("Scissors", mass("scissors")),
    ("Mice", plurals("mice")),
    ("HVAC unit", countable("HVAC unit")),
    ("HVAC", mass("HVAC")),
    ("Computer_keyboard", countable("computer keyboard")),
    ("Male speech, man speaking", Wording(mass=("male speech", "man speaking"), scenes=("a man speaking",))),
    ("Bird vocalization, bird call, bird song", countable("bird vocalization", "bird call", "bird song")),
    ("Heart sounds, heartbeat", Wording(countable=("heartbeat",), plurals=("heart sounds",))),
    ("Chewing, mastication", mass("chewing", "mastication")),
    ("Gunshot, gunfire", Wording(countable=("gunshot",), mass=("gunfire",))),
    ("Hubbub, speech noise, speech babble", mass("hubbub", "speech noise", "speech babble")),
    ("Inside, small room", Wording(countable=("small room",), plurals=("indoor sounds",))),
    ("Outside, urban or manmade", plurals("outdoor sounds", "urban or manmade sounds")),
    ("Owl / Hoot", countable("owl", "hoot")),
    ("Motor vehicle (road)", countable("motor vehicle")),
    ("Zipper_(clothing)", countable("zipper")),
    ("Scratching_(performance_technique)", mass("scratching")),
    ("Bathtub_(filling_or_washing)", Wording(countable=("bathtub",), mass=("bathtub filling or washing",))),
    ("Fill (with liquid)", countable("fill", "fill with liquid")),
    ("Walk_and_footsteps", scenes("a walk and footsteps")),
    ("Water_tap_and_faucet", scenes("a water tap and a faucet")),
    ("Dishes_and_pots_and_pans", scenes("dishes and pots and pans")),
    ("Children and adults talking", scenes("children and adults talking")),
    ("Drawer_open_or_close", mass("drawer opening or closing")),
    ("Human_group_actions", plurals("human group actions")),
    ("dog_barking", Wording(mass=("dog barking",), scenes=("a dog barking",))),
    ("person walking on snow", Wording(mass=("person walking on snow",), scenes=("a person walking on snow",))),
    ("a dog barks", Wording(scenes=("a dog barking",), clauses=("a dog barks",))),
    ("A car passes by", Wording(scenes=("a car passing by",), clauses=("a car passes by",))),
    (
        "a box falls on the floor",
        Wording(scenes=("a box falling on the floor",), clauses=("a box falls on the floor",)),
    ),
    ("it rains heavily", Wording(scenes=("raining heavily",), clauses=("it rains heavily",))),
    ("dogs bark", Wording(scenes=("dogs barking",), clauses=("dogs bark",))),
    ("flames crackle", Wording(scenes=("flames crackling",), clauses=("flames crackle",))),
    ("an infant that cries", scenes("an infant that cries")),
    ("sports car", countable("sports car")),
    ("clothes dryer", countable("clothes dryer")),
    ("the wind is howling", Wording(scenes=("the wind howling",), clauses=("the wind is howling",))),
    ("It is snowing", Wording(scenes=("snowing",), clauses=("it is snowing",))),
    ("someone snoring", scenes("someone snoring")),
    ("a box of matches", scenes("a box of matches")),
    ("two dogs", scenes("two dogs")),
    ("blues", Wording(countable=("piece of blues",), mass=("blues",))),
    ("classical", Wording(countable=("piece of classical music",), mass=("classical music",))),
    ("hiphop", Wording(countable=("piece of hip hop",), mass=("hip hop",))),
]


@pytest.mark.parametrize(("tag", "wording"), TAGS)
def test_a_tags_wording_follows_from_its_form(tag: str, wording: Wording) -> None:
    assert wording_of(tag) == wording


@pytest.mark.parametrize("tag", ["", "  ", "_", ", ,", "()"])
def test_a_tag_without_a_word_is_refused(tag: str) -> None:
    with pytest.raises(ClapboardError, match="keyword is empty"):
        wording_of(tag)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [("owl", "an owl"), ("rain", "rain"), ("bells", "bells"), ("a dog", "a dog"), ("dog barking", "dog barking")],
)
def test_a_name_in_a_sentence_has_an_article_if_it_takes_one(name: str, phrase: str) -> None:
    assert determined(name) == phrase
