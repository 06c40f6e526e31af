"""`clapboard calibrate` and what CLAPBOARD_DTYPE=int8 makes of it: one calibration, in NNCF's own process, for all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from clapboard.audio.windows import WINDOW_SAMPLES, Waveform
from clapboard.cli import app
from clapboard.errors import ModelError, RequestError
from clapboard.model.checkpoints import fingerprint
from clapboard.model.clap import ClapEncoder
from clapboard.model.device import Arithmetic
from clapboard.model.int8 import Calibration
from clapboard.model.int8.calibration import content_of
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.tasks import KnownTask
from clapboard.store.versions import Version
from tests.clapboard.cli.conftest import Clapboard, document
from tests.support.fake_label_studio import CHOICES
from tests.support.processor import needs_int8
from tests.support.recordings import data_uri, sweep
from tests.support.tower_checkpoints import save_pair

pytestmark = [pytest.mark.usefixtures("one_torch_thread"), needs_int8]
NUM_FILES = 20


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings, one of which is none."""
    folder = tmp_path_factory.mktemp("sounds")
    for number in range(NUM_FILES):
        soundfile.write(folder / f"{number}.wav", sweep(0.5 + number / 10, seed=number), 48_000)
    (folder / "notes.txt").write_text("no audio", "utf-8")
    return folder


@pytest.fixture(scope="module")
def state(tiny_clap: Path, sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A MODEL_DIR after `clapboard calibrate` as typed."""
    folder = tmp_path_factory.mktemp("state")
    env = {"MODEL_DIR": str(folder), "CLAPBOARD_MODEL": str(tiny_clap), "CLAPBOARD_DTYPE": "int8"}
    done = CliRunner().invoke(app, ["calibrate", str(sounds), "--json"], env=env)
    assert done.exit_code == 0, done.exception
    (folder / "told.json").write_text(done.stdout, "utf-8")
    return folder


@pytest.fixture
def calibration(state: Path, tiny_clap: Path, tmp_path: Path) -> Path:
    """A copy of the calibration's folder, to be damaged."""
    return shutil.copytree(Settings(MODEL_DIR=state).calibration_dir(str(tiny_clap)), tmp_path / "calibration")


def load(model: Path, calibration: Path | None, **others: object) -> ClapEncoder:
    settings = {"device": "cpu", "dtype": "int8", "batch_size": 4, "calibration": calibration} | others
    return ClapEncoder.load(str(model), **settings)  # type: ignore[arg-type]


def windows() -> Waveform:
    return np.stack([np.resize(sweep(3, seed=seed), WINDOW_SAMPLES) for seed in range(5)]).astype(np.float32)


def test_what_was_calibrated_is_told(state: Path, tiny_clap: Path, calibration: Path) -> None:
    (told,) = json.loads((state / "told.json").read_text("utf-8"))
    assert (told["model"], told["encoder_version"]) == (str(tiny_clap), fingerprint(tiny_clap))
    assert told["num_windows"] == NUM_FILES * 4 // 5
    assert 0.99 <= told["least_cosine"] <= told["mean_cosine"] <= 1
    assert told["dtype"] == f"int8-{content_of(calibration / (told['content'] + '.xml'))}"
    assert np.load(calibration / f"{told['content']}.npy").shape == (1, 1001, 64)  # an average, nobody's recording
    assert {file.name for file in calibration.iterdir()} == {
        f"{told['content']}.xml",
        f"{told['content']}.bin",
        f"{told['content']}.npy",
        "manifest.json",
    }


def test_vectors_are_near_those_in_float32_and_their_own_in_any_batch(calibration: Path, tiny_clap: Path) -> None:
    encoder = load(tiny_clap, calibration)
    exact = load(tiny_clap, None, dtype="float32", engine="torch").embed_windows(windows())
    found = encoder.embed_windows(windows())
    assert 0.99 < (found * exact).sum(axis=1).min() < 1 - 1e-6  # it is int8 that computed them
    for index in (4, 0):
        np.testing.assert_allclose(encoder.embed_windows(windows()[[index]])[0], found[index], atol=1e-6)
    assert f"it computes in {encoder.identity.dtype}, as CLAPBOARD_DTYPE says; engine openvino" in encoder.computing


def test_a_command_serves_in_int8(state: Path, tiny_clap: Path, sounds: Path, clapboard: Clapboard) -> None:
    settings = {"model": tiny_clap, "dtype": "int8", "engine": "auto", "device": "cpu"}
    done = clapboard("predict", str(sounds / "1.wav"), "--labels", "dog,rain", "--json", model_dir=state, **settings)
    assert done.exit_code == 0, done.exception
    assert document(done)[0]["scores"].keys() == {"dog", "rain"}
    missing = clapboard("predict", str(sounds / "1.wav"), "--labels", "dog,rain", **settings)
    assert isinstance(missing.exception, ModelError)
    assert str(missing.exception) == (
        f"Model {tiny_clap} has not been calibrated for int8: "
        "run `clapboard calibrate`, or set CLAPBOARD_DTYPE to auto."
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("manifest.json is gone", "has not been calibrated"),
        ("manifest.json is cut", "can't be read"),
        ("the encoder is another", "has changed since it was calibrated"),
        ("the recipe is another", "is of another release"),
        ("the weights are damaged", "is damaged"),
        ("the weights are gone", "is damaged"),
    ],
)
def test_what_does_not_fit_is_refused(calibration: Path, tiny_clap: Path, fault: str, reason: str) -> None:
    manifest = calibration / "manifest.json"
    content = json.loads(manifest.read_text("utf-8"))
    weights = calibration / f"{content['content']}.bin"
    if fault == "manifest.json is gone":
        manifest.unlink()
    elif fault == "manifest.json is cut":
        manifest.write_bytes(manifest.read_bytes()[:-9])
    elif fault == "the encoder is another":
        manifest.write_text(json.dumps(content | {"encoder_version": "0123456789ab"}), "utf-8")
    elif fault == "the recipe is another":
        manifest.write_text(json.dumps(content | {"recipe": 0}), "utf-8")
    elif fault == "the weights are damaged":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    else:
        weights.unlink()
    with pytest.raises(ModelError, match=reason) as refused:
        load(tiny_clap, calibration)
    assert str(refused.value).endswith("run `clapboard calibrate`, or set CLAPBOARD_DTYPE to auto.")


