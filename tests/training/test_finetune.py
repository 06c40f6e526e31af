from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clapboard.audio.windows import read, window_waveform
from clapboard.errors import TrainingError
from clapboard.labels.label_space import LabelSpace
from clapboard.model.clap import ClapEncoder
from tests.support.processor import needs_bfloat16
from tests.support.tower_checkpoints import save_pair
from tests.training.labelled_sounds import KINDS, label_space, labelled_sounds
from training.finetune import Candidate, FinetuneConfig, Progress, finetune
from training.finetuning.labelled import LabelledClip

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REPOSITORY = Path(__file__).parents[2]
# Where a test doesn't say otherwise, it is about something else than the arithmetic, which `auto` takes by processor.
QUICK = FinetuneConfig(rung="projection", epochs=4, num_views=1, mixup=0.0, projection_rate=1e-3, dtype="float32")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledClip]:
    return labelled_sounds(tmp_path_factory.mktemp("sounds"))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def run(
    base: Path, clips: list[LabelledClip], out: Path, config: FinetuneConfig = QUICK, **options: object
) -> Candidate:
    space = options.pop("space", label_space())
    assert isinstance(space, LabelSpace)
    return finetune(str(base), space, clips, config, out, device="cpu", **options)  # type: ignore[arg-type]


# The candidate


@pytest.mark.parametrize(
    ("rung", "tuned"),
    [
        ("projection", ("audio_projection.",)),
        ("stage4", ("audio_projection.", "audio_model.audio_encoder.layers.3.", "audio_model.audio_encoder.norm.")),
        ("stages34", ("audio_projection.", "audio_model.audio_encoder.layers.", "audio_model.audio_encoder.norm.")),
    ],
)
def test_the_chosen_stages_learn_and_nothing_else(
    tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path, rung: str, tuned: tuple[str, ...]
) -> None:
    config = replace(QUICK, rung=rung)  # type: ignore[arg-type]
    candidate = run(tiny_clap, clips, tmp_path, config)
    before, after = weights_of(tiny_clap), weights_of(candidate.folder)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert candidate.alpha > 0
    assert all(name.startswith(tuned) for name in changed)
    assert not any(name.startswith(("text_", "audio_model.audio_encoder.layers.0", "logit_scale")) for name in changed)
    assert any(".layers.2." in name for name in changed) is (rung == "stages34")
    assert {name.split(".weight")[0] for name in changed} >= {"audio_projection.linear1", "audio_projection.linear2"}


def test_pann_is_tuned_by_its_last_block(clips: list[LabelledClip], tmp_path: Path) -> None:
    base = save_pair(tmp_path / "base", "cnn14", "clip")
    candidate = run(base, clips, tmp_path / "out", replace(QUICK, rung="stage4"))
    before, after = weights_of(base), weights_of(candidate.folder)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    tuned = "audio_projection.", "audio_model.audio_encoder.conv_block6.", "audio_model.audio_encoder.fc1."
    assert candidate.alpha > 0
    assert {part for part in tuned if any(name.startswith(part) for name in changed)} == {*tuned}
    assert all(name.startswith(tuned) and ".running_" not in name for name in changed)
    assert (
        ClapEncoder.load(str(candidate.folder), device="cpu", engine="torch").identity.version
        == candidate.encoder_version
    )


@pytest.mark.parametrize("checkpoint", ["tiny_clap", "tiny_fused_clap"])
def test_the_candidate_is_a_checkpoint_that_serves_with_a_manifest_that_says_how_it_came_about(
    checkpoint: str, request: pytest.FixtureRequest, clips: list[LabelledClip], tmp_path: Path
) -> None:
    base = request.getfixturevalue(checkpoint)
    test = replace(clips[0], path=tmp_path / "never read.wav", group="another", split="test")
    candidate = run(base, [*clips, test], tmp_path / "out")
    original, encoder = (
        ClapEncoder.load(str(folder), device="cpu", engine="torch") for folder in (base, candidate.folder)
    )
    assert encoder.identity.version == candidate.encoder_version != original.identity.version
    assert encoder.logit_scale == original.logit_scale
    texts = ["This is a sound of a dog.", "rain"]
    np.testing.assert_array_equal(encoder.embed_texts(texts), original.embed_texts(texts))

    manifest = json.loads((candidate.folder / "manifest.json").read_text("utf-8"))
    assert manifest["base"] == str(base)
    assert manifest["base_version"] == original.identity.version
    assert manifest["encoder_version"] == candidate.encoder_version
    assert manifest["rung"] == "projection"
    assert manifest["counts"]["labels"]["test"] == {"label": {"low hum": 1, "high hum": 0, "hiss": 0}}
    assert sum(manifest["counts"]["labels"]["train"]["label"].values()) == 24
    assert [point["epoch"] for point in manifest["curve"]] == [1, 2, 3, 4]
    assert json.loads((candidate.folder / "finetune.json").read_text("utf-8"))["projection_rate"] == 1e-3
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["candidate"]


