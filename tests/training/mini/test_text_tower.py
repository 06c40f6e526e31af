from __future__ import annotations

import pytest
import torch

from clapboard.labels.captions import RULES
from training.mini.recipe import new_model
from training.mini.text_tower import caption_corpus, pretrain_texts
from training.pretraining.tokenizer import train_tokenizer

KINDS = ("bell", "rain")

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_texts_of_one_kind_move_together_before_any_sound() -> None:
    tokenizer = train_tokenizer(caption_corpus(KINDS, RULES, seed=0), vocab_size=400)
    torch.manual_seed(0)
    model = new_model(len(tokenizer), width=8, depths=(1, 1, 1, 1))

    def cosine(first: str, second: str) -> float:
        tokens = tokenizer([first, second], padding=True, return_tensors="pt")
        with torch.no_grad():
            left, right = model.eval().get_text_features(**tokens).pooler_output
        model.train()
        return float(left @ right)

    pretrain_texts(model, tokenizer, KINDS, RULES, steps=80, seed=0)
    assert cosine("This is a sound of rain.", "Heavy rain") > cosine("This is a sound of rain.", "A church bell") + 0.3
