from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel, ClapProcessor, pipeline

from clapboard.audio.four_mels import batched, four_mels
from clapboard.audio.log_mel import LogMel
from clapboard.audio.windows import SAMPLE_RATE, WINDOW_SAMPLES, Span, Waveform, repeat_pad, window_waveform
from clapboard.errors import AudioError, ModelError
from clapboard.model.checkpoints import checkpoint_folder
from clapboard.model.clap import ClapEncoder, Embeddings
from clapboard.model.htsat import Htsat
from clapboard.model.htsat.engines import AudioTower
from tests.support.processor import needs_bfloat16
from tests.support.programs import free_port
from tests.support.recordings import sweep
from tests.support.together import together

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REPOSITORY = Path(__file__).parents[3]
LABELS = ["dog", "rain", "clock tick", "a very long description of a chainsaw in a forest", "sneezing"]
TEMPLATE = "This is a sound of {}."
PROMPTS = [TEMPLATE.format(label) for label in LABELS]


@cache
def unlike_windows() -> Waveform:
    """Eight windows that differ a lot."""
    rng = np.random.default_rng(8)
    noise = rng.standard_normal((4, WINDOW_SAMPLES)).astype(np.float32) * np.float32([[0.3], [0.1], [0.01], [1e-4]])
    clips = [sweep(10), repeat_pad(sweep(3.3)), repeat_pad(sweep(5.009)), np.zeros(WINDOW_SAMPLES)]
    return np.concatenate([np.stack(clips).astype(np.float32), noise])


def load(folder: Path, **options: Any) -> ClapEncoder:
    return ClapEncoder.load(str(folder), **{"device": "cpu", "engine": "torch"} | options)


def assert_same(found: Embeddings, expected: Embeddings, *, relative: float = 1e-6) -> None:
    """Rows are of norm 1, so that the length of their difference is relative to theirs."""
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected, axis=1).max() <= relative


