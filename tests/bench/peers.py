"""Others who make embeddings of the same windows: transformers in three ways, and laion-clap's audio branch.

All run in float32 on as many threads as ours. laion-clap can't be imported without a hub, from which it fetches
tokenizers, so its HTSAT module, with the mel front-end that is part of it, is taken from its files by itself.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import PathDistribution, version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel, pipeline

from clapboard.audio.windows import SAMPLE_RATE, Waveform

TRANSFORMERS = f"transformers {version('transformers')}"
PEERS_FOLDER = Path(sys.prefix) / "peers"
"""Where `make bench` puts what can't be installed beside us."""

CANDIDATE_LABELS = (
    "dog",
    "rain",
    "clock",
    "tick",
    "a dog",
    "a clock",
    "a tick",
    "clock tick",
    "dog rain",
    "rain tick",
)
"""Of words that the random checkpoint's tokenizer knows: spelt out in letters, others would be longer than they are."""

Embed = Callable[[], torch.Tensor]
"""Embeds the windows it was made for: unit-norm `[N, D]`."""


class Transformers:
    """A CLAP model as transformers runs it."""

    def __init__(self, checkpoint: Path) -> None:
        self._extractor = ClapFeatureExtractor.from_pretrained(checkpoint)
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._model = ClapModel.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def by_hand(self, windows: Waveform) -> Embed:
        """All windows in one batch, as somebody would write it who knows the library."""

        def embed() -> torch.Tensor:
            return self._embed(list(windows))

        return embed

    def one_by_one(self, windows: Waveform) -> Embed:
        """Window after window: what the pipeline does to the audio, without its text tower."""

        def embed() -> torch.Tensor:
            return torch.cat([self._embed([window]) for window in windows])

        return embed

    def through_pipeline(self, windows: Waveform) -> Callable[[], object]:
        """The zero-shot pipeline as a user calls it, text tower included, which it runs anew for each file."""
        classify: Any = pipeline(
            "zero-shot-audio-classification",
            model=self._model,
            tokenizer=self._tokenizer,
            feature_extractor=self._extractor,
            device="cpu",
        )

        def predict() -> object:
            return [classify(window, candidate_labels=list(CANDIDATE_LABELS)) for window in windows]

        return predict

    @torch.inference_mode()
    def _embed(self, windows: list[Waveform]) -> torch.Tensor:
        features = self._extractor(windows, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        embeddings: torch.Tensor = self._model.get_audio_features(features["input_features"]).pooler_output
        return embeddings


class LaionClap:
    """laion-clap's HTSAT-tiny with its projection; its weights are random too, and its own."""

    def __init__(self, folder: Path = PEERS_FOLDER) -> None:
        """Raises `ImportError` where it isn't installed, or something that it imports."""
        clap_module = folder / "laion_clap" / "clap_module"
        if not clap_module.is_dir():
            raise ImportError("laion-clap is not installed: run `make bench`.")
        htsat = import_alone(clap_module, "htsat")
        config = json.loads((clap_module / "model_configs" / "HTSAT-tiny.json").read_text("utf-8"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch deprecates
            self._htsat = htsat.create_htsat_model(SimpleNamespace(**config["audio_cfg"])).eval()
        joint = 512  # as in its `CLAP`
        self._projection = torch.nn.Sequential(
            torch.nn.Linear(config["embed_dim"], joint), torch.nn.ReLU(), torch.nn.Linear(joint, joint)
        )

    def batched(self, windows: Waveform) -> Embed:
        """All windows in one batch: waveform → its own log-mel → HTSAT → projection."""
        waveforms = torch.from_numpy(windows)

        @torch.inference_mode()
        def embed() -> torch.Tensor:
            pooled = self._htsat({"waveform": waveforms}, device=waveforms.device)["embedding"]
            return torch.nn.functional.normalize(self._projection(pooled), dim=-1)

        return embed


def laion_clap_version(folder: Path = PEERS_FOLDER) -> str:
    """Its version; empty where it isn't installed."""
    found = next(folder.glob("laion_clap-*.dist-info"), None)
    return PathDistribution(found).version if found else ""


def import_alone(package: Path, name: str) -> ModuleType:
    """A module of the package, whose own `__init__` doesn't run."""
    alias = f"{package.parent.name}_{package.name}_alone"
    if alias not in sys.modules:
        sys.modules[alias] = ModuleType(alias)
        sys.modules[alias].__path__ = [str(package)]
    return importlib.import_module(f"{alias}.{name}")
