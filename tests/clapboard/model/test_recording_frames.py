from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from clapboard.audio.levels import NUM_BANDS, NUM_ROWS, decibels, powers
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Waveform, overlapping_windows, windows
from clapboard.errors import AudioError
from clapboard.model.clap import ClapEncoder, WindowFrames
from clapboard.model.recording_frames import embed_recording
from tests.support.recordings import Samples, sweep

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@dataclass
class TellTale:
    """An encoder whose frames tell what is in them: for each its mean, that of its window's first and last sample."""

    num_frames: int
    frame_samples: int = 0
    batch_size: int = 3

    @property
    def frame_s(self) -> float:
        return (self.frame_samples or WINDOW_SAMPLES // self.num_frames) / SAMPLE_RATE

    def embed_windows_with_frames(self, waveforms: list[Waveform]) -> WindowFrames:
        assert 0 < len(waveforms) <= self.batch_size
        length = self.num_frames * round(self.frame_s * SAMPLE_RATE)
        stacked = np.stack(waveforms)
        means = stacked[:, :length].reshape(len(stacked), self.num_frames, -1).mean(axis=-1)
        frames = np.stack([means, np.broadcast_to(stacked[:, :1], means.shape), np.ones_like(means)], axis=-1)
        frames /= np.linalg.norm(frames, axis=-1, keepdims=True)
        power = np.abs(stacked).reshape(len(stacked), NUM_ROWS, -1).mean(axis=-1, keepdims=True)
        return WindowFrames(frames[:, 0], frames, decibels(np.repeat(power, NUM_BANDS, axis=-1)))


def write(path: Path, samples: Samples) -> Path:
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    return path


def ramp(num_samples: int) -> Samples:
    """Rises by 0.01 a second, so that a sample tells when it is."""
    return (np.arange(num_samples) / SAMPLE_RATE / 100).astype(np.float32)


LENGTHS_S = [0.02, 3.3, 9.99, 10, 10.1, 14.9, 15, 15.1, 20, 24.7, 30, 37.5]


@pytest.mark.parametrize("duration_s", LENGTHS_S)
def test_overlapping_windows_are_the_plain_ones_and_those_between(tmp_path: Path, duration_s: float) -> None:
    file = write(tmp_path / "clip.wav", sweep(duration_s))
    overlapping, plain = [*overlapping_windows(file)], [*windows(file)]
    kept = [window for window in overlapping if not window.is_between]
    assert [(each.index, each.start_s, each.end_s) for each in kept] == [
        (each.index, each.start_s, each.end_s) for each in plain
    ]
    for found, expected in zip(kept, plain, strict=True):
        np.testing.assert_array_equal(found.waveform, expected.waveform)
    starts = [window.start_s for window in overlapping]
    assert starts == [*np.arange(0, max(0, duration_s - 10), 5), max(0, plain[-1].start_s)]
    for window in overlapping:
        if window.is_between:
            assert window.start_s - plain[window.index].start_s == 5


@pytest.mark.parametrize("encoder", [TellTale(32), TellTale(16), TellTale(31, 15_360), TellTale(250)], ids=repr)
@pytest.mark.parametrize("duration_s", [10, 24.7, 37.5, 60])
def test_each_frame_is_of_its_own_time_and_of_the_window_around_it(
    tmp_path: Path, encoder: Any, duration_s: float
) -> None:
    found = embed_recording(encoder, write(tmp_path / "ramp.wav", ramp(round(duration_s * SAMPLE_RATE))))
    num_frames = math.ceil(duration_s / encoder.frame_s - 1e-9)
    assert found.frames.shape == (num_frames, 3)
    assert (found.frame_s, found.duration_s) == (encoder.frame_s, duration_s)
    np.testing.assert_allclose(np.linalg.norm(found.frames, axis=1), 1, atol=1e-6)
    centre_s = (np.arange(num_frames) + 0.5) * encoder.frame_s
    heard_s = 100 * found.frames[:, 0] / found.frames[:, 2]
    whole = centre_s < duration_s - encoder.frame_s
    assert np.abs(heard_s - centre_s)[whole].max() < 1e-3
    assert np.abs(heard_s - centre_s).max() < 1.25 * encoder.frame_s
    assert found.levels is not None
    assert found.levels.shape == (math.ceil(duration_s / 0.05 - 1e-9), NUM_BANDS)
    assert np.abs(100 * powers(found.levels)[:, 0] - np.arange(0.025, duration_s, 0.05)).max() < 2e-3
    # The window that it comes from is the one whose centre is nearest, of those that there are.
    starts_s = found.window_s[:, 0]
    assert found.window_embeddings.shape == (len(starts_s), 3)
    taken_s = 100 * found.frames[:, 1] / found.frames[:, 2]
    distance_s = np.abs(centre_s[:, None] - starts_s - 5).min(axis=1)
    np.testing.assert_allclose(np.abs(centre_s - taken_s - 5), distance_s, atol=2e-3)


@pytest.mark.parametrize("duration_s", [0.05, 0.625, 3.3, 9.99])
def test_a_short_recording_has_frames_of_itself_alone(tmp_path: Path, duration_s: float) -> None:
    encoder: Any = TellTale(16)
    samples = ramp(round(duration_s * SAMPLE_RATE))
    found = embed_recording(encoder, write(tmp_path / "short.wav", samples))
    assert len(found.frames) == math.ceil(duration_s / 0.625)
    np.testing.assert_array_equal(found.window_s, [[0, duration_s]])
    for index, frame in enumerate(found.frames[: int(duration_s / 0.625)]):
        mean = samples[index * 30_000 : (index + 1) * 30_000].mean()
        assert frame[0] / frame[2] == pytest.approx(mean, abs=1e-5)


def test_a_piece_and_a_channel_of_a_recording_have_frames_of_their_own(tmp_path: Path) -> None:
    encoder: Any = TellTale(16)
    left = ramp(30 * SAMPLE_RATE)
    file = tmp_path / "stereo.wav"
    soundfile.write(file, np.stack([left, -left], axis=1), SAMPLE_RATE, subtype="FLOAT")
    right = embed_recording(encoder, file, channel="right").frames
    alone = embed_recording(encoder, write(tmp_path / "right.wav", -left)).frames
    np.testing.assert_array_equal(right, alone)
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"empty\.wav is empty"):
        embed_recording(encoder, tmp_path / "empty.wav")