@pytest.fixture(params=["unfused", "fused"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue("tiny_clap" if request.param == "unfused" else "tiny_fused_clap"))


@pytest.fixture
def copy(tiny_clap: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be spoilt."""
    return Path(shutil.copytree(tiny_clap, tmp_path / "copy"))


# Embeddings


def test_embeddings_are_unit_rows_that_tell_windows_and_texts_apart(checkpoint: Path) -> None:
    encoder = load(checkpoint)
    for rows in (encoder.embed_windows(unlike_windows()), encoder.embed_texts(PROMPTS)):
        assert rows.dtype == np.float32
        assert rows.shape[1] == encoder.identity.dim == 32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        unlike = rows[:4] if len(rows) == 8 else rows
        cosines = unlike @ unlike.T
        assert cosines[~np.eye(len(unlike), dtype=bool)].max() < 0.9999


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_an_embedding_depends_neither_on_batch_nor_order_nor_process(checkpoint: Path, batch_size: int) -> None:
    expected = load(checkpoint, batch_size=8).embed_windows(unlike_windows())
    encoder = load(checkpoint, batch_size=batch_size)
    for order in (np.arange(8), np.random.default_rng(batch_size).permutation(8)):
        torch.manual_seed(batch_size)
        assert_same(encoder.embed_windows(unlike_windows()[order]), expected[order])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_frames_are_unit_rows_that_depend_on_their_window_alone(checkpoint: Path, batch_size: int) -> None:
    encoder = load(checkpoint, batch_size=batch_size)
    assert (encoder.num_frames, encoder.frame_s) == (32, 0.3125)
    found = encoder.embed_windows_with_frames(unlike_windows())
    assert found.frames.dtype == np.float32
    assert found.frames.shape == (8, 32, 32)
    np.testing.assert_allclose(np.linalg.norm(found.frames, axis=-1), 1, atol=1e-6)
    assert_same(found.embeddings, encoder.embed_windows(unlike_windows()))
    order = np.random.default_rng(batch_size).permutation(8)
    shuffled = load(checkpoint, batch_size=8).embed_windows_with_frames(unlike_windows()[order]).frames
    assert_same(shuffled.reshape(-1, 32), found.frames[order].reshape(-1, 32))
    none = encoder.embed_windows_with_frames(unlike_windows()[:0])
    assert (none.embeddings.shape, none.frames.shape) == ((0, 32), (0, 32, 32))


def test_frames_are_transformers_last_hidden_state_through_its_projection(tiny_clap: Path) -> None:
    encoder = load(tiny_clap)
    model = ClapModel.from_pretrained(tiny_clap).eval()
    with torch.inference_mode():
        features = encoder.log_mel(torch.from_numpy(unlike_windows()))[:, None]
        steps = model.audio_model(features).last_hidden_state.mean(dim=2).transpose(1, 2)  # [B, C, F, T] → [B, T, C]
        expected = torch.nn.functional.normalize(model.audio_projection(steps), dim=-1)
    found = encoder.embed_windows_with_frames(unlike_windows()).frames
    assert_same(found.reshape(-1, 32), expected.numpy().reshape(-1, 32), relative=1e-5)


def test_the_same_batch_gives_the_same_bits(checkpoint: Path) -> None:
    first, again = (load(checkpoint).embed_windows(unlike_windows()) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_threads_may_share_an_encoder(tiny_clap: Path) -> None:
    encoder = load(tiny_clap, batch_size=3)
    expected = encoder.embed_windows(unlike_windows())
    texts = load(tiny_clap).embed_texts(PROMPTS)
    calls: list[Callable[[], Embeddings]] = [lambda: encoder.embed_windows(unlike_windows())] * 3
    found = together([*calls, *[lambda: encoder.embed_texts(PROMPTS)] * 3])
    for rows in found[:3]:
        np.testing.assert_array_equal(rows, expected)
    for rows in found[3:]:
        assert_same(rows, texts)


def test_nothing_gives_no_rows(tiny_clap: Path) -> None:
    encoder = load(tiny_clap)
    assert encoder.embed_windows(unlike_windows()[:0]).shape == encoder.embed_texts([]).shape == (0, 32)


@pytest.mark.parametrize("shape", [(WINDOW_SAMPLES,), (2, WINDOW_SAMPLES - 1), (1, 1, WINDOW_SAMPLES)])
def test_a_window_of_another_shape_is_refused(tiny_clap: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a window must be"):
        load(tiny_clap).embed_windows(np.zeros(shape, np.float32))


def test_windows_may_be_read_only_and_of_any_layout(tiny_clap: Path) -> None:
    encoder = load(tiny_clap)
    frozen = np.asfortranarray(unlike_windows())
    frozen.flags.writeable = False
    np.testing.assert_array_equal(encoder.embed_windows(frozen), encoder.embed_windows(unlike_windows()))
    frozen = np.ascontiguousarray(frozen)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(encoder.embed_windows(frozen), encoder.embed_windows(unlike_windows()))


@needs_bfloat16
def test_bfloat16_stays_close_to_float32(checkpoint: Path) -> None:
    encoder = load(checkpoint, dtype="bfloat16")
    assert encoder.identity.dtype == "bfloat16"
    cosines = (encoder.embed_windows(unlike_windows()) * load(checkpoint).embed_windows(unlike_windows())).sum(axis=1)
    assert cosines.min() >= 0.9998
    assert_same(encoder.embed_texts(PROMPTS), load(checkpoint).embed_texts(PROMPTS))


# Texts


class CountingTokenizer:
    """A tokenizer that remembers what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def __call__(self, texts: list[str], **options: Any) -> Any:
        self.asked += texts
        return self._tokenizer(texts, **options)


def encoder_with(
    folder: Path, *, tower: AudioTower | None = None, tokenizer: Any = None, batch_size: int = 16
) -> ClapEncoder:
    model = ClapModel.from_pretrained(folder)
    return ClapEncoder(
        model,
        tokenizer or AutoTokenizer.from_pretrained(folder),
        LogMel("slaney"),
        tower or Htsat(model.audio_model.audio_encoder),
        load(folder).identity,
        batch_size=batch_size,
    )


def test_a_text_is_computed_once(tiny_clap: Path) -> None:
    tokenizer = CountingTokenizer(tiny_clap)
    encoder = encoder_with(tiny_clap, tokenizer=tokenizer)
    first = encoder.embed_texts(["rain", "dog", "rain"])
    first[:] = 0  # the caller's copy
    again = encoder.embed_texts(["dog", "rain", "clock"])
    assert sorted(tokenizer.asked) == ["clock", "dog", "rain"]
    assert_same(again, load(tiny_clap).embed_texts(["dog", "rain", "clock"]))


def test_texts_are_remembered_up_to_a_bound(tiny_clap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clapboard.model.texts._TEXTS_REMEMBERED", 2)
    tokenizer = CountingTokenizer(tiny_clap)
    encoder = encoder_with(tiny_clap, tokenizer=tokenizer)
    all_four = encoder.embed_texts(["dog", "rain", "clock", "wind"])
    assert_same(encoder.embed_texts(["wind", "dog"]), all_four[[3, 0]])
    assert sorted(tokenizer.asked) == ["clock", "dog", "dog", "rain", "wind"]


def test_a_texts_embedding_depends_neither_on_its_neighbours_nor_their_number(tiny_clap: Path) -> None:
    texts = [f"{prompt} number {number}" for number in range(30) for prompt in PROMPTS]
    expected = load(tiny_clap).embed_texts(texts)
    encoder = load(tiny_clap)
    assert_same(np.concatenate([encoder.embed_texts([text]) for text in texts[:12]]), expected[:12])


@pytest.mark.parametrize("text", ["", " ", "дождь 🐕", "a" * 5000, "word " * 5000, "</s><pad><mask>"])
def test_any_text_has_an_embedding(tiny_clap: Path, text: str) -> None:
    (row,) = load(tiny_clap).embed_texts([text])
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)


# Parity


def clips() -> list[Waveform]:
    rng = np.random.default_rng(4)
    return [sweep(10), sweep(5.009), (0.2 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32)]


def scores_of(encoder: ClapEncoder, clip: Waveform) -> Waveform:
    cosines = encoder.embed_windows(window_waveform(clip)) @ encoder.embed_texts(PROMPTS).T
    logits = torch.from_numpy(encoder.logit_scale * cosines)
    return np.asarray(logits.softmax(dim=-1)[0])


def assert_parity_with_pipeline(folder: Path) -> None:
    classify = pipeline("zero-shot-audio-classification", model=str(folder), device="cpu")
    encoder = load(folder)
    for clip in clips():
        answer = classify(clip, candidate_labels=LABELS, hypothesis_template=TEMPLATE)
        expected = {entry["label"]: entry["score"] for entry in answer}
        found = scores_of(encoder, clip)
        assert max(expected.values()) > 0.3
        np.testing.assert_allclose(found, [expected[label] for label in LABELS], atol=1e-4)


def assert_parity_with_model(folder: Path) -> None:
    # The pipeline marks a random one of the short clips as longer than 10 s when the checkpoint is a fused one; so its
    # own model and features are used, with that mark taken away.
    model, encoder = ClapModel.from_pretrained(folder).eval(), load(folder)
    extract, tokenize = ClapFeatureExtractor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokens = tokenize(PROMPTS, padding=True, return_tensors="pt")
    for clip in clips():
        features = extract(clip, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        assert features["is_longer"].all()
        inputs = features | {"is_longer": torch.zeros(1, 1, dtype=torch.bool)} | dict(tokens)
        with torch.inference_mode():
            expected = model(**inputs).logits_per_audio.softmax(dim=-1)[0]
        assert expected.max() > 0.3
        np.testing.assert_allclose(scores_of(encoder, clip), expected, atol=1e-4)


def test_scores_are_those_of_transformers_pipeline(tiny_clap: Path) -> None:
    assert_parity_with_pipeline(tiny_clap)


def test_scores_of_a_fused_checkpoint_are_those_of_transformers_model(tiny_fused_clap: Path) -> None:
    assert_parity_with_model(tiny_fused_clap)


def test_scores_of_real_size_are_those_of_transformers_pipeline(real_size_clap: Path) -> None:
    assert_parity_with_pipeline(real_size_clap)


@pytest.mark.real_size
def test_scores_of_a_fused_checkpoint_of_real_size_are_those_of_transformers_model(real_size_fused_clap: Path) -> None:
    assert_parity_with_model(real_size_fused_clap)


@pytest.mark.real_size
def test_a_real_size_embedding_depends_neither_on_batch_nor_order(real_size_clap: Path) -> None:
    encoder = load(real_size_clap, batch_size=4)
    expected = encoder.embed_windows(unlike_windows()[:4])
    assert_same(encoder.embed_windows(unlike_windows()[3::-1]), expected[::-1])
    encoder.batch_size = 1
    assert_same(encoder.embed_windows(unlike_windows()[:4]), expected)


# Recordings as a whole


def long_recordings() -> list[Waveform]:
    return [sweep(23, seed=1), sweep(10, seed=2), sweep(31.7, seed=3), sweep(3.3, seed=4)]


def write_recordings(folder: Path) -> list[Path]:
    paths = []
    for number, waveform in enumerate(long_recordings()):
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], waveform, SAMPLE_RATE, "FLOAT")
    return paths


@pytest.mark.parametrize("engine", ["torch", "openvino", "reference"])
def test_a_fused_checkpoint_embeds_a_recording_as_transformers_model_would(engine: str, tiny_fused_clap: Path) -> None:
    model, encoder = ClapModel.from_pretrained(tiny_fused_clap).eval(), load(tiny_fused_clap, engine=engine)
    for waveform in long_recordings():
        features, is_longer = batched([four_mels([waveform], encoder.log_mel)])
        assert is_longer.item() == (waveform.size > WINDOW_SAMPLES)
        with torch.inference_mode():
            output = model.get_audio_features(input_features=features, is_longer=is_longer[:, None])
        expected = torch.nn.functional.normalize(output.pooler_output)
        assert_same(encoder.embed_recording(waveform)[None], np.asarray(expected), relative=2e-6)


@pytest.mark.real_size
def test_a_fused_checkpoint_of_real_size_embeds_a_recording_as_transformers_model_would(
    real_size_fused_clap: Path,
) -> None:
    model, encoder = ClapModel.from_pretrained(real_size_fused_clap).eval(), load(real_size_fused_clap)
    features, is_longer = batched([four_mels([sweep(23)], encoder.log_mel)])
    with torch.inference_mode():
        output = model.get_audio_features(input_features=features, is_longer=is_longer[:, None])
    expected = torch.nn.functional.normalize(output.pooler_output)
    found = encoder.embed_recording(sweep(23))[None]
    assert_same(found, np.asarray(expected), relative=2e-6)
    assert np.linalg.norm(found - encoder.embed_windows(window_waveform(sweep(23))[:1])) > 1e-3


def test_a_recordings_embedding_depends_neither_on_batch_nor_order_nor_whether_it_is_a_file(
    tiny_fused_clap: Path, tmp_path: Path
) -> None:
    encoder, paths = load(tiny_fused_clap, fusion=True), write_recordings(tmp_path)
    alone = np.stack([encoder.embed_recording(waveform) for waveform in long_recordings()])
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)
    views = [view for path in paths for view in encoder.views(path)]
    assert [(view.index, round(view.end_s, 3)) for view in views] == [(0, 23), (0, 10), (0, 31.7), (0, 3.3)]
    assert_same(encoder.embed_views(views), alone)
    encoder.batch_size = 3
    assert_same(encoder.embed_views(views[::-1]), alone[::-1])
    for path, expected in zip(paths, alone, strict=True):
        assert_same(encoder.embed_file(path), expected[None])


