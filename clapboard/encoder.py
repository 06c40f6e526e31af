"""The encoder that the settings name: one way to load it, for workers, commands and evaluation."""

from __future__ import annotations

from dataclasses import replace

import torch

from clapboard.clap import ClapEncoder
from clapboard.settings import Settings


def load_encoder(settings: Settings, name: str = "") -> ClapEncoder:
    """The settings' encoder, or another one of that name, on their device and in as many threads as they say.

    Raises `ModelError` if its checkpoint can't be read.
    """
    name = name or settings.model
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    encoder = ClapEncoder.load(
        settings.checkpoint(name),
        device=settings.device,
        dtype=settings.dtype,
        engine=settings.engine,
        batch_size=settings.batch_size,
        fusion=settings.fusion,
    )
    encoder.identity = replace(encoder.identity, model=name)
    return encoder
