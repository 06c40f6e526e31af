from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import ClapFeatureExtractor

from clapboard.audio.four_mels import FourMels, batched, four_mels, local_starts
from clapboard.audio.log_mel import HOP_SAMPLES, NUM_FRAMES, NUM_MELS, LogMel
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Waveform, blocks, read, window_waveform
from clapboard.errors import AudioError
from tests.support.recordings import sweep

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REPOSITORY = Path(__file__).parents[3]
LOG_MEL = LogMel("htk")


def of(waveform: Waveform, sizes: Sequence[int] = ()) -> FourMels:
    """The four mels of a waveform that comes in pieces of these sizes, and the rest."""
    return four_mels(np.split(waveform, np.cumsum(sizes)), LOG_MEL)


def reference_mel(waveform: Waveform) -> torch.Tensor:
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="fusion")
    return torch.from_numpy(extractor._np_extract_fbank_features(waveform, extractor.mel_filters)).float()


@pytest.mark.parametrize("num_samples", [1_200_000, 480_480, 959_999, 960_000, 960_001, 1_440_100])
def test_a_long_recording_gives_its_whole_mel_and_three_extracts(num_samples: int) -> None:
    waveform = sweep(40)[:num_samples]
    mel, found = reference_mel(waveform), of(waveform)
    assert len(mel) == num_samples // HOP_SAMPLES + 1
    assert found.is_longer
    assert found.end_s == num_samples / SAMPLE_RATE
    shrunk = torch.nn.functional.interpolate(mel[None, None], (NUM_FRAMES, NUM_MELS), mode="bilinear")[0, 0]
    middle = (len(mel) - NUM_FRAMES + 1) // 2
    expected = torch.stack([shrunk, mel[:NUM_FRAMES], mel[middle : middle + NUM_FRAMES], mel[-NUM_FRAMES:]])
    torch.testing.assert_close(found.features, expected, atol=1e-3, rtol=0)


def test_extracts_are_among_those_that_transformers_draws_at_random() -> None:
    for num_frames in (1002, 1003, 1004, 1005, 1500, 2500):
        thirds = np.array_split(np.arange(num_frames - NUM_FRAMES + 1), 3)
        for start, third in zip(local_starts(num_frames), thirds, strict=True):
            assert start in (third if third.size else [1])


@pytest.mark.parametrize("sizes", [[1], [100, 512, 513], [480_000], [480_001, 1], [479_999, 2], [65_536] * 15])
def test_four_mels_dont_depend_on_how_the_recording_is_cut(sizes: list[int]) -> None:
    waveform = sweep(25.003)
    torch.testing.assert_close(of(waveform, sizes).features, of(waveform).features, atol=0, rtol=0)


@pytest.mark.parametrize("num_samples", [1, 4_800, 240_432, 479_999, 480_000])
def test_a_recording_of_one_window_gives_its_mel_four_times(num_samples: int) -> None:
    waveform = sweep(10)[:num_samples]
    expected = LOG_MEL(torch.from_numpy(window_waveform(waveform)))
    found = of(waveform)
    assert not found.is_longer
    torch.testing.assert_close(found.features, expected.expand(4, -1, -1), atol=0, rtol=0)


@pytest.mark.parametrize("num_samples", [480_001, 480_479])
def test_a_recording_that_is_longer_by_less_than_a_frame_isnt_longer(num_samples: int) -> None:
    waveform = sweep(11)[:num_samples]
    found = of(waveform)
    assert not found.is_longer
    for mel in found.features:
        torch.testing.assert_close(mel, reference_mel(waveform), atol=1e-3, rtol=0)


def test_a_file_gives_what_its_samples_give(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, sweep(23, 44_100), 44_100, "PCM_16")
    found = four_mels(blocks(path), LOG_MEL)
    torch.testing.assert_close(found.features, of(read(path)).features, atol=0, rtol=0)


def test_a_recording_without_samples_is_refused_by_its_name() -> None:
    with pytest.raises(AudioError, match=r"nothing\.wav holds no samples"):
        four_mels([np.zeros(0, np.float32)], LOG_MEL, name="nothing.wav")


def test_a_batch_marks_each_recording_that_is_longer() -> None:
    recordings = [of(sweep(3)), of(sweep(12)), of(sweep(10))]
    features, is_longer = batched(recordings)
    assert features.shape == (3, 4, NUM_FRAMES, NUM_MELS)
    assert is_longer.tolist() == [False, True, False]
    for row, recording in zip(features, recordings, strict=True):
        torch.testing.assert_close(row, recording.features, atol=0, rtol=0)


def test_silence_at_the_end_of_a_long_recording_stays_silence() -> None:
    waveform = np.concatenate([sweep(15), np.zeros(WINDOW_SAMPLES, np.float32)])
    features = of(waveform).features
    assert (features[3, 3:] == -100).all()
    assert (features[1] > -100).all()


MEMORY = """
import itertools, resource, sys
import numpy as np
from clapboard.audio.log_mel import LogMel
from clapboard.audio.four_mels import four_mels
block = np.random.default_rng(0).uniform(-1, 1, 65_536).astype(np.float32)
for minutes in (1, 30):
    found = four_mels(itertools.repeat(block, minutes * 60 * 48_000 // len(block)), LogMel("htk"))
    assert found.is_longer
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_a_long_recording_takes_hardly_more_memory_than_its_mel() -> None:
    command = [sys.executable, "-c", MEMORY]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    short, long = map(int, process.stdout.split())
    bytes_of_mel = 30 * 60 * 100 * NUM_MELS * 4
    assert long - short < 1.3 * bytes_of_mel