@pytest.mark.parametrize("beep_s", [2.6, 12.4, 21.9])
def test_a_beep_is_in_its_frames(beep_s: float, tmp_path: Path) -> None:
    """By `mini`, whose frames are 0.625 s long: those of the beep are unlike all others."""
    rng = np.random.default_rng(3)
    samples = 0.003 * rng.standard_normal(24 * SAMPLE_RATE).astype(np.float32)
    start, stop = (round((beep_s + edge_s) * SAMPLE_RATE) for edge_s in (0, 1.25))
    samples[start:stop] += 0.3 * np.sin(2 * np.pi * 1000 * np.arange(stop - start) / SAMPLE_RATE).astype(np.float32)
    found = embed_recording(ClapEncoder.load("mini", engine="torch"), write(tmp_path / "beep.wav", samples))
    unlike = 1 - found.frames @ np.median(found.frames, axis=0)
    centre_s = (np.arange(len(unlike)) + 0.5) * found.frame_s
    is_beep = (centre_s > beep_s) & (centre_s < beep_s + 1.25)
    touches = (centre_s > beep_s - found.frame_s / 2) & (centre_s < beep_s + 1.25 + found.frame_s / 2)
    assert touches[unlike.argmax()]
    assert unlike[is_beep].mean() > 2 * unlike[~is_beep].mean()
