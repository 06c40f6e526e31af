"""The encoder that the settings name: the one way in which workers, commands and evaluation load it."""

from __future__ import annotations

from dataclasses import replace

import torch

from clapboard.model.clap import ClapEncoder
from clapboard.settings import Settings


def load_encoder(settings: Settings, name: str = "") -> ClapEncoder:
    """The settings' encoder, or the one of another `name`, on the device and with the threads that the settings give.

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
        calibration=settings.calibration_dir(name),
    )
    encoder.identity = replace(encoder.identity, model=name)
    return encoder
