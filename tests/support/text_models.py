"""Very small T5 models in transformers' layout: one with random weights, one that knows a few captions by heart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

CAPTIONS: Mapping[str, str] = {
    "generate a sentence: dog, rain": "A dog barks in the rain",
    "generate a sentence: dog": "A dog barks at the gate.",
    "generate a sentence: rain": "Rain is falling on a roof",
    "generate a sentence: church bell": "Somebody sings a song.",
}


def save_random_t5(folder: Path) -> Path:
    """Write a T5 (0.06 M parameters) that writes nonsense into the folder, and return it."""
    return _save(folder, num_steps=0)


def save_taught_t5(folder: Path) -> Path:
    """Write a T5 that answers each prompt of `CAPTIONS` with its caption into the folder, and return it."""
    return _save(folder, num_steps=60)


def _save(folder: Path, num_steps: int) -> Path:
    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=64,
                d_kv=16,
                d_ff=128,
                num_layers=1,
                num_heads=2,
                dropout_rate=0.0,
                decoder_start_token_id=0,
            )
        )
        _teach(model, tokenizer, num_steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _teach(model: T5ForConditionalGeneration, tokenizer: T5Tokenizer, num_steps: int) -> None:
    prompts = tokenizer(list(CAPTIONS), padding=True, return_tensors="pt")
    labels = tokenizer(list(CAPTIONS.values()), padding=True, return_tensors="pt")["input_ids"]
    labels[labels == tokenizer.pad_token_id] = -100
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(num_steps):
        loss = model(input_ids=prompts["input_ids"], attention_mask=prompts["attention_mask"], labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _tokenizer() -> T5Tokenizer:
    """Whole words are its pieces, with «▁» for the space before them; another word is unknown, letter by letter."""
    words = sorted({word for text in [*CAPTIONS, *CAPTIONS.values()] for word in text.split()})
    special = ["<pad>", "</s>", "<unk>"]  # T5's order
    return T5Tokenizer(vocab=[(piece, 0.0) for piece in special] + [(f"▁{word}", -1.0) for word in words], extra_ids=0)
