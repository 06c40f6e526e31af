from __future__ import annotations

from clapboard.labels.captions import RULES
from training.mini.text_tower import caption_corpus
from training.pretraining.tokenizer import train_tokenizer


def test_the_tokenizer_gives_back_any_text() -> None:
    tokenizer = train_tokenizer(caption_corpus(("bell", "rain"), RULES, seed=0), vocab_size=400)
    for text in ("This is a sound of rain.", "Größe 東京 🎺"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text
    assert len(tokenizer.tokenize("This is a sound of rain.")) <= 8


def test_no_text_is_longer_than_the_model_can_take() -> None:
    tokenizer = train_tokenizer(["a bell"], vocab_size=300, max_tokens=9)
    assert len(tokenizer("a bell " * 40, truncation=True)["input_ids"]) == 9
