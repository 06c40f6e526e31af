"""Recordings in memory → training batches: random excerpts, mixtures and captions, under the serving window policy.

Every batch follows from (seed, epoch, number of the batch) alone, so that a run goes on exactly where it stopped.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clapboard.audio import SAMPLE_RATE, WINDOW_SAMPLES, Waveform, read, repeat_pad
from clapboard.captions import RULES
from clapboard.errors import ClapboardError
from clapboard.prompts import NEGATIVES
from training.sounds import speech
from training.sounds.synthesis import KINDS, synthesise

NEUTRAL_SHARE = 0.05
"""What every clip owes to the neutral texts: it puts them between the right kind and the wrong ones."""

_MIN_EXCERPT_S = 1.0
_SYNTHETIC_LENGTH_S = (1.5, 10.0)


@dataclass(frozen=True)
class Clip:
    """A row of ESC-10's table: one file, its fold and kind, and whom to name for it."""

    path: Path
    fold: int
    kind: str
    freesound_id: str
    licence: str
    author: str


@dataclass(frozen=True)
class Recording:
    """Decoded sound of one kind, `[T]` at 48 kHz."""

    kind: str
    waveform: Waveform


@dataclass(frozen=True)
class Batch:
    """What one training step sees. Shares say how much of each kind is in it; the last column is the neutral text's."""

    windows: Waveform  # [B, 480000]
    shares: npt.NDArray[np.float32]  # [B, K + 1]
    captions: list[str]  # T texts: one of each clip, one of each kind, one neutral
    caption_shares: npt.NDArray[np.float32]  # [T, K + 1]


def read_manifest(esc10: Path, folds: Iterable[int]) -> list[Clip]:
    """The clips of the given folds, as the folder's `esc10.csv` lists them.

    Raises `ClapboardError` if the folder holds no such table.
    """
    table = esc10 / "esc10.csv"
    if not table.is_file():
        raise ClapboardError(f"Folder {esc10} has no esc10.csv: give the folder that holds ESC-10's table and audio/.")
    wanted = set(folds)
    with table.open(newline="", encoding="utf-8") as rows:
        return [
            Clip(
                esc10 / "audio" / row["filename"],
                int(row["fold"]),
                row["category"],
                row["freesound_id"],
                row["licence"],
                row["author"],
            )
            for row in csv.DictReader(rows)
            if int(row["fold"]) in wanted
        ]


def load_recordings(clips: Iterable[Clip]) -> list[Recording]:
    """The clips decoded. Raises `AudioError` for one that can't be."""
    return [Recording(clip.kind, read(clip.path)) for clip in clips]


def synthetic_recordings(per_kind: int, seed: int, kinds: Sequence[str] = tuple(KINDS)) -> list[Recording]:
    """So many recordings of each synthetic kind, and as many of real words if espeak-ng is installed."""
    rng = np.random.default_rng(seed)
    made = [
        Recording(kind, synthesise(kind, int(rng.integers(1 << 30)), round(rng.uniform(*_SYNTHETIC_LENGTH_S), 1)))
        for kind in kinds
        for _ in range(per_kind)
    ]
    if "speech" in kinds and speech.is_available():
        made += [Recording("speech", speech.speak(int(rng.integers(1 << 30)))) for _ in range(per_kind)]
    return made


