from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapboard.audio import SAMPLE_RATE, WINDOW_SAMPLES
from clapboard.errors import ClapboardError
from training.dataset import (
    NEUTRAL_SHARE,
    BatchMaker,
    Recording,
    excerpt,
    level,
    load_recordings,
    mix,
    read_manifest,
    respelt,
    synthetic_recordings,
)
from training.sounds.synthesis import synthesise


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [Recording(kind, synthesise(kind, seed, 2.0)) for kind in ("rain", "bell", "siren") for seed in range(3)]


def batch_maker(recordings: list[Recording], seed: int = 0) -> BatchMaker:
    return BatchMaker(recordings, recordings, synthetic_per_epoch=7, batch_size=4, seed=seed)


def test_a_manifest_gives_the_clips_of_the_wanted_folds(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "b.wav", np.full(4410, 0.5, np.float32), 44_100)
    (tmp_path / "esc10.csv").write_text(
        "filename,fold,category,freesound_id,licence,author,source\n"
        "a.wav,1,rain,11,CC0,Ann,https://example.org/11\n"
        "b.wav,2,dog bark,12,CC-BY,Bob,https://example.org/12\n"
    )
    clips = read_manifest(tmp_path, [2])
    assert [(clip.kind, clip.author, clip.licence, clip.freesound_id) for clip in clips] == [
        ("dog bark", "Bob", "CC-BY", "12")
    ]
    (recording,) = load_recordings(clips)
    assert recording.kind == "dog bark"
    assert abs(recording.waveform.size - 4800) <= 1


def test_a_folder_without_a_manifest_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ClapboardError, match=r"no esc10\.csv"):
        read_manifest(tmp_path / "nowhere", [1])


def test_an_epoch_follows_from_seed_and_number_alone(recordings: list[Recording]) -> None:
    first = list(batch_maker(recordings).epoch(3))
    again = list(batch_maker(recordings).epoch(3))
    assert [batch.captions for batch in first] == [batch.captions for batch in again]
    assert all(np.array_equal(a.windows, b.windows) for a, b in zip(first, again, strict=True))
    assert [b.captions for b in first] != [b.captions for b in batch_maker(recordings).epoch(4)]
    assert [b.captions for b in first] != [b.captions for b in batch_maker(recordings, seed=1).epoch(3)]


def test_a_batch_holds_windows_and_a_caption_of_each_clip_each_kind_and_a_neutral_one(
    recordings: list[Recording],
) -> None:
    batches = list(batch_maker(recordings).epoch(0))
    assert len(batches) == batch_maker(recordings).num_batches == 4
    for batch in batches:
        assert batch.windows.shape == (4, WINDOW_SAMPLES)
        assert batch.windows.dtype == np.float32
        assert np.abs(batch.windows).max() <= 1
        assert len(batch.captions) == 4 + 3 + 1
        assert np.allclose(batch.shares.sum(axis=1), 1 + NEUTRAL_SHARE)
        assert np.allclose(batch.caption_shares.sum(axis=1), 1)
        assert np.array_equal(batch.caption_shares[4:], np.eye(4, dtype=np.float32))


def test_what_is_padded_is_padded_as_in_serving(recordings: list[Recording]) -> None:
    """A window is a whole number of repeats of its excerpt, then zeros."""
    once_only = 0
    for batch in batch_maker(recordings).epoch(1):
        for window in batch.windows:
            content = np.flatnonzero(window)[-1] + 1
            once_only += WINDOW_SAMPLES * 0.5 < content < WINDOW_SAMPLES * 0.98
            assert content > WINDOW_SAMPLES * 0.5 - 8
    assert once_only > 0


def test_excerpts_have_all_lengths_from_one_second_to_ten() -> None:
    rng = np.random.default_rng(0)
    wave = synthesise("speech", 1, 5.0)
    lengths_s = np.array([excerpt(wave, rng).size / SAMPLE_RATE for _ in range(150)])
    assert lengths_s.min() >= 1.0
    assert lengths_s.max() <= 10.0
    assert (lengths_s < 2.5).any()
    assert (lengths_s > 8.0).any()
    assert (lengths_s == 5.0).any()


def test_an_excerpt_is_cut_where_there_is_sound() -> None:
    wave = np.zeros(5 * SAMPLE_RATE, np.float32)
    wave[SAMPLE_RATE : 2 * SAMPLE_RATE] = synthesise("siren", 1, 1.0)
    rng = np.random.default_rng(1)
    heard = [float(np.abs(excerpt(wave, rng)).max()) > 0.01 for _ in range(60)]
    assert sum(heard) >= 54


def test_a_mix_holds_each_in_its_share() -> None:
    first, second = (level(synthesise(kind, 1, 1.0)) for kind in ("white noise", "pure tone"))
    both = mix(first, second, 0.75)
    assert float(both @ first / (first @ first)) == pytest.approx(0.75, abs=0.02)
    assert float(both @ second / (second @ second)) == pytest.approx(0.25, abs=0.02)


def test_silence_is_neither_amplified_nor_mixed() -> None:
    silent = [Recording("silence", synthesise("silence", seed, 2.0)) for seed in range(6)]
    for batch in BatchMaker(silent, [], synthetic_per_epoch=9, batch_size=3, seed=0).epoch(0):
        assert np.abs(batch.windows).max() < 0.01
        assert np.allclose(batch.shares, [[1, NEUTRAL_SHARE]])


def test_synthetic_recordings_are_as_many_of_each_kind_as_asked() -> None:
    made = synthetic_recordings(2, 0, kinds=("bell", "knocking"))
    assert [recording.kind for recording in made] == ["bell", "bell", "knocking", "knocking"]
    again = synthetic_recordings(2, 0, kinds=("bell", "knocking"))
    assert all(np.array_equal(a.waveform, b.waveform) for a, b in zip(made, again, strict=True))


def test_texts_come_in_small_letters_and_without_full_stop_too() -> None:
    rng = np.random.default_rng(0)
    assert {respelt("A bell.", rng) for _ in range(100)} == {"A bell.", "a bell.", "A bell"}
