from __future__ import annotations

import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import soxr
from transformers import ClapFeatureExtractor

from clapboard.audio.windows import (
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    Span,
    read,
    repeat_pad,
    window_waveform,
    windows,
)
from clapboard.errors import AudioError
from tests.support.recordings import Samples, encode, silent_video, sweep

REPOSITORY = Path(__file__).parents[3]


def write(path: Path, samples: Samples, sample_rate: int = SAMPLE_RATE, subtype: str | None = None) -> Path:
    formats = {".opus": "OGG", ".ogg": "OGG"}
    soundfile.write(path, samples, sample_rate, format=formats.get(path.suffix), subtype=subtype)
    return path


def assert_alike(found: Samples, expected: Samples, *, correlation: float) -> None:
    size = min(found.size, expected.size)
    assert np.corrcoef(found[:size], expected[:size])[0, 1] > correlation


# Windows


@pytest.mark.parametrize("num_samples", [1, 47_999, 240_000, 240_432, 479_952, 479_999, 480_000])
def test_a_short_recording_is_padded_exactly_as_the_checkpoints_extractor_does(num_samples: int) -> None:
    samples = sweep(10)[:num_samples]
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc", padding="repeatpad")
    padded = extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="np")["input_features"]
    window = repeat_pad(samples)
    same = extractor(window, sampling_rate=SAMPLE_RATE, return_tensors="np")["input_features"]
    np.testing.assert_array_equal(same, padded)
    repeats = WINDOW_SAMPLES // num_samples
    np.testing.assert_array_equal(window[: repeats * num_samples].reshape(repeats, -1), np.tile(samples, (repeats, 1)))
    assert not window[repeats * num_samples :].any()


@pytest.mark.parametrize("num_samples", [1, 479_999, 480_000, 480_001, 959_999, 960_000, 960_001, 1_500_000])
def test_a_files_windows_are_those_of_its_samples(tmp_path: Path, num_samples: int) -> None:
    path = write(tmp_path / "a.wav", sweep(32)[:num_samples])
    samples = read(path)
    assert samples.size == num_samples
    cut = list(windows(path))
    np.testing.assert_array_equal(np.stack([w.waveform for w in cut]), window_waveform(samples))
    assert [window.index for window in cut] == list(range(max(1, math.ceil(num_samples / WINDOW_SAMPLES))))
    assert {window.waveform.dtype for window in cut} == {np.dtype(np.float32)}


def test_the_last_window_is_aligned_to_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sweep(23.5))
    cut = list(windows(path))
    assert [(window.start_s, window.end_s) for window in cut] == [(0, 10), (10, 20), (13.5, 23.5)]
    np.testing.assert_array_equal(cut[-1].waveform, read(path)[-WINDOW_SAMPLES:])


@pytest.mark.parametrize("name", ["a.wav", "a.ogg"])
@pytest.mark.parametrize(("start", "end"), [(0, 1), (48_000, 600_000), (500_000, 1_104_000)])
def test_a_piece_has_the_windows_of_a_recording_of_its_own(tmp_path: Path, name: str, start: int, end: int) -> None:
    path = write(tmp_path / name, sweep(25))
    span = Span(start / SAMPLE_RATE, end / SAMPLE_RATE)
    found = list(windows(path, span=span))
    np.testing.assert_array_equal(
        np.stack([window.waveform for window in found]), window_waveform(read(path)[start:end])
    )
    assert (found[0].start_s, found[-1].end_s) == (0, (end - start) / SAMPLE_RATE)


@pytest.mark.parametrize("span", [Span(20, 26), Span(26, 27)])
def test_a_piece_beyond_the_end_is_refused(tmp_path: Path, span: Span) -> None:
    path = write(tmp_path / "a.wav", sweep(25))
    with pytest.raises(AudioError, match=r"a\.wav is 25\.0 s long: choose a piece that ends before that"):
        list(windows(path, span=span))


@pytest.mark.parametrize("span", [Span(-1, 2), Span(3, 3), Span(3, 2)])
def test_a_span_that_makes_no_sense_is_refused(tmp_path: Path, span: Span) -> None:
    path = write(tmp_path / "a.wav", sweep(5))
    with pytest.raises(AudioError, match=r"of a\.wav is no piece"):
        list(windows(path, span=span))


