from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from clapboard.labels.captions import RULES
from tests.support.text_models import save_random_t5, save_taught_t5
from training.captions.t5 import T5Captioner
from training.captions.text_generator import TextGenerator


class CountingGenerator(TextGenerator):
    """A real generator that remembers what it was asked."""

    asked: list[list[str]]

    def generate(self, prompts: list[str], *, num_variants: int = 1, seed: int = 0) -> list[tuple[str, ...]]:  # type: ignore[override]
        self.asked.append(list(prompts))
        return super().generate(prompts, num_variants=num_variants, seed=seed)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_taught_t5(tmp_path_factory.mktemp("taught"))


@pytest.fixture
def generator(folder: Path) -> CountingGenerator:
    loaded = CountingGenerator.load(str(folder))
    loaded.asked = []
    return loaded


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_the_model_writes_the_caption(generator: CountingGenerator, rng: np.random.Generator) -> None:
    captioner = T5Captioner(generator)
    assert captioner.caption(("Dog",), rng) == "A dog barks at the gate."
    assert captioner.caption(("dog", "rain"), rng) == "A dog barks in the rain."
    assert captioner.num_replaced == 0


def test_what_is_made_once_is_kept(generator: CountingGenerator, rng: np.random.Generator) -> None:
    captioner = T5Captioner(generator)
    captioner.prepare([("dog",), ("rain",), ("dog",), ("dog", "rain")])
    assert [len(prompts) for prompts in generator.asked] == [3]
    for _ in range(3):
        captioner.caption(("dog", "rain"), rng)
    captioner.prepare([("rain",)])
    assert [len(prompts) for prompts in generator.asked] == [3]


def test_relations_join_the_captions_of_single_keywords(generator: CountingGenerator, rng: np.random.Generator) -> None:
    captioner = T5Captioner(generator)
    assert captioner.caption(("dog", "rain"), rng, relation="sequence") == (
        "A dog barks at the gate, then rain is falling on a roof."
    )
    assert captioner.caption(("rain", "dog"), rng, relation="background") == (
        "Rain is falling on a roof, while in the background a dog barks at the gate."
    )


@pytest.mark.parametrize("relation", ["together", "sequence", "background"])
def test_a_caption_that_names_no_keyword_is_replaced_and_counted(generator: CountingGenerator, relation: str) -> None:
    captioner = T5Captioner(generator)
    keywords = ("church bell",) if relation == "together" else ("dog", "church bell")
    for number in range(1, 4):
        text = captioner.caption(keywords, np.random.default_rng(8), relation=relation)  # type: ignore[arg-type]
        assert "church bell" in text.lower()
        assert "somebody sings" not in text.lower()
        assert captioner.num_replaced == number


def test_replacements_are_rules_drawn_as_ever(generator: CountingGenerator) -> None:
    captioner = T5Captioner(generator)
    rng = np.random.default_rng(0)
    texts = {captioner.caption(("church bell",), rng) for _ in range(30)}
    assert len(texts) > 5
    rng = np.random.default_rng(0)
    rng.integers(1)  # which of the model's captions it would have been
    assert RULES.caption(("church bell",), rng) in texts


def test_variants_are_drawn_and_follow_from_the_seed(tmp_path: Path) -> None:
    generator = TextGenerator.load(str(save_random_t5(tmp_path)))

    def drawn(seed: int) -> list[str]:
        captioner = T5Captioner(generator, prefix="", num_variants=8, seed=seed)
        rng = np.random.default_rng(0)
        texts = [captioner.caption(("dog,", "rain", "falling", "song", "roof"), rng) for _ in range(40)]
        assert captioner.num_replaced < 40
        return texts

    assert drawn(1) == drawn(1)
    assert len(set(drawn(1))) > 5
    assert drawn(1) != drawn(2)


def test_the_prefix_is_the_callers(generator: CountingGenerator, rng: np.random.Generator) -> None:
    T5Captioner(generator, prefix="keywords to text: ").caption(("Dog_Bark", "HVAC"), rng)
    assert generator.asked == [["keywords to text: dog bark, HVAC"]]


def test_what_decides_on_the_captions_is_its_identity(folder: Path, tmp_path: Path) -> None:
    taught, other = TextGenerator.load(str(folder)), TextGenerator.load(str(save_random_t5(tmp_path)))
    known = T5Captioner(taught).identity
    assert T5Captioner(TextGenerator.load(str(folder))).identity == known
    changed = [T5Captioner(other), T5Captioner(taught, prefix="say: "), T5Captioner(taught, seed=1)]
    assert len({known, *(captioner.identity for captioner in changed)}) == 4