@pytest.mark.parametrize("fusion", [False, True])
def test_a_piece_has_the_embeddings_of_a_file_of_its_own(tiny_fused_clap: Path, tmp_path: Path, fusion: bool) -> None:
    encoder = load(tiny_fused_clap, fusion=fusion)
    path = write_recordings(tmp_path)[2]
    samples, rate = soundfile.read(path, dtype="float32")
    soundfile.write(tmp_path / "piece.wav", samples[5 * rate : 20 * rate], rate, subtype="FLOAT")
    views = [*encoder.views(path, span=Span(5, 20))]
    assert_same(encoder.embed_views(views), encoder.embed_file(tmp_path / "piece.wav"))


def test_a_short_recording_has_the_embedding_of_its_window_with_fusion_too(tiny_fused_clap: Path) -> None:
    whole, windowed = load(tiny_fused_clap, fusion=True), load(tiny_fused_clap)
    for waveform in (sweep(10), sweep(3.3)):
        expected = windowed.embed_windows(window_waveform(waveform))
        np.testing.assert_array_equal(whole.embed_recording(waveform)[None], expected)


def test_an_unfused_checkpoint_embeds_a_recording_as_the_mean_of_its_windows(tiny_clap: Path, tmp_path: Path) -> None:
    encoder = load(tiny_clap)
    for path, waveform in zip(write_recordings(tmp_path), long_recordings(), strict=True):
        mean = encoder.embed_windows(window_waveform(waveform)).mean(axis=0)
        expected = (mean / np.linalg.norm(mean))[None]
        assert_same(encoder.embed_recording(waveform)[None], expected)
        assert_same(encoder.embed_recording(path)[None], expected)


