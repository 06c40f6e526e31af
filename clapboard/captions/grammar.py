"""English words as captions need them: articles, plurals, participles, and what a noun phrase is by its form.

Word lists hold what the spelling doesn't tell, for the words that name sounds; everything else follows from the ending.
"""

from __future__ import annotations

import re

NUMBERS = ("one", "two", "three", "several", "many")

_VOWEL_SOUND = re.compile(
    r"(?!eu|ew|one\b|once\b|uni[ocqtsvf]|uku|us[aeu]|ut[ei])(?:[aeiou]|hour|honest|heir|x\b|mp3|8|11\b|18\b)"
)
_SPELT_WITH_VOWEL = frozenset("AEFHILMNORSX")  # an acronym is read letter by letter: «an HVAC unit», «a UPS»
_AFTER_HEAD = re.compile(
    r" (?:of|on|in|at|by|with|without|from|into|under|over|through|past|against|for|near|to|off|that|who|which)\b"
)
_ADVERBS_OF_GERUND = re.compile(
    r"(?<=ing)(?: (?:off|up|down|away|out|outside|inside|around|overhead|together|back|nearby|(?!family)\w{3,}ly))+$"
)

_IRREGULAR = {
    "child": "children",
    "person": "people",
    "foot": "feet",
    "goose": "geese",
    "mouse": "mice",
    "tooth": "teeth",
    "ox": "oxen",
    "quiz": "quizzes",
    "stomach": "stomachs",
    "hoof": "hooves",
    "echo": "echoes",
    "tornado": "tornadoes",
    "hero": "heroes",
    "potato": "potatoes",
} | {f"{stem}{f}": f"{stem}ves" for stem, f in (
    ("kni", "fe"), ("li", "fe"), ("wi", "fe"), ("wol", "f"), ("cal", "f"), ("hal", "f"), ("lea", "f"), ("loa", "f"),
    ("shel", "f"), ("thie", "f"), ("el", "f"), ("scar", "f"),
)}  # fmt: skip
_MAN = re.compile(r"^(?!human|german|roman|shaman|talisman|caiman)(\w*)man$")
_IRREGULAR_PLURALS = frozenset(_IRREGULAR.values()) | {"cattle", "poultry", "livestock", "police", "folk", "timpani"}
_SAME_IN_PLURAL = frozenset({"sheep", "deer", "fish", "aircraft", "hovercraft", "spacecraft", "series", "species"})
_SINGULAR_IN_S = frozenset({"gas", "lens", "canvas", "chaos", "news", "blues", "atlas", "bias", "christmas", "always"})
_NO_GERUNDS = frozenset({"building", "ceiling", "railing", "wedding", "meeting", "evening", "morning", "earring"}) | {
    "lightning", "clothing", "duckling", "gosling", "starling", "sibling", "something", "anything", "nothing",
    "everything",
}  # fmt: skip
_NO_GERUND = re.compile(r"(?:^[^aeiouy]*|str|spr)ing$")
_MASS = frozenset({
    "air", "ambience", "applause", "babble", "beatboxing", "birdsong", "bovinae", "brass", "breath", "canidae",
    "cardboard", "cattle", "cereal", "chaos", "chatter", "cloth", "clothes", "clothing", "commotion", "concrete",
    "cutlery", "dirt", "distortion", "dubstep", "dust", "electricity", "electronica", "equipment", "fabric",
    "feedback", "flamenco", "flour", "foil", "foliage", "food", "funk", "fur", "furniture", "garbage", "gas", "glass",
    "glassware", "grass", "gravel", "gunfire", "hail", "hair", "headphones", "hubbub", "ice", "indoors", "inside",
    "interference", "laughter", "leather", "lightning", "liquid", "livestock", "lumber", "machinery", "magma",
    "mastication", "metal", "mud", "music", "nature", "news", "noise", "ocean", "opera", "outdoors", "outside",
    "paper", "percussion", "plastic", "police", "popcorn", "poultry", "rain", "rainfall", "rap", "reverberation",
    "rice", "rubber", "salt", "sand", "scissors", "sea", "silence", "silverware", "sleet", "smoke", "snow", "speech",
    "static", "steam", "storytelling", "sugar", "surf", "thunder", "timber", "traffic", "turbulence", "vinyl",
    "water", "weather", "wildlife", "wind", "wood",
})  # fmt: skip
_TRANSITIVE = re.compile(
    r"(?:playing|using|eating|drinking|brushing|chopping|hitting|riding|driving|blowing|typing|hammering|shuffling|washing"
    r"|cutting|sharpening|planing|sanding|peeling|slicing|stirring|crumpling|sweeping|mowing|raking|shovelling|stapling"
    r"|zipping|unzipping|ironing|strumming|plucking|wrapping|unwrapping|scrubbing|vacuuming|feeding|milking) "
    r"(?!machine|board|line|tool)"
)
_HARD_CONSONANT = re.compile(r"^[^aeiou]*[aeiou][^aeiouwxy]$")


