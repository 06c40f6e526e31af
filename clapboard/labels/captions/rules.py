"""Captions by rule: names from the table of wordings, or from the tag's own form, in frames that grammar fills."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

from clapboard.errors import ClapboardError
from clapboard.labels.captions.grammar import NUMBERS, article, is_plural, plural
from clapboard.labels.captions.tags import has_word, wording_of
from clapboard.labels.captions.wordings import WORDINGS, Wording
from clapboard.labels.prompts import TEMPLATE, prompts_for, spoken

if TYPE_CHECKING:
    import numpy as np

Relation = Literal["together", "sequence", "background"]
"""How several sounds relate: they happen at once, one after the other, or the first one in front of the others."""

_FRAMES = (
    "{}.",
    "{}",
    "The sound of {}.",
    "A sound of {}.",
    "This is the sound of {}.",
    "A recording of {}.",
    "We hear {}.",
    "I can hear {}.",
    "There {be} {}.",
    "{} in the distance.",
    "{} in the background.",
    "Sounds of {}.",
)
# An ensemble's frames: those that only say that there is the sound, and one for a faint sound.
_ENSEMBLE_FRAMES = (
    "{}.",
    "The sound of {}.",
    "A recording of {}.",
    "We hear {}.",
    "There {be} {}.",
    "{} in the background.",
)
_CLAUSE_FRAMES = ("{}.", "{}", "{} in the distance.", "{} in the background.")
_FRAMES_OF_SEVERAL: Mapping[Relation, tuple[str, ...]] = MappingProxyType(
    {
        "together": (
            "{all}.",
            "{first} with {rest}.",
            "{first} while there {be} {rest}.",
            "A sound of {all}.",
            "This is a sound of {all}.",
            "We hear {all}.",
        ),
        "background": (
            "{first} with {rest} in the background.",
            "{first}, and {rest} in the background.",
            "{first} with {rest} in the distance.",
            "{first} in the foreground, {rest} in the background.",
            "{first} and, more faintly, {rest}.",
        ),
        "sequence": (
            "{first}, then {later}.",
            "{first} followed by {later}.",
            "First {first}, then {to_last}.",
            "After {first} {comes} {later}.",
        ),
    }
)


class Captioner(Protocol):
    """Turns keywords into captions."""

    @property
    def identity(self) -> str:
        """Whatever decides the captions besides keywords and generator, as text."""
        ...

    def prepare(self, many: Iterable[Sequence[str]]) -> None:
        """Compute in batches what `caption` will need for each of these sequences of keywords."""
        ...

    def caption(self, keywords: Sequence[str], rng: np.random.Generator, *, relation: Relation = "together") -> str:
        """A caption for a recording with these keywords. The same keywords and generator give the same caption."""
        ...


class _Stateless:
    """A captioner without state, identified by its class, with nothing to prepare."""

    @property
    def identity(self) -> str:
        """The class's name."""
        return type(self).__name__

    def prepare(self, many: Iterable[Sequence[str]]) -> None:
        """Nothing."""


class RuleCaptioner(_Stateless):
    """Captions by grammar, made of the names that a table has for a keyword, or else of the keyword's own words."""

    def __init__(self, wordings: Mapping[str, Wording] = WORDINGS) -> None:
        self._wordings = wordings

    def caption(self, keywords: Sequence[str], rng: np.random.Generator, *, relation: Relation = "together") -> str:
        """One of many ways to say what there is; for a single keyword, a third of the time, the zero-shot prompt.

        With «background» the first keyword is in front; with «sequence» they follow each other in the order given.
        Raises `ClapboardError` if there is no keyword, or one without a word in it.
        """
        distinct = keywords_of(keywords, relation)
        if len(distinct) == 1:
            return self._of_one(self.wording(distinct[0]), rng)
        frame = _pick(_FRAMES_OF_SEVERAL[relation], rng)
        return sentence(_filled(frame, [_phrase(self.wording(keyword), rng) for keyword in distinct]))

    def wording(self, keyword: str) -> Wording:
        """The ways to name the keyword. Raises `ClapboardError` if there is no word in it."""
        return self._wordings.get(keyword) or self._wordings.get(spoken(keyword)) or wording_of(keyword)

    def _of_one(self, names: Wording, rng: np.random.Generator) -> str:
        draw = rng.random()
        if draw < 0.35:
            return TEMPLATE.format(_pick(names.all, rng))
        if draw < 0.5 and (names.countable or names.plurals):
            return sentence(_counted(names, rng))
        if draw < 0.65 and names.clauses:
            return sentence(_pick(_CLAUSE_FRAMES, rng).format(_pick(names.clauses, rng)))
        return _in_frame(_pick(_FRAMES, rng), _phrase(names, rng))