def test_a_candidate_to_be_served_with_fusion_has_the_version_that_it_is_served_under(
    tiny_fused_clap: Path, clips: list[LabelledClip], tmp_path: Path
) -> None:
    candidate = run(tiny_fused_clap, clips, tmp_path / "out", fusion=True)
    versions = [
        ClapEncoder.load(str(candidate.folder), device="cpu", engine="torch", fusion=fusion).identity.version
        for fusion in (True, False)
    ]
    assert versions[0] == candidate.encoder_version != versions[1]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_sounds_are_told_apart_better_than_before(
    tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path, dtype: str
) -> None:
    candidate = run(tiny_clap, clips, tmp_path, replace(QUICK, dtype=dtype))  # type: ignore[arg-type]
    before, after = candidate.manifest["before"], candidate.manifest["after"]
    best = max(point["credit"] for point in candidate.manifest["curve"])
    assert after["credit"] >= best > before["credit"] + 0.03
    assert (candidate.before, candidate.after) == (before["figure"], after["figure"])


def test_embeddings_stay_near_what_they_were_when_told_to(
    tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path
) -> None:
    windows = np.concatenate([window_waveform(read(clip.path)) for clip in clips[::6]])
    before = ClapEncoder.load(str(tiny_clap), device="cpu", engine="torch").embed_windows(windows)

    def moved(keep: float) -> float:
        candidate = run(tiny_clap, clips, tmp_path / str(keep), replace(QUICK, keep=keep, anchor=0.0))
        assert candidate.alpha >= 0.75
        after = ClapEncoder.load(str(candidate.folder), device="cpu", engine="torch").embed_windows(windows)
        return float((1 - (before * after).sum(axis=1)).mean())

    assert 0 < moved(30.0) < 0.5 * moved(0.0)


def test_labels_that_dont_exclude_each_other_are_learnt_one_by_one(
    tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path
) -> None:
    several = [
        replace(clip, targets={"label": tuple(kind for kind in clip.targets["label"] if kind != "hiss")})
        for clip in clips
    ]
    candidate = run(tiny_clap, several, tmp_path, replace(QUICK, rung="auto"), space=label_space(multiple=True))
    assert candidate.trainable_stages == "projection"
    assert 0 < candidate.before <= 1
    assert candidate.manifest["counts"]["answers"]["train"] == {"label": 24}


# Progress and resuming


def test_progress_goes_from_listening_to_the_last_epoch(
    tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path
) -> None:
    told: list[Progress] = []
    candidate = run(tiny_clap, clips, tmp_path, on_progress=told.append)
    assert [p.clips_heard for p in told if p.epoch == 0] == list(range(1, 31))
    trained = [p for p in told if p.epoch]
    assert [p.epoch for p in trained] == list(range(1, 9))
    assert all(p.epoch <= p.epochs and p.loss and p.eta_s is not None for p in trained)
    assert [p.validation for p in trained[:4]] == [point["figure"] for point in candidate.manifest["curve"]]
    assert trained[-1].epoch == trained[-1].epochs
    assert trained[-1].eta_s == 0


STAGE_4 = replace(
    QUICK, rung="stage4", epochs=3, dtype="auto"
)  # the coarser one where it can be, of which more must be kept
CHILD = """
import sys
from pathlib import Path
import torch
from tests.training.labelled_sounds import label_space, labelled_sounds
from tests.training.test_finetune import STAGE_4
from training.finetune import finetune

torch.set_num_threads(1)
base, folder, out = sys.argv[1:]
finetune(base, label_space(), labelled_sounds(Path(folder)), STAGE_4, Path(out), device="cpu",
         on_progress=lambda progress: print(progress.epoch, progress.clips_heard, flush=True))
"""


