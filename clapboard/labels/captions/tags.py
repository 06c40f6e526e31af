"""Tags that people write → the ways to name what they mean, guessed from their form.

«Male speech, man speaking» is two names for one thing, «Bathtub (filling or washing)» a name and its detail; «dishes
and pots» are two things, «barking» takes no article, and «children» no «a».
"""

from __future__ import annotations

import re

from clapboard.errors import ClapboardError
from clapboard.labels.captions.grammar import (
    article,
    has_object,
    infinitive,
    is_gerund,
    is_mass,
    is_plural,
    participle,
    split_head,
)
from clapboard.labels.captions.lexicon import (
    ADJECTIVES,
    GENRES,
    GENRES_OF_MUSIC,
    ONLY_ONE,
    PLURAL_MODIFIERS,
    VERBS_OF_SOUND,
)
from clapboard.labels.captions.wordings import Wording
from clapboard.labels.prompts import spoken

_KIND_OF_ROCK = re.compile(r"(?:alternative|folk|glam|hard|indie|pop|progressive|psychedelic|punk|soft) rock")
_PLACES = dict.fromkeys(("inside", "indoors"), "indoor sounds") | dict.fromkeys(
    ("outside", "outdoors"), "outdoor sounds"
)
_DETERMINED = re.compile(
    r"(?:an?|the|some|someone|somebody|something|no|nothing|people|it|my|one|two|three|four|several|many"
    r"|\d+(?! (?:k?hz|mhz|db|bit|bpm|volt|watt|inch|second|minute)\b)) "
)
_AGENT = re.compile(r"(?:man|woman|person|child|boy|girl|kid|baby|adult|dog|cat|bird|horse|cow|pig|frog|insect) ")
_VERBS_AT_END = {"open": "opening", "close": "closing"}  # «Drawer open or close»: they look like nouns

_WORD = re.compile(r"[^\W_]")
_DETAIL = re.compile(r"\(([^()]+)\)")
_DETAIL_OR_OPEN_BRACKET = re.compile(r"\([^()]*\)?")
_SEPARATOR = re.compile(r"[,;|]+|(?<=\w\w)\s*/+\s*(?=\w\w)")
_AUXILIARY = re.compile(r" (?:is|are) (?=\w+ing\b)")
_WORDS_BEFORE_VERB = {"a": 2, "an": 2, "someone": 1, "somebody": 1, "it": 1}  # at least, by the clause's first word


def wording_of(tag: str) -> Wording:
    """The names of a tag that no table knows. Raises `ClapboardError` if there is no word in it."""
    wordings = [_wording_of_name(name) for name in names_of(tag)]
    if not wordings:
        raise ClapboardError("A keyword is empty: give each at least one word, such as “dog bark”.")
    return Wording(
        countable=tuple(name for wording in wordings for name in wording.countable),
        mass=tuple(name for wording in wordings for name in wording.mass),
        scenes=tuple(name for wording in wordings for name in wording.scenes),
        clauses=tuple(name for wording in wordings for name in wording.clauses),
        plurals=tuple(name for wording in wordings for name in wording.plurals),
    )


def has_word(tag: str) -> bool:
    """Whether the tag names anything: «?», «(unknown)» and «, ,» don't."""
    return bool(names_of(tag))


def determined(name: str) -> str:
    """The name as it stands in a sentence: «a dog», «rain», «church bells», «a walk and footsteps»."""
    takes_no_article = _DETERMINED.match(f"{name} ") or is_mass(name) or is_plural(name)
    return name if takes_no_article else f"{article(name)} {name}"


def names_of(tag: str) -> list[str]:
    """The tag's names, in words: its parts between commas or slashes, and its detail in brackets if that reads well."""
    names = []
    for part in _SEPARATOR.split(_DETAIL_OR_OPEN_BRACKET.sub(" ", tag)):
        words = spoken(part)
        if _WORD.search(words) and words.rstrip(".") != "etc":
            names.append(words)
    for detail in _DETAIL.findall(tag):
        words = spoken(detail)
        if names and (is_gerund(words.partition(" ")[0]) or words.startswith(("with ", "of ", "in ", "on "))):
            names.append(f"{names[-1]} {words}")
    return list(dict.fromkeys(names))


def _wording_of_name(name: str) -> Wording:
    if name in GENRES_OF_MUSIC:
        return _genre(GENRES_OF_MUSIC[name])
    if name in GENRES or _KIND_OF_ROCK.fullmatch(name):
        return _genre(name)
    if name in ONLY_ONE:
        return Wording(scenes=(f"the {name}",))
    if name in _PLACES:
        return Wording(plurals=(_PLACES[name],))
    if name.rsplit(" ", 1)[-1] in ADJECTIVES:
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


def _genre(name: str) -> Wording:
    return Wording(countable=(f"piece of {name}",), mass=(name,))


def _joined(name: str) -> Wording | None:
    """The wording of names joined by «and» or «or», each with its own article: «a walk and footsteps».

    None if nothing is joined. «Drawer open or close» says what the drawer does, so it takes no article.
    """
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
    """«a dog barking» for «dog barking»; empty if the name doesn't say who does it."""
    return f"{article(name)} {name}" if is_gerund(name) and _AGENT.match(name) else ""


def _scene_of_clause(name: str) -> str:
    """«a dog barking» for «a dog barks» or «a dog is barking»; empty if the name has no finite verb."""
    if auxiliary := _AUXILIARY.search(name):
        subject, rest = name[: auxiliary.start()], name[auxiliary.end() :]
        return rest if subject in {"it", "there"} else f"{subject} {rest}"
    *subject_words, last = words = split_head(name)[0].split(" ")
    after_head = name[len(" ".join(words)) :]
    if subject_words and _is_verb_of_plural(subject_words[-1], last):
        return " ".join([*subject_words, participle(last)]) + after_head
    for index in range(_WORDS_BEFORE_VERB.get(words[0], len(words)), len(words)):
        if is_plural(words[index]):  # after «a» there is no plural noun, so it is a verb
            subject_words = [] if words[0] == "it" else words[:index]
            return " ".join([*subject_words, participle(infinitive(words[index])), *words[index + 1 :]]) + after_head
    return ""


def _is_verb_of_plural(noun: str, word: str) -> bool:
    """Whether the word is the verb of a plural: in «dogs bark» it is, in «sports car» and «fireworks display» not."""
    return word in VERBS_OF_SOUND and noun not in PLURAL_MODIFIERS and is_plural(noun)