def test_another_engine_and_a_processor_without_int8_are_refused(calibration: Path, tiny_clap: Path) -> None:
    with pytest.raises(ModelError, match="Engine torch doesn't compute int8: set CLAPBOARD_ENGINE to auto"):
        load(tiny_clap, calibration, engine="torch")
    with pytest.raises(ModelError, match="Xeon E5 has no instructions for int8"):
        load(tiny_clap, calibration, arithmetic=Arithmetic("Xeon E5", ()))


def test_a_calibration_replaces_the_one_before_only_when_it_is_whole(
    calibration: Path, tiny_clap: Path, tmp_path: Path
) -> None:
    """A second one, with a remark in the model that changes nothing but its content."""
    before = Calibration.read(calibration, "m", fingerprint(tiny_clap))
    other = tmp_path / "other.xml"
    other.write_text(before.model_file(calibration).read_text("utf-8") + "<!-- another -->", "utf-8")
    for suffix in (".bin", ".npy"):
        shutil.copy(before.model_file(calibration).with_suffix(suffix), other.with_suffix(suffix))
    shutil.copy(other, calibration / "killed-before-the-manifest.xml")
    assert load(tiny_clap, calibration).identity.dtype == before.dtype
    after = replace(before, content=content_of(other))
    after.publish(calibration, other)
    assert load(tiny_clap, calibration).identity.dtype == after.dtype != before.dtype
    assert len([*calibration.iterdir()]) == 4


