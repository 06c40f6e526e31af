"""Makes training batches from recordings in memory: random excerpts, mixtures and captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Waveform
from clapboard.labels.captions import Captioner, Relation
from clapboard.labels.prompts import NEGATIVES
from training.mini.esc10 import Recording
from training.pretraining.batch import Batch, respelt
from training.pretraining.loss import Meaning
from training.pretraining.processes import ALONE, Processes
from training.sounds import speech
from training.sounds.synthesis import KINDS, synthesise

NEUTRAL = "neutral"
NEUTRAL_SHARE = 0.05
"""Every clip's share of the neutral texts, which puts them between the right kind and the wrong ones."""

_MIN_EXCERPT_S = 1.0
_SYNTHETIC_LENGTH_S = (1.5, 10.0)
_LENGTHENED_S = (12.0, 30.0)
_NOISE_DB = (-75.0, -50.0)


def synthetic_recordings(per_kind: int, seed: int, kinds: Sequence[str] = tuple(KINDS)) -> list[Recording]:
    """`per_kind` recordings of each synthetic kind, and as many of spoken words if espeak-ng is installed."""
    rng = np.random.default_rng(seed)
    recordings = [
        Recording(kind, synthesise(kind, int(rng.integers(1 << 30)), round(rng.uniform(*_SYNTHETIC_LENGTH_S), 1)))
        for kind in kinds
        for _ in range(per_kind)
    ]
    if "speech" in kinds and speech.is_available():
        recordings += [Recording("speech", speech.speak(int(rng.integers(1 << 30)))) for _ in range(per_kind)]
    return recordings


@dataclass(frozen=True)
class Mixing:
    """The shares of sounds that are mixed with another sound, and of those that are followed by another sound.

    `lengthened` is the share that is placed in a longer recording, for models that take more than 10 s at once.
    """

    together: float = 0.25
    in_turn: float = 0.1
    lengthened: float = 0.0


MIXING = Mixing()


