from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Waveform
from clapboard.errors import ClapboardError
from clapboard.labels.captions import RULES, KeywordsAlone
from training.mini.batches import NEUTRAL, NEUTRAL_SHARE, BatchMaker, Mixing, excerpt, level, mix, synthetic_recordings
from training.mini.esc10 import Recording, list_clips, load_recordings
from training.pretraining.batch import respelt
from training.pretraining.processes import ALONE, Processes
from training.sounds.synthesis import synthesise


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [Recording(kind, synthesise(kind, seed, 2.0)) for kind in ("rain", "bell", "siren") for seed in range(3)]


def batch_maker(recordings: list[Recording], seed: int = 0, processes: Processes = ALONE) -> BatchMaker:
    return BatchMaker(
        recordings, recordings, RULES, synthetic_per_epoch=7, batch_size=4, seed=seed, processes=processes
    )


def same_sounds(first: Sequence[Waveform], second: Sequence[Waveform]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_manifest_gives_the_clips_of_the_wanted_folds(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "b.wav", np.full(4410, 0.5, np.float32), 44_100)
    (tmp_path / "esc10.csv").write_text(
        "filename,fold,category,freesound_id,licence,author,source\n"
        "a.wav,1,rain,11,CC0,Ann,https://example.org/11\n"
        "b.wav,2,dog bark,12,CC-BY,Bob,https://example.org/12\n"
    )
    clips = list_clips(tmp_path, [2])
    assert [(clip.kind, clip.author, clip.licence, clip.freesound_id) for clip in clips] == [
        ("dog bark", "Bob", "CC-BY", "12")
    ]
    (recording,) = load_recordings(clips)
    assert recording.kind == "dog bark"
    assert abs(recording.waveform.size - 4800) <= 1


def test_a_folder_without_a_manifest_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ClapboardError, match=r"no esc10\.csv"):
        list_clips(tmp_path / "nowhere", [1])


def test_an_epoch_follows_from_seed_and_number_alone(recordings: list[Recording]) -> None:
    first = list(batch_maker(recordings).epoch(3))
    again = list(batch_maker(recordings).epoch(3))
    assert [batch.captions for batch in first] == [batch.captions for batch in again]
    assert all(same_sounds(a.sounds, b.sounds) for a, b in zip(first, again, strict=True))
    assert [b.captions for b in first] != [b.captions for b in batch_maker(recordings).epoch(4)]
    assert [b.captions for b in first] != [b.captions for b in batch_maker(recordings, seed=1).epoch(3)]


def test_an_epoch_goes_on_from_any_batch(recordings: list[Recording]) -> None:
    whole, rest = list(batch_maker(recordings).epoch(2)), list(batch_maker(recordings).epoch(2, skip=3))
    assert len(rest) == len(whole) - 3
    assert rest[0].captions == whole[3].captions
    assert rest[0].shared_captions == whole[3].shared_captions
    assert same_sounds(rest[0].sounds, whole[3].sounds)


def test_processes_share_the_batch_that_one_alone_would_make(recordings: list[Recording]) -> None:
    (alone, *_) = batch_maker(recordings).epoch(1)
    (first, *_), (second, *_) = (batch_maker(recordings, processes=Processes(rank, 2)).epoch(1) for rank in range(2))
    for name in ("captions", "meanings", "caption_meanings"):
        parts = getattr(first, name), getattr(second, name)
        assert [one for pair in zip(*parts, strict=True) for one in pair] == getattr(alone, name)
    assert same_sounds(first.sounds, alone.sounds[::2])
    assert same_sounds(second.sounds, alone.sounds[1::2])
    assert first.shared_captions == second.shared_captions == alone.shared_captions


def test_a_batch_holds_a_caption_of_each_sound_each_kind_and_a_neutral_one(recordings: list[Recording]) -> None:
    batches = list(batch_maker(recordings).epoch(0))
    assert len(batches) == batch_maker(recordings).num_batches == 4
    for batch in batches:
        assert len(batch.sounds) == len(batch.captions) == 4
        for sound in batch.sounds:
            assert sound.dtype == np.float32
            assert 0 < sound.size <= WINDOW_SAMPLES
            assert np.abs(sound).max() <= 1
        for meaning in batch.meanings:
            assert meaning[NEUTRAL] == NEUTRAL_SHARE
            assert sum(meaning.values()) == pytest.approx(1 + NEUTRAL_SHARE)
        assert all(sum(meaning.values()) == pytest.approx(1) for meaning in batch.caption_meanings)
        assert batch.shared_meanings == [{"bell": 1}, {"rain": 1}, {"siren": 1}, {NEUTRAL: 1}]
        assert len(batch.shared_captions) == 4


def test_without_mixing_every_sound_is_alone(recordings: list[Recording]) -> None:
    batches = BatchMaker(
        recordings, [], KeywordsAlone(), synthetic_per_epoch=0, batch_size=9, seed=0, mixing=Mixing(0, 0)
    )
    for batch in (next(batches.epoch(number)) for number in range(5)):
        assert {text.lower() for text in batch.captions} <= {"rain", "bell", "siren"}
        assert all(len(meaning) == 1 for meaning in batch.caption_meanings)


def test_what_is_mixed_says_so(recordings: list[Recording]) -> None:
    always = Mixing(together=0.5, in_turn=0.5)
    batches = BatchMaker(recordings, [], RULES, synthetic_per_epoch=0, batch_size=9, seed=0, mixing=always)
    pairs = [
        (meaning, text)
        for number in range(6)
        for batch in batches.epoch(number)
        for meaning, text in zip(batch.caption_meanings, batch.captions, strict=True)
    ]
    both = [text for meaning, text in pairs if len(meaning) == 2 and min(meaning.values()) >= 0.15]
    assert len(both) > 10
    assert any(re.search("then|followed|after", text, re.IGNORECASE) for text in both)
    assert any(re.search(" and | with ", text) for text in both)


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
    for batch in BatchMaker(silent, [], RULES, synthetic_per_epoch=9, batch_size=3, seed=0).epoch(0):
        assert all(np.abs(sound).max() < 0.01 for sound in batch.sounds)
        assert batch.meanings == [{"silence": 1.0, NEUTRAL: NEUTRAL_SHARE}] * 3


def test_synthetic_recordings_are_as_many_of_each_kind_as_asked() -> None:
    made = synthetic_recordings(2, 0, kinds=("bell", "knocking"))
    assert [recording.kind for recording in made] == ["bell", "bell", "knocking", "knocking"]
    again = synthetic_recordings(2, 0, kinds=("bell", "knocking"))
    assert all(np.array_equal(a.waveform, b.waveform) for a, b in zip(made, again, strict=True))


def test_texts_come_in_small_letters_and_without_full_stop_too() -> None:
    rng = np.random.default_rng(0)
    assert {respelt("A bell.", rng) for _ in range(100)} == {"A bell.", "a bell.", "A bell"}
