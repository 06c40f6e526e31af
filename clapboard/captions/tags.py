"""Tags that people write → the ways to name what they mean, guessed by their form.

«Male speech, man speaking» is two names for one thing, «Bathtub (filling or washing)» a name and its detail; «dishes
and pots» are two things, «barking» takes no article, «children» no «a». A wrong guess costs an odd caption, no more.
"""

from __future__ import annotations

import re

from clapboard.captions.grammar import (
    article,
    has_object,
    infinitive,
    is_gerund,
    is_mass,
    is_plural,
    participle,
    split_head,
)
from clapboard.captions.wordings import Wording
from clapboard.errors import ClapboardError
from clapboard.prompts import spoken

_GENRES = {
    name: f"{name} music"
    for name in ("classical", "country", "disco", "electronic", "folk", "metal", "pop", "rock", "soul", "ambient")
} | {"hiphop": "hip hop", "hip hop": "hip hop", "drum and bass": "drum and bass", "rock and roll": "rock and roll"}
_UNCOUNTED_GENRES = frozenset({
    "blues", "bluegrass", "grunge", "heavy metal", "house music", "jazz", "R&B", "reggae", "rhythm and blues", "ska",
    "techno", "trance",
})  # fmt: skip
_KIND_OF_ROCK = re.compile(r"(?:alternative|folk|glam|hard|indie|pop|progressive|psychedelic|punk|soft) rock")
_ADJECTIVES = frozenset({
    "abnormal", "acoustic", "angry", "bad", "broken", "calm", "domestic", "exciting", "faulty", "good", "happy",
    "healthy", "industrial", "loud", "manmade", "mechanical", "natural", "neutral", "noisy", "normal", "other", "rural",
    "sad", "soft", "unknown", "urban",
})  # fmt: skip
_PLACES = dict.fromkeys(("inside", "indoors"), "indoor sounds") | dict.fromkeys(
    ("outside", "outdoors"), "outdoor sounds"
)
_ONLY_ONE = frozenset({"sea", "ocean"})
_DETERMINED = re.compile(
    r"(?:an?|the|some|someone|somebody|something|no|nothing|people|it|my|one|two|three|four|several|many"
    r"|\d+(?! (?:k?hz|mhz|db|bit|bpm|volt|watt|inch|second|minute)\b)) "
)
_AGENTS = re.compile(r"(?:man|woman|person|child|boy|girl|kid|baby|adult|dog|cat|bird|horse|cow|pig|frog|insect) ")
_VERBS_AT_END = {"open": "opening", "close": "closing"}  # «Drawer open or close»: no nouns, whatever they look like

_WORD = re.compile(r"[^\W_]")
_NOUN_ENDS = {"a": 2, "an": 2, "someone": 1, "somebody": 1, "it": 1}  # after so many words, at the earliest
_PLURAL_MODIFIERS = frozenset({"arms", "clothes", "effects", "goods", "mains", "police", "sports", "teeth"})
_VERBS_OF_SOUND = frozenset({
    "bang", "bark", "beep", "blare", "bleat", "boom", "break", "burn", "buzz", "caw", "chatter", "cheer", "chime",
    "chirp", "chug", "clack", "clang", "clank", "clap", "clash", "clatter", "click", "clink", "cluck", "crackle",
    "crash", "creak", "croak", "crow", "crunch", "cry", "drip", "drop", "fall", "fire", "fizz", "flap", "flutter",
    "fly", "gallop", "giggle", "grind", "groan", "growl", "grunt", "gurgle", "hiss", "honk", "hoot", "howl", "hum",
    "jangle", "jingle", "knock", "laugh", "meow", "moan", "moo", "neigh", "oink", "pass", "peal", "play", "pop",
    "purr", "quack", "rattle", "rev", "ring", "roar", "roll", "rumble", "rustle", "scrape", "scream", "screech",
    "shatter", "shout", "shriek", "sing", "sizzle", "slam", "slosh", "snap", "snarl", "sneeze", "snip", "snore",
    "snort", "speak", "spin", "splash", "squawk", "squeak", "squeal", "swoosh", "talk", "thud", "thump", "tick",
    "tinkle", "toll", "trickle", "trill", "tweet", "twitter", "wail", "walk", "whimper", "whine", "whir", "whisper",
    "whistle", "whoosh", "yap", "yell", "yelp",
})  # fmt: skip


def wording_of(tag: str) -> Wording:
    """The names of a tag that no table knows. Raises `ClapboardError` if there is no word in it."""
    found = [_one_name(name) for name in names_of(tag)]
    if not found:
        raise ClapboardError("A keyword is empty: give each at least one word, such as “dog bark”.")
    return Wording(
        countable=tuple(name for wording in found for name in wording.countable),
        mass=tuple(name for wording in found for name in wording.mass),
        scenes=tuple(name for wording in found for name in wording.scenes),
        clauses=tuple(name for wording in found for name in wording.clauses),
        plurals=tuple(name for wording in found for name in wording.plurals),
    )


