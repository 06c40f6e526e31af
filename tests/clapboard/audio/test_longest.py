"""A recording that is too long is refused: found by decoding, whatever its header claims, and at little cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from clapboard.audio.windows import SAMPLE_RATE, Span, blocks, windows
from clapboard.errors import AudioTooLong
from clapboard.settings import Settings
from tests.support.damaged_recordings import noisy, with_sizes, written
from tests.support.recordings import silent_flac

HOUR_S = 3600.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "long.flac"


def read_s(path: Path, longest_s: float) -> tuple[float, str]:
    """How much of the file came before it ended, in seconds, and the error that ended it, if any."""
    num_samples = 0
    try:
        for block in blocks(path, longest_s=longest_s):
            num_samples += block.size
    except AudioTooLong as error:
        return num_samples / SAMPLE_RATE, str(error)
    return num_samples / SAMPLE_RATE, ""


def test_the_default_is_four_hours() -> None:
    assert Settings().max_audio_s == 4 * HOUR_S


def test_it_is_refused_before_anything_of_it_is_used(file: Path) -> None:
    file.write_bytes(silent_flac(2 * HOUR_S))
    assert read_s(file, HOUR_S) == (
        0.0,
        "long.flac is longer than the 1 h that CLAPBOARD_MAX_AUDIO_S allows: cut it into shorter files, or raise that "
        "setting.",
    )


@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_plain_samples_are_counted_not_believed(file: Path, kind: str) -> None:
    file.write_bytes(with_sizes(written(noisy(12), kind), kind, lambda _: 0))
    num_s, error = read_s(file, 10)
    assert num_s == 0
    assert "longer than the 10 s" in error
    assert read_s(file, 12) == (12.0, "")


def test_a_header_that_claims_less_is_found_out_at_the_bound(file: Path) -> None:
    file.write_bytes(silent_flac(2 * HOUR_S, claimed_s=5))
    num_s, error = read_s(file, 120)
    assert 60 < num_s <= 120
    assert "longer than the 2 min" in error


def test_a_header_that_claims_more_refuses_nothing(file: Path) -> None:
    file.write_bytes(silent_flac(30, claimed_s=100 * HOUR_S))
    assert read_s(file, 30) == (30.0, "")


def test_float_samples_and_joined_recordings_are_bounded_too(file: Path) -> None:
    file.write_bytes(written(noisy(12), "WAV", "FLOAT"))
    assert read_s(file, 11)[0] == 0
    file.write_bytes(silent_flac(8) + silent_flac(8))
    assert read_s(file, 16) == (16.0, "")
    assert "longer than the 15 s" in read_s(file, 15)[1]


def test_a_piece_that_lies_beyond_the_bound_cant_be_reached(file: Path) -> None:
    file.write_bytes(silent_flac(HOUR_S))
    assert [window.end_s for window in windows(file, span=Span(20, 30), longest_s=HOUR_S)] == [10.0]
    with pytest.raises(AudioTooLong):
        [*windows(file, span=Span(3000, 3001), longest_s=600)]