def test_what_cannot_be_calibrated_is_a_sentence(
    tiny_clap: Path, tiny_fused_clap: Path, sounds: Path, tmp_path: Path, clapboard: Clapboard
) -> None:
    (tmp_path / "few").mkdir()
    shutil.copy(sounds / "1.wav", tmp_path / "few")
    pann = save_pair(tmp_path / "pann", "cnn14", "bert")
    for arguments, model, error, reason in (
        ((str(tmp_path / "few"),), tiny_clap, ModelError, "needs 16 windows of audio or more, and there are 1"),
        ((str(sounds),), tiny_fused_clap, ModelError, "is for HTSAT without feature fusion"),
        ((str(sounds),), pann, ModelError, "is for HTSAT without feature fusion"),
        ((), tiny_clap, RequestError, "name either a FOLDER of it or a --project"),
        ((str(sounds), "--version", "v"), tiny_clap, RequestError, "A --version belongs to a project"),
    ):
        done = clapboard("calibrate", *arguments, model=model)
        assert isinstance(done.exception, error)
        assert reason in str(done.exception)


PROJECT = 7
TUNED = f"models/{PROJECT}/tiny-tuned-1"


@pytest.fixture
def store(tmp_path: Path, tiny_clap: Path) -> Iterator[Store]:
    """A project with four sounds, of which one is held out and one is there twice, a damaged one, and a version."""
    settings = Settings(MODEL_DIR=tmp_path / "state", CLAPBOARD_MODEL=str(tiny_clap))
    store = Store.open(settings)
    store.catalog.put_project(PROJECT, CHOICES, "v1")
    uris = [*(data_uri(number) for number in (0, 1, 2, 3, 0)), "data:audio/wav;base64,UklGRg=="]
    known = [KnownTask(number, uri, f"k{number}", "s", number == 4) for number, uri in enumerate(uris, 1)]
    store.tasks.put(PROJECT, known)
    shutil.copytree(tiny_clap, settings.model_dir / TUNED)
    (settings.model_dir / TUNED / "manifest.json").write_text("{}", "utf-8")  # says that it is complete
    store.versions.put(Version(PROJECT, "tiny-tuned-1.head-bb.s1", TUNED, "11", "head-bb", "s1"))
    yield store
    store.close()


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, Path]]:
    """The encoders that were given to NNCF, with the number of windows and the folder; none is quantised."""
    noted: list[tuple[str, int, Path]] = []

    def note(encoder: ClapEncoder, windows: list[Waveform], folder: Path) -> Calibration:
        noted.append((encoder.identity.model, len(windows), folder))
        assert encoder.identity.dtype == "float32"
        return Calibration(encoder.identity.version, "0123abcd", len(windows), 1.0, 1.0)

    monkeypatch.setattr("clapboard.model.int8.calibrate.calibrate", note)
    return noted


@pytest.mark.usefixtures("store")
def test_a_projects_own_audio_calibrates_what_serves_it_or_a_version_by_name(
    clapboard: Clapboard, tiny_clap: Path, tmp_path: Path, calibrated: list[tuple[str, int, Path]]
) -> None:
    of_project = ("calibrate", "--project", str(PROJECT), "--json")
    settings = Settings(MODEL_DIR=tmp_path / "state", CLAPBOARD_MODEL=str(tiny_clap))
    done = clapboard(*of_project, model=tiny_clap, dtype="int8", device="cpu")
    assert done.exit_code == 0, done.exception
    assert document(done)[0]["dtype"] == "int8-0123abcd"
    done = clapboard(*of_project, "--version", "tiny-tuned-1.head-bb.s1", model=tiny_clap, dtype="int8", device="cpu")
    assert done.exit_code == 0, done.exception
    # Each sound once; neither what is held out nor what is damaged.
    assert [(num_windows, folder) for _, num_windows, folder in calibrated] == [
        (3, settings.calibration_dir(str(tiny_clap))),
        (3, settings.calibration_dir(TUNED)),
    ]
    unknown = clapboard(*of_project, "--version", "v9", model=tiny_clap)
    assert isinstance(unknown.exception, ModelError)
    assert str(unknown.exception).startswith(f"Project {PROJECT} has no finetuned version v9: see `clapboard models")
