"""Decodes pairs in parallel, filters them, and writes the kept sounds as FLAC to a folder."""

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

from clapboard.audio.windows import SAMPLE_RATE, blocks
from clapboard.errors import AudioError, SourceError, TrainingError
from clapboard.labels.captions import has_word
from clapboard.sources import SourceFile
from training.corpus.filters import Pcm, Reason, Rules
from training.corpus.pairs import Pair

_AHEAD_PER_THREAD = 2
_SCALE = 32_768
_UNREADABLE = (AudioError, SourceError, OSError)  # the last for a path that is too long, or may not be read


@dataclass(frozen=True)
class DecodedPair:
    """A decoded pair: kept with its sound in `file`, or left out for a `fault` (with the `error` if unreadable)."""

    pair: Pair  # with only the captions and tags that passed
    fault: Reason | None = None
    error: str = ""
    sha256: str = ""  # of the little-endian 16-bit samples; also of held-out sounds
    duration_s: float = 0.0
    file: Path | None = None
    dropped_captions: Counter[Reason] = field(default_factory=Counter)


class PairDecoder:
    """Decodes pairs and filters them by the rules; the kept sounds are written to `folder`."""

    def __init__(self, rules: Rules, is_wanted: Callable[[str], bool], folder: Path) -> None:
        self._rules = rules
        self._is_wanted = is_wanted
        self._folder = folder
        self._numbers = itertools.count()

    def decode(self, pairs: Iterable[Pair], *, threads: int) -> Iterator[DecodedPair]:
        """The decoded pairs, in order, whatever the number of threads.

        Only a few sounds are in memory at a time, each at most about as long as the rules allow.
        """
        pending: deque[Future[DecodedPair]] = deque()
        pool = ThreadPoolExecutor(threads)
        try:
            for pair in pairs:
                pending.append(pool.submit(self._decode, next(self._numbers), pair))
                if len(pending) > _AHEAD_PER_THREAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, number: int, pair: Pair) -> DecodedPair:
        if pair.left_out == Reason.HELD_OUT:
            return self._decode_held_out(pair)
        if pair.left_out:
            return DecodedPair(pair, Reason(pair.left_out))
        pair, dropped = self._filter_texts(pair)
        if not pair.captions and not pair.tags:
            return DecodedPair(pair, next(iter(dropped), Reason.MISSING_TEXT), dropped_captions=dropped)
        try:
            pcm = self._pcm(pair)
        except _UNREADABLE as error:
            return DecodedPair(pair, Reason.UNREADABLE, _message(pair, error), dropped_captions=dropped)
        duration_s = pcm.size / SAMPLE_RATE
        if fault := self._rules.sound_fault(pcm, duration_s):
            return DecodedPair(pair, fault, dropped_captions=dropped)
        file = self._folder / f"{number:09}.flac"
        try:
            soundfile.write(file, pcm, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
        except (soundfile.LibsndfileError, OSError) as error:
            raise TrainingError(f"{self._folder} can't be written: free some disk space, then build again.") from error
        return DecodedPair(pair, None, "", sha256_of(pcm), duration_s, file, dropped)

    def _filter_texts(self, pair: Pair) -> tuple[Pair, Counter[Reason]]:
        """The pair with the captions and tags that pass, and the reasons for which others were dropped."""
        faults = {caption: self._rules.caption_fault(caption, self._is_wanted) for caption in pair.captions}
        dropped = Counter(fault for fault in faults.values() if fault)
        dropped.update(Reason.WORDLESS_TAG for tag in pair.tags if not has_word(tag))
        captions = tuple(caption for caption, fault in faults.items() if fault is None)
        return replace(pair, captions=captions, tags=tuple(filter(has_word, pair.tags))), dropped

    def _decode_held_out(self, pair: Pair) -> DecodedPair:
        """Only hashes the sound, so that the same sound from another source is left out too."""
        with contextlib.suppress(*_UNREADABLE):
            return DecodedPair(pair, Reason.HELD_OUT, sha256=sha256_of(self._pcm(pair)))
        return DecodedPair(pair, Reason.HELD_OUT)

    def _pcm(self, pair: Pair) -> Pcm:
        """The sound `[T]`; decoding stops soon after the longest duration that the rules allow."""
        sound = pair.audio if isinstance(pair.audio, Path | bytes) else pair.audio()
        source = (
            io.BytesIO(sound) if isinstance(sound, bytes) else sound.path if isinstance(sound, SourceFile) else sound
        )
        pieces: list[Pcm] = []
        num_samples = 0
        for piece in blocks(source, name=pair.name, channel=pair.channel):
            pieces.append(np.clip(np.rint(piece * _SCALE), -_SCALE, _SCALE - 1).astype(np.int16))
            num_samples += piece.size
            if num_samples > self._rules.max_s * SAMPLE_RATE:
                break
        if not num_samples:
            raise AudioError(f"{pair.name} holds no samples: replace it with a recording that has sound in it.")
        return np.concatenate(pieces)


def sha256_of(pcm: Pcm) -> str:
    """The hash that identifies the sound, whatever file it came from."""
    return hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()


def _message(pair: Pair, error: Exception) -> str:
    return f"{pair.name} can't be read: {error.strerror}." if isinstance(error, OSError) else str(error)
