"""Generates sentences with a text-to-text model such as T5: the same prompt and seed always give the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from clapboard.errors import ModelError
from clapboard.model.checkpoints import fingerprint

_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
_HUB_FILES = ("*.json", "*.safetensors", *_TOKENIZER_FILES)
_MAX_NEW_TOKENS = 48  # three times what a caption takes
_TOP_P = 0.9


class TextGenerator:
    """An encoder-decoder with its tokenizer, on a device."""

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 32, version: str = "") -> None:
        self.version = version
        """Hex digits over the model's files; empty if it wasn't loaded from files."""
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batch_size = batch_size

    @classmethod
    def load(cls, model: str, *, device: str = "cpu", batch_size: int = 32) -> Self:
        """Loads a model from a local folder or by its hub id. Raises `ModelError` if it can't be fetched or read."""
        folder = _folder(model)
        if not any(
            (folder / name).is_file() for name in _TOKENIZER_FILES
        ):  # without it, transformers would make one up
            raise ModelError(f"Text model {model} has no tokenizer: copy its tokenizer.json into the folder.")
        if not list(folder.glob("*.safetensors")):
            raise ModelError(f"Text model {model} has no safetensors weights: convert it with save_pretrained.")
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        try:
            is_text_to_text = AutoConfig.from_pretrained(folder, local_files_only=True).is_encoder_decoder
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            if is_text_to_text:
                loaded, report = AutoModelForSeq2SeqLM.from_pretrained(
                    folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
                )
        except Exception as error:  # of any class: each underlying reader raises its own
            raise ModelError(f"Text model {model} can't be read: its files are damaged or don't fit.") from error
        if not is_text_to_text:
            raise ModelError(f"Text model {model} doesn't turn text into text: use one such as T5.")
        if report["missing_keys"] or report["mismatched_keys"]:
            raise ModelError(f"Text model {model} lacks weights that its config asks for: it is damaged.")
        return cls(loaded.to(device), tokenizer, batch_size=batch_size, version=fingerprint(folder))

    def generate(self, prompts: Sequence[str], *, num_variants: int = 1, seed: int = 0) -> list[tuple[str, ...]]:
        """`num_variants` texts for each prompt: the likeliest if it is 1, else samples by prompt and seed."""
        if num_variants > 1:
            return [self._sampled(prompt, num_variants, seed) for prompt in prompts]
        batches = (prompts[start : start + self._batch_size] for start in range(0, len(prompts), self._batch_size))
        return [(text,) for batch in batches for text in self._texts(batch)]

    def _sampled(self, prompt: str, num_variants: int, seed: int) -> tuple[str, ...]:
        """Samples for one prompt, with random numbers that depend on no other prompt."""
        digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
        device = self._model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            return tuple(self._texts([prompt], do_sample=True, top_p=_TOP_P, num_return_sequences=num_variants))

    @torch.inference_mode()
    def _texts(self, prompts: Sequence[str], **options: Any) -> list[str]:
        tokens = self._tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        generated = self._model.generate(
            input_ids=tokens["input_ids"].to(self._model.device),
            attention_mask=tokens["attention_mask"].to(self._model.device),
            **{"do_sample": False, "num_beams": 1, "max_new_tokens": _MAX_NEW_TOKENS} | options,
        )
        texts: list[str] = self._tokenizer.batch_decode(generated, skip_special_tokens=True)
        return texts


def _folder(model: str) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.startswith((".", "/", "~")):
        raise ModelError(f"Text model folder {model} doesn't exist: check its path.")
    try:
        return Path(snapshot_download(model, allow_patterns=list(_HUB_FILES)))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            f"Text model {model} is not on this machine and can't be fetched from the hub: copy its folder here and "
            "name that folder."
        ) from error