def test_a_short_recordings_window_says_how_long_its_content_is(tmp_path: Path) -> None:
    (window,) = windows(write(tmp_path / "a.wav", sweep(2.5)))
    assert (window.start_s, window.end_s, window.waveform.shape) == (0, 2.5, (WINDOW_SAMPLES,))


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg", "a.m4a"])
def test_a_file_gives_the_same_windows_every_time(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _ = encode(path, sweep(12, 44_100), 44_100, "aac") if name == "a.m4a" else write(path, sweep(12, 44_100), 44_100)
    copy = Path(shutil.copy(path, tmp_path / f"copy{path.suffix}"))
    first, again, copied = ([window.waveform for window in windows(p)] for p in (path, path, copy))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, copied)


# Decoding


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "MS_ADPCM"])
def test_every_sample_format_of_wav_is_read(tmp_path: Path, subtype: str) -> None:
    samples = sweep(1.5)
    found = read(write(tmp_path / "a.wav", samples, subtype=subtype))
    assert found.size == pytest.approx(samples.size, abs=2000)
    assert_alike(found, samples, correlation=0.98)
    if subtype in {"PCM_24", "PCM_32", "FLOAT", "DOUBLE"}:
        np.testing.assert_allclose(found, samples, atol=2e-7)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.opus", "a.mp3", "a.aiff", "a.w64", "a.caf", "a.au"])
def test_every_format_of_soundfile_is_read(tmp_path: Path, name: str) -> None:
    samples = sweep(2)
    found = read(write(tmp_path / name, samples, subtype="OPUS" if name == "a.opus" else None))
    assert found.size == samples.size
    assert_alike(found, samples, correlation=0.98)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.m4a", "aac"),
        ("a.aac", "aac"),
        ("a.mp4", "alac"),
        ("a.webm", "libopus"),
        ("a.mkv", "pcm_s16le"),
        ("a.mov", "pcm_s24le"),
        ("a.avi", "pcm_s16le"),
        ("a.wv", "wavpack"),
        ("a.tta", "tta"),
    ],
)
def test_every_other_format_is_read_by_ffmpeg(tmp_path: Path, name: str, codec: str) -> None:
    samples = sweep(2)
    found = read(encode(tmp_path / name, samples, SAMPLE_RATE, codec))
    assert samples.size <= found.size < samples.size + 3000  # AAC fills its last frame
    delay = 1024 if name == "a.aac" else 0  # ADTS has nowhere to say that the encoder was late
    assert_alike(found[delay:], samples, correlation=0.98)


def test_the_content_decides_the_format_not_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sweep(1))
    for name in ("a.mp3", "a.txt", "a.raw", "a", ".wav", "ключ «1» #?.m3u8"):
        np.testing.assert_array_equal(read(Path(shutil.copy(path, tmp_path / name))), read(path))


@pytest.mark.parametrize("num_channels", [2, 8, 64])
def test_channels_are_averaged(tmp_path: Path, num_channels: int) -> None:
    samples = sweep(1.5)
    weights = np.linspace(0.5, 1.5, num_channels, dtype=np.float32)
    found = read(write(tmp_path / "a.wav", samples[:, None] * weights, subtype="FLOAT"))
    np.testing.assert_allclose(found, samples, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 22_050, 44_100, 44_101, 48_000, 96_000, 192_000])
def test_every_rate_becomes_48_khz_as_by_one_resampling_of_the_whole(tmp_path: Path, sample_rate: int) -> None:
    samples = sweep(11, sample_rate)
    path = write(tmp_path / "a.wav", samples, sample_rate, subtype="FLOAT")
    expected = soxr.resample(samples, sample_rate, SAMPLE_RATE) if sample_rate != SAMPLE_RATE else samples
    found = read(path)
    assert found.size == expected.size
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_resampling_keeps_a_tones_pitch_and_level(tmp_path: Path) -> None:
    time_s = np.arange(44_100) / 44_100
    path = write(tmp_path / "a.wav", (0.5 * np.sin(2 * np.pi * 1000 * time_s)).astype(np.float32), 44_100)
    found = read(path)
    spectrum = np.abs(np.fft.rfft(found))
    assert np.argmax(spectrum) * SAMPLE_RATE / found.size == pytest.approx(1000, abs=1)
    assert np.sqrt(np.mean(found**2)) == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)


@pytest.mark.parametrize("peak", [1.0, 1.5, 30_000.0, 3e38])
@pytest.mark.parametrize("kind", ["wav", "mkv"])
def test_a_float_file_above_full_scale_is_scaled_down_as_a_whole(tmp_path: Path, peak: float, kind: str) -> None:
    samples = sweep(2) / np.abs(sweep(2)).max()
    loud = samples * np.float32(peak)
    path = tmp_path / f"a.{kind}"
    if kind == "wav":
        write(path, np.stack([loud, loud], axis=1), subtype="FLOAT")
    else:
        encode(path, loud, SAMPLE_RATE, "pcm_f32le")
    np.testing.assert_allclose(read(path), samples, rtol=1e-5, atol=1e-7)


