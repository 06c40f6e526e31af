"""A file decoded by FFmpeg, through PyAV: all of it, going on after what is damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Self

import av
import numpy as np

from clapboard.audio.pieces import BLOCK_SAMPLES, LEAST_DAMAGE_S, Condition, Piece, Samples
from clapboard.audio.sections import Section

# Containers that hold audio themselves. Not playlists, which could name other files and hosts.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpeg,mpegts,ogg,"
    "tak,tta,voc,w64,wav,wv"
)
_FLOAT_CODECS = ("pcm_f", "wavpack")
_SCALES = {np.dtype(np.uint8): 2.0**-7, np.dtype(np.int16): 2.0**-15, np.dtype(np.int32): 2.0**-31}
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"Xing", b"Info")  # between frames: neither sound nor damage
_LONGEST_FRAME_BYTES = 2_048  # of MP3
_PADDING_S = 0.25
"""Some headers count the padding that encoders add at both ends and decoders leave out."""

_MOST_JUNK_BYTES = 8_192  # after the last packet

# FFmpeg's names of containers whose header says how long a stream is. The durations of others are guesses.
_COUNTING = frozenset({"flac", "ogg", "mov", "wav", "w64", "aiff", "caf", "tta", "ape", "au", "wv"})
_COUNTING_LONGEST = frozenset({"matroska", "avi", "asf", "flv"})  # … how long the longest of its streams is
_EXACT = frozenset({"flac", "ogg", "wav", "tta"})
_UNFRAMED = frozenset({"aac", "ac3", "eac3", "mp3"})  # the demuxer searches for the next frame that looks right


class FfmpegFile:
    """The first audio stream of an open file. A context manager."""

    def __init__(self, file: IO[bytes] | Section) -> None:
        """Raises `FFmpegError` or `ValueError` if FFmpeg doesn't recognise the file's container."""
        self._file = file
        file.seek(0)
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        self._container: Any = av.open(file, options=options, metadata_errors="ignore")
        streams = self._container.streams.audio
        self._stream = streams[0] if streams and streams[0].codec_context is not None else None

    @property
    def _format(self) -> str:
        return str(self._container.format.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def has_sound(self) -> bool:
        """Whether there is an audio track with a codec that FFmpeg knows."""
        return self._stream is not None

    @property
    def is_float(self) -> bool:
        """Whether samples may be above full scale on purpose."""
        return self._stream is not None and self._stream.codec_context.name.startswith(_FLOAT_CODECS)

    @property
    def claimed_s(self) -> float:
        """About how long it is by its header; 0 if that doesn't say."""
        return self._container.duration / av.time_base if self._container.duration else 0.0

    def pieces(self, condition: Condition) -> Iterator[Piece]:
        """Everything that can be decoded; `condition` records what can't. To be called once."""
        tally = _Tally()
        frames: list[Samples] = []  # not yet yielded, all of one form
        form: tuple[int, int, Any] | None = None
        num_samples = 0
        for packet in self._packets():
            for frame in self._decoded(packet, tally):
                channels = frame.layout.nb_channels
                samples = frame.to_ndarray()  # [C, t], or [1, t · C]
                samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
                if frames and (form != (frame.sample_rate, channels, samples.dtype) or num_samples >= BLOCK_SAMPLES):
                    yield _piece(form, frames)
                    frames, num_samples = [], 0
                form = (frame.sample_rate, channels, samples.dtype)
                frames.append(samples)
                num_samples += samples.size
        if frames:
            yield _piece(form, frames)
        self._record_damage(tally, condition)

    def _record_damage(self, tally: _Tally, condition: Condition) -> None:
        lost_s = tally.lost_s(self._end_at(tally))
        missing_s = self._claimed_s(tally) - tally.decoded_s - lost_s
        if missing_s > (LEAST_DAMAGE_S if self._format in _EXACT else _PADDING_S):
            if self._format == "ogg":  # its pages count samples, so what is missing was in damaged ones
                lost_s += missing_s
            else:
                condition.missing_s += missing_s
        condition.lost_s += lost_s

    def _end_at(self, tally: _Tally) -> int:
        """Where the sound ends in the file, in bytes; 0 if packets have lengths of their own."""
        if self._format == "mp3":
            return tally.end_at
        return self._file.seek(0, os.SEEK_END) if self._format in _UNFRAMED else 0  # packets don't say

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except (av.FFmpegError, OSError, ValueError):  # nothing more can be demuxed
            return

    def _decoded(self, packet: Any, tally: _Tally) -> list[Any]:
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError):
            tally.failed(packet)
            return []
        tally.decoded(packet, frames)
        return [*frames]

    def _claimed_s(self, tally: _Tally) -> float:
        """The stream's length by its header; 0 if that doesn't say, or only guesses."""
        names = set(self._format.split(","))
        stream, duration = self._stream, self._container.duration
        assert stream is not None
        if names & _COUNTING_LONGEST:
            return duration / av.time_base if duration and len(self._container.streams) == 1 else 0.0
        if "mp3" in names:
            return self._counted_frames(tally.first_at) * tally.frame_s
        return float(stream.duration * stream.time_base) if names & _COUNTING and stream.duration else 0.0

    def _counted_frames(self, first_at: int) -> int:
        """The number of an MP3's frames by the Xing, Info or VBRI header before the first one; 0 without it."""
        start = max(0, first_at - _LONGEST_FRAME_BYTES)
        self._file.seek(start)
        head = self._file.read(first_at - start)
        for name, offset in ((b"Xing", 8), (b"Info", 8), (b"VBRI", 14)):
            at = head.rfind(name)
            if at >= 0 and (offset != 8 or head[at + 7] & 1):
                return int.from_bytes(head[at + offset : at + offset + 4], "big")
        return 0


