"""All of a file is read, whatever its header claims, or one sentence says why not; what is damaged is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from clapboard.audio.pieces import Condition
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, blocks, read, windows
from clapboard.errors import AudioError
from tests.support.damaged_recordings import (
    RATE_HZ,
    claiming_frames,
    encoded,
    noisy,
    streamed_mp3,
    with_hole,
    with_sizes,
    written,
)
from tests.support.recordings import Samples, sweep

PLAIN = ("WAV", "WAVEX", "RF64", "AIFF", "AU", "CAF", "W64")
CLOSE_S = 0.05


def length(path: Path, content: bytes) -> tuple[float, str]:
    """How long the file is as it is read, in seconds, and what is told of its damage."""
    path.write_bytes(content)
    condition = Condition()
    samples = read(path, condition=condition)
    cut = list(windows(path))
    assert cut[-1].end_s == pytest.approx(samples.size / SAMPLE_RATE, abs=1e-6)
    if samples.size > WINDOW_SAMPLES:  # in a stream as in one piece
        np.testing.assert_array_equal(cut[-1].waveform, samples[-WINDOW_SAMPLES:])
    return samples.size / SAMPLE_RATE, condition.damage


# Headers that claim something else


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize(
    "claim", [lambda _: 0, lambda size: size // 3, lambda size: size // 3 * 2 + 1], ids=["0", "a third", "two thirds"]
)
def test_plain_samples_are_read_to_the_end_whatever_size_is_claimed(
    tmp_path: Path, kind: str, claim: Callable[[int], int]
) -> None:
    samples = noisy(3)
    whole = written(samples, kind)
    (tmp_path / "whole").write_bytes(whole)
    expected = read(tmp_path / "whole")
    lying = with_sizes(whole, kind, claim)
    assert lying != whole
    assert length(tmp_path / "a", lying) == (3.0, "")
    np.testing.assert_array_equal(read(tmp_path / "a"), expected)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_truncated_file_is_read_to_its_end_and_reported_as_shorter(tmp_path: Path, kind: str) -> None:
    whole = written(noisy(4), kind)
    found_s, damage = length(tmp_path / "a", whole[: len(whole) - 2 * RATE_HZ])
    assert found_s == pytest.approx(3, abs=0.01)
    assert damage == "it is 1.0 s shorter than its header says"


@pytest.mark.parametrize("kind", PLAIN)
def test_metadata_and_padding_after_the_sound_are_not_read_as_sound(tmp_path: Path, kind: str) -> None:
    whole = written(noisy(2), kind)
    for behind in (bytes(100_000), b"id3 \x10\x00\x00\x00" + b"x" * 16 if kind == "WAV" else b""):
        found_s, damage = length(tmp_path / "a", whole + behind)
        assert found_s == pytest.approx(2, abs=CLOSE_S) or kind == "W64"  # in which libsndfile pads
        assert not damage


def test_an_empty_recording_before_metadata_stays_empty(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(written(noisy(0), "WAV") + b"LIST\x04\x00\x00\x00INFO")
    with pytest.raises(AudioError, match="holds no samples"):
        read(tmp_path / "a.wav")


@pytest.mark.parametrize("share", [0.0, 1 / 3, 0.9, 3.0])
def test_an_mp3_is_read_to_its_end_however_many_frames_it_claims(tmp_path: Path, share: float) -> None:
    samples = sweep(6, RATE_HZ)
    lying = claiming_frames(written(samples, "MP3"), share)
    found_s, damage = length(tmp_path / "a.mp3", lying)
    assert found_s == pytest.approx(6, abs=0.1)
    assert ("shorter than its header says" in damage) == (share > 1)


def test_an_mp3_that_was_written_to_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    # The bit rate changes a lot, so that an estimate by the first frames is wrong.
    samples = np.concatenate([noisy(2) * 1e-3, noisy(20), noisy(2) * 1e-3])
    found_s, damage = length(tmp_path / "b.mp3", streamed_mp3(tmp_path / "a.mp3", samples))
    assert found_s == pytest.approx(24, abs=0.15)
    assert not damage


@pytest.mark.parametrize("total", [0, 20_000, 400_000])
def test_a_flac_is_read_to_its_end_however_many_samples_it_claims(tmp_path: Path, total: int) -> None:
    content = bytearray(written(noisy(4), "FLAC"))
    content[21] &= 0xF0
    content[22:26] = total.to_bytes(4, "big")
    found_s, damage = length(tmp_path / "a.flac", bytes(content))
    assert found_s == 4
    assert damage == ("it is 21.0 s shorter than its header says" if total == 400_000 else "")


# Several recordings in one file


@pytest.mark.parametrize("kind", PLAIN)
def test_joined_recordings_of_plain_samples_are_read_one_after_the_other(tmp_path: Path, kind: str) -> None:
    first, second = noisy(2), noisy(1, 1)
    content = written(first, kind) + written(second, kind, rate=RATE_HZ) + written(first, "WAV")
    assert length(tmp_path / "a", content) == (5.0, "")
    (tmp_path / "second.wav").write_bytes(written(second, "WAV"))
    found = read(tmp_path / "a")[2 * SAMPLE_RATE : 3 * SAMPLE_RATE]
    assert np.corrcoef(found, read(tmp_path / "second.wav"))[0, 1] > 0.99


@pytest.mark.parametrize("kind", PLAIN)
def test_joined_recordings_without_sizes_are_separated(tmp_path: Path, kind: str) -> None:
    dead = with_sizes(written(noisy(2), kind), kind, lambda _: 0)
    assert length(tmp_path / "a", dead + dead) == (4.0, "")


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", ""), ("MP3", "")])
@pytest.mark.parametrize("change", ["nothing", "rate", "channels", "shorter"])
def test_joined_recordings_are_read_when_rate_or_channels_change(
    tmp_path: Path, kind: str, subtype: str, change: str
) -> None:
    first = sweep(3, RATE_HZ)
    rate = 48_000 if change == "rate" else RATE_HZ
    second = sweep(0.5 if change == "shorter" else 2, rate, seed=1)
    if change == "channels":
        second = np.stack([second, second], axis=1)
    content = written(first, kind, subtype) + written(second, kind, subtype, rate=rate)
    found_s, damage = length(tmp_path / "a", content)
    assert found_s == pytest.approx(3 + len(second) / rate, abs=0.2 if kind == "MP3" else 0.02)
    assert not damage
    rms = float(np.sqrt(np.mean(read(tmp_path / "a")[round(3.1 * SAMPLE_RATE) :] ** 2)))
    assert rms == pytest.approx(float(np.sqrt(np.mean(second**2))), rel=0.1)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.m4a", "aac"),
        ("a.mp4", "alac"),
        ("a.mov", "pcm_s16le"),
        ("a.webm", "libopus"),
        ("a.mkv", "flac"),
        ("a.oga", "flac"),
        ("a.aac", "aac"),
        ("a.wv", "wavpack"),
        ("a.avi", "pcm_s16le"),
        ("a.tta", "tta"),
    ],
)
def test_joined_files_of_every_container_are_read_or_reported_as_damaged(tmp_path: Path, name: str, codec: str) -> None:
    content = encoded(tmp_path / name, sweep(3, 48_000), codec, rate=48_000)
    found_s, damage = length(tmp_path / "b", content + content)
    assert found_s == pytest.approx(6, abs=0.1) or damage


# Damage


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp3", "libmp3lame"),
        ("a.ogg", "libopus"),
        ("a.oga", "flac"),
        ("a.flac", "flac"),
        ("a.aac", "aac"),
        ("a.ac3", "ac3"),
        ("a.m4a", "aac"),
        ("a.webm", "libopus"),
        ("a.tta", "tta"),
        ("a.wv", "wavpack"),
    ],
)
def test_a_hole_is_left_out_as_ffmpeg_does_and_reported(tmp_path: Path, name: str, codec: str) -> None:
    holed = with_hole(encoded(tmp_path / name, noisy(20, rate=48_000), codec, rate=48_000))
    found_s, damage = length(tmp_path / name, holed)
    decoded_s = 0.0
    with av.open(str(tmp_path / name)) as container:
        for packet in container.demux(audio=0):
            try:
                decoded_s += sum(frame.samples / frame.sample_rate for frame in packet.decode())
            except av.FFmpegError:
                continue
    assert found_s == pytest.approx(decoded_s, abs=CLOSE_S)
    assert 14 < found_s < 20.1
    assert (
        "can't be decoded" in damage or "shorter" in damage or codec in {"tta", "wavpack"}
    )  # which fill holes with noise


def test_zeros_between_the_frames_of_an_mp3_lose_no_other_frame(tmp_path: Path) -> None:
    content = written(sweep(10, RATE_HZ), "MP3")
    middle = len(content) // 2
    found_s, damage = length(tmp_path / "a.mp3", content[:middle] + bytes(4096) + content[middle:])
    assert found_s == pytest.approx(10, abs=0.15)
    assert "can't be decoded" in damage


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", ""), ("MP3", "")])
def test_a_truncated_compressed_file_is_read_to_its_end_and_reported_as_shorter(
    tmp_path: Path, kind: str, subtype: str
) -> None:
    content = written(noisy(20), kind, subtype)
    found_s, damage = length(tmp_path / "a", content[: len(content) // 2])
    assert found_s == pytest.approx(10, abs=0.3)
    assert "shorter than its header says" in damage


def test_tags_around_an_mp3_are_no_damage(tmp_path: Path) -> None:
    content = written(sweep(5, RATE_HZ), "MP3")
    ape = b"APETAGEX" + b"\xd0\x07\x00\x00" + (4000).to_bytes(4, "little") + bytes(3984) + b"APETAGEX" + bytes(24)
    id3v1 = b"TAG" + b"title".ljust(125, b"\0")
    id3v2 = b"ID3\x04\x00\x00\x00\x00\x10\x00" + bytes(2048)
    for tagged in (id3v2 + content, content + id3v1, content + ape + id3v1, id3v2 + content + ape):
        found_s, damage = length(tmp_path / "a.mp3", tagged)
        assert found_s == pytest.approx(5, abs=0.06)
        assert not damage


# Whatever a file is


def test_any_spoilt_file_gives_samples_or_one_sentence(tmp_path: Path) -> None:
    """Cut, flipped, zeroed, edited at its head: a fixed draw of some hundred, over all containers."""
    rng = np.random.default_rng(12)
    plain = [written(noisy(1), kind) for kind in (*PLAIN, "FLAC", "OGG", "MP3", "VOC", "IRCAM", "NIST")]
    codecs = {"a.m4a": "aac", "a.webm": "libopus", "a.avi": "pcm_s16le", "a.wv": "wavpack", "a.tta": "tta"}
    others = [encoded(tmp_path / name, noisy(1, rate=48_000), codec, rate=48_000) for name, codec in codecs.items()]
    outcomes = [_outcome(tmp_path / "a", content) for file in (*plain, *others) for content in _spoilt(file, rng)]
    assert set(outcomes) <= {"samples", "sentence", "nothing"}
    assert outcomes.count("samples") > len(outcomes) / 3 > 0 < outcomes.count("sentence") < len(outcomes) * 2 / 3


def _spoilt(content: bytes, rng: np.random.Generator) -> list[bytes]:
    spoilt = [content[: int(len(content) * share)] for share in (0.001, 0.02, 0.7)]
    for region, number in ((64, 1), (64, 4), (200, 8), (len(content), 40)):
        changed = bytearray(content)
        for at in rng.integers(0, region, number):
            changed[at] = rng.integers(256)
        spoilt.append(bytes(changed))
    for start in rng.integers(0, 60, 2):
        value = (b"\0" * 8, b"\xff" * 8)[int(rng.integers(2))]
        spoilt.append(content[:start] + value + content[start + 8 :])
    return spoilt


def _outcome(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    try:
        num_samples = sum(block.size for block in itertools.islice(blocks(path), 100))
    except AudioError as error:
        told = str(error)
        return "sentence" if told.startswith("a ") and told.endswith(".") and "\n" not in told else told
    return "samples" if num_samples else "nothing"


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("picture.wav", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"),
        ("archive.mp3", b"PK\x03\x04\x14\x00\x00\x00"),
        ("text.flac", b"Dear Sir or Madam, "),
        ("program.ogg", b"\x7fELF\x02\x01\x01"),
        ("document.aac", b"%PDF-1.7\n"),
    ],
)
def test_what_is_no_audio_is_refused_whatever_its_name_is(tmp_path: Path, name: str, head: bytes) -> None:
    (tmp_path / name).write_bytes(head + np.random.default_rng(5).bytes(20_000))
    with pytest.raises(AudioError, match="no audio"):
        read(tmp_path / name)


# The files that were found


CASES = {
    "streamed_vbr.mp3": (32.0, ""),
    "joined.mp3": (50.1, ""),
    "rate_change.mp3": (50.1, ""),
    "xing_third.mp3": (12.0, ""),
    "long_then_short.ogg": (33.0, ""),
    "power_cut.wav": (1.0, ""),
    "gap.mp3": (30.0, "can't be decoded"),
}


@pytest.mark.parametrize("name", CASES)
def test_files_that_other_decoders_read_in_part_are_read_as_a_whole(cases: Path, name: str) -> None:
    right_s, told = CASES[name]
    condition = Condition()
    assert read(cases / name, condition=condition).size / SAMPLE_RATE == pytest.approx(right_s, abs=0.07)
    assert told in condition.damage
    assert bool(told) == bool(condition.damage)


# Channels


def antiphase(share: float) -> Samples:
    samples = noisy(3)
    return np.stack([samples, -share * samples], axis=1)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_the_louder_channel_is_used_if_both_cancel_each_other(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(written(antiphase(0.9), kind))
    (tmp_path / "left").write_bytes(written(antiphase(0.9)[:, 0], kind))
    condition = Condition()
    np.testing.assert_array_equal(read(tmp_path / "a", condition=condition), read(tmp_path / "left"))
    assert condition.cancelled_s == pytest.approx(3)


@pytest.mark.parametrize("share", [0.4, 0.0, -1.0])
def test_the_mean_is_used_as_long_as_it_keeps_the_sound(tmp_path: Path, share: float) -> None:
    (tmp_path / "a.wav").write_bytes(written(antiphase(share), "WAV", "FLOAT"))
    (tmp_path / "mean.wav").write_bytes(written(antiphase(share).mean(axis=1), "WAV", "FLOAT"))
    np.testing.assert_allclose(read(tmp_path / "a.wav"), read(tmp_path / "mean.wav"), atol=1e-6)


def test_silence_in_all_channels_stays_silence(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(written(np.zeros((RATE_HZ, 2), np.float32), "WAV"))
    condition = Condition()
    assert not read(tmp_path / "a.wav", condition=condition).any()
    assert not condition.cancelled_s


def test_a_chosen_channel_is_used_alone(tmp_path: Path) -> None:
    channels = np.stack([noisy(1, seed) for seed in range(3)], axis=1)
    (tmp_path / "a.wav").write_bytes(written(channels, "WAV"))
    (tmp_path / "mono.wav").write_bytes(written(channels[:, 0], "WAV"))
    for channel, index in (("left", 0), ("right", 1), ("3", 2)):
        (tmp_path / "one.wav").write_bytes(written(channels[:, index], "WAV"))
        np.testing.assert_array_equal(read(tmp_path / "a.wav", channel=channel), read(tmp_path / "one.wav"))
    np.testing.assert_array_equal(read(tmp_path / "mono.wav", channel="right"), read(tmp_path / "mono.wav"))
    with pytest.raises(AudioError, match=r"a\.wav has 3 channels, and the label config asks for channel 4"):
        read(tmp_path / "a.wav", channel="4")
