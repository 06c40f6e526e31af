"""Keywords → captions by a text-to-text model: keyword-to-caption of Wu et al. 2023, arXiv 2211.06687."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from clapboard.captions.grammar import plural, stem
from clapboard.captions.rules import RULES, Captioner, Relation, keywords_of, sentence
from clapboard.captions.tags import names_of
from clapboard.captions.text_generator import TextGenerator
from clapboard.prompts import spoken

PREFIX = "generate a sentence: "

_NO_CONTENT = frozenset({"a", "an", "and", "at", "by", "from", "in", "of", "on", "or", "the", "to", "with", "without"})


class T5Captioner:
    """Captions by a model, kept once they are made; those that name none of the keywords are replaced and counted."""

    def __init__(
        self,
        generator: TextGenerator,
        *,
        prefix: str = PREFIX,
        num_variants: int = 1,
        seed: int = 0,
        otherwise: Captioner = RULES,
    ) -> None:
        """`num_variants` captions are made of the same keywords, samples by `seed` if it is more than one."""
        self.num_replaced = 0
        """Captions that `otherwise` gave, because the model's was empty or named none of the keywords."""
        self._generator = generator
        self._prefix = prefix
        self._num_variants = num_variants
        self._seed = seed
        self._otherwise = otherwise
        self._made: dict[str, tuple[str, ...]] = {}  # by prompt

    @property
    def identity(self) -> str:
        """What decides on the captions: model, prefix, how many there are to choose from, and the seed they follow."""
        return repr((self._generator.version, self._prefix, self._num_variants, self._seed))

    def prepare(self, many: Iterable[Sequence[str]]) -> None:
        """Makes captions of many keywords in batches, so that `caption` finds them."""
        prompts = {self._prompt(keywords_of(keywords, "together")) for keywords in many}
        if missing := sorted(prompts - self._made.keys()):
            self._make(missing)

    def caption(self, keywords: Sequence[str], rng: np.random.Generator, *, relation: Relation = "together") -> str:
        """One of the model's captions. «sequence» and «background» join the captions of the single keywords.

        Raises `ClapboardError` if there is no keyword, or one without a word in it.
        """
        named = keywords_of(keywords, relation)
        if relation == "together" or len(named) == 1:
            parts = [self._drawn(named, rng)]
        else:
            parts = [self._drawn([keyword], rng) for keyword in named]
        if all(parts):
            return _joined(parts, relation)
        self.num_replaced += 1
        return self._otherwise.caption(keywords, rng, relation=relation)

    def _drawn(self, keywords: Sequence[str], rng: np.random.Generator) -> str:
        """One of the model's captions; empty where it is no use."""
        prompt = self._prompt(keywords)
        if prompt not in self._made:
            self._make([prompt])
        made = self._made[prompt]
        text = made[int(rng.integers(len(made)))]
        return text if any(_is_named(keyword, text) for keyword in keywords) else ""

    def _make(self, prompts: Sequence[str]) -> None:
        made = self._generator.generate(prompts, num_variants=self._num_variants, seed=self._seed)
        for prompt, texts in zip(prompts, made, strict=True):
            self._made[prompt] = tuple(" ".join(text.split()) for text in texts)

    def _prompt(self, keywords: Sequence[str]) -> str:
        return self._prefix + ", ".join(spoken(keyword) for keyword in keywords)


def _is_named(keyword: str, text: str) -> bool:
    """Whether the text has all words of one of the keyword's names, in whatever form: «barks» for «dog_barking»."""
    words = re.findall(r"\w+", text.lower())
    stems = {stem(word) for word in words} | set(words)
    return any(
        all(stem(word) in stems or plural(word) in stems for word in name.lower().split() if word not in _NO_CONTENT)
        for name in names_of(keyword)
    )


def _joined(captions: Sequence[str], relation: Relation) -> str:
    first, *others = [caption.rstrip(" .") for caption in captions]
    later = [_within_sentence(other) for other in others]
    if later and relation == "background":
        return sentence(f"{first}, while in the background {' and '.join(later)}.")
    return sentence(f"{', then '.join([first, *later])}.")


def _within_sentence(text: str) -> str:
    return text if text.startswith("I ") or text[1:2].isupper() else text[:1].lower() + text[1:]
