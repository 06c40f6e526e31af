"""Trains a byte-level BPE tokenizer in the layout that transformers reads for CLAP (RoBERTa's)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaTokenizer

MAX_TOKENS = 62
_SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # RoBERTa's order: <s> is 0, <pad> 1, </s> 2


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1500, *, max_tokens: int = MAX_TOKENS) -> RobertaTokenizer:
    """A tokenizer trained on the texts; words that aren't in them are split into smaller pieces, down to bytes."""
    learner = ByteLevelBPETokenizer(add_prefix_space=True)
    learner.train_from_iterator(texts, vocab_size, min_frequency=2, show_progress=False, special_tokens=_SPECIAL_TOKENS)
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return RobertaTokenizer(
        vocab=model["vocab"], merges=merges, add_prefix_space=True, model_max_length=max_tokens, padding_side="right"
    )