def test_a_recording_without_samples_is_refused_by_any_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "nothing.wav"
    soundfile.write(path, np.zeros(0, np.float32), SAMPLE_RATE)
    with pytest.raises(AudioError, match=r"nothing\.wav holds no samples"):
        load(checkpoint).embed_recording(path)


def test_fused_and_windowed_embeddings_have_different_versions(tiny_fused_clap: Path) -> None:
    whole, windowed = load(tiny_fused_clap, fusion=True).identity, load(tiny_fused_clap).identity
    assert whole.version != windowed.version
    assert whole.model == windowed.model


def test_fusion_needs_a_checkpoint_that_has_learnt_it(tiny_clap: Path) -> None:
    with pytest.raises(ModelError, match=r"has learnt no feature fusion: .*CLAPBOARD_FUSION=false\.$"):
        load(tiny_clap, fusion=True)


# Memory


def test_a_text_that_is_remembered_keeps_no_other_text_s_row(tiny_clap: Path) -> None:
    encoder = load(tiny_clap)
    encoder.embed_texts([f"text {number}" for number in range(70)])
    assert all(row.base is None for row in encoder._texts._remembered.known(["text 3", "text 66"]).values())


def small_memory_encoder(folder: Path, room: int | Callable[[], int]) -> tuple[ClapEncoder, list[int]]:
    """An encoder that runs out of memory on more than `room` windows, and the numbers of windows that it tried."""
    tower, tried = Htsat(ClapModel.from_pretrained(folder).audio_model.audio_encoder), []

    def small(features: torch.Tensor) -> torch.Tensor:
        tried.append(len(features))
        if len(features) > (room if isinstance(room, int) else room()):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return tower(features)

    return encoder_with(folder, tower=small, batch_size=8), tried


