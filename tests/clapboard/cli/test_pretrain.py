"""`clapboard pretrain`: from a folder of sounds to a checkpoint that predicts, through kills and in two processes."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clapboard.audio.windows import Waveform
from clapboard.errors import ModelError, SettingsError, TrainingError
from clapboard.model.clap import ClapEncoder
from tests.clapboard.cli.conftest import Clapboard, document
from tests.support.commands import Command
from tests.support.processor import needs_bfloat16
from tests.support.warm_python import command_environment
from tests.training.corpus.recorded import data_set, no_label_studio, record
from training.corpus.build import Plan, build
from training.corpus.filters import Rules
from training.corpus.sources import open_source

SETTINGS = {"CLAPBOARD_DEVICE": "cpu", "CLAPBOARD_DTYPE": "float32"}
SIZES: dict[str, Any] = {
    "projection_dim": 16,
    "audio_sizes": {
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 4],
        "hidden_size": 64,
    },
    "text_sizes": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 80,
    },
}
COMMAND = ("pretrain", "--data", "set", "--sizes", "sizes.json", "--batch-size", "4", "--warmup", "1")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command takes over a process's logging; this one is the tests'."""
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers[:], (sys.excepthook, threading.excepthook) = handlers, hooks
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a data set of 13 sounds, and the sizes of a model that learns it in seconds."""
    data_set(tmp_path, 13, duration_s=0.1)
    (tmp_path / "sizes.json").write_text(json.dumps(SIZES))
    return tmp_path


def torchrun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--standalone",
            "-m",
            "clapboard",
            *arguments,
        ],
        cwd=folder,
        env=command_environment(os.environ) | SETTINGS,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_ends_with_the_weights_of_one_that_wasnt(folder: Path) -> None:
    everything = (*COMMAND, "--epochs", "8", "--portion", "3", "--save-every", "2", "--mixtures", "2")

    def train(out: str) -> Command:
        return Command([*everything, "--out", out], command_environment(os.environ) | SETTINGS, folder)

    with Path(os.devnull).open("r+b") as nothing:
        broken = train("broken").start(*[nothing.fileno()] * 3)
    while not (folder / "broken" / "state.pt").exists():
        assert broken.poll() is None
        time.sleep(0.01)
    broken.kill()
    broken.wait()
    saved = torch.load(folder / "broken" / "state.pt", weights_only=True)["next_step"]
    assert 0 < saved < 8 * 3
    for out in ("broken", "whole"):
        done = train(out).run()
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "checkpoint is ready" in done.stdout
    for name in ("model.safetensors", "frame_scores.safetensors", "config.json", "tokenizer.json"):
        assert (folder / "broken" / "checkpoint" / name).read_bytes() == (
            folder / "whole" / "checkpoint" / name
        ).read_bytes()


def test_two_processes_train_a_checkpoint_together_and_one_speaks(folder: Path) -> None:
    process = torchrun(folder, *COMMAND, "--epochs", "2", "--mixtures", "2", "--out", "run", "--json")
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert [json.loads(line) for line in out.splitlines()] == [{"checkpoint": "run/checkpoint"}]
    lines = [json.loads(line) for line in err.splitlines() if line.startswith('{"at"')]
    said = [line["message"] for line in lines]
    assert {line["level"] for line in lines if "epoch" in line["message"]} == {"INFO"}
    assert [message.split(":")[0] for message in said if message.startswith("epoch")] == ["epoch 1", "epoch 2"]
    assert sum(message.startswith("3 batches of 4 an epoch") for message in said) == 1
    state = torch.load(folder / "run" / "state.pt", weights_only=True)
    assert state["next_step"] == 2 * 3
    encoder = ClapEncoder.load(str(folder / "run" / "checkpoint"), device="cpu", engine="torch")
    assert encoder.identity.dim == 16
    assert encoder.frame_scores is not None


def two_kinds(folder: Path) -> dict[str, Waveform]:
    """Makes a data set of twelve sounds, low and high ones, and returns one of each by its caption.

    Captions differ in their last token alone, whose number is low.
    """
    captions = {"a sound of pitch-1": (60.0, 200.0), "a sound of pitch-2": (3_000.0, 9_000.0)}
    rng, seconds = np.random.default_rng(0), np.arange(4_800) / 48_000
    tones: dict[str, Waveform] = {}
    for caption, range_hz in captions.items():
        for number in range(6):
            tones[caption] = (0.3 * np.sin(2 * np.pi * rng.uniform(*range_hz) * seconds)).astype(np.float32)
            file = folder / "tones" / f"{caption[-3:]}-{number}.wav"
            file.parent.mkdir(exist_ok=True)
            soundfile.write(file, tones[caption], 48_000)
            file.with_suffix(".txt").write_text(caption)
    build(
        [open_source(str(folder / "tones"), no_label_studio)], folder / "tone-set", Plan(Rules(min_s=0.0, languages=()))
    )
    return {caption: np.tile(tone, 100) for caption, tone in tones.items()}


@pytest.mark.parametrize("towers", ["cnn14+roberta", "htsat+bert", "cnn14+clip"])
def test_any_towers_learn(clapboard: Clapboard, folder: Path, towers: str) -> None:
    windows = two_kinds(folder)
    sizes = SIZES | {"text_sizes": SIZES["text_sizes"] | {"initializer_range": 0.3}}  # texts apart from the start
    if not towers.endswith("clip"):
        sizes["text_sizes"]["hidden_dropout_prob"] = 0.0
    if towers.startswith("cnn14"):
        sizes["audio_sizes"] = {"widths": [4, 4, 8, 16, 32, 32], "block_dropout": 0.0, "dropout": 0.0}
    (folder / "sizes.json").write_text(json.dumps(sizes))
    plain = ("--no-augment", "--averaging", "0", "--rate", "3e-3", "--epochs", "16", "--out", "run")
    settings = {"device": "cpu", "torch_threads": 1, "dtype": "float32"}
    done = clapboard(*COMMAND, "--data", "tone-set", "--towers", towers, *plain, **settings)
    assert done.exit_code == 0, done.stderr
    encoder = ClapEncoder.load(str(folder / "run" / "checkpoint"), device="cpu", engine="torch")
    cosines = encoder.embed_windows(np.stack([*windows.values()])) @ encoder.embed_texts([*windows]).T
    assert np.trace(cosines) > cosines.sum() - np.trace(cosines) + 0.1


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_training_goes_on_from_a_checkpoint_and_is_measured(
    clapboard: Clapboard, folder: Path, tiny_clap: str, dtype: str
) -> None:
    arguments = ("--data", "set", "--validation", "set", "--batch-size", "6", "--epochs", "1", "--evaluate-every", "1")
    plain = ("--no-augment", "--averaging", "0", "--warmup", "0")
    settings = {"device": "cpu", "torch_threads": 1, "dtype": dtype}
    before = load_file(Path(tiny_clap) / "model.safetensors")
    for out, rate in {"slow": "1e-12", "fast": "1e-3"}.items():
        done = clapboard("pretrain", *arguments, *plain, "--rate", rate, "--model", tiny_clap, "--out", out, **settings)
        assert done.exit_code == 0, done.stderr
        after = load_file(folder / out / "checkpoint" / "model.safetensors")
        assert after.keys() == before.keys()
        learnt = [name for name, value in before.items() if value.is_floating_point() and "running_" not in name]
        stayed = [name for name in learnt if torch.allclose(after[name], before[name], rtol=0, atol=1e-7)]
        # Step by step from the checkpoint's own weights: with no rate to speak of they are what comes out.
        assert (len(stayed) == len(learnt)) == (out == "slow")
        curves = EventAccumulator(str(folder / out / "curves")).Reload()
        assert {"text to audio R@1", "audio to text R@10"} <= set(curves.Tags()["scalars"])
    encoders = (
        ClapEncoder.load(str(path), device="cpu", engine="torch") for path in (tiny_clap, folder / "slow/checkpoint")
    )
    assert torch.equal(*(encoder.log_mel.filters for encoder in encoders))


@pytest.mark.parametrize("captions", ["rules", "alone"])
def test_what_has_tags_alone_is_validated_on_the_captions_that_they_become(
    clapboard: Clapboard, folder: Path, captions: str
) -> None:
    """As README shows it: folders by tag, built with a validation share."""
    for number, tag in enumerate(["rain", "siren", "dog_bark"] * 4):
        record(folder / "kinds" / tag / f"{number}.wav", 100 + number, 0.4)
    built = clapboard("data", "build", "kinds", "--out", "pairs", "--validation-share", "0.4", "--json")
    assert built.exit_code == 0, built.stderr
    told = {one["split"]: one for one in document(built)["data_sets"]}
    assert told["validation"]["captions"] == 0
    arguments = ("--data", "pairs/train", "--validation", "pairs/validation", "--captions", captions)
    done = clapboard(*COMMAND, *arguments, "--epochs", "1", "--out", "run", "--json", device="cpu", dtype="float32")
    assert done.exit_code == 0, done.exception
    (line,) = (line for line in done.stderr.splitlines() if "text to audio R@10" in line)
    figures = dict(re.findall(r"((?:text to audio|audio to text) R@\d+) ([\d.]+)", line))
    assert len(figures) == 4
    assert float(figures["audio to text R@10"]) == 1


def test_a_checkpoint_that_is_not_there_is_said_in_a_sentence(clapboard: Clapboard, folder: Path) -> None:
    done = clapboard("pretrain", "--data", "set", "--out", "run", "--model", "./nowhere", device="cpu")
    assert isinstance(done.exception, ModelError)
    assert "doesn't exist" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("--model", "mini", "--towers", "htsat+bert"), SettingsError, r"leave out --(towers|sizes), or --model"),
        (("--model", "mini"), SettingsError, "leave out --sizes, or --model"),
        (("--rate", "0"), SettingsError, "choose one above 0"),
        (("--captions", "alone", "--t5", "anything"), SettingsError, "leave out that or --t5"),
        (("--sizes", "lists.json"), SettingsError, "the objects audio_sizes and text_sizes"),
        (("--sizes", "heads.json"), ModelError, "num_attention_heads of tower roberta is 3, which doesn't divide"),
        (("--sizes", "bool.json"), SettingsError, "projection_dim, a whole number"),
        (("--sizes", "."), SettingsError, r"Sizes \. can't be read"),
        (("--sizes", "misspelt.json"), ModelError, "Tower roberta has no size hiden_size"),
        (("--validation", "nowhere"), TrainingError, "so it isn.t a complete data set"),
        (("--validation", "set/0.tar"), TrainingError, "so it isn.t a complete data set"),
        (("--towers", "htsat+gpt"), SettingsError, r"write htsat or cnn14, a \+, and roberta, bert or clip"),
        (("--sizes", "nowhere.json"), SettingsError, r"nowhere\.json can't be read as JSON"),
        (("--data", "nowhere"), TrainingError, "so it isn.t a complete data set"),
        (("--batch-size", "64"), TrainingError, "choose a smaller batch size"),
    ],
)
def test_what_cant_be_trained_is_said_in_a_sentence(
    clapboard: Clapboard, folder: Path, arguments: tuple[str, ...], error: type[Exception], said: str
) -> None:
    (folder / "lists.json").write_text(json.dumps(SIZES | {"audio_sizes": [1, 2]}))
    (folder / "heads.json").write_text(
        json.dumps(SIZES | {"text_sizes": {"hidden_size": 16, "num_attention_heads": 3}})
    )
    (folder / "bool.json").write_text(json.dumps(SIZES | {"projection_dim": True}))
    (folder / "misspelt.json").write_text(json.dumps(SIZES | {"text_sizes": {"hiden_size": 16}}))
    done = clapboard(*COMMAND, "--epochs", "1", "--out", "run", *arguments, device="cpu")
    assert isinstance(done.exception, error)
    assert re.search(said, str(done.exception))
    assert not (folder / "run" / "checkpoint").exists()