def train_and_kill_at(line: str, base: Path, folder: Path, out: Path) -> None:
    """Finetunes in a process of its own, which is killed when it tells the line."""
    command = [sys.executable, "-c", CHILD, str(base), str(folder), str(out)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for told in child.stdout:
            if told.strip() == line:
                os.kill(child.pid, signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL


class Stopped(Exception):
    pass


def stop_at(epoch: int, clips_heard: int, told: list[tuple[int, int]]) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        told.append((progress.epoch, progress.clips_heard))
        if told[-1] == (epoch, clips_heard):
            raise Stopped

    return on_progress


def test_a_killed_run_goes_on_and_ends_with_the_very_same_weights(tiny_clap: Path, tmp_path: Path) -> None:
    clips = labelled_sounds(tmp_path / "sounds")
    whole = run(tiny_clap, clips, tmp_path / "whole", STAGE_4)
    told: list[tuple[int, int]] = []
    with pytest.raises(Stopped):  # while it listens
        run(tiny_clap, clips, tmp_path / "killed", STAGE_4, on_progress=stop_at(0, 12, told))
    train_and_kill_at("2 24", tiny_clap, tmp_path / "sounds", tmp_path / "killed")
    with pytest.raises(Stopped):  # in the first epoch on all clips
        run(tiny_clap, clips, tmp_path / "killed", STAGE_4, on_progress=stop_at(4, 30, told))
    assert told[12:] == [(3, 24), (4, 30)]  # nothing is listened to, or gone through, a second time
    killed = run(tiny_clap, clips, tmp_path / "killed", STAGE_4)
    assert killed.manifest == whole.manifest
    expected = weights_of(whole.folder)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(killed.folder).items())
    assert not torch.equal(
        expected["audio_projection.linear1.weight"], weights_of(tiny_clap)["audio_projection.linear1.weight"]
    )


def test_a_finished_run_started_again_does_nothing(tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path) -> None:
    first = run(tiny_clap, clips, tmp_path)
    written = (first.folder / "model.safetensors").stat().st_mtime_ns
    told: list[Progress] = []
    assert run(tiny_clap, clips[::-1], tmp_path, on_progress=told.append) == first
    assert told == []
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == written


def test_other_arguments_start_anew_and_replace_what_was_there(
    tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        run(tiny_clap, clips, tmp_path, on_progress=stop_at(2, 24, []))
    assert (tmp_path / "choosing.pt").is_file()
    other = replace(QUICK, seed=7, epochs=2)
    fresh = run(tiny_clap, clips, tmp_path / "fresh", other)
    found = run(tiny_clap, clips, tmp_path, other)
    assert weights_of(found.folder).keys() == weights_of(fresh.folder).keys()
    for name, value in weights_of(found.folder).items():
        assert torch.equal(value, weights_of(fresh.folder)[name])


# What can't be learnt from


def test_unreadable_clips_are_left_out_and_named(tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    bad = [replace(clips[0], path=broken), replace(clips[0], path=tmp_path / "gone.wav")]
    candidate = run(tiny_clap, [*clips, *bad], tmp_path / "out")
    assert candidate.manifest["unreadable"] == ["broken.wav", "gone.wav"]
    expected = run(tiny_clap, clips, tmp_path / "without")
    assert candidate.manifest["before"]["figure"] == expected.manifest["before"]["figure"]


def relabelled(label: str, *, number: int = 30) -> Callable[[list[LabelledClip]], list[LabelledClip]]:
    return lambda clips: [replace(clip, targets={"label": (label,)}) for clip in clips[:number]]


UNUSABLE: dict[str, tuple[Callable[[list[LabelledClip]], list[LabelledClip]], str]] = {
    "none": (lambda _: [], "There are no labels to train on: label at least 8 clips of each of two classes."),
    "one class": (relabelled("hiss"), "“hiss” is the only label that clips have (30): label at least 8"),
    "too few": (
        lambda clips: [*clips[8:20], *clips[25:]],
        "There are too few labels to train on (“high hum” 10, “hiss” 5, “low hum” 2): label at least 8 clips of each",
    ),
    "outdated labels": (relabelled("whistle"), "(30 answers don't fit the label config any more)."),
    "no validation": (
        lambda clips: [replace(clip, split="train") for clip in clips],
        "There is no labelled clip for validation: clips of one recording stay together",
    ),
    "all for the test": (lambda clips: [replace(clip, split="test") for clip in clips], "There are no labels"),
    "nothing readable": (
        lambda clips: [replace(clip, path=clip.path.with_name("gone.wav")) for clip in clips],
        "None of the 24 clips for train can be read: check their audio files.",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cant_be_learnt_from_is_one_sentence(
    tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path, case: str
) -> None:
    change, reason = UNUSABLE[case]
    with pytest.raises(TrainingError) as caught:
        run(tiny_clap, change(clips), tmp_path)
    assert reason in str(caught.value)
    assert str(caught.value).endswith(".")
    assert not caught.value.retryable
    assert not (tmp_path / "candidate").exists()


def test_a_loss_that_is_no_number_ends_the_run(tiny_clap: Path, clips: list[LabelledClip], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"its loss is no longer a finite number\. Try again with lower rates"):
        run(tiny_clap, clips, tmp_path, replace(QUICK, projection_rate=1e30))


def test_the_kinds_are_those_of_the_label_space() -> None:
    assert tuple(label.value for label in label_space().predicted[0].labels) == KINDS