class BatchMaker:
    """Turns recordings into batches: each real recording once an epoch, and synthetic ones drawn evenly by kind."""

    def __init__(
        self,
        real: Sequence[Recording],
        synthetic: Sequence[Recording],
        *,
        synthetic_per_epoch: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.kinds = tuple(sorted({recording.kind for recording in (*real, *synthetic)}))
        self._real = list(real)
        self._by_kind: dict[str, list[Recording]] = {}
        for recording in synthetic:
            self._by_kind.setdefault(recording.kind, []).append(recording)
        self._pools = [pool for pool in (self._real, list(synthetic)) if pool]
        self._synthetic_per_epoch = synthetic_per_epoch if synthetic else 0
        self._batch_size = batch_size
        self._seed = seed

    @property
    def num_batches(self) -> int:
        """Batches in an epoch; what doesn't fill one waits for the next epoch's draw."""
        return (len(self._real) + self._synthetic_per_epoch) // self._batch_size

    def epoch(self, number: int) -> Iterator[Batch]:
        """The epoch's batches, in its own random order."""
        rng = np.random.default_rng([self._seed, number])
        chosen = list(self._real)
        synthetic_kinds = sorted(self._by_kind)
        for _ in range(self._synthetic_per_epoch):
            of_kind = self._by_kind[synthetic_kinds[rng.integers(len(synthetic_kinds))]]
            chosen.append(of_kind[rng.integers(len(of_kind))])
        order = rng.permutation(len(chosen))
        for start in range(0, self.num_batches * self._batch_size, self._batch_size):
            yield self._batch([chosen[index] for index in order[start : start + self._batch_size]], rng)

    def _batch(self, recordings: Sequence[Recording], rng: np.random.Generator) -> Batch:
        examples = [self._example(recording, rng) for recording in recordings]
        texts = [(text, share) for _, share, text in examples]
        texts += [(RULES.caption((kind,), rng), self._shares({kind: 1.0})) for kind in self.kinds]
        neutral = np.eye(len(self.kinds) + 1, dtype=np.float32)[-1]
        texts.append((str(rng.choice(NEGATIVES)), neutral))
        return Batch(
            windows=np.concatenate([window for window, _, _ in examples]),
            shares=np.stack([share + NEUTRAL_SHARE * neutral for _, share, _ in examples]),
            captions=[respelt(text, rng) for text, _ in texts],
            caption_shares=np.stack([share for _, share in texts]),
        )

    def _example(self, recording: Recording, rng: np.random.Generator) -> tuple[Waveform, npt.NDArray[np.float32], str]:
        """A window `[1, 480000]` with its shares and caption: one kind alone, two at once, or one after the other."""
        sound = excerpt(recording.waveform, rng)
        draw = rng.random()
        pool = self._pools[rng.integers(len(self._pools))]
        other = pool[rng.integers(len(pool))]
        if recording.kind == "silence":  # any gain would make a sound of it
            return repeat_pad(sound)[None], self._shares({"silence": 1.0}), RULES.caption(("silence",), rng)
        if draw < 0.65 or other.kind == "silence":
            return (
                self._finished(sound, rng),
                self._shares({recording.kind: 1.0}),
                RULES.caption((recording.kind,), rng),
            )
        second = excerpt(other.waveform, rng)
        if draw < 0.9:
            balance = rng.beta(0.5, 0.5)
            sound = mix(sound, second, balance)
            loud, quiet = (recording.kind, other.kind) if balance >= 0.5 else (other.kind, recording.kind)
            text = RULES.caption((loud, quiet), rng, relation="background" if abs(balance - 0.5) > 0.2 else "together")
        else:
            cut = min(WINDOW_SAMPLES // 2, sound.size)
            second = second[: WINDOW_SAMPLES - cut]
            sound, balance = np.concatenate([level(sound[:cut]), level(second)]), cut / (cut + second.size)
            text = RULES.caption((recording.kind, other.kind), rng, relation="sequence")
        if recording.kind == other.kind or not 0.15 < balance < 0.85:  # the fainter one can't be heard: don't name it
            loud = recording.kind if balance >= 0.5 else other.kind
            text = RULES.caption((loud,), rng)
        return self._finished(sound, rng), self._shares({recording.kind: balance}, {other.kind: 1 - balance}), text

    def _finished(self, sound: Waveform, rng: np.random.Generator) -> Waveform:
        gain = 10 ** (rng.uniform(-20, 6) / 20) / max(float(np.abs(sound).max()), 1e-9)
        return repeat_pad(np.clip(sound * gain, -1, 1).astype(np.float32))[None]

    def _shares(self, *parts: dict[str, float]) -> npt.NDArray[np.float32]:
        shares = np.zeros(len(self.kinds) + 1, np.float32)
        for part in parts:
            for kind, share in part.items():
                shares[self.kinds.index(kind)] += share
        return shares


def excerpt(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """A piece of 1 to 10 s, `[t]`: rolled, a little faster or slower, cut where there is sound, repeated if short."""
    if rng.random() < 0.5:
        speed = rng.uniform(0.85, 1.2)
        positions = np.arange(0, waveform.size - 1, speed)
        waveform = np.interp(positions, np.arange(waveform.size), waveform).astype(np.float32)
    if rng.random() < 0.35:  # as served: the whole recording, from its start
        return waveform[:WINDOW_SAMPLES]
    num_samples = int(rng.uniform(_MIN_EXCERPT_S, 10.0) * SAMPLE_RATE)
    waveform = np.roll(waveform, rng.integers(waveform.size))
    if num_samples >= waveform.size:
        return np.resize(waveform, num_samples)
    starts = rng.integers(0, waveform.size - num_samples + 1, 4)
    energies = [float(np.square(waveform[start : start + num_samples : 16]).sum()) for start in starts]
    start = starts[int(np.argmax(energies))]
    return waveform[start : start + num_samples]


def mix(first: Waveform, second: Waveform, balance: float) -> Waveform:
    """Both at once, `[t]` as long as the first: `balance` is the first one's share of the amplitude."""
    return balance * level(first) + (1 - balance) * level(np.resize(second, first.size))


def level(waveform: Waveform) -> Waveform:
    """The waveform at an RMS of 0.1, or as it is where there is next to nothing."""
    rms = float(np.sqrt(np.mean(np.square(waveform))))
    return waveform * np.float32(0.1 / rms) if rms > 1e-5 else waveform


def respelt(text: str, rng: np.random.Generator) -> str:
    """The text, at times in small letters or without its full stop: people write both."""
    draw = rng.random()
    return text.lower() if draw < 0.25 else text.rstrip(".") if draw < 0.4 else text
