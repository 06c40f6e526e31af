from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ClapFeatureExtractor

from clapboard.audio.log_mel import FLOOR, NUM_FRAMES, NUM_MELS, Filterbank, LogMel, mel_filterbank
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Waveform, repeat_pad, windows
from tests.support.recordings import sweep

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TOLERANCE_DB = 1e-3
TRUNCATION = {"slaney": "rand_trunc", "htk": "fusion"}
TIME_S = np.arange(WINDOW_SAMPLES) / SAMPLE_RATE
NOISE = np.random.default_rng(11).standard_normal(WINDOW_SAMPLES)


def tone(hz: float, amplitude: float = 1.0) -> Waveform:
    return (amplitude * np.sin(2 * np.pi * hz * TIME_S)).astype(np.float32)


def impulses(*places: int) -> Waveform:
    waveform = np.zeros(WINDOW_SAMPLES, np.float32)
    waveform[list(places)] = 1
    return waveform


WINDOWS: dict[str, Waveform] = {
    "sweep": sweep(10),
    "silence": np.zeros(WINDOW_SAMPLES, np.float32),
    "DC": np.ones(WINDOW_SAMPLES, np.float32),
    "noise": np.clip(NOISE, -1, 1).astype(np.float32),
    "faint noise": (1e-7 * NOISE).astype(np.float32),
    "one step of 16 bits": (np.round(NOISE) / 32768).astype(np.float32),
    "tone of 30 Hz": tone(30),
    "tone of 1000 Hz": tone(1000),
    "tone of 13990 Hz": tone(13_990),
    "tone of 23999 Hz": tone(23_999),
    "tone near the floor": tone(440, 1e-6),
    "loud beside quiet": tone(997) + np.float32(1e-6) * tone(8_000),
    "full-scale square": np.sign(tone(523)),
    "impulses": impulses(0, 100, 240_000, WINDOW_SAMPLES - 1),
    "one sample repeated": repeat_pad(np.float32([0.3])),
    "half second then zeros": np.pad(sweep(0.5), (0, WINDOW_SAMPLES - 24_000)),
    "subnormal": np.full(WINDOW_SAMPLES, 1e-40, np.float32),
}


@cache
def extractor(filterbank: Filterbank, min_hz: float) -> ClapFeatureExtractor:
    return ClapFeatureExtractor(frequency_min=min_hz, truncation=TRUNCATION[filterbank], padding="repeatpad")


def reference(waveform: Waveform, filterbank: Filterbank, min_hz: float) -> Waveform:
    features = extractor(filterbank, min_hz)(waveform, sampling_rate=SAMPLE_RATE, return_tensors="np")
    return np.asarray(features["input_features"])[0, 0]


def log_mel(waveform: Waveform, filterbank: Filterbank, min_hz: float = 50.0) -> Waveform:
    return np.asarray(LogMel(filterbank, min_hz=min_hz)(torch.from_numpy(waveform[None]))[0])


@pytest.mark.parametrize("filterbank", ["slaney", "htk"])
@pytest.mark.parametrize("window", WINDOWS)
def test_features_are_those_of_the_checkpoints_extractor(window: str, filterbank: Filterbank) -> None:
    found = log_mel(WINDOWS[window], filterbank)
    assert found.shape == (NUM_FRAMES, NUM_MELS)
    assert found.dtype == np.float32
    assert np.abs(found - reference(WINDOWS[window], filterbank, 50)).max() < TOLERANCE_DB


@pytest.mark.parametrize("filterbank", ["slaney", "htk"])
def test_a_checkpoint_may_begin_at_0_hz(filterbank: Filterbank) -> None:
    for waveform in (WINDOWS["sweep"], WINDOWS["DC"], WINDOWS["tone of 30 Hz"]):
        found = log_mel(waveform, filterbank, 0)
        assert np.abs(found - reference(waveform, filterbank, 0)).max() < TOLERANCE_DB
        assert np.abs(found - log_mel(waveform, filterbank, 50)).max() > 1


@pytest.mark.parametrize("filterbank", ["slaney", "htk"])
@pytest.mark.parametrize("min_hz", [0, 50])
def test_filterbanks_are_the_extractors(filterbank: Filterbank, min_hz: float) -> None:
    name = "mel_filters_slaney" if filterbank == "slaney" else "mel_filters"
    expected = getattr(extractor(filterbank, min_hz), name)
    np.testing.assert_allclose(mel_filterbank(filterbank, min_hz, 14_000), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("filterbank", ["slaney", "htk"])
def test_features_of_real_recordings_are_those_of_the_extractor(esc10: Path, filterbank: Filterbank) -> None:
    for path in sorted((esc10 / "audio").iterdir())[::40]:
        for window in windows(path):
            found = log_mel(window.waveform, filterbank)
            assert np.abs(found - reference(window.waveform, filterbank, 50)).max() < TOLERANCE_DB


def test_a_windows_features_dont_depend_on_its_batch() -> None:
    waveforms = torch.from_numpy(np.stack([WINDOWS["sweep"], WINDOWS["noise"], WINDOWS["impulses"]]))
    features = LogMel("slaney")
    batched = features(waveforms)
    for waveform, expected in zip(waveforms, batched, strict=True):
        np.testing.assert_allclose(features(waveform[None])[0], expected, atol=1e-5)


def test_silence_lies_at_the_floor() -> None:
    assert (log_mel(WINDOWS["silence"], "slaney") == np.float32(10 * np.log10(FLOOR))).all()


def test_features_keep_their_precision_under_autocast() -> None:
    features = LogMel("slaney")
    waveform = torch.from_numpy(WINDOWS["loud beside quiet"][None])
    with torch.autocast("cpu", torch.bfloat16):
        half = features(waveform)
    assert half.dtype == torch.float32
    np.testing.assert_array_equal(half, features(waveform))