class BatchMaker:
    """Makes batches with each real recording once an epoch, and synthetic ones drawn evenly by kind.

    An example depends on the seed, the epoch and its place in the epoch alone: several processes make the same batch,
    each its own part, and a run can continue anywhere.
    """

    def __init__(
        self,
        real: Sequence[Recording],
        synthetic: Sequence[Recording],
        captioner: Captioner,
        *,
        synthetic_per_epoch: int,
        batch_size: int,
        seed: int,
        mixing: Mixing = MIXING,
        processes: Processes = ALONE,
    ) -> None:
        self.kinds = tuple(sorted({recording.kind for recording in (*real, *synthetic)}))
        self._real = list(real)
        self._by_kind: dict[str, list[Recording]] = {}
        for recording in synthetic:
            self._by_kind.setdefault(recording.kind, []).append(recording)
        self._pools = [pool for pool in (self._real, list(synthetic)) if pool]
        self._captioner = captioner
        self._synthetic_per_epoch = synthetic_per_epoch if synthetic else 0
        self._batch_size = batch_size
        self._seed = seed
        self._mixing = mixing
        self._processes = processes

    @property
    def num_batches(self) -> int:
        """The number of batches in an epoch; examples that don't fill a last batch are left out."""
        return (len(self._real) + self._synthetic_per_epoch) // self._batch_size

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[Batch]:
        """The epoch's batches, in its own random order, without the first `skip`."""
        rng = np.random.default_rng([self._seed, number])
        recordings = list(self._real)
        synthetic_kinds = sorted(self._by_kind)
        for _ in range(self._synthetic_per_epoch):
            of_kind = self._by_kind[synthetic_kinds[rng.integers(len(synthetic_kinds))]]
            recordings.append(of_kind[rng.integers(len(of_kind))])
        order = rng.permutation(len(recordings))
        for batch in range(skip, self.num_batches):
            first = batch * self._batch_size
            places = range(first + self._processes.rank, first + self._batch_size, self._processes.count)
            yield self._batch(
                [recordings[order[place]] for place in places], [[self._seed, number, place] for place in places]
            )

    def _batch(self, recordings: Sequence[Recording], seeds: Sequence[Sequence[int]]) -> Batch:
        pairs = zip(recordings, seeds, strict=True)
        sounds, meanings, captions = zip(
            *(self._example(recording, np.random.default_rng(seed)) for recording, seed in pairs), strict=True
        )
        rng = np.random.default_rng([*seeds[0][:2], seeds[0][2] // self._batch_size, 1])  # the same in each process
        shared = [(self._captioner.caption([kind], rng), {kind: 1.0}) for kind in self.kinds]
        shared.append((str(rng.choice(NEGATIVES)), {NEUTRAL: 1.0}))
        return Batch(
            sounds=list(sounds),
            meanings=[{**meaning, NEUTRAL: NEUTRAL_SHARE} for meaning in meanings],
            captions=list(captions),
            caption_meanings=list(meanings),
            shared_captions=[respelt(text, rng) for text, _ in shared],
            shared_meanings=[meaning for _, meaning in shared],
        )

    def _example(self, recording: Recording, rng: np.random.Generator) -> tuple[Waveform, Meaning, str]:
        """A sound, its meaning and its caption: of one kind, two at once, or one after another."""
        sound, meaning, text = self._short_example(recording, rng)
        if self._mixing.lengthened and rng.random() < self._mixing.lengthened:
            sound = lengthened(sound, rng)
        return sound, meaning, text

    def _short_example(self, recording: Recording, rng: np.random.Generator) -> tuple[Waveform, Meaning, str]:
        """An example of at most 10 s."""
        sound, draw = excerpt(recording.waveform, rng), rng.random()
        pool = self._pools[rng.integers(len(self._pools))]
        other = pool[rng.integers(len(pool))]
        alone = draw >= self._mixing.together + self._mixing.in_turn
        if recording.kind == "silence":  # any gain would make a sound of it
            return sound, {"silence": 1.0}, self._caption(["silence"], rng)
        if alone or other.kind == "silence":
            return loudened(sound, rng), {recording.kind: 1.0}, self._caption([recording.kind], rng)
        second = excerpt(other.waveform, rng)
        kinds = [recording.kind, other.kind]
        relation: Relation = "sequence"
        if draw < self._mixing.together:
            balance = rng.beta(0.5, 0.5)
            sound = mix(sound, second, balance)
            kinds = kinds if balance >= 0.5 else kinds[::-1]  # the louder one comes first
            relation = "background" if abs(balance - 0.5) > 0.2 else "together"
        else:
            sound, balance = one_after_the_other(sound, second)
        if recording.kind == other.kind or not 0.15 < balance < 0.85:  # the fainter one can't be heard: don't name it
            kinds = [recording.kind if balance >= 0.5 else other.kind]
        meaning: dict[str, float] = {recording.kind: balance}
        meaning[other.kind] = meaning.get(other.kind, 0.0) + 1 - balance
        return loudened(sound, rng), meaning, self._caption(kinds, rng, relation)

    def _caption(self, kinds: Sequence[str], rng: np.random.Generator, relation: Relation = "together") -> str:
        return respelt(self._captioner.caption(kinds, rng, relation=relation), rng)


def loudened(sound: Waveform, rng: np.random.Generator) -> Waveform:
    """The sound at a random peak level from −20 dB to 6 dB, clipped at 0 dB."""
    gain = 10 ** (rng.uniform(-20, 6) / 20) / max(float(np.abs(sound).max()), 1e-9)
    return np.clip(sound * gain, -1, 1).astype(np.float32)


def lengthened(sound: Waveform, rng: np.random.Generator) -> Waveform:
    """The sound placed at random in a recording of 12 to 30 s with a faint noise, `[t]`."""
    num_samples = int(rng.uniform(*_LENGTHENED_S) * SAMPLE_RATE)
    noise_rms = 10 ** (rng.uniform(*_NOISE_DB) / 20)
    whole = (rng.standard_normal(num_samples) * noise_rms).astype(np.float32)
    start = int(rng.integers(num_samples - sound.size + 1))
    whole[start : start + sound.size] += sound
    return np.clip(whole, -1, 1)


def one_after_the_other(first: Waveform, second: Waveform) -> tuple[Waveform, float]:
    """At most half a window of the first sound, then the second, equally loud, `[t]`; and the first one's share."""
    cut = min(WINDOW_SAMPLES // 2, first.size)
    second = second[: WINDOW_SAMPLES - cut]
    return np.concatenate([level(first[:cut]), level(second)]), cut / (cut + second.size)


def excerpt(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """A random excerpt of 1 to 10 s, `[t]`: at a random speed, rolled, cut where it is loud, repeated if short."""
    waveform = respeeded(waveform, rng)
    if rng.random() < 0.35:  # as in service: the recording from its start
        return waveform[:WINDOW_SAMPLES]
    num_samples = int(rng.uniform(_MIN_EXCERPT_S, 10.0) * SAMPLE_RATE)
    waveform = np.roll(waveform, rng.integers(waveform.size))
    if num_samples >= waveform.size:
        return np.resize(waveform, num_samples)
    starts = rng.integers(0, waveform.size - num_samples + 1, 4)
    energies = [float(np.square(waveform[start : start + num_samples : 16]).sum()) for start in starts]
    start = starts[int(np.argmax(energies))]
    return waveform[start : start + num_samples]


def respeeded(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """The waveform `[t]`, half the time at a random speed."""
    if rng.random() >= 0.5:
        return waveform
    positions = np.arange(0, waveform.size - 1, rng.uniform(0.85, 1.2))
    return np.interp(positions, np.arange(waveform.size), waveform).astype(np.float32)


def mix(first: Waveform, second: Waveform, balance: float) -> Waveform:
    """Both sounds at once, as long as the first, `[t]`; `balance` is the first one's share of the amplitude."""
    return balance * level(first) + (1 - balance) * level(np.resize(second, first.size))


def level(waveform: Waveform) -> Waveform:
    """The waveform at an RMS of 0.1; unchanged if it is almost silent."""
    rms = float(np.sqrt(np.mean(np.square(waveform))))
    return waveform * np.float32(0.1 / rms) if rms > 1e-5 else waveform
