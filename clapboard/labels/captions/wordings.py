"""The table of wordings: the names that captions use for the most common kinds of sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Wording:
    """The ways to name one kind of sound."""

    countable: tuple[str, ...] = ()  # take an article or a number: «a dog bark», «two dog barks»
    mass: tuple[str, ...] = ()  # take neither: «rain»
    scenes: tuple[str, ...] = ()  # have their article, or need none: «a dog barking»
    clauses: tuple[str, ...] = ()  # are sentences by themselves: «a dog barks»
    plurals: tuple[str, ...] = ()  # take a number above one, but no article: «church bells»

    @property
    def all(self) -> tuple[str, ...]:
        """The names that fit into a template: all but the clauses."""
        return self.countable + self.mass + self.scenes + self.plurals


WORDINGS: Mapping[str, Wording] = MappingProxyType(
    {
        "dog bark": Wording(
            ("dog bark", "bark", "bark of a dog", "dog's bark", "barking dog"),
            ("dog barking", "barking", "dogs barking", "woofing", "yapping"),
            ("a dog barking", "a puppy barking"),
            ("a dog barks", "a dog is barking", "a hound barks"),
        ),
        "rain": Wording(
            ("rain shower", "downpour", "drizzle", "rainstorm"),
            ("rain", "rainfall", "raining", "rain falling", "falling rain", "heavy rain", "light rain", "raindrops"),
            ("rain falling on a roof", "rain pouring down", "water drops falling from the sky"),
            ("it is raining",),
        ),
        "sea waves": Wording(
            ("sea wave", "ocean wave", "wave", "breaking wave"),
            ("sea waves", "waves", "surf", "ocean waves", "ocean surf", "sea", "ocean", "waves crashing"),
            ("waves crashing on the shore", "waves on a beach", "the sea", "the ocean", "waves breaking at the coast"),
        ),
        "baby cry": Wording(
            ("baby cry", "baby's cry", "crying baby", "crying infant", "cry of a baby"),
            ("baby crying", "infant crying", "crying", "wailing of a baby", "child crying"),
            ("a baby crying", "a newborn crying"),
            ("a baby cries", "a baby is crying", "an infant wails"),
        ),
        "clock tick": Wording(
            ("clock tick", "tick", "ticking clock", "tick of a clock", "clock"),
            ("clock ticking", "ticking", "tick-tock", "clock ticks", "ticking of a watch"),
            ("a clock ticking", "a watch ticking", "the ticking of a clock"),
            ("a clock ticks", "a clock is ticking"),
        ),
        "person sneeze": Wording(
            ("person sneeze", "sneeze", "human sneeze", "sneezing person"),
            ("sneezing", "person sneezing", "achoo"),
            ("a person sneezing", "a man sneezing", "a woman sneezing"),
            ("someone sneezes", "a person sneezes"),
        ),
        "helicopter": Wording(
            ("helicopter", "chopper", "helicopter rotor", "hovering helicopter"),
            ("helicopter flying", "helicopter noise", "rotor blades", "helicopter blades"),
            ("a helicopter flying", "a helicopter hovering", "a chopper overhead"),
            ("a helicopter flies by",),
        ),
        "chainsaw": Wording(
            ("chainsaw", "chain saw", "power saw", "running chainsaw"),
            ("chainsaw cutting", "chainsaw noise", "sawing with a chainsaw", "chainsawing"),
            ("a chainsaw cutting wood", "a chainsaw running", "a chainsaw revving"),
            ("someone saws a tree",),
        ),
        "rooster": Wording(
            ("rooster", "rooster crow", "cock", "cockerel", "crowing rooster", "cock-a-doodle-doo"),
            ("rooster crowing", "crowing", "cock crow"),
            ("a rooster crowing", "a cockerel crowing"),
            ("a rooster crows", "a cock crows", "a rooster is crowing"),
        ),
        "fire crackling": Wording(
            ("fire", "campfire", "crackling fire", "bonfire", "fireplace", "burning fire"),
            ("fire crackling", "crackling", "crackling of fire", "fire burning", "burning wood", "flames"),
            ("a fire crackling", "a fire burning", "wood burning in a fireplace"),
            ("a campfire crackles", "a fire burns"),
        ),
        "bird chirp": Wording(
            ("bird chirp", "chirp", "bird song", "bird", "singing bird", "bird call"),
            ("birds chirping", "birdsong", "chirping", "tweeting", "bird singing"),
            ("a bird chirping", "birds singing"),
            ("a bird sings", "a bird tweets"),
        ),
        "cricket": Wording(
            ("cricket", "cricket chirp", "insect", "cicada"),
            ("crickets", "crickets chirping", "insects", "stridulation"),
            ("crickets at night", "a cricket chirping", "insects buzzing in the grass"),
        ),
        "speech": Wording(
            ("voice", "human voice", "talking person", "speaker", "conversation"),
            ("speech", "talking", "speaking", "human speech", "spoken words", "people talking"),
            ("a person talking", "a man speaking", "a woman speaking"),
            ("someone speaks", "a person is talking"),
        ),
        "applause": Wording(
            ("applauding crowd", "round of applause", "clap"),
            ("applause", "clapping", "hand clapping", "hands clapping"),
            ("people clapping", "a crowd applauding"),
            ("an audience claps", "people applaud"),
        ),
        "footsteps": Wording(
            ("footstep", "step", "walking person"),
            ("footsteps", "walking", "steps", "foot steps"),
            ("a person walking", "steps on a floor", "footsteps on the ground"),
            ("someone walks",),
        ),
        "whistle": Wording(
            ("whistle", "human whistle", "whistling person"),
            ("whistling", "human whistling"),
            ("a person whistling", "a man whistling a tune", "someone whistling a melody"),
            ("someone whistles",),
        ),
        "wind": Wording(
            ("gust of wind", "gale", "strong wind", "breeze"),
            ("wind", "wind blowing", "howling wind", "wind noise"),
            ("wind blowing", "a storm wind howling"),
            ("the wind howls", "the wind is blowing"),
        ),
        "thunder": Wording(
            ("thunderclap", "clap of thunder", "thunderstorm", "thunder rumble", "lightning strike"),
            ("thunder", "thundering", "rumbling thunder", "rolling thunder"),
            ("thunder rumbling", "thunder in the distance"),
            ("thunder rolls",),
        ),
        "engine": Wording(
            ("engine", "motor", "car engine", "running engine", "idling engine", "car"),
            ("engine running", "engine idling", "motor running", "engine noise"),
            ("an engine running", "a car idling", "a car with its engine on"),
            ("a motor runs",),
        ),
        "bell": Wording(
            ("bell", "church bell", "ringing bell", "bell stroke"),
            ("bells", "bell ringing", "church bells", "bells tolling"),
            ("a bell ringing",),
            ("a bell tolls", "a church bell rings", "a bell is ringing"),
        ),
        "knocking": Wording(
            ("knock", "knock on a door", "door knock"),
            ("knocking", "door knocking", "knocking on a door"),
            ("someone knocking on a door",),
            ("someone knocks", "a person knocks at the door"),
        ),
        "siren": Wording(
            ("siren", "police siren", "ambulance siren", "fire engine siren", "emergency siren"),
            ("sirens", "siren wailing", "police sirens"),
            ("a siren wailing", "an ambulance passing", "a police car with its siren on"),
        ),
        "alarm beep": Wording(
            ("alarm beep", "beep", "alarm", "alarm clock", "beeping alarm", "electronic beep"),
            ("beeping", "alarm beeping", "beeps"),
            ("an alarm beeping", "a device beeping", "an alarm going off"),
            ("an alarm clock rings",),
        ),
        "phone ring": Wording(
            ("phone ring", "ringing phone", "telephone", "telephone ring", "ringtone", "phone"),
            ("phone ringing", "telephone ringing"),
            ("a phone ringing",),
            ("a telephone rings", "a phone is ringing"),
        ),
        "pure tone": Wording(
            ("pure tone", "tone", "sine tone", "sine wave", "test tone", "steady tone", "hum"),
            ("humming tone", "constant tone"),
            ("a steady sine wave", "a tone of one pitch", "a single pitch held"),
        ),
        "music": Wording(
            ("song", "melody", "piece of music", "chord", "tune", "musical instrument"),
            ("music", "chords", "music playing", "instrumental music"),
            ("music playing", "an instrument being played", "a band playing a song"),
            ("someone plays music",),
        ),
        "white noise": Wording(
            ("hiss", "noise signal"),
            ("white noise", "noise", "static", "hissing", "pink noise", "static noise"),
            ("a steady hiss", "radio static", "noise without any event"),
        ),
        "silence": Wording(
            ("silent recording", "pause"),
            ("silence", "nothing", "no sound", "quiet", "complete silence"),
            ("nothing to be heard", "a quiet room", "no sound at all"),
        ),
    }
)
