"""A file → pieces of everything that can be decoded, whatever its header claims, and how much couldn't be.

libsndfile reads plain samples (WAV, AIFF, AU, CAF, Wave64), after `containers` has corrected wrong sizes. FFmpeg's
decoders read everything else: to the end of the file, going on after what is damaged. Formats that FFmpeg doesn't know
are left to libsndfile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

import av
import soundfile

from clapboard.audio.containers import parts
from clapboard.audio.ffmpeg import FfmpegFile
from clapboard.audio.pieces import BLOCK_SAMPLES, Bound, Condition, Piece, gain_of, scaled
from clapboard.audio.sections import Part, Section
from clapboard.errors import AudioError, AudioTooLong

_PLAIN = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_FLOAT = frozenset({"FLOAT", "DOUBLE"})
_HEAD_BYTES = 20
# Beginnings of formats that FFmpeg doesn't know: NIST, MATLAB, PVF, XI, WVE, AVR, PAF, SVX, IRCAM, MPC. Nothing else
# goes to libsndfile, some of whose decoders can't cope with damage, or report it on standard output.
_RARE = re.compile(
    rb"NIST_1A|MATLAB |PVF1|Extended Instrument|ALawSoundFile|2BIT| paf|fap |FORM....(8SVX|16SV)|"
    rb"\x64\xa3[\x01-\x04]\x00|[\x00\x01][\x01-\x04]\xa3\x64|\x01\x04",
    re.DOTALL,
)
_UNKNOWN_FRAMES = (1 << 63) - 1
# What the libraries raise if a header makes no sense.
_DECODER_ERRORS = (
    av.FFmpegError,
    soundfile.SoundFileError,
    ArithmeticError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def decode(file: IO[bytes], bound: Bound, condition: Condition) -> Iterator[Piece]:
    """Everything that can be decoded of the recordings in the file, one after the other.

    `condition` records what couldn't be. A float recording whose peak is above 1 is scaled down as a whole, which takes
    a first pass. Raises `AudioError`, which calls the file by the bound's name, if it isn't audio, is mostly damaged,
    or goes beyond the bound: `AudioTooLong`, before the first piece where its header says so.
    """
    decoded_s, decoded_bytes = 0.0, 0
    for part in parts(file):
        try:
            for piece in bound.check(_pieces(part, file, bound, decoded_s, condition), decoded_s):
                decoded_s += piece.duration_s
                if not condition.sample_rate:
                    condition.sample_rate, condition.num_channels = piece.rate, piece.samples.shape[1]
                yield piece
        except AudioTooLong:
            raise
        except AudioError:
            if not decoded_s:
                raise
            condition.lost_s += (part.end - part.start) * decoded_s / max(1, decoded_bytes)
        decoded_bytes += part.end - part.start
    if condition.lost_s > decoded_s:
        raise AudioError(f"{bound.name} is damaged: most of it can't be decoded. Export or upload it again.")


def _pieces(part: Part, file: IO[bytes], bound: Bound, before_s: float, condition: Condition) -> Iterator[Piece]:
    """The pieces of one recording, which follows `before_s` seconds of others."""
    if part.is_plain and (sound := _sound_file(part, file)) is not None:
        if sound.subtype.startswith(_PLAIN):
            yield from _from_soundfile(sound, part, bound, before_s, condition)
            return
        sound.close()
    has_begun = False
    try:
        for piece in _from_ffmpeg(part.open(file), bound, before_s, condition):
            has_begun = True
            yield piece
    except _DECODER_ERRORS:
        is_rare = not has_begun and _RARE.match(part.open(file).read(_HEAD_BYTES))
        sound = _sound_file(part, file) if is_rare else None
        if sound is None:
            raise AudioError(
                f"{bound.name} is no audio that can be decoded: it is damaged, or not what its name says. Export it "
                "again, for example as WAV, FLAC or Ogg."
            ) from None
        yield from _from_soundfile(sound, part, bound, before_s, condition)


def _from_ffmpeg(file: Section, bound: Bound, before_s: float, condition: Condition) -> Iterator[Piece]:
    """The pieces by FFmpeg. Raises one of `_DECODER_ERRORS`, before the first piece, if nothing can be decoded."""
    with FfmpegFile(file) as recording:
        if not recording.has_sound:
            raise AudioError(f"{bound.name} has no audio track that can be decoded: choose a file with sound.")
        is_long = before_s + recording.claimed_s > bound.longest_s
        if not recording.is_float and not is_long:
            yield from _not_empty(recording.pieces(condition))
            return
        gain = gain_of(bound.check(recording.pieces(Condition()), before_s))
    with FfmpegFile(file) as recording:
        yield from _not_empty(scaled(recording.pieces(condition), gain if recording.is_float else 1.0))


def _not_empty(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The pieces. Raises `ValueError` if there are none."""
    is_empty = True
    for piece in pieces:
        is_empty = False
        yield piece
    if is_empty:
        raise ValueError


def _sound_file(part: Part, file: IO[bytes]) -> soundfile.SoundFile | None:
    """The recording opened by libsndfile; None if that can't open it, or doesn't know its length."""
    try:
        sound = soundfile.SoundFile(part.open(file))
    except _DECODER_ERRORS:
        return None
    if sound.frames < _UNKNOWN_FRAMES:
        return sound
    sound.close()
    return None


def _from_soundfile(
    sound: soundfile.SoundFile, part: Part, bound: Bound, before_s: float, condition: Condition
) -> Iterator[Piece]:
    with sound:
        gain = 1.0
        is_float = sound.subtype in _FLOAT
        if is_float or before_s + sound.frames / max(1, sound.samplerate) > bound.longest_s:
            peak_gain = gain_of(bound.check(_soundfile_pieces(sound), before_s))
            gain = peak_gain if is_float else 1.0
            sound.seek(0)
        num_frames = 0
        for piece in scaled(_soundfile_pieces(sound), gain):
            num_frames += len(piece.samples)
            yield piece
        rate = max(1, sound.samplerate)
        condition.lost_s += (sound.frames - num_frames) / rate
        if part.sound_bytes:
            condition.missing_s += part.missing_bytes / part.sound_bytes * sound.frames / rate


def _soundfile_pieces(sound: soundfile.SoundFile) -> Iterator[Piece]:
    num_frames = max(1, BLOCK_SAMPLES // sound.channels)
    while True:
        try:
            samples = sound.read(num_frames, dtype="float32", always_2d=True)
        except _DECODER_ERRORS:
            return
        if not samples.size:
            return
        yield Piece(sound.samplerate, samples)
