"""English grammar for captions: articles, plurals, verb forms, and what kind of noun phrase a name is.

The phrases are names of sounds as people write them: «dog barking», «knock on a door», «church bells». Rules go by
spelling; `lexicon` lists the words for which that isn't enough. A wrong guess costs an odd caption, no more.
"""

from __future__ import annotations

import re

from clapboard.labels.captions.lexicon import (
    IRREGULAR_PLURALS,
    MASS_NOUNS,
    NOUNS_IN_ING,
    PLURALS_WITHOUT_S,
    SAME_IN_PLURAL,
    SINGULAR_IN_MEN,
    SINGULAR_IN_S,
    TRANSITIVE_GERUNDS,
)

NUMBERS = ("one", "two", "three", "several", "many")

# Articles

_VOWEL_SOUND = re.compile(
    r"""
    (?! eu | ew | one\b | once\b | uni[ocqtsvf] | uku | us[aeu] | ut[ei] )  # vowels spoken like «you» or «won»
    (?: [aeiou]
      | hour | honest | heir         # the h is silent
      | x\b | mp3 | 8 | 11\b | 18\b  # spoken «ex», «em», «eight» …
    )
    """,
    re.VERBOSE,
)
_LETTERS_WITH_VOWEL_SOUND = frozenset("AEFHILMNORSX")  # «an F», «an S»


def article(noun: str) -> str:
    """«a» or «an», by the sound that the phrase begins with: «an hour», «a unicycle», «an HVAC unit», «a UPS»."""
    first = noun.split(" ", 1)[0]
    if len(first) > 1 and first.isupper():  # an acronym is read letter by letter
        return "an" if first[0] in _LETTERS_WITH_VOWEL_SOUND else "a"
    return "an" if _VOWEL_SOUND.match(noun.lower()) else "a"


# The head of a phrase: «knock» in «knock on a door»

_AFTER_HEAD = re.compile(
    r" (?:of|on|in|at|by|with|without|from|into|under|over|through|past|against|for|near|to|off|that|who|which)\b"
)
_ADVERBS_AFTER_GERUND = re.compile(
    r"(?<=ing)(?: (?:off|up|down|away|out|outside|inside|around|overhead|together|back|nearby|(?!family)\w{3,}ly))+$"
)


def split_head(noun: str) -> tuple[str, str]:
    """The phrase up to its head, and the rest: («knock», « on a door»), («children playing», « outside»)."""
    after_head = _AFTER_HEAD.search(noun)
    start = noun[: after_head.start()] if after_head else noun
    start = _ADVERBS_AFTER_GERUND.sub("", start)
    return start, noun[len(start) :]


def _head(noun: str) -> str:
    """The phrase's main word."""
    return split_head(noun)[0].rsplit(" ", 1)[-1]


# Kinds of phrases

_NO_GERUND = re.compile(r"(?:^[^aeiouy]*|str|spr)ing$")  # «ring», «string», «spring»
_LETTER = re.compile(r"[^\W\d_]")


def is_gerund(noun: str) -> bool:
    """Whether the phrase is an action: «dog barking» and «walking on snow» are, «phone ring» isn't."""
    head = _head(noun).lower()
    return head.endswith("ing") and head not in NOUNS_IN_ING and not _NO_GERUND.search(head)


def has_object(noun: str) -> bool:
    """Whether the phrase is an action with its object: «washing dishes», not «washing machine» or «falling rocks»."""
    gerund, space, rest = noun.partition(" ")
    is_tool = rest.startswith(("machine", "board", "line", "tool"))
    return gerund in TRANSITIVE_GERUNDS and bool(space) and not is_tool


def is_plural(noun: str) -> bool:
    """Whether a verb after the phrase is in the plural: «church bells», «dogs barking», «waves on a beach»."""
    if has_object(noun):
        return False
    start = split_head(noun)[0]
    subject, _, head = start.rpartition(" ")
    if is_gerund(start) and subject:
        return " and " in subject or is_plural(subject)
    return _is_plural_word(head)


def is_mass(noun: str) -> bool:
    """Whether the phrase takes neither article nor number: «heavy rain», «dog barking», an acronym alone."""
    is_acronym = noun.isupper() and " " not in noun
    return is_gerund(noun) or _head(noun).lower() in MASS_NOUNS or is_acronym or not _LETTER.search(noun)


# Plurals

_COMPOUND_OF_MAN = re.compile(r"^(?!human|german|roman|shaman|talisman|caiman)(\w*)man$")
_IN_MEN = re.compile(r"\w*men")
_IRREGULAR_PLURAL_FORMS = PLURALS_WITHOUT_S.union(IRREGULAR_PLURALS.values())


def plural(noun: str) -> str:
    """The phrase with its head in the plural: «barks of a dog», «knocks on a door»."""
    start, rest = split_head(noun)
    *modifiers, head = start.split(" ")
    return " ".join([*modifiers, _plural_of_word(head)]) + rest


def _plural_of_word(noun: str) -> str:
    lowered = noun.lower()
    if lowered in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[lowered]
    if lowered in SAME_IN_PLURAL:
        return noun
    if compound := _COMPOUND_OF_MAN.match(lowered):
        return f"{compound[1]}men"
    if lowered.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if lowered.endswith("y") and lowered[-2:-1] not in {"a", "e", "i", "o", "u", ""}:
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _is_plural_word(word: str) -> bool:
    lowered = word.lower()
    if lowered in _IRREGULAR_PLURAL_FORMS or _IN_MEN.fullmatch(lowered):
        return lowered not in SINGULAR_IN_MEN
    if lowered in SINGULAR_IN_S or lowered in SAME_IN_PLURAL or word.isupper() or len(word) < 3:
        return False
    return lowered.endswith("s") and not lowered.endswith(("ss", "us", "is", "'s"))


# Verb forms

_DOUBLES_LAST_LETTER = re.compile(r"^[^aeiou]*[aeiou][^aeiouwxy]$")  # one short vowel and a consonant: «hum», «stop»
_ENDING = re.compile(r"(?<=[^aeiou]{2})(?:ing|ed|es)$|(?<=\w{3})(?:ing|ed|es|(?<!s)s|e)$")
_DOUBLED_LETTER = re.compile(r"([^aeiouls])\1$")  # of «running»; «fall» and «pass» keep theirs


def participle(verb: str) -> str:
    """The verb's form in «ing»: «bark» → «barking», «hum» → «humming», «close» → «closing», «die» → «dying»."""
    root = verb
    if verb.endswith("ie"):
        root = f"{verb[:-2]}y"
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        root = verb[:-1]
    elif _DOUBLES_LAST_LETTER.match(verb):
        root += verb[-1]
    return f"{root}ing"


def infinitive(verb: str) -> str:
    """The verb of «he barks»: «barks» → «bark», «flies» → «fly», «passes» → «pass»."""
    if verb.endswith("ies"):
        return verb[:-1] if len(verb) == 4 else f"{verb[:-3]}y"  # «dies», «flies»
    return verb[:-2] if verb.endswith(("shes", "ches", "xes", "sses", "zzes", "oes")) else verb[:-1]


def stem(word: str) -> str:
    """What the forms of a regular word have in common: «cri» of «cry», «cries», «cried» and «crying»."""
    root = _DOUBLED_LETTER.sub(r"\1", _ENDING.sub("", word))
    return f"{root[:-1]}i" if root.endswith("y") else root
