"""A recording of any length → four log-mels, for checkpoints with feature fusion: the whole of it and three extracts.

For a recording longer than 10 s, these are its whole log-mel shrunk to 1001 frames, and its first, middle and last 1001
frames (Wu et al. 2023, arXiv 2211.06687, section 2.3; `ClapFeatureExtractor` in transformers takes three at random).
Any other recording gives the log-mel of its window, four times, and isn't «longer».

Recordings are read in blocks, and only their log-mel is kept in memory: 92 MB an hour.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from clapboard.audio.log_mel import FRAME_SAMPLES, HOP_SAMPLES, NUM_FRAMES, NUM_MELS, LogMel
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Waveform, no_samples, regrouped, repeat_pad

NUM_CHANNELS = 4

_MARGIN = FRAME_SAMPLES // 2


@dataclass(frozen=True, eq=False)
class FourMels:
    """A recording's log-mels `[4, 1001, 64]`, the global one first, and whether it is longer than a window.

    They give the recording's only embedding: the one at `index` 0, from 0 to `end_s` seconds.
    """

    features: torch.Tensor
    is_longer: bool
    end_s: float
    index: int = 0


def four_mels(pieces: Iterable[Waveform], log_mel: LogMel, *, name: str = "The recording") -> FourMels:
    """The four mels of a recording's consecutive pieces `[t]`, such as `windows.blocks` gives, however it is cut.

    Raises `AudioError`, which calls the recording `name`, if there are no samples.
    """
    blocks = regrouped(pieces, WINDOW_SAMPLES)
    first, second = next(blocks, None), next(blocks, None)
    if first is None:
        raise no_samples(name)
    if second is None:
        window = torch.from_numpy(repeat_pad(first))[None].to(log_mel.hann.device)
        return _four_times(log_mel(window)[0], first.size)
    mel, num_samples = _whole_mel(itertools.chain([first, second], blocks), log_mel)
    if len(mel) <= NUM_FRAMES:  # longer by less than a frame
        return _four_times(mel.to(log_mel.hann.device), num_samples)
    shrunk = functional.interpolate(mel[None, None], (NUM_FRAMES, NUM_MELS), mode="bilinear", align_corners=False)
    extracts = [mel[start : start + NUM_FRAMES] for start in local_starts(len(mel))]
    features = torch.stack([shrunk[0, 0], *extracts]).to(log_mel.hann.device)
    return FourMels(features, True, num_samples / SAMPLE_RATE)


def local_starts(num_frames: int) -> tuple[int, int, int]:
    """The first frames of a recording's three extracts; it must have more than 1001 frames."""
    last = num_frames - NUM_FRAMES
    return 0, (last + 1) // 2, last


def batched(recordings: Sequence[FourMels]) -> tuple[torch.Tensor, torch.Tensor]:
    """A tower's inputs: features `[B, 4, 1001, 64]` and `is_longer` `[B]`, bool, on the features' device."""
    features = torch.stack([recording.features for recording in recordings])
    return features, torch.tensor([recording.is_longer for recording in recordings], device=features.device)


def _four_times(mel: torch.Tensor, num_samples: int) -> FourMels:
    return FourMels(mel.expand(NUM_CHANNELS, -1, -1), False, num_samples / SAMPLE_RATE)


def _whole_mel(blocks: Iterator[Waveform], log_mel: LogMel) -> tuple[torch.Tensor, int]:
    """The log-mel `[F, 64]` of all blocks, the first of which is a window long, and the number of their samples.

    The samples after the last whole frame are kept for the next block: always enough of them to be reflected at the
    recording's end.
    """
    mel = np.zeros((0, NUM_MELS), np.float32)
    rest: Waveform = np.zeros(0, np.float32)
    num_samples = 0
    for block in blocks:
        rest = np.concatenate([rest, block] if num_samples else [block[_MARGIN:0:-1], block])
        num_samples += block.size
        num_frames = (rest.size - FRAME_SAMPLES) // HOP_SAMPLES + 1
        if num_frames > 0:
            _append(mel, rest, log_mel)
            rest = rest[num_frames * HOP_SAMPLES :]
    _append(mel, np.concatenate([rest, rest[-2 : -_MARGIN - 2 : -1]]), log_mel)
    return torch.from_numpy(mel), num_samples


def _append(mel: npt.NDArray[np.float32], samples: Waveform, log_mel: LogMel) -> None:
    """Append the samples' frames to `mel`, in place: so memory never holds it twice."""
    part = log_mel.of_frames(torch.from_numpy(samples)[None].to(log_mel.hann.device))[0].cpu().numpy()
    mel.resize((len(mel) + len(part), NUM_MELS), refcheck=False)
    mel[-len(part) :] = part