class KeywordsAlone(_Stateless):
    """Not captions but the keywords in lower case, to measure what captions gain."""

    def caption(self, keywords: Sequence[str], rng: np.random.Generator, *, relation: Relation = "together") -> str:
        """The keywords with commas between them; always the same text.

        Raises `ClapboardError` if there is no keyword, or one without a word in it.
        """
        return ", ".join(raw(keyword) for keyword in keywords_of(keywords, relation))


RULES: Captioner = RuleCaptioner()
"""The default captioner."""


def ensemble(label: str, synonyms: Sequence[str] = ()) -> tuple[str, ...]:
    """The texts whose mean embedding is the class's weight: its prompts, and captions of its name and synonyms.

    They are made of the label's own words, and don't vary. Raises `ClapboardError` if a name has no word in it.
    """
    names = [name for text in (label, *synonyms) for name in _ways_to_say(wording_of(text))]
    return tuple(dict.fromkeys([*prompts_for(label, synonyms), *names]))


def keywords_of(keywords: Sequence[str], relation: Relation) -> list[str]:
    """The keywords to caption: each once, however it is spelt; in a «sequence», all of them.

    Raises `ClapboardError` if there is none, or one without a word in it.
    """
    wordless = [f": “{keyword}” has none" for keyword in keywords if not has_word(keyword)]
    if wordless or not keywords:
        raise ClapboardError(
            f"A caption needs keywords with a word in each, such as “dog bark”{''.join(wordless[:1])}."
        )
    if relation == "sequence":
        return list(keywords)
    by_raw: dict[str, str] = {}
    for keyword in keywords:
        by_raw.setdefault(raw(keyword), keyword)
    return list(by_raw.values())


def raw(keyword: str) -> str:
    """The keyword as words in lower case: «dog bark» for `Dog_bark`. Equal ones name the same sound."""
    return spoken(unicodedata.normalize("NFC", keyword)).lower()


def sentence(text: str) -> str:
    """The text with a capital letter at its start."""
    return text[:1].upper() + text[1:]


def _ways_to_say(names: Wording) -> list[str]:
    texts = [TEMPLATE.format(name) for name in names.all]
    for name in names.all:
        phrase = _with_article(name, names)
        texts += [_in_frame(frame, phrase) for frame in _ENSEMBLE_FRAMES]
    several = [*map(plural, names.countable), *names.plurals]
    return texts + [f"Several {noun}." for noun in several] + [sentence(f"{clause}.") for clause in names.clauses]


def _phrase(names: Wording, rng: np.random.Generator) -> str:
    """A name as part of a sentence: «a dog bark», «rainfall», «a dog barking»."""
    return _with_article(_pick(names.all, rng), names)


def _with_article(name: str, names: Wording) -> str:
    return f"{article(name)} {name}" if name in names.countable else name


def _in_frame(frame: str, phrase: str) -> str:
    return sentence(frame.format(phrase, be="are" if is_plural(phrase) else "is"))


def _counted(names: Wording, rng: np.random.Generator) -> str:
    noun = _pick(names.countable + names.plurals, rng)
    if noun in names.plurals:
        return f"{_pick(NUMBERS[1:], rng)} {noun}."
    number = _pick(NUMBERS, rng)
    return f"{number} {noun if number == 'one' else plural(noun)}."


def _filled(frame: str, phrases: Sequence[str]) -> str:
    first, *rest = phrases
    *middle, last = rest
    return frame.format(
        first=first,
        rest=_listed(rest),
        all=_listed(phrases),
        later=", then ".join(rest),
        to_last=f"{', then '.join(middle)}, finally {last}" if middle else last,
        be="are" if middle or is_plural(last) else "is",
        comes="come" if is_plural(rest[0]) else "comes",
    )


def _listed(phrases: Sequence[str]) -> str:
    *front, last = phrases
    return f"{', '.join(front)} and {last}" if front else last


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
