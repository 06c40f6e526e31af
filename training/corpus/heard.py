"""Pairs → judged pairs whose sound lies as FLAC in a folder: decoded in parallel, in order, a few at a time."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile

from clapboard.audio import SAMPLE_RATE, blocks
from clapboard.captions import has_word
from clapboard.errors import AudioError, SourceError, TrainingError
from clapboard.sources import SourceFile
from training.corpus.filters import Pcm, Reason, Rules
from training.corpus.pairs import Pair

_AHEAD_PER_THREAD = 2
_SCALE = 32_768
_UNREADABLE = (AudioError, SourceError, OSError)  # the last for a path that is too long, or may not be read


@dataclass(frozen=True)
class Heard:
    """What came of a pair: kept, its sound in `file`, or left out for a `fault` (with its `error` if unreadable)."""

    pair: Pair  # with the captions and tags that passed
    fault: Reason | None = None
    error: str = ""
    sha256: str = ""  # of the 16-bit samples, little-endian; also of a sound that is set aside
    duration_s: float = 0.0
    file: Path | None = None
    dropped_captions: Counter[Reason] = field(default_factory=Counter)


class Ear:
    """Listens to pairs by the rules; sounds that are kept are written to `folder`."""

    def __init__(self, rules: Rules, is_wanted: Callable[[str], bool], folder: Path) -> None:
        self._rules = rules
        self._is_wanted = is_wanted
        self._folder = folder
        self._numbers = itertools.count()

    def listen(self, pairs: Iterable[Pair], *, threads: int) -> Iterator[Heard]:
        """What came of each pair, in their order, whatever the number of threads.

        Only a few sounds are in memory at a time, each of them at most as long as the rules allow.
        """
        waiting: deque[Future[Heard]] = deque()
        pool = ThreadPoolExecutor(threads)
        try:
            for pair in pairs:
                waiting.append(pool.submit(self._hear, next(self._numbers), pair))
                if len(waiting) > _AHEAD_PER_THREAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _hear(self, number: int, pair: Pair) -> Heard:
        if pair.left_out == Reason.SET_ASIDE:
            return self._hear_set_aside(pair)
        if pair.left_out:
            return Heard(pair, Reason(pair.left_out))
        pair, dropped = self._judged(pair)
        if not pair.captions and not pair.tags:
            return Heard(pair, next(iter(dropped), Reason.MISSING_TEXT), dropped_captions=dropped)
        try:
            pcm = self._pcm(pair)
        except _UNREADABLE as error:
            return Heard(pair, Reason.UNREADABLE, _said_of(pair, error), dropped_captions=dropped)
        duration_s = pcm.size / SAMPLE_RATE
        if fault := self._rules.sound_fault(pcm, duration_s):
            return Heard(pair, fault, dropped_captions=dropped)
        file = self._folder / f"{number:09}.flac"
        try:
            soundfile.write(file, pcm, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
        except (soundfile.LibsndfileError, OSError) as error:
            raise TrainingError(f"{self._folder} can't be written: make room on its disk, then build again.") from error
        return Heard(pair, None, "", sha256_of(pcm), duration_s, file, dropped)

    def _judged(self, pair: Pair) -> tuple[Pair, Counter[Reason]]:
        """The pair with the captions and tags that pass, and why others don't."""
        faults = {caption: self._rules.caption_fault(caption, self._is_wanted) for caption in pair.captions}
        dropped = Counter(fault for fault in faults.values() if fault)
        dropped.update(Reason.WORDLESS_TAG for tag in pair.tags if not has_word(tag))
        captions = tuple(caption for caption, fault in faults.items() if fault is None)
        return replace(pair, captions=captions, tags=tuple(filter(has_word, pair.tags))), dropped

    def _hear_set_aside(self, pair: Pair) -> Heard:
        """Known by its sound, so that the same from elsewhere is kept out too."""
        with contextlib.suppress(*_UNREADABLE):
            return Heard(pair, Reason.SET_ASIDE, sha256=sha256_of(self._pcm(pair)))
        return Heard(pair, Reason.SET_ASIDE)

    def _pcm(self, pair: Pair) -> Pcm:
        """The sound `[T]`; of one that is longer than the rules allow, only a little more than they do."""
        sound = pair.audio if isinstance(pair.audio, Path | bytes) else pair.audio()
        source = (
            io.BytesIO(sound) if isinstance(sound, bytes) else sound.path if isinstance(sound, SourceFile) else sound
        )
        pieces: list[Pcm] = []
        num_samples = 0
        for piece in blocks(source, name=pair.name):
            pieces.append(np.clip(np.rint(piece * _SCALE), -_SCALE, _SCALE - 1).astype(np.int16))
            num_samples += piece.size
            if num_samples > self._rules.max_s * SAMPLE_RATE:
                break
        if not num_samples:
            raise AudioError(f"{pair.name} holds no samples: replace it with a recording that has sound in it.")
        return np.concatenate(pieces)


def sha256_of(pcm: Pcm) -> str:
    """What the sound is known by, whatever file it came in."""
    return hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()


def _said_of(pair: Pair, error: Exception) -> str:
    return f"{pair.name} can't be read: {error.strerror}." if isinstance(error, OSError) else str(error)