def test_out_of_memory_halves_the_batch_and_changes_no_result(tiny_clap: Path) -> None:
    encoder, tried = small_memory_encoder(tiny_clap, 2)
    assert_same(encoder.embed_windows(unlike_windows()[:7]), load(tiny_clap).embed_windows(unlike_windows()[:7]))
    assert tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    tried.clear()
    encoder.embed_windows(unlike_windows())
    assert max(tried) <= 2


def test_the_batch_grows_back_once_there_is_memory_again(tiny_clap: Path) -> None:
    room = 2
    encoder, tried = small_memory_encoder(tiny_clap, lambda: room)
    encoder.embed_windows(unlike_windows())
    assert encoder.batch_size == 2
    room = 8
    while encoder.batch_size < 8 and len(tried) < 200:
        encoder.embed_windows(np.repeat(unlike_windows()[:1], 8, axis=0))
    assert encoder.batch_size == 8
    assert len(tried) < 100


def test_a_device_without_room_for_one_window_is_an_error_that_says_so(tiny_clap: Path) -> None:
    encoder, tried = small_memory_encoder(tiny_clap, 0)
    with pytest.raises(ModelError, match="too little memory for one window"):
        encoder.embed_windows(unlike_windows())
    assert tried == [8, 4, 2, 1]


