"""What the embedded checkpoint promises in its model card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoProcessor, ClapModel, pipeline

from clapboard.labels.prompts import TEMPLATE, prompts_for
from clapboard.model.clap import ClapEncoder
from training.mini.batches import Mixing
from training.mini.card import PARAPHRASES, held_out_synthetic
from training.mini.esc10 import Recording, list_clips, load_recordings
from training.mini.event_figures import measure_events
from training.mini.recipe import Recipe, make
from training.mini.zero_shot import zero_shot
from training.pretrain import Schedule
from training.sounds.synthesis import KINDS, synthesise

ROOT = Path(__file__).parents[3]
MINI = ROOT / "clapboard" / "mini"
ESC10 = ROOT.parent / "shared" / "esc10"

needs_esc10 = pytest.mark.skipif(
    not (ESC10 / "esc10.csv").is_file(), reason="ESC-10 is not in ../shared/esc10, beside the repository"
)


@pytest.fixture(scope="module")
def encoder() -> ClapEncoder:
    return ClapEncoder.load("mini", device="cpu", engine="torch")


def test_the_checkpoint_is_at_most_16_mb() -> None:
    assert sum(file.stat().st_size for file in MINI.iterdir()) <= 16_000_000


def test_the_model_card_names_data_command_and_figures() -> None:
    card = (MINI / "README.md").read_text("utf-8")
    for part in ("ESC-10", "Karol J. Piczak", "CC0", "CC-BY", "python -m training.mini", "| ESC-10 fold 4 |"):
        assert part in card
    assert all(kind in card for kind in KINDS)


@needs_esc10
def test_the_model_card_names_every_author_of_the_training_clips() -> None:
    card = (MINI / "README.md").read_text("utf-8")
    assert [clip.author for clip in list_clips(ESC10, [1, 2, 3]) if clip.author not in card] == []


def test_synthetic_sounds_of_seeds_never_trained_on_are_recognised(encoder: ClapEncoder) -> None:
    report = zero_shot(encoder, held_out_synthetic())
    assert len(report.labels) == len(KINDS)
    assert report.accuracy >= 0.9, str(report)


@needs_esc10
def test_real_recordings_of_a_fold_never_trained_on_are_recognised_by_name(encoder: ClapEncoder) -> None:
    report = zero_shot(encoder, load_recordings(list_clips(ESC10, [4])))
    assert len(report.labels) == 10
    assert report.accuracy >= 0.9, str(report)


def test_it_tells_when_sounds_of_seeds_never_trained_on_are_heard(encoder: ClapEncoder) -> None:
    assert encoder.frame_scores is not None
    sounding = [clip for clip in held_out_synthetic() if clip.kind != "silence"]
    in_noise, _ = measure_events(encoder, sounding, mixtures=2)
    assert in_noise.f1 >= 0.5, in_noise


def test_a_paraphrase_is_nearest_to_the_name_that_it_paraphrases(encoder: ClapEncoder) -> None:
    kinds = list(PARAPHRASES)
    names = encoder.embed_texts([prompts_for(kind)[0] for kind in kinds])  # [10, D]
    said = [(kind, text) for kind, texts in PARAPHRASES.items() for text in texts]
    nearest = (encoder.embed_texts([text for _, text in said]) @ names.T).argmax(axis=1)
    wrong = [text for (kind, text), index in zip(said, nearest, strict=True) if kinds[index] != kind]
    assert len(wrong) <= 2, wrong


def test_transformers_itself_loads_the_folder_and_agrees(encoder: ClapEncoder) -> None:
    model = ClapModel.from_pretrained(MINI, local_files_only=True)
    processor = AutoProcessor.from_pretrained(MINI, local_files_only=True)
    classify = pipeline(
        "zero-shot-audio-classification",
        model=model,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
    )
    kinds = ["siren", "bell", "rain", "speech"]
    waveform = synthesise("siren", 2_000_000_100, 10.0)
    answers = classify(waveform, candidate_labels=kinds, hypothesis_template=TEMPLATE)
    logits = encoder.logit_scale * (
        encoder.embed_windows(waveform[None]) @ encoder.embed_texts([prompts_for(kind)[0] for kind in kinds]).T
    )
    scores = np.exp(logits[0] - logits[0].max())
    ours = dict(zip(kinds, scores / scores.sum(), strict=True))
    assert answers[0]["label"] == "siren"
    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(ours, abs=1e-3)


SHORT = Recipe(
    schedule=Schedule(epochs=1, seed=5, warmup_epochs=0, averaging=0.5),
    batch_size=3,
    text_steps=2,
    synthetic_per_kind=0,
    synthetic_per_epoch=0,
)


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [Recording(kind, synthesise(kind, seed, 1.0)) for kind in ("rain", "bell") for seed in range(3)]


@pytest.mark.usefixtures("one_torch_thread")
def test_the_same_seed_makes_the_same_file(tmp_path: Path, recordings: list[Recording]) -> None:
    first, second, other = (
        make(replace(SHORT, schedule=replace(SHORT.schedule, seed=seed)), recordings, recordings[:2], tmp_path / name)
        for name, seed in (("first", 5), ("second", 5), ("other", 6))
    )
    weights = [(folder / "model.safetensors").read_bytes() for folder in (first, second, other)]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.usefixtures("one_torch_thread")
def test_a_part_of_the_recipe_can_be_left_out_or_added(tmp_path: Path, recordings: list[Recording]) -> None:
    bare = replace(SHORT, captions=False, spec_augment=False, mixing=Mixing(0, 0))
    assert ClapEncoder.load(str(make(bare, recordings, [], tmp_path / "bare")), device="cpu", engine="torch")
    fused = replace(SHORT, fused=True, mixing=Mixing(lengthened=0.7))
    encoder = ClapEncoder.load(str(make(fused, recordings, [], tmp_path / "fused")), device="cpu", engine="torch")
    long = np.tile(recordings[0].waveform, 15)
    assert encoder.embed_recording(long) @ encoder.embed_recording(long[: 48_000 * 9]) < 0.9999