def article(noun: str) -> str:
    """«a» or «an», by the sound that the noun starts with."""
    first = noun.split(" ", 1)[0]
    if len(first) > 1 and first.isupper():
        return "an" if first[0] in _SPELT_WITH_VOWEL else "a"
    return "an" if _VOWEL_SOUND.match(noun.lower()) else "a"


def plural(noun: str) -> str:
    """The noun phrase in the plural; of «bark of a dog» the bark is counted, not the dog."""
    start, rest = split_head(noun)
    *modifiers, head = start.split(" ")
    return " ".join([*modifiers, _plural_of_word(head)]) + rest


def split_head(noun: str) -> tuple[str, str]:
    """The phrase up to its head, and what follows: («knock», « on a door»), («children playing», « outside»)."""
    after = _AFTER_HEAD.search(noun)
    start = noun[: after.start()] if after else noun
    start = _ADVERBS_OF_GERUND.sub("", start)
    return start, noun[len(start) :]


def is_gerund(noun: str) -> bool:
    """Whether the phrase is what somebody or something does: «dog barking», «walking on snow», not «phone ring»."""
    head = split_head(noun)[0].rsplit(" ", 1)[-1].lower()
    return head.endswith("ing") and head not in _NO_GERUNDS and not _NO_GERUND.search(head)


def has_object(noun: str) -> bool:
    """Whether it is something done to something: «washing dishes», not «washing machine» and «falling rocks»."""
    return bool(_TRANSITIVE.match(noun))


def is_plural(noun: str) -> bool:
    """Whether a verb after the phrase is in the plural: «church bells», «dogs barking», «waves on a beach»."""
    if has_object(noun):
        return False
    start = split_head(noun)[0]
    subject, _, _ = start.rpartition(" ")
    if is_gerund(start) and subject:
        return " and " in subject or is_plural(subject)
    return _is_plural_word(start.rsplit(" ", 1)[-1])


def is_mass(noun: str) -> bool:
    """Whether the phrase takes neither article nor number: «heavy rain», «dog barking», an acronym alone."""
    head = split_head(noun)[0].rsplit(" ", 1)[-1]
    acronym = noun.isupper() and " " not in noun
    return is_gerund(noun) or head.lower() in _MASS or acronym or not re.search(r"[^\W\d_]", noun)


def participle(verb: str) -> str:
    """What somebody who does it is doing: «bark» → «barking», «hum» → «humming», «close» → «closing»."""
    stem = verb
    if verb.endswith("ie"):
        stem = f"{verb[:-2]}y"
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        stem = verb[:-1]
    elif _HARD_CONSONANT.match(verb):
        stem += verb[-1]
    return f"{stem}ing"


def infinitive(verb: str) -> str:
    """The verb of «he barks»: «barks» → «bark», «flies» → «fly», «passes» → «pass»."""
    if verb.endswith("ies"):
        return verb[:-1] if len(verb) == 4 else f"{verb[:-3]}y"
    return verb[:-2] if verb.endswith(("shes", "ches", "xes", "sses", "zzes", "oes")) else verb[:-1]


def stem(word: str) -> str:
    """What the forms of a regular word have in common: «cri» of «cry», «cries», «cried» and «crying»."""
    bare = re.sub(r"(?<=[^aeiou]{2})(?:ing|ed|es)$|(?<=\w{3})(?:ing|ed|es|(?<!s)s|e)$", "", word)
    bare = re.sub(r"([^aeiouls])\1$", r"\1", bare)  # «running», but not «fall» and «pass»
    return f"{bare[:-1]}i" if bare.endswith("y") else bare


def _plural_of_word(noun: str) -> str:
    lowered = noun.lower()
    if lowered in _IRREGULAR:
        return _IRREGULAR[lowered]
    if lowered in _SAME_IN_PLURAL:
        return noun
    if man := _MAN.match(lowered):
        return f"{man[1]}men"
    if lowered.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if lowered.endswith("y") and lowered[-2:-1] not in {"a", "e", "i", "o", "u", ""}:
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _is_plural_word(word: str) -> bool:
    lowered = word.lower()
    if lowered in _IRREGULAR_PLURALS or re.fullmatch(r"\w*men", lowered):
        return lowered not in {"omen", "specimen", "regimen", "abdomen", "amen"}
    if lowered in _SINGULAR_IN_S or lowered in _SAME_IN_PLURAL or word.isupper() or len(word) < 3:
        return False
    return lowered.endswith("s") and not lowered.endswith(("ss", "us", "is", "'s"))
