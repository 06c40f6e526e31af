"""What happens before the first step of a pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.text_models import save_random_t5
from tests.training.corpus.recorded import no_label_studio, record
from training.captions.t5 import T5Captioner
from training.captions.text_generator import TextGenerator
from training.corpus.build import Plan as BuildPlan
from training.corpus.build import build
from training.corpus.filters import Rules
from training.corpus.sources import open_source
from training.pretrain import Schedule
from training.pretraining.run import Plan, UntrainedTowers, run


class CountingGenerator(TextGenerator):
    """A real generator that remembers what it was asked."""

    asked: list[list[str]]

    def generate(self, prompts: Sequence[str], *, num_variants: int = 1, seed: int = 0) -> list[tuple[str, ...]]:
        self.asked.append(list(prompts))
        return super().generate(prompts, num_variants=num_variants, seed=seed)


def test_a_text_model_writes_all_captions_at_once(tmp_path: Path) -> None:
    for seed, tag in enumerate(("dog", "dog", "rain", "owl")):
        record(tmp_path / "in" / tag / f"{seed}.wav", seed)
    build([open_source(str(tmp_path / "in"), no_label_studio)], tmp_path / "set", BuildPlan(Rules(), threads=1))
    generator = CountingGenerator.load(str(save_random_t5(tmp_path / "t5")))
    generator.asked = []
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "hidden_size": 16}
    towers = UntrainedTowers(
        "cnn14", "bert", 16, {"widths": [2, 2, 2, 2, 2, 2]}, sizes | {"max_position_embeddings": 80}
    )
    schedule = Schedule(epochs=1, warmup_epochs=0.5)
    run(Plan(tmp_path / "set", tmp_path / "run", towers, T5Captioner(generator, prefix=""), schedule, batch_size=2))
    assert generator.asked == [["dog", "owl", "rain"]]
