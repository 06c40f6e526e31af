"""An encoder and windows of audio → its calibration for int8."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from clapboard.audio.windows import Waveform
from clapboard.errors import ModelError
from clapboard.model.htsat import Htsat
from clapboard.model.htsat.engines import AudioTower, load_int8_tower
from clapboard.model.int8.calibration import Calibration, content_of

if TYPE_CHECKING:
    from clapboard.model.clap import ClapEncoder

LEAST_WINDOWS, MOST_WINDOWS = 16, 300
"""Fewer windows don't show the range of activations; more don't change it."""

LEAST_MEAN_COSINE = 0.99
"""To float32, on average over the windows that weren't calibrated on. Measured: 0.9998."""

_QUANTISER = Path(__file__).with_name("quantiser.py")
_EVERY_CHECKED = 5  # every fifth window isn't calibrated on

log = logging.getLogger(__name__)


def calibrate(encoder: ClapEncoder, windows: Sequence[Waveform], folder: Path) -> Calibration:
    """Quantise the tower of a float32 encoder by windows `[480000]`, and publish it in the folder.

    Raises `ModelError` if the windows are too few, NNCF isn't installed or fails, or the vectors are too far from those
    in float32. What the folder held before stays then.
    """
    reference = encoder.model.audio_model.audio_encoder
    if not hasattr(reference, "patch_embed") or reference.config.enable_fusion:
        raise ModelError(
            f"Model {encoder.identity.model} can't be computed in int8, which is for HTSAT without feature fusion: set "
            "CLAPBOARD_DTYPE to auto."
        )
    if importlib.util.find_spec("nncf") is None:
        raise ModelError("Calibrating for int8 needs NNCF: run `pip install 'clapboard[int8]'`.")
    if len(windows) < LEAST_WINDOWS:
        raise ModelError(
            f"Calibrating for int8 needs {LEAST_WINDOWS} windows of audio or more, and there are {len(windows)}: add "
            "recordings."
        )
    windows = windows[:MOST_WINDOWS]
    checked = [*windows[::_EVERY_CHECKED]]
    learnt = [window for index, window in enumerate(windows) if index % _EVERY_CHECKED]
    from clapboard.model.htsat.openvino import save_float32_model

    with tempfile.TemporaryDirectory(prefix="clapboard-int8-") as name:
        building = Path(name)
        save_float32_model(reference, building / "float32.xml")
        np.save(building / "patches.npy", _patches(encoder, learnt))
        _quantise(building)
        model_file = building / "int8.xml"
        probe = _average(encoder, learnt)
        np.save(model_file.with_suffix(".npy"), probe.numpy())
        tower = load_int8_tower(reference, model_file, probe, "openvino")
        cosines = _cosines(encoder, tower, checked)
        mean, least = float(cosines.mean()), float(cosines.min())
        log.info("int8 after %d windows: cosines to float32 %.4f on average, %.4f at least", len(learnt), mean, least)
        if mean < LEAST_MEAN_COSINE:
            raise ModelError(
                f"In int8, {encoder.identity.model} gives vectors too far from those in float32 (a cosine of "
                f"{mean:.3f} on average): add recordings, or set CLAPBOARD_DTYPE to auto."
            )
        found = Calibration(encoder.identity.version, content_of(model_file), len(learnt), mean, least)
        found.publish(folder, model_file)
    return found


@torch.inference_mode()
def _patches(encoder: ClapEncoder, windows: Sequence[Waveform]) -> npt.NDArray[np.float32]:
    """The windows as the compiled part gets them, `[N, G, 1, S, P²]`."""
    tower = Htsat(encoder.model.audio_model.audio_encoder)
    return np.stack([tower.patches(encoder.log_mel(torch.from_numpy(window)[None])).numpy() for window in windows])


@torch.inference_mode()
def _average(encoder: ClapEncoder, windows: Sequence[Waveform]) -> torch.Tensor:
    """The mean log-mel of the windows `[1, 1001, 64]`: within their range, but nothing that anybody recorded."""
    total = sum(encoder.log_mel(torch.from_numpy(window)[None]) for window in windows)
    return torch.as_tensor(total) / len(windows)


@torch.inference_mode()
def _cosines(encoder: ClapEncoder, tower: AudioTower, windows: Sequence[Waveform]) -> npt.NDArray[np.float32]:
    """Of each window in int8 to the same in float32, `[N]`."""
    features = encoder.log_mel(torch.from_numpy(np.stack(windows)))
    vectors = torch.nn.functional.normalize(encoder.model.audio_projection(tower(features)), dim=-1).numpy()
    cosines: npt.NDArray[np.float32] = (vectors * encoder.embed_windows(np.stack(windows))).sum(axis=1)
    return cosines


def _quantise(folder: Path) -> None:
    """Raises `ModelError` if the process fails; its last words are in the log."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", str(_QUANTISER), str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        log.warning("NNCF failed: %s", done.stderr.strip().rpartition("\n")[2])
        raise ModelError("NNCF can't quantise this model here: look at the log, or set CLAPBOARD_DTYPE to auto.")
