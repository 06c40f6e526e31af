"""Writes captions from keywords with a text-to-text model (keyword-to-caption, Wu et al. 2023, arXiv 2211.06687)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from clapboard.labels.captions.grammar import plural, stem
from clapboard.labels.captions.rules import RULES, Captioner, Relation, keywords_of, sentence
from clapboard.labels.captions.tags import names_of
from clapboard.labels.prompts import spoken
from training.captions.text_generator import TextGenerator

PREFIX = "generate a sentence: "

_NO_CONTENT = frozenset({"a", "an", "and", "at", "by", "from", "in", "of", "on", "or", "the", "to", "with", "without"})


class T5Captioner:
    """Writes captions with a model and caches them. Those that name none of the keywords are replaced and counted."""

    def __init__(
        self,
        generator: TextGenerator,
        *,
        prefix: str = PREFIX,
        num_variants: int = 1,
        seed: int = 0,
        otherwise: Captioner = RULES,
    ) -> None:
        """`num_variants` captions are generated for the same keywords; more than one are sampled with `seed`."""
        self.num_replaced = 0
        """The number of captions written by `otherwise`, because the model's were empty or named no keyword."""
        self._generator = generator
        self._prefix = prefix
        self._num_variants = num_variants
        self._seed = seed
        self._otherwise = otherwise
        self._cached: dict[str, tuple[str, ...]] = {}  # by prompt

    @property
    def identity(self) -> str:
        """Identifies what decides the captions: the model, the prefix, the number of variants and the seed."""
        return repr((self._generator.version, self._prefix, self._num_variants, self._seed))

    def prepare(self, many: Iterable[Sequence[str]]) -> None:
        """Generates the captions of many sets of keywords in batches, so that `caption` finds them in the cache."""
        prompts = {self._prompt(keywords_of(keywords, "together")) for keywords in many}
        if missing := sorted(prompts - self._cached.keys()):
            self._generate(missing)

    def caption(self, keywords: Sequence[str], rng: np.random.Generator, *, relation: Relation = "together") -> str:
        """One of the model's captions. “sequence” and “background” join the captions of the single keywords.

        Raises `ClapboardError` if there are no keywords, or one has no word in it.
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
        """One of the model's captions at random; empty if it names none of the keywords."""
        prompt = self._prompt(keywords)
        if prompt not in self._cached:
            self._generate([prompt])
        captions = self._cached[prompt]
        text = captions[int(rng.integers(len(captions)))]
        return text if any(_is_named(keyword, text) for keyword in keywords) else ""

    def _generate(self, prompts: Sequence[str]) -> None:
        generated = self._generator.generate(prompts, num_variants=self._num_variants, seed=self._seed)
        for prompt, texts in zip(prompts, generated, strict=True):
            self._cached[prompt] = tuple(" ".join(text.split()) for text in texts)

    def _prompt(self, keywords: Sequence[str]) -> str:
        return self._prefix + ", ".join(spoken(keyword) for keyword in keywords)


def _is_named(keyword: str, text: str) -> bool:
    """Whether the text has all words of one of the keyword's names, in any form: “barks” for “dog_barking”."""
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