def test_a_quiet_float_file_is_left_alone(tmp_path: Path) -> None:
    samples = sweep(1) / 100
    np.testing.assert_array_equal(read(write(tmp_path / "a.wav", samples, subtype="FLOAT")), samples)


def test_a_resampled_square_wave_stays_within_full_scale(tmp_path: Path) -> None:
    square = np.sign(np.sin(np.arange(44_100) / 20)).astype(np.float32)
    found = read(write(tmp_path / "a.wav", square, 44_100))
    assert np.abs(found).max() == 1


def test_silence_is_silence(tmp_path: Path) -> None:
    (window,) = windows(write(tmp_path / "a.flac", np.zeros(44_100, np.float32), 44_100))
    assert not window.waveform.any()


def test_tags_in_any_encoding_are_no_reason_to_refuse_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    encode(path, sweep(1), SAMPLE_RATE, "pcm_s16le")
    expected = read(path)
    tag = b"ISFT"  # FFmpeg writes its own name there
    content = path.read_bytes()
    at = content.index(tag) + 8
    path.write_bytes(content[:at] + "é".encode("latin-1") + content[at + 1 :])
    np.testing.assert_array_equal(read(path), expected)


def test_a_flac_stream_that_doesnt_say_how_long_it_is_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", sweep(3))
    expected = read(path)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number of samples in STREAMINFO: 36 bits, zero where a stream was written to a pipe
    content[22:26] = bytes(4)
    path.write_bytes(content)
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_stream_that_doesnt_say_how_long_it_is_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav", sweep(2))
    expected = read(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    np.testing.assert_array_equal(read(path), expected)


def test_a_wav_that_breaks_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sweep(2))
    expected = read(path)
    path.write_bytes(path.read_bytes()[:100_001])
    found = read(path)
    assert found.size > 40_000
    np.testing.assert_array_equal(found, expected[: found.size])


def test_real_recordings_become_one_window_each(esc10: Path) -> None:
    for path in sorted((esc10 / "audio").iterdir())[:12]:
        (window,) = windows(path)
        assert 1 < window.end_s <= 10
        assert 0 < np.abs(window.waveform).max() <= 1


# Refusals


def nan_wav(path: Path) -> Path:
    samples = sweep(3)
    samples[100_000] = np.nan
    return write(path, samples, subtype="FLOAT")


def infinite_wav(path: Path) -> Path:
    samples = sweep(3)
    samples[-1] = -np.inf
    return write(path, samples, subtype="DOUBLE")


def cut(make: Callable[[Path], Path], share: float) -> Callable[[Path], Path]:
    def make_and_cut(path: Path) -> Path:
        content = make(path).read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return make_and_cut