def test_other_failures_are_not_taken_for_a_lack_of_memory(tiny_clap: Path) -> None:
    def broken(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        encoder_with(tiny_clap, tower=broken).embed_windows(unlike_windows())


# Identity


def test_the_version_is_that_of_the_content_wherever_and_whenever_it_lies(tiny_clap: Path, copy: Path) -> None:
    for file in copy.iterdir():
        os.utime(file, (1, 1))
    (copy / "README.md").write_text("Notes.", "utf-8")
    (copy / ".cache").mkdir()
    first, second = load(tiny_clap).identity, load(copy).identity
    assert first.version == second.version
    assert (first.model, second.model) == (str(tiny_clap), str(copy))
    assert len(first.version) == 12


def test_records_of_how_it_was_made_are_no_part_of_the_version(tiny_clap: Path, copy: Path) -> None:
    (copy / "finetune.json").write_text('{"epochs": 3}', "utf-8")
    (copy / "manifest.json").write_text('{"rung": "projection"}', "utf-8")
    assert load(copy).identity.version == load(tiny_clap).identity.version
    (copy / "other.json").write_text("{}", "utf-8")
    assert load(copy).identity.version != load(tiny_clap).identity.version


def test_the_embedded_models_version_stays_what_it_is() -> None:
    """It names embeddings in stores: if this fails, theirs are all computed again."""
    assert ClapEncoder.load("mini", device="cpu", engine="torch").identity.version == "f80a57d8c619"


def flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def swap_two_tokens(file: Path) -> None:
    tokenizer = json.loads(file.read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(tokenizer), "utf-8")


def start_at_0_hz(file: Path) -> None:
    recipe = json.loads(file.read_text("utf-8")) | {"frequency_min": 0}
    file.write_text(json.dumps(recipe), "utf-8")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", flip_last_byte),
        ("tokenizer.json", swap_two_tokens),
        ("preprocessor_config.json", start_at_0_hz),
    ],
)
def test_the_version_changes_with_whatever_decides_an_embedding(
    tiny_clap: Path, copy: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(copy / name)
    assert load(copy).identity.version != load(tiny_clap).identity.version


def test_the_identity_says_what_scoring_needs(tiny_clap: Path) -> None:
    identity = load(tiny_clap).identity
    assert (identity.dim, identity.dtype) == (32, "float32")
    assert identity.logit_scale == pytest.approx(100)


@pytest.mark.parametrize("layout", ["preprocessor_config.json", "processor_config.json"])
def test_features_follow_the_checkpoints_recipe_in_either_layout(tiny_clap: Path, copy: Path, layout: str) -> None:
    (copy / "preprocessor_config.json").unlink()
    extractor = ClapFeatureExtractor(frequency_min=500, frequency_max=8000, truncation="rand_trunc")
    if layout == "preprocessor_config.json":
        extractor.save_pretrained(copy)
    else:
        ClapProcessor(extractor, AutoTokenizer.from_pretrained(copy)).save_pretrained(copy)
    assert (copy / layout).is_file()
    features = extractor(unlike_windows()[0], sampling_rate=SAMPLE_RATE, return_tensors="pt")
    with torch.inference_mode():
        expected = ClapModel.from_pretrained(copy).eval().get_audio_features(**features).pooler_output.numpy()
    assert_same(load(copy).embed_windows(unlike_windows()[:1]), expected, relative=1e-4)
    assert np.abs(load(tiny_clap).embed_windows(unlike_windows()[:1]) - expected).max() > 1e-3


def test_a_checkpoint_without_a_recipe_gets_claps_usual_one(tiny_clap: Path, copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()
    np.testing.assert_array_equal(
        load(copy).embed_windows(unlike_windows()), load(tiny_clap).embed_windows(unlike_windows())
    )


def test_half_precision_weights_are_computed_in_full_precision(tiny_clap: Path, copy: Path) -> None:
    ClapModel.from_pretrained(tiny_clap).half().save_pretrained(copy)
    encoder = load(copy)
    cosines = (encoder.embed_windows(unlike_windows()) * load(tiny_clap).embed_windows(unlike_windows())).sum(axis=1)
    assert 0.999 < cosines.min() < 1
    assert encoder.identity.dtype == "float32"


# Refusals


def drop_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["audio_projection.linear1.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def shrink_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["audio_projection.linear1.weight"] = weights["audio_projection.linear1.weight"][1:].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def truncate_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def only_pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(torch.nn.Linear(1, 1).state_dict(), folder / "pytorch_model.bin")


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def with_text(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(content, "utf-8")

    return write


def without(name: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        (folder / name).unlink()

    return remove


def with_recipe(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "preprocessor_config.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")

    return change


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickled weights only": (only_pickled_weights, "lacks config.json or safetensors weights"),
    "no config": (without("config.json"), "lacks config.json"),
    "config of another type": (with_text("config.json", '{"model_type": "bert"}'), "is not a CLAP checkpoint"),
    "config that is no JSON": (with_text("config.json", '{"model_type":'), "can't be read"),
    "config that is a list": (with_text("config.json", "[]"), "can't be read|is not a CLAP"),
    "config of other sizes": (with_text("config.json", '{"model_type": "clap"}'), "can't be read|lacks weights"),
    "config of nonsense": (
        with_text("config.json", '{"model_type": "clap", "audio_config": {"depths": "many"}}'),
        "can't be read",
    ),
    "truncated weights": (truncate_weights, "can't be read"),
    "empty weights": (with_text("model.safetensors", ""), "can't be read"),
    "missing weight": (drop_weight, "lacks weights"),
    "weight of another shape": (shrink_weight, "can't be read|lacks weights"),
    "no tokenizer": (without_tokenizer, "has no tokenizer"),
    "tokenizer without vocabulary": (without("tokenizer.json"), "has no tokenizer"),
    "tokenizer that is no JSON": (with_text("tokenizer.json", "{"), "has no tokenizer"),
    "tokenizer of nonsense": (with_text("tokenizer.json", "{}"), "has no tokenizer"),
    "recipe that is no JSON": (with_text("preprocessor_config.json", "{"), "can't be read"),
    "recipe that is a list": (with_text("preprocessor_config.json", "[]"), "can't be read"),
    "recipe of nonsense": (with_recipe(frequency_min="low"), "can't be read"),
    "frequencies of nonsense": (with_recipe(frequency_max=None), "can't be read"),
    "another sample rate": (with_recipe(sampling_rate=16_000), "sampling_rate 16000"),
    "another hop": (with_recipe(hop_length=320), "hop_length 320"),
    "another window": (with_recipe(max_length_s=7), "max_length_s 7"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_checkpoint_that_cant_be_used_is_one_sentence(copy: Path, case: str) -> None:
    spoil, reason = SPOILT[case]
    spoil(copy)
    with pytest.raises(ModelError, match=reason) as caught:
        load(copy)
    assert str(copy) in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["/no/such/folder", "./no/such/folder", "~/no/such/folder"])
def test_a_folder_that_doesnt_exist_is_said_to_be_missing(model: str) -> None:
    with pytest.raises(ModelError, match=f"Model folder {model} doesn't exist"):
        ClapEncoder.load(model, device="cpu")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "cuda:x", "mps", "meta", "xpu"])
def test_a_device_that_isnt_there_is_an_error_that_names_the_choices(tiny_clap: Path, device: str) -> None:
    with pytest.raises(ModelError, match=f"Device {device} .*CLAPBOARD_DEVICE"):
        load(tiny_clap, device=device)


LOADING = """
import sys
from clapboard.model.clap import ClapEncoder
from clapboard.errors import ModelError
try:
    ClapEncoder.load(sys.argv[1], device="cpu")
except ModelError as error:
    print(error)
"""


def test_a_hub_that_cant_be_reached_is_a_sentence_that_says_how_to_use_a_local_copy(tmp_path: Path) -> None:
    nobody = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", LOADING, "laion/clap-htsat-unfused"]
    process = subprocess.run(command, cwd=REPOSITORY, env=os.environ | nobody, capture_output=True, text=True)
    assert process.stdout.startswith("Model laion/clap-htsat-unfused is not on this machine"), process.stderr
    assert "copy its folder here and set CLAPBOARD_MODEL (or --model) to that folder" in process.stdout
    assert process.stdout.count("\n") == 1
    assert "Traceback" not in process.stderr


def test_a_hub_id_is_not_taken_for_a_folder_and_nonsense_is_refused() -> None:
    assert checkpoint_folder("mini").name == "mini"
    with pytest.raises(ModelError, match="Model no such model is not on this machine"):
        checkpoint_folder("no such model")