class _Tally:
    """Counts what became of a stream's packets."""

    def __init__(self) -> None:
        self.decoded_s = 0.0
        self.frame_s = 0.0  # the length of an MP3 frame
        self.first_at = 0  # where the first decoded packet lies in the file, in bytes
        self.end_at = 0  # where the last decoded packet ends
        self._decoded_bytes = 0
        self._tag_bytes = 0
        self._lost = _Lost()  # between decoded packets
        self._tail = _Lost()  # after the last one

    def lost_s(self, end_at: int) -> float:
        """About how much sound was lost; with an `end_at`, judged by bytes too, since packets may be passed over."""
        if self._tail.num_bytes > _MOST_JUNK_BYTES:
            self._lost.add(self._tail)
        if not end_at or not self._decoded_bytes:
            return self._lost.duration_s
        # The demuxer skips some bytes without returning them.
        skipped_bytes = end_at - self.first_at - self._decoded_bytes - self._tag_bytes
        lost_bytes = max(self._lost.num_bytes, skipped_bytes)
        return max(self._lost.duration_s, lost_bytes / self._decoded_bytes * self.decoded_s)

    def decoded(self, packet: Any, frames: Any) -> None:
        """Count a packet that gave these frames."""
        if not frames:
            return
        if not self._decoded_bytes:
            self.first_at = packet.pos or 0
            rate = max(1, frames[0].sample_rate)
            self.frame_s = (1_152 if rate >= 32_000 else 576) / rate
        self._decoded_bytes += packet.size
        self.end_at = (packet.pos or 0) + packet.size
        self.decoded_s += sum(frame.samples / max(1, frame.sample_rate) for frame in frames)
        self._lost.add(self._tail)
        self._tail = _Lost()

    def failed(self, packet: Any) -> None:
        """Count a packet that couldn't be decoded."""
        content = bytes(packet)
        if any(tag in content for tag in _TAGS):
            self._tag_bytes += packet.size
        else:
            duration_s = float(packet.duration * packet.time_base) if packet.duration and packet.time_base else 0.0
            self._tail.add(_Lost(packet.size, duration_s))


@dataclass
class _Lost:
    """Packets that couldn't be decoded."""

    num_bytes: int = 0
    duration_s: float = 0.0

    def add(self, other: _Lost) -> None:
        """Count the other's packets too."""
        self.num_bytes += other.num_bytes
        self.duration_s += other.duration_s


def _piece(form: tuple[int, int, Any] | None, frames: list[Any]) -> Piece:
    assert form is not None
    rate, _, dtype = form
    samples = np.concatenate(frames)
    if dtype == np.uint8:
        samples = samples.astype(np.int16) - 128
    scale = _SCALES.get(dtype)
    return Piece(
        rate, samples.astype(np.float32) * np.float32(scale) if scale else samples.astype(np.float32, copy=False)
    )