def scrambled(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def make_and_scramble(path: Path) -> Path:
        content = bytearray(make(path).read_bytes())
        content[8192:-8192] = np.random.default_rng(1).bytes(len(content) - 16_384)
        path.write_bytes(content)
        return path

    return make_and_scramble


def of_bytes(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


def unknown_codec(path: Path) -> Path:
    encode(path, sweep(1), SAMPLE_RATE, "pcm_s16le")
    path.write_bytes(path.read_bytes().replace(b"A_PCM/INT/LIT", b"A_QQQ/INT/LIT"))
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def flac(path: Path) -> Path:
    return write(path, sweep(3))


def m4a(path: Path) -> Path:
    return encode(path, sweep(3), SAMPLE_RATE, "aac")


UNUSABLE: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "empty": ("a.wav", of_bytes(b""), "is empty"),
    "missing": ("a.wav", lambda path: path, "doesn't exist"),
    "folder": ("a.wav", folder, "isn't a file"),
    "pipe": ("a.wav", pipe, "isn't a file"),
    "zero-length": ("a.wav", lambda path: write(path, sweep(0)), "no samples"),
    "part of a sample": ("a.wav", lambda path: write(path, sweep(1)[:1], 192_000), "no samples"),
    "NaN": ("a.wav", nan_wav, "NaN or infinite"),
    "infinite": ("a.wav", infinite_wav, "NaN or infinite"),
    "text": ("a.wav", of_bytes(b"This is a letter.\n" * 500), "no audio that can be decoded"),
    "html": ("a.mp3", of_bytes(b"<!DOCTYPE html><html>403 Forbidden</html>"), "no audio that can be decoded"),
    "zeros": ("a.mp3", of_bytes(bytes(100_000)), "no audio that can be decoded"),
    "noise": ("a.ogg", of_bytes(np.random.default_rng(2).bytes(100_000)), "no audio that can be decoded"),
    "half a header": ("a.wav", of_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt "), "no audio that can be decoded"),
    "truncated m4a": ("a.m4a", cut(m4a, 0.5), "no audio that can be decoded"),
    "corrupt ogg": ("a.ogg", scrambled(lambda path: write(path, sweep(9))), "damaged: most of it"),
    "video without audio": ("a.mp4", silent_video, "no audio track"),
    "unknown codec": ("a.mkv", unknown_codec, "no audio track"),
    "1 Hz": ("a.wav", lambda path: write(path, sweep(1), 1), "sample rate of 1 Hz"),
    "2 GHz": ("a.wav", lambda path: write(path, sweep(1), 2_000_000_000), "sample rate of 2000000000 Hz"),
}


@pytest.mark.parametrize("case", UNUSABLE)
@pytest.mark.parametrize("reader", ["read", "windows"])
def test_a_file_that_isnt_audio_is_refused_in_one_sentence_with_its_name(
    tmp_path: Path, case: str, reader: str
) -> None:
    name, make, reason = UNUSABLE[case]
    path = make(tmp_path / name)
    with pytest.raises(AudioError, match=reason) as caught:
        read(path) if reader == "read" else list(windows(path))
    sentence = str(caught.value)
    assert sentence.startswith(name)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert str(tmp_path) not in sentence


def test_errors_call_the_file_by_the_name_that_was_given(tmp_path: Path) -> None:
    path = of_bytes(b"text")(tmp_path / "0a1b2c.bin")
    with pytest.raises(AudioError, match=r"^rain\.wav is no audio"):
        list(windows(path, name="rain.wav"))


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "list.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
    'mimeType="audio/wav"><Representation id="a" bandwidth="1"><BaseURL>{}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "list.sdp": "v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\na=control:{}\n",
}


@pytest.mark.parametrize("playlist", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["", ".wav", ".mp4"])
def test_a_playlist_is_refused_and_what_it_names_is_never_read(tmp_path: Path, playlist: str, suffix: str) -> None:
    path = tmp_path / f"{playlist}{suffix}"
    content = write(tmp_path / "victim.wav", sweep(0.1)).read_bytes()
    victim = os.open(pipe(tmp_path / "victim"), os.O_RDWR)  # a pipe, where what was read is gone
    os.write(victim, content)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/victim.wav"
        for address in (f"{tmp_path}/victim", f"file://{tmp_path}/victim", "victim", url):
            path.write_text(PLAYLISTS[playlist].format(address), "utf-8")
            with pytest.raises(AudioError, match="no audio that can be decoded"):
                read(path)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert os.read(victim, len(content) + 1) == content
    os.close(victim)


def test_ffmpeg_itself_would_have_followed_the_playlist(tmp_path: Path) -> None:
    victim = write(tmp_path / "victim.wav", sweep(1))
    path = tmp_path / "list.ffconcat"
    path.write_text(PLAYLISTS["list.ffconcat"].format(victim.name), "utf-8")
    with av.open(str(path)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == SAMPLE_RATE


# Length

MEMORY = """
import json, resource, sys
from pathlib import Path
from clapboard.audio.windows import windows
for name in sys.argv[1:]:
    num_windows = sum(1 for _ in windows(Path(name)))
    print(json.dumps([num_windows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def test_an_hour_needs_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    minute = sweep(60, 16_000)
    short, hour = write(tmp_path / "short.wav", minute, 16_000, subtype="FLOAT"), tmp_path / "hour.wav"
    with soundfile.SoundFile(hour, "w", 16_000, 1, "FLOAT") as sound:
        for _ in range(60):
            sound.write(minute)
    command = [sys.executable, "-c", MEMORY, str(short), str(hour)]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    (_, peak_of_short), (num_windows, peak_of_hour) = map(json.loads, process.stdout.splitlines())
    assert num_windows == 360
    assert peak_of_hour < 1.2 * peak_of_short


def test_cutting_into_windows_copies_a_sample_few_times_however_small_the_frames_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.m4a", sweep(40), SAMPLE_RATE, "aac")  # 1024 samples a frame
    num_copied = 0
    concatenate = np.concatenate

    def counting(arrays: Sequence[Samples], **options: Any) -> Samples:
        nonlocal num_copied
        joined: Samples = concatenate(arrays, **options)
        num_copied += joined.size
        return joined

    monkeypatch.setattr(np, "concatenate", counting)
    assert sum(1 for _ in windows(path)) == 4
    assert num_copied < 4 * 40 * SAMPLE_RATE