def has_word(tag: str) -> bool:
    """Whether the tag names anything: «?», «(unknown)» and «, ,» don't."""
    return bool(names_of(tag))


def determined(name: str) -> str:
    """The name as it stands in a sentence: «a dog», «rain», «church bells», «a walk and footsteps»."""
    takes_none = _DETERMINED.match(f"{name} ") or is_mass(name) or is_plural(name)
    return name if takes_none else f"{article(name)} {name}"


def names_of(tag: str) -> list[str]:
    """What the tag calls the thing, in words: its parts between commas or slashes, and its detail where that reads."""
    plain, names = re.sub(r"\([^()]*\)?", " ", tag), []
    for part in re.split(r"[,;|]+|(?<=\w\w)\s*/+\s*(?=\w\w)", plain):
        words = spoken(part)
        if _WORD.search(words) and words.rstrip(".") != "etc":
            names.append(words)
    for detail in re.findall(r"\(([^()]+)\)", tag):
        words = spoken(detail)
        if names and (is_gerund(words.partition(" ")[0]) or words.startswith(("with ", "of ", "in ", "on "))):
            names.append(f"{names[-1]} {words}")
    return list(dict.fromkeys(names))


def _one_name(name: str) -> Wording:
    if name in _GENRES:
        return Wording(("piece of " + _GENRES[name],), (_GENRES[name],))
    if name in _UNCOUNTED_GENRES or _KIND_OF_ROCK.fullmatch(name):
        return Wording(("piece of " + name,), (name,))
    if name in _ONLY_ONE:
        return Wording(scenes=(f"the {name}",))
    if name in _PLACES:
        return Wording(plurals=(_PLACES[name],))
    if name.rsplit(" ", 1)[-1] in _ADJECTIVES:
        return Wording(plurals=(f"{name} sounds",))
    if scene := _scene_of_clause(name):
        return Wording(scenes=(scene,), clauses=(name,))
    if _DETERMINED.match(f"{name} "):
        return Wording(scenes=(name,))
    if joined := _joined(name):
        return joined
    if has_object(name):
        return Wording(mass=(name,))
    if is_gerund(name):
        return Wording(mass=(name,), scenes=(scene,) if (scene := _of_agent(name)) else ())
    if is_mass(name):
        return Wording(mass=(name,))
    return Wording(plurals=(name,)) if is_plural(name) else Wording(countable=(name,))


def _joined(name: str) -> Wording | None:
    """«walk and footsteps»: each with its own article. «Drawer open or close» says what the drawer does."""
    words = [_VERBS_AT_END.get(word, word) if index else word for index, word in enumerate(name.split(" "))]
    name = " ".join(words)
    parts = re.split(r" (and|or) ", name)
    if len(parts) == 1:
        return None
    if all(is_gerund(part) for part in parts[::2]):
        return Wording(mass=(name,))
    parts[::2] = [_of_agent(part) or determined(part) for part in parts[::2]]
    return Wording(scenes=(" ".join(parts),))


def _of_agent(name: str) -> str:
    """«a dog barking» of «dog barking»; empty if it isn't said who does it."""
    return f"{article(name)} {name}" if is_gerund(name) and _AGENTS.match(name) else ""


def _scene_of_clause(name: str) -> str:
    """«a dog barking» of «a dog barks» or «a dog is barking»; empty if the name has no finite verb."""
    if verb := re.search(r" (?:is|are) (?=\w+ing\b)", name):
        subject, rest = name[: verb.start()], name[verb.end() :]
        return rest if subject in {"it", "there"} else f"{subject} {rest}"
    *subject_words, last = words = split_head(name)[0].split(" ")
    if subject_words and _is_verb_of_plural(subject_words[-1], last):
        return " ".join([*subject_words, participle(last)]) + name[len(" ".join(words)) :]
    for index in range(_NOUN_ENDS.get(words[0], len(words)), len(words)):
        if is_plural(words[index]):  # no plural after «a»: a verb
            start = [] if words[0] == "it" else words[:index]
            doing = " ".join([*start, participle(infinitive(words[index])), *words[index + 1 :]])
            return doing + name[len(" ".join(words)) :]
    return ""


def _is_verb_of_plural(noun: str, word: str) -> bool:
    """Whether it is «dogs bark» rather than «sports car» or «fireworks display»."""
    return word in _VERBS_OF_SOUND and noun not in _PLURAL_MODIFIERS and is_plural(noun)
